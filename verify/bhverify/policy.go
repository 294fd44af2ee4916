package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func policyInitCommand() cli.Command {
	return cli.Command{
		Name:  "policy init",
		Args:  "--key PUB | --certificate-identity SAN",
		Short: "write a policy that trusts a key or a certificate identity",
		Long: `
Writes a policy with comments to standard output or to a new file. PUB is a
public key in PEM, as 'bhtrain run' writes beside its signing key. Get it from
its owner over a way that whoever controls the registry does not control.

A certificate identity needs --certificate-oidc-issuer, the same for all, and
--trusted-root, a Sigstore trusted_root.json in or below the policy's folder.
Then every signature needs a time stamp, and one by certificate a log entry.`,
		Example: `
bhverify policy init --key signing.pub -o policy.yaml
bhverify policy init --product web --key "Example Org=example.pub" --key backup.pub
bhverify policy init --key signing.pub --channel stable --channel-key desk.pub --revoker-key security.pub --dataset-key data.pub
bhverify policy init --key signing.pub --rebuilder university.pub --rebuilder "Ann=ann.pub" --rebuilder bob.pub --min-rebuilds 2
bhverify policy init --trusted-root trusted_root.json --certificate-oidc-issuer https://token.actions.githubusercontent.com --certificate-identity https://github.com/o/r/.github/workflows/train.yml@refs/heads/main`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			const many = "; may be given several times"
			keys := fs.StringArray("key", nil, "`[NAME=]PUB`: public key of a publisher, named as its file by default"+many)
			sans := fs.StringArray("certificate-identity", nil, "`[NAME=]SAN`: subject alternative name of a publisher's certificate, exact, which is its name by default"+many)
			issuer := fs.String("certificate-oidc-issuer", "", "`URL`: issuer of the tokens that these certificates are given for, exact")
			root := fs.String("trusted-root", "", "`FILE`: Sigstore trusted root, in or below the policy's folder")
			noSCT := fs.Bool("insecure-ignore-sct", false, "certificates need not have been logged when they were issued; for a trusted root without such a log")
			channel := fs.String("channel", "", "`NAME`: the channel that says which release is current")
			epoch := fs.Int64("epoch", 1, "`N`: the channel's epoch")
			deskKeys := fs.StringArray("channel-key", nil, "`[NAME=]PUB`: public key of a channel signer (default: those of --key)"+many)
			revokerKeys := fs.StringArray("revoker-key", nil, "`[NAME=]PUB`: public key of one who may have a release unloaded"+many)
			datasetKeys := fs.StringArray("dataset-key", nil, "`[NAME=]PUB`: public key of a dataset publisher; the dataset must be signed then"+many)
			rebuilders := fs.StringArray("rebuilder", nil, "`[NAME=]PUB`: public key of an auditor, one operator each, whose rebuild counts"+many)
			rebuilds := fs.Int("min-rebuilds", 1, "`K`: how many of --rebuilder must have rebuilt a release")
			product := fs.String("product", "", "`NAME`: the one product whose releases are accepted (default \""+verify.DefaultProduct+"\")")
			out := fs.StringP("output", "o", "", "`FILE`: a new file to write to instead of standard output")
			return func(_ context.Context, c *cli.Call, args []string) error {
				switch {
				case len(args) > 0:
					return cli.Usagef("policy init: takes no arguments; name keys with --key")
				case len(*keys)+len(*sans) == 0:
					return cli.Usagef("policy init: --key PUB is missing: a policy without a key trusts nobody")
				case len(*sans) > 0 && (*issuer == "" || *root == ""):
					return cli.Usagef("policy init: --certificate-identity needs --certificate-oidc-issuer and --trusted-root")
				case len(*sans) == 0 && (*issuer != "" || *noSCT):
					return cli.Usagef("policy init: --certificate-oidc-issuer and --insecure-ignore-sct are for --certificate-identity")
				case len(*rebuilders) == 0 && fs.Changed("min-rebuilds"):
					return cli.Usagef("policy init: --min-rebuilds is for --rebuilder")
				case *channel == "" && (len(*deskKeys)+len(*revokerKeys) > 0 || fs.Changed("epoch")):
					return cli.Usagef("policy init: --epoch, --channel-key and --revoker-key are for --channel")
				}
				p := verify.Policy{Product: *product, InsecureIgnoreSCT: *noSCT}
				if *channel != "" {
					p.Channel = &verify.ChannelPolicy{Name: *channel, Epoch: *epoch}
				}
				for _, role := range []struct {
					args []string
					ids  *[]verify.Identity
				}{{*keys, &p.Publishers}, {*revokerKeys, &p.Revokers}, {*datasetKeys, &p.Datasets.Publishers}} {
					for _, arg := range role.args {
						id, err := readIdentity(arg)
						if err != nil {
							return err
						}
						*role.ids = append(*role.ids, id)
					}
				}
				for _, arg := range *sans {
					name, san, named := strings.Cut(arg, "=")
					if !named {
						name, san = arg, arg
					}
					p.Publishers = append(p.Publishers, verify.Identity{Name: name, Certificate: &verify.CertificateIdentity{Issuer: *issuer, SAN: san}})
				}
				if p.Channel != nil {
					p.Channel.Signers = p.Publishers
					if len(*deskKeys) > 0 {
						p.Channel.Signers = nil
					}
					for _, arg := range *deskKeys {
						id, err := readIdentity(arg)
						if err != nil {
							return err
						}
						p.Channel.Signers = append(p.Channel.Signers, id)
					}
				}
				if len(*rebuilders) > 0 {
					p.Reproductions = &verify.ReproductionPolicy{Min: *rebuilds}
				}
				for _, arg := range *rebuilders {
					id, err := readIdentity(arg)
					if err != nil {
						return err
					}
					p.Reproductions.Rebuilders = append(p.Reproductions.Rebuilders, verify.Rebuilder{Operator: id.Name, Identities: []verify.Identity{id}})
				}
				if *root != "" {
					var err error
					if p.RootFile, p.TrustedRoot, err = rootFor(*root, *out); err != nil {
						return err
					}
					p.Timestamps = 1
				}
				if p.Product == "" {
					p.Product = verify.DefaultProduct
				}
				text, err := verify.InitPolicy(p)
				if err != nil {
					return err
				}
				if _, err := verify.New(p); err != nil { // what the trusted root cannot give
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

// rootFor returns the name of a trusted root as the policy written to out will
// say it, and its text.
func rootFor(root, out string) (name string, text []byte, err error) {
	if name, err = filepath.Rel(filepath.Dir(out), root); err != nil || !filepath.IsLocal(name) { // out "" is the current folder
		return "", nil, fmt.Errorf("%s: want a trusted root in or below the policy's folder, %s", root, filepath.Dir(out))
	}
	text, err = cli.ReadFile(root, 1<<20)
	return filepath.ToSlash(name), text, err
}

func readIdentity(arg string) (verify.Identity, error) {
	name, path, named := strings.Cut(arg, "=")
	if _, err := os.Stat(arg); err == nil || !named { // a file whose name has an equals sign
		path = arg
		name = strings.TrimSuffix(filepath.Base(arg), filepath.Ext(arg))
	}
	text, err := cli.ReadFile(path, 1<<16)
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
		Long:    "Reads a policy as 'bhverify release' would and says what it demands, what it leaves open, and warns of what gives something away. Nothing is fetched: a trusted root through TUF is not looked at.",
		Example: "bhverify policy check policy.yaml",
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			cli.Format(fs)
			return func(_ context.Context, c *cli.Call, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("policy check: want one file, got %d", len(args))
				}
				p, err := verify.LoadPolicy(args[0])
				if err == nil && p.TUF == nil {
					if _, err = verify.New(p); err != nil { // the trusted root may not have what is demanded
						err = fmt.Errorf("%s: %w", args[0], err)
					}
				}
				if err != nil {
					return err
				}
				if c.JSON() {
					return c.WriteJSON(struct {
						Policy   canon.Digest `json:"policy"`
						Demands  []string     `json:"demands"`
						Warnings []string     `json:"warnings"`
					}{p.Digest, p.Describe(), append([]string{}, p.Warnings()...)})
				}
				for _, line := range p.Describe() {
					if _, err := fmt.Fprintln(c.Stdout, line); err != nil {
						return err
					}
				}
				for _, line := range p.Warnings() {
					if _, err := fmt.Fprintln(c.Stdout, "Warning: "+line); err != nil {
						return err
					}
				}
				return nil
			}
		},
	}
}
