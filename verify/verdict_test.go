package verify

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func passingVerdict(t *testing.T) *Verdict {
	t.Helper()
	s := newSigner(t, "A")
	a := testRelease(t, nil)
	v := testVerifier(t, nil, s).Judge(a, testNow, given(s.statement(t, statementFor(t, a, nil))))
	if !v.Pass() {
		t.Fatal("fixture does not pass")
	}
	return v
}

func TestVerdictWithAnythingMissingNeverPasses(t *testing.T) {
	good := passingVerdict(t)
	with := func(change func(*Verdict)) *Verdict {
		v := *good
		v.Checks = slices.Clone(good.Checks)
		change(&v)
		return &v
	}
	for i, c := range releaseChecks {
		for _, s := range []Status{Pass, Fail, Skip, "", "PASS"} {
			v := with(func(v *Verdict) { v.Checks[i].Status = s })
			if want := s == Pass || s == Skip && !c.mandatory; v.Pass() != want {
				t.Errorf("%s with status %q: pass=%t, want %t", c.name, s, v.Pass(), want)
			}
		}
		if with(func(v *Verdict) { v.Checks = slices.Delete(v.Checks, i, i+1) }).Pass() {
			t.Errorf("passes without %s", c.name)
		}
		if with(func(v *Verdict) { v.Checks = slices.Insert(v.Checks, i, v.Checks[i]) }).Pass() {
			t.Errorf("passes with %s twice", c.name)
		}
		if with(func(v *Verdict) { v.Checks[i].Name = "something.else" }).Pass() {
			t.Errorf("passes with %s renamed", c.name)
		}
	}
	var none *Verdict
	for name, v := range map[string]*Verdict{
		"nil":              none,
		"zero":             {},
		"only its word":    {Format: 1, Verified: true, Release: canon.Sum(nil)},
		"other format":     with(func(v *Verdict) { v.Format = 2 }),
		"about no release": with(func(v *Verdict) { v.Release = canon.Digest{} }),
	} {
		if v.Pass() {
			t.Errorf("%s: passes", name)
		}
	}
}

// Each demand that a policy can make, and no check without one.
func TestDemandedCheckThatWasSkippedNeverPasses(t *testing.T) {
	s, a := newSigner(t, "A"), newAuthority(t)
	one := 1
	trusting := func(p *Policy) { p.TrustedRoot, p.Timestamps = a.root, 1 }
	channel := func(p *Policy) {
		p.Channel = &ChannelPolicy{Name: "stable", Epoch: 1, Signers: []Identity{newSigner(t, "desk").Identity}}
	}
	dataset := func(p *Policy) { p.Datasets.Publishers = []Identity{newSigner(t, "data").Identity} }
	logged := func(p *Policy) {
		trusting(p)
		p.TransparencyLog = &one
	}
	certified := func(p *Policy) {
		trusting(p)
		p.Publishers = []Identity{workflow()}
	}
	demand := map[string]func(*Policy){
		CheckSize:        func(p *Policy) { p.MaxBytes = 1 << 20 },
		CheckTime:        trusting,
		CheckLog:         logged,
		CheckCertificate: certified,
		CheckBuilder:     func(p *Policy) { p.Builders = []string{"https://example.org/builder"} },
		CheckSource:      func(p *Policy) { p.SourceRepository = "https://example.org/x" },
		CheckTrainer:     func(p *Policy) { p.Trainers = []Trainer{{Version: "v1.0.0"}} },
		CheckAge: func(p *Policy) {
			trusting(p)
			p.MaxAge = time.Hour
		},
		CheckBounds:      func(p *Policy) { p.Recipe = &RecipePolicy{Algorithms: []int64{2}} },
		CheckAllowed:     func(p *Policy) { p.Datasets.Digests = []canon.Digest{canon.Sum(nil)} },
		CheckDatasetBy:   dataset,
		CheckDatasetSaid: dataset,
		CheckNotOlder:    func(p *Policy) { p.MinRelease = 1 },
		CheckChannel:     channel,
		CheckFreshness:   channel,
		CheckCurrent:     channel,
		CheckLowest:      channel,
		CheckRevoked:     channel,
		CheckReproduced: func(p *Policy) {
			list, _ := auditors(t, 1)
			p.Reproductions = &ReproductionPolicy{Min: 1, Rebuilders: list}
		},
	}
	all := func(v *Verifier) *Verdict {
		r := v.newReport(canon.Sum(nil))
		for _, c := range releaseChecks {
			r.pass(c.name, "as it should be")
		}
		return r
	}
	bare := testVerifier(t, nil, s)
	for _, c := range releaseChecks {
		change := demand[c.name]
		if free := c.mandatory || c.name == CheckBundles; free != (change == nil) {
			t.Errorf("%s: a policy that demands it: %t", c.name, change != nil)
			continue
		} else if free {
			continue
		}
		v := testVerifier(t, change, s)
		r := all(v)
		if !r.Pass() {
			t.Fatalf("%s: all checks passed, and the verdict does not", c.name)
		}
		for _, status := range []Status{Skip, Fail, ""} {
			r.set(Check{Name: c.name, Status: status, Reason: "not reached"})
			if r.Pass() || !r.PassExcept(c.name) {
				t.Errorf("%s is %q and demanded: pass=%t", c.name, status, r.Pass())
			}
			r.Verified = true // its own word counts for nothing
			if readBack(t, r).Pass() {
				t.Errorf("%s: passes as it is stored", c.name)
			}
			r.Verified = false
		}
		r = all(bare)
		if r.skip(c.name, "not demanded"); !r.Pass() {
			t.Errorf("%s is demanded by a policy that does not", c.name)
		}
	}
	for _, c := range channelVerdictChecks {
		if c.mandatory {
			continue
		}
		for _, demanded := range []bool{true, false} {
			v := testVerifier(t, func(p *Policy) {
				channel(p)
				if demanded {
					logged(p)
					p.Channel.Signers = []Identity{workflow()}
				}
			}, s)
			r := v.newChannelVerdict(Memory{})
			for _, c := range channelVerdictChecks {
				r.pass(c.name, "as it should be")
			}
			setCheck(r.Checks, Check{Name: c.name, Status: Skip})
			if r.Pass() == demanded || r.Accepted() == demanded {
				t.Errorf("%s is skipped, demanded=%t: pass=%t, accepted=%t", c.name, demanded, r.Pass(), r.Accepted())
			}
		}
	}
}

