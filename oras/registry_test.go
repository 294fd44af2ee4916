package oras

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

func TestCancelledPullEndsWithTheCause(t *testing.T) {
	h, s, a := newHostile(t, testOptions)
	ctx, cancel := context.WithCancel(context.Background())
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		cancel()
		<-r.Context().Done()
		return true
	})
	if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestPassingFailureIsTriedAgain(t *testing.T) {
	ctx := context.Background()
	h, s, a := newHostile(t, testOptions)
	var n atomic.Int32
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		if n.Add(1)%3 == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	if _, err := Pull(ctx, s, a.Digest); err != nil {
		t.Errorf("one request in three fails: %v", err)
	}
	b := []byte("new blob")
	if err := putBytes(ctx, s, describe(typeModel, b, ""), b); err != nil {
		t.Errorf("upload with one request in three failing: %v", err)
	}
	n.Store(0)
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		n.Add(1)
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrRefused) || n.Load() != 1 {
		t.Errorf("a no that will not change: %v after %d requests", err, n.Load())
	}
}

func TestTokenServerOfTheSameSite(t *testing.T) {
	for _, c := range []struct {
		registry, realm string
		want            bool
	}{
		{"index.docker.io", "https://auth.docker.io/token", true},
		{"registry.gitlab.com", "https://gitlab.com/jwt/auth", true},
		{"ghcr.io", "https://ghcr.io/token", true},
		{"reg.example.org:5000", "https://reg.example.org:5000/t", true},
		{"reg.example.org:5000", "https://auth.example.org/t", true},
		{"reg.example.co.uk", "https://evil.co.uk/t", false},
		{"me.github.io", "https://you.github.io/t", false},
		{"reg.example.org", "https://reg.example.org.evil.test/t", false},
		{"10.0.0.5:5000", "https://10.0.0.6/t", false},
		{"localhost:5000", "https://evil.test/t", false},
	} {
		if got := samePlace(c.registry, c.realm); got != c.want {
			t.Errorf("%s with %s: %v, want %v", c.registry, c.realm, got, c.want)
		}
	}
}

func TestEncryptionIsNotGivenUp(t *testing.T) {
	ctx := context.Background()
	for host, want := range map[string]bool{
		"127.0.0.1:5000": true, "[::1]:5000": true, "localhost:5000": true, "x.localhost": true,
		"10.0.0.1:5000": false, "192.168.1.1": false, "localhost.example.org": false, "example.org": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("%s: loopback is %v, want %v", host, got, want)
		}
	}
	srv := httptest.NewTLSServer(newRegistry(false))
	defer srv.Close()
	ref := Ref{Repository: strings.TrimPrefix(srv.URL, "https://") + "/web"}
	if _, err := Open(ctx, ref, testOptions); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("certificate that nobody vouches for: %v", err)
	}
	// Plain HTTP, which such addresses are tried with next, is not what failed.
	g := &guard{host: "10.0.0.1:5000"}
	tls := &url.Error{Op: "Get", URL: "https://10.0.0.1:5000/v2/", Err: errors.New("connection refused")}
	if _, err := g.RoundTrip(httptest.NewRequest("GET", "http://10.0.0.1:5000/v2/", nil)); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("plain HTTP alone: %v", err)
	}
	r := &remote{}
	err := r.explain(ctx, "opening", &plainError{host: g.host, tls: tls})
	if text := fmt.Sprint(err); !errors.Is(err, ErrUnreachable) || !strings.Contains(text, "connection refused: check host, port and network, or allow plain HTTP (--plain-http)") || strings.Contains(text, "http://") {
		t.Errorf("HTTPS failed and plain HTTP is not allowed: %v", err)
	}
	if retryable(&plainError{tls: tls}) == nil || retryable(&plainError{}) != nil {
		t.Error("a failure of the network may pass, a refusal of our own does not")
	}
	opt := testOptions
	opt.RootCAs = srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	s, err := Open(ctx, ref, opt)
	if err != nil {
		t.Fatal(err)
	}
	push(t, s, samplePack(t))
}

func TestAddressesOfTheOwnNetwork(t *testing.T) {
	for ip, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.0.1": false, "169.254.169.254": false, "0.0.0.0": false,
		"100.64.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "::1": false, "fe80::1": false, "fd00:ec2::254": false,
		"::ffff:127.0.0.1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false,
	} {
		if got := isPublic(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: public is %v, want %v", ip, got, want)
		}
	}
}

func TestBrokenFallbackTagIsReplacedNotTrusted(t *testing.T) {
	ctx := context.Background()
	_, s, a := newHostile(t, testOptions)
	// Someone with write access puts a release where the list should be.
	if err := s.Tag(ctx, referrersTag(a.Digest), a.Descriptor()); err != nil {
		t.Fatal(err)
	}
	list, complete, err := s.Referrers(ctx, a.Digest)
	if err != nil || len(list) != 0 || complete {
		t.Errorf("got %v, complete %v, %v", list, complete, err)
	}
	attach(t, s, a.Descriptor(), "x", "")
	found, err := Bundles(ctx, s, a.Digest)
	if err != nil || len(found.Bundles) != 1 || !found.Complete {
		t.Errorf("after signing again: %+v, %v", found, err)
	}
}

func TestAttachNoticesThatItsEntryWasNotKept(t *testing.T) {
	h, s, a := newHostile(t, testOptions)
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/"+referrersTag(a.Digest)) {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusCreated)
			return true
		}
		return false
	})
	_, err := AttachBundle(context.Background(), s, a.Descriptor(), sampleBundle("x"), predicate, "", created)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "missing each time") {
		t.Errorf("got %v", err)
	}
}

