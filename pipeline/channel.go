package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// ErrChannel: a channel must not be published like this, since agents would
// refuse it or lose what it said before. Its message says what to do.
var ErrChannel = errors.New("channel")

// DefaultLifetime of a channel is eight periods of a publication every six
// hours: schedules are late at times.
const DefaultLifetime = 48 * time.Hour

// publications is how often a channel is signed anew because another writer
// published in between.
const publications = 5

// ChannelPlan says how to publish a channel.
type ChannelPlan struct {
	Name        string        // of the channel
	Lifetime    time.Duration // until it expires
	Epoch       int64         // 0: as before, or as the policy says, or 1
	Lowest      int64         // lowest release still allowed; 0: as before, or 1
	First       bool          // there is no channel before that could be verified
	Revocations [][]byte      // bundles of revocations to add

	// Memory is the file in which what was published last is kept, so that a store
	// which shows an older channel, or none, is found out: see MemoryFile. With "" a
	// replayed channel is gone on from, and what was revoked after it is lost.
	Memory string

	// Policy says who may have signed the channel before, and what the release
	// must be; agents judge by such a policy. With nil, the signer's own key or
	// identity must have signed the channel, and the release is not judged.
	Policy *verify.Policy
	Signer *sign.Signer
}

// ChannelReport says what was published.
type ChannelReport struct {
	Product     string                 `json:"product"`
	Channel     string                 `json:"channel"`
	Epoch       int64                  `json:"epoch"`
	Sequence    int64                  `json:"sequence"`
	Release     int64                  `json:"release"`  // number of the current release
	Manifest    canon.Digest           `json:"manifest"` // and its manifest digest
	Lowest      int64                  `json:"lowest"`
	Revocations int                    `json:"revocations"` // in the list
	Issued      string                 `json:"issued"`
	Expires     string                 `json:"expires"`
	Before      string                 `json:"before"` // what stood there before, or why nothing was carried over
	Verdict     *verify.ChannelVerdict `json:"verdict"`
}

// PublishChannel signs a channel that says that the release in store with the
// manifest digest release is current, and puts it into the store. The zero
// digest keeps the current release of the channel before.
//
// The channel before is verified, and its sequence, lowest release and
// revocations are carried on: nothing goes back within an epoch. One that is missing or
// cannot be verified is ErrChannel unless plan.First, or a plan.Epoch that is
// higher than the one that it claims. One that is behind what plan.Memory has is
// ErrChannel unless the epoch is higher than both; then what is remembered is
// carried on; a memory that cannot be read or written is ErrMemory. A release that
// is revoked, has a lower number than before, or is refused by the policy is
// ErrChannel as well. What was made is judged before it is published; if that
// fails it is ErrOwnResult. Publishers at once follow one another.
func PublishChannel(ctx context.Context, store oras.Store, release canon.Digest, plan ChannelPlan) (*ChannelReport, error) {
	if err := verify.CheckChannelName(plan.Name); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChannel, err)
	}
	if p := plan.Policy; p != nil && (p.Channel == nil || p.Channel.Name != plan.Name) {
		return nil, fmt.Errorf("%w: the policy names no channel %q, so nobody who uses it would look at this one", ErrChannel, plan.Name)
	}
	for try := 1; ; try++ {
		var r *ChannelReport
		err := oras.Exclusive(ctx, store, func() (err error) {
			r, err = plan.publish(ctx, store, release)
			return err
		})
		if !errors.Is(err, oras.ErrExists) || try == publications {
			return r, err
		}
	}
}

