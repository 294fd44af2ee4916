package record

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// AddressForm says what becomes of a source address.
type AddressForm string

const (
	Full      AddressForm = "full"      // kept
	Truncated AddressForm = "truncated" // its network: /24 of IPv4, /48 of IPv6, the rest zero
	Hashed    AddressForm = "hashed"    // "h:" and 16 hex digits of HMAC-SHA256 over its text
)

// Redaction is the newest redaction of texts. A change of what it replaces is
// a new number.
const Redaction = 1

// Privacy is what is taken out of records before anything else sees them.
// The zero value takes nothing out.
type Privacy struct {
	Address   AddressForm // "" is Full
	Redaction int         // 0 none, 1 the rules of redact
	Key       []byte      // of Hashed; at least 16 bytes
}

// Describe returns the name of the address form and the redaction number, as
// datasets and releases state them.
func (p Privacy) Describe() (address string, redaction int) {
	if p.Address == "" {
		return string(Full), p.Redaction
	}
	return string(p.Address), p.Redaction
}

// Validate names the first field whose value is not allowed.
func (p Privacy) Validate() error {
	switch p.Address {
	case "", Full, Truncated:
	case Hashed:
		if len(p.Key) < 16 {
			return fmt.Errorf("record: hashed addresses need a key of at least 16 bytes, have %d", len(p.Key))
		}
	default:
		return fmt.Errorf("record: address form %s: want full, truncated or hashed", quote(string(p.Address)))
	}
	if p.Redaction < 0 || p.Redaction > Redaction {
		return fmt.Errorf("record: redaction %d: want 0 to %d", p.Redaction, Redaction)
	}
	return nil
}

// Apply transforms Address, and the texts an attacker or a user wrote:
// Payload, Agent, Referer and User. Applying it again changes nothing. An
// address of the source that stands in a text stays there. p must be valid.
func (p Privacy) Apply(r *Record) {
	r.Address = p.address(r.Address)
	if p.Redaction == 0 {
		return
	}
	r.Payload = redact(r.Payload)
	r.Agent = redact(r.Agent)
	r.Referer = redact(r.Referer)
	r.User = redact(r.User)
}

// address returns the form of s that p demands. Text that is no address
// becomes empty, except a keyed hash, which no form can undo.
func (p Privacy) address(s string) string {
	if s == "" || isHashed(s) || p.Address == Full || p.Address == "" {
		return s
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return ""
	}
	a = a.Unmap().WithZone("")
	if p.Address == Truncated {
		bits := 24
		if a.Is6() {
			bits = 48
		}
		n, err := a.Prefix(bits)
		if err != nil {
			return ""
		}
		return n.Addr().String()
	}
	h := hmac.New(sha256.New, p.Key)
	h.Write([]byte(a.String()))
	return "h:" + hex.EncodeToString(h.Sum(nil)[:8])
}

