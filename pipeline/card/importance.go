package card

import (
	"cmp"
	"slices"

	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// importance says how much of an ensemble rests on one column. Model files do
// not keep the gain of a split, so it is counted from the trees themselves.
type importance struct {
	Column feature.Column
	Splits int64
	Mass   int64 // over the column's splits, the magnitudes of all leaves below added up, in units of the ensemble
	Share  int64 // of the mass of all columns, ppm
}

// group is the same for a group of columns.
type group struct {
	Name    feature.Group
	Columns int // in the group
	Used    int // of them, with a split
	Splits  int64
	Share   int64
}

// importances returns the columns that e splits on, those with most mass
// first, of equals the first in the vector.
func importances(e *model.Ensemble) []importance {
	all := make([]importance, e.Dim)
	for i := range all {
		all[i].Column = feature.Columns[i]
	}
	var total int64
	for t := range e.Trees {
		nodes := e.Trees[t].Nodes
		below := make([]int64, len(nodes)) // children come after their parent
		for i := len(nodes) - 1; i >= 0; i-- {
			n := &nodes[i]
			if n.Leaf {
				below[i] = max(int64(n.Value), -int64(n.Value))
				continue
			}
			below[i] = below[n.Left] + below[n.Right]
			if i == 0 && constant(nodes) {
				continue
			}
			all[n.Feature].Splits++
			all[n.Feature].Mass += below[i]
			total += below[i]
		}
	}
	used := slices.DeleteFunc(all, func(v importance) bool { return v.Splits == 0 })
	for i := range used {
		used[i].Share = portion(used[i].Mass, total)
	}
	slices.SortStableFunc(used, func(a, b importance) int {
		return cmp.Or(cmp.Compare(b.Mass, a.Mass), cmp.Compare(b.Splits, a.Splits))
	})
	return used
}

// constant reports whether a tree is a single leaf, in the form in which that is
// written: a split whose sides are equal.
func constant(nodes []model.Node) bool {
	l, r := &nodes[nodes[0].Left], &nodes[nodes[0].Right]
	return l.Leaf && r.Leaf && l.Target == r.Target && l.Value == r.Value
}

// portion is share for masses, which can be too large to multiply.
func portion(a, b int64) int64 {
	for ; b >= 1<<43; a, b = a>>1, b>>1 {
	}
	return share(a, b)
}

// groups adds up importances by group, in the order of the vector.
func groups(of []importance) []group {
	var list []group
	at := func(g feature.Group) *group {
		i := slices.IndexFunc(list, func(v group) bool { return v.Name == g })
		if i < 0 {
			i = len(list)
			list = append(list, group{Name: g})
		}
		return &list[i]
	}
	for _, c := range feature.Columns {
		at(c.Group).Columns++
	}
	for _, v := range of {
		g := at(v.Column.Group)
		g.Used++
		g.Splits += v.Splits
		g.Share += v.Share
	}
	return slices.DeleteFunc(list, func(g group) bool { return g.Used == 0 })
}
