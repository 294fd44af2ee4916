package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// TestScripts runs the txtar scripts: the tour of the README among them.
func TestScripts(t *testing.T) {
	built(t)
	testscript.Run(t, testscript.Params{
		Dir:  "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"fails": fails},
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Setenv("HOME", home)
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(home, ".config"))
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
			return os.MkdirAll(home, 0o700)
		},
	})
}

// fails is the script command "fails CODE COMMAND...": the command ends with that
// exit code and says why in one line on standard error that begins with its name.
func fails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || strconv.Itoa(exit.ExitCode()) != args[0] {
		ts.Fatalf("%s: %v, want exit code %s", args[1], err, args[0])
	}
	if said := ts.ReadFile("stderr"); !strings.HasPrefix(said, args[1]+": ") || strings.Index(said, "\n") != len(said)-1 {
		ts.Fatalf("%s does not say why in one line", args[1])
	}
}

// TestREADMEIsTheTour compares the commands that the README shows with those
// that the script runs.
func TestREADMEIsTheTour(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(testkit.Root(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/tour.txtar")
	if err != nil {
		t.Fatal(err)
	}
	_, tour, ok := strings.Cut(string(readme), "\n## Tour\n")
	if !ok {
		t.Fatal("README.md has no section Tour")
	}
	tour, _, _ = strings.Cut(tour, "\n## ")
	shown := commands(tour, `(?m)^\$ (.*)$`)
	run := commands(string(script), `(?m)^!? ?exec (.*)$`)
	if len(shown) < 6 {
		t.Fatalf("the tour shows %d commands, want at least 6", len(shown))
	}
	i := 0
	for _, c := range run {
		if i < len(shown) && c == shown[i] {
			i++
		}
	}
	if i < len(shown) {
		t.Errorf("README.md shows, and testdata/tour.txtar does not run in that place: %s", shown[i])
	}
}

// commands returns what the pattern finds, without redirections, which a
// script writes in another way.
func commands(text, pattern string) []string {
	var list []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		c, _, _ := strings.Cut(m[1], " < ")
		c = strings.ReplaceAll(c, "~/", "$HOME/")
		list = append(list, strings.TrimSpace(c))
	}
	return list
}
