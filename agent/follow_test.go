package agent

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFollowerReadsAcrossRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	put := func(text string, flag int) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flag, 0o600)
		if err == nil {
			_, err = f.WriteString(text)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	put("before\n", 0)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	x, err := Follow(ctx, path, false, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	lines := make(chan string)
	ended := make(chan error, 1)
	go func() {
		sc := bufio.NewScanner(x)
		for sc.Scan() {
			lines <- sc.Text()
		}
		ended <- sc.Err()
	}()
	want := func(text string) {
		t.Helper()
		select {
		case got := <-lines:
			if got != text {
				t.Errorf("got %q, want %q", got, text)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no %q", text)
		}
	}
	put("one\ntw", os.O_APPEND)
	want("one")
	put("o\n", os.O_APPEND)
	want("two")
	// Moved away, written to once more, and made anew.
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	old := path
	path += ".1"
	put("three\ncut sh", os.O_APPEND)
	path = old
	want("three")
	put("four\n", 0)
	want("cut sh")
	want("four")
	// Cut off in its place.
	put("5\n", os.O_TRUNC)
	want("5")
	// Gone for a while.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * followPoll)
	put("six\n", 0)
	want("six")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}

	stop := errors.New("stop")
	x, err = Follow(context.Background(), path, true, func() error { return stop })
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if _, err := x.Read(make([]byte, 10)); err != stop {
		t.Errorf("idle: %v", err)
	}
}
