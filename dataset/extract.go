package dataset

import (
	"bytes"
	"slices"
	"strings"
)

// Bounds of what is taken from one text.
const (
	maxTextBytes    = 1 << 20 // of a text; longer ones are mostly archives
	maxTextRequests = 8
	maxTargetBytes  = 8 << 10
	maxPlaceholder  = 48  // "[SQL injection]", brackets included
	maxTag          = 256 // "<img src=x onerror=alert(1)>"
	maxStatement    = 1 << 10
	maxLabel        = 64 // what is looked at before a URL
)

// foundRequest is a request that a text shows, as written there.
type foundRequest struct {
	method, target string
}

// extractRequests returns the requests that the text of a proof of concept
// shows, in the order of the text, each once, and whether there were more than
// maxTextRequests. SOURCES.md has the rules. Time is linear in the length of
// the text.
func extractRequests(text []byte) (found []foundRequest, more bool) {
	for len(text) > 0 {
		line, rest := text, []byte(nil)
		if end := bytes.IndexAny(text, "\r\n"); end >= 0 {
			line, rest = text[:end], text[end+1:]
		}
		text = rest
		mark := versionAt(line, 0)
		request, url := nextRequestLine(line, 0, mark), nextURL(line, 0)
		for at := 0; ; {
			if mark < at {
				mark = versionAt(line, at)
			}
			if request.from < at {
				request = nextRequestLine(line, at, mark)
			}
			if url.from < at {
				url = nextURL(line, at)
			}
			next := request
			if url.from < request.from {
				next = url
			}
			if next.from == len(line) {
				break
			}
			at = next.to
			if len(next.target) > maxTargetBytes || !hasQuery(next.target) && !isStrange(next.target) {
				continue
			}
			r := foundRequest{next.method, string(next.target)}
			if slices.Contains(found, r) {
				continue
			}
			if len(found) == maxTextRequests {
				return found, true
			}
			found = append(found, r)
		}
	}
	return found, false
}

// candidate is a place in a line where a request may stand: bytes [from, to),
// of which target is the request target.
type candidate struct {
	from, to int
	method   string
	target   []byte
}

func nothing(line []byte) candidate { return candidate{from: len(line), to: len(line)} }

var (
	versionMark = []byte(" HTTP/")
	schemeMark  = []byte("://")
)

// versionAt returns where at or behind at the version of a request line begins.
func versionAt(line []byte, at int) int {
	for {
		i := bytes.Index(line[at:], versionMark)
		if i < 0 {
			return len(line)
		}
		at += i + len(versionMark)
		if at < len(line) && isDigit(line[at]) {
			return at - len(versionMark)
		}
	}
}

// nextRequestLine returns the first request line that starts at or behind at:
// a method, a target that starts with "/", "[" or "http", and the version, the
// first of which is at i.
func nextRequestLine(line []byte, at, i int) candidate {
	for ; i < len(line); i = versionAt(line, at) {
		end := i + len(versionMark)
		for k := at; k < i; k++ {
			space := bytes.IndexByte(line[k:i], ' ')
			if space < 0 {
				break
			}
			k += space
			from, method := methodBefore(line, at, k)
			if method == "" {
				continue
			}
			target := bytes.Trim(line[k:i], " ")
			if len(target) == 0 || target[0] != '/' && target[0] != '[' && !hasScheme(target) {
				continue
			}
			if from > 0 && isQuote(line[from-1]) {
				target = untilQuote(target, line[from-1]) // a string of a program ends here
			}
			return candidate{from, end, method, target}
		}
		at = end
	}
	return nothing(line)
}

// methodBefore returns the HTTP method that ends before k and where it starts,
// not before at. The letter of an escape, as in "\nGET", is none of its own.
func methodBefore(line []byte, at, k int) (from int, method string) {
	from = k
	for from > at && k-from < 12 && 'A' <= line[from-1] && line[from-1] <= 'Z' {
		from--
	}
	if from > at && isAlnum(line[from-1]) && !(from > at+1 && line[from-2] == '\\') {
		return 0, ""
	}
	switch string(line[from:k]) {
	case "GET":
		return from, "GET"
	case "POST":
		return from, "POST"
	case "HEAD":
		return from, "HEAD"
	case "PUT":
		return from, "PUT"
	case "DELETE":
		return from, "DELETE"
	case "OPTIONS":
		return from, "OPTIONS"
	case "PATCH":
		return from, "PATCH"
	case "TRACE":
		return from, "TRACE"
	case "PROPFIND":
		return from, "PROPFIND"
	case "SEARCH":
		return from, "SEARCH"
	case "MOVE":
		return from, "MOVE"
	case "COPY":
		return from, "COPY"
	}
	return 0, ""
}

