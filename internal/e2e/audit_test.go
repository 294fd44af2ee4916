package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// source is a copy of this source tree as a version of the module.
type source struct {
	t    testing.TB
	dir  string
	name verify.Trainer
}

// newSource copies the tree to dir and changes files of the copy: old text to
// new, by name.
func newSource(t testing.TB, dir, version string, change map[string][2]string) *source {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		testkit.Missing(t, "no go command")
	}
	built(t)
	s := &source{t: t, dir: dir}
	root := testkit.Root(t)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch name := d.Name(); {
		case d.IsDir() && rel != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(s.dir, rel), 0o777)
		case !d.Type().IsRegular() || name == ".git" || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if c, ok := change[filepath.ToSlash(rel)]; ok {
			if !strings.Contains(string(b), c[0]) {
				t.Fatalf("%s: no %q", rel, c[0])
			}
			b = []byte(strings.Replace(string(b), c[0], c[1], 1))
		}
		return os.WriteFile(filepath.Join(s.dir, rel), b, 0o666)
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "run", "./internal/modsum", "-version", version, s.dir)
	cmd.Dir = root
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("modsum: %v: %s", err, exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	_, h1, _ := strings.Cut(string(out), "digest ")
	s.name = verify.Trainer{Version: version, H1: strings.TrimSpace(h1)}
	return s
}

// build builds commands into dir as official builds are, for an architecture.
func (s *source) build(dir, arch string, commands ...string) {
	s.t.Helper()
	const in = "github.com/battle-hardened-ai/bhtrain/internal/cli"
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", fmt.Sprintf("-X %s.version=%s -X %s.digest=%s", in, s.name.Version, in, s.name.H1), "-o", dir + string(filepath.Separator)}, commands...)
	cmd := exec.Command("go", args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("building: %v\n%s", err, out)
	}
}

// official are builds of this tree that know their own sum, made once.
var official struct {
	sync.Mutex
	source *source
	builds map[string]string // directory by architecture
}

// officialBuild returns the directory of the official builds for an architecture,
// bhverify and on this machine's bhtrain, and their name.
func officialBuild(t testing.TB, arch string) (string, verify.Trainer) {
	t.Helper()
	built(t)
	official.Lock()
	defer official.Unlock()
	if official.source == nil {
		official.source = newSource(t, filepath.Join(bin, "source"), "v0.9.0", nil)
		official.builds = map[string]string{}
	}
	official.source.t = t
	dir := official.builds[arch]
	if dir == "" {
		dir = filepath.Join(bin, "official-"+arch)
		commands := []string{"./verify/bhverify"}
		if arch == runtime.GOARCH {
			commands = append(commands, "./pipeline/bhtrain")
		}
		official.source.build(dir, arch, commands...)
		official.builds[arch] = dir
	}
	return dir, official.source.name
}

// audited is a fleet whose policy also demands a dataset publisher's word, one
// trainer, and rebuilds. Releases are made with that trainer.
type audited struct {
	*fleet
	bin       string         // builds of bhtrain and bhverify that know their own sum,
	trainer   verify.Trainer // which is this
	publisher *sign.Signer
	data      *sign.Signer
	auditors  map[string]*sign.Signer
}

func newAudited(t *testing.T, auditors ...string) *audited {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and trains")
	}
	bin, name := officialBuild(t, runtime.GOARCH)
	a := &audited{
		fleet: &fleet{user: newUser(t), from: "oci-layout:repo", manifest: map[int64]canon.Digest{}, epoch: 1},
		bin:   bin, trainer: name, auditors: map[string]*sign.Signer{},
	}
	if dir := os.Getenv("BH_STACK"); dir != "" {
		a.from = fmt.Sprintf("%s/audits/%s-%d", newStack(t).Registry, strings.ToLower(t.Name()), time.Now().UnixNano())
	}
	ref, err := oras.ParseRef(a.from)
	if err != nil {
		t.Fatal(err)
	}
	if ref.Layout != "" {
		ref.Layout = filepath.Join(a.dir, "repo")
	}
	if a.store, err = oras.Open(context.Background(), ref, oras.Options{Write: true}); err != nil {
		t.Fatal(err)
	}
	signer := func(name string) *sign.Signer {
		k := a.newSigner(name)
		a.write(name+".pub", []byte(k.Key().PEM()))
		return k
	}
	a.publisher, a.channels, a.data = signer("publisher"), signer("desk"), signer("data")
	for _, name := range auditors {
		a.auditors[name] = signer(name)
	}
	return a
}

