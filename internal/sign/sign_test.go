package sign_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/internal/sign/signtest"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

const (
	issuer  = "https://token.actions.githubusercontent.com"
	subject = "https://github.com/o/r/.github/workflows/train.yml@refs/heads/main"
)

func statement(t *testing.T) verify.Statement {
	t.Helper()
	s := verify.Statement{
		Type:          verify.StatementV1,
		Subject:       []verify.Resource{{Name: "x", Digest: verify.Digests(canon.Sum([]byte("x")))}},
		PredicateType: "https://example.org/v1",
		Predicate:     jsontext.Value(`{"a":1}`),
	}
	if _, err := s.Encode(); err != nil {
		t.Fatal(err)
	}
	return s
}

func services(t *testing.T, config, trusted string) *sign.Services {
	t.Helper()
	s, err := sign.LoadServices(config, trusted, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keyless(t *testing.T, s *sign.Services, token string) *sign.Signer {
	t.Helper()
	signer, err := sign.Keyless(sign.TokenText(token), s)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func ownKey(t *testing.T) *sign.Signer {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("AppData", home)
	s, err := sign.DefaultKey("")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// judged verifies a keyless bundle as anybody would: identity, time and log.
func judged(t *testing.T, text []byte, trustedRoot, san string) error {
	t.Helper()
	trusted, err := root.NewTrustedRootFromPath(trustedRoot)
	if err != nil {
		t.Fatal(err)
	}
	v, err := sgverify.NewVerifier(trusted, sgverify.WithSignedTimestamps(1), sgverify.WithTransparencyLog(1))
	if err != nil {
		t.Fatal(err)
	}
	id, err := sgverify.NewShortCertificateIdentity(issuer, "", san, "")
	if err != nil {
		t.Fatal(err)
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	d := canon.Sum([]byte("x"))
	_, err = v.Verify(&b, sgverify.NewPolicy(sgverify.WithArtifactDigest("sha256", d[:]), sgverify.WithCertificateIdentity(id)))
	return err
}

func TestKeylessSignatureVerifiesForItsIdentityAndNoOther(t *testing.T) {
	store := signtest.New(t)
	signer := keyless(t, services(t, store.SigningConfig, store.TrustedRoot), store.Token(issuer, subject))
	text, err := signer.Sign(t.Context(), statement(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := store.Requests(); !slices.Equal(got, []string{"certificates", "timestamps", "log"}) {
		t.Errorf("asked %q", got)
	}
	if err := judged(t, text, store.TrustedRoot, subject); err != nil {
		t.Errorf("refused: %v", err)
	}
	if id, err := signer.Identity("me", text); err != nil || id.Certificate == nil || id.Certificate.Issuer != issuer || id.Certificate.SAN != subject || id.Name != "me" {
		t.Errorf("identity %v, %v", id, err)
	}
	if err := judged(t, text, store.TrustedRoot, strings.Replace(subject, "main", "other", 1)); err == nil {
		t.Error("accepted for another identity")
	}
	if err := judged(t, text, signtest.New(t).TrustedRoot, subject); err == nil {
		t.Error("accepted with another trusted root")
	}
}

func TestKeyWithServicesIsWitnessedByThoseOfTheConfig(t *testing.T) {
	store := signtest.New(t)
	own := ownKey(t)
	for _, use := range [][]string{nil, {"timestamps"}, {"timestamps", "log"}, {"log"}} {
		s := own.With(services(t, store.Config(use...), store.TrustedRoot))
		text, err := s.Sign(t.Context(), statement(t))
		if err != nil {
			t.Errorf("%q: %v", use, err)
			continue
		}
		if got := store.Requests(); !slices.Equal(got, use) {
			t.Errorf("%q: asked %q", use, got)
		}
		var b bundle.Bundle
		if err := b.UnmarshalJSON(text); err != nil {
			t.Fatal(err)
		}
		stamps := len(b.GetVerificationMaterial().GetTimestampVerificationData().GetRfc3161Timestamps())
		entries := len(b.GetVerificationMaterial().GetTlogEntries())
		if (stamps == 1) != slices.Contains(use, "timestamps") || (entries == 1) != slices.Contains(use, "log") {
			t.Errorf("%q: %d timestamps, %d log entries", use, stamps, entries)
		}
	}
}

func TestKeylessWithoutServicesThatMakeItLastIsRefused(t *testing.T) {
	store := signtest.New(t)
	for _, use := range [][]string{nil, {"certificates"}, {"certificates", "log"}, {"timestamps", "log"}} {
		s := services(t, store.Config(use...), store.TrustedRoot)
		if _, err := sign.Keyless(sign.TokenText("t"), s); !errors.Is(err, sign.ErrServices) {
			t.Errorf("%q: %v", use, err)
		}
	}
	if _, err := sign.Keyless(sign.TokenText("t"), nil); !errors.Is(err, sign.ErrServices) {
		t.Errorf("no services: %v", err)
	}
}

func TestOwnOutputThatTheTrustedRootRefusesIsNotReturned(t *testing.T) {
	store, other := signtest.New(t), signtest.New(t)
	for name, s := range map[string]*sign.Signer{
		"keyless":        keyless(t, services(t, store.SigningConfig, other.TrustedRoot), store.Token(issuer, subject)),
		"key, timestamp": ownKey(t).With(services(t, store.Config("timestamps"), other.TrustedRoot)),
		"key, log":       ownKey(t).With(services(t, store.Config("log"), other.TrustedRoot)),
	} {
		if text, err := s.Sign(t.Context(), statement(t)); !errors.Is(err, sign.ErrUnverified) || text != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServiceThatFailsIsNamedAndTheTokenIsNot(t *testing.T) {
	store := signtest.New(t)
	token := store.Token(issuer, subject)
	signer := keyless(t, services(t, store.SigningConfig, store.TrustedRoot), token)
	for service, name := range map[string]string{"certificates": "certificate authority", "timestamps": "timestamp authority", "log": "transparency log"} {
		for _, answer := range []struct {
			name string
			f    http.HandlerFunc
			want string
		}{
			{"refusal that repeats the token", func(w http.ResponseWriter, r *http.Request) {
				http.Error(w, "no "+r.Header.Get("Authorization")+"\x1b[2J", http.StatusForbidden)
			}, "403"},
			{"redirect", func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
			}, ""},
			{"nonsense", func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusCreated)
				w.Write([]byte("hello"))
			}, ""},
		} {
			store.SetAnswer(func(asked string, w http.ResponseWriter, r *http.Request) bool {
				if asked == service {
					answer.f(w, r)
				}
				return asked == service
			})
			_, err := signer.Sign(t.Context(), statement(t))
			switch {
			case !errors.Is(err, sign.ErrService):
				t.Errorf("%s, %s: %v", service, answer.name, err)
			case !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), answer.want):
				t.Errorf("%s, %s: does not say so: %v", service, answer.name, err)
			case strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "\x1b"):
				t.Errorf("%s, %s: says too much: %v", service, answer.name, err)
			}
		}
	}
}

func TestPassingFailuresOfAServiceAreSurvived(t *testing.T) {
	store := signtest.New(t)
	signer := keyless(t, services(t, store.SigningConfig, store.TrustedRoot), store.Token(issuer, subject))
	failures := map[string]int{"certificates": 1, "timestamps": 1}
	store.SetAnswer(func(asked string, w http.ResponseWriter, _ *http.Request) bool {
		failures[asked]--
		if failures[asked] < 0 {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	if _, err := signer.Sign(t.Context(), statement(t)); err != nil {
		t.Error(err)
	}
	failures = map[string]int{"timestamps": 100}
	if _, err := signer.Sign(t.Context(), statement(t)); !errors.Is(err, sign.ErrService) || !strings.Contains(err.Error(), "503") {
		t.Errorf("a service that stays away: %v", err)
	}
}

func TestInterruptedSigningEnds(t *testing.T) {
	store := signtest.New(t)
	signer := keyless(t, services(t, store.SigningConfig, store.TrustedRoot), store.Token(issuer, subject))
	for _, service := range []string{"certificates", "timestamps", "log"} {
		ctx, cancel := context.WithCancel(t.Context())
		store.SetAnswer(func(asked string, _ http.ResponseWriter, r *http.Request) bool {
			if asked == service {
				io.Copy(io.Discard, r.Body) // only then the server notices that the client left
				cancel()
				select {
				case <-r.Context().Done():
				case <-time.After(10 * time.Second):
				}
			}
			return asked == service
		})
		start := time.Now()
		if _, err := signer.Sign(ctx, statement(t)); !errors.Is(err, context.Canceled) || time.Since(start) > 5*time.Second {
			t.Errorf("%s: %v after %v", service, err, time.Since(start))
		}
		cancel()
	}
}

func TestServicesThatCannotBeUsedAreRefused(t *testing.T) {
	store := signtest.New(t)
	config, err := os.ReadFile(store.SigningConfig)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "f.json")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, text := range map[string]string{
		"no JSON":             "x",
		"another media type":  strings.Replace(string(config), "signingconfig.v0.2", "signingconfig.v0.9", 1),
		"an unknown member":   strings.Replace(string(config), `"tsaConfig"`, `"unknown"`, 1),
		"no count of logs":    strings.Replace(string(config), `"rekorTlogConfig"`, `"oidcUrls":[],"rekorTlogConfigs"`, 1),
		"HTTP over a network": strings.ReplaceAll(string(config), "http://127.0.0.1", "http://192.0.2.1"),
		"a user in the URL":   strings.ReplaceAll(string(config), "http://127.0.0.1", "https://user:secret@192.0.2.1"),
		"not a URL":           strings.ReplaceAll(string(config), "http://127.0.0.1", "ftp://127.0.0.1"),
		"too large":           string(config) + strings.Repeat(" ", 1<<20),
		"none at all":         "",
		"only null":           "null",
		"another log version": strings.ReplaceAll(string(config), `"majorApiVersion":2`, `"majorApiVersion":9`),
	} {
		_, err := sign.LoadServices(write(text), store.TrustedRoot, time.Now())
		if !errors.Is(err, sign.ErrServices) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := sign.LoadServices(store.SigningConfig, store.TrustedRoot, time.Now().Add(-48*time.Hour)); !errors.Is(err, sign.ErrServices) {
		t.Errorf("before any service is valid: %v", err)
	}
	for name, path := range map[string]string{"no file": store.TrustedRoot + ".none", "no JSON": write("x"), "another document": store.SigningConfig} {
		if _, err := sign.LoadServices(store.SigningConfig, path, time.Now()); !errors.Is(err, sign.ErrServices) {
			t.Errorf("trusted root, %s: %v", name, err)
		}
	}
}

func TestTokenForAnybodyElseIsNeverSent(t *testing.T) {
	store := signtest.New(t)
	s := services(t, store.SigningConfig, store.TrustedRoot)
	claims := func(aud any) string {
		return signtest.Token(map[string]any{"aud": aud, "iss": issuer, "sub": subject})
	}
	for name, token := range map[string]string{
		"another audience":  claims("https://github.com/o"),
		"other audiences":   claims([]string{"a", "b"}),
		"no audience":       claims(nil),
		"a number":          claims(7),
		"a like audience":   claims("sigstore.example.org"),
		"empty":             "",
		"no token":          "ghp_secretsecretsecret",
		"two parts":         "e30.e30",
		"claims not JSON":   "e30.eA.e30",
		"claims not base64": "e30.e.e30",
		"too long":          claims(strings.Repeat("x", 32<<10)),
		"line breaks":       strings.Replace(claims("sigstore"), ".", ".\n", 1),
	} {
		_, err := keyless(t, s, token).Sign(t.Context(), statement(t))
		if !errors.Is(err, sign.ErrToken) || len(token) > 20 && strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := store.Requests(); len(got) > 0 {
		t.Errorf("asked %q", got)
	}
	if _, err := keyless(t, s, claims([]string{"x", "sigstore"})).Sign(t.Context(), statement(t)); err != nil && !errors.Is(err, sign.ErrService) {
		t.Errorf("sigstore among others: %v", err)
	}
}

func TestAmbientTokenComesFromTheEnvironment(t *testing.T) {
	store := signtest.New(t)
	token := store.Token(issuer, subject)
	const bearer = "bearer-secret"
	actions := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer "+bearer:
			http.Error(w, "who? "+r.Header.Get("Authorization"), http.StatusUnauthorized)
		case r.URL.Path == "/leak":
			w.Write([]byte("not JSON " + token))
		case r.URL.Path == "/away":
			http.Redirect(w, r, "/token", http.StatusFound)
		case r.URL.Query().Get("audience") != "sigstore" || r.URL.Query().Get("api-version") != "2":
			http.Error(w, "no audience", http.StatusBadRequest)
		default:
			w.Write([]byte(`{"count":1,"value":"` + token + `"}`))
		}
	}))
	defer actions.Close()
	github := func(path, bearer string) map[string]string {
		return map[string]string{"GITHUB_ACTIONS": "true", "ACTIONS_ID_TOKEN_REQUEST_URL": actions.URL + path + "?api-version=2", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": bearer}
	}
	get := func(env map[string]string) (string, error) {
		f, err := sign.AmbientToken(func(name string) string { return env[name] })
		if err != nil {
			return "", err
		}
		return f(t.Context())
	}
	for name, env := range map[string]map[string]string{
		"GitHub Actions": github("/token", bearer),
		"variable":       {"SIGSTORE_ID_TOKEN": token + "\n"},
	} {
		if got, err := get(env); err != nil || got != token {
			t.Errorf("%s: %v", name, err)
		}
	}
	remote := github("/token", bearer)
	remote["ACTIONS_ID_TOKEN_REQUEST_URL"] = "http://192.0.2.1/token"
	for name, c := range map[string]struct {
		env  map[string]string
		want string
	}{
		"nothing":           {nil, "--identity-token"},
		"no permission":     {map[string]string{"GITHUB_ACTIONS": "true"}, "id-token: write"},
		"wrong bearer":      {github("/token", "other-secret"), "401"},
		"not JSON":          {github("/leak", bearer), "not JSON"},
		"redirect":          {github("/away", bearer), "redirects"},
		"HTTP on a network": {remote, "https"},
	} {
		_, err := get(c.env)
		if !errors.Is(err, sign.ErrToken) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestOptionsThatContradictAreRefused(t *testing.T) {
	for want, o := range map[string]sign.Options{
		"exclude":         {Keyless: true, Key: "k", Sigstore: "public-good"},
		"needs --key":     {PasswordFile: "p"},
		"belong together": {SigningConfig: "s"},
		"public-good":     {Sigstore: "private"},
		"--sigstore and":  {Sigstore: "public-good", SigningConfig: "s", TrustedRoot: "t"},
		"needs services":  {TokenFile: "t"},
	} {
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
		if _, err := sign.Open(t.Context(), o); err == nil {
			t.Errorf("%+v was opened", o)
		}
	}
}

func TestOpenSignsKeylessWithATokenFromAFile(t *testing.T) {
	store := signtest.New(t)
	s, err := sign.Open(t.Context(), sign.Options{
		TokenFile: store.TokenFile(issuer, subject), SigningConfig: store.SigningConfig, TrustedRoot: store.TrustedRoot, Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := s.Sign(t.Context(), statement(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := judged(t, text, store.TrustedRoot, subject); err != nil {
		t.Error(err)
	}
}

// The statement is told who signs before anything is signed.
func TestSignAs(t *testing.T) {
	ctx := context.Background()
	instance := signtest.New(t)
	signer := keyless(t, services(t, instance.SigningConfig, instance.TrustedRoot), instance.Token(issuer, subject))
	var told verify.Identity
	signed, err := signer.SignAs(ctx, func(who verify.Identity) (verify.Statement, error) {
		told = who
		return statement(t), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	who, err := signer.Identity("signer", signed)
	if err != nil || told.Certificate == nil || *told.Certificate != *who.Certificate || told.Certificate.SAN != subject {
		t.Errorf("told %+v, signed by %+v, %v", told, who, err)
	}
	stop := errors.New("stop")
	instance.Requests()
	if signed, err := signer.SignAs(ctx, func(verify.Identity) (verify.Statement, error) { return verify.Statement{}, stop }); !errors.Is(err, stop) || signed != nil {
		t.Errorf("%v", err)
	}
	if got := instance.Requests(); slices.Contains(got, "log") || slices.Contains(got, "timestamps") {
		t.Errorf("asked %v for a statement that there is not", got)
	}
}
