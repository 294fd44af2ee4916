package dataset

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/endian"
	"github.com/apache/arrow/go/v17/arrow/ipc"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func TestOpenGivesBackWhatWasWritten(t *testing.T) {
	p := snapshotOf(t, someExploits(), someRecords())
	dir := p.write(t, t.TempDir())
	exploits, records, err := readAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got [][]byte
	for _, e := range exploits {
		got = append(got, e.AppendRow(nil))
	}
	if !slices.EqualFunc(got, someExploits(), bytes.Equal) {
		t.Errorf("exploits %+v", exploits)
	}
	got = nil
	for _, r := range records {
		got = append(got, r.AppendRow(nil))
	}
	if !slices.EqualFunc(got, someRecords(), bytes.Equal) {
		t.Errorf("records %+v", records)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Digest() != canon.Sum(p[ManifestName]) || s.Manifest().Tables[1].Rows != 3 {
		t.Errorf("digest %s, manifest %+v", s.Digest(), s.Manifest())
	}
}

// A directory from a store may describe its files otherwise than by files.json.
func TestOpenFilesNeedsNoFileList(t *testing.T) {
	p := snapshotOf(t, someExploits(), someRecords())
	dir := p.write(t, t.TempDir())
	files, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, FilesName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open without files.json: %v", err)
	}
	s, err := OpenFiles(dir, files)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	files[1].Digest[0]++
	if _, err := OpenFiles(dir, files); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another digest: %v", err)
	}
	if _, err := OpenFiles(dir, files[:1]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("one file: %v", err)
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty directory: %v", err)
	}
}

func TestOpenFollowsNoLinks(t *testing.T) {
	for _, name := range []string{ManifestName, FilesName, "records.arrow"} {
		dir := snapshotOf(t, someExploits(), someRecords()).write(t, t.TempDir())
		path := filepath.Join(dir, name)
		if err := os.Rename(path, filepath.Join(dir, "elsewhere")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("elsewhere", path); err != nil {
			t.Skip(err)
		}
		if _, _, err := readAll(dir); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s is a link: %v", name, err)
		}
		if report, err := Check(context.Background(), dir); !errors.Is(err, ErrCorrupt) || report.Pass() {
			t.Errorf("%s is a link: Check: %v %+v", name, err, report)
		}
	}
}

func TestASnapshotMayHaveAnEmptyTable(t *testing.T) {
	for _, rows := range [][2][][]byte{{nil, someRecords()}, {someExploits(), nil}} {
		dir := snapshotOf(t, rows[0], rows[1]).write(t, t.TempDir())
		exploits, records, err := readAll(dir)
		if err != nil || len(exploits) != len(rows[0]) || len(records) != len(rows[1]) {
			t.Errorf("%d and %d rows, %v", len(exploits), len(records), err)
		}
		if report, err := Check(context.Background(), dir); err != nil || !report.Pass() {
			t.Errorf("Check: %v %+v", err, report)
		}
	}
}

func TestIterationStopsWhenTold(t *testing.T) {
	dir := snapshotOf(t, someExploits(), someRecords()).write(t, t.TempDir())
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := 0
	for _, err := range s.Records(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d steps after break", n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for e, err := range s.Exploits(ctx) {
		if e != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v %v", e, err)
		}
	}
	defer func() {
		if recover() != "mine" {
			t.Error("a panic of the consumer was swallowed")
		}
	}()
	for range s.Records(context.Background()) {
		panic("mine")
	}
}

func TestManyMayReadAtOnce(t *testing.T) {
	_, dir := mustBuild(t, Config{Inputs: sampleInputs(t)})
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			n := int64(0)
			for _, err := range s.Records(context.Background()) {
				if err != nil {
					t.Error(err)
				}
				n++
			}
			if n != s.Manifest().Tables[1].Rows {
				t.Errorf("%d records", n)
			}
		})
	}
	wg.Wait()
}

