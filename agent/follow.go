package agent

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/durable"
)

// Follower reads a log that grows, across rotation: when another file stands
// at the path, the rest of the old one is read first and then the new one from
// its beginning; a file that was cut off is read from its beginning again. It is
// an io.Reader without an end, for one goroutine.
//
// What is written to the old file after the new one was seen to be there and
// the old one's end was reached twice is not read.
type Follower struct {
	ctx    context.Context
	path   string
	idle   func() error
	f      *os.File
	offset int64
	last   byte // the last byte that was returned
}

const followPoll = 200 * time.Millisecond // between looks at a file that does not grow

// Follow opens the log at path, at its end or at its beginning. Before each read
// and while it waits the follower calls idle, whose error ends the reading.
func Follow(ctx context.Context, path string, fromStart bool, idle func() error) (*Follower, error) {
	x := &Follower{ctx: ctx, path: path, idle: idle, last: '\n'}
	f, err := durable.OpenShared(path)
	if err != nil {
		return nil, err
	}
	x.f = f
	if !fromStart {
		if x.offset, err = f.Seek(0, io.SeekEnd); err != nil {
			f.Close()
			return nil, err
		}
	}
	return x, nil
}

// Close closes the file.
func (x *Follower) Close() error { return x.f.Close() }

// Read returns what there is, and waits when there is nothing.
func (x *Follower) Read(p []byte) (int, error) {
	for ended := false; ; {
		if err := x.idle(); err != nil {
			return 0, err
		}
		n, err := x.f.Read(p)
		if n > 0 {
			x.offset += int64(n)
			x.last = p[n-1]
			return n, nil
		}
		if err != nil && err != io.EOF {
			return 0, err
		}
		other, cut, err := x.look()
		switch {
		case err != nil:
			return 0, err
		case cut:
			if x.offset, err = x.f.Seek(0, io.SeekStart); err != nil {
				return 0, err
			}
			ended = false
		case other && !ended: // what was written until it was moved away
			ended = true
		case other:
			f, err := durable.OpenShared(x.path)
			if errors.Is(err, fs.ErrNotExist) {
				break
			}
			if err != nil {
				return 0, err
			}
			x.f.Close()
			x.f, x.offset, ended = f, 0, false
		default:
			ended = false
			select {
			case <-x.ctx.Done():
				return 0, x.ctx.Err()
			case <-time.After(followPoll):
			}
			continue
		}
		// A line that was cut short ends where its file did.
		if !ended && x.last != '\n' && len(p) > 0 {
			p[0], x.last = '\n', '\n'
			return 1, nil
		}
		if x.ctx.Err() != nil {
			return 0, x.ctx.Err()
		}
	}
}

// look reports whether another file stands at the path, or the one that is
// read is shorter than what was read of it.
func (x *Follower) look() (other, cut bool, err error) {
	mine, err := x.f.Stat()
	if err != nil {
		return false, false, err
	}
	there, err := os.Stat(x.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, false, nil // between two files
	case err != nil:
		return false, false, err
	case !os.SameFile(mine, there):
		return true, false, nil
	}
	return false, mine.Size() < x.offset, nil
}
