package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/pflag"
	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/zip"

	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
	"github.com/battle-hardened-ai/bhtrain/verify/rebuild"
)

const modulePath = "github.com/battle-hardened-ai/bhtrain"

// bootstrap builds the trainer that a release was made with, if the policy
// allows it, and has that do the rest.
type bootstrap struct {
	on     *bool
	source *string
}

func newBootstrap(fs *pflag.FlagSet) *bootstrap {
	return &bootstrap{
		on:     fs.Bool("bootstrap", false, "if the release was made by another version of this program which the policy allows with its h1 sum, build that with the Go toolchain and let it rebuild"),
		source: fs.String("source", "", "`DIR`: source tree of that version, for --bootstrap (default: from the Go module proxy)"),
	}
}

func (b *bootstrap) check(opt *rebuild.Options) error {
	switch {
	case !*b.on && *b.source != "":
		return cli.Usagef("rebuild: --source needs --bootstrap")
	case *b.on && opt.Verifier == nil:
		return cli.Usagef("rebuild: --bootstrap needs --policy: it says whose code you run")
	}
	return nil
}

// allowed returns the entry of the policy that allows the program, by its h1
// sum: a version or a commit alone says nothing that could be held against code.
func allowed(p verify.Policy, program verify.Trainer) (verify.Trainer, error) {
	i := slices.IndexFunc(p.Trainers, func(t verify.Trainer) bool { return t.H1 != "" && program.Matches(t) })
	if i < 0 || program.Version == "" {
		return verify.Trainer{}, fmt.Errorf("%w: --bootstrap: the release was made with trainer %s, and no entry of trainers in the policy allows that with its h1; nothing was built", rebuild.ErrRefused, verify.Printable(program.String()))
	}
	// The version is the release's own word and becomes part of a command line.
	if err := module.Check(modulePath, program.Version); err != nil {
		return verify.Trainer{}, fmt.Errorf("%w: --bootstrap: the release was made with trainer %s: %s; nothing was built", rebuild.ErrRefused, verify.Printable(program.String()), verify.Printable(err.Error()))
	}
	return verify.Trainer{Version: program.Version, H1: program.H1, Commit: p.Trainers[i].Commit}, nil
}

// build makes the command of an allowed version in work, from nothing but the
// files that its h1 sum names, and returns its path. Go runs no code of theirs.
func (b *bootstrap) build(ctx context.Context, work string, want verify.Trainer) (string, error) {
	m := module.Version{Path: modulePath, Version: want.Version}
	packed := filepath.Join(work, "module.zip")
	var err error
	if *b.source != "" {
		err = packSource(packed, m, *b.source)
	} else {
		packed, err = download(ctx, work, m)
	}
	if err != nil {
		return "", err
	}
	have, err := dirhash.HashZip(packed, dirhash.Hash1)
	if err != nil {
		return "", err
	}
	if have != want.H1 {
		return "", fmt.Errorf("%w: --bootstrap: the source of %s has %s, and the policy allows %s; nothing was built", rebuild.ErrRefused, verify.Printable(m.String()), have, want.H1)
	}
	tree, program := filepath.Join(work, "source"), filepath.Join(work, "bhverify")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	if err := zip.Unzip(tree, m, packed); err != nil {
		return "", err
	}
	const in = modulePath + "/internal/cli"
	flags := fmt.Sprintf("-X %s.version=%s -X %s.digest=%s", in, want.Version, in, want.H1)
	if want.Commit != "" {
		flags += fmt.Sprintf(" -X %s.commit=%s", in, want.Commit)
	}
	_, err = goCommand(ctx, tree, "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", flags, "-o", program, "./verify/bhverify")
	return program, err
}

