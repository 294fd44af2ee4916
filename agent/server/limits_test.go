package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/internal/sign/signtest"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// clocked is a site with release 1 loaded, and a clock that the test moves.
func clocked(t *testing.T) (s *site, forward func(time.Duration)) {
	now := time.Now()
	s = newSite(t, func(o *Options) { o.Now = func() time.Time { return now } })
	s.offer(1)
	s.must(ResultInstalled)
	return s, func(d time.Duration) { now = now.Add(d) }
}

// wants judges again, and wants this state and whether records are scored.
func (s *site) wants(state agent.State, scores bool) {
	s.t.Helper()
	s.reload(context.Background(), nil)
	code := http.StatusServiceUnavailable
	if scores {
		code = http.StatusOK
	}
	st := s.status.Load()
	if w := s.do("POST", "/v1/score", "application/json", attack); st.State != state || st.Loaded != scores || w.Code != code {
		s.t.Errorf("state %s (%s), loaded %t, score %d; want %s, %d", st.State, st.Reason, st.Loaded, w.Code, state, code)
	}
}

func TestPolicyThatIsBeingWrittenUnloadsNothing(t *testing.T) {
	s, forward := clocked(t)
	for name, breaks := range map[string]func(){
		"half":    func() { s.write(s.policy, s.published.policy[:40]) },
		"missing": func() { os.Remove(s.policy) },
	} {
		breaks()
		s.wants(agent.StateStale, true)
		if !s.failing() || s.policyChanged() {
			t.Errorf("%s: failing %t, changed %t", name, s.failing(), s.policyChanged())
		}
		forward(policyGrace - time.Second)
		s.wants(agent.StateStale, true)
		forward(time.Second)
		s.wants(agent.StateRefused, false)
		s.write(s.policy, s.published.policy)
		s.wants(agent.StateCurrent, true)
		if s.failing() {
			t.Errorf("%s: still failing", name)
		}
	}
}

func TestMachineInTroubleUnloadsNothingAtOnce(t *testing.T) {
	s, forward := clocked(t)
	if err := os.Remove(s.policy); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(s.policy, s.policy); err != nil { // opening it fails, and says nothing about the file
		t.Skip(err)
	}
	s.wants(agent.StateStale, true)
	forward(machineGrace - time.Second)
	s.wants(agent.StateStale, true)
	forward(time.Second)
	s.wants(agent.StateRefused, false)
}

func TestDamagedStateUnloadsAtOnce(t *testing.T) {
	s, _ := clocked(t)
	s.write(filepath.Join(filepath.Dir(s.policy), "state", "state.json"), "{}\n")
	s.wants(agent.StateRefused, false)
}

// A policy that can be read and is another has 15 seconds to be judged by,
// whatever is in the way.
func TestAnotherPolicyIsObeyedSoon(t *testing.T) {
	s, forward := clocked(t)
	s.rootless("https://tuf.invalid")
	s.reload(t.Context(), nil)
	if st := s.status.Load(); s.policyChanged() || st.Policy == s.read || !st.Loaded {
		t.Errorf("a policy whose root cannot be had: changed for ever %t, %+v", s.policyChanged(), st)
	}
	s.wants(agent.StateStale, true)
	forward(policyGrace)
	s.wants(agent.StateRefused, false)
}

// The root of TUF is had once; when it cannot be had any more, silence takes
// nothing out of use for a week that it judged, and brings no tight loop.
func TestTrustedRootThatExpiresUnloadsNothingAtOnce(t *testing.T) {
	s, forward := clocked(t)
	s.rootless("https://tuf.invalid")
	p, err := verify.LoadPolicy(s.policy)
	if err != nil {
		t.Fatal(err)
	}
	if p.TrustedRoot, err = os.ReadFile(signtest.New(t).TrustedRoot); err != nil {
		t.Fatal(err)
	}
	if s.trust, err = verify.New(p); err != nil {
		t.Fatal(err)
	}
	s.trusted = s.opt.Now()
	s.wants(agent.StateStale, true)
	if s.failing() || s.policyChanged() {
		t.Errorf("judged by the root that was had: failing %t, changed %t", s.failing(), s.policyChanged())
	}
	if r := s.must(ResultFailed); !strings.Contains(r.Detail, "tuf") {
		t.Errorf("sync without a root: %s", r.Detail)
	}
	forward(rootGrace - time.Second)
	s.wants(agent.StateStale, true)
	if s.failing() {
		t.Error("not judged within the week")
	}
	forward(time.Second)
	s.wants(agent.StateStale, true)
	if !s.failing() {
		t.Error("judged after the week")
	}
	forward(machineGrace)
	s.wants(agent.StateRefused, false)
}

