package pipeline

import (
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// LocalBuilder is the builder id of runs that name no other: somebody's
// machine, which nobody but its owner can vouch for.
const LocalBuilder = "https://github.com/battle-hardened-ai/bhtrain/builders/local/v1"

// Builder says what ran the build. Unknown facts are "unknown" or empty.
type Builder struct {
	ID         string // URI; "" is LocalBuilder
	Invocation string // URI of this run; "" is a new random one
	Version    string // of this program
	Commit     string // source commit, 40 hex digits
	Digest     string // h1 sum of this program's module
	Go         string // toolchain
}

// provenance is the SLSA provenance of the release a: what was asked, what went
// in, and what ran. File names are reduced to their last element, so that a
// statement does not publish the folders of whoever ran it.
func (p Plan) provenance(a *oras.Artifact, r *Report, started, finished time.Time) (verify.Statement, error) {
	deps := []verify.Resource{
		{Name: verify.DependencyDataset, Digest: verify.Digests(r.Dataset), MediaType: "application/json"},
		{Name: verify.DependencyArtifact, Digest: verify.Digests(r.Artifact), MediaType: oras.TypeManifest},
	}
	if r.Inputs != nil {
		for _, in := range r.Inputs.Inputs {
			deps = append(deps, verify.Resource{
				Name:        verify.DependencyInput + filepath.Base(in.Path),
				Digest:      verify.Digests(in.Digest),
				Annotations: map[string]any{"size": strconv.FormatInt(in.Size, 10), "source": string(in.Input.Source)},
			})
		}
	}
	b := p.Builder
	if b.ID == "" {
		b.ID = LocalBuilder
	}
	if len(b.Commit) == 40 {
		deps = append(deps, verify.Resource{
			Name:   verify.DependencySource,
			URI:    "git+https://github.com/battle-hardened-ai/bhtrain",
			Digest: map[string]string{"gitCommit": b.Commit},
		})
	}
	deps = append(deps,
		verify.Resource{Name: verify.DependencyGo, URI: "https://go.dev/dl/", Annotations: map[string]any{"version": b.Go}},
		verify.Resource{Name: verify.DependencyModules, Digest: verify.Digests(moduleSums())},
	)
	if b.Invocation == "" {
		b.Invocation = uuid.New().URN()
	}
	var made []verify.Resource
	for _, f := range r.Documents {
		made = append(made, verify.Resource{Name: f.Name, Digest: verify.Digests(f.Digest)})
	}
	return verify.NewProvenance(p.Product, a.Digest, verify.Provenance{
		BuildDefinition: verify.BuildDefinition{
			BuildType:            verify.BuildTypeTrain,
			ExternalParameters:   verify.Parameters{Product: p.Product, Release: p.Release, Recipe: a.Release.Recipe},
			ResolvedDependencies: deps,
		},
		RunDetails: verify.RunDetails{
			Builder: verify.Builder{ID: b.ID, Version: map[string]string{verify.VersionTrainer: b.Version, verify.VersionModule: b.Digest}},
			Metadata: verify.Metadata{
				InvocationID: b.Invocation,
				StartedOn:    verify.FormatTime(started),
				FinishedOn:   verify.FormatTime(finished),
			},
			Byproducts: made,
		},
	})
}

// moduleSums is the SHA-256 of one line "path version sum" for each module
// linked into this program, in the order of their paths.
func moduleSums() canon.Digest {
	var text strings.Builder
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps { // sorted by path
			if m.Replace != nil {
				m = m.Replace
			}
			text.WriteString(m.Path + " " + m.Version + " " + m.Sum + "\n")
		}
	}
	return canon.Sum([]byte(text.String()))
}
