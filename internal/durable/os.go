package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// OS is the file system of the host.
var OS FS = osFS{}

type osFS struct{}

func (o osFS) MkdirAll(path string, perm fs.FileMode) error {
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	if err == nil {
		if info.IsDir() {
			return nil
		}
		return fmt.Errorf("mkdir %s: a file is in the way: %w", path, fs.ErrExist)
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	parent := filepath.Dir(path)
	if parent == path {
		return err
	}
	if err := o.MkdirAll(parent, perm); err != nil {
		return err
	}
	if err := os.Mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return o.SyncDir(parent)
}

func (osFS) Free(path string) (bytes, files int64) { return free(path) }

func (osFS) Mkdir(path string, perm fs.FileMode) error { return os.Mkdir(path, perm) }

func (osFS) Create(path string, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osFS) Open(path string) (File, error) {
	f, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// openRegular opens path only if it is itself a regular file. What Lstat saw
// is compared with what was opened, so that a link put there in between is
// found out. A file that WriteFile replaced in between is looked at again.
func openRegular(path string, flag int) (*os.File, error) {
	for range 16 {
		before, err := os.Lstat(path)
		if err != nil {
			return nil, err
		}
		if !before.Mode().IsRegular() {
			return nil, fmt.Errorf("open %s: %w", path, ErrNotFile)
		}
		var f *os.File
		if err := patiently(func() (err error) { f, err = openEntry(path, flag); return err }); err != nil {
			return nil, err
		}
		after, err := f.Stat()
		if err == nil && os.SameFile(before, after) {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("open %s: replaced each time it was opened: %w", path, ErrNotFile)
}

func (osFS) Rename(oldpath, newpath string) error   { return rename(oldpath, newpath) }
func (osFS) Lstat(path string) (fs.FileInfo, error) { return os.Lstat(path) }
func (osFS) Remove(path string) error               { return patiently(func() error { return os.Remove(path) }) }
func (osFS) RemoveAll(path string) error {
	return patiently(func() error { return os.RemoveAll(path) })
}

func (osFS) ReadDir(path string) (entries []fs.DirEntry, err error) {
	err = patiently(func() error { entries, err = os.ReadDir(path); return err })
	return entries, err
}

func (osFS) SyncFile(path string) error {
	flag := os.O_RDONLY
	if runtime.GOOS == "windows" {
		flag = os.O_RDWR // FlushFileBuffers asks for write access
	}
	f, err := openRegular(path, flag)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func (osFS) SyncDir(path string) error { return syncDir(path) }
