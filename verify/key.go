package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// ErrKey: text that was given as a public key is none that is accepted.
var ErrKey = errors.New("not a usable public key")

// Key is an ECDSA public key on P-256, the one kind of key that signs
// statements. The zero Key verifies nothing. A Key is immutable and may be
// used by many goroutines.
type Key struct {
	pub *ecdsa.PublicKey
	der string // SubjectPublicKeyInfo
}

// NewKey returns the Key of pub. A curve other than P-256, or a point that is
// not on it, is ErrKey.
func NewKey(pub *ecdsa.PublicKey) (Key, error) {
	if pub == nil || pub.Curve != elliptic.P256() {
		return Key{}, fmt.Errorf("%w: want ECDSA on P-256", ErrKey)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return Key{}, fmt.Errorf("%w: %v", ErrKey, err)
	}
	return Key{pub: pub, der: string(der)}, nil
}

// ParseKey reads a public key from PEM: one block "PUBLIC KEY" holding the
// DER of a P-256 key in its one canonical encoding, white space around it and
// nothing else. Everything else is ErrKey; a private key is named as such.
func ParseKey(text []byte) (Key, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN ")) {
		return Key{}, fmt.Errorf("%w: want PEM that begins with -----BEGIN PUBLIC KEY-----", ErrKey)
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return Key{}, fmt.Errorf("%w: broken PEM", ErrKey)
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return Key{}, fmt.Errorf("%w: this is a private key; name its public half (.pub)", ErrKey)
	case block.Type != "PUBLIC KEY":
		return Key{}, fmt.Errorf("%w: PEM block %q, want \"PUBLIC KEY\"", ErrKey, Printable(block.Type))
	case len(block.Headers) > 0:
		return Key{}, fmt.Errorf("%w: PEM headers", ErrKey)
	case len(bytes.TrimSpace(rest)) > 0:
		return Key{}, fmt.Errorf("%w: more text after the PEM block", ErrKey)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("%w: %v", ErrKey, err)
	}
	ec, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return Key{}, fmt.Errorf("%w: %T, want ECDSA on P-256", ErrKey, pub)
	}
	k, err := NewKey(ec)
	if err != nil {
		return Key{}, err
	}
	if k.der != string(block.Bytes) {
		return Key{}, fmt.Errorf("%w: not in canonical DER", ErrKey)
	}
	return k, nil
}

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.pub == nil }

// Equal reports whether k and other are the same key.
func (k Key) Equal(other Key) bool { return k.der == other.der }

// ID is the SHA-256 of the key's SubjectPublicKeyInfo (DER): what people
// compare and what tables print.
func (k Key) ID() canon.Digest { return canon.Sum([]byte(k.der)) }

// PEM is the text that ParseKey reads, ending in a line feed.
func (k Key) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte(k.der)}))
}
