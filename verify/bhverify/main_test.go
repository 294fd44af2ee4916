package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/rogpeppe/go-internal/testscript"
	sigdata "github.com/sigstore/sigstore-go/pkg/testing/data"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/internal/sign/signtest"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bhverify": main})
}

// The scripts have three commands of their own:
//
//	public NAME FILE             write the public key of the signer NAME
//	release DIR [key=value ...]  put a release into a layout directory; signer= (none: unsigned),
//	                             number=, product=, dataset=, builder=, about= (number of the release
//	                             that the statement speaks about), bundle= (write it to this file,
//	                             not to the store); \e in a value is an escape, \n a line end; sets DIGEST and DATASET
//	keyless ROOT                 start a Sigstore and write its trusted root; from then on signer= may be
//	                             keyless:SAN, with the issuer https://issuer.example.org
//	channel DIR [key=value ...]  publish the channel "stable" there; signer=, sequence=, number= and
//	                             manifest= (of the current release, the last by default), lowest=,
//	                             expires= (from now), revoke= (a manifest digest) with revoker=
//	claim DIR signer=NAME        sign the dataset of the last release there
//	rebuilt DIR signer=NAME      sign a rebuild of the last release; result=, bundle=
//	sigstore BUNDLE ROOT         write an example bundle of the Sigstore library, and its trusted root
//	snapshot DIR [key=value ...] build the snapshot of the built-in sample; skip= (leave this many
//	                             inputs out), layout= (put it there with a release that names it);
//	                             sets DATASET, ROOT (of records), ROWS, and DIGEST with a layout
//	attach DIR                   attach a model card to it
//	train DIR SIGNER             make a release of the sample, as 'bhtrain run' does
//	private NAME FILE            write the private key of the signer NAME
//	official                     build the program as an official build that knows its own sum
//	                             ($H1), as bhverify-official
//	damage DIR FILE              change one byte of a file of the last release in DIR
func TestScripts(t *testing.T) { runScripts(t, "testdata") }

// In a network namespace without any interface a program can ask nobody: what
// --offline promises with a layout directory.
func TestOfflineScripts(t *testing.T) {
	if out, err := exec.Command("unshare", "-rn", "true").CombinedOutput(); err != nil {
		testkit.Missing(t, fmt.Sprintf("no network namespaces here: %v %s", err, out))
	}
	runScripts(t, filepath.Join("testdata", "offline"))
}

func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"public": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(publicKey(ts, args[0]).PEM()), 0o644))
			},
			"sigstore": func(ts *testscript.TestScript, _ bool, args []string) {
				b, err := sigdata.Bundle(t, "othername.sigstore.json").MarshalJSON()
				ts.Check(err)
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o644))
				b, err = sigdata.TrustedRoot(t, "scaffolding.json").MarshalJSON()
				ts.Check(err)
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o644))
			},
			"keyless": func(ts *testscript.TestScript, _ bool, args []string) {
				s := signtest.New(t)
				b, err := os.ReadFile(s.TrustedRoot)
				ts.Check(err)
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o644))
				services, err := sign.LoadServices(s.SigningConfig, s.TrustedRoot, time.Now())
				ts.Check(err)
				instances.Store(ts.Name(), instance{s, services})
			},
			"channel":  putChannel,
			"claim":    putClaim,
			"rebuilt":  putRebuild,
			"release":  putRelease,
			"snapshot": putSnapshot,
			"train":    train,
			"private":  func(ts *testscript.TestScript, _ bool, args []string) { writePrivate(ts, args[0], args[1]) },
			"official": official,
			"damage":   damage,
			"attach": func(ts *testscript.TestScript, _ bool, args []string) {
				_, err := oras.Attach(context.Background(), layout(ts, args[0]), oras.Descriptor{Digest: digest(ts, ts.Getenv("DIGEST"))},
					oras.Document{Type: oras.TypeMarkdown, Name: "model-card.md", Data: []byte("# card")})
				ts.Check(err)
			},
		},
	})
}

// privateKey is a key that follows from its owner's name.
func privateKey(ts *testscript.TestScript, name string) *ecdsa.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	ts.Check(err)
	return key
}

func publicKey(ts *testscript.TestScript, name string) verify.Key {
	key, err := verify.NewKey(&privateKey(ts, name).PublicKey)
	ts.Check(err)
	return key
}

