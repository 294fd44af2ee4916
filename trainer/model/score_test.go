package model

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

func TestScorerFollowsEverySplitExactly(t *testing.T) {
	// Trees of as many leaves as can be marked, as one more, and of both kinds.
	edge := []shape{
		{transform: Sigmoid, dim: 3, targets: 1, trees: 40, splits: 63, depth: 63, shift: 16, missing: true},
		{transform: Softmax, dim: 20, targets: 5, trees: 60, splits: 63, depth: 6, shift: 16, missing: true},
		{transform: Isolation, dim: 4, targets: 1, trees: 30, splits: 63, depth: 64, shift: 12, missing: true},
		{transform: Sigmoid, dim: 3, targets: 1, trees: 40, splits: 64, depth: 64, shift: 16, missing: true},
		{transform: Softmax, dim: 20, targets: 5, trees: 60, splits: 64, depth: 7, shift: 16, missing: true},
	}
	for i, s := range slices.Concat(shapes, edge) {
		for seed := range uint64(8) {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			e := s.random(rng)
			scorer, err := NewScorer(e)
			if err != nil {
				t.Fatal(err)
			}
			// Both forms, whichever is thought to be faster.
			forms := []*Scorer{scorer, {dim: e.Dim, targets: e.Targets, bias: scorer.bias, walks: newWalks(e)}}
			if m := newMarks(e); m != nil {
				forms = append(forms, &Scorer{dim: e.Dim, targets: e.Targets, bias: scorer.bias, marks: m})
			}
			if large := slices.ContainsFunc(e.Trees, func(t Tree) bool { return len(t.Nodes) > 2*markLeaves-1 }); large != (len(forms) == 2) {
				t.Fatalf("shape %d: a tree of more than %d leaves: %v, %d forms", i, markLeaves, large, len(forms))
			}
			x, got := make([]float32, s.dim), make([]int32, s.targets)
			for range 300 {
				vector(rng, x, 6)
				want := plainSums(e, x)
				for _, f := range forms {
					var w room
					f.fit(&w)
					if f.sums(got, x, &w); !slices.Equal(got, want) {
						t.Fatalf("shape %d seed %d, marks: %v: sums %v, want %v", i, seed, f.marks != nil, got, want)
					}
				}
				if scorer.Sums(got, x); !slices.Equal(got, want) {
					t.Fatalf("shape %d seed %d: sums %v, want %v", i, seed, got, want)
				}
			}
		}
	}
}

// parts is a set in its parts: what Open takes.
type parts struct {
	files   map[string][]byte
	scoring Scoring
}

func (p parts) open() (*Set, error) {
	doc, err := p.scoring.Encode()
	if err != nil {
		return nil, err
	}
	return Open(p.files, doc)
}

// randomParts returns files of the given shapes for the anomaly detector, the
// classifier and reputation, and a scoring document that fits them.
func randomParts(t testing.TB, rng *rand.Rand, detector, classifier, reputation shape) parts {
	t.Helper()
	a, c, r := detector.random(rng), classifier.random(rng), reputation.random(rng)
	p := parts{files: map[string][]byte{
		ScalerFile:     encodeScaler(t, randomScaler(rng, detector.dim)),
		AnomalyFile:    encode(t, a),
		ClassifierFile: encode(t, c),
		ReputationFile: encode(t, r),
	}}
	sizes, err := Sizes(p.files)
	if err != nil {
		t.Fatal(err)
	}
	scorer, err := NewScorer(a)
	if err != nil {
		t.Fatal(err)
	}
	sum, x := make([]int32, 1), make([]float32, a.Dim)
	vector(rng, x, 0)
	scorer.Sums(sum, x)
	p.scoring = Scoring{
		Anomaly:    AnomalyRule{Contamination: 10_000, Shift: a.Shift, Threshold: int(sum[0])},
		Classes:    c.Classes,
		Dim:        a.Dim,
		Files:      sizes,
		Reputation: ReputationRule{Threshold: 500_000},
	}
	return p
}

