package feature

import (
	"bytes"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// tally counts what the structure columns from colQuoteOdd to colCalls say.
type tally [colCalls - colQuoteOdd + 1]int32

func (t *tally) add(c column)      { t[c-colQuoteOdd]++ }
func (t *tally) of(c column) int32 { return t[c-colQuoteOdd] }

// family is a set of attack families with a sure sign: signs so specific that
// ordinary traffic does not show them.
type family uint16

const (
	familySQL family = 1 << iota
	familyShell
	familyTraversal
	familyMarkup
	familyRequest // server-side requests, stream wrappers
	familyXML
	familyTemplate
	familyCode
	familyHeader
	familyNull
	familyLDAP
	familyOverflow
)

// role is what a part of a text is in its request.
type role uint8

const (
	roleBare  role = iota
	roleHost       // scheme and host of an absolute URL
	rolePath       // one segment
	roleName       // of a parameter
	roleValue      // of a parameter
)

type part struct {
	from, to int
	role     role
}

// Forms of a payload.
const (
	formNone = iota
	formBare
	formPath
	formURL
	formPairs
)

// scan is everything found in one text.
type scan struct {
	form  int
	parts []part
	sum   tally // over the parts
	most  tally // of one part

	families    family
	sqlParts    int
	partMost    int // families
	punctuation int // of one part
	punctuated  int // parts
	entropy     int // of one part

	words, probes    int
	wordFrom, wordTo int // longest word

	ups, depth, dots, selfs int

	bin bool // the path segment before was a folder of commands
}

// work is the scratch space of one extraction.
type work struct {
	front, back []byte
	key         []byte
	hist        [256]uint16
	normal      normal
	scan        scan
	tokens      []float32 // the hashed columns, or nil not to count them
}

func newWork() *work {
	return &work{
		front: make([]byte, 0, maxText),
		back:  make([]byte, 0, maxText),
		key:   make([]byte, 0, maxText),
		scan:  scan{parts: make([]part, 0, 64)},
	}
}

// examine normalises s and finds everything in it.
func (w *work) examine(s string, tokens []float32) {
	n, x := &w.normal, &w.scan
	w.tokens = tokens
	w.normalise(s, n)
	*x = scan{parts: x.parts[:0]}
	x.split(n.text)
	for _, p := range x.parts {
		if p.role != roleName {
			w.examinePart(n.text[p.from:p.to], p)
		}
	}
	x.climb(n.text)
	if x.depth >= 2 || x.ups > 0 && x.sum.of(colSensitive) > 0 || x.sum.of(colSensitive) > 1 && x.families&(familyShell|familyCode) == 0 {
		x.families |= familyTraversal
	}
	if n.nulls > 0 {
		x.families |= familyNull
	}
	if n.sled >= 8 {
		x.families |= familyOverflow
	}
}

// split cuts a text into the parts of a request. A query begins at the first
// question mark; a new parameter begins after an ampersand only if a name and
// an equals sign follow, so that an ampersand inside a value, escaped or not,
// stays in it.
func (x *scan) split(text []byte) {
	if len(text) == 0 {
		return
	}
	from := 0
	switch {
	case text[0] == '/':
		x.form = formPath
	case nameLength(text) > 0:
		x.form = formPairs
		x.splitPairs(text, 0)
		return
	default:
		for from < len(text) && from < 12 && class[text[from]] == letter {
			from++
		}
		if from == 0 || !bytes.HasPrefix(text[from:], []byte("://")) {
			x.form = formBare
			x.parts = append(x.parts, part{0, len(text), roleBare})
			return
		}
		x.form = formURL
		from += 3
		for from < len(text) && text[from] != '/' && text[from] != '?' {
			from++
		}
		x.parts = append(x.parts, part{0, from, roleHost})
	}
	end := bytes.IndexByte(text[from:], '?')
	query := end >= 0
	if query {
		end += from
	} else {
		end = len(text)
	}
	for at := from; at < end; {
		stop := bytes.IndexByte(text[at:end], '/')
		if stop < 0 {
			stop = end - at
		}
		if stop > 0 {
			x.parts = append(x.parts, part{at, at + stop, rolePath})
		}
		at += stop + 1
	}
	if query && end+1 < len(text) {
		x.splitPairs(text, end+1)
	}
}

func (x *scan) splitPairs(text []byte, from int) {
	for from < len(text) {
		if n := nameLength(text[from:]); n > 0 {
			x.parts = append(x.parts, part{from, from + n, roleName})
			from += n + 1
		}
		stop := from
		for stop < len(text) {
			next := bytes.IndexByte(text[stop:], '&')
			if next < 0 {
				stop = len(text)
				break
			}
			stop += next
			if nameLength(text[stop+1:]) > 0 {
				break
			}
			stop++
		}
		x.parts = append(x.parts, part{from, stop, roleValue})
		from = stop + 1
	}
}

// nameLength returns the length of the parameter name at the start of b, 0
// unless an equals sign follows it and is followed by no other.
func nameLength(b []byte) int {
	for i := 0; i < len(b) && i <= 64; i++ {
		c := b[i]
		switch {
		case c == '=':
			if i+1 < len(b) && b[i+1] == '=' {
				return 0
			}
			return i
		case class[c] == letter || class[c] == digit || c == '-' || c == '.' || c == '[' || c == ']' || c == ':' || c == '$':
		default:
			return 0
		}
	}
	return 0
}

// climb counts dots and slashes: steps to a parent (three dots and more between
// slashes are one on some systems, or become one in filters), chains of them,
// long runs and segments that lead nowhere.
func (x *scan) climb(b []byte) {
	chain, clean := 0, false // clean: only separators since the last step
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '.':
			from := i
			for i+1 < len(b) && b[i+1] == '.' {
				i++
			}
			run := i + 1 - from
			x.dots = max(x.dots, run)
			before, after := byte('/'), byte('/')
			if from > 0 {
				before = b[from-1]
			}
			if i+1 < len(b) {
				after = b[i+1]
			}
			switch {
			case run == 2 && (separator(after) || separator(before) && class[after] != letter && class[after] != digit) && len(b) > 2,
				run > 2 && separator(before) && separator(after) && len(b) > run:
				x.ups++
				if !clean {
					chain = 0
				}
				chain++
				clean = true
				x.depth = max(x.depth, chain)
			case run == 1 && separator(before) && separator(after) && len(b) > 1:
				x.selfs++
			default:
				clean = false
			}
		case '/':
			if i > 0 && b[i-1] == '/' && (i < 2 || b[i-2] != ':') {
				x.selfs++
			}
		case '\\', ';':
		default:
			clean = false
		}
	}
}

