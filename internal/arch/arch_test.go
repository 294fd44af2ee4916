// Package arch_test holds the rules of the source tree that no compiler
// checks: who may import whom, what a program may link, where a clock may be
// read, and that every exported name says what it is.
package arch_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

const module = "github.com/battle-hardened-ai/bhtrain"

// mayImport lists all packages of the module and, for each, which others of the
// module it may import. A package that only tests import stands in no row.
var mayImport = map[string]string{
	"internal/canon":           "",
	"internal/durable":         "",
	"internal/durable/faultfs": "internal/durable",
	"internal/detmath":         "",
	"internal/cli":             "",
	"internal/cli/heap":        "",
	"internal/testkit":         "",
	"internal/exact":           "",

	"dataset/record":         "internal/canon",
	"dataset/feature":        "dataset/record internal/canon",
	"dataset/sample":         "",
	"dataset":                "dataset/record dataset/sample internal/canon internal/durable",
	"trainer/model":          "internal/canon internal/detmath",
	"trainer":                "dataset dataset/record dataset/feature trainer/model internal/detmath internal/canon",
	"oras":                   "internal/canon internal/durable",
	"verify":                 "oras internal/canon",
	"internal/sign":          "verify",
	"internal/sign/signtest": "internal/canon",
	"verify/rebuild":         "dataset dataset/record dataset/feature trainer trainer/model oras verify internal/canon",
	"agent":                  "dataset/record dataset/feature trainer/model oras verify internal/durable internal/canon",
	"agent/server":           "agent dataset/record verify oras internal/canon",
	"pipeline/card":          "dataset dataset/feature trainer trainer/model oras internal/canon",
	"pipeline":               "dataset dataset/record trainer oras verify pipeline/card internal/canon internal/durable internal/sign",

	"pipeline/bhtrain": "internal/cli internal/canon internal/durable internal/sign pipeline pipeline/card dataset dataset/record trainer oras verify",
	"verify/bhverify":  "internal/cli internal/cli/heap internal/canon internal/durable internal/sign dataset dataset/record verify verify/rebuild oras",
	"agent/bhagent":    "internal/cli internal/canon agent agent/server dataset/record trainer/model oras verify",

	"internal/targets/exactprobe": "dataset dataset/record dataset/feature trainer trainer/model internal/canon internal/detmath",

	"internal/modsum":      "",
	"internal/image":       "",
	"internal/payloadtest": "dataset/record trainer",
	"internal/evaluate":    "dataset dataset/feature trainer trainer/model internal/detmath",
}

const (
	arrow    = "github.com/apache/arrow"
	nats     = "github.com/nats-io"
	registry = "github.com/google/go-containerregistry/pkg/registry"
	sigstore = "github.com/sigstore/sigstore-go"
	signing  = sigstore + "/pkg/sign"
)

// importers lists modules and packages that only some may import directly.
var importers = map[string]string{
	arrow:                                    "dataset",
	signing:                                  "internal/sign",
	sigstore:                                 "internal/sign internal/sign/signtest verify",
	"github.com/google/go-containerregistry": "oras internal/image",
	"github.com/CycloneDX":                   "pipeline/card",
	"github.com/spf13/pflag":                 "internal/cli internal/sign pipeline/bhtrain verify/bhverify agent/bhagent internal/payloadtest internal/evaluate",
	"github.com/schollz/progressbar":         "internal/cli",
	"github.com/transparency-dev/merkle":     "dataset",
	"math/rand":                              "internal/durable internal/durable/faultfs oras agent/server", // names of temporary files, jitter
}

// mayNotLink lists what must not be among all that a package depends on.
var mayNotLink = map[string][]string{
	"agent":            {module + "/trainer", module + "/dataset", module + "/pipeline", arrow, signing, nats, registry},
	"agent/bhagent":    {module + "/trainer", module + "/dataset", module + "/pipeline", arrow, signing, nats, registry},
	"oras":             {module + "/trainer", module + "/dataset", arrow, sigstore, nats, registry},
	"verify":           {module + "/trainer", module + "/dataset", module + "/pipeline", arrow, signing, nats, registry},
	"verify/bhverify":  {module + "/pipeline", nats, registry},
	"verify/rebuild":   {module + "/pipeline", signing, nats, registry},
	"pipeline/bhtrain": {module + "/agent", nats, registry},
	"trainer":          {module + "/oras", module + "/verify", sigstore},
	"trainer/model":    {arrow, "net", "os/exec"},
	"dataset/record":   {arrow, "os/exec"},
	"dataset/feature":  {arrow, "os/exec"},
}

