// Package sample makes a small set of input files that looks like the real
// thing: an exploit index, attack records of three sites, web server, SSH and
// honeypot logs, and labelled payloads. All of it comes from a grammar and a seed;
// no row is taken from anywhere. The same files result on every machine.
//
// It exists so that the first run needs no download. Models trained on it show
// that the pipeline works, not that they are good.
package sample

import (
	_ "embed"
	"math/bits"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed grammar.txt
var grammarText string

// File describes one input file of the sample. Source, Class, Site and Year
// are what must be said to a reader of it.
type File struct {
	Name   string
	Source string
	Class  string
	Site   string
	Year   int
}

// Files are the files of the sample, in a fixed order.
func Files() []File {
	files := make([]File, len(generators))
	for i, g := range generators {
		files[i] = g.File
	}
	return files
}

// Write makes the files of the sample in dir, which must exist. A file that
// is there already is replaced.
func Write(dir string) error {
	for _, g := range generators {
		if err := os.WriteFile(filepath.Join(dir, g.Name), g.make(), 0o666); err != nil {
			return err
		}
	}
	return nil
}

// seed decides the whole sample; every file derives its own stream from it by name.
const seed = 20260115

type generator struct {
	File
	fill func(*writer)
}

func (g generator) make() []byte {
	w := &writer{random: newRandom(g.Name)}
	g.fill(w)
	return []byte(w.out.String())
}

var generators = []generator{
	{File{Name: "exploits.csv", Source: "exploitdb"}, exploits},
	{File{Name: "site-north.json", Source: "attacks", Site: "north"}, func(w *writer) { threatLog(w, 420) }},
	{File{Name: "site-harbour.json", Source: "attacks", Site: "harbour"}, func(w *writer) { threatLog(w, 420) }},
	{File{Name: "relay.json", Source: "attacks", Site: "valley"}, relayed},
	{File{Name: "access-visitors.log", Source: "access", Class: "benign"}, visitors},
	{File{Name: "access-mixed.log", Source: "access"}, mixed},
	{File{Name: "payloads.csv", Source: "labelled"}, payloads},
	{File{Name: "auth.log", Source: "sshd", Year: 2025}, sshd},
	{File{Name: "cowrie.json", Source: "cowrie"}, cowrie},
	{File{Name: "honeypot.json", Source: "honeypot"}, honeypot},
}

// All events lie in the 120 days before this instant.
var (
	end    = time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	window = 120 * 24 * time.Hour
)

// random is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, figure 17).
type random uint64

// newRandom returns the stream of that name: its state is the seed mixed with
// the FNV-1a hash of the name.
func newRandom(name string) random {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return random(h ^ seed)
}

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// intn returns a number from 0 to n-1.
func (r *random) intn(n int) int {
	hi, _ := bits.Mul64(r.next(), uint64(n))
	return int(hi)
}

// between returns a number from a to b, both included.
func (r *random) between(a, b int) int { return a + r.intn(b-a+1) }

// chance is true in n of 100 cases.
func (r *random) chance(n int) bool { return r.intn(100) < n }

func pick[T any](r *random, from []T) T { return from[r.intn(len(from))] }

// grammar maps each rule to its alternatives.
var grammar = parseGrammar(grammarText)

func parseGrammar(text string) map[string][]string {
	rules := map[string][]string{}
	rule := ""
	for _, line := range strings.Split(text, "\n") {
		if name, ok := strings.CutPrefix(line, "["); ok && strings.HasSuffix(name, "]") && !strings.Contains(name, "«") {
			rule = strings.TrimSuffix(name, "]")
		} else if line != "" && rule != "" {
			rules[rule] = append(rules[rule], line)
		}
	}
	return rules
}

const (
	hexDigits = "0123456789abcdef"
	alphabet  = "abcdefghijklmnopqrstuvwxyz0123456789"
)

// text expands one alternative of a rule.
func (r *random) text(rule string) string {
	alternatives := grammar[rule]
	if len(alternatives) == 0 {
		panic("sample: internal error: no rule " + rule)
	}
	var b strings.Builder
	for rest := pick(r, alternatives); ; {
		before, after, ok := strings.Cut(rest, "«")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		name, after, _ := strings.Cut(after, "»")
		rest = after
		n, err := strconv.Atoi(name[1:])
		switch {
		case name[0] == '#':
			i := 2 + strings.IndexByte(name[2:], '-')
			from, _ := strconv.Atoi(name[1:i])
			to, _ := strconv.Atoi(name[i+1:])
			b.WriteString(strconv.Itoa(r.between(from, to)))
		case name[0] == 'x' && err == nil:
			for range n {
				b.WriteByte(hexDigits[r.intn(len(hexDigits))])
			}
		case name[0] == 'a' && err == nil:
			for range n {
				b.WriteByte(alphabet[r.intn(len(alphabet))])
			}
		default:
			b.WriteString(r.text(name))
		}
	}
}

// address returns an address that looks public: IPv4 outside of the special
// ranges, or now and then one of the IPv6 documentation prefix.
func (r *random) address() string {
	if r.chance(6) {
		ip := [16]byte{0x20, 0x01, 0x0d, 0xb8}
		for i := 4; i < 16; i++ {
			if i < 8 || i > 13 {
				ip[i] = byte(r.intn(256))
			}
		}
		return netip.AddrFrom16(ip).String()
	}
	for {
		ip := netip.AddrFrom4([4]byte{byte(r.between(1, 223)), byte(r.intn(256)), byte(r.intn(256)), byte(r.between(1, 254))})
		b := ip.As4()
		switch {
		case ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast(), b[0] == 100 && b[1]>>6 == 1, b[0] == 198 && b[1]>>1 == 9:
		default:
			return ip.String()
		}
	}
}

// hosting returns an address of one of a few networks that many attacks, and
// few visitors, come from. They are reserved for documentation and benchmarks, so
// that nobody's network is slandered.
func (r *random) hosting() string {
	net := pick(r, []string{"192.0.2.", "198.51.100.", "203.0.113.", "198.18.", "198.19.", "198.19."})
	if strings.Count(net, ".") == 2 {
		net += strconv.Itoa(r.intn(40)) + "."
	}
	return net + strconv.Itoa(r.between(1, 254))
}

func (r *random) attacker() string {
	if r.chance(45) {
		return r.hosting()
	}
	return r.address()
}

func (r *random) visitor() string {
	if r.chance(4) {
		return r.hosting()
	}
	return r.address()
}

// instant returns a time of the window, to the microsecond, before the last
// hour of it.
func (r *random) instant() time.Time {
	span := int(window/time.Second) - 3600
	return end.Add(-window).Add(time.Duration(r.intn(span))*time.Second + time.Duration(r.intn(1_000_000))*time.Microsecond)
}

// later returns t moved on by from to to seconds.
func (r *random) later(t time.Time, from, to int) time.Time {
	return t.Add(time.Duration(r.between(from, to))*time.Second + time.Duration(r.intn(1_000_000))*time.Microsecond)
}

// disguise writes an attack the way tools do to slip past filters.
func (r *random) disguise(class, s string) string {
	if class == "sqli" && r.chance(25) {
		s = strings.ReplaceAll(s, " ", pick(r, []string{"/**/", "%20", "+", "%0a", "  "}))
	}
	if (class == "sqli" || class == "xss") && r.chance(30) {
		b := []byte(s)
		for i, c := range b {
			if c >= 'a' && c <= 'z' && r.chance(40) {
				b[i] = c - 'a' + 'A'
			}
		}
		s = string(b)
	}
	return s
}

// escape writes s as the value of a URL's parameter, with the carelessness of
// real clients: some escape all, some a little, some nothing.
func (r *random) escape(s string) string {
	level := r.intn(4) // 0 strict, 1 form, 2 lax, 3 twice
	if level == 3 && !r.chance(15) {
		level = 1
	}
	s = percent(s, level)
	if level == 3 {
		s = percent(s, 0)
	}
	return s
}

func percent(s string, level int) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.~", c) >= 0; {
		case plain, level == 2 && strings.IndexByte("'()*!/:;,=@<>", c) >= 0:
			b.WriteByte(c)
		case c == ' ' && level == 1:
			b.WriteByte('+')
		default:
			b.WriteByte('%')
			b.WriteByte("0123456789ABCDEF"[c>>4])
			b.WriteByte("0123456789ABCDEF"[c&15])
		}
	}
	return b.String()
}

