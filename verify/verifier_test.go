package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// signer makes bundles from the formats' specifications, not with the code
// that the pipeline signs with. Keys follow from their owner's name and
// signatures are deterministic, so that a fuzzer sees the same in each process.
type signer struct {
	priv *ecdsa.PrivateKey
	Identity
}

func newSigner(t testing.TB, name string) signer {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	priv, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey(&priv.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return signer{priv, Identity{Name: name, Key: key}}
}

func (s signer) signature(t testing.TB, payloadType string, payload []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload))
	sig, err := s.priv.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func bundleText(mediaType, material, payloadType string, payload []byte, sigs ...[]byte) []byte {
	var list []string
	for _, sig := range sigs {
		list = append(list, `{"sig":"`+base64.StdEncoding.EncodeToString(sig)+`"}`)
	}
	return fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":%s,"dsseEnvelope":{"payload":%q,"payloadType":%q,"signatures":[%s]}}`,
		mediaType, material, base64.StdEncoding.EncodeToString(payload), payloadType, strings.Join(list, ","))
}

// testNow is the time of judgements that no time plays a part in.
var testNow = time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)

func given(bundles ...[]byte) Options { return Options{Bundles: bundles} }

const keyMaterial = `{"publicKey":{"hint":"any"}}`

func (s signer) sign(t testing.TB, payload []byte) []byte {
	return bundleText(oras.TypeBundle, keyMaterial, PayloadType, payload, s.signature(t, PayloadType, payload))
}

func (s signer) statement(t testing.TB, st Statement) []byte {
	t.Helper()
	payload, err := canon.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	return s.sign(t, payload)
}

