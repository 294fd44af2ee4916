// Package durable writes files and directories so that they survive a crash
// of the process or of the machine, whole or not at all.
//
// # Guarantee
//
// WriteFile and (*Dir).Commit put something new in the place of a path. At
// every instant, also after a power loss, that path shows either all of the
// old or all of the new; never a mixture, a prefix or an empty file. Once they
// return nil, it is the new, for good.
//
// When they return an error, or the process dies inside them, the path shows
// the old or the new, and one more call settles it. ErrNotDurable marks the one
// error after which the new is known to be in place but might not outlive a
// power loss.
//
// # The calls made
//
// On Linux, WriteFile(OS, "d/f", data, 0o600) makes these system calls:
//
//	openat("d/.f.tmp-X", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600)
//	write(…, data)
//	fsync(…)                       the bytes, before any name leads to them
//	close(…)
//	renameat("d/.f.tmp-X", "d/f")  the name, in one step
//	openat("d") fsync(…) close(…)  the name, on the disk
//
// and Stage(OS, "d/t") with (*Dir).Commit these, after Stage has made d where
// it was missing and synced the directory above it:
//
//	mkdirat("d/.t.tmp-X", 0777)
//	…                              the caller writes into d/.t.tmp-X
//	openat fsync close             each file, then its directory, inside out
//	rmdir("d/t")                   only where an empty d/t stands
//	renameat("d/.t.tmp-X", "d/t")
//	openat("d") fsync(…) close(…)
//
// A failed fsync is final: the kernel may have dropped the dirty pages and
// would report success the next time, so nothing is retried and the temporary
// file is removed. On Apple systems the Go runtime asks for a full flush of the drive.
//
// # Windows
//
// Replacing a file is one step there too, but the system refuses it while
// somebody has the old file open. Open and OpenShared let others rename and remove
// what they read; other programs may not, so what is refused because a file is in
// use is tried again for two seconds. After that it is an error, and the old stays.
//
// Directories cannot be synced, so the last replacement may be lost in a power
// loss: then the old is there, whole. Links are not followed, and TryLock says
// ErrLocked at once (LockFileEx), as on Unix. Modes and owners are not looked at:
// who may write is for the permissions of the folder to say.
//
// # What remains
//
// Where else a directory cannot be synced (WebAssembly, some network file
// systems), the same holds as on Windows. Temporary entries that a killed process
// left behind are found again by Clean. Two processes that write the same path are
// both safe, and the later one wins; whoever needs more than that must hold a
// lock. Drives that acknowledge a flush they have not made are beyond help.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
)

// Errors that callers branch on.
var (
	// ErrExists: the target of a staged directory is taken.
	ErrExists = errors.New("already exists")
	// ErrNotDurable: the change is visible, but its name may not outlive a power loss.
	ErrNotDurable = errors.New("in place but perhaps not on disk")
	// ErrNotFile: a symbolic link, directory, device or pipe stands where a regular file was expected.
	ErrNotFile = errors.New("not a regular file")
	// ErrLocked: another process has the lock, or another part of this one.
	ErrLocked = errors.New("in use by another process")
	// ErrTooLarge: a file is longer than the reader's limit.
	ErrTooLarge = errors.New("file too large")
)

// FS is the set of file operations that durability rests on. Paths are those
// of the host. OS is the real one; package faultfs has one that fails on
// demand. Errors keep the classes of io/fs (fs.ErrNotExist, fs.ErrExist).
// Implementations are safe for concurrent use.
type FS interface {
	// MkdirAll makes the directory path with the parents that are missing, and
	// syncs each directory in which it made one. Nil if path is a directory already,
	// fs.ErrExist if it or a parent is something else.
	MkdirAll(path string, perm fs.FileMode) error
	// Mkdir makes one directory. A taken name is fs.ErrExist.
	Mkdir(path string, perm fs.FileMode) error
	// Create makes a new file for writing. A taken name, be it a dangling link,
	// is fs.ErrExist: nothing is ever opened through a link or truncated.
	Create(path string, perm fs.FileMode) (File, error)
	// Open opens a regular file for reading. It does not follow path when that
	// is a symbolic link: such, and whatever else is no regular file, is ErrNotFile.
	// Links among the parents of path are followed.
	Open(path string) (File, error)
	// Rename moves oldpath to newpath in one step. An existing file (or link, itself)
	// is replaced, an existing directory is fs.ErrExist.
	Rename(oldpath, newpath string) error
	// Remove removes a file, a link or an empty directory.
	Remove(path string) error
	// RemoveAll removes path and all below it, following no link. Nil if there is none.
	RemoveAll(path string) error
	// ReadDir lists a directory, sorted by name.
	ReadDir(path string) ([]fs.DirEntry, error)
	// Lstat describes path itself, not what a link points to.
	Lstat(path string) (fs.FileInfo, error)
	// Free returns how many bytes and how many files and directories this user can
	// still add where the directory path is. What the system does not tell is
	// math.MaxInt64: both on systems other than Linux, macOS, iOS and FreeBSD; one that
	// the file system does not count; and what a quota leaves.
	Free(path string) (bytes, files int64)
	// SyncFile brings the bytes of a closed regular file to the disk.
	SyncFile(path string) error
	// SyncDir brings the names in a directory to the disk. It is a no-op, with a
	// nil error, where the system cannot do that.
	SyncDir(path string) error
}

