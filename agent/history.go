package agent

import (
	"bytes"
	"path/filepath"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// Happening is a sync of the daemon, or a change of state without one.
type Happening struct {
	Time   time.Time    `json:"time"`
	What   string       `json:"what"` // how the sync ended, or a State
	Good   bool         `json:"good"`
	Digest canon.Digest `json:"digest"` // of the release that it was about; "" for none
	Number int64        `json:"number"` // of that release; 0 when unknown
	Source string       `json:"source"` // that was asked; "" without a sync
	Detail string       `json:"detail"` // why
	Times  int          `json:"times"`  // how often it happened in a row, the last time at Time
}

// MaxHistory is how many happenings are kept.
const MaxHistory = 50

const maxHistory = 256 << 10 // bytes; MaxHistory lines need far less

func (a *Agent) historyPath() string { return filepath.Join(a.dir, "history.jsonl") }

// History returns what KeepHistory kept, the newest last: for people to look
// at, and for no decision. Lines that cannot be understood are left out, and a
// file that cannot be read, or is too long to be one of ours, is empty.
func (a *Agent) History() []Happening {
	b, err := durable.ReadFile(a.fs, a.historyPath(), maxHistory)
	if err != nil {
		return nil
	}
	var all []Happening
	for line := range bytes.Lines(b) {
		var h Happening
		if canon.Unmarshal(bytes.TrimSpace(line), &h) != nil || h.Time.IsZero() || h.What == "" || h.Number < 0 || h.Times < 1 {
			continue
		}
		h.What, h.Source, h.Detail = verify.Printable(h.What), verify.Printable(h.Source), verify.Printable(h.Detail)
		all = append(all, h)
	}
	return all[max(0, len(all)-MaxHistory):]
}

// KeepHistory replaces what History returns by the last MaxHistory of all.
// Errors: those of files, and durable.ErrLocked while another process is at work.
func (a *Agent) KeepHistory(all []Happening) error {
	var b []byte
	for _, h := range all[max(0, len(all)-MaxHistory):] {
		line, err := canon.Marshal(h)
		if err != nil {
			return err
		}
		b = append(append(b, line...), '\n')
	}
	unlock, err := a.lock() // who has it clears away unfinished files
	if err != nil {
		return err
	}
	defer unlock()
	return durable.WriteFile(a.fs, a.historyPath(), b, 0o600)
}
