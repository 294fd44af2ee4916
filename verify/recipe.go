package verify

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// RecipePolicy says which recipes a release may be trained with, so that nobody
// is made to train for ever, or by rules that he does not know.
type RecipePolicy struct {
	Algorithms []int64          // one of them is the recipe's
	Max        map[string]int64 // by name: no member of that name, wherever it stands in the recipe, is larger
}

// boundable are the members of recipes that Max may name: those that decide how
// long a training takes.
var boundable = []string{"max_depth", "max_leaves", "max_rows", "rounds", "sample", "trees", "window_days"}

func (p *RecipePolicy) check() error {
	if len(p.Algorithms) == 0 {
		return errors.New("algorithms: missing; a bound means something only for algorithms that you know, such as [2]")
	}
	if len(p.Algorithms) > maxList {
		return fmt.Errorf("algorithms: more than %d", maxList)
	}
	for _, n := range p.Algorithms {
		if n < 1 {
			return fmt.Errorf("algorithms: %d, want 1 or more", n)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Max)) {
		switch n := p.Max[name]; {
		case !slices.Contains(boundable, name):
			return fmt.Errorf("max: %q is no member that can be bounded; those are %s", Printable(name), strings.Join(boundable, ", "))
		case n < 1:
			return fmt.Errorf("max: %s: %d, want 1 or more; leave it out for no bound", name, n)
		}
	}
	return nil
}

// describe says in words what p demands.
func (p *RecipePolicy) describe() string {
	text := "The recipe must be of algorithm " + join(p.Algorithms, " or ")
	if len(p.Max) > 0 {
		var bounds []string
		for _, name := range slices.Sorted(maps.Keys(p.Max)) {
			bounds = append(bounds, fmt.Sprintf("%s above %d", name, p.Max[name]))
		}
		text += ", and have no " + strings.Join(bounds, ", no ")
	}
	return text + "."
}

func join(list []int64, by string) string {
	var text []string
	for _, n := range list {
		text = append(text, fmt.Sprint(n))
	}
	return strings.Join(text, by)
}

// judge reports what of a recipe p does not allow: what is there, what should
// be, and why; "" for all of them if p allows it.
func (p *RecipePolicy) judge(recipe jsontext.Value) (observed, expected, reason string) {
	var top map[string]any
	if err := json.Unmarshal(recipe, &top); err != nil {
		return "", "an object", err.Error()
	}
	algorithm, ok := top["algorithm"].(float64)
	if !ok || !slices.ContainsFunc(p.Algorithms, func(n int64) bool { return float64(n) == algorithm }) {
		return fmt.Sprintf("algorithm %v", top["algorithm"]), "algorithm " + join(p.Algorithms, " or "), "trained by an algorithm that the policy does not name"
	}
	return p.bound(top, "")
}

// bound looks at the members of an object, and at those of objects in it, in
// the order of their names.
func (p *RecipePolicy) bound(object map[string]any, place string) (observed, expected, reason string) {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		v := object[name]
		if top, named := p.Max[name]; named {
			if n, ok := v.(float64); !ok || n > float64(top) {
				return fmt.Sprintf("%s%s is %v", place, name, v), fmt.Sprintf("at most %d", top), "a training of this recipe may take more than the policy allows"
			}
		}
		var inner []any
		switch v := v.(type) {
		case map[string]any:
			inner = []any{v}
		case []any:
			inner = v
		}
		for len(inner) > 0 {
			next := inner[0]
			inner = inner[1:]
			switch next := next.(type) {
			case map[string]any:
				if observed, expected, reason = p.bound(next, place+name+"."); reason != "" {
					return observed, expected, reason
				}
			case []any:
				inner = append(inner, next...)
			}
		}
	}
	return "", "", ""
}
