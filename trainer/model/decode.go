package model

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"
)

// Model is a decoded model file: exactly one of the fields is set.
type Model struct {
	Scaler   *Scaler
	Ensemble *Ensemble
}

// Encode returns the bytes of the file that m is.
func (m *Model) Encode() ([]byte, error) {
	if m.Scaler != nil {
		return EncodeScaler(m.Scaler)
	}
	return EncodeEnsemble(m.Ensemble)
}

// Decode reads the model file with the given name (one of Files). It accepts
// the canonical encoding of a valid Scaler or Ensemble of that name, no other
// byte string, so encoding the result gives b again. Everything else is
// ErrFormat with a reason; what it allocates is bounded by the limits of this
// package whatever b says.
//
// A decoded ensemble lists nodes in preorder, has the lowest Shift that
// expresses all its leaves, a Bias that is not nil, and a split with two equal
// leaves where a tree of a single leaf was encoded.
func Decode(name string, b []byte) (*Model, error) {
	m, err := decode(name, b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

func decode(name string, b []byte) (*Model, error) {
	if len(b) > MaxFile {
		return nil, tooLarge("bytes", len(b), MaxFile)
	}
	var g graphProto
	if err := g.readModel(b); err != nil {
		return nil, err
	}
	var m Model
	var err error
	switch name {
	case ScalerFile:
		m.Scaler, err = g.scaler()
	case AnomalyFile:
		m.Ensemble, err = g.ensemble(Isolation)
	case ClassifierFile:
		m.Ensemble, err = g.ensemble(Softmax)
	case ReputationFile:
		m.Ensemble, err = g.ensemble(Sigmoid)
	default:
		err = invalid("no model file has this name")
	}
	if err != nil {
		return nil, err
	}
	canonical, err := m.Encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(b, canonical) {
		at := 0
		for at < len(b) && at < len(canonical) && b[at] == canonical[at] {
			at++
		}
		return nil, invalid("not in canonical form from byte %d on", at)
	}
	return &m, nil
}

// The messages of onnx.proto as far as the format uses them. Reading checks
// that nothing else is there and that counts are within limits; the rest of
// canonical form is left to the comparison at the end of decode.

type graphProto struct {
	nodes   []nodeProto
	tensors []tensorProto // initializers
	dim     uint64        // second dimension of the input
}

type nodeProto struct {
	op, domain string
	attrs      []attrProto
}

type attrProto struct {
	name    string
	ints    []byte // packed varints
	floats  []byte // packed little-endian float32
	tensor  tensorProto
	strings []string
}

type tensorProto struct {
	name string
	dim  uint64
	kind uint64
	raw  []byte
}

// Most that any of our graphs has.
const (
	maxOperators  = 9
	maxAttributes = 12
	maxTensors    = 3
	maxOutputs    = 3
)

// fields calls each for every field of message b: v for a varint, data for a
// length-delimited one. Other wire types are refused, as no field of the
// format has them.
func fields(message string, b []byte, each func(num protowire.Number, v uint64, data []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return invalid("%s: broken tag", message)
		}
		b = b[n:]
		var v uint64
		var data []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
			if n >= 0 && data == nil {
				data = []byte{}
			}
		default:
			return invalid("%s: field %d has wire type %d", message, num, typ)
		}
		if n < 0 {
			return invalid("%s: field %d is cut short", message, num)
		}
		b = b[n:]
		if err := each(num, v, data); err != nil {
			return err
		}
	}
	return nil
}

// refuse names a field that the format does not use.
func refuse(message string, num protowire.Number) error {
	switch {
	case message == "TensorProto" && (num == 13 || num == 14):
		return invalid("external data")
	case message == "ModelProto" && num == 25:
		return invalid("functions of its own")
	case message == "ModelProto" && num == 20:
		return invalid("training graphs")
	case message == "AttributeProto" && (num == 6 || num == 11):
		return invalid("graph in an attribute")
	case message == "GraphProto" && num == 15:
		return invalid("sparse tensors")
	}
	return invalid("%s: field %d is not part of the format", message, num)
}

