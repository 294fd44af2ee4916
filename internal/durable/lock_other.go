//go:build !windows && (!unix || solaris || aix)

package durable

import "github.com/rogpeppe/go-internal/lockedfile"

// TryLock takes the lock on the file at path, which it makes when it is
// missing. On this system it waits for another process instead of saying
// ErrLocked: there is no lock to ask for that is given back when a process ends
// and that also keeps the goroutines of one apart.
func TryLock(path string) (unlock func(), err error) {
	return lockedfile.MutexAt(path).Lock()
}
