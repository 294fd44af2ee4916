package verify

import (
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// ErrBundle: bytes are no Sigstore bundle of the form that is accepted.
var ErrBundle = errors.New("not a usable Sigstore bundle")

// errNoKey: no trusted key made the signature, or it is not over a statement.
var errNoKey = errors.New("no trusted key made this signature over an in-toto statement")

// keyVerifier checks signatures of one key.
type keyVerifier struct {
	publisher Identity
	verifier  *sgverify.Verifier
}

// newKeyVerifier returns a verifier for p's key. A bundle's hint of its key is
// under the signer's control and unsigned: it is ignored, the key is tried.
//
// No time is asked for: keys of a policy have no validity window, and a
// signature without a time stamp has no time to hold against one.
func newKeyVerifier(p Identity) (keyVerifier, error) {
	raw, err := signature.LoadVerifier(p.Key.pub, crypto.SHA256)
	if err != nil {
		return keyVerifier{}, fmt.Errorf("publisher %q: %w", p.Name, err)
	}
	key := root.NewExpiringKey(raw, time.Time{}, time.Time{})
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return key, nil })
	v, err := sgverify.NewVerifier(material, sgverify.WithNoObserverTimestamps(), sgverify.WithoutStatementPredicate())
	if err != nil {
		return keyVerifier{}, fmt.Errorf("publisher %q: %w", p.Name, err)
	}
	return keyVerifier{publisher: p, verifier: v}, nil
}

// verifyBundle checks one bundle against the keys and returns the signed
// payload and the publisher whose key made the signature. The payload is not
// looked into beyond that it is an in-toto statement by its payload type; what
// it speaks about is for the caller to judge, on these bytes and no others.
//
// It never panics, whatever the bytes.
func verifyBundle(raw []byte, keys []keyVerifier) (payload []byte, by Identity, err error) {
	defer func() {
		if r := recover(); r != nil { // hostile bytes must not end an agent, whichever library they reach
			payload, by, err = nil, Identity{}, fmt.Errorf("%w: %v", ErrBundle, r)
		}
	}()
	if len(raw) > oras.MaxBundle {
		return nil, Identity{}, fmt.Errorf("%w: %w: limit %d bytes", ErrBundle, canon.ErrTooLarge, oras.MaxBundle)
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		return nil, Identity{}, fmt.Errorf("%w: %v", ErrBundle, err)
	}
	if t := b.GetMediaType(); t != oras.TypeBundle {
		return nil, Identity{}, fmt.Errorf("%w: media type %q, want %s", ErrBundle, t, oras.TypeBundle)
	}
	env, err := b.Envelope()
	if err != nil {
		return nil, Identity{}, fmt.Errorf("%w: signs no DSSE envelope", ErrBundle)
	}
	if env.PayloadType != PayloadType {
		return nil, Identity{}, fmt.Errorf("%w: payload type %q, want %s", ErrBundle, env.PayloadType, PayloadType)
	}
	if n := len(env.Signatures); n != 1 {
		return nil, Identity{}, fmt.Errorf("%w: %d signatures, want exactly one", ErrBundle, n)
	}
	content, err := b.VerificationContent()
	if err != nil {
		return nil, Identity{}, fmt.Errorf("%w: %v", ErrBundle, err)
	}
	if content.PublicKey() == nil {
		return nil, Identity{}, fmt.Errorf("%w: signed with a certificate, and the policy trusts keys only", ErrBundle)
	}
	if payload, err = env.DecodeB64Payload(); err != nil {
		return nil, Identity{}, fmt.Errorf("%w: %v", ErrBundle, err)
	}
	if len(payload) > maxStatement {
		return nil, Identity{}, fmt.Errorf("%w: statement of %d bytes, limit %d", ErrBundle, len(payload), maxStatement)
	}
	// The subject is checked by the caller, as a check of its own with what was
	// observed, hence no artifact here.
	policy := sgverify.NewPolicy(sgverify.WithoutArtifactUnsafe(), sgverify.WithoutIdentitiesUnsafe(), sgverify.WithKey())
	for _, k := range keys {
		if _, err := k.verifier.Verify(&b, policy); err == nil {
			return payload, k.publisher, nil
		}
	}
	return nil, Identity{}, errNoKey
}
