package pipeline

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline/card"
)

// blob reads a blob of a layout directory.
func blob(t *testing.T, layout string, d canon.Digest) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(layout, "blobs", "sha256", d.Hex()))
	if err != nil {
		t.Fatal(err)
	}
	if canon.Sum(b) != d {
		t.Fatalf("blob %s has other bytes", d)
	}
	return b
}

func TestDocumentsAreAttachedAndMadeAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("trains")
	}
	ctx := context.Background()
	p := samplePlan(t)
	r, err := Run(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	types := []string{oras.TypeMarkdown, oras.TypeHTML, oras.TypeCycloneDX, oras.TypeJSONLD}
	if len(r.Documents) != len(types) {
		t.Fatalf("documents %+v", r.Documents)
	}
	mirror := filepath.Join(t.TempDir(), "mirror")
	pushed, err := Push(ctx, oras.Ref{Layout: p.Out}, oras.Ref{Layout: mirror}, oras.Options{})
	if err != nil || pushed.Referrers != len(types)+1 || len(pushed.Skipped) != 0 || !pushed.Complete {
		t.Fatalf("push: %+v, %v", pushed, err)
	}
	for _, place := range []string{p.Out, mirror} {
		store, err := oras.Open(ctx, oras.Ref{Layout: place}, oras.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var listed []string
		for _, subject := range []canon.Digest{r.Release, r.Artifact} {
			list, _, err := store.Referrers(ctx, subject)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range list {
				if d.ArtifactType == oras.TypeJSONLD != (subject == r.Artifact) {
					t.Errorf("%s refers to %s", d.ArtifactType, subject)
				}
				listed = append(listed, d.ArtifactType)
			}
		}
		for i, mediaType := range types {
			if !slices.Contains(listed, mediaType) {
				t.Errorf("%s: no %s among %q", place, mediaType, listed)
			}
			d, err := Document(ctx, oras.Ref{Layout: place, Tag: "release-1"}, mediaType, oras.Options{})
			if err != nil {
				t.Fatal(err)
			}
			want := r.Documents[i]
			if d.Type != mediaType || d.Name != want.Name || int64(len(d.Data)) != want.Size || !bytes.Equal(d.Data, blob(t, place, want.Digest)) {
				t.Errorf("%s: %s made again is not the one attached", place, want.Name)
			}
		}
	}

	if _, err := Document(ctx, oras.Ref{Layout: mirror}, "text/plain", oras.Options{}); err == nil {
		t.Error("a document of a type that there is not")
	}
	if _, err := Document(ctx, oras.Ref{Layout: mirror, Tag: "release-2"}, oras.TypeHTML, oras.Options{}); !errors.Is(err, oras.ErrNotFound) {
		t.Errorf("a release that is not there: %v, want ErrNotFound", err)
	}
	if _, err := Document(ctx, oras.Ref{Layout: mirror, Digest: r.Artifact}, oras.TypeHTML, oras.Options{}); !errors.Is(err, oras.ErrInvalid) {
		t.Errorf("the card of a dataset: %v, want ErrInvalid", err)
	}

	// Without the dataset there is a card, and no description of the dataset.
	src, err := oras.Open(ctx, oras.Ref{Layout: p.Out}, oras.Options{})
	if err != nil {
		t.Fatal(err)
	}
	lone := oras.Ref{Layout: filepath.Join(t.TempDir(), "lone"), Tag: "release-1"}
	dst, err := oras.Open(ctx, lone, oras.Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := oras.Copy(ctx, dst, src, r.Release, oras.CopyOptions{WithoutDataset: true}); err != nil {
		t.Fatal(err)
	}
	if d, err := Document(ctx, lone, oras.TypeMarkdown, oras.Options{}); err != nil || canon.Sum(d.Data) != r.Documents[0].Digest {
		t.Errorf("card without the dataset: %v", err)
	}
	if _, err := Document(ctx, lone, oras.TypeJSONLD, oras.Options{}); !errors.Is(err, oras.ErrNotFound) {
		t.Errorf("description of a dataset that is not there: %v, want ErrNotFound", err)
	}

	// One byte of any file of the release.
	for _, f := range r.Files {
		path := filepath.Join(mirror, "blobs", "sha256", f.Digest.Hex())
		whole := blob(t, mirror, f.Digest)
		broken := slices.Clone(whole)
		broken[len(broken)/2] ^= 1
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, broken, 0o644); err != nil {
			t.Fatal(err)
		}
		if d, err := Document(ctx, oras.Ref{Layout: mirror}, oras.TypeHTML, oras.Options{}); !errors.Is(err, oras.ErrInvalid) || len(d.Data) != 0 {
			t.Errorf("%s with a changed byte: %v, want ErrInvalid", f.Name, err)
		}
		if err := os.WriteFile(path, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	// A release that says other things than its models.
	a, err := oras.Pull(ctx, src, r.Release)
	if err != nil {
		t.Fatal(err)
	}
	rel := a.Release
	rel.Number, rel.Metrics = 9, bytes.Replace(rel.Metrics, []byte(`"recall_ppm":`), []byte(`"recall_ppm":1`), 1)
	if a, err = oras.Pack(rel, a.Models); err != nil {
		t.Fatal(err)
	}
	if err := oras.Push(ctx, dst, a); err != nil {
		t.Fatal(err)
	}
	lone.Tag = "release-9"
	if _, err := Document(ctx, lone, oras.TypeMarkdown, oras.Options{}); !errors.Is(err, card.ErrRelease) {
		t.Errorf("a release that contradicts itself: %v, want ErrRelease", err)
	}
}
