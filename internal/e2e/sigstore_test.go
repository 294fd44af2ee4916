package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// copies of one release in the registry of a stack.
type copies struct {
	u       *user
	s       *stack
	release canon.Digest
	first   string // repository that it was pushed to
	made    int
}

func newCopies(u *user, s *stack) *copies {
	c := &copies{u: u, s: s}
	c.make("1")
	return c
}

// make trains another release of the sample.
func (c *copies) make(seed string) {
	c.u.t.Helper()
	c.release = c.u.release("run", "--out", "dist-"+seed, "--unsigned", "--seed", seed).Release
	c.first = c.name()
	c.u.must("bhtrain", "push", "dist-"+seed, c.first)
}

func (c *copies) name() string {
	c.made++
	return fmt.Sprintf("%s/e2e/%s/%d", c.s.Registry, canon.Sum([]byte(c.u.dir)).Hex()[:16], c.made)
}

// place puts the release without statements into a new repository.
func (c *copies) place() string {
	c.u.t.Helper()
	repository := c.name()
	c.u.mustTool("crane", "copy", c.first+":latest", repository+":latest")
	return repository
}

// at is the release in a repository.
func (c *copies) at(repository string) string { return repository + "@" + c.release.String() }

// with puts the release and a bundle into a new repository.
func (c *copies) with(bundle []byte) string {
	c.u.t.Helper()
	repository := c.place()
	ctx, s := context.Background(), c.open(repository)
	d, err := s.Resolve(ctx, oras.TagLatest)
	if err == nil {
		_, err = oras.AttachBundle(ctx, s, d, bundle, verify.PredicateProvenance, oras.ProvenanceTag(d.Digest), time.Time{})
	}
	if err != nil {
		c.u.t.Fatal(err)
	}
	return repository
}

func (c *copies) open(repository string) oras.Store {
	c.u.t.Helper()
	s, err := oras.Open(context.Background(), oras.Ref{Repository: repository}, oras.Options{Write: true})
	if err != nil {
		c.u.t.Fatal(err)
	}
	return s
}

// bundle is the one statement about the release in a repository.
func (c *copies) bundle(repository string) []byte {
	c.u.t.Helper()
	list, err := oras.Bundles(context.Background(), c.open(repository), c.release, oras.ProvenanceTag(c.release))
	if err != nil || len(list.Bundles) != 1 {
		c.u.t.Fatalf("%v, %+v", err, list)
	}
	return list.Bundles[0].Data
}

// signed puts the release and our statement about it into a new repository.
func (c *copies) signed(by signer) string {
	c.u.t.Helper()
	repository := c.name()
	c.u.must("bhtrain", append([]string{"run", "--out", "signed"}, by.ours...)...)
	c.u.must("bhtrain", "push", "signed", repository)
	return repository
}

// replaced is a list of flags with another value for one.
func replaced(flags []string, name, value string) []string {
	out := append([]string(nil), flags...)
	for i, f := range out {
		if f == name {
			out[i+1] = value
		}
	}
	return out
}

// cosign asks cosign about a release and wants a yes or a no.
func (c *copies) cosign(yes bool, repository string, flags ...string) {
	c.u.t.Helper()
	args := append([]string{"verify-attestation", "--use-signed-timestamps", "--allow-http-registry"}, flags...)
	r := c.u.tool("cosign", append(args, c.at(repository))...)
	if (r.code == 0) != yes {
		c.u.t.Errorf("cosign %s: exit code %d\n%s", strings.Join(args, " "), r.code, r.err)
	} else if !yes {
		said, _, _ := strings.Cut(r.err, "\n")
		c.u.t.Log(said) // for people: cosign's words are no interface
	}
}

