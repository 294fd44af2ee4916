package interop

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// outputs are what a model says about some vectors.
type outputs struct {
	exact  map[string][]float32 // outputs that must be the same bits
	near   map[string][]float32 // outputs that must be within 1e-6
	labels []string             // of the output "label"
	tied   []bool               // by label: another class has the same raw sum
}

// session is one run of a model in ONNX Runtime.
type session struct {
	Model   string              `json:"model"`
	Threads int                 `json:"threads"`
	Batch   int                 `json:"batch"`
	Outputs map[string][]byte   `json:"outputs"`
	Labels  map[string][]string `json:"labels"`
}

// agreement counts what was compared.
type agreement struct {
	equal, near, differ, labels, ties int
	worst                             float64
}

// compare says where a session differs from what we say.
func (o *outputs) compare(s *session, a *agreement) error {
	if want := len(o.exact) + len(o.near); len(s.Outputs) != want {
		return fmt.Errorf("%d outputs of numbers, want %d", len(s.Outputs), want)
	}
	for name, want := range o.exact {
		got := floats(s.Outputs[name])
		if len(got) != len(want) {
			return fmt.Errorf("%d values of %s, want %d", len(got), name, len(want))
		}
		for i := range want {
			if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
				return fmt.Errorf("value %d of %s is %v (%08x), want %v (%08x)", i, name, got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
			}
		}
		a.equal += len(want)
	}
	for name, want := range o.near {
		got := floats(s.Outputs[name])
		if len(got) != len(want) {
			return fmt.Errorf("%d values of %s, want %d", len(got), name, len(want))
		}
		for i := range want {
			d := math.Abs(float64(got[i]) - float64(want[i]))
			if !(d <= 1e-6) {
				return fmt.Errorf("value %d of %s is %v, want %v", i, name, got[i], want[i])
			}
			if d > 0 {
				a.differ++
			}
			a.worst = max(a.worst, d)
		}
		a.near += len(want)
	}
	got := s.Labels["label"]
	if len(got) != len(o.labels) {
		return fmt.Errorf("%d labels, want %d", len(got), len(o.labels))
	}
	for i, want := range o.labels {
		if o.tied[i] {
			a.ties++
		} else if got[i] != want {
			return fmt.Errorf("vector %d is %s, want %s", i, got[i], want)
		}
	}
	a.labels += len(got)
	return nil
}

// vectors are the inputs of the four models for the test split of a release,
// and what we say about them.
type vectors struct {
	features, scaled []float32
	rows             int
	says             map[string]*outputs
}

func (r *release) test() *vectors {
	v := &vectors{says: map[string]*outputs{}}
	for _, name := range model.Files() {
		v.says[name] = &outputs{exact: map[string][]float32{}, near: map[string][]float32{}}
	}
	add := func(to map[string][]float32, name string, x ...float32) { to[name] = append(to[name], x...) }
	scaler, anomaly := v.says[model.ScalerFile], v.says[model.AnomalyFile]
	classifier, reputation := v.says[model.ClassifierFile], v.says[model.ReputationFile]
	dim := r.matrix.Dim
	scaled := make([]float32, dim)
	var s model.Scores
	for i, row := range r.matrix.Rows {
		if row.Part != trainer.Test {
			continue
		}
		x := r.matrix.X[i*dim : (i+1)*dim]
		v.rows++
		v.features = append(v.features, x...)
		r.scaler.Apply(scaled, x)
		v.scaled = append(v.scaled, scaled...)
		r.set.Score(x, &s)
		add(scaler.exact, "scaled", scaled...)
		add(anomaly.exact, "raw", s.AnomalyRaw)
		add(anomaly.near, "score", s.Anomaly)
		add(classifier.exact, "raw", s.ClassRaw...)
		add(classifier.near, "probabilities", s.Probabilities...)
		add(reputation.exact, "raw", s.ReputationRaw)
		add(reputation.near, "score", s.Reputation)
		classifier.labels = append(classifier.labels, r.set.Classes()[s.Class])
		tied := 0
		for _, raw := range s.ClassRaw {
			if raw == s.ClassRaw[s.Class] {
				tied++
			}
		}
		classifier.tied = append(classifier.tied, tied > 1)
	}
	return v
}

