package trainer

import (
	"math"
	"testing"
)

// randomBins makes a matrix with columns of 1 to 255 bins.
func randomBins(p *pcg, rows, columns int) *bins {
	m := &bins{rows: rows}
	for c := range columns {
		n := 1 + p.below(MaxBins)
		if c%4 == 0 {
			n = 2
		}
		th := make([]float32, n-1)
		for i := range th {
			th[i] = float32(i)
		}
		col := make([]uint8, rows)
		for i := range col {
			col[i] = uint8(p.below(n))
		}
		m.thresholds = append(m.thresholds, th)
		m.columns = append(m.columns, col)
	}
	return m
}

func allColumns(m *bins) []int32 {
	a := make([]int32, len(m.columns))
	for i := range a {
		a[i] = int32(i)
	}
	return a
}

func TestHistogramEqualsPlainSums(t *testing.T) {
	p := newPCG(1, 1)
	for _, shape := range [][2]int{{1, 1}, {100, 8}, {777, 19}, {3000, 33}} {
		m := randomBins(p, shape[0], shape[1])
		for _, workers := range []int{1, 3} {
			tl := newTiles(m, allColumns(m), workers, workers)
			g, h, packed := make([]int64, m.rows), make([]int64, m.rows), make([]int64, m.rows)
			for i := range g {
				g[i], h[i] = int64(p.below(2001))-1000, int64(p.below(1000))
				packed[i] = g[i]<<32 + h[i]
			}
			var subset []int32
			var sg, sh, sp []int64
			for i := range m.rows {
				if p.below(3) == 0 {
					subset = append(subset, int32(i))
					sg, sh, sp = append(sg, g[i]), append(sh, h[i]), append(sp, packed[i])
				}
			}
			narrow, wide := tl.newHistogram(false), tl.newHistogram(true)
			check := func(name string, rows []int32) {
				t.Helper()
				for pos, c := range tl.cols {
					var wantG, wantH [256]int64
					for _, r := range rows {
						wantG[m.columns[c][r]] += g[r]
						wantH[m.columns[c][r]] += h[r]
					}
					for _, w := range []bool{false, true} {
						var gotG, gotH [256]int64
						for b := range int(tl.bins[pos]) {
							at := int(tl.start[pos]) + b
							if w {
								gotG[b], gotH[b] = wide[2*at], wide[2*at+1]
							} else {
								gotG[b], gotH[b] = narrow[at]>>32, narrow[at]&maxPackedH
							}
						}
						if gotG != wantG || gotH != wantH {
							t.Fatalf("%s, %v, wide %t, column %d differs", name, shape, w, c)
						}
					}
				}
			}
			rows := make([]int32, m.rows)
			for i := range rows {
				rows[i] = int32(i)
			}
			tl.fill(narrow, subset, sp, workers)
			tl.fillWide(wide, subset, sg, sh, workers)
			check("subset", subset)
			part, partWide := append(histogram(nil), narrow...), append(histogram(nil), wide...)
			tl.fill(narrow, nil, packed, workers)
			tl.fillWide(wide, nil, g, h, workers)
			check("all", rows)
			narrow.subtract(part)
			wide.subtract(partWide)
			in := map[int32]bool{}
			for _, r := range subset {
				in[r] = true
			}
			var rest []int32
			for _, r := range rows {
				if !in[r] {
					rest = append(rest, r)
				}
			}
			check("difference", rest)
		}
	}
}

func TestPackedSumsKeepTheirBounds(t *testing.T) {
	if !packable(maxPackedG, maxPackedH) || packable(maxPackedG+1, 0) || packable(0, maxPackedH+1) || packable(-1, 0) {
		t.Error("the bounds are not those of 32 bits")
	}
	// At the bounds nothing runs from one half into the other.
	for _, g := range []int64{maxPackedG, -maxPackedG, 0} {
		for _, h := range []int64{0, 1, maxPackedH} {
			cell := g<<32 + h
			if cell>>32 != g || cell&maxPackedH != h {
				t.Errorf("g %d h %d come back as %d %d", g, h, cell>>32, cell&maxPackedH)
			}
		}
	}
	// One past them it does.
	if over := int64(maxPackedH) + 1; (int64(5)<<32+over)>>32 == 5 {
		t.Error("an overflow of h is not seen: the test proves nothing")
	}
	for _, limit := range []int64{maxPackedG, maxPackedH} {
		for _, n := range []int64{1, 1000, 1 << 22} {
			for _, each := range []int64{1, 3, 1 << 20, 1<<40 - 1} {
				if n > 1000 && each > 1<<36 {
					continue
				}
				s := roundingShift(n*each, n, limit)
				if sum := n * roundShift(each, s); sum > limit {
					t.Errorf("%d × %d rounded by 2^%d sum to %d", n, each, s, sum)
				}
				if s > 0 && (n*each)>>(s-1)+n <= limit {
					t.Errorf("%d × %d: shift %d is more than needed", n, each, s)
				}
			}
		}
	}
	for _, v := range []int64{0, 1, -1, 7, -7, 8, -8, 12, -12, 1 << 40} {
		for s := range 5 {
			want := int64(math.Floor(float64(v)/float64(int64(1)<<s) + 0.5))
			if got := roundShift(v, s); got != want {
				t.Errorf("%d / 2^%d is %d, want %d", v, s, got, want)
			}
		}
	}
}

func benchmarkHistogram(b *testing.B, rows, columns int, half bool, workers int) {
	p := newPCG(1, 1)
	m := &bins{rows: rows}
	for range columns {
		col := make([]uint8, rows)
		for i := range col {
			col[i] = uint8(p.below(MaxBins))
		}
		m.columns = append(m.columns, col)
		m.thresholds = append(m.thresholds, make([]float32, MaxBins-1))
	}
	tl := newTiles(m, allColumns(m), workers, workers)
	hist := tl.newHistogram(false)
	var list []int32
	n := rows
	if half {
		for i := range rows {
			if p.below(2) == 0 {
				list = append(list, int32(i))
			}
		}
		n = len(list)
	}
	stat := make([]int64, n)
	for i := range stat {
		stat[i] = int64(i)
	}
	for b.Loop() {
		tl.fill(hist, list, stat, workers)
	}
	b.ReportMetric(float64(n)*float64(columns)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrowcol/s")
}

func BenchmarkHistogram(b *testing.B) {
	b.Run("all", func(b *testing.B) { benchmarkHistogram(b, 1<<17, 64, false, 1) })
	b.Run("half", func(b *testing.B) { benchmarkHistogram(b, 1<<17, 64, true, 1) })
	b.Run("all-2workers", func(b *testing.B) { benchmarkHistogram(b, 1<<17, 64, false, 2) })
}
