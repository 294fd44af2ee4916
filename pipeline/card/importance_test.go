package card

import (
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// leaf and split make the nodes of a tree.
func leaf(k int32) model.Node { return model.Node{Leaf: true, Value: k} }

func split(column, left, right int32) model.Node {
	return model.Node{Feature: column, Left: left, Right: right}
}

func TestImportanceCountsSplitsAndTheLeavesBelow(t *testing.T) {
	e := &model.Ensemble{Dim: feature.Dim, Targets: 1, Trees: []model.Tree{
		{Nodes: []model.Node{split(5, 1, 2), leaf(-10), split(3, 3, 4), leaf(1), leaf(2)}}, // 5: 13, 3: 3
		{Nodes: []model.Node{split(3, 1, 2), leaf(4), leaf(-4)}},                           // 3: 8
		{Nodes: []model.Node{split(7, 1, 2), leaf(6), leaf(6)}},                            // a constant
		{Nodes: []model.Node{leaf(9)}},
		{Nodes: []model.Node{split(9, 1, 2), leaf(0), leaf(-2)}}, // 9: 2
		{Nodes: []model.Node{split(8, 1, 2), leaf(1), leaf(-1)}}, // 8: 2
	}}
	got := importances(e)
	want := []struct {
		column              int
		splits, mass, share int64
	}{{5, 1, 13, 464_286}, {3, 2, 11, 392_857}, {8, 1, 2, 71_429}, {9, 1, 2, 71_429}}
	if len(got) != len(want) {
		t.Fatalf("%d columns, want %d: %+v", len(got), len(want), got)
	}
	for i, w := range want {
		if g := got[i]; g.Column.Name != feature.Columns[w.column].Name || g.Splits != w.splits || g.Mass != w.mass || g.Share != w.share {
			t.Errorf("%d: %+v, want %+v", i, g, w)
		}
	}
	if list := importances(&model.Ensemble{Dim: feature.Dim, Trees: []model.Tree{{Nodes: []model.Node{leaf(1)}}}}); len(list) != 0 {
		t.Errorf("columns of a constant: %+v", list)
	}
}

func TestGroupsAddUp(t *testing.T) {
	c := newCard(t)
	for i := 1; i < len(models); i++ {
		all := importances(c.models[i].Ensemble)
		var splits, mass, grouped, groupedShare int64
		used := 0
		for _, v := range all {
			splits += v.Splits
			mass += v.Share
		}
		for _, g := range groups(all) {
			grouped += g.Splits
			groupedShare += g.Share
			used += g.Used
			if g.Used > g.Columns || groupDocs[g.Name] == "" {
				t.Errorf("%s: %+v", models[i].File, g)
			}
		}
		if splits != grouped || mass != groupedShare || used != len(all) {
			t.Errorf("%s: %d splits and %d ppm of %d columns, in groups %d, %d, %d", models[i].File, splits, mass, len(all), grouped, groupedShare, used)
		}
		if off := mass - million; off > 200 || off < -200 {
			t.Errorf("%s: shares add up to %d ppm", models[i].File, mass)
		}
		if want := int64(c.scoring.Files[i].Splits); splits > want || splits < want-2 {
			t.Errorf("%s: %d splits, the scoring document says %d", models[i].File, splits, want)
		}
	}
}

func TestPortionOfLargeMasses(t *testing.T) {
	for _, c := range [][3]int64{{0, 0, 0}, {1, 3, 333_333}, {1 << 59, 1 << 60, 500_000}, {1<<62 - 1, 1<<62 - 1, million}} {
		if got := portion(c[0], c[1]); got != c[2] {
			t.Errorf("%d of %d is %d ppm, want %d", c[0], c[1], got, c[2])
		}
	}
}
