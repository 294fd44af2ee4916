package agent

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// follow is a log that is followed.
type follow struct {
	*Follower
	t     *testing.T
	log   string // path
	lines chan string
	ended chan error
	stop  context.CancelFunc
}

// newFollow follows a log that has one line already, with the times that change sets.
func newFollow(t *testing.T, change func(*Follower)) *follow {
	t.Helper()
	x := &follow{t: t, log: filepath.Join(t.TempDir(), "log"), lines: make(chan string), ended: make(chan error, 1)}
	x.put(x.log, "before\n")
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	if x.Follower, err = Follow(ctx, x.log, false, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	x.stop = cancel
	x.poll, x.calm = 5*time.Millisecond, 500*time.Millisecond
	if change != nil {
		change(x.Follower)
	}
	go func() {
		sc := bufio.NewScanner(x.Follower)
		for sc.Scan() {
			x.lines <- sc.Text()
		}
		x.ended <- sc.Err()
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-x.ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
		case line := <-x.lines:
			t.Errorf("%q at the end", line)
		case <-time.After(10 * time.Second):
			t.Error("it does not end")
		}
		x.Close()
	})
	return x
}

func (x *follow) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// put appends to a file, and to none else that comes to its name meanwhile.
func (x *follow) put(path, text string) {
	x.t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	x.must(err)
	_, err = f.WriteString(text)
	x.must(errors.Join(err, f.Close()))
}

func (x *follow) want(lines ...string) {
	x.t.Helper()
	for _, line := range lines {
		select {
		case got := <-x.lines:
			if got != line {
				x.t.Errorf("got %q, want %q", got, line)
			}
		case err := <-x.ended:
			x.t.Fatalf("ended with %v, want %q", err, line)
		case <-time.After(20 * time.Second):
			x.t.Fatalf("no %q", line)
		}
	}
}

func (x *follow) rotate() {
	x.t.Helper()
	x.must(os.Rename(x.log, x.log+".1"))
}

func TestFollowerReadsAcrossRotation(t *testing.T) {
	x := newFollow(t, nil)
	x.put(x.log, "one\ntw")
	x.want("one")
	x.put(x.log, "o\n")
	x.want("two")
	// Moved away, written to once more, and made anew.
	x.rotate()
	x.put(x.log+".1", "three\ncut sh")
	x.want("three")
	x.put(x.log, "four\n")
	x.want("cut sh", "four")
	// Gone for a while.
	x.must(os.Remove(x.log))
	time.Sleep(20 * x.poll)
	x.put(x.log, "five\n")
	x.want("five")
}

// The writer reopens its log some time after the other file is there, and
// writes to the old one until then, however long that goes on.
func TestFollowerWaitsForTheOldWriter(t *testing.T) {
	const part = 300 * time.Millisecond // of what the old file has to be quiet for
	x := newFollow(t, func(x *Follower) { x.calm = 7 * part })
	x.rotate()
	x.put(x.log, "")
	time.Sleep(part)
	x.put(x.log, "new\n")
	for range 8 {
		x.put(x.log+".1", "old\n")
		x.want("old")
		time.Sleep(part)
	}
	x.want("new")
	x.put(x.log, "newer\n")
	x.want("newer")
}

// A writer that never lets go of the old file does not keep the new one from
// being read.
func TestFollowerLeavesTheOldFileAtLast(t *testing.T) {
	x := newFollow(t, func(x *Follower) { x.calm, x.longest = time.Hour, time.Second })
	x.rotate()
	x.put(x.log, "")
	time.Sleep(2 * x.longest)
	x.put(x.log+".1", "old\n") // the new one is empty
	x.want("old")
	x.put(x.log, "new\n")
	x.want("new")
}

// The file between two rotations is read, and before the last.
func TestFollowerReadsTheFileBetweenTwoRotations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	put := func(text string) {
		t.Helper()
		os.Rename(path, path+strings.Fields(text)[0]) // to a name that nothing has
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("first\n")
	x, err := Follow(context.Background(), path, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	b := make([]byte, 100)
	step := func(text string, wantAgain bool) {
		t.Helper()
		n, _, err := x.fill(b)
		if string(b[:n]) != text || err != nil {
			t.Errorf("read %q, %v, want %q", b[:n], err, text)
		}
		if again, err := x.look(); again != wantAgain || err != nil {
			t.Errorf("after %q: again %t, %v", text, again, err)
		}
	}
	step("first\n", false)
	put("second\n")
	step("", false) // it has seen the second, and waits for more of the first
	put("third\n")
	step("", true) // two behind: no more of the first
	step("second\n", false)
	put("fourth\n")
	step("", true)
	step("third\n", false)
	x.quiet = x.calm
	step("", true)
	step("fourth\n", false)
	x.quiet = x.calm
	step("", false)
}

func TestFollowerReadsWhatWasCutOff(t *testing.T) {
	x := newFollow(t, nil)
	cut := func(text string) {
		t.Helper()
		x.must(os.WriteFile(x.log, []byte(text), 0o600)) // the same file, from its beginning
	}
	cut("5\n")
	x.want("5")
	x.put(x.log, strings.Repeat("x", 1000)+"\ncut sh")
	x.want(strings.Repeat("x", 1000))
	// Longer than it was, at once.
	cut("six\n" + strings.Repeat("y", 3000) + "\n")
	x.want("cut sh", "six", strings.Repeat("y", 3000))
	// As long as it was.
	cut("seven" + strings.Repeat("z", 2999) + "\n")
	x.want("seven" + strings.Repeat("z", 2999))
}

func TestFollowerSeesHoles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("one\ntwo\n"); err != nil {
		t.Fatal(err)
	}
	x, err := Follow(context.Background(), path, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	// Cut off by another, while its writer, which does not append, goes on.
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("three\n"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, again, err := x.fill(b); string(b[:n]) != "three\n" || again || err != nil {
		t.Errorf("%q, again %t, %v", b[:n], again, err)
	}
	if n, again, err := x.fill(b); n != 0 || again || err != nil {
		t.Errorf("at the end: %q, again %t, %v", b[:n], again, err)
	}
}

// A log rotator makes a file and gives it to its owner afterwards.
func TestFollowerIsPatient(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links are not for everybody there")
	}
	x := newFollow(t, nil)
	x.rotate()
	x.must(os.Symlink(filepath.Base(x.log), x.log)) // cannot be opened by anybody
	x.put(x.log+".1", "old\n")
	x.want("old")
	time.Sleep(20 * x.poll)
	x.must(os.Remove(x.log))
	x.put(x.log, "new\n")
	x.want("new")

	// But not for ever.
	x = newFollow(t, func(x *Follower) { x.patience = 200 * time.Millisecond })
	x.rotate()
	x.must(os.Symlink(filepath.Base(x.log), x.log))
	select {
	case err := <-x.ended:
		if err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		x.ended <- context.Canceled // for the end of the test
	case <-time.After(10 * time.Second):
		t.Error("a path that nobody can open is waited for")
	}
}

func TestFollowerAsksWhetherToGoOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	x, err := Follow(context.Background(), path, true, func() error { return stop })
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if _, err := x.Read(make([]byte, 10)); err != stop {
		t.Errorf("idle: %v", err)
	}
	x.idle = func() error { return nil }
	b := make([]byte, 10)
	if n, err := x.Read(b); err != nil || string(b[:n]) != "x\n" {
		t.Errorf("from the start: %q, %v", b[:n], err)
	}
}
