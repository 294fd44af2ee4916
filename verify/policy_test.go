package verify

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Public keys whose private halves nobody has.
const (
	pemA = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEA4tGiYPcYLgNKVkHFp1meRuEVXal
Yvpkub8+J00rj8kSUDtHTQ4eygDaQrEYO44DblyzAgmofYSqMtGiEDvkKg==
-----END PUBLIC KEY-----
`
	pemB = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEJLLKn+XxrCWEe28RSvA6by+J31EW
VdM46Eti5pv/vgMAFnI4WYZRg4O2oZM788Pv3MoHfQJR6bHu/pM7Wek/xQ==
-----END PUBLIC KEY-----
`
	pemCompressed = `-----BEGIN PUBLIC KEY-----
MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgACpiFdmX8gX1PdbaPmqpdi8HA7+xus
T2OjGBR6DgtMusQ=
-----END PUBLIC KEY-----
`
	pemP384 = `-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE+o4BuluoOgUH47NfI+maUpxNUPFCJWY1
v5CRaexFe1arRI9QQNO44OTvByyi6dAQ5Omi4/G+ZJGOnjKZg2sxFBaUkKUvDajI
XIwpuP3fHrub0qeFn0yZEXbhoWok2vOe
-----END PUBLIC KEY-----
`
	pemEd25519 = `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA2h1sL6A9i7UOp/9+drzfqu/MmN/fxTUiaZBhQBa/CZY=
-----END PUBLIC KEY-----
`
)

func block(s string) string {
	return "|\n      " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n      ")
}

func policyWith(more string) string {
	return "version: 1\nproduct: shop\npublishers:\n  - name: A\n    key: " + block(pemA) + "\n" + more
}

func TestPolicyIsReadAsWritten(t *testing.T) {
	set := canon.Sum([]byte("set"))
	text := policyWith("  - name: B\n    key: " + block(pemB) + "\n" +
		"builders: [\"https://example.org/a\", \"https://example.org/b\"]\n" +
		"datasets:\n  digests:\n    - " + set.String() + "\nmin_release: 7\nmax_bytes: 300000\n")
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if p.Product != "shop" || len(p.Publishers) != 2 || p.Publishers[1].Name != "B" || p.Publishers[1].Key.PEM() != pemB ||
		len(p.Builders) != 2 || p.Builders[1] != "https://example.org/b" || len(p.Datasets.Digests) != 1 || p.Datasets.Digests[0] != set ||
		p.MinRelease != 7 || p.MaxBytes != 300000 || p.Digest != canon.Sum([]byte(text)) {
		t.Fatalf("read as %+v", p)
	}
}

