package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// Synced says what Sync found and did.
type Synced struct {
	Installed bool            `json:"installed"` // false when the release was live already
	Release   canon.Digest    `json:"release"`
	Product   string          `json:"product"`
	Number    int64           `json:"number"`
	Previous  canon.Digest    `json:"previous"` // live before; "" for none
	Verdict   *verify.Verdict `json:"verdict"`
}

// Sync resolves ref once, pulls that digest, judges it and, if the policy
// allows it and it is no rollback, installs it and makes it live. policy is the
// path of the file that v was made from; later loads read it again.
//
// ErrRefused comes with a Synced that holds the verdict; what is live stays live
// then, and after any other error, unless it came from removing releases that
// are no longer needed, which is done last. Artifacts that break a rule of
// their format are oras.ErrInvalid, and as little trusted. A release number below
// the highest ever accepted, or that number under another digest, is ErrRefused.
func (a *Agent) Sync(ctx context.Context, ref oras.Ref, opt oras.Options, v *verify.Verifier, policy string) (*Synced, error) {
	policy, err := filepath.Abs(policy)
	if err != nil {
		return nil, err
	}
	store, err := oras.Open(ctx, ref, opt)
	if err != nil {
		return nil, err
	}
	d, err := store.Resolve(ctx, ref.Name())
	if err != nil {
		return nil, err
	}
	verdict, release, err := v.Release(ctx, store, d.Digest, time.Now(), verify.Options{})
	if err != nil {
		return nil, err
	}
	out := &Synced{Release: d.Digest, Product: verdict.Product, Number: verdict.Number, Verdict: verdict}
	if release == nil || !verdict.Pass() {
		return out, refusal(verdict)
	}
	// What cannot be loaded must not be installed.
	if _, err := NewScorer(release); err != nil {
		return out, err
	}
	bundle, err := findBundle(ctx, store, d.Digest, verdict.Bundle)
	if err != nil {
		return out, err
	}

	unlock, err := a.lock()
	if err != nil {
		return out, err
	}
	defer unlock()
	st, err := a.readState()
	if err != nil {
		return out, err
	}
	// What a killed process left half-written.
	for _, dir := range []string{a.dir, filepath.Join(a.dir, "releases")} {
		if _, err := durable.Clean(a.fs, dir); err != nil {
			return out, err
		}
	}
	if st.Format == 0 {
		if err := a.recover(ctx, &st); err != nil {
			return out, err
		}
	}
	out.Previous = st.Live
	rel := release.Release
	switch {
	case st.Product != "" && st.Product != rel.Product:
		return out, fmt.Errorf("%w: this state directory holds product %q, the release is of %q: use another --state", ErrRefused, st.Product, rel.Product)
	case rel.Number < st.Highest:
		return out, fmt.Errorf("%w: rollback: release number %d, but %d was accepted before", ErrRefused, rel.Number, st.Highest)
	case rel.Number == st.Highest && st.Newest != d.Digest:
		return out, fmt.Errorf("%w: another release with number %d was accepted before: %s", ErrRefused, rel.Number, st.Newest)
	}
	if err := a.install(ctx, release, bundle, verdict, v); err != nil {
		return out, err
	}
	at := ref.Place()
	at.Digest = d.Digest
	next := state{
		Product: rel.Product, Live: d.Digest, Number: rel.Number, Previous: st.Live,
		Highest: rel.Number, Newest: d.Digest, Policy: policy, Source: at.String(),
	}
	if st.Live == d.Digest {
		next.Previous = st.Previous
	}
	if err := a.writeState(next); err != nil && !errors.Is(err, durable.ErrNotDurable) {
		return out, err
	}
	out.Installed = st.Live != d.Digest
	return out, a.prune(next)
}

