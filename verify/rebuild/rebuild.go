// Package rebuild checks a release by making it again: it fetches the release
// and its dataset by digest, proves the dataset, trains with the recipe of the
// release, packs the result and compares every digest. Whose word the release
// comes from plays no part in that; a policy, if given, is judged first.
package rebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// ErrRefused: the policy does not allow the release, so nothing was built.
var ErrRefused = errors.New("refused by the policy")

// Options say how to rebuild. None of them changes a byte.
type Options struct {
	// Verifier judges the release before anything is built. Without one the
	// release is only compared, and the Report says that trust was not judged.
	Verifier *verify.Verifier
	Now      time.Time // for the Verifier
	Workers  int       // 0 is one per CPU
	TempDir  string    // where the dataset is put meanwhile; "" is os.TempDir
	// Progress, if not nil, is told how far each stage is. A total of 0 is not known.
	Progress func(stage string, done, total int64)
}

// Report is what a rebuild found.
type Report struct {
	Format     int             `json:"format"`     // 1
	Reproduced bool            `json:"reproduced"` // Rebuilt equals Release
	Release    canon.Digest    `json:"release"`    // manifest digest that was asked for
	Rebuilt    canon.Digest    `json:"rebuilt"`    // manifest digest that came out; "" when no release did
	Product    string          `json:"product"`
	Number     int64           `json:"number"`
	Dataset    canon.Digest    `json:"dataset"`
	Verdict    *verify.Verdict `json:"verdict"` // null when there was no policy
	Files      []File          `json:"files"`   // empty when no release came out
	Causes     []string        `json:"causes"`  // what differs, in sentences; empty when reproduced
}

// File compares one file of the release.
type File struct {
	Name    string       `json:"name"`
	Release canon.Digest `json:"release"`
	Rebuilt canon.Digest `json:"rebuilt"`
	Equal   bool         `json:"equal"`
}

// Reproduce rebuilds the release in store whose manifest has the given digest.
//
// A difference is a finding: it stands in the Report, and the error is nil. So
// is a dataset that the recipe makes no models of at all. ErrRefused comes with
// a Report that holds the verdict. A release or dataset that breaks a rule of
// its format, or is not what its digest says, is oras.ErrInvalid; a recipe that
// this program cannot follow, because it has another algorithm, is
// trainer.ErrRecipe.
func Reproduce(ctx context.Context, store oras.Store, digest canon.Digest, opt Options) (*Report, error) {
	r := &Report{Format: 1, Release: digest, Files: []File{}, Causes: []string{}}
	release, err := fetch(ctx, store, r, opt)
	if err != nil {
		return r, err
	}
	rel := release.Release
	r.Product, r.Number, r.Dataset = rel.Product, rel.Number, rel.Dataset
	recipe, err := trainer.DecodeRecipe(rel.Recipe)
	if err != nil {
		return nil, fmt.Errorf("release %s: %w", digest, err)
	}

	work, err := os.MkdirTemp(opt.TempDir, "bhverify-rebuild-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	dir := filepath.Join(work, "snapshot")
	if _, err := oras.PullDataset(ctx, store, oras.DatasetTag(rel.Dataset), dir); errors.Is(err, oras.ErrNotFound) {
		return nil, fmt.Errorf("%w: the dataset is not beside the release: 'bhtrain push' copies it along, other tools (crane copy, oras copy) do not; push it here from where it was published, or rebuild there", err)
	} else if err != nil {
		return nil, err
	}
	// Training reads the rows in canonical order and checks them against the
	// Merkle roots; Check proves the rest, with code that did not write it.
	if _, err := dataset.Check(ctx, dir); errors.Is(err, dataset.ErrCorrupt) {
		return nil, fmt.Errorf("%w: dataset %s: %w", oras.ErrInvalid, rel.Dataset, err)
	} else if err != nil {
		return nil, err
	}
	snapshot, err := dataset.Open(dir)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	if snapshot.Digest() != rel.Dataset {
		return nil, fmt.Errorf("%w: dataset %s was asked for, the snapshot is %s", oras.ErrInvalid, rel.Dataset, snapshot.Digest())
	}
	res, err := trainer.Train(ctx, snapshot, recipe, trainer.Options{Workers: opt.Workers, Progress: opt.Progress})
	if errors.Is(err, trainer.ErrTooFew) {
		r.Causes = append(r.Causes, fmt.Sprintf("no models follow from the dataset and the recipe that the release names: %v", err))
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	models := make([]oras.File, len(res.Files))
	for i, f := range res.Files {
		models[i] = oras.File(f)
	}
	rebuilt, err := oras.Pack(oras.Release{
		Product: rel.Product, Number: rel.Number, Dataset: snapshot.Digest(),
		Recipe: res.Recipe, Features: res.Features, Scoring: res.Scoring, Metrics: res.Metrics,
	}, models)
	if err != nil {
		return nil, err
	}
	r.compare(release, rebuilt)
	return r, nil
}

// fetch returns the release, judged first if there is a policy.
func fetch(ctx context.Context, store oras.Store, r *Report, opt Options) (*oras.Artifact, error) {
	if opt.Verifier == nil {
		return oras.Pull(ctx, store, r.Release)
	}
	verdict, release, err := opt.Verifier.Release(ctx, store, r.Release, opt.Now, verify.Options{})
	if err != nil {
		return nil, err
	}
	r.Verdict = verdict
	if release == nil || !verdict.Pass() {
		return nil, ErrRefused
	}
	return release, nil
}

func (r *Report) compare(release, rebuilt *oras.Artifact) {
	r.Rebuilt = rebuilt.Digest
	r.Reproduced = release.Digest == rebuilt.Digest
	for i, f := range release.Models {
		g := rebuilt.Models[i]
		r.Files = append(r.Files, File{f.Name, canon.Sum(f.Data), canon.Sum(g.Data), bytes.Equal(f.Data, g.Data)})
		if !bytes.Equal(f.Data, g.Data) {
			r.Causes = append(r.Causes, fmt.Sprintf("%s: the models differ (%d bytes in the release, %d rebuilt)", f.Name, len(f.Data), len(g.Data)))
		}
	}
	same := bytes.Equal(release.ReleaseJSON, rebuilt.ReleaseJSON)
	r.Files = append(r.Files, File{oras.ReleaseFile, canon.Sum(release.ReleaseJSON), canon.Sum(rebuilt.ReleaseJSON), same})
	for _, s := range []struct {
		name      string
		want, got jsontext.Value
	}{
		{"recipe", release.Release.Recipe, rebuilt.Release.Recipe},
		{"features", release.Release.Features, rebuilt.Release.Features},
		{"scoring", release.Release.Scoring, rebuilt.Release.Scoring},
		{"metrics", release.Release.Metrics, rebuilt.Release.Metrics},
	} {
		if !bytes.Equal(s.want, s.got) {
			r.Causes = append(r.Causes, fmt.Sprintf("%s: section %q differs", oras.ReleaseFile, s.name))
		}
	}
	if !r.Reproduced {
		r.Causes = append(r.Causes, "these models do not follow from the dataset and the recipe that the release names: it was trained with another recipe, on other rows, or by another program")
	}
}
