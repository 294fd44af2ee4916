package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"slices"
	"strconv"

	"github.com/battle-hardened-ai/bhtrain/internal/detmath"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

func choice(ctx context.Context, l *lab) error {
	fmt.Printf("%-26s %6s %6s %6s %6s %6s %6s %6s %6s  %6s %5s %5s %5s %s\n", "variant", "all", "record", "params", "reqs", "FA par", "FA acc", "FA ord", "recall", "AUC", "ECE", "ECErec", "KiB", "recall 0")
	for _, v := range variants {
		if !l.wanted(v.name) {
			continue
		}
		j, err := l.train(ctx, func(m *trainer.Matrix) { classifierOnly(m); v.change(m) })
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		all := j.rows(j.in(trainer.Validation))
		records := j.rows(j.in(trainer.Validation, recordSources...))
		labelled := j.rows(j.in(trainer.Validation, "labelled"))
		requests := j.rows(j.in(trainer.Validation, "requests"))
		fa, _ := j.alarms(labelled)
		acc, _ := j.alarms(j.rows(j.in(trainer.Validation, "access")))
		ord, _ := j.alarms(j.rows(j.in(trainer.Validation, "ordinary")))
		_, rec := j.alarms(j.rows(j.in(trainer.Validation, "labelled", "requests", "targets")))
		fmt.Printf("%-26s %6.4f %6.4f %6.4f %6.4f %6.4f %6.4f %6.4f %6.4f  %6.4f %5.3f %5.3f %5.1f %v\n", v.name, j.macroF1(all), j.macroF1(records), j.macroF1(labelled), j.macroF1(requests), fa, acc, ord, rec, j.auc(records), j.ece(all), j.ece(records), float64(j.size())/1024, j.missed(all))
	}
	return nil
}

var recordSources = []string{"access", "attacks", "cowrie", "honeypot", "labelled", "ordinary", "requests", "sshd", "targets"}

type variant struct {
	name   string
	change func(m *trainer.Matrix)
}

var variants = []variant{
	{"default", func(*trainer.Matrix) {}},
	{"no requests", func(m *trainer.Matrix) { hold(m, "requests") }},
	{"light rows 1/1", func(m *trainer.Matrix) { m.Recipe.LightPPM = 1_000_000 }},
	{"rate .15", func(m *trainer.Matrix) { m.Recipe.Classifier.Boosting.LearningRatePPM = 150_000 }},
	{"8 leaves", func(m *trainer.Matrix) {
		m.Recipe.Classifier.Boosting.MaxLeaves, m.Recipe.Classifier.Boosting.Rounds = 8, 120
	}},
	{"31 leaves", func(m *trainer.Matrix) {
		m.Recipe.Classifier.Boosting.MaxLeaves, m.Recipe.Classifier.Boosting.MaxDepth = 31, 12
	}},
	{"light rows 1/32", func(m *trainer.Matrix) { m.Recipe.LightPPM = 31_250 }},
	{"light rows 1/128", func(m *trainer.Matrix) { m.Recipe.LightPPM = 7800 }},
	{"light rows 1/1000", func(m *trainer.Matrix) { m.Recipe.LightPPM = 1000 }},
	{"balance .5", func(m *trainer.Matrix) { m.Recipe.Classifier.Boosting.BalancePPM = 500_000 }},
	{"balance 0", func(m *trainer.Matrix) { m.Recipe.Classifier.Boosting.BalancePPM = 0 }},
	{"balance .75", func(m *trainer.Matrix) { m.Recipe.Classifier.Boosting.BalancePPM = 750_000 }},
	{"forest", func(m *trainer.Matrix) {
		m.Recipe.Classifier.Boosting = nil
		m.Recipe.Classifier.Forest = &trainer.ForestParams{Trees: 40, MaxDepth: 20, MaxLeaves: 400, MaxBins: 255, MinSplit: 5, MinRows: 2, MaxBytes: 135 << 10}
	}},
}

// size shows what the bound of its file costs the classifier.
func size(ctx context.Context, l *lab) error {
	fmt.Printf("%8s %8s %14s %14s\n", "KiB", "rounds", "macro-F1, all", "records")
	for _, kib := range []int{16, 32, 64, 96, 135, 200, 280} {
		if !l.wanted(strconv.Itoa(kib)) {
			continue
		}
		j, err := l.train(ctx, func(m *trainer.Matrix) {
			classifierOnly(m)
			m.Recipe.Classifier.Boosting.MaxBytes = kib << 10
		})
		if err != nil {
			return err
		}
		c := j.result.Summary.Metrics.Classifier
		fmt.Printf("%8.1f %8d %14.4f %14.4f\n", float64(j.size())/1024, c.Rounds, j.macroF1(j.rows(j.in(trainer.Validation))), j.macroF1(j.rows(j.in(trainer.Validation, recordSources...))))
	}
	return nil
}

