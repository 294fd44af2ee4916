//go:build linux

package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"os"
	"time"
)

// The JSON forms of Sigstore's protocol buffers, as far as needed here. Bytes
// are base64 in them, as encoding/json has it.
type (
	trustedRoot struct {
		MediaType              string          `json:"mediaType"`
		Tlogs                  []logInstance   `json:"tlogs"`
		CertificateAuthorities []authorityRoot `json:"certificateAuthorities"`
		TimestampAuthorities   []authorityRoot `json:"timestampAuthorities"`
	}
	logInstance struct {
		BaseURL       string    `json:"baseUrl"`
		HashAlgorithm string    `json:"hashAlgorithm"`
		PublicKey     publicKey `json:"publicKey"`
		LogID         keyBytes  `json:"logId"`
	}
	publicKey struct {
		RawBytes   []byte    `json:"rawBytes"` // DER, SubjectPublicKeyInfo
		KeyDetails string    `json:"keyDetails"`
		ValidFor   timeRange `json:"validFor"`
	}
	keyBytes struct {
		KeyID []byte `json:"keyId"`
	}
	authorityRoot struct {
		Subject struct {
			Organization string `json:"organization"`
			CommonName   string `json:"commonName"`
		} `json:"subject"`
		URI       string `json:"uri"`
		CertChain struct {
			Certificates []rawBytes `json:"certificates"`
		} `json:"certChain"`
		ValidFor timeRange `json:"validFor"`
	}
	rawBytes struct {
		RawBytes []byte `json:"rawBytes"`
	}
	timeRange struct {
		Start time.Time `json:"start"`
	}

	signingConfig struct {
		MediaType       string    `json:"mediaType"`
		CAURLs          []service `json:"caUrls"`
		OIDCURLs        []service `json:"oidcUrls"`
		RekorTlogURLs   []service `json:"rekorTlogUrls"`
		RekorTlogConfig selection `json:"rekorTlogConfig"`
		TSAURLs         []service `json:"tsaUrls"`
		TSAConfig       selection `json:"tsaConfig"`
	}
	service struct {
		URL             string    `json:"url"`
		MajorAPIVersion int       `json:"majorApiVersion"`
		ValidFor        timeRange `json:"validFor"`
		Operator        string    `json:"operator"`
	}
	selection struct {
		Selector string `json:"selector"`
	}
)

// rekorOrigin names the log in its checkpoints. Verifiers take it for the host
// of the log's base URL, which in a trusted root is a name and no address.
const rekorOrigin = "rekor.testbed"

func newAuthorityRoot(uri string, a *authority) (r authorityRoot) {
	root := a.chain[len(a.chain)-1]
	r.Subject.Organization = root.Subject.Organization[0]
	r.Subject.CommonName = root.Subject.CommonName
	r.URI = uri
	for _, c := range a.chain {
		r.CertChain.Certificates = append(r.CertChain.Certificates, rawBytes{c.Raw})
	}
	r.ValidFor.Start = root.NotBefore
	return r
}

// newTrustedRoot returns what a verifier must believe to believe the stack.
func newTrustedRoot(at endpoints, ca, tsa *authority, log ed25519.PublicKey, start time.Time) (*trustedRoot, error) {
	der, err := x509.MarshalPKIXPublicKey(log)
	if err != nil {
		return nil, err
	}
	// The key id of a signed note (c2sp.org/signed-note), in full length; 1 is Ed25519.
	id := sha256.Sum256(append([]byte(rekorOrigin+"\n\x01"), log...))
	return &trustedRoot{
		MediaType: "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		Tlogs: []logInstance{{
			BaseURL: "https://" + rekorOrigin, HashAlgorithm: "SHA2_256", LogID: keyBytes{id[:]},
			PublicKey: publicKey{RawBytes: der, KeyDetails: "PKIX_ED25519", ValidFor: timeRange{start}},
		}},
		CertificateAuthorities: []authorityRoot{newAuthorityRoot(at.Fulcio, ca)},
		TimestampAuthorities:   []authorityRoot{newAuthorityRoot(at.TSA, tsa)},
	}, nil
}

// newSigningConfig returns where a signer finds the services of the stack.
func newSigningConfig(at endpoints, start time.Time) *signingConfig {
	one := func(url string, version int) []service {
		return []service{{URL: url, MajorAPIVersion: version, ValidFor: timeRange{start}, Operator: "testbed"}}
	}
	return &signingConfig{
		MediaType:       "application/vnd.dev.sigstore.signingconfig.v0.2+json",
		CAURLs:          one(at.Fulcio, 1),
		OIDCURLs:        one(at.Issuer, 1),
		RekorTlogURLs:   one(at.Rekor, 2),
		RekorTlogConfig: selection{"ANY"},
		TSAURLs:         one(at.TSA, 1),
		TSAConfig:       selection{"ANY"},
	}
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}
