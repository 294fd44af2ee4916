package oras

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Known attacks on clients of registries, one test each. The numbers are those of
// the project's list of attacks; rows that are not here are for other packages.

// hostile is a registry that behaves, but for the requests that twist answers
// (it returns false for the others).
type hostile struct {
	http.Handler
	how atomic.Pointer[twister]
}

type twister = func(w http.ResponseWriter, r *http.Request) bool

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f := h.how.Load(); f == nil || *f == nil || !(*f)(w, r) {
		h.Handler.ServeHTTP(w, r)
	}
}

// twist sets what answers from now on; nil is an honest registry.
func (h *hostile) twist(f twister) { h.how.Store(&f) }

// newHostile opens a registry that holds the sample release; set twist afterwards.
func newHostile(t *testing.T, opt Options) (*hostile, Store, *Artifact) {
	t.Helper()
	h := &hostile{Handler: newRegistry(false)}
	s := serve(t, h, opt)
	a := samplePack(t)
	push(t, s, a)
	return h, s, a
}

// otherPack is a release with another number and other models than samplePack.
func otherPack(t testing.TB) *Artifact {
	t.Helper()
	models, rel := sampleModels(), sampleRelease()
	models[0].Data, rel.Number = []byte("other"), 8
	a, err := Pack(rel, models)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func isManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
func isBlob(r *http.Request, d canon.Digest) bool {
	return strings.HasSuffix(r.URL.Path, "/blobs/"+d.String())
}
func sendManifest(w http.ResponseWriter, mediaType string, b []byte) bool {
	w.Header().Set("Content-Type", mediaType)
	w.Write(b)
	return true
}

// sendEndless sends spaces until the client goes away, and counts them.
func sendEndless(w http.ResponseWriter, sent *atomic.Int64) {
	for {
		n, err := w.Write(bytes.Repeat([]byte(" "), 64<<10))
		sent.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// Row 6: whatever is asked for, the answer never ends.
func TestAttack06_EndlessData(t *testing.T) {
	ctx := context.Background()
	h, s, a := newHostile(t, testOptions)
	attach(t, s, a.Descriptor(), "good", ProvenanceTag(a.Digest))
	pull := func() error { _, err := Pull(ctx, s, a.Digest); return err }
	bundles := func() error { _, err := Bundles(ctx, s, a.Digest, ProvenanceTag(a.Digest)); return err }
	for _, c := range []struct {
		name   string
		at     func(r *http.Request) bool
		status int
		header map[string]string
		read   func() error
		want   error // nil: only that it ends
	}{
		{"manifest", isManifest, 200, map[string]string{"Content-Type": TypeManifest}, pull, ErrInvalid},
		{"manifest over the size, as the header says", isManifest, 200, map[string]string{"Content-Type": TypeManifest, "Content-Length": strconv.Itoa(MaxManifest + 1)}, pull, ErrInvalid},
		{"manifest at a tag", isManifest, 200, map[string]string{"Content-Type": TypeManifest}, func() error { _, err := s.Resolve(ctx, "latest"); return err }, ErrInvalid},
		{"config", func(r *http.Request) bool { return isBlob(r, canon.Sum(a.Config)) }, 200, nil, pull, ErrInvalid},
		{"release.json", func(r *http.Request) bool { return isBlob(r, canon.Sum(a.ReleaseJSON)) }, 200, nil, pull, ErrInvalid},
		{"model", func(r *http.Request) bool { return isBlob(r, canon.Sum(a.Models[2].Data)) }, 200, nil, pull, ErrInvalid},
		{"bundle", func(r *http.Request) bool { return isBlob(r, canon.Sum(sampleBundle("good"))) }, 200, nil, bundles, nil},
		{"referrers", func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/referrers/") }, 200, map[string]string{"Content-Type": TypeIndex}, bundles, nil},
		{"fallback index", func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/"+referrersTag(a.Digest)) }, 200, map[string]string{"Content-Type": TypeIndex}, bundles, nil},
		{"body of an error", isManifest, 403, map[string]string{"Content-Type": "application/json"}, pull, ErrRefused},
		{"body of a redirect", isManifest, 307, map[string]string{"Location": "/"}, pull, nil},
		{"body where nothing is to be read", func(r *http.Request) bool { return r.Method == http.MethodPost }, 202, map[string]string{"Location": "/x"}, func() error {
			b := []byte("new")
			return putBytes(ctx, s, describe(typeModel, b, ""), b)
		}, nil},
	} {
		var sent, asked atomic.Int64
		h.twist(func(w http.ResponseWriter, r *http.Request) bool {
			if !c.at(r) {
				return false
			}
			asked.Add(1)
			for k, v := range c.header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(c.status)
			sendEndless(w, &sent)
			return true
		})
		if err := c.read(); c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		// Buffers of both ends and one limit of a manifest, or several tries of less.
		if n := sent.Load(); asked.Load() == 0 || n > 3*MaxManifest {
			t.Errorf("%s: asked %d times, %d bytes were taken", c.name, asked.Load(), n)
		}
	}
	token := &hostile{Handler: newRegistry(false)}
	var sent atomic.Int64
	token.twist(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			sendEndless(w, &sent)
			return true
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	if _, err := tryServe(t, token, testOptions); err == nil || sent.Load() > 3*MaxManifest {
		t.Errorf("token: %v after %d bytes", err, sent.Load())
	}
	many := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := range 10000 {
			w.Header().Add("X-"+strconv.Itoa(i), strings.Repeat("x", 100))
		}
	})
	if _, err := tryServe(t, many, testOptions); err == nil {
		t.Error("a megabyte of headers was taken")
	}
}

// Row 7: answers that trickle or stall.
func TestAttack07_SlowRetrieval(t *testing.T) {
	ctx := context.Background()
	opt := testOptions
	h, s, a := newHostile(t, opt)
	s.(*remote).timeout = 200 * time.Millisecond
	drip := func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write([]byte(" ")); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	for name, twist := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"manifest drips": func(w http.ResponseWriter, r *http.Request) bool {
			if isManifest(r) {
				w.Header().Set("Content-Type", TypeManifest)
				drip(w, r)
			}
			return isManifest(r)
		},
		"blob drips": func(w http.ResponseWriter, r *http.Request) bool {
			if isBlob(r, canon.Sum(a.Models[1].Data)) {
				drip(w, r)
			}
			return isBlob(r, canon.Sum(a.Models[1].Data))
		},
		"no answer": func(w http.ResponseWriter, r *http.Request) bool {
			<-r.Context().Done()
			return true
		},
	} {
		h.twist(twist)
		start := time.Now()
		_, err := Pull(ctx, s, a.Digest)
		if !errors.Is(err, ErrUnreachable) && !(name == "blob drips" && errors.Is(err, ErrInvalid)) {
			t.Errorf("%s: %v, want ErrUnreachable", name, err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: took %v", name, d)
		}
	}
	// What came fast before is no credit: a blob of many megabytes that stalls is
	// given up as soon as a small one.
	const size = 64 << 20
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		w.Write(make([]byte, size/2))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	})
	start := time.Now()
	rc, err := s.Blob(ctx, describeAs(typeArrow, canon.Sum([]byte("large")), size, ""))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, rc)
	rc.Close()
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "bytes arrive a second") || n > size/2 || time.Since(start) > 5*time.Second {
		t.Errorf("stall in a large blob: %v after %d bytes and %v", err, n, time.Since(start))
	}
	// A steady one that takes many times the timeout is no attack.
	s.(*remote).timeout = 50 * time.Millisecond
	part := bytes.Repeat([]byte("x"), 4<<10)
	var all []byte
	for range 40 {
		all = append(all, part...)
	}
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", strconv.Itoa(len(all)))
		for range 40 {
			w.Write(part)
			w.(http.Flusher).Flush()
			time.Sleep(10 * time.Millisecond)
		}
		return true
	})
	if _, err := readBlob(ctx, s, describe(typeModel, all, ""), MaxModel); err != nil {
		t.Errorf("steady: %v", err)
	}
	// The caller's deadline is the one for everything, whatever a request may take.
	s.(*remote).timeout = time.Minute
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	})
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	start = time.Now()
	if _, err := Pull(short, s, a.Digest); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("deadline of the caller: %v after %v", err, time.Since(start))
	}
	short, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := Bundles(short, s, a.Digest, ProvenanceTag(a.Digest)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline of the caller, bundles: %v", err)
	}
}

