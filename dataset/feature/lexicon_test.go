package feature

import (
	"encoding/csv"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

var titles = []Title{
	{"Foo 1.0 - 'news.php?cat_id'", 80}, {"Bar CMS - 'News.PHP' 'cat_id'", 80}, {"Baz - news.php cat_id=", 80},
	{"Foo 2.0 - 'view.asp?ID'", 8080}, {"Qux - 'view.asp' 'id'", 8080},
	{"Some Player 3 - '.m3u' Local", 0}, {"'news.php' news.php 'rare.php'", 21},
}

func TestLexiconIsLearntFromTitles(t *testing.T) {
	l := Learn(slices.Values(titles))
	has := func(h Hashes, name string) bool { return h.has(xxhash.Sum64String(name)) }
	if !has(l.Scripts, "news.php") || !has(l.Parameters, "cat_id") || !slices.Equal(l.Ports, []int32{80}) {
		t.Errorf("names in three titles are missing: %v", l)
	}
	for _, name := range []string{"view.asp", "rare.php", ".m3u", "news"} {
		if has(l.Scripts, name) {
			t.Errorf("%s is no script of three titles", name)
		}
	}
	if has(l.Parameters, "id") || has(l.Parameters, "news") {
		t.Error("a parameter of fewer than three titles is kept")
	}
	shuffled := slices.Clone(titles)
	for range 20 {
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := Learn(slices.Values(shuffled)); !slices.Equal(again.Scripts, l.Scripts) || !slices.Equal(again.Parameters, l.Parameters) || !slices.Equal(again.Ports, l.Ports) {
			t.Fatal("the order of titles changes the lexicon")
		}
	}

	c := DefaultConfig()
	c.Lexicon = l
	e := extractor(t, c)
	v := make([]float32, Dim)
	e.Vector(v, &record.Record{Time: record.NoTime, Payload: "/x/NEWS.php?cat%5fid=3&page=1", Port: 80}, nil)
	if at(v, "script_hits") != 1 || at(v, "parameter_hits") != 1 || at(v, "pair_hits") != 1 || at(v, "port_hit") != 1 {
		t.Error("a request for a known script is no hit")
	}
	e.Vector(v, &record.Record{Time: record.NoTime, Payload: "/x/other.php?cat=3", Port: 81}, nil)
	if at(v, "script_hits") != 0 || at(v, "parameter_hits") != 0 || at(v, "pair_hits") != 0 || at(v, "port_hit") != 0 {
		t.Error("a request for an unknown script is a hit")
	}
	for _, title := range titles {
		e.Vector(v, &record.Record{Time: record.NoTime, Payload: title.Text}, nil)
		if at(v, "script_hits") != 0 || at(v, "parameter_hits") != 0 {
			t.Errorf("the title %q answers for itself", title.Text)
		}
	}
}

func TestLexiconStaysWithinItsBounds(t *testing.T) {
	c := DefaultConfig()
	c.Lexicon = Learn(func(yield func(Title) bool) {
		for i := range 20000 {
			name := strings.Repeat(string(rune('a'+i%26)), 1+i/26%40)
			if !yield(Title{"X - '" + name + ".php?" + name + "'", int32(i % 500)}) {
				return
			}
		}
	})
	if n := len(c.Lexicon.Scripts); n != mostScripts {
		t.Errorf("%d scripts", n)
	}
	b, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 16<<10 {
		t.Errorf("the configuration takes %d bytes", len(b))
	}
}

func TestLexiconOfRealTitles(t *testing.T) {
	f, err := os.Open(testkit.Data(t, "exploitdb/files_exploits.reassembled.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	l := Learn(func(yield func(Title) bool) {
		for {
			row, err := r.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			if !yield(Title{Text: row[2]}) {
				return
			}
		}
	})
	for _, name := range []string{"index.php", "search.php", "login.asp"} {
		if !l.Scripts.has(xxhash.Sum64String(name)) {
			t.Errorf("%s is missing", name)
		}
	}
	for _, name := range []string{"id", "catid", "page"} {
		if !l.Parameters.has(xxhash.Sum64String(name)) {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestConfigurationsAreCanonicalAndBounded(t *testing.T) {
	c := DefaultConfig()
	c.Lexicon = Learn(slices.Values(titles))
	good, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := e.Config().Marshal(); err != nil || string(again) != string(good) {
		t.Errorf("decode and encode give %s, %v", again, err)
	}
	replace := func(old, new string) string {
		if !strings.Contains(string(good), old) {
			t.Fatalf("%s not in %s", old, good)
		}
		return strings.Replace(string(good), old, new, 1)
	}
	for name, bad := range map[string]string{
		"empty":              "",
		"not JSON":           "x",
		"unknown member":     replace(`{"address"`, `{"a":1,"address"`),
		"missing member":     replace(`"redaction":1,`, ``),
		"space":              replace(`,`, `, `),
		"schema":             replace(`"schema":1`, `"schema":2`),
		"address form":       replace(`"full"`, `"other"`),
		"redaction":          replace(`"redaction":1`, `"redaction":2`),
		"no sources":         replace(`"sources":65536`, `"sources":0`),
		"too many sources":   replace(`"sources":65536`, `"sources":1048577`),
		"pending":            replace(`"pending":32`, `"pending":257`),
		"sites":              replace(`"sites":256`, `"sites":0`),
		"port":               replace(`"ports":[80]`, `"ports":[0]`),
		"ports out of order": replace(`"ports":[80]`, `"ports":[80,80]`),
		"odd digits":         replace(`"scripts":"`, `"scripts":"0`),
		"upper-case digits":  replace(`"scripts":"`, `"scripts":"0000000A`),
		"repeated hash":      replace(`"scripts":"`, `"scripts":"0000000000000000`),
		"no hex":             replace(`"scripts":"`, `"scripts":"zzzzzzzz`),
		"too long":           replace(`"scripts":"`, `"scripts":"`+strings.Repeat("00000000", 4000)),
	} {
		if _, err := New([]byte(bad)); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := DefaultConfig()
	for i := range uint32(MaxLexicon + 1) {
		many.Lexicon.Scripts = append(many.Lexicon.Scripts, i)
	}
	if _, err := many.Marshal(); !errors.Is(err, ErrConfig) {
		t.Errorf("a lexicon over the bound: %v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, c := range []Config{DefaultConfig(), {}} {
		b, err := canon.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"address":"full","lexicon":{"parameters":"","ports":[80],"scripts":"0000000100000002"},"redaction":0,"schema":1,"tracker":{"pending":1,"sites":1,"sources":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b)
		if err != nil {
			if !errors.Is(err, ErrConfig) {
				t.Fatalf("error of another class: %v", err)
			}
			return
		}
		if again, err := c.Marshal(); err != nil || string(again) != string(b) {
			t.Fatalf("decode and encode give %q, %v", again, err)
		}
	})
}
