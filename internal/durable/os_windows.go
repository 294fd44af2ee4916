package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// syncDir does nothing: no call of this system promises it.
func syncDir(string) error { return nil }

// OpenShared opens a file for reading and keeps nobody from renaming or
// removing it meanwhile, as os.Open does here.
func OpenShared(path string) (f *os.File, err error) {
	err = patiently(func() error {
		f, err = openFile(path, os.O_RDONLY, 0)
		return err
	})
	return f, err
}

// openEntry opens what stands at path, a link itself.
func openEntry(path string, flag int) (*os.File, error) {
	return openFile(path, flag, windows.FILE_FLAG_OPEN_REPARSE_POINT)
}

func openFile(path string, flag int, attributes uint32) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	access := uint32(windows.GENERIC_READ)
	if flag&os.O_RDWR != 0 {
		access |= windows.GENERIC_WRITE
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	var h windows.Handle
	if err == nil {
		h, err = windows.CreateFile(name, access, share, nil, windows.OPEN_EXISTING, windows.FILE_ATTRIBUTE_NORMAL|attributes, 0)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

// rename replaces newpath. The system says of a directory there only that
// access is denied.
func rename(oldpath, newpath string) error {
	return patiently(func() error {
		err := os.Rename(oldpath, newpath)
		if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
			if info, lerr := os.Lstat(newpath); lerr == nil && info.IsDir() {
				return fmt.Errorf("rename %s %s: a directory is in the way: %w", oldpath, newpath, fs.ErrExist)
			}
		}
		return err
	})
}

// patiently tries again while another has the file open, be it another process
// of this program or one that looks for viruses, for about two seconds. The system
// says the same of a file that may never be opened.
func patiently(try func() error) error {
	const longest = 50 * time.Millisecond
	var waited time.Duration
	for pause := time.Millisecond; ; pause = min(2*pause, longest) {
		err := try()
		if !errors.Is(err, windows.ERROR_SHARING_VIOLATION) && !errors.Is(err, windows.ERROR_ACCESS_DENIED) || waited > 2*time.Second {
			return err
		}
		time.Sleep(pause)
		waited += pause
	}
}
