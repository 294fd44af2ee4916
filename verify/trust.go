package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// ErrBundle: bytes are no Sigstore bundle of the form that is accepted.
var ErrBundle = errors.New("not a usable Sigstore bundle")

// trust is what a policy demands of any signature, whoever made it and
// whatever it is about. It is immutable.
type trust struct {
	policy      *Policy
	certificate *sgverify.Verifier // nil: the policy names nobody by certificate
	material    root.TrustedMaterial
	keys        map[string]*keyTrust // by the key's DER
}

// keyTrust checks signatures of one key.
type keyTrust struct {
	material root.TrustedMaterial
	verifier *sgverify.Verifier
}

// newTrust returns the trust of p, which has been checked.
func newTrust(p *Policy) (*trust, error) {
	t := &trust{policy: p, material: &root.BaseTrustedMaterial{}, keys: map[string]*keyTrust{}}
	certificates := p.certificates()
	if p.TUF != nil && p.TrustedRoot == nil {
		return nil, errors.New("tuf: the trusted root has not been fetched")
	}
	if p.TrustedRoot != nil {
		r, err := parseRoot(p.TrustedRoot)
		if err != nil {
			return nil, fmt.Errorf("trusted_root: %w", err)
		}
		if err := p.fits(r, certificates); err != nil {
			return nil, err
		}
		t.material = materialOf(r)
	}
	options := func(certificate bool) []sgverify.VerifierOption {
		list := []sgverify.VerifierOption{sgverify.WithoutStatementPredicate()}
		if n := p.logEntries(certificate); n > 0 {
			list = append(list, sgverify.WithTransparencyLog(n))
		}
		switch n := p.Timestamps; {
		case certificate || n > 0:
			list = append(list, sgverify.WithSignedTimestamps(max(1, n)))
		default:
			// Without a time there is none to hold against the window of a key; a
			// policy with windows has none without.
			list = append(list, sgverify.WithNoObserverTimestamps())
		}
		if certificate && !p.InsecureIgnoreSCT {
			list = append(list, sgverify.WithSignedCertificateTimestamps(1))
		}
		return list
	}
	var err error
	if certificates {
		if t.certificate, err = sgverify.NewVerifier(t.material, options(true)...); err != nil {
			return nil, err
		}
	}
	p.every(func(id *Identity) {
		if err != nil || id.Certificate != nil || t.keys[id.Key.der] != nil {
			return
		}
		var raw signature.Verifier
		if raw, err = signature.LoadVerifier(id.Key.pub, crypto.SHA256); err != nil {
			return
		}
		// A bundle's hint of its key is the signer's to choose: it is ignored. The
		// window is that of the identity and judged below, for certificates too.
		key := root.NewExpiringKey(raw, time.Time{}, time.Time{})
		k := &keyTrust{material: root.TrustedMaterialCollection{t.material,
			root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return key, nil })}}
		if k.verifier, err = sgverify.NewVerifier(k.material, options(false)...); err == nil {
			t.keys[id.Key.der] = k
		}
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// parseRoot reads a trusted_root.json. It never panics.
func parseRoot(text []byte) (r *root.TrustedRoot, err error) {
	defer func() {
		if p := recover(); p != nil {
			r, err = nil, fmt.Errorf("%w: %v", ErrRoot, p)
		}
	}()
	if len(text) > maxRootFile {
		return nil, fmt.Errorf("%w: %w: limit %d bytes", ErrRoot, canon.ErrTooLarge, maxRootFile)
	}
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return nil, fmt.Errorf("%w: want JSON", ErrRoot)
	}
	if r, err = root.NewTrustedRootFromJSON(text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	return r, nil
}

// fits reports demands of p that no bundle could meet with the authorities of r.
func (p *Policy) fits(r *root.TrustedRoot, certificates bool) error {
	if n := len(r.TimestampingAuthorities()); p.Timestamps > n {
		return fmt.Errorf("timestamps: %d are demanded, the trusted root has %s", p.Timestamps, count(n, "timestamp authority"))
	}
	logs := p.logEntries(false)
	if certificates {
		logs = p.logEntries(true)
	}
	switch n := len(r.RekorLogs()); {
	case logs > n && p.TransparencyLog == nil:
		return errors.New("transparency_log: certificates need a log entry and the trusted root has no log; write \"transparency_log: 0\" to do without")
	case logs > n:
		return fmt.Errorf("transparency_log: %d are demanded, the trusted root has %s", logs, count(n, "log"))
	}
	if !certificates {
		return nil
	}
	switch sct := len(r.CTLogs()) > 0; {
	case len(r.FulcioCertificateAuthorities()) == 0:
		return errors.New("an identity by certificate, but the trusted root has no certificate authority")
	case sct && p.InsecureIgnoreSCT:
		return errors.New("insecure_ignore_sct: the trusted root has a certificate transparency log; take it out")
	case !sct && !p.InsecureIgnoreSCT:
		return errors.New("the trusted root has no certificate transparency log, so nobody would see a false certificate; write \"insecure_ignore_sct: true\" to do without")
	}
	return nil
}

// material holds what a trusted root has, made once: root.TrustedRoot makes
// new lists at each call.
type material struct {
	root.BaseTrustedMaterial
	tsa   []root.TimestampingAuthority
	ca    []root.CertificateAuthority
	rekor map[string]*root.TransparencyLog
	ct    map[string]*root.TransparencyLog
}

func materialOf(r *root.TrustedRoot) *material {
	return &material{tsa: r.TimestampingAuthorities(), ca: r.FulcioCertificateAuthorities(), rekor: r.RekorLogs(), ct: r.CTLogs()}
}

func (m *material) TimestampingAuthorities() []root.TimestampingAuthority     { return m.tsa }
func (m *material) FulcioCertificateAuthorities() []root.CertificateAuthority { return m.ca }
func (m *material) RekorLogs() map[string]*root.TransparencyLog               { return m.rekor }
func (m *material) CTLogs() map[string]*root.TransparencyLog                  { return m.ct }

// parsed is a bundle that was read and not yet verified.
type parsed struct {
	raw           []byte
	digest        canon.Digest // of raw
	bundle        bundle.Bundle
	payload       []byte
	predicateType string // as the payload says; nobody signed for it yet
	byKey         bool
	content       sgverify.VerificationContent
	signature     sgverify.SignatureContent
	entries       []*tlog.Entry
	err           error // ErrBundle: what is wrong with its form
}

// parsed is an entity to the library: what it asks for again and again was
// decoded once.
var _ sgverify.SignedEntity = (*parsed)(nil)

func (p *parsed) HasInclusionPromise() bool                                  { return p.bundle.HasInclusionPromise() }
func (p *parsed) HasInclusionProof() bool                                    { return p.bundle.HasInclusionProof() }
func (p *parsed) Version() (string, error)                                   { return p.bundle.Version() }
func (p *parsed) Timestamps() ([][]byte, error)                              { return p.bundle.Timestamps() }
func (p *parsed) TlogEntries() ([]*tlog.Entry, error)                        { return p.entries, nil }
func (p *parsed) SignatureContent() (sgverify.SignatureContent, error)       { return p.signature, nil }
func (p *parsed) VerificationContent() (sgverify.VerificationContent, error) { return p.content, nil }

// parse reads a bundle. It never panics, whatever the bytes.
func parse(raw []byte) (p *parsed) {
	p = &parsed{raw: raw, digest: canon.Sum(raw)}
	fail := func(format string, args ...any) *parsed {
		p.err = fmt.Errorf("%w: "+format, append([]any{ErrBundle}, args...)...)
		p.bundle, p.payload = bundle.Bundle{}, nil // many such are held at once
		return p
	}
	defer func() {
		if r := recover(); r != nil { // hostile bytes must not end an agent, whichever library they reach
			fail("%v", r)
		}
	}()
	if len(raw) > oras.MaxBundle {
		return fail("%w: limit %d bytes", canon.ErrTooLarge, oras.MaxBundle)
	}
	if err := countValues(raw); err != nil {
		return fail("%v", err)
	}
	if err := p.bundle.UnmarshalJSON(raw); err != nil {
		return fail("%v", err)
	}
	if t := p.bundle.GetMediaType(); t != oras.TypeBundle {
		return fail("media type %q, want %s", t, oras.TypeBundle)
	}
	env, err := p.bundle.Envelope()
	if err != nil {
		return fail("signs no DSSE envelope")
	}
	if env.PayloadType != PayloadType {
		return fail("payload type %q, want %s", env.PayloadType, PayloadType)
	}
	if n := len(env.Signatures); n != 1 {
		return fail("%d signatures, want exactly one", n)
	}
	if p.content, err = p.bundle.VerificationContent(); err != nil {
		return fail("%v", err)
	}
	if p.signature, err = p.bundle.SignatureContent(); err != nil {
		return fail("%v", err)
	}
	if p.entries, err = p.bundle.TlogEntries(); err != nil {
		return fail("%v", err)
	}
	p.byKey = p.content.PublicKey() != nil
	if p.payload, err = env.DecodeB64Payload(); err != nil {
		return fail("%v", err)
	}
	var peek struct {
		PredicateType string `json:"predicateType"`
	}
	json.Unmarshal(p.payload, &peek) // whoever decodes it reports what is wrong
	p.predicateType = peek.PredicateType
	limit := maxStatement
	if p.predicateType == PredicateChannel {
		limit = maxChannelStatement
	}
	if n := len(p.payload); n > limit {
		return fail("statement of %d bytes, limit %d", n, limit)
	}
	return p
}

// step is a demand on any signature.
type step string

// The steps of verifying a bundle, in the order in which they are reported.
const (
	stepSignature   step = "signature"   // made by a key of the policy, or by that of the bundle's certificate, over the payload
	stepTime        step = "time"        // signed time stamps, none from the future
	stepLog         step = "log"         // entries in transparency logs, about this signature
	stepCertificate step = "certificate" // issued by a trusted authority, valid at the signed time, logged
	stepSigner      step = "signer"      // an identity of the role, in its window
)

var steps = []step{stepSignature, stepTime, stepLog, stepCertificate, stepSigner}

// signed is what was verified about a bundle: who signed it, and when.
type signed struct {
	by    *Identity
	owner string      // of the source repository that the certificate names; "" for none
	times []time.Time // signed times, the earliest first; none when the policy asks for none

	failed   step // "" when all demands are met
	reason   string
	observed string // of the failed step
}

// ok reports whether the bundle meets all demands.
func (s *signed) ok() bool { return s.failed == "" }

// time is the earliest signed time, or the zero time.
func (s *signed) time() time.Time {
	if len(s.times) == 0 {
		return time.Time{}
	}
	return s.times[0]
}

// verify verifies one bundle against all demands on a signature, by one of the
// identities in who. The payload is not looked into beyond that it is an in-toto
// statement by its payload type; what it speaks about is for the caller to
// judge, on p.payload and no other bytes. It never panics.
func (t *trust) verify(p *parsed, who []Identity, now time.Time) (s *signed) {
	s = &signed{}
	fail := func(at step, format string, args ...any) *signed {
		s.failed, s.reason = at, fmt.Sprintf(format, args...)
		return s
	}
	if p.err != nil {
		return fail(stepSignature, "%v", p.err)
	}
	defer func() {
		if r := recover(); r != nil {
			fail(stepSignature, "%v: %v", ErrBundle, r)
		}
	}()
	var verifier *sgverify.Verifier
	var m root.TrustedMaterial
	policy := []sgverify.PolicyOption{sgverify.WithoutIdentitiesUnsafe()} // judged below, each difference by its name
	if p.byKey {
		byKey := false
		for i := range who {
			id := &who[i]
			if id.Certificate != nil {
				continue
			}
			byKey = true
			k := t.keys[id.Key.der]
			if sgverify.VerifySignature(p.signature, p.content, k.material) == nil {
				s.by, verifier, m = id, k.verifier, k.material
				break
			}
		}
		switch {
		case !byKey:
			return fail(stepSignature, "signed with a key, and the policy trusts certificates only")
		case s.by == nil:
			return fail(stepSignature, "no trusted key made this signature over an in-toto statement")
		}
		policy = append(policy, sgverify.WithKey())
	} else {
		byCertificate := false
		for i := range who {
			byCertificate = byCertificate || who[i].Certificate != nil
		}
		if !byCertificate {
			return fail(stepSignature, "signed with a certificate, and the policy trusts keys only")
		}
		verifier, m = t.certificate, t.material
	}
	// The subject is checked by the caller, as a check of its own with what was
	// observed, hence no artifact here.
	result, err := verifier.Verify(p, sgverify.NewPolicy(sgverify.WithoutArtifactUnsafe(), policy...))
	if err != nil {
		return t.explain(s, p, m, err)
	}
	for _, ts := range result.VerifiedTimestamps {
		at := ts.Timestamp.UTC()
		if at.After(now.Add(maxSkew)) {
			return fail(stepTime, "signed at %s, which is in the future: is the clock of this machine right (%s)?", FormatTime(at), FormatTime(now))
		}
		s.times = append(s.times, at)
		if at.Before(s.times[0]) {
			s.times[0], s.times[len(s.times)-1] = at, s.times[0]
		}
	}
	if !p.byKey {
		if k, ok := p.content.Certificate().PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
			return fail(stepCertificate, "its key is no ECDSA key on P-256")
		}
		cert := *result.Signature.Certificate
		s.owner = ownerOf(cert.SourceRepositoryURI)
		if s.by, err = whose(cert, who); err != nil {
			s.observed = fmt.Sprintf("%s by %s", cert.SubjectAlternativeName, cert.Issuer)
			return fail(stepSigner, "%v", err)
		}
	}
	for _, at := range s.times {
		if !s.by.within(at) {
			return fail(stepSigner, "%s may sign%s, and this was signed at %s", s.by.Name, s.by.window(), FormatTime(at))
		}
	}
	return s
}

