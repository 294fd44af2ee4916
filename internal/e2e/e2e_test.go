// Package e2e holds tests of the three commands as a user has them: built
// binaries, real files, real servers. The long ones run when BH_E2E is set,
// as .ci/run does.
package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// bin is the directory of the built commands.
var bin string

func TestMain(m *testing.M) {
	if out := os.Getenv("BH_E2E_PEAK"); out != "" {
		os.Exit(launch(out, os.Args[1], os.Args[2:]...))
	}
	code := 1
	defer func() { os.Exit(code) }()
	dir, err := os.MkdirTemp("", "bhtrain-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer os.RemoveAll(dir)
	bin = dir
	build := exec.Command("go", "build", "-o", dir, "../../pipeline/bhtrain", "../../verify/bhverify", "../../agent/bhagent")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the commands: %v\n%s", err, out)
		return
	}
	code = m.Run()
}

// launch runs a command and writes its peak memory to a file. Linux counts what the
// parent had at the start of a process, so a test that holds much starts its
// commands through another process, which does not.
func launch(out, name string, args ...string) int {
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	if err := os.WriteFile(out, fmt.Append(nil, peakMemory(cmd.ProcessState)), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	return cmd.ProcessState.ExitCode()
}

// long skips a test that takes minutes unless it is asked for.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("BH_E2E") == "" {
		testkit.Missing(t, "takes minutes: set BH_E2E=1 to run it")
	}
}

// user is somebody at a shell: a home of their own and a working directory.
type user struct {
	t    testing.TB
	home string
	dir  string
	env  []string
	peak int64 // bytes of memory of the last command, where the system tells
}

// built says that a test runs the built commands, whose sources are
// inputs of it.
func built(t testing.TB) {
	t.Helper()
	if err := testkit.DependOnSources(testkit.Root(t)); err != nil {
		t.Fatal(err)
	}
}

func newUser(t testing.TB) *user {
	built(t)
	return &user{t: t, home: t.TempDir(), dir: t.TempDir()}
}

// result is what a command left behind.
type result struct {
	code     int
	out, err string
}

// run runs one of the built commands, or a tool by its path.
func (u *user) run(stdin []byte, name string, args ...string) result {
	u.t.Helper()
	path := name
	if !strings.ContainsRune(name, filepath.Separator) {
		path = filepath.Join(bin, name)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = u.dir
	cmd.Env = append(os.Environ(), "HOME="+u.home, "XDG_CONFIG_HOME="+filepath.Join(u.home, ".config"), "XDG_STATE_HOME=", "NO_COLOR=1")
	cmd.Env = append(cmd.Env, u.env...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		u.t.Fatalf("%s: %v", name, err)
	}
	u.peak = peakMemory(cmd.ProcessState)
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// must runs a command that has to succeed and returns its standard output.
func (u *user) must(name string, args ...string) string {
	u.t.Helper()
	r := u.run(nil, name, args...)
	if r.code != 0 {
		u.t.Fatalf("%s %s: exit code %d\n%s%s", name, strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// fails runs a command that has to end with the exit code and, if text is not
// empty, say it.
func (u *user) fails(code int, text, name string, args ...string) {
	u.t.Helper()
	r := u.run(nil, name, args...)
	if r.code != code || !strings.Contains(r.out+r.err, text) {
		u.t.Errorf("%s %s: exit code %d, want %d and %q\n%s%s", name, strings.Join(args, " "), r.code, code, text, r.out, r.err)
	}
}

// key is where a user's own public key lies.
func (u *user) key() string { return filepath.Join(u.home, ".config", "bhtrain", "signing.pub") }
