package verify

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// AuditStatus is what became of one operator's rebuild.
type AuditStatus string

const (
	AuditPass     AuditStatus = "PASS"     // the bytes of the release came out
	AuditFail     AuditStatus = "FAIL"     // others did
	AuditMismatch AuditStatus = "MISMATCH" // the statement is about another release, dataset, recipe or trainer, or breaks a demand
	AuditExpired  AuditStatus = "EXPIRED"  // signed outside the time in which the identity may sign
	AuditNoKey    AuditStatus = "NO KEY"   // signed by nobody that the policy names for the operator
	AuditNotYet   AuditStatus = "NOT YET"  // no statement was found
	AuditCopied   AuditStatus = "COPIED"   // the transcript is not one that this operator's rebuild has
)

// Audit is what the rebuilders of a policy say about one release.
type Audit struct {
	Format    int               `json:"format"`  // 1
	Release   canon.Digest      `json:"release"` // manifest digest
	Product   string            `json:"product"`
	Number    int64             `json:"number"`
	Needs     int               `json:"needs"`  // operators that the policy demands
	Passed    int               `json:"passed"` // operators whose status is PASS
	Failed    int               `json:"failed"` // operators whose status is FAIL
	Block     bool              `json:"block"`  // one that failed refuses the release, however many passed
	Operators []AuditedOperator `json:"operators"`
	Strangers int               `json:"strangers"` // statements in the release's repository that nobody of the policy signed
}

// AuditedOperator is one of them.
type AuditedOperator struct {
	Operator    string       `json:"operator"`
	Status      AuditStatus  `json:"status"`
	Reason      string       `json:"reason"`      // of a status other than PASS
	Obtained    canon.Digest `json:"obtained"`    // manifest digest that the rebuild had; "" without a statement that is read
	Trainer     Trainer      `json:"trainer"`     // that was run
	Environment Environment  `json:"environment"` // in which it was
	Finished    string       `json:"finished"`    // RFC 3339; "" without a statement
	Bundle      canon.Digest `json:"bundle"`      // SHA-256 of the statement's bundle; "" without one
	Transcript  canon.Digest `json:"transcript"`  // as stated; "" without a statement
	Identity    canon.Digest `json:"identity"`    // TranscriptKey of who signed; "" without
}

// TranscriptKey names who signs, for the transcript of a rebuild: the SHA-256 of
// the key as SubjectPublicKeyInfo, or of the canonical JSON array of issuer and
// subject alternative name of the certificate.
func (id Identity) TranscriptKey() canon.Digest {
	if id.Certificate == nil {
		return id.Key.ID()
	}
	return certificateKey(id.Certificate.Issuer, id.Certificate.SAN)
}

func certificateKey(issuer, san string) canon.Digest {
	b, err := canon.Marshal([]string{issuer, san})
	if err != nil {
		return canon.Digest{} // text that is not UTF-8, which no certificate has
	}
	return canon.Sum(b)
}

