package faultfs_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/internal/durable/faultfs"
)

// class reduces an error to what callers may branch on.
func class(err error) string {
	switch {
	case err == nil:
		return "nil"
	case errors.Is(err, fs.ErrNotExist):
		return "not exist"
	case errors.Is(err, fs.ErrExist):
		return "exist"
	case errors.Is(err, durable.ErrNotFile):
		return "not file"
	}
	return "other"
}

// dump lists a tree with its contents.
func dump(fsys durable.FS, root string) string {
	var out strings.Builder
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := fsys.ReadDir(filepath.Join(root, dir))
		if err != nil {
			fmt.Fprintln(&out, dir, err)
			return
		}
		for _, e := range entries {
			p := filepath.Join(dir, e.Name())
			if e.IsDir() {
				fmt.Fprintf(&out, "%s/\n", p)
				walk(p)
				continue
			}
			f, err := fsys.Open(filepath.Join(root, p))
			if err != nil {
				fmt.Fprintln(&out, p, class(err))
				continue
			}
			b, _ := io.ReadAll(f)
			f.Close()
			fmt.Fprintf(&out, "%s %q\n", p, b)
		}
	}
	walk("")
	return out.String()
}

// Without faults the file system in memory must answer as the real one does.
func TestAgreesWithTheRealFileSystem(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "js" {
		t.Skip("errors of renaming differ here")
	}
	paths := []string{"a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "a/x"}
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m, dir := faultfs.New(), t.TempDir()
		for step := range 60 {
			p, q, op := paths[rng.IntN(len(paths))], paths[rng.IntN(len(paths))], rng.IntN(10)
			if op == 4 && (p == q || strings.HasPrefix(q, p+"/")) {
				continue // moving a directory into itself
			}
			act := func(fsys durable.FS, root string) (string, error) {
				path, other := filepath.Join(root, p), filepath.Join(root, q)
				switch op {
				case 0:
					return "mkdir", fsys.Mkdir(path, 0o755)
				case 1:
					return "mkdirall", fsys.MkdirAll(path, 0o755)
				case 2, 3:
					f, err := fsys.Create(path, 0o644)
					if err != nil {
						return "create", err
					}
					fmt.Fprint(f, step)
					return "create", errors.Join(f.Sync(), f.Close())
				case 4:
					return "rename", fsys.Rename(path, other)
				case 5:
					return "remove", fsys.Remove(path)
				case 6:
					return "removeall", fsys.RemoveAll(path)
				case 7:
					_, err := fsys.Lstat(path)
					return "lstat", err
				case 8:
					return "syncfile", fsys.SyncFile(path)
				}
				_, err := fsys.ReadDir(path)
				return "readdir", err
			}
			name, want := act(durable.OS, dir)
			_, got := act(m, "")
			// Where a rename is wrong in two ways, systems differ in which they name.
			if class(got) != class(want) && (op != 4 || got == nil || want == nil) {
				t.Fatalf("seed %d: %s %s %s: %v here, %v there", seed, name, p, q, got, want)
			}
			if got, want := dump(m, ""), dump(durable.OS, dir); got != want {
				t.Fatalf("seed %d: after %s %s %s:\n%s\nwant\n%s", seed, name, p, q, got, want)
			}
		}
	}
}

func TestFlavours(t *testing.T) {
	for _, c := range []struct {
		f       faultfs.Flavour
		err     error
		content string // of the file afterwards
		later   error  // of the next operation
	}{
		{faultfs.Lost, faultfs.ErrInjected, "", nil},
		{faultfs.Reported, faultfs.ErrInjected, "abcdef", nil},
		{faultfs.Short, io.ErrShortWrite, "abc", nil},
		{faultfs.Full, syscall.ENOSPC, "abc", syscall.ENOSPC},
		{faultfs.Kill, faultfs.ErrKilled, "", faultfs.ErrKilled},
	} {
		m := faultfs.New()
		f, err := m.Create("f", 0o600)
		if err != nil {
			t.Fatal(err)
		}
		m.Inject(1, c.f)
		n, err := f.Write([]byte("abcdef"))
		if !errors.Is(err, c.err) || c.f != faultfs.Reported && n != len(c.content) {
			t.Errorf("%v: %d, %v", c.f, n, err)
		}
		if err := m.Mkdir("d", 0o755); !errors.Is(err, c.later) {
			t.Errorf("%v: then %v", c.f, err)
		}
		if got, err := durable.ReadFile(m.Restart(), "f", 100); err != nil || string(got) != c.content {
			t.Errorf("%v: file holds %q, %v", c.f, got, err)
		}
	}
}

func TestPowerLossKeepsWhatWasSynced(t *testing.T) {
	m := faultfs.New()
	write := func(name, data string, sync bool) {
		f, err := m.Create(name, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(f, data)
		if sync {
			f.Sync()
		}
		f.Close()
	}
	write("both", "x", true)
	write("name", "x", false)
	if err := m.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	write("neither", "x", false)
	write("bytes", "x", true)
	if got, want := dump(m.PowerLoss(0), ""), "both \"x\"\nname \"\"\n"; got != want {
		t.Errorf("worst case:\n%swant\n%s", got, want)
	}
	var seen []string
	for seed := range uint64(64) {
		d := dump(m.PowerLoss(seed), "")
		if d != dump(m.PowerLoss(seed), "") {
			t.Fatalf("seed %d is not repeatable", seed)
		}
		if !strings.Contains(d, "both \"x\"\n") {
			t.Errorf("seed %d lost what was synced:\n%s", seed, d)
		}
		if !slices.Contains(seen, d) {
			seen = append(seen, d)
		}
	}
	if len(seen) < 4 || !slices.Contains(seen, dump(m.Restart(), "")) {
		t.Errorf("only %d outcomes", len(seen))
	}
}

func TestInjectTakesBack(t *testing.T) {
	m := faultfs.New()
	m.Inject(1, faultfs.Kill)
	m.Inject(0, faultfs.Lost)
	if err := m.Mkdir("d", 0o755); err != nil {
		t.Error(err)
	}
}
