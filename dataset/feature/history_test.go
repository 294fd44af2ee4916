package feature

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

const second = 1_000_000 // microseconds

// narrow returns a configuration with small limits.
func narrow(sources, pending int) Config {
	c := DefaultConfig()
	c.Tracker = Limits{Pending: pending, Sites: 8, Sources: sources}
	return c
}

// stream returns n records of a few sources and sites in canonical order of
// site and time, with many equal timestamps and some repeated events.
func stream(rnd *rand.Rand, n, sources int) []record.Record {
	var out []record.Record
	for range n {
		r := record.Record{
			Site:     []string{"", "a"}[rnd.IntN(2)],
			Time:     1_700_000_000*second + int64(rnd.IntN(n/4+1))*int64([]int{1, 17, 400}[rnd.IntN(3)])*second,
			Address:  fmt.Sprintf("192.0.2.%d", rnd.IntN(sources)),
			Protocol: "http", Port: int32([]int{80, 443, 22}[rnd.IntN(3)]),
			Payload: []string{"/a", "/b?x=1", "/c", "/d?q=1' or 1=1-- ", ""}[rnd.IntN(5)],
			User:    []string{"", "root", "eve"}[rnd.IntN(3)],
			Agent:   []string{"", "curl/8"}[rnd.IntN(2)],
			Status:  []int32{0, 200, 404}[rnd.IntN(3)],
			Outcome: record.Outcome(rnd.IntN(3)),
		}
		if rnd.IntN(20) == 0 {
			r.Address = ""
		}
		out = append(out, r)
		if rnd.IntN(6) == 0 {
			r.Label, r.Event = "x", fmt.Sprint(len(out))
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b record.Record) int {
		return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Time, b.Time))
	})
	return out
}

// run returns the vector of each record under one tracker.
func run(t testing.TB, c Config, records []record.Record) [][]float32 {
	t.Helper()
	e := extractor(t, c)
	tr := NewTracker(c)
	out := make([][]float32, len(records))
	for i := range records {
		out[i] = make([]float32, Dim)
		e.Vector(out[i], &records[i], tr)
		check(t, out[i])
	}
	return out
}

func TestOrderWithinATimestampChangesNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		c := narrow(1+round%12, 1+round%5)
		records := stream(rnd, 300, 16)
		want := run(t, c, records)
		order := make([]int, len(records))
		for i := range order {
			order[i] = i
		}
		rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		slices.SortStableFunc(order, func(i, j int) int {
			return cmp.Or(cmp.Compare(records[i].Site, records[j].Site), cmp.Compare(records[i].Time, records[j].Time))
		})
		permuted := make([]record.Record, len(records))
		for k, i := range order {
			permuted[k] = records[i]
		}
		for k, v := range run(t, c, permuted) {
			if d := differing(v, want[order[k]]); d != nil {
				t.Fatalf("round %d: record %d differs in %v", round, order[k], d)
			}
		}
	}
}

