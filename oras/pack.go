package oras

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// ModelFiles are the names of the four model files of a release, in the order
// of its layers.
var ModelFiles = [4]string{
	"feature_scaler.onnx",
	"anomaly_detector.onnx",
	"threat_classifier.onnx",
	"ip_reputation.onnx",
}

// ReleaseFile is the name of the fifth layer.
const ReleaseFile = "release.json"

// SnapshotFile is the file of a dataset directory whose SHA-256 is the dataset
// digest.
const SnapshotFile = "snapshot.json"

// DatasetFiles are the other files of a dataset directory, in the order of the
// layers of its artifact.
var DatasetFiles = [3]string{"exploits.arrow", "records.arrow", "files.json"}

// datasetLayer returns media type and size limit of a file of DatasetFiles.
func datasetLayer(name string) (mediaType string, limit int64) {
	if name == "files.json" {
		return typeJSON, MaxFileList
	}
	return typeArrow, MaxDatasetFile
}

// File is a named file in memory.
type File struct {
	Name string
	Data []byte
}

// Artifact is a packed release. All of it follows from Release and Models;
// callers must not change any field.
type Artifact struct {
	Release     Release
	Models      []File // the four, in the order of ModelFiles
	ReleaseJSON []byte // the encoding of Release
	Config      []byte // the ModelPack config
	Manifest    []byte
	Digest      canon.Digest // of Manifest: the identity of the release
}

// Descriptor returns the descriptor of the manifest.
func (a *Artifact) Descriptor() Descriptor {
	return Descriptor{MediaType: TypeManifest, Digest: a.Digest, Size: int64(len(a.Manifest)), ArtifactType: TypeRelease}
}