func separator(c byte) bool { return c == '/' || c == '\\' }

// state is what the scan of a part remembers between tokens.
type state struct {
	before, last byte // kinds of the last two tokens
	index        int  // of the current token
	logic        int  // index of the last logical word that breaks out
	order        int  // index of the last word order or group
	union        bool // only all, distinct and openings since the word union
	selected     bool // the word select was seen
	operator     bool // only folders and quotes since a shell operator
	start        bool // only folders and quotes since the start of a value
	equals       bool // the next operand is compared with left
	operand      uint64
	left         uint64
	inside       int // depth of ${
}

const never = -1 << 20

// examinePart finds the tokens of one part and the grammars they form.
func (w *work) examinePart(b []byte, p part) {
	x := &w.scan
	var t tally
	s := state{before: kindEdge, last: kindEdge, logic: never, order: never}
	s.start = p.role != rolePath && p.role != roleHost || p.role == rolePath && x.bin
	x.bin = false
	quotes, doubles, punctuation, depth, unmatched := 0, 0, 0, [3]int{}, 0
	some := false
	for i := 0; i < len(b); {
		c := b[i]
		switch class[c] {
		case letter, digit:
			from := i
			letters := false
			for i < len(b) && (class[b[i]] == letter || class[b[i]] == digit) {
				letters = letters || class[b[i]] == letter
				i++
			}
			some = w.word(b, from, i, letters, p, &s, &t) || some
			continue
		case space:
			if c == '\n' {
				w.emit(&s, kindBreak)
				s.operator = true
				some = true
				t.add(colShellOperators)
			}
			i++
			continue
		}
		punctuation++
		next := byte(0)
		if i+1 < len(b) {
			next = b[i+1]
		}
		keep := false // the token does not end the wait for a command
		switch c {
		case '\'':
			quotes++
			keep = true
		case '"':
			doubles++
			keep = true
		case '(', '[', '{':
			depth[bracket(c)]++
			switch c {
			case '(':
				keep = true
				if s.last == ')' && (next == '|' || next == '&' || next == '!' || nameLength(b[i+1:]) > 0) ||
					s.before == '(' && (s.last == '|' || s.last == '&' || s.last == '!') {
					t.add(colLDAP)
					some = true
				}
			case '{':
				if next == '{' || next == '%' || s.last == '#' || s.last == '*' {
					t.add(colTemplate)
					some = true
				}
			}
		case ')', ']', '}':
			if k := bracket(c); depth[k] > 0 {
				depth[k]--
			} else {
				unmatched++
			}
			if c == '}' && s.inside > 0 {
				s.inside--
			}
		case '=', '>', '<':
			some = true
			if c == '<' {
				switch {
				case class[next] == letter:
					t.add(colTags)
				case next == '/' || next == '!':
					t.add(colTagsClosed)
					if bytes.HasPrefix(b[i+2:], []byte("--#")) {
						t.add(colCodeOpen)
					}
				case next == '?':
					rest := b[i+2:]
					if bytes.HasPrefix(rest, []byte("php")) || bytes.HasPrefix(rest, []byte("=")) {
						t.add(colCodeOpen)
					} else {
						t.add(colXML)
					}
				case next == '%':
					t.add(colTemplate)
				}
			}
			if c != '=' && t.of(colShellCommands) > 0 {
				after := next
				if after == ' ' && i+2 < len(b) {
					after = b[i+2]
				}
				if after == '/' || after == '&' || after == '>' || after == '(' {
					t.add(colShellRedirect)
				}
			}
			if s.index-s.logic <= 8 && (c == '=' || next != ' ' && class[next] != letter) {
				t.add(colSQLCompare)
			}
			if c == '=' && s.operand != 0 {
				s.equals, s.left = true, s.operand
			}
		case ';', '|', '&', '`':
			some = true
			t.add(colShellOperators)
			s.operator, keep = true, true
			if c == '`' {
				t.add(colShellSubstitution)
			}
			if c != ';' && c != '`' && next == c && breaksOut(s.last) {
				t.add(colSQLLogic)
				s.logic = s.index
			}
		case '$':
			switch next {
			case '(':
				some = true
				t.add(colShellOperators)
				t.add(colShellSubstitution)
				s.operator, keep = true, true
			case '{':
				some = true
				t.add(colDollarBrace)
				if s.inside > 0 {
					t.add(colLookup)
				}
				s.inside++
				if bytes.HasPrefix(b[i+2:], []byte("ifs")) {
					t.add(colShellSubstitution)
				}
			}
		case '%':
			if next == 'n' || next == 's' || next == 'x' || next == 'p' {
				if i+2 == len(b) || class[b[i+2]] != letter {
					t.add(colFormat)
					some = true
				}
			}
		case '-':
			if next == '-' && (i+2 == len(b) || b[i+2] == ' ' || b[i+2] == '\n' || b[i+2] == '\'' || b[i+2] == '"') && s.last != kindEdge && s.last != '-' {
				t.add(colSQLTail)
				some = true
			}
		case '#':
			if i+1 == len(b) && (quotes+doubles > 0 || t.of(colSQLWords) > 0) {
				t.add(colSQLTail)
				some = true
			}
		case '/', '\\':
			keep = true
			if c == '/' && next == '*' && quotes+doubles+int(t.of(colSQLWords)) > 0 {
				t.add(colSQLTail)
				some = true
			}
		case ':':
			keep = true
		}
		if !keep {
			s.operator, s.start = false, false
		}
		s.union = s.union && c == '('
		w.emit(&s, c)
		i++
	}
	w.emit(&s, kindEdge)
	if p.role == rolePath && s.index == 2 && s.last == kindEdge && s.before == kindFolder {
		x.bin = true
	}

	x.punctuation = max(x.punctuation, punctuation)
	if punctuation >= 3 {
		x.punctuated++
	}
	x.entropy = max(x.entropy, w.entropy(b))
	if quotes&1 == 1 {
		t.add(colQuoteOdd)
		some = true
	}
	if doubles&1 == 1 {
		t.add(colDoubleQuoteOdd)
		some = true
	}
	if (quotes|doubles)&1 == 1 && len(b) > 1 && (quote(b[0]) || quote(b[len(b)-1])) {
		t.add(colQuoteEdge)
	}
	if unmatched += depth[0] + depth[1] + depth[2]; unmatched > 0 {
		t[colImbalance-colQuoteOdd] = int32(unmatched)
		some = true
	}
	if !some {
		return
	}
	f := t.families(quotes + doubles)
	if p.role == rolePath && t.of(colShellFirst) > 0 {
		f |= familyShell
	}
	if f&familySQL != 0 {
		x.sqlParts++
	}
	x.families |= f
	x.partMost = max(x.partMost, bits.OnesCount16(uint16(f)))
	for i, n := range t {
		x.sum[i] += n
		x.most[i] = max(x.most[i], n)
	}
}

