package trainer

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"
)

// pcg is the generator PCG-XSH-RR 64/32 (O'Neill 2014): integer arithmetic
// only, so that one seed gives one sequence on every CPU and with every
// version of the standard library.
type pcg struct{ state, inc uint64 }

const pcgMultiplier = 6364136223846793005

// newPCG starts stream number seq at the given state.
func newPCG(state, seq uint64) *pcg {
	p := &pcg{inc: seq<<1 | 1}
	p.uint32()
	p.state += state
	p.uint32()
	return p
}

// named returns the generator for one use, derived from the recipe's seed and
// the name of the use. Two names give independent sequences, so that adding a
// use never moves the others.
func named(seed int64, name string) *pcg {
	b := binary.BigEndian.AppendUint64(nil, uint64(seed))
	sum := sha256.Sum256(append(b, name...))
	return newPCG(binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16]))
}

func (p *pcg) uint32() uint32 {
	old := p.state
	p.state = old*pcgMultiplier + p.inc
	x := uint32((old>>18 ^ old) >> 27)
	return bits.RotateLeft32(x, -int(old>>59))
}

// below returns a number in [0, n), every one equally likely; n must be
// positive.
func (p *pcg) below(n uint32) uint32 {
	m := uint64(p.uint32()) * uint64(n)
	if low := uint32(m); low < n {
		for reject := -n % n; low < reject; low = uint32(m) {
			m = uint64(p.uint32()) * uint64(n)
		}
	}
	return uint32(m >> 32)
}

// sample returns k of the numbers 0 to n-1 in ascending order, drawn without
// replacement; all of them when k >= n.
func (p *pcg) sample(n, k int) []int32 {
	k = min(k, n)
	a := make([]int32, k)
	// The first k places of a shuffle; of the others only those that changed
	// are kept.
	moved := make(map[int32]int32, k)
	at := func(i int32) int32 {
		if v, ok := moved[i]; ok {
			return v
		}
		return i
	}
	for i := range int32(k) {
		j := i + int32(p.below(uint32(int32(n)-i)))
		a[i], moved[j] = at(j), at(i)
	}
	slices.Sort(a)
	return a
}
