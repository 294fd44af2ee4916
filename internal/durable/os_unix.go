//go:build unix

package durable

import (
	"errors"
	"os"
	"syscall"
)

// openFlags keeps a link or a pipe that appears at the last instant from being
// followed or waited for.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

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
