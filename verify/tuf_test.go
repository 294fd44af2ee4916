package verify

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// tufRepo is a TUF repository with consistent snapshots, on loopback.
type tufRepo struct {
	t       *testing.T
	mu      sync.Mutex
	files   map[string][]byte
	status  int // in place of an answer, unless 0
	asked   int
	keys    map[string]ed25519.PrivateKey // by role
	version int64
	url     string
}

var tufRoles = []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS}

func newTUFRepo(t *testing.T) *tufRepo {
	t.Helper()
	r := &tufRepo{t: t, files: map[string][]byte{}, keys: map[string]ed25519.PrivateKey{}}
	for _, role := range tufRoles {
		r.newKey(role)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked++
		b, ok := r.files[strings.TrimPrefix(req.URL.Path, "/")]
		switch {
		case r.status != 0:
			w.WriteHeader(r.status)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		default:
			w.Write(b)
		}
	}))
	t.Cleanup(srv.Close)
	r.url = srv.URL
	return r
}

func (r *tufRepo) newKey(role string) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	r.keys[role] = key
}

func tufSign[T metadata.Roles](r *tufRepo, m *metadata.Metadata[T], keys ...ed25519.PrivateKey) []byte {
	r.t.Helper()
	for _, key := range keys {
		s, err := signature.LoadSigner(key, crypto.Hash(0))
		if err != nil {
			r.t.Fatal(err)
		}
		if _, err := m.Sign(s); err != nil {
			r.t.Fatal(err)
		}
	}
	b, err := m.ToBytes(false)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// root publishes root number n with the keys of now, signed by these.
func (r *tufRepo) root(n int64, expires time.Time, by ...ed25519.PrivateKey) []byte {
	r.t.Helper()
	m := metadata.Root(expires)
	m.Signed.Version, m.Signed.ConsistentSnapshot = n, true
	for _, role := range tufRoles {
		key, err := metadata.KeyFromPublicKey(r.keys[role].Public())
		if err != nil {
			r.t.Fatal(err)
		}
		if err := m.Signed.AddKey(key, role); err != nil {
			r.t.Fatal(err)
		}
	}
	b := tufSign(r, m, by...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[fmt.Sprintf("%d.root.json", n)] = b
	return b
}

// publish publishes a trusted root, as the next version of everything.
func (r *tufRepo) publish(text []byte, expires time.Time) {
	r.t.Helper()
	r.version++
	v := r.version
	sum := canon.Sum(text)
	targets := metadata.Targets(expires)
	targets.Signed.Version = v
	info := metadata.TargetFile()
	info.Length, info.Hashes, info.Path = int64(len(text)), metadata.Hashes{"sha256": sum[:]}, trustedRootTarget
	targets.Signed.Targets = map[string]*metadata.TargetFiles{trustedRootTarget: info}
	snapshot := metadata.Snapshot(expires)
	snapshot.Signed.Version = v
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(v)
	timestamp := metadata.Timestamp(expires)
	timestamp.Signed.Version = v
	timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(v)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files["targets/"+hex.EncodeToString(sum[:])+"."+trustedRootTarget] = text
	r.files[fmt.Sprintf("%d.targets.json", v)] = tufSign(r, targets, r.keys[metadata.TARGETS])
	r.files[fmt.Sprintf("%d.snapshot.json", v)] = tufSign(r, snapshot, r.keys[metadata.SNAPSHOT])
	r.files["timestamp.json"] = tufSign(r, timestamp, r.keys[metadata.TIMESTAMP])
}

func (r *tufRepo) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.asked = status, 0
}

func TestTrustedRootThroughTUF(t *testing.T) {
	a := newAuthority(t)
	repo := newTUFRepo(t)
	week := time.Now().Add(7 * 24 * time.Hour)
	first := repo.root(1, week, repo.keys[metadata.ROOT])
	repo.publish(a.root, week)
	p := Policy{Product: "shop", Publishers: []Identity{workflow()}, Timestamps: 1, TUF: &TUF{URL: repo.url, Root: first}}
	cache := filepath.Join(t.TempDir(), "cache")
	load := func(offline bool) (Policy, error) { return LoadTrustedRoot(t.Context(), p, cache, offline) }
	mustLoad := func(offline bool, want []byte) {
		t.Helper()
		got, err := load(offline)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.TrustedRoot, want) {
			t.Fatalf("loaded %.60q, want %.60q", got.TrustedRoot, want)
		}
	}
	if _, err := load(true); err == nil || !strings.Contains(err.Error(), "nothing was kept") {
		t.Errorf("offline, before anything was loaded: %v", err)
	}
	mustLoad(false, a.root)
	got, err := load(false)
	if err != nil {
		t.Fatal(err)
	}
	v, err := New(got)
	if err != nil {
		t.Fatal(err)
	}
	rel := testRelease(t, nil)
	wantFailed(t, v.Judge(rel, time.Now(), given(a.attest(t, encode(t, statementFor(t, rel, nil)), claim{}, nil))))

	// Offline nobody is asked; and when nobody answers, it is as offline.
	repo.answer(http.StatusTeapot)
	mustLoad(true, a.root)
	if repo.asked != 0 {
		t.Errorf("offline: %d requests", repo.asked)
	}
	mustLoad(false, a.root)
	repo.answer(0)

	// Keys of all roles are replaced, by a root that the old and the new keys sign: also for who reads it offline.
	old := maps.Clone(repo.keys)
	for _, role := range tufRoles {
		repo.newKey(role)
	}
	repo.root(2, week, old[metadata.ROOT], repo.keys[metadata.ROOT])
	second := []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)
	repo.publish(second, week)
	mustLoad(false, second)
	repo.answer(http.StatusBadGateway)
	mustLoad(true, second)
	mustLoad(false, second)
	repo.answer(0)

	// Another policy, or a damaged file, has nothing to do with what was kept.
	other := p
	other.TUF = &TUF{URL: repo.url + "/x", Root: first}
	if _, err := LoadTrustedRoot(t.Context(), other, cache, true); err == nil {
		t.Error("what was kept of one repository serves for another")
	}
	kept, err := filepath.Glob(filepath.Join(cache, "tuf-*.json"))
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	text, err := os.ReadFile(kept[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"cut": text[:len(text)/2], "flipped": append(bytes.Clone(text[:len(text)/3]), append([]byte("A"), text[len(text)/3+1:]...)...), "empty": nil} {
		if err := os.WriteFile(kept[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := load(true); err == nil && !bytes.Equal(got.TrustedRoot, second) {
			t.Errorf("%s: gives another root", name)
		}
	}
	mustLoad(false, second)
	if q, err := LoadTrustedRoot(t.Context(), Policy{Product: "x"}, "", false); err != nil || q.Product != "x" {
		t.Errorf("a policy without tuf: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := LoadTrustedRoot(ctx, p, cache, false); err == nil || ctx.Err() == nil {
		t.Errorf("interrupted: %v", err)
	}
}

// Attack 30: the root of trust is swapped.
func TestAttack30_RootOfTrustSwapped(t *testing.T) {
	week := time.Now().Add(7 * 24 * time.Hour)
	for _, c := range []struct {
		name   string
		attack func(r *tufRepo, old map[string]ed25519.PrivateKey)
	}{
		{"next root signed by its own keys only", func(r *tufRepo, old map[string]ed25519.PrivateKey) {
			r.root(2, week, r.keys[metadata.ROOT])
		}},
		{"next root signed by the old key only", func(r *tufRepo, old map[string]ed25519.PrivateKey) {
			r.root(2, week, old[metadata.ROOT])
		}},
		{"a number skipped", func(r *tufRepo, old map[string]ed25519.PrivateKey) {
			r.root(3, week, old[metadata.ROOT], r.keys[metadata.ROOT])
		}},
		{"a number repeated", func(r *tufRepo, old map[string]ed25519.PrivateKey) {
			b := r.root(1, week, old[metadata.ROOT], r.keys[metadata.ROOT])
			r.files["2.root.json"] = b
		}},
		{"metadata of a stranger", func(*tufRepo, map[string]ed25519.PrivateKey) {}},
		{"a target of another content", func(r *tufRepo, old map[string]ed25519.PrivateKey) {
			r.keys = old
			r.publish([]byte("{}"), week)
			for name := range r.files {
				if strings.HasPrefix(name, "targets/") {
					r.files[name] = []byte("[]")
				}
			}
		}},
		{"older metadata", func(r *tufRepo, old map[string]ed25519.PrivateKey) {
			r.keys, r.version = old, 0
			r.publish([]byte(`{"older":true}`), week)
		}},
		{"expired metadata", func(r *tufRepo, old map[string]ed25519.PrivateKey) {
			r.keys = old
			r.publish([]byte("{}"), time.Now().Add(-time.Hour))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			repo := newTUFRepo(t)
			p := Policy{TUF: &TUF{URL: repo.url, Root: repo.root(1, week, repo.keys[metadata.ROOT])}}
			repo.publish([]byte(`{"good":1}`), week)
			repo.publish([]byte(`{"good":2}`), week)
			cache := t.TempDir()
			if _, err := LoadTrustedRoot(t.Context(), p, cache, false); err != nil {
				t.Fatal(err)
			}
			old := maps.Clone(repo.keys)
			for _, role := range tufRoles {
				repo.newKey(role)
			}
			c.attack(repo, old)
			if repo.keys[metadata.TIMESTAMP].Equal(old[metadata.TIMESTAMP]) == false {
				repo.publish([]byte(`{"evil":1}`), week)
			}
			if got, err := LoadTrustedRoot(t.Context(), p, cache, false); err == nil {
				t.Errorf("accepted: %s", got.TrustedRoot)
			}
			if got, err := LoadTrustedRoot(t.Context(), p, cache, true); err != nil || string(got.TrustedRoot) != `{"good":2}` {
				t.Errorf("what was kept is lost: %s, %v", got.TrustedRoot, err)
			}
		})
	}
}

func TestKeptRootExpires(t *testing.T) {
	repo := newTUFRepo(t)
	week := time.Now().Add(7 * 24 * time.Hour)
	p := Policy{TUF: &TUF{URL: repo.url, Root: repo.root(1, week, repo.keys[metadata.ROOT])}}
	repo.publish([]byte(`{"good":1}`), time.Now().Add(3*time.Second)) // TUF counts whole seconds
	cache := t.TempDir()
	if _, err := LoadTrustedRoot(t.Context(), p, cache, false); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadTrustedRoot(t.Context(), p, cache, true); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3500 * time.Millisecond)
	repo.answer(http.StatusBadGateway)
	for _, offline := range []bool{true, false} {
		if _, err := LoadTrustedRoot(t.Context(), p, cache, offline); err == nil || !strings.Contains(err.Error(), "cannot be used any more") || !strings.Contains(err.Error(), "expired") {
			t.Errorf("offline=%t: %v", offline, err)
		}
	}
}

func TestTUFBoundsWhatItReads(t *testing.T) {
	repo := newTUFRepo(t)
	week := time.Now().Add(7 * 24 * time.Hour)
	p := Policy{TUF: &TUF{URL: repo.url, Root: repo.root(1, week, repo.keys[metadata.ROOT])}}
	repo.publish([]byte(`{"good":1}`), week)
	cache := t.TempDir()
	if _, err := LoadTrustedRoot(t.Context(), p, cache, false); err != nil {
		t.Fatal(err)
	}
	repo.files["timestamp.json"] = bytes.Repeat([]byte(" "), maxRootFile+1)
	if _, err := LoadTrustedRoot(t.Context(), p, cache, false); err == nil {
		t.Error("an endless file is accepted")
	}
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	defer elsewhere.Close()
	redirect := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	defer redirect.Close()
	p.TUF.URL = redirect.URL
	if _, err := LoadTrustedRoot(t.Context(), p, cache, false); err == nil || !strings.Contains(err.Error(), "redirected elsewhere") {
		t.Errorf("redirected to another host: %v", err)
	}
}
