package feature

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

// Widths of the windows and sketches of a source.
const (
	shortSlots  = 10              // half minutes
	longSlots   = 12              // five minutes
	shortSlot   = 30 * 1_000_000  // microseconds
	longSlot    = 300 * 1_000_000 // microseconds
	longestGap  = 3_600_000       // milliseconds; a longer interval counts as this
	pathBits    = 128             // bits of the sketch of paths
	longestName = 128             // bytes of an address that is followed
)

// Tracker remembers the sources of records: who did what before. The same
// rules hold in training and in serving.
//
//   - A source is a pair of Site and Address. Its vector sees events of
//     strictly earlier timestamps only; the order of the events of one
//     timestamp changes no vector, now or later.
//   - Events of one source and timestamp that are equal in everything but
//     Kind, Event, Label, Level and Exploit count once. Of more than
//     Limits.Pending distinct ones, those with the smallest xxhash64 count.
//   - A late event, one that is older than the newest of its source, alters
//     nothing. If it is younger than every event but those of the newest
//     timestamp it sees what they saw. Otherwise it sees only what is surely
//     older than itself: that there was a first event and how long ago, and
//     the windows by their slots that ended before it; the count of events is
//     then the larger of 1 and those in the windows. Its other history columns
//     are 0.
//   - A record without time or address has no history and alters nothing; so
//     has one whose address is longer than 128 bytes.
//   - A site keeps Limits.Sources sources. When its time moves on, the sources
//     beyond are forgotten, the one with the oldest newest event first, of
//     equals the one with the smaller address in bytewise order. Of more than
//     Limits.Sources new sources at one timestamp those with the larger
//     addresses are kept.
//   - A new source whose event is older than the newest timestamp of its site
//     takes the place of the oldest at once in a full site, if it is younger.
//   - Limits.Sites sites are kept; the one visited longest ago is forgotten
//     first. Records in canonical order come site by site, so that this
//     forgets nothing that is asked for again.
//
// The windows count whole slots: the five minutes before t are the half minute
// of t so far and the nine before it, aligned to the epoch.
//
// A visit takes O(1) expected time, and O(log n) amortised once a site is full.
// A source takes about 300 bytes, its place in the index included, and 16
// more for each further event of its newest timestamp. A Tracker is for one goroutine.
type Tracker struct {
	limits Limits
	work   *work
	index  map[string]*site
	sites  []*site
	last   *site // visited last
	clock  uint64
}

// NewTracker returns a tracker that knows no source yet. It panics when c is
// not valid.
func NewTracker(c Config) *Tracker {
	if err := c.Validate(); err != nil {
		panic("feature: internal error: " + err.Error())
	}
	return &Tracker{limits: c.Tracker, work: newWork(), index: map[string]*site{}}
}

// Sources returns the number of sources remembered, over all sites.
func (t *Tracker) Sources() int {
	n := 0
	for _, s := range t.sites {
		n += len(s.index)
	}
	return n
}

// site is the memory of one site.
type site struct {
	name    string
	visited uint64 // clock of the last visit
	now     int64  // newest timestamp
	index   map[string]int32
	sources []source
	free    []int32 // unused sources
	spare   []*burst
	fresh   heap // sources whose first event is at now, smallest address first
	ranked  heap // the others, oldest first, by a possibly outdated rank
}

// event is what one pending event will add to its source.
type event struct {
	hash   uint64
	agent  uint8 // bit of the sketch, none when 255
	path   uint8 // likewise
	user   uint8 // likewise
	port   uint8 // likewise
	result uint8 // record.Outcome
	status uint8 // first digit
	marked bool
}

// burst is the distinct events of one source and timestamp when there are
// several, by ascending hash.
type burst struct{ events []event }

const none = 255

// source is the memory of one source. Everything but newest and pending
// describes the events before newest.
type source struct {
	address      string
	newest       int64 // timestamp of the pending events
	first, last  int64 // timestamps, when events > 0
	gaps, square uint64
	paths        [pathBits / 64]uint64
	users, ports uint64
	head         event  // the pending event, while it is the only one
	burst        *burst // the pending events, else nil
	agents       uint32
	events       uint32
	failed       uint32
	succeeded    uint32
	answered     uint32
	refused      uint32 // with a status of 400 to 499
	marked       uint32
	short        [shortSlots]uint16 // ring of events per slot, the slot of last and those before
	long         [longSlots]uint16
	failures     [longSlots]uint16
	rank         int64 // newest when it was ranked last
}