// sessions runs model files, by name, over the vectors in ONNX Runtime.
func (v *vectors) sessions(t *testing.T, paths map[string]string, batches ...int) []session {
	t.Helper()
	type job struct {
		Name    string `json:"name"`
		File    string `json:"file"`
		Input   string `json:"input"`
		Dim     int    `json:"dim"`
		Rows    string `json:"rows"`
		Batches []int  `json:"batches"`
	}
	dir := t.TempDir()
	var jobs []job
	for _, in := range []struct {
		name  string
		rows  []float32
		files []string
	}{
		{"features", v.features, []string{model.ScalerFile, model.ClassifierFile, model.ReputationFile}},
		{"scaled", v.scaled, []string{model.AnomalyFile}},
	} {
		path := filepath.Join(dir, in.name)
		if err := os.WriteFile(path, littleEndian(in.rows), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, file := range in.files {
			if paths[file] != "" {
				jobs = append(jobs, job{file, paths[file], in.name, len(in.rows) / v.rows, path, batches})
			}
		}
	}
	in, err := json.Marshal(jobs)
	if err != nil {
		t.Fatal(err)
	}
	out, err := testkit.Node(t, filepath.Join(testkit.Root(t), "trainer", "model", "testdata", "onnxruntime.js"), in)
	if err != nil {
		t.Fatal(err)
	}
	var list []session
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	if want := 2 * len(batches) * len(jobs); len(list) != want {
		t.Fatalf("%d sessions, want %d", len(list), want)
	}
	return list
}

// A release means in ONNX Runtime what it means here, over its whole test
// split: scaled vectors and raw sums to the bit, classes wherever two are not
// exactly equal, scores and probabilities within 1e-6.
func TestONNXRuntimeScoresTheTestSplitAlike(t *testing.T) {
	each(t, func(t *testing.T, r *release) {
		v := r.test()
		counts := map[string]*agreement{}
		for _, s := range v.sessions(t, r.paths, 1, 1000, 0) {
			if counts[s.Model] == nil {
				counts[s.Model] = new(agreement)
			}
			if err := v.says[s.Model].compare(&s, counts[s.Model]); err != nil {
				t.Errorf("%s, %d threads, batch %d: %v", s.Model, s.Threads, s.Batch, err)
			}
		}
		for _, name := range model.Files() {
			a := counts[name]
			t.Logf("%-22s %d rows: %d values the same bits; %d scores within 1e-6, %d not the same bits, by at most %g; %d labels, %d with a tie",
				name, v.rows, a.equal, a.near, a.differ, a.worst, a.labels, a.ties)
		}
	})
}

// One leaf that is off by its smallest unit, or one offset of the scaler by
// its last bit, does not go unnoticed.
func TestONNXRuntimeNoticesAFlippedLeaf(t *testing.T) {
	r := sample(t)
	v := r.test()
	for _, name := range model.Files() {
		m, err := model.Decode(name, r.files[name])
		if err != nil {
			t.Fatal(err)
		}
		if m.Scaler != nil {
			i := slices.IndexFunc(m.Scaler.Scale, func(s float32) bool { return s > 0 })
			m.Scaler.Offset[i] = math.Nextafter32(m.Scaler.Offset[i], float32(math.Inf(1)))
		} else {
			x := v.features
			if name == model.AnomalyFile {
				x = v.scaled
			}
			leaf := reached(&m.Ensemble.Trees[0], x)
			if leaf.Value > 0 {
				leaf.Value--
			} else {
				leaf.Value++
			}
		}
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, s := range v.sessions(t, map[string]string{name: path}, 0) {
			if err := v.says[name].compare(&s, new(agreement)); err == nil {
				t.Errorf("%s with another leaf is taken for the same", name)
			}
		}
		// Nor does a row that is missing.
		for _, s := range v.sessions(t, map[string]string{name: r.paths[name]}, 0) {
			for out, b := range s.Outputs {
				s.Outputs[out] = b[:len(b)-4]
			}
			if err := v.says[name].compare(&s, new(agreement)); err == nil {
				t.Errorf("%s: a value less is taken for the same", name)
			}
		}
	}
}

// reached returns the leaf that a vector reaches; none of its values is NaN.
func reached(tree *model.Tree, x []float32) *model.Node {
	n := &tree.Nodes[0]
	for !n.Leaf {
		next := n.Right
		if x[n.Feature] <= n.Threshold {
			next = n.Left
		}
		n = &tree.Nodes[next]
	}
	return n
}

func littleEndian(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func floats(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}
