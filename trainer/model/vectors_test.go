package model

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

var update = flag.Bool("update", false, "rewrite testdata/vectors")

const vectorDir = "testdata/vectors"

// testVector is one file of testdata/vectors; FORMAT.md §9 describes them.
type testVector struct {
	number int
	name   string
	expect string // ok, format, toolarge
	reason string // part of the error message
	files  map[string][]byte
}

func (v testVector) filename() string { return fmt.Sprintf("%02d-%s.txtar", v.number, v.name) }

func (v testVector) encode() []byte {
	a := &txtar.Archive{Comment: []byte("expect: " + v.expect + "\n")}
	if v.reason != "" {
		a.Comment = append(a.Comment, "reason: "+v.reason+"\n"...)
	}
	for _, name := range slices.Sorted(maps.Keys(v.files)) {
		data := v.files[name]
		if strings.HasSuffix(name, ".onnx") {
			data = hexText(data)
		} else {
			data = append(slices.Clone(data), '\n')
		}
		a.Files = append(a.Files, txtar.File{Name: name, Data: data})
	}
	return txtar.Format(a)
}

// hexText writes bytes in lines of 32, and a run of at least 64 equal ones as
// "XX*COUNT".
func hexText(b []byte) []byte {
	var out []byte
	line := 0
	for i := 0; i < len(b); {
		run := i
		for run < len(b) && b[run] == b[i] {
			run++
		}
		if run-i >= 64 {
			if line > 0 {
				out = append(out, '\n')
			}
			out = fmt.Appendf(out, "%02x*%d\n", b[i], run-i)
			i, line = run, 0
			continue
		}
		out = hex.AppendEncode(out, b[i:i+1])
		i++
		if line++; line == 32 {
			out = append(out, '\n')
			line = 0
		}
	}
	if line > 0 {
		out = append(out, '\n')
	}
	return out
}

func parseHex(t testing.TB, text []byte) []byte {
	t.Helper()
	var b []byte
	for line := range strings.Lines(string(text)) {
		digits, count, repeated := strings.Cut(strings.TrimSpace(line), "*")
		part, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		n := 1
		if repeated {
			if n, err = strconv.Atoi(count); err != nil {
				t.Fatal(err)
			}
		}
		b = append(b, bytes.Repeat(part, n)...)
	}
	return b
}

// TestVectors reads testdata/vectors as another implementation would.
func TestVectors(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(vectorDir, "*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatal("no vectors", err)
	}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		head := map[string]string{}
		for line := range strings.Lines(string(a.Comment)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			head[key] = value
		}
		files := map[string][]byte{}
		for _, f := range a.Files {
			files[f.Name] = bytes.TrimSuffix(f.Data, []byte("\n"))
			if strings.HasSuffix(f.Name, ".onnx") {
				files[f.Name] = parseHex(t, f.Data)
			}
		}
		got := "ok"
		if err = readVector(files); errors.Is(err, canon.ErrTooLarge) && errors.Is(err, ErrFormat) {
			got = "toolarge"
		} else if errors.Is(err, ErrFormat) {
			got = "format"
		} else if err != nil {
			got = "an error of no class"
		}
		if got != head["expect"] || err != nil && !strings.Contains(err.Error(), head["reason"]) {
			t.Errorf("%s: %s (%v), want %s with %q", filepath.Base(path), got, err, head["expect"], head["reason"])
		}
	}
}

// readVector reads one file alone, or several as a set.
func readVector(files map[string][]byte) error {
	doc, withScoring := files["scoring.json"]
	expected, withScores := files["scores.txt"]
	if len(files) == 1 {
		for name, b := range files {
			if withScoring {
				_, err := DecodeScoring(b)
				return err
			}
			_, err := Decode(name, b)
			return err
		}
	}
	models := maps.Clone(files)
	delete(models, "scoring.json")
	delete(models, "scores.txt")
	set, err := Open(models, doc)
	if err != nil || !withScores {
		return err
	}
	var out Scores
	for line := range strings.Lines(string(expected)) {
		x, want, _ := strings.Cut(strings.TrimSpace(line), " = ")
		var row []float32
		for field := range strings.FieldsSeq(x) {
			b, err := strconv.ParseUint(field, 16, 32)
			if err != nil {
				return err
			}
			row = append(row, math.Float32frombits(uint32(b)))
		}
		if len(row) != set.Dim() {
			return fmt.Errorf("row of %d values", len(row))
		}
		set.Score(row, &out)
		if got := scoreText(&out); got != want {
			return fmt.Errorf("scores %s, want %s", got, want)
		}
	}
	return nil
}

