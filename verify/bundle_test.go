package verify

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	sigdata "github.com/sigstore/sigstore-go/pkg/testing/data"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

const (
	virtualSAN    = "ci@example.org"
	virtualIssuer = "https://issuer.example.org"
)

// virtual is a Sigstore instance in memory: certificate authority, timestamp
// authority and log. It has no certificate transparency log.
type virtual struct {
	*ca.VirtualSigstore
	root []byte // trusted_root.json
}

func newVirtual(t testing.TB) virtual {
	t.Helper()
	v, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	logs := v.RekorLogs()
	for id, log := range logs {
		if log.ID, err = hex.DecodeString(id); err != nil {
			t.Fatal(err)
		}
	}
	r, err := root.NewTrustedRoot(root.TrustedRootMediaType01, v.FulcioCertificateAuthorities(), nil, v.TimestampingAuthorities(), logs)
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return virtual{v, b}
}

// bundle writes what the instance signed as a bundle, changed if change is not nil.
func (v virtual) bundle(t testing.TB, e *ca.TestEntity, change func(*protobundle.Bundle)) []byte {
	t.Helper()
	content, err := e.VerificationContent()
	if err != nil {
		t.Fatal(err)
	}
	stamps, err := e.Timestamps()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := e.TlogEntries()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := e.SignatureContent()
	if err != nil {
		t.Fatal(err)
	}
	material := &protobundle.VerificationMaterial{
		Content:                   &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: content.Certificate().Raw}},
		TimestampVerificationData: &protobundle.TimestampVerificationData{},
	}
	for _, s := range stamps {
		material.TimestampVerificationData.Rfc3161Timestamps = append(material.TimestampVerificationData.Rfc3161Timestamps, &protocommon.RFC3161SignedTimestamp{SignedTimestamp: s})
	}
	for _, e := range entries {
		material.TlogEntries = append(material.TlogEntries, v.entry(t, e.TransparencyLogEntry()))
	}
	b := &protobundle.Bundle{MediaType: oras.TypeBundle, VerificationMaterial: material}
	if env := signed.EnvelopeContent(); env != nil {
		raw := env.RawEnvelope()
		payload, err := raw.DecodeB64Payload()
		if err != nil {
			t.Fatal(err)
		}
		b.Content = &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: payload, PayloadType: raw.PayloadType, Signatures: []*protodsse.Signature{{Sig: signed.Signature()}},
		}}
	} else {
		b.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: signed.MessageSignatureContent().Digest()},
			Signature:     signed.Signature(),
		}}
	}
	b = proto.CloneOf(b)
	if change != nil {
		change(b)
	}
	text, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// entry completes a log entry of the first kind by what a bundle has of it: proof,
// promise and kind.
func (v virtual) entry(t testing.TB, e *protorekor.TransparencyLogEntry) *protorekor.TransparencyLogEntry {
	t.Helper()
	if e.InclusionProof != nil {
		return e
	}
	var body struct{ Kind, APIVersion string }
	if err := json.Unmarshal(e.CanonicalizedBody, &body); err != nil {
		t.Fatal(err)
	}
	e.KindVersion = &protorekor.KindVersion{Kind: body.Kind, Version: body.APIVersion}
	set, err := v.RekorSignPayload(tlog.RekorPayload{
		Body: base64.StdEncoding.EncodeToString(e.CanonicalizedBody), IntegratedTime: e.IntegratedTime, LogIndex: e.LogIndex, LogID: hex.EncodeToString(e.LogId.KeyId),
	})
	if err != nil {
		t.Fatal(err)
	}
	e.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: set}
	p, err := v.GetInclusionProof(e.CanonicalizedBody)
	if err != nil {
		t.Fatal(err)
	}
	rootHash, err := hex.DecodeString(*p.RootHash)
	if err != nil {
		t.Fatal(err)
	}
	e.InclusionProof = &protorekor.InclusionProof{LogIndex: *p.LogIndex, TreeSize: *p.TreeSize, RootHash: rootHash, Checkpoint: &protorekor.Checkpoint{Envelope: *p.Checkpoint}}
	return e
}