// Several batches by rows, and several by bytes.
func TestBatchesAreCutByTheRule(t *testing.T) {
	for name, c := range map[string]struct {
		rows, text int
		want       []int
	}{
		"by rows":       {2*BatchRows + 5, 3, []int{BatchRows, BatchRows, 5}},
		"whole batches": {BatchRows, 3, []int{BatchRows}},
		"by bytes":      {1100, record.MaxText, []int{1008, 92}},
	} {
		var rows [][]byte
		size := 0
		for i := range c.rows {
			r := record.Record{Time: int64(i), Kind: record.Access, Payload: strings.Repeat("x", c.text)}
			rows = append(rows, r.AppendRow(nil))
			size = len(rows[i])
		}
		if name == "by bytes" {
			n := (BatchBytes + size - 1) / size
			c.want = []int{n, c.rows - n}
		}
		p := snapshotOf(t, nil, rows)
		a, err := newArrowFile(bytes.NewReader(p["records.arrow"]), int64(len(p["records.arrow"])), recordTable)
		if err != nil || !slices.Equal(a.batches, c.want) {
			t.Errorf("%s: batches %v, %v; want %v", name, a.batches, err, c.want)
		}
		dir := p.write(t, t.TempDir())
		if _, records, err := readAll(dir); err != nil || len(records) != c.rows {
			t.Errorf("%s: %d records, %v", name, len(records), err)
		}
		if report, err := Check(context.Background(), dir); err != nil || !report.Pass() {
			t.Errorf("%s: Check: %v %+v", name, err, report)
		}
	}
}