// naive computes the history columns of records in canonical order from the
// whole past, as the rules at Tracker say, with lists and sorting only.
func naive(t *testing.T, c Config, records []record.Record) [][]float32 {
	type batch struct {
		time   int64
		events []event
	}
	type past struct {
		address string
		batches []batch
	}
	e := extractor(t, c)
	var out [][]float32
	var sources []*past
	for from := 0; from < len(records); {
		to := from
		for to < len(records) && records[to].Site == records[from].Site && records[to].Time == records[from].Time {
			to++
		}
		if from == 0 || records[from].Site != records[from-1].Site {
			sources = nil
		}
		slices.SortFunc(sources, func(a, b *past) int { // those to keep first
			x, y := a.batches[len(a.batches)-1].time, b.batches[len(b.batches)-1].time
			return cmp.Or(cmp.Compare(y, x), cmp.Compare(b.address, a.address))
		})
		sources = sources[:min(len(sources), c.Tracker.Sources)]
		known := len(sources)
		now := records[from].Time
		fresh := map[string][]event{}
		for i := from; i < to; i++ {
			r := &records[i]
			v := make([]float32, Dim)
			out = append(out, v)
			e.Vector(v, r, nil)
			if r.Address == "" {
				continue
			}
			w := newWork()
			marked := at(v, "families") > 0 || at(v, "header_markers") > 0
			fresh[r.Address] = append(fresh[r.Address], eventOf(r, w, marked))
			for _, p := range sources[:known] {
				if p.address != r.Address {
					continue
				}
				var events []event
				var gaps, squares []uint64
				windows := [3]int{}
				paths, users, ports, agents := map[uint8]bool{}, map[uint8]bool{}, map[uint8]bool{}, map[uint8]bool{}
				failed, succeeded, answered, refused, marks := 0, 0, 0, 0, 0
				for k, b := range p.batches {
					if k > 0 {
						g := min(uint64(b.time-p.batches[k-1].time)/1000, longestGap)
						gaps, squares = append(gaps, g), append(squares, g*g)
					}
					for _, x := range b.events {
						events = append(events, x)
						if slotOf(b.time, shortSlot) > slotOf(now, shortSlot)-shortSlots {
							windows[0]++
						}
						if slotOf(b.time, longSlot) > slotOf(now, longSlot)-longSlots {
							windows[1]++
							if x.result == uint8(record.OutcomeFailure) {
								windows[2]++
							}
						}
						paths[x.path], users[x.user], ports[x.port], agents[x.agent] = true, true, true, true
						switch record.Outcome(x.result) {
						case record.OutcomeFailure:
							failed++
						case record.OutcomeSuccess:
							succeeded++
						}
						if x.status > 0 {
							answered++
						}
						if x.status == 4 {
							refused++
						}
						if x.marked {
							marks++
						}
					}
				}
				set := func(name string, n int) {
					for i, c := range Columns {
						if c.Name == name {
							v[i] = float32(n)
						}
					}
				}
				lg := func(name string, n uint64) { set(name, log8(n)) }
				size := func(m map[uint8]bool) int { delete(m, none); return len(m) }
				set("has_history", 1)
				lg("events", uint64(len(events)))
				lg("events_5m", uint64(windows[0]))
				lg("events_1h", uint64(windows[1]))
				lg("failed", uint64(failed))
				lg("failed_1h", uint64(windows[2]))
				lg("succeeded", uint64(succeeded))
				if failed+succeeded > 0 {
					set("failed_share", 100*failed/(failed+succeeded))
				}
				set("paths", size(paths))
				set("users", size(users))
				set("ports", size(ports))
				set("agents", size(agents))
				lg("since_first", uint64(now-p.batches[0].time)/second)
				lg("since_last", uint64(now-p.batches[len(p.batches)-1].time)/1000)
				if n := uint64(len(events) - 1); n > 0 {
					var sum, square uint64
					for k := range gaps {
						sum, square = sum+gaps[k], square+squares[k]
					}
					mean := sum / n
					lg("interval_mean", mean)
					if d := square / n; d > mean*mean {
						lg("interval_deviation", uint64(math.Sqrt(float64(d-mean*mean))))
					}
				}
				lg("client_errors", uint64(refused))
				if answered > 0 {
					set("client_error_share", 100*refused/answered)
				}
				lg("marked", uint64(marks))
				set("marked_share", 100*marks/len(events))
			}
		}
		var names []string
		for a := range fresh {
			names = append(names, a)
		}
		slices.Sort(names)
		slices.Reverse(names)
		added := 0
		for _, a := range names {
			events := fresh[a]
			slices.SortFunc(events, func(x, y event) int { return cmp.Compare(x.hash, y.hash) })
			events = slices.CompactFunc(events, func(x, y event) bool { return x.hash == y.hash })
			b := batch{now, events[:min(len(events), c.Tracker.Pending)]}
			old := slices.IndexFunc(sources[:known], func(p *past) bool { return p.address == a })
			if old >= 0 {
				sources[old].batches = append(sources[old].batches, b)
			} else if added < c.Tracker.Sources {
				sources = append(sources, &past{a, []batch{b}})
				added++
			}
		}
		from = to
	}
	return out
}

