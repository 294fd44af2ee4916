package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	ct "github.com/google/certificate-transparency-go"
	cttls "github.com/google/certificate-transparency-go/tls"
	"github.com/google/certificate-transparency-go/x509util"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// authority is a Sigstore instance in memory whose certificates say what a CI
// system's do and are announced to a certificate transparency log; timestamp
// authority and log are those of sigstore-go's tests.
type authority struct {
	virtual
	parent *x509.Certificate
	key    *ecdsa.PrivateKey
	ct     *ecdsa.PrivateKey
	noCT   []byte // trusted_root.json without the certificate transparency log
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	a := authority{virtual: newVirtual(t)}
	top, topKey, err := ca.GenerateRootCa()
	if err != nil {
		t.Fatal(err)
	}
	if a.parent, a.key, err = ca.GenerateFulcioIntermediate(top, topKey); err != nil {
		t.Fatal(err)
	}
	if a.ct, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	rekor := a.RekorLogs()
	for id, log := range rekor {
		if log.ID, err = hex.DecodeString(id); err != nil {
			t.Fatal(err)
		}
	}
	id := a.ctID(t)
	logs := map[string]*root.TransparencyLog{hex.EncodeToString(id[:]): {
		BaseURL: "https://ct.localhost", ID: id[:], ValidityPeriodStart: time.Now().Add(-time.Hour), ValidityPeriodEnd: time.Now().Add(time.Hour),
		HashFunc: crypto.SHA256, PublicKey: a.ct.Public(), SignatureHashFunc: crypto.SHA256,
	}}
	authorities := append(a.FulcioCertificateAuthorities(), &root.FulcioCertificateAuthority{
		Root: top, Intermediates: []*x509.Certificate{a.parent}, URI: "https://fulcio.localhost",
		ValidityPeriodStart: time.Now().Add(-5 * time.Hour), ValidityPeriodEnd: time.Now().Add(time.Hour),
	})
	text := func(ct map[string]*root.TransparencyLog) []byte {
		r, err := root.NewTrustedRoot(root.TrustedRootMediaType01, authorities, ct, a.TimestampingAuthorities(), rekor)
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a.root, a.noCT = text(logs), text(nil)
	return a
}

func (a authority) ctID(t testing.TB) [32]byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(a.ct.Public())
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(der)
}

const (
	ciIssuer   = "https://token.actions.githubusercontent.com"
	ciRepo     = "https://github.com/o/r"
	ciRef      = "refs/heads/main"
	ciWorkflow = "https://github.com/o/r/.github/workflows/train.yml@refs/heads/main"
)

// claim is what a certificate says; the zero values of the first five are
// those of the trusted workflow.
type claim struct {
	san, issuer, repo, ref, workflow string
	from, to                         time.Time
	curve                            elliptic.Curve
	unlogged                         bool // without a signed certificate timestamp
	foreign                          bool // announced to a log that nobody knows
}

func (a authority) certificate(t testing.TB, c claim) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	or := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	or(&c.san, ciWorkflow)
	or(&c.issuer, ciIssuer)
	or(&c.repo, ciRepo)
	or(&c.ref, ciRef)
	or(&c.workflow, ciWorkflow)
	if c.curve == nil {
		c.curve = elliptic.P256()
	}
	if c.from.IsZero() {
		c.from, c.to = time.Now().Add(-time.Minute), time.Now().Add(9*time.Minute)
	}
	key, err := ecdsa.GenerateKey(c.curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: c.from, NotAfter: c.to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if u, err := url.Parse(c.san); err == nil && u.Scheme != "" {
		template.URIs = []*url.URL{u}
	} else {
		template.EmailAddresses = []string{c.san}
	}
	owner := "https://" + ownerOf(c.repo)
	for _, e := range []struct {
		oid   asn1.ObjectIdentifier
		value string
	}{
		{certificate.OIDIssuerV2, c.issuer}, {certificate.OIDSourceRepositoryURI, c.repo}, {certificate.OIDSourceRepositoryRef, c.ref},
		{certificate.OIDSourceRepositoryOwnerURI, owner}, {certificate.OIDBuildConfigURI, c.workflow},
	} {
		value, err := asn1.MarshalWithParams(e.value, "utf8")
		if err != nil {
			t.Fatal(err)
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: e.oid, Value: value})
	}
	issue := func() *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, a.parent, key.Public(), a.key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	cert := issue()
	if c.unlogged {
		return cert, key
	}
	log := a
	if c.foreign {
		log = newAuthority(t)
	}
	template.ExtraExtensions = append(template.ExtraExtensions, log.announce(t, cert.RawTBSCertificate, a.parent))
	return issue(), key
}

