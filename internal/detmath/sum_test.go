package detmath

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

// exactSum is the sum in unlimited precision, rounded once.
func exactSum(xs []float64) float64 {
	sum := new(big.Float).SetPrec(2300)
	for _, x := range xs {
		sum.Add(sum, new(big.Float).SetFloat64(x))
	}
	f, _ := sum.Float64()
	return f + 0
}

func TestSumIsExactlyRounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for round := range 2000 {
		xs := make([]float64, 1+rng.IntN(40))
		for i := range xs {
			switch round % 3 {
			case 0: // any float64
				for xs[i] = math.NaN(); math.IsNaN(xs[i]) || math.IsInf(xs[i], 0); {
					xs[i] = math.Float64frombits(rng.Uint64())
				}
			case 1: // heavy cancellation
				xs[i] = math.Ldexp(float64(rng.Int64()), -rng.IntN(200))
				if i > 0 && rng.IntN(2) == 0 {
					xs[i] = -xs[rng.IntN(i)]
				}
			default: // subnormals and ties
				xs[i] = math.Ldexp(float64(1-2*rng.IntN(2)), -1074+rng.IntN(60))
			}
		}
		var s Sum
		for _, x := range xs {
			s.Add(x)
		}
		if got, want := s.Value(), exactSum(xs); !same(got, want) {
			t.Fatalf("sum of %x = %x, want %x", xs, got, want)
		}
	}
}

func TestSumForgetsOrderAndPartition(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	xs := make([]float64, 3000)
	for i := range xs {
		xs[i] = math.Ldexp(float64(rng.Int64()-1<<62), rng.IntN(1900)-1100)
	}
	var whole Sum
	for _, x := range xs {
		whole.Add(x)
	}
	want := whole.Value()
	plain := 0.0
	for _, x := range xs {
		plain += x
	}
	for range 50 {
		rng.Shuffle(len(xs), func(i, j int) { xs[i], xs[j] = xs[j], xs[i] })
		var parts [5]Sum
		for _, x := range xs {
			parts[rng.IntN(len(parts))].Add(x)
		}
		var merged Sum
		for i := range parts {
			merged.Merge(&parts[i])
		}
		if got := merged.Value(); !same(got, want) {
			t.Fatalf("%x, want %x", got, want)
		}
	}
	// The plain loop does depend on order, or this test proves nothing.
	differs := false
	for range 20 {
		rng.Shuffle(len(xs), func(i, j int) { xs[i], xs[j] = xs[j], xs[i] })
		again := 0.0
		for _, x := range xs {
			again += x
		}
		differs = differs || again != plain
	}
	if !differs {
		t.Error("these values do not depend on order even in a plain loop")
	}
}

func TestSumSpecialValues(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		want float64
	}{
		{nil, 0}, {[]float64{neg0}, 0}, {[]float64{neg0, neg0}, 0}, {[]float64{1, -1}, 0},
		{[]float64{inf, 1}, inf}, {[]float64{-inf, 1}, -inf}, {[]float64{inf, -inf}, nan}, {[]float64{nan, 1}, nan}, {[]float64{inf, nan}, nan},
		{[]float64{math.MaxFloat64, math.MaxFloat64}, inf}, {[]float64{-math.MaxFloat64, -math.MaxFloat64}, -inf},
		{[]float64{math.MaxFloat64, math.MaxFloat64, -math.MaxFloat64}, math.MaxFloat64},
		{[]float64{math.MaxFloat64, 0x1p969}, math.MaxFloat64}, {[]float64{math.MaxFloat64, 0x1p970}, inf},
		{[]float64{1, 0x1p-53}, 1}, {[]float64{1, 0x1p-53, small}, 1 + 0x1p-52}, {[]float64{1 + 0x1p-52, 0x1p-53}, 1 + 0x1p-51},
		{[]float64{-1, -0x1p-53, -small}, -1 - 0x1p-52}, {[]float64{small, small}, 2 * small}, {[]float64{-small}, -small},
		{[]float64{0x1p-1022, -small}, 0x1p-1022 - small},
	} {
		var s, back Sum
		for _, x := range c.xs {
			s.Add(x)
		}
		for _, x := range slices.Backward(c.xs) {
			var one Sum
			one.Add(x)
			back.Merge(&one)
		}
		if got := s.Value(); !same(got, c.want) {
			t.Errorf("sum of %x = %x, want %x", c.xs, got, c.want)
		}
		if got := back.Value(); !same(got, c.want) {
			t.Errorf("merged sum of %x = %x, want %x", c.xs, got, c.want)
		}
	}
}

