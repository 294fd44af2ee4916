package trainer

import (
	"slices"
	"testing"
)

// area returns the area under a curve in parts per million.
func area(curve [][2]int64) int64 {
	var twice int64
	for i := 1; i < len(curve); i++ {
		twice += (curve[i][0] - curve[i-1][0]) * (curve[i][1] + curve[i-1][1])
	}
	return twice / 2_000_000
}

func TestCurveHasOperatingPointsOnly(t *testing.T) {
	p := newPCG(9, 9)
	for trial := range 200 {
		s := make([]scored, 2+p.below(1+uint32(4*trial)))
		for i := range s {
			s[i] = scored{score: float64(p.below(1 + uint32(2*trial))), positive: p.below(3) == 0}
			if s[i].positive {
				s[i].score += float64(p.below(1 + uint32(trial)))
			}
		}
		s[0].positive, s[1].positive = true, false
		var pos, neg uint64
		at := map[[2]int64]bool{} // every operating point
		for _, threshold := range s {
			var hit, alarm uint64
			for _, r := range s {
				if r.score >= threshold.score && r.positive {
					hit++
				} else if r.score >= threshold.score {
					alarm++
				}
			}
			if threshold.positive {
				pos++
			} else {
				neg++
			}
			at[[2]int64{int64(alarm), int64(hit)}] = true
		}
		points := map[[2]int64]bool{{0, 0}: true}
		for c := range at {
			points[[2]int64{ppm(uint64(c[0]), neg), ppm(uint64(c[1]), pos)}] = true
		}
		curve := roc(slices.Clone(s))
		if len(curve) < 2 || len(curve) > curvePoints || curve[0] != [2]int64{} || curve[len(curve)-1] != [2]int64{1_000_000, 1_000_000} {
			t.Fatalf("trial %d: curve %v", trial, curve)
		}
		for i, c := range curve {
			if !points[c] {
				t.Fatalf("trial %d: %v is no operating point", trial, c)
			}
			if i > 0 && (c[0] < curve[i-1][0] || c[1] < curve[i-1][1] || c == curve[i-1]) {
				t.Fatalf("trial %d: %v after %v", trial, c, curve[i-1])
			}
		}
		if want, got := auc(slices.Clone(s)), area(curve); got < want-5000 || got > want+5000 {
			t.Errorf("trial %d: area %d under the curve, AUC %d", trial, got, want)
		}
		slices.Reverse(s)
		if again := roc(s); !slices.Equal(again, curve) {
			t.Fatalf("trial %d: the order of rows is seen", trial)
		}
	}
}

func TestCurveOfExtremes(t *testing.T) {
	for _, c := range []struct {
		name string
		rows []scored
		want [][2]int64
	}{
		{"nothing", nil, [][2]int64{}},
		{"one side", []scored{{1, true}, {2, true}}, [][2]int64{}},
		{"perfect", []scored{{1, false}, {2, true}, {3, true}, {0, false}}, [][2]int64{{0, 0}, {0, 1_000_000}, {1_000_000, 1_000_000}}},
		{"always wrong", []scored{{1, true}, {2, false}}, [][2]int64{{0, 0}, {1_000_000, 0}, {1_000_000, 1_000_000}}},
		{"all the same", []scored{{1, true}, {1, false}, {1, true}}, [][2]int64{{0, 0}, {1_000_000, 1_000_000}}},
	} {
		if got := roc(c.rows); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
