package arch_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// workflow is what a GitHub Actions workflow says about rights.
type workflow struct {
	On          yaml.Node
	Permissions yaml.Node
	Concurrency struct {
		Cancel string `yaml:"cancel-in-progress"`
	}
	Jobs map[string]struct {
		If          string
		Permissions *map[string]string
		Minutes     int `yaml:"timeout-minutes"`
		Secrets     yaml.Node
		Uses        string
		Steps       []struct {
			Uses string
			Run  string
			With map[string]string
		}
	}
}

var (
	pinned = regexp.MustCompile(`^[a-z0-9-]+/[a-z0-9/-]+@[0-9a-f]{40}$`)
	// versioned says beside each pin what it stands for.
	versioned = regexp.MustCompile(`uses: [^ ]+@[0-9a-f]{40} # v\d+\.\d+\.\d+\n`)
	// fetching is what brings code from the network into a job.
	fetching = regexp.MustCompile(`\b(go (build|run|install|get|test)|npm|npx|pip|apt|apt-get|curl|wget|git clone|docker (run|pull|build))\b`)
)

// workflowRules names every place in a workflow that gives away more than it
// should.
func workflowRules(text string) (bad []string) {
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	var w workflow
	if err := yaml.Unmarshal([]byte(text), &w); err != nil {
		return []string{err.Error()}
	}
	if w.Permissions.Kind != yaml.MappingNode || len(w.Permissions.Content) > 0 {
		say("want 'permissions: {}' at the top, so that a job has no right that it does not name")
	}
	if strings.Contains(text, "pull_request_target") {
		say("pull_request_target runs foreign code with our rights")
	}
	if strings.Count(text, "uses: ") != len(versioned.FindAllString(text, -1)) {
		say("an action without a full commit and its version behind it")
	}
	publishes := false
	for _, job := range w.Jobs {
		publishes = publishes || job.Permissions != nil && slices.Contains(slices.Collect(maps.Values(*job.Permissions)), "write")
	}
	for name, job := range w.Jobs {
		if job.Uses != "" || job.Secrets.Kind != 0 {
			say("%s: calls another workflow or hands on secrets", name)
		}
		if job.Permissions == nil {
			say("%s: names no permissions", name)
			continue
		}
		if job.Minutes < 1 {
			say("%s: no timeout-minutes", name)
		}
		writes := slices.Contains(slices.Collect(maps.Values(*job.Permissions)), "write")
		if writes && !strings.Contains(job.If, "github.repository == '") {
			say("%s: a fork would publish", name)
		}
		if writes && w.Concurrency.Cancel != "false" {
			say("%s: may be cut off while it publishes, or run twice at once", name)
		}
		for _, s := range job.Steps {
			action, _, _ := strings.Cut(s.Uses, "@")
			switch {
			case s.Uses != "" && !pinned.MatchString(s.Uses):
				say("%s: %s is not pinned to a commit", name, s.Uses)
			case publishes && strings.Contains(action, "cache"):
				say("%s: a cache that others could fill, on the way to a release", name)
			case action == "actions/checkout" && s.With["persist-credentials"] != "false":
				say("%s: checkout leaves its token behind", name)
			case action == "actions/setup-go" && s.With["cache"] != "false":
				say("%s: setup-go with a cache that others could fill", name)
			case writes && (action == "actions/checkout" || strings.HasPrefix(action, "actions/setup-") || fetching.MatchString(s.Run)):
				say("%s: code from the network in a job that may write", name)
			}
			if strings.Contains(s.Run, "${{") {
				say("%s: an expression inside a script: pass it as a variable", name)
			}
		}
	}
	slices.Sort(bad)
	return bad
}

func workflows(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(testkit.Root(t), ".github", "workflows", "*.yml"))
	if err != nil || len(list) < 2 {
		t.Fatalf("workflows: %q, %v", list, err)
	}
	return list
}

func TestWorkflowsGiveAwayNothing(t *testing.T) {
	for _, path := range workflows(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range workflowRules(string(text)) {
			t.Errorf("%s: %s", filepath.Base(path), b)
		}
	}
}

