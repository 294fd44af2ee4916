package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

var update = flag.Bool("update", false, "rewrite golden files")

func samplePlan(t *testing.T) Plan {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	p := Plan{
		Privacy: record.Privacy{Address: record.Full, Redaction: record.Redaction},
		Recipe:  trainer.DefaultRecipe(),
		Product: verify.DefaultProduct,
		Release: 1,
		Out:     filepath.Join(t.TempDir(), "dist"),
	}
	var err error
	if p.Signer, err = sign.DefaultKey(p.Out); err != nil {
		t.Fatal(err)
	}
	return p
}

// golden is what the embedded sample and the default recipe give, everywhere.
type golden struct {
	Algorithm int                     `json:"algorithm"`
	Dataset   canon.Digest            `json:"dataset"`
	Release   canon.Digest            `json:"release"`
	Files     map[string]canon.Digest `json:"files"`
}

func TestSampleGivesTheGoldenRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("trains three times")
	}
	const path = "testdata/golden.json"
	for _, workers := range []int{1, 2, 5} {
		p := samplePlan(t)
		p.Workers = workers
		r, err := Run(context.Background(), p)
		if err != nil {
			t.Fatal(err)
		}
		got := golden{Algorithm: trainer.Algorithm, Dataset: r.Dataset, Release: r.Release, Files: map[string]canon.Digest{}}
		for _, f := range r.Files {
			got.Files[f.Name] = f.Digest
		}
		text, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, '\n')
		if *update && workers == 1 {
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(text) != string(want) {
			t.Errorf("with %d workers:\n%swant\n%sIf the change is meant, raise trainer.Algorithm, say why in CHANGELOG.md, and run with -update.", workers, text, want)
		}
	}
}

func TestRunPutsAllOrNothingInPlace(t *testing.T) {
	if testing.Short() {
		t.Skip("trains")
	}
	ctx := context.Background()
	p := samplePlan(t)
	first, err := Run(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	if first.Existing || !first.Verdict.Pass() || first.Verdict.Release != first.Release {
		t.Fatalf("first run: %+v", first)
	}
	again, err := Run(ctx, p)
	if err != nil || !again.Existing || again.Release != first.Release {
		t.Errorf("the same run again: %v, %+v", err, again)
	}

	before := listing(t, p.Out)
	other := p
	other.Recipe.Seed++
	if _, err := Run(ctx, other); !errors.Is(err, ErrOutput) {
		t.Errorf("another release into the same directory: %v, want ErrOutput", err)
	}
	stranger := samplePlan(t) // another key
	stranger.Out = p.Out
	if r, err := Run(ctx, stranger); !errors.Is(err, ErrOwnResult) || r.Verdict.Pass() {
		t.Errorf("a release that is there, signed by somebody else: %v", err)
	}
	if after := listing(t, p.Out); !slices.Equal(before, after) {
		t.Errorf("refused runs changed the directory: %v, then %v", before, after)
	}

	canceled, cancel := context.WithCancel(ctx)
	fresh := p
	fresh.Out = filepath.Join(t.TempDir(), "dist")
	fresh.Progress = func(stage string, _, _ int64) {
		if stage != "read" { // well into training
			cancel()
		}
	}
	if _, err := Run(canceled, fresh); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled run: %v", err)
	}
	if left := listing(t, filepath.Dir(fresh.Out)); len(left) != 0 {
		t.Errorf("a canceled run left %v", left)
	}
}

