package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

const path = "github.com/battle-hardened-ai/bhtrain"

// repository is a module in a Git repository: with files that a module zip
// leaves out.
func repository(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		testkit.Missing(t, "no git command")
	}
	for _, kv := range [][2]string{{"GIT_CONFIG_GLOBAL", os.DevNull}, {"GIT_CONFIG_SYSTEM", os.DevNull},
		{"GIT_AUTHOR_NAME", "a"}, {"GIT_AUTHOR_EMAIL", "a@example.org"}, {"GIT_COMMITTER_NAME", "a"}, {"GIT_COMMITTER_EMAIL", "a@example.org"}} {
		t.Setenv(kv[0], kv[1])
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module " + path + "\n\ngo 1.26\n", "a.go": "package a\n", "LICENSE": "free\n", "docs/x.md": "x\n",
		"inner/go.mod": "module " + path + "/inner\n", "inner/b.go": "package b\n", "vendor/v/v.go": "package v\n",
		".gitignore": "ignored\n", "sub/ünïcode.txt": "ü\n",
	} {
		write(t, dir, name, text)
	}
	must(t, dir, "git", "init", "-q", "-b", "main")
	must(t, dir, "git", "add", "-A")
	must(t, dir, "git", "commit", "-q", "-m", "one")
	write(t, dir, "ignored", "not in the tree\n")
	return dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, dir string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// The sum is the one that the go command itself computes of a module that it
