package trainer

import (
	"math"

	"github.com/battle-hardened-ai/bhtrain/internal/detmath"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// fitScaler returns the scaler of the row-major matrix x: by column the mean
// and the reciprocal of the standard deviation over the given rows, each
// rounded once from its exact sums. A column that does not vary, or whose
// reciprocal is no finite float32, gets scale 0 and says nothing.
func fitScaler(x []float32, width int, rows []int32, workers int) *model.Scaler {
	s := &model.Scaler{Offset: make([]float32, width), Scale: make([]float32, width)}
	const block = 8 // columns that share cache lines
	parallel(workers, (width+block-1)/block, func(_, k int) {
		lo, hi := block*k, min(block*k+block, width)
		var m [block]detmath.Moments
		for _, r := range rows {
			for c := lo; c < hi; c++ {
				m[c-lo].Add(x[int(r)*width+c])
			}
		}
		for c := lo; c < hi; c++ {
			mean := float32(m[c-lo].Mean())
			if math.IsNaN(float64(mean)) || math.IsInf(float64(mean), 0) {
				continue
			}
			s.Offset[c] = mean
			scale := float32(1 / m[c-lo].Deviation())
			if scale > 0 && scale <= math.MaxFloat32 {
				s.Scale[c] = scale
			}
		}
	})
	return s
}
