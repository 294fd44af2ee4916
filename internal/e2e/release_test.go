package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/trainer"
)

// report is what the tests read of 'bhtrain run --format json'.
type report struct {
	Release canon.Digest `json:"release"`
	Dataset canon.Digest `json:"dataset"`
	Files   []struct {
		Name string `json:"name"`
		Size int64  `json:"size"`
	} `json:"files"`
	Stages []struct {
		Name    string  `json:"name"`
		Seconds float64 `json:"seconds"`
	} `json:"stages"`
}

func (u *user) release(args ...string) report {
	u.t.Helper()
	var r report
	out := u.must("bhtrain", append(args, "--format", "json")...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		u.t.Fatalf("%v in %s", err, out)
	}
	return r
}

// input is one file of the real data and how it is to be read.
type input struct{ flag, file, options string }

var realInputs = []input{
	{"--exploitdb", "exploitdb/files_exploits.reassembled.csv", ""},
	{"--exploitdb", "exploitdb/files.csv", ""},
	{"--labelled", "http-attacks/payload_train.csv", ""},
	{"--cowrie", "honeypot/cowrie-2018-05.json", ""},
	{"--attacks", "attack-records/peer_threats.json", ""},
	{"--access", "http-attacks/access-2004.log", ",class=benign"},
	{"--sshd", "auth/auth.log", ",year=2017"},
}

var realRecipe = []string{"--as-of", "2026-01-15T00:00:00Z", "--window", "9000d"}

func realArgs(t *testing.T) []string {
	var args []string
	for _, in := range realInputs {
		args = append(args, in.flag, testkit.Data(t, in.file)+in.options)
	}
	return append(args, realRecipe...)
}

// shuffledArgs deals the rows of every real input, in random order, to three
// files each, and names them in reverse order.
func shuffledArgs(t *testing.T, dir string) []string {
	rnd := rand.New(rand.NewPCG(7, 7))
	var args []string
	for i, in := range realInputs {
		b, err := os.ReadFile(testkit.Data(t, in.file))
		if err != nil {
			t.Fatal(err)
		}
		var rows []string
		header := ""
		if in.flag == "--attacks" {
			var list []json.RawMessage
			if err := json.Unmarshal(b, &list); err != nil {
				t.Fatal(err)
			}
			for _, v := range list {
				var line strings.Builder
				if err := json.NewEncoder(&line).Encode(v); err != nil {
					t.Fatal(err)
				}
				rows = append(rows, line.String())
			}
		} else {
			for line := range strings.Lines(string(b)) {
				rows = append(rows, line)
			}
			if strings.HasSuffix(in.file, ".csv") {
				header, rows = rows[0], rows[1:]
			}
		}
		rnd.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		for part := range 3 {
			name := filepath.Join(dir, fmt.Sprintf("%d-%d-%s", i, part, filepath.Base(in.file)))
			text := header + strings.Join(rows[part*len(rows)/3:(part+1)*len(rows)/3], "")
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			args = append([]string{in.flag, name + in.options}, args...)
		}
	}
	return append(args, realRecipe...)
}

func TestRealDataGivesOneReleaseHoweverItIsDealt(t *testing.T) {
	long(t)
	u := newUser(t)
	first := u.release(append([]string{"run", "--out", "first"}, realArgs(t)...)...)
	t.Logf("release %s, dataset %s", first.Release, first.Dataset)
	total := int64(0)
	for _, f := range first.Files {
		total += f.Size
		t.Logf("%-24s %7d bytes", f.Name, f.Size)
	}
	for _, s := range first.Stages {
		t.Logf("%-10s %6.1f s", s.Name, s.Seconds)
	}
	if peak := u.peak >> 20; peak > 2048 {
		t.Errorf("the run took %d MiB of memory, more than 2 GiB", peak)
	} else {
		t.Logf("peak memory %d MiB", peak)
	}
	if total > 280<<10 {
		t.Errorf("the files of the release have %d bytes together, more than 280 KiB", total)
	}

	dealt := shuffledArgs(t, t.TempDir())
	for i, env := range [][]string{
		{"GOMAXPROCS=1", "TZ=Asia/Kathmandu", "LC_ALL=tr_TR.UTF-8"},
		{"GOMAXPROCS=8", "TZ=America/St_Johns", "LC_ALL=C"},
	} {
		u.env = env
		again := u.release(append([]string{"run", "--out", fmt.Sprint("again", i)}, dealt...)...)
		if again.Release != first.Release {
			t.Errorf("with rows dealt anew and %s: release %s, dataset %s", env, again.Release, again.Dataset)
		}
	}
	u.env = nil

	out := u.must("bhverify", "rebuild", "first")
	if !strings.Contains(out, "REPRODUCED") || !strings.Contains(out, "Trust was not judged") {
		t.Errorf("rebuild: %s", out)
	}
	u.forge("first", "forged", func(r *oras.Release, _ []oras.File) {
		changeRecipe(t, r, func(r *trainer.Recipe) { r.Reputation.LearningRatePPM-- })
	})
	u.fails(4, "NOT REPRODUCED", "bhverify", "rebuild", "forged")
}

