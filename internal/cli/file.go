package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrTooLarge: a file is longer than what is read of its kind.
var ErrTooLarge = errors.New("file too large")

// ReadFile returns the bytes of a file that somebody named on a command line,
// through links and pipes. More than limit bytes are ErrTooLarge.
func ReadFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: %w: limit %d bytes", name, ErrTooLarge, limit)
	}
	return b, err
}

// CacheDir is the folder of that name for what can be fetched anew.
func CacheDir(name string) (string, error) {
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "bhtrain", name), err
}
