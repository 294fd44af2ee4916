package model

import (
	"fmt"
	"math"

	"github.com/battle-hardened-ai/bhtrain/internal/detmath"
)

// Set is the four models of a release, ready to score. Many goroutines may
// use it, each with Scores of its own.
type Set struct {
	scoring    Scoring
	scaler     *Scaler
	anomaly    tail
	classifier tail
	reputation tail
	norm       float64
}

// tail is an ensemble and the value of its unit.
type tail struct {
	*Scorer
	unit float64 // 2^-Shift
}

// Open decodes the four model files, given by name (see Files), and the
// scoring document, and checks that they fit together. Missing and further
// files, and everything that Decode and DecodeScoring refuse, are ErrFormat.
// The set keeps nothing of its arguments.
func Open(files map[string][]byte, scoring []byte) (*Set, error) {
	s := new(Set)
	var err error
	if s.scoring, err = DecodeScoring(scoring); err != nil {
		return nil, err
	}
	if len(files) != len(Files()) {
		return nil, invalid("%d model files, want %d", len(files), len(Files()))
	}
	models := make([]*Model, 0, len(files))
	for _, name := range Files() {
		b, ok := files[name]
		if !ok {
			return nil, invalid("no %s", name)
		}
		m, err := Decode(name, b)
		if err != nil {
			return nil, err
		}
		models = append(models, m)
	}
	if err := s.scoring.fits(files, models); err != nil {
		return nil, err
	}
	s.scaler = models[0].Scaler
	isolation := models[1].Ensemble
	if err := isolation.rescale(s.scoring.Anomaly.Shift); err != nil {
		return nil, fmt.Errorf("%s: %w", AnomalyFile, err)
	}
	s.norm = isolation.Norm
	for i, t := range []*tail{&s.anomaly, &s.classifier, &s.reputation} {
		e := models[i+1].Ensemble
		if t.Scorer, err = NewScorer(e); err != nil {
			return nil, fmt.Errorf("%s: %w", Files()[i+1], err)
		}
		t.unit = math.Ldexp(1, -e.Shift)
	}
	return s, nil
}

// rescale expresses e in units of 2^-shift.
func (e *Ensemble) rescale(shift int) error {
	by := shift - e.Shift
	if by < 0 {
		return invalid("leaf values need shift %d, scoring says %d", e.Shift, shift)
	}
	scale := func(k *int32) error {
		v := math.Ldexp(float64(*k), by)
		if math.Abs(v) > MaxSum {
			return invalid("leaf value %d of shift %d is too large for shift %d of the scoring document", *k, e.Shift, shift)
		}
		*k = int32(v)
		return nil
	}
	for t := range e.Bias {
		if err := scale(&e.Bias[t]); err != nil {
			return err
		}
	}
	for i := range e.Trees {
		for j := range e.Trees[i].Nodes {
			if err := scale(&e.Trees[i].Nodes[j].Value); err != nil {
				return err
			}
		}
	}
	e.Shift = shift
	return nil
}

// Dim returns the number of features of a vector.
func (s *Set) Dim() int { return s.scoring.Dim }

// Classes returns the class names in the order of Scores.Probabilities. The
// caller must not change them.
func (s *Set) Classes() []string { return s.scoring.Classes }

// Scoring returns the scoring document. The caller must not change what it
// refers to.
func (s *Set) Scoring() Scoring { return s.scoring }

// Scores is what a set says about a vector. The zero value is ready for use;
// it holds working memory too, so reusing one saves allocations. One goroutine
// at a time may use it.
//
// Raw sums are exact. Scores and probabilities are computed from them in
// double precision and rounded to float32 once; all are from 0 to 1 and the
// same bits on every architecture. None is ever NaN.
type Scores struct {
	AnomalyRaw float32 // total path length; less is more anomalous
	Anomaly    float32 // 2^(-AnomalyRaw/Norm); more is more anomalous
	Flag       bool    // AnomalyRaw is at most the threshold of the scoring document

	Class         int       // index of the largest raw sum, the first of equals
	ClassRaw      []float32 // one per class
	Probabilities []float32 // one per class

	ReputationRaw float32 // log-odds that the address is bad
	Reputation    float32 // probability of that
	Bad           bool    // Reputation reaches the threshold of the scoring document

	scaled []float32
	sums   []int32
	powers []float64
	room   room
}

// fit makes room for a set's results.
func (out *Scores) fit(s *Set) {
	classes := len(s.scoring.Classes)
	if len(out.Probabilities) != classes || len(out.ClassRaw) != classes {
		out.Probabilities = make([]float32, classes)
		out.ClassRaw = make([]float32, classes)
	}
	if len(out.sums) < classes {
		out.sums = make([]int32, classes)
		out.powers = make([]float64, classes)
	}
	if len(out.scaled) < s.scoring.Dim {
		out.scaled = make([]float32, s.scoring.Dim)
	}
	for _, t := range [...]*Scorer{s.anomaly.Scorer, s.classifier.Scorer, s.reputation.Scorer} {
		t.fit(&out.room)
	}
}

// Score writes what the models say about x, of Dim values, to out. NaN in x is
// a missing value. It does not allocate when out was used with this set before.
func (s *Set) Score(x []float32, out *Scores) {
	out.fit(s)
	x = x[:s.scoring.Dim]
	sums := out.sums

	scaled := out.scaled[:len(x)]
	s.scaler.Apply(scaled, x)
	s.anomaly.sums(sums[:1], scaled, &out.room)
	raw := float64(float64(sums[0]) * s.anomaly.unit)
	out.AnomalyRaw = float32(raw)
	out.Anomaly = float32(detmath.Exp2(-(raw / s.norm)))
	out.Flag = int(sums[0]) <= s.scoring.Anomaly.Threshold

	sums = sums[:len(out.ClassRaw)]
	s.classifier.sums(sums, x, &out.room)
	out.Class = 0
	for c, k := range sums {
		out.ClassRaw[c] = float32(float64(k) * s.classifier.unit)
		if k > sums[out.Class] {
			out.Class = c
		}
	}
	softmax(out.Probabilities, out.powers, sums, sums[out.Class], s.classifier.unit)

	s.reputed(x, out)
}

// Reputation writes what the reputation model says about x, of Dim values, to
// ReputationRaw, Reputation and Bad of out, as Score does, and leaves the rest
// of out alone. It does not allocate when out was used with this set before.
func (s *Set) Reputation(x []float32, out *Scores) {
	out.fit(s)
	s.reputed(x[:s.scoring.Dim], out)
}

// reputed is Reputation with an out that fits.
func (s *Set) reputed(x []float32, out *Scores) {
	sum := out.sums[:1]
	s.reputation.sums(sum, x, &out.room)
	raw := float64(float64(sum[0]) * s.reputation.unit)
	out.ReputationRaw = float32(raw)
	out.Reputation = float32(detmath.Sigmoid(raw))
	out.Bad = float64(out.Reputation)*1e6 >= float64(s.scoring.Reputation.Threshold)
}

// softmax writes exp(sums) over its own sum to dst, added in order of index.
// Sums are in units; top is the largest, so that no power exceeds 1.
func softmax(dst []float32, powers []float64, sums []int32, top int32, unit float64) {
	total := 0.0
	for c, k := range sums {
		powers[c] = detmath.Exp(float64(float64(k-top) * unit))
		total += powers[c]
	}
	for c := range dst {
		dst[c] = float32(powers[c] / total)
	}
}
