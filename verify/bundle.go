package verify

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// MaxAnyBundle bounds a bundle of any signer about any file, in bytes. Bills of
// materials of other projects reach some MiB; parsed, a bundle takes four times
// its size.
const MaxAnyBundle = 8 << 20

// BundleDemand is what [Bundle] asks of a Sigstore bundle. Exactly one of Key and
// SAN with Issuer names the signer.
type BundleDemand struct {
	// TrustedRoot is a Sigstore trusted_root.json: the certificate authorities,
	// logs and timestamp authorities to believe.
	TrustedRoot []byte

	Key    Key    // the signer's
	SAN    string // subject alternative name of the signer's certificate, exact
	Issuer string // of the OIDC token that the certificate was given for, exact

	// Exactly one of Artifact and Digest says what must have been signed, or be a
	// subject of the signed in-toto statement. Artifact is read once.
	Artifact io.Reader
	Digest   canon.Digest

	// InsecureIgnoreSCT accepts a certificate of which no certificate transparency
	// log has given notice. Without such a log nobody sees a false one.
	InsecureIgnoreSCT bool
}

// SignedBundle is what was verified about a bundle.
type SignedBundle struct {
	Bundle        canon.Digest `json:"bundle"`                  // SHA-256 of its bytes
	MediaType     string       `json:"mediaType"`               // of the bundle
	PredicateType string       `json:"predicateType,omitempty"` // of the statement; "" when the file itself is signed
	KeyID         canon.Digest `json:"key,omitzero"`            // SHA-256 of the public key; zero with a certificate
	SAN           string       `json:"certificateIdentity,omitempty"`
	Issuer        string       `json:"certificateOidcIssuer,omitempty"`
	Times         []string     `json:"times"` // of signing, by logs and timestamp authorities: RFC 3339, UTC
	LogEntries    int          `json:"logEntries"`
}

// ErrRoot: bytes are no Sigstore trusted root.
var ErrRoot = errors.New("not a usable Sigstore trusted root")

// Bundle verifies one Sigstore bundle of any version, over a file itself or a
// DSSE envelope with an in-toto statement of any type, against what is asked.
// One rule holds for all: an entry in a transparency log, a time by a log or a
// timestamp authority, and with a certificate a signed certificate timestamp.
//
// What releases need is more and is asked by [Verifier]; this is for bundles of
// others. A bundle that does not meet the demand is ErrBundle, with the reason.
// ErrRoot and others mean that the demand cannot be judged. It does not panic,
// whatever the bytes.
func Bundle(raw []byte, want BundleDemand) (signed *SignedBundle, err error) {
	defer func() {
		if r := recover(); r != nil { // of the library, over hostile bytes
			signed, err = nil, fmt.Errorf("%w: %v", ErrBundle, r)
		}
	}()
	byKey := !want.Key.IsZero()
	if byKey == (want.SAN != "" && want.Issuer != "") || byKey && want.SAN+want.Issuer != "" {
		return nil, errors.New("bundle: want a key, or a certificate's identity with its issuer, to hold it against")
	}
	if (want.Artifact == nil) == want.Digest.IsZero() {
		return nil, errors.New("bundle: want an artifact or its digest")
	}
	material, err := trustedMaterial(want)
	if err != nil {
		return nil, err
	}
	if len(raw) > MaxAnyBundle {
		return nil, fmt.Errorf("%w: %w: limit %d bytes", ErrBundle, canon.ErrTooLarge, MaxAnyBundle)
	}
	if err := countValues(raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	options := []sgverify.VerifierOption{sgverify.WithTransparencyLog(1), sgverify.WithObserverTimestamps(1), sgverify.WithoutStatementPredicate()}
	if !byKey && !want.InsecureIgnoreSCT {
		options = append(options, sgverify.WithSignedCertificateTimestamps(1))
	}
	v, err := sgverify.NewVerifier(material, options...)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	who := sgverify.WithKey()
	if !byKey {
		id, err := sgverify.NewShortCertificateIdentity(want.Issuer, "", want.SAN, "")
		if err != nil {
			return nil, fmt.Errorf("bundle: %w", err)
		}
		who = sgverify.WithCertificateIdentity(id)
	}
	what := sgverify.WithArtifactDigest("sha256", want.Digest[:])
	artifact := &readFailure{r: want.Artifact}
	if want.Artifact != nil {
		what = sgverify.WithArtifact(artifact)
	}
	result, err := v.Verify(&b, sgverify.NewPolicy(what, who))
	switch {
	case artifact.err != nil:
		return nil, fmt.Errorf("reading the artifact: %w", artifact.err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	entries, err := b.TlogEntries()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	signed = &SignedBundle{Bundle: canon.Sum(raw), MediaType: b.GetMediaType(), LogEntries: len(entries)}
	if result.Statement != nil {
		signed.PredicateType = result.Statement.GetPredicateType()
	}
	if byKey {
		signed.KeyID = want.Key.ID()
	} else {
		signed.SAN, signed.Issuer = want.SAN, want.Issuer
	}
	for _, t := range result.VerifiedTimestamps {
		signed.Times = append(signed.Times, t.Timestamp.UTC().Format(time.RFC3339))
	}
	return signed, nil
}

// trustedMaterial is the trusted root, with the key if the signer has one.
func trustedMaterial(want BundleDemand) (root.TrustedMaterial, error) {
	trusted, err := parseRoot(want.TrustedRoot)
	if err != nil {
		return nil, err
	}
	if want.Key.IsZero() {
		return trusted, nil
	}
	raw, err := signature.LoadVerifier(want.Key.pub, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	// The bundle's hint of its key is the signer's to choose: the key is tried.
	key := root.NewExpiringKey(raw, time.Time{}, time.Time{})
	keys := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return key, nil })
	return root.TrustedMaterialCollection{trusted, keys}, nil
}

// countValues reports JSON of more than maxValues tokens, before a library makes
// an object of each.
func countValues(raw []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(raw))
	for n := 0; ; n++ {
		switch _, err := d.ReadToken(); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case n == maxValues:
			return fmt.Errorf("%w: limit %d JSON values", canon.ErrTooLarge, maxValues)
		}
	}
}

// readFailure remembers why a reader failed: that is no fault of the bundle.
type readFailure struct {
	r   io.Reader
	err error
}

func (f *readFailure) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}
