package feature

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Lexicon is what exploit titles name as vulnerable: scripts, parameters and
// ports.
type Lexicon struct {
	Parameters Hashes  `json:"parameters"`
	Ports      []int32 `json:"ports"` // 1 to 65535, ascending
	Scripts    Hashes  `json:"scripts"`
}

// Title is what Learn reads of one exploit.
type Title struct {
	Text string // with the words that the taxonomy matched masked
	Port int32  // 0 when unknown
}

// Shares of MaxLexicon, and the number of titles that must name a thing.
const (
	mostScripts    = 850
	mostParameters = 550
	mostPorts      = 100
	leastTitles    = 3
)

func (l Lexicon) validate() error {
	if n := len(l.Parameters) + len(l.Ports) + len(l.Scripts); n > MaxLexicon {
		return fmt.Errorf("%w: lexicon of %d names, limit %d", ErrConfig, n, MaxLexicon)
	}
	if !ascending(l.Parameters) || !ascending(l.Scripts) || !ascending(l.Ports) {
		return fmt.Errorf("%w: lexicon not in ascending order", ErrConfig)
	}
	if n := len(l.Ports); n > 0 && (l.Ports[0] < 1 || l.Ports[n-1] > 65535) {
		return fmt.Errorf("%w: lexicon port out of 1 to 65535", ErrConfig)
	}
	return nil
}

func ascending[T cmp.Ordered](s []T) bool {
	for i := 1; i < len(s); i++ {
		if s[i-1] >= s[i] {
			return false
		}
	}
	return true
}

func (l Lexicon) hasPort(port int32) bool {
	_, ok := slices.BinarySearch(l.Ports, port)
	return ok
}

// Learn makes the lexicon of exploit titles. Give it the titles of training
// rows only, each once, masked: what it keeps enters the release.
//
// A script is a word with the extension of a server-side script; a parameter
// is a name right after a question mark or ampersand, before an equals sign,
// or alone in quotes. A name counts once per title and must stand in three
// titles; ports must stand with three exploits. The commonest are kept, 850
// scripts, 550 parameters and 100 ports at most; of equally common names the
// smaller hash, of ports the smaller number. The order of titles changes
// nothing.
func Learn(titles iter.Seq[Title]) Lexicon {
	scripts, parameters, ports := map[uint32]int{}, map[uint32]int{}, map[int32]int{}
	w := newWork()
	var seen []uint32
	for t := range titles {
		if t.Port > 0 && t.Port <= 65535 {
			ports[t.Port]++
		}
		w.normalise(t.Text, &w.normal)
		text := string(w.normal.text)
		seen = seen[:0]
		for name := range scriptNames(text) {
			seen = append(seen, uint32(xxhash.Sum64String(name)>>32))
		}
		tallyOnce(scripts, seen)
		seen = seen[:0]
		for name := range parameterNames(text) {
			seen = append(seen, uint32(xxhash.Sum64String(name)>>32))
		}
		tallyOnce(parameters, seen)
	}
	return Lexicon{
		Parameters: commonest(parameters, mostParameters),
		Ports:      commonest(ports, mostPorts),
		Scripts:    commonest(scripts, mostScripts),
	}
}

func tallyOnce(counts map[uint32]int, seen []uint32) {
	slices.Sort(seen)
	for _, h := range slices.Compact(seen) {
		counts[h]++
	}
}

// commonest returns the most frequent keys with a count of at least
// leastTitles, ascending.
func commonest[K cmp.Ordered](counts map[K]int, most int) []K {
	keys := make([]K, 0, len(counts))
	for k, n := range counts {
		if n >= leastTitles {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b K) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	keys = keys[:min(len(keys), most)]
	slices.Sort(keys)
	return keys
}

// scriptNames yields the file names with the extension of a server-side script
// in a normalised title.
func scriptNames(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for from := 0; from < len(text); {
			to := from
			for to < len(text) && (class[text[to]] == letter || class[text[to]] == digit || text[to] == '.' || text[to] == '-') {
				to++
			}
			if name := strings.TrimRight(text[from:to], ".-"); extension([]byte(name)) == extScript && name[0] != '.' {
				if !yield(name) {
					return
				}
			}
			from = to + 1
		}
	}
}

// parameterNames yields the names of parameters in a normalised title.
func parameterNames(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for from := 0; from < len(text); {
			to := from
			for to < len(text) && (class[text[to]] == letter || class[text[to]] == digit || text[to] == '[' || text[to] == ']' || text[to] == '-') {
				to++
			}
			if to > from && to-from <= 32 && letters(text[from:to]) {
				before, after := byte(' '), byte(' ')
				if from > 0 {
					before = text[from-1]
				}
				if to < len(text) {
					after = text[to]
				}
				if (before == '?' || before == '&') && after != '.' || after == '=' && before != '.' || before == '\'' && after == '\'' {
					if !yield(text[from:to]) {
						return
					}
				}
			}
			from = to + 1
		}
	}
}

func letters(s string) bool {
	for i := range len(s) {
		if class[s[i]] == letter && s[i] < 0x80 {
			return true
		}
	}
	return false
}
