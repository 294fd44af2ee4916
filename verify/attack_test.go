package verify

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// The tests of this package that are named after an attack stand where their
// subject is: 03, 04 and 09 with the channel, 10, 29, 35 and 38 with signatures, 11 with
// rebuilds, 30 with TUF, and the others here.

// Attack 1: a registry serves its own model.
func TestAttack01_ArbitraryInstall(t *testing.T) {
	s, stranger := newSigner(t, "A"), newSigner(t, "Mallory")
	honest := testRelease(t, nil)
	evil, err := oras.Pack(honest.Release, func() []oras.File {
		files := slices.Clone(honest.Models)
		files[2].Data = append([]byte("back door "), files[2].Data...)
		return files
	}())
	if err != nil {
		t.Fatal(err)
	}
	prov := s.statement(t, statementFor(t, honest, nil))
	for name, bundles := range map[string][][]byte{
		"unsigned":                               nil,
		"signed by a stranger":                   {stranger.statement(t, statementFor(t, evil, nil))},
		"with the provenance of the honest one":  {prov},
		"with both":                              {prov, stranger.statement(t, statementFor(t, evil, nil))},
		"with a signature of the publisher over": {s.sign(t, []byte("hello"))},
	} {
		store, _ := testStore(t, evil)
		for i, b := range bundles {
			tag := ""
			if i == 0 {
				tag = oras.ProvenanceTag(evil.Digest)
			}
			attach(t, store, evil, b, tag)
		}
		v, a, err := testVerifier(t, nil, s).Release(t.Context(), store, evil.Digest, testNow, Options{})
		if err != nil || a != nil || v.Pass() {
			t.Errorf("%s: pass=%t, artifact %t, %v", name, v.Pass(), a != nil, err)
		}
	}
}

