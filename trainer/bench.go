package trainer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/detmath"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// ErrBench: a benchmark that cannot be run as asked. The message names the
// parameter or what the table lacks.
var ErrBench = errors.New("cannot benchmark")

// Tasks of a benchmark.
const (
	TaskBinary     = "binary"     // two labels
	TaskMulticlass = "multiclass" // two labels or more
	TaskAnomaly    = "anomaly"    // labels only measure
)

// Learners of a benchmark.
const (
	LearnerBoosting  = "boosting"
	LearnerForest    = "forest"
	LearnerIsolation = "isolation"
)

// BenchParams say what a benchmark fits. A zero means the default.
type BenchParams struct {
	Task            string // default: anomaly for the isolation forest, else by the number of labels
	Learner         string // default: isolation forest for anomaly, else boosting
	Trees           int    // rounds, for boosting; default 150, forest 200, isolation 100; at most 10,000
	Depth           int    // splits between root and leaf, 1 to 60; default 5, forest 20; not for isolation
	Leaves          int    // of one tree; default without bound; not for isolation
	Bins            int    // of one column, 2 to MaxBins; default MaxBins; not for isolation
	LearningRatePPM int64  // boosting: 1 to 1,000,000; default 100,000
	L2Milli         int64  // boosting: added to the hessian of a leaf, in thousandths, 1 to 1,000,000; default 1000
	MinHessianMilli int64  // boosting: least hessian of a leaf, in thousandths, 1 to 1,000,000; default 1000
	MinLeaf         int    // least rows of a leaf; default 1, forest 2; not for isolation
	MinSplit        int    // forest: least rows of a node that is split; default 5
	Sample          int    // isolation: rows drawn for a tree, 2 to 4096; default 256
	HoldoutPPM      int64  // share of rows that are tested when there is no test table, 1 to 999,999; default 200,000
	Normal          string // anomaly: the label of ordinary rows; default the first
	Seed            int64  // 0 to 2^53-1
	Workers         int    // goroutines of the fit; 0 for one per CPU
}

// Meter is how a benchmark reads the clock and the state of the process.
// Functions that are nil give zeros.
type Meter struct {
	Wall func() time.Duration // since some fixed instant, never going back
	CPU  func() time.Duration // time used by all threads of the process
	Peak func() int64         // largest memory of the process so far, in bytes
	// Release is called when a large part of the memory was let go of.
	Release func()
}

func (m *Meter) fill() {
	zero := func() time.Duration { return 0 }
	if m.Wall == nil {
		m.Wall = zero
	}
	if m.CPU == nil {
		m.CPU = zero
	}
	if m.Peak == nil {
		m.Peak = func() int64 { return 0 }
	}
	if m.Release == nil {
		m.Release = func() {}
	}
}

// BenchReport is the result of a benchmark. Figures of quality are of the test
// rows. Figures of speed are of one goroutine, but for the fit.
type BenchReport struct {
	Task     string   `json:"task"`
	Learner  string   `json:"algorithm"`
	Rows     int      `json:"rows"`      // fitted on
	TestRows int      `json:"test_rows"` //
	Columns  int      `json:"columns"`   // features
	Labels   []string `json:"labels"`    // in the order of classes: by value where all are numbers, else by bytes
	Trees    int      `json:"trees"`     // of all classes
	Seed     int64    `json:"seed"`
	Threads  int      `json:"threads"`

	FitWall   float64 `json:"fit_wall_s"`   // from the table in memory to a model that scores
	FitCPU    float64 `json:"fit_cpu_s"`    //
	PeakRSS   float64 `json:"peak_rss_mb"`  // of the whole process until the fit is done, in 2^20 bytes
	Nodes     int     `json:"nodes"`        // splits and leaves
	Size      float64 `json:"size_kb"`      // of the model, in 2^10 bytes
	SHA       string  `json:"sha"`          // SHA-256 of the model: of its file where the format can hold it, else of its plain bytes
	Accuracy  float64 `json:"acc"`          //
	MacroF1   float64 `json:"macro_f1"`     // mean over classes
	AUC       float64 `json:"auc"`          // area under the ROC curve; with more than two classes the mean of each against the others
	LatP50    float64 `json:"lat_us_p50"`   // median time to score one row, in microseconds
	LatP99    float64 `json:"lat_us_p99"`   //
	BatchRate float64 `json:"batch_rows_s"` // rows scored a second, in batches of 10,000

	// Scores are the predictions for the test rows in their order: the
	// probability of the second label, of each label where there are more, or
	// how anomalous a row is, from 0 to 1.
	Scores []float32 `json:"-"`
	// Held are the rows of the table that were tested, from 0, when they were
	// not in a table of their own.
	Held []int32 `json:"-"`
}

