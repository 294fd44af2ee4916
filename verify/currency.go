package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Memory is what was accepted from a channel before. Whoever keeps it is safe
// from being led back: it must be kept before anything is done because of the
// channel, and never be replaced by less. The zero Memory knows nothing.
type Memory struct {
	Epoch       int64        `json:"epoch"`
	Sequence    int64        `json:"sequence"`
	Release     int64        `json:"release"`
	Lowest      int64        `json:"lowest"`
	Manifest    canon.Digest `json:"manifest"`
	Revocations [][]byte     `json:"revocations"` // bundles that a revoker of the policy had signed; the union for ever
	NewestTime  time.Time    `json:"newest_time"` // latest time that was signed for
}

// Names of the checks of a channel, in the order of the verdict.
const (
	ChannelStatement   = "channel.statement"   // there is a bundle with a channel/v1
	ChannelSignature   = "channel.signature"   // as CheckSignature
	ChannelTime        = "channel.time"        // as CheckTime
	ChannelLog         = "channel.log"         // as CheckLog
	ChannelCertificate = "channel.certificate" // as CheckCertificate
	ChannelSigner      = "channel.signer"      // its signer is a channel signer of the policy, in the validity window
	ChannelProduct     = "channel.product"     // it is about the policy's product
	ChannelName        = "channel.name"        // and is the policy's channel
	ChannelEpoch       = "channel.epoch"       // of the policy's epoch, which is not below one accepted before
	ChannelSequence    = "channel.sequence"    // not before what was accepted, and not something else at the same place
	ChannelRelease     = "channel.release"     // its release number did not fall, nor get another digest
	ChannelLowest      = "channel.lowest"      // the lowest release allowed did not fall
	ChannelRevocations = "channel.revocations" // each is a revocation/v1, and none that a revoker signed has gone
	ChannelClock       = "channel.clock"       // the clock of this machine is not behind what was signed
	ChannelExpiry      = "channel.expiry"      // it has not expired; failing alone, what it says is stale
)

// channelVerdictChecks is every check of a channel, in order; the value says
// whether it must pass under any policy. Of the others, those must that the policy
// demands of the signature.
var channelVerdictChecks = []struct {
	name      string
	mandatory bool
}{
	{ChannelStatement, true}, {ChannelSignature, true}, {ChannelTime, false}, {ChannelLog, false}, {ChannelCertificate, false}, {ChannelSigner, true},
	{ChannelProduct, true}, {ChannelName, true}, {ChannelEpoch, true}, {ChannelSequence, true}, {ChannelRelease, true}, {ChannelLowest, true},
	{ChannelRevocations, true}, {ChannelClock, true}, {ChannelExpiry, true},
}

// ChannelVerdict is all that was found about a channel under one policy.
type ChannelVerdict struct {
	Format   int          `json:"format"`   // 1
	Policy   canon.Digest `json:"policy"`   // SHA-256 of the policy's text
	Product  string       `json:"product"`  // this and what follows, as far as a trusted signer said it
	Channel  string       `json:"channel"`  //
	Epoch    int64        `json:"epoch"`    //
	Sequence int64        `json:"sequence"` //
	Release  int64        `json:"release"`  // number of the current release
	Manifest canon.Digest `json:"manifest"` // its manifest digest
	Lowest   int64        `json:"lowest"`   // lowest release number that may be installed
	Issued   string       `json:"issued"`
	Expires  string       `json:"expires"`
	Signer   string       `json:"signer"`  // name in the policy
	Time     string       `json:"time"`    // earliest signed time of the signature; "" when the policy asks for none
	Bundle   canon.Digest `json:"bundle"`  // SHA-256 of the bundle; "" when there was none
	Revoked  []Revoked    `json:"revoked"` // by this channel or before, in the order of their digests
	Checks   []Check      `json:"checks"`

	Memory Memory `json:"-"` // to be kept: what was given, and what was learnt if the channel is Accepted
	Data   []byte `json:"-"` // the bundle
}

