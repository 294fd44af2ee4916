// Package targets_test holds the claim that everything else rests on: a
// snapshot, a training and its scores are the same bits on every kind of
// processor. One program, exactprobe, is built for each, run there or in an
// emulator, and what it wrote and printed is compared.
package targets_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/oras"

	// So that a result of this test is not taken from the cache when what the
	// program is built of has changed.
	_ "github.com/battle-hardened-ai/bhtrain/dataset/feature"
	_ "github.com/battle-hardened-ai/bhtrain/trainer"
	_ "github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// target is a kind of processor.
type target struct {
	name   string
	unlike string   // of ordinary, the digest by which it differs from the first
	build  []string // environment of the build
	env    []string // environment of the run
	under  string   // the emulator, if any
}

var targets = []target{
	{name: "amd64", build: []string{"GOARCH=amd64", "GOAMD64=v1"}},
	{name: "amd64 v3", unlike: "fused", build: []string{"GOARCH=amd64", "GOAMD64=v3"}},
	{name: "amd64 without FMA", unlike: "exp", build: []string{"GOARCH=amd64", "GOAMD64=v1"}, env: []string{"GODEBUG=cpu.fma=off,cpu.avx=off,cpu.avx2=off"}},
	{name: "386", unlike: "exp", build: []string{"GOARCH=386"}},
	{name: "js/wasm", unlike: "exp", build: []string{"GOOS=js", "GOARCH=wasm"}, under: "node"},
	{name: "arm64", unlike: "fused", build: []string{"GOARCH=arm64"}, under: "qemu-aarch64-static"},
	{name: "riscv64", unlike: "fused", build: []string{"GOARCH=riscv64"}, under: "qemu-riscv64-static"},
	{name: "s390x", unlike: "fused", build: []string{"GOARCH=s390x"}, under: "qemu-s390x-static"},
	{name: "ppc64le", unlike: "fused", build: []string{"GOARCH=ppc64le"}, under: "qemu-ppc64le-static"},
}

// workers are the numbers of workers to train with.
var workers = []string{"1", "4"}

// job is what exactprobe is asked to do on each target.
type job struct {
	name string
	args []string
	read string // the snapshot that every target has to read
}

// outcome are the digests that a target came to, by name, with one number of
// workers.
type outcome struct {
	target  target
	workers string
	digests map[string]string
	seconds float64 // of the run with all numbers of workers
}

// exact are the names of the digests that have to be the same everywhere.
var exact = slices.Concat([]string{"dataset"}, oras.ModelFiles[:], []string{oras.ReleaseFile, "release", "features", "scores", "detmath"})

// ordinary are the names of digests of what differs between processors.
var ordinary = []string{"fused", "exp"}

func TestEveryTargetComputesTheSameBits(t *testing.T) {
	if os.Getenv("BH_E2E") == "" {
		testkit.Missing(t, "takes minutes: set BH_E2E=1 to run it")
	}
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		testkit.Missing(t, "runs on linux/amd64 only")
	}
	temp := t.TempDir()
	first := compile(t, temp, targets[0])
	jobs := []job{{name: "sample"}}
	t.Run("real data", func(t *testing.T) {
		inputs := cut(t, temp)
		jobs = append(jobs, job{
			name: "10,000 rows of real data",
			args: append([]string{"-as-of", "1768435200000000", "-window", "9000"}, inputs...),
		})
	})
	var mu sync.Mutex
	outcomes := make([][]outcome, len(jobs))
	work := func(t *testing.T, x target, program string) {
		for i := range jobs {
			out := filepath.Join(temp, strings.Map(letter, x.name), strings.Map(letter, jobs[i].name))
			o := probe(t, x, program, out, jobs[i])
			mu.Lock()
			outcomes[i] = append(outcomes[i], o...)
			mu.Unlock()
			if jobs[i].read == "" {
				jobs[i].read = filepath.Join(out, "snapshot")
			}
		}
	}
	work(t, targets[0], first)
	t.Run("targets", func(t *testing.T) {
		for _, x := range targets[1:] {
			t.Run(x.name, func(t *testing.T) {
				t.Parallel()
				if x.under != "" {
					if _, err := exec.LookPath(x.under); err != nil {
						testkit.Missing(t, x.under+" is not installed")
					}
				}
				began := time.Now()
				program := compile(t, temp, x)
				t.Logf("built in %.1f s", time.Since(began).Seconds())
				work(t, x, program)
			})
		}
	})
	for i, j := range jobs {
		slices.SortStableFunc(outcomes[i], func(a, b outcome) int { return order(a.target) - order(b.target) })
		t.Logf("%s\n%s", j.name, table(outcomes[i]))
		for _, d := range slices.Concat(differences(outcomes[i]), likenesses(outcomes[i])) {
			t.Errorf("%s: %s", j.name, d)
		}
	}
}