// families returns the attack families that one part shows a sure sign of.
func (t *tally) families(quotes int) (f family) {
	has := func(c column) bool { return t[c-colQuoteOdd] > 0 }
	broken := has(colQuoteOdd) || has(colDoubleQuoteOdd) || has(colImbalance)
	if has(colSQLUnion) || t.of(colSQLTiming) > 1 || has(colSQLTiming) && (broken || has(colSQLSubselect) || has(colSQLLogic) || has(colSQLStacked) || has(colSQLTail)) || has(colSQLStacked) && has(colSQLWords) && (broken || has(colSQLTail)) ||
		has(colSQLLogic) && (has(colSQLEqual) || has(colSQLCompare) || has(colSQLCalls)) || has(colSQLTail) && (broken || has(colSQLOrder)) ||
		has(colSQLSubselect) && (has(colSQLFrom) || t.of(colSQLCalls) > 1) || has(colSQLSchema) {
		f |= familySQL
	}
	if has(colShellAfter) || has(colShellSubstitution) && has(colShellCommands) || has(colShellFirst) && (has(colShellRedirect) || has(colShellOption)) {
		f |= familyShell
	}
	if has(colTagsKnown) || t.of(colScriptWords) > 1 || has(colEventHandlers) && (quotes > 0 || has(colTags)) || has(colSchemeScript) && !has(colSchemeInside) ||
		has(colScriptCalls) && (quotes > 0 || has(colTags) || has(colTagsClosed)) {
		f |= familyMarkup
	}
	if has(colSchemeWrapper) || has(colSchemeInside) && has(colInternalHost) {
		f |= familyRequest
	}
	if has(colXMLEntity) {
		f |= familyXML
	}
	if has(colLookup) || has(colTemplate) && has(colCalls) {
		f |= familyTemplate
	}
	if has(colCodeOpen) || has(colCodeCalls) || has(colSerialized) {
		f |= familyCode
	}
	if has(colHeaderWords) {
		f |= familyHeader
	}
	if has(colLDAP) {
		f |= familyLDAP
	}
	return f
}

