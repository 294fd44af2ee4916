package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// signer is somebody who signs, with our commands or with cosign, and how
// others name them.
type signer struct {
	keyless  bool
	ours     []string       // flags of bhtrain
	theirs   []string       // flags of cosign attest
	believed []string       // flags of cosign verify-attestation
	policy   string         // an identity in a policy, without its name, indented by four
	stranger string         // the check of a verdict that fails for another of the kind
	demand   string         // what a policy with that identity must say besides
	script   map[string]any // of testdata/sigstore.js
}

// keyless is a workflow of a repository.
func (s *stack) keyless(u *user, repository string) signer {
	u.t.Helper()
	token := u.write("token-"+strings.ReplaceAll(repository, "/", "-"), []byte(s.token(u.t, repository)))
	return signer{
		keyless:  true,
		stranger: "signer",
		ours:     append([]string{"--keyless", "--identity-token", token}, s.services()...),
		theirs:   append([]string{"--identity-token", token}, s.services()...),
		believed: []string{"--certificate-identity", san(repository), "--certificate-oidc-issuer", s.Issuer, "--insecure-ignore-sct"},
		policy:   fmt.Sprintf("    certificate:\n      issuer: %s\n      san: %s\n", s.Issuer, san(repository)),
		demand:   "insecure_ignore_sct: true\n", // there is no certificate transparency log
		script:   map[string]any{"identity": map[string]string{"san": san(repository), "issuer": s.Issuer}},
	}
}

// withKey is a key pair that cosign makes: encrypted, in a form of its own.
func (s *stack) withKey(u *user, name string) signer {
	u.t.Helper()
	u.env = []string{"COSIGN_PASSWORD=correct horse"}
	u.mustTool("cosign", "generate-key-pair", "--output-key-prefix", name)
	public, err := os.ReadFile(filepath.Join(u.dir, name+".pub"))
	if err != nil {
		u.t.Fatal(err)
	}
	block, _ := pem.Decode(public)
	return signer{
		stranger: "signature",
		ours:     append([]string{"--key", name + ".key"}, s.services()...),
		theirs:   append([]string{"--key", name + ".key"}, s.services()...),
		believed: []string{"--key", name + ".pub"},
		policy:   fmt.Sprintf("    key: %s.pub\n", name),
		script:   map[string]any{"key": base64.StdEncoding.EncodeToString(block.Bytes)},
	}
}

func (s *stack) services() []string {
	return []string{"--signing-config", s.file("signing_config.json"), "--trusted-root", s.file("trusted_root.json")}
}

// eachSigner runs a test with a workflow and with a key, each beside another of
// its kind.
func eachSigner(t *testing.T, test func(t *testing.T, s *stack, u *user, by, other signer)) {
	newStack(t)
	t.Run("keyless", func(t *testing.T) {
		s, u := newStack(t), newUser(t)
		test(t, s, u, s.keyless(u, "example/models"), s.keyless(u, "example/other"))
	})
	t.Run("key", func(t *testing.T) {
		s, u := newStack(t), newUser(t)
		test(t, s, u, s.withKey(u, "publisher"), s.withKey(u, "other"))
	})
}

// damages are what somebody with write access to a registry can do to a bundle.
var damages = []struct {
	name   string
	check  string // of a verdict that fails
	damage func(t *testing.T, bundle map[string]any)
}{
	{"changed payload", "signature", func(t *testing.T, b map[string]any) {
		envelope := b["dsseEnvelope"].(map[string]any)
		payload, err := base64.StdEncoding.DecodeString(envelope["payload"].(string))
		changed := bytes.Replace(payload, []byte(`"product":"bhtrain"`), []byte(`"product":"bhtrein"`), 1)
		if err != nil || bytes.Equal(changed, payload) {
			t.Fatalf("%v in %s", err, payload)
		}
		envelope["payload"] = base64.StdEncoding.EncodeToString(changed)
	}},
	{"removed timestamp", "time", func(t *testing.T, b map[string]any) {
		removeMember(t, b["verificationMaterial"], "timestampVerificationData")
	}},
	{"missing log entry", "log", func(t *testing.T, b map[string]any) {
		removeMember(t, b["verificationMaterial"], "tlogEntries")
	}},
}

func removeMember(t *testing.T, object any, name string) {
	t.Helper()
	m := object.(map[string]any)
	if m[name] == nil {
		t.Fatalf("no %s in %v", name, m)
	}
	delete(m, name)
}

// damaged is a bundle after a damage.
func damaged(t *testing.T, bundle []byte, damage func(*testing.T, map[string]any)) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(bundle, &m); err != nil {
		t.Fatal(err)
	}
	damage(t, m)
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// expired is the trusted root of the stack after its authorities have ended.
func (s *stack) expired(u *user) string {
	u.t.Helper()
	root := decode[map[string]any](u.t, s.file("trusted_root.json"))
	for _, kind := range []string{"certificateAuthorities", "timestampAuthorities"} {
		window := root[kind].([]any)[0].(map[string]any)["validFor"].(map[string]any)
		window["end"] = window["start"]
	}
	b, err := json.Marshal(root)
	if err != nil {
		u.t.Fatal(err)
	}
	return u.write("expired.json", b)
}

// TestBundleOfAnybody is about bundles that have nothing to do with releases.
func TestBundleOfAnybody(t *testing.T) {
	eachSigner(t, func(t *testing.T, s *stack, u *user, by, other signer) {
		u.write("file", []byte("anything\n"))
		u.write("changed", []byte("anything else\n"))
		u.write("predicate.json", []byte(`{"anything": true}`))
		sign := func(command string, flags ...string) string {
			out := command + ".json"
			u.mustTool("cosign", append(append([]string{command, "--yes", "--bundle", out}, append(flags, by.theirs...)...), "file")...)
			return out
		}
		for _, bundle := range []string{sign("sign-blob"), sign("attest-blob", "--predicate", "predicate.json", "--type", "https://example.org/any")} {
			verify := func(code int, artifact, bundle, root string, signer []string) {
				t.Helper()
				u.fails(code, "", "bhverify", append([]string{"bundle", "--artifact", artifact, "--bundle", bundle, "--trusted-root", root}, signer...)...)
			}
			root := s.file("trusted_root.json")
			verify(0, "file", bundle, root, by.believed)
			verify(0, canon.Sum([]byte("anything\n")).String(), bundle, root, by.believed)
			verify(3, "changed", bundle, root, by.believed)
			verify(3, canon.Sum(nil).String(), bundle, root, by.believed)
			verify(3, "file", bundle, root, other.believed)
			verify(3, "file", bundle, s.expired(u), by.believed)
			if by.keyless { // without the last flag, --insecure-ignore-sct
				verify(3, "file", bundle, root, by.believed[:len(by.believed)-1])
			}
			b, err := os.ReadFile(filepath.Join(u.dir, bundle))
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range damages[1:] { // those of every bundle
				verify(3, "file", u.write("damaged.json", damaged(t, b, d.damage)), root, by.believed)
			}
		}
	})
}