// Attack 2: an older release, whose signatures are all good. What was accepted
// before is remembered, and its revocations and bounds with it.
func TestAttack02_Rollback(t *testing.T) {
	c := newChannelTest(t, nil)
	old := testRelease(t, func(r *oras.Release) { r.Number = 5 })
	store, _ := testStore(t, old)
	attach(t, store, old, c.publisher.statement(t, statementFor(t, old, nil)), oras.ProvenanceTag(old.Digest))
	was := c.desk.channel(t, channelAt(5, func(ch *Channel) { ch.Manifest = old.Digest }))
	if _, err := oras.PutChannel(t.Context(), store, "stable", was); err != nil {
		t.Fatal(err)
	}
	judge := func(m Memory) *Verdict {
		t.Helper()
		v, _, err := c.v.Release(t.Context(), store, old.Digest, testNow, Options{Memory: m})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	first := judge(Memory{})
	wantFailed(t, first)
	next := c.v.JudgeChannel(c.desk.channel(t, channelAt(6, func(ch *Channel) { ch.Lowest = 6 })), testNow, first.Channel.Memory)
	wantChannel(t, next, first.Channel.Memory)
	wantFailed(t, judge(next.Memory), CheckChannel)
	// With the new channel, but the old release.
	v, a, err := c.v.Release(t.Context(), store, old.Digest, testNow, Options{Channel: next})
	if err != nil || a != nil {
		t.Fatal(a, err)
	}
	wantFailed(t, v, CheckCurrent, CheckLowest)
}

// Attack 5: the four models are mixed from two good releases.
func TestAttack05_MixAndMatch(t *testing.T) {
	s := newSigner(t, "A")
	x := testRelease(t, nil)
	y, err := oras.Pack(func() oras.Release { r := x.Release; r.Number = 13; return r }(), func() []oras.File {
		files := slices.Clone(x.Models)
		for i := range files {
			files[i].Data = append([]byte("new "), files[i].Data...)
		}
		return files
	}())
	if err != nil {
		t.Fatal(err)
	}
	bundles := [][]byte{s.statement(t, statementFor(t, x, nil)), s.statement(t, statementFor(t, y, nil))}
	v := testVerifier(t, nil, s)
	for mix := range 32 { // of the four models and release.json
		files := slices.Clone(x.Models)
		rel := x.Release
		for i := range files {
			if mix>>i&1 == 1 {
				files[i] = y.Models[i]
			}
		}
		if mix>>4 == 1 {
			rel = y.Release
		}
		a, err := oras.Pack(rel, files)
		if err != nil {
			t.Fatal(err)
		}
		store, _ := testStore(t, a)
		got, _, err := v.Release(t.Context(), store, a.Digest, testNow, given(bundles...))
		if err != nil {
			t.Fatal(err)
		}
		if want := mix == 0 || mix == 31; got.Pass() != want {
			t.Errorf("mix %05b: pass=%t", mix, got.Pass())
		}
	}
	// Two layers swapped in the manifest that was signed for is another manifest.
	store, _ := testStore(t, x)
	m := string(x.Manifest)
	d0, d1 := canon.Sum(x.Models[0].Data).String(), canon.Sum(x.Models[1].Data).String()
	m = strings.NewReplacer(d0, d1, d1, d0).Replace(m)
	_, ask := put(t, store, []byte(m))
	got, a, err := v.Release(t.Context(), store, ask, testNow, given(bundles...))
	if err != nil || a != nil || got.Pass() {
		t.Errorf("two models swapped: pass=%t, artifact %t, %v", got.Pass(), a != nil, err)
	}
}

// Attack 16: a document that is a manifest to one reader and an index to
// another.
func TestAttack16_TypeConfusion(t *testing.T) {
	s := newSigner(t, "A")
	rel := testRelease(t, nil)
	v := testVerifier(t, nil, s)
	both := bytes.Replace(rel.Manifest, []byte(`{"artifactType"`), []byte(`{"manifests":[],"artifactType"`), 1)
	if bytes.Equal(both, rel.Manifest) {
		t.Fatal("the manifest has another form than this test thinks")
	}
	for name, m := range map[string][]byte{
		"both":           both,
		"says index":     bytes.Replace(rel.Manifest, []byte(oras.TypeManifest), []byte(oras.TypeIndex), 1),
		"says no type":   bytes.Replace(rel.Manifest, []byte(`"mediaType":"`+oras.TypeManifest+`",`), nil, 1),
		"another member": bytes.Replace(rel.Manifest, []byte(`{"artifactType"`), []byte(`{"annotations":{"x":"y"},"artifactType"`), 1),
	} {
		store, dir := testStore(t, rel)
		d := canon.Sum(m) // as a registry would serve it that checks nothing
		if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", d.Hex()), m, 0o644); err != nil {
			t.Fatal(err)
		}
		// The publisher was made to sign even that.
		st := statementFor(t, rel, nil)
		st.Subject = []Resource{{Digest: Digests(d)}}
		got, a, err := v.Release(t.Context(), store, d, testNow, given(s.statement(t, st)))
		if err != nil || a != nil || got.Pass() {
			t.Errorf("%s: pass, artifact %t, %v", name, a != nil, err)
			continue
		}
		if f := got.Failures()[0].Name; f != CheckManifest && f != CheckFiles {
			t.Errorf("%s: refused for %s only", name, f)
		}
	}
}