func TestUserAgentIsOurs(t *testing.T) {
	h := &hostile{Handler: newRegistry(false)}
	h.twist(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.UserAgent(), "bhagent/1 ") {
			t.Errorf("%s %s with User-Agent %q", r.Method, r.URL, r.UserAgent())
		}
		return false
	})
	opt := testOptions
	opt.UserAgent = "bhagent/1"
	push(t, serve(t, h, opt), samplePack(t))
}

// Whatever a registry writes into headers that name places, it stays at its own.
func FuzzLedAway(f *testing.F) {
	f.Add(`<https://registry.example.org/v2/x?page=1>; rel="next"`, "https://auth.example.org/token")
	f.Add(`</v2/x?n=1&last=y>; rel="next"`, "https://registry.example.org/token")
	f.Add(`<//evil.example/x>; rel="next"`, "https://example.org.evil.example/")
	f.Add(`<https://registry.example.org@evil.example/>; rel="next"`, "https://auth.example.org@evil.example/")
	f.Add(`<\\evil.example\x>;rel = "next"`, "https://evil.example\\@auth.example.org/")
	f.Fuzz(func(t *testing.T, link, realm string) {
		at := &url.URL{Scheme: "https", Host: "registry.example.org", Path: "/v2/x"}
		next := nextPage(&http.Response{Header: http.Header{"Link": {link}}, Request: &http.Request{URL: at}})
		if u, err := url.Parse(next); next != "" && (err != nil || u.Host != at.Host) {
			t.Errorf("%q leads to %q", link, next)
		}
		if samePlace(at.Host, realm) {
			u, err := url.Parse(realm)
			if h := strings.ToLower(u.Hostname()); err != nil || h != "example.org" && !strings.HasSuffix(h, ".example.org") {
				t.Errorf("%q gets the password", realm)
			}
		}
	})
}

// Of a registry on the loopback interface the first thing asked for is what is
// wanted, and a manifest that was read to learn its digest is not read again.
func TestLoopbackRegistryIsAskedForNothingTwice(t *testing.T) {
	ctx := context.Background()
	h := newRegistry(true)
	var asked []string
	var mu sync.Mutex
	var first http.HandlerFunc // answers the first request, if set
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, strings.TrimPrefix(r.URL.Path, "/v2/"))
		answer := first
		first = nil
		mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	ref := Ref{Repository: strings.TrimPrefix(srv.URL, "http://") + "/models/web"}
	s, err := Open(ctx, ref, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	a := samplePack(t)
	push(t, s, a)
	ref.Digest = a.Digest
	read := func(opt Options) []string {
		t.Helper()
		asked = nil
		s, err := Open(ctx, ref, opt)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // given away once, then asked for
			if b, err := s.Manifest(ctx, Descriptor{Digest: a.Digest}); err != nil || !bytes.Equal(b, a.Manifest) {
				t.Fatal(err)
			}
		}
		d, err := s.Resolve(ctx, ReleaseTag(a.Release.Number))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := s.Manifest(ctx, d); err != nil || !bytes.Equal(b, a.Manifest) {
			t.Fatal(err)
		}
		return asked
	}
	reading := testOptions
	reading.Write = false
	byDigest, byTag := "models/web/manifests/"+a.Digest.String(), "models/web/manifests/"+ReleaseTag(a.Release.Number)
	short, long := []string{byDigest, byDigest, byTag}, []string{"", byDigest, byDigest, byTag}
	if got := read(reading); !slices.Equal(got, short) {
		t.Errorf("asked for %q", got)
	}
	// Who knows credentials or will write asks the long way.
	known := reading
	known.Anonymous, known.keychain = false, authn.NewMultiKeychain(fixed{})
	for _, opt := range []Options{testOptions, known} {
		if got := read(opt); !slices.Equal(got, long) {
			t.Errorf("asked for %q", got)
		}
	}
	// What is not the manifest asked for leads there too, and counts for nothing.
	for name, answer := range map[string]http.HandlerFunc{
		"not found": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"a login":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
		},
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
	} {
		first = answer
		if got := read(reading); !slices.Equal(got, append([]string{byDigest}, long...)) {
			t.Errorf("%s: asked for %q", name, got)
		}
	}
	first = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", TypeManifest)
		w.Write(bytes.Replace(a.Manifest, []byte(`"schemaVersion":2`), []byte(`"schemaVersion":2 `), 1))
	}
	if got := read(reading); !slices.Equal(got, []string{byDigest, byDigest, byDigest, byTag}) {
		t.Errorf("another manifest: asked for %q", got)
	}
}

// fixed knows the same credentials for all.
type fixed struct{}

func (fixed) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig{Username: "u", Password: "p"}), nil
}

// A query of a URL that a registry leads to may be the right to fetch.
func TestErrorsTellNoQueries(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			http.Redirect(w, r, "https://bucket.invalid/blob?X-Amz-Signature=TOPSECRET&b=c", http.StatusTemporaryRedirect)
		}
	}))
	defer srv.Close()
	s, err := Open(t.Context(), Ref{Repository: strings.TrimPrefix(srv.URL, "http://") + "/models/web"}, Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Resolve(t.Context(), "latest")
	if err == nil || strings.Contains(err.Error(), "TOPSECRET") || !strings.Contains(err.Error(), "bucket.invalid") {
		t.Errorf("%v", err)
	}
	if got := withoutQueries(`Get "https://a.example/b?c=d": x; http://e/f?g h?i`); got != `Get "https://a.example/b": x; http://e/f h?i` {
		t.Error(got)
	}
}