func testRelease(t testing.TB, change func(*oras.Release)) *oras.Artifact {
	t.Helper()
	rel := oras.Release{
		Product:  "shop",
		Number:   12,
		Dataset:  canon.Sum([]byte("snapshot")),
		Recipe:   jsontext.Value(`{"algorithm":1,"seed":7}`),
		Features: jsontext.Value(`{}`),
		Scoring:  jsontext.Value(`{}`),
		Metrics:  jsontext.Value(`{}`),
	}
	if change != nil {
		change(&rel)
	}
	var models []oras.File
	for _, name := range oras.ModelFiles {
		models = append(models, oras.File{Name: name, Data: []byte("bytes of " + name)})
	}
	a, err := oras.Pack(rel, models)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func testProvenance(a *oras.Artifact) Provenance {
	return Provenance{
		BuildDefinition: BuildDefinition{
			BuildType:          BuildTypeTrain,
			ExternalParameters: Parameters{Product: a.Release.Product, Release: a.Release.Number, Recipe: a.Release.Recipe},
			ResolvedDependencies: []Resource{
				{Name: DependencyDataset, Digest: Digests(a.Release.Dataset)},
				{Name: DependencyArtifact, Digest: Digests(canon.Sum([]byte("dataset manifest")))},
				{Name: DependencyInput + "a.csv", Digest: Digests(canon.Sum([]byte("a"))), Annotations: map[string]any{"size": 1}},
				{Name: DependencyInput + "a.csv", Digest: Digests(canon.Sum([]byte("b"))), Annotations: map[string]any{"size": 1}},
				{Name: DependencySource, URI: "git+https://example.org/x", Digest: map[string]string{"gitCommit": strings.Repeat("ab", 20)}},
				{Name: DependencyGo, Annotations: map[string]any{"version": "go1.26.8"}},
			},
		},
		RunDetails: RunDetails{Builder: Builder{ID: "https://example.org/builder"}, Metadata: Metadata{StartedOn: "2026-01-15T00:00:00Z"}},
	}
}

func statementFor(t testing.TB, a *oras.Artifact, change func(*Provenance)) Statement {
	t.Helper()
	p := testProvenance(a)
	if change != nil {
		change(&p)
	}
	b, err := canon.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return Statement{Type: StatementV1, Subject: []Resource{{Name: "shop", Digest: Digests(a.Digest)}}, PredicateType: PredicateProvenance, Predicate: b}
}

func testVerifier(t testing.TB, change func(*Policy), publishers ...signer) *Verifier {
	t.Helper()
	p := Policy{Product: "shop"}
	for _, s := range publishers {
		p.Publishers = append(p.Publishers, s.Identity)
	}
	if change != nil {
		change(&p)
	}
	v, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// wantFailed checks that the verdict refuses for exactly the named checks.
func wantFailed(t *testing.T, v *Verdict, names ...string) {
	t.Helper()
	var got []string
	for _, c := range v.Failures() {
		got = append(got, c.Name)
	}
	if v.Pass() != (len(names) == 0) || v.Verified != v.Pass() || !slices.Equal(got, names) {
		var text bytes.Buffer
		v.WriteText(&text, false)
		t.Errorf("pass=%t, failed %v, want %v\n%s", v.Pass(), got, names, &text)
	}
}

func check(v *Verdict, name string) Check {
	i := slices.IndexFunc(v.Checks, func(c Check) bool { return c.Name == name })
	return v.Checks[i]
}

func TestReleaseOfATrustedPublisherPasses(t *testing.T) {
	s, other := newSigner(t, "A"), newSigner(t, "B")
	a := testRelease(t, nil)
	b := s.statement(t, statementFor(t, a, nil))
	for _, order := range [][]signer{{s}, {s, other}, {other, s}} {
		v := testVerifier(t, nil, order...).Judge(a, testNow, given(b))
		wantFailed(t, v)
		if v.Publisher != "A" || v.Number != 12 || v.Product != "shop" || v.Dataset != a.Release.Dataset || v.Release != a.Digest || v.Bundle != canon.Sum(b) || v.Bundles != 1 {
			t.Errorf("verdict says %+v", v)
		}
		for _, name := range []string{CheckSize, CheckBuilder, CheckBounds, CheckAllowed, CheckNotOlder, CheckFreshness, CheckReproduced} {
			if c := check(v, name); c.Status != Skip || c.Reason == "" {
				t.Errorf("%s is %+v, want a skip with its reason", name, c)
			}
		}
	}
	full := testVerifier(t, func(p *Policy) {
		p.Builders = []string{"https://example.org/other", "https://example.org/builder"}
		p.Datasets.Digests = []canon.Digest{canon.Sum(nil), a.Release.Dataset}
		p.MinRelease = 12
		p.MaxBytes = sizeOf(a)
	}, s).Judge(a, testNow, given(b))
	wantFailed(t, full)
	for _, name := range []string{CheckSize, CheckBuilder, CheckAllowed, CheckNotOlder} {
		if c := check(full, name); c.Status != Pass {
			t.Errorf("%s is %+v, want a pass", name, c)
		}
	}
}

func TestStatementOfTheOlderTypeIsAccepted(t *testing.T) {
	s := newSigner(t, "A")
	a := testRelease(t, nil)
	st := statementFor(t, a, nil)
	st.Type = StatementV01
	wantFailed(t, testVerifier(t, nil, s).Judge(a, testNow, given(s.statement(t, st))))
}

// A good signature over the same text as something else than a statement says
// nothing about releases.
func TestPayloadOfAnotherTypeIsNoStatement(t *testing.T) {
	a := newSigner(t, "A")
	rel := testRelease(t, nil)
	payload := encode(t, statementFor(t, rel, nil))
	v := testVerifier(t, nil, a)
	for payloadType, failed := range map[string][]string{
		PayloadType:                    nil,
		"application/vnd.example+json": {CheckSignature}, "application/vnd.in-toto+JSON": {CheckSignature}, "": {CheckSignature},
	} {
		raw := bundleText(oras.TypeBundle, keyMaterial, payloadType, payload, a.signature(t, payloadType, payload))
		got := v.Judge(rel, testNow, given(raw))
		wantFailed(t, got, failed...)
		if failed != nil && !strings.Contains(check(got, CheckSignature).Reason, fmt.Sprintf("payload type %q, want %s", payloadType, PayloadType)) {
			t.Errorf("%q: %+v", payloadType, check(got, CheckSignature))
		}
	}
}

func TestEachDemandRefusesByItsOwnName(t *testing.T) {
	s, stranger := newSigner(t, "A"), newSigner(t, "Mallory")
	a := testRelease(t, nil)
	good := statementFor(t, a, nil)
	other := testRelease(t, func(r *oras.Release) { r.Number = 13 })
	prov := func(change func(*Provenance)) []byte { return s.statement(t, statementFor(t, a, change)) }
	edit := func(change func(*Statement)) []byte {
		st := good
		change(&st)
		return s.statement(t, st)
	}
	payload, err := canon.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	raw := func(old, new string) []byte {
		if !bytes.Contains(payload, []byte(old)) {
			t.Fatalf("%s is not in the statement", old)
		}
		return s.sign(t, bytes.Replace(payload, []byte(old), []byte(new), 1))
	}
	sig := s.signature(t, PayloadType, payload)
	flipped := bytes.Clone(sig)
	flipped[len(flipped)-1] ^= 1
	for _, c := range []struct {
		name   string
		policy func(*Policy)
		bundle []byte
		failed []string
	}{
		{name: "no bundle", failed: []string{CheckSignature}},
		{"unknown key", nil, stranger.statement(t, good), []string{CheckSignature}},
		{"other product in the policy", func(p *Policy) { p.Product = "bank" }, prov(nil), []string{CheckProduct}},
		{"product that is longer", func(p *Policy) { p.Product = "shopp" }, prov(nil), []string{CheckProduct}},
		{"statement of another release", nil, s.statement(t, statementFor(t, other, nil)), []string{CheckSubject, CheckNumber}},
		{"subject of another release only", nil, edit(func(st *Statement) { st.Subject = []Resource{{Digest: Digests(other.Digest)}} }), []string{CheckSubject}},
		{"subject by another hash", nil, edit(func(st *Statement) { st.Subject = []Resource{{Digest: map[string]string{"sha512": a.Digest.Hex()}}} }), []string{CheckSubject}},
		{"subject in upper case", nil, edit(func(st *Statement) {
			st.Subject = []Resource{{Digest: map[string]string{"sha256": strings.ToUpper(a.Digest.Hex())}}}
		}), []string{CheckSubject}},
		{"other predicate type", nil, edit(func(st *Statement) { st.PredicateType = "https://sigstore.dev/cosign/sign/v1" }), []string{CheckType}},
		{"older provenance type", nil, edit(func(st *Statement) { st.PredicateType = "https://slsa.dev/provenance/v0.2" }), []string{CheckType}},
		{"other statement type", nil, edit(func(st *Statement) { st.Type = "https://in-toto.io/Statement/v2" }), []string{CheckType}},
		{"other build type", nil, prov(func(p *Provenance) { p.BuildDefinition.BuildType = "https://example.org/build" }), []string{CheckType}},
		{"unknown external parameter", nil, raw(`"release":12`, `"quick":true,"release":12`), []string{CheckType}},
		{"unknown member of the statement", nil, raw(`"_type"`, `"x":1,"_type"`), []string{CheckType}},
		{"duplicate member", nil, raw(`"predicateType"`, `"predicateType":"x","predicateType"`), []string{CheckType}},
		{"no dataset in the provenance", nil, prov(func(p *Provenance) {
			p.BuildDefinition.ResolvedDependencies = p.BuildDefinition.ResolvedDependencies[1:]
		}), []string{CheckType}},
		{"two datasets in the provenance", nil, prov(func(p *Provenance) {
			d := &p.BuildDefinition.ResolvedDependencies
			*d = append(*d, Resource{Name: DependencyDataset, Digest: Digests(canon.Sum(nil))})
		}), []string{CheckType}},
		{"no builder", nil, prov(func(p *Provenance) { p.RunDetails.Builder.ID = "" }), []string{CheckType}},
		{"provenance of another product", nil, prov(func(p *Provenance) { p.BuildDefinition.ExternalParameters.Product = "bank" }), []string{CheckSaid}},
		{"provenance of another number", nil, prov(func(p *Provenance) { p.BuildDefinition.ExternalParameters.Release = 11 }), []string{CheckNumber}},
		{"provenance of another recipe", nil, prov(func(p *Provenance) {
			p.BuildDefinition.ExternalParameters.Recipe = jsontext.Value(`{"algorithm":1,"seed":8}`)
		}), []string{CheckRecipe}},
		{"provenance of another dataset", nil, prov(func(p *Provenance) {
			p.BuildDefinition.ResolvedDependencies[0].Digest = Digests(canon.Sum([]byte("other")))
		}), []string{CheckDataset}},
		{"builder that the policy does not name", func(p *Policy) { p.Builders = []string{"https://example.org/builder/"} }, prov(nil), []string{CheckBuilder}},
		{"dataset that the policy does not name", func(p *Policy) { p.Datasets.Digests = []canon.Digest{canon.Sum(nil)} }, prov(nil), []string{CheckAllowed}},
		{"release number below the policy's", func(p *Policy) { p.MinRelease = 13 }, prov(nil), []string{CheckNotOlder}},
		{"larger than the policy's bound", func(p *Policy) { p.MaxBytes = sizeOf(a) - 1 }, prov(nil), []string{CheckSize}},
		{"changed signature", nil, bundleText(oras.TypeBundle, keyMaterial, PayloadType, payload, flipped), []string{CheckSignature}},
		{"changed payload", nil, bundleText(oras.TypeBundle, keyMaterial, PayloadType, bytes.Replace(payload, []byte("12"), []byte("13"), 1), sig), []string{CheckSignature}},
		{"no signature", nil, bundleText(oras.TypeBundle, keyMaterial, PayloadType, payload), []string{CheckSignature}},
		{"two signatures", nil, bundleText(oras.TypeBundle, keyMaterial, PayloadType, payload, sig, sig), []string{CheckSignature}},
		{"payload signed as another type", nil, bundleText(oras.TypeBundle, keyMaterial, "text/plain", payload, s.signature(t, "text/plain", payload)), []string{CheckSignature}},
		{"older bundle format", nil, bundleText("application/vnd.dev.sigstore.bundle+json;version=0.2", keyMaterial, PayloadType, payload, sig), []string{CheckSignature}},
		{"bundle with a certificate", nil, bundleText(oras.TypeBundle, `{"certificate":{"rawBytes":"AAAA"}}`, PayloadType, payload, sig), []string{CheckSignature}},
		{"bundle without key or certificate", nil, bundleText(oras.TypeBundle, `{}`, PayloadType, payload, sig), []string{CheckSignature}},
		{"message signature", nil, fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":%s,"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":%q},"signature":%q}}`,
			oras.TypeBundle, keyMaterial, base64.StdEncoding.EncodeToString(a.Digest[:]), base64.StdEncoding.EncodeToString(sig)), []string{CheckSignature}},
		{"no bundle but text", nil, []byte("hello"), []string{CheckSignature}},
		{"empty bundle", nil, []byte{}, []string{CheckSignature}},
		{"statement over its bound", nil, s.sign(t, append(bytes.Clone(payload), bytes.Repeat([]byte(" "), maxStatement)...)), []string{CheckSignature}},
		{"bundle over its bound", nil, append(prov(nil), bytes.Repeat([]byte(" "), oras.MaxBundle)...), []string{CheckSignature}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var bundles [][]byte
			if c.bundle != nil {
				bundles = append(bundles, c.bundle)
			}
			v := testVerifier(t, c.policy, s).Judge(a, testNow, given(bundles...))
			wantFailed(t, v, c.failed...)
			for _, f := range v.Failures() {
				if f.Reason == "" {
					t.Errorf("%s fails without a reason", f.Name)
				}
			}
			if f := v.Failures()[0].Name; f == CheckSignature && v.Publisher != "" {
				t.Errorf("names publisher %q without a signature", v.Publisher)
			}
		})
	}
}

