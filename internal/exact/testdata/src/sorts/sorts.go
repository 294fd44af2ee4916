package sorts

import (
	"cmp"
	"slices"
	"sort"
)

type byLength []string

func (b byLength) Len() int           { return len(b) }
func (b byLength) Less(i, j int) bool { return len(b[i]) < len(b[j]) }
func (b byLength) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }

func unstable(s []string, f []float64) {
	slices.SortFunc(s, func(a, b string) int { return len(a) - len(b) })        // want `sort: slices.SortFunc leaves equals`
	sort.Slice(s, func(i, j int) bool { return len(s[i]) < len(s[j]) })         // want `sort: sort.Slice leaves equals`
	sort.Sort(byLength(s))                                                      // want `sort: sort.Sort leaves equals`
	_ = slices.SortedFunc(slices.Values(s), func(a, b string) int { return 0 }) // want `sort: slices.SortedFunc leaves equals`
	slices.Sort(f)                                                              // want `sort: slices.Sort leaves \+0 and -0`
	sort.Float64s(f)                                                            // want `sort: sort.Float64s leaves \+0 and -0`
	by := slices.SortFunc[[]string]                                             // want `sort: slices.SortFunc leaves equals`
	by(s, cmp.Compare[string])
}

func ordered[E cmp.Ordered](s []E) {
	slices.Sort(s) // want `sort: slices.Sort leaves \+0 and -0`
}

func integers[E ~int32 | ~uint32](s []E) {
	slices.Sort(s)
}

func total(s []string, n []int) {
	slices.Sort(s)
	slices.Sort(n)
	sort.Strings(s)
	sort.Stable(byLength(s))
	slices.SortStableFunc(s, func(a, b string) int { return len(a) - len(b) })
	_ = slices.Sorted(slices.Values(s))
}
