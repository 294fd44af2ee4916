// Package interop holds tests that other programs read our files as we do:
// ONNX Runtime, protobuf.js with ONNX's public schema, the Arrow library for
// JavaScript, and DuckDB. .ci/node installs them; without BH_NODE the tests skip.
package interop

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// release is a release as somebody pulls it, and what it was made of.
type release struct {
	files    map[string][]byte // the four models by name
	paths    map[string]string // where they lie
	set      *model.Set
	features []byte // what the features are made with
	scaler   *model.Scaler
	snapshot string // directory
	written  string // directory of 'bhtrain matrix'
	matrix   *trainer.Matrix
}

// work is a folder for all tests, and releases what was made in it.
var (
	work     string
	releases = map[string]*release{}
)

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	var err error
	if work, err = os.MkdirTemp("", "bhtrain-interop-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer os.RemoveAll(work)
	code = m.Run()
}

// each runs a test with a release of the embedded sample and with one of the
// real data.
func each(t *testing.T, test func(t *testing.T, r *release)) {
	testkit.NodeModules(t)
	t.Run("sample", func(t *testing.T) { test(t, sample(t)) })
	t.Run("real data", func(t *testing.T) {
		if testing.Short() {
			t.Skip("trains on the real data")
		}
		test(t, realData(t))
	})
}

// sample returns a release of the embedded sample.
func sample(t testing.TB) *release {
	t.Helper()
	return made(t, "sample", pipeline.Plan{Recipe: trainer.DefaultRecipe()})
}

func realData(t testing.TB) *release {
	t.Helper()
	p := pipeline.Plan{Recipe: trainer.DefaultRecipe()}
	p.Recipe.AsOf = time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC).UnixMicro()
	p.Recipe.WindowDays = 9000
	for _, in := range [][3]string{
		{"exploitdb", "exploitdb/files_exploits.reassembled.csv", ""},
		{"exploitdb", "exploitdb/files.csv", ""},
		{"labelled", "http-attacks/payload_train.csv", ""},
		{"cowrie", "honeypot/cowrie-2018-05.json", ""},
		{"attacks", "attack-records/peer_threats.json", ""},
		{"access", "http-attacks/access-2004.log", ",class=benign"},
		{"sshd", "auth/auth.log", ",year=2017"},
	} {
		input, err := dataset.ParseInput(in[0], testkit.Data(t, in[1])+in[2])
		if err != nil {
			t.Fatal(err)
		}
		p.Inputs = append(p.Inputs, input)
	}
	return made(t, "real", p)
}

// made carries out a plan once: the release is pulled from the directory in
// which it was put, and its models are written as files.
func made(t testing.TB, name string, p pipeline.Plan) *release {
	t.Helper()
	testkit.NodeModules(t)
	if r := releases[name]; r != nil {
		return r
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	dir := filepath.Join(work, name)
	r := &release{files: map[string][]byte{}, paths: map[string]string{}, snapshot: filepath.Join(dir, "snapshot"), written: filepath.Join(dir, "matrix")}
	p.Privacy = record.Privacy{Address: record.Full, Redaction: record.Redaction}
	_, err := pipeline.Snapshot(ctx, p, r.snapshot)
	must(err)
	p.Snapshot, p.Product, p.Release = r.snapshot, verify.DefaultProduct, 1
	p.Out = filepath.Join(dir, "dist")
	report, err := pipeline.Run(ctx, p)
	must(err)
	store, err := oras.Open(ctx, oras.Ref{Layout: p.Out}, oras.Options{})
	must(err)
	pulled, err := oras.Pull(ctx, store, report.Release)
	must(err)
	for _, f := range pulled.Models {
		r.files[f.Name] = f.Data
		r.paths[f.Name] = filepath.Join(dir, f.Name)
		must(os.WriteFile(r.paths[f.Name], f.Data, 0o600))
	}
	r.features = pulled.Release.Features
	r.set, err = model.Open(r.files, pulled.Release.Scoring)
	must(err)
	m, err := model.Decode(model.ScalerFile, r.files[model.ScalerFile])
	must(err)
	r.scaler = m.Scaler
	p.Out = r.written
	matrix, err := pipeline.WriteMatrix(ctx, p)
	must(err)
	if m := matrix.Matrix; m.Dataset != pulled.Release.Dataset || m.Features != canon.Sum(pulled.Release.Features) {
		t.Errorf("%s names the dataset %s and the features %s, the release others", pipeline.MatrixFile, m.Dataset, m.Features)
	}
	recipe, err := trainer.DecodeRecipe(pulled.Release.Recipe)
	must(err)
	s, err := dataset.Open(r.snapshot)
	must(err)
	defer s.Close()
	r.matrix, err = trainer.BuildMatrix(ctx, s, recipe, trainer.Options{})
	must(err)
	releases[name] = r
	return r
}
