package verify

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// What the auditors' table counts is what a release is judged by.
func TestAuditAgreesWithTheVerdictOnARelease(t *testing.T) {
	a := newAuthority(t)
	rel := testRelease(t, nil)
	prov := a.attest(t, encode(t, statementFor(t, rel, nil)), claim{}, nil) // signed from github.com/o/r
	key := newSigner(t, "key")
	says := func(transcript string, change func(*Reproduction)) []byte {
		st, err := NewReproduction(reproductionFor(t, rel, func(r *Reproduction) {
			r.Transcript = canon.Sum([]byte(transcript))
			if change != nil {
				change(r)
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		return encode(t, st)
	}
	from := func(repo string) []byte {
		return a.attest(t, says(repo, nil), claim{san: "p@example.org", repo: repo}, nil)
	}
	failed := func(r *Reproduction) { r.Result, r.Obtained = ResultFail, canon.Sum([]byte("other")) }
	rebuilders := []Rebuilder{
		{Operator: "keyless", Identities: []Identity{{Name: "p", Certificate: &CertificateIdentity{Issuer: ciIssuer, SAN: "p@example.org"}}}},
		{Operator: "key", Identities: []Identity{key.Identity}},
	}
	const stranger, own = "https://github.com/university/audits", "https://github.com/O/audits"
	for _, c := range []struct {
		name     string
		min      int
		block    bool
		rebuilds [][]byte
		status   string
		enough   bool
	}{
		{"two pass", 2, false, [][]byte{from(stranger), a.attestWithKey(t, key, says("key", nil), nil)}, "PASS PASS", true},
		{"one of two", 2, false, [][]byte{from(stranger)}, "PASS NOT YET", false},
		{"none", 1, false, nil, "NOT YET NOT YET", false},
		{"a repository of the publisher's owner", 1, false, [][]byte{from(own)}, "MISMATCH NOT YET", false},
		{"that one, and another from elsewhere", 1, false, [][]byte{from(own), from(stranger)}, "PASS NOT YET", true},
		{"one failed", 1, false, [][]byte{from(stranger), a.attestWithKey(t, key, says("key", failed), nil)}, "PASS FAIL", true},
		{"one failed, which blocks", 1, true, [][]byte{from(stranger), a.attestWithKey(t, key, says("key", failed), nil)}, "PASS FAIL", false},
		{"none failed", 1, true, [][]byte{from(stranger)}, "PASS NOT YET", true},
	} {
		for _, tag := range []string{"", oras.ReproductionTag(rel.Digest)} {
			if tag != "" && len(c.rebuilds) > 1 {
				continue // a tag has room for one
			}
			store, _ := testStore(t, rel)
			attach(t, store, rel, prov, oras.ProvenanceTag(rel.Digest))
			for _, b := range c.rebuilds {
				if tag == "" {
					attach(t, store, rel, b, "")
				} else if _, err := oras.PutBundle(t.Context(), store, rel.Descriptor(), b, PredicateReproduction, tag, time.Time{}); err != nil {
					t.Fatal(err)
				}
			}
			if tag != "" {
				store = hidesReferrers{store} // under its tag a statement is found all the same
			}
			v := testVerifier(t, func(p *Policy) {
				p.TrustedRoot, p.Timestamps, p.Publishers = a.root, 1, []Identity{workflow()}
				p.Reproductions = &ReproductionPolicy{Min: c.min, Block: c.block, Rebuilders: rebuilders}
			})
			audit, err := v.Audit(t.Context(), store, rel.Digest, time.Now(), nil)
			if err != nil {
				t.Fatal(err)
			}
			status := string(audit.Operators[0].Status) + " " + string(audit.Operators[1].Status)
			if status != c.status || audit.Enough() != c.enough {
				t.Errorf("%s: %s, enough %t; want %s, %t", c.name, status, audit.Enough(), c.status, c.enough)
			}
			verdict, _, err := v.Release(t.Context(), store, rel.Digest, time.Now(), Options{})
			if err != nil || verdict.Pass() != audit.Enough() {
				t.Errorf("%s: the release passes: %t, and enough auditors do: %t; %v, %+v", c.name, verdict.Pass(), audit.Enough(), err, verdict.Failures())
			}
			var text strings.Builder
			if err := audit.WriteText(&text); err != nil || strings.Contains(text.String(), "on_failure: block") != (c.block && !c.enough) {
				t.Errorf("%s: %v\n%s", c.name, err, &text)
			}
			if c.status == "MISMATCH NOT YET" && !strings.Contains(audit.Operators[0].Reason, "nobody rebuilds for themselves") {
				t.Errorf("%s: %+v", c.name, audit.Operators[0])
			}
		}
	}
}

type hidesReferrers struct{ oras.Store }

func (hidesReferrers) Referrers(context.Context, canon.Digest) ([]oras.Descriptor, bool, error) {
	return nil, true, nil
}