func TestRunRefusesBeforeItTrains(t *testing.T) {
	p := samplePlan(t)
	p.Progress = func(stage string, _, _ int64) { t.Errorf("started %s", stage) }

	full := p
	full.Out = t.TempDir()
	if err := os.WriteFile(filepath.Join(full.Out, "mine"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), full); !errors.Is(err, ErrOutput) {
		t.Errorf("an output directory with something else: %v", err)
	}
	if runtime.GOOS == "linux" {
		nowhere := p
		nowhere.Out = "/proc/bhtrain/dist" // nobody can make a directory there
		if _, err := Run(context.Background(), nowhere); err == nil || !strings.Contains(err.Error(), "--out") {
			t.Errorf("an output directory that cannot be made: %v", err)
		}
	}
	bad := p
	bad.Recipe.WindowDays = 0
	if _, err := Run(context.Background(), bad); !errors.Is(err, trainer.ErrRecipe) {
		t.Errorf("a recipe out of bounds: %v", err)
	}
	inside := p
	inside.Out = filepath.Dir(filepath.Dir(p.Signer.Path()))
	if _, err := Run(context.Background(), inside); !errors.Is(err, sign.ErrKey) {
		t.Errorf("a key inside the output: %v", err)
	}
}

func TestProvenanceSaysWhatWentIn(t *testing.T) {
	if testing.Short() {
		t.Skip("trains")
	}
	ctx := context.Background()
	p := samplePlan(t)
	p.Builder = Builder{ID: "https://example.org/builder", Version: "v1.2.3", Commit: strings.Repeat("a", 40), Digest: "h1:x=", Go: "go1.26.8", Invocation: "https://example.org/runs/7"}
	r, err := Run(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	store, err := oras.Open(ctx, oras.Ref{Layout: p.Out}, oras.Options{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := oras.Bundles(ctx, store, r.Release, oras.ProvenanceTag(r.Release))
	if err != nil || len(list.Bundles) != 1 || list.Bundles[0].Tag == "" {
		t.Fatalf("bundles: %v, %+v", err, list)
	}
	var envelope struct {
		DSSE struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(list.Bundles[0].Data, &envelope); err != nil {
		t.Fatal(err)
	}
	st, err := verify.DecodeStatement(envelope.DSSE.Payload)
	if err != nil {
		t.Fatal(err)
	}
	prov, err := st.Provenance()
	if err != nil {
		t.Fatal(err)
	}
	if !st.Names(r.Release) || prov.Dependency(verify.DependencyDataset).SHA256() != r.Dataset ||
		prov.Dependency(verify.DependencyArtifact).SHA256() != r.Artifact ||
		prov.Dependency(verify.DependencySource).Digest["gitCommit"] != p.Builder.Commit ||
		prov.Dependency(verify.DependencyGo).Annotations["version"] != p.Builder.Go ||
		prov.Dependency(verify.DependencyModules).SHA256().IsZero() ||
		prov.Trainer() != (verify.Trainer{Version: "v1.2.3", H1: "h1:x=", Commit: p.Builder.Commit}) ||
		prov.RunDetails.Metadata.InvocationID != p.Builder.Invocation ||
		prov.RunDetails.Builder.ID != p.Builder.ID {
		t.Errorf("provenance: %+v", prov)
	}
	if len(prov.RunDetails.Byproducts) != len(r.Documents) || len(r.Documents) == 0 {
		t.Errorf("byproducts %+v, documents %+v", prov.RunDetails.Byproducts, r.Documents)
	}
	for i, f := range r.Documents {
		if b := prov.RunDetails.Byproducts[i]; b.Name != f.Name || b.SHA256() != f.Digest {
			t.Errorf("byproduct %+v is not %+v", b, f)
		}
	}
	for _, in := range r.Inputs.Inputs {
		name := verify.DependencyInput + filepath.Base(in.Path)
		if !slices.ContainsFunc(prov.BuildDefinition.ResolvedDependencies, func(d verify.Resource) bool {
			return d.Name == name && d.SHA256() == in.Digest
		}) {
			t.Errorf("provenance does not name the input %s", name)
		}
	}
}

func TestPushKeepsDigestAndStatements(t *testing.T) {
	if testing.Short() {
		t.Skip("trains")
	}
	ctx := context.Background()
	p := samplePlan(t)
	r, err := Run(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	to := oras.Ref{Layout: filepath.Join(t.TempDir(), "mirror"), Tag: "stable"}
	pushed, err := Push(ctx, oras.Ref{Layout: p.Out}, to, oras.Options{})
	if err != nil || pushed.Digest != r.Release || pushed.Referrers == 0 {
		t.Fatalf("push: %v, %+v", err, pushed)
	}
	store, err := oras.Open(ctx, to, oras.Options{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := verify.New(verify.Policy{Product: p.Product, Publishers: []verify.Identity{{Name: "me", Key: p.Signer.Key()}}})
	if err != nil {
		t.Fatal(err)
	}
	if verdict, _, err := v.Release(ctx, store, r.Release, time.Now(), verify.Options{}); err != nil || !verdict.Pass() {
		t.Errorf("the pushed release: %v, %+v", err, verdict)
	}
	// "latest" never goes back by itself.
	place := oras.Ref{Layout: filepath.Join(t.TempDir(), "latest")}
	for _, step := range []struct {
		number, want int64
		tag          string
	}{{5, 5, ""}, {3, 5, ""}, {7, 7, ""}, {4, 4, oras.TagLatest}} {
		next := p
		next.Out, next.Release = filepath.Join(t.TempDir(), "dist"), step.number
		if _, err := Run(ctx, next); err != nil {
			t.Fatal(err)
		}
		place.Tag = step.tag
		if _, err := Push(ctx, oras.Ref{Layout: next.Out}, place, oras.Options{}); err != nil {
			t.Fatal(err)
		}
		s, err := oras.Open(ctx, place, oras.Options{})
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.Resolve(ctx, oras.TagLatest)
		if err != nil {
			t.Fatal(err)
		}
		a, err := oras.Pull(ctx, s, d.Digest)
		if err != nil || a.Release.Number != step.want {
			t.Errorf("after release %d with tag %q latest is %d, want %d (%v)", step.number, step.tag, a.Release.Number, step.want, err)
		}
	}

	// The tag of one release is never given to another.
	place.Tag = oras.ReleaseTag(5)
	if _, err := Push(ctx, oras.Ref{Layout: p.Out}, place, oras.Options{}); !errors.Is(err, oras.ErrExists) {
		t.Errorf("release 1 pushed as %s: %v", place.Tag, err)
	}

	// A release whose provenance cannot be copied is not made the latest.
	broken := p
	broken.Out, broken.Release = filepath.Join(t.TempDir(), "broken"), 9
	b, err := Run(ctx, broken)
	if err != nil {
		t.Fatal(err)
	}
	bs, err := oras.Open(ctx, oras.Ref{Layout: broken.Out}, oras.Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	list, err := oras.Bundles(ctx, bs, b.Release, oras.ProvenanceTag(b.Release))
	if err != nil || len(list.Bundles) != 1 {
		t.Fatalf("%v, %+v", err, list)
	}
	blob := filepath.Join(broken.Out, "blobs", "sha256", canon.Sum(list.Bundles[0].Data).Hex())
	if err := os.WriteFile(blob, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	place.Tag = ""
	if _, err := Push(ctx, oras.Ref{Layout: broken.Out}, place, oras.Options{}); err == nil {
		t.Error("pushed a release without the provenance that its tag names")
	}

	wrong := to
	wrong.Digest = canon.Sum(nil)
	if _, err := Push(ctx, oras.Ref{Layout: p.Out}, wrong, oras.Options{}); err == nil {
		t.Error("pushed under a digest that is not the release's")
	}
}

func TestSnapshotReportsBadRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad.jsonl")
	if err := os.WriteFile(path, []byte("{}\n{]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := Plan{Inputs: []dataset.Input{{Source: "attacks", Path: path}}}
	dir := filepath.Join(t.TempDir(), "snapshot")
	r, err := Snapshot(context.Background(), p, dir)
	if !errors.Is(err, dataset.ErrTooManyBad) || r == nil || len(r.Inputs) != 1 || len(r.Inputs[0].Report.Bad) != 2 {
		t.Errorf("%v, %+v", err, r)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused snapshot left %s: %v", dir, err)
	}
}

// listing is the names and sizes of all files below dir.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
