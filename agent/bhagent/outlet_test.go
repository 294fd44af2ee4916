package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// logText collects a log.
type logText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestOutletDropsRatherThanWaits(t *testing.T) {
	var log logText
	blocked := make(chan struct{})
	var sent atomic.Int64
	o := newOutlet("x", slog.New(slog.NewTextHandler(&log, nil)), 10, time.Millisecond, func(ctx context.Context, batch []finding) (int, error) {
		select {
		case <-blocked:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		sent.Add(int64(len(batch)))
		return len(batch), nil
	})
	const all = maxBatch + 1000
	done := make(chan struct{})
	go func() {
		for range all {
			o.put(finding{line: []byte("{}")})
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("a receiver that does not take anything blocks")
	}
	close(blocked)
	o.close()
	if sent.Load() == 0 || o.dropped.Load() == 0 || sent.Load()+o.dropped.Load() != all {
		t.Errorf("%d sent, %d dropped of %d", sent.Load(), o.dropped.Load(), all)
	}
	if !strings.Contains(log.String(), "findings dropped") {
		t.Errorf("nothing is said:\n%s", log.String())
	}
}

func TestOutletTriesAgain(t *testing.T) {
	for name, c := range map[string]struct {
		failures int
		err      error
		calls    int64
		dropped  int64
	}{
		"none":      {0, nil, 1, 0},
		"passing":   {3, errors.New("x"), 4, 0},
		"lasting":   {100, errors.New("x"), attempts, 2},
		"permanent": {100, permanent{errors.New("x"), 2}, 1, 2},
	} {
		var calls atomic.Int64
		o := newOutlet("x", slog.New(slog.DiscardHandler), 10, time.Millisecond, func(_ context.Context, batch []finding) (int, error) {
			if calls.Add(1) <= int64(c.failures) {
				return 0, c.err
			}
			return len(batch), nil
		})
		o.put(finding{})
		o.put(finding{})
		o.close()
		if calls.Load() != c.calls || o.dropped.Load() != c.dropped {
			t.Errorf("%s: %d attempts, %d dropped", name, calls.Load(), o.dropped.Load())
		}
	}
	// What was sent of a batch is not sent again.
	var got []string
	o := newOutlet("x", slog.New(slog.DiscardHandler), 10, time.Millisecond, func(_ context.Context, batch []finding) (int, error) {
		got = append(got, string(batch[0].line))
		return 1, errors.New("x")
	})
	for _, line := range []string{"a", "b", "c"} {
		o.put(finding{line: []byte(line)})
	}
	o.close()
	if strings.Join(got, "") != "abc" || o.dropped.Load() != 0 {
		t.Errorf("%q, %d dropped", got, o.dropped.Load())
	}
}

func TestOutletLeavesOutWhatCannotBeSent(t *testing.T) {
	var got []string
	o := newOutlet("x", slog.New(slog.DiscardHandler), 10, time.Millisecond, func(_ context.Context, batch []finding) (int, error) {
		for i, f := range batch {
			if string(f.line) == "long" {
				return i, permanent{errors.New("too long"), 1}
			}
			got = append(got, string(f.line))
		}
		return len(batch), nil
	})
	for _, line := range []string{"long", "a", "long", "long", "b", "long"} {
		o.put(finding{line: []byte(line)})
	}
	o.close()
	if strings.Join(got, "") != "ab" || o.dropped.Load() != 4 {
		t.Errorf("%q, %d dropped", got, o.dropped.Load())
	}
}

func TestOutletComesAgainWhenItIsTold(t *testing.T) {
	var times []time.Time
	o := newOutlet("x", slog.New(slog.DiscardHandler), 10, time.Millisecond, func(_ context.Context, batch []finding) (int, error) {
		if times = append(times, time.Now()); len(times) == 1 {
			return 0, later{errors.New("busy"), 400 * time.Millisecond}
		}
		return len(batch), nil
	})
	o.put(finding{})
	o.close()
	if len(times) != 2 || times[1].Sub(times[0]) < 400*time.Millisecond || o.dropped.Load() != 0 {
		t.Errorf("%v, %d dropped", times, o.dropped.Load())
	}
	now := time.Date(2026, 1, 10, 8, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-7": 0, "x": 0, "1e3": 0, "99999999999": 0, "4294967295": 4294967295 * time.Second,
		"Sat, 10 Jan 2026 08:00:30 GMT": 30 * time.Second, "Sat, 10 Jan 2026 07:00:00 GMT": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

func TestWebhook(t *testing.T) {
	var status atomic.Int64
	status.Store(200)
	var mu sync.Mutex
	var bodies, secrets []string
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		bodies, secrets = append(bodies, string(b)), append(secrets, r.Header.Get("X-Key"))
		mu.Unlock()
		if c := int(status.Load()); c/100 == 3 {
			http.Redirect(w, r, "/elsewhere", c)
		} else {
			if c == 429 {
				w.Header().Set("Retry-After", "9")
			}
			w.WriteHeader(c)
		}
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	defer srv.Close()
	dir := t.TempDir()
	ca, header := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "header")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(header, []byte("X-Key: secret value\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := newWebhook(srv.URL+"/hook?token=t0k", header, ca)
	if err != nil {
		t.Fatal(err)
	}
	batch := []finding{{line: []byte(`{"line":1}`)}, {line: []byte(`{"line":2}`), bad: true}}
	ctx := context.Background()
	if n, err := w.send(ctx, batch); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if bodies[0] != "{\"line\":1}\n{\"line\":2}\n" || secrets[0] != "secret value" {
		t.Errorf("%q %q", bodies, secrets)
	}
	for code, again := range map[int64]bool{500: true, 503: true, 429: true, 408: true, 400: false, 401: false, 302: false, 307: false} {
		status.Store(code)
		before := len(bodies)
		n, err := w.send(ctx, batch)
		if _, final := err.(permanent); err == nil || n != 0 || final == again {
			t.Errorf("%d: %d, %v", code, n, err)
		}
		if l, _ := err.(later); (l.wait == 9*time.Second) != (code == 429) {
			t.Errorf("%d: to come again after %s", code, l.wait)
		}
		if len(bodies) != before+1 {
			t.Errorf("%d: followed elsewhere", code)
		}
	}
	// A server whose certificate nobody vouches for gets nothing.
	status.Store(200)
	before := len(bodies)
	if w, err = newWebhook(srv.URL+"/hook?token=t0k", header, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := w.send(ctx, batch); err == nil || len(bodies) != before {
		t.Errorf("an unknown authority: %v", err)
	}
	srv.Close()
	if w, err = newWebhook(srv.URL+"/hook?token=t0k", "", ca); err != nil {
		t.Fatal(err)
	}
	if _, err := w.send(ctx, batch); err == nil || strings.Contains(err.Error(), "t0k") {
		t.Errorf("nobody listens: %v", err)
	}
	for _, bad := range []string{"", "ftp://x/y", "http://example.org/x", "https://u:p@example.org/", "example.org/x", "https:///x"} {
		if _, err := newWebhook(bad, "", ""); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for _, bad := range []string{"", "X-Key", "X Key: a", "X-Key:", "X-Key: a\nX-Other: b", "X: " + strings.Repeat("x", maxSecret)} {
		if err := os.WriteFile(header, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := newWebhook("https://example.org/", header, ""); err == nil {
			t.Errorf("header %.20q is accepted", bad)
		}
	}
	if _, err := newWebhook("https://example.org/", "", header); err == nil {
		t.Error("a file without certificates is accepted")
	}
	if _, err := newWebhook("http://127.0.0.1:1/", "", ""); err != nil {
		t.Errorf("loopback: %v", err)
	}
}

func TestSyslog(t *testing.T) {
	form := regexp.MustCompile(`^<(\d+)>1 2026-01-10T08:00:00\.000001Z \S+ bhagent \d+ finding - (\{.*\})$`)
	batch := []finding{{line: []byte(`{"line":1}`)}, {line: []byte(`{"line":2}`), bad: true}}
	for _, network := range []string{"udp", "unix"} {
		address, listen := "127.0.0.1:0", network
		if network == "unix" {
			address, listen = filepath.Join(t.TempDir(), "log"), "unixgram"
		}
		server, err := net.ListenPacket(listen, address)
		if err != nil {
			t.Skip(err)
		}
		s, err := newSyslog(network + ":" + server.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		s.now = func() time.Time { return time.Date(2026, 1, 10, 9, 0, 0, 1999, time.FixedZone("", 3600)) }
		read := func() []string {
			t.Helper()
			b := make([]byte, 1<<16)
			server.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, _, err := server.ReadFrom(b)
			if err != nil {
				t.Fatal(err)
			}
			m := form.FindStringSubmatch(string(b[:n]))
			if m == nil {
				t.Fatalf("%s: %q", network, b[:n])
			}
			return m[1:]
		}
		if n, err := s.send(context.Background(), batch); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		if a, b := read(), read(); a[0] != "134" || a[1] != `{"line":1}` || b[0] != "132" || b[1] != `{"line":2}` {
			t.Errorf("%s: %q %q", network, a, b)
		}
		// One that is too long for a datagram is left out, and the rest is sent.
		long := []finding{{line: []byte("{}")}, {line: bytes.Repeat([]byte("x"), 1<<22)}, {line: []byte("{}")}}
		n, err := s.send(context.Background(), long)
		if p, final := err.(permanent); n != 1 || !final || p.findings != 1 {
			t.Errorf("%s: too long: %d, %v", network, n, err)
		}
		if n, err := s.send(context.Background(), long[2:]); n != 1 || err != nil {
			t.Errorf("%s: after one that was too long: %d, %v", network, n, err)
		}
		read()
		read()
		if network == "udp" {
			server.Close()
			continue
		}
		// The server starts anew: what it did not take is sent again.
		server.Close()
		if n, err := s.send(context.Background(), batch); n != 0 || err == nil {
			t.Errorf("nobody listens: %d, %v", n, err)
		}
		os.Remove(address)
		if server, err = net.ListenPacket(listen, address); err != nil {
			t.Fatal(err)
		}
		if n, err := s.send(context.Background(), batch); n != 2 || err != nil {
			t.Errorf("anew: %d, %v", n, err)
		}
		read()
		server.Close()
	}
	for _, bad := range []string{"", "unix:", "udp:", "udp:host", "tcp:host:514", "/dev/log"} {
		if _, err := newSyslog(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
