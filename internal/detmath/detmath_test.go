package detmath

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// bound is the error in ulp that the package states.
const bound = 0.51

// inputs makes test arguments from integers alone: a third is uniform in
// ±2^scale, a third is log-uniform down to 2^-60, a third lies within 2^-10 of 1 or 0.
func inputs(rng *rand.Rand, scale int) float64 {
	u := math.Ldexp(float64(int64(rng.Uint64())>>11), -52) // [-1, 1)
	switch rng.Uint64() % 3 {
	case 0:
		return math.Ldexp(u, scale)
	case 1:
		return math.Ldexp(u, scale-int(rng.Uint64()%60))
	}
	if u = math.Ldexp(u, -10); rng.Uint64()&1 == 0 {
		return u
	}
	return 1 + u
}

// positive makes positive float64 over their whole range, subnormals included.
func positive(rng *rand.Rand) float64 {
	switch rng.Uint64() % 3 {
	case 0:
		return math.Float64frombits(rng.Uint64() % math.Float64bits(math.Inf(1)))
	case 1:
		return math.Abs(inputs(rng, 10)) + 0x1p-70
	}
	return 1 + math.Ldexp(float64(int64(rng.Uint64())>>11), -52-1-int(rng.Uint64()%40))
}

// cases are the functions under test with their exact counterparts. args draws
// arguments, exact returns the exact value as m·2^e; nil if that is not positive.
var cases = []struct {
	name  string
	args  func(*rand.Rand) (x, y float64)
	f     func(x, y float64) float64
	exact func(x, y float64) (*big.Int, int)
}{
	{
		name:  "Exp",
		args:  func(r *rand.Rand) (float64, float64) { return inputs(r, 9) * 1.5, 0 },
		f:     func(x, _ float64) float64 { return Exp(x) },
		exact: func(x, _ float64) (*big.Int, int) { return refExp(fixed(x)) },
	},
	{
		name:  "Exp2",
		args:  func(r *rand.Rand) (float64, float64) { return inputs(r, 10) * 1.0625, 0 },
		f:     func(x, _ float64) float64 { return Exp2(x) },
		exact: func(x, _ float64) (*big.Int, int) { return refExp(mulFixed(fixed(x), bigLn)) },
	},
	{
		name: "Sigmoid",
		args: func(r *rand.Rand) (float64, float64) { return inputs(r, 6+int(r.Uint64()%4)), 0 },
		f:    func(x, _ float64) float64 { return Sigmoid(x) },
		exact: func(x, _ float64) (*big.Int, int) {
			m, e := refExp(fixed(-math.Abs(x)))
			d := new(big.Int).Lsh(unit, 8)
			if e+digits >= -1100 {
				t := new(big.Int).Lsh(m, 8)
				d.Add(d, t.Rsh(t, uint(-e-digits)))
			}
			if x >= 0 {
				m, e = unit, -digits
			}
			q := new(big.Int).Lsh(m, digits+8)
			return q.Quo(q, d), e
		},
	},
	{
		name: "Log",
		args: func(r *rand.Rand) (float64, float64) { return positive(r), 0 },
		f:    func(x, _ float64) float64 { return math.Abs(Log(x)) },
		exact: func(x, _ float64) (*big.Int, int) {
			if x == 1 {
				return nil, 0
			}
			return new(big.Int).Abs(refLog(x)), -digits
		},
	},
	{
		name: "Pow",
		args: func(r *rand.Rand) (float64, float64) {
			x := positive(r)
			if x == 1 {
				return 2, 0.5
			}
			// An exponent that keeps the result, mostly, within range.
			l, _ := new(big.Float).SetInt(refLog(x)).Float64()
			return x, math.Ldexp(float64(int64(r.Uint64())>>11), -52) * 760 / math.Ldexp(l, -digits)
		},
		f: Pow,
		exact: func(x, y float64) (*big.Int, int) {
			if math.Abs(y) > 0x1p70 {
				return nil, 0
			}
			return refExp(mulFixed(refLog(x), fixed(y)))
		},
	},
}