func order(x target) int {
	return slices.IndexFunc(targets, func(o target) bool { return o.name == x.name })
}

// letter replaces what is not fit for the name of a file.
func letter(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return '-'
}

// compile builds exactprobe for a target and returns its path.
func compile(t *testing.T, dir string, x target) string {
	t.Helper()
	program := filepath.Join(dir, strings.Map(letter, x.name)+".bin")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", program, "./exactprobe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	cmd.Env = append(cmd.Env, x.build...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building for %s: %v\n%s", x.name, err, out)
	}
	return program
}

// command returns the command that runs a program built for a target.
func command(t *testing.T, x target, program string, args ...string) *exec.Cmd {
	t.Helper()
	line := append([]string{program}, args...)
	switch x.under {
	case "":
	case "node":
		root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
		if err != nil {
			t.Fatalf("go env GOROOT: %v", err)
		}
		script := filepath.Join(strings.TrimSpace(string(root)), "lib", "wasm", "wasm_exec_node.js")
		line = append([]string{"node", "--stack-size=8192", script}, line...)
	default:
		line = append([]string{x.under}, line...)
	}
	cmd := exec.CommandContext(t.Context(), line[0], line[1:]...)
	// All that a program may see: js/wasm has room for a small environment only.
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + t.TempDir()}, x.env...)
	return cmd
}

// probe runs a job on a target and collects what it gave for each number of
// workers.
func probe(t *testing.T, x target, program, out string, j job) []outcome {
	t.Helper()
	args := []string{"-out", out, "-workers", strings.Join(workers, ",")}
	if j.read != "" {
		args = append(args, "-read", j.read)
	}
	cmd := command(t, x, program, append(args, j.args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	began := time.Now()
	printed, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", j.name, err, printed, stderr.String())
	}
	seconds := time.Since(began).Seconds()
	lines := map[string]string{}
	for line := range strings.Lines(string(printed)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		lines[name] = value
	}
	dir := filepath.Join(out, "snapshot")
	if d := read(t, dir); d.String() != lines["dataset"] {
		t.Errorf("%s: dataset %s, but it reads as %s here", j.name, lines["dataset"], d)
	}
	if j.read != "" {
		if d := read(t, j.read); d.String() != lines["read"] {
			t.Errorf("%s: a snapshot written here reads as %s, want %s", j.name, lines["read"], d)
		}
	}
	var all []outcome
	for _, w := range workers {
		o := outcome{target: x, workers: w, seconds: seconds, digests: map[string]string{
			"dataset": lines["dataset"], "features": lines["features/"+w], "scores": lines["scores/"+w],
			"detmath": lines["detmath"], "fused": lines["fused"], "exp": lines["exp"],
		}}
		maps.Copy(o.digests, pack(t, filepath.Join(out, w), lines["dataset"]))
		all = append(all, o)
	}
	return all
}

// read reads every row of a snapshot, and with that checks them.
func read(t *testing.T, dir string) canon.Digest {
	t.Helper()
	s, err := dataset.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := context.Background()
	for _, err := range s.Exploits(ctx) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range s.Records(ctx) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return s.Digest()
}

// pack makes a release of what exactprobe left in dir and returns the digests
// of its parts.
func pack(t *testing.T, dir, of string) map[string]string {
	t.Helper()
	file := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	d, err := canon.ParseDigest(of)
	if err != nil {
		t.Fatal(err)
	}
	rel := oras.Release{
		Product: "bhtrain", Number: 1, Dataset: d,
		Recipe: file("recipe.json"), Features: file("features.json"), Scoring: file("scoring.json"), Metrics: file("metrics.json"),
	}
	digests := map[string]string{}
	var models []oras.File
	for _, name := range oras.ModelFiles {
		f := oras.File{Name: name, Data: file(name)}
		models = append(models, f)
		digests[name] = canon.Sum(f.Data).String()
	}
	a, err := oras.Pack(rel, models)
	if err != nil {
		t.Fatal(err)
	}
	digests[oras.ReleaseFile], digests["release"] = canon.Sum(a.ReleaseJSON).String(), a.Digest.String()
	return digests
}

// differences names every digest that is missing or not that of the first
// outcome.
func differences(outcomes []outcome) (bad []string) {
	first := outcomes[0]
	for _, o := range outcomes {
		for _, name := range exact {
			switch got, want := o.digests[name], first.digests[name]; {
			case got == "":
				bad = append(bad, fmt.Sprintf("%s with %s workers gives no %s", o.target.name, o.workers, name))
			case got != want:
				bad = append(bad, fmt.Sprintf("%s with %s workers gives %s %s, %s with %s gives %s",
					o.target.name, o.workers, name, got, first.target.name, first.workers, want))
			}
		}
	}
	return bad
}

// likenesses names every target that does not show in ordinary arithmetic
// that it is another processor than the first, and so proves nothing.
func likenesses(outcomes []outcome) (bad []string) {
	for _, o := range outcomes {
		if u := o.target.unlike; u != "" && (o.digests[u] == "" || o.digests[u] == outcomes[0].digests[u]) {
			bad = append(bad, fmt.Sprintf("%s gives the %q of %s: it is no other processor", o.target.name, u, outcomes[0].target.name))
		}
	}
	return bad
}

// table shows digests by their first 10 digits.
func table(outcomes []outcome) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	names := slices.Concat(exact, ordinary)
	fmt.Fprintf(w, "target\tworkers\t%s\tseconds\n", strings.ReplaceAll(strings.Join(names, "\t"), ".onnx", ""))
	for _, o := range outcomes {
		fmt.Fprintf(w, "%s\t%s", o.target.name, o.workers)
		for _, name := range names {
			fmt.Fprintf(w, "\t%.10s", strings.TrimPrefix(o.digests[name], "sha256:"))
		}
		fmt.Fprintf(w, "\t%.1f\n", o.seconds)
	}
	w.Flush()
	return b.String()
}