func TestCosignVerifiesOurs(t *testing.T) {
	eachSigner(t, func(t *testing.T, s *stack, u *user, by, other signer) {
		c := newCopies(u, s)
		repository := c.signed(by)
		bundle := c.bundle(repository)
		trusted := []string{"--trusted-root", s.file("trusted_root.json"), "--type", "slsaprovenance1"}
		good := append(trusted, by.believed...)

		u.must("bhverify", "release", c.at(repository), "--policy", c.policy("policy.yaml", by, ""))
		c.cosign(true, repository, good...)
		c.cosign(true, c.with(bundle), good...)
		c.cosign(false, repository, append(trusted, other.believed...)...)
		c.cosign(false, repository, replaced(good, "--type", "spdxjson")...)
		c.cosign(false, repository, replaced(good, "--trusted-root", s.expired(u))...)
		for _, d := range damages {
			c.cosign(false, c.with(damaged(t, bundle, d.damage)), good...)
		}
		if by.keyless {
			flag := "--certificate-github-workflow-repository"
			c.cosign(true, repository, append(good, flag, "example/models")...)
			c.cosign(false, repository, append(good, flag, "example/other")...)
		}

		// The statement is about one release only.
		c.make("2")
		c.cosign(false, c.with(bundle), good...)
	})
}

// policy is a policy that believes the signer as the stack's trusted root
// allows; more stands below the signer's identity.
func (c *copies) policy(name string, by signer, more string) string {
	c.u.t.Helper()
	root, err := os.ReadFile(c.s.file("trusted_root.json"))
	if err != nil {
		c.u.t.Fatal(err)
	}
	c.u.write("root.json", root)
	c.u.write(name, []byte("version: 1\nproduct: bhtrain\ntrusted_root: root.json\ntimestamps:\n  authority: 1\ntransparency_log: 1\n"+
		by.demand+"publishers:\n  - name: publisher\n"+by.policy+more))
	return name
}

// refused judges a release and wants a check of that name to be the first that fails.
func (c *copies) refused(check, repository, policy string) {
	c.u.t.Helper()
	r := c.u.run(nil, "bhverify", "release", c.at(repository), "--policy", policy, "--format", "json")
	var verdict struct {
		Checks []struct{ Name, Status, Observed, Reason string }
	}
	if err := json.Unmarshal([]byte(r.out), &verdict); err != nil || r.code != 3 {
		c.u.t.Errorf("%s: exit code %d, %v\n%s%s", policy, r.code, err, r.out, r.err)
		return
	}
	for _, k := range verdict.Checks {
		if k.Status == "fail" {
			if k.Name != check {
				c.u.t.Errorf("%s: refused for %+v, want %s", policy, k, check)
			}
			return
		}
	}
	c.u.t.Errorf("%s: no check failed: %s", policy, r.out)
}

// A job of GitHub Actions needs no token file: it asks for a token where its
// environment says.
func TestTokenOfTheEnvironment(t *testing.T) {
	s, u := newStack(t), newUser(t)
	c := newCopies(u, s)
	u.env = []string{"ACTIONS_ID_TOKEN_REQUEST_URL=" + s.TokenURL + "repository=example/models", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + s.TokenSecret}
	repository := c.signed(signer{ours: append([]string{"--keyless"}, s.services()...)})
	u.must("bhverify", "release", c.at(repository), "--policy", c.policy("policy.yaml", s.keyless(u, "example/models"), ""))
	c.refused("signer", repository, c.policy("other.yaml", s.keyless(u, "example/other"), ""))

	u.env[1] += "x"
	u.fails(1, "GitHub Actions gives none: HTTP status 401", "bhtrain", append([]string{"run", "--out", "none", "--keyless"}, s.services()...)...)
}