func TestWithinStatedErrorOfExactValue(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 20_000
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			worst, checked := 0.0, 0
			var wg sync.WaitGroup
			workers := runtime.GOMAXPROCS(0)
			for w := range workers {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(7, uint64(w)))
					wst, done := 0.0, 0
					for range n / workers {
						x, y := c.args(rng)
						m, e := c.exact(x, y)
						if m == nil {
							continue
						}
						got := c.f(x, y)
						d := ulps(got, m, e)
						if !(d <= bound) && !outOfRange(got, m, e) {
							t.Errorf("%s(%x, %x) = %x, off by %.4f ulp", c.name, x, y, got, d)
							return
						}
						if d <= bound {
							wst = max(wst, d)
						}
						done++
					}
					mu.Lock()
					defer mu.Unlock()
					worst, checked = max(worst, wst), checked+done
				})
			}
			wg.Wait()
			if checked < n*9/10 {
				t.Errorf("only %d of %d arguments were checked", checked, n)
			}
			t.Logf("%d arguments, worst error %.5f ulp", checked, worst)
		})
	}
}

// outOfRange reports whether got is the right answer beyond the range of float64.
func outOfRange(got float64, m *big.Int, e int) bool {
	msb := m.BitLen() - 1 + e
	return msb > 1023 && math.IsInf(got, 1) || msb < -1075 && got == 0
}

// The checker must notice an error of a single unit in the last place.
func TestReferenceNoticesOneUlp(t *testing.T) {
	for _, c := range cases {
		rng := rand.New(rand.NewPCG(1, 1))
		caught, tried := 0, 0
		for tried < 100 {
			x, y := c.args(rng)
			m, e := c.exact(x, y)
			got := c.f(x, y)
			if m == nil || math.IsInf(got, 0) || got == 0 {
				continue
			}
			tried++
			if ulps(math.Nextafter(got, math.Inf(1)), m, e) > bound-0.02 && ulps(math.Nextafter(got, 0), m, e) > bound-0.02 {
				caught++
			}
		}
		// Within 2 % of a tie both neighbours are acceptable to the threshold used here.
		if caught < 85 {
			t.Errorf("%s: %d of %d errors of one ulp noticed", c.name, caught, tried)
		}
	}
}

// The digests hold for every architecture, every GOAMD64 level, with and
// without FMA: run these tests there.
func TestOutputsAreTheSameEverywhere(t *testing.T) {
	const n = 1_000_000
	want := map[string]string{}
	b, err := os.ReadFile("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		name, sum, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok {
			want[name] = sum
		}
	}
	check := func(name string, next func(*rand.Rand) float64) {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(42, 0))
			h := sha256.New()
			buf := make([]byte, 0, 8000)
			for range n {
				if buf = binary.LittleEndian.AppendUint64(buf, math.Float64bits(next(rng))); len(buf) == cap(buf) {
					h.Write(buf)
					buf = buf[:0]
				}
			}
			h.Write(buf)
			if got := hex.EncodeToString(h.Sum(nil)); got != want[name] {
				t.Errorf("%s %s, want %s", name, got, want[name])
			}
		})
	}
	check("Exp", func(r *rand.Rand) float64 { return Exp(inputs(r, 9)) })
	check("Exp2", func(r *rand.Rand) float64 { return Exp2(inputs(r, 10)) })
	check("Sigmoid", func(r *rand.Rand) float64 { return Sigmoid(inputs(r, 6)) })
	check("Log", func(r *rand.Rand) float64 { return Log(positive(r)) })
	check("Pow", func(r *rand.Rand) float64 { return Pow(positive(r), inputs(r, 3)) })
	var s Sum
	check("Sum", func(r *rand.Rand) float64 {
		s.Add(inputs(r, 40))
		return s.Value()
	})
	var m Moments
	check("Moments", func(r *rand.Rand) float64 {
		m.Add(float32(inputs(r, 4)))
		if m.Count()%1000 != 0 {
			return 0
		}
		return m.Mean() + m.Deviation()
	})
}

