package trainer

import (
	"reflect"
	"slices"
	"testing"
)

func growRandom(p *pcg, rows, columns, leaves, depth, workers int) (*bins, *tree, []span, []int32) {
	m := randomBins(p, rows, columns)
	s := &gradients{tiles: newTiles(m, allColumns(m), workers, workers), workers: workers, lambda: 1, minRows: 2, packed: make([]int64, rows)}
	list := make([]int32, rows)
	for r := range list {
		list[r] = int32(r)
		s.packed[r] = (int64(p.below(200))-100)<<32 + 20
	}
	gr := &grower{of: m, cols: s.tiles.cols, maxLeaves: leaves, maxDepth: depth}
	t, spans := gr.grow(s, list)
	return m, t, spans, list
}

func TestLeavesShareOutTheRows(t *testing.T) {
	for trial := range 40 {
		p := newPCG(uint64(trial), 1)
		m, tr, spans, rows := growRandom(p, 2+int(p.below(400)), 1+int(p.below(20)), 1+int(p.below(40)), int(p.below(6)), 1)
		if len(spans) != tr.leaves || len(tr.nodes) != tr.leaves-1 {
			t.Fatalf("%d nodes, %d leaves, %d spans", len(tr.nodes), tr.leaves, len(spans))
		}
		seen := make([]bool, m.rows)
		for leaf, sp := range spans {
			if sp.lo >= sp.hi {
				t.Fatalf("leaf %d has no rows", leaf)
			}
			if !slices.IsSorted(rows[sp.lo:sp.hi]) {
				t.Fatalf("rows of leaf %d lost their order", leaf)
			}
			for _, r := range rows[sp.lo:sp.hi] {
				if seen[r] {
					t.Fatalf("row %d is in two leaves", r)
				}
				seen[r] = true
				if got := tr.leaf(m, int(r)); got != leaf {
					t.Fatalf("row %d falls into leaf %d, grown in %d", r, got, leaf)
				}
			}
		}
		if slices.Contains(seen, false) {
			t.Fatal("a row is in no leaf")
		}
	}
}

func TestTreesKeepTheirLimits(t *testing.T) {
	depth := func(tr *tree) int {
		var walk func(i int32) int
		walk = func(i int32) int {
			if i < 0 {
				return 0
			}
			return 1 + max(walk(tr.nodes[i].left), walk(tr.nodes[i].right))
		}
		if len(tr.nodes) == 0 {
			return 0
		}
		return walk(0)
	}
	for _, c := range []struct{ leaves, depth int }{{1, 0}, {2, 0}, {7, 0}, {255, 3}, {9, 2}, {31, 60}} {
		_, tr, _, _ := growRandom(newPCG(9, 9), 500, 10, c.leaves, c.depth, 1)
		if tr.leaves > c.leaves || c.depth > 0 && depth(tr) > c.depth {
			t.Errorf("leaves %d depth %d under limits %+v", tr.leaves, depth(tr), c)
		}
		if c.leaves > 1 && tr.leaves < min(c.leaves, 1<<max(1, c.depth))/2 {
			t.Errorf("only %d leaves under limits %+v", tr.leaves, c)
		}
	}
}

func TestWorkersDoNotChangeTrees(t *testing.T) {
	_, one, spans, rows := growRandom(newPCG(4, 4), 9000, 40, 31, 0, 1)
	for _, workers := range []int{2, 3, 8} {
		_, many, spansMany, rowsMany := growRandom(newPCG(4, 4), 9000, 40, 31, 0, workers)
		if !slices.Equal(one.nodes, many.nodes) || !slices.Equal(spans, spansMany) || !slices.Equal(rows, rowsMany) {
			t.Errorf("%d workers grow another tree", workers)
		}
	}
	_, other, _, _ := growRandom(newPCG(5, 4), 9000, 40, 31, 0, 1)
	if slices.Equal(one.nodes, other.nodes) {
		t.Error("other data grows the same tree: the test proves nothing")
	}
}

func TestProjectionGivesOneClassOfATree(t *testing.T) {
	p := newPCG(31, 1)
	m, tr, _, _ := growRandom(p, 300, 6, 40, 0, 1)
	const classes = 3
	tr.values = make([]int32, tr.leaves*classes)
	for i := range tr.values {
		tr.values[i] = int32(p.below(2))
	}
	for c := range classes {
		one := tr.project(c, classes)
		if len(one.nodes) != one.leaves-1 || len(one.values) != one.leaves || one.leaves > tr.leaves {
			t.Fatalf("%d nodes, %d leaves, %d values", len(one.nodes), one.leaves, len(one.values))
		}
		for r := range m.rows {
			if got, want := one.values[one.leaf(m, r)], tr.values[tr.leaf(m, r)*classes+c]; got != want {
				t.Fatalf("class %d row %d: %d, want %d", c, r, got, want)
			}
		}
		for _, n := range one.nodes {
			if n.left < 0 && n.right < 0 && one.values[^n.left] == one.values[^n.right] {
				t.Fatal("a split with two equal leaves is left")
			}
		}
	}
	for i := range tr.values {
		tr.values[i] = 5
	}
	if one := tr.project(0, classes); one.leaves != 1 || len(one.nodes) != 0 || one.values[0] != 5 {
		t.Errorf("a constant keeps %d leaves", one.leaves)
	}
}

func TestSubtreesGrowAloneAsTheyDoTogether(t *testing.T) {
	const n = nearRows * 2 // of which three quarters weigh
	p := newPCG(3, 3)
	m := randomBins(p, n, 7)
	columns := []int32{0, 1, 2, 3, 4, 5, 6}
	grown := func(classes int, alone bool) (*tree, []span, []int32) {
		s := newImpurity(m, slices.Clone(columns), classes)
		s.draw, s.minRows, s.minRow2, s.seed = 3, 2, 5, 77
		var rows []int32
		for r := range n {
			if times := uint32(r*7919%4) * 4096; times > 0 {
				class := (m.columns[1][r]/64 + m.columns[2][r]/32 + uint8(r%2)) % uint8(classes)
				s.stat[r] = times<<statClass | uint32(class)
				rows = append(rows, int32(r))
			}
		}
		gr := grower{of: m, maxLeaves: 1 << 30, maxDepth: 14}
		if alone {
			gr.near = s
		}
		tr, spans := gr.grow(s, rows)
		if s.of != m || alone == (s.held == nil) {
			t.Fatalf("%d classes: the whole is not the matrix again, or no subtree grew alone", classes)
		}
		return tr, spans, rows
	}
	for _, classes := range []int{2, 5} {
		want, wantSpans, wantRows := grown(classes, false)
		got, spans, rows := grown(classes, true)
		if !reflect.DeepEqual(got, want) || !slices.Equal(spans, wantSpans) || !slices.Equal(rows, wantRows) {
			t.Errorf("%d classes: %d leaves, %d when its subtrees grow alone, or other ones", classes, want.leaves, got.leaves)
		}
		if want.leaves < 100 {
			t.Errorf("%d leaves: the test proves nothing", want.leaves)
		}
	}
}
