package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// Rollback makes a release live that was installed before, and pins it, because
// an operator decided so; reason is kept with the decision. The policy and the
// channel that was accepted last must allow it to be installed now, but for
// naming another: one that was revoked, by whomever, or is below the lowest that
// the channel allows, is ErrRefused; so is one that is not kept here any more.
func (a *Agent) Rollback(ctx context.Context, to canon.Digest, v *verify.Verifier, reason string, now time.Time) error {
	unlock, err := a.lock()
	if err != nil {
		return err
	}
	defer unlock()
	st, err := a.begin(ctx, v, now)
	if err != nil {
		return err
	}
	if to != st.Live && to != st.Previous && to != st.Pinned || to.IsZero() {
		return fmt.Errorf("%w: release %s is not kept here: 'bhagent status' names those that are", ErrRefused, to)
	}
	at, _ := a.clock(st, now)
	channel := a.channel(v, st, at)
	j, err := a.judge(ctx, to, v, channel, at)
	if err != nil {
		return err
	}
	if !j.allowed() {
		return refusal(j.verdict)
	}
	if _, err := NewScorer(j.release); err != nil {
		return err
	}
	next := *st
	if next.Live != to {
		next.Previous = next.Live
	}
	next.Live, next.Number, next.Pinned = to, j.release.Release.Number, to
	next.decide(Decision{Time: now.UTC().Truncate(time.Second), What: "rollback", Release: to, Reason: verify.Printable(reason)})
	return a.keep(st, next)
}

// Pin decides to stay with the live release, or, with off, not to any more.
// The channel is read and revocations are obeyed as ever: a sync that finds the
// release revoked ends the pin. ErrNothing without a live release.
func (a *Agent) Pin(ctx context.Context, v *verify.Verifier, off bool, reason string, now time.Time) (canon.Digest, error) {
	unlock, err := a.lock()
	if err != nil {
		return canon.Digest{}, err
	}
	defer unlock()
	st, err := a.begin(ctx, v, now)
	if err != nil {
		return canon.Digest{}, err
	}
	if st.Live.IsZero() {
		return canon.Digest{}, a.nothing()
	}
	next := *st
	d := Decision{Time: now.UTC().Truncate(time.Second), What: "pin", Release: st.Live, Reason: verify.Printable(reason)}
	next.Pinned = st.Live
	if off {
		d.What, next.Pinned = "unpin", canon.Digest{}
	}
	if next.Pinned == st.Pinned {
		return st.Live, nil
	}
	next.decide(d)
	return st.Live, a.keep(st, next)
}

// unpin ends the pin on a release that a revoker of the policy withdrew, so that
// what the channel names may take its place. That is kept, like a decision of an
// operator.
func (s *syncing) unpin(channel *verify.ChannelVerdict) error {
	r := revocation(channel, s.st.Pinned)
	if r == nil || !r.Binding {
		return nil
	}
	next := *s.st
	next.Pinned = canon.Digest{}
	next.decide(Decision{Time: s.now.UTC().Truncate(time.Second), What: "unpin", By: ByProgram, Release: s.st.Pinned, Reason: verify.Printable(revokedBy(r))})
	s.out.Unpinned = s.st.Pinned
	return s.a.keep(s.st, next)
}

func revokedBy(r *verify.Revoked) string {
	return fmt.Sprintf("revoked by %s, %s: %s", r.By, r.Issued, r.Reason)
}