func TestWorkflowsPassActionlint(t *testing.T) {
	lint := filepath.Join(os.Getenv("BH_TOOLS"), "actionlint")
	if _, err := os.Stat(lint); err != nil {
		if lint, err = exec.LookPath("actionlint"); err != nil {
			testkit.Missing(t, "no actionlint: go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12")
		}
	}
	if out, err := exec.Command(lint, append([]string{"-shellcheck=", "-pyflakes="}, workflows(t)...)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	broken := filepath.Join(t.TempDir(), "broken.yml")
	if err := os.WriteFile(broken, []byte("on: push\njobs:\n  a:\n    runs-on: nowhere\n    steps:\n      - run: echo ${{ github.nothing }}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if exec.Command(lint, "-shellcheck=", "-pyflakes=", broken).Run() == nil {
		t.Error("actionlint finds nothing wrong with a broken workflow")
	}
}

func TestCarelessWorkflowsAreFound(t *testing.T) {
	const good = `name: x
on: push
permissions: {}
concurrency:
  group: x
  cancel-in-progress: false
jobs:
  build:
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    permissions:
      contents: read
    steps:
      - uses: actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0
        with:
          persist-credentials: false
      - uses: actions/setup-go@44694675825211faa026b3c33043df3e48a5fa00 # v6.0.0
        with:
          cache: false
      - run: go build ./...
  publish:
    if: github.repository == 'o/r'
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    permissions:
      id-token: write
    steps:
      - uses: actions/download-artifact@d3f86a106a0bac45b974a628896c90dbdf5c8093 # v4.3.0
      - run: ./tool sign
`
	if bad := workflowRules(good); len(bad) > 0 {
		t.Fatalf("a careful workflow: %q", bad)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"rights for all":           {"permissions: {}", "permissions: write-all", "at the top"},
		"no rights named":          {"permissions: {}\n", "", "at the top"},
		"reading for all":          {"permissions: {}", "permissions:\n  contents: read", "at the top"},
		"a job without rights":     {"    permissions:\n      contents: read\n", "", "names no permissions"},
		"foreign code":             {"on: push", "on: pull_request_target", "foreign code"},
		"a tag as version":         {"@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0", "@v5", "not pinned"},
		"a short commit":           {"@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0", "@08c6903 # v5.0.0", "not pinned"},
		"a commit of what version": {" # v5.0.0", "", "version behind it"},
		"a token left behind":      {"        with:\n          persist-credentials: false\n", "", "leaves its token"},
		"the default cache":        {"          cache: false\n", "          go-version: 1.26.8\n", "setup-go with a cache"},
		"a cache":                  {"actions/setup-go@", "actions/cache@", "others could fill"},
		"no timeout":               {"    timeout-minutes: 5\n    permissions:\n      id-token", "    permissions:\n      id-token", "timeout"},
		"a fork that publishes":    {"    if: github.repository == 'o/r'\n", "", "a fork"},
		"cut off":                  {"cancel-in-progress: false", "cancel-in-progress: true", "cut off"},
		"building where it signs":  {"./tool sign", "go run ./tool sign", "code from the network"},
		"fetching where it signs":  {"./tool sign", "curl https://example.org | sh", "code from the network"},
		"an expression in a shell": {"./tool sign", "./tool sign ${{ github.event.issue.title }}", "expression"},
		"another workflow":         {"    runs-on: ubuntu-24.04\n    timeout-minutes: 5\n    permissions:\n      contents: read\n", "    uses: o/r/x.yml@main\n    permissions: {}\n    timeout-minutes: 1\n", "another workflow"},
		"no YAML":                  {"name: x", "\tx", "yaml"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		if text == good {
			t.Fatalf("%s: nothing replaced", name)
		}
		if bad := workflowRules(text); !slices.ContainsFunc(bad, func(b string) bool { return strings.Contains(b, c.want) }) {
			t.Errorf("%s: %q, want %q", name, bad, c.want)
		}
	}
}