// breaksOut reports whether a token of that kind can end a value in SQL, so
// that a logical word after it joins a condition of the attacker.
func breaksOut(kind byte) bool {
	return kind == '\'' || kind == '"' || kind == ')' || kind == '`' || kind == kindNumber || kind == kindHex
}

func quote(c byte) bool { return c == '\'' || c == '"' }

func bracket(c byte) int {
	switch c {
	case '(', ')':
		return 0
	case '[', ']':
		return 1
	}
	return 2
}

// emit counts the token of the given kind in the kind columns.
func (w *work) emit(s *state, kind byte) {
	if w.tokens != nil {
		w.hashed(colKind0-colWord0, kindColumns, sum3(s.before, s.last, kind))
	}
	s.before, s.last = s.last, kind
	s.index++
}

// hashed counts hash in its column of a block of the hashed columns.
func (w *work) hashed(block column, columns uint64, hash uint64) {
	at := uint64(block) + (hash>>32)*columns>>32
	if w.tokens[at] < maxToken {
		w.tokens[at]++
	}
}

// sum3 returns the xxhash64 of three bytes. There is one for every byte of a
// text, and the general function takes longer to look at its argument than to
// hash so little.
func sum3(a, b, c byte) uint64 {
	const (
		prime1 = 0x9e3779b185ebca87
		prime2 = 0xc2b2ae3d27d4eb4f
		prime3 = 0x165667b19e3779f9
		prime5 = 0x27d4eb2f165667c5
	)
	h := uint64(prime5) + 3
	h = bits.RotateLeft64(h^uint64(a)*prime5, 11) * prime1
	h = bits.RotateLeft64(h^uint64(b)*prime5, 11) * prime1
	h = bits.RotateLeft64(h^uint64(c)*prime5, 11) * prime1
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}

