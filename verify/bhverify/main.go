// Command bhverify says whether a release of models is what a local policy
// demands.
//
//	bhverify release REF --policy FILE    judge a release, check by check
//	bhverify rebuild REF                  train a release again and compare
//	bhverify bundle --bundle FILE …       verify a Sigstore bundle about any file
//	bhverify dataset check REF            prove that a dataset keeps its format
//	bhverify dataset prove REF            prove that a row is in a dataset, or is not
//	bhverify dataset verify-proof FILE    check such a proof without the dataset
//	bhverify dataset diff A B             say which rows two datasets differ in
//	bhverify policy init --key PUB        write a policy that trusts a key
//	bhverify policy check FILE            say in words what a policy demands
//	bhverify version
//
// Exit codes: 0 the release is verified, 1 it could not be decided (network,
// files, nothing found, a broken policy), 2 wrong command line, 3 refused, 4 not
// reproducible.
// The verdict goes to standard output, everything else to standard error.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func main() { app().Main() }

func app() cli.App {
	return cli.App{
		Name:  "bhverify",
		Short: "judge releases of models by a local policy",
		Long: `
A release is trusted only when every demand of the policy holds: who signed it,
for which product, trained on which dataset, by which recipe. The policy is a
local file and is never taken from what is judged.`,
		Commands: []cli.Command{
			releaseCommand(),
			rebuildCommand(),
			bundleCommand(),
			datasetCheckCommand(),
			datasetProveCommand(),
			datasetVerifyProofCommand(),
			datasetDiffCommand(),
			policyInitCommand(),
			policyCheckCommand(),
			cli.VersionCommand("bhverify"),
		},
		Code: code,
	}
}

// code maps errors to exit codes. What breaks the rules of the formats is
// refused; every other error left the question open.
func code(err error) int {
	if errors.Is(err, oras.ErrInvalid) || errors.Is(err, dataset.ErrCorrupt) || errors.Is(err, dataset.ErrProof) {
		return cli.Refused
	}
	return cli.Failed
}

func releaseCommand() cli.Command {
	return cli.Command{
		Name:  "release",
		Args:  "REF --policy FILE",
		Short: "judge a release, check by check",
		Long: `
REF is an OCI layout directory or a repository of a registry, with a tag or a
digest; without either the tag "latest" is resolved, once. The verdict is a list
of named checks (✓ passed, ✗ failed, – not demanded or not reached) and one line.

Nothing is asked but the named registry. With a layout directory there is no
network connection at all.`,
		Example: `
bhverify release dist --policy policy.yaml
bhverify release registry.example.org/models/web:release-12 --policy policy.yaml
bhverify release oci://registry.example.org/models/web@sha256:… --policy policy.yaml --format json
bhverify release dist --policy policy.yaml --bundle provenance.sigstore.json`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			policy := fs.String("policy", "", "`FILE`: the policy that says whom to trust (required)")
			bundles := fs.StringArray("bundle", nil, "`FILE`: a Sigstore bundle to judge beside those in the store; may be given several times")
			plain := fs.Bool("plain-http", false, "talk to the registry without TLS (on the loopback interface this needs no flag)")
			anonymous := fs.Bool("anonymous", false, "send no credentials of the docker configuration")
			timeout := fs.Duration("timeout", 3*time.Minute, "`TIME`: give up after it")
			cli.Format(fs)
			return func(ctx context.Context, c *cli.Call, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("release: want one reference, got %d; see 'bhverify release --help'", len(args))
				}
				if *policy == "" {
					return cli.Usagef("release: --policy FILE is missing; 'bhverify policy init' writes one")
				}
				if *timeout <= 0 {
					return cli.Usagef("release: --timeout %s: want more than 0", *timeout)
				}
				ref, err := oras.ParseRef(args[0])
				if err != nil {
					return cli.Usagef("release: %w", err)
				}
				ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("no verdict after %s; see --timeout", *timeout))
				defer cancel()
				v, err := judge(ctx, c, ref, *policy, *bundles, oras.Options{PlainHTTP: *plain, Anonymous: *anonymous})
				if err != nil {
					if cause := context.Cause(ctx); errors.Is(ctx.Err(), context.DeadlineExceeded) {
						err = cause
					}
					return err
				}
				if c.JSON() {
					err = c.WriteJSON(v)
				} else {
					err = v.WriteText(c.Stdout, c.Color(c.Stdout))
				}
				if err == nil && !v.Pass() {
					err = cli.Exit(cli.Refused, nil)
				}
				return err
			}
		},
	}
}

