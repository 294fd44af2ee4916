package dataset

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
)

// Defaults of Config.
const (
	DefaultMaxBadPPM   = 50_000    // 5 %
	DefaultMemoryBytes = 256 << 20 // bytes
)

// Config says what a snapshot is made of. Only Inputs and Privacy decide its
// bytes.
type Config struct {
	Inputs  []Input
	Privacy record.Privacy // applied to every record before anything else sees it

	// MaxBadPPM is the largest share of bad rows in one file, in parts per
	// million; 0 is DefaultMaxBadPPM, a negative value allows none.
	MaxBadPPM int64
	// MemoryBytes bounds the rows held in memory for sorting; 0 is
	// DefaultMemoryBytes. Rows beyond go to TempDir. Some tens of MiB come on top
	// for buffers.
	MemoryBytes int64
	// TempDir is where sorted runs are kept meanwhile; "" is os.TempDir. They
	// take about as much room as the canonical rows.
	TempDir string
	// Progress, if not nil, is told how far a stage is: "read" in bytes,
	// "exploits" and "records" (sorting and writing) in rows. Calls do not overlap.
	// A total of 0 is not known.
	Progress func(stage string, done, total int64)
}

// Validate reports the first field of the configuration that makes no sense.
func (cfg *Config) Validate() error {
	if len(cfg.Inputs) == 0 {
		return fmt.Errorf("%w: no inputs given", ErrNoRows)
	}
	for _, in := range cfg.Inputs {
		if err := in.validate(); err != nil {
			return fmt.Errorf("input %s: %w", in.Path, err)
		}
	}
	if err := cfg.Privacy.Validate(); err != nil {
		return err
	}
	if cfg.MaxBadPPM > 1_000_000 {
		return fmt.Errorf("MaxBadPPM is %d, want at most 1000000", cfg.MaxBadPPM)
	}
	if cfg.MemoryBytes < 0 {
		return fmt.Errorf("MemoryBytes is %d, want 0 or more", cfg.MemoryBytes)
	}
	return nil
}

// BuildReport says what went into a snapshot and what did not. It marshals to
// JSON.
type BuildReport struct {
	Dataset  canon.Digest  `json:"dataset"` // SHA-256 of snapshot.json
	Manifest Manifest      `json:"manifest"`
	Files    []File        `json:"files"`
	Inputs   []InputReport `json:"inputs"` // one per file or folder of texts read, in the order given
	Tables   []TableReport `json:"tables"` // exploits, then records
}

// InputReport says what one file held, or the texts in one folder of a checkout.
//
// Digest and Size are those of the file as it is, unpacked or not. Those of texts
// are the size of all that were read, and the digest of the lines "digest  path" that
// sha256sum prints for them in the order of the index. A row of texts is a request,
// or an exploit whose text gave none; its line is that of the exploit in the index.
type InputReport struct {
	Input  Input         `json:"input"`
	Path   string        `json:"path"` // of the file or folder
	Digest canon.Digest  `json:"digest"`
	Size   int64         `json:"size"` // bytes
	Report record.Report `json:"report"`
}

// TableReport says what became of the rows kept by the readers:
// Read = Rows + Duplicates + Superseded + Conflicts.
type TableReport struct {
	Name       string `json:"name"`
	Read       int64  `json:"read"`       // rows that the readers kept
	Duplicates int64  `json:"duplicates"` // equal to another row in every field
	Superseded int64  `json:"superseded"` // 8-column exploits that a 17-column row replaces
	Conflicts  int64  `json:"conflicts"`  // exploits that differ from the row kept for their id
	Rows       int64  `json:"rows"`       // in the snapshot
}

// Build reads the inputs and writes their snapshot to dir, which must not exist
// or be empty: all of it or nothing. The result depends on the rows alone, not
// on their order, on the way they are spread over files, on threads or memory.
//
// Errors: ErrTooManyBad, ErrNoRows and ErrUnsupported (wrong header) name the
// file; durable.ErrExists if dir is taken. With ErrTooManyBad the report tells
// what was read; with any other error it is nil.
func Build(ctx context.Context, cfg Config, dir string) (*BuildReport, error) {
	return build(ctx, cfg, durable.OS, dir)
}

