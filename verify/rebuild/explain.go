package rebuild

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// Bounds of an explanation.
const (
	maxPlaces = 12 // places named in each section or file
	maxLines  = 24 // nodes of a tree that are shown
	lead      = 3  // of them before the first that differs
)

// explain names the places where the published release differs from the
// rebuilt one, from their bytes alone, and what is likely to be the reason.
func (r *Report) explain(release, rebuilt *oras.Artifact, provenance *verify.Provenance) {
	x := explainer{report: r, differ: map[string]bool{}}
	if provenance != nil {
		x.section("provenance", "/recipe", provenance.BuildDefinition.ExternalParameters.Recipe, release.Release.Recipe)
	}
	for _, s := range []struct {
		name      string
		want, got jsontext.Value
	}{
		{"/recipe", release.Release.Recipe, rebuilt.Release.Recipe},
		{"/features", release.Release.Features, rebuilt.Release.Features},
		{"/metrics/data", member(release.Release.Metrics, "data"), member(rebuilt.Release.Metrics, "data")},
		{"/scoring", release.Release.Scoring, rebuilt.Release.Scoring},
	} {
		x.section(oras.ReleaseFile, s.name, s.want, s.got)
	}
	published := map[string][]byte{}
	for i, f := range release.Models {
		published[f.Name] = f.Data
		if !bytes.Equal(f.Data, rebuilt.Models[i].Data) {
			x.differ[f.Name] = true
			x.model(f.Name, f.Data, rebuilt.Models[i].Data)
		}
	}
	for _, name := range []string{"classifier", "anomaly", "reputation"} {
		x.section(oras.ReleaseFile, "/metrics/"+name, member(release.Release.Metrics, name), member(rebuilt.Release.Metrics, name))
	}
	_, x.broken = model.Open(published, release.Release.Scoring)
	x.causes(r.Files)
}

// member returns a member of an object, null if it is not there.
func member(object jsontext.Value, name string) jsontext.Value {
	var m map[string]jsontext.Value
	if json.Unmarshal(object, &m) != nil || m[name] == nil {
		return jsontext.Value("null")
	}
	return m[name]
}

// explainer gathers what speaks for one cause or another.
type explainer struct {
	report *Report
	differ map[string]bool // files, and places of JSON, that differ; with all that they are part of
	broken error           // why the published files do not go together
	models []modelFacts
}

// modelFacts is how a model differs.
type modelFacts struct {
	file     string
	decoded  bool // the published file is a model
	fields   bool // something beside trees differs
	trees    int  // trees that differ or that one side lacks
	nodes    int  // nodes that differ in the first of them
	first    int  // number of the first among the published ones
	sameCut  bool // it has the same splits, other leaf values only
	allCuts  bool // so have all trees that both have
	pubTrees int
	ourTrees int
}

func (x *explainer) add(d Difference, n *int) {
	if *n++; *n > maxPlaces {
		x.report.More++
		return
	}
	x.report.Differences = append(x.report.Differences, d)
}

// section compares two JSON values, member by member.
func (x *explainer) section(file, name string, want, got jsontext.Value) {
	if bytes.Equal(want, got) {
		return
	}
	var a, b any
	if json.Unmarshal(want, &a) != nil || json.Unmarshal(got, &b) != nil {
		return // both were decoded before
	}
	n := 0
	compareJSON(name, a, b, func(place string, a, b any) {
		for at := place; at != ""; at = at[:strings.LastIndexByte(at, '/')] {
			x.differ[file+at] = true
		}
		x.add(Difference{file, place, show(a), show(b)}, &n)
	})
}

// compareJSON calls each for every leaf that differs, in the order of names;
// missing stands for what one side does not have.
func compareJSON(at string, a, b any, each func(place string, a, b any)) {
	switch a := a.(type) {
	case map[string]any:
		if b, ok := b.(map[string]any); ok {
			names := maps.Clone(a)
			maps.Copy(names, b)
			for _, name := range slices.Sorted(maps.Keys(names)) {
				x, y := any(missing), any(missing)
				if v, ok := a[name]; ok {
					x = v
				}
				if v, ok := b[name]; ok {
					y = v
				}
				compareJSON(at+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(name), x, y, each)
			}
			return
		}
	case []any:
		if b, ok := b.([]any); ok {
			for i := range max(len(a), len(b)) {
				x, y := any(missing), any(missing)
				if i < len(a) {
					x = a[i]
				}
				if i < len(b) {
					y = b[i]
				}
				compareJSON(at+"/"+strconv.Itoa(i), x, y, each)
			}
			return
		}
	}
	if show(a) != show(b) {
		each(at, a, b)
	}
}

