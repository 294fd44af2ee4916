package sign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	pkcs8enc "github.com/youmark/pkcs8"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// configHome makes a fresh home folder, so that no test finds a real key.
func configHome(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
	t.Setenv("AppData", filepath.Join(home, "config"))
	dir, err := os.UserConfigDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "bhtrain")
}

func loadKey(path string) (*Signer, error) { return LoadKey(path, nil) }

func writeKey(t *testing.T, kind string, der []byte, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "k.key")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func p256(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestDefaultKeyMakesAKeyOnceAndKeepsIt(t *testing.T) {
	dir := configHome(t)
	out := t.TempDir()
	first, err := DefaultKey(out)
	if err != nil {
		t.Fatal(err)
	}
	if !first.Made() || first.Path() != filepath.Join(dir, "signing.key") || first.PublicPath() != filepath.Join(dir, "signing.pub") {
		t.Errorf("made %t, %s, %s", first.Made(), first.Path(), first.PublicPath())
	}
	if runtime.GOOS != "windows" {
		for path, want := range map[string]fs.FileMode{dir: 0o700, first.Path(): 0o600, first.PublicPath(): 0o644} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: mode %v, %v, want %v", path, info.Mode().Perm(), err, want)
			}
		}
	}
	before, err := os.ReadFile(first.Path())
	if err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(first.PublicPath())
	if err != nil {
		t.Fatal(err)
	}
	if key, err := verify.ParseKey(pub); err != nil || !key.Equal(first.Key()) {
		t.Errorf("public file holds another key: %v", err)
	}
	second, err := DefaultKey(out)
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(first.Path())
	if err != nil || !bytes.Equal(before, after) || second.Made() || !second.Key().Equal(first.Key()) {
		t.Error("the second run changed the key")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%d files in %s, want the two halves: %v", len(entries), dir, err)
	}
	if err := os.Remove(first.PublicPath()); err != nil {
		t.Fatal(err)
	}
	if _, err := DefaultKey(out); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(first.PublicPath()); err != nil || !bytes.Equal(again, pub) {
		t.Errorf("the public half was not written again: %v", err)
	}
	other, err := verify.NewKey(&p256(t).PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first.PublicPath(), []byte(other.PEM()), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := DefaultKey(out); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("public half of another key: %v", err)
	}
}

func TestManyProcessesMakingTheKeyAtOnceUseOneKey(t *testing.T) {
	configHome(t)
	var wg sync.WaitGroup
	keys := make([]verify.Key, 8)
	for i := range keys {
		wg.Go(func() {
			s, err := DefaultKey("")
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = s.Key()
		})
	}
	wg.Wait()
	for _, k := range keys {
		if !k.Equal(keys[0]) {
			t.Error("two keys were made")
		}
	}
}

