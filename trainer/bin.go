package trainer

import "math"

// MaxBins is the largest number of bins of one column, the bin of missing
// values included.
const MaxBins = 255

// MaxColumns is the largest number of columns that trees are grown on.
const MaxColumns = 1024

// bins is a matrix whose values were replaced by the number of the interval
// they fall into. Column-major.
//
// Bin b of a column holds the values x with t[b-1] < x <= t[b]; the last bin
// has no upper threshold. A missing value (NaN) is in the last bin: x <= t is
// false for every t, so that bins and thresholds send every value, NaN
// included, to the same child.
type bins struct {
	rows       int
	thresholds [][]float32 // by column, strictly ascending, at most MaxBins-1
	columns    [][]uint8   // by column, then row
}

// count returns the number of bins of column c, at least 1.
func (m *bins) count(c int) int { return len(m.thresholds[c]) + 1 }

// sortKey maps a float32 that is not NaN to a number of the same order, with
// -0 equal to +0.
func sortKey(x float32) uint32 {
	b := math.Float32bits(x + 0) // -0 + 0 is +0
	if b>>31 != 0 {
		return ^b
	}
	return b | 1<<31
}

func keyValue(k uint32) float32 {
	if k>>31 != 0 {
		return math.Float32frombits(k &^ (1 << 31))
	}
	return math.Float32frombits(^k)
}

// sortKeys sorts a by three passes of a radix sort over 11, 11 and 10 bits,
// with b as room of the same length, and returns the slice that holds the
// result: a or b.
func sortKeys(a, b []uint32) []uint32 {
	var count [3][1 << 11]int32
	for _, k := range a {
		count[0][k&0x7ff]++
		count[1][k>>11&0x7ff]++
		count[2][k>>22]++
	}
	for pass := range count {
		shift := uint(11 * pass)
		c := &count[pass]
		if len(a) > 0 && c[a[0]>>shift&0x7ff] == int32(len(a)) {
			continue // all keys agree on these bits
		}
		sum := int32(0)
		for i := range c {
			c[i], sum = sum, sum+c[i]
		}
		for _, k := range a {
			d := k >> shift & 0x7ff
			b[c[d]] = k
			c[d]++
		}
		a, b = b, a
	}
	return a
}

// cuts chooses the thresholds of one column from its sorted values.
//
// A column with no more distinct values than bins gets a bin for each. Else
// bins hold near equal numbers of rows, each closed as soon as it holds its
// share of the rows left, and a value that is a share by itself gets a bin of
// its own. A threshold is the float32 midpoint between the two training
// values it parts, or the lower of them where rounding would leave the gap,
// so x <= t parts exactly those. With missing values one bin less is made
// and the largest value is the last threshold: they have the last bin alone.
func cuts(sorted []uint32, missing bool, maxBins int) []float32 {
	if missing {
		maxBins--
	}
	var t []float32
	distinct := 0
	for i, k := range sorted {
		if i == 0 || k != sorted[i-1] {
			distinct++
		}
	}
	left, room, held := len(sorted), maxBins, 0
	for i := 0; i < len(sorted); {
		j := i + 1
		for j < len(sorted) && sorted[j] == sorted[i] {
			j++
		}
		big := (j-i)*room >= left
		if i > 0 && room > 1 && (distinct <= maxBins || held*room >= left || big && held > 0) {
			t = append(t, between(keyValue(sorted[i-1]), keyValue(sorted[i])))
			left -= held
			room--
			held = 0
		}
		held += j - i
		i = j
	}
	if missing && len(sorted) > 0 {
		t = append(t, keyValue(sorted[len(sorted)-1]))
	}
	return t
}

// between returns t with a <= t < b, for a < b.
func between(a, b float32) float32 {
	t := float32((float64(a) + float64(b)) / 2)
	if a <= t && t < b {
		return t
	}
	return a
}

// find returns the bin of x among thresholds t: the number of thresholds
// that do not hold x from above.
func find(t []float32, x float32) uint8 {
	lo, n := 0, len(t)
	for n > 0 {
		half := n / 2
		if !(x <= t[lo+half]) {
			lo += half + 1
			n -= half + 1
		} else {
			n = half
		}
	}
	return uint8(lo)
}

// fitBins bins the given columns of a row-major matrix of the given width.
// Thresholds come from the rows of train alone; the bins of row i of the
// result are those of row rows[i]. maxBins is in [2, MaxBins]. Columns of the
// result are numbered as in columns.
func fitBins(x []float32, width int, columns []int, train, rows []int32, maxBins, workers int) *bins {
	m := &bins{rows: len(rows), thresholds: make([][]float32, len(columns)), columns: make([][]uint8, len(columns))}
	type scratch struct{ a, b []uint32 }
	rooms := make([]scratch, max(1, workers))
	parallel(workers, len(columns), func(w, c int) {
		s := &rooms[w]
		if s.a == nil {
			s.a, s.b = make([]uint32, len(train)), make([]uint32, len(train))
		}
		n := 0
		for _, r := range train {
			if v := x[int(r)*width+columns[c]]; v == v {
				s.a[n] = sortKey(v)
				n++
			}
		}
		m.thresholds[c] = cuts(sortKeys(s.a[:n], s.b[:n]), n < len(train), maxBins)
	})
	m.fill(x, width, columns, rows, workers)
	return m
}

// apply bins other rows of the same matrix with the thresholds of m.
func (m *bins) apply(x []float32, width int, columns []int, rows []int32, workers int) *bins {
	o := &bins{rows: len(rows), thresholds: m.thresholds, columns: make([][]uint8, len(columns))}
	o.fill(x, width, columns, rows, workers)
	return o
}

func (m *bins) fill(x []float32, width int, columns []int, rows []int32, workers int) {
	// Eight neighbouring float32 share a cache line or two: take them together.
	blocks := (len(columns) + 7) / 8
	parallel(workers, blocks, func(_, k int) {
		lo, hi := 8*k, min(8*k+8, len(columns))
		for c := lo; c < hi; c++ {
			m.columns[c] = make([]uint8, len(rows))
		}
		for i, r := range rows {
			base := int(r) * width
			for c := lo; c < hi; c++ {
				m.columns[c][i] = find(m.thresholds[c], x[base+columns[c]])
			}
		}
	})
}
