package verify

import (
	"fmt"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Results of a rebuild.
const (
	ResultPass = "pass" // the bytes of the release came out again
	ResultFail = "fail" // others did
)

// Reproduction is the predicate reproduction/v1: what an auditor found who
// trained the release again.
type Reproduction struct {
	Product     string       `json:"product"`
	Release     int64        `json:"release"`
	Result      string       `json:"result"`   // ResultPass or ResultFail
	Manifest    canon.Digest `json:"manifest"` // of the release, the subject
	Obtained    canon.Digest `json:"obtained"` // manifest digest that the rebuild had
	Recipe      canon.Digest `json:"recipe"`   // SHA-256 of the recipe in canonical JSON
	Dataset     canon.Digest `json:"dataset"`  // SHA-256 of snapshot.json
	Trainer     Trainer      `json:"trainer"`  // what was run; h1 is known
	Environment Environment  `json:"environment"`
	Transcript  canon.Digest `json:"transcript"` // keyed digest of the states between; opaque to policies
	Started     string       `json:"started"`    // RFC 3339, UTC, seconds
	Finished    string       `json:"finished"`   // not before Started
}

// Environment says where a rebuild ran.
type Environment struct {
	OS   string `json:"os"`   // as GOOS
	Arch string `json:"arch"` // as GOARCH
	Go   string `json:"go"`   // toolchain, such as go1.26.8
}

// NewReproduction returns the statement that r is. Failures are those of
// Statement.Reproduction.
func NewReproduction(r Reproduction) (Statement, error) {
	s, err := newStatement(PredicateReproduction, r, Resource{Name: r.Product, Digest: Digests(r.Manifest)})
	if err != nil {
		return Statement{}, err
	}
	if _, err := s.Reproduction(); err != nil {
		return Statement{}, err
	}
	return s, nil
}

// Reproduction decodes the predicate reproduction/v1, strictly. Another
// predicate type, unknown or missing members, values out of range, a result
// that the two digests do not bear out, or a subject other than the release is
// ErrStatement.
func (s Statement) Reproduction() (*Reproduction, error) {
	var r Reproduction
	if err := s.decodePredicate(PredicateReproduction, &r); err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) (*Reproduction, error) {
		return nil, fmt.Errorf("%w: reproduction: "+format, append([]any{ErrStatement}, args...)...)
	}
	if err := oras.CheckName(r.Product, r.Release); err != nil {
		return fail("%v", err)
	}
	switch {
	case r.Result != ResultPass && r.Result != ResultFail:
		return fail("result %q, want %s or %s", Printable(r.Result), ResultPass, ResultFail)
	case r.Manifest.IsZero() || r.Obtained.IsZero() || r.Recipe.IsZero() || r.Dataset.IsZero() || r.Transcript.IsZero():
		return fail("a digest is empty")
	case (r.Result == ResultPass) != (r.Manifest == r.Obtained):
		return fail("result %s, but obtained %s for %s", r.Result, r.Obtained, r.Manifest)
	case r.Trainer.H1 == "" || r.Trainer.H1 == "unknown":
		return fail("names no h1 sum of the trainer")
	case r.Environment.OS == "" || r.Environment.Arch == "" || r.Environment.Go == "":
		return fail("environment is incomplete")
	}
	started, err := ParseTime(r.Started)
	if err != nil {
		return fail("started: %w", err)
	}
	switch finished, err := ParseTime(r.Finished); {
	case err != nil:
		return fail("finished: %w", err)
	case finished.Before(started):
		return fail("finished before it started")
	}
	if err := s.onlySubject(r.Manifest); err != nil {
		return nil, err
	}
	return &r, nil
}
