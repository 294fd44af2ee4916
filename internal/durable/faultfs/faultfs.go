// Package faultfs is a file system in memory, for tests of code that must
// survive crashes. It writes down every operation, fails on demand at any one
// of them, and knows which of its state would outlive a power loss.
package faultfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/durable"
)

// Flavour is a way in which an operation fails.
type Flavour int

const (
	// Lost: the operation does nothing and reports an error.
	Lost Flavour = iota
	// Reported: the operation is done, and reports an error nevertheless.
	Reported
	// Short: a write stores the first half and reports io.ErrShortWrite; other operations as in Lost.
	Short
	// Full: from here on, whatever needs room fails with syscall.ENOSPC; a write stores the first half.
	Full
	// Kill: from here on nothing happens any more, as if the process had died; every call reports ErrKilled.
	Kill
)

// Flavours lists all of them.
var Flavours = []Flavour{Lost, Reported, Short, Full, Kill}

// String returns the flavour's name in lower case.
func (f Flavour) String() string {
	return [...]string{"lost", "reported", "short", "full", "kill"}[f]
}

var (
	// ErrInjected is what Lost and Reported operations return.
	ErrInjected = errors.New("injected fault")
	// ErrKilled is what every operation returns after Kill.
	ErrKilled = errors.New("process is dead")
)

// node is a file, a directory or a symbolic link. What is on the disk is kept
// beside what a running process sees.
type node struct {
	mode           fs.FileMode
	data, onDisk   []byte // of files; links hold their target in data
	names, durable map[string]*node
}

func newDir(perm fs.FileMode) *node {
	return &node{mode: fs.ModeDir | perm, names: map[string]*node{}, durable: map[string]*node{}}
}

// FS is a durable.FS in memory. The zero FS is not usable, call New. Relative
// and absolute paths name the same tree; "" and "." are its root. It is safe for concurrent use.
type FS struct {
	mu      sync.Mutex
	root    *node
	trace   []string
	temps   []string
	at      int
	flavour Flavour
	full    bool
	dead    bool
	left    [2]int64 // what Free returns
}

var _ durable.FS = (*FS)(nil)

// New returns an empty file system without faults.
func New() *FS { return &FS{root: newDir(0o755), left: [2]int64{math.MaxInt64, math.MaxInt64}} }

// SetFree sets what Free returns, and bounds nothing: a disk that says it is full
// and one that is (Full) are apart. Restart and PowerLoss set it to not known.
func (m *FS) SetFree(bytes, files int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = [2]int64{bytes, files}
}

// Free is that of durable.FS, and is not traced.
func (m *FS) Free(string) (bytes, files int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left[0], m.left[1]
}

// Inject makes the n-th operation from now fail, 1 being the next. 0 takes a
// pending fault back.
func (m *FS) Inject(n int, f Flavour) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at, m.flavour = 0, f
	if n > 0 {
		m.at = len(m.trace) + n
	}
}

// Trace returns the operations so far, one line each: the verb, its paths with
// slashes and, for writes, the number of bytes. Temporary names are numbered
// in order of appearance, "d/.f.tmp-#1", so that a trace can be compared.
func (m *FS) Trace() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.trace)
}

// Restart returns the file system as the next process finds it when this one
// has died but the machine has not: everything done is there.
func (m *FS) Restart() *FS {
	return m.survivors(func(*node) bool { return true })
}

// PowerLoss returns the file system as the machine finds it after a power loss.
// Seed 0 keeps only what was synced. With any other seed each file's bytes and
// each directory's names are, by a coin, what was synced last or what stood
// there at the end.
func (m *FS) PowerLoss(seed uint64) *FS {
	coin := rand.New(rand.NewPCG(seed, 0))
	return m.survivors(func(*node) bool { return seed != 0 && coin.IntN(2) == 1 })
}

