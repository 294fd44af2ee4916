package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// TestScripts runs the txtar scripts: the tour of the README among them.
func TestScripts(t *testing.T) {
	built(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Setenv("HOME", home)
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(home, ".config"))
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
			return os.MkdirAll(home, 0o700)
		},
	})
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
