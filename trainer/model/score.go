package model

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"sync"
)

// Scorer sums the trees of one ensemble. Many goroutines may use it.
//
// It has one of two forms, which give the same sums. Trees that all have at
// most 16 leaves are not walked: see marks. Others are walked in groups.
type Scorer struct {
	dim, targets int
	bias         []int32
	rooms        sync.Pool

	// marks
	columns []column
	marks   []mark
	exits   [][markLeaves]exit // by tree

	// walks
	nodes  []flat
	groups []group
	twins  []int32 // twins[i] is the feature that slot dim+i mirrors
}

// markLeaves is the largest number of leaves of a tree that is not walked.
const markLeaves = 16

// A mark is a split of any tree. Of a tree's leaves, numbered from left to
// right, a vector reaches the first that no split crosses out for it, where a
// split whose comparison fails crosses out all leaves below its left child. So
// it is enough to visit the splits that fail. Those of one feature are a run
// of its splits in ascending order of threshold, and there is none where the
// value of a vector is the least, as 0 is that of a count.
type mark struct {
	threshold float32
	tree      uint16
	out       uint16 // bit i: leaf i is crossed out
}

// column is the marks of one feature that send NaN to one side.
type column struct {
	feature     int32
	missingLeft bool
	end         int32 // of its marks, which begin where those of the column before end
}

// exit is a leaf.
type exit struct{ value, target int32 }

// room is the working memory of a scorer.
type room struct {
	slots []float32
	out   []uint16 // by tree: leaves that are crossed out
}

// flat is a node in 8 bytes. A comparison reads a slot, not a feature: slots
// are the vector, then mirrors of features whose NaN goes left (there NaN is
// -Inf, which is <= every threshold), then one NaN per target.
//
// A split goes to the node next places on, or one further when the comparison
// holds, without a branch to predict. A leaf reads the NaN slot of its target
// and has next 0, so it goes to itself: trees of different depth can be walked
// in step.
type flat struct {
	threshold float32 // of a leaf: its integer
	slot      uint16
	next      uint16
}

// group is a set of trees that are walked in step, so that the processor has
// independent work while it waits for a node.
type group struct {
	root  [8]int32
	depth int32 // of the deepest
}

// NewScorer returns a scorer of a valid ensemble; else ErrFormat. It keeps
// nothing of e.
func NewScorer(e *Ensemble) (*Scorer, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	s := &Scorer{dim: e.Dim, targets: e.Targets, bias: make([]int32, e.Targets)}
	copy(s.bias, e.Bias)
	s.rooms.New = func() any { return new(room) }
	small := true
	for i := range e.Trees {
		small = small && len(e.Trees[i].Nodes) < 2*markLeaves
	}
	if small {
		s.mark(e)
	} else {
		s.lay(e)
	}
	return s, nil
}

