package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// Results of a sync.
const (
	ResultInstalled   = "installed"   // another release is live now
	ResultCurrent     = "current"     // what is live is what there is
	ResultPinned      = "pinned"      // there is another, and an operator decided to stay with what is live
	ResultRefused     = "refused"     // what there is may not be installed
	ResultStale       = "stale"       // what is live is what the channel names, but the channel has expired
	ResultUnreachable = "unreachable" // no mirror answered
	ResultFailed      = "failed"      // something else went wrong here
)

// Report is what one sync found and did.
type Report struct {
	Result   string         `json:"result"`
	Success  bool           `json:"success"`  // installed, current or pinned
	Detail   string         `json:"detail"`   // why, when it is neither installed nor current
	Source   string         `json:"source"`   // the mirror that was used, or the one that told most
	Release  canon.Digest   `json:"release"`  // that it found; "" for none
	Number   int64          `json:"number"`   // of Release; 0 when unknown
	Live     Live           `json:"live"`     // what is in use now, whatever was found
	Fallback bool           `json:"fallback"` // Live is the release before, since the one that was in use was revoked
	Checks   []verify.Check `json:"checks"`   // of Release, when it was judged
	Started  time.Time      `json:"started"`
	Finished time.Time      `json:"finished"`
}

// Live names the release that is in use; the zero value is none.
type Live struct {
	Release canon.Digest `json:"release"` // "" for none
	Number  int64        `json:"number"`  // 0 for none
}

// run is a sync under way, or the one that follows it. report is set before done
// is closed.
type run struct {
	done   chan struct{}
	report *Report
	next   *run // for those who asked after this one began; nil for nobody
}

// Sync syncs now and returns the report. A sync that is under way may have
// looked before what the caller knows of was there: another follows it, one for all who
// ask meanwhile. It goes on when ctx ends before it; then the result is nil, as it
// is after the end of Run.
func (s *Server) Sync(ctx context.Context) *Report {
	s.mu.Lock()
	r := &run{done: make(chan struct{})}
	switch base := s.base; {
	case base.Err() != nil: // nobody waits for the end of another one
		s.mu.Unlock()
		return nil
	case s.running == nil:
		s.running = r
		s.working.Go(func() { s.work(base, r) })
	case s.running.next == nil:
		s.running.next = r
	default:
		r = s.running.next
	}
	s.mu.Unlock()
	select {
	case <-r.done:
		return r.report
	case <-ctx.Done():
		return nil
	}
}

// work does the sync r, and those that follow it.
func (s *Server) work(ctx context.Context, r *run) {
	for r != nil {
		r.report = s.sync(ctx)
		s.keepHistory()
		s.mu.Lock()
		close(r.done)
		r = r.next
		s.running = r
		s.mu.Unlock()
	}
}

// sync asks the mirrors, as agent.SyncMirrors does.
func (s *Server) sync(ctx context.Context) *Report {
	report := &Report{Started: s.opt.Now()}
	s.events.send("sync", map[string]any{"phase": "started"})
	s.syncMirrors(ctx, report)
	report.Finished = s.opt.Now()
	report.Success = report.Result == ResultInstalled || report.Result == ResultCurrent || report.Result == ResultPinned
	level := slog.LevelInfo
	if !report.Success {
		level = slog.LevelWarn
	}
	s.opt.Log.Log(ctx, level, "sync", "result", report.Result, "source", report.Source, "digest", report.Release, "reason", report.Detail,
		"dur_ms", report.Finished.Sub(report.Started).Milliseconds())
	s.metrics.synced(report)
	if ctx.Err() == nil { // the end of this process is no finding about a mirror
		s.note(agent.Happening{Time: report.Finished, What: report.Result, Good: report.Success, Digest: report.Release, Number: report.Number, Source: report.Source, Detail: report.Detail})
	}
	s.reload(ctx, report)
	s.events.send("sync", map[string]any{
		"phase": "finished", "result": report.Result, "number": report.Number, "detail": report.Detail, "live": report.Live, "fallback": report.Fallback,
	})
	return report
}

// fetchEvery is how often those who listen are told how much of a release has
// come.
const fetchEvery = 200 * time.Millisecond

// tell returns what tells those who listen how far a sync has come.
func (s *Server) tell() func(agent.Progress) {
	var last agent.Progress
	var at time.Time
	return func(p agent.Progress) {
		more := p.Phase == last.Phase && p.Source == last.Source && p.Digest == last.Digest
		if more && p.Done < p.Total && time.Since(at) < fetchEvery {
			return
		}
		last, at = p, time.Now()
		s.events.send("sync", p)
	}
}

