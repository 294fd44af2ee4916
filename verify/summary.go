package verify

import (
	"fmt"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// PredicateSummary is the predicate type of a SLSA verification summary.
const PredicateSummary = "https://slsa.dev/verification_summary/v1"

// Summary says what a verdict does not: who came to it, when, and of what.
type Summary struct {
	Verifier string            // URI of the verifier
	Version  map[string]string // of the verifier, by component; nil for unknown
	Time     time.Time         // of the judgement
	Resource string            // URI under which the release was found
	Policy   string            // URI of the policy; its digest is the verdict's
}

// Summary returns the verdict as a SLSA verification summary attestation (VSA)
// v1: an in-toto statement about the release's manifest, to be signed by
// whoever stands for the verifier. A release that passed is at least at build level 1,
// as its provenance was verified; of higher levels, which speak about the
// builder, nothing is said.
func (v *Verdict) Summary(s Summary) (Statement, error) {
	type resource struct {
		URI    string            `json:"uri,omitzero"`
		Digest map[string]string `json:"digest,omitzero"`
	}
	p := struct {
		Verifier struct {
			ID      string            `json:"id"`
			Version map[string]string `json:"version,omitzero"`
		} `json:"verifier"`
		TimeVerified       string     `json:"timeVerified"`
		ResourceURI        string     `json:"resourceUri"`
		Policy             resource   `json:"policy"`
		InputAttestations  []resource `json:"inputAttestations,omitzero"`
		VerificationResult string     `json:"verificationResult"`
		VerifiedLevels     []string   `json:"verifiedLevels"`
		SLSAVersion        string     `json:"slsaVersion"`
	}{
		TimeVerified: FormatTime(s.Time), ResourceURI: s.Resource, SLSAVersion: "1.0",
		VerificationResult: "FAILED", VerifiedLevels: []string{"FAILED"},
		Policy: resource{URI: s.Policy},
	}
	p.Verifier.ID, p.Verifier.Version = s.Verifier, s.Version
	if !v.Policy.IsZero() {
		p.Policy.Digest = Digests(v.Policy)
	}
	if v.Pass() {
		p.VerificationResult, p.VerifiedLevels = "PASSED", []string{"SLSA_BUILD_LEVEL_1"}
		passed := 0
		for _, r := range v.Rebuilds {
			if r.Result == ResultPass {
				passed++
			}
		}
		if passed > 0 {
			p.VerifiedLevels = append(p.VerifiedLevels, fmt.Sprintf("BHTRAIN_REBUILT_BY_%d", passed))
		}
		for _, b := range v.Evidence {
			p.InputAttestations = append(p.InputAttestations, resource{Digest: Digests(canon.Sum(b))})
		}
		if v.Channel != nil && !v.Channel.Bundle.IsZero() {
			p.InputAttestations = append(p.InputAttestations, resource{Digest: Digests(v.Channel.Bundle)})
		}
	}
	return newStatement(PredicateSummary, p, Resource{Name: v.Product, Digest: Digests(v.Release)})
}