func must[T any](t testing.TB) func(T, error) T {
	return func(x T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
}

func TestBundleOfAnybody(t *testing.T) {
	v, other := newVirtual(t), newVirtual(t)
	artifact := []byte("any file")
	statement := fmt.Appendf(nil, `{"_type":%q,"subject":[{"name":"f","digest":{"sha256":%q}}],"predicateType":"https://example.org/any","predicate":{}}`, StatementV1, canon.Sum(artifact).Hex())
	entity := must[*ca.TestEntity](t)
	message := entity(v.SignAtTime(virtualSAN, virtualIssuer, artifact, time.Now()))
	attested := entity(v.AttestAtTimeHashedRekordV2(virtualSAN, virtualIssuer, statement, time.Now()))
	swapped := entity(v.SignAtTime(virtualSAN, virtualIssuer, []byte("another file"), time.Now()))
	for _, c := range []struct {
		name   string
		signed *ca.TestEntity
		bundle func(*protobundle.Bundle)
		demand func(*BundleDemand)
		want   error
		reason string
	}{
		{name: "file"},
		{name: "statement", signed: attested},
		{name: "file by its digest", demand: func(d *BundleDemand) { d.Artifact, d.Digest = nil, canon.Sum(artifact) }},
		{name: "statement by the digest of its subject", signed: attested, demand: func(d *BundleDemand) { d.Artifact, d.Digest = nil, canon.Sum(artifact) }},

		{name: "another file", demand: func(d *BundleDemand) { d.Artifact = strings.NewReader("other") }, want: ErrBundle},
		{name: "another digest", demand: func(d *BundleDemand) { d.Artifact, d.Digest = nil, canon.Sum(nil) }, want: ErrBundle},
		{name: "statement about another file", signed: attested, demand: func(d *BundleDemand) { d.Artifact = strings.NewReader("other") }, want: ErrBundle},
		{name: "statement about another digest", signed: attested, demand: func(d *BundleDemand) { d.Artifact, d.Digest = nil, canon.Sum(nil) }, want: ErrBundle},
		{name: "another identity", demand: func(d *BundleDemand) { d.SAN = "cd@example.org" }, want: ErrBundle, reason: "expected SAN"},
		{name: "identity as a prefix", demand: func(d *BundleDemand) { d.SAN = "ci@example" }, want: ErrBundle},
		{name: "another issuer", demand: func(d *BundleDemand) { d.Issuer = "https://issuer.example.com" }, want: ErrBundle},
		{name: "another instance", demand: func(d *BundleDemand) { d.TrustedRoot = other.root }, want: ErrBundle},
		{name: "no log entry", bundle: func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries = nil }, want: ErrBundle, reason: "log"},
		{name: "log entry of another signature", bundle: func(b *protobundle.Bundle) {
			e := must[*protobundle.Bundle](t)(parseBundle(v.bundle(t, swapped, nil)))
			b.VerificationMaterial.TlogEntries = e.VerificationMaterial.TlogEntries
		}, want: ErrBundle},
		{name: "certificate of another signature", bundle: func(b *protobundle.Bundle) {
			e := must[*protobundle.Bundle](t)(parseBundle(v.bundle(t, swapped, nil)))
			b.VerificationMaterial.Content = e.VerificationMaterial.Content
		}, want: ErrBundle},
		{name: "time stamp of another signature", bundle: func(b *protobundle.Bundle) {
			e := must[*protobundle.Bundle](t)(parseBundle(v.bundle(t, swapped, nil)))
			b.VerificationMaterial.TimestampVerificationData = e.VerificationMaterial.TimestampVerificationData
			b.VerificationMaterial.TlogEntries[0].InclusionPromise = nil
		}, want: ErrBundle},
		{name: "changed signature", bundle: func(b *protobundle.Bundle) { b.GetMessageSignature().Signature[9] ^= 1 }, want: ErrBundle},
		{name: "changed payload", signed: attested, bundle: func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().Payload = bytes.Replace(b.GetDsseEnvelope().Payload, []byte("any"), []byte("all"), 1)
		}, want: ErrBundle},
		{name: "two signatures", signed: attested, bundle: func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().Signatures = append(b.GetDsseEnvelope().Signatures, b.GetDsseEnvelope().Signatures[0])
		}, want: ErrBundle},
		{name: "unknown media type", bundle: func(b *protobundle.Bundle) { b.MediaType = "application/vnd.dev.sigstore.bundle.v9+json" }, want: ErrBundle},
		{name: "no announced certificate", demand: func(d *BundleDemand) { d.InsecureIgnoreSCT = false }, want: ErrBundle, reason: "certificate timestamp"},
		{name: "certificate where a key is asked for", demand: func(d *BundleDemand) {
			d.SAN, d.Issuer, d.InsecureIgnoreSCT, d.Key = "", "", false, newSigner(t, "somebody").Key
		}, want: ErrBundle, reason: "expected key"},
		{name: "unreadable artifact", demand: func(d *BundleDemand) { d.Artifact = iotest.ErrReader(errDisk) }, want: errDisk},
		{name: "no root", demand: func(d *BundleDemand) { d.TrustedRoot = nil }, want: ErrRoot},
		{name: "broken root", demand: func(d *BundleDemand) { d.TrustedRoot = []byte(`{"mediaType":7}`) }, want: ErrRoot},
	} {
		if c.signed == nil {
			c.signed = message
		}
		want := BundleDemand{TrustedRoot: v.root, SAN: virtualSAN, Issuer: virtualIssuer, Artifact: bytes.NewReader(artifact), InsecureIgnoreSCT: true}
		if c.demand != nil {
			c.demand(&want)
		}
		got, err := Bundle(v.bundle(t, c.signed, c.bundle), want)
		if !errors.Is(err, c.want) || err != nil && (c.want == nil || !strings.Contains(err.Error(), c.reason)) {
			t.Errorf("%s: %v, want %v, %q", c.name, err, c.want, c.reason)
		}
		if c.want == nil && err == nil && (got.SAN != virtualSAN || got.LogEntries != 1 || len(got.Times) == 0 || c.signed == attested && got.PredicateType != "https://example.org/any") {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

var errDisk = errors.New("disk")

func parseBundle(text []byte) (*protobundle.Bundle, error) {
	b := new(protobundle.Bundle)
	return b, protojson.Unmarshal(text, b)
}

// withKey is a bundle of a signature by s over artifact, logged and dated.
func (v virtual) withKey(t testing.TB, s signer, artifact []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(artifact)
	sig, err := s.priv.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	stamp, err := v.TimestampResponse(sig)
	if err != nil {
		t.Fatal(err)
	}
	id, err := v.RekorLogID()
	if err != nil {
		t.Fatal(err)
	}
	logID, err := hex.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	entry := &protorekor.TransparencyLogEntry{
		LogIndex: 7, LogId: &protocommon.LogId{KeyId: logID}, IntegratedTime: time.Now().Unix(),
		CanonicalizedBody: fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"%x"}},"signature":{"content":%q,"publicKey":{"content":%q}}}}`,
			sum, b64(sig), b64([]byte(s.Key.PEM()))),
	}
	text, err := protojson.Marshal(&protobundle.Bundle{
		MediaType: oras.TypeBundle,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content:                   &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: "any"}},
			TlogEntries:               []*protorekor.TransparencyLogEntry{v.entry(t, entry)},
			TimestampVerificationData: &protobundle.TimestampVerificationData{Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp}}},
		},
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]}, Signature: sig,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestBundleSignedWithKey(t *testing.T) {
	v := newVirtual(t)
	alice, bob := newSigner(t, "alice"), newSigner(t, "bob")
	artifact := []byte("any file")
	signed := v.withKey(t, alice, artifact)
	want := BundleDemand{TrustedRoot: v.root, Key: alice.Key, Digest: canon.Sum(artifact)}
	got, err := Bundle(signed, want)
	if err != nil || got.KeyID != alice.Key.ID() || got.SAN+got.Issuer != "" || len(got.Times) == 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	want.Key = bob.Key
	if _, err := Bundle(signed, want); !errors.Is(err, ErrBundle) {
		t.Errorf("another key: %v", err)
	}
	want.Key = alice.Key
	want.Digest = canon.Sum(nil)
	if _, err := Bundle(signed, want); !errors.Is(err, ErrBundle) {
		t.Errorf("another file: %v", err)
	}
	want = BundleDemand{TrustedRoot: v.root, SAN: virtualSAN, Issuer: virtualIssuer, Digest: canon.Sum(artifact), InsecureIgnoreSCT: true}
	if _, err := Bundle(signed, want); !errors.Is(err, ErrBundle) {
		t.Errorf("key where a certificate is asked for: %v", err)
	}
	bare := alice.sign(t, []byte(`{}`))
	want = BundleDemand{TrustedRoot: v.root, Key: alice.Key, Digest: canon.Sum(artifact)}
	if _, err := Bundle(bare, want); !errors.Is(err, ErrBundle) || !strings.Contains(err.Error(), "log") {
		t.Errorf("signed with the key, but not logged: %v", err)
	}
}

// An example of the library, whose certificate was announced in a log of its root.
func TestBundleWithAnnouncedCertificate(t *testing.T) {
	raw := must[[]byte](t)(sigdata.Bundle(t, "othername.sigstore.json").MarshalJSON())
	want := BundleDemand{
		TrustedRoot: must[[]byte](t)(sigdata.TrustedRoot(t, "scaffolding.json").MarshalJSON()),
		SAN:         "foo!oidc.local", Issuer: "http://oidc.local:8080",
		Digest: must[canon.Digest](t)(canon.ParseDigest("sha256:bc103b4a84971ef6459b294a2b98568a2bfb72cded09d4acd1e16366a401f95b")),
	}
	got, err := Bundle(raw, want)
	if err != nil || got.PredicateType != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	known := sigdata.TrustedRoot(t, "scaffolding.json")
	less := must[*root.TrustedRoot](t)(root.NewTrustedRoot(root.TrustedRootMediaType01, known.FulcioCertificateAuthorities(), nil, known.TimestampingAuthorities(), known.RekorLogs()))
	want.TrustedRoot = must[[]byte](t)(less.MarshalJSON())
	if _, err := Bundle(raw, want); !errors.Is(err, ErrBundle) || !strings.Contains(err.Error(), "certificate timestamp") {
		t.Errorf("with a root that does not know the log: %v", err)
	}
}

func TestBundleDemandIsWhole(t *testing.T) {
	key := newSigner(t, "somebody").Key
	digest := canon.Sum(nil)
	for name, d := range map[string]BundleDemand{
		"nobody":            {Digest: digest},
		"identity alone":    {Digest: digest, SAN: "a"},
		"issuer alone":      {Digest: digest, Issuer: "https://a"},
		"key and issuer":    {Digest: digest, Key: key, Issuer: "https://a"},
		"key and both":      {Digest: digest, Key: key, SAN: "a", Issuer: "https://a"},
		"nothing signed":    {Key: key},
		"two things signed": {Key: key, Digest: digest, Artifact: strings.NewReader("")},
	} {
		d.TrustedRoot = newVirtual(t).root
		if got, err := Bundle([]byte(`{}`), d); err == nil || errors.Is(err, ErrBundle) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := Bundle(bytes.Repeat([]byte(" "), MaxAnyBundle+1), BundleDemand{TrustedRoot: newVirtual(t).root, Key: key, Digest: digest}); !errors.Is(err, ErrBundle) || !errors.Is(err, canon.ErrTooLarge) {
		t.Errorf("too long: %v", err)
	}
}

// Three bytes a value are little to send and much to hold.
func TestBundleOfManyValues(t *testing.T) {
	alice := newSigner(t, "alice")
	many := func(n int) []byte {
		return fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":""},"tlogEntries":[{}%s]},"dsseEnvelope":{"payload":"e30=","payloadType":%q,"signatures":[{"sig":"AAAA"}]}}`,
			oras.TypeBundle, strings.Repeat(",{}", n), PayloadType)
	}
	want := BundleDemand{TrustedRoot: newVirtual(t).root, Key: alice.Key, Digest: canon.Sum(nil)}
	for n, tooMany := range map[int]bool{10: false, 4000: false, 4096: true, 100000: true} {
		if _, err := Bundle(many(n), want); !errors.Is(err, ErrBundle) || errors.Is(err, canon.ErrTooLarge) != tooMany {
			t.Errorf("%d entries: %v", n, err)
		}
		if p := parse(many(n)); p.err == nil || strings.Contains(p.err.Error(), "JSON values") != tooMany {
			t.Errorf("%d entries, parsed: %v", n, p.err)
		}
	}
}