func (m *FS) survivors(latest func(*node) bool) *FS {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[*node]*node{}
	var keep func(n *node) *node
	keep = func(n *node) *node {
		if k := seen[n]; k != nil {
			return k
		}
		k := &node{mode: n.mode}
		seen[n] = k
		from, data := n.durable, n.onDisk
		if latest(n) {
			from, data = n.names, n.data
		}
		if n.mode&fs.ModeSymlink != 0 {
			data = n.data
		}
		k.data = slices.Clone(data)
		k.onDisk = slices.Clone(data)
		if n.mode.IsDir() {
			k.names, k.durable = map[string]*node{}, map[string]*node{}
			for _, name := range sorted(from) {
				k.names[name] = keep(from[name])
				k.durable[name] = k.names[name]
			}
		}
		return k
	}
	again := New()
	again.root = keep(m.root)
	return again
}

func sorted(names map[string]*node) []string {
	var out []string
	for name := range names {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// fault is what the current operation has to do.
type fault struct {
	skip bool  // do nothing
	half bool  // a write: store the first half
	err  error // report this at the end
}

func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(name)), "/")
}

// begin writes the operation down and decides its fate. m.mu is held.
func (m *FS) begin(needsRoom bool, verb string, args ...string) fault {
	if m.dead {
		return fault{skip: true, err: ErrKilled}
	}
	line := verb
	for _, a := range args {
		line += " " + m.number(a)
	}
	m.trace = append(m.trace, line)
	f := fault{}
	if m.at == len(m.trace) {
		m.at = 0
		switch m.flavour {
		case Lost:
			f = fault{skip: true, err: ErrInjected}
		case Reported:
			f = fault{err: ErrInjected}
		case Short:
			f = fault{skip: true, err: ErrInjected}
			if verb == "write" {
				f = fault{half: true, err: io.ErrShortWrite}
			}
		case Full:
			m.full = true
		case Kill:
			m.dead = true
			return fault{skip: true, err: ErrKilled}
		}
	}
	if m.full && needsRoom {
		f = fault{skip: verb != "write", half: verb == "write", err: syscall.ENOSPC}
	}
	return f
}

// number replaces the random part of temporary names.
func (m *FS) number(name string) string {
	parts := strings.Split(clean(name), "/")
	for i, p := range parts {
		if !durable.IsTemp(p) {
			continue
		}
		k := slices.Index(m.temps, p)
		if k < 0 {
			k, m.temps = len(m.temps), append(m.temps, p)
		}
		parts[i] = fmt.Sprintf("%s#%d", p[:strings.LastIndexByte(p, '-')+1], k+1)
	}
	if s := strings.Join(parts, "/"); s != "" {
		return s
	}
	return "."
}

func pathErr(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// lookup finds the node at name, following links among its parents only. m.mu is held.
func (m *FS) lookup(name string) (*node, error) {
	n, err := m.walk(m.root, clean(name), 0)
	if err != nil {
		return nil, pathErr("lookup", name, err)
	}
	return n, nil
}

func (m *FS) walk(n *node, rel string, depth int) (*node, error) {
	if depth > 40 {
		return nil, errors.New("too many links")
	}
	for rel != "" {
		var elem string
		elem, rel, _ = strings.Cut(rel, "/")
		if !n.mode.IsDir() {
			return nil, syscall.ENOTDIR
		}
		next := n.names[elem]
		if next == nil {
			return nil, fs.ErrNotExist
		}
		if next.mode&fs.ModeSymlink != 0 && rel != "" {
			var err error
			if next, err = m.walk(m.root, clean(string(next.data)), depth+1); err != nil {
				return nil, err
			}
		}
		n = next
	}
	return n, nil
}

// parent finds the directory of name and its last element. m.mu is held.
func (m *FS) parent(name string) (*node, string, error) {
	c := clean(name)
	if c == "" {
		return nil, "", pathErr("lookup", name, fs.ErrInvalid)
	}
	dir, base := path.Split(c)
	n, err := m.walk(m.root, strings.TrimSuffix(dir, "/"), 0)
	if err == nil && n.mode&fs.ModeSymlink != 0 {
		n, err = m.walk(m.root, clean(string(n.data)), 1)
	}
	if err == nil && !n.mode.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, "", pathErr("lookup", name, err)
	}
	return n, base, nil
}

