package canon_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

const emptyDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestDigestTextForm(t *testing.T) {
	d := canon.Sum(nil)
	if d.String() != emptyDigest || d.Hex() != emptyDigest[7:] || d.IsZero() {
		t.Errorf("digest of nothing is %s", d)
	}
	if p, err := canon.ParseDigest(emptyDigest); err != nil || p != d {
		t.Errorf("parsed %s, %v", p, err)
	}
	var zero canon.Digest
	if zero.String() != "" || !zero.IsZero() {
		t.Errorf("zero digest is %q", zero)
	}
	for name, s := range map[string]string{
		"nothing": "", "no algorithm": emptyDigest[7:], "another algorithm": "sha512:" + emptyDigest[7:], "upper case": "sha256:" + strings.ToUpper(emptyDigest[7:]),
		"algorithm in upper case": "SHA256:" + emptyDigest[7:], "too short": emptyDigest[:70], "too long": emptyDigest + "0", "space before": " " + emptyDigest,
		"space behind": emptyDigest + "\n", "no hex": "sha256:" + strings.Repeat("g", 64), "two bytes a letter": "sha256:" + strings.Repeat("é", 32),
		"zeros":     "sha256:" + strings.Repeat("0", 64),
		"very long": strings.Repeat("x", 1<<16),
	} {
		d, err := canon.ParseDigest(s)
		if !errors.Is(err, canon.ErrSyntax) || !d.IsZero() {
			t.Errorf("%s: %v, %v", name, d, err)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("%s: the error quotes %d bytes", name, len(err.Error()))
		}
	}
}

func TestDigestInJSON(t *testing.T) {
	type doc struct {
		D canon.Digest `json:"d"`
	}
	b, err := canon.Marshal(doc{canon.Sum(nil)})
	if want := `{"d":"` + emptyDigest + `"}`; err != nil || string(b) != want {
		t.Fatalf("%s, %v", b, err)
	}
	var back doc
	if err := canon.UnmarshalCanonical(b, &back); err != nil || back.D != canon.Sum(nil) {
		t.Errorf("%v, %v", back, err)
	}
	if err := canon.UnmarshalCanonical([]byte(`{"d":""}`), &back); err != nil || !back.D.IsZero() {
		t.Errorf("empty digest: %v, %v", back, err)
	}
	if err := canon.Unmarshal([]byte(`{"d":"sha256:00"}`), &back); !errors.Is(err, canon.ErrSyntax) {
		t.Errorf("short digest: %v", err)
	}
}

func TestReaderPassesOnlyTheBytesAskedFor(t *testing.T) {
	data := []byte("the bytes that were asked for")
	d, size := canon.Sum(data), int64(len(data))
	flipped := bytes.Clone(data)
	flipped[3] ^= 1
	for _, c := range []struct {
		name string
		got  []byte
		d    canon.Digest
		size int64
		ok   bool
	}{
		{"the same", data, d, size, true},
		{"a flipped bit", flipped, d, size, false},
		{"one byte short", data[:size-1], d, size, false},
		{"one byte more", append(bytes.Clone(data), 'x'), d, size, false},
		{"much more", append(bytes.Clone(data), make([]byte, 1<<16)...), d, size, false},
		{"nothing", nil, d, size, false},
		{"nothing asked", nil, canon.Sum(nil), 0, true},
		{"nothing asked, something there", data, canon.Sum(nil), 0, false},
		{"size too small", data, d, size - 1, false},
		{"size too large", data, d, size + 1, false},
		{"largest size", data, d, math.MaxInt64, false},
		{"negative size", nil, canon.Sum(nil), -1, false},
		{"another digest", data, canon.Sum(nil), size, false},
		{"zero digest", data, canon.Digest{}, size, false},
	} {
		for _, how := range []struct {
			name string
			wrap func(io.Reader) io.Reader
		}{
			{"whole", func(r io.Reader) io.Reader { return r }},
			{"byte by byte", iotest.OneByteReader},
			{"data with EOF", iotest.DataErrReader},
		} {
			r := canon.NewReader(how.wrap(bytes.NewReader(c.got)), c.d, c.size)
			got, err := io.ReadAll(r)
			if c.ok && (err != nil || !bytes.Equal(got, c.got)) {
				t.Errorf("%s, %s: %q, %v", c.name, how.name, got, err)
			}
			if !c.ok {
				if !errors.Is(err, canon.ErrMismatch) {
					t.Errorf("%s, %s: %v", c.name, how.name, err)
				}
				if int64(len(got)) > max(c.size, 0) {
					t.Errorf("%s, %s: %d bytes for a size of %d", c.name, how.name, len(got), c.size)
				}
				// A refusal is final, however often one asks.
				for range 3 {
					if n, err := r.Read(make([]byte, 8)); n != 0 || !errors.Is(err, canon.ErrMismatch) {
						t.Errorf("%s, %s: then %d, %v", c.name, how.name, n, err)
					}
				}
			}
			got, err = canon.ReadAll(how.wrap(bytes.NewReader(c.got)), c.d, c.size, 1<<20)
			if c.ok && (err != nil || !bytes.Equal(got, c.got)) {
				t.Errorf("ReadAll, %s, %s: %q, %v", c.name, how.name, got, err)
			}
			if !c.ok && (!errors.Is(err, canon.ErrMismatch) && !errors.Is(err, canon.ErrTooLarge) || got != nil) {
				t.Errorf("ReadAll, %s, %s: %q, %v", c.name, how.name, got, err)
			}
		}
	}
}

