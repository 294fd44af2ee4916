package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func TestTailGoesOnWithWhatWasJudged(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		ends time.Duration // after the first look that failed
	}{
		{"corrupt", fmt.Errorf("x: %w", agent.ErrCorrupt), 0},
		{"refused", fmt.Errorf("x: %w", agent.ErrRefused), 0},
		{"nothing", fmt.Errorf("x: %w", agent.ErrNothing), 0},
		{"a torn policy", fmt.Errorf("x: %w", verify.ErrPolicy), policyGrace},
		{"no policy", fmt.Errorf("x: %w", fs.ErrNotExist), policyGrace},
		{"a policy of another", fmt.Errorf("x: %w", fs.ErrPermission), policyGrace},
		{"too many files", fmt.Errorf("x: %w", syscall.EMFILE), machineGrace},
	} {
		start := time.Date(2026, 1, 10, 8, 0, 0, 0, time.UTC)
		now, loads := start, 0
		var err error
		var log logText
		j := judgement{
			load:   func() (*agent.Scorer, error) { loads++; return nil, err },
			now:    func() time.Time { return now },
			log:    slog.New(slog.NewTextHandler(&log, nil)),
			looked: start,
		}
		look := func(after time.Duration) error {
			now = now.Add(after)
			_, err := j.again()
			return err
		}
		if err := look(tailJudge - 1); err != nil || loads != 0 {
			t.Errorf("%s: too soon: %d looks, %v", c.name, loads, err)
		}
		// It passes, if it may: as if it had not been.
		err = c.err
		if got := look(1); (got != nil) != (c.ends == 0) || loads != 1 {
			t.Errorf("%s: %d looks, %v", c.name, loads, got)
		}
		if c.ends == 0 {
			continue
		}
		err = nil
		if got := look(tailJudge); got != nil || strings.Count(log.String(), "cannot be judged again") != 1 || !strings.Contains(log.String(), "could be judged again") {
			t.Errorf("%s: it passed: %v\n%s", c.name, got, log.String())
		}
		// It stays.
		err = c.err
		look(tailJudge)
		first := now
		var got error
		for got == nil && now.Sub(first) < time.Hour {
			got = look(tailJudge)
		}
		if !errors.Is(got, c.err) || now.Sub(first) < c.ends || now.Sub(first) >= c.ends+tailJudge {
			t.Errorf("%s: ended after %s: %v", c.name, now.Sub(first), got)
		}
	}
}