// Audit looks for the statements of each rebuilder of the policy about a
// release: in the release's repository, and where the policy says that the
// operator keeps them. The release itself is not judged; of its provenance only
// counts from whose repositories it was signed, since nobody rebuilds for
// themselves. It counts as Release does, each operator once, by the statement that
// finished last, but for two operators with one transcript: they have copied,
// since no two rebuilds have one. A policy that names no rebuilders
// is ErrPolicy; a release that is not there or is damaged is an error of oras.
func (v *Verifier) Audit(ctx context.Context, store oras.Store, digest canon.Digest, now time.Time, open func(context.Context, oras.Ref) (oras.Store, error)) (*Audit, error) {
	p := v.policy.Reproductions
	if p == nil {
		return nil, fmt.Errorf("%w: it names no rebuilders: write reproductions, with min: 0 if none are demanded", ErrPolicy)
	}
	a, err := oras.Pull(ctx, store, digest)
	if err != nil {
		return nil, err
	}
	out := &Audit{Format: 1, Release: digest, Product: a.Release.Product, Number: a.Release.Number, Needs: p.Min, Block: p.Block}
	c := &evidence{artifact: a, now: now, complete: true}
	near, err := oras.Bundles(ctx, store, digest, oras.ProvenanceTag(digest), oras.ReproductionTag(digest))
	if err != nil {
		return nil, err
	}
	c.addList(near)
	owner := v.judgeProvenance(v.newReport(digest), c)
	claimed := map[canon.Digest]bool{} // bundles that an identity of the policy signed
	for _, reb := range p.Rebuilders {
		o := AuditedOperator{Operator: reb.Operator, Status: AuditNotYet, Reason: "no statement found"}
		for _, b := range near.Bundles {
			v.audit(c, &o, reb, b.Data, owner, false, claimed)
		}
		for _, ref := range reb.Where {
			list, err := bundlesAt(ctx, ref, digest, open)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				if o.Status == AuditNotYet {
					o.Reason = Printable(fmt.Sprintf("%s could not be asked: %v", ref, err))
				}
				continue
			}
			for _, b := range list.Bundles {
				v.audit(c, &o, reb, b.Data, owner, true, claimed)
			}
		}
		out.Operators = append(out.Operators, o)
	}
	for _, b := range near.Bundles {
		if b := parse(b.Data); b.predicateType == PredicateReproduction && !claimed[b.digest] {
			out.Strangers++
		}
	}
	out.settle()
	return out, nil
}

func bundlesAt(ctx context.Context, ref oras.Ref, d canon.Digest, open func(context.Context, oras.Ref) (oras.Store, error)) (*oras.BundleList, error) {
	if open == nil {
		return nil, errors.New("other places are not asked")
	}
	store, err := open(ctx, ref)
	if err != nil {
		return nil, err
	}
	return oras.Bundles(ctx, store, d, oras.ReproductionTag(d))
}

// audit looks at one bundle for one operator. publisher is the owner of the
// repository that the release was signed from; own says that the bundle lies in a
// place of the operator's.
func (v *Verifier) audit(c *evidence, o *AuditedOperator, reb Rebuilder, raw []byte, publisher string, own bool, claimed map[canon.Digest]bool) {
	b := parse(raw)
	if b.predicateType != PredicateReproduction {
		return
	}
	s := v.trust.verify(b, reb.Identities, c.now)
	worse := func(status AuditStatus, reason string) {
		if o.Status == AuditNotYet {
			o.Status, o.Reason, o.Bundle = status, Printable(reason), b.digest
		}
	}
	if s.by == nil {
		if own {
			worse(AuditNoKey, s.reason)
		}
		return
	}
	claimed[b.digest] = true
	if s.failed == stepSigner {
		worse(AuditExpired, s.reason)
		return
	}
	got, reason := v.judgeRebuild(c, b, s, publisher)
	if reason != "" {
		worse(AuditMismatch, reason)
		return
	}
	settled := o.Status == AuditPass || o.Status == AuditFail
	if settled && (got.Finished < o.Finished || got.Finished == o.Finished && o.Status == AuditFail) {
		return
	}
	*o = AuditedOperator{
		Operator: o.Operator, Status: AuditPass, Obtained: got.Obtained, Finished: got.Finished, Bundle: b.digest,
		Transcript: got.Transcript, Identity: signerKey(b, s),
		Trainer:     Trainer{Printable(got.Trainer.Version), Printable(got.Trainer.H1), Printable(got.Trainer.Commit)},
		Environment: Environment{Printable(got.Environment.OS), Printable(got.Environment.Arch), Printable(got.Environment.Go)},
	}
	if got.Result == ResultFail {
		o.Status, o.Reason = AuditFail, "other bytes: "+got.Obtained.String()
	}
}