func smallParts(t testing.TB, seed uint64) parts {
	return randomParts(t, rand.New(rand.NewPCG(seed, 7)),
		shape{transform: Isolation, dim: 24, targets: 1, trees: 20, splits: 30, depth: 7, shift: 12, missing: true},
		shape{transform: Softmax, dim: 24, targets: 6, trees: 40, splits: 12, depth: 6, shift: 18, missing: true},
		shape{transform: Sigmoid, dim: 24, targets: 1, trees: 30, splits: 12, depth: 5, shift: 19})
}

func smallSet(t testing.TB, seed uint64) *Set {
	t.Helper()
	s, err := smallParts(t, seed).open()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// within reports whether got is at most one float32 away from the exact value.
func within(got float32, exact *big.Float) bool {
	lo, hi := math.Nextafter32(got, float32(math.Inf(-1))), math.Nextafter32(got, float32(math.Inf(1)))
	return exact.Cmp(big.NewFloat(float64(lo))) >= 0 && exact.Cmp(big.NewFloat(float64(hi))) <= 0
}

// exp returns e^x for |x| of moderate size, to more digits than a double has.
func exp(x float64) *big.Float {
	const prec = 400
	// e^x = (e^(x/2^20))^(2^20)
	z := new(big.Float).SetPrec(prec).SetMantExp(new(big.Float).SetPrec(prec).SetFloat64(x), -20)
	sum := new(big.Float).SetPrec(prec).SetInt64(1)
	term := new(big.Float).SetPrec(prec).SetInt64(1)
	for i := int64(1); i < 40; i++ {
		term.Mul(term, z)
		term.Quo(term, new(big.Float).SetPrec(prec).SetInt64(i))
		sum.Add(sum, term)
	}
	for range 20 {
		sum.Mul(sum, sum)
	}
	return sum
}

func TestScoresAreTheFormulasOfTheRawSums(t *testing.T) {
	for seed := range uint64(3) {
		p := smallParts(t, seed)
		set, err := p.open()
		if err != nil {
			t.Fatal(err)
		}
		scaler, _ := Decode(ScalerFile, p.files[ScalerFile])
		var e [3]*Ensemble
		for i, name := range []string{AnomalyFile, ClassifierFile, ReputationFile} {
			e[i] = decodeEnsemble(t, name, p.files[name])
		}
		raw := func(e *Ensemble, x []float32) []float32 {
			var v []float32
			for _, k := range plainSums(e, x) {
				v = append(v, e.value(k))
			}
			return v
		}
		rng := rand.New(rand.NewPCG(seed, 3))
		x, scaled := make([]float32, set.Dim()), make([]float32, set.Dim())
		one := big.NewFloat(1)
		var out Scores
		for range 100 {
			vector(rng, x, 8)
			set.Score(x, &out)
			scaler.Scaler.Apply(scaled, x)

			if want := raw(e[0], scaled)[0]; out.AnomalyRaw != want {
				t.Fatalf("anomaly raw %v, want %v", out.AnomalyRaw, want)
			}
			exact := exp(-float64(out.AnomalyRaw) / e[0].Norm * math.Ln2)
			if math.Abs(float64(out.Anomaly)/mustFloat(exact)-1) > 1e-6 {
				t.Fatalf("anomaly score %v, want %v", out.Anomaly, exact)
			}
			threshold := math.Ldexp(float64(p.scoring.Anomaly.Threshold), -p.scoring.Anomaly.Shift)
			if out.Flag != (float64(out.AnomalyRaw) <= threshold) {
				t.Fatalf("flag %v for raw %v, threshold %v", out.Flag, out.AnomalyRaw, threshold)
			}

			if want := raw(e[1], x); !slices.Equal(out.ClassRaw, want) {
				t.Fatalf("class raw %v, want %v", out.ClassRaw, want)
			}
			if best := slices.Max(out.ClassRaw); out.Class != slices.Index(out.ClassRaw, best) {
				t.Fatalf("class %d of %v", out.Class, out.ClassRaw)
			}
			total := new(big.Float)
			for _, v := range out.ClassRaw {
				total.Add(total, exp(float64(v)))
			}
			for c, v := range out.ClassRaw {
				if q := new(big.Float).Quo(exp(float64(v)), total); !within(out.Probabilities[c], q) {
					t.Fatalf("probability %v, want %v", out.Probabilities[c], q)
				}
			}

			if want := raw(e[2], x)[0]; out.ReputationRaw != want {
				t.Fatalf("reputation raw %v, want %v", out.ReputationRaw, want)
			}
			d := new(big.Float).Add(one, exp(-float64(out.ReputationRaw)))
			if q := new(big.Float).Quo(one, d); !within(out.Reputation, q) {
				t.Fatalf("reputation %v, want %v", out.Reputation, q)
			}
			if out.Bad != (out.Reputation >= 0.5) {
				t.Fatalf("bad %v for reputation %v", out.Bad, out.Reputation)
			}
		}
	}
}

func mustFloat(x *big.Float) float64 {
	f, _ := x.Float64()
	return f
}

func TestExtremeSumsGiveFiniteScores(t *testing.T) {
	leaf := func(target, k int32) Tree { return Tree{Nodes: []Node{{Leaf: true, Target: target, Value: k}}} }
	for _, k := range []int32{MaxSum, -MaxSum} {
		p := parts{files: map[string][]byte{
			ScalerFile:     encodeScaler(t, &Scaler{Offset: []float32{0}, Scale: []float32{1}}),
			AnomalyFile:    encode(t, &Ensemble{Dim: 1, Targets: 1, Transform: Isolation, Norm: math.SmallestNonzeroFloat64, Trees: []Tree{leaf(0, MaxSum)}}),
			ClassifierFile: encode(t, &Ensemble{Dim: 1, Targets: 2, Transform: Softmax, Classes: []string{"a", "b"}, Trees: []Tree{leaf(0, k), leaf(1, -k)}}),
			ReputationFile: encode(t, &Ensemble{Dim: 1, Targets: 1, Transform: Sigmoid, Trees: []Tree{leaf(0, k)}}),
		}}
		sizes, err := Sizes(p.files)
		if err != nil {
			t.Fatal(err)
		}
		p.scoring = Scoring{Anomaly: AnomalyRule{Threshold: -1}, Classes: []string{"a", "b"}, Dim: 1, Files: sizes}
		set, err := p.open()
		if err != nil {
			t.Fatal(err)
		}
		var out Scores
		set.Score([]float32{0}, &out)
		for _, v := range append([]float32{out.Anomaly, out.Reputation}, out.Probabilities...) {
			if !(v >= 0 && v <= 1) {
				t.Errorf("score %v of sum %d", v, k)
			}
		}
		if out.Flag {
			t.Error("threshold -1 flagged")
		}
		if out.Class != 0 && k > 0 || out.Class != 1 && k < 0 {
			t.Errorf("class %d for sums %v", out.Class, out.ClassRaw)
		}
	}
}

func TestTheFirstOfEqualClassesWins(t *testing.T) {
	p := smallParts(t, 1)
	e := decodeEnsemble(t, ClassifierFile, p.files[ClassifierFile])
	e.Bias = []int32{0, 5, 1, 5, 5, 0}
	e.Trees = []Tree{{Nodes: []Node{{Leaf: true}}}}
	p.files[ClassifierFile] = encode(t, e)
	p.scoring.Files, _ = Sizes(p.files)
	set, err := p.open()
	if err != nil {
		t.Fatal(err)
	}
	var out Scores
	set.Score(make([]float32, set.Dim()), &out)
	if out.Class != 1 {
		t.Fatalf("class %d, want 1", out.Class)
	}
}

func TestOneScoresServesSeveralSets(t *testing.T) {
	small, other := smallSet(t, 1), func() *Set {
		s, err := randomParts(t, rand.New(rand.NewPCG(1, 1)),
			shape{transform: Isolation, dim: 3, targets: 1, trees: 2, splits: 3, depth: 7},
			shape{transform: Softmax, dim: 3, targets: 2, trees: 4, splits: 2, depth: 6},
			shape{transform: Sigmoid, dim: 3, targets: 1, trees: 3, splits: 2, depth: 5}).open()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}()
	var shared, fresh Scores
	x := make([]float32, small.Dim())
	for _, set := range []*Set{small, other, small} {
		set.Score(x[:set.Dim()], &shared)
		fresh = Scores{}
		set.Score(x[:set.Dim()], &fresh)
		if !reflect.DeepEqual(said(&shared), said(&fresh)) {
			t.Fatal("scores depend on the set used before")
		}
	}
}

// said returns all of what out says, floats as their bits.
func said(out *Scores) []uint32 {
	flag := func(b bool) uint32 {
		if b {
			return 1
		}
		return 0
	}
	v := []uint32{math.Float32bits(out.AnomalyRaw), math.Float32bits(out.Anomaly), flag(out.Flag), uint32(out.Class)}
	for c := range out.ClassRaw {
		v = append(v, math.Float32bits(out.ClassRaw[c]), math.Float32bits(out.Probabilities[c]))
	}
	return append(v, math.Float32bits(out.ReputationRaw), math.Float32bits(out.Reputation), flag(out.Bad))
}

func TestScoringDoesNotAllocate(t *testing.T) {
	set := smallSet(t, 1)
	var out Scores
	x := make([]float32, set.Dim())
	set.Score(x, &out)
	if n := testing.AllocsPerRun(100, func() { set.Score(x, &out) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { set.Reputation(x, &out) }); n != 0 {
		t.Errorf("%v allocations for reputation alone", n)
	}
}

func TestReputationAloneIsThatOfAllScores(t *testing.T) {
	for seed := range uint64(4) {
		set := smallSet(t, seed)
		rng := rand.New(rand.NewPCG(seed, 14))
		x, other := make([]float32, set.Dim()), make([]float32, set.Dim())
		var all, alone Scores
		set.Reputation(x, &alone) // room for a set is made here too
		differ := 0
		for range 200 {
			vector(rng, x, 8)
			vector(rng, other, 8)
			set.Score(x, &all)
			set.Score(other, &alone)
			before := said(&alone)
			if !slices.Equal(before, said(&all)) {
				differ++
			}
			set.Reputation(x, &alone)
			want := append(slices.Clone(before[:len(before)-3]), said(&all)[len(before)-3:]...)
			if got := said(&alone); !slices.Equal(got, want) {
				t.Fatalf("seed %d: %x, want %x: the reputation of one vector and the rest of another", seed, got, want)
			}
		}
		if differ == 0 {
			t.Error("all vectors score alike")
		}
	}
}

func TestGoroutinesShareASet(t *testing.T) {
	set := smallSet(t, 1)
	rng := rand.New(rand.NewPCG(1, 2))
	rows := make([][]float32, 100)
	want := make([][]uint32, len(rows))
	var out Scores
	for i := range rows {
		rows[i] = make([]float32, set.Dim())
		vector(rng, rows[i], 9)
		set.Score(rows[i], &out)
		want[i] = said(&out)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var out Scores
			sums := make([]int32, 1)
			for i, x := range rows {
				set.Score(x, &out)
				set.reputation.Sums(sums, x)
				if !slices.Equal(said(&out), want[i]) || float32(float64(sums[0])*set.reputation.unit) != out.ReputationRaw {
					t.Errorf("row %d differs", i)
				}
			}
		})
	}
	wg.Wait()
}

