package pipeline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/trainer"
)

func matrixPlan(t *testing.T) Plan {
	return Plan{
		Privacy: record.Privacy{Address: record.Full, Redaction: record.Redaction},
		Recipe:  trainer.DefaultRecipe(),
		Out:     filepath.Join(t.TempDir(), "matrix"),
		TempDir: t.TempDir(),
	}
}

// matrixDigests lists the files of a matrix directory, read from the disk.
func matrixDigests(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{MatrixColumns, MatrixCSV, MatrixArrow, MatrixFile} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s\n", canon.Sum(data), name)
	}
	return b.String()
}

func TestSampleGivesTheGoldenMatrix(t *testing.T) {
	ctx := context.Background()
	p := matrixPlan(t)
	r, err := WriteMatrix(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	got := matrixDigests(t, p.Out)
	const path = "testdata/matrix.txt"
	lines := strings.SplitAfter(got, "\n")[:3] // matrix.json holds all of the recipe, also what changes no row
	if *update {
		if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		lines = lines[:2] // Arrow stores values in the order of the machine
	}
	for _, line := range lines {
		if !strings.Contains(string(want), line) {
			t.Errorf("the matrix of the sample has\n%swant\n%sIf the change is meant, run with -update.", line, want)
		}
	}

	if again := listing(t, filepath.Dir(p.Out)); len(again) != 4 {
		t.Errorf("left behind: %v", again)
	}
	var m Matrix
	b, err := os.ReadFile(filepath.Join(p.Out, MatrixFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := canon.UnmarshalCanonical(b, &m); err != nil {
		t.Fatal(err)
	}
	if m.Dataset != r.Matrix.Dataset || m.Rows != r.Counts.Used+r.Counts.Derived || m.Derived != r.Counts.Derived || m.Derived == 0 || m.Parts.Training+m.Parts.Validation+m.Parts.Test != m.Rows || m.Recipe.AsOf == 0 {
		t.Errorf("%s says %+v", MatrixFile, m)
	}
	for _, f := range m.Files {
		data, err := os.ReadFile(filepath.Join(p.Out, f.Name))
		if err != nil || int64(len(data)) != f.Size || canon.Sum(data) != f.Digest {
			t.Errorf("%s: %v; %d bytes, %s, but %s lists %+v", f.Name, err, len(data), canon.Sum(data), MatrixFile, f)
		}
	}

	// The same rows from a finished snapshot, with other threads.
	from := p
	from.Snapshot = filepath.Join(t.TempDir(), "snapshot")
	if _, err := Snapshot(ctx, p, from.Snapshot); err != nil {
		t.Fatal(err)
	}
	from.Out, from.Workers = filepath.Join(t.TempDir(), "matrix"), 5
	if r, err = WriteMatrix(ctx, from); err != nil {
		t.Fatal(err)
	}
	if r.Inputs != nil {
		t.Error("a matrix of a snapshot reports inputs")
	}
	if other := matrixDigests(t, from.Out); other != got {
		t.Errorf("from a snapshot:\n%swant\n%s", other, got)
	}
	narrow := from
	narrow.Out = filepath.Join(t.TempDir(), "matrix")
	narrow.Recipe.WindowDays = 1
	if _, err := WriteMatrix(ctx, narrow); err != nil {
		t.Fatal(err)
	}
	if matrixDigests(t, narrow.Out) == got {
		t.Error("another window gives the same files: the test proves nothing")
	}
}

func TestMatrixAppearsWholeOrNotAtAll(t *testing.T) {
	p := matrixPlan(t)
	taken := p
	taken.Out = t.TempDir()
	if err := os.WriteFile(filepath.Join(taken.Out, "mine"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	taken.Progress = func(stage string, _, _ int64) { t.Errorf("started %s", stage) }
	if _, err := WriteMatrix(context.Background(), taken); !errors.Is(err, ErrOutput) {
		t.Errorf("an output directory with something else: %v", err)
	}
	bad := p
	bad.Recipe.WindowDays = 0
	if _, err := WriteMatrix(context.Background(), bad); !errors.Is(err, trainer.ErrRecipe) {
		t.Errorf("a recipe out of bounds: %v", err)
	}
	gone := p
	gone.Snapshot = filepath.Join(t.TempDir(), "nowhere")
	if _, err := WriteMatrix(context.Background(), gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no snapshot: %v", err)
	}
	rows := filepath.Join(t.TempDir(), "bad.jsonl")
	if err := os.WriteFile(rows, []byte("{}\n{]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	poor := p
	poor.Inputs = []dataset.Input{{Source: "attacks", Path: rows}}
	if r, err := WriteMatrix(context.Background(), poor); !errors.Is(err, dataset.ErrTooManyBad) || r == nil || r.Inputs == nil {
		t.Errorf("bad rows: %v, %+v", err, r)
	}
	var stages []string
	for _, at := range []string{"read", "rows", "features", "arrow", "csv"} {
		ctx, cancel := context.WithCancel(context.Background())
		ended := p
		ended.Progress = func(stage string, _, _ int64) {
			if !slices.Contains(stages, stage) {
				stages = append(stages, stage)
			}
			if stage == at {
				cancel()
			}
		}
		if _, err := WriteMatrix(ctx, ended); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled while %s: %v", at, err)
		}
		cancel()
	}
	if len(stages) < 5 {
		t.Errorf("progress tells of %q", stages)
	}
	for _, dir := range []string{filepath.Dir(p.Out), p.TempDir} {
		if left := listing(t, dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}
