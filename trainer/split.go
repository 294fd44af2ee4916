package trainer

// candidate is a split of a node: rows whose bin in column pos is at most bin
// go left. Columns are counted among those that may be split, in a forest among
// all. pos is -1 when there is no split.
type candidate struct {
	gain float64
	g, h int64 // sums of the rows that go left, where splits are chosen by gradients
	pos  int32
	bin  uint8
}

var noSplit = candidate{pos: -1}

// better is the total order of candidates: higher gain, then lower position
// (so lower column), then lower bin. No split is worse than any.
func (c candidate) better(d candidate) bool {
	switch {
	case c.pos < 0 || d.pos < 0:
		return c.pos >= 0
	case c.gain != d.gain:
		return c.gain > d.gain
	case c.pos != d.pos:
		return c.pos < d.pos
	}
	return c.bin < d.bin
}

// gradients finds splits by second-order gain, with L2 regularisation:
//
//	GL²/(HL+λ) + GR²/(HR+λ) - G²/(H+λ)
//
// (Chen and Guestrin 2016, equation 7, without its factor ½). Sums are
// integers; the gain is float64 in a fixed order of single operations, equal
// on every CPU. It is not safe for concurrent use.
type gradients struct {
	tiles   *tiles
	packed  []int64 // by row; nil when the sums need wide cells
	g, h    []int64 // by row; used when packed is nil
	lambda  float64 // in units of h
	minGain float64 // a split must gain more
	minH    int64   // least Σh of a child
	minRows int     // least rows of a child
	workers int

	ordered, orderedH []int64 // statistics of a child in the order of its rows
	pool              []histogram
	local             []candidate

	nodes *nodeDigest // of the histograms; nil when nobody asks
}

func (s *gradients) wide() bool { return s.packed == nil }

func (s *gradients) take() histogram {
	if n := len(s.pool); n > 0 {
		h := s.pool[n-1]
		s.pool = s.pool[:n-1]
		return h
	}
	return s.tiles.newHistogram(s.wide())
}

func (s *gradients) drop(n *node) {
	if n.hist != nil {
		s.pool = append(s.pool, n.hist)
		n.hist = nil
	}
}

// threads is how many workers a loop over this many cells or additions is
// worth: starting them costs about as much as 20,000 additions.
func (s *gradients) threads(work int) int { return max(1, min(s.workers, work/40_000)) }

func (s *gradients) root(n *node, rows []int32) {
	n.hist = s.take()
	work := len(rows) * len(s.tiles.cols)
	all := len(rows) == s.tiles.rows // row lists are ascending and without repeats
	switch {
	case s.wide() && all:
		s.tiles.fillWide(n.hist, nil, s.g, s.h, s.threads(work))
	case all:
		s.tiles.fill(n.hist, nil, s.packed, s.threads(work))
	default:
		s.build(n, rows)
	}
	n.g, n.h = 0, 0
	for _, r := range rows {
		if s.wide() {
			n.g += s.g[r]
			n.h += s.h[r]
		} else {
			n.g += s.packed[r] >> 32
			n.h += s.packed[r] & maxPackedH
		}
	}
	s.nodes.add(n, s.tiles, s.wide())
}

func (s *gradients) build(n *node, rows []int32) {
	threads := s.threads(len(rows) * len(s.tiles.cols))
	if s.wide() {
		s.ordered, s.orderedH = grown(s.ordered, len(rows)), grown(s.orderedH, len(rows))
		for i, r := range rows {
			s.ordered[i], s.orderedH[i] = s.g[r], s.h[r]
		}
		s.tiles.fillWide(n.hist, rows, s.ordered, s.orderedH, threads)
		return
	}
	s.ordered = grown(s.ordered, len(rows))
	for i, r := range rows {
		s.ordered[i] = s.packed[r]
	}
	s.tiles.fill(n.hist, rows, s.ordered, threads)
}

// grown returns b with room for n values, which may be anything.
func grown[T any](b []T, n int) []T {
	if cap(b) < n {
		return make([]T, n, n+n/4)
	}
	return b[:n]
}

// part builds the histogram of the child with fewer rows and gets the other's
// by subtraction from the parent's, which it takes over.
func (s *gradients) part(parent, left, right *node, rows []int32) {
	small, large := left, right
	if right.hi-right.lo < left.hi-left.lo {
		small, large = right, left
	}
	small.hist = s.take()
	s.build(small, rows[small.lo:small.hi])
	large.hist, parent.hist = parent.hist, nil
	large.hist.subtract(small.hist)
	s.nodes.add(left, s.tiles, s.wide())
	s.nodes.add(right, s.tiles, s.wide())
}

