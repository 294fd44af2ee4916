// Package detmath has the elementary functions and sums that reach model
// bytes and scores, with one result on every CPU, compiler setting and Go version.
//
// Package math cannot be used there: its Exp, Log and Pow are assembly that
// differs between architectures and, on one machine, by what the CPU offers,
// and the compiler may fuse x*y+z where the hardware can. The functions here
// compute in integers only. A float64 is taken apart into its bits, the value is
// a binary fraction of 64 to 128 bits, and one rounding (to nearest, ties to
// even) makes the result; no floating-point instruction takes part.
//
// All functions are within 0.51 units in the last place of the exact value,
// subnormal results included: two neighbours of the exact value can be told apart
// wrongly only when it lies within 1 % of an ulp of their middle. They are safe
// for concurrent use and do not allocate.
package detmath

import (
	"math"
	"math/bits"
)

// hi64 is the upper half of the 128-bit product, a·b/2^64 rounded down.
func hi64(a, b uint64) uint64 {
	h, _ := bits.Mul64(a, b)
	return h
}

// decompose takes a finite x ≠ 0 apart: |x| = m·2^(e-63) with the top bit of m set.
func decompose(x float64) (neg bool, m uint64, e int) {
	b := math.Float64bits(x)
	neg, m, e = b>>63 != 0, b<<11, int(b>>52&0x7ff)-1023
	if e > -1023 {
		return neg, m | 1<<63, e
	}
	lz := bits.LeadingZeros64(m)
	return neg, m << lz, -1022 - lz
}

// compose rounds m·2^(e-63), the top bit of m set, to the nearest float64, ties
// to even. more says that the value is larger than that, by less than a unit of m.
func compose(m uint64, e int, more bool) float64 {
	if e > 1023 {
		return math.Inf(1)
	}
	drop := 11
	if e < -1022 {
		drop += -1022 - e
	}
	if drop > 64 {
		return 0
	}
	q, rest := m>>drop, m<<(64-drop)
	if rest > 1<<63 || rest == 1<<63 && (more || q&1 != 0) {
		q++
	}
	if e < -1022 {
		return math.Float64frombits(q)
	}
	// The leading one of q, or its carry, adds itself to the exponent field.
	return math.Float64frombits(uint64(e+1022)<<52 + q)
}

// exp2 returns 2^(f/2^64)·2^63, an integer of 64 bits with the top bit set. The
// error is below 2^-61 of the value.
func exp2(f uint64) uint64 {
	// 2^(i/32) from the table; the remaining exponent r·log2(e) < 1/32 by Taylor's series.
	i, r := f>>59, hi64(f&(1<<59-1), ln2Q64)
	p := uint64(inv8F)
	p = inv7F + hi64(p, r)
	p = inv6F + hi64(p, r)
	p = inv5F + hi64(p, r)
	p = inv4F + hi64(p, r)
	p = inv3F + hi64(p, r)
	p = inv2F + hi64(p, r)
	z := r + hi64(hi64(r, r), p)
	t := exp2Table[i]
	if s, carry := bits.Add64(t, hi64(t, z), 0); carry == 0 {
		return s
	}
	return math.MaxUint64 // only the rounding of the table could carry
}

// 2^64/n!
const (
	inv2F = 1 << 63
	inv3F = (1<<64 + 3) / 6
	inv4F = (1<<64 + 12) / 24
	inv5F = (1<<64 + 60) / 120
	inv6F = (1<<64 + 360) / 720
	inv7F = (1<<64 + 2520) / 5040
	inv8F = (1<<64 + 20160) / 40320
)

// floor splits ±(h:l)/2^(64+n), n ≥ 0, into an integer k and a fraction f/2^64, 0 ≤ f < 2^64.
func floor(neg bool, h, l uint64, n int) (k int, f uint64) {
	hi, lo := shift(h, l, n)
	if !neg {
		return int(hi), lo
	}
	if lo == 0 {
		return -int(hi), 0
	}
	return -int(hi) - 1, -lo
}

