package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
	"github.com/battle-hardened-ai/bhtrain/verify/rebuild"
)

// attestFlags say whether and where a rebuild is signed for.
type attestFlags struct {
	fs          *pflag.FlagSet
	attest      *bool
	to, out     *string
	transcripts *bool
	signing     sign.Options
	signer      *sign.Signer
	policy      verify.Policy
}

func newAttestFlags(fs *pflag.FlagSet) *attestFlags {
	f := &attestFlags{
		fs:          fs,
		attest:      fs.Bool("attest", false, "sign what was found, pass or fail, and put the statement beside the release"),
		to:          fs.String("attest-to", "", "`REF`: put it into this repository or directory of your own instead"),
		out:         fs.String("out", "", "`FILE`: write it to this new file instead"),
		transcripts: fs.Bool("check-transcripts", false, "hold the statements of the policy's rebuilders against this rebuild"),
	}
	f.signing.Flags(fs)
	return f
}

// prepare opens the signer, before anything is built.
func (f *attestFlags) prepare(ctx context.Context, opt *rebuild.Options) error {
	given := *f.to != "" || *f.out != ""
	for _, name := range sign.FlagNames {
		given = given || f.fs.Changed(name)
	}
	switch {
	case !*f.attest && given:
		return cli.Usagef("rebuild: flags that say how and where to sign need --attest")
	case (*f.attest || *f.transcripts) && opt.Verifier == nil:
		return cli.Usagef("rebuild: --attest and --check-transcripts need --policy: it says whose code and data you run, and who the rebuilders are")
	case *f.transcripts && opt.Verifier.Policy().Reproductions == nil:
		return cli.Usagef("rebuild: --check-transcripts needs a policy with reproductions, which names the rebuilders")
	}
	if *f.to != "" {
		if _, err := oras.ParseRef(*f.to); err != nil {
			return cli.Usagef("rebuild: --attest-to: %w", err)
		}
	}
	opt.Attest, opt.Transcripts = *f.attest, *f.transcripts
	if !*f.attest {
		return nil
	}
	f.policy = opt.Verifier.Policy()
	o := f.signing
	o.Getenv, o.Now = os.Getenv, time.Now()
	if err := o.Check(); err != nil {
		return cli.Usagef("rebuild: %w", err)
	}
	var err error
	f.signer, err = sign.Open(ctx, o)
	return err
}

// finish signs and publishes what was found about the release d of ref.
func (f *attestFlags) finish(ctx context.Context, c *cli.Call, ref oras.Ref, d oras.Descriptor, r *rebuild.Report, started time.Time) error {
	if !*f.attest {
		return nil
	}
	bundle, err := r.Attest(ctx, f.signer, started, time.Now())
	if err != nil {
		return err
	}
	var where []string
	if *f.out != "" {
		if err := writeNew(*f.out, bundle); err != nil {
			return err
		}
		where = append(where, *f.out)
	}
	put := func(to oras.Ref, tag string, put func(context.Context, oras.Store, oras.Descriptor, []byte, string, string, time.Time) (oras.Descriptor, error)) error {
		s, err := f.open(ctx, to, true)
		if err != nil {
			return err
		}
		if _, err := put(ctx, s, d, bundle, verify.PredicateReproduction, tag, time.Now()); err != nil {
			return err
		}
		where = append(where, to.String())
		return nil
	}
	switch {
	case *f.to != "":
		to, err := oras.ParseRef(*f.to)
		if err != nil {
			return err
		}
		err = put(to.Place(), oras.ReproductionTag(d.Digest), oras.PutBundle)
		if err != nil {
			return err
		}
	case *f.out == "":
		if err := put(ref.Place(), "", oras.AttachBundle); err != nil {
			return err
		}
	}
	result := "PASS"
	if r.Rebuilt != r.Release {
		result = "FAIL"
	}
	for _, w := range where {
		fmt.Fprintf(c.Stderr, "attested %s in %s\n", result, w)
	}
	return f.warn(c, bundle)
}

// before is what the signer has attested of the release d of ref before, as far
// as it is found where it attests to: an Audit of one operator whose status is PASS
// or FAIL. It is nil when nothing is found that the policy would believe.
func (f *attestFlags) before(ctx context.Context, store oras.Store, ref oras.Ref, d oras.Descriptor, v *verify.Verifier, now time.Time) (*verify.Audit, error) {
	target := store
	own := verify.Rebuilder{Operator: "this signer"}
	if *f.to != "" {
		to, err := oras.ParseRef(*f.to)
		if err != nil {
			return nil, err
		}
		to = to.Place()
		if to.Layout != "" {
			if to.Layout, err = filepath.Abs(to.Layout); err != nil {
				return nil, err
			}
		}
		if target, err = f.open(ctx, to, false); errors.Is(err, oras.ErrNotFound) {
			return nil, nil // it is made with the first statement
		} else if err != nil {
			return nil, err
		}
		own.Where = []oras.Ref{to}
	}
	list, err := oras.Bundles(ctx, target, d.Digest, oras.ReproductionTag(d.Digest))
	if err != nil || len(list.Bundles) == 0 {
		return nil, err
	}
	who, err := f.identity(ctx)
	if err != nil {
		return nil, err
	}
	own.Identities = []verify.Identity{who}
	policy := v.Policy()
	policy.Reproductions = &verify.ReproductionPolicy{Min: 1, Rebuilders: []verify.Rebuilder{own}}
	if v, err = verify.New(policy); err != nil {
		return nil, nil // a policy that could not count this signer, so there is nothing to count
	}
	audit, err := v.Audit(ctx, store, d.Digest, now, func(ctx context.Context, place oras.Ref) (oras.Store, error) {
		return f.open(ctx, place, false)
	})
	if err != nil {
		return nil, err
	}
	found := audit.Operators[0]
	there := slices.ContainsFunc(list.Bundles, func(b oras.Bundle) bool { return canon.Sum(b.Data) == found.Bundle })
	if !there || found.Status != verify.AuditPass && found.Status != verify.AuditFail {
		return nil, nil
	}
	return audit, nil
}

