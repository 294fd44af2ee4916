package trainer

import (
	"slices"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

func TestRecency(t *testing.T) {
	r := Recipe{AsOf: 1000 * microsPerDay, WindowDays: 100, HalfLifeDays: 50}
	for _, c := range []struct {
		name    string
		at      int64
		want    int32
		dropped string
	}{
		{"now", r.AsOf, unitWeight, ""},
		{"undated", record.NoTime, unitWeight, ""},
		{"one half-life", r.AsOf - 50*microsPerDay, unitWeight / 2, ""},
		{"end of the window", r.AsOf - 100*microsPerDay, unitWeight / 4, ""},
		{"outside", r.AsOf - 100*microsPerDay - 1, 0, droppedWindow},
		{"later", r.AsOf + 1, 0, droppedLater},
		{"absurdly old", record.NoTime + 1, 0, droppedWindow},
	} {
		if w, why := r.recency(c.at); w != c.want || why != c.dropped {
			t.Errorf("%s: %d %q, want %d %q", c.name, w, why, c.want, c.dropped)
		}
	}
	r.HalfLifeDays = 1
	if w, why := r.recency(r.AsOf - 100*microsPerDay); w != 1 || why != "" {
		t.Errorf("old but inside: %d %q, want the least weight", w, why)
	}
}

func TestOneSiteCannotOutvoteTheOthers(t *testing.T) {
	// Site 1 holds 900 of 1000 units, site 2 has 60, files (0) the rest.
	var weights, site []int32
	add := func(s int32, n int, w int32) {
		for range n {
			weights, site = append(weights, w), append(site, s)
		}
	}
	add(1, 9, 100)
	add(2, 6, 10)
	add(0, 4, 10)
	capped := capSites(weights, site, 3, 250_000)
	if !slices.Equal(capped, []int{1}) {
		t.Fatalf("capped %v", capped)
	}
	var sum [3]int64
	for i, w := range weights {
		sum[site[i]] += int64(w)
	}
	if sum[1] > 250 || sum[1] < 240 || sum[2] != 60 || sum[0] != 40 {
		t.Errorf("weights by site %v, want at most 250, 60, 40", sum)
	}
	before := slices.Clone(weights)
	if capped := capSites(weights, site, 3, 1_000_000); capped != nil || !slices.Equal(before, weights) {
		t.Error("a cap of everything caps")
	}
	// Files are the operator's own, however many.
	own := []int32{50, 50}
	if capped := capSites(own, []int32{0, 0}, 1, 1); capped != nil || own[0] != 50 {
		t.Error("files are capped")
	}
	tiny := []int32{1, 1}
	if capSites(tiny, []int32{1, 0}, 2, 1); tiny[0] != 1 {
		t.Error("a weight fell below 1")
	}
}

func TestBalanceRaisesRareClasses(t *testing.T) {
	weights := make([]int32, 1010)
	labels := make([]uint8, 1010)
	for i := range weights {
		weights[i] = unitWeight
		if i >= 1000 {
			labels[i] = 2
		}
	}
	for _, c := range []struct{ exponent, limit, common, rare int64 }{
		{0, 16_000, unitWeight, unitWeight},
		{1_000_000, 64_000, 2068, maxWeight}, // 50.5 would pass what a weight can be
		{1_000_000, 4000, 2068, 4 * unitWeight},
		{500_000, 16_000, 2911, 29108}, // √0.505 and √50.5
	} {
		out := balance(weights, labels, 3, c.exponent, c.limit)
		if int64(out[0]) != c.common || int64(out[1005]) != c.rare {
			t.Errorf("exponent %d limit %d: %d and %d, want %d and %d", c.exponent, c.limit, out[0], out[1005], c.common, c.rare)
		}
	}
	if weights[0] != unitWeight {
		t.Error("the argument was changed")
	}
}
