package pipeline

import (
	"context"
	"fmt"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline/card"
)

// describe attaches to a release and its dataset, both in store, the documents
// about them, and returns what it attached.
func describe(ctx context.Context, store oras.Store, release *oras.Artifact) ([]FileSize, error) {
	c, err := card.New(release)
	if err != nil {
		return nil, err
	}
	documents, err := c.Documents()
	if err != nil {
		return nil, err
	}
	info, err := oras.StatDataset(ctx, store, oras.DatasetTag(release.Release.Dataset))
	if err != nil {
		return nil, err
	}
	croissant, err := c.Croissant(info)
	if err != nil {
		return nil, err
	}
	var list []FileSize
	for _, d := range append(documents, croissant) {
		subject := release.Descriptor()
		if d.Type == croissant.Type {
			subject = info.Manifest
		}
		if _, err := oras.Attach(ctx, store, subject, d); err != nil {
			return nil, err
		}
		list = append(list, FileSize{d.Name, canon.Sum(d.Data), int64(len(d.Data))})
	}
	return list, nil
}

// Document makes a document about the release that ref refers to, anew from
// the release: the one of mediaType, which is a type of oras.Document. That of
// the dataset (oras.TypeJSONLD) needs the dataset beside the release. Nothing
// is said about whether the release may be trusted.
//
// A release that breaks its format is oras.ErrInvalid, one that cannot be
// described card.ErrRelease.
func Document(ctx context.Context, ref oras.Ref, mediaType string, opt oras.Options) (oras.Document, error) {
	none := oras.Document{}
	store, err := oras.Open(ctx, ref, opt)
	if err != nil {
		return none, err
	}
	at, err := store.Resolve(ctx, ref.Name())
	if err != nil {
		return none, err
	}
	release, err := oras.Pull(ctx, store, at.Digest)
	if err != nil {
		return none, err
	}
	c, err := card.New(release)
	if err != nil {
		return none, fmt.Errorf("%s: %w", ref, err)
	}
	if mediaType == oras.TypeJSONLD {
		info, err := oras.StatDataset(ctx, store, oras.DatasetTag(release.Release.Dataset))
		if err != nil {
			return none, err
		}
		return c.Croissant(info)
	}
	documents, err := c.Documents()
	if err != nil {
		return none, err
	}
	for _, d := range documents {
		if d.Type == mediaType {
			return d, nil
		}
	}
	return none, fmt.Errorf("no document of type %q describes a release", mediaType)
}