func TestPolicyThatCannotBeEnforcedIsRefused(t *testing.T) {
	key := "    key: " + block(pemA) + "\n"
	for _, c := range []struct{ name, text, says string }{
		{"empty", "", "empty"},
		{"only a comment", "# nothing\n", "empty"},
		{"only white space", " \n\n", "empty"},
		{"null", "null\n", "want fields"},
		{"a list", "- version: 1\n", "want fields"},
		{"a text", "trust everybody\n", "want fields"},
		{"no version", "product: shop\npublishers:\n  - name: A\n" + key, "version is 0"},
		{"a failure that blocks, and none is judged", policyWith("reproductions: {min: 0, on_failure: block}\n"), "min: 1 or more"},
		{"version 2", strings.Replace(policyWith(""), "version: 1", "version: 2", 1), "version is 2"},
		{"version as float", strings.Replace(policyWith(""), "version: 1", "version: 1.0", 1), "read as !!float"},
		{"version as text", strings.Replace(policyWith(""), "version: 1", `version: "1"`, 1), "want a number"},
		{"no product", strings.Replace(policyWith(""), "product: shop\n", "", 1), "product: missing"},
		{"product with escape", strings.Replace(policyWith(""), "shop", `"a\x1bb"`, 1), "control characters"},
		{"product with space at its end", strings.Replace(policyWith(""), "shop", `"shop "`, 1), "space at an end"},
		{"product with a hidden character", strings.Replace(policyWith(""), "shop", "\"sh\\u200bop\"", 1), "control characters"},
		{"product too long", strings.Replace(policyWith(""), "shop", strings.Repeat("a", 129), 1), "longer than"},
		{"no publishers", "version: 1\nproduct: shop\n", "no publishers"},
		{"empty list of publishers", "version: 1\nproduct: shop\npublishers: []\n", "line 3: empty list"},
		{"publishers without value", "version: 1\nproduct: shop\npublishers:\n", "line 3: empty value"},
		{"publisher without name", "version: 1\nproduct: shop\npublishers:\n  - key: " + block(pemA) + "\n", "name: missing"},
		{"publisher without key", "version: 1\nproduct: shop\npublishers:\n  - name: A\n", "has no key"},
		{"publisher as text", "version: 1\nproduct: shop\npublishers: [A]\n", "want fields"},
		{"unknown field", policyWith("maximum: 3\n"), `unknown field "maximum"`},
		{"field of other letter case", policyWith("Builders: [\"https://example.org\"]\n"), `unknown field "Builders"`},
		{"unknown field of a publisher", policyWith("    identity: me\n"), `unknown field "identity"`},
		{"duplicate field", policyWith("product: shop\n"), `"product" stands twice`},
		{"duplicate field of a publisher", policyWith("    name: A\n"), `"name" stands twice`},
		{"second document", policyWith("---\nversion: 1\n"), "more than one YAML document"},
		{"second empty document", policyWith("---\n"), "more than one YAML document"},
		{"anchor", policyWith("builders: &x [\"https://example.org\"]\n"), "anchors and aliases"},
		{"alias", policyWith("builders: *x\n"), "unknown anchor"},
		{"merge key", policyWith("<<: {max_bytes: 3}\n"), "field's name must be plain text"},
		{"tag", policyWith("min_release: !!str 3\n"), "tags such as"},
		{"number in octal", policyWith("min_release: 010\n"), "plain decimal"},
		{"number in hex", policyWith("min_release: 0x10\n"), "plain decimal"},
		{"number with underscore", policyWith("min_release: 1_000\n"), "plain decimal"},
		{"number beyond 64 bits", policyWith("min_release: 99999999999999999999\n"), ""},
		{"fraction", policyWith("min_release: 1.5\n"), "read as !!float"},
		{"zero", policyWith("min_release: 0\n"), "want 1 or more"},
		{"negative", policyWith("max_bytes: -1\n"), "plain decimal"},
		{"empty value", policyWith("builders:\n"), "empty value"},
		{"empty list", policyWith("builders: []\n"), "empty list"},
		{"text for a list", policyWith("builders: all\n"), "want a list"},
		{"bare true", policyWith("builders: [true]\n"), "read as !!bool"},
		{"bounds without algorithms", policyWith("recipe: {max: {rounds: 3}}\n"), "algorithms: missing"},
		{"algorithm 0", policyWith("recipe: {algorithms: [0]}\n"), "want 1 or more"},
		{"bound of a member that has none", policyWith("recipe: {algorithms: [2], max: {Rounds: 3}}\n"), `"Rounds" is no member that can be bounded`},
		{"bound 0", policyWith("recipe: {algorithms: [2], max: {rounds: 0}}\n"), "rounds: 0, want 1 or more"},
		{"bound twice", policyWith("recipe: {algorithms: [2], max: {rounds: 3, rounds: 4}}\n"), `"rounds" stands twice`},
		{"bound as text", policyWith("recipe: {algorithms: [2], max: {rounds: \"3\"}}\n"), "want a number"},
		{"unknown field of a recipe", policyWith("recipe: {algorithms: [2], min: {rounds: 3}}\n"), `unknown field "min"`},
		{"digest of another hash", policyWith("datasets: {digests: [\"sha512:00\"]}\n"), "want sha256:"},
		{"digest in upper case", policyWith("datasets: {digests: [\"sha256:" + strings.Repeat("AB", 32) + "\"]}\n"), "64 lower-case"},
		{"builder that is no URI", policyWith("builders: [me]\n"), "want a URI"},
		{"one key under two names", policyWith("  - name: B\n" + key), `"A" and "B" have the same key`},
		{"two keys under one name", policyWith("  - name: A\n    key: " + block(pemB) + "\n"), `two publishers are named "A"`},
		{"key file in a policy without a folder", strings.Replace(policyWith(""), block(pemA), "a.pub", 1), "write a key inline"},
		{"compressed point", strings.Replace(policyWith(""), block(pemA), block(pemCompressed), 1), "not a usable public key"},
		{"P-384", strings.Replace(policyWith(""), block(pemA), block(pemP384), 1), "want ECDSA on P-256"},
		{"Ed25519", strings.Replace(policyWith(""), block(pemA), block(pemEd25519), 1), "want ECDSA on P-256"},
		{"two keys in one field", strings.Replace(policyWith(""), block(pemA), block(pemA+pemB), 1), "more text after"},
		{"private key", strings.Replace(policyWith(""), block(pemA), block("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"), 1), "this is a private key"},
		{"certificate", strings.Replace(policyWith(""), block(pemA), block("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"), 1), `PEM block "CERTIFICATE"`},
		{"too large", policyWith("# " + strings.Repeat("x", 64<<10) + "\n"), "limit 65536"},
		{"nested deeply", "a: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000), ""},
		{"not YAML", "version: 1\n\tproduct: shop\n", ""},
		{"invalid UTF-8", "version: 1\nproduct: \xff\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := ParsePolicy([]byte(c.text))
			if !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want ErrPolicy with %q", err, c.says)
			}
			if err != nil && (strings.Contains(err.Error(), "policyText") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("message is not for people: %q", err)
			}
			if _, err := New(p); err == nil {
				t.Error("what ParsePolicy returned beside its error makes a verifier")
			}
		})
	}
}

func TestPolicyKeyFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	load := func(key string) (Policy, error) {
		write("p/policy.yaml", strings.Replace(policyWith(""), block(pemA), key, 1))
		return LoadPolicy(filepath.Join(dir, "p", "policy.yaml"))
	}
	write("p/a.pub", pemA)
	write("p/keys/a.pub", pemA)
	write("p/large.pub", pemA+strings.Repeat("\n", maxKeyFile))
	write("outside.pub", pemA)
	for _, name := range []string{"a.pub", "keys/a.pub"} {
		p, err := load(name)
		if err != nil || p.Publishers[0].Key.PEM() != pemA {
			t.Errorf("%s: %v", name, err)
		}
	}
	for link, to := range map[string]string{"p/link.pub": "a.pub", "p/out.pub": "../outside.pub", "p/dir": "keys", "p/away": ".."} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Skip("no symbolic links here:", err)
		}
	}
	for name, says := range map[string]string{
		"link.pub": "symbolic link", "out.pub": "symbolic link", "keys": "folder", "../outside.pub": "in the policy's folder",
		"away/outside.pub": "key file", filepath.Join(dir, "p", "a.pub"): "in the policy's folder", "large.pub": "larger than", "missing.pub": `file "missing.pub", beside the policy: no such file`,
	} {
		if _, err := load(name); !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want ErrPolicy with %q", name, err, says)
		}
	}
	if _, err := LoadPolicy(filepath.Join(dir, "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing policy: %v", err)
	}
}