// recover fills an empty state from the slots: without a state file the
// highest number installed is still the highest ever accepted as far as is
// known, and nothing is live.
func (a *Agent) recover(ctx context.Context, st *state) error {
	entries, err := a.fs.ReadDir(filepath.Join(a.dir, "releases"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		d, err := canon.ParseDigest("sha256:" + e.Name())
		if err != nil || !e.IsDir() {
			continue
		}
		release, err := a.pullSlot(ctx, d)
		if errors.Is(err, ErrCorrupt) {
			continue // it was never the word on anything
		}
		if err != nil {
			return err // a release that cannot be looked at must not open the way for older ones
		}
		if n := release.Release.Number; n > st.Highest {
			st.Highest, st.Newest, st.Product = n, d, release.Release.Product
		}
	}
	return nil
}

// pullSlot reads the release in a slot, unjudged; ErrCorrupt when it is damaged.
func (a *Agent) pullSlot(ctx context.Context, d canon.Digest) (*oras.Artifact, error) {
	store, err := oras.Open(ctx, oras.Ref{Layout: a.slot(d)}, oras.Options{})
	if err != nil {
		return nil, damage(err)
	}
	release, err := oras.Pull(ctx, store, d)
	if err != nil {
		return nil, damage(err)
	}
	return release, nil
}

// findBundle returns the bundle with digest want about the manifest subject.
func findBundle(ctx context.Context, store oras.Store, subject, want canon.Digest) ([]byte, error) {
	list, err := oras.Bundles(ctx, store, subject, oras.ProvenanceTag(subject))
	if err != nil {
		return nil, err
	}
	for _, b := range list.Bundles {
		if canon.Sum(b.Data) == want {
			return b.Data, nil
		}
	}
	return nil, fmt.Errorf("%s: bundle %s %w any more: try again", store, want, oras.ErrNotFound)
}

// install puts the release and the bundle it was believed for into its slot
// and judges what is then on the disk. A slot that is there and good is kept;
// one that lacks only the bundle gets it; a damaged one is made anew.
func (a *Agent) install(ctx context.Context, release *oras.Artifact, bundle []byte, verdict *verify.Verdict, v *verify.Verifier) error {
	d := release.Digest
	slot := a.slot(d)
	fill := func(dir string) error {
		store, err := oras.Open(ctx, oras.Ref{Layout: dir}, oras.Options{Write: true})
		if err != nil {
			return err
		}
		if err := oras.Push(ctx, store, release); err != nil {
			return err
		}
		_, err = oras.AttachBundle(ctx, store, release.Descriptor(), bundle, verify.PredicateProvenance, oras.ProvenanceTag(d), time.Time{})
		return err
	}
	there, _, err := a.judge(ctx, d, v)
	switch {
	case err == nil && there.Pass():
	case err == nil:
		if err := fill(slot); err != nil {
			return err
		}
	case !errors.Is(err, ErrCorrupt):
		return err
	default:
		if err := a.fs.RemoveAll(slot); err != nil {
			return err
		}
		stage, err := durable.Stage(a.fs, slot)
		if err != nil {
			return err
		}
		defer stage.Discard()
		if err := fill(stage.Path()); err != nil {
			return err
		}
		if err := stage.Commit(); err != nil && !errors.Is(err, durable.ErrNotDurable) {
			return err
		}
	}
	if again, _, err := a.judge(ctx, d, v); err != nil {
		return err
	} else if !again.Pass() {
		return fmt.Errorf("%s: %w: what was written does not verify", slot, ErrCorrupt)
	}
	text, err := verdict.Encode()
	if err != nil {
		return err
	}
	if err := durable.WriteFile(a.fs, slot+".json", text, 0o600); err != nil && !errors.Is(err, durable.ErrNotDurable) {
		return err
	}
	return nil
}

// prune removes all slots but the live and the previous one. Only what looks
// like a slot is touched.
func (a *Agent) prune(st state) error {
	dir := filepath.Join(a.dir, "releases")
	entries, err := a.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		hex := name
		if ext := filepath.Ext(name); ext == ".json" {
			hex = name[:len(name)-len(ext)]
		}
		d, err := canon.ParseDigest("sha256:" + hex)
		if err != nil || d == st.Live || d == st.Previous {
			continue
		}
		if err := a.fs.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
