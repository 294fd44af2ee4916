package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
)

// state is state.json: one line of canonical JSON and, as a second line, its
// SHA-256. It is replaced in one step, so that the pointer to the live release
// and the highest number ever accepted never disagree.
type state struct {
	Format   int          `json:"format"`   // 1
	Product  string       `json:"product"`  // of all releases ever installed here
	Live     canon.Digest `json:"live"`     // manifest digest; "" for none
	Number   int64        `json:"number"`   // release number of Live
	Previous canon.Digest `json:"previous"` // what was live before; "" for none
	Highest  int64        `json:"highest"`  // largest release number ever accepted
	Newest   canon.Digest `json:"newest"`   // the release that had it
	Policy   string       `json:"policy"`   // absolute path of the policy file
	Source   string       `json:"source"`   // reference that Live came from
}

const maxState = 64 << 10 // bytes; a state has under 2 KiB

// readState returns the state, the zero state when there is none, or
// ErrCorrupt.
func (a *Agent) readState() (state, error) {
	b, err := durable.ReadFile(a.fs, a.statePath(), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if err != nil {
		return state{}, fmt.Errorf("%s: %w: %w", a.statePath(), ErrCorrupt, err)
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

func (a *Agent) writeState(st state) error {
	st.Format = 1
	line, err := canon.Marshal(st)
	if err != nil {
		return err
	}
	b := string(line) + "\n" + canon.Sum(line).String() + "\n"
	return durable.WriteFile(a.fs, a.statePath(), []byte(b), 0o600)
}
