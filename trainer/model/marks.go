package model

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// marks is an ensemble whose trees are not walked but struck out, after
// QuickScorer (Lucchese et al. 2015). Of a tree's leaves, numbered from left to
// right, a vector reaches the first that no split crosses out for it, where a
// split whose comparison fails crosses out all leaves below its left child. So
// it is enough to visit the splits that fail. Those of one feature are a run
// of its splits in ascending order of threshold, and there is none where the
// value of a vector is the least, as 0 is that of a count.
type marks struct {
	trees   int
	columns []column
	marks   []mark
	shift   uint8    // of a tree: its leaves are at tree<<shift, less than 7
	values  []int32  // by tree and leaf
	targets []uint16 // by tree and leaf; nil for one target
}

// markLeaves is the largest number of leaves of a tree that can be marked.
const markLeaves = 64

// A mark is a split of any tree.
type mark struct {
	threshold float32
	tree      uint32
	out       uint64 // bit i: leaf i is crossed out
}

// column is the marks of one feature that send NaN to one side, and spare ones
// after them, which do nothing.
type column struct {
	feature     int32
	least       float32 // threshold
	from, end   int32   // with the spare marks
	missingLeft bool
}

const spare = 3

// newMarks returns the marks of a valid ensemble, or nil when a tree has too
// many leaves.
func newMarks(e *Ensemble) *marks {
	most := 0
	for i := range e.Trees {
		most = max(most, (len(e.Trees[i].Nodes)+1)/2)
	}
	if most > markLeaves {
		return nil
	}
	m := &marks{trees: len(e.Trees), shift: uint8(bits.Len(uint(most - 1)))}
	m.values = make([]int32, len(e.Trees)<<m.shift)
	if e.Targets > 1 {
		m.targets = make([]uint16, len(m.values))
	}
	type split struct {
		feature     int32
		missingLeft bool
		mark
	}
	var splits []split
	for i := range e.Trees {
		nodes := e.Trees[i].Nodes
		leaves := 0
		var visit func(at int32)
		visit = func(at int32) {
			n := &nodes[at]
			if n.Leaf {
				leaf := i<<m.shift + leaves
				m.values[leaf] = n.Value
				if m.targets != nil {
					m.targets[leaf] = uint16(n.Target)
				}
				leaves++
				return
			}
			first := leaves
			visit(n.Left)
			splits = append(splits, split{n.Feature, n.MissingLeft, mark{n.Threshold, uint32(i), 1<<leaves - 1<<first}})
			visit(n.Right)
		}
		visit(0)
	}
	side := func(left bool) int {
		if left {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(splits, func(a, b split) int {
		return cmp.Or(cmp.Compare(a.feature, b.feature), side(a.missingLeft)-side(b.missingLeft), cmp.Compare(a.threshold, b.threshold))
	})
	for i, p := range splits {
		if i == 0 || splits[i-1].feature != p.feature || splits[i-1].missingLeft != p.missingLeft {
			m.columns = append(m.columns, column{feature: p.feature, least: p.threshold, from: int32(len(m.marks)), missingLeft: p.missingLeft})
		}
		m.marks = append(m.marks, p.mark)
		if i+1 == len(splits) || splits[i+1].feature != p.feature || splits[i+1].missingLeft != p.missingLeft {
			for range spare {
				m.marks = append(m.marks, mark{threshold: float32(math.Inf(1))})
			}
			m.columns[len(m.columns)-1].end = int32(len(m.marks))
		}
	}
	return m
}

// cost is about how long it takes, in nanoseconds of a processor of 2020, when
// a quarter of the splits fail. That is so of counts, of which most are 0.
func (m *marks) cost() int { return m.trees + len(m.columns)/2 + len(m.marks)/4 }

// add adds the trees to dst.
func (m *marks) add(dst []int32, x []float32, w *room) {
	if 2*len(m.columns) > len(x) {
		// Waiting for all of x together takes less time than for line after line of the cache.
		x = w.slots[:copy(w.slots[:len(x)], x)]
	}
	out := w.out[:m.trees]
	clear(out)
	active := w.active[:len(m.columns)]
	active = active[:failingColumns(active, m.columns, x)]
	strike(out, active, m.columns, m.marks, x)
	if m.targets == nil {
		dst[0] += m.sum(out)
		return
	}
	for t, o := range out {
		leaf := t<<m.shift + bits.TrailingZeros64(^o)
		dst[m.targets[leaf]] += m.values[leaf]
	}
}

// failingColumns writes the columns with a mark that fails to dst and returns their
// number. A comparison is never true of NaN, so that all marks fail. This loop and
// that of strike have all registers to themselves as they are not inlined.
//
//go:noinline
func failingColumns(dst []int32, columns []column, x []float32) int {
	n := 0
	for i := range columns {
		c := &columns[i]
		dst[n] = int32(i)
		fails := 1
		if x[c.feature] <= c.least {
			fails = 0
		}
		n += fails
	}
	return n
}

// strike crosses out what the failing marks of some columns do.
//
//go:noinline
func strike(out []uint64, active []int32, columns []column, marks []mark, x []float32) {
	for _, i := range active {
		c := &columns[i]
		v := x[c.feature]
		if c.missingLeft && v != v {
			continue
		}
		run := marks[c.from:c.end]
		for len(run) >= 4+spare && !(v <= run[3].threshold) {
			out[run[0].tree] |= run[0].out
			out[run[1].tree] |= run[1].out
			out[run[2].tree] |= run[2].out
			out[run[3].tree] |= run[3].out
			run = run[4:]
		}
		out[run[0].tree] |= run[0].failing(v)
		out[run[1].tree] |= run[1].failing(v)
		out[run[2].tree] |= run[2].failing(v)
	}
}

// sum returns the sum of the leaves that are left of an ensemble with one target.
func (m *marks) sum(out []uint64) int32 {
	values, shift := m.values, m.shift
	sum, tree := int32(0), 0
	for _, o := range out {
		sum += values[tree+bits.TrailingZeros64(^o)]
		tree += 1 << (shift & 7)
	}
	return sum
}

// failing returns the leaves that the mark crosses out for a value, without a
// branch.
func (m *mark) failing(v float32) uint64 {
	fails := uint64(1)
	if v <= m.threshold {
		fails = 0
	}
	return m.out & -fails
}
