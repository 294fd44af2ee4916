// Package verify decides whether a release is what a local policy demands: it
// reads policies, in-toto statements and Sigstore bundles, and its result is a
// [Verdict], a list of named checks. It cannot sign, and it asks no service:
// all it needs is the policy and a store.
//
// It fails closed. A policy that trusts nobody makes no [Verifier]; what the
// policy does not mention is not trusted; a verdict passes only when each
// mandatory check was made and passed.
package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Verifier judges releases under one policy. It holds no state between calls
// and may be used by many goroutines.
type Verifier struct {
	policy Policy
	keys   []keyVerifier
}

// New returns a Verifier for p. What ParsePolicy would refuse is ErrPolicy
// here too.
func New(p Policy) (*Verifier, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	if p.certificates() || p.windows() || p.Timestamps > 0 || p.logEntries(false) > 0 || p.Channel != nil || p.Datasets.Publishers != nil ||
		p.SourceRepository != "" || p.Trainers != nil || p.Reproductions != nil {
		return nil, fmt.Errorf("%w: asks for what this version cannot judge", ErrPolicy)
	}
	v := &Verifier{policy: p}
	for _, pub := range v.policy.Publishers {
		k, err := newKeyVerifier(pub)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
		}
		v.keys = append(v.keys, k)
	}
	return v, nil
}

// Policy returns the policy that v judges by.
func (v *Verifier) Policy() Policy { return v.policy }

// Release judges the release in store whose manifest has the given digest. It
// pulls the release, looks at the bundles given by hand, and when none of them
// is enough at those in the store: under the provenance tag of the release,
// which no flood of referrers can hide, and among its referrers.
//
// Findings are data: a release that is damaged, unsigned or not trusted gives a
// verdict that does not pass, and no error. An error means that no verdict was
// reached: the release is not there, the store could not be asked, or ctx
// ended. The artifact is returned only with a verdict that passes.
func (v *Verifier) Release(ctx context.Context, store oras.Store, digest canon.Digest, bundles ...[]byte) (*Verdict, *oras.Artifact, error) {
	if _, err := store.Manifest(ctx, oras.Descriptor{Digest: digest}); err != nil {
		if !errors.Is(err, oras.ErrInvalid) {
			return nil, nil, err
		}
		r := v.newReport(digest)
		r.fail(CheckManifest, "", digest.String(), err.Error())
		return r, nil, nil
	}
	a, err := oras.Pull(ctx, store, digest)
	if err != nil {
		if !errors.Is(err, oras.ErrInvalid) {
			return nil, nil, err
		}
		r := v.newReport(digest)
		r.pass(CheckManifest, digest.String())
		r.fail(CheckFiles, "", "the four models and release.json, unchanged", err.Error())
		return r, nil, nil
	}
	if len(bundles) > 0 {
		if r := v.Judge(a, bundles...); r.Pass() {
			return r, a, nil
		}
	}
	list, err := oras.Bundles(ctx, store, digest, oras.ProvenanceTag(digest))
	if err != nil {
		return nil, nil, err
	}
	all := slices.Clone(bundles)
	for _, b := range list.Bundles {
		all = append(all, b.Data)
	}
	r := v.judge(a, all, list)
	if !r.Pass() {
		return r, nil, nil
	}
	return r, a, nil
}

// Judge returns the verdict about a release that was pulled, from the bundles
// that were found for it, in any order. a must be what oras.Pull or oras.Pack
// returned, which are what hold its files against its digest. Judge does no
// input or output, and its verdict follows from its arguments and the policy.
//
// One bundle must meet all demands by itself; bundles that meet none, broken
// ones included, never change whether the verdict passes. Of several that do,
// and of several that do not, the same one is reported in any order.
func (v *Verifier) Judge(a *oras.Artifact, bundles ...[]byte) *Verdict {
	return v.judge(a, bundles, &oras.BundleList{Complete: true})
}

