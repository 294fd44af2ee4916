package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// ErrTooFew: a snapshot does not hold what models can be learnt from. The
// message says what is missing.
var ErrTooFew = errors.New("too little to learn from")

const (
	minRows   = 100 // labelled rows
	minSide   = 10  // training rows on each side of a yes-or-no question
	minBenign = 10  // training rows of the anomaly detector; half as many must validate it
)

// Options decide how a training runs, never what comes out.
type Options struct {
	Workers  int                                   // goroutines; 0 for one per CPU
	Progress func(stage string, done, total int64) // called now and then from one goroutine at a time; may be nil
}

func (o Options) workers() int {
	if o.Workers > 0 {
		return o.Workers
	}
	return runtime.GOMAXPROCS(0)
}

// progress reports every thousandth row and the last.
func (o Options) progress(stage string, done, total int64) {
	if o.Progress != nil && (done%1024 == 0 || done == total) {
		o.Progress(stage, done, total)
	}
}

func (o Options) rounds(stage string) func(done, total int) {
	return func(done, total int) {
		if o.Progress != nil {
			o.Progress(stage, int64(done), int64(total))
		}
	}
}

// File is one model file of a release.
type File struct {
	Name string
	Data []byte
}

// Result is a trained release without its name: all of it is decided by the
// snapshot and the recipe.
type Result struct {
	Files    []File         // the four, in the order of model.Files
	Recipe   jsontext.Value // canonical JSON, as-of time and half-life resolved
	Features jsontext.Value // canonical JSON of feature.Config
	Scoring  jsontext.Value // canonical JSON of model.Scoring
	Metrics  jsontext.Value // canonical JSON of Metrics
	Summary  Summary        // for people
}

// Train learns the four models from a snapshot.
//
// The bytes of the result depend on the snapshot and the recipe alone: not on
// Options, the number or kind of CPUs, or the order in which goroutines run.
//
// A recipe that breaks a bound is ErrRecipe. ErrTooFew: fewer than 100
// labelled rows, fewer than two classes with enough training rows, no benign
// records for the anomaly detector, or no records with address and time of
// both good and bad level for the reputation model. There is no release of
// fewer than four models: one that never alarms would look like one that finds
// nothing. A broken snapshot is dataset.ErrCorrupt. When ctx is done its error
// is returned.
func Train(ctx context.Context, s *dataset.Snapshot, r Recipe, opt Options) (*Result, error) {
	m, err := BuildMatrix(ctx, s, r, opt)
	if err != nil {
		return nil, err
	}
	return m.Train(ctx, opt)
}

// Train is the function Train from the matrix on.
func (m *Matrix) Train(ctx context.Context, opt Options) (*Result, error) {
	if err := m.enough(); err != nil {
		return nil, err
	}
	t := &trainer{m: m, opt: opt, files: map[string][]byte{}}
	for _, stage := range []func(context.Context) error{t.scaler, t.anomaly, t.classifier, t.reputation, t.score} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := stage(ctx); err != nil {
			return nil, err
		}
	}
	return t.result()
}

// enough says what a matrix lacks.
func (m *Matrix) enough() error {
	var labelled, benign, benignValid int64
	perClass := make([]int64, len(m.Classes))
	var side [2]int64
	for i := range m.Rows {
		row := &m.Rows[i]
		if row.Class >= 0 && !row.made() {
			labelled++
			if row.Part == Training {
				perClass[row.Class]++
			}
			if m.isBenignRecord(row) {
				switch row.Part {
				case Training:
					benign++
				case Validation:
					benignValid++
				}
			}
		}
		if row.Bad >= 0 && row.Part == Training {
			side[row.Bad]++
		}
	}
	lack := func(format string, a ...any) error {
		return fmt.Errorf("%w: %s%s", ErrTooFew, fmt.Sprintf(format, a...), reasons(m.Count.Dropped))
	}
	classes := 0
	for _, n := range perClass {
		if n > 0 {
			classes++
		}
	}
	switch {
	case labelled < minRows:
		return lack("%d labelled rows can be used, at least %d are needed", labelled, minRows)
	case classes < 2:
		return lack("all labelled rows are of one class %q with at least %d training rows, at least two classes are needed", m.Classes, m.Recipe.MinClassRows)
	case benign < minBenign || benignValid < minBenign/2:
		return lack("the anomaly detector needs benign records, %d for training and %d for validation, and has %d and %d: add ordinary traffic, for instance an access log with class=benign", minBenign, minBenign/2, benign, benignValid)
	case side[1] < minSide:
		return lack("the reputation model needs records with address, time and level DANGEROUS or CRITICAL, %d for training, and has %d: add attack records, a honeypot log or sshd log (with year=) ", minSide, side[1])
	case side[0] < minSide:
		return lack("the reputation model needs records with address, time and a level below DANGEROUS, %d for training, and has %d: add ordinary traffic with addresses, for instance an access log with class=benign", minSide, side[0])
	}
	return nil
}

