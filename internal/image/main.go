// Command image builds a container image of bhagent, an OCI image layout that
// podman, skopeo, crane and containerd read, without Docker and without a base
// image:
//
//	go run ./internal/image -o bhagent-image
//	go run ./internal/image -o bhagent-image -arch amd64,arm64 -ca /etc/ssl/certs/ca-certificates.crt
//
// It holds the program, linked statically, the user 65532 that it runs as, and
// what -ca names as the authorities that it believes about registries. The bytes
// follow from the source, the Go version, and the flags: whoever runs it again
// gets the same digests.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	user    = 65532 // nobody's number on the host, as in other images without a shell
	program = "usr/local/bin/bhagent"
	state   = "var/lib/bhagent"
)

// options say what to build.
type options struct {
	out     string
	arch    []string // as Go names them
	ca      []byte   // authorities in PEM; nil for none
	ldflags string
	tag     string
}

func main() {
	flags := flag.NewFlagSet("image", flag.ExitOnError)
	out := flags.String("o", "bhagent-image", "directory to make")
	arch := flags.String("arch", "amd64,arm64", "architectures, as Go names them")
	ca := flags.String("ca", "", "file with the certificate authorities to believe, in PEM (default: none; mount /etc/ssl/certs)")
	ldflags := flags.String("ldflags", "", "for go build, such as of internal/modsum")
	tag := flags.String("tag", "latest", "name of the image in the layout")
	flags.Parse(os.Args[1:])
	opt := options{out: *out, arch: strings.Split(*arch, ","), ldflags: *ldflags, tag: *tag}
	err := errors.New("unexpected arguments")
	if flags.NArg() == 0 {
		err = nil
	}
	if err == nil && *ca != "" {
		opt.ca, err = os.ReadFile(*ca)
	}
	if err == nil {
		var digest v1.Hash
		if digest, err = build(opt); err == nil {
			fmt.Printf("%s %s\n", opt.out, digest)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// build makes the layout and returns the digest of the image index in it.
func build(opt options) (digest v1.Hash, err error) {
	if _, err := os.Lstat(opt.out); !errors.Is(err, fs.ErrNotExist) {
		return v1.Hash{}, fmt.Errorf("%s is there: remove it, or name another", opt.out)
	}
	slices.Sort(opt.arch)
	tmp, err := os.MkdirTemp("", "image-")
	if err != nil {
		return v1.Hash{}, err
	}
	defer os.RemoveAll(tmp)
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range slices.Compact(opt.arch) {
		path := filepath.Join(tmp, "bhagent")
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", opt.ldflags, "-o", path, "github.com/battle-hardened-ai/bhtrain/agent/bhagent")
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		if text, err := cmd.CombinedOutput(); err != nil {
			return v1.Hash{}, fmt.Errorf("%s: go build: %w\n%s", arch, err, text)
		}
		binary, err := os.ReadFile(path)
		if err != nil {
			return v1.Hash{}, err
		}
		image, err := pack(arch, binary, opt.ca)
		if err != nil {
			return v1.Hash{}, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	p, err := layout.Write(opt.out, empty.Index)
	if err != nil {
		return v1.Hash{}, err
	}
	if err := p.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": opt.tag})); err != nil {
		return v1.Hash{}, err
	}
	return index.Digest()
}

// pack makes the image for one architecture.
func pack(arch string, binary, ca []byte) (v1.Image, error) {
	files, err := archive(binary, ca)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Config = v1.Config{
		User:       fmt.Sprintf("%d:%d", user, user),
		Entrypoint: []string{"/" + program},
		Cmd:        []string{"run", "--config", "/etc/bhagent/config.yaml", "--state", "/" + state},
		WorkingDir: "/" + state,
		Env:        []string{"PATH=/usr/local/bin", "HOME=/" + state},
		StopSignal: "SIGTERM",
		Labels: map[string]string{
			"org.opencontainers.image.title":  "bhagent",
			"org.opencontainers.image.source": "https://github.com/battle-hardened-ai/bhtrain",
		},
	}
	return mutate.ConfigFile(image, config)
}

// archive is the one layer: no time, no name and no number of who built it.
func archive(binary, ca []byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var err error
	put := func(name string, mode int64, owner int, data []byte) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Uid: owner, Gid: owner, Size: int64(len(data)), Format: tar.FormatUSTAR}
		if data == nil {
			h.Typeflag, h.Name = tar.TypeDir, name+"/"
		}
		if err == nil {
			err = w.WriteHeader(h)
		}
		if err == nil {
			_, err = w.Write(data)
		}
	}
	put("etc", 0o755, 0, nil)
	put("etc/bhagent", 0o755, 0, nil)
	put("etc/group", 0o644, 0, fmt.Appendf(nil, "bhagent:x:%d:\n", user))
	put("etc/passwd", 0o644, 0, fmt.Appendf(nil, "bhagent:x:%d:%d::/%s:/sbin/nologin\n", user, user, state))
	if ca != nil {
		put("etc/ssl", 0o755, 0, nil)
		put("etc/ssl/certs", 0o755, 0, nil)
		put("etc/ssl/certs/ca-certificates.crt", 0o644, 0, ca)
	}
	put("usr", 0o755, 0, nil)
	put("usr/local", 0o755, 0, nil)
	put("usr/local/bin", 0o755, 0, nil)
	put(program, 0o755, 0, binary)
	put("var", 0o755, 0, nil)
	put("var/lib", 0o755, 0, nil)
	put(state, 0o700, user, nil)
	if err == nil {
		err = w.Close()
	}
	return b.Bytes(), err
}
