package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/trainer"
)

// sources trains without one source at a time and tests on all its rows.
// Beside it stands what a model that knows the source does on its test rows.
func sources(ctx context.Context, l *lab) error {
	base, err := l.train(ctx, classifierOnly)
	if err != nil {
		return err
	}
	fmt.Printf("%-10s %8s %8s %8s %8s %8s   benign rows by\n", "source", "model", "attacks", "at 0.1 %", "at 1 %", "alarms")
	for _, name := range []string{"labelled", "requests", "targets", "cowrie", "access", "exploitdb"} {
		if !l.wanted(name) {
			continue
		}
		apart, err := l.train(ctx, func(m *trainer.Matrix) { classifierOnly(m); hold(m, name) })
		if err != nil {
			fmt.Printf("%-10s %v\n", name, err)
			continue
		}
		base.recall("knows it", name)
		apart.recall("does not", name)
	}
	return nil
}

// recall prints how many of a source's attacks are found at two rates of
// false alarms among the source's own benign test rows, or when it has none
// among those of all sources, and the share of its own benign rows that raise
// an alarm.
func (j *judge) recall(model, name string) {
	rows := j.rows(j.in(trainer.Test, name))
	var attacks, benign []int
	for _, i := range rows {
		if j.truth[i] == j.benign {
			benign = append(benign, i)
		} else {
			attacks = append(attacks, i)
		}
	}
	alarms, _ := j.alarms(rows)
	by := name
	if len(benign) < 1000 {
		by = "all sources"
		benign = slices.DeleteFunc(j.rows(j.in(trainer.Test)), func(i int) bool { return j.truth[i] != j.benign })
	}
	fmt.Printf("%-10s %8s %8d %8.4f %8.4f %8.4f   %d of %s\n", name, model, len(attacks), j.recallAt(attacks, benign, 0.001), j.recallAt(attacks, benign, 0.01), alarms, len(benign), by)
}

// exploitDB takes away what comes from ExploitDB, part by part, and measures on
// the test rows of other sources; then it does so with what the reputation model sees.
func exploitDB(ctx context.Context, l *lab) error {
	zero := func(m *trainer.Matrix, g feature.Group) {
		m.X = slices.Clone(m.X)
		for c, col := range feature.Columns {
			if col.Group == g {
				for i := c; i < len(m.X); i += m.Dim {
					m.X[i] = 0
				}
			}
		}
	}
	noTitles := func(m *trainer.Matrix) { hold(m, trainer.ExploitSource) }
	noRequests := func(m *trainer.Matrix) { hold(m, "requests") }
	noLexicon := func(m *trainer.Matrix) { zero(m, feature.Lexical) }
	fmt.Printf("%-24s %8s %8s %8s %8s %8s %8s\n", "classifier", "params", "found", "alarms", "scans", "ordinary", "titles")
	for _, v := range []variant{
		{"everything", func(*trainer.Matrix) {}},
		{"no titles", noTitles},
		{"no requests", noRequests},
		{"no lexicon", noLexicon},
		{"nothing of ExploitDB", func(m *trainer.Matrix) { noTitles(m); noRequests(m); noLexicon(m) }},
	} {
		if !l.wanted(v.name) {
			continue
		}
		j, err := l.train(ctx, func(m *trainer.Matrix) { classifierOnly(m); v.change(m) })
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		params := j.rows(j.in(trainer.Test, "labelled"))
		alarms, found := j.alarms(params)
		_, scans := j.alarms(j.rows(j.in(trainer.Test, "targets")))
		ordinary, _ := j.alarms(j.rows(j.in(trainer.Test, trainer.OrdinarySource)))
		fmt.Printf("%-24s %8.4f %8.4f %8.4f %8.4f %8.4f %8.4f\n", v.name, j.macroF1(params), found, alarms, scans, ordinary, j.macroF1(j.rows(j.in(trainer.Test, trainer.ExploitSource))))
	}
	fmt.Printf("%-24s %8s %8s %8s %8s\n", "reputation", "AUC", "F1", "recall", "ECE")
	for _, v := range []variant{
		{"address and history", func(*trainer.Matrix) {}},
		{"address alone", func(m *trainer.Matrix) { zero(m, feature.History) }},
		{"history alone", func(m *trainer.Matrix) { zero(m, feature.Address) }},
	} {
		if !l.wanted(v.name) {
			continue
		}
		j, err := l.train(ctx, func(m *trainer.Matrix) {
			m.Recipe.Anomaly.Trees, m.Recipe.Classifier.Boosting.Rounds = 1, 1
			v.change(m)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		r := j.result.Summary.Metrics.Reputation
		fmt.Printf("%-24s %8.4f %8.4f %8.4f %8.4f\n", v.name, float64(r.AUCPPM)/1e6, float64(r.F1PPM)/1e6, float64(r.RecallPPM)/1e6, float64(r.ECEPPM)/1e6)
	}
	return nil
}

// unlike shows ordinary traffic to models that have seen none of it, have not
// seen its shape (but those of the other half), and have seen its shape.
func unlike(ctx context.Context, l *lab) error {
	shapes := trainer.OrdinaryShapes()
	shape := func(r *trainer.Row) int { return int(r.Record % int64(len(shapes))) }
	ordinary := l.m.Sources
	made := func(r *trainer.Row) bool { return ordinary[r.Source] == trainer.OrdinarySource }
	forget := func(half int) func(m *trainer.Matrix) {
		return func(m *trainer.Matrix) {
			classifierOnly(m)
			for i := range m.Rows {
				if r := &m.Rows[i]; made(r) && (half < 0 || shape(r)%2 == half) {
					r.Part = trainer.Test
				}
			}
		}
	}
	var judges [4]*judge
	for i, change := range []func(m *trainer.Matrix){forget(-1), forget(0), forget(1), classifierOnly} {
		var err error
		if judges[i], err = l.train(ctx, change); err != nil {
			return err
		}
	}
	columns := []string{"none seen", "shape unseen", "shape seen"}
	fmt.Printf("%-30s %6s %12s %12s %12s\n", "false alarms", "rows", columns[0], columns[1], columns[2])
	var sums [3]int
	all := 0
	for k, name := range shapes {
		// Test rows of the split: no model was fitted on them.
		rows := judges[3].rows(func(r *trainer.Row) bool { return made(r) && r.Part == trainer.Test && shape(r) == k })
		fmt.Printf("%-30s %6d", name, len(rows))
		all += len(rows)
		for c, j := range []*judge{judges[0], judges[1+k%2], judges[3]} {
			said := 0
			for _, i := range rows {
				if j.said[i] != j.benign {
					said++
				}
			}
			sums[c] += said
			fmt.Printf(" %12.4f", share(said, len(rows)))
		}
		fmt.Println()
	}
	fmt.Printf("%-30s %6d %12.4f %12.4f %12.4f\n", "all", all, share(sums[0], all), share(sums[1], all), share(sums[2], all))
	for c, j := range []*judge{judges[0], judges[1], judges[2], judges[3]} {
		rows := j.rows(j.in(trainer.Test, "labelled"))
		alarms, found := j.alarms(rows)
		fmt.Printf("parameters, model %d: found %.4f, alarms %.4f\n", c, found, alarms)
	}
	return nil
}
