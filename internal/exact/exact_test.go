package exact_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/analysistest"
	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/packages"

	"github.com/battle-hardened-ai/bhtrain/internal/exact"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// analysed are the packages whose results reach model bytes or scores.
var analysed = []string{"./dataset/...", "./trainer/...", "./agent", "./internal/detmath"}

// exception lets a function break a rule.
type exception struct {
	file     string // from the root of the tree
	function string // as exact.Finding has it
	rule     exact.Rule
	reason   string // for sort, why equals do not show; for integer, why the value is in range
}

var exceptions = []exception{
	{"dataset/record/reader.go", "counts.list", exact.Sort, "ordered by the keys of a map"},
	{"dataset/diff.go", "Diff", exact.Sort, "keys of a map, all of a key is compared"},
	{"dataset/sort.go", "sorter.sortRows", exact.Sort, "rows are distinct and all of a row is compared"},
	{"dataset/feature/lexicon.go", "commonest", exact.Sort, "keys of a map, ordered by count, then key; the types it is used with are integers"},
	{"trainer/measure.go", "outcomes.reputationThreshold", exact.Sort, "rows of equal probability are counted together"},
	{"trainer/metric.go", "rank", exact.Sort, "all of a row is compared but for the sign of a zero score"},
	{"trainer/taxonomy.go", "union", exact.Sort, "spans of equal start are joined, in any order to the same"},

	{"trainer/boost.go", "logOdds", exact.Integer, "the difference of two logarithms of integers below 2^63 is within 44, in units of 2^-20"},
	{"trainer/boost.go", "toProb", exact.Integer, "a probability, 0 to 1, in units of 2^-24"},
	{"trainer/boost.go", "logLoss", exact.Integer, "a loss of at most 24 log 2, in units of 2^-16"},
	{"trainer/boost.go", "learner.fit", exact.Integer, "a step within ±100, in units of 2^-20; its divisor is positive"},
	{"trainer/boost.go", "learner.gradients", exact.Integer, "a bound of at most 1000, in units of 2^-36 or more"},
	{"trainer/boost.go", "logistic", exact.Integer, "a probability, 0 to 1, in units of 2^-24"},
	{"trainer/forest.go", "growForest", exact.Integer, "the root of a number of columns"},
	{"trainer/export.go", "Matrix.WriteCSV", exact.Integer, "within 1 to 2^24 by the check around it, made in this order"},
	{"trainer/measure.go", "toPPM", exact.Integer, "a probability, 0 to 1, in millionths"},
	{"trainer/table.go", "Table.pack", exact.Integer, "a whole number from 0 to 65,535, as small says"},
	{"trainer/table.go", "Table.small", exact.Integer, "from 0 to 65,535 by the check before it"},
	{"trainer/weight.go", "Recipe.recency", exact.Integer, "a power of two within 0 to 1, in units of 2^-12"},
	{"trainer/weight.go", "balance", exact.Integer, "a weight of at most 2^16 times a factor of at most 16"},
	{"trainer/model/decode.go", "units", exact.Integer, "finite, and within MaxSum by the check above"},
	{"trainer/model/set.go", "Ensemble.rescale", exact.Integer, "a scaled integer, within MaxSum by the check above"},
	{"trainer/model/walks.go", "sumOne", exact.Integer, "the threshold of a leaf is an integer within MaxSum"},
	{"trainer/model/walks.go", "addMany", exact.Integer, "the threshold of a leaf is an integer within MaxSum"},
}

// place is a finding and where it is.
type place struct {
	file string // slash-separated, from the root of the tree
	line int
	exact.Finding
}

func (p place) String() string {
	in := ""
	if p.Function != "" {
		in = " (in " + p.Function + ")"
	}
	return fmt.Sprintf("%s:%d: %s: %s%s", p.file, p.line, p.Rule, p.Message, in)
}

// excuse returns the findings that no exception names, and the exceptions that
// name no finding.
func excuse(all []place, exceptions []exception) (left []place, idle []exception) {
	used := make([]bool, len(exceptions))
	for _, p := range all {
		i := slices.IndexFunc(exceptions, func(e exception) bool {
			return e.file == p.file && e.function == p.Function && e.rule == p.Rule
		})
		if i < 0 {
			left = append(left, p)
		} else {
			used[i] = true
		}
	}
	for i, e := range exceptions {
		if !used[i] {
			idle = append(idle, e)
		}
	}
	return left, idle
}

// notCompiled returns the files of a package that the analysis does not see:
// those for other targets, and those that are not Go. Tests do not count.
func notCompiled(p *packages.Package) (files []string) {
	for _, f := range slices.Concat(p.IgnoredFiles, p.OtherFiles) {
		if !strings.HasSuffix(f, "_test.go") {
			files = append(files, f)
		}
	}
	return files
}