// naturalExponent gives e^x = 2^k·2^(f/2^64) for x = ±m·2^(e-63), e ≤ 9.
func naturalExponent(neg bool, m uint64, e int) (k int, f uint64) {
	h, l := bits.Mul64(m, log2eHi)
	l, carry := bits.Add64(l, hi64(m, log2eLo), 0)
	h += carry
	return floor(neg, h, l, 62-e)
}

// shift returns (h:l) >> n for n ≥ 0, also beyond 128.
func shift(h, l uint64, n int) (uint64, uint64) {
	if n >= 64 {
		return 0, h >> (n - 64)
	}
	return h >> n, h<<(64-n) | l>>n
}

// Exp returns e^x.
//
// Exp(NaN) = NaN, Exp(+Inf) = +Inf, Exp(-Inf) = 0, Exp(±0) = 1. Results that round
// above the largest float64 (x > 709.78…) are +Inf, below half the smallest
// subnormal (x < -745.13…) 0; in between, small results are subnormal.
func Exp(x float64) float64 {
	if math.IsNaN(x) {
		return math.NaN()
	}
	b := math.Float64bits(x) &^ (1 << 63)
	e := int(b>>52) - 1023
	switch {
	case e < -54:
		return 1
	case e > 9 && x > 0:
		return math.Inf(1)
	case e > 9:
		return 0
	}
	k, f := naturalExponent(x < 0, b<<11|1<<63, e)
	return compose(exp2(f), k, false)
}

// Exp2 returns 2^x, exactly where that is a float64.
//
// Exp2(NaN) = NaN, Exp2(+Inf) = +Inf, Exp2(-Inf) = 0, Exp2(±0) = 1. x ≥ 1024 gives
// +Inf, x ≤ -1075 gives 0.
func Exp2(x float64) float64 {
	if math.IsNaN(x) {
		return math.NaN()
	}
	b := math.Float64bits(x) &^ (1 << 63)
	e := int(b>>52) - 1023
	switch {
	case e < -54:
		return 1
	case e > 10 && x > 0:
		return math.Inf(1)
	case e > 10:
		return 0
	}
	k, f := floor(x < 0, b<<11|1<<63, 0, 63-e)
	return compose(exp2(f), k, false)
}

// Sigmoid returns 1/(1+e^-x), the inverse of the log odds.
//
// Sigmoid(NaN) = NaN, Sigmoid(+Inf) = 1, Sigmoid(-Inf) = 0, Sigmoid(±0) = 0.5.
// Results are within [0, 1]; for x < -745.13… they are 0, for x > 37.42… they are 1.
func Sigmoid(x float64) float64 {
	if math.IsNaN(x) {
		return math.NaN()
	}
	b := math.Float64bits(x) &^ (1 << 63)
	e := int(b>>52) - 1023
	switch {
	case e < -54:
		return 0.5
	case e > 9 && x > 0:
		return 1
	case e > 9:
		return 0
	}
	// t = e^-|x| = m·2^(k-63), k < 0 but for t = 1; d = (1+t)·2^63.
	k, f := naturalExponent(true, b<<11|1<<63, e)
	m := exp2(f)
	if k == 0 {
		return 0.5
	}
	d := uint64(1)<<63 + m>>-k
	if x > 0 {
		q, _ := bits.Div64(1<<62, 0, d) // 2^63/(1+t)
		lz := bits.LeadingZeros64(q)
		return compose(q<<lz, -lz, true)
	}
	q, _ := bits.Div64(m>>1, m<<63, d) // m/(1+t)
	lz := bits.LeadingZeros64(q)
	return compose(q<<lz, k-lz, true)
}

