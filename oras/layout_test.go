package oras

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/internal/durable/faultfs"
)

func layoutDir(s Store) string { return s.(*layout).dir }

func TestLayoutIsMadeOnlyWhereItMayBe(t *testing.T) {
	ctx := context.Background()
	open := func(dir string, write bool) error {
		_, err := Open(ctx, Ref{Layout: dir}, Options{Write: write})
		return err
	}
	dir := t.TempDir()
	if err := open(filepath.Join(dir, "none"), false); !errors.Is(err, ErrNotFound) {
		t.Errorf("reading where nothing is: %v", err)
	}
	if err := open(dir, false); !errors.Is(err, ErrNotFound) {
		t.Errorf("reading an empty directory: %v", err)
	}
	if err := open(dir, true); err != nil {
		t.Errorf("writing into an empty directory: %v", err)
	}
	if err := open(dir, false); err != nil {
		t.Errorf("reading what was made: %v", err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "thesis.txt"), []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := open(other, true); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("writing beside other files: %v", err)
	}
	if entries, _ := os.ReadDir(other); len(entries) != 1 {
		t.Error("something was written beside other files")
	}
	for _, marker := range []string{`{"imageLayoutVersion":"2.0.0"}`, `x`, ``} {
		if err := os.WriteFile(filepath.Join(dir, layoutFile), []byte(marker), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := open(dir, true); !errors.Is(err, ErrInvalid) {
			t.Errorf("marker %q: %v, want ErrInvalid", marker, err)
		}
	}
}

func TestIndexDoesNotDependOnTheOrderOfWrites(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	rel := sampleRelease()
	rel.Number = 8
	b, err := Pack(rel, sampleModels())
	if err != nil {
		t.Fatal(err)
	}
	var files [2][]byte
	for i, order := range [][]*Artifact{{a, b}, {b, a}} {
		s := newLayout(t)
		for _, x := range order {
			push(t, s, x)
			attach(t, s, x.Descriptor(), "x", ProvenanceTag(x.Digest))
		}
		if err := s.Tag(ctx, TagLatest, b.Descriptor()); err != nil {
			t.Fatal(err)
		}
		if files[i], err = os.ReadFile(filepath.Join(layoutDir(s), indexFile)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Errorf("two orders give\n%s\n%s", files[0], files[1])
	}
}

func TestTagMovesAndTheOldManifestStaysListed(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	s := newLayout(t)
	push(t, s, a)
	first := attach(t, s, a.Descriptor(), "first", ProvenanceTag(a.Digest))
	second := attach(t, s, a.Descriptor(), "second", ProvenanceTag(a.Digest))
	if d, err := s.Resolve(ctx, ProvenanceTag(a.Digest)); err != nil || d.Digest != second.Digest {
		t.Errorf("tag: %s, %v", d.Digest, err)
	}
	list, complete, err := s.Referrers(ctx, a.Digest)
	if err != nil || !complete || len(list) != 2 || !slices.ContainsFunc(list, func(d Descriptor) bool { return d.Digest == first.Digest }) {
		t.Errorf("referrers: %v, %v, %v", list, complete, err)
	}
}

func TestEntriesOfOtherToolsAreKept(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	s := newLayout(t)
	push(t, s, a)
	path := filepath.Join(layoutDir(s), indexFile)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	foreign := `{"annotations":{"org.opencontainers.image.ref.name":"image"},"digest":"` + a.Digest.String() +
		`","mediaType":"` + TypeManifest + `","platform":{"architecture":"s390x","os":"linux"},"size":7}`
	b = bytes.Replace(b, []byte(`"manifests":[`), []byte(`"manifests":[`+foreign+`,`), 1)
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(ctx, TagLatest, a.Descriptor()); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(path); err != nil || !bytes.Contains(b, []byte(foreign)) {
		t.Errorf("%s, %v: entry %s is gone", b, err, foreign)
	}
}

func TestFallbackTagInALayoutIsRead(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	s := newLayout(t)
	push(t, s, a)
	d := attach(t, s, a.Descriptor(), "x", "")
	b, err := appendReferrer(nil, manifest{}, d)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := s.PutManifest(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(ctx, referrersTag(a.Digest), idx); err != nil {
		t.Fatal(err)
	}
	l := s.(*layout)
	list, err := l.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	list = slices.DeleteFunc(list, func(e entry) bool { return e.Digest == d.Digest })
	if err := l.writeIndex(list); err != nil {
		t.Fatal(err)
	}
	if found, err := Bundles(ctx, s, a.Digest); err != nil || len(found.Bundles) != 1 {
		t.Errorf("got %+v, %v", found, err)
	}
}

func TestDamagedBlobIsRefusedAndWrittenAgain(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	s := newLayout(t)
	push(t, s, a)
	path := s.(*layout).blobPath(canon.Sum(a.Models[1].Data))
	b := bytes.Clone(a.Models[1].Data)
	b[0] ^= 1
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrInvalid) {
		t.Errorf("damaged: %v, want ErrInvalid", err)
	}
	push(t, s, a)
	if _, err := Pull(ctx, s, a.Digest); err != nil {
		t.Errorf("pushed again: %v", err)
	}
}

func TestReadersNeedNoLock(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	s := newLayout(t)
	push(t, s, a)
	// Two stores on one directory stand for two processes.
	other, err := Open(ctx, Ref{Layout: layoutDir(s)}, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i, w := range []Store{s, other} {
		tag := ""
		if i == 0 { // two that moved one tag would find each other out when they read it back
			tag = ProvenanceTag(a.Digest)
		}
		wg.Go(func() {
			for n := range 10 {
				attach(t, w, a.Descriptor(), fmt.Sprint(i, n), tag)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		if _, err := s.Resolve(ctx, ReleaseTag(7)); err != nil {
			t.Error(err)
			reading = false
		}
		if found, err := Bundles(ctx, s, a.Digest, ProvenanceTag(a.Digest)); err != nil || !found.Complete || len(found.Skipped) != 0 {
			t.Errorf("%+v, %v", found, err)
			reading = false
		}
	}
	<-done
	if found, err := Bundles(ctx, s, a.Digest); err != nil || len(found.Bundles) != 20 {
		t.Errorf("%d bundles, %v, want 20", len(found.Bundles), err)
	}
}

// whole reports the first thing in a layout that index.json leads to and that
// cannot be read. It knows nothing of how the layout is written.
func whole(fsys durable.FS, dir string) error {
	read := func(d Descriptor) ([]byte, error) {
		b, err := durable.ReadFile(fsys, filepath.Join(dir, "blobs", "sha256", d.Digest.Hex()), 1<<30)
		if err == nil && (canon.Sum(b) != d.Digest || int64(len(b)) != d.Size) {
			err = fmt.Errorf("%s is damaged", d.Digest)
		}
		return b, err
	}
	b, err := durable.ReadFile(fsys, filepath.Join(dir, indexFile), 1<<30)
	if err != nil {
		return err
	}
	entries, err := decodeIndex(b)
	if err != nil {
		return err
	}
	for _, e := range entries {
		b, err := read(e)
		if err != nil {
			return err
		}
		m, err := decodeManifest(b)
		if err != nil {
			return err
		}
		for _, l := range append([]Descriptor{m.Config}, m.Layers...) {
			if _, err := read(l); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestCrashWhileWritingLeavesALayoutThatReads(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	rel := sampleRelease()
	rel.Number = 8
	next, err := Pack(rel, sampleModels())
	if err != nil {
		t.Fatal(err)
	}
	noLock := func(string) (func(), error) { return func() {}, nil }
	work := func(fsys durable.FS) error {
		l := &layout{dir: "out", fsys: fsys, lock: noLock}
		if err := l.open(true); err != nil {
			return err
		}
		if err := Push(ctx, l, next); err != nil {
			return err
		}
		_, err := AttachBundle(ctx, l, next.Descriptor(), sampleBundle("x"), predicate, ProvenanceTag(next.Digest), created)
		if err != nil {
			return err
		}
		return l.Tag(ctx, TagLatest, next.Descriptor())
	}
	base := faultfs.New()
	l := &layout{dir: "out", fsys: base, lock: noLock}
	if err := l.open(true); err != nil {
		t.Fatal(err)
	}
	if err := Push(ctx, l, a); err != nil {
		t.Fatal(err)
	}
	start := func(empty bool) *faultfs.FS {
		if empty {
			return faultfs.New()
		}
		return base.PowerLoss(0)
	}
	for _, empty := range []bool{true, false} {
		m := start(empty)
		before := len(m.Trace())
		if err := work(m); err != nil {
			t.Fatal(err)
		}
		n := len(m.Trace()) - before
		if empty {
			n = min(n, 30) // the making of the layout; the rest is the same as below
		}
		step := 1
		if testing.Short() {
			step = 7
		}
		for op := 1; op <= n; op += step {
			for _, flavour := range faultfs.Flavours {
				m := start(empty)
				m.Inject(op, flavour)
				failed := work(m)
				m.Inject(0, flavour)
				survivors := []*faultfs.FS{m.Restart(), m.PowerLoss(0)}
				if flavour == faultfs.Kill {
					survivors = append(survivors, m.PowerLoss(uint64(op)), m.PowerLoss(uint64(op)+1000))
				}
				for i, after := range survivors {
					at := fmt.Sprintf("empty %v, op %d of %d %s, survivor %d (%v)", empty, op, n, flavour, i, failed)
					l := &layout{dir: "out", fsys: after, lock: noLock}
					if _, err := after.Lstat(filepath.Join("out", indexFile)); !errors.Is(err, fs.ErrNotExist) {
						if err := whole(after, "out"); err != nil {
							t.Fatalf("%s: %v", at, err)
						}
					} else if !empty {
						t.Fatalf("%s: index.json is gone", at)
					}
					if !empty {
						if _, err := Pull(ctx, l, a.Digest); err != nil {
							t.Fatalf("%s: the earlier release: %v", at, err)
						}
					}
					if d, err := l.Resolve(ctx, TagLatest); err == nil && d.Digest != next.Digest {
						t.Fatalf("%s: latest is %s", at, d.Digest)
					} else if failed == nil && err != nil {
						t.Fatalf("%s: success was reported, and latest is gone: %v", at, err)
					}
					// Doing it again mends everything.
					if err := work(after); err != nil {
						t.Fatalf("%s: second time: %v", at, err)
					}
					found, err := Bundles(ctx, l, next.Digest, ProvenanceTag(next.Digest))
					if err != nil || len(found.Bundles) != 1 {
						t.Fatalf("%s: second time: %+v, %v", at, found, err)
					}
					if _, err := Pull(ctx, l, next.Digest); err != nil {
						t.Fatalf("%s: second time: %v", at, err)
					}
				}
			}
		}
		t.Logf("empty %v: %d operations", empty, n)
	}
}