// Attack 33: names with escape codes reach a terminal.
func TestAttack33_HostileWords(t *testing.T) {
	const evil = "\x1b[2J\x1b]0;owned\x07\u202etxt\r\nVERIFIED\x00"
	a := newAuthority(t)
	s := newSigner(t, "A")
	rel := testRelease(t, nil)
	c := newChannelTest(t, nil)
	v := testVerifier(t, func(p *Policy) {
		p.TrustedRoot, p.Timestamps, p.Publishers = a.root, 1, []Identity{workflow()}
		p.Builders = []string{"https://example.org/builder"}
	})
	clean := func(what string, v any, write func(*bytes.Buffer)) {
		t.Helper()
		var text bytes.Buffer
		write(&text)
		j, err := canon.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(text.String(), "\n") {
			if Printable(line) != line && len(line) <= maxText || strings.HasPrefix(line, "VERIFIED") {
				t.Errorf("%s: line %q", what, line)
			}
		}
		if strings.ContainsAny(text.String(), "\x1b\x07\r\x00\u202e") || bytes.ContainsAny(j, "\x1b\x07\u202e") || bytes.Contains(j, []byte(`\u001b`)) {
			t.Errorf("%s: escapes in %q", what, text.String())
		}
	}
	bundles := map[string][]byte{
		"certificate": a.attest(t, encode(t, statementFor(t, rel, nil)), claim{san: "x" + strings.ReplaceAll(evil, "\u202e", "") + "@example.org", issuer: evil, repo: "https://github.com/" + evil, ref: evil}, nil),
		"builder":     a.attest(t, encode(t, statementFor(t, rel, func(p *Provenance) { p.RunDetails.Builder.ID = evil })), claim{}, nil),
		"type":        a.attest(t, bytes.Replace(encode(t, statementFor(t, rel, nil)), []byte(PredicateProvenance), []byte(`\u001b[2J`), 1), claim{}, nil),
		"media type":  []byte(`{"mediaType":"\u001b[2J","x":1}`),
		"payload":     bundleText(oras.TypeBundle, keyMaterial, evil, []byte("{}"), s.signature(t, evil, []byte("{}"))),
	}
	for name, b := range bundles {
		got := v.Judge(rel, time.Now(), given(b))
		if got.Pass() {
			t.Errorf("%s: accepted", name)
		}
		clean(name, got, func(w *bytes.Buffer) { got.WriteText(w, false) })
	}
	// A reason that cannot be printed is no revocation.
	if _, err := NewRevocation(Revocation{Product: "shop", Release: 1, Manifest: rel.Digest, Reason: evil, Issued: FormatTime(testNow)}); err == nil {
		t.Error("a revocation with escapes is written")
	}
	ch := c.v.JudgeChannel(c.desk.statement(t, Statement{Type: evil, Subject: []Resource{{Digest: Digests(rel.Digest)}}, PredicateType: evil, Predicate: jsontext.Value(`{}`)}), testNow, Memory{})
	clean("channel", ch, func(w *bytes.Buffer) { ch.WriteText(w, false) })
}

// Attack 34: signed documents that two readers read in two ways.
func TestAttack34_AmbiguousDocuments(t *testing.T) {
	s := newSigner(t, "A")
	rel := testRelease(t, nil)
	v := testVerifier(t, nil, s)
	payload := encode(t, statementFor(t, rel, nil))
	c := newChannelTest(t, nil)
	channel := parse(c.desk.channel(t, channelAt(5, nil))).payload
	change := func(b []byte, old, new string) []byte {
		if !bytes.Contains(b, []byte(old)) {
			t.Fatalf("%s is not in %s", old, b)
		}
		return bytes.Replace(b, []byte(old), []byte(new), 1)
	}
	for name, f := range map[string]func(b []byte, number string) []byte{
		"name twice":               func(b []byte, n string) []byte { return change(b, n, `"release":99,`+n) },
		"name twice, escaped":      func(b []byte, n string) []byte { return change(b, n, `"rel\u0065ase":99,`+n) },
		"name in other case":       func(b []byte, n string) []byte { return change(b, n, `"Release":99,`+n) },
		"unknown name":             func(b []byte, n string) []byte { return change(b, n, `"allow":true,`+n) },
		"text after":               func(b []byte, _ string) []byte { return append(bytes.Clone(b), " {}"...) },
		"second document":          func(b []byte, _ string) []byte { return append(bytes.Clone(b), b...) },
		"comment":                  func(b []byte, n string) []byte { return change(b, n, "/* */"+n) },
		"invalid UTF-8":            func(b []byte, _ string) []byte { return change(b, `"shop"`, "\"sh\xffop\"") },
		"lone surrogate":           func(b []byte, _ string) []byte { return change(b, `"shop"`, `"sh\ud800op"`) },
		"number as a fraction":     func(b []byte, n string) []byte { return change(b, n, n+".5") },
		"number with an exponent":  func(b []byte, n string) []byte { return change(b, n, n+"e0") },
		"number that doubles lose": func(b []byte, _ string) []byte { return change(b, `"release":`, `"release":900719925474099`) },
		"byte order mark":          func(b []byte, _ string) []byte { return append([]byte("\ufeff"), b...) },
		"NaN":                      func(b []byte, n string) []byte { return change(b, n, `"release":NaN`) },
	} {
		if c.v.JudgeChannel(c.desk.sign(t, f(channel, `"release":5`)), testNow, Memory{}).Accepted() {
			t.Errorf("%s in a channel: accepted", name)
		}
		got := v.Judge(rel, testNow, given(s.sign(t, f(payload, `"release":12`))))
		// What is no JSON at all, the library refuses before.
		if got.Pass() || check(got, CheckType).Status != Fail && check(got, CheckSignature).Status != Fail {
			t.Errorf("%s in a provenance: pass=%t", name, got.Pass())
		}
	}
	if !v.Judge(rel, testNow, given(s.sign(t, payload))).Pass() || !c.v.JudgeChannel(c.desk.sign(t, channel), testNow, Memory{}).Accepted() {
		t.Error("the unchanged documents are refused")
	}
}

