package oras

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/google/go-containerregistry/pkg/authn"
)

// gate is a registry that lets in who bears what it asks for, and tells apart
// readers that have a manifest already.
type gate struct {
	*httptest.Server
	inner   http.Handler
	scheme  string       // "", "Basic" or "Bearer"
	secret  string       // password or token that is good now
	realm   string       // of tokens; "" for the gate's own
	etags   bool         // it answers "not modified"
	tags    canon.Digest // what it then says that every tag stands for
	status  int          // in place of an answer, unless 0
	asked   []string
	current string // password that buys a token
}

func newGate(t *testing.T) (*gate, *Artifact) {
	t.Helper()
	g := &gate{inner: newRegistry(false)}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	s, err := Open(context.Background(), g.ref(), testOptions)
	if err != nil {
		t.Fatal(err)
	}
	a := samplePack(t)
	push(t, s, a)
	g.tags, g.asked = a.Digest, nil
	return g, a
}

func (g *gate) ref() Ref {
	return Ref{Repository: strings.TrimPrefix(g.URL, "http://") + "/models/web"}
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	line := r.Method + " " + r.URL.Path[strings.LastIndexByte(strings.TrimSuffix(r.URL.Path, "/"), '/')+1:]
	if r.Header.Get("If-None-Match") != "" {
		line += " unless known"
	}
	g.asked = append(g.asked, line)
	_, password, basic := r.BasicAuth()
	switch bearer, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); {
	case g.status != 0:
		w.WriteHeader(g.status)
		return
	case r.URL.Path == "/token" && basic && password == g.current:
		fmt.Fprintf(w, `{"token":%q}`, g.secret)
		return
	case g.scheme == "Basic" && basic && password == g.secret, g.scheme == "Bearer" && isBearer && bearer == g.secret, g.scheme == "":
	default:
		realm := g.realm
		if realm == "" {
			realm = g.URL + "/token"
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`%s realm=%q,service="x"`, g.scheme, realm))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if g.etags && r.Header.Get("If-None-Match") == `"`+g.tags.String()+`"` {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	g.inner.ServeHTTP(w, r)
}

// forget returns what was asked since the last time.
func (g *gate) forget() []string {
	asked := g.asked
	g.asked = nil
	return asked
}

// keychain has the password of the moment.
type keychain struct{ password string }

func (k *keychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig{Username: "user", Password: k.password}), nil
}

// look opens the gate and asks what the tag stands for, when known is known.
func (g *gate) look(opt Options, known canon.Digest) (canon.Digest, error) {
	ctx := context.Background()
	s, err := Open(ctx, g.ref(), opt)
	if err != nil {
		return canon.Digest{}, err
	}
	return Lookup(ctx, s, ReleaseTag(7), known)
}

func reading(k *keychain) Options {
	opt := testOptions
	opt.Write, opt.Sessions = false, new(Sessions)
	if k != nil {
		opt.Anonymous, opt.keychain = false, k
	}
	return opt
}

func TestKeptRegistryIsAskedOnce(t *testing.T) {
	g, a := newGate(t)
	want := func(what string, known canon.Digest, opt Options, asked ...string) {
		t.Helper()
		if d, err := g.look(opt, known); err != nil || d != a.Digest {
			t.Errorf("%s: %s, %v", what, d, err)
		}
		if got := g.forget(); !slices.Equal(got, asked) {
			t.Errorf("%s: asked %q, want %q", what, got, asked)
		}
	}
	for _, etags := range []bool{true, false} {
		g.etags = etags
		opt := reading(nil)
		want("first", a.Digest, opt, "GET v2/", "GET release-7 unless known")
		for range 3 {
			want("kept", a.Digest, opt, "GET release-7 unless known")
		}
		want("nothing known", canon.Digest{}, opt, "GET release-7")
		want("another known", canon.Sum([]byte("x")), opt, "GET release-7 unless known")
		g.status = http.StatusNotFound
		if _, err := g.look(opt, a.Digest); !errors.Is(err, ErrNotFound) {
			t.Errorf("not found: %v", err)
		}
		g.status = 0
		g.forget()
		want("after it lacked something", a.Digest, opt, "GET release-7 unless known")
		// One that failed is a stranger again, and so is one that was resumed often.
		g.status = http.StatusServiceUnavailable
		if _, err := g.look(opt, a.Digest); !errors.Is(err, ErrUnreachable) {
			t.Errorf("an outage: %v", err)
		}
		g.status = 0
		g.forget()
		want("after an outage", a.Digest, opt, "GET v2/", "GET release-7 unless known")
		for range maxResumed {
			want("often", a.Digest, opt, "GET release-7 unless known")
		}
		want("too often", a.Digest, opt, "GET v2/", "GET release-7 unless known")
		opt.Sessions = nil
		want("not kept", a.Digest, opt, "GET v2/", "GET release-7 unless known")
		want("not kept", a.Digest, opt, "GET v2/", "GET release-7 unless known")
	}
}