// Revoked is one revoked release.
type Revoked struct {
	Release  int64        `json:"release"`
	Manifest canon.Digest `json:"manifest"`
	Reason   string       `json:"reason"`
	Issued   string       `json:"issued"`
	By       string       `json:"by"`      // name of the revoker in the policy; "" for anybody else
	Binding  bool         `json:"binding"` // signed by a revoker: unload it. Otherwise it must not be installed while the channel says so
	Why      string       `json:"why"`     // why it does not bind
}

// Accepted reports whether the channel may be believed: every check but that
// of its expiry passed, or was not demanded. An expired channel still speaks
// the truth about what was revoked.
func (c *ChannelVerdict) Accepted() bool { return c.passExcept(ChannelExpiry) }

// Pass reports whether the channel is accepted and has not expired.
func (c *ChannelVerdict) Pass() bool { return c.passExcept("") }

func (c *ChannelVerdict) passExcept(name string) bool {
	if c == nil || c.Format != 1 || len(c.Checks) != len(channelVerdictChecks) {
		return false
	}
	for i, want := range channelVerdictChecks {
		have := c.Checks[i]
		if have.Name != want.name || !have.holds(want.mandatory) && have.Name != name {
			return false
		}
	}
	return true
}

// Failures returns the checks that failed, in order.
func (c *ChannelVerdict) Failures() []Check {
	return slices.DeleteFunc(slices.Clone(c.Checks), func(c Check) bool { return c.Status != Fail })
}

// Revocation returns the entry about a release, the binding one if there are
// both, or nil.
func (c *ChannelVerdict) Revocation(manifest canon.Digest) *Revoked {
	for i := range c.Revoked {
		if c.Revoked[i].Manifest == manifest {
			return &c.Revoked[i]
		}
	}
	return nil
}

// WriteText writes c as Verdict.WriteText does.
func (c *ChannelVerdict) WriteText(w io.Writer, color bool) error {
	line := "REFUSED"
	switch {
	case c.Pass():
		line = "CURRENT"
	case c.Accepted():
		line = "STALE"
	}
	what := "channel"
	if c.Channel != "" {
		what = fmt.Sprintf("channel %s of %s, epoch %d, sequence %d: release %d, %s", c.Channel, c.Product, c.Epoch, c.Sequence, c.Release, c.Manifest)
	}
	return writeChecks(w, color, c.Checks, line, what)
}

// Channel reads the policy's channel from store and judges it at the time now,
// against what was known before. A store that has none, or something else in
// its place, gives a verdict that is not accepted; an error means that the store
// could not be asked, or that the policy names no channel (ErrPolicy).
func (v *Verifier) Channel(ctx context.Context, store oras.Store, now time.Time, m Memory) (*ChannelVerdict, error) {
	if v.policy.Channel == nil {
		return nil, fmt.Errorf("%w: names no channel", ErrPolicy)
	}
	data, _, err := oras.GetChannel(ctx, store, v.policy.Channel.Name)
	switch {
	case errors.Is(err, oras.ErrNotFound):
		return v.noChannel(now, m, fmt.Sprintf("the store has no channel %q; it was never published there, or is hidden", v.policy.Channel.Name)), nil
	case errors.Is(err, oras.ErrInvalid):
		return v.noChannel(now, m, err.Error()), nil
	case err != nil:
		return nil, err
	}
	return v.JudgeChannel(data, now, m), nil
}

// noChannel is the verdict when there is no bundle. What is remembered of
// revocations still holds.
func (v *Verifier) noChannel(now time.Time, m Memory, reason string) *ChannelVerdict {
	c := v.newChannelVerdict(m)
	c.fail(ChannelStatement, "", PredicateChannel, reason)
	v.judgeRevocations(c, nil, now)
	return c
}

func (v *Verifier) newChannelVerdict(m Memory) *ChannelVerdict {
	c := &ChannelVerdict{Format: 1, Policy: v.policy.Digest, Revoked: []Revoked{}, Memory: m}
	for _, check := range channelVerdictChecks {
		demanded := check.mandatory
		if at := step(strings.TrimPrefix(check.name, "channel.")); !demanded && v.policy.Channel != nil {
			demanded = v.trust.demandsOfAll(at, v.policy.Channel.Signers)
		}
		c.Checks = append(c.Checks, Check{Name: check.name, Demanded: demanded, Status: Skip, Reason: "not reached"})
	}
	return c
}

