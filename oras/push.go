package oras

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Push stores a release and tags it ReleaseTag. Another release under that
// number is ErrExists, found before anything is written. TagLatest is left to
// the caller, who moves it when the statements about the release are there.
func Push(ctx context.Context, s Store, a *Artifact) error {
	tag := ReleaseTag(a.Release.Number)
	if err := tagFree(ctx, s, tag, a.Digest); err != nil {
		return err
	}
	m, err := checkRelease(a.Manifest)
	if err != nil {
		return err
	}
	if err := putBytes(ctx, s, m.Config, a.Config); err != nil {
		return err
	}
	for i, f := range append(a.Models[:len(a.Models):len(a.Models)], File{ReleaseFile, a.ReleaseJSON}) {
		if err := putBytes(ctx, s, m.Layers[i], f.Data); err != nil {
			return err
		}
	}
	d, err := s.PutManifest(ctx, a.Manifest)
	if err != nil {
		return err
	}
	return s.Tag(ctx, tag, d)
}

// tagFree reports ErrExists if tag stands for anything but digest.
func tagFree(ctx context.Context, s Store, tag string, digest canon.Digest) error {
	d, err := s.Resolve(ctx, tag)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	case d.Digest != digest:
		return fmt.Errorf("%s: %s %w as %s, not %s: raise the release number or choose another place", s, tag, ErrExists, d.Digest, digest)
	}
	return nil
}

// PushDataset stores a dataset, tags it DatasetTag, and returns the descriptor
// of its manifest. Two artifacts of one dataset can differ in their Arrow
// encoding: if another stands under the tag, it is left there and is the one
// returned, since statements may name it. Files that changed since PackDataset
// are ErrInvalid.
func PushDataset(ctx context.Context, s Store, d *Dataset) (Descriptor, error) {
	tag := DatasetTag(d.Snapshot)
	switch _, b, err := findDataset(ctx, s, tag); {
	case err == nil && canon.Sum(b) != d.Digest:
		return manifestDescriptor(b)
	case err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrInvalid):
		return Descriptor{}, err
	}
	for _, l := range append([]Descriptor{d.m.Config}, d.m.Layers...) {
		path := filepath.Join(d.dir, l.Annotations[annotationTitle])
		err := s.PutBlob(ctx, l, func() (io.ReadCloser, error) { return os.Open(path) })
		if err != nil {
			return Descriptor{}, err
		}
	}
	m, err := s.PutManifest(ctx, d.Manifest)
	if err != nil {
		return m, err
	}
	return m, s.Tag(ctx, tag, m)
}
