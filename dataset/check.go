package dataset

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Status is how a finding came out.
type Status string

const (
	Pass Status = "pass"
	Fail Status = "fail"
	Skip Status = "skip" // could not be looked at, for the reason given
)

// Finding is one thing that Check looked at. Observed and Expected are filled
// where they say more than Reason does.
type Finding struct {
	Name     string `json:"name"`
	Status   Status `json:"status"`
	Observed string `json:"observed,omitempty"`
	Expected string `json:"expected,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// CheckReport is what Check found, in a fixed order.
type CheckReport struct {
	Dataset  canon.Digest `json:"dataset"` // of snapshot.json as it is; zero if it cannot be read
	Findings []Finding    `json:"findings"`

	failed error // the first finding that failed
}

// Pass reports whether something was looked at and nothing failed.
func (r *CheckReport) Pass() bool {
	looked := false
	for _, f := range r.Findings {
		if f.Status == Fail {
			return false
		}
		looked = looked || f.Status == Pass
	}
	return looked
}

func (r *CheckReport) add(name string, err error) bool {
	f := Finding{Name: name, Status: Pass}
	if err != nil {
		f.Status, f.Reason = Fail, err.Error()
		r.fail(name, err)
	}
	r.Findings = append(r.Findings, f)
	return err == nil
}

func (r *CheckReport) fail(name string, err error) {
	if r.failed != nil {
		return
	}
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnsupported) {
		r.failed = err
	} else {
		r.failed = fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	}
}

func (r *CheckReport) compare(name, observed, expected string) bool {
	f := Finding{Name: name, Status: Pass, Observed: observed, Expected: expected}
	if observed != expected {
		f.Status, f.Reason = Fail, "differ"
		r.fail(name, fmt.Errorf("%s, want %s", observed, expected))
	}
	r.Findings = append(r.Findings, f)
	return observed == expected
}

func (r *CheckReport) skip(reason string, names ...string) {
	for _, name := range names {
		r.Findings = append(r.Findings, Finding{Name: name, Status: Skip, Reason: reason})
	}
}

// Check proves the snapshot in dir against FORMAT.md without the code that
// wrote it: rows are put together from the columns by the row encoding alone,
// taken apart again, compared with their neighbours and hashed by a Merkle tree
// of its own; and the Arrow files are encoded anew and compared byte by byte, so that
// nothing hides between the values.
//
// What it finds stands in the report. If anything failed, the error names the
// first such finding and is ErrCorrupt or ErrUnsupported, so that nobody can take a
// broken snapshot for a good one by not looking. With any other error (a missing
// directory, a failing disk, a cancelled context) it could not look, and the
// report is nil.
func Check(ctx context.Context, dir string) (*CheckReport, error) {
	r := &CheckReport{}
	if err := r.check(ctx, dir); err != nil {
		return nil, err
	}
	return r, r.failed
}

func (r *CheckReport) check(ctx context.Context, dir string) error {
	b, err := readSmall(dir, ManifestName)
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return err
	}
	var m Manifest
	if err == nil {
		r.Dataset = canon.Sum(b)
		m, err = DecodeManifest(b)
	}
	if !r.add("snapshot.json is canonical and of a known version", err) {
		return nil
	}
	if b, err = readSmall(dir, FilesName); err != nil && !errors.Is(err, ErrCorrupt) {
		return err
	}
	var files []File
	if err == nil {
		files, err = decodeFiles(b)
	}
	if !r.add("files.json is canonical and names the two tables", err) {
		return nil
	}
	for i, t := range tables {
		if err := r.checkTable(ctx, dir, m, t, m.Tables[i], files[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *CheckReport) checkTable(ctx context.Context, dir string, m Manifest, t *table, want Table, file File) error {
	path := filepath.Join(dir, file.Name)
	const structure, form, privacy, order, batches, count, root, encoding = "structure and schema", "canonical rows",
		"privacy form", "order and uniqueness", "batches", "row count", "Merkle root", "encoding"
	name := func(s string) string { return t.name + ": " + s }
	rest := func(reason string, from ...string) {
		for _, s := range from {
			r.skip(reason, name(s))
		}
	}
	all := []string{structure, form, order, batches, count, root, encoding}
	if t == recordTable {
		all = slices.Insert(all, 2, privacy)
	}

	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", file.Name)
	}
	if !r.add(name("file is there"), err) {
		rest("no file", append([]string{"size and digest"}, all...)...)
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	describe := func(n int64, d canon.Digest) string { return fmt.Sprintf("%d bytes, %s", n, d) }
	if !r.compare(name("size and digest"), describe(n, canon.Digest(h.Sum(nil))), describe(file.Size, file.Digest)) {
		rest("not the file that files.json names", all...)
		return nil
	}
	a, err := newArrowFile(f, n, t)
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return err
	}
	if !r.add(name(structure), err) {
		rest("structure is broken", all[1:]...)
		return nil
	}

	w := rowWalk{table: t, want: record.Privacy{Address: m.Address, Redaction: m.Redaction}}
	again := io.Writer(io.Discard)
	same := &sameWriter{r: bufio.NewReaderSize(io.NewSectionReader(f, 0, n), 256<<10)}
	compare := a.bigEndian == hostBigEndian
	if compare {
		again = same
	}
	tw, err := newTableWriter(again, t)
	if err != nil {
		return err
	}
	reader, err := a.newReader()
	for i := 0; err == nil && i < len(a.batches); i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		var b *batch
		if b, err = reader.load(i); err != nil {
			break
		}
		w.batch(b, i == len(a.batches)-1)
		if w.form == nil {
			for _, row := range w.rows {
				if err = tw.append(row); err != nil {
					break
				}
			}
		}
	}
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			return err
		}
		r.add(name(form), err)
		rest("values cannot be read", all[2:]...)
		return nil
	}
	r.add(name(form), w.form)
	if t == recordTable {
		r.add(name(privacy), w.private)
	}
	r.add(name(order), w.order)
	r.add(name(batches), w.cut)
	r.compare(name(count), fmt.Sprint(w.n), fmt.Sprint(want.Rows))
	r.compare(name(root), w.root().String(), want.Root.String())
	switch {
	case !compare:
		rest("the file has the other byte order than this machine, which can only encode its own", encoding)
	case w.form != nil || w.order != nil || w.cut != nil:
		rest("rows are not canonical", encoding)
	default:
		if _, err := tw.close(); err != nil {
			return err
		}
		if _, err := same.r.ReadByte(); err != io.EOF {
			same.differ("is longer")
		}
		r.add(name(encoding), same.err)
	}
	return nil
}

// rowWalk puts the rows of a table together from its columns and checks them
// with nothing but the row encoding, record's decoder and SHA-256.
type rowWalk struct {
	table         *table
	rows          [][]byte // of the last batch
	buf           []byte
	last          []byte
	n             int64
	want          record.Privacy // that snapshot.json states
	form, private error          // first violation of each kind
	order, cut    error
	peaks         []canon.Digest
}

func (w *rowWalk) batch(b *batch, final bool) {
	var ends []int
	w.buf, w.rows = w.buf[:0], w.rows[:0]
	for i := range b.rows {
		w.buf = w.table.appendRow(w.buf, b, i)
		ends = append(ends, len(w.buf))
	}
	size, before := 0, 0
	for i, end := range ends {
		row := w.buf[size:end]
		w.rows = append(w.rows, row)
		before, size = size, end
		if err := w.canonical(b, i, row); err != nil && w.form == nil {
			w.form = fmt.Errorf("row %d: %w", w.n, err)
		}
		switch {
		case w.n == 0 || w.order != nil:
		case bytes.Compare(w.last, row) >= 0:
			w.order = fmt.Errorf("row %d is not above row %d", w.n, w.n-1)
		case w.table == exploitTable && bytes.Equal(w.last[:8], row[:8]):
			w.order = fmt.Errorf("rows %d and %d have one id", w.n-1, w.n)
		}
		w.last = append(w.last[:0], row...)
		w.leaf(row)
	}
	switch {
	case w.cut != nil:
	case before >= BatchBytes:
		w.cut = fmt.Errorf("batch before row %d holds rows beyond %d bytes", w.n, BatchBytes)
	case !final && b.rows < BatchRows && size < BatchBytes:
		w.cut = fmt.Errorf("batch before row %d ends early, with %d rows of %d bytes", w.n, b.rows, size)
	}
}

// canonical reports why a row is not what a reader of inputs would have made.
func (w *rowWalk) canonical(b *batch, i int, row []byte) error {
	if w.table == exploitTable {
		var e Exploit
		e.fromBatch(b, i)
		return e.check()
	}
	var rec record.Record
	if err := record.DecodeRow(row, &rec); err != nil {
		return err
	}
	if again := rec.AppendRow(nil); !bytes.Equal(again, row) {
		return errors.New("its record has another encoding")
	}
	private := rec
	if w.want.Apply(&private); private != rec && w.private == nil {
		w.private = fmt.Errorf("row %d is not in the form %s, redaction %d", w.n, w.want.Address, w.want.Redaction)
	}
	return rec.Check()
}

// leaf adds a leaf to the Merkle tree: peaks are the roots of the perfect
// subtrees from left to right, one for each bit set in n.
func (w *rowWalk) leaf(row []byte) {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(row)
	node := canon.Digest(h.Sum(nil))
	for n := w.n; n&1 == 1; n >>= 1 {
		last := len(w.peaks) - 1
		node = join(w.peaks[last], node)
		w.peaks = w.peaks[:last]
	}
	w.peaks = append(w.peaks, node)
	w.n++
}

func (w *rowWalk) root() canon.Digest {
	if len(w.peaks) == 0 {
		return sha256.Sum256(nil)
	}
	node := w.peaks[len(w.peaks)-1]
	for i := len(w.peaks) - 2; i >= 0; i-- {
		node = join(w.peaks[i], node)
	}
	return node
}

// hostBigEndian says how this machine stores numbers.
var hostBigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// join is the inner node of RFC 6962 §2.1.
func join(left, right canon.Digest) canon.Digest {
	b := append([]byte{1}, left[:]...)
	return sha256.Sum256(append(b, right[:]...))
}

// sameWriter compares what is written with what it reads.
type sameWriter struct {
	r   *bufio.Reader
	n   int64
	buf []byte
	err error
}

func (w *sameWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return len(p), nil
	}
	if len(w.buf) < len(p) {
		w.buf = make([]byte, len(p))
	}
	got := w.buf[:len(p)]
	if n, err := io.ReadFull(w.r, got); err != nil {
		w.n += int64(n)
		w.differ("is shorter")
	} else if !bytes.Equal(got, p) {
		for i := range p {
			if got[i] != p[i] {
				w.n += int64(i)
				break
			}
		}
		w.differ("has other bytes")
	}
	w.n += int64(len(p))
	return len(p), nil
}

func (w *sameWriter) differ(how string) {
	if w.err == nil {
		w.err = fmt.Errorf("at offset %d the file %s than its rows encode to", w.n, how)
	}
}