func build(ctx context.Context, cfg Config, fsys durable.FS, dir string) (*BuildReport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	stage, err := durable.Stage(fsys, dir)
	if err != nil {
		return nil, err
	}
	defer stage.Discard()
	temp, err := os.MkdirTemp(cfg.TempDir, "bhtrain-sort-")
	if err != nil {
		return nil, fmt.Errorf("sorting: %w", err)
	}
	defer os.RemoveAll(temp)

	b := builder{cfg: cfg, fsys: fsys, dir: stage.Path()}
	limit := cfg.MemoryBytes
	if limit == 0 {
		limit = DefaultMemoryBytes
	}
	for i, share := range [...]int64{limit / 4, limit - limit/4} {
		if b.sorters[i], err = newSorter(filepath.Join(temp, tables[i].name), share); err != nil {
			return nil, err
		}
	}
	report := &BuildReport{}
	if report.Inputs, err = b.read(ctx); err != nil {
		if errors.Is(err, ErrTooManyBad) {
			return report, err
		}
		return nil, err
	}
	if err := b.write(ctx, report); err != nil {
		return nil, err
	}
	manifest, err := canon.Marshal(report.Manifest)
	if err != nil {
		return nil, err
	}
	files, err := EncodeFiles(report.Files)
	if err != nil {
		return nil, err
	}
	report.Dataset = canon.Sum(manifest)
	if err := stage.WriteFile(ManifestName, manifest, 0o666); err != nil {
		return nil, err
	}
	if err := stage.WriteFile(FilesName, files, 0o666); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := stage.Commit(); err != nil {
		return nil, err
	}
	return report, nil
}

type builder struct {
	cfg     Config
	fsys    durable.FS
	dir     string
	sorters [2]*sorter // exploits, records

	mu   sync.Mutex // of Progress
	done int64
}

func (b *builder) progress(stage string, done, total int64) {
	if b.cfg.Progress != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.cfg.Progress(stage, done, total)
	}
}

// read puts the rows of all inputs into the sorters.
func (b *builder) read(ctx context.Context) ([]InputReport, error) {
	var reports []InputReport
	var total int64
	texts := map[int]int{}                    // position in reports to one in textFolders
	first := make([]int, len(b.cfg.Inputs)+1) // reports[first[i]:first[i+1]] are of input i
	for i, in := range b.cfg.Inputs {
		paths, err := in.files()
		if err != nil {
			return nil, fmt.Errorf("input %s: %w", in.Path, err)
		}
		for _, path := range paths {
			reports = append(reports, InputReport{Input: in, Path: path})
			total += fileSize(path)
		}
		for _, k := range in.texts() {
			texts[len(reports)] = k
			reports = append(reports, InputReport{Input: in, Path: filepath.Join(in.Path, textFolders[k].folder)})
			total += fileSize(filepath.Join(in.Path, textFolders[k].index))
		}
		first[i+1] = len(reports)
	}
	errs := make([]error, len(reports))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range reports {
		group.Go(func() error {
			if k, ok := texts[i]; ok {
				errs[i] = b.readTexts(gctx, &reports[i], k, total)
			} else {
				errs[i] = b.readFile(gctx, &reports[i], total)
			}
			if errs[i] != nil {
				return fmt.Errorf("reading %s: %w", reports[i].Path, errs[i])
			}
			return nil
		})
	}
	err := group.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		// The first in the order of the inputs, not of time, where both are known.
		for i, e := range errs {
			if e != nil && !errors.Is(e, context.Canceled) {
				return nil, fmt.Errorf("reading %s: %w", reports[i].Path, e)
			}
		}
		return nil, err
	}
	for i, in := range b.cfg.Inputs {
		rows := int64(0)
		for _, r := range reports[first[i]:first[i+1]] {
			rows += r.Report.Rows
		}
		if rows == 0 {
			return nil, fmt.Errorf("%w in %s", ErrNoRows, in.Path)
		}
	}
	for i := range reports {
		if err := b.checkBad(&reports[i]); err != nil {
			return reports, err
		}
	}
	return reports, nil
}

