package trainer

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"sync"
)

// IsolationParams are the hyper-parameters of an isolation forest (Liu, Ting
// and Zhou 2008).
type IsolationParams struct {
	Trees    int `json:"trees"`     // at most, 1 to 1000
	Sample   int `json:"sample"`    // rows drawn for each tree without replacement, 2 to 4096
	MaxBytes int `json:"max_bytes"` // of the model file, 4096 to 1 MiB; trees past it are cut off
}

// pathBits is the fixed point of path lengths: units of 2^-12 of a split. The
// longest path of a tree, 12 splits and c(4096), is less than 2^17 units, so
// that 128 trees stay exact in float32.
const pathBits = 12

// isolationTree has float thresholds, as it splits values and not bins:
// x <= t goes left. Children are as in tree; path is by leaf.
type isolationTree struct {
	nodes []isolationNode
	path  []int32 // units of 2^-pathBits
}

type isolationNode struct {
	column      int32
	threshold   float32
	left, right int32
}

// averagePath returns c(n), the mean path length of an unsuccessful search in
// a binary search tree of n rows (equation 1 there), with the exact harmonic
// number in place of its approximation: 2H(n-1) - 2(n-1)/n, rounded to units
// of 2^-pathBits. It is 0 for n < 2 and defined up to maxSample.
func averagePath(n int) int32 { return averagePaths()[n] }

const maxSample = 4096

var averagePaths = sync.OnceValue(func() []int32 {
	table := make([]int32, maxSample+1)
	// Fractions of 2^-108, hi:lo. Each term is rounded down, so that the error of
	// all of them together is below 2^-95, far less than the distance of any
	// c(n) to the middle between two units.
	const top = 108 - 64
	quotient := func(hi, d uint64) (uint64, uint64) { // hi:0 / d
		lo, _ := bits.Div64(hi%d, 0, d)
		return hi / d, lo
	}
	var hi, lo, carry uint64 // H(n-1)
	for n := uint64(2); n <= maxSample; n++ {
		h, l := quotient(1<<top, n-1)
		lo, carry = bits.Add64(lo, l, 0)
		hi += h + carry
		h, l = quotient((n-1)<<top, n)
		l, carry = bits.Sub64(lo, l, 0)
		h = hi - h - carry
		// Twice that, in units of 2^-pathBits, to the nearest.
		table[n] = int32((h + 1<<(top-pathBits-2)) >> (top - pathBits - 1))
	}
	return table
})

// growIsolation grows p.Trees trees over the given rows and columns of a
// matrix. It returns the size of a sample as well: min(p.Sample, len(rows)).
func growIsolation(ctx context.Context, p IsolationParams, seed int64, src source, columns []int, rows []int32, workers int) ([]isolationTree, int, error) {
	size := min(p.Sample, len(rows))
	limit := 0
	for 1<<limit < size {
		limit++
	}
	trees := make([]isolationTree, p.Trees)
	rooms := make([]isolator, max(1, workers))
	parallel(workers, p.Trees, func(w, i int) {
		if ctx.Err() != nil {
			return
		}
		g := &rooms[w]
		if g.src == nil {
			*g = isolator{src: src, limit: limit, values: make([][]float32, len(columns)), at: make([]int, len(columns)), drawn: make([]int32, size), rows: make([]int32, size)}
		}
		g.rng, g.tree = named(seed, fmt.Sprintf("anomaly/tree/%d", i)), isolationTree{}
		for k, r := range g.rng.sample(len(rows), size) {
			g.drawn[k], g.rows[k] = rows[r], int32(k)
		}
		for c := range g.at {
			g.at[c] = c
			g.values[c] = g.values[c][:0]
		}
		g.columns = columns
		if len(columns) <= fewColumns {
			g.load()
		}
		g.grow(g.rows, 0)
		trees[i] = g.tree
	})
	return trees, size, ctx.Err()
}

// isolator grows one tree at a time. Rows are numbered within the sample.
type isolator struct {
	src     source
	columns []int
	limit   int // depth at which the rest is estimated
	rng     *pcg
	tree    isolationTree

	drawn  []int32     // row of the matrix of each row of the sample
	values [][]float32 // by position of the column: its values in the sample, none until it is looked at
	at     []int       // positions of columns in the order of the last draws
	rows   []int32
}