func TestTrackerAgreesWithTheWholePast(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for round := range 60 {
		c := narrow(1+round%20, 1+round%6)
		records := stream(rnd, 300, 1+round%24)
		want := naive(t, c, records)
		for i, v := range run(t, c, records) {
			if d := differing(v, want[i]); d != nil {
				t.Fatalf("round %d: record %d: %s is %v, want %v (all: %v)", round, i, d[0], at(v, d[0]), at(want[i], d[0]), d)
			}
		}
	}
}

// steps feeds records of one source and returns the value of a column each
// time.
func steps(t *testing.T, c Config, column string, records ...record.Record) []float32 {
	var out []float32
	for _, v := range run(t, c, records) {
		out = append(out, at(v, column))
	}
	return out
}

func event0(time int64, payload string) record.Record {
	return record.Record{Time: time, Address: "198.51.100.1", Payload: payload}
}

func TestHistoryIsStrictlyEarlier(t *testing.T) {
	c := DefaultConfig()
	for _, x := range []struct {
		name    string
		records []record.Record
		want    []float32
	}{
		{"one after the other", []record.Record{event0(1, "a"), event0(2, "b"), event0(3, "c")}, []float32{0, 1, 2}},
		{"same timestamp", []record.Record{event0(1, "a"), event0(1, "b"), event0(1, "c"), event0(2, "d")}, []float32{0, 0, 0, 3}},
		{"equal events at one timestamp", []record.Record{event0(1, "a"), event0(1, "a"), event0(1, "b"), event0(1, "b"), event0(2, "d")}, []float32{0, 0, 0, 0, 2}},
		{"equal events at two timestamps", []record.Record{event0(1, "a"), event0(2, "a"), event0(3, "a")}, []float32{0, 1, 2}},
		{"negative times", []record.Record{event0(-5*second, "a"), event0(-1, "b"), event0(0, "c")}, []float32{0, 1, 2}},
		{"undated", []record.Record{event0(1, "a"), event0(record.NoTime, "b"), event0(2, "c")}, []float32{0, 0, 1}},
		{"late", []record.Record{event0(10, "a"), event0(20, "b"), event0(30, "c"), event0(25, "late"), event0(30, "d"), event0(31, "e")}, []float32{0, 1, 2, 2, 2, 4}},
		{"late twice", []record.Record{event0(10, "a"), event0(20, "b"), event0(30, "c"), event0(15, "late"), event0(10, "late"), event0(5, "late"), event0(40, "e")}, []float32{0, 1, 2, 1, 0, 0, 3}},
		{"extreme times", []record.Record{event0(math.MinInt64+1, "a"), event0(math.MaxInt64, "b"), event0(math.MaxInt64, "c")}, []float32{0, 1, 1}},
	} {
		if got := steps(t, c, "events", x.records...); !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
	other := event0(2, "a")
	other.Address = "198.51.100.2"
	elsewhere := event0(3, "a")
	elsewhere.Site = "b"
	if got := steps(t, c, "events", event0(1, "a"), other, elsewhere, event0(4, "a")); !slices.Equal(got, []float32{0, 0, 0, 1}) {
		t.Errorf("sources and sites are mixed: %v", got)
	}
}

func TestDeeplyLateEventsSeeOnlyWhatIsSurelyOlder(t *testing.T) {
	hour := int64(3600 * second)
	records := []record.Record{
		event0(10*hour, "a"), event0(10*hour+10*second, "b"), event0(10*hour+400*second, "c"), event0(11*hour, "d"), event0(12*hour, "e"),
		event0(10*hour+500*second, "late"), // the ring of one hour has moved past it
	}
	v := run(t, DefaultConfig(), records)
	late := v[len(v)-1]
	if at(late, "has_history") != 1 || at(late, "events") != 1 || at(late, "since_first") != float32(log8(500)) || at(late, "since_last") != 0 || at(late, "paths") != 0 {
		t.Errorf("late event sees %v events since %v", at(late, "events"), at(late, "since_first"))
	}
	records = append(records[:3], event0(10*hour+401*second, "d"), event0(10*hour+402*second, "e"), event0(10*hour+399*second, "late"))
	v = run(t, DefaultConfig(), records)
	if late = v[len(v)-1]; at(late, "events") != 2 || at(late, "events_1h") != 2 {
		t.Errorf("late event sees %v events, %v in the hour, want the two of ended slots", at(late, "events"), at(late, "events_1h"))
	}
}

func TestWindowsForget(t *testing.T) {
	var records []record.Record
	for i := range int64(5) {
		r := event0(i*second, fmt.Sprint(i))
		r.Outcome = record.OutcomeFailure
		records = append(records, r)
	}
	for _, at := range []int64{299, 301, 3599, 3601, 7200} {
		records = append(records, event0(at*second, "x"))
	}
	c := DefaultConfig()
	if got, want := steps(t, c, "events_5m", records...)[5:], []float32{5, 1, 0, 1, 0}; !slices.Equal(got, want) {
		t.Errorf("five minutes: %v, want %v", got, want)
	}
	if got, want := steps(t, c, "failed_1h", records...)[5:], []float32{5, 5, 5, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("failed in an hour: %v, want %v", got, want)
	}
	if got, want := steps(t, c, "failed", records...)[5:], []float32{5, 5, 5, 5, 5}; !slices.Equal(got, want) {
		t.Errorf("failed: %v, want %v", got, want)
	}
}

func TestOldestSourceIsForgottenFirst(t *testing.T) {
	c := narrow(2, 4)
	from := func(time int64, address string) record.Record {
		return record.Record{Time: time, Address: address, Payload: "/"}
	}
	for _, x := range []struct {
		name    string
		records []record.Record
		want    []float32
	}{
		{"oldest", []record.Record{from(1, "192.0.2.1"), from(2, "192.0.2.2"), from(3, "192.0.2.3"), from(4, "192.0.2.1"), from(5, "192.0.2.3")}, []float32{0, 0, 0, 0, 1}},
		{"refreshed", []record.Record{from(1, "192.0.2.1"), from(2, "192.0.2.2"), from(3, "192.0.2.1"), from(4, "192.0.2.3"), from(5, "192.0.2.1"), from(6, "192.0.2.2")}, []float32{0, 0, 1, 0, 2, 0}},
		{"tie", []record.Record{from(1, "192.0.2.2"), from(1, "192.0.2.1"), from(2, "192.0.2.3"), from(3, "192.0.2.2"), from(4, "192.0.2.1")}, []float32{0, 0, 0, 1, 0}},
		{"many new at once", []record.Record{from(1, "192.0.2.3"), from(1, "192.0.2.1"), from(1, "192.0.2.4"), from(1, "192.0.2.2"), from(2, "192.0.2.3"), from(2, "192.0.2.4"), from(2, "192.0.2.1"), from(2, "192.0.2.2")}, []float32{0, 0, 0, 0, 1, 1, 0, 0}},
		{"late new source", []record.Record{from(10, "192.0.2.1"), from(20, "192.0.2.2"), from(15, "192.0.2.3"), from(21, "192.0.2.3"), from(21, "192.0.2.1")}, []float32{0, 0, 0, 1, 0}},
		{"too late new source", []record.Record{from(10, "192.0.2.1"), from(20, "192.0.2.2"), from(5, "192.0.2.3"), from(21, "192.0.2.3"), from(21, "192.0.2.1")}, []float32{0, 0, 0, 0, 1}},
	} {
		if got := steps(t, c, "events", x.records...); !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	if n := unsafe.Sizeof(source{}); n > 240 {
		t.Errorf("a source takes %d bytes", n)
	}
	c := narrow(100, 4)
	e := extractor(t, c)
	tr := NewTracker(c)
	v := make([]float32, Dim)
	rnd := rand.New(rand.NewPCG(5, 6))
	most := 0
	for i := range 50_000 {
		r := record.Record{
			Site: fmt.Sprint(rnd.IntN(2) + i/4000), Time: int64(rnd.IntN(100)) + int64(i/2000)*50,
			Address: fmt.Sprintf("10.0.%d.%d", rnd.IntN(40), rnd.IntN(256)), Payload: fmt.Sprint(rnd.IntN(50)),
		}
		e.Vector(v, &r, tr)
		for _, s := range tr.sites {
			most = max(most, len(s.index))
			if len(s.sources) > 2*c.Tracker.Sources || len(s.ranked.items)+len(s.fresh.items) != len(s.index) || len(s.index)+len(s.free) != len(s.sources) {
				t.Fatalf("%d sources in use, %d in all, %d ranked, %d fresh, %d free", len(s.index), len(s.sources), len(s.ranked.items), len(s.fresh.items), len(s.free))
			}
		}
		if len(tr.sites) > c.Tracker.Sites || len(tr.index) != len(tr.sites) {
			t.Fatalf("%d sites, %d in the index", len(tr.sites), len(tr.index))
		}
	}
	if most <= c.Tracker.Sources {
		t.Errorf("the limit of %d was never reached", c.Tracker.Sources)
	}
	if n := tr.Sources(); n > 2*c.Tracker.Sources*c.Tracker.Sites || n == 0 {
		t.Errorf("%d sources", n)
	}
}

func TestBurstsAreCountedUpToTheLimit(t *testing.T) {
	var records []record.Record
	for i := range 100 {
		records = append(records, event0(1, fmt.Sprint(i)))
	}
	records = append(records, event0(2, "x"))
	got := steps(t, DefaultConfig(), "events", records...)
	if want := float32(log8(32)); got[100] != want {
		t.Errorf("events after a burst of 100: %v, want %v", got[100], want)
	}
}

func TestSketchesGrowWithDistinctValuesOnly(t *testing.T) {
	var same, distinct []record.Record
	for i := range 200 {
		a, b := event0(int64(i), "/a?x=1"), event0(int64(i), fmt.Sprintf("/%d?x=1", i))
		a.Payload = fmt.Sprintf("/a?x=%d", i)
		same, distinct = append(same, a), append(distinct, b)
	}
	if got := steps(t, DefaultConfig(), "paths", same...)[199]; got != 1 {
		t.Errorf("one path with many queries sets %v bits", got)
	}
	got := steps(t, DefaultConfig(), "paths", distinct...)
	if !slices.IsSorted(got) || got[10] < 8 || got[199] < 80 {
		t.Errorf("paths %v", got)
	}
}

func TestRootIsRoundedDown(t *testing.T) {
	for _, n := range []uint64{0, 1, 2, 3, 4, 8, 9, 15, 16, 1<<32 - 1, 1 << 32, 1<<62 - 1, 1<<64 - 1} {
		r := root(n)
		high, low := bits.Mul64(r+1, r+1)
		if r*r > n || high == 0 && low <= n {
			t.Errorf("root(%d) = %d", n, r)
		}
	}
}

func FuzzTracker(f *testing.F) {
	f.Add([]byte("\x01\x02\x03\x04\x01\x02\x03\x04"), uint8(3), uint8(2))
	f.Add([]byte("aaaaaaaabbbbbbbbccccccccdddd"), uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, sources, pending uint8) {
		c := narrow(1+int(sources%16), 1+int(pending%8))
		var records []record.Record
		for i := 0; i+3 < len(b) && i < 400; i += 4 {
			records = append(records, record.Record{
				Time: int64(int8(b[i])) * int64(b[i+1]) * second, Address: fmt.Sprintf("192.0.2.%d", b[i+2]%32), Payload: string(b[i+3]),
			})
		}
		run(t, c, records) // in any order: bounds and invariants hold
		slices.SortStableFunc(records, func(a, b record.Record) int { return cmp.Compare(a.Time, b.Time) })
		want := naive(t, c, records)
		for i, v := range run(t, c, records) {
			if d := differing(v, want[i]); d != nil {
				t.Fatalf("record %d differs from the whole past in %v", i, d)
			}
		}
	})
}