// File is an open file of an FS. Writes go to files from Create, reads to
// files from Open. Sync brings the written bytes to the disk.
type File interface {
	io.ReadWriteCloser
	Sync() error
}

const tempMark = ".tmp-"

// IsTemp reports whether name, without a directory, is one that this package
// gives to unfinished files and directories.
func IsTemp(name string) bool {
	i := strings.LastIndex(name, tempMark)
	return i > 1 && name[0] == '.' && len(name) > i+len(tempMark)
}

// beside calls make with fresh temporary names in the directory of path until
// one was free.
func beside(path string, make func(temp string) error) (string, error) {
	dir, base := filepath.Split(path)
	for try := 0; ; try++ {
		temp := dir + "." + base + tempMark + strconv.FormatUint(rand.Uint64(), 36)
		err := make(temp)
		if err == nil || !errors.Is(err, fs.ErrExist) || try == 100 {
			return temp, err
		}
	}
}

// checkPath refuses paths without a last element to replace.
func checkPath(path string) error {
	switch base := filepath.Base(path); base {
	case ".", "..", string(filepath.Separator):
		return fmt.Errorf("path %q has no name of its own", path)
	}
	return nil
}

// WriteFile replaces the file at path, or makes it, with data under the
// guarantee of the package. The directory must exist. perm (before the umask)
// is that of the new file; mode, owner and links of an old file are not kept, a
// symbolic link is itself replaced. On an error that is not ErrNotDurable
// nothing is left behind except what the file system refuses to remove.
func WriteFile(fsys FS, path string, data []byte, perm fs.FileMode) error {
	if err := checkPath(path); err != nil {
		return err
	}
	path = filepath.Clean(path)
	var f File
	temp, err := beside(path, func(temp string) (err error) {
		f, err = fsys.Create(temp, perm)
		return err
	})
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err = fill(f, data); err == nil {
		err = fsys.Rename(temp, path)
	}
	if err != nil {
		fsys.Remove(temp)
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := fsys.SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("writing %s: %w: %w", path, ErrNotDurable, err)
	}
	return nil
}

// fill writes data, syncs and closes f, whatever happens.
func fill(f File, data []byte) error {
	n, err := f.Write(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// ReadFile returns the bytes of the regular file at path, following no link.
// More than limit bytes is ErrTooLarge, another kind of entry ErrNotFile.
func ReadFile(fsys FS, path string, limit int64) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("reading %s: %w: limit %d bytes", path, ErrTooLarge, limit)
	}
	return b, nil
}

// Dir is a directory that is being built beside its target. It is not safe
// for concurrent use, the files in it are the caller's.
type Dir struct {
	fsys         FS
	target, temp string
	done         bool
}

// Stage begins a directory that Commit will put at target. It makes the
// parents of target where they are missing. A target that is anything but an
// empty directory or nothing is ErrExists, now and again at Commit.
func Stage(fsys FS, target string) (*Dir, error) {
	if err := checkPath(target); err != nil {
		return nil, err
	}
	d := &Dir{fsys: fsys, target: filepath.Clean(target)}
	if err := fsys.MkdirAll(filepath.Dir(d.target), 0o777); err != nil {
		return nil, fmt.Errorf("making %s: %w", d.target, err)
	}
	if _, err := d.free(); errors.Is(err, ErrExists) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("making %s: %w", d.target, err)
	}
	var err error
	d.temp, err = beside(d.target, func(temp string) error { return fsys.Mkdir(temp, 0o777) })
	if err != nil {
		return nil, fmt.Errorf("making %s: %w", d.target, err)
	}
	return d, nil
}

