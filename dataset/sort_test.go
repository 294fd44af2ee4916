package dataset

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

func sortRows(t *testing.T, limit int64, rows [][]byte, threads int) (out [][]byte, s *sorter) {
	t.Helper()
	s, err := newSorter(filepath.Join(t.TempDir(), "runs"), limit)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for k := range threads {
		wg.Go(func() {
			for i := k; i < len(rows); i += threads {
				if err := s.add(rows[i], []int{len(rows[i])}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := s.merge(func(row []byte) error {
		out = append(out, bytes.Clone(row))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out, s
}

func TestSorterGivesTheOrderedSetAtAnyMemory(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var rows [][]byte
	for i := range 20_000 {
		row := fmt.Appendf(nil, "%05d", rng.IntN(12_000))
		if i%1000 == 0 {
			row = append(row, bytes.Repeat([]byte{'x'}, maxRow-10)...)
		}
		rows = append(rows, row)
	}
	want := slices.Clone(rows)
	slices.SortFunc(want, bytes.Compare)
	want = slices.CompactFunc(want, bytes.Equal)
	for _, limit := range []int64{1, 5_000, 100_000, 1 << 30} {
		subset, wanted := rows, want
		if limit == 1 {
			// One run per row: more runs than are merged at a time, twice over.
			subset = rows[1:600]
			wanted = slices.Clone(subset)
			slices.SortFunc(wanted, bytes.Compare)
			wanted = slices.CompactFunc(wanted, bytes.Equal)
		}
		for _, threads := range []int{1, 3} {
			got, s := sortRows(t, limit, subset, threads)
			if !slices.EqualFunc(got, wanted, bytes.Equal) {
				t.Fatalf("limit %d: %d rows, want %d", limit, len(got), len(wanted))
			}
			if s.added != int64(len(subset)) || s.same != int64(len(subset)-len(wanted)) {
				t.Errorf("limit %d: added %d, same %d; want %d and %d", limit, s.added, s.same, len(subset), len(subset)-len(wanted))
			}
			if left, _ := os.ReadDir(s.dir); len(left) != 0 {
				t.Errorf("limit %d: %d runs left behind", limit, len(left))
			}
		}
	}
}

func TestSorterReportsADamagedRun(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut":  func(b []byte) []byte { return b[:len(b)-2] },
		"long": func(b []byte) []byte { return append([]byte{0xff, 0xff, 0xff, 0xff, 0x7f}, b...) },
		"gone": nil,
	} {
		s, err := newSorter(t.TempDir(), 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range []string{"b", "a", "c"} {
			if err := s.add([]byte(row), []int{1}); err != nil {
				t.Fatal(err)
			}
		}
		if damage == nil {
			os.Remove(s.runs[1])
		} else {
			b, _ := os.ReadFile(s.runs[1])
			os.WriteFile(s.runs[1], damage(b), 0o600)
		}
		if err := s.merge(func([]byte) error { return nil }); err == nil {
			t.Errorf("%s: merge reports nothing", name)
		}
	}
}

func BenchmarkSorter(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	var chunk []byte
	var ends []int
	for range 4000 {
		row := fmt.Appendf(nil, "\x00\x01%08x some text of ordinary length, as rows have it %d", rng.Uint32(), rng.IntN(10))
		chunk = append(chunk, row...)
		ends = append(ends, len(chunk))
	}
	for b.Loop() {
		s, err := newSorter(b.TempDir(), 1<<30)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.add(chunk, ends); err != nil {
			b.Fatal(err)
		}
		if err := s.merge(func([]byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(ends)*b.N)/b.Elapsed().Seconds(), "rows/s")
}
