package feature

import (
	"bufio"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

var typical = record.Record{
	Site: "a", Address: "203.0.113.77", Protocol: "http", Port: 443, Method: "GET", Status: 200, Size: 5120,
	Payload: "/shop/catalogue/item.php?id=4711&sort=price&page=2&q=garden+chair%20green",
	Agent:   "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
	Referer: "https://shop.example.com/catalogue/index.php",
}

var hostile = record.Record{
	Site: "a", Address: "203.0.113.77", Protocol: "http", Port: 443, Method: "GET", Status: 200, Size: 5120,
	Payload: "/shop/item.php?id=-1%27%20%55nion/**/select%201,concat(user(),0x3a,version()),3%20from%20information_schema.tables--+-&sort=..%2f..%2f..%2fetc%2fpasswd",
	Agent:   "sqlmap/1.8#stable (https://sqlmap.org)",
}

func benchmark(b *testing.B, records []record.Record) {
	e := extractor(b, DefaultConfig())
	t := NewTracker(e.Config())
	v := make([]float32, Dim)
	for i := range records {
		e.Vector(v, &records[i], t)
	}
	testkit.Latency(b, time.Now, func(i int) {
		r := &records[i%len(records)]
		r.Time += int64(i) * 1000
		e.Vector(v, r, t)
	})
}

func BenchmarkVectorTypical(b *testing.B) { benchmark(b, []record.Record{typical}) }

func BenchmarkVectorHostile(b *testing.B) { benchmark(b, []record.Record{hostile}) }

func BenchmarkVectorRealLines(b *testing.B) {
	var records []record.Record
	for _, line := range requests(b) {
		r := typical
		r.Payload = line
		records = append(records, r)
	}
	benchmark(b, records)
}

// requests returns the request targets of the real access log.
func requests(t testing.TB) []string {
	f, err := os.Open(testkit.Data(t, "http-attacks/access-2004.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		if _, rest, ok := strings.Cut(s.Text(), `"`); ok {
			if f := strings.Fields(rest); len(f) > 1 {
				out = append(out, f[1])
			}
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// extractor returns the extractor of c.
func extractor(t testing.TB, c Config) *Extractor {
	t.Helper()
	b, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(b)
	if err != nil {
		t.Fatal(err)
	}
	return e
}