func FuzzAnyBundle(f *testing.F) {
	v := newVirtual(f)
	artifact := []byte("any file")
	e, err := v.SignAtTime(virtualSAN, virtualIssuer, artifact, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	good := v.bundle(f, e, nil)
	f.Add(good)
	f.Add(newSigner(f, "somebody").sign(f, []byte(`{}`)))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{},"messageSignature":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, d := range []BundleDemand{
			{SAN: virtualSAN, Issuer: virtualIssuer, InsecureIgnoreSCT: true},
			{Key: newSigner(t, "somebody").Key},
		} {
			d.TrustedRoot, d.Artifact = v.root, io.Reader(bytes.NewReader(artifact))
			if _, err := Bundle(b, d); err != nil && !errors.Is(err, ErrBundle) {
				t.Errorf("%v, want nil or ErrBundle", err)
			}
		}
	})
}

// TestSigstoreConformance runs the cases of github.com/sigstore/sigstore-conformance
// when BH_CONFORMANCE names its folder test/assets/bundle-verify.
func TestSigstoreConformance(t *testing.T) {
	dir := os.Getenv("BH_CONFORMANCE")
	if dir == "" {
		t.Skip("set BH_CONFORMANCE to the folder test/assets/bundle-verify of the suite")
	}
	known := must[[]byte](t)(sigdata.TrustedRoot(t, "public-good.json").MarshalJSON())
	cases := 0
	for _, e := range must[[]os.DirEntry](t)(os.ReadDir(dir)) {
		if !e.IsDir() {
			continue
		}
		file := func(name string, def []byte) []byte {
			b, err := os.ReadFile(filepath.Join(dir, e.Name(), name))
			if errors.Is(err, os.ErrNotExist) {
				return def
			}
			return must[[]byte](t)(b, err)
		}
		artifact := file("artifact", must[[]byte](t)(os.ReadFile(filepath.Join(dir, "a.txt"))))
		d := BundleDemand{TrustedRoot: file("trusted_root.json", known)}
		var keyErr error
		if pem := file("key.pub", nil); pem != nil {
			d.Key, keyErr = ParseKey(pem)
		} else {
			d.SAN = strings.TrimSpace(string(file("identity", []byte("https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main"))))
			d.Issuer = strings.TrimSpace(string(file("issuer", []byte("https://token.actions.githubusercontent.com"))))
		}
		for _, byDigest := range []bool{false, true} {
			d.Artifact, d.Digest = bytes.NewReader(artifact), canon.Digest{}
			if byDigest {
				d.Artifact, d.Digest = nil, canon.Sum(artifact)
			}
			_, err := Bundle(file("bundle.sigstore.json", nil), d)
			if keyErr != nil {
				err = keyErr
			}
			if want := !strings.HasSuffix(e.Name(), "_fail"); (err == nil) != want {
				t.Errorf("%s, by digest %v: %v, want success %v", e.Name(), byDigest, err, want)
			}
			cases++
		}
	}
	if cases == 0 {
		t.Errorf("no cases in %s", dir)
	}
	t.Logf("%d cases", cases)
}