func pack(ts *testscript.TestScript, product string, number int64, name string) *oras.Artifact {
	return packOn(ts, product, number, canon.Sum([]byte(name)))
}

func packOn(ts *testscript.TestScript, product string, number int64, dataset canon.Digest) *oras.Artifact {
	var models []oras.File
	for _, name := range oras.ModelFiles {
		models = append(models, oras.File{Name: name, Data: []byte("bytes of " + name)})
	}
	a, err := oras.Pack(oras.Release{
		Product: product, Number: number, Dataset: dataset,
		Recipe: jsontext.Value(`{"seed":7}`), Features: jsontext.Value(`{}`), Scoring: jsontext.Value(`{}`), Metrics: jsontext.Value(`{}`),
	}, models)
	ts.Check(err)
	return a
}

func putRelease(ts *testscript.TestScript, _ bool, args []string) {
	set := map[string]string{"number": "12", "product": "shop", "dataset": "d", "builder": "https://example.org/builder"}
	for _, kv := range args[1:] {
		k, v, _ := strings.Cut(kv, "=")
		set[k] = strings.NewReplacer(`\e`, "\x1b", `\n`, "\n").Replace(v)
	}
	number := func(key string) int64 {
		n, err := strconv.ParseInt(set[key], 10, 64)
		ts.Check(err)
		return n
	}
	ctx := context.Background()
	store, err := oras.Open(ctx, oras.Ref{Layout: ts.MkAbs(args[0])}, oras.Options{Write: true})
	ts.Check(err)
	a := pack(ts, set["product"], number("number"), set["dataset"])
	ts.Check(oras.Push(ctx, store, a))
	ts.Check(store.Tag(ctx, oras.TagLatest, a.Descriptor()))
	ts.Setenv("DIGEST", a.Digest.String())
	ts.Setenv("DATASET", a.Release.Dataset.String())
	if set["signer"] == "" {
		return
	}
	about := a
	if set["about"] != "" {
		about = pack(ts, set["product"], number("about"), set["dataset"])
	}
	statement, err := verify.NewProvenance(set["product"], about.Digest, verify.Provenance{
		BuildDefinition: verify.BuildDefinition{
			BuildType:            verify.BuildTypeTrain,
			ExternalParameters:   verify.Parameters{Product: about.Release.Product, Release: about.Release.Number, Recipe: about.Release.Recipe},
			ResolvedDependencies: []verify.Resource{{Name: verify.DependencyDataset, Digest: verify.Digests(about.Release.Dataset)}},
		},
		RunDetails: verify.RunDetails{Builder: verify.Builder{ID: set["builder"]}},
	})
	ts.Check(err)
	bundle := signBy(ts, set["signer"], statement)
	if set["bundle"] != "" {
		ts.Check(os.WriteFile(ts.MkAbs(set["bundle"]), bundle, 0o644))
		return
	}
	_, err = oras.AttachBundle(ctx, store, a.Descriptor(), bundle, verify.PredicateProvenance, oras.ProvenanceTag(a.Digest), time.Time{})
	ts.Check(err)
}

// instance is the Sigstore of one script.
type instance struct {
	*signtest.Sigstore
	services *sign.Services
}

var instances sync.Map // by the script's name

// signBy signs as the named signer, from the formats' specifications, or with
// a certificate.
func signBy(ts *testscript.TestScript, name string, statement verify.Statement) []byte {
	if san, ok := strings.CutPrefix(name, "keyless:"); ok {
		v, ok := instances.Load(ts.Name())
		if !ok {
			ts.Fatalf("keyless: no Sigstore was started")
		}
		here := v.(instance)
		s, err := sign.Keyless(sign.TokenFile(here.TokenFile("https://issuer.example.org", san)), here.services)
		ts.Check(err)
		b, err := s.Sign(context.Background(), statement)
		ts.Check(err)
		return b
	}
	payload, err := statement.Encode()
	ts.Check(err)
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(verify.PayloadType), verify.PayloadType, len(payload), payload))
	sig, err := ecdsa.SignASN1(rand.Reader, privateKey(ts, name), sum[:])
	ts.Check(err)
	return fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":""}},"dsseEnvelope":{"payload":%q,"payloadType":%q,"signatures":[{"sig":%q}]}}`,
		oras.TypeBundle, base64.StdEncoding.EncodeToString(payload), verify.PayloadType, base64.StdEncoding.EncodeToString(sig))
}