// announce is the extension with a log's promise about a certificate that is
// to be, RFC 6962 section 3.2.
func (a authority) announce(t testing.TB, tbs []byte, parent *x509.Certificate) pkix.Extension {
	t.Helper()
	sct := ct.SignedCertificateTimestamp{SCTVersion: ct.V1, LogID: ct.LogID{KeyID: a.ctID(t)}, Timestamp: uint64(time.Now().UnixMilli())}
	input, err := ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: ct.MerkleTreeLeaf{
		Version: ct.V1, LeafType: ct.TimestampedEntryLeafType,
		TimestampedEntry: &ct.TimestampedEntry{
			Timestamp: sct.Timestamp, EntryType: ct.PrecertLogEntryType,
			PrecertEntry: &ct.PreCert{IssuerKeyHash: sha256.Sum256(parent.RawSubjectPublicKeyInfo), TBSCertificate: tbs},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(input)
	sig, err := ecdsa.SignASN1(rand.Reader, a.ct, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sct.Signature = ct.DigitallySigned{Algorithm: cttls.SignatureAndHashAlgorithm{Hash: cttls.SHA256, Signature: cttls.ECDSA}, Signature: sig}
	list, err := x509util.MarshalSCTsIntoSCTList([]*ct.SignedCertificateTimestamp{&sct})
	if err != nil {
		t.Fatal(err)
	}
	b, err := cttls.Marshal(*list)
	if err != nil {
		t.Fatal(err)
	}
	value, err := asn1.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value}
}

// attest signs a payload with a certificate that says c, stamped and logged,
// and changed if change is not nil.
func (a authority) attest(t testing.TB, payload []byte, c claim, change func(*protobundle.Bundle)) []byte {
	t.Helper()
	cert, key := a.certificate(t, c)
	return a.finish(t, payload, key, cert, &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: cert.Raw}}, change)
}

// attestWithKey does so with a key: stamped, and not logged.
func (a authority) attestWithKey(t testing.TB, s signer, payload []byte, change func(*protobundle.Bundle)) []byte {
	t.Helper()
	return a.finish(t, payload, s.priv, nil, &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: "any"}}, change)
}

func (a authority) finish(t testing.TB, payload []byte, key *ecdsa.PrivateKey, cert *x509.Certificate, material any, change func(*protobundle.Bundle)) []byte {
	t.Helper()
	pae := dsse.PAE(PayloadType, payload)
	digest := crypto.SHA256
	if key.Curve == elliptic.P384() {
		digest = crypto.SHA384
	}
	h := digest.New()
	h.Write(pae)
	sig, err := key.Sign(rand.Reader, h.Sum(nil), digest)
	if err != nil {
		t.Fatal(err)
	}
	stamp, err := a.TimestampResponse(sig)
	if err != nil {
		t.Fatal(err)
	}
	b := &protobundle.Bundle{
		MediaType: oras.TypeBundle,
		VerificationMaterial: &protobundle.VerificationMaterial{
			TimestampVerificationData: &protobundle.TimestampVerificationData{Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp}}},
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: payload, PayloadType: PayloadType, Signatures: []*protodsse.Signature{{Sig: sig}},
		}},
	}
	switch m := material.(type) {
	case *protobundle.VerificationMaterial_Certificate:
		b.VerificationMaterial.Content = m
	case *protobundle.VerificationMaterial_PublicKey:
		b.VerificationMaterial.Content = m
	}
	if cert != nil && key.Curve == elliptic.P256() {
		entry, err := a.GenerateTlogEntry(cert, &dsse.Envelope{
			PayloadType: PayloadType, Payload: base64.StdEncoding.EncodeToString(payload),
			Signatures: []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(sig)}},
		}, sig, time.Now().Unix(), false)
		if err != nil {
			t.Fatal(err)
		}
		b.VerificationMaterial.TlogEntries = append(b.VerificationMaterial.TlogEntries, a.entry(t, entry.TransparencyLogEntry()))
	}
	if change != nil {
		change(b)
	}
	text, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func workflow() Identity {
	return Identity{Name: "CI", Certificate: &CertificateIdentity{Issuer: ciIssuer, SAN: ciWorkflow, SourceRepository: ciRepo, SourceRef: ciRef, Workflow: ciWorkflow}}
}

