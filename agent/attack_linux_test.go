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

	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Attack 26: the state directory stands on a small file system, on one with
// few inodes, and on one that may only be read.
func TestAttack26_SmallFileSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	o := newOperator(t)
	old, next := o.publish(1), o.publish(2)
	for _, c := range []struct {
		name, first, then string // options of tmpfs
		class             error  // nil: it works
		says              string
	}{
		{"small", "size=3m", "size=1m", syscall.ENOSPC, "KiB are free and"},
		{"few inodes", "nr_inodes=60", "nr_inodes=30", syscall.ENOSPC, "files and directories are possible"},
		{"read-only", "size=8m", "ro", syscall.EROFS, ""},
		{"large enough", "size=3m", "size=3m", nil, ""},
	} {
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=700,"+c.first); errors.Is(err, syscall.EPERM) {
			t.Skip("root may not mount here")
		} else if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
		a := Open(filepath.Join(dir, "state"))
		sync := func(from oras.Ref) error {
			_, err := a.Sync(context.Background(), from, oras.Options{}, o.Verifier, "policy.yaml", time.Now())
			return err
		}
		if err := sync(old); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		flags := uintptr(syscall.MS_REMOUNT)
		if c.then == "ro" {
			flags, c.then = flags|syscall.MS_RDONLY, "size=8m"
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, c.then); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		err := sync(next)
		if !errors.Is(err, c.class) || errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
		in, err := a.Status(context.Background(), o.Verifier, time.Now())
		if err != nil || in.Verdict.Number != map[bool]int64{true: 2, false: 1}[c.class == nil] || !in.Loadable() {
			t.Errorf("%s: afterwards: %+v, %v", c.name, in, err)
		}
		releases, err := os.ReadDir(filepath.Join(dir, "state", "releases"))
		if want := map[bool]int{true: 6, false: 3}[c.class == nil]; err != nil || len(releases) != want {
			t.Errorf("%s: %d entries beside the slots, want %d: %v, %v", c.name, len(releases), want, releases, err)
		}
	}
}
