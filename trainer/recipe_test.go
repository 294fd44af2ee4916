package trainer

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func TestDefaultRecipeIsValidAndComesBack(t *testing.T) {
	r := DefaultRecipe()
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	b, err := canon.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeRecipe(b)
	if err != nil || !reflect.DeepEqual(back, r) {
		t.Errorf("%+v, %v", back, err)
	}
	d, err := r.Digest()
	if err != nil || d != canon.Sum(b) {
		t.Errorf("digest %s, %v", d, err)
	}
	// Recipes share nothing: one may be changed without the others.
	DefaultRecipe().Classifier.Boosting.Rounds = 7
	if reflect.DeepEqual(DefaultRecipe().Classifier.Boosting.Rounds, 7) {
		t.Error("default recipes share their parameters")
	}
}

// numbers calls f with a pointer to each integer of v and its JSON path.
func numbers(v reflect.Value, path string, f func(path string, v reflect.Value)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			at := name
			if path != "" {
				at = path + "." + name
			}
			numbers(v.Field(i), at, f)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			numbers(v.Elem(), path, f)
		}
	case reflect.Int, reflect.Int64:
		f(path, v)
	}
}

func TestEveryNumberOfARecipeHasBounds(t *testing.T) {
	recipes := map[string]func() Recipe{"boosting": DefaultRecipe, "forest": forestRecipe}
	for name, fresh := range recipes {
		count := 0
		base := fresh()
		numbers(reflect.ValueOf(&base), "", func(path string, _ reflect.Value) {
			for _, bad := range []int64{-1 << 60, 1 << 60} {
				r := fresh()
				numbers(reflect.ValueOf(&r), "", func(p string, v reflect.Value) {
					if p == path {
						if v.OverflowInt(bad) {
							bad = bad >> 31
						}
						v.SetInt(bad)
					}
				})
				err := r.Validate()
				if !errors.Is(err, ErrRecipe) || !strings.Contains(err.Error(), path+" is ") {
					t.Errorf("%s: %s = %d: %v", name, path, bad, err)
				}
			}
			count++
		})
		if count < 20 {
			t.Errorf("%s: only %d numbers were found", name, count)
		}
	}
	r := DefaultRecipe()
	r.Split.Salt = strings.Repeat("x", 65)
	if err := r.Validate(); !errors.Is(err, ErrRecipe) {
		t.Errorf("long salt: %v", err)
	}
	r = DefaultRecipe()
	r.Split.TrainingPPM, r.Split.ValidationPPM = 900_000, 100_000
	if err := r.Validate(); !errors.Is(err, ErrRecipe) {
		t.Errorf("no test part: %v", err)
	}
	r = DefaultRecipe()
	r.Classifier.Forest = forestRecipe().Classifier.Forest
	if err := r.Validate(); !errors.Is(err, ErrRecipe) {
		t.Errorf("two learners: %v", err)
	}
	r.Classifier = Classifier{}
	if err := r.Validate(); !errors.Is(err, ErrRecipe) {
		t.Errorf("no learner: %v", err)
	}
}

func forestRecipe() Recipe {
	r := DefaultRecipe()
	r.Classifier = Classifier{Forest: &ForestParams{Trees: 30, MaxDepth: 20, MaxLeaves: 4000, MaxBins: 255, MinSplit: 5, MinRows: 2, MaxBytes: 135 << 10}}
	return r
}

func TestDecodingRefusesOtherRecipes(t *testing.T) {
	r := DefaultRecipe()
	good, err := canon.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"unknown field":     {`"seed":1`, `"seed":1,"sede":1`},
		"duplicate field":   {`"seed":1`, `"seed":1,"seed":1`},
		"fraction":          {`"seed":1`, `"seed":1.5`},
		"another algorithm": {`"algorithm":2`, `"algorithm":1`},
		"missing field":     {`"window_days":730`, `"window_days":0`},
	} {
		b := strings.Replace(string(good), change[0], change[1], 1)
		if b == string(good) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := DecodeRecipe([]byte(b)); !errors.Is(err, ErrRecipe) && !errors.Is(err, canon.ErrSyntax) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodeRecipe(append(good, ' ', '{')); err == nil {
		t.Error("trailing data is accepted")
	}
}

func FuzzDecodeRecipe(f *testing.F) {
	for _, r := range []Recipe{DefaultRecipe(), forestRecipe()} {
		b, err := canon.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"classifier":{"boosting":null,"forest":null}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecipe(b)
		if err != nil {
			if !errors.Is(err, ErrRecipe) && !errors.Is(err, canon.ErrSyntax) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		c, err := canon.Marshal(r)
		if err != nil {
			t.Fatalf("a valid recipe has no canonical form: %v", err)
		}
		back, err := DecodeRecipe(c)
		if err != nil || !reflect.DeepEqual(back, r) {
			t.Fatalf("%s does not come back: %v", c, err)
		}
	})
}

func TestRecipeWhoseScoresWouldNotFit(t *testing.T) {
	r := DefaultRecipe()
	r.Reputation.Rounds, r.Reputation.MaxStepMilli, r.Reputation.LearningRatePPM = 1000, 100_000, 1_000_000
	if err := r.Validate(); !errors.Is(err, ErrRecipe) || !strings.Contains(err.Error(), "reputation: rounds") {
		t.Errorf("scores of 100,000: %v", err)
	}
	r.Reputation.MaxStepMilli = 1500
	if err := r.Validate(); err != nil {
		t.Errorf("scores of 1,500: %v", err)
	}
	r.Classifier.Boosting.Rounds, r.Classifier.Boosting.MaxStepMilli, r.Classifier.Boosting.LearningRatePPM = 1000, 1501, 1_000_000
	if err := r.Validate(); !errors.Is(err, ErrRecipe) || !strings.Contains(err.Error(), "classifier.boosting: rounds") {
		t.Errorf("scores of 1,501: %v", err)
	}
}
