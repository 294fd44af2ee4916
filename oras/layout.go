package oras

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// layoutFile is the marker file of an OCI image layout, and its only content.
const (
	layoutFile    = "oci-layout"
	layoutContent = `{"imageLayoutVersion":"1.0.0"}`
	indexFile     = "index.json"
)

// layout is an OCI image layout directory.
//
// Readers take no lock: index.json is replaced in one step, and blobs, named
// by their digest, never change and are never removed. Writers hold a lock on
// the marker file while they read, change and replace index.json; a manifest
// stands in blobs before any index names it.
type layout struct {
	dir  string
	fsys durable.FS
	lock func(path string) (unlock func(), err error) // against writers in other processes
	mu   sync.Mutex                                   // against those in this one
	turn sync.Mutex                                   // of exclusive
}

// open checks the marker file, or makes the layout if it may.
func (l *layout) open(write bool) error {
	dir := l.dir
	b, err := l.readFile(filepath.Join(dir, layoutFile), maxAnswer)
	switch {
	case err == nil:
		var marker struct {
			Version string `json:"imageLayoutVersion"`
		}
		if err := json.Unmarshal(b, &marker); err != nil || marker.Version != "1.0.0" {
			return fmt.Errorf("%s: %w: %s is not that of an OCI image layout 1.0.0", dir, ErrInvalid, layoutFile)
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w: %s is not that of an OCI image layout: %w", dir, ErrInvalid, layoutFile, err)
	case !write:
		if _, err := l.fsys.Lstat(dir); err != nil {
			return fmt.Errorf("%s: OCI image layout %w: there is no such directory", dir, ErrNotFound)
		}
		return fmt.Errorf("%s: OCI image layout %w: the directory has no file %s", dir, ErrNotFound, layoutFile)
	}
	return l.create()
}

// create makes an empty layout, or completes one whose making was cut short.
// The marker comes last.
func (l *layout) create() error {
	if err := l.fsys.MkdirAll(l.dir, 0o777); err != nil {
		return fmt.Errorf("%s: %w", l.dir, err)
	}
	entries, err := l.fsys.ReadDir(l.dir)
	if err != nil {
		return fmt.Errorf("%s: %w", l.dir, err)
	}
	for _, e := range entries {
		if n := e.Name(); n != "blobs" && n != indexFile && !durable.IsTemp(n) {
			return fmt.Errorf("%s: %w: the directory holds other files (%s) and no OCI image layout: choose another or an empty one", l.dir, ErrExists, printable(n, 80))
		}
	}
	if err := l.fsys.MkdirAll(filepath.Join(l.dir, "blobs", "sha256"), 0o777); err != nil {
		return fmt.Errorf("%s: %w", l.dir, err)
	}
	switch _, err := l.fsys.Lstat(filepath.Join(l.dir, indexFile)); {
	case errors.Is(err, fs.ErrNotExist):
		if err := l.writeIndex(nil); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("%s: %w", l.dir, err)
	}
	return l.write(layoutFile, []byte(layoutContent))
}

func (l *layout) write(name string, b []byte) error {
	if err := durable.WriteFile(l.fsys, filepath.Join(l.dir, name), b, 0o666); err != nil {
		return fmt.Errorf("%s: %w", l.dir, err)
	}
	return nil
}

func (l *layout) String() string { return Ref{Layout: l.dir}.String() }

func (l *layout) blobPath(d canon.Digest) string {
	return filepath.Join(l.dir, "blobs", "sha256", d.Hex())
}

// openFile opens a file that another writer may be replacing at this moment.
// FS.Open refuses what changes under it, since a link could be put there; a file
// that is still regular is then opened again.
func (l *layout) openFile(path string) (durable.File, error) {
	for try := 1; ; try++ {
		f, err := l.fsys.Open(path)
		if !errors.Is(err, durable.ErrNotFile) || try == 100 {
			return f, err
		}
		if info, lerr := l.fsys.Lstat(path); lerr != nil || !info.Mode().IsRegular() {
			return nil, err
		}
	}
}

// readFile returns the bytes of a regular file of at most limit bytes.
func (l *layout) readFile(path string, limit int64) ([]byte, error) {
	f, err := l.openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: limit %d bytes", durable.ErrTooLarge, limit)
	}
	return b, err
}

// at prefixes an error with the place; foreign errors of the file system become
// one of ours.
func (l *layout) at(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %s: %w", l.dir, what, ErrNotFound)
	case errors.Is(err, durable.ErrNotFile), errors.Is(err, durable.ErrTooLarge):
		return fmt.Errorf("%s: %s: %w: %w", l.dir, what, ErrInvalid, err)
	}
	return fmt.Errorf("%s: %s: %w", l.dir, what, err)
}

// entry is one descriptor of index.json. What other tools wrote into it is kept.
type entry struct {
	Descriptor
	Rest jsontext.Value `json:",embed"`
}

func (e *entry) tag() string { return e.Annotations[annotationRefName] }

// plain returns the descriptor without the annotations of the index.
func (e *entry) plain() Descriptor {
	d := e.Descriptor
	d.Annotations = nil
	return d
}

