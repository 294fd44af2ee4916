package trainer

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
)

// smallMatrix has one row of each sort, with values that are hard to write.
func smallMatrix() *Matrix {
	m := &Matrix{Dim: feature.Dim, Classes: []string{"xss", "benign"}, Sources: sources}
	m.Rows = []Row{
		{Exploit: 51000, Weight: 4096, Part: Training, Class: 0, Bad: -1},
		{Record: 0, Weight: 1, Source: 2, Part: Validation, Class: 1, Bad: 0},
		{Record: 9, Weight: 77, Source: 1, Part: Test, Class: -1, Bad: 1},
		{Record: 3, Weight: 2048, Source: 5, Derived: true, Part: Training, Class: 0, Bad: -1},
	}
	m.X = make([]float32, len(m.Rows)*m.Dim)
	copy(m.X, []float32{
		0, 1, 15, 16777215, 16777216, 1e9, math.MaxFloat32, math.SmallestNonzeroFloat32, 0.1, -0.1, -3, 2.5, 1.0 / 3,
		float32(math.Inf(1)), float32(math.Inf(-1)), math.Float32frombits(1 << 31),
	})
	for i := range m.X[m.Dim:] {
		m.X[m.Dim+i] = float32(i)
	}
	return m
}

func TestMatrixCSVReadsBackExactly(t *testing.T) {
	m := smallMatrix()
	var out bytes.Buffer
	if err := m.WriteCSV(context.Background(), &out, Options{}); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(bytes.NewReader(out.Bytes())).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 1+len(m.Rows) {
		t.Fatalf("%d lines, want %d", len(lines), 1+len(m.Rows))
	}
	for i, c := range MatrixColumns() {
		if lines[0][i] != c.Name {
			t.Errorf("column %d is %q, want %q", i, lines[0][i], c.Name)
		}
	}
	for i, want := range [][]string{
		{"51000", "-1", "exploitdb", "0", "training", "4096", "xss", "0", "-1"},
		{"0", "0", "attacks", "0", "validation", "1", "benign", "1", "0"},
		{"0", "9", "access", "0", "test", "77", "", "-1", "1"},
		{"0", "3", "labelled", "1", "training", "2048", "xss", "0", "-1"},
	} {
		if got := lines[1+i][:len(want)]; !slices.Equal(got, want) {
			t.Errorf("row %d begins %q, want %q", i, got, want)
		}
		for k, text := range lines[1+i][len(want):] {
			x := m.row(int32(i))[k]
			v, err := strconv.ParseFloat(text, 32)
			if err != nil || math.Float32bits(float32(v)) != math.Float32bits(x) {
				t.Errorf("row %d, feature %d: %q reads back as %v, want %v", i, k, text, v, x)
			}
			if short := strconv.FormatFloat(float64(x), 'f', -1, 32); text != short {
				t.Errorf("%q is not the shortest text of %v, %q", text, x, short)
			}
		}
	}
}

func TestMatrixCSVRefusesNamesThatNeedQuotes(t *testing.T) {
	m := smallMatrix()
	m.Classes = []string{"a,b", "benign"}
	if err := m.WriteCSV(context.Background(), new(bytes.Buffer), Options{}); err == nil {
		t.Error("a class with a comma is accepted")
	}
}

// fullAfter fails once n bytes are written.
type fullAfter struct{ n int }

var errNoSpace = errors.New("no space")

func (w *fullAfter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errNoSpace
	}
	return len(p), nil
}

func TestMatrixWritingStops(t *testing.T) {
	m := smallMatrix()
	done, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		room int
		want error
	}{
		{"when its context is done", done, 1 << 30, context.Canceled},
		{"when nothing can be written", context.Background(), 0, errNoSpace},
		{"when the end cannot be written", context.Background(), 2500, errNoSpace},
	} {
		if err := m.WriteCSV(c.ctx, &fullAfter{c.room}, Options{}); !errors.Is(err, c.want) {
			t.Errorf("CSV %s: %v", c.name, err)
		}
		if err := m.WriteArrow(c.ctx, &fullAfter{c.room}, nil, Options{}); !errors.Is(err, c.want) {
			t.Errorf("Arrow %s: %v", c.name, err)
		}
	}
}

func TestMatrixColumnsAreDescribed(t *testing.T) {
	columns := MatrixColumns()
	if len(columns) != len(rowColumns)+feature.Dim {
		t.Errorf("%d columns, want %d", len(columns), len(rowColumns)+feature.Dim)
	}
	seen := map[string]bool{}
	for i, c := range columns {
		if c.Name == "" || seen[c.Name] || strings.ContainsAny(c.Name, ",\"\n") {
			t.Errorf("column %d has the name %q", i, c.Name)
		}
		seen[c.Name] = true
		if c.Doc == "" || c.Group == "" || i >= len(rowColumns) && (c.Models == "" || c.Unit == "" || c.Max < 1) {
			t.Errorf("column %s is not described: %+v", c.Name, c)
		}
	}
	lines, err := csv.NewReader(bytes.NewReader(MatrixColumnsCSV())).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 1+len(columns) {
		t.Fatalf("%d lines, want %d", len(lines), 1+len(columns))
	}
	for i, c := range columns {
		if l := lines[1+i]; l[0] != strconv.Itoa(i) || l[1] != c.Name || l[2] != c.Type.String() || l[7] != c.Doc {
			t.Errorf("column %d is described as %q", i, l)
		}
	}
}