// packSource packs a source tree as the module proxy does.
func packSource(to string, m module.Version, dir string) error {
	text, err := readFile(filepath.Join(dir, "go.mod"), 1<<20)
	if err != nil {
		return err
	}
	if path := modfile.ModulePath(text); path != m.Path {
		return fmt.Errorf("%s is module %s, want %s", dir, verify.Printable(path), m.Path)
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	err = zip.CreateFromDir(f, m, dir)
	return errors.Join(err, f.Close())
}

// download asks the module proxy for the zip file of a module.
func download(ctx context.Context, work string, m module.Version) (string, error) {
	out, err := goCommand(ctx, work, "mod", "download", "-json", m.Path+"@"+m.Version)
	if err != nil {
		return "", err
	}
	var got struct{ Zip string }
	if err := json.Unmarshal(out, &got); err != nil {
		return "", fmt.Errorf("go mod download: %w", err)
	}
	return got.Zip, nil
}

// goCommand runs the Go toolchain with settings that are fixed but for its
// folders and the proxy. The sums of dependencies stand in go.sum of the source,
// whose own sum the policy has, so no other database is asked.
func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(),
		"GOENV=off", "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local", "GO111MODULE=on", "GOEXPERIMENT=", "GODEBUG=",
		"GOSUMDB=off", "GONOSUMDB=", "GONOSUMCHECK=", "GOPRIVATE=", "GONOPROXY=", "GOINSECURE=", "GOVCS=*:off",
		"CGO_ENABLED=0", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH, "GOAMD64=v1",
	)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("go %s: %w: %s", args[0], err, verify.Printable(strings.TrimSpace(stderr.String()+string(out))))
	}
	return out, nil
}

// run lets the program that the release was made with rebuild it, and reports
// false if that is this one. Nothing is fetched or built before the policy has
// allowed release and program.
func (b *bootstrap) run(ctx context.Context, c *cli.Call, flags *pflag.FlagSet, store oras.Store, ref oras.Ref, d oras.Descriptor, opt rebuild.Options) (bool, error) {
	r, err := rebuild.Judge(ctx, store, d.Digest, opt)
	if errors.Is(err, rebuild.ErrRefused) {
		return true, writeRefusal(c, r)
	}
	if err != nil {
		return true, err
	}
	var program verify.Trainer
	if r.Publisher != nil {
		program = r.Publisher.Trainer
	}
	if own := opt.Program.Trainer; own.H1 != "" && own.H1 == program.H1 {
		return false, nil
	}
	want, err := allowed(opt.Verifier.Policy(), program)
	if err != nil {
		return true, cli.Exit(cli.Refused, err)
	}
	work, err := os.MkdirTemp(opt.TempDir, "bhverify-bootstrap-")
	if err != nil {
		return true, err
	}
	defer os.RemoveAll(work)
	progress, end := c.Progress()
	progress("building trainer "+want.Version, 0, 0)
	path, err := b.build(ctx, work, want)
	end()
	if errors.Is(err, rebuild.ErrRefused) {
		err = cli.Exit(cli.Refused, err)
	}
	if err != nil {
		return true, err
	}
	place := ref.Place()
	place.Digest = d.Digest
	args := []string{"rebuild", place.String()}
	flags.Visit(func(f *pflag.Flag) {
		if f.Name == "bootstrap" || f.Name == "source" {
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			args = append(args, "--"+f.Name+"="+v)
		}
	})
	fmt.Fprintf(c.Stderr, "rebuilding with trainer %s, built from its source\n", verify.Printable(want.String()))
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = c.Stdout, c.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		err = cli.Exit(exit.ExitCode(), nil)
	}
	return true, err
}

// writeRefusal shows why the policy refuses a release.
func writeRefusal(c *cli.Call, r *rebuild.Report) error {
	var err error
	if c.JSON() {
		err = c.WriteJSON(r)
	} else {
		err = r.Verdict.WriteText(c.Stdout, c.Color(c.Stdout))
	}
	if err == nil {
		err = cli.Exit(cli.Refused, nil)
	}
	return err
}
