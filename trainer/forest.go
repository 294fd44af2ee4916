package trainer

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// ForestParams are the hyper-parameters of a random forest (Breiman 2001):
// trees on bootstrap samples that choose by Gini impurity among a few columns
// drawn anew at each node, and average the class shares of their leaves.
type ForestParams struct {
	Trees      int   `json:"trees"`       // at most, 1 to 1000
	MaxDepth   int   `json:"max_depth"`   // 1 to 60
	MaxLeaves  int   `json:"max_leaves"`  // of one tree, 2 to 65,535
	MaxBins    int   `json:"max_bins"`    // 2 to 255
	MinSplit   int   `json:"min_split"`   // least rows of a node that is split, 2 to 1,000,000
	MinRows    int   `json:"min_rows"`    // least rows of a leaf, 1 to 1,000,000
	ColumnsPPM int64 `json:"columns_ppm"` // share of columns drawn at a node, 0 to 1,000,000; 0 means the square root of their number
	MaxBytes   int   `json:"max_bytes"`   // of the model file, 4096 to 1 MiB; trees past it are cut off
}

// voteScale is the sum, over all trees of a forest, of what a row's leaves
// add to the raw scores, in units of 1: raw score = voteScale × class share.
const voteScale = 16

// impurity finds splits by Gini impurity, as the gain
//
//	Σ Lk²/L + Σ Rk²/R - Σ Nk²/N
//
// over weighted class counts. Only columns drawn for the node are looked at,
// and further ones while none of them can be split. A node's draw depends on
// the tree's seed and the node's place, not on the order of growth.
type impurity struct {
	of      *bins
	columns []int32  // those that may be split; a draw restores their order
	common  []uint8  // by column: its most frequent bin, whose rows are not counted but are what the others leave
	even    []bool   // by column: whether that is so rare that to look for it costs more
	stat    []uint32 // by row: weight<<statClass + class, weight 0 when not drawn
	classes int
	seed    uint64
	draw    int
	minRows int
	minRow2 int // least rows to split

	// Between enter and leave, of and stat are those of a subtree's rows, and
	// columns are brought when they are asked for.
	whole *bins
	stats [2][]uint32 // of the whole, and of the subtree
	ids   []int32     // by row of the subtree
	held  [][]uint8   // by column: its room

	room    []uint32 // stat of the node's rows, with more than two classes
	pair    []uint64 // with two: class<<63 + 1<<32 + weight. Sums of these are right but for the top bit
	swapped []int
	all     []uint64   // by class: rows<<32 + weight
	rest    []uint64   // of these, what is not in the most frequent bin
	weight  [256]int64 // by class: weight of all
	left    [256]int64 // by class: weight on the left side
	// By bin; zero between uses.
	cells []uint64 // by bin, then class: rows<<32 + weight
	marks [256]uint8
	head  [256]uint32 // the last of its rows, from 1
	// By row of the node: the one before it in the same bin, <<32 + stat.
	links []uint64

	filled [256]uint8
}

const (
	statClass  = 8
	maxSamples = 1<<(32-statClass) - 1 // weight of one row
)

const (
	weightMask = math.MaxUint32
	topBit     = 1 << 63
)

func newImpurity(of *bins, columns []int32, classes int) *impurity {
	s := &impurity{
		of: of, columns: columns, classes: classes, stat: make([]uint32, of.rows), common: make([]uint8, len(of.columns)), even: make([]bool, len(of.columns)),
		all: make([]uint64, classes), rest: make([]uint64, classes), cells: make([]uint64, 256*classes),
	}
	for _, c := range columns {
		var count [256]int32
		for _, b := range of.columns[c] {
			count[b]++
		}
		for b, n := range count {
			if n > count[s.common[c]] {
				s.common[c] = uint8(b)
			}
		}
		s.even[c] = 3*int(count[s.common[c]]) < 2*of.rows
	}
	return s
}

func (s *impurity) root(*node, []int32)           {}
func (s *impurity) part(_, _, _ *node, _ []int32) {}
func (s *impurity) drop(*node)                    {}

