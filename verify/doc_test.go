package verify

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// fenced returns the text of the first code block of that kind in a page.
func fenced(t *testing.T, page, kind string) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "```"+kind+"\n")
	text, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatalf("%s has no %s block", page, kind)
	}
	return text
}

func TestExamplesOfTheDocumentsAreAccepted(t *testing.T) {
	p, err := ParsePolicy([]byte(fenced(t, "POLICY.md", "yaml")))
	if err != nil {
		t.Error(err)
	}
	if p.Product != "web" || len(p.Builders) != 1 || len(p.Datasets.Digests) != 1 || p.MinRelease != 12 || p.MaxBytes != 1<<20 {
		t.Errorf("policy read as %+v", p)
	}
	s, err := DecodeStatement([]byte(fenced(t, "STATEMENTS.md", "json")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Provenance(); err != nil {
		t.Error(err)
	}
}

func TestPolicyPageListsEachCheckAsTheCodeHasIt(t *testing.T) {
	b, err := os.ReadFile("POLICY.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([a-z.-]+)` \\| (no|yes) \\|").FindAllStringSubmatch(string(b), -1)
	checks := append(slices.Clone(releaseChecks), channelVerdictChecks...)
	if len(rows) != len(checks) {
		t.Fatalf("%d rows, %d checks", len(rows), len(checks))
	}
	for i, c := range checks {
		if rows[i][1] != c.name || (rows[i][2] == "no") != c.mandatory {
			t.Errorf("row %d is %v, want %+v", i, rows[i][1:], c)
		}
	}
}

// The first number of a vector's name is the number of the rule in
// STATEMENTS.md that it breaks; those with 00 break none.
func TestStatementVectors(t *testing.T) {
	names, err := filepath.Glob("testdata/vectors/*.json")
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rule := filepath.Base(name)[:2]
		count[rule]++
		s, err := DecodeStatement(b)
		if rule >= "05" && err != nil {
			t.Errorf("%s breaks a rule before its own: %v", name, err)
		}
		if err == nil {
			_, err = s.Provenance()
		}
		if rule == "00" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if rule != "00" && !errors.Is(err, ErrStatement) {
			t.Errorf("%s: error %v, want ErrStatement", name, err)
		}
	}
	for _, rule := range []string{"00", "03", "04", "05", "06", "07"} {
		if count[rule] == 0 {
			t.Errorf("no vector for rule %s", rule)
		}
	}
}
