package oras

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// realRegistry opens a new repository of the registry that internal/testbed starts.
func realRegistry(t *testing.T, name string) (Store, string) {
	t.Helper()
	host := os.Getenv("BH_REGISTRY")
	if host == "" {
		testkit.Missing(t, "no real registry (run under internal/testbed/run)")
	}
	repo := fmt.Sprintf("%s/%s/%s", host, name, strings.ToLower(filepath.Base(t.TempDir())+canon.Sum([]byte(t.TempDir())).Hex()[:12]))
	s, err := Open(context.Background(), Ref{Repository: repo}, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	return s, repo
}

// run runs a program of internal/testbed and returns its output.
func run(t *testing.T, name string, args ...string) ([]byte, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		testkit.Missing(t, name+" is not here (run under internal/testbed/run)")
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %q: %w: %s", name, args, err, stderr.Bytes())
	}
	return out, err
}

func mustRun(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := run(t, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// fill pushes release, dataset and a tagged bundle.
func fill(t *testing.T, s Store) (*Artifact, *Dataset, string) {
	t.Helper()
	a := samplePack(t)
	dir := sampleDataset(t, strings.Repeat("row ", 1<<18))
	d, err := PackDataset(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := PushDataset(context.Background(), s, d); err != nil {
		t.Fatal(err)
	}
	push(t, s, a)
	attach(t, s, a.Descriptor(), "x", ProvenanceTag(a.Digest))
	if err := s.Tag(context.Background(), TagLatest, a.Descriptor()); err != nil {
		t.Fatal(err)
	}
	return a, d, dir
}

func sameRelease(t *testing.T, dir string, a *Artifact) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Errorf("%d files, %v, want 5", len(entries), err)
	}
	for _, f := range append(a.Models[:4:4], File{ReleaseFile, a.ReleaseJSON}) {
		if b, err := os.ReadFile(filepath.Join(dir, f.Name)); err != nil || !bytes.Equal(b, f.Data) {
			t.Errorf("%s differs, %v", f.Name, err)
		}
	}
}

func TestOtherToolsPullWhatWePush(t *testing.T) {
	s, repo := realRegistry(t, "pushed")
	a, d, data := fill(t, s)

	dir := t.TempDir()
	mustRun(t, "oras", "pull", "--plain-http", "--output", dir, repo+"@"+a.Digest.String())
	sameRelease(t, dir, a)

	dir = t.TempDir()
	mustRun(t, "oras", "pull", "--plain-http", "--output", dir, repo+":"+DatasetTag(d.Snapshot))
	for _, name := range append([]string{SnapshotFile}, DatasetFiles[:]...) {
		want, _ := os.ReadFile(filepath.Join(data, name))
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("oras pull: dataset file %s differs, %v", name, err)
		}
	}

	if got := mustRun(t, "crane", "manifest", repo+":latest"); !bytes.Equal(bytes.TrimSuffix(got, []byte("\n")), a.Manifest) {
		t.Errorf("crane manifest: %s", got)
	}
	if got := strings.TrimSpace(string(mustRun(t, "crane", "digest", repo+":"+ReleaseTag(7)))); got != a.Digest.String() {
		t.Errorf("crane digest: %s, want %s", got, a.Digest)
	}
	dir = t.TempDir()
	for _, l := range releaseDescriptors(t, a) {
		b := mustRun(t, "crane", "blob", repo+"@"+l.Digest.String())
		if err := os.WriteFile(filepath.Join(dir, l.Annotations[annotationTitle]), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	sameRelease(t, dir, a)

	// The bundle is a referrer for oras, too.
	var tree struct {
		Referrers []struct {
			ArtifactType string `json:"artifactType"`
			Digest       string `json:"digest"`
		} `json:"referrers"`
	}
	out := mustRun(t, "oras", "discover", "--plain-http", "--format", "json", repo+"@"+a.Digest.String())
	if err := json.Unmarshal(out, &tree); err != nil || len(tree.Referrers) != 1 || tree.Referrers[0].ArtifactType != TypeBundle {
		t.Errorf("oras discover: %v %s", err, out)
	}

	// Their refusal of what is not there, and of bytes that are not ours.
	if _, err := run(t, "oras", "pull", "--plain-http", "--output", t.TempDir(), repo+"@"+canon.Sum(nil).String()); err == nil {
		t.Error("oras pulled a release that is not there")
	}
}

func releaseDescriptors(t *testing.T, a *Artifact) []Descriptor {
	t.Helper()
	m, err := checkRelease(a.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	return m.Layers
}

func TestWePullWhatOtherToolsCopied(t *testing.T) {
	ctx := context.Background()
	s, repo := realRegistry(t, "source")
	a, d, _ := fill(t, s)
	_, copied := realRegistry(t, "copied")
	mustRun(t, "oras", "cp", "--from-plain-http", "--to-plain-http", "--recursive", repo+":latest", copied+":latest")
	mustRun(t, "crane", "copy", repo+":"+DatasetTag(d.Snapshot), copied+":"+DatasetTag(d.Snapshot))
	layout := filepath.Join(t.TempDir(), "layout")
	mustRun(t, "oras", "cp", "--from-plain-http", "--to-oci-layout", "--recursive", repo+":latest", layout+":latest")

	pulled := filepath.Join(t.TempDir(), "layout")
	mustRun(t, "crane", "pull", "--format=oci", repo+":latest", pulled)
	s, err := Open(ctx, Ref{Layout: pulled}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Pull(ctx, s, a.Digest); err != nil {
		t.Errorf("layout written by crane: %v", err)
	}

	for _, ref := range []Ref{{Repository: copied}, {Layout: layout}} {
		s, err := Open(ctx, ref, Options{Anonymous: true})
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Resolve(ctx, ref.Name())
		if err != nil || r.Digest != a.Digest {
			t.Fatalf("%s: latest is %s, %v", ref, r.Digest, err)
		}
		if _, err := Pull(ctx, s, r.Digest); err != nil {
			t.Error(err)
		}
		found, err := Bundles(ctx, s, r.Digest)
		if err != nil || len(found.Bundles) != 1 || !found.Complete {
			t.Errorf("%s: %+v, %v", ref, found, err)
		}
	}
	c, err := Open(ctx, Ref{Repository: copied}, Options{Anonymous: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := PullDataset(ctx, c, DatasetTag(d.Snapshot), filepath.Join(t.TempDir(), "data")); err != nil {
		t.Error(err)
	}
}

func TestOtherToolsReadOurLayout(t *testing.T) {
	if os.Getenv("BH_REGISTRY") == "" {
		testkit.Missing(t, "no real registry (run under internal/testbed/run)")
	}
	s := newLayout(t)
	a, _, _ := fill(t, s)
	place := strings.TrimPrefix(s.String(), "oci-layout:")
	dir := t.TempDir()
	mustRun(t, "oras", "pull", "--oci-layout", "--output", dir, place+":latest")
	sameRelease(t, dir, a)
	out := mustRun(t, "oras", "discover", "--oci-layout", "--format", "json", place+":latest")
	if !bytes.Contains(out, []byte(TypeBundle)) {
		t.Errorf("oras discover finds no bundle: %s", out)
	}
}

// An artifact that general tools can make and that we refuse: the release with a
// sixth file, and with a changed one.
func TestReleaseMadeByAnotherToolIsRefused(t *testing.T) {
	ctx := context.Background()
	s, repo := realRegistry(t, "forged")
	a := samplePack(t)
	for name, change := range map[string]func(files []File) []File{
		"six files":    func(files []File) []File { return append(files, File{"extra.onnx", []byte("x")}) },
		"changed file": func(files []File) []File { files[1].Data = []byte("evil"); return files },
		"same files":   func(files []File) []File { return files },
	} {
		dir := t.TempDir()
		config := filepath.Join(dir, "config")
		files := change(append(slices.Clone(a.Models), File{ReleaseFile, a.ReleaseJSON}))
		args := []string{"push", "--plain-http", "--disable-path-validation", "--artifact-type", TypeRelease, "--config", config + ":" + typeModelConfig, repo + ":forged"}
		for _, f := range append(files, File{"config", a.Config}) {
			if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range files {
			mediaType := typeModel
			if f.Name == ReleaseFile {
				mediaType = typeReleaseJSON
			}
			args = append(args, filepath.Join(dir, f.Name)+":"+mediaType)
		}
		mustRun(t, "oras", args...)
		d, err := s.Resolve(ctx, "forged")
		if err != nil {
			t.Fatal(err)
		}
		if d.Digest == a.Digest {
			t.Fatalf("%s: oras made the very manifest", name)
		}
		if _, err := Pull(ctx, s, d.Digest); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// The same suite as on the stores in this process, where a real one may differ.
func TestRealRegistryBehavesAsTheOthers(t *testing.T) {
	ctx := context.Background()
	s, _ := realRegistry(t, "suite")
	a, d, _ := fill(t, s)
	if got, err := Pull(ctx, s, a.Digest); err != nil || got.Digest != a.Digest {
		t.Error(err)
	}
	for range 3 {
		attach(t, s, a.Descriptor(), "again", "")
	}
	attach(t, s, a.Descriptor(), "another", "")
	found, err := Bundles(ctx, s, a.Digest, ProvenanceTag(a.Digest))
	if err != nil || len(found.Bundles) != 3 || !found.Complete || len(found.Skipped) != 0 {
		t.Errorf("bundles: %+v, %v", found, err)
	}
	dst := newLayout(t)
	report, err := Copy(ctx, dst, s, a.Digest, CopyOptions{Tags: []string{TagLatest}})
	if err != nil || report.Referrers != 3 || !report.Complete {
		t.Errorf("copy: %+v, %v", report, err)
	}
	if _, err := PullDataset(ctx, s, DatasetTag(d.Snapshot), filepath.Join(t.TempDir(), "data")); err != nil {
		t.Error(err)
	}
	for _, f := range []func() error{
		func() error { _, err := s.Resolve(ctx, "not-there"); return err },
		func() error { _, err := Pull(ctx, s, canon.Sum(nil)); return err },
	} {
		if err := f(); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	}
	good := describe(typeModel, []byte("right"), "")
	if err := putBytes(ctx, s, good, []byte("wrong")); !errors.Is(err, ErrInvalid) {
		t.Errorf("wrong bytes: %v, want ErrInvalid", err)
	}
}

// A real registry answers who knows the manifest at a tag without sending it.
func TestRealRegistryTellsWhatIsKnown(t *testing.T) {
	ctx := context.Background()
	s, _ := realRegistry(t, "known")
	a := samplePack(t)
	push(t, s, a)
	b, err := s.(*remote).getManifest(ctx, ReleaseTag(7), a.Digest, MaxManifest)
	if err != nil || b != nil {
		t.Errorf("known: %d bytes, %v", len(b), err)
	}
	b, err = s.(*remote).getManifest(ctx, ReleaseTag(7), canon.Sum(b), MaxManifest)
	if err != nil || !bytes.Equal(b, a.Manifest) {
		t.Errorf("another known: %d bytes, %v", len(b), err)
	}
}
