package feature

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func each(s string, f func(c byte) string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteString(f(s[i]))
	}
	return b.String()
}

func percent(s string) string {
	return each(s, func(c byte) string { return fmt.Sprintf("%%%02x", c) })
}

// evasions are ways to write an ASCII text so that what reads it in the end
// reads the same.
var evasions = []struct {
	name   string
	encode func(string) string
}{
	{"percent", percent},
	{"upper-case percent", func(s string) string { return each(s, func(c byte) string { return fmt.Sprintf("%%%02X", c) }) }},
	{"percent of some", func(s string) string {
		return each(s, func(c byte) string {
			if c%3 == 0 {
				return fmt.Sprintf("%%%02x", c)
			}
			return string(c)
		})
	}},
	{"percent twice", func(s string) string { return strings.ReplaceAll(percent(s), "%", "%25") }},
	{"percent three times", func(s string) string {
		return strings.ReplaceAll(strings.ReplaceAll(percent(s), "%", "%25"), "%", "%25")
	}},
	{"percent inside percent", func(s string) string {
		return each(s, func(c byte) string {
			return fmt.Sprintf("%%%%%02x%%%02x", fmt.Sprintf("%02x", c)[0], fmt.Sprintf("%02x", c)[1])
		})
	}},
	{"percent u", func(s string) string { return each(s, func(c byte) string { return fmt.Sprintf("%%u%04x", c) }) }},
	{"decimal entity", func(s string) string { return each(s, func(c byte) string { return fmt.Sprintf("&#%d;", c) }) }},
	{"hex entity", func(s string) string { return each(s, func(c byte) string { return fmt.Sprintf("&#x%X;", c) }) }},
	{"padded entity without end", func(s string) string { return each(s, func(c byte) string { return fmt.Sprintf("&#%09d", c) }) }},
	{"named entity", func(s string) string {
		return strings.NewReplacer("<", "&lt;", ">", "&gt;", "'", "&apos;", `"`, "&quot;", "(", "&lpar;", ")", "&rpar;", "/", "&sol;", ".", "&period;").Replace(s)
	}},
	{"entity of percent", func(s string) string { return strings.ReplaceAll(percent(s), "%", "&#37;") }},
	{"backslash x", func(s string) string { return each(s, func(c byte) string { return fmt.Sprintf(`\x%02x`, c) }) }},
	{"backslash u", func(s string) string { return each(s, func(c byte) string { return fmt.Sprintf(`\u%04x`, c) }) }},
	{"mixed case", func(s string) string {
		return each(s, func(c byte) string {
			if c%2 == 0 {
				return strings.ToUpper(string(c))
			}
			return string(c)
		})
	}},
	{"plus for space", func(s string) string { return strings.ReplaceAll(s, " ", "+") }},
	{"tabs", func(s string) string { return strings.ReplaceAll(s, " ", "\t\v\f ") }},
	{"escaped tabs", func(s string) string { return strings.ReplaceAll(s, " ", "%09%0b%20") }},
	{"no-break space", func(s string) string { return strings.ReplaceAll(s, " ", "\u00a0") }},
	{"comment for space", func(s string) string { return strings.ReplaceAll(s, " ", "/**/") }},
	{"long comment for space", func(s string) string { return strings.ReplaceAll(s, " ", "/*%20Some*comment*/") }},
	{"versioned comment", func(s string) string { return strings.ReplaceAll(s, " select ", "/*!50000SeLeCt*/") }},
	{"full width", func(s string) string {
		return each(s, func(c byte) string {
			if c > ' ' {
				return string(rune(c) + 0xfee0)
			}
			return "\u3000"
		})
	}},
	{"overlong", func(s string) string {
		return each(s, func(c byte) string { return fmt.Sprintf("%%%02x%%%02x", 0xc0|c>>6, 0x80|c&0x3f) })
	}},
	{"overlong in three bytes", func(s string) string {
		return each(s, func(c byte) string { return fmt.Sprintf("%%e0%%%02x%%%02x", 0x80|c>>6, 0x80|c&0x3f) })
	}},
	{"zero-width characters", func(s string) string { return each(s, func(c byte) string { return string(c) + "\u200b" }) }},
	{"dots and slashes in hex", func(s string) string {
		return strings.NewReplacer("../", "0x2e0x2e0x2f").Replace(s)
	}},
	{"backslashes after dots", func(s string) string { return strings.ReplaceAll(s, "../", `..\`) }},
}

// Columns that may tell an encoded attack from its plain twin.
var encodingColumns = []string{
	"payload_length", "upper", "backslash", "decode_layers", "percent_escapes", "needless_escapes", "unicode_escapes",
	"entities", "backslash_escapes", "overlong", "bad_escapes", "comments",
}

func TestEncodedAttacksEqualTheirPlainTwins(t *testing.T) {
	for _, attack := range []string{
		"1' union select user,pass from users where id=1",
		`"><script>alert(document.cookie)</script>`,
		"; cat ../../../etc/passwd",
		"../../../../windows/win.ini",
		"') or ('x'='x",
		"(select 1 from dual) or sleep(5)",
	} {
		plain := vector(t, attack)
		if at(plain, "families") == 0 {
			t.Errorf("%q shows no attack", attack)
		}
		for _, e := range evasions {
			encoded := e.encode(attack)
			v := vector(t, encoded)
			for _, name := range differing(plain, v) {
				if !slices.Contains(encodingColumns, name) {
					t.Errorf("%s: %q: %s is %v, plain %v", e.name, encoded, name, at(v, name), at(plain, name))
				}
			}
			if encoded != attack && e.name != "plus for space" && len(differing(plain, v)) == 0 {
				t.Errorf("%s: no column tells that %q is encoded", e.name, encoded)
			}
		}
	}
}

func TestOtherTextsKeepTheirDifference(t *testing.T) {
	for _, x := range [][2]string{
		{"1' or 1=1", "1' or 1=2"},
		{"%2527", "%25252527252527"},         // more layers than are undone
		{"un/**/ion select", "union select"}, // a comment parts words
		{"a\nb", "a b"},
		{"&lt", "&lt;"},
		{"../", "..a/"},
	} {
		a, b := vector(t, x[0]), vector(t, x[1])
		var rest []string
		for _, name := range differing(a, b) {
			if !slices.Contains(encodingColumns, name) {
				rest = append(rest, name)
			}
		}
		if rest == nil {
			t.Errorf("%q and %q look the same", x[0], x[1])
		}
	}
}

func TestNormalForm(t *testing.T) {
	w := newWork()
	for _, x := range [][2]string{
		{"", ""},
		{"A+B%2bC", "a b+c"},
		{"a \t\r\n  b", "a\nb"},
		{"/*x*/y/*z", " y/*z"},
		{"/*!40100 Select*/ 1", " select 1"},
		{"*/", "*/"},
		{"%c0%ae%c0%af", "./"},
		{"%c0%2f", "/"},
		{"%C0 la", "\xc0 la"},
		{`a\b..\c`, `a\b../c`},
		{"%", "%"},
		{"%4", "%4"},
		{"%u00e9", "é"},
		{"&#1114112;", "\uFFFD"},
		{"&#xD800;", "\uFFFD"},
		{"&nosuch;", "&nosuch;"},
		{"&;", "&;"},
		{"&#;", "&#;"},
		{"x%00y", "x y"},
		{`\x4`, `\x4`},
		{"0x2e0x2f", "./"},
		{"0x2e41", "0x2e41"},
		{"ÀÉ", "ÀÉ"},
	} {
		w.normalise(x[0], &w.normal)
		if got := string(w.normal.text); got != x[1] {
			t.Errorf("%q becomes %q, want %q", x[0], got, x[1])
		}
	}
}

func TestPartsOfRequests(t *testing.T) {
	for _, x := range []struct {
		text string
		form int
		want string
	}{
		{"", formNone, ""},
		{"plain value", formBare, "b[plain value]"},
		{"/a//b/c.php", formPath, "p[a] p[b] p[c.php]"},
		{"/a?x=1&y=a&b&z=", formPath, "p[a] n[x] v[1] n[y] v[a&b] n[z] v[]"},
		{"/a?flag", formPath, "p[a] v[flag]"},
		{"/a?x=1&&y=2", formPath, "p[a] n[x] v[1&] n[y] v[2]"},
		{"http://h/p?q=1", formURL, "h[http://h] p[p] n[q] v[1]"},
		{"http://h?q=1", formURL, "h[http://h] n[q] v[1]"},
		{"a=1&b[]=2", formPairs, "n[a] v[1] n[b[]] v[2]"},
		{"a==b", formBare, "b[a==b]"},
		{"/?", formPath, ""},
	} {
		var s scan
		s.split([]byte(x.text))
		var got []string
		for _, p := range s.parts {
			got = append(got, string("bhpnv"[p.role])+"["+x.text[p.from:p.to]+"]")
		}
		if g := strings.Join(got, " "); g != x.want || s.form != x.form {
			t.Errorf("%q: form %d, %s; want %d, %s", x.text, s.form, g, x.form, x.want)
		}
	}
}

func TestEntropyIsThatOfShannon(t *testing.T) {
	w := newWork()
	for _, x := range []struct {
		text string
		want int // sixteenths of a bit
	}{
		{"", 0}, {"a", 0}, {"aaaa", 0}, {"ab", 16}, {"aabb", 16}, {"abcd", 32}, {"aaab", 12}, {"abcdefgh", 48},
		{strings.Repeat("ab", 4096), 16},
	} {
		if got := w.entropy([]byte(x.text)); got != x.want {
			t.Errorf("entropy of %.10q is %d, want %d", x.text, got, x.want)
		}
	}
}
