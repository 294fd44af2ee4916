package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
)

// signHelp is what the help says once for all flags that say how to sign.
const signHelp = `

Without flags your own key signs; it is made on first use. An encrypted key
takes its passphrase from --key-password-file, BHTRAIN_KEY_PASSWORD or
COSIGN_PASSWORD. --keyless signs with a certificate for the identity of an OIDC
token: that of --identity-token, of SIGSTORE_ID_TOKEN, or of the GitHub Actions
job. Timestamps and log entries come from the services of --signing-config, and
what they give is held against --trusted-root; --sigstore public-good names
those of the public Sigstore instance, whose log shows to everybody who signed.`

// signFlags are the flags that say how to sign.
type signFlags struct {
	fs *pflag.FlagSet
	o  sign.Options
}

func newSignFlags(fs *pflag.FlagSet) *signFlags {
	f := &signFlags{fs: fs}
	f.o.Flags(fs)
	return f
}

// given reports whether any of the flags was set.
func (f *signFlags) given() bool {
	for _, name := range sign.FlagNames {
		if f.fs.Changed(name) {
			return true
		}
	}
	return false
}

// open returns the signer. No key may lie in the folder output, "" for none.
func (f *signFlags) open(ctx context.Context, output string) (*sign.Signer, error) {
	o := f.o
	o.Output, o.Getenv, o.Now = output, os.Getenv, time.Now()
	if err := o.Check(); err != nil {
		return nil, cli.Usagef("%w", err)
	}
	return sign.Open(ctx, o)
}

// planFlags say what to sign.
type planFlags struct {
	provenance, policy *string
	signing            *signFlags
	stores             storeFlags
}

func newPlanFlags(fs *pflag.FlagSet) planFlags {
	f := planFlags{
		provenance: fs.String("provenance", "", "`FILE`: what 'bhtrain run --provenance' wrote (default: what stands beside the release)"),
		policy:     policyFlag(fs, "whose provenance beside the release is believed"),
		signing:    newSignFlags(fs), stores: newStoreFlags(fs),
	}
	cli.Format(fs)
	return f
}

// open returns the store, what the reference names in it, and the plan.
func (f planFlags) open(ctx context.Context, args []string) (store oras.Store, at oras.Descriptor, p pipeline.SignPlan, err error) {
	if *f.provenance != "" {
		if *f.policy != "" {
			return store, at, p, cli.Usagef("--provenance and --policy exclude each other: the first says what to sign, the second what to believe in its place")
		}
		if p.Provenance, err = cli.ReadFile(*f.provenance, oras.MaxBundle); err != nil {
			return store, at, p, err
		}
	}
	if p.Policy, err = loadPolicy(ctx, *f.policy); err != nil {
		return store, at, p, err
	}
	store, ref, at, err := f.stores.open(ctx, args)
	if err != nil {
		return store, at, p, err
	}
	p.Signer, err = f.signing.open(ctx, layout(ref))
	return store, at, p, err
}

var signCommand = cli.Command{
	Name:  "sign",
	Args:  "REF",
	Short: "sign the provenance of a release that is there already",
	Long: `
Signs what is known of how the release REF was made: the provenance in
--provenance, which 'bhtrain run --unsigned --provenance FILE' wrote where no
signing rights are, or the one that stands beside the release and verifies, by
your own key or by --policy: to add a key, timestamps or log entries. Nothing is
signed that does not fit the release. Signatures that are there stay.` + signHelp,
	Example: `
bhtrain run --unsigned --provenance provenance.json && bhtrain sign dist --provenance provenance.json
bhtrain sign registry.example.org/models/web:release-7 --policy policy.yaml --key second.key
bhtrain sign dist --provenance provenance.json --keyless --sigstore public-good`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		f := newPlanFlags(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			store, at, p, err := f.open(ctx, args)
			if err != nil {
				return err
			}
			s, err := pipeline.SignRelease(ctx, store, at.Digest, p)
			if err != nil {
				return err
			}
			return writeSigned(c, "release", s)
		}
	},
}

var signDatasetCommand = cli.Command{
	Name:  "sign-dataset",
	Args:  "REF",
	Short: "sign what a dataset holds and where it came from",
	Long: `
Signs a statement about the dataset of the release REF, or about the dataset that
REF names: its digest, its tables, how addresses and secrets were treated, and
the raw inputs that the provenance names, found as 'bhtrain sign' finds it.
Policies can demand such a statement. Sign it with another key than the release
(--key): with one key for both, whoever has it can make up the data as well.` + signHelp,
	Example: `
bhtrain sign-dataset dist --key dataset.key --policy policy.yaml
bhtrain sign-dataset registry.example.org/models/web:release-7 --key dataset.key --policy policy.yaml`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		f := newPlanFlags(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			store, at, p, err := f.open(ctx, args)
			if err != nil {
				return err
			}
			s, err := pipeline.SignDataset(ctx, store, at.Digest.String(), p)
			if err != nil {
				return err
			}
			if s.Inputs == 0 {
				c.Log.Warn("the statement names no raw inputs, since no provenance that could be believed does: give one with --provenance or --policy")
			}
			return writeSigned(c, "dataset", s)
		}
	},
}

func writeSigned(c *cli.Call, what string, s *pipeline.Signed) error {
	if c.JSON() {
		return c.WriteJSON(s)
	}
	_, err := fmt.Fprintf(c.Stdout, "SIGNED %s %s by %s\n  at tag %s\n", what, s.Subject, s.Signer, s.Tag)
	return err
}
