package trainer

// The statistic of a row is a gradient g and a hessian h, both integers. A
// histogram holds, for each column and bin, their sums over the rows of a
// node. Integer sums do not depend on order, so that neither threads nor the
// way a sum was come by (added up, or parent less sibling) can be seen in it.

const (
	lanes     = 8   // columns of one tile
	spillSize = 256 // cells past the last column, see tiles.start

	// A packed cell is g<<32 + h with 0 <= Σh < 2^32 and |Σg| < 2^31. Sums
	// over any subset of rows keep those bounds when Σh and Σ|g| over all
	// rows do, which is what packable checks.
	maxPackedG = 1<<31 - 1
	maxPackedH = 1<<32 - 1
)

// tiles is a bin matrix laid out for histograms: the bins of eight columns of
// one row stand in one word, so that a scattered row costs one load for eight
// additions.
type tiles struct {
	cols  []int32 // column of the bin matrix at each position
	bins  []int32 // number of bins at each position
	start []int32 // first cell of each position, lanes per tile; lanes past the last column add into the spill cells
	cells int     // cells of one histogram, without the spill
	rows  int
	words [][]uint64 // by tile, then row
}

// newTiles lays out the chosen columns of m, in the order given. Columns with
// a single bin cannot be split and are left out.
func newTiles(m *bins, cols []int32, workers int) *tiles {
	t := &tiles{rows: m.rows}
	for _, c := range cols {
		if n := m.count(int(c)); n > 1 {
			t.cols = append(t.cols, c)
			t.bins = append(t.bins, int32(n))
			t.start = append(t.start, int32(t.cells))
			t.cells += n
		}
	}
	t.words = make([][]uint64, (len(t.cols)+lanes-1)/lanes)
	for len(t.start) < lanes*len(t.words) {
		t.start = append(t.start, int32(t.cells))
	}
	parallel(workers, len(t.words), func(_, k int) {
		w := make([]uint64, m.rows)
		for lane := range min(lanes, len(t.cols)-lanes*k) {
			shift := uint(8 * lane)
			for i, b := range m.columns[t.cols[lanes*k+lane]] {
				w[i] |= uint64(b) << shift
			}
		}
		t.words[k] = w
	})
	return t
}

// histogram holds the cells of all positions, packed (g<<32 + h) or wide
// (cell i: g at 2i, h at 2i+1).
type histogram []int64

func (t *tiles) newHistogram(wide bool) histogram {
	if wide {
		return make(histogram, 2*t.cells)
	}
	return make(histogram, t.cells+spillSize)
}

// fill sets hist to the sums over rows; stat[i] is the packed statistic of
// rows[i]. rows nil means all rows of the tiles in order.
func (t *tiles) fill(hist histogram, rows []int32, stat []int64, workers int) {
	clear(hist)
	parallel(workers, len(t.words), func(_, k int) {
		words := t.words[k]
		s := t.start[lanes*k : lanes*k+lanes]
		h0, h1 := (*[256]int64)(hist[s[0]:]), (*[256]int64)(hist[s[1]:])
		h2, h3 := (*[256]int64)(hist[s[2]:]), (*[256]int64)(hist[s[3]:])
		h4, h5 := (*[256]int64)(hist[s[4]:]), (*[256]int64)(hist[s[5]:])
		h6, h7 := (*[256]int64)(hist[s[6]:]), (*[256]int64)(hist[s[7]:])
		if rows == nil {
			for i, w := range words[:len(stat)] {
				v := stat[i]
				h0[uint8(w)] += v
				h1[uint8(w>>8)] += v
				h2[uint8(w>>16)] += v
				h3[uint8(w>>24)] += v
				h4[uint8(w>>32)] += v
				h5[uint8(w>>40)] += v
				h6[uint8(w>>48)] += v
				h7[uint8(w>>56)] += v
			}
			return
		}
		stat := stat[:len(rows)]
		for i, r := range rows {
			w, v := words[r], stat[i]
			h0[uint8(w)] += v
			h1[uint8(w>>8)] += v
			h2[uint8(w>>16)] += v
			h3[uint8(w>>24)] += v
			h4[uint8(w>>32)] += v
			h5[uint8(w>>40)] += v
			h6[uint8(w>>48)] += v
			h7[uint8(w>>56)] += v
		}
	})
}

// fillWide is fill for statistics that cannot be packed.
func (t *tiles) fillWide(hist histogram, rows []int32, g, h []int64, workers int) {
	clear(hist)
	parallel(workers, len(t.words), func(_, k int) {
		words := t.words[k]
		for lane := range min(lanes, len(t.cols)-lanes*k) {
			shift := uint(8 * lane)
			cells := hist[2*t.start[lanes*k+lane]:]
			if rows == nil {
				for i, w := range words[:len(g)] {
					b := 2 * int(uint8(w>>shift))
					cells[b] += g[i]
					cells[b+1] += h[i]
				}
				continue
			}
			for i, r := range rows {
				b := 2 * int(uint8(words[r]>>shift))
				cells[b] += g[i]
				cells[b+1] += h[i]
			}
		}
	})
}

// subtract turns the histogram of a parent into that of one child, given the
// other's.
func (hist histogram) subtract(child histogram) {
	child = child[:len(hist)]
	for i := range hist {
		hist[i] -= child[i]
	}
}

// packable reports whether statistics with these exact totals over all rows
// (sum of |g|, sum of h) can be packed.
func packable(sumAbsG, sumH int64) bool {
	return sumAbsG >= 0 && sumAbsG <= maxPackedG && sumH >= 0 && sumH <= maxPackedH
}
