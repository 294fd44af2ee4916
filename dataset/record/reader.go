package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Kind names a format of input. It is kept in the record as provenance.
type Kind string

const (
	Attacks  Kind = "attacks"  // attack records, JSON array or lines; also AppendJSON's form
	Honeypot Kind = "honeypot" // honeypot log with personas, JSON array or lines
	Cowrie   Kind = "cowrie"   // Cowrie SSH honeypot, JSON lines
	Access   Kind = "access"   // Apache or nginx access log, common or combined
	SSHD     Kind = "sshd"     // OpenSSH server lines of syslog, traditional or ISO time
	Labelled Kind = "labelled" // CSV with a header that names attack_type
	Requests Kind = "requests" // request strings of published exploits, JSON lines
	Targets  Kind = "targets"  // request targets or parameter values, one a line
)

var kinds = [...]Kind{Attacks, Honeypot, Cowrie, Access, SSHD, Labelled, Requests, Targets}

// ParseKind returns the Kind named s, exactly as the constants spell it.
func ParseKind(s string) (Kind, error) {
	if k := Kind(s); k.valid() {
		return k, nil
	}
	return "", fmt.Errorf("record: unknown format %s: want one of %s", quote(s), kinds)
}

func (k Kind) valid() bool { return slices.Contains(kinds[:], k) }

// Options say what the input itself does not. The zero value is usable.
type Options struct {
	Class   string  // when not empty, the Label of every record, whatever the input says
	Site    string  // when not empty, the Site of every record, whatever the input says
	Year    int     // of syslog times, which carry none; 0 leaves their records undated
	Privacy Privacy // applied to every record

	// Skipped, if not nil, is called during Next for every row that is passed
	// over as no network event of its own, in the order of the rows.
	Skipped func(line int64, reason string)
}

// ErrHeader is returned for a CSV whose first row does not name the columns
// that a labelled input must have.
var ErrHeader = errors.New("unusable header")

// RowError is a row of the input that holds no record because it is
// malformed. Reading goes on after it.
type RowError struct {
	Line   int64  // line on which the row starts, from 1
	Reason string // one of a small fixed set of words
	Detail string // more about this row; may quote it, escaped and cut
}

func (e *RowError) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
	}
	return fmt.Sprintf("line %d: %s: %s", e.Line, e.Reason, e.Detail)
}

// Report is what a Reader has met so far. Rows = Kept + the rows of Skipped +
// the rows of Bad. A row is a line that is not blank, an element of a JSON
// array, or a CSV record after the header.
type Report struct {
	Rows    int64   `json:"rows"`
	Kept    int64   `json:"kept"`
	Undated int64   `json:"undated"` // of Kept: records without a usable time
	Skipped []Count `json:"skipped"` // well-formed rows that are no network event of their own, by reason
	Bad     []Count `json:"bad"`     // malformed rows, by reason
	Quirks  []Count `json:"quirks"`  // oddities survived, by class; a row may have several, a bad row too
}

// Count is how many rows one reason applied to. Counts are sorted by Reason.
type Count struct {
	Reason string  `json:"reason"`
	Rows   int64   `json:"rows"`
	Lines  []int64 `json:"lines"` // of the first five
}

// counts gathers Counts; every reason comes from a fixed set, so it is bounded.
type counts map[string]*counter

type counter struct {
	rows, last int64
	lines      []int64
}

// add counts the row with ordinal row once for reason.
func (c counts) add(reason string, row, line int64) {
	n := c[reason]
	if n == nil {
		n = &counter{last: -1}
		c[reason] = n
	}
	if n.last == row {
		return
	}
	n.last = row
	n.rows++
	if len(n.lines) < 5 {
		n.lines = append(n.lines, line)
	}
}

func (c counts) list() []Count {
	out := make([]Count, 0, len(c))
	for reason, n := range c {
		out = append(out, Count{Reason: reason, Rows: n.rows, Lines: slices.Clone(n.lines)})
	}
	slices.SortFunc(out, func(a, b Count) int { return strings.Compare(a.Reason, b.Reason) })
	return out
}

// verdict is what a parser says about a row: kept when reason is empty.
type verdict struct {
	bad    bool
	reason string
	detail string
}

func skip(reason string) verdict        { return verdict{reason: reason} }
func bad(reason, detail string) verdict { return verdict{bad: true, reason: reason, detail: detail} }