func TestTrustedRootOfAnotherPolicyJudgesNothing(t *testing.T) {
	s, _ := clocked(t)
	trusted, judged := s.trust, s.status.Load().Policy
	s.rootless("https://tuf.invalid")
	s.reload(t.Context(), nil)
	if !s.failing() || s.trust != trusted || s.status.Load().Policy != judged {
		t.Errorf("failing %t, policy %s", s.failing(), s.status.Load().Policy)
	}
}

// rootless has the policy name a TUF repository that cannot be had.
func (s *site) rootless(url string) {
	s.t.Helper()
	s.write(filepath.Join(filepath.Dir(s.policy), "root.json"), `{"signed": {}}`)
	s.write(s.policy, s.published.policy+"timestamps: {authority: 0}\ntuf:\n  url: "+url+"\n  root: root.json\n")
}

func TestDaemonBacksOffAndJudgesEveryMinute(t *testing.T) {
	s := newSite(t) // outside the bubble, as it trains
	offset := time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	s.opt.Now = func() time.Time { return time.Now().Add(offset) }
	from := s.opt.From
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer stop()
		s.opt.From = []oras.Ref{{Layout: filepath.Join(t.TempDir(), "none")}}
		s.opt.Interval = 4 * time.Minute
		var began []time.Time
		done := make(chan struct{})
		go func() { s.keep(ctx); close(done) }()
		for range 12 * 60 { // an hour, looked at every 5 s
			if r := s.status.Load().LastSync; r != nil && (len(began) == 0 || !began[len(began)-1].Equal(r.Started)) {
				began = append(began, r.Started)
			}
			time.Sleep(5 * time.Second)
		}
		want := []float64{15, 30, 60, 120, 240, 240, 240}
		spread := false
		for i, w := range want {
			if i+1 >= len(began) {
				t.Fatalf("only %d syncs in an hour", len(began))
			}
			got := began[i+1].Sub(began[i]).Seconds()
			if got < .9*w-6 || got > 1.1*w+6 {
				t.Errorf("pause %d: %.0f s, want about %.0f", i+1, got, w)
			}
			spread = spread || i > 2 && (got < w-.5 || got > w+.5)
		}
		if !spread {
			t.Error("every pause is exactly as planned: no jitter")
		}
		// It finds its way back, and then judges each minute what nobody asks for.
		s.opt.From = from
		s.offer(1)
		time.Sleep(5 * time.Minute)
		if st := s.status.Load(); !st.Loaded {
			t.Fatalf("after the registry came back: %+v", st)
		}
		before := s.status.Load().LastSync.Started
		if err := os.RemoveAll(filepath.Join(filepath.Dir(s.policy), "state", "releases")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(judgeEvery + time.Second)
		if st := s.status.Load(); st.LastSync.Started.Equal(before) && st.Loaded {
			t.Errorf("a minute after its files were taken away it is still used: %+v", st)
		}
		stop()
		<-done
	})
}

func TestLargeRequestsWaitForMemory(t *testing.T) {
	s, _ := clocked(t)
	synctest.Test(t, func(t *testing.T) {
		large := strings.Repeat(attack+"\n", 1000)
		score := func(body string) int {
			return s.do("POST", "/v1/score", "application/x-ndjson", body).Code
		}
		s.shares = newShares()
		if code := score(large); code != 200 {
			t.Errorf("with memory: %d", code)
		}
		s.shares.bodies.TryAcquire(maxBodies)
		start := time.Now()
		w := s.do("POST", "/v1/score", "application/x-ndjson", large)
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || time.Since(start) != shareWait {
			t.Errorf("without memory for bodies: %d after %v, %v", w.Code, time.Since(start), w.Header())
		}
		if code := score(attack); code != 200 {
			t.Errorf("a small body beside large ones: %d", code)
		}
		s.shares.answers.TryAcquire(maxAnswers)
		if code := score(attack); code != http.StatusServiceUnavailable {
			t.Errorf("without memory for answers: %d", code)
		}
		go func() {
			time.Sleep(time.Second)
			s.shares.answers.Release(maxAnswers)
		}()
		if code := score(attack); code != 200 {
			t.Errorf("memory that comes in time: %d", code)
		}
		s.shares.bodies.Release(maxBodies)
		if !s.shares.bodies.TryAcquire(maxBodies) || !s.shares.answers.TryAcquire(maxAnswers) {
			t.Error("requests have kept memory")
		}
	})
}

