package model

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// What every file states. ONNX Runtime 1.21.1 to 1.30.0 loads these versions.
const (
	irVersion   = 8
	onnxOpset   = 17
	mlOpset     = 5
	mlDomain    = "ai.onnx.ml"
	spareLeaves = 2 // unused leaves before the first; see appendTrees
)

// Element types of onnx.TensorProto.
const (
	typeFloat  = 1
	typeUint8  = 2
	typeInt64  = 7
	typeString = 8
	typeDouble = 11
)

// Kinds of onnx.AttributeProto.
const (
	attrInt     = 2
	attrTensor  = 4
	attrFloats  = 6
	attrInts    = 7
	attrStrings = 8
)

// EncodeScaler returns the bytes of feature_scaler.onnx. It fails with
// ErrFormat when s is not valid or the file would be over MaxFile.
func EncodeScaler(s *Scaler) ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	var n []byte
	n = appendText(n, 1, "features")
	n = appendText(n, 2, "scaled")
	n = appendText(n, 4, "Scaler")
	n = appendAttr(n, "offset", attrFloats, appendBytes(nil, 7, floatBytes(s.Offset)))
	n = appendAttr(n, "scale", attrFloats, appendBytes(nil, 7, floatBytes(s.Scale)))
	n = appendText(n, 7, mlDomain)

	var g []byte
	g = appendBytes(g, 1, n)
	g = appendText(g, 2, "feature_scaler")
	g = appendValue(g, 11, "features", typeFloat, len(s.Offset))
	g = appendValue(g, 12, "scaled", typeFloat, len(s.Offset))
	return file(g)
}

// EncodeEnsemble returns the bytes of the file that e.Transform stands for.
// Trees may list their nodes in any order that Tree allows; the file has them
// in preorder. It fails with ErrFormat when e is not valid, has no transform,
// or the file would be over MaxFile.
func EncodeEnsemble(e *Ensemble) ([]byte, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	var g []byte
	input, name := "features", ""
	switch e.Transform {
	case Isolation:
		input, name = "scaled", "anomaly_detector"
	case Softmax:
		name = "threat_classifier"
	case Sigmoid:
		name = "ip_reputation"
	default:
		return nil, invalid("an ensemble without transform has no file")
	}

	n := appendText(nil, 1, input)
	n = appendText(n, 2, "sums")
	n = appendText(n, 4, "TreeEnsemble")
	n = appendTrees(n, e)
	n = appendText(n, 7, mlDomain)
	g = appendBytes(g, 1, n)
	for _, s := range steps(e.Transform) {
		n = n[:0]
		for _, in := range s.in {
			n = appendText(n, 1, in)
		}
		n = appendText(n, 2, s.out)
		n = appendText(n, 4, s.op)
		switch s.op {
		case "Cast":
			n = appendIntAttr(n, "to", s.to)
		case "ArgMax":
			n = appendIntAttr(n, "axis", 1)
			n = appendIntAttr(n, "keepdims", 0)
		case "LabelEncoder":
			n = appendClasses(n, e.Classes)
			n = appendText(n, 7, mlDomain)
		}
		g = appendBytes(g, 1, n)
	}

	g = appendText(g, 2, name)
	bias := make([]float32, e.Targets)
	for t, k := range e.Bias {
		bias[t] = e.value(k)
	}
	g = appendBytes(g, 5, tensor(typeFloat, "bias", len(bias), floatBytes(bias)))
	switch e.Transform {
	case Isolation:
		g = appendBytes(g, 5, tensor(typeDouble, "half", 1, doubleBytes(0.5)))
		g = appendBytes(g, 5, tensor(typeDouble, "norm", 1, doubleBytes(e.Norm)))
	case Sigmoid:
		g = appendBytes(g, 5, tensor(typeDouble, "one", 1, doubleBytes(1)))
	}
	g = appendValue(g, 11, input, typeFloat, e.Dim)
	g = appendValue(g, 12, "raw", typeFloat, e.Targets)
	if e.Transform == Softmax {
		g = appendValue(g, 12, "probabilities", typeFloat, e.Targets)
		g = appendValue(g, 12, "label", typeString, 0)
	} else {
		g = appendValue(g, 12, "score", typeFloat, 1)
	}
	return file(g)
}

// EncodedSize returns the exact length of EncodeEnsemble(e) in bytes, at the
// cost of encoding. For planning: a split with its leaf takes 14 to 21 bytes
// (18 is usual), a tree 6 to 8 more, the rest of a file 1 KiB and the class
// names.
func (e *Ensemble) EncodedSize() (int, error) {
	b, err := EncodeEnsemble(e)
	return len(b), err
}

// step is an operator after the trees.
type step struct {
	op  string
	in  []string
	out string
	to  int // Cast: the element type
}