func (m *Matrix) isBenignRecord(r *Row) bool {
	return !r.isTitle() && !r.made() && r.Class >= 0 && m.Classes[r.Class] == classBenign
}

// where returns the rows for which keep is true, ascending.
func (m *Matrix) where(keep func(r *Row) bool) []int32 {
	var rows []int32
	for i := range m.Rows {
		if keep(&m.Rows[i]) {
			rows = append(rows, int32(i))
		}
	}
	return rows
}

// trainer is one run of Train.
type trainer struct {
	m   *Matrix
	opt Options

	files   map[string][]byte
	scale   *model.Scaler
	scoring model.Scoring
	metrics Metrics
	encoded []byte // scoring
}

func (t *trainer) scaler(context.Context) error {
	m := t.m
	t.scale = fitScaler(m.X, m.Dim, m.where(func(r *Row) bool { return r.Part == Training && !r.Derived }), t.opt.workers())
	b, err := model.EncodeScaler(t.scale)
	if err != nil {
		return fmt.Errorf("scaler: %w", err)
	}
	t.files[model.ScalerFile] = b
	return nil
}

// scaled returns the scaled features of the given rows, row-major.
func (t *trainer) scaled(rows []int32) []float32 {
	m := t.m
	x := make([]float32, len(rows)*m.Dim)
	for i, r := range rows {
		t.scale.Apply(x[i*m.Dim:(i+1)*m.Dim], m.row(r))
	}
	return x
}

// minQuantile is the number of validation rows from which a source has a say
// in the threshold of anomalies.
const minQuantile = 100

// anomaly fits the detector on benign records. Its threshold gives at most the
// asked share of alarms on benign validation rows, on all of them and on those
// of each source that has enough: a quiet source cannot pay for the alarms of
// another.
func (t *trainer) anomaly(ctx context.Context) error {
	m, p := t.m, t.m.Recipe.Anomaly
	rows := m.where(func(r *Row) bool { return m.isBenignRecord(r) && r.Part == Training })
	// Trees look at a few thousand rows in all; more need not be scaled.
	const most = 1 << 16
	if len(rows) > most {
		drawn := make([]int32, 0, most)
		for _, i := range named(m.Recipe.Seed, "anomaly/rows").sample(len(rows), most) {
			drawn = append(drawn, rows[i])
		}
		rows = drawn
	}
	trees, size, err := growIsolation(ctx, p, m.Recipe.Seed, rowMajor(t.scaled(rows), m.Dim), feature.ForAnomaly(), m.spread(rows), t.opt.workers())
	if err != nil {
		return err
	}
	e := &model.Ensemble{Dim: m.Dim, Targets: 1, Shift: pathBits, Transform: model.Isolation}
	for i := range trees {
		e.Trees = append(e.Trees, trees[i].model())
	}
	b, err := cutTrees(e, p.MaxBytes, func(n int) {
		e.Norm = float64(float64(n) * math.Ldexp(float64(averagePath(size)), -pathBits))
	})
	if err != nil {
		return fmt.Errorf("anomaly detector: %w", err)
	}
	t.files[model.AnomalyFile] = b
	t.opt.rounds("anomaly")(len(e.Trees), len(e.Trees))

	valid := m.where(func(r *Row) bool { return m.isBenignRecord(r) && r.Part == Validation })
	bySource := make([][]int64, len(m.Sources))
	all := make([]int64, len(valid))
	x := make([]float32, m.Dim)
	for i, r := range valid {
		t.scale.Apply(x, m.row(r))
		for k := range e.Trees {
			all[i] += int64(trees[k].length(x))
		}
		source := m.Rows[r].Source
		bySource[source] = append(bySource[source], all[i])
	}
	slices.Sort(all)
	threshold := lowest(all, m.Recipe.ContaminationPPM)
	for _, sums := range bySource {
		if len(sums) >= minQuantile {
			slices.Sort(sums)
			threshold = min(threshold, lowest(sums, m.Recipe.ContaminationPPM))
		}
	}
	t.scoring.Anomaly = model.AnomalyRule{
		Contamination: int(m.Recipe.ContaminationPPM), Shift: pathBits,
		Threshold: int(max(-1, threshold)),
	}
	t.metrics.Anomaly.Trees = int64(len(e.Trees))
	return nil
}

// spread returns positions in rows, once for the source that has most rows, and
// for others twice as long as they are then fewer: what a small source holds
// would be rare in every sample, and so an anomaly.
func (m *Matrix) spread(rows []int32) []int32 {
	count := make([]int, len(m.Sources))
	for _, r := range rows {
		count[m.Rows[r].Source]++
	}
	most := slices.Max(count)
	index := make([]int32, 0, 2*len(rows))
	for i := range rows {
		index = append(index, int32(i))
	}
	again := make([]int, len(m.Sources)) // rows of a source that are there a second time
	for i, r := range rows {
		if s := m.Rows[r].Source; count[s]+again[s] < most && again[s] < count[s] {
			again[s]++
			index = append(index, int32(i))
		}
	}
	return index
}

