package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// These run bhverify as a process against a registry that was made to tire it out,
// and look at the time and the memory that it takes. Tests allow four times the
// time of BENCHMARKS.md, since machines are shared.
const (
	memoryBound = 64 << 20
	slack       = 4
)

// prey is a registry with one signed release, for junk to be put around it.
type prey struct {
	user    *user
	ref     string
	release *oras.Artifact
	bundle  []byte // the good one, under the provenance tag

	// By path below /v2/models/web: what is answered in place of the registry.
	answers  map[string]answer
	requests atomic.Int32
}

type answer struct {
	mediaType string
	body      []byte
	endless   bool // the body again and again
}

func (p *prey) ServeHTTP(w http.ResponseWriter, r *http.Request) bool {
	a, ok := p.answers[strings.TrimPrefix(r.URL.Path, "/v2/models/web/")]
	if !ok {
		return false
	}
	w.Header().Set("Content-Type", a.mediaType)
	for {
		if _, err := w.Write(a.body); err != nil || !a.endless {
			return true
		}
	}
}

// signed is a bundle of a provenance of a by key.
func signed(t *testing.T, a *oras.Artifact, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	s, err := verify.NewProvenance("web", a.Digest, verify.Provenance{
		BuildDefinition: verify.BuildDefinition{
			BuildType:            verify.BuildTypeTrain,
			ExternalParameters:   verify.Parameters{Product: a.Release.Product, Release: a.Release.Number, Recipe: a.Release.Recipe},
			ResolvedDependencies: []verify.Resource{{Name: verify.DependencyDataset, Digest: verify.Digests(a.Release.Dataset)}},
		},
		RunDetails: verify.RunDetails{Builder: verify.Builder{ID: "https://example.org/builder"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(verify.PayloadType), verify.PayloadType, len(payload), payload))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":""}},"dsseEnvelope":{"payload":%q,"payloadType":%q,"signatures":[{"sig":%q}]}}`,
		oras.TypeBundle, b64(payload), verify.PayloadType, b64(sig))
}

// newPrey serves a release, signed under its tag unless bare.
func newPrey(t *testing.T, bare bool) *prey {
	t.Helper()
	p := &prey{user: newUser(t), answers: map[string]answer{}}
	honest := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		if !p.ServeHTTP(w, r) {
			honest.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	p.ref = strings.TrimPrefix(srv.URL, "http://") + "/models/web"

	var models []oras.File
	for _, name := range oras.ModelFiles {
		models = append(models, oras.File{Name: name, Data: bytes.Repeat([]byte(name), 4000)})
	}
	a, err := oras.Pack(oras.Release{
		Product: "web", Number: 1, Dataset: canon.Sum([]byte("dataset")),
		Recipe: jsontext.Value(`{"seed":7}`), Features: jsontext.Value(`{}`), Scoring: jsontext.Value(`{}`), Metrics: jsontext.Value(`{}`),
	}, models)
	if err != nil {
		t.Fatal(err)
	}
	p.release = a
	ref, err := oras.ParseRef(p.ref)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	store, err := oras.Open(ctx, ref, oras.Options{Write: true, Anonymous: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := oras.Push(ctx, store, a); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := verify.NewKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	p.bundle = signed(t, a, key)
	if !bare {
		if _, err := oras.AttachBundle(ctx, store, a.Descriptor(), p.bundle, verify.PredicateProvenance, oras.ProvenanceTag(a.Digest), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(p.user.dir, "signing.pub"), []byte(public.PEM()), 0o644); err != nil {
		t.Fatal(err)
	}
	p.user.must("bhverify", "policy", "init", "--product", "web", "--key", "signing.pub", "-o", "policy.yaml")
	return p
}

// serve answers for a blob or a manifest by its digest.
func (p *prey) serve(kind, mediaType string, b []byte) canon.Digest {
	d := canon.Sum(b)
	p.answers[kind+"/"+d.String()] = answer{mediaType: mediaType, body: b}
	return d
}

// refer answers for a referrer manifest with one bundle, of which the manifest
// states digest and size, and returns its entry in a listing.
func (p *prey) refer(layer canon.Digest, size int) string {
	m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"mediaType":%q,"digest":%q,"size":%d}],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
		oras.TypeManifest, oras.TypeBundle, canon.Sum([]byte("{}")), oras.TypeBundle, layer, size, oras.TypeManifest, p.release.Digest, len(p.release.Manifest))
	return fmt.Sprintf(`{"mediaType":%q,"artifactType":%q,"digest":%q,"size":%d}`, oras.TypeManifest, oras.TypeBundle, p.serve("manifests", oras.TypeManifest, m), len(m))
}

// list makes the entries the referrers of the release.
func (p *prey) list(entries ...string) {
	p.answers["referrers/"+p.release.Digest.String()] = answer{mediaType: oras.TypeIndex,
		body: fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, oras.TypeIndex, strings.Join(entries, ","))}
}

// judge runs bhverify on the release and holds exit code, time and memory
// against what is allowed. It returns the checks of the verdict by name.
func (p *prey) judge(code int, limit time.Duration) map[string]string {
	t := p.user.t
	t.Helper()
	p.requests.Store(0)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	peakFile := filepath.Join(t.TempDir(), "peak")
	p.user.env = []string{"BH_E2E_PEAK=" + peakFile}
	start := time.Now()
	r := p.user.run(nil, self, filepath.Join(bin, "bhverify"), "release", p.ref+"@"+p.release.Digest.String(), "--policy", "policy.yaml", "--anonymous", "--format", "json")
	took := time.Since(start)
	p.user.env = nil
	text, err := os.ReadFile(peakFile)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, r.out, r.err)
	}
	peak, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("exit code %d after %.2f s, %.1f MiB, %d requests", r.code, took.Seconds(), float64(peak)/(1<<20), p.requests.Load())
	if r.code != code {
		t.Errorf("exit code %d, want %d\n%s%s", r.code, code, r.out, r.err)
	}
	if took > slack*limit {
		t.Errorf("took %v, want %v (%v here)", took, limit, slack*limit)
	}
	if peak > memoryBound {
		t.Errorf("took %d MiB of memory", peak>>20)
	}
	var v struct {
		Checks []struct{ Name, Status string }
	}
	if err := json.Unmarshal([]byte(r.out), &v); err != nil {
		t.Fatalf("%v in %s%s", err, r.out, r.err)
	}
	checks := map[string]string{}
	for _, c := range v.Checks {
		checks[c.Name] = c.Status
	}
	return checks
}

