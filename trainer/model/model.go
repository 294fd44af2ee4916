package model

import (
	"errors"
	"fmt"
	"math"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Names of the four model files of a release.
const (
	ScalerFile     = "feature_scaler.onnx"
	AnomalyFile    = "anomaly_detector.onnx"
	ClassifierFile = "threat_classifier.onnx"
	ReputationFile = "ip_reputation.onnx"
)

// Files returns the four file names in the order in which a release lists
// them: scaler, anomaly detector, threat classifier, reputation.
func Files() [4]string {
	return [4]string{ScalerFile, AnomalyFile, ClassifierFile, ReputationFile}
}

// Limits of a model file. A reader refuses what lies above them before it
// allocates for it; FORMAT.md §5 gives the reasons.
const (
	MaxFile    = 1 << 20 // bytes of one file
	MaxDim     = 1024    // features
	MaxTargets = 64      // sums of one ensemble, classes of a classifier
	MaxTrees   = 8192    // trees of one ensemble
	MaxNodes   = 1 << 16 // splits of one ensemble
	MaxTree    = 1 << 15 // nodes of one tree, leaves included
	MaxDepth   = 64      // splits between the root and a leaf
	MaxShift   = 40      // binary digits after the point of a leaf value
	MaxSum     = 1 << 24 // sum of magnitudes, in units of 2^-Shift; see Ensemble
	MaxClass   = 64      // bytes of a class name
)

// ErrFormat is the class of every reason not to accept a model file or a
// scoring document: not ours, not canonical, over a limit, or not fitting the
// other files. An error about a limit is canon.ErrTooLarge as well.
var ErrFormat = errors.New("not a valid model")

func invalid(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, a...))
}

// tooLarge reports n things where at most limit are allowed.
func tooLarge(what string, n, limit int) error {
	return fmt.Errorf("%w: %w: %d %s, limit %d", ErrFormat, canon.ErrTooLarge, n, what, limit)
}

// Scaler is the content of feature_scaler.onnx: column j of a vector becomes
// float32(x[j]-Offset[j]) * Scale[j], rounded after each of the two operations.
type Scaler struct {
	Offset []float32 // finite, one per feature
	Scale  []float32 // finite, not negative, one per feature; 0 silences a column
}

// Validate reports the first rule of the format that s breaks, as ErrFormat.
func (s *Scaler) Validate() error {
	switch {
	case len(s.Offset) == 0 || len(s.Offset) != len(s.Scale):
		return invalid("scaler with %d offsets and %d scales", len(s.Offset), len(s.Scale))
	case len(s.Offset) > MaxDim:
		return tooLarge("features", len(s.Offset), MaxDim)
	}
	for j := range s.Offset {
		if !finite(s.Offset[j]) || !finite(s.Scale[j]) || s.Scale[j] < 0 {
			return invalid("scaler column %d: offset %v, scale %v", j, s.Offset[j], s.Scale[j])
		}
	}
	return nil
}

// Apply writes the scaled x to dst. Both have one value per feature; they may
// be the same slice. Infinities and NaN pass through by IEEE rules.
func (s *Scaler) Apply(dst, x []float32) {
	offset, scale := s.Offset, s.Scale
	x, dst, scale = x[:len(offset)], dst[:len(offset)], scale[:len(offset)]
	for j, o := range offset {
		dst[j] = float32(float32(x[j]-o) * scale[j])
	}
}

// Transform says what an ensemble's sums mean, and with that which of the
// model files the ensemble is.
type Transform uint8

// Transforms. Formulas are in double precision on the exact raw sum, rounded
// to float32 once at the end.
const (
	// None: the raw sums. No model file has it.
	None Transform = iota
	// Isolation: 2^(-raw/Norm), one target, leaf values and bias not negative:
	// anomaly_detector.onnx. Its vectors are scaled ones.
	Isolation
	// Softmax: exp(raw[c]) / sum of exp(raw), one target per class, at least
	// two: threat_classifier.onnx.
	Softmax
	// Sigmoid: 1/(1+exp(-raw)), one target: ip_reputation.onnx.
	Sigmoid
)

