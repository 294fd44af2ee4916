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

// source copies the values of column c of the given rows to dst.
type source func(dst []float32, c int, rows []int32)

// rowMajor is the source of a matrix with the given number of columns.
func rowMajor(x []float32, width int) source {
	return func(dst []float32, c int, rows []int32) {
		for i, r := range rows {
			dst[i] = x[int(r)*width+c]
		}
	}
}

// ladder finds bins by comparing keys, without branches that depend on them.
// The keys from the first threshold to the last are parted into equal stretches, so
// that only the thresholds of one stretch are searched.
type ladder struct {
	keys  [2 * (MaxBins + 1)]uint32 // of the thresholds, then the largest number
	low   uint32                    // key of the first threshold
	shift uint8                     // of a key above low, to the stretch that it is in
	first [stretches]uint8          // by stretch: thresholds below it
	step  int                       // of the search, a power of two or 0
}

const stretches = 1 << 12

// noKey is what a missing value compares as: above every value.
const noKey = math.MaxUint32 - 1

func (l *ladder) set(t []float32) {
	for i := range l.keys {
		l.keys[i] = math.MaxUint32
		if i < len(t) {
			l.keys[i] = sortKey(t[i])
		}
	}
	l.low, l.shift, l.step = l.keys[0], 0, 0
	if len(t) == 0 {
		clear(l.first[:])
		return
	}
	for (l.keys[len(t)-1]-l.low)>>l.shift >= stretches {
		l.shift++
	}
	n, most := 0, 0
	for i := range l.first {
		l.first[i] = uint8(n)
		for n < len(t) && int((l.keys[n]-l.low)>>l.shift) == i {
			n++
		}
		most = max(most, n-int(l.first[i]))
	}
	l.step = 1
	for 2*l.step <= most {
		l.step *= 2
	}
}

// find returns the bin of a key: the number of thresholds below it.
func (l *ladder) find(k uint32) uint8 {
	at := int(l.first[min((max(k, l.low)-l.low)>>(l.shift&31), stretches-1)])
	for step := l.step; step > 0; step >>= 1 {
		next := at + step
		if l.keys[uint(next-1)%uint(len(l.keys))] >= k {
			next = at
		}
		at = next
	}
	return uint8(at)
}

// fill writes the bins of values x to dst.
func (l *ladder) fill(dst []uint8, x []float32) {
	for i, v := range x {
		k := uint32(noKey)
		if v == v {
			k = sortKey(v)
		}
		dst[i] = l.find(k)
	}
}

// fitBins bins the given rows and columns of a matrix by thresholds made from
// these rows. maxBins is in [2, MaxBins]. Rows and columns of the result are
// numbered as in the arguments.
func fitBins(src source, columns []int, rows []int32, maxBins, workers int) *bins {
	m := &bins{rows: len(rows), thresholds: make([][]float32, len(columns)), columns: make([][]uint8, len(columns))}
	type scratch struct {
		x    []float32
		a, b []uint32
		l    ladder
	}
	rooms := make([]scratch, max(1, workers))
	parallel(workers, len(columns), func(w, c int) {
		s := &rooms[w]
		if s.x == nil {
			s.x, s.a, s.b = make([]float32, len(rows)), make([]uint32, len(rows)), make([]uint32, len(rows))
		}
		src(s.x, columns[c], rows)
		n := 0
		for _, v := range s.x {
			if v == v {
				s.a[n] = sortKey(v)
				n++
			}
		}
		m.thresholds[c] = cuts(sortKeys(s.a[:n], s.b[:n]), n < len(rows), maxBins)
		m.columns[c] = make([]uint8, len(rows))
		s.l.set(m.thresholds[c])
		s.l.fill(m.columns[c], s.x)
	})
	return m
}

// apply bins other rows of the same matrix with the thresholds of m.
func (m *bins) apply(src source, columns []int, rows []int32, workers int) *bins {
	o := &bins{rows: len(rows), thresholds: m.thresholds, columns: make([][]uint8, len(columns))}
	type scratch struct {
		x []float32
		l ladder
	}
	rooms := make([]scratch, max(1, workers))
	parallel(workers, len(columns), func(w, c int) {
		s := &rooms[w]
		if s.x == nil {
			s.x = make([]float32, len(rows))
		}
		src(s.x, columns[c], rows)
		o.columns[c] = make([]uint8, len(rows))
		s.l.set(m.thresholds[c])
		s.l.fill(o.columns[c], s.x)
	})
	return o
}
