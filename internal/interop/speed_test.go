//go:build unix

package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// contest is a piece of work that is done here and in ONNX Runtime.
type contest struct {
	name   string
	models []int             // of a rival, run one after the other
	score  func(x []float32) // all of it for one vector
}

// BenchmarkScoring times a release and ONNX Runtime over the same files and the
// rows of its test split, shuffled, in turns, each with one thread. One operation is a
// round: 2,000 calls of one row on each side, or 5 of 10,000 rows.
//
// A time is the 50th or 99th percentile over the calls of all rounds, readings
// of the clock included; a rate is rows for each second of processor time. What
// others do on the machine changes both little. Unit "ort" is ONNX Runtime's
// native call, "ort-api" its documented one for JavaScript.
func BenchmarkScoring(b *testing.B) {
	testkit.NodeModules(b)
	b.Run("sample", func(b *testing.B) { benchmarkScoring(b, sample(b)) })
	b.Run("real", func(b *testing.B) { benchmarkScoring(b, realData(b)) })
}

func benchmarkScoring(b *testing.B, r *release) {
	dim := r.matrix.Dim
	var rows [][]float32
	for i, row := range r.matrix.Rows {
		if row.Part == trainer.Test {
			rows = append(rows, r.matrix.X[i*dim:(i+1)*dim])
		}
	}
	// They stand source by source; any number from the start shall be a sample.
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	var features, scaled []float32
	for _, x := range rows {
		features = append(features, x...)
		scaled = append(scaled, x...)
		r.scaler.Apply(scaled[len(scaled)-dim:], x)
	}
	var paths []string
	for _, name := range model.Files() {
		paths = append(paths, r.paths[name])
	}
	var s model.Scores
	contests := []contest{
		{"four-models", []int{0, 1, 2, 3}, func(x []float32) { r.set.Score(x, &s) }},
		{"reputation", []int{3}, func(x []float32) { r.set.Reputation(x, &s) }},
	}
	for _, leaves := range []int{16, 31} {
		e := boosted(rows, 8000, leaves)
		file, err := model.EncodeEnsemble(e)
		if err != nil {
			b.Fatal(err)
		}
		paths = append(paths, filepath.Join(b.TempDir(), "boosted.onnx"))
		if err := os.WriteFile(paths[len(paths)-1], file, 0o600); err != nil {
			b.Fatal(err)
		}
		scorer, err := model.NewScorer(e)
		if err != nil {
			b.Fatal(err)
		}
		sum := make([]int32, 1)
		contests = append(contests, contest{fmt.Sprintf("8000-nodes-of-%d-leaves", leaves), []int{len(paths) - 1}, func(x []float32) { scorer.Sums(sum, x) }})
	}
	theirs := newRival(b, dim, features, scaled, paths...)

	b.Run("features", func(b *testing.B) { benchmarkFeatures(b, r) })
	for _, c := range contests {
		b.Run("one/"+c.name, func(b *testing.B) { c.one(b, theirs, rows) })
		b.Run("batch/"+c.name, func(b *testing.B) { c.batch(b, theirs, rows) })
	}
}

// one compares calls with a single row.
func (c *contest) one(b *testing.B, theirs *rival, rows [][]float32) {
	const calls = 2000
	allocated := testing.AllocsPerRun(100, func() { c.score(rows[0]) })
	theirs.ask(b, question{c.models, 1, calls, false})
	var ours, native, api []time.Duration
	for b.Loop() {
		for i := range calls {
			x := rows[i%len(rows)]
			start := time.Now()
			c.score(x)
			ours = append(ours, time.Since(start))
		}
		native = append(native, theirs.ask(b, question{c.models, 1, calls, false}).Took...)
		api = append(api, theirs.ask(b, question{c.models, 1, calls, true}).Took...)
	}
	report := func(name string, took []time.Duration) (p50 float64) {
		slices.Sort(took)
		p50 = float64(took[len(took)/2])
		b.ReportMetric(p50, name+"p50-ns")
		b.ReportMetric(float64(took[len(took)*99/100]), name+"p99-ns")
		return p50
	}
	p50 := report("", ours)
	b.ReportMetric(report("ort-", native)/p50, "ort-ratio")
	b.ReportMetric(report("ort-api-", api)/p50, "ort-api-ratio")
	b.ReportMetric(allocated, "allocs")
	b.ReportMetric(0, "ns/op")
}

// batch compares calls with 10,000 rows.
func (c *contest) batch(b *testing.B, theirs *rival, rows [][]float32) {
	const batch, calls = 10_000, 5
	theirs.ask(b, question{c.models, batch, 1, false})
	var ours, native []float64
	rate := func(cpu time.Duration) float64 { return batch * calls / cpu.Seconds() }
	for b.Loop() {
		runtime.GC()
		start := processorTime(b)
		for i := range batch * calls {
			c.score(rows[i%batch%len(rows)])
		}
		ours = append(ours, rate(processorTime(b)-start))
		native = append(native, rate(time.Duration(theirs.ask(b, question{c.models, batch, calls, false}).CPU)*time.Microsecond))
	}
	median := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
	b.ReportMetric(median(ours), "rows/s")
	b.ReportMetric(median(native), "ort-rows/s")
	b.ReportMetric(median(ours)/median(native), "ort-ratio")
	b.ReportMetric(0, "ns/op")
}