// Clients that take no answers hold what these need, and not for long.
func TestClientsThatTakeNoAnswersLeaveRoom(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.offer(1)
	s.must(ResultInstalled)
	address := s.run(false)
	body := strings.Repeat(attack+"\n", 7500)
	for range 9 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.(*net.TCPConn).SetReadBuffer(4096)
		fmt.Fprintf(c, "POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	end := time.Now().Add(answerTime + 10*time.Second)
	for padded := attack + strings.Repeat(" ", 25_000); ; {
		r, err := http.Post("http://"+address+"/v1/score", "application/json", strings.NewReader(padded))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode == 200 {
			break
		}
		if r.StatusCode != http.StatusServiceUnavailable || time.Now().After(end) {
			t.Fatalf("%d", r.StatusCode)
		}
	}
	// What they held is given back in full.
	for what, of := range map[*semaphore.Weighted]int64{s.shares.answers: maxAnswers, s.shares.bodies: maxBodies} {
		for !what.TryAcquire(of) {
			if time.Now().After(end) {
				t.Fatal("memory is held after the time for an answer")
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// Clients at once that ask for live history share one session.
func TestLiveHistoryIsForOneAtATime(t *testing.T) {
	s, _ := clocked(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 20 {
				var rows bytes.Buffer
				for k := range 50 {
					fmt.Fprintf(&rows, `{"timestamp":"2026-01-10T08:00:00Z","src_ip":"10.%d.%d.%d","details":"GET /"}`+"\n", i, j, k)
				}
				if w := s.do("POST", "/v1/score?history=live", "application/x-ndjson", rows.String()); w.Code != 200 {
					t.Error(w.Code, w.Body)
				}
			}
		})
	}
	all.Wait()
}

// run runs the server on a loopback port until the test ends.
func (s *site) run(remote bool) (address string) {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, Listener{Listener: l, Remote: remote}) }()
	s.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
	return l.Addr().String()
}

// closes wants the server to end the connection within d.
func closes(t *testing.T, c net.Conn, d time.Duration) (answer string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(d))
	b, err := io.ReadAll(c)
	if err, ok := err.(net.Error); ok && err.Timeout() {
		t.Errorf("open after %v", d)
	}
	return string(b)
}

func TestConnectionsHaveLimits(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address := s.run(false)
	dial := func(text string) net.Conn {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_, err = io.WriteString(c, text)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	slow := dial("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
	if got := closes(t, dial("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: "+strings.Repeat("x", 2*maxHeader)+"\r\n\r\n"), 5*time.Second); !strings.HasPrefix(got, "HTTP/1.1 431") {
		t.Errorf("long header: %.40q", got)
	}
	if got := closes(t, dial("GET /healthz HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n"), 5*time.Second); !strings.HasPrefix(got, "HTTP/1.1 421") {
		t.Errorf("another name: %.40q", got)
	}
	closes(t, slow, headerTimeout+5*time.Second)
	srv := s.httpServer(t.Context(), false)
	for _, limit := range []time.Duration{srv.ReadTimeout, srv.WriteTimeout, srv.IdleTimeout} {
		if limit <= 0 || limit > 2*time.Minute {
			t.Errorf("limit %v", limit)
		}
	}
}

func TestOneRemoteClientLeavesRoomForOthers(t *testing.T) {
	s := newSite(t, func(o *Options) { o.Token = "secret" })
	address := s.run(true)
	var open []net.Conn
	for range maxPerAddress {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// It is served: health needs no token.
		if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); n != 1 {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	more, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer more.Close()
	closes(t, more, 5*time.Second)
	open[0].Close()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		r, err := http.Get("http://" + address + "/api/models")
		if err == nil {
			r.Body.Close()
			if r.StatusCode != http.StatusUnauthorized || !r.Close {
				t.Errorf("a stranger: %d, and keeps the connection: %t", r.StatusCode, !r.Close)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("a place that was given back is not given again:", err)
		}
	}
	if w := ask(s.Handler(true), "GET", "/readyz", "", ""); w.Code != 503 || strings.Contains(w.Body.String(), "sync") {
		t.Errorf("strangers are told why nothing is loaded: %d %s", w.Code, w.Body)
	}
	if w := s.do("GET", "/readyz", "", ""); !strings.Contains(w.Body.String(), "sync") {
		t.Errorf("users of this machine are not: %s", w.Body)
	}
}

func TestClientsAreToldApart(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1:1", "192.0.2.1:2", true},
		{"192.0.2.1:1", "192.0.2.2:1", false},
		{"192.0.2.1:1", "[::ffff:192.0.2.1]:1", true},
		{"[2001:db8::1]:1", "[2001:db8::ffff:2]:9", true},
		{"[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1", false},
	} {
		var got [2]any
		for i, s := range []string{c.a, c.b} {
			a, err := net.ResolveTCPAddr("tcp", s)
			if err != nil {
				t.Fatal(err)
			}
			p, ok := client(a)
			if !ok {
				t.Fatal(s)
			}
			got[i] = p
		}
		if (got[0] == got[1]) != c.same {
			t.Errorf("%s, %s: %v", c.a, c.b, got)
		}
	}
	if _, ok := client(&net.UnixAddr{Name: "@", Net: "unix"}); ok {
		t.Error("a socket has an address")
	}
}