func fileSize(path string) int64 {
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		return info.Size()
	}
	return 0
}

func (b *builder) checkBad(r *InputReport) error {
	limit := b.cfg.MaxBadPPM
	switch {
	case limit == 0:
		limit = DefaultMaxBadPPM
	case limit < 0:
		limit = 0
	}
	var bad int64
	var reasons []string
	for _, c := range r.Report.Bad {
		bad += c.Rows
		lines := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(c.Lines)), ", "), "[]")
		if int64(len(c.Lines)) < c.Rows {
			lines += ", …"
		}
		reasons = append(reasons, fmt.Sprintf("%d × %s (line %s)", c.Rows, c.Reason, lines))
	}
	rows := r.Report.Rows
	if rows == 0 || bad <= rows/1_000_000*limit+rows%1_000_000*limit/1_000_000 {
		return nil
	}
	percent := func(ppm int64) string { return fmt.Sprintf("%d.%02d %%", ppm/10_000, ppm%10_000/100) }
	return fmt.Errorf("%w: %s: %d of %d rows, %s, where %s are allowed: %s; allow more with --max-bad",
		ErrTooManyBad, r.Path, bad, rows, percent(bad*1_000_000/rows), percent(limit), strings.Join(reasons, ", "))
}

// chunkBytes of canonical rows are handed to a sorter at a time.
const chunkBytes = 128 << 10

