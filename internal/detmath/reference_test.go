package detmath

import (
	"math"
	"math/big"
)

// Reference values by arithmetic that shares nothing with the package: integers
// of math/big in units of 2^-digits, series over rational reductions.
const digits = 192

var (
	unit  = new(big.Int).Lsh(big.NewInt(1), digits)
	bigLn = refLogOfFraction(big.NewInt(2), big.NewInt(1)) // ln 2
)

// fixed returns x in units of 2^-digits, cut off below.
func fixed(x float64) *big.Int {
	f := new(big.Float).SetPrec(64).SetFloat64(x)
	f.SetMantExp(f, digits)
	i, _ := f.Int(nil)
	return i
}

func mulFixed(a, b *big.Int) *big.Int {
	p := new(big.Int).Mul(a, b)
	return p.Rsh(p, digits)
}

// refLogOfFraction returns ln(a/b) by 2·artanh((a-b)/(a+b)).
func refLogOfFraction(a, b *big.Int) *big.Int {
	num := new(big.Int).Sub(a, b)
	t := num.Lsh(num, digits)
	t.Quo(t, new(big.Int).Add(a, b))
	t2 := mulFixed(t, t)
	sum, term := new(big.Int), new(big.Int).Set(t)
	for n := int64(1); term.Sign() != 0 && !(term.BitLen() == 1 && term.Sign() < 0); n += 2 {
		sum.Add(sum, new(big.Int).Quo(term, big.NewInt(n)))
		term = mulFixed(term, t2)
	}
	return sum.Lsh(sum, 1)
}

// refExp returns e^y for y in units of 2^-digits, as m·2^e.
func refExp(y *big.Int) (m *big.Int, e int) {
	k := new(big.Int).Div(y, bigLn) // rounded down
	r := new(big.Int).Sub(y, new(big.Int).Mul(k, bigLn))
	// Halve six times, sum the series, square six times.
	const halvings = 6
	r.Rsh(r, halvings)
	sum, term := new(big.Int).Set(unit), new(big.Int).Set(unit)
	for n := int64(1); term.Sign() != 0; n++ {
		term = mulFixed(term, r)
		term.Quo(term, big.NewInt(n))
		sum.Add(sum, term)
	}
	for range halvings {
		sum = mulFixed(sum, sum)
	}
	return sum, int(k.Int64()) - digits
}

// refLog returns ln x for finite x > 0.
func refLog(x float64) *big.Int {
	frac, e := math.Frexp(x)
	if frac < math.Sqrt2/2 {
		frac, e = frac*2, e-1
	}
	l := refLogOfFraction(big.NewInt(int64(frac*(1<<53))), big.NewInt(1<<53))
	return l.Add(l, new(big.Int).Mul(big.NewInt(int64(e)), bigLn))
}

// ulps returns how far got is from m·2^e (m > 0 exact to many more digits than a
// float64), in units of the last place of the float64 nearest to it.
func ulps(got float64, m *big.Int, e int) float64 {
	msb := m.BitLen() - 1 + e
	unitAt := max(msb-52, -1074)
	if msb > 1023 {
		unitAt = 1023 - 52
	}
	want := new(big.Float).SetPrec(400).SetInt(m)
	want.SetMantExp(want, e)
	var g *big.Float
	if math.IsInf(got, 1) {
		g = new(big.Float).SetMantExp(big.NewFloat(1), 1024)
	} else {
		g = new(big.Float).SetFloat64(got)
	}
	d := new(big.Float).SetPrec(400).Sub(g, want)
	d.SetMantExp(d, -unitAt)
	f, _ := d.Float64()
	return math.Abs(f)
}