func TestScoringDocumentSurvivesAndRefuses(t *testing.T) {
	good := smallParts(t, 1).scoring
	b, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodeScoring(b)
	if err != nil || !reflect.DeepEqual(good, again) {
		t.Fatalf("%+v became %+v, %v", good, again, err)
	}
	for name, change := range map[string]func(*Scoring){
		"negative contamination":   func(s *Scoring) { s.Anomaly.Contamination = -1 },
		"contamination over half":  func(s *Scoring) { s.Anomaly.Contamination = 500_001 },
		"negative shift":           func(s *Scoring) { s.Anomaly.Shift = -1 },
		"shift too large":          func(s *Scoring) { s.Anomaly.Shift = MaxShift + 1 },
		"threshold below -1":       func(s *Scoring) { s.Anomaly.Threshold = -2 },
		"threshold too large":      func(s *Scoring) { s.Anomaly.Threshold = MaxSum + 1 },
		"no features":              func(s *Scoring) { s.Dim = 0 },
		"too many features":        func(s *Scoring) { s.Dim = MaxDim + 1 },
		"one class":                func(s *Scoring) { s.Classes = s.Classes[:1] },
		"a class twice":            func(s *Scoring) { s.Classes[0] = s.Classes[1] },
		"too many classes":         func(s *Scoring) { s.Classes = make([]string, MaxTargets+1) },
		"negative reputation":      func(s *Scoring) { s.Reputation.Threshold = -1 },
		"reputation over one":      func(s *Scoring) { s.Reputation.Threshold = 1_000_001 },
		"three files":              func(s *Scoring) { s.Files = s.Files[:3] },
		"files in another order":   func(s *Scoring) { slices.Reverse(s.Files) },
		"a file of no bytes":       func(s *Scoring) { s.Files[0].Bytes = 0 },
		"negative number of trees": func(s *Scoring) { s.Files[1].Trees = -1 },
	} {
		s := good
		s.Classes, s.Files = slices.Clone(s.Classes), slices.Clone(s.Files)
		change(&s)
		if _, err := s.Encode(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		raw, err := canon.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeScoring(raw); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: decoded, %v", name, err)
		}
	}
	if _, err := DecodeScoring(make([]byte, MaxScoring+1)); !errors.Is(err, canon.ErrTooLarge) {
		t.Error(err)
	}
}

