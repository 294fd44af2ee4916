// Command evaluate measures how the classifier and the other models of a
// recipe do on data that they have not seen, beyond what a release says of
// itself:
//
//	go run ./internal/evaluate --snapshot SNAPSHOT [--as-of TIME --window DAYS] choice|reputation|sources|exploitdb|unlike|size|shipped
//
// choice compares learners and hyper-parameters of the classifier on validation
// rows, reputation those of ip_reputation by cross-validation over addresses. sources
// trains without one source and tests on it. exploitdb takes the parts of
// ExploitDB away one by one. unlike shows ordinary traffic of shapes that a
// model has not seen. size trains the classifier under several bounds of its
// size. shipped writes what the recipe's models say of the test rows, for
// internal/versus/quality.py. Everything is decided by the snapshot and the recipe.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/trainer"
)

var studies = map[string]func(context.Context, *lab) error{
	"choice": choice, "reputation": reputation, "sources": sources, "exploitdb": exploitDB, "unlike": unlike,
	"size": size, "shipped": shipped,
}

func main() {
	dir := pflag.String("snapshot", "", "snapshot directory (required)")
	asOf := pflag.String("as-of", "", "RFC 3339 time that the recipe's window ends at (default: the newest record)")
	window := pflag.Int64("window", 0, "days of the recipe's window (default: the recipe's)")
	ordinary := pflag.Int64("ordinary", -1, "ordinary_ppm of the recipe (default: the recipe's)")
	derived := pflag.Int64("derived", -1, "derived_ppm of the recipe (default: the recipe's)")
	predictions := pflag.String("predictions", "shipped.f32", "file that shipped writes, float32 little-endian by test row: classes, reputation, anomaly")
	only := pflag.StringArray("only", nil, "variants of the study to run (default: all)")
	pflag.Parse()
	study := studies[pflag.Arg(0)]
	if *dir == "" || pflag.NArg() != 1 || study == nil {
		fmt.Fprintln(os.Stderr, "usage: evaluate --snapshot DIR choice|reputation|sources|exploitdb|unlike|size|shipped")
		os.Exit(2)
	}
	r := trainer.DefaultRecipe()
	if *ordinary >= 0 {
		r.OrdinaryPPM = *ordinary
	}
	if *derived >= 0 {
		r.DerivedPPM = *derived
	}
	if *window > 0 {
		r.WindowDays = *window
	}
	if *asOf != "" {
		t, err := time.Parse(time.RFC3339, *asOf)
		if err != nil {
			fmt.Fprintln(os.Stderr, "evaluate:", err)
			os.Exit(2)
		}
		r.AsOf = t.UnixMicro()
	}
	if err := run(*dir, r, *only, *predictions, study); err != nil {
		fmt.Fprintln(os.Stderr, "evaluate:", err)
		os.Exit(1)
	}
}

func run(dir string, r trainer.Recipe, only []string, predictions string, study func(context.Context, *lab) error) error {
	ctx := context.Background()
	s, err := dataset.Open(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	m, err := trainer.BuildMatrix(ctx, s, r, trainer.Options{})
	if err != nil {
		return err
	}
	return study(ctx, &lab{m: m, snapshot: s, only: only, predictions: predictions})
}

// lab trains variants of one matrix.
type lab struct {
	m        *trainer.Matrix
	snapshot *dataset.Snapshot
	only     []string

	predictions string // file
}

func (l *lab) wanted(variant string) bool { return l.only == nil || slices.Contains(l.only, variant) }
