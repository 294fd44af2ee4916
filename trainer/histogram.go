package trainer

import "sync"

// The statistic of a row is a gradient g and a hessian h, both integers. A
// histogram holds, for each column and bin, their sums over the rows of a
// node. Integer sums do not depend on order, so that neither threads nor the
// way a sum was come by (added up, or parent less sibling) can be seen in it.

const (
	lanes      = 8    // columns of one tile
	blockTiles = 4    // tiles of one block, at most
	gatherRows = 1024 // rows whose words are brought together at a time
	spillSize  = 256  // cells past the last column, see tiles.start

	// A packed cell is g<<32 + h with 0 <= Σh < 2^32 and |Σg| < 2^31. Sums
	// over any subset of rows keep those bounds when Σh and Σ|g| over all
	// rows do, which is what packable checks.
	maxPackedG = 1<<31 - 1
	maxPackedH = 1<<32 - 1
)

// tiles is a bin matrix laid out for histograms: the bins of eight columns of
// one row stand in one word, a tile, and the words of up to four tiles of a row
// side by side in a block. So a scattered row costs one line of the cache for 32
// columns.
type tiles struct {
	cols   []int32 // column of the bin matrix at each position
	bins   []int32 // number of bins at each position
	start  []int32 // first cell of each position, lanes per tile; lanes past the last column add into the spill cells
	cells  int     // cells of one histogram, without the spill
	rows   int
	width  int        // tiles of a block; the last block may have fewer
	blocks [][]uint64 // by block; word k of row r is at r*n+k where the block has n tiles
}

// newTiles lays out the chosen columns of m, in the order given, by workers,
// for histograms that threads fill. Columns with a single bin cannot be split
// and are left out.
func newTiles(m *bins, cols []int32, threads, workers int) *tiles {
	t := &tiles{rows: m.rows}
	for _, c := range cols {
		if n := m.count(int(c)); n > 1 {
			t.cols = append(t.cols, c)
			t.bins = append(t.bins, int32(n))
			t.start = append(t.start, int32(t.cells))
			t.cells += n
		}
	}
	tiles := (len(t.cols) + lanes - 1) / lanes
	for len(t.start) < lanes*tiles {
		t.start = append(t.start, int32(t.cells))
	}
	t.width = max(1, min(blockTiles, tiles/threads))
	for k := 0; k < tiles; k += t.width {
		t.blocks = append(t.blocks, make([]uint64, m.rows*min(t.width, tiles-k)))
	}
	const chunk = 1 << 12
	parallel(workers, (m.rows+chunk-1)/chunk, func(_, i int) {
		lo, hi := chunk*i, min(chunk*i+chunk, m.rows)
		for pos, c := range t.cols {
			words, n, at, shift := t.place(pos)
			words = words[lo*n+at:]
			for r, b := range m.columns[c][lo:hi] {
				words[r*n] |= uint64(b) << shift
			}
		}
	})
	return t
}

// place says where the bins of a position stand: at words[r*n+at]>>shift, the
// lowest eight bits.
func (t *tiles) place(pos int) (words []uint64, n, at int, shift uint) {
	tile := pos / lanes
	words = t.blocks[tile/t.width]
	return words, t.tiles(tile / t.width), tile % t.width, uint(8 * (pos % lanes))
}

// tiles returns the number of tiles of block k.
func (t *tiles) tiles(k int) int {
	return min(t.width, (len(t.cols)+lanes-1)/lanes-k*t.width)
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

// A gather is the words of some rows, tile by tile: room of one thread.
type gather [blockTiles][gatherRows]uint64

var gathers = sync.Pool{New: func() any { return new(gather) }}

// take copies the words of rows, at most gatherRows, from a block of n tiles.
func (g *gather) take(words []uint64, n int, rows []int32) {
	switch n {
	case 4:
		a, b, c, d := g[0][:len(rows)], g[1][:len(rows)], g[2][:len(rows)], g[3][:len(rows)]
		for i, r := range rows {
			w := (*[4]uint64)(words[4*int(r):])
			a[i], b[i], c[i], d[i] = w[0], w[1], w[2], w[3]
		}
	case 2:
		a, b := g[0][:len(rows)], g[1][:len(rows)]
		for i, r := range rows {
			w := (*[2]uint64)(words[2*int(r):])
			a[i], b[i] = w[0], w[1]
		}
	default:
		for k := range n {
			a := g[k][:len(rows)]
			for i, r := range rows {
				a[i] = words[int(r)*n+k]
			}
		}
	}
}

// takeAll copies the words of neighbouring rows.
func (g *gather) takeAll(words []uint64, n int) {
	for k := range n {
		a := g[k][:len(words)/n]
		for i := range a {
			a[i] = words[i*n+k]
		}
	}
}

// fill sets hist to the sums over rows; stat[i] is the packed statistic of
// rows[i]. rows nil means all rows of the tiles in order.
func (t *tiles) fill(hist histogram, rows []int32, stat []int64, workers int) {
	clear(hist)
	parallel(workers, len(t.blocks), func(_, k int) {
		words, n := t.blocks[k], t.tiles(k)
		g := gathers.Get().(*gather)
		for lo := 0; lo < len(stat); lo += gatherRows {
			hi := min(lo+gatherRows, len(stat))
			if rows == nil {
				g.takeAll(words[lo*n:hi*n], n)
			} else {
				g.take(words, n, rows[lo:hi])
			}
			for tile := range n {
				t.add(hist, k*t.width+tile, g[tile][:hi-lo], stat[lo:hi])
			}
		}
		gathers.Put(g)
	})
}

// add adds the statistics of some rows to the cells of one tile.
func (t *tiles) add(hist histogram, tile int, words []uint64, stat []int64) {
	s := t.start[lanes*tile : lanes*tile+lanes]
	h0, h1 := (*[256]int64)(hist[s[0]:]), (*[256]int64)(hist[s[1]:])
	h2, h3 := (*[256]int64)(hist[s[2]:]), (*[256]int64)(hist[s[3]:])
	h4, h5 := (*[256]int64)(hist[s[4]:]), (*[256]int64)(hist[s[5]:])
	h6, h7 := (*[256]int64)(hist[s[6]:]), (*[256]int64)(hist[s[7]:])
	stat = stat[:len(words)]
	for i, w := range words {
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
}

// fillWide is fill for statistics that cannot be packed.
func (t *tiles) fillWide(hist histogram, rows []int32, g, h []int64, workers int) {
	clear(hist)
	parallel(workers, len(t.cols), func(_, pos int) {
		words, n, at, shift := t.place(pos)
		words = words[at:]
		cells := hist[2*t.start[pos]:]
		if rows == nil {
			for i := range g {
				b := 2 * int(uint8(words[i*n]>>shift))
				cells[b] += g[i]
				cells[b+1] += h[i]
			}
			return
		}
		for i, r := range rows {
			b := 2 * int(uint8(words[int(r)*n]>>shift))
			cells[b] += g[i]
			cells[b+1] += h[i]
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
