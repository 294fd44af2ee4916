package trainer

import (
	"math"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/detmath"
)

// unitWeight is the weight of a row that counts 1. Weights of rows that are
// used are integers from 1 to unitWeight before classes are balanced.
const unitWeight = 1 << weightBits

const microsPerDay = 86_400_000_000

// maxDays bounds windows and half-lives: a hundred years or so, well inside
// what microseconds since 1970 can hold.
const maxDays = 36_525

// recency returns the weight of a record seen at time t (microseconds, or
// record.NoTime), and why it is not used when the weight is 0: unitWeight ×
// 2^(-age/halfLife), rounded to the nearest and at least 1 inside the window,
// both ends of which belong to it. An undated record counts 1.
func (r *Recipe) recency(t int64) (weight int32, dropped string) {
	if t == record.NoTime {
		return unitWeight, ""
	}
	if t > r.AsOf {
		return 0, droppedLater
	}
	age := r.AsOf - t
	if age < 0 || age > r.WindowDays*microsPerDay { // below 0: the difference overflowed
		return 0, droppedWindow
	}
	halvings := float64(age) / float64(r.HalfLifeDays*microsPerDay)
	return max(1, int32(math.RoundToEven(math.Ldexp(detmath.Exp2(-halvings), weightBits)))), ""
}

// capSites lowers the weights of rows whose site holds more than capPPM of
// the weight of all rows, so that it holds that share of it (of the weight
// before any was lowered): one site cannot outvote the others. Rows without a
// site come from the operator's own files and are not capped. site is the
// number of a row's site, 0 for none; sites is how many numbers there are.
// It returns the numbers of the sites that were capped, ascending. No weight
// falls below 1.
func capSites(weights []int32, site []int32, sites int, capPPM int64) []int {
	sum := make([]int64, sites)
	var total int64
	for i, w := range weights {
		sum[site[i]] += int64(w)
		total += int64(w)
	}
	limit := total * capPPM / 1_000_000 // total < 2^34
	var capped []int
	for s := 1; s < sites; s++ {
		if sum[s] > limit {
			capped = append(capped, s)
		}
	}
	if capped == nil {
		return nil
	}
	for i, w := range weights {
		if s := site[i]; s != 0 && sum[s] > limit {
			weights[i] = max(1, int32(int64(w)*limit/sum[s]))
		}
	}
	return capped
}

// balance returns weights in which rare classes weigh more: each row's weight
// times (mean weight of a class / weight of its class)^exponent, at most
// limit, rounded and at least 1.
func balance(weights []int32, labels []uint8, classes int, exponentPPM, limitMilli int64) []int32 {
	sum := make([]int64, classes)
	var total int64
	present := 0
	for i, w := range weights {
		if sum[labels[i]] == 0 {
			present++
		}
		sum[labels[i]] += int64(w)
		total += int64(w)
	}
	factor := make([]float64, classes)
	for c, s := range sum {
		if s > 0 {
			ratio := float64(total) / float64(present) / float64(s)
			factor[c] = min(float64(limitMilli)/1000, detmath.Pow(ratio, float64(exponentPPM)/1e6))
		}
	}
	out := make([]int32, len(weights))
	for i, w := range weights {
		out[i] = max(1, min(maxWeight, int32(math.RoundToEven(float64(float64(w)*factor[labels[i]])))))
	}
	return out
}