func (s *Server) syncMirrors(ctx context.Context, report *Report) {
	report.Result = ResultFailed
	v, err := s.opt.Agent.Verifier(ctx, s.opt.Policy, false)
	if err != nil {
		report.Detail = verify.Printable(err.Error())
		return
	}
	asked, best := s.opt.Agent.Watched(s.tell()).SyncMirrors(ctx, s.opt.From, s.opt.Store, v, s.opt.Policy, s.opt.Now())
	for i := range asked {
		if got := asked[i].Synced; got != nil && !got.Unpinned.IsZero() {
			s.opt.Log.Warn("not pinned any more: the release was revoked", "release", got.Unpinned)
		}
		if a := &asked[i]; a != best && a.Err != nil {
			s.opt.Log.Warn("mirror was not used", "source", a.From.String(), "result", result(a), "reason", verify.Printable(a.Err.Error()))
		}
	}
	report.Source, report.Result = best.From.String(), result(best)
	if best.Err != nil {
		report.Detail = verify.Printable(best.Err.Error())
	}
	if got := best.Synced; got != nil {
		report.Release, report.Number = got.Release, got.Number
		if got.Channel != nil {
			report.Checks = got.Channel.Checks
			if report.Number == 0 && got.Channel.Manifest == got.Release {
				report.Number = got.Channel.Release
			}
		}
		if got.Verdict != nil {
			report.Checks = slices.Concat(report.Checks, got.Verdict.Checks)
		}
		if report.Result == ResultPinned {
			report.Detail = fmt.Sprintf("an operator pinned release %s: release %s was found, and not installed", got.Pinned, got.Release)
		}
	}
	for i := range asked { // the last mirror is not always the one by which it happened
		if got := asked[i].Synced; got != nil && got.Fallback {
			report.Fallback = true
			report.Detail = strings.TrimPrefix(report.Detail+"; ", "; ") + fmt.Sprintf("the release in use was revoked, and the one before, %s, is in use again", got.Live)
		}
	}
}

// result says in one word what a mirror gave.
func result(a *agent.Attempt) string {
	switch err := a.Err; {
	case err == nil && a.Synced.Installed:
		return ResultInstalled
	case err == nil && !a.Synced.Pinned.IsZero():
		return ResultPinned
	case err == nil:
		return ResultCurrent
	case errors.Is(err, agent.ErrRefused), errors.Is(err, oras.ErrInvalid):
		return ResultRefused
	case errors.Is(err, agent.ErrStale):
		return ResultStale
	case errors.Is(err, oras.ErrUnreachable), errors.Is(err, oras.ErrNotFound), errors.Is(err, oras.ErrRefused):
		return ResultUnreachable
	}
	return ResultFailed
}

const (
	firstBackOff = 15 * time.Second // after the first sync that reached no mirror, then twice as long each time, up to the interval
	policyEvery  = 5 * time.Second  // looks whether the policy has changed
	judgeEvery   = time.Minute      // what is installed is judged again, whatever happens
	syncAnswer   = 5 * time.Minute  // how long a client may wait for a sync
)

// pause is how long to wait for the next sync after so many in a row that
// found out nothing.
func pause(interval time.Duration, failures int) time.Duration {
	if failures == 0 {
		return interval
	}
	return min(interval, firstBackOff<<min(failures-1, 16))
}

// keep syncs at once, then on schedule and when the policy has changed, and in
// between judges what is installed again, until ctx ends.
func (s *Server) keep(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		if r := s.Sync(ctx); r != nil && (r.Result == ResultUnreachable || r.Result == ResultFailed) {
			failures++
		} else {
			failures = 0
		}
		s.wait(ctx, jitter(pause(s.opt.Interval, failures)))
	}
}

// wait returns after d, or when the policy has changed.
func (s *Server) wait(ctx context.Context, d time.Duration) {
	next := time.NewTimer(d)
	defer next.Stop()
	look, judge := time.NewTicker(policyEvery), time.NewTicker(judgeEvery)
	defer look.Stop()
	defer judge.Stop()
	for {
		select {
		case <-judge.C:
			s.reload(ctx, nil)
			s.keepHistory()
		case <-look.C:
			if s.policyChanged() {
				s.opt.Log.Info("the policy has changed", "policy", s.opt.Policy)
				s.reload(ctx, nil)
				return
			}
			if s.failing() {
				s.reload(ctx, nil)
			}
		case <-next.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// policyChanged reports whether the policy file is another than when it was
// last looked at to judge by. One that cannot be read is another once.
func (s *Server) policyChanged() bool {
	p, err := verify.LoadPolicy(s.opt.Policy)
	if err != nil {
		p.Digest = canon.Digest{}
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	return p.Digest != s.read
}

// jitter is d, a tenth longer or shorter by chance, so that a fleet does not
// ask all at once.
func jitter(d time.Duration) time.Duration {
	tenth := int64(d) / 10
	return d - time.Duration(tenth) + time.Duration(rand.Int64N(2*tenth+1))
}

// syncNow answers POST /api/models/sync when the sync has ended.
func (s *Server) syncNow(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(syncAnswer))
	ctx, cancel := context.WithTimeout(r.Context(), syncAnswer-10*time.Second)
	defer cancel()
	report := s.Sync(ctx)
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		http.Redirect(w, r, "/#progress", http.StatusSeeOther) // a form without script: the page says what came of it
		return
	}
	status := http.StatusOK
	switch {
	case report == nil:
		problem(w, http.StatusGatewayTimeout, "the sync goes on: GET /api/models will tell its result", nil)
		return
	case report.Success:
		answer(w, report)
		return
	case report.Result == ResultRefused, report.Result == ResultStale:
		status = http.StatusConflict
	case report.Result == ResultUnreachable:
		status = http.StatusBadGateway
	default:
		status = http.StatusInternalServerError
	}
	problem(w, status, report.Detail, map[string]any{
		"result": report.Result, "success": false, "source": report.Source, "release": report.Release, "number": report.Number,
		"live": report.Live, "fallback": report.Fallback, "checks": report.Checks, "started": report.Started, "finished": report.Finished,
	})
}