// signerKey is the TranscriptKey of who signed a verified bundle. The policy may
// name a certificate by an expression, so what it says itself counts.
func signerKey(p *parsed, s *signed) canon.Digest {
	if s.by.Certificate == nil {
		return s.by.TranscriptKey()
	}
	content, err := p.bundle.VerificationContent()
	if err != nil {
		return canon.Digest{}
	}
	cert, err := certificate.SummarizeCertificate(content.Certificate())
	if err != nil {
		return canon.Digest{}
	}
	return certificateKey(cert.Issuer, cert.SubjectAlternativeName)
}

// settle finds copies that show without a rebuild, and counts.
func (a *Audit) settle() {
	first := map[canon.Digest]int{}
	order := make([]int, len(a.Operators))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { // who finished first had it first
		return cmp.Compare(a.Operators[i].Finished, a.Operators[j].Finished)
	})
	for _, i := range order {
		o := &a.Operators[i]
		if o.Transcript.IsZero() {
			continue
		}
		if j, ok := first[o.Transcript]; ok && o.Status == AuditPass {
			o.Status, o.Reason = AuditCopied, "its transcript is that of "+a.Operators[j].Operator+", which no rebuild of its own could have"
			continue
		}
		first[o.Transcript] = i
	}
	a.count()
}

func (a *Audit) count() {
	a.Passed, a.Failed = 0, 0
	for _, o := range a.Operators {
		switch o.Status {
		case AuditPass:
			a.Passed++
		case AuditFail:
			a.Failed++
		}
	}
}

// Compare marks as COPIED each operator whose stated transcript is not the one
// that own, given what names who signed, computes from a rebuild made here. It
// speaks only of those whose rebuild had the bytes that this one had.
func (a *Audit) Compare(obtained canon.Digest, own func(identity canon.Digest) canon.Digest) {
	for i := range a.Operators {
		o := &a.Operators[i]
		if o.Obtained != obtained || o.Transcript.IsZero() || o.Status != AuditPass && o.Status != AuditFail {
			continue
		}
		if own(o.Identity) != o.Transcript {
			o.Status, o.Reason = AuditCopied, "a rebuild by this operator has another transcript: the answer was not obtained by training"
		}
	}
	a.count()
}

// Enough reports whether as many operators passed as the policy demands, and
// none failed if that is what it demands.
func (a *Audit) Enough() bool { return a.Passed >= a.Needs && !(a.Block && a.Failed > 0) }

// WriteText writes a as a table with one line for each operator, and one that counts.
func (a *Audit) WriteText(to io.Writer) error {
	w := bufio.NewWriter(to)
	width := len("operator")
	for _, o := range a.Operators {
		width = max(width, utf8.RuneCountInString(o.Operator))
	}
	line := func(operator, status, finished, about string) {
		fmt.Fprintf(w, "%-*s  %-8s  %-20s  %s\n", width, operator, status, finished, about)
	}
	line("operator", "status", "finished", "environment, or why")
	for _, o := range a.Operators {
		line(Printable(o.Operator), string(o.Status), cmp.Or(o.Finished, "–"), o.About())
	}
	if a.Strangers > 0 {
		fmt.Fprintf(w, "%d statements beside the release are signed by nobody of the policy.\n", a.Strangers)
	}
	if a.Block && a.Failed > 0 {
		fmt.Fprintf(w, "A rebuild had other bytes, and the policy lets none pass over that (on_failure: block).\n")
	}
	fmt.Fprintf(w, "%d of %d, needs %d: %s release %d, %s\n", a.Passed, len(a.Operators), a.Needs, Printable(a.Product), a.Number, a.Release)
	return w.Flush()
}

// About is where a rebuild that passed ran, or why it did not count.
func (o AuditedOperator) About() string {
	if o.Status != AuditPass {
		return Printable(o.Reason)
	}
	return fmt.Sprintf("%s/%s, %s, trainer %s", o.Environment.OS, o.Environment.Arch, o.Environment.Go, o.Trainer)
}
