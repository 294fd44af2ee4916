// Package verify decides whether a release is what a local policy demands: it
// reads policies, in-toto statements and Sigstore bundles, and its result is a
// [Verdict], a list of named checks. It cannot sign, reads no clock, and asks no
// service: all it needs is the policy, a store and the time.
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
	"sync"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Verifier judges releases and channels under one policy. It holds no state
// between calls and may be used by many goroutines.
type Verifier struct {
	policy Policy
	trust  *trust
}

// New returns a Verifier for p. What ParsePolicy would refuse is ErrPolicy
// here too, and so are a policy with tuf whose trusted root was not loaded with
// LoadTrustedRoot, and demands that the trusted root cannot meet.
func New(p Policy) (*Verifier, error) {
	v := &Verifier{policy: p}
	if err := v.policy.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	var err error
	if v.trust, err = newTrust(&v.policy); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	return v, nil
}

// Policy returns the policy that v judges by.
func (v *Verifier) Policy() Policy { return v.policy }

// Options are what a judgement may rest on beside the store. The zero value is
// nothing.
type Options struct {
	// Bundles were given by hand: provenances, dataset statements, rebuilds. They
	// are tried first; when they are enough, the store is not asked for others, but
	// for failed rebuilds where the policy says that one refuses the release.
	Bundles [][]byte

	// Channel is what Verifier.Channel or JudgeChannel of the same policy found.
	// With nil and a policy that names a channel, Release asks the store for it.
	Channel *ChannelVerdict

	// Tolerate names checks whose failure does not keep the artifact back: an agent
	// that goes on serving what it has names CheckFreshness and CheckCurrent.
	Tolerate []string

	// Memory is what was known of the channel before, for Release to judge it by.
	Memory Memory

	// Open opens a place where the policy says that rebuilders keep their
	// statements. With nil such places are not asked, and the verdict says so.
	Open func(ctx context.Context, place oras.Ref) (oras.Store, error)
}

