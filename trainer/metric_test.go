package trainer

import (
	"math"
	"testing"
)

func TestPPM(t *testing.T) {
	for _, c := range []struct {
		a, b uint64
		want int64
	}{{0, 0, 0}, {0, 5, 0}, {5, 5, 1_000_000}, {1, 3, 333_333}, {2, 3, 666_667}, {1, 2_000_000, 1}, {1<<62 + 1, 1 << 63, 500_000}, {1 << 63, 1 << 63, 1_000_000}} {
		if got := ppm(c.a, c.b); got != c.want {
			t.Errorf("%d/%d is %d ppm, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestClassFigures(t *testing.T) {
	// Class 0: 8 rows, 6 hit, 2 said to be 1. Class 1: 4 rows, 3 hit, 1 said to
	// be 0. Class 2 never occurs.
	c := newConfusion(3)
	c[0][0], c[0][1], c[1][0], c[1][1] = 6, 2, 1, 3
	zero := c.class(0)
	if zero.Rows != 8 || zero.PrecisionPPM != 857_143 || zero.RecallPPM != 750_000 || zero.F1PPM != 800_000 {
		t.Errorf("class 0: %+v", zero)
	}
	one := c.class(1)
	if one.Rows != 4 || one.PrecisionPPM != 600_000 || one.RecallPPM != 750_000 || one.F1PPM != 666_667 {
		t.Errorf("class 1: %+v", one)
	}
	if got := c.class(2); got.F1PPM != 0 || got.RecallPPM != 0 {
		t.Errorf("class 2: %+v", got)
	}
	if got := c.macroF1(); got != 733_334 {
		t.Errorf("macro-F1 %d", got)
	}
	if got := c.accuracy(); got != 750_000 {
		t.Errorf("accuracy %d", got)
	}
	c[2][0] = 1 // now it occurs, and is never found
	if got := c.macroF1(); got >= 733_334*2/3+20_000 {
		t.Errorf("macro-F1 %d does not count the class that is never found", got)
	}
	if newConfusion(2).macroF1() != 0 {
		t.Error("macro-F1 of nothing")
	}
}

func TestAUCIsTheShareOfPairs(t *testing.T) {
	p := newPCG(6, 6)
	for trial := range 200 {
		s := make([]scored, 2+p.below(60))
		for i := range s {
			s[i] = scored{score: float64(p.below(1 + uint32(trial/10))), positive: p.below(3) == 0}
		}
		var won, pairs float64
		for _, a := range s {
			for _, b := range s {
				if a.positive && !b.positive {
					pairs++
					if a.score > b.score {
						won++
					} else if a.score == b.score {
						won += 0.5
					}
				}
			}
		}
		want := 0.0
		if pairs > 0 {
			want = won / pairs
		}
		if got := float64(auc(s)) / 1e6; math.Abs(got-want) > 6e-7 {
			t.Fatalf("%d rows: %v, want %v", len(s), got, want)
		}
	}
	for _, c := range []struct {
		name string
		s    []scored
		want int64
	}{
		{"right", []scored{{1, false}, {2, true}}, 1_000_000},
		{"wrong", []scored{{2, false}, {1, true}}, 0},
		{"tied", []scored{{1, false}, {1, true}}, 500_000},
		{"one side", []scored{{1, true}}, 0},
		{"nothing", nil, 0},
	} {
		if got := auc(c.s); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestCalibrationError(t *testing.T) {
	var c calibration
	for i := range 10 {
		c.add(800_000, i < 8) // as right as it says
	}
	if c.ece() != 0 {
		t.Errorf("ece %d of a calibrated model", c.ece())
	}
	for i := range 10 {
		c.add(1_000_000, i < 5) // sure, and right half the time
	}
	if c.ece() != 250_000 {
		t.Errorf("ece %d, want 250000", c.ece())
	}
	table := c.table()
	if len(table) != 2 || table[0] != (Reliability{10, 800_000, 800_000}) || table[1] != (Reliability{10, 1_000_000, 500_000}) {
		t.Errorf("table %+v", table)
	}
	if (&calibration{}).ece() != 0 {
		t.Error("ece of nothing")
	}
}
