package record

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// full has every field set, in canonical form.
var full = Record{
	Site: "site", Time: 1767342627_105763, Address: "192.0.2.1", Kind: Access, Event: "e\x00\x01",
	Protocol: "http", Port: 443, Method: "GET", Payload: "/?a='\x00\xf0\x9f\x92\xa9\u2028", Agent: "agent", Referer: "r",
	User: "u", Status: 599, Size: math.MaxInt64, Outcome: OutcomeFailure, Label: "sql injection",
	Level: LevelCritical, Exploit: math.MaxInt64,
}

func TestCanonicalRowsDecodeToThemselves(t *testing.T) {
	for _, r := range []Record{
		full,
		{Kind: Attacks, Time: NoTime},
		{Kind: Labelled, Time: minTime, Address: "::"},
		{Kind: Labelled, Time: maxTime, Address: "h:0123456789abcdef", Payload: strings.Repeat("é", MaxText/2)},
	} {
		var back Record
		row := r.AppendRow([]byte("before"))[len("before"):]
		if err := DecodeRow(row, &back); err != nil || back != r {
			t.Errorf("%+v decodes to %+v, %v", r, back, err)
		}
		for n := range row {
			if err := DecodeRow(row[:n], &back); !errors.Is(err, canon.ErrSyntax) {
				t.Fatalf("the first %d bytes: %v", n, err)
			}
		}
		if err := DecodeRow(append(row, 0), &back); !errors.Is(err, canon.ErrSyntax) {
			t.Errorf("a byte too many: %v", err)
		}
	}
}

// TestRowOrder checks that rows order by Site, then Time, then the rest.
func TestRowOrder(t *testing.T) {
	ordered := []Record{
		{Time: NoTime, Address: "z", Kind: "z"},
		{Time: -1, Address: "z"},
		{Time: 0, Address: "a", Kind: "b"},
		{Time: 0, Address: "a", Kind: "b", Exploit: 1},
		{Time: 0, Address: "a", Kind: "c"},
		{Time: 0, Address: "ab", Kind: "a"},
		{Time: 1},
		{Site: "a", Time: NoTime},
		{Site: "a\x00", Time: NoTime},
		{Site: "aa", Time: NoTime},
	}
	for i := 1; i < len(ordered); i++ {
		if a, b := ordered[i-1].AppendRow(nil), ordered[i].AppendRow(nil); bytes.Compare(a, b) >= 0 {
			t.Errorf("%+v is not before %+v", ordered[i-1], ordered[i])
		}
	}
}

// broken are single changes to full that no canonical record has, with what
// Canonicalize makes of the field and its quirk.
var broken = []struct {
	field, quirk string
	set          func(*Record)
	ok           func(*Record) bool
}{
	{"site", quirkUTF8, func(r *Record) { r.Site = "a\xff\xfeb" }, func(r *Record) bool { return r.Site == "a\ufffdb" }},
	{"site", quirkLong, func(r *Record) { r.Site = strings.Repeat("a", MaxName+1) }, func(r *Record) bool { return len(r.Site) == MaxName }},
	{"time", quirkRange, func(r *Record) { r.Time = minTime - 1 }, func(r *Record) bool { return r.Time == NoTime }},
	{"time", quirkRange, func(r *Record) { r.Time = maxTime + 1 }, func(r *Record) bool { return r.Time == NoTime }},
	{"address", quirkHost, func(r *Record) { r.Address = "a.example" }, func(r *Record) bool { return r.Address == "" }},
	{"address", quirkAddress, func(r *Record) { r.Address = "192.0.2.256" }, func(r *Record) bool { return r.Address == "" }},
	{"address", quirkAddress, func(r *Record) { r.Address = "192.0.02.2" }, func(r *Record) bool { return r.Address == "" }},
	{"address", quirkAddress, func(r *Record) { r.Address = "1.2.3." }, func(r *Record) bool { return r.Address == "" }},
	{"address", quirkAddress, func(r *Record) { r.Address = "h:0123456789abcdeF" }, func(r *Record) bool { return r.Address == "" }},
	{"address", quirkMapped, func(r *Record) { r.Address = "::ffff:192.0.2.1" }, func(r *Record) bool { return r.Address == "192.0.2.1" }},
	{"address", quirkZone, func(r *Record) { r.Address = "fe80::1%x" }, func(r *Record) bool { return r.Address == "fe80::1" }},
	{"address", "", func(r *Record) { r.Address = "2001:DB8::1" }, func(r *Record) bool { return r.Address == "2001:db8::1" }},
	{"event", quirkUTF8, func(r *Record) { r.Event = "\xc0" }, func(r *Record) bool { return r.Event == "\ufffd" }},
	{"protocol", "", func(r *Record) { r.Protocol = " TCP" }, func(r *Record) bool { return r.Protocol == "tcp" }},
	{"protocol", quirkProtocol, func(r *Record) { r.Protocol = "a/b" }, func(r *Record) bool { return r.Protocol == "" }},
	{"protocol", quirkProtocol, func(r *Record) { r.Protocol = strings.Repeat("a", maxWord+1) }, func(r *Record) bool { return r.Protocol == "" }},
	{"port", quirkRange, func(r *Record) { r.Port = 65536 }, func(r *Record) bool { return r.Port == 0 }},
	{"port", quirkRange, func(r *Record) { r.Port = -1 }, func(r *Record) bool { return r.Port == 0 }},
	{"method", "", func(r *Record) { r.Method = "get" }, func(r *Record) bool { return r.Method == "GET" }},
	{"method", quirkMethod, func(r *Record) { r.Method = "G\x00T" }, func(r *Record) bool { return r.Method == "" }},
	{"method", quirkMethod, func(r *Record) { r.Method = "-GET" }, func(r *Record) bool { return r.Method == "" }},
	{"payload", quirkLong, func(r *Record) { r.Payload = strings.Repeat("é", MaxText/2) + "é" }, func(r *Record) bool { return len(r.Payload) == MaxText }},
	{"agent", quirkLong, func(r *Record) { r.Agent = "a" + strings.Repeat("é", MaxText/2) }, func(r *Record) bool { return len(r.Agent) == MaxText-1 }},
	{"referer", quirkUTF8, func(r *Record) { r.Referer = "\xed\xa0\x80" }, func(r *Record) bool { return r.Referer == "\ufffd" }},
	{"user", quirkLong, func(r *Record) { r.User = strings.Repeat("é", MaxName) }, func(r *Record) bool { return len(r.User) == MaxName }},
	{"status", quirkRange, func(r *Record) { r.Status = 99 }, func(r *Record) bool { return r.Status == 0 }},
	{"status", quirkRange, func(r *Record) { r.Status = 600 }, func(r *Record) bool { return r.Status == 0 }},
	{"size", quirkRange, func(r *Record) { r.Size = -1 }, func(r *Record) bool { return r.Size == 0 }},
	{"outcome", quirkRange, func(r *Record) { r.Outcome = OutcomeFailure + 1 }, func(r *Record) bool { return r.Outcome == OutcomeUnknown }},
	{"label", "", func(r *Record) { r.Label = "\tXSS " }, func(r *Record) bool { return r.Label == "xss" }},
	{"label", "", func(r *Record) { r.Label = "Unknown" }, func(r *Record) bool { return r.Label == "" }},
	{"label", quirkLong, func(r *Record) { r.Label = strings.Repeat("a ", MaxName) }, func(r *Record) bool { return len(r.Label) == MaxName-1 }},
	{"level", quirkRange, func(r *Record) { r.Level = -1 }, func(r *Record) bool { return r.Level == LevelUnknown }},
	{"exploit", quirkRange, func(r *Record) { r.Exploit = -1 }, func(r *Record) bool { return r.Exploit == 0 }},
}