// readIndex returns the entries of index.json.
func (l *layout) readIndex() ([]entry, error) {
	b, err := l.readFile(filepath.Join(l.dir, indexFile), MaxManifest)
	if err != nil {
		return nil, l.at(indexFile, err)
	}
	var idx struct {
		Manifests []jsontext.Value `json:"manifests"`
	}
	if err := json.Unmarshal(b, &idx); err != nil {
		return nil, fmt.Errorf("%s: %w: %s: %s", l.dir, ErrInvalid, indexFile, printable(err.Error(), maxMessage))
	}
	var list []entry
	for _, raw := range idx.Manifests {
		var e entry
		if json.Unmarshal(raw, &e) == nil && !e.Digest.IsZero() && e.Size >= 0 {
			list = append(list, e)
		}
	}
	return list, nil
}

// writeIndex replaces index.json. Entries are sorted by tag, then digest, so
// that the file does not depend on the order of writes.
func (l *layout) writeIndex(list []entry) error {
	slices.SortStableFunc(list, func(a, b entry) int {
		if c := strings.Compare(a.tag(), b.tag()); c != 0 {
			return c
		}
		return bytes.Compare(a.Digest[:], b.Digest[:])
	})
	idx := struct {
		SchemaVersion int     `json:"schemaVersion"`
		MediaType     string  `json:"mediaType"`
		Manifests     []entry `json:"manifests"`
	}{2, TypeIndex, list}
	b, err := canon.Marshal(idx)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", l.dir, indexFile, err)
	}
	if len(b) > MaxManifest {
		return fmt.Errorf("%s: %w: %s would have %d bytes, limit %d: start another directory", l.dir, ErrInvalid, indexFile, len(b), MaxManifest)
	}
	return l.write(indexFile, b)
}

// locked runs f while no other writer of this layout runs.
func (l *layout) locked(f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	unlock, err := l.lock(filepath.Join(l.dir, layoutFile))
	if err != nil {
		return fmt.Errorf("%s: locking for writing: %w", l.dir, err)
	}
	defer unlock()
	return f()
}

// exclusive is Exclusive. Its lock is one on the folder of the blobs, since
// what f does takes that on the marker file.
func (l *layout) exclusive(ctx context.Context, f func() error) error {
	type taken struct {
		unlock func()
		err    error
	}
	ch := make(chan taken, 1)
	go func() { // a lock cannot be waited for with a context
		l.turn.Lock()
		unlock, err := l.lock(filepath.Join(l.dir, "blobs"))
		if err != nil {
			unlock = func() {}
		}
		ch <- taken{func() { unlock(); l.turn.Unlock() }, err}
	}()
	select {
	case t := <-ch:
		defer t.unlock()
		if t.err != nil {
			return fmt.Errorf("%s: locking for writing: %w", l.dir, t.err)
		}
		return f()
	case <-ctx.Done():
		go func() { (<-ch).unlock() }()
		return ctx.Err()
	}
}

func (l *layout) Resolve(ctx context.Context, name string) (Descriptor, error) {
	d := Descriptor{}
	if strings.Contains(name, ":") {
		digest, err := canon.ParseDigest(name)
		if err != nil {
			return d, fmt.Errorf("%s: %w", l.dir, invalid(err))
		}
		d.Digest = digest
	} else {
		list, err := l.readIndex()
		if err != nil {
			return d, err
		}
		i := slices.IndexFunc(list, func(e entry) bool { return e.tag() == name })
		if i < 0 {
			return d, fmt.Errorf("%s: tag %q %w", l.dir, printable(name, 140), ErrNotFound)
		}
		d.Digest = list[i].Digest
	}
	b, err := l.Manifest(ctx, d)
	if err != nil {
		return d, err
	}
	return manifestDescriptor(b)
}

func (l *layout) Manifest(_ context.Context, d Descriptor) ([]byte, error) {
	b, err := l.readFile(l.blobPath(d.Digest), MaxManifest)
	if err != nil {
		return nil, l.at("manifest "+d.Digest.String(), err)
	}
	if _, err := checkManifest(b, d); err != nil {
		return nil, l.at("manifest "+d.Digest.String(), err)
	}
	return b, nil
}

func (l *layout) Blob(_ context.Context, d Descriptor) (io.ReadCloser, error) {
	f, err := l.openFile(l.blobPath(d.Digest))
	if err != nil {
		return nil, l.at("blob "+d.Digest.String(), err)
	}
	return &blobReader{Reader: canon.NewReader(f, d.Digest, d.Size), Closer: f, at: func(err error) error {
		return l.at("blob "+d.Digest.String(), invalid(err))
	}}, nil
}

// blobReader is a verifying reader whose errors say where the bytes came from.
type blobReader struct {
	io.Reader
	io.Closer
	at func(error) error
}

func (r *blobReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = r.at(err)
	}
	return n, err
}