// predicate writes what our statement about the release claims, for cosign to
// sign, which makes the statement itself.
func (c *copies) predicate(bundle []byte) string {
	c.u.t.Helper()
	var b struct {
		DSSE struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	var statement struct {
		Predicate json.RawMessage `json:"predicate"`
	}
	if err := json.Unmarshal(bundle, &b); err != nil {
		c.u.t.Fatal(err)
	}
	if err := json.Unmarshal(b.DSSE.Payload, &statement); err != nil {
		c.u.t.Fatal(err)
	}
	c.u.write("predicate.json", statement.Predicate)
	return "predicate.json"
}

func TestWeVerifyCosigns(t *testing.T) {
	eachSigner(t, func(t *testing.T, s *stack, u *user, by, other signer) {
		c := newCopies(u, s)
		predicate := c.predicate(c.bundle(c.signed(signer{}))) // by a key of our own, which nobody is asked to believe
		attest := func(by signer, kind string) string {
			repository := c.place()
			u.mustTool("cosign", append(append([]string{"attest", "--yes", "--predicate", predicate, "--type", kind, "--allow-http-registry"},
				by.theirs...), c.at(repository))...)
			return repository
		}
		repository := attest(by, "slsaprovenance1")
		bundle := c.bundle(repository)
		good := c.policy("good.yaml", by, "")

		u.must("bhverify", "release", c.at(repository), "--policy", good)
		u.must("bhverify", "release", c.at(c.with(bundle)), "--policy", good)
		c.refused(by.stranger, repository, c.policy("other.yaml", other, ""))
		c.refused(by.stranger, attest(other, "slsaprovenance1"), good)
		c.refused("provenance.type", attest(by, "https://example.org/another/v1"), good)
		c.refused("signer", repository, c.policy("ended.yaml", by, "    not_after: 2026-01-01T00:00:00Z\n"))
		u.must("bhverify", "release", c.at(repository), "--policy", c.policy("lasting.yaml", by, "    not_before: 2026-01-01T00:00:00Z\n    not_after: 2100-01-01T00:00:00Z\n"))
		for _, d := range damages {
			c.refused(d.check, c.with(damaged(t, bundle, d.damage)), good)
		}
		if by.keyless {
			of := func(repository, ref, workflow string) string {
				return fmt.Sprintf("      source_repository: https://github.com/%s\n      source_ref: refs/%s\n      workflow: https://github.com/%s/.github/workflows/%s@refs/heads/main\n",
					repository, ref, repository, workflow)
			}
			u.must("bhverify", "release", c.at(repository), "--policy", c.policy("source.yaml", by, of("example/models", "heads/main", "train.yml")))
			c.refused("signer", repository, c.policy("repository.yaml", by, of("example/other", "heads/main", "train.yml")))
			c.refused("signer", repository, c.policy("ref.yaml", by, of("example/models", "heads/next", "train.yml")))
			c.refused("signer", repository, c.policy("workflow.yaml", by, of("example/models", "heads/main", "other.yml")))
		}

		// The statement is about one release only.
		c.make("2")
		c.refused("provenance.subject", c.with(bundle), good)
	})
}

// TestSigstoreJS asks an implementation that shares no code with ours.
func TestSigstoreJS(t *testing.T) {
	eachSigner(t, func(t *testing.T, s *stack, u *user, by, other signer) {
		testkit.NodeModules(t)
		c := newCopies(u, s)
		bundle := c.bundle(c.signed(by))
		type question struct {
			name string
			ok   bool
			text any
		}
		ask := func(bundle []byte, by signer) map[string]any {
			m := map[string]any{"bundle": json.RawMessage(bundle)}
			for k, v := range by.script {
				m[k] = v
			}
			return m
		}
		questions := []question{{"ours", true, ask(bundle, by)}, {"another signer", false, ask(bundle, other)}}
		for _, d := range damages {
			questions = append(questions, question{d.name, false, ask(damaged(t, bundle, d.damage), by)})
		}
		if m := ask(bundle, by); m["key"] != nil {
			m["end"] = "2026-01-01T00:00:00Z"
			questions = append(questions, question{"expired key", false, m})
		}
		var cases []any
		for _, q := range questions {
			cases = append(cases, q.text)
		}
		in, err := json.Marshal(map[string]any{"root": decode[json.RawMessage](t, s.file("trusted_root.json")), "cases": cases})
		if err != nil {
			t.Fatal(err)
		}
		out, err := testkit.Node(t, filepath.Join("testdata", "sigstore.js"), in)
		if err != nil {
			t.Fatal(err)
		}
		var answers []string
		if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(questions) {
			t.Fatalf("%v: %s", err, out)
		}
		for i, q := range questions {
			t.Logf("%s: %q", q.name, answers[i])
			if (answers[i] == "") != q.ok {
				t.Errorf("%s: %q", q.name, answers[i])
			}
		}
	})
}