// settings are key=value arguments over their defaults.
func settings(args []string, defaults map[string]string) map[string]string {
	for _, kv := range args {
		k, v, _ := strings.Cut(kv, "=")
		defaults[k] = v
	}
	return defaults
}

func integer(ts *testscript.TestScript, text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	ts.Check(err)
	return n
}

func digest(ts *testscript.TestScript, text string) canon.Digest {
	d, err := canon.ParseDigest(text)
	ts.Check(err)
	return d
}

func layout(ts *testscript.TestScript, dir string) oras.Store {
	store, err := oras.Open(context.Background(), oras.Ref{Layout: ts.MkAbs(dir)}, oras.Options{Write: true})
	ts.Check(err)
	return store
}

func putChannel(ts *testscript.TestScript, _ bool, args []string) {
	set := settings(args[1:], map[string]string{
		"signer": "desk", "sequence": "1", "number": "12", "manifest": ts.Getenv("DIGEST"), "lowest": "1", "expires": "1h", "revoker": "guard", "product": "shop", "epoch": "1",
	})
	now := time.Now()
	life, err := time.ParseDuration(set["expires"])
	ts.Check(err)
	c := verify.Channel{
		Product: set["product"], Channel: "stable", Epoch: integer(ts, set["epoch"]), Sequence: integer(ts, set["sequence"]),
		Release: integer(ts, set["number"]), Manifest: digest(ts, set["manifest"]), Lowest: integer(ts, set["lowest"]),
		Issued: verify.FormatTime(now.Add(min(0, life) - time.Minute)), Expires: verify.FormatTime(now.Add(life)),
	}
	if set["revoke"] != "" {
		s, err := verify.NewRevocation(verify.Revocation{Product: "shop", Release: 12, Manifest: digest(ts, set["revoke"]), Reason: "back door", Issued: verify.FormatTime(now)})
		ts.Check(err)
		c.Revocations = append(c.Revocations, signBy(ts, set["revoker"], s))
	}
	s, err := verify.NewChannel(c)
	ts.Check(err)
	_, err = oras.PutChannel(context.Background(), layout(ts, args[0]), "stable", signBy(ts, set["signer"], s))
	ts.Check(err)
}

