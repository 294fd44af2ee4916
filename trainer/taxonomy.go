package trainer

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

// TaxonomyVersion is the version of the table that gives exploits and events
// their classes. It stands in every recipe, and a change to any answer raises it.
const TaxonomyVersion = 1

// classes in the order of the classifier's outputs. Benign is last.
var classes = [...]string{
	"sql_injection", "xss", "command_injection", "path_traversal", "file_inclusion", "code_execution",
	"memory_corruption", "denial_of_service", "privilege_escalation", "brute_force", "scanner",
	"information_disclosure", "csrf", "xxe", "ssrf", "other", "benign",
}

// Unlabelled is the Class of a Match that has none: nothing is known of what
// the event was, and no classifier is trained on it.
const Unlabelled = -1

// Classes returns the names of all classes in the order of their indices:
// attacks, then "other" for attacks of no class, and "benign" last. The slice is the caller's.
func Classes() []string { return slices.Clone(classes[:]) }

// Match is what the taxonomy says of one exploit or event.
type Match struct {
	Class int          // index in Classes, or Unlabelled
	Level record.Level // of events that state none themselves; LevelUnknown if nothing is known
	Spans [][2]int     // of an exploit: [from, to) in bytes of the title, ascending and disjoint
}

//go:embed taxonomy.tsv
var taxonomyTable string

// theTaxonomy is the embedded table, read on first use.
var theTaxonomy = sync.OnceValue(func() *taxonomy {
	t, err := parseTaxonomy(taxonomyTable)
	if err != nil {
		panic("trainer: internal error: " + err.Error())
	}
	return t
})

// ClassifyExploit gives the class of a row of the exploit index by its title
// and, where no words of that tell, by its type ("dos", "local", …). Every exploit has
// a class, "other" if need be, and none is benign. Platforms decide nothing in this version.
//
// Titles of the index read "Product - 'file or parameter' Flaw": words behind the first
// " - " and outside quotes come before the others, quoted ones last. Spans are not
// only the deciding words but all in the title that the table knows of any class,
// since each of them betrays the label; MaskTitle removes them. In quotes, where names of
// scripts stand, words that decide nothing are left alone. Letter case is of no
// account, bytes that are no ASCII letters or digits separate words. It is safe for
// concurrent use.
func ClassifyExploit(title, typ, platform string) Match {
	t := theTaxonomy()
	quoted := quotes(title)
	flaw := strings.Index(title, " - ")
	var m Match
	best, bestPlace := -1, 0
	for _, h := range t.title.find(title) {
		place := 0
		switch {
		case inside(quoted, h.from):
			place = 2
		case h.from < flaw:
			place = 1
		}
		decides := t.rows[h.row].class != Unlabelled
		if decides || place != 2 {
			m.Spans = append(m.Spans, [2]int{h.from, h.to})
		}
		if decides && (best < 0 || place < bestPlace || place == bestPlace && h.row < best) {
			best, bestPlace = h.row, place
		}
	}
	m.Spans = union(m.Spans)
	if best < 0 {
		best = t.typ.first(typ)
	}
	m.Class, m.Level = t.rows[best].class, t.rows[best].level
	return m
}

// quotes returns the parts of a title in single quotes. An apostrophe within a
// word opens and closes nothing.
func quotes(title string) (spans [][2]int) {
	open := -1
	for i := range len(title) {
		switch {
		case title[i] != '\'':
		case open < 0 && (i == 0 || strings.IndexByte(" (/", title[i-1]) >= 0):
			open = i
		case open >= 0 && (i == len(title)-1 || strings.IndexByte(" ),/", title[i+1]) >= 0):
			spans = append(spans, [2]int{open, i + 1})
			open = -1
		}
	}
	return spans
}

func inside(spans [][2]int, at int) bool {
	return slices.ContainsFunc(spans, func(s [2]int) bool { return s[0] <= at && at < s[1] })
}