func TestAttack18_TenThousandReferrers(t *testing.T) {
	p := newPrey(t, false)
	want := p.judge(0, 5*time.Second)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		junk func(i int) []byte
	}{
		{"signed by a stranger", func(i int) []byte {
			return append(signed(t, p.release, stranger), strings.Repeat(" ", 4000+i%100)...)
		}},
		{"no bundles", func(i int) []byte { return fmt.Appendf(nil, `{"junk":%d}`, i) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.user.t = t
			var entries []string
			for i := range 10000 {
				junk := c.junk(i)
				entries = append(entries, p.refer(p.serve("blobs", "application/octet-stream", junk), len(junk)))
			}
			p.list(entries...)
			got := p.judge(0, 5*time.Second)
			for name, status := range want {
				if name != verify.CheckBundles && got[name] != status {
					t.Errorf("%s: %s, without the junk %s", name, got[name], status)
				}
			}
		})
	}
	// The same where the good one has no tag, so that the listing is read.
	p.user.t = t
	loose := newPrey(t, true)
	entries := []string{loose.refer(loose.serve("blobs", "application/octet-stream", loose.bundle), len(loose.bundle))}
	for i := range 10000 {
		junk := append(signed(t, loose.release, stranger), strings.Repeat(" ", i%64)...)
		entries = append(entries, loose.refer(loose.serve("blobs", "application/octet-stream", junk), len(junk)))
	}
	loose.list(entries...)
	got := loose.judge(0, 5*time.Second)
	for name, status := range want {
		if got[name] != status {
			t.Errorf("without its tag: %s: %s, with it and without the junk %s", name, got[name], status)
		}
	}
	// The same where nobody signed: refused, and no sooner out of breath.
	bare := newPrey(t, true)
	entries = nil
	for i := range 10000 {
		junk := append(signed(t, bare.release, stranger), strings.Repeat(" ", i%64)...)
		entries = append(entries, bare.refer(bare.serve("blobs", "application/octet-stream", junk), len(junk)))
	}
	bare.list(entries...)
	if got := bare.judge(3, 5*time.Second); got[verify.CheckSigner] != "fail" && got[verify.CheckSignature] != "fail" || got[verify.CheckBundles] != "fail" {
		t.Errorf("unsigned in a flood: %v", got)
	}
}

func TestAttack18_LongestBundles(t *testing.T) {
	for name, text := range map[string]struct{ head, member, tail string }{
		"signatures": {`,"dsseEnvelope":{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[`, `{"sig":"AAAA"}`, `]}}`},
		"entries":    {`,"dsseEnvelope":{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"sig":"AAAA"}]},"verificationMaterial":{"publicKey":{"hint":""},"tlogEntries":[`, `{}`, `]}}`},
		"payload":    {`,"dsseEnvelope":{"payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AAAA"}],"payload":"AAAA`, `AAAA`, `"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPrey(t, true)
			var entries []string
			for i := range 64 {
				b := fmt.Appendf(nil, `{"mediaType":%q,%s`, oras.TypeBundle, strings.Repeat(" ", i))
				b = append(b, text.head[1:]...)
				comma := ""
				for len(b) < oras.MaxBundle-64 {
					b = append(b, comma+text.member...)
					if name != "payload" {
						comma = ","
					}
				}
				b = append(b, text.tail...)
				if !json.Valid(b) {
					t.Fatal("not JSON")
				}
				entries = append(entries, p.refer(p.serve("blobs", "application/octet-stream", b), len(b)))
			}
			p.list(entries...)
			p.judge(3, 5*time.Second)
		})
	}
}

func TestAttack06_HundredMegabyteBundle(t *testing.T) {
	for _, stated := range []int{100 << 20, oras.MaxBundle} {
		p := newPrey(t, true)
		part := append([]byte(`{"mediaType":"`+oras.TypeBundle+`","x":"`), bytes.Repeat([]byte("x"), 1<<20)...)
		d := canon.Sum(part)
		p.answers["blobs/"+d.String()] = answer{mediaType: "application/octet-stream", body: part, endless: true}
		p.list(p.refer(d, stated))
		if got := p.judge(3, time.Second); got[verify.CheckSignature] != "fail" {
			t.Errorf("%d bytes stated: %v", stated, got)
		}
	}
}

func TestAttack06_GzipBomb(t *testing.T) {
	var part bytes.Buffer
	w, err := gzip.NewWriterLevel(&part, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(make([]byte, 16<<20))
	w.Close()
	bomb := bytes.Repeat(part.Bytes(), 64) // members of one file: 1 GiB
	if len(bomb) > oras.MaxBundle {
		t.Fatalf("the bomb has %d bytes, so it is too long already", len(bomb))
	}
	p := newPrey(t, true)
	p.list(p.refer(p.serve("blobs", "application/gzip", bomb), len(bomb)))
	if got := p.judge(3, time.Second); got[verify.CheckSignature] != "fail" {
		t.Errorf("got %v", got)
	}
}
