package dataset

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"strconv"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Versions and limits of the format; FORMAT.md gives the reasons.
const (
	// Format is the version of the snapshot directory.
	Format = 1
	// Schema is the version of the tables: their columns, their canonical
	// rows, and what the values mean.
	Schema = 1
	// BatchRows is the largest number of rows in an Arrow record batch.
	BatchRows = 8192
	// BatchBytes ends a record batch: a batch is closed by the row with which
	// its canonical rows reach this many bytes.
	BatchBytes = 8 << 20

	maxRow = 256 << 10 // bytes of one canonical row; texts at their bounds make half of it
)

// columnType is the Arrow type of a column, and how its values stand in the
// canonical row: integers as 8 bytes, texts terminated.
type columnType uint8

const (
	int64Column columnType = iota
	int32Column
	textColumn
)

type column struct {
	name string
	typ  columnType
}

// A table describes one Arrow file. The fields of a canonical row are the
// values of its columns, in this order.
type table struct {
	name    string // in snapshot.json; the file is name + ".arrow"
	columns []column
}

var (
	exploitTable = &table{"exploits", []column{
		{"id", int64Column},
		{"layout", int32Column},
		{"file", textColumn},
		{"title", textColumn},
		{"author", textColumn},
		{"type", textColumn},
		{"platform", textColumn},
		{"port", int32Column},
		{"published", int64Column},
		{"added", int64Column},
		{"updated", int64Column},
		{"verified", int32Column},
		{"codes", textColumn},
		{"tags", textColumn},
	}}
	recordTable = &table{"records", []column{
		{"site", textColumn},
		{"time", int64Column},
		{"address", textColumn},
		{"kind", textColumn},
		{"event", textColumn},
		{"protocol", textColumn},
		{"port", int32Column},
		{"method", textColumn},
		{"payload", textColumn},
		{"agent", textColumn},
		{"referer", textColumn},
		{"user", textColumn},
		{"status", int32Column},
		{"size", int64Column},
		{"outcome", int32Column},
		{"label", textColumn},
		{"level", int32Column},
		{"exploit", int64Column},
	}}
	// tables are all tables, in the order of snapshot.json.
	tables = []*table{exploitTable, recordTable}
)

func (t *table) file() string { return t.name + ".arrow" }

// appendRow appends the canonical row i of a batch, put together from the
// columns by the row encoding alone, to row.
func (t *table) appendRow(row []byte, b *batch, i int) []byte {
	for c, col := range t.columns {
		switch col.typ {
		case int64Column:
			row = canon.AppendInt(row, b.int64s[c][i])
		case int32Column:
			row = canon.AppendInt(row, int64(b.int32s[c][i]))
		case textColumn:
			row = canon.AppendText(row, b.text(c, i))
		}
	}
	return row
}

// metadata is the schema's metadata, sorted by key.
func (t *table) metadata() (keys, values []string) {
	return []string{"bhtrain.format", "bhtrain.schema", "bhtrain.table"},
		[]string{strconv.Itoa(Format), strconv.Itoa(Schema), t.name}
}

func (t *table) schema() *arrow.Schema {
	fields := make([]arrow.Field, len(t.columns))
	for i, c := range t.columns {
		fields[i] = arrow.Field{Name: c.name, Type: [...]arrow.DataType{
			int64Column: arrow.PrimitiveTypes.Int64,
			int32Column: arrow.PrimitiveTypes.Int32,
			textColumn:  arrow.BinaryTypes.String,
		}[c.typ]}
	}
	md := arrow.NewMetadata(t.metadata())
	return arrow.NewSchema(fields, &md)
}

// A tableWriter writes canonical rows as one Arrow file and sums up their
// Merkle root. Same rows, same bytes: batches are cut by a fixed rule, every
// batch is built afresh by builders over zeroed memory, and nothing is
// compressed or dictionary-encoded.
type tableWriter struct {
	table   *table
	out     *offsetWriter
	arrow   *ipc.FileWriter
	builder *array.RecordBuilder
	tree    tree
	text    []byte // scratch of one unescaped text
	rows    int    // in the open batch
	bytes   int    // canonical bytes in the open batch
}

func newTableWriter(w io.Writer, t *table) (*tableWriter, error) {
	schema := t.schema()
	mem := memory.NewGoAllocator()
	out := &offsetWriter{w: w}
	fw, err := ipc.NewFileWriter(out, ipc.WithSchema(schema), ipc.WithAllocator(mem))
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", t.file(), err)
	}
	return &tableWriter{table: t, out: out, arrow: fw, builder: array.NewRecordBuilder(mem, schema), tree: newTree()}, nil
}

