package oras

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/go-json-experiment/json"
)

// emptyJSON is the config of an artifact that has none (OCI image
// specification, "empty descriptor").
const emptyJSON = `{}`

// AttachBundle stores a Sigstore bundle (v0.3, a DSSE envelope with an in-toto
// statement of predicateType) as a referrer of the manifest subject, in the form
// that cosign 3 writes and reads, and if tag is not empty also under that
// tag. created goes into an annotation, in UTC to the second; the zero time is
// left out. The descriptor returned is that of the referrer's manifest.
//
// When AttachBundle returns nil, the entry in the referrers listing and the tag
// have been read back; a tag that another writer set in between is ErrExists.
// Bytes that are no such bundle are ErrInvalid.
func AttachBundle(ctx context.Context, s Store, subject Descriptor, bundle []byte, predicateType, tag string, created time.Time) (Descriptor, error) {
	return putBundle(ctx, s, subject, bundle, predicateType, tag, created, putReferrer)
}

// PutBundle is AttachBundle for a statement that is kept in a place of its
// signer's own, where the manifest that it is about need not be: readers find it
// under the tag.
func PutBundle(ctx context.Context, s Store, subject Descriptor, bundle []byte, predicateType, tag string, created time.Time) (Descriptor, error) {
	return putBundle(ctx, s, subject, bundle, predicateType, tag, created, putAbout)
}

func putBundle(ctx context.Context, s Store, subject Descriptor, bundle []byte, predicateType, tag string, created time.Time,
	put func(context.Context, Store, Descriptor, manifest, []byte) (Descriptor, error)) (Descriptor, error) {
	if err := checkBundle(bundle); err != nil {
		return Descriptor{}, err
	}
	m := manifest{
		ArtifactType: TypeBundle,
		Config:       describe(typeEmpty, []byte(emptyJSON), ""),
		Layers:       []Descriptor{describe(TypeBundle, bundle, "")},
		Annotations: map[string]string{
			annotationBundleContent: "dsse-envelope",
			annotationPredicateType: predicateType,
		},
	}
	m.Config.ArtifactType = TypeBundle
	if !created.IsZero() {
		m.Annotations[annotationCreated] = created.UTC().Format(time.RFC3339)
	}
	d, err := put(ctx, s, subject, m, bundle)
	if err != nil || tag == "" {
		return d, err
	}
	if err := s.Tag(ctx, tag, d); err != nil {
		return d, err
	}
	return d, readBack(ctx, s, tag, d)
}

// checkBundle looks at no more than size and stated type.
func checkBundle(b []byte) error {
	if len(b) > MaxBundle {
		return fmt.Errorf("%w: bundle has %d bytes, limit %d", ErrInvalid, len(b), MaxBundle)
	}
	var peek struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(b, &peek); err != nil {
		return fmt.Errorf("%w: bundle is not JSON: %s", ErrInvalid, printable(err.Error(), maxMessage))
	}
	if peek.MediaType != TypeBundle {
		return fmt.Errorf("%w: bundle has media type %q, want %s", ErrInvalid, printable(peek.MediaType, 80), TypeBundle)
	}
	return nil
}

// Bundle is a Sigstore bundle found in a store. Nothing about it has been
// verified but that its manifest names the subject and its bytes have their
// digest.
type Bundle struct {
	Manifest      canon.Digest // of the referrer's manifest
	Tag           string       // under which it was found, "" if among the referrers
	PredicateType string       // as the manifest says; a hint, the signed statement decides
	Data          []byte       // as stored: at most MaxBundle bytes, never inflated
}

// BundleList is what Bundles found.
type BundleList struct {
	Bundles []Bundle // those found by tag first, in the order asked for

	// Skipped says of every referrer that is no bundle for the subject, or could
	// not be read, which and why, one line each. Such do not hide others.
	Skipped []string

	// Damaged are those of Skipped that stand at a tag asked for or are listed as
	// bundles for the subject, so that something signed seems to be there.
	Damaged []string

	// Complete is false when the store may have more: the listing was cut off, an
	// entry could not be fetched, or a limit was reached.
	Complete bool
}

// Bundles gathers the Sigstore bundles about the manifest subject: those at
// the given tags, which may be missing, and those among its referrers. It reads
// at most MaxBundles bytes in all. Only ErrUnreachable, ErrRefused and the
// errors of ctx end it: nothing that a store contains does.
func Bundles(ctx context.Context, s Store, subject canon.Digest, tags ...string) (*BundleList, error) {
	return findBundles(ctx, s, subject, tags, s.Referrers)
}

// TaggedBundles is Bundles without a look at the referrers. The list says nothing
// of those: Complete is about the tags alone.
func TaggedBundles(ctx context.Context, s Store, subject canon.Digest, tags ...string) (*BundleList, error) {
	none := func(context.Context, canon.Digest) ([]Descriptor, bool, error) { return nil, true, nil }
	return findBundles(ctx, s, subject, tags, none)
}

