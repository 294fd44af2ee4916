//go:build !unix && !windows

package durable

import "os"

func syncDir(string) error { return nil }

// OpenShared opens a file for reading and keeps nobody from renaming or
// removing it meanwhile.
func OpenShared(path string) (*os.File, error) { return os.Open(path) }

func openEntry(path string, flag int) (*os.File, error) { return os.OpenFile(path, flag, 0) }
func rename(oldpath, newpath string) error              { return os.Rename(oldpath, newpath) }
func patiently(try func() error) error                  { return try() }
