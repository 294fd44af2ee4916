package trainer

import (
	"fmt"
	"sort"

	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// betaBits is the fixed point of the inverse temperature: units of 2^-6.
const (
	betaBits = 6
	betaOne  = 1 << betaBits
	maxBeta  = 32 * betaOne
)

// scores returns the raw scores of rows after the first n rounds, by target.
func (a *additive) scores(m *bins, n, workers int) [][]int32 {
	s := newScores(a.bias, m.rows)
	const block = 1024
	blocks := (m.rows + block - 1) / block
	parallel(workers, a.targets*blocks, func(_, i int) {
		t, lo := i/blocks, i%blocks*block
		for _, round := range a.rounds[:n] {
			tr := &round[t]
			for r := lo; r < min(lo+block, m.rows); r++ {
				s[t][r] += tr.values[tr.leaf(m, r)]
			}
		}
	})
	return s
}

// calibrate returns the inverse temperature, in units of 2^-betaBits, by
// which scores are to be multiplied so that the loss on s is least: a descent
// in halving steps, which finds the least of a convex function. Without rows
// it is 1. Ties go to the value nearer to where the descent stands.
func calibrate(s samples, scores [][]int32, workers int) int64 {
	beta := int64(betaOne)
	if s.bins.rows == 0 {
		return beta
	}
	loss := logLoss(s, scores, beta, betaOne, workers)
	for step := int64(4 * betaOne); step > 0; step /= 2 {
		for moved := true; moved; {
			moved = false
			for _, next := range [2]int64{beta - step, beta + step} {
				if next < 1 || next > maxBeta {
					continue
				}
				if l := logLoss(s, scores, next, betaOne, workers); l < loss {
					beta, loss, moved = next, l, true
					break
				}
			}
		}
	}
	return beta
}

// form is what a sum of trees needs beside its trees to become a model file.
type form struct {
	thresholds [][]float32 // by column of the bin matrix
	columns    []int       // feature of each column
	dim        int
	transform  model.Transform
	classes    []string
}

// ensemble returns the model of the first n rounds with scores multiplied by
// beta. Leaf values are rounded to multiples of 2^-q, with the largest q for
// which every partial sum is exact in float32. Splits that rounding leaves
// without effect are taken out, and trees that became constants are added to
// the bias.
func (a *additive) ensemble(n int, beta int64, f form) *model.Ensemble {
	for q := 22; ; q-- {
		e := &model.Ensemble{Dim: f.dim, Targets: a.targets, Shift: q, Bias: make([]int32, a.targets), Transform: f.transform, Classes: f.classes}
		// v units of 2^-scoreBits times beta units of 2^-betaBits.
		down := scoreBits + betaBits - q
		fits := true
		for t, v := range a.bias {
			sum := roundShift(int64(v)*beta, down) // of constants
			var peak int64                         // of the other trees
			for r := range n {
				tr := a.rounds[r][t]
				values := make([]int32, len(tr.values))
				var most int64
				for i, v := range tr.values {
					k := roundShift(int64(v)*beta, down)
					most = max(most, k, -k)
					if most > model.MaxSum {
						fits = false
						break
					}
					values[i] = int32(k)
				}
				if !fits {
					break
				}
				tr.values = values
				if tr = tr.project(0, 1); len(tr.nodes) == 0 {
					sum += int64(tr.values[0])
					continue
				}
				peak += most
				e.Trees = append(e.Trees, f.tree(&tr, t))
			}
			if !fits || peak+max(sum, -sum) > model.MaxSum {
				fits = false
				break
			}
			e.Bias[t] = int32(sum)
		}
		if !fits && q > 0 {
			continue
		}
		if len(e.Trees) == 0 {
			e.Trees = []model.Tree{{Nodes: []model.Node{{Leaf: true}}}}
		}
		return e
	}
}

// tree returns t with values for one target in preorder.
func (f *form) tree(t *tree, target int) model.Tree {
	var o model.Tree
	var walk func(at int32) int32
	walk = func(at int32) int32 {
		me := int32(len(o.Nodes))
		if at < 0 {
			o.Nodes = append(o.Nodes, model.Node{Leaf: true, Target: int32(target), Value: t.values[^at]})
			return me
		}
		n := &t.nodes[at]
		o.Nodes = append(o.Nodes, model.Node{Feature: int32(f.columns[n.column]), Threshold: f.thresholds[n.column][n.bin]})
		left := walk(n.left)
		right := walk(n.right)
		o.Nodes[me].Left, o.Nodes[me].Right = left, right
		return me
	}
	walk(0)
	return o
}

// bestRounds returns the number of rounds, at most limit, with the least
// validation loss; of equal ones the fewest, and all of them when nothing was
// validated.
func (a *additive) bestRounds(limit, validated int) int {
	if validated == 0 {
		return limit
	}
	best := 0
	for n := 1; n <= limit; n++ {
		if a.losses[n] < a.losses[best] {
			best = n
		}
	}
	return best
}

// fit chooses the rounds and the temperature and returns the file. plain has
// the validation rows with weights that are not balanced, so that
// probabilities are those of the data.
func (a *additive) fit(plain samples, maxBytes int, f form, workers int) (data []byte, rounds int, beta int64, err error) {
	// The size of a file does not depend on leaf values, but for splits that
	// rounding takes out; the whole is checked again at the end.
	size := func(n int) int {
		b, e := a.ensemble(n, betaOne, f).EncodedSize()
		if e != nil {
			return maxBytes + 1
		}
		return b
	}
	limit := sort.Search(len(a.rounds), func(n int) bool { return size(n+1) > maxBytes })
	for {
		rounds = limit
		if len(a.losses) > 0 {
			rounds = a.bestRounds(limit, plain.bins.rows)
		}
		beta = calibrate(plain, a.scores(plain.bins, rounds, workers), workers)
		data, err = model.EncodeEnsemble(a.ensemble(rounds, beta, f))
		if err != nil {
			return nil, 0, 0, fmt.Errorf("encoding %d rounds: %w", rounds, err)
		}
		if len(data) <= maxBytes || rounds == 0 {
			return data, rounds, beta, nil
		}
		limit = rounds - 1
	}
}
