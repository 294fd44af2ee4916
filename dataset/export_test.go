package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
)

var exported = []ExportColumn{{"name", ExportUtf8}, {"small", ExportInt32}, {"large", ExportInt64}, {"x", ExportFloat32}}

// exportTo writes n rows whose values follow from their number.
func exportTo(w io.Writer, n int) error {
	e, err := NewExporter(w, exported, map[string]string{"b": "2", "a": "1", "c": "3"})
	if err != nil {
		return err
	}
	for i := range n {
		e.Text(fmt.Sprint("row ", i))
		e.Int32(int32(-i))
		e.Int64(int64(i) << 33)
		e.Float32(float32(i) / 4)
		if err := e.EndRow(); err != nil {
			return err
		}
	}
	return e.Close()
}

func export(t testing.TB, n int) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := exportTo(&out, n); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestExportReadsBack(t *testing.T) {
	for _, n := range []int{0, 1, BatchRows, 2*BatchRows + 1} {
		b := export(t, n)
		if again := export(t, n); !bytes.Equal(b, again) {
			t.Errorf("%d rows: other bytes the second time", n)
		}
		r, err := ipc.NewFileReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(r.Schema().Metadata().Keys()); got != "[a b c]" {
			t.Errorf("metadata keys %s, want them sorted", got)
		}
		if want := (n + BatchRows - 1) / BatchRows; r.NumRecords() != want {
			t.Errorf("%d rows in %d batches, want %d", n, r.NumRecords(), want)
		}
		i := 0
		for k := range r.NumRecords() {
			batch, err := r.RecordAt(k)
			if err != nil {
				t.Fatal(err)
			}
			for at := range int(batch.NumRows()) {
				text, small := batch.Column(0).(*array.String).Value(at), batch.Column(1).(*array.Int32).Value(at)
				large, x := batch.Column(2).(*array.Int64).Value(at), batch.Column(3).(*array.Float32).Value(at)
				if text != fmt.Sprint("row ", i) || small != int32(-i) || large != int64(i)<<33 || x != float32(i)/4 {
					t.Fatalf("row %d of %d reads back as %q, %d, %d, %v", i, n, text, small, large, x)
				}
				i++
			}
		}
		if i != n {
			t.Errorf("%d rows read back, want %d", i, n)
		}
		for _, f := range r.Schema().Fields() {
			if f.Nullable {
				t.Errorf("column %s is nullable", f.Name)
			}
		}
	}
}

func TestExportHasOneNaN(t *testing.T) {
	file := func(bits uint32) []byte {
		var out bytes.Buffer
		e, err := NewExporter(&out, exported[3:], nil)
		if err != nil {
			t.Fatal(err)
		}
		e.Float32(math.Float32frombits(bits))
		e.EndRow()
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	one := file(0x7fc00000)
	for _, bits := range []uint32{0xffc00000, 0x7f800001, 0x7fc01234} {
		if !bytes.Equal(file(bits), one) {
			t.Errorf("NaN %08x is written as another", bits)
		}
	}
	if bytes.Equal(file(0), one) {
		t.Error("0 is written as NaN: the test proves nothing")
	}
}

// failing fails every write after the first n bytes.
type failing struct{ n int }

var errFull = errors.New("no space left")

func (w *failing) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestExportRefusesWrongCells(t *testing.T) {
	for _, c := range []struct {
		name string
		row  func(*Exporter)
		want string
	}{
		{"a missing cell", func(e *Exporter) { e.Text("a"); e.Int32(1); e.Int64(2) }, "before column x"},
		{"no cell at all", func(e *Exporter) {}, "before column name"},
		{"a cell too many", func(e *Exporter) { e.Text("a"); e.Int32(1); e.Int64(2); e.Float32(3); e.Float32(4) }, "more than 4 cells"},
		{"another type", func(e *Exporter) { e.Text("a"); e.Int64(1) }, "column small is int32, not int64"},
		{"no UTF-8", func(e *Exporter) { e.Text("\xff"); e.Int32(1); e.Int64(2); e.Float32(3) }, "column name: text that is not UTF-8"},
	} {
		var out bytes.Buffer
		e, err := NewExporter(&out, exported, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.row(e)
		if err := e.EndRow(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		e.Text("a")
		e.Int32(1)
		e.Int64(2)
		e.Float32(3)
		if e.EndRow() == nil || e.Close() == nil {
			t.Errorf("%s: the error is forgotten", c.name)
		}
	}
	e, err := NewExporter(new(bytes.Buffer), exported, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Text("a")
	if err := e.Close(); err == nil {
		t.Error("a row without end is accepted")
	}
}

func TestExportReportsFailedWrites(t *testing.T) {
	whole := len(export(t, BatchRows))
	for _, room := range []int{0, 100, whole / 2, whole - 1} {
		if err := exportTo(&failing{room}, BatchRows); !errors.Is(err, errFull) {
			t.Errorf("room for %d of %d bytes: %v", room, whole, err)
		}
	}
	if err := exportTo(&failing{whole}, BatchRows); err != nil {
		t.Errorf("room for all: %v", err)
	}
}
