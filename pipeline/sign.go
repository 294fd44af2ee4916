package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// ErrUnproven: there is no provenance of the release that could be believed and
// signed. Its message says what to do.
var ErrUnproven = errors.New("no provenance to sign")

// SignPlan says what to sign, and as whom.
type SignPlan struct {
	// Provenance is a statement that a run without a signer made
	// (Report.Provenance). Without one, the provenance that stands in the store is
	// taken, if it verifies.
	Provenance []byte

	// Policy says whose provenance in the store is believed. With nil it must be
	// signed with the signer's own key.
	Policy *verify.Policy

	Signer *sign.Signer
}

// Signed says what was signed and where it is.
type Signed struct {
	Subject canon.Digest `json:"subject"` // manifest digest of the release or dataset
	Type    string       `json:"type"`    // predicate type
	Tag     string       `json:"tag"`     // that the signed statement stands at
	Signer  string       `json:"signer"`  // key or certificate identity
	Inputs  int          `json:"inputs"`  // raw inputs that the statement names
}

// SignRelease signs the provenance of the release in store with the manifest
// digest release, and stores it beside those that are there. The provenance
// must be about this release and agree with release.json, else it is
// verify.ErrStatement; without any that can be believed it is ErrUnproven.
func SignRelease(ctx context.Context, store oras.Store, release canon.Digest, p SignPlan) (*Signed, error) {
	a, err := oras.Pull(ctx, store, release)
	if err != nil {
		return nil, err
	}
	st, prov, err := p.provenance(ctx, store, a)
	if err != nil {
		return nil, err
	}
	bundle, err := p.Signer.Sign(ctx, st)
	if err != nil {
		return nil, err
	}
	own, err := ownPolicy(a.Release.Product, p.Signer, bundle)
	if err != nil {
		return nil, err
	}
	v, err := verify.New(own)
	if err != nil {
		return nil, err
	}
	verdict := v.Judge(a, time.Now(), verify.Options{Bundles: [][]byte{bundle}})
	for _, f := range verdict.Failures() {
		return nil, fmt.Errorf("%w: it does not fit the release: %s: %s (it says %s, want %s)", verify.ErrStatement, f.Name, f.Reason, f.Observed, f.Expected)
	}
	if !verdict.Pass() {
		return nil, ErrOwnResult
	}
	s := &Signed{Subject: a.Digest, Type: st.PredicateType, Tag: oras.ProvenanceTag(a.Digest), Signer: own.Publishers[0].String(), Inputs: len(inputsOf(prov))}
	return s, attach(ctx, store, a.Descriptor(), bundle, s.Type, s.Tag)
}

// SignDataset signs what the dataset that name stands for holds and where it
// came from: name is a release, whose dataset is meant, or a dataset, as a tag or a
// digest. The raw inputs are those of the provenance, as SignRelease finds it;
// without any that can be believed none are named.
func SignDataset(ctx context.Context, store oras.Store, name string, p SignPlan) (*Signed, error) {
	at, err := store.Resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	display := "dataset"
	var prov *verify.Provenance
	if at.ArtifactType != oras.TypeDataset {
		a, err := oras.Pull(ctx, store, at.Digest)
		if err != nil {
			return nil, err
		}
		display, name = a.Release.Product, oras.DatasetTag(a.Release.Dataset)
		if _, prov, err = p.provenance(ctx, store, a); err != nil && !errors.Is(err, ErrUnproven) {
			return nil, err
		}
	} else if p.Provenance != nil {
		if _, prov, err = decodeProvenance(p.Provenance); err != nil {
			return nil, err
		}
	}
	info, err := oras.StatDataset(ctx, store, name)
	if err != nil {
		return nil, err
	}
	m, err := dataset.DecodeManifest(info.Snapshot)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", store, err)
	}
	digest := canon.Sum(info.Snapshot)
	if prov != nil && prov.Dependency(verify.DependencyDataset).SHA256() != digest {
		return nil, fmt.Errorf("%w: the provenance is about another dataset, not %s", verify.ErrStatement, digest)
	}
	claim := verify.DatasetClaim{
		Dataset: digest, Address: string(m.Address), Redaction: int64(m.Redaction),
		Inputs: inputsOf(prov), Issued: verify.FormatTime(time.Now()),
	}
	for _, t := range m.Tables {
		claim.Tables = append(claim.Tables, verify.TableClaim{Name: t.Name, Rows: t.Rows, Root: t.Root})
	}
	st, err := verify.NewDatasetClaim(display, info.Manifest.Digest, claim)
	if err != nil {
		return nil, err
	}
	bundle, err := p.Signer.Sign(ctx, st)
	if err != nil {
		return nil, err
	}
	id, err := identity(p.Signer, bundle)
	if err != nil {
		return nil, err
	}
	s := &Signed{
		Subject: info.Manifest.Digest, Type: st.PredicateType, Tag: oras.DatasetStatementTag(info.Manifest.Digest), Signer: id.String(), Inputs: len(claim.Inputs),
	}
	return s, attach(ctx, store, info.Manifest, bundle, s.Type, s.Tag)
}