// Bench fits a learner on a table and measures it on another one, or on a share
// of the same when test is nil. The table is used up: its values are let go of
// as soon as they are not needed any more.
//
// The model depends on the rows, their order and the parameters but Workers
// alone. It may be far larger than what a release can hold. A parameter that
// is out of bounds or does not fit the table is ErrBench; when ctx is done its
// error is returned. Of opt only Progress is used.
func Bench(ctx context.Context, train, test *Table, p BenchParams, m Meter, opt Options) (*BenchReport, error) {
	m.fill()
	b := &bench{ctx: ctx, p: p, table: train, workers: Options{Workers: p.Workers}.workers(), opt: opt}
	if err := b.prepare(test); err != nil {
		return nil, err
	}
	r := &BenchReport{
		Task: b.p.Task, Learner: b.p.Learner, Rows: len(b.rows), TestRows: len(b.testLabels), Columns: len(b.table.Columns),
		Labels: b.labels, Seed: p.Seed, Threads: b.workers, Held: b.held,
	}
	m.Release()
	wall, cpu := m.Wall(), m.CPU()
	if err := b.fit(m); err != nil {
		return nil, err
	}
	r.FitWall, r.FitCPU = (m.Wall() - wall).Seconds(), (m.CPU() - cpu).Seconds()
	r.PeakRSS = float64(float64(m.Peak()) / (1 << 20))
	if err := b.model.describe(r); err != nil {
		return nil, err
	}
	if err := b.time(m, r); err != nil {
		return nil, err
	}
	b.measure(r)
	return r, ctx.Err()
}

// bench is one run of Bench.
type bench struct {
	ctx     context.Context
	p       BenchParams
	opt     Options
	workers int
	table   *Table
	rows    []int32 // of the table, to fit on
	class   []uint8 // by row of the table
	labels  []string

	held       []int32
	test       []float32 // row-major
	testLabels []uint8
	model      *benchModel
}

// prepare fills in defaults, numbers the classes and deals the rows.
func (b *bench) prepare(test *Table) error {
	b.labels = slices.Clone(b.table.Labels)
	if test != nil {
		for _, l := range test.Labels {
			if !slices.Contains(b.labels, l) {
				b.labels = append(b.labels, l)
			}
		}
	}
	sortLabels(b.labels)
	if err := b.defaults(); err != nil {
		return err
	}
	if b.p.Task == TaskAnomaly && b.p.Normal != "" {
		i := slices.Index(b.labels, b.p.Normal)
		if i < 0 {
			return fmt.Errorf("%w: no row has the label %q of ordinary rows: the labels are %q", ErrBench, b.p.Normal, b.labels)
		}
		b.labels = append([]string{b.p.Normal}, slices.Delete(b.labels, i, i+1)...)
	}
	number := func(t *Table) []uint8 {
		to := make([]uint8, len(t.Labels))
		for i, l := range t.Labels {
			to[i] = uint8(slices.Index(b.labels, l))
		}
		class := make([]uint8, len(t.label))
		for i, l := range t.label {
			class[i] = to[l]
		}
		return class
	}
	b.class = number(b.table)
	all := make([]int32, 0, b.table.Rows())
	if test != nil {
		for r := range b.table.Rows() {
			all = append(all, int32(r))
		}
		b.rows = all
		every := make([]int32, test.Rows())
		for r := range every {
			every[r] = int32(r)
		}
		b.test, b.testLabels = test.matrix(every), number(test)
	} else {
		rng := named(b.p.Seed, "bench/holdout")
		for r := range b.table.Rows() {
			if int64(rng.below(1_000_000)) < b.p.HoldoutPPM {
				b.held = append(b.held, int32(r))
				b.testLabels = append(b.testLabels, b.class[r])
			} else {
				all = append(all, int32(r))
			}
		}
		b.rows = all
		b.test = b.table.matrix(b.held)
	}
	if len(b.rows) < 2 || len(b.testLabels) == 0 {
		return fmt.Errorf("%w: %d rows to fit on and %d to test", ErrBench, len(b.rows), len(b.testLabels))
	}
	return nil
}

