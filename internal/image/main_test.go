package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// sums returns the digests of all files below dir.
func sums(t *testing.T, dir string) map[string]canon.Digest {
	t.Helper()
	out := map[string]canon.Digest{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		out[name] = canon.Sum(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestImageIsReadBackAndTheSameAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("builds")
	}
	dir := t.TempDir()
	opt := options{out: filepath.Join(dir, "a"), arch: []string{runtime.GOARCH}, ca: []byte("authorities\n"), tag: "latest"}
	digest, err := build(opt)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := build(opt); err == nil || !strings.Contains(err.Error(), "is there") {
		t.Errorf("over another: %v", err)
	}
	opt.out = filepath.Join(dir, "b")
	again, err := build(opt)
	if err != nil {
		t.Fatal(err)
	}
	a, b := sums(t, filepath.Join(dir, "a")), sums(t, opt.out)
	if again != digest || len(a) != len(b) || len(a) < 6 {
		t.Errorf("%s, then %s; %d and %d files", digest, again, len(a), len(b))
	}
	for name, d := range a {
		if b[name] != d {
			t.Errorf("%s differs", name)
		}
	}

	root, err := layout.ImageIndexFromPath(opt.out)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(root); err != nil {
		t.Error(err)
	}
	index, err := root.ImageIndex(digest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil || len(m.Manifests) != 1 || m.Manifests[0].Platform == nil || m.Manifests[0].Platform.Architecture != runtime.GOARCH {
		t.Fatalf("%+v, %v", m, err)
	}
	image, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	c, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.Config.User != "65532:65532" || c.Config.Entrypoint[0] != "/usr/local/bin/bhagent" || c.OS != "linux" || c.Architecture != runtime.GOARCH {
		t.Errorf("%+v", c)
	}
	files := unpack(t, image)
	if string(files["etc/ssl/certs/ca-certificates.crt"]) != "authorities\n" || !strings.Contains(string(files["etc/passwd"]), "65532") {
		t.Error("etc is not as it should be")
	}
	binary := files[program]
	e, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is not linked statically")
		}
	}
	if runtime.GOOS == "linux" {
		path := filepath.Join(dir, "bhagent")
		if err := os.WriteFile(path, binary, 0o700); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(path, "version").CombinedOutput(); err != nil || !strings.Contains(string(out), "bhagent") {
			t.Errorf("%v\n%s", err, out)
		}
	}
	opt.out, opt.arch = filepath.Join(dir, "c"), []string{"nosuch"}
	if _, err := build(opt); err == nil {
		t.Error("an architecture that does not exist")
	}
	if _, err := os.Lstat(opt.out); err == nil {
		t.Error("a build that failed leaves something")
	}
}

// unpack returns the files of an image of one layer, and looks at what the
// archive says of each.
func unpack(t *testing.T, image v1.Image) map[string][]byte {
	t.Helper()
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatal(len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	files := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
		owner := 0
		if strings.TrimSuffix(h.Name, "/") == state {
			owner = user
		}
		if h.Uid != owner || h.Gid != owner || h.Mode&0o022 != 0 || h.ModTime.Unix() != 0 || h.Uname != "" || h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
			t.Errorf("%+v", h)
		}
	}
}
