package e2e

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// stack is the registry and the Sigstore that internal/testbed runs.
type stack struct {
	dir string

	Registry    string `json:"registry"`
	Fulcio      string `json:"fulcio"`
	TSA         string `json:"tsa"`
	Rekor       string `json:"rekor"`
	Issuer      string `json:"issuer"`
	TokenURL    string `json:"token_url"`
	TokenSecret string `json:"token_secret"`
}

func newStack(t testing.TB) *stack {
	t.Helper()
	s := &stack{dir: os.Getenv("BH_STACK")}
	if s.dir == "" {
		testkit.Missing(t, "no Sigstore is running (run under internal/testbed/run)")
	}
	b, err := os.ReadFile(s.file("endpoints.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// file is the path of a file of the stack.
func (s *stack) file(name string) string { return filepath.Join(s.dir, name) }

// token returns a token of a run of a workflow in the repository.
func (s *stack) token(t testing.TB, repository string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.TokenURL+url.Values{"audience": {"sigstore"}, "repository": {repository}}.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "bearer "+s.TokenSecret)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var token struct{ Value string }
	if err := json.NewDecoder(answer.Body).Decode(&token); err != nil || token.Value == "" {
		t.Fatalf("%s: %v", answer.Status, err)
	}
	return token.Value
}

// san is the name in certificates for workflows of a repository.
func san(repository string) string {
	return "https://github.com/" + repository + "/.github/workflows/train.yml@refs/heads/main"
}

// tool runs one of the programs of the stack in an empty home and returns its
// exit code and all that it said.
func (u *user) tool(name string, args ...string) result {
	u.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		u.t.Fatal(err)
	}
	return u.run(nil, path, args...)
}

func (u *user) mustTool(name string, args ...string) string {
	u.t.Helper()
	r := u.tool(name, args...)
	if r.code != 0 {
		u.t.Fatalf("%s %s: exit code %d\n%s%s", name, strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// write puts a file into the user's directory and returns its path.
func (u *user) write(name string, data []byte) string {
	u.t.Helper()
	path := filepath.Join(u.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		u.t.Fatal(err)
	}
	return path
}

// The testbed writes trusted_root.json and signing_config.json itself. Cosign
// makes the same of the keys, certificates and addresses.
func TestStackIsDescribedAsCosignWould(t *testing.T) {
	s, u := newStack(t), newUser(t)
	b, err := os.ReadFile(s.file("rekor.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	public := u.write("rekor.pub", publicPEM(t, key))
	root := decode[map[string]any](t, s.file("trusted_root.json"))
	start := root["tlogs"].([]any)[0].(map[string]any)["publicKey"].(map[string]any)["validFor"].(map[string]any)["start"].(string)

	u.mustTool("cosign", "trusted-root", "create",
		"--fulcio=url="+s.Fulcio+",certificate-chain="+s.file("ca.pem"),
		"--tsa=url="+s.TSA+",certificate-chain="+s.file("tsa.pem"),
		"--rekor=url=https://rekor.testbed,public-key="+public+",start-time="+start+",origin=rekor.testbed", "--out=root.json")
	if theirs := decode[map[string]any](t, filepath.Join(u.dir, "root.json")); !reflect.DeepEqual(root, theirs) {
		t.Errorf("trusted_root.json differs from cosign's:\n%v\n%v", root, theirs)
	}

	service := func(url, version string) string {
		return "url=" + url + ",api-version=" + version + ",start-time=" + start + ",operator=testbed"
	}
	u.mustTool("cosign", "signing-config", "create",
		"--fulcio="+service(s.Fulcio, "1"), "--oidc-provider="+service(s.Issuer, "1"),
		"--tsa="+service(s.TSA, "1"), "--tsa-config=ANY",
		"--rekor="+service(s.Rekor, "2"), "--rekor-config=ANY", "--out=config.json")
	config := decode[map[string]any](t, s.file("signing_config.json"))
	if theirs := decode[map[string]any](t, filepath.Join(u.dir, "config.json")); !reflect.DeepEqual(config, theirs) {
		t.Errorf("signing_config.json differs from cosign's:\n%v\n%v", config, theirs)
	}
}

// publicPEM is the public half of a private key.
func publicPEM(t testing.TB, private any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(private.(crypto.Signer).Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// decode reads a JSON file.
func decode[T any](t testing.TB, path string) (v T) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
