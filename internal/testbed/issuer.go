//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// issuer is an OpenID Connect issuer of tokens for workflow runs, with the
// claims that GitHub Actions has. Tokens are signed with ES256 and last five
// minutes.
type issuer struct {
	url    string
	secret string
	key    *ecdsa.PrivateKey
}

const keyID = "1"

// newIssuer starts to serve on the listener, until that is closed.
func newIssuer(l net.Listener) (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	i := &issuer{url: "http://" + l.Addr().String(), secret: rand.Text(), key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", i.configuration)
	mux.HandleFunc("GET /keys", i.keys)
	mux.HandleFunc("GET /token", i.token)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(l) // ends when the process does
	return i, nil
}

func (i *issuer) configuration(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{
		"issuer":                                i.url,
		"jwks_uri":                              i.url + "/keys",
		"response_types_supported":              []string{"id_token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256"},
	})
}

func (i *issuer) keys(w http.ResponseWriter, _ *http.Request) {
	point, err := i.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, map[string]any{"keys": []any{map[string]string{
		"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": keyID,
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]),
		"y": base64.RawURLEncoding.EncodeToString(point[33:]),
	}}})
}

// token answers who knows the secret with a token.
func (i *issuer) token(w http.ResponseWriter, r *http.Request) {
	if subtle.ConstantTimeCompare([]byte(strings.ToLower(r.Header.Get("Authorization"))), []byte("bearer "+strings.ToLower(i.secret))) != 1 {
		http.Error(w, "not authorized", http.StatusUnauthorized)
		return
	}
	token, err := i.sign(claims(r.URL.Query()), time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, map[string]string{"value": token})
}

// claims are those of a run of a workflow.
func claims(q url.Values) map[string]any {
	get := func(name, otherwise string) string {
		if v := q.Get(name); v != "" {
			return v
		}
		return otherwise
	}
	repository := get("repository", "battle-hardened-ai/models")
	owner, _, _ := strings.Cut(repository, "/")
	ref := get("ref", "refs/heads/main")
	sha := get("sha", "0123456789abcdef0123456789abcdef01234567")
	workflow := repository + "/" + get("workflow", ".github/workflows/train.yml") + "@" + ref
	return map[string]any{
		"aud":                   get("audience", "https://github.com/"+owner),
		"sub":                   "repo:" + repository + ":ref:" + ref,
		"repository":            repository,
		"repository_id":         "1001",
		"repository_owner":      owner,
		"repository_owner_id":   "1000",
		"repository_visibility": "public",
		"ref":                   ref,
		"sha":                   sha,
		"workflow":              "train",
		"workflow_ref":          workflow,
		"workflow_sha":          sha,
		"job_workflow_ref":      workflow,
		"job_workflow_sha":      sha,
		"event_name":            get("event", "schedule"),
		"run_id":                "42",
		"run_attempt":           "1",
		"runner_environment":    "github-hosted",
	}
}

// sign returns a JSON web token with the claims and those of time and issuer.
func (i *issuer) sign(claims map[string]any, now time.Time) (string, error) {
	claims = maps.Clone(claims)
	claims["iss"], claims["iat"], claims["nbf"], claims["exp"] = i.url, now.Unix(), now.Unix(), now.Add(5*time.Minute).Unix()
	head, err := json.Marshal(map[string]string{"alg": "ES256", "typ": "JWT", "kid": keyID})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body)
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, digest[:])
	if err != nil {
		return "", err
	}
	var signature [64]byte // r and s, of 32 bytes each (RFC 7518, 3.4)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature[:]), nil
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // who is gone needs no answer
}

// fulcioConfig is Fulcio's configuration: tokens of the issuer become
// certificates with the extensions that Fulcio's public instance gives to
// workflows of GitHub.
func fulcioConfig(issuer string) map[string]any {
	return map[string]any{
		"OIDCIssuers": map[string]any{issuer: map[string]string{
			"IssuerURL": issuer, "ClientID": "sigstore", "Type": "ci-provider", "CIProvider": "workflow",
		}},
		"CIIssuerMetadata": map[string]any{"workflow": map[string]any{
			"DefaultTemplateValues":          map[string]string{"url": "https://github.com"},
			"SubjectAlternativeNameTemplate": "{{ .url }}/{{ .job_workflow_ref }}",
			"ExtensionTemplates": map[string]string{
				"GithubWorkflowTrigger":               "event_name",
				"GithubWorkflowSHA":                   "sha",
				"GithubWorkflowName":                  "workflow",
				"GithubWorkflowRepository":            "repository",
				"GithubWorkflowRef":                   "ref",
				"BuildSignerURI":                      "{{ .url }}/{{ .job_workflow_ref }}",
				"BuildSignerDigest":                   "job_workflow_sha",
				"RunnerEnvironment":                   "runner_environment",
				"SourceRepositoryURI":                 "{{ .url }}/{{ .repository }}",
				"SourceRepositoryDigest":              "sha",
				"SourceRepositoryRef":                 "ref",
				"SourceRepositoryIdentifier":          "repository_id",
				"SourceRepositoryOwnerURI":            "{{ .url }}/{{ .repository_owner }}",
				"SourceRepositoryOwnerIdentifier":     "repository_owner_id",
				"BuildConfigURI":                      "{{ .url }}/{{ .workflow_ref }}",
				"BuildConfigDigest":                   "workflow_sha",
				"BuildTrigger":                        "event_name",
				"RunInvocationURI":                    "{{ .url }}/{{ .repository }}/actions/runs/{{ .run_id }}/attempts/{{ .run_attempt }}",
				"SourceRepositoryVisibilityAtSigning": "repository_visibility",
			},
		}},
	}
}