// identity is whom the signer signs as. A keyless one has to ask for a
// certificate to know.
func (f *attestFlags) identity(ctx context.Context) (who verify.Identity, err error) {
	if !f.signer.Keyless() {
		return f.signer.Identity("this signer", nil)
	}
	known := errors.New("known")
	_, err = f.signer.SignAs(ctx, func(id verify.Identity) (verify.Statement, error) {
		who = id
		return verify.Statement{}, known
	})
	if errors.Is(err, known) {
		err = nil
	}
	return who, err
}

// open opens a store as the flags say.
func (f *attestFlags) open(ctx context.Context, ref oras.Ref, write bool) (oras.Store, error) {
	return oras.Open(ctx, ref, oras.Options{Write: write, PlainHTTP: f.flag("plain-http"), Anonymous: f.flag("anonymous")})
}

// warn says what the statement is worth less for than its signer may think.
func (f *attestFlags) warn(c *cli.Call, bundle []byte) error {
	if f.policy.Trainers == nil {
		c.Log.Warn("the policy names no trainers, so the release may name any; add trainers with their h1 sums")
	}
	if f.policy.Reproductions == nil {
		return nil
	}
	who, err := f.signer.Identity("this signer", bundle)
	if err != nil {
		return err
	}
	for _, r := range f.policy.Reproductions.Rebuilders {
		for _, id := range r.Identities {
			// Of certificates only the exact ones can be told from here.
			if id.Certificate != nil && (who.Certificate == nil || id.Certificate.SANRegexp == "" &&
				(id.Certificate.SAN != who.Certificate.SAN || id.Certificate.Issuer != who.Certificate.Issuer)) {
				continue
			}
			if id.Certificate != nil || id.Key.Equal(who.Key) && who.Certificate == nil {
				return nil
			}
		}
	}
	c.Log.Warn("no rebuilder of the policy: policies like it do not count this statement", "signer", who.String())
	return nil
}

func (f *attestFlags) flag(name string) bool {
	on, err := f.fs.GetBool(name)
	return err == nil && on
}

func auditorsCommand() cli.Command {
	return cli.Command{
		Name:  "auditors",
		Args:  "REF --policy FILE",
		Short: "say which auditors have rebuilt a release",
		Long: `
Lists each operator that the policy names as a rebuilder, with what its
statement about this release says:

  PASS      the bytes of the release came out
  FAIL      other bytes did
  MISMATCH  about another release, dataset, recipe or trainer, or it breaks a
            demand, or it was signed from a repository of the release's publisher
  EXPIRED   signed outside the time in which the identity may sign
  NO KEY    signed by nobody that the policy names for the operator
  NOT YET   no statement was found
  COPIED    its transcript is another operator's ('bhverify rebuild
            --check-transcripts' finds more copies, by training)

Statements are looked for beside the release and where the policy says. The
release itself is not judged: 'bhverify release' does that.

Statements are counted as 'bhverify release' counts them, but that it counts
copies: a copied transcript is found out here.

Exit codes: 0 as many passed as the policy demands, 3 fewer did, or one failed
and the policy says on_failure: block, 1 it could not be found out.`,
		Example: `
bhverify auditors registry.example.org/models/web --policy policy.yaml
bhverify auditors dist --policy policy.yaml --format json`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			policy := fs.String("policy", "", "`FILE`: the policy that names the rebuilders (required)")
			plain := fs.Bool("plain-http", false, "talk to registries without TLS (on the loopback interface this needs no flag)")
			anonymous := fs.Bool("anonymous", false, "send no credentials of the docker configuration")
			cli.Format(fs)
			return func(ctx context.Context, c *cli.Call, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("auditors: want one reference, got %d; see 'bhverify auditors --help'", len(args))
				}
				if *policy == "" {
					return cli.Usagef("auditors: --policy FILE is missing: it names the rebuilders")
				}
				ref, err := oras.ParseRef(args[0])
				if err != nil {
					return cli.Usagef("auditors: %w", err)
				}
				v, err := loadVerifier(ctx, *policy, false)
				if err != nil {
					return err
				}
				options := oras.Options{PlainHTTP: *plain, Anonymous: *anonymous}
				store, err := oras.Open(ctx, ref, options)
				if err != nil {
					return err
				}
				d, err := store.Resolve(ctx, ref.Name())
				if err != nil {
					return err
				}
				audit, err := v.Audit(ctx, store, d.Digest, time.Now(), func(ctx context.Context, place oras.Ref) (oras.Store, error) {
					return oras.Open(ctx, place, options)
				})
				if errors.Is(err, verify.ErrPolicy) {
					return fmt.Errorf("%s: %w", *policy, err)
				}
				if err != nil {
					return err
				}
				if c.JSON() {
					err = c.WriteJSON(audit)
				} else {
					err = audit.WriteText(c.Stdout)
				}
				if err == nil && !audit.Enough() {
					err = cli.Exit(cli.Refused, nil)
				}
				return err
			}
		},
	}
}
