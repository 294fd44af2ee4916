package trainer

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/battle-hardened-ai/bhtrain/internal/detmath"
)

// Fixed points of boosting. All sums that decide anything are sums of these
// integers.
const (
	scoreBits  = 20 // raw scores and leaf values while training: units of 2^-20
	probBits   = 24 // probabilities: units of 2^-24
	weightBits = 12 // row weights: a row of weight 1 has 1<<12
	maxWeight  = 1 << 16
	statBits   = probBits + weightBits // gradients and hessians before they are packed
	lossBits   = 16                    // losses: units of 2^-16
)

// BoostParams are the hyper-parameters of gradient boosted trees. Fractions
// are integers: thousandths (Milli) or parts per million (PPM).
type BoostParams struct {
	Rounds            int   `json:"rounds"`              // at most, 1 to 1000
	Patience          int   `json:"patience"`            // rounds without a better validation loss before it ends, 1 to 1000
	MaxLeaves         int   `json:"max_leaves"`          // of one tree, 2 to 255
	MaxDepth          int   `json:"max_depth"`           // splits between root and leaf, 1 to 60
	MaxBins           int   `json:"max_bins"`            // of one column, 2 to 255
	LearningRatePPM   int64 `json:"learning_rate_ppm"`   // 1 to 1,000,000
	L2Milli           int64 `json:"l2_milli"`            // added to the hessian of a leaf, in thousandths of a row of weight 1; 1 to 1,000,000
	MinHessianMilli   int64 `json:"min_hessian_milli"`   // least hessian of a leaf, 0 to 1,000,000
	MinRows           int   `json:"min_rows"`            // least rows of a leaf, 1 to 1,000,000
	MinGainMilli      int64 `json:"min_gain_milli"`      // a split must gain more, 0 to 1,000,000
	MaxStepMilli      int64 `json:"max_step_milli"`      // largest magnitude of a leaf before the learning rate, 1 to 100,000
	ColumnsPPM        int64 `json:"columns_ppm"`         // share of columns drawn for each round, 1 to 1,000,000
	BalancePPM        int64 `json:"balance_ppm"`         // exponent of class balancing: 0 = none, 1,000,000 = every class weighs the same
	BalanceLimitMilli int64 `json:"balance_limit_milli"` // largest factor by which balancing raises a class, 1000 to 16,000
	MaxBytes          int   `json:"max_bytes"`           // of the model file, 4096 to 1 MiB; rounds past it are cut off
}

// samples are rows with labels and weights, as the boosting sees them.
type samples struct {
	bins    *bins
	labels  []uint8 // class, or 0 and 1
	weights []int32 // [1, maxWeight], units of 2^-weightBits
}

// additive is a sum of trees, one per target and round.
type additive struct {
	targets int
	bias    []int32  // by target, units of 2^-scoreBits
	rounds  [][]tree // by round, then target; leaf values in units of 2^-scoreBits
	losses  []int64  // by number of rounds: validation loss in units of 2^-lossBits, weighted sum
}

// boost fits targets trees a round: 1 for two classes (sigmoid), else one per
// class (softmax). valid, which may have no rows, only measures. The number
// of rounds kept is decided by the caller from losses.
//
// more is called after each round with what was made so far and says whether
// another round may follow. progress may be nil.
func boost(ctx context.Context, p BoostParams, seed int64, name string, train, valid samples, targets, workers int, more func(*additive) bool, progress func(done, total int)) (*additive, error) {
	n := train.bins.rows
	var sum int64
	for _, w := range train.weights {
		sum += int64(w)
	}
	if sum >= 1<<(62-probBits) {
		return nil, fmt.Errorf("boosting: %d rows weigh %d units, limit %d: sums would overflow", n, sum, int64(1)<<(62-probBits))
	}
	b := &additive{targets: targets, bias: make([]int32, targets)}
	if targets == 1 {
		b.bias[0] = logOdds(train)
	}
	outer := min(workers, targets)
	inner := max(1, workers/outer)
	learners := make([]*learner, outer)
	for i := range learners {
		learners[i] = newLearner(p, n, targets, inner)
	}
	scores, probs := newScores(b.bias, n), make([][]uint32, targets)
	for t := range probs {
		probs[t] = make([]uint32, n)
	}
	validScores := newScores(b.bias, valid.bins.rows)

	eligible := make([]int32, 0, len(train.bins.columns))
	for c := range train.bins.columns {
		if train.bins.count(c) > 1 {
			eligible = append(eligible, int32(c))
		}
	}
	draw := max(1, int((int64(len(eligible))*p.ColumnsPPM+999_999)/1_000_000))
	told := witness(ctx)
	told.bins(name, train.bins)
	digests := told.nodeDigests(targets)
	var layout *tiles
	best, since := b.validate(valid, validScores, workers), 0
	for round := range p.Rounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if layout == nil || draw < len(eligible) {
			rng := named(seed, fmt.Sprintf("%s/columns/%d", name, round))
			chosen := make([]int32, 0, draw)
			for _, i := range rng.sample(len(eligible), draw) {
				chosen = append(chosen, eligible[i])
			}
			layout = newTiles(train.bins, chosen, inner, workers)
		}
		probabilities(scores, probs, workers)
		trees := make([]tree, targets)
		parallel(outer, targets, func(w, t int) {
			if digests != nil {
				learners[w].nodes = &digests[t]
			}
			trees[t] = learners[w].fit(layout, train, t, probs[t], scores[t])
			tr := &trees[t]
			for r := range validScores[t] {
				validScores[t][r] += tr.values[tr.leaf(valid.bins, r)]
			}
		})
		told.round(name, round, digests)
		grown := false
		for t := range trees {
			grown = grown || len(trees[t].nodes) > 0
		}
		b.rounds = append(b.rounds, trees)
		loss := b.validate(valid, validScores, workers)
		if since++; loss < best {
			best, since = loss, 0
		}
		if progress != nil {
			progress(round+1, p.Rounds)
		}
		if !grown || valid.bins.rows > 0 && since >= p.Patience || more != nil && !more(b) {
			break
		}
	}
	return b, nil
}

