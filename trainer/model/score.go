package model

import (
	"slices"
	"sync"
)

// Scorer sums the trees of one ensemble. Many goroutines may use it.
//
// It has one of two forms, which give the same sums: marks and walks.
type Scorer struct {
	dim, targets int
	bias         []int32
	rooms        sync.Pool
	marks        *marks // or
	walks        *walks
}

// room is the working memory of a scorer.
type room struct {
	slots  []float32 // of walks
	out    []uint64  // of marks, by tree: leaves that are crossed out
	active []int32   // of marks: columns with marks that fail
}

// NewScorer returns a scorer of a valid ensemble; else ErrFormat. It keeps
// nothing of e.
func NewScorer(e *Ensemble) (*Scorer, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	s := &Scorer{dim: e.Dim, targets: e.Targets, bias: make([]int32, e.Targets)}
	copy(s.bias, e.Bias)
	s.rooms.New = func() any { return new(room) }
	s.walks = newWalks(e)
	if m := newMarks(e); m != nil && m.cost() < s.walks.cost() {
		s.marks, s.walks = m, nil
	}
	return s, nil
}

// Dim returns the number of features of a vector.
func (s *Scorer) Dim() int { return s.dim }

// Targets returns the number of sums.
func (s *Scorer) Targets() int { return s.targets }

// Sums writes the raw sum of every target, bias included, in units of
// 2^-Shift, to dst. Both x, of Dim values, and dst, of Targets, are the
// caller's. Any float32 is a valid feature value.
func (s *Scorer) Sums(dst []int32, x []float32) {
	w := s.rooms.Get().(*room)
	s.fit(w)
	s.sums(dst[:s.targets], x[:s.dim], w)
	s.rooms.Put(w)
}

// fit makes w large enough for s.
func (s *Scorer) fit(w *room) {
	if s.marks != nil {
		w.out = slices.Grow(w.out[:0], s.marks.trees)
		w.active = slices.Grow(w.active[:0], len(s.marks.columns))
		w.slots = slices.Grow(w.slots[:0], s.dim)
	} else {
		w.slots = slices.Grow(w.slots[:0], s.walks.width())
	}
}

// sums is Sums with a caller's room that fits.
func (s *Scorer) sums(dst []int32, x []float32, w *room) {
	copy(dst, s.bias)
	if s.marks != nil {
		s.marks.add(dst, x, w)
	} else {
		s.walks.add(dst, x, w)
	}
}
