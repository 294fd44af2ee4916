package rebuild

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/internal/sign/signtest"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// ourselves is a program that knows its module's sum.
var ourselves = Program{Trainer: verify.Trainer{Version: "v1.2.0", H1: "h1:" + strings.Repeat("A", 43) + "="}, Go: "go1.26.8", OS: "linux", Arch: "amd64"}

func newKey(t *testing.T, name string) *sign.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name+".key")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := sign.LoadKey(path, func() ([]byte, error) { return nil, errors.New("not encrypted") })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// auditors is a policy that demands rebuilds by 2 of the operators.
func (p *published) auditors(change func(*verify.Policy), operators ...verify.Rebuilder) *verify.Verifier {
	p.t.Helper()
	policy := verify.Policy{
		Product: "test", Publishers: []verify.Identity{{Name: "publisher", Key: p.key}},
		Reproductions: &verify.ReproductionPolicy{Min: 2, Rebuilders: operators},
	}
	if change != nil {
		change(&policy)
	}
	v, err := verify.New(policy)
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

func operator(name string, s *sign.Signer, where ...oras.Ref) verify.Rebuilder {
	return verify.Rebuilder{Operator: name, Identities: []verify.Identity{{Name: name, Key: s.Key()}}, Where: where}
}

func openLayout(ctx context.Context, ref oras.Ref) (oras.Store, error) {
	return oras.Open(ctx, ref, oras.Options{})
}

// attest rebuilds, signs and puts the statement into the release's store.
func (p *published) attest(v *verify.Verifier, d canon.Digest, signer Signer) *Report {
	p.t.Helper()
	ctx := context.Background()
	now := time.Now()
	r, err := Reproduce(ctx, p.store, d, Options{Verifier: v, Now: now, Attest: true, Program: ourselves})
	if err != nil {
		p.t.Fatal(err)
	}
	bundle, err := r.Attest(ctx, signer, now, time.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	p.put(d, bundle)
	return r
}

// put puts a statement beside the release.
func (p *published) put(d canon.Digest, bundle []byte) {
	p.t.Helper()
	on, err := p.store.Resolve(context.Background(), d.String())
	if err == nil {
		_, err = oras.AttachBundle(context.Background(), p.store, on, bundle, verify.PredicateReproduction, "", time.Now())
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func status(a *verify.Audit) (s string) {
	for _, o := range a.Operators {
		s += o.Operator + " " + string(o.Status) + "; "
	}
	return s
}

func TestAuditorsOfARelease(t *testing.T) {
	ctx := context.Background()
	p := publish(t)
	a, b, c, d, e := newKey(t, "a"), newKey(t, "b"), newKey(t, "c"), newKey(t, "d"), newKey(t, "e")
	place := oras.Ref{Layout: filepath.Join(t.TempDir(), "own")}
	v := p.auditors(nil, operator("A", a), operator("B", b, place), operator("C", c), operator("D", d), operator("E", e))
	audit := func(open func(context.Context, oras.Ref) (oras.Store, error)) *verify.Audit {
		t.Helper()
		out, err := v.Audit(ctx, p.store, p.digest, time.Now(), open)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := audit(openLayout); status(got) != "A NOT YET; B NOT YET; C NOT YET; D NOT YET; E NOT YET; " || got.Enough() {
		t.Errorf("%s", status(got))
	}

	// A rebuilds and signs beside the release.
	r := p.attest(v, p.digest, a)
	if !r.Reproduced {
		t.Fatalf("%+v", r)
	}
	// One auditor is not two: the release is still refused to agents, and no
	// obstacle to other auditors.
	if verdict, release, err := v.Release(ctx, p.store, p.digest, time.Now(), verify.Options{}); err != nil || verdict.Pass() || release != nil {
		t.Errorf("one rebuild is enough for two: %v", err)
	}

	// B keeps its statement in a place of its own.
	bundle, err := r.Attest(ctx, b, time.Now(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	own, err := oras.Open(ctx, place, oras.Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	on, err := p.store.Resolve(ctx, p.digest.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := oras.PutBundle(ctx, own, on, bundle, verify.PredicateReproduction, oras.ReproductionTag(p.digest), time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := audit(openLayout); status(got) != "A PASS; B PASS; C NOT YET; D NOT YET; E NOT YET; " || !got.Enough() || got.Strangers != 0 {
		t.Errorf("%s", status(got))
	}
	if got := audit(nil); status(got) != "A PASS; B NOT YET; C NOT YET; D NOT YET; E NOT YET; " || got.Enough() {
		t.Errorf("without asking B's place: %s", status(got))
	}
	if verdict, release, err := v.Release(ctx, p.store, p.digest, time.Now(), verify.Options{Open: openLayout}); err != nil || !verdict.Pass() || release == nil {
		t.Errorf("two rebuilds: %v, %v", err, verdict.Failures())
	}

	// C hands in A's transcript as its own; D one that it made up.
	statement := func(signer *sign.Signer, change func(*verify.Reproduction)) []byte {
		t.Helper()
		s := verify.Reproduction{
			Product: r.Product, Release: r.Number, Result: verify.ResultPass, Manifest: r.Release, Obtained: r.Release, Recipe: r.recipe, Dataset: r.Dataset,
			Trainer: ourselves.Trainer, Environment: verify.Environment{OS: "linux", Arch: "arm64", Go: "go1.26.8"},
			Started: verify.FormatTime(time.Now()), Finished: verify.FormatTime(time.Now().Add(time.Minute)),
			Transcript: canon.Sum([]byte("made up")),
		}
		change(&s)
		st, err := verify.NewReproduction(s)
		if err != nil {
			t.Fatal(err)
		}
		out, err := signer.Sign(ctx, st)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	p.put(p.digest, statement(c, func(s *verify.Reproduction) { s.Transcript = r.Transcript(a.Key().ID()) }))
	p.put(p.digest, statement(d, func(*verify.Reproduction) {}))
	// E rebuilt by another recipe, and a stranger joins in.
	p.put(p.digest, statement(e, func(s *verify.Reproduction) { s.Recipe = canon.Sum([]byte("another")) }))
	p.put(p.digest, statement(newKey(t, "stranger"), func(*verify.Reproduction) {}))
	got := audit(openLayout)
	if status(got) != "A PASS; B PASS; C COPIED; D PASS; E MISMATCH; " || got.Passed != 3 || got.Strangers != 1 {
		t.Errorf("%s, %d strangers", status(got), got.Strangers)
	}
	// Whoever rebuilds finds D out.
	got.Compare(r.Rebuilt, r.Transcript)
	if status(got) != "A PASS; B PASS; C COPIED; D COPIED; E MISMATCH; " || got.Passed != 2 {
		t.Errorf("%s", status(got))
	}
	// Nothing that is shown holds what a transcript is made of.
	var shown bytes.Buffer
	if err := r.WriteText(&shown); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteHTML(&shown); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	shown.Write(text)
	if len(r.states) < 10 {
		t.Fatalf("%d states", len(r.states))
	}
	for _, s := range r.states {
		if strings.Contains(shown.String(), s.digest.Hex()) || strings.Contains(shown.String(), s.name) {
			t.Fatalf("%s is shown", s.name)
		}
	}
}

func TestFailuresAreAttestedToo(t *testing.T) {
	ctx := context.Background()
	p := publish(t)
	a, b := newKey(t, "a"), newKey(t, "b")
	d := p.forge(func(_ *oras.Release, models []oras.File) { models[0].Data[len(models[0].Data)-9] ^= 1 })
	// Signed by the publisher's key, which is in the wrong hands.
	p.sign(d, nil)
	v := p.auditors(nil, operator("A", a), operator("B", b))
	r := p.attest(v, d, a)
	if r.Reproduced || r.Rebuilt.IsZero() {
		t.Fatalf("%+v", r)
	}
	got, err := v.Audit(ctx, p.store, d, time.Now(), nil)
	if err != nil || status(got) != "A FAIL; B NOT YET; " || got.Operators[0].Obtained != r.Rebuilt || got.Passed != 0 {
		t.Errorf("%v, %s", err, status(got))
	}
}

func TestKeylessAuditor(t *testing.T) {
	ctx := context.Background()
	p := publish(t)
	instance := signtest.New(t)
	services, err := sign.LoadServices(instance.SigningConfig, instance.TrustedRoot, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	const issuer, san = "https://accounts.example.org", "auditor@example.org"
	signer, err := sign.Keyless(sign.TokenText(instance.Token(issuer, san)), services)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(instance.TrustedRoot)
	if err != nil {
		t.Fatal(err)
	}
	who := verify.Identity{Name: "auditor", Certificate: &verify.CertificateIdentity{Issuer: issuer, SAN: san}}
	v := p.auditors(func(policy *verify.Policy) {
		policy.TrustedRoot, policy.RootFile = root, "trusted_root.json"
		policy.Reproductions.Min, policy.Timestamps, policy.InsecureIgnoreSCT = 1, 1, true
	}, verify.Rebuilder{Operator: "A", Identities: []verify.Identity{who}})
	r := p.attest(p.verifier("test", p.key), p.digest, signer)
	got, err := v.Audit(ctx, p.store, p.digest, time.Now().Add(time.Second), nil)
	if err != nil || status(got) != "A PASS; " {
		t.Fatalf("%v, %+v", err, got)
	}
	got.Compare(r.Rebuilt, r.Transcript)
	exact := verify.Identity{Certificate: &verify.CertificateIdentity{Issuer: issuer, SAN: san}}
	if status(got) != "A PASS; " || got.Operators[0].Identity != exact.TranscriptKey() {
		t.Errorf("%s", status(got))
	}
}

func TestWhatIsNotAttested(t *testing.T) {
	ctx := context.Background()
	p := publish(t)
	built := func(stage string, _, _ int64) { t.Errorf("started %s", stage) }
	unknown := ourselves
	unknown.Trainer.H1 = ""
	trusting := p.verifier("test", p.key)
	others := p.auditors(func(policy *verify.Policy) {
		policy.Reproductions = nil
		policy.Trainers = []verify.Trainer{{Version: "v9.9.9", H1: "h1:" + strings.Repeat("C", 43) + "="}}
	})
	for _, c := range []struct {
		name    string
		v       *verify.Verifier
		program Program
		want    error
	}{
		{"without a policy", nil, ourselves, ErrAttest},
		{"by a build that does not know its sum", trusting, unknown, ErrAttest},
		{"by a program that the policy does not name", others, ourselves, ErrRefused},
	} {
		if _, err := Reproduce(ctx, p.store, p.digest, Options{Verifier: c.v, Now: time.Now(), Attest: true, Program: c.program, Progress: built}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// A provenance that names a trainer which the auditor does not allow: nothing is built.
	named := others.Policy().Trainers[0]
	program := ourselves
	program.Trainer = named
	r, err := Reproduce(ctx, p.store, p.digest, Options{Verifier: others, Now: time.Now(), Attest: true, Program: program, Progress: built})
	if !errors.Is(err, ErrRefused) || r.Verdict == nil || len(r.Verdict.Failures()) != 1 || r.Verdict.Failures()[0].Name != verify.CheckTrainer {
		t.Errorf("a trainer that the policy does not name: %v, %+v", err, r.Verdict)
	}
	// A dataset that its publisher did not sign.
	data := newKey(t, "data")
	poisoned := p.auditors(func(policy *verify.Policy) {
		policy.Reproductions = nil
		policy.Datasets.Publishers = []verify.Identity{{Name: "data", Key: data.Key()}}
	})
	r, err = Reproduce(ctx, p.store, p.digest, Options{Verifier: poisoned, Now: time.Now(), Attest: true, Program: ourselves, Progress: built})
	if !errors.Is(err, ErrRefused) || r.Verdict == nil || r.Verdict.Pass() {
		t.Errorf("a dataset without its publisher's word: %v", err)
	}
	// A rebuild that was not made for it.
	r, err = Reproduce(ctx, p.store, p.digest, Options{Verifier: trusting, Now: time.Now(), Program: ourselves})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Attest(ctx, data, time.Now(), time.Now()); !errors.Is(err, ErrAttest) {
		t.Errorf("without its states: %v", err)
	}
}