// Row 8: a manifest that asks for more than the artifact, or for it from elsewhere.
// Releases that do are refused (vectors 08, 12 and 14); of other referrers the
// members that could lead away are not read.
func TestAttack08_ForeignURLs(t *testing.T) {
	ctx := context.Background()
	trap := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s was asked", r.Method, r.URL)
		w.Write(sampleBundle("far"))
	}))
	defer trap.Close()
	h, s, a := newHostile(t, testOptions)
	far := sampleBundle("far") // not in the registry
	m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":%q,"digest":%q,"size":2,"urls":[%q]},`+
		`"layers":[{"mediaType":%q,"digest":%q,"size":%d,"urls":[%q],"data":"e30="}],"subject":{"mediaType":%q,"digest":%q,"size":%d,"urls":[%q]}}`,
		TypeManifest, TypeBundle, typeEmpty, canon.Sum([]byte(emptyJSON)), trap.URL, TypeBundle, canon.Sum(far), len(far), trap.URL, TypeManifest, a.Digest, len(a.Manifest), trap.URL)
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/manifests/tagged") || strings.HasSuffix(r.URL.Path, "/manifests/"+canon.Sum(m).String()) {
			return sendManifest(w, TypeManifest, m)
		}
		return false
	})
	found, err := Bundles(ctx, s, a.Digest, "tagged")
	if err != nil || len(found.Bundles) != 0 || len(found.Damaged) != 1 || found.Complete {
		t.Errorf("got %+v, %v", found, err)
	}
	size := fmt.Sprintf(`"size":%d`, len(a.Models[0].Data))
	release := bytes.Replace(a.Manifest, []byte(size+"}"), fmt.Appendf(nil, `%s,"urls":[%q]}`, size, trap.URL), 1)
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		if isManifest(r) {
			return sendManifest(w, TypeManifest, release)
		}
		return false
	})
	if _, err := Pull(ctx, s, canon.Sum(release)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "urls") {
		t.Errorf("release with urls: %v", err)
	}
}