// log returns ln x = ±(h:l)·2^(e-127), top bit of h set, for a finite x > 0 other
// than 1. The error is below 2^-75 of the value.
func log(x float64) (neg bool, h, l uint64, e int) {
	_, m, k := decompose(x)

	// x = 2^k·m. With c, near 1/m, from a table: ln x = k·ln 2 - ln c + ln(1+r),
	// where 1+r = c·m is exact. From √2 on, m/2 and k+1 take the place of m and k,
	// so that c = 1 and -ln c = 0 on both sides of 1 and nothing cancels.
	i := m >> 56 & 127
	one := 61
	if i >= logHalved {
		one, k = 62, k+1
	}
	t := &logTable[i]
	d := int64((m>>11)*uint64(t.c) - 1<<one)
	below := d < 0
	z := uint64(d)
	if below {
		z = -z
	}
	var w1, w0 uint64 // |ln(1+r)| = (w1:w0)·2^(er-126)
	er := 0
	if z != 0 {
		lz := bits.LeadingZeros64(z)
		z <<= lz
		er = 63 - lz - one // |r| = z·2^(er-63) < 2^-7
		w1, w0 = log1p(below, z, er)
	}
	if k == 0 && t.hi == 0 && t.lo == 0 {
		h, l, e = w1, w0, er+1
		neg = below
	} else {
		// Fixed point with 117 binary digits.
		h, l = shift(w1, w0, 9-er)
		if below {
			h, l = negate(h, l)
		}
		var carry uint64
		l, carry = bits.Add64(l, t.lo, 0)
		h, _ = bits.Add64(h, t.hi, carry)
		a := uint64(max(k, -k))
		kh, kl := bits.Mul64(a, ln2LoQ117)
		kh += a * ln2HiQ117
		if k < 0 {
			kh, kl = negate(kh, kl)
		}
		l, carry = bits.Add64(l, kl, 0)
		h, _ = bits.Add64(h, kh, carry)
		if neg = int64(h) < 0; neg {
			h, l = negate(h, l)
		}
		e = 10
	}
	if h == 0 {
		h, l, e = l, 0, e-64
	}
	lz := bits.LeadingZeros64(h)
	return neg, h<<lz | l>>(64-lz), l << lz, e - lz
}

// log1p returns |ln(1±z)|, z·2^(er-63) with er < -7 standing for z, as
// (w1:w0)·2^(er-126).
func log1p(below bool, z uint64, er int) (w1, w0 uint64) {
	// ln(1+r) = r·q, q = 1 - r/2 + r²·(1/3 - r/4 + …), all signs + for 1-z.
	y := z >> (-er - 1) // |r|·2^64
	p := uint64(inv11)
	var qh, ql, carry uint64
	half := 1 - er
	hh, hl := z>>half, z<<(64-half)
	if below {
		p = inv10 + hi64(p, y)
		p = inv9 + hi64(p, y)
		p = inv8 + hi64(p, y)
		p = inv7 + hi64(p, y)
		p = inv6 + hi64(p, y)
		p = inv5 + hi64(p, y)
		p = inv4 + hi64(p, y)
		p = inv3 + hi64(p, y)
		qh, ql = 1<<63+hh, hl
	} else {
		p = inv10 - hi64(p, y)
		p = inv9 - hi64(p, y)
		p = inv8 - hi64(p, y)
		p = inv7 - hi64(p, y)
		p = inv6 - hi64(p, y)
		p = inv5 - hi64(p, y)
		p = inv4 - hi64(p, y)
		p = inv3 - hi64(p, y)
		ql, carry = bits.Sub64(0, hl, 0)
		qh = 1<<63 - hh - carry
	}
	sh, sl := shift(hi64(hi64(z, z), p), 0, -2*er-1)
	ql, carry = bits.Add64(ql, sl, 0)
	qh += sh + carry
	w1, w0 = bits.Mul64(z, qh)
	w0, carry = bits.Add64(w0, hi64(z, ql), 0)
	return w1 + carry, w0
}

// 2^64/n
const (
	inv3  = (1<<64 + 1) / 3
	inv4  = 1 << 62
	inv5  = (1<<64 + 2) / 5
	inv6  = (1<<64 + 3) / 6
	inv7  = (1<<64 + 3) / 7
	inv8  = 1 << 61
	inv9  = (1<<64 + 4) / 9
	inv10 = (1<<64 + 5) / 10
	inv11 = (1<<64 + 5) / 11
)

