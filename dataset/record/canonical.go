package record

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Bounds of the text fields in bytes. They are part of the canonical form:
// a change changes dataset digests.
const (
	MaxText = 8 << 10 // Payload, Agent, Referer
	MaxName = 256     // Site, Event, User, Label
	maxWord = 32      // Protocol, Method
)

// Bounds of a Time other than NoTime: the years 1 to 9999.
const (
	minTime = -62135596800_000000
	maxTime = 253402300799_999999
)

// Classes of quirks that Canonicalize finds.
const (
	quirkUTF8     = "invalid UTF-8 replaced"
	quirkLong     = "text cut to its limit"
	quirkHost     = "host name instead of address"
	quirkAddress  = "address not understood"
	quirkEmpty    = "empty address"
	quirkMapped   = "IPv4 address in IPv6 form"
	quirkZone     = "address with zone"
	quirkProtocol = "protocol not understood"
	quirkMethod   = "method not understood"
	quirkRange    = "number out of range"
)

// Canonicalize brings r to canonical form, the only one AppendRow may encode
// and the one that Check demands. In text fields each run of invalid UTF-8
// becomes one U+FFFD, then the text is cut to its bound between runes. Address
// becomes netip's form of an address (IPv4-mapped unmapped, zone dropped) or a
// keyed hash, else empty. Protocol, Method and Label are put in their case, by
// ASCII rules, and a Label is trimmed; "unknown" is no Label. Numbers out of
// their range become unknown. Kind is left alone. A canonical record does not
// change.
//
// Each class of change is given to note, which may be nil. The result says
// whether a text was cut.
func (r *Record) Canonicalize(note func(class string)) (cut bool) {
	if note == nil {
		note = func(string) {}
	}
	text := func(s *string, limit int) {
		if !utf8.ValidString(*s) {
			note(quirkUTF8)
			*s = strings.ToValidUTF8(*s, "\ufffd")
		}
		if len(*s) > limit {
			note(quirkLong)
			*s = cutText(*s, limit)
			cut = true
		}
	}
	text(&r.Site, MaxName)
	text(&r.Event, MaxName)
	text(&r.Payload, MaxText)
	text(&r.Agent, MaxText)
	text(&r.Referer, MaxText)
	text(&r.User, MaxName)
	r.Label = lower(trim(r.Label))
	text(&r.Label, MaxName)
	if r.Label = trim(r.Label); r.Label == "unknown" {
		r.Label = ""
	}
	if !canonicalAddress(r.Address) {
		a, quirk := parseAddress(r.Address)
		r.Address = a
		if quirk != "" {
			note(quirk)
		}
	}
	if r.Protocol = lower(trim(r.Protocol)); !isWord(r.Protocol, 'a') {
		r.Protocol = ""
		note(quirkProtocol)
	}
	if r.Method = upper(trim(r.Method)); !isWord(r.Method, 'A') {
		r.Method = ""
		note(quirkMethod)
	}
	out := false
	out = clear0(&r.Port, r.Port < 0 || r.Port > 65535) || out
	out = clear0(&r.Status, r.Status != 0 && (r.Status < 100 || r.Status > 599)) || out
	out = clear0(&r.Size, r.Size < 0) || out
	out = clear0(&r.Outcome, r.Outcome < 0 || r.Outcome > OutcomeFailure) || out
	out = clear0(&r.Level, r.Level < 0 || r.Level > LevelCritical) || out
	out = clear0(&r.Exploit, r.Exploit < 0) || out
	if r.Time != NoTime && (r.Time < minTime || r.Time > maxTime) {
		r.Time, out = NoTime, true
	}
	if out {
		note(quirkRange)
	}
	return cut
}

func clear0[T ~int32 | ~int64](n *T, when bool) bool {
	if when {
		*n = 0
	}
	return when
}

// Check returns nil when r is in canonical form, else an error of class
// canon.ErrSyntax that names a field which is not.
func (r *Record) Check() error {
	c := *r
	c.Canonicalize(nil)
	if field := r.differs(&c); field != "" {
		return fmt.Errorf("record: %w: %s is not in canonical form", canon.ErrSyntax, field)
	}
	if !r.Kind.valid() {
		return fmt.Errorf("record: %w: kind %s", canon.ErrSyntax, quote(string(r.Kind)))
	}
	return nil
}

