package verify

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Channel is the predicate channel/v1: the word on which release is current,
// until when that holds, and which releases are revoked. It is published again
// and again, with a sequence that rises.
type Channel struct {
	Product     string           `json:"product"`
	Channel     string           `json:"channel"`     // its name, as CheckChannelName wants it
	Epoch       int64            `json:"epoch"`       // 1 or more; raised by people after an accident, together with the policies
	Sequence    int64            `json:"sequence"`    // 1 or more; higher at each publication within an epoch
	Release     int64            `json:"release"`     // number of the current release
	Manifest    canon.Digest     `json:"manifest"`    // its manifest digest, the subject
	Lowest      int64            `json:"lowest"`      // lowest release number that may still be installed, 1 to Release
	Revocations []jsontext.Value `json:"revocations"` // each a Sigstore bundle with a revocation/v1; cumulative
	Issued      string           `json:"issued"`      // RFC 3339, UTC, seconds
	Expires     string           `json:"expires"`     // later than Issued
}

// NewChannel returns the statement that c is. Failures are those of
// Statement.Channel.
func NewChannel(c Channel) (Statement, error) {
	if c.Revocations == nil {
		c.Revocations = []jsontext.Value{}
	}
	s, err := newStatement(PredicateChannel, c, Resource{Name: c.Product, Digest: Digests(c.Manifest)})
	if err != nil {
		return Statement{}, err
	}
	if _, err := s.Channel(); err != nil {
		return Statement{}, err
	}
	return s, nil
}

// Channel decodes the predicate channel/v1, strictly. Another predicate type,
// unknown or missing members, values out of range, or a subject other than the
// current release is ErrStatement. Of revocations it only says that each is an
// object; who signed them is for a Verifier to judge.
func (s Statement) Channel() (*Channel, error) {
	var c Channel
	if err := s.decodePredicate(PredicateChannel, &c); err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) (*Channel, error) {
		return nil, fmt.Errorf("%w: channel: "+format, append([]any{ErrStatement}, args...)...)
	}
	if err := oras.CheckName(c.Product, c.Release); err != nil {
		return fail("%v", err)
	}
	if err := CheckChannelName(c.Channel); err != nil {
		return fail("%w", err)
	}
	switch {
	case c.Epoch < 1 || c.Sequence < 1:
		return fail("epoch %d, sequence %d, want 1 or more", c.Epoch, c.Sequence)
	case c.Manifest.IsZero():
		return fail("names no release")
	case c.Lowest < 1 || c.Lowest > c.Release:
		return fail("lowest release %d, want 1 to %d", c.Lowest, c.Release)
	case c.Revocations == nil:
		return fail("revocations are null, want a list")
	case len(c.Revocations) > maxRevocations:
		return fail("%d revocations, limit %d", len(c.Revocations), maxRevocations)
	}
	for i, r := range c.Revocations {
		if r.Kind() != '{' {
			return fail("revocation %d is no object", i+1)
		}
	}
	issued, expires, err := c.times()
	switch {
	case err != nil:
		return fail("%w", err)
	case !expires.After(issued):
		return fail("expires %s, not after it was issued (%s)", c.Expires, c.Issued)
	}
	if err := s.onlySubject(c.Manifest); err != nil {
		return nil, err
	}
	return &c, nil
}

func (c *Channel) times() (issued, expires time.Time, err error) {
	if issued, err = ParseTime(c.Issued); err != nil {
		return issued, expires, fmt.Errorf("issued: %w", err)
	}
	if expires, err = ParseTime(c.Expires); err != nil {
		return issued, expires, fmt.Errorf("expires: %w", err)
	}
	return issued, expires, nil
}