// append adds one canonical row; the caller sees to order and uniqueness.
func (w *tableWriter) append(row []byte) error {
	rest := row
	for i, c := range w.table.columns {
		switch c.typ {
		case textColumn:
			var ok bool
			if w.text, rest, ok = cutText(w.text[:0], rest); !ok {
				return fmt.Errorf("writing %s: column %s: malformed canonical row", w.table.file(), c.name)
			}
			w.builder.Field(i).(*array.StringBuilder).BinaryBuilder.Append(w.text)
		default:
			if len(rest) < 8 {
				return fmt.Errorf("writing %s: column %s: malformed canonical row", w.table.file(), c.name)
			}
			r := canon.NewRow(rest[:8])
			if c.typ == int64Column {
				w.builder.Field(i).(*array.Int64Builder).Append(r.Int())
			} else {
				w.builder.Field(i).(*array.Int32Builder).Append(r.Int32())
			}
			if err := r.Close(); err != nil {
				return fmt.Errorf("writing %s: column %s: %w", w.table.file(), c.name, err)
			}
			rest = rest[8:]
		}
	}
	if len(rest) > 0 || len(row) > maxRow {
		return fmt.Errorf("writing %s: malformed canonical row of %d bytes", w.table.file(), len(row))
	}
	w.tree.add(row)
	w.rows++
	w.bytes += len(row)
	if w.rows == BatchRows || w.bytes >= BatchBytes {
		return w.flush()
	}
	return nil
}

func (w *tableWriter) flush() error {
	batch := w.builder.NewRecord()
	defer batch.Release()
	w.rows, w.bytes = 0, 0
	if err := w.arrow.Write(batch); err != nil {
		return fmt.Errorf("writing %s: %w", w.table.file(), err)
	}
	return nil
}

// close writes the open batch and the footer.
func (w *tableWriter) close() (Table, error) {
	if w.rows > 0 {
		if err := w.flush(); err != nil {
			return Table{}, err
		}
	}
	if err := w.arrow.Close(); err != nil {
		return Table{}, fmt.Errorf("writing %s: %w", w.table.file(), err)
	}
	return Table{Name: w.table.name, Root: w.tree.root(), Rows: w.tree.n}, nil
}

// cutText appends the text field at the start of row to dst and returns the
// rest of the row. It reads what canon.AppendText writes.
func cutText(dst, row []byte) (text, rest []byte, ok bool) {
	for {
		i := bytes.IndexByte(row, 0)
		if i < 0 || i+1 >= len(row) {
			return dst, row, false
		}
		dst = append(dst, row[:i]...)
		switch row[i+1] {
		case 0x01:
			return dst, row[i+2:], true
		case 0xff:
			dst, row = append(dst, 0), row[i+2:]
		default:
			return dst, row, false
		}
	}
}

// offsetWriter lets the Arrow writer, which asks for nothing but its current
// offset, write to any io.Writer.
type offsetWriter struct {
	w io.Writer
	n int64
}

func (w *offsetWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.n += int64(n)
	return n, err
}

func (w *offsetWriter) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekCurrent {
		return 0, fmt.Errorf("dataset: internal error: the Arrow writer seeks")
	}
	return w.n, nil
}

// tree is an RFC 6962 Merkle tree that grows to the right; it holds one hash
// per level.
type tree struct {
	r    *compact.Range
	n    int64
	leaf []byte // scratch

	visit compact.VisitFn // told of every node of a complete subtree, leaves too; may be nil
}

var treeFactory = compact.RangeFactory{Hash: hashChildren}

// hashChildren is the hash of an inner node, with one allocation.
func hashChildren(left, right []byte) []byte {
	node := append(append(append(make([]byte, 0, 1+2*sha256.Size), rfc6962.RFC6962NodeHashPrefix), left...), right...)
	h := sha256.Sum256(node)
	return h[:]
}

func newTree() tree { return tree{r: treeFactory.NewEmptyRange(0)} }

func (t *tree) add(leaf []byte) {
	t.leaf = append(append(t.leaf[:0], rfc6962.RFC6962LeafHashPrefix), leaf...)
	h := sha256.Sum256(t.leaf)
	if err := t.r.Append(h[:], t.visit); err != nil {
		panic("dataset: internal error: growing the Merkle tree: " + err.Error())
	}
	t.n++
}

// root of no leaf at all is SHA-256 of the empty string, as RFC 6962 §2.1 says.
func (t *tree) root() canon.Digest {
	h, err := t.r.GetRootHash(nil)
	if err != nil {
		panic("dataset: internal error: Merkle root: " + err.Error())
	}
	if t.n == 0 {
		h = rfc6962.DefaultHasher.EmptyRoot()
	}
	return canon.Digest(h)
}
