// Package agent is what runs on a protected server: it pulls a release,
// verifies it against the local policy, installs it so that no crash can leave
// half of one, and scores records with it. It loads nothing that it has not
// just verified: bundles and files in the state directory are judged again at
// every load, with the policy of that moment, and the bytes that were judged
// are the bytes that are loaded.
package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// Errors that callers branch on.
var (
	// ErrRefused: the policy, the channel or the rule against rollback does not
	// allow it, or it is no release that this program can score with.
	ErrRefused = errors.New("refused")
	// ErrStale: nothing was refused, but the channel has expired, so that nobody
	// says what is current. What is live stays in use.
	ErrStale = errors.New("stale")
	// ErrNothing: no verified release is installed.
	ErrNothing = errors.New("nothing verified is installed")
	// ErrCorrupt: the state directory is damaged.
	ErrCorrupt = errors.New("corrupt state")
)

// State is how an agent stands to the release that it has.
type State string

// In use are the releases of StateCurrent, StateStale, StateBehind, StatePinned
// and StateOffline.
const (
	StateCurrent State = "current" // the one that the channel names, or that was newest when last asked
	StateStale   State = "stale"   // the channel has expired, or the clock is known to be behind: nobody says what is current
	StateBehind  State = "behind"  // the channel names another, which is not installed
	StatePinned  State = "pinned"  // the channel names another, and an operator decided to stay with this one
	StateOffline State = "offline" // no registry answered when last asked
	StateRevoked State = "revoked" // a revoker of the policy withdrew it
	StateRefused State = "refused" // the policy of this moment does not allow it
	StateNone    State = "none"    // nothing is installed
)

// Agent keeps verified releases in a state directory:
//
//	state.json              which release is live, and all that was accepted before
//	history.jsonl           the last syncs of the daemon, to show; nothing is decided by it
//	releases/<hex>/         one OCI image layout per installed release: its files and its provenance
//	releases/<hex>.bundles  the bundles that it was believed for
//	releases/<hex>.json     the verdict with which it was installed, to show later
//	channels/<name>         the newest bundle accepted from a channel
//	tuf/                    what was downloaded of a policy's TUF repository
//	lock                    held while state.json is changed
//	daemon.lock             held while a daemon runs
//
// Methods may be called by several goroutines and processes at once.
type Agent struct {
	// Built is a time before which this program was not built, zero when that is
	// not known: a clock that says less is wrong. It is set before the first use.
	Built time.Time

	dir     string
	fs      durable.FS
	tryLock func(path string) (unlock func(), err error)
	tell    func(Progress) // how far a sync has come; nil for nobody
}

// Open returns the agent with the given state directory, which Sync makes
// when it is missing.
func Open(dir string) *Agent { return &Agent{dir: dir, fs: durable.OS, tryLock: durable.TryLock} }

func (a *Agent) slot(d canon.Digest) string { return filepath.Join(a.dir, "releases", d.Hex()) }

// Verifier returns the verifier of a policy file, "" for the one that the last
// sync was given. With offline a TUF repository that the policy names is not
// asked: what was downloaded of it serves until it expires.
//
// Errors: ErrNothing when path is "" and nothing was ever synced; verify.ErrPolicy
// and file errors when the policy cannot be read.
func (a *Agent) Verifier(ctx context.Context, path string, offline bool) (*verify.Verifier, error) {
	if path == "" {
		st, err := a.readState()
		if err != nil {
			return nil, err
		}
		if path = st.Policy; path == "" {
			return nil, a.nothing()
		}
	}
	p, err := verify.LoadPolicy(path)
	if err != nil {
		return nil, err
	}
	return a.Trust(ctx, p, offline)
}

// Trust returns a verifier that demands p, with the trusted root that its TUF
// repository publishes, if it names one. With offline that is the one kept of
// the last time, which is accepted until it expires.
func (a *Agent) Trust(ctx context.Context, p verify.Policy, offline bool) (*verify.Verifier, error) {
	p, err := verify.LoadTrustedRoot(ctx, p, filepath.Join(a.dir, "tuf"), offline)
	if err != nil {
		return nil, err
	}
	return verify.New(p)
}