// do runs one operation under the lock and its fault.
func (m *FS) do(needsRoom bool, act func() error, verb string, args ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.begin(needsRoom, verb, args...)
	if f.skip {
		return pathErr(verb, args[0], f.err)
	}
	if err := act(); err != nil {
		return err
	}
	if f.err != nil {
		return pathErr(verb, args[0], f.err)
	}
	return nil
}

// MkdirAll is that of durable.FS.
func (m *FS) MkdirAll(name string, perm fs.FileMode) error {
	return m.do(true, func() error {
		n := m.root
		for elem := range strings.SplitSeq(clean(name), "/") {
			if elem == "" {
				continue
			}
			next := n.names[elem]
			if next == nil {
				next = newDir(perm)
				n.names[elem], n.durable[elem] = next, next
			}
			if next.mode&fs.ModeSymlink != 0 {
				var err error
				if next, err = m.walk(m.root, clean(string(next.data)), 0); err != nil {
					return pathErr("mkdirall", name, err)
				}
			}
			if !next.mode.IsDir() {
				return pathErr("mkdirall", name, fs.ErrExist)
			}
			n = next
		}
		return nil
	}, "mkdirall", name)
}

// Mkdir is that of durable.FS.
func (m *FS) Mkdir(name string, perm fs.FileMode) error {
	return m.do(true, func() error { return m.add("mkdir", name, newDir(perm)) }, "mkdir", name)
}

func (m *FS) add(op, name string, n *node) error {
	dir, base, err := m.parent(name)
	if err != nil {
		return err
	}
	if dir.names[base] != nil {
		return pathErr(op, name, fs.ErrExist)
	}
	dir.names[base] = n
	return nil
}

// Symlink puts a symbolic link to target at name; targets are taken from the
// root. It is no operation of durable.FS and is not traced.
func (m *FS) Symlink(target, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.add("symlink", name, &node{mode: fs.ModeSymlink | 0o777, data: []byte(target)})
}

// Create is that of durable.FS.
func (m *FS) Create(name string, perm fs.FileMode) (durable.File, error) {
	n := &node{mode: perm.Perm()}
	if err := m.do(true, func() error { return m.add("create", name, n) }, "create", name); err != nil {
		return nil, err
	}
	return &file{m: m, n: n, name: name, writes: true}, nil
}

// Open is that of durable.FS.
func (m *FS) Open(name string) (durable.File, error) {
	var n *node
	err := m.do(false, func() (err error) {
		if n, err = m.lookup(name); err == nil && !n.mode.IsRegular() {
			err = pathErr("open", name, durable.ErrNotFile)
		}
		return err
	}, "open", name)
	if err != nil {
		return nil, err
	}
	return &file{m: m, n: n, name: name}, nil
}

// Rename is that of durable.FS.
func (m *FS) Rename(oldpath, newpath string) error {
	return m.do(false, func() error {
		from, oldBase, err := m.parent(oldpath)
		if err != nil {
			return err
		}
		n := from.names[oldBase]
		if n == nil {
			return pathErr("rename", oldpath, fs.ErrNotExist)
		}
		to, newBase, err := m.parent(newpath)
		if err != nil {
			return err
		}
		if old := to.names[newBase]; old != nil {
			if old.mode.IsDir() {
				return pathErr("rename", newpath, fs.ErrExist)
			}
			if n.mode.IsDir() {
				return pathErr("rename", newpath, syscall.ENOTDIR)
			}
		}
		delete(from.names, oldBase)
		to.names[newBase] = n
		return nil
	}, "rename", oldpath, newpath)
}

// Remove is that of durable.FS.
func (m *FS) Remove(name string) error {
	return m.do(false, func() error {
		dir, base, err := m.parent(name)
		if err != nil {
			return err
		}
		n := dir.names[base]
		if n == nil {
			return pathErr("remove", name, fs.ErrNotExist)
		}
		if len(n.names) > 0 {
			return pathErr("remove", name, syscall.ENOTEMPTY)
		}
		delete(dir.names, base)
		return nil
	}, "remove", name)
}

