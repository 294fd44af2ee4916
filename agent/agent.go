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
	"io/fs"
	"path/filepath"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// Errors that callers branch on.
var (
	// ErrRefused: the policy or the rule against rollback does not allow it, or
	// it is no release that this program can score with.
	ErrRefused = errors.New("refused")
	// ErrNothing: no verified release is installed.
	ErrNothing = errors.New("nothing verified is installed")
	// ErrCorrupt: the state directory is damaged.
	ErrCorrupt = errors.New("corrupt state")
)

// State is how an agent stands to the release that it has.
type State string

const (
	StateCurrent State = "current" // allowed by the policy, and as new as is known
	StateStale   State = "stale"   // allowed and used, but the channel statement has expired: nobody says that it is current
	StateRevoked State = "revoked" // a revoker of the policy withdrew it: not used
	StateOffline State = "offline" // allowed and used, but no registry answered when last asked
	StateRefused State = "refused" // the policy of this moment does not allow it: not used
	StateNone    State = "none"    // nothing is installed
)

// Agent keeps verified releases in a state directory:
//
//	state.json           which release is live, and the highest number ever accepted
//	releases/<hex>/      one OCI image layout per installed release: its files and the bundle it was believed for
//	releases/<hex>.json  the verdict with which it was installed, to show later
//	lock                 held while state.json is changed
//	daemon.lock          held while a daemon runs
//
// Methods may be called by several goroutines and processes at once.
type Agent struct {
	dir string
	fs  durable.FS
}

// Open returns the agent with the given state directory, which Sync makes
// when it is missing.
func Open(dir string) *Agent { return &Agent{dir, durable.OS} }

func (a *Agent) statePath() string { return filepath.Join(a.dir, "state.json") }

func (a *Agent) slot(d canon.Digest) string { return filepath.Join(a.dir, "releases", d.Hex()) }

// Installed is the live release, judged just now.
type Installed struct {
	Verdict  *verify.Verdict `json:"verdict"`
	Source   string          `json:"source"`   // reference that it came from
	Previous canon.Digest    `json:"previous"` // live before; "" for none
	Highest  int64           `json:"highest"`  // largest release number ever accepted
	Policy   string          `json:"policy"`   // path of the policy file
	release  *oras.Artifact
}