func TestSignatureWithTheOtherHalfOfTheCurveOrderStillBindsThePayload(t *testing.T) {
	// (r, n-s) verifies as (r, s) does: such a bundle has another digest and
	// the same meaning, and must not be taken for a second opinion.
	s := newSigner(t, "A")
	a := testRelease(t, nil)
	payload, err := canon.Marshal(statementFor(t, a, nil))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(PayloadType), PayloadType, len(payload), payload))
	x, y, err := ecdsa.Sign(rand.Reader, s.priv, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	der := func(r, s *big.Int) []byte {
		int := func(n *big.Int) []byte {
			b := n.Bytes()
			if b[0] >= 0x80 {
				b = append([]byte{0}, b...)
			}
			return append([]byte{2, byte(len(b))}, b...)
		}
		body := append(int(r), int(s)...)
		return append([]byte{0x30, byte(len(body))}, body...)
	}
	v := testVerifier(t, nil, s)
	for _, y := range []*big.Int{y, new(big.Int).Sub(elliptic.P256().Params().N, y)} {
		got := v.Judge(a, testNow, given(bundleText(oras.TypeBundle, keyMaterial, PayloadType, payload, der(x, y))))
		wantFailed(t, got)
	}
}

func TestGarbageNeverChangesTheVerdict(t *testing.T) {
	s, stranger := newSigner(t, "A"), newSigner(t, "Mallory")
	a := testRelease(t, nil)
	good := s.statement(t, statementFor(t, a, nil))
	other := testRelease(t, func(r *oras.Release) { r.Number = 13 })
	junk := [][]byte{
		[]byte("{"), nil, bytes.Repeat([]byte("["), 5000), stranger.statement(t, statementFor(t, a, nil)),
		s.statement(t, statementFor(t, other, nil)), good[:len(good)-1], bytes.Repeat([]byte("x"), oras.MaxBundle+1),
	}
	verifier := testVerifier(t, nil, s)
	for i := range len(junk) + 1 {
		v := verifier.Judge(a, testNow, given(slices.Insert(slices.Clone(junk), i, good)...))
		wantFailed(t, v)
		if v.Bundle != canon.Sum(good) {
			t.Errorf("good bundle at %d: verdict rests on another", i)
		}
	}
	var first *Verdict
	for i := range junk {
		v := verifier.Judge(a, testNow, given(slices.Concat(junk[i:], junk[:i])...))
		wantFailed(t, v, CheckSubject, CheckNumber)
		if first == nil {
			first = v
		}
		if got, want := mustEncode(t, v), mustEncode(t, first); !bytes.Equal(got, want) {
			t.Errorf("another order of the same bundles, another verdict:\n%s\n%s", got, want)
		}
	}
}