// fewColumns is the number of columns up to which nearly all are looked at.
const fewColumns = 64

// load reads all columns of the sample, a few rows at a time: values of a row
// stand near each other.
func (g *isolator) load() {
	const few = 8
	for c := range g.values {
		g.values[c] = grown(g.values[c], len(g.drawn))
	}
	for lo := 0; lo < len(g.drawn); lo += few {
		hi := min(lo+few, len(g.drawn))
		for c, v := range g.values {
			g.src(v[lo:hi], g.columns[c], g.drawn[lo:hi])
		}
	}
}

// column returns the values of a column in the sample.
func (g *isolator) column(pos int) []float32 {
	v := g.values[pos]
	if len(v) == 0 {
		v = grown(v, len(g.drawn))
		g.src(v, g.columns[pos], g.drawn)
		g.values[pos] = v
	}
	return v
}

// grow splits rows at a column drawn among those that are not constant in
// them, at a value drawn evenly between least and largest, and returns the
// child to point at.
func (g *isolator) grow(rows []int32, depth int) int32 {
	if len(rows) > 1 && depth < g.limit {
		for i := range g.at {
			j := i + int(g.rng.below(uint32(len(g.at)-i)))
			g.at[i], g.at[j] = g.at[j], g.at[i]
			x := g.column(g.at[i])
			least, most := bounds(x, rows)
			if !(least < most) {
				continue
			}
			t := g.between(least, most)
			at := int32(len(g.tree.nodes))
			g.tree.nodes = append(g.tree.nodes, isolationNode{column: int32(g.columns[g.at[i]]), threshold: t})
			mid := below(x, t, rows)
			left := g.grow(rows[:mid], depth+1)
			right := g.grow(rows[mid:], depth+1)
			g.tree.nodes[at].left, g.tree.nodes[at].right = left, right
			return at
		}
	}
	g.tree.path = append(g.tree.path, int32(depth)<<pathBits+averagePath(len(rows)))
	return ^int32(len(g.tree.path) - 1)
}

// bounds returns the least and largest finite value of the given rows of a
// column; least is not less than most when there are not two.
func bounds(x []float32, rows []int32) (least, most float32) {
	least, most = math.MaxFloat32, -math.MaxFloat32
	for _, r := range rows {
		if v := x[r]; v >= -math.MaxFloat32 && v <= math.MaxFloat32 {
			least, most = min(least, v), max(most, v)
		}
	}
	return least, most
}

// between draws t with least <= t < most.
func (g *isolator) between(least, most float32) float32 {
	u := math.Ldexp(float64(g.rng.uint32()), -32)
	d := float64(most) - float64(least)
	t := float32(float64(least) + float64(u*d))
	if t < least || t >= most {
		return least
	}
	return t
}

// below moves the rows with x <= t to the front and returns their number. NaN
// goes to the back, as it does in the model file.
func below(x []float32, t float32, rows []int32) int {
	l := 0
	for i, r := range rows {
		if x[r] <= t {
			rows[l], rows[i] = r, rows[l]
			l++
		}
	}
	return l
}

// length returns the path length of one vector in units of 2^-pathBits.
func (t *isolationTree) length(x []float32) int32 {
	if len(t.nodes) == 0 {
		return t.path[0]
	}
	for i := int32(0); ; {
		n := &t.nodes[i]
		if x[n.column] <= n.threshold {
			i = n.left
		} else {
			i = n.right
		}
		if i < 0 {
			return t.path[^i]
		}
	}
}

// lowest returns the threshold on raw path sums below which at most
// share/1,000,000 of them lie: a sum is an alarm when it is at most the
// threshold. Equal sums stand or fall together, on the side of fewer alarms.
// sums is sorted ascending and not empty.
func lowest(sums []int64, sharePPM int64) int64 {
	k := int(int64(len(sums)) * sharePPM / 1_000_000) // alarms allowed
	if k >= len(sums) {
		return sums[len(sums)-1]
	}
	// sums[k] is the first that must not alarm.
	return sums[k] - 1
}