// Reader reads the records of one input. What it makes of a row depends on
// that row, the header of a CSV and Options alone, never on other rows, so
// inputs may be split and shuffled. Memory is bounded whatever the input:
// rows longer than 1 MiB are bad rows. A Reader is for one goroutine.
type Reader struct {
	kind  Kind
	opt   Options
	in    input
	parse func(*Reader, []byte, *Record) verdict
	note  func(class string) // counts a quirk of the current row
	err   error              // sticky end

	rows, kept, undated  int64
	skipped, bad, quirks counts

	json    object
	header  []column
	scratch []byte
	names   map[string]string
	addrs   map[string]source
}

// NewReader returns a Reader of r, which holds rows of the given kind. The
// header of a Labelled input is read at once; one that lacks a column is
// ErrHeader. At most 2 MiB of r are held at a time.
func NewReader(r io.Reader, kind Kind, opt Options) (*Reader, error) {
	if !kind.valid() {
		return nil, fmt.Errorf("record: unknown format %s: want one of %s", quote(string(kind)), kinds)
	}
	if opt.Year < 0 || opt.Year > 9999 {
		return nil, fmt.Errorf("record: year %d: want 1 to 9999, or 0 for none", opt.Year)
	}
	for _, o := range [...]struct{ name, text string }{{"class", opt.Class}, {"site", opt.Site}} {
		if !utf8.ValidString(o.text) || len(o.text) > MaxName {
			return nil, fmt.Errorf("record: %s %s: want valid UTF-8 of at most %d bytes", o.name, quote(o.text), MaxName)
		}
	}
	if err := opt.Privacy.Validate(); err != nil {
		return nil, err
	}
	rd := &Reader{
		kind: kind, opt: opt, in: input{r: r, line: 1},
		skipped: counts{}, bad: counts{}, quirks: counts{},
		names: map[string]string{}, addrs: map[string]source{},
	}
	rd.note = func(class string) { rd.quirks.add(class, rd.rows, rd.in.rowLine) }
	switch kind {
	case Attacks:
		rd.parse = (*Reader).attack
		rd.json.attack = true
	case Honeypot:
		rd.parse = (*Reader).honeypot
	case Cowrie:
		rd.parse = (*Reader).cowrie
	case Requests:
		rd.parse = (*Reader).request
	case Targets:
		rd.parse = (*Reader).target
	case Access:
		rd.parse = (*Reader).access
	case SSHD:
		rd.parse = (*Reader).sshd
	case Labelled:
		rd.parse = (*Reader).labelled
		if err := rd.readHeader(); err != nil {
			return nil, err
		}
	}
	return rd, nil
}

// Next reads the next record into rec, all of whose fields it sets, in
// canonical form and with Options applied. It returns io.EOF at the end, a
// *RowError for a bad row, after which the caller goes on with Next, and any
// other error when the input cannot be read further; such an error stays.
func (r *Reader) Next(rec *Record) error {
	for {
		if r.err != nil {
			return r.err
		}
		row, state, err := r.row()
		if err != nil {
			if err == io.EOF && r.in.array {
				r.note("array not closed")
			}
			if err != io.EOF {
				err = fmt.Errorf("reading line %d: %w", r.in.line, err)
			}
			r.err = err
			continue
		}
		r.rows++
		line := r.in.rowLine
		var v verdict
		if state == rowTooLong {
			v = bad("row too long", fmt.Sprintf("more than %d bytes", maxRow))
		} else {
			v = r.read(row, state, rec)
		}
		switch {
		case v.bad:
			r.bad.add(v.reason, r.rows, line)
			return &RowError{Line: line, Reason: v.reason, Detail: v.detail}
		case v.reason != "":
			r.skipped.add(v.reason, r.rows, line)
			if r.opt.Skipped != nil {
				r.opt.Skipped(line, v.reason)
			}
			continue
		}
		r.kept++
		if rec.Time == NoTime {
			r.undated++
		}
		return nil
	}
}

// row returns the next row that is not blank, without its line end.
func (r *Reader) row() ([]byte, rowState, error) {
	for {
		var row []byte
		var state rowState
		var err error
		switch r.kind {
		case Access, SSHD, Targets:
			row, state, err = r.in.text()
		case Labelled:
			row, state, err = r.in.csv()
		default:
			row, state, err = r.in.value()
		}
		if err != nil {
			return nil, 0, err
		}
		if r.in.rowLine == 1 {
			row = bytes.TrimPrefix(row, bom)
		}
		if state == rowTooLong || len(bytes.TrimSpace(row)) > 0 {
			return row, state, nil
		}
	}
}

