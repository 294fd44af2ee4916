package oras

import (
	"context"
	"fmt"
	"slices"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// DatasetInfo describes a dataset artifact without its tables.
type DatasetInfo struct {
	Manifest Descriptor    // of the artifact
	Snapshot []byte        // snapshot.json; its SHA-256 is the dataset digest
	Files    []DatasetFile // snapshot.json, then those of DatasetFiles
}

// DatasetFile is a file of a dataset artifact.
type DatasetFile struct {
	Name      string
	MediaType string
	Digest    canon.Digest
	Size      int64 // bytes
}

// StatDataset reads manifest and snapshot.json of the dataset artifact that
// name stands for, as PullDataset does, and leaves the other files where they
// are: their digests and sizes are those that the manifest states.
func StatDataset(ctx context.Context, s Store, name string) (*DatasetInfo, error) {
	m, b, err := findDataset(ctx, s, name)
	if err != nil {
		return nil, err
	}
	snapshot, err := readBlob(ctx, s, m.Config, MaxConfig)
	if err != nil {
		return nil, fmt.Errorf("%s: dataset %s: %w", s, printable(name, 140), err)
	}
	info := &DatasetInfo{Snapshot: snapshot}
	if info.Manifest, err = manifestDescriptor(b); err != nil {
		return nil, err
	}
	for _, d := range slices.Insert(m.Layers, 0, m.Config) {
		info.Files = append(info.Files, DatasetFile{d.Annotations[annotationTitle], d.MediaType, d.Digest, d.Size})
	}
	return info, nil
}
