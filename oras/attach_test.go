package oras

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func sampleDocuments() []Document {
	return []Document{
		{TypeMarkdown, "model-card.md", []byte("# Card\n")},
		{TypeHTML, "model-card.html", []byte("<!doctype html><title>Card</title>")},
		{TypeCycloneDX, "bom.cdx.json", []byte(`{"bomFormat":"CycloneDX"}`)},
		{TypeJSONLD, "croissant.json", []byte(`{"@context":{}}`)},
	}
}

func attachAll(t testing.TB, s Store, subject Descriptor) {
	t.Helper()
	for _, doc := range sampleDocuments() {
		if _, err := Attach(context.Background(), s, subject, doc); err != nil {
			t.Fatalf("%s: %v", doc.Name, err)
		}
	}
}

func TestDocumentsAreReferrers(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	eachStore(t, func(t *testing.T, s Store) {
		push(t, s, a)
		attachAll(t, s, a.Descriptor())
		attachAll(t, s, a.Descriptor()) // a second time changes nothing
		list, complete, err := s.Referrers(ctx, a.Digest)
		if err != nil || !complete || len(list) != len(sampleDocuments()) {
			t.Fatalf("%d listed, complete %v, %v", len(list), complete, err)
		}
		var types []string
		for _, d := range list { // a listing may name another type, or none: the manifest counts
			b, err := s.Manifest(ctx, d)
			if err != nil {
				t.Fatal(err)
			}
			m, err := decodeManifest(b)
			i := slices.IndexFunc(sampleDocuments(), func(doc Document) bool { return doc.Type == m.ArtifactType })
			if err != nil || i < 0 || len(m.Layers) != 1 {
				t.Fatalf("%+v, %v", m, err)
			}
			doc := sampleDocuments()[i]
			types = append(types, doc.Type)
			got, err := readBlob(ctx, s, m.Layers[0], MaxDocument)
			if err != nil || !bytes.Equal(got, doc.Data) || m.Layers[0].MediaType != doc.Type || m.Layers[0].Annotations[annotationTitle] != doc.Name {
				t.Errorf("%s: got %q of %+v, %v", doc.Name, got, m.Layers[0], err)
			}
		}
		if slices.Sort(types); len(slices.Compact(types)) != len(sampleDocuments()) {
			t.Errorf("types %q", types)
		}
		if again, err := Pull(ctx, s, a.Digest); err != nil || again.Digest != a.Digest {
			t.Errorf("the release is touched: %v", err)
		}
	})
}