func (s *impurity) best(n *node, rows []int32) candidate {
	if len(rows) < max(2*s.minRows, s.minRow2) {
		return noSplit
	}
	clear(s.all)
	if s.classes == 2 {
		s.pair = grown(s.pair, len(rows))
		pair := s.pair[:len(rows)]
		var all, all1 uint64
		for i, r := range rows {
			v := s.stat[r]
			a := 1<<32 | uint64(v>>statClass) | uint64(v)<<63
			pair[i] = a
			all += a
			all1 += a & uint64(int64(a)>>63)
		}
		s.all[0], s.all[1] = (all-all1)&^topBit, all1&^topBit
	} else {
		s.room = grown(s.room, len(rows))
		for i, r := range rows {
			v := s.stat[r]
			s.room[i] = v
			s.all[uint8(v)] += 1<<32 | uint64(v>>statClass)
		}
	}
	c := cut{rows: len(rows), minRows: s.minRows, best: noSplit}
	kinds := 0
	for k, a := range s.all {
		w := int64(a & weightMask)
		s.weight[k] = w
		c.sum += w
		c.squares += w * w
		if w > 0 {
			kinds++
		}
	}
	if kinds < 2 {
		return noSplit
	}
	c.base = float64(c.squares) / float64(c.sum)
	c.enough = float64(c.base * nearly)
	rng := newPCG(s.seed, n.path)
	s.swapped = s.swapped[:0]
	for i := range s.columns {
		if i >= s.draw && c.best.pos >= 0 {
			break
		}
		j := i + int(rng.below(uint32(len(s.columns)-i)))
		s.columns[i], s.columns[j] = s.columns[j], s.columns[i]
		s.swapped = append(s.swapped, j)
		s.column(&c, s.columns[i], rows)
	}
	for i := len(s.swapped) - 1; i >= 0; i-- {
		j := s.swapped[i]
		s.columns[i], s.columns[j] = s.columns[j], s.columns[i]
	}
	return c.best
}

// enter makes the rows of a subtree the matrix.
func (s *impurity) enter(rows []int32, column int32) *bins {
	if s.held == nil {
		s.held = make([][]uint8, len(s.of.columns))
	}
	s.ids = append(s.ids[:0], rows...)
	s.stats[0], s.stats[1] = s.stat, grown(s.stats[1], len(rows))
	s.whole, s.of = s.of, &bins{rows: len(rows), thresholds: s.of.thresholds, columns: make([][]uint8, len(s.of.columns))}
	s.stat = s.stats[1]
	for i, r := range rows {
		s.stat[i], rows[i] = s.stats[0][r], int32(i)
	}
	s.bring(column)
	return s.of
}

// leave makes the whole the matrix again.
func (s *impurity) leave(rows []int32) {
	for i, r := range rows {
		rows[i] = s.ids[r]
	}
	s.of, s.stat, s.whole = s.whole, s.stats[0], nil
}

// bring copies a column of the rows of a subtree.
func (s *impurity) bring(column int32) []uint8 {
	s.held[column] = grown(s.held[column], len(s.ids))
	far, near := s.whole.columns[column], s.held[column]
	for i, r := range s.ids {
		near[i] = far[r]
	}
	s.of.columns[column] = near
	return near
}

// column tries all cuts of one column.
func (s *impurity) column(c *cut, column int32, rows []int32) {
	c.column = column
	bins, common := s.of.columns[column], s.common[column]
	if bins == nil {
		bins = s.bring(column)
	}
	switch {
	case s.classes == 2:
		s.two(c, bins, common, rows, s.pair[:len(rows)])
	case len(rows) < 80*s.classes:
		s.chained(c, bins, common, rows, s.room[:len(rows)])
	default:
		s.counted(c, bins, common, rows, s.room[:len(rows)])
	}
}

// marked returns the marked bins, ascending, until the next call, and takes the
// marks away.
func (s *impurity) marked() []uint8 {
	n := 0
	for k := 0; k < len(s.marks); k += 64 {
		set := uint64(0) // a bit for each mark: no branch depends on them but at the end
		for i := range 8 {
			eight := binary.LittleEndian.Uint64(s.marks[k+8*i:])
			set |= eight * 0x0102_0408_1020_4080 >> 56 << (8 * i)
		}
		for ; set != 0; set &= set - 1 {
			s.filled[n&255] = uint8(k + bits.TrailingZeros64(set))
			n++
		}
	}
	clear(s.marks[:])
	return s.filled[:n]
}