// benchmarkFeatures times the vectors of the records of a release, in canonical
// order, with history. Every source is known already.
func benchmarkFeatures(b *testing.B, r *release) {
	s, err := dataset.Open(r.snapshot)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var records []record.Record
	newest := int64(0)
	for rec, err := range s.Records(context.Background()) {
		if err != nil {
			b.Fatal(err)
		}
		records = append(records, *rec)
		if rec.Time != record.NoTime {
			newest = max(newest, rec.Time)
		}
	}
	e, err := feature.New(r.features)
	if err != nil {
		b.Fatal(err)
	}
	t := feature.NewTracker(e.Config())
	x := make([]float32, feature.Dim)
	vectors := func(took []time.Duration) []time.Duration {
		for i := range records {
			start := time.Now()
			e.Vector(x, &records[i], t)
			took = append(took, time.Since(start))
			if records[i].Time != record.NoTime {
				records[i].Time += newest
			}
		}
		return took
	}
	took := vectors(make([]time.Duration, 0, len(records)))
	var before, after runtime.MemStats
	allocated, n := uint64(0), 0
	var all []time.Duration
	for b.Loop() {
		runtime.ReadMemStats(&before)
		took = vectors(took[:0])
		runtime.ReadMemStats(&after)
		allocated += after.Mallocs - before.Mallocs
		n += len(took)
		all = append(all, took...)
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2]), "p50-ns")
	b.ReportMetric(float64(all[len(all)*99/100]), "p99-ns")
	b.ReportMetric(float64(allocated)/float64(n), "allocs")
	b.ReportMetric(0, "ns/op")
}

// boosted returns trees of so many leaves each and about so many nodes in all,
// grown at random but to fit the rows: the leaf that most of some rows reach is
// split first, at a value that one of them has.
func boosted(rows [][]float32, nodes, leaves int) *model.Ensemble {
	rng := rand.New(rand.NewPCG(1, 1))
	e := &model.Ensemble{Dim: len(rows[0]), Targets: 1, Shift: 16, Transform: model.Sigmoid}
	leaf := func() model.Node { return model.Node{Leaf: true, Value: int32(rng.IntN(1<<15) - 1<<14)} }
	for len(e.Trees)*(2*leaves-1) < nodes {
		tree := []model.Node{leaf()}
		reach := [][]int{nil} // rows by node
		for range 512 {
			reach[0] = append(reach[0], rng.IntN(len(rows)))
		}
		for tries := 0; len(tree) < 2*leaves-1 && tries < 100*leaves; tries++ {
			most := 0
			for i := range reach {
				if len(reach[i]) > len(reach[most]) {
					most = i
				}
			}
			at, column := reach[most], int32(rng.IntN(e.Dim))
			threshold := rows[at[rng.IntN(len(at))]][column]
			var left, right []int
			for _, i := range at {
				if rows[i][column] <= threshold {
					left = append(left, i)
				} else {
					right = append(right, i)
				}
			}
			if len(left) == 0 || len(right) == 0 {
				continue
			}
			n := int32(len(tree))
			tree[most] = model.Node{Feature: column, Threshold: threshold, Left: n, Right: n + 1}
			tree = append(tree, leaf(), leaf())
			reach[most] = nil
			reach = append(reach, left, right)
		}
		e.Trees = append(e.Trees, model.Tree{Nodes: tree})
	}
	return e
}

// rival is ONNX Runtime at work in testdata/speed.js.
type rival struct {
	in  io.WriteCloser
	out *bufio.Reader
}

type question struct {
	Models []int `json:"models"`
	Batch  int   `json:"batch"`
	Calls  int   `json:"calls"`
	API    bool  `json:"api"`
}

type answer struct {
	Took []time.Duration `json:"took"`
	CPU  int64           `json:"cpu"` // microseconds
}

// newRival starts ONNX Runtime with model files, of which the second one takes
// the scaled vectors.
func newRival(b *testing.B, dim int, features, scaled []float32, files ...string) *rival {
	dir := b.TempDir()
	type file struct {
		File  string `json:"file"`
		Input string `json:"input"`
	}
	job := struct {
		Models []file            `json:"models"`
		Dim    int               `json:"dim"`
		Rows   map[string]string `json:"rows"`
	}{Dim: dim, Rows: map[string]string{}}
	for i, path := range files {
		input := "features"
		if i == 1 {
			input = "scaled"
		}
		job.Models = append(job.Models, file{path, input})
	}
	for name, rows := range map[string][]float32{"features": features, "scaled": scaled} {
		job.Rows[name] = filepath.Join(dir, name)
		if err := os.WriteFile(job.Rows[name], littleEndian(rows), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	text, err := json.Marshal(job)
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(dir, "job.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("node", filepath.Join("testdata", "speed.js"), path)
	cmd.Env = append(os.Environ(), "NODE_PATH="+testkit.NodeModules(b))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	return &rival{in, bufio.NewReader(out)}
}

func (r *rival) ask(b *testing.B, q question) answer {
	b.Helper()
	if err := json.NewEncoder(r.in).Encode(q); err != nil {
		b.Fatal(err)
	}
	var a answer
	line, err := r.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err == nil && len(a.Took) != q.Calls {
		err = fmt.Errorf("%d times for %d calls", len(a.Took), q.Calls)
	}
	if err != nil {
		b.Fatal(err)
	}
	return a
}

// processorTime returns the processor time that this process has used.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
