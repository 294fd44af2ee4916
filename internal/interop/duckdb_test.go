package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
	"github.com/battle-hardened-ai/bhtrain/trainer"
)

// tally is what duckdb.js says of a matrix directory; numbers are text.
type tally struct {
	Rows    string `json:"rows"`
	Columns []struct {
		Name string `json:"name"`
		Type string `json:"type"`
	} `json:"columns"`
	Described []string   `json:"described"`
	Groups    [][]string `json:"groups"` // class, part, source, derived, rows, sum of weights
	Sums      []string   `json:"sums"`   // by feature
	Fractions []string   `json:"fractions"`
}

func duckdb(t *testing.T, dirs ...string) []tally {
	t.Helper()
	out, err := testkit.Node(t, filepath.Join("testdata", "duckdb.js"), nil, dirs...)
	if err != nil {
		t.Fatal(err)
	}
	var list []tally
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != len(dirs) {
		t.Fatalf("%d directories read, want %d", len(list), len(dirs))
	}
	return list
}

// compare says where DuckDB sees another matrix than m.
func (got *tally) compare(m *trainer.Matrix) error {
	if want := strconv.Itoa(len(m.Rows)); got.Rows != want {
		return fmt.Errorf("%s rows, want %s", got.Rows, want)
	}
	var names []string
	for i, c := range got.Columns {
		names = append(names, c.Name)
		number := c.Type == "BIGINT" || c.Type == "DOUBLE"
		if text := i == 2 || i == 4 || i == 6; text && c.Type != "VARCHAR" || !text && !number {
			return fmt.Errorf("column %s is of type %s", c.Name, c.Type)
		}
	}
	if len(names) != 9+m.Dim || !slices.Equal(names, got.Described) {
		return fmt.Errorf("columns %q, described as %q", names, got.Described)
	}
	type key struct{ class, part, source, derived string }
	counts := map[key][2]int64{}
	sums := make([]int64, m.Dim)
	for i, r := range m.Rows {
		k := key{"", r.Part.String(), m.Sources[r.Source], "0"}
		if r.Derived {
			k.derived = "1"
		}
		if r.Class >= 0 {
			k.class = m.Classes[r.Class]
		}
		counts[k] = [2]int64{counts[k][0] + 1, counts[k][1] + int64(r.Weight)}
		id := r.Record
		if r.Exploit != 0 {
			id = r.Exploit - 1
		}
		for c, x := range m.X[i*m.Dim : (i+1)*m.Dim] {
			if x != float32(int32(x)) {
				return fmt.Errorf("feature %d of row %d is %v, not a whole number", c, i, x)
			}
			sums[c] += int64(x) * (id%997 + 1)
		}
	}
	var groups [][]string
	for k, n := range counts {
		groups = append(groups, []string{k.class, k.part, k.source, k.derived, fmt.Sprint(n[0]), fmt.Sprint(n[1])})
	}
	slices.SortFunc(groups, slices.Compare)
	if !reflect.DeepEqual(got.Groups, groups) {
		return fmt.Errorf("rows and weights by class, part and source are %q, want %q", got.Groups, groups)
	}
	for c, sum := range sums {
		if got.Sums[c] != fmt.Sprint(sum) || got.Fractions[c] != "0" {
			return fmt.Errorf("sum over %s is %s with %s fractions, want %d", names[9+c], got.Sums[c], got.Fractions[c], sum)
		}
	}
	return nil
}

// DuckDB reads the CSV of the matrix without being told anything about it: its
// rows, columns, labels, weights and values are ours.
func TestDuckDBReadsTheMatrix(t *testing.T) {
	each(t, func(t *testing.T, r *release) {
		got := duckdb(t, r.written)[0]
		if err := got.compare(r.matrix); err != nil {
			t.Error(err)
		}
		t.Logf("%s rows, %d columns, %d groups", got.Rows, len(got.Columns), len(got.Groups))
	})
}

func TestDuckDBNoticesAMissingRow(t *testing.T) {
	r := sample(t)
	whole, err := os.ReadFile(filepath.Join(r.written, pipeline.MatrixCSV))
	if err != nil {
		t.Fatal(err)
	}
	described, err := os.ReadFile(filepath.Join(r.written, pipeline.MatrixColumns))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	lines = lines[:len(lines)-1] // behind the last line feed is nothing
	first, second := lines[1], lines[2]
	digit := bytes.Clone(whole)
	digit[len(digit)-2] ^= 1 // '0' and '1', '2' and '3', …
	cases := []struct {
		what, err string
		csv       []byte
	}{
		{"as it should be", "", whole},
		{"in another order", "", bytes.Join(append([][]byte{lines[0], second, first}, lines[3:]...), nil)},
		{"without its last row", "rows, want", bytes.Join(lines[:len(lines)-1], nil)},
		{"with a row twice instead of another", "want", bytes.Join(append([][]byte{lines[0], first, first}, lines[3:]...), nil)},
		{"with another last digit", "sum over", digit},
		{"with another part", "by class, part and source", bytes.Replace(whole, []byte(",training,"), []byte(",test,"), 1)},
		{"with another name of a column", "described as", bytes.Replace(whole, []byte(",payload_length,"), []byte(",length,"), 1)},
	}
	var dirs []string
	for _, c := range cases {
		dir := t.TempDir()
		for name, data := range map[string][]byte{pipeline.MatrixCSV: c.csv, pipeline.MatrixColumns: described} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		dirs = append(dirs, dir)
	}
	for i, got := range duckdb(t, dirs...) {
		c := cases[i]
		err := got.compare(r.matrix)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("a matrix %s: %v, want %q", c.what, err, c.err)
		}
	}
}
