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
		return nil, err
	}
	for wait := time.Duration(0); ; wait += lockPoll {
		unlock, err = a.tryLock(filepath.Join(a.dir, "lock"))
		if !errors.Is(err, durable.ErrLocked) || wait >= lockWait {
			return unlock, at(a.dir, err)
		}
		time.Sleep(lockPoll)
	}
}

// Hold marks the state directory as that of a running daemon until unlocked;
// durable.ErrLocked when it is one's already. Sync and the like go on as ever meanwhile.
func (a *Agent) Hold() (unlock func(), err error) {
	if err := a.fs.MkdirAll(a.dir, 0o700); err != nil {
		return nil, err
	}
	unlock, err = a.tryLock(filepath.Join(a.dir, "daemon.lock"))
	return unlock, at(a.dir, err)
}

func at(place string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	return nil
}
