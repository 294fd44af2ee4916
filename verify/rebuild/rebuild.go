// Package rebuild checks a release by making it again: it fetches the release
// and its dataset by digest, proves the dataset, trains with the recipe of the
// release, packs the result and compares every digest; where bytes differ it
// says which, and why they are likely to. Whose word the release comes from plays
// no part in that; a policy, if given, is judged first.
package rebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
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
	// Channel is what the Verifier found of the policy's channel; nil has it read here.
	Channel *verify.ChannelVerdict
	// Open opens the places where the policy says that rebuilders keep statements; may be nil.
	Open    func(context.Context, oras.Ref) (oras.Store, error)
	Workers int    // 0 is one per CPU
	TempDir string // where the dataset is put meanwhile; "" is os.TempDir
	// Keep, if not "", is a directory that does not exist or is empty: the dataset
	// stays there as "snapshot", what was rebuilt as "release", an OCI layout.
	Keep string
	// Inputs, if any, are raw files: the snapshot is made from them and compared too.
	Inputs     []dataset.Input
	AddressKey []byte  // of Inputs, if the dataset holds keyed hashes of addresses
	Program    Program // that runs, for the report
	// Attest keeps what Attest and Transcript need. With it a build that could not
	// sign for what it finds is ErrAttest, and one that the policy does not name
	// among its trainers ErrRefused, before anything is built.
	Attest bool
	// Transcripts holds the statements of the policy's rebuilders against this rebuild.
	Transcripts bool
	// Progress, if not nil, is told how far each stage is. A total of 0 is not known.
	Progress func(stage string, done, total int64)
}

