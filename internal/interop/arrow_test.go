package interop

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
	"github.com/battle-hardened-ai/bhtrain/trainer"
)

// table is what an Arrow file holds, and with it what arrow.js says of one.
type table struct {
	Rows     int               `json:"rows"`
	Metadata map[string]string `json:"metadata"`
	Columns  []struct {
		Name     string `json:"name"`
		Type     string `json:"type"`
		Nullable bool   `json:"nullable"`
		Nulls    int    `json:"nulls"`
	} `json:"columns"`
	Values [][]string `json:"values"`
}

// facts are what an Arrow file should hold: columns as "name Type", and rows.
type facts struct {
	rows     int
	columns  string
	metadata map[string]string // these, perhaps more
	values   map[int][]string  // by position
}

// shown are the positions of the rows that are compared: the ends, both sides
// of every border of a batch, and some in between.
func shown(rows int) []int {
	var at []int
	for i := range rows {
		border := i % dataset.BatchRows
		if i == rows-1 || border == 0 || border == dataset.BatchRows-1 || i%499 == 7 {
			at = append(at, i)
		}
	}
	return at
}

// tables reads Arrow files; each shows the rows of its facts.
func tables(t *testing.T, paths []string, want []*facts) ([]table, error) {
	t.Helper()
	type job struct {
		Path string `json:"path"`
		Show []int  `json:"show"`
	}
	var jobs []job
	for i, path := range paths {
		jobs = append(jobs, job{path, want[i].positions()})
	}
	in, err := json.Marshal(jobs)
	if err != nil {
		t.Fatal(err)
	}
	out, err := testkit.Node(t, filepath.Join("testdata", "arrow.js"), in)
	if err != nil {
		return nil, err
	}
	var list []table
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	return list, nil
}

func (f *facts) positions() []int {
	at := make([]int, 0, len(f.values))
	for i := range f.values {
		at = append(at, i)
	}
	slices.Sort(at)
	return at
}

// compare says where a table is not what it should be.
func (f *facts) compare(got *table) error {
	if got.Rows != f.rows {
		return fmt.Errorf("%d rows, want %d", got.Rows, f.rows)
	}
	var columns []string
	for _, c := range got.Columns {
		columns = append(columns, c.Name+" "+c.Type)
		if c.Nullable || c.Nulls > 0 {
			return fmt.Errorf("column %s has %d nulls, or may have some", c.Name, c.Nulls)
		}
	}
	if s := strings.Join(columns, ", "); s != f.columns {
		return fmt.Errorf("columns %s, want %s", s, f.columns)
	}
	for key, value := range f.metadata {
		if got.Metadata[key] != value {
			return fmt.Errorf("metadata %s is %q, want %q", key, got.Metadata[key], value)
		}
	}
	for i, at := range f.positions() {
		for k, want := range f.values[at] {
			if got.Values[i][k] != want {
				return fmt.Errorf("row %d: %s is %q, want %q", at, got.Columns[k].Name, got.Values[i][k], want)
			}
		}
		if len(got.Values[i]) != len(f.values[at]) {
			return fmt.Errorf("row %d has %d values, want %d", at, len(got.Values[i]), len(f.values[at]))
		}
	}
	return nil
}

const (
	exploitColumns = "id Int64, layout Int32, file Utf8, title Utf8, author Utf8, type Utf8, platform Utf8, port Int32, " +
		"published Int64, added Int64, updated Int64, verified Int32, codes Utf8, tags Utf8"
	recordColumns = "site Utf8, time Int64, address Utf8, kind Utf8, event Utf8, protocol Utf8, port Int32, method Utf8, payload Utf8, " +
		"agent Utf8, referer Utf8, user Utf8, status Int32, size Int64, outcome Int32, label Utf8, level Int32, exploit Int64"
)

// texts renders values as arrow.js does.
func texts(values ...any) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = fmt.Sprint(v)
	}
	return out
}

// ofSnapshot returns the facts of the exploits and of the records of a snapshot.
func ofSnapshot(t *testing.T, dir string) (exploits, records *facts) {
	t.Helper()
	ctx := context.Background()
	s, err := dataset.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	both := []*facts{{columns: exploitColumns}, {columns: recordColumns}}
	for i, m := range s.Manifest().Tables {
		both[i].rows = int(m.Rows)
		both[i].metadata = map[string]string{"bhtrain.format": "1", "bhtrain.schema": "1", "bhtrain.table": m.Name}
		both[i].values = map[int][]string{}
		for _, at := range shown(int(m.Rows)) {
			both[i].values[at] = nil
		}
	}
	exploits, records = both[0], both[1]
	at := 0
	for e, err := range s.Exploits(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := exploits.values[at]; ok {
			layout := map[int32]int{17: 1, 8: 2}[e.Columns]
			exploits.values[at] = texts(e.ID, layout, e.File, e.Title, e.Author, e.Type, e.Platform, e.Port,
				e.Published, e.Added, e.Updated, e.Verified, e.Codes, e.Tags)
		}
		at++
	}
	at = 0
	for r, err := range s.Records(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := records.values[at]; ok {
			records.values[at] = texts(r.Site, r.Time, r.Address, r.Kind, r.Event, r.Protocol, r.Port, r.Method, r.Payload,
				r.Agent, r.Referer, r.User, r.Status, r.Size, int(r.Outcome), r.Label, int(r.Level), r.Exploit)
		}
		at++
	}
	return exploits, records
}