func encode(t testing.TB, s Statement) []byte {
	t.Helper()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKeylessRelease(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	rel := testRelease(t, nil)
	payload := encode(t, statementFor(t, rel, nil))
	good := a.attest(t, payload, claim{}, nil)
	another := testRelease(t, func(r *oras.Release) { r.Number = 13 })
	of := func(b []byte) *protobundle.Bundle { return must[*protobundle.Bundle](t)(parseBundle(b)) }
	swapped := a.attest(t, encode(t, statementFor(t, another, nil)), claim{}, nil)
	key := newSigner(t, "K")
	cert := func(change func(*CertificateIdentity)) func(*Policy) {
		return func(p *Policy) {
			id := workflow()
			change(id.Certificate)
			p.Publishers = []Identity{id}
		}
	}
	for _, c := range []struct {
		name   string
		claim  claim
		bundle func(*protobundle.Bundle)
		raw    []byte
		policy func(*Policy)
		now    time.Time
		failed []string
	}{
		{name: "good"},
		{name: "good among others", policy: func(p *Policy) {
			p.Publishers = append([]Identity{key.Identity, {Name: "else", Certificate: &CertificateIdentity{Issuer: ciIssuer, SAN: "x@example.org"}}}, p.Publishers...)
		}},
		{name: "good by an expression", policy: cert(func(c *CertificateIdentity) {
			c.SAN, c.SANRegexp = "", `https://github\.com/o/r/\.github/workflows/train\.yml@refs/(heads/main|tags/v[0-9]+)`
		})},
		{name: "good without log", policy: func(p *Policy) { p.TransparencyLog = new(int) }, bundle: func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries = nil }},
		{name: "good without SCT", claim: claim{unlogged: true}, policy: func(p *Policy) { p.TrustedRoot, p.InsecureIgnoreSCT = a.noCT, true }},
		{name: "good, months later", now: time.Now().Add(90 * 24 * time.Hour)},
		{name: "good in a window", policy: func(p *Policy) {
			p.Publishers[0].NotBefore, p.Publishers[0].NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		}},

		{name: "wrong workflow", claim: claim{san: strings.Replace(ciWorkflow, "train", "evil", 1)}, failed: []string{CheckSigner}},
		{name: "name that the trusted one begins with", policy: cert(func(c *CertificateIdentity) { c.SAN = strings.TrimSuffix(c.SAN, "main") }), failed: []string{CheckSigner}},
		{name: "expression that matches a part only", policy: cert(func(c *CertificateIdentity) { c.SAN, c.SANRegexp = "", `github\.com/o/r` }), failed: []string{CheckSigner}},
		{name: "alternatives that would escape an anchor", policy: cert(func(c *CertificateIdentity) { c.SAN, c.SANRegexp = "", `x|https:` }), failed: []string{CheckSigner}},
		{name: "wrong issuer", claim: claim{issuer: "https://token.actions.githubusercontent.com.evil.example"}, failed: []string{CheckSigner}},
		{name: "other repository", claim: claim{repo: "https://github.com/o/fork"}, failed: []string{CheckSigner}},
		{name: "other ref", claim: claim{ref: "refs/pull/7/merge"}, failed: []string{CheckSigner}},
		{name: "other build configuration", claim: claim{workflow: ciWorkflow + "2"}, failed: []string{CheckSigner}},
		{name: "policy of keys", policy: func(p *Policy) { p.Publishers = []Identity{key.Identity}; p.TransparencyLog = nil }, failed: []string{CheckSignature}},
		{name: "window that has ended", policy: func(p *Policy) { p.Publishers[0].NotAfter = time.Now().Add(-time.Hour) }, failed: []string{CheckSigner}},
		{name: "window to come", policy: func(p *Policy) { p.Publishers[0].NotBefore = time.Now().Add(time.Hour) }, failed: []string{CheckSigner}},
		{name: "removed time stamp", bundle: func(b *protobundle.Bundle) { b.VerificationMaterial.TimestampVerificationData = nil }, failed: []string{CheckTime}},
		{name: "time stamp of another signature", bundle: func(b *protobundle.Bundle) {
			b.VerificationMaterial.TimestampVerificationData = of(swapped).VerificationMaterial.TimestampVerificationData
		}, failed: []string{CheckTime}},
		{name: "time stamp of another authority", bundle: func(b *protobundle.Bundle) {
			stamp := must[[]byte](t)(other.TimestampResponse(b.GetDsseEnvelope().Signatures[0].Sig))
			b.VerificationMaterial.TimestampVerificationData.Rfc3161Timestamps[0].SignedTimestamp = stamp
		}, failed: []string{CheckTime}},
		{name: "signed in the future", now: time.Now().Add(-time.Hour), failed: []string{CheckTime}},
		{name: "missing log entry", bundle: func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries = nil }, failed: []string{CheckLog}},
		{name: "log entry of another artifact", bundle: func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries = of(swapped).VerificationMaterial.TlogEntries
		}, failed: []string{CheckLog}},
		{name: "log entry changed", bundle: func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries[0].CanonicalizedBody[40] ^= 1 }, failed: []string{CheckSignature}},
		{name: "log promise without proof", bundle: func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries[0].InclusionProof = nil }, failed: []string{CheckSignature}},
		{name: "log entry twice where two are demanded", policy: func(p *Policy) { n := 1; p.TransparencyLog = &n }, bundle: func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries = append(b.VerificationMaterial.TlogEntries, b.VerificationMaterial.TlogEntries[0])
		}, failed: []string{CheckLog}},
		{name: "swapped certificate", bundle: func(b *protobundle.Bundle) {
			b.VerificationMaterial.Content = of(swapped).VerificationMaterial.Content
		}, failed: []string{CheckSignature}},
		{name: "certificate of another authority", raw: other.attest(t, payload, claim{}, func(b *protobundle.Bundle) {
			stamp := must[[]byte](t)(a.TimestampResponse(b.GetDsseEnvelope().Signatures[0].Sig))
			b.VerificationMaterial.TimestampVerificationData.Rfc3161Timestamps[0].SignedTimestamp = stamp
		}), policy: func(p *Policy) { p.TransparencyLog = new(int) }, failed: []string{CheckCertificate}},
		{name: "certificate that had expired when it was used", claim: claim{from: time.Now().Add(-20 * time.Minute), to: time.Now().Add(-10 * time.Minute)}, policy: func(p *Policy) { p.TransparencyLog = new(int) }, failed: []string{CheckCertificate}},
		{name: "certificate not yet valid when it was used", claim: claim{from: time.Now().Add(20 * time.Minute), to: time.Now().Add(30 * time.Minute)}, policy: func(p *Policy) { p.TransparencyLog = new(int) }, failed: []string{CheckCertificate}},
		{name: "certificate that was not announced", claim: claim{unlogged: true}, failed: []string{CheckCertificate}},
		{name: "certificate announced to an unknown log", claim: claim{foreign: true}, failed: []string{CheckCertificate}},
		{name: "certificate with a key on P-384", claim: claim{curve: elliptic.P384()}, policy: func(p *Policy) { p.TransparencyLog = new(int) }, failed: []string{CheckCertificate}},
		{name: "changed payload", bundle: func(b *protobundle.Bundle) {
			e := b.GetDsseEnvelope()
			e.Payload = bytes.Replace(e.Payload, []byte(`"release":12`), []byte(`"release":13`), 1)
		}, failed: []string{CheckSignature}},
		{name: "changed signature", bundle: func(b *protobundle.Bundle) { b.GetDsseEnvelope().Signatures[0].Sig[9] ^= 1 }, failed: []string{CheckSignature}},
		{name: "bundle for another digest", raw: swapped, failed: []string{CheckSubject, CheckNumber}},
		{name: "wrong type", raw: a.attest(t, bytes.Replace(payload, []byte(PredicateProvenance), []byte("https://slsa.dev/provenance/v9"), 1), claim{}, nil), failed: []string{CheckType}},
		{name: "other instance", policy: func(p *Policy) { p.TrustedRoot = other.root }, failed: []string{CheckTime}},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := c.raw
			switch {
			case raw != nil:
			case c.bundle != nil || c.claim != (claim{}):
				raw = a.attest(t, payload, c.claim, c.bundle)
			default:
				raw = good
			}
			v := testVerifier(t, func(p *Policy) {
				p.TrustedRoot, p.Timestamps, p.Publishers = a.root, 1, []Identity{workflow()}
				if c.policy != nil {
					c.policy(p)
				}
			})
			if c.now.IsZero() {
				c.now = time.Now()
			}
			got := v.Judge(rel, c.now, given(raw))
			wantFailed(t, got, c.failed...)
			if c.failed == nil && (got.Publisher != "CI" || got.Time == "" || check(got, CheckCertificate).Status != Pass) {
				t.Errorf("%+v", got)
			}
			for _, f := range got.Failures() {
				if f.Reason == "" || strings.Contains(f.Reason, "\n") {
					t.Errorf("%s: reason %q", f.Name, f.Reason)
				}
			}
		})
	}
}

