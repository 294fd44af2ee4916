package durable

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestOneHolderOfALock(t *testing.T) {
	if runtime.GOOS == "js" {
		t.Skip("it waits here")
	}
	path := filepath.Join(t.TempDir(), "lock")
	for range 2 {
		unlock, err := TryLock(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
			t.Errorf("a second holder: %v", err)
		}
		unlock()
	}
}

// A lock belongs to a process, and ends with it.
func TestLockOfAnotherProcess(t *testing.T) {
	if path := os.Getenv("DURABLE_TEST_HOLDER"); path != "" {
		if _, err := TryLock(path); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("held\n")
		time.Sleep(time.Minute)
	}
	if runtime.GOOS == "js" {
		t.Skip("no processes here")
	}
	path := filepath.Join(t.TempDir(), "lock")
	cmd := exec.Command(os.Args[0], "-test.run=TestLockOfAnotherProcess")
	cmd.Env = append(os.Environ(), "DURABLE_TEST_HOLDER="+path)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Errorf("the other process says %q, %v", line, err)
	}
	if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("while another process has it: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	unlock, err := TryLock(path)
	if err != nil {
		t.Fatalf("after it was killed: %v", err)
	}
	unlock()
}
