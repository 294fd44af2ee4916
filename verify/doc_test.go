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

// fenced returns the texts of the code blocks of that kind in a page.
func fenced(t *testing.T, page, kind string) []string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, rest := range strings.Split(string(b), "```"+kind+"\n")[1:] {
		text, _, ok := strings.Cut(rest, "```")
		if !ok {
			t.Fatalf("%s: a %s block has no end", page, kind)
		}
		list = append(list, text)
	}
	return list
}

// predicate decodes the predicate of any statement that STATEMENTS.md
// describes.
func (s Statement) predicate() (err error) {
	switch s.PredicateType {
	case PredicateDataset:
		_, err = s.DatasetClaim()
	case PredicateChannel:
		_, err = s.Channel()
	case PredicateRevocation:
		_, err = s.Revocation()
	case PredicateReproduction:
		_, err = s.Reproduction()
	default:
		_, err = s.Provenance()
	}
	return err
}

func TestExamplesOfTheDocumentsAreAccepted(t *testing.T) {
	policies := fenced(t, "POLICY.md", "yaml")
	p, err := ParsePolicy([]byte(policies[0]))
	if err != nil {
		t.Fatal(err)
	}
	if p.Product != "web" || len(p.Builders) != 1 || len(p.Datasets.Digests) != 1 || p.MinRelease != 12 || p.MaxBytes != 1<<20 {
		t.Errorf("policy read as %+v", p)
	}
	a := newAuthority(t)
	files := map[string]string{"trusted_root.json": string(a.root)}
	for _, name := range []string{"channel", "revoke", "data", "auditor", "hosting"} {
		files[name+".pub"] = newSigner(t, name).Key.PEM()
	}
	if p, err = parseWith(policies[1], files); err == nil {
		_, err = New(p)
	}
	if err != nil {
		t.Error(err)
	}
	if p.Reproductions == nil || p.Reproductions.Min != 2 || !p.Reproductions.Block || len(p.Warnings()) != 0 {
		t.Errorf("policy read as %+v, warnings %q", p, p.Warnings())
	}
	statements := fenced(t, "STATEMENTS.md", "json")
	kinds := map[string]bool{}
	for _, text := range statements {
		s, err := DecodeStatement([]byte(text))
		if err == nil {
			err = s.predicate()
		}
		if err != nil {
			t.Errorf("%v in\n%s", err, text)
		}
		kinds[s.PredicateType] = true
	}
	if len(kinds) != 5 {
		t.Errorf("examples of %v, want one of each kind", kinds)
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
			err = s.predicate()
		}
		if rule == "00" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if rule != "00" && !errors.Is(err, ErrStatement) {
			t.Errorf("%s: error %v, want ErrStatement", name, err)
		}
	}
	for _, rule := range []string{"00", "03", "04", "05", "06", "07", "10", "11", "12", "13", "14"} {
		if count[rule] == 0 {
			t.Errorf("no vector for rule %s", rule)
		}
	}
}