// scoreText writes scores in the form of scores.txt.
func scoreText(out *Scores) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%08x %08x %t %d", math.Float32bits(out.AnomalyRaw), math.Float32bits(out.Anomaly), out.Flag, out.Class)
	for c := range out.ClassRaw {
		fmt.Fprintf(&b, " %08x %08x", math.Float32bits(out.ClassRaw[c]), math.Float32bits(out.Probabilities[c]))
	}
	fmt.Fprintf(&b, " %08x %08x %t", math.Float32bits(out.ReputationRaw), math.Float32bits(out.Reputation), out.Bad)
	return b.String()
}

// TestVectorsAreComplete holds the folder against its generator and against
// the numbered list of FORMAT.md.
func TestVectorsAreComplete(t *testing.T) {
	vectors := makeVectors(t)
	if *update {
		if err := os.RemoveAll(vectorDir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(vectorDir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, v := range vectors {
			if err := os.WriteFile(filepath.Join(vectorDir, v.filename()), v.encode(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	entries, err := os.ReadDir(vectorDir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(vectors) {
		t.Errorf("%d files in %s, the generator makes %d", len(entries), vectorDir, len(vectors))
	}
	numbers := map[int]bool{}
	for _, v := range vectors {
		numbers[v.number] = true
		b, err := os.ReadFile(filepath.Join(vectorDir, v.filename()))
		if err != nil || !bytes.Equal(b, v.encode()) {
			t.Errorf("%s differs from what the generator makes, %v (run with -update)", v.filename(), err)
		}
	}
	spec, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	for _, m := range regexp.MustCompile(`(?m)^(\d+)\. `).FindAllSubmatch(spec, -1) {
		n, _ := strconv.Atoi(string(m[1]))
		listed++
		if n != listed {
			t.Errorf("FORMAT.md: rejection %d comes at place %d", n, listed)
		}
		if !numbers[n] {
			t.Errorf("FORMAT.md lists rejection %d, which has no vector", n)
		}
		delete(numbers, n)
	}
	delete(numbers, 0)
	for n := range numbers {
		t.Errorf("vector %d is not listed in FORMAT.md", n)
	}
}

// at is a field of a message: its number and which occurrence.
type at struct{ num, index int }

// edit changes the content of a length-delimited field that lies deep in b.
func edit(b []byte, change func([]byte) []byte, path ...at) []byte {
	if len(path) == 0 {
		return change(slices.Clone(b))
	}
	var out []byte
	seen := 0
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeField(b)
		if n < 0 {
			panic("edit: broken message")
		}
		field := b[:n]
		b = b[n:]
		if int(num) == path[0].num {
			if seen == path[0].index && typ == protowire.BytesType {
				_, _, tag := protowire.ConsumeTag(field)
				content, _ := protowire.ConsumeBytes(field[tag:])
				out = appendBytes(out, num, edit(content, change, path[1:]...))
				seen++
				continue
			}
			seen++
		}
		out = append(out, field...)
	}
	if seen <= path[0].index {
		panic(fmt.Sprintf("edit: no field %v", path[0]))
	}
	return out
}

func graphOf(change func([]byte) []byte) func([]byte) []byte {
	return func(b []byte) []byte { return edit(b, change, at{7, 0}) }
}

func nodeOf(i int, change func([]byte) []byte) func([]byte) []byte {
	return func(b []byte) []byte { return edit(b, change, at{7, 0}, at{1, i}) }
}

// attrOf changes the named attribute of operator i.
func attrOf(i int, name string, change func([]byte) []byte) func([]byte) []byte {
	return nodeOf(i, func(node []byte) []byte {
		var n nodeProto
		if err := n.read(node); err != nil {
			panic(err)
		}
		for k := range n.attrs {
			if n.attrs[k].name == name {
				return edit(node, change, at{5, k})
			}
		}
		panic("no attribute " + name)
	})
}

// intsOf changes the integers of an attribute of the trees.
func intsOf(name string, change func([]int32) []int32) func([]byte) []byte {
	return attrOf(0, name, func(b []byte) []byte {
		return edit(b, func(packed []byte) []byte {
			v, err := ints(name, packed, varints(packed), math.MaxInt32)
			if err != nil {
				panic(err)
			}
			packed = nil
			for _, x := range change(v) {
				packed = protowire.AppendVarint(packed, uint64(x))
			}
			return packed
		}, at{8, 0})
	})
}

func setInt(name string, i int, x int32) func([]byte) []byte {
	return intsOf(name, func(v []int32) []int32 { v[i] = x; return v })
}

// rawOf changes the data of a tensor attribute of the trees.
func rawOf(name string, change func([]byte) []byte) func([]byte) []byte {
	return attrOf(0, name, func(b []byte) []byte { return edit(b, change, at{5, 0}, at{9, 0}) })
}

func setFloat(name string, i int, x float32) func([]byte) []byte {
	return rawOf(name, func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
		return b
	})
}

func appending(more []byte) func([]byte) []byte {
	return func(b []byte) []byte { return append(b, more...) }
}

func replace(from, to string) func([]byte) []byte {
	return func(b []byte) []byte {
		if bytes.Count(b, []byte(from)) == 0 || len(from) != len(to) {
			panic("replace " + from)
		}
		return bytes.Replace(b, []byte(from), []byte(to), 1)
	}
}

// vectorParts are small files with everything the format can express.
func vectorParts(t *testing.T) parts {
	leaf := func(target, k int32) Node { return Node{Leaf: true, Target: target, Value: k} }
	p := parts{files: map[string][]byte{
		ScalerFile: encodeScaler(t, &Scaler{Offset: []float32{0.5, -2, 100}, Scale: []float32{2, 0, 0.001}}),
		AnomalyFile: encode(t, &Ensemble{Dim: 3, Targets: 1, Shift: 8, Transform: Isolation, Norm: 2 * 2.75, Trees: []Tree{
			{Nodes: []Node{{Feature: 0, Threshold: 1, Left: 1, Right: 2}, leaf(0, 256), {Feature: 2, Threshold: -0.1, Left: 3, Right: 4}, leaf(0, 700), leaf(0, 512)}},
			{Nodes: []Node{{Feature: 2, Threshold: float32(math.Inf(1)), Left: 1, Right: 2, MissingLeft: true}, leaf(0, 999), leaf(0, 1)}},
		}}),
		ClassifierFile: encode(t, &Ensemble{Dim: 3, Targets: 3, Shift: 10, Transform: Softmax, Classes: []string{"benign", "sql_injection", "xss"}, Bias: []int32{0, -1024, 7}, Trees: []Tree{
			{Nodes: []Node{{Feature: 1, Threshold: 0, Left: 1, Right: 2}, leaf(0, 3000), {Feature: 0, Threshold: 4, Left: 3, Right: 4}, leaf(0, 1), leaf(0, -2001)}},
			{Nodes: []Node{{Feature: 2, Threshold: 7.5, Left: 1, Right: 2}, leaf(1, -500), {Feature: 0, Threshold: 3, Left: 3, Right: 4}, leaf(1, 900), leaf(2, 1200)}},
			{Nodes: []Node{leaf(2, 33)}},
		}}),
		ReputationFile: encode(t, &Ensemble{Dim: 3, Targets: 1, Shift: 16, Transform: Sigmoid, Bias: []int32{-12345}, Trees: []Tree{
			{Nodes: []Node{{Feature: 1, Threshold: 2, Left: 1, Right: 4}, {Feature: 2, Threshold: 0, Left: 2, Right: 3, MissingLeft: true}, leaf(0, 65536), leaf(0, -70000), leaf(0, 200001)}},
		}}),
	}}
	sizes, err := Sizes(p.files)
	if err != nil {
		t.Fatal(err)
	}
	p.scoring = Scoring{
		Anomaly:    AnomalyRule{Contamination: 10_000, Shift: 8, Threshold: 1255},
		Classes:    []string{"benign", "sql_injection", "xss"},
		Dim:        3,
		Files:      sizes,
		Reputation: ReputationRule{Threshold: 500_000},
	}
	return p
}

func makeVectors(t *testing.T) []testVector {
	base := vectorParts(t)
	doc, err := base.scoring.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var vectors []testVector
	add := func(number int, name, expect, reason string, files map[string][]byte) {
		vectors = append(vectors, testVector{number, name, expect, reason, files})
	}
	bad := func(number int, name, reason, file string, change func([]byte) []byte) {
		add(number, name, "format", reason, map[string][]byte{file: change(slices.Clone(base.files[file]))})
	}
	large := func(number int, name, reason, file string, change func([]byte) []byte) {
		bad(number, name, reason, file, change)
		vectors[len(vectors)-1].expect = "toolarge"
	}
	const notCanonical = "not in canonical form"

	whole := maps.Clone(base.files)
	whole["scoring.json"] = doc
	set, err := base.open()
	if err != nil {
		t.Fatal(err)
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	var scores []string
	var out Scores
	for _, x := range [][]float32{
		{0, 0, 0}, {1, 2, 3}, {3, 2, 7.5}, {4, 1, 8}, {5, 2.5, -0.1}, {nan, nan, nan}, {inf, -inf, inf},
		{-inf, inf, -inf}, {0, nan, -7}, {100, -3, 1e30}, {math.Float32frombits(1 << 31), math.Float32frombits(1), -math.Float32frombits(1)},
	} {
		set.Score(x, &out)
		scores = append(scores, fmt.Sprintf("%08x %08x %08x = %s", math.Float32bits(x[0]), math.Float32bits(x[1]), math.Float32bits(x[2]), scoreText(&out)))
	}
	whole["scores.txt"] = []byte(strings.Join(scores, "\n"))
	add(0, "set", "ok", "", whole)
	for _, name := range Files() {
		add(0, strings.TrimSuffix(name, ".onnx"), "ok", "", map[string][]byte{name: base.files[name]})
	}
	add(0, "scoring", "ok", "", map[string][]byte{"scoring.json": doc})

	// Any message.
	large(1, "file-too-large", "bytes, limit", ScalerFile, func([]byte) []byte { return make([]byte, MaxFile+1) })
	bad(2, "cut-short", "cut short", ReputationFile, func(b []byte) []byte { return b[:len(b)-3] })
	bad(2, "empty", "no graph", ReputationFile, func([]byte) []byte { return nil })
	bad(2, "not-protobuf", "ModelProto", ReputationFile, func([]byte) []byte { return []byte("\x80\x04\x95pickle") })
	bad(3, "producer-name", "ModelProto: field 2 is not part", ReputationFile, appending(appendText(nil, 2, "x")))
	bad(3, "node-name", "NodeProto: field 3 is not part", ReputationFile, nodeOf(0, appending(appendText(nil, 3, "x"))))
	bad(3, "metadata", "ModelProto: field 14 is not part", ReputationFile, appending(appendBytes(nil, 14, appendText(nil, 1, "x"))))
	bad(3, "attribute-reference", "AttributeProto: field 21 is not part", ReputationFile, attrOf(0, "n_targets", appending(appendText(nil, 21, "x"))))
	bad(3, "fixed32-field", "wire type", ReputationFile, appending([]byte{0x0d, 0, 0, 0, 0}))
	bad(3, "group", "wire type", ReputationFile, appending([]byte{0x1b, 0x1c}))
	bad(4, "ir-version", "ir_version 9", ReputationFile, func(b []byte) []byte { b[1] = 9; return b })
	bad(5, "opset-version", "operator set \"\" version 18", ReputationFile, func(b []byte) []byte {
		return edit(b, func([]byte) []byte { return appendInt(appendText(nil, 1, ""), 2, 18) }, at{8, 0})
	})
	bad(5, "opset-domain", "operator set \"com.example\"", ReputationFile, func(b []byte) []byte {
		return edit(b, func([]byte) []byte { return appendInt(appendText(nil, 1, "com.example"), 2, 1) }, at{8, 1})
	})
	bad(5, "third-opset", "more than two operator sets", ReputationFile, appending(appendBytes(nil, 8, appendInt(appendText(nil, 1, mlDomain), 2, mlOpset))))
	bad(6, "external-data", "external data", ReputationFile, graphOf(func(b []byte) []byte {
		return edit(b, func([]byte) []byte {
			location := appendText(appendText(nil, 1, "location"), 2, "../../etc/passwd")
			x := appendInt(appendInt(nil, 1, 1), 2, typeFloat)
			x = appendText(x, 8, "bias")
			return appendInt(appendBytes(x, 13, location), 14, 1)
		}, at{5, 0})
	}))
	bad(7, "function", "functions", ReputationFile, appending(appendBytes(nil, 25, appendText(nil, 1, "Exp"))))
	bad(7, "training", "training", ReputationFile, appending(appendBytes(nil, 20, nil)))
	bad(8, "operator-domain", "of domain \"com.example\"", ReputationFile, nodeOf(3, appending(appendText(nil, 7, "com.example"))))
	bad(9, "other-operator", "is \"Cos\"", ReputationFile, nodeOf(4, replace("Exp", "Cos")))
	bad(9, "operator-missing", "operators", ReputationFile, graphOf(dropLast(1)))
	bad(9, "operator-more", "operator", ReputationFile, graphOf(appending(appendBytes(nil, 1, appendText(nil, 4, "Identity")))))
	bad(10, "graph-attribute", "graph in an attribute", ReputationFile, attrOf(0, "n_targets", appending(appendBytes(nil, 6, nil))))
	bad(11, "input-type", "input of element type 11", ReputationFile, func(b []byte) []byte {
		return edit(b, func(b []byte) []byte { b[1] = typeDouble; return b }, at{7, 0}, at{11, 0}, at{2, 0}, at{1, 0})
	})
	bad(11, "float16-tensor", "element type 10", ReputationFile, attrOf(0, "nodes_splits", func(b []byte) []byte {
		return edit(b, func(b []byte) []byte { b[3] = 10; return b }, at{5, 0})
	}))
	bad(11, "double-thresholds", "not float32", ReputationFile, attrOf(0, "nodes_splits", func(b []byte) []byte {
		return edit(b, func([]byte) []byte { return tensor(typeDouble, "", 2, make([]byte, 16)) }, at{5, 0})
	}))
	bad(12, "elements-missing", "states 2 elements", ReputationFile, rawOf("nodes_splits", func(b []byte) []byte { return b[:4] }))
	bad(12, "elements-overflow", "elements of", ReputationFile, attrOf(0, "nodes_splits", func(b []byte) []byte {
		return edit(b, func(b []byte) []byte {
			x := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1<<62+2)
			return append(x, b[2:]...)
		}, at{5, 0})
	}))
	bad(12, "second-dimension", "more than one dimension", ReputationFile, attrOf(0, "nodes_splits", func(b []byte) []byte {
		return edit(b, func(b []byte) []byte { return append(appendInt(nil, 1, 1), b...) }, at{5, 0})
	}))
	bad(12, "input-rank", "more than two dimensions", ReputationFile, func(b []byte) []byte {
		return edit(b, appending(appendBytes(nil, 1, appendInt(nil, 1, 1))), at{7, 0}, at{11, 0}, at{2, 0}, at{1, 0}, at{2, 0})
	})
	bad(13, "unpacked", "not packed", ReputationFile, attrOf(0, "tree_roots", func([]byte) []byte {
		return appendInt(appendInt(appendText(nil, 1, "tree_roots"), 8, 0), 20, attrInts)
	}))

	// Limits.
	features := func(n int) func([]byte) []byte {
		return func(b []byte) []byte {
			return edit(b, func([]byte) []byte { return appendInt(nil, 1, n) }, at{7, 0}, at{11, 0}, at{2, 0}, at{1, 0}, at{2, 0}, at{1, 1})
		}
	}
	large(14, "features", "features, limit", ReputationFile, features(MaxDim+1))
	large(14, "features-huge", "features, limit", ReputationFile, features(math.MaxInt32))
	bad(14, "no-features", "without a number of features", ReputationFile, features(0))
	large(15, "targets", "targets, limit", ReputationFile, func(b []byte) []byte {
		return edit(b, func([]byte) []byte { return tensor(typeFloat, "bias", MaxTargets+1, make([]byte, 4*(MaxTargets+1))) }, at{7, 0}, at{5, 0})
	})
	large(16, "trees", "trees, limit", ReputationFile, intsOf("tree_roots", func([]int32) []int32 { return make([]int32, MaxTrees+1) }))
	bad(16, "no-trees", "no trees", ReputationFile, intsOf("tree_roots", func([]int32) []int32 { return nil }))
	large(17, "splits", "splits, limit", ReputationFile, attrOf(0, "nodes_splits", func(b []byte) []byte {
		return edit(b, func([]byte) []byte { return tensor(typeFloat, "", MaxNodes+1, make([]byte, 4*(MaxNodes+1))) }, at{5, 0})
	}))
	{
		n := MaxDepth + 1
		e := &Ensemble{Dim: 3, Targets: 1, Transform: Sigmoid}
		tree := Tree{Nodes: []Node{{Leaf: true}}}
		for range n {
			k := int32(len(tree.Nodes))
			tree.Nodes[k-1] = Node{Left: k, Right: k + 1}
			tree.Nodes = append(tree.Nodes, Node{Leaf: true}, Node{Leaf: true})
		}
		e.Trees = []Tree{tree}
		deep := nodeOf(0, func([]byte) []byte {
			b := appendText(nil, 1, "features")
			b = appendText(b, 2, "sums")
			b = appendText(b, 4, "TreeEnsemble")
			return appendText(appendTrees(b, e), 7, mlDomain)
		})
		large(18, "depth", "levels, limit", ReputationFile, deep)
	}

	// Numbering.
	bad(19, "root-of-first-tree", "root 1, want 0", ReputationFile, setInt("tree_roots", 0, 1))
	bad(19, "root-of-second-tree", "root 1, want 2", ClassifierFile, setInt("tree_roots", 1, 1))
	bad(20, "cycle-to-self", "child 0, want split 1", ReputationFile, setInt("nodes_truenodeids", 0, 0))
	bad(20, "cycle-to-root", "child 0, want split 1", AnomalyFile, setInt("nodes_falsenodeids", 0, 0))
	bad(20, "shared-split", "child 1, want split 3", ClassifierFile, setInt("nodes_falsenodeids", 2, 1))
	bad(21, "shared-leaf", "leaf 2, want 3", ReputationFile, setInt("nodes_falsenodeids", 1, 2))
	bad(21, "spare-leaf", "leaf 0, want 2", ReputationFile, setInt("nodes_truenodeids", 1, 0))
	bad(21, "leaf-outside", "nodes_truenodeids: 5, want less than 5", ReputationFile, setInt("nodes_truenodeids", 1, 5))
	bad(21, "leaf-flag-missing", "child 2, want split 2", ReputationFile, func(b []byte) []byte {
		return setInt("nodes_trueleafs", 1, 0)(b)
	})
	vectors[len(vectors)-1].reason = "" // which rule sees it first is not part of the format
	bad(22, "split-in-no-tree", "splits are in a tree", AnomalyFile, func(b []byte) []byte {
		b = setInt("nodes_falseleafs", 0, 1)(b)
		b = setInt("nodes_falsenodeids", 0, 3)(b)
		return setInt("tree_roots", 1, 1)(b)
	})
	vectors[len(vectors)-1].reason = ""
	bad(22, "leaves-missing", "leaves for", ReputationFile, rawAndDim("leaf_weights", 4))

	// Values.
	bad(23, "feature", "nodes_featureids: 3, want less than 3", ReputationFile, setInt("nodes_featureids", 0, 3))
	bad(24, "target", "leaf_targetids: 3, want less than 3", ClassifierFile, setInt("leaf_targetids", 3, 3))
	bad(25, "flag", "nodes_trueleafs: 2, want less than 2", ReputationFile, setInt("nodes_trueleafs", 0, 2))
	bad(25, "integers-missing", "has 1 values, want 2", ReputationFile, intsOf("nodes_featureids", func(v []int32) []int32 { return v[:1] }))
	bad(26, "threshold-nan", "threshold is not a number", ReputationFile, setFloat("nodes_splits", 0, nan))
	bad(27, "leaf-nan", "leaf value or bias NaN", ReputationFile, setFloat("leaf_weights", 2, nan))
	bad(27, "leaf-infinite", "leaf value or bias +Inf", ReputationFile, setFloat("leaf_weights", 2, inf))
	bad(27, "bias-nan", "leaf value or bias NaN", ReputationFile, func(b []byte) []byte {
		return edit(b, func([]byte) []byte { return floatBytes([]float32{nan}) }, at{7, 0}, at{5, 0}, at{9, 0})
	})
	bad(28, "leaf-digits", "no multiple of 2^-40", ReputationFile, setFloat("leaf_weights", 2, float32(math.Ldexp(1, -41))))
	bad(28, "leaf-subnormal", "no multiple of 2^-40", ReputationFile, setFloat("leaf_weights", 2, math.Float32frombits(1)))
	bad(29, "sum-bound", "magnitudes sum to", ClassifierFile, func(b []byte) []byte {
		for _, i := range []int{2, 5} { // one leaf of the first tree, one of the second
			b = setFloat("leaf_weights", i, 1<<13+1.0/(1<<10))(b)
			b = setInt("leaf_targetids", i, 0)(b)
		}
		return b
	})
	bad(29, "leaf-huge", "units of", ReputationFile, setFloat("leaf_weights", 2, math.MaxFloat32))
	bad(30, "negative-path", "negative path length", AnomalyFile, setFloat("leaf_weights", 3, -1))

	// One encoding.
	bad(31, "post-transform", notCanonical, ClassifierFile, nodeOf(0, func(b []byte) []byte { return appendIntAttr(b, "post_transform", 2) }))
	bad(31, "unknown-attribute", notCanonical, ReputationFile, nodeOf(5, func(b []byte) []byte { return appendIntAttr(b, "x", 1) }))
	bad(31, "argmax-last-index", notCanonical, ClassifierFile, nodeOf(5, func(b []byte) []byte { return appendIntAttr(b, "select_last_index", 1) }))
	bad(31, "cast-to-float16", notCanonical, ReputationFile, attrOf(2, "to", func(b []byte) []byte { b[len(b)-4] = 10; return b }))
	bad(32, "field-order", notCanonical, ReputationFile, func(b []byte) []byte {
		_, _, n := protowire.ConsumeField(b)
		return append(slices.Clone(b[n:]), b[:n]...)
	})
	bad(32, "two-graphs", "two graphs", ReputationFile, func(b []byte) []byte {
		_, _, n := protowire.ConsumeField(b)
		_, _, m := protowire.ConsumeField(b[n:])
		return append(b, b[n:n+m]...)
	})
	bad(32, "graph-name", notCanonical, ReputationFile, graphOf(func(b []byte) []byte {
		return edit(b, func([]byte) []byte { return []byte("other") }, at{2, 0})
	}))
	bad(32, "wiring", notCanonical, ReputationFile, nodeOf(1, replace("bias", "sums")))
	bad(32, "output-name", notCanonical, ReputationFile, func(b []byte) []byte {
		return edit(b, replace("raw", "sum"), at{7, 0}, at{12, 0})
	})
	bad(33, "long-varint", notCanonical, ReputationFile, func(b []byte) []byte {
		return append([]byte{b[0], b[1] | 0x80, 0}, b[2:]...)
	})
	bad(34, "threshold-minus-zero", notCanonical, ReputationFile, setFloat("nodes_splits", 1, math.Float32frombits(1<<31)))
	bad(34, "leaf-minus-zero", notCanonical, ReputationFile, setFloat("leaf_weights", 2, math.Float32frombits(1<<31)))
	bad(35, "missing-all-right", notCanonical, ReputationFile, setInt("nodes_missing_value_tracks_true", 1, 0))
	bad(36, "mode-less", notCanonical, ReputationFile, rawOf("nodes_modes", func(b []byte) []byte { b[0] = 1; return b }))
	bad(37, "spare-leaf-value", notCanonical, ReputationFile, setFloat("leaf_weights", 1, 1))
	bad(38, "class-twice", "twice", ClassifierFile, attrOf(6, "values_strings", func(b []byte) []byte {
		return edit(b, func([]byte) []byte { return []byte("benign") }, at{9, 2})
	}))
	bad(38, "class-name", "printable", ClassifierFile, attrOf(6, "values_strings", func(b []byte) []byte {
		return edit(b, func([]byte) []byte { return []byte("<b>\n") }, at{9, 2})
	}))
	bad(38, "class-missing", "class names", ClassifierFile, attrOf(6, "values_strings", dropLast(9)))
	large(38, "class-long", "class name", ClassifierFile, attrOf(6, "values_strings", func(b []byte) []byte {
		return edit(b, func([]byte) []byte { return bytes.Repeat([]byte("x"), MaxClass+1) }, at{9, 2})
	}))
	norm := func(x float64) func([]byte) []byte {
		return func(b []byte) []byte {
			return edit(b, func([]byte) []byte { return doubleBytes(x) }, at{7, 0}, at{5, 2}, at{9, 0})
		}
	}
	bad(39, "norm-zero", "norm 0", AnomalyFile, norm(0))
	bad(39, "norm-negative", "norm -1", AnomalyFile, norm(-1))
	bad(39, "norm-nan", "norm NaN", AnomalyFile, norm(math.NaN()))
	bad(39, "norm-infinite", "norm +Inf", AnomalyFile, norm(math.Inf(1)))
	scaler := func(name string, i int, x float32) func([]byte) []byte {
		return attrOf(0, name, func(b []byte) []byte {
			return edit(b, func(b []byte) []byte {
				binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
				return b
			}, at{7, 0})
		})
	}
	bad(40, "offset-nan", "scaler column 0", ScalerFile, scaler("offset", 0, nan))
	bad(40, "scale-infinite", "scaler column 2", ScalerFile, scaler("scale", 2, inf))
	bad(40, "scale-negative", "scaler column 1", ScalerFile, scaler("scale", 1, -1))
	bad(40, "offsets-missing", "bytes of offsets", ScalerFile, attrOf(0, "offset", func(b []byte) []byte {
		return edit(b, func(b []byte) []byte { return b[:8] }, at{7, 0})
	}))
	add(41, "another-name", "format", "no model file has this name", map[string][]byte{"model.onnx": base.files[ReputationFile]})
	add(41, "swapped", "format", "operator", map[string][]byte{AnomalyFile: base.files[ReputationFile]})

	// The scoring document.
	text := func(number int, name, reason string, change func(string) string) {
		changed := change(string(doc))
		if changed == string(doc) {
			t.Fatalf("vector %d-%s changes nothing", number, name)
		}
		add(number, name, "format", reason, map[string][]byte{"scoring.json": []byte(changed)})
	}
	swap := func(from, to string) func(string) string {
		return func(s string) string { return strings.Replace(s, from, to, 1) }
	}
	text(42, "scoring-space", "not in canonical form", swap(`"dim":3`, `"dim": 3`))
	text(42, "scoring-fraction", "want an integer", swap(`"threshold":1255`, `"threshold":1255.5`))
	text(42, "scoring-not-json", "malformed", func(s string) string { return s[:len(s)-1] })
	text(43, "scoring-unknown-member", "unknown member", swap(`"dim":3`, `"dim":3,"extra":1`))
	text(44, "scoring-missing-member", "members are missing", swap(`"contamination_ppm":10000,`, ``))
	text(45, "scoring-contamination", "contamination_ppm", swap(`"contamination_ppm":10000`, `"contamination_ppm":500001`))
	text(45, "scoring-shift", "anomaly shift", swap(`"shift":8`, `"shift":41`))
	text(45, "scoring-threshold", "anomaly threshold", swap(`"threshold":1255`, `"threshold":-2`))
	text(45, "scoring-reputation", "reputation threshold_ppm", swap(`"threshold_ppm":500000`, `"threshold_ppm":1000001`))
	text(46, "scoring-one-class", "number of classes", swap(`"benign","sql_injection","xss"`, `"benign"`))
	text(46, "scoring-class-twice", "twice", swap(`"benign","sql_injection"`, `"xss","sql_injection"`))
	text(47, "scoring-file-name", "file 0 is", swap(`"feature_scaler.onnx"`, `"../../feature_scaler.onnx"`))
	text(47, "scoring-sizes", "sizes of", swap(`"splits":0`, `"splits":-1`))

	// The set.
	several := func(number int, name, reason string, change func(files map[string][]byte, s *Scoring)) {
		files := maps.Clone(base.files)
		s := base.scoring
		s.Classes, s.Files = slices.Clone(s.Classes), slices.Clone(s.Files)
		change(files, &s)
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		files["scoring.json"] = b
		add(number, name, "format", reason, files)
	}
	several(48, "file-missing", "3 model files, want 4", func(files map[string][]byte, _ *Scoring) { delete(files, ReputationFile) })
	several(48, "file-more", "5 model files, want 4", func(files map[string][]byte, _ *Scoring) { files["extra.onnx"] = []byte{0} })
	several(48, "file-replaced", "no ip_reputation.onnx", func(files map[string][]byte, _ *Scoring) {
		delete(files, ReputationFile)
		files["extra.onnx"] = []byte{0}
	})
	several(49, "set-dim", "3 features, scoring says 4", func(_ map[string][]byte, s *Scoring) { s.Dim = 4 })
	several(49, "set-scaler-dim", "2 features, scoring says 3", func(files map[string][]byte, s *Scoring) {
		files[ScalerFile] = encodeScaler(t, &Scaler{Offset: make([]float32, 2), Scale: make([]float32, 2)})
		s.Files[0].Bytes = len(files[ScalerFile])
	})
	several(50, "set-classes", "classes", func(_ map[string][]byte, s *Scoring) { s.Classes[1], s.Classes[2] = s.Classes[2], s.Classes[1] })
	several(51, "set-bytes", "scoring says", func(_ map[string][]byte, s *Scoring) { s.Files[1].Bytes++ })
	several(51, "set-trees", "scoring says", func(_ map[string][]byte, s *Scoring) { s.Files[3].Trees++ })
	several(52, "set-shift-low", "need shift 8, scoring says 7", func(_ map[string][]byte, s *Scoring) { s.Anomaly.Shift = 7 })
	several(52, "set-shift-high", "too large for shift 40", func(_ map[string][]byte, s *Scoring) { s.Anomaly.Shift = 40 })
	return vectors
}

// dropLast removes the last field of the given number.
func dropLast(num protowire.Number) func([]byte) []byte {
	return func(b []byte) []byte {
		last, length := -1, 0
		for i := 0; i < len(b); {
			n, _, size := protowire.ConsumeField(b[i:])
			if n == num {
				last, length = i, size
			}
			i += size
		}
		return append(slices.Clone(b[:last]), b[last+length:]...)
	}
}

// rawAndDim cuts the last size bytes, one element, off a tensor of the trees.
func rawAndDim(name string, size int) func([]byte) []byte {
	return attrOf(0, name, func(b []byte) []byte {
		return edit(b, func(b []byte) []byte {
			b[1]-- // the dimension
			return edit(b, func(raw []byte) []byte { return raw[:len(raw)-size] }, at{9, 0})
		}, at{5, 0})
	})
}