// judge is Judge, told what else the store held and whether all was seen.
func (v *Verifier) judge(a *oras.Artifact, bundles [][]byte, found *oras.BundleList) *Verdict {
	r := v.newReport(a.Digest)
	r.pass(CheckManifest, a.Digest.String())
	r.pass(CheckFiles, fmt.Sprintf("%d files, %d bytes", len(a.Models)+1, sizeOf(a)))
	r.Product, r.Number, r.Dataset = a.Release.Product, a.Release.Number, a.Release.Dataset
	v.judgeRelease(r, a)
	v.judgeBundles(r, a, bundles)
	seen := fmt.Sprintf("%d looked at", r.Bundles)
	damaged := len(found.Damaged)
	if damaged > 0 {
		seen += fmt.Sprintf("; %d damaged", damaged)
		if r.Bundles == 0 {
			r.fail(CheckSignature, "no readable signed statement", "a provenance signed by a publisher of the policy",
				fmt.Sprintf("a signed statement is in the store, but damaged; get the release from another copy: %s", found.Damaged[0]))
		}
	}
	if other := len(found.Skipped) - damaged; other > 0 {
		seen += fmt.Sprintf("; %d other referrers left aside", other)
	}
	switch {
	case found.Complete:
		r.pass(CheckBundles, seen)
	case r.Pass():
		r.skip(CheckBundles, seen+"; there may be more in the store, and one that meets all demands was found")
	default:
		r.fail(CheckBundles, seen, "", "there may be more in the store than could be read, and a good one among them")
	}
	r.Verified = r.Pass()
	return r
}

// newReport returns a verdict in which nothing was checked yet.
func (v *Verifier) newReport(release canon.Digest) *Verdict {
	r := &Verdict{Format: 1, Release: release, Policy: v.policy.Digest}
	for _, c := range releaseChecks {
		r.Checks = append(r.Checks, Check{Name: c.name, Status: Skip, Reason: "not reached"})
	}
	r.skip(CheckFreshness, "the policy names no channel")
	r.skip(CheckReproduced, "the policy demands none")
	return r
}

func (v *Verdict) set(c Check) {
	c.Observed, c.Expected, c.Reason = Printable(c.Observed), Printable(c.Expected), Printable(c.Reason)
	i := slices.IndexFunc(v.Checks, func(have Check) bool { return have.Name == c.Name })
	v.Checks[i] = c
}

func (v *Verdict) pass(name, observed string) {
	v.set(Check{Name: name, Status: Pass, Observed: observed})
}

func (v *Verdict) skip(name, reason string) {
	v.set(Check{Name: name, Status: Skip, Reason: reason})
}

func (v *Verdict) fail(name, observed, expected, reason string) {
	v.set(Check{Name: name, Status: Fail, Observed: observed, Expected: expected, Reason: reason})
}

// equal passes when observed is expected.
func (v *Verdict) equal(name, observed, expected, reason string) {
	if observed == expected {
		v.set(Check{Name: name, Status: Pass, Observed: observed, Expected: expected})
		return
	}
	v.fail(name, observed, expected, reason)
}

func sizeOf(a *oras.Artifact) int64 {
	n := int64(len(a.ReleaseJSON))
	for _, f := range a.Models {
		n += int64(len(f.Data))
	}
	return n
}

// judgeRelease makes the checks that need no statement.
func (v *Verifier) judgeRelease(r *Verdict, a *oras.Artifact) {
	p := &v.policy
	switch n := sizeOf(a); {
	case p.MaxBytes == 0:
		r.skip(CheckSize, "the policy sets no max_bytes")
	case n > p.MaxBytes:
		r.fail(CheckSize, fmt.Sprintf("%d bytes", n), fmt.Sprintf("at most %d bytes", p.MaxBytes), "the files are larger than the policy allows")
	default:
		r.pass(CheckSize, fmt.Sprintf("%d bytes", n))
	}
	r.equal(CheckProduct, a.Release.Product, p.Product, "this is a release of another product")
	switch {
	case p.Datasets.Digests == nil:
		r.skip(CheckAllowed, "the policy names no datasets")
	case !slices.Contains(p.Datasets.Digests, a.Release.Dataset):
		r.fail(CheckAllowed, a.Release.Dataset.String(), oneOf(p.Datasets.Digests), "trained on a dataset that the policy does not name")
	default:
		r.pass(CheckAllowed, a.Release.Dataset.String())
	}
	switch {
	case p.MinRelease == 0:
		r.skip(CheckNotOlder, "the policy sets no min_release")
	case a.Release.Number < p.MinRelease:
		r.fail(CheckNotOlder, strconv.FormatInt(a.Release.Number, 10), fmt.Sprintf("%d or higher", p.MinRelease), "older than the policy allows")
	default:
		r.pass(CheckNotOlder, strconv.FormatInt(a.Release.Number, 10))
	}
}