// best returns the best split of n that leaves every child at least minRows
// rows and minH of hessian, or noSplit.
//
// Row counts are not in the histograms. They are counted only where it
// matters: the best candidate of all columns is checked against the rows
// themselves, and where it fails, its column alone is searched again with
// counts. The bound of an unchecked column is never below its true best, so
// the first checked candidate that beats all others is the answer.
func (s *gradients) best(n *node, rows []int32) candidate {
	if len(rows) < 2*max(1, s.minRows) {
		return noSplit
	}
	if cap(s.local) < len(s.tiles.cols) {
		s.local = make([]candidate, len(s.tiles.cols))
	}
	local := s.local[:len(s.tiles.cols)]
	const block = 8
	blocks := (len(local) + block - 1) / block
	parallel(s.threads(4*s.tiles.cells), blocks, func(_, k int) {
		for pos := block * k; pos < min(block*k+block, len(local)); pos++ {
			local[pos] = s.scan(n, pos, nil, 0)
		}
	})
	var checked [MaxColumns]bool
	for {
		top := noSplit
		for _, c := range local {
			if c.better(top) {
				top = c
			}
		}
		if top.pos < 0 || checked[top.pos] || s.minRows <= 1 && s.minH > 0 {
			return top
		}
		checked[top.pos] = true
		var count [256]int32
		words, tiles, at, shift := s.tiles.place(int(top.pos))
		for _, r := range rows {
			count[uint8(words[int(r)*tiles+at]>>shift)]++
		}
		left := 0
		for b := 0; b <= int(top.bin); b++ {
			left += int(count[b])
		}
		if left >= s.minRows && len(rows)-left >= s.minRows {
			return top
		}
		local[top.pos] = s.scan(n, int(top.pos), &count, len(rows))
	}
}

// scan returns the best split of one column. Without counts, bins that hold
// nothing are passed over: a cut after one equals the cut before it, which
// wins the tie.
func (s *gradients) scan(n *node, pos int, count *[256]int32, rows int) candidate {
	best := noSplit
	base := gainTerm(n.g, n.h, s.lambda)
	least := s.minGain
	enough := float64((least + base) * nearly)
	start, last := int(s.tiles.start[pos]), int(s.tiles.bins[pos])-1
	wide := s.wide()
	cells := n.hist[start : start+last]
	if wide {
		cells = n.hist[2*start : 2*(start+last)]
	}
	var gl, hl, packed int64
	left := 0
	for b := range last {
		if wide {
			if count == nil && cells[2*b]|cells[2*b+1] == 0 {
				continue
			}
			gl += cells[2*b]
			hl += cells[2*b+1]
		} else {
			if count == nil && cells[b] == 0 {
				continue
			}
			packed += cells[b]
			gl, hl = packed>>32, packed&maxPackedH
		}
		if count != nil {
			left += int(count[b])
			if left < s.minRows {
				continue
			}
			if rows-left < s.minRows {
				break
			}
		}
		if hl < s.minH {
			continue
		}
		if n.h-hl < s.minH {
			break
		}
		// Most cuts gain less than the best so far. That shows without
		// divisions: multiply the gain by both denominators.
		fl, fr := float64(gl), float64(n.g-gl)
		dl, dr := float64(hl)+s.lambda, float64(n.h-hl)+s.lambda
		if float64(float64(fl*fl)*dr)+float64(float64(fr*fr)*dl) < float64(enough*float64(dl*dr)) {
			continue
		}
		if gain := gainTerm(gl, hl, s.lambda) + gainTerm(n.g-gl, n.h-hl, s.lambda) - base; gain > least {
			least = gain
			enough = float64((least + base) * nearly)
			best = candidate{gain: gain, g: gl, h: hl, pos: int32(pos), bin: uint8(b)}
		}
	}
	return best
}

// nearly is less than 1 by far more than what rounding does to a gain.
const nearly = 1 - 1.0/(1<<40)

// gainTerm is g²/(h+λ); zero when nothing weighs.
func gainTerm(g, h int64, lambda float64) float64 {
	d := float64(h) + lambda
	if d <= 0 {
		return 0
	}
	f := float64(g)
	return float64(f*f) / d
}