// Row 15: a registry that sends other bytes than were asked for, whatever it
// says about them in headers.
func TestAttack15_LyingRegistry(t *testing.T) {
	ctx := context.Background()
	h, s, a := newHostile(t, testOptions)
	changed := bytes.Replace(a.Manifest, []byte(`"size":`), []byte(`"size":1`), 1)
	for name, twist := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"another manifest, with the asked digest in the header": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Docker-Content-Digest", a.Digest.String())
			return sendManifest(w, TypeManifest, changed)
		},
		"longer than it says": func(w http.ResponseWriter, r *http.Request) bool {
			return sendManifest(w, TypeManifest, append(a.Manifest[:len(a.Manifest):len(a.Manifest)], ' '))
		},
	} {
		h.twist(func(w http.ResponseWriter, r *http.Request) bool { return isManifest(r) && twist(w, r) })
		if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: pull gives %v, want ErrInvalid", name, err)
		}
		if _, err := s.Resolve(ctx, a.Digest.String()); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: resolve gives %v, want ErrInvalid", name, err)
		}
	}
	h.twist(nil)
	for _, b := range [][]byte{a.Config, a.ReleaseJSON, a.Models[0].Data, a.Models[3].Data} {
		for name, twist := range map[string]func(w http.ResponseWriter){
			"one bit":     func(w http.ResponseWriter) { w.Write(append([]byte{b[0] ^ 1}, b[1:]...)) },
			"one byte on": func(w http.ResponseWriter) { w.Write(append(b[:len(b):len(b)], 'x')) },
			"one byte on, length unsaid": func(w http.ResponseWriter) {
				w.(http.Flusher).Flush()
				w.Write(append(b[:len(b):len(b)], 'x'))
			},
			"one byte off": func(w http.ResponseWriter) { w.Write(b[:len(b)-1]) },
			"nothing":      func(w http.ResponseWriter) {},
			"inflated on the way": func(w http.ResponseWriter) {
				w.Header().Set("Content-Encoding", "gzip")
				w.Write(b[:len(b)-1])
			},
		} {
			h.twist(func(w http.ResponseWriter, r *http.Request) bool {
				if !isBlob(r, canon.Sum(b)) {
					return false
				}
				twist(w)
				return true
			})
			if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrInvalid) {
				t.Errorf("blob, %s: %v, want ErrInvalid", name, err)
			}
		}
	}
	// Headers that lie about bytes that are right change nothing.
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Docker-Content-Digest", canon.Sum([]byte("other")).String())
		w.Header().Set("Content-Digest", "sha-256=:AAAA:")
		w.Header().Set("ETag", `"x"`)
		return false
	})
	if _, err := Pull(ctx, s, a.Digest); err != nil {
		t.Errorf("right bytes, other digests in headers: %v", err)
	}
	if d, err := s.Resolve(ctx, ReleaseTag(7)); err != nil || d.Digest != a.Digest {
		t.Errorf("tag, other digest in headers: %s, %v", d.Digest, err)
	}
	// A tag that moves while it is read gives one or the other, never a mixture.
	other := otherPack(t)
	push(t, s, other)
	var n atomic.Int32
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/moving") {
			return false
		}
		if n.Add(1)%2 == 1 {
			return sendManifest(w, TypeManifest, a.Manifest)
		}
		return sendManifest(w, TypeManifest, other.Manifest)
	})
	for _, want := range []*Artifact{a, other, a} {
		d, err := s.Resolve(ctx, "moving")
		if err != nil || d.Digest != want.Digest {
			t.Fatalf("moving tag: %s, %v", d.Digest, err)
		}
		if got, err := Pull(ctx, s, d.Digest); err != nil || got.Release.Number != want.Release.Number {
			t.Errorf("what it stood for: %v", err)
		}
	}
}

// Row 16: one text that is a manifest to one reader and an index, or another
// manifest, to the next (CVE-2021-41190).
func TestAttack16_TypeConfusion(t *testing.T) {
	ctx := context.Background()
	h, s, _ := newHostile(t, testOptions)
	desc := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":2}`, typeEmpty, canon.Sum([]byte(emptyJSON)))
	image := func(more string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]%s}`, TypeManifest, desc, desc, more)
	}
	index := func(more string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]%s}`, TypeIndex, desc, more)
	}
	const docker = "application/vnd.docker.distribution.manifest.v2+json"
	for _, c := range []struct {
		name, header, body string
		ok                 bool
	}{
		{"image manifest", TypeManifest, image(""), true},
		{"image index", TypeIndex, index(""), true},
		{"header with a parameter", TypeManifest + "; charset=utf-8", image(""), true},
		{"image manifest, sent as an index", TypeIndex, image(""), false},
		{"index, sent as an image manifest", TypeManifest, index(""), false},
		{"sent as something else", "application/json", image(""), false},
		{"sent as a page", "text/html", image(""), false},
		{"sent as nothing", "", image(""), false},
		{"sent as two types", TypeManifest + ", " + TypeIndex, image(""), false},
		{"both, as an image manifest", TypeManifest, image(`,"manifests":[` + desc + `]`), false},
		{"both, as an index", TypeIndex, index(`,"config":` + desc + `,"layers":[]`), false},
		{"empty manifests beside layers", TypeManifest, image(`,"manifests":[]`), false},
		{"null manifests beside layers", TypeManifest, image(`,"manifests":null`), false},
		{"layers alone beside manifests", TypeIndex, index(`,"layers":null`), false},
		{"states nothing", TypeManifest, strings.Replace(image(""), `"mediaType":"`+TypeManifest+`",`, "", 1), false},
		{"states the other type", TypeManifest, strings.Replace(image(""), TypeManifest, TypeIndex, 1), false},
		{"states two types", TypeManifest, image(`,"mediaType":"` + TypeIndex + `"`), false},
		{"states Docker's type", docker, strings.Replace(image(""), TypeManifest, docker, 1), false},
		{"states an old schema", "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"name":"x","fsLayers":[]}`, false},
		{"old schema number", TypeManifest, strings.Replace(image(""), `:2,`, `:1,`, 1), false},
		{"schema number as text", TypeManifest, strings.Replace(image(""), `:2,`, `:"2",`, 1), false},
		{"layers twice", TypeManifest, image(`,"layers":[]`), false},
		{"array", TypeManifest, `[` + image("") + `]`, false},
		{"more after the end", TypeManifest, image("") + `{}`, false},
		{"page", TypeManifest, "<html>", false},
		{"nothing", TypeManifest, "", false},
	} {
		h.twist(func(w http.ResponseWriter, r *http.Request) bool {
			return isManifest(r) && sendManifest(w, c.header, []byte(c.body))
		})
		_, byTag := s.Resolve(ctx, "tag")
		_, byDigest := s.Manifest(ctx, Descriptor{Digest: canon.Sum([]byte(c.body))})
		for _, err := range []error{byTag, byDigest} {
			if c.ok && err != nil || !c.ok && !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	// The right digest with the wrong kind of document is no release and no bundle.
	idx := []byte(index(""))
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		return isManifest(r) && sendManifest(w, TypeIndex, idx)
	})
	if _, err := Pull(ctx, s, canon.Sum(idx)); !errors.Is(err, ErrInvalid) {
		t.Errorf("index as a release: %v", err)
	}
}

// keys is a keychain that has one password for everyone who asks.
type keys struct{ authn.AuthConfig }