// linkable takes packages out of a prefix of mayNotLink again.
var linkable = []string{module + "/trainer/model", module + "/dataset/record", module + "/dataset/feature"}

// clocks are the packages in which time.Now, time.Since and time.Until may stand.
const clocks = "internal/cli internal/sign/signtest pipeline pipeline/bhtrain verify/bhverify agent agent/server agent/bhagent"

// environment lists the packages that may read the environment and the user's folders.
const environment = "internal/cli internal/sign internal/testkit pipeline/bhtrain verify/bhverify agent/bhagent"

// sameEverywhere are the functions of package math that have one result on every CPU.
const sameEverywhere = "Abs Ceil Copysign Float32bits Float32frombits Float64bits Float64frombits Floor Frexp " +
	"Inf IsInf IsNaN Ldexp Max Min Mod Modf NaN Nextafter Nextafter32 Round RoundToEven Signbit Sqrt Trunc"

// differing are the packages that may use the others too.
const differing = "internal/targets/exactprobe" // to see that processors differ

// shapeless are package names that say nothing.
const shapeless = "util utils common helper helpers misc shared base lib libs pkg cmd types core tools"

// source is what go list says of one package.
type source struct {
	ImportPath string
	Name       string
	Dir        string
	Standard   bool
	Imports    []string
	GoFiles    []string
}

// graph is a set of packages by import path.
type graph map[string]*source

func list(t *testing.T) graph {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		testkit.Missing(t, "no go command")
	}
	if err := testkit.DependOnSources(testkit.Root(t)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Name,Dir,Standard,Imports,GoFiles", "./...")
	cmd.Dir = testkit.Root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	g := graph{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(source)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return g
		} else if err != nil {
			t.Fatal(err)
		}
		g[p.ImportPath] = p
	}
}

// ours returns the short paths of the module's packages that hold more than tests.
func (g graph) ours() []string {
	var out []string
	for p, s := range g {
		if short, ok := strings.CutPrefix(p, module+"/"); ok && len(s.GoFiles) > 0 {
			out = append(out, short)
		}
	}
	slices.Sort(out)
	return out
}

// below reports whether path is prefix or a package below it. Versions of a module
// ("…/v17") are below it.
func below(p, prefix string) bool { return p == prefix || strings.HasPrefix(p, prefix+"/") }

func contains(words, word string) bool { return slices.Contains(strings.Fields(words), word) }

// importRules names every import that the tables forbid.
func importRules(g graph) (bad []string) {
	names := g.ours()
	for _, name := range names {
		allowed, known := mayImport[name]
		if !known {
			bad = append(bad, name+" is in no table")
		}
		for elem := range strings.SplitSeq(name, "/") {
			if contains(shapeless, elem) || contains(shapeless, g[module+"/"+name].Name) {
				bad = append(bad, name+" has a name that says nothing")
				break
			}
		}
		for _, imp := range g[module+"/"+name].Imports {
			if short, ok := strings.CutPrefix(imp, module+"/"); ok && known && !contains(allowed, short) {
				bad = append(bad, name+" must not import "+short)
			}
			for dep, who := range importers {
				if below(imp, dep) && !contains(who, name) {
					bad = append(bad, name+" must not import "+imp)
				}
			}
		}
		for _, dep := range mayNotLink[name] {
			if chain := g.chain(module+"/"+name, dep); chain != "" {
				bad = append(bad, name+" must not link "+dep+": "+chain)
			}
		}
	}
	for name := range mayImport {
		if !slices.Contains(names, name) {
			bad = append(bad, name+" is in the table but does not exist")
		}
	}
	for name := range mayNotLink {
		if !slices.Contains(names, name) {
			bad = append(bad, name+" has a rule but does not exist")
		}
	}
	slices.Sort(bad)
	return slices.Compact(bad)
}

// chain returns a shortest chain of imports from one package to a forbidden
// one, or "".
func (g graph) chain(from, forbidden string) string {
	before := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at != from && below(at, forbidden) && !slices.Contains(linkable, at) {
			chain := path.Base(at)
			for at = before[at]; at != ""; at = before[at] {
				chain = path.Base(at) + " → " + chain
			}
			return chain
		}
		if g[at] == nil {
			continue
		}
		for _, imp := range g[at].Imports {
			if _, seen := before[imp]; !seen {
				before[imp] = at
				queue = append(queue, imp)
			}
		}
	}
	return ""
}

