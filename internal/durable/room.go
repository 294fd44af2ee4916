package durable

import (
	"fmt"
	"math"
	"math/bits"
	"syscall"
)

// unknown is how much is free where nobody can tell.
const unknown = math.MaxInt64

// left is n units of which a file system has total, in the measure of its caller.
// One without a total does not count them.
func left(total, n, unit uint64) int64 {
	high, low := bits.Mul64(n, unit)
	if total == 0 || high > 0 || low > math.MaxInt64 {
		return unknown
	}
	return int64(low)
}

// block is what a file system gives to the smallest file or directory, in bytes.
const block = 4 << 10

// Room reports whether that many more files and directories, with so many bytes
// in all, fit where the directory dir is, before any of them is written: nil, or
// syscall.ENOSPC with what is free, what is needed and where. Nil is no promise. What
// FS.Free does not know, and what others write meanwhile, shows at the writing.
func Room(fsys FS, dir string, files int, size int64) error {
	size += int64(files) * block
	bytes, names := fsys.Free(dir)
	switch {
	case bytes < size:
		return fmt.Errorf("%s: %w: %d KiB are free and %d KiB are needed: make room there", dir, syscall.ENOSPC, bytes>>10, (size+1<<10-1)>>10)
	case names < int64(files):
		return fmt.Errorf("%s: %w: %d more files and directories are possible and %d are needed: remove some on that file system", dir, syscall.ENOSPC, names, files)
	}
	return nil
}