// shipped writes the scores of the test rows: the probabilities of the classes,
// then reputation and anomaly.
func shipped(ctx context.Context, l *lab) error {
	j, err := l.train(ctx, nil)
	if err != nil {
		return err
	}
	var out []byte
	var s model.Scores
	rows := 0
	for i := range j.m.Rows {
		if j.m.Rows[i].Part != trainer.Test {
			continue
		}
		j.set.Score(j.m.X[i*j.m.Dim:(i+1)*j.m.Dim], &s)
		for _, p := range append(slices.Clone(s.Probabilities), s.Reputation, s.Anomaly) {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(p))
		}
		rows++
	}
	total := 0
	for _, f := range j.result.Files {
		total += len(f.Data)
	}
	fmt.Printf("%d rows, classes %v; the files of the models hold %d bytes\n", rows, j.m.Classes, total)
	return os.WriteFile(l.predictions, out, 0o644)
}

// hold takes sources out of training and validation: their rows are tested, but
// for derived ones, which are not used.
func hold(m *trainer.Matrix, names ...string) {
	for i := range m.Rows {
		for _, n := range names {
			if m.Sources[m.Rows[i].Source] == n {
				m.Rows[i].Part = trainer.Test
			}
		}
	}
}

func lighten(m *trainer.Matrix, by int32, names ...string) {
	for i := range m.Rows {
		for _, n := range names {
			if m.Sources[m.Rows[i].Source] == n {
				m.Rows[i].Weight = max(1, m.Rows[i].Weight/by)
			}
		}
	}
}

// reputation compares hyper-parameters of ip_reputation by cross-validation over
// the addresses of training and validation: addresses are few, and some have
// thousands of events, so one validation part says little.
func reputation(ctx context.Context, l *lab) error {
	const folds = 5
	var fold []int // by record
	for r, err := range l.snapshot.Records(ctx) {
		if err != nil {
			return err
		}
		h := fnv.New32a()
		h.Write([]byte(r.Address))
		fold = append(fold, int(h.Sum32()>>8)%folds)
	}
	fmt.Printf("%-34s %6s %8s %6s %8s\n", "variant", "rows", "log loss", "AUC", "ECE")
	for _, v := range []struct {
		name   string
		change func(p *trainer.BoostParams)
	}{
		{"default", func(*trainer.BoostParams) {}},
		{"all columns, 10 rows, balance .5", func(p *trainer.BoostParams) { p.ColumnsPPM, p.MinRows, p.BalancePPM = 1_000_000, 10, 500_000 }},
		{"100 rows a leaf", func(p *trainer.BoostParams) { p.MinRows = 100 }},
		{"half the rate", func(p *trainer.BoostParams) { p.LearningRatePPM /= 2 }},
		{"8 leaves", func(p *trainer.BoostParams) { p.MaxLeaves = 8 }},
		{"l2 20", func(p *trainer.BoostParams) { p.L2Milli = 20_000 }},
		{"l2 .001, least hessian .001", func(p *trainer.BoostParams) { p.L2Milli, p.MinHessianMilli = 1, 1 }},
	} {
		if !l.wanted(v.name) {
			continue
		}
		var list []scored
		var c calibration
		loss := 0.0
		for f := range folds {
			j, err := l.train(ctx, func(m *trainer.Matrix) {
				m.Recipe.Anomaly.Trees, m.Recipe.Classifier = 1, trainer.Classifier{Forest: &trainer.ForestParams{Trees: 1, MaxDepth: 2, MaxLeaves: 2, MaxBins: 2, MinSplit: 100, MinRows: 50, MaxBytes: 135 << 10}}
				v.change(&m.Recipe.Reputation)
				for i := range m.Rows {
					r := &m.Rows[i]
					switch {
					case r.Bad < 0:
					case r.Part == trainer.Test:
						r.Bad = -1
					case fold[r.Record] == f:
						r.Part = trainer.Test
					case fold[r.Record] == (f+1)%folds:
						r.Part = trainer.Validation
					default:
						r.Part = trainer.Training
					}
				}
			})
			if err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
			for i := range j.m.Rows {
				if r := &j.m.Rows[i]; r.Part == trainer.Test && r.Bad >= 0 {
					p := j.bad[i]
					list = append(list, scored{p, r.Bad == 1})
					c.add(max(p, 1-p), (p >= 0.5) == (r.Bad == 1))
					if r.Bad == 0 {
						p = 1 - p
					}
					loss -= detmath.Log(max(p, 1e-7))
				}
			}
		}
		fmt.Printf("%-34s %6d %8.4f %6.4f %8.4f\n", v.name, len(list), loss/float64(len(list)), area(list), c.error())
	}
	return nil
}
