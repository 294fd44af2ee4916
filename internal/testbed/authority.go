//go:build linux

package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"time"
)

// authority is a key and the chain of certificates over it, the key's own
// first and the root last.
type authority struct {
	key   *ecdsa.PrivateKey
	chain []*x509.Certificate
}

// Usages of a key that a certificate is limited to.
var (
	codeSigning  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}
	timeStamping = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
	extendedUse  = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// newAuthority makes a root and below it the certificate of the authority: an
// intermediate that signs certificates of that usage, or, for timestamps, a
// leaf. It is valid from one hour ago for a day.
func newAuthority(name string, usage asn1.ObjectIdentifier, now time.Time) (*authority, error) {
	usages, err := asn1.Marshal([]asn1.ObjectIdentifier{usage})
	if err != nil {
		return nil, err
	}
	root := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{Organization: []string{"bhtrain testbed"}, CommonName: name + " root"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	below := *root
	below.SerialNumber = big.NewInt(2)
	below.Subject.CommonName = name
	// RFC 3161 demands that time stamping is critical, so it stands here and not
	// in ExtKeyUsage, which never is.
	below.ExtraExtensions = []pkix.Extension{{Id: extendedUse, Critical: usage.Equal(timeStamping), Value: usages}}
	if usage.Equal(timeStamping) {
		below.IsCA = false
		below.KeyUsage = x509.KeyUsageDigitalSignature
	} else {
		below.MaxPathLenZero = true
	}

	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if root, err = certify(root, root, rootKey.Public(), rootKey); err != nil {
		return nil, err
	}
	leaf, err := certify(&below, root, key.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	return &authority{key, []*x509.Certificate{leaf, root}}, nil
}

func certify(c, parent *x509.Certificate, of crypto.PublicKey, by *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, of, by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// write puts the chain and the private key into files.
func (a *authority) write(chain, key string) error {
	var b bytes.Buffer
	for _, c := range a.chain {
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			return err
		}
	}
	if err := os.WriteFile(chain, b.Bytes(), 0o600); err != nil {
		return err
	}
	return writeKey(key, a.key)
}

// writeKey writes a private key as PKCS #8 in PEM.
func writeKey(path string, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}