// nextURL returns the first http or https URL that starts at or behind at and
// is neither on a well-known site nor an ordinary one announced as a reference.
func nextURL(line []byte, at int) candidate {
	for {
		i := bytes.Index(line[at:], schemeMark)
		if i < 0 {
			return nothing(line)
		}
		i += at
		from := i - len("http")
		if from > at && line[i-1]|0x20 == 's' {
			from--
		}
		behind := i + len(schemeMark)
		if from < at || !hasScheme(line[from:]) || from > 0 && isAlnum(line[from-1]) {
			at = behind
			continue
		}
		to, quoted := urlEnd(line, from, behind)
		target := trimURL(line[from:to], quoted)
		if !quoted && bytes.IndexByte(target, '?') >= 0 {
			if n := statement(line[to:]); n > 0 {
				to += n
				target = bytes.TrimRight(line[from:to], " ,.")
			}
		}
		at = max(to, behind)
		host := hostOf(target)
		if len(host) == 0 || isReference(host) || isAnnounced(line[max(0, from-maxLabel):from]) && !isStrange(target) {
			continue
		}
		return candidate{from, at, "GET", target}
	}
}

// urlEnd returns where the URL whose host starts at i ends, and whether a
// closing quote or bracket ends it, the one to what stands before the URL. Any other
// ends at white space; but placeholders such as [SQL code] and tags such as
// <img src=x> may hold spaces.
func urlEnd(line []byte, from, i int) (to int, quoted bool) {
	var open, shut byte
	if from > 0 {
		open = line[from-1]
		shut = closing[open]
		if open == '=' && inTag(line[max(0, from-maxTag):from]) {
			shut = '>'
		}
	}
	depth := 0
	for ; i < len(line); i++ {
		switch c := line[i]; {
		case shut != 0 && c == shut:
			if depth == 0 {
				return i, true
			}
			depth--
		case shut != 0 && c == open:
			depth++
		case c == '[' || c == '<':
			if n := bracketed(line[i:]); n > 0 && (shut == 0 || bytes.IndexByte(line[i:i+n], shut) < 0) {
				i += n - 1
			}
		case c <= ' ' || c == 0x7f:
			return i, false
		}
	}
	return i, false
}

// closing maps what may stand before a URL to what then ends it.
var closing = [256]byte{'"': '"', '\'': '\'', '`': '`', '<': '>', '(': ')', '[': ']', '{': '}', '>': '<'}

// bracketed returns the length of the placeholder, tag or script at the start
// of s, 0 if there is none.
func bracketed(s []byte) int {
	if s[0] == '<' {
		s = s[:min(len(s), maxTag)]
		if len(s) > 7 && bytes.EqualFold(s[:7], []byte("<script")) {
			for i := 7; i+9 <= len(s); i++ {
				if s[i] == '<' && bytes.EqualFold(s[i:i+9], []byte("</script>")) {
					return i + 9
				}
			}
		}
		if i := bytes.IndexAny(s[1:], "<>"); i >= 0 && s[1+i] == '>' {
			return i + 2
		}
		return 0
	}
	s = s[:min(len(s), maxPlaceholder)]
	if i := bytes.IndexAny(s[1:], `[]<>"`); i >= 0 && s[1+i] == ']' {
		return i + 2
	}
	return 0
}

// statement returns the length of the rest of an SQL statement at the start of
// s, which follows a query that was not escaped: "?id=1 union select 2,3", with
// the space. It ends with the line or where something else is set off from it.
func statement(s []byte) int {
	if len(s) < 2 || s[0] != ' ' {
		return 0
	}
	n := 1
	for n < len(s) && 'a' <= s[n]|0x20 && s[n]|0x20 <= 'z' {
		n++
	}
	behind := bytes.TrimLeft(s[n:], " ")
	switch word := strings.ToLower(string(s[1:min(n, 12)])); word {
	case "union", "select", "order", "having", "procedure", "waitfor":
		if len(behind) == 0 || word == "order" && !bytes.EqualFold(behind[:min(len(behind), 3)], []byte("by ")) || n < len(s) && s[n] != ' ' && s[n] != '(' {
			return 0
		}
	case "and", "or":
		if k := bytes.IndexFunc(behind, func(r rune) bool { return r >= 0x80 || !isAlnum(byte(r)) && r != '_' && r != '@' }); k < 0 ||
			!isDigit(behind[0]) && !isQuote(behind[k]) && behind[k] != '(' && behind[k] != '=' {
			return 0
		}
	default:
		return 0
	}
	end := min(len(s), maxStatement)
	for _, mark := range statementEnds {
		if i := bytes.Index(s[1:end], mark); i >= 0 {
			end = 1 + i
		}
	}
	return end
}

