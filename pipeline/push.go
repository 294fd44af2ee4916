package pipeline

import (
	"context"
	"fmt"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Pushed says what Push copied.
type Pushed struct {
	Reference string       `json:"reference"` // place and digest, as ParseRef reads it
	Digest    canon.Digest `json:"digest"`    // of the release's manifest, equal in both stores
	Tags      []string     `json:"tags"`      // set in the destination
	Referrers int          `json:"referrers"` // statements copied
	Skipped   []string     `json:"skipped"`   // referrers left behind, with the reason
	Complete  bool         `json:"complete"`  // false when the source may have more referrers than were copied
}

// Push copies the release that from refers to, with its dataset and the
// statements about both, to the place that to refers to. A tag in to is set
// besides the release number's, "latest" when there is none. A digest in to
// that is not the release's is an error before anything is written.
func Push(ctx context.Context, from, to oras.Ref, opt oras.Options) (*Pushed, error) {
	src, err := oras.Open(ctx, from, opt)
	if err != nil {
		return nil, err
	}
	d, err := src.Resolve(ctx, from.Name())
	if err != nil {
		return nil, err
	}
	if !to.Digest.IsZero() && to.Digest != d.Digest {
		return nil, fmt.Errorf("%s is %s: the destination names another digest, %s", from, d.Digest, to.Digest)
	}
	opt.Write = true
	dst, err := oras.Open(ctx, to, opt)
	if err != nil {
		return nil, err
	}
	tag := to.Tag
	if tag == "" {
		tag = oras.TagLatest
	}
	rep, err := oras.Copy(ctx, dst, src, d.Digest, oras.CopyOptions{Tags: []string{tag}})
	if err != nil {
		return nil, err
	}
	at := to.Place()
	at.Digest = d.Digest
	return &Pushed{
		Reference: at.String(), Digest: d.Digest, Tags: []string{tag},
		Referrers: rep.Referrers, Skipped: rep.Skipped, Complete: rep.Complete,
	}, nil
}