func TestCanonicalizeMendsWhatDecodeRowRejects(t *testing.T) {
	if r := full; r.Canonicalize(func(q string) { t.Errorf("quirk %q of a canonical record", q) }) || r != full || r.Check() != nil {
		t.Errorf("a canonical record changes to %+v, %v", r, r.Check())
	}
	for _, c := range broken {
		r := full
		c.set(&r)
		err := DecodeRow(r.AppendRow(nil), new(Record))
		if !errors.Is(err, canon.ErrSyntax) || !strings.Contains(err.Error(), c.field) {
			t.Errorf("%s: decoded with %v", c.field, err)
		}
		quirk := ""
		cut := r.Canonicalize(func(q string) { quirk += q })
		if quirk != c.quirk || cut != (quirk == quirkLong) || !c.ok(&r) || r.Check() != nil {
			t.Errorf("%s: quirk %q (want %q), cut %v, record %+v, check %v", c.field, quirk, c.quirk, cut, r, r.Check())
		}
	}
	r := full
	r.Kind = "other"
	if err := DecodeRow(r.AppendRow(nil), new(Record)); !errors.Is(err, canon.ErrSyntax) {
		t.Errorf("an unknown kind: %v", err)
	}
	row := full.AppendRow(nil)
	row[len(row)-16] ^= 0x40 // the level, beyond 32 bits
	if err := DecodeRow(row, new(Record)); !errors.Is(err, canon.ErrSyntax) {
		t.Errorf("a level of 64 bits: %v", err)
	}
}

func TestAppendJSONIsLossless(t *testing.T) {
	for _, kind := range kinds {
		r := full
		r.Kind = kind
		checkReplay(t, &r)
		checkReplay(t, &Record{Kind: kind, Time: NoTime})
		checkReplay(t, &Record{Kind: kind, Time: minTime, Label: "backup_issue"})
		checkReplay(t, &Record{Kind: kind, Time: maxTime, Payload: strings.Repeat("\x01", MaxText)})
	}
}

func checkReplay(t *testing.T, r *Record) {
	t.Helper()
	b := AppendJSON(nil, r)
	rd, err := NewReader(bytes.NewReader(b), Attacks, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var back Record
	if err := rd.Next(&back); err != nil || back != *r {
		t.Errorf("%s reads as %+v, %v", b, back, err)
	}
	if err := rd.Next(&back); err != io.EOF || len(rd.Report().Quirks) > 0 {
		t.Errorf("%s: then %v, quirks %v", b, err, rd.Report().Quirks)
	}
}

func TestWordsOfLevelsAndOutcomes(t *testing.T) {
	for l := LevelUnknown; l <= LevelCritical; l++ {
		if got := ParseLevel(l.String()); got != l {
			t.Errorf("%d is %q, which is %d", l, l, got)
		}
	}
	for s, want := range map[string]Level{"low": LevelInfo, "MEDIUM": LevelSuspicious, "High": LevelDangerous, "critical": LevelCritical, "": 0, "none": 0} {
		if got := ParseLevel(s); got != want {
			t.Errorf("%q is %v, want %v", s, got, want)
		}
	}
	if Level(-1).String()+Level(99).String()+Outcome(-1).String()+Outcome(99).String()+OutcomeUnknown.String() != "" {
		t.Error("a word for a value that has none")
	}
}
