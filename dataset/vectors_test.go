package dataset

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	flatbuffers "github.com/google/flatbuffers/go"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// surgery finds the places of an Arrow file that hold its structure.
type surgery struct {
	b        []byte
	footerAt int
	footer   fb
}

func operate(b []byte) *surgery {
	n := int(binary.LittleEndian.Uint32(b[len(b)-10:]))
	at := len(b) - 10 - n
	return &surgery{b, at, rootTable(b[at : len(b)-10])}
}

// block is where the footer describes batch i: offset, length of the metadata,
// length of the body, at +0, +8, +16.
func (s *surgery) block(i int) int {
	start, _ := s.footer.vector(3, 24)
	return s.footerAt + int(start) + 24*i
}

// message is the metadata of batch i, and where its bytes begin.
func (s *surgery) message(i int) (fb, int) {
	at := int(binary.LittleEndian.Uint64(s.b[s.block(i):])) + 8
	n := int(binary.LittleEndian.Uint32(s.b[at-4:]))
	return rootTable(s.b[at : at+n]), at
}

// batch is the record batch of message i.
func (s *surgery) batch(i int) (fb, int) {
	m, at := s.message(i)
	b, _ := m.sub(2)
	return b, at
}

// node and buffer are where batch i describes column c and buffer k.
func (s *surgery) node(i, c int) int {
	b, at := s.batch(i)
	start, _ := b.vector(1, 16)
	return at + int(start) + 16*c
}

func (s *surgery) buffer(i, k int) int {
	b, at := s.batch(i)
	start, _ := b.vector(2, 16)
	return at + int(start) + 16*k
}

// body is where the bytes of buffer k of batch i begin.
func (s *surgery) body(i, k int) int {
	block := s.block(i)
	start := int(binary.LittleEndian.Uint64(s.b[block:])) + int(binary.LittleEndian.Uint32(s.b[block+8:]))
	return start + int(binary.LittleEndian.Uint64(s.b[s.buffer(i, k):]))
}

// field is column c of the schema in the footer.
func (s *surgery) field(c int) fb {
	schema, _ := s.footer.sub(1)
	start, _ := schema.vector(1, 4)
	return schema.element(start, c)
}

func (s *surgery) at(o flatbuffers.UOffsetT) []byte { return s.b[s.footerAt+int(o):] }

func (s *surgery) put64(at int, n uint64) { binary.LittleEndian.PutUint64(s.b[at:], n) }

// firstText is the position of the first text column, and of its offsets among
// the buffers.
func firstText(t *table) (c, buffer int) {
	for _, col := range t.columns {
		if col.typ == textColumn {
			return c, buffer + 1
		}
		c, buffer = c+1, buffer+2
	}
	panic("no text column")
}

// A vector is a directory that a reader must reject, made from a valid one.
type vector struct {
	name   string // after its number
	expect string // ok, corrupt or unsupported
	why    string
	spoil  func(t testing.TB, p parts) // files.json is made anew before it unless it says so
}

func replace(t testing.TB, b []byte, old, new string) []byte {
	t.Helper()
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s lacks %s", b, old)
	}
	return bytes.Replace(b, []byte(old), []byte(new), 1)
}

// arrowVector spoils the bytes of a file and describes it truthfully.
func arrowVector(name, why string, t *table, spoil func(s *surgery)) vector {
	return vector{name, "corrupt", why, func(tb testing.TB, p parts) {
		spoil(operate(p[t.file()]))
		p.describe(tb)
	}}
}

// rowsVector encodes other rows, with a truthful manifest.
func rowsVector(name, why string, rows func() (exploits, records [][]byte)) vector {
	return vector{name, "corrupt", why, func(tb testing.TB, p parts) {
		exploits, records := rows()
		maps.Copy(p, snapshotOf(tb, exploits, records))
	}}
}

