package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// live is the text of an agent's state file.
func (u *user) live() string {
	u.t.Helper()
	b, err := os.ReadFile(filepath.Join(u.dir, "state", "state.json"))
	if err != nil {
		u.t.Fatal(err)
	}
	return string(b)
}

// copyLayout copies a layout directory and returns its new name.
func (u *user) copyLayout(from, to string) string {
	u.t.Helper()
	if err := os.CopyFS(filepath.Join(u.dir, to), os.DirFS(filepath.Join(u.dir, from))); err != nil {
		u.t.Fatal(err)
	}
	return to
}

func TestAgentInstallsOnlyWhatThePolicyAllows(t *testing.T) {
	if testing.Short() {
		t.Skip("trains")
	}
	u := newUser(t)
	u.must("bhtrain", "run", "--out", "dist", "--release", "5")
	u.must("bhverify", "policy", "init", "--key", u.key(), "-o", "policy.yaml")

	// Nothing is installed yet.
	u.fails(3, "nothing verified is installed", "bhagent", "score", "--state", "state")
	u.fails(3, "nothing verified is installed", "bhagent", "status", "--state", "state")

	sync := func(from string) []string {
		return []string{"sync", "--state", "state", "--policy", "policy.yaml", "--from", from}
	}
	u.must("bhagent", sync("dist")...)
	if out := u.must("bhagent", sync("dist")...); !strings.Contains(out, "already live") {
		t.Errorf("second sync: %s", out)
	}
	u.must("bhagent", "status", "--state", "state")
	before := u.live()

	// A stranger's release, signed with the stranger's key.
	stranger := newUser(t)
	stranger.dir = u.dir
	stranger.must("bhtrain", "run", "--out", "stranger", "--release", "6")
	u.fails(3, "signature", "bhagent", sync("stranger")...)

	// A changed layer.
	u.copyLayout("dist", "changed")
	u.damage("changed", u.blob("dist", "ip_reputation.onnx"))
	u.fails(3, "release.files", "bhagent", "sync", "--state", "fresh", "--policy", "policy.yaml", "--from", "changed")

	// An added layer: another manifest, so another digest, in the same place.
	u.copyLayout("dist", "added")
	u.addLayer("added")
	u.fails(3, "release.files", "bhagent", sync("added")...)

	// No bundle at all.
	u.forge("dist", "unsigned", func(*oras.Release, []oras.File) {})
	u.fails(3, "signature", "bhagent", sync("unsigned")...)

	// A good bundle of the trusted key, about a release of another repository.
	u.must("bhtrain", "run", "--out", "theirs", "--release", "7", "--seed", "9", "--unsigned")
	u.graft("dist", "theirs")
	u.fails(3, "provenance.subject", "bhagent", sync("theirs")...)

	// An older release than the one accepted.
	u.must("bhtrain", "run", "--out", "older", "--release", "4")
	u.fails(3, "rollback", "bhagent", sync("older")...)

	// Another release with the number of the one accepted.
	u.must("bhtrain", "run", "--out", "twin", "--release", "5", "--seed", "3")
	u.fails(3, "another release with number 5", "bhagent", sync("twin")...)

	u.fails(1, "", "bhagent", sync("nowhere")...)
	if u.live() != before {
		t.Errorf("the live state changed:\n%s\n%s", before, u.live())
	}
	u.must("bhagent", "status", "--state", "state")

	// What is installed is judged again when the policy changes, and checked
	// again at every load.
	other := filepath.Join(stranger.home, ".config", "bhtrain", "signing.pub")
	u.must("bhverify", "policy", "init", "--key", other, "-o", "other.yaml")
	u.fails(3, "signature", "bhagent", "score", "--state", "state", "--policy", "other.yaml")
	status := u.must("bhagent", "status", "--state", "state", "--format", "json")
	var st struct {
		Verdict struct {
			Release canon.Digest `json:"release"`
		} `json:"verdict"`
	}
	if err := json.Unmarshal([]byte(status), &st); err != nil {
		t.Fatal(err)
	}
	u.damage(filepath.Join("state", "releases", st.Verdict.Release.Hex()), u.blob("dist", "threat_classifier.onnx"))
	u.fails(5, "corrupt state", "bhagent", "score", "--state", "state")
	u.must("bhagent", sync("dist")...)
	u.must("bhagent", "status", "--state", "state")

	// A state file that was tampered with.
	if err := os.WriteFile(filepath.Join(u.dir, "state", "state.json"), []byte(strings.Replace(before, `"highest":5`, `"highest":1`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	u.fails(5, "checksum", "bhagent", "score", "--state", "state")

	// Without a state file the releases that lie there still bar a rollback.
	if err := os.Remove(filepath.Join(u.dir, "state", "state.json")); err != nil {
		t.Fatal(err)
	}
	u.fails(3, "rollback", "bhagent", sync("older")...)
	u.must("bhagent", sync("dist")...)
}

// addLayer makes "latest" of a layout a manifest with one layer more.
func (u *user) addLayer(layout string) {
	u.t.Helper()
	ctx := context.Background()
	s, err := oras.Open(ctx, oras.Ref{Layout: filepath.Join(u.dir, layout)}, oras.Options{Write: true})
	if err != nil {
		u.t.Fatal(err)
	}
	d, err := s.Resolve(ctx, oras.TagLatest)
	if err != nil {
		u.t.Fatal(err)
	}
	raw, err := s.Manifest(ctx, d)
	if err != nil {
		u.t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		u.t.Fatal(err)
	}
	layers := m["layers"].([]any)
	m["layers"] = append(layers, layers[0])
	if raw, err = json.Marshal(m); err != nil {
		u.t.Fatal(err)
	}
	if d, err = s.PutManifest(ctx, raw); err == nil {
		err = s.Tag(ctx, oras.TagLatest, d)
	}
	if err != nil {
		u.t.Fatal(err)
	}
}

// graft attaches the provenance of one layout's release to that of another.
func (u *user) graft(from, to string) {
	u.t.Helper()
	ctx := context.Background()
	open := func(layout string) (oras.Store, oras.Descriptor) {
		s, err := oras.Open(ctx, oras.Ref{Layout: filepath.Join(u.dir, layout)}, oras.Options{Write: true})
		if err != nil {
			u.t.Fatal(err)
		}
		d, err := s.Resolve(ctx, oras.TagLatest)
		if err != nil {
			u.t.Fatal(err)
		}
		return s, d
	}
	src, d := open(from)
	list, err := oras.Bundles(ctx, src, d.Digest, oras.ProvenanceTag(d.Digest))
	if err != nil || len(list.Bundles) == 0 {
		u.t.Fatalf("no bundle in %s: %v", from, err)
	}
	b := list.Bundles[0]
	dst, e := open(to)
	if _, err := oras.AttachBundle(ctx, dst, e, b.Data, b.PredicateType, oras.ProvenanceTag(e.Digest), time.Time{}); err != nil {
		u.t.Fatal(err)
	}
}

func TestScoreAnswersEveryRowInOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("trains")
	}
	u := newUser(t)
	u.must("bhtrain", "run", "--out", "dist")
	u.must("bhverify", "policy", "init", "--key", u.key(), "-o", "policy.yaml")
	u.must("bhagent", "sync", "--state", "state", "--policy", "policy.yaml", "--from", "dist")

	var in strings.Builder
	const rows = 1000
	for i := range rows {
		switch i {
		case 10:
			in.WriteString("{\"src_ip\": \"198.51.100.7\", \n")
		case 20:
			in.WriteString(`{"attack_type":"backup_issue","severity":"low"}` + "\n")
		default:
			fmt.Fprintf(&in, `{"timestamp":"2026-01-10T08:%02d:%02dZ","src_ip":"198.51.100.%d","details":"GET /item.php?id=%d' OR '1'='1"}`+"\n", i/60, i%60, i%50, i)
		}
	}
	r := u.run([]byte(in.String()), "bhagent", "score", "--state", "state")
	if r.code != 1 || !strings.Contains(r.err, "1 of 1000 rows") {
		t.Errorf("exit code %d, %s", r.code, r.err)
	}
	lines := strings.Split(strings.TrimSuffix(r.out, "\n"), "\n")
	if len(lines) != rows {
		t.Fatalf("%d lines for %d rows", len(lines), rows)
	}
	for i, line := range lines {
		var f struct {
			Line          int
			Class         string
			Error         string
			Skipped       string
			Release       string
			Probabilities map[string]float64
			Anomaly       *struct {
				Score float64
				Flag  bool
			}
			Address    string
			Time       string
			Reputation *struct {
				Score float64
				Flag  bool
			}
		}
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("line %d: %v: %s", i+1, err, line)
		}
		if f.Line != i+1 || !strings.HasPrefix(f.Release, "sha256:") {
			t.Fatalf("line %d: %s", i+1, line)
		}
		switch i {
		case 10:
			if f.Error == "" || f.Class != "" {
				t.Errorf("a broken row: %s", line)
			}
		case 20:
			if f.Skipped == "" {
				t.Errorf("a row that is no network event: %s", line)
			}
		default:
			sum := 0.0
			for _, p := range f.Probabilities {
				sum += p
			}
			if f.Class == "" || f.Anomaly == nil || f.Reputation == nil || f.Address == "" || f.Time == "" || sum < 0.999 || sum > 1.001 {
				t.Fatalf("line %d: %s", i+1, line)
			}
		}
	}

	// What is scored is there before the input ends, and an interrupt ends the
	// waiting for more.
	u.follow(strings.SplitAfter(in.String(), "\n")[:3])

	// Without an address there is no reputation, and the answer says why.
	r = u.run([]byte(`{"details":"hello","timestamp":"2026-01-10T08:00:00Z"}`), "bhagent", "score", "--state", "state")
	if r.code != 0 || !strings.Contains(r.out, `"reputation":null,"reputation_reason":"the record has no address"`) {
		t.Errorf("%d %s%s", r.code, r.out, r.err)
	}
}

// follow feeds lines one by one to a score that is not told of an end, and
// wants each answered before the next is sent. Then it interrupts it.
func (u *user) follow(lines []string) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "bhagent"), "score", "--state", "state")
	cmd.Dir = u.dir
	in, err := cmd.StdinPipe()
	if err != nil {
		u.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		u.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	answers := bufio.NewReader(out)
	for i, line := range lines {
		if _, err := in.Write([]byte(line)); err != nil {
			u.t.Fatal(err)
		}
		answer, err := answers.ReadString('\n')
		if err != nil || !strings.Contains(answer, fmt.Sprintf(`"line":%d,`, i+1)) {
			u.t.Errorf("line %d: %v, %q", i+1, err, answer)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		u.t.Fatal(err)
	}
	if err := cmd.Wait(); ctx.Err() != nil || cmd.ProcessState.ExitCode() != 1 {
		u.t.Errorf("interrupted while waiting: %v", err)
	}
}