func putClaim(ts *testscript.TestScript, _ bool, args []string) {
	set := settings(args[1:], map[string]string{"signer": "data"})
	ctx := context.Background()
	store := layout(ts, args[0])
	dataset := digest(ts, ts.Getenv("DATASET"))
	d, err := store.PutManifest(ctx, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[]}`,
		oras.TypeManifest, oras.TypeDataset, canon.Sum([]byte("{}"))))
	ts.Check(err)
	ts.Check(store.Tag(ctx, oras.DatasetTag(dataset), d))
	s, err := verify.NewDatasetClaim("dataset", d.Digest, verify.DatasetClaim{
		Dataset: dataset, Address: "full", Tables: []verify.TableClaim{{Name: "records", Rows: 3, Root: canon.Sum(nil)}}, Issued: verify.FormatTime(time.Now()),
	})
	ts.Check(err)
	_, err = oras.AttachBundle(ctx, store, d, signBy(ts, set["signer"], s), verify.PredicateDataset, oras.DatasetStatementTag(d.Digest), time.Time{})
	ts.Check(err)
}

func putRebuild(ts *testscript.TestScript, _ bool, args []string) {
	set := settings(args[1:], map[string]string{"signer": "auditor", "result": verify.ResultPass})
	release, dataset, now := digest(ts, ts.Getenv("DIGEST")), digest(ts, ts.Getenv("DATASET")), verify.FormatTime(time.Now())
	r := verify.Reproduction{
		Product: "shop", Release: 12, Result: set["result"], Manifest: release, Obtained: release, Recipe: canon.Sum([]byte(`{"seed":7}`)), Dataset: dataset,
		Trainer: verify.Trainer{H1: "h1:x="}, Environment: verify.Environment{OS: "linux", Arch: "arm64", Go: "go1.26.8"}, Transcript: canon.Sum(nil), Started: now, Finished: now,
	}
	if r.Result == verify.ResultFail {
		r.Obtained = canon.Sum([]byte("other"))
	}
	s, err := verify.NewReproduction(r)
	ts.Check(err)
	b := signBy(ts, set["signer"], s)
	if set["bundle"] != "" {
		ts.Check(os.WriteFile(ts.MkAbs(set["bundle"]), b, 0o644))
		return
	}
	store := layout(ts, args[0])
	m, err := store.Resolve(context.Background(), ts.Getenv("DIGEST"))
	ts.Check(err)
	_, err = oras.AttachBundle(context.Background(), store, m, b, verify.PredicateReproduction, "", time.Time{})
	ts.Check(err)
}

func putSnapshot(ts *testscript.TestScript, _ bool, args []string) {
	set := map[string]string{"skip": "0"}
	for _, kv := range args[1:] {
		k, v, _ := strings.Cut(kv, "=")
		set[k] = v
	}
	skip, err := strconv.Atoi(set["skip"])
	ts.Check(err)
	ctx := context.Background()
	work := ts.MkAbs(args[0] + ".inputs")
	ts.Check(os.MkdirAll(work, 0o777))
	inputs, err := dataset.SampleInputs(work)
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	_, err = dataset.Build(ctx, dataset.Config{Inputs: inputs[skip:]}, dir)
	ts.Check(err)
	s, err := dataset.Open(dir)
	ts.Check(err)
	defer s.Close()
	records := s.Manifest().Tables[1]
	ts.Setenv("DATASET", s.Digest().String())
	ts.Setenv("ROOT", records.Root.String())
	ts.Setenv("ROWS", fmt.Sprint(records.Rows))
	if set["layout"] == "" {
		return
	}
	store, err := oras.Open(ctx, oras.Ref{Layout: ts.MkAbs(set["layout"])}, oras.Options{Write: true})
	ts.Check(err)
	packed, err := oras.PackDataset(dir)
	ts.Check(err)
	_, err = oras.PushDataset(ctx, store, packed)
	ts.Check(err)
	a := packOn(ts, "shop", 12, s.Digest())
	ts.Check(oras.Push(ctx, store, a))
	ts.Check(store.Tag(ctx, oras.TagLatest, a.Descriptor()))
	ts.Setenv("DIGEST", a.Digest.String())
}

func writePrivate(ts *testscript.TestScript, name, file string) {
	der, err := x509.MarshalPKCS8PrivateKey(privateKey(ts, name))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(file), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}

// h1 is the sum that an official build of these tests says it has.
var h1 = "h1:" + strings.Repeat("A", 43) + "="

func train(ts *testscript.TestScript, _ bool, args []string) {
	writePrivate(ts, args[1], "publisher.key")
	signer, err := sign.LoadKey(ts.MkAbs("publisher.key"), func() ([]byte, error) { return nil, errors.New("not encrypted") })
	ts.Check(err)
	r, err := pipeline.Run(context.Background(), pipeline.Plan{
		Recipe: trainer.DefaultRecipe(), Product: "shop", Release: 12, Out: ts.MkAbs(args[0]), Signer: signer,
		Builder: pipeline.Builder{Version: "v1.2.0", Digest: h1},
	})
	ts.Check(err)
	ts.Setenv("DIGEST", r.Release.String())
}

func official(ts *testscript.TestScript, _ bool, _ []string) {
	bin := ts.MkAbs("bin")
	ts.Check(os.MkdirAll(bin, 0o777))
	const cli = "github.com/battle-hardened-ai/bhtrain/internal/cli"
	build := exec.Command("go", "build", "-ldflags", fmt.Sprintf("-X %s.version=v1.2.0 -X %s.digest=%s", cli, cli, h1), "-o", filepath.Join(bin, "bhverify-official"), ".")
	out, err := build.CombinedOutput()
	if err != nil {
		ts.Fatalf("%v\n%s", err, out)
	}
	ts.Setenv("PATH", bin+string(os.PathListSeparator)+ts.Getenv("PATH"))
	ts.Setenv("H1", h1)
}

func damage(ts *testscript.TestScript, _ bool, args []string) {
	want := []byte("bytes of " + args[1])
	blobs := filepath.Join(ts.MkAbs(args[0]), "blobs", "sha256")
	entries, err := os.ReadDir(blobs)
	ts.Check(err)
	for _, e := range entries {
		path := filepath.Join(blobs, e.Name())
		b, err := os.ReadFile(path)
		ts.Check(err)
		if bytes.Equal(b, want) || args[1] == "manifest" && "sha256:"+e.Name() == ts.Getenv("DIGEST") {
			b[3] ^= 1
			ts.Check(os.Remove(path))
			ts.Check(os.WriteFile(path, b, 0o644))
			return
		}
	}
	ts.Fatalf("%s is not in %s", args[1], args[0])
}