var vectors = []vector{
	{"valid", "ok", "a snapshot of two exploits and three records", func(testing.TB, parts) {}},
	{"manifest-too-large", "corrupt", "snapshot.json has more than 4 KiB", func(t testing.TB, p parts) {
		p[ManifestName] = append(p[ManifestName], bytes.Repeat([]byte(" "), maxManifest)...)
	}},
	{"manifest-not-canonical", "corrupt", "snapshot.json has a space that canonical JSON has not", func(t testing.TB, p parts) {
		p[ManifestName] = replace(t, p[ManifestName], `"format":1`, `"format": 1`)
	}},
	{"manifest-unknown-member", "corrupt", "snapshot.json has a member that the format does not know", func(t testing.TB, p parts) {
		p[ManifestName] = replace(t, p[ManifestName], `"format":1`, `"extra":0,"format":1`)
	}},
	{"format-version", "unsupported", "snapshot.json is of format 2", func(t testing.TB, p parts) {
		p[ManifestName] = replace(t, p[ManifestName], `"format":1`, `"format":2`)
	}},
	{"address-form", "unsupported", "snapshot.json states an unknown form of addresses", func(t testing.TB, p parts) {
		p[ManifestName] = replace(t, p[ManifestName], `"full"`, `"half"`)
	}},
	{"tables-in-other-order", "corrupt", "snapshot.json lists records before exploits", func(t testing.TB, p parts) {
		m := p.manifest(t)
		slices.Reverse(m.Tables)
		p.setManifest(t, m)
	}},
	{"files-not-canonical", "corrupt", "files.json ends with a line feed", func(t testing.TB, p parts) {
		p[FilesName] = append(p[FilesName], '\n')
	}},
	{"files-other-name", "corrupt", "files.json names a file outside of the directory", func(t testing.TB, p parts) {
		p[FilesName] = replace(t, p[FilesName], "records.arrow", "../records.arrow")
	}},
	{"file-missing", "corrupt", "records.arrow is not there", func(t testing.TB, p parts) { p["records.arrow"] = nil }},
	{"file-size", "corrupt", "files.json states one byte less than records.arrow has", func(t testing.TB, p parts) {
		n := len(p["records.arrow"])
		p[FilesName] = replace(t, p[FilesName], fmt.Sprintf(`"size":%d`, n), fmt.Sprintf(`"size":%d`, n-1))
	}},
	{"file-digest", "corrupt", "one bit of records.arrow is not what files.json states", func(t testing.TB, p parts) {
		p["records.arrow"][len(p["records.arrow"])/2] ^= 1
	}},
	arrowVector("arrow-magic", "records.arrow does not end with ARROW1", recordTable, func(s *surgery) { s.b[len(s.b)-1]++ }),
	arrowVector("arrow-footer-length", "the footer of records.arrow is said to be longer than the file", recordTable, func(s *surgery) {
		binary.LittleEndian.PutUint32(s.b[len(s.b)-10:], uint32(len(s.b)))
	}),
	arrowVector("arrow-version", "the footer of records.arrow is of metadata version V4", recordTable, func(s *surgery) {
		binary.LittleEndian.PutUint16(s.at(s.footer.slot(0)), 3)
	}),
	arrowVector("arrow-column-type", "the id of exploits.arrow is unsigned", exploitTable, func(s *surgery) {
		typ, _ := s.field(0).sub(3)
		s.at(typ.slot(1))[0] = 0
	}),
	arrowVector("arrow-schema-metadata", "the schema of records.arrow says it is another version", recordTable, func(s *surgery) {
		schema, _ := s.footer.sub(1)
		start, _ := schema.vector(2, 4)
		kv := schema.element(start, 1)
		v := kv.slot(1)
		s.at(v + flatbuffers.UOffsetT(binary.LittleEndian.Uint32(s.at(v))) + 4)[0] = '2'
	}),
	arrowVector("arrow-batch-place", "the batch of records.arrow is said to end behind the footer", recordTable, func(s *surgery) {
		s.put64(s.block(0)+16, binary.LittleEndian.Uint64(s.b[s.block(0)+16:])+1<<20)
	}),
	arrowVector("arrow-message-kind", "the batch of records.arrow says it is a dictionary", recordTable, func(s *surgery) {
		m, at := s.message(0)
		s.b[at+int(m.slot(1))] = 2
	}),
	arrowVector("arrow-batch-rows", "the batch of records.arrow has no rows", recordTable, func(s *surgery) {
		b, at := s.batch(0)
		s.put64(at+int(b.slot(0)), 0)
	}),
	arrowVector("arrow-nulls", "a column of records.arrow has a null", recordTable, func(s *surgery) { s.put64(s.node(0, 3)+8, 1) }),
	arrowVector("arrow-buffer", "a buffer of records.arrow is longer than the body", recordTable, func(s *surgery) {
		s.put64(s.buffer(0, 2)+8, 1<<40)
	}),
	arrowVector("arrow-text-offsets", "the text offsets of a column of records.arrow go down", recordTable, func(s *surgery) {
		_, k := firstText(recordTable)
		binary.LittleEndian.PutUint32(s.b[s.body(0, k)+4:], 100)
	}),
	rowsVector("exploit-not-canonical", "an exploit has port 70000", func() (exploits, records [][]byte) {
		e := Exploit{ID: 8, Columns: 17, Port: 70000, Published: NoDate, Added: NoDate, Updated: NoDate}
		x := someExploits()
		return [][]byte{x[0], e.AppendRow(nil), x[1]}, someRecords()
	}),
	rowsVector("record-not-canonical", "a record has a method in lower case", func() (exploits, records [][]byte) {
		r := record.Record{Time: record.NoTime, Kind: record.Access, Method: "get"}
		return someExploits(), append([][]byte{r.AppendRow(nil)}, someRecords()[1:]...)
	}),
	rowsVector("rows-out-of-order", "a record stands twice", func() (exploits, records [][]byte) {
		r := someRecords()
		return someExploits(), [][]byte{r[0], r[1], r[1], r[2]}
	}),
	rowsVector("exploit-id-twice", "two exploits have one id", func() (exploits, records [][]byte) {
		e := Exploit{ID: 9, Columns: 17, Published: NoDate, Added: NoDate, Updated: NoDate}
		x := someExploits()
		return [][]byte{x[0], e.AppendRow(nil), x[1]}, someRecords()
	}),
	{"batch-cut-early", "corrupt", "records.arrow has a batch of one row before another batch", func(t testing.TB, p parts) {
		var out bytes.Buffer
		w, err := newTableWriter(&out, recordTable)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range someRecords() {
			if err := w.append(row); err != nil {
				t.Fatal(err)
			}
			if w.rows == 1 && w.tree.n == 1 {
				if err := w.flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := w.close(); err != nil {
			t.Fatal(err)
		}
		p["records.arrow"] = out.Bytes()
		p.describe(t)
	}},
	{"row-count", "corrupt", "snapshot.json states one record more than there are", func(t testing.TB, p parts) {
		m := p.manifest(t)
		m.Tables[1].Rows++
		p.setManifest(t, m)
	}},
	{"merkle-root", "corrupt", "snapshot.json states the root of other records", func(t testing.TB, p parts) {
		m := p.manifest(t)
		m.Tables[1].Root = canon.Sum([]byte("other"))
		p.setManifest(t, m)
	}},
}

// TestVectors reads every vector in testdata/vectors. A vector is the directory
// 00-valid with the files of its own directory laid over it; its head file says
// which class of error to expect, why, and which file to take away.
func TestVectors(t *testing.T) {
	root := filepath.Join("testdata", "vectors")
	if *update {
		writeVectors(t, root)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(vectors) {
		t.Errorf("%d vectors in %s, %d are generated: run with -update", len(entries), root, len(vectors))
	}
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) {
			dir := t.TempDir()
			head := ""
			for _, from := range []string{"00-valid", e.Name()} {
				files, err := os.ReadDir(filepath.Join(root, from))
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range files {
					b, err := os.ReadFile(filepath.Join(root, from, f.Name()))
					if err != nil {
						t.Fatal(err)
					}
					if f.Name() == "head" {
						head = string(b)
						continue
					}
					write(t, filepath.Join(dir, f.Name()), string(b))
				}
			}
			expect := headField(head, "expect")
			if name := headField(head, "remove"); name != "" {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			_, _, err := readAll(dir)
			report, cerr := Check(context.Background(), dir)
			if report == nil {
				t.Fatal(cerr)
			}
			switch expect {
			case "ok":
				if err != nil || cerr != nil || !report.Pass() {
					t.Errorf("%v, %+v", err, report)
				}
				return
			case "corrupt":
				if !errors.Is(err, ErrCorrupt) || !errors.Is(cerr, ErrCorrupt) {
					t.Errorf("%v and %v, want %v", err, cerr, ErrCorrupt)
				}
			case "unsupported":
				if !errors.Is(err, ErrUnsupported) || !errors.Is(cerr, ErrUnsupported) {
					t.Errorf("%v and %v, want %v", err, cerr, ErrUnsupported)
				}
			default:
				t.Errorf("head says expect: %q", expect)
			}
			if report.Pass() {
				t.Errorf("Check passes: %+v", report)
			}
			t.Log(err)
		})
	}
}

func headField(head, name string) string {
	for _, line := range strings.Split(head, "\n") {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			return v
		}
	}
	return ""
}