// beside are the checks that say nothing about who signed the provenance and
// whether it fits the release.
var beside = []string{
	verify.CheckChannel, verify.CheckFreshness, verify.CheckCurrent, verify.CheckLowest, verify.CheckRevoked,
	verify.CheckReproduced, verify.CheckDatasetBy, verify.CheckDatasetSaid, verify.CheckAge,
}

// provenance is the provenance to sign: the one given, else the one in the
// store that verifies.
func (p SignPlan) provenance(ctx context.Context, store oras.Store, a *oras.Artifact) (verify.Statement, *verify.Provenance, error) {
	if p.Provenance != nil {
		return decodeProvenance(p.Provenance)
	}
	none := func(why string) (verify.Statement, *verify.Provenance, error) {
		return verify.Statement{}, nil, fmt.Errorf("%w: %s: give the one that 'bhtrain run --unsigned --provenance FILE' wrote", ErrUnproven, why)
	}
	var policy verify.Policy
	switch {
	case p.Policy != nil:
		policy = *p.Policy
	case p.Signer.Keyless():
		return none("whose signature in the store to believe is not said (--policy)")
	default:
		policy = verify.Policy{Product: a.Release.Product, Publishers: []verify.Identity{{Name: "own key", Key: p.Signer.Key()}}}
	}
	v, err := verify.New(policy)
	if err != nil {
		return verify.Statement{}, nil, err
	}
	verdict, _, err := v.Release(ctx, store, a.Digest, time.Now(), verify.Options{})
	if err != nil {
		return verify.Statement{}, nil, err
	}
	if !verdict.PassExcept(beside...) {
		for _, f := range verdict.Failures() {
			return none(fmt.Sprintf("the one in %s does not verify (%s: %s)", store, f.Name, f.Reason))
		}
		return none(fmt.Sprintf("the one in %s does not verify", store))
	}
	list, err := oras.Bundles(ctx, store, a.Digest, oras.ProvenanceTag(a.Digest))
	if err != nil {
		return verify.Statement{}, nil, err
	}
	for _, b := range list.Bundles {
		if canon.Sum(b.Data) != verdict.Bundle {
			continue
		}
		st, err := statementIn(b.Data)
		if err != nil {
			return verify.Statement{}, nil, err
		}
		st.Type = verify.StatementV1
		prov, err := st.Provenance()
		return st, prov, err
	}
	return none(fmt.Sprintf("the one in %s is gone", store))
}

func decodeProvenance(text []byte) (verify.Statement, *verify.Provenance, error) {
	st, err := verify.DecodeStatement(text)
	if err != nil {
		return st, nil, err
	}
	prov, err := st.Provenance()
	return st, prov, err
}

// inputsOf are the raw inputs that a provenance names, by their file names. Nil
// names none.
func inputsOf(p *verify.Provenance) []verify.Resource {
	list := []verify.Resource{}
	if p == nil {
		return list
	}
	for _, r := range p.BuildDefinition.ResolvedDependencies {
		if name, ok := strings.CutPrefix(r.Name, verify.DependencyInput); ok {
			list = append(list, verify.Resource{Name: name, Digest: r.Digest, Annotations: r.Annotations})
		}
	}
	return list
}

// attach stores a bundle as a referrer of subject and under tag. In a layout,
// writers follow one another.
func attach(ctx context.Context, store oras.Store, subject oras.Descriptor, bundle []byte, predicateType, tag string) error {
	return oras.Exclusive(ctx, store, func() error {
		_, err := oras.AttachBundle(ctx, store, subject, bundle, predicateType, tag, time.Now())
		return err
	})
}

// identity is whoever signed bundle. Without a bundle the signer must have a key.
func identity(signer *sign.Signer, bundle []byte) (verify.Identity, error) {
	name := "own key"
	if signer.Keyless() {
		name = "own identity"
	}
	return signer.Identity(name, bundle)
}

// ownPolicy is a policy that trusts whoever signed bundle, and demands what the
// signer's services give. Without a bundle the signer must have a key.
func ownPolicy(product string, signer *sign.Signer, bundle []byte) (verify.Policy, error) {
	id, err := identity(signer, bundle)
	if err != nil {
		return verify.Policy{}, err
	}
	p := verify.Policy{Product: product, Publishers: []verify.Identity{id}}
	if s := signer.Services(); s != nil {
		s.Demand(&p)
	}
	return p, nil
}
