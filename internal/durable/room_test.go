package durable_test

import (
	"errors"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/internal/durable/faultfs"
)

func TestRoom(t *testing.T) {
	m := faultfs.New()
	for _, c := range []struct {
		bytes, names int64 // free
		files        int   // needed
		size         int64
		says         string // "" when there is room
	}{
		{math.MaxInt64, math.MaxInt64, 1 << 20, 1 << 40, ""},
		{0, 0, 0, 0, ""},
		{10<<10 + 3*4<<10, 3, 3, 10 << 10, ""},
		{10<<10 + 3*4<<10 - 1, 3, 3, 10 << 10, "d: no space left on device: 21 KiB are free and 22 KiB are needed"},
		{1 << 40, 2, 3, 10 << 10, "d: no space left on device: 2 more files and directories are possible and 3 are needed"},
		{0, 0, 1, 0, "0 KiB are free and 4 KiB"},
	} {
		m.SetFree(c.bytes, c.names)
		switch err := durable.Room(m, "d", c.files, c.size); {
		case c.says == "" && err != nil, c.says != "" && (!errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%d bytes and %d names for %d bytes in %d files: %v", c.bytes, c.names, c.size, c.files, err)
		}
	}
}

// The host says something about a directory that is there, and nothing about one that is not.
func TestFreeOnTheHost(t *testing.T) {
	dir := t.TempDir()
	bytes, files := durable.OS.Free(dir)
	switch runtime.GOOS {
	case "linux", "darwin", "ios", "freebsd":
		if bytes <= 0 || bytes > 1<<60 || files <= 0 {
			t.Errorf("%d bytes, %d files", bytes, files)
		}
	default:
		if bytes != math.MaxInt64 || files != math.MaxInt64 {
			t.Errorf("%d bytes, %d files", bytes, files)
		}
	}
	if bytes, files := durable.OS.Free(filepath.Join(dir, "none")); bytes != math.MaxInt64 || files != math.MaxInt64 {
		t.Errorf("of nothing: %d bytes, %d files", bytes, files)
	}
}
