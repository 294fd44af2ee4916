package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// testStore is a layout directory with one release in it, unsigned.
func testStore(t *testing.T, a *oras.Artifact) (oras.Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	store, err := oras.Open(t.Context(), oras.Ref{Layout: dir}, oras.Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := oras.Push(t.Context(), store, a); err != nil {
		t.Fatal(err)
	}
	return store, dir
}

func attach(t *testing.T, store oras.Store, a *oras.Artifact, bundle []byte, tag string) {
	t.Helper()
	if _, err := oras.AttachBundle(t.Context(), store, a.Descriptor(), bundle, PredicateProvenance, tag, time.Time{}); err != nil {
		t.Fatal(err)
	}
}

// flip changes one byte of the blob with digest d.
func flip(t *testing.T, dir string, d canon.Digest) {
	t.Helper()
	path := filepath.Join(dir, "blobs", "sha256", d.Hex())
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	os.Remove(path)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestReleaseInAStorePasses(t *testing.T) {
	s := newSigner(t, "A")
	a := testRelease(t, nil)
	bundle := s.statement(t, statementFor(t, a, nil))
	for name, tag := range map[string]string{"by its tag": oras.ProvenanceTag(a.Digest), "among the referrers": ""} {
		store, _ := testStore(t, a)
		attach(t, store, a, bundle, tag)
		v, got, err := testVerifier(t, nil, s).Release(t.Context(), store, a.Digest, testNow, Options{})
		if err != nil {
			t.Fatal(err)
		}
		wantFailed(t, v)
		if got == nil || got.Digest != a.Digest || !bytes.Equal(got.Model(oras.ModelFiles[2]), a.Model(oras.ModelFiles[2])) {
			t.Errorf("%s: returned another artifact", name)
		}
	}
}

func TestDamagedOrUnsignedReleaseIsRefusedAndNotReturned(t *testing.T) {
	s, stranger := newSigner(t, "A"), newSigner(t, "Mallory")
	a := testRelease(t, nil)
	other := testRelease(t, func(r *oras.Release) { r.Number = 13 })
	good := s.statement(t, statementFor(t, a, nil))
	signed := func(t *testing.T) (oras.Store, string) {
		store, dir := testStore(t, a)
		attach(t, store, a, good, oras.ProvenanceTag(a.Digest))
		return store, dir
	}
	for name, c := range map[string]struct {
		store  func(*testing.T) (store oras.Store, ask canon.Digest)
		failed string
	}{
		"missing bundle": {func(t *testing.T) (oras.Store, canon.Digest) {
			store, _ := testStore(t, a)
			return store, a.Digest
		}, CheckSignature},
		"bundle of a stranger": {func(t *testing.T) (oras.Store, canon.Digest) {
			store, _ := testStore(t, a)
			attach(t, store, a, stranger.statement(t, statementFor(t, a, nil)), oras.ProvenanceTag(a.Digest))
			return store, a.Digest
		}, CheckSignature},
		"bundle of another release": {func(t *testing.T) (oras.Store, canon.Digest) {
			store, _ := testStore(t, a)
			attach(t, store, a, s.statement(t, statementFor(t, other, nil)), oras.ProvenanceTag(a.Digest))
			return store, a.Digest
		}, CheckSubject},
		"changed model byte": {func(t *testing.T) (oras.Store, canon.Digest) {
			store, dir := signed(t)
			flip(t, dir, canon.Sum(a.Models[1].Data))
			return store, a.Digest
		}, CheckFiles},
		"changed byte of release.json": {func(t *testing.T) (oras.Store, canon.Digest) {
			store, dir := signed(t)
			flip(t, dir, canon.Sum(a.ReleaseJSON))
			return store, a.Digest
		}, CheckFiles},
		"changed byte of the manifest": {func(t *testing.T) (oras.Store, canon.Digest) {
			store, dir := signed(t)
			flip(t, dir, a.Digest)
			return store, a.Digest
		}, CheckManifest},
		"changed byte of the bundle": {func(t *testing.T) (oras.Store, canon.Digest) {
			store, dir := signed(t)
			flip(t, dir, canon.Sum(good))
			return store, a.Digest
		}, CheckSignature},
		"added layer": {func(t *testing.T) (oras.Store, canon.Digest) {
			store, _ := signed(t)
			m := a.Manifest
			i := bytes.Index(m, []byte(`"layers":[`)) + len(`"layers":[`)
			j := i + bytes.Index(m[i:], []byte("},{")) + 1
			more := bytes.Join([][]byte{m[:j], m[i:j], m[j:]}, []byte(","))
			more = bytes.Replace(more, []byte("},,{"), []byte("},{"), 1)
			return put(t, store, more)
		}, CheckFiles},
		"another artifact": {func(t *testing.T) (oras.Store, canon.Digest) {
			store, _ := signed(t)
			d, err := store.Resolve(t.Context(), oras.ProvenanceTag(a.Digest))
			if err != nil {
				t.Fatal(err)
			}
			return store, d.Digest
		}, CheckFiles},
	} {
		t.Run(name, func(t *testing.T) {
			store, ask := c.store(t)
			v, got, err := testVerifier(t, nil, s).Release(t.Context(), store, ask, testNow, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got != nil || v.Pass() || len(v.Failures()) == 0 || v.Failures()[0].Name != c.failed {
				t.Errorf("artifact %t, failed %v, want %s", got != nil, v.Failures(), c.failed)
			}
		})
	}
}

func put(t *testing.T, store oras.Store, manifest []byte) (oras.Store, canon.Digest) {
	t.Helper()
	d, err := store.PutManifest(t.Context(), manifest)
	if err != nil {
		t.Fatal(err)
	}
	return store, d.Digest
}

func TestWhatCannotBeDecidedIsAnErrorAndNoVerdict(t *testing.T) {
	s := newSigner(t, "A")
	a := testRelease(t, nil)
	store, dir := testStore(t, a)
	v, got, err := testVerifier(t, nil, s).Release(t.Context(), store, canon.Sum([]byte("none")), testNow, Options{})
	if !errors.Is(err, oras.ErrNotFound) || v != nil || got != nil {
		t.Errorf("release that is not there: %v, %v", v, err)
	}
	if err := os.Remove(filepath.Join(dir, "blobs", "sha256", canon.Sum(a.Models[0].Data).Hex())); err != nil {
		t.Fatal(err)
	}
	if v, got, err = testVerifier(t, nil, s).Release(t.Context(), store, a.Digest, testNow, Options{}); !errors.Is(err, oras.ErrNotFound) || v != nil || got != nil {
		t.Errorf("model that is not there: %v, %v", v, err)
	}
	down := errors.New("registry is down")
	if v, got, err = testVerifier(t, nil, s).Release(t.Context(), brokenStore{store, down}, a.Digest, testNow, Options{}); !errors.Is(err, down) || v != nil || got != nil {
		t.Errorf("store that fails: %v, %v", v, err)
	}
}

// brokenStore is a store that cannot be asked.
type brokenStore struct {
	oras.Store
	err error
}

func (b brokenStore) Manifest(context.Context, oras.Descriptor) ([]byte, error) { return nil, b.err }

func TestBundleGivenByHandNeedsNoneInTheStore(t *testing.T) {
	s, stranger := newSigner(t, "A"), newSigner(t, "Mallory")
	a := testRelease(t, nil)
	store, _ := testStore(t, a)
	good, bad := s.statement(t, statementFor(t, a, nil)), stranger.statement(t, statementFor(t, a, nil))
	v, got, err := testVerifier(t, nil, s).Release(t.Context(), store, a.Digest, testNow, given(bad, good))
	if err != nil || got == nil {
		t.Fatal(got, err)
	}
	wantFailed(t, v)
	v, got, err = testVerifier(t, nil, s).Release(t.Context(), store, a.Digest, testNow, given(bad))
	if err != nil || got != nil {
		t.Fatal(got, err)
	}
	wantFailed(t, v, CheckSignature)
	attach(t, store, a, good, "")
	v, _, err = testVerifier(t, nil, s).Release(t.Context(), store, a.Digest, testNow, given(bad))
	if err != nil {
		t.Fatal(err)
	}
	wantFailed(t, v)
}

func TestFloodOfReferrersHidesNothingThatHasItsTag(t *testing.T) {
	s, stranger := newSigner(t, "A"), newSigner(t, "Mallory")
	a := testRelease(t, nil)
	good := s.statement(t, statementFor(t, a, nil))
	store, _ := testStore(t, a)
	for i := range oras.MaxReferrers + 3 {
		st := statementFor(t, a, func(p *Provenance) { p.RunDetails.Builder.ID = fmt.Sprintf("https://example.org/%d", i) })
		attach(t, store, a, stranger.statement(t, st), "")
	}
	v, _, err := testVerifier(t, nil, s).Release(t.Context(), store, a.Digest, testNow, Options{})
	if err != nil {
		t.Fatal(err)
	}
	wantFailed(t, v, CheckBundles, CheckSignature)
	if c := check(v, CheckBundles); !strings.Contains(c.Reason, "more in the store") {
		t.Errorf("reason %q", c.Reason)
	}
	attach(t, store, a, good, oras.ProvenanceTag(a.Digest))
	v, _, err = testVerifier(t, nil, s).Release(t.Context(), store, a.Digest, testNow, Options{})
	if err != nil {
		t.Fatal(err)
	}
	wantFailed(t, v)
	if c := check(v, CheckBundles); c.Status != Skip || c.Reason != "1 looked at, at the provenance tag: it meets all demands, so referrers were not read" {
		t.Errorf("%+v", c)
	}
	// A policy that asks for more than a provenance has the referrers read.
	more := testVerifier(t, func(p *Policy) { p.Datasets.Publishers = []Identity{newSigner(t, "D").Identity} }, s)
	if v, _, err = more.Release(t.Context(), store, a.Digest, testNow, Options{}); err != nil {
		t.Fatal(err)
	}
	if c := check(v, CheckBundles); !strings.Contains(c.Reason+c.Observed, "65 looked at") && !strings.Contains(c.Reason+c.Observed, "64 looked at") {
		t.Errorf("%+v", c)
	}
	// Found in the flood, with a stranger's at the tag.
	other := testRelease(t, func(r *oras.Release) { r.Number++ })
	if err := oras.Push(t.Context(), store, other); err != nil {
		t.Fatal(err)
	}
	good = s.statement(t, statementFor(t, other, nil))
	attach(t, store, other, good, "")
	attach(t, store, other, stranger.statement(t, statementFor(t, other, nil)), oras.ProvenanceTag(other.Digest))
	for i := range oras.MaxReferrers + 3 {
		st := statementFor(t, other, func(p *Provenance) { p.RunDetails.Builder.ID = fmt.Sprintf("https://example.org/%d", i) })
		attach(t, store, other, stranger.statement(t, st), "")
	}
	if v, _, err = testVerifier(t, nil, s).Release(t.Context(), store, other.Digest, testNow, Options{}); err != nil {
		t.Fatal(err)
	}
	wantFailed(t, v)
	if c := check(v, CheckBundles); c.Status != Skip || !strings.Contains(c.Reason, "one that meets all demands was found") {
		t.Errorf("%+v", c)
	}
}

func TestLoadedPolicyIsTheOneThatIsEnforced(t *testing.T) {
	s := newSigner(t, "A")
	a := testRelease(t, nil)
	store, _ := testStore(t, a)
	attach(t, store, a, s.statement(t, statementFor(t, a, nil)), "")
	dir := t.TempDir()
	text, err := InitPolicy(Policy{Product: "shop", Publishers: []Identity{s.Identity}})
	if err != nil {
		t.Fatal(err)
	}
	for more, failed := range map[string][]string{
		"":                    nil,
		"\nmin_release: 13\n": {CheckNotOlder},
		"\nmax_bytes: 10\n":   {CheckSize},
		"\nbuilders: [\"https://example.org\"]\n":                        {CheckBuilder},
		"\ndatasets: {digests: [\"" + canon.Sum(nil).String() + "\"]}\n": {CheckAllowed},
	} {
		path := filepath.Join(dir, "policy.yaml")
		if err := os.WriteFile(path, append(bytes.Clone(text), more...), 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := LoadPolicy(path)
		if err != nil {
			t.Fatal(err)
		}
		verifier, err := New(p)
		if err != nil {
			t.Fatal(err)
		}
		v, _, err := verifier.Release(t.Context(), store, a.Digest, testNow, Options{})
		if err != nil {
			t.Fatal(err)
		}
		wantFailed(t, v, failed...)
		if v.Policy != p.Digest {
			t.Error("the verdict names another policy")
		}
	}
}

// downStore is a store that has what it has, and resolves nothing.
type downStore struct {
	oras.Store
	err error
}

func (b downStore) Resolve(context.Context, string) (oras.Descriptor, error) {
	return oras.Descriptor{}, b.err
}