func TestInitPolicyTrustsWhatItWasGiven(t *testing.T) {
	a, err := ParseKey([]byte(pemA))
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseKey([]byte(pemB))
	if err != nil {
		t.Fatal(err)
	}
	for _, product := range []string{"", "shop", "yes", "12", "0x1f", "1e3"} {
		text, err := InitPolicy(Policy{Product: product, Publishers: []Identity{{Name: "A: #1 'x' \"y\" \\ ~", Key: a}, {Name: "null", Key: b}}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParsePolicy(text)
		if err != nil {
			t.Fatal(err)
		}
		if product == "" {
			product = DefaultProduct
		}
		if p.Product != product || p.Publishers[0].Name != "A: #1 'x' \"y\" \\ ~" || !p.Publishers[0].Key.Equal(a) || p.Publishers[1].Name != "null" || !p.Publishers[1].Key.Equal(b) {
			t.Errorf("read back as %+v", p)
		}
	}
	rebuilds := &ReproductionPolicy{Min: 1, Block: true, Rebuilders: []Rebuilder{
		{Operator: "x: #", Identities: []Identity{{Name: "B", Key: b}}, Where: []oras.Ref{{Repository: "example.org/audits"}, {Layout: "/srv/a:b"}}},
	}}
	text, err := InitPolicy(Policy{Product: "shop", Publishers: []Identity{{Name: "A", Key: a}}, Reproductions: rebuilds})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := ParsePolicy(text); err != nil || !reflect.DeepEqual(p.Reproductions, rebuilds) {
		t.Errorf("%v, read back as %+v", err, p.Reproductions)
	}
	if _, err := InitPolicy(Policy{Product: "No Such", Publishers: []Identity{{Name: "A", Key: a}}}); !errors.Is(err, ErrPolicy) || errors.Is(err, oras.ErrInvalid) {
		t.Errorf("a product that no release can have: %v", err)
	}
	for _, bad := range [][]Identity{nil, {{Name: "A"}}, {{Name: "", Key: a}}, {{Name: "A", Key: a}, {Name: "B", Key: a}}, {{Name: "A\n", Key: a}}} {
		if _, err := InitPolicy(Policy{Product: "shop", Publishers: bad}); !errors.Is(err, ErrPolicy) {
			t.Errorf("%v: error %v, want ErrPolicy", bad, err)
		}
	}
}

func TestDescribeSaysWhatIsLeftOpen(t *testing.T) {
	open, err := ParsePolicy([]byte(policyWith("")))
	if err != nil {
		t.Fatal(err)
	}
	set := canon.Sum([]byte("set")).String()
	closed, err := ParsePolicy([]byte(policyWith("builders: [\"https://example.org/b\"]\ndatasets: {digests: [\"" + set + "\"]}\nmin_release: 7\nmax_bytes: 9\n")))
	if err != nil {
		t.Fatal(err)
	}
	o, c := strings.Join(open.Describe(), "\n"), strings.Join(closed.Describe(), "\n")
	for _, want := range []string{`"shop"`, "A may sign", open.Publishers[0].Key.ID().String(), "any builder", "any dataset", "any release number", "no channel", "no independent rebuild"} {
		if !strings.Contains(o, want) {
			t.Errorf("open policy: %q is not in\n%s", want, o)
		}
	}
	for _, want := range []string{"https://example.org/b", set, "below 7", "larger than 9 bytes"} {
		if !strings.Contains(c, want) {
			t.Errorf("closed policy: %q is not in\n%s", want, c)
		}
	}
	if strings.Contains(c, "Accepts any builder") || strings.Contains(c, "Accepts any dataset") || strings.Contains(c, "Accepts any release") {
		t.Errorf("closed policy says it accepts anything:\n%s", c)
	}
}

func FuzzPolicy(f *testing.F) {
	files := map[string]string{"root.json": "{}", "a.pub": pemA, "b.pub": pemB}
	f.Add([]byte(policyWith("")))
	f.Add([]byte(policyWith("builders: [\"https://example.org/b\"]\nmin_release: 7\n")))
	f.Add([]byte("version: 1\na: &a [*a]\n"))
	f.Add([]byte("%YAML 1.2\n---\n? [a]\n: b\n"))
	f.Add([]byte("version: 1\nproduct: shop\ntrusted_root: root.json\ninsecure_ignore_sct: true\npublishers:\n" + certificateEntry("P", "      san_regexp: a.*|b\n    not_after: 2026-01-01T00:00:00Z\n") +
		"channel: {name: stable, epoch: 1, signers: [{name: C, key: a.pub}]}\nrevokers: [{name: R, key: b.pub}]\ndatasets: {publishers: [{name: D, key: b.pub}]}\n"))
	f.Add([]byte(policyWith("reproductions: {min: 1, on_failure: block, rebuilders: [{operator: X, identities: [{name: x, key: b.pub}], where: [\"oci://example.org/x\"]}]}\nmax_age: 1h\ntrusted_root: root.json\n")))
	f.Add([]byte(policyWith("tuf: {url: \"https://example.org\", root: root.json}\ntrainers: [{version: v1.0.0}]\nsource_repository: https://example.org/r\n")))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseWith(string(b), files)
		if err != nil {
			if !errors.Is(err, ErrPolicy) {
				t.Fatalf("error of another class: %v", err)
			}
			if _, err := New(p); err == nil {
				t.Fatal("a refused policy makes a verifier")
			}
			return
		}
		if p.Product == "" || len(p.Publishers) == 0 || p.MinRelease < 0 || p.MaxBytes < 0 || p.MaxAge < 0 || (p.MaxAge > 0 || p.windows()) && p.Timestamps < 1 ||
			p.certificates() && (p.Timestamps < 1 || p.TrustedRoot == nil && p.TUF == nil) || p.Channel != nil && (p.Channel.Epoch < 1 || len(p.Channel.Signers) == 0) ||
			p.Reproductions != nil && p.Reproductions.Min > len(p.Reproductions.Rebuilders) {
			t.Fatalf("accepted %+v", p)
		}
		p.Describe()
		p.Warnings()
		if p.TUF != nil {
			return // InitPolicy writes a file's name only
		}
		text, err := InitPolicy(p)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		q, err := parseWith(string(text), map[string]string{p.RootFile: string(p.TrustedRoot)})
		if err != nil || q.Product != p.Product || q.Timestamps != p.Timestamps || !slices.EqualFunc(q.roles(), p.roles(), func(a, b role) bool {
			return a.name == b.name && slices.EqualFunc(*a.ids, *b.ids, func(a, b Identity) bool {
				return a.String() == b.String() && a.NotBefore.Equal(b.NotBefore) && a.NotAfter.Equal(b.NotAfter)
			})
		}) {
			t.Fatalf("written and read back: %+v, %v", q, err)
		}
	})
}

