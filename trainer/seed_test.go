package trainer

import (
	"slices"
	"testing"
)

func TestPCGVectors(t *testing.T) {
	// Output of the reference implementation's demo for state 42, stream 54.
	p := newPCG(42, 54)
	for i, want := range []uint32{0xa15c02b7, 0x7b47f409, 0xba1d3330, 0x83d2f293, 0xbfa4784b, 0xcbed606e} {
		if got := p.uint32(); got != want {
			t.Fatalf("output %d: %#x, want %#x", i, got, want)
		}
	}
}

func TestNamedSeedsDiffer(t *testing.T) {
	first := func(seed int64, name string) uint64 {
		p := named(seed, name)
		return uint64(p.uint32())<<32 | uint64(p.uint32())
	}
	seen := map[uint64]string{}
	for _, name := range []string{"a", "b", "tree/1", "tree/11", "tree/1/1"} {
		for seed := range int64(3) {
			k := first(seed, name)
			if other, ok := seen[k]; ok {
				t.Errorf("%d/%s and %s give one sequence", seed, name, other)
			}
			seen[k] = name
		}
	}
	if first(7, "a") != first(7, "a") {
		t.Error("one name gives two sequences")
	}
}

func TestBelowIsEvenAndInRange(t *testing.T) {
	p := newPCG(1, 2)
	for _, n := range []uint32{1, 2, 3, 7, 1 << 31, 1<<32 - 1} {
		var low int
		for range 4000 {
			v := p.below(n)
			if v >= n {
				t.Fatalf("below(%d) = %d", n, v)
			}
			if v < n/2 {
				low++
			}
		}
		if n > 3 && (low < 1600 && n != 7 || low > 2400) {
			t.Errorf("below(%d): %d of 4000 in the lower half", n, low)
		}
	}
}

func TestSampleWithoutReplacement(t *testing.T) {
	p := newPCG(3, 4)
	for _, k := range []int{0, 1, 5, 20, 30} {
		s := p.sample(20, k)
		if len(s) != min(k, 20) || !slices.IsSorted(s) || len(slices.Compact(slices.Clone(s))) != len(s) {
			t.Errorf("sample(20, %d) = %v", k, s)
		}
	}
}