func (k keys) Resolve(authn.Resource) (authn.Authenticator, error) {
	if k.AuthConfig == (authn.AuthConfig{}) {
		k.AuthConfig = authn.AuthConfig{Username: "user", Password: "secret"}
	}
	return authn.FromConfig(k.AuthConfig), nil
}

// Row 17, redirects: a registry that sends its readers into their own network.
func TestAttack17_Redirects(t *testing.T) {
	ctx := context.Background()
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s reached a server inside the network", r.Method, r.URL)
	}))
	defer inside.Close()
	h, s, a := newHostile(t, testOptions)
	for name, target := range map[string]string{
		"another loopback port": inside.URL,
		"a name for loopback":   strings.Replace(inside.URL, "127.0.0.1", "localhost", 1),
		"link-local metadata":   "http://169.254.169.254/latest",
		"private network":       "https://10.0.0.1/",
		"another scheme":        "file:///etc/passwd",
	} {
		h.twist(func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, target, http.StatusTemporaryRedirect)
			return true
		})
		start := time.Now()
		if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrInvalid) && name != "another scheme" || err == nil {
			t.Errorf("redirect to %s: %v, want ErrInvalid", name, err)
		}
		if time.Since(start) > 2*time.Second {
			t.Errorf("redirect to %s was tried", name)
		}
		b := []byte(name)
		h.twist(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				w.Header().Set("Location", target+"/upload")
				w.WriteHeader(http.StatusAccepted)
				return true
			}
			return false
		})
		if err := putBytes(ctx, s, describe(typeModel, b, ""), b); err == nil {
			t.Errorf("upload to %s was accepted", name)
		}
	}
	// Within the registry, as many do for blobs.
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") && r.URL.RawQuery == "" {
			http.Redirect(w, r, r.URL.Path+"?elsewhere", http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	if _, err := Pull(ctx, s, a.Digest); err != nil {
		t.Errorf("redirect within the registry: %v", err)
	}
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrInvalid) {
		t.Errorf("redirect in a circle: %v, want ErrInvalid", err)
	}
}

// Row 17, redirects to where they may lead: the password stays behind.
func TestAttack17_RedirectsCarryNoAuthorization(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	blobs := newRegistry(false)
	var asked atomic.Int32
	outside := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("%s %s carries %q", r.Method, r.URL, r.Header)
		}
		blobs.ServeHTTP(w, r)
	}))
	defer outside.Close()
	opt := testOptions
	opt.Anonymous, opt.keychain = false, keys{}
	opt.RootCAs = x509.NewCertPool()
	opt.RootCAs.AddCert(outside.Certificate())
	opt.outside = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != "example.com:443" {
			t.Errorf("%s was dialed", address)
		}
		return new(net.Dialer).DialContext(ctx, network, outside.Listener.Addr().String())
	}
	for _, scheme := range []string{"Basic", "Bearer"} {
		h := &hostile{Handler: blobs}
		h.twist(func(w http.ResponseWriter, r *http.Request) bool {
			switch auth := r.Header.Get("Authorization"); {
			case r.URL.Path == "/token":
				fmt.Fprint(w, `{"token":"T"}`)
			case !strings.HasPrefix(auth, scheme):
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`%s realm="http://%s/token",service="x"`, scheme, r.Host))
				w.WriteHeader(http.StatusUnauthorized)
			case r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/"):
				w.Header().Set("Set-Cookie", "a=b; Domain=example.com")
				http.Redirect(w, r, "https://example.com"+r.URL.Path, http.StatusTemporaryRedirect)
			default:
				return false
			}
			return true
		})
		s := serve(t, h, opt)
		push(t, s, a)
		asked.Store(0)
		if _, err := Pull(ctx, s, a.Digest); err != nil || asked.Load() != 6 {
			t.Errorf("%s: %v, %d blobs from elsewhere", scheme, err, asked.Load())
		}
		// Without encryption it is not followed.
		twist := *h.how.Load()
		h.twist(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
				http.Redirect(w, r, "http://example.com"+r.URL.Path, http.StatusTemporaryRedirect)
				return true
			}
			return twist(w, r)
		})
		if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "unencrypted") {
			t.Errorf("%s: redirect to plain HTTP: %v", scheme, err)
		}
	}
}

// Row 17, realms: a registry that names another as its token server.
func TestAttack17_TokenRealms(t *testing.T) {
	ctx := context.Background()
	opt := testOptions
	opt.Anonymous, opt.keychain = false, keys{}
	for name, realm := range map[string]string{
		"another site":           "https://tokens.attacker.example/token",
		"an address":             "https://203.0.113.7/token",
		"link-local metadata":    "http://169.254.169.254/token",
		"a subdomain look-alike": "https://127.0.0.1.attacker.example/token",
		"no URL":                 "::",
	} {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				t.Errorf("%s: password sent with %s", name, r.URL)
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		})
		if _, err := tryServe(t, h, opt); !errors.Is(err, ErrInvalid) {
			t.Errorf("token server at %s: %v, want ErrInvalid", name, err)
		}
	}
	// The registry as its own token server, and one that asks for the password itself.
	h := &hostile{Handler: newRegistry(false)}
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		user, password, basic := r.BasicAuth()
		switch {
		case r.URL.Path == "/token" && basic && user == "user" && password == "secret":
			fmt.Fprintf(w, `{"access_token":"T"}`)
			return true
		case r.Header.Get("Authorization") == "Bearer T":
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	s := serve(t, h, opt)
	push(t, s, samplePack(t))
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		if _, password, _ := r.BasicAuth(); password == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	s = serve(t, h, opt)
	if _, err := s.Resolve(ctx, ReleaseTag(7)); err != nil {
		t.Errorf("basic authentication: %v", err)
	}
	opt.Anonymous = true
	s = serve(t, h, opt)
	if _, err := s.Resolve(ctx, ReleaseTag(7)); !errors.Is(err, ErrRefused) {
		t.Errorf("without a password: %v, want ErrRefused", err)
	}
	// Without a password too, a realm leads to no place inside.
	for _, realm := range []string{"http://169.254.169.254/token", "https://169.254.169.254/token", "https://10.0.0.1/token", "https://[::1]/token", "https://[fd00:ec2::254]/token",
		"https://localhost:1/token", "http://example.com/token", "file:///etc/passwd", "gopher://example.com/", ""} {
		opt := testOptions
		opt.outside = nil
		start := time.Now()
		_, err := tryServe(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}), opt)
		if err == nil || time.Since(start) > 2*time.Second {
			t.Errorf("realm %q: %v after %v", realm, err, time.Since(start))
		}
	}
}

