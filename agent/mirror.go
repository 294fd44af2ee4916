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

// SyncMirrors syncs from mirrors, asking them in order; there must be at least
// one. One that does not answer, or answers with what is older, expired or
// refused, changes nothing, and the next one is asked. So it is after one that knows
// nothing new, where the policy names a channel, which tells new from old: nobody's
// mirror can hold back what another one has. The first that leads to an installation ends
// it. SyncMirrors returns what those asked gave, in order, and the one that tells most:
// the one that was used, else the first that had what is in use already, else a refusal
// before an expired channel before no answer. Arguments and errors are those of Sync.
func (a *Agent) SyncMirrors(ctx context.Context, from []oras.Ref, opt oras.Options, v *verify.Verifier, policy string, now time.Time) (asked []Attempt, best *Attempt) {
	at := 0
	for i, ref := range from {
		s, err := a.Sync(ctx, ref, opt, v, policy, now)
		asked = append(asked, Attempt{ref, s, err})
		if tells(asked[i]) > tells(asked[at]) {
			at = i
		}
		if err == nil && (s.Installed || v.Policy().Channel == nil) {
			break
		}
		// What is wrong here is so with all mirrors.
		if ctx.Err() != nil || errors.Is(err, durable.ErrLocked) || errors.Is(err, ErrCorrupt) {
			if asked[at].Err != nil {
				at = i
			}
			break
		}
	}
	return asked, &asked[at]
}

// tells orders what mirrors gave by how much it tells.
func tells(a Attempt) int {
	switch err := a.Err; {
	case err == nil && a.Synced.Installed:
		return 5
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
