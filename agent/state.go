package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// state is state.json: one line of canonical JSON and, as a second line, its
// SHA-256. It is replaced in one step, so that the pointer to the live release
// and what was accepted before never disagree.
type state struct {
	Format   int          `json:"format"`   // 1
	Product  string       `json:"product"`  // of all releases ever installed here
	Live     canon.Digest `json:"live"`     // manifest digest; "" for none
	Number   int64        `json:"number"`   // release number of Live
	Previous canon.Digest `json:"previous"` // what was live before; "" for none
	Highest  int64        `json:"highest"`  // largest release number ever accepted; with a channel, the one accepted last
	Newest   canon.Digest `json:"newest"`   // the release that had it
	Policy   string       `json:"policy"`   // absolute path of the policy file
	Source   string       `json:"source"`   // reference that Live came from

	// Channels is what was accepted from each channel, by its name, but for what
	// follows: that is the same whatever channel a policy names.
	Channels    map[string]verify.Memory `json:"channels"`
	Revocations [][]byte                 `json:"revocations"` // the union for ever
	NewestTime  time.Time                `json:"newest_time"` // latest time that was signed for

	// Pinned is the release that an operator decided to stay with, "" for none.
	Pinned    canon.Digest `json:"pinned"`
	Decisions []Decision   `json:"decisions"` // the newest last, at most maxDecisions
}

// Decision is what was decided about the live release against what the channel
// names, or that this is over.
type Decision struct {
	Time    time.Time    `json:"time"`
	What    string       `json:"what"`        // "rollback", "pin" or "unpin"
	By      string       `json:"by,omitzero"` // "" for an operator, ByProgram for what follows from a revocation
	Release canon.Digest `json:"release"`     // that it is about
	Reason  string       `json:"reason"`      // as they gave it
}

// ByProgram is who decides what no operator did.
const ByProgram = "bhagent"

const (
	maxState     = 8 << 20 // bytes; a state has under 4 KiB, and what revocations need
	maxDecisions = 100
)

func (a *Agent) statePath() string { return filepath.Join(a.dir, "state.json") }

// readState returns the state, the zero state when there is none, or
// ErrCorrupt.
func (a *Agent) readState() (state, error) {
	b, err := durable.ReadFile(a.fs, a.statePath(), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if errors.Is(err, durable.ErrTooLarge) || errors.Is(err, durable.ErrNotFile) {
		return state{}, fmt.Errorf("%s: %w: %w", a.statePath(), ErrCorrupt, err)
	}
	if err != nil {
		return state{}, a.unusable(err)
	}
	line, sum, ok := strings.Cut(string(b), "\n")
	if want := canon.Sum([]byte(line)).String() + "\n"; !ok || sum != want {
		return state{}, fmt.Errorf("%s: %w: checksum does not match: restore the file or remove it, then run 'bhagent sync'", a.statePath(), ErrCorrupt)
	}
	var st state
	if err := canon.UnmarshalCanonical([]byte(line), &st); err != nil {
		return state{}, fmt.Errorf("%s: %w: %w", a.statePath(), ErrCorrupt, err)
	}
	if st.Format != 1 {
		return state{}, fmt.Errorf("%s: %w: format %d, this program reads 1", a.statePath(), ErrCorrupt, st.Format)
	}
	return st, nil
}

// writeState replaces the state. That it may not outlive a power loss is an
// error too: nothing is done because of what was not surely kept.
func (a *Agent) writeState(st state) error {
	st.Format = 1
	line, err := canon.Marshal(st)
	if err != nil {
		return err
	}
	b := string(line) + "\n" + canon.Sum(line).String() + "\n"
	return durable.WriteFile(a.fs, a.statePath(), []byte(b), 0o600)
}

// memory is what is remembered of a channel, for the verifier.
func (st *state) memory(channel string) verify.Memory {
	m := st.Channels[channel]
	m.Revocations, m.NewestTime = st.Revocations, st.NewestTime
	return m
}

// remember keeps what was learnt of a channel.
func (st *state) remember(channel string, m verify.Memory) {
	st.Revocations, st.NewestTime = m.Revocations, m.NewestTime
	m.Revocations, m.NewestTime = nil, time.Time{}
	channels := map[string]verify.Memory{channel: m}
	for name, other := range st.Channels {
		if name != channel {
			channels[name] = other
		}
	}
	st.Channels = channels
}

// decide writes down a decision.
func (st *state) decide(d Decision) {
	st.Decisions = append(st.Decisions, d)
	if n := len(st.Decisions); n > maxDecisions {
		st.Decisions = st.Decisions[n-maxDecisions:]
	}
}