func TestReaderKeepsOtherErrors(t *testing.T) {
	boom := errors.New("boom")
	r := canon.NewReader(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(boom)), canon.Sum([]byte("abcdef")), 6)
	if _, err := io.ReadAll(r); !errors.Is(err, boom) || errors.Is(err, canon.ErrMismatch) {
		t.Errorf("%v", err)
	}
}

func TestReadAllRefusesBeforeReading(t *testing.T) {
	unread := iotest.ErrReader(errors.New("was read"))
	for _, size := range []int64{-1, 11, math.MaxInt64} {
		if _, err := canon.ReadAll(unread, canon.Sum(nil), size, 10); !errors.Is(err, canon.ErrTooLarge) {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

func TestCanonicalForm(t *testing.T) {
	for in, want := range map[string]string{
		` { "b" : 1 , "a" : [ true , null ] } `:  `{"a":[true,null],"b":1}`,
		`"\u0041\/\u00e9\n"`:                     `"A/é\n"`,
		`"\u001f\ud83d\ude00"`:                   "\"\\u001f\U0001F600\"",
		`{"\ud83d\ude00":1,"\ufb33":2}`:          "{\"\U0001F600\":1,\"\ufb33\":2}", // UTF-16 order is not UTF-8 order
		`{"":{"":0}}`:                            `{"":{"":0}}`,
		`[9007199254740991,-9007199254740991,0]`: `[9007199254740991,-9007199254740991,0]`,
		`"</script>&"`:                           `"</script>&"`,
	} {
		got, err := canon.Canonicalize([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%s becomes %s, %v", in, got, err)
		}
		again, err := canon.Canonicalize(got)
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("%s is not stable: %s, %v", got, again, err)
		}
	}
}

// refused are texts that have no canonical form.
var refused = map[string]string{
	"nothing":                       ``,
	"white space":                   " \n",
	"fraction":                      `1.0`,
	"fraction in a member":          `{"a":[1.5]}`,
	"exponent":                      `1e3`,
	"capital exponent":              `1E0`,
	"negative zero":                 `-0`,
	"2^53":                          `9007199254740992`,
	"-2^53":                         `-9007199254740992`,
	"2^64":                          `18446744073709551616`,
	"many digits":                   strings.Repeat("9", 400),
	"leading zero":                  `01`,
	"plus sign":                     `+1`,
	"NaN":                           `NaN`,
	"duplicate name":                `{"a":1,"a":1}`,
	"duplicate name, escaped":       `{"a":1,"\u0061":2}`,
	"duplicate before a fraction":   `{"a":1,"a":1.5}`,
	"duplicate deep inside":         `[{"x":{"a":1,"a":1}}]`,
	"invalid UTF-8":                 "\"\xff\"",
	"overlong UTF-8":                "\"\xc0\xaf\"",
	"surrogate in UTF-8":            "\"\xed\xa0\x80\"",
	"lone surrogate":                `"\ud800"`,
	"surrogates in the wrong order": `"\ude00\ud83d"`,
	"invalid UTF-8 in a name":       "{\"\xff\":1}",
	"control character":             "\"\x01\"",
	"trailing value":                `{} {}`,
	"trailing bracket":              `{}]`,
	"trailing comma":                `[1,]`,
	"comment":                       `{}//x`,
	"byte order mark":               "\ufeff{}",
	"cut short":                     `{"a":`,
	"single quotes":                 `{'a':1}`,
	"deep nesting":                  strings.Repeat("[", 20000) + strings.Repeat("]", 20000),
}

func TestCanonicalizeRefuses(t *testing.T) {
	for name, in := range refused {
		if got, err := canon.Canonicalize([]byte(in)); !errors.Is(err, canon.ErrSyntax) || got != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		var v any
		if err := canon.UnmarshalCanonical([]byte(in), &v); !errors.Is(err, canon.ErrSyntax) {
			t.Errorf("%s: UnmarshalCanonical: %v", name, err)
		}
	}
}

func TestCanonicalizeLeavesItsInputAlone(t *testing.T) {
	in := []byte(`{"b":1,"a":2}`)
	if _, err := canon.Canonicalize(in); err != nil || string(in) != `{"b":1,"a":2}` {
		t.Errorf("%s, %v", in, err)
	}
}

type document struct {
	Name string           `json:"name"`
	N    int64            `json:"n"`
	Sub  map[string]int64 `json:"sub,omitempty"`
}

func TestUnmarshalIsStrict(t *testing.T) {
	var d document
	if err := canon.Unmarshal([]byte(` {"n":1, "name":"x"} `), &d); err != nil || d.N != 1 || d.Name != "x" {
		t.Fatalf("%+v, %v", d, err)
	}
	for name, in := range map[string]string{
		"unknown name": `{"name":"x","n":1,"more":0}`, "name in another case": `{"Name":"x"}`, "duplicate name": `{"n":1,"n":1}`,
		"duplicate map key": `{"sub":{"a":1,"a":2}}`, "fraction for an integer": `{"n":1.5}`, "whole fraction": `{"n":1.0}`, "exponent": `{"n":1e3}`,
		"text for a number": `{"n":"1"}`, "number for a text": `{"name":1}`, "too large": `{"n":9223372036854775808}`,
		"invalid UTF-8": "{\"name\":\"\xff\"}", "lone surrogate": `{"name":"\ud800"}`, "trailing value": `{}{}`, "nothing": ``,
	} {
		if err := canon.Unmarshal([]byte(in), new(document)); !errors.Is(err, canon.ErrSyntax) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, in := range map[string]string{
		"order": `{"name":"x","n":1,"sub":{}}`, "white space": `{"n":1, "name":"x"}`, "escape": `{"n":1,"name":"\u0078"}`, "line end": "{\"n\":1,\"name\":\"x\"}\n",
		"order in a map": `{"n":1,"name":"x","sub":{"b":1,"a":1}}`,
	} {
		if err := canon.Unmarshal([]byte(in), new(document)); err != nil {
			t.Errorf("%s: Unmarshal: %v", name, err)
		}
		if err := canon.UnmarshalCanonical([]byte(in), new(document)); !errors.Is(err, canon.ErrSyntax) {
			t.Errorf("%s: UnmarshalCanonical: %v", name, err)
		}
	}
}

func TestUnmarshalSaysInWordsWhatDoesNotFit(t *testing.T) {
	for in, want := range map[string]string{
		`{"n":"1"}`:         `JSON: malformed: /n is a text, want an integer in its range`,
		`{"n":1.5}`:         `JSON: malformed: /n is 1.5, want an integer in its range`,
		`{"name":[]}`:       `JSON: malformed: /name is a list, want a text`,
		`{"sub":1}`:         `JSON: malformed: /sub is a number, want an object`,
		`{"sub":{"a":"x"}}`: `JSON: malformed: /sub/a is a text, want an integer in its range`,
		`{"more":1}`:        `JSON: malformed: unknown member /more`,
		`[]`:                `JSON: malformed: the whole is a list, want an object`,
	} {
		if err := canon.Unmarshal([]byte(in), new(document)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
	var d struct {
		D canon.Digest `json:"d"`
	}
	if err := canon.Unmarshal([]byte(`{"d":"x"}`), &d); err == nil || !strings.Contains(err.Error(), "/d: ") || strings.Contains(err.Error(), "canon.") {
		t.Errorf("a malformed digest: %v", err)
	}
}

func TestMarshalSortsAndRefuses(t *testing.T) {
	got, err := canon.Marshal(document{Name: "x", N: -5, Sub: map[string]int64{"b": 2, "a": 1, "B": 3}})
	if want := `{"n":-5,"name":"x","sub":{"B":3,"a":1,"b":2}}`; err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	for name, v := range map[string]any{
		"fraction": 1.5, "2^53": int64(1 << 53), "invalid UTF-8": "\xff", "infinity": math.Inf(1), "channel": make(chan int), "large whole float": 1e21,
		"raw duplicate names": json.RawMessage(`{"a":1,"a":2}`),
	} {
		if got, err := canon.Marshal(v); !errors.Is(err, canon.ErrSyntax) || got != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func FuzzCanonicalize(f *testing.F) {
	for _, in := range refused {
		if len(in) < 1000 {
			f.Add([]byte(in))
		}
	}
	f.Add([]byte(`{"b":[1,"\u00e9",null],"a":{"\ud83d\ude00":-7}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := canon.Canonicalize(in)
		if err != nil {
			if !errors.Is(err, canon.ErrSyntax) {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		again, err := canon.Canonicalize(out)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q becomes %q, then %q, %v", in, out, again, err)
		}
		var v any
		if err := canon.UnmarshalCanonical(out, &v); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		// Another decoder must see the same value in both.
		var a, b any
		da, db := json.NewDecoder(bytes.NewReader(in)), json.NewDecoder(bytes.NewReader(out))
		da.UseNumber()
		db.UseNumber()
		if da.Decode(&a) != nil || db.Decode(&b) != nil {
			t.Fatalf("%q or %q is not JSON to encoding/json", in, out)
		}
		ja, _ := json.Marshal(a)
		jb, _ := json.Marshal(b)
		if !bytes.Equal(ja, jb) {
			t.Fatalf("%q means %s, %q means %s", in, ja, out, jb)
		}
		if bytes.ContainsAny(out, "\n\t\r") {
			t.Fatalf("white space in %q", out)
		}
	})
}

// row is the encoding of an integer, a text and another integer.
func row(a int64, s string, b int64) []byte {
	return canon.AppendInt(canon.AppendText(canon.AppendInt(nil, a), s), b)
}

var (
	someInts  = []int64{math.MinInt64, math.MinInt64 + 1, -1 << 32, -256, -1, 0, 1, 255, 256, 1 << 32, math.MaxInt64}
	someTexts = []string{"", "\x00", "\x00\x00", "\x00\x01", "\x00\xff", "\x01", "\x01\x00", "a", "a\x00", "a\x00b", "a\x01", "ab", "b", "\xfe", "\xff", "\xff\x00", "\xff\xff", "é"}
)

func TestRowsKeepTheOrderOfTuples(t *testing.T) {
	type tuple struct {
		a int64
		s string
		b int64
	}
	var all []tuple
	for _, a := range someInts {
		for _, s := range someTexts {
			all = append(all, tuple{a, s, 7}, tuple{a, s, -7})
		}
	}
	compare := func(x, y tuple) int {
		switch {
		case x.a != y.a:
			return boolInt(x.a > y.a) - boolInt(x.a < y.a)
		case x.s != y.s:
			return strings.Compare(x.s, y.s)
		}
		return boolInt(x.b > y.b) - boolInt(x.b < y.b)
	}
	for _, x := range all {
		ex := row(x.a, x.s, x.b)
		for _, y := range all {
			if got, want := bytes.Compare(ex, row(y.a, y.s, y.b)), compare(x, y); got != want {
				t.Fatalf("%v against %v: bytes say %d, tuples %d", x, y, got, want)
			}
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestRowsDecodeToWhatWasEncoded(t *testing.T) {
	for _, a := range someInts {
		for _, s := range someTexts {
			r := canon.NewRow(row(a, s, -a))
			ga, gs, gb := r.Int(), r.Text(), r.Int()
			if err := r.Close(); err != nil || ga != a || gs != s || gb != -a {
				t.Errorf("%d %q %d: %d %q %d, %v", a, s, -a, ga, gs, gb, err)
			}
		}
	}
}

func TestTextsOfARowAreNotItsBytes(t *testing.T) {
	texts := []string{"", "one", "", "t\x00wo\x00", "\x00", "three", ""}
	var b []byte
	for i, s := range texts {
		b = canon.AppendInt(canon.AppendText(b, s), int64(i))
	}
	var got []string
	r := canon.NewRow(b)
	for i := range texts {
		got = append(got, r.Text())
		if n := r.Int(); n != int64(i) {
			t.Errorf("integer %d is %d", i, n)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	clear(b)
	if !slices.Equal(got, texts) {
		t.Errorf("%q, want %q", got, texts)
	}
}

func TestRowRefuses(t *testing.T) {
	whole := row(5, "a\x00b", 6)
	read := func(b []byte) error {
		r := canon.NewRow(b)
		r.Int()
		r.Text()
		r.Int32()
		return r.Close()
	}
	if err := read(whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if err := read(whole[:n]); !errors.Is(err, canon.ErrSyntax) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for name, b := range map[string][]byte{
		"trailing byte":      append(slices.Clone(whole), 0),
		"unknown escape":     append(canon.AppendInt(nil, 5), 'a', 0, 2, 0, 1),
		"escape at the end":  append(canon.AppendInt(nil, 5), 'a', 0),
		"text without end":   append(canon.AppendInt(nil, 5), "abc"...),
		"above 32 bits":      row(5, "", math.MaxInt32+1),
		"below 32 bits":      row(5, "", math.MinInt32-1),
		"nothing":            nil,
		"an integer instead": canon.AppendInt(canon.AppendInt(nil, 5), 6),
	} {
		if err := read(b); !errors.Is(err, canon.ErrSyntax) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int64{math.MinInt32, math.MaxInt32} {
		if err := read(row(5, "", n)); err != nil {
			t.Errorf("%d: %v", n, err)
		}
	}
	// After a failure nothing is made up.
	r := canon.NewRow([]byte{1, 2})
	if a, s, b := r.Int(), r.Text(), r.Int32(); a != 0 || s != "" || b != 0 {
		t.Errorf("after a failure: %d %q %d", a, s, b)
	}
}

func BenchmarkRow(b *testing.B) {
	texts := []string{"", "192.0.2.7", "access", "", "http", "GET", "/wiki/bin/view/Main/WebHome?rev=1.25&skin=plain", "", "", ""}
	row := []byte{}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			row = row[:0]
			for _, s := range texts {
				row = canon.AppendText(row, s)
			}
		}
		b.SetBytes(int64(len(row)))
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(row)))
		for b.Loop() {
			r := canon.NewRow(row)
			for range texts {
				_ = r.Text()
			}
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func FuzzRowDecode(f *testing.F) {
	f.Add(row(1, "a\x00b", 2))
	f.Add(append(canon.AppendInt(nil, 5), 'a', 0, 2, 0, 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := canon.NewRow(b)
		a, s, c := r.Int(), r.Text(), r.Int()
		if err := r.Close(); err != nil {
			if !errors.Is(err, canon.ErrSyntax) {
				t.Fatal(err)
			}
			return
		}
		if got := row(a, s, c); !bytes.Equal(got, b) {
			t.Fatalf("% x and % x are the same row", b, got)
		}
	})
}

func FuzzRowOrder(f *testing.F) {
	f.Add("a", int64(1), "a\x00", int64(-1))
	f.Add("\xff", int64(0), "\xff\x00", int64(0))
	f.Fuzz(func(t *testing.T, s1 string, n1 int64, s2 string, n2 int64) {
		want := strings.Compare(s1, s2)
		if want == 0 {
			want = boolInt(n1 > n2) - boolInt(n1 < n2)
		}
		e1, e2 := canon.AppendInt(canon.AppendText(nil, s1), n1), canon.AppendInt(canon.AppendText(nil, s2), n2)
		if got := bytes.Compare(e1, e2); got != want {
			t.Fatalf("%q %d against %q %d: bytes say %d, tuples %d", s1, n1, s2, n2, got, want)
		}
	})
}

func FuzzParseDigest(f *testing.F) {
	f.Add(emptyDigest)
	f.Add("sha256:")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := canon.ParseDigest(s)
		if err == nil && d.String() != s || err != nil && !errors.Is(err, canon.ErrSyntax) {
			t.Fatalf("%q: %s, %v", s, d, err)
		}
	})
}
