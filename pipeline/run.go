package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// ErrOutput: the output directory holds something else. Its message says what
// and what to do.
var ErrOutput = errors.New("output directory is taken")

// ErrOwnResult: the verifier refused what the pipeline had just made, so it was
// not put in place. The verdict in the Report says why.
var ErrOwnResult = errors.New("the finished release does not verify")

// maxInputs is how many raw files one provenance can name within the limit of a
// statement.
const maxInputs = 1000

// Plan is what a run is to do. Inputs (or Snapshot), Recipe, Product and Release
// decide the bytes of the release; the rest decides where and how.
type Plan struct {
	Inputs   []dataset.Input // raw files; without any, and without Snapshot, the embedded sample
	Snapshot string          // an existing snapshot directory instead of Inputs
	Privacy  record.Privacy
	MaxBad   int64 // parts per million of bad rows in a file; 0 is dataset.DefaultMaxBadPPM

	Recipe  trainer.Recipe
	Product string // 1 to 64 of a-z 0-9 . _ -
	Release int64  // release number, 1 or more

	Out     string       // OCI layout directory to make: all of it or nothing
	Signer  *sign.Signer // nil leaves the release unsigned and unverified
	Channel *ChannelPlan // publish this channel too; its Signer and First play no part
	Builder Builder      // who runs this, for the provenance
	Workers int          // 0 is one per CPU; never changes a byte
	TempDir string       // "" is os.TempDir

	// Progress, if not nil, is told how far each stage is. A total of 0 is not known.
	Progress func(stage string, done, total int64)
}

// Stage is one finished part of a run.
type Stage struct {
	Name     string        `json:"name"`
	Duration time.Duration `json:"-"`
	Seconds  float64       `json:"seconds"`
}

// Report says what a run made.
type Report struct {
	Out       string               `json:"out"`
	Existing  bool                 `json:"existing"` // Out already held this very release; it was verified and left alone
	Release   canon.Digest         `json:"release"`  // manifest digest
	Product   string               `json:"product"`
	Number    int64                `json:"number"`
	Dataset   canon.Digest         `json:"dataset"`
	Artifact  canon.Digest         `json:"dataset_artifact"` // manifest digest of the dataset's OCI artifact
	Files     []FileSize           `json:"files"`
	Documents []FileSize           `json:"documents"`        // attached to the release, the last to its dataset; none when Existing
	Inputs    *dataset.BuildReport `json:"inputs,omitempty"` // nil when an existing snapshot was used
	Training  *trainer.Summary     `json:"training"`
	Verdict   *verify.Verdict      `json:"verdict,omitempty"` // nil when unsigned
	Signer    string               `json:"signer,omitempty"`  // key or certificate identity that signed
	Channel   *ChannelReport       `json:"channel,omitempty"` // nil when none was to be published
	Stages    []Stage              `json:"stages"`

	Provenance verify.Statement `json:"-"` // what was or could be signed
}

// FileSize is one file of the release.
type FileSize struct {
	Name   string       `json:"name"`
	Digest canon.Digest `json:"digest"`
	Size   int64        `json:"size"` // bytes
}

