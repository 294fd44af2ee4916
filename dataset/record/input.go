package record

import (
	"bytes"
	"io"
)

// maxRow is the longest row accepted, in bytes. Real rows are a few
// kilobytes; the bound keeps an input without line ends out of memory.
const maxRow = 1 << 20

// rowState says whether a row is whole.
type rowState uint8

const (
	rowWhole   rowState = iota
	rowCut              // the input ended, or another row began, inside it
	rowTooLong          // longer than maxRow; its bytes are gone
)

// input cuts a stream into rows. A returned row stays valid until the next
// call.
type input struct {
	r          io.Reader
	buf        []byte
	start, end int   // buf[start:end] is read but not consumed
	line       int64 // line on which buf[start] stands, from 1
	rowLine    int64 // line on which the last row began
	second     int   // where the second line of the last csv row stands in buf, or -1
	err        error // what r ended with

	array bool // inside a top-level JSON array
	lost  bool // inside what is left of a broken array element
}

// fill reads more bytes behind the unconsumed ones, whose offsets from start
// stay what they were. It reports false when there are no more.
func (in *input) fill() bool {
	if in.err != nil {
		return false
	}
	full := in.end == len(in.buf)
	if in.start > 0 && (full || in.start == in.end) {
		copy(in.buf, in.buf[in.start:in.end])
		in.start, in.end = 0, in.end-in.start
	}
	// A short input costs little memory, and a long one is soon read in large pieces.
	if in.end == len(in.buf) || full && len(in.buf) < 64<<10 {
		grown := make([]byte, max(2<<10, min(4*len(in.buf), 64<<10), 2*len(in.buf)))
		copy(grown, in.buf[:in.end])
		in.buf = grown
	}
	for range 100 {
		n, err := in.r.Read(in.buf[in.end:])
		in.end += n
		if err != nil {
			in.err = err
		}
		if n > 0 {
			return true
		}
		if err != nil {
			return false
		}
	}
	in.err = io.ErrNoProgress
	return false
}

// take consumes n bytes and returns them.
func (in *input) take(n int) []byte {
	b := in.buf[in.start : in.start+n]
	in.start += n
	in.line += int64(bytes.Count(b, newline))
	return b
}

var newline = []byte{'\n'}

// failed returns the error of the stream, io.EOF included.
func (in *input) failed() error { return in.err }

// text returns the next line without its line feed.
func (in *input) text() ([]byte, rowState, error) {
	in.rowLine = in.line
	for scanned := 0; ; {
		b := in.buf[in.start:in.end]
		if i := bytes.IndexByte(b[scanned:], '\n'); i >= 0 {
			n := scanned + i
			in.start += n + 1
			in.line++
			if n > maxRow {
				return nil, rowTooLong, nil
			}
			return b[:n], rowWhole, nil
		}
		if scanned = len(b); scanned > maxRow {
			return nil, rowTooLong, in.dropLine()
		}
		if !in.fill() {
			if in.err != io.EOF || scanned == 0 {
				return nil, 0, in.failed()
			}
			return in.take(scanned), rowWhole, nil
		}
	}
}

// dropLine consumes the rest of the line without keeping it.
func (in *input) dropLine() error {
	for {
		b := in.buf[in.start:in.end]
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			in.take(i + 1)
			return nil
		}
		in.take(len(b))
		if !in.fill() {
			if in.err != io.EOF {
				return in.err
			}
			return nil
		}
	}
}

// csv returns the next CSV record without its line end. A quote opens or
// closes a field wherever it stands, so a record ends at the first line feed
// before which the quotes are even. A record of several lines that never
// ends so is cut after its first line, and the lines behind it are read anew:
// one stray quote costs one line.
func (in *input) csv() ([]byte, rowState, error) {
	in.rowLine, in.second = in.line, -1
	first, odd := -1, false
	for scanned := 0; ; {
		b := in.buf[in.start:in.end]
		for {
			i := bytes.IndexByte(b[scanned:], '\n')
			if i < 0 {
				break
			}
			odd = odd != (bytes.Count(b[scanned:scanned+i], quoteMark)%2 == 1)
			scanned += i + 1
			if !odd && scanned-1 <= maxRow {
				if first >= 0 {
					in.second = in.start + first
				}
				in.take(scanned)
				return b[:scanned-1], rowWhole, nil
			}
			if first < 0 {
				first = scanned
			}
			if scanned > maxRow {
				break
			}
		}
		switch {
		case len(b) > maxRow && first < 0:
			return nil, rowTooLong, in.dropLine()
		case len(b) > maxRow:
			if first-1 > maxRow {
				in.take(first)
				return nil, rowTooLong, nil
			}
			return in.take(first), rowCut, nil
		}
		if !in.fill() {
			switch {
			case in.err != io.EOF || len(b) == 0:
				return nil, 0, in.failed()
			case first >= 0:
				if odd = odd != (bytes.Count(b[scanned:], quoteMark)%2 == 1); odd {
					return in.take(first), rowCut, nil
				}
				in.second = in.start + first
			}
			return in.take(len(b)), rowWhole, nil
		}
	}
}