func benchmarkRows(dim int) [][]float32 {
	rng := rand.New(rand.NewPCG(1, 9))
	rows := make([][]float32, 500) // more than a branch predictor remembers
	for i := range rows {
		rows[i] = make([]float32, dim)
		for j := range rows[i] {
			rows[i][j] = float32(rng.IntN(64)-32) / 16
		}
	}
	return rows
}

func BenchmarkEnsemble(b *testing.B) {
	for _, s := range []shape{
		{transform: Sigmoid, dim: 256, targets: 1, trees: 264, splits: 30, depth: 6, shift: 16},
		{transform: Sigmoid, dim: 256, targets: 1, trees: 264, splits: 30, depth: 64, shift: 16},
		{transform: Softmax, dim: 256, targets: 17, trees: 264, splits: 30, depth: 6, shift: 16},
		{transform: Sigmoid, dim: 256, targets: 1, trees: 90, splits: 30, depth: 6, shift: 16, missing: true},
	} {
		e := s.random(rand.New(rand.NewPCG(1, 1)))
		scorer, err := NewScorer(e)
		if err != nil {
			b.Fatal(err)
		}
		splits, _ := e.Nodes()
		rows, sums := benchmarkRows(s.dim), make([]int32, s.targets)
		b.Run(fmt.Sprintf("splits=%d/depth=%d/targets=%d", splits, s.depth, s.targets), func(b *testing.B) {
			testkit.Latency(b, time.Now, func(i int) { scorer.Sums(sums, rows[i%len(rows)]) })
		})
	}
}

