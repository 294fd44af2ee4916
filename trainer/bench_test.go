package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// quadrantTable is the rows of quadrants as a table. Class k has the label
// name[k].
func quadrantTable(t testing.TB, seed uint64, rows int, name ...string) *Table {
	x, width, labels := quadrants(seed, rows, len(name))
	var b strings.Builder
	for c := range width {
		fmt.Fprintf(&b, "c%d,", c)
	}
	b.WriteString("label\n")
	for r := range rows {
		for c := range width {
			fmt.Fprintf(&b, "%g,", x[r*width+c])
		}
		fmt.Fprintln(&b, name[labels[r]])
	}
	return readTable(t, b.String(), TableOptions{Label: "label"})
}

// crowd is a table of ordinary rows around the origin and one in twenty far off.
func crowd(t testing.TB, rows int, ordinary, odd string) *Table {
	p := newPCG(5, 5)
	var b strings.Builder
	b.WriteString("label,a,b,c\n")
	for r := range rows {
		at, label := 0.0, ordinary
		if r%20 == 7 {
			at, label = 3, odd
		}
		fmt.Fprint(&b, label)
		for range 3 {
			sum := at
			for range 6 {
				sum += float64(p.below(1000))/1000 - 0.5
			}
			fmt.Fprintf(&b, ",%.4f", sum)
		}
		b.WriteByte('\n')
	}
	return readTable(t, b.String(), TableOptions{Label: "label"})
}

