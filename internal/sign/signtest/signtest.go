// Package signtest is a Sigstore in the process of a test: a certificate
// authority, a timestamp authority and a transparency log (Rekor v2) on
// loopback, with the signing config and the trusted root that name them. It
// believes every token. Only tests import it; the real servers are for the
// end-to-end tests.
package signtest

import (
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
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	rekorpb "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore/pkg/signature"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Sigstore is one instance. Its services stop when the test ends.
type Sigstore struct {
	SigningConfig string // file that names the services
	TrustedRoot   string // file with their keys

	// Answer, if not nil, is asked before each request to a service
	// ("certificates", "timestamps", "log") and reports whether it has answered.
	Answer func(service string, w http.ResponseWriter, r *http.Request) bool

	t        testing.TB
	url      string
	mu       sync.Mutex
	requests []string // service names, in order

	caCert, tsaCert *x509.Certificate
	caKey, tsaKey   *ecdsa.PrivateKey
	tsaLeafKey      *ecdsa.PrivateKey
	tsaLeaf         *x509.Certificate
	logKey          *ecdsa.PrivateKey
}

// New starts an instance whose certificates are valid around the present.
func New(t testing.TB) *Sigstore {
	t.Helper()
	s := &Sigstore{t: t}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	rootCert, rootKey, err := ca.GenerateRootCa()
	must(err)
	s.caCert, s.caKey, err = ca.GenerateFulcioIntermediate(rootCert, rootKey)
	must(err)
	s.tsaCert, s.tsaKey, err = ca.GenerateTSAIntermediate(rootCert, rootKey)
	must(err)
	s.tsaLeafKey, s.logKey = newKey(t), newKey(t)
	s.tsaLeaf, err = ca.GenerateTSALeafCert(time.Now().Add(-time.Minute), s.tsaLeafKey, s.tsaCert, s.tsaKey)
	must(err)

	mux := http.NewServeMux()
	for path, h := range map[string]struct {
		service string
		f       func(http.ResponseWriter, []byte, string) error
	}{
		"POST /api/v2/signingCert": {"certificates", s.certificate},
		"POST /api/v1/timestamp":   {"timestamps", s.timestamp},
		"POST /api/v2/log/entries": {"log", s.entry},
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			s.requests = append(s.requests, h.service)
			answer := s.Answer
			s.mu.Unlock()
			if answer != nil && answer(h.service, w, r) {
				return
			}
			body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
			if err == nil {
				err = h.f(w, body, r.Header.Get("Authorization"))
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		})
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL

	start, end := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	logID := sha256.Sum256(spki(t, &s.logKey.PublicKey))
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01,
		[]root.CertificateAuthority{&root.FulcioCertificateAuthority{
			Root: rootCert, Intermediates: []*x509.Certificate{s.caCert}, ValidityPeriodStart: start, ValidityPeriodEnd: end, URI: s.url,
		}}, nil,
		[]root.TimestampingAuthority{&root.SigstoreTimestampingAuthority{
			Root: rootCert, Intermediates: []*x509.Certificate{s.tsaCert}, Leaf: s.tsaLeaf, ValidityPeriodStart: start, ValidityPeriodEnd: end, URI: s.url,
		}},
		map[string]*root.TransparencyLog{hex.EncodeToString(logID[:]): {
			BaseURL: s.url, ID: logID[:], ValidityPeriodStart: start, ValidityPeriodEnd: end,
			HashFunc: crypto.SHA256, PublicKey: &s.logKey.PublicKey, SignatureHashFunc: crypto.SHA256,
		}})
	must(err)
	text, err := trusted.MarshalJSON()
	must(err)
	dir := t.TempDir()
	s.TrustedRoot = filepath.Join(dir, "trusted_root.json")
	must(os.WriteFile(s.TrustedRoot, text, 0o644))
	s.SigningConfig = s.Config("certificates", "timestamps", "log")
	return s
}

// Config writes a signing config that names only these services.
func (s *Sigstore) Config(services ...string) string {
	s.t.Helper()
	start := time.Now().Add(-time.Hour)
	one := root.ServiceConfiguration{Selector: prototrustroot.ServiceSelector_ANY}
	config, err := root.NewSigningConfig(root.SigningConfigMediaType02, nil, nil, nil, one, nil, one)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range services {
		switch name {
		case "certificates":
			config.AddFulcioCertificateAuthorityURLs(root.Service{URL: s.url, MajorAPIVersion: 1, ValidityPeriodStart: start, Operator: "test"})
		case "timestamps":
			config.AddTimestampAuthorityURLs(root.Service{URL: s.url + "/api/v1/timestamp", MajorAPIVersion: 1, ValidityPeriodStart: start, Operator: "test"})
		case "log":
			config.AddRekorLogURLs(root.Service{URL: s.url, MajorAPIVersion: 2, ValidityPeriodStart: start, Operator: "test"})
		default:
			s.t.Fatalf("no service %q", name)
		}
	}
	text, err := config.MarshalJSON()
	if err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.t.TempDir(), "signing_config.json")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// Requests are the services that were asked since the last call, in order.
func (s *Sigstore) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.requests
	s.requests = nil
	return list
}