func (c *ChannelVerdict) fail(name, observed, expected, reason string) {
	setCheck(c.Checks, Check{Name: name, Status: Fail, Observed: observed, Expected: expected, Reason: reason})
}

func (c *ChannelVerdict) pass(name, observed string) {
	setCheck(c.Checks, Check{Name: name, Status: Pass, Observed: observed})
}

// hold passes when ok, and fails for the reason otherwise.
func (c *ChannelVerdict) hold(ok bool, name, observed, expected, reason string) {
	if ok {
		c.pass(name, observed)
		return
	}
	c.fail(name, observed, expected, reason)
}

// JudgeChannel judges a channel's bundle at the time now, against what was
// known before. It asks nobody. A policy that names no channel accepts none.
func (v *Verifier) JudgeChannel(bundle []byte, now time.Time, m Memory) *ChannelVerdict {
	if v.policy.Channel == nil {
		return v.noChannel(now, m, "the policy names no channel")
	}
	c := v.newChannelVerdict(m)
	p := parse(bundle)
	c.Data, c.Bundle = bundle, p.digest
	s := v.trust.verify(p, v.policy.Channel.Signers, now)
	v.trust.report(s, p, func(at step, check Check) {
		check.Name = "channel." + string(at)
		if check.Status == Fail && (at == stepSignature || at == stepSigner) {
			check.Expected = "a signature by one of the policy's channel signers: " + names(v.policy.Channel.Signers)
		}
		setCheck(c.Checks, check)
	})
	var said *Channel
	if s.ok() {
		statement, err := DecodeStatement(p.payload)
		if err == nil {
			said, err = statement.Channel()
		}
		if err != nil {
			c.fail(ChannelStatement, "", PredicateChannel, err.Error())
		} else {
			c.pass(ChannelStatement, PredicateChannel)
		}
	} else {
		c.fail(ChannelStatement, "", PredicateChannel, "not verified, so not looked into")
	}
	if said == nil {
		v.judgeRevocations(c, nil, now)
		return c
	}
	v.judgeChannel(c, said, s, now)
	return c
}

