package dataset

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	flatbuffers "github.com/google/flatbuffers/go"
)

// The Arrow library believes the lengths that a file states: hostile ones make
// it panic or ask for any amount of memory. So every length, offset and type
// of a file is checked here before the library sees it, a batch is loaded
// through an allocator with a ceiling, and panics end at loadBatch.
const (
	maxFooter    = 64 << 20 // bytes; room for 2.7 million batches
	maxBatchMeta = 64 << 10 // bytes; a batch of this package states about 1.5 KiB
	maxBatchBody = 16 << 20 // bytes; canonical rows of BatchBytes + maxRow, and their offsets
	maxBatchMem  = 3 * maxBatchBody

	arrowMagic     = "ARROW1"
	arrowV5        = 4 // MetadataVersion
	arrowInt       = 2 // Type
	arrowUtf8      = 5
	arrowBatch     = 3 // MessageHeader
	arrowContinued = 0xffffffff
)

// arrowFile is an Arrow file whose structure is known to be that of its table.
type arrowFile struct {
	table     *table
	r         io.ReaderAt
	size      int64
	batches   []int // rows of each batch
	rows      int64
	bigEndian bool // the values are in big-endian order
	scratch   []byte
}

// newArrowFile checks the structure of an Arrow file: everything but the
// values. It reads the footer and the metadata of every batch.
func newArrowFile(r io.ReaderAt, size int64, t *table) (a *arrowFile, err error) {
	defer guard(t, &err)
	a = &arrowFile{table: t, r: r, size: size}
	return a, a.preflight()
}

// guard turns a panic of a decoder into ErrCorrupt.
func guard(t *table, err *error) {
	if p := recover(); p != nil {
		*err = corrupt(t, "not a readable Arrow file: %v", p)
	}
}

func corrupt(t *table, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrCorrupt, t.file(), fmt.Sprintf(format, args...))
}

// A fb is a flatbuffers table; reading outside of its buffer panics.
type fb struct{ flatbuffers.Table }

func rootTable(b []byte) fb {
	return fb{flatbuffers.Table{Bytes: b, Pos: flatbuffers.GetUOffsetT(b)}}
}

// slot returns where the value of field n (from 0) stands, 0 if it is absent.
func (t fb) slot(n int) flatbuffers.UOffsetT {
	o := flatbuffers.UOffsetT(t.Offset(flatbuffers.VOffsetT(4 + 2*n)))
	if o != 0 {
		o += t.Pos
	}
	return o
}

func (t fb) int64(n int) int64 {
	if o := t.slot(n); o != 0 {
		return t.GetInt64(o)
	}
	return 0
}

func (t fb) int32(n int) int32 {
	if o := t.slot(n); o != 0 {
		return t.GetInt32(o)
	}
	return 0
}

func (t fb) int16(n int) int16 {
	if o := t.slot(n); o != 0 {
		return t.GetInt16(o)
	}
	return 0
}

func (t fb) byte(n int) byte {
	if o := t.slot(n); o != 0 {
		return t.GetByte(o)
	}
	return 0
}

func (t fb) text(n int) string {
	if o := t.slot(n); o != 0 {
		return string(t.ByteVector(o))
	}
	return ""
}

// sub returns the table in field n.
func (t fb) sub(n int) (fb, bool) {
	o := t.slot(n)
	if o == 0 {
		return fb{}, false
	}
	return fb{flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(o)}}, true
}

// vector returns start and length of the vector in field n, whose elements
// have the given size, once it is known to lie inside the buffer.
func (t fb) vector(n, size int) (flatbuffers.UOffsetT, int) {
	o := t.slot(n)
	if o == 0 {
		return 0, 0
	}
	start := t.Vector(o - t.Pos)
	count := int64(t.GetUOffsetT(start - flatbuffers.SizeUOffsetT))
	if int64(start)+count*int64(size) > int64(len(t.Bytes)) {
		panic("vector longer than its buffer")
	}
	return start, int(count)
}

// element returns element i of a vector of tables.
func (t fb) element(start flatbuffers.UOffsetT, i int) fb {
	return fb{flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(start + flatbuffers.UOffsetT(4*i))}}
}

