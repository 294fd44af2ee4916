package oras

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Types of a [Document]. Each is the media type of its bytes and the
// artifactType of the referrer that carries it.
const (
	TypeMarkdown  = "text/markdown"                  // model card, to be read as text
	TypeHTML      = "text/html"                      // model card, to be opened in a browser
	TypeCycloneDX = "application/vnd.cyclonedx+json" // bill of materials
	TypeJSONLD    = "application/ld+json"            // description of a dataset
)

var documentTypes = []string{TypeMarkdown, TypeHTML, TypeCycloneDX, TypeJSONLD}

// Document is a text that describes a release or a dataset. It is never part
// of what it describes, and nothing is decided by it.
type Document struct {
	Type string // TypeMarkdown, TypeHTML, TypeCycloneDX or TypeJSONLD
	Name string // file name that general tools write it under: 1 to 64 of a-z 0-9 . -, not first a dot
	Data []byte // 1 to MaxDocument bytes
}

var documentName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9-][a-z0-9.-]{0,63}$`) })

// Attach stores a document as a referrer of the manifest subject. The
// referrer's manifest follows from the document and the subject alone, so
// attaching the same again changes nothing. The descriptor returned is that of
// this manifest.
//
// When Attach returns nil, the entry in the referrers listing has been read
// back. A document that breaks a rule, bundles among them, is ErrInvalid.
func Attach(ctx context.Context, s Store, subject Descriptor, doc Document) (Descriptor, error) {
	switch {
	case !slices.Contains(documentTypes, doc.Type):
		return Descriptor{}, fmt.Errorf("%w: document of type %q: want one of %q", ErrInvalid, printable(doc.Type, 80), documentTypes)
	case !documentName().MatchString(doc.Name):
		return Descriptor{}, fmt.Errorf("%w: document name %q: want 1 to 64 of a-z 0-9 . -", ErrInvalid, printable(doc.Name, 80))
	case len(doc.Data) < 1 || len(doc.Data) > MaxDocument:
		return Descriptor{}, fmt.Errorf("%w: %s has %d bytes, want 1 to %d", ErrInvalid, doc.Name, len(doc.Data), MaxDocument)
	}
	return putReferrer(ctx, s, subject, manifest{
		ArtifactType: doc.Type,
		Config:       describe(typeEmpty, []byte(emptyJSON), ""),
		Layers:       []Descriptor{describe(doc.Type, doc.Data, doc.Name)},
	}, doc.Data)
}

// putReferrer completes m, whose config is empty and whose one layer is data,
// as a manifest that refers to subject, and stores it with what it names.
func putReferrer(ctx context.Context, s Store, subject Descriptor, m manifest, data []byte) (Descriptor, error) {
	// What is referred to must be there, and be what the descriptor says.
	b, err := s.Manifest(ctx, Descriptor{Digest: subject.Digest})
	if err != nil {
		return Descriptor{}, err
	}
	on, err := manifestDescriptor(b)
	if err != nil {
		return Descriptor{}, err
	}
	return putAbout(ctx, s, on, m, data)
}

// putAbout is putReferrer for a subject that need not be in the store.
func putAbout(ctx context.Context, s Store, on Descriptor, m manifest, data []byte) (Descriptor, error) {
	on.ArtifactType = ""
	m.SchemaVersion, m.MediaType, m.Subject = 2, TypeManifest, &on
	b, err := canon.Marshal(m)
	if err != nil {
		return Descriptor{}, fmt.Errorf("referrer manifest: %w", invalid(err))
	}
	if err := putBytes(ctx, s, m.Config, []byte(emptyJSON)); err != nil {
		return Descriptor{}, err
	}
	if err := putBytes(ctx, s, m.Layers[0], data); err != nil {
		return Descriptor{}, err
	}
	return s.PutManifest(ctx, b)
}

// DocumentInfo describes a document in a store by its manifest; its bytes were not
// fetched, and nobody signs them.
type DocumentInfo struct {
	Manifest canon.Digest `json:"manifest"` // of the referrer
	Type     string       `json:"type"`     // as Document.Type
	Name     string       `json:"name"`     // as Document.Name
	Digest   canon.Digest `json:"digest"`
	Size     int64        `json:"size"` // bytes
}

// Documents lists the documents about the manifest subject. Referrers that are
// none, by the rules of Attach, are passed over. complete is false when the store
// may have more.
func Documents(ctx context.Context, s Store, subject canon.Digest) (list []DocumentInfo, complete bool, err error) {
	referrers, complete, err := s.Referrers(ctx, subject)
	if err != nil {
		return nil, false, err
	}
	for _, d := range referrers {
		if d.Size > MaxOwnManifest {
			continue
		}
		b, err := s.Manifest(ctx, Descriptor{Digest: d.Digest, Size: d.Size})
		if err != nil {
			if ctx.Err() != nil {
				return nil, false, err
			}
			complete = complete && errors.Is(err, ErrInvalid)
			continue
		}
		m, err := decodeManifest(b)
		if err != nil || m.Subject == nil || m.Subject.Digest != subject || len(m.Layers) != 1 || !slices.Contains(documentTypes, m.ArtifactType) {
			continue
		}
		l := m.Layers[0]
		name := l.Annotations[annotationTitle]
		if l.MediaType == m.ArtifactType && documentName().MatchString(name) && !l.Digest.IsZero() && l.Size >= 1 && l.Size <= MaxDocument {
			list = append(list, DocumentInfo{d.Digest, l.MediaType, name, l.Digest, l.Size})
		}
	}
	return list, complete, nil
}

// ReadDocument returns a document that Documents listed.
func ReadDocument(ctx context.Context, s Store, info DocumentInfo) (Document, error) {
	data, err := readBlob(ctx, s, Descriptor{MediaType: info.Type, Digest: info.Digest, Size: info.Size}, MaxDocument)
	return Document{Type: info.Type, Name: info.Name, Data: data}, err
}
