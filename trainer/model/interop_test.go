package model

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/detmath"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// job is a model for testdata/onnxruntime.js; the fields in lower case are
// what it should give.
type job struct {
	Name    string `json:"name"`
	File    string `json:"file"`
	Input   string `json:"input"`
	Dim     int    `json:"dim"`
	Rows    string `json:"rows"`
	Batches []int  `json:"batches"`

	ensemble *Ensemble
	rows     [][]float32
	scaled   []float32
}

type run struct {
	Model   string              `json:"model"`
	Threads int                 `json:"threads"`
	Batch   int                 `json:"batch"`
	Outputs map[string][]byte   `json:"outputs"`
	Labels  map[string][]string `json:"labels"`
}

func littleEndian(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// rows returns random vectors, and for every split of e up to a limit one that
// equals its threshold, one just below and one just above.
func rows(rng *rand.Rand, e *Ensemble) [][]float32 {
	var all [][]float32
	for range 200 {
		x := make([]float32, e.Dim)
		vector(rng, x, 0)
		all = append(all, x)
		x = make([]float32, e.Dim)
		vector(rng, x, 4)
		all = append(all, x)
	}
	for _, tree := range e.Trees {
		for _, n := range tree.Nodes {
			if n.Leaf || len(all) >= 1000 {
				continue
			}
			for _, v := range []float32{
				n.Threshold,
				math.Nextafter32(n.Threshold, float32(math.Inf(-1))),
				math.Nextafter32(n.Threshold, float32(math.Inf(1))),
			} {
				x := make([]float32, e.Dim)
				vector(rng, x, 0)
				x[n.Feature] = v
				all = append(all, x)
			}
		}
	}
	return all
}

// Every file must mean in ONNX Runtime what it means here: raw sums, labels
// and scaled vectors to the bit, scores to 1e-6.
func TestONNXRuntimeAgrees(t *testing.T) {
	testkit.NodeModules(t)
	tmp := t.TempDir()
	var jobs []*job
	add := func(j *job, file []byte) {
		j.File = filepath.Join(tmp, j.Name)
		j.Rows, j.Batches = j.File+".rows", []int{1, 7, 0}
		var rows []byte
		for _, x := range j.rows {
			rows = append(rows, littleEndian(x)...)
		}
		for path, data := range map[string][]byte{j.File: file, j.Rows: rows} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		jobs = append(jobs, j)
	}
	for i, s := range shapes {
		for seed := range uint64(5) {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			e := s.random(rng)
			if seed == 4 {
				// Every threshold is one float32, so that values that equal
				// it are common, and small sums make equal classes common.
				for _, tree := range e.Trees {
					for k := range tree.Nodes {
						tree.Nodes[k].Threshold = value(rng)
						if s.transform == Softmax {
							tree.Nodes[k].Value &= 1
						}
					}
				}
				clear(e.Bias)
			}
			j := &job{Name: fmt.Sprintf("%d-%d.onnx", i, seed), Input: "features", Dim: s.dim, ensemble: e, rows: rows(rng, e)}
			if s.transform == Isolation {
				j.Input = "scaled"
			}
			add(j, encode(t, e))
		}
	}
	rng := rand.New(rand.NewPCG(5, 5))
	scaler := randomScaler(rng, 30)
	j := &job{Name: "scaler.onnx", Input: "features", Dim: 30}
	for range 500 {
		x := make([]float32, 30)
		vector(rng, x, 5)
		j.rows = append(j.rows, x)
		y := make([]float32, 30)
		scaler.Apply(y, x)
		j.scaled = append(j.scaled, y...)
	}
	add(j, encodeScaler(t, scaler))

	in, err := json.Marshal(jobs)
	if err != nil {
		t.Fatal(err)
	}
	out, err := testkit.Node(t, filepath.Join("testdata", "onnxruntime.js"), in)
	if err != nil {
		t.Fatal(err)
	}
	var runs []run
	if err := json.Unmarshal(out, &runs); err != nil {
		t.Fatal(err)
	}
	if len(runs) != 6*len(jobs) {
		t.Fatalf("%d runs of %d models, want 6 of each", len(runs), len(jobs))
	}
	var c comparison
	for i, r := range runs {
		j := jobs[i/6]
		if r.Model != j.Name {
			t.Fatalf("run %d is of %s, want %s", i, r.Model, j.Name)
		}
		c.where = fmt.Sprintf("%s, %d threads, batch %d", r.Model, r.Threads, r.Batch)
		if j.ensemble == nil {
			c.exact(t, "scaled", j.scaled, floats(r.Outputs["scaled"]))
			continue
		}
		c.ensemble(t, j, r)
	}
	t.Logf("%d models, %d runs: %d values equal to the bit; %d scores, %d differ, by at most %g; %d labels",
		len(jobs), len(runs), c.values, c.scores, c.differ, c.worst, c.labels)
}

type comparison struct {
	where                          string
	values, scores, differ, labels int
	worst                          float64
}

func (c *comparison) ensemble(t *testing.T, j *job, r run) {
	t.Helper()
	e := j.ensemble
	scorer, err := NewScorer(e)
	if err != nil {
		t.Fatal(err)
	}
	var raw, score []float32
	var labels []string
	sums, powers := make([]int32, e.Targets), make([]float64, e.Targets)
	unit := math.Ldexp(1, -e.Shift)
	for _, x := range j.rows {
		scorer.Sums(sums, x)
		best := 0
		for c, k := range sums {
			raw = append(raw, float32(float64(k)*unit))
			if k > sums[best] {
				best = c
			}
		}
		z := float64(sums[0]) * unit
		switch e.Transform {
		case Isolation:
			score = append(score, float32(detmath.Exp2(-(z / e.Norm))))
		case Sigmoid:
			score = append(score, float32(detmath.Sigmoid(z)))
		case Softmax:
			p := make([]float32, e.Targets)
			softmax(p, powers, sums, sums[best], unit)
			score = append(score, p...)
			labels = append(labels, e.Classes[best])
		}
	}
	c.exact(t, "raw", raw, floats(r.Outputs["raw"]))
	if e.Transform != Softmax {
		c.near(t, "score", score, floats(r.Outputs["score"]))
		return
	}
	c.near(t, "probabilities", score, floats(r.Outputs["probabilities"]))
	got := r.Labels["label"]
	if len(got) != len(labels) {
		t.Fatalf("%s: %d labels, want %d", c.where, len(got), len(labels))
	}
	for i := range labels {
		if got[i] != labels[i] {
			t.Fatalf("%s: row %d is %s, want %s", c.where, i, got[i], labels[i])
		}
	}
	c.labels += len(labels)
}

func (c *comparison) exact(t *testing.T, what string, want, got []float32) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: %d values of %s, want %d", c.where, len(got), what, len(want))
	}
	for i := range want {
		same := math.Float32bits(want[i]) == math.Float32bits(got[i])
		if !same && !(math.IsNaN(float64(want[i])) && math.IsNaN(float64(got[i]))) {
			t.Fatalf("%s: value %d of %s is %v (%08x), want %v (%08x)", c.where, i, what, got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
		}
	}
	c.values += len(want)
}

func (c *comparison) near(t *testing.T, what string, want, got []float32) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: %d values of %s, want %d", c.where, len(got), what, len(want))
	}
	for i := range want {
		d := math.Abs(float64(want[i]) - float64(got[i]))
		if !(d <= 1e-6) {
			t.Fatalf("%s: value %d of %s is %v, want %v", c.where, i, what, got[i], want[i])
		}
		c.worst = max(c.worst, d)
		if want[i] != got[i] {
			c.differ++
		}
	}
	c.scores += len(want)
}