// statementEnds set a remark off from a statement.
var statementEnds = [][]byte{[]byte("  "), []byte("\t"), []byte(" <"), []byte(" =>"), []byte(" ->"), []byte(" |"), []byte(" # ")}

// inTag reports whether an HTML tag is open at the end of s.
func inTag(s []byte) bool {
	return bytes.LastIndexByte(s, '<') > bytes.LastIndexByte(s, '>')
}

// trimURL removes from the end of a URL what belongs to the sentence or the
// program around it: full stops, commas and the like, brackets that nothing in
// it opens, and the rest of a string behind an escaped line end.
func trimURL(s []byte, quoted bool) []byte {
	for _, mark := range lineEnds {
		if i := bytes.Index(s, mark); i >= 0 {
			s = s[:i]
		}
	}
	if quoted {
		return bytes.TrimRight(s, `\`)
	}
	var n [256]int
	for _, c := range s {
		n[c]++
	}
	for len(s) > 0 {
		c := s[len(s)-1]
		switch c {
		case '.', ',', ':', ';', '!':
		case ')', ']', '}':
			if n[opening[c]] >= n[c] {
				return s
			}
		case '>':
			if n['<'] > 0 {
				return s
			}
		default:
			return s
		}
		n[c]--
		s = s[:len(s)-1]
	}
	return s
}

var (
	opening  = [256]byte{')': '(', ']': '[', '}': '{'}
	lineEnds = [][]byte{[]byte(`\r\n`), []byte(`\n"`), []byte(`\n'`), []byte(`\033[`)}
)

// hostOf returns the host of a URL without user and port, a placeholder for
// one included, and nothing if there is neither.
func hostOf(url []byte) []byte {
	_, s, _ := bytes.Cut(url, schemeMark)
	if i := bytes.IndexAny(s, `/?#\`); i >= 0 {
		s = s[:i]
	}
	if i := bytes.LastIndexByte(s, '@'); i >= 0 {
		s = s[i+1:]
	}
	if len(s) == 0 || !isAlnum(s[0]) && strings.IndexByte("[<{$%(_*", s[0]) < 0 || bytes.ContainsAny(s, "\"'`") {
		return nil
	}
	if s[0] != '[' {
		s, _, _ = bytes.Cut(s, []byte{':'})
	}
	return s
}

// isReference reports whether host is a well-known site, or below one, that texts
// point to and do not attack.
func isReference(host []byte) bool {
	name := strings.ToLower(strings.TrimSuffix(string(host), "."))
	for {
		if _, found := slices.BinarySearch(referenceSites, name); found {
			return true
		}
		_, up, ok := strings.Cut(name, ".")
		if !ok {
			return false
		}
		name = up
	}
}

// referenceSites in ascending order.
var referenceSites = []string{
	"apache.org", "apple.com", "archive.org", "bitbucket.org", "blogspot.com", "cert.org", "cisco.com", "codecanyon.net",
	"corelan.be", "coresecurity.com", "creativecommons.org", "debian.org", "drupal.org", "exploit-db.com", "facebook.com",
	"github.com", "githubusercontent.com", "gitlab.com", "gnu.org", "google.com", "googlecode.com", "hotscripts.com",
	"htbridge.ch", "htbridge.com", "ibm.com", "ietf.org", "ihsan.net", "imgur.com", "inj3ct0r.com", "joomla.org",
	"joomlacode.org", "linkedin.com", "marc.info", "medium.com", "metasploit.com", "microsoft.com", "milw0rm.com", "mitre.org",
	"mozilla.org", "neohapsis.com", "nist.gov", "oracle.com", "osvdb.org", "owasp.org", "packetstormsecurity.com",
	"packetstormsecurity.org", "pastebin.com", "php.net", "phpclasses.org", "portswigger.net", "python.org", "rapid7.com",
	"redhat.com", "seclists.org", "secunia.com", "securiteam.com", "securityfocus.com", "securitytracker.com", "sourcecodester.com",
	"sourceforge.net", "stackoverflow.com", "symantec.com", "tenable.com", "twitter.com", "ubuntu.com", "vimeo.com", "vulnerability-lab.com",
	"w3.org", "wikipedia.org", "wordpress.org", "xforce.iss.net", "xmlsoap.org", "youtu.be", "youtube.com", "zerodayinitiative.com",
	"zeroscience.mk",
}

// isAnnounced reports whether the text before a URL is a label, "Vendor
// homepage: ", of one that is no attack.
func isAnnounced(before []byte) bool {
	before = bytes.TrimRight(before, " \t.")
	if len(before) == 0 || before[len(before)-1] != ':' && before[len(before)-1] != '=' {
		return false
	}
	reference := false
	for word := range bytes.FieldsFuncSeq(bytes.ToLower(before), func(r rune) bool { return r < 'a' || r > 'z' }) {
		for _, w := range attackLabels {
			if bytes.HasPrefix(word, w) {
				return false
			}
		}
		reference = reference || slices.Contains(referenceLabels, string(word))
	}
	return reference
}

// attackLabels begin words of labels of attacks: "Vulnerable page: ".
var attackLabels = [][]byte{
	[]byte("attack"), []byte("demo"), []byte("example"), []byte("exploit"), []byte("inject"), []byte("payload"), []byte("poc"),
	[]byte("proof"), []byte("request"), []byte("sql"), []byte("test"), []byte("vuln"), []byte("xss"),
}

// referenceLabels are words of labels of all else.
var referenceLabels = []string{
	"advisory", "author", "blog", "buy", "contact", "copy", "credit", "credits", "cve", "documentation", "download", "downloads", "forum",
	"home", "homepage", "license", "link", "location", "mirror", "origin", "original", "patch", "product", "ref", "reference", "references",
	"referer", "referrer", "screenshot", "script", "site", "software", "source", "vendor", "video", "visit", "web", "website",
}

// hasQuery reports whether a target has a query that is not empty.
func hasQuery(target []byte) bool {
	i := bytes.IndexByte(target, '?')
	return i >= 0 && i+1 < len(target)
}

// isStrange reports whether path or query hold what ordinary ones do not: one
// of the marks, written out or percent-encoded, two dots, a control character or
// a placeholder that names an attack. What may be the end of the program's own
// string is not looked at.
func isStrange(target []byte) bool {
	s := bytes.TrimRight(target, "\"'`>\\;")
	if hasScheme(s) {
		_, s, _ = bytes.Cut(s, schemeMark)
		i := bytes.IndexAny(s, `/?\`)
		if i < 0 {
			return false
		}
		s = s[i:]
	}
	const marks = "'\"<>|\\;*`"
	if bytes.ContainsAny(s, marks) || bytes.Contains(s, []byte("..")) {
		return true
	}
	for i, c := range s {
		switch {
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			if d := unhex(s[i+1])<<4 | unhex(s[i+2]); d < ' ' || d == '.' || d == '%' || strings.IndexByte(marks, d) >= 0 {
				return true
			}
		case c == '[':
			inside, _, _ := bytes.Cut(bytes.ToLower(s[i:min(len(s), i+maxPlaceholder)]), []byte{']'})
			for _, w := range attackPlaceholders {
				if bytes.Contains(inside, w) {
					return true
				}
			}
		}
	}
	return false
}

// attackPlaceholders are parts of what stands in brackets for an attack.
var attackPlaceholders = [][]byte{
	[]byte("code"), []byte("cmd"), []byte("command"), []byte("evil"), []byte("exploit"), []byte("inj"), []byte("lfi"), []byte("payload"),
	[]byte("rfi"), []byte("sh3ll"), []byte("shell"), []byte("sql"), []byte("xss"),
}

// untilQuote returns s up to the first quote q that is not escaped.
func untilQuote(s []byte, q byte) []byte {
	for i, c := range s {
		if c == q && (i == 0 || s[i-1] != '\\') {
			return s[:i]
		}
	}
	return s
}

func hasScheme(s []byte) bool {
	if len(s) < 8 || s[0]|0x20 != 'h' || s[1]|0x20 != 't' || s[2]|0x20 != 't' || s[3]|0x20 != 'p' {
		return false
	}
	return bytes.HasPrefix(s[4:], schemeMark) || s[4]|0x20 == 's' && bytes.HasPrefix(s[5:], schemeMark)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isQuote(c byte) bool { return c == '"' || c == '\'' || c == '`' }

func isAlnum(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z'
}

func isHex(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
