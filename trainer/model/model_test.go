package model

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func encode(t testing.TB, e *Ensemble) []byte {
	t.Helper()
	b, err := EncodeEnsemble(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func encodeScaler(t testing.TB, s *Scaler) []byte {
	t.Helper()
	b, err := EncodeScaler(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decodeEnsemble(t testing.TB, name string, b []byte) *Ensemble {
	t.Helper()
	m, err := Decode(name, b)
	if err != nil {
		t.Fatal(err)
	}
	return m.Ensemble
}

func TestEncodingAndDecodingKeepMeaningAndBytes(t *testing.T) {
	for i, s := range shapes {
		for seed := range uint64(8) {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			e := s.random(rng)
			b := encode(t, e)
			d := decodeEnsemble(t, s.transform.file(), b)
			if !bytes.Equal(b, encode(t, d)) {
				t.Fatalf("shape %d seed %d: another encoding after decoding", i, seed)
			}
			if n, err := e.EncodedSize(); err != nil || n != len(b) {
				t.Fatalf("EncodedSize %d, %v: want %d", n, err, len(b))
			}
			s1, l1 := e.Nodes()
			if s2, l2 := d.Nodes(); s1 != s2 || l1 != l2 {
				t.Fatalf("shape %d: %d splits %d leaves became %d and %d", i, s1, l1, s2, l2)
			}
			if d.Shift > e.Shift {
				t.Fatalf("shape %d: shift %d became %d", i, e.Shift, d.Shift)
			}
			x := make([]float32, s.dim)
			for range 200 {
				vector(rng, x, 6)
				want, got := plainSums(e, x), plainSums(d, x)
				for k := range want {
					if want[k] != got[k]<<(e.Shift-d.Shift) {
						t.Fatalf("shape %d seed %d: sum %d of shift %d became %d of shift %d", i, seed, want[k], e.Shift, got[k], d.Shift)
					}
				}
			}
		}
	}
}

func TestScalerIsSubtractThenMultiply(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	s := randomScaler(rng, 50)
	m, err := Decode(ScalerFile, encodeScaler(t, s))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m.Scaler, s) {
		t.Fatal("another scaler after decoding")
	}
	x, got := make([]float32, 50), make([]float32, 50)
	vector(rng, x, 0)
	s.Apply(got, x)
	for j := range x {
		// Two float32 operations are exact in float64 until rounded.
		want := float32(float64(float32(float64(x[j])-float64(s.Offset[j]))) * float64(s.Scale[j]))
		if got[j] != want && !(math.IsNaN(float64(got[j])) && math.IsNaN(float64(want))) {
			t.Fatalf("(%v-%v)*%v = %v, want %v", x[j], s.Offset[j], s.Scale[j], got[j], want)
		}
	}
	s.Apply(x, x)
	for j := range x {
		if math.Float32bits(x[j]) != math.Float32bits(got[j]) {
			t.Fatal("scaling in place differs")
		}
	}
}

func TestNodeOrderInMemoryDoesNotShowInTheFile(t *testing.T) {
	leaf := func(k int32) Node { return Node{Leaf: true, Value: k} }
	split := func(f, l, r int32) Node { return Node{Feature: f, Threshold: 1, Left: l, Right: r} }
	preorder := Tree{Nodes: []Node{split(0, 1, 4), split(1, 2, 3), leaf(1), leaf(2), leaf(3)}}
	breadth := Tree{Nodes: []Node{split(0, 1, 2), split(1, 3, 4), leaf(3), leaf(1), leaf(2)}}
	e := &Ensemble{Dim: 2, Targets: 1, Transform: Sigmoid, Trees: []Tree{preorder}}
	a := encode(t, e)
	e.Trees = []Tree{breadth}
	if !bytes.Equal(a, encode(t, e)) {
		t.Fatal("node order changes the encoding")
	}
	e.Trees[0].Nodes[0].Threshold = math.Float32frombits(1 << 31)
	b := encode(t, e)
	e.Trees[0].Nodes[0].Threshold = 0
	if !bytes.Equal(b, encode(t, e)) {
		t.Fatal("the thresholds -0 and 0 have two encodings")
	}
}

// A second tree whose root has a leaf to the left and a split to the right is
// the one that old runtimes misread if its children shared a number.
func TestNoRootHasTwoChildrenOfOneNumber(t *testing.T) {
	for i, s := range shapes {
		for seed := range uint64(20) {
			e := s.random(rand.New(rand.NewPCG(seed, uint64(i))))
			var g graphProto
			if err := g.readModel(encode(t, e)); err != nil {
				t.Fatal(err)
			}
			n := &g.nodes[0]
			read := func(name string, want int) []int32 {
				v, err := ints(name, n.attr(name).ints, want, 1<<30)
				if err != nil {
					t.Fatal(err)
				}
				return v
			}
			splits, _ := e.Nodes()
			left, right := read("nodes_truenodeids", splits), read("nodes_falsenodeids", splits)
			for _, root := range read("tree_roots", len(e.Trees)) {
				if left[root] == right[root] {
					t.Fatalf("shape %d seed %d: both children of root %d are %d", i, seed, root, left[root])
				}
			}
		}
	}
}

func valid() *Ensemble {
	return &Ensemble{
		Dim: 3, Targets: 2, Shift: 4, Transform: Softmax, Classes: []string{"benign", "xss"}, Bias: []int32{1, -2},
		Trees: []Tree{{Nodes: []Node{
			{Feature: 2, Threshold: 0.5, Left: 1, Right: 2},
			{Leaf: true, Target: 0, Value: 3},
			{Feature: 1, Threshold: -1, Left: 3, Right: 4, MissingLeft: true},
			{Leaf: true, Target: 1, Value: -9},
			{Leaf: true, Target: 0, Value: 7},
		}}},
	}
}

func TestValidateRefuses(t *testing.T) {
	if err := valid().Validate(); err != nil {
		t.Fatal(err)
	}
	detector := func(e *Ensemble) {
		*e = *(shape{transform: Isolation, dim: 2, targets: 1, trees: 2, splits: 3, depth: 3}).random(rand.New(rand.NewPCG(1, 1)))
	}
	chain := func(depth int) Tree {
		var nodes []Node
		for i := range int32(depth) {
			nodes = append(nodes, Node{Left: 2*i + 1, Right: 2*i + 2}, Node{Leaf: true})
		}
		return Tree{Nodes: append(nodes, Node{Leaf: true})}
	}
	bushy := func(splits int32) Tree {
		nodes := make([]Node, 2*splits+1)
		for i := range nodes {
			nodes[i].Leaf = i >= int(splits)
			if i < int(splits) {
				nodes[i].Left, nodes[i].Right = int32(2*i+1), int32(2*i+2)
			}
		}
		return Tree{Nodes: nodes}
	}
	for name, change := range map[string]func(*Ensemble){
		"no features":               func(e *Ensemble) { e.Dim = 0 },
		"too many features":         func(e *Ensemble) { e.Dim = MaxDim + 1 },
		"no targets":                func(e *Ensemble) { e.Targets = 0 },
		"too many targets":          func(e *Ensemble) { e.Targets = MaxTargets + 1 },
		"negative shift":            func(e *Ensemble) { e.Shift = -1 },
		"shift too large":           func(e *Ensemble) { e.Shift = MaxShift + 1 },
		"no trees":                  func(e *Ensemble) { e.Trees = nil },
		"too many trees":            func(e *Ensemble) { e.Trees = make([]Tree, MaxTrees+1) },
		"empty tree":                func(e *Ensemble) { e.Trees[0].Nodes = nil },
		"bias for another number":   func(e *Ensemble) { e.Bias = e.Bias[:1] },
		"unknown transform":         func(e *Ensemble) { e.Transform = 99 },
		"sigmoid of two targets":    func(e *Ensemble) { e.Transform, e.Classes = Sigmoid, nil },
		"class names on a sum":      func(e *Ensemble) { e.Transform = None },
		"a class without name":      func(e *Ensemble) { e.Classes[1] = "" },
		"one class name too few":    func(e *Ensemble) { e.Classes = e.Classes[:1] },
		"a class name twice":        func(e *Ensemble) { e.Classes[1] = e.Classes[0] },
		"a class name with a space": func(e *Ensemble) { e.Classes[1] = "a b" },
		"a class name not in ASCII": func(e *Ensemble) { e.Classes[1] = "é" },
		"a long class name":         func(e *Ensemble) { e.Classes[1] = string(bytes.Repeat([]byte("x"), MaxClass+1)) },
		"norm of a classifier":      func(e *Ensemble) { e.Norm = 1 },
		"detector without norm":     func(e *Ensemble) { detector(e); e.Norm = 0 },
		"detector with norm NaN":    func(e *Ensemble) { detector(e); e.Norm = math.NaN() },
		"detector with norm Inf":    func(e *Ensemble) { detector(e); e.Norm = math.Inf(1) },
		"negative path length": func(e *Ensemble) {
			detector(e)
			e.Trees[0] = Tree{Nodes: []Node{{Leaf: true, Value: -1}}}
		},
		"negative path length as bias": func(e *Ensemble) { detector(e); e.Bias[0] = -1 },
		"feature too large":            func(e *Ensemble) { e.Trees[0].Nodes[0].Feature = 3 },
		"negative feature":             func(e *Ensemble) { e.Trees[0].Nodes[0].Feature = -1 },
		"NaN threshold":                func(e *Ensemble) { e.Trees[0].Nodes[0].Threshold = float32(math.NaN()) },
		"target too large":             func(e *Ensemble) { e.Trees[0].Nodes[1].Target = 2 },
		"negative target":              func(e *Ensemble) { e.Trees[0].Nodes[1].Target = -1 },
		"child is the node itself":     func(e *Ensemble) { e.Trees[0].Nodes[2].Left = 2 },
		"child before its parent":      func(e *Ensemble) { e.Trees[0].Nodes[2].Left = 0 },
		"child outside":                func(e *Ensemble) { e.Trees[0].Nodes[2].Left = 5 },
		"two parents":                  func(e *Ensemble) { e.Trees[0].Nodes[2].Left = 4 },
		"same child twice":             func(e *Ensemble) { e.Trees[0].Nodes[2].Right = 3 },
		"node without parent":          func(e *Ensemble) { e.Trees[0].Nodes = append(e.Trees[0].Nodes, Node{Leaf: true}) },
		"too deep":                     func(e *Ensemble) { e.Trees[0] = chain(MaxDepth + 1) },
		"tree too large":               func(e *Ensemble) { e.Trees[0] = bushy(MaxTree / 2) },
		"too many splits": func(e *Ensemble) {
			e.Trees = nil
			for range MaxNodes/(MaxTree/4) + 1 {
				e.Trees = append(e.Trees, bushy(MaxTree/4))
			}
		},
		"sums not exact": func(e *Ensemble) { e.Trees[0].Nodes[1].Value = MaxSum },
		"sums not exact over trees": func(e *Ensemble) {
			e.Trees[0].Nodes[1].Value = -MaxSum / 2
			e.Trees = append(e.Trees, e.Trees[0])
		},
		"most negative value": func(e *Ensemble) { e.Trees[0].Nodes[3].Value = math.MinInt32 },
	} {
		e := valid()
		change(e)
		if err := e.Validate(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := EncodeEnsemble(e); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: encoded, %v", name, err)
		}
		if _, err := NewScorer(e); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: scorer, %v", name, err)
		}
	}
	for name, e := range map[string]*Ensemble{
		"deepest": {Dim: 1, Targets: 1, Transform: Sigmoid, Trees: []Tree{chain(MaxDepth)}},
		"largest": {Dim: 1, Targets: 1, Transform: Sigmoid, Trees: []Tree{bushy(MaxTree/2 - 1)}},
		"at the bound of exact sums": {Dim: 1, Targets: 1, Transform: Sigmoid, Bias: []int32{1}, Trees: []Tree{
			{Nodes: []Node{{Leaf: true, Value: MaxSum - 1}}},
		}},
	} {
		b, err := EncodeEnsemble(e)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := Decode(ReputationFile, b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	none := valid()
	none.Transform, none.Classes = None, nil
	if err := none.Validate(); err != nil {
		t.Fatal(err)
	}
	if _, err := EncodeEnsemble(none); !errors.Is(err, ErrFormat) {
		t.Errorf("an ensemble without transform was encoded: %v", err)
	}
	large := valid()
	large.Trees = nil
	for range 4 {
		tree := bushy(MaxTree/2 - 1)
		for i := range tree.Nodes {
			if !tree.Nodes[i].Leaf {
				tree.Nodes[i].Feature = 200
			}
		}
		large.Trees = append(large.Trees, tree)
	}
	large.Dim = 201
	if _, err := EncodeEnsemble(large); !errors.Is(err, canon.ErrTooLarge) {
		t.Errorf("a file over MaxFile was encoded: %v", err)
	}
}

func TestScalerRefuses(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for name, s := range map[string]*Scaler{
		"empty":             {},
		"different lengths": {Offset: []float32{1, 2}, Scale: []float32{1}},
		"too many features": {Offset: make([]float32, MaxDim+1), Scale: make([]float32, MaxDim+1)},
		"infinite offset":   {Offset: []float32{inf}, Scale: []float32{1}},
		"NaN offset":        {Offset: []float32{nan}, Scale: []float32{1}},
		"infinite scale":    {Offset: []float32{0}, Scale: []float32{inf}},
		"NaN scale":         {Offset: []float32{0}, Scale: []float32{nan}},
		"negative scale":    {Offset: []float32{0}, Scale: []float32{-1}},
	} {
		if _, err := EncodeScaler(s); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