// mark makes marks of the trees.
func (s *Scorer) mark(e *Ensemble) {
	type split struct {
		feature     int32
		missingLeft bool
		mark
	}
	var splits []split
	s.exits = make([][markLeaves]exit, len(e.Trees))
	for i := range e.Trees {
		nodes := e.Trees[i].Nodes
		leaves := 0
		var visit func(at int32)
		visit = func(at int32) {
			n := &nodes[at]
			if n.Leaf {
				s.exits[i][leaves] = exit{n.Value, n.Target}
				leaves++
				return
			}
			first := leaves
			visit(n.Left)
			splits = append(splits, split{n.Feature, n.MissingLeft, mark{n.Threshold, uint16(i), uint16(1<<leaves - 1<<first)}})
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
		s.marks = append(s.marks, p.mark)
		if i+1 == len(splits) || splits[i+1].feature != p.feature || splits[i+1].missingLeft != p.missingLeft {
			s.columns = append(s.columns, column{p.feature, p.missingLeft, int32(i + 1)})
		}
	}
}

// lay lays the nodes of the trees out for walks.
func (s *Scorer) lay(e *Ensemble) {
	mirror := make([]int32, e.Dim)
	for i := range e.Trees {
		for j := range e.Trees[i].Nodes {
			n := &e.Trees[i].Nodes[j]
			if !n.Leaf && n.MissingLeft && mirror[n.Feature] == 0 {
				mirror[n.Feature] = int32(e.Dim + len(s.twins))
				s.twins = append(s.twins, n.Feature)
			}
		}
	}
	leafSlot := e.Dim + len(s.twins)

	type root struct{ at, depth int32 }
	roots := make([]root, len(e.Trees))
	for i := range e.Trees {
		roots[i].at = int32(len(s.nodes))
		roots[i].depth = s.flatten(e.Trees[i].Nodes, mirror, leafSlot)
	}
	slices.SortStableFunc(roots, func(a, b root) int { return int(a.depth - b.depth) })
	idle := int32(len(s.nodes)) // a leaf of value 0 for the places of the last group
	s.nodes = append(s.nodes, flat{slot: uint16(leafSlot)})
	for i := 0; i < len(roots); i += len(group{}.root) {
		var g group
		for j := range g.root {
			g.root[j] = idle
			if i+j < len(roots) {
				g.root[j] = roots[i+j].at
				g.depth = roots[i+j].depth
			}
		}
		s.groups = append(s.groups, g)
	}
}

// flatten appends a tree in breadth-first order, right child before left, and
// returns its depth.
func (s *Scorer) flatten(nodes []Node, mirror []int32, leafSlot int) int32 {
	type place struct{ node, depth int32 }
	order := make([]place, 1, len(nodes))
	start := len(s.nodes)
	for i := 0; i < len(order); i++ {
		n := &nodes[order[i].node]
		if n.Leaf {
			s.nodes = append(s.nodes, flat{threshold: float32(n.Value), slot: uint16(leafSlot + int(n.Target))})
			continue
		}
		slot := n.Feature
		if n.MissingLeft {
			slot = mirror[n.Feature]
		}
		s.nodes = append(s.nodes, flat{threshold: n.Threshold, slot: uint16(slot), next: uint16(len(order) - i)})
		depth := order[i].depth + 1
		order = append(order, place{n.Right, depth}, place{n.Left, depth})
	}
	if len(s.nodes)-start != len(nodes) {
		panic("model: internal error: tree with unreachable nodes")
	}
	return order[len(order)-1].depth
}

// width returns the number of slots.
func (s *Scorer) width() int { return s.dim + len(s.twins) + s.targets }

// Dim returns the number of features of a vector.
func (s *Scorer) Dim() int { return s.dim }

// Targets returns the number of sums.
func (s *Scorer) Targets() int { return s.targets }

// Sums writes the raw sum of every target, bias included, in units of
// 2^-Shift, to dst. Both x, of Dim values, and dst, of Targets, are the
// caller's. Any float32 is a valid feature value.
func (s *Scorer) Sums(dst []int32, x []float32) {
	w := s.rooms.Get().(*room)
	s.fit(w)
	s.sums(dst[:s.targets], x[:s.dim], w)
	s.rooms.Put(w)
}

// fit makes w large enough for s.
func (s *Scorer) fit(w *room) {
	if s.exits != nil {
		w.out = slices.Grow(w.out[:0], len(s.exits))
	} else {
		w.slots = slices.Grow(w.slots[:0], s.width())
	}
}

// sums is Sums with a caller's room that fits.
func (s *Scorer) sums(dst []int32, x []float32, w *room) {
	copy(dst, s.bias)
	if s.exits != nil {
		s.crossOut(dst, x, w.out[:len(s.exits)])
		return
	}
	slots := w.slots[:s.width()]
	copy(slots, x)
	for i, f := range s.twins {
		v := x[f]
		if math.IsNaN(float64(v)) {
			v = float32(math.Inf(-1))
		}
		slots[s.dim+i] = v
	}
	nan := float32(math.NaN())
	first := s.dim + len(s.twins)
	for i := range s.targets {
		slots[first+i] = nan
	}
	if len(dst) == 1 {
		dst[0] += sumOne(s.nodes, slots, s.groups)
	} else {
		addMany(dst, s.nodes, slots, s.groups, first)
	}
}

// crossOut adds the trees, which are marks, to dst.
func (s *Scorer) crossOut(dst []int32, x []float32, out []uint16) {
	clear(out)
	marks := s.marks
	from := int32(0)
	for i := range s.columns {
		c := &s.columns[i]
		run := marks[from:c.end]
		from = c.end
		v := x[c.feature]
		if c.missingLeft && v != v {
			continue
		}
		// Comparisons are never true of NaN, so that all its splits fail.
		for len(run) >= 4 && !(v <= run[3].threshold) {
			a, b, c, d := run[0], run[1], run[2], run[3]
			out[a.tree] |= a.out
			out[b.tree] |= b.out
			out[c.tree] |= c.out
			out[d.tree] |= d.out
			run = run[4:]
		}
		for k := range run {
			m := &run[k]
			if v <= m.threshold {
				break
			}
			out[m.tree] |= m.out
		}
	}
	if len(dst) == 1 {
		sum := int32(0)
		for t, o := range out {
			sum += s.exits[t][bits.TrailingZeros16(^o)%markLeaves].value
		}
		dst[0] += sum
		return
	}
	for t, o := range out {
		e := &s.exits[t][bits.TrailingZeros16(^o)%markLeaves]
		dst[e.target] += e.value
	}
}

// sumOne returns the sum of all trees of an ensemble with one target. Its walk
// stands in addMany again: apart, the places of a group stay in registers.
func sumOne(nodes []flat, slots []float32, groups []group) int32 {
	sum := int32(0)
	for i := range groups {
		r := &groups[i].root
		a, b, c, d := int(r[0]), int(r[1]), int(r[2]), int(r[3])
		e, f, g, h := int(r[4]), int(r[5]), int(r[6]), int(r[7])
		for level := groups[i].depth; level > 0; level-- {
			a = follow(nodes, slots, a)
			b = follow(nodes, slots, b)
			c = follow(nodes, slots, c)
			d = follow(nodes, slots, d)
			e = follow(nodes, slots, e)
			f = follow(nodes, slots, f)
			g = follow(nodes, slots, g)
			h = follow(nodes, slots, h)
		}
		sum += int32(nodes[a].threshold) + int32(nodes[b].threshold) + int32(nodes[c].threshold) + int32(nodes[d].threshold) +
			int32(nodes[e].threshold) + int32(nodes[f].threshold) + int32(nodes[g].threshold) + int32(nodes[h].threshold)
	}
	return sum
}

// addMany adds every tree to the target of its leaf; first is the slot of
// target 0.
func addMany(dst []int32, nodes []flat, slots []float32, groups []group, first int) {
	for i := range groups {
		r := &groups[i].root
		a, b, c, d := int(r[0]), int(r[1]), int(r[2]), int(r[3])
		e, f, g, h := int(r[4]), int(r[5]), int(r[6]), int(r[7])
		for level := groups[i].depth; level > 0; level-- {
			a = follow(nodes, slots, a)
			b = follow(nodes, slots, b)
			c = follow(nodes, slots, c)
			d = follow(nodes, slots, d)
			e = follow(nodes, slots, e)
			f = follow(nodes, slots, f)
			g = follow(nodes, slots, g)
			h = follow(nodes, slots, h)
		}
		for _, at := range [8]int{a, b, c, d, e, f, g, h} {
			n := &nodes[at]
			dst[int(n.slot)-first] += int32(n.threshold)
		}
	}
}

// follow returns the index of the node after node i.
func follow(nodes []flat, slots []float32, i int) int {
	n := &nodes[i]
	left := 0
	if slots[n.slot] <= n.threshold {
		left = 1
	}
	return i + int(n.next) + left
}