// two is the search among two classes.
func (s *impurity) two(c *cut, bins []uint8, common uint8, rows []int32, room []uint64) {
	cells, marks := (*[512]uint64)(s.cells), &s.marks
	if s.even[c.column] {
		for i, r := range rows {
			b, a := bins[r], room[i]
			cells[(uint64(b)<<1|a>>63)&511] += a
			marks[b] = 1
		}
	} else {
		var rest, rest1 uint64
		for i, r := range rows {
			b := bins[r]
			if b == common {
				continue
			}
			a := room[i]
			cells[(uint64(b)<<1|a>>63)&511] += a
			marks[b] = 1
			rest += a
			rest1 += a & uint64(int64(a)>>63)
		}
		if rest == 0 {
			return // all in one bin
		}
		if a, a1 := (s.all[0]+s.all[1]-rest)&^topBit, (s.all[1]-rest1)&^topBit; a != 0 {
			cells[2*int(common)], cells[2*int(common)+1] = a-a1, a1
			marks[common] = 1
		}
	}
	// The gain of two classes is 2(l·N - n·L)²/(L·R·N), with l and n the
	// weights of class 1: a cut that gains too little shows sooner that way.
	sum, sum1 := c.sum, int64(s.all[1]&weightMask)
	enough := c.enoughOfTwo()
	all, least := c.rows, c.minRows
	var left, left1 uint64
	last := uint8(0)
	for _, b := range s.marked() {
		if n := int(left >> 32); n >= least && all-n >= least {
			l, l1 := int64(left&weightMask), int64(left1&weightMask)
			d := float64(l1*sum - sum1*l)
			if float64(d*d) >= float64(enough*float64(float64(l)*float64(sum-l))) {
				r, r1 := sum-l, sum1-l1
				c.keep(last, l1*l1+(l-l1)*(l-l1), r1*r1+(r-r1)*(r-r1), l)
				enough = c.enoughOfTwo()
			}
		}
		last = b
		a0, a1 := cells[2*int(b)], cells[2*int(b)+1]&^topBit
		cells[2*int(b)], cells[2*int(b)+1] = 0, 0
		left += a0 + a1
		left1 += a1
	}
}

// enoughOfTwo returns what (l·N - n·L)² over L·R must reach for a gain that is
// not surely less than the best, rounding included.
func (c *cut) enoughOfTwo() float64 {
	best := 0.0
	if c.best.pos >= 0 {
		best = c.best.gain
	}
	return float64(float64((best-float64(c.base*(1-nearly)))*float64(c.sum)) / 2)
}

// chained goes from row to row, bin by bin. With l and n the weights of a class
// on the left and in all, it and counted keep Σ l² and Σ l·n, from which Σ of the
// squared weights on the right is Σ n² - 2 Σ l·n + Σ l².
func (s *impurity) chained(c *cut, bins []uint8, common uint8, rows []int32, room []uint32) {
	s.links = grown(s.links, len(rows))
	links, head := s.links[:len(rows)], &s.head
	var filled [4]uint64
	lacks := false // the rows of the most frequent bin
	if s.even[c.column] {
		for i, r := range rows {
			b := bins[r]
			links[i] = uint64(head[b])<<32 | uint64(room[i])
			head[b] = uint32(i + 1)
			filled[b>>6] |= 1 << (b & 63)
		}
	} else {
		clear(s.rest)
		n := 0
		for i, r := range rows {
			b := bins[r]
			if b == common {
				continue
			}
			v := room[i]
			links[i] = uint64(head[b])<<32 | uint64(v)
			head[b] = uint32(i + 1)
			filled[b>>6] |= 1 << (b & 63)
			s.rest[uint8(v)] += 1<<32 | uint64(v>>statClass)
			n++
		}
		if n == 0 {
			return // all in one bin
		}
		if lacks = n < len(rows); lacks {
			filled[common>>6] |= 1 << (common & 63)
		}
	}
	left, weight := &s.left, &s.weight
	clear(left[:s.classes])
	var squares, cross, sum int64
	last, passed := uint8(0), 0
	for k := range filled {
		for set := filled[k]; set != 0; set &= set - 1 {
			b := uint8(64*k + bits.TrailingZeros64(set))
			if passed >= c.minRows && c.rows-passed >= c.minRows {
				right := c.squares - 2*cross + squares
				if c.mayGain(squares, right, sum) {
					c.keep(last, squares, right, sum)
				}
			}
			last = b
			if lacks && b == common {
				for k, a := range s.all {
					a -= s.rest[k]
					w, l := int64(a&weightMask), left[k&255]
					left[k&255] = l + w
					squares += w * (2*l + w)
					cross += w * weight[k&255]
					sum += w
					passed += int(a >> 32)
				}
				continue
			}
			for i := head[b]; i > 0; {
				x := links[i-1]
				k, w := uint8(x), int64(uint32(x)>>statClass)
				l := left[k]
				left[k] = l + w
				squares += w * (2*l + w)
				cross += w * weight[k]
				sum += w
				passed++
				i = uint32(x >> 32)
			}
			head[b] = 0
		}
	}
}

