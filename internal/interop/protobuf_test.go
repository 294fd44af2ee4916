package interop

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// Messages of ONNX as protobuf.js shows them: integers of 64 bits as text.
type (
	onnxModel struct {
		IrVersion   string      `json:"irVersion"`
		Graph       onnxGraph   `json:"graph"`
		OpsetImport []onnxOpset `json:"opsetImport"`
	}
	onnxOpset struct {
		Domain  string `json:"domain"`
		Version string `json:"version"`
	}
	onnxGraph struct {
		Node        []onnxNode   `json:"node"`
		Name        string       `json:"name"`
		Initializer []onnxTensor `json:"initializer"`
		Input       []onnxValue  `json:"input"`
		Output      []onnxValue  `json:"output"`
	}
	onnxNode struct {
		Input     []string        `json:"input"`
		Output    []string        `json:"output"`
		OpType    string          `json:"opType"`
		Attribute []onnxAttribute `json:"attribute"`
		Domain    string          `json:"domain"`
	}
	onnxAttribute struct {
		Name    string      `json:"name"`
		I       string      `json:"i"`
		T       *onnxTensor `json:"t"`
		Floats  []float32   `json:"floats"`
		Ints    []string    `json:"ints"`
		Strings [][]byte    `json:"strings"`
		Type    int         `json:"type"`
	}
	onnxTensor struct {
		Dims     []string `json:"dims"`
		DataType int      `json:"dataType"`
		Name     string   `json:"name"`
		RawData  []byte   `json:"rawData"`
	}
	onnxValue struct {
		Name string `json:"name"`
		Type struct {
			TensorType struct {
				ElemType int `json:"elemType"`
				Shape    struct {
					Dim []onnxDim `json:"dim"`
				} `json:"shape"`
			} `json:"tensorType"`
		} `json:"type"`
	}
	onnxDim struct {
		DimValue string `json:"dimValue"`
		DimParam string `json:"dimParam"`
	}
)

// reading is what protobuf.js says of one file.
type reading struct {
	Content json.RawMessage `json:"content"`
	Agree   bool            `json:"agree"`   // both schemas read the same
	Unknown []string        `json:"unknown"` // messages with fields that onnx.proto does not have
	Same    bool            `json:"same"`    // writing the content gives the bytes of the file
}

func readings(t *testing.T, paths ...string) []reading {
	t.Helper()
	out, err := testkit.Node(t, filepath.Join("testdata", "protobuf.js"), nil, paths...)
	if err != nil {
		t.Fatal(err)
	}
	var list []reading
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != len(paths) {
		t.Fatalf("%d files read, want %d", len(list), len(paths))
	}
	return list
}

// check says what keeps a reading from being that of m, field by field.
func (r *reading) check(m *model.Model) error {
	if !r.Agree || !r.Same || len(r.Unknown) > 0 {
		return fmt.Errorf("public schema and onnx.proto agree: %v; written again it is the same: %v; unknown fields in: %v", r.Agree, r.Same, r.Unknown)
	}
	var got onnxModel
	dec := json.NewDecoder(bytes.NewReader(r.Content))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		return err
	}
	want := expected(m)
	if reflect.DeepEqual(got, want) {
		return nil
	}
	for i := range min(len(got.Graph.Node), len(want.Graph.Node)) {
		g, w := got.Graph.Node[i], want.Graph.Node[i]
		for k := range min(len(g.Attribute), len(w.Attribute)) {
			if !reflect.DeepEqual(g.Attribute[k], w.Attribute[k]) {
				return fmt.Errorf("attribute %s of %s reads back as another", w.Attribute[k].Name, w.OpType)
			}
		}
		if !reflect.DeepEqual(g, w) {
			return fmt.Errorf("operator %s reads back as %+v", w.OpType, g)
		}
	}
	got.Graph.Node, want.Graph.Node = nil, nil
	return fmt.Errorf("reads back as %+v, want %+v", got, want)
}

// Numbers of ONNX's enumerations.
const (
	elemFloat, elemUint8, elemString, elemDouble          = 1, 2, 8, 11
	attrInt, attrTensor, attrFloats, attrInts, attrString = 2, 4, 6, 7, 8
)

