package oras

import (
	"errors"
	"fmt"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Media types and artifact types.
const (
	TypeManifest = "application/vnd.oci.image.manifest.v1+json"
	TypeIndex    = "application/vnd.oci.image.index.v1+json"
	typeEmpty    = "application/vnd.oci.empty.v1+json"

	TypeRelease     = "application/vnd.cncf.model.manifest.v1+json" // artifactType of a release
	typeModelConfig = "application/vnd.cncf.model.config.v1+json"
	typeModel       = "application/vnd.cncf.model.weight.v1.raw"
	typeReleaseJSON = "application/vnd.cncf.model.weight.config.v1.raw"

	TypeDataset  = "application/vnd.battle-hardened-ai.dataset.v1+json" // artifactType of a dataset
	typeSnapshot = "application/vnd.battle-hardened-ai.snapshot.v1+json"
	typeArrow    = "application/vnd.apache.arrow.file"
	typeJSON     = "application/json"

	TypeBundle = "application/vnd.dev.sigstore.bundle.v0.3+json" // artifactType and layer of a Sigstore bundle
)

// Annotation keys.
const (
	annotationTitle    = "org.opencontainers.image.title"
	annotationRefName  = "org.opencontainers.image.ref.name"
	annotationCreated  = "org.opencontainers.image.created"
	annotationFilepath = "org.cncf.model.filepath"

	annotationBundleContent = "dev.sigstore.bundle.content"
	annotationPredicateType = "dev.sigstore.bundle.predicateType"
)

// Descriptor names bytes in a store: an OCI content descriptor. Members that
// could lead elsewhere (urls, data, platform) are never read.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       canon.Digest      `json:"digest"`
	Size         int64             `json:"size"` // bytes
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// describe returns the descriptor of b. A title, when given, is the file name
// that general tools use when they write b to disk.
func describe(mediaType string, b []byte, title string) Descriptor {
	return describeAs(mediaType, canon.Sum(b), int64(len(b)), title)
}

func describeAs(mediaType string, d canon.Digest, size int64, title string) Descriptor {
	desc := Descriptor{MediaType: mediaType, Digest: d, Size: size}
	if title != "" {
		desc.Annotations = map[string]string{annotationTitle: title}
	}
	return desc
}

// manifest is an OCI image manifest.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        Descriptor        `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Subject       *Descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// sniff returns the media type that a manifest or index states about itself.
// It must state one, and must not be readable as the other kind: whoever
// signs or checks a digest must know what kind of document it names
// (CVE-2021-41190). All failures are ErrInvalid.
func sniff(b []byte) (string, error) {
	if len(b) > MaxManifest {
		return "", fmt.Errorf("%w: manifest is longer than %d bytes", ErrInvalid, MaxManifest)
	}
	var peek struct {
		SchemaVersion jsontext.Value `json:"schemaVersion"`
		MediaType     string         `json:"mediaType"`
		Config        jsontext.Value `json:"config"`
		Layers        jsontext.Value `json:"layers"`
		Manifests     jsontext.Value `json:"manifests"`
	}
	if err := json.Unmarshal(b, &peek); err != nil {
		return "", fmt.Errorf("%w: manifest is not JSON: %s", ErrInvalid, printable(err.Error(), maxMessage))
	}
	image := peek.Layers != nil || peek.Config != nil
	index := peek.Manifests != nil
	switch {
	case string(peek.SchemaVersion) != "2":
		return "", fmt.Errorf("%w: manifest without schemaVersion 2", ErrInvalid)
	case image && index:
		return "", fmt.Errorf("%w: document is both a manifest and an index", ErrInvalid)
	case peek.MediaType == TypeManifest && !index, peek.MediaType == TypeIndex && !image:
		return peek.MediaType, nil
	case peek.MediaType == "":
		return "", fmt.Errorf("%w: manifest does not state its mediaType", ErrInvalid)
	}
	return "", fmt.Errorf("%w: mediaType %q does not fit the document", ErrInvalid, printable(peek.MediaType, 80))
}

// decodeManifest reads any image manifest, of ours or of other tools: members
// it does not know are ignored.
func decodeManifest(b []byte) (manifest, error) {
	t, err := sniff(b)
	if err != nil {
		return manifest{}, err
	}
	if t != TypeManifest {
		return manifest{}, fmt.Errorf("%w: an image index where an image manifest is wanted", ErrInvalid)
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return manifest{}, fmt.Errorf("%w: manifest: %s", ErrInvalid, printable(err.Error(), maxMessage))
	}
	return m, nil
}

// decodeIndex returns the entries of an image index, in order. An entry that
// cannot be read is left out: one bad entry must not hide the others.
func decodeIndex(b []byte) ([]Descriptor, error) {
	t, err := sniff(b)
	if err != nil {
		return nil, err
	}
	if t != TypeIndex {
		return nil, fmt.Errorf("%w: an image manifest where an image index is wanted", ErrInvalid)
	}
	var idx struct {
		Manifests []jsontext.Value `json:"manifests"`
	}
	if err := json.Unmarshal(b, &idx); err != nil {
		return nil, fmt.Errorf("%w: index: %s", ErrInvalid, printable(err.Error(), maxMessage))
	}
	var list []Descriptor
	for _, raw := range idx.Manifests {
		var d Descriptor
		if json.Unmarshal(raw, &d) == nil && !d.Digest.IsZero() && d.Size >= 0 {
			list = append(list, d)
		}
	}
	return list, nil
}

// invalid makes the errors of package canon ErrInvalid; others stay.
func invalid(err error) error {
	if errors.Is(err, ErrInvalid) {
		return err
	}
	if errors.Is(err, canon.ErrMismatch) || errors.Is(err, canon.ErrTooLarge) || errors.Is(err, canon.ErrSyntax) {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return err
}