var bom = []byte("\ufeff")

// read makes a record of one row.
func (r *Reader) read(row []byte, state rowState, rec *Record) verdict {
	if state == rowCut {
		return bad("cut short", "the row does not end")
	}
	if n := len(row); row[n-1] == '\r' {
		row = row[:n-1]
		r.note("CRLF line ends")
	}
	if !utf8.Valid(row) {
		r.note(quirkUTF8)
		row = bytes.ToValidUTF8(row, []byte("\ufffd"))
	}
	*rec = Record{Kind: r.kind, Time: NoTime}
	if v := r.parse(r, row, rec); v.reason != "" {
		return v
	}
	r.opt.Complete(rec, r.note)
	return verdict{}
}

// Complete does to a record that was made without a Reader what a Reader does
// last: it sets Class and Site, applies Privacy and brings rec to canonical form.
// Classes of oddities are given to note, which may be nil. o must be one that
// NewReader takes, and the texts of rec valid UTF-8.
func (o *Options) Complete(rec *Record, note func(class string)) {
	if o.Class != "" {
		rec.Label = o.Class
	}
	if o.Site != "" {
		rec.Site = o.Site
	}
	// Redaction sees more than the bound, so that the cut splits nothing that
	// it would have replaced, but not all of a text that may be 1 MiB long.
	for _, s := range [...]*string{&rec.Payload, &rec.Agent, &rec.Referer, &rec.User} {
		if len(*s) > 2*MaxText {
			*s = cutText(*s, 2*MaxText)
			if note != nil {
				note(quirkLong)
			}
		}
	}
	o.Privacy.Apply(rec)
	if rec.Canonicalize(note) {
		// The cut may have made a shorter match.
		o.Privacy.Apply(rec)
	}
}

// Line returns the line on which the row of the last record or RowError
// started, from 1.
func (r *Reader) Line() int64 { return r.in.rowLine }

// Report returns the counts so far. It may be called at any time.
func (r *Reader) Report() Report {
	return Report{
		Rows: r.rows, Kept: r.kept, Undated: r.undated,
		Skipped: r.skipped.list(), Bad: r.bad.list(), Quirks: r.quirks.list(),
	}
}

// intern returns b as a string, the same one for recent equal bytes.
func (r *Reader) intern(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(b) > 128 {
		return string(b)
	}
	if s, ok := r.names[string(b)]; ok {
		return s
	}
	if len(r.names) >= 1<<12 {
		clear(r.names)
	}
	s := string(b)
	r.names[s] = s
	return s
}

// source is what a text that should be an address came to.
type source struct{ address, quirk string }

// address sets rec.Address from a text that should be an address. A host
// name cannot stand for one: what it resolves to changes, and one host can
// have many, so such a record has no source. Reports whether it has one.
func (r *Reader) address(rec *Record, b []byte) bool {
	s, ok := r.addrs[string(b)]
	if !ok {
		s.address, s.quirk = parseAddress(string(bytes.TrimSpace(b)))
		s.address = r.opt.Privacy.address(s.address)
		if len(r.addrs) >= 1<<12 {
			clear(r.addrs)
		}
		if len(b) <= 128 {
			r.addrs[string(b)] = s
		}
	}
	if s.quirk != "" {
		r.note(s.quirk)
	}
	rec.Address = s.address
	return s.address != ""
}

// time sets rec.Time from what a time parser returned.
func (r *Reader) time(rec *Record, t int64, odd timeOddity, ok bool) {
	if !ok {
		r.note("time not understood")
		return
	}
	if odd&oddNoZone != 0 {
		r.note("time without zone, taken as UTC")
	}
	if odd&oddOffsetZ != 0 {
		r.note("time with both offset and Z")
	}
	rec.Time = t
}

// quote makes foreign text fit for a message: cut, and escaped to ASCII.
func quote(s string) string {
	if len(s) > 60 {
		return strconv.QuoteToASCII(s[:60]) + "…"
	}
	return strconv.QuoteToASCII(s)
}

func appendQuoted(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // the error only repeats that invalid UTF-8 was replaced
	return b
}