func mustEncode(t *testing.T, v *Verdict) []byte {
	t.Helper()
	b, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDemandsAreNotMetBySeveralBundlesTogether(t *testing.T) {
	s, stranger := newSigner(t, "A"), newSigner(t, "Mallory")
	a := testRelease(t, nil)
	wrongBuilder := s.statement(t, statementFor(t, a, nil))
	wrongKey := stranger.statement(t, statementFor(t, a, func(p *Provenance) { p.RunDetails.Builder.ID = "https://example.org/good" }))
	wrongSet := s.statement(t, statementFor(t, a, func(p *Provenance) {
		p.RunDetails.Builder.ID = "https://example.org/good"
		p.BuildDefinition.ResolvedDependencies[0].Digest = Digests(canon.Sum([]byte("other")))
	}))
	v := testVerifier(t, func(p *Policy) { p.Builders = []string{"https://example.org/good"} }, s).Judge(a, testNow, given(wrongBuilder, wrongKey, wrongSet))
	if v.Pass() {
		t.Error("three bundles that each fail a demand passed together")
	}
}

func TestAnyFlippedByteOfABundleIsRefusedOrMeansTheSame(t *testing.T) {
	s := newSigner(t, "A")
	a := testRelease(t, nil)
	good := s.statement(t, statementFor(t, a, nil))
	verifier := testVerifier(t, nil, s)
	want := parse(good).payload
	passed := 0
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if !verifier.Judge(a, testNow, given(bad)).Pass() {
			continue
		}
		// The unsigned hint, and bits that base64 leaves unused at its end.
		passed++
		if got := parse(bad); got.err != nil || !bytes.Equal(got.payload, want) {
			t.Errorf("byte %d of %q flipped: passes with another payload", i, good[max(0, i-10):i+1])
		}
	}
	if passed > len("any")+2 {
		t.Errorf("%d of %d flipped bytes pass", passed, len(good))
	}
}