// sourceRules names every place in one file where the text breaks a rule.
func sourceRules(name, file string, text any) (bad []string, doc bool) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return []string{err.Error()}, false
	}
	say := func(n ast.Node, format string, args ...any) {
		p := fset.Position(n.Pos())
		bad = append(bad, fmt.Sprintf("%s/%s:%d: %s", name, filepath.Base(p.Filename), p.Line, fmt.Sprintf(format, args...)))
	}
	local := map[string]string{} // name in this file → standard package
	for _, imp := range f.Imports {
		p := strings.Trim(imp.Path.Value, `"`)
		as := path.Base(p)
		if imp.Name != nil {
			as = imp.Name.Name
		}
		if p == "time" || p == "math" || p == "os" {
			local[as] = p
			if as == "." {
				say(imp, "dot import")
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		switch what := sel.Sel.Name; local[x.Name] {
		case "time":
			if contains("Now Since Until", what) && !contains(clocks, name) {
				say(sel, "time.%s: the clock comes in as a parameter", what)
			}
		case "os":
			if contains("Getenv LookupEnv Environ Hostname UserConfigDir UserCacheDir UserHomeDir", what) && !contains(environment, name) {
				say(sel, "os.%s: only commands read the environment", what)
			}
		case "math":
			function := what[0] >= 'A' && what[0] <= 'Z' && !strings.HasPrefix(what, "Max") && !strings.HasPrefix(what, "Min") &&
				!strings.HasPrefix(what, "Smallest") && !contains("Pi E Phi Sqrt2 SqrtE SqrtPi SqrtPhi Ln2 Ln10 Log2E Log10E", what)
			if function && !contains(sameEverywhere, what) && !contains(differing, name) {
				say(sel, "math.%s differs between CPUs: use internal/detmath", what)
			}
		}
		return true
	})
	undocumented := func(n ast.Node, id *ast.Ident, docs ...*ast.CommentGroup) {
		if !id.IsExported() {
			return
		}
		for _, d := range docs {
			if strings.TrimSpace(d.Text()) != "" {
				return
			}
		}
		say(n, "%s has no comment", id.Name)
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv != nil && (!receiver(d.Recv).IsExported() || contains("Error Unwrap", d.Name.Name)) {
				continue
			}
			undocumented(d, d.Name, d.Doc)
		case *ast.GenDecl:
			typed := "" // the type that the constants of this group are of
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					undocumented(s, s.Name, s.Doc, d.Doc)
				case *ast.ValueSpec:
					if id, ok := s.Type.(*ast.Ident); ok {
						typed = id.Name
					}
					if ast.IsExported(typed) && d.Tok == token.CONST {
						continue // values of a documented type: it says what they are
					}
					for _, id := range s.Names {
						undocumented(s, id, s.Doc, s.Comment, d.Doc)
					}
				}
			}
		}
	}
	return bad, strings.TrimSpace(f.Doc.Text()) != ""
}

// receiver returns the type name of a method's receiver.
func receiver(l *ast.FieldList) *ast.Ident {
	e := l.List[0].Type
	for {
		switch t := e.(type) {
		case *ast.StarExpr:
			e = t.X
		case *ast.IndexExpr:
			e = t.X
		case *ast.IndexListExpr:
			e = t.X
		case *ast.Ident:
			return t
		default:
			return ast.NewIdent("_")
		}
	}
}

func TestImports(t *testing.T) {
	for _, b := range importRules(list(t)) {
		t.Error(b)
	}
}

func TestSources(t *testing.T) {
	g := list(t)
	for _, name := range g.ours() {
		p := g[module+"/"+name]
		docs := 0
		for _, file := range p.GoFiles {
			bad, doc := sourceRules(name, filepath.Join(p.Dir, file), nil)
			for _, b := range bad {
				t.Error(b)
			}
			if doc {
				docs++
			}
		}
		if docs != 1 {
			t.Errorf("%s has %d package comments, want 1", name, docs)
		}
	}
}

// clean is a graph that breaks no rule: every package, without imports.
func clean() graph {
	g := graph{}
	for name := range mayImport {
		g[module+"/"+name] = &source{ImportPath: module + "/" + name, Name: path.Base(name), GoFiles: []string{"x.go"}}
	}
	return g
}

