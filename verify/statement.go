package verify

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Type URIs that statements carry. STATEMENTS.md describes each.
const (
	StatementV1  = "https://in-toto.io/Statement/v1"   // written
	StatementV01 = "https://in-toto.io/Statement/v0.1" // accepted on reading: other tools still write it

	PayloadType         = "application/vnd.in-toto+json" // of the DSSE envelope around a statement
	PredicateProvenance = "https://slsa.dev/provenance/v1"
	BuildTypeTrain      = "https://github.com/battle-hardened-ai/bhtrain/buildtypes/train/v1"
)

// Names of the resolved dependencies of BuildTypeTrain. Each but inputs stands
// at most once; the dataset must be there.
const (
	DependencyDataset  = "dataset"          // sha256 of snapshot.json: the dataset digest
	DependencyArtifact = "dataset-artifact" // sha256 of the OCI manifest that carries the dataset
	DependencySource   = "source"           // gitCommit of the trainer's source
	DependencyGo       = "go"               // annotation "version": the Go toolchain
	DependencyModules  = "modules"          // sha256 of the list of module sums linked into the trainer
	DependencyInput    = "input/"           // prefix: one raw input, sha256 and annotation "size" in bytes
)

const (
	maxStatement = 256 << 10 // bytes; a provenance of a thousand inputs is about 200 KiB
	maxSubjects  = 64        // a release has six; more would let one signature speak for anything
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

// DecodeStatement reads one statement, strictly: at most 256 KiB of JSON, type
// v1 or v0.1, unknown or duplicate members refused, 1 to 64 subjects each with
// a digest, a predicate that is a JSON object. Failures are ErrStatement. The
// predicate is kept as text and not looked into; whoever reads it decodes it
// as strictly.
func DecodeStatement(b []byte) (Statement, error) {
	var s Statement
	if len(b) > maxStatement {
		return Statement{}, fmt.Errorf("%w: %d bytes, limit %d", ErrStatement, len(b), maxStatement)
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

// Provenance is the SLSA provenance v1 predicate with the external parameters
// of BuildTypeTrain.
type Provenance struct {
	BuildDefinition BuildDefinition `json:"buildDefinition"`
	RunDetails      RunDetails      `json:"runDetails"`
}

// BuildDefinition says what was asked of the builder and what it took in.
type BuildDefinition struct {
	BuildType            string         `json:"buildType"`
	ExternalParameters   Parameters     `json:"externalParameters"`
	InternalParameters   jsontext.Value `json:"internalParameters,omitzero"` // the builder's own; never judged
	ResolvedDependencies []Resource     `json:"resolvedDependencies"`
}

// Parameters are all that a user may ask of a training run. Together with the
// dataset they decide every byte of the release.
type Parameters struct {
	Product string         `json:"product"`
	Release int64          `json:"release"` // release number, 1 or more
	Recipe  jsontext.Value `json:"recipe"`  // as in release.json
}

// RunDetails says who ran the build and when. Times stand here and nowhere in
// the release, whose bytes do not depend on them.
type RunDetails struct {
	Builder    Builder    `json:"builder"`
	Metadata   Metadata   `json:"metadata,omitzero"`
	Byproducts []Resource `json:"byproducts,omitzero"`
}

// Builder names the system that is trusted to have run the build as told.
type Builder struct {
	ID                  string            `json:"id"`
	Version             map[string]string `json:"version,omitzero"`
	BuilderDependencies []Resource        `json:"builderDependencies,omitzero"`
}

// Metadata of one run; times are RFC 3339 in UTC.
type Metadata struct {
	InvocationID string `json:"invocationId,omitzero"`
	StartedOn    string `json:"startedOn,omitzero"`
	FinishedOn   string `json:"finishedOn,omitzero"`
}

// NewProvenance returns the statement that p is the provenance of the release
// with the manifest digest release, under the given display name. Failures are
// those that DecodeProvenance would report.
func NewProvenance(name string, release canon.Digest, p Provenance) (Statement, error) {
	b, err := canon.Marshal(p)
	if err != nil {
		return Statement{}, fmt.Errorf("provenance: %w", err)
	}
	s := Statement{
		Type:          StatementV1,
		Subject:       []Resource{{Name: name, Digest: Digests(release)}},
		PredicateType: PredicateProvenance,
		Predicate:     b,
	}
	if _, err := s.Provenance(); err != nil {
		return Statement{}, err
	}
	return s, nil
}

// Provenance decodes the predicate, strictly: another predicate type or build
// type, unknown members (external parameters above all: what a verifier does
// not understand it must not pass), a parameter missing or out of range, or a
// dependency named twice is ErrStatement.
func (s Statement) Provenance() (*Provenance, error) {
	if s.PredicateType != PredicateProvenance {
		return nil, fmt.Errorf("%w: predicate type %q, want %s", ErrStatement, Printable(s.PredicateType), PredicateProvenance)
	}
	var p Provenance
	// The build type decides what the other members mean, so it is judged first.
	var head struct {
		BuildDefinition struct {
			BuildType string `json:"buildType"`
		} `json:"buildDefinition"`
	}
	if err := json.Unmarshal(s.Predicate, &head); err != nil {
		return nil, fmt.Errorf("%w: provenance: %w", ErrStatement, err)
	}
	if t := head.BuildDefinition.BuildType; t != BuildTypeTrain {
		return nil, fmt.Errorf("%w: build type %q, want %s", ErrStatement, Printable(t), BuildTypeTrain)
	}
	if err := canon.Unmarshal(s.Predicate, &p); err != nil {
		return nil, fmt.Errorf("%w: provenance: %w", ErrStatement, err)
	}
	q := &p.BuildDefinition.ExternalParameters
	switch {
	case q.Product == "":
		return nil, fmt.Errorf("%w: provenance names no product", ErrStatement)
	case q.Release < 1:
		return nil, fmt.Errorf("%w: provenance: release number %d, want 1 or more", ErrStatement, q.Release)
	case q.Recipe.Kind() != '{':
		return nil, fmt.Errorf("%w: provenance: recipe is not an object", ErrStatement)
	case p.RunDetails.Builder.ID == "":
		return nil, fmt.Errorf("%w: provenance names no builder", ErrStatement)
	}
	recipe, err := canon.Canonicalize(q.Recipe)
	if err != nil {
		return nil, fmt.Errorf("%w: provenance: recipe: %w", ErrStatement, err)
	}
	q.Recipe = recipe
	seen := map[string]bool{}
	for _, r := range p.BuildDefinition.ResolvedDependencies {
		if r.Name == "" || seen[r.Name] && !strings.HasPrefix(r.Name, DependencyInput) {
			return nil, fmt.Errorf("%w: provenance: dependency %q is unnamed or named twice", ErrStatement, Printable(r.Name))
		}
		seen[r.Name] = true
	}
	if p.Dependency(DependencyDataset).SHA256().IsZero() {
		return nil, fmt.Errorf("%w: provenance names no dataset digest", ErrStatement)
	}
	return &p, nil
}

// Dependency returns the resolved dependency of that name, or a zero Resource.
func (p *Provenance) Dependency(name string) Resource {
	for _, r := range p.BuildDefinition.ResolvedDependencies {
		if r.Name == name {
			return r
		}
	}
	return Resource{}
}