func (v *Verifier) judgeChannel(c *ChannelVerdict, said *Channel, s *signed, now time.Time) {
	c.Product, c.Channel, c.Epoch, c.Sequence = said.Product, said.Channel, said.Epoch, said.Sequence
	c.Release, c.Manifest, c.Lowest, c.Issued, c.Expires = said.Release, said.Manifest, said.Lowest, said.Issued, said.Expires
	c.Signer = s.by.Name
	if len(s.times) > 0 {
		c.Time = FormatTime(s.times[0])
	}
	m := &c.Memory
	policy := v.policy.Channel
	c.hold(said.Product == v.policy.Product, ChannelProduct, said.Product, v.policy.Product, "the channel is of another product")
	c.hold(said.Channel == policy.Name, ChannelName, said.Channel, policy.Name, "this is another channel in the place of the one asked for")
	switch {
	case said.Epoch != policy.Epoch:
		c.fail(ChannelEpoch, fmt.Sprint(said.Epoch), fmt.Sprint(policy.Epoch), "the policy's epoch and the channel's differ: after an accident both are raised, the policy's by hand")
	case said.Epoch < m.Epoch:
		c.fail(ChannelEpoch, fmt.Sprint(said.Epoch), fmt.Sprint(m.Epoch), "a higher epoch was accepted before: the policy seems to be an old one")
	default:
		c.pass(ChannelEpoch, fmt.Sprint(said.Epoch))
	}
	// Within an epoch nothing goes back; a new one starts afresh.
	known := said.Epoch == m.Epoch
	same := said.Release == m.Release && said.Manifest == m.Manifest && said.Lowest == m.Lowest
	switch {
	case known && said.Sequence < m.Sequence:
		c.fail(ChannelSequence, fmt.Sprint(said.Sequence), fmt.Sprintf("%d or higher", m.Sequence), "older than what was accepted before: a rollback")
	case known && said.Sequence == m.Sequence && !same:
		c.fail(ChannelSequence, fmt.Sprint(said.Sequence), fmt.Sprintf("above %d", m.Sequence), "something else was accepted under this number before: the signer says two things")
	default:
		c.pass(ChannelSequence, fmt.Sprint(said.Sequence))
	}
	switch {
	case known && said.Release < m.Release:
		c.fail(ChannelRelease, fmt.Sprint(said.Release), fmt.Sprintf("%d or higher", m.Release), "the release number fell: a rollback")
	case known && said.Release == m.Release && said.Manifest != m.Manifest:
		c.fail(ChannelRelease, said.Manifest.String(), m.Manifest.String(), fmt.Sprintf("release %d had another digest before", m.Release))
	default:
		c.pass(ChannelRelease, fmt.Sprintf("%d, %s", said.Release, said.Manifest))
	}
	c.hold(!known || said.Lowest >= m.Lowest, ChannelLowest, fmt.Sprint(said.Lowest), fmt.Sprintf("%d or higher", m.Lowest), "the lowest release allowed fell")
	fresh := v.judgeRevocations(c, said, now)

	issued, expires, _ := said.times() // they were read before
	newest := issued
	for _, at := range append([]time.Time{m.NewestTime}, s.times...) {
		if at.After(newest) {
			newest = at
		}
	}
	c.hold(!newest.After(now.Add(maxSkew)), ChannelClock, FormatTime(now), "not before "+FormatTime(newest),
		"a signature was made after what the clock of this machine says: set the clock; until then nothing can be called fresh")
	c.hold(!now.After(expires), ChannelExpiry, "until "+said.Expires, "later than "+FormatTime(now), "the channel has expired: it was not renewed, or its news are withheld")
	if !c.Accepted() {
		return
	}
	*m = Memory{
		Epoch: said.Epoch, Sequence: said.Sequence, Release: said.Release, Lowest: said.Lowest, Manifest: said.Manifest,
		Revocations: append(slices.Clone(m.Revocations), fresh...), NewestTime: newest,
	}
}

// judgeRevocations verifies each revocation by itself, those remembered and
// those that the channel lists, if there is one. It returns the bundles that a
// revoker signed and that were not remembered.
func (v *Verifier) judgeRevocations(c *ChannelVerdict, said *Channel, now time.Time) (fresh [][]byte) {
	byManifest := map[canon.Digest]*Revoked{}
	add := func(r *Revoked) {
		if have := byManifest[r.Manifest]; have == nil || r.Binding && !have.Binding {
			byManifest[r.Manifest] = r
		}
	}
	remembered := map[canon.Digest]bool{}
	for _, raw := range c.Memory.Revocations {
		// One that no longer binds, since the policy changed, is not held on to.
		if r, err := v.revocation(raw, now); err == nil && r.Binding {
			remembered[r.Manifest] = true
			add(r)
		}
	}
	if said != nil {
		listed := map[canon.Digest]bool{}
		reason := ""
		for i, raw := range said.Revocations {
			r, err := v.revocation(raw, now)
			if err != nil {
				reason = fmt.Sprintf("entry %d: %v", i+1, err)
				break
			}
			if r.Binding {
				if !remembered[r.Manifest] && !listed[r.Manifest] {
					fresh = append(fresh, raw)
				}
				listed[r.Manifest] = true
			}
			add(r)
		}
		observed := count(len(said.Revocations), "revocation")
		gone := 0
		for d := range remembered {
			if !listed[d] {
				gone++
			}
		}
		switch {
		case reason != "":
			c.fail(ChannelRevocations, observed, "", reason)
		case gone > 0 && said.Epoch == c.Memory.Epoch:
			c.fail(ChannelRevocations, observed, "", fmt.Sprintf("%s that stood here before, signed by a revoker, is gone from the list: revocations do not end", count(gone, "revocation")))
		default:
			c.pass(ChannelRevocations, observed)
		}
	}
	for _, r := range byManifest {
		c.Revoked = append(c.Revoked, *r)
	}
	slices.SortFunc(c.Revoked, func(a, b Revoked) int { return bytes.Compare(a.Manifest[:], b.Manifest[:]) })
	return fresh
}

