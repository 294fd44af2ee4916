package sign

import "github.com/spf13/pflag"

// FlagNames are the flags that Flags declares.
var FlagNames = []string{"key", "key-password-file", "keyless", "identity-token", "signing-config", "trusted-root", "sigstore"}

// Flags declares the flags of every command that signs, which set o.
func (o *Options) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Key, "key", "", "`FILE`: private key, ECDSA P-256 in PKCS #8 PEM (default: your own)")
	fs.StringVar(&o.PasswordFile, "key-password-file", "", "`FILE`: passphrase of an encrypted --key")
	fs.BoolVar(&o.Keyless, "keyless", false, "sign with a certificate for an OIDC identity instead of a key")
	fs.StringVar(&o.TokenFile, "identity-token", "", "`FILE`: OIDC token of --keyless (default: that of the environment)")
	fs.StringVar(&o.SigningConfig, "signing-config", "", "`FILE`: Sigstore signing config, which names the services to ask")
	fs.StringVar(&o.TrustedRoot, "trusted-root", "", "`FILE`: Sigstore trusted root of those services")
	fs.StringVar(&o.Sigstore, "sigstore", "", "`NAME`: a Sigstore instance instead of the two files: public-good")
}