// visit fills the history columns of r from what the tracker knows, then
// learns r. marked says whether r shows a sure sign of an attack.
func (t *Tracker) visit(dst []float32, r *record.Record, w *work, marked bool) {
	if r.Time == record.NoTime || r.Address == "" || len(r.Address) > longestName {
		return
	}
	s := t.site(r)
	if r.Time > s.now {
		s.advance(t.limits)
		s.now = r.Time
	}
	i, ok := s.index[r.Address]
	if !ok {
		if i, ok = s.admit(r, t.limits); !ok {
			return
		}
		s.sources[i].head = eventOf(r, w, marked)
		return
	}
	p := &s.sources[i]
	switch {
	case r.Time > p.newest:
		s.fold(p)
		p.newest = r.Time
		p.fill(dst, r.Time)
		p.head = eventOf(r, w, marked)
	case r.Time == p.newest:
		p.fill(dst, r.Time)
		s.add(p, eventOf(r, w, marked), t.limits.Pending)
	case p.events > 0 && r.Time > p.last:
		p.fill(dst, r.Time)
	case p.events > 0 && r.Time > p.first:
		p.fillLate(dst, r.Time)
	}
}

// site returns the memory of the site of r.
func (t *Tracker) site(r *record.Record) *site {
	t.clock++
	s := t.last
	if s == nil || s.name != r.Site {
		s = t.index[r.Site]
	}
	if s == nil {
		if len(t.sites) >= t.limits.Sites {
			oldest := 0
			for i, x := range t.sites {
				if x.visited < t.sites[oldest].visited {
					oldest = i
				}
			}
			delete(t.index, t.sites[oldest].name)
			t.sites = slices.Delete(t.sites, oldest, oldest+1)
		}
		s = &site{name: strings.Clone(r.Site), now: record.NoTime, index: map[string]int32{}}
		s.fresh.before = func(a, b int32) bool { return s.sources[a].address < s.sources[b].address }
		s.ranked.before = func(a, b int32) bool {
			x, y := &s.sources[a], &s.sources[b]
			return x.rank < y.rank || x.rank == y.rank && x.address < y.address
		}
		t.index[s.name] = s
		t.sites = append(t.sites, s)
	}
	s.visited = t.clock
	t.last = s
	return s
}

// admit makes a source of an address that is not known, or reports that the
// site is full of newer ones or that r is late for the whole site.
func (s *site) admit(r *record.Record, l Limits) (int32, bool) {
	fresh := r.Time == s.now
	if !fresh && len(s.index) >= l.Sources {
		i, ok := s.oldest()
		if p := &s.sources[i]; !ok || r.Time < p.newest || r.Time == p.newest && r.Address < p.address {
			return 0, false
		}
		s.ranked.pop()
		s.forget(i)
	}
	if fresh && len(s.fresh.items) >= l.Sources {
		least := s.fresh.items[0]
		if r.Address <= s.sources[least].address {
			return 0, false
		}
		s.fresh.pop()
		s.forget(least)
	}
	var i int32
	if n := len(s.free); n > 0 {
		i = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		i = int32(len(s.sources))
		s.sources = append(s.sources, source{})
	}
	s.sources[i] = source{address: strings.Clone(r.Address), newest: r.Time, rank: r.Time}
	s.index[s.sources[i].address] = i
	if fresh {
		s.fresh.push(i)
	} else {
		s.ranked.push(i)
	}
	return i, true
}

// advance ends the timestamp s.now: its new sources join the others, and the
// oldest beyond the limit are forgotten.
func (s *site) advance(l Limits) {
	for _, i := range s.fresh.items {
		s.ranked.push(i)
	}
	s.fresh.items = s.fresh.items[:0]
	for len(s.index) > l.Sources {
		i, _ := s.oldest()
		s.ranked.pop()
		s.forget(i)
	}
}

// oldest brings the ranked source with the oldest newest event to the front
// and returns it; false when none is ranked.
func (s *site) oldest() (int32, bool) {
	if len(s.ranked.items) == 0 {
		return 0, false
	}
	for {
		i := s.ranked.items[0]
		p := &s.sources[i]
		if p.rank == p.newest {
			return i, true
		}
		p.rank = p.newest
		s.ranked.fix()
	}
}

func (s *site) forget(i int32) {
	p := &s.sources[i]
	delete(s.index, p.address)
	s.release(p)
	*p = source{}
	s.free = append(s.free, i)
}

// release takes the burst of p back for another source.
func (s *site) release(p *source) {
	if p.burst != nil {
		p.burst.events = p.burst.events[:0]
		s.spare = append(s.spare, p.burst)
		p.burst = nil
	}
}