// whose returns the first identity that the certificate is of, or how it
// differs from the only one, or from all.
func whose(cert certificate.Summary, who []Identity) (*Identity, error) {
	var first error
	n := 0
	for i := range who {
		if who[i].Certificate == nil {
			continue
		}
		err := who[i].Certificate.matches(cert)
		if err == nil {
			return &who[i], nil
		}
		if n++; first == nil {
			first = fmt.Errorf("not %s: %w", who[i].Name, err)
		}
	}
	if n > 1 {
		return nil, fmt.Errorf("none of the %d identities of the policy; %w", n, first)
	}
	return nil, first
}

// explain finds the step at which the library refused a bundle, since it says
// so in words only. What it finds is still a refusal.
func (t *trust) explain(s *signed, p *parsed, m root.TrustedMaterial, cause error) *signed {
	fail := func(at step, err error) *signed {
		s.failed, s.reason = at, err.Error()
		return s
	}
	if err := sgverify.VerifySignature(p.signature, p.content, m); err != nil {
		return fail(stepSignature, err)
	}
	if n := t.stamps(p.byKey); n > 0 {
		if _, err := sgverify.VerifySignedTimestampWithThreshold(p, m, n); err != nil {
			return fail(stepTime, err)
		}
	}
	if n := t.policy.logEntries(!p.byKey); n > 0 {
		if _, err := sgverify.VerifyTlogEntry(p, m, n, false); err != nil {
			return fail(stepLog, err)
		}
	}
	if p.byKey {
		return fail(stepSignature, cause)
	}
	return fail(stepCertificate, cause)
}

