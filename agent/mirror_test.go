package agent

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// mirror is a registry on loopback.
type mirror struct {
	oras.Ref
	mu       sync.Mutex
	status   int      // in place of an answer, unless 0
	password string   // that it wants, unless ""
	asked    []string // requests
	secrets  int      // of which so many bore credentials
}

func (o *operator) newMirror() *mirror {
	o.t.Helper()
	m := &mirror{}
	h := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		m.asked = append(m.asked, r.Method+" "+r.URL.Path)
		if r.Header.Get("Authorization") != "" {
			m.secrets++
		}
		status, password := m.status, m.password
		m.mu.Unlock()
		_, given, _ := r.BasicAuth()
		switch {
		case status != 0:
			w.WriteHeader(status)
		case given != password:
			w.Header().Set("WWW-Authenticate", `Basic realm="mirror"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			h.ServeHTTP(w, r)
		}
	}))
	o.t.Cleanup(srv.Close)
	m.Ref = oras.Ref{Repository: strings.TrimPrefix(srv.URL, "http://") + "/models/web"}
	return m
}

// hold puts the release in a layout into the mirror, as the current one.
func (o *operator) hold(m *mirror, from oras.Ref, sequence, number int64) {
	o.t.Helper()
	ctx := context.Background()
	now := time.Now()
	o.announce(from, sequence, number, now, time.Hour)
	src, err := oras.Open(ctx, from, oras.Options{})
	if err != nil {
		o.t.Fatal(err)
	}
	dst, err := oras.Open(ctx, m.Ref, oras.Options{Write: true})
	if err != nil {
		o.t.Fatal(err)
	}
	d, err := src.Resolve(ctx, oras.TagLatest)
	if err != nil {
		o.t.Fatal(err)
	}
	if _, err := oras.Copy(ctx, dst, src, d.Digest, oras.CopyOptions{WithoutDataset: true}); err != nil {
		o.t.Fatal(err)
	}
	bundle, _, err := oras.GetChannel(ctx, src, "stable")
	if err != nil {
		o.t.Fatal(err)
	}
	if _, err := oras.PutChannel(ctx, dst, "stable", bundle); err != nil {
		o.t.Fatal(err)
	}
	m.forget()
}

func (m *mirror) set(status int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status = status
}

// forget returns what was asked since the last time.
func (m *mirror) forget() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	asked := m.asked
	m.asked = nil
	return asked
}

func TestMirrors(t *testing.T) {
	o := newOperator(t)
	o.withChannel()
	a, b := o.newMirror(), o.newMirror()
	o.hold(a, o.publish(1), 1, 1)
	o.hold(b, o.publish(2), 2, 2)
	from := func(mirrors ...*mirror) (refs []oras.Ref) {
		for _, m := range mirrors {
			refs = append(refs, m.Ref)
		}
		return refs
	}
	sync := func(mirrors ...*mirror) ([]Attempt, *Attempt) {
		return o.SyncMirrors(context.Background(), from(mirrors...), oras.Options{Timeout: time.Second}, o.Verifier, "policy.yaml", time.Now())
	}
	want := func(what string, number int64, best *Attempt, m *mirror, class error) {
		t.Helper()
		if best.From != m.Ref || !errors.Is(best.Err, class) || o.live() != number {
			t.Errorf("%s: %s: %v, release %d is live", what, best.From, best.Err, o.live())
		}
	}

	// The first that has something wins, and the next is not asked.
	_, best := sync(a, b)
	want("the first", 1, best, a, nil)
	if asked := b.forget(); len(asked) != 0 {
		t.Errorf("the second was asked %q", asked)
	}
	_, best = sync(b)
	want("a newer one", 2, best, b, nil)
	known, err := o.readState()
	if err != nil {
		t.Fatal(err)
	}

	// A mirror that keeps giving what is known holds back nothing, wherever it stands.
	c := o.newMirror()
	o.hold(c, o.publish(3), 3, 3)
	asked, best := sync(b, c, a)
	want("one that is frozen before a newer one", 3, best, c, nil)
	if len(asked) != 2 {
		t.Errorf("after an installation another is asked: %+v", asked)
	}
	asked, best = sync(c, b)
	want("one that is current before one that is behind", 3, best, c, nil)
	if len(asked) != 2 || !errors.Is(asked[1].Err, ErrRefused) {
		t.Errorf("%+v", asked)
	}
	if known, err = o.readState(); err != nil {
		t.Fatal(err)
	}
	b = c

	// A mirror that is behind lowers nothing, and is passed over.
	asked, best = sync(a, b)
	want("behind", 3, best, b, nil)
	if len(asked) != 2 || !errors.Is(asked[0].Err, ErrRefused) || !strings.Contains(asked[0].Err.Error(), verify.ChannelSequence) {
		t.Errorf("behind: %+v", asked)
	}
	for _, status := range []int{http.StatusForbidden, http.StatusNotFound, http.StatusTeapot} {
		a.set(status)
		_, best = sync(a, b)
		want(fmt.Sprint(status), 3, best, b, nil)
	}
	a.set(0)
	if after, err := o.readState(); err != nil || after.Channels["stable"].Sequence != 3 || after.Channels["stable"].Manifest != known.Channels["stable"].Manifest {
		t.Errorf("what is known changed: %+v, %v", after, err)
	}

	// When nobody has anything the refusal is told before the silence, in any order.
	b.set(http.StatusForbidden)
	_, best = sync(b, a)
	want("silence before a refusal", 3, best, a, ErrRefused)
	_, best = sync(a, b)
	want("silence after a refusal", 3, best, a, ErrRefused)
	a.set(http.StatusForbidden)
	_, best = sync(a, b)
	want("silence", 3, best, a, oras.ErrRefused)
}

// What has not changed costs a registry the question whether it is one and the
// small manifest that the channel's tag stands for, and no more.
func TestUnchangedSyncAsksForTheTagOnly(t *testing.T) {
	o := newOperator(t)
	o.withChannel()
	m := o.newMirror()
	o.hold(m, o.publish(1), 1, 1)
	o.mustSync(m.Ref)
	if asked := m.forget(); len(asked) < 8 {
		t.Errorf("a first sync asks %q", asked)
	}
	if s := o.mustSync(m.Ref); s.Installed || s.Channel.Sequence != 1 {
		t.Errorf("%+v", s)
	}
	want := []string{"GET /v2/", "GET /v2/models/web/manifests/channel-stable"}
	if asked := m.forget(); !slices.Equal(asked, want) {
		t.Errorf("an unchanged sync asks %q", asked)
	}
	// The negative twin: what changed is fetched, and damage is mended.
	o.hold(m, o.publish(2), 2, 2)
	if s := o.mustSync(m.Ref); !s.Installed || s.Channel.Sequence != 2 {
		t.Errorf("%+v", s)
	}
	if err := os.WriteFile(o.channelPath("stable"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.forget()
	o.mustSync(m.Ref)
	if asked := m.forget(); len(asked) < 3 {
		t.Errorf("a damaged channel: asks %q", asked)
	}
	o.mustSync(m.Ref)
	if asked := m.forget(); !slices.Equal(asked, want) {
		t.Errorf("afterwards: asks %q", asked)
	}
}

func TestCredentialsGoToTheirHostOnly(t *testing.T) {
	o := newOperator(t)
	o.withChannel()
	open, closed := o.newMirror(), o.newMirror()
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	host, _, _ := strings.Cut(closed.Repository, "/")
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("agent:secret")))
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	o.hold(open, o.publish(1), 1, 1)
	closed.password = "secret"
	o.hold(closed, o.publish(2), 2, 2)
	refs := []oras.Ref{closed.Ref, open.Ref}
	if _, best := o.SyncMirrors(context.Background(), refs, oras.Options{}, o.Verifier, "policy.yaml", time.Now()); best.Err != nil || best.From != closed.Ref {
		t.Fatal(best)
	}
	closed.set(http.StatusForbidden)
	if asked, _ := o.SyncMirrors(context.Background(), refs, oras.Options{}, o.Verifier, "policy.yaml", time.Now()); len(asked) != 2 {
		t.Errorf("%+v", asked)
	}
	if closed.secrets == 0 || open.secrets != 0 || len(open.forget()) == 0 {
		t.Errorf("credentials: %d to their host, %d to another", closed.secrets, open.secrets)
	}
	closed.set(0)
	if _, best := o.SyncMirrors(context.Background(), refs[:1], oras.Options{Anonymous: true}, o.Verifier, "policy.yaml", time.Now()); !errors.Is(best.Err, oras.ErrRefused) {
		t.Errorf("without credentials: %v", best.Err)
	}
}