// SetAnswer sets Answer while requests may be under way.
func (s *Sigstore) SetAnswer(f func(service string, w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Answer = f
}

// Token is a token for the audience sigstore: who issued it, for whom, and
// what else a certificate shall hold, by claim: source_repository, source_ref
// and workflow.
func (s *Sigstore) Token(issuer, subject string, more ...string) string {
	claims := map[string]string{"aud": "sigstore", "iss": issuer, "sub": subject}
	for i := 0; i+1 < len(more); i += 2 {
		claims[more[i]] = more[i+1]
	}
	return Token(claims)
}

// TokenFile writes a token to a file.
func (s *Sigstore) TokenFile(issuer, subject string, more ...string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(s.Token(issuer, subject, more...)+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// Token is an unsigned JSON web token with these claims.
func Token(claims any) string {
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	return part(map[string]string{"alg": "none"}) + "." + part(claims) + "." + base64.RawURLEncoding.EncodeToString([]byte("unsigned"))
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func spki(t testing.TB, pub *ecdsa.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// extensions of a Fulcio certificate by claim.
var extensions = map[string]int{"iss": 8, "workflow": 18, "source_repository": 12, "source_ref": 14}

func (s *Sigstore) certificate(w http.ResponseWriter, body []byte, authorization string) error {
	var req struct {
		PublicKeyRequest struct {
			PublicKey         struct{ Algorithm, Content string }
			ProofOfPossession []byte
		}
	}
	token, bearer := strings.CutPrefix(authorization, "Bearer ")
	parts := strings.Split(token, ".")
	if err := json.Unmarshal(body, &req); err != nil || !bearer || len(parts) != 3 {
		return errors.New("no token")
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return err
	}
	var claims map[string]string
	if err := json.Unmarshal(text, &claims); err != nil {
		return err
	}
	block, _ := pem.Decode([]byte(req.PublicKeyRequest.PublicKey.Content))
	if block == nil {
		return errors.New("no key")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	pub, ok := key.(*ecdsa.PublicKey)
	sum := sha256.Sum256([]byte(claims["sub"]))
	if !ok || !ecdsa.VerifyASN1(pub, sum[:], req.PublicKeyRequest.ProofOfPossession) {
		return errors.New("no proof of possession")
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Second), NotAfter: time.Now().Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if u, err := url.Parse(claims["sub"]); err == nil && u.Scheme != "" {
		template.URIs = []*url.URL{u}
	} else {
		template.EmailAddresses = []string{claims["sub"]}
	}
	for claim, n := range extensions {
		if claims[claim] == "" {
			continue
		}
		value, err := asn1.MarshalWithParams(claims[claim], "utf8")
		if err != nil {
			return err
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, n}, Value: value})
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.caCert, pub, s.caKey)
	if err != nil {
		return err
	}
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return json.NewEncoder(w).Encode(map[string]any{
		"signedCertificateDetachedSct": map[string]any{"chain": map[string]any{"certificates": []string{cert}}},
	})
}

func (s *Sigstore) timestamp(w http.ResponseWriter, body []byte, _ string) error {
	req, err := timestamp.ParseRequest(body)
	if err != nil {
		return err
	}
	stamp := timestamp.Timestamp{
		HashAlgorithm: req.HashAlgorithm, HashedMessage: req.HashedMessage, Nonce: req.Nonce,
		Time: time.Now(), Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2},
	}
	answer, err := stamp.CreateResponseWithOpts(s.tsaLeaf, s.tsaLeafKey, crypto.SHA256)
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	_, err = w.Write(answer)
	return err
}

// entry answers with a log of one entry: that one.
func (s *Sigstore) entry(w http.ResponseWriter, body []byte, _ string) error {
	var req rekorpb.CreateEntryRequest
	if err := protojson.Unmarshal(body, &req); err != nil {
		return err
	}
	hashed := req.GetHashedRekordRequestV002()
	if hashed == nil {
		return errors.New("no hashedrekord")
	}
	text, err := protojson.Marshal(&rekorpb.Entry{
		ApiVersion: "0.0.2", Kind: "hashedrekord",
		Spec: &rekorpb.Spec{Spec: &rekorpb.Spec_HashedRekordV002{HashedRekordV002: &rekorpb.HashedRekordLogEntryV002{
			Data:      &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: hashed.GetDigest()},
			Signature: hashed.GetSignature(),
		}}},
	})
	if err != nil {
		return err
	}
	leaf, err := canon.Canonicalize(text)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(append([]byte{0}, leaf...)) // RFC 6962, and the root of a tree of one
	u, err := url.Parse(s.url)
	if err != nil {
		return err
	}
	signer, err := signature.LoadECDSASignerVerifier(s.logKey, crypto.SHA256)
	if err != nil {
		return err
	}
	noted, err := rekornote.NewNoteSigner(s.t.Context(), u.Hostname(), signer)
	if err != nil {
		return err
	}
	checkpoint, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n1\n%s\n", u.Hostname(), base64.StdEncoding.EncodeToString(hash[:]))}, noted)
	if err != nil {
		return err
	}
	logID := sha256.Sum256(spki(s.t, &s.logKey.PublicKey))
	answer, err := protojson.Marshal(&protorekor.TransparencyLogEntry{
		LogId:       &protocommon.LogId{KeyId: logID[:]},
		KindVersion: &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.2"},
		InclusionProof: &protorekor.InclusionProof{
			TreeSize: 1, RootHash: hash[:], Checkpoint: &protorekor.Checkpoint{Envelope: string(checkpoint)},
		},
		CanonicalizedBody: leaf,
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	_, err = w.Write(answer)
	return err
}
