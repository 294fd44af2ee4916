package model

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// MaxScoring is the limit of a scoring document, in bytes.
const MaxScoring = 1 << 16

// Scoring is the document that turns sums into answers: what the model files
// do not say themselves. It is the member "scoring" of release.json, canonical
// JSON of integers and strings.
type Scoring struct {
	Anomaly    AnomalyRule    `json:"anomaly"`
	Classes    []string       `json:"classes"` // of the classifier, in the order of its targets
	Dim        int            `json:"dim"`     // features of a vector
	Files      []Size         `json:"files"`   // the four, in the order of Files
	Reputation ReputationRule `json:"reputation"`
}

// AnomalyRule says when a vector is anomalous. The raw sum of the anomaly
// detector is a total path length: the shorter, the more anomalous. A vector
// is flagged when its raw sum is at most Threshold.
type AnomalyRule struct {
	Contamination int `json:"contamination_ppm"` // share of benign validation rows meant to be flagged, 0 to 500,000
	Shift         int `json:"shift"`             // Threshold is in units of 2^-Shift of the raw sum, 0 to MaxShift
	Threshold     int `json:"threshold"`         // -1 (flags nothing) to MaxSum
}

// ReputationRule says when an address is bad: when its reputation score times
// one million is at least Threshold.
type ReputationRule struct {
	Threshold int `json:"threshold_ppm"` // 0 to 1,000,000
}

// Size is the size of a model file.
type Size struct {
	Bytes  int    `json:"bytes"`
	Leaves int    `json:"leaves"` // 0 for the scaler
	Name   string `json:"name"`
	Splits int    `json:"splits"` // 0 for the scaler
	Trees  int    `json:"trees"`  // 0 for the scaler
}

// Sizes returns the sizes of the four model files, in the order of Files, as
// a scoring document states them. Files are as for Open.
func Sizes(files map[string][]byte) ([]Size, error) {
	sizes := make([]Size, 0, len(Files()))
	for _, name := range Files() {
		m, err := Decode(name, files[name])
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, m.size(name, len(files[name])))
	}
	return sizes, nil
}

func (m *Model) size(name string, n int) Size {
	s := Size{Name: name, Bytes: n}
	if m.Ensemble != nil {
		s.Splits, s.Leaves = m.Ensemble.Nodes()
		s.Trees = len(m.Ensemble.Trees)
	}
	return s
}

// DecodeScoring reads a scoring document. Anything but the canonical encoding
// of a valid one is ErrFormat.
func DecodeScoring(b []byte) (Scoring, error) {
	var s Scoring
	if len(b) > MaxScoring {
		return s, fmt.Errorf("scoring: %w", tooLarge("bytes", len(b), MaxScoring))
	}
	if err := canon.UnmarshalCanonical(b, &s); err != nil {
		return Scoring{}, fmt.Errorf("scoring: %w: %w", ErrFormat, err)
	}
	again, err := s.Encode()
	if err != nil {
		return Scoring{}, err
	}
	if !bytes.Equal(b, again) {
		return Scoring{}, fmt.Errorf("scoring: %w", invalid("members are missing"))
	}
	return s, nil
}

// Encode returns the canonical JSON of s, or ErrFormat when s is not valid.
func (s Scoring) Encode() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("scoring: %w", err)
	}
	b, err := canon.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("scoring: %w: %w", ErrFormat, err)
	}
	if len(b) > MaxScoring {
		return nil, fmt.Errorf("scoring: %w", tooLarge("bytes", len(b), MaxScoring))
	}
	return b, nil
}

// Validate reports the first rule that s breaks by itself, as ErrFormat. Open
// checks that it fits the files.
func (s Scoring) Validate() error {
	for _, r := range []struct {
		name           string
		value, lo, end int
	}{
		{"anomaly contamination_ppm", s.Anomaly.Contamination, 0, 500_000},
		{"anomaly shift", s.Anomaly.Shift, 0, MaxShift},
		{"anomaly threshold", s.Anomaly.Threshold, -1, MaxSum},
		{"dim", s.Dim, 1, MaxDim},
		{"number of classes", len(s.Classes), 2, MaxTargets},
		{"reputation threshold_ppm", s.Reputation.Threshold, 0, 1_000_000},
	} {
		if r.value < r.lo || r.value > r.end {
			return invalid("%s %d, want %d to %d", r.name, r.value, r.lo, r.end)
		}
	}
	if err := validateClasses(s.Classes); err != nil {
		return err
	}
	names := Files()
	if len(s.Files) != len(names) {
		return invalid("%d files, want %d", len(s.Files), len(names))
	}
	for i, f := range s.Files {
		if f.Name != names[i] {
			return invalid("file %d is %q, want %q", i, f.Name, names[i])
		}
		if f.Bytes < 1 || f.Bytes > MaxFile || f.Trees < 0 || f.Trees > MaxTrees ||
			f.Splits < 0 || f.Splits > MaxNodes || f.Leaves < 0 || f.Leaves > MaxNodes+MaxTrees {
			return invalid("sizes of %s are out of range", f.Name)
		}
	}
	return nil
}

// fits reports how s differs from the decoded files, in the order of Files.
func (s Scoring) fits(files map[string][]byte, models []*Model) error {
	for i, name := range Files() {
		if got := models[i].size(name, len(files[name])); got != s.Files[i] {
			return invalid("%s: file has %+v, scoring says %+v", name, got, s.Files[i])
		}
		dim := 0
		if m := models[i]; m.Scaler != nil {
			dim = len(m.Scaler.Offset)
		} else {
			dim = m.Ensemble.Dim
		}
		if dim != s.Dim {
			return invalid("%s: %d features, scoring says %d", name, dim, s.Dim)
		}
	}
	if classes := models[2].Ensemble.Classes; !slices.Equal(classes, s.Classes) {
		return invalid("%s: classes %q, scoring says %q", ClassifierFile, classes, s.Classes)
	}
	return nil
}