func TestOneVerifierServesManyGoroutines(t *testing.T) {
	s := newSigner(t, "A")
	a := testRelease(t, nil)
	b := s.statement(t, statementFor(t, a, nil))
	v := testVerifier(t, nil, s)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if !v.Judge(a, testNow, given([]byte("{"), b)).Pass() || v.Judge(a, testNow, Options{}).Pass() {
				t.Error("another verdict beside others")
			}
		})
	}
	wg.Wait()
}

func TestPolicyThatTrustsNobodyMakesNoVerifier(t *testing.T) {
	s := newSigner(t, "A")
	for name, p := range map[string]Policy{
		"zero":             {},
		"no publisher":     {Product: "shop"},
		"no product":       {Publishers: []Identity{s.Identity}},
		"publisher no key": {Product: "shop", Publishers: []Identity{{Name: "A"}}},
	} {
		if _, err := New(p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTextFromTheRegistryIsMadePrintable(t *testing.T) {
	s := newSigner(t, "A")
	a := testRelease(t, nil)
	evil := "https://example.org/\x1b[2J\r\n\u202egood\u009b" + strings.Repeat("x", 5000)
	v := testVerifier(t, func(p *Policy) { p.Builders = []string{"https://example.org/good"} }, s).
		Judge(a, testNow, given(s.statement(t, statementFor(t, a, func(p *Provenance) { p.RunDetails.Builder.ID = evil }))))
	wantFailed(t, v, CheckBuilder)
	got := check(v, CheckBuilder).Observed
	if strings.ContainsAny(got, "\x1b\r\n\u202e\u009b") || len(got) > 450 || !strings.HasPrefix(got, "https://example.org/[2J") {
		t.Errorf("observed %q", got)
	}
	bad := s.statement(t, Statement{Type: StatementV1, Subject: []Resource{{Digest: Digests(a.Digest)}}, PredicateType: "x\x1b[31m", Predicate: jsontext.Value("{}")})
	for _, c := range testVerifier(t, nil, s).Judge(a, testNow, given(bad)).Checks {
		if strings.ContainsRune(c.Observed+c.Expected+c.Reason, '\x1b') {
			t.Errorf("%s carries an escape: %q", c.Name, c.Observed+c.Expected+c.Reason)
		}
	}
}

func FuzzBundle(f *testing.F) {
	s := newSigner(f, "A")
	a := testRelease(f, nil)
	payload, err := canon.Marshal(statementFor(f, a, nil))
	if err != nil {
		f.Fatal(err)
	}
	verifier := testVerifier(f, nil, s)
	f.Add(s.sign(f, payload))
	f.Add(bundleText(oras.TypeBundle, `{"certificate":{"rawBytes":"AAAA"}}`, PayloadType, payload, nil))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":""},"tlogEntries":[{"logIndex":"1","kindVersion":{"kind":"dsse","version":"0.0.1"},"canonicalizedBody":"e30="}],"timestampVerificationData":{"rfc3161Timestamps":[{"signedTimestamp":"AAAA"}]}},"dsseEnvelope":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v := verifier.Judge(a, testNow, given(b))
		if !v.Pass() {
			return
		}
		// Only a bundle around the very payload that was signed can pass.
		if got := parse(b); got.err != nil || !bytes.Equal(got.payload, payload) || v.Publisher != "A" {
			t.Fatalf("passes with payload %q, %v", got.payload, got.err)
		}
	})
}

func FuzzStatement(f *testing.F) {
	a := testRelease(f, nil)
	for _, change := range []func(*Provenance){nil, func(p *Provenance) { p.RunDetails.Builder.Version = map[string]string{"x": "1"} }} {
		payload, err := canon.Marshal(statementFor(f, a, change))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	names, err := filepath.Glob("testdata/vectors/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeStatement(b)
		if err != nil {
			return
		}
		if len(s.Subject) == 0 || len(s.Subject) > maxSubjects || len(b) > maxChannelStatement || len(b) > maxStatement && s.PredicateType != PredicateChannel {
			t.Fatalf("accepted out of bounds: %+v", s)
		}
		if s.predicate() != nil {
			return
		}
		if s.PredicateType != PredicateProvenance {
			fuzzPredicate(t, s)
			return
		}
		p, err := s.Provenance()
		if err != nil {
			t.Fatal(err)
		}
		q := p.BuildDefinition.ExternalParameters
		if q.Product == "" || q.Release < 1 || p.Dependency(DependencyDataset).SHA256().IsZero() || p.RunDetails.Builder.ID == "" {
			t.Fatalf("accepted without what it must say: %+v", p)
		}
		if c, err := canon.Canonicalize(q.Recipe); err != nil || !bytes.Equal(c, q.Recipe) {
			t.Fatalf("recipe is not in canonical form: %s", q.Recipe)
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	s := newSigner(b, "A")
	a := testRelease(b, nil)
	bundle := s.statement(b, statementFor(b, a, nil))
	v := testVerifier(b, nil, s)
	b.ReportAllocs()
	for b.Loop() {
		if !v.Judge(a, testNow, given(bundle)).Pass() {
			b.Fatal("refused")
		}
	}
}

func TestDamagedStatementIsNotCalledMissing(t *testing.T) {
	s := newSigner(t, "A")
	a := testRelease(t, nil)
	v := testVerifier(t, nil, s)
	lost := &oras.BundleList{Complete: true, Damaged: []string{"sha256:ab: digest mismatch"}, Skipped: []string{"sha256:ab: digest mismatch", "sha256:cd: a card"}}
	found := func(list *oras.BundleList, bundles ...[]byte) *Verdict {
		c := &evidence{artifact: a, now: testNow, complete: list.Complete, damaged: list.Damaged, other: len(list.Skipped) - len(list.Damaged)}
		c.add("", bundles...)
		return v.judge(c)
	}
	r := found(lost)
	wantFailed(t, r, CheckSignature)
	if c := check(r, CheckSignature); !strings.Contains(c.Reason, "is in the store, but damaged; get the release from another copy: sha256:ab: digest mismatch") || strings.Contains(c.Reason, "unsigned") {
		t.Errorf("damaged: %+v", c)
	}
	if c := check(r, CheckBundles); c.Observed != "0 looked at; 1 damaged; 1 other referrers left aside" {
		t.Errorf("damaged: %+v", c)
	}
	// One that is whole beside it is enough, and without any there is none.
	wantFailed(t, found(lost, s.statement(t, statementFor(t, a, nil))))
	r = found(&oras.BundleList{Complete: true, Skipped: []string{"sha256:cd: a card"}})
	if c := check(r, CheckSignature); !strings.Contains(c.Reason, "unsigned") {
		t.Errorf("none: %+v", c)
	}
}

// fuzzPredicate checks that an accepted statement of our own says the same when
// it is written again, by its constructor.
func fuzzPredicate(t *testing.T, s Statement) {
	t.Helper()
	var again Statement
	var err error
	switch s.PredicateType {
	case PredicateDataset:
		p, _ := s.DatasetClaim()
		again, err = NewDatasetClaim(s.Subject[1].Name, s.Subject[1].SHA256(), *p)
	case PredicateChannel:
		p, _ := s.Channel()
		if p.Lowest < 1 || p.Lowest > p.Release || p.Epoch < 1 || p.Sequence < 1 {
			t.Fatalf("accepted %+v", p)
		}
		again, err = NewChannel(*p)
	case PredicateRevocation:
		p, _ := s.Revocation()
		again, err = NewRevocation(*p)
	case PredicateReproduction:
		p, _ := s.Reproduction()
		again, err = NewReproduction(*p)
	}
	if err != nil {
		t.Fatalf("what was read cannot be written: %v", err)
	}
	have, err := canon.Canonicalize(s.Predicate)
	if err != nil || !bytes.Equal(have, again.Predicate) {
		t.Fatalf("read %s, written %s: %v", have, again.Predicate, err)
	}
}
