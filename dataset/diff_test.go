package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

func TestDiff(t *testing.T) {
	exploits, records := manyRows(600)
	open := func(exploits, records [][]byte) *Snapshot {
		s, err := Open(snapshotOf(t, exploits, records).write(t, t.TempDir()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	changed := Exploit{ID: 5, Columns: 8, Type: "webapps", Published: NoDate, Added: NoDate, Updated: NoDate}
	fresh := record.Record{Site: "zulu", Time: record.NoTime, Kind: record.SSHD, Label: "brute_force"}
	a := open(exploits, records)
	e, r := slices.Clone(exploits), slices.Clone(records)
	e[2] = changed.AppendRow(nil)
	e = slices.Delete(e, 590, 600)
	r = append(slices.Delete(r, 0, 3), fresh.AppendRow(nil))
	b := open(e, r)

	var told []string
	d, err := Diff(context.Background(), a, b, func(table string, row []byte, added bool) error {
		text, err := RowJSON(table, row)
		told = append(told, fmt.Sprintf("%s %t %s", table, added, text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []TableDifference{
		{Name: "exploits", From: 600, To: 590, Added: 1, Removed: 11, Changed: 1},
		{Name: "records", From: 600, To: 598, Added: 1, Removed: 3},
	}
	groups := []GroupDifference{
		{Table: "exploits", Source: "17 columns", Removed: 11},
		{Table: "exploits", Source: "8 columns", Class: "webapps", Added: 1},
		{Table: "records", Source: "access", Removed: 3},
		{Table: "records", Source: "sshd", Class: "brute_force", Added: 1},
	}
	if !slices.Equal(d.Tables, want) || !slices.Equal(d.Groups, groups) || d.Equal() || d.From != a.Digest() || d.To != b.Digest() {
		t.Errorf("%+v", d)
	}
	if len(told) != 16 || told[0] != `exploits false {"columns":17,"id":5,"title":"Larkspur 2"}` || told[1] != `exploits true {"columns":8,"id":5,"type":"webapps"}` ||
		!strings.HasPrefix(told[12], `records false {"kind":"access","timestamp":"2023-11-14T22:13:20.000000Z"`) {
		t.Errorf("%d rows told: %q", len(told), told)
	}

	// Both ways, and against itself and nothing.
	d, err = Diff(context.Background(), b, a, nil)
	if err != nil || d.Tables[0].Added != 11 || d.Tables[0].Removed != 1 || d.Tables[0].Changed != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = Diff(context.Background(), a, a, nil); err != nil || !d.Equal() || len(d.Groups) != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = Diff(context.Background(), open(nil, nil), a, nil); err != nil || d.Tables[0].Added != 600 || d.Tables[1].Added != 600 {
		t.Errorf("%+v, %v", d, err)
	}
	boom := errors.New("boom")
	if _, err := Diff(context.Background(), a, b, func(string, []byte, bool) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Diff(ctx, a, b, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestDiffOfABrokenSnapshot(t *testing.T) {
	good, err := Open(writeMany(t, 10))
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	rows := someRecords()
	slices.Reverse(rows)
	bad, err := Open(snapshotOf(t, nil, rows).write(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	if _, err := Diff(context.Background(), good, bad, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v", err)
	}
	if _, err := Diff(context.Background(), bad, good, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v", err)
	}
	if _, err := NewProver(context.Background(), bad); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v", err)
	}
}

// Labels are anything: their number does not decide how much memory is used.
func TestDiffBoundsItsGroups(t *testing.T) {
	var rows [][]byte
	for i := range 2 * maxGroups {
		r := record.Record{Time: int64(i), Kind: record.Labelled, Label: fmt.Sprint("class ", i)}
		rows = append(rows, r.AppendRow(nil))
	}
	slices.SortFunc(rows, bytes.Compare)
	full, err := Open(snapshotOf(t, nil, rows).write(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	empty, err := Open(snapshotOf(t, nil, nil).write(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	d, err := Diff(context.Background(), empty, full, nil)
	if err != nil || len(d.Groups) != maxGroups+1 {
		t.Fatalf("%d groups, %v", len(d.Groups), err)
	}
	if g := d.Groups[maxGroups]; g.Source != "…" || g.Added != maxGroups {
		t.Errorf("%+v", g)
	}
}

// What RowJSON shows of a record is what the reader of attack records takes.
func TestRowJSONOfARecordReadsBack(t *testing.T) {
	for _, row := range someRecords() {
		text, err := RowJSON("records", row)
		if err != nil {
			t.Fatal(err)
		}
		reader, err := record.NewReader(bytes.NewReader(text), record.Attacks, record.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var r record.Record
		if err := reader.Next(&r); err != nil || !bytes.Equal(r.AppendRow(nil), row) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for table, row := range map[string][]byte{"records": someExploits()[0], "exploits": someRecords()[0]} {
		if text, err := RowJSON(table, row); err == nil {
			t.Errorf("%s", text)
		}
	}
}

func TestExploitRowsDecode(t *testing.T) {
	for _, row := range someExploits() {
		e, err := decodeExploit(row)
		if err != nil || !bytes.Equal(e.AppendRow(nil), row) {
			t.Errorf("%+v, %v", e, err)
		}
		for n := range row {
			if _, err := decodeExploit(row[:n]); err == nil {
				t.Errorf("cut to %d bytes", n)
			}
		}
		if _, err := decodeExploit(append(bytes.Clone(row), 0)); err == nil {
			t.Error("a byte too many")
		}
	}
}
