package server

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/agent"
)

// What an operator decides with another process holds at once, and a sync of
// another process too.
func TestDecisionsHoldAtOnce(t *testing.T) {
	s := newSite(t)
	s.offer(1)
	s.must(ResultInstalled)
	s.offer(2)
	s.must(ResultInstalled)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	other := agent.Open(filepath.Join(filepath.Dir(s.policy), "state"))
	v, err := other.Verifier(ctx, s.policy, true)
	if err != nil {
		t.Fatal(err)
	}
	is := func(what string, state agent.State, number int64) {
		t.Helper()
		var st *Status
		for range 200 { // well under the minute after which it would be judged anyway
			st = s.status.Load()
			if st.Loaded && st.State == state && st.Release.Number == number && s.live.Load().Release().Digest == st.Release.Digest {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Fatalf("%s: %s, release %+v", what, st.State, st.Release)
	}
	is("at the start", agent.StateCurrent, 2)
	before := s.status.Load()
	if err := other.Rollback(ctx, before.Previous, v, "a test", time.Now()); err != nil {
		t.Fatal(err)
	}
	is("rolled back", agent.StateCurrent, 1) // without a channel nothing names another
	if len(s.status.Load().Decisions) != 1 {
		t.Errorf("decisions: %+v", s.status.Load().Decisions)
	}
	if _, err := other.Pin(ctx, v, true, "", time.Now()); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if len(s.status.Load().Decisions) == 2 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if n := len(s.status.Load().Decisions); n != 2 {
		t.Errorf("%d decisions after another", n)
	}
}
