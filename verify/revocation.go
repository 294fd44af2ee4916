package verify

import (
	"fmt"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Revocation is the predicate revocation/v1: a release must not be used any
// more. Its bundle stands in the channel's list. Signed by a revoker of the
// policy it unloads the release; signed by anyone else, it only keeps the
// release from being installed while the channel lists it.
type Revocation struct {
	Product  string       `json:"product"`
	Release  int64        `json:"release"`
	Manifest canon.Digest `json:"manifest"` // of the revoked release, the subject
	Reason   string       `json:"reason"`   // 1 to 400 bytes, printable
	Issued   string       `json:"issued"`   // RFC 3339, UTC, seconds
}

// NewRevocation returns the statement that r is. Failures are those of
// Statement.Revocation.
func NewRevocation(r Revocation) (Statement, error) {
	s, err := newStatement(PredicateRevocation, r, Resource{Name: r.Product, Digest: Digests(r.Manifest)})
	if err != nil {
		return Statement{}, err
	}
	if _, err := s.Revocation(); err != nil {
		return Statement{}, err
	}
	return s, nil
}

// Revocation decodes the predicate revocation/v1, strictly. Another predicate
// type, unknown or missing members, values out of range, or a subject other
// than the revoked release is ErrStatement.
func (s Statement) Revocation() (*Revocation, error) {
	var r Revocation
	if err := s.decodePredicate(PredicateRevocation, &r); err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) (*Revocation, error) {
		return nil, fmt.Errorf("%w: revocation: "+format, append([]any{ErrStatement}, args...)...)
	}
	if err := oras.CheckName(r.Product, r.Release); err != nil {
		return fail("%v", err)
	}
	switch {
	case r.Manifest.IsZero():
		return fail("names no release")
	case r.Reason == "" || len(r.Reason) > maxReason || Printable(r.Reason) != r.Reason:
		return fail("reason: want 1 to %d bytes of printable text", maxReason)
	}
	if _, err := ParseTime(r.Issued); err != nil {
		return fail("issued: %w", err)
	}
	if err := s.onlySubject(r.Manifest); err != nil {
		return nil, err
	}
	return &r, nil
}