// ClassifyRecord gives the class of an event by its label or, where it has
// none, what its kind alone says: no class, perhaps a level. Labels are the
// classes' own names, the sensors' ("SQL Injection Attack"), those of public data sets
// ("sqli", "norm"), of Cowrie events and of sshd messages as package record states
// them. Another label is "other"; an empty one and "unknown" are Unlabelled. Nothing
// that a honeypot saw is benign: such a label is Unlabelled there. Spans is nil. It is
// safe for concurrent use.
func ClassifyRecord(kind record.Kind, label string) Match {
	t := theTaxonomy()
	row := t.rows[t.kind.first(string(kind))]
	if label != "" {
		i := t.label.first(label)
		honeypot := kind == record.Honeypot || kind == record.Cowrie
		switch l := t.rows[i]; {
		case l.class == len(classes)-1 && honeypot:
		case l.class == Unlabelled && l.level == record.LevelUnknown:
		default:
			row = l
		}
	}
	return Match{Class: row.class, Level: row.level}
}

// MaskTitle returns what a vector may see of a title: each span of its Match
// is cut out and, with it, the spaces, brackets and punctuation around, so that their
// number tells nothing; one space takes their place between words.
func MaskTitle(title string, spans [][2]int) string {
	const around = " \t()[]{}/,;:&+-_|"
	b := make([]byte, 0, len(title))
	at, cut := 0, false
	for _, s := range append(spans[:len(spans):len(spans)], [2]int{len(title), len(title)}) {
		rest := title[at:s[0]]
		if cut {
			rest = strings.TrimLeft(rest, around)
		}
		if s[0] < len(title) {
			rest = strings.TrimRight(rest, around)
		}
		if cut && rest != "" && len(b) > 0 {
			b = append(b, ' ')
		}
		b = append(b, rest...)
		at, cut = s[1], true
	}
	return string(b)
}

// taxonomy is the table with one matcher for each field.
type taxonomy struct {
	rows                    []taxonomyRow
	title, typ, label, kind matcher
}

type taxonomyRow struct {
	class int
	level record.Level
}

// parseTaxonomy reads a table in the form of taxonomy.tsv.
func parseTaxonomy(table string) (*taxonomy, error) {
	t := &taxonomy{}
	head := fmt.Sprintf("# Taxonomy, version %d.", TaxonomyVersion)
	if !strings.HasPrefix(table, head) {
		return nil, fmt.Errorf("taxonomy: the first line is not %q", head)
	}
	n := 0
	for line := range strings.Lines(table) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 5 {
			return nil, fmt.Errorf("taxonomy: line %d has %d columns, want 5", n, len(f))
		}
		var m *matcher
		switch f[0] + " " + f[1] {
		case "exploit title":
			m = &t.title
		case "exploit type":
			m = &t.typ
		case "record label":
			m = &t.label
		case "record kind":
			m = &t.kind
		default:
			return nil, fmt.Errorf("taxonomy: line %d: unknown field %s %s", n, f[0], f[1])
		}
		row := taxonomyRow{class: Unlabelled}
		if f[3] != "-" {
			if row.class = slices.Index(classes[:], f[3]); row.class < 0 {
				return nil, fmt.Errorf("taxonomy: line %d: unknown class %q", n, f[3])
			}
		}
		if f[4] != "-" {
			if row.level = record.ParseLevel(f[4]); row.level.String() != f[4] {
				return nil, fmt.Errorf("taxonomy: line %d: unknown level %q", n, f[4])
			}
		}
		if err := m.add(f[2], len(t.rows)); err != nil {
			return nil, fmt.Errorf("taxonomy: line %d: %w", n, err)
		}
		t.rows = append(t.rows, row)
	}
	if t.typ.first("") < 0 || t.label.first("") < 0 || t.kind.first("") < 0 {
		return nil, fmt.Errorf("taxonomy: type, label and kind each need a last row with the pattern *")
	}
	return t, nil
}

// matcher finds the patterns of one field in a text.
type matcher struct {
	byFirst [256][]entry // by the first byte of a pattern's first word
	any     []*pattern   // those that begin with any word
}