func TestTheTreeIsExact(t *testing.T) {
	root := testkit.Root(t)
	pkgs, err := packages.Load(&packages.Config{Mode: packages.LoadSyntax, Dir: root}, analysed...)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pkgs {
		for _, err := range p.Errors {
			t.Errorf("%s: %v", p.PkgPath, err)
		}
		for _, f := range notCompiled(p) {
			t.Errorf("%s is not compiled here, so nothing is known of it", f)
		}
	}
	graph, err := checker.Analyze([]*analysis.Analyzer{exact.Analyzer}, pkgs, nil)
	if err != nil {
		t.Fatal(err)
	}
	var found []place
	for _, a := range graph.Roots {
		if a.Err != nil {
			t.Errorf("%s: %v", a.Package.PkgPath, a.Err)
			continue
		}
		for _, f := range a.Result.([]exact.Finding) {
			at := a.Package.Fset.Position(f.Pos)
			file, err := filepath.Rel(root, at.Filename)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, place{filepath.ToSlash(file), at.Line, f})
		}
	}
	if len(graph.Roots) < len(analysed) {
		t.Errorf("%d packages were analysed, want at least %d", len(graph.Roots), len(analysed))
	}
	left, idle := excuse(found, exceptions)
	for _, p := range left {
		t.Error(p)
	}
	for _, e := range idle {
		t.Errorf("%s, %s: the exception from %q excuses nothing", e.file, e.function, e.rule)
	}
}

func TestRules(t *testing.T) {
	analysistest.Run(t, analysistest.TestData(), exact.Analyzer, "fusion", "functions", "numbers", "order", "sorts", "run")
}

func TestFindingsNameTheirFunction(t *testing.T) {
	want := map[string]exact.Rule{
		"":         exact.Clock, // a variable of the package
		"clock.in": exact.Clock,
		"closure":  exact.Random,
		"list.put": exact.Fusion,
		"pair.mul": exact.Fusion,
	}
	for _, r := range analysistest.Run(t, analysistest.TestData(), exact.Analyzer, "names") {
		found := r.Result.([]exact.Finding)
		if len(found) != len(want) {
			t.Errorf("%d findings, want %d", len(found), len(want))
		}
		for _, f := range found {
			if want[f.Function] != f.Rule {
				t.Errorf("%q breaks %s, want %q", f.Function, f.Rule, want[f.Function])
			}
		}
	}
}

func TestExceptions(t *testing.T) {
	at := func(file, function string, rule exact.Rule) place {
		return place{file, 1, exact.Finding{Function: function, Rule: rule}}
	}
	a := exception{"a.go", "F", exact.Sort, "why"}
	b := exception{"b.go", "T.M", exact.Integer, "why"}
	for _, c := range []struct {
		name       string
		found      []place
		exceptions []exception
		left, idle int
	}{
		{"nothing", nil, nil, 0, 0},
		{"a finding", []place{at("a.go", "F", exact.Sort)}, nil, 1, 0},
		{"an excused finding", []place{at("a.go", "F", exact.Sort)}, []exception{a}, 0, 0},
		{"two in one function", []place{at("a.go", "F", exact.Sort), at("a.go", "F", exact.Sort)}, []exception{a}, 0, 0},
		{"another file", []place{at("b.go", "F", exact.Sort)}, []exception{a}, 1, 1},
		{"another function", []place{at("a.go", "G", exact.Sort)}, []exception{a}, 1, 1},
		{"another rule", []place{at("a.go", "F", exact.Map)}, []exception{a}, 1, 1},
		{"an exception too many", []place{at("a.go", "F", exact.Sort)}, []exception{b, a}, 0, 1},
	} {
		left, idle := excuse(c.found, c.exceptions)
		if len(left) != c.left || len(idle) != c.idle {
			t.Errorf("%s: %d left and %d idle, want %d and %d", c.name, len(left), len(idle), c.left, c.idle)
		}
	}
	for i, e := range exceptions {
		if e.reason == "" || slices.ContainsFunc(exceptions[:i], func(o exception) bool {
			return o.file == e.file && o.function == e.function && o.rule == e.rule
		}) {
			t.Errorf("%s, %s, %s: no reason, or named twice", e.file, e.function, e.rule)
		}
	}
}

func TestFilesOutOfSightAreFound(t *testing.T) {
	p := &packages.Package{
		IgnoredFiles: []string{"/x/fast_arm64.go", "/x/fast_arm64_test.go"},
		OtherFiles:   []string{"/x/fast_amd64.s"},
	}
	if got := notCompiled(p); !slices.Equal(got, []string{"/x/fast_arm64.go", "/x/fast_amd64.s"}) {
		t.Errorf("%q", got)
	}
}