func (p ChannelPlan) publish(ctx context.Context, store oras.Store, release canon.Digest) (*ChannelReport, error) {
	now := time.Now()
	before, err := p.before(ctx, store, now)
	if err == nil {
		err = p.mayFollow(before)
	}
	if err != nil {
		return nil, err
	}
	if release.IsZero() {
		if before.said == nil {
			return nil, fmt.Errorf("%w: which release is current is not known, since %s: name one", ErrChannel, before.why)
		}
		release = before.said.Manifest
	}
	a, err := oras.Pull(ctx, store, release)
	if err != nil {
		return nil, err
	}
	next, err := p.next(a, before, now)
	if err != nil {
		return nil, err
	}
	st, err := verify.NewChannel(next)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChannel, err)
	}
	bundle, err := p.Signer.Sign(ctx, st)
	if err != nil {
		return nil, err
	}
	if before.pending != nil {
		// Now the identity is known. What was signed is thrown away if the channel
		// before was not signed by the same.
		known := &earlier{digest: before.digest}
		if err := p.verifyBefore(before.pending, now, known, bundle); err != nil {
			return nil, err
		}
		kept, err := p.remembered()
		if err != nil {
			return nil, err
		}
		known.hold(kept)
		if known.said == nil || known.lost != "" || p.First {
			if err := p.mayFollow(known); err != nil {
				return nil, err
			}
			if (known.said == nil || known.lost != "" && before.lost == "") && before.said != nil { // a higher epoch: nothing of it is carried on
				return nil, fmt.Errorf("%w: %s; say --first with the higher epoch, so that nothing of it is carried on", ErrChannel, known.why)
			}
		}
		before = known
	}
	r := &ChannelReport{
		Product: next.Product, Channel: next.Channel, Epoch: next.Epoch, Sequence: next.Sequence, Release: next.Release, Manifest: next.Manifest,
		Lowest: next.Lowest, Revocations: len(next.Revocations), Issued: next.Issued, Expires: next.Expires, Before: before.why,
	}
	if err := p.judge(ctx, store, a, bundle, before, r); err != nil {
		return r, err
	}
	// Another publication meanwhile would be overwritten, and what it says lost.
	switch _, d, err := oras.GetChannel(ctx, store, p.Name); {
	case err != nil && !errors.Is(err, oras.ErrNotFound) && !errors.Is(err, oras.ErrInvalid):
		return nil, err
	case d.Digest != before.digest:
		return nil, fmt.Errorf("%s: channel %s %w: somebody else published it meanwhile: try again", store, p.Name, oras.ErrExists)
	}
	_, err = oras.PutChannel(ctx, store, p.Name, bundle)
	if errors.Is(err, oras.ErrExists) && p.succeeded(ctx, store, next, now, bundle) {
		err = nil
	}
	if err == nil {
		err = p.remember(bundle)
	}
	return r, err
}

// succeeded reports whether a later channel that verifies stands in the store
// and says all that c says: whoever published it had read c.
func (p ChannelPlan) succeeded(ctx context.Context, store oras.Store, c verify.Channel, now time.Time, own []byte) bool {
	bundle, _, err := oras.GetChannel(ctx, store, p.Name)
	if err != nil {
		return false
	}
	var later earlier
	if err := p.verifyBefore(bundle, now, &later, own); err != nil || later.said == nil {
		return false
	}
	return later.said.Epoch == c.Epoch && later.said.Sequence > c.Sequence && goesBack(later.said, &c) == ""
}

// earlier is what stood at the channel's tag.
type earlier struct {
	said   *verify.Channel // nil: nothing that could be verified
	memory verify.Memory   // what an agent knows that accepted it
	digest canon.Digest    // of its manifest, zero if there is no channel
	claims int64           // epoch that it claims, verified or not
	// pending is the bundle, when said could not be verified yet: whom a keyless
	// signer signs as is known only from a certificate.
	pending []byte
	why     string // what was found, in words
	// lost says why said is what was remembered, and not what stands there; "" if
	// it stands there.
	lost string
}

// before reads and verifies the channel that stands in the store.
func (p ChannelPlan) before(ctx context.Context, store oras.Store, now time.Time) (*earlier, error) {
	kept, err := p.remembered()
	if err != nil {
		return nil, err
	}
	bundle, d, err := oras.GetChannel(ctx, store, p.Name)
	e := &earlier{digest: d.Digest}
	switch {
	case errors.Is(err, oras.ErrNotFound):
		e.why = fmt.Sprintf("there is no channel %s", p.Name)
	case errors.Is(err, oras.ErrInvalid):
		e.why = fmt.Sprintf("what stands in its place is damaged: %v", err)
	case err != nil:
		return nil, err
	default:
		if err := p.verifyBefore(bundle, now, e, nil); err != nil {
			return nil, err
		}
	}
	e.hold(kept)
	return e, nil
}