// Row 17, later: a registry that asks for the password again, with another realm,
// and a token server that passes a request with a secret on.
func TestAttack17_ChangedRealm(t *testing.T) {
	ctx := context.Background()
	opt := testOptions
	opt.Anonymous, opt.keychain = false, keys{}
	var tokens atomic.Int32
	h := &hostile{Handler: newRegistry(false)}
	realm := "" // from the second challenge on
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			tokens.Add(1)
			fmt.Fprint(w, `{"token":"T"}`)
		case r.Header.Get("Authorization") == "Bearer T" && realm == "":
			return false
		default:
			at := realm
			if at == "" {
				at = "http://" + r.Host + "/token"
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="x",scope="registry:catalog:*"`, at))
			w.WriteHeader(http.StatusUnauthorized)
		}
		return true
	})
	opt.outside = func(_ context.Context, _, address string) (net.Conn, error) {
		t.Errorf("%s was dialed", address)
		return nil, errors.New("no")
	}
	s := serve(t, h, opt)
	a := samplePack(t)
	push(t, s, a)
	before := tokens.Load()
	realm = "https://tokens.attacker.example/token"
	if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrRefused) {
		t.Errorf("challenge with another realm: %v, want ErrRefused", err)
	}
	if n := tokens.Load() - before; n > 1 {
		t.Errorf("%d more tokens were asked for", n)
	}
	// The refresh token of a login goes in the body of a POST.
	opt.keychain = keys{authn.AuthConfig{IdentityToken: "refresh-secret"}}
	var posts, stolen atomic.Int32
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/token" && strings.Contains(string(body), "refresh-secret"):
			posts.Add(1)
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		case r.URL.Path == "/elsewhere":
			stolen.Add(1)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
		return true
	})
	if _, err := tryServe(t, h, opt); !errors.Is(err, ErrInvalid) || posts.Load() == 0 || stolen.Load() != 0 {
		t.Errorf("POST redirected: %v, %d sent, %d sent on", err, posts.Load(), stolen.Load())
	}
}

// Row 17, names: where a registry may lead depends on where it is itself.
func TestAttack17_WhereARegistryMayLead(t *testing.T) {
	reg, err := name.NewRegistry("registry.example.org")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		reached []string // connections to the registry
		target  string
		want    bool
	}{
		{nil, "203.0.114.7", true},
		{nil, "10.0.0.9", false},
		{[]string{"203.0.114.7:443"}, "10.0.0.9", false},
		{[]string{"10.0.0.5:443"}, "10.0.0.9", true},
		{[]string{"10.0.0.5:443"}, "203.0.114.7", true},
		{[]string{"[fd12::1]:443"}, "192.168.1.1", true},
		{[]string{"10.0.0.5:443"}, "127.0.0.1", false},
		{[]string{"10.0.0.5:443"}, "169.254.169.254", false},
		{[]string{"10.0.0.5:443"}, "fd00:ec2::254", false},
		{[]string{"10.0.0.5:443"}, "::ffff:127.0.0.1", false},
		{[]string{"127.0.0.1:5000"}, "10.0.0.9", false},
		{[]string{"10.0.0.5:443", "203.0.114.7:443"}, "10.0.0.9", false}, // a name that answers both
		{[]string{"not an address"}, "10.0.0.9", false},
	} {
		g := newGuard(reg, Options{})
		for _, r := range c.reached {
			g.reached(r)
		}
		if got := g.mayLeadTo(netip.MustParseAddr(c.target)); got != c.want {
			t.Errorf("registry at %v, target %s: %v, want %v", c.reached, c.target, got, c.want)
		}
	}
	// With a proxy nothing but the name is seen; an address in it is enough.
	g := newGuard(reg, Options{})
	g.inner.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse("http://127.0.0.1:1") }
	for target, want := range map[string]string{
		"https://169.254.169.254/latest": "own network", "https://10.0.0.9/": "own network", "https://[::1]:5000/": "own network",
		"https://203.0.114.7/": "127.0.0.1:1", "http://203.0.114.7/": "unencrypted", "http://registry.example.org/v2/": "plain HTTP",
	} {
		if _, err := g.RoundTrip(httptest.NewRequest("GET", target, nil)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s through a proxy: %v, want %q", target, err, want)
		}
	}
}

// Row 18: listings that never end, and floods of junk.
func TestAttack18_ReferrersFlood(t *testing.T) {
	ctx := context.Background()
	subject := canon.Sum([]byte("subject"))
	entry := func(i int) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":10}`, TypeManifest, canon.Sum([]byte(strconv.Itoa(i))))
	}
	index := func(entries ...string) []byte {
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, TypeIndex, strings.Join(entries, ","))
	}
	var requests atomic.Int32
	for name, c := range map[string]struct {
		serve    func(w http.ResponseWriter, r *http.Request)
		listed   int
		complete bool
	}{
		"two pages": {func(w http.ResponseWriter, r *http.Request) {
			page, _ := strconv.Atoi(r.URL.Query().Get("page"))
			if page == 0 {
				w.Header().Set("Link", `<`+r.URL.Path+`?page=1>; rel="next"`)
			}
			sendManifest(w, TypeIndex, index(entry(page)))
		}, 2, true},
		"endless pages": {func(w http.ResponseWriter, r *http.Request) {
			page, _ := strconv.Atoi(r.URL.Query().Get("page"))
			w.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, page+1))
			sendManifest(w, TypeIndex, index(entry(page)))
		}, MaxReferrerPages, false},
		"next page on another host": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `<https://attacker.example/>; rel="next"`)
			sendManifest(w, TypeIndex, index(entry(0)))
		}, 1, true},
		"endless page": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", TypeIndex)
			for {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
					return
				}
			}
		}, 0, false},
		"a page that is no index": {func(w http.ResponseWriter, r *http.Request) {
			sendManifest(w, TypeIndex, []byte(`{"schemaVersion":2,"mediaType":"`+TypeIndex+`","manifests":7}`))
		}, 0, false},
		"entries that cannot be read": {func(w http.ResponseWriter, r *http.Request) {
			sendManifest(w, TypeIndex, index(`{"digest":"sha512:00"}`, `7`, `{}`, entry(0), `{"mediaType":"a/b","digest":"`+subject.String()+`","size":-1}`))
		}, 1, true},
	} {
		h := &hostile{Handler: newRegistry(false)}
		h.twist(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/referrers/") {
				return false
			}
			if requests.Add(1); r.URL.RawQuery != "" && strings.Contains(r.URL.RawQuery, "artifactType") {
				t.Error("the listing was asked to be filtered")
			}
			c.serve(w, r)
			return true
		})
		s := serve(t, h, testOptions)
		requests.Store(0)
		list, complete, err := s.Referrers(ctx, subject)
		if err != nil || len(list) != c.listed || complete != c.complete || requests.Load() > MaxReferrerPages {
			t.Errorf("%s: %d listed, complete %v, %v, %d requests; want %d, %v", name, len(list), complete, err, requests.Load(), c.listed, c.complete)
		}
	}
	// 10,000 entries in one list, none of which is there: what is tagged is found,
	// and few of the others are looked at.
	var entries []string
	for i := range 10000 {
		entries = append(entries, entry(i))
	}
	flood := index(entries...)
	for _, at := range []string{"/referrers/" + samplePack(t).Digest.String(), "/" + referrersTag(samplePack(t).Digest)} {
		h, s, a := newHostile(t, testOptions)
		attach(t, s, a.Descriptor(), "good", ProvenanceTag(a.Digest))
		requests.Store(0)
		h.twist(func(w http.ResponseWriter, r *http.Request) bool {
			requests.Add(1)
			return strings.HasSuffix(r.URL.Path, at) && sendManifest(w, TypeIndex, flood)
		})
		found, err := Bundles(ctx, s, a.Digest, ProvenanceTag(a.Digest))
		if err != nil || len(found.Bundles) != 1 || found.Bundles[0].Tag == "" || found.Complete {
			t.Errorf("flood at %s: %d bundles, complete %v, %v", at, len(found.Bundles), found.Complete, err)
		}
		if n := requests.Load(); n > MaxReferrers+MaxReferrerPages {
			t.Errorf("flood at %s: %d requests", at, n)
		}
	}
	// A listing that breaks the rules does not hide what is tagged either.
	h, s, a := newHostile(t, testOptions)
	attach(t, s, a.Descriptor(), "good", ProvenanceTag(a.Digest))
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/referrers/") {
			http.Redirect(w, r, "https://10.0.0.1/", http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	if found, err := Bundles(ctx, s, a.Digest, ProvenanceTag(a.Digest)); err != nil || len(found.Bundles) != 1 || found.Complete || len(found.Skipped) != 1 {
		t.Errorf("listing led inside: %+v, %v", found, err)
	}
}