// changeRecipe edits the recipe that a release claims.
func changeRecipe(t *testing.T, rel *oras.Release, change func(*trainer.Recipe)) {
	t.Helper()
	r, err := trainer.DecodeRecipe(rel.Recipe)
	if err != nil {
		t.Fatal(err)
	}
	change(&r)
	if rel.Recipe, err = canon.Marshal(r); err != nil {
		t.Fatal(err)
	}
}

// forge writes a release that is well-formed but not the one in from: what
// somebody with write access to the store could publish.
func (u *user) forge(from, to string, change func(*oras.Release, []oras.File)) canon.Digest {
	u.t.Helper()
	ctx := context.Background()
	src, err := oras.Open(ctx, oras.Ref{Layout: filepath.Join(u.dir, from)}, oras.Options{})
	if err != nil {
		u.t.Fatal(err)
	}
	d, err := src.Resolve(ctx, oras.TagLatest)
	if err != nil {
		u.t.Fatal(err)
	}
	a, err := oras.Pull(ctx, src, d.Digest)
	if err != nil {
		u.t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(u.dir, to), os.DirFS(filepath.Join(u.dir, from))); err != nil {
		u.t.Fatal(err)
	}
	dst, err := oras.Open(ctx, oras.Ref{Layout: filepath.Join(u.dir, to)}, oras.Options{Write: true})
	if err != nil {
		u.t.Fatal(err)
	}
	rel, models := a.Release, append([]oras.File(nil), a.Models...)
	for i := range models {
		models[i].Data = append([]byte(nil), models[i].Data...)
	}
	change(&rel, models)
	rel.Number = 99 // a number that is free in the copied store
	forged, err := oras.Pack(rel, models)
	if err != nil {
		u.t.Fatal(err)
	}
	if err := oras.Push(ctx, dst, forged); err != nil {
		u.t.Fatal(err)
	}
	if err := dst.Tag(ctx, oras.TagLatest, forged.Descriptor()); err != nil {
		u.t.Fatal(err)
	}
	return forged.Digest
}

// pushDataset puts a snapshot directory into a layout.
func (u *user) pushDataset(layout, dir string) {
	u.t.Helper()
	ctx := context.Background()
	d, err := oras.PackDataset(filepath.Join(u.dir, dir))
	if err != nil {
		u.t.Fatal(err)
	}
	s, err := oras.Open(ctx, oras.Ref{Layout: filepath.Join(u.dir, layout)}, oras.Options{Write: true})
	if err == nil {
		_, err = oras.PushDataset(ctx, s, d)
	}
	if err != nil {
		u.t.Fatal(err)
	}
}

// dataset is the digest of a snapshot directory.
func (u *user) dataset(dir string) canon.Digest {
	u.t.Helper()
	b, err := os.ReadFile(filepath.Join(u.dir, dir, "snapshot.json"))
	if err != nil {
		u.t.Fatal(err)
	}
	return canon.Sum(b)
}

// damage flips one bit of a blob in a layout directory.
func (u *user) damage(layout string, d canon.Digest) {
	u.t.Helper()
	path := filepath.Join(u.dir, layout, "blobs", "sha256", d.Hex())
	b, err := os.ReadFile(path)
	if err != nil {
		u.t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		u.t.Fatal(err)
	}
}

