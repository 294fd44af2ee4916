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
	runs    []stretch // by column
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

// column is the marks of one feature that send NaN to one side.
type column struct {
	feature int32
	least   float32 // threshold
}

// stretch is where the marks of a column are. After its end follow spare
// marks, which do nothing.
type stretch struct {
	from, end   int32
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
			m.columns = append(m.columns, column{p.feature, p.threshold})
			m.runs = append(m.runs, stretch{from: int32(len(m.marks)), missingLeft: p.missingLeft})
		}
		m.marks = append(m.marks, p.mark)
		if i+1 == len(splits) || splits[i+1].feature != p.feature || splits[i+1].missingLeft != p.missingLeft {
			m.runs[len(m.runs)-1].end = int32(len(m.marks))
			for range spare {
				m.marks = append(m.marks, mark{threshold: float32(math.Inf(1))})
			}
		}
	}
	return m
}

// cost is about how long it takes, in nanoseconds of a processor of 2020, when
// a quarter of the splits fail. That is so of counts, of which most are 0.
func (m *marks) cost() int { return m.trees + len(m.columns)/2 + len(m.marks)/4 }

// add adds the trees to dst.
func (m *marks) add(dst []int32, x []float32, w *room) {
	out, active := w.out[:m.trees], w.active[:len(m.columns)]
	clear(out)
	// Comparisons are never true of NaN, so that all its splits fail.
	n := 0
	for i := range m.columns {
		c := &m.columns[i]
		active[n] = int32(i)
		fails := 1
		if x[c.feature] <= c.least {
			fails = 0
		}
		n += fails
	}
	for _, i := range active[:n] {
		r := &m.runs[i]
		v := x[m.columns[i].feature]
		if r.missingLeft && v != v {
			continue
		}
		at, end := int(r.from), int(r.end)
		for ; at+4 <= end && !(v <= m.marks[at+3].threshold); at += 4 {
			q := (*[4]mark)(m.marks[at:])
			out[q[0].tree] |= q[0].out
			out[q[1].tree] |= q[1].out
			out[q[2].tree] |= q[2].out
			out[q[3].tree] |= q[3].out
		}
		q := (*[spare]mark)(m.marks[at:])
		out[q[0].tree] |= q[0].failing(v)
		out[q[1].tree] |= q[1].failing(v)
		out[q[2].tree] |= q[2].failing(v)
	}
	if m.targets == nil {
		sum := int32(0)
		for t, o := range out {
			sum += m.values[t<<(m.shift&7)+bits.TrailingZeros64(^o)]
		}
		dst[0] += sum
		return
	}
	for t, o := range out {
		leaf := t<<m.shift + bits.TrailingZeros64(^o)
		dst[m.targets[leaf]] += m.values[leaf]
	}
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