// taken is ErrExists in words that need nothing before them.
type taken string

func (t taken) Error() string        { return string(t) }
func (t taken) Is(target error) bool { return target == ErrExists }

// free reports whether an empty directory stands at the target; ErrExists if
// anything else does.
func (d *Dir) free() (empty bool, err error) {
	info, err := d.fsys.Lstat(d.target)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.IsDir() {
		return false, taken(d.target + " exists and is no directory")
	}
	entries, err := d.fsys.ReadDir(d.target)
	if err != nil {
		return false, err
	}
	if len(entries) > 0 {
		return false, taken("directory " + d.target + " is not empty")
	}
	return true, nil
}

// Path is where the directory stands until Commit.
func (d *Dir) Path() string { return d.temp }

// WriteFile makes the file name (one path element) in the staged directory. It
// need not be synced before Commit does so; a taken name is fs.ErrExist.
func (d *Dir) WriteFile(name string, data []byte, perm fs.FileMode) error {
	if name != filepath.Base(name) || checkPath(name) != nil {
		return fmt.Errorf("making %s: %q is not a plain file name", d.target, name)
	}
	f, err := d.fsys.Create(filepath.Join(d.temp, name), perm)
	if err == nil {
		var n int
		if n, err = f.Write(data); err == nil && n < len(data) {
			err = io.ErrShortWrite
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return fmt.Errorf("making %s: %s: %w", d.target, name, err)
	}
	return nil
}

// Commit syncs everything below Path and renames it to the target under the
// guarantee of the package. All files in it must be closed. A target taken
// meanwhile, also by another process at the last instant, is ErrExists; an entry
// that is neither directory nor regular file is ErrNotFile. An empty directory at
// the target may be gone after an error. After any error other than ErrNotDurable,
// Discard is still to be called. Commit succeeds once.
func (d *Dir) Commit() error {
	if d.done {
		return fmt.Errorf("making %s: staged directory is closed", d.target)
	}
	if err := d.commit(); errors.Is(err, ErrExists) {
		return err
	} else if err != nil {
		return fmt.Errorf("making %s: %w", d.target, err)
	}
	return nil
}

func (d *Dir) commit() error {
	if err := syncTree(d.fsys, d.temp); err != nil {
		return err
	}
	empty, err := d.free()
	if err != nil {
		return err
	}
	if empty {
		if err := d.fsys.Remove(d.target); err != nil {
			return d.taken(err)
		}
	}
	if err := d.fsys.Rename(d.temp, d.target); err != nil {
		return d.taken(err)
	}
	d.done = true
	if err := d.fsys.SyncDir(filepath.Dir(d.target)); err != nil {
		return fmt.Errorf("%w: %w", ErrNotDurable, err)
	}
	return nil
}

// taken turns the failure of the last step into ErrExists if it failed because
// something appeared at the target after it was looked at.
func (d *Dir) taken(err error) error {
	if _, terr := d.free(); errors.Is(terr, ErrExists) {
		if _, lerr := d.fsys.Lstat(d.temp); lerr == nil {
			return terr
		}
	}
	return err
}

// syncTree syncs the files below dir, each directory after what it holds.
func syncTree(fsys FS, dir string) error {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir():
			err = syncTree(fsys, path)
		case e.Type().IsRegular():
			err = fsys.SyncFile(path)
		default:
			err = fmt.Errorf("%s: %w", path, ErrNotFile)
		}
		if err != nil {
			return err
		}
	}
	return fsys.SyncDir(dir)
}

// Discard removes the staged directory unless it was committed, so that
// "defer d.Discard()" is right after every Stage. What cannot be removed keeps its
// temporary name, by which Clean knows it.
func (d *Dir) Discard() {
	if !d.done {
		d.done = true
		d.fsys.RemoveAll(d.temp)
	}
}

// Clean removes the unfinished files and directories that killed processes
// left in dir, and reports how many. It cannot tell them from those of a live
// process: call it only while nobody else writes there. A missing dir is empty.
func Clean(fsys FS, dir string) (int, error) {
	entries, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cleaning %s: %w", dir, err)
	}
	n := 0
	for _, e := range entries {
		if !IsTemp(e.Name()) {
			continue
		}
		if err := fsys.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return n, fmt.Errorf("cleaning %s: %w", dir, err)
		}
		n++
	}
	return n, nil
}
