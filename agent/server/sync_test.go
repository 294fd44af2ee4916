package server

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// depot is a registry that answers "not modified" to who knows a manifest.
type depot struct {
	*site
	store  oras.Store
	ref    oras.Ref
	frozen bool // it says so whatever is asked
	now    time.Time
	asked  []string // with the status of the answer
}

func newDepot(t *testing.T, channel bool) *depot {
	t.Helper()
	d := &depot{now: time.Now()}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known := r.Header.Get("If-None-Match")
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
		key := d.published.policy[strings.Index(d.published.policy, "    key: |"):]
		d.write(d.policy, d.published.policy+"channel:\n  name: stable\n  epoch: 1\n  signers:\n  - name: me\n"+key)
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
		// Nor does it bring a release back that is not what it was.
		d.frozen = false
		d.publish(1)
		d.must(ResultRefused)
	}
}
