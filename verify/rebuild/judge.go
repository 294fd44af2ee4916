package rebuild

import (
	"context"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Judge does what Reproduce does before it builds anything: it judges the
// release by the policy of opt, which must have one. The Report holds the verdict,
// and as Publisher the program that the provenance judged names. A release that
// the policy does not allow is ErrRefused.
func Judge(ctx context.Context, store oras.Store, digest canon.Digest, opt Options) (*Report, error) {
	r := &Report{Format: 1, Release: digest, Program: opt.Program, Files: []File{}, Differences: []Difference{}, Trees: []TreeDifference{}, Causes: []Cause{}}
	if _, err := fetch(ctx, store, r, opt); err != nil {
		return r, err
	}
	_, err := said(ctx, store, r)
	return r, err
}