func (a *Agent) nothing() error {
	return fmt.Errorf("%s: %w: run 'bhagent sync'", a.dir, ErrNothing)
}

// Installed is the live release, judged just now.
type Installed struct {
	State     State           `json:"state"`
	Reason    string          `json:"reason"` // why State is not current; "" else
	Verdict   *verify.Verdict `json:"verdict"`
	Source    string          `json:"source"`    // reference that it came from
	Previous  canon.Digest    `json:"previous"`  // live before; "" for none
	Highest   int64           `json:"highest"`   // largest release number accepted
	Policy    string          `json:"policy"`    // path of the policy file
	Pinned    canon.Digest    `json:"pinned"`    // release to stay with; "" for none
	Decisions []Decision      `json:"decisions"` // about the live release, the newest last
	release   *oras.Artifact  // nil when it may not be used
}

// Status reads the live release and judges it at the time now, by the policy
// and by the newest channel statement that was accepted.
//
// Errors: ErrNothing; ErrCorrupt when the state or the files of the live
// release are damaged. A release that the policy no longer allows is no error:
// its State says so.
func (a *Agent) Status(ctx context.Context, v *verify.Verifier, now time.Time) (*Installed, error) {
	if err := a.inspect(); err != nil {
		return nil, err
	}
	st, err := a.readState()
	if err != nil {
		return nil, err
	}
	if st.Live.IsZero() {
		return nil, a.nothing()
	}
	in := &Installed{Source: st.Source, Previous: st.Previous, Highest: st.Highest, Policy: st.Policy, Pinned: st.Pinned, Decisions: st.Decisions}
	at, wrong := a.clock(&st, now)
	j, err := a.judge(ctx, st.Live, v, a.channel(v, &st, at), at)
	switch {
	case errors.Is(err, ErrCorrupt):
		return nil, fmt.Errorf("%s: %w: run 'bhagent sync' to install it again", a.dir, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", a.dir, err)
	}
	if j.release != nil && j.release.Release.Number != st.Number {
		return nil, fmt.Errorf("%s: %w: the live release has number %d, the state says %d", a.dir, ErrCorrupt, j.release.Release.Number, st.Number)
	}
	in.Verdict, in.release, in.State, in.Reason = j.verdict, j.release, j.state, j.reason
	switch {
	case in.State == StateBehind && st.Pinned == st.Live:
		in.State = StatePinned
	case wrong != "" && in.release != nil:
		in.State, in.Reason = StateStale, wrong
	}
	return in, nil
}

// clock is the time to judge by what is installed, and why the machine's is
// wrong, "" when it is not known to be. A clock that is behind what was signed, or
// behind the making of this program, is wrong; the time is that or later. So an
// expired statement does not become fresh again, and nothing is unloaded for being
// from the future.
func (a *Agent) clock(st *state, now time.Time) (at time.Time, wrong string) {
	least, what := st.NewestTime, "something was signed"
	if a.Built.After(least) {
		least, what = a.Built, "the source of this program was committed"
	}
	if !now.Add(maxSkew).Before(least) {
		return now, ""
	}
	return least, fmt.Sprintf("the clock of this machine says %s, and %s at %s: set the clock", verify.FormatTime(now), what, verify.FormatTime(least))
}

// maxSkew is how far the clocks of signers and of this machine may be apart.
const maxSkew = 5 * time.Minute

// judged is what was found about a slot. release is nil when it may not be used.
type judged struct {
	verdict *verify.Verdict
	release *oras.Artifact
	state   State
	reason  string
}

// judge reads what lies in a slot and judges it as something that was
// installed before: that the channel expired, or names another, or allows no
// installation of it any more, does not keep it from being used. The release
// is what was judged, and nothing is read again later. Files that are damaged or
// missing are ErrCorrupt; any other error says nothing about them.
func (a *Agent) judge(ctx context.Context, d canon.Digest, v *verify.Verifier, channel *verify.ChannelVerdict, now time.Time) (judged, error) {
	dir := a.slot(d)
	if err := a.inspectSlot(dir); err != nil {
		return judged{}, err
	}
	store, err := oras.Open(ctx, oras.Ref{Layout: dir}, oras.Options{FS: a.fs})
	if err != nil {
		return judged{}, damage(err)
	}
	bundles, err := a.readBundles(d)
	if err != nil {
		return judged{}, err
	}
	tolerate := []string{verify.CheckFreshness, verify.CheckCurrent, verify.CheckLowest}
	if r := revocation(channel, d); r != nil && !r.Binding {
		tolerate = append(tolerate, verify.CheckRevoked)
	}
	verdict, release, err := v.Release(ctx, store, d, now, verify.Options{Bundles: bundles, Channel: channel, Tolerate: tolerate})
	if err != nil {
		return judged{}, damage(err)
	}
	j := judged{verdict: verdict, release: release, state: StateCurrent}
	for _, c := range verdict.Failures() {
		switch c.Name {
		case verify.CheckManifest, verify.CheckFiles:
			return judged{}, fmt.Errorf("%w: %s", ErrCorrupt, c.Reason)
		case verify.CheckFreshness:
			j.state, j.reason = StateStale, c.Reason
		case verify.CheckCurrent:
			if j.state == StateCurrent {
				j.state, j.reason = StateBehind, fmt.Sprintf("the channel names %s", c.Expected)
			}
		}
	}
	if release != nil {
		return j, nil
	}
	j.state, j.reason = StateRefused, reasons(verdict.Failures())
	if r := revocation(channel, d); r != nil && r.Binding {
		j.state = StateRevoked
		j.reason = revokedBy(r)
	}
	return j, nil
}

// Stored reads what lies in the slot of an installed release, to show what it
// is: the bytes have that digest, and nothing says that they may be used. Errors:
// ErrCorrupt when they are damaged or missing.
func (a *Agent) Stored(ctx context.Context, d canon.Digest) (*oras.Artifact, error) {
	dir := a.slot(d)
	if err := a.inspectSlot(dir); err != nil {
		return nil, err
	}
	store, err := oras.Open(ctx, oras.Ref{Layout: dir}, oras.Options{FS: a.fs})
	if err != nil {
		return nil, damage(err)
	}
	release, err := oras.Pull(ctx, store, d)
	return release, damage(err)
}

// allowed reports whether the release may be made live, and not only go on
// being used: for that a channel may have expired or name another, no more.
func (j judged) allowed() bool {
	return j.release != nil && j.verdict.PassExcept(verify.CheckFreshness, verify.CheckCurrent)
}

// damage makes err ErrCorrupt when it speaks of what a slot holds. A slot must
// not be thrown away for a cancelled context or a machine short of files.
func damage(err error) error {
	if errors.Is(err, oras.ErrInvalid) || errors.Is(err, oras.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// Load returns a Scorer of the live release if it may be used now. Errors are
// those of Status, and ErrRefused with the failed checks.
func (a *Agent) Load(ctx context.Context, v *verify.Verifier, now time.Time) (*Scorer, error) {
	in, err := a.Status(ctx, v, now)
	if err != nil {
		return nil, err
	}
	return in.Scorer()
}

// Scorer returns a Scorer of the very bytes that were judged; ErrRefused with
// the failed checks when they may not be used.
func (in *Installed) Scorer() (*Scorer, error) {
	if in.release == nil {
		return nil, refusal(in.Verdict)
	}
	return NewScorer(in.release)
}

// Loadable reports whether the release may be used.
func (in *Installed) Loadable() bool { return in.release != nil }

// refusal is ErrRefused with the names and reasons of the failed checks.
func refusal(v *verify.Verdict) error {
	return fmt.Errorf("%w: release %s: %s", ErrRefused, v.Release, reasons(v.Failures()))
}

// reasons names failed checks and says why.
func reasons(failed []verify.Check) string {
	var text []string
	for _, c := range failed {
		if c.Reason == "" {
			text = append(text, c.Name)
		} else {
			text = append(text, c.Name+" ("+c.Reason+")")
		}
	}
	if len(text) == 0 {
		return "nothing was checked"
	}
	return strings.Join(text, ", ")
}
