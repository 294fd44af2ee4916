package names

import (
	"math/rand/v2"
	"time"
)

var started = time.Now // want `clock`

type clock struct{}

func (*clock) in() time.Time {
	return time.Now() // want `clock`
}

func closure() func() int {
	return func() int {
		return rand.Int() // want `random`
	}
}

type list[E ~float64] []E

func (l list[E]) put(a E) {
	l[0] *= a // want `fusion`
}

type pair[A, B any] struct {
	a A
	b B
}

func (p *pair[A, B]) mul(x float64) float64 {
	return x * x // want `fusion`
}
