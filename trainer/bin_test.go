package trainer

import (
	"math"
	"slices"
	"testing"
)

func TestSortKeysIsTheOrderOfFloats(t *testing.T) {
	inf := float32(math.Inf(1))
	ordered := []float32{-inf, -math.MaxFloat32, -1, -math.SmallestNonzeroFloat32, 0, math.SmallestNonzeroFloat32, 1, 1.5, math.MaxFloat32, inf}
	for i := 1; i < len(ordered); i++ {
		if sortKey(ordered[i-1]) >= sortKey(ordered[i]) {
			t.Errorf("%v is not before %v", ordered[i-1], ordered[i])
		}
	}
	for _, v := range ordered {
		if keyValue(sortKey(v)) != v {
			t.Errorf("%v comes back as %v", v, keyValue(sortKey(v)))
		}
	}
	if sortKey(float32(math.Copysign(0, -1))) != sortKey(0) {
		t.Error("-0 and 0 differ")
	}
	p := newPCG(5, 6)
	for _, n := range []int{0, 1, 2, 1000} {
		for _, mask := range []uint32{0xffffffff, 0xff, 0xfff00000, 0} {
			a := make([]uint32, n)
			for i := range a {
				a[i] = p.uint32() & mask
			}
			want := slices.Clone(a)
			slices.Sort(want)
			if got := sortKeys(a, make([]uint32, n)); !slices.Equal(got, want) {
				t.Errorf("%d keys under %#x are not sorted", n, mask)
			}
		}
	}
}

func TestCuts(t *testing.T) {
	keys := func(v ...float32) []uint32 {
		var k []uint32
		for _, x := range v {
			k = append(k, sortKey(x))
		}
		slices.Sort(k)
		return k
	}
	one, next := float32(1), math.Nextafter32(1, 2)
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		name    string
		values  []uint32
		missing bool
		bins    int
		want    []float32
	}{
		{"nothing", nil, false, 255, nil},
		{"all missing", nil, true, 255, nil},
		{"one value", keys(3, 3, 3), false, 255, nil},
		{"a bin for each value", keys(1, 2, 2, 4), false, 255, []float32{1.5, 3}},
		{"missing values have the last bin", keys(1, 2, 2, 4), true, 255, []float32{1.5, 3, 4}},
		{"no room between neighbours", keys(one, next), false, 255, []float32{1}},
		{"infinities", keys(-inf, 0, inf), false, 255, []float32{-inf, 0}},
		{"equal shares", keys(1, 2, 3, 4, 5, 6), false, 3, []float32{2.5, 4.5}},
		{"a frequent value stands alone", keys(1, 2, 2, 2, 2, 2, 2, 2, 3, 4), false, 3, []float32{1.5, 2.5}},
		{"two bins", keys(1, 2, 3, 4), false, 2, []float32{2.5}},
		{"two bins, one for missing", keys(1, 2, 3, 4), true, 2, []float32{4}},
	} {
		if got := cuts(c.values, c.missing, c.bins); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestBinsKeepTheirBoundsOnAnyValues(t *testing.T) {
	p := newPCG(7, 8)
	for trial := range 200 {
		n := 1 + int(p.below(3000))
		maxBins := 2 + int(p.below(254))
		spread := 1 + p.below(4000)
		missing := trial%3 == 0
		x := make([]float32, n)
		rows := make([]int32, n)
		for i := range x {
			x[i] = float32(int32(p.below(spread))) - float32(spread)/2
			if trial%2 == 0 {
				x[i] *= x[i]
			}
			if missing && p.below(5) == 0 {
				x[i] = float32(math.NaN())
			}
			rows[i] = int32(i)
		}
		m := fitBins(rowMajor(x, 1), []int{0}, rows, maxBins, 1)
		th := m.thresholds[0]
		if m.count(0) > maxBins {
			t.Fatalf("%d bins, limit %d", m.count(0), maxBins)
		}
		for i := 1; i < len(th); i++ {
			if !(th[i-1] < th[i]) {
				t.Fatalf("thresholds %v and %v", th[i-1], th[i])
			}
		}
		for i, v := range x {
			b := int(m.columns[0][i])
			// The bin is that of every comparison x <= t, NaN included.
			for k, cut := range th {
				if (v <= cut) != (b <= k) {
					t.Fatalf("value %v in bin %d, threshold %d is %v", v, b, k, cut)
				}
			}
		}
	}
}

func TestThresholdsComeFromTrainingRowsOnly(t *testing.T) {
	x := []float32{1, 2, 3, 100, -5}
	all := []int32{0, 1, 2, 3, 4}
	m := fitBins(rowMajor(x, 1), []int{0}, all[:3], 255, 2).apply(rowMajor(x, 1), []int{0}, all, 2)
	if !slices.Equal(m.thresholds[0], []float32{1.5, 2.5}) {
		t.Errorf("thresholds %v", m.thresholds[0])
	}
	if !slices.Equal(m.columns[0], []uint8{0, 1, 2, 2, 0}) {
		t.Errorf("bins %v", m.columns[0])
	}
}

func TestLadderCountsTheThresholdsBelow(t *testing.T) {
	inf := float32(math.Inf(1))
	p := newPCG(7, 8)
	many := func(n int, value func() float32) []float32 {
		var v []float32
		for range n {
			v = append(v, value())
		}
		slices.Sort(v)
		return slices.Compact(v)
	}
	finite := func() float32 {
		for {
			if v := math.Float32frombits(p.uint32()); v-v == 0 {
				return v
			}
		}
	}
	for _, c := range [][]float32{
		nil,
		{0},
		{-inf, inf},
		{-math.MaxFloat32, 0, math.MaxFloat32},
		many(MaxBins-1, finite),
		many(MaxBins-1, func() float32 { return float32(p.below(300)) }),
		many(MaxBins-1, func() float32 { return 1 + float32(p.below(300))*0x1p-23 }),
		append([]float32{-math.MaxFloat32}, many(MaxBins-2, func() float32 { return 1 + float32(p.below(300))*0x1p-23 })...),
		append(many(MaxBins-2, func() float32 { return -1 - float32(p.below(300))*0x1p-23 }), inf),
	} {
		values := []float32{-inf, -math.MaxFloat32, float32(math.Copysign(0, -1)), 0, math.MaxFloat32, inf, float32(math.NaN())}
		for _, v := range c {
			values = append(values, v, math.Nextafter32(v, -inf), math.Nextafter32(v, inf))
		}
		for range 1000 {
			values = append(values, finite())
		}
		var l ladder
		l.set(c)
		got := make([]uint8, len(values))
		l.fill(got, values)
		for i, v := range values {
			want := 0
			for _, t := range c {
				if !(v <= t) {
					want++
				}
			}
			if int(got[i]) != want {
				t.Fatalf("%d thresholds from %v: %v is in bin %d, want %d", len(c), c[:min(1, len(c))], v, got[i], want)
			}
		}
	}
}
