package agent

import (
	"io/fs"
	"os"
)

// Watch returns a function that reports whether the state is another than when
// it was called before, or than now at first: a sync or a decision, of this
// process or of another. It costs one look at a file's name and is for one
// goroutine. What cannot be looked at is the same as before.
func (a *Agent) Watch() (changed func() bool) {
	look := func() fs.FileInfo {
		info, err := a.fs.Lstat(a.statePath())
		if err != nil {
			return nil
		}
		return info
	}
	before := look()
	return func() bool {
		now := look()
		if now == nil || before != nil && os.SameFile(before, now) && before.ModTime().Equal(now.ModTime()) && before.Size() == now.Size() {
			return false
		}
		before = now
		return true
	}
}