func newScores(bias []int32, rows int) [][]int32 {
	s := make([][]int32, len(bias))
	for t := range s {
		s[t] = make([]int32, rows)
		for r := range s[t] {
			s[t][r] = bias[t]
		}
	}
	return s
}

// logOdds returns the score at which a constant model of two classes has the
// least loss, each side counted with a weight of at least 1.
func logOdds(s samples) int32 {
	var sum [2]int64
	for r, w := range s.weights {
		sum[s.labels[r]] += int64(w)
	}
	d := detmath.Log(float64(sum[1]+1<<weightBits)) - detmath.Log(float64(sum[0]+1<<weightBits))
	return int32(math.RoundToEven(math.Ldexp(d, scoreBits)))
}

// probabilities writes the probability of each row and target. With one
// target it is that of class 1.
func probabilities(scores [][]int32, probs [][]uint32, workers int) {
	const block = 2048
	rows := len(scores[0])
	parallel(workers, (rows+block-1)/block, func(_, k int) {
		if len(scores) == 1 {
			lo, hi := block*k, min(block*k+block, rows)
			logistic(probs[0][lo:hi], scores[0][lo:hi])
			return
		}
		e := make([]float64, len(scores))
		for r := block * k; r < min(block*k+block, rows); r++ {
			sum := softmax(scores, r, e)
			for t := range e {
				probs[t][r] = toProb(e[t] / sum)
			}
		}
	})
}

// The curve 1/(1+e^-x) at multiples of 2^-curveStep, x from 0 to curveEnd,
// where it is 1 to the last place of a probability.
const (
	curveStep = 6
	curveEnd  = 18
)

var curve = sync.OnceValue(func() []float64 {
	t := make([]float64, curveEnd<<curveStep+1)
	for i := range t {
		t[i] = math.Ldexp(detmath.Sigmoid(math.Ldexp(float64(i), -curveStep)), probBits)
	}
	return t
})

// logistic sets probs to the probabilities of scores, by the second-order
// Taylor polynomial about the nearest point of the curve: less than 0.75 units
// from the exact value, and 1 less that of the opposite score.
func logistic(probs []uint32, scores []int32) {
	const one = 1 << probBits
	t := curve()
	for i, s := range scores {
		x := int64(s)
		if s < 0 {
			x = -x
		}
		k := (x + 1<<(scoreBits-curveStep-1)) >> (scoreBits - curveStep)
		p := uint32(one)
		if k < int64(len(t)) {
			// With y the curve, y' = y(1-y) and y''/2 = y'(1/2-y).
			d := float64(float64(x-k<<(scoreBits-curveStep)) * (1.0 / (1 << scoreBits)))
			y := t[k]
			u := float64(y * (1.0 / one))
			slope := float64(y * (1 - u))
			bend := float64(slope * (0.5 - u))
			p = uint32(y + float64(d*(slope+float64(d*bend))) + 0.5)
		}
		if s < 0 {
			p = one - p
		}
		probs[i] = p
	}
}