// certificateEntry is an identity by certificate as a policy has it.
func certificateEntry(name, more string) string {
	return "  - name: " + name + "\n    certificate:\n      issuer: https://issuer.example.org\n" + more
}

func TestExpressionsMustAskForSomething(t *testing.T) {
	for expression, ok := range map[string]bool{
		`https://github\.com/o/.*`: true, "a+": true,
		"": false, ".*": false, "a*": false, "(a|)": false, "a?b?": false, "^$": false, "(?:a.*)?": false,
	} {
		p, err := parseWith("version: 1\nproduct: shop\ntrusted_root: root.json\ntimestamps: {authority: 1}\npublishers:\n"+
			certificateEntry("P", "      san_regexp: "+strconv.Quote(expression)+"\n"), map[string]string{"root.json": "{}"})
		switch {
		case ok && err != nil:
			t.Errorf("%q: %v", expression, err)
		case !ok && (!errors.Is(err, ErrPolicy) || expression != "" && !strings.Contains(err.Error(), "matches the empty name")):
			t.Errorf("%q: %v, %d publishers", expression, err, len(p.Publishers))
		}
	}
}

// Each warning, and the policy beside it that deserves none.
func TestWarningsAreForWhatGivesSomethingAway(t *testing.T) {
	key := func(name string) Identity { return newSigner(t, name).Identity }
	ci := func(name, repository string) Identity {
		return Identity{Name: name, Certificate: &CertificateIdentity{Issuer: ciIssuer, SAN: "https://github.com/" + repository + "/.github/workflows/rebuild.yml@refs/heads/main", SourceRepository: "https://github.com/" + repository}}
	}
	channel := func(p *Policy, signer, revoker string) {
		p.Channel = &ChannelPolicy{Name: "stable", Epoch: 1, Signers: []Identity{key(signer)}}
		if revoker != "" {
			p.Revokers = []Identity{key(revoker)}
		}
	}
	rebuilders := func(p *Policy, min int, ids ...Identity) {
		p.Reproductions = &ReproductionPolicy{Min: min}
		for _, id := range ids {
			p.Reproductions.Rebuilders = append(p.Reproductions.Rebuilders, Rebuilder{Operator: id.Name, Identities: []Identity{id}})
		}
	}
	for _, c := range []struct {
		name string
		says string // "" for no warning
		set  func(*Policy)
	}{
		{"one key for releases and datasets", "poisoned dataset", func(p *Policy) { p.Datasets.Publishers = []Identity{{Name: "data", Key: key("A").Key}} }},
		{"a key of its own for datasets", "", func(p *Policy) { p.Datasets.Publishers = []Identity{key("data")} }},
		{"one key for channel and revocations", "unload a release everywhere", func(p *Policy) { channel(p, "desk", "desk") }},
		{"two keys", "", func(p *Policy) { channel(p, "desk", "guard") }},
		{"no revokers", "stays loaded", func(p *Policy) { channel(p, "desk", "") }},
		{"two operators of one owner", "counts as two", func(p *Policy) { rebuilders(p, 2, ci("X", "university/a"), ci("Y", "University/b")) }},
		{"two operators", "", func(p *Policy) { rebuilders(p, 2, ci("X", "university/a"), ci("Y", "institute/b")) }},
		{"a workflow that any repository may call", "add source_repository", func(p *Policy) {
			p.Publishers = []Identity{ci("CI", "o/r")}
			p.Publishers[0].Certificate.SourceRepository = ""
		}},
		{"a workflow of one repository", "", func(p *Policy) { p.Publishers = []Identity{ci("CI", "o/r")} }},
		{"no rebuild is judged", "min is 0", func(p *Policy) { rebuilders(p, 0, key("X")) }},
		{"an expression", "known by an expression", func(p *Policy) {
			p.Publishers = []Identity{{Name: "CI", Certificate: &CertificateIdentity{Issuer: "https://issuer.example.org", SANRegexp: ".+@example\\.org"}}}
		}},
		{"certificates that nobody announced", "leaves no trace", func(p *Policy) { p.InsecureIgnoreSCT = true }},
		{"a TUF repository without TLS", "not https", func(p *Policy) { p.TUF = &TUF{URL: "http://tuf.example.org"} }},
		{"one with", "", func(p *Policy) { p.TUF = &TUF{URL: "https://tuf.example.org"} }},
	} {
		p := Policy{Product: "shop", Publishers: []Identity{key("A")}}
		c.set(&p)
		got := p.Warnings()
		if c.says == "" && len(got) > 0 || c.says != "" && (len(got) != 1 || !strings.Contains(got[0], c.says)) {
			t.Errorf("%s: warnings %q, want %q", c.name, got, c.says)
		}
	}
}