// expected is the message that FORMAT.md says for m, written apart from the
// encoder.
func expected(m *model.Model) onnxModel {
	out := onnxModel{IrVersion: "8", OpsetImport: []onnxOpset{{"", "17"}, {"ai.onnx.ml", "5"}}}
	g := &out.Graph
	node := func(op, domain, in, to string, attributes ...onnxAttribute) {
		n := onnxNode{OpType: op, Domain: domain, Output: []string{to}, Attribute: attributes}
		for name := range bytes.FieldsSeq([]byte(in)) {
			n.Input = append(n.Input, string(name))
		}
		g.Node = append(g.Node, n)
	}
	cast := func(from, to string, elem int) {
		node("Cast", "", from, to, onnxAttribute{Name: "to", I: strconv.Itoa(elem), Type: attrInt})
	}
	if s := m.Scaler; s != nil {
		g.Name = "feature_scaler"
		node("Scaler", "ai.onnx.ml", "features", "scaled",
			onnxAttribute{Name: "offset", Floats: s.Offset, Type: attrFloats},
			onnxAttribute{Name: "scale", Floats: s.Scale, Type: attrFloats})
		g.Input = append(g.Input, value("features", elemFloat, len(s.Offset)))
		g.Output = append(g.Output, value("scaled", elemFloat, len(s.Offset)))
		return out
	}
	e := m.Ensemble
	bias := make([]float32, e.Targets)
	for i, k := range e.Bias {
		bias[i] = float32(math.Ldexp(float64(k), -e.Shift))
	}
	g.Initializer = append(g.Initializer, tensor("bias", elemFloat, len(bias), littleEndian(bias)))
	double := func(name string, x float64) {
		g.Initializer = append(g.Initializer, tensor(name, elemDouble, 1, binary.LittleEndian.AppendUint64(nil, math.Float64bits(x))))
	}
	input := "features"
	if e.Transform == model.Isolation {
		input = "scaled"
	}
	node("TreeEnsemble", "ai.onnx.ml", input, "sums", treeAttributes(e)...)
	node("Add", "", "sums bias", "raw")
	cast("raw", "raw64", elemDouble)
	g.Input = append(g.Input, value(input, elemFloat, e.Dim))
	g.Output = append(g.Output, value("raw", elemFloat, e.Targets))
	switch e.Transform {
	case model.Isolation:
		g.Name = "anomaly_detector"
		double("half", 0.5)
		double("norm", e.Norm)
		node("Div", "", "raw64 norm", "depth64")
		node("Pow", "", "half depth64", "score64")
		cast("score64", "score", elemFloat)
		g.Output = append(g.Output, value("score", elemFloat, 1))
	case model.Softmax:
		g.Name = "threat_classifier"
		keys, names := onnxAttribute{Name: "keys_int64s", Type: attrInts}, onnxAttribute{Name: "values_strings", Type: attrString}
		for i, class := range e.Classes {
			keys.Ints, names.Strings = append(keys.Ints, strconv.Itoa(i)), append(names.Strings, []byte(class))
		}
		node("Softmax", "", "raw64", "probabilities64")
		cast("probabilities64", "probabilities", elemFloat)
		node("ArgMax", "", "raw", "index", onnxAttribute{Name: "axis", I: "1", Type: attrInt}, onnxAttribute{Name: "keepdims", I: "0", Type: attrInt})
		node("LabelEncoder", "ai.onnx.ml", "index", "label", keys, names)
		g.Output = append(g.Output, value("probabilities", elemFloat, e.Targets), value("label", elemString, 0))
	case model.Sigmoid:
		g.Name = "ip_reputation"
		double("one", 1)
		node("Neg", "", "raw64", "negative64")
		node("Exp", "", "negative64", "odds64")
		node("Add", "", "odds64 one", "sum64")
		node("Div", "", "one sum64", "score64")
		cast("score64", "score", elemFloat)
		g.Output = append(g.Output, value("score", elemFloat, 1))
	}
	return out
}

// treeAttributes numbers splits and leaves in preorder over all trees, leaves
// from 2 on.
func treeAttributes(e *model.Ensemble) []onnxAttribute {
	var feature, missing, left, right, leftLeaf, rightLeaf, roots []string
	var threshold []float32
	weight, target := []float32{0, 0}, []string{"0", "0"}
	number := func(n int) string { return strconv.Itoa(n) }
	flag := map[bool]string{false: "0", true: "1"}
	anyMissing := false
	var visit func(nodes []model.Node, at int32) string
	visit = func(nodes []model.Node, at int32) string {
		n := &nodes[at]
		if n.Leaf {
			weight = append(weight, float32(math.Ldexp(float64(n.Value), -e.Shift)))
			target = append(target, number(int(n.Target)))
			return number(len(weight) - 1)
		}
		id := len(feature)
		feature, threshold = append(feature, number(int(n.Feature))), append(threshold, n.Threshold)
		missing, anyMissing = append(missing, flag[n.MissingLeft]), anyMissing || n.MissingLeft
		leftLeaf, rightLeaf = append(leftLeaf, flag[nodes[n.Left].Leaf]), append(rightLeaf, flag[nodes[n.Right].Leaf])
		left, right = append(left, ""), append(right, "")
		left[id] = visit(nodes, n.Left)
		right[id] = visit(nodes, n.Right)
		return number(id)
	}
	for _, tree := range e.Trees {
		nodes := tree.Nodes
		if nodes[0].Leaf { // a split with this leaf twice
			nodes = []model.Node{{Left: 1, Right: 2}, nodes[0], nodes[0]}
		}
		roots = append(roots, visit(nodes, 0))
	}
	ints := func(name string, v []string) onnxAttribute { return onnxAttribute{Name: name, Ints: v, Type: attrInts} }
	data := func(name string, elem, n int, raw []byte) onnxAttribute {
		t := tensor("", elem, n, raw)
		return onnxAttribute{Name: name, T: &t, Type: attrTensor}
	}
	out := []onnxAttribute{
		ints("leaf_targetids", target),
		data("leaf_weights", elemFloat, len(weight), littleEndian(weight)),
		{Name: "n_targets", I: number(e.Targets), Type: attrInt},
		ints("nodes_falseleafs", rightLeaf),
		ints("nodes_falsenodeids", right),
		ints("nodes_featureids", feature),
	}
	if anyMissing {
		out = append(out, ints("nodes_missing_value_tracks_true", missing))
	}
	return append(out,
		data("nodes_modes", elemUint8, len(feature), make([]byte, len(feature))),
		data("nodes_splits", elemFloat, len(threshold), littleEndian(threshold)),
		ints("nodes_trueleafs", leftLeaf),
		ints("nodes_truenodeids", left),
		ints("tree_roots", roots))
}