func benchOf(t testing.TB, train, test *Table, p BenchParams) *BenchReport {
	t.Helper()
	r, err := Bench(context.Background(), train, test, p, Meter{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEveryLearnerIsMeasured(t *testing.T) {
	for _, c := range []struct {
		task, learner string
		names         []string
		acc, auc      float64
		outputs       int
	}{
		{"", "", []string{"no", "yes"}, 0.93, 0.95, 1},
		{TaskBinary, LearnerForest, []string{"no", "yes"}, 0.9, 0.95, 1},
		{"", LearnerBoosting, []string{"a", "b", "c", "d"}, 0.92, 0.95, 4},
		{TaskMulticlass, LearnerForest, []string{"a", "b", "c", "d"}, 0.9, 0.95, 4},
		{TaskMulticlass, LearnerBoosting, []string{"0", "1"}, 0.93, 0.95, 1},
	} {
		p := BenchParams{Task: c.task, Learner: c.learner, Trees: 30, Seed: 1}
		r := benchOf(t, quadrantTable(t, 1, 3000, c.names...), quadrantTable(t, 2, 1000, c.names...), p)
		what := fmt.Sprintf("%s, %s", r.Learner, r.Task)
		if r.Accuracy < c.acc || r.MacroF1 < c.acc || r.AUC < c.auc || r.AUC > 1 {
			t.Errorf("%s: accuracy %v, macro-F1 %v, area %v", what, r.Accuracy, r.MacroF1, r.AUC)
		}
		if r.Rows != 3000 || r.TestRows != 1000 || r.Columns != 12 || len(r.Scores) != 1000*c.outputs || len(r.Held) != 0 {
			t.Errorf("%s: %d rows, %d columns, %d scores of %d rows", what, r.Rows, r.Columns, len(r.Scores), r.TestRows)
		}
		if r.Nodes <= r.Trees || r.Size <= 0 || len(r.SHA) != 64 || !slices.Equal(r.Labels, c.names) {
			t.Errorf("%s: %d nodes of %d trees, %v KiB, %s, labels %q", what, r.Nodes, r.Trees, r.Size, r.SHA, r.Labels)
		}
		for i, v := range r.Scores {
			if !(v >= 0 && v <= 1) {
				t.Fatalf("%s: score %d is %v", what, i, v)
			}
		}
		if c.outputs > 1 {
			for i := 0; i < len(r.Scores); i += c.outputs {
				sum := float32(0)
				for _, v := range r.Scores[i : i+c.outputs] {
					sum += v
				}
				if math.Abs(float64(sum)-1) > 1e-5 {
					t.Fatalf("%s: the scores of row %d sum to %v", what, i/c.outputs, sum)
				}
			}
		}
	}
	for _, p := range []BenchParams{{Task: TaskAnomaly}, {Learner: LearnerIsolation}, {Task: TaskAnomaly, Normal: "good", Sample: 64}} {
		r := benchOf(t, crowd(t, 2000, "good", "odd"), crowd(t, 500, "good", "odd"), p)
		if r.Task != TaskAnomaly || r.Learner != LearnerIsolation || r.AUC < 0.97 || r.Accuracy < 0.8 || r.Labels[0] != "good" {
			t.Errorf("%s, %s: area %v, accuracy %v, labels %q", r.Learner, r.Task, r.AUC, r.Accuracy, r.Labels)
		}
	}
	// The other label ordinary: the ranking turns round.
	if r := benchOf(t, crowd(t, 2000, "good", "odd"), crowd(t, 500, "good", "odd"), BenchParams{Task: TaskAnomaly, Normal: "odd"}); r.AUC > 0.03 || r.Labels[0] != "odd" {
		t.Errorf("area %v with labels %q", r.AUC, r.Labels)
	}
}

func TestModelsOfBenchmarksAreReproducible(t *testing.T) {
	for _, learner := range []string{LearnerBoosting, LearnerForest, LearnerIsolation} {
		run := func(seed int64, workers, rows int) *BenchReport {
			return benchOf(t, quadrantTable(t, 3, rows, "0", "1"), nil, BenchParams{Learner: learner, Trees: 12, Seed: seed, Workers: workers})
		}
		one := run(1, 1, 1500)
		if len(one.Held) == 0 || len(one.Held) != one.TestRows || one.TestRows < 200 || one.TestRows > 400 || one.Rows+one.TestRows != 1500 {
			t.Errorf("%s: %d rows are held out of %d", learner, one.TestRows, one.Rows+one.TestRows)
		}
		for _, workers := range []int{2, 5} {
			many := run(1, workers, 1500)
			if many.SHA != one.SHA || !reflect.DeepEqual(many.Scores, one.Scores) || !slices.Equal(many.Held, one.Held) {
				t.Errorf("%s: %d workers make another model", learner, workers)
			}
		}
		if other := run(2, 1, 1500); other.SHA == one.SHA {
			t.Errorf("%s: another seed makes the same model", learner)
		}
		if other := run(1, 1, 1499); other.SHA == one.SHA {
			t.Errorf("%s: other rows make the same model", learner)
		}
	}
}

func TestLargeModelsAreScoredLikeSmallOnes(t *testing.T) {
	// The same trees once in the form of model files, once walked.
	for _, targets := range []int{1, 4} {
		train, _, f := quadrantSamples(4, 2000, max(2, targets))
		sum, err := boost(context.Background(), testBoost, 1, "test", train, train, targets, 1, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		small := &benchModel{kind: LearnerBoosting, dim: f.dim, targets: targets}
		small.boosting(sum, f)
		if small.held == nil || len(small.trees) != 0 {
			t.Fatal("a small model is not in the form of files")
		}
		large := &benchModel{kind: LearnerBoosting, dim: f.dim, targets: targets, bias: sum.bias, unit: math.Ldexp(1, -scoreBits)}
		for _, round := range sum.rounds {
			for k := range round {
				large.trees = append(large.trees, benchTree{nodes: f.bench(&round[k]), values: round[k].values, target: k, width: 1})
			}
		}
		x, width, _ := quadrants(8, 500, 4)
		x[3], x[40] = float32(math.NaN()), float32(math.Inf(1))
		a, b := small.scorer(), large.scorer()
		got, want := make([]float32, small.outputs()), make([]float32, small.outputs())
		for r := range 500 {
			a.score(got, x[r*width:(r+1)*width])
			b.score(want, x[r*width:(r+1)*width])
			for k := range got {
				if math.Abs(float64(got[k]-want[k])) > 1e-4 {
					t.Fatalf("%d targets, row %d: %v as a file, %v walked", targets, r, got, want)
				}
			}
		}
		var one, two BenchReport
		if small.describe(&one) != nil || large.describe(&two) != nil || one.SHA == two.SHA || one.Trees > two.Trees {
			t.Errorf("described as %+v and %+v", one, two)
		}
	}
	trees := []isolationTree{{path: []int32{5}}, {nodes: []isolationNode{{column: 1, threshold: 2, left: ^0, right: ^1}}, path: []int32{7, 9}}}
	m := &benchModel{kind: LearnerIsolation, dim: 2}
	m.isolation(trees, 16)
	out := make([]float32, 1)
	for _, c := range []struct {
		x    float32
		path int32
	}{{1, 12}, {3, 14}} {
		m.scorer().score(out, []float32{0, c.x})
		if want := math.Pow(2, -float64(c.path)/float64(2*averagePath(16))); math.Abs(float64(out[0])-want) > 1e-6 {
			t.Errorf("x %v scores %v, want %v", c.x, out[0], want)
		}
	}
}

func TestModelsLargerThanFilesAreMeasured(t *testing.T) {
	p := newPCG(6, 6)
	var b strings.Builder
	b.WriteString("a,b,c,label\n")
	for range 12_000 {
		fmt.Fprintf(&b, "%d,%d,%d,%d\n", p.below(9999), p.below(9999), p.below(9999), p.below(2))
	}
	table := readTable(t, b.String(), TableOptions{Label: "label"})
	r := benchOf(t, table, nil, BenchParams{Learner: LearnerBoosting, Trees: 400, Depth: 14, LearningRatePPM: 100_000})
	if r.Nodes < 2*model.MaxNodes {
		t.Errorf("%d nodes: the test proves nothing", r.Nodes)
	}
	if r.AUC < 0.4 || r.AUC > 0.6 {
		t.Errorf("area %v where nothing can be learnt", r.AUC)
	}
}

func TestBenchmarksThatMakeNoSenseAreRefused(t *testing.T) {
	two := []string{"0", "1"}
	three := []string{"0", "1", "2"}
	for _, c := range []struct {
		names []string
		p     BenchParams
		want  string
	}{
		{two, BenchParams{Trees: 1}, ""},
		{three, BenchParams{Task: "regression"}, "unknown task"},
		{three, BenchParams{Learner: "svm"}, "unknown algorithm"},
		{two, BenchParams{Task: TaskAnomaly, Learner: LearnerForest}, "forest does not do the task anomaly"},
		{two, BenchParams{Task: TaskBinary, Learner: LearnerIsolation}, "isolation does not do the task binary"},
		{three, BenchParams{Task: TaskBinary}, "two labels, the rows have 3"},
		{[]string{"7"}, BenchParams{}, `all rows have the label ["7"]`},
		{three, BenchParams{Task: TaskAnomaly}, "say which one"},
		{three, BenchParams{Task: TaskAnomaly, Normal: "9"}, `no row has the label "9"`},
		{two, BenchParams{Normal: "0"}, "no effect on the task binary"},
		{two, BenchParams{Trees: 10_001}, "trees: 10001: want 1 to 10000"},
		{two, BenchParams{Depth: 61}, "depth: 61"},
		{two, BenchParams{Leaves: 1}, "leaves: 1"},
		{two, BenchParams{Bins: 256}, "bins: 256: want 2 to 255"},
		{two, BenchParams{MinSplit: 3}, "boosting has no such parameter"},
		{two, BenchParams{Task: TaskAnomaly, Bins: 9}, "isolation has no such parameter"},
		{two, BenchParams{Task: TaskAnomaly, Sample: 4097}, "rows drawn for a tree: 4097"},
		{two, BenchParams{Learner: LearnerForest, LearningRatePPM: 1}, "forest has no such parameter"},
		{two, BenchParams{LearningRatePPM: 1_000_001}, "learning rate"},
		{two, BenchParams{Learner: LearnerForest, MinHessianMilli: 1}, "forest has no such parameter"},
		{two, BenchParams{L2Milli: 1_000_001}, "L2 of 1000001 thousandths"},
		{two, BenchParams{MinHessianMilli: -1}, "least hessian of a leaf"},
		{two, BenchParams{HoldoutPPM: 1_000_000}, "held-out share"},
		{two, BenchParams{Seed: -1}, "seed -1"},
		{two, BenchParams{Workers: -1}, "-1 threads"},
	} {
		_, err := Bench(context.Background(), quadrantTable(t, 1, 100, c.names...), nil, c.p, Meter{}, Options{})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%+v: %v", c.p, err)
		case c.want != "" && (!errors.Is(err, ErrBench) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%+v: error %v, want %q", c.p, err, c.want)
		}
	}
	empty := readTable(t, "label,c0\n", TableOptions{Label: "label"})
	one := readTable(t, "label,c0\n0,1\n1,2\n", TableOptions{Label: "label"})
	if _, err := Bench(context.Background(), one, empty, BenchParams{}, Meter{}, Options{}); !errors.Is(err, ErrBench) {
		t.Errorf("no rows to test: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, learner := range []string{LearnerBoosting, LearnerForest, LearnerIsolation} {
		if _, err := Bench(ctx, quadrantTable(t, 1, 100, two...), nil, BenchParams{Learner: learner}, Meter{}, Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v, want that of the context", learner, err)
		}
	}
}

func TestLabelsHaveOneOrder(t *testing.T) {
	for _, c := range [][2][]string{
		{{"10", "9", "-1"}, {"-1", "9", "10"}},
		{{"b", "10", "9"}, {"10", "9", "b"}},
		{{"1.0", "1", "0"}, {"0", "1", "1.0"}},
		{{"nan", "2", "10"}, {"10", "2", "nan"}},
	} {
		got := slices.Clone(c[0])
		if sortLabels(got); !slices.Equal(got, c[1]) {
			t.Errorf("%q become %q, want %q", c[0], got, c[1])
		}
	}
	// Labels that only the test table has are classes too, and never right.
	r := benchOf(t, quadrantTable(t, 1, 400, "a", "b"), quadrantTable(t, 1, 400, "a", "c"), BenchParams{Trees: 5})
	if !slices.Equal(r.Labels, []string{"a", "b", "c"}) || r.Task != TaskMulticlass || r.Accuracy > 0.8 || r.Accuracy < 0.2 {
		t.Errorf("labels %q, %s, accuracy %v", r.Labels, r.Task, r.Accuracy)
	}
}

func TestMeterIsReadAroundTheFit(t *testing.T) {
	wall, cpu, releases := time.Duration(0), time.Duration(0), 0
	m := Meter{
		Wall:    func() time.Duration { wall += time.Millisecond; return wall },
		CPU:     func() time.Duration { cpu += 3 * time.Second; return cpu },
		Peak:    func() int64 { return 5 << 20 },
		Release: func() { releases++ },
	}
	r, err := Bench(context.Background(), quadrantTable(t, 1, 300, "0", "1"), nil, BenchParams{Trees: 2}, m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.FitWall != 0.001 || r.FitCPU != 3 || r.PeakRSS != 5 || r.LatP50 != 1000 || r.LatP99 != 1000 || r.BatchRate <= 0 || releases == 0 {
		t.Errorf("%+v, released %d times", r, releases)
	}
}