// eventOf returns what r will add to its source. The path of a request is its
// payload up to the question mark.
func eventOf(r *record.Record, w *work, marked bool) event {
	key := w.key[:0]
	for _, s := range [...]string{r.Protocol, r.Method, r.Payload, r.Agent, r.Referer, r.User} {
		key = binary.LittleEndian.AppendUint32(key, uint32(len(s)))
		key = append(key, s...)
	}
	for _, n := range [...]uint64{uint64(r.Port), uint64(r.Status), uint64(r.Size), uint64(r.Outcome)} {
		key = binary.LittleEndian.AppendUint64(key, n)
	}
	w.key = key
	e := event{hash: xxhash.Sum64(key), agent: none, path: none, user: none, port: none, result: uint8(r.Outcome), marked: marked}
	if r.Agent != "" {
		e.agent = uint8(xxhash.Sum64String(r.Agent) >> 59)
	}
	path := r.Payload
	if i := strings.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	if path != "" {
		e.path = uint8(xxhash.Sum64String(path) >> 57)
	}
	if r.User != "" {
		e.user = uint8(xxhash.Sum64String(r.User) >> 58)
	}
	if r.Port > 0 {
		var b [4]byte
		binary.LittleEndian.PutUint32(b[:], uint32(r.Port))
		e.port = uint8(xxhash.Sum64(b[:]) >> 58)
	}
	if r.Status >= 100 && r.Status < 600 {
		e.status = uint8(r.Status / 100)
	}
	return e
}

// add keeps e among the pending events of p unless it is there already or the
// limit is reached with smaller hashes.
func (s *site) add(p *source, e event, limit int) {
	if p.burst == nil {
		if e.hash == p.head.hash {
			return
		}
		if n := len(s.spare); n > 0 {
			p.burst = s.spare[n-1]
			s.spare = s.spare[:n-1]
		} else {
			p.burst = &burst{events: make([]event, 0, limit)}
		}
		p.burst.events = append(p.burst.events, p.head)
	}
	events := p.burst.events
	at, found := slices.BinarySearchFunc(events, e.hash, func(x event, h uint64) int { return cmp.Compare(x.hash, h) })
	if found || at >= limit {
		return
	}
	p.burst.events = slices.Insert(events[:min(len(events), limit-1)], at, e)
}

// fold adds the pending events of p to the rest.
func (s *site) fold(p *source) {
	pending := []event{p.head}
	if p.burst != nil {
		pending = p.burst.events
	}
	n := uint32(len(pending))
	failed := uint16(0)
	for _, e := range pending {
		switch record.Outcome(e.result) {
		case record.OutcomeFailure:
			failed++
		case record.OutcomeSuccess:
			p.succeeded = saturate(p.succeeded, 1)
		}
		if e.path != none {
			p.paths[e.path>>6] |= 1 << (e.path & 63)
		}
		if e.user != none {
			p.users |= 1 << e.user
		}
		if e.port != none {
			p.ports |= 1 << e.port
		}
		if e.agent != none {
			p.agents |= 1 << e.agent
		}
		if e.status != 0 {
			p.answered = saturate(p.answered, 1)
		}
		if e.status == 4 {
			p.refused = saturate(p.refused, 1)
		}
		if e.marked {
			p.marked = saturate(p.marked, 1)
		}
	}
	s.release(p)
	if p.events == 0 {
		p.first = p.newest
	} else {
		gap := min((uint64(p.newest)-uint64(p.last))/1000, longestGap)
		p.gaps += gap
		if sum, carry := bits.Add64(p.square, gap*gap, 0); carry == 0 {
			p.square = sum
		}
		shift(p.short[:], slotOf(p.newest, shortSlot)-slotOf(p.last, shortSlot))
		steps := slotOf(p.newest, longSlot) - slotOf(p.last, longSlot)
		shift(p.long[:], steps)
		shift(p.failures[:], steps)
	}
	p.last = p.newest
	p.events = saturate(p.events, n)
	p.failed = saturate(p.failed, uint32(failed))
	raise(&p.short[0], uint16(n))
	raise(&p.long[0], uint16(n))
	raise(&p.failures[0], failed)
}

func saturate(a, b uint32) uint32 {
	if a+b < a {
		return 1<<32 - 1
	}
	return a + b
}

func raise(a *uint16, b uint16) {
	if *a+b < *a {
		*a = 1<<16 - 1
		return
	}
	*a += b
}

// slotOf returns the number of the slot of a timestamp, rounded down.
func slotOf(t, width int64) int64 {
	n := t / width
	if t%width < 0 {
		n--
	}
	return n
}