// Attack 36: a digest that names files without saying which is which. Only the
// digest of the OCI manifest names a release.
func TestAttack36_ConfusedIdentity(t *testing.T) {
	s := newSigner(t, "A")
	rel := testRelease(t, nil)
	v := testVerifier(t, nil, s)
	var all []byte
	subjects := []Resource{{Name: oras.ReleaseFile, Digest: Digests(canon.Sum(rel.ReleaseJSON))}}
	for _, f := range rel.Models {
		d := canon.Sum(f.Data)
		all = append(all, d[:]...)
		subjects = append(subjects, Resource{Name: f.Name, Digest: Digests(d)})
	}
	for name, list := range map[string][]Resource{
		"the files":                 subjects,
		"a root over their digests": {{Name: "shop", Digest: Digests(canon.Sum(all))}},
		"the name alone":            {{Name: rel.Digest.String(), Digest: Digests(canon.Sum(nil))}},
		"a digest without its hash": {{Name: "shop", Digest: map[string]string{"digest": rel.Digest.Hex()}}},
	} {
		st := statementFor(t, rel, nil)
		st.Subject = list
		t.Run(name, func(t *testing.T) { wantFailed(t, v.Judge(rel, testNow, given(s.statement(t, st))), CheckSubject) })
	}
}

// Attack 37: what is judged brings the rules along by which it is judged.
func TestAttack37_PolicyFromTheArtifact(t *testing.T) {
	s, mallory := newSigner(t, "A"), newSigner(t, "Mallory")
	rel := testRelease(t, nil)
	v := testVerifier(t, nil, s)
	text, err := InitPolicy(Policy{Product: "shop", Publishers: []Identity{mallory.Identity}})
	if err != nil {
		t.Fatal(err)
	}
	st := statementFor(t, rel, func(p *Provenance) {
		p.BuildDefinition.InternalParameters = jsontext.Value(`{"policy":{"publishers":["Mallory"]},"ignore_paths":["*"]}`)
		p.BuildDefinition.ResolvedDependencies = append(p.BuildDefinition.ResolvedDependencies, Resource{Name: "policy", Content: base64.StdEncoding.EncodeToString(text)})
	})
	id := s.Key.ID()
	hint := fmt.Sprintf(`{"publicKey":{"hint":%q}}`, base64.StdEncoding.EncodeToString(id[:]))
	payload := encode(t, st)
	forged := bundleText(oras.TypeBundle, hint, PayloadType, payload, mallory.signature(t, PayloadType, payload)) // names the key of A
	store, dir := testStore(t, rel)
	attach(t, store, rel, forged, oras.ProvenanceTag(rel.Digest))
	for _, name := range []string{"policy.yaml", "trusted_root.json", "signing.pub"} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, a, err := v.Release(t.Context(), store, rel.Digest, testNow, Options{})
	if err != nil || a != nil {
		t.Fatal(a, err)
	}
	wantFailed(t, got, CheckSignature)
	// The same words, signed by the one who may, change nothing about how they are judged.
	wantFailed(t, testVerifier(t, func(p *Policy) { p.MinRelease = 13 }, s).Judge(rel, testNow, given(s.statement(t, st))), CheckNotOlder)
}