// word deals with the word b[from:to] and reports whether it counted anything
// in t.
func (w *work) word(b []byte, from, to int, letters bool, p part, s *state, t *tally) (some bool) {
	x := &w.scan
	word := b[from:to]
	x.words++
	if to-from > x.wordTo-x.wordFrom {
		x.wordFrom, x.wordTo = p.from+from, p.from+to
	}
	next, after := byte(0), byte(0)
	if to < len(b) {
		next = b[to]
	}
	if to+1 < len(b) {
		after = b[to+1]
	}
	hash := xxhash.Sum64(word)
	before, union := s.operand, s.union
	s.union = false
	if s.equals {
		if s.left == hash && to-from < 64 {
			t.add(colSQLEqual)
			some = true
		}
		s.equals = false
	}
	s.operand = hash
	if !letters {
		if next == '.' && s.last != '.' && internalAddress(b[from:]) {
			t.add(colInternalHost)
			some = true
		}
		s.operator, s.start = false, false
		w.emit(s, kindNumber)
		return some
	}
	if word[0] == '0' && len(word) > 2 && word[1] == 'x' {
		t.add(colHexLiterals)
		s.operator, s.start = false, false
		w.emit(s, kindHex)
		return true
	}
	var m meaning
	kind := byte(kindWord)
	if len(word) <= knownLongest {
		m, kind = meaningOf(hash)
	}
	if w.tokens != nil && len(word) > 1 {
		w.hashed(0, wordColumns, plain(word, hash))
	}
	if next == '(' {
		t.add(colCalls)
		some = true
	}
	if word[0] == 'o' && len(word) >= 4 && len(word) <= 24 && word[1] == 'n' && (next == '=' || next == ' ' && after == '=') && s.last != kindEdge {
		t.add(colEventHandlers)
		some = true
	}
	if len(word) == 1 && next == ':' {
		if separator(after) {
			t.add(colDrive)
			some = true
		} else if (word[0] == 'o' || word[0] == 'a') && serialized(b[to+1:]) {
			t.add(colSerialized)
			some = true
		}
	} else if len(word) >= 5 && (string(word[:5]) == "ro0ab" || string(word[:4]) == "aced") && len(word) >= 8 {
		t.add(colSerialized)
		some = true
	}
	if m == 0 {
		s.operator, s.start = false, false
		w.emit(s, kind)
		return some
	}
	call := next == '(' || next == ' ' && after == '('
	if m&(sqlWord|sqlLogic) != 0 {
		some = true
		switch string(word) {
		case "union":
			s.union = true
		case "all", "distinct":
			s.union = union
		case "select":
			if union {
				t.add(colSQLUnion)
			}
			if s.last == '(' {
				t.add(colSQLSubselect)
			}
			s.selected = true
		case "from":
			if s.selected {
				t.add(colSQLFrom)
			}
		case "order", "group":
			s.order = s.index
		case "by":
			if s.index-s.order == 1 {
				t.add(colSQLOrder)
			}
		case "having":
			t.add(colSQLOrder)
		}
		if m&sqlWord != 0 {
			t.add(colSQLWords)
		}
		if m&sqlLogic != 0 && breaksOut(s.last) {
			t.add(colSQLLogic)
			s.logic = s.index
			if len(word) > 3 { // like, rlike, regexp, between compare
				s.equals, s.left = true, before
			}
		}
	}
	if m&sqlStatement != 0 && s.last == ';' {
		t.add(colSQLStacked)
		some = true
	}
	if m&sqlCall != 0 && call {
		t.add(colSQLCalls)
		some = true
	}
	if m&sqlTiming != 0 && (call || next == '.' || next == ' ' && (word[0] == 'w' || word[0] == 'd' && quote(after))) {
		t.add(colSQLTiming)
		some = true
	}
	if m&sqlSchema != 0 {
		t.add(colSQLSchema)
		some = true
	}
	if m&shellCommand != 0 {
		some = true
		t.add(colShellCommands)
		if s.operator {
			t.add(colShellAfter)
		}
		if s.start {
			t.add(colShellFirst)
		}
		if next == ' ' && (after == '-' || after == '/' || class[after] == digit) || bytes.HasPrefix(b[to:], []byte(".exe ")) {
			t.add(colShellOption)
		}
	}
	if m&sensitive != 0 && (p.role == rolePath || separator(s.last) || separator(next) || s.last == '.' || next == '.') {
		t.add(colSensitive)
		some = true
	}
	if m&tagName != 0 && s.last == '<' && b[from-1] == '<' {
		t.add(colTagsKnown)
		some = true
	}
	if m&scriptCall != 0 && (call || next == '`') {
		t.add(colScriptCalls)
		some = true
	}
	if m&scriptWord != 0 && (next == '.' || next == '=' || next == '[' || s.last == '.') {
		t.add(colScriptWords)
		some = true
	}
	if m&(scheme|scriptScheme) != 0 && next == ':' {
		some = true
		slashes := after == '/' && to+2 < len(b) && b[to+2] == '/'
		if slashes && p.from+from > 0 {
			t.add(colSchemeInside)
		}
		if m&wrapper != 0 && after == '/' {
			t.add(colSchemeWrapper)
		}
		if m&scriptScheme != 0 && after != ' ' && after != 0 && !slashes {
			t.add(colSchemeScript)
		}
	}
	if m&xmlWord != 0 && (s.last == '!' || s.last == '?' || s.last == '[') && (s.before == '<' || s.before == '!') {
		t.add(colXML)
		if word[0] != 'c' && word[0] != 'x' {
			t.add(colXMLEntity)
		}
		some = true
	}
	if m&codeCall != 0 && next == '(' {
		t.add(colCodeCalls)
		some = true
	}
	if m&headerName != 0 && s.last == kindBreak && (next == ':' || next == '-') {
		t.add(colHeaderWords)
		some = true
	}
	if m&probe != 0 && (p.role == rolePath || p.role == roleBare) {
		x.probes++
	}
	if m&internalHost != 0 && (word[0] == 'l' || s.last == '.' || next == '.') {
		t.add(colInternalHost)
		some = true
	}
	if m&lookup != 0 && (next == ':' || s.last == '{') {
		t.add(colLookup)
		some = true
	}
	if m&binFolder == 0 {
		s.operator, s.start = false, false
	}
	w.emit(s, kind)
	return some
}

