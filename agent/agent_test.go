package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// operator is a publisher and an agent that trusts it.
type operator struct {
	t      *testing.T
	signer *sign.Signer
	*verify.Verifier
	*Agent
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	if testing.Short() {
		t.Skip("trains")
	}
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	o := &operator{t: t, Agent: Open(filepath.Join(t.TempDir(), "state"))}
	var err error
	if o.signer, err = sign.DefaultKey(""); err != nil {
		t.Fatal(err)
	}
	o.Verifier, err = verify.New(verify.Policy{
		Product: verify.DefaultProduct, Publishers: []verify.Identity{{Name: "me", Key: o.signer.Key()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// publish makes a signed release of the sample.
func (o *operator) publish(number int64) oras.Ref {
	o.t.Helper()
	dir := filepath.Join(o.t.TempDir(), "dist")
	_, err := pipeline.Run(context.Background(), pipeline.Plan{
		Privacy: record.Privacy{Redaction: record.Redaction}, Recipe: trainer.DefaultRecipe(),
		Product: verify.DefaultProduct, Release: number, Out: dir, Signer: o.signer,
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return oras.Ref{Layout: dir}
}

// resign publishes what change makes of a release, signed by the same key.
func (o *operator) resign(from oras.Ref, change func(*oras.Release, []oras.File)) oras.Ref {
	o.t.Helper()
	ctx := context.Background()
	must := func(err error) {
		o.t.Helper()
		if err != nil {
			o.t.Fatal(err)
		}
	}
	src, err := oras.Open(ctx, from, oras.Options{})
	must(err)
	d, err := src.Resolve(ctx, oras.TagLatest)
	must(err)
	a, err := oras.Pull(ctx, src, d.Digest)
	must(err)
	change(&a.Release, a.Models)
	b, err := oras.Pack(a.Release, a.Models)
	must(err)
	var p verify.Provenance
	p.BuildDefinition = verify.BuildDefinition{
		BuildType:            verify.BuildTypeTrain,
		ExternalParameters:   verify.Parameters{Product: b.Release.Product, Release: b.Release.Number, Recipe: b.Release.Recipe},
		ResolvedDependencies: []verify.Resource{{Name: verify.DependencyDataset, Digest: verify.Digests(b.Release.Dataset)}},
	}
	p.RunDetails.Builder.ID = pipeline.LocalBuilder
	st, err := verify.NewProvenance(b.Release.Product, b.Digest, p)
	must(err)
	bundle, err := o.signer.Sign(ctx, st)
	must(err)
	to := oras.Ref{Layout: filepath.Join(o.t.TempDir(), "dist")}
	dst, err := oras.Open(ctx, to, oras.Options{Write: true})
	must(err)
	must(oras.Push(ctx, dst, b))
	_, err = oras.AttachBundle(ctx, dst, b.Descriptor(), bundle, verify.PredicateProvenance, oras.ProvenanceTag(b.Digest), time.Time{})
	must(err)
	must(dst.Tag(ctx, oras.TagLatest, b.Descriptor()))
	return to
}

func (o *operator) sync(from oras.Ref) (*Synced, error) {
	return o.Sync(context.Background(), from, oras.Options{}, o.Verifier, "policy.yaml", time.Now())
}

func (o *operator) mustSync(from oras.Ref) *Synced {
	o.t.Helper()
	s, err := o.sync(from)
	if err != nil {
		o.t.Fatal(err)
	}
	return s
}

// live is the number of the release that would be loaded now, 0 for none.
func (o *operator) live() int64 {
	o.t.Helper()
	in, err := o.Status(context.Background(), o.Verifier, time.Now())
	if errors.Is(err, ErrNothing) {
		return 0
	}
	if err != nil || !in.Verdict.Pass() {
		o.t.Fatalf("status: %v, %+v", err, in)
	}
	return in.Verdict.Number
}

func TestInterruptedSyncKeepsTheLiveRelease(t *testing.T) {
	o := newOperator(t)
	from := o.publish(3)
	o.mustSync(from)

	store, err := oras.Open(context.Background(), from, oras.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := store.Resolve(context.Background(), oras.TagLatest)
	if err != nil {
		t.Fatal(err)
	}
	verdict, release, err := o.Release(context.Background(), store, d.Digest, time.Now(), verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // after the pull, before what is installed was looked at
	if err := o.install(ctx, release, verdict, o.Verifier, nil, time.Now()); err != nil && !errors.Is(err, context.Canceled) || errors.Is(err, ErrCorrupt) {
		t.Errorf("interrupted: %v", err)
	}
	if n := o.live(); n != 3 {
		t.Errorf("live is %d", n)
	}
}

func TestSignedReleaseThatCannotBeScoredIsRefused(t *testing.T) {
	o := newOperator(t)
	good := o.publish(3)
	o.mustSync(good)
	for name, change := range map[string]func(*oras.Release, []oras.File){
		"features of another program": func(r *oras.Release, _ []oras.File) { r.Features = jsontext.Value(`{"schema":99}`) },
		"scoring of other models":     func(r *oras.Release, _ []oras.File) { r.Scoring = jsontext.Value(`{}`) },
		"a file that is no model":     func(_ *oras.Release, m []oras.File) { m[2].Data = []byte("\x80\x04\x95") },
	} {
		s, err := o.sync(o.resign(good, func(r *oras.Release, m []oras.File) {
			r.Number = 4
			change(r, m)
		}))
		if !errors.Is(err, ErrRefused) || s == nil || !s.Verdict.Pass() {
			t.Errorf("%s: %v, %+v", name, err, s)
		}
		if n := o.live(); n != 3 {
			t.Errorf("%s: live is %d", name, n)
		}
	}
	// The negative twin: signed anew and unchanged it is installed.
	o.mustSync(o.resign(good, func(r *oras.Release, _ []oras.File) { r.Number = 4 }))
	if n := o.live(); n != 4 {
		t.Errorf("live is %d", n)
	}
}

func TestSyncClearsWhatAKilledOneLeft(t *testing.T) {
	o := newOperator(t)
	o.mustSync(o.publish(3))
	temps := []string{
		filepath.Join(o.dir, ".state.json.tmp-abc"),
		filepath.Join(o.dir, "releases", ".0123.tmp-abc", "blobs"),
	}
	for _, dir := range temps {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	o.mustSync(o.publish(4))
	for _, dir := range temps {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
	if n := o.live(); n != 4 {
		t.Errorf("live is %d", n)
	}
}

func TestReleaseThatCannotBeReadBarsRollbackWithoutAState(t *testing.T) {
	o := newOperator(t)
	older := o.publish(2)
	s := o.mustSync(o.publish(3))
	if err := os.Remove(o.statePath()); err != nil {
		t.Fatal(err)
	}
	// Reading fails, and not because something is missing or wrong.
	blobs := filepath.Join(o.slot(s.Release), "blobs")
	if err := os.Rename(blobs, blobs+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("blobs", blobs); err != nil {
		t.Skip(err)
	}
	if _, err := o.sync(older); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("an older release: %v", err)
	}
	if n := o.live(); n != 0 {
		t.Errorf("live is %d", n)
	}
	if err := os.Remove(blobs); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(blobs+".away", blobs); err != nil {
		t.Fatal(err)
	}
	if _, err := o.sync(older); !errors.Is(err, ErrRefused) {
		t.Errorf("an older release, the newer one readable again: %v", err)
	}
}

// TestConcurrentSyncsEndWithTheNewest lets agents race: as they are in several
// processes, each has an Agent of its own.
func TestConcurrentSyncsEndWithTheNewest(t *testing.T) {
	o := newOperator(t)
	refs := []oras.Ref{o.publish(2), o.publish(3), o.publish(4)}
	errs := make([]error, 3*len(refs))
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = Open(o.dir).Sync(context.Background(), refs[i%len(refs)], oras.Options{}, o.Verifier, "policy.yaml", time.Now())
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil && (!errors.Is(err, ErrRefused) || i%len(refs) == len(refs)-1) {
			t.Errorf("sync %d of release %d: %v", i, i%len(refs)+2, err)
		}
	}
	if n := o.live(); n != 4 {
		t.Errorf("live is %d", n)
	}
}
