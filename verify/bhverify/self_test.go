package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

func TestDescribeSelf(t *testing.T) {
	official := cli.Build{Version: "v1.2.0", Commit: strings.Repeat("a", 40), Digest: "h1:x", Go: "go1.26.8", OS: "linux", Arch: "amd64"}
	unknown := cli.Build{Version: "unknown", Commit: "unknown", Digest: "unknown", Go: "go1.26.8", OS: "linux", Arch: "arm64"}
	installed := &debug.BuildInfo{Main: debug.Module{Version: "v1.2.0", Sum: "h1:x"}}
	local := &debug.BuildInfo{}
	set := func(info *debug.BuildInfo, kv ...string) *debug.BuildInfo {
		c := *info
		c.Settings = nil
		for i := 0; i < len(kv); i += 2 {
			c.Settings = append(c.Settings, debug.BuildSetting{Key: kv[i], Value: kv[i+1]})
		}
		return &c
	}
	for name, c := range map[string]struct {
		build    cli.Build
		info     *debug.BuildInfo
		problems int
		last     string // part of the command that builds
	}{
		"official":  {official, set(local, "-trimpath", "true", "CGO_ENABLED", "0", "GOAMD64", "v1"), 0, `GOTOOLCHAIN=go1.26.8 CGO_ENABLED=0 GOOS=linux GOARCH=amd64 GOAMD64=v1 go build -trimpath -buildvcs=false -ldflags "$flags"`},
		"installed": {official, set(installed, "-trimpath", "true", "CGO_ENABLED", "0"), 0, "go install -trimpath github.com/battle-hardened-ai/bhtrain/verify/bhverify@v1.2.0"},
		"commit":    {official, set(local, "-trimpath", "true", "CGO_ENABLED", "0", "vcs.revision", official.Commit), 0, `go build -trimpath -ldflags "$flags"`},
		"plain":     {unknown, set(local, "CGO_ENABLED", "1"), 3, "go build -trimpath -buildvcs=false -o"},
		"changed":   {official, set(local, "-trimpath", "true", "CGO_ENABLED", "0", "vcs.modified", "true"), 1, "go build"},
		"for tests": {official, set(local, "-trimpath", "true", "CGO_ENABLED", "0", "-race", "true"), 1, "go build"},
	} {
		got := describeSelf(c.build, c.info)
		if len(got.Problems) != c.problems || !strings.Contains(strings.Join(got.Rebuild, "\n"), c.last) {
			t.Errorf("%s: %q, %q", name, got.Problems, got.Rebuild)
		}
	}
}

// The commands are reproducible builds: two folders, the same bytes. The program
// says what it is, and a changed one is another.
func TestTwoBuildsAreIdentical(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the commands twice")
	}
	if _, err := exec.LookPath("go"); err != nil {
		testkit.Missing(t, "no go command")
	}
	root := testkit.Root(t)
	if err := testkit.DependOnSources(root); err != nil {
		t.Fatal(err)
	}
	built := map[string][]canon.Digest{}
	var program string
	for _, name := range []string{"one", "another place"} {
		tree := filepath.Join(t.TempDir(), name)
		copyTree(t, tree, root)
		for _, command := range []string{"verify/bhverify", "agent/bhagent", "pipeline/bhtrain"} {
			program = filepath.Join(tree, "out", filepath.Base(command))
			cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, "./"+command)
			cmd.Dir = tree
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOAMD64=v1", "GOFLAGS=")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			d, err := digestOf(program)
			if err != nil {
				t.Fatal(err)
			}
			built[command] = append(built[command], d)
		}
	}
	for command, digests := range built {
		if digests[0] != digests[1] {
			t.Errorf("%s: %v", command, digests)
		}
	}

	bhverify := filepath.Join(filepath.Dir(program), "bhverify")
	ask := func(code int, args ...string) []byte {
		t.Helper()
		cmd := exec.Command(bhverify, append([]string{"self"}, args...)...)
		out, _ := cmd.Output()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("self %q: exit code %d, want %d\n%s", args, got, code, out)
		}
		return out
	}
	own := built["verify/bhverify"][0]
	var r self
	if err := json.Unmarshal(ask(0, "--digest", own.String(), "--format", "json"), &r); err != nil || r.Digest != own || r.Same == nil || !*r.Same {
		t.Errorf("%+v, %v", r, err)
	}
	if out := ask(0); !bytes.Contains(out, []byte("Compared with nothing")) {
		t.Errorf("%s", out)
	}
	if out := ask(4, "--digest", canon.Sum(nil).String()); !bytes.Contains(out, []byte("ANOTHER than "+canon.Sum(nil).String())) {
		t.Errorf("%s", out)
	}
	ask(2, "--digest", "x")
	ask(2, "argument")
	if runtime.GOOS != "linux" {
		return // a program with bytes behind it may not start elsewhere
	}
	f, err := os.OpenFile(bhverify, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	ask(4, "--digest", own.String())
}

// copyTree copies what a build needs of the module.
func copyTree(t *testing.T, to, from string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch name := d.Name(); {
		case d.IsDir() && rel != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o777)
		case !d.Type().IsRegular() || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, rel), b, 0o666)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
