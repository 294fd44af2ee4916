package sign

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/tuf"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign/signtest"
)

// repository is a TUF repository with one key for all roles.
type repository struct {
	t     *testing.T
	key   ed25519.PrivateKey
	files map[string][]byte
}

func newRepository(t *testing.T, targets map[string][]byte, expires time.Time) *repository {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := &repository{t: t, key: key, files: map[string][]byte{}}
	root := metadata.Root(expires)
	root.Signed.ConsistentSnapshot = true
	public, err := metadata.KeyFromPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		if err := root.Signed.AddKey(public, role); err != nil {
			t.Fatal(err)
		}
	}
	list := metadata.Targets(expires)
	for name, text := range targets {
		sum := canon.Sum(text)
		info := metadata.TargetFile()
		info.Length, info.Hashes, info.Path = int64(len(text)), metadata.Hashes{"sha256": sum[:]}, name
		list.Signed.Targets[name] = info
		r.files["targets/"+hex.EncodeToString(sum[:])+"."+name] = text
	}
	snapshot, timestamp := metadata.Snapshot(expires), metadata.Timestamp(expires)
	r.files["1.root.json"] = signed(r, root)
	r.files["1.targets.json"] = signed(r, list)
	r.files["1.snapshot.json"] = signed(r, snapshot)
	r.files["timestamp.json"] = signed(r, timestamp)
	return r
}

func signed[T metadata.Roles](r *repository, m *metadata.Metadata[T]) []byte {
	r.t.Helper()
	s, err := signature.LoadSigner(r.key, crypto.Hash(0))
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := m.Sign(s); err != nil {
		r.t.Fatal(err)
	}
	b, err := m.ToBytes(false)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// services asks the repository, whose root is trusted as given.
func (r *repository) services(root []byte) (*Services, error) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, ok := r.files[strings.TrimPrefix(req.URL.Path, "/")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Write(b)
	}))
	defer srv.Close()
	o := (&tuf.Options{Root: root, RepositoryBaseURL: srv.URL}).WithCachePath(r.t.TempDir())
	return servicesFrom(r.t.Context(), o, time.Now())
}

func TestServicesOfAnInstanceComeThroughTUF(t *testing.T) {
	store := signtest.New(t)
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	targets := map[string][]byte{"signing_config.v0.2.json": read(store.SigningConfig), "trusted_root.json": read(store.TrustedRoot)}
	week := time.Now().Add(7 * 24 * time.Hour)
	r := newRepository(t, targets, week)
	s, err := r.services(r.files["1.root.json"])
	if err != nil {
		t.Fatal(err)
	}
	if s.authority == "" || len(s.timestamps) != 1 || len(s.logs) != 1 || string(s.TrustedRoot()) != string(targets["trusted_root.json"]) {
		t.Errorf("%+v", s)
	}

	refused := func(name string, change func(r *repository) (root []byte)) {
		t.Helper()
		r := newRepository(t, targets, week)
		if _, err := r.services(change(r)); !errors.Is(err, ErrServices) {
			t.Errorf("%s: %v", name, err)
		}
	}
	own := func(r *repository) []byte { return r.files["1.root.json"] }
	refused("the root of another repository", func(*repository) []byte { return newRepository(t, targets, week).files["1.root.json"] })
	refused("no root", func(*repository) []byte { return []byte("{}") })
	refused("a changed target", func(r *repository) []byte {
		for name := range r.files {
			if strings.HasPrefix(name, "targets/") {
				r.files[name] = append([]byte(" "), r.files[name]...)
			}
		}
		return own(r)
	})
	refused("no target", func(r *repository) []byte {
		for name := range r.files {
			if strings.HasPrefix(name, "targets/") {
				delete(r.files, name)
			}
		}
		return own(r)
	})
	refused("expired", func(r *repository) []byte {
		*r = *newRepository(t, targets, time.Now().Add(-time.Hour))
		return own(r)
	})
}
