package trainer

import "slices"

// curvePoints is the largest number of points of a curve in a release.
const curvePoints = 33

// roc returns the ROC curve of s in at most curvePoints of its operating
// points, each {share of negative rows that are flagged, share of positive
// rows that are} in parts per million, both ascending, from {0, 0} to
// {1000000, 1000000}. None of them lies between two scores.
//
// The points are chosen one by one, each the one that makes the largest
// triangle with its neighbours among those chosen before; of equals the one
// with the highest score. The curve is empty when a side is. roc reorders s.
func roc(s []scored) [][2]int64 {
	rank(s)
	curve := [][2]int64{{0, 0}} // rows flagged: negative, positive
	var at [2]int64
	for i := len(s); i > 0; {
		j := i
		for ; i > 0 && s[i-1].score == s[j-1].score; i-- {
			if s[i-1].positive {
				at[1]++
			} else {
				at[0]++
			}
		}
		curve = append(curve, at)
	}
	if at[0] == 0 || at[1] == 0 {
		return [][2]int64{}
	}
	chosen := []int{0, len(curve) - 1} // ascending
	for len(chosen) < curvePoints {
		best, place, largest := 0, 0, int64(0)
		for k, a := range chosen[:len(chosen)-1] {
			b := chosen[k+1]
			dx, dy := curve[b][0]-curve[a][0], curve[b][1]-curve[a][1]
			for c := a + 1; c < b; c++ {
				area := dx*(curve[c][1]-curve[a][1]) - dy*(curve[c][0]-curve[a][0]) // twice the triangle; below 2^45
				if area = max(area, -area); area > largest {
					best, place, largest = c, k+1, area
				}
			}
		}
		if largest == 0 {
			break // the curve is drawn in full
		}
		chosen = slices.Insert(chosen, place, best)
	}
	points := make([][2]int64, len(chosen))
	for i, c := range chosen {
		points[i] = [2]int64{ppm(uint64(curve[c][0]), uint64(at[0])), ppm(uint64(curve[c][1]), uint64(at[1]))}
	}
	return points
}
