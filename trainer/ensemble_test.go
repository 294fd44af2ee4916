package trainer

import (
	"context"
	"math"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/detmath"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

func quadrantModel(t *testing.T, targets int) (*additive, samples, samples, form) {
	t.Helper()
	train, valid, f := quadrantSamples(4, 3000, max(2, targets))
	f.transform = model.Sigmoid
	if targets > 1 {
		f.transform, f.classes = model.Softmax, []string{"a", "b", "c", "d"}
	}
	a, err := boost(context.Background(), testBoost, 1, "test", train, valid, targets, 2, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a, train, valid, f
}

func TestEnsembleSaysWhatTheTreesSay(t *testing.T) {
	for _, targets := range []int{1, 4} {
		a, _, _, f := quadrantModel(t, targets)
		x, width, _ := quadrants(40, 500, 4)
		rows := make([]int32, 500)
		columns := make([]int, width)
		for r := range rows {
			rows[r] = int32(r)
			if r%50 == 0 {
				x[r*width+r/50] = float32(math.NaN())
			}
		}
		for c := range columns {
			columns[c] = c
		}
		binned := (&bins{thresholds: f.thresholds}).apply(rowMajor(x, width), columns, rows, 1)
		for _, n := range []int{0, 1, len(a.rounds)} {
			for _, beta := range []int64{betaOne, 7, 5 * betaOne} {
				e := a.ensemble(n, beta, f)
				if err := e.Validate(); err != nil {
					t.Fatal(err)
				}
				s, err := model.NewScorer(e)
				if err != nil {
					t.Fatal(err)
				}
				want := a.scores(binned, n, 1)
				got := make([]int32, targets)
				// Each tree and the bias are off by half a unit at most.
				off := math.Ldexp(float64(n+1), -e.Shift)
				for r := range rows {
					s.Sums(got, x[r*width:(r+1)*width])
					for k := range got {
						raw := math.Ldexp(float64(got[k]), -e.Shift)
						exact := math.Ldexp(float64(want[k][r]), -scoreBits) * float64(beta) / betaOne
						if math.Abs(raw-exact) > off {
							t.Fatalf("%d rounds, beta %d, row %d, target %d: %v, want %v", n, beta, r, k, raw, exact)
						}
					}
				}
				if e.Shift < 12 {
					t.Errorf("%d rounds, beta %d: leaves have %d binary digits", n, beta, e.Shift)
				}
			}
		}
	}
}

func TestLeavesStayExactHoweverLargeTheyAre(t *testing.T) {
	// The largest that a recipe allows: steps of 100, a thousand rounds.
	tr := tree{nodes: []treeNode{{left: -1, right: -2}}, leaves: 2, values: []int32{100 << scoreBits, -100 << scoreBits}}
	a := &additive{targets: 1, bias: []int32{-20 << scoreBits}}
	for range 1000 {
		a.rounds = append(a.rounds, []tree{tr})
	}
	f := form{thresholds: [][]float32{{1}}, columns: []int{0}, dim: 1, transform: model.Sigmoid}
	for _, beta := range []int64{1, betaOne, maxBeta} {
		if err := a.ensemble(1000, beta, f).Validate(); err != nil {
			t.Errorf("beta %d: %v", beta, err)
		}
	}
}

func TestFileKeepsItsByteBudget(t *testing.T) {
	a, _, valid, f := quadrantModel(t, 4)
	whole, rounds, _, err := a.fit(valid, 1<<20, f, 1)
	if err != nil {
		t.Fatal(err)
	}
	budget := len(whole) / 2
	cut, fewer, _, err := a.fit(valid, budget, f, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(cut) > budget || fewer >= rounds || fewer == 0 || len(cut) < budget*3/4 {
		t.Errorf("%d rounds in %d bytes, %d rounds in %d of %d", rounds, len(whole), fewer, len(cut), budget)
	}
	if _, err := model.Decode(model.ClassifierFile, cut); err != nil {
		t.Error(err)
	}
}

func TestTemperatureUndoesOverconfidence(t *testing.T) {
	// Two classes, the score says nothing but how sure: right with probability
	// 1/(1+e^-1), stated as if it were 1/(1+e^-4).
	p := newPCG(12, 1)
	const n = 4000
	s := samples{bins: &bins{rows: n}, labels: make([]uint8, n), weights: make([]int32, n)}
	scores := [][]int32{make([]int32, n)}
	for r := range n {
		scores[0][r] = 4 << scoreBits
		s.weights[r] = unitWeight
		if math.Ldexp(float64(p.uint32()), -32) < detmath.Sigmoid(1) {
			s.labels[r] = 1
		}
	}
	beta := calibrate(s, scores, 2)
	if beta < betaOne/4-2 || beta > betaOne/4+2 {
		t.Errorf("inverse temperature %d/64, want about 16/64", beta)
	}
	// No other value is better.
	least := logLoss(s, scores, beta, betaOne, 1)
	for b := int64(1); b <= maxBeta; b += 3 {
		if logLoss(s, scores, b, betaOne, 1) < least {
			t.Errorf("%d/64 has a lower loss than %d/64", b, beta)
		}
	}
	if got := calibrate(samples{bins: &bins{}}, [][]int32{nil}, 1); got != betaOne {
		t.Errorf("without rows: %d", got)
	}
}

func TestBestRoundsAreTheFewestOfEqualLoss(t *testing.T) {
	a := &additive{losses: []int64{9, 7, 5, 5, 6, 1}}
	for _, c := range []struct{ limit, validated, want int }{{5, 1, 5}, {4, 1, 2}, {1, 1, 1}, {0, 1, 0}, {4, 0, 4}} {
		if got := a.bestRounds(c.limit, c.validated); got != c.want {
			t.Errorf("limit %d: %d rounds, want %d", c.limit, got, c.want)
		}
	}
}

func TestLossIsThatOfTheProbabilities(t *testing.T) {
	for _, c := range []struct {
		x     []float64
		label int
		want  float64
	}{
		{[]float64{0}, 0, math.Ln2}, {[]float64{0}, 1, math.Ln2},
		{[]float64{2}, 1, math.Log1p(math.Exp(-2))}, {[]float64{2}, 0, math.Log1p(math.Exp(2))},
		{[]float64{-1000}, 0, 0}, {[]float64{-1000}, 1, 24 * math.Ln2},
		{[]float64{0, 0, 0, 0}, 2, math.Log(4)},
		{[]float64{1, 2, 3}, 0, math.Log(1 + math.Exp(1) + math.Exp(2))},
		{[]float64{500, 0}, 1, 24 * math.Ln2}, {[]float64{500, 0}, 0, 0},
	} {
		if got := crossEntropy(c.x, c.label); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("scores %v label %d: %v, want %v", c.x, c.label, got, c.want)
		}
	}
}
