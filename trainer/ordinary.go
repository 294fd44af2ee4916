package trainer

import (
	_ "embed"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

// OrdinarySource is the name, among the sources of a matrix, of benign rows
// that no site recorded: those that Ordinary makes.
const OrdinarySource = "ordinary"

//go:embed ordinary.txt
var ordinaryText string

// ordinaryGrammar is the parsed ordinary.txt.
type ordinaryGrammar struct {
	shapes []string // rules that are shapes, in the order of the file
	rules  map[string][]string
}

var theOrdinary = sync.OnceValue(func() ordinaryGrammar { return parseOrdinary(ordinaryText) })

func parseOrdinary(text string) ordinaryGrammar {
	g := ordinaryGrammar{rules: map[string][]string{}}
	rule := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if name, ok := strings.CutPrefix(line, "[= "); ok && rule != line {
			rule = strings.TrimSuffix(name, "]")
			g.shapes = append(g.shapes, rule)
		} else if name, ok := strings.CutPrefix(line, "["); ok && strings.HasSuffix(name, "]") && !strings.ContainsAny(name, "«{") {
			rule = strings.TrimSuffix(name, "]")
		} else if line != "" && rule != "" {
			g.rules[rule] = append(g.rules[rule], line)
		}
	}
	return g
}

// OrdinaryShapes names the shapes of ordinary traffic. Row i of Ordinary has
// shape i modulo their number.
func OrdinaryShapes() []string { return append([]string(nil), theOrdinary().shapes...) }

// Ordinary makes row i of a stream of ordinary traffic: benign parameter
// values, request targets and form bodies that no site recorded, such as names
// with apostrophes, text of many languages, JSON, base64, binary and posts
// about code. The row depends on seed and i alone. It has no address, time or
// status: how a request was answered tells nothing here.
func Ordinary(seed, i int64) record.Record {
	g := theOrdinary()
	rng := named(seed, "ordinary/"+strconv.FormatInt(i, 10))
	shape := g.shapes[i%int64(len(g.shapes))]
	var b strings.Builder
	g.expand(&b, rng, shape, 0)
	r := record.Record{Time: record.NoTime, Kind: record.Targets, Payload: b.String(), Label: classBenign, Level: record.LevelSafe}
	g.dress(rng, &r)
	r.Canonicalize(nil)
	return r
}

// dress puts a bare value, in half of the cases, into a parameter of a request,
// and says of some rows by what method they came.
func (g *ordinaryGrammar) dress(rng *pcg, r *record.Record) {
	how := rng.below(8)
	if target := strings.HasPrefix(r.Payload, "/") || strings.HasPrefix(r.Payload, "http"); !target && how < 4 {
		g.wrap(rng, r)
	}
	switch {
	case strings.HasPrefix(r.Payload, "/") && how < 6, strings.HasPrefix(r.Payload, "http") && how < 6:
		r.Method, r.Protocol = "GET", "http"
	case how == 6:
		r.Method, r.Protocol = "POST", "http"
	}
}

// wrap makes the payload the value of a parameter of a form, in one of four
// cases, or of the query of a request.
func (g *ordinaryGrammar) wrap(rng *pcg, r *record.Record) {
	how := rng.below(4)
	name := g.pick(rng, "low")
	value := url.QueryEscape(r.Payload)
	if how == 3 {
		value = url.PathEscape(r.Payload)
	}
	pair := name + "=" + value
	if how < 3 && rng.below(2) == 0 {
		pair = g.pick(rng, "low") + "=" + strconv.Itoa(int(rng.below(1000))) + "&" + pair
	}
	if how > 0 {
		pair = "/" + g.pick(rng, "low") + [...]string{"", "/", ".php", ".aspx"}[rng.below(4)] + "?" + pair
	}
	r.Payload = pair
}

func (g *ordinaryGrammar) pick(rng *pcg, rule string) string {
	alternatives := g.rules[rule]
	if len(alternatives) == 0 {
		panic("trainer: ordinary.txt has no rule " + strconv.Quote(rule))
	}
	return alternatives[rng.below(uint32(len(alternatives)))]
}

// expand appends one text of a rule to b.
func (g *ordinaryGrammar) expand(b *strings.Builder, rng *pcg, rule string, depth int) {
	if depth > 8 {
		panic("trainer: ordinary.txt: rule " + strconv.Quote(rule) + " has no end")
	}
	rest := g.pick(rng, rule)
	for {
		before, after, found := strings.Cut(rest, "«")
		b.WriteString(breaks.Replace(before))
		if !found {
			return
		}
		name, after, _ := strings.Cut(after, "»")
		rest = after
		if kind, count, ok := strings.Cut(name, "#"); ok {
			n, err := strconv.Atoi(count)
			if err != nil {
				panic(fmt.Sprintf("trainer: ordinary.txt: %v", err))
			}
			noise(b, rng, kind, n)
			continue
		}
		g.expand(b, rng, name, depth+1)
	}
}

// breaks are the escapes of ordinary.txt.
var breaks = strings.NewReplacer(`\n`, "\n", `\r`, "\r", `\t`, "\t", `\x89`, "\u0089")

const (
	alphanumeric = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	mild         = alphanumeric + "!#$*-.@_?"
)

// noise appends n characters of a kind.
func noise(b *strings.Builder, rng *pcg, kind string, n int) {
	from := ""
	switch kind {
	case "":
		from = "0123456789"
	case "x":
		from = "0123456789abcdef"
	case "a":
		from = alphanumeric
	case "b":
		from = alphanumeric + "+/"
	case "P":
		from = mild
	case "p":
		for range n {
			b.WriteByte(byte(' ' + rng.below(95)))
		}
		return
	case "u":
		for range n {
			// What a reader makes of bytes that are no UTF-8.
			if c := rng.below(256); c < 0x80 {
				b.WriteByte(byte(c))
			} else {
				b.WriteRune('\uFFFD')
			}
		}
		return
	default:
		panic("trainer: ordinary.txt: no noise " + strconv.Quote(kind))
	}
	for range n {
		b.WriteByte(from[rng.below(uint32(len(from)))])
	}
}
