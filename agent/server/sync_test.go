package server

import (
	"context"
	"encoding/json"
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

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// depot is a registry that answers "not modified" to who knows a manifest.
type depot struct {
	*site
	store  oras.Store
	ref    oras.Ref
	frozen bool // it says so whatever is asked
	down   bool
	now    time.Time
	asked  []string // with the status of the answer
}

func newDepot(t *testing.T, channel bool) *depot {
	t.Helper()
	d := &depot{now: time.Now()}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))
	var one sync.Mutex
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one.Lock()
		defer one.Unlock()
		known := r.Header.Get("If-None-Match")
		if d.down {
			d.asked = append(d.asked, r.Method+" "+r.URL.Path+" 503")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		answer := httptest.NewRecorder()
		inner.ServeHTTP(answer, r)
		if known != "" && (d.frozen || known == `"`+answer.Header().Get("Docker-Content-Digest")+`"`) {
			d.asked = append(d.asked, r.Method+" "+r.URL.Path+" 304")
			w.WriteHeader(http.StatusNotModified)
			return
		}
		d.asked = append(d.asked, r.Method+" "+r.URL.Path)
		for k, v := range answer.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes())
	}))
	t.Cleanup(srv.Close)
	d.ref = oras.Ref{Repository: strings.TrimPrefix(srv.URL, "http://") + "/models/web"}
	d.site = newSite(t, func(o *Options) {
		o.From = []oras.Ref{d.ref}
		o.Now = func() time.Time { return d.now }
	})
	if channel {
		d.write(d.policy, d.withChannel())
	}
	var err error
	if d.store, err = oras.Open(context.Background(), d.ref, oras.Options{Write: true}); err != nil {
		t.Fatal(err)
	}
	return d
}

// publish makes release n the latest, and the one that the channel names for an hour.
func (d *depot) publish(n int) {
	d.t.Helper()
	ctx := context.Background()
	must := func(err error) {
		d.t.Helper()
		if err != nil {
			d.t.Fatal(err)
		}
	}
	from, err := oras.Open(ctx, d.refs[n-1], oras.Options{})
	must(err)
	release, err := from.Resolve(ctx, oras.TagLatest)
	must(err)
	_, err = oras.Copy(ctx, d.store, from, release.Digest, oras.CopyOptions{WithoutDataset: true})
	must(err)
	must(d.store.Tag(ctx, oras.TagLatest, release))
	statement, err := verify.NewChannel(verify.Channel{
		Product: verify.DefaultProduct, Channel: "stable", Epoch: 1, Sequence: int64(n), Release: int64(n), Manifest: release.Digest, Lowest: 1,
		Issued: verify.FormatTime(d.now), Expires: verify.FormatTime(d.now.Add(time.Hour)),
	})
	must(err)
	bundle, err := d.signer.Sign(ctx, statement)
	must(err)
	_, err = oras.PutChannel(ctx, d.store, "stable", bundle)
	must(err)
	d.asked = nil
}

func TestUnchangedSyncIsOneConditionalRequest(t *testing.T) {
	for _, channel := range []bool{false, true} {
		d := newDepot(t, channel)
		tag := "latest"
		if channel {
			tag = "channel-stable"
		}
		want := []string{"GET /v2/models/web/manifests/" + tag + " 304"}
		unchanged := func(result string) {
			t.Helper()
			d.asked = nil
			d.must(result)
			if !slices.Equal(d.asked, want) {
				t.Errorf("channel %v: an unchanged sync asks %q", channel, d.asked)
			}
		}
		d.publish(1)
		d.must(ResultInstalled)
		for range 3 {
			unchanged(ResultCurrent)
		}
		// The negative twin: what changed is seen at once.
		d.publish(2)
		if r := d.must(ResultInstalled); r.Number != 2 {
			t.Errorf("channel %v: %+v", channel, r)
		}
		for range 3 {
			unchanged(ResultCurrent)
		}
		if !channel {
			continue
		}
		// A registry that says for ever that nothing has changed hides no expiry.
		d.frozen, d.now = true, d.now.Add(50*time.Minute)
		unchanged(ResultCurrent)
		d.now = d.now.Add(20 * time.Minute)
		for range 2 {
			unchanged(ResultStale)
		}
		if st := d.status.Load(); st.State != agent.StateStale || !st.Loaded {
			t.Errorf("after the expiry: %+v", st)
		}
		if w := d.do("POST", "/api/models/sync", "", ""); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), `"result":"stale"`) {
			t.Errorf("a sync after the expiry: %d %s", w.Code, w.Body)
		}
		// Nor does it bring a release back that is not what it was.
		d.frozen = false
		d.publish(1)
		d.must(ResultRefused)
	}
}

