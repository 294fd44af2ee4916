package rebuild

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// published is a store with a signed release of the embedded sample.
type published struct {
	t      *testing.T
	dir    string
	store  oras.Store
	digest canon.Digest
	key    verify.Key
	forged int64 // releases beside it, numbered from 2
}

func publish(t *testing.T) *published {
	t.Helper()
	if testing.Short() {
		t.Skip("trains")
	}
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	dir := filepath.Join(t.TempDir(), "dist")
	signer, err := sign.DefaultKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pipeline.Run(context.Background(), pipeline.Plan{
		Recipe: trainer.DefaultRecipe(), Product: "test", Release: 1, Out: dir, Signer: signer,
	})
	if err != nil {
		t.Fatal(err)
	}
	store, err := oras.Open(context.Background(), oras.Ref{Layout: dir}, oras.Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	return &published{t: t, dir: dir, store: store, digest: r.Release, key: signer.Key()}
}

// forge stores another release made of this one's parts.
func (p *published) forge(change func(*oras.Release, []oras.File)) canon.Digest {
	p.t.Helper()
	a, err := oras.Pull(context.Background(), p.store, p.digest)
	if err != nil {
		p.t.Fatal(err)
	}
	rel, models := a.Release, a.Models
	p.forged++
	rel.Number = 1 + p.forged
	change(&rel, models)
	b, err := oras.Pack(rel, models)
	if err == nil {
		err = oras.Push(context.Background(), p.store, b)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return b.Digest
}

// sign attaches a provenance of the publisher's to a release; program is what
// it says of the trainer.
func (p *published) sign(d canon.Digest, program map[string]string) {
	p.t.Helper()
	ctx := context.Background()
	a, err := oras.Pull(ctx, p.store, d)
	if err != nil {
		p.t.Fatal(err)
	}
	s, err := verify.NewProvenance("test", d, verify.Provenance{
		BuildDefinition: verify.BuildDefinition{
			BuildType:          verify.BuildTypeTrain,
			ExternalParameters: verify.Parameters{Product: a.Release.Product, Release: a.Release.Number, Recipe: a.Release.Recipe},
			ResolvedDependencies: []verify.Resource{
				{Name: verify.DependencyDataset, Digest: verify.Digests(a.Release.Dataset)},
				{Name: verify.DependencyGo, URI: "https://go.dev/dl/", Annotations: map[string]any{"version": "go1.26.9"}},
			},
		},
		RunDetails: verify.RunDetails{Builder: verify.Builder{ID: "https://example.org/builder", Version: program}},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	signer, err := sign.DefaultKey("")
	if err != nil {
		p.t.Fatal(err)
	}
	bundle, err := signer.Sign(ctx, s)
	if err == nil {
		_, err = oras.AttachBundle(ctx, p.store, a.Descriptor(), bundle, s.PredicateType, oras.ProvenanceTag(d), time.Now())
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *published) verifier(product string, key verify.Key) *verify.Verifier {
	p.t.Helper()
	v, err := verify.New(verify.Policy{Product: product, Publishers: []verify.Identity{{Name: "publisher", Key: key}}})
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

func TestReproduce(t *testing.T) {
	ctx := context.Background()
	p := publish(t)
	for _, workers := range []int{1, 3} {
		r, err := Reproduce(ctx, p.store, p.digest, Options{Workers: workers})
		if err != nil || !r.Reproduced || r.Rebuilt != p.digest || len(r.Files) != 5 || len(r.Causes) != 0 || r.Verdict != nil {
			t.Fatalf("%v, %+v", err, r)
		}
		for _, f := range r.Files {
			if !f.Equal || f.Release != f.Rebuilt {
				t.Errorf("%+v", f)
			}
		}
	}
	r, err := Reproduce(ctx, p.store, p.digest, Options{Verifier: p.verifier("test", p.key)})
	if err != nil || !r.Reproduced || !r.Verdict.Pass() {
		t.Errorf("with a policy: %v, %+v", err, r)
	}
}

func TestOtherRecipeDoesNotReproduce(t *testing.T) {
	p := publish(t)
	d := p.forge(func(r *oras.Release, _ []oras.File) {
		recipe, err := trainer.DecodeRecipe(r.Recipe)
		if err != nil {
			t.Fatal(err)
		}
		recipe.ContaminationPPM /= 2
		if r.Recipe, err = canon.Marshal(recipe); err != nil {
			t.Fatal(err)
		}
	})
	r, err := Reproduce(context.Background(), p.store, d, Options{})
	if err != nil || r.Reproduced || r.Rebuilt == d || len(r.Causes) == 0 {
		t.Fatalf("%v, %+v", err, r)
	}
	if c := r.Causes[0]; c.Kind != Recipe || !strings.Contains(c.Text, "/recipe/contamination_ppm") {
		t.Errorf("a recipe that changes the threshold: %+v", r.Causes)
	}
	for _, f := range r.Files[:4] {
		if !f.Equal {
			t.Errorf("%s: the models do not depend on the threshold", f.Name)
		}
	}
}

func TestNothingIsBuiltThatThePolicyRefuses(t *testing.T) {
	p := publish(t)
	built := func(stage string, _, _ int64) { t.Errorf("started %s", stage) }
	for name, v := range map[string]*verify.Verifier{
		"other product": p.verifier("other", p.key),
		"unsigned":      p.verifier("test", p.key),
	} {
		d := p.digest
		if name == "unsigned" {
			d = p.forge(func(r *oras.Release, _ []oras.File) {})
		}
		r, err := Reproduce(context.Background(), p.store, d, Options{Verifier: v, Progress: built})
		if !errors.Is(err, ErrRefused) || r.Verdict == nil || r.Verdict.Pass() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDatasetMustBeTheOneNamed(t *testing.T) {
	ctx := context.Background()
	p := publish(t)
	// Named, but not in the store.
	d := p.forge(func(r *oras.Release, _ []oras.File) { r.Dataset = canon.Sum([]byte("another")) })
	if _, err := Reproduce(ctx, p.store, d, Options{}); !errors.Is(err, oras.ErrNotFound) || !strings.Contains(err.Error(), "'bhtrain push' copies it along") {
		t.Errorf("a dataset that is not there: %v", err)
	}
	// There under its tag, with one byte changed.
	a, err := oras.Pull(ctx, p.store, p.digest)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "snapshot")
	if _, err := oras.PullDataset(ctx, p.store, oras.DatasetTag(a.Release.Dataset), dir); err != nil {
		t.Fatal(err)
	}
	records, err := os.ReadFile(filepath.Join(dir, "records.arrow"))
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(p.dir, "blobs", "sha256", canon.Sum(records).Hex())
	changed := bytes.Clone(records)
	changed[len(changed)/2] ^= 1
	if err := os.WriteFile(blob, changed, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Reproduce(ctx, p.store, p.digest, Options{}); !errors.Is(err, oras.ErrInvalid) {
		t.Errorf("a changed dataset: %v", err)
	}
}

func TestRecipeOfAnotherProgram(t *testing.T) {
	p := publish(t)
	d := p.forge(func(r *oras.Release, _ []oras.File) {
		var m map[string]any
		if err := json.Unmarshal(r.Recipe, &m); err != nil {
			t.Fatal(err)
		}
		m["algorithm"] = trainer.Algorithm + 1
		b, err := json.Marshal(m)
		if err == nil {
			r.Recipe, err = canon.Canonicalize(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	if _, err := Reproduce(context.Background(), p.store, d, Options{}); !errors.Is(err, trainer.ErrRecipe) || !strings.Contains(err.Error(), "algorithm") {
		t.Errorf("a recipe that this program cannot follow: %v", err)
	}
}

func TestReproduceLeavesNothingBehind(t *testing.T) {
	p := publish(t)
	temp := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	stop := func(string, int64, int64) { cancel() }
	if _, err := Reproduce(ctx, p.store, p.digest, Options{TempDir: temp, Progress: stop}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
