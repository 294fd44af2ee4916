package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func bundleCommand() cli.Command {
	return cli.Command{
		Name:  "bundle",
		Args:  "--artifact FILE|sha256:HEX --bundle FILE --trusted-root FILE (--certificate-identity SAN --certificate-oidc-issuer URL | --key PUB)",
		Short: "verify a Sigstore bundle of anybody about any file",
		Long: `
For bundles that no policy speaks of: those of a tool, a compiler, a list of
materials. The bundle signs the artifact itself or an in-toto statement that has
it as a subject, of any type. Nothing is asked over the network.

One strict rule: the signature stands in a transparency log of the trusted root, a
log or timestamp authority of it says when, and a certificate was announced in a
certificate transparency log of it.`,
		Example: `
bhverify bundle --artifact cosign-linux-amd64 --bundle cosign.sigstore.json --trusted-root trusted_root.json \
    --certificate-identity keyless@projectsigstore.iam.gserviceaccount.com --certificate-oidc-issuer https://accounts.google.com
bhverify bundle --artifact sha256:… --bundle sbom.sigstore.json --trusted-root trusted_root.json --key signer.pub`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			artifact := fs.String("artifact", "", "`FILE|DIGEST`: what was signed; sha256: and 64 hex digits are a digest unless there is a file of that name")
			bundleFile := fs.String("bundle", "", "`FILE`: the Sigstore bundle")
			rootFile := fs.String("trusted-root", "", "`FILE`: trusted_root.json of the Sigstore instance to believe")
			san := fs.String("certificate-identity", "", "`NAME`: the signer's, as the certificate's subject alternative name has it")
			issuer := fs.String("certificate-oidc-issuer", "", "`URL`: who vouched for that name to the certificate authority")
			keyFile := fs.String("key", "", "`PUB`: the signer's public key (PEM, ECDSA P-256), in place of a certificate")
			noSCT := fs.Bool("insecure-ignore-sct", false, "accept a certificate that no certificate transparency log announced")
			cli.Format(fs)
			return func(_ context.Context, c *cli.Call, args []string) error {
				switch {
				case len(args) > 0:
					return cli.Usagef("bundle: takes no arguments; name the file with --artifact")
				case *artifact == "" || *bundleFile == "" || *rootFile == "":
					return cli.Usagef("bundle: --artifact, --bundle and --trusted-root are needed; see 'bhverify bundle --help'")
				case *keyFile != "" && *san+*issuer != "" || *keyFile == "" && (*san == "" || *issuer == ""):
					return cli.Usagef("bundle: want either --key, or --certificate-identity and --certificate-oidc-issuer")
				case *keyFile != "" && *noSCT:
					return cli.Usagef("bundle: --insecure-ignore-sct is about certificates, and --key needs none")
				}
				want := verify.BundleDemand{SAN: *san, Issuer: *issuer, InsecureIgnoreSCT: *noSCT}
				var err error
				if want.TrustedRoot, err = cli.ReadFile(*rootFile, 1<<20); err != nil {
					return err
				}
				if *keyFile != "" {
					text, err := cli.ReadFile(*keyFile, 1<<16)
					if err != nil {
						return err
					}
					if want.Key, err = verify.ParseKey(text); err != nil {
						return fmt.Errorf("%s: %w", *keyFile, err)
					}
				}
				raw, err := cli.ReadFile(*bundleFile, verify.MaxAnyBundle)
				if errors.Is(err, cli.ErrTooLarge) {
					return writeBundle(c, *artifact, nil, err)
				}
				if err != nil {
					return err
				}
				if f, err := os.Open(*artifact); err == nil {
					defer f.Close()
					want.Artifact = f
				} else if want.Digest, _ = canon.ParseDigest(*artifact); want.Digest.IsZero() {
					return err
				}
				signed, err := verify.Bundle(raw, want)
				if err != nil && !errors.Is(err, verify.ErrBundle) {
					return err
				}
				return writeBundle(c, *artifact, signed, err)
			}
		},
	}
}

// writeBundle writes what was found, and returns the refusal if it was one.
func writeBundle(c *cli.Call, artifact string, signed *verify.SignedBundle, refused error) error {
	if c.JSON() {
		out := struct {
			Verified bool                 `json:"verified"`
			Artifact string               `json:"artifact"`
			Reason   string               `json:"reason,omitempty"`
			Signed   *verify.SignedBundle `json:"signed,omitempty"`
		}{Verified: refused == nil, Artifact: artifact, Signed: signed}
		if refused != nil {
			out.Reason = verify.Printable(refused.Error())
		}
		if err := c.WriteJSON(out); err != nil {
			return err
		}
	} else if refused == nil {
		w := bufio.NewWriter(c.Stdout)
		by := "key " + signed.KeyID.String()
		if signed.SAN != "" {
			by = fmt.Sprintf("%s (%s)", verify.Printable(signed.SAN), verify.Printable(signed.Issuer))
		}
		fmt.Fprintf(w, "VERIFIED %s, signed by %s\n", verify.Printable(artifact), by)
		if signed.PredicateType != "" {
			fmt.Fprintf(w, "  statement  %s\n", verify.Printable(signed.PredicateType))
		}
		fmt.Fprintf(w, "  signed     %s\n  log        %d entries\n", strings.Join(signed.Times, ", "), signed.LogEntries)
		if err := w.Flush(); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintf(c.Stdout, "REFUSED %s: %s\n", verify.Printable(artifact), verify.Printable(refused.Error())); err != nil {
		return err
	}
	if refused != nil {
		return cli.Exit(cli.Refused, nil)
	}
	return nil
}