// Where a policy trusts keys and certificates, what is demanded of a signature
// is known when it is read.
func TestDemandsFollowTheKindOfSignature(t *testing.T) {
	s, a := newSigner(t, "A"), newAuthority(t)
	rel := testRelease(t, nil)
	payload := encode(t, statementFor(t, rel, nil))
	v := testVerifier(t, func(p *Policy) {
		p.TrustedRoot, p.Timestamps = a.root, 1
		p.Publishers = append(p.Publishers, workflow())
	}, s)
	for _, k := range []struct {
		name   string
		bundle []byte
		want   bool
	}{{"key", a.attestWithKey(t, s, payload, nil), false}, {"certificate", a.attest(t, payload, claim{}, nil), true}} {
		got := v.Judge(rel, time.Now(), given(k.bundle))
		wantFailed(t, got)
		if !check(got, CheckTime).Demanded {
			t.Errorf("%s: no time is demanded", k.name)
		}
		for _, name := range []string{CheckLog, CheckCertificate} {
			if check(got, name).Demanded != k.want {
				t.Errorf("%s: %+v", k.name, check(got, name))
			}
			if got.skip(name, "not reached"); got.Pass() == k.want {
				t.Errorf("%s: %s is skipped: pass=%t", k.name, name, got.Pass())
			}
		}
	}
}

// readBack is v as it stands in its JSON.
func readBack(t *testing.T, v *Verdict) *Verdict {
	t.Helper()
	var got Verdict
	if err := canon.UnmarshalCanonical(mustEncode(t, v), &got); err != nil {
		t.Fatal(err)
	}
	return &got
}

func TestVerdictJSONRoundTrip(t *testing.T) {
	v := passingVerdict(t)
	got := readBack(t, v)
	if !got.Pass() || !got.Verified || !bytes.Equal(mustEncode(t, got), mustEncode(t, v)) {
		t.Errorf("read back as %+v", got)
	}
}

func TestVerdictText(t *testing.T) {
	v := passingVerdict(t)
	var plain, colored bytes.Buffer
	if err := v.WriteText(&plain, false); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteText(&colored, true); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(plain.String(), "\n"), "\n")
	if len(lines) != len(releaseChecks)+1 || !strings.HasPrefix(lines[0], "✓ release.manifest") || !strings.HasPrefix(lines[2], "– release.size") ||
		!strings.HasPrefix(lines[len(lines)-1], "VERIFIED shop release 12, sha256:") || !strings.HasSuffix(lines[len(lines)-1], "signed by A") {
		t.Errorf("text:\n%s", &plain)
	}
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(colored.String(), "\x1b[32m✓\x1b[0m") {
		t.Errorf("colour is not where it belongs:\n%q", colored.String())
	}
	v.fail(CheckProduct, "bank", "shop", "this is a release of another product")
	plain.Reset()
	v.WriteText(&plain, false)
	if s := plain.String(); !strings.Contains(s, "✗ product             bank; expected shop; this is a release of another product\n") || !strings.Contains(s, "REFUSED shop release 12, sha256:") || !strings.HasSuffix(s, ": product\n") {
		t.Errorf("text:\n%s", s)
	}
	plain.Reset()
	(&Verdict{}).WriteText(&plain, false)
	if !strings.Contains(plain.String(), "REFUSED") {
		t.Errorf("zero verdict: %s", &plain)
	}
	if err := v.WriteText(failWriter{}, false); err == nil {
		t.Error("a failed write is not reported")
	}
}

type failWriter struct{}

func (failWriter) Write([]byte) (int, error) { return 0, errors.New("full") }

func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"plain", "a\x1b[2Jb", "\xff\xfe", "\u202eabc", strings.Repeat("é", 300), "tab\tand\nline"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := Printable(s)
		if len(p) > maxText+len("…") {
			t.Fatalf("%d bytes", len(p))
		}
		for _, r := range p {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' || r == '\ufffd' {
				t.Fatalf("%q holds %U", p, r)
			}
		}
		if q := Printable(p); len(p) <= maxText && q != p {
			t.Fatalf("not stable: %q, %q", p, q)
		}
	})
}