func negate(h, l uint64) (uint64, uint64) {
	l, borrow := bits.Sub64(0, l, 0)
	h, _ = bits.Sub64(0, h, borrow)
	return h, l
}

// Log returns the natural logarithm of x.
//
// Log(NaN) = NaN, Log(x < 0) = NaN, Log(±0) = -Inf, Log(+Inf) = +Inf, Log(1) = +0.
// Subnormal x are as good as others.
func Log(x float64) float64 {
	switch {
	case math.IsNaN(x) || x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	case x == 1:
		return 0
	case math.IsInf(x, 1):
		return x
	}
	neg, h, l, e := log(x)
	r := compose(h, e, l != 0)
	if neg {
		return -r
	}
	return r
}

// Pow returns x^y, exactly where rounding has nothing to decide.
//
// Special cases, in this order: Pow(x, ±0) = 1 and Pow(1, y) = 1 for any x and y,
// NaN included; Pow(NaN, y) = Pow(x, NaN) = NaN; Pow(-1, ±Inf) = 1; Pow(x, +Inf) = +Inf for
// |x| > 1 and 0 for |x| < 1, Pow(x, -Inf) the other way round; Pow(±0, y) = +0 for y > 0
// and +Inf for y < 0; Pow(±Inf, y) = +Inf for y > 0 and +0 for y < 0; of the last two, x with
// a sign and an odd integer y give the result a sign; Pow(x, y) = NaN for finite x < 0
// and finite y that is no integer. Overflow gives ±Inf, underflow subnormals and then ±0.
func Pow(x, y float64) float64 {
	switch {
	case y == 0 || x == 1:
		return 1
	case math.IsNaN(x) || math.IsNaN(y):
		return math.NaN()
	}
	ax := math.Abs(x)
	if math.IsInf(y, 0) {
		switch {
		case ax == 1:
			return 1
		case (ax > 1) == (y > 0):
			return math.Inf(1)
		}
		return 0
	}
	whole, odd := parity(y)
	negative := math.Signbit(x) && odd
	r := 0.0
	switch {
	case ax == 0 || math.IsInf(x, 0):
		if (ax == 0) == (y < 0) {
			r = math.Inf(1)
		}
	case x < 0 && !whole:
		return math.NaN()
	case ax == 1:
		r = 1
	default:
		r = pow(ax, y)
	}
	if negative {
		return -r
	}
	return r
}

// parity reports whether the finite y ≠ 0 is an integer, and an odd one.
func parity(y float64) (whole, odd bool) {
	_, m, e := decompose(y)
	switch {
	case e < 0:
		return false, false
	case e > 63:
		return true, false
	}
	return e == 63 || m<<(e+1) == 0, m>>(63-e)&1 != 0
}

// pow is Pow for finite x > 0 other than 1 and finite y ≠ 0.
func pow(x, y float64) float64 {
	neg, h, l, e := log(x)
	yneg, m, ey := decompose(y)
	neg = neg != yneg
	if e+ey > 11 {
		if neg {
			return 0
		}
		return math.Inf(1)
	}
	// ln x · log2(e) · |y|, 128 bits of each product.
	h, l = mul128(h, l, log2eHi, log2eLo)
	h1, l1 := bits.Mul64(h, m)
	l1, carry := bits.Add64(l1, hi64(l, m), 0)
	k, f := floor(neg, h1+carry, l1, 61-e-ey)
	return compose(exp2(f), k, false)
}

// mul128 returns the upper half of the 256-bit product, up to 3 units too small.
func mul128(ah, al, bh, bl uint64) (h, l uint64) {
	var carry uint64
	h, l = bits.Mul64(ah, bh)
	l, carry = bits.Add64(l, hi64(ah, bl), 0)
	h += carry
	l, carry = bits.Add64(l, hi64(al, bh), 0)
	return h + carry, l
}