// differs names the first field in which a and b differ.
func (a *Record) differs(b *Record) string {
	switch {
	case a.Site != b.Site:
		return "site"
	case a.Time != b.Time:
		return "time"
	case a.Address != b.Address:
		return "address"
	case a.Kind != b.Kind:
		return "kind"
	case a.Event != b.Event:
		return "event"
	case a.Protocol != b.Protocol:
		return "protocol"
	case a.Port != b.Port:
		return "port"
	case a.Method != b.Method:
		return "method"
	case a.Payload != b.Payload:
		return "payload"
	case a.Agent != b.Agent:
		return "agent"
	case a.Referer != b.Referer:
		return "referer"
	case a.User != b.User:
		return "user"
	case a.Status != b.Status:
		return "status"
	case a.Size != b.Size:
		return "size"
	case a.Outcome != b.Outcome:
		return "outcome"
	case a.Label != b.Label:
		return "label"
	case a.Level != b.Level:
		return "level"
	case a.Exploit != b.Exploit:
		return "exploit"
	}
	return ""
}

// AppendRow appends the canonical row of r to b: its fields in the row
// encoding of canon, Site and Time first and then as declared. The order of
// the bytes is the order of records. r must be in canonical form.
func (r *Record) AppendRow(b []byte) []byte {
	b = canon.AppendText(b, r.Site)
	b = canon.AppendInt(b, r.Time)
	b = canon.AppendText(b, r.Address)
	b = canon.AppendText(b, string(r.Kind))
	b = canon.AppendText(b, r.Event)
	b = canon.AppendText(b, r.Protocol)
	b = canon.AppendInt(b, int64(r.Port))
	b = canon.AppendText(b, r.Method)
	b = canon.AppendText(b, r.Payload)
	b = canon.AppendText(b, r.Agent)
	b = canon.AppendText(b, r.Referer)
	b = canon.AppendText(b, r.User)
	b = canon.AppendInt(b, int64(r.Status))
	b = canon.AppendInt(b, r.Size)
	b = canon.AppendInt(b, int64(r.Outcome))
	b = canon.AppendText(b, r.Label)
	b = canon.AppendInt(b, int64(r.Level))
	return canon.AppendInt(b, r.Exploit)
}

// DecodeRow sets r to the record whose canonical row b is. Bytes that
// AppendRow makes of no canonical record are canon.ErrSyntax, so that
// encoding a decoded record gives b again. r is unspecified after an error.
func DecodeRow(b []byte, r *Record) error {
	d := canon.NewRow(b)
	*r = Record{Site: d.Text(), Time: d.Int()}
	r.Address = d.Text()
	r.Kind = Kind(d.Text())
	r.Event = d.Text()
	r.Protocol = d.Text()
	r.Port = d.Int32()
	r.Method = d.Text()
	r.Payload = d.Text()
	r.Agent = d.Text()
	r.Referer = d.Text()
	r.User = d.Text()
	r.Status = d.Int32()
	r.Size = d.Int()
	r.Outcome = Outcome(d.Int32())
	r.Label = d.Text()
	r.Level = Level(d.Int32())
	r.Exploit = d.Int()
	if err := d.Close(); err != nil {
		return err
	}
	return r.Check()
}

// AppendJSON appends r as one JSON object without a line end. Reading it as
// Attacks gives r again, Kind included, when r is in canonical form. Unknown
// fields are left out; times are RFC 3339 in UTC with microseconds.
func AppendJSON(b []byte, r *Record) []byte {
	text := func(name, s string) {
		if s != "" {
			b = append(b, `,"`...)
			b = append(b, name...)
			b = append(b, `":`...)
			b = appendQuoted(b, s)
		}
	}
	number := func(name string, n int64) {
		if n != 0 {
			b = append(b, `,"`...)
			b = append(b, name...)
			b = append(b, `":`...)
			b = strconv.AppendInt(b, n, 10)
		}
	}
	b = append(b, `{"kind":`...)
	b = appendQuoted(b, string(r.Kind))
	text("site", r.Site)
	if r.Time != NoTime {
		b = append(b, `,"timestamp":"`...)
		b = time.UnixMicro(r.Time).UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
		b = append(b, '"')
	}
	text("src_ip", r.Address)
	text("event", r.Event)
	text("protocol", r.Protocol)
	number("port", int64(r.Port))
	text("method", r.Method)
	text("payload", r.Payload)
	text("user_agent", r.Agent)
	text("referer", r.Referer)
	text("user", r.User)
	number("status", int64(r.Status))
	number("size", r.Size)
	text("outcome", r.Outcome.String())
	text("attack_type", r.Label)
	text("level", r.Level.String())
	number("edb_id", r.Exploit)
	return append(b, '}')
}

