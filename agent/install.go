package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// Room for what an installation writes besides what it is given to keep.
const (
	slotFiles = 32      // files and directories: a slot has 15, beside it stand its bundles and its verdict
	slotSpare = 1 << 20 // bytes: the index of the slot, and state.json as long as both its old and its new text are there
)

// install puts the release and the bundles that it was believed for into its
// slot and judges what is then on the disk. A slot that is there and good is
// kept; one that lacks only bundles gets them; a damaged one is made anew. Where
// there is no room for all of that nothing is touched: syscall.ENOSPC.
func (a *Agent) install(ctx context.Context, release *oras.Artifact, verdict *verify.Verdict, v *verify.Verifier, channel *verify.ChannelVerdict, now time.Time) error {
	d := release.Digest
	slot := a.slot(d)
	there, err := a.judge(ctx, d, v, channel, now)
	switch {
	case err == nil && there.release != nil:
		return nil
	case err != nil && !errors.Is(err, ErrCorrupt):
		return err
	}
	damaged := err != nil
	text, err := verdict.Encode()
	if err != nil {
		return err
	}
	size := int64(slotSpare + len(text) + len(release.Config) + len(release.ReleaseJSON) + len(release.Manifest))
	for _, m := range release.Models {
		size += int64(len(m.Data))
	}
	for _, b := range verdict.Evidence {
		size += 3 * int64(len(b)) // in base64 beside the slot, and the provenance in it
	}
	if err := durable.Room(a.fs, filepath.Dir(slot), slotFiles, size); err != nil {
		return err
	}
	if err := a.writeBundles(d, verdict.Evidence); err != nil {
		return err
	}
	if damaged {
		if err := a.fill(ctx, release, verdict); err != nil {
			a.fs.Remove(a.bundlesPath(d)) // of no use without the slot
			return err
		}
	}
	again, err := a.judge(ctx, d, v, channel, now)
	switch {
	case err != nil:
		return err
	case again.release == nil:
		return fmt.Errorf("%s: %w: what was written does not verify: %s", slot, ErrCorrupt, again.reason)
	}
	return durable.WriteFile(a.fs, slot+".json", text, 0o600)
}

// fill makes the slot of a release anew.
func (a *Agent) fill(ctx context.Context, release *oras.Artifact, verdict *verify.Verdict) error {
	slot := a.slot(release.Digest)
	if err := a.fs.RemoveAll(slot); err != nil {
		return err
	}
	stage, err := durable.Stage(a.fs, slot)
	if err != nil {
		return err
	}
	defer stage.Discard()
	store, err := oras.Open(ctx, oras.Ref{Layout: stage.Path()}, oras.Options{Write: true, FS: a.fs})
	if err != nil {
		return err
	}
	if err := oras.Push(ctx, store, release); err != nil {
		return err
	}
	for _, b := range verdict.Evidence {
		if canon.Sum(b) != verdict.Bundle {
			continue
		}
		// The provenance stands in the layout too, for other programs to look at.
		if _, err := oras.AttachBundle(ctx, store, release.Descriptor(), b, verify.PredicateProvenance, oras.ProvenanceTag(release.Digest), time.Time{}); err != nil {
			return err
		}
	}
	return stage.Commit()
}

// maxStored is how many bytes the bundles of one release may have as they are
// kept: those of an agent's verdict are far fewer.
const maxStored = 2 * oras.MaxBundles

func (a *Agent) bundlesPath(d canon.Digest) string { return a.slot(d) + ".bundles" }

// writeBundles keeps bundles beside a slot.
func (a *Agent) writeBundles(d canon.Digest, bundles [][]byte) error {
	b, err := canon.Marshal(bundles)
	if err != nil {
		return err
	}
	return durable.WriteFile(a.fs, a.bundlesPath(d), b, 0o600)
}

// readBundles returns what writeBundles kept. A file that is missing, or that
// cannot be understood, is no bundles: then nothing speaks for the release.
func (a *Agent) readBundles(d canon.Digest) ([][]byte, error) {
	b, err := durable.ReadFile(a.fs, a.bundlesPath(d), maxStored)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, durable.ErrTooLarge), errors.Is(err, durable.ErrNotFile):
		return nil, nil
	case err != nil:
		return nil, err
	}
	var bundles [][]byte
	if canon.UnmarshalCanonical(b, &bundles) != nil {
		return nil, nil
	}
	return bundles, nil
}

// prune removes all slots but the live, the previous and the pinned one. Only
// what looks like a slot is touched.
func (a *Agent) prune(st state) error {
	dir := filepath.Join(a.dir, "releases")
	entries, err := a.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		hex, _, _ := strings.Cut(e.Name(), ".")
		d, err := canon.ParseDigest("sha256:" + hex)
		if err != nil || d == st.Live || d == st.Previous || d == st.Pinned {
			continue
		}
		if err := a.fs.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
