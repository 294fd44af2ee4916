package feature

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite FEATURES.md and golden files")

func TestEveryColumnIsDocumentedOnce(t *testing.T) {
	if Dim < 160 || Dim > 256 || len(Columns) != Dim {
		t.Fatalf("Dim %d, %d columns described", Dim, len(Columns))
	}
	name := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	seen := map[string]bool{}
	for i, c := range Columns {
		switch {
		case !name.MatchString(c.Name):
			t.Errorf("column %d: name %q", i, c.Name)
		case seen[c.Name]:
			t.Errorf("column %d: name %q used twice", i, c.Name)
		case c.Max < 1 || c.Max >= 1<<24:
			t.Errorf("%s: Max %d is no bound that float32 counts exactly up to", c.Name, c.Max)
		case c.Unit == "" || !strings.HasSuffix(c.Doc, "."):
			t.Errorf("%s: unit %q, doc %q", c.Name, c.Unit, c.Doc)
		}
		seen[c.Name] = true
	}
}

func TestFeaturesPageIsTheTable(t *testing.T) {
	want := featuresPage()
	if *update {
		if err := os.WriteFile("FEATURES.md", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("FEATURES.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("FEATURES.md is not what Columns says; run go test -update")
	}
}

func featuresPage() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `# Features, schema %d

One record is one vector of %d columns. Every value is a whole number from 0 to the bound given, as float32.
"log8" is a count on a scale with eight steps per doubling, exact below 16. Text is normalised before it is
counted; "part" means one path segment, one parameter value or a bare value.

Columns by model: the anomaly detector uses all groups but address; so does the classifier, but for the
method, the status, size, referer_length, port, port_web and protocol_web, which say what kind of log a record is from; reputation uses
address and history only.
`, SchemaVersion, Dim)
	group := Group("")
	for i, c := range Columns {
		if c.Group != group {
			group = c.Group
			fmt.Fprintf(&b, "\n## %s\n\n| column | name | unit | bound | meaning |\n|---:|---|---|---:|---|\n", group)
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %d | %s |\n", i, c.Name, c.Unit, c.Max, strings.ReplaceAll(c.Doc, "|", `\|`))
	}
	return b.Bytes()
}

func TestModelsUseTheirGroupsOnly(t *testing.T) {
	for _, m := range []struct {
		name    string
		columns []int
		without []Group
		with    []Group
	}{
		{"classifier", ForClassifier(), []Group{Address}, []Group{Chars, Structure, Token, Lexical, History}},
		{"anomaly", ForAnomaly(), []Group{Address}, []Group{Shape, Chars, Structure, Token, Lexical, Ports, History}},
		{"reputation", ForReputation(), []Group{Shape, Chars, Structure, Token, Lexical, Ports}, []Group{Address, History}},
	} {
		if !slices.IsSorted(m.columns) || len(slices.Compact(slices.Clone(m.columns))) != len(m.columns) {
			t.Errorf("%s: columns not ascending", m.name)
		}
		groups := map[Group]int{}
		for _, c := range m.columns {
			groups[Columns[c].Group]++
		}
		for _, g := range m.without {
			if groups[g] != 0 {
				t.Errorf("%s uses %d columns of group %s", m.name, groups[g], g)
			}
		}
		for _, g := range m.with {
			all := 0
			for _, c := range Columns {
				if c.Group == g {
					all++
				}
			}
			if groups[g] != all {
				t.Errorf("%s uses %d of %d columns of group %s", m.name, groups[g], all, g)
			}
		}
	}
}

func TestClassifierIsBlindToHowARecordWasMade(t *testing.T) {
	used := map[string]bool{}
	for _, c := range ForClassifier() {
		used[Columns[c].Name] = true
	}
	for _, name := range []string{"method_get", "method_post", "method_write", "method_rare", "status_class", "status_denied",
		"status_missing", "size", "referer_length", "port", "port_web", "protocol_web"} {
		if used[name] {
			t.Errorf("the classifier uses %s", name)
		}
	}
	for _, name := range []string{"payload_length", "target_form", "parameters", "agent_scanner", "user_common", "port_shell", "protocol_shell", "failed"} {
		if !used[name] {
			t.Errorf("the classifier does not use %s", name)
		}
	}
}

func TestLog8IsMonotoneAndExactBelow16(t *testing.T) {
	last := -1
	for n := range uint64(1 << 16) {
		v := log8(n)
		if v < last || v > last+1 || n < 16 && v != int(n) {
			t.Fatalf("log8(%d) = %d after %d", n, v, last)
		}
		last = v
	}
	if v := log8(1<<64 - 1); v > maxLog8+8 {
		t.Errorf("log8(max) = %d", v)
	}
	if v := log8(1<<63 - 1); v > maxLog8 {
		t.Errorf("log8(2^63-1) = %d", v)
	}
}
