package sign

import (
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/sign/signtest"
)

func FuzzToken(f *testing.F) {
	f.Add(signtest.Token(map[string]any{"aud": "sigstore", "sub": "x"}))
	f.Add(signtest.Token(map[string]any{"aud": []string{"a", "sigstore"}}))
	f.Add(signtest.Token(map[string]any{"aud": 7}))
	f.Add("e30.e30.e30")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := checkToken(text)
		switch {
		case err != nil && (got != "" || !errors.Is(err, ErrToken)):
			t.Errorf("%q, %v", got, err)
		case err == nil && !tokenPattern.MatchString(got):
			t.Errorf("accepted %q", got)
		}
	})
}

func FuzzPrivateKey(f *testing.F) {
	for _, kind := range []string{"PRIVATE KEY", "PUBLIC KEY", "EC PRIVATE KEY", "CERTIFICATE"} {
		f.Add(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("0\x82\x01")}))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		block, _ := pem.Decode(text)
		if block != nil && block.Type != "PRIVATE KEY" && block.Type != "PUBLIC KEY" {
			text = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: block.Bytes}) // the cost of a passphrase is chosen by its file
		}
		if key, err := parsePrivateKey(text, nil); (key == nil) == (err == nil) {
			t.Errorf("%v, %v", key, err)
		}
	})
}

var fuzzNow = time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)

func FuzzServices(f *testing.F) {
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogUrls":[{"url":"https://x","majorApiVersion":2}]}`), []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`))
	f.Add([]byte(`{}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, config, trusted []byte) {
		s, err := newServices(config, trusted, fuzzNow)
		if (s == nil) == (err == nil) || err != nil && !errors.Is(err, ErrServices) {
			t.Errorf("%+v, %v", s, err)
		}
	})
}
