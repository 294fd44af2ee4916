package sample

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestRandomIsSplitMix64(t *testing.T) {
	r := random(1234567)
	for i, want := range []uint64{6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821} {
		if got := r.next(); got != want {
			t.Errorf("number %d is %d, want %d", i, got, want)
		}
	}
}

func TestIntegersStayInRange(t *testing.T) {
	r := newRandom("range")
	var seen [7]bool
	for range 1000 {
		n := r.between(-3, 3)
		if n < -3 || n > 3 {
			t.Fatalf("between(-3, 3) = %d", n)
		}
		seen[n+3] = true
	}
	for i, ok := range seen {
		if !ok {
			t.Errorf("%d never came in 1000 draws", i-3)
		}
	}
}

func TestEveryRuleExpands(t *testing.T) {
	r := newRandom("rules")
	for rule := range grammar {
		for range 200 {
			if s := r.text(rule); s == "" || bytes.ContainsAny([]byte(s), "«»\n") {
				t.Fatalf("rule %s gave %q", rule, s)
			}
		}
	}
}

func TestWriteRepeats(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	lines := 0
	for _, f := range Files() {
		x, err := os.ReadFile(filepath.Join(a, f.Name))
		if err != nil {
			t.Fatal(err)
		}
		y, err := os.ReadFile(filepath.Join(b, f.Name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(x, y) {
			t.Errorf("%s differs from one writing to the next", f.Name)
		}
		lines += bytes.Count(x, []byte("\n"))
	}
	if lines < 2500 || lines > 5000 {
		t.Errorf("the sample has %d lines, want 2500 to 5000", lines)
	}
}

func TestWriteSaysWhereItCannot(t *testing.T) {
	if err := Write(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("no error for a directory that is not there")
	}
}
