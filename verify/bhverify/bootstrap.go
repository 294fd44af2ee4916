package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
		return cli.Usagef("--source needs --bootstrap")
	case *b.on && opt.Verifier == nil:
		return cli.Usagef("--bootstrap needs --policy: it says whose code you run")
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
		hint := ""
		if *b.source != "" {
			hint = "; a checkout has to be of that very version and hold nothing else ('git status --ignored' shows what else is there)"
		}
		return "", fmt.Errorf("%w: --bootstrap: the source of %s has %s, and the policy allows %s; nothing was built%s", rebuild.ErrRefused, verify.Printable(m.String()), have, want.H1, hint)
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
	_, err = goCommand(ctx, tree, nil, "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", flags, "-o", program, "./verify/bhverify")
	return program, err
}

// packSource packs a source tree as the module proxy does.
func packSource(to string, m module.Version, dir string) error {
	text, err := cli.ReadFile(filepath.Join(dir, "go.mod"), 1<<20)
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

// download asks the module proxy for the zip file of a module. It is put into
// work, so that what was downloaded before has no say.
func download(ctx context.Context, work string, m module.Version) (string, error) {
	out, err := goCommand(ctx, work, []string{"GOMODCACHE=" + filepath.Join(work, "modules"), "GOFLAGS=-modcacherw"}, "mod", "download", "-json", m.Path+"@"+m.Version)
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
// whose own sum the policy has, so no other database is asked. More settings
// overrule these.
func goCommand(ctx context.Context, dir string, more []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(),
		"GOENV=off", "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local", "GO111MODULE=on", "GOEXPERIMENT=", "GODEBUG=",
		"GOSUMDB=off", "GONOSUMDB=", "GONOSUMCHECK=", "GOPRIVATE=", "GONOPROXY=", "GOINSECURE=", "GOVCS=*:off",
		"CGO_ENABLED=0", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH, "GOAMD64=v1",
	)
	cmd.Env = append(cmd.Env, more...)
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

// built is the program that a release was made with.
type built struct {
	work    string // folder, to be removed
	path    string
	trainer verify.Trainer
}

func (b *built) remove() { os.RemoveAll(b.work) }

// of builds the program that the release was made with; nil if that is the one
// that runs here. Nothing is fetched or built before the policy has allowed release
// and program: else it is rebuild.ErrRefused, with a Report if that has a verdict
// which says why.
func (b *bootstrap) of(ctx context.Context, c *cli.Call, store oras.Store, d oras.Descriptor, opt rebuild.Options) (*built, *rebuild.Report, error) {
	r, err := rebuild.Judge(ctx, store, d.Digest, opt)
	if err != nil {
		return nil, r, err
	}
	var program verify.Trainer
	if r.Publisher != nil {
		program = r.Publisher.Trainer
	}
	if own := opt.Program.Trainer; own.H1 != "" && own.H1 == program.H1 {
		return nil, nil, nil
	}
	made := &built{}
	if made.trainer, err = allowed(opt.Verifier.Policy(), program); err != nil {
		return nil, nil, err
	}
	if made.work, err = os.MkdirTemp(opt.TempDir, "bhverify-bootstrap-"); err != nil {
		return nil, nil, err
	}
	progress, end := c.Progress()
	progress("building trainer "+made.trainer.Version, 0, 0)
	made.path, err = b.build(ctx, made.work, made.trainer)
	end()
	if err != nil {
		made.remove()
		return nil, nil, err
	}
	fmt.Fprintf(c.Stderr, "rebuilding with trainer %s, built from its source\n", verify.Printable(made.trainer.String()))
	return made, nil, nil
}

// rebuild has the program rebuild the release d of ref, with the flags that were
// given but for those in without, and more. It returns the exit code of the
// program; an error means that it has none.
func (b *built) rebuild(ctx context.Context, ref oras.Ref, d oras.Descriptor, stdout, stderr io.Writer, flags *pflag.FlagSet, without []string, more ...string) (int, error) {
	place := ref.Place()
	place.Digest = d.Digest
	args := []string{"rebuild", place.String()}
	flags.Visit(func(f *pflag.Flag) {
		if slices.Contains(without, f.Name) {
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
	cmd := exec.CommandContext(ctx, b.path, append(args, more...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// run lets the program that the release was made with rebuild it, and reports
// false if that is this one.
func (b *bootstrap) run(ctx context.Context, c *cli.Call, flags *pflag.FlagSet, store oras.Store, ref oras.Ref, d oras.Descriptor, opt rebuild.Options) (bool, error) {
	program, r, err := b.of(ctx, c, store, d, opt)
	if errors.Is(err, rebuild.ErrRefused) && r != nil {
		return true, writeRefusal(c, r)
	}
	if err != nil || program == nil {
		return err != nil, err
	}
	defer program.remove()
	code, err := program.rebuild(ctx, ref, d, c.Stdout, c.Stderr, flags, []string{"bootstrap", "source"})
	if code != 0 {
		err = cli.Exit(code, nil)
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