// steps returns the operators that follow TreeEnsemble. Scores are computed in
// double precision and rounded once; the attribute post_transform is never
// used, as runtimes disagree with its specification.
func steps(t Transform) []step {
	s := []step{
		{op: "Add", in: []string{"sums", "bias"}, out: "raw"},
		{op: "Cast", in: []string{"raw"}, out: "raw64", to: typeDouble},
	}
	switch t {
	case Isolation:
		s = append(s,
			step{op: "Div", in: []string{"raw64", "norm"}, out: "depth64"},
			step{op: "Pow", in: []string{"half", "depth64"}, out: "score64"},
			step{op: "Cast", in: []string{"score64"}, out: "score", to: typeFloat})
	case Softmax:
		s = append(s,
			step{op: "Softmax", in: []string{"raw64"}, out: "probabilities64"},
			step{op: "Cast", in: []string{"probabilities64"}, out: "probabilities", to: typeFloat},
			step{op: "ArgMax", in: []string{"raw"}, out: "index"},
			step{op: "LabelEncoder", in: []string{"index"}, out: "label"})
	case Sigmoid:
		s = append(s,
			step{op: "Neg", in: []string{"raw64"}, out: "negative64"},
			step{op: "Exp", in: []string{"negative64"}, out: "odds64"},
			step{op: "Add", in: []string{"odds64", "one"}, out: "sum64"},
			step{op: "Div", in: []string{"one", "sum64"}, out: "score64"},
			step{op: "Cast", in: []string{"score64"}, out: "score", to: typeFloat})
	}
	return s
}

// treeArrays are the attributes of TreeEnsemble, indexed by split and by leaf.
type treeArrays struct {
	roots               []int32
	feature             []int32
	split               []float32
	missing             []int32
	trueID, falseID     []int32
	trueLeaf, falseLeaf []int32
	leafTarget          []int32
	leafWeight          []float32
	anyMissing          bool
}

// appendTrees appends the attributes of TreeEnsemble in order of their names.
//
// Splits and leaves are each numbered in preorder over all trees, left (true)
// first. Two unused leaves come before the first: without them the root of the
// second tree can have a leaf and a split of the same number as children, and
// ONNX Runtime before 1.24 then takes the root for a leaf.
func appendTrees(b []byte, e *Ensemble) []byte {
	splits, leaves := e.Nodes()
	a := treeArrays{
		roots:      make([]int32, 0, len(e.Trees)),
		feature:    make([]int32, 0, splits),
		split:      make([]float32, 0, splits),
		missing:    make([]int32, 0, splits),
		trueID:     make([]int32, 0, splits),
		falseID:    make([]int32, 0, splits),
		trueLeaf:   make([]int32, 0, splits),
		falseLeaf:  make([]int32, 0, splits),
		leafTarget: make([]int32, spareLeaves, leaves+spareLeaves),
		leafWeight: make([]float32, spareLeaves, leaves+spareLeaves),
	}
	for i := range e.Trees {
		a.roots = append(a.roots, int32(len(a.feature)))
		nodes := e.Trees[i].Nodes
		if root := &nodes[0]; root.Leaf {
			// Runtimes before 1.30 misread a root that is a leaf.
			at := a.addSplit(&Node{})
			a.trueID[at], a.trueLeaf[at] = a.addLeaf(e, root), 1
			a.falseID[at], a.falseLeaf[at] = a.addLeaf(e, root), 1
			continue
		}
		a.add(e, nodes, 0)
	}

	modes := make([]byte, splits) // 0: x <= threshold
	b = appendAttr(b, "leaf_targetids", attrInts, appendInts(nil, a.leafTarget))
	b = appendAttr(b, "leaf_weights", attrTensor, appendBytes(nil, 5, tensor(typeFloat, "", len(a.leafWeight), floatBytes(a.leafWeight))))
	b = appendIntAttr(b, "n_targets", e.Targets)
	b = appendAttr(b, "nodes_falseleafs", attrInts, appendInts(nil, a.falseLeaf))
	b = appendAttr(b, "nodes_falsenodeids", attrInts, appendInts(nil, a.falseID))
	b = appendAttr(b, "nodes_featureids", attrInts, appendInts(nil, a.feature))
	if a.anyMissing {
		b = appendAttr(b, "nodes_missing_value_tracks_true", attrInts, appendInts(nil, a.missing))
	}
	b = appendAttr(b, "nodes_modes", attrTensor, appendBytes(nil, 5, tensor(typeUint8, "", splits, modes)))
	b = appendAttr(b, "nodes_splits", attrTensor, appendBytes(nil, 5, tensor(typeFloat, "", splits, floatBytes(a.split))))
	b = appendAttr(b, "nodes_trueleafs", attrInts, appendInts(nil, a.trueLeaf))
	b = appendAttr(b, "nodes_truenodeids", attrInts, appendInts(nil, a.trueID))
	return appendAttr(b, "tree_roots", attrInts, appendInts(nil, a.roots))
}

