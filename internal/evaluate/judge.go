package main

import (
	"context"
	"math"
	"slices"

	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// judge is a trained variant and what it says of every row of its matrix.
type judge struct {
	m      *trainer.Matrix
	result *trainer.Result
	set    *model.Set
	truth  []int // class of the row, or -1
	said   []int
	attack []float64 // 1 - probability of benign
	sure   []float64 // probability of the class that was said
	bad    []float64 // reputation: probability of bad
	benign int
}

// train trains a copy of the matrix that change has been at. change may
// replace X and alter Rows and Recipe; what a row is stays as it was.
func (l *lab) train(ctx context.Context, change func(m *trainer.Matrix)) (*judge, error) {
	m := *l.m
	m.Rows = slices.Clone(l.m.Rows)
	if change != nil {
		change(&m)
	}
	res, err := m.Train(ctx, trainer.Options{})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, f := range res.Files {
		files[f.Name] = f.Data
	}
	set, err := model.Open(files, res.Scoring)
	if err != nil {
		return nil, err
	}
	j := &judge{m: &m, result: res, set: set, benign: slices.Index(m.Classes, "benign")}
	var s model.Scores
	for i := range m.Rows {
		set.Score(m.X[i*m.Dim:(i+1)*m.Dim], &s)
		j.truth = append(j.truth, int(l.m.Rows[i].Class))
		j.said = append(j.said, s.Class)
		j.attack = append(j.attack, 1-float64(s.Probabilities[j.benign]))
		j.bad = append(j.bad, float64(s.Reputation))
		j.sure = append(j.sure, float64(s.Probabilities[s.Class]))
	}
	return j, nil
}

// classifierOnly makes the other two models cheap.
func classifierOnly(m *trainer.Matrix) {
	m.Recipe.Anomaly.Trees, m.Recipe.Reputation.Rounds = 1, 1
}

// rows returns the labelled rows that are not derived for which keep is true.
func (j *judge) rows(keep func(r *trainer.Row) bool) []int {
	var rows []int
	for i := range j.m.Rows {
		if j.truth[i] >= 0 && !j.m.Rows[i].Derived && keep(&j.m.Rows[i]) {
			rows = append(rows, i)
		}
	}
	return rows
}

// in is true for rows of a part and of one of the named sources, or of any
// when none is named.
func (j *judge) in(part trainer.Part, names ...string) func(r *trainer.Row) bool {
	return func(r *trainer.Row) bool {
		return r.Part == part && (names == nil || slices.Contains(names, j.m.Sources[r.Source]))
	}
}

// macroF1 is the mean F1 over the classes that occur in truth.
func (j *judge) macroF1(rows []int) float64 {
	k := len(j.m.Classes)
	truth, said, both := make([]int, k), make([]int, k), make([]int, k)
	for _, i := range rows {
		truth[j.truth[i]]++
		said[j.said[i]]++
		if j.truth[i] == j.said[i] {
			both[j.truth[i]]++
		}
	}
	sum, n := 0.0, 0
	for c := range k {
		if truth[c] > 0 {
			sum += 2 * float64(both[c]) / float64(truth[c]+said[c])
			n++
		}
	}
	return sum / float64(max(n, 1))
}

// alarms returns the share of benign rows that are said to be an attack, and
// of attacks that are.
func (j *judge) alarms(rows []int) (falseAlarms, recall float64) {
	var n, said [2]int
	for _, i := range rows {
		side := 1
		if j.truth[i] == j.benign {
			side = 0
		}
		n[side]++
		if j.said[i] != j.benign {
			said[side]++
		}
	}
	return share(said[0], n[0]), share(said[1], n[1])
}

func share(a, b int) float64 {
	if b == 0 {
		return math.NaN()
	}
	return float64(a) / float64(b)
}

// recallAt returns the share of the attack rows whose score is above that of
// all but the given share of the benign rows.
func (j *judge) recallAt(attacks, benign []int, alarms float64) float64 {
	scores := make([]float64, 0, len(benign))
	for _, i := range benign {
		scores = append(scores, j.attack[i])
	}
	slices.Sort(scores)
	limit := 0.0
	if at := len(scores) - 1 - int(alarms*float64(len(scores))); at >= 0 {
		limit = scores[at]
	}
	hit := 0
	for _, i := range attacks {
		if j.attack[i] > limit {
			hit++
		}
	}
	return share(hit, len(attacks))
}

// scored is one row of a ranking.
type scored struct {
	score  float64
	attack bool
}

// auc is the area under the ROC curve of attack against benign.
func (j *judge) auc(rows []int) float64 {
	var list []scored
	for _, i := range rows {
		list = append(list, scored{j.attack[i], j.truth[i] != j.benign})
	}
	return area(list)
}

// area is the area under the ROC curve.
func area(list []scored) float64 {
	slices.SortFunc(list, func(a, b scored) int {
		switch {
		case a.score < b.score:
			return -1
		case a.score > b.score:
			return 1
		}
		return 0
	})
	won, pos, neg := 0.0, 0, 0
	for i := 0; i < len(list); {
		p, n := 0, 0
		k := i
		for ; k < len(list) && list[k].score == list[i].score; k++ {
			if list[k].attack {
				p++
			} else {
				n++
			}
		}
		won += float64(p) * (float64(neg) + float64(n)/2)
		pos, neg, i = pos+p, neg+n, k
	}
	return won / float64(pos) / float64(neg)
}

// ece is the expected calibration error in 15 equal ranges.
func (j *judge) ece(rows []int) float64 {
	var c calibration
	for _, i := range rows {
		c.add(j.sure[i], j.said[i] == j.truth[i])
	}
	return c.error()
}

// calibration gathers how far stated probabilities can be believed.
type calibration struct {
	gap  [15]float64
	rows int
}

func (c *calibration) add(sure float64, right bool) {
	b := min(14, int(sure*15))
	c.gap[b] += sure
	if right {
		c.gap[b]--
	}
	c.rows++
}

func (c *calibration) error() float64 {
	sum := 0.0
	for _, g := range c.gap {
		sum += math.Abs(g)
	}
	return sum / float64(c.rows)
}

// missed names the classes of at least 50 training rows that no row of rows is
// rightly said to be of, though some are.
func (j *judge) missed(rows []int) []string {
	k := len(j.m.Classes)
	training, truth, both := make([]int, k), make([]int, k), make([]int, k)
	for i, c := range j.truth {
		if r := &j.m.Rows[i]; c >= 0 && r.Part == trainer.Training && !r.Derived {
			training[c]++
		}
	}
	for _, i := range rows {
		truth[j.truth[i]]++
		if j.truth[i] == j.said[i] {
			both[j.truth[i]]++
		}
	}
	var names []string
	for c := range k {
		if training[c] >= 50 && truth[c] > 0 && both[c] == 0 {
			names = append(names, j.m.Classes[c])
		}
	}
	return names
}

// size is the number of bytes of the classifier's file.
func (j *judge) size() int {
	for _, f := range j.result.Files {
		if f.Name == model.ClassifierFile {
			return len(f.Data)
		}
	}
	return 0
}