// parseWith is LoadPolicy with files out of a map.
func parseWith(text string, files map[string]string) (Policy, error) {
	return parsePolicy([]byte(text), func(name string, _ int64) ([]byte, error) {
		b, ok := files[name]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return []byte(b), nil
	})
}

func TestWholePolicyIsReadAsWritten(t *testing.T) {
	set := canon.Sum([]byte("set"))
	p, err := parseWith(`version: 1
product: shop
trusted_root: root.json
transparency_log: 2
insecure_ignore_sct: true
timestamps: {authority: 3}
publishers:
`+certificateEntry("P", `      san: https://github.com/o/r/.github/workflows/train.yml@refs/heads/main
      source_repository: https://github.com/o/r
      source_ref: refs/heads/main
      workflow: https://github.com/o/r/.github/workflows/train.yml@refs/heads/main
    not_before: 2026-01-01T00:00:00Z
    not_after: "2026-12-31T00:00:00Z"
`)+certificateEntry("Q", `      san_regexp: https://github\.com/o/.*
`)+`channel:
  name: stable
  epoch: 2
  signers:
    - name: C
      key: a.pub
revokers:
  - name: R
    key: b.pub
datasets:
  publishers:
    - name: D
      certificate: {issuer: https://issuer.example.org, san: d@example.org}
  digests:
    - `+set.String()+`
builders: ["https://example.org/b"]
source_repository: https://github.com/battle-hardened-ai/bhtrain
trainers:
  - version: v1.2.3
    h1: h1:abc=
  - commit: "0123456789012345678901234567890123456789"
reproductions:
  min: 1
  on_failure: block
  rebuilders:
    - operator: X
      identities:
        - {name: x, certificate: {issuer: https://issuer.example.org, san: x@example.org}}
      where: ["oci://registry.example.org/x/audits"]
    - operator: Y
      identities:
        - {name: y, certificate: {issuer: https://issuer.example.org, san: y@example.org}}
max_age: 720h
min_release: 7
max_bytes: 300000
`, map[string]string{"root.json": "{}", "a.pub": pemA, "b.pub": pemB})
	if err != nil {
		t.Fatal(err)
	}
	c := p.Publishers[0].Certificate
	r := p.Reproductions
	if p.RootFile != "root.json" || string(p.TrustedRoot) != "{}" || p.Timestamps != 3 || *p.TransparencyLog != 2 || !p.InsecureIgnoreSCT ||
		c.Issuer != "https://issuer.example.org" || c.SAN != "https://github.com/o/r/.github/workflows/train.yml@refs/heads/main" || c.SourceRepository != "https://github.com/o/r" ||
		c.SourceRef != "refs/heads/main" || c.Workflow != c.SAN || FormatTime(p.Publishers[0].NotBefore) != "2026-01-01T00:00:00Z" || FormatTime(p.Publishers[0].NotAfter) != "2026-12-31T00:00:00Z" ||
		p.Publishers[1].Certificate.SANRegexp != `https://github\.com/o/.*` ||
		p.Channel.Name != "stable" || p.Channel.Epoch != 2 || p.Channel.Signers[0].Key.PEM() != pemA || p.Revokers[0].Key.PEM() != pemB ||
		p.Datasets.Publishers[0].Certificate.SAN != "d@example.org" || p.Datasets.Digests[0] != set ||
		p.SourceRepository != "https://github.com/battle-hardened-ai/bhtrain" || p.Trainers[0] != (Trainer{Version: "v1.2.3", H1: "h1:abc="}) || len(p.Trainers[1].Commit) != 40 ||
		r.Min != 1 || !r.Block || len(r.Rebuilders) != 2 || r.Rebuilders[0].Operator != "X" || r.Rebuilders[0].Where[0].Repository != "registry.example.org/x/audits" ||
		p.MaxAge != 720*time.Hour {
		t.Errorf("read as %+v", p)
	}
}