// "Not modified" is an answer to nobody who did not ask, and a digest that is
// asked for is not another one that is known.
func TestNotModifiedIsBelievedOnlyOfWhatIsKnown(t *testing.T) {
	ctx := context.Background()
	g, a := newGate(t)
	s, err := Open(ctx, g.ref(), testOptions)
	if err != nil {
		t.Fatal(err)
	}
	g.status = http.StatusNotModified
	if d, err := s.Resolve(ctx, ReleaseTag(7)); err == nil {
		t.Errorf("not asked: %+v", d)
	}
	if b, err := s.Manifest(ctx, Descriptor{Digest: a.Digest}); err == nil {
		t.Errorf("not asked for a manifest: %q", b)
	}
	if d, err := Lookup(ctx, s, ReleaseTag(7), canon.Digest{}); err == nil {
		t.Errorf("nothing known: %s", d)
	}
	if d, err := Lookup(ctx, s, canon.Sum([]byte("x")).String(), a.Digest); err == nil {
		t.Errorf("another digest: %s", d)
	}
	if d, err := Lookup(ctx, s, a.Digest.String(), a.Digest); err != nil || d != a.Digest {
		t.Errorf("the digest that is known: %s, %v", d, err)
	}
}

func TestKeptTokenThatExpiresIsReplacedOnce(t *testing.T) {
	g, a := newGate(t)
	g.scheme, g.etags, g.current, g.secret = "Bearer", true, "one", "T1"
	keys := &keychain{"one"}
	opt := reading(keys)
	look := func(what string, asked ...string) {
		t.Helper()
		if d, err := g.look(opt, a.Digest); err != nil || d != a.Digest {
			t.Errorf("%s: %v", what, err)
		}
		if got := g.forget(); !slices.Equal(got, asked) {
			t.Errorf("%s: asked %q, want %q", what, got, asked)
		}
	}
	look("first", "GET v2/", "GET token", "GET release-7 unless known")
	look("kept", "GET release-7 unless known")
	g.secret = "T2"
	look("expired", "GET release-7 unless known", "GET token", "GET release-7 unless known")
	look("kept again", "GET release-7 unless known")
	// The password that bought it is another now, and so is ours.
	g.current, g.secret, keys.password = "two", "T3", "two"
	if d, err := g.look(opt, a.Digest); err != nil || d != a.Digest {
		t.Errorf("another password: %v", err)
	}
	g.forget()
	look("with it", "GET release-7 unless known")
	// Who is not let in any more is told so, after a bounded number of tries.
	g.current, g.secret = "three", "T4"
	if _, err := g.look(opt, a.Digest); !errors.Is(err, ErrRefused) {
		t.Errorf("no password: %v", err)
	}
	if got := g.forget(); len(got) > 6 {
		t.Errorf("no password: asked %q", got)
	}
	keys.password = "three"
	look("the right one", "GET v2/", "GET token", "GET release-7 unless known")
}

func TestKeptPasswordThatChangesIsReadAgain(t *testing.T) {
	g, a := newGate(t)
	g.scheme, g.etags, g.secret = "Basic", true, "one"
	keys := &keychain{"one"}
	opt := reading(keys)
	for range 2 {
		if _, err := g.look(opt, a.Digest); err != nil {
			t.Fatal(err)
		}
	}
	g.secret, keys.password = "two", "two"
	if _, err := g.look(opt, a.Digest); err != nil {
		t.Errorf("another password: %v", err)
	}
	// A registry that wants the password at another site gets it nowhere.
	stranger := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s reached another site", r.Method, r.URL)
	}))
	defer stranger.Close()
	g.scheme, g.realm, g.secret = "Bearer", stranger.URL+"/token", "three"
	if _, err := g.look(opt, a.Digest); !errors.Is(err, ErrRefused) && !errors.Is(err, ErrInvalid) {
		t.Errorf("a realm elsewhere: %v", err)
	}
}
