package sign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Options say how to sign. They are the flags of a command.
type Options struct {
	Key          string // private key file, "" for the user's own
	PasswordFile string // holds the passphrase of an encrypted key
	Keyless      bool   // a certificate for an OIDC identity instead of a key
	TokenFile    string // identity token; makes Keyless true

	SigningConfig string // Sigstore signing config and
	TrustedRoot   string // trusted root: services to ask
	Sigstore      string // or an instance by name: "public-good"

	Output string                 // folder that is written to, in which no key may lie; "" for none
	Getenv func(string) string    // the environment, nil for none
	Now    time.Time              // chooses services that are valid
	Cache  func() (string, error) // folder for TUF metadata; nil is bhtrain/sigstore in os.UserCacheDir
}

// Check says which options do not go together.
func (o Options) Check() error {
	keyless := o.Keyless || o.TokenFile != ""
	switch {
	case keyless && (o.Key != "" || o.PasswordFile != ""):
		return errors.New("--keyless and --identity-token exclude --key and --key-password-file")
	case o.PasswordFile != "" && o.Key == "":
		return errors.New("--key-password-file needs --key: the key that is made for you is not encrypted")
	case (o.SigningConfig == "") != (o.TrustedRoot == ""):
		return errors.New("--signing-config and --trusted-root belong together: the first says whom to ask, the second whose answers are good")
	case o.Sigstore != "" && o.SigningConfig != "":
		return errors.New("--sigstore and --signing-config exclude each other")
	case o.Sigstore != "" && o.Sigstore != "public-good":
		return fmt.Errorf("--sigstore %q: want public-good; name other services with --signing-config and --trusted-root", o.Sigstore)
	case keyless && o.Sigstore == "" && o.SigningConfig == "":
		return errors.New("--keyless needs services: --sigstore public-good, which publishes who signed, or --signing-config and --trusted-root")
	}
	return nil
}

// Open returns the signer that o describes. Options that do not go together are
// the error of Check; others are ErrKey, ErrToken and ErrServices.
func Open(ctx context.Context, o Options) (*Signer, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	getenv := o.Getenv
	if getenv == nil {
		getenv = func(string) string { return "" }
	}
	services, err := o.services(ctx)
	if err != nil {
		return nil, err
	}
	if o.Keyless || o.TokenFile != "" {
		token := TokenFile(o.TokenFile)
		if o.TokenFile == "" {
			if token, err = AmbientToken(getenv); err != nil {
				return nil, err
			}
		}
		return Keyless(token, services)
	}
	var s *Signer
	if o.Key == "" {
		s, err = DefaultKey(o.Output)
	} else {
		s, err = LoadKey(o.Key, func() ([]byte, error) { return o.passphrase(getenv) })
		if err == nil {
			err = s.CheckOutside(o.Output)
		}
	}
	if err != nil {
		return nil, err
	}
	return s.With(services), nil
}

// passphrase is that of the password file, without its line end, else of
// BHTRAIN_KEY_PASSWORD, else of COSIGN_PASSWORD.
func (o Options) passphrase(getenv func(string) string) ([]byte, error) {
	if o.PasswordFile != "" {
		text, private, err := readSecret(o.PasswordFile)
		if err == nil {
			err = private
		}
		if err != nil {
			return nil, fmt.Errorf("passphrase in %s: %w", o.PasswordFile, err)
		}
		text = bytes.TrimSuffix(text, []byte("\n"))
		return bytes.TrimSuffix(text, []byte("\r")), nil
	}
	for _, name := range []string{"BHTRAIN_KEY_PASSWORD", "COSIGN_PASSWORD"} {
		if p := getenv(name); p != "" {
			return []byte(p), nil
		}
	}
	return nil, errors.New("the key is encrypted: give its passphrase with --key-password-file or in BHTRAIN_KEY_PASSWORD")
}

func (o Options) services(ctx context.Context) (*Services, error) {
	switch {
	case o.SigningConfig != "":
		return LoadServices(o.SigningConfig, o.TrustedRoot, o.Now)
	case o.Sigstore != "":
		cache := o.Cache
		if cache == nil {
			cache = func() (string, error) {
				dir, err := os.UserCacheDir()
				return filepath.Join(dir, "bhtrain", "sigstore"), err
			}
		}
		dir, err := cache()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrServices, err)
		}
		return PublicGood(ctx, dir, o.Now)
	}
	return nil, nil
}