// hold holds what was found against what is remembered, if anything is.
func (e *earlier) hold(kept *verify.Channel) {
	if kept == nil {
		return
	}
	switch {
	case e.said == nil:
		e.lost, e.claims = e.why, 0 // nobody has to rise above what a stranger claims
	default:
		if back := goesBack(e.said, kept); back != "" {
			e.lost = "the store shows " + back
		}
	}
	if e.lost != "" {
		e.said, e.memory, e.claims = kept, verify.Memory{}, max(e.claims, kept.Epoch)
		e.why = fmt.Sprintf("%s; what is remembered is carried on: epoch %d, sequence %d", e.lost, kept.Epoch, kept.Sequence)
	}
}

// mayFollow says why no channel may follow on what was found.
func (p ChannelPlan) mayFollow(e *earlier) error {
	switch {
	case e.lost != "" && p.Epoch <= e.claims:
		return fmt.Errorf("%w: this is behind what was published here, epoch %d, sequence %d of %s: %s; have the registry show that one again, since to go on from another would forget what was revoked; if it is lost for good, raise --epoch above %d here and in the policies, and what is remembered is carried on; if this place was emptied on purpose and no agent uses it, remove %s",
			ErrChannel, e.said.Epoch, e.said.Sequence, e.said.Issued, e.lost, e.claims, p.Memory)
	case e.lost != "":
		return nil
	case e.said != nil && p.First:
		return fmt.Errorf("%w: there is one before, and it verifies (%s): leave --first out, so that its revocations are kept", ErrChannel, e.why)
	case e.said == nil && !p.First && p.Epoch <= max(e.claims, 1):
		return fmt.Errorf("%w: %s; if another signs it, that signer has to ('bhtrain revoke --output' writes a revocation for it); if there was none before, say so with --first; if one was lost or forged, raise --epoch above %d here and in the policies, since agents keep what they saw",
			ErrChannel, e.why, max(e.claims, 1))
	}
	return nil
}

// verifyBefore notes in e what a channel says if it verifies. Without a policy
// and a key, it is held against the identity in the bundle own.
func (p ChannelPlan) verifyBefore(bundle []byte, now time.Time, e *earlier, own []byte) error {
	claimed, err := channelIn(bundle)
	if err != nil {
		e.why = fmt.Sprintf("what stands in its place is none: %v", err)
		return nil
	}
	e.claims = claimed.Epoch
	policy, err := p.policy(claimed.Product, claimed.Epoch, own)
	if errors.Is(err, errNoIdentity) {
		e.pending, e.why = bundle, "the channel before is not believed"
		if !p.First {
			e.said = claimed
		}
		return nil
	}
	if err != nil {
		return err
	}
	v, err := verify.New(policy)
	if err != nil {
		return err
	}
	c := v.JudgeChannel(bundle, now, verify.Memory{})
	if !c.Accepted() {
		e.why = "the channel before does not verify"
		if f := cause(c); f != "" {
			e.why += fmt.Sprintf(" (%s)", f)
		}
		return nil
	}
	e.said, e.memory = claimed, c.Memory
	e.why = fmt.Sprintf("epoch %d, sequence %d: release %d", claimed.Epoch, claimed.Sequence, claimed.Release)
	return nil
}

// cause is the failed check of c that says most. That the statement was not
// looked into follows from another.
func cause(c *verify.ChannelVerdict) string {
	failed := c.Failures()
	if len(failed) > 1 && failed[0].Name == verify.ChannelStatement {
		failed = failed[1:]
	}
	for _, f := range failed {
		said := f.Name + ": " + f.Reason
		if f.Expected != "" {
			said += "; expected " + f.Expected
		}
		return said
	}
	return ""
}

// errNoIdentity: whom a keyless signer signs as is known only from a
// certificate.
var errNoIdentity = errors.New("no identity")

