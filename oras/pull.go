package oras

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
)

// Pull reads the release whose manifest has digest d: exactly five layers with
// the right names, types, sizes and digests, and a manifest that is byte for
// byte what Pack makes of them. Anything else is ErrInvalid. At most
// 4·MaxModel + MaxReleaseJSON bytes and little more are held in memory.
func Pull(ctx context.Context, s Store, d canon.Digest) (*Artifact, error) {
	at := func(err error) error { return fmt.Errorf("%s: release %s: %w", s, d, err) }
	b, err := s.Manifest(ctx, Descriptor{Digest: d})
	if err != nil {
		return nil, err
	}
	m, err := checkRelease(b)
	if err != nil {
		return nil, at(err)
	}
	// All are asked for at once: each alone is little to send and long to wait for.
	wanted := append([]Descriptor{m.Config}, m.Layers...)
	limits := []int64{MaxConfig, MaxModel, MaxModel, MaxModel, MaxModel, MaxReleaseJSON}
	data, errs := make([][]byte, len(wanted)), make([]error, len(wanted))
	var wait sync.WaitGroup
	for i := range wanted {
		wait.Go(func() { data[i], errs[i] = readBlob(ctx, s, wanted[i], limits[i]) })
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	config, releaseJSON := data[0], data[len(data)-1]
	rel, err := DecodeRelease(releaseJSON)
	if err != nil {
		return nil, at(err)
	}
	var models []File
	for i, name := range ModelFiles {
		models = append(models, File{name, data[1+i]})
	}
	a, err := Pack(rel, models)
	if err != nil {
		return nil, at(err)
	}
	if !bytes.Equal(a.Config, config) {
		return nil, at(fmt.Errorf("%w: the ModelPack config is not the one that follows from release.json and the layers", ErrInvalid))
	}
	if a.Digest != d {
		return nil, at(fmt.Errorf("%w: the manifest is not the one that follows from its files", ErrInvalid))
	}
	return a, nil
}

// findDataset returns manifest and digest of the dataset artifact that name
// stands for.
func findDataset(ctx context.Context, s Store, name string) (manifest, []byte, error) {
	d, err := s.Resolve(ctx, name)
	if err != nil {
		return manifest{}, nil, err
	}
	b, err := s.Manifest(ctx, d)
	if err != nil {
		return manifest{}, nil, err
	}
	at := func(err error) error { return fmt.Errorf("%s: dataset %s: %w", s, printable(name, 140), err) }
	m, err := checkDataset(b)
	if err != nil {
		return m, nil, at(err)
	}
	if hex, ok := strings.CutPrefix(name, "dataset-"); ok && hex != m.Config.Digest.Hex() {
		return m, nil, at(fmt.Errorf("%w: %w: its %s has digest %s", ErrInvalid, canon.ErrMismatch, SnapshotFile, m.Config.Digest))
	}
	return m, b, nil
}

// PullDataset reads the dataset artifact that name stands for, a DatasetTag or
// the digest of its manifest, into the directory dir, which must be empty or
// not exist (ErrExists), and returns the dataset digest. A tag
// "dataset-<hex>" must lead to the dataset of that digest.
//
// Sizes and digests of all files have been checked when dir appears under its
// name; memory use is constant.
func PullDataset(ctx context.Context, s Store, name, dir string) (canon.Digest, error) {
	m, _, err := findDataset(ctx, s, name)
	if err != nil {
		return canon.Digest{}, err
	}
	stage, err := durable.Stage(durable.OS, dir)
	if errors.Is(err, durable.ErrExists) {
		return canon.Digest{}, fmt.Errorf("%s: %w: choose a directory that is empty or does not exist: %w", dir, ErrExists, err)
	}
	if err != nil {
		return canon.Digest{}, err
	}
	defer stage.Discard()
	// File names come from our own lists: checkDataset has compared the titles with them.
	names := append([]string{SnapshotFile}, DatasetFiles[:]...)
	for i, l := range append([]Descriptor{m.Config}, m.Layers...) {
		if err := pullFile(ctx, s, l, filepath.Join(stage.Path(), names[i])); err != nil {
			return canon.Digest{}, err
		}
	}
	if err := stage.Commit(); errors.Is(err, durable.ErrExists) {
		return canon.Digest{}, fmt.Errorf("%s: %w meanwhile: %w", dir, ErrExists, err)
	} else if err != nil {
		return canon.Digest{}, err
	}
	return m.Config.Digest, nil
}

func pullFile(ctx context.Context, s Store, d Descriptor, path string) error {
	rc, err := s.Blob(ctx, d)
	if err != nil {
		return err
	}
	defer rc.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, rc)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
