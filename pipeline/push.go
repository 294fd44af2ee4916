package pipeline

import (
	"context"
	"errors"
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
// besides the release number's, whatever it stood for. When there is none,
// "latest" is set, unless it stands for a release of the same product with a
// higher number. A digest in to that is not the release's is an error before
// anything is written.
//
// The channels named go along if they name this release as current; one that is
// older than that of the destination, or names another release, is ErrChannel.
func Push(ctx context.Context, from, to oras.Ref, opt oras.Options, channels ...string) (*Pushed, error) {
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
	tags := []string{to.Tag}
	if to.Tag == "" {
		newest, err := isNewest(ctx, dst, src, d.Digest)
		if err != nil {
			return nil, err
		}
		if tags = nil; newest {
			tags = []string{oras.TagLatest}
		}
	}
	rep, err := oras.Copy(ctx, dst, src, d.Digest, oras.CopyOptions{Tags: tags})
	if err != nil {
		return nil, err
	}
	for _, name := range channels { // last: it leads to what must be there
		if err := copyChannel(ctx, dst, src, name, d.Digest); err != nil {
			return nil, err
		}
		tags = append(tags, oras.ChannelTag(name))
	}
	at := to.Place()
	at.Digest = d.Digest
	return &Pushed{
		Reference: at.String(), Digest: d.Digest, Tags: append([]string{}, tags...),
		Referrers: rep.Referrers, Skipped: rep.Skipped, Complete: rep.Complete,
	}, nil
}

// isNewest reports whether "latest" of dst should stand for the release d of
// src: it stands for nothing, for something else than a release of the same
// product, or for one with a number that is not higher.
func isNewest(ctx context.Context, dst, src oras.Store, d canon.Digest) (bool, error) {
	have, err := dst.Resolve(ctx, oras.TagLatest)
	if errors.Is(err, oras.ErrNotFound) || errors.Is(err, oras.ErrInvalid) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	old, err := oras.Pull(ctx, dst, have.Digest)
	if errors.Is(err, oras.ErrNotFound) || errors.Is(err, oras.ErrInvalid) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	a, err := oras.Pull(ctx, src, d)
	if err != nil {
		return false, err
	}
	return old.Release.Product != a.Release.Product || old.Release.Number <= a.Release.Number, nil
}