var (
	inf   = math.Inf(1)
	nan   = math.NaN()
	small = math.SmallestNonzeroFloat64
	neg0  = math.Copysign(0, -1)
)

func same(a, b float64) bool {
	return math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b)
}

func TestSpecialValues(t *testing.T) {
	for _, c := range []struct {
		name    string
		f       func(float64) float64
		x, want float64
	}{
		{"Exp", Exp, nan, nan}, {"Exp", Exp, inf, inf}, {"Exp", Exp, -inf, 0}, {"Exp", Exp, 0, 1}, {"Exp", Exp, neg0, 1},
		{"Exp", Exp, small, 1}, {"Exp", Exp, -small, 1}, {"Exp", Exp, 1, math.E},
		{"Exp", Exp, 0x1.62e42fefa39efp+9, 0x1.fffffffffff2ap+1023}, {"Exp", Exp, 0x1.62e42fefa39f0p+9, inf},
		{"Exp", Exp, -0x1.74910d52d3051p+9, small}, {"Exp", Exp, -0x1.74910d52d3052p+9, 0}, {"Exp", Exp, -1e300, 0}, {"Exp", Exp, 1e300, inf},
		{"Exp2", Exp2, nan, nan}, {"Exp2", Exp2, inf, inf}, {"Exp2", Exp2, -inf, 0}, {"Exp2", Exp2, neg0, 1}, {"Exp2", Exp2, small, 1},
		{"Exp2", Exp2, 1023, 0x1p1023}, {"Exp2", Exp2, 1024, inf}, {"Exp2", Exp2, -1074, small}, {"Exp2", Exp2, -1075, 0}, {"Exp2", Exp2, -1e300, 0},
		{"Exp2", Exp2, 0.5, math.Sqrt2}, {"Exp2", Exp2, -1022, 0x1p-1022}, {"Exp2", Exp2, 10, 1024}, {"Exp2", Exp2, -3, 0.125},
		{"Sigmoid", Sigmoid, nan, nan}, {"Sigmoid", Sigmoid, inf, 1}, {"Sigmoid", Sigmoid, -inf, 0}, {"Sigmoid", Sigmoid, 0, 0.5}, {"Sigmoid", Sigmoid, neg0, 0.5},
		{"Sigmoid", Sigmoid, small, 0.5}, {"Sigmoid", Sigmoid, 38, 1}, {"Sigmoid", Sigmoid, 1e300, 1}, {"Sigmoid", Sigmoid, -1e300, 0}, {"Sigmoid", Sigmoid, -746, 0},
		{"Sigmoid", Sigmoid, -745, small},
		{"Log", Log, nan, nan}, {"Log", Log, -1, nan}, {"Log", Log, -small, nan}, {"Log", Log, -inf, nan}, {"Log", Log, 0, -inf}, {"Log", Log, neg0, -inf},
		{"Log", Log, inf, inf}, {"Log", Log, 1, 0}, {"Log", Log, 2, math.Ln2}, {"Log", Log, 0.5, -math.Ln2}, {"Log", Log, small, -1074 * math.Ln2},
		{"Log", Log, math.MaxFloat64, 1024 * math.Ln2}, {"Log", Log, math.E, 1},
	} {
		if got := c.f(c.x); !same(got, c.want) {
			t.Errorf("%s(%x) = %x, want %x", c.name, c.x, got, c.want)
		}
	}
}

