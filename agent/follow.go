package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/durable"
)

// Follower reads a log that grows, across rotation: when another file stands
// at the path, the old one is read until it has been quiet for five seconds, since
// its writer may still have it open, but no longer than a minute while the new one
// is not empty; then the new one from its beginning. A file that was cut off is
// read from its beginning again. It is an io.Reader without an end, for one
// goroutine.
//
// That a file was cut off shows in its length, and in the bytes before the place
// that was reached: one that grew past that place again, with those very bytes
// there, is taken for the same. What comes into the old file later is not read; nor
// is a file that comes and goes at the path between two looks.
type Follower struct {
	ctx    context.Context
	path   string
	idle   func() error
	f      *os.File
	offset int64
	mark   []byte // what stands before offset, markLen bytes or all
	last   byte   // the last byte that was returned
	buf    []byte

	next *os.File // stands at the path in the place of f; nil while f does

	// How long it waited, which is the time that counts here,
	held     time.Duration // since next came
	quiet    time.Duration // since next came or f grew
	troubled time.Duration // since the path could be looked at

	poll     time.Duration // between looks at a file that does not grow
	calm     time.Duration // that the old file has to be quiet for
	longest  time.Duration // that it is read while the new one has something
	patience time.Duration // with a path that cannot be looked at: owners and modes come after names
}

const (
	followPoll     = 200 * time.Millisecond
	followCalm     = 5 * time.Second
	followLongest  = time.Minute
	followPatience = time.Minute
	markLen        = 64
)

// Follow opens the log at path, at its end or at its beginning. Before each read
// and while it waits the follower calls idle, whose error ends the reading.
func Follow(ctx context.Context, path string, fromStart bool, idle func() error) (*Follower, error) {
	x := &Follower{ctx: ctx, path: path, idle: idle, last: '\n', poll: followPoll, calm: followCalm, longest: followLongest, patience: followPatience}
	f, err := durable.OpenShared(path)
	if err != nil {
		return nil, err
	}
	x.f = f
	if !fromStart {
		if err := x.toEnd(); err != nil {
			f.Close()
			return nil, err
		}
	}
	return x, nil
}

// toEnd goes to the end of the file, which is only that of a line.
func (x *Follower) toEnd() error {
	info, err := x.f.Stat()
	if err != nil {
		return err
	}
	before := min(info.Size(), markLen)
	mark := make([]byte, before)
	if _, err := x.f.ReadAt(mark, info.Size()-before); err != nil && err != io.EOF {
		return err
	}
	x.offset, x.mark = info.Size(), mark
	return nil
}

// Close closes the files.
func (x *Follower) Close() error {
	if x.next != nil {
		x.next.Close()
	}
	return x.f.Close()
}

// Read returns what there is, and waits when there is nothing.
func (x *Follower) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if err := x.idle(); err != nil {
			return 0, err
		}
		n, again, err := x.fill(p)
		if n > 0 || err != nil {
			return n, err
		}
		if !again {
			if again, err = x.look(); err != nil {
				return 0, err
			}
		}
		switch {
		case again && x.last != '\n': // a line that was cut short ends where its file did
			p[0], x.last = '\n', '\n'
			return 1, nil
		case again && x.ctx.Err() == nil:
			continue
		}
		select {
		case <-x.ctx.Done():
			return 0, x.ctx.Err()
		case <-time.After(x.poll):
			x.held, x.quiet, x.troubled = x.held+x.poll, x.quiet+x.poll, x.troubled+x.poll
		}
	}
}

// fill reads what stands after offset. With again it went to the beginning of
// the file, since what stands before offset is not what stood there.
func (x *Follower) fill(p []byte) (n int, again bool, err error) {
	k := len(x.mark)
	if cap(x.buf) < k+len(p) {
		x.buf = make([]byte, markLen+len(p))
	}
	// One read for both, so that nothing comes between.
	buf := x.buf[:k+len(p)]
	n, err = x.f.ReadAt(buf, x.offset-int64(k))
	if err == io.EOF {
		err = nil
	}
	if err != nil || n < k {
		return 0, false, err // shorter than it was: look says so
	}
	// Zeros are a hole: a writer that does not append goes on where it was.
	if !bytes.Equal(buf[:k], x.mark) && !bytes.Equal(buf[:k], make([]byte, k)) {
		x.offset, x.mark = 0, nil
		return 0, true, nil
	}
	buf = buf[:n]
	if n = copy(p, buf[k:]); n > 0 {
		x.offset += int64(n)
		x.last = p[n-1]
		x.mark = append(x.mark[:0], buf[max(0, len(buf)-markLen):]...)
		x.quiet = 0
	}
	return n, false, nil
}

// look finds out why there is nothing to read: again when it went to the
// beginning of this file or of another.
func (x *Follower) look() (again bool, err error) {
	mine, err := x.f.Stat()
	if err != nil {
		return false, err
	}
	if mine.Size() < x.offset {
		x.offset, x.mark = 0, nil
		return true, nil
	}
	moved, err := x.atPath(mine)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist): // or between two files
		x.troubled = 0
	case x.troubled >= x.patience:
		return false, err
	}
	if x.next == nil || !moved && x.quiet < x.calm && !x.overdue() {
		return false, nil
	}
	x.f.Close()
	x.f, x.next, x.offset, x.mark = x.next, nil, 0, nil
	return true, nil
}

// atPath sets next to what stands at the path. With moved another file stands
// there than next, which is kept: the one being read is two behind.
func (x *Follower) atPath(mine fs.FileInfo) (moved bool, err error) {
	there, err := os.Stat(x.path)
	if err != nil {
		return false, err
	}
	same := os.SameFile(mine, there)
	switch {
	case same && x.next != nil: // it came back
		x.next.Close()
		x.next = nil
	case !same && x.next == nil:
		if x.next, err = durable.OpenShared(x.path); err != nil {
			x.next = nil
			return false, err
		}
		x.held, x.quiet = 0, 0
	case !same:
		held, err := x.next.Stat()
		return err == nil && !os.SameFile(held, there), err
	}
	return false, nil
}

// overdue reports whether next has waited for too long.
func (x *Follower) overdue() bool {
	if x.held < x.longest {
		return false
	}
	info, err := x.next.Stat()
	return err == nil && info.Size() > 0
}
