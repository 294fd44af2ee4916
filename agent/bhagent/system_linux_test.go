package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A live process that has not accepted for a while: its queue is full, and the
// system does not wait.
func TestBusySocketIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	open := func() int {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(fd) })
		return fd
	}
	address := &syscall.SockaddrUnix{Name: path}
	server := open()
	if err := errors.Join(syscall.Bind(server, address), syscall.Listen(server, 0)); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		err := syscall.Connect(open(), address)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil || n == 100 {
			t.Skipf("the queue does not fill: %v", err)
		}
	}
	if _, err := listenSocket(context.Background(), path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a busy one: %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("its socket is removed: %v", err)
	}
}
