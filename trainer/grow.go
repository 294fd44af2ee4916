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

// frontier is a heap of nodes that can be split: highest gain first, then the
// one made first.
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

// grower grows trees over one layout of columns. Its room is reused from tree
// to tree; it is not safe for concurrent use.
type grower struct {
	tiles     *tiles
	maxLeaves int // at least 1
	maxDepth  int // 0 for no bound
	room      []int32
}

// span is a range of the row list.
type span struct{ lo, hi int }

// grow splits the node with the highest gain until nothing gains or the
// limits are reached. It reorders rows so that each leaf has a range of its
// own, inside which rows keep their order, and returns the tree, without
// values, and the range of each leaf.
func (gr *grower) grow(s splitter, rows []int32) (*tree, []span) {
	t := &tree{}
	root := &node{hi: len(rows), up: -1, path: 1}
	s.root(root, rows)
	root.best = s.best(root, rows)
	var open frontier
	var done []*node
	add := func(n *node) {
		if n.best.pos >= 0 {
			heap.Push(&open, n)
			return
		}
		s.drop(n)
		done = append(done, n)
	}
	add(root)
	order := 0
	for len(open) > 0 && len(open)+len(done) < gr.maxLeaves {
		n := heap.Pop(&open).(*node)
		at := int32(len(t.nodes))
		t.nodes = append(t.nodes, treeNode{column: gr.tiles.cols[n.best.pos], bin: n.best.bin})
		gr.link(t, n, at)
		mid := n.lo + gr.partition(rows[n.lo:n.hi], n.best)
		left := &node{lo: n.lo, hi: mid, depth: n.depth + 1, order: order + 1, up: at, path: 2 * n.path}
		right := &node{lo: mid, hi: n.hi, depth: n.depth + 1, order: order + 2, up: at, right: true, path: 2*n.path + 1}
		order += 2
		left.best, right.best = noSplit, noSplit
		last := len(open)+len(done)+2 >= gr.maxLeaves
		deep := gr.maxDepth > 0 && left.depth >= gr.maxDepth
		if last || deep {
			s.drop(n)
		} else {
			s.part(n, left, right, rows)
			left.best = s.best(left, rows[left.lo:left.hi])
			right.best = s.best(right, rows[right.lo:right.hi])
		}
		add(left)
		add(right)
	}
	for _, n := range open {
		s.drop(n)
		done = append(done, n)
	}
	spans := make([]span, len(done))
	for i, n := range done {
		gr.link(t, n, ^int32(i))
		spans[i] = span{n.lo, n.hi}
	}
	t.leaves = len(done)
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
func (gr *grower) partition(rows []int32, c candidate) int {
	if cap(gr.room) < len(rows) {
		gr.room = make([]int32, len(rows))
	}
	right := gr.room[:len(rows)]
	words, shift := gr.tiles.words[c.pos/lanes], uint(8*(c.pos%lanes))
	l, r := 0, 0
	for _, row := range rows {
		rows[l], right[r] = row, row
		if uint8(words[row]>>shift) <= c.bin {
			l++
		} else {
			r++
		}
	}
	copy(rows[l:], right[:r])
	return l
}
