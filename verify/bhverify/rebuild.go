package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
	"github.com/battle-hardened-ai/bhtrain/verify/rebuild"
)

func rebuildCommand() cli.Command {
	return cli.Command{
		Name:  "rebuild",
		Args:  "REF",
		Short: "train a release again and compare every digest",
		Long: `
Fetches the release and its dataset by digest, proves the dataset, trains with
the recipe of the release and compares what comes out with what was published.
No trust in the publisher is needed for that. With --policy the release is
judged first, and nothing is built unless it is verified; without, the answer
says that trust was not judged.

Exit codes: 0 the same bytes came out, 4 other bytes did, 3 refused by the
policy or damaged, 1 it could not be done.`,
		Example: `
bhverify rebuild dist
bhverify rebuild registry.example.org/models/web@sha256:… --policy policy.yaml --format json`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			policy := fs.String("policy", "", "`FILE`: a policy that the release must meet first (default: trust is not judged)")
			workers := fs.Int("workers", 0, "threads; never changes a byte (default: one per CPU)")
			temp := fs.String("temp", "", "`DIR`: for temporary files (default: the system's)")
			plain := fs.Bool("plain-http", false, "talk to the registry without TLS (on the loopback interface this needs no flag)")
			anonymous := fs.Bool("anonymous", false, "send no credentials of the docker configuration")
			cli.Format(fs)
			return func(ctx context.Context, c *cli.Call, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("rebuild: want one reference, got %d; see 'bhverify rebuild --help'", len(args))
				}
				if *workers < 0 {
					return cli.Usagef("rebuild: --workers %d: want 0 or more", *workers)
				}
				ref, err := oras.ParseRef(args[0])
				if err != nil {
					return cli.Usagef("rebuild: %w", err)
				}
				opt := rebuild.Options{Workers: *workers, TempDir: *temp, Now: time.Now()}
				if *policy != "" {
					if opt.Verifier, err = loadVerifier(ctx, *policy, false); err != nil {
						return err
					}
				}
				store, err := oras.Open(ctx, ref, oras.Options{PlainHTTP: *plain, Anonymous: *anonymous})
				if err != nil {
					return err
				}
				d, err := store.Resolve(ctx, ref.Name())
				if err != nil {
					return err
				}
				progress, end := c.Progress()
				opt.Progress = progress
				r, err := rebuild.Reproduce(ctx, store, d.Digest, opt)
				end()
				if errors.Is(err, rebuild.ErrRefused) {
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
				if err != nil {
					return err
				}
				if c.JSON() {
					err = c.WriteJSON(r)
				} else {
					err = writeRebuild(c, r)
				}
				if err == nil && !r.Reproduced {
					err = cli.Exit(cli.NotReproducible, nil)
				}
				return err
			}
		},
	}
}

func writeRebuild(c *cli.Call, r *rebuild.Report) error {
	w := bufio.NewWriter(c.Stdout)
	for _, f := range r.Files {
		mark := "✓"
		if !f.Equal {
			mark = "✗"
		}
		fmt.Fprintf(w, "%s %-24s %s\n", mark, f.Name, f.Release)
		if !f.Equal {
			fmt.Fprintf(w, "  %-24s %s\n", "rebuilt", f.Rebuilt)
		}
	}
	for _, cause := range r.Causes {
		fmt.Fprintln(w, verify.Printable(cause))
	}
	trust := "Trust was not judged: no policy was given."
	if r.Verdict != nil {
		trust = "The policy's demands were met before anything was built."
	}
	rebuilt := r.Rebuilt.String()
	if r.Rebuilt.IsZero() {
		rebuilt = "nothing"
	}
	if r.Reproduced {
		fmt.Fprintf(w, "REPRODUCED %s release %d, %s\n%s\n", verify.Printable(r.Product), r.Number, r.Release, trust)
	} else {
		fmt.Fprintf(w, "NOT REPRODUCED %s release %d: published %s, rebuilt %s\n%s\n", verify.Printable(r.Product), r.Number, r.Release, rebuilt, trust)
	}
	return w.Flush()
}
