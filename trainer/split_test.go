package trainer

import "testing"

// bruteBest looks at every column and every cut, with sums made afresh from
// the rows, and keeps the first of the best.
func bruteBest(s *gradients, m *bins, cols []int32, rows []int32, g, h func(r int32) int64) candidate {
	best := noSplit
	var sumG, sumH int64
	for _, r := range rows {
		sumG += g(r)
		sumH += h(r)
	}
	pos := int32(-1)
	for _, c := range cols {
		if m.count(int(c)) < 2 {
			continue
		}
		pos++
		for cut := 0; cut < m.count(int(c))-1; cut++ {
			var gl, hl int64
			left := 0
			for _, r := range rows {
				if int(m.columns[c][r]) <= cut {
					gl += g(r)
					hl += h(r)
					left++
				}
			}
			if left < s.minRows || len(rows)-left < s.minRows || hl < s.minH || sumH-hl < s.minH {
				continue
			}
			gain := gainTerm(gl, hl, s.lambda) + gainTerm(sumG-gl, sumH-hl, s.lambda) - gainTerm(sumG, sumH, s.lambda)
			if gain > s.minGain && (best.pos < 0 || gain > best.gain) {
				best = candidate{gain: gain, g: gl, h: hl, pos: pos, bin: uint8(cut)}
			}
		}
	}
	return best
}

func TestBestSplitIsThatOfAnExhaustiveSearch(t *testing.T) {
	p := newPCG(11, 12)
	found := 0
	for trial := range 300 {
		m := randomBins(p, 2+int(p.below(120)), 1+int(p.below(20)))
		tl := newTiles(m, allColumns(m), 1, 1)
		s := &gradients{
			tiles: tl, workers: 1 + trial%3,
			lambda: float64(p.below(50)), minGain: float64(p.below(3)), minH: int64(p.below(60)), minRows: 1 + int(p.below(12)),
		}
		g, h := make([]int64, m.rows), make([]int64, m.rows)
		var rows []int32
		for r := range m.rows {
			g[r], h[r] = int64(p.below(9))-4, int64(p.below(5))
			if p.below(4) > 0 {
				rows = append(rows, int32(r))
			}
		}
		if trial%2 == 0 {
			s.g, s.h = g, h
		} else {
			s.packed = make([]int64, m.rows)
			for r := range g {
				s.packed[r] = g[r]<<32 + h[r]
			}
		}
		n := &node{hi: len(rows)}
		s.root(n, rows)
		got := s.best(n, rows)
		want := bruteBest(s, m, allColumns(m), rows, func(r int32) int64 { return g[r] }, func(r int32) int64 { return h[r] })
		if got != want {
			t.Fatalf("trial %d, %d rows, min rows %d, min hessian %d: %+v, want %+v", trial, len(rows), s.minRows, s.minH, got, want)
		}
		if got.pos >= 0 {
			found++
		}
	}
	if found < 100 {
		t.Errorf("only %d of 300 nodes could be split: the test proves little", found)
	}
}

func TestEqualGainsGoToTheLowerColumnAndBin(t *testing.T) {
	// Columns 1 and 2 are alike, column 0 says nothing; bins 1 to 3 of them are
	// empty, so cuts 0 to 3 are one and the same.
	m := &bins{rows: 4, thresholds: [][]float32{{0}, {0, 1, 2, 3}, {0, 1, 2, 3}}, columns: [][]uint8{{0, 1, 0, 1}, {0, 0, 4, 4}, {0, 0, 4, 4}}}
	s := &gradients{tiles: newTiles(m, allColumns(m), 1, 1), workers: 1, lambda: 1, minRows: 1, packed: make([]int64, 4)}
	for r := range 4 {
		g := int64(10)
		if r >= 2 {
			g = -10
		}
		s.packed[r] = g<<32 + 5
	}
	rows := []int32{0, 1, 2, 3}
	n := &node{hi: 4}
	s.root(n, rows)
	if got := s.best(n, rows); got.pos != 1 || got.bin != 0 {
		t.Errorf("split at column %d, bin %d, want 1 and 0", got.pos, got.bin)
	}
	if (candidate{gain: 1, pos: 2}).better(candidate{gain: 1, pos: 1}) || !(candidate{gain: 1, pos: 1, bin: 1}).better(candidate{gain: 1, pos: 1, bin: 2}) {
		t.Error("ties are decided the other way round")
	}
	if noSplit.better(noSplit) || noSplit.better(candidate{gain: -1}) || !(candidate{}).better(noSplit) {
		t.Error("no split beats something")
	}
}

