package oras

import (
	"fmt"
	"strconv"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/go-json-experiment/json/jsontext"
)

// FormatVersion is the version of release.json that this package writes and
// the only one it reads.
const FormatVersion = 1

// MaxNumber is the largest release number: the largest integer that every
// JSON reader carries exactly.
const MaxNumber = 1<<53 - 1

// Release is release.json: everything about a release but the model bytes. It
// holds no time and no place, so that it follows from its inputs alone.
//
// The four sections belong to other packages; here they are JSON objects in
// canonical form (RFC 8785, integers only) and nothing more.
type Release struct {
	Format   int            `json:"format"`   // FormatVersion; 0 means that when encoding
	Product  string         `json:"product"`  // 1 to 64 of a-z 0-9 . _ -, first and last a letter or digit
	Number   int64          `json:"release"`  // 1 to MaxNumber; higher is newer
	Dataset  canon.Digest   `json:"dataset"`  // of snapshot.json
	Recipe   jsontext.Value `json:"recipe"`   // owned by package trainer
	Features jsontext.Value `json:"features"` // owned by package dataset/feature
	Scoring  jsontext.Value `json:"scoring"`  // owned by package trainer/model
	Metrics  jsontext.Value `json:"metrics"`  // owned by package trainer
}

// IsName reports whether s can name a product: 1 to 64 of a-z 0-9 . _ - with a
// letter or digit at both ends.
func IsName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case 0 < i && i < len(s)-1 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return 1 <= len(s) && len(s) <= 64
}

// CheckName reports whether a release may have this product and number, else
// ErrInvalid with what is wanted.
func CheckName(product string, number int64) error {
	switch {
	case !IsName(product):
		return fmt.Errorf("%w: product %q: want 1 to 64 of a-z 0-9 . _ - with a letter or digit at both ends", ErrInvalid, printable(product, 80))
	case number < 1 || number > MaxNumber:
		return fmt.Errorf("%w: release number %d: want 1 to %d", ErrInvalid, number, int64(MaxNumber))
	}
	return nil
}

// check reports the first rule that r breaks, as ErrInvalid.
func (r *Release) check() error {
	if r.Format != FormatVersion {
		return fmt.Errorf("%w: release.json has format %d, this program reads %d: use a program of the same age", ErrInvalid, r.Format, FormatVersion)
	}
	if err := CheckName(r.Product, r.Number); err != nil {
		return err
	}
	switch {
	case r.Dataset.IsZero():
		return fmt.Errorf("%w: release.json names no dataset", ErrInvalid)
	}
	for _, s := range []struct {
		name  string
		value jsontext.Value
	}{{"recipe", r.Recipe}, {"features", r.Features}, {"scoring", r.Scoring}, {"metrics", r.Metrics}} {
		if s.value.Kind() != '{' {
			return fmt.Errorf("%w: %s in release.json is not an object", ErrInvalid, s.name)
		}
	}
	return nil
}

// Encode returns release.json in its one form. A rule that is broken, or a
// result longer than MaxReleaseJSON, is ErrInvalid.
func (r Release) Encode() ([]byte, error) {
	if r.Format == 0 {
		r.Format = FormatVersion
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	b, err := canon.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("release.json: %w", invalid(err))
	}
	if len(b) > MaxReleaseJSON {
		return nil, fmt.Errorf("%w: release.json has %d bytes, limit %d", ErrInvalid, len(b), MaxReleaseJSON)
	}
	return b, nil
}

// DecodeRelease reads release.json. Bytes that Encode would not have written
// are ErrInvalid.
func DecodeRelease(b []byte) (Release, error) {
	var r Release
	if len(b) > MaxReleaseJSON {
		return r, fmt.Errorf("%w: release.json has %d bytes, limit %d", ErrInvalid, len(b), MaxReleaseJSON)
	}
	if err := canon.UnmarshalCanonical(b, &r); err != nil {
		return Release{}, fmt.Errorf("release.json: %w", invalid(err))
	}
	if err := r.check(); err != nil {
		return Release{}, err
	}
	return r, nil
}

// TagLatest is the tag that a reference without a tag stands for. It is a
// convenience: which release is current is said by a signed channel.
const TagLatest = "latest"

// ReleaseTag is the tag of release number n, "release-<n>".
func ReleaseTag(n int64) string { return "release-" + strconv.FormatInt(n, 10) }

// DatasetTag is the tag under which the dataset artifact is found whose
// snapshot.json has digest d, "dataset-<hex>".
func DatasetTag(d canon.Digest) string { return "dataset-" + d.Hex() }

// ProvenanceTag is the tag of the provenance of the artifact whose manifest
// has digest d, "sha256-<hex>.provenance". A tag cannot be hidden by a flood
// of referrers.
func ProvenanceTag(d canon.Digest) string { return "sha256-" + d.Hex() + ".provenance" }

// DatasetStatementTag is the tag of the dataset statement about the dataset
// artifact whose manifest has digest d, "sha256-<hex>.dataset".
func DatasetStatementTag(d canon.Digest) string { return "sha256-" + d.Hex() + ".dataset" }

// referrersTag is the tag of the OCI distribution specification for stores
// without the referrers API, "sha256-<hex>": an index of what refers to d.
func referrersTag(d canon.Digest) string { return "sha256-" + d.Hex() }

// ReproductionTag is the tag of a rebuilder's statement about the release
// whose manifest has digest d, "sha256-<hex>.reproduction", in the place where
// that rebuilder keeps its statements.
func ReproductionTag(d canon.Digest) string { return "sha256-" + d.Hex() + ".reproduction" }
