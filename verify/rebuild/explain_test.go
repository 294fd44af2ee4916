package rebuild

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

var pages = flag.String("pages", "", "directory to write the HTML reports of the difference tests to")

// sampleInputs are the raw files of the sample, and a record more.
func sampleInputs(t *testing.T) (inputs []dataset.Input, more dataset.Input) {
	t.Helper()
	inputs, err := dataset.SampleInputs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "more.json")
	record := `{"kind":"access","timestamp":"2025-11-03T10:00:00Z","src_ip":"192.0.2.77","protocol":"http","method":"GET","payload":"/status?x=1","attack_type":"benign"}`
	if err := os.WriteFile(path, []byte(record), 0o644); err != nil {
		t.Fatal(err)
	}
	more, err = dataset.ParseInput("attacks", path)
	if err != nil {
		t.Fatal(err)
	}
	return inputs, more
}

// lie publishes what a run with another plan made as if it came from the
// dataset and the recipe of the honest release.
func (p *published) lie(change func(*pipeline.Plan)) canon.Digest {
	p.t.Helper()
	ctx := context.Background()
	plan := pipeline.Plan{Recipe: trainer.DefaultRecipe(), Product: "test", Release: 2, Out: filepath.Join(p.t.TempDir(), "other")}
	change(&plan)
	r, err := pipeline.Run(ctx, plan)
	if err != nil {
		p.t.Fatal(err)
	}
	store, err := oras.Open(ctx, oras.Ref{Layout: plan.Out}, oras.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	other, err := oras.Pull(ctx, store, r.Release)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.forge(func(rel *oras.Release, models []oras.File) {
		copy(models, other.Models)
		rel.Features, rel.Scoring, rel.Metrics = other.Release.Features, other.Release.Scoring, other.Release.Metrics
	})
}

// explained rebuilds and returns the report, which must be written in every form.
func (p *published) explained(d canon.Digest, opt Options) *Report {
	p.t.Helper()
	r, err := Reproduce(context.Background(), p.store, d, opt)
	if err != nil {
		p.t.Fatal(err)
	}
	if r.Reproduced || len(r.Causes) == 0 {
		p.t.Fatalf("%+v", r)
	}
	var text, page bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		p.t.Fatal(err)
	}
	if err := r.WriteHTML(&page); err != nil {
		p.t.Fatal(err)
	}
	for _, part := range []string{fmt.Sprintf("NOT REPRODUCED test release %d", r.Number), string(r.Causes[0].Kind), "Trust was not judged"} {
		if !strings.Contains(text.String(), part) {
			p.t.Errorf("the text lacks %q:\n%s", part, text.String())
		}
	}
	for _, part := range []string{"Not reproduced", d.String(), "<h2>Likely cause</h2>"} {
		if !strings.Contains(page.String(), part) {
			p.t.Errorf("the page lacks %q", part)
		}
	}
	if strings.Contains(page.String(), "ZgotmplZ") || strings.Contains(page.String(), "<script") {
		p.t.Error("the page has what it must not have")
	}
	b, err := json.Marshal(r)
	if err != nil || !json.Valid(b) {
		p.t.Error(err)
	}
	p.t.Logf("%s", text.String())
	if *pages != "" {
		name := filepath.Join(*pages, strings.ReplaceAll(p.t.Name(), "/", "-")+".html")
		if err := os.WriteFile(name, page.Bytes(), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
	return r
}

func (r *Report) place(file, place string) *Difference {
	i := slices.IndexFunc(r.Differences, func(d Difference) bool { return d.File == file && strings.HasPrefix(d.Place, place) })
	if i < 0 {
		return nil
	}
	return &r.Differences[i]
}

func TestOneTrainingRow(t *testing.T) {
	p := publish(t)
	inputs, more := sampleInputs(t)
	d := p.lie(func(plan *pipeline.Plan) { plan.Inputs = append(slices.Clone(inputs), more) })
	r := p.explained(d, Options{})
	if r.Causes[0].Kind != Data || !strings.Contains(r.Causes[0].Text, "/metrics/data") {
		t.Errorf("%+v", r.Causes)
	}
	records := r.place(oras.ReleaseFile, "/metrics/data/records")
	if records == nil || records.Published != "3200" || records.Rebuilt != "3199" {
		t.Errorf("%+v", records)
	}

	// The dataset of a release holds one row more than the files that it is said
	// to be made of: with them, the row is named.
	ctx := context.Background()
	out := filepath.Join(t.TempDir(), "dist")
	run, err := pipeline.Run(ctx, pipeline.Plan{Inputs: append(slices.Clone(inputs), more), Recipe: trainer.DefaultRecipe(), Product: "test", Release: 2, Out: out})
	if err != nil {
		t.Fatal(err)
	}
	store, err := oras.Open(ctx, oras.Ref{Layout: out}, oras.Options{})
	if err != nil {
		t.Fatal(err)
	}
	q := &published{t: t, dir: out, store: store, digest: run.Release}
	r = q.explained(run.Release, Options{Inputs: inputs})
	if r.Rebuilt != r.Release || r.Causes[0].Kind != Data || len(r.Inputs.Rows) != 1 ||
		!r.Inputs.Rows[0].Published || !strings.Contains(r.Inputs.Rows[0].Text, "/status?x=1") {
		t.Errorf("%+v, %+v", r.Causes, r.Inputs)
	}
}

func TestFromTheRawFiles(t *testing.T) {
	p := publish(t)
	inputs, _ := sampleInputs(t)
	slices.Reverse(inputs)
	r, err := Reproduce(context.Background(), p.store, p.digest, Options{Inputs: inputs})
	if err != nil || !r.Reproduced || r.Inputs.Dataset != r.Dataset || r.Inputs.Difference != nil {
		t.Fatalf("%v, %+v", err, r)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil || !strings.Contains(text.String(), "✓ dataset from inputs") || !strings.Contains(text.String(), "REPRODUCED test release 1") {
		t.Errorf("%v, %s", err, text.String())
	}
	// The dataset is not needed then.
	tag := oras.DatasetTag(r.Dataset)
	if _, err := p.store.Resolve(context.Background(), tag); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(p.dir, "index.json")
	b, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(index, bytes.ReplaceAll(b, []byte(tag), []byte("gone")), 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := Reproduce(context.Background(), p.store, p.digest, Options{Inputs: inputs}); err != nil || !r.Reproduced {
		t.Errorf("without the dataset: %v", err)
	}
	if _, err := Reproduce(context.Background(), p.store, p.digest, Options{}); err == nil {
		t.Error("without dataset and inputs")
	}
}

func TestOneHyperParameter(t *testing.T) {
	p := publish(t)
	defer func() { p.t = t }()
	for name, c := range map[string]struct {
		change      func(*trainer.Recipe)
		file, cause string
	}{
		"learning rate": {func(r *trainer.Recipe) { r.Classifier.Boosting.LearningRatePPM = 240_000 }, model.ClassifierFile, "learning_rate_ppm"},
		"rounds":        {func(r *trainer.Recipe) { r.Classifier.Boosting.Rounds, r.Classifier.Boosting.Patience = 3, 3 }, model.ClassifierFile, "rounds"},
		"leaves":        {func(r *trainer.Recipe) { r.Reputation.MaxLeaves = 7 }, model.ReputationFile, "/recipe/reputation"},
		"samples":       {func(r *trainer.Recipe) { r.Anomaly.Sample = 128 }, model.AnomalyFile, "/recipe/anomaly"},
		"seed":          {func(r *trainer.Recipe) { r.Seed = 9 }, model.AnomalyFile, "/recipe/seed"},
	} {
		t.Run(name, func(t *testing.T) {
			p.t = t
			d := p.lie(func(plan *pipeline.Plan) { c.change(&plan.Recipe) })
			r := p.explained(d, Options{})
			if !slices.ContainsFunc(r.Causes, func(cause Cause) bool { return cause.Kind == Recipe && strings.Contains(cause.Text, c.cause) }) ||
				name != "seed" && len(r.Causes) != 1 {
				t.Errorf("%+v", r.Causes)
			}
			for _, f := range r.Files[:4] {
				if name != "seed" && f.Equal == (f.Name == c.file) {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

func TestOneModelByte(t *testing.T) {
	p := publish(t)
	// One leaf of one tree.
	d := p.forge(func(_ *oras.Release, models []oras.File) {
		m, err := model.Decode(models[2].Name, models[2].Data)
		if err != nil {
			t.Fatal(err)
		}
		nodes := m.Ensemble.Trees[5].Nodes
		i := slices.IndexFunc(nodes, func(n model.Node) bool { return n.Leaf && n.Value%2 != 0 })
		nodes[i].Value += 2
		if models[2].Data, err = m.Encode(); err != nil {
			t.Fatal(err)
		}
	})
	r := p.explained(d, Options{})
	if r.Causes[0].Kind != Edited || !strings.Contains(r.Causes[0].Text, "tree 5 alone, in 1 node") {
		t.Errorf("%+v", r.Causes)
	}
	if len(r.Trees) != 1 || r.Trees[0].Tree != 5 || r.Trees[0].Changed != 1 || r.Trees[0].File != model.ClassifierFile || r.Trees[0].Others != 0 {
		t.Errorf("%+v", r.Trees)
	}
	tree := r.Trees[0]
	if i := tree.Node - tree.From; !strings.HasPrefix(tree.Published[i], "leaf ") || tree.Published[i] == tree.Rebuilt[i] || i > 0 && tree.Published[i-1] != tree.Rebuilt[i-1] {
		t.Errorf("%+v", tree)
	}

	// One byte of the file, so that it is no model any more.
	var at int
	d = p.forge(func(_ *oras.Release, models []oras.File) {
		at = len(models[1].Data) / 2
		for {
			b := bytes.Clone(models[1].Data)
			b[at] ^= 0x80
			if _, err := model.Decode(models[1].Name, b); err != nil {
				models[1].Data = b
				return
			}
			at++
		}
	})
	r = p.explained(d, Options{})
	if r.Causes[0].Kind != Edited || r.place(model.AnomalyFile, "whole file") == nil || r.place(model.AnomalyFile, fmt.Sprintf("byte %d", at)) == nil {
		t.Errorf("%+v, %+v", r.Causes, r.Differences)
	}
}

func TestAnotherTrainerVersion(t *testing.T) {
	p := publish(t)
	// Models as another version of the trainer makes them, and its provenance.
	d := p.lie(func(plan *pipeline.Plan) { plan.Recipe.Reputation.MaxStepMilli, plan.Recipe.Anomaly.Sample = 3000, 100 })
	p.sign(d, map[string]string{verify.VersionTrainer: "v1.3.0", verify.VersionModule: "h1:" + strings.Repeat("B", 43) + "="})
	own := ourselves
	r := p.explained(d, Options{Program: own})
	if c := r.Causes[0]; c.Kind != Toolchain || !strings.Contains(c.Text, "v1.3.0") || !strings.Contains(c.Text, "v1.2.0") {
		t.Errorf("%+v", r.Causes)
	}
	// The same program: then it is none of its business.
	own.Trainer = r.Publisher.Trainer
	r = p.explained(d, Options{Program: own})
	if c := r.Causes[0]; c.Kind != Recipe {
		t.Errorf("%+v", r.Causes)
	}
}

func TestKeep(t *testing.T) {
	p := publish(t)
	dir := filepath.Join(t.TempDir(), "kept")
	r, err := Reproduce(context.Background(), p.store, p.digest, Options{Keep: dir})
	if err != nil || !r.Reproduced {
		t.Fatalf("%v, %+v", err, r)
	}
	if _, err := dataset.Check(context.Background(), filepath.Join(dir, "snapshot")); err != nil {
		t.Error(err)
	}
	store, err := oras.Open(context.Background(), oras.Ref{Layout: filepath.Join(dir, "release")}, oras.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := oras.Pull(context.Background(), store, p.digest); err != nil {
		t.Error(err)
	}
	if _, err := Reproduce(context.Background(), p.store, p.digest, Options{Keep: dir}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a directory in use: %v", err)
	}
}

// What a release says reaches a terminal and a page only as text.
func TestHostileTexts(t *testing.T) {
	evil := "\x1b[31m<script>alert(1)</script>"
	r := &Report{
		Product: evil, Differences: []Difference{{"release.json", evil, evil, evil}}, Causes: []Cause{{Edited, evil}},
		Inputs: &Inputs{Rows: []Row{{Table: "records", Text: evil}}}, Publisher: &Program{Trainer: verify.Trainer{Version: evil}},
	}
	var text, page bytes.Buffer
	if err := r.WriteText(&text); err != nil || strings.ContainsRune(text.String(), 0x1b) {
		t.Errorf("%v: %q", err, text.String())
	}
	if err := r.WriteHTML(&page); err != nil || strings.Contains(page.String(), "<script") {
		t.Errorf("%v: %s", err, page.String())
	}
}

func TestJSONIsComparedByPlace(t *testing.T) {
	var a, b any
	if err := json.Unmarshal([]byte(`{"a":1,"b":[1,{"x":true}],"c":{"d":null},"e/f":"x"}`), &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{"a":2,"b":[1,{"x":false},3],"c":[],"e/f":"y"}`), &b); err != nil {
		t.Fatal(err)
	}
	var got []string
	compareJSON("", a, b, func(place string, x, y any) { got = append(got, place+" "+show(x)+" "+show(y)) })
	want := []string{"/a 1 2", "/b/1/x true false", "/b/2 nothing 3", `/c {"d":null} []`, `/e~1f "x" "y"`}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
