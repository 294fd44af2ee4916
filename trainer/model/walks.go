package model

import (
	"math"
	"slices"
)

// walks is an ensemble whose trees are walked from root to leaf, eight of them
// in step.
type walks struct {
	dim, targets int
	nodes        []flat
	groups       []group
	twins        []int32 // twins[i] is the feature that slot dim+i mirrors
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

// newWalks lays out the nodes of a valid ensemble.
func newWalks(e *Ensemble) *walks {
	w := &walks{dim: e.Dim, targets: e.Targets}
	mirror := make([]int32, e.Dim)
	for i := range e.Trees {
		for j := range e.Trees[i].Nodes {
			n := &e.Trees[i].Nodes[j]
			if !n.Leaf && n.MissingLeft && mirror[n.Feature] == 0 {
				mirror[n.Feature] = int32(e.Dim + len(w.twins))
				w.twins = append(w.twins, n.Feature)
			}
		}
	}
	leafSlot := e.Dim + len(w.twins)

	type root struct{ at, depth int32 }
	roots := make([]root, len(e.Trees))
	for i := range e.Trees {
		roots[i].at = int32(len(w.nodes))
		roots[i].depth = w.flatten(e.Trees[i].Nodes, mirror, leafSlot)
	}
	slices.SortStableFunc(roots, func(a, b root) int { return int(a.depth - b.depth) })
	idle := int32(len(w.nodes)) // a leaf of value 0 for the places of the last group
	w.nodes = append(w.nodes, flat{slot: uint16(leafSlot)})
	for i := 0; i < len(roots); i += len(group{}.root) {
		var g group
		for j := range g.root {
			g.root[j] = idle
			if i+j < len(roots) {
				g.root[j] = roots[i+j].at
				g.depth = roots[i+j].depth
			}
		}
		w.groups = append(w.groups, g)
	}
	return w
}

// flatten appends a tree in breadth-first order, right child before left, and
// returns its depth.
func (w *walks) flatten(nodes []Node, mirror []int32, leafSlot int) int32 {
	type place struct{ node, depth int32 }
	order := make([]place, 1, len(nodes))
	start := len(w.nodes)
	for i := 0; i < len(order); i++ {
		n := &nodes[order[i].node]
		if n.Leaf {
			w.nodes = append(w.nodes, flat{threshold: float32(n.Value), slot: uint16(leafSlot + int(n.Target))})
			continue
		}
		slot := n.Feature
		if n.MissingLeft {
			slot = mirror[n.Feature]
		}
		w.nodes = append(w.nodes, flat{threshold: n.Threshold, slot: uint16(slot), next: uint16(len(order) - i)})
		depth := order[i].depth + 1
		order = append(order, place{n.Right, depth}, place{n.Left, depth})
	}
	if len(w.nodes)-start != len(nodes) {
		panic("model: internal error: tree with unreachable nodes")
	}
	return order[len(order)-1].depth
}

// width returns the number of slots.
func (w *walks) width() int { return w.dim + len(w.twins) + w.targets }

// cost is about how long it takes, in nanoseconds of a processor of 2020.
func (w *walks) cost() int {
	steps := 0
	for i := range w.groups {
		steps += len(w.groups[i].root) * int(w.groups[i].depth)
	}
	return steps
}

// add adds the trees to dst.
func (w *walks) add(dst []int32, x []float32, r *room) {
	slots := r.slots[:w.width()]
	copy(slots, x)
	for i, f := range w.twins {
		v := x[f]
		if math.IsNaN(float64(v)) {
			v = float32(math.Inf(-1))
		}
		slots[w.dim+i] = v
	}
	nan := float32(math.NaN())
	first := w.dim + len(w.twins)
	for i := range w.targets {
		slots[first+i] = nan
	}
	if len(dst) == 1 {
		dst[0] += sumOne(w.nodes, slots, w.groups)
	} else {
		addMany(dst, w.nodes, slots, w.groups, first)
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