// revocation reads one revocation. An error means that it is none; that the
// policy does not let its signer revoke makes it one that does not bind.
func (v *Verifier) revocation(raw []byte, now time.Time) (*Revoked, error) {
	p := parse(raw)
	if p.err != nil {
		return nil, p.err
	}
	statement, err := DecodeStatement(p.payload)
	if err != nil {
		return nil, err
	}
	said, err := statement.Revocation()
	if err != nil {
		return nil, err
	}
	r := &Revoked{Release: said.Release, Manifest: said.Manifest, Reason: Printable(said.Reason), Issued: said.Issued}
	s := v.trust.verify(p, v.policy.Revokers, now)
	switch {
	case !s.ok():
		r.Why = Printable(fmt.Sprintf("%s: %s", s.failed, s.reason))
	case said.Product != v.policy.Product:
		r.Why = Printable("about product " + said.Product)
	default:
		r.By, r.Binding = s.by.Name, true
	}
	return r, nil
}

// judgeCurrency says what the channel means for the release.
func (v *Verifier) judgeCurrency(r *Verdict, c *evidence) {
	a, ch := c.artifact, c.channel
	if v.policy.Channel == nil {
		for _, name := range channelChecks {
			r.skip(name, "the policy names no channel")
		}
		return
	}
	if ch == nil {
		r.fail(CheckChannel, "", "channel "+v.policy.Channel.Name, "no channel was given")
		return
	}
	r.Channel = ch
	if ch.Policy != v.policy.Digest {
		r.fail(CheckChannel, "", "", "the channel was judged by another policy")
		return
	}
	// Known revocations hold whatever became of the channel.
	revoked := ch.Revocation(a.Digest)
	switch {
	case revoked != nil && revoked.Binding:
		r.fail(CheckRevoked, fmt.Sprintf("by %s, %s", revoked.By, revoked.Issued), "not revoked", revoked.Reason)
	case revoked != nil:
		r.fail(CheckRevoked, "by the channel, "+revoked.Issued, "not revoked", fmt.Sprintf("%s (signed by no revoker of the policy, so it must not be installed, and is not unloaded: %s)", revoked.Reason, revoked.Why))
	case ch.Accepted():
		r.pass(CheckRevoked, fmt.Sprintf("not among the %d revoked", len(ch.Revoked)))
	}
	if !ch.Accepted() {
		reason := "nothing was checked"
		for i, f := range ch.Failures() {
			switch {
			case i == 0:
				reason = f.Name + ": " + f.Reason
			case f.Name != ChannelStatement:
				reason = f.Name + ": " + f.Reason + "; " + reason
			}
		}
		r.fail(CheckChannel, "", "channel "+v.policy.Channel.Name, reason)
		return
	}
	r.pass(CheckChannel, fmt.Sprintf("%s, epoch %d, sequence %d, signed by %s", ch.Channel, ch.Epoch, ch.Sequence, ch.Signer))
	if ch.Pass() {
		r.pass(CheckFreshness, "until "+ch.Expires)
	} else {
		r.fail(CheckFreshness, "until "+ch.Expires, "later than "+FormatTime(c.now), "stale: the channel has expired, and there may be news that are withheld")
	}
	switch {
	case ch.Manifest == a.Digest:
		r.pass(CheckCurrent, fmt.Sprintf("release %d", ch.Release))
	default:
		r.fail(CheckCurrent, fmt.Sprintf("release %d, %s", a.Release.Number, a.Digest), fmt.Sprintf("release %d, %s", ch.Release, ch.Manifest), "the channel names another release")
	}
	if n := a.Release.Number; n < ch.Lowest {
		r.fail(CheckLowest, fmt.Sprint(n), fmt.Sprintf("%d or higher", ch.Lowest), "older than the channel allows")
	} else {
		r.pass(CheckLowest, fmt.Sprintf("%d, lowest allowed is %d", n, ch.Lowest))
	}
}
