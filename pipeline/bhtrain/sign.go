package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
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

var signFlagNames = []string{"key", "key-password-file", "keyless", "identity-token", "signing-config", "trusted-root", "sigstore"}

func newSignFlags(fs *pflag.FlagSet) *signFlags {
	f := &signFlags{fs: fs}
	o := &f.o
	fs.StringVar(&o.Key, "key", "", "`FILE`: private key, ECDSA P-256 in PKCS #8 PEM (default: your own)")
	fs.StringVar(&o.PasswordFile, "key-password-file", "", "`FILE`: passphrase of an encrypted --key")
	fs.BoolVar(&o.Keyless, "keyless", false, "sign with a certificate for an OIDC identity instead of a key")
	fs.StringVar(&o.TokenFile, "identity-token", "", "`FILE`: OIDC token of --keyless (default: that of the environment)")
	fs.StringVar(&o.SigningConfig, "signing-config", "", "`FILE`: Sigstore signing config, which names the services to ask")
	fs.StringVar(&o.TrustedRoot, "trusted-root", "", "`FILE`: Sigstore trusted root of those services")
	fs.StringVar(&o.Sigstore, "sigstore", "", "`NAME`: a Sigstore instance instead of the two files: public-good")
	return f
}

// given reports whether any of the flags was set.
func (f *signFlags) given() bool {
	for _, name := range signFlagNames {
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
