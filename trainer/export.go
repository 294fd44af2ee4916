package trainer

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
)

// MatrixColumn describes one column of an exported matrix.
type MatrixColumn struct {
	Name   string
	Type   dataset.ExportType
	Group  string // "row", or the group of the feature
	Unit   string // of the feature
	Max    int    // largest value of the feature; the smallest is 0
	Models string // which models may use the feature, separated by spaces
	Doc    string // one sentence
}

// rowColumns stand before the features.
var rowColumns = []MatrixColumn{
	{Name: "exploit", Type: dataset.ExportInt64, Doc: "EDB id of an exploit; 0 for a record."},
	{Name: "record", Type: dataset.ExportInt64, Doc: "Position among the records of the snapshot, of a derived row that of its record, or number of a row of ordinary traffic, from 0; -1 for an exploit."},
	{Name: "source", Type: dataset.ExportUtf8, Doc: "What the row was read as: exploitdb, the kind of a record or ordinary."},
	{Name: "derived", Type: dataset.ExportInt32, Doc: "1 for a training row that is a record's payload in another form, 0 for the others."},
	{Name: "part", Type: dataset.ExportUtf8, Doc: "training, validation or test."},
	{Name: "weight", Type: dataset.ExportInt32, Doc: "How much the row counts in training, in 4096ths."},
	{Name: "class", Type: dataset.ExportUtf8, Doc: "Class of the attack, or benign; empty for a row that trains reputation alone."},
	{Name: "class_index", Type: dataset.ExportInt32, Doc: "Number of the class in the classifier, from 0; -1 when empty."},
	{Name: "bad", Type: dataset.ExportInt32, Doc: "1 for level DANGEROUS and above, 0 below, -1 for a row that does not train reputation."},
}

// MatrixColumns describes the columns of an exported matrix in their order:
// what identifies and labels a row, then the features, unscaled.
func MatrixColumns() []MatrixColumn {
	columns := slices.Clone(rowColumns)
	for i := range columns {
		columns[i].Group = "row"
	}
	models := make([]string, feature.Dim)
	for _, m := range []struct {
		name    string
		columns []int
	}{{"anomaly", feature.ForAnomaly()}, {"classifier", feature.ForClassifier()}, {"reputation", feature.ForReputation()}} {
		for _, i := range m.columns {
			models[i] = strings.TrimSpace(models[i] + " " + m.name)
		}
	}
	for i, c := range feature.Columns {
		columns = append(columns, MatrixColumn{
			Name: c.Name, Type: dataset.ExportFloat32, Group: string(c.Group), Unit: c.Unit, Max: c.Max, Models: models[i], Doc: c.Doc,
		})
	}
	return columns
}

// MatrixColumnsCSV returns the description of the columns as CSV with a header:
// column (from 0), name, type, group, unit, max, models, meaning.
func MatrixColumnsCSV() []byte {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.Write([]string{"column", "name", "type", "group", "unit", "max", "models", "meaning"})
	for i, c := range MatrixColumns() {
		most := ""
		if c.Type == dataset.ExportFloat32 {
			most = strconv.Itoa(c.Max)
		}
		w.Write([]string{strconv.Itoa(i), c.Name, c.Type.String(), c.Group, c.Unit, most, c.Models, c.Doc})
	}
	w.Flush() // writing to memory does not fail
	return b.Bytes()
}

// record returns the position that an exported row shows.
func (r *Row) record() int64 {
	if r.isTitle() {
		return -1
	}
	return r.Record
}

// derived returns 1 for a derived row, else 0.
func (r *Row) derived() int32 {
	if r.Derived {
		return 1
	}
	return 0
}

// class returns the name of a row's class, or "".
func (m *Matrix) class(r *Row) string {
	if r.Class < 0 {
		return ""
	}
	return m.Classes[r.Class]
}

// WriteArrow writes the matrix to w as an Arrow file with the columns of
// MatrixColumns, as dataset.Exporter does: equal matrices, equal bytes on
// little-endian machines. The metadata go into its schema. Of opt only Progress
// is used; when ctx is done, its error is returned.
func (m *Matrix) WriteArrow(ctx context.Context, w io.Writer, metadata map[string]string, opt Options) error {
	var columns []dataset.ExportColumn
	for _, c := range MatrixColumns() {
		columns = append(columns, dataset.ExportColumn{Name: c.Name, Type: c.Type})
	}
	e, err := dataset.NewExporter(w, columns, metadata)
	if err != nil {
		return err
	}
	for i := range m.Rows {
		r := &m.Rows[i]
		e.Int64(r.Exploit)
		e.Int64(r.record())
		e.Text(m.Sources[r.Source])
		e.Int32(r.derived())
		e.Text(r.Part.String())
		e.Int32(r.Weight)
		e.Text(m.class(r))
		e.Int32(int32(r.Class))
		e.Int32(int32(r.Bad))
		for _, v := range m.row(int32(i)) {
			e.Float32(v)
		}
		if err := e.EndRow(); err != nil {
			return err
		}
		if err := m.exported(ctx, "arrow", i, opt); err != nil {
			return err
		}
	}
	return e.Close()
}

// WriteCSV writes the matrix to w as CSV: a header, the columns of
// MatrixColumns, lines that end in "\n". A feature is the shortest decimal,
// without exponent, that reads back as the same float32. Equal matrices give
// equal bytes on every machine. Of opt only Progress is used; when ctx is done,
// its error is returned.
func (m *Matrix) WriteCSV(ctx context.Context, w io.Writer, opt Options) error {
	for _, name := range slices.Concat(m.Sources, m.Classes) {
		if strings.ContainsAny(name, ",\"\r\n") {
			return fmt.Errorf("name %q cannot stand in a CSV file unquoted", name)
		}
	}
	var b []byte
	for i, c := range MatrixColumns() {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, c.Name...)
	}
	b = append(b, '\n')
	for i := range m.Rows {
		r := &m.Rows[i]
		b = append(strconv.AppendInt(b, r.Exploit, 10), ',')
		b = append(strconv.AppendInt(b, r.record(), 10), ',')
		b = append(append(b, m.Sources[r.Source]...), ',')
		b = append(strconv.AppendInt(b, int64(r.derived()), 10), ',')
		b = append(append(b, r.Part.String()...), ',')
		b = append(strconv.AppendInt(b, int64(r.Weight), 10), ',')
		b = append(append(b, m.class(r)...), ',')
		b = append(strconv.AppendInt(b, int64(r.Class), 10), ',')
		b = strconv.AppendInt(b, int64(r.Bad), 10)
		for _, v := range m.row(int32(i)) {
			b = append(b, ',')
			if v >= 1 && v < 1<<24 && v == float32(int32(v)) {
				b = strconv.AppendInt(b, int64(v), 10) // the same text, sooner
			} else {
				b = strconv.AppendFloat(b, float64(v), 'f', -1, 32)
			}
		}
		b = append(b, '\n')
		if len(b) >= 64<<10 || i == len(m.Rows)-1 {
			if _, err := w.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
		if err := m.exported(ctx, "csv", i, opt); err != nil {
			return err
		}
	}
	return nil
}

// exported reports that row i is written.
func (m *Matrix) exported(ctx context.Context, stage string, i int, opt Options) error {
	opt.progress(stage, int64(i)+1, int64(len(m.Rows)))
	if i%1024 == 0 {
		return ctx.Err()
	}
	return nil
}
