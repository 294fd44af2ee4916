package dataset

import (
	"errors"
	"strings"
	"testing"
)

func TestColumnsAreThoseOfTheFiles(t *testing.T) {
	for _, table := range tables {
		columns := Columns(table.name)
		fields := table.schema().Fields()
		if len(columns) != len(fields) {
			t.Fatalf("%s: %d columns, want %d", table.name, len(columns), len(fields))
		}
		for i, c := range columns {
			if c.Name != fields[i].Name || c.Type != fields[i].Type.Name() {
				t.Errorf("%s: column %d is %s %s, want %s %s", table.name, i, c.Type, c.Name, fields[i].Type.Name(), fields[i].Name)
			}
			if !strings.HasSuffix(c.Doc, ".") {
				t.Errorf("%s.%s has no words: %q", table.name, c.Name, c.Doc)
			}
		}
	}
	for i, t1 := range tables {
		if len(columnDocs[i]) != len(t1.columns) {
			t.Errorf("%s: %d texts for %d columns", t1.name, len(columnDocs[i]), len(t1.columns))
		}
	}
	if Columns("others") != nil {
		t.Error("a table that does not exist has columns")
	}
}

func TestManifestOverItsLimitIsRefused(t *testing.T) {
	if _, err := DecodeManifest([]byte(`{"format":1` + strings.Repeat(" ", maxManifest) + `}`)); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "limit") {
		t.Errorf("%v, want ErrCorrupt for the limit", err)
	}
}
