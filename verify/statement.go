package verify

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Type URIs that statements carry. STATEMENTS.md describes each.
const (
	StatementV1  = "https://in-toto.io/Statement/v1"   // written
	StatementV01 = "https://in-toto.io/Statement/v0.1" // accepted on reading: other tools still write it

	PayloadType = "application/vnd.in-toto+json" // of the DSSE envelope around a statement

	PredicateProvenance   = "https://slsa.dev/provenance/v1"
	PredicateDataset      = statements + "dataset/v1"
	PredicateChannel      = statements + "channel/v1"
	PredicateRevocation   = statements + "revocation/v1"
	PredicateReproduction = statements + "reproduction/v1"

	statements = "https://github.com/battle-hardened-ai/bhtrain/statements/"
)

// ErrStatement: bytes are no in-toto statement of the form asked for.
var ErrStatement = errors.New("not a valid statement")

// Statement is an in-toto attestation statement: what a signature speaks
// about, and the claim.
type Statement struct {
	Type          string         `json:"_type"`
	Subject       []Resource     `json:"subject"`
	PredicateType string         `json:"predicateType"`
	Predicate     jsontext.Value `json:"predicate"`
}

// Resource is an in-toto resource descriptor.
type Resource struct {
	Name             string            `json:"name,omitzero"`
	URI              string            `json:"uri,omitzero"`
	Digest           map[string]string `json:"digest,omitzero"` // algorithm to lower-case hex
	Content          string            `json:"content,omitzero"`
	DownloadLocation string            `json:"downloadLocation,omitzero"`
	MediaType        string            `json:"mediaType,omitzero"`
	Annotations      map[string]any    `json:"annotations,omitzero"`
}

// SHA256 returns the resource's SHA-256 digest, or the zero Digest when it has
// none in the form of 64 lower-case hex digits.
func (r Resource) SHA256() canon.Digest {
	d, err := canon.ParseDigest("sha256:" + r.Digest["sha256"])
	if err != nil {
		return canon.Digest{}
	}
	return d
}

// Digests returns the digest set of d, as Resource.Digest holds it.
func Digests(d canon.Digest) map[string]string { return map[string]string{"sha256": d.Hex()} }

// DecodeStatement reads one statement, strictly: at most 256 KiB of JSON (768
// KiB with a channel, which holds other statements), type v1 or v0.1, unknown
// or duplicate members refused, 1 to 64 subjects each with a digest, a
// predicate that is a JSON object. Failures are ErrStatement. The predicate is
// kept as text and not looked into; whoever reads it decodes it as strictly.
func DecodeStatement(b []byte) (Statement, error) {
	var s Statement
	if len(b) > maxChannelStatement {
		return Statement{}, fmt.Errorf("%w: %d bytes, limit %d", ErrStatement, len(b), maxChannelStatement)
	}
	if err := canon.Unmarshal(b, &s); err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	if s.Type != StatementV1 && s.Type != StatementV01 {
		return Statement{}, fmt.Errorf("%w: type %q, want %s", ErrStatement, Printable(s.Type), StatementV1)
	}
	if n := len(s.Subject); n == 0 || n > maxSubjects {
		return Statement{}, fmt.Errorf("%w: %d subjects, want 1 to %d", ErrStatement, n, maxSubjects)
	}
	for i, r := range s.Subject {
		if len(r.Digest) == 0 {
			return Statement{}, fmt.Errorf("%w: subject %d has no digest", ErrStatement, i+1)
		}
	}
	if s.PredicateType == "" {
		return Statement{}, fmt.Errorf("%w: no predicate type", ErrStatement)
	}
	if len(b) > maxStatement && s.PredicateType != PredicateChannel {
		return Statement{}, fmt.Errorf("%w: %d bytes, limit %d", ErrStatement, len(b), maxStatement)
	}
	if s.Predicate.Kind() != '{' {
		return Statement{}, fmt.Errorf("%w: predicate is not an object", ErrStatement)
	}
	return s, nil
}

// Encode returns the canonical JSON of s: the payload to sign.
func (s Statement) Encode() ([]byte, error) {
	b, err := canon.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	if _, err := DecodeStatement(b); err != nil {
		return nil, err
	}
	return b, nil
}

// Names reports whether d is the sha256 digest of one of the subjects.
func (s Statement) Names(d canon.Digest) bool {
	for _, r := range s.Subject {
		if !d.IsZero() && r.SHA256() == d {
			return true
		}
	}
	return false
}

// newStatement returns a statement about subjects whose predicate is p. Its
// own reader has to accept it.
func newStatement(predicateType string, p any, subjects ...Resource) (Statement, error) {
	b, err := canon.Marshal(p)
	if err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	return Statement{Type: StatementV1, Subject: subjects, PredicateType: predicateType, Predicate: b}, nil
}

// decodePredicate decodes the predicate into p, the struct of one of our own
// predicate types: another type, and any member that is unknown, missing or
// twice there, is ErrStatement. (What is missing shows in the canonical form.)
func (s Statement) decodePredicate(predicateType string, p any) error {
	if s.PredicateType != predicateType {
		return fmt.Errorf("%w: predicate type %q, want %s", ErrStatement, Printable(s.PredicateType), predicateType)
	}
	if err := canon.Unmarshal(s.Predicate, p); err != nil {
		return fmt.Errorf("%w: predicate: %w", ErrStatement, err)
	}
	have, err := canon.Canonicalize(s.Predicate)
	if err != nil {
		return fmt.Errorf("%w: predicate: %w", ErrStatement, err)
	}
	want, err := canon.Marshal(p)
	if err != nil {
		return fmt.Errorf("%w: predicate: %w", ErrStatement, err)
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("%w: predicate: a member is missing, null, or not in its one form", ErrStatement)
	}
	return nil
}

// onlySubject reports ErrStatement unless s has exactly one subject, with the
// sha256 digest want.
func (s Statement) onlySubject(want canon.Digest) error {
	if len(s.Subject) != 1 || s.Subject[0].SHA256() != want {
		return fmt.Errorf("%w: want exactly one subject, with the digest that the predicate names", ErrStatement)
	}
	return nil
}

const timeLayout = "2006-01-02T15:04:05Z"

// FormatTime writes t as statements and policies do: RFC 3339, UTC, seconds.
func FormatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// ParseTime reads what FormatTime writes, and nothing else.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeLayout, s)
	if err != nil || FormatTime(t) != s || t.Year() < 2000 || t.Year() > 9999 {
		return time.Time{}, fmt.Errorf("time %q: want the form 2026-01-31T12:00:00Z", Printable(s))
	}
	return t, nil
}

// CheckChannelName reports whether a channel may have this name: 1 to 64 of
// a-z 0-9 . _ - with a letter or digit at both ends.
func CheckChannelName(name string) error {
	if !oras.IsName(name) {
		return fmt.Errorf("channel name %q: want 1 to 64 of a-z 0-9 . _ - with a letter or digit at both ends", Printable(name))
	}
	return nil
}