var outcomes = [...]string{OutcomeSuccess: "success", OutcomeFailure: "failure"}

// String returns "success" or "failure", and "" for any other value.
func (o Outcome) String() string {
	if o < 0 || int(o) >= len(outcomes) {
		return ""
	}
	return outcomes[o]
}

var levels = [...]string{
	LevelSafe: "SAFE", LevelInfo: "INFO", LevelWarning: "WARNING",
	LevelSuspicious: "SUSPICIOUS", LevelDangerous: "DANGEROUS", LevelCritical: "CRITICAL",
}

// String returns the sensors' word for l, "SAFE" to "CRITICAL", and "" for
// any other value.
func (l Level) String() string {
	if l < 0 || int(l) >= len(levels) {
		return ""
	}
	return levels[l]
}

// ParseLevel returns the Level that s names, in any case: a word of the
// sensors' scale, or a severity: low is INFO, medium SUSPICIOUS, high
// DANGEROUS. Other words are LevelUnknown.
func ParseLevel(s string) Level {
	switch s = lower(s); s {
	case "safe":
		return LevelSafe
	case "info", "low":
		return LevelInfo
	case "warning":
		return LevelWarning
	case "suspicious", "medium":
		return LevelSuspicious
	case "dangerous", "high":
		return LevelDangerous
	case "critical":
		return LevelCritical
	}
	return LevelUnknown
}

// cutText returns the longest prefix of s, valid UTF-8, of at most limit
// bytes that ends between runes.
func cutText(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// trim removes ASCII white space from both ends.
func trim(s string) string {
	for len(s) > 0 && isSpace(s[0]) {
		s = s[1:]
	}
	for len(s) > 0 && isSpace(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// lower and upper change the case of ASCII letters only: the Unicode tables
// change between releases of Go, canonical forms must not.
func lower(s string) string { return mapCase(s, 'A', 'Z') }
func upper(s string) string { return mapCase(s, 'a', 'z') }

func mapCase(s string, from, to byte) string {
	for i := 0; i < len(s); i++ {
		if from <= s[i] && s[i] <= to {
			b := []byte(s)
			for ; i < len(b); i++ {
				if from <= b[i] && b[i] <= to {
					b[i] ^= 0x20
				}
			}
			return string(b)
		}
	}
	return s
}

// isWord reports whether s is empty or a letter of the alphabet starting at
// a followed by such letters, digits, '-', '.', '_' and '+'.
func isWord(s string, a byte) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := a <= c && c <= a+25
		if !letter && (i == 0 || !(isDigit(c) || c == '-' || c == '.' || c == '_' || c == '+')) {
			return false
		}
	}
	return len(s) <= maxWord
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// parseAddress returns the canonical form of an address, or "" and why.
func parseAddress(s string) (address, quirk string) {
	if canonicalAddress(s) {
		if s == "" {
			quirk = quirkEmpty
		}
		return s, quirk
	}
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil && s == "unknown" || s == "-":
		return "", quirkEmpty
	case err != nil && isHostName(s):
		return "", quirkHost
	case err != nil:
		return "", quirkAddress
	case a.Is4In6():
		quirk = quirkMapped
	case a.Zone() != "":
		quirk = quirkZone
	}
	return a.Unmap().WithZone("").String(), quirk
}

// isHostName reports whether s looks like a name of the domain name system.
func isHostName(s string) bool {
	letters := false
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		switch {
		case 'a' <= c && c <= 'z':
			letters = true
		case isDigit(s[i]), s[i] == '.', s[i] == '-', s[i] == '_':
		default:
			return false
		}
	}
	return letters && len(s) <= 253
}

// canonicalAddress reports whether s can stand in a canonical record: empty,
// a keyed hash, or an address as netip prints it.
func canonicalAddress(s string) bool {
	if s == "" || isIPv4(s) || isHashed(s) {
		return true
	}
	a, err := netip.ParseAddr(s)
	return err == nil && !a.Is4In6() && a.Zone() == "" && a.String() == s
}

// isIPv4 reports whether s is four decimal numbers up to 255 without leading
// zeros.
func isIPv4(s string) bool {
	parts, n, digits := 1, 0, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case isDigit(c):
			if digits > 0 && n == 0 {
				return false
			}
			n = n*10 + int(c-'0')
			if digits++; n > 255 {
				return false
			}
		case c == '.' && digits > 0:
			parts, n, digits = parts+1, 0, 0
		default:
			return false
		}
	}
	return parts == 4 && digits > 0
}