// request returns what a client asks for: an attack of the given class, or
// "benign".
func (r *random) request(class string) (method, target string) {
	method = "GET"
	switch class {
	case "benign":
		target = r.text(pick(r, []string{"page", "page", "query"}))
		if path, query, ok := strings.Cut(target, "?"); ok {
			var params []string
			for _, p := range strings.Split(query, "&") {
				name, value, _ := strings.Cut(p, "=")
				params = append(params, name+"="+percent(value, r.intn(3)))
			}
			target = path + "?" + strings.Join(params, "&")
		}
		if strings.HasPrefix(target, "/comment") || strings.HasPrefix(target, "/account/login") || r.chance(3) {
			method = "POST"
		}
	case "scanner":
		target = r.text("probe")
		method = pick(r, []string{"GET", "GET", "GET", "HEAD", "OPTIONS"})
	case "flood":
		target = r.text("flood")
	case "brute":
		method, target = "POST", pick(r, []string{"/wp-login.php", "/login", "/account/login", "/admin/", "/api/v1/session"})
	default:
		target = "/" + r.text("script") + "?"
		if r.chance(40) {
			target += r.text("param") + "=" + strconv.Itoa(r.between(1, 400)) + "&"
		}
		target += r.text("param") + "=" + r.escape(r.disguise(class, r.text(class)))
		if r.chance(25) {
			target += "&" + r.text("param") + "=" + r.escape(r.text("word"))
		}
		if r.chance(15) {
			method = "POST"
		}
	}
	return method, target
}