// Program is a trainer and where it ran. What is not known is "".
type Program struct {
	Trainer verify.Trainer `json:"trainer"`
	Go      string         `json:"go"`   // toolchain, such as go1.26.8
	OS      string         `json:"os"`   // as GOOS; "" of a program that a statement speaks about
	Arch    string         `json:"arch"` // as GOARCH
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
	r := &Report{Format: 1, Release: digest, Program: opt.Program, Files: []File{}, Differences: []Difference{}, Trees: []TreeDifference{}, Causes: []Cause{}}
	if opt.Attest {
		if err := mayAttest(opt); err != nil {
			return r, err
		}
	}
	release, err := fetch(ctx, store, r, opt)
	if err != nil {
		return r, err
	}
	rel := release.Release
	r.Product, r.Number, r.Dataset = rel.Product, rel.Number, rel.Dataset
	// What the publisher says of the program is a help to explain, and nothing more.
	provenance, err := said(ctx, store, r)
	if err != nil {
		return nil, err
	}
	r.recipe = canon.Sum(rel.Recipe) // which is in canonical form
	recipe, err := trainer.DecodeRecipe(rel.Recipe)
	if err != nil {
		return nil, fmt.Errorf("release %s: %w%s", digest, err, otherProgram(r))
	}

	work := opt.Keep
	if work == "" {
		if work, err = os.MkdirTemp(opt.TempDir, "bhverify-rebuild-"); err != nil {
			return nil, err
		}
		defer os.RemoveAll(work)
	} else if err := mayKeep(work); err != nil {
		return nil, err
	}
	snapshot, err := gather(ctx, store, work, rel, r, opt)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	if opt.Attest || opt.Transcripts {
		r.states = states{}
		ctx = trainer.WithWitness(ctx, func(name string, digest canon.Digest) { r.states = append(r.states, state{name, digest}) })
	}
	res, err := trainer.Train(ctx, snapshot, recipe, trainer.Options{Workers: opt.Workers, Progress: opt.Progress})
	if errors.Is(err, trainer.ErrTooFew) {
		r.Causes = append(r.Causes, Cause{Data, fmt.Sprintf("no models follow from the dataset and the recipe that the release names: %v", err)})
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
	if opt.Keep != "" {
		if err := keep(ctx, opt.Keep, rebuilt); err != nil {
			return nil, err
		}
	}
	r.compare(release, rebuilt, provenance)
	if opt.Transcripts {
		if r.Audit, err = opt.Verifier.Audit(ctx, store, digest, opt.Now, opt.Open); err != nil {
			return nil, err
		}
		r.Audit.Compare(r.Rebuilt, r.Transcript)
	}
	return r, nil
}

// tolerated are the checks that say which release is to be installed, and not
// whom to trust: somebody must be the first to rebuild, and old releases may be.
var tolerated = []string{verify.CheckReproduced, verify.CheckFreshness, verify.CheckCurrent}

// fetch returns the release, judged first if there is a policy.
func fetch(ctx context.Context, store oras.Store, r *Report, opt Options) (*oras.Artifact, error) {
	if opt.Verifier == nil {
		return oras.Pull(ctx, store, r.Release)
	}
	verdict, release, err := opt.Verifier.Release(ctx, store, r.Release, opt.Now, verify.Options{Tolerate: tolerated, Channel: opt.Channel, Open: opt.Open})
	if err != nil {
		return nil, err
	}
	r.Verdict = verdict
	if release == nil || !verdict.PassExcept(tolerated...) {
		return nil, ErrRefused
	}
	return release, nil
}

// said reads a provenance beside the release, the one that was judged if there
// was a policy, and nil if there is none. Its signature is not looked at here.
func said(ctx context.Context, store oras.Store, r *Report) (*verify.Provenance, error) {
	found, err := oras.Bundles(ctx, store, r.Release, oras.ProvenanceTag(r.Release))
	if err != nil {
		return nil, err
	}
	for _, b := range found.Bundles {
		if r.Verdict != nil && canon.Sum(b.Data) != r.Verdict.Bundle {
			continue
		}
		var envelope struct {
			DSSE struct {
				Payload []byte `json:"payload"`
			} `json:"dsseEnvelope"`
		}
		if json.Unmarshal(b.Data, &envelope) != nil {
			continue
		}
		s, err := verify.DecodeStatement(envelope.DSSE.Payload)
		if err != nil || !s.Names(r.Release) {
			continue
		}
		p, err := s.Provenance()
		if err != nil {
			continue
		}
		version, _ := p.Dependency(verify.DependencyGo).Annotations["version"].(string)
		r.Publisher = &Program{Trainer: p.Trainer(), Go: version}
		return p, nil
	}
	return nil, nil
}

// otherProgram says which program the release names, for a recipe that this one
// cannot follow.
func otherProgram(r *Report) string {
	if r.Publisher == nil || r.Publisher.Trainer == (verify.Trainer{}) {
		return ": rebuild with the version of bhverify that the release was made with"
	}
	return fmt.Sprintf(": rebuild with the version that its provenance names: %s; 'bhverify rebuild --bootstrap' builds it, if the policy allows it", verify.Printable(r.Publisher.Trainer.String()))
}

// gather returns the dataset that the release names: from the store, or made
// from the raw inputs.
func gather(ctx context.Context, store oras.Store, work string, rel oras.Release, r *Report, opt Options) (*dataset.Snapshot, error) {
	var own *dataset.Snapshot
	if len(opt.Inputs) > 0 {
		var err error
		if own, err = fromInputs(ctx, filepath.Join(work, "inputs"), rel, opt); err != nil {
			return nil, err
		}
		r.Inputs = &Inputs{Dataset: own.Digest()}
		if own.Digest() == rel.Dataset {
			return own, nil // what the store has could not be another
		}
		defer own.Close()
	}
	published, err := pull(ctx, store, filepath.Join(work, "snapshot"), rel.Dataset, opt)
	if err != nil {
		return nil, err
	}
	if own == nil {
		return published, nil
	}
	err = r.Inputs.compare(ctx, published, own)
	if err != nil {
		published.Close()
		return nil, err
	}
	r.Causes = append(r.Causes, Cause{Data, fmt.Sprintf("the dataset of the release does not follow from the inputs given here: they make dataset %s", own.Digest())})
	return published, nil
}

// fromInputs makes the snapshot of the raw files, with the privacy that the
// release states.
func fromInputs(ctx context.Context, dir string, rel oras.Release, opt Options) (*dataset.Snapshot, error) {
	var form struct {
		Address   record.AddressForm `json:"address"`
		Redaction int                `json:"redaction"`
	}
	if err := json.Unmarshal(rel.Features, &form); err != nil {
		return nil, fmt.Errorf("%w: features in release.json: %w", oras.ErrInvalid, err)
	}
	_, err := dataset.Build(ctx, dataset.Config{
		Inputs: opt.Inputs, MaxBadPPM: 1_000_000, TempDir: opt.TempDir, Progress: opt.Progress,
		Privacy: record.Privacy{Address: form.Address, Redaction: form.Redaction, Key: opt.AddressKey},
	}, dir)
	if err != nil {
		return nil, err
	}
	return dataset.Open(dir)
}

// pull fetches and proves the dataset with the given digest.
func pull(ctx context.Context, store oras.Store, dir string, digest canon.Digest, opt Options) (*dataset.Snapshot, error) {
	if opt.Progress != nil {
		opt.Progress("dataset", 0, 0)
	}
	if _, err := oras.PullDataset(ctx, store, oras.DatasetTag(digest), dir); errors.Is(err, oras.ErrNotFound) {
		return nil, fmt.Errorf("%w: the dataset is not beside the release: 'bhtrain push' copies it along, other tools (crane copy, oras copy) do not; push it here from where it was published, rebuild there, or give the raw files with --inputs", err)
	} else if err != nil {
		return nil, err
	}
	// Training reads the rows in canonical order and checks them against the
	// Merkle roots; Check proves the rest, with code that did not write it.
	if _, err := dataset.Check(ctx, dir); errors.Is(err, dataset.ErrCorrupt) {
		return nil, fmt.Errorf("%w: dataset %s: %w", oras.ErrInvalid, digest, err)
	} else if err != nil {
		return nil, err
	}
	s, err := dataset.Open(dir)
	if err != nil {
		return nil, err
	}
	if s.Digest() != digest {
		s.Close()
		return nil, fmt.Errorf("%w: dataset %s was asked for, the snapshot is %s", oras.ErrInvalid, digest, s.Digest())
	}
	return s, nil
}

// mayKeep makes the directory, or says why nothing can be kept there.
func mayKeep(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is not empty: name another directory", dir)
	}
	return err
}

