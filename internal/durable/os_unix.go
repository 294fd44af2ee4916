//go:build unix

package durable

import (
	"errors"
	"os"
	"syscall"
)

// OpenShared opens a file for reading and keeps nobody from renaming or
// removing it meanwhile.
func OpenShared(path string) (*os.File, error) { return os.Open(path) }

// openEntry opens what stands at path. A link or a pipe that appears there at
// the last instant is not followed or waited for.
func openEntry(path string, flag int) (*os.File, error) {
	return os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

func rename(oldpath, newpath string) error { return os.Rename(oldpath, newpath) }
func patiently(try func() error) error     { return try() }

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	// The answers of file systems that have no sync for directories.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}