type absent struct{}

var missing absent

// show is a JSON value as text, cut.
func show(v any) string {
	if v == any(missing) {
		return "nothing"
	}
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return "?"
	}
	return clip(string(b))
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// model compares two model files, decoded.
func (x *explainer) model(name string, want, got []byte) {
	f := modelFacts{file: name}
	defer func() { x.models = append(x.models, f) }()
	n := 0
	say := func(place string, a, b any) {
		if s, t := fmt.Sprint(a), fmt.Sprint(b); s != t {
			f.fields = true
			x.add(Difference{name, place, clip(s), clip(t)}, &n)
		}
	}
	ours, err := model.Decode(name, got)
	if err != nil {
		return // what this program has just made
	}
	theirs, err := model.Decode(name, want)
	if err != nil {
		first := 0
		for first < min(len(want), len(got)) && want[first] == got[first] {
			first++
		}
		say("whole file", err, "a valid model")
		say(fmt.Sprintf("byte %d", first), byteAt(want, first), byteAt(got, first))
		say("length in bytes", len(want), len(got))
		return
	}
	f.decoded = true
	if s, t := theirs.Scaler, ours.Scaler; s != nil && t != nil {
		say("features", len(s.Offset), len(t.Offset))
		for j := range min(len(s.Offset), len(t.Offset)) {
			say(column(j)+", offset", s.Offset[j], t.Offset[j])
			say(column(j)+", scale", s.Scale[j], t.Scale[j])
		}
		return
	}
	s, t := theirs.Ensemble, ours.Ensemble
	say("features", s.Dim, t.Dim)
	say("targets", s.Targets, t.Targets)
	say("classes", s.Classes, t.Classes)
	say("shift", s.Shift, t.Shift)
	say("bias", s.Bias, t.Bias)
	say("norm", s.Norm, t.Norm)
	say("trees", len(s.Trees), len(t.Trees))
	f.pubTrees, f.ourTrees = len(s.Trees), len(t.Trees)
	f.allCuts = true
	pairs := pairTrees(s, t)
	f.trees = len(s.Trees) + len(t.Trees) - 2*len(pairs)
	first := -1
	for i, p := range pairs {
		a, b := s.Trees[p[0]].Nodes, t.Trees[p[1]].Nodes
		if changed(s, t, a, b) == 0 {
			continue
		}
		if f.trees++; first < 0 {
			first = i
			f.sameCut = sameCut(a, b)
		}
		f.allCuts = f.allCuts && sameCut(a, b)
	}
	if first >= 0 {
		d := treeDifference(name, s, t, pairs[first], f.trees-1)
		f.first, f.nodes = d.Tree, d.Changed
		x.report.Trees = append(x.report.Trees, d)
	}
}

// pairTrees returns the numbers of the trees that correspond, by the published
// ones: of each target, which its leaves add to, the first and the first, and so on.
func pairTrees(s, t *model.Ensemble) [][2]int {
	target := func(nodes []model.Node) int32 {
		return nodes[slices.IndexFunc(nodes, func(n model.Node) bool { return n.Leaf })].Target
	}
	ours := map[int32][]int{}
	for i := range t.Trees {
		k := target(t.Trees[i].Nodes)
		ours[k] = append(ours[k], i)
	}
	var pairs [][2]int
	for i := range s.Trees {
		if k := target(s.Trees[i].Nodes); len(ours[k]) > 0 {
			pairs = append(pairs, [2]int{i, ours[k][0]})
			ours[k] = ours[k][1:]
		}
	}
	return pairs
}

func byteAt(b []byte, i int) string {
	if i < len(b) {
		return fmt.Sprintf("0x%02x", b[i])
	}
	return "nothing"
}

