package durable

import (
	"errors"
	"path/filepath"
	"runtime"
	"testing"
)

func TestOneHolderOfALock(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "js" {
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