func BenchmarkSet(b *testing.B) {
	p := randomParts(b, rand.New(rand.NewPCG(1, 1)),
		shape{transform: Isolation, dim: 256, targets: 1, trees: 50, splits: 100, depth: 8, shift: 12},
		shape{transform: Softmax, dim: 256, targets: 17, trees: 264, splits: 30, depth: 6, shift: 16, missing: true},
		shape{transform: Sigmoid, dim: 256, targets: 1, trees: 85, splits: 30, depth: 6, shift: 16, missing: true})
	total := 0
	for _, f := range p.files {
		total += len(f)
	}
	set, err := p.open()
	if err != nil {
		b.Fatal(err)
	}
	rows := benchmarkRows(256)
	var out Scores
	set.Score(rows[0], &out)
	testkit.Latency(b, time.Now, func(i int) { set.Score(rows[i%len(rows)], &out) })
	b.ReportMetric(float64(total), "bytes")
}

func BenchmarkDecode(b *testing.B) {
	s := shape{transform: Softmax, dim: 256, targets: 17, trees: 264, splits: 30, depth: 6, shift: 16}
	file := encode(b, s.random(rand.New(rand.NewPCG(1, 1))))
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		if _, err := Decode(ClassifierFile, file); err != nil {
			b.Fatal(err)
		}
	}
}
