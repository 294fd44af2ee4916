package pipeline

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/battle-hardened-ai/bhtrain/verify"
)

// ErrSigningKey: a signing key that cannot or must not be used. Its message
// names the file and the remedy.
var ErrSigningKey = errors.New("signing key")

const (
	keyFile    = "signing.key" // in os.UserConfigDir()/bhtrain
	maxKeySize = 16 << 10      // bytes; a P-256 key in PEM is under 300
)

// Signer signs statements with an ECDSA P-256 key from a file. It may be used
// by many goroutines.
type Signer struct {
	key  *ecdsa.PrivateKey
	pub  verify.Key
	path string
	made bool
}

// Key is the public half.
func (s *Signer) Key() verify.Key { return s.pub }

// Path is the file that the private key was read from.
func (s *Signer) Path() string { return s.path }

// PublicPath is the file beside Path where DefaultSigner writes the public
// key: the same name, ending in .pub.
func (s *Signer) PublicPath() string { return publicPath(s.path) }

// Made reports whether DefaultSigner made the key just now.
func (s *Signer) Made() bool { return s.made }

func publicPath(path string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + ".pub"
}

// LoadSigner reads a private key: one PEM block "PRIVATE KEY" (PKCS #8,
// not encrypted) with an ECDSA key on P-256. A file that others than its owner
// may read or write, or that holds anything else, is ErrSigningKey. Where the
// operating system has no such permissions (Windows) they are not checked.
func LoadSigner(path string) (*Signer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSigningKey, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrSigningKey, err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w %s: not a regular file", ErrSigningKey, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeySize+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSigningKey, err)
	}
	if len(text) > maxKeySize {
		return nil, fmt.Errorf("%w %s: larger than %d bytes", ErrSigningKey, path, maxKeySize)
	}
	key, err := parsePrivateKey(text)
	if errors.Is(err, errPublicHalf) { // whose mode is nobody's concern
		return nil, fmt.Errorf("%w %s: %w", ErrSigningKey, path, err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w %s: others may use it (mode %04o); run 'chmod 600 %s'", ErrSigningKey, path, info.Mode().Perm(), path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrSigningKey, path, err)
	}
	pub, err := verify.NewKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrSigningKey, path, err)
	}
	return &Signer{key: key, pub: pub, path: path}, nil
}

var errPublicHalf = errors.New("this is the public half; name the private key")

// parsePrivateKey never puts a part of the text into its errors.
func parsePrivateKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("no PEM block")
	case block.Type == "PUBLIC KEY":
		return nil, errPublicHalf
	case block.Type == "EC PRIVATE KEY":
		return nil, errors.New("not PKCS #8; convert it with 'openssl pkcs8 -topk8 -nocrypt'")
	case strings.HasPrefix(block.Type, "ENCRYPTED"):
		return nil, errors.New("the key is encrypted; decrypt it into a file with mode 0600")
	case block.Type != "PRIVATE KEY" || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("want exactly one PEM block \"PRIVATE KEY\" (PKCS #8)")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("damaged PKCS #8")
	}
	ec, ok := k.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errors.New("want an ECDSA key on P-256")
	}
	return ec, nil
}

// DefaultSigner loads the key of this user, signing.key in
// os.UserConfigDir()/bhtrain, and makes it first where there is none: folder
// mode 0700, file mode 0600, public half beside it as signing.pub. A key that
// is there is never overwritten, and of two processes that make it at once one
// wins and both use its key.
//
// Output is the folder that the release is written to, "" for none: a key
// would leave the machine with it, so a key folder inside it is ErrSigningKey.
func DefaultSigner(output string) (*Signer, error) {
	config, err := os.UserConfigDir()
	if err != nil {
		return nil, fmt.Errorf("%w: %w; name a key with --key", ErrSigningKey, err)
	}
	path := filepath.Join(config, "bhtrain", keyFile)
	if err := refuseInside(path, output); err != nil {
		return nil, err
	}
	made := false
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if made, err = makeKey(path); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSigningKey, err)
		}
	}
	s, err := LoadSigner(path)
	if err != nil {
		return nil, err
	}
	s.made = made
	// A public file that belongs to another key would put the wrong key into a policy.
	switch old, err := os.ReadFile(s.PublicPath()); {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := writeNew(s.PublicPath(), []byte(s.pub.PEM()), 0o644); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSigningKey, err)
		}
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrSigningKey, err)
	case string(old) != s.pub.PEM():
		return nil, fmt.Errorf("%w %s: it does not belong to %s; remove it, it is written anew", ErrSigningKey, s.PublicPath(), path)
	}
	return s, nil
}