// Row 18, bombs: a bundle that is compressed is taken as it is, one that is too
// long not at all.
func TestAttack18_BundleBombs(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	for range 64 {
		w.Write(make([]byte, 1<<20))
	}
	w.Close()
	h, s, _ := newHostile(t, testOptions)
	layer := describe(TypeBundle, z.Bytes(), "")
	if err := putBytes(ctx, s, layer, z.Bytes()); err != nil {
		t.Fatal(err)
	}
	refer(t, s, layer, a.Descriptor(), TypeBundle)
	inflate := false
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		if inflate && isBlob(r, layer.Digest) {
			w.Header().Set("Content-Encoding", "gzip")
		}
		return false
	})
	for _, inflate = range []bool{false, true} {
		found, err := Bundles(ctx, s, a.Digest)
		if err != nil || len(found.Bundles) != 1 || !bytes.Equal(found.Bundles[0].Data, z.Bytes()) {
			t.Errorf("header %v: got %d bundles, %v, want the compressed bytes as they are", inflate, len(found.Bundles), err)
		}
	}
	// Of one that says it is long, no byte is fetched.
	_, s, _ = newHostile(t, testOptions)
	long := describeAs(TypeBundle, canon.Sum([]byte("long")), 100<<20, "")
	refer(t, s, long, a.Descriptor(), TypeBundle)
	found, err := Bundles(ctx, s, a.Digest)
	if err != nil || len(found.Bundles) != 0 || len(found.Damaged) != 1 || !strings.Contains(found.Damaged[0], "states 104857600 bytes") {
		t.Errorf("long one: %+v, %v", found, err)
	}
}

