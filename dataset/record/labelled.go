package record

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// column is what a column of a labelled CSV means.
type column uint8

const (
	colOther column = iota
	colPayload
	colLength
	colClass
	colAddress
	colSeverity
	colProtocol
	colPort
	colTime
)

// columnOf returns the meaning of a header name, in any case.
func columnOf(name string) column {
	switch lower(trim(name)) {
	case "payload":
		return colPayload
	case "length":
		return colLength
	case "attack_type", "threat_type":
		return colClass
	case "src_ip", "ip_address", "source_ip", "ip":
		return colAddress
	case "severity", "level":
		return colSeverity
	case "protocol":
		return colProtocol
	case "port":
		return colPort
	case "timestamp":
		return colTime
	}
	return colOther
}

// readHeader reads the first row of a labelled CSV.
func (r *Reader) readHeader() error {
	row, state, err := r.row()
	if err == io.EOF {
		return fmt.Errorf("record: %w: the input is empty", ErrHeader)
	}
	if err != nil {
		return fmt.Errorf("reading the header: %w", err)
	}
	row = bytes.ToValidUTF8(bytes.TrimSuffix(row, []byte{'\r'}), []byte("\ufffd"))
	var names []string
	rest := row
	for more := state == rowWhole; more; {
		var field []byte
		var reason string
		field, rest, more, _, reason = r.csvField(rest)
		if reason != "" || len(names) > 1000 {
			state = rowCut
			break
		}
		names = append(names, string(field))
	}
	if state != rowWhole {
		return fmt.Errorf("record: %w: line %d is no CSV row", ErrHeader, r.in.rowLine)
	}
	seen := map[column]bool{}
	for _, name := range names {
		c := columnOf(name)
		if c != colOther && seen[c] {
			return fmt.Errorf("record: %w: two columns mean the same as %s", ErrHeader, quote(name))
		}
		seen[c] = true
		r.header = append(r.header, c)
	}
	if !seen[colClass] || !seen[colPayload] && !seen[colAddress] {
		return fmt.Errorf("record: %w: want the columns attack_type and payload (or src_ip), have %s", ErrHeader, quote(strings.Join(names, ",")))
	}
	return nil
}

// labelled reads one CSV row by the header.
func (r *Reader) labelled(row []byte, rec *Record) verdict {
	var length []byte
	doubled := false
	n := 0
	for rest, more := row, true; more; n++ {
		var field []byte
		var twice bool
		var reason string
		field, rest, more, twice, reason = r.csvField(rest)
		if reason == "" && n == len(r.header) {
			reason = fmt.Sprintf("more than %d fields", n)
		}
		if reason != "" {
			r.in.recut()
			return bad("not a CSV row", reason)
		}
		doubled = doubled || twice
		switch r.header[n] {
		case colPayload:
			rec.Payload = string(field)
		case colLength:
			length = append(r.json.arena[:0], field...)
			r.json.arena = length
		case colClass:
			rec.Label = r.intern(field)
		case colAddress:
			r.address(rec, field)
		case colSeverity:
			if rec.Level = ParseLevel(trim(r.intern(field))); rec.Level == LevelUnknown && len(field) > 0 {
				r.note("severity not understood")
			}
		case colProtocol:
			rec.Protocol = r.intern(field)
		case colPort:
			if len(field) > 0 {
				rec.Port = int32(r.field(field, 65535))
			}
		case colTime:
			if len(field) > 0 {
				t, odd, ok := parseTime(field)
				r.time(rec, t, odd, ok)
			}
		}
	}
	if n < len(r.header) {
		r.in.recut()
		return bad("not a CSV row", fmt.Sprintf("%d fields instead of %d", n, len(r.header)))
	}
	if doubled {
		r.note("doubled quotes")
	}
	if len(length) > 0 {
		if l, ok := parseNumber(length, maxInt64); !ok || l != int64(utf8.RuneCountInString(rec.Payload)) {
			r.note("length column differs")
		}
	}
	return verdict{}
}

// csvField reads one field at the start of s and the comma behind it; more
// says whether there was one. A field that holds doubled quotes lasts until
// the next call.
func (r *Reader) csvField(s []byte) (field, rest []byte, more, doubled bool, reason string) {
	if len(s) == 0 || s[0] != '"' {
		field, rest, more = bytes.Cut(s, []byte{','})
		if bytes.IndexByte(field, '"') >= 0 {
			reason = "a quote inside a field that is not quoted"
		}
		return field, rest, more, false, reason
	}
	s = s[1:]
	b := r.scratch[:0]
	for {
		i := bytes.IndexByte(s, '"')
		if i < 0 {
			return nil, nil, false, doubled, "a quoted field that does not end"
		}
		if i+1 < len(s) && s[i+1] == '"' {
			b = append(b, s[:i+1]...)
			s = s[i+2:]
			doubled = true
			continue
		}
		if field = s[:i]; doubled {
			b = append(b, field...)
			r.scratch = b
			field = b
		}
		switch {
		case i+1 == len(s):
			return field, nil, false, doubled, ""
		case s[i+1] == ',':
			return field, s[i+2:], true, doubled, ""
		}
		return nil, nil, false, doubled, "text behind a closing quote"
	}
}
