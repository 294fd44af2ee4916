package trainer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// witnessed trains and returns the states that it was told of.
func witnessed(t testing.TB, s *dataset.Snapshot, r Recipe, workers int) (*Result, []string) {
	t.Helper()
	var states []string
	ctx := WithWitness(context.Background(), func(state string, digest canon.Digest) {
		states = append(states, fmt.Sprint(state, " ", digest))
	})
	res, err := Train(ctx, s, r, Options{Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	return res, states
}

func TestWitnessSeesTheSameAndChangesNothing(t *testing.T) {
	s := snapshotOf(t, sampleInputs(t))
	alone := train(t, s, DefaultRecipe(), 2)
	res, states := witnessed(t, s, DefaultRecipe(), 1)
	if !reflect.DeepEqual(res, alone) {
		t.Error("a witness changes the result")
	}
	for _, workers := range []int{2, 5} {
		if _, again := witnessed(t, s, DefaultRecipe(), workers); !slices.Equal(again, states) {
			t.Errorf("%d workers: other states", workers)
		}
	}
	for _, prefix := range []string{"classifier/bins ", "classifier/round/0/0 ", "reputation/bins ", "reputation/round/0/0 "} {
		if !slices.ContainsFunc(states, func(s string) bool { return strings.HasPrefix(s, prefix) }) {
			t.Errorf("no state %s", prefix)
		}
	}
	digests := map[string]bool{}
	for _, s := range states {
		digests[s[strings.IndexByte(s, ' '):]] = true
	}
	if len(digests) < len(states)*9/10 {
		t.Errorf("%d states with %d digests: what is summed up hardly changes", len(states), len(digests))
	}
	t.Logf("%d states", len(states))

	// One row more is seen from the first state on.
	path := filepath.Join(t.TempDir(), "more.json")
	if err := os.WriteFile(path, []byte(`{"timestamp":"2025-11-03T10:00:00Z","src_ip":"192.0.2.77","payload":"/status?x=1","attack_type":"benign"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	more, err := dataset.ParseInput("attacks", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, other := witnessed(t, snapshotOf(t, append(sampleInputs(t), more)), DefaultRecipe(), 2); other[0] == states[0] {
		t.Error("another row, the same bins")
	}
	// A forest has bins too.
	r := DefaultRecipe()
	r.Classifier = Classifier{Forest: &ForestParams{Trees: 5, MaxDepth: 8, MaxLeaves: 16, MaxBins: 32, MinSplit: 2, MinRows: 1, MaxBytes: 1 << 20}}
	if _, forest := witnessed(t, s, r, 2); !strings.HasPrefix(forest[0], "classifier/bins ") || forest[0] == states[0] {
		t.Errorf("%s", forest[0])
	}
}

// What a witness costs, and that its absence costs nothing to speak of, on the
// real data.
func BenchmarkWitness(b *testing.B) {
	s := realSnapshot(b)
	r := DefaultRecipe()
	r.WindowDays = 36_525 // the records are of many years
	m, err := BuildMatrix(context.Background(), s, r, Options{})
	if err != nil {
		b.Fatal(err)
	}
	for name, ctx := range map[string]context.Context{
		"off": context.Background(),
		"on":  WithWitness(context.Background(), func(string, canon.Digest) {}),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := m.Train(ctx, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