// ofMatrix returns the facts of a written matrix.
func ofMatrix(t *testing.T, dir string, m *trainer.Matrix) *facts {
	t.Helper()
	f := &facts{rows: len(m.Rows), metadata: map[string]string{"bhtrain.table": "matrix"}, values: map[int][]string{}}
	file, err := os.Open(filepath.Join(dir, pipeline.MatrixColumns))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	described, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]string{"utf8": "Utf8", "int32": "Int32", "int64": "Int64", "float32": "Float32"}
	var columns []string
	for _, c := range described[1:] {
		columns = append(columns, c[1]+" "+types[c[2]])
	}
	f.columns = strings.Join(columns, ", ")
	for _, at := range shown(len(m.Rows)) {
		r := &m.Rows[at]
		record, derived, class := r.Record, 0, ""
		if r.Derived {
			derived = 1
		}
		if r.Exploit != 0 {
			record = -1
		}
		if r.Class >= 0 {
			class = m.Classes[r.Class]
		}
		row := texts(r.Exploit, record, m.Sources[r.Source], derived, r.Part, r.Weight, class, r.Class, r.Bad)
		for _, x := range m.X[at*m.Dim : (at+1)*m.Dim] {
			row = append(row, strconv.FormatFloat(float64(x), 'f', -1, 64))
		}
		f.values[at] = row
	}
	return f
}

// Another Arrow library opens the tables of a snapshot and the matrix: row
// counts, columns and values are ours.
func TestArrowOpensEveryTable(t *testing.T) {
	each(t, func(t *testing.T, r *release) {
		exploits, records := ofSnapshot(t, r.snapshot)
		want := []*facts{exploits, records, ofMatrix(t, r.written, r.matrix)}
		paths := []string{
			filepath.Join(r.snapshot, "exploits.arrow"), filepath.Join(r.snapshot, "records.arrow"),
			filepath.Join(r.written, pipeline.MatrixArrow),
		}
		got, err := tables(t, paths, want)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if err := want[i].compare(&got[i]); err != nil {
				t.Errorf("%s: %v", filepath.Base(paths[i]), err)
			}
			t.Logf("%-14s %6d rows, %3d columns, %d rows compared", filepath.Base(paths[i]), got[i].Rows, len(got[i].Columns), len(want[i].values))
		}
	})
}

func TestArrowNoticesAMissingRow(t *testing.T) {
	r := sample(t)
	_, records := ofSnapshot(t, r.snapshot)
	matrix := ofMatrix(t, r.written, r.matrix)

	// A snapshot without one of its input files.
	inputs, err := dataset.SampleInputs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	fewer := filepath.Join(t.TempDir(), "fewer")
	if _, err := dataset.Build(context.Background(), dataset.Config{Inputs: inputs[:len(inputs)-1]}, fewer); err != nil {
		t.Fatal(err)
	}
	// A matrix without its last row, and one with another value.
	write := func(change func(*trainer.Matrix)) string {
		m := *r.matrix
		m.X = slices.Clone(m.X)
		change(&m)
		path := filepath.Join(t.TempDir(), pipeline.MatrixArrow)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.WriteArrow(context.Background(), f, map[string]string{"bhtrain.table": "matrix"}, trainer.Options{}); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	last := len(r.matrix.Rows) - 1
	for _, c := range []struct {
		what, path, err string
		want            *facts
	}{
		{"a snapshot without a file", filepath.Join(fewer, "records.arrow"), "rows, want", records},
		{"a matrix as it should be", write(func(*trainer.Matrix) {}), "", matrix},
		{"a matrix without its last row", write(func(m *trainer.Matrix) { m.Rows = m.Rows[:last] }), "rows, want", matrix},
		{"a matrix with another value", write(func(m *trainer.Matrix) { m.X[len(m.X)-1]++ }), "row " + strconv.Itoa(last), matrix},
		{"another table", filepath.Join(r.snapshot, "exploits.arrow"), "rows, want", matrix},
	} {
		want := *c.want
		if c.err == "rows, want" {
			want.values = nil // rows that are asked for are not there
		}
		got, err := tables(t, []string{c.path}, []*facts{&want})
		if err != nil {
			t.Fatal(err)
		}
		if err := want.compare(&got[0]); c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", c.what, err, c.err)
		}
	}
}