// A key's window is nothing without a time: the library does not judge one
// where no time is asked for.
func TestAttack29_KeyOutsideItsWindow(t *testing.T) {
	a := newAuthority(t)
	s := newSigner(t, "A")
	rel := testRelease(t, nil)
	payload := encode(t, statementFor(t, rel, nil))
	stamped := a.attestWithKey(t, s, payload, nil)
	hour := time.Hour
	for _, c := range []struct {
		name          string
		before, after time.Duration // of now; 0 for none
		raw           []byte
		failed        []string
	}{
		{"inside", -hour, hour, stamped, nil},
		{"ended", 0, -hour, stamped, []string{CheckSigner}},
		{"not begun", hour, 0, stamped, []string{CheckSigner}},
		{"inside, without the stamp", -hour, hour, s.sign(t, payload), []string{CheckTime}},
	} {
		v := testVerifier(t, func(p *Policy) {
			p.TrustedRoot, p.Timestamps = a.root, 1
			if c.before != 0 {
				p.Publishers[0].NotBefore = time.Now().Add(c.before)
			}
			if c.after != 0 {
				p.Publishers[0].NotAfter = time.Now().Add(c.after)
			}
		}, s)
		t.Run(c.name, func(t *testing.T) { wantFailed(t, v.Judge(rel, time.Now(), given(c.raw)), c.failed...) })
	}
	for _, change := range []func(*Policy){
		func(p *Policy) { p.Publishers[0].NotAfter = time.Now() },
		func(p *Policy) { p.MaxAge = time.Hour },
	} {
		p := Policy{Product: "shop", Publishers: []Identity{s.Identity}}
		change(&p)
		if _, err := New(p); !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), "signed time stamp") {
			t.Errorf("a demand on time without a source of time: %v", err)
		}
	}
}

