package agent

import (
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
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign/signtest"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func tufSign[T metadata.Roles](t *testing.T, m *metadata.Metadata[T], key ed25519.PrivateKey) []byte {
	t.Helper()
	s, err := signature.LoadSigner(key, crypto.Hash(0))
	if err == nil {
		_, err = m.Sign(s)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.ToBytes(false)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tufTimestamp(t *testing.T, key ed25519.PrivateKey, version int64, expires time.Time) []byte {
	m := metadata.Timestamp(expires)
	m.Signed.Version = version
	m.Signed.Meta["snapshot.json"] = metadata.MetaFile(1)
	return tufSign(t, m, key)
}

// tufFiles is a TUF repository that publishes a trusted root, one key for all
// roles.
func tufFiles(t *testing.T, key ed25519.PrivateKey, trusted []byte, expires time.Time) map[string][]byte {
	t.Helper()
	root := metadata.Root(expires)
	root.Signed.ConsistentSnapshot = true
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		k, err := metadata.KeyFromPublicKey(key.Public())
		if err == nil {
			err = root.Signed.AddKey(k, role)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	sum := canon.Sum(trusted)
	targets := metadata.Targets(expires)
	info := metadata.TargetFile()
	info.Length, info.Hashes, info.Path = int64(len(trusted)), metadata.Hashes{"sha256": sum[:]}, "trusted_root.json"
	targets.Signed.Targets = map[string]*metadata.TargetFiles{"trusted_root.json": info}
	snapshot := metadata.Snapshot(expires)
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(1)
	return map[string][]byte{
		"1.root.json":     tufSign(t, root, key),
		"1.targets.json":  tufSign(t, targets, key),
		"1.snapshot.json": tufSign(t, snapshot, key),
		"timestamp.json":  tufTimestamp(t, key, 1, expires),
		"targets/" + hex.EncodeToString(sum[:]) + ".trusted_root.json": trusted,
	}
}

// TestPolicyWithTUF syncs by a policy whose trusted root comes through TUF:
// what was downloaded is kept in the state directory, serves offline, and stops
// to serve when it expires.
func TestPolicyWithTUF(t *testing.T) {
	o := newOperator(t)
	from := o.publish(3)
	trusted, err := os.ReadFile(signtest.New(t).TrustedRoot)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var repo atomic.Pointer[map[string][]byte]
	files := tufFiles(t, key, trusted, time.Now().Add(time.Hour))
	repo.Store(&files)
	var asked, down atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		b, ok := (*repo.Load())[strings.TrimPrefix(r.URL.Path, "/")]
		switch {
		case down.Load() != 0:
			w.WriteHeader(http.StatusBadGateway)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		default:
			w.Write(b)
		}
	}))
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.yaml")
	text := fmt.Sprintf("version: 1\nproduct: %s\ntuf:\n  url: %s\n  root: root.json\ntimestamps:\n  authority: 0\npublishers:\n  - name: me\n    key: |\n", verify.DefaultProduct, srv.URL)
	for line := range strings.Lines(o.signer.Key().PEM()) {
		text += "      " + line
	}
	for path, b := range map[string][]byte{policy: []byte(text), filepath.Join(dir, "root.json"): files["1.root.json"]} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	if _, err := o.Agent.Verifier(ctx, policy, true); err == nil {
		t.Error("offline, before anything was downloaded")
	}
	if asked.Load() != 0 {
		t.Error("asked while offline")
	}
	v, err := o.Agent.Verifier(ctx, policy, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Sync(ctx, from, oras.Options{}, v, policy, time.Now()); err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob(filepath.Join(o.dir, "tuf", "tuf-*.json"))
	if err != nil || len(kept) != 1 {
		t.Errorf("kept in the state directory: %q, %v", kept, err)
	}

	// Another start, without a network: the policy that sync was given still serves.
	down.Store(1)
	asked.Store(0)
	a := Open(o.dir)
	if v, err = a.Verifier(ctx, "", true); err != nil {
		t.Fatal(err)
	}
	if s, err := a.Load(ctx, v, time.Now()); err != nil || s.Release().Release.Number != 3 {
		t.Errorf("offline: %v", err)
	}
	if asked.Load() != 0 {
		t.Errorf("offline: %d requests", asked.Load())
	}
	if _, err := a.Verifier(ctx, policy, false); err != nil {
		t.Errorf("nobody answers: %v", err)
	}

	// TUF counts whole seconds.
	expires := time.Now().Add(5 * time.Second).Truncate(time.Second)
	short := maps.Clone(files)
	short["timestamp.json"] = tufTimestamp(t, key, 2, expires)
	repo.Store(&short)
	down.Store(0)
	if _, err := a.Verifier(ctx, policy, false); err != nil {
		t.Errorf("soon to expire: %v", err)
	}
	time.Sleep(time.Until(expires) + time.Second)
	if _, err := a.Verifier(ctx, policy, true); err == nil || !strings.Contains(err.Error(), "cannot be used any more") {
		t.Errorf("expired: %v", err)
	}
}
