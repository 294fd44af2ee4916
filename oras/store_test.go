package oras

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	inprocess "github.com/google/go-containerregistry/pkg/registry"
)

// testOptions write, without anyone's credentials and without long pauses.
var testOptions = Options{Write: true, Anonymous: true, pause: time.Millisecond}

// newRegistry is an in-process registry, with or without the referrers API.
func newRegistry(referrers bool) http.Handler {
	return inprocess.New(inprocess.Logger(log.New(io.Discard, "", 0)), inprocess.WithReferrersSupport(referrers))
}

// serve opens the repository models/web of a registry that h is.
func serve(t testing.TB, h http.Handler, opt Options) Store {
	t.Helper()
	s, err := tryServe(t, h, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryServe(t testing.TB, h http.Handler, opt Options) (Store, error) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return Open(context.Background(), Ref{Repository: strings.TrimPrefix(srv.URL, "http://") + "/models/web"}, opt)
}

func newLayout(t testing.TB) Store {
	t.Helper()
	s, err := Open(context.Background(), Ref{Layout: filepath.Join(t.TempDir(), "layout")}, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// eachStore runs f on every kind of store, each time an empty one.
func eachStore(t *testing.T, f func(t *testing.T, s Store)) {
	t.Run("layout", func(t *testing.T) { f(t, newLayout(t)) })
	t.Run("registry with referrers", func(t *testing.T) { f(t, serve(t, newRegistry(true), testOptions)) })
	t.Run("registry without referrers", func(t *testing.T) { f(t, serve(t, newRegistry(false), testOptions)) })
}

func push(t testing.TB, s Store, a *Artifact) {
	t.Helper()
	if err := Push(context.Background(), s, a); err != nil {
		t.Fatal(err)
	}
}

func TestReleaseGoesInAndComesOutTheSame(t *testing.T) {
	ctx := context.Background()
	want := samplePack(t)
	eachStore(t, func(t *testing.T, s Store) {
		push(t, s, want)
		push(t, s, want) // a second time changes nothing
		d, err := s.Resolve(ctx, ReleaseTag(7))
		if err != nil || d.Digest != want.Digest || d.ArtifactType != TypeRelease {
			t.Fatalf("tag: %+v, %v", d, err)
		}
		if by, err := s.Resolve(ctx, want.Digest.String()); err != nil || by.Digest != d.Digest || by.Size != d.Size || by.MediaType != d.MediaType {
			t.Errorf("by digest: %+v, %v", by, err)
		}
		got, err := Pull(ctx, s, d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want.Models {
			if got.Models[i].Name != want.Models[i].Name || !bytes.Equal(got.Models[i].Data, want.Models[i].Data) {
				t.Errorf("model %d differs", i)
			}
		}
		if !bytes.Equal(got.ReleaseJSON, want.ReleaseJSON) || !bytes.Equal(got.Manifest, want.Manifest) || got.Release.Number != 7 {
			t.Error("release.json or manifest differ")
		}
	})
}

func TestReleaseNumberIsUsedOnce(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	models := sampleModels()
	models[0].Data = []byte("other")
	b, err := Pack(sampleRelease(), models)
	if err != nil {
		t.Fatal(err)
	}
	eachStore(t, func(t *testing.T, s Store) {
		push(t, s, a)
		if err := Push(ctx, s, b); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "raise the release number") {
			t.Errorf("got %v, want ErrExists with a remedy", err)
		}
		if _, err := s.Manifest(ctx, Descriptor{Digest: b.Digest}); !errors.Is(err, ErrNotFound) {
			t.Errorf("refused release is in the store: %v", err)
		}
	})
}

func TestWhatIsNotThereIsNotFound(t *testing.T) {
	ctx := context.Background()
	d := canon.Sum([]byte("nothing"))
	eachStore(t, func(t *testing.T, s Store) {
		for what, f := range map[string]func() error{
			"tag":      func() error { _, err := s.Resolve(ctx, "latest"); return err },
			"digest":   func() error { _, err := s.Resolve(ctx, d.String()); return err },
			"manifest": func() error { _, err := s.Manifest(ctx, Descriptor{Digest: d}); return err },
			"blob":     func() error { _, err := readBlob(ctx, s, Descriptor{Digest: d, Size: 7}, 10); return err },
			"release":  func() error { _, err := Pull(ctx, s, d); return err },
			"dataset":  func() error { _, err := PullDataset(ctx, s, DatasetTag(d), t.TempDir()); return err },
			"to tag":   func() error { return s.Tag(ctx, "x", Descriptor{Digest: d}) },
		} {
			err := f()
			if !errors.Is(err, ErrNotFound) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), strings.TrimPrefix(s.String(), "oci-layout:")) {
				t.Errorf("%s: got %v, want ErrNotFound on one line with the place", what, err)
			}
		}
		list, complete, err := s.Referrers(ctx, d)
		if len(list) != 0 || !complete || err != nil {
			t.Errorf("referrers: %v, %v, %v", list, complete, err)
		}
		found, err := Bundles(ctx, s, d, ProvenanceTag(d))
		if err != nil || len(found.Bundles) != 0 || !found.Complete {
			t.Errorf("bundles: %+v, %v", found, err)
		}
	})
}

func TestNamesThatAreNoTagsAreRefused(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	eachStore(t, func(t *testing.T, s Store) {
		push(t, s, a)
		for _, tag := range []string{"", "a/b", "../x", "a b", long(129), "a\n"} {
			if err := s.Tag(ctx, tag, a.Descriptor()); !errors.Is(err, ErrInvalid) {
				t.Errorf("tag %q: %v, want ErrInvalid", tag, err)
			}
		}
		if _, err := s.Resolve(ctx, "sha256:00"); !errors.Is(err, ErrInvalid) {
			t.Errorf("short digest: %v, want ErrInvalid", err)
		}
	})
}

func TestBlobThatDoesNotFitIsNotStored(t *testing.T) {
	ctx := context.Background()
	eachStore(t, func(t *testing.T, s Store) {
		good := describe(typeModel, []byte("right"), "")
		for _, text := range []string{"wrong", "righ", "right!"} {
			if err := putBytes(ctx, s, good, []byte(text)); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v, want ErrInvalid", text, err)
			}
			// Of the last, a registry may have kept the part that fits.
			if _, err := readBlob(ctx, s, good, 10); !errors.Is(err, ErrNotFound) && text != "right!" {
				t.Errorf("%s is in the store: %v", text, err)
			}
		}
		if err := putBytes(ctx, s, good, []byte("right")); err != nil {
			t.Fatal(err)
		}
		if b, err := readBlob(ctx, s, good, 10); err != nil || string(b) != "right" {
			t.Errorf("got %q, %v", b, err)
		}
	})
}