// own is the path of a command that knows its own sum.
func (a *audited) own(name string) string { return filepath.Join(a.bin, name) }

// demand writes the policy of agents and auditors. An operator is named as its
// one auditor, or NAME=AUDITOR,AUDITOR.
func (a *audited) demand(reproductions string, operators ...string) {
	a.t.Helper()
	text := fmt.Sprintf(`version: 1
product: bhtrain
publishers: [{name: publisher, key: publisher.pub}]
channel: {name: stable, epoch: 1, signers: [{name: desk, key: desk.pub}]}
datasets: {publishers: [{name: data, key: data.pub}]}
trainers: [{version: %s, h1: %q}]
reproductions:
  %s
  rebuilders:
`, a.trainer.Version, a.trainer.H1, reproductions)
	for _, o := range operators {
		name, who, several := strings.Cut(o, "=")
		if !several {
			who = name
		}
		var ids []string
		for id := range strings.SplitSeq(who, ",") {
			ids = append(ids, fmt.Sprintf("{name: %s, key: %[1]s.pub}", id))
		}
		text += fmt.Sprintf("    - {operator: %s, identities: [%s]}\n", name, strings.Join(ids, ", "))
	}
	a.write("policy.yaml", []byte(text))
}

// honest trains release n, has its dataset signed by the dataset publisher, and
// publishes it as current.
func (a *audited) honest(n int64, inputs ...string) canon.Digest {
	a.t.Helper()
	d := a.make(n, a.data, inputs...)
	a.publish(n)
	return d
}

// make trains release n of inputs, with the publisher's key and a dataset signed
// by somebody, and puts it into the store.
func (a *audited) make(n int64, data *sign.Signer, inputs ...string) canon.Digest {
	a.t.Helper()
	out := fmt.Sprintf("dist-%d", n)
	args := []string{"run", "-q", "--key", a.publisher.Path(), "--release", fmt.Sprint(n), "--seed", fmt.Sprint(n), "--out", out}
	a.must(a.own("bhtrain"), append(args, inputs...)...)
	a.write("own.yaml", []byte("version: 1\nproduct: bhtrain\npublishers: [{name: publisher, key: publisher.pub}]\n"))
	a.must(a.own("bhtrain"), "sign-dataset", out, "--key", data.Path(), "--policy", "own.yaml")
	a.must(a.own("bhtrain"), "push", out, a.from)
	d, err := a.store.Resolve(context.Background(), oras.ReleaseTag(n))
	if err != nil {
		a.t.Fatal(err)
	}
	a.manifest[n] = d.Digest
	return d.Digest
}

