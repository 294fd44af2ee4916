package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/internal/sign/signtest"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func newWatcher(t *testing.T) *watcher {
	no, none := false, ""
	boot := &bootstrap{on: &no, source: &none}
	return &watcher{
		call: &cli.Call{Stderr: io.Discard, Log: slog.New(slog.DiscardHandler)},
		ref:  oras.Ref{Layout: "dist"}, policy: filepath.Join(t.TempDir(), "none.yaml"), path: filepath.Join(t.TempDir(), "state.json"),
		attest: &attestFlags{attest: &no, to: &none, out: &none, transcripts: &no}, boot: boot,
		state: watchState{Format: 1, Releases: []watched{}, Channels: map[string]verify.Memory{}},
	}
}

func TestWatchRemembers(t *testing.T) {
	w := newWatcher(t)
	for i := range maxWatched + 5 {
		if i > 3 && i < maxWatched { // the file is written each time
			w.state.Releases = append(w.state.Releases, watched{Release: canon.Sum([]byte{byte(i), byte(i >> 8)}), Product: "shop", Number: int64(i), Result: "PASS"})
			continue
		}
		if err := w.remember(watched{Release: canon.Sum([]byte{byte(i), byte(i >> 8)}), Product: "shop", Number: int64(i), Result: "PASS"}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := readWatchState(w.path)
	if err != nil || len(s.Releases) != maxWatched || s.Releases[0].Number != 5 || s.Releases[maxWatched-1].Number != maxWatched+4 {
		t.Fatalf("%d releases, %v", len(s.Releases), err)
	}
	// The same again is one, and the newest.
	again := s.Releases[10]
	again.Result = "FAIL"
	w.state = s
	if err := w.remember(again); err != nil {
		t.Fatal(err)
	}
	if s, err = readWatchState(w.path); err != nil || len(s.Releases) != maxWatched || s.Releases[maxWatched-1] != again {
		t.Errorf("%d releases, %v", len(s.Releases), err)
	}
	if have := w.find(again.Release); have == nil || have.Result != "FAIL" {
		t.Errorf("%+v", have)
	}
	if have := w.find(canon.Sum(nil)); have != nil {
		t.Errorf("%+v", have)
	}
}

func TestWatchShowsItsState(t *testing.T) {
	w := newWatcher(t)
	w.state.Releases = []watched{{Release: canon.Sum([]byte("a")), Product: "<b>shop", Number: 7, Result: "FAIL"}, {Release: canon.Sum([]byte("b")), Product: "shop", Number: 6, Result: "PASS"}}
	w.last, w.error = time.Unix(1_700_000_000, 0), "<script>"
	get := func(path string, code int) string {
		out := httptest.NewRecorder()
		w.handler().ServeHTTP(out, httptest.NewRequest(http.MethodGet, path, nil))
		if out.Code != code {
			t.Errorf("%s: %d", path, out.Code)
		}
		return out.Body.String()
	}
	page := get("/", 200)
	if !strings.Contains(page, canon.Sum([]byte("a")).String()) || !strings.Contains(page, "2023-11-14T22:13:20Z") || strings.Contains(page, "<script") || strings.Contains(page, "<b>") {
		t.Errorf("%s", page)
	}
	metrics := get("/metrics", 200)
	for _, line := range []string{
		`bhverify_watch_releases{result="PASS"} 1`, `bhverify_watch_releases{result="FAIL"} 1`, `bhverify_watch_releases{result="REFUSED"} 0`,
		"bhverify_watch_last_look_timestamp_seconds 1700000000", "bhverify_watch_last_look_ok 0", "bhverify_watch_newest_release_number 7",
	} {
		if !strings.Contains(metrics, "\n"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, metrics)
		}
	}
	get("/other", 404)
	out := httptest.NewRecorder()
	w.handler().ServeHTTP(out, httptest.NewRequest(http.MethodPost, "/", nil))
	if out.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", out.Code)
	}
}

// What cannot be done is tried again until the program is told to stop.
func TestWatchGoesOn(t *testing.T) {
	w := newWatcher(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := w.run(ctx, 10*time.Millisecond, "127.0.0.1:0"); err != nil {
		t.Errorf("%v", err)
	}
	if !strings.Contains(w.error, "none.yaml") {
		t.Errorf("%q", w.error)
	}
	var exit *cli.ExitError
	if err := w.look(t.Context()); err == nil || errors.As(err, &exit) {
		t.Errorf("once: %v", err)
	}
}

// Whom a keyless signer signs as is asked for, and nothing is signed for it.
func TestWatchKnowsAKeylessSigner(t *testing.T) {
	sigstore := signtest.New(t)
	services, err := sign.LoadServices(sigstore.SigningConfig, sigstore.TrustedRoot, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := sign.Keyless(sign.TokenText(sigstore.Token("https://issuer.example.org", "ann@example.org")), services)
	if err != nil {
		t.Fatal(err)
	}
	f := &attestFlags{signer: signer}
	who, err := f.identity(t.Context())
	if err != nil || who.Certificate == nil || who.Certificate.SAN != "ann@example.org" || who.Certificate.Issuer != "https://issuer.example.org" {
		t.Errorf("%+v, %v", who, err)
	}
	if f.signer, err = sign.Keyless(sign.TokenText("none"), services); err == nil {
		_, err = f.identity(t.Context())
	}
	if err == nil {
		t.Error("a token that is none names somebody")
	}
}
