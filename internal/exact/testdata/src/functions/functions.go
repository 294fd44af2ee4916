package functions

import (
	"math"
	m "math"
	. "math/cmplx"
)

func differ(x float64) float64 {
	x = math.Exp(x)      // want `math: math.Exp depends on the processor`
	x = m.Log1p(x)       // want `math: math.Log1p depends on the processor`
	x = math.Cbrt(x)     // want `math: math.Cbrt depends on the processor`
	f := math.Tanh       // want `math: math.Tanh depends on the processor`
	return f(x) + Abs(0) // want `math: math/cmplx.Abs depends on the processor`
}

type exponent struct{}

func (exponent) Exp(x float64) float64 { return x }

func agree(x float64) float64 {
	x = math.Sqrt(x) + math.Ldexp(math.Pi, 2) + math.Trunc(x)
	x = math.FMA(x, x, x)
	return exponent{}.Exp(x)
}
