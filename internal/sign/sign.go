// Package sign signs in-toto statements as Sigstore bundles: with a key from a
// file, or keyless, with a certificate that a Fulcio instance issues for an
// OIDC identity; either with signed timestamps and entries in transparency logs
// when services are given.
//
// It is the one package that can sign. It reads no clock and no environment:
// both come in through [Options]. What it returns it has verified.
package sign

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/battle-hardened-ai/bhtrain/verify"
)

// ErrUnverified: a signature was made, and the trusted root does not accept
// what the services gave for it. It was not returned.
var ErrUnverified = errors.New("the finished signature does not verify")

// Signer signs statements. It may be used by many goroutines.
type Signer struct {
	key      *ecdsa.PrivateKey // nil: keyless, a new key for each statement
	pub      verify.Key
	path     string
	made     bool
	token    Token     // of a keyless signer
	services *Services // nil: none is asked
}

// Keyless returns a signer that asks the certificate authority of the services
// for a certificate each time it signs, for the identity of the token. Services
// without a certificate authority or without a timestamp authority are
// ErrServices: such a certificate is valid for minutes, so that nobody could
// verify the signature later.
func Keyless(token Token, services *Services) (*Signer, error) {
	switch {
	case services == nil || services.authority == "":
		return nil, fmt.Errorf("%w: keyless signing needs a certificate authority (Fulcio)", ErrServices)
	case len(services.timestamps) == 0:
		return nil, fmt.Errorf("%w: keyless signing needs a timestamp authority: certificates expire within minutes", ErrServices)
	}
	return &Signer{token: token, services: services}, nil
}

// With returns a signer that signs as s does and asks the services for signed
// timestamps and log entries.
func (s *Signer) With(services *Services) *Signer {
	t := *s
	t.services = services
	return &t
}

// Keyless reports whether s signs with certificates instead of a key of its own.
func (s *Signer) Keyless() bool { return s.key == nil }

// Key is the public half of the key, the zero Key of a keyless signer.
func (s *Signer) Key() verify.Key { return s.pub }

// Services are the services that s asks, nil for none.
func (s *Signer) Services() *Services { return s.services }

// Path is the file that the private key was read from, "" of a keyless signer.
func (s *Signer) Path() string { return s.path }

// PublicPath is the file beside Path where DefaultKey writes the public key:
// the same name, ending in .pub.
func (s *Signer) PublicPath() string { return publicPath(s.path) }

// Made reports whether DefaultKey made the key just now.
func (s *Signer) Made() bool { return s.made }

// Sign signs the canonical JSON of statement and returns a Sigstore bundle
// (v0.3, compact JSON) with a DSSE envelope. It was verified with the signer's
// own key, or with the trusted root, before it is returned. Two calls give two
// bundles: ECDSA signatures are randomised.
//
// A service that does not give what it should is ErrService, a token that cannot be
// had or must not be sent ErrToken, a result that does not verify ErrUnverified.
func (s *Signer) Sign(ctx context.Context, statement verify.Statement) ([]byte, error) {
	return s.SignAs(ctx, func(verify.Identity) (verify.Statement, error) { return statement, nil })
}

// SignAs is Sign for a statement that depends on who signs it: say is given the
// key, or issuer and name of the certificate, before anything is signed.
func (s *Signer) SignAs(ctx context.Context, say func(verify.Identity) (verify.Statement, error)) ([]byte, error) {
	pair := keypair{s.key, s.pub}
	var options sign.BundleOptions
	who := verify.Identity{Name: "signer", Key: s.pub}
	if s.Keyless() {
		var err error
		if pair, err = newKeypair(); err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		if options, err = s.certificate(ctx); err != nil {
			return nil, err
		}
		der, err := options.CertificateProvider.GetCertificate(ctx, pair, options.CertificateProviderOptions)
		if err != nil {
			return nil, err
		}
		if who, err = identityOf("signer", der); err != nil {
			return nil, err
		}
		options.CertificateProvider = issued(der)
	}
	statement, err := say(who)
	if err != nil {
		return nil, err
	}
	payload, err := statement.Encode()
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	options.Context = ctx
	b, err := sign.Bundle(&sign.DSSEData{Data: payload, PayloadType: verify.PayloadType}, pair, options)
	if err != nil {
		return nil, err
	}
	if s.services != nil {
		if err := s.services.witness(ctx, b, pair.pub); err != nil {
			return nil, err
		}
	}
	if err := s.check(b, pair.pub); err != nil {
		return nil, err
	}
	text, err := protojson.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	v := jsontext.Value(text) // protojson varies its white space from build to build
	if err := v.Compact(); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return v, nil
}