// CheckOutside reports ErrSigningKey when the private key lies in or below the
// folder output, which need not exist.
func (s *Signer) CheckOutside(output string) error { return refuseInside(s.path, output) }

func refuseInside(path, output string) error {
	if output == "" {
		return nil
	}
	p, err := realPath(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSigningKey, err)
	}
	out, err := realPath(output)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSigningKey, err)
	}
	rel, err := filepath.Rel(out, p)
	if err == nil && filepath.IsLocal(rel) {
		return fmt.Errorf("%w %s lies in the output folder %s; keep it elsewhere", ErrSigningKey, path, output)
	}
	return nil
}

// realPath makes path absolute with symbolic links resolved in the part of it
// that exists.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		up := filepath.Dir(path)
		if !errors.Is(err, fs.ErrNotExist) || up == path {
			return "", err
		}
		rest = filepath.Join(filepath.Base(path), rest)
		path = up
	}
}

func makeKey(path string) (made bool, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
		return false, fmt.Errorf("folder %s: others may write to it; run 'chmod 700 %s'", dir, dir)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return false, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return false, err
	}
	return writeNew(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// writeNew writes a file that appears whole or not at all and never replaces
// one: it is written aside and hard-linked into place. False without an error
// means that another process was first.
func writeNew(path string, data []byte, mode fs.FileMode) (bool, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return false, err
	}
	if err := os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if d, err := os.Open(filepath.Dir(path)); err == nil {
		d.Sync() // best effort: a key lost with the power is made again
		d.Close()
	}
	return true, nil
}

// SignStatement signs the canonical JSON of statement and returns a Sigstore
// bundle (v0.3, JSON) with a DSSE envelope. No service is asked, so the bundle
// holds no time stamp and no log entry. The bundle was verified with the
// signer's own key before it is returned. Two calls give two bundles: ECDSA
// signatures are randomised.
func SignStatement(ctx context.Context, signer *Signer, statement verify.Statement) ([]byte, error) {
	payload, err := statement.Encode()
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	raw, err := signature.LoadVerifier(&signer.key.PublicKey, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	own := root.NewExpiringKey(raw, time.Time{}, time.Time{})
	b, err := sign.Bundle(
		&sign.DSSEData{Data: payload, PayloadType: verify.PayloadType},
		keypair{signer},
		sign.BundleOptions{
			Context:     ctx,
			TrustedRoot: root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return own, nil }),
		})
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	text, err := protojson.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	v := jsontext.Value(text) // protojson varies its white space from build to build
	if err := v.Compact(); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return v, nil
}

// keypair is a Signer as sigstore-go wants to see it.
type keypair struct{ s *Signer }

func (keypair) GetHashAlgorithm() protocommon.HashAlgorithm {
	return protocommon.HashAlgorithm_SHA2_256
}

func (keypair) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256
}

// GetHint is what cosign writes for a key, so that its tables show the same.
func (k keypair) GetHint() []byte {
	id := k.s.pub.ID()
	return []byte(base64.StdEncoding.EncodeToString(id[:]))
}

func (keypair) GetKeyAlgorithm() string { return "ECDSA" }

func (k keypair) GetPublicKey() crypto.PublicKey { return &k.s.key.PublicKey }

func (k keypair) GetPublicKeyPem() (string, error) { return k.s.pub.PEM(), nil }

func (k keypair) SignData(_ context.Context, data []byte) (sig, digest []byte, err error) {
	sum := sha256.Sum256(data)
	sig, err = ecdsa.SignASN1(rand.Reader, k.s.key, sum[:])
	return sig, sum[:], err
}