func TestDatasetGoesInAndComesOutTheSame(t *testing.T) {
	ctx := context.Background()
	dir := sampleDataset(t, strings.Repeat("row ", 1<<18))
	d, err := PackDataset(dir)
	if err != nil {
		t.Fatal(err)
	}
	eachStore(t, func(t *testing.T, s Store) {
		m, err := PushDataset(ctx, s, d)
		if err != nil || m.Digest != d.Digest {
			t.Fatalf("got %+v, %v, want digest %s", m, err, d.Digest)
		}
		for _, name := range []string{DatasetTag(d.Snapshot), d.Digest.String()} {
			out := filepath.Join(t.TempDir(), "data")
			got, err := PullDataset(ctx, s, name, out)
			if err != nil || got != d.Snapshot {
				t.Fatalf("got %s, %v, want %s", got, err, d.Snapshot)
			}
			for _, name := range append([]string{SnapshotFile}, DatasetFiles[:]...) {
				want, _ := os.ReadFile(filepath.Join(dir, name))
				if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s differs, %v", name, err)
				}
			}
			if _, err := PullDataset(ctx, s, name, out); !errors.Is(err, ErrExists) {
				t.Errorf("into a full directory: %v, want ErrExists", err)
			}
		}
	})
}

func TestDatasetOfOtherEncodingStaysWhereItIs(t *testing.T) {
	ctx := context.Background()
	first, err := PackDataset(sampleDataset(t, "records"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := PackDataset(sampleDataset(t, "records by another encoder"))
	if err != nil {
		t.Fatal(err)
	}
	eachStore(t, func(t *testing.T, s Store) {
		if _, err := PushDataset(ctx, s, first); err != nil {
			t.Fatal(err)
		}
		if m, err := PushDataset(ctx, s, second); err != nil || m.Digest != first.Digest {
			t.Errorf("got %s, %v, want %s", m.Digest, err, first.Digest)
		}
	})
}

func TestDatasetTagMustLeadToThatDataset(t *testing.T) {
	ctx := context.Background()
	d, err := PackDataset(sampleDataset(t, "records"))
	if err != nil {
		t.Fatal(err)
	}
	eachStore(t, func(t *testing.T, s Store) {
		m, err := PushDataset(ctx, s, d)
		if err != nil {
			t.Fatal(err)
		}
		other := DatasetTag(canon.Sum([]byte("another dataset")))
		if err := s.Tag(ctx, other, m); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "data")
		if _, err := PullDataset(ctx, s, other, out); !errors.Is(err, ErrInvalid) {
			t.Errorf("got %v, want ErrInvalid", err)
		}
		if _, err := os.Stat(out); !os.IsNotExist(err) {
			t.Errorf("directory was made: %v", err)
		}
	})
}

func TestRightsAndPlacesAreSaidPlainly(t *testing.T) {
	ctx := context.Background()
	if _, err := Open(ctx, Ref{}, Options{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("empty reference: %v", err)
	}
	// Nothing listens on a port that was just given back.
	srv := httptest.NewServer(nil)
	host := strings.TrimPrefix(srv.URL, "http://")
	srv.Close()
	_, err := Open(ctx, Ref{Repository: host + "/web"}, testOptions)
	if !errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), host) {
		t.Errorf("closed port: %v, want ErrUnreachable with the place", err)
	}
	for status, want := range map[int]error{401: ErrRefused, 403: ErrRefused, 400: ErrRefused, 500: ErrUnreachable, 503: ErrUnreachable, 429: ErrUnreachable} {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"errors":[{"code":"X","message":"line one\nline two \u001b[31m"}]}`)
		})
		_, err := serve(t, h, testOptions).Resolve(ctx, "latest")
		if !errors.Is(err, want) || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("status %d: %v, want %v on one clean line", status, err, want)
		}
	}
}

func TestCopyTakesEverythingAlong(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	data, err := PackDataset(sampleDataset(t, "records"))
	if err != nil {
		t.Fatal(err)
	}
	fill := func(t *testing.T, s Store) {
		m, err := PushDataset(ctx, s, data)
		if err != nil {
			t.Fatal(err)
		}
		push(t, s, a)
		attach(t, s, a.Descriptor(), "provenance", ProvenanceTag(a.Digest))
		attach(t, s, a.Descriptor(), "an auditor", "")
		attach(t, s, m, "dataset", DatasetStatementTag(m.Digest))
	}
	stores := map[string]func(testing.TB) Store{
		"layout":            newLayout,
		"registry native":   func(t testing.TB) Store { return serve(t, newRegistry(true), testOptions) },
		"registry fallback": func(t testing.TB) Store { return serve(t, newRegistry(false), testOptions) },
	}
	for from, newSrc := range stores {
		for to, newDst := range stores {
			t.Run(from+" to "+to, func(t *testing.T) {
				src, dst := newSrc(t), newDst(t)
				fill(t, src)
				report, err := Copy(ctx, dst, src, a.Digest, CopyOptions{Tags: []string{TagLatest}})
				if err != nil || report.Referrers != 3 || len(report.Skipped) != 0 || !report.Complete {
					t.Fatalf("got %+v, %v", report, err)
				}
				for _, tag := range []string{TagLatest, ReleaseTag(7)} {
					if d, err := dst.Resolve(ctx, tag); err != nil || d.Digest != a.Digest {
						t.Errorf("tag %s: %+v, %v", tag, d, err)
					}
				}
				found, err := Bundles(ctx, dst, a.Digest, ProvenanceTag(a.Digest))
				if err != nil || len(found.Bundles) != 2 || found.Bundles[0].Tag == "" {
					t.Errorf("bundles of the release: %+v, %v", found, err)
				}
				found, err = Bundles(ctx, dst, data.Digest, DatasetStatementTag(data.Digest))
				if err != nil || len(found.Bundles) != 1 || found.Bundles[0].Tag == "" {
					t.Errorf("bundles of the dataset: %+v, %v", found, err)
				}
				if _, err := PullDataset(ctx, dst, DatasetTag(data.Snapshot), filepath.Join(t.TempDir(), "d")); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestCopyWithoutItsDataset(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	src := newLayout(t)
	push(t, src, a)
	dst := newLayout(t)
	if _, err := Copy(ctx, dst, src, a.Digest, CopyOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("dataset missing in the source: %v, want ErrNotFound", err)
	}
	if _, err := dst.Resolve(ctx, ReleaseTag(7)); !errors.Is(err, ErrNotFound) {
		t.Errorf("release was copied all the same: %v", err)
	}
	if _, err := Copy(ctx, dst, src, a.Digest, CopyOptions{WithoutDataset: true}); err != nil {
		t.Error(err)
	}
}

func TestCopyLeavesBadReferrersBehind(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	src := newLayout(t)
	push(t, src, a)
	junk := []byte("junk")
	if err := putBytes(ctx, src, describe("text/html", junk, ""), junk); err != nil {
		t.Fatal(err)
	}
	refer(t, src, describe("text/html", junk, ""), a.Descriptor(), "text/html") // a card: taken along
	refer(t, src, describeAs("text/html", canon.Sum([]byte("gone")), 4, ""), a.Descriptor(), "text/html")
	refer(t, src, describeAs("text/html", canon.Sum(junk), MaxCopyBlob+1, ""), a.Descriptor(), "text/html")
	good := attach(t, src, a.Descriptor(), "good", "")
	eachStore(t, func(t *testing.T, dst Store) {
		report, err := Copy(ctx, dst, src, a.Digest, CopyOptions{WithoutDataset: true})
		if err != nil || report.Referrers != 2 || len(report.Skipped) != 2 {
			t.Fatalf("got %+v, %v", report, err)
		}
		found, err := Bundles(ctx, dst, a.Digest)
		if err != nil || len(found.Bundles) != 1 || found.Bundles[0].Manifest != good.Digest {
			t.Errorf("bundles: %+v, %v", found, err)
		}
	})

	// What the tag of the statement stands for is not left behind in silence.
	if err := src.Tag(ctx, ProvenanceTag(a.Digest), a.Descriptor()); err != nil {
		t.Fatal(err)
	}
	eachStore(t, func(t *testing.T, dst Store) {
		_, err := Copy(ctx, dst, src, a.Digest, CopyOptions{WithoutDataset: true, Tags: []string{TagLatest}})
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("a tag that leads to no referrer of this release: %v", err)
		}
		for _, tag := range []string{ProvenanceTag(a.Digest), TagLatest} {
			if _, err := dst.Resolve(ctx, tag); !errors.Is(err, ErrNotFound) {
				t.Errorf("the tag %s was set: %v", tag, err)
			}
		}
	})
	if report, err := Copy(ctx, newLayout(t), src, canon.Sum(nil), CopyOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("release that is not there: %+v, %v", report, err)
	}
}