// gets from a proxy, and that of the files unpacked.
func TestSumOfATreeIsThatOfTheModuleProxy(t *testing.T) {
	dir := repository(t)
	must(t, dir, "git", "tag", "v0.3.1")
	s, err := sumOf(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if s.Path != path || s.Version != "v0.3.1" || s.Commit != must(t, dir, "git", "rev-parse", "HEAD") || !strings.HasPrefix(s.H1, "h1:") {
		t.Fatalf("%+v", s)
	}
	m := module.Version{Path: path, Version: s.Version}

	proxy := t.TempDir()
	at := func(ext string) string { return path + "/@v/" + s.Version + ext }
	write(t, proxy, at(".info"), `{"Version":"`+s.Version+`"}`)
	write(t, proxy, at(".mod"), "module "+path+"\n\ngo 1.26\n")
	f, err := os.Create(filepath.Join(proxy, filepath.FromSlash(at(".zip"))))
	if err != nil {
		t.Fatal(err)
	}
	if err := zip.CreateFromVCS(f, m, dir, "HEAD", ""); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	slashed := filepath.ToSlash(proxy)
	if runtime.GOOS == "windows" {
		slashed = "/" + slashed
	}
	for _, kv := range [][2]string{{"GOPROXY", "file://" + slashed}, {"GONOSUMDB", "*"}, {"GOFLAGS", "-modcacherw"}, {"GOMODCACHE", t.TempDir()}, {"GOWORK", "off"}} {
		t.Setenv(kv[0], kv[1])
	}
	var got struct{ Sum, Dir string }
	if err := json.Unmarshal([]byte(must(t, t.TempDir(), "go", "mod", "download", "-json", path+"@"+s.Version)), &got); err != nil {
		t.Fatal(err)
	}
	if got.Sum != s.H1 {
		t.Errorf("the go command says %s, we %s", got.Sum, s.H1)
	}
	unpacked, err := sumOf(got.Dir, s.Version)
	if err != nil || unpacked.H1 != s.H1 || unpacked.Commit != "unknown" {
		t.Errorf("unpacked: %+v, %v", unpacked, err)
	}
	for name, change := range map[string]func(string){
		"another byte": func(d string) { write(t, d, "a.go", "package a //\n") },
		"another file": func(d string) { write(t, d, "c.go", "package a\n") },
	} {
		copied := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(copied, os.DirFS(got.Dir)); err != nil {
			t.Fatal(err)
		}
		must(t, copied, "chmod", "-R", "u+w", ".")
		change(copied)
		if other, err := sumOf(copied, s.Version); err != nil || other.H1 == s.H1 {
			t.Errorf("%s: %+v, %v", name, other, err)
		}
	}
	if other, err := sumOf(dir, "v0.3.2"); err != nil || other.H1 == s.H1 {
		t.Errorf("the sum of another version is the same: %+v, %v", other, err)
	}
}

func TestVersionOfACommitIsWhatTheGoCommandStamps(t *testing.T) {
	dir := repository(t)
	write(t, dir, "main/main.go", "package main\n\nfunc main() {}\n")
	must(t, dir, "git", "add", "-A")
	must(t, dir, "git", "commit", "-q", "-m", "two")
	t.Setenv("GOFLAGS", "-buildvcs=true -mod=mod")
	stamped := func() string {
		out := filepath.Join(t.TempDir(), "main")
		must(t, dir, "go", "build", "-o", out, "./main")
		for line := range strings.Lines(must(t, dir, "go", "version", "-m", out)) {
			if f := strings.Fields(line); len(f) > 2 && f[0] == "mod" {
				return f[2]
			}
		}
		return ""
	}
	check := func(what string) {
		t.Helper()
		s, err := sumOf(dir, "")
		if want := stamped(); err != nil || s.Version != want {
			t.Errorf("%s: version %q, %v; the go command says %q", what, s.Version, err, want)
		}
	}
	check("no tag")
	must(t, dir, "git", "tag", "v0.3.1")
	must(t, dir, "git", "tag", "not-a-version")
	must(t, dir, "git", "tag", "v2.0.0")
	check("a tag")
	write(t, dir, "a.go", "package a // more\n")
	must(t, dir, "git", "commit", "-q", "-a", "-m", "three")
	check("after a tag")
	must(t, dir, "git", "tag", "v0.4.0-rc.1")
	write(t, dir, "a.go", "package a // even more\n")
	must(t, dir, "git", "commit", "-q", "-a", "-m", "four")
	check("after a tag of a candidate")
}

func TestTreeThatNoSumNamesIsRefused(t *testing.T) {
	dir := repository(t)
	write(t, dir, "a.go", "package changed\n")
	if _, err := sumOf(dir, ""); err == nil || !strings.Contains(err.Error(), "not committed") {
		t.Errorf("changed file: %v", err)
	}
	must(t, dir, "git", "checkout", "-q", "a.go")
	// What is built in counts, also what Git ignores and what other systems build.
	for name, text := range map[string]string{
		"new.go": "package a\n", "only_plan9.go": "package a\n", "deeper/new.go": "package deeper\n", "code.s": "\n",
		"sub/ignored/x.go": "package x\n", "go.work": "go 1.26\n\nuse .\n", "vendor/modules.txt": "", "page/index.html": "x\n",
	} {
		if name == "page/index.html" {
			write(t, dir, "a.go", "package a\n\nimport _ \"embed\"\n\n//go:embed page\nvar page string\n")
			must(t, dir, "git", "commit", "-q", "-a", "-m", "page")
		}
		write(t, dir, name, text)
		if _, err := sumOf(dir, ""); err == nil || !strings.Contains(err.Error(), "\n"+name) || !strings.Contains(err.Error(), "not committed") {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			t.Fatal(err)
		}
	}
	// What is not, does not: a release, keys, policies.
	clean, err := sumOf(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"policy.yaml", "signing.key", "dist/index.json", "dist/blobs/sha256/00", "docs/other.md", "inner/c.go"} {
		write(t, dir, name, "package x\n")
	}
	if s, err := sumOf(dir, ""); err != nil || s != clean {
		t.Errorf("%+v, %v; clean: %+v", s, err, clean)
	}
	bare := t.TempDir()
	write(t, bare, "go.mod", "module "+path+"\n")
	if _, err := sumOf(bare, ""); err == nil || !strings.Contains(err.Error(), "-version") {
		t.Errorf("no version: %v", err)
	}
	if _, err := sumOf(t.TempDir(), "v1.0.0"); err == nil {
		t.Error("no module at all")
	}
	if _, err := hashZip(func(io.Writer) error { return os.ErrInvalid }); err == nil {
		t.Error("a zip that cannot be made has a sum")
	}
}

func TestBuiltProgramCarriesWhatLdflagsSay(t *testing.T) {
	if testing.Short() {
		t.Skip("links a program")
	}
	s := source{Path: path, Version: "v1.2.3", Commit: strings.Repeat("a", 40), H1: "h1:" + strings.Repeat("A", 43) + "="}
	build := func(flags ...string) map[string]string {
		out := filepath.Join(t.TempDir(), "bhtrain")
		must(t, testkit.Root(t), "go", append(append([]string{"build", "-buildvcs=false", "-o", out}, flags...), "./pipeline/bhtrain")...)
		var v map[string]string
		if err := json.Unmarshal([]byte(must(t, ".", out, "version", "--format", "json")), &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := build("-ldflags", s.ldflags()); v["version"] != s.Version || v["commit"] != s.Commit || v["digest"] != s.H1 {
		t.Errorf("built: %v", v)
	}
	if v := build(); v["commit"] != "unknown" || v["digest"] != "unknown" {
		t.Errorf("built without flags: %v", v)
	}
}