// isHashed reports whether s is the keyed hash of an address.
func isHashed(s string) bool {
	if len(s) != 18 || s[:2] != "h:" {
		return false
	}
	for i := 2; i < len(s); i++ {
		if !isDigit(s[i]) && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}

// mark stands where something was taken out. Being one byte it never makes a
// text longer, so a text within its bound stays there.
const mark = "x"

// rules find what redaction 1 replaces, in this order. A rule returns the
// next span in s at or behind i that it replaces, or a span at len(s). No
// rule matches text that only an attack has: each takes runs of letters,
// digits and a few other bytes, so quotes, brackets, operators, percent
// escapes and spaces all stay. A rule is not tried on a text that lacks one of
// the classes of bytes it needs.
var rules = [...]struct {
	find  func(s string, i int) (from, to int)
	needs byte
}{
	{findCard, hasDigit}, {findBearer, hasB | hasGap}, {findCredential, hasAssign}, {findEmail, hasAt},
}

// Classes of bytes that rules need.
const (
	hasDigit  = 1 << iota
	hasB      // a letter b
	hasGap    // a space, also as + or escaped
	hasAssign // a separator of name and value, also escaped
	hasAt     // an @, also escaped
)

var classes = func() (c [256]byte) {
	for d := '0'; d <= '9'; d++ {
		c[d] = hasDigit
	}
	c['b'], c['B'] = hasB, hasB
	c[' '], c['+'] = hasGap, hasGap
	c['='], c[':'] = hasAssign, hasAssign
	c['@'] = hasAt
	c['%'] = hasGap | hasAssign | hasAt
	return c
}()

// redact replaces, in a text of any origin:
//
//   - card numbers: 13 to 19 digits, at once or in groups of three and more
//     behind single spaces or hyphens, that start as card numbers do and whose
//     check digit is right;
//   - bearer and basic credentials: 12 and more bytes of base64 or token text
//     behind the word;
//   - the values of parameters, members and assignments whose name is one for
//     a credential (isCredential), when the value is an ordinary word;
//   - the local part of e-mail addresses, also with %40 for @.
//
// It repeats the rules until none changes anything, which makes it
// idempotent. Every replacement leaves fewer bytes or fewer bytes other than
// the mark, so that ends.
func redact(s string) string {
	for again := true; again; {
		again = false
		var has byte
		for i := 0; i < len(s); i++ {
			has |= classes[s[i]]
		}
		for _, rule := range rules {
			if has&rule.needs != rule.needs {
				continue
			}
			t := replace(s, rule.find)
			again = again || len(t) != len(s) || t != s
			s = t
		}
	}
	return s
}

// replace puts mark in place of every span that find gives.
func replace(s string, find func(string, int) (int, int)) string {
	var b []byte
	done := 0
	for i := 0; i < len(s); {
		from, to := find(s, i)
		if from >= len(s) {
			break
		}
		i = to + 1 // what ends a span starts no other
		if s[from:to] != mark {
			b = append(append(b, s[done:from]...), mark...)
			done = to
		}
	}
	if done == 0 {
		return s
	}
	return string(append(b, s[done:]...))
}

func findCard(s string, i int) (from, to int) {
	for ; i < len(s); i++ {
		if !isDigit(s[i]) {
			continue
		}
		from, i = i, runOfDigits(s, i)
		if escaped(s, from) {
			from += min(2, i-from)
			if from < i && !isDigit(s[from]) {
				from++
			}
		}
		if from < i && isCard(s[from:i]) && !(from > 0 && isJoined(s[from-1]) && !escaped(s, from-2)) && !(i < len(s) && isJoined(s[i])) {
			return from, i
		}
	}
	return len(s), len(s)
}

// runOfDigits returns the end of the digits, with single spaces or hyphens
// between them, that start at i.
func runOfDigits(s string, i int) int {
	for i < len(s) && (isDigit(s[i]) || (s[i] == ' ' || s[i] == '-') && i+1 < len(s) && isDigit(s[i+1])) {
		i++
	}
	return i
}

// escaped reports whether a percent sign and two digits at i are an escape.
func escaped(s string, i int) bool {
	if i < 1 || i+1 >= len(s) || s[i-1] != '%' {
		return false
	}
	_, ok1 := hexDigit(s[i])
	_, ok2 := hexDigit(s[i+1])
	return ok1 && ok2
}

// isJoined reports whether c continues a word or a decimal number.
func isJoined(c byte) bool { return isAlnum(c) || c == '_' || c == '.' }

func isAlnum(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// isCard reports whether digits in groups could be a payment card's number.
func isCard(s string) bool {
	n, group, sum, grouped := 0, 0, 0, false
	for i := len(s) - 1; i >= 0; i-- {
		if !isDigit(s[i]) {
			if group < 3 {
				return false
			}
			group, grouped = 0, true
			continue
		}
		d := int(s[i] - '0')
		if n%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
		group++
		if n++; n > 19 {
			return false
		}
	}
	first := s[0] >= '3' && s[0] <= '6' || s[0] == '2' && len(s) > 1 && s[1] >= '2' && s[1] <= '7'
	return n >= 13 && first && sum%10 == 0 && !(grouped && group < 3)
}

func findBearer(s string, i int) (from, to int) {
	for ; i < len(s); i++ {
		n := 0
		switch s[i] | 0x20 {
		case 'b':
			if hasFold(s[i:], "bearer") {
				n = len("bearer")
			} else if hasFold(s[i:], "basic") {
				n = len("basic")
			}
		}
		if n == 0 || i > 0 && isAlnum(s[i-1]) && !escaped(s, i-2) {
			continue
		}
		from = i + n
		for from < len(s) {
			if s[from] == ' ' || s[from] == '+' {
				from++
			} else if strings.HasPrefix(s[from:], "%20") {
				from += 3
			} else {
				break
			}
		}
		if from == i+n {
			continue
		}
		strong := false
		for to = from; to < len(s) && (isAlnum(s[to]) || strings.IndexByte("-._~+/=", s[to]) >= 0); to++ {
			strong = strong || isDigit(s[to]) || 'A' <= s[to] && s[to] <= 'Z'
		}
		// Words inside this one end at the same place.
		dots := strings.LastIndex(s[from:to], "..")
		switch {
		case !endsValue(s, to):
			i = max(i, to-1)
		case dots >= 0:
			i = max(i, from+dots)
		case to-from >= 12 && strong && s[from] != '/':
			return from, to
		default:
			i = max(i, from-1)
		}
	}
	return len(s), len(s)
}

// hasFold reports whether s starts with the lower-case word in any case.
func hasFold(s, word string) bool {
	if len(s) < len(word) {
		return false
	}
	for i := 0; i < len(word); i++ {
		if s[i]|0x20 != word[i] {
			return false
		}
	}
	return true
}

func findCredential(s string, i int) (from, to int) {
	for ; i < len(s); i++ {
		if s[i] != '=' && s[i] != ':' && s[i] != '%' {
			continue
		}
		from = i + 1
		if s[i] == '%' {
			if !hasFold(s[from:], "3d") && !hasFold(s[from:], "3a") {
				continue
			}
			from += 2
		}
		if !isCredential(nameBefore(s, i)) {
			continue
		}
		for n := 0; n < 2 && from < len(s) && s[from] == ' '; n++ {
			from++
		}
		if from+1 < len(s) && s[from] == '\\' {
			from++
		}
		if from < len(s) && (s[from] == '"' || s[from] == '\'') {
			from++
		}
		word := false
		for to = from; to < len(s) && (isAlnum(s[to]) || s[to] == '_' || s[to] == '-' || s[to] == '.'); to++ {
			word = word || isAlnum(s[to])
		}
		for n := 0; n < 2 && word && to < len(s) && s[to] == '='; n++ {
			to++
		}
		if word && !strings.Contains(s[from:to], "..") && endsValue(s, to) {
			return from, to
		}
	}
	return len(s), len(s)
}

// endsValue reports whether a value may end at i: at the end of the text, at
// a separator or quote, or at an escaped separator.
func endsValue(s string, i int) bool {
	if i == len(s) || strings.IndexByte("&;,#|)]}<>\"'\\ \t\r\n\v\f", s[i]) >= 0 {
		return true
	}
	if s[i] != '%' || i+3 > len(s) {
		return false
	}
	switch lower(s[i+1 : i+3]) {
	case "20", "26", "3b", "0a", "0d":
		return true
	}
	return false
}

// nameBefore returns the name that ends at i, before an optional quote and at
// most two spaces.
func nameBefore(s string, i int) string {
	for n := 0; n < 2 && i > 0 && s[i-1] == ' '; n++ {
		i--
	}
	if i > 0 && (s[i-1] == '"' || s[i-1] == '\'') {
		i--
		if i > 0 && s[i-1] == '\\' {
			i--
		}
	}
	from := i
	for from > 0 && i-from < 64 && (isAlnum(s[from-1]) || strings.IndexByte("_-.[]", s[from-1]) >= 0) {
		from--
	}
	if escaped(s, from) {
		from = min(i, from+2)
	}
	return s[from:i]
}

// isCredential reports whether a parameter of this name holds a credential:
// with letters and digits alone it is one of the words, or ends with one of
// the longer ones ("user[password]", "X-Auth-Token", "PHPSESSID").
func isCredential(name string) bool {
	var short [64]byte
	b := short[:0]
	for i := 0; i < len(name); i++ {
		if isAlnum(name[i]) && len(b) < len(short) {
			c := name[i]
			if 'A' <= c && c <= 'Z' {
				c |= 0x20
			}
			b = append(b, c)
		}
	}
	switch string(b) {
	case "pass", "pw", "sid", "pin", "otp", "cvv", "cvc":
		return true
	}
	for _, end := range [...]string{
		"password", "passwd", "passphrase", "pwd", "token", "secret", "apikey", "accesskey",
		"privatekey", "secretkey", "session", "sessionid", "sessid", "credential", "credentials",
	} {
		if len(b) >= len(end) && string(b[len(b)-len(end):]) == end {
			return true
		}
	}
	return false
}

func findEmail(s string, i int) (from, to int) {
	for ; i < len(s); i++ {
		host := i + 1
		if s[i] == '%' && strings.HasPrefix(s[i:], "%40") {
			host = i + 3
		} else if s[i] != '@' {
			continue
		}
		if !isDomain(s[host:]) {
			continue
		}
		from = i
		for from > 0 && (isAlnum(s[from-1]) || s[from-1] == '.' || s[from-1] == '_' || s[from-1] == '-') {
			from--
		}
		if escaped(s, from) {
			from = min(i, from+2)
		}
		if from < i {
			return from, i
		}
	}
	return len(s), len(s)
}

// isDomain reports whether s starts with a domain name of two labels or more
// whose last one has no digits.
func isDomain(s string) bool {
	labels, n, alpha := 0, 0, true
	for i := 0; i <= len(s) && i <= 253; i++ {
		switch {
		case i < len(s) && (isAlnum(s[i]) || s[i] == '-'):
			alpha = alpha && s[i] != '-' && !isDigit(s[i])
			n++
		case i < len(s) && s[i] == '.' && n > 0 && i+1 < len(s) && isAlnum(s[i+1]):
			labels, n, alpha = labels+1, 0, true
		default:
			return labels > 0 && n > 0 && alpha
		}
	}
	return false
}