// withChannel is the policy with the channel "stable", which its publisher signs
// and in which it may revoke.
func (p *published) withChannel() string {
	key := "  - name: me\n" + p.policy[strings.Index(p.policy, "    key: |"):]
	return p.policy + "channel:\n  name: stable\n  epoch: 1\n  signers:\n" + key + "revokers:\n" + key
}

// announce has the channel of what is synced from name the release that is
// offered, number n, for a while, and revoke others.
func (s *site) announce(sequence int64, n int, valid time.Duration, revoked ...int) {
	s.t.Helper()
	ctx, now := context.Background(), time.Now()
	must := func(err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	manifest := func(ref oras.Ref) canon.Digest {
		s.t.Helper()
		store, err := oras.Open(ctx, ref, oras.Options{})
		must(err)
		d, err := store.Resolve(ctx, oras.TagLatest)
		must(err)
		return d.Digest
	}
	c := verify.Channel{
		Product: verify.DefaultProduct, Channel: "stable", Epoch: 1, Sequence: sequence, Release: int64(n), Manifest: manifest(s.refs[n-1]), Lowest: 1,
		Issued: verify.FormatTime(now.Add(-time.Hour)), Expires: verify.FormatTime(now.Add(valid)),
	}
	for _, r := range revoked {
		statement, err := verify.NewRevocation(verify.Revocation{
			Product: verify.DefaultProduct, Release: int64(r), Manifest: manifest(s.refs[r-1]), Reason: "it flags every health check", Issued: c.Issued,
		})
		must(err)
		b, err := s.signer.Sign(ctx, statement)
		must(err)
		c.Revocations = append(c.Revocations, b)
	}
	statement, err := verify.NewChannel(c)
	must(err)
	bundle, err := s.signer.Sign(ctx, statement)
	must(err)
	store, err := oras.Open(ctx, oras.Ref{Layout: s.from}, oras.Options{Write: true})
	must(err)
	_, err = oras.PutChannel(ctx, store, "stable", bundle)
	must(err)
}

// TestSyncSaysThatAReleaseIsPinned: another release was found, and "current"
// would be a lie.
func TestSyncSaysThatAReleaseIsPinned(t *testing.T) {
	for _, channel := range []bool{false, true} {
		s := newSite(t)
		if channel {
			s.write(s.policy, s.withChannel())
		}
		offer := func(n int) {
			s.offer(n)
			s.announce(int64(n), n, time.Hour)
		}
		offer(1)
		s.must(ResultInstalled)
		one := s.live.Load().Release().Digest
		v, err := s.opt.Agent.Verifier(t.Context(), s.policy, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.opt.Agent.Pin(t.Context(), v, false, "until Monday", time.Now()); err != nil {
			t.Fatal(err)
		}
		if r := s.must(ResultCurrent); r.Detail != "" {
			t.Errorf("pinned to what there is: %+v", r)
		}
		offer(2)
		w := s.do("POST", "/api/models/sync", "", "")
		var r Report
		if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		if w.Code != 200 || r.Result != ResultPinned || !r.Success || r.Live != (Live{one, 1}) || r.Release == one || !strings.Contains(r.Detail, "pinned release "+one.String()) || r.Fallback {
			t.Errorf("channel %v: %d %s", channel, w.Code, w.Body)
		}
		if channel && r.Number != 2 {
			t.Errorf("the channel calls it %d", r.Number)
		}
		if got := s.do("GET", "/", "", "").Body.String(); !strings.Contains(got, "<b>pinned</b>") || !strings.Contains(got, "an operator pinned release") {
			t.Error("the page does not say it")
		}
		if _, err := s.opt.Agent.Pin(t.Context(), v, true, "", time.Now()); err != nil {
			t.Fatal(err)
		}
		if r := s.must(ResultInstalled); r.Live.Number != 2 {
			t.Errorf("afterwards: %+v", r)
		}
	}
}

// TestSyncSaysWhatIsLiveAfterARevocation: the release before is in use again,
// or nothing is, and whoever asks is told which.
func TestSyncSaysWhatIsLiveAfterARevocation(t *testing.T) {
	s := newSite(t)
	s.write(s.policy, s.withChannel())
	for n := 1; n <= 2; n++ {
		s.offer(n)
		s.announce(int64(n), n, time.Hour)
		if r := s.must(ResultInstalled); r.Live.Number != int64(n) || r.Fallback {
			t.Errorf("installed: %+v", r)
		}
	}
	one, two := s.status.Load().Previous, s.live.Load().Release().Digest
	events := s.events.listen()
	s.announce(3, 2, time.Hour, 2)
	w := s.do("POST", "/api/models/sync", "", "")
	var r Report
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusConflict || r.Result != ResultRefused || r.Release != two || r.Live != (Live{one, 1}) || !r.Fallback || !strings.Contains(r.Detail, one.String()+", is in use again") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if last := *s.status.Load().LastSync; last.Live != r.Live || !last.Fallback {
		t.Errorf("GET /api/models: %+v", last)
	}
	told := false
	for len(events) > 0 {
		e := <-events
		told = told || e.name == "sync" && strings.Contains(string(e.data), `"fallback":true`) && strings.Contains(string(e.data), `"live":{"release":"`+one.String()+`","number":1}`)
	}
	if !told {
		t.Error("the events do not tell it")
	}
	if got := s.do("GET", "/", "", "").Body.String(); !strings.Contains(got, "is in use again") {
		t.Error("the page does not tell it")
	}

	// Once more: nothing is left, and nothing is called live.
	s.announce(4, 2, time.Hour, 1, 2)
	if r := s.must(ResultRefused); r.Live != (Live{}) || r.Fallback {
		t.Errorf("nothing left: %+v", r)
	}
	if st := s.status.Load(); st.State != agent.StateRevoked || st.Loaded {
		t.Errorf("nothing left: %+v", st)
	}

	// What was revoked is still shown, and not as if it were in use.
	shown := s.status.Load().Release
	if shown == nil || shown.InUse || shown.Digest != one || shown.Number != 1 || len(shown.Models) != 4 || shown.Dataset.Exploits == 0 || len(shown.Classes) != 11 {
		t.Errorf("the revoked release: %+v", shown)
	}
	got := s.do("GET", "/", "", "").Body.String()
	for _, want := range []string{"No release <span>in use", "Installed, and not in use: " + verify.DefaultProduct + " release 1", one.String(), "threat_classifier", "exploits<br>", "Models, not in use"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	for _, bad := range []string{"In use since", `href="/models/`} {
		if strings.Contains(got, bad) {
			t.Errorf("%q in the page", bad)
		}
	}
	// Of damaged bytes nothing is shown.
	file := filepath.Join(filepath.Dir(s.policy), "state", "releases", one.Hex(), "blobs", "sha256", strings.TrimPrefix(shown.Models[0].SHA256.String(), "sha256:"))
	if err := os.WriteFile(file, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reload(t.Context(), nil)
	if st := s.status.Load(); st.Release != nil || st.Loaded {
		t.Errorf("damaged: %+v", st)
	}
}

// TestSyncTellsHowFarItIs listens while a release is fetched, while nothing is
// new, and while a mirror does not answer.
func TestSyncTellsHowFarItIs(t *testing.T) {
	s := newSite(t, func(o *Options) {
		o.From = append([]oras.Ref{{Layout: filepath.Join(t.TempDir(), "none")}}, o.From...)
	})
	s.write(s.policy, s.withChannel())
	s.offer(1)
	s.announce(1, 1, time.Hour)
	events := s.events.listen()
	phases := func() (all []string) {
		var done, total int64
		for len(events) > 0 {
			e := <-events
			var p struct {
				agent.Progress
				Result string `json:"result"`
			}
			if e.name != "sync" {
				continue
			}
			if err := json.Unmarshal(e.data, &p); err != nil {
				t.Fatal(err)
			}
			if p.Phase == agent.PhaseFetch {
				if p.Done < done || p.Done > p.Total || p.Digest != s.live.Load().Release().Digest {
					t.Errorf("%s", e.data)
				}
				done, total = p.Done, p.Total
			}
			if p.Phase == agent.PhaseMirror && (len(all) == 1) == strings.Contains(p.Source, s.from) {
				t.Errorf("asked %s after %q", p.Source, all)
			}
			if len(all) == 0 || all[len(all)-1] != string(p.Phase) || p.Phase == agent.PhaseMirror {
				all = append(all, string(p.Phase))
			}
		}
		if done != total {
			t.Errorf("%d of %d bytes at the end", done, total)
		}
		if a := s.live.Load().Release(); total != 0 {
			want := int64(len(a.Config) + len(a.ReleaseJSON))
			for _, m := range a.Models {
				want += int64(len(m.Data))
			}
			if total != want {
				t.Errorf("%d bytes in all, want %d", total, want)
			}
		}
		return all
	}
	s.must(ResultInstalled)
	if got, want := phases(), []string{"started", "mirror", "mirror", "channel", "fetch", "verify", "install", "finished"}; !slices.Equal(got, want) {
		t.Errorf("something new: %q, want %q", got, want)
	}
	s.must(ResultCurrent)
	if got, want := phases(), []string{"started", "mirror", "mirror", "channel", "finished"}; !slices.Equal(got, want) {
		t.Errorf("nothing new: %q, want %q", got, want)
	}
	// One that comes later is told where the sync is.
	if _, under := s.underWay(); under {
		t.Error("told of a sync that has ended")
	}
	g := newGate(t)
	s.opt.From = []oras.Ref{g.ref}
	ended := make(chan *Report)
	go func() { ended <- s.Sync(context.Background()) }()
	<-g.came
	if e, under := s.underWay(); !under || !strings.Contains(string(e.data), `"phase":"mirror"`) {
		t.Errorf("a sync under way: %s", e.data)
	}
	close(g.open)
	<-ended
}

// gate is a registry that holds its answers back until it is opened, and then
// has nothing. Each request that came is told.
type gate struct {
	came chan string
	open chan struct{}
	ref  oras.Ref
}

func newGate(t *testing.T) *gate {
	g := &gate{came: make(chan string, 100), open: make(chan struct{})}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.came <- r.Method + " " + r.URL.Path
		select {
		case <-g.open:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(srv.Close)
	g.ref = oras.Ref{Repository: strings.TrimPrefix(srv.URL, "http://") + "/models/web"}
	return g
}

// TestLateCallersGetASyncOfTheirOwn: what was published while a sync was
// looking elsewhere is seen by who asks then.
func TestLateCallersGetASyncOfTheirOwn(t *testing.T) {
	g := newGate(t)
	s := newSite(t, func(o *Options) { o.From = append([]oras.Ref{g.ref}, o.From...) })
	s.offer(1)
	first, late := make(chan *Report, 1), make(chan *Report, 1)
	go func() { first <- s.Sync(context.Background()) }()
	<-g.came
	gone, stop := context.WithCancel(t.Context())
	stop()
	for range 3 { // they ask, and do not wait
		s.Sync(gone)
	}
	asked := time.Now()
	go func() { late <- s.Sync(context.Background()) }()
	close(g.open)
	if r := <-first; !r.Started.Before(asked) {
		t.Errorf("the first: %+v", r)
	}
	if r := <-late; r.Started.Before(asked) {
		t.Error("a late caller was given a sync that began before it asked")
	}
	if n := s.metrics.syncCount.Load(); n > 3 {
		t.Errorf("%d syncs for those who asked at once", n)
	}
}

// TestSyncOutlivesItsCaller: who asked is told that it goes on, and it does.
func TestSyncOutlivesItsCaller(t *testing.T) {
	g := newGate(t)
	s := newSite(t, func(o *Options) { o.From = append([]oras.Ref{g.ref}, o.From...) })
	s.offer(1)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		<-g.came
		stop()
	}()
	r := httptest.NewRequestWithContext(ctx, "POST", "/api/models/sync", nil)
	r.Host = "localhost"
	w := httptest.NewRecorder()
	s.Handler(false).ServeHTTP(w, r)
	if w.Code != http.StatusGatewayTimeout || w.Header().Get("Content-Type") != "application/problem+json" || !strings.Contains(w.Body.String(), "goes on") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	close(g.open)
	for range 1000 {
		if s.live.Load() != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the sync ended with its caller")
}

// An outage is asked about three times and no more, and the registry is a stranger afterwards.
func TestKnownRegistryThatFailsIsOpenedAnew(t *testing.T) {
	d := newDepot(t, true)
	d.publish(1)
	d.must(ResultInstalled)
	d.asked, d.down = nil, true
	d.must(ResultUnreachable)
	tag := "GET /v2/models/web/manifests/channel-stable "
	if want := []string{tag + "503", tag + "503", tag + "503"}; !slices.Equal(d.asked, want) {
		t.Errorf("down: asked %q", d.asked)
	}
	d.asked, d.down = nil, false
	d.must(ResultCurrent)
	if want := []string{"GET /v2/", tag + "304"}; !slices.Equal(d.asked, want) {
		t.Errorf("up again: asked %q", d.asked)
	}
}