// plain returns the hash of a word with each run of digits written as one 0.
// A word of more than 32 bytes is known by the first 32 of them.
func plain(word []byte, hash uint64) uint64 {
	var buf [32]byte
	n, digits := 0, false
	for _, c := range word {
		if n == len(buf) {
			break
		}
		if class[c] == digit {
			if n > 0 && buf[n-1] == '0' {
				continue
			}
			c, digits = '0', true
		}
		buf[n] = c
		n++
	}
	if !digits && n == len(word) {
		return hash
	}
	return xxhash.Sum64(buf[:n])
}

// serialized reports whether b goes on as the header of a serialised PHP value
// does after its letter and colon.
func serialized(b []byte) bool {
	i := 0
	for i < len(b) && class[b[i]] == digit {
		i++
	}
	return i > 0 && i+1 < len(b) && b[i] == ':' && (b[i+1] == '"' || b[i+1] == '{')
}

// internalAddress reports whether b begins with an IPv4 address of the local
// machine, a private network or a cloud's metadata service.
func internalAddress(b []byte) bool {
	var octet [4]int
	for k := range octet {
		if k > 0 {
			if len(b) == 0 || b[0] != '.' {
				return false
			}
			b = b[1:]
		}
		i := 0
		for i < len(b) && i < 3 && b[i]-'0' <= 9 {
			octet[k] = octet[k]*10 + int(b[i]-'0')
			i++
		}
		if i == 0 || octet[k] > 255 {
			return false
		}
		b = b[i:]
	}
	a, c := octet[0], octet[1]
	return a == 127 || a == 10 || a == 0 || a == 192 && c == 168 || a == 172 && c&0xf0 == 16 || a == 169 && c == 254
}
