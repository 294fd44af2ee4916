package record

import (
	"strings"
	"testing"
)

var key = []byte("0123456789abcdef")

func TestAddressForms(t *testing.T) {
	for _, c := range []struct{ in, full, truncated, hashed string }{
		{"", "", "", ""},
		{"192.0.2.77", "192.0.2.77", "192.0.2.0", "h:14bea7368be209b0"},
		{"2001:db8:1:2::3", "2001:db8:1:2::3", "2001:db8:1::", "h:58d8f38a5e6d0633"},
		{"h:0123456789abcdef", "h:0123456789abcdef", "h:0123456789abcdef", "h:0123456789abcdef"},
	} {
		for form, want := range map[AddressForm]string{"": c.full, Full: c.full, Truncated: c.truncated, Hashed: c.hashed} {
			p := Privacy{Address: form, Key: key}
			if err := p.Validate(); err != nil {
				t.Fatal(err)
			}
			r := Record{Kind: Attacks, Address: c.in}
			for range 2 { // the second time changes nothing
				p.Apply(&r)
				if r.Address != want || r.Check() != nil {
					t.Errorf("%s of %q is %q, want %q", form, c.in, r.Address, want)
				}
			}
		}
	}
	mapped, plain := Record{Address: "::ffff:192.0.2.77"}, Record{Address: "192.0.2.77"}
	for _, p := range []Privacy{{Address: Hashed, Key: key}, {Address: Truncated}} {
		p.Apply(&mapped)
		p.Apply(&plain)
		if mapped.Address != plain.Address {
			t.Errorf("%s: two forms of one address give %q and %q", p.Address, mapped.Address, plain.Address)
		}
	}
	other := Privacy{Address: Hashed, Key: []byte("another key of 16")}
	r := Record{Address: "192.0.2.77"}
	if other.Apply(&r); r.Address == "h:14bea7368be209b0" {
		t.Error("the key does not change the hash")
	}
	r = Record{Address: "no address"}
	if (Privacy{Address: Truncated}).Apply(&r); r.Address != "" {
		t.Errorf("text survives truncation as %q", r.Address)
	}
}

func TestPrivacyDescribesItself(t *testing.T) {
	for _, c := range []struct {
		p    Privacy
		form string
		n    int
	}{{Privacy{}, "full", 0}, {Privacy{Address: Truncated, Redaction: 1}, "truncated", 1}, {Privacy{Address: Hashed}, "hashed", 0}} {
		if form, n := c.p.Describe(); form != c.form || n != c.n {
			t.Errorf("%+v: %q, %d", c.p, form, n)
		}
	}
}

