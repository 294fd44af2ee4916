// Package canon gives bytes their identity: SHA-256 digests, canonical JSON
// (RFC 8785), strict JSON decoding, an order-preserving row encoding, and a
// reader that fails unless the bytes are the ones that were asked for.
package canon

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

// Errors that callers branch on. Messages around them say which bytes and why.
var (
	// ErrMismatch: bytes are not the ones their digest or size names.
	ErrMismatch = errors.New("digest mismatch")
	// ErrTooLarge: more bytes than the caller's limit.
	ErrTooLarge = errors.New("too large")
	// ErrSyntax: bytes are not a valid encoding of what was asked for.
	ErrSyntax = errors.New("malformed")
)

// Digest is a SHA-256 digest. Its text form is that of the OCI image
// specification, "sha256:" and 64 lower-case hex digits. The zero Digest names
// nothing; its text form is the empty string.
type Digest [sha256.Size]byte

// Sum returns the digest of b.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads the text form. Upper-case hex, other algorithms,
// surrounding space and 64 zeros, which would name nothing, are ErrSyntax.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	h, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(h) != 2*len(d) || strings.ToLower(h) != h {
		return Digest{}, fmt.Errorf("%w digest %q: want sha256: and 64 lower-case hex digits", ErrSyntax, clip(s))
	}
	if _, err := hex.Decode(d[:], []byte(h)); err != nil {
		return Digest{}, fmt.Errorf("%w digest %q: %v", ErrSyntax, clip(s), err)
	}
	if d.IsZero() {
		return Digest{}, fmt.Errorf("%w digest %q: all zeros name nothing", ErrSyntax, clip(s))
	}
	return d, nil
}

// clip bounds foreign text in error messages, in bytes.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// String returns "sha256:<hex>", or "" for the zero Digest.
func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return "sha256:" + d.Hex()
}

// Hex returns the 64 hex digits alone.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText is String; it makes Digest a JSON string.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is ParseDigest; the empty text gives the zero Digest.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Digest{}
		return nil
	}
	p, err := ParseDigest(string(b))
	if err != nil {
		return err
	}
	*d = p
	return nil
}

// NewReader returns a reader of r that reports ErrMismatch instead of io.EOF
// unless exactly size bytes with digest d were read, and goes on reporting it. It
// never reads more than size+1 bytes from r. Bytes handed out before the end are not yet checked:
// act on them only after io.EOF.
func NewReader(r io.Reader, d Digest, size int64) io.Reader {
	return &reader{r: io.LimitReader(r, max(size, size+1)), want: d, left: size, h: sha256.New()}
}

type reader struct {
	r    io.Reader
	want Digest
	left int64
	h    hash.Hash
	err  error // the refusal, once there was one
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.r.Read(p)
	if int64(n) > r.left {
		r.err = fmt.Errorf("%w: %s is longer than its stated size", ErrMismatch, r.want)
		return 0, r.err
	}
	r.left -= int64(n)
	r.h.Write(p[:n])
	if err != io.EOF {
		return n, err
	}
	var got Digest
	switch r.h.Sum(got[:0]); {
	case r.left != 0:
		r.err = fmt.Errorf("%w: %s is %d bytes short", ErrMismatch, r.want, r.left)
	case got != r.want:
		r.err = fmt.Errorf("%w: want %s, got %s", ErrMismatch, r.want, got)
	default:
		return n, io.EOF
	}
	return n, r.err
}

// ReadAll reads r to its end and returns its bytes once they are known to be
// the size bytes with digest d. A size above limit is ErrTooLarge before
// anything is read.
func ReadAll(r io.Reader, d Digest, size, limit int64) ([]byte, error) {
	if size < 0 || size > limit {
		return nil, fmt.Errorf("%w: %s states %d bytes, limit %d", ErrTooLarge, d, size, limit)
	}
	b := make([]byte, 0, size+1)
	v := NewReader(r, d, size)
	for {
		n, err := v.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
}
