package agent

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/durable"
)

const (
	lockWait = 5 * time.Second // for a writer that works; it takes far less
	lockPoll = 20 * time.Millisecond
)

// lock keeps other writers out, of this process and others, until unlocked.
// It waits for one that is at work, but not for long: durable.ErrLocked then.
func (a *Agent) lock() (unlock func(), err error) {
	if err := a.fs.MkdirAll(filepath.Join(a.dir, "releases"), 0o700); err != nil {
		return nil, a.unusable(err)
	}
	for wait := time.Duration(0); ; wait += lockPoll {
		unlock, err = a.tryLock(filepath.Join(a.dir, "lock"))
		if !errors.Is(err, durable.ErrLocked) || wait >= lockWait {
			return unlock, a.unusable(err)
		}
		time.Sleep(lockPoll)
	}
}

// Hold marks the state directory as that of a running daemon until unlocked;
// durable.ErrLocked when it is one's already. Sync and the like go on as ever meanwhile.
func (a *Agent) Hold() (unlock func(), err error) {
	if err := a.fs.MkdirAll(a.dir, 0o700); err != nil {
		return nil, a.unusable(err)
	}
	unlock, err = a.tryLock(filepath.Join(a.dir, "daemon.lock"))
	return unlock, a.unusable(err)
}

// unusable says of an error about the state directory what to do.
func (a *Agent) unusable(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, durable.ErrLocked):
		return fmt.Errorf("state directory %s: %w: wait for it to end, or name another directory with --state", a.dir, err)
	}
	return fmt.Errorf("state directory %s: %w: make it one that this user may read and write, or name another with --state", a.dir, err)
}
