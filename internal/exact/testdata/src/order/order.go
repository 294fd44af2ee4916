package order

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sort"
	"strings"
	"sync"
)

type pair struct {
	key   string
	count int
}

func printed(m map[string]int) {
	for k := range m { // want `map: the order of m may reach a result`
		fmt.Println(k)
	}
}

func collected(m map[string]int) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func collectedSome(m map[string]int) []pair {
	pairs := make([]pair, 0, len(m))
	for k, n := range m {
		if n < 2 || strings.HasPrefix(k, "x") {
			continue
		}
		p := pair{key: strings.Clone(k), count: n}
		pairs = append(pairs, p)
	}
	sort.Slice(pairs, func(i, j int) bool { return pairs[i].key < pairs[j].key }) // want `sort: sort.Slice`
	return pairs
}

func unsorted(m map[string]int) []string {
	var keys []string
	for k := range m { // want `map: keys has the order of m`
		keys = append(keys, k)
	}
	return keys
}

func sortedLate(m map[string]int) []string {
	var keys []string
	for k := range m { // want `map: keys has the order of m`
		keys = append(keys, k)
	}
	first := keys[0]
	slices.Sort(keys)
	return append(keys, first)
}

func sortedOther(m map[string]int, others []string) []string {
	var keys []string
	for k := range m { // want `map: keys has the order of m`
		keys = append(keys, k)
	}
	slices.Sort(others)
	return keys
}

// A stable sort keeps the order of the map among equals.
func sortedStably(m map[string]int) []pair {
	var pairs []pair
	for k, n := range m { // want `map: pairs has the order of m`
		pairs = append(pairs, pair{k, n})
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return a.count - b.count })
	return pairs
}

func numbered(m map[string]int) []pair {
	var pairs []pair
	n := 0
	for k := range m { // want `map: the order of m may reach a result`
		n++
		pairs = append(pairs, pair{k, n})
	}
	slices.SortFunc(pairs, func(a, b pair) int { return strings.Compare(a.key, b.key) }) // want `sort: slices.SortFunc`
	return pairs
}

func lengths(m map[string]int) []int {
	var all []int
	for range m { // the same with any order: there is nothing to tell entries apart
		all = append(all, len(all))
	}
	for _ = range m {
		all = append(all, len(all))
	}
	return all
}

func counted(m map[string][]int) (n, most int, total uint8) {
	for k, list := range m {
		if k == "" {
			n++
		} else {
			most = max(most, len(list))
		}
		for _, x := range list {
			total += uint8(x)
			total ^= 1
		}
	}
	return n, most, total
}

func added(m map[string]float64) (sum float64, text string) {
	for _, x := range m { // want `map: the order of m may reach a result`
		sum += x
	}
	for k := range m { // want `map: the order of m may reach a result`
		text += k
	}
	return sum, text
}

func last(m map[string]int) (key string) {
	for k := range m { // want `map: the order of m may reach a result`
		key = k
	}
	return key
}

func outside(m map[string]int) (key string) {
	for key = range m { // want `map: the order of m may reach a result`
	}
	return key
}

func first(m map[string]int) string {
	for k := range m { // want `map: the order of m may reach a result`
		return k
	}
	for k := range m { // want `map: the order of m may reach a result`
		if k == "a" {
			return "a"
		}
		if k == "b" {
			return "b"
		}
	}
	return ""
}

func holds(m map[string]int, limit int) bool {
	for _, n := range m {
		if n > limit {
			return false
		}
	}
	return true
}

func holdsAndCounts(m map[string]int, seen *int) bool {
	for _, n := range m { // want `map: the order of m may reach a result`
		*seen++
		if n > 3 {
			return false
		}
	}
	return true
}

func firstTen(m map[string]int) map[string]int {
	out := map[string]int{}
	n := 0
	for k, v := range m { // want `map: the order of m may reach a result`
		if n == 10 {
			break
		}
		n++
		out[k] = v
	}
	return out
}

func limited(m map[string]int) map[string]int {
	out := map[string]int{}
	for k, v := range m { // want `map: the order of m may reach a result`
		if len(out) < 10 {
			out[k] = v
		}
	}
	return out
}

func copied(m map[string]int) map[string]int {
	out := make(map[string]int, len(m))
	for k, v := range m {
		out[k] = v / 2
	}
	for k, v := range out {
		if v == 0 {
			delete(out, k)
		}
	}
	return out
}

func inverted(m map[string]int) map[int]string {
	out := map[int]string{}
	for k, v := range m { // want `map: the order of m may reach a result`
		out[v] = k
	}
	return out
}

func renamed(m map[string]int) map[string]int {
	out := map[string]int{}
	for k, v := range m { // want `map: the order of m may reach a result`
		k = strings.ToLower(k)
		out[k] = v
	}
	return out
}

func effects(m map[string]int, note func(string) bool, c chan int) (n int) {
	for k := range m { // want `map: the order of m may reach a result`
		if note(k) {
			n++
		}
	}
	for k := range m { // want `map: the order of m may reach a result`
		if strings.ContainsFunc(k, func(rune) bool { n *= 2; return false }) {
			continue
		}
	}
	for k := range m { // want `map: the order of m may reach a result`
		if len(k) == <-c {
			n++
		}
	}
	for range m {
		c <- 1
	}
	for k := range m { // want `map: the order of m may reach a result`
		for x := range c {
			n += x * len(k)
		}
	}
	return n
}

func throughAPointer(m map[string]*pair, shared *pair) (n int) {
	for _, v := range m { // want `map: the order of m may reach a result`
		p := shared
		p.count++
		if shared.count > 2 {
			n += v.count
		}
	}
	return n
}

func nested(m map[string]map[string]int) []string {
	var all []string
	for _, inner := range m { // want `map: the order of m may reach a result`
		for k := range inner { // want `map: all has the order of inner`
			all = append(all, k)
		}
	}
	slices.Sort(all)
	return all
}

func generic[M ~map[K]V, K comparable, V any](m M) (all []V) {
	for _, v := range m { // want `map: all has the order of m`
		all = append(all, v)
	}
	return all
}

func iterators(m map[string]int, s *sync.Map, v reflect.Value) []string {
	for k := range maps.Keys(m) { // want `map: maps.Keys has no fixed order`
		fmt.Println(k)
	}
	_ = slices.Collect(maps.Values(m)) // want `map: maps.Values has no fixed order`
	_ = slices.Sorted(maps.Values(m))
	keys := maps.Keys[map[string]int]            // want `map: maps.Keys has no fixed order`
	s.Range(func(_, _ any) bool { return true }) // want `map: \(\*sync.Map\).Range has no fixed order`
	_ = v.MapKeys()                              // want `map: \(reflect.Value\).MapKeys has no fixed order`
	_ = slices.Sorted(keys(m))
	for range []string(nil) {
	}
	return slices.Sorted(maps.Keys(m))
}
