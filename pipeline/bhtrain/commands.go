package main

import (
	"context"
	"errors"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

type runFunc = func(context.Context, *cli.Call, []string) error

var runCommand = cli.Command{
	Name:  "run",
	Short: "make a signed, verified release from raw inputs",
	Long: `
Reads the inputs, builds a snapshot, trains the four models, packs them as an
OCI artifact in the directory --out, signs the provenance and verifies the
result. Without inputs the embedded sample is used. The directory appears
whole or not at all.

The models are believed by others only as far as they trust the signing key:
give them its public half, which is written beside it.` + signHelp + inputsHelp,
	Example: `
bhtrain run
bhtrain run --exploitdb files_exploits.csv --attacks global_attacks.json --out dist
bhtrain run --channel stable --expires 48h
bhtrain run --access access.log,class=benign --sshd auth.log,year=2025 --window 365d --release 7`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		inputs, recipe, release := newInputFlags(fs), newRecipeFlags(fs), newReleaseFlags(fs)
		cli.Format(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("unexpected argument %q: inputs are given by flags such as --exploitdb %s", args[0], args[0])
			}
			var p pipeline.Plan
			return makeRelease(ctx, c, &p, release, inputs.apply, recipe.apply)
		}
	},
}

var trainCommand = cli.Command{
	Name:  "train",
	Args:  "SNAPSHOT",
	Short: "make a signed, verified release from an existing snapshot",
	Long: `
Like run, from a directory that 'bhtrain snapshot' made.`,
	Example: `
bhtrain train snapshot --out dist --window 365d
bhtrain train snapshot --recipe recipe.json --key release.key --release 8`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		recipe, release := newRecipeFlags(fs), newReleaseFlags(fs)
		cli.Format(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("want one argument, a snapshot directory; 'bhtrain snapshot' makes one")
			}
			p := pipeline.Plan{Snapshot: args[0]}
			return makeRelease(ctx, c, &p, release, recipe.apply)
		}
	},
}

// makeRelease fills the plan from flags, carries it out and shows the report.
func makeRelease(ctx context.Context, c *cli.Call, p *pipeline.Plan, release *releaseFlags, apply ...func(*pipeline.Plan) error) error {
	for _, f := range append(apply, release.apply) {
		if err := f(p); err != nil {
			return err
		}
	}
	if err := release.sign(ctx, p); err != nil {
		return err
	}
	progress, end := c.Progress()
	p.Progress = progress
	r, err := pipeline.Run(ctx, *p)
	end()
	var bad *dataset.BuildReport
	if r != nil {
		bad = r.Inputs
	}
	switch {
	case err == nil:
	case errors.Is(err, pipeline.ErrOwnResult):
		r.Verdict.WriteText(c.Stderr, c.Color(c.Stderr))
		return err
	case errors.Is(err, dataset.ErrTooManyBad) && bad != nil:
		writeInputs(c.Stderr, bad)
		return err
	default:
		return err
	}
	if *release.provenance != "" {
		text, err := r.Provenance.Encode()
		if err != nil {
			return err
		}
		if err := durable.WriteFile(durable.OS, *release.provenance, text, 0o644); err != nil {
			return err
		}
	}
	if c.JSON() {
		return c.WriteJSON(r)
	}
	return writeReport(c, p, r)
}

var snapshotCommand = cli.Command{
	Name:  "snapshot",
	Short: "make a canonical dataset snapshot from raw inputs",
	Long: `
Reads the inputs and writes a snapshot directory: the same bytes for the same
rows, whatever their order and the files they came in. Its digest names the
dataset. Without inputs the embedded sample is used.` + inputsHelp,
	Example: `
bhtrain snapshot --exploitdb files_exploits.csv --attacks global_attacks.json --out snapshot
bhtrain snapshot --access access.log,class=benign,site=web1 --address truncated --out snapshot`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		inputs := newInputFlags(fs)
		out := fs.StringP("out", "o", "snapshot", "`DIR`: directory to make")
		temp := fs.String("temp", "", "`DIR`: for temporary files (default: the system's)")
		cli.Format(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("unexpected argument %q: inputs are given by flags such as --exploitdb %s", args[0], args[0])
			}
			p := pipeline.Plan{TempDir: *temp}
			if err := inputs.apply(&p); err != nil {
				return err
			}
			progress, end := c.Progress()
			p.Progress = progress
			r, err := pipeline.Snapshot(ctx, p, *out)
			end()
			if errors.Is(err, dataset.ErrTooManyBad) && r != nil {
				writeInputs(c.Stderr, r)
			}
			if err != nil {
				return err
			}
			if c.JSON() {
				return c.WriteJSON(r)
			}
			writeInputs(c.Stdout, r)
			return writeTables(c.Stdout, r, *out)
		}
	},
}

var pushCommand = cli.Command{
	Name:  "push",
	Args:  "FROM TO",
	Short: "copy a release with its dataset and statements to a registry or directory",
	Long: `
Copies the release, the dataset it names and all statements about it. The
digest is printed; it is the same in every store. A statement that is damaged
is left behind with a warning. Credentials are those of docker and crane for
the named host.

A channel goes along with --channel if it names this release as current; it
never replaces a newer one.

TO's tag is set, whatever it stood for before. When TO names none, "latest" is
set, unless a release with a higher number is there.`,
	Example: `
bhtrain push dist registry.example.org/models/web
bhtrain push dist 127.0.0.1:5000/models/web:release-7
bhtrain push dist registry.example.org/models/web --channel stable
bhtrain push registry.example.org/models/web@sha256:… ./mirror`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		channels := fs.StringArray("channel", nil, "`NAME`: copy this channel too; may be repeated")
		stores := newStoreFlags(fs)
		cli.Format(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			if len(args) != 2 {
				return cli.Usagef("want two arguments, where from and where to")
			}
			from, err := oras.ParseRef(args[0])
			if err != nil {
				return cli.Usagef("%w", err)
			}
			to, err := oras.ParseRef(args[1])
			if err != nil {
				return cli.Usagef("%w", err)
			}
			for _, name := range *channels {
				if err := verify.CheckChannelName(name); err != nil {
					return cli.Usagef("--channel: %w", err)
				}
			}
			pushed, err := pipeline.Push(ctx, from, to, stores.options(), *channels...)
			if err != nil {
				return err
			}
			for _, s := range pushed.Skipped {
				c.Log.Warn("statement left behind", "which", s)
			}
			if !pushed.Complete {
				c.Log.Warn("the source may have more statements than were copied")
			}
			if len(pushed.Tags) == 0 {
				c.Log.Info("latest stands for a release with a higher number and was left there", "pushed", pushed.Digest.String())
			}
			if c.JSON() {
				return c.WriteJSON(pushed)
			}
			_, err = c.Stdout.Write([]byte(pushed.Reference + "\n"))
			return err
		}
	},
}