func TestConstantGradientsAreNotSplit(t *testing.T) {
	p := newPCG(1, 9)
	m := randomBins(p, 50, 9)
	s := &gradients{tiles: newTiles(m, allColumns(m), 1, 1), workers: 1, minRows: 1, packed: make([]int64, 50)}
	rows := make([]int32, 50)
	for r := range rows {
		rows[r] = int32(r)
		s.packed[r] = int64(7)<<32 + 7
	}
	n := &node{hi: 50}
	s.root(n, rows)
	if c := s.best(n, rows); c.pos >= 0 && c.gain > 1e-9 {
		t.Errorf("gain %v where there is none", c.gain)
	}
}

// bruteImpurity is the exhaustive twin of impurity.best with all columns drawn.
func bruteImpurity(s *impurity, m *bins, rows []int32) candidate {
	gini := func(in func(r int32) bool) (float64, int, int64) {
		count := make([]int64, s.classes)
		n, w := 0, int64(0)
		for _, r := range rows {
			if in(r) {
				count[uint8(s.stat[r])] += int64(s.stat[r] >> statClass)
				w += int64(s.stat[r] >> statClass)
				n++
			}
		}
		var sq int64
		for _, c := range count {
			sq += c * c
		}
		if w == 0 {
			return 0, n, w
		}
		return float64(sq) / float64(w), n, w
	}
	base, _, _ := gini(func(int32) bool { return true })
	best := noSplit
	for c := range m.columns {
		if m.count(c) < 2 {
			continue
		}
		for cut := 0; cut < m.count(c)-1; cut++ {
			l, nl, wl := gini(func(r int32) bool { return int(m.columns[c][r]) <= cut })
			r, nr, wr := gini(func(r int32) bool { return int(m.columns[c][r]) > cut })
			if nl < s.minRows || nr < s.minRows || wl == 0 || wr == 0 {
				continue
			}
			if gain := l + r - base; gain > 0 && (best.pos < 0 || gain > best.gain) {
				best = candidate{gain: gain, pos: int32(c), bin: uint8(cut)}
			}
		}
	}
	return best
}

func TestBestImpuritySplitIsThatOfAnExhaustiveSearch(t *testing.T) {
	p := newPCG(21, 22)
	for trial := range 200 {
		m := randomBins(p, 4+int(p.below(150+600*uint32(trial%2))), 1+int(p.below(12)))
		var columns []int32
		for c := range m.columns {
			if m.count(c) > 1 {
				columns = append(columns, int32(c))
			}
		}
		if len(columns) == 0 {
			continue
		}
		s := newImpurity(m, columns, 2+int(p.below(4)))
		s.draw, s.minRows = len(columns), 1+int(p.below(4))
		var rows []int32
		for r := range m.rows {
			weight := p.below(4)
			s.stat[r] = weight<<statClass | p.below(uint32(s.classes))
			if weight > 0 {
				rows = append(rows, int32(r))
			}
		}
		if len(rows) < 2*s.minRows {
			continue
		}
		n := &node{hi: len(rows), path: uint64(trial)}
		got, want := s.best(n, rows), bruteImpurity(s, m, rows)
		if got != want {
			t.Fatalf("trial %d, %d rows: %+v, want %+v", trial, len(rows), got, want)
		}
		if again := s.best(n, rows); again != got {
			t.Fatal("scratch of one search is seen by the next")
		}
	}
}