// Row 19: statements that are no longer there, or no longer listed, give an
// answer of its own, and are never an error that could pass for a network's.
func TestAttack19_HiddenStatements(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	eachStore(t, func(t *testing.T, s Store) {
		push(t, s, a)
		found, err := Bundles(ctx, s, a.Digest, ProvenanceTag(a.Digest))
		if err != nil || len(found.Bundles) != 0 || !found.Complete || len(found.Skipped)+len(found.Damaged) != 0 {
			t.Errorf("nothing there: %+v, %v", found, err)
		}
	})
	h, s, _ := newHostile(t, testOptions)
	attach(t, s, a.Descriptor(), "good", ProvenanceTag(a.Digest))
	empty := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[]}`, TypeIndex)
	gone := func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusNotFound); return true }
	for _, c := range []struct {
		name     string
		tag      func(w http.ResponseWriter) bool
		list     func(w http.ResponseWriter) bool
		bundles  int
		damaged  int
		complete bool
	}{
		{"listing emptied", nil, func(w http.ResponseWriter) bool { return sendManifest(w, TypeIndex, empty) }, 1, 0, true},
		{"listing gone", nil, gone, 1, 0, true},
		{"tag gone", gone, nil, 1, 0, true},
		{"both gone", gone, gone, 0, 0, true},
		{"tag on the release itself", func(w http.ResponseWriter) bool { return sendManifest(w, TypeManifest, a.Manifest) }, gone, 0, 1, true},
		{"tag on junk", func(w http.ResponseWriter) bool { return sendManifest(w, TypeManifest, []byte("{}")) }, gone, 0, 1, true},
	} {
		h.twist(func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case c.tag != nil && strings.HasSuffix(r.URL.Path, ".provenance"):
				return c.tag(w)
			case c.list != nil && strings.HasSuffix(r.URL.Path, "/"+referrersTag(a.Digest)):
				return c.list(w)
			}
			return false
		})
		found, err := Bundles(ctx, s, a.Digest, ProvenanceTag(a.Digest))
		if err != nil || len(found.Bundles) != c.bundles || len(found.Damaged) != c.damaged || found.Complete != c.complete {
			t.Errorf("%s: %+v, %v", c.name, found, err)
		}
	}
}

// Row 20: nothing is unpacked, and names of files come from a fixed list.
func TestAttack20_Extraction(t *testing.T) {
	ctx := context.Background()
	for _, title := range []string{"../evil", "/evil", "records.arrow/../../evil", `..\evil`, "records.arrow\x00", "RECORDS.ARROW", "link"} {
		s := newLayout(t)
		data := []byte("tar or zip, whatever it is")
		layers := []Descriptor{describe(typeArrow, data, "exploits.arrow"), describe(typeArrow, data, title), describe(typeJSON, data, "files.json")}
		b, err := canon.Marshal(manifest{SchemaVersion: 2, MediaType: TypeManifest, ArtifactType: TypeDataset, Config: describe(typeSnapshot, data, SnapshotFile), Layers: layers})
		if err != nil {
			t.Fatal(err)
		}
		if err := putBytes(ctx, s, layers[0], data); err != nil {
			t.Fatal(err)
		}
		d, err := s.PutManifest(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "in", "data")
		if _, err := PullDataset(ctx, s, d.Digest.String(), dir); !errors.Is(err, ErrInvalid) {
			t.Errorf("layer %q: %v, want ErrInvalid", title, err)
		}
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("layer %q: the directory is there", title)
		}
	}
}

// Row 33: words of a registry in our messages are one line without control characters.
func TestAttack33_HostileWords(t *testing.T) {
	ctx := context.Background()
	h, s, a := newHostile(t, testOptions)
	const evil = "\x1b[2J\x1b]0;VERIFIED\a\r\n\u202everified\u2066\u0085\xff\u200b"
	clean := func(what, text string) {
		t.Helper()
		for _, r := range text {
			if !unicode.IsPrint(r) {
				t.Errorf("%s: %q", what, text)
				return
			}
		}
		if len(text) > 4096 {
			t.Errorf("%s: %d bytes", what, len(text))
		}
	}
	quoted := strings.NewReplacer("\x1b", `\u001b`, "\a", `\u0007`, "\r", `\r`, "\n", `\n`, "\xff", "").Replace(evil + strings.Repeat("long", 10000))
	for name, twist := range map[string]func(w http.ResponseWriter){
		"error message": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"%s"}]}`, quoted)
		},
		"error code": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"errors":[{"code":"%s","message":"x"}]}`, quoted)
		},
		"error that is no JSON": func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot); io.WriteString(w, evil) },
		"media type":            func(w http.ResponseWriter) { sendManifest(w, evil, a.Manifest) },
		"stated media type": func(w http.ResponseWriter) {
			sendManifest(w, TypeManifest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","layers":[]}`, quoted))
		},
		"no JSON": func(w http.ResponseWriter) { sendManifest(w, TypeManifest, []byte(evil)) },
		"redirect": func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://10.0.0.1/\u202e\u0085")
			w.WriteHeader(302)
		},
		"artifact type": func(w http.ResponseWriter) {
			sendManifest(w, TypeManifest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","artifactType":"%s","config":{"mediaType":"%s","digest":"%s","size":2},"layers":[],"subject":{"mediaType":"%s","digest":"%s","size":2}}`,
				TypeManifest, quoted, quoted, a.Digest, quoted, a.Digest))
		},
	} {
		h.twist(func(w http.ResponseWriter, r *http.Request) bool {
			if isManifest(r) {
				twist(w)
			}
			return isManifest(r)
		})
		if _, err := Pull(ctx, s, a.Digest); err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			clean(name, err.Error())
		}
		found, err := Bundles(ctx, s, a.Digest, "tagged")
		if err != nil {
			clean(name, err.Error())
			continue
		}
		for _, line := range append(found.Skipped, found.Damaged...) {
			clean(name, line)
		}
	}
}

