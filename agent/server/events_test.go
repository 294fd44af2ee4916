package server

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestScoresAreToldEveryTwoSeconds however many listen, and nobody is kept
// busy when nobody does.
func TestScoresAreToldEveryTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		var all []chan event
		for range 20 {
			all = append(all, h.listen())
		}
		for range 60 {
			h.scored(&tally{Scored: 1})
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		for _, c := range all {
			if n := len(c); n != 3 {
				t.Errorf("%d events in 6 s", n)
			}
			h.leave(c)
		}
		time.Sleep(scoresEvery)
		synctest.Wait()
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.flushing {
			t.Error("still flushing when nobody listens")
		}
	})
}
