package trainer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/detmath"
)

// quadrants makes rows whose class is decided by two columns jointly, with
// noise columns and a share of wrong labels.
func quadrants(seed uint64, rows, classes int) (x []float32, width int, labels []uint8) {
	p := newPCG(seed, 99)
	width = 12
	x = make([]float32, rows*width)
	labels = make([]uint8, rows)
	for r := range rows {
		row := x[r*width : (r+1)*width]
		for c := range row {
			row[c] = float32(p.below(1000))
		}
		k := 0
		if row[2] > 500 {
			k++
		}
		if row[7] > 400 {
			k ^= 3
		}
		if p.below(20) == 0 {
			k = int(p.below(4))
		}
		labels[r] = uint8(k % classes)
	}
	return x, width, labels
}

func quadrantSamples(seed uint64, rows, classes int) (train, valid samples, f form) {
	x, width, labels := quadrants(seed, rows, classes)
	columns := make([]int, width)
	for c := range columns {
		columns[c] = c
	}
	var a, b []int32
	for r := range rows {
		if r%4 == 0 {
			b = append(b, int32(r))
		} else {
			a = append(a, int32(r))
		}
	}
	pick := func(rows []int32) (s samples) {
		for _, r := range rows {
			s.labels = append(s.labels, labels[r])
			s.weights = append(s.weights, 1<<weightBits)
		}
		return s
	}
	train, valid = pick(a), pick(b)
	train.bins = fitBins(rowMajor(x, width), columns, a, 255, 2)
	valid.bins = train.bins.apply(rowMajor(x, width), columns, b, 2)
	return train, valid, form{thresholds: train.bins.thresholds, columns: columns, dim: width}
}

var testBoost = BoostParams{
	Rounds: 30, Patience: 5, MaxLeaves: 8, MaxDepth: 4, MaxBins: 255, LearningRatePPM: 300_000, L2Milli: 1000,
	MinHessianMilli: 100, MinRows: 5, MaxStepMilli: 4000, ColumnsPPM: 700_000, BalanceLimitMilli: 1000, MaxBytes: 1 << 20,
}

func errorsOf(s samples, scores [][]int32) int {
	wrong := 0
	for r, label := range s.labels {
		said := 0
		if len(scores) == 1 {
			if scores[0][r] > 0 {
				said = 1
			}
		} else {
			for t := range scores {
				if scores[t][r] > scores[said][r] {
					said = t
				}
			}
		}
		if said != int(label) {
			wrong++
		}
	}
	return wrong
}

