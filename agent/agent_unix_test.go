//go:build unix

package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// TestPlantedEntriesAreRefused puts other things where an agent expects its
// own files, with the right bytes behind them where that is possible.
func TestPlantedEntriesAreRefused(t *testing.T) {
	o := newOperator(t)
	from := o.publish(3)
	s := o.mustSync(from)
	in, err := o.Status(context.Background(), o.Verifier, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(o.slot(s.Release), "blobs", "sha256", canon.Sum(in.release.Model(oras.ModelFiles[2])).Hex())
	away := filepath.Join(t.TempDir(), "away")
	link := func(path string) error { return os.Symlink(away, path) }
	for _, c := range []struct {
		name  string
		path  string
		plant func(path string) error
	}{
		{"a link for a model", blob, link},
		{"a pipe for a model", blob, func(path string) error { return syscall.Mkfifo(path, 0o600) }},
		{"a directory for a model", blob, func(path string) error { return os.Mkdir(path, 0o700) }},
		{"a link for a slot", o.slot(s.Release), link},
		{"a file for a slot", o.slot(s.Release), func(path string) error { return os.WriteFile(path, nil, 0o600) }},
		{"a link for the state", o.statePath(), link},
		{"a pipe for the state", o.statePath(), func(path string) error { return syscall.Mkfifo(path, 0o600) }},
	} {
		if err := os.Rename(c.path, away); err != nil {
			t.Fatal(err)
		}
		if err := c.plant(c.path); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Load(context.Background(), o.Verifier, time.Now()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.path == o.statePath() {
			if _, err := o.sync(from); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: sync: %v", c.name, err)
			}
			if err := os.Remove(c.path); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(away, c.path); err != nil {
				t.Fatal(err)
			}
		} else {
			o.mustSync(from) // makes the slot anew
			if err := os.RemoveAll(away); err != nil {
				t.Fatal(err)
			}
		}
		if n := o.live(); n != 3 {
			t.Errorf("%s: live is %d afterwards", c.name, n)
		}
	}
}
