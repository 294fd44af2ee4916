package verify

import (
	"fmt"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// SnapshotName names the subject of a dataset statement that is the dataset
// itself, not the artifact that carries it.
const SnapshotName = "snapshot.json"

// DatasetClaim is the predicate dataset/v1: whoever publishes a dataset says
// what is in it and where it came from. It is signed by the dataset's
// publisher, who need not be the one who trains on it.
type DatasetClaim struct {
	Dataset   canon.Digest `json:"dataset"`   // SHA-256 of snapshot.json
	Address   string       `json:"address"`   // form of the addresses: full, truncated or hashed
	Redaction int64        `json:"redaction"` // version of the redaction of texts, 0 for none
	Tables    []TableClaim `json:"tables"`    // as in snapshot.json
	Inputs    []Resource   `json:"inputs"`    // raw inputs: name, sha256, annotations size and source
	Issued    string       `json:"issued"`    // RFC 3339, UTC, seconds
}

// TableClaim says what one table of a dataset holds.
type TableClaim struct {
	Name string       `json:"name"`
	Rows int64        `json:"rows"`
	Root canon.Digest `json:"root"` // RFC 6962 Merkle tree hash over the canonical rows
}

// NewDatasetClaim returns the statement that c is about the dataset artifact
// whose OCI manifest has the digest artifact, under the given display name.
// Failures are those of Statement.DatasetClaim.
func NewDatasetClaim(name string, artifact canon.Digest, c DatasetClaim) (Statement, error) {
	if c.Inputs == nil {
		c.Inputs = []Resource{}
	}
	s, err := newStatement(PredicateDataset, c,
		Resource{Name: SnapshotName, Digest: Digests(c.Dataset)},
		Resource{Name: name, Digest: Digests(artifact)})
	if err != nil {
		return Statement{}, err
	}
	if _, err := s.DatasetClaim(); err != nil {
		return Statement{}, err
	}
	return s, nil
}

// DatasetClaim decodes the predicate dataset/v1, strictly. Another predicate
// type, unknown or missing members, values out of range, or subjects other
// than snapshot.json and one artifact are ErrStatement.
func (s Statement) DatasetClaim() (*DatasetClaim, error) {
	var c DatasetClaim
	if err := s.decodePredicate(PredicateDataset, &c); err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) (*DatasetClaim, error) {
		return nil, fmt.Errorf("%w: dataset: "+format, append([]any{ErrStatement}, args...)...)
	}
	switch {
	case c.Dataset.IsZero():
		return fail("names no dataset digest")
	case c.Address != "full" && c.Address != "truncated" && c.Address != "hashed":
		return fail("address form %q, want full, truncated or hashed", Printable(c.Address))
	case c.Redaction < 0:
		return fail("redaction %d, want 0 or more", c.Redaction)
	case len(c.Tables) == 0 || len(c.Tables) > maxTables:
		return fail("%d tables, want 1 to %d", len(c.Tables), maxTables)
	case c.Inputs == nil:
		return fail("inputs are null, want a list")
	}
	seen := map[string]bool{}
	for _, t := range c.Tables {
		if !oras.IsName(t.Name) || seen[t.Name] || t.Rows < 0 || t.Root.IsZero() {
			return fail("table %q: want a name of its own, rows and a root", Printable(t.Name))
		}
		seen[t.Name] = true
	}
	for _, in := range c.Inputs {
		if in.Name == "" || in.SHA256().IsZero() {
			return fail("input %q: want a name and a sha256", Printable(in.Name))
		}
	}
	if _, err := ParseTime(c.Issued); err != nil {
		return fail("issued: %w", err)
	}
	if len(s.Subject) != 2 || s.Subject[0].Name != SnapshotName || s.Subject[0].SHA256() != c.Dataset || s.Subject[1].SHA256().IsZero() {
		return fail("want two subjects: %s with the dataset digest, and the artifact", SnapshotName)
	}
	return &c, nil
}