// sortLabels orders labels by value where all are numbers, else by bytes.
func sortLabels(labels []string) {
	value := make(map[string]float64, len(labels))
	for _, l := range labels {
		v, err := strconv.ParseFloat(l, 64)
		if err != nil || math.IsNaN(v) {
			slices.Sort(labels)
			return
		}
		value[l] = v
	}
	slices.SortStableFunc(labels, func(a, b string) int {
		switch {
		case value[a] < value[b]:
			return -1
		case value[a] > value[b]:
			return 1
		case a < b:
			return -1
		}
		return 1
	})
}

// defaults fills in what was not asked for and checks what was.
func (b *bench) defaults() error {
	p := &b.p
	if p.Learner == "" {
		p.Learner = LearnerBoosting
		if p.Task == TaskAnomaly {
			p.Learner = LearnerIsolation
		}
	}
	if p.Task == "" {
		switch {
		case p.Learner == LearnerIsolation:
			p.Task = TaskAnomaly
		case len(b.labels) == 2:
			p.Task = TaskBinary
		default:
			p.Task = TaskMulticlass
		}
	}
	anomaly := p.Task == TaskAnomaly
	switch {
	case !slices.Contains([]string{TaskBinary, TaskMulticlass, TaskAnomaly}, p.Task):
		return fmt.Errorf("%w: unknown task %q: want binary, multiclass or anomaly", ErrBench, p.Task)
	case !slices.Contains([]string{LearnerForest, LearnerBoosting, LearnerIsolation}, p.Learner):
		return fmt.Errorf("%w: unknown algorithm %q: want forest, boosting or isolation", ErrBench, p.Learner)
	case anomaly != (p.Learner == LearnerIsolation):
		return fmt.Errorf("%w: %s does not do the task %s", ErrBench, p.Learner, p.Task)
	case p.Task == TaskBinary && len(b.labels) != 2:
		return fmt.Errorf("%w: a binary task needs two labels, the rows have %d: %.10q", ErrBench, len(b.labels), b.labels)
	case p.Task == TaskMulticlass && len(b.labels) < 2:
		return fmt.Errorf("%w: all rows have the label %q", ErrBench, b.labels)
	case anomaly && len(b.labels) > 2 && p.Normal == "":
		return fmt.Errorf("%w: the rows have %d labels: say which one is that of ordinary rows", ErrBench, len(b.labels))
	case !anomaly && p.Normal != "":
		return fmt.Errorf("%w: a label of ordinary rows has no effect on the task %s", ErrBench, p.Task)
	}
	forest, boosting := p.Learner == LearnerForest, p.Learner == LearnerBoosting
	trees, depth, minLeaf := 150, 5, 1
	if forest {
		trees, depth, minLeaf = 200, 20, 2
	}
	if anomaly {
		trees = 100
	}
	const most = 1 << 30
	for _, f := range []struct {
		name      string
		of        bool // the learner has this parameter
		value     *int
		usual     int
		low, high int
	}{
		{"trees", true, &p.Trees, trees, 1, 10_000},
		{"depth", !anomaly, &p.Depth, depth, 1, 60},
		{"leaves", !anomaly, &p.Leaves, most, 2, most},
		{"bins", !anomaly, &p.Bins, MaxBins, 2, MaxBins},
		{"least rows of a leaf", !anomaly, &p.MinLeaf, minLeaf, 1, most},
		{"least rows of a split", forest, &p.MinSplit, 5, 2, most},
		{"rows drawn for a tree", anomaly, &p.Sample, 256, 2, maxSample},
	} {
		switch {
		case !f.of && *f.value != 0:
			return fmt.Errorf("%w: %s: %s has no such parameter", ErrBench, f.name, p.Learner)
		case !f.of:
			continue
		case *f.value == 0:
			*f.value = f.usual
		case *f.value < f.low || *f.value > f.high:
			return fmt.Errorf("%w: %s: %d: want %d to %d", ErrBench, f.name, *f.value, f.low, f.high)
		}
	}
	if p.LearningRatePPM != 0 && !boosting {
		return fmt.Errorf("%w: learning rate: %s has no such parameter", ErrBench, p.Learner)
	}
	if p.LearningRatePPM == 0 {
		p.LearningRatePPM = 100_000
	}
	for _, f := range []struct {
		name  string
		value *int64
	}{{"L2", &p.L2Milli}, {"least hessian of a leaf", &p.MinHessianMilli}} {
		switch {
		case *f.value != 0 && !boosting:
			return fmt.Errorf("%w: %s: %s has no such parameter", ErrBench, f.name, p.Learner)
		case *f.value < 0 || *f.value > 1_000_000:
			return fmt.Errorf("%w: %s of %d thousandths: want 1 to 1,000,000", ErrBench, f.name, *f.value)
		case *f.value == 0:
			*f.value = 1000
		}
	}
	if p.HoldoutPPM == 0 {
		p.HoldoutPPM = 200_000
	}
	switch {
	case p.LearningRatePPM < 1 || p.LearningRatePPM > 1_000_000:
		return fmt.Errorf("%w: learning rate of %d millionths: want 1 to 1,000,000", ErrBench, p.LearningRatePPM)
	case p.HoldoutPPM < 1 || p.HoldoutPPM > 999_999:
		return fmt.Errorf("%w: held-out share of %d millionths: want 1 to 999,999", ErrBench, p.HoldoutPPM)
	case p.Seed < 0 || p.Seed > 1<<53-1:
		return fmt.Errorf("%w: seed %d: want 0 to 2^53-1", ErrBench, p.Seed)
	case p.Workers < 0:
		return fmt.Errorf("%w: %d threads", ErrBench, p.Workers)
	}
	return nil
}