// RemoveAll is that of durable.FS.
func (m *FS) RemoveAll(name string) error {
	return m.do(false, func() error {
		dir, base, err := m.parent(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		delete(dir.names, base)
		return nil
	}, "removeall", name)
}

// ReadDir is that of durable.FS.
func (m *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	var out []fs.DirEntry
	err := m.do(false, func() error {
		n, err := m.lookup(name)
		if err != nil {
			return err
		}
		if !n.mode.IsDir() {
			return pathErr("readdir", name, syscall.ENOTDIR)
		}
		for _, base := range sorted(n.names) {
			out = append(out, fs.FileInfoToDirEntry(describe(base, n.names[base])))
		}
		return nil
	}, "readdir", name)
	return out, err
}

// Lstat is that of durable.FS.
func (m *FS) Lstat(name string) (fs.FileInfo, error) {
	var out fs.FileInfo
	err := m.do(false, func() error {
		n, err := m.lookup(name)
		if err == nil {
			out = describe(path.Base(clean(name)), n)
		}
		return err
	}, "lstat", name)
	return out, err
}

// SyncFile is that of durable.FS.
func (m *FS) SyncFile(name string) error {
	return m.do(false, func() error {
		n, err := m.lookup(name)
		if err != nil {
			return err
		}
		if !n.mode.IsRegular() {
			return pathErr("syncfile", name, durable.ErrNotFile)
		}
		n.onDisk = slices.Clone(n.data)
		return nil
	}, "syncfile", name)
}

// SyncDir is that of durable.FS.
func (m *FS) SyncDir(name string) error {
	return m.do(false, func() error {
		n, err := m.lookup(name)
		if err != nil {
			return err
		}
		if !n.mode.IsDir() {
			return pathErr("syncdir", name, syscall.ENOTDIR)
		}
		clear(n.durable)
		for base, child := range n.names {
			n.durable[base] = child
		}
		return nil
	}, "syncdir", name)
}

// file is an open node.
type file struct {
	m      *FS
	n      *node
	name   string
	off    int
	writes bool
	closed bool
}

func (f *file) Write(p []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	ft := f.m.begin(true, "write", f.name)
	if k := len(f.m.trace) - 1; !f.m.dead {
		f.m.trace[k] += fmt.Sprintf(" %d", len(p))
	}
	n := len(p)
	switch {
	case ft.skip:
		return 0, pathErr("write", f.name, ft.err)
	case f.closed:
		return 0, pathErr("write", f.name, fs.ErrClosed)
	case !f.writes:
		return 0, pathErr("write", f.name, fs.ErrPermission)
	case ft.half:
		n /= 2
	}
	f.n.data = append(f.n.data, p[:n]...)
	if ft.err != nil {
		return n, pathErr("write", f.name, ft.err)
	}
	return n, nil
}

func (f *file) Read(p []byte) (int, error) {
	var n int
	err := f.m.do(false, func() error {
		if f.closed {
			return pathErr("read", f.name, fs.ErrClosed)
		}
		n = copy(p, f.n.data[min(f.off, len(f.n.data)):])
		f.off += n
		if n == 0 && len(p) > 0 {
			return io.EOF
		}
		return nil
	}, "read", f.name)
	return n, err
}

func (f *file) Sync() error {
	return f.m.do(false, func() error {
		if f.closed {
			return pathErr("sync", f.name, fs.ErrClosed)
		}
		f.n.onDisk = slices.Clone(f.n.data)
		return nil
	}, "sync", f.name)
}

func (f *file) Close() error {
	return f.m.do(false, func() error {
		if f.closed {
			return pathErr("close", f.name, fs.ErrClosed)
		}
		f.closed = true
		return nil
	}, "close", f.name)
}

type info struct {
	name string
	size int64
	mode fs.FileMode
}

func describe(name string, n *node) fs.FileInfo {
	return info{name: name, size: int64(len(n.data)), mode: n.mode}
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }
