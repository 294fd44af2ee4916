package trainer

import "container/heap"

// tree is a binary decision tree over bins. A child >= 0 is a node, else ^i
// is leaf i. A tree without nodes is leaf 0 alone.
type tree struct {
	nodes  []treeNode
	leaves int
	values []int32 // by leaf, then target; see scoreBits
}

type treeNode struct {
	column      int32 // of the bin matrix
	bin         uint8 // a row goes left when its bin is at most this
	left, right int32
}

// leaf returns the leaf that row r of m falls into.
func (t *tree) leaf(m *bins, r int) int {
	if len(t.nodes) == 0 {
		return 0
	}
	for i := int32(0); ; {
		n := &t.nodes[i]
		if m.columns[n.column][r] <= n.bin {
			i = n.left
		} else {
			i = n.right
		}
		if i < 0 {
			return int(^i)
		}
	}
}

// node is a node while it grows: the rows [lo, hi) of the row list.
type node struct {
	lo, hi int
	depth  int
	order  int    // of creation, breaks ties between nodes
	up     int32  // node of the tree above, -1 for the root
	right  bool   // which child of up
	path   uint64 // names the node by the turns from the root, whatever the order of growth
	g, h   int64
	hist   histogram
	best   candidate
}

// splitter holds the statistics that splits are chosen by. rows is the whole
// row list for part, and that of the node for the others.
type splitter interface {
	root(n *node, rows []int32)
	best(n *node, rows []int32) candidate
	part(parent, left, right *node, rows []int32)
	drop(n *node)
}

// frontier holds the nodes that can be split, as a heap: highest gain first,
// then the one made first.
type frontier []*node

func (f frontier) Len() int { return len(f) }
func (f frontier) Less(i, j int) bool {
	if f[i].best.gain != f[j].best.gain {
		return f[i].best.gain > f[j].best.gain
	}
	return f[i].order < f[j].order
}
func (f frontier) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *frontier) Push(n any)   { *f = append(*f, n.(*node)) }
func (f *frontier) Pop() any {
	old := *f
	n := old[len(old)-1]
	*f = old[:len(old)-1]
	return n
}

// grower grows trees over the columns of one matrix. Its room is reused from
// tree to tree; it is not safe for concurrent use.
type grower struct {
	of        *bins
	cols      []int32 // column of each position of a candidate; nil when they are the same
	maxLeaves int     // at least 1
	maxDepth  int     // 0 for no bound
	near      nearby  // may be nil

	room  []int32
	nodes [][]node // blocks of nodesBlock
	used  int
	open  frontier
	done  []*node
}

const nodesBlock = 256

// nearby brings the rows of a subtree near each other while it grows. enter
// renumbers them from 0 and returns the matrix that has them under these
// numbers, with the columns that best has asked for and the given one; leave gives
// them their numbers back.
type nearby interface {
	enter(rows []int32, column int32) *bins
	leave(rows []int32)
}

// nearRows is the number of rows up to which a subtree of a larger tree is grown on
// its rows alone. They lie far from each other in the matrix, and so few of them
// stay in a core's own cache.
const nearRows = 1 << 15

// span is a range of the row list and the sums of its rows.
type span struct {
	lo, hi int
	g, h   int64
}

// node returns a new node, which is the grower's until the tree is done.
func (gr *grower) node(n node) *node {
	if gr.used == nodesBlock*len(gr.nodes) {
		gr.nodes = append(gr.nodes, make([]node, nodesBlock))
	}
	at := &gr.nodes[gr.used/nodesBlock][gr.used%nodesBlock]
	gr.used++
	*at = n
	return at
}

// grow splits the node with the highest gain until nothing gains or the
// limits are reached. Where no number of leaves is a limit, the order does not
// matter for the shape of the tree, and it splits the left child first, which
// keeps the fewest nodes waiting.
//
// It reorders rows so that each leaf has a range of its own, inside which rows
// keep their order, and returns the tree, without values, and the range of each
// leaf.
func (gr *grower) grow(s splitter, rows []int32) (*tree, []span) {
	t := &tree{}
	gr.used, gr.open, gr.done = 0, gr.open[:0], gr.done[:0]
	free := gr.maxLeaves >= len(rows) || gr.maxDepth > 0 && gr.maxDepth < 31 && gr.maxLeaves >= 1<<gr.maxDepth
	root := gr.node(node{hi: len(rows), up: -1, path: 1})
	s.root(root, rows)
	root.best = s.best(root, rows)
	add := func(n *node) {
		switch {
		case n.best.pos < 0:
			s.drop(n)
			gr.done = append(gr.done, n)
		case free:
			gr.open = append(gr.open, n)
		default:
			heap.Push(&gr.open, n)
		}
	}
	add(root)
	order := 0
	of := gr.of
	var inside *node // the root of the subtree whose rows are near
	waiting := 0     // nodes outside of it
	leave := func() {
		if inside != nil {
			gr.near.leave(rows[inside.lo:inside.hi])
			inside, of = nil, gr.of
		}
	}
	for len(gr.open) > 0 && len(gr.open)+len(gr.done) < gr.maxLeaves {
		var n *node
		if free {
			if len(gr.open) == waiting {
				leave()
			}
			n = gr.open.Pop().(*node)
			if gr.near != nil && inside == nil && n.hi-n.lo <= nearRows && len(rows) > nearRows {
				inside, waiting = n, len(gr.open)
				of = gr.near.enter(rows[n.lo:n.hi], n.best.pos)
			}
		} else {
			n = heap.Pop(&gr.open).(*node)
		}
		at := int32(len(t.nodes))
		column := n.best.pos
		if gr.cols != nil {
			column = gr.cols[column]
		}
		t.nodes = append(t.nodes, treeNode{column: column, bin: n.best.bin})
		gr.link(t, n, at)
		mid := n.lo + gr.partition(rows[n.lo:n.hi], of.columns[column], n.best.bin)
		left := gr.node(node{
			lo: n.lo, hi: mid, depth: n.depth + 1, order: order + 1, up: at, path: 2 * n.path,
			g: n.best.g, h: n.best.h, best: noSplit,
		})
		right := gr.node(node{
			lo: mid, hi: n.hi, depth: n.depth + 1, order: order + 2, up: at, right: true, path: 2*n.path + 1,
			g: n.g - n.best.g, h: n.h - n.best.h, best: noSplit,
		})
		order += 2
		last := len(gr.open)+len(gr.done)+2 >= gr.maxLeaves
		deep := gr.maxDepth > 0 && left.depth >= gr.maxDepth
		if last || deep {
			s.drop(n)
		} else {
			s.part(n, left, right, rows)
			left.best = s.best(left, rows[left.lo:left.hi])
			right.best = s.best(right, rows[right.lo:right.hi])
		}
		add(right)
		add(left)
	}
	leave()
	for _, n := range gr.open {
		s.drop(n)
		gr.done = append(gr.done, n)
	}
	spans := make([]span, len(gr.done))
	for i, n := range gr.done {
		gr.link(t, n, ^int32(i))
		spans[i] = span{n.lo, n.hi, n.g, n.h}
	}
	t.leaves = len(gr.done)
	return t, spans
}

func (gr *grower) link(t *tree, n *node, to int32) {
	switch {
	case n.up < 0:
	case n.right:
		t.nodes[n.up].right = to
	default:
		t.nodes[n.up].left = to
	}
}

// partition moves the rows that go left to the front, both sides in their old
// order, and returns how many they are.
func (gr *grower) partition(rows []int32, column []uint8, bin uint8) int {
	if cap(gr.room) < len(rows) {
		gr.room = make([]int32, len(rows))
	}
	right := gr.room[:len(rows)]
	l := 0
	for i, row := range rows {
		rows[l], right[i-l] = row, row
		goes := 0
		if column[row] <= bin {
			goes = 1
		}
		l += goes
	}
	copy(rows[l:], right)
	return l
}