func TestForbiddenImportsAreFound(t *testing.T) {
	if bad := importRules(clean()); len(bad) != 0 {
		t.Fatalf("the clean graph: %q", bad)
	}
	for _, c := range []struct {
		name    string
		imports map[string]string // more imports; full paths but for ours
		want    string
	}{
		{"an allowed import", map[string]string{"trainer": "dataset"}, ""},
		{"all that a row allows", map[string]string{"agent": mayImport["agent"]}, ""},
		{"a test-only package", map[string]string{"oras": "internal/testkit"}, "oras must not import internal/testkit"},
		{"a fault file system", map[string]string{"agent": "internal/durable/faultfs"}, "agent must not import internal/durable/faultfs"},
		{"against the flow", map[string]string{"dataset": "trainer"}, "dataset must not import trainer"},
		{"a detour to the trainer", map[string]string{"agent": "verify", "verify": "verify/rebuild", "verify/rebuild": "trainer"},
			"agent must not link " + module + "/trainer: agent → verify → rebuild → trainer"},
		{"what the agent may link of the trainer", map[string]string{"agent": "trainer/model dataset/record dataset/feature"}, ""},
		{"Arrow in the agent, by another module", map[string]string{"agent": "example.com/table", "example.com/table": arrow + "/go/v17/arrow"},
			"agent must not link " + arrow + ": agent → table → arrow"},
		{"Arrow in a program above the agent", map[string]string{"agent/bhagent": "agent", "agent": "example.com/table", "example.com/table": arrow + "/go/v18/arrow"},
			"agent/bhagent must not link " + arrow + ": bhagent → agent → table → arrow"},
		{"Arrow beside the dataset", map[string]string{"trainer": arrow + "/go/v17/arrow"}, "trainer must not import " + arrow + "/go/v17/arrow"},
		{"a verifier that signs", map[string]string{"verify": signing}, "verify must not import " + signing},
		{"a verifier that verifies", map[string]string{"verify": sigstore + "/pkg/verify"}, ""},
		{"a verifier that could sign", map[string]string{"verify": sigstore + "/pkg/verify", sigstore + "/pkg/verify": signing},
			"verify must not link " + signing + ": verify → verify → sign"},
		{"what signs", map[string]string{"internal/sign": signing}, ""},
		{"a pipeline that signs by itself", map[string]string{"pipeline": signing}, "pipeline must not import " + signing},
		{"a verifier with a signer", map[string]string{"verify": "internal/sign", "internal/sign": signing}, "verify must not link " + signing + ": verify → sign → sign"},
		{"a package of a like name", map[string]string{"verify": sigstore + "/pkg/signature"}, ""},
		{"a registry server in bhtrain", map[string]string{"pipeline/bhtrain": registry}, "pipeline/bhtrain must not link " + registry + ": bhtrain → registry"},
		{"NATS in bhtrain", map[string]string{"pipeline/bhtrain": "pipeline", "pipeline": nats + "/nats.go"}, "pipeline/bhtrain must not link " + nats + ": bhtrain → pipeline → nats.go"},
		{"flags outside the commands", map[string]string{"oras": "github.com/spf13/pflag"}, "oras must not import github.com/spf13/pflag"},
		{"random numbers in training", map[string]string{"trainer": "math/rand/v2"}, "trainer must not import math/rand/v2"},
		{"a package without a row", map[string]string{"internal/extra": ""}, "internal/extra is in no table"},
		{"a package for leftovers", map[string]string{"internal/util": ""}, "internal/util has a name that says nothing"},
	} {
		g := clean()
		for from, imports := range c.imports {
			full := func(p string) string {
				if strings.Contains(strings.SplitN(p, "/", 2)[0], ".") || strings.HasPrefix(p, "math/") {
					return p
				}
				return module + "/" + p
			}
			if g[full(from)] == nil {
				g[full(from)] = &source{ImportPath: full(from), Name: path.Base(from), GoFiles: []string{"x.go"}}
			}
			for _, imp := range strings.Fields(imports) {
				g[full(from)].Imports = append(g[full(from)].Imports, full(imp))
			}
		}
		bad := importRules(g)
		if c.want == "" && len(bad) != 0 || c.want != "" && !slices.Contains(bad, c.want) {
			t.Errorf("%s: %q, want %q", c.name, bad, c.want)
		}
	}
	g := clean()
	delete(g, module+"/agent")
	if bad := importRules(g); !slices.Contains(bad, "agent is in the table but does not exist") || !slices.Contains(bad, "agent has a rule but does not exist") {
		t.Errorf("a missing package: %q", bad)
	}
	g = clean()
	g[module+"/oras"].Name = "common"
	if bad := importRules(g); !slices.Contains(bad, "oras has a name that says nothing") {
		t.Errorf("a package clause that says nothing: %q", bad)
	}
}