// Row 34: one strict reader of what is signed or decides (vectors 07, 18 and 24),
// and one that refuses ambiguity in what only leads to it.
func TestAttack34_AmbiguousJSON(t *testing.T) {
	good := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":7}]}`, TypeIndex, TypeManifest, canon.Sum(nil))
	if list, err := decodeIndex([]byte(good)); err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	for name, text := range map[string]string{
		"member twice":      strings.Replace(good, `"manifests"`, `"manifests":[],"manifests"`, 1),
		"invalid UTF-8":     strings.Replace(good, "schema", "\xffschema", 1),
		"text after it":     good + "x",
		"two of them":       good + good,
		"byte order mark":   "\ufeff" + good,
		"comment":           "/**/" + good,
		"lone surrogate":    strings.Replace(good, `{"schema`, `{"a":"\ud800","schema`, 1),
		"ten thousand deep": strings.Replace(good, `"manifests":[`, `"manifests":[`+strings.Repeat("[", 20000), 1),
	} {
		if list, err := decodeIndex([]byte(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
	// An entry that is ambiguous is left out, and does not hide the others.
	for name, bad := range map[string]string{
		"digest twice": fmt.Sprintf(`{"digest":%q,"digest":%q,"size":7}`, canon.Sum(nil), canon.Sum([]byte("x"))),
		"huge size":    fmt.Sprintf(`{"digest":%q,"size":99999999999999999999}`, canon.Sum(nil)),
		"fraction":     fmt.Sprintf(`{"digest":%q,"size":7.5}`, canon.Sum(nil)),
		"negative":     fmt.Sprintf(`{"digest":%q,"size":-7}`, canon.Sum(nil)),
		"text size":    fmt.Sprintf(`{"digest":%q,"size":"7"}`, canon.Sum(nil)),
		"no digest":    `{"size":7}`,
	} {
		list, err := decodeIndex([]byte(strings.Replace(good, `"manifests":[`, `"manifests":[`+bad+`,`, 1)))
		if name == "digest twice" { // found while the whole is read
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v, %v", name, list, err)
			}
			continue
		}
		if err != nil || len(list) != 1 || list[0].Size != 7 {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

// Row 35: nothing older or weaker is asked for or taken.
func TestAttack35_Downgrade(t *testing.T) {
	ctx := context.Background()
	h, s, a := newHostile(t, testOptions)
	var mu sync.Mutex
	var asked []string
	h.twist(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.Path)
		if accept := r.Header.Get("Accept"); isManifest(r) && r.Method == http.MethodGet && accept != acceptManifest {
			t.Errorf("%s: Accept %q", r.URL, accept)
		}
		return false
	})
	legacy := canon.Digest{}
	for _, artifactType := range []string{"application/vnd.dev.sigstore.bundle+json;version=0.1", "application/vnd.dev.sigstore.bundle+json;version=0.2",
		"application/vnd.dev.sigstore.bundle.v0.2+json", "application/vnd.dev.cosign.simplesigning.v1+json", "application/vnd.cncf.notary.signature"} {
		data := sampleBundle(artifactType)
		layer := describe(artifactType, data, "")
		if err := putBytes(ctx, s, layer, data); err != nil {
			t.Fatal(err)
		}
		refer(t, s, layer, a.Descriptor(), artifactType)
		legacy = layer.Digest
	}
	found, err := Bundles(ctx, s, a.Digest, ProvenanceTag(a.Digest))
	if err != nil || len(found.Bundles) != 0 || len(found.Skipped) != 5 {
		t.Errorf("older signatures: %+v, %v", found, err)
	}
	for _, path := range asked {
		for _, old := range []string{".sig", ".att", ".sbom", "sha512", "sha1"} {
			if strings.HasSuffix(path, old) || strings.Contains(path, "/"+old) {
				t.Errorf("%s was asked for", path)
			}
		}
	}
	if legacy.IsZero() {
		t.Error("nothing was tried")
	}
	for _, name := range []string{"sha512:" + strings.Repeat("0", 128), "sha1:" + strings.Repeat("0", 40), "md5:" + strings.Repeat("0", 32), "sha256:" + strings.Repeat("0", 63)} {
		if _, err := s.Resolve(ctx, name); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// Row 36: the digest that is signed says which file is which.
func TestAttack36_ConfusedIdentity(t *testing.T) {
	a := samplePack(t)
	models := sampleModels()
	models[0].Data, models[1].Data = models[1].Data, models[0].Data
	swapped, err := Pack(sampleRelease(), models)
	if err != nil {
		t.Fatal(err)
	}
	if swapped.Digest == a.Digest {
		t.Error("two models changed places, and the digest did not change")
	}
}

// Row 37: what an artifact says about how to read it is not looked at.
func TestAttack37_PolicyFromTheArtifact(t *testing.T) {
	ctx := context.Background()
	h, s, a := newHostile(t, testOptions)
	attach(t, s, a.Descriptor(), "good", "")
	loose := bytes.Replace(a.Manifest, []byte(`{"artifactType"`), []byte(`{"annotations":{"dev.bhtrain.ignore":"release.json","dev.bhtrain.allow":"*"},"artifactType"`), 1)
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, "/"+canon.Sum(loose).String()) && sendManifest(w, TypeManifest, loose)
	})
	if _, err := Pull(ctx, s, canon.Sum(loose)); !errors.Is(err, ErrInvalid) {
		t.Errorf("release with annotations: %v", err)
	}
	// A listing that claims another type, size and predicate for a bundle.
	list, _, err := s.Referrers(ctx, a.Digest)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":"text/plain","artifactType":"text/html","digest":%q,"size":%d,"annotations":{"dev.sigstore.bundle.predicateType":"https://evil.example"}}]}`,
		TypeIndex, list[0].Digest, list[0].Size)
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/referrers/") && sendManifest(w, TypeIndex, index)
	})
	found, err := Bundles(ctx, s, a.Digest)
	if err != nil || len(found.Bundles) != 1 || found.Bundles[0].PredicateType != predicate {
		t.Errorf("listing with false claims: %+v, %v", found, err)
	}
}

// Row 38: reading needs the registry and nothing else.
func TestAttack38_NoOtherService(t *testing.T) {
	ctx := context.Background()
	opt := testOptions
	opt.outside = func(_ context.Context, _, address string) (net.Conn, error) {
		t.Errorf("%s was dialed", address)
		return nil, errors.New("no")
	}
	s := serve(t, newRegistry(true), opt)
	a := samplePack(t)
	push(t, s, a)
	attach(t, s, a.Descriptor(), "good", ProvenanceTag(a.Digest))
	if _, err := Pull(ctx, s, a.Digest); err != nil {
		t.Error(err)
	}
	if found, err := Bundles(ctx, s, a.Digest, ProvenanceTag(a.Digest)); err != nil || len(found.Bundles) != 1 {
		t.Errorf("%+v, %v", found, err)
	}
}
