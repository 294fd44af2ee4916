package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// ErrMemory: the file that remembers a channel cannot be used. Its message says
// which, and what to do.
var ErrMemory = errors.New("memory of the channel")

// MemoryFile is where in the folder dir the channel of that name in one place
// is remembered, for ChannelPlan.Memory.
func MemoryFile(dir string, place oras.Ref, channel string) string {
	d := canon.Sum([]byte(place.Place().Canonical().String() + "\n" + channel))
	return filepath.Join(dir, fmt.Sprintf("channel-%s-%x.sigstore.json", channel, d[:8]))
}

// remembered is the channel in the memory, nil if there is none.
func (p ChannelPlan) remembered() (*verify.Channel, error) {
	if p.Memory == "" {
		return nil, nil
	}
	// Where nothing can be written is best known before anything is signed.
	if err := durable.OS.MkdirAll(filepath.Dir(p.Memory), 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMemory, err)
	}
	bundle, err := durable.ReadFile(durable.OS, p.Memory, oras.MaxBundle)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var c *verify.Channel
	if err == nil {
		c, err = channelIn(bundle)
	}
	if err == nil && c.Channel != p.Name {
		err = fmt.Errorf("it is of channel %s", c.Channel)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w; restore it, or remove it to go on from whatever the store shows", ErrMemory, p.Memory, err)
	}
	return c, nil
}

// remember keeps the bundle of a channel that was published, unless what is
// kept is newer: another publisher on this machine was faster.
func (p ChannelPlan) remember(bundle []byte) error {
	kept, err := p.remembered()
	if p.Memory == "" || err != nil {
		return err
	}
	said, err := channelIn(bundle)
	if err != nil {
		return err
	}
	if kept != nil && (kept.Epoch > said.Epoch || kept.Epoch == said.Epoch && kept.Sequence > said.Sequence) {
		return nil
	}
	if err := durable.WriteFile(durable.OS, p.Memory, bundle, 0o600); err != nil {
		return fmt.Errorf("%w: the channel is published, but was not remembered: %w", ErrMemory, err)
	}
	return nil
}

// goesBack says in what c is behind known, a channel that was published before
// it at the same place; "" if in nothing. A higher epoch starts afresh.
func goesBack(c, known *verify.Channel) string {
	fell := func(what string, from, to int64) string {
		return fmt.Sprintf("%s %d, and %d was published", what, to, from)
	}
	switch {
	case c.Product != known.Product:
		return fmt.Sprintf("product %s, and %s was published", verify.Printable(c.Product), known.Product)
	case c.Epoch < known.Epoch:
		return fell("epoch", known.Epoch, c.Epoch)
	case c.Epoch > known.Epoch:
		return ""
	case c.Sequence < known.Sequence:
		return fell("sequence", known.Sequence, c.Sequence)
	case c.Release < known.Release:
		return fell("release", known.Release, c.Release)
	case c.Lowest < known.Lowest:
		return fell("lowest release", known.Lowest, c.Lowest)
	case c.Release == known.Release && c.Manifest != known.Manifest:
		return fmt.Sprintf("%s as release %d, and %s was published", c.Manifest, c.Release, known.Manifest)
	}
	for _, b := range known.Revocations {
		if !slices.ContainsFunc(c.Revocations, func(o jsontext.Value) bool { return bytes.Equal(o, b) }) {
			return fmt.Sprintf("%d revocations, without one that was published", len(c.Revocations))
		}
	}
	if c.Sequence == known.Sequence && (c.Release != known.Release || c.Lowest != known.Lowest || len(c.Revocations) != len(known.Revocations)) {
		return fmt.Sprintf("something else under sequence %d", c.Sequence)
	}
	return ""
}