// policy is the policy that the channel is judged by, for one epoch. Without
// one given, it trusts the signer for everything.
func (p ChannelPlan) policy(product string, epoch int64, bundle []byte) (verify.Policy, error) {
	if p.Policy != nil {
		policy := *p.Policy
		channel := *policy.Channel
		channel.Epoch = epoch
		policy.Channel = &channel
		return policy, nil
	}
	if p.Signer.Keyless() && bundle == nil {
		return verify.Policy{}, errNoIdentity
	}
	policy, err := ownPolicy(product, p.Signer, bundle)
	if err != nil {
		return policy, err
	}
	if !p.Signer.Keyless() && bundle == nil { // it may have been signed without services
		policy.Timestamps, policy.TransparencyLog = 0, nil
	}
	policy.Channel = &verify.ChannelPolicy{Name: p.Name, Epoch: epoch, Signers: policy.Publishers}
	policy.Revokers = policy.Publishers
	return policy, nil
}

// next is what the channel shall say about the release a.
func (p ChannelPlan) next(a *oras.Artifact, before *earlier, now time.Time) (verify.Channel, error) {
	refuse := func(format string, args ...any) (verify.Channel, error) {
		return verify.Channel{}, fmt.Errorf("%w: "+format, append([]any{ErrChannel}, args...)...)
	}
	c := verify.Channel{
		Product: a.Release.Product, Channel: p.Name, Epoch: p.Epoch, Sequence: 1,
		Release: a.Release.Number, Manifest: a.Digest, Lowest: max(p.Lowest, 1),
		Issued: verify.FormatTime(now), Expires: verify.FormatTime(now.Add(p.Lifetime)),
	}
	said := before.said
	switch {
	case c.Epoch != 0:
	case p.Policy != nil:
		c.Epoch = p.Policy.Channel.Epoch
	case said != nil:
		c.Epoch = said.Epoch
	default:
		c.Epoch = 1
	}
	if said != nil {
		if said.Product != c.Product {
			return refuse("it is of product %s, the release of %s: choose another name", said.Product, c.Product)
		}
		c.Revocations = said.Revocations
		switch {
		case c.Epoch < said.Epoch:
			return refuse("epoch %d is below %d, the one before: agents refuse that", c.Epoch, said.Epoch)
		case c.Epoch == said.Epoch:
			c.Sequence = said.Sequence + 1
			if p.Lowest == 0 {
				c.Lowest = said.Lowest
			}
			switch {
			case c.Release < said.Release:
				return refuse("release %d is older than %d, the one before: agents refuse to go back; publish the older models under a higher release number, or raise --epoch here and in the policies", c.Release, said.Release)
			case c.Release == said.Release && c.Manifest != said.Manifest:
				return refuse("release %d was %s before and is %s now: give it a number of its own", c.Release, said.Manifest, c.Manifest)
			case c.Lowest < said.Lowest:
				return refuse("lowest release %d is below %d, the one before: it never falls within an epoch", c.Lowest, said.Lowest)
			}
		}
	}
	have := map[canon.Digest]bool{}
	revoked := false
	for _, b := range c.Revocations {
		have[canon.Sum(b)] = true
		r, err := revocationIn(b)
		revoked = revoked || err == nil && r.Manifest == a.Digest && (said == nil || said.Manifest != a.Digest)
	}
	if revoked {
		return refuse("release %d is revoked", c.Release)
	}
	for i, b := range p.Revocations {
		r, err := revocationIn(b)
		if err != nil {
			return refuse("revocation %d: %w", i+1, err)
		}
		if r.Product != c.Product {
			return refuse("revocation %d is about product %s, not %s", i+1, verify.Printable(r.Product), c.Product)
		}
		// As it will stand in the signed statement.
		if b, err = canon.Canonicalize(b); err != nil {
			return refuse("revocation %d: %w", i+1, err)
		}
		if d := canon.Sum(b); !have[d] {
			have[d] = true
			c.Revocations = append(c.Revocations[:len(c.Revocations):len(c.Revocations)], jsontext.Value(b))
		}
	}
	return c, nil
}