func findBundles(ctx context.Context, s Store, subject canon.Digest, tags []string,
	referrers func(context.Context, canon.Digest) ([]Descriptor, bool, error)) (*BundleList, error) {
	found := &BundleList{Complete: true}
	var seen []canon.Digest
	total := int64(0)
	look := func(d Descriptor, tag string) error {
		if slices.Contains(seen, d.Digest) {
			return nil
		}
		seen = append(seen, d.Digest)
		signed := d.ArtifactType == TypeBundle // a listing may leave it out
		skip := func(err error) {
			line := fmt.Sprintf("%s: %s", d.Digest, printable(err.Error(), 2*maxMessage))
			found.Skipped = append(found.Skipped, line)
			if tag != "" || signed {
				found.Damaged = append(found.Damaged, line)
			}
		}
		if d.Size > MaxOwnManifest {
			skip(fmt.Errorf("%w: manifest has %d bytes, limit %d", ErrInvalid, d.Size, MaxOwnManifest))
			return nil
		}
		b, err := s.Manifest(ctx, Descriptor{Digest: d.Digest, Size: d.Size})
		if err == nil {
			var layer Descriptor
			var predicate string
			layer, predicate, err = bundleLayer(b, subject)
			signed = !errors.Is(err, errOther)
			if err == nil {
				if total += layer.Size; total > MaxBundles {
					found.Complete = false
					skip(fmt.Errorf("%w: bundles have more than %d bytes together", ErrInvalid, MaxBundles))
					return nil
				}
				var data []byte
				if data, err = readBlob(ctx, s, layer, MaxBundle); err == nil {
					found.Bundles = append(found.Bundles, Bundle{d.Digest, tag, predicate, data})
					return nil
				}
			}
		}
		if ctx.Err() != nil {
			return err
		}
		if !errors.Is(err, ErrInvalid) {
			found.Complete = false // there, or listed, but not to be had
		}
		skip(err)
		return nil
	}
	for _, tag := range tags {
		d, err := s.Resolve(ctx, tag)
		switch {
		case errors.Is(err, ErrNotFound):
			continue
		case errors.Is(err, ErrInvalid):
			line := fmt.Sprintf("%s: %s", tag, printable(err.Error(), 2*maxMessage))
			found.Skipped = append(found.Skipped, line)
			found.Damaged = append(found.Damaged, line)
			continue
		case err != nil:
			return nil, err
		}
		if err := look(d, tag); err != nil {
			return nil, err
		}
	}
	list, complete, err := referrers(ctx, subject)
	switch {
	case errors.Is(err, ErrInvalid) && ctx.Err() == nil: // what is tagged still counts
		found.Skipped = append(found.Skipped, printable(err.Error(), 2*maxMessage))
	case err != nil:
		return nil, err
	}
	found.Complete = found.Complete && complete
	for _, d := range list {
		if err := look(d, ""); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// errOther: a referrer that is no bundle, or about something else.
var errOther = fmt.Errorf("%w referrer", ErrInvalid)

// bundleLayer returns the layer of a referrer manifest that holds a bundle
// about subject, and the predicate type that its annotation states.
func bundleLayer(b []byte, subject canon.Digest) (Descriptor, string, error) {
	if len(b) > MaxOwnManifest {
		return Descriptor{}, "", fmt.Errorf("%w: manifest has %d bytes, limit %d", ErrInvalid, len(b), MaxOwnManifest)
	}
	m, err := decodeManifest(b)
	switch {
	case err != nil:
		return Descriptor{}, "", err
	case m.ArtifactType != TypeBundle:
		return Descriptor{}, "", fmt.Errorf("%w: artifactType is %q, not a Sigstore bundle", errOther, printable(m.ArtifactType, 80))
	case m.Subject == nil || m.Subject.Digest != subject:
		return Descriptor{}, "", fmt.Errorf("%w: it does not refer to %s", errOther, subject)
	case len(m.Layers) != 1:
		return Descriptor{}, "", fmt.Errorf("%w: bundle has %d layers, want 1", ErrInvalid, len(m.Layers))
	}
	l := m.Layers[0]
	switch {
	case l.MediaType != TypeBundle:
		return l, "", fmt.Errorf("%w: layer has media type %q, want %s", ErrInvalid, printable(l.MediaType, 80), TypeBundle)
	case l.Digest.IsZero() || l.Size < 1 || l.Size > MaxBundle:
		return l, "", fmt.Errorf("%w: bundle states %d bytes, want 1 to %d", ErrInvalid, l.Size, MaxBundle)
	}
	return l, m.Annotations[annotationPredicateType], nil
}

// readBlob reads a blob of at most limit bytes, verified.
func readBlob(ctx context.Context, s Store, d Descriptor, limit int64) ([]byte, error) {
	if d.Size < 0 || d.Size > limit {
		return nil, fmt.Errorf("%w: blob %s states %d bytes, limit %d", ErrInvalid, d.Digest, d.Size, limit)
	}
	rc, err := s.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b, err := canon.ReadAll(rc, d.Digest, d.Size, limit)
	return b, invalid(err)
}