func (g *graphProto) readModel(b []byte) error {
	const message = "ModelProto"
	var opsets int
	var graph []byte
	err := fields(message, b, func(num protowire.Number, v uint64, data []byte) error {
		switch {
		case num == 1 && data == nil:
			if v != irVersion {
				return invalid("ir_version %d, want %d", v, irVersion)
			}
		case num == 7 && data != nil:
			if graph != nil {
				return invalid("two graphs")
			}
			graph = data
		case num == 8 && data != nil:
			if opsets++; opsets > 2 {
				return invalid("more than two operator sets")
			}
			return readOpset(data)
		default:
			return refuse(message, num)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if graph == nil {
		return invalid("no graph")
	}
	return g.readGraph(graph)
}

func readOpset(b []byte) error {
	const message = "OperatorSetIdProto"
	var domain string
	var version uint64
	err := fields(message, b, func(num protowire.Number, v uint64, data []byte) error {
		switch {
		case num == 1 && data != nil:
			domain = clip(data)
		case num == 2 && data == nil:
			version = v
		default:
			return refuse(message, num)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if domain == "" && version == onnxOpset || domain == mlDomain && version == mlOpset {
		return nil
	}
	return invalid("operator set %q version %d", domain, version)
}

func (g *graphProto) readGraph(b []byte) error {
	const message = "GraphProto"
	inputs, outputs := 0, 0
	return fields(message, b, func(num protowire.Number, _ uint64, data []byte) error {
		if data == nil {
			return refuse(message, num)
		}
		switch num {
		case 1:
			if len(g.nodes) == maxOperators {
				return invalid("more than %d operators", maxOperators)
			}
			g.nodes = append(g.nodes, nodeProto{})
			return g.nodes[len(g.nodes)-1].read(data)
		case 2: // name: the comparison checks it
		case 5:
			if len(g.tensors) == maxTensors {
				return invalid("more than %d initializers", maxTensors)
			}
			g.tensors = append(g.tensors, tensorProto{})
			return g.tensors[len(g.tensors)-1].read(data)
		case 11:
			if inputs++; inputs > 1 {
				return invalid("more than one input")
			}
			return g.readInput(data)
		case 12: // outputs: the comparison checks them
			if outputs++; outputs > maxOutputs {
				return invalid("more than %d outputs", maxOutputs)
			}
		default:
			return refuse(message, num)
		}
		return nil
	})
}

// readInput finds the number of features: the second dimension of the shape
// of the tensor type of a ValueInfoProto.
func (g *graphProto) readInput(b []byte) error {
	var tensor, shape []byte
	err := fields("ValueInfoProto", b, func(num protowire.Number, _ uint64, data []byte) error {
		switch {
		case num == 1 && data != nil:
		case num == 2 && data != nil:
			return fields("TypeProto", data, func(num protowire.Number, _ uint64, data []byte) error {
				if num != 1 || data == nil {
					return refuse("TypeProto", num)
				}
				tensor = data
				return nil
			})
		default:
			return refuse("ValueInfoProto", num)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = fields("TypeProto.Tensor", tensor, func(num protowire.Number, v uint64, data []byte) error {
		switch {
		case num == 1 && data == nil:
			if v != typeFloat {
				return invalid("input of element type %d, want %d", v, typeFloat)
			}
		case num == 2 && data != nil:
			shape = data
		default:
			return refuse("TypeProto.Tensor", num)
		}
		return nil
	})
	if err != nil {
		return err
	}
	rank := 0
	err = fields("TensorShapeProto", shape, func(num protowire.Number, _ uint64, data []byte) error {
		if num != 1 || data == nil {
			return refuse("TensorShapeProto", num)
		}
		if rank++; rank > 2 {
			return invalid("input of more than two dimensions")
		}
		if rank == 1 {
			return nil // the batch: the comparison checks it
		}
		return fields("TensorShapeProto.Dimension", data, func(num protowire.Number, v uint64, data []byte) error {
			if num != 1 || data != nil {
				return refuse("TensorShapeProto.Dimension", num)
			}
			g.dim = v
			return nil
		})
	})
	if err != nil {
		return err
	}
	if g.dim < 1 {
		return invalid("input without a number of features")
	}
	if g.dim > MaxDim {
		return tooLarge("features", int(min(g.dim, math.MaxInt32)), MaxDim)
	}
	return nil
}

func (n *nodeProto) read(b []byte) error {
	const message = "NodeProto"
	err := fields(message, b, func(num protowire.Number, _ uint64, data []byte) error {
		if data == nil {
			return refuse(message, num)
		}
		switch num {
		case 1, 2: // inputs and outputs: the comparison checks them
		case 4:
			n.op = clip(data)
		case 5:
			if len(n.attrs) == maxAttributes {
				return invalid("more than %d attributes", maxAttributes)
			}
			n.attrs = append(n.attrs, attrProto{})
			return n.attrs[len(n.attrs)-1].read(data)
		case 7:
			n.domain = clip(data)
		default:
			return refuse(message, num)
		}
		return nil
	})
	if err == nil && n.domain != "" && n.domain != mlDomain {
		return invalid("operator %q of domain %q", n.op, n.domain)
	}
	return err
}

func (a *attrProto) read(b []byte) error {
	const message = "AttributeProto"
	return fields(message, b, func(num protowire.Number, _ uint64, data []byte) error {
		switch {
		case num == 1 && data != nil:
			a.name = clip(data)
		case num == 3 && data == nil: // i: the comparison checks it
		case num == 5 && data != nil:
			return a.tensor.read(data)
		case num == 7 && data != nil:
			a.floats = data
		case num == 8 && data != nil:
			a.ints = data
		case (num == 7 || num == 8) && data == nil:
			return invalid("attribute %q is not packed", a.name)
		case num == 9 && data != nil:
			if len(a.strings) == MaxTargets {
				return tooLarge("strings", MaxTargets+1, MaxTargets)
			}
			if len(data) > MaxClass {
				return tooLarge("bytes of a class name", len(data), MaxClass)
			}
			a.strings = append(a.strings, string(data))
		case num == 20 && data == nil: // type: the comparison checks it
		default:
			return refuse(message, num)
		}
		return nil
	})
}

func (t *tensorProto) read(b []byte) error {
	const message = "TensorProto"
	rank := 0
	err := fields(message, b, func(num protowire.Number, v uint64, data []byte) error {
		switch {
		case num == 1 && data == nil:
			if rank++; rank > 1 {
				return invalid("tensor of more than one dimension")
			}
			t.dim = v
		case num == 2 && data == nil:
			t.kind = v
		case num == 8 && data != nil:
			t.name = clip(data)
		case num == 9 && data != nil:
			t.raw = data
		default:
			return refuse(message, num)
		}
		return nil
	})
	if err != nil {
		return err
	}
	size := uint64(0)
	switch t.kind {
	case typeUint8:
		size = 1
	case typeFloat:
		size = 4
	case typeDouble:
		size = 8
	default:
		return invalid("tensor %q of element type %d", t.name, t.kind)
	}
	if t.dim > MaxFile || t.dim*size != uint64(len(t.raw)) {
		return invalid("tensor %q states %d elements of %d bytes and holds %d bytes", t.name, t.dim, size, len(t.raw))
	}
	return nil
}

// clip bounds foreign text that may enter an error message, in bytes. No name
// of the format is that long, so what is clipped fails a comparison.
func clip(b []byte) string {
	return string(b[:min(len(b), 48)])
}

func (n *nodeProto) attr(name string) *attrProto {
	for i := range n.attrs {
		if n.attrs[i].name == name {
			return &n.attrs[i]
		}
	}
	return &attrProto{}
}

// expect checks the operators of the graph, in order.
func (g *graphProto) expect(ops []string) error {
	for i, n := range g.nodes {
		if i >= len(ops) || n.op != ops[i] {
			return invalid("operator %d is %q, want one of %q in this order", i, n.op, ops)
		}
	}
	if len(g.nodes) != len(ops) {
		return invalid("%d operators, want %q", len(g.nodes), ops)
	}
	return nil
}

func (g *graphProto) scaler() (*Scaler, error) {
	if err := g.expect([]string{"Scaler"}); err != nil {
		return nil, err
	}
	offset, scale := g.nodes[0].attr("offset").floats, g.nodes[0].attr("scale").floats
	if uint64(len(offset)) != 4*g.dim || uint64(len(scale)) != 4*g.dim {
		return nil, invalid("%d features, but %d bytes of offsets and %d of scales", g.dim, len(offset), len(scale))
	}
	return &Scaler{Offset: floats(offset), Scale: floats(scale)}, nil
}

func (g *graphProto) ensemble(t Transform) (*Ensemble, error) {
	ops := []string{"TreeEnsemble"}
	for _, s := range steps(t) {
		ops = append(ops, s.op)
	}
	if err := g.expect(ops); err != nil {
		return nil, err
	}
	if len(g.tensors) == 0 || g.tensors[0].kind != typeFloat {
		return nil, invalid("no bias")
	}
	bias := floats(g.tensors[0].raw)
	if len(bias) < 1 {
		return nil, invalid("no bias")
	}
	if len(bias) > MaxTargets {
		return nil, tooLarge("targets", len(bias), MaxTargets)
	}
	e := &Ensemble{Dim: int(g.dim), Targets: len(bias), Transform: t}
	switch t {
	case Softmax:
		e.Classes = g.nodes[len(g.nodes)-1].attr("values_strings").strings
	case Isolation:
		norm := g.tensors[len(g.tensors)-1]
		if norm.kind != typeDouble || len(norm.raw) != 8 {
			return nil, invalid("no norm")
		}
		e.Norm = math.Float64frombits(binary.LittleEndian.Uint64(norm.raw))
	}
	if err := g.nodes[0].trees(e, bias); err != nil {
		return nil, err
	}
	return e, nil
}

// trees rebuilds the trees from the attributes of TreeEnsemble.
func (n *nodeProto) trees(e *Ensemble, bias []float32) error {
	splits := len(n.attr("nodes_splits").tensor.raw) / 4
	leaves := len(n.attr("leaf_weights").tensor.raw) / 4
	if splits > MaxNodes {
		return tooLarge("splits", splits, MaxNodes)
	}
	if splits < 1 {
		return invalid("no splits")
	}
	if n.attr("nodes_splits").tensor.kind != typeFloat || n.attr("leaf_weights").tensor.kind != typeFloat {
		return invalid("thresholds or leaf weights are not float32")
	}
	a := treeArrays{
		split:      floats(n.attr("nodes_splits").tensor.raw),
		leafWeight: floats(n.attr("leaf_weights").tensor.raw),
		anyMissing: n.attr("nodes_missing_value_tracks_true").ints != nil,
	}
	var roots int
	if packed := n.attr("tree_roots").ints; packed != nil {
		roots = varints(packed)
	}
	switch {
	case roots < 1:
		return invalid("no trees")
	case roots > MaxTrees:
		return tooLarge("trees", roots, MaxTrees)
	case leaves != splits+roots+spareLeaves:
		return invalid("%d leaves for %d trees of %d splits, want %d", leaves, roots, splits, splits+roots+spareLeaves)
	}
	for _, f := range []struct {
		name string
		dst  *[]int32
		want int
		end  int // values are below
	}{
		{"tree_roots", &a.roots, roots, splits},
		{"nodes_featureids", &a.feature, splits, e.Dim},
		{"nodes_truenodeids", &a.trueID, splits, leaves},
		{"nodes_falsenodeids", &a.falseID, splits, leaves},
		{"nodes_trueleafs", &a.trueLeaf, splits, 2},
		{"nodes_falseleafs", &a.falseLeaf, splits, 2},
		{"leaf_targetids", &a.leafTarget, leaves, e.Targets},
		{"nodes_missing_value_tracks_true", &a.missing, splits, 2},
	} {
		if f.name == "nodes_missing_value_tracks_true" && !a.anyMissing {
			break
		}
		var err error
		if *f.dst, err = ints(f.name, n.attr(f.name).ints, f.want, f.end); err != nil {
			return err
		}
	}

	shift := 0
	for _, v := range [2][]float32{a.leafWeight, bias} {
		for _, x := range v {
			q, err := digits(x)
			if err != nil {
				return err
			}
			shift = max(shift, q)
		}
	}
	e.Shift = shift
	e.Bias = make([]int32, len(bias))
	for t, x := range bias {
		k, err := units(x, shift)
		if err != nil {
			return err
		}
		e.Bias[t] = k
	}
	e.Trees = make([]Tree, roots)
	all := make([]Node, 0, 2*splits+roots)
	split, leaf := int32(0), int32(spareLeaves)
	for i := range e.Trees {
		if a.roots[i] != split {
			return invalid("tree %d: root %d, want %d", i, a.roots[i], split)
		}
		start := len(all)
		var err error
		if all, err = a.read(e, all, int32(start), &split, &leaf, 1); err != nil {
			return fmt.Errorf("tree %d: %w", i, err)
		}
		e.Trees[i].Nodes = all[start:len(all):len(all)]
	}
	if int(split) != splits {
		return invalid("%d of %d splits are in a tree", split, splits)
	}
	return nil
}

// read appends the split numbered *split and all below it to nodes. Splits and
// leaves must be numbered in preorder: then every child is new and exists, and
// nothing can form a cycle. Indexes in the tree are relative to start.
func (a *treeArrays) read(e *Ensemble, nodes []Node, start int32, split, leaf *int32, depth int) ([]Node, error) {
	if depth > MaxDepth {
		return nil, tooLarge("levels", depth, MaxDepth)
	}
	id := *split
	if int(id) >= len(a.feature) {
		return nil, invalid("more splits in trees than there are")
	}
	*split++
	at := len(nodes)
	nodes = append(nodes, Node{
		Feature:     a.feature[id],
		Threshold:   a.split[id],
		MissingLeft: a.anyMissing && a.missing[id] == 1,
	})
	for side := range 2 {
		child, isLeaf := a.trueID[id], a.trueLeaf[id]
		if side == 1 {
			child, isLeaf = a.falseID[id], a.falseLeaf[id]
		}
		index := int32(len(nodes)) - start
		if side == 0 {
			nodes[at].Left = index
		} else {
			nodes[at].Right = index
		}
		if isLeaf == 0 {
			if child != *split {
				return nil, invalid("split %d: child %d, want split %d", id, child, *split)
			}
			var err error
			if nodes, err = a.read(e, nodes, start, split, leaf, depth+1); err != nil {
				return nil, err
			}
			continue
		}
		if child != *leaf || int(child) >= len(a.leafWeight) {
			return nil, invalid("split %d: leaf %d, want %d", id, child, *leaf)
		}
		*leaf++
		k, err := units(a.leafWeight[child], e.Shift)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, Node{Leaf: true, Target: a.leafTarget[child], Value: k})
	}
	return nodes, nil
}

// varints counts the values of a packed field.
func varints(b []byte) int {
	n := 0
	for _, c := range b {
		if c < 0x80 {
			n++
		}
	}
	return n
}

// ints reads a packed field of want values, all from 0 to end-1.
func ints(name string, b []byte, want, end int) ([]int32, error) {
	if n := varints(b); n != want {
		return nil, invalid("%s has %d values, want %d", name, n, want)
	}
	v := make([]int32, 0, want)
	for len(b) > 0 {
		x, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, invalid("%s: broken integer", name)
		}
		if x >= uint64(end) {
			return nil, invalid("%s: %d, want less than %d", name, x, end)
		}
		v = append(v, int32(x))
		b = b[n:]
	}
	return v, nil
}

func floats(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}

// digits returns the lowest q of at least 0 for which x is k/2^q.
func digits(x float32) (int, error) {
	if !finite(x) {
		return 0, invalid("leaf value or bias %v", x)
	}
	b := math.Float32bits(x)
	exponent, mantissa := int(b>>23&0xff), b&(1<<23-1)
	if exponent == 0 {
		if mantissa == 0 {
			return 0, nil
		}
		exponent = 1
	} else {
		mantissa |= 1 << 23
	}
	// x = mantissa * 2^(exponent-150)
	q := 150 - exponent - bits.TrailingZeros32(mantissa)
	if q > MaxShift {
		return 0, invalid("leaf value or bias %v is no multiple of 2^-%d", x, MaxShift)
	}
	return max(q, 0), nil
}

// units returns the integer x*2^shift for an x that has no more digits.
func units(x float32, shift int) (int32, error) {
	k := math.Ldexp(float64(x), shift)
	if math.Abs(k) > MaxSum {
		return 0, invalid("leaf value or bias %v is %.0f units of 2^-%d, limit %d", x, k, shift, MaxSum)
	}
	return int32(k), nil
}
