package oras

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/google/go-containerregistry/pkg/authn"
)

// hostile is a registry that behaves, but for the requests that twist answers
// (it returns false for the others).
type hostile struct {
	http.Handler
	twist func(w http.ResponseWriter, r *http.Request) bool
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.twist == nil || !h.twist(w, r) {
		h.Handler.ServeHTTP(w, r)
	}
}

// newHostile opens a registry that holds the sample release; set twist afterwards.
func newHostile(t *testing.T, opt Options) (*hostile, Store, *Artifact) {
	t.Helper()
	h := &hostile{Handler: newRegistry(false)}
	s := serve(t, h, opt)
	a := samplePack(t)
	push(t, s, a)
	return h, s, a
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

func TestRegistryThatLiesAboutManifestsIsCaught(t *testing.T) {
	ctx := context.Background()
	h, s, a := newHostile(t, testOptions)
	changed := bytes.Replace(a.Manifest, []byte(`"size":`), []byte(`"size":1`), 1)
	for name, twist := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"another manifest, with the asked digest in the header": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Docker-Content-Digest", a.Digest.String())
			return sendManifest(w, TypeManifest, changed)
		},
		"media type of the header is not that of the body": func(w http.ResponseWriter, r *http.Request) bool {
			return sendManifest(w, TypeIndex, a.Manifest)
		},
		"no media type": func(w http.ResponseWriter, r *http.Request) bool {
			return sendManifest(w, "", a.Manifest)
		},
		"index in place of the manifest": func(w http.ResponseWriter, r *http.Request) bool {
			return sendManifest(w, TypeIndex, []byte(`{"schemaVersion":2,"mediaType":"`+TypeIndex+`","manifests":[]}`))
		},
		"not JSON": func(w http.ResponseWriter, r *http.Request) bool {
			return sendManifest(w, TypeManifest, []byte("<html>"))
		},
		"longer than it says": func(w http.ResponseWriter, r *http.Request) bool {
			return sendManifest(w, TypeManifest, append(a.Manifest[:len(a.Manifest):len(a.Manifest)], ' '))
		},
		"endless": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Type", TypeManifest)
			for {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
					return true
				}
			}
		},
		"over the size, as the header says": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Length", strconv.Itoa(MaxManifest+1))
			return sendManifest(w, TypeManifest, a.Manifest)
		},
	} {
		h.twist = func(w http.ResponseWriter, r *http.Request) bool { return isManifest(r) && twist(w, r) }
		if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: pull gives %v, want ErrInvalid", name, err)
		}
		if _, err := s.Resolve(ctx, a.Digest.String()); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: resolve gives %v, want ErrInvalid", name, err)
		}
	}
	h.twist = nil
	if _, err := Pull(ctx, s, a.Digest); err != nil {
		t.Errorf("honest again: %v", err)
	}
}

func TestRegistryThatLiesAboutBlobsIsCaught(t *testing.T) {
	ctx := context.Background()
	h, s, a := newHostile(t, testOptions)
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
			"endless": func(w http.ResponseWriter) {
				for {
					if _, err := w.Write(bytes.Repeat([]byte("x"), 64<<10)); err != nil {
						return
					}
				}
			},
		} {
			h.twist = func(w http.ResponseWriter, r *http.Request) bool {
				if !isBlob(r, canon.Sum(b)) {
					return false
				}
				twist(w)
				return true
			}
			if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v, want ErrInvalid", name, err)
			}
		}
	}
}

func TestSlowRegistryIsGivenUp(t *testing.T) {
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
		h.twist = twist
		start := time.Now()
		_, err := Pull(ctx, s, a.Digest)
		if !errors.Is(err, ErrUnreachable) && !(name == "blob drips" && errors.Is(err, ErrInvalid)) {
			t.Errorf("%s: %v, want ErrUnreachable", name, err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: took %v", name, d)
		}
	}
}