func column(j int) string {
	if j < len(feature.Columns) {
		return feature.Columns[j].Name
	}
	return fmt.Sprintf("column %d", j)
}

// changed counts the nodes of two trees that differ, in preorder. A file states
// its leaves in units of its own, so they are compared as what they stand for.
func changed(s, t *model.Ensemble, a, b []model.Node) int {
	n := max(len(a), len(b)) - min(len(a), len(b))
	for j := range min(len(a), len(b)) {
		if node(s, a, j) != node(t, b, j) {
			n++
		}
	}
	return n
}

// sameCut reports whether two trees split in the same way.
func sameCut(a, b []model.Node) bool {
	return slices.EqualFunc(a, b, func(p, q model.Node) bool {
		return p.Leaf == q.Leaf && (p.Leaf || p == q)
	})
}

// node is a node of a tree in words.
func node(e *model.Ensemble, nodes []model.Node, j int) string {
	n := nodes[j]
	if n.Leaf {
		target := ""
		if int(n.Target) < len(e.Classes) {
			target = e.Classes[n.Target] + " "
		}
		return fmt.Sprintf("leaf %s%s", target, value(n.Value, e.Shift))
	}
	nan := ""
	if n.MissingLeft {
		nan = ", missing left"
	}
	return fmt.Sprintf("%s ≤ %s%s ? %d : %d", column(int(n.Feature)), strconv.FormatFloat(float64(n.Threshold), 'g', -1, 32), nan, n.Left, n.Right)
}

// value is k/2^shift in lowest terms, exact.
func value(k int32, shift int) string {
	for shift > 0 && k%2 == 0 {
		k, shift = k/2, shift-1
	}
	if shift == 0 {
		return strconv.Itoa(int(k))
	}
	return fmt.Sprintf("%d/2^%d", k, shift)
}

// treeDifference shows a pair of trees.
func treeDifference(file string, s, t *model.Ensemble, pair [2]int, others int) TreeDifference {
	a, b := s.Trees[pair[0]].Nodes, t.Trees[pair[1]].Nodes
	d := TreeDifference{File: file, Tree: pair[0], Ours: pair[1], Others: others, Changed: changed(s, t, a, b), Path: []string{}, Published: []string{}, Rebuilt: []string{}}
	for d.Node < min(len(a), len(b)) && node(s, a, d.Node) == node(t, b, d.Node) {
		d.Node++
	}
	// Up to that node both trees are the same, so either shows the way to it.
	for at := 0; at < d.Node && at < len(b) && !b[at].Leaf; {
		n := b[at]
		test := fmt.Sprintf("%s %%s %s", column(int(n.Feature)), strconv.FormatFloat(float64(n.Threshold), 'g', -1, 32))
		if int(n.Right) > d.Node {
			d.Path = append(d.Path, fmt.Sprintf(test, "≤"))
			at = int(n.Left)
		} else {
			d.Path = append(d.Path, fmt.Sprintf(test, ">"))
			at = int(n.Right)
		}
	}
	d.From = max(0, d.Node-lead)
	for j := d.From; j < min(len(a), d.From+maxLines); j++ {
		d.Published = append(d.Published, node(s, a, j))
	}
	for j := d.From; j < min(len(b), d.From+maxLines); j++ {
		d.Rebuilt = append(d.Rebuilt, node(t, b, j))
	}
	return d
}

// recipeOf says which members of the recipe decide a model, beside rows and seed.
var recipeOf = map[string]string{
	model.AnomalyFile:    "/recipe/anomaly",
	model.ClassifierFile: "/recipe/classifier",
	model.ReputationFile: "/recipe/reputation",
}

