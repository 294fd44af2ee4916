package oras

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/google/go-containerregistry/pkg/authn"
)

// Store holds manifests and blobs by digest, and tags: an OCI image layout
// directory or one repository of a registry. Nothing that it returns is
// trusted beyond what each method says.
//
// Errors are ErrNotFound, ErrRefused, ErrInvalid and ErrUnreachable, or those
// of the context. Implementations are safe for concurrent use.
type Store interface {
	// String is the place, as a reference without tag or digest.
	String() string

	// Resolve returns the descriptor of the manifest or index that name (a tag,
	// or a digest in text form) stands for. Its digest is that of bytes
	// that were read, its media type the one that they state.
	Resolve(ctx context.Context, name string) (Descriptor, error)

	// Manifest returns the bytes of a manifest or index. They have the digest
	// d.Digest and state their media type; size and media type in d are held
	// against them unless zero.
	Manifest(ctx context.Context, d Descriptor) ([]byte, error)

	// Blob opens a blob. The reader fails with canon.ErrMismatch where others
	// say io.EOF unless the bytes have size and digest of d; nothing read
	// before io.EOF may be used.
	Blob(ctx context.Context, d Descriptor) (io.ReadCloser, error)

	// PutBlob stores a blob unless it is there. open may be called again after
	// a passing failure. Bytes that do not fit d are ErrInvalid, and not stored.
	PutBlob(ctx context.Context, d Descriptor, open func() (io.ReadCloser, error)) error

	// PutManifest stores a manifest or index, without a tag. Its blobs must be
	// there. If it has a subject, it is a referrer of that from then on: this
	// has been read back when PutManifest returns nil.
	PutManifest(ctx context.Context, b []byte) (Descriptor, error)

	// Tag makes tag stand for a manifest that is in the store, whatever it
	// stood for before.
	Tag(ctx context.Context, tag string, d Descriptor) error

	// Referrers lists what says that it refers to the manifest d, at most
	// MaxReferrers, in the store's order. Descriptors come from a listing that
	// anyone with write access can shape: only the manifest of each entry
	// decides what it is. complete is false when the listing was cut off or
	// could not be read to its end.
	Referrers(ctx context.Context, d canon.Digest) (list []Descriptor, complete bool, err error)
}

// Options are the facts about a store that its reference does not say. The zero
// value reads, over TLS, with the credentials that docker and crane would use.
type Options struct {
	// Write asks a registry for the right to push, and makes a layout
	// directory where there is none.
	Write bool

	// PlainHTTP allows unencrypted HTTP to the named registry. To a registry on
	// the loopback interface it is allowed in any case.
	PlainHTTP bool

	// Anonymous sends no credentials. Otherwise those that the docker
	// configuration has for the named host are used, for that host only.
	Anonymous bool

	// RootCAs replaces the system's certificate authorities, if not nil.
	RootCAs *x509.CertPool

	// Timeout bounds one request, 0 means one minute. A blob is whole within it,
	// or brings 16 KiB a second in each span of it.
	Timeout time.Duration

	// UserAgent is what a registry sees, "" means "bhtrain".
	UserAgent string

	// Sessions keeps registries open from one Open to the next, if not nil.
	Sessions *Sessions

	// For tests; zero means the docker configuration, firstPause, the network.
	// FS is where a layout directory is, nil means the file system of the host.
	// In any other, writers of other processes are not locked out.
	FS durable.FS

	keychain authn.Keychain
	pause    time.Duration
	outside  func(ctx context.Context, network, address string) (net.Conn, error)
}

// Open opens the store of a reference. A layout that is not there is ErrNotFound
// unless opt.Write; a directory with something else in it is ErrExists. A
// registry is asked whether it answers, unless opt.Sessions has it open; tag and
// digest of ref decide at most how.
func Open(ctx context.Context, ref Ref, opt Options) (Store, error) {
	switch {
	case ref.Layout != "" && ref.Repository == "":
		l := &layout{dir: ref.Layout, fsys: durable.OS, lock: lockFile}
		if opt.FS != nil && opt.FS != durable.OS {
			l.fsys, l.lock = opt.FS, func(string) (func(), error) { return func() {}, nil }
		}
		if err := l.open(opt.Write); err != nil {
			return nil, err
		}
		return l, nil
	case ref.Repository != "" && ref.Layout == "":
		first := ""
		if ref.Tag != "" || !ref.Digest.IsZero() {
			first = ref.Name()
		}
		if r := opt.Sessions.resume(ref.Repository); r != nil {
			return r, nil
		}
		r, err := openRegistry(ctx, ref.Repository, first, opt)
		if err != nil {
			return nil, err
		}
		opt.Sessions.keep(ref.Repository, r)
		return r, nil
	}
	return nil, fmt.Errorf("%w: reference names neither a directory nor a repository", ErrInvalid)
}

// Lookup returns the digest of what name stands for, as Resolve does, where the
// caller has the manifest known already, or a zero digest for none: a registry may
// answer with known, in one request without a body, and is believed, since it says
// in any case what its tags stand for.
func Lookup(ctx context.Context, s Store, name string, known canon.Digest) (canon.Digest, error) {
	if r, ok := s.(*remote); ok {
		d, err := r.resolve(ctx, name, known)
		return d.Digest, err
	}
	d, err := s.Resolve(ctx, name)
	return d.Digest, err
}

// checkManifest holds manifest bytes from a store against the descriptor by
// which they were asked for, and returns the media type that they state.
func checkManifest(b []byte, d Descriptor) (string, error) {
	if got := canon.Sum(b); got != d.Digest {
		return "", fmt.Errorf("%w: %w: asked for %s, got %s", ErrInvalid, canon.ErrMismatch, d.Digest, got)
	}
	t, err := sniff(b)
	switch {
	case err != nil:
		return "", err
	case d.Size != 0 && d.Size != int64(len(b)):
		return "", fmt.Errorf("%w: %w: %s has %d bytes, its descriptor says %d", ErrInvalid, canon.ErrMismatch, d.Digest, len(b), d.Size)
	case d.MediaType != "" && d.MediaType != t:
		return "", fmt.Errorf("%w: %s is %s, its descriptor says %q", ErrInvalid, d.Digest, t, printable(d.MediaType, 80))
	}
	return t, nil
}

// manifestDescriptor returns the descriptor of manifest bytes, from what they
// state about themselves.
func manifestDescriptor(b []byte) (Descriptor, error) {
	t, err := sniff(b)
	if err != nil {
		return Descriptor{}, err
	}
	d := describe(t, b, "")
	if m, err := decodeManifest(b); err == nil {
		d.ArtifactType = m.ArtifactType
	}
	return d, nil
}

// putBytes stores a blob that is in memory.
func putBytes(ctx context.Context, s Store, d Descriptor, b []byte) error {
	return s.PutBlob(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
}

// referrerList gathers the entries of a referrers listing.
type referrerList struct {
	list     []Descriptor
	complete bool
}

// add appends d unless it is there or the list is full.
func (r *referrerList) add(d Descriptor) {
	if slices.ContainsFunc(r.list, func(o Descriptor) bool { return o.Digest == d.Digest }) {
		return
	}
	if len(r.list) == MaxReferrers {
		r.complete = false
		return
	}
	d.Annotations = nil
	r.list = append(r.list, d)
}

// addIndex appends the entries of an image index. One that cannot be read
// makes the list incomplete, not unreadable.
func (r *referrerList) addIndex(b []byte) {
	entries, err := decodeIndex(b)
	if err != nil {
		r.complete = false
		return
	}
	for _, d := range entries {
		r.add(d)
		if !r.complete {
			return
		}
	}
}