// counted goes from bin to bin with the counts of each class.
func (s *impurity) counted(c *cut, bins []uint8, common uint8, rows []int32, room []uint32) {
	n, marks := s.classes, &s.marks
	if s.even[c.column] {
		for i, r := range rows {
			b, v := bins[r], room[i]
			s.cells[int(b)*n+int(uint8(v))] += 1<<32 | uint64(v>>statClass)
			marks[b] = 1
		}
	} else {
		clear(s.rest)
		for i, r := range rows {
			b := bins[r]
			if b == common {
				continue
			}
			v := room[i]
			k, a := int(uint8(v)), 1<<32|uint64(v>>statClass)
			s.cells[int(b)*n+k] += a
			marks[b] = 1
			s.rest[k] += a
		}
		for k, a := range s.all {
			if a -= s.rest[k]; a != 0 {
				s.cells[int(common)*n+k] = a
				marks[common] = 1
			}
		}
	}
	left, weight := &s.left, &s.weight
	clear(left[:n])
	var squares, cross, sum int64
	last, passed := uint8(0), 0
	for _, b := range s.marked() {
		if passed >= c.minRows && c.rows-passed >= c.minRows {
			right := c.squares - 2*cross + squares
			if c.mayGain(squares, right, sum) {
				c.keep(last, squares, right, sum)
			}
		}
		last = b
		cells := s.cells[int(b)*n : int(b)*n+n]
		for k, a := range cells {
			w, l := int64(a&weightMask), left[k&255]
			left[k&255] = l + w
			squares += w * (2*l + w)
			cross += w * weight[k&255]
			sum += w
			passed += int(a >> 32)
		}
		clear(cells)
	}
}

// cut keeps the best split of all columns.
type cut struct {
	rows, minRows int
	sum, squares  int64 // weight of all, and Σ of squared class weights
	base          float64
	best          candidate
	enough        float64 // a little less than best gain and base together
	column        int32
}

// mayGain reports, without dividing, whether a split may be better than the
// best: false for most. left and right are Σ of squared class weights on each
// side.
func (c *cut) mayGain(left, right, leftSum int64) bool {
	dl, dr := float64(leftSum), float64(c.sum-leftSum)
	return float64(float64(left)*dr)+float64(float64(right)*dl) >= float64(c.enough*float64(dl*dr))
}

// keep makes a split the best when it is better.
func (c *cut) keep(bin uint8, left, right, leftSum int64) {
	gain := float64(left)/float64(leftSum) + float64(right)/float64(c.sum-leftSum) - c.base
	next := candidate{gain: gain, pos: c.column, bin: bin}
	if gain > 0 && next.better(c.best) {
		c.best = next
		c.enough = float64((gain + c.base) * nearly)
	}
}

