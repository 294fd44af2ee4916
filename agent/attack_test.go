package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/internal/durable/faultfs"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Attack 24: a pickle is never read: not beside what is installed, not in a slot, and
// not when a publisher signs one in the place of a model.
func TestAttack24_Pickles(t *testing.T) {
	o := newOperator(t)
	from := o.publish(3)
	s := o.mustSync(from)
	pickle := []byte("\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR.")
	for _, name := range []string{"ip_reputation.joblib", "x.pickle", filepath.Join("releases", "anomaly_detector.pkl")} {
		path := filepath.Join(o.dir, name)
		if err := os.WriteFile(path, pickle, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Load(context.Background(), o.Verifier, time.Now()); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "pickle") || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := o.sync(from); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: sync: %v", name, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if n := o.live(); n != 3 {
			t.Errorf("%s: live is %d without it", name, n)
		}
	}
	if err := os.WriteFile(filepath.Join(o.slot(s.Release), "x.pkl"), pickle, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Load(context.Background(), o.Verifier, time.Now()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("in a slot: %v", err)
	}
	o.mustSync(from) // makes the slot anew
	for i := range oras.ModelFiles {
		_, err := o.sync(o.resign(from, func(r *oras.Release, m []oras.File) {
			r.Number = 4
			m[i].Data = pickle
		}))
		if !errors.Is(err, ErrRefused) {
			t.Errorf("in the place of %s: %v", oras.ModelFiles[i], err)
		}
	}
	if n := o.live(); n != 3 {
		t.Errorf("live is %d", n)
	}
}

// Attack 26: a disk that is full, at any moment, or that cannot be written to:
// the live release stays, the error says so and is no refusal, and no half-written
// file outlasts the next sync.
func TestAttack26_DiskFull(t *testing.T) {
	o := newOperator(t)
	o.withChannel()
	now := time.Now()
	old, next := o.publish(1), o.publish(2)
	o.announce(old, 1, 1, now, time.Hour)
	o.announce(next, 2, 2, now, time.Hour)
	ctx := context.Background()
	sync := func(fs *faultfs.FS, from oras.Ref) error {
		_, err := agentOn(fs).Sync(ctx, from, oras.Options{}, o.Verifier, "/etc/policy.yaml", now)
		return err
	}
	base := faultfs.New()
	if err := sync(base, old); err != nil {
		t.Fatal(err)
	}
	whole := base.Restart()
	if err := sync(whole, next); err != nil {
		t.Fatal(err)
	}
	full := 0
	for n := 1; n <= len(whole.Trace()); n += 5 {
		fs := base.Restart()
		fs.Inject(n, faultfs.Full)
		err := sync(fs, next)
		if err == nil {
			continue // nothing needed room any more
		}
		full++
		if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNothing) {
			t.Errorf("full from operation %d: %v", n, err)
		}
		// Room again: what was left is cleared away and the release installed.
		fs = fs.Restart()
		if err := sync(fs, next); err != nil {
			t.Fatalf("full from operation %d, then room: %v", n, err)
		}
		for _, dir := range []string{"state", "state/releases", "state/channels"} {
			entries, err := fs.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if durable.IsTemp(e.Name()) {
					t.Errorf("full from operation %d: %s/%s is left", n, dir, e.Name())
				}
			}
		}
	}
	if full < 10 {
		t.Errorf("the disk was full %d times", full)
	}
}
