package record

import (
	"bytes"
	"net/netip"
)

// access reads one line of a web server's log:
//
//	host ident user [07/Mar/2004:16:05:49 -0800] "request" status bytes "referer" "agent"
//
// where the two last are optional and anything behind them is ignored. All
// but the brackets and quotes may be an attacker's. Apache's vhost_combined has
// "name:port " of the server before that, which is left out. Escapes that the server
// made in quoted fields are undone, so that they hold what was sent.
func (r *Reader) access(row []byte, rec *Record) verdict {
	host, rest, _ := bytes.Cut(row, []byte{' '})
	if next, behind, ok := bytes.Cut(rest, []byte{' '}); ok && isServer(host) && isAddress(next) {
		host, rest = next, behind
	}
	head, rest, ok := r.accessTime(rest, rec)
	if !ok {
		return bad("not an access log line", "no [day/Month/year:time zone] in it")
	}
	request, rest, ok := requestField(rest)
	if !ok {
		return bad("not an access log line", "no quoted request with status and size behind it")
	}
	status, rest, _ := bytes.Cut(rest, []byte{' '})
	size, rest, _ := bytes.Cut(rest, []byte{' '})
	referer, rest := quotedField(rest)
	agent, _ := quotedField(bytes.TrimPrefix(rest, []byte{' '}))

	r.address(rec, host)
	if _, user, ok := bytes.Cut(head, []byte{' '}); ok && string(user) != "-" {
		rec.User = r.intern(r.unescape(user))
	}
	rec.Status = int32(r.field(status, 599))
	rec.Size = r.field(size, maxInt64)
	rec.Referer = r.intern(r.unescape(referer))
	rec.Agent = r.intern(r.unescape(agent))
	rec.Protocol = "http"
	r.requestLine(rec, r.unescape(request))
	return verdict{}
}

// isServer reports whether s is a server's name, a colon and its port.
func isServer(s []byte) bool {
	i := bytes.LastIndexByte(s, ':')
	if i <= 0 || isAddress(s) {
		return false
	}
	_, ok := parseNumber(s[i+1:], 65535)
	return ok
}

// isAddress reports whether s is an IPv4 or IPv6 address.
func isAddress(s []byte) bool {
	if len(s) > 64 || bytes.IndexByte(s, '.') < 0 && bytes.IndexByte(s, ':') < 0 {
		return false
	}
	_, err := netip.ParseAddr(string(s))
	return err == nil
}

// accessTime finds the first bracket in s that holds a time, and returns what
// stands before and behind it. A user name may hold brackets too.
func (r *Reader) accessTime(s []byte, rec *Record) (head, rest []byte, ok bool) {
	for at := 0; ; {
		i := bytes.IndexByte(s[at:], '[')
		if i < 0 {
			return nil, nil, false
		}
		at += i + 1
		n := bytes.IndexByte(cut(s[at:], 40), ']')
		if n < 0 {
			continue
		}
		odd := timeOddity(0)
		t, ok := parseAccessTime(s[at : at+n])
		if !ok {
			t, odd, ok = parseISO(s[at : at+n])
		}
		if ok {
			r.time(rec, t, odd, true)
			return bytes.TrimSuffix(s[:at-1], []byte{' '}), s[at+n+1:], true
		}
	}
}

// requestField reads the quoted request at the start of s, behind one space.
// Its closing quote is the first, escaped ones aside, that a status and a size
// follow: servers before 2004 escape neither quotes nor backslashes, so a bare
// quote may stand in a request and, when no other quote will do, a backslash
// before the closing one.
func requestField(s []byte) (request, rest []byte, ok bool) {
	if !bytes.HasPrefix(s, []byte(` "`)) {
		return nil, nil, false
	}
	s = s[2:]
	last := -1
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			if i++; i < len(s) && s[i] == '"' && last < 0 && statusAndSize(s[i+1:]) {
				last = i
			}
		case s[i] == '"' && statusAndSize(s[i+1:]):
			return s[:i], s[i+2:], true
		}
	}
	if last < 0 {
		return nil, nil, false
	}
	return s[:last], s[last+2:], true
}

// statusAndSize reports whether s starts with a space, a status, a space and
// a size, which ends at a space or with s.
func statusAndSize(s []byte) bool {
	for range 2 {
		if len(s) < 2 || s[0] != ' ' {
			return false
		}
		s = s[1:]
		n := 0
		for n < len(s) && isDigit(s[n]) {
			n++
		}
		if n == 0 && s[0] == '-' {
			n = 1
		}
		if n == 0 {
			return false
		}
		s = s[n:]
	}
	return len(s) == 0 || s[0] == ' '
}

// quotedField reads a quoted field at the start of s; its closing quote is
// the first that no odd number of backslashes precedes. Without one, or with
// "-" in it, the field is empty.
func quotedField(s []byte) (field, rest []byte) {
	if len(s) == 0 || s[0] != '"' {
		return nil, s
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			if field = s[1:i]; string(field) == "-" {
				field = nil
			}
			return field, s[i+1:]
		}
	}
	return nil, nil
}

// field reads a number of an access log, in which "-" is none.
func (r *Reader) field(b []byte, limit int64) int64 {
	if string(b) == "-" {
		return 0
	}
	n, ok := parseNumber(b, limit)
	if !ok {
		r.note(quirkRange)
	}
	return n
}

// requestLine splits a request line. One that is no method, target and
// protocol version (nothing, binary, another protocol) is kept whole as
// Payload, without a Method.
func (r *Reader) requestLine(rec *Record, line []byte) {
	if len(line) == 0 || string(line) == "-" {
		r.note("empty request line")
		return
	}
	method, target, ok := bytes.Cut(line, []byte{' '})
	m := upper(r.intern(method))
	version := bytes.LastIndex(target, []byte(" HTTP/"))
	switch {
	case !ok || m == "" || !isWord(m, 'A'):
		r.note("request line without method")
		rec.Payload = string(line)
		return
	case version >= 0 && bytes.IndexByte(target[version+1:], ' ') < 0:
		target = target[:version]
	case len(target) > 0 && target[0] == '/':
		r.note("request line without version")
	default:
		r.note("request line without method")
		rec.Payload = string(line)
		return
	}
	rec.Method = m
	rec.Payload = string(target)
}

// unescape undoes the escapes of Apache and nginx: \xhh, \", \\ and the
// letters of C. Other backslashes are themselves. The result lasts until the
// next call.
func (r *Reader) unescape(s []byte) []byte {
	i := bytes.IndexByte(s, '\\')
	if i < 0 {
		return s
	}
	b := append(r.scratch[:0], s[:i]...)
	for ; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b = append(b, s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, c)
		case 'b':
			b = append(b, '\b')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'v':
			b = append(b, '\v')
		case 'x':
			if i+2 < len(s) {
				hi, ok1 := hexDigit(s[i+1])
				lo, ok2 := hexDigit(s[i+2])
				if ok1 && ok2 {
					b = append(b, hi<<4|lo)
					i += 2
					continue
				}
			}
			b = append(b, '\\', 'x')
		default:
			b = append(b, '\\', c)
		}
	}
	r.scratch = b
	return b
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case isDigit(c):
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return (c | 0x20) - 'a' + 10, true
	}
	return 0, false
}
