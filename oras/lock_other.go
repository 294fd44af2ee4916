//go:build !unix || solaris || aix

package oras

// lockFile does nothing where there is no advisory lock in the standard
// library: there, one process at a time may write to a layout directory.
func lockFile(string) (unlock func(), err error) { return func() {}, nil }
