//go:build unix

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

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Attack 21: other things stand where an agent expects its own files, with the
// right bytes behind them where that is possible.
func TestAttack21_PlantedEntries(t *testing.T) {
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

// Attack 21: what no agent writes stands in a state directory, or others are
// given a way into it.
func TestAttack21_ForeignEntries(t *testing.T) {
	o := newOperator(t)
	from := o.publish(3)
	s := o.mustSync(from)
	slot := o.slot(s.Release)
	file := func(path string) (undo func() error, err error) {
		return func() error { return os.RemoveAll(path) }, os.WriteFile(path, []byte("\x80\x04\x95"), 0o600)
	}
	mode := func(path string, mode os.FileMode) (undo func() error, err error) {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		return func() error { return os.Chmod(path, info.Mode()) }, os.Chmod(path, mode)
	}
	link := func(path string) (undo func() error, err error) {
		other := filepath.Join(t.TempDir(), "other")
		return func() error { return os.Remove(other) }, os.Link(path, other)
	}
	blob := filepath.Join(slot, "blobs", "sha256", s.Release.Hex())
	for _, c := range []struct {
		name  string
		plant func() (func() error, error)
		fixed bool // sync makes it good again; else a person has to
		says  string
	}{
		{"another file beside the slots", func() (func() error, error) { return file(filepath.Join(o.dir, "releases", "x")) }, false, "nothing that this program"},
		{"another file beside the channels", func() (func() error, error) {
			if err := os.MkdirAll(filepath.Join(o.dir, "channels"), 0o700); err != nil {
				return nil, err
			}
			return file(filepath.Join(o.dir, "channels", "A B"))
		}, false, "nothing that this program"},
		{"another file in a slot", func() (func() error, error) { return file(filepath.Join(slot, "x")) }, true, "nothing that this program"},
		{"another file among the blobs", func() (func() error, error) { return file(filepath.Join(slot, "blobs", "sha256", "x")) }, true, "nothing that this program"},
		{"a state directory that its group may write to", func() (func() error, error) { return mode(o.dir, 0o770) }, false, "its group"},
		{"releases that anybody may write to", func() (func() error, error) { return mode(filepath.Join(o.dir, "releases"), 0o777) }, false, "anybody"},
		{"a state that anybody may write to", func() (func() error, error) { return mode(o.statePath(), 0o666) }, false, "anybody"},
		{"a slot that anybody may write to", func() (func() error, error) { return mode(filepath.Join(slot, "blobs"), 0o777) }, true, "anybody"},
		{"another name of a blob", func() (func() error, error) { return link(blob) }, true, "names"},
		{"another name of the state", func() (func() error, error) { return link(o.statePath()) }, false, "names"},
	} {
		undo, err := c.plant()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if _, err := o.Load(context.Background(), o.Verifier, time.Now()); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
		_, err = o.sync(from)
		if fixed := err == nil; fixed != c.fixed || !fixed && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: sync: %v", c.name, err)
		}
		if !c.fixed {
			if err := undo(); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		if n := o.live(); n != 3 {
			t.Errorf("%s: live is %d afterwards", c.name, n)
		}
	}
}

// Attack 21: what others own is not read, where a test can make such a thing.
func TestAttack21_EntriesOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	o := newOperator(t)
	s := o.mustSync(o.publish(3))
	for _, path := range []string{o.dir, o.statePath(), filepath.Join(o.slot(s.Release), "index.json")} {
		if err := os.Lchown(path, 4242, 4242); errors.Is(err, syscall.EINVAL) {
			t.Skip("no other user exists in this user namespace")
		} else if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Load(context.Background(), o.Verifier, time.Now()); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "4242") {
			t.Errorf("%s: %v", path, err)
		}
		if err := os.Lchown(path, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := o.live(); n != 3 {
		t.Errorf("live is %d", n)
	}
}