// Identity is who signed bundle, which Sign returned: the signer's key, or
// whom the certificate in the bundle names, under the given display name.
func (s *Signer) Identity(name string, signed []byte) (verify.Identity, error) {
	if !s.Keyless() {
		return verify.Identity{Name: name, Key: s.pub}, nil
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(signed); err != nil {
		return verify.Identity{}, fmt.Errorf("sign: %w", err)
	}
	return identityOf(name, b.GetVerificationMaterial().GetCertificate().GetRawBytes())
}

// issued is a certificate authority that has given its certificate already.
type issued []byte

func (der issued) GetCertificate(context.Context, sign.Keypair, *sign.CertificateProviderOptions) ([]byte, error) {
	return der, nil
}

// identityOf is whom a certificate names.
func identityOf(name string, der []byte) (verify.Identity, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return verify.Identity{}, fmt.Errorf("sign: %w", err)
	}
	c, err := certificate.SummarizeCertificate(cert)
	if err != nil {
		return verify.Identity{}, fmt.Errorf("sign: %w", err)
	}
	return verify.Identity{Name: name, Certificate: &verify.CertificateIdentity{Issuer: c.Issuer, SAN: c.SubjectAlternativeName}}, nil
}

// check verifies a finished bundle: that each service gave what it was asked
// for, and that the trusted root accepts it.
func (s *Signer) check(b *protobundle.Bundle, pub verify.Key) error {
	var trusted root.TrustedMaterialCollection
	var options []sgverify.VerifierOption
	policy := []sgverify.PolicyOption{sgverify.WithoutIdentitiesUnsafe()} // which identity is for the verifier's policy
	if !s.Keyless() {
		raw, err := signature.LoadVerifier(&s.key.PublicKey, crypto.SHA256)
		if err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		own := root.NewExpiringKey(raw, time.Time{}, time.Time{})
		trusted = append(trusted, root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return own, nil }))
		policy = append(policy, sgverify.WithKey())
	}
	times := false
	if v := s.services; v != nil {
		trusted = append(trusted, v.trusted)
		if n := len(v.timestamps); n > 0 {
			times = true
			options = append(options, sgverify.WithSignedTimestamps(n))
		}
		if n := len(v.logs); n > 0 {
			options = append(options, sgverify.WithTransparencyLog(n))
		}
		if s.Keyless() && len(v.trusted.CTLogs()) > 0 {
			options = append(options, sgverify.WithSignedCertificateTimestamps(1))
		}
	}
	if !times {
		options = append(options, sgverify.WithNoObserverTimestamps())
	}
	verifier, err := sgverify.NewVerifier(trusted, options...)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	signed, err := bundle.NewBundle(b)
	if err == nil {
		_, err = verifier.Verify(signed, sgverify.NewPolicy(sgverify.WithoutArtifactUnsafe(), policy...))
	}
	if err != nil {
		return fmt.Errorf("%w: %s: is the trusted root that of these services?", ErrUnverified, verify.Printable(err.Error()))
	}
	return nil
}

// keypair is a key as sigstore-go wants to see it.
type keypair struct {
	key *ecdsa.PrivateKey
	pub verify.Key
}

func newKeypair() (keypair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keypair{}, err
	}
	pub, err := verify.NewKey(&key.PublicKey)
	return keypair{key, pub}, err
}

func (keypair) GetHashAlgorithm() protocommon.HashAlgorithm {
	return protocommon.HashAlgorithm_SHA2_256
}

func (keypair) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256
}

// GetHint is what cosign writes for a key, so that its tables show the same.
func (k keypair) GetHint() []byte {
	id := k.pub.ID()
	return []byte(base64.StdEncoding.EncodeToString(id[:]))
}

func (keypair) GetKeyAlgorithm() string { return "ECDSA" }

func (k keypair) GetPublicKey() crypto.PublicKey { return &k.key.PublicKey }

func (k keypair) GetPublicKeyPem() (string, error) { return k.pub.PEM(), nil }

func (k keypair) SignData(_ context.Context, data []byte) (sig, digest []byte, err error) {
	sum := sha256.Sum256(data)
	sig, err = ecdsa.SignASN1(rand.Reader, k.key, sum[:])
	return sig, sum[:], err
}

// verifierPEM is what a transparency log shall verify the signature of b with:
// the certificate in it, else the key.
func verifierPEM(b *protobundle.Bundle, pub verify.Key) []byte {
	if c := b.GetVerificationMaterial().GetCertificate(); c != nil {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.GetRawBytes()})
	}
	return []byte(pub.PEM())
}