// file returns the name of the model file that holds such an ensemble, or "".
func (t Transform) file() string {
	switch t {
	case Isolation:
		return AnomalyFile
	case Softmax:
		return ClassifierFile
	case Sigmoid:
		return ReputationFile
	}
	return ""
}

// Ensemble is a sum of trees. Every leaf value is an integer k that stands for
// k/2^Shift, added to one target; the raw sum of target t is Bias[t] plus what
// the leaves reached in all trees add to t.
//
// For each target, |Bias| plus the largest |k| for that target in every tree
// is at most MaxSum. So every partial sum is a float32 without rounding, and
// raw sums are the same bits in any order of summation, here and in any ONNX
// runtime.
type Ensemble struct {
	Dim       int       // features of a vector, 1 to MaxDim
	Targets   int       // sums, 1 to MaxTargets
	Shift     int       // 0 to MaxShift
	Bias      []int32   // one per target, in units of 2^-Shift; nil means zeros
	Trees     []Tree    // 1 to MaxTrees
	Transform Transform // which file this is
	Classes   []string  // Softmax only: one per target, distinct, printable ASCII without spaces
	Norm      float64   // Isolation only: trees × expected path length, finite and above 0
}

// Tree is a binary tree. Nodes[0] is the root; the children of a node come
// after it, and each node but the root is the child of exactly one. A tree of
// a single leaf is a constant.
type Tree struct {
	Nodes []Node
}

// Node is a split or a leaf.
//
// A split sends x to Left when x[Feature] <= Threshold in IEEE 754 order, so
// equal values go left and -0 equals 0; other values go to Right. NaN goes to
// Left when MissingLeft, else to Right.
type Node struct {
	Threshold   float32 // split: not NaN; infinities are allowed
	Feature     int32   // split: 0 to Dim-1
	Left, Right int32   // split: indexes in Tree.Nodes
	Target      int32   // leaf: 0 to Targets-1
	Value       int32   // leaf: k
	Leaf        bool
	MissingLeft bool // split: where NaN goes
}

// Validate reports the first rule of the format that e breaks, as ErrFormat.
func (e *Ensemble) Validate() error {
	switch {
	case e.Dim < 1:
		return invalid("ensemble of %d features", e.Dim)
	case e.Dim > MaxDim:
		return tooLarge("features", e.Dim, MaxDim)
	case e.Targets < 1:
		return invalid("ensemble of %d targets", e.Targets)
	case e.Targets > MaxTargets:
		return tooLarge("targets", e.Targets, MaxTargets)
	case e.Shift < 0 || e.Shift > MaxShift:
		return invalid("shift %d: want 0 to %d", e.Shift, MaxShift)
	case len(e.Trees) < 1:
		return invalid("ensemble without trees")
	case len(e.Trees) > MaxTrees:
		return tooLarge("trees", len(e.Trees), MaxTrees)
	case e.Bias != nil && len(e.Bias) != e.Targets:
		return invalid("%d biases for %d targets", len(e.Bias), e.Targets)
	}
	if err := e.validateTransform(); err != nil {
		return err
	}
	bound := make([]int64, e.Targets)
	for t, k := range e.Bias {
		if k < 0 && e.Transform == Isolation {
			return invalid("negative path length as bias")
		}
		bound[t] = magnitude(k)
	}
	peak := make([]int64, e.Targets)
	splits := 0
	for i := range e.Trees {
		n, err := e.validateTree(&e.Trees[i], peak)
		if err != nil {
			return fmt.Errorf("tree %d: %w", i, err)
		}
		if splits += n; splits > MaxNodes {
			return tooLarge("splits", splits, MaxNodes)
		}
		for t := range peak {
			bound[t] += peak[t]
			peak[t] = 0
		}
	}
	for t, sum := range bound {
		if sum > MaxSum {
			return invalid("target %d: magnitudes sum to %d, limit %d: sums would not be exact", t, sum, MaxSum)
		}
	}
	return nil
}