// model returns the tree in the form of the model files.
func (t *isolationTree) model() model.Tree {
	if len(t.nodes) == 0 {
		return model.Tree{Nodes: []model.Node{{Leaf: true, Value: t.path[0]}}}
	}
	n := len(t.nodes)
	at := func(child int32) int32 {
		if child < 0 {
			return int32(n) + ^child
		}
		return child
	}
	var o model.Tree
	for _, s := range t.nodes {
		o.Nodes = append(o.Nodes, model.Node{Feature: s.column, Threshold: s.threshold, Left: at(s.left), Right: at(s.right)})
	}
	for _, p := range t.path {
		o.Nodes = append(o.Nodes, model.Node{Leaf: true, Value: p})
	}
	return o
}

// cutTrees encodes e with as many of its trees, from the first, as fit into
// maxBytes. set is told the number before each attempt.
func cutTrees(e *model.Ensemble, maxBytes int, set func(trees int)) ([]byte, error) {
	for all := e.Trees; len(e.Trees) > 0; {
		set(len(e.Trees))
		b, err := model.EncodeEnsemble(e)
		if err != nil {
			return nil, err
		}
		if len(b) <= maxBytes {
			return b, nil
		}
		// One attempt more or less lands: trees are of about one size.
		e.Trees = all[:min(len(e.Trees)-1, len(e.Trees)*maxBytes/len(b))]
	}
	return nil, fmt.Errorf("not one tree fits into %d bytes", maxBytes)
}

// pick gathers the rows of a part as samples for a learner, with columns
// binned by thresholds of like, or of itself when like is nil.
func (t *trainer) pick(rows []int32, columns []int, maxBins int, like *bins, label func(r *Row) uint8) samples {
	s := samples{labels: make([]uint8, len(rows)), weights: make([]int32, len(rows))}
	for i, r := range rows {
		s.labels[i], s.weights[i] = label(&t.m.Rows[r]), t.m.Rows[r].Weight
	}
	if like == nil {
		s.bins = fitBins(rowMajor(t.m.X, t.m.Dim), columns, rows, maxBins, t.opt.workers())
	} else {
		s.bins = like.apply(rowMajor(t.m.X, t.m.Dim), columns, rows, t.opt.workers())
	}
	return s
}

// fewLight is the weight, in rows, below which the light rows of one class are
// not made lighter together.
const fewLight = 8

// lighten makes the light rows of each class count ppm parts in a million of
// what they weigh, but together as many as fewLight if there are so many, and
// each at least 1: a rare class may be known by little else. rows are those of s.
func (t *trainer) lighten(s samples, rows []int32, ppm int64) samples {
	sum := make([]int64, len(t.m.Classes))
	for i, r := range rows {
		if t.m.Rows[r].isLight() {
			sum[s.labels[i]] += int64(s.weights[i])
		}
	}
	s.weights = slices.Clone(s.weights)
	for i, r := range rows {
		if t.m.Rows[r].isLight() {
			all := sum[s.labels[i]]
			share := max(all*ppm/1_000_000, min(all, fewLight*unitWeight))
			s.weights[i] = int32(max(1, int64(s.weights[i])*share/all))
		}
	}
	return s
}

func (s samples) balanced(classes int, p BoostParams) samples {
	s.weights = balance(s.weights, s.labels, classes, p.BalancePPM, p.BalanceLimitMilli)
	return s
}

// within returns a function that says whether a sum of trees may still fit
// into a file: it counts 16 bytes, which is less than any split takes.
func within(maxBytes int) func(*additive) bool {
	splits, rounds := 0, 0
	return func(a *additive) bool {
		for ; rounds < len(a.rounds); rounds++ {
			for _, tr := range a.rounds[rounds] {
				splits += len(tr.nodes)
			}
		}
		return 16*splits < maxBytes
	}
}