// entry is one alternative of the first word of a pattern.
type entry struct {
	word
	*pattern
}

// pattern is one row's words.
type pattern struct {
	row   int
	words [][]word // the alternatives of each
	whole bool
}

// word stands for itself or, with prefix, for all that begin so.
type word struct {
	stem   string
	prefix bool
}

// hit is a pattern found at bytes [from, to) of a text.
type hit struct{ row, from, to int }

func (m *matcher) add(text string, row int) error {
	p := &pattern{row: row}
	text, p.whole = strings.CutPrefix(text, "= ")
	for field := range strings.SplitSeq(text, " ") {
		var alt []word
		for a := range strings.SplitSeq(field, "|") {
			stem, prefix := strings.CutSuffix(a, "*")
			bare := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' }
			if a == "" || stem == "" && field != "*" || strings.TrimFunc(stem, bare) != "" {
				return fmt.Errorf("pattern %q: bad word %q", text, a)
			}
			alt = append(alt, word{stem, prefix})
		}
		p.words = append(p.words, alt)
	}
	for _, a := range p.words[0] {
		if a.stem == "" {
			m.any = append(m.any, p)
			continue
		}
		m.byFirst[a.stem[0]] = append(m.byFirst[a.stem[0]], entry{a, p})
	}
	return nil
}

// token is a word of a text: lower case, at bytes [from, to).
type token struct {
	text     string
	from, to int
}

func tokens(text string) []token {
	low := []byte(text)
	n := 0
	inWord := false
	for i, c := range low {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
			low[i] = c
		}
		w := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if w && !inWord {
			n++
		}
		inWord = w
	}
	s := string(low)
	out := make([]token, 0, n)
	for i := 0; i < len(s); {
		from := i
		for i < len(s) && (s[i] >= 'a' && s[i] <= 'z' || s[i] >= '0' && s[i] <= '9') {
			i++
		}
		if i > from {
			out = append(out, token{s[from:i], from, i})
		} else {
			i++
		}
	}
	return out
}

// find returns every place where a pattern matches, by place and then by row.
func (m *matcher) find(text string) []hit {
	var hits []hit
	words := tokens(text)
	for i, w := range words {
		list := m.byFirst[w.text[0]]
		for k := range list {
			if list[k].is(w.text) {
				hits = list[k].append(hits, words, i)
			}
		}
		for _, p := range m.any {
			hits = p.append(hits, words, i)
		}
	}
	return hits
}

// first returns the first row of which the pattern is found in text, or -1. In
// a text without words only a "*" alone is found.
func (m *matcher) first(text string) int {
	best := -1
	for _, h := range m.find(text) {
		if best < 0 || h.row < best {
			best = h.row
		}
	}
	if best < 0 {
		for _, p := range m.any {
			if len(p.words) == 1 {
				return p.row
			}
		}
	}
	return best
}

// append adds a hit if the words from the i-th on match; the first is known to.
func (p *pattern) append(hits []hit, words []token, i int) []hit {
	last := i + len(p.words) - 1
	if last >= len(words) || p.whole && (i != 0 || last != len(words)-1) {
		return hits
	}
	for k, alt := range p.words[1:] {
		if !slices.ContainsFunc(alt, func(w word) bool { return w.is(words[i+1+k].text) }) {
			return hits
		}
	}
	return append(hits, hit{p.row, words[i].from, words[last].to})
}

func (w word) is(text string) bool {
	return text == w.stem || w.prefix && strings.HasPrefix(text, w.stem)
}

// union sorts spans and joins those that overlap or touch.
func union(spans [][2]int) [][2]int {
	slices.SortFunc(spans, func(a, b [2]int) int { return a[0] - b[0] })
	out := spans[:0]
	for _, s := range spans {
		if k := len(out) - 1; k >= 0 && s[0] <= out[k][1] {
			out[k][1] = max(out[k][1], s[1])
			continue
		}
		out = append(out, s)
	}
	return out
}
