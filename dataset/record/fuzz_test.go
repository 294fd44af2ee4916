package record

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"
)

// FuzzReader feeds any bytes to the reader of any format: it must not panic,
// give canonical records, account for every line, make the same of the bytes
// however they arrive, and give records that survive AppendJSON and a second
// redaction.
func FuzzReader(f *testing.F) {
	for _, c := range formats {
		for i, k := range kinds {
			if k == c.kind {
				f.Add(uint8(i), []byte(c.in))
			}
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, in []byte) {
		kind := kinds[int(n)%len(kinds)]
		opt := Options{Year: 2020, Privacy: Privacy{Redaction: 1}}
		data := in
		if kind == Labelled {
			data = append([]byte(csvHeader), in...)
		}
		got := read(t, bytes.NewReader(data), kind, opt)
		if slow := read(t, iotest.HalfReader(iotest.DataErrReader(bytes.NewReader(data))), kind, opt); fmt.Sprint(got) != fmt.Sprint(slow) {
			t.Errorf("another reading in pieces: %v, %v", got, slow)
		}
		lines := int64(0)
		for line := range bytes.Lines(bytes.TrimPrefix(in, bom)) {
			if len(bytes.TrimSpace(line)) > 0 {
				lines++
			}
		}
		byLine := kind == Access || kind == SSHD || kind == Targets
		if byLine && got.report.Rows != lines {
			t.Errorf("%d rows of %d lines", got.report.Rows, lines)
		}
		if !byLine && !bytes.ContainsAny(in, "[\"") && got.report.Rows != lines {
			t.Errorf("%d rows of %d lines", got.report.Rows, lines)
		}
		replay := read(t, strings.NewReader(strings.Join(got.rows, "\n")), Attacks, opt)
		if fmt.Sprint(replay.rows) != fmt.Sprint(got.rows) || len(replay.report.Quirks) > 0 {
			t.Errorf("replayed: %v\nwas: %v\nquirks: %v", replay.rows, got.rows, replay.report.Quirks)
		}
	})
}

// FuzzDecodeRow checks that whatever decodes encodes to the same bytes.
func FuzzDecodeRow(f *testing.F) {
	f.Add(full.AppendRow(nil))
	f.Add((&Record{Kind: Attacks, Time: NoTime}).AppendRow(nil))
	for _, c := range broken {
		r := full
		c.set(&r)
		f.Add(r.AppendRow(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if DecodeRow(b, &r) == nil && !bytes.Equal(r.AppendRow(nil), b) {
			t.Errorf("%+v encodes to other bytes", r)
		}
	})
}

// FuzzCanonicalize checks that any record becomes canonical at once and stays
// so, and survives AppendJSON.
func FuzzCanonicalize(f *testing.F) {
	f.Add("a\xff", "::ffff:1.2.3.4", " Unknown ", "get", "é", int64(-1), int64(70000))
	f.Fuzz(func(t *testing.T, text, address, label, word, more string, n, m int64) {
		r := Record{
			Site: text, Time: n, Address: address, Kind: kinds[uint64(n)%uint64(len(kinds))], Event: more, Protocol: word, Port: int32(m),
			Method: word, Payload: more, Agent: text, Referer: label, User: text, Status: int32(n), Size: m,
			Outcome: Outcome(n), Label: label, Level: Level(m), Exploit: n,
		}
		r.Canonicalize(nil)
		if err := r.Check(); err != nil {
			t.Fatalf("%v: %+v", err, r)
		}
		checkReplay(t, &r)
		for _, form := range []AddressForm{Full, Truncated, Hashed} {
			p := Privacy{Address: form, Key: key, Redaction: 1}
			private := r
			p.Apply(&private)
			again := private
			p.Apply(&again)
			if again != private || private.Check() != nil {
				t.Errorf("%s: %+v, then %+v, %v", form, private, again, private.Check())
			}
		}
	})
}

// FuzzRedact checks that redaction is idempotent, makes no text longer or
// invalid, and keeps every byte that is no letter, digit or part of a value.
func FuzzRedact(f *testing.F) {
	for _, s := range []string{"password=a&token=1-4111 4111111111111111", "Bearer abcdefgh1234", "%2Ba.b@c.d", "session=é'", "41 11-1111"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := redact(s)
		if again := redact(got); again != got {
			t.Errorf("%q becomes %q and then %q", s, got, again)
		}
		if len(got) > len(s) || utf8.ValidString(s) != utf8.ValidString(got) {
			t.Errorf("%q becomes %q", s, got)
		}
		attack := func(s string) string {
			return strings.Map(func(c rune) rune {
				if c < 0x80 && strings.ContainsRune("'\"<>()[]{}|;&*$`!#%\\?^,:@", c) {
					return c
				}
				return -1
			}, s)
		}
		if attack(got) != attack(s) {
			t.Errorf("%q becomes %q and loses more than words", s, got)
		}
	})
}

// FuzzTime compares what the standard library reads too.
func FuzzTime(f *testing.F) {
	strict := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)
	f.Add("2026-01-10T08:22:17.660475+08:00")
	f.Fuzz(func(t *testing.T, s string) {
		got, odd, ok := parseTime([]byte(s))
		if ok && (got < minTime || got > maxTime) {
			t.Errorf("%q is %d", s, got)
		}
		want, err := time.Parse(time.RFC3339Nano, s) // which takes some more than RFC 3339 does
		if err != nil || !strict.MatchString(s) || want.UTC().Year() < 1 || want.UTC().Year() > 9999 {
			return
		}
		if us := want.Unix()*1e6 + int64(want.Nanosecond()/1000); !ok || odd != 0 || got != us {
			t.Errorf("%q is %d, %v, want %d", s, got, ok, us)
		}
	})
}