// causes orders what is likely, from what differs:
//
//   - files that do not go together were changed after training;
//   - the features section, the scaler and the counts of rows follow from the
//     rows alone (and the code);
//   - a model that differs alone, in its first tree or in the number of trees,
//     follows from its own part of the recipe;
//   - a program that is known to be another may differ anywhere.
func (x *explainer) causes(files []File) {
	say := func(kind CauseKind, format string, a ...any) {
		x.report.Causes = append(x.report.Causes, Cause{kind, fmt.Sprintf(format, a...)})
	}
	r := x.report
	if x.broken != nil {
		say(Edited, "the published files do not go together, so they are not as a training wrote them: %v", x.broken)
	}
	if p := r.Publisher; p != nil && p.Trainer != (verify.Trainer{}) && !r.Program.Trainer.Matches(p.Trainer) {
		say(Toolchain, "the provenance names another trainer (%s) than the one that ran here (%s)", p.Trainer, r.Program.Trainer)
	}
	if x.differ["provenance/recipe"] {
		say(Recipe, "the provenance states another recipe than release.json")
	}
	if x.broken != nil {
		return // nothing can be read out of the rest
	}
	if len(x.models) == 1 && x.models[0].trees == 1 && x.models[0].nodes <= 2 && !x.models[0].fields {
		m := x.models[0]
		say(Edited, "%s differs in tree %d alone, in %d node(s): other rows or another recipe change more than that", m.file, m.first, m.nodes)
		return
	}
	rows := x.rows()
	if len(rows) > 0 {
		say(Data, "what follows from the rows alone differs: %s", strings.Join(rows, ", "))
		if !x.differ[oras.ReleaseFile+"/metrics/data/records"] && !x.differ[oras.ReleaseFile+"/metrics/data/exploits"] {
			say(Recipe, "or, as there are as many records and exploits, what chooses and makes rows: /recipe/seed, split, as_of, window_days, ordinary_ppm, max_rows, min_class_rows")
		}
	}
	if len(rows) == 0 && len(x.models) > 0 {
		x.recipe(say)
	}
	if len(x.models) == 0 {
		switch {
		case x.differ[oras.ReleaseFile+"/scoring/anomaly"]:
			say(Recipe, "all models are the same, the threshold of anomaly alarms is not: /recipe/contamination_ppm decides it")
		case x.differ[oras.ReleaseFile+"/scoring"]:
			say(Edited, "all models are the same, so nothing in the recipe explains another /scoring")
		case x.differ[oras.ReleaseFile+"/metrics"] && len(rows) == 0:
			say(Edited, "all models and thresholds are the same, so nothing explains other /metrics")
		}
	}
	if p := r.Publisher; p != nil && p.Go != "" && p.Go != r.Program.Go && r.Program.Go != "" {
		say(Toolchain, "the provenance names %s, this program was built by %s: that must not matter, and would be a fault of ours", p.Go, r.Program.Go)
	}
	if len(r.Causes) == 0 {
		say(Toolchain, "nothing points to rows or recipe: the program that trained is likely to be another")
	}
}

// rows names what differs of that which follows from rows alone.
func (x *explainer) rows() []string {
	var out []string
	for _, s := range []struct{ key, name string }{
		{oras.ReleaseFile + "/metrics/data", "numbers of rows (/metrics/data)"},
		{oras.ReleaseFile + "/features/lexicon", "words learnt from titles (/features/lexicon)"},
		{oras.ReleaseFile + "/scoring/classes", "classes (/scoring/classes)"},
		{model.ScalerFile, "mean and spread of the features (" + model.ScalerFile + ")"},
	} {
		if x.differ[s.key] {
			out = append(out, s.name)
		}
	}
	return out
}

// recipe names the members of the recipe that decide the models that differ.
func (x *explainer) recipe(say func(CauseKind, string, ...any)) {
	if len(x.models) == len(recipeOf) {
		say(Recipe, "rows, features and scaler are the same and all learnt models differ: what weighs the rows (/recipe/half_life_days, site_cap_ppm, light_ppm), or /recipe/seed")
		return
	}
	for _, m := range x.models {
		in := recipeOf[m.file]
		switch {
		case m.allCuts && m.pubTrees != m.ourTrees:
			say(Recipe, "%s has %d trees, %d were rebuilt, and those that both have split in the same way: rounds, trees, patience or max_bytes in %s", m.file, m.pubTrees, m.ourTrees, in)
		case m.sameCut:
			say(Recipe, "tree %d of %s splits in the same way and has other leaf values: learning_rate_ppm, l2_milli, max_step_milli or balance_ppm in %s", m.first, m.file, in)
		default:
			say(Recipe, "rows, features and scaler are the same and %s is another: its hyper-parameters, in %s", m.file, in)
		}
	}
}