func TestPowSpecialValues(t *testing.T) {
	// The documentation of math.Pow has the same list; on these arguments it is exact.
	xs := []float64{0, neg0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, inf, -inf, nan, small, -small, math.MaxFloat64, -math.MaxFloat64}
	ys := []float64{0, neg0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 1.5, inf, -inf, nan, 1e300, -1e300, 0x1p53, 0x1p52 + 1, -(0x1p52 + 1), 0x1p53 + 2, 0x1p63, 0x1p64}
	for _, x := range xs {
		for _, y := range ys {
			want := math.Pow(x, y)
			got := Pow(x, y)
			if !same(got, want) && !(math.Abs(got-want) <= 1e-15*math.Abs(want)) {
				t.Errorf("Pow(%g, %g) = %g, want %g", x, y, got, want)
			}
		}
	}
	for x := int64(2); x < 100; x++ {
		for y, want := 1, x; want < 1<<53; y, want = y+1, want*x {
			if got := Pow(float64(x), float64(y)); got != float64(want) {
				t.Errorf("Pow(%d, %d) = %g, want %d", x, y, got, want)
			}
		}
	}
}

func FuzzExp(f *testing.F) {
	for _, x := range []float64{0, 1, -1, 709.78, -745.13, 0x1p-54, -0x1p-54, 0x1p-1074, 0.34657359, 512, -1023.99} {
		f.Add(x)
	}
	f.Fuzz(func(t *testing.T, x float64) {
		if math.IsNaN(x) || math.Abs(x) > 800 {
			return
		}
		m, e := refExp(fixed(x))
		if got := Exp(x); ulps(got, m, e) > bound && !outOfRange(got, m, e) {
			t.Errorf("Exp(%x) = %x", x, got)
		}
		up, down := Sigmoid(x), Sigmoid(-x)
		if up < 0 || up > 1 || x > 0 && up < down {
			t.Errorf("Sigmoid(±%x) = %x, %x", x, up, down)
		}
	})
}

func FuzzLog(f *testing.F) {
	for _, x := range []float64{1, math.Nextafter(1, 2), math.Nextafter(1, 0), 2, 0.5, math.Sqrt2, 0x1p-1074, math.MaxFloat64, 1 + 0x1p-7, 1 - 0x1p-8, 1.4140625} {
		f.Add(x)
	}
	f.Fuzz(func(t *testing.T, x float64) {
		if !(x > 0) || x == 1 || math.IsInf(x, 0) {
			return
		}
		want := refLog(x)
		got := Log(x)
		if (want.Sign() < 0) != (got < 0) || ulps(math.Abs(got), new(big.Int).Abs(want), -digits) > bound {
			t.Errorf("Log(%x) = %x", x, got)
		}
	})
}

var sink float64

func BenchmarkExp(b *testing.B)  { bench(b, Exp, func(r *rand.Rand) float64 { return inputs(r, 5) }) }
func BenchmarkExp2(b *testing.B) { bench(b, Exp2, func(r *rand.Rand) float64 { return inputs(r, 5) }) }
func BenchmarkSigmoid(b *testing.B) {
	bench(b, Sigmoid, func(r *rand.Rand) float64 { return inputs(r, 4) })
}
func BenchmarkLog(b *testing.B) { bench(b, Log, positive) }
func BenchmarkPow(b *testing.B) {
	bench(b, func(x float64) float64 { return Pow(x, 0.75) }, positive)
}
func BenchmarkSumAdd(b *testing.B) {
	var s Sum
	bench(b, func(x float64) float64 { s.Add(x); return 0 }, func(r *rand.Rand) float64 { return inputs(r, 5) })
}
func BenchmarkMomentsAdd(b *testing.B) {
	var m Moments
	bench(b, func(x float64) float64 { m.Add(float32(x)); return 0 }, func(r *rand.Rand) float64 { return inputs(r, 5) })
}

func bench(b *testing.B, f func(float64) float64, args func(*rand.Rand) float64) {
	rng := rand.New(rand.NewPCG(3, 3))
	var xs [1024]float64
	for i := range xs {
		xs[i] = args(rng)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		sink = f(xs[i&1023])
	}
}