// Release judges the release in store whose manifest has the given digest, at
// the time now. It pulls the release, looks at the bundles given by hand, and
// when those are not enough at what the store has: under the provenance tag of
// the release, which no flood of referrers can hide, and, when that is not enough
// or the policy asks for other statements than a provenance, among its referrers;
// so too for the statement about the dataset. The channel is read first.
//
// Findings are data: a release that is damaged, unsigned or not trusted gives a
// verdict that does not pass, and no error. An error means that no verdict was
// reached: the release is not there, the store could not be asked, or ctx
// ended. The artifact is returned only with a verdict that passes, except for the
// checks in opt.Tolerate.
func (v *Verifier) Release(ctx context.Context, store oras.Store, digest canon.Digest, now time.Time, opt Options) (*Verdict, *oras.Artifact, error) {
	if len(opt.Bundles) > maxBundlesGiven {
		return nil, nil, fmt.Errorf("%d bundles given, limit %d", len(opt.Bundles), maxBundlesGiven)
	}
	// Without bundles given, those of the store will be needed: they are read
	// while the files are.
	find, tags := oras.TaggedBundles, []string{oras.ProvenanceTag(digest)}
	if r := v.policy.Reproductions; r != nil && r.Min > 0 {
		tags = append(tags, oras.ReproductionTag(digest))
	}
	onlyTagged := v.policy.Reproductions == nil && len(v.policy.Datasets.Publishers) == 0
	if !onlyTagged {
		find = oras.Bundles
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	statements := sync.OnceValues(func() (*oras.BundleList, error) {
		return find(reading, store, digest, tags...)
	})
	if len(opt.Bundles) == 0 {
		go statements()
	}
	a, err := oras.Pull(ctx, store, digest)
	if err != nil {
		if !errors.Is(err, oras.ErrInvalid) {
			return nil, nil, err
		}
		r := v.newReport(digest)
		switch _, damage := store.Manifest(ctx, oras.Descriptor{Digest: digest}); {
		case damage == nil:
			r.pass(CheckManifest, digest.String())
			r.fail(CheckFiles, "", "the four models and release.json, unchanged", err.Error())
		case errors.Is(damage, oras.ErrInvalid):
			r.fail(CheckManifest, "", digest.String(), damage.Error())
		default:
			return nil, nil, damage
		}
		return r, nil, nil
	}
	channel := opt.Channel
	if v.policy.Channel != nil && channel == nil {
		if channel, err = v.Channel(ctx, store, now, opt.Memory); err != nil {
			return nil, nil, err
		}
	}
	c := &evidence{artifact: a, now: now, channel: channel, complete: true}
	c.add("", opt.Bundles...)
	rebuilds := v.policy.Reproductions
	if len(opt.Bundles) > 0 && (rebuilds == nil || !rebuilds.Block) {
		if r := v.judge(c); r.PassExcept(channelChecks...) { // the store cannot help against the channel
			return r, only(a, r, opt), nil
		}
	}
	list, err := statements()
	if err != nil {
		return nil, nil, err
	}
	c.addList(list)
	if onlyTagged {
		c.onlyTagged = true
		if r := v.judge(c); r.PassExcept(channelChecks...) {
			return r, only(a, r, opt), nil
		}
		c.onlyTagged = false
		if list, err = oras.Bundles(ctx, store, digest, oras.ProvenanceTag(digest)); err != nil {
			return nil, nil, err
		}
		c.addList(list)
	}
	if len(v.policy.Datasets.Publishers) > 0 {
		if err := v.findDatasetStatements(ctx, store, c); err != nil {
			return nil, nil, err
		}
	}
	if rebuilds != nil && rebuilds.Min > 0 {
		if err := v.findRebuilds(ctx, c, opt.Open); err != nil {
			return nil, nil, err
		}
	}
	r := v.judge(c)
	return r, only(a, r, opt), nil
}

// only is a if the verdict lets it be used.
func only(a *oras.Artifact, r *Verdict, opt Options) *oras.Artifact {
	if r.PassExcept(opt.Tolerate...) {
		return a
	}
	return nil
}

// channelChecks are those that the state of the channel decides.
var channelChecks = []string{CheckChannel, CheckFreshness, CheckCurrent, CheckLowest, CheckRevoked}

// Judge judges a release that was pulled before by what is given alone. With a
// policy that names a channel, a Channel in opt is what it needs; Memory and
// Open play no part.
func (v *Verifier) Judge(a *oras.Artifact, now time.Time, opt Options) *Verdict {
	c := &evidence{artifact: a, now: now, channel: opt.Channel, complete: true}
	c.add("", opt.Bundles...)
	return v.judge(c)
}

// evidence is all that one judgement rests on.
type evidence struct {
	artifact *oras.Artifact
	now      time.Time
	channel  *ChannelVerdict

	provenances []*parsed // and whatever is no other kind
	datasets    []*parsed
	rebuilds    []*parsed
	seen        map[canon.Digest]bool

	complete   bool     // all that the store has about the release was looked at
	onlyTagged bool     // but for its referrers
	damaged    []string // what seemed to be signed, but could not be read
	other      int      // referrers that are no bundles

	datasetNotes, placeNotes []string // why there may be more dataset statements, or rebuilds, than were seen
}

// add takes bundles in, each once, by the kind that they say they are of. That
// nobody has signed for yet: a bundle that lies is judged as what it says, and
// refused as that. A kind that is not "" takes in no other.
func (c *evidence) add(kind string, bundles ...[]byte) {
	for _, raw := range bundles {
		p := parse(raw)
		if c.seen[p.digest] || kind != "" && p.predicateType != kind {
			continue
		}
		if c.seen == nil {
			c.seen = map[canon.Digest]bool{}
		}
		c.seen[p.digest] = true
		switch p.predicateType {
		case PredicateDataset:
			c.datasets = append(c.datasets, p)
		case PredicateReproduction:
			c.rebuilds = append(c.rebuilds, p)
		case PredicateChannel, PredicateRevocation:
		default:
			c.provenances = append(c.provenances, p)
		}
	}
}

// addList takes in what a store has about the release.
func (c *evidence) addList(list *oras.BundleList) {
	c.complete, c.damaged, c.other = list.Complete, list.Damaged, len(list.Skipped)-len(list.Damaged)
	for _, b := range list.Bundles {
		c.add("", b.Data)
	}
}

// judge makes all checks.
func (v *Verifier) judge(c *evidence) *Verdict {
	a := c.artifact
	r := v.newReport(a.Digest)
	r.pass(CheckManifest, a.Digest.String())
	r.pass(CheckFiles, fmt.Sprintf("%d files, %d bytes", len(a.Models)+1, sizeOf(a)))
	r.Product, r.Number, r.Dataset = a.Release.Product, a.Release.Number, a.Release.Dataset
	v.judgeRelease(r, a)
	owner := v.judgeProvenance(r, c)
	v.judgeDataset(r, c)
	v.judgeCurrency(r, c)
	v.judgeRebuilds(r, c, owner)
	v.judgeScan(r, c)
	if r.Verified = r.Pass(); !r.PassExcept(channelChecks...) {
		r.Evidence = nil
	}
	return r
}

// judgeScan says how much of the store was seen. That some was not refuses
// nothing that passed without it.
func (v *Verifier) judgeScan(r *Verdict, c *evidence) {
	seen := fmt.Sprintf("%d looked at", r.Bundles)
	if n := len(c.damaged); n > 0 {
		seen += fmt.Sprintf("; %d damaged", n)
		if r.Bundles == 0 {
			r.fail(CheckSignature, "no readable signed statement", "a provenance signed by a publisher of the policy",
				fmt.Sprintf("a signed statement is in the store, but damaged; get the release from another copy: %s", c.damaged[0]))
		}
	}
	if c.other > 0 {
		seen += fmt.Sprintf("; %d other referrers left aside", c.other)
	}
	switch {
	case c.onlyTagged:
		r.skip(CheckBundles, seen+", at the provenance tag: it meets all demands, so referrers were not read")
	case c.complete:
		r.pass(CheckBundles, seen)
	case r.PassExcept(channelChecks...):
		r.skip(CheckBundles, seen+"; there may be more in the store, and one that meets all demands was found")
	default:
		r.fail(CheckBundles, seen, "", "there may be more in the store than could be read, and a good one among them")
	}
}

// newReport returns a verdict in which nothing was checked yet.
func (v *Verifier) newReport(release canon.Digest) *Verdict {
	r := &Verdict{Format: 1, Release: release, Policy: v.policy.Digest, Rebuilds: []Rebuild{}}
	for _, c := range releaseChecks {
		r.Checks = append(r.Checks, Check{Name: c.name, Demanded: c.mandatory || v.demands(c.name), Status: Skip, Reason: "not reached"})
	}
	return r
}

// demands reports whether the policy demands an optional check of every
// release. It is settled before anything is looked at, so that a check which is
// never reached cannot let a verdict pass.
func (v *Verifier) demands(name string) bool {
	p := &v.policy
	switch name {
	case CheckSize:
		return p.MaxBytes > 0
	case CheckTime, CheckLog, CheckCertificate:
		return v.trust.demandsOfAll(step(name), p.Publishers)
	case CheckBuilder:
		return p.Builders != nil
	case CheckSource:
		return p.SourceRepository != ""
	case CheckTrainer:
		return p.Trainers != nil
	case CheckAge:
		return p.MaxAge > 0
	case CheckBounds:
		return p.Recipe != nil
	case CheckAllowed:
		return p.Datasets.Digests != nil
	case CheckDatasetBy, CheckDatasetSaid:
		return len(p.Datasets.Publishers) > 0
	case CheckNotOlder:
		return p.MinRelease > 0
	case CheckChannel, CheckFreshness, CheckCurrent, CheckLowest, CheckRevoked:
		return p.Channel != nil
	case CheckReproduced:
		return p.Reproductions != nil && p.Reproductions.Min > 0
	}
	return false
}

func (v *Verdict) set(c Check) { setCheck(v.Checks, c) }

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

// setCheck puts c, made printable, in the place of the check of its name. What
// was demanded stays demanded.
func setCheck(checks []Check, c Check) {
	c.Observed, c.Expected, c.Reason = Printable(c.Observed), Printable(c.Expected), Printable(c.Reason)
	i := slices.IndexFunc(checks, func(have Check) bool { return have.Name == c.Name })
	c.Demanded = c.Demanded || checks[i].Demanded
	checks[i] = c
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
	if p.Recipe == nil {
		r.skip(CheckBounds, "the policy bounds no recipe")
	} else if observed, expected, reason := p.Recipe.judge(a.Release.Recipe); reason != "" {
		r.fail(CheckBounds, observed, expected, reason)
	} else {
		r.pass(CheckBounds, "within the policy's bounds")
	}
	switch {
	case p.Datasets.Digests == nil:
		r.skip(CheckAllowed, "the policy names no dataset digests")
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

// judgeProvenance judges each bundle by itself on a copy of r and keeps the
// one that got furthest. It returns the owner of the source repository that the
// certificate of that one names, "" for none.
func (v *Verifier) judgeProvenance(r *Verdict, c *evidence) (owner string) {
	var best *Verdict
	var bestRaw []byte
	bestScore := 0
	for _, p := range c.provenances {
		t := *r
		t.Checks = slices.Clone(r.Checks)
		t.Bundle = p.digest
		by := v.judgeBundle(&t, c, p)
		score, failed := 0, false
		for _, c := range t.Checks {
			switch c.Status {
			case Pass:
				score += 2
			case Fail:
				score--
				failed = true
			}
		}
		if !failed {
			score += 1 << 20
		}
		if best == nil || score > bestScore || score == bestScore && bytes.Compare(p.digest[:], best.Bundle[:]) < 0 {
			best, bestRaw, bestScore, owner = &t, p.raw, score, by
		}
	}
	if best == nil {
		r.fail(CheckSignature, "no signed statement", "a provenance signed by a publisher of the policy", "the release is unsigned, or its signature is not in the store")
		return ""
	}
	*r = *best
	r.Bundles = len(c.provenances)
	r.Evidence = append(r.Evidence, bestRaw)
	return owner
}

func (v *Verifier) judgeBundle(r *Verdict, c *evidence, bundle *parsed) (owner string) {
	p, a := &v.policy, c.artifact
	s := v.trust.verify(bundle, p.Publishers, c.now)
	v.trust.report(s, bundle, func(at step, check Check) {
		check.Name = string(at)
		if check.Status == Fail && (at == stepSignature || at == stepSigner) {
			check.Expected = "a signature by one of the policy's publishers: " + names(p.Publishers)
		}
		r.set(check)
	})
	if !s.ok() {
		return ""
	}
	r.Publisher = s.by.Name
	if len(s.times) > 0 {
		r.Time = FormatTime(s.times[0])
	}

	statement, err := DecodeStatement(bundle.payload)
	if err == nil && !statement.Names(a.Digest) {
		r.fail(CheckSubject, statement.describeSubjects(), a.Digest.String(), "the statement is about something else")
	} else if err == nil {
		r.pass(CheckSubject, a.Digest.String())
	}
	var prov *Provenance
	if err == nil {
		prov, err = statement.Provenance()
	}
	if err != nil {
		r.fail(CheckType, statement.PredicateType, PredicateProvenance+" of build type "+BuildTypeTrain, err.Error())
		return ""
	}
	r.pass(CheckType, PredicateProvenance)

	q := &prov.BuildDefinition.ExternalParameters
	r.equal(CheckSaid, q.Product, a.Release.Product, "the provenance speaks of another product than release.json")
	r.equal(CheckNumber, strconv.FormatInt(q.Release, 10), strconv.FormatInt(a.Release.Number, 10), "the provenance speaks of another release number than release.json")
	if recipe, err := canon.Canonicalize(a.Release.Recipe); err != nil {
		r.fail(CheckRecipe, "", "", err.Error())
	} else {
		r.equal(CheckRecipe, canon.Sum(q.Recipe).String(), canon.Sum(recipe).String(), "the provenance speaks of another recipe than release.json")
	}
	r.equal(CheckDataset, prov.Dependency(DependencyDataset).SHA256().String(), a.Release.Dataset.String(), "the provenance speaks of another dataset than release.json")
	v.judgeBuild(r, prov)
	v.judgeAge(r, c, s, bundle.byKey, prov)
	return s.owner
}

// judgeBuild judges who built, and with what.
func (v *Verifier) judgeBuild(r *Verdict, prov *Provenance) {
	p := &v.policy
	switch id := prov.RunDetails.Builder.ID; {
	case p.Builders == nil:
		r.skip(CheckBuilder, "the policy names no builders")
	case !slices.Contains(p.Builders, id):
		r.fail(CheckBuilder, id, oneOf(p.Builders), "built by a system that the policy does not name")
	default:
		r.pass(CheckBuilder, id)
	}
	switch from := prov.SourceRepository(); {
	case p.SourceRepository == "":
		r.skip(CheckSource, "the policy names no source_repository")
	case from == "":
		r.fail(CheckSource, "", p.SourceRepository, "the provenance does not say where the trainer's source is from")
	default:
		r.equal(CheckSource, from, p.SourceRepository, "the trainer's source is from another repository")
	}
	t := prov.Trainer()
	switch {
	case p.Trainers == nil:
		r.skip(CheckTrainer, "the policy names no trainers")
	case !slices.ContainsFunc(p.Trainers, t.Matches):
		r.fail(CheckTrainer, t.String(), oneOf(p.Trainers), "trained by a program that the policy does not name")
	default:
		r.pass(CheckTrainer, t.String())
	}
}

// judgeAge holds the age of a signature against max_age.
//
// Anybody can have an old signature of a key stamped again, which makes it look
// younger; so what the signer says about the end of the run counts as well, and
// a key's statement must say it. A certificate lives for minutes only.
func (v *Verifier) judgeAge(r *Verdict, c *evidence, s *signed, byKey bool, prov *Provenance) {
	p := &v.policy
	if p.MaxAge == 0 {
		r.skip(CheckAge, "the policy sets no max_age")
		return
	}
	at := s.time()
	if text := prov.RunDetails.Metadata.FinishedOn; text != "" || byKey {
		finished, err := ParseTime(text)
		if err != nil {
			r.fail(CheckAge, text, "", "the provenance does not say when the run finished, and a signature by a key can be stamped again at any time")
			return
		}
		if finished.Before(at) {
			at = finished
		}
	}
	age := c.now.Sub(at)
	if age > p.MaxAge {
		r.fail(CheckAge, fmt.Sprintf("signed %s, %s ago", FormatTime(at), age.Round(time.Minute)), fmt.Sprintf("at most %s ago", p.MaxAge), "older than the policy allows")
		return
	}
	r.pass(CheckAge, fmt.Sprintf("signed %s, %s ago", FormatTime(at), max(0, age).Round(time.Minute)))
}

// names lists what the policy calls them.
func names(ids []Identity) string {
	var list []string
	for _, id := range ids {
		list = append(list, id.Name)
	}
	return strings.Join(list, ", ")
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
