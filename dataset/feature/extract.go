package feature

import (
	"math/bits"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

// Vector writes the vector of r to dst, whose length must be Dim.
//
// The history columns say what t knows of the source of r from strictly
// earlier timestamps; then t learns r, unless r is late, undated or without an
// address (see Tracker). With a nil t the source has no history.
//
// Every value is a whole number from 0 to the Max of its column. The same
// record and history give the same bits on every CPU. In steady state it does
// not allocate; it takes time linear in the texts of r, of which it looks at
// 8 KiB each at most. Goroutines may share the extractor, not the tracker.
func (e *Extractor) Vector(dst []float32, r *record.Record, t *Tracker) {
	if len(dst) != Dim {
		panic("feature: internal error: a vector needs Dim columns")
	}
	clear(dst)
	var w *work
	if t != nil {
		w = t.work
	} else {
		w = e.work.Get().(*work)
		defer e.work.Put(w)
	}

	headers := e.headers(dst, r, w)
	w.examine(r.Payload, dst[colWord0:colScriptHits])
	e.payload(dst, w)
	e.lexicon(dst, w)
	e.port(dst, r)
	if e.config.Address != AddressHashed {
		address(dst, r.Address)
	}
	if t != nil {
		t.visit(dst, r, w, headers > 0 || w.scan.families != 0)
	}
}

func put(dst []float32, at column, n int)      { dst[at] = float32(n) }
func putCount(dst []float32, at column, n int) { dst[at] = float32(min(n, maxCount)) }
func putLog8(dst []float32, at column, n int)  { dst[at] = float32(log8(uint64(n))) }
func putShare(dst []float32, at column, n, of int) {
	if of > 0 {
		dst[at] = float32(int(uint64(n) * 100 / uint64(of)))
	}
}
func putFlag(dst []float32, at column, on bool) {
	if on {
		dst[at] = 1
	}
}

// log8 is the scale described at Columns.
func log8(n uint64) int {
	if n < 8 {
		return int(n)
	}
	k := bits.Len64(n)
	return (k-3)<<3 + int(n>>(k-4))&7
}

// payload fills the columns of the payload from w.
func (e *Extractor) payload(dst []float32, w *work) {
	n, x := &w.normal, &w.scan
	text := n.text
	putLog8(dst, colPayloadLength, n.length)
	putLog8(dst, colTextLength, len(text))
	put(dst, colTargetForm, x.form)
	segments, parameters, path, name, value, hidden := 0, 0, 0, 0, 0, 0
	var file []byte
	for _, p := range x.parts {
		size := p.to - p.from
		switch p.role {
		case rolePath:
			segments++
			path = max(path, size)
			file = text[p.from:p.to]
			if size > 1 && file[0] == '.' && class[file[1]] == letter {
				hidden++
			}
		case roleName:
			name = max(name, size)
		case roleValue:
			parameters++
			value = max(value, size)
		case roleBare:
			value = size
		}
	}
	putCount(dst, colPathSegments, segments)
	putLog8(dst, colPathLongest, path)
	putCount(dst, colParameters, parameters)
	putLog8(dst, colNameLongest, name)
	putLog8(dst, colValueLongest, value)
	switch extension(file) {
	case extScript:
		dst[colExtScript] = 1
	case extStatic:
		dst[colExtStatic] = 1
	case extBackup:
		dst[colExtBackup] = 1
	}
	putCount(dst, colHiddenFile, hidden)
	putCount(dst, colProbeWords, x.probes)
	putLog8(dst, colWords, x.words)

	putShare(dst, colUpper, n.upper, len(text))
	e.chars(dst, w)
	put(dst, colEntropyText, w.entropy(text))
	put(dst, colEntropyPart, x.entropy)
	put(dst, colEntropyWord, w.entropy(text[x.wordFrom:x.wordTo]))
	putCount(dst, colPartPunctuation, x.punctuation)
	putCount(dst, colPartsPunctuated, x.punctuated)
	putLog8(dst, colBackslash, n.slashes)
	putLog8(dst, colControl, n.control)

	put(dst, colDecodeLayers, n.layers)
	putLog8(dst, colPercentEscapes, n.percent)
	putLog8(dst, colNeedlessEscapes, n.needless)
	putCount(dst, colUnicodeEscapes, n.unicode)
	putCount(dst, colEntities, n.entities)
	putCount(dst, colBackslashEscapes, n.backslash)
	putCount(dst, colOverlong, n.overlong)
	putCount(dst, colBadEscapes, n.bad)
	putCount(dst, colComments, n.comments)
	putCount(dst, colNullBytes, n.nulls)
	putCount(dst, colLineBreaks, n.breaks)
	for c := colQuoteOdd; c <= colCalls; c++ {
		putCount(dst, c, int(x.sum.of(c)))
	}
	for _, c := range [...]column{colImbalance, colSQLWords, colShellOperators, colShellCommands} {
		putCount(dst, c, int(x.most.of(c)))
	}
	putCount(dst, colSQLParts, x.sqlParts)
	putCount(dst, colTraversalUps, x.ups)
	putCount(dst, colTraversalDepth, x.depth)
	putLog8(dst, colTraversalDots, x.dots)
	putCount(dst, colSelfReferences, x.selfs)
	if x.form == formURL || schemeFirst(text) {
		dst[colSchemeFirst] = 1
	}
	putLog8(dst, colSled, n.sled)
	putFlag(dst, colSignShell, x.families&familyShell != 0)
	putFlag(dst, colSignTraversal, x.families&familyTraversal != 0)
	putFlag(dst, colSignMarkup, x.families&familyMarkup != 0)
	putFlag(dst, colSignCode, x.families&(familyCode|familyTemplate) != 0)
	put(dst, colFamilies, bits.OnesCount16(uint16(x.families)))
	put(dst, colPartFamilies, x.partMost)
}

// schemeFirst reports whether text begins with a known scheme and a colon.
func schemeFirst(text []byte) bool {
	i := 0
	for i < len(text) && i < knownLongest && (class[text[i]] == letter || class[text[i]] == digit) {
		i++
	}
	if i == 0 || i == len(text) || text[i] != ':' {
		return false
	}
	m, _ := meaningOf(xxhash.Sum64(text[:i]))
	return m&(scheme|scriptScheme) != 0
}

// chars fills the columns of character classes and runs, and the gram columns.
func (e *Extractor) chars(dst []float32, w *work) {
	text := w.normal.text
	var classes [5]int
	run, letters, digits, puncts, consonants := 0, 0, 0, 0, 0
	longest := [5]int{}
	switches := 0
	last, lastClass := byte(0), uint8(other)
	first, second, third := byte(kindEdge), byte(kindEdge), byte(kindEdge) // digits as 0
	var counts [128]uint16
	high := 0
	for _, c := range text {
		k := class[c]
		classes[k]++
		if c < 0x80 {
			counts[c]++
		} else {
			high++
		}
		if c == last {
			run++
		} else {
			run = 1
		}
		longest[0] = max(longest[0], run)
		switch k {
		case letter:
			letters++
			digits, puncts = 0, 0
			longest[1] = max(longest[1], letters)
			if consonant[c] {
				consonants++
				longest[4] = max(longest[4], consonants)
			} else {
				consonants = 0
			}
			if lastClass == digit {
				switches++
			}
		case digit:
			digits++
			letters, puncts, consonants = 0, 0, 0
			longest[2] = max(longest[2], digits)
			if lastClass == letter {
				switches++
			}
		case punct:
			puncts++
			letters, digits, consonants = 0, 0, 0
			longest[3] = max(longest[3], puncts)
		default:
			letters, digits, puncts, consonants = 0, 0, 0, 0
		}
		first, second, third = second, third, c
		if k == digit {
			third = '0'
		}
		w.hashed(colGram0-colWord0, gramColumns, sum3(first, second, third))
		last, lastClass = c, k
	}
	putShare(dst, colLetters, classes[letter], len(text))
	putShare(dst, colDigits, classes[digit], len(text))
	putShare(dst, colPunctuation, classes[punct], len(text))
	putLog8(dst, colNonASCII, high)
	for _, x := range [...]struct {
		at   column
		a, b byte
	}{
		{colQuote, '\'', 0}, {colDoubleQuote, '"', 0}, {colBacktick, '`', 0}, {colAngle, '<', '>'}, {colParen, '(', ')'},
		{colBracket, '[', ']'}, {colBrace, '{', '}'}, {colSemicolon, ';', 0}, {colColon, ':', 0}, {colDot, '.', 0},
		{colPipe, '|', 0}, {colAmpersand, '&', 0}, {colDollar, '$', 0}, {colHash, '#', 0}, {colPercent, '%', 0},
		{colAsterisk, '*', 0}, {colEquals, '=', 0}, {colAt, '@', 0}, {colSlash, '/', 0},
	} {
		putLog8(dst, x.at, int(counts[x.a])+int(counts[x.b]))
	}
	putLog8(dst, colRunByte, longest[0])
	putLog8(dst, colRunLetters, longest[1])
	putLog8(dst, colRunDigits, longest[2])
	putLog8(dst, colRunPunctuation, longest[3])
	putLog8(dst, colRunConsonants, longest[4])
	putLog8(dst, colSwitches, switches)
	if longest[0] >= 100 {
		w.scan.families |= familyOverflow
	}
}

// nlogn()[n] is n·log2(n) in units of 2^-16. Programs that extract nothing do
// without.
var nlogn = sync.OnceValue(func() *[maxText + 1]int64 {
	var out [maxText + 1]int64
	for n := 1; n < len(out); n++ {
		out[n] = int64(n) * log2(uint64(n))
	}
	return &out
})

// log2 returns the logarithm of n ≥ 1 in units of 2^-16, rounded down.
func log2(n uint64) int64 {
	k := bits.Len64(n) - 1
	m := n << (31 - k)
	out := int64(k) << 16
	for bit := int64(1) << 15; bit > 0; bit >>= 1 {
		if m = m * m >> 31; m >= 1<<32 {
			m >>= 1
			out += bit
		}
	}
	return out
}

// entropy returns the entropy of the bytes of b in sixteenths of a bit,
// rounded down; len(b) is at most maxText.
func (w *work) entropy(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	nlogn := nlogn()
	clear(w.hist[:])
	sum := int64(0)
	for _, c := range b {
		n := w.hist[c]
		sum += nlogn[n+1] - nlogn[n]
		w.hist[c] = n + 1
	}
	n := len(b)
	return int(max(0, (nlogn[n]-sum)/int64(n)>>12))
}

// Classes of file extensions.
const (
	extNone = iota
	extScript
	extStatic
	extBackup
)

func extension(file []byte) int {
	at := len(file) - 1
	for at >= 0 && file[at] != '.' {
		at--
	}
	if at < 0 {
		return extNone
	}
	switch string(file[at+1:]) {
	case "php", "php3", "php4", "php5", "phtml", "asp", "aspx", "ashx", "asmx", "jsp", "jspx", "jspa", "do", "action", "cgi", "pl", "py", "rb", "cfm", "cfc", "nsf", "dll", "shtml", "vm":
		return extScript
	case "html", "htm", "css", "js", "png", "jpg", "jpeg", "gif", "ico", "svg", "webp", "woff", "woff2", "ttf", "eot", "map", "txt", "pdf", "mp3", "mp4", "swf", "rss", "xsl":
		return extStatic
	case "bak", "old", "orig", "save", "swp", "tmp", "zip", "tar", "gz", "tgz", "bz2", "rar", "7z", "sql", "db", "mdb", "sqlite", "log", "conf", "config", "cfg", "ini", "inc", "env", "yml", "yaml", "key", "pem", "exe", "bat", "cmd", "sh", "war", "jar":
		return extBackup
	}
	return extNone
}

// headers fills the columns of everything but payload, port and address, and
// returns the number of attack families seen in the texts around the payload.
func (e *Extractor) headers(dst []float32, r *record.Record, w *work) int {
	switch r.Method {
	case "":
	case "GET":
		dst[colMethodGet] = 1
	case "POST":
		dst[colMethodPost] = 1
	case "PUT", "PATCH", "DELETE":
		dst[colMethodWrite] = 1
	default:
		dst[colMethodRare] = 1
	}
	if r.Status >= 100 && r.Status < 600 {
		put(dst, colStatusClass, int(r.Status/100))
		putFlag(dst, colStatusDenied, r.Status == 401 || r.Status == 403)
		putFlag(dst, colStatusMissing, r.Status == 404 || r.Status == 410)
	}
	if r.Size > 0 {
		dst[colSize] = float32(log8(uint64(r.Size)))
	}
	putLog8(dst, colRefererLength, len(r.Referer))
	putLog8(dst, colAgentLength, len(r.Agent))
	putLog8(dst, colUserLength, len(r.User))
	if r.Agent != "" {
		m := meanings(r.Agent)
		putFlag(dst, colAgentScanner, m&scannerTool != 0)
		putFlag(dst, colAgentLibrary, m&libraryTool != 0)
		putFlag(dst, colAgentBrowser, m&browserTool != 0)
	}
	if r.User != "" {
		putFlag(dst, colUserCommon, meaningOfName(r.User)&commonUser != 0)
		digits := 0
		for i := range len(r.User) {
			if class[r.User[i]] == digit {
				digits++
			}
		}
		putShare(dst, colUserDigits, digits, len(r.User))
	}
	families := 0
	for _, s := range [...]string{r.Agent, r.Referer, r.User} {
		if suspicious(s) {
			w.examine(s, nil)
			families += bits.OnesCount16(uint16(w.scan.families))
		}
	}
	putCount(dst, colHeaderMarkers, families)
	return families
}

// suspicious reports whether s holds a character that every sign of an attack
// needs.
func suspicious(s string) bool {
	for i := range len(s) {
		switch s[i] {
		case '<', '>', '\'', '"', '`', '$', '|', '\\', '%', '{', '&':
			return true
		case '.':
			if i > 0 && s[i-1] == '.' {
				return true
			}
		}
	}
	return false
}

// meanings returns what is known of the words of s without regard to case.
// Underscores part words here.
func meanings(s string) (m meaning) {
	from := 0
	for i := 0; i <= len(s) && i <= maxText; i++ {
		if i < len(s) && s[i] != '_' && (class[s[i]] == letter || class[s[i]] == digit) {
			continue
		}
		m |= meaningOfName(s[from:i])
		from = i + 1
	}
	return m
}

// meaningOfName returns what is known of s as one word without regard to case.
func meaningOfName(s string) meaning {
	var word [knownLongest]byte
	if len(s) == 0 || len(s) > len(word) {
		return 0
	}
	for i := range len(s) {
		c := s[i]
		if c-'A' <= 'Z'-'A' {
			c |= 0x20
		}
		word[i] = c
	}
	m, _ := meaningOf(xxhash.Sum64(word[:len(s)]))
	return m
}

// lexicon fills the lexicon columns of the payload.
func (e *Extractor) lexicon(dst []float32, w *work) {
	text := w.normal.text
	scripts, parameters := 0, 0
	for _, p := range w.scan.parts {
		switch p.role {
		case rolePath:
			if e.config.Lexicon.Scripts.has(xxhash.Sum64(text[p.from:p.to])) {
				scripts++
			}
		case roleName:
			if e.config.Lexicon.Parameters.has(xxhash.Sum64(text[p.from:p.to])) {
				parameters++
			}
		}
	}
	putCount(dst, colScriptHits, scripts)
	putCount(dst, colParameterHits, parameters)
	if scripts > 0 {
		putCount(dst, colPairHits, parameters)
	}
}

// port fills the columns of port and protocol.
func (e *Extractor) port(dst []float32, r *record.Record) {
	if r.Port > 0 && r.Port <= 65535 {
		putLog8(dst, colPort, int(r.Port))
		putFlag(dst, colPortHit, e.config.Lexicon.hasPort(r.Port))
		switch r.Port {
		case 80, 81, 443, 591, 3000, 3128, 5000, 7001, 8000, 8008, 8080, 8081, 8088, 8443, 8888, 9000, 9090, 9443, 10000:
			dst[colPortWeb] = 1
		case 22, 23, 2222, 2323:
			dst[colPortShell] = 1
		case 25, 110, 143, 465, 587, 993, 995:
			dst[colPortMail] = 1
		case 1433, 1521, 3306, 5432, 6379, 9042, 9200, 11211, 27017, 50000:
			dst[colPortData] = 1
		case 21, 69, 111, 135, 137, 139, 445, 548, 873, 2049, 3389, 5900, 5901, 5985:
			dst[colPortDesk] = 1
		}
	}
	protocol := r.Protocol
	putFlag(dst, colProtocolWeb, protocol == "http" || protocol == "https")
	putFlag(dst, colProtocolShell, protocol == "ssh" || strings.HasPrefix(protocol, "telnet"))
}