// shift moves a ring on by the given number of slots.
func shift(ring []uint16, steps int64) {
	if steps <= 0 {
		return
	}
	n := int(min(steps, int64(len(ring))))
	copy(ring[n:], ring)
	clear(ring[:n])
}

// window adds up the slots of ring that lie in the window of len(ring) slots
// ending with the slot at, whose newest slot is head; late leaves out the
// slot at itself.
func window(ring []uint16, head, at int64, late bool) int {
	n := 0
	for k, c := range ring {
		slot := head - int64(k)
		if slot > at-int64(len(ring)) && (slot < at || slot == at && !late) {
			n += int(c)
		}
	}
	return n
}

// fill writes the history columns at time t, which is later than all folded
// events.
func (p *source) fill(dst []float32, t int64) {
	if p.events == 0 {
		return
	}
	dst[colHasHistory] = 1
	put32 := func(at column, n uint32) { dst[at] = float32(log8(uint64(n))) }
	put32(colEvents, p.events)
	p.fillWindows(dst, t, false)
	put32(colFailed, p.failed)
	put32(colSucceeded, p.succeeded)
	percent := func(at column, n, of uint32) {
		if of > 0 {
			dst[at] = float32(int32(uint64(n) * 100 / uint64(of)))
		}
	}
	if both := uint64(p.failed) + uint64(p.succeeded); both > 0 {
		dst[colFailedShare] = float32(int32(uint64(p.failed) * 100 / both))
	}
	put(dst, colPaths, bits.OnesCount64(p.paths[0])+bits.OnesCount64(p.paths[1]))
	put(dst, colUsers, bits.OnesCount64(p.users))
	put(dst, colPortsTried, bits.OnesCount64(p.ports))
	put(dst, colAgents, bits.OnesCount32(p.agents))
	dst[colSinceFirst] = float32(log8((uint64(t) - uint64(p.first)) / 1_000_000))
	dst[colSinceLast] = float32(log8((uint64(t) - uint64(p.last)) / 1000))
	if p.events > 1 {
		n := uint64(p.events - 1)
		mean := p.gaps / n
		dst[colIntervalMean] = float32(log8(mean))
		if sq := p.square / n; sq > mean*mean {
			dst[colIntervalDeviation] = float32(log8(root(sq - mean*mean)))
		}
	}
	put32(colClientErrors, p.refused)
	percent(colClientErrorShare, p.refused, p.answered)
	put32(colMarked, p.marked)
	percent(colMarkedShare, p.marked, p.events)
}

// fillWindows writes the window columns at time t and returns the number of
// events in the windows.
func (p *source) fillWindows(dst []float32, t int64, late bool) int {
	short := window(p.short[:], slotOf(p.last, shortSlot), slotOf(t, shortSlot), late)
	head, at := slotOf(p.last, longSlot), slotOf(t, longSlot)
	long := window(p.long[:], head, at, late)
	putLog8(dst, colEvents5m, short)
	putLog8(dst, colEvents1h, long)
	putLog8(dst, colFailed1h, window(p.failures[:], head, at, late))
	return max(short, long)
}

// fillLate writes what is surely older than t of a source whose first event is
// older and whose last folded event is not.
func (p *source) fillLate(dst []float32, t int64) {
	dst[colHasHistory] = 1
	putLog8(dst, colEvents, max(1, p.fillWindows(dst, t, true)))
	dst[colSinceFirst] = float32(log8((uint64(t) - uint64(p.first)) / 1_000_000))
}

// root returns the integer square root of n, rounded down.
func root(n uint64) uint64 {
	var x uint64
	for bit := uint64(1) << 31; bit > 0; bit >>= 1 {
		if y := x | bit; y*y <= n {
			x = y
		}
	}
	return x
}

// heap is a binary min-heap of sources.
type heap struct {
	items  []int32
	before func(a, b int32) bool
}

func (h *heap) push(i int32) {
	h.items = append(h.items, i)
	for k := len(h.items) - 1; k > 0; {
		up := (k - 1) / 2
		if !h.before(h.items[k], h.items[up]) {
			break
		}
		h.items[k], h.items[up] = h.items[up], h.items[k]
		k = up
	}
}

func (h *heap) pop() {
	n := len(h.items) - 1
	h.items[0] = h.items[n]
	h.items = h.items[:n]
	h.fix()
}

// fix restores the order after the first item has changed.
func (h *heap) fix() {
	for k := 0; ; {
		least := k
		for _, down := range [...]int{2*k + 1, 2*k + 2} {
			if down < len(h.items) && h.before(h.items[down], h.items[least]) {
				least = down
			}
		}
		if least == k {
			return
		}
		h.items[k], h.items[least] = h.items[least], h.items[k]
		k = least
	}
}
