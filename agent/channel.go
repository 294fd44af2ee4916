package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func (a *Agent) channelPath(name string) string { return filepath.Join(a.dir, "channels", name) }

// channel judges the newest statement that was accepted of the policy's
// channel; nil when the policy names none. Where nothing is kept, or it is
// damaged, the verdict is not accepted, and still knows what was revoked.
func (a *Agent) channel(v *verify.Verifier, st *state, now time.Time) *verify.ChannelVerdict {
	c := v.Policy().Channel
	if c == nil {
		return nil
	}
	b, err := durable.ReadFile(a.fs, a.channelPath(c.Name), oras.MaxBundle)
	if err != nil {
		b = nil
	}
	return v.JudgeChannel(b, now, st.memory(c.Name))
}

// accept reads the policy's channel from store, judges it against what is
// remembered, and keeps what it says before anything else is done: the bundle
// first, then the state, so that a lost state finds at least as new a bundle.
// A channel that is not accepted is ErrRefused and changes nothing.
func (a *Agent) accept(ctx context.Context, store oras.Store, v *verify.Verifier, st *state, now time.Time) (*verify.ChannelVerdict, error) {
	name := v.Policy().Channel.Name
	kept, lost := durable.ReadFile(a.fs, a.channelPath(name), oras.MaxBundle)
	same := false
	if lost == nil {
		var err error
		same, err = oras.ChannelIs(ctx, store, name, kept)
		// Of what is there and is no channel, or is not there, the verdict tells.
		if err != nil && !errors.Is(err, oras.ErrNotFound) && !errors.Is(err, oras.ErrInvalid) {
			return nil, err
		}
	}
	var c *verify.ChannelVerdict
	if same {
		c = v.JudgeChannel(kept, now, st.memory(name))
	} else {
		var err error
		if c, err = v.Channel(ctx, store, now, st.memory(name)); err != nil {
			return nil, err
		}
	}
	if !c.Accepted() {
		return c, fmt.Errorf("%w: channel %s: %s", ErrRefused, name, reasons(c.Failures()))
	}
	if lost != nil || canon.Sum(kept) != c.Bundle {
		if err := a.fs.MkdirAll(filepath.Join(a.dir, "channels"), 0o700); err != nil {
			return c, err
		}
		if err := durable.WriteFile(a.fs, a.channelPath(name), c.Data, 0o600); err != nil {
			return c, err
		}
	}
	next := *st
	next.remember(name, c.Memory)
	if err := a.keep(st, next); err != nil {
		return c, err
	}
	return c, nil
}

// keep writes next in the place of st, unless they are the same.
func (a *Agent) keep(st *state, next state) error {
	next.Format = 1
	old, err := canon.Marshal(*st)
	if err != nil {
		return err
	}
	if b, err := canon.Marshal(next); err != nil {
		return err
	} else if string(b) == string(old) {
		return nil
	}
	if err := a.writeState(next); err != nil {
		return err
	}
	*st = next
	return nil
}

// recover fills an empty state from what lies beside it. The newest channel
// statement says what was accepted, and the highest number installed is the
// highest ever accepted as far as is known. Nothing is live.
func (a *Agent) recover(ctx context.Context, v *verify.Verifier, st *state, now time.Time) error {
	entries, err := a.fs.ReadDir(filepath.Join(a.dir, "releases"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
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
	p := v.Policy()
	if p.Channel == nil {
		return nil
	}
	name := p.Channel.Name
	b, err := durable.ReadFile(a.fs, a.channelPath(name), oras.MaxBundle)
	if err == nil {
		c := v.JudgeChannel(b, now, verify.Memory{})
		if e := c.Epoch; e > 0 && e < p.Channel.Epoch {
			// It is of an epoch before the policy's: what it says about releases is
			// past, what it says about revocations is not.
			earlier := *p.Channel
			earlier.Epoch, p.Channel = e, &earlier
			if old, err := verify.New(p); err == nil {
				c = old.JudgeChannel(b, now, verify.Memory{})
			}
		}
		if c.Accepted() {
			st.remember(name, c.Memory)
		}
	}
	return nil
}

// expect makes the highest release that was accepted the floor of the policy's
// channel where nothing is known of any channel: the policy named none so far, or
// what a channel said is lost.
func (st *state) expect(p *verify.ChannelPolicy) {
	if p != nil && len(st.Channels) == 0 && st.Highest > 0 {
		m := st.memory(p.Name)
		m.Epoch, m.Release, m.Manifest = p.Epoch, st.Highest, st.Newest
		st.remember(p.Name, m)
	}
}

// pullSlot reads the release in a slot, unjudged; ErrCorrupt when it is damaged.
func (a *Agent) pullSlot(ctx context.Context, d canon.Digest) (*oras.Artifact, error) {
	store, err := oras.Open(ctx, oras.Ref{Layout: a.slot(d)}, oras.Options{FS: a.fs})
	if err != nil {
		return nil, damage(err)
	}
	release, err := oras.Pull(ctx, store, d)
	if err != nil {
		return nil, damage(err)
	}
	return release, nil
}