// fit makes the model and lets go of the table.
func (b *bench) fit(m Meter) error {
	p := b.p
	width := len(b.table.Columns)
	columns := make([]int, width)
	for c := range columns {
		columns[c] = c
	}
	classes := len(b.labels)
	b.model = &benchModel{dim: width, targets: classes, kind: p.Learner}
	if p.Learner == LearnerIsolation {
		trees, size, err := growIsolation(b.ctx, IsolationParams{Trees: p.Trees, Sample: p.Sample}, p.Seed, b.table.gather, columns, b.rows, b.workers)
		if err != nil {
			return err
		}
		b.table = nil
		b.model.isolation(trees, size)
		return nil
	}
	s := samples{bins: fitBins(b.table.gather, columns, b.rows, p.Bins, b.workers)}
	b.table = nil
	s.labels, s.weights = make([]uint8, len(b.rows)), make([]int32, len(b.rows))
	for i, r := range b.rows {
		s.labels[i], s.weights[i] = b.class[r], 1<<weightBits
	}
	b.class, b.rows = nil, nil
	m.Release()
	f := form{thresholds: s.bins.thresholds, columns: columns, dim: width}
	if p.Learner == LearnerForest {
		trees, err := growForest(b.ctx, ForestParams{
			Trees: p.Trees, MaxDepth: p.Depth, MaxLeaves: p.Leaves, MaxBins: p.Bins, MinSplit: p.MinSplit, MinRows: p.MinLeaf,
		}, p.Seed, "bench", s, classes, b.workers, b.opt.rounds("forest"))
		if err != nil {
			return err
		}
		b.model.forest(trees, f)
		return nil
	}
	if classes == 2 {
		b.model.targets = 1
	}
	none := samples{bins: &bins{thresholds: s.bins.thresholds, columns: make([][]uint8, width)}}
	sum, err := boost(b.ctx, BoostParams{
		Rounds: p.Trees, Patience: p.Trees, MaxLeaves: p.Leaves, MaxDepth: p.Depth, MaxBins: p.Bins,
		LearningRatePPM: p.LearningRatePPM, L2Milli: p.L2Milli, MinHessianMilli: p.MinHessianMilli, MinRows: p.MinLeaf,
		MaxStepMilli: 10_000, ColumnsPPM: 1_000_000,
	}, p.Seed, "bench", s, none, b.model.targets, b.workers, nil, b.opt.rounds("boosting"))
	if err != nil {
		return err
	}
	b.model.boosting(sum, f)
	return nil
}

