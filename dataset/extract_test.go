package dataset

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// extracted renders what a text gives, one "METHOD target" a request.
func extracted(text string) (list []string) {
	found, _ := extractRequests([]byte(text))
	for _, r := range found {
		list = append(list, r.method+" "+r.target)
	}
	return list
}

func TestRequestsInTextsAreFound(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		// Request lines.
		{"a request line", "GET /a.php?id=1 HTTP/1.1", "GET /a.php?id=1"},
		{"line ends of any kind", "x\rPUT /a?1 HTTP/1.1\r\nPOST /b?2 HTTP/1.0\n", "PUT /a?1|POST /b?2"},
		{"an absolute target", "GET http://h.example/a?b HTTP/1.1", "GET http://h.example/a?b"},
		{"a target with spaces", "GET /a?q=1 or 1=1 -- x HTTP/1.1", "GET /a?q=1 or 1=1 -- x"},
		{"a placeholder first", "GET [path]/a?b=1 HTTP/1.1", "GET [path]/a?b=1"},
		{"a string of a program", `s.send("GET /a?b=" + x + " HTTP/1.0\r\n")`, "GET /a?b="},
		{"escaped quotes in it", `s.send("GET /a?b=\"c HTTP/1.0\r\n")`, `GET /a?b=\"c`},
		{"behind an escape", `q = "x\nGET /a?b HTTP/1.0"`, "GET /a?b"},
		{"two on a line", "GET /a?1 HTTP/1.1 and POST /b?2 HTTP/1.1", "GET /a?1|POST /b?2"},
		{"prose before", "Send a GET request, GET /a?b HTTP/1.1", "GET /a?b"},
		{"no method", "BUDGET /a?b HTTP/1.1, get /a?b HTTP/1.1, FETCH /a?b HTTP/1.1", ""},
		{"no version", "GET /a?b, GET /a?b HTTP/x", ""},
		{"no target", "GET HTTP/1.1, GET a?b HTTP/1.1", ""},
		{"a path and no more", "GET / HTTP/1.1\nPOST /login.php HTTP/1.1\nGET http://h.example HTTP/1.1", ""},
		{"a URL within", "GET /a?u=http://e.example/s.txt? HTTP/1.1", "GET /a?u=http://e.example/s.txt?"},

		// URLs.
		{"a URL", "see http://h.example/a?b=c now", "GET http://h.example/a?b=c"},
		{"schemes", "HTTPS://h.example/a?b ftp://h.example/a?b shttp://h.example/a?b http:/h.example/a?b", "GET HTTPS://h.example/a?b"},
		{"the end of a sentence", "(see http://h.example/a?b=f(1)), http://h.example/c?d. Or <http://h.example/e?f>!", "GET http://h.example/a?b=f(1)|GET http://h.example/c?d|GET http://h.example/e?f"},
		{"quotes around", `'http://h.example/a?b="1"' "http://h.example/a?b='1" x`, `GET http://h.example/a?b="1"|GET http://h.example/a?b='1`},
		{"quotes within", `http://h.example/a?b='1 http://h.example/a?b="><b>x`, `GET http://h.example/a?b='1|GET http://h.example/a?b="><b>x`},
		{"an attribute without quotes", "<a href=http://h.example/a?b>x</a> x=http://h.example/c?d>e", "GET http://h.example/a?b|GET http://h.example/c?d>e"},
		{"the end of a string", `u = "http://h.example/a?b\r\nHost: x"; v = http://h.example/c?d\n"`, `GET http://h.example/a?b|GET http://h.example/c?d`},
		{"placeholders", "http://[host]/a?b=[SQL code] http://<target ip>/a?b http://h.example/[evil file]", "GET http://[host]/a?b=[SQL code]|GET http://<target ip>/a?b|GET http://h.example/[evil file]"},
		{"a placeholder that is open", "http://h.example/a?b=[SQL and more", "GET http://h.example/a?b=[SQL"},
		{"tags and scripts with spaces", `http://h.example/?a=<img src=x onerror=f(1)> http://h.example/?b=<script>alert("a b")</script>;`, `GET http://h.example/?a=<img src=x onerror=f(1)>|GET http://h.example/?b=<script>alert("a b")</script>`},
		{"a statement with spaces", "http://h.example/a?b=-1 UNION SELECT 1,2 -- x", "GET http://h.example/a?b=-1 UNION SELECT 1,2 -- x"},
		{"conditions with spaces", "http://h.example/a?b=1 and 1=2\nhttp://h.example/a?b=1 or sleep(3)\nhttp://h.example/a?b=1 AND 'a'='a", "GET http://h.example/a?b=1 and 1=2|GET http://h.example/a?b=1 or sleep(3)|GET http://h.example/a?b=1 AND 'a'='a"},
		{"a remark behind a statement", "http://h.example/a?b=1 and 1=2 => no rows\nhttp://h.example/a?b=1 union select 3   (three)", "GET http://h.example/a?b=1 and 1=2|GET http://h.example/a?b=1 union select 3"},
		{"prose behind a query", "http://h.example/a?b=1 and then more\nhttp://h.example/c?d or not\nhttp://h.example/e?f order now", "GET http://h.example/a?b=1|GET http://h.example/c?d|GET http://h.example/e?f"},
		{"an order", "http://h.example/a?b=1 Order By 9--", "GET http://h.example/a?b=1 Order By 9--"},
		{"prose behind a path", "http://h.example/a union select", ""},
		{"a traversal in the path", "http://h.example/../../x http://h.example/%2e%2e%2fx http://h.example/a%00", "GET http://h.example/../../x|GET http://h.example/%2e%2e%2fx|GET http://h.example/a%00"},
		{"ordinary pages", `http://h.example http://h.example/a.html http://h.example/a%20b http://h.example/[path]/ "http://h.example/a" http://h.example/a' http://h.example/?`, ""},
		{"hosts that a program puts together", `"http://" + h + "/a?b" 'http://'.$h.'/a?b' http://"$h"/a?b http:///a?b http://?a=b`, ""},
		{"hosts that it fills in", `"http://%s:80/a?b" http://$host/a?b http://{0}/a?b http://me:pw@h.example:8/a?b`, "GET http://%s:80/a?b|GET http://$host/a?b|GET http://{0}/a?b|GET http://me:pw@h.example:8/a?b"},

		// Noise.
		{"well-known sites", "http://www.exploit-db.com/x?y=1 https://GitHub.com./a?b=<c> http://web.archive.org:80/a?b=' http://me@www.w3.org/?x", ""},
		{"sites of like names", "http://notgithub.com/a?b http://github.com.example/a?b", "GET http://notgithub.com/a?b|GET http://github.com.example/a?b"},
		{"announced as something else", "# Vendor homepage : http://v.example/?a=b\n[+] Download...: http://v.example/get?a=b\n\"Referer: http://v.example/?a=b", ""},
		{"announced, but an attack", "Site: http://v.example/?a=<b>\nVulnerable page on vendor site: http://v.example/?a=b\nDemo: http://v.example/?c=d", "GET http://v.example/?a=<b>|GET http://v.example/?a=b|GET http://v.example/?c=d"},
		{"a word of that kind in prose", "The vendor has http://v.example/?a=b open", "GET http://v.example/?a=b"},
		{"twice", "http://h.example/a?b http://h.example/a?b POST http://h.example/a?b HTTP/1.1", "GET http://h.example/a?b|POST http://h.example/a?b"},
		{"too long", "http://h.example/a?b=" + strings.Repeat("x", maxTargetBytes) + " http://h.example/a?c", "GET http://h.example/a?c"},
		{"nothing", "", ""},
		{"control characters", "http://h.example/a?b\x00c http://h.example/d?e\tf", "GET http://h.example/a?b|GET http://h.example/d?e"},
	} {
		if got := strings.Join(extracted(c.text), "|"); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestATextGivesAtMostEightRequests(t *testing.T) {
	var text string
	for i := range 12 {
		text += fmt.Sprintf("http://h.example/?n=%d\n", i%maxTextRequests)
	}
	found, more := extractRequests([]byte(text))
	if len(found) != maxTextRequests || more {
		t.Errorf("repeats: %d requests, more %v", len(found), more)
	}
	found, more = extractRequests([]byte(text + "http://h.example/?n=9"))
	if len(found) != maxTextRequests || !more || found[7].target != "http://h.example/?n=7" {
		t.Errorf("one too many: %v, more %v", found, more)
	}
}

func TestSitesAndWordsAreInOrder(t *testing.T) {
	if !slices.IsSorted(referenceSites) {
		t.Error("referenceSites are searched as sorted and are not")
	}
	for _, s := range referenceSites {
		if s != strings.ToLower(s) || !isReference([]byte("www."+s)) {
			t.Errorf("%s is never found", s)
		}
	}
}

// TestHostileTextsTakeLinearTime would take hours where time grew with the
// square of the length.
func TestHostileTextsTakeLinearTime(t *testing.T) {
	for _, part := range []string{
		"http://", "http://[", "http://a/?<", "http://a/?)", ")", "GET / ", "'GET /b http://x/?.", "http://x/?.GET /b ", " HTTP/1", " HTTP/1.",
		"http://a/?b union ", "http://a/?b and a", "a.", "http://a.", "[", "<", "<script", "https://a/?b=\"", "://", "\r\n", "http://a/%2e?",
	} {
		for _, text := range []string{strings.Repeat(part, maxTextBytes/len(part)), "http://x/y" + strings.Repeat(part, maxTextBytes/len(part)) + " HTTP/1.0"} {
			start := time.Now()
			extractRequests([]byte(text))
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("%q repeated: %v", part, took)
			}
		}
	}
}

