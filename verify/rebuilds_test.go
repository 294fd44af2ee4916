package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

func claimFor(a *oras.Artifact, change func(*DatasetClaim)) DatasetClaim {
	c := DatasetClaim{
		Dataset: a.Release.Dataset, Address: "truncated", Redaction: 1,
		Tables: []TableClaim{{"exploits", 100, canon.Sum([]byte("e"))}, {"records", 2000, canon.Sum([]byte("r"))}},
		Inputs: []Resource{{Name: "a.csv", Digest: Digests(canon.Sum([]byte("a"))), Annotations: map[string]any{"size": "1", "source": "exploitdb"}}},
		Issued: FormatTime(testNow),
	}
	if change != nil {
		change(&c)
	}
	return c
}

func (s signer) claim(t testing.TB, artifact canon.Digest, c DatasetClaim) []byte {
	t.Helper()
	st, err := NewDatasetClaim("dataset", artifact, c)
	if err != nil {
		t.Fatal(err)
	}
	return s.statement(t, st)
}

func TestDatasetStatementIsDemanded(t *testing.T) {
	pub, data, stranger := newSigner(t, "A"), newSigner(t, "data"), newSigner(t, "Mallory")
	rel := testRelease(t, nil)
	prov := pub.statement(t, statementFor(t, rel, nil))
	artifact := canon.Sum([]byte("dataset manifest"))
	good := data.claim(t, artifact, claimFor(rel, nil))
	v := testVerifier(t, func(p *Policy) { p.Datasets.Publishers = []Identity{data.Identity} }, pub)
	for _, c := range []struct {
		name    string
		bundles [][]byte
		failed  []string
	}{
		{"good", [][]byte{prov, good}, nil},
		{"good among bad ones", [][]byte{prov, stranger.claim(t, artifact, claimFor(rel, nil)), data.claim(t, artifact, claimFor(rel, func(c *DatasetClaim) { c.Dataset = canon.Sum(nil) })), good}, nil},
		{"none", [][]byte{prov}, []string{CheckDatasetBy}},
		{"by a stranger", [][]byte{prov, stranger.claim(t, artifact, claimFor(rel, nil))}, []string{CheckDatasetBy}},
		{"by the publisher of releases", [][]byte{prov, pub.claim(t, artifact, claimFor(rel, nil))}, []string{CheckDatasetBy}},
		{"about another dataset", [][]byte{prov, data.claim(t, artifact, claimFor(rel, func(c *DatasetClaim) { c.Dataset = canon.Sum([]byte("poisoned")) }))}, []string{CheckDatasetSaid}},
		{"another statement of the dataset's publisher", [][]byte{prov, data.statement(t, statementFor(t, rel, nil))}, []string{CheckDatasetBy}},
		{"unknown member", [][]byte{prov, data.sign(t, bytes.Replace(parse(good).payload, []byte(`"address"`), []byte(`"extra":1,"address"`), 1))}, []string{CheckDatasetSaid}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := v.Judge(rel, testNow, given(c.bundles...))
			wantFailed(t, got, c.failed...)
			if c.failed == nil && (len(got.Evidence) != 2 || !bytes.Equal(got.Evidence[1], good)) {
				t.Errorf("%d bundles of evidence", len(got.Evidence))
			}
		})
	}
}