func TestCancelledPullEndsWithTheCause(t *testing.T) {
	h, s, a := newHostile(t, testOptions)
	ctx, cancel := context.WithCancel(context.Background())
	h.twist = func(w http.ResponseWriter, r *http.Request) bool {
		cancel()
		<-r.Context().Done()
		return true
	}
	if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestPassingFailureIsTriedAgain(t *testing.T) {
	ctx := context.Background()
	h, s, a := newHostile(t, testOptions)
	var n atomic.Int32
	h.twist = func(w http.ResponseWriter, r *http.Request) bool {
		if n.Add(1)%3 == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	}
	if _, err := Pull(ctx, s, a.Digest); err != nil {
		t.Errorf("one request in three fails: %v", err)
	}
	b := []byte("new blob")
	if err := putBytes(ctx, s, describe(typeModel, b, ""), b); err != nil {
		t.Errorf("upload with one request in three failing: %v", err)
	}
	n.Store(0)
	h.twist = func(w http.ResponseWriter, r *http.Request) bool {
		n.Add(1)
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrRefused) || n.Load() != 1 {
		t.Errorf("a no that will not change: %v after %d requests", err, n.Load())
	}
}

func TestRedirectsAreFollowedOutwardsOnly(t *testing.T) {
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
		h.twist = func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, target, http.StatusTemporaryRedirect)
			return true
		}
		start := time.Now()
		if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrInvalid) && name != "another scheme" || err == nil {
			t.Errorf("redirect to %s: %v, want ErrInvalid", name, err)
		}
		if time.Since(start) > 2*time.Second {
			t.Errorf("redirect to %s was tried", name)
		}
		b := []byte(name)
		h.twist = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				w.Header().Set("Location", target+"/upload")
				w.WriteHeader(http.StatusAccepted)
				return true
			}
			return false
		}
		if err := putBytes(ctx, s, describe(typeModel, b, ""), b); err == nil {
			t.Errorf("upload to %s was accepted", name)
		}
	}
	// Within the registry, as many do for blobs.
	h.twist = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") && r.URL.RawQuery == "" {
			http.Redirect(w, r, r.URL.Path+"?elsewhere", http.StatusTemporaryRedirect)
			return true
		}
		return false
	}
	if _, err := Pull(ctx, s, a.Digest); err != nil {
		t.Errorf("redirect within the registry: %v", err)
	}
	h.twist = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		return true
	}
	if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrInvalid) {
		t.Errorf("redirect in a circle: %v, want ErrInvalid", err)
	}
}

// keys is a keychain that has one password for everyone who asks.
type keys struct{}

func (keys) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig{Username: "user", Password: "secret"}), nil
}

func TestPasswordGoesToTheNamedHostOnly(t *testing.T) {
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
	h.twist = func(w http.ResponseWriter, r *http.Request) bool {
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
	}
	s := serve(t, h, opt)
	push(t, s, samplePack(t))
	h.twist = func(w http.ResponseWriter, r *http.Request) bool {
		if _, password, _ := r.BasicAuth(); password == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	s = serve(t, h, opt)
	if _, err := s.Resolve(ctx, ReleaseTag(7)); err != nil {
		t.Errorf("basic authentication: %v", err)
	}
	opt.Anonymous = true
	s = serve(t, h, opt)
	if _, err := s.Resolve(ctx, ReleaseTag(7)); !errors.Is(err, ErrRefused) {
		t.Errorf("without a password: %v, want ErrRefused", err)
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

func TestReferrersListingIsBounded(t *testing.T) {
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
		h.twist = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/referrers/") {
				return false
			}
			if requests.Add(1); r.URL.RawQuery != "" && strings.Contains(r.URL.RawQuery, "artifactType") {
				t.Error("the listing was asked to be filtered")
			}
			c.serve(w, r)
			return true
		}
		s := serve(t, h, testOptions)
		requests.Store(0)
		list, complete, err := s.Referrers(ctx, subject)
		if err != nil || len(list) != c.listed || complete != c.complete || requests.Load() > MaxReferrerPages {
			t.Errorf("%s: %d listed, complete %v, %v, %d requests; want %d, %v", name, len(list), complete, err, requests.Load(), c.listed, c.complete)
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
	h.twist = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/"+referrersTag(a.Digest)) {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusCreated)
			return true
		}
		return false
	}
	_, err := AttachBundle(context.Background(), s, a.Descriptor(), sampleBundle("x"), predicate, "", created)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "missing each time") {
		t.Errorf("got %v", err)
	}
}

func TestUserAgentIsOurs(t *testing.T) {
	h := &hostile{Handler: newRegistry(false)}
	h.twist = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.UserAgent(), "bhagent/1 ") {
			t.Errorf("%s %s with User-Agent %q", r.Method, r.URL, r.UserAgent())
		}
		return false
	}
	opt := testOptions
	opt.UserAgent = "bhagent/1"
	push(t, serve(t, h, opt), samplePack(t))
}
