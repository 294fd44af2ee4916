package server

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestChart draws what was scored at known times.
func TestChart(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 7, 0, time.UTC)
	h := newHub()
	names := []string{"benign", "a", "b", "c", "d", "e", "f"}
	add := func(ago time.Duration, classes ...int64) {
		y := &tally{names: names, Classes: classes, AnomalyMax: 0.5}
		for _, n := range classes {
			y.Scored += n
		}
		y.AnomalySum = 0.25 * float64(y.Scored)
		h.remember(y, now.Add(-ago))
	}
	add(20*time.Minute, 1000) // long ago: not drawn
	add(9*time.Minute+50*time.Second, 5)
	add(11*time.Second, 10, 20, 0, 0, 0, 0, 0)
	add(9*time.Second, 0, 0, 8) // the same column
	add(0, 1, 1, 1, 4, 3, 2, 1)
	if n := len(h.spans); n != 3 {
		t.Errorf("%d spans are kept", n)
	}
	c := draw(h.lately(now), now)
	if c.Rows != 56 || c.Most != 50 || c.Half != "25" {
		t.Errorf("%+v", c)
	}
	var keys []string
	for _, k := range c.Key {
		keys = append(keys, k.Color+" "+k.Class)
	}
	if got, want := strings.Join(keys, ", "), "benign benign, attack1 a, attack2 b, attack3 c, attack4 d, other other attacks"; got != want {
		t.Errorf("key %q, want %q", got, want)
	}
	for _, want := range []block{
		{"benign", "1.00", "90.00", "8", "10.00"},   // 5 of 50, at the left end
		{"benign", "581.00", "80.00", "8", "20.00"}, // 10 of 50
		{"attack1", "581.00", "40.00", "8", "40.00"},
		{"attack2", "581.00", "24.00", "8", "16.00"},
		{"other", "591.00", "74.00", "8", "6.00"}, // e and f, on top
	} {
		if !strings.Contains(fmt.Sprint(c.Blocks), fmt.Sprint(want)) {
			t.Errorf("no %v in %v", want, c.Blocks)
		}
	}
	if got, want := fmt.Sprint(c.Scores[:2]), fmt.Sprint([]block{{"mean", "1.00", "75.00", "8", "25.00"}, {"highest", "1.00", "49.00", "8", "2"}}); got != want {
		t.Errorf("scores %s, want %s", got, want)
	}
	if m := c.Minutes; len(m) != 3 || m[0].Rows != 13 || m[1].Rows != 38 || m[1].Mean != "0.25" || m[1].Highest != "0.50" || m[1].By[0] != (bar{"a", 20}) || m[2].At.Format("15:04") != "11:50" {
		t.Errorf("minutes %+v", m)
	}
	// Later it has moved out of sight, and the axis is small again.
	if c := draw(h.lately(now.Add(10*time.Minute)), now.Add(10*time.Minute)); c.Rows != 0 || len(c.Blocks) != 0 || c.Most != 1 || c.Half != "0.5" {
		t.Errorf("ten minutes later: %+v", c)
	}
	// However much is scored, it stays as small.
	for i := range 100 * columns {
		h.remember(&tally{Scored: 1}, now.Add(time.Duration(i)*columnTime))
	}
	if n := len(h.spans); n > columns {
		t.Errorf("%d spans are kept", n)
	}
	for n, want := range map[int64]int64{1: 1, 2: 2, 3: 5, 6: 10, 11: 20, 50: 50, 51: 100, 1 << 62: 5e18} {
		if got := roundUp(n); got != want {
			t.Errorf("roundUp(%d) = %d", n, got)
		}
	}
}
