package oras

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func sampleBundle(text string) []byte {
	return fmt.Appendf(nil, `{"mediaType":%q,"text":%q}`, TypeBundle, text)
}

const predicate = "https://slsa.dev/provenance/v1"

var created = time.Date(2026, 1, 15, 1, 2, 3, 0, time.FixedZone("", 3600))

func attach(t testing.TB, s Store, subject Descriptor, text, tag string) Descriptor {
	t.Helper()
	d, err := AttachBundle(context.Background(), s, subject, sampleBundle(text), predicate, tag, created)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestBundleIsFoundByTagAndAmongTheReferrers(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	eachStore(t, func(t *testing.T, s Store) {
		push(t, s, a)
		tagged := attach(t, s, a.Descriptor(), "tagged", ProvenanceTag(a.Digest))
		listed := attach(t, s, a.Descriptor(), "listed", "")
		attach(t, s, a.Descriptor(), "listed", "") // the same again is one
		found, err := Bundles(ctx, s, a.Digest, "not-there", ProvenanceTag(a.Digest))
		if err != nil || !found.Complete || len(found.Skipped) != 0 || len(found.Bundles) != 2 {
			t.Fatalf("got %+v, %v", found, err)
		}
		for i, want := range []Bundle{
			{tagged.Digest, ProvenanceTag(a.Digest), predicate, sampleBundle("tagged")},
			{listed.Digest, "", predicate, sampleBundle("listed")},
		} {
			got := found.Bundles[i]
			if got.Manifest != want.Manifest || got.Tag != want.Tag || got.PredicateType != want.PredicateType || !bytes.Equal(got.Data, want.Data) {
				t.Errorf("bundle %d: got %+v, want %+v", i, got, want)
			}
		}
	})
}

// An auditor's own repository does not have the release.
func TestBundleInAPlaceOfItsOwn(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	eachStore(t, func(t *testing.T, s Store) {
		tag := ReproductionTag(a.Digest)
		if _, err := AttachBundle(ctx, s, a.Descriptor(), sampleBundle("x"), predicate, tag, created); !errors.Is(err, ErrNotFound) {
			t.Errorf("attached to what is not there: %v", err)
		}
		if _, err := PutBundle(ctx, s, a.Descriptor(), []byte("no bundle"), predicate, tag, created); !errors.Is(err, ErrInvalid) {
			t.Errorf("no bundle: %v", err)
		}
		for _, text := range []string{"first", "second"} { // a later one takes the tag
			d, err := PutBundle(ctx, s, a.Descriptor(), sampleBundle(text), predicate, tag, created)
			if err != nil {
				t.Fatal(err)
			}
			found, err := Bundles(ctx, s, a.Digest, tag)
			if err != nil || len(found.Bundles) == 0 || found.Bundles[0].Manifest != d.Digest || !bytes.Equal(found.Bundles[0].Data, sampleBundle(text)) {
				t.Errorf("got %+v, %v", found, err)
			}
		}
		other := canon.Sum([]byte("another release"))
		if found, err := Bundles(ctx, s, other, tag); err != nil || len(found.Bundles) != 0 {
			t.Errorf("about another release: %+v, %v", found, err)
		}
	})
}

// The form is that of cosign 3: another would not be found by its users.
func TestBundleManifestHasTheFormOfCosign(t *testing.T) {
	a := samplePack(t)
	s := newLayout(t)
	push(t, s, a)
	d := attach(t, s, a.Descriptor(), "x", "")
	b, err := s.Manifest(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	bundle := sampleBundle("x")
	want := fmt.Sprintf(`{"annotations":{"dev.sigstore.bundle.content":"dsse-envelope","dev.sigstore.bundle.predicateType":"https://slsa.dev/provenance/v1",`+
		`"org.opencontainers.image.created":"2026-01-15T00:02:03Z"},"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json",`+
		`"config":{"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",`+
		`"mediaType":"application/vnd.oci.empty.v1+json","size":2},"layers":[{"digest":"%s","mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","size":%d}],`+
		`"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2,`+
		`"subject":{"digest":"%s","mediaType":"application/vnd.oci.image.manifest.v1+json","size":%d}}`,
		canon.Sum(bundle), len(bundle), a.Digest, len(a.Manifest))
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	if err := ociManifest.checkJSON(t, b); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoBundleIsNotAttached(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	s := newLayout(t)
	push(t, s, a)
	for name, b := range map[string][]byte{
		"empty":       nil,
		"not JSON":    []byte("x"),
		"other type":  []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle+json;version=0.2"}`),
		"over a size": append(sampleBundle("x"), make([]byte, MaxBundle)...),
	} {
		if _, err := AttachBundle(ctx, s, a.Descriptor(), b, predicate, "", created); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if _, err := AttachBundle(ctx, s, Descriptor{Digest: canon.Sum(nil)}, sampleBundle("x"), predicate, "", created); !errors.Is(err, ErrNotFound) {
		t.Errorf("subject that is not there: %v, want ErrNotFound", err)
	}
}

// refer stores a manifest with the given text that refers to subject.
func refer(t testing.TB, s Store, layer Descriptor, subject Descriptor, artifactType string) {
	t.Helper()
	ctx := context.Background()
	if err := putBytes(ctx, s, describe(typeEmpty, []byte(emptyJSON), ""), []byte(emptyJSON)); err != nil {
		t.Fatal(err)
	}
	subject.ArtifactType = ""
	b, err := canon.Marshal(manifest{SchemaVersion: 2, MediaType: TypeManifest, ArtifactType: artifactType,
		Config: describe(typeEmpty, []byte(emptyJSON), ""), Layers: []Descriptor{layer}, Subject: &subject})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutManifest(ctx, b); err != nil {
		t.Fatal(err)
	}
}

func TestGarbageAmongTheReferrersDoesNotHideTheGoodOne(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	models := sampleModels()
	models[0].Data = []byte("other")
	rel := sampleRelease()
	rel.Number = 8
	other, err := Pack(rel, models)
	if err != nil {
		t.Fatal(err)
	}
	eachStore(t, func(t *testing.T, s Store) {
		push(t, s, a)
		push(t, s, other)
		junk := []byte("junk")
		if err := putBytes(ctx, s, describe(TypeBundle, junk, ""), junk); err != nil {
			t.Fatal(err)
		}
		refer(t, s, describe("text/html", junk, ""), a.Descriptor(), "text/html")
		refer(t, s, describe("text/plain", junk, ""), a.Descriptor(), TypeBundle)
		refer(t, s, describeAs(TypeBundle, canon.Sum(junk), MaxBundle+1, ""), a.Descriptor(), TypeBundle)
		refer(t, s, describeAs(TypeBundle, canon.Sum(junk), int64(len(junk))+1, ""), a.Descriptor(), TypeBundle)
		attach(t, s, other.Descriptor(), "about another release", "a-tag")
		attach(t, s, a.Descriptor(), "good", "")
		found, err := Bundles(ctx, s, a.Digest, "a-tag")
		if err != nil || len(found.Bundles) != 1 || !bytes.Equal(found.Bundles[0].Data, sampleBundle("good")) {
			t.Fatalf("got %+v, %v", found, err)
		}
		if len(found.Skipped) != 5 || !found.Complete {
			t.Errorf("%d skipped, complete %v: %q", len(found.Skipped), found.Complete, found.Skipped)
		}
		if len(found.Damaged) != 4 || strings.Contains(strings.Join(found.Damaged, " "), "text/html") {
			t.Errorf("damaged %q", found.Damaged)
		}
		for _, line := range found.Skipped {
			if !strings.HasPrefix(line, "sha256:") || strings.Contains(line, "\n") {
				t.Errorf("skipped %q", line)
			}
		}
	})
}

func TestFloodOfReferrersIsSaidAndDoesNotHideTheTag(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	eachStore(t, func(t *testing.T, s Store) {
		push(t, s, a)
		junk := []byte("junk")
		if err := putBytes(ctx, s, describe(TypeBundle, junk, ""), junk); err != nil {
			t.Fatal(err)
		}
		for i := range MaxReferrers + 1 {
			refer(t, s, describe(fmt.Sprintf("text/x-%d", i), junk, ""), a.Descriptor(), "text/html")
		}
		list, complete, err := s.Referrers(ctx, a.Digest)
		if err != nil || complete || len(list) != MaxReferrers {
			t.Fatalf("%d listed, complete %v, %v", len(list), complete, err)
		}
		attach(t, s, a.Descriptor(), "good", ProvenanceTag(a.Digest))
		found, err := Bundles(ctx, s, a.Digest, ProvenanceTag(a.Digest))
		if err != nil || found.Complete || len(found.Bundles) != 1 || found.Bundles[0].Tag == "" {
			t.Errorf("got %d bundles, complete %v, %v", len(found.Bundles), found.Complete, err)
		}
	})
}

func TestBundlesTogetherAreBounded(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	s := newLayout(t)
	push(t, s, a)
	for i := range MaxBundles/MaxBundle + 1 {
		b := sampleBundle(fmt.Sprint(i))
		b = append(b, bytes.Repeat([]byte(" "), MaxBundle-len(b))...)
		if _, err := AttachBundle(ctx, s, a.Descriptor(), b, predicate, "", created); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Bundles(ctx, s, a.Digest)
	if err != nil || found.Complete || len(found.Bundles) != MaxBundles/MaxBundle {
		t.Errorf("got %d bundles, complete %v, %v", len(found.Bundles), found.Complete, err)
	}
}

func TestConcurrentSignersDoNotLoseEachOther(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	eachStore(t, func(t *testing.T, s Store) {
		push(t, s, a)
		const n = 6
		errs := make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				_, errs[i] = AttachBundle(ctx, s, a.Descriptor(), sampleBundle(fmt.Sprint(i)), predicate, "", created)
			})
		}
		wg.Wait()
		found, err := Bundles(ctx, s, a.Digest)
		if err != nil {
			t.Fatal(err)
		}
		for i, err := range errs {
			if err != nil {
				t.Errorf("signer %d: %v", i, err)
			}
		}
		if len(found.Bundles) != n {
			t.Errorf("%d of %d bundles are listed", len(found.Bundles), n)
		}
	})
}