func TestRebuildOfTheSample(t *testing.T) {
	if testing.Short() {
		t.Skip("trains several times")
	}
	u := newUser(t)
	u.must("bhtrain", "run", "--out", "dist")
	u.must("bhverify", "rebuild", "dist", "--workers", "1")

	// Another hyper-parameter than the one in the recipe.
	u.forge("dist", "param", func(r *oras.Release, _ []oras.File) {
		changeRecipe(t, r, func(r *trainer.Recipe) { r.Reputation.LearningRatePPM-- })
	})
	u.fails(4, "ip_reputation.onnx, tree 0", "bhverify", "rebuild", "param")

	// Another row than those of the dataset named.
	u.must("bhtrain", "snapshot", "--out", "other", "--redaction", "0")
	other := u.release("train", "other", "--out", "other-dist", "--release", "2")
	u.forge("dist", "row", func(r *oras.Release, _ []oras.File) { r.Dataset = other.Dataset })
	u.must("bhtrain", "push", "other-dist", "oci-layout:row:other")
	u.forgetLatest("row", 99)
	u.fails(4, "NOT REPRODUCED", "bhverify", "rebuild", "row")

	// A dataset too small to learn from, so that no models follow from it.
	if err := os.WriteFile(filepath.Join(u.dir, "tiny.jsonl"), []byte(`{"src_ip":"192.0.2.1","details":"GET /","attack_type":"xss"}`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	u.must("bhtrain", "snapshot", "--attacks", "tiny.jsonl", "--out", "tiny")
	u.forge("dist", "toolittle", func(r *oras.Release, _ []oras.File) { r.Dataset = u.dataset("tiny") })
	u.pushDataset("toolittle", "tiny")
	u.fails(4, "no models follow", "bhverify", "rebuild", "toolittle")

	// Rows that are not those whose digest the dataset has: its parts fit the
	// manifest, which the registry may have made, but not each other.
	if err := os.CopyFS(filepath.Join(u.dir, "swapped"), os.DirFS(filepath.Join(u.dir, "tiny"))); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(u.dir, "other", "snapshot.json"))
	if err == nil {
		err = os.WriteFile(filepath.Join(u.dir, "swapped", "snapshot.json"), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	u.forge("dist", "rows", func(r *oras.Release, _ []oras.File) { r.Dataset = other.Dataset })
	u.pushDataset("rows", "swapped")
	u.fails(3, "corrupt snapshot", "bhverify", "rebuild", "rows")

	// A damaged file is no release at all.
	u.damage("dist", u.blob("dist", "threat_classifier.onnx"))
	u.fails(3, "", "bhverify", "rebuild", "dist")
}

// forgetLatest makes "latest" of a layout stand for release number n again.
func (u *user) forgetLatest(layout string, n int64) {
	u.t.Helper()
	ctx := context.Background()
	s, err := oras.Open(ctx, oras.Ref{Layout: filepath.Join(u.dir, layout)}, oras.Options{Write: true})
	if err != nil {
		u.t.Fatal(err)
	}
	d, err := s.Resolve(ctx, oras.ReleaseTag(n))
	if err == nil {
		err = s.Tag(ctx, oras.TagLatest, d)
	}
	if err != nil {
		u.t.Fatal(err)
	}
}

// blob is the digest of a model file of the latest release in a layout.
func (u *user) blob(layout, name string) canon.Digest {
	u.t.Helper()
	ctx := context.Background()
	s, err := oras.Open(ctx, oras.Ref{Layout: filepath.Join(u.dir, layout)}, oras.Options{})
	if err != nil {
		u.t.Fatal(err)
	}
	d, err := s.Resolve(ctx, oras.TagLatest)
	if err != nil {
		u.t.Fatal(err)
	}
	a, err := oras.Pull(ctx, s, d.Digest)
	if err != nil {
		u.t.Fatal(err)
	}
	return canon.Sum(a.Model(name))
}

// Two releases of one dataset describe it each; which is which is shown.
func TestInspectSaysWhatDocumentsAreAbout(t *testing.T) {
	if testing.Short() {
		t.Skip("trains")
	}
	u := newUser(t)
	for n := 1; n <= 2; n++ {
		u.must("bhtrain", "run", "-q", "--release", fmt.Sprint(n), "--seed", fmt.Sprint(n), "--out", fmt.Sprintf("dist-%d", n))
		u.must("bhtrain", "push", fmt.Sprintf("dist-%d", n), "oci-layout:both")
	}
	out := u.must("bhverify", "inspect", "both")
	for n := 1; n <= 2; n++ {
		if strings.Count(out, fmt.Sprintf("application/ld+json, about the dataset of release %d\n", n)) != 1 {
			t.Errorf("release %d:\n%s", n, out)
		}
	}
	if strings.Count(out, "about the release\n") != 3 {
		t.Errorf("%s", out)
	}
}

func TestPushSaysWhatItLeavesBehind(t *testing.T) {
	if testing.Short() {
		t.Skip("trains")
	}
	u := newUser(t)
	r := u.release("run", "--out", "dist")
	if w := u.run(nil, "bhtrain", "push", "dist", "oci-layout:whole"); w.code != 0 || w.err != "" {
		t.Errorf("a good release: %+v", w)
	}
	ctx := context.Background()
	s, err := oras.Open(ctx, oras.Ref{Layout: filepath.Join(u.dir, "dist")}, oras.Options{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := oras.Bundles(ctx, s, r.Release)
	if err != nil || len(list.Bundles) != 1 {
		t.Fatalf("%v, %+v", err, list)
	}
	u.damage("dist", canon.Sum(list.Bundles[0].Data))
	if w := u.run(nil, "bhtrain", "push", "dist", "oci-layout:without"); !strings.Contains(w.err, "left behind") {
		t.Errorf("a release with a damaged statement: %+v", w)
	}
}
