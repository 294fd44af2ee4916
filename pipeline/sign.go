package pipeline

import (
	"context"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// attach signs a statement, stores it as a referrer of subject and under tag,
// and returns the bundle. In a layout, signers follow one another.
func attach(ctx context.Context, store oras.Store, signer *sign.Signer, subject oras.Descriptor, st verify.Statement, tag string) ([]byte, error) {
	bundle, err := signer.Sign(ctx, st)
	if err != nil {
		return nil, err
	}
	err = oras.Exclusive(ctx, store, func() error {
		_, err := oras.AttachBundle(ctx, store, subject, bundle, st.PredicateType, tag, time.Now())
		return err
	})
	return bundle, err
}

// ownPolicy is a policy that trusts whoever signed bundle, and demands what the
// signer's services give. Without a bundle the signer must have a key.
func ownPolicy(product string, signer *sign.Signer, bundle []byte) (verify.Policy, error) {
	id, err := signer.Identity("own key", bundle)
	if err != nil {
		return verify.Policy{}, err
	}
	if id.Certificate != nil {
		id.Name = "own identity"
	}
	p := verify.Policy{Product: product, Publishers: []verify.Identity{id}}
	if s := signer.Services(); s != nil {
		s.Demand(&p)
	}
	return p, nil
}
