package trainer

import (
	"context"
	"math"
	"math/big"
	"reflect"
	"slices"
	"testing"
)

func TestAveragePathIsTheExactFormulaRounded(t *testing.T) {
	if averagePath(0) != 0 || averagePath(1) != 0 || averagePath(2) != 1<<pathBits {
		t.Errorf("c(0), c(1), c(2) are %d, %d, %d", averagePath(0), averagePath(1), averagePath(2))
	}
	harmonic := new(big.Rat)
	for n := 2; n <= 600; n++ {
		harmonic.Add(harmonic, big.NewRat(1, int64(n-1)))
		c := new(big.Rat).Mul(harmonic, big.NewRat(2, 1))
		c.Sub(c, big.NewRat(int64(2*(n-1)), int64(n)))
		// |table - c| <= half a unit.
		d := new(big.Rat).Sub(big.NewRat(int64(averagePath(n)), 1<<pathBits), c)
		if d.Abs(d).Cmp(big.NewRat(1, 2<<pathBits)) > 0 {
			t.Fatalf("c(%d) is %d units, exact %s", n, averagePath(n), c.FloatString(8))
		}
	}
	// 2(ln(n-1) + γ) + 1/(n-1) - 2(n-1)/n to four places.
	want := 2*(math.Log(4095)+0.5772156649) + 1.0/4095 - 2*4095.0/4096
	if got := float64(averagePath(4096)) / (1 << pathBits); math.Abs(got-want) > 2e-4 {
		t.Errorf("c(4096) is %v, want %v", got, want)
	}
}

// cloud is n rows around the origin and one far off, of width columns of
// which every other is constant.
func cloud(n, width int) ([]float32, []int32) {
	p := newPCG(77, 1)
	x := make([]float32, (n+1)*width)
	rows := make([]int32, n)
	for r := range n + 1 {
		for c := 0; c < width; c += 2 {
			x[r*width+c] = float32(p.below(100))
			if r == n {
				x[r*width+c] = 1000
			}
		}
		if r < n {
			rows[r] = int32(r)
		}
	}
	return x, rows
}

func TestOutlierHasShortPaths(t *testing.T) {
	const width = 10
	x, rows := cloud(2000, width)
	columns := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	trees, size, err := growIsolation(context.Background(), IsolationParams{Trees: 60, Sample: 128}, 1, rowMajor(x, width), columns, rows, 2)
	if err != nil || size != 128 {
		t.Fatal(size, err)
	}
	sum := func(r int) (s int64) {
		for i := range trees {
			s += int64(trees[i].length(x[r*width : (r+1)*width]))
		}
		return s
	}
	var sums []int64
	for r := range 2000 {
		sums = append(sums, sum(r))
	}
	slices.Sort(sums)
	if out := sum(2000); out >= sums[5] {
		t.Errorf("outlier has path sum %d, ordinary rows from %d", out, sums[0])
	}
	for i := range trees {
		for _, n := range trees[i].nodes {
			if n.column%2 == 1 {
				t.Fatal("a constant column was split")
			}
		}
		for _, p := range trees[i].path {
			if p < 0 || p > 7<<pathBits+averagePath(128) {
				t.Fatalf("path of %d units", p)
			}
		}
	}
	again, _, _ := growIsolation(context.Background(), IsolationParams{Trees: 60, Sample: 128}, 1, rowMajor(x, width), columns, rows, 5)
	if !reflect.DeepEqual(trees, again) {
		t.Error("workers change the trees")
	}
	if !slices.Equal(columns, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) || !slices.IsSorted(rows) {
		t.Error("growing changed its arguments")
	}
	other, _, _ := growIsolation(context.Background(), IsolationParams{Trees: 60, Sample: 128}, 2, rowMajor(x, width), columns, rows, 1)
	if reflect.DeepEqual(trees, other) {
		t.Error("another seed grows the same trees")
	}
}

func TestIsolationOfRowsThatCannotBeParted(t *testing.T) {
	nan := float32(math.NaN())
	x := []float32{1, nan, 1, nan, 1, nan}
	trees, size, err := growIsolation(context.Background(), IsolationParams{Trees: 2, Sample: 256}, 1, rowMajor(x, 2), []int{0, 1}, []int32{0, 1, 2}, 1)
	if err != nil || size != 3 {
		t.Fatal(size, err)
	}
	if len(trees[0].nodes) != 0 || trees[0].length(x[:2]) != averagePath(3) {
		t.Errorf("%d nodes, path %d", len(trees[0].nodes), trees[0].length(x[:2]))
	}
}

func TestAlarmThresholdNeverExceedsItsShare(t *testing.T) {
	p := newPCG(5, 5)
	for trial := range 300 {
		sums := make([]int64, 1+p.below(300))
		for i := range sums {
			sums[i] = int64(p.below(1 + uint32(trial)))
		}
		slices.Sort(sums)
		share := int64(p.below(500_001))
		at := lowest(sums, share)
		alarms, next := 0, 0
		for _, s := range sums {
			if s <= at {
				alarms++
			}
			if s <= at+1 {
				next++
			}
		}
		if allowed := int(int64(len(sums)) * share / 1_000_000); alarms > allowed || next <= allowed && next < len(sums) {
			t.Fatalf("%d sums, share %d: %d alarms, a step further %d, allowed %d", len(sums), share, alarms, next, allowed)
		}
	}
}