func tensor(name string, elem, n int, raw []byte) onnxTensor {
	return onnxTensor{Dims: []string{strconv.Itoa(n)}, DataType: elem, Name: name, RawData: raw}
}

// value is a tensor of any number of rows and the given number of columns, or
// of one dimension for 0.
func value(name string, elem, columns int) onnxValue {
	v := onnxValue{Name: name}
	v.Type.TensorType.ElemType = elem
	v.Type.TensorType.Shape.Dim = []onnxDim{{DimParam: "N"}}
	if columns > 0 {
		v.Type.TensorType.Shape.Dim = append(v.Type.TensorType.Shape.Dim, onnxDim{DimValue: strconv.Itoa(columns)})
	}
	return v
}

// Every field of every model file reads back by ONNX's public schema, and the
// files hold no other.
func TestProtobufReadsEveryFieldBack(t *testing.T) {
	each(t, func(t *testing.T, r *release) {
		var paths []string
		for _, name := range model.Files() {
			paths = append(paths, r.paths[name])
		}
		for i, got := range readings(t, paths...) {
			name := model.Files()[i]
			m, err := model.Decode(name, r.files[name])
			if err != nil {
				t.Fatal(err)
			}
			if err := got.check(m); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if m.Ensemble != nil {
				if err := rootsApart(got.Content); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	})
}

// rootsApart says which root has two children of one number: ONNX Runtime
// before 1.24 takes such a root for a leaf (onnxruntime#24679).
func rootsApart(content []byte) error {
	var m onnxModel
	if err := json.Unmarshal(content, &m); err != nil {
		return err
	}
	list := map[string][]string{}
	for _, a := range m.Graph.Node[0].Attribute {
		list[a.Name] = a.Ints
	}
	for tree, root := range list["tree_roots"] {
		at, err := strconv.Atoi(root)
		if err != nil {
			return err
		}
		if list["nodes_truenodeids"][at] == list["nodes_falsenodeids"][at] {
			return fmt.Errorf("both children of the root of tree %d have number %s", tree, list["nodes_truenodeids"][at])
		}
	}
	if len(list["tree_roots"]) == 0 {
		return fmt.Errorf("no roots")
	}
	return nil
}

func TestProtobufNoticesOtherFields(t *testing.T) {
	r := sample(t)
	for _, name := range model.Files() {
		m, err := model.Decode(name, r.files[name])
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		files := map[string][]byte{"more": protowire.AppendVarint(protowire.AppendTag(bytes.Clone(r.files[name]), 100, protowire.VarintType), 1)}
		other := *m
		if m.Scaler != nil {
			s := *m.Scaler
			s.Offset = append([]float32{s.Offset[0] + 1}, s.Offset[1:]...)
			other.Scaler = &s
		} else {
			e := *m.Ensemble
			nodes := append([]model.Node(nil), e.Trees[0].Nodes...)
			for i := range nodes {
				if nodes[i].Leaf && nodes[i].Value != 0 {
					nodes[i].Value /= 2
					break
				}
			}
			e.Trees = append([]model.Tree{{Nodes: nodes}}, e.Trees[1:]...)
			other.Ensemble = &e
		}
		if files["leaf"], err = other.Encode(); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(files["leaf"], r.files[name]) {
			t.Fatalf("%s: the leaf was not changed", name)
		}
		var paths []string
		for _, what := range []string{"more", "leaf"} {
			path := filepath.Join(dir, what)
			if err := os.WriteFile(path, files[what], 0o600); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, path)
		}
		for i, got := range readings(t, paths...) {
			if err := got.check(m); err == nil {
				t.Errorf("%s with another %s is taken for the same", name, filepath.Base(paths[i]))
			}
		}
	}
	same := `{"graph":{"node":[{"attribute":[{"name":"tree_roots","ints":["0"]},{"name":"nodes_truenodeids","ints":["1"]},{"name":"nodes_falsenodeids","ints":["1"]}]}]}}`
	if rootsApart([]byte(same)) == nil {
		t.Error("a root with children of one number is accepted")
	}
}
