package trainer

import (
	"math/bits"
	"slices"
)

// Metrics are integers, in parts per million where they are shares, so that
// they can stand in a release. A share of nothing is 0.

// ppm returns a/b in parts per million, rounded to the nearest, halves up; 0
// when b is 0. Both are not negative and a is at most b times 2^20.
func ppm(a, b uint64) int64 {
	if b == 0 {
		return 0
	}
	hi, lo := bits.Mul64(a, 1_000_000)
	lo, carry := bits.Add64(lo, b/2, 0)
	q, _ := bits.Div64(hi+carry, lo, b)
	return int64(q)
}

// confusion counts rows by true class, then predicted class.
type confusion [][]int64

func newConfusion(classes int) confusion {
	c := make(confusion, classes)
	for i := range c {
		c[i] = make([]int64, classes)
	}
	return c
}

// ClassMetrics says how well one class is told from the others.
type ClassMetrics struct {
	Class        string `json:"class"`
	Rows         int64  `json:"rows"` // of this class in the part measured
	PrecisionPPM int64  `json:"precision_ppm"`
	RecallPPM    int64  `json:"recall_ppm"`
	F1PPM        int64  `json:"f1_ppm"`
	AUCPPM       int64  `json:"auc_ppm"` // against all others, by its probability; 0 when there is no other side
}

// class returns precision, recall and F1 of class k.
func (c confusion) class(k int) ClassMetrics {
	var truth, said uint64
	for i := range c {
		truth += uint64(c[k][i])
		said += uint64(c[i][k])
	}
	hit := uint64(c[k][k])
	return ClassMetrics{
		Rows: int64(truth), PrecisionPPM: ppm(hit, said), RecallPPM: ppm(hit, truth), F1PPM: ppm(2*hit, truth+said),
	}
}

// macroF1 is the plain mean of F1 over the classes that occur, as truth or as
// prediction.
func (c confusion) macroF1() int64 {
	var sum, n uint64
	for k := range c {
		occurs := false
		for i := range c {
			occurs = occurs || c[k][i] > 0 || c[i][k] > 0
		}
		if occurs {
			sum += uint64(c.class(k).F1PPM)
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return int64((sum + n/2) / n)
}

// accuracy is the share of rows on the diagonal.
func (c confusion) accuracy() int64 {
	var hit, all uint64
	for k := range c {
		for i, n := range c[k] {
			all += uint64(n)
			if i == k {
				hit += uint64(n)
			}
		}
	}
	return ppm(hit, all)
}

// scored is one row for a ranking: a score that may be compared and the truth.
type scored struct {
	score    float64
	positive bool
}

// rank sorts s by score, ascending; of equal scores, negative rows come first.
func rank(s []scored) {
	slices.SortFunc(s, func(a, b scored) int {
		switch {
		case a.score < b.score:
			return -1
		case a.score > b.score:
			return 1
		case a.positive != b.positive:
			if b.positive {
				return -1
			}
			return 1
		}
		return 0 // equal in all that counts
	})
}

// auc returns the area under the ROC curve: the share of pairs of a positive
// and a negative row in which the positive has the higher score, ties at one
// half. It is exact before the last rounding, and 0 when a side is empty. It
// reorders s. Scores are not NaN.
func auc(s []scored) int64 {
	rank(s)
	var pos, neg, halves uint64 // halves: twice the number of pairs won
	for i := 0; i < len(s); {
		j := i
		var p, n uint64
		for ; j < len(s) && s[j].score == s[i].score; j++ {
			if s[j].positive {
				p++
			} else {
				n++
			}
		}
		halves += p * (2*neg + n)
		pos += p
		neg += n
		i = j
	}
	if pos == 0 || neg == 0 {
		return 0
	}
	return ppm(halves, 2*pos*neg)
}

// calibrationBins is the number of equal ranges of confidence in a
// reliability table.
const calibrationBins = 15

// Reliability is one range of a reliability table.
type Reliability struct {
	Rows          int64 `json:"rows"`
	ConfidencePPM int64 `json:"confidence_ppm"` // mean probability of the class that was said
	AccuracyPPM   int64 `json:"accuracy_ppm"`
}

// calibration gathers how far stated probabilities can be believed.
type calibration struct {
	rows, correct, confidence [calibrationBins]int64 // confidence: sum in parts per million
}

func (c *calibration) add(confidencePPM int64, correct bool) {
	i := min(confidencePPM*calibrationBins/1_000_000, calibrationBins-1)
	c.rows[i]++
	c.confidence[i] += confidencePPM
	if correct {
		c.correct[i]++
	}
}

// table returns the ranges that hold rows, in ascending order of confidence.
func (c *calibration) table() []Reliability {
	t := []Reliability{}
	for i, n := range c.rows {
		if n > 0 {
			t = append(t, Reliability{Rows: n, ConfidencePPM: c.confidence[i] / n, AccuracyPPM: ppm(uint64(c.correct[i]), uint64(n))})
		}
	}
	return t
}

// ece is the expected calibration error: the mean over rows of the distance
// between confidence and accuracy of their range.
func (c *calibration) ece() int64 {
	var gap, rows uint64
	for i, n := range c.rows {
		d := c.confidence[i] - c.correct[i]*1_000_000
		gap += uint64(max(d, -d))
		rows += uint64(n)
	}
	if rows == 0 {
		return 0
	}
	return int64((gap + rows/2) / rows)
}