// No time, no host: whoever attaches the same document writes the same bytes.
func TestDocumentManifestHasOneForm(t *testing.T) {
	a := samplePack(t)
	s := newLayout(t)
	push(t, s, a)
	doc := sampleDocuments()[0]
	d, err := Attach(context.Background(), s, a.Descriptor(), doc)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Manifest(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"artifactType":"text/markdown","config":{"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",`+
		`"mediaType":"application/vnd.oci.empty.v1+json","size":2},"layers":[{"annotations":{"org.opencontainers.image.title":"model-card.md"},`+
		`"digest":"%s","mediaType":"text/markdown","size":7}],"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2,`+
		`"subject":{"digest":"%s","mediaType":"application/vnd.oci.image.manifest.v1+json","size":%d}}`, canon.Sum(doc.Data), a.Digest, len(a.Manifest))
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	if err := ociManifest.checkJSON(t, b); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoDocumentIsNotAttached(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	s := newLayout(t)
	push(t, s, a)
	for name, doc := range map[string]Document{
		"a bundle":       {TypeBundle, "bundle.json", sampleBundle("x")},
		"a release":      {TypeRelease, "release.json", []byte("{}")},
		"no type":        {"", "card.md", []byte("x")},
		"another type":   {"text/plain", "card.txt", []byte("x")},
		"no name":        {TypeHTML, "", []byte("x")},
		"a path":         {TypeHTML, "../card.html", []byte("x")},
		"a hidden file":  {TypeHTML, ".card.html", []byte("x")},
		"a long name":    {TypeHTML, strings.Repeat("a", 65), []byte("x")},
		"a line break":   {TypeHTML, "card.html\n", []byte("x")},
		"nothing":        {TypeHTML, "card.html", nil},
		"one byte over":  {TypeHTML, "card.html", make([]byte, MaxDocument+1)},
		"a Windows path": {TypeHTML, `a\card.html`, []byte("x")},
	} {
		if _, err := Attach(ctx, s, a.Descriptor(), doc); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if list, _, err := s.Referrers(ctx, a.Digest); err != nil || len(list) != 0 {
		t.Errorf("%d referrers of what was refused, %v", len(list), err)
	}
	if _, err := Attach(ctx, s, Descriptor{Digest: canon.Sum(nil)}, sampleDocuments()[0]); !errors.Is(err, ErrNotFound) {
		t.Errorf("subject that is not there: %v, want ErrNotFound", err)
	}
	largest := Document{TypeHTML, "card.html", bytes.Repeat([]byte("x"), MaxDocument)}
	if _, err := Attach(ctx, s, a.Descriptor(), largest); err != nil {
		t.Errorf("a document of the largest size: %v", err)
	}
}

func TestDocumentsHideNoBundle(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	eachStore(t, func(t *testing.T, s Store) {
		push(t, s, a)
		attachAll(t, s, a.Descriptor())
		attach(t, s, a.Descriptor(), "good", "")
		attachAll(t, s, a.Descriptor())
		found, err := Bundles(ctx, s, a.Digest)
		if err != nil || !found.Complete || len(found.Bundles) != 1 || !bytes.Equal(found.Bundles[0].Data, sampleBundle("good")) {
			t.Fatalf("got %+v, %v", found, err)
		}
		if len(found.Skipped) != len(sampleDocuments()) {
			t.Errorf("skipped %q", found.Skipped)
		}
	})
}

// What a listing says of an entry is anybody's word: a bundle that is listed as
// a model card is a bundle.
func TestBundleThatIsListedAsDocumentIsFound(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	s := serve(t, newRegistry(false), testOptions)
	push(t, s, a)
	d := attach(t, s, a.Descriptor(), "good", "")
	d.ArtifactType = TypeMarkdown
	index, err := canon.Marshal(map[string]any{"schemaVersion": 2, "mediaType": TypeIndex, "manifests": []Descriptor{d}})
	if err != nil {
		t.Fatal(err)
	}
	at, err := s.PutManifest(ctx, index)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(ctx, referrersTag(a.Digest), at); err != nil {
		t.Fatal(err)
	}
	if list, _, err := s.Referrers(ctx, a.Digest); err != nil || len(list) != 1 || list[0].ArtifactType != TypeMarkdown {
		t.Fatalf("the lie is not listed, so this proves nothing: %+v, %v", list, err)
	}
	if found, err := Bundles(ctx, s, a.Digest); err != nil || len(found.Bundles) != 1 {
		t.Errorf("got %+v, %v", found, err)
	}
}

func TestDocumentsAreCopied(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	eachStore(t, func(t *testing.T, src Store) {
		data, err := PackDataset(sampleDataset(t, "records"))
		if err != nil {
			t.Fatal(err)
		}
		rel := a.Release
		rel.Dataset = data.Snapshot
		a, err := Pack(rel, a.Models)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := PushDataset(ctx, src, data); err != nil {
			t.Fatal(err)
		}
		push(t, src, a)
		attachAll(t, src, a.Descriptor())
		croissant := Document{TypeJSONLD, "croissant.json", []byte(`{"a":1}`)}
		if _, err := Attach(ctx, src, data.Descriptor(), croissant); err != nil {
			t.Fatal(err)
		}
		dst := newLayout(t)
		report, err := Copy(ctx, dst, src, a.Digest, CopyOptions{})
		if err != nil || report.Referrers != 5 || len(report.Skipped) != 0 || !report.Complete {
			t.Fatalf("got %+v, %v", report, err)
		}
		for subject, want := range map[canon.Digest]int{a.Digest: 4, data.Digest: 1} {
			if list, _, err := dst.Referrers(ctx, subject); err != nil || len(list) != want {
				t.Errorf("%d referrers of %s, want %d, %v", len(list), subject, want, err)
			}
		}
	})
}

func TestDocumentsAreListedAndNothingElse(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	card := Document{Type: TypeMarkdown, Name: "model-card.md", Data: []byte("# card")}
	eachStore(t, func(t *testing.T, s Store) {
		push(t, s, a)
		d, err := Attach(ctx, s, a.Descriptor(), card)
		if err != nil {
			t.Fatal(err)
		}
		attach(t, s, a.Descriptor(), "a bundle is none", "")
		junk := []byte("junk")
		if err := putBytes(ctx, s, describe(TypeMarkdown, junk, "x"), junk); err != nil {
			t.Fatal(err)
		}
		refer(t, s, describe("text/plain", junk, "a.txt"), a.Descriptor(), "text/plain")
		refer(t, s, describe(TypeHTML, junk, "a.html"), a.Descriptor(), TypeMarkdown)
		refer(t, s, describe(TypeMarkdown, junk, "../a.md"), a.Descriptor(), TypeMarkdown)
		refer(t, s, describe(TypeMarkdown, junk, ""), a.Descriptor(), TypeMarkdown)
		refer(t, s, describeAs(TypeMarkdown, canon.Sum(junk), MaxDocument+1, "a.md"), a.Descriptor(), TypeMarkdown)
		list, complete, err := Documents(ctx, s, a.Digest)
		want := DocumentInfo{d.Digest, TypeMarkdown, "model-card.md", canon.Sum(card.Data), int64(len(card.Data))}
		if err != nil || !complete || len(list) != 1 || list[0] != want {
			t.Errorf("got %+v, %v, %v", list, complete, err)
		}
		if list, complete, err := Documents(ctx, s, canon.Sum(junk)); err != nil || !complete || len(list) != 0 {
			t.Errorf("about something else: %+v, %v, %v", list, complete, err)
		}
	})
}
