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
	Installed bool                   `json:"installed"` // something else is live now
	Fallback  bool                   `json:"fallback"`  // it is the previous release, since the live one was revoked
	Pinned    canon.Digest           `json:"pinned"`    // an operator decided to stay with this one, and Release is another; "" else
	Unpinned  canon.Digest           `json:"unpinned"`  // was pinned until a revoker of the policy withdrew it; "" else
	Release   canon.Digest           `json:"release"`   // that was found; "" when the channel was refused
	Product   string                 `json:"product"`
	Number    int64                  `json:"number"`
	Live      canon.Digest           `json:"live"`     // what is live now; "" for nothing
	Previous  canon.Digest           `json:"previous"` // live before; "" for none
	Verdict   *verify.Verdict        `json:"verdict"`  // null when there was nothing to judge
	Channel   *verify.ChannelVerdict `json:"channel"`  // null when the policy names none
}

// Sync asks the store at ref for the release to use, judges it at the time now
// and, if the policy allows it, installs it and makes it live. With a policy
// that names a channel, that is the release that the channel names, and what the
// channel says is held against all that was accepted before; else it is what ref
// names, and its number must not be below the highest accepted. policy is the
// path of the file that v was made from. While the clock is more than 5 minutes behind
// what was signed, or behind Built, all is ErrRefused, and nobody is asked.
//
// What is live stays live after every error, unless a revoker of the policy
// withdrew it: then the previous release is made live if the policy allows that,
// and nothing is in use otherwise. ErrRefused comes with a Synced that holds the
// verdicts; ErrStale says that the channel is the one that was known, and has
// expired. durable.ErrLocked means that another process syncs. Artifacts that
// break a rule of their format are oras.ErrInvalid, and as little trusted.
func (a *Agent) Sync(ctx context.Context, ref oras.Ref, opt oras.Options, v *verify.Verifier, policy string, now time.Time) (*Synced, error) {
	policy, err := filepath.Abs(policy)
	if err != nil {
		return nil, err
	}
	unlock, err := a.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	st, err := a.begin(ctx, v, now)
	if err != nil {
		return nil, err
	}
	if p := v.Policy().Product; st.Product != "" && st.Product != p {
		return nil, fmt.Errorf("%w: this state directory holds product %q, the policy is about %q: use another --state", ErrRefused, st.Product, p)
	}
	if _, wrong := a.clock(st, now); wrong != "" {
		return nil, fmt.Errorf("%s: %w: %s", a.dir, ErrRefused, wrong)
	}
	s := &syncing{a: a, v: v, st: st, now: now, policy: policy, out: &Synced{Previous: st.Live, Product: v.Policy().Product}}
	s.open = func(ctx context.Context, place oras.Ref) (oras.Store, error) { return oras.Open(ctx, place, opt) }
	if s.source = ref.Place(); s.source.Layout != "" { // it is shown wherever this program is started next
		if s.source.Layout, err = filepath.Abs(s.source.Layout); err != nil {
			return nil, err
		}
	}
	s.reach(PhaseMirror, canon.Digest{})
	if s.store, err = oras.Open(ctx, ref, opt); err != nil {
		return nil, err
	}
	err = s.find(ctx, ref)
	s.out.Live = st.Live
	if err != nil {
		if s.out.Channel == nil && s.out.Verdict == nil {
			return nil, err
		}
		return s.out, err
	}
	return s.out, a.prune(*st)
}

// begin is what comes before each change of the state: it clears away what a
// killed process left half-written, and fills in what a lost state, or one from
// before the policy named a channel, does not say.
func (a *Agent) begin(ctx context.Context, v *verify.Verifier, now time.Time) (*state, error) {
	if err := a.inspect(); err != nil {
		return nil, err
	}
	st, err := a.readState()
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{a.dir, filepath.Join(a.dir, "releases"), filepath.Join(a.dir, "channels")} {
		if _, err := durable.Clean(a.fs, dir); err != nil {
			return nil, err
		}
	}
	if st.Format == 0 {
		if err := a.recover(ctx, v, &st, now); err != nil {
			return nil, err
		}
	}
	st.expect(v.Policy().Channel)
	return &st, nil
}

// syncing is one sync under the lock.
type syncing struct {
	a      *Agent
	v      *verify.Verifier
	st     *state
	store  oras.Store
	source oras.Ref
	open   func(context.Context, oras.Ref) (oras.Store, error)
	now    time.Time
	policy string
	out    *Synced
}

// find settles which release is meant, and installs it.
func (s *syncing) find(ctx context.Context, ref oras.Ref) error {
	if s.v.Policy().Channel == nil {
		d, err := oras.Lookup(ctx, s.store, ref.Name(), s.st.Newest)
		if err != nil {
			return err
		}
		return s.take(ctx, d, nil)
	}
	if ref.Tag != "" || !ref.Digest.IsZero() {
		return fmt.Errorf("%s: the policy names channel %s, which says what to install: leave out the tag and the digest", ref, s.v.Policy().Channel.Name)
	}
	s.reach(PhaseChannel, canon.Digest{})
	channel, err := s.a.accept(ctx, s.store, s.v, s.st, s.now)
	s.out.Channel = channel
	if err != nil {
		return err
	}
	if err := s.unpin(channel); err != nil {
		return err
	}
	err = s.take(ctx, channel.Manifest, channel)
	if r := revocation(channel, s.st.Live); r != nil && r.Binding {
		return errors.Join(err, s.fallBack(ctx, channel))
	}
	return err
}