func TestForbiddenSourcesAreFound(t *testing.T) {
	for _, c := range []struct{ name, in, text, want string }{
		{"nothing", "trainer", `func f() {}`, ""},
		{"the clock", "trainer", `import "time"; var t = time.Now()`, "trainer/x.go:1: time.Now: the clock comes in as a parameter"},
		{"the clock under another name", "trainer", `import clock "time"; func f() { _ = clock.Since }`, "trainer/x.go:1: time.Since: the clock comes in as a parameter"},
		{"the clock where it may be", "internal/cli", `import "time"; var t = time.Now()`, ""},
		{"another time.Now", "trainer", `type clock struct{ Now int }; var time clock; var t = time.Now`, ""},
		{"a duration", "trainer", `import "time"; const d = time.Second`, ""},
		{"a function that differs", "trainer", `import "math"; var x = math.Exp(1)`, "trainer/x.go:1: math.Exp differs between CPUs: use internal/detmath"},
		{"a function that differs, as a value", "oras", `import m "math"; var x = m.Cbrt`, "oras/x.go:1: math.Cbrt differs between CPUs: use internal/detmath"},
		{"a function that differs, where it may be", "internal/targets/exactprobe", `import "math"; var x = math.Exp(1)`, ""},
		{"functions that do not", "trainer", `import "math"; var x = math.Sqrt(math.Ln2) + math.Ldexp(math.MaxFloat64, math.MinInt8)`, ""},
		{"the environment", "oras", `import "os"; var x = os.Getenv("X")`, "oras/x.go:1: os.Getenv: only commands read the environment"},
		{"the environment in a command", "agent/bhagent", `import "os"; var x = os.Getenv("X")`, ""},
		{"an exported function", "oras", `func F() {}`, "oras/x.go:1: F has no comment"},
		{"an exported function with a comment", "oras", "\n// F does.\nfunc F() {}", ""},
		{"a directive is no comment", "oras", "\n//go:noinline\nfunc F() {}", "oras/x.go:3: F has no comment"},
		{"a method", "oras", "\n// T is.\ntype T struct{}\n\nfunc (t *T) M() {}", "oras/x.go:5: M has no comment"},
		{"a method of a generic type", "oras", "\n// T is.\ntype T[K any] struct{}\n\nfunc (t *T[K]) M() {}", "oras/x.go:5: M has no comment"},
		{"an exported method of a hidden type", "oras", `type t struct{}; func (t) M() {}`, ""},
		{"the methods of errors", "oras", "\n// T is.\ntype T struct{}\n\nfunc (T) Error() string { return \"\" }\nfunc (T) Unwrap() error { return nil }", ""},
		{"a type", "oras", `type T int`, "oras/x.go:1: T has no comment"},
		{"a type in a group", "oras", "type (\n\t// A is.\n\tA int\n\tB int\n)", "oras/x.go:4: B has no comment"},
		{"a variable", "oras", `var V int`, "oras/x.go:1: V has no comment"},
		{"a group with a comment", "oras", "\n// Errors.\nvar (\n\tErrA int\n\tErrB int\n)", ""},
		{"constants with comments behind", "oras", "const (\n\tA = 1 // one\n\tB = 2\n)", "oras/x.go:3: B has no comment"},
		{"values of a type", "oras", "\n// T is.\ntype T int\n\nconst (\n\tA T = iota\n\tB\n)", ""},
	} {
		bad, doc := sourceRules(c.in, "x.go", "package x; "+c.text)
		if c.want == "" && len(bad) != 0 || c.want != "" && !slices.Contains(bad, c.want) {
			t.Errorf("%s: %q, want %q", c.name, bad, c.want)
		}
		if doc {
			t.Errorf("%s: a package comment out of nothing", c.name)
		}
	}
	if bad, _ := sourceRules("oras", "x.go", "package x; func {"); len(bad) == 0 {
		t.Error("a text that is no Go passes")
	}
	if _, doc := sourceRules("oras", "x.go", "// Package x is.\npackage x"); !doc {
		t.Error("a package comment is not seen")
	}
}
