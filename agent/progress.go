package agent

import (
	"context"
	"io"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Phase is what a sync is about to do.
type Phase string

// The phases of a sync, in their order. Those after PhaseChannel are left out
// when there is nothing to fetch.
const (
	PhaseMirror  Phase = "mirror"  // asks a mirror what there is
	PhaseChannel Phase = "channel" // judges what the channel says
	PhaseFetch   Phase = "fetch"   // fetches the files of a release
	PhaseVerify  Phase = "verify"  // holds them against the policy
	PhaseInstall Phase = "install" // writes them down, and makes them live
)

// Progress is how far a sync has come.
type Progress struct {
	Phase  Phase        `json:"phase"`
	Source string       `json:"source"` // the mirror
	Digest canon.Digest `json:"digest"` // of the release, from PhaseFetch on; "" before
	Done   int64        `json:"done"`   // bytes, in PhaseFetch
	Total  int64        `json:"total"`  // of Done, as the manifest says; 0 in other phases
}

// Watched is a whose syncs tell how far they have come: each phase as it begins,
// and PhaseFetch with each piece that has come. tell is not called by two
// goroutines at once, and holds the sync up while it runs.
func (a *Agent) Watched(tell func(Progress)) *Agent {
	watched := *a
	watched.tell = tell
	return &watched
}

// reach tells that a phase begins.
func (s *syncing) reach(phase Phase, d canon.Digest) {
	if s.a.tell != nil {
		s.a.tell(Progress{Phase: phase, Source: s.source.String(), Digest: d})
	}
}

// watched is the store to read the release d from: the sync's own, which counts
// when somebody is told.
func (s *syncing) watched(d canon.Digest) oras.Store {
	if s.a.tell == nil {
		return s.store
	}
	return &counting{Store: s.store, at: Progress{Phase: PhaseFetch, Source: s.source.String(), Digest: d}, tell: s.a.tell}
}

// counting is a store that tells how much of a release has been read. The
// release is believed no sooner for it: the numbers are for people.
type counting struct {
	oras.Store
	tell func(Progress)

	mu    sync.Mutex
	at    Progress
	files map[canon.Digest]bool // of the release, that have not been opened
}

// Manifest learns from the manifest of the release what there is to fetch.
func (c *counting) Manifest(ctx context.Context, d oras.Descriptor) ([]byte, error) {
	b, err := c.Store.Manifest(ctx, d)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || d.Digest != c.at.Digest || c.files != nil {
		return b, err
	}
	var m struct {
		Config oras.Descriptor   `json:"config"`
		Layers []oras.Descriptor `json:"layers"`
	}
	c.files = map[canon.Digest]bool{}
	if json.Unmarshal(b, &m) == nil {
		for _, f := range append(m.Layers, m.Config) {
			if !c.files[f.Digest] {
				c.files[f.Digest] = true
				c.at.Total += max(0, min(f.Size, oras.MaxModel))
			}
		}
		c.tell(c.at)
	}
	return b, err
}

func (c *counting) Blob(ctx context.Context, d oras.Descriptor) (io.ReadCloser, error) {
	r, err := c.Store.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.files[d.Digest] {
		return r, nil
	}
	delete(c.files, d.Digest)
	return &countedBlob{r, c}, nil
}

type countedBlob struct {
	io.ReadCloser
	c *counting
}

func (b *countedBlob) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if c := b.c; n > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.at.Done = min(c.at.Done+int64(n), c.at.Total)
		if c.at.Phase == PhaseFetch {
			c.tell(c.at)
			if c.at.Done >= c.at.Total {
				c.at = Progress{Phase: PhaseVerify, Source: c.at.Source, Digest: c.at.Digest}
				c.tell(c.at)
			}
		}
	}
	return n, err
}