// Status reads and judges the live release. With v nil the policy file that
// Sync was given is read again.
//
// Errors: ErrNothing; ErrCorrupt when the state or the files of the live
// release are damaged; verify.ErrPolicy and file errors when the policy cannot
// be read. A release that the policy no longer allows is no error: its Verdict
// says so.
func (a *Agent) Status(ctx context.Context, v *verify.Verifier) (*Installed, error) {
	st, err := a.readState()
	if err != nil {
		return nil, err
	}
	if st.Live.IsZero() {
		return nil, fmt.Errorf("%s: %w: run 'bhagent sync'", a.dir, ErrNothing)
	}
	if v == nil {
		p, err := verify.LoadPolicy(st.Policy)
		if err != nil {
			return nil, err
		}
		if v, err = verify.New(p); err != nil {
			return nil, err
		}
	}
	in := &Installed{Source: st.Source, Previous: st.Previous, Highest: st.Highest, Policy: st.Policy}
	in.Verdict, in.release, err = a.judge(ctx, st.Live, v)
	switch {
	case errors.Is(err, ErrCorrupt):
		return nil, fmt.Errorf("%s: %w: run 'bhagent sync' to install it again", a.dir, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", a.dir, err)
	}
	if in.release != nil && in.release.Release.Number != st.Number {
		return nil, fmt.Errorf("%s: %w: the live release has number %d, the state says %d", a.dir, ErrCorrupt, in.release.Release.Number, st.Number)
	}
	return in, nil
}

// judge reads what lies in a slot and judges it. The release is returned only
// if it passed; it is what was judged, and nothing is read again later. Files
// that are damaged or missing are ErrCorrupt; any other error says nothing
// about them.
func (a *Agent) judge(ctx context.Context, d canon.Digest, v *verify.Verifier) (*verify.Verdict, *oras.Artifact, error) {
	dir := a.slot(d)
	if err := plainDir(a.fs, dir); err != nil {
		return nil, nil, err
	}
	store, err := oras.Open(ctx, oras.Ref{Layout: dir}, oras.Options{})
	if err != nil {
		return nil, nil, damage(err)
	}
	verdict, release, err := v.Release(ctx, store, d, time.Now(), verify.Options{})
	if err != nil {
		return nil, nil, damage(err)
	}
	for _, c := range verdict.Failures() {
		if c.Name == verify.CheckManifest || c.Name == verify.CheckFiles {
			return nil, nil, fmt.Errorf("%w: %s", ErrCorrupt, c.Reason)
		}
	}
	return verdict, release, nil
}

// damage makes err ErrCorrupt when it speaks of what a slot holds. A slot must
// not be thrown away for a cancelled context or a machine short of files.
func damage(err error) error {
	if errors.Is(err, oras.ErrInvalid) || errors.Is(err, oras.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// plainDir refuses a slot that is not a directory of its own, such as a link
// to another place, as ErrCorrupt.
func plainDir(fsys durable.FS, dir string) error {
	info, err := fsys.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%w: %s is a %s, not a directory", ErrCorrupt, dir, info.Mode().Type())
	}
	return nil
}

// Load returns a Scorer of the live release if the policy allows it now.
// Errors are those of Status, and ErrRefused with the failed checks.
func (a *Agent) Load(ctx context.Context, v *verify.Verifier) (*Scorer, error) {
	in, err := a.Status(ctx, v)
	if err != nil {
		return nil, err
	}
	return in.Scorer()
}

// Scorer returns a Scorer of the very bytes that were judged; ErrRefused with
// the failed checks when the verdict does not pass.
func (in *Installed) Scorer() (*Scorer, error) {
	if !in.Verdict.Pass() {
		return nil, refusal(in.Verdict)
	}
	return NewScorer(in.release)
}

// refusal is ErrRefused with the names and reasons of the failed checks.
func refusal(v *verify.Verdict) error {
	text := ""
	for i, c := range v.Failures() {
		if i > 0 {
			text += ", "
		}
		text += c.Name
		if c.Reason != "" {
			text += " (" + c.Reason + ")"
		}
	}
	if text == "" {
		text = "nothing was checked"
	}
	return fmt.Errorf("%w: release %s: %s", ErrRefused, v.Release, text)
}

// NewScorer makes a Scorer of a release; ErrRefused when this program cannot
// score with it. That it was verified is the caller's word; Agent.Load keeps it.
func NewScorer(a *oras.Artifact) (*Scorer, error) {
	refuse := func(err error) (*Scorer, error) {
		return nil, fmt.Errorf("%w: release %s: %w", ErrRefused, a.Digest, err)
	}
	extract, err := feature.New(a.Release.Features)
	if err != nil {
		return refuse(err)
	}
	files := map[string][]byte{}
	for _, f := range a.Models {
		files[f.Name] = f.Data
	}
	set, err := model.Open(files, a.Release.Scoring)
	if err != nil {
		return refuse(err)
	}
	if set.Dim() != feature.Dim {
		return refuse(fmt.Errorf("%w: models of %d features, this program has %d", model.ErrFormat, set.Dim(), feature.Dim))
	}
	return &Scorer{release: a, extract: extract, set: set, privacy: privacy(extract.Config())}, nil
}

// privacy is what the records of the dataset went through. Keyed hashes cannot
// be made here, and need not: such models have no address columns, and to the
// tracker one form of an address is as good as another.
func privacy(c feature.Config) record.Privacy {
	p := record.Privacy{Address: record.AddressForm(c.Address), Redaction: c.Redaction}
	if c.Address == feature.AddressHashed {
		p.Address = record.Full
	}
	return p
}
