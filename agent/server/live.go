package server

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// loaded is a release that records are scored with. It does not change.
type loaded struct {
	*agent.Scorer
	class map[string]int // index of each class in the order of the release
	since time.Time
}

// Status is what a server has loaded and why, or why not.
type Status struct {
	State    agent.State     `json:"state"`
	Reason   string          `json:"reason"`           // why State is not current; "" else
	Loaded   bool            `json:"loaded"`           // records can be scored
	Since    time.Time       `json:"since,omitzero"`   // when it was loaded
	Checked  time.Time       `json:"checked,omitzero"` // when it was judged last
	LastSync *Report         `json:"last_sync"`        // null before the first
	Release  *Release        `json:"release"`          // that is installed, in use or not; null when nothing is, or it is damaged
	Verdict  *verify.Verdict `json:"verdict"`          // of what is installed, judged at Checked; null when nothing is
	Previous canon.Digest    `json:"previous"`         // installed before; "" for none
	Pinned   canon.Digest    `json:"pinned"`           // that an operator decided to stay with; "" for none
	Source   string          `json:"source"`           // where the installed release came from
	Policy   canon.Digest    `json:"policy"`           // SHA-256 of the policy's text

	Decisions []agent.Decision `json:"decisions"` // about the live release, the newest last
}

// load replaces what is loaded by next, or by nothing.
func (s *Server) load(next *agent.Scorer, now time.Time) {
	old := s.live.Load()
	switch {
	case next == nil && old == nil:
		return
	case next == nil:
		s.live.Store(nil)
		s.opt.Log.Warn("unloaded", "digest", old.Release().Digest)
		return
	case old != nil && old.Release().Digest == next.Release().Digest:
		return
	}
	l := &loaded{Scorer: next, class: map[string]int{}, since: now}
	for i, name := range next.Classes() {
		l.class[name] = i
	}
	s.live.Store(l)
	s.opt.Log.Info("loaded", "product", next.Release().Release.Product, "release", next.Release().Release.Number, "digest", next.Release().Digest)
}

// How long a release that is loaded goes on being used while it cannot be
// judged again, for reasons that say nothing about it.
const (
	policyGrace  = 15 * time.Second // the policy is missing or not valid: somebody may be writing it
	machineGrace = 10 * time.Minute // this machine cannot read its files, such as when it has too many open

	// The trusted root that TUF published cannot be had any more: what was kept
	// of it has expired, and nobody answers.
	rootGrace = 7 * 24 * time.Hour
)

// reload judges what is installed by the policy of this moment, and loads or
// unloads it. report is that of the sync just made, or nil. A state that is
// damaged unloads at once. A policy that cannot be read, or files that cannot,
// unload what was judged before only if they stay so.
func (s *Server) reload(ctx context.Context, report *Report) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	now := s.opt.Now()
	old := s.status.Load()
	st := &Status{State: agent.StateNone, Checked: now, LastSync: old.LastSync}
	if report != nil {
		st.LastSync = report
	}
	scorer, err := s.judge(ctx, st)
	if ctx.Err() != nil {
		return // nothing was found out
	}
	if s.staysLoaded(err, now) {
		kept := *old
		kept.State, kept.Reason = agent.StateStale, "cannot be judged again: "+verify.Printable(err.Error())
		kept.LastSync = st.LastSync
		st = &kept
	} else {
		if err != nil {
			st.Reason = verify.Printable(err.Error())
			st.State = agent.StateRefused
			if errors.Is(err, agent.ErrNothing) {
				st.State = agent.StateNone
			}
		}
		s.load(scorer, now)
	}
	if live := s.live.Load(); live != nil {
		st.Loaded, st.Since = true, live.since
		if report != nil {
			report.Live = Live{live.Release().Digest, live.Release().Release.Number}
		}
		if st.LastSync != nil && st.LastSync.Result == ResultUnreachable && st.State == agent.StateCurrent {
			st.State, st.Reason = agent.StateOffline, st.LastSync.Detail
		}
	}
	s.status.Store(st)
	s.metrics.state(st, s.live.Load())
	if old.State != st.State || old.Reason != st.Reason || report != nil || releaseDigest(old) != releaseDigest(st) {
		s.events.send("status", st)
	}
	if old.State != st.State {
		if report == nil && !old.Checked.IsZero() {
			h := agent.Happening{Time: now, What: string(st.State), Good: st.Loaded, Detail: st.Reason}
			if st.Verdict != nil {
				h.Digest, h.Number = st.Verdict.Release, st.Verdict.Number
			}
			s.note(h)
		}
		level := slog.LevelInfo
		if !st.Loaded || st.State != agent.StateCurrent && st.State != agent.StatePinned {
			level = slog.LevelWarn
		}
		s.opt.Log.Log(ctx, level, "state", "state", st.State, "was", old.State, "reason", st.Reason)
	}
}

// staysLoaded reports whether what is loaded may go on being used although
// err kept it from being judged at the time now. s.reloading is held.
func (s *Server) staysLoaded(err error, now time.Time) bool {
	if err == nil || s.live.Load() == nil || errors.Is(err, agent.ErrCorrupt) || errors.Is(err, agent.ErrRefused) || errors.Is(err, agent.ErrNothing) {
		s.unjudged = time.Time{}
		return false
	}
	if s.unjudged.IsZero() {
		s.unjudged = now
	}
	grace := machineGrace
	another := !s.read.IsZero() && s.read != s.status.Load().Policy
	if another || errors.Is(err, verify.ErrPolicy) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		grace = policyGrace
	}
	return now.Sub(s.unjudged) < grace
}

// failing reports whether the last judgement could not be made.
func (s *Server) failing() bool {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	return !s.unjudged.IsZero()
}

// judge fills st with what is installed, and returns a Scorer of it if it may
// be used. For rootGrace after the trusted root can no longer be had, the one that
// this policy was last read with judges what is installed, though nothing new:
// silence alone must not disarm a server. s.reloading is held.
func (s *Server) judge(ctx context.Context, st *Status) (*agent.Scorer, error) {
	p, err := verify.LoadPolicy(s.opt.Policy)
	s.read = p.Digest
	if err != nil {
		s.read = canon.Digest{}
		return nil, err
	}
	v, rootless := s.opt.Agent.Trust(ctx, p, true)
	switch {
	case rootless == nil:
		s.trust, s.trusted = v, st.Checked
	case p.TUF != nil && s.trust != nil && s.trust.Policy().Digest == p.Digest && st.Checked.Sub(s.trusted) < rootGrace:
		v = s.trust
	default:
		return nil, rootless
	}
	st.Policy = p.Digest
	in, err := s.opt.Agent.Status(ctx, v, st.Checked)
	if err != nil {
		return nil, err
	}
	st.State, st.Reason = in.State, in.Reason
	st.Verdict, st.Previous, st.Pinned, st.Source, st.Decisions = in.Verdict, in.Previous, in.Pinned, in.Source, in.Decisions
	if !in.Loadable() {
		if stored, err := s.opt.Agent.Stored(ctx, in.Verdict.Release); err == nil {
			st.Release = describe(stored)
		}
		return nil, nil
	}
	scorer, err := in.Scorer()
	if err != nil {
		return nil, err
	}
	st.Release = describe(scorer.Release())
	st.Release.InUse = true
	if rootless != nil {
		st.State, st.Reason = agent.StateStale, verify.Printable(rootless.Error())
	}
	return scorer, nil
}

func releaseDigest(st *Status) canon.Digest {
	if st.Release == nil {
		return canon.Digest{}
	}
	return st.Release.Digest
}