func TestMaxAge(t *testing.T) {
	a := newAuthority(t)
	s := newSigner(t, "A")
	rel := testRelease(t, nil)
	sign := func(finished string) []byte {
		return a.attestWithKey(t, s, encode(t, statementFor(t, rel, func(p *Provenance) { p.RunDetails.Metadata.FinishedOn = finished })), nil)
	}
	now := time.Now()
	ago := func(d time.Duration) string { return FormatTime(now.Add(-d)) }
	keyless := a.attest(t, encode(t, statementFor(t, rel, nil)), claim{}, nil)
	for _, c := range []struct {
		name   string
		raw    []byte
		now    time.Time
		failed []string
	}{
		{"just now", sign(ago(time.Minute)), now, nil},
		{"an hour later", sign(ago(time.Minute)), now.Add(58 * time.Minute), nil},
		{"two hours later", sign(ago(time.Minute)), now.Add(2 * time.Hour), []string{CheckAge}},
		{"old signature with a new stamp", sign(ago(2 * time.Hour)), now, []string{CheckAge}},
		{"key that does not say when", sign(""), now, []string{CheckAge}},
		{"key that says nonsense", sign("yesterday"), now, []string{CheckAge}},
		{"certificate", keyless, now, nil},
		{"certificate, two hours later", keyless, now.Add(2 * time.Hour), []string{CheckAge}},
	} {
		v := testVerifier(t, func(p *Policy) {
			p.TrustedRoot, p.Timestamps, p.MaxAge = a.root, 1, time.Hour
			p.Publishers = append(p.Publishers, workflow())
		}, s)
		t.Run(c.name, func(t *testing.T) { wantFailed(t, v.Judge(rel, c.now, given(c.raw)), c.failed...) })
	}
}

