package run

import (
	crypto "crypto/rand"
	"hash/maphash"
	old "math/rand"
	"math/rand/v2"
	"time"
)

var started = time.Now() // want `clock: time.Now`

type clock struct{ now func() time.Time }

func (c *clock) set(t time.Time) time.Duration {
	c.now = time.Now     // want `clock: time.Now`
	_ = time.Since(t)    // want `clock: time.Since`
	return time.Until(t) // want `clock: time.Until`
}

func (c clock) Now() time.Time { return c.now() }

func given(c clock) time.Time {
	return c.Now().Add(time.Second).UTC()
}

func seeded() (uint64, int) {
	r := rand.New(rand.NewPCG(1, 2))
	o := old.New(old.NewSource(1))
	_ = r.NormFloat64() // want `random: .*NormFloat64 depends on the processor`
	_ = o.ExpFloat64()  // want `random: .*ExpFloat64 depends on the processor`
	return r.Uint64(), o.Intn(6)
}

func unseeded(b []byte) int {
	crypto.Read(b)             // want `random: crypto/rand.Read is another value`
	_ = maphash.Bytes(seed, b) // want `random: hash/maphash.Bytes is another value`
	return rand.IntN(6) +      // want `random: math/rand/v2.IntN`
		old.Intn(6) // want `random: math/rand.Intn`
}

var seed = maphash.MakeSeed() // want `random: hash/maphash.MakeSeed is another value`
