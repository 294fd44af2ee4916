package rebuild

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// ErrAttest: a rebuild that nobody can sign for. The message says why.
var ErrAttest = errors.New("cannot attest")

// Signer signs a statement that depends on who signs it; internal/sign has one.
type Signer interface {
	SignAs(ctx context.Context, say func(verify.Identity) (verify.Statement, error)) ([]byte, error)
}

// states are what a training passed through, in order. Who has them could sign
// for a rebuild that he did not make, so they are never printed or stored.
type states []state

type state struct {
	name   string
	digest canon.Digest
}

// transcript binds the states to the release and to who signs: nobody can make
// his own from another's. STATEMENTS.md specifies it.
func (s states) transcript(release, identity canon.Digest) canon.Digest {
	t := canon.Sum(fmt.Appendf(nil, "bhtrain transcript 1\n%s\n%s\n", release, identity))
	for _, state := range s {
		h := sha256.New()
		h.Write(t[:])
		h.Write(state.digest[:])
		io.WriteString(h, state.name)
		t = canon.Digest(h.Sum(nil))
	}
	return t
}

// mayAttest reports why a rebuild by this program could not be signed for.
func mayAttest(opt Options) error {
	p := opt.Program
	switch {
	case opt.Verifier == nil:
		return fmt.Errorf("%w: nobody signs for what he did not judge: a policy is needed", ErrAttest)
	case p.Trainer.H1 == "":
		return fmt.Errorf("%w: this build does not know the h1 sum of its module, so nobody could tell which program ran: use an official build, 'go install' of a version, or build it in a clean checkout with -ldflags \"$(go run ./internal/modsum -ldflags)\"", ErrAttest)
	case p.Go == "" || p.OS == "" || p.Arch == "":
		return fmt.Errorf("%w: this build does not know where it runs", ErrAttest)
	}
	if allowed := opt.Verifier.Policy().Trainers; allowed != nil && !slices.ContainsFunc(allowed, p.Trainer.Matches) {
		return fmt.Errorf("%w: this program (%s) is no trainer that the policy names; --bootstrap builds the one that made the release, if the policy names that", ErrRefused, p.Trainer)
	}
	return nil
}

// Transcript is what a rebuild like this one has, signed by the given identity
// (verify.Identity.TranscriptKey). It needs Options.Attest or Transcripts.
func (r *Report) Transcript(identity canon.Digest) canon.Digest {
	return r.states.transcript(r.Release, identity)
}

// Attest signs what r found, pass or fail, with the signer's own identity, and
// returns the bundle of the reproduction/v1 statement. Options.Attest must have
// been set. A dataset that does not follow from the inputs is ErrAttest: the
// statement would say nothing of it. Started and finished are those of the rebuild.
func (r *Report) Attest(ctx context.Context, signer Signer, started, finished time.Time) ([]byte, error) {
	switch {
	case r.Verdict == nil || r.recipe.IsZero() || r.states == nil && !r.Rebuilt.IsZero():
		return nil, fmt.Errorf("%w: the rebuild was not made for it", ErrAttest)
	case r.Inputs != nil && r.Inputs.Dataset != r.Dataset:
		return nil, fmt.Errorf("%w: the dataset does not follow from the inputs, and the statement could not say so", ErrAttest)
	}
	return signer.SignAs(ctx, func(who verify.Identity) (verify.Statement, error) {
		s := verify.Reproduction{
			Product: r.Product, Release: r.Number, Result: verify.ResultFail, Manifest: r.Release, Obtained: r.Rebuilt,
			Recipe: r.recipe, Dataset: r.Dataset, Trainer: r.Program.Trainer,
			Environment: verify.Environment{OS: r.Program.OS, Arch: r.Program.Arch, Go: r.Program.Go},
			Transcript:  r.Transcript(who.TranscriptKey()),
			Started:     verify.FormatTime(started), Finished: verify.FormatTime(finished),
		}
		if r.Rebuilt == r.Release {
			s.Result = verify.ResultPass
		}
		if s.Obtained.IsZero() {
			s.Obtained = canon.Sum(nil) // nothing came out
		}
		return verify.NewReproduction(s)
	})
}
