package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/cli/heap"
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

With --inputs the dataset is made from the raw files as well, read as 'bhtrain'
reads them, and compared row by row. Where bytes differ, the answer names the places
(fields, trees and nodes, rows) and what is likely to be the reason: other rows,
another recipe, another program, or a change after training.

With --attest what was found, pass or fail, is signed with your own identity and
published: beside the release, or in a repository of your own (--attest-to), or
as a file (--out). It needs a policy that says which publishers, trainers and
datasets you run; nothing else is built. The statement names the program that
ran, so a build that does not know its own sum cannot attest. --check-transcripts
holds the statements of the policy's other rebuilders against this rebuild: who
copied an answer is named.

A release is rebuilt by the version that made it. Where that is not this one,
--bootstrap builds it with the Go toolchain, if the policy's trainers allow it with its h1
sum, from the module proxy or --source, and has it do what is asked for here.
Source with another sum, or a version that the policy does not allow, is
refused before anything is built.

Exit codes: 0 the same bytes came out, 4 other bytes did, 3 refused by the
policy or damaged, 1 it could not be done.`,
		Example: `
bhverify rebuild dist
bhverify rebuild registry.example.org/models/web@sha256:… --policy policy.yaml --format json
bhverify rebuild dist --inputs exploitdb=files_exploits.csv --inputs access=access.log,class=benign --html report.html
bhverify rebuild registry.example.org/models/web --policy policy.yaml --bootstrap
bhverify rebuild registry.example.org/models/web --policy policy.yaml --attest --key auditor.key --attest-to registry.example.net/audits/web`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			policy := fs.String("policy", "", "`FILE`: a policy that the release must meet first (default: trust is not judged)")
			inputs := fs.StringArray("inputs", nil, "`SOURCE=PATH`: a raw file that the dataset was made of, with the options of 'bhtrain'; give all of them, one by one")
			addressKey := fs.String("address-key", "", "`FILE`: the secret of the dataset's hashed addresses, for --inputs")
			keepDir := fs.String("keep", "", "`DIR`: keep the dataset and the rebuilt release in this new directory")
			html := fs.String("html", "", "`FILE`: a new file for the report as one HTML page")
			attest := newAttestFlags(fs)
			boot := newBootstrap(fs)
			workers := fs.Int("workers", 0, "threads; never changes a byte (default: one per CPU)")
			temp := fs.String("temp", "", "`DIR`: for temporary files (default: the system's)")
			plain := fs.Bool("plain-http", false, "talk to the registry without TLS (on the loopback interface this needs no flag)")
			anonymous := fs.Bool("anonymous", false, "send no credentials of the docker configuration")
			cli.Format(fs)
			return func(ctx context.Context, c *cli.Call, args []string) error {
				heap.Usual()
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
				opt := rebuild.Options{Workers: *workers, TempDir: *temp, Keep: *keepDir, Program: program(), Now: time.Now()}
				if opt.Inputs, err = rawInputs(*inputs); err != nil {
					return err
				}
				if *addressKey != "" {
					if opt.AddressKey, err = cli.ReadFile(*addressKey, 1<<16); err != nil {
						return err
					}
				}
				if *policy != "" {
					if opt.Verifier, err = loadVerifier(ctx, *policy, false); err != nil {
						return err
					}
				}
				storeOptions := oras.Options{PlainHTTP: *plain, Anonymous: *anonymous}
				opt.Open = func(ctx context.Context, place oras.Ref) (oras.Store, error) {
					return oras.Open(ctx, place, storeOptions)
				}
				if err := boot.check(&opt); err != nil {
					return err
				}
				if !*boot.on {
					if err := attest.prepare(ctx, &opt); err != nil {
						return err
					}
				}
				store, err := oras.Open(ctx, ref, storeOptions)
				if err != nil {
					return err
				}
				d, err := store.Resolve(ctx, ref.Name())
				if err != nil {
					return err
				}
				if *boot.on {
					if done, err := boot.run(ctx, c, fs, store, ref, d, opt); done || err != nil {
						return err
					}
					if err := attest.prepare(ctx, &opt); err != nil {
						return err
					}
				}
				progress, end := c.Progress()
				opt.Progress = progress
				started := time.Now()
				r, err := rebuild.Reproduce(ctx, store, d.Digest, opt)
				end()
				if errors.Is(err, rebuild.ErrRefused) && r.Verdict != nil {
					return writeRefusal(c, r)
				}
				if err != nil {
					return err
				}
				if c.JSON() {
					err = c.WriteJSON(r)
				} else {
					err = r.WriteText(c.Stdout)
				}
				if err == nil && *html != "" {
					err = writeHTML(*html, r)
				}
				if err == nil {
					err = attest.finish(ctx, c, ref, d, r, started)
				}
				if err == nil && !r.Reproduced {
					err = cli.Exit(cli.NotReproducible, nil)
				}
				return err
			}
		},
	}
}

// writeHTML writes the report to a new file.
func writeHTML(path string, r *rebuild.Report) error {
	var page bytes.Buffer
	if err := r.WriteHTML(&page); err != nil {
		return err
	}
	return writeNew(path, page.Bytes())
}

// rawInputs reads what --inputs says: SOURCE=PATH[,OPTION=…].
func rawInputs(specs []string) ([]dataset.Input, error) {
	var inputs []dataset.Input
	for _, spec := range specs {
		source, path, ok := strings.Cut(spec, "=")
		if !ok {
			return nil, cli.Usagef("rebuild: --inputs %s: want SOURCE=PATH, with a source of %v", spec, dataset.Sources())
		}
		in, err := dataset.ParseInput(source, path)
		if err != nil {
			return nil, cli.Usagef("rebuild: --inputs: %w", err)
		}
		inputs = append(inputs, in)
	}
	return inputs, nil
}

// program says what runs here.
func program() rebuild.Program {
	known := func(s string) string {
		if s == "unknown" {
			return ""
		}
		return s
	}
	b := cli.ReadBuild()
	return rebuild.Program{
		Trainer: verify.Trainer{Version: known(b.Version), H1: known(b.Digest), Commit: known(b.Commit)},
		Go:      b.Go, OS: b.OS, Arch: b.Arch,
	}
}