func writeVectors(t *testing.T, root string) {
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	base := snapshotOf(t, someExploits(), someRecords())
	for i, v := range vectors {
		dir := filepath.Join(root, fmt.Sprintf("%02d-%s", i, v.name))
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		p := base.clone()
		v.spoil(t, p)
		head := fmt.Sprintf("expect: %s\nwhy: %s\n", v.expect, v.why)
		for _, name := range slices.Sorted(maps.Keys(p)) {
			switch {
			case p[name] == nil:
				head += "remove: " + name + "\n"
			case i == 0 || !bytes.Equal(p[name], base[name]):
				write(t, filepath.Join(dir, name), string(p[name]))
			}
		}
		write(t, filepath.Join(dir, "head"), head)
	}
}

// The list of FORMAT.md and the vectors go together.
func TestEveryNumberedRejectionHasItsVector(t *testing.T) {
	b, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, ok := strings.Cut(string(b), "## 6 ")
	if !ok {
		t.Fatal("FORMAT.md has no section 6")
	}
	list, _, _ = strings.Cut(list, "\n## ")
	next := 1
	for _, m := range regexp.MustCompile(`(?m)^(\d+)\. `).FindAllStringSubmatch(list, -1) {
		if n, _ := strconv.Atoi(m[1]); n != next {
			t.Errorf("rejection %d follows %d", n, next-1)
		}
		next++
	}
	if next != len(vectors) {
		t.Errorf("FORMAT.md numbers %d rejections, there are vectors for %d", next-1, len(vectors)-1)
	}
}