// time scores the test rows, all together and one by one.
func (b *bench) time(m Meter, r *BenchReport) error {
	width, out := b.model.dim, b.model.outputs()
	rows := len(b.testLabels)
	s := b.model.scorer()
	r.Scores = make([]float32, rows*out)
	const batch = 10_000
	start, spent, scored := m.Wall(), time.Duration(0), 0
	for again := true; again; {
		for lo := 0; lo < rows; lo += batch {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			for i := lo; i < min(lo+batch, rows); i++ {
				s.score(r.Scores[i*out:(i+1)*out], b.test[i*width:(i+1)*width])
			}
		}
		scored += rows
		spent = m.Wall() - start
		again = spent > 0 && spent < 200*time.Millisecond
	}
	if spent > 0 {
		r.BatchRate = float64(scored) / spent.Seconds()
	}
	// As many rows as the batch did in a quarter of a second, so that slow
	// models do not take for ever.
	n := 1000
	if spent > 0 {
		n = int(min(20_000, max(1000, int64(scored)*int64(250*time.Millisecond)/int64(spent))))
	}
	times := make([]time.Duration, n)
	dst := make([]float32, out)
	for i := range times {
		row := i % rows
		start := m.Wall()
		s.score(dst, b.test[row*width:(row+1)*width])
		times[i] = m.Wall() - start
	}
	slices.Sort(times)
	r.LatP50 = float64(times[n/2]) / float64(time.Microsecond)
	r.LatP99 = float64(times[n*99/100]) / float64(time.Microsecond)
	return nil
}

// measure compares the scores with the labels.
func (b *bench) measure(r *BenchReport) {
	out := b.model.outputs()
	c := newConfusion(max(2, len(b.labels)))
	ranking := make([]scored, len(b.testLabels))
	if out == 1 {
		for i, truth := range b.testLabels {
			// Labels of anomalies count as one.
			truth, said := min(truth, 1), 0
			if r.Scores[i] > 0.5 {
				said = 1
			}
			c[truth][said]++
			ranking[i] = scored{float64(r.Scores[i]), truth == 1}
		}
		r.AUC = float64(auc(ranking)) / 1e6
	} else {
		for i, truth := range b.testLabels {
			c[truth][largest(r.Scores[i*out:(i+1)*out])]++
		}
		var sum, n int64
		for k := range out {
			positive := 0
			for i, truth := range b.testLabels {
				ranking[i] = scored{float64(r.Scores[i*out+k]), int(truth) == k}
				if int(truth) == k {
					positive++
				}
			}
			if positive > 0 && positive < len(ranking) {
				sum += auc(ranking)
				n++
			}
		}
		r.AUC = float64(sum) / float64(max(1, n)) / 1e6
	}
	r.Accuracy, r.MacroF1 = float64(c.accuracy())/1e6, float64(c.macroF1())/1e6
}