// Run carries out p: snapshot, train, pack, sign, verify, and only then put
// Out in place. Whatever fails, Out is as it was. A directory at Out that
// already holds this very release is verified with the same key and kept; one
// that holds anything else is ErrOutput.
//
// Errors are those of the stages (dataset.ErrTooManyBad, trainer.ErrTooFew,
// sign.ErrKey, …) and ErrOwnResult, with which the Report is returned as well.
// Cancelling ctx ends Run soon and leaves nothing behind.
func Run(ctx context.Context, p Plan) (*Report, error) {
	if p.Signer != nil {
		if err := p.Signer.CheckOutside(p.Out); err != nil {
			return nil, err
		}
	}
	if err := p.Recipe.Validate(); err != nil {
		return nil, err
	}
	if err := checkOut(ctx, p.Out); err != nil {
		return nil, err
	}
	// Before the work: what cannot be written is best known early.
	stage, err := durable.Stage(durable.OS, p.Out)
	taken := errors.Is(err, durable.ErrExists)
	switch {
	case taken:
	case err != nil:
		return nil, fmt.Errorf("%w: name another directory with --out", err)
	default:
		defer stage.Discard()
	}
	work, err := os.MkdirTemp(p.TempDir, "bhtrain-run-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)

	r := &Report{Out: p.Out, Product: p.Product, Number: p.Release}
	started := time.Now()
	dir := p.Snapshot
	if dir == "" {
		dir = filepath.Join(work, "snapshot")
		err := r.stage("snapshot", func() (err error) {
			if r.Inputs, err = Snapshot(ctx, p, dir); err == nil && p.Signer != nil && len(r.Inputs.Inputs) > maxInputs {
				err = fmt.Errorf("%d input files, and a provenance names at most %d: join some of them, or make the snapshot and the release apart", len(r.Inputs.Inputs), maxInputs)
			}
			return err
		})
		if err != nil {
			return r, err
		}
	}
	var release *oras.Artifact
	err = r.stage("train", func() (err error) {
		release, err = train(ctx, p, dir, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	data, err := oras.PackDataset(dir)
	if err != nil {
		return nil, err
	}
	if data.Snapshot != r.Dataset {
		return nil, fmt.Errorf("%s: %w: changed while it was trained on", dir, dataset.ErrCorrupt)
	}
	r.Release, r.Artifact = release.Digest, data.Digest
	for _, f := range append(release.Models, oras.File{Name: oras.ReleaseFile, Data: release.ReleaseJSON}) {
		r.Files = append(r.Files, FileSize{f.Name, canon.Sum(f.Data), int64(len(f.Data))})
	}

	if taken {
		if r.Provenance, err = p.provenance(release, r, started, time.Now()); err != nil {
			return nil, err
		}
		return r, r.stage("verify", func() error { return p.existing(ctx, r) })
	}
	store, err := oras.Open(ctx, oras.Ref{Layout: stage.Path()}, oras.Options{Write: true})
	if err != nil {
		return nil, err
	}
	err = r.stage("pack", func() error {
		if _, err := oras.PushDataset(ctx, store, data); err != nil {
			return err
		}
		if err := oras.Push(ctx, store, release); err != nil {
			return err
		}
		if r.Documents, err = describe(ctx, store, release); err != nil {
			return err
		}
		return store.Tag(ctx, oras.TagLatest, release.Descriptor())
	})
	if err != nil {
		return nil, err
	}
	if r.Provenance, err = p.provenance(release, r, started, time.Now()); err != nil {
		return nil, err
	}
	if p.Signer != nil {
		var bundle []byte
		err = r.stage("sign", func() (err error) {
			if bundle, err = p.Signer.Sign(ctx, r.Provenance); err != nil {
				return err
			}
			return attach(ctx, store, release.Descriptor(), bundle, r.Provenance.PredicateType, oras.ProvenanceTag(release.Digest))
		})
		if err == nil {
			err = r.stage("verify", func() error { return p.verify(ctx, store, bundle, r) })
		}
		if err == nil && p.Channel != nil {
			err = r.stage("channel", func() error { return p.publish(ctx, store, r, true) })
		}
		if err != nil {
			return r, err
		}
	}
	if err := stage.Commit(); err != nil && !errors.Is(err, durable.ErrNotDurable) {
		return nil, err
	}
	return r, nil
}

// stage runs f and notes how long it took.
func (r *Report) stage(name string, f func() error) error {
	start := time.Now()
	err := f()
	d := time.Since(start)
	r.Stages = append(r.Stages, Stage{Name: name, Duration: d, Seconds: d.Seconds()})
	return err
}

// checkOut refuses early what cannot become the output: training takes a while.
func checkOut(ctx context.Context, out string) error {
	entries, err := os.ReadDir(out)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && len(entries) == 0:
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w: name another directory with --out", ErrOutput, err)
	}
	if _, err := oras.Open(ctx, oras.Ref{Layout: out}, oras.Options{}); err != nil {
		return fmt.Errorf("%w: %s is not empty and not a release directory: name another with --out", ErrOutput, out)
	}
	return nil
}

// Snapshot builds the snapshot of the plan's inputs, or of the embedded sample
// when there are none, in the directory dir. Errors are those of dataset.Build;
// ErrOutput when something is in dir.
func Snapshot(ctx context.Context, p Plan, dir string) (*dataset.BuildReport, error) {
	work, err := os.MkdirTemp(p.TempDir, "bhtrain-snapshot-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	inputs := p.Inputs
	if len(inputs) == 0 {
		if inputs, err = dataset.SampleInputs(work); err != nil {
			return nil, err
		}
	}
	r, err := dataset.Build(ctx, dataset.Config{
		Inputs: inputs, Privacy: p.Privacy, MaxBadPPM: p.MaxBad, TempDir: work, Progress: p.Progress,
	}, dir)
	if errors.Is(err, durable.ErrExists) {
		err = fmt.Errorf("%w: %w: name another directory with --out", ErrOutput, err)
	}
	return r, err
}

// train fits the models to the snapshot in dir and packs them.
func train(ctx context.Context, p Plan, dir string, r *Report) (*oras.Artifact, error) {
	s, err := dataset.Open(dir)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	r.Dataset = s.Digest()
	res, err := trainer.Train(ctx, s, p.Recipe, trainer.Options{Workers: p.Workers, Progress: p.Progress})
	if err != nil {
		return nil, err
	}
	r.Training = &res.Summary
	rel := oras.Release{
		Product: p.Product, Number: p.Release, Dataset: s.Digest(),
		Recipe: res.Recipe, Features: res.Features, Scoring: res.Scoring, Metrics: res.Metrics,
	}
	models := make([]oras.File, len(res.Files))
	for i, f := range res.Files {
		models[i] = oras.File(f)
	}
	return oras.Pack(rel, models)
}

// verify judges the release in the store with a policy made of whoever signed
// it just now: it finds damage, and proves nothing about trust. Without a bundle
// the signer has a key.
func (p Plan) verify(ctx context.Context, store oras.Store, bundle []byte, r *Report) error {
	policy, err := ownPolicy(p.Product, p.Signer, bundle)
	if err != nil {
		return err
	}
	r.Signer = policy.Publishers[0].String()
	v, err := verify.New(policy)
	if err != nil {
		return err
	}
	if r.Verdict, _, err = v.Release(ctx, store, r.Release, time.Now(), verify.Options{}); err != nil {
		return err
	}
	if !r.Verdict.Pass() {
		return ErrOwnResult
	}
	return nil
}

// existing judges the release that is in Out already.
func (p Plan) existing(ctx context.Context, r *Report) error {
	store, err := oras.Open(ctx, oras.Ref{Layout: p.Out}, oras.Options{Write: p.Channel != nil})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOutput, err)
	}
	have, err := store.Resolve(ctx, oras.ReleaseTag(p.Release))
	switch {
	case errors.Is(err, oras.ErrNotFound):
		return fmt.Errorf("%w: %s holds other releases but not release %d: name another directory with --out, 'bhtrain push' puts several into one", ErrOutput, p.Out, p.Release)
	case err != nil:
		return err
	case have.Digest != r.Release:
		return fmt.Errorf("%w: %s holds %s as release %d, this run made %s: name another directory with --out",
			ErrOutput, p.Out, have.Digest, p.Release, r.Release)
	}
	r.Existing = true
	if p.Signer == nil {
		return nil
	}
	if p.Signer.Keyless() {
		return fmt.Errorf("%w: %s holds this very release, and whether you signed it cannot be told without your certificate: look with 'bhverify release', add a signature with 'bhtrain sign', or name another directory with --out", ErrOutput, p.Out)
	}
	if err := p.verify(ctx, store, nil, r); err != nil || p.Channel == nil {
		return err
	}
	return p.publish(ctx, store, r, false)
}

// publish publishes the plan's channel.
func (p Plan) publish(ctx context.Context, store oras.Store, r *Report, first bool) (err error) {
	plan := *p.Channel
	plan.Signer, plan.First = p.Signer, first
	r.Channel, err = PublishChannel(ctx, store, r.Release, plan)
	return err
}
