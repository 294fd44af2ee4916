package verify

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/oras"
)

func TestRecipeOutOfBoundsIsRefused(t *testing.T) {
	s := newSigner(t, "A")
	bounds := &RecipePolicy{Algorithms: []int64{2, 3}, Max: map[string]int64{"rounds": 60, "trees": 100, "max_rows": 400_000}}
	const good = `{"algorithm":2,"anomaly":{"trees":100},"classifier":{"boosting":{"max_leaves":9999,"rounds":60}},"max_rows":400000,"reputation":{"rounds":1},"seed":1}`
	for _, c := range []struct{ name, old, new, says string }{
		{"as it may be", "", "", ""},
		{"the other algorithm", `"algorithm":2`, `"algorithm":3`, ""},
		{"what no bound names", `"max_leaves":9999`, `"max_leaves":1000000`, ""},
		{"an algorithm that is not named", `"algorithm":2`, `"algorithm":4`, "algorithm 4"},
		{"an algorithm that is a text", `"algorithm":2`, `"algorithm":"2"`, "algorithm 2"},
		{"no algorithm", `"algorithm":2,`, ``, "algorithm <nil>"},
		{"at the top", `"max_rows":400000`, `"max_rows":400001`, "max_rows is 400001"},
		{"below", `"rounds":60`, `"rounds":61`, "classifier.boosting.rounds is 61"},
		{"in a list", `"seed":1`, `"seeds":[[{"rounds":61}]]`, "seeds.rounds is 61"},
		{"a text", `"rounds":1`, `"rounds":"1"`, "reputation.rounds is 1"},
		{"an object", `"rounds":1`, `"rounds":{}`, "reputation.rounds is map[]"},
		{"as large as numbers are", `"trees":100`, `"trees":9007199254740991`, "anomaly.trees is 9.007199254740991e+15"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(good, c.old, c.new, 1)
			a := testRelease(t, func(r *oras.Release) { r.Recipe = jsontext.Value(text) })
			v := testVerifier(t, func(p *Policy) { p.Recipe = bounds }, s).Judge(a, testNow, given(s.statement(t, statementFor(t, a, nil))))
			if c.says == "" {
				wantFailed(t, v)
				if got := check(v, CheckBounds); got.Status != Pass {
					t.Errorf("%+v", got)
				}
				return
			}
			wantFailed(t, v, CheckBounds)
			if got := check(v, CheckBounds); got.Observed != c.says {
				t.Errorf("%+v", got)
			}
		})
	}
	a := testRelease(t, nil)
	if got := check(testVerifier(t, nil, s).Judge(a, testNow, given(s.statement(t, statementFor(t, a, nil)))), CheckBounds); got.Status != Skip || got.Reason == "" {
		t.Errorf("without bounds: %+v", got)
	}
}

func TestRecipeBoundsAreReadAsWritten(t *testing.T) {
	p, err := ParsePolicy([]byte(policyWith("recipe: {algorithms: [2, 3], max: {rounds: 60, trees: 100}}\n")))
	if err != nil || !slices.Equal(p.Recipe.Algorithms, []int64{2, 3}) || len(p.Recipe.Max) != 2 || p.Recipe.Max["rounds"] != 60 || p.Recipe.Max["trees"] != 100 {
		t.Fatalf("%+v, %v", p.Recipe, err)
	}
	if want := "The recipe must be of algorithm 2 or 3, and have no rounds above 60, no trees above 100."; !slices.Contains(p.Describe(), want) {
		t.Errorf("%q", p.Describe())
	}
	if p, err = ParsePolicy([]byte(policyWith(""))); err != nil || p.Recipe != nil || !slices.Contains(p.Describe(), "Accepts any recipe that a publisher signs for.") {
		t.Errorf("%+v, %v", p, err)
	}
}