// softmax sets e[t] to exp(s[t]-max) of row r, by a polynomial that is off by
// less than 2^-28 of it, and returns their sum, added in the order of targets.
func softmax(scores [][]int32, r int, e []float64) float64 {
	top := scores[0][r]
	for t := range scores {
		top = max(top, scores[t][r])
	}
	sum := 0.0
	table := powers()
	for t := range scores {
		// e^-x = e^-k·e^-d with k the nearest multiple of 2^-powerStep below x.
		x := int64(top) - int64(scores[t][r])
		k := x >> (scoreBits - powerStep)
		if k >= int64(len(table)) {
			e[t] = 0
			continue
		}
		d := float64(float64(x-k<<(scoreBits-powerStep)) * (1.0 / (1 << scoreBits)))
		e[t] = float64(table[k] * (1 - float64(d*(1-float64(d*(0.5-float64(d*(1.0/6))))))))
		sum += e[t]
	}
	return sum
}

// The curve e^-x at multiples of 2^-powerStep, x from 0 to powerEnd, after
// which nothing is left of a probability.
const (
	powerStep = 6
	powerEnd  = 18
)

var powers = sync.OnceValue(func() []float64 {
	t := make([]float64, powerEnd<<powerStep)
	for i := range t {
		t[i] = detmath.Exp(-math.Ldexp(float64(i), -powerStep))
	}
	return t
})

func toProb(p float64) uint32 { return uint32(math.RoundToEven(math.Ldexp(p, probBits))) }

// validate appends the loss of scores and returns it: the sum over rows of
// weight times -log of the probability of the true class, at least 2^-24.
func (b *additive) validate(s samples, scores [][]int32, workers int) int64 {
	loss := logLoss(s, scores, 1, 1, workers)
	b.losses = append(b.losses, loss)
	return loss
}

// logLoss returns the weighted loss of the scores times num/den in units of
// 2^-lossBits of a row of weight 1<<weightBits. Terms are rounded one by one,
// so the sum is exact in any order.
func logLoss(s samples, scores [][]int32, num, den int64, workers int) int64 {
	const block = 2048
	rows := s.bins.rows
	part := make([]int64, (rows+block-1)/block)
	scale := float64(num) / float64(den)
	parallel(workers, len(part), func(_, k int) {
		x := make([]float64, len(scores))
		for r := block * k; r < min(block*k+block, rows); r++ {
			for t := range scores {
				x[t] = float64(scale * math.Ldexp(float64(scores[t][r]), -scoreBits))
			}
			nll := math.RoundToEven(math.Ldexp(crossEntropy(x, int(s.labels[r])), lossBits))
			part[k] += int64(nll) * int64(s.weights[r])
		}
	})
	var sum int64
	for _, l := range part {
		sum += l
	}
	return sum
}

// crossEntropy returns -log of the probability that scores x give the label,
// at most 24 log 2.
func crossEntropy(x []float64, label int) float64 {
	const most = 16.635532333438686
	if len(x) == 1 {
		z := x[0]
		if label == 0 {
			z = -z
		}
		if z > 0 {
			return min(most, detmath.Log(1+detmath.Exp(-z)))
		}
		return min(most, detmath.Log(1+detmath.Exp(z))-z)
	}
	top := x[0]
	for _, v := range x {
		top = max(top, v)
	}
	sum := 0.0
	for _, v := range x {
		sum += detmath.Exp(v - top)
	}
	return min(most, detmath.Log(sum)-(x[label]-top))
}

// learner fits one tree at a time, in room of its own.
type learner struct {
	p       BoostParams
	targets int
	workers int
	factor  int64 // of the hessian, units of 2^-16
	g, h    []int64
	packed  []int64
	rows    []int32
	split   gradients
	grow    grower
	nodes   *nodeDigest // of the tree that grows; nil when nobody asks
}

// maxPackedRows is the number of rows up to which statistics are rounded to as
// many bits as keep packed sums in bounds, which leaves 9 or more a row. With
// more rows, cells are wide and nothing is rounded.
const maxPackedRows = 1 << 23

func newLearner(p BoostParams, rows, targets, workers int) *learner {
	l := &learner{p: p, targets: targets, workers: workers, factor: 1 << 16, rows: make([]int32, rows)}
	if targets > 2 {
		// The diagonal of the softmax hessian understates the curvature
		// along which all scores move; Friedman's factor K/(K-1) mends that.
		l.factor = int64(targets) << 16 / int64(targets-1)
	}
	if rows > maxPackedRows {
		l.g, l.h = make([]int64, rows), make([]int64, rows)
	} else {
		l.packed = make([]int64, rows)
	}
	return l
}

// statistic returns gradient and hessian of a row whose target has
// probability p, in units of 2^-statBits.
func (l *learner) statistic(p uint32, weight int32, is bool) (g, h int64) {
	const one = 1 << probBits
	w, q, y := int64(weight), int64(p), int64(0)
	if is {
		y = one
	}
	return w * (q - y), max(1, w*(q*(one-q)>>probBits)*l.factor>>16)
}

