// Command modsum prints what names a source tree of this module: version,
// commit, and the h1 sum that go.sum files and the Go checksum database hold of
// it. Official builds carry the three, and provenance names them, so that anyone
// can tell which source trained a release:
//
//	flags=$(go run ./internal/modsum -ldflags) && go build -trimpath -ldflags "$flags" ./pipeline/bhtrain
//
// In a Git repository the committed tree at HEAD counts, packed as the module
// proxy packs it; changes that are not committed make it fail. Elsewhere, such
// as in a module unpacked from the proxy, the files count as they are, and
// -version says which version they are of: the sum depends on it.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/zip"
)

func main() {
	fs := flag.NewFlagSet("modsum", flag.ExitOnError)
	version := fs.String("version", "", "version of the module (default: of the Git repository's HEAD)")
	ldflags := fs.Bool("ldflags", false, "print flags for go build -ldflags")
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: modsum [-version V] [-ldflags] [DIR]")
		fs.PrintDefaults()
	}
	fs.Parse(os.Args[1:])
	dir := "."
	if fs.NArg() > 0 {
		dir = fs.Arg(0)
	}
	s, err := sumOf(dir, *version)
	if err == nil && fs.NArg() > 1 {
		err = errors.New("want one directory")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "modsum:", err)
		os.Exit(1)
	}
	if *ldflags {
		fmt.Println(s.ldflags())
		return
	}
	fmt.Printf("module %s\nversion %s\ncommit %s\ndigest %s\n", s.Path, s.Version, s.Commit, s.H1)
}

// source names a source tree.
type source struct {
	Path    string // of the module
	Version string // such as v1.2.3, or a pseudo-version
	Commit  string // 40 hex digits, "unknown" outside of a repository
	H1      string // golang.org/x/mod/sumdb/dirhash of the module's zip
}

func (s source) ldflags() string {
	const in = "github.com/battle-hardened-ai/bhtrain/internal/cli"
	return fmt.Sprintf("-X %s.version=%s -X %s.commit=%s -X %s.digest=%s", in, s.Version, in, s.Commit, in, s.H1)
}

// sumOf returns what names the tree in dir, the root of a module. version may
// be empty in a Git repository.
func sumOf(dir, version string) (source, error) {
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return source{}, err
	}
	s := source{Path: modfile.ModulePath(text), Version: version, Commit: "unknown"}
	_, err = os.Stat(filepath.Join(dir, ".git"))
	repository := err == nil
	if repository {
		changed, err := git(dir, "status", "--porcelain")
		if err != nil {
			return source{}, err
		}
		if changed != "" {
			return source{}, fmt.Errorf("%s has changes that are not committed, which no sum names: commit them or put them aside:\n%s", dir, changed)
		}
		if s.Commit, err = git(dir, "rev-parse", "HEAD"); err != nil {
			return source{}, err
		}
		if version == "" {
			if s.Version, err = versionOf(dir, s.Commit); err != nil {
				return source{}, err
			}
		}
	}
	if s.Version == "" {
		return source{}, fmt.Errorf("%s is no Git repository: name the version with -version", dir)
	}
	m := module.Version{Path: s.Path, Version: s.Version}
	s.H1, err = hashZip(func(w io.Writer) error {
		if repository {
			return zip.CreateFromVCS(w, m, dir, s.Commit, "")
		}
		return zip.CreateFromDir(w, m, dir)
	})
	return s, err
}

// hashZip is the h1 sum of the module zip that create writes.
func hashZip(create func(io.Writer) error) (string, error) {
	f, err := os.CreateTemp("", "modsum-*.zip")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	err = create(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	return dirhash.HashZip(f.Name(), dirhash.Hash1)
}

// versionOf is the version that the go command gives a commit: its semantic
// version tag, else a pseudo-version after the newest such tag before it.
func versionOf(dir, commit string) (string, error) {
	if tags, err := git(dir, "tag", "--points-at", commit); err != nil {
		return "", err
	} else if v := newest(tags); v != "" {
		return v, nil
	}
	older := ""
	if tags, err := git(dir, "tag", "--merged", commit); err == nil {
		older = newest(tags)
	}
	stamp, err := git(dir, "show", "-s", "--format=%ct", commit)
	if err != nil {
		return "", err
	}
	var seconds int64
	if _, err := fmt.Sscan(stamp, &seconds); err != nil {
		return "", fmt.Errorf("time of commit %s: %w", commit, err)
	}
	return module.PseudoVersion(semver.Major(older), older, time.Unix(seconds, 0).UTC(), commit[:12]), nil
}

// newest is the highest canonical semantic version among lines of tags, "" if
// there is none. Major versions from 2 on have another module path.
func newest(tags string) string {
	best := ""
	for _, v := range strings.Fields(tags) {
		if major := semver.Major(v); semver.Canonical(v) == v && (major == "v0" || major == "v1") && (best == "" || semver.Compare(v, best) > 0) {
			best = v
		}
	}
	return best
}

func git(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}