// Model returns the bytes of one of ModelFiles, or nil for another name.
func (a *Artifact) Model(name string) []byte {
	for _, f := range a.Models {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

// modelConfig is the CNCF ModelPack config. createdAt is left out: the same
// release has the same digest whenever it is packed.
type modelConfig struct {
	Descriptor struct {
		Family  string `json:"family"`
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"descriptor"`
	Config struct {
		Architecture string `json:"architecture"`
		Format       string `json:"format"`
		Precision    string `json:"precision"`
	} `json:"config"`
	ModelFS struct {
		Type    string         `json:"type"`
		DiffIDs []canon.Digest `json:"diffIds"`
	} `json:"modelfs"`
}

// releaseLayer returns the descriptor of one of the five layers.
func releaseLayer(name string, b []byte) Descriptor {
	mediaType := typeModel
	if name == ReleaseFile {
		mediaType = typeReleaseJSON
	}
	d := describe(mediaType, b, name)
	d.Annotations[annotationFilepath] = name
	return d
}

// Pack makes the artifact of a release. models are the four of ModelFiles in
// any order, each of 1 to MaxModel bytes, and are not copied. The result
// depends on nothing else. A rule that is broken is ErrInvalid.
func Pack(rel Release, models []File) (*Artifact, error) {
	if rel.Format == 0 {
		rel.Format = FormatVersion
	}
	if len(models) != len(ModelFiles) {
		return nil, fmt.Errorf("%w: %d model files, want the %d of %v", ErrInvalid, len(models), len(ModelFiles), ModelFiles)
	}
	a := &Artifact{Release: rel}
	var err error
	if a.ReleaseJSON, err = rel.Encode(); err != nil {
		return nil, err
	}
	// The sections as they are encoded, so that Release is what a reader gets.
	if a.Release, err = DecodeRelease(a.ReleaseJSON); err != nil {
		return nil, err
	}

	m := manifest{SchemaVersion: 2, MediaType: TypeManifest, ArtifactType: TypeRelease}
	for _, name := range ModelFiles {
		i := slices.IndexFunc(models, func(f File) bool { return f.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("%w: model file %s is missing", ErrInvalid, name)
		}
		if n := len(models[i].Data); n < 1 || n > MaxModel {
			return nil, fmt.Errorf("%w: %s has %d bytes, want 1 to %d", ErrInvalid, name, n, MaxModel)
		}
		a.Models = append(a.Models, models[i])
		m.Layers = append(m.Layers, releaseLayer(name, models[i].Data))
	}
	m.Layers = append(m.Layers, releaseLayer(ReleaseFile, a.ReleaseJSON))

	var c modelConfig
	c.Descriptor.Family = "bhtrain"
	c.Descriptor.Name = rel.Product
	c.Descriptor.Version = strconv.FormatInt(rel.Number, 10)
	c.Config.Architecture = "tree-ensemble"
	c.Config.Format = "onnx"
	c.Config.Precision = "fp32"
	c.ModelFS.Type = "layers"
	for _, l := range m.Layers {
		c.ModelFS.DiffIDs = append(c.ModelFS.DiffIDs, l.Digest)
	}
	if a.Config, err = canon.Marshal(c); err != nil {
		return nil, fmt.Errorf("ModelPack config: %w", err)
	}
	m.Config = describe(typeModelConfig, a.Config, "")
	if a.Manifest, err = canon.Marshal(m); err != nil {
		return nil, fmt.Errorf("release manifest: %w", err)
	}
	a.Digest = canon.Sum(a.Manifest)
	return a, nil
}

// Dataset is a packed dataset. Its Arrow files stay on disk.
type Dataset struct {
	Snapshot canon.Digest // of snapshot.json: the dataset digest
	Manifest []byte
	Digest   canon.Digest // of Manifest; names the bytes, not the dataset

	dir string
	m   manifest
}

// Descriptor returns the descriptor of the manifest.
func (d *Dataset) Descriptor() Descriptor {
	return Descriptor{MediaType: TypeManifest, Digest: d.Digest, Size: int64(len(d.Manifest)), ArtifactType: TypeDataset}
}

// PackDataset makes the artifact of the dataset directory dir: SnapshotFile
// and DatasetFiles. It reads every file once, in constant memory. The files
// must not change until the artifact has been pushed; a change is found then.
func PackDataset(dir string) (*Dataset, error) {
	m := manifest{SchemaVersion: 2, MediaType: TypeManifest, ArtifactType: TypeDataset}
	snap, err := describeFile(dir, SnapshotFile, typeSnapshot, MaxConfig)
	if err != nil {
		return nil, err
	}
	m.Config = snap
	for _, name := range DatasetFiles {
		mediaType, limit := datasetLayer(name)
		d, err := describeFile(dir, name, mediaType, limit)
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, d)
	}
	b, err := canon.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("dataset manifest: %w", err)
	}
	return &Dataset{Snapshot: snap.Digest, Manifest: b, Digest: canon.Sum(b), dir: dir, m: m}, nil
}

func describeFile(dir, name, mediaType string, limit int64) (Descriptor, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return Descriptor{}, fmt.Errorf("dataset: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, limit+1))
	if err != nil {
		return Descriptor{}, fmt.Errorf("dataset: reading %s: %w", f.Name(), err)
	}
	if n < 1 || n > limit {
		return Descriptor{}, fmt.Errorf("%w: %s has %d bytes or more, want 1 to %d", ErrInvalid, f.Name(), n, limit)
	}
	return describeAs(mediaType, canon.Digest(h.Sum(nil)), n, name), nil
}

// checkRelease decodes a release manifest and holds it against every rule
// that needs no other bytes.
func checkRelease(b []byte) (manifest, error) {
	m, err := checkOwn(b, TypeRelease, typeModelConfig, MaxConfig)
	if err != nil {
		return m, err
	}
	if len(m.Layers) != len(ModelFiles)+1 {
		return m, fmt.Errorf("%w: release has %d layers, want exactly %d", ErrInvalid, len(m.Layers), len(ModelFiles)+1)
	}
	for i, name := range append(ModelFiles[:], ReleaseFile) {
		l := m.Layers[i]
		want, limit := typeModel, int64(MaxModel)
		if name == ReleaseFile {
			want, limit = typeReleaseJSON, MaxReleaseJSON
		}
		if err := checkLayer(i, l, name, want, limit); err != nil {
			return m, err
		}
		if len(l.Annotations) != 2 || l.Annotations[annotationFilepath] != name {
			return m, fmt.Errorf("%w: layer %d (%s) must have the annotations %s and %s and no other", ErrInvalid, i, name, annotationTitle, annotationFilepath)
		}
	}
	return m, nil
}

// checkDataset is checkRelease for a dataset manifest.
func checkDataset(b []byte) (manifest, error) {
	m, err := checkOwn(b, TypeDataset, typeSnapshot, MaxConfig)
	if err != nil {
		return m, err
	}
	if t := m.Config.Annotations[annotationTitle]; t != SnapshotFile || len(m.Config.Annotations) != 1 {
		return m, fmt.Errorf("%w: config of the dataset must be titled %s and have no other annotation", ErrInvalid, SnapshotFile)
	}
	if len(m.Layers) != len(DatasetFiles) {
		return m, fmt.Errorf("%w: dataset has %d layers, want exactly %d", ErrInvalid, len(m.Layers), len(DatasetFiles))
	}
	for i, name := range DatasetFiles {
		mediaType, limit := datasetLayer(name)
		if err := checkLayer(i, m.Layers[i], name, mediaType, limit); err != nil {
			return m, err
		}
		if len(m.Layers[i].Annotations) != 1 {
			return m, fmt.Errorf("%w: layer %d (%s) has annotations beside its title", ErrInvalid, i, name)
		}
	}
	return m, nil
}

// checkOwn checks what the manifests of releases and datasets have in common.
// They have one encoding: any member that is not ours, and any other spelling
// of ours, is refused.
func checkOwn(b []byte, artifactType, configType string, configLimit int64) (manifest, error) {
	if len(b) > MaxOwnManifest {
		return manifest{}, fmt.Errorf("%w: manifest has %d bytes, limit %d", ErrInvalid, len(b), MaxOwnManifest)
	}
	m, err := decodeManifest(b)
	if err != nil {
		return m, err
	}
	if m.ArtifactType != artifactType {
		return m, fmt.Errorf("%w: artifactType is %q, want %s", ErrInvalid, printable(m.ArtifactType, 80), artifactType)
	}
	strict := manifest{}
	if err := canon.UnmarshalCanonical(b, &strict); err != nil {
		return m, fmt.Errorf("manifest: %w", invalid(err))
	}
	switch c := m.Config; {
	case m.Subject != nil || m.Annotations != nil:
		return m, fmt.Errorf("%w: manifest has a subject or annotations", ErrInvalid)
	case c.MediaType != configType:
		return m, fmt.Errorf("%w: config has media type %q, want %s", ErrInvalid, printable(c.MediaType, 80), configType)
	case c.Size < 1 || c.Size > configLimit:
		return m, fmt.Errorf("%w: config states %d bytes, want 1 to %d", ErrInvalid, c.Size, configLimit)
	}
	for _, d := range append([]Descriptor{m.Config}, m.Layers...) {
		if d.Digest.IsZero() || d.ArtifactType != "" {
			return m, fmt.Errorf("%w: a descriptor without digest or with an artifactType", ErrInvalid)
		}
	}
	// Absent and empty are two spellings; canonical form does not tell them apart.
	again, err := canon.Marshal(strict)
	if err != nil || !bytes.Equal(again, b) {
		return m, fmt.Errorf("%w: manifest has an empty member that must be left out", ErrInvalid)
	}
	return strict, nil
}

func checkLayer(i int, l Descriptor, name, mediaType string, limit int64) error {
	switch {
	case l.Annotations[annotationTitle] != name:
		return fmt.Errorf("%w: layer %d is titled %q, want %s", ErrInvalid, i, printable(l.Annotations[annotationTitle], 80), name)
	case l.MediaType != mediaType:
		return fmt.Errorf("%w: layer %d (%s) has media type %q, want %s", ErrInvalid, i, name, printable(l.MediaType, 80), mediaType)
	case l.Size < 1 || l.Size > limit:
		return fmt.Errorf("%w: layer %d (%s) states %d bytes, want 1 to %d", ErrInvalid, i, name, l.Size, limit)
	}
	return nil
}