func TestDatasetStatementIsFoundInTheStore(t *testing.T) {
	pub, data, stranger := newSigner(t, "A"), newSigner(t, "data"), newSigner(t, "Mallory")
	rel := testRelease(t, nil)
	v := testVerifier(t, func(p *Policy) { p.Datasets.Publishers = []Identity{data.Identity} }, pub)
	// Any manifest can stand for the dataset's: only the statement about it is judged.
	manifest := []byte(`{"schemaVersion":2,"mediaType":"` + oras.TypeManifest + `","artifactType":"` + oras.TypeDataset + `","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` + canon.Sum([]byte("{}")).String() + `","size":2},"layers":[]}`)
	for _, tagged := range []bool{true, false} {
		store, _ := testStore(t, rel)
		attach(t, store, rel, pub.statement(t, statementFor(t, rel, nil)), oras.ProvenanceTag(rel.Digest))
		judge := func(failed ...string) *Verdict {
			t.Helper()
			got, _, err := v.Release(t.Context(), store, rel.Digest, testNow, Options{})
			if err != nil {
				t.Fatal(err)
			}
			wantFailed(t, got, failed...)
			return got
		}
		if f := check(judge(CheckDatasetBy), CheckDatasetBy); !strings.Contains(f.Reason, "no dataset at tag") {
			t.Errorf("%+v", f)
		}
		d, err := store.PutManifest(t.Context(), manifest)
		if err == nil {
			err = store.Tag(t.Context(), oras.DatasetTag(rel.Release.Dataset), d)
		}
		if err != nil {
			t.Fatal(err)
		}
		judge(CheckDatasetBy)
		put := func(raw []byte, tag string) {
			t.Helper()
			if _, err := oras.AttachBundle(t.Context(), store, d, raw, PredicateDataset, tag, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		put(stranger.claim(t, d.Digest, claimFor(rel, nil)), "")
		judge(CheckDatasetBy)
		tag := ""
		if tagged {
			tag = oras.DatasetStatementTag(d.Digest)
		}
		put(data.claim(t, d.Digest, claimFor(rel, nil)), tag)
		judge()
	}
}

// auditors are operators with one key each.
func auditors(t testing.TB, n int) (list []Rebuilder, keys []signer) {
	t.Helper()
	for i := range n {
		s := newSigner(t, fmt.Sprintf("auditor %d", i+1))
		keys = append(keys, s)
		list = append(list, Rebuilder{Operator: fmt.Sprintf("op%d", i+1), Identities: []Identity{s.Identity}})
	}
	return list, keys
}

func reproductionFor(t testing.TB, a *oras.Artifact, change func(*Reproduction)) Reproduction {
	t.Helper()
	recipe, err := canon.Canonicalize(a.Release.Recipe)
	if err != nil {
		t.Fatal(err)
	}
	r := Reproduction{
		Product: a.Release.Product, Release: a.Release.Number, Result: ResultPass, Manifest: a.Digest, Obtained: a.Digest,
		Recipe: canon.Sum(recipe), Dataset: a.Release.Dataset, Trainer: Trainer{Version: "v1.0.0", H1: "h1:good="},
		Environment: Environment{OS: "linux", Arch: "arm64", Go: "go1.26.8"}, Transcript: canon.Sum([]byte("t")),
		Started: FormatTime(testNow.Add(-time.Hour)), Finished: FormatTime(testNow.Add(-time.Minute)),
	}
	if change != nil {
		change(&r)
	}
	return r
}

func (s signer) rebuild(t testing.TB, r Reproduction) []byte {
	t.Helper()
	st, err := NewReproduction(r)
	if err != nil {
		t.Fatal(err)
	}
	return s.statement(t, st)
}

func TestRebuildsAreCounted(t *testing.T) {
	pub := newSigner(t, "A")
	rel := testRelease(t, nil)
	other := testRelease(t, func(r *oras.Release) { r.Number = 13 })
	list, keys := auditors(t, 3)
	list[0].Identities = append(list[0].Identities, newSigner(t, "auditor 1, second key").Identity)
	second := newSigner(t, "auditor 1, second key")
	pass := func(i int) []byte { return keys[i].rebuild(t, reproductionFor(t, rel, nil)) }
	with := func(i int, change func(*Reproduction)) []byte {
		return keys[i].rebuild(t, reproductionFor(t, rel, change))
	}
	failed := func(r *Reproduction) { r.Result, r.Obtained = ResultFail, canon.Sum([]byte("other")) }
	later := func(r *Reproduction) { r.Finished = FormatTime(testNow) }
	no := []string{CheckReproduced}
	for _, c := range []struct {
		name     string
		min      int
		block    bool
		rebuilds [][]byte
		failed   []string
		results  string // of the operators
	}{
		{"two of three", 2, false, [][]byte{pass(0), pass(2)}, nil, "pass,,pass"},
		{"all", 3, false, [][]byte{pass(0), pass(1), pass(2)}, nil, "pass,pass,pass"},
		{"none", 1, false, nil, no, ",,"},
		{"one of two", 2, false, [][]byte{pass(1)}, no, ",pass,"},
		{"one key twice", 2, false, [][]byte{pass(1), with(1, later)}, no, ",pass,"},
		{"one operator, two keys", 2, false, [][]byte{pass(0), second.rebuild(t, reproductionFor(t, rel, nil))}, no, "pass,,"},
		{"one statement in two bundles", 2, false, [][]byte{pass(1), bytes.Replace(pass(1), []byte(`"any"`), []byte(`"one"`), 1)}, no, ",pass,"},
		{"a stranger's", 1, false, [][]byte{newSigner(t, "Mallory").rebuild(t, reproductionFor(t, rel, nil))}, no, ",,"},
		{"the publisher's own", 1, false, [][]byte{pub.rebuild(t, reproductionFor(t, rel, nil))}, no, ",,"},
		{"about another release", 1, false, [][]byte{keys[0].rebuild(t, reproductionFor(t, other, nil))}, no, ",,"},
		{"of another product", 1, false, [][]byte{with(0, func(r *Reproduction) { r.Product = "bank" })}, no, ",,"},
		{"from another dataset", 1, false, [][]byte{with(0, func(r *Reproduction) { r.Dataset = canon.Sum([]byte("poisoned")) })}, no, ",,"},
		{"by another recipe", 1, false, [][]byte{with(0, func(r *Reproduction) { r.Recipe = canon.Sum([]byte("other")) })}, no, ",,"},
		{"with another trainer", 1, false, [][]byte{with(0, func(r *Reproduction) { r.Trainer.H1 = "h1:evil=" })}, no, ",,"},
		{"other bytes", 1, false, [][]byte{with(0, failed)}, no, "fail,,"},
		{"other bytes at one, shown", 2, false, [][]byte{pass(0), pass(1), with(2, failed)}, nil, "pass,pass,fail"},
		{"other bytes at one, blocking", 2, true, [][]byte{pass(0), pass(1), with(2, failed)}, no, "pass,pass,fail"},
		{"failed, then passed", 1, true, [][]byte{with(0, failed), with(0, later)}, nil, "pass,,"},
		{"passed, then failed", 1, false, [][]byte{pass(0), with(0, func(r *Reproduction) { failed(r); later(r) })}, no, "fail,,"},
		{"both at one time", 1, false, [][]byte{with(0, failed), pass(0)}, no, "fail,,"},
		{"0 are demanded", 0, false, [][]byte{with(0, failed)}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := testVerifier(t, func(p *Policy) {
				p.Reproductions = &ReproductionPolicy{Min: c.min, Block: c.block, Rebuilders: list}
				p.Trainers = []Trainer{{H1: "h1:good="}}
			}, pub)
			prov := pub.statement(t, statementFor(t, rel, func(p *Provenance) {
				p.RunDetails.Builder.Version = map[string]string{VersionTrainer: "v1.0.0", VersionModule: "h1:good="}
			}))
			got := v.Judge(rel, testNow, given(append([][]byte{prov}, c.rebuilds...)...))
			wantFailed(t, got, c.failed...)
			var results []string
			for _, r := range got.Rebuilds {
				results = append(results, r.Result)
			}
			if s := strings.Join(results, ","); s != c.results {
				t.Errorf("results %q, want %q: %+v", s, c.results, got.Rebuilds)
			}
			if got.Pass() {
				again := v.Judge(rel, testNow, given(got.Evidence...))
				wantFailed(t, again)
			}
		})
	}
}

// Attack 11: a threshold is met by one party counted several times. Who is one
// party is settled when the policy is read; what they sign, when it is counted.
func TestAttack11_OnePartyCountedTwice(t *testing.T) {
	pub, desk, guard, data := newSigner(t, "A"), newSigner(t, "desk"), newSigner(t, "guard"), newSigner(t, "data")
	x, y := newSigner(t, "x").Identity, newSigner(t, "y").Identity
	cert := func(name, san string) Identity {
		return Identity{Name: name, Certificate: &CertificateIdentity{Issuer: ciIssuer, SAN: san}}
	}
	auditor := func(ids ...Identity) Rebuilder { return Rebuilder{Operator: "op " + ids[0].Name, Identities: ids} }
	a := newAuthority(t)
	for _, c := range []struct {
		name       string
		min        int
		rebuilders []Rebuilder
		says       string // "" if the policy is good
	}{
		{"good", 2, []Rebuilder{auditor(x), auditor(y)}, ""},
		{"two keys of one operator are one operator", 2, []Rebuilder{auditor(x, y)}, "only 1 rebuilders"},
		{"none needed", 0, []Rebuilder{auditor(x)}, ""},
		{"one key under two operators, one of a name in other case", 2, []Rebuilder{auditor(x), {Operator: "Op x", Identities: []Identity{{Name: "X", Key: x.Key}}}}, "share an identity"},
		{"k above n", 3, []Rebuilder{auditor(x), auditor(y)}, "only 2 rebuilders"},
		{"negative k", -1, []Rebuilder{auditor(x), auditor(y)}, "want 0 or more"},
		{"one key under two operators", 2, []Rebuilder{auditor(x), {Operator: "other", Identities: []Identity{{Name: "z", Key: x.Key}}}}, "share an identity"},
		{"one key twice in one operator", 1, []Rebuilder{auditor(x, Identity{Name: "z", Key: x.Key})}, "same key"},
		{"two operators of one name", 2, []Rebuilder{auditor(x), {Operator: "op x", Identities: []Identity{y}}}, `two operators are named "op x"`},
		{"operator without identities", 1, []Rebuilder{{Operator: "op"}}, "has no identities"},
		{"operator without a name", 1, []Rebuilder{{Identities: []Identity{x}}}, "name"},
		{"the publisher rebuilds", 1, []Rebuilder{auditor(pub.Identity)}, "nobody rebuilds for themselves"},
		{"the channel signer rebuilds", 1, []Rebuilder{auditor(Identity{Name: "z", Key: desk.Key})}, "(channel signers)"},
		{"the revoker rebuilds", 1, []Rebuilder{auditor(Identity{Name: "z", Key: guard.Key})}, "(revokers)"},
		{"the dataset's publisher rebuilds", 1, []Rebuilder{auditor(Identity{Name: "z", Key: data.Key})}, "(dataset publishers)"},
		{"one certificate identity under two operators", 2, []Rebuilder{auditor(cert("p", "p@example.org")), auditor(cert("q", "p@example.org"))}, "share an identity"},
		{"one name by two issuers is two identities", 1, []Rebuilder{auditor(cert("p", "p@example.org")), {Operator: "q", Identities: []Identity{{Name: "q", Certificate: &CertificateIdentity{Issuer: "https://other.example.org", SAN: "p@example.org"}}}}}, ""},
		{"the publisher's certificate identity", 1, []Rebuilder{auditor(cert("p", ciWorkflow))}, "nobody rebuilds for themselves"},
		{"a workflow of the publisher's owner", 1, []Rebuilder{auditor(cert("p", "https://github.com/O/audits/.github/workflows/rebuild.yml@refs/heads/main"))}, "repositories of github.com/o"},
		{"a workflow of another owner", 1, []Rebuilder{auditor(cert("p", "https://github.com/university/audits/.github/workflows/rebuild.yml@refs/heads/main"))}, ""},
		{"a repository of the publisher's owner", 1, []Rebuilder{auditor(Identity{Name: "p", Certificate: &CertificateIdentity{Issuer: ciIssuer, SAN: "p@example.org", SourceRepository: "https://github.com/o/x"}})}, "repositories of github.com/o"},
		{"an expression", 1, []Rebuilder{auditor(Identity{Name: "p", Certificate: &CertificateIdentity{Issuer: ciIssuer, SANRegexp: ".+@example.org"}})}, "use san"},
		{"a name that the publisher's expression matches", 1, []Rebuilder{auditor(cert("p", "https://gitlab.example.org/ci/x"))}, "nobody rebuilds for themselves"},
		{"a place with a tag", 1, []Rebuilder{{Operator: "op", Identities: []Identity{x}, Where: []oras.Ref{{Repository: "example.org/x", Tag: "t"}}}}, "without tag or digest"},
		{"a place by a relative path", 1, []Rebuilder{{Operator: "op", Identities: []Identity{x}, Where: []oras.Ref{{Layout: "x"}}}}, "from the root"},
	} {
		p := Policy{
			Product: "shop", TrustedRoot: a.root, Timestamps: 1,
			Publishers:    []Identity{pub.Identity, workflow(), {Name: "expr", Certificate: &CertificateIdentity{Issuer: ciIssuer, SANRegexp: `https://gitlab\.example\.org/ci/.*`}}},
			Channel:       &ChannelPolicy{Name: "stable", Epoch: 1, Signers: []Identity{desk.Identity}},
			Revokers:      []Identity{guard.Identity},
			Datasets:      DatasetPolicy{Publishers: []Identity{data.Identity}},
			Reproductions: &ReproductionPolicy{Min: c.min, Rebuilders: c.rebuilders},
		}
		_, err := New(p)
		if c.says == "" && err != nil || c.says != "" && (!errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

// What the policy could not tell, a certificate does: a rebuilder who signs from
// a repository of the owner whose workflow signed the release.
func TestRebuilderOfThePublishersOwnerIsNotCounted(t *testing.T) {
	a := newAuthority(t)
	rel := testRelease(t, nil)
	prov := a.attest(t, encode(t, statementFor(t, rel, nil)), claim{}, nil)
	st, err := NewReproduction(reproductionFor(t, rel, nil))
	if err != nil {
		t.Fatal(err)
	}
	v := testVerifier(t, func(p *Policy) {
		p.TrustedRoot, p.Timestamps, p.Publishers = a.root, 1, []Identity{workflow()}
		p.Reproductions = &ReproductionPolicy{Min: 1, Rebuilders: []Rebuilder{{Operator: "op", Identities: []Identity{
			{Name: "p", Certificate: &CertificateIdentity{Issuer: ciIssuer, SAN: "p@example.org"}},
		}}}}
	})
	for repo, failed := range map[string][]string{
		"https://github.com/university/audits": nil,
		"https://github.com/O/audits":          {CheckReproduced},
	} {
		got := v.Judge(rel, time.Now(), given(prov, a.attest(t, encode(t, st), claim{san: "p@example.org", repo: repo}, nil)))
		wantFailed(t, got, failed...)
		if failed != nil && !strings.Contains(got.Rebuilds[0].Reason, "nobody rebuilds for themselves") {
			t.Errorf("%+v", got.Rebuilds)
		}
	}
}

func TestRebuildsAreSoughtWhereThePolicySays(t *testing.T) {
	pub := newSigner(t, "A")
	rel := testRelease(t, nil)
	list, keys := auditors(t, 3)
	store, _ := testStore(t, rel)
	attach(t, store, rel, pub.statement(t, statementFor(t, rel, nil)), oras.ProvenanceTag(rel.Digest))
	places := map[string]oras.Store{}
	for i, name := range []string{"example.org/one", "example.org/two", "example.org/down"} {
		list[i].Where = []oras.Ref{{Repository: name}}
		if i == 2 {
			break
		}
		places[name], _ = testStore(t, rel)
		if _, err := oras.AttachBundle(t.Context(), places[name], rel.Descriptor(), keys[i].rebuild(t, reproductionFor(t, rel, nil)), PredicateReproduction, oras.ReproductionTag(rel.Digest), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	open := func(_ context.Context, ref oras.Ref) (oras.Store, error) {
		if s := places[ref.Repository]; s != nil {
			return s, nil
		}
		return nil, oras.ErrUnreachable
	}
	judge := func(min int, opt Options, failed ...string) *Verdict {
		t.Helper()
		v := testVerifier(t, func(p *Policy) { p.Reproductions = &ReproductionPolicy{Min: min, Rebuilders: list} }, pub)
		got, _, err := v.Release(t.Context(), store, rel.Digest, testNow, opt)
		if err != nil {
			t.Fatal(err)
		}
		wantFailed(t, got, failed...)
		return got
	}
	judge(2, Options{Open: open})
	got := judge(3, Options{Open: open}, CheckReproduced)
	if f := check(got, CheckReproduced); !strings.Contains(f.Reason, "example.org/down could not be asked") || !strings.HasPrefix(f.Observed, "2 of 3: op1, op2") {
		t.Errorf("%+v", f)
	}
	if f := check(judge(1, Options{}, CheckReproduced), CheckReproduced); !strings.Contains(f.Reason, "example.org/one was not asked") {
		t.Errorf("%+v", f)
	}
	// Given by hand, or beside the release, they are as good.
	judge(1, given(keys[2].rebuild(t, reproductionFor(t, rel, nil))))
	attach(t, store, rel, keys[2].rebuild(t, reproductionFor(t, rel, nil)), "")
	judge(1, Options{})
	judge(3, Options{Open: open})
	// Bundles given by hand do not hide a failed rebuild that the policy heeds.
	hidden, _ := testStore(t, rel)
	attach(t, hidden, rel, keys[1].rebuild(t, reproductionFor(t, rel, func(r *Reproduction) { r.Result, r.Obtained = ResultFail, canon.Sum([]byte("other")) })), "")
	byHand := given(pub.statement(t, statementFor(t, rel, nil)), keys[0].rebuild(t, reproductionFor(t, rel, nil)))
	for _, block := range []bool{false, true} {
		v := testVerifier(t, func(p *Policy) { p.Reproductions = &ReproductionPolicy{Min: 1, Block: block, Rebuilders: list} }, pub)
		got, a, err := v.Release(t.Context(), hidden, rel.Digest, testNow, byHand)
		if err != nil || (a == nil) != block {
			t.Fatalf("block=%t: %v, %v", block, a != nil, err)
		}
		if block {
			wantFailed(t, got, CheckReproduced)
		}
	}
	// What is kept is enough to judge again, without any place.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v := testVerifier(t, func(p *Policy) { p.Reproductions = &ReproductionPolicy{Min: 3, Rebuilders: list} }, pub)
	if _, _, err := v.Release(ctx, brokenOff{store}, rel.Digest, testNow, Options{Open: func(ctx context.Context, _ oras.Ref) (oras.Store, error) { return nil, ctx.Err() }}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	wantFailed(t, v.Judge(rel, testNow, given(judge(3, Options{Open: open}).Evidence...)))
}

// brokenOff answers whatever ctx says.
type brokenOff struct{ oras.Store }