// The tree hashes that RFC 6962 implementations agree on, for the leaves of
// the test suite of Certificate Transparency.
func TestMerkleRootIsThatOfRFC6962(t *testing.T) {
	leaves := []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"}
	roots := map[int]string{
		0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	tree, walk := newTree(), rowWalk{}
	for n := 0; ; n++ {
		if tree.root() != walk.root() {
			t.Errorf("%d leaves: %s and %s", n, tree.root(), walk.root())
		}
		if want, ok := roots[n]; ok && tree.root().Hex() != want {
			t.Errorf("%d leaves: %s, want %s", n, tree.root().Hex(), want)
		}
		if n == len(leaves) {
			break
		}
		leaf, _ := hex.DecodeString(leaves[n])
		tree.add(leaf)
		walk.leaf(leaf)
	}
	for i := range 1000 {
		leaf := fmt.Append(nil, i)
		tree.add(leaf)
		walk.leaf(leaf)
		if tree.root() != walk.root() {
			t.Fatalf("differ after %d leaves", i)
		}
	}
}

// readBytes reads an Arrow file of records, whose digest is taken as right.
func readBytes(b []byte, rows int64, root canon.Digest) error {
	a, err := newArrowFile(bytes.NewReader(b), int64(len(b)), recordTable)
	if err != nil {
		return err
	}
	s := &Snapshot{arrow: []*arrowFile{nil, a}, manifest: Manifest{Tables: []Table{{}, {Name: "records", Root: root, Rows: rows}}}}
	for _, err := range s.Records(context.Background()) {
		if err != nil {
			return err
		}
	}
	return nil
}

// allocated is what f asks of the allocator, in bytes.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// No reader may need more than this for a file of a few kilobytes, whatever it
// says of itself.
const hostileMemory = 4 << 20

func TestHostileArrowIsRefusedInLittleMemory(t *testing.T) {
	p := snapshotOf(t, someExploits(), someRecords())
	good, m := p["records.arrow"], p.manifest(t).Tables[1]
	if err := readBytes(good, m.Rows, m.Root); err != nil {
		t.Fatal(err)
	}
	accepted := 0
	attempt := func(what string, b []byte, same bool) {
		t.Helper()
		var err error
		if n := allocated(func() { err = readBytes(b, m.Rows, m.Root) }); n > hostileMemory {
			t.Fatalf("%s: %d bytes allocated (%v)", what, n, err)
		}
		switch {
		case err == nil:
			accepted++
			if !same {
				t.Fatalf("%s: accepted", what)
			}
		case !errors.Is(err, ErrCorrupt):
			t.Fatalf("%s: %v", what, err)
		}
	}
	for n := range len(good) {
		attempt(fmt.Sprintf("cut to %d", n), good[:n:n], false)
	}
	// What a flip may change without notice is what a reader does not look at:
	// padding, and the copy of the schema before the batches. Check finds those.
	for i := range good {
		for _, bit := range []int{0, 3, 7} {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			attempt(fmt.Sprintf("bit %d of byte %d", bit, i), b, true)
		}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	rounds := 8_000
	if testing.Short() {
		rounds = 2_000
	}
	for range rounds {
		b := bytes.Clone(good)
		for range 1 + rng.IntN(3) {
			at := 4 * rng.IntN(len(b)/4)
			binary.LittleEndian.PutUint32(b[at:], []uint32{0, 1, 0x7fffffff, 0x80000000, 0xffffffff, rng.Uint32(), uint32(rng.IntN(len(b)))}[rng.IntN(7)])
		}
		attempt("words replaced", b, true)
	}
	t.Logf("%d changes where a reader does not look", accepted)
}

// Whatever byte of an Arrow file is changed, with files.json made to fit,
// Check does not pass.
func TestCheckFindsEveryChangedByte(t *testing.T) {
	p := snapshotOf(t, someExploits(), someRecords())
	dir := p.write(t, t.TempDir())
	step := 29
	if testing.Short() {
		step = 101
	}
	for _, table := range tables {
		name := table.file()
		for i := 0; i < len(p[name]); i += step {
			q := p.clone()
			q[name][i] ^= 0x10
			q.describe(t)
			q.write(t, dir)
			report, err := Check(context.Background(), dir)
			if report == nil {
				t.Fatalf("%s, byte %d: %v", name, i, err)
			}
			if err == nil || report.Pass() {
				t.Fatalf("%s, byte %d: Check passes", name, i)
			}
		}
		q := p.clone()
		q[name] = append(q[name], 0)
		q.describe(t)
		q.write(t, dir)
		if report, err := Check(context.Background(), dir); !errors.Is(err, ErrCorrupt) || report.Pass() {
			t.Errorf("%s with a byte more: %v %+v", name, err, report)
		}
	}
	p.write(t, dir)
	if report, err := Check(context.Background(), dir); err != nil || !report.Pass() {
		t.Errorf("unchanged: %v %+v", err, report)
	}
}

// A file whose values are stored in the other byte order, as a machine of that
// kind writes them, holds the same snapshot.
func TestFilesOfTheOtherByteOrderAreRead(t *testing.T) {
	p := snapshotOf(t, someExploits(), someRecords())
	for _, table := range tables {
		b := relabel(t, p[table.file()], table)
		s := operate(b)
		k := 0
		for _, col := range table.columns {
			k++ // behind the validity bitmap
			width := map[columnType]int{int64Column: 8, int32Column: 4, textColumn: 4}[col.typ]
			n := int(binary.LittleEndian.Uint64(b[s.buffer(0, k)+8:]))
			values := b[s.body(0, k):][:n]
			for len(values) >= width {
				slices.Reverse(values[:width])
				values = values[width:]
			}
			k++
			if col.typ == textColumn {
				k++
			}
		}
		p[table.file()] = b
	}
	p.describe(t)
	dir := p.write(t, t.TempDir())
	exploits, records, err := readAll(dir)
	if err != nil || len(exploits) != 2 || len(records) != 3 || exploits[0].ID != 7 {
		t.Fatalf("%v, %+v", err, exploits)
	}
	report, err := Check(context.Background(), dir)
	if err != nil || !report.Pass() {
		t.Fatalf("%v %+v", err, report)
	}
	skipped := 0
	for _, f := range report.Findings {
		if f.Status == Skip {
			skipped++
		}
	}
	if skipped != 2 {
		t.Errorf("%d findings skipped, want the two encodings", skipped)
	}
}

// relabel encodes an Arrow file of one batch anew with a schema that says its
// values have the other byte order, which they have not yet.
func relabel(t *testing.T, b []byte, table *table) []byte {
	t.Helper()
	r, err := ipc.NewFileReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	rec, err := r.RecordAt(0)
	if err != nil {
		t.Fatal(err)
	}
	other := endian.BigEndian
	if hostBigEndian {
		other = endian.LittleEndian
	}
	schema := table.schema().WithEndianness(other)
	var out bytes.Buffer
	w, err := ipc.NewFileWriter(&offsetWriter{w: &out}, ipc.WithSchema(schema))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(array.NewRecord(schema, rec.Columns(), rec.NumRows())); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		finding string
		spoil   func(p parts)
	}{
		{"records: privacy form", func(p parts) {
			m := p.manifest(t)
			m.Address = record.Truncated
			p.setManifest(t, m)
		}},
		{"records: privacy form", func(p parts) {
			m := p.manifest(t)
			m.Address = record.Hashed
			p.setManifest(t, m)
		}},
		{"exploits: Merkle root", func(p parts) {
			m := p.manifest(t)
			m.Tables[0].Root[3]++
			p.setManifest(t, m)
		}},
		{"exploits: row count", func(p parts) {
			m := p.manifest(t)
			m.Tables[0].Rows++
			p.setManifest(t, m)
		}},
		{"records: size and digest", func(p parts) { p["records.arrow"][100]++ }},
		{"records: file is there", func(p parts) { delete(p, "records.arrow") }},
		{"records: structure and schema", func(p parts) { p["records.arrow"] = []byte("ARROW1"); p.describe(t) }},
		{"records: encoding", func(p parts) { p["records.arrow"][6]++; p.describe(t) }},
		{"snapshot.json is canonical and of a known version", func(p parts) { p[ManifestName] = []byte(`{"format":1}`) }},
		{"files.json is canonical and names the two tables", func(p parts) { p[FilesName] = []byte("[]") }},
		{"records: canonical rows", func(p parts) {
			r := record.Record{Time: record.NoTime, Kind: "unheard-of"}
			clear(p)
			for name, b := range snapshotOf(t, nil, [][]byte{r.AppendRow(nil)}) {
				p[name] = b
			}
		}},
		{"records: order and uniqueness", func(p parts) {
			rows := someRecords()
			slices.Reverse(rows)
			for name, b := range snapshotOf(t, nil, rows) {
				p[name] = b
			}
		}},
	} {
		p := snapshotOf(t, someExploits(), someRecords()).clone()
		c.spoil(p)
		report, err := Check(context.Background(), p.write(t, t.TempDir()))
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", c.finding, err)
			continue
		}
		var failed []string
		for _, f := range report.Findings {
			if f.Status == Fail {
				failed = append(failed, f.Name)
			}
		}
		if !slices.Equal(failed, []string{c.finding}) || report.Pass() {
			t.Errorf("%s: failed %q: %+v", c.finding, failed, report.Findings)
		}
	}
	if _, err := Check(context.Background(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	if (&CheckReport{}).Pass() {
		t.Error("a report that looked at nothing passes")
	}
	if (&CheckReport{Findings: []Finding{{Status: Skip}}}).Pass() {
		t.Error("a report that skipped everything passes")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	dir := snapshotOf(t, someExploits(), someRecords()).write(t, t.TempDir())
	if _, err := Check(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestBatchBiggerThanAllowedIsRefused(t *testing.T) {
	if err := readBytes(nil, 0, canon.Digest{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("no bytes: %v", err)
	}
	c := ceiling{left: 1000}
	c.Allocate(500)
	defer func() {
		if recover() == nil {
			t.Error("the allocator went beyond its ceiling")
		}
	}()
	c.Reallocate(600, make([]byte, 10))
}

func FuzzOpen(f *testing.F) {
	p := snapshotOf(f, someExploits(), someRecords())
	good, m := p["records.arrow"], p.manifest(f).Tables[1]
	f.Add(good)
	f.Add(p["exploits.arrow"])
	f.Add(good[:len(good)/2])
	f.Add(append(bytes.Clone(good[:200]), good[len(good)-200:]...))
	empty := snapshotOf(f, nil, nil)["records.arrow"]
	f.Add(empty)
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := readBytes(b, m.Rows, m.Root); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	})
}

func FuzzManifest(f *testing.F) {
	p := snapshotOf(f, someExploits(), someRecords())
	f.Add(p[ManifestName])
	f.Add(p[FilesName])
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := DecodeManifest(b); err == nil {
			if again, err := canon.Marshal(m); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%q is accepted, but encodes as %q (%v)", b, again, err)
			}
		} else if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
			t.Fatal(err)
		}
		if files, err := decodeFiles(b); err == nil {
			if again, err := EncodeFiles(files); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%q is accepted, but encodes as %q (%v)", b, again, err)
			}
		} else if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
			t.Fatal(err)
		}
	})
}

func BenchmarkRecords(b *testing.B) {
	_, dir := mustBuild(b, Config{Inputs: sampleInputs(b)})
	s, err := Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	rows := int64(0)
	for b.Loop() {
		for _, err := range s.Records(context.Background()) {
			if err != nil {
				b.Fatal(err)
			}
			rows++
		}
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}