func TestBoostingLearnsWhatTwoColumnsDecideTogether(t *testing.T) {
	for _, targets := range []int{1, 4} {
		train, valid, _ := quadrantSamples(1, 4000, max(2, targets))
		a, err := boost(context.Background(), testBoost, 1, "test", train, valid, targets, 2, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := a.bestRounds(len(a.rounds), valid.bins.rows)
		if n == 0 || a.losses[n] >= a.losses[0]*3/4 {
			t.Errorf("%d targets: loss %d after %d rounds, %d before", targets, a.losses[n], n, a.losses[0])
		}
		// One label in twenty was drawn at random: 1,000 rows allow 50.
		if wrong := errorsOf(valid, a.scores(valid.bins, n, 1)); wrong > 70 {
			t.Errorf("%d targets: %d of %d wrong", targets, wrong, valid.bins.rows)
		}
		if wrong := errorsOf(valid, a.scores(valid.bins, 0, 1)); wrong < 300 {
			t.Errorf("%d targets: %d wrong without any tree: the test proves nothing", targets, wrong)
		}
	}
}

func TestBoostingIsTheSameForAnyNumberOfWorkers(t *testing.T) {
	for _, targets := range []int{1, 4} {
		train, valid, _ := quadrantSamples(2, 6000, max(2, targets))
		run := func(seed int64, workers int) *additive {
			a, err := boost(context.Background(), testBoost, seed, "test", train, valid, targets, workers, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		one := run(1, 1)
		for _, workers := range []int{2, 3, 7} {
			if !reflect.DeepEqual(one, run(1, workers)) {
				t.Errorf("%d targets, %d workers: other trees", targets, workers)
			}
		}
		if reflect.DeepEqual(one, run(2, 1)) {
			t.Errorf("%d targets: another seed draws the same columns", targets)
		}
	}
}

func TestPackedAndWideSumsGrowTheSameTrees(t *testing.T) {
	// With statistics so small that packing rounds nothing, cells of either
	// kind must lead to the same tree.
	p := newPCG(8, 8)
	m := randomBins(p, 800, 20)
	grow := func(wide bool) *tree {
		s := &gradients{tiles: newTiles(m, allColumns(m), 2, 2), workers: 2, lambda: 3, minRows: 3, minH: 10}
		q := newPCG(3, 3)
		rows := make([]int32, m.rows)
		for r := range rows {
			rows[r] = int32(r)
			g, h := int64(q.below(100))-50, int64(q.below(30))
			if wide {
				s.g, s.h = append(s.g, g), append(s.h, h)
			} else {
				s.packed = append(s.packed, g<<32+h)
			}
		}
		tr, _ := (&grower{of: m, cols: s.tiles.cols, maxLeaves: 40}).grow(s, rows)
		return tr
	}
	if narrow, wide := grow(false), grow(true); !reflect.DeepEqual(narrow, wide) || narrow.leaves < 20 {
		t.Errorf("%d leaves packed, %d wide", narrow.leaves, wide.leaves)
	}
}

func TestBoostingRefusesWeightsThatOverflow(t *testing.T) {
	train, valid, _ := quadrantSamples(1, 400, 2)
	if _, err := boost(context.Background(), testBoost, 1, "test", train, valid, 1, 1, nil, nil); err != nil {
		t.Fatal(err)
	}
	// As many rows as would be needed cannot be held in a test; a weight of
	// their sum stands for them.
	big := train
	big.weights = make([]int32, 1<<23)
	for i := range big.weights {
		big.weights[i] = maxWeight
	}
	if _, err := boost(context.Background(), testBoost, 1, "test", big, valid, 1, 1, nil, nil); err == nil {
		t.Error("sums that overflow are accepted")
	}
}

func TestBoostingStopsWhenAskedTo(t *testing.T) {
	train, valid, _ := quadrantSamples(1, 400, 2)
	ctx, cancel := context.WithCancel(context.Background())
	rounds := 0
	_, err := boost(ctx, testBoost, 1, "test", train, valid, 1, 1, nil, func(done, _ int) {
		if rounds = done; done == 2 {
			cancel()
		}
	})
	if err == nil || rounds != 2 {
		t.Errorf("%d rounds, error %v", rounds, err)
	}
	a, err := boost(context.Background(), testBoost, 1, "test", train, valid, 1, 1, func(a *additive) bool { return len(a.rounds) < 3 }, nil)
	if err != nil || len(a.rounds) != 3 {
		t.Errorf("%d rounds, error %v", len(a.rounds), err)
	}
}

func TestForestLearnsAndIsTheSameForAnyNumberOfWorkers(t *testing.T) {
	train, valid, _ := quadrantSamples(3, 3000, 4)
	p := ForestParams{Trees: 20, MaxDepth: 12, MaxLeaves: 400, MaxBins: 255, MinSplit: 5, MinRows: 2}
	run := func(seed int64, workers int) []tree {
		trees, err := growForest(context.Background(), p, seed, "test", train, 4, workers, nil)
		if err != nil {
			t.Fatal(err)
		}
		return trees
	}
	one := run(1, 1)
	if !reflect.DeepEqual(one, run(1, 2)) || !reflect.DeepEqual(one, run(1, 5)) {
		t.Error("workers change the forest")
	}
	if reflect.DeepEqual(one, run(2, 1)) {
		t.Error("another seed grows the same forest")
	}
	a := forestSum(one, 4)
	if wrong := errorsOf(valid, a.scores(valid.bins, len(a.rounds), 2)); wrong > valid.bins.rows/8 {
		t.Errorf("%d of %d wrong", wrong, valid.bins.rows)
	}
	for r := range valid.bins.rows {
		var sum int64
		for _, s := range a.scores(valid.bins, len(a.rounds), 2) {
			sum += int64(s[r])
		}
		if d := sum - voteScale<<scoreBits; d > 100 || d < -100 {
			t.Fatalf("class shares sum to %d units, want %d", sum, voteScale<<scoreBits)
		}
		if r > 20 {
			break
		}
	}
}

func TestEngineGolden(t *testing.T) {
	// Trees of integers from integers: the same on every CPU.
	h := sha256.New()
	for _, targets := range []int{1, 4} {
		train, valid, _ := quadrantSamples(9, 3000, max(2, targets))
		a, err := boost(context.Background(), testBoost, 1, "golden", train, valid, targets, 2, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, round := range a.rounds {
			for _, tr := range round {
				fmt.Fprintln(h, tr.nodes, tr.values)
			}
		}
		fmt.Fprintln(h, a.bias, a.losses, calibrate(valid, a.scores(valid.bins, len(a.rounds), 1), 1))
	}
	x, rows := cloud(500, 10)
	trees, _, err := growIsolation(context.Background(), IsolationParams{Trees: 9, Sample: 64}, 1, rowMajor(x, 10), []int{0, 2, 3, 4, 6, 8}, rows, 2)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(h, trees)
	train, _, _ := quadrantSamples(9, 1000, 4)
	forest, err := growForest(context.Background(), ForestParams{Trees: 5, MaxDepth: 9, MaxLeaves: 99, MaxBins: 255, MinSplit: 5, MinRows: 2}, 1, "golden", train, 4, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(h, forest)
	const want = "d78ca31148840e2326cbcfa3049976ff41cc0a610a0f1b5d37aaf9ab47d83890"
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("the engine makes %s, want %s", got, want)
	}
}

func BenchmarkBoosting(b *testing.B) {
	const rows, columns = 100_000, 64
	p := newPCG(1, 1)
	m := &bins{rows: rows}
	for range columns {
		col := make([]uint8, rows)
		for i := range col {
			col[i] = uint8(p.below(MaxBins))
		}
		m.columns = append(m.columns, col)
		m.thresholds = append(m.thresholds, make([]float32, MaxBins-1))
	}
	s := samples{bins: m, labels: make([]uint8, rows), weights: make([]int32, rows)}
	for r := range s.labels {
		s.weights[r] = unitWeight
		if int(m.columns[3][r])+int(m.columns[9][r])+int(p.below(200)) > 350 {
			s.labels[r] = 1
		}
	}
	q := testBoost
	q.Rounds, q.MaxLeaves, q.MaxDepth, q.ColumnsPPM = 20, 31, 10, 1_000_000
	none := samples{bins: &bins{thresholds: m.thresholds, columns: make([][]uint8, columns)}}
	for b.Loop() {
		if _, err := boost(context.Background(), q, 1, "bench", s, none, 1, 2, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(rows*columns*float64(q.Rounds)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrowcol/s")
}

func BenchmarkForest(b *testing.B) {
	train, _, _ := quadrantSamples(1, 40_000, 4)
	p := ForestParams{Trees: 20, MaxDepth: 20, MaxLeaves: 65_535, MaxBins: 255, MinSplit: 5, MinRows: 2}
	for b.Loop() {
		if _, err := growForest(context.Background(), p, 1, "bench", train, 4, 2, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(train.bins.rows)*float64(p.Trees)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrowtree/s")
}

func TestProbabilitiesAreCloseToTheCurves(t *testing.T) {
	const one = 1 << probBits
	var scores []int32
	p := newPCG(2, 2)
	for range 20_000 {
		scores = append(scores, int32(p.below(40<<scoreBits))-20<<scoreBits)
	}
	scores = append(scores, 0, 1, -1, math.MaxInt32, -math.MaxInt32, 18<<scoreBits, 18<<scoreBits+1<<(scoreBits-curveStep-1)-1)
	probs := make([]uint32, len(scores))
	logistic(probs, scores)
	opposite := make([]uint32, 1)
	for i, s := range scores {
		exact := math.Ldexp(detmath.Sigmoid(math.Ldexp(float64(s), -scoreBits)), probBits)
		if math.Abs(float64(probs[i])-exact) > 0.75 {
			t.Fatalf("score %d: %d units, exact %v", s, probs[i], exact)
		}
		logistic(opposite, []int32{-s})
		if s != 0 && opposite[0] != one-probs[i] {
			t.Fatalf("score %d: %d units, its opposite %d", s, probs[i], opposite[0])
		}
	}
	e := make([]float64, 3)
	for range 20_000 {
		s := [][]int32{{int32(p.below(30 << scoreBits))}, {int32(p.below(30 << scoreBits))}, {-int32(p.below(30 << scoreBits))}}
		top := max(s[0][0], s[1][0], s[2][0])
		sum := softmax(s, 0, e)
		if sum != e[0]+e[1]+e[2] {
			t.Fatal("the sum is not that of the parts")
		}
		for k := range e {
			exact := detmath.Exp(math.Ldexp(float64(s[k][0]-top), -scoreBits))
			if math.Abs(e[k]-exact) > math.Ldexp(exact, -27)+math.Ldexp(1, -25) {
				t.Fatalf("scores %v: %v, exact %v", s, e[k], exact)
			}
		}
	}
}