// add appends split at of nodes and all below it. The depth of the recursion
// is that of the tree, at most MaxDepth.
func (a *treeArrays) add(e *Ensemble, nodes []Node, at int32) int32 {
	n := &nodes[at]
	id := a.addSplit(n)
	if left := &nodes[n.Left]; left.Leaf {
		a.trueID[id], a.trueLeaf[id] = a.addLeaf(e, left), 1
	} else {
		a.trueID[id] = a.add(e, nodes, n.Left)
	}
	if right := &nodes[n.Right]; right.Leaf {
		a.falseID[id], a.falseLeaf[id] = a.addLeaf(e, right), 1
	} else {
		a.falseID[id] = a.add(e, nodes, n.Right)
	}
	return id
}

func (a *treeArrays) addSplit(n *Node) int32 {
	a.feature = append(a.feature, n.Feature)
	a.split = append(a.split, plusZero(n.Threshold))
	missing := int32(0)
	if n.MissingLeft {
		missing = 1
		a.anyMissing = true
	}
	a.missing = append(a.missing, missing)
	a.trueID = append(a.trueID, 0)
	a.falseID = append(a.falseID, 0)
	a.trueLeaf = append(a.trueLeaf, 0)
	a.falseLeaf = append(a.falseLeaf, 0)
	return int32(len(a.feature) - 1)
}

func (a *treeArrays) addLeaf(e *Ensemble, n *Node) int32 {
	a.leafTarget = append(a.leafTarget, n.Target)
	a.leafWeight = append(a.leafWeight, e.value(n.Value))
	return int32(len(a.leafTarget) - 1)
}

// value returns k/2^Shift, exact by the bounds on both.
func (e *Ensemble) value(k int32) float32 {
	return float32(math.Ldexp(float64(k), -e.Shift))
}

// plusZero returns x, and 0 for -0: both compare alike, one is written.
func plusZero(x float32) float32 {
	if x == 0 {
		return 0
	}
	return x
}

// file wraps a graph into a whole ModelProto.
func file(graph []byte) ([]byte, error) {
	b := make([]byte, 0, len(graph)+64)
	b = appendInt(b, 1, irVersion)
	b = appendBytes(b, 7, graph)
	b = appendBytes(b, 8, appendInt(appendText(nil, 1, ""), 2, onnxOpset))
	b = appendBytes(b, 8, appendInt(appendText(nil, 1, mlDomain), 2, mlOpset))
	if len(b) > MaxFile {
		return nil, tooLarge("bytes", len(b), MaxFile)
	}
	return b, nil
}

func appendInt(b []byte, num protowire.Number, v int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(v))
}

func appendBytes(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

func appendText(b []byte, num protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), v)
}

// appendAttr appends an AttributeProto to a NodeProto: name, the given value
// fields, kind.
func appendAttr(b []byte, name string, kind int, value []byte) []byte {
	a := make([]byte, 0, len(name)+len(value)+16)
	a = appendText(a, 1, name)
	a = append(a, value...)
	a = appendInt(a, 20, kind)
	return appendBytes(b, 5, a)
}

func appendIntAttr(b []byte, name string, v int) []byte {
	return appendAttr(b, name, attrInt, appendInt(nil, 3, v))
}

func appendClasses(b []byte, names []string) []byte {
	keys := make([]int32, len(names))
	var values []byte
	for i, name := range names {
		keys[i] = int32(i)
		values = appendText(values, 9, name)
	}
	b = appendAttr(b, "keys_int64s", attrInts, appendInts(nil, keys))
	return appendAttr(b, "values_strings", attrStrings, values)
}

// appendInts appends AttributeProto.ints, packed. Values are not negative.
func appendInts(b []byte, v []int32) []byte {
	packed := make([]byte, 0, 2*len(v))
	for _, x := range v {
		packed = protowire.AppendVarint(packed, uint64(x))
	}
	return appendBytes(b, 8, packed)
}

// tensor returns a TensorProto of one dimension.
func tensor(kind int, name string, n int, raw []byte) []byte {
	b := make([]byte, 0, len(raw)+len(name)+24)
	b = appendInt(b, 1, n)
	b = appendInt(b, 2, kind)
	if name != "" {
		b = appendText(b, 8, name)
	}
	return appendBytes(b, 9, raw)
}

// appendValue appends the ValueInfoProto of a tensor of shape [N, cols], or
// [N] for cols 0.
func appendValue(b []byte, num protowire.Number, name string, kind, cols int) []byte {
	shape := appendBytes(nil, 1, appendText(nil, 2, "N"))
	if cols > 0 {
		shape = appendBytes(shape, 1, appendInt(nil, 1, cols))
	}
	t := appendInt(nil, 1, kind)
	t = appendBytes(t, 2, shape)
	v := appendText(nil, 1, name)
	v = appendBytes(v, 2, appendBytes(nil, 1, t))
	return appendBytes(b, num, v)
}

func floatBytes(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(plusZero(x)))
	}
	return b
}

func doubleBytes(x float64) []byte {
	return binary.LittleEndian.AppendUint64(nil, math.Float64bits(x))
}