func (t *trainer) classifier(ctx context.Context) error {
	m, workers := t.m, t.opt.workers()
	columns := feature.ForClassifier()
	classes := len(m.Classes)
	train := m.where(func(r *Row) bool { return r.Class >= 0 && r.Part == Training })
	valid := m.where(func(r *Row) bool { return r.Class >= 0 && r.Part == Validation })
	label := func(r *Row) uint8 { return uint8(r.Class) }
	light := func(s samples, rows []int32) samples { return t.lighten(s, rows, m.Recipe.LightPPM) }
	f := form{columns: columns, dim: m.Dim, transform: model.Softmax, classes: m.Classes}
	var sum *additive
	var plain samples
	var maxBytes int
	if p := m.Recipe.Classifier.Boosting; p != nil {
		s := t.pick(train, columns, p.MaxBins, nil, label)
		plain = t.pick(valid, columns, p.MaxBins, s.bins, label)
		f.thresholds, maxBytes = s.bins.thresholds, p.MaxBytes
		var err error
		sum, err = boost(ctx, *p, m.Recipe.Seed, "classifier", light(s, train).balanced(classes, *p), light(plain, valid).balanced(classes, *p), classes, workers, within(p.MaxBytes), t.opt.rounds("classifier"))
		if err != nil {
			return fmt.Errorf("classifier: %w", err)
		}
	} else {
		p := m.Recipe.Classifier.Forest
		s := t.pick(train, columns, p.MaxBins, nil, label)
		plain = t.pick(valid, columns, p.MaxBins, s.bins, label)
		f.thresholds, maxBytes = s.bins.thresholds, p.MaxBytes
		trees, err := growForest(ctx, *p, m.Recipe.Seed, "classifier", light(s, train), classes, workers, t.opt.rounds("classifier"))
		if err != nil {
			return fmt.Errorf("classifier: %w", err)
		}
		sum = forestSum(trees, classes)
	}
	data, rounds, beta, err := sum.fit(plain, maxBytes, f, workers)
	if err != nil {
		return fmt.Errorf("classifier: %w", err)
	}
	t.files[model.ClassifierFile] = data
	t.metrics.Classifier.Rounds, t.metrics.Classifier.BetaMilli = int64(rounds), beta*1000/betaOne
	t.scoring.Classes = m.Classes
	return nil
}

func (t *trainer) reputation(ctx context.Context) error {
	m, p, workers := t.m, t.m.Recipe.Reputation, t.opt.workers()
	columns := feature.ForReputation()
	label := func(r *Row) uint8 { return uint8(r.Bad) }
	s := t.pick(m.where(func(r *Row) bool { return r.Bad >= 0 && r.Part == Training }), columns, p.MaxBins, nil, label)
	plain := t.pick(m.where(func(r *Row) bool { return r.Bad >= 0 && r.Part == Validation }), columns, p.MaxBins, s.bins, label)
	sum, err := boost(ctx, p, m.Recipe.Seed, "reputation", s.balanced(2, p), plain.balanced(2, p), 1, workers, within(p.MaxBytes), t.opt.rounds("reputation"))
	if err != nil {
		return fmt.Errorf("reputation: %w", err)
	}
	f := form{thresholds: s.bins.thresholds, columns: columns, dim: m.Dim, transform: model.Sigmoid}
	data, rounds, beta, err := sum.fit(plain, p.MaxBytes, f, workers)
	if err != nil {
		return fmt.Errorf("reputation: %w", err)
	}
	t.files[model.ReputationFile] = data
	t.metrics.Reputation.Rounds, t.metrics.Reputation.BetaMilli = int64(rounds), beta*1000/betaOne
	t.scoring.Reputation.Threshold = 500_000
	return nil
}

// score opens the four files as an agent does, chooses the last threshold on
// validation rows and measures on test rows.
func (t *trainer) score(context.Context) error {
	m := t.m
	t.scoring.Dim = m.Dim
	var err error
	if t.scoring.Files, err = model.Sizes(t.files); err != nil {
		return fmt.Errorf("checking the models: %w", err)
	}
	set, err := t.open()
	if err != nil {
		return err
	}
	rows := m.where(func(r *Row) bool { return r.Part != Training })
	out := scoreRows(m, set, rows, t.opt)
	t.scoring.Reputation.Threshold = out.reputationThreshold()
	if _, err = t.open(); err != nil {
		return err
	}
	out.measure(&t.metrics, t.scoring.Reputation.Threshold)
	return nil
}

func (t *trainer) open() (*model.Set, error) {
	var err error
	if t.encoded, err = t.scoring.Encode(); err != nil {
		return nil, fmt.Errorf("scoring: %w", err)
	}
	set, err := model.Open(t.files, t.encoded)
	if err != nil {
		return nil, fmt.Errorf("checking the models: %w", err)
	}
	return set, nil
}

func (t *trainer) result() (*Result, error) {
	res := &Result{Scoring: t.encoded}
	for _, name := range model.Files() {
		res.Files = append(res.Files, File{name, t.files[name]})
	}
	var err error
	if res.Recipe, err = canon.Marshal(t.m.Recipe); err != nil {
		return nil, fmt.Errorf("recipe: %w", err)
	}
	if res.Features, err = t.m.Config.Marshal(); err != nil {
		return nil, fmt.Errorf("feature configuration: %w", err)
	}
	if res.Metrics, err = canon.Marshal(t.metrics); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	res.Summary = t.m.summary(t.metrics)
	return res, nil
}
