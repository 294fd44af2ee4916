//go:build unix && !solaris && !aix

package oras

import (
	"os"
	"syscall"
)

// lockFile waits until no other process holds the lock on path, takes it, and
// returns what gives it back. The kernel does so too when the process ends.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
