package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/internal/durable/faultfs"
)

const limit = 1 << 20

// world is a file system that holds d/f = "old" and an empty d/t, all on disk.
func world(t *testing.T) *faultfs.FS {
	t.Helper()
	m := faultfs.New()
	for _, err := range []error{
		m.MkdirAll("d", 0o755),
		durable.WriteFile(m, "d/f", []byte("old"), 0o600),
		m.Mkdir("d/t", 0o755),
		m.SyncDir("d"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// sweep runs act once for every operation it makes and every flavour of fault,
// and hands each outcome to judge. It returns the number of outcomes.
func sweep(t *testing.T, act func(durable.FS) error, judge func(name string, m *faultfs.FS, f faultfs.Flavour, err error)) int {
	t.Helper()
	runs := 0
	for _, flavour := range faultfs.Flavours {
		for at := 0; ; at++ {
			m := world(t)
			before := len(m.Trace())
			m.Inject(at, flavour)
			err := act(m)
			judge(fmt.Sprintf("%v at operation %d", flavour, at), m, flavour, err)
			runs++
			if at > len(m.Trace())-before {
				break
			}
		}
	}
	return runs
}

// afterwards calls see with every state the disk may show later.
func afterwards(m *faultfs.FS, see func(when string, later *faultfs.FS)) {
	see("the process died", m.Restart())
	for seed := range uint64(24) {
		see(fmt.Sprintf("power was lost (seed %d)", seed), m.PowerLoss(seed))
	}
}

// brokenWrites counts the states in which a replacement of d/f by data shows
// something else than the guarantee allows.
func brokenWrites(t *testing.T, data []byte, write func(durable.FS) error) (broken []string) {
	t.Helper()
	sweep(t, write, func(name string, m *faultfs.FS, f faultfs.Flavour, err error) {
		afterwards(m, func(when string, later *faultfs.FS) {
			got, rerr := durable.ReadFile(later, "d/f", limit)
			isOld, isNew := string(got) == "old", bytes.Equal(got, data)
			process := when == "the process died"
			switch {
			case rerr != nil || !isOld && !isNew:
				broken = append(broken, fmt.Sprintf("%s, %s: %q %v", name, when, got, rerr))
			case err == nil && !isNew:
				broken = append(broken, fmt.Sprintf("%s, %s: success, but the old is back", name, when))
			case errors.Is(err, durable.ErrNotDurable) && process && !isNew:
				broken = append(broken, fmt.Sprintf("%s: said to be in place, but is not", name))
			}
			if process && f != faultfs.Kill && f != faultfs.Reported {
				entries, _ := later.ReadDir("d")
				// A fault in the removal itself leaves the file: only a first fault is promised to be tidied.
				if len(entries) != 2 {
					broken = append(broken, fmt.Sprintf("%s: left %v", name, entries))
				}
			}
		})
	})
	return broken
}

func TestWriteFileShowsOldOrNewWhateverFails(t *testing.T) {
	data := bytes.Repeat([]byte("new"), 1000)
	for _, b := range brokenWrites(t, data, func(fsys durable.FS) error {
		return durable.WriteFile(fsys, "d/f", data, 0o600)
	}) {
		t.Error(b)
	}
}

// The sweep must find every way of getting it wrong, or it proves nothing.
func TestSweepCatchesCarelessWriters(t *testing.T) {
	data := bytes.Repeat([]byte("new"), 1000)
	careless := map[string]func(durable.FS) error{
		"writes in place": func(fsys durable.FS) error {
			if err := fsys.Remove("d/f"); err != nil {
				return err
			}
			f, err := fsys.Create("d/f", 0o600)
			if err != nil {
				return err
			}
			if _, err := f.Write(data); err != nil {
				return err
			}
			return f.Sync()
		},
		"does not sync the file": func(fsys durable.FS) error {
			f, err := fsys.Create("d/.f.tmp-1", 0o600)
			if err != nil {
				return err
			}
			if _, err := f.Write(data); err != nil {
				fsys.Remove("d/.f.tmp-1")
				return err
			}
			if err := fsys.Rename("d/.f.tmp-1", "d/f"); err != nil {
				fsys.Remove("d/.f.tmp-1")
				return err
			}
			return fsys.SyncDir("d")
		},
		"does not sync the directory": func(fsys durable.FS) error {
			err := durable.WriteFile(unsyncedDirs{fsys}, "d/f", data, 0o600)
			return err
		},
		"ignores a failed write": func(fsys durable.FS) error {
			f, err := fsys.Create("d/.f.tmp-1", 0o600)
			if err != nil {
				return err
			}
			f.Write(data)
			f.Sync()
			f.Close()
			if err := fsys.Rename("d/.f.tmp-1", "d/f"); err != nil {
				fsys.Remove("d/.f.tmp-1")
				return err
			}
			return fsys.SyncDir("d")
		},
		"leaves its temporary file": func(fsys durable.FS) error {
			f, err := fsys.Create("d/.f.tmp-1", 0o600)
			if err != nil {
				return err
			}
			if _, err := f.Write(data); err != nil {
				return err
			}
			if err := f.Sync(); err != nil {
				return err
			}
			if err := fsys.Rename("d/.f.tmp-1", "d/f"); err != nil {
				return err
			}
			return fsys.SyncDir("d")
		},
	}
	for name, write := range careless {
		if len(brokenWrites(t, data, write)) == 0 {
			t.Errorf("a writer that %s passes", name)
		}
	}
}

type unsyncedDirs struct{ durable.FS }

func (unsyncedDirs) SyncDir(string) error { return nil }

var tree = map[string]string{"a": "first", "sub/b": "second", "sub/deep/c": strings.Repeat("third", 500)}

func stageTree(fsys durable.FS) error {
	d, err := durable.Stage(fsys, "d/t")
	if err != nil {
		return err
	}
	defer d.Discard()
	if err := d.WriteFile("a", []byte(tree["a"]), 0o644); err != nil {
		return err
	}
	for _, sub := range []string{"sub", "sub/deep"} {
		if err := fsys.Mkdir(filepath.Join(d.Path(), sub), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"sub/b", "sub/deep/c"} {
		f, err := fsys.Create(filepath.Join(d.Path(), name), 0o644)
		if err != nil {
			return err
		}
		if _, err := f.Write([]byte(tree[name])); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return d.Commit()
}

// brokenCommits is brokenWrites for a directory.
func brokenCommits(t *testing.T, commit func(durable.FS) error) (broken []string) {
	t.Helper()
	sweep(t, commit, func(name string, m *faultfs.FS, f faultfs.Flavour, err error) {
		afterwards(m, func(when string, later *faultfs.FS) {
			entries, _ := later.ReadDir("d/t")
			there := 0
			for file, want := range tree {
				if got, rerr := durable.ReadFile(later, "d/t/"+file, limit); rerr == nil && string(got) == want {
					there++
				}
			}
			process := when == "the process died"
			switch {
			case there == len(tree):
			case there > 0 || len(entries) > 0:
				broken = append(broken, fmt.Sprintf("%s, %s: %d files, %d entries", name, when, there, len(entries)))
			case err == nil:
				broken = append(broken, fmt.Sprintf("%s, %s: success, but nothing there", name, when))
			case errors.Is(err, durable.ErrNotDurable) && process:
				broken = append(broken, fmt.Sprintf("%s: said to be in place, but is not", name))
			}
			if process && f != faultfs.Kill && f != faultfs.Reported {
				if n, _ := durable.Clean(later, "d"); n != 0 {
					broken = append(broken, name+": left a temporary directory")
				}
			}
		})
	})
	return broken
}

func TestCommitShowsAllOrNothingWhateverFails(t *testing.T) {
	for _, b := range brokenCommits(t, stageTree) {
		t.Error(b)
	}
}

func TestSweepCatchesCarelessCommit(t *testing.T) {
	if len(brokenCommits(t, func(fsys durable.FS) error { return stageTree(unsyncedDirs{fsys}) })) == 0 {
		t.Error("a commit that syncs no directory passes")
	}
	if len(brokenCommits(t, func(fsys durable.FS) error { return stageTree(unsyncedFiles{fsys}) })) == 0 {
		t.Error("a commit that syncs no file passes")
	}
}

type unsyncedFiles struct{ durable.FS }

func (unsyncedFiles) SyncFile(string) error { return nil }

// After any crash, cleaning and trying again must lead to the new state.
func TestRetryAfterCrashSucceeds(t *testing.T) {
	sweep(t, stageTree, func(name string, m *faultfs.FS, _ faultfs.Flavour, _ error) {
		afterwards(m, func(when string, later *faultfs.FS) {
			if _, err := durable.Clean(later, "d"); err != nil {
				t.Fatalf("%s, %s: %v", name, when, err)
			}
			if err := stageTree(later); err != nil && !errors.Is(err, durable.ErrExists) {
				t.Errorf("%s, %s: %v", name, when, err)
			}
			if got, err := durable.ReadFile(later, "d/t/sub/b", limit); err != nil || string(got) != tree["sub/b"] {
				t.Errorf("%s, %s: %q %v", name, when, got, err)
			}
		})
	})
}

func TestTraceIsTheDocumentedSequence(t *testing.T) {
	m := world(t)
	skip := len(m.Trace())
	if err := durable.WriteFile(m, "d/f", []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := stageTree(m); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(m.Trace()[skip:], "\n") + "\n"
	golden(t, "testdata/trace.txt", got)
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != strings.ReplaceAll(string(want), "\r\n", "\n") {
		t.Errorf("%s differs; now:\n%s", path, got)
	}
}

func TestStageRefusesWhatIsTaken(t *testing.T) {
	for _, fsys := range []struct {
		name string
		fs   durable.FS
		dir  string
	}{{"os", durable.OS, t.TempDir()}, {"memory", faultfs.New(), "root"}} {
		t.Run(fsys.name, func(t *testing.T) {
			target := filepath.Join(fsys.dir, "x", "target")
			publish := func(content string) error {
				d, err := durable.Stage(fsys.fs, target)
				if err != nil {
					return err
				}
				defer d.Discard()
				if err := d.WriteFile("f", []byte(content), 0o644); err != nil {
					return err
				}
				return d.Commit()
			}
			early, err := durable.Stage(fsys.fs, target)
			if err != nil {
				t.Fatal(err)
			}
			if err := early.WriteFile("f", []byte("early"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := publish("first"); err != nil {
				t.Fatal(err)
			}
			if err := publish("second"); !errors.Is(err, durable.ErrExists) {
				t.Errorf("Stage on a full directory: %v", err)
			}
			if err := early.Commit(); !errors.Is(err, durable.ErrExists) {
				t.Errorf("Commit on a directory filled meanwhile: %v", err)
			}
			early.Discard()
			if got, err := durable.ReadFile(fsys.fs, filepath.Join(target, "f"), limit); err != nil || string(got) != "first" {
				t.Errorf("target holds %q, %v", got, err)
			}
			if n, err := durable.Clean(fsys.fs, filepath.Join(fsys.dir, "x")); n != 0 || err != nil {
				t.Errorf("Discard left %d entries, %v", n, err)
			}
			file := filepath.Join(fsys.dir, "file")
			if err := durable.WriteFile(fsys.fs, file, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := durable.Stage(fsys.fs, file); !errors.Is(err, durable.ErrExists) {
				t.Errorf("Stage on a file: %v", err)
			}
			if _, err := durable.Stage(fsys.fs, filepath.Join(file, "below")); err == nil {
				t.Error("Stage below a file passes")
			}
		})
	}
}

func TestCommitReplacesEmptyDirectory(t *testing.T) {
	target := filepath.Join(t.TempDir(), "empty")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := durable.Stage(durable.OS, target)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	if err := d.WriteFile("f", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(); err == nil {
		t.Error("a second Commit passes")
	}
	d.Discard()
	if _, err := os.Stat(filepath.Join(target, "f")); err != nil {
		t.Error(err)
	}
}

func TestNamesWithoutMeaningAreRefused(t *testing.T) {
	for _, path := range []string{"", ".", "..", "a/..", "/"} {
		m := faultfs.New()
		if filepath.Base(path) == ".." || path != "a/.." {
			if err := durable.WriteFile(m, path, nil, 0o644); err == nil {
				t.Errorf("WriteFile(%q) passes", path)
			}
			if _, err := durable.Stage(m, path); err == nil {
				t.Errorf("Stage(%q) passes", path)
			}
		}
	}
	d, err := durable.Stage(faultfs.New(), "t")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "../x", "/abs"} {
		if err := d.WriteFile(name, nil, 0o644); err == nil {
			t.Errorf("(*Dir).WriteFile(%q) passes", name)
		}
	}
}

func TestCommitRefusesLinks(t *testing.T) {
	m := world(t)
	d, err := durable.Stage(m, "d/t")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	if err := m.Symlink("d/f", filepath.Join(d.Path(), "link")); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(); !errors.Is(err, durable.ErrNotFile) {
		t.Errorf("Commit with a link inside: %v", err)
	}
}

func TestOpenFollowsNoLink(t *testing.T) {
	m := world(t)
	if err := m.Symlink("d/f", "d/link"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", filepath.Join(dir, "link")); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	for _, c := range []struct {
		fs  durable.FS
		dir string
	}{{m, "d"}, {durable.OS, dir}} {
		if _, err := durable.ReadFile(c.fs, filepath.Join(c.dir, "link"), limit); !errors.Is(err, durable.ErrNotFile) {
			t.Errorf("%T: reading a link: %v", c.fs, err)
		}
		if _, err := durable.ReadFile(c.fs, c.dir, limit); !errors.Is(err, durable.ErrNotFile) {
			t.Errorf("%T: reading a directory: %v", c.fs, err)
		}
		if _, err := durable.ReadFile(c.fs, filepath.Join(c.dir, "none"), limit); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%T: reading nothing: %v", c.fs, err)
		}
		if got, err := durable.ReadFile(c.fs, filepath.Join(c.dir, "f"), 3); err != nil || string(got) != "old" {
			t.Errorf("%T: %q %v", c.fs, got, err)
		}
		if _, err := durable.ReadFile(c.fs, filepath.Join(c.dir, "f"), 2); !errors.Is(err, durable.ErrTooLarge) {
			t.Errorf("%T: reading beyond the limit: %v", c.fs, err)
		}
		if err := durable.WriteFile(c.fs, filepath.Join(c.dir, "link"), []byte("own"), 0o600); err != nil {
			t.Errorf("%T: %v", c.fs, err)
		}
		if got, err := durable.ReadFile(c.fs, filepath.Join(c.dir, "f"), limit); err != nil || string(got) != "old" {
			t.Errorf("%T: writing to a link changed its target: %q %v", c.fs, got, err)
		}
		if _, err := c.fs.Create(filepath.Join(c.dir, "f"), 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%T: Create on a taken name: %v", c.fs, err)
		}
	}
}

func TestOpenDoesNotWaitForPipes(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "js" {
		t.Skip("no named pipes here")
	}
	path := filepath.Join(t.TempDir(), "pipe")
	if out, err := exec.Command("mkfifo", path).CombinedOutput(); err != nil {
		t.Skipf("mkfifo: %v %s", err, out)
	}
	if _, err := durable.OS.Open(path); !errors.Is(err, durable.ErrNotFile) {
		t.Errorf("opening a pipe: %v", err)
	}
}

func TestModeIsTheOneAsked(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "js" {
		t.Skip("no Unix modes here")
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(durable.OS, path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestErrorsKeepTheirClass(t *testing.T) {
	m := world(t)
	m.Inject(1, faultfs.Full)
	if err := durable.WriteFile(m, "d/f", []byte("new"), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full disk: %v", err)
	}
	m = world(t)
	m.Inject(6, faultfs.Lost) // create write sync close rename syncdir
	if err := durable.WriteFile(m, "d/f", []byte("new"), 0o600); !errors.Is(err, durable.ErrNotDurable) || !errors.Is(err, faultfs.ErrInjected) {
		t.Errorf("unsynced name: %v", err)
	}
	if err := durable.WriteFile(durable.OS, filepath.Join(t.TempDir(), "no", "dir"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}

func TestConcurrentWritersNeverMix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := durable.WriteFile(durable.OS, path, bytes.Repeat([]byte{'a'}, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for range 20 {
				if err := durable.WriteFile(durable.OS, path, bytes.Repeat([]byte{byte('a' + w)}, 4096), 0o600); err != nil && runtime.GOOS != "windows" {
					t.Error(err)
				}
			}
		})
	}
	for range 200 {
		b, err := os.ReadFile(path)
		if err != nil && runtime.GOOS != "windows" {
			t.Fatal(err)
		}
		if err == nil && (len(b) != 4096 || bytes.Count(b, b[:1]) != len(b)) {
			t.Fatalf("a mixture of %d bytes", len(b))
		}
	}
	wg.Wait()
}

func TestConcurrentCommitsHaveOneWinner(t *testing.T) {
	target := filepath.Join(t.TempDir(), "slot")
	var mu sync.Mutex
	var wg sync.WaitGroup
	won := 0
	for range 8 {
		wg.Go(func() {
			d, err := durable.Stage(durable.OS, target)
			if err == nil {
				defer d.Discard()
				if err = d.WriteFile("f", []byte("x"), 0o644); err == nil {
					err = d.Commit()
				}
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case !errors.Is(err, durable.ErrExists):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d winners", won)
	}
}

// A child process replaces a file over and over and is killed without warning.
func TestKilledProcessLeavesWholeFile(t *testing.T) {
	if path := os.Getenv("DURABLE_TEST_VICTIM"); path != "" {
		for i := 0; ; i++ {
			if err := durable.WriteFile(durable.OS, path, bytes.Repeat([]byte{byte('a' + i%26)}, 100_000), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if testing.Short() || runtime.GOOS == "js" {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, bytes.Repeat([]byte{'a'}, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledProcessLeavesWholeFile$")
		cmd.Env = append(os.Environ(), "DURABLE_TEST_VICTIM="+path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(60+7*i) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		b, err := os.ReadFile(path)
		if err != nil || len(b) != 100_000 || bytes.Count(b, b[:1]) != len(b) {
			t.Fatalf("after kill %d: %d bytes, %v", i, len(b), err)
		}
	}
	if _, err := durable.Clean(durable.OS, dir); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("after Clean: %v", entries)
	}
}

func TestCleanRemovesOnlyTemporaryNames(t *testing.T) {
	m := world(t)
	for _, name := range []string{"d/.f.tmp-abc", "d/.hidden", "d/f.tmp-1", "d/.tmp-1"} {
		f, err := m.Create(name, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if err := m.Mkdir("d/.t.tmp-9", 0o755); err != nil {
		t.Fatal(err)
	}
	n, err := durable.Clean(m, "d")
	if n != 2 || err != nil {
		t.Errorf("Clean = %d, %v", n, err)
	}
	entries, _ := m.ReadDir("d")
	if len(entries) != 5 {
		t.Errorf("left %v", entries)
	}
	if n, err := durable.Clean(m, "none"); n != 0 || err != nil {
		t.Errorf("missing directory: %d, %v", n, err)
	}
}

func TestReadersSeeOldOrNewWhileWritersReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	texts := [2]string{strings.Repeat("a", 5000), strings.Repeat("b", 9000)}
	if err := durable.WriteFile(durable.OS, path, []byte(texts[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := durable.WriteFile(durable.OS, path, []byte(texts[i%2]), 0o600); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 500 {
		b, err := durable.ReadFile(durable.OS, path, 1<<20)
		if err != nil || string(b) != texts[0] && string(b) != texts[1] {
			t.Errorf("read %d bytes: %v", len(b), err)
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