// revocation returns what the channel knows of the revocation of d, or nil.
func revocation(c *verify.ChannelVerdict, d canon.Digest) *verify.Revoked {
	if c == nil || d.IsZero() {
		return nil
	}
	return c.Revocation(d)
}

// take makes the release with digest d live, if all allow it.
func (s *syncing) take(ctx context.Context, d canon.Digest, channel *verify.ChannelVerdict) error {
	s.out.Release = d
	if p := s.st.Pinned; !p.IsZero() && p != d {
		s.out.Pinned = p // an operator decided to stay with it
		return nil
	}
	if d == s.st.Live {
		if done, err := s.stillGood(ctx, channel); done || err != nil {
			return err
		}
	}
	verdict, release, err := s.v.Release(ctx, s.watched(d), d, s.now, verify.Options{Channel: channel, Open: s.open})
	if err != nil {
		return err
	}
	s.out.Verdict, s.out.Product, s.out.Number = verdict, verdict.Product, verdict.Number
	if release == nil {
		return refusal(verdict)
	}
	// What cannot be loaded must not be installed.
	if _, err := NewScorer(release); err != nil {
		return err
	}
	rel, st := release.Release, s.st
	switch {
	case channel != nil && rel.Number != channel.Release:
		return fmt.Errorf("%w: release %s: %s (the channel calls it release %d, release.json says %d)", ErrRefused, d, verify.CheckCurrent, channel.Release, rel.Number)
	case channel != nil: // which has its own rules against going back
	case rel.Number < st.Highest:
		return fmt.Errorf("%w: rollback: release number %d, but %d was accepted before", ErrRefused, rel.Number, st.Highest)
	case rel.Number == st.Highest && st.Newest != d:
		return fmt.Errorf("%w: another release with number %d was accepted before: %s", ErrRefused, rel.Number, st.Newest)
	}
	s.reach(PhaseInstall, d)
	if err := s.a.install(ctx, release, verdict, s.v, channel, s.now); err != nil {
		return err
	}
	next := *st
	next.Product, next.Live, next.Number, next.Policy = rel.Product, d, rel.Number, s.policy
	next.Highest, next.Newest = rel.Number, d
	s.source.Digest = d
	next.Source = s.source.String()
	if st.Live != d {
		next.Previous = st.Live
	}
	if err := s.a.keep(st, next); err != nil {
		return err
	}
	s.out.Installed = s.out.Previous != d
	return nil
}

// stillGood looks at the live release, which is the one that is asked for. It
// reports whether there is nothing to fetch.
func (s *syncing) stillGood(ctx context.Context, channel *verify.ChannelVerdict) (done bool, err error) {
	j, err := s.a.judge(ctx, s.st.Live, s.v, channel, s.now)
	switch {
	case errors.Is(err, ErrCorrupt):
		return false, nil // it is fetched again
	case err != nil:
		return false, err
	case j.release == nil && j.state == StateRevoked:
		s.out.Verdict, s.out.Product, s.out.Number = j.verdict, j.verdict.Product, j.verdict.Number
		return true, refusal(j.verdict)
	case j.release == nil:
		return false, nil // the store may have the statements that are lacking
	}
	s.out.Verdict, s.out.Product, s.out.Number = j.verdict, j.verdict.Product, j.verdict.Number
	next := *s.st
	next.Policy = s.policy
	if err := s.a.keep(s.st, next); err != nil {
		return true, err
	}
	if j.state == StateStale {
		return true, fmt.Errorf("%w: release %s stays in use: %s: %s", ErrStale, s.st.Live, verify.ChannelExpiry, j.reason)
	}
	return true, nil
}

// fallBack makes the previous release live in the place of one that was
// revoked, if the policy and the channel allow that it is installed. Otherwise the
// revoked one stays where it is, and is not used.
func (s *syncing) fallBack(ctx context.Context, channel *verify.ChannelVerdict) error {
	if s.st.Previous.IsZero() {
		return nil
	}
	j, err := s.a.judge(ctx, s.st.Previous, s.v, channel, s.now)
	switch {
	case errors.Is(err, ErrCorrupt), err == nil && !j.allowed():
		return nil
	case err != nil:
		return err
	}
	next := *s.st
	next.Live, next.Number, next.Previous = s.st.Previous, j.release.Release.Number, canon.Digest{}
	if err := s.a.keep(s.st, next); err != nil {
		return err
	}
	s.out.Installed, s.out.Fallback = true, true
	return nil
}