// growForest grows p.Trees trees, each from its own seed. Leaf values are by
// class, in units of 2^-scoreBits, such that a row's sum over all trees is
// voteScale times the mean class shares.
func growForest(ctx context.Context, p ForestParams, seed int64, name string, train samples, classes, workers int, progress func(done, total int)) ([]tree, error) {
	witness(ctx).bins(name, train.bins)
	n := train.bins.rows
	var sum int64
	for _, w := range train.weights {
		sum += int64(w)
	}
	shift := 0 // squared class weights must stay below 2^62, also where a bootstrap sample weighs up to four times as much
	for sum>>shift >= 1<<29 {
		shift++
	}
	var columns []int32
	for c := range train.bins.columns {
		if train.bins.count(c) > 1 {
			columns = append(columns, int32(c))
		}
	}
	draw := int(int64(len(columns)) * p.ColumnsPPM / 1_000_000)
	if p.ColumnsPPM == 0 {
		draw = int(math.Sqrt(float64(len(columns))))
	}
	trees := make([]tree, p.Trees)
	type room struct {
		split *impurity
		grow  grower
		rows  []int32
	}
	rooms := make([]room, max(1, workers))
	parallel(workers, p.Trees, func(w, i int) {
		if ctx.Err() != nil {
			return
		}
		m := &rooms[w]
		if m.split == nil {
			m.split = newImpurity(train.bins, slices.Clone(columns), classes)
			m.split.draw, m.split.minRows, m.split.minRow2 = max(1, draw), p.MinRows, p.MinSplit
			m.grow = grower{of: train.bins, maxLeaves: p.MaxLeaves, maxDepth: p.MaxDepth, near: m.split}
		}
		rng := named(seed, fmt.Sprintf("%s/tree/%d", name, i))
		m.split.seed = uint64(rng.uint32())<<32 | uint64(rng.uint32())
		stat := m.split.stat
		clear(stat)
		for range n {
			stat[rng.below(uint32(n))]++
		}
		m.rows = m.rows[:0]
		for r, times := range stat {
			if times > 0 {
				weight := uint32(max(1, train.weights[r]>>shift))
				stat[r] = min(times*weight, maxSamples)<<statClass | uint32(train.labels[r])
				m.rows = append(m.rows, int32(r))
			}
		}
		t, spans := m.grow.grow(m.split, m.rows)
		t.values = make([]int32, len(spans)*classes)
		for l, sp := range spans {
			m.split.shares(t.values[l*classes:(l+1)*classes], m.rows[sp.lo:sp.hi], p.Trees)
		}
		trees[i] = *t
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if progress != nil {
		progress(p.Trees, p.Trees)
	}
	return trees, nil
}

// shares sets dst to the class shares of rows in one of several trees.
func (s *impurity) shares(dst []int32, rows []int32, trees int) {
	left := s.left[:s.classes]
	clear(left)
	var sum int64
	for _, r := range rows {
		v := s.stat[r]
		s.left[uint8(v)] += int64(v >> statClass)
		sum += int64(v >> statClass)
	}
	for c, w := range left {
		d := sum * int64(trees)
		dst[c] = int32((w*voteScale<<scoreBits + d/2) / d)
	}
}

// project returns the tree that gives target c of t alone: subtrees whose
// leaves all have one value for c become a leaf.
func (t *tree) project(c, targets int) tree {
	var o tree
	var walk func(at int32) int32 // the child to point at in o
	walk = func(at int32) int32 {
		if at < 0 {
			o.values = append(o.values, t.values[int(^at)*targets+c])
			o.leaves++
			return ^int32(o.leaves - 1)
		}
		me, leaves := len(o.nodes), o.leaves
		o.nodes = append(o.nodes, t.nodes[at])
		left := walk(t.nodes[at].left)
		right := walk(t.nodes[at].right)
		if left < 0 && right < 0 && o.values[^left] == o.values[^right] {
			o.nodes = o.nodes[:me]
			o.values, o.leaves = o.values[:leaves+1], leaves+1
			return ^int32(leaves)
		}
		o.nodes[me].left, o.nodes[me].right = left, right
		return int32(me)
	}
	if len(t.nodes) == 0 {
		walk(-1)
	} else {
		walk(0)
	}
	return o
}

// forestSum returns the forest as a sum of trees, one per tree and class.
func forestSum(trees []tree, classes int) *additive {
	a := &additive{targets: classes, bias: make([]int32, classes)}
	for i := range trees {
		round := make([]tree, classes)
		for c := range round {
			round[c] = trees[i].project(c, classes)
		}
		a.rounds = append(a.rounds, round)
	}
	return a
}