// judgeBundles judges each bundle by itself on a copy of r and keeps the one
// that got furthest.
func (v *Verifier) judgeBundles(r *Verdict, a *oras.Artifact, bundles [][]byte) {
	seen := map[canon.Digest]bool{}
	var best *Verdict
	bestScore := 0
	for _, raw := range bundles {
		d := canon.Sum(raw)
		if seen[d] {
			continue
		}
		seen[d] = true
		t := *r
		t.Checks = slices.Clone(r.Checks)
		t.Bundle = d
		v.judgeBundle(&t, a, raw)
		score := 0
		for _, c := range t.Checks {
			switch c.Status {
			case Pass:
				score += 2
			case Fail:
				score--
			}
		}
		if t.Pass() {
			score += 1 << 20
		}
		if best == nil || score > bestScore || score == bestScore && bytes.Compare(d[:], best.Bundle[:]) < 0 {
			best, bestScore = &t, score
		}
	}
	if best == nil {
		r.fail(CheckSignature, "no signed statement", "a provenance signed by a publisher of the policy", "the release is unsigned, or its signature is not in the store")
		return
	}
	*r = *best
	r.Bundles = len(seen)
}

func (v *Verifier) judgeBundle(r *Verdict, a *oras.Artifact, raw []byte) {
	p := &v.policy
	payload, by, err := verifyBundle(raw, v.keys)
	if err != nil {
		r.fail(CheckSignature, "", "a signature by one of the policy's publishers: "+v.publishers(), err.Error())
		return
	}
	r.pass(CheckSignature, "ECDSA P-256, SHA-256")
	r.pass(CheckSigner, fmt.Sprintf("%s, key %s", by.Name, by.Key.ID()))
	r.Publisher = by.Name

	s, err := DecodeStatement(payload)
	if err == nil && !s.Names(a.Digest) {
		r.fail(CheckSubject, s.describeSubjects(), a.Digest.String(), "the statement is about something else")
	} else if err == nil {
		r.pass(CheckSubject, a.Digest.String())
	}
	var prov *Provenance
	if err == nil {
		prov, err = s.Provenance()
	}
	if err != nil {
		r.fail(CheckType, s.PredicateType, PredicateProvenance+" of build type "+BuildTypeTrain, err.Error())
		return
	}
	r.pass(CheckType, PredicateProvenance)

	q := &prov.BuildDefinition.ExternalParameters
	r.equal(CheckSaid, q.Product, a.Release.Product, "the provenance speaks of another product than release.json")
	r.equal(CheckNumber, strconv.FormatInt(q.Release, 10), strconv.FormatInt(a.Release.Number, 10), "the provenance speaks of another release number than release.json")
	recipe, err := canon.Canonicalize(a.Release.Recipe)
	if err != nil {
		r.fail(CheckRecipe, "", "", err.Error())
	} else {
		r.equal(CheckRecipe, canon.Sum(q.Recipe).String(), canon.Sum(recipe).String(), "the provenance speaks of another recipe than release.json")
	}
	r.equal(CheckDataset, prov.Dependency(DependencyDataset).SHA256().String(), a.Release.Dataset.String(), "the provenance speaks of another dataset than release.json")
	switch id := prov.RunDetails.Builder.ID; {
	case p.Builders == nil:
		r.skip(CheckBuilder, "the policy names no builders")
	case !slices.Contains(p.Builders, id):
		r.fail(CheckBuilder, id, oneOf(p.Builders), "built by a system that the policy does not name")
	default:
		r.pass(CheckBuilder, id)
	}
}

func (v *Verifier) publishers() string {
	var names []string
	for _, p := range v.policy.Publishers {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

// oneOf names what a policy lists, when it is little enough to be read.
func oneOf[T any](list []T) string {
	if len(list) > 3 {
		return fmt.Sprintf("one of the %d in the policy", len(list))
	}
	var text []string
	for _, x := range list {
		text = append(text, fmt.Sprint(x))
	}
	return strings.Join(text, " or ")
}

func (s Statement) describeSubjects() string {
	var text []string
	for _, r := range s.Subject {
		if d := r.SHA256(); !d.IsZero() {
			text = append(text, d.String())
		} else {
			text = append(text, "(no sha256)")
		}
	}
	return strings.Join(text, ", ")
}