// sources are the files of the real data and how many rows are taken of each,
// 10,000 together.
var sources = []struct {
	source, file, options string
	header                bool
	rows                  int
}{
	{"exploitdb", "exploitdb/files_exploits.reassembled.csv", "", true, 3000},
	{"exploitdb", "exploitdb/files.csv", "", true, 500},
	{"labelled", "http-attacks/payload_train.csv", "", true, 3600},
	{"cowrie", "honeypot/cowrie-2018-05.json", "", false, 1200},
	{"access", "http-attacks/access-2004.log", ",class=benign", false, 720},
	{"sshd", "auth/auth.log", ",year=2017", false, 800},
	{"attacks", "attack-records/peer_threats.json", "", false, 180}, // all of it
}

// cut writes rows spread evenly over each file of the real data to dir and
// returns the arguments that name them.
func cut(t *testing.T, dir string) (args []string) {
	t.Helper()
	total := 0
	for i, s := range sources {
		b, err := os.ReadFile(testkit.Data(t, s.file))
		if err != nil {
			t.Fatal(err)
		}
		var rows [][]byte
		if s.source == "attacks" {
			var list []json.RawMessage
			if err := json.Unmarshal(b, &list); err != nil {
				t.Fatal(err)
			}
			for _, v := range list {
				var line bytes.Buffer
				if err := json.Compact(&line, v); err != nil {
					t.Fatal(err)
				}
				rows = append(rows, append(line.Bytes(), '\n'))
			}
		} else {
			rows = slices.Collect(bytes.Lines(b))
		}
		var text []byte
		if s.header {
			text, rows = append(text, rows[0]...), rows[1:]
		}
		for k := range s.rows {
			text = append(text, rows[k*len(rows)/s.rows]...)
		}
		total += s.rows
		name := filepath.Join(dir, fmt.Sprintf("%d%s", i, filepath.Ext(s.file)))
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, s.source+"="+name+s.options)
	}
	if total != 10_000 {
		t.Fatalf("%d rows of real data, want 10,000", total)
	}
	return args
}

func TestDifferencesAreFound(t *testing.T) {
	var all []outcome
	for _, x := range targets[:3] {
		o := outcome{target: x, workers: "1", digests: map[string]string{}}
		for _, name := range exact {
			o.digests[name] = canon.Sum([]byte(name)).String()
		}
		for _, name := range ordinary {
			o.digests[name] = canon.Sum([]byte(name + x.name)).String()
		}
		all = append(all, o)
	}
	if bad := slices.Concat(differences(all), likenesses(all)); len(bad) != 0 {
		t.Fatalf("outcomes as they should be: %q", bad)
	}
	for i, o := range all {
		for _, name := range exact {
			was := o.digests[name]
			o.digests[name] = canon.Sum(nil).String()
			if bad := differences(all); len(bad) == 0 || i > 0 && (len(bad) != 1 || !strings.Contains(bad[0], o.target.name+" with 1 workers gives "+name)) {
				t.Errorf("another %s on %s: %q", name, o.target.name, bad)
			}
			delete(o.digests, name)
			if bad := differences(all); !slices.Contains(bad, o.target.name+" with 1 workers gives no "+name) {
				t.Errorf("no %s on %s: %q", name, o.target.name, bad)
			}
			o.digests[name] = was
		}
	}
	for _, digest := range []string{"", all[0].digests["exp"]} {
		all[2].digests["exp"] = digest
		if bad := likenesses(all); len(bad) != 1 || !strings.Contains(bad[0], "amd64 without FMA") {
			t.Errorf("two targets that are the same processor: %q", bad)
		}
	}
	if text := table(all); strings.Count(text, "\n") != 1+len(all) || !strings.Contains(text, all[0].digests["scores"][7:17]) {
		t.Errorf("the table:\n%s", text)
	}
}
