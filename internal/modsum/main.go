// Command modsum prints what names a source tree of this module: version,
// commit, and the h1 sum that go.sum files and the Go checksum database hold of
// it. Official builds carry the three, and provenance names them, so that anyone
// can tell which source trained a release:
//
//	flags=$(go run ./internal/modsum -ldflags) && CGO_ENABLED=0 go build -trimpath -ldflags "$flags" ./pipeline/bhtrain
//
// In a Git repository the committed tree at HEAD counts, packed as the module
// proxy packs it; changes that are not committed, and other files that a build
// would use, make it fail. Elsewhere, such as in a module
// unpacked from the proxy, the files count as they are, and -version says which
// version they are of: the sum depends on it.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
		changed, err := git(dir, "status", "--porcelain", "--untracked-files=no")
		if err != nil {
			return source{}, err
		}
		if changed != "" {
			return source{}, fmt.Errorf("%s has changes that are not committed, which no sum names: commit them or put them aside ('git stash'):\n%s", dir, changed)
		}
		stray, err := strays(dir)
		if err != nil {
			return source{}, err
		}
		if len(stray) > 0 {
			return source{}, fmt.Errorf("%s has files that are not committed and would be built in, which no sum names: commit them or move them away:\n%s", dir, strings.Join(stray, "\n"))
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

// strays lists the files that a build would use, on some system, and that Git
// does not know: whatever else lies about, such as releases and keys, changes
// nothing that is built of the tree.
func strays(dir string) ([]string, error) {
	list, err := git(dir, "ls-files", "-z")
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, name := range strings.Split(list, "\x00") {
		known[name] = true
	}
	root, err := run(dir, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	packages, err := run(dir, "go", "list", "-e", "-json=Dir,GoFiles,CgoFiles,IgnoredGoFiles,IgnoredOtherFiles,CFiles,CXXFiles,MFiles,HFiles,FFiles,SFiles,SwigFiles,SwigCXXFiles,SysoFiles,EmbedFiles", "./...")
	if err != nil {
		return nil, err
	}
	var found []string
	look := func(name string) {
		if name = filepath.ToSlash(name); !known[name] {
			found = append(found, name)
		}
	}
	for _, name := range []string{"go.sum", "go.work", "vendor/modules.txt"} { // what else the go command heeds
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			look(name)
		}
	}
	for d := json.NewDecoder(strings.NewReader(packages)); ; {
		var p map[string]any
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		at, err := filepath.Rel(root, fmt.Sprint(p["Dir"]))
		if err != nil {
			return nil, err
		}
		for _, files := range p {
			files, _ := files.([]any)
			for _, name := range files {
				look(filepath.Join(at, fmt.Sprint(name)))
			}
		}
	}
	slices.Sort(found)
	return found, nil
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

func git(dir string, args ...string) (string, error) { return run(dir, "git", args...) }

// run returns what a program writes, without the white space around it.
func run(dir, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}
