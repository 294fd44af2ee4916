package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"

	"github.com/go-json-experiment/json"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
)

// Names of the files of a snapshot directory.
const (
	ManifestName = "snapshot.json"
	FilesName    = "files.json"
)

const maxManifest = 4 << 10 // bytes of snapshot.json and of files.json; they have about 400

// Manifest is snapshot.json: everything that a snapshot's identity consists
// of. Its canonical JSON hashed with SHA-256 is the dataset digest.
type Manifest struct {
	Address   record.AddressForm `json:"address"`   // form of the addresses in records
	Format    int                `json:"format"`    // version of the directory
	Redaction int                `json:"redaction"` // version of the redaction of texts, 0 for none
	Schema    int                `json:"schema"`    // version of the tables
	Tables    []Table            `json:"tables"`    // exploits, then records
}

// Table says what one table holds.
type Table struct {
	Name string       `json:"name"`
	Root canon.Digest `json:"root"` // RFC 6962 Merkle tree hash over the canonical rows
	Rows int64        `json:"rows"`
}

// File describes an Arrow file: a fact about how a snapshot is stored, no part
// of its identity.
type File struct {
	Digest canon.Digest `json:"digest"`
	Name   string       `json:"name"`
	Size   int64        `json:"size"` // bytes
}

// fileList is files.json.
type fileList struct {
	Files  []File `json:"files"` // in the order of the tables
	Format int    `json:"format"`
}

// DecodeManifest reads snapshot.json strictly: bytes that are not the one
// encoding of a manifest are ErrCorrupt, versions that this package does not
// know ErrUnsupported.
func DecodeManifest(b []byte) (Manifest, error) {
	var m Manifest
	if len(b) > maxManifest {
		return Manifest{}, fmt.Errorf("%w: %s: %d bytes, limit %d", ErrCorrupt, ManifestName, len(b), maxManifest)
	}
	if err := decodeVersioned(b, ManifestName, &m); err != nil {
		return Manifest{}, err
	}
	bad := func(format string, args ...any) (Manifest, error) {
		return Manifest{}, fmt.Errorf("%w: %s: %s", ErrCorrupt, ManifestName, fmt.Sprintf(format, args...))
	}
	switch m.Address {
	case record.Full, record.Truncated, record.Hashed:
	default:
		return Manifest{}, fmt.Errorf("%w: %s: address form %q", ErrUnsupported, ManifestName, clip(string(m.Address)))
	}
	if m.Redaction < 0 || m.Redaction > record.Redaction {
		return Manifest{}, fmt.Errorf("%w: %s: redaction %d", ErrUnsupported, ManifestName, m.Redaction)
	}
	if len(m.Tables) != len(tables) {
		return bad("%d tables, want %d", len(m.Tables), len(tables))
	}
	for i, t := range tables {
		switch got := m.Tables[i]; {
		case got.Name != t.name:
			return bad("table %d is %q, want %q", i, clip(got.Name), t.name)
		case got.Rows < 0:
			return bad("table %s has %d rows", t.name, got.Rows)
		case got.Root.IsZero():
			return bad("table %s has no root", t.name)
		}
	}
	return m, nil
}

