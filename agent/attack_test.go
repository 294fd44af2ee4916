package agent

import (
	"context"
	"errors"
	"fmt"
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
	tidy := func(fs *faultfs.FS, when string) {
		t.Helper()
		for _, dir := range []string{"state", "state/releases", "state/channels"} {
			entries, err := fs.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if durable.IsTemp(e.Name()) {
					t.Errorf("%s: %s/%s is left", when, dir, e.Name())
				}
			}
		}
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
		tidy(fs, fmt.Sprintf("full from operation %d", n))
		// Room again: what was left is cleared away and the release installed.
		fs = fs.Restart()
		if err := sync(fs, next); err != nil {
			t.Fatalf("full from operation %d, then room: %v", n, err)
		}
		tidy(fs, fmt.Sprintf("full from operation %d, then room", n))
	}
	if full < 10 {
		t.Errorf("the disk was full %d times", full)
	}
}

// Attack 26: a disk that says that it has no room is not begun to be filled.
func TestAttack26_NoRoomIsSaidBeforeAnythingIsWritten(t *testing.T) {
	o := newOperator(t)
	old, next := o.publish(1), o.publish(2)
	fs := faultfs.New()
	a := agentOn(fs)
	sync := func(from oras.Ref) (*Synced, error) {
		return a.Sync(context.Background(), from, oras.Options{}, o.Verifier, "/etc/policy.yaml", time.Now())
	}
	if _, err := sync(old); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name         string
		bytes, files int64
		says         string
	}{
		{"no byte", 0, 1 << 20, "0 KiB are free and"},
		{"too few bytes", 1 << 20, 1 << 20, "1024 KiB are free and"},
		{"too few files", 1 << 30, slotFiles - 1, "31 more files and directories are possible and 32 are needed"},
	} {
		fs.SetFree(c.bytes, c.files)
		before := len(fs.Trace())
		s, err := sync(next)
		if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNothing) {
			t.Errorf("%s: %v", c.name, err)
		}
		if text := fmt.Sprint(err); !strings.Contains(text, c.says) || !strings.Contains(text, filepath.Join("state", "releases")) {
			t.Errorf("%s: %v", c.name, err)
		}
		if s == nil || s.Installed || s.Verdict == nil {
			t.Errorf("%s: %+v", c.name, s)
		}
		for _, line := range fs.Trace()[before:] {
			switch verb, _, _ := strings.Cut(line, " "); verb {
			case "create", "write", "mkdir", "rename", "remove", "removeall":
				t.Errorf("%s: %s", c.name, line)
			}
		}
		// What is there stays in use, and needs no room to be found current.
		if s, err := sync(old); err != nil || s.Installed || s.Number != 1 {
			t.Errorf("%s: unchanged: %+v, %v", c.name, s, err)
		}
	}
	fs.SetFree(2<<20, slotFiles)
	if s, err := sync(next); err != nil || !s.Installed {
		t.Errorf("just enough: %+v, %v", s, err)
	}
}