// fit grows the next tree of a target and adds its values to the scores.
func (l *learner) fit(t *tiles, s samples, target int, probs []uint32, scores []int32) tree {
	yes := uint8(target) // the label for which the target is 1
	if l.targets == 1 {
		yes = 1
	}
	shiftG, shiftH := l.gradients(t, s, yes, probs)
	l.grow.of, l.grow.cols, l.grow.maxLeaves, l.grow.maxDepth = s.bins, t.cols, l.p.MaxLeaves, l.p.MaxDepth
	tr, spans := l.grow.grow(&l.split, l.rows)

	lambda := math.Ldexp(float64(l.p.L2Milli)/1000, statBits)
	step := float64(l.p.MaxStepMilli) / 1000
	rate := float64(l.p.LearningRatePPM) / 1e6
	tr.values = make([]int32, len(spans))
	parallel(l.workers, len(spans), func(_, i int) {
		sp := spans[i]
		g, h := math.Ldexp(float64(sp.g), shiftG), math.Ldexp(float64(sp.h), shiftH)
		v := max(-step, min(step, -g/(h+lambda)))
		k := int32(math.RoundToEven(math.Ldexp(float64(v*rate), scoreBits)))
		tr.values[i] = k
		for _, r := range l.rows[sp.lo:sp.hi] {
			scores[r] += k
		}
	})
	return *tr
}

// gradients prepares the search for splits, and the list of rows. Its sums are
// multiples of 2^shift of what they stand for.
func (l *learner) gradients(t *tiles, s samples, yes uint8, probs []uint32) (shiftG, shiftH int) {
	const block = 1 << 14
	n := len(probs)
	sums := make([][2]int64, (n+block-1)/block)
	total := func() (g, h int64) {
		for _, sum := range sums {
			g += sum[0]
			h += sum[1]
		}
		return g, h
	}
	parallel(l.workers, len(sums), func(_, k int) {
		lo, hi := block*k, min(block*k+block, n)
		weights, labels := s.weights[lo:hi], s.labels[lo:hi]
		var sumG, sumH int64
		for i, p := range probs[lo:hi] {
			g, h := l.statistic(p, weights[i], labels[i] == yes)
			if l.packed == nil {
				l.g[lo+i], l.h[lo+i] = g, h
			}
			sumG += max(g, -g)
			sumH += h
			l.rows[lo+i] = int32(lo + i)
		}
		sums[k] = [2]int64{sumG, sumH}
	})
	room := l.split
	l.split = gradients{
		tiles: t, packed: l.packed, g: l.g, h: l.h, minRows: l.p.MinRows, workers: l.workers,
		ordered: room.ordered, orderedH: room.orderedH, local: room.local, nodes: l.nodes,
	}
	if room.tiles == t {
		l.split.pool = room.pool
	}
	if l.packed != nil {
		sumG, sumH := total()
		shiftG, shiftH = roundingShift(sumG, int64(n), maxPackedG), roundingShift(sumH, int64(n), maxPackedH)
		parallel(l.workers, len(sums), func(_, k int) {
			lo, hi := block*k, min(block*k+block, n)
			weights, labels, packed := s.weights[lo:hi], s.labels[lo:hi], l.packed[lo:hi]
			var absG, sumH int64
			for i, p := range probs[lo:hi] {
				g, h := l.statistic(p, weights[i], labels[i] == yes)
				g, h = roundShift(g, shiftG), roundShift(h, shiftH)
				absG += max(g, -g)
				sumH += h
				packed[i] = g<<32 + h
			}
			sums[k] = [2]int64{absG, sumH}
		})
		if !packable(total()) {
			panic("trainer: internal error: packed sums out of bounds")
		}
	}
	l.split.lambda = math.Ldexp(float64(l.p.L2Milli)/1000, statBits-shiftH)
	l.split.minGain = math.Ldexp(float64(l.p.MinGainMilli)/1000, statBits+shiftH-2*shiftG)
	l.split.minH = int64(math.Ceil(math.Ldexp(float64(l.p.MinHessianMilli)/1000, statBits-shiftH)))
	return shiftG, shiftH
}

// roundingShift returns the least s at which n values with the given sum of
// magnitudes, each rounded to a multiple of 2^s and divided by it, sum to at
// most limit: rounding adds at most a half to each.
func roundingShift(sum, n, limit int64) int {
	s := 0
	for sum>>s+n > limit {
		s++
	}
	return s
}

// roundShift divides by 2^s and rounds to the nearest, halves up.
func roundShift(v int64, s int) int64 {
	if s == 0 {
		return v
	}
	return (v + 1<<(s-1)) >> s
}