// keep stores what was rebuilt in a layout of its own.
func keep(ctx context.Context, dir string, rebuilt *oras.Artifact) error {
	store, err := oras.Open(ctx, oras.Ref{Layout: filepath.Join(dir, "release")}, oras.Options{Write: true})
	if err != nil {
		return err
	}
	if err := oras.Push(ctx, store, rebuilt); err != nil {
		return err
	}
	return store.Tag(ctx, oras.TagLatest, rebuilt.Descriptor())
}

func (r *Report) compare(release, rebuilt *oras.Artifact, provenance *verify.Provenance) {
	r.Rebuilt = rebuilt.Digest
	r.Reproduced = release.Digest == rebuilt.Digest && (r.Inputs == nil || r.Inputs.Dataset == r.Dataset)
	for i, f := range release.Models {
		g := rebuilt.Models[i]
		r.Files = append(r.Files, File{f.Name, canon.Sum(f.Data), canon.Sum(g.Data), bytes.Equal(f.Data, g.Data)})
	}
	same := bytes.Equal(release.ReleaseJSON, rebuilt.ReleaseJSON)
	r.Files = append(r.Files, File{oras.ReleaseFile, canon.Sum(release.ReleaseJSON), canon.Sum(rebuilt.ReleaseJSON), same})
	if release.Digest != rebuilt.Digest {
		r.explain(release, rebuilt, provenance)
	}
}