// The log entry, time stamp and certificate of a keyless bundle bind its
// signature, its certificate and its payload to each other: each single
// mismatch is refused.
func TestAttack10_ReplayOntoAnotherDigest(t *testing.T) {
	a := newAuthority(t)
	x := testRelease(t, nil)
	y := testRelease(t, func(r *oras.Release) { r.Number = 13 })
	bx := must[*protobundle.Bundle](t)(parseBundle(a.attest(t, encode(t, statementFor(t, x, nil)), claim{}, nil)))
	by := must[*protobundle.Bundle](t)(parseBundle(a.attest(t, encode(t, statementFor(t, y, nil)), claim{}, nil)))
	v := testVerifier(t, func(p *Policy) { p.TrustedRoot, p.Timestamps, p.Publishers = a.root, 1, []Identity{workflow()} })
	text := func(b *protobundle.Bundle) []byte { return must[[]byte](t)(protojson.Marshal(b)) }
	if !v.Judge(x, time.Now(), given(text(bx))).Pass() || !v.Judge(y, time.Now(), given(text(by))).Pass() {
		t.Fatal("the bundles themselves are refused")
	}
	// Every mix of the five parts of the two bundles but the two whole ones.
	for mix := 1; mix < 31; mix++ {
		b := must[*protobundle.Bundle](t)(parseBundle(text(bx)))
		part := func(i int) bool { return mix>>i&1 == 1 }
		if part(0) {
			b.GetDsseEnvelope().Payload = by.GetDsseEnvelope().Payload
		}
		if part(1) {
			b.GetDsseEnvelope().Signatures = by.GetDsseEnvelope().Signatures
		}
		if part(2) {
			b.VerificationMaterial.Content = by.VerificationMaterial.Content
		}
		if part(3) {
			b.VerificationMaterial.TlogEntries = by.VerificationMaterial.TlogEntries
		}
		if part(4) {
			b.VerificationMaterial.TimestampVerificationData = by.VerificationMaterial.TimestampVerificationData
		}
		for _, rel := range []*oras.Artifact{x, y} {
			if v.Judge(rel, time.Now(), given(text(b))).Pass() {
				t.Errorf("mix %05b passes for release %d", mix, rel.Release.Number)
			}
		}
	}
	if v.Judge(y, time.Now(), given(text(bx))).Pass() {
		t.Error("the bundle of one release passes for another")
	}
}

// One format of bundles, one kind of envelope, one hash, one curve.
func TestAttack35_Downgrade(t *testing.T) {
	a := newAuthority(t)
	rel := testRelease(t, nil)
	payload := encode(t, statementFor(t, rel, nil))
	v := testVerifier(t, func(p *Policy) { p.TrustedRoot, p.Timestamps, p.Publishers = a.root, 1, []Identity{workflow()} })
	for name, raw := range map[string][]byte{
		"bundle v0.1": a.attest(t, payload, claim{}, func(b *protobundle.Bundle) { b.MediaType = "application/vnd.dev.sigstore.bundle+json;version=0.1" }),
		"bundle v0.2": a.attest(t, payload, claim{}, func(b *protobundle.Bundle) { b.MediaType = "application/vnd.dev.sigstore.bundle+json;version=0.2" }),
		"chain in place of a certificate": a.attest(t, payload, claim{}, func(b *protobundle.Bundle) {
			c := b.VerificationMaterial.GetCertificate()
			b.VerificationMaterial.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: &protocommon.X509CertificateChain{Certificates: []*protocommon.X509Certificate{c}}}
		}),
		"message signature": a.attest(t, payload, claim{}, func(b *protobundle.Bundle) {
			b.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
				MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: rel.Digest[:]},
				Signature:     b.GetDsseEnvelope().Signatures[0].Sig,
			}}
		}),
		"P-384": a.attest(t, payload, claim{curve: elliptic.P384()}, nil),
	} {
		if got := v.Judge(rel, time.Now(), given(raw)); got.Pass() || len(got.Failures()) == 0 {
			t.Errorf("%s: accepted", name)
		}
	}
	st := statementFor(t, rel, nil)
	st.Subject = []Resource{{Digest: map[string]string{"sha1": rel.Digest.Hex()[:40], "sha512": rel.Digest.Hex() + rel.Digest.Hex()}}}
	wantFailed(t, v.Judge(rel, time.Now(), given(a.attest(t, encode(t, st), claim{}, nil))), CheckSubject)
}

