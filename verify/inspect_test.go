package verify

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) && len(s) <= maxText+len("…")
}

func (c *Claim) printable() bool {
	return isPrintable(c.Signer) && isPrintable(c.PredicateType) && isPrintable(c.Says) && isPrintable(c.Problem)
}

func TestClaimIsReadAndEndorsedByRole(t *testing.T) {
	alice, bob := newSigner(t, "alice"), newSigner(t, "bob")
	a := testRelease(t, nil)
	now := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	v := testVerifier(t, nil, alice)
	good := alice.statement(t, statementFor(t, a, nil))
	c := ReadClaim(good)
	if c.Bundle != canon.Sum(good) || c.PredicateType != PredicateProvenance || len(c.Subjects) != 1 || c.Subjects[0] != a.Digest || c.Problem != "" ||
		!strings.HasPrefix(c.Says, "shop release 12, made by https://example.org/builder from dataset "+a.Release.Dataset.String()) || c.Signer != "a key with the hint any" {
		t.Errorf("claim %+v", c)
	}
	if e := v.Endorse(good, a.Digest, now); e.Role != "publisher" || !strings.HasPrefix(e.Signer, "alice, key ") || e.Reason != "" {
		t.Errorf("endorsed as %+v", e)
	}
	other := statementFor(t, a, nil)
	other.PredicateType = "https://example.org/\x1b[2Jother"
	for name, c := range map[string]struct {
		bundle []byte
		about  canon.Digest
		reason string
	}{
		"a stranger":          {bob.statement(t, statementFor(t, a, nil)), a.Digest, "no trusted key"},
		"another subject":     {good, canon.Sum(nil), "about something else"},
		"changed":             {bytes.Replace(good, []byte(`"sig":"M`), []byte(`"sig":"N`), 1), a.Digest, ""},
		"another type":        {alice.statement(t, other), a.Digest, "no role"},
		"a type without role": {alice.statement(t, Statement{Type: StatementV1, Subject: other.Subject, PredicateType: PredicateRevocation, Predicate: []byte("{}")}), a.Digest, "names no revoker"},
		"a broken claim":      {alice.statement(t, Statement{Type: StatementV1, Subject: other.Subject, PredicateType: PredicateProvenance, Predicate: []byte("{}")}), a.Digest, "signed by alice: "},
		"no bundle":           {[]byte("\x1b]0;x\a"), a.Digest, ""},
	} {
		e := v.Endorse(c.bundle, c.about, now)
		if e.Signer != "" || e.Time != "" || e.Reason == "" || !strings.Contains(e.Reason, c.reason) || !isPrintable(e.Reason) {
			t.Errorf("%s: %+v, want %q", name, e, c.reason)
		}
		if claim := ReadClaim(c.bundle); !claim.printable() {
			t.Errorf("%s: %+v", name, claim)
		}
	}
}

func FuzzReadClaim(f *testing.F) {
	alice := newSigner(f, "alice")
	a := testRelease(f, nil)
	f.Add(alice.statement(f, statementFor(f, a, nil)))
	f.Add(alice.sign(f, []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"x"}}],"predicateType":"p","predicate":{}}`)))
	v := newVirtual(f)
	e, err := v.AttestHashedRekordV2(virtualSAN, virtualIssuer, []byte(`{}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(v.bundle(f, e, nil))
	judge := testVerifier(f, nil, newSigner(f, "nobody who signs here"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c := ReadClaim(b); !c.printable() || c.Bundle != canon.Sum(b) {
			t.Errorf("%+v", c)
		}
		if e := judge.Endorse(b, a.Digest, time.Unix(0, 0)); e.Signer != "" || e.Reason == "" || !isPrintable(e.Reason) {
			t.Errorf("%+v", e)
		}
	})
}