func TestBrokenDefaultKeyIsReportedAndNeverOverwritten(t *testing.T) {
	dir := configHome(t)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "signing.key")
	if err := os.WriteFile(path, []byte("gone"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := DefaultKey(""); !errors.Is(err, ErrKey) {
		t.Errorf("error %v, want ErrKey", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "gone" {
		t.Errorf("the file was changed: %q, %v", b, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(t.TempDir(), "nowhere"), path); err != nil {
		t.Fatal(err)
	}
	if _, err := DefaultKey(""); !errors.Is(err, ErrKey) {
		t.Errorf("dangling link: error %v, want ErrKey", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := DefaultKey(""); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("folder that others may write to: %v", err)
	}
}

func TestKeyInTheOutputFolderIsRefused(t *testing.T) {
	dir := configHome(t)
	for _, out := range []string{dir, filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
		if _, err := DefaultKey(out); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "output folder") {
			t.Errorf("output %s: error %v, want ErrKey", out, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "signing.key")); err == nil {
			t.Error("a key was made all the same")
		}
	}
	path := writeKey(t, "PRIVATE KEY", pkcs8(t, p256(t)), 0o600)
	s, err := loadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Dir(path)
	for out, inside := range map[string]bool{
		home: true, home + "/x/..": true, filepath.Dir(home): true, "": false,
		filepath.Join(home, "sub"): false, home + "-other": false, filepath.Join(t.TempDir(), "not", "yet"): false,
	} {
		if err := s.CheckOutside(out); errors.Is(err, ErrKey) != inside {
			t.Errorf("output %q: error %v, inside is %t", out, err, inside)
		}
	}
	link := filepath.Join(t.TempDir(), "out")
	if err := os.Symlink(home, link); err == nil {
		if err := s.CheckOutside(link); !errors.Is(err, ErrKey) {
			t.Errorf("output by a symbolic link: error %v", err)
		}
	}
}

func TestLoadKeyRefusesWhatIsNoUsableKey(t *testing.T) {
	good := p256(t)
	sec1, err := x509.MarshalECPrivateKey(good)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&good.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loadKey(writeKey(t, "PRIVATE KEY", pkcs8(t, good), 0o600)); err != nil {
		t.Errorf("good key: %v", err)
	}
	two := writeKey(t, "PRIVATE KEY", pkcs8(t, good), 0o600)
	text, err := os.ReadFile(two)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(two, append(text, text...), 0o600); err != nil {
		t.Fatal(err)
	}
	large := writeKey(t, "PRIVATE KEY", make([]byte, 32<<10), 0o600)
	cases := map[string][2]string{
		"SEC 1":           {writeKey(t, "EC PRIVATE KEY", sec1, 0o600), "openssl pkcs8"},
		"P-384":           {writeKey(t, "PRIVATE KEY", pkcs8(t, p384), 0o600), "P-256"},
		"RSA":             {writeKey(t, "PRIVATE KEY", pkcs8(t, rsaKey), 0o600), "P-256"},
		"public half":     {writeKey(t, "PUBLIC KEY", public, 0o600), "public half"},
		"public, for all": {writeKey(t, "PUBLIC KEY", public, 0o644), "public half"},
		"encrypted":       {writeKey(t, "ENCRYPTED PRIVATE KEY", sec1, 0o600), "no passphrase"},
		"damaged":         {writeKey(t, "PRIVATE KEY", sec1[:20], 0o600), "damaged"},
		"two keys":        {two, "exactly one"},
		"too large":       {large, "larger than"},
		"a folder":        {t.TempDir(), "not a regular file"},
		"nothing":         {filepath.Join(t.TempDir(), "none"), "no such file"},
		"text of no kind": {writeText(t, "hello"), "no PEM"},
	}
	if runtime.GOOS != "windows" {
		for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o644, 0o601} {
			cases["mode "+mode.String()] = [2]string{writeKey(t, "PRIVATE KEY", pkcs8(t, good), mode), "chmod 600"}
		}
	}
	for name, c := range cases {
		if _, err := loadKey(c[0]); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: error %v, want ErrKey with %q", name, err, c[1])
		}
	}
}

// encrypted is a key encrypted as openssl and as cosign do it.
func encrypted(t *testing.T, key *ecdsa.PrivateKey, pass string) map[string]string {
	t.Helper()
	pbes2, err := pkcs8enc.MarshalPrivateKey(key, []byte(pass), nil)
	if err != nil {
		t.Fatal(err)
	}
	cosign, err := cryptoutils.MarshalPrivateKeyToEncryptedDER(key, cryptoutils.StaticPasswordFunc([]byte(pass)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"PBES2":  writeKey(t, "ENCRYPTED PRIVATE KEY", pbes2, 0o600),
		"cosign": writeKey(t, "ENCRYPTED SIGSTORE PRIVATE KEY", cosign, 0o600),
	}
	if tool, err := exec.LookPath("openssl"); err == nil {
		out := filepath.Join(t.TempDir(), "k.key")
		cmd := exec.Command(tool, "pkcs8", "-topk8", "-in", writeKey(t, "PRIVATE KEY", pkcs8(t, key), 0o600), "-passout", "pass:"+pass, "-out", out)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl: %v\n%s", err, text)
		}
		if err := os.Chmod(out, 0o600); err != nil {
			t.Fatal(err)
		}
		files["openssl"] = out
	}
	return files
}

func TestEncryptedKeyOpensWithItsPassphraseAndNoOther(t *testing.T) {
	const pass = "correct horse"
	key := p256(t)
	for name, path := range encrypted(t, key, pass) {
		given := func(p string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(p), nil } }
		s, err := LoadKey(path, given(pass))
		if err != nil || !s.key.Equal(key) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, wrong := range []string{"correct", "", pass + "\n"} {
			_, err := LoadKey(path, given(wrong))
			if !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "passphrase") || wrong != "" && strings.Contains(err.Error(), wrong) {
				t.Errorf("%s, passphrase %q: %v", name, wrong, err)
			}
		}
		if _, err := LoadKey(path, nil); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "no passphrase") {
			t.Errorf("%s without a passphrase: %v", name, err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		step := 7 // deriving a key takes its time, cosign's more
		if name == "cosign" {
			step = 101
		}
		for i := 0; i < len(block.Bytes); i += step { // no damage may panic; the cipher cannot tell it from another key
			bad := bytes.Clone(block.Bytes)
			bad[i] ^= 1
			if _, err := LoadKey(writeKey(t, block.Type, bad, 0o600), given(pass)); err != nil && !errors.Is(err, ErrKey) {
				t.Errorf("%s with byte %d damaged: %v", name, i, err)
			}
		}
		if _, err := LoadKey(writeKey(t, block.Type, block.Bytes[:len(block.Bytes)-7], 0o600), given(pass)); !errors.Is(err, ErrKey) {
			t.Errorf("%s cut short: %v", name, err)
		}
	}
}

func TestPassphraseComesFromTheFileElseTheEnvironment(t *testing.T) {
	const pass = "battery staple"
	path := encrypted(t, p256(t), pass)["PBES2"]
	env := func(kv ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == name {
					return kv[i+1]
				}
			}
			return ""
		}
	}
	file := writeText(t, pass+"\n")
	for name, o := range map[string]Options{
		"file":               {Key: path, PasswordFile: file, Getenv: env("BHTRAIN_KEY_PASSWORD", "wrong")},
		"own variable":       {Key: path, Getenv: env("BHTRAIN_KEY_PASSWORD", pass, "COSIGN_PASSWORD", "wrong")},
		"cosign's variable":  {Key: path, Getenv: env("COSIGN_PASSWORD", pass)},
		"file, Windows line": {Key: path, PasswordFile: writeText(t, pass+"\r\n")},
	} {
		if _, err := Open(t.Context(), o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"nothing":    {Options{Key: path}, "--key-password-file"},
		"wrong":      {Options{Key: path, Getenv: env("BHTRAIN_KEY_PASSWORD", "nope")}, "wrong passphrase"},
		"no file":    {Options{Key: path, PasswordFile: path + ".none"}, "no such file"},
		"in the out": {Options{Key: path, Output: filepath.Dir(path), Getenv: env("COSIGN_PASSWORD", pass)}, "output folder"},
	} {
		if _, err := Open(t.Context(), c.o); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "nope") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if runtime.GOOS == "windows" {
		return
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Key: path, PasswordFile: file}); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a passphrase that others may read: %v", err)
	}
}

