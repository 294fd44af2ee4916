package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/battle-hardened-ai/bhtrain/oras"
)

// findDatasetStatements gathers what the store has about the artifact that
// carries the release's dataset: at its tag, then among its referrers.
func (v *Verifier) findDatasetStatements(ctx context.Context, store oras.Store, c *evidence) error {
	dataset := c.artifact.Release.Dataset
	d, err := store.Resolve(ctx, oras.DatasetTag(dataset))
	switch {
	case errors.Is(err, oras.ErrNotFound):
		c.datasetNotes = append(c.datasetNotes, fmt.Sprintf("the store has no dataset at tag %s", oras.DatasetTag(dataset)))
		return nil
	case errors.Is(err, oras.ErrInvalid):
		c.datasetNotes = append(c.datasetNotes, err.Error())
		return nil
	case err != nil:
		return err
	}
	list, err := oras.Bundles(ctx, store, d.Digest, oras.DatasetStatementTag(d.Digest))
	if err != nil {
		return err
	}
	for _, b := range list.Bundles {
		c.add(PredicateDataset, b.Data)
	}
	if !list.Complete {
		c.datasetNotes = append(c.datasetNotes, "there may be more about the dataset in the store than could be read")
	}
	if len(list.Damaged) > 0 {
		c.datasetNotes = append(c.datasetNotes, "a statement about the dataset is damaged: "+list.Damaged[0])
	}
	return nil
}

// judgeDataset looks for one dataset statement that meets all demands.
func (v *Verifier) judgeDataset(r *Verdict, c *evidence) {
	publishers := v.policy.Datasets.Publishers
	if len(publishers) == 0 {
		r.skip(CheckDatasetBy, "the policy names no dataset publishers")
		r.skip(CheckDatasetSaid, "the policy names no dataset publishers")
		return
	}
	want := "a dataset/v1 signed by " + names(publishers)
	if len(c.datasets) == 0 {
		reason := "the dataset is unsigned, or its signature is not in the store"
		if len(c.datasetNotes) > 0 {
			reason += ": " + c.datasetNotes[0]
		}
		r.fail(CheckDatasetBy, "no statement about the dataset", want, reason)
		return
	}
	// The first that passes; else the one that got furthest, the first of these.
	reached := -1
	for _, p := range c.datasets {
		by, said := v.judgeClaim(c, p, want)
		got := 0
		if by.Status == Pass {
			got = 1
		}
		if said.Status == Pass {
			got = 2
		}
		if got > reached {
			reached = got
			r.set(by)
			r.set(said)
		}
		if got == 2 {
			r.Evidence = append(slices.Clone(r.Evidence), p.raw)
			return
		}
	}
}

func (v *Verifier) judgeClaim(c *evidence, p *parsed, want string) (by, said Check) {
	by = Check{Name: CheckDatasetBy, Status: Fail, Expected: want}
	said = Check{Name: CheckDatasetSaid, Status: Skip, Reason: "not reached"}
	s := v.trust.verify(p, v.policy.Datasets.Publishers, c.now)
	if !s.ok() {
		by.Observed, by.Reason = s.observed, fmt.Sprintf("%s: %s", s.failed, s.reason)
		return by, said
	}
	by = Check{Name: CheckDatasetBy, Status: Pass, Observed: s.by.String()}
	said = Check{Name: CheckDatasetSaid, Status: Fail, Expected: c.artifact.Release.Dataset.String()}
	statement, err := DecodeStatement(p.payload)
	if err != nil {
		said.Reason = err.Error()
		return by, said
	}
	claim, err := statement.DatasetClaim()
	switch {
	case err != nil:
		said.Reason = err.Error()
	case claim.Dataset != c.artifact.Release.Dataset:
		said.Observed, said.Reason = claim.Dataset.String(), "the statement is about another dataset"
	default:
		rows := int64(0)
		for _, t := range claim.Tables {
			rows += t.Rows
		}
		said = Check{Name: CheckDatasetSaid, Status: Pass, Observed: fmt.Sprintf("%s, %d rows of %s, addresses %s", claim.Dataset, rows, count(len(claim.Inputs), "input"), claim.Address)}
	}
	return by, said
}
