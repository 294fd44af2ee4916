package dataset

import (
	"fmt"
	"io"
	"math"
	"unicode/utf8"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// ExportType is the type of an exported column.
type ExportType uint8

// Types of columns, in the names of Arrow.
const (
	ExportUtf8 ExportType = iota
	ExportInt32
	ExportInt64
	ExportFloat32
)

// String returns the name of the type: "utf8", "int32", "int64" or "float32".
func (t ExportType) String() string { return [...]string{"utf8", "int32", "int64", "float32"}[t] }

// ExportColumn describes a column of an Exporter.
type ExportColumn struct {
	Name string
	Type ExportType
}

// Exporter writes a table for other programs as one Arrow IPC file: plain
// columns without nulls, batches of BatchRows rows, nothing compressed, nothing
// encoded by dictionary. The file is no part of a snapshot and is not read back
// by this package.
//
// The same values give the same bytes on every little-endian machine, whatever
// the batches of the caller; a big-endian one stores its values big-endian and
// says so in the schema. Every NaN is written as the same one.
//
// Cells are written from left to right, row by row, each with the method of
// the type of its column. An Exporter is for one goroutine.
type Exporter struct {
	columns []ExportColumn
	arrow   *ipc.FileWriter
	builder *array.RecordBuilder
	cells   []cellBuilder // by column
	at      int           // column of the next cell
	rows    int           // in the open batch
	err     error         // the first; everything after it is ignored
}

// cellBuilder holds the one builder of a column that its type has.
type cellBuilder struct {
	text    *array.StringBuilder
	int32   *array.Int32Builder
	int64   *array.Int64Builder
	float32 *array.Float32Builder
}

// NewExporter begins a file on w, to which it writes in small pieces. The
// metadata go into the schema, sorted by key.
func NewExporter(w io.Writer, columns []ExportColumn, metadata map[string]string) (*Exporter, error) {
	fields := make([]arrow.Field, len(columns))
	for i, c := range columns {
		fields[i] = arrow.Field{Name: c.Name, Type: [...]arrow.DataType{
			ExportUtf8:    arrow.BinaryTypes.String,
			ExportInt32:   arrow.PrimitiveTypes.Int32,
			ExportInt64:   arrow.PrimitiveTypes.Int64,
			ExportFloat32: arrow.PrimitiveTypes.Float32,
		}[c.Type]}
	}
	md := arrow.MetadataFrom(metadata)
	schema := arrow.NewSchema(fields, &md)
	mem := memory.NewGoAllocator() // zeroed memory: what pads a buffer is written too
	fw, err := ipc.NewFileWriter(&offsetWriter{w: w}, ipc.WithSchema(schema), ipc.WithAllocator(mem))
	if err != nil {
		return nil, fmt.Errorf("exporting: %w", err)
	}
	e := &Exporter{columns: columns, arrow: fw, builder: array.NewRecordBuilder(mem, schema), cells: make([]cellBuilder, len(columns))}
	for i, c := range columns {
		switch b := e.builder.Field(i); c.Type {
		case ExportUtf8:
			e.cells[i].text = b.(*array.StringBuilder)
		case ExportInt32:
			e.cells[i].int32 = b.(*array.Int32Builder)
		case ExportInt64:
			e.cells[i].int64 = b.(*array.Int64Builder)
		case ExportFloat32:
			e.cells[i].float32 = b.(*array.Float32Builder)
		}
	}
	return e, nil
}

// next returns the builders of the next cell, which is to be of type t, or nil.
func (e *Exporter) next(t ExportType) *cellBuilder {
	switch {
	case e.err != nil:
		return nil
	case e.at >= len(e.columns):
		e.err = fmt.Errorf("exporting: more than %d cells in a row", len(e.columns))
		return nil
	case e.columns[e.at].Type != t:
		e.err = fmt.Errorf("exporting: column %s is %s, not %s", e.columns[e.at].Name, e.columns[e.at].Type, t)
		return nil
	}
	e.at++
	return &e.cells[e.at-1]
}

// Text writes a cell of type ExportUtf8. Text that is not valid UTF-8 is an
// error of EndRow.
func (e *Exporter) Text(s string) {
	if c := e.next(ExportUtf8); c != nil {
		if !utf8.ValidString(s) {
			e.err = fmt.Errorf("exporting: column %s: text that is not UTF-8", e.columns[e.at-1].Name)
			return
		}
		c.text.Append(s)
	}
}

// Int32 writes a cell of type ExportInt32.
func (e *Exporter) Int32(v int32) {
	if c := e.next(ExportInt32); c != nil {
		c.int32.Append(v)
	}
}

// Int64 writes a cell of type ExportInt64.
func (e *Exporter) Int64(v int64) {
	if c := e.next(ExportInt64); c != nil {
		c.int64.Append(v)
	}
}

// Float32 writes a cell of type ExportFloat32.
func (e *Exporter) Float32(v float32) {
	if c := e.next(ExportFloat32); c != nil {
		if math.IsNaN(float64(v)) {
			v = math.Float32frombits(0x7fc00000)
		}
		c.float32.Append(v)
	}
}

// EndRow ends a row. It returns the first error so far: a cell that is missing,
// too many or of the wrong type, or a failed write.
func (e *Exporter) EndRow() error {
	if e.err == nil && e.at < len(e.columns) {
		e.err = fmt.Errorf("exporting: row ends before column %s", e.columns[e.at].Name)
	}
	e.at = 0
	if e.rows++; e.err == nil && e.rows == BatchRows {
		e.flush()
	}
	return e.err
}

func (e *Exporter) flush() {
	batch := e.builder.NewRecord()
	defer batch.Release()
	e.rows = 0
	if err := e.arrow.Write(batch); err != nil {
		e.err = fmt.Errorf("exporting: %w", err)
	}
}

// Close writes what is left and the footer. It does not close the writer below.
func (e *Exporter) Close() error {
	if e.err == nil && e.at > 0 {
		e.err = fmt.Errorf("exporting: the last row does not end")
	}
	if e.err == nil && e.rows > 0 {
		e.flush()
	}
	if e.err == nil {
		if err := e.arrow.Close(); err != nil {
			e.err = fmt.Errorf("exporting: %w", err)
		}
	}
	return e.err
}