// recut gives back all lines of the last csv row but its first.
func (in *input) recut() {
	if in.second >= 0 {
		in.line -= int64(bytes.Count(in.buf[in.second:in.start], newline))
		in.start, in.second = in.second, -1
	}
}

var quoteMark = []byte{'"'}

// value returns the next JSON value: an element of a top-level array, or else
// a line. Arrays may follow each other and stand between lines.
func (in *input) value() ([]byte, rowState, error) {
	for {
		if in.start == in.end && !in.fill() {
			return nil, 0, in.failed()
		}
		if in.lost {
			more, err := in.rest()
			if err != nil {
				return nil, 0, err
			}
			if more {
				return openBrace, rowCut, nil
			}
			continue
		}
		switch c := in.buf[in.start]; {
		case c == '\n' || c == ' ' || c == '\t' || c == '\r' || in.array && c == ',':
			in.take(1)
		case c == '[' && !in.array:
			in.take(1)
			in.array = true
		case c == ']' && in.array:
			in.take(1)
			in.array = false
		case c == bom[0] && in.line == 1 && in.skipBOM():
		case in.array:
			return in.element()
		default:
			return in.text()
		}
	}
}

var openBrace = []byte{'{'}

// rest consumes what is left of a broken array element, which reaches to the
// next line that starts an object. What looks like a further element before
// that cannot be told from a part of the broken one: more is true for each, and
// each counts as a row that is cut short, so that no row is lost uncounted.
func (in *input) rest() (more bool, err error) {
	var before, last byte // of the bytes that are not white space
	lineStart := false
	for {
		b := in.buf[in.start:in.end]
		for i, c := range b {
			switch {
			case c == '{' && lineStart:
				in.take(i)
				in.lost = false
				return false, nil
			case c == '{' && before == '}' && last == ',':
				in.take(i + 1)
				in.rowLine = in.line
				return true, nil
			case c == '\n':
				lineStart = true
			case c > ' ':
				before, last, lineStart = last, c, false
			}
		}
		in.take(len(b))
		if !in.fill() {
			if in.err != io.EOF {
				return false, in.err
			}
			return false, nil
		}
	}
}

// skipBOM consumes a byte order mark that stands at start.
func (in *input) skipBOM() bool {
	for in.end-in.start < len(bom) {
		if !in.fill() {
			return false
		}
	}
	if !bytes.HasPrefix(in.buf[in.start:in.end], bom) {
		return false
	}
	in.take(len(bom))
	return true
}

// element returns one element of an array, starting at start, which is not
// white space. It finds the end by brackets and quotes; whether the element
// is valid JSON is for the parser to say. Two things that no valid element
// holds end it early, so that rows behind a broken one are found again: a
// line end inside a string, and an opening brace where a member's name must
// stand.
func (in *input) element() ([]byte, rowState, error) {
	const known = 64 // nesting up to which the kind of bracket is remembered
	var (
		object   [known]bool
		depth    int
		inString bool
		last     byte // the last byte outside strings that is not white space
		dropped  bool // bytes beyond maxRow are not kept
		i        int
	)
	in.rowLine = in.line
	done := func(n int, s rowState) ([]byte, rowState, error) {
		b := in.take(n)
		if dropped {
			return nil, rowTooLong, nil
		}
		return b, s, nil
	}
	for {
		if i > maxRow {
			in.take(i)
			i, dropped = 0, true
		}
		if in.start+i == in.end && !in.fill() {
			switch {
			case in.err != io.EOF:
				return nil, 0, in.err
			case depth == 0 && !inString:
				return done(i, rowWhole)
			}
			return done(i, rowCut)
		}
		c := in.buf[in.start+i]
		if inString {
			switch c {
			case '\\':
				if in.start+i+1 == in.end && !in.fill() {
					i++ // the end of the input is met again above
					continue
				}
				if in.buf[in.start+i+1] == '\n' {
					i++
					continue
				}
				i += 2
			case '"':
				inString = false
				i++
				if depth == 0 {
					return done(i, rowWhole)
				}
			case '\n':
				in.lost = true
				return done(i, rowCut)
			default:
				i++
			}
			continue
		}
		switch c {
		case '"':
			inString = true
		case '{', '[':
			if c == '{' && depth > 0 && depth <= known && object[depth-1] && last != ':' {
				return done(i, rowCut)
			}
			if depth < known {
				object[depth] = c == '{'
			}
			depth++
		case '}', ']':
			if depth == 0 {
				if c == ']' {
					return done(i, rowWhole)
				}
				break
			}
			if depth--; depth == 0 {
				return done(i+1, rowWhole)
			}
		case ',', '\n':
			if depth == 0 {
				return done(i, rowWhole)
			}
		}
		if c > ' ' {
			last = c
		}
		i++
	}
}
