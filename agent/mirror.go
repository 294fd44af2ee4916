package agent

import (
	"context"
	"errors"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// Attempt is what one mirror gave.
type Attempt struct {
	From   oras.Ref
	Synced *Synced
	Err    error
}

// SyncMirrors syncs from the first mirror that has what may be used, asking
// them in order; there must be at least one. One that does not answer, or
// answers with what is older, expired or refused, changes nothing, and the next
// one is asked: so nobody's mirror can hold back what another one has. It
// returns what those asked gave, in order, and the one that tells most: the one
// that was used, else a refusal before an expired channel before no answer. Arguments
// and errors are those of Sync.
func (a *Agent) SyncMirrors(ctx context.Context, from []oras.Ref, opt oras.Options, v *verify.Verifier, policy string, now time.Time) (asked []Attempt, best *Attempt) {
	at := 0
	for i, ref := range from {
		s, err := a.Sync(ctx, ref, opt, v, policy, now)
		asked = append(asked, Attempt{ref, s, err})
		if tells(err) > tells(asked[at].Err) {
			at = i
		}
		// What is wrong here is so with all mirrors.
		if err == nil || ctx.Err() != nil || errors.Is(err, durable.ErrLocked) || errors.Is(err, ErrCorrupt) {
			at = i
			break
		}
	}
	return asked, &asked[at]
}

// tells orders the errors of Sync by how much they tell.
func tells(err error) int {
	switch {
	case err == nil:
		return 4
	case errors.Is(err, ErrRefused), errors.Is(err, oras.ErrInvalid):
		return 3
	case errors.Is(err, ErrStale):
		return 2
	case errors.Is(err, oras.ErrUnreachable), errors.Is(err, oras.ErrNotFound), errors.Is(err, oras.ErrRefused):
		return 0
	}
	return 1
}
