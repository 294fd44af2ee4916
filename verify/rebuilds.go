package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// findRebuilds asks the places of the policy's rebuilders. One that cannot be
// asked is noted: its operator may not count, and the others still do. Only the
// end of ctx is an error.
func (v *Verifier) findRebuilds(ctx context.Context, c *evidence, open func(context.Context, oras.Ref) (oras.Store, error)) error {
	asked := map[oras.Ref]bool{}
	for _, reb := range v.policy.Reproductions.Rebuilders {
		for _, ref := range reb.Where {
			if asked[ref] {
				continue
			}
			asked[ref] = true
			if open == nil {
				c.placeNotes = append(c.placeNotes, fmt.Sprintf("%s was not asked", ref))
				continue
			}
			store, err := open(ctx, ref)
			var list *oras.BundleList
			if err == nil {
				d := c.artifact.Digest
				list, err = oras.Bundles(ctx, store, d, oras.ReproductionTag(d))
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				c.placeNotes = append(c.placeNotes, fmt.Sprintf("%s could not be asked: %v", ref, err))
				continue
			}
			for _, b := range list.Bundles {
				c.add(PredicateReproduction, b.Data)
			}
		}
	}
	return nil
}

// judgeRebuilds counts the operators with a rebuild that had these bytes. Each
// counts once, by the last rebuild that it signed for.
func (v *Verifier) judgeRebuilds(r *Verdict, c *evidence, publisher string) {
	p := v.policy.Reproductions
	switch {
	case p == nil:
		r.skip(CheckReproduced, "the policy demands none")
		return
	case p.Min == 0:
		r.skip(CheckReproduced, "the policy demands 0")
		return
	}
	r.Rebuilds = make([]Rebuild, len(p.Rebuilders))
	var all []Identity
	var operator []int // of each of all
	for i, reb := range p.Rebuilders {
		r.Rebuilds[i].Operator = reb.Operator
		r.Rebuilds[i].Reason = "no statement found"
		for _, id := range reb.Identities {
			all = append(all, id)
			operator = append(operator, i)
		}
	}
	raw := make([][]byte, len(p.Rebuilders))
	for _, b := range c.rebuilds {
		s := v.trust.verify(b, all, c.now)
		if s.by == nil {
			continue // signed by nobody of the policy
		}
		at := 0
		for i := range all {
			if s.by == &all[i] {
				at = operator[i]
			}
		}
		have := &r.Rebuilds[at]
		got, reason := v.judgeRebuild(c, b, s, publisher)
		if reason != "" {
			if have.Result == "" {
				have.Reason = Printable(reason)
			}
			continue
		}
		// Times have one form, so text compares as time; at one time a failure counts.
		if have.Result != "" && (got.Finished < have.Finished || got.Finished == have.Finished && have.Result == ResultFail) {
			continue
		}
		*have = Rebuild{
			Operator: have.Operator, Result: got.Result, Obtained: got.Obtained, Finished: got.Finished,
			OS: Printable(got.Environment.OS), Arch: Printable(got.Environment.Arch), Bundle: b.digest,
		}
		raw[at] = b.raw
	}
	passed, failed := []string{}, []string{}
	for i, have := range r.Rebuilds {
		switch have.Result {
		case ResultPass:
			passed = append(passed, have.Operator)
		case ResultFail:
			failed = append(failed, have.Operator)
		}
		if raw[i] != nil {
			r.Evidence = append(slices.Clone(r.Evidence), raw[i])
		}
	}
	observed := fmt.Sprintf("%d of %d", len(passed), len(p.Rebuilders))
	if len(passed) > 0 {
		observed += ": " + strings.Join(passed, ", ")
	}
	if len(failed) > 0 {
		observed += "; other bytes at " + strings.Join(failed, ", ")
	}
	want := fmt.Sprintf("%s with these bytes", count(p.Min, "operator"))
	switch {
	case p.Block && len(failed) > 0:
		r.fail(CheckReproduced, observed, want, "a rebuild had other bytes, and the policy lets none pass over that")
	case len(passed) < p.Min:
		reason := "too few independent rebuilds"
		if len(c.placeNotes) > 0 {
			reason += ": " + strings.Join(c.placeNotes, "; ")
		}
		r.fail(CheckReproduced, observed, want, reason)
	default:
		check := Check{Name: CheckReproduced, Status: Pass, Observed: observed}
		if p.Block && len(c.placeNotes) > 0 {
			check.Reason = "there may be a failed one that was not seen: " + strings.Join(c.placeNotes, "; ")
		}
		r.set(check)
	}
}

// judgeRebuild returns what a rebuilder of the policy signed for, or why it
// does not count.
func (v *Verifier) judgeRebuild(c *evidence, p *parsed, s *signed, publisher string) (*Reproduction, string) {
	if !s.ok() {
		return nil, fmt.Sprintf("%s: %s", s.failed, s.reason)
	}
	if s.owner != "" && s.owner == publisher {
		return nil, fmt.Sprintf("signed from a repository of %s, as the release was: nobody rebuilds for themselves", s.owner)
	}
	statement, err := DecodeStatement(p.payload)
	if err != nil {
		return nil, err.Error()
	}
	got, err := statement.Reproduction()
	if err != nil {
		return nil, err.Error()
	}
	rel := &c.artifact.Release
	recipe, err := canon.Canonicalize(rel.Recipe)
	switch {
	case err != nil:
		return nil, err.Error()
	case got.Manifest != c.artifact.Digest:
		return nil, "about another release: " + got.Manifest.String()
	case got.Product != rel.Product || got.Release != rel.Number:
		return nil, fmt.Sprintf("speaks of %s release %d", got.Product, got.Release)
	case got.Dataset != rel.Dataset:
		return nil, "rebuilt from another dataset: " + got.Dataset.String()
	case got.Recipe != canon.Sum(recipe):
		return nil, "rebuilt by another recipe: " + got.Recipe.String()
	case v.policy.Trainers != nil && !slices.ContainsFunc(v.policy.Trainers, got.Trainer.Matches):
		return nil, "rebuilt with a trainer that the policy does not name: " + got.Trainer.String()
	}
	return got, ""
}