func writeText(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSignedStatementIsAcceptedByAPolicyWithThisKeyAndNoOther(t *testing.T) {
	s, err := loadKey(writeKey(t, "PRIVATE KEY", pkcs8(t, p256(t)), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	var models []oras.File
	for _, name := range oras.ModelFiles {
		models = append(models, oras.File{Name: name, Data: []byte(name)})
	}
	empty := jsontext.Value(`{}`)
	release, err := oras.Pack(oras.Release{Product: "shop", Number: 3, Dataset: canon.Sum([]byte("d")), Recipe: empty, Features: empty, Scoring: empty, Metrics: empty}, models)
	if err != nil {
		t.Fatal(err)
	}
	statement, err := verify.NewProvenance("shop", release.Digest, verify.Provenance{
		BuildDefinition: verify.BuildDefinition{
			BuildType:            verify.BuildTypeTrain,
			ExternalParameters:   verify.Parameters{Product: "shop", Release: 3, Recipe: empty},
			ResolvedDependencies: []verify.Resource{{Name: verify.DependencyDataset, Digest: verify.Digests(release.Release.Dataset)}},
		},
		RunDetails: verify.RunDetails{Builder: verify.Builder{ID: "https://example.org/builder"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := s.Sign(t.Context(), statement)
	if err != nil {
		t.Fatal(err)
	}
	if v := jsontext.Value(bundle); !v.IsValid() || bytes.ContainsAny(bundle, " \n") {
		t.Errorf("bundle is not compact JSON: %s", bundle)
	}
	judge := func(key verify.Key) *verify.Verdict {
		text, err := verify.InitPolicy(verify.Policy{Product: "shop", Publishers: []verify.Identity{{Name: "me", Key: key}}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := verify.ParsePolicy(text)
		if err != nil {
			t.Fatal(err)
		}
		v, err := verify.New(p)
		if err != nil {
			t.Fatal(err)
		}
		return v.Judge(release, time.Now(), verify.Options{Bundles: [][]byte{bundle}})
	}
	if v := judge(s.Key()); !v.Pass() {
		t.Errorf("refused: %v", v.Failures())
	}
	other, err := verify.NewKey(&p256(t).PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if judge(other).Pass() {
		t.Error("accepted under another key")
	}
	if _, err := s.Sign(t.Context(), verify.Statement{Type: verify.StatementV1}); !errors.Is(err, verify.ErrStatement) {
		t.Errorf("statement about nothing: error %v, want verify.ErrStatement", err)
	}
}
