package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// inspect refuses, as ErrCorrupt, a state directory in which something stands
// that this program does not put there, or that others than this user could
// write to. What is in slots is for inspectSlot.
func (a *Agent) inspect() error {
	info, err := a.fs.Lstat(a.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return a.unusable(err)
	}
	// A link to the directory is the operator's own; what it leads to is looked at.
	if info.Mode().Type() != fs.ModeSymlink {
		if err := plain(info, a.dir, true); err != nil {
			return err
		}
	}
	return errors.Join(
		a.inspectDir(a.dir, func(name string, dir bool) bool {
			switch name {
			case "releases", "channels", "tuf":
				return dir
			case "state.json", "history.jsonl", "lock", "daemon.lock":
				return !dir
			}
			return false
		}),
		a.inspectDir(filepath.Join(a.dir, "channels"), func(name string, dir bool) bool {
			return !dir && verify.CheckChannelName(name) == nil
		}),
		a.inspectDir(filepath.Join(a.dir, "releases"), func(name string, dir bool) bool {
			hex, ext, found := strings.Cut(name, ".")
			_, err := canon.ParseDigest("sha256:" + hex)
			return err == nil && (!found || !dir && (ext == "json" || ext == "bundles"))
		}),
	)
}

// inspectDir looks at the entries of one directory. Unfinished ones are what a
// killed process leaves. One that is missing is empty.
func (a *Agent) inspectDir(dir string, ours func(name string, dir bool) bool) error {
	entries, err := a.fs.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return a.unusable(err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if durable.IsTemp(e.Name()) {
			continue
		}
		if (e.IsDir() || e.Type().IsRegular()) && !ours(e.Name(), e.IsDir()) {
			what := "is nothing that this program put there"
			if pickled(e.Name()) {
				what = "is a pickle, which this program never reads"
			}
			return fmt.Errorf("%w: %s %s: remove it, and find out who did", ErrCorrupt, path, what)
		}
		info, err := a.fs.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process at work
		}
		if err != nil {
			return err
		}
		if filepath.Dir(path) == filepath.Join(a.dir, "releases") && !info.IsDir() && filepath.Ext(path) == "" {
			continue // something in the place of a slot: judged with it
		}
		if err := plain(info, path, false); err != nil {
			return err
		}
	}
	return nil
}

// inspectSlot refuses a slot, as ErrCorrupt, that is anything but a directory
// with the files of an image layout.
func (a *Agent) inspectSlot(slot string) error {
	info, err := a.fs.Lstat(slot)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%w: %s is a %s, not a directory", ErrCorrupt, slot, info.Mode().Type())
	}
	blobs := filepath.Join(slot, "blobs", "sha256")
	for _, dir := range []string{slot, filepath.Join(slot, "blobs"), blobs} {
		entries, err := a.fs.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			_, digest := canon.ParseDigest("sha256:" + e.Name())
			ours := dir == blobs && digest == nil || dir == filepath.Dir(blobs) && e.Name() == "sha256" ||
				dir == slot && (e.Name() == "oci-layout" || e.Name() == "index.json" || e.Name() == "blobs")
			if !ours {
				return fmt.Errorf("%w: %s is nothing that this program put there", ErrCorrupt, path)
			}
			info, err := a.fs.Lstat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if err := plain(info, path, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// plain refuses what is neither a directory nor a file, and what others could
// write to. For the state directory itself that includes its group.
func plain(info fs.FileInfo, path string, top bool) error {
	if !info.IsDir() && !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is a %s, neither a file nor a directory", ErrCorrupt, path, info.Mode().Type())
	}
	if why := durable.Foreign(info); why != "" {
		if top {
			why += ": run this as the user that owns it, or name another directory with --state"
		}
		return fmt.Errorf("%w: %s: %s", ErrCorrupt, path, why)
	}
	if top && runtime.GOOS != "windows" && info.Sys() != nil && info.Mode().Perm()&0o020 != 0 {
		return fmt.Errorf("%w: %s: its group may write to it (mode %s): 'chmod go-w %s', after a look at what is in it", ErrCorrupt, path, info.Mode(), path)
	}
	return nil
}

// pickled reports whether a name is one that pickles have.
func pickled(name string) bool {
	switch filepath.Ext(name) {
	case ".pkl", ".pickle", ".joblib":
		return true
	}
	return false
}