// counterfeit makes release n of the parts of another one and puts it into the store,
// signed with the publisher's key as if program had trained it.
func (a *audited) counterfeit(n, of int64, program verify.Trainer, change func(*oras.Release, []oras.File)) canon.Digest {
	a.t.Helper()
	ctx := context.Background()
	old, err := oras.Pull(ctx, a.store, a.manifest[of])
	if err != nil {
		a.t.Fatal(err)
	}
	rel, models := old.Release, old.Models
	rel.Number = n
	change(&rel, models)
	b, err := oras.Pack(rel, models)
	if err == nil {
		err = oras.Push(ctx, a.store, b)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	s, err := verify.NewProvenance("bhtrain", b.Digest, verify.Provenance{
		BuildDefinition: verify.BuildDefinition{
			BuildType:            verify.BuildTypeTrain,
			ExternalParameters:   verify.Parameters{Product: rel.Product, Release: rel.Number, Recipe: rel.Recipe},
			ResolvedDependencies: []verify.Resource{{Name: verify.DependencyDataset, Digest: verify.Digests(rel.Dataset)}},
		},
		RunDetails: verify.RunDetails{Builder: verify.Builder{
			ID: "https://example.org/builder", Version: map[string]string{verify.VersionTrainer: program.Version, verify.VersionModule: program.H1},
		}},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	bundle, err := a.publisher.Sign(ctx, s)
	if err == nil {
		_, err = oras.AttachBundle(ctx, a.store, b.Descriptor(), bundle, verify.PredicateProvenance, oras.ProvenanceTag(b.Digest), time.Now())
	}
	if err != nil {
		a.t.Fatal(err)
	}
	a.manifest[n] = b.Digest
	return b.Digest
}

// claim puts a statement beside release n by somebody who rebuilt nothing.
func (a *audited) claim(by *sign.Signer, n int64, change func(*verify.Reproduction)) {
	a.t.Helper()
	ctx := context.Background()
	rel, err := oras.Pull(ctx, a.store, a.manifest[n])
	if err != nil {
		a.t.Fatal(err)
	}
	recipe, err := canon.Canonicalize(rel.Release.Recipe)
	if err != nil {
		a.t.Fatal(err)
	}
	now := verify.FormatTime(time.Now())
	said := verify.Reproduction{
		Product: "bhtrain", Release: n, Result: verify.ResultPass, Manifest: rel.Digest, Obtained: rel.Digest,
		Recipe: canon.Sum(recipe), Dataset: rel.Release.Dataset, Trainer: a.trainer,
		Environment: verify.Environment{OS: "linux", Arch: "amd64", Go: "go1.26.8"},
		Started:     now, Finished: now, Transcript: canon.Sum([]byte("made up")),
	}
	change(&said)
	s, err := verify.NewReproduction(said)
	if err != nil {
		a.t.Fatal(err)
	}
	bundle, err := by.Sign(ctx, s)
	if err == nil {
		_, err = oras.AttachBundle(ctx, a.store, rel.Descriptor(), bundle, verify.PredicateReproduction, "", time.Now())
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// attest is 'bhverify rebuild --attest' about release n by an auditor.
func (a *audited) attest(who string, n int64, more ...string) result {
	a.t.Helper()
	args := []string{"rebuild", a.from + "@" + a.manifest[n].String(), "--policy", "policy.yaml", "--attest", "--key", a.auditors[who].Path()}
	return a.run(nil, a.own("bhverify"), append(args, more...)...)
}

// watch is one look of 'bhverify watch' by an auditor.
func (a *audited) watch(who string, more ...string) result {
	a.t.Helper()
	args := []string{"watch", a.from, "--policy", "policy.yaml", "--state", who + ".json", "--key", a.auditors[who].Path(), "--once"}
	return a.run(nil, a.own("bhverify"), append(args, more...)...)
}

// says wants an exit code and texts.
func (a *audited) says(what string, r result, code int, texts ...string) {
	a.t.Helper()
	if r.code != code {
		a.t.Errorf("%s: exit code %d, want %d\n%s%s", what, r.code, code, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.err, text) {
			a.t.Errorf("%s: does not say %q\n%s%s", what, text, r.out, r.err)
		}
	}
}

// statements counts the statements of rebuilds beside release n.
func (a *audited) statements(n int64) (count int) {
	a.t.Helper()
	list, err := oras.Bundles(context.Background(), a.store, a.manifest[n])
	if err != nil {
		a.t.Fatal(err)
	}
	for _, b := range list.Bundles {
		if b.PredicateType == verify.PredicateReproduction {
			count++
		}
	}
	return count
}

// trap is a PATH on which every program that could build is one that leaves a
// mark.
func (a *audited) trap() (path, mark string) {
	a.t.Helper()
	dir := a.t.TempDir()
	mark = filepath.Join(dir, "started")
	for _, name := range []string{"go", "git", "sh"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n: > '"+mark+"'\nexit 1\n"), 0o755); err != nil {
			a.t.Fatal(err)
		}
	}
	return "PATH=" + dir, mark
}

// Row 12: publisher's key, registry and channel signer's key are an attacker's.
// That of the dataset's publisher is another, and so are the auditor's.
func TestAttack12_EverythingStolen(t *testing.T) {
	a := newAudited(t, "ann")
	a.demand("min: 1", "ann")
	a.honest(1)
	a.refused("rebuilds", 0) // nobody has rebuilt it
	a.says("watch", a.watch("ann"), 0, "attested PASS")
	a.sync()
	a.is("current", 1, 0)

	number := int64(1)
	// attack publishes a release that the attacker made, with all that he has: the
	// channel says it is current, and he claims to have rebuilt it.
	attack := func(t *testing.T, make func(n int64), checks ...string) (n int64) {
		t.Helper()
		was := a.t
		a.t = t
		t.Cleanup(func() { a.t = was })
		number++
		n = number
		make(n)
		a.publish(n)
		for _, k := range []*sign.Signer{a.publisher, a.channels, a.newSigner("mallory")} {
			a.claim(k, n, func(*verify.Reproduction) {})
		}
		for _, c := range checks {
			a.refused(c, 1)
		}
		return n
	}
	after := func(t *testing.T, n int64, checks ...string) {
		t.Helper()
		for _, c := range checks {
			a.refused(c, 1)
		}
		a.is("behind", 1, 1)
		if r := a.run(nil, "bhagent", "status", "--state", "state"); !strings.Contains(r.out+r.err, a.manifest[1].String()) {
			t.Errorf("status does not show release 1:\n%s%s", r.out, r.err)
		}
		r := a.run(nil, "bhverify", "auditors", a.from+"@"+a.manifest[n].String(), "--policy", "policy.yaml")
		a.says("auditors", r, 3, "0 of 1, needs 1", "3 statements beside the release are signed by nobody of the policy")
	}
	// buildsNothing wants every command of an auditor to refuse, without a
	// dataset fetched, a program started or a statement made.
	buildsNothing := func(t *testing.T, n int64, check string) {
		t.Helper()
		path, mark := a.trap()
		temp := filepath.Join(t.TempDir(), "temp")
		if err := os.Mkdir(temp, 0o777); err != nil {
			t.Fatal(err)
		}
		before := a.statements(n)
		was := a.env
		a.env = []string{path, "TMPDIR=" + temp}
		defer func() { a.env = was }()
		for _, more := range [][]string{{}, {"--keep", "kept"}, {"--check-transcripts"}, {"--bootstrap"}, {"--bootstrap", "--source", testkit.Root(t)}} {
			a.says(fmt.Sprint("rebuild --attest ", more), a.attest("ann", n, more...), 3, "✗ "+check)
		}
		a.says("watch", a.watch("ann"), 3, check)
		for _, name := range []string{mark, filepath.Join(a.dir, "kept")} {
			if _, err := os.Stat(name); err == nil {
				t.Errorf("%s is there: something was run or built", name)
			}
		}
		if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
			t.Errorf("%v left, %v", left, err)
		}
		if now := a.statements(n); now != before {
			t.Errorf("%d statements, %d before", now, before)
		}
	}

	t.Run("a back door in a model", func(t *testing.T) {
		n := attack(t, func(n int64) {
			a.counterfeit(n, 1, a.trainer, func(_ *oras.Release, m []oras.File) { m[2].Data[len(m[2].Data)-9] ^= 1 })
		}, "rebuilds")
		a.says("watch", a.watch("ann"), 4, "attested FAIL", "NOT REPRODUCED")
		a.says("rebuild", a.attest("ann", n), 4, "attested FAIL", "threat_classifier.onnx")
		after(t, n, "rebuilds")
	})
	evil := verify.Trainer{Version: "v6.6.6", H1: "h1:" + strings.Repeat("E", 43) + "="}
	t.Run("an evil trainer", func(t *testing.T) {
		n := attack(t, func(n int64) { a.counterfeit(n, 1, evil, func(*oras.Release, []oras.File) {}) }, "trainer", "rebuilds")
		buildsNothing(t, n, "trainer")
		after(t, n, "trainer", "rebuilds")
	})
	t.Run("an allowed version with other code", func(t *testing.T) {
		evil.Version = a.trainer.Version
		n := attack(t, func(n int64) { a.counterfeit(n, 1, evil, func(*oras.Release, []oras.File) {}) }, "trainer")
		buildsNothing(t, n, "trainer")
		after(t, n, "trainer", "rebuilds")
	})
	t.Run("a poisoned dataset", func(t *testing.T) {
		// Honestly trained on rows that the attacker changed.
		n := attack(t, func(n int64) { a.make(n, a.publisher, "--redaction", "0") }, "dataset.publisher", "rebuilds")
		buildsNothing(t, n, "dataset.publisher")
		after(t, n, "dataset.publisher", "rebuilds")
	})
	// The honest publisher is back.
	number++
	a.honest(number)
	a.refused("rebuilds", 1)
	a.says("watch", a.watch("ann"), 0, "attested PASS")
	a.sync()
	a.is("current", number, 0)
}

// Row 13: one auditor lies.
func TestAttack13_LyingAuditor(t *testing.T) {
	a := newAudited(t, "ann", "bob", "eve")
	const warn, block = "min: 2", "min: 2\n  on_failure: block"
	a.demand(warn, "ann", "bob", "eve")
	a.honest(1)
	no := func(s *verify.Reproduction) { s.Result, s.Obtained = verify.ResultFail, canon.Sum([]byte("others")) }
	a.says("ann", a.attest("ann", 1), 0, "attested PASS")
	a.claim(a.auditors["eve"], 1, no)
	a.refused("rebuilds", 0)
	a.says("bob", a.attest("bob", 1), 0, "attested PASS")

	// A false "no" is shown; whether it blocks is the policy's to say.
	a.demand(block, "ann", "bob", "eve")
	a.refused("rebuilds", 0)
	a.says("release", a.run(nil, "bhverify", "release", a.from, "--policy", "policy.yaml"), 3, "other bytes at eve")
	a.demand(warn, "ann", "bob", "eve")
	a.says("release", a.run(nil, "bhverify", "release", a.from, "--policy", "policy.yaml"), 0, "2 of 3: ann, bob; other bytes at eve")
	a.says("auditors", a.run(nil, "bhverify", "auditors", a.from, "--policy", "policy.yaml"), 0, "eve       FAIL", "2 of 3, needs 2")
	a.sync()
	a.uses(1)

	// A false "yes", said twice, is one of two; and the honest ones say no.
	a.counterfeit(2, 1, a.trainer, func(_ *oras.Release, m []oras.File) { m[0].Data[len(m[0].Data)-9] ^= 1 })
	a.publish(2)
	a.claim(a.auditors["eve"], 2, func(*verify.Reproduction) {})
	a.claim(a.auditors["eve"], 2, func(s *verify.Reproduction) { s.Environment.Arch = "arm64" })
	a.refused("rebuilds", 1)
	a.says("ann", a.attest("ann", 2), 4, "attested FAIL")
	a.refused("rebuilds", 1)
	a.says("auditors", a.run(nil, "bhverify", "auditors", a.from+"@"+a.manifest[2].String(), "--policy", "policy.yaml"), 3,
		"ann       FAIL", "bob       NOT YET", "eve       PASS", "1 of 3, needs 2")
}

// Row 14: auditors copy an answer, with its transcript or with one made up.
func TestAttack14_CopiedAnswer(t *testing.T) {
	a := newAudited(t, "ann", "bob", "eve")
	a.demand("min: 1", "ann", "bob", "eve")
	a.honest(1)
	a.says("ann", a.attest("ann", 1), 0, "attested PASS")
	var audit verify.Audit
	if err := json.Unmarshal([]byte(a.must("bhverify", "auditors", a.from, "--policy", "policy.yaml", "--format", "json")), &audit); err != nil || audit.Operators[0].Transcript.IsZero() {
		t.Fatalf("%v, %+v", err, audit)
	}
	later := func(s *verify.Reproduction) {
		s.Started = audit.Operators[0].Finished
		s.Finished = verify.FormatTime(time.Now().Add(time.Minute))
	}
	a.claim(a.auditors["eve"], 1, func(s *verify.Reproduction) { later(s); s.Transcript = audit.Operators[0].Transcript })
	a.claim(a.auditors["bob"], 1, later)
	// One shows to everybody, the other to who rebuilds.
	a.says("auditors", a.run(nil, "bhverify", "auditors", a.from, "--policy", "policy.yaml"), 0, "ann       PASS", "bob       PASS", "eve       COPIED", "is that of ann")
	a.says("rebuild", a.run(nil, a.own("bhverify"), "rebuild", a.from, "--policy", "policy.yaml", "--check-transcripts"), 0,
		"ann       PASS", "bob       COPIED", "eve       COPIED", "1 of 3, needs 1")
	// The honest ones are never named, whoever looks.
	a.says("bob himself", a.attest("bob", 1, "--check-transcripts"), 0, "ann       PASS")
}

// Three auditors on three kinds of processor rebuild and sign, and an agent that
// demands two of them counts operators. With BH_E2E=real the release is of the
// real data, which takes emulators some minutes each.
func TestThreeAuditorsOnThreeProcessors(t *testing.T) {
	long(t)
	a := newAudited(t, "ann", "bob", "cleo")
	sync := func(code int, texts ...string) {
		t.Helper()
		a.says("sync", a.run(nil, "bhagent", a.syncArgs()...), code, texts...)
	}
	a.demand("min: 2", "ann", "bob", "cleo")
	var inputs []string
	if os.Getenv("BH_E2E") == "real" {
		inputs = realArgs(t)
	}
	a.honest(1, inputs...)
	on := func(who, arch, emulator string) {
		t.Helper()
		bin, _ := officialBuild(t, arch)
		line := []string{filepath.Join(bin, "bhverify")}
		if arch != runtime.GOARCH {
			path, err := exec.LookPath(emulator)
			if err != nil {
				testkit.Missing(t, emulator+" is not installed")
			}
			line = append([]string{path}, line...)
		}
		line = append(line, "rebuild", a.from+"@"+a.manifest[1].String(), "--policy", "policy.yaml", "--attest", "--key", a.auditors[who].Path())
		a.says(who, a.run(nil, line[0], line[1:]...), 0, "REPRODUCED", "attested PASS")
	}
	sync(3, "✗ rebuilds", "0 of 3")
	on("ann", "amd64", "qemu-x86_64-static")
	sync(3, "✗ rebuilds", "1 of 3: ann")
	on("bob", "arm64", "qemu-aarch64-static")

	// Two statements of one operator are one.
	a.demand("min: 2", "lab=ann,bob", "cleo")
	sync(3, "✗ rebuilds", "1 of 2: lab")
	// Nobody rebuilds for themselves.
	a.demand("min: 2", "ann", "bob", "publisher")
	sync(1, "nobody rebuilds for themselves")
	a.uses(0)

	a.demand("min: 2", "ann", "bob", "cleo")
	a.sync()
	a.is("current", 1, 0)
	on("cleo", "s390x", "qemu-s390x-static")
	a.says("auditors", a.run(nil, "bhverify", "auditors", a.from, "--policy", "policy.yaml"), 0,
		"linux/amd64", "linux/arm64", "linux/s390x", "3 of 3, needs 2")
}

// A release of another algorithm is rebuilt by the version that made it, if the
// policy allows that with its sum; otherwise no toolchain is started.
func TestBootstrapBuildsOnlyWhatThePolicyAllows(t *testing.T) {
	a := newAudited(t, "ann", "bob")
	now := fmt.Sprintf("const Algorithm = %d", trainer.Algorithm)
	other := newSource(t, filepath.Join(t.TempDir(), "source"), "v0.8.0", map[string][2]string{
		"trainer/recipe.go": {now, fmt.Sprintf("const Algorithm = %d", trainer.Algorithm+1)},
	})
	this := a.bin
	a.bin = filepath.Join(t.TempDir(), "other")
	other.build(a.bin, runtime.GOARCH, "./pipeline/bhtrain")
	a.honest(1) // by the other version
	a.bin = this

	a.trainer = other.name
	a.demand("min: 1", "ann")
	rebuild := func(more ...string) result {
		return a.run(nil, a.own("bhverify"), append([]string{"rebuild", a.from, "--policy", "policy.yaml"}, more...)...)
	}
	a.says("this version", rebuild(), 1, "v0.8.0", "--bootstrap")
	a.says("no policy", a.run(nil, a.own("bhverify"), "rebuild", a.from, "--bootstrap"), 2, "needs --policy")
	a.says("no bootstrap", rebuild("--source", other.dir), 2, "needs --bootstrap")

	path, mark := a.trap()
	trapped := func(what, text string, more ...string) {
		t.Helper()
		a.env = []string{path}
		defer func() { a.env = nil }()
		a.says(what, rebuild(append([]string{"--bootstrap"}, more...)...), 3, text)
		if _, err := os.Stat(mark); err == nil {
			t.Fatalf("%s: a program was started", what)
		}
	}
	// Source that is not what the sum names, by one byte.
	changed := filepath.Join(t.TempDir(), "changed")
	if err := os.CopyFS(changed, os.DirFS(other.dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(changed, "README.md"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	trapped("source with another sum", "and the policy allows "+other.name.H1, "--source", changed)
	// Other sums, and versions without one.
	for _, allowed := range []verify.Trainer{{Version: "v0.8.0", H1: "h1:" + strings.Repeat("A", 43) + "="}, {Version: "v0.9.0", H1: other.name.H1}} {
		a.trainer = allowed
		a.demand("min: 1", "ann")
		trapped("a trainer that is not allowed", "✗ trainer", "--source", other.dir)
	}
	a.trainer = other.name
	a.demand("min: 1", "ann")
	policy, err := os.ReadFile(filepath.Join(a.dir, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	a.write("policy.yaml", []byte(strings.Replace(string(policy), fmt.Sprintf(", h1: %q", other.name.H1), "", 1)))
	trapped("a version without a sum", "allows that with its h1", "--source", other.dir)
	a.write("policy.yaml", policy)

	// What Go has downloaded and compiled is not in the home that commands have here.
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} {
		dir, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		a.env = append(a.env, name+"="+strings.TrimSpace(string(dir)))
	}
	r := a.attest("ann", 1, "--bootstrap", "--source", other.dir, "--format", "json")
	a.says("bootstrap", r, 0, "built from its source", "attested PASS")
	var report struct {
		Reproduced bool
		Program    struct{ Trainer verify.Trainer }
	}
	if err := json.Unmarshal([]byte(r.out), &report); err != nil || !report.Reproduced || report.Program.Trainer != other.name {
		t.Errorf("%v, %+v", err, report)
	}
	a.says("auditors", a.run(nil, "bhverify", "auditors", a.from, "--policy", "policy.yaml"), 0, "v0.8.0", "1 of 1, needs 1")

	// The same through a module proxy, where Go is asked for the version; what it
	// gives is built only if it has the sum.
	log := filepath.Join(t.TempDir(), "go.log")
	caches := a.env
	through := func(dir string) {
		a.env = append(slices.Clone(caches), "GOPROXY=file://"+proxyOf(t, other.name.Version, dir), a.logged(log))
	}
	ran := func(what string, want ...string) {
		t.Helper()
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for line := range strings.Lines(string(text)) {
			have = append(have, strings.Fields(line)[0])
		}
		if !slices.Equal(have, want) {
			t.Errorf("%s: ran go %q, want %q", what, have, want)
		}
		if err := os.Remove(log); err != nil {
			t.Fatal(err)
		}
	}
	through(changed)
	a.says("another zip file in the proxy", rebuild("--bootstrap"), 3, "and the policy allows "+other.name.H1, "nothing was built")
	ran("another zip file in the proxy", "mod")
	a.says("watch, with that", a.watch("bob", "--bootstrap"), 3, "and the policy allows "+other.name.H1)
	ran("watch, with that", "mod")
	through(other.dir)
	a.says("proxy", rebuild("--bootstrap"), 0, "built from its source", "REPRODUCED")
	ran("proxy", "mod", "build")
	a.says("watch, without --bootstrap", a.watch("bob"), 3, "no trainer that the policy names; --bootstrap")
	a.says("watch", a.watch("bob", "--bootstrap"), 0, "built from its source", "attested PASS")
	ran("watch", "mod", "build")
	state, err := os.ReadFile(filepath.Join(a.dir, "bob.json"))
	if err != nil || !strings.Contains(string(state), `"number":1,"obtained":"`+a.manifest[1].String()) || !strings.Contains(string(state), `"result":"PASS"`) {
		t.Errorf("%v, %s", err, state)
	}
	a.demand("min: 2", "ann", "bob")
	a.says("two auditors", a.run(nil, "bhverify", "auditors", a.from, "--policy", "policy.yaml"), 0, "2 of 2, needs 2")
}

// logged is a PATH on which each run of go is noted in a file first.
func (a *audited) logged(log string) string {
	a.t.Helper()
	path, err := exec.LookPath("go")
	if err != nil {
		a.t.Fatal(err)
	}
	dir := a.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte("#!/bin/sh\necho \"$@\" >> '"+log+"'\nexec '"+path+"' \"$@\"\n"), 0o755); err != nil {
		a.t.Fatal(err)
	}
	return "PATH=" + dir + string(filepath.ListSeparator) + os.Getenv("PATH")
}

// proxyOf makes a directory that is a module proxy with one version, that of the
// tree in dir.
func proxyOf(t *testing.T, version, dir string) string {
	t.Helper()
	const path = "github.com/battle-hardened-ai/bhtrain"
	proxy := t.TempDir()
	at := filepath.Join(proxy, filepath.FromSlash(path), "@v")
	if err := os.MkdirAll(at, 0o777); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"list": []byte(version + "\n"), version + ".mod": mod, version + ".info": fmt.Appendf(nil, `{"Version":%q,"Time":"2026-01-01T00:00:00Z"}`, version),
	} {
		if err := os.WriteFile(filepath.Join(at, name), text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(at, version+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	err = zip.CreateFromDir(f, module.Version{Path: path, Version: version}, dir)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return proxy
}
