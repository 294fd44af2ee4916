package verify

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// BuildTypeTrain is the build type of a training run. STATEMENTS.md describes
// its parameters.
const BuildTypeTrain = "https://github.com/battle-hardened-ai/bhtrain/buildtypes/train/v1"

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
	case q.Release < 1 || q.Release > oras.MaxNumber:
		return nil, fmt.Errorf("%w: provenance: release number %d, want 1 to %d", ErrStatement, q.Release, int64(oras.MaxNumber))
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

// Keys of Builder.Version.
const (
	VersionTrainer = "bhtrain" // version of the trainer's module
	VersionModule  = "module"  // its h1 sum, "unknown" when the build does not know it
)

// Trainer names the program that trains: the version of its module, the h1 sum
// of the module's zip (as in go.sum) and the commit of its source (40
// lower-case hex digits). Empty members are not known.
type Trainer struct {
	Version string `json:"version,omitzero"`
	H1      string `json:"h1,omitzero"`
	Commit  string `json:"commit,omitzero"`
}

// String is what is known of t, separated by commas.
func (t Trainer) String() string {
	var text []string
	for _, s := range []struct{ name, value string }{{"", t.Version}, {"", t.H1}, {"commit ", t.Commit}} {
		if s.value != "" {
			text = append(text, s.name+s.value)
		}
	}
	if len(text) == 0 {
		return "unknown"
	}
	return strings.Join(text, ", ")
}

// Matches reports whether t has every member that want has, and want has one.
func (t Trainer) Matches(want Trainer) bool {
	return want != (Trainer{}) &&
		(want.Version == "" || t.Version == want.Version) &&
		(want.H1 == "" || t.H1 == want.H1) &&
		(want.Commit == "" || t.Commit == want.Commit)
}

// Trainer returns what the provenance says of the program that trained.
// "unknown" is nothing known.
func (p *Provenance) Trainer() Trainer {
	known := func(s string) string {
		if s == "unknown" {
			return ""
		}
		return s
	}
	v := p.RunDetails.Builder.Version
	return Trainer{
		Version: known(v[VersionTrainer]),
		H1:      known(v[VersionModule]),
		Commit:  p.Dependency(DependencySource).Digest["gitCommit"],
	}
}

// SourceRepository is the URI of the repository that the trainer's source came
// from, without the prefix "git+"; "" when the provenance does not say.
func (p *Provenance) SourceRepository() string {
	return strings.TrimPrefix(p.Dependency(DependencySource).URI, "git+")
}