func TestRedaction(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		// Values of credentials.
		{"/login?user=bob&password=hunter2&x=1", "/login?user=bob&password=x&x=1"},
		{"PASSWD=hunter2;pwd=a.b-c", "PASSWD=x;pwd=x"},
		{"user[password]=hunter2", "user[password]=x"},
		{`{"apiKey": "AbC123", "x": "y"}`, `{"apiKey": "x", "x": "y"}`},
		{`{\"password\":\"hunter2\"}`, `{\"password\":\"x\"}`},
		{"X-Auth-Token: 0123abc", "X-Auth-Token: x"},
		{"PHPSESSID=1a2b3c; lang=en", "PHPSESSID=x; lang=en"},
		{"next=%2Fa%3Fsession_id%3Dabc%26b", "next=%2Fa%3Fsession_id%3Dx%26b"},
		{"%26pass=abc", "%26pass=x"},
		{"secret = 'hunter2'", "secret = 'x'"},
		{"token=YWJjZA==&a=b", "token=x&a=b"},
		{"pin=1234", "pin=x"},
		{"password=x", "password=x"},
		// Other names and other values stay.
		{"passive=yes&sidebar=1&spin=2&compass=n", "passive=yes&sidebar=1&spin=2&compass=n"},
		{"password=", "password="},
		{"password=&a=b", "password=&a=b"},
		{"password=%27%20OR%201%3D1", "password=%27%20OR%201%3D1"},
		{"password=1+union+select+1", "password=1+union+select+1"},
		{"password=admin'--", "password=x'--"},
		{"password=abc' or '1'='1", "password=x' or '1'='1"},
		{"pwd=abc;cat /etc/passwd", "pwd=x;cat /etc/passwd"},
		{"token=../../etc/passwd", "token=../../etc/passwd"},
		{"token=..", "token=.."},
		{"secret=<script>", "secret=<script>"},
		{"session=$(id)", "session=$(id)"},
		{"token=sleep(5)", "token=sleep(5)"},
		{"password=--", "password=--"},
		// Bearer and basic credentials.
		{"Authorization: Bearer eyJhbGciOi.J9.abc-_", "Authorization: Bearer x"},
		{"authorization: basic dXNlcjpwYXNz/+==", "authorization: basic x"},
		{"auth=Bearer%20abcdefgh1234&a", "auth=Bearer%20x&a"},
		{"Basic programming", "Basic programming"},
		{"bearer of bad news 2026", "bearer of bad news 2026"},
		{"forbearer abcdefgh1234", "forbearer abcdefgh1234"},
		{"Bearer /etc/passwd123A", "Bearer /etc/passwd123A"},
		{"Bearer ../../../../A1", "Bearer ../../../../A1"},
		{"Bearer abcdefgh1234(sleep)", "Bearer abcdefgh1234(sleep)"},
		// E-mail addresses.
		{"mail=bob.o-x_1@example.com", "mail=x@example.com"},
		{"/options/arobin%40shaw.ca", "/options/x%40shaw.ca"},
		{"a@b.c,d@e.f", "x@b.c,x@e.f"},
		{"%2Bfoo@example.com", "%2Bx@example.com"},
		{"root@localhost @example.com a@1.2.3.4 select @@version.x x@-", "root@localhost @example.com a@1.2.3.4 select @@version.x x@-"},
		{"foo@bar..com", "foo@bar..com"},
		// Card numbers.
		{"4111111111111111", "x"},
		{"cc=4111 1111 1111 1111&x", "cc=x&x"},
		{"5500-0000-0000-0004.", "5500-0000-0000-0004."},
		{"(5500-0000-0000-0004)", "(x)"},
		{"378282246310005", "x"},
		{"%204111111111111111%20", "%20x%20"},
		{"%2F4111111111111111", "%2Fx"},
		{"4111111111111112", "4111111111111112"},
		{"1459824000123 20040307160549", "1459824000123 20040307160549"},
		{"0x4111111111111111", "0x4111111111111111"},
		{"411111111111", "411111111111"},
		{"41111111111111111111111", "41111111111111111111111"},
		{"4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"},
		{"41 11111111111111", "41 11111111111111"},
		// One replacement that uncovers another.
		{"token=1-4111 4111111111111111", "token=x x"},
		{"token=Bearer abcdefgh1234", "token=x x"},
		{"", ""},
	} {
		got := redact(c.in)
		if got != c.want {
			t.Errorf("%q becomes %q, want %q", c.in, got, c.want)
		}
		if again := redact(got); again != got {
			t.Errorf("%q becomes %q and then %q", c.in, got, again)
		}
	}
}

func TestRedactionReachesEveryFreeText(t *testing.T) {
	r := Record{Payload: "password=a", Agent: "password=a", Referer: "password=a", User: "a@b.c", Label: "password=a", Event: "password=a"}
	off := r
	if (Privacy{}).Apply(&off); off != r {
		t.Errorf("no redaction changes %+v", off)
	}
	Privacy{Redaction: 1}.Apply(&r)
	if want := (Record{Payload: "password=x", Agent: "password=x", Referer: "password=x", User: "x@b.c", Label: "password=a", Event: "password=a"}); r != want {
		t.Errorf("got %+v", r)
	}
}

// TestRedactionComesBeforeTheCut checks that a text is not cut inside what
// would have been redacted, and that the cut leaves nothing to redact.
func TestRedactionComesBeforeTheCut(t *testing.T) {
	opt := Options{Privacy: Privacy{Redaction: 1}}
	for _, tail := range []string{"alice@example.com", " 4111111111111111", " 41111111111111111111111111", "&password=hunter2", " Bearer abcdefgh1234"} {
		for n := range len(tail) + 2 {
			line := `{"attack_type":"a","payload":"` + strings.Repeat("/", MaxText-n) + tail + "&" + strings.Repeat("/", MaxText+1) + `"}`
			rd, err := NewReader(strings.NewReader(line), Attacks, opt)
			if err != nil {
				t.Fatal(err)
			}
			var r Record
			if err := rd.Next(&r); err != nil {
				t.Fatal(err)
			}
			again := r
			opt.Privacy.Apply(&again)
			if again != r || r.Check() != nil || strings.Contains(r.Payload, "alice") || strings.Contains(r.Payload, "hunter") {
				t.Errorf("cut %d bytes into %q: %q, then %q", n, tail, r.Payload[MaxText-20:], again.Payload[len(again.Payload)-20:])
			}
		}
	}
}