func (e *Ensemble) validateTransform() error {
	switch e.Transform {
	case None, Isolation, Sigmoid:
		if e.Transform != None && e.Targets != 1 {
			return invalid("%s has %d targets, want 1", e.Transform.file(), e.Targets)
		}
		if len(e.Classes) != 0 {
			return invalid("only a classifier has class names")
		}
	case Softmax:
		if e.Targets < 2 || len(e.Classes) != e.Targets {
			return invalid("classifier of %d targets with %d class names, want equal and at least 2", e.Targets, len(e.Classes))
		}
		if err := validateClasses(e.Classes); err != nil {
			return err
		}
	default:
		return invalid("unknown transform %d", e.Transform)
	}
	if e.Transform == Isolation && !(e.Norm > 0 && e.Norm <= math.MaxFloat64) {
		return invalid("norm %v of the isolation score: want a finite number above 0", e.Norm)
	}
	if e.Transform != Isolation && e.Norm != 0 {
		return invalid("only an anomaly detector has a norm")
	}
	return nil
}

func validateClasses(names []string) error {
	for i, name := range names {
		if len(name) > MaxClass {
			return tooLarge("bytes of a class name", len(name), MaxClass)
		}
		if name == "" {
			return invalid("class %d has no name", i)
		}
		for _, c := range []byte(name) {
			if c <= ' ' || c > '~' {
				return invalid("class name %q: want printable ASCII without spaces", name)
			}
		}
		for _, other := range names[:i] {
			if other == name {
				return invalid("class name %q twice", name)
			}
		}
	}
	return nil
}

// validateTree returns the number of splits of t (1 for a single leaf, which
// is written as a split) and raises peak[target] to the largest |k|.
func (e *Ensemble) validateTree(t *Tree, peak []int64) (int, error) {
	if len(t.Nodes) == 0 {
		return 0, invalid("no nodes")
	}
	if len(t.Nodes) > MaxTree {
		return 0, tooLarge("nodes", len(t.Nodes), MaxTree)
	}
	depth := make([]int8, len(t.Nodes)) // splits above a node, plus 1; 0 = no parent yet
	depth[0] = 1
	splits := 0
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if depth[i] == 0 {
			return 0, invalid("node %d is no node's child", i)
		}
		if n.Leaf {
			if n.Target < 0 || int(n.Target) >= e.Targets {
				return 0, invalid("node %d: target %d of %d", i, n.Target, e.Targets)
			}
			if n.Value < 0 && e.Transform == Isolation {
				return 0, invalid("node %d: negative path length", i)
			}
			peak[n.Target] = max(peak[n.Target], magnitude(n.Value))
			continue
		}
		splits++
		switch {
		case n.Feature < 0 || int(n.Feature) >= e.Dim:
			return 0, invalid("node %d: feature %d of %d", i, n.Feature, e.Dim)
		case math.IsNaN(float64(n.Threshold)):
			return 0, invalid("node %d: threshold is not a number", i)
		case int(depth[i]) > MaxDepth:
			return 0, tooLarge("levels", int(depth[i]), MaxDepth)
		}
		for _, child := range [2]int32{n.Left, n.Right} {
			if int(child) <= i || int(child) >= len(t.Nodes) {
				return 0, invalid("node %d: child %d: want %d to %d", i, child, i+1, len(t.Nodes)-1)
			}
			if depth[child] != 0 {
				return 0, invalid("node %d is the child of two nodes", child)
			}
			depth[child] = depth[i] + 1
		}
	}
	return max(splits, 1), nil
}

// Nodes returns the number of splits and of leaves as they are written: a tree
// of a single leaf counts as one split with two leaves.
func (e *Ensemble) Nodes() (splits, leaves int) {
	for i := range e.Trees {
		n := 0
		for j := range e.Trees[i].Nodes {
			if !e.Trees[i].Nodes[j].Leaf {
				n++
			}
		}
		n = max(n, 1)
		splits += n
		leaves += n + 1
	}
	return splits, leaves
}

func magnitude(k int32) int64 {
	if k < 0 {
		return -int64(k)
	}
	return int64(k)
}

func finite(x float32) bool {
	return !math.IsNaN(float64(x)) && !math.IsInf(float64(x), 0)
}