// stamps is how many signed time stamps are demanded.
func (t *trust) stamps(byKey bool) int {
	if byKey {
		return t.policy.Timestamps
	}
	return max(1, t.policy.Timestamps)
}

// demands reports whether the policy demands a step of a signature, by a key or
// by a certificate.
func (t *trust) demands(at step, byKey bool) bool {
	switch at {
	case stepTime:
		return t.stamps(byKey) > 0
	case stepLog:
		return t.policy.logEntries(!byKey) > 0
	case stepCertificate:
		return !byKey
	}
	return true
}

// demandsOfAll reports whether it does of each identity in who.
func (t *trust) demandsOfAll(at step, who []Identity) bool {
	return !slices.ContainsFunc(who, func(id Identity) bool { return !t.demands(at, id.Certificate == nil) })
}

// report tells set of each step what came of it: what passed, what failed, and
// after that nothing.
func (t *trust) report(s *signed, p *parsed, set func(step, Check)) {
	for _, at := range steps {
		demanded := t.demands(at, p.byKey)
		if at == s.failed {
			set(at, Check{Demanded: demanded, Status: Fail, Observed: s.observed, Reason: s.reason})
			return
		}
		c := Check{Demanded: demanded, Status: Pass}
		skip := func(reason string) {
			if !demanded {
				c = Check{Status: Skip, Reason: reason}
			}
		}
		switch at {
		case stepSignature:
			c.Observed = "ECDSA P-256, SHA-256"
			if !p.byKey {
				c.Observed = "by the key of the certificate"
			}
		case stepTime:
			if len(s.times) > 0 {
				c.Observed = FormatTime(s.times[0])
			}
			skip("the policy demands no signed time stamp")
		case stepLog:
			c.Observed = count(t.policy.logEntries(!p.byKey), "log entry")
			skip("the policy demands no log entry")
		case stepCertificate:
			c.Observed = "issued by a trusted authority, valid at that time"
			skip("signed with a key")
		case stepSigner:
			c.Observed = s.by.String()
		}
		set(at, c)
	}
}