// largest returns the index of the largest value, the first of equals.
func largest(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

// benchModel is a sum of trees of any size. Where the format of model files can
// hold it, it is scored as an agent does.
type benchModel struct {
	kind    string
	dim     int
	targets int
	norm    float64 // isolation: what the sum of an average row is
	bias    []int32
	unit    float64 // of bias and leaf values
	trees   []benchTree
	// When the format can hold the model, these are set, and no trees.
	small *model.Scorer
	held  *model.Ensemble
}

// benchTree adds to width neighbouring targets.
type benchTree struct {
	nodes  []benchNode // the root first; none for a single leaf
	values []int32     // by leaf, then target
	target int
	width  int
}

type benchNode struct {
	threshold   float32
	column      int32
	left, right int32 // a node, or ^leaf
}

// outputs returns the number of scores of a row.
func (b *benchModel) outputs() int {
	if b.kind == LearnerIsolation || b.targets <= 2 {
		return 1
	}
	return b.targets
}

func (f *form) bench(t *tree) []benchNode {
	nodes := make([]benchNode, len(t.nodes))
	for i, n := range t.nodes {
		nodes[i] = benchNode{f.thresholds[n.column][n.bin], int32(f.columns[n.column]), n.left, n.right}
	}
	return nodes
}

// hold keeps e as the model when the format of model files can hold it.
func (b *benchModel) hold(e *model.Ensemble) bool {
	s, err := model.NewScorer(e)
	if err != nil {
		return false
	}
	b.small, b.held, b.unit = s, e, math.Ldexp(1, -e.Shift)
	return true
}

func (b *benchModel) isolation(trees []isolationTree, size int) {
	b.targets, b.bias, b.unit = 1, []int32{0}, math.Ldexp(1, -pathBits)
	b.norm = float64(float64(len(trees)) * math.Ldexp(float64(averagePath(size)), -pathBits))
	e := &model.Ensemble{Dim: b.dim, Targets: 1, Shift: pathBits, Transform: model.Isolation, Norm: b.norm}
	for i := range trees {
		e.Trees = append(e.Trees, trees[i].model())
	}
	if b.hold(e) {
		return
	}
	for i := range trees {
		t := benchTree{values: trees[i].path, width: 1}
		for _, n := range trees[i].nodes {
			t.nodes = append(t.nodes, benchNode{n.threshold, n.column, n.left, n.right})
		}
		b.trees = append(b.trees, t)
	}
}

func (b *benchModel) forest(trees []tree, f form) {
	b.bias, b.unit = make([]int32, b.targets), math.Ldexp(1.0/voteScale, -scoreBits)
	b.trees = make([]benchTree, len(trees))
	for i := range trees {
		b.trees[i] = benchTree{nodes: f.bench(&trees[i]), values: trees[i].values, width: b.targets}
		trees[i] = tree{}
	}
}

func (b *benchModel) boosting(sum *additive, f form) {
	b.bias, b.unit = sum.bias, math.Ldexp(1, -scoreBits)
	f.transform = model.Sigmoid
	if b.targets > 1 {
		f.transform = model.Softmax
		for k := range b.targets {
			f.classes = append(f.classes, strconv.Itoa(k))
		}
	}
	nodes := 0
	for _, round := range sum.rounds {
		for t := range round {
			nodes += len(round[t].nodes)
		}
	}
	if nodes <= model.MaxNodes && b.hold(sum.ensemble(len(sum.rounds), betaOne, f)) {
		return
	}
	for _, round := range sum.rounds {
		for t := range round {
			b.trees = append(b.trees, benchTree{nodes: f.bench(&round[t]), values: round[t].values, target: t, width: 1})
		}
	}
}

// describe fills in what a model is.
func (b *benchModel) describe(r *BenchReport) error {
	h, size := sha256.New(), 0
	if b.held != nil {
		file, err := model.EncodeEnsemble(b.held)
		if err != nil {
			return err
		}
		size, _ = h.Write(file)
		r.Trees = len(b.held.Trees)
		for i := range b.held.Trees {
			r.Nodes += len(b.held.Trees[i].Nodes)
		}
	} else {
		r.Trees = len(b.trees)
		for i := range b.trees {
			r.Nodes += 2*len(b.trees[i].nodes) + 1
		}
		var buf []byte
		flush := func() {
			n, _ := h.Write(buf)
			size, buf = size+n, buf[:0]
		}
		u32 := func(v int32) { buf = binary.LittleEndian.AppendUint32(buf, uint32(v)) }
		for _, v := range b.bias {
			u32(v)
		}
		for i := range b.trees {
			t := &b.trees[i]
			u32(int32(t.target))
			u32(int32(len(t.nodes)))
			for _, n := range t.nodes {
				u32(int32(math.Float32bits(n.threshold)))
				u32(n.column)
				u32(n.left)
				u32(n.right)
			}
			for _, v := range t.values {
				u32(v)
			}
			flush()
		}
	}
	r.Size, r.SHA = float64(float64(size)/(1<<10)), hex.EncodeToString(h.Sum(nil))
	return nil
}

// benchScorer scores row after row in room of its own.
type benchScorer struct {
	*benchModel
	narrow []int32
	sums   []int64
	powers []float64
}

func (b *benchModel) scorer() *benchScorer {
	return &benchScorer{b, make([]int32, b.targets), make([]int64, b.targets), make([]float64, b.targets)}
}

// score writes the scores of row x to dst.
func (s *benchScorer) score(dst, x []float32) {
	if s.small != nil {
		s.small.Sums(s.narrow, x)
		for t, v := range s.narrow {
			s.sums[t] = int64(v)
		}
	} else {
		s.walk(x)
	}
	switch {
	case s.kind == LearnerIsolation:
		dst[0] = float32(detmath.Exp2(-(float64(float64(s.sums[0])*s.unit) / s.norm)))
	case s.kind == LearnerForest:
		// Of two classes the second. Leaves are rounded, so that shares that
		// are all of a row may sum to a little more.
		sums := s.sums[len(s.sums)-len(dst):]
		for t, v := range sums {
			dst[t] = float32(min(1, float64(float64(v)*s.unit)))
		}
	case len(dst) == 1:
		dst[0] = float32(detmath.Sigmoid(float64(float64(s.sums[0]) * s.unit)))
	default:
		top, total := slices.Max(s.sums), 0.0
		for t, v := range s.sums {
			s.powers[t] = detmath.Exp(float64(float64(v-top) * s.unit))
			total += s.powers[t]
		}
		for t := range dst {
			dst[t] = float32(s.powers[t] / total)
		}
	}
}

func (s *benchScorer) walk(x []float32) {
	for t, v := range s.bias {
		s.sums[t] = int64(v)
	}
	for i := range s.trees {
		t := &s.trees[i]
		at := int32(0)
		if len(t.nodes) == 0 {
			at = -1
		}
		for at >= 0 {
			n := &t.nodes[at]
			if x[n.column] <= n.threshold {
				at = n.left
			} else {
				at = n.right
			}
		}
		leaf := int(^at) * t.width
		for k := range t.width {
			s.sums[t.target+k] += int64(t.values[leaf+k])
		}
	}
}