// A billion additions are too slow to test; the carry they lead to is not.
func TestSumCarriesBeforeDigitsOverflow(t *testing.T) {
	var s Sum
	for i := range s.digit[:64] {
		s.digit[i] = pendingMax * math.MaxUint32
	}
	s.pending = pendingMax
	before := s.exact()
	s.Add(math.MaxFloat64)
	var m Sum
	m.Add(math.MaxFloat64)
	if got := s.exact(); got.Cmp(before.Add(before, m.exact())) != 0 {
		t.Error("the carry changed the value")
	}
	if s.pending != 2 {
		t.Errorf("pending = %d", s.pending)
	}
}

func FuzzSum(f *testing.F) {
	f.Add(1.0, 0x1p-53, -1.0, 0x1p-1074)
	f.Add(math.MaxFloat64, math.MaxFloat64, -math.MaxFloat64, 1.0)
	f.Fuzz(func(t *testing.T, a, b, c, d float64) {
		xs := []float64{a, b, c, d}
		var s Sum
		for _, x := range xs {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				return
			}
			s.Add(x)
		}
		if got, want := s.Value(), exactSum(xs); !same(got, want) {
			t.Errorf("sum of %x = %x, want %x", xs, got, want)
		}
	})
}

// exactMoments works with rationals and a square root of 400 digits.
func exactMoments(xs []float32) (mean, deviation float64) {
	n := big.NewRat(int64(len(xs)), 1)
	sum, sum2 := new(big.Rat), new(big.Rat)
	for _, x := range xs {
		v := new(big.Rat).SetFloat64(float64(x))
		sum.Add(sum, v)
		sum2.Add(sum2, v.Mul(v, v))
	}
	mu := new(big.Rat).Quo(sum, n)
	mean, _ = mu.Float64()
	v := new(big.Rat).Quo(sum2, n)
	v.Sub(v, mu.Mul(mu, mu))
	root := new(big.Float).SetPrec(1400).SetRat(v)
	deviation, _ = root.Sqrt(root).Float64()
	return mean, deviation
}

func TestMomentsAreExactlyRounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for round := range 500 {
		xs := make([]float32, 1+rng.IntN(60))
		offset := float32(math.Ldexp(1, rng.IntN(30)))
		for i := range xs {
			switch round % 4 {
			case 0:
				for xs[i] = float32(math.NaN()); xs[i] != xs[i] || math.IsInf(float64(xs[i]), 0); {
					xs[i] = math.Float32frombits(rng.Uint32())
				}
			case 1: // large mean, small spread: the textbook formula in floating point fails
				xs[i] = offset + float32(rng.IntN(4))
			case 2:
				xs[i] = float32(rng.IntN(2))
			default:
				xs[i] = math.Float32frombits(uint32(rng.IntN(100))) // subnormals
			}
		}
		var m Moments
		var parts [3]Moments
		for i, x := range xs {
			m.Add(x)
			parts[i%3].Add(x)
		}
		mean, deviation := exactMoments(xs)
		if m.Mean() != mean || m.Deviation() != deviation || m.Count() != int64(len(xs)) {
			t.Fatalf("%x: %x ± %x, want %x ± %x", xs, m.Mean(), m.Deviation(), mean, deviation)
		}
		var merged Moments
		for i := range parts {
			merged.Merge(&parts[2-i])
		}
		if merged.Mean() != mean || merged.Deviation() != deviation {
			t.Fatalf("merged %x: %x ± %x, want %x ± %x", xs, merged.Mean(), merged.Deviation(), mean, deviation)
		}
	}
}

func TestMomentsSpecialValues(t *testing.T) {
	var none, one, bad, wide Moments
	if !math.IsNaN(none.Mean()) || !math.IsNaN(none.Deviation()) {
		t.Error("moments of nothing")
	}
	one.Add(0.1)
	if one.Mean() != float64(float32(0.1)) || one.Deviation() != 0 {
		t.Errorf("one value: %g ± %g", one.Mean(), one.Deviation())
	}
	bad.Add(1)
	bad.Add(float32(math.Inf(-1)))
	if !math.IsNaN(bad.Mean()) || !math.IsNaN(bad.Deviation()) {
		t.Errorf("with an infinity: %g ± %g", bad.Mean(), bad.Deviation())
	}
	wide.Add(math.MaxFloat32)
	wide.Add(-math.MaxFloat32)
	if !same(wide.Mean(), 0) || wide.Deviation() != math.MaxFloat32 {
		t.Errorf("the widest pair: %g ± %g", wide.Mean(), wide.Deviation())
	}
}