func judge(ctx context.Context, c *cli.Call, ref oras.Ref, policyFile string, bundleFiles []string, opt oras.Options) (*verify.Verdict, error) {
	verifier, err := loadVerifier(ctx, policyFile, false)
	if err != nil {
		return nil, err
	}
	var bundles [][]byte
	for _, name := range bundleFiles {
		b, err := readBundle(name)
		if err != nil {
			return nil, err
		}
		bundles = append(bundles, b)
	}
	store, err := oras.Open(ctx, ref, opt)
	if err != nil {
		return nil, err
	}
	digest := ref.Digest
	if digest.IsZero() {
		d, err := store.Resolve(ctx, ref.Name())
		if err != nil {
			return nil, err
		}
		digest = d.Digest
		c.Log.Debug("resolved", "reference", ref.String(), "digest", digest.String())
	}
	v, _, err := verifier.Release(ctx, store, digest, time.Now(), verify.Options{Bundles: bundles})
	return v, err
}

// loadVerifier reads a policy and, where it says so, gets its trusted root
// through TUF; offline, from what was kept of it.
func loadVerifier(ctx context.Context, policyFile string, offline bool) (*verify.Verifier, error) {
	p, err := verify.LoadPolicy(policyFile)
	if err != nil {
		return nil, err
	}
	if p.TUF != nil {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		if p, err = verify.LoadTrustedRoot(ctx, p, filepath.Join(cache, "bhtrain", "tuf"), offline); err != nil {
			return nil, err
		}
	}
	return verify.New(p)
}

func readBundle(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, oras.MaxBundle+1))
	if err != nil {
		return nil, err
	}
	if len(b) > oras.MaxBundle {
		return nil, fmt.Errorf("%s: larger than %d bytes, no bundle is", name, oras.MaxBundle)
	}
	return b, nil
}

func policyInitCommand() cli.Command {
	return cli.Command{
		Name:  "policy init",
		Args:  "--key PUB",
		Short: "write a policy that trusts a key",
		Long: `
Writes a policy with comments to standard output or to a new file. PUB is a
public key in PEM, as 'bhtrain run' writes beside its signing key. Get it from
its owner over a way that whoever controls the registry does not control.`,
		Example: `
bhverify policy init --key signing.pub -o policy.yaml
bhverify policy init --product web --key "Example Org=example.pub" --key backup.pub`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			keys := fs.StringArray("key", nil, "`[NAME=]PUB`: public key of a publisher, named as its file by default; may be given several times")
			product := fs.String("product", "", "`NAME`: the one product whose releases are accepted (default \""+verify.DefaultProduct+"\")")
			out := fs.StringP("output", "o", "", "`FILE`: a new file to write to instead of standard output")
			return func(_ context.Context, c *cli.Call, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("policy init: takes no arguments; name keys with --key")
				}
				if len(*keys) == 0 {
					return cli.Usagef("policy init: --key PUB is missing: a policy without a key trusts nobody")
				}
				var publishers []verify.Identity
				for _, k := range *keys {
					p, err := readPublisher(k)
					if err != nil {
						return err
					}
					publishers = append(publishers, p)
				}
				text, err := verify.InitPolicy(verify.Policy{Product: *product, Publishers: publishers})
				if err != nil {
					return err
				}
				if *out == "" {
					_, err := c.Stdout.Write(text)
					return err
				}
				return writeNew(*out, text)
			}
		},
	}
}

func readPublisher(arg string) (verify.Identity, error) {
	name, path, named := strings.Cut(arg, "=")
	if _, err := os.Stat(arg); err == nil || !named { // a file whose name has an equals sign
		path = arg
		name = strings.TrimSuffix(filepath.Base(arg), filepath.Ext(arg))
	}
	f, err := os.Open(path)
	if err != nil {
		return verify.Identity{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return verify.Identity{}, err
	}
	key, err := verify.ParseKey(text)
	if err != nil {
		return verify.Identity{}, fmt.Errorf("%s: %w", path, err)
	}
	return verify.Identity{Name: name, Key: key}, nil
}

func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists; remove it or name another file", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

func policyCheckCommand() cli.Command {
	return cli.Command{
		Name:    "policy check",
		Args:    "FILE",
		Short:   "say in words what a policy demands",
		Long:    "Reads a policy as 'bhverify release' would and says what it demands and what it leaves open.",
		Example: "bhverify policy check policy.yaml",
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			cli.Format(fs)
			return func(_ context.Context, c *cli.Call, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("policy check: want one file, got %d", len(args))
				}
				p, err := verify.LoadPolicy(args[0])
				if err != nil {
					return err
				}
				if c.JSON() {
					return c.WriteJSON(struct {
						Policy  canon.Digest `json:"policy"`
						Demands []string     `json:"demands"`
					}{p.Digest, p.Describe()})
				}
				for _, line := range p.Describe() {
					if _, err := fmt.Fprintln(c.Stdout, line); err != nil {
						return err
					}
				}
				return nil
			}
		},
	}
}