// readFile puts the rows of one file into a sorter.
func (b *builder) readFile(ctx context.Context, r *InputReport, total int64) error {
	f, err := os.Open(r.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	in := &inputReader{f: f, h: sha256.New(), b: b, total: total}
	rows, err := unpack(in)
	if err != nil {
		return err
	}
	if r.Input.Source == ExploitDB {
		x, err := newExploitReader(rows)
		if err != nil {
			return err
		}
		var e Exploit
		if err := fill(ctx, b.sorters[0], func(b []byte) ([]byte, error) {
			if err := x.next(&e); err != nil {
				return b, err
			}
			return e.AppendRow(b), nil
		}); err != nil {
			return err
		}
		r.Report = x.finish()
	} else {
		x, err := record.NewReader(rows, record.Kind(r.Input.Source), record.Options{
			Class: r.Input.Class, Site: r.Input.Site, Year: r.Input.Year, Privacy: b.cfg.Privacy,
		})
		if err != nil {
			return err
		}
		var rec record.Record
		if err := fill(ctx, b.sorters[1], func(b []byte) ([]byte, error) {
			for {
				err := x.Next(&rec)
				if err == nil {
					return rec.AppendRow(b), nil
				}
				if !errors.As(err, new(*record.RowError)) {
					return b, err
				}
			}
		}); err != nil {
			return err
		}
		r.Report = x.Report()
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	in.tell()
	r.Size = in.n
	r.Digest = canon.Digest(in.h.Sum(nil))
	return nil
}

// readTexts puts the requests in the texts of textFolders[k] into a sorter.
func (b *builder) readTexts(ctx context.Context, r *InputReport, k int, total int64) error {
	root, err := os.OpenRoot(r.Input.Path)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := os.Open(filepath.Join(r.Input.Path, textFolders[k].index))
	if err != nil {
		return err
	}
	defer f.Close()
	in := &inputReader{f: f, h: sha256.New(), b: b, total: total}
	rows, err := unpack(in)
	if err != nil {
		return err
	}
	index, err := newExploitReader(rows)
	if err != nil {
		return err
	}
	c := &checkout{
		root: root, folder: textFolders[k].folder, index: index, sums: sha256.New(),
		opt: record.Options{Privacy: b.cfg.Privacy},
	}
	var rec record.Record
	if err := fill(ctx, b.sorters[1], func(b []byte) ([]byte, error) {
		if err := c.next(&rec); err != nil {
			return b, err
		}
		return rec.AppendRow(b), nil
	}); err != nil {
		return err
	}
	in.tell()
	r.Report, r.Size = c.finish(), c.size
	r.Digest = canon.Digest(c.sums.Sum(nil))
	return nil
}

// fill puts all rows that next appends into a sorter, until next returns io.EOF.
func fill(ctx context.Context, s *sorter, next func([]byte) ([]byte, error)) error {
	var chunk []byte
	var ends []int
	for {
		var err error
		chunk, err = next(chunk)
		if err != nil && err != io.EOF {
			return err
		}
		if err == nil {
			ends = append(ends, len(chunk))
		}
		if err == io.EOF || len(chunk) >= chunkBytes {
			if err := s.add(chunk, ends); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			chunk, ends = chunk[:0], ends[:0]
		}
		if err == io.EOF {
			return nil
		}
	}
}

// inputReader hashes and counts what is read.
type inputReader struct {
	f     io.Reader
	h     hash.Hash
	n     int64
	told  int64
	total int64
	b     *builder
}

func (in *inputReader) Read(p []byte) (int, error) {
	n, err := in.f.Read(p)
	in.h.Write(p[:n])
	in.n += int64(n)
	if in.n-in.told >= 1<<20 {
		in.tell()
	}
	return n, err
}

func (in *inputReader) tell() {
	if in.b.cfg.Progress == nil {
		return
	}
	in.b.mu.Lock()
	defer in.b.mu.Unlock()
	in.b.done += in.n - in.told
	in.told = in.n
	in.b.cfg.Progress("read", in.b.done, in.total)
}

// write writes the Arrow files from the sorted rows.
func (b *builder) write(ctx context.Context, report *BuildReport) error {
	address, redaction := b.cfg.Privacy.Describe()
	report.Manifest = Manifest{
		Address: record.AddressForm(address), Format: Format, Redaction: redaction, Schema: Schema,
		Tables: make([]Table, len(tables)),
	}
	report.Files = make([]File, len(tables))
	report.Tables = make([]TableReport, len(tables))
	group, ctx := errgroup.WithContext(ctx)
	for i := range tables {
		group.Go(func() error {
			return b.writeTable(ctx, i, &report.Manifest.Tables[i], &report.Files[i], &report.Tables[i])
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if report.Tables[0].Rows == 0 && report.Tables[1].Rows == 0 {
		return fmt.Errorf("%w: the inputs hold no usable row", ErrNoRows)
	}
	return nil
}

func (b *builder) writeTable(ctx context.Context, n int, m *Table, file *File, r *TableReport) (err error) {
	t, s := tables[n], b.sorters[n]
	f, err := b.fsys.Create(filepath.Join(b.dir, t.file()), 0o666)
	if err != nil {
		return fmt.Errorf("writing %s: %w", t.file(), err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("writing %s: %w", t.file(), cerr)
		}
	}()
	h := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(f, h), 256<<10)
	w, err := newTableWriter(out, t)
	if err != nil {
		return err
	}
	*r = TableReport{Name: t.name, Read: s.added}
	var key []byte // of the exploit before: id and layout
	err = s.merge(func(row []byte) error {
		if t == exploitTable {
			if len(key) > 0 && bytes.Equal(row[:8], key[:8]) {
				if bytes.Equal(row[8:16], key[8:]) {
					r.Conflicts++
				} else {
					r.Superseded++
				}
				return nil
			}
			key = append(key[:0], row[:16]...)
		}
		r.Rows++
		if r.Rows%BatchRows == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			b.progress(t.name, r.Rows, s.added)
		}
		return w.append(row)
	})
	if err != nil {
		return err
	}
	r.Duplicates = s.same
	if *m, err = w.close(); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing %s: %w", t.file(), err)
	}
	*file = File{Name: t.file(), Size: w.out.n, Digest: canon.Digest(h.Sum(nil))}
	b.progress(t.name, r.Rows, r.Rows)
	return nil
}