func FuzzExtractRequests(f *testing.F) {
	for _, s := range []string{
		"GET /a?b=\"c HTTP/1.0\r\n", `"\nPOST [p]/..%2f HTTP/1.1"`, "x:http://h.example/a?b=[SQL x]<img src=1> and 1=2  x", "<a href=http://a/?b>(https://c/?d))",
		"Vendor: http://h.example/?a='", "http://a/?b union select 1 => x",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		found, more := extractRequests(text)
		if len(found) > maxTextRequests || more && len(found) < maxTextRequests {
			t.Fatalf("%d requests, more %v", len(found), more)
		}
		for i, r := range found {
			switch {
			case slices.Contains(found[:i], r):
				t.Errorf("%q comes twice", r)
			case !bytes.Contains(text, []byte(r.target)):
				t.Errorf("%q does not stand in the text", r)
			case r.target == "" || len(r.target) > maxTargetBytes || strings.ContainsAny(r.target, "\r\n"):
				t.Errorf("%q is no target", r)
			case !hasQuery([]byte(r.target)) && !isStrange([]byte(r.target)):
				t.Errorf("%q says nothing", r)
			case r.method == "" || strings.ToUpper(r.method) != r.method:
				t.Errorf("%q has no method", r)
			}
		}
		// Lines do not depend on each other.
		again, _ := extractRequests(append([]byte("Prose, and more of it.\n"), text...))
		if !slices.Equal(again, found) {
			t.Errorf("behind another line: %q, alone %q", again, found)
		}
	})
}

func BenchmarkExtractRequests(b *testing.B) {
	text := []byte(strings.Repeat("A sentence of the advisory, as they are, of some length and without any news in it.\nhttp://h.example/a?b=1\n", 200))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		extractRequests(text)
	}
}