// judge judges the finished channel as an agent would that accepted the one
// before, and the release by the policy.
func (p ChannelPlan) judge(ctx context.Context, store oras.Store, a *oras.Artifact, bundle []byte, before *earlier, r *ChannelReport) error {
	policy, err := p.policy(r.Product, r.Epoch, bundle)
	if err != nil {
		return err
	}
	if p.Policy != nil {
		policy = *p.Policy // with its own epoch: agents have that one
	}
	v, err := verify.New(policy)
	if err != nil {
		return err
	}
	now := time.Now()
	r.Verdict = v.JudgeChannel(bundle, now, before.memory)
	if !r.Verdict.Pass() {
		return fmt.Errorf("%w: %s", ErrOwnResult, cause(r.Verdict))
	}
	if p.Policy == nil {
		return nil
	}
	// Rebuilds come when the release is out; a revoked release that stays current says
	// that there is no better one yet.
	verdict, _, err := v.Release(ctx, store, a.Digest, now, verify.Options{Channel: r.Verdict})
	if err != nil {
		return err
	}
	if !verdict.PassExcept(verify.CheckReproduced, verify.CheckRevoked) {
		for _, f := range verdict.Failures() {
			if f.Name != verify.CheckReproduced && f.Name != verify.CheckRevoked {
				return fmt.Errorf("%w: the policy refuses release %d: %s: %s", ErrChannel, a.Release.Number, f.Name, f.Reason)
			}
		}
		return fmt.Errorf("%w: the policy refuses release %d", ErrChannel, a.Release.Number)
	}
	return nil
}

// Revoke signs that the release in store with the manifest digest release must
// not be used any more, for the reason given. The bundle takes effect in a
// channel: ChannelPlan.Revocations.
func Revoke(ctx context.Context, store oras.Store, release canon.Digest, reason string, signer *sign.Signer) ([]byte, *verify.Revocation, error) {
	a, err := oras.Pull(ctx, store, release)
	if err != nil {
		return nil, nil, err
	}
	r := verify.Revocation{
		Product: a.Release.Product, Release: a.Release.Number, Manifest: a.Digest, Reason: reason, Issued: verify.FormatTime(time.Now()),
	}
	st, err := verify.NewRevocation(r)
	if err != nil {
		return nil, nil, err
	}
	bundle, err := signer.Sign(ctx, st)
	return bundle, &r, err
}

// statementIn is the statement in a bundle, whoever signed it.
func statementIn(bundle []byte) (verify.Statement, error) {
	var b struct {
		Envelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(bundle, &b); err != nil {
		return verify.Statement{}, fmt.Errorf("%w: not a bundle: %s", verify.ErrStatement, verify.Printable(err.Error()))
	}
	return verify.DecodeStatement(b.Envelope.Payload)
}

func channelIn(bundle []byte) (*verify.Channel, error) {
	st, err := statementIn(bundle)
	if err != nil {
		return nil, err
	}
	return st.Channel()
}

func revocationIn(bundle []byte) (*verify.Revocation, error) {
	st, err := statementIn(bundle)
	if err != nil {
		return nil, err
	}
	return st.Revocation()
}

// copyChannel copies the channel with this name, which must say that release
// is current, and never puts an older one in the place of a newer. What both
// claim is compared unverified: whoever judges them decides, this keeps a slow
// copy from undoing a fast one.
func copyChannel(ctx context.Context, dst, src oras.Store, name string, release canon.Digest) error {
	bundle, d, err := oras.GetChannel(ctx, src, name)
	if err != nil {
		return err
	}
	c, err := channelIn(bundle)
	if err != nil {
		return fmt.Errorf("%s: channel %s: %w: %w", src, name, ErrChannel, err)
	}
	if c.Manifest != release {
		return fmt.Errorf("%w: %s of %s names %s as current, not the release that is pushed", ErrChannel, name, src, c.Manifest)
	}
	return oras.Exclusive(ctx, dst, func() error {
		there, at, err := oras.GetChannel(ctx, dst, name)
		switch {
		case errors.Is(err, oras.ErrNotFound), errors.Is(err, oras.ErrInvalid):
		case err != nil:
			return err
		case at.Digest == d.Digest:
			return nil
		default:
			if have, err := channelIn(there); err == nil && have.Product == c.Product &&
				(have.Epoch > c.Epoch || have.Epoch == c.Epoch && have.Sequence >= c.Sequence) {
				return fmt.Errorf("%w: %s of %s has epoch %d, sequence %d; this one has %d, %d, which is not newer: publish it anew with 'bhtrain channel'",
					ErrChannel, name, dst, have.Epoch, have.Sequence, c.Epoch, c.Sequence)
			}
		}
		_, err = oras.PutChannel(ctx, dst, name, bundle)
		return err
	})
}