// All that a keyless bundle needs is in it and in the trusted root: nothing is
// asked of the services that made it, which may be gone.
func TestAttack38_SigningServicesAreDown(t *testing.T) {
	a := newAuthority(t)
	rel := testRelease(t, nil)
	store, _ := testStore(t, rel)
	attach(t, store, rel, a.attest(t, encode(t, statementFor(t, rel, nil)), claim{}, nil), oras.ProvenanceTag(rel.Digest))
	v := testVerifier(t, func(p *Policy) { p.TrustedRoot, p.Timestamps, p.Publishers = a.root, 1, []Identity{workflow()} })
	got, _, err := v.Release(t.Context(), store, rel.Digest, time.Now().Add(1000*time.Hour), Options{})
	if err != nil {
		t.Fatal(err)
	}
	wantFailed(t, got)
}

func TestRootsThatCannotMeetThePolicy(t *testing.T) {
	a := newAuthority(t)
	two := 2
	for name, c := range map[string]struct {
		change func(*Policy)
		says   string
	}{
		"no root":                 {func(p *Policy) { p.TrustedRoot = nil }, "needs a trusted_root"},
		"a root that is none":     {func(p *Policy) { p.TrustedRoot = []byte(`{"mediaType":7}`) }, "trusted_root"},
		"text for a root":         {func(p *Policy) { p.TrustedRoot = []byte("hello") }, "want JSON"},
		"root over its limit":     {func(p *Policy) { p.TrustedRoot = bytes.Repeat([]byte("{"), maxRootFile+1) }, "limit"},
		"no certificate log":      {func(p *Policy) { p.TrustedRoot = a.noCT }, "insecure_ignore_sct"},
		"log ignored":             {func(p *Policy) { p.InsecureIgnoreSCT = true }, "take it out"},
		"two stamps of one":       {func(p *Policy) { p.Timestamps = 2 }, "has one timestamp authority"},
		"two entries of one":      {func(p *Policy) { p.TransparencyLog = &two }, "has one log"},
		"no stamp for certs":      {func(p *Policy) { p.Timestamps = 0 }, "authority: 1"},
		"tuf that was not loaded": {func(p *Policy) { p.TrustedRoot, p.TUF = nil, &TUF{URL: "https://example.org", Root: []byte("{}")} }, "not been fetched"},
	} {
		p := Policy{Product: "shop", TrustedRoot: a.root, Timestamps: 1, Publishers: []Identity{workflow()}}
		c.change(&p)
		if _, err := New(p); !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

// BenchmarkKeyless judges a release by a keyless bundle, once the root is
// loaded. "log-2" is a bundle as the present services make it; "log-1" has a log entry
// of the older kind and a signed certificate timestamp: three signatures more.
func BenchmarkKeyless(b *testing.B) {
	a := newAuthority(b)
	rel := testRelease(b, nil)
	payload := encode(b, statementFor(b, rel, nil))
	entity, err := a.AttestAtTimeHashedRekordV2(virtualSAN, virtualIssuer, payload, time.Time{})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		raw    []byte
		policy func(*Policy)
	}{
		{"log-2", a.bundle(b, entity, func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries[0].IntegratedTime = 0 }), func(p *Policy) {
			p.TrustedRoot, p.InsecureIgnoreSCT = a.noCT, true
			p.Publishers = []Identity{{Name: "CI", Certificate: &CertificateIdentity{Issuer: virtualIssuer, SAN: virtualSAN}}}
		}},
		{"log-1", a.attest(b, payload, claim{}, nil), func(p *Policy) { p.TrustedRoot, p.Publishers = a.root, []Identity{workflow()} }},
	} {
		b.Run(c.name, func(b *testing.B) {
			v := testVerifier(b, func(p *Policy) { p.Timestamps = 1; c.policy(p) })
			now := time.Now()
			if r := v.Judge(rel, now, given(c.raw)); !r.Pass() {
				b.Fatal(r.Failures())
			}
			testkit.Latency(b, time.Now, func(int) { v.Judge(rel, now, given(c.raw)) })
		})
	}
}
