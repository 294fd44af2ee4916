package model

import (
	"math"
	"math/rand/v2"
	"strconv"
)

// shape describes random ensembles for tests. All randomness is in integers,
// so that a seed gives the same ensemble on every architecture.
type shape struct {
	transform Transform
	dim       int
	targets   int
	trees     int
	splits    int // of a tree, at most
	depth     int // of a tree, at most
	shift     int
	missing   bool // some splits send NaN to the left
}

// value returns a feature value or threshold from a small set of sixteenths,
// so that equal values are common, or one of the awkward ones.
func value(rng *rand.Rand) float32 {
	switch rng.IntN(24) {
	case 0:
		return float32(math.Inf(1))
	case 1:
		return float32(math.Inf(-1))
	case 2:
		return math.Float32frombits(1 << 31) // -0
	case 3:
		return 0
	case 4:
		return math.Float32frombits(uint32(1 + rng.IntN(3)))
	case 5:
		return -math.Float32frombits(uint32(1 + rng.IntN(3)))
	case 6:
		return math.MaxFloat32
	case 7:
		return -math.MaxFloat32
	case 8:
		return math.Nextafter32(float32(rng.IntN(64)-32)/16, 100)
	}
	return float32(rng.IntN(64)-32) / 16
}

// vector fills x; one value in gap is NaN, none for gap 0.
func vector(rng *rand.Rand, x []float32, gap int) {
	for j := range x {
		x[j] = value(rng)
		if gap > 0 && rng.IntN(gap) == 0 {
			x[j] = math.Float32frombits(0x7fc00000 | uint32(rng.IntN(1<<22)) | uint32(rng.IntN(2))<<31)
		}
	}
}

func (s shape) random(rng *rand.Rand) *Ensemble {
	e := &Ensemble{Dim: s.dim, Targets: s.targets, Shift: s.shift, Transform: s.transform}
	limit := MaxSum / (s.trees + 1)
	sign := func(k int) int32 {
		if s.transform != Isolation && rng.IntN(2) == 0 {
			k = -k
		}
		return int32(k)
	}
	e.Bias = make([]int32, s.targets)
	for t := range e.Bias {
		e.Bias[t] = sign(rng.IntN(limit))
	}
	for range s.trees {
		e.Trees = append(e.Trees, s.tree(rng, func() Node {
			return Node{Leaf: true, Target: int32(rng.IntN(s.targets)), Value: sign(rng.IntN(limit))}
		}))
	}
	switch s.transform {
	case Isolation:
		e.Norm = float64(s.trees) * 10.25
	case Softmax:
		for t := range s.targets {
			e.Classes = append(e.Classes, "class_"+strconv.Itoa(t))
		}
	}
	return e
}

// tree grows a tree by splitting leaves at random. Nodes stand in the order of
// growth.
func (s shape) tree(rng *rand.Rand, leaf func() Node) Tree {
	nodes := []Node{leaf()}
	depth := []int{0}
	open := []int32{0}
	for n := 0; n < s.splits && len(open) > 0; n++ {
		i := rng.IntN(len(open))
		at := open[i]
		open[i] = open[len(open)-1]
		open = open[:len(open)-1]
		if depth[at] == s.depth {
			continue
		}
		left := int32(len(nodes))
		nodes[at] = Node{
			Feature:     int32(rng.IntN(s.dim)),
			Threshold:   value(rng),
			Left:        left,
			Right:       left + 1,
			MissingLeft: s.missing && rng.IntN(3) == 0,
		}
		nodes = append(nodes, leaf(), leaf())
		depth = append(depth, depth[at]+1, depth[at]+1)
		open = append(open, left, left+1)
	}
	return Tree{Nodes: nodes}
}

func randomScaler(rng *rand.Rand, dim int) *Scaler {
	s := &Scaler{Offset: make([]float32, dim), Scale: make([]float32, dim)}
	for j := range dim {
		s.Offset[j] = float32(rng.IntN(2001)-1000) / 7
		s.Scale[j] = float32(rng.IntN(1000)) / 13
	}
	return s
}

// plainSums is the meaning of an ensemble, written as directly as possible.
func plainSums(e *Ensemble, x []float32) []int32 {
	sums := make([]int32, e.Targets)
	copy(sums, e.Bias)
	for _, tree := range e.Trees {
		n := &tree.Nodes[0]
		for !n.Leaf {
			v := x[n.Feature]
			left := v <= n.Threshold
			if math.IsNaN(float64(v)) {
				left = n.MissingLeft
			}
			if left {
				n = &tree.Nodes[n.Left]
			} else {
				n = &tree.Nodes[n.Right]
			}
		}
		sums[n.Target] += n.Value
	}
	return sums
}

// Shapes that cover the format: every transform, trees of a single leaf, NaN
// to either side, one and many targets, few and many trees.
var shapes = []shape{
	{transform: Sigmoid, dim: 5, targets: 1, trees: 1, splits: 0, depth: 1, shift: 0},
	{transform: Sigmoid, dim: 1, targets: 1, trees: 3, splits: 1, depth: 1, shift: 10},
	{transform: Sigmoid, dim: 20, targets: 1, trees: 33, splits: 9, depth: 4, shift: 16},
	{transform: Sigmoid, dim: 300, targets: 1, trees: 100, splits: 31, depth: 12, shift: 18, missing: true},
	{transform: Softmax, dim: 7, targets: 2, trees: 8, splits: 6, depth: 3, shift: 17},
	{transform: Softmax, dim: 40, targets: 17, trees: 150, splits: 20, depth: 8, shift: 19, missing: true},
	{transform: Softmax, dim: 130, targets: 64, trees: 90, splits: 12, depth: 6, shift: 40},
	{transform: Isolation, dim: 16, targets: 1, trees: 50, splits: 60, depth: 8, shift: 12},
	{transform: Isolation, dim: 16, targets: 1, trees: 9, splits: 60, depth: 64, shift: 14, missing: true},
}