func (a *arrowFile) preflight() error {
	const head, tail = 8, 4 + len(arrowMagic)
	if a.size < int64(head+tail) {
		return corrupt(a.table, "only %d bytes", a.size)
	}
	var b [16]byte
	if err := a.read(b[:head], 0); err != nil {
		return err
	}
	end := b[:tail]
	if string(b[:len(arrowMagic)]) != arrowMagic {
		return corrupt(a.table, "does not begin as an Arrow file")
	}
	if err := a.read(end, a.size-int64(tail)); err != nil {
		return err
	}
	if string(end[4:]) != arrowMagic {
		return corrupt(a.table, "does not end as an Arrow file")
	}
	n := int64(binary.LittleEndian.Uint32(end))
	footerAt := a.size - int64(tail) - n
	if n < 8 || n > maxFooter || footerAt < int64(head) {
		return corrupt(a.table, "footer of %d bytes", n)
	}
	buf := make([]byte, n)
	if err := a.read(buf, footerAt); err != nil {
		return err
	}
	footer := rootTable(buf)
	if v := footer.int16(0); v != arrowV5 {
		return corrupt(a.table, "metadata version %d, want V5", v+1)
	}
	schema, ok := footer.sub(1)
	if !ok {
		return corrupt(a.table, "no schema")
	}
	if err := a.checkSchema(schema); err != nil {
		return err
	}
	if _, n := footer.vector(2, 24); n != 0 {
		return corrupt(a.table, "%d dictionaries", n)
	}
	if footer.slot(4) != 0 {
		return corrupt(a.table, "custom metadata in the footer")
	}
	start, blocks := footer.vector(3, 24)
	a.batches = make([]int, blocks)
	at := int64(head)
	for i := range a.batches {
		block := start + flatbuffers.UOffsetT(24*i)
		offset, meta, body := footer.GetInt64(block), int64(footer.GetInt32(block+8)), footer.GetInt64(block+16)
		if offset%8 != 0 || meta%8 != 0 || body%8 != 0 || offset < at || meta < 16 || meta > maxBatchMeta ||
			body < 0 || body > maxBatchBody || offset > footerAt-meta-body {
			return corrupt(a.table, "batch %d at %d: %d + %d bytes", i, offset, meta, body)
		}
		at = offset + meta + body
		rows, err := a.checkBatch(i, offset, meta, body)
		if err != nil {
			return err
		}
		a.batches[i] = rows
		a.rows += int64(rows)
	}
	return nil
}

func (a *arrowFile) checkSchema(s fb) error {
	switch e := s.int16(0); e {
	case 0, 1:
		a.bigEndian = e == 1
	default:
		return corrupt(a.table, "endianness %d", e)
	}
	start, n := s.vector(1, 4)
	if n != len(a.table.columns) {
		return corrupt(a.table, "%d columns, want %d", n, len(a.table.columns))
	}
	for i, c := range a.table.columns {
		f := s.element(start, i)
		if name := f.text(0); name != c.name {
			return corrupt(a.table, "column %d is %q, want %q", i, clip(name), c.name)
		}
		_, children := f.vector(5, 4)
		_, metadata := f.vector(6, 4)
		if f.byte(1) != 0 || f.slot(4) != 0 || children != 0 || metadata != 0 {
			return corrupt(a.table, "column %s is nullable, nested, encoded by dictionary or has metadata", c.name)
		}
		typ, _ := f.sub(3)
		switch is := f.byte(2); {
		case c.typ == textColumn && is == arrowUtf8:
		case c.typ == int64Column && is == arrowInt && typ.int32(0) == 64 && typ.byte(1) == 1:
		case c.typ == int32Column && is == arrowInt && typ.int32(0) == 32 && typ.byte(1) == 1:
		default:
			return corrupt(a.table, "column %s has the wrong type", c.name)
		}
	}
	keys, values := a.table.metadata()
	start, n = s.vector(2, 4)
	if n != len(keys) {
		return corrupt(a.table, "schema with %d keys of metadata, want %d", n, len(keys))
	}
	for i := range keys {
		if kv := s.element(start, i); kv.text(0) != keys[i] || kv.text(1) != values[i] {
			return corrupt(a.table, "schema metadata %q = %q, want %q = %q", clip(kv.text(0)), clip(kv.text(1)), keys[i], values[i])
		}
	}
	if _, n := s.vector(3, 8); n != 0 {
		return corrupt(a.table, "%d features asked for", n)
	}
	return nil
}

func (a *arrowFile) checkBatch(i int, offset, metaLen, body int64) (int, error) {
	buf := slices.Grow(a.scratch[:0], int(metaLen))[:metaLen]
	a.scratch = buf
	if err := a.read(buf, offset); err != nil {
		return 0, err
	}
	if binary.LittleEndian.Uint32(buf) != arrowContinued || int64(binary.LittleEndian.Uint32(buf[4:])) != metaLen-8 {
		return 0, corrupt(a.table, "batch %d: message length", i)
	}
	msg := rootTable(buf[8:])
	batch, ok := msg.sub(2)
	if msg.int16(0) != arrowV5 || msg.byte(1) != arrowBatch || !ok || msg.int64(3) != body || msg.slot(4) != 0 {
		return 0, corrupt(a.table, "batch %d: not a plain record batch", i)
	}
	rows := batch.int64(0)
	if rows < 1 || rows > BatchRows {
		return 0, corrupt(a.table, "batch %d: %d rows, want 1 to %d", i, rows, BatchRows)
	}
	if batch.slot(3) != 0 || batch.slot(4) != 0 {
		return 0, corrupt(a.table, "batch %d: compressed or with views", i)
	}
	nodes, n := batch.vector(1, 16)
	if n != len(a.table.columns) {
		return 0, corrupt(a.table, "batch %d: %d columns", i, n)
	}
	buffers, n := batch.vector(2, 16)
	next, from := 0, int64(0)
	buffer := func(least int64) bool {
		if next >= n {
			return false
		}
		at := buffers + flatbuffers.UOffsetT(16*next)
		off, size := batch.GetInt64(at), batch.GetInt64(at+8)
		next++
		if off%8 != 0 || off < from || size < least || size > body || off > body-size {
			return false
		}
		from = off + size
		return true
	}
	for c, col := range a.table.columns {
		node := nodes + flatbuffers.UOffsetT(16*c)
		if batch.GetInt64(node) != rows || batch.GetInt64(node+8) != 0 {
			return 0, corrupt(a.table, "batch %d: column %s has another length, or nulls", i, col.name)
		}
		ok := buffer(0) // the validity bitmap, not used without nulls
		switch col.typ {
		case int64Column:
			ok = ok && buffer(8*rows)
		case int32Column:
			ok = ok && buffer(4*rows)
		case textColumn:
			ok = ok && buffer(4*(rows+1)) && buffer(0)
		}
		if !ok {
			return 0, corrupt(a.table, "batch %d: buffers of column %s", i, col.name)
		}
	}
	if next != n {
		return 0, corrupt(a.table, "batch %d: %d buffers, want %d", i, n, next)
	}
	return int(rows), nil
}

