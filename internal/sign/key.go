package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/battle-hardened-ai/bhtrain/verify"
)

// ErrKey: a signing key that cannot or must not be used. Its message names the
// file and the remedy, and never a part of the key or of its passphrase.
var ErrKey = errors.New("signing key")

const (
	keyFile    = "signing.key" // in os.UserConfigDir()/bhtrain
	maxKeySize = 16 << 10      // bytes; a P-256 key in PEM is under 300
)

func publicPath(path string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + ".pub"
}

// LoadKey reads a private key: one PEM block with an ECDSA key on P-256 in
// PKCS #8, plain ("PRIVATE KEY") or encrypted ("ENCRYPTED PRIVATE KEY" as openssl
// writes it, "ENCRYPTED SIGSTORE PRIVATE KEY" as cosign does). passphrase is
// asked only for an encrypted key; nil stands for having none. A file that
// others than its owner may read or write, or that holds anything else, is
// ErrKey. Where the operating system has no such permissions (Windows) they are
// not checked.
func LoadKey(path string, passphrase func() ([]byte, error)) (*Signer, error) {
	text, private, err := readSecret(path)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrKey, path, err)
	}
	key, err := parsePrivateKey(text, passphrase)
	if errors.Is(err, errPublicHalf) { // whose mode is nobody's concern
		return nil, fmt.Errorf("%w %s: %w", ErrKey, path, err)
	}
	if private != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrKey, path, private)
	}
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrKey, path, err)
	}
	pub, err := verify.NewKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrKey, path, err)
	}
	return &Signer{key: key, pub: pub, path: path}, nil
}

// readSecret reads a small regular file. private says what is wrong with its
// mode, nil if only its owner may use it.
func readSecret(path string) (text []byte, private, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, errors.Unwrap(err) // the caller names the file
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, nil, err
	case !info.Mode().IsRegular():
		return nil, nil, errors.New("not a regular file")
	}
	if text, err = io.ReadAll(io.LimitReader(f, maxKeySize+1)); err != nil {
		return nil, nil, err
	}
	if len(text) > maxKeySize {
		return nil, nil, fmt.Errorf("larger than %d bytes", maxKeySize)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		private = fmt.Errorf("others may use it (mode %04o); run 'chmod 600 %s'", info.Mode().Perm(), path)
	}
	return text, private, nil
}

var errPublicHalf = errors.New("this is the public half; name the private key")

// parsePrivateKey never puts a part of the text into its errors.
func parsePrivateKey(text []byte, passphrase func() ([]byte, error)) (*ecdsa.PrivateKey, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("no PEM block")
	case block.Type == "PUBLIC KEY":
		return nil, errPublicHalf
	case block.Type == "EC PRIVATE KEY":
		return nil, errors.New("not PKCS #8; convert it with 'openssl pkcs8 -topk8'")
	case len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("want exactly one PEM block, without headers")
	}
	var k crypto.PrivateKey
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		if k, err = x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
			return nil, errors.New("damaged PKCS #8")
		}
	case "ENCRYPTED PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY":
		if k, err = decrypt(text, passphrase); err != nil {
			return nil, err
		}
	default:
		return nil, errors.New("want a PEM block \"PRIVATE KEY\" or \"ENCRYPTED PRIVATE KEY\" (PKCS #8)")
	}
	ec, ok := k.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errors.New("want an ECDSA key on P-256")
	}
	return ec, nil
}

// decrypt opens an encrypted key. A wrong passphrase gives bytes that are no
// key, so it cannot be told from a damaged file.
func decrypt(text []byte, passphrase func() ([]byte, error)) (k crypto.PrivateKey, err error) {
	if passphrase == nil {
		return nil, errors.New("the key is encrypted and no passphrase is given")
	}
	pass, err := passphrase()
	if err != nil {
		return nil, err
	}
	if len(pass) == 0 {
		return nil, errors.New("the key is encrypted and the passphrase is empty")
	}
	bad := errors.New("wrong passphrase, or a damaged or unsupported file")
	defer func() {
		if r := recover(); r != nil { // block ciphers panic on a length that does not fit
			k, err = nil, bad
		}
	}()
	k, err = cryptoutils.UnmarshalPEMToPrivateKey(text, func(bool) ([]byte, error) { return pass, nil })
	if err != nil {
		return nil, bad // the libraries' words could hold what was decrypted
	}
	return k, nil
}

// DefaultKey loads the key of this user, signing.key in
// os.UserConfigDir()/bhtrain, and makes it first where there is none: folder
// mode 0700, file mode 0600, public half beside it as signing.pub. A key that
// is there is never overwritten, and of two processes that make it at once one
// wins and both use its key.
//
// Output is the folder that the release is written to, "" for none: a key
// would leave the machine with it, so a key folder inside it is ErrKey.
func DefaultKey(output string) (*Signer, error) {
	config, err := os.UserConfigDir()
	if err != nil {
		return nil, fmt.Errorf("%w: %w; name a key with --key", ErrKey, err)
	}
	path := filepath.Join(config, "bhtrain", keyFile)
	if err := refuseInside(path, output); err != nil {
		return nil, err
	}
	made := false
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if made, err = makeKey(path); err != nil {
			return nil, fmt.Errorf("%w: none can be made for you: %w; or name one with --key", ErrKey, err)
		}
	}
	s, err := LoadKey(path, nil)
	if err != nil {
		return nil, err
	}
	s.made = made
	// A public file that belongs to another key would put the wrong key into a policy.
	switch old, err := os.ReadFile(s.PublicPath()); {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := writeNew(s.PublicPath(), []byte(s.pub.PEM()), 0o644); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKey, err)
		}
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	case string(old) != s.pub.PEM():
		return nil, fmt.Errorf("%w %s: it does not belong to %s; remove it, it is written anew", ErrKey, s.PublicPath(), path)
	}
	return s, nil
}

// CheckOutside reports ErrKey when the private key lies in or below the
// folder output, which need not exist.
func (s *Signer) CheckOutside(output string) error { return refuseInside(s.path, output) }

func refuseInside(path, output string) error {
	if output == "" {
		return nil
	}
	p, err := realPath(path)
	if err != nil {
		return fmt.Errorf("%w %s: %w; name another with --key", ErrKey, path, err)
	}
	out, err := realPath(output)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	rel, err := filepath.Rel(out, p)
	if err == nil && filepath.IsLocal(rel) {
		return fmt.Errorf("%w %s lies in the output folder %s; keep it elsewhere", ErrKey, path, output)
	}
	return nil
}

// realPath makes path absolute with symbolic links resolved in the part of it
// that exists.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		up := filepath.Dir(path)
		if !errors.Is(err, fs.ErrNotExist) || up == path {
			return "", err
		}
		rest = filepath.Join(filepath.Base(path), rest)
		path = up
	}
}

func makeKey(path string) (made bool, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
		return false, fmt.Errorf("folder %s: others may write to it; run 'chmod 700 %s'", dir, dir)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return false, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return false, err
	}
	return writeNew(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// writeNew writes a file that appears whole or not at all and never replaces
// one: it is written aside and hard-linked into place. False without an error
// means that another process was first.
func writeNew(path string, data []byte, mode fs.FileMode) (bool, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return false, err
	}
	if err := os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if d, err := os.Open(filepath.Dir(path)); err == nil {
		d.Sync() // best effort: a key lost with the power is made again
		d.Close()
	}
	return true, nil
}
