package detmath

import (
	"math"
	"math/big"
	"math/bits"
)

// Sum adds float64 values exactly: an integer in units of 2^-1074, wide enough for
// any 2^63 of them. So the order of the values, and how they were shared out
// among several Sums merged later, cannot change the result. The zero Sum is empty
// and ready. It is not safe for concurrent use; a copy is independent.
type Sum struct {
	// digit[i] counts 2^(32i-1074) and may exceed 32 bits for as long as pending
	// stays below pendingMax.
	digit         [68]int64
	pending       int
	plus, minus   bool // +Inf, -Inf was added
	indeterminate bool // NaN was added
}

// Each addition changes a digit by less than 2^32, each carry leaves it below 2^32.
const pendingMax = 1 << 30

// Add adds x.
func (s *Sum) Add(x float64) {
	b := math.Float64bits(x)
	m, pos := b&(1<<52-1), int(b>>52&0x7ff)
	switch pos {
	case 0:
		if m == 0 {
			return
		}
	case 0x7ff:
		switch {
		case m != 0:
			s.indeterminate = true
		case b>>63 != 0:
			s.minus = true
		default:
			s.plus = true
		}
		return
	default:
		m |= 1 << 52
		pos--
	}
	if s.pending == pendingMax {
		s.carry()
	}
	s.pending++
	shift := pos & 31
	d := (*[3]int64)(s.digit[pos>>5:])
	lo, hi := m<<shift, m>>(64-shift)
	if b>>63 == 0 {
		d[0] += int64(lo & math.MaxUint32)
		d[1] += int64(lo >> 32)
		d[2] += int64(hi)
	} else {
		d[0] -= int64(lo & math.MaxUint32)
		d[1] -= int64(lo >> 32)
		d[2] -= int64(hi)
	}
}

// carry brings all digits but the last into [0, 2^32). The last takes the sign.
func (s *Sum) carry() {
	for i := range len(s.digit) - 1 {
		s.digit[i+1] += s.digit[i] >> 32
		s.digit[i] &= math.MaxUint32
	}
	s.pending = 1
}

// Merge adds everything that was added to o.
func (s *Sum) Merge(o *Sum) {
	c := *o
	c.carry()
	s.carry()
	for i, d := range c.digit {
		s.digit[i] += d
	}
	s.pending = 2
	s.plus = s.plus || o.plus
	s.minus = s.minus || o.minus
	s.indeterminate = s.indeterminate || o.indeterminate
}

// Value returns the sum, rounded once to the nearest float64, ties to even.
// NaN or infinities of both signs among the values give NaN, infinities of one
// sign that infinity. Sums too large are ±Inf. The empty sum and every exact zero,
// of negative zeros too, is +0.
func (s *Sum) Value() float64 {
	switch {
	case s.indeterminate || s.plus && s.minus:
		return math.NaN()
	case s.plus:
		return math.Inf(1)
	case s.minus:
		return math.Inf(-1)
	}
	c := *s
	c.carry()
	neg := c.digit[len(c.digit)-1] < 0
	if neg {
		for i := range c.digit {
			c.digit[i] = -c.digit[i]
		}
		c.carry()
	}
	top := len(c.digit) - 1
	for top >= 0 && c.digit[top] == 0 {
		top--
	}
	if top < 0 {
		return 0
	}
	// The 64 bits from the leading one down, and whether any follow.
	var w [3]uint64
	more := false
	for i := range c.digit[:top+1] {
		switch d := uint64(c.digit[i]); {
		case i > top-3:
			w[top-i] = d
		case d != 0:
			more = true
		}
	}
	if w[0] > math.MaxUint32 {
		if neg { // beyond all float64
			return math.Inf(-1)
		}
		return math.Inf(1)
	}
	hi, lo := w[0]<<32|w[1], w[2]<<32
	lz := bits.LeadingZeros64(hi)
	m := hi<<lz | lo>>(64-lz)
	more = more || lo<<lz != 0
	// hi counts 2^(32(top-1)-1074).
	r := compose(m, 63-lz+32*(top-1)-1074, more)
	if neg {
		return -r
	}
	return r
}

// exact returns the finite sum in units of 2^-1074.
func (s *Sum) exact() *big.Int {
	c := *s
	c.carry()
	out, d := new(big.Int), new(big.Int)
	for i := len(c.digit) - 1; i >= 0; i-- {
		out.Add(out.Lsh(out, 32), d.SetInt64(c.digit[i]))
	}
	return out
}

func (s *Sum) finite() bool { return !s.indeterminate && !s.plus && !s.minus }

// Moments takes mean and standard deviation of float32 values from their exact
// sum and exact sum of squares. As with Sum, order and partition cannot change the
// result. The zero Moments is empty and ready. It is not safe for concurrent use;
// a copy is independent.
type Moments struct {
	n     int64
	x, x2 Sum
}

// Add adds one value. NaN and infinities make Mean and Deviation NaN.
func (m *Moments) Add(x float32) {
	m.n++
	if x == 0 {
		return
	}
	v := float64(x)
	m.x.Add(v)
	m.x2.Add(float64(v * v)) // 48 bits within float64's exponents: exact
}

// Merge adds everything that was added to o.
func (m *Moments) Merge(o *Moments) {
	m.n += o.n
	m.x.Merge(&o.x)
	m.x2.Merge(&o.x2)
}

// Count returns how many values were added.
func (m *Moments) Count() int64 { return m.n }

func (m *Moments) defined() bool { return m.n > 0 && m.x.finite() && m.x2.finite() }

// Mean returns the arithmetic mean, rounded once to the nearest float64; NaN for
// no values, or if one was not finite.
func (m *Moments) Mean() float64 {
	if !m.defined() {
		return math.NaN()
	}
	n := new(big.Int).Lsh(big.NewInt(m.n), 1074)
	f, _ := new(big.Rat).SetFrac(m.x.exact(), n).Float64()
	return f
}

// Deviation returns the standard deviation √(Σ(x-mean)²/n) of the values taken as
// the whole population, rounded once to the nearest float64; NaN for no values, or
// if one was not finite. It is 0 if and only if all values are equal.
func (m *Moments) Deviation() float64 {
	if !m.defined() {
		return math.NaN()
	}
	// n²·variance = n·Σx² - (Σx)², in units of 2^-2148.
	n := big.NewInt(m.n)
	a := m.x2.exact()
	a.Lsh(a.Mul(a, n), 1074)
	sx := m.x.exact()
	a.Sub(a, sx.Mul(sx, sx))
	if a.Sign() == 0 {
		return 0
	}
	// √a·2^s with at least 128 bits more than n has: then the quotient keeps 128 bits, and
	// whether a remainder was dropped decides no more than the direction of the one rounding.
	s := uint(max(0, 2*(64+128)-a.BitLen()+1) / 2)
	a.Lsh(a, 2*s)
	root := new(big.Int).Sqrt(a)
	rest := new(big.Int).Mul(root, root)
	exactRoot := rest.Cmp(a) == 0
	q, r := root.QuoRem(root, n, rest)
	q.Lsh(q, 1)
	if !exactRoot || r.Sign() != 0 {
		q.SetBit(q, 0, 1)
	}
	f, _ := new(big.Rat).SetFrac(q, new(big.Int).Lsh(big.NewInt(1), 1074+s+1)).Float64()
	return f
}
