package trainer

import (
	"context"
	"fmt"
	"math"
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
	tiles   *tiles
	labels  []uint8
	weights []int32 // by row: times drawn × weight
	classes int
	seed    uint64
	draw    int
	minRows int
	minRow2 int // least rows to split

	columns []int32
	cells   []int64 // by bin, then class; zero between uses
	count   [256]int32
	small   []uint64
	total   []int64
	left    []int64
}

func (s *impurity) root(*node, []int32)                      {}
func (s *impurity) part(_, _, _ *node, _ []int32)            {}
func (s *impurity) drop(*node)                               {}
func (s *impurity) bin(words []uint64, r int32, l uint) byte { return byte(words[r] >> l) }

func (s *impurity) best(n *node, rows []int32) candidate {
	if len(rows) < max(2*s.minRows, s.minRow2) {
		return noSplit
	}
	clear(s.total)
	for _, r := range rows {
		s.total[s.labels[r]] += int64(s.weights[r])
	}
	var sum, squares int64
	kinds := 0
	for _, c := range s.total {
		sum += c
		squares += c * c
		if c > 0 {
			kinds++
		}
	}
	if kinds < 2 {
		return noSplit
	}
	for i := range s.columns {
		s.columns[i] = int32(i)
	}
	rng := newPCG(s.seed, n.path)
	best := noSplit
	for i := range s.columns {
		if i >= s.draw && best.pos >= 0 {
			break
		}
		j := i + int(rng.below(uint32(len(s.columns)-i)))
		s.columns[i], s.columns[j] = s.columns[j], s.columns[i]
		if c := s.column(int(s.columns[i]), rows, sum, squares); c.better(best) {
			best = c
		}
	}
	return best
}

// smallNode is the number of rows up to which sorting them by bin is quicker
// than a histogram.
const smallNode = 48

func (s *impurity) column(pos int, rows []int32, sum, squares int64) candidate {
	words, lane := s.tiles.words[pos/lanes], uint(8*(pos%lanes))
	sc := scan{s: s, rows: len(rows), sum: sum, right: squares, pos: pos, best: noSplit}
	sc.base = float64(squares) / float64(sum)
	clear(s.left)
	if len(rows) <= smallNode {
		s.small = s.small[:0]
		for _, r := range rows {
			s.small = append(s.small, uint64(s.bin(words, r, lane))<<56|uint64(s.labels[r])<<48|uint64(s.weights[r]))
		}
		slices.Sort(s.small)
		for i, k := range s.small {
			if i > 0 && k>>56 != s.small[i-1]>>56 {
				sc.cut(int(s.small[i-1] >> 56))
			}
			sc.move(int(k>>48&0xff), int64(k&0xffff_ffff))
			sc.leftRows++
		}
		return sc.best
	}
	k := s.classes
	for _, r := range rows {
		b := int(s.bin(words, r, lane))
		s.cells[b*k+int(s.labels[r])] += int64(s.weights[r])
		s.count[b]++
	}
	last := -1
	for b := range int(s.tiles.bins[pos]) {
		if s.count[b] == 0 {
			continue
		}
		if last >= 0 {
			sc.cut(last)
		}
		last = b
		sc.leftRows += int(s.count[b])
		for c, w := range s.cells[b*k : b*k+k] {
			if w != 0 {
				sc.move(c, w)
			}
		}
		s.count[b] = 0
		clear(s.cells[b*k : b*k+k])
	}
	return sc.best
}

// scan walks the bins of a column from left to right.
type scan struct {
	s           *impurity
	rows        int
	leftRows    int
	sum         int64 // weight of all
	leftSum     int64
	left, right int64 // Σ of squared class weights on each side
	base        float64
	pos         int
	best        candidate
}

// move takes weight w of class c from the right to the left side.
func (sc *scan) move(c int, w int64) {
	l := sc.s.left[c]
	r := sc.s.total[c] - l
	sc.left += w * (2*l + w)
	sc.right -= w * (2*r - w)
	sc.s.left[c] = l + w
	sc.leftSum += w
}

// cut considers a split after bin b.
func (sc *scan) cut(b int) {
	if sc.leftRows < sc.s.minRows || sc.rows-sc.leftRows < sc.s.minRows {
		return
	}
	gain := float64(sc.left)/float64(sc.leftSum) + float64(sc.right)/float64(sc.sum-sc.leftSum) - sc.base
	if gain > 0 && (sc.best.pos < 0 || gain > sc.best.gain) {
		sc.best = candidate{gain: gain, pos: int32(sc.pos), bin: uint8(b)}
	}
}

// growForest grows p.Trees trees, each from its own seed. Leaf values are by
// class, in units of 2^-scoreBits, such that a row's sum over all trees is
// voteScale times the mean class shares. weights multiply the bootstrap
// counts; their sum times 4 is below 2^31 by construction of the sample.
func growForest(ctx context.Context, p ForestParams, seed int64, name string, train samples, classes, workers int, progress func(done, total int)) ([]tree, error) {
	n := train.bins.rows
	var sum int64
	for _, w := range train.weights {
		sum += int64(w)
	}
	shift := 0 // squared class weights must stay below 2^62, bootstrap included
	for sum>>shift >= 1<<29 {
		shift++
	}
	weight := func(r int32) int32 { return max(1, train.weights[r]>>shift) }
	all := make([]int32, len(train.bins.columns))
	for c := range all {
		all[c] = int32(c)
	}
	layout := newTiles(train.bins, all, workers)
	draw := int(int64(len(layout.cols)) * p.ColumnsPPM / 1_000_000)
	if p.ColumnsPPM == 0 {
		draw = int(math.Sqrt(float64(len(layout.cols))))
	}
	trees := make([]tree, p.Trees)
	type room struct {
		split impurity
		grow  grower
		rows  []int32
	}
	rooms := make([]room, max(1, workers))
	parallel(workers, p.Trees, func(w, i int) {
		if ctx.Err() != nil {
			return
		}
		m := &rooms[w]
		if m.split.tiles == nil {
			m.split = impurity{
				tiles: layout, labels: train.labels, weights: make([]int32, n), classes: classes,
				draw: max(1, draw), minRows: p.MinRows, minRow2: p.MinSplit,
				columns: make([]int32, len(layout.cols)), cells: make([]int64, 256*classes),
				total: make([]int64, classes), left: make([]int64, classes),
			}
			m.grow = grower{tiles: layout, maxLeaves: p.MaxLeaves, maxDepth: p.MaxDepth}
		}
		rng := named(seed, fmt.Sprintf("%s/tree/%d", name, i))
		m.split.seed = uint64(rng.uint32())<<32 | uint64(rng.uint32())
		clear(m.split.weights)
		for range n {
			r := int32(rng.below(uint32(n)))
			m.split.weights[r] += weight(r)
		}
		m.rows = m.rows[:0]
		for r, w := range m.split.weights {
			if w > 0 {
				m.rows = append(m.rows, int32(r))
			}
		}
		t, spans := m.grow.grow(&m.split, m.rows)
		t.values = make([]int32, len(spans)*classes)
		for l, sp := range spans {
			shares(t.values[l*classes:(l+1)*classes], &m.split, m.rows[sp.lo:sp.hi], p.Trees)
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

func shares(dst []int32, s *impurity, rows []int32, trees int) {
	clear(s.total)
	var sum int64
	for _, r := range rows {
		s.total[s.labels[r]] += int64(s.weights[r])
		sum += int64(s.weights[r])
	}
	for c, w := range s.total {
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
