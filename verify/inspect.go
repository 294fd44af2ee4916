package verify

import (
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Claim is what a bundle says of itself, for people to read: of no word of it has
// anybody verified anything. Texts are printable and bounded.
type Claim struct {
	Bundle        canon.Digest   `json:"bundle"`        // SHA-256 of its bytes
	Signer        string         `json:"signer"`        // the certificate's name and issuer, or the hint of a key
	PredicateType string         `json:"predicateType"` // "" when it could not be read
	Subjects      []canon.Digest `json:"subjects"`      // their SHA-256; those without are left out
	Says          string         `json:"says"`          // of the project's own types, in words
	Problem       string         `json:"problem"`       // why it could not be read, or not wholly
}

// ReadClaim reads what a bundle says of itself. It never panics, whatever the bytes.
func ReadClaim(bundle []byte) (c Claim) {
	p := parse(bundle)
	c = Claim{Bundle: p.digest, Subjects: []canon.Digest{}}
	if p.err != nil {
		c.Problem = Printable(p.err.Error())
		return c
	}
	defer func() {
		if r := recover(); r != nil {
			c.Problem = Printable(fmt.Sprintf("%v: %v", ErrBundle, r))
		}
	}()
	c.Signer = Printable(claimedSigner(p))
	s, err := DecodeStatement(p.payload)
	if err != nil {
		c.Problem = Printable(err.Error())
		return c
	}
	c.PredicateType = Printable(s.PredicateType)
	for _, r := range s.Subject {
		if d := r.SHA256(); !d.IsZero() {
			c.Subjects = append(c.Subjects, d)
		}
	}
	says, err := s.words()
	if c.Says = Printable(says); err != nil {
		c.Problem = Printable(err.Error())
	}
	return c
}

func claimedSigner(p *parsed) string {
	content, err := p.bundle.VerificationContent()
	switch {
	case err != nil:
		return ""
	case p.byKey && content.PublicKey().Hint() == "":
		return "a key"
	case p.byKey:
		return "a key with the hint " + content.PublicKey().Hint()
	}
	cert, err := certificate.SummarizeCertificate(content.Certificate())
	if err != nil {
		return "a certificate that cannot be read"
	}
	return fmt.Sprintf("%s by %s", cert.SubjectAlternativeName, cert.Issuer)
}

// words says what a statement of the project's types claims.
func (s Statement) words() (string, error) {
	switch s.PredicateType {
	case PredicateProvenance:
		p, err := s.Provenance()
		if err != nil {
			return "", err
		}
		q := p.BuildDefinition.ExternalParameters
		return fmt.Sprintf("%s release %d, made by %s from dataset %s", q.Product, q.Release, p.RunDetails.Builder.ID, p.Dependency(DependencyDataset).SHA256()), nil
	case PredicateDataset:
		c, err := s.DatasetClaim()
		if err != nil {
			return "", err
		}
		rows := int64(0)
		for _, t := range c.Tables {
			rows += t.Rows
		}
		return fmt.Sprintf("dataset %s, %d rows of %s, addresses %s", c.Dataset, rows, count(len(c.Inputs), "input"), c.Address), nil
	case PredicateChannel:
		c, err := s.Channel()
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s of %s, epoch %d, sequence %d: release %d, %s; lowest %d; %s; until %s",
			c.Channel, c.Product, c.Epoch, c.Sequence, c.Release, c.Manifest, c.Lowest, count(len(c.Revocations), "revocation"), c.Expires), nil
	case PredicateRevocation:
		r, err := s.Revocation()
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s release %d revoked: %s", r.Product, r.Release, r.Reason), nil
	case PredicateReproduction:
		r, err := s.Reproduction()
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s release %d rebuilt: %s, %s", r.Product, r.Release, r.Result, r.Obtained), nil
	}
	return "", nil
}

// Endorsement is who signed a statement under a policy, and as what.
type Endorsement struct {
	Role   string `json:"role"`   // publisher, dataset publisher, rebuilder, channel signer or revoker; "" for a type that the policy has no role for
	Signer string `json:"signer"` // the identity, if it signed; "" otherwise
	Time   string `json:"time"`   // earliest signed time; "" when the policy asks for none
	Reason string `json:"reason"` // why it does not count; "" if it does
}

// Endorse verifies the signature of one bundle by an identity that the policy
// names for statements of its type, and that the statement can be read and has
// about among its subjects. It says who spoke, and nothing about whether a release
// is to be trusted: that is for Release. It never panics.
func (v *Verifier) Endorse(bundle []byte, about canon.Digest, now time.Time) Endorsement {
	p := parse(bundle)
	e := Endorsement{}
	var who []Identity
	switch p.predicateType {
	case PredicateProvenance:
		e.Role, who = "publisher", v.policy.Publishers
	case PredicateDataset:
		e.Role, who = "dataset publisher", v.policy.Datasets.Publishers
	case PredicateReproduction:
		e.Role = "rebuilder"
		if r := v.policy.Reproductions; r != nil {
			for _, b := range r.Rebuilders {
				who = append(who, b.Identities...)
			}
		}
	case PredicateChannel:
		e.Role = "channel signer"
		if c := v.policy.Channel; c != nil {
			who = c.Signers
		}
	case PredicateRevocation:
		e.Role, who = "revoker", v.policy.Revokers
	}
	refuse := func(format string, args ...any) Endorsement {
		e.Signer, e.Reason = "", Printable(fmt.Sprintf(format, args...))
		return e
	}
	switch {
	case p.err != nil:
		return refuse("%v", p.err)
	case e.Role == "":
		return refuse("the policy has no role for statements of type %q", Printable(p.predicateType))
	case len(who) == 0:
		return refuse("the policy names no %s", e.Role)
	}
	s := v.trust.verify(p, who, now)
	if !s.ok() {
		return refuse("%s: %s", s.failed, s.reason)
	}
	statement, err := DecodeStatement(p.payload)
	if err == nil {
		_, err = statement.words()
	}
	switch {
	case err != nil:
		return refuse("signed by %s: %v", s.by.Name, err)
	case !statement.Names(about):
		return refuse("signed by %s, about something else", s.by.Name)
	}
	e.Signer = Printable(s.by.String())
	if !s.time().IsZero() {
		e.Time = FormatTime(s.time())
	}
	return e
}