func (l *layout) PutBlob(ctx context.Context, d Descriptor, open func() (io.ReadCloser, error)) error {
	path := l.blobPath(d.Digest)
	if info, err := l.fsys.Lstat(path); err == nil && info.Mode().IsRegular() && info.Size() == d.Size {
		// A file that was damaged since is written again; readers would only refuse it.
		if f, err := l.openFile(path); err == nil {
			_, err = io.Copy(io.Discard, canon.NewReader(f, d.Digest, d.Size))
			f.Close()
			if err == nil {
				return nil
			}
		}
	}
	rc, err := open()
	if err != nil {
		return fmt.Errorf("%s: blob %s: %w", l.dir, d.Digest, err)
	}
	defer rc.Close()
	what := "blob " + d.Digest.String()
	temp := filepath.Join(filepath.Dir(path), "."+d.Digest.Hex()+".tmp-"+strconv.FormatUint(rand.Uint64(), 36))
	f, err := l.fsys.Create(temp, 0o666)
	if err != nil {
		return l.at(what, err)
	}
	_, err = io.Copy(f, canon.NewReader(readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return rc.Read(p)
	}), d.Digest, d.Size))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = l.fsys.Rename(temp, path)
	}
	if err != nil {
		l.fsys.Remove(temp)
		return l.at(what, invalid(err))
	}
	if err := l.fsys.SyncDir(filepath.Dir(path)); err != nil {
		return l.at(what, err)
	}
	return nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// annotationSubject, in an entry of our index.json, repeats the subject of the
// manifest, so that looking for referrers need not open every manifest.
const annotationSubject = "vnd.battle-hardened-ai.subject"

// newEntry returns the index entry of manifest bytes, without a tag.
func (l *layout) newEntry(b []byte) (entry, error) {
	d, err := manifestDescriptor(b)
	if err != nil {
		return entry{}, l.at("manifest", err)
	}
	if m, err := decodeManifest(b); err == nil && m.Subject != nil {
		d.Annotations = map[string]string{annotationSubject: m.Subject.Digest.String()}
	}
	return entry{Descriptor: d}, nil
}

func (l *layout) PutManifest(ctx context.Context, b []byte) (Descriptor, error) {
	e, err := l.newEntry(b)
	if err != nil {
		return Descriptor{}, err
	}
	if err := putBytes(ctx, l, e.Descriptor, b); err != nil {
		return Descriptor{}, err
	}
	err = l.locked(func() error {
		list, err := l.readIndex()
		if err != nil {
			return err
		}
		if slices.ContainsFunc(list, func(o entry) bool { return o.Digest == e.Digest }) {
			return nil
		}
		return l.writeIndex(append(list, e))
	})
	return e.plain(), err
}

func (l *layout) Tag(ctx context.Context, tag string, d Descriptor) error {
	if !isTag(tag) {
		return fmt.Errorf("%s: %w: %q is not a tag", l.dir, ErrInvalid, printable(tag, 140))
	}
	b, err := l.Manifest(ctx, Descriptor{Digest: d.Digest})
	if err != nil {
		return err
	}
	tagged, err := l.newEntry(b)
	if err != nil {
		return err
	}
	if tagged.Annotations == nil {
		tagged.Annotations = map[string]string{}
	}
	tagged.Annotations[annotationRefName] = tag
	return l.locked(func() error {
		list, err := l.readIndex()
		if err != nil {
			return err
		}
		var kept []entry
		for _, e := range list {
			switch {
			case e.tag() == tag && e.Digest == tagged.Digest:
				return nil
			case e.tag() == tag:
				// What loses its tag stays in the index, or nothing would lead to it.
				delete(e.Annotations, annotationRefName)
			}
			if e.tag() != "" || e.Digest != tagged.Digest {
				kept = append(kept, e)
			}
		}
		return l.writeIndex(append(kept, tagged))
	})
}

// Referrers looks at the entries of index.json, where this package and oras
// list every manifest, and at the fallback tag that regclient writes.
func (l *layout) Referrers(ctx context.Context, d canon.Digest) ([]Descriptor, bool, error) {
	index, err := l.readIndex()
	if err != nil {
		return nil, false, err
	}
	found := referrerList{complete: true}
	scanned := 0
	for _, e := range index {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		if e.tag() == referrersTag(d) {
			b, err := l.Manifest(ctx, Descriptor{Digest: e.Digest})
			if err != nil {
				found.complete = false
				continue
			}
			found.addIndex(b)
			continue
		}
		if s, ok := e.Annotations[annotationSubject]; ok && s != d.String() ||
			e.MediaType != TypeManifest || e.Size > MaxOwnManifest || e.ArtifactType == TypeRelease || e.ArtifactType == TypeDataset {
			continue
		}
		if scanned++; scanned > maxLayoutScan {
			found.complete = false
			continue
		}
		b, err := l.Manifest(ctx, Descriptor{Digest: e.Digest})
		if err != nil {
			continue
		}
		if m, err := decodeManifest(b); err == nil && m.Subject != nil && m.Subject.Digest == d {
			found.add(Descriptor{MediaType: TypeManifest, Digest: e.Digest, Size: int64(len(b)), ArtifactType: m.ArtifactType})
		}
	}
	return found.list, found.complete, nil
}