// decodeVersioned decodes canonical JSON into v, after a look at its versions:
// exactly the bytes that v encodes to.
func decodeVersioned(b []byte, name string, v any) error {
	var version struct {
		Format int  `json:"format"`
		Schema *int `json:"schema"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	}
	if version.Format != Format {
		return fmt.Errorf("%w: %s: format %d, want %d", ErrUnsupported, name, version.Format, Format)
	}
	if version.Schema != nil && *version.Schema != Schema {
		return fmt.Errorf("%w: %s: schema %d, want %d", ErrUnsupported, name, *version.Schema, Schema)
	}
	if err := canon.UnmarshalCanonical(b, v); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	}
	// A member that is missing reads as zero; only this finds it.
	if again, err := canon.Marshal(v); err != nil || !bytes.Equal(again, b) {
		return fmt.Errorf("%w: %s: a member is missing", ErrCorrupt, name)
	}
	return nil
}

func decodeFiles(b []byte) ([]File, error) {
	var l fileList
	if err := decodeVersioned(b, FilesName, &l); err != nil {
		return nil, err
	}
	return l.Files, checkFiles(l.Files)
}

func checkFiles(files []File) error {
	if len(files) != len(tables) {
		return fmt.Errorf("%w: %s: %d files, want %d", ErrCorrupt, FilesName, len(files), len(tables))
	}
	for i, t := range tables {
		if f := files[i]; f.Name != t.file() || f.Size < 0 || f.Digest.IsZero() {
			return fmt.Errorf("%w: %s: file %d is %q of %d bytes, want %s", ErrCorrupt, FilesName, i, clip(f.Name), f.Size, t.file())
		}
	}
	return nil
}

// EncodeFiles returns the bytes of files.json for the Arrow files of a
// snapshot, exploits.arrow first. A directory that was put together from a
// store needs it beside snapshot.json and the two files.
func EncodeFiles(files []File) ([]byte, error) {
	if err := checkFiles(files); err != nil {
		return nil, err
	}
	return canon.Marshal(fileList{files, Format})
}

// Files returns what files.json in dir says of the Arrow files there, in
// their fixed order. It does not look at the files.
func Files(dir string) ([]File, error) {
	b, err := readSmall(dir, FilesName)
	if err != nil {
		return nil, err
	}
	return decodeFiles(b)
}

// readSmall reads one of the JSON files of a snapshot.
func readSmall(dir, name string) ([]byte, error) {
	b, err := durable.ReadFile(durable.OS, filepath.Join(dir, name), maxManifest)
	switch {
	case errors.Is(err, durable.ErrTooLarge) || errors.Is(err, durable.ErrNotFile):
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no snapshot in %s: %s: %w; 'bhtrain snapshot --out %[1]s' makes one", dir, name, fs.ErrNotExist)
	case err != nil:
		return nil, fmt.Errorf("opening snapshot: %w", err)
	}
	return b, nil
}

// A Snapshot is an open snapshot directory. Its methods may be called from
// many goroutines, Close when none is running.
type Snapshot struct {
	manifest Manifest
	digest   canon.Digest
	files    []io.Closer
	arrow    []*arrowFile // by table
}

// Open opens the snapshot in dir. It reads the Arrow files once, to compare
// size and SHA-256 with files.json, before the Arrow decoder sees a byte of
// them, and checks their structure; the values are checked as they are read.
// A directory that breaks a rule is ErrCorrupt or ErrUnsupported. Open follows
// no symbolic link in dir.
func Open(dir string) (*Snapshot, error) {
	files, err := Files(dir)
	if err != nil {
		return nil, err
	}
	return OpenFiles(dir, files)
}

// OpenFiles is Open for a directory whose Arrow files are described by the
// caller, say by the descriptors of a store, instead of by files.json.
func OpenFiles(dir string, files []File) (*Snapshot, error) {
	if err := checkFiles(files); err != nil {
		return nil, err
	}
	b, err := readSmall(dir, ManifestName)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{digest: canon.Sum(b)}
	if s.manifest, err = DecodeManifest(b); err != nil {
		return nil, err
	}
	for i, t := range tables {
		if err := s.open(dir, files[i], t); err != nil {
			s.Close()
			return nil, err
		}
		if a := s.arrow[i]; a.rows != s.manifest.Tables[i].Rows {
			s.Close()
			return nil, corrupt(t, "%d rows, snapshot.json says %d", a.rows, s.manifest.Tables[i].Rows)
		}
	}
	return s, nil
}

// open hashes a file, and hands the very file it hashed to the Arrow decoder.
func (s *Snapshot) open(dir string, want File, t *table) error {
	f, err := durable.OS.Open(filepath.Join(dir, want.Name))
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, durable.ErrNotFile):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case err != nil:
		return fmt.Errorf("opening snapshot: %w", err)
	}
	s.files = append(s.files, f)
	at, ok := f.(io.ReaderAt)
	if !ok {
		return fmt.Errorf("opening snapshot: %s cannot be read at an offset", want.Name)
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, want.Size+1))
	if err != nil {
		return fmt.Errorf("opening snapshot: %w", err)
	}
	if n != want.Size {
		return corrupt(t, "not the %d bytes that files.json states", want.Size)
	}
	if got := canon.Digest(h.Sum(nil)); got != want.Digest {
		return corrupt(t, "digest %s, files.json states %s", got, want.Digest)
	}
	a, err := newArrowFile(at, want.Size, t)
	if err != nil {
		return err
	}
	s.arrow = append(s.arrow, a)
	return nil
}

// Close closes the files. Records and exploits that were handed out stay valid.
func (s *Snapshot) Close() error {
	var first error
	for _, f := range s.files {
		if err := f.Close(); err != nil && first == nil {
			first = err
		}
	}
	s.files = nil
	return first
}

// Digest is the dataset digest: SHA-256 of snapshot.json.
func (s *Snapshot) Digest() canon.Digest { return s.digest }

// Manifest returns the decoded snapshot.json. The caller must not change it.
func (s *Snapshot) Manifest() Manifest { return s.manifest }

// Exploits yields the exploits in canonical order, which is by id. It checks
// each row's canonical form, order, uniqueness of the id, how batches are cut,
// and after the last row the Merkle root: whoever does not see an error has
// seen exactly the rows that the dataset digest names. An error is yielded
// once, with a nil exploit, and ends the sequence; a broken snapshot is
// ErrCorrupt. The exploit is reused for the next one, its texts are not.
func (s *Snapshot) Exploits(ctx context.Context) iter.Seq2[*Exploit, error] {
	return func(yield func(*Exploit, error) bool) {
		var e Exploit
		var lastID int64
		err := s.rows(ctx, 0, func(b *batch, i int, row []byte) ([]byte, error) {
			e.fromBatch(b, i)
			if err := e.check(); err != nil {
				return nil, err
			}
			if e.ID == lastID {
				return nil, fmt.Errorf("id %d twice", e.ID)
			}
			lastID = e.ID
			return e.AppendRow(row), nil
		}, func([]byte) bool { return yield(&e, nil) })
		if err != nil {
			yield(nil, err)
		}
	}
}

// Records yields the records in canonical order: by site, then time with
// undated ones first, then the other fields. It checks and reports as Exploits
// does, and reuses the record in the same way.
func (s *Snapshot) Records(ctx context.Context) iter.Seq2[*record.Record, error] {
	return func(yield func(*record.Record, error) bool) {
		var r record.Record
		err := s.rows(ctx, 1, func(b *batch, i int, row []byte) ([]byte, error) {
			recordFromBatch(&r, b, i)
			if err := r.Check(); err != nil {
				return nil, err
			}
			return r.AppendRow(row), nil
		}, func([]byte) bool { return yield(&r, nil) })
		if err != nil {
			yield(nil, err)
		}
	}
}

// canonicalRows walks over the canonical rows of table n and checks them as
// Exploits and Records do. A row is valid until yield returns.
func (s *Snapshot) canonicalRows(ctx context.Context, n int, yield func(row []byte) bool) error {
	var e Exploit
	var r record.Record
	var lastID int64
	return s.rows(ctx, n, func(b *batch, i int, row []byte) ([]byte, error) {
		if tables[n] == recordTable {
			recordFromBatch(&r, b, i)
			return r.AppendRow(row), r.Check()
		}
		e.fromBatch(b, i)
		if e.ID == lastID {
			return nil, fmt.Errorf("id %d twice", e.ID)
		}
		lastID = e.ID
		return e.AppendRow(row), e.check()
	}, yield)
}

// rows walks over one table. read turns row i of a batch into its canonical
// encoding; yield hands it to the consumer and says whether to go on.
func (s *Snapshot) rows(ctx context.Context, n int, read func(b *batch, i int, row []byte) ([]byte, error), yield func(row []byte) bool) error {
	t, file := tables[n], s.arrow[n]
	r, err := file.newReader()
	if err != nil {
		return err
	}
	var row, last []byte
	var at int64
	tree := newTree()
	for i := range file.batches {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("reading %s: %w", t.file(), err)
		}
		b, err := r.load(i)
		if err != nil {
			return err
		}
		size := 0
		for j := range b.rows {
			row, err = read(b, j, row[:0])
			if err != nil {
				return corrupt(t, "row %d: %v", at, err)
			}
			if at > 0 && bytes.Compare(last, row) >= 0 {
				return corrupt(t, "row %d is not above the row before it", at)
			}
			if j > 0 && size >= BatchBytes {
				return corrupt(t, "batch %d goes on after %d bytes of rows", i, size)
			}
			size += len(row)
			tree.add(row)
			row, last = last, row
			at++
			if !yield(last) {
				return nil
			}
		}
		if i < len(file.batches)-1 && b.rows < BatchRows && size < BatchBytes {
			return corrupt(t, "batch %d is cut early, at %d rows", i, b.rows)
		}
	}
	if got, want := tree.root(), s.manifest.Tables[n].Root; got != want || tree.n != s.manifest.Tables[n].Rows {
		return corrupt(t, "%d rows with Merkle root %s, snapshot.json says %d rows with %s", tree.n, got, s.manifest.Tables[n].Rows, want)
	}
	return nil
}

// fromBatch sets e to row i of a batch of exploitTable.
func (e *Exploit) fromBatch(b *batch, i int) {
	e.ID = b.int64s[0][i]
	switch b.int32s[1][i] {
	case layout17:
		e.Columns = 17
	case layout8:
		e.Columns = 8
	default:
		e.Columns = 0
	}
	e.File = b.text(2, i)
	e.Title = b.text(3, i)
	e.Author = b.text(4, i)
	e.Type = b.text(5, i)
	e.Platform = b.text(6, i)
	e.Port = b.int32s[7][i]
	e.Published = b.int64s[8][i]
	e.Added = b.int64s[9][i]
	e.Updated = b.int64s[10][i]
	e.Verified = b.int32s[11][i]
	e.Codes = b.text(12, i)
	e.Tags = b.text(13, i)
}

// recordFromBatch sets r to row i of a batch of recordTable.
func recordFromBatch(r *record.Record, b *batch, i int) {
	r.Site = b.text(0, i)
	r.Time = b.int64s[1][i]
	r.Address = b.text(2, i)
	r.Kind = record.Kind(b.text(3, i))
	r.Event = b.text(4, i)
	r.Protocol = b.text(5, i)
	r.Port = b.int32s[6][i]
	r.Method = b.text(7, i)
	r.Payload = b.text(8, i)
	r.Agent = b.text(9, i)
	r.Referer = b.text(10, i)
	r.User = b.text(11, i)
	r.Status = b.int32s[12][i]
	r.Size = b.int64s[13][i]
	r.Outcome = record.Outcome(b.int32s[14][i])
	r.Label = b.text(15, i)
	r.Level = record.Level(b.int32s[16][i])
	r.Exploit = b.int64s[17][i]
}