// read fills b from the given offset.
func (a *arrowFile) read(b []byte, offset int64) error {
	if _, err := a.r.ReadAt(b, offset); err != nil && err != io.EOF {
		return fmt.Errorf("reading %s: %w", a.table.file(), err)
	} else if err == io.EOF && offset+int64(len(b)) > a.size {
		return corrupt(a.table, "shorter than stated")
	}
	return nil
}

// batch holds the values of one record batch by column. Texts alias memory
// that is never reused.
type batch struct {
	rows   int
	int64s [][]int64
	int32s [][]int32
	texts  []*array.String
}

// batchReader loads the batches of an arrowFile in order. It is for one
// goroutine.
type batchReader struct {
	file *arrowFile
	mem  ceiling
	ipc  *ipc.FileReader
	now  batch
}

func (a *arrowFile) newReader() (r *batchReader, err error) {
	defer guard(a.table, &err)
	r = &batchReader{file: a, mem: ceiling{left: maxFooter}}
	r.ipc, err = ipc.NewFileReader(io.NewSectionReader(a.r, 0, a.size), ipc.WithAllocator(&r.mem), ipc.WithSchema(nil))
	if err != nil {
		return nil, corrupt(a.table, "%v", err)
	}
	if r.ipc.NumRecords() != len(a.batches) {
		return nil, corrupt(a.table, "%d batches, want %d", r.ipc.NumRecords(), len(a.batches))
	}
	return r, nil
}

// load returns batch i; it is valid until the next load, its texts for ever.
func (r *batchReader) load(i int) (b *batch, err error) {
	t := r.file.table
	defer guard(t, &err)
	r.mem.left = maxBatchMem
	rec, err := r.ipc.RecordAt(i)
	if err != nil {
		return nil, corrupt(t, "batch %d: %v", i, err)
	}
	b = &r.now
	*b = batch{rows: r.file.batches[i], int64s: make([][]int64, len(t.columns)), int32s: make([][]int32, len(t.columns)), texts: make([]*array.String, len(t.columns))}
	if rec.NumRows() != int64(b.rows) || int(rec.NumCols()) != len(t.columns) {
		return nil, corrupt(t, "batch %d: changed while it was read", i)
	}
	for c, col := range t.columns {
		arr := rec.Column(c)
		if arr.Len() != b.rows || arr.NullN() != 0 {
			return nil, corrupt(t, "batch %d: column %s has another length, or nulls", i, col.name)
		}
		switch col.typ {
		case int64Column:
			b.int64s[c] = arr.(*array.Int64).Int64Values()
		case int32Column:
			b.int32s[c] = arr.(*array.Int32).Int32Values()
		case textColumn:
			s := arr.(*array.String)
			offsets := s.ValueOffsets()
			if offsets[0] < 0 || !slices.IsSorted(offsets) || int(offsets[b.rows]) > len(s.Data().Buffers()[2].Bytes()) {
				return nil, corrupt(t, "batch %d: text offsets of column %s", i, col.name)
			}
			b.texts[c] = s
		}
	}
	return b, nil
}

// text returns a text value without copying it.
func (b *batch) text(column, row int) string { return b.texts[column].Value(row) }

// ceiling is an allocator that panics rather than hand out more than is left.
// Memory is left to the garbage collector: values that callers keep stay valid.
type ceiling struct{ left int64 }

func (c *ceiling) Allocate(size int) []byte {
	if c.left -= int64(size) + 64; size < 0 || c.left < 0 {
		panic("batch asks for more memory than any valid one needs")
	}
	return make([]byte, size)
}

func (c *ceiling) Reallocate(size int, b []byte) []byte {
	if size <= cap(b) {
		return b[:size]
	}
	n := c.Allocate(size)
	copy(n, b)
	return n
}

func (c *ceiling) Free([]byte) {}

// clip bounds foreign text in messages, in bytes.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
