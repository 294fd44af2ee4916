package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// manyRows are canonical rows in order: exploits with odd ids, and records.
func manyRows(n int) (exploits, records [][]byte) {
	for i := range n {
		e := Exploit{ID: int64(2*i + 1), Columns: 17, Title: fmt.Sprintf("Larkspur %d", i), Published: NoDate, Added: NoDate, Updated: NoDate}
		r := someRecord(i)
		exploits, records = append(exploits, e.AppendRow(nil)), append(records, r.AppendRow(nil))
	}
	return exploits, records
}

func someRecord(i int) record.Record {
	return record.Record{Time: 1_700_000_000_000_000 + 2*int64(i), Kind: record.Access, Protocol: "http", Method: "GET", Payload: fmt.Sprintf("/wiki/%d?q=\x00", i)}
}

func openProver(t testing.TB, dir string) (*Snapshot, *Prover) {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	p, err := NewProver(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

func encodeProof(t testing.TB, p *Proof, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Trees of every shape: sizes around powers of two, blocks and batches.
func TestEveryRowIsProved(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 7, 8, 255, 256, 257, 511, 513, 1000, BatchRows, BatchRows + 1, BatchRows + 300} {
		s, p := openProver(t, writeMany(t, n))
		m := s.Manifest()
		step := max(1, n/40)
		for i := 0; i < n; i += step {
			if i+step >= n {
				i = n - 1
			}
			rec := someRecord(i)
			proof, err := p.Record(&rec)
			b := encodeProof(t, proof, err)
			for _, trusted := range []Trusted{{Dataset: s.Digest()}, {Root: m.Tables[1].Root}, {Root: m.Tables[1].Root, Rows: int64(n)}} {
				got, err := VerifyProof(b, trusted)
				if err != nil || !got.Included() || got.Rows[0].Index != int64(i) || !bytes.Equal(got.Rows[0].Row, rec.AppendRow(nil)) {
					t.Fatalf("row %d of %d: %v", i, n, err)
				}
			}
			proof, err = p.Exploit(int64(2*i + 1))
			b = encodeProof(t, proof, err)
			if got, err := VerifyProof(b, Trusted{Root: m.Tables[0].Root}); err != nil || !got.Included() || got.Rows[0].Index != int64(i) {
				t.Fatalf("exploit %d of %d: %v", i, n, err)
			}
		}
		for i := -1; i < n; i += step {
			rec := someRecord(i)
			rec.Time++
			proof, err := p.Record(&rec)
			b := encodeProof(t, proof, err)
			if got, err := VerifyProof(b, Trusted{Dataset: s.Digest()}); err != nil || got.Included() || got.Order == "" {
				t.Fatalf("no record behind %d of %d: %v", i, n, err)
			}
			proof, err = p.Exploit(int64(2*i + 4))
			b = encodeProof(t, proof, err)
			if got, err := VerifyProof(b, Trusted{Dataset: s.Digest()}); err != nil || got.Included() {
				t.Fatalf("no exploit %d of %d: %v", 2*i+4, n, err)
			}
		}
	}
}

// writeMany writes a snapshot of n exploits and n records.
func writeMany(t testing.TB, n int) string {
	t.Helper()
	exploits, records := manyRows(n)
	return snapshotOf(t, exploits, records).write(t, t.TempDir())
}

func TestProofOfTheRealData(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the real data")
	}
	dir := realSnapshot(t)
	s, p := openProver(t, dir)
	rng := rand.New(rand.NewPCG(1, 2))
	for n, table := range s.Manifest().Tables {
		var rows [][]byte
		err := s.canonicalRows(context.Background(), n, func(row []byte) bool {
			rows = append(rows, bytes.Clone(row))
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		largest := [2]int{} // of inclusion and absence, without row contents
		for range 500 {
			i := rng.IntN(len(rows))
			here, gone := proveBoth(t, p, n, rows, i)
			for k, b := range [][]byte{here, gone} {
				got, err := VerifyProof(b, Trusted{Dataset: s.Digest()})
				if err != nil || got.Included() != (k == 0) || got.Table != table.Name {
					t.Fatalf("row %d of %s: %v", i, table.Name, err)
				}
				if k == 0 && (got.Rows[0].Index != int64(i) || !bytes.Equal(got.Rows[0].Row, rows[i])) {
					t.Fatalf("row %d of %s: proved another", i, table.Name)
				}
				largest[k] = max(largest[k], len(b)-contents(got))
				// One byte anywhere, another in every proof.
				at := rng.IntN(len(b))
				bad := bytes.Clone(b)
				bad[at] ^= byte(1 + rng.IntN(255))
				if _, err := VerifyProof(bad, Trusted{Dataset: s.Digest()}); !errors.Is(err, ErrProof) && !errors.Is(err, ErrUnsupported) {
					t.Fatalf("byte %d of the proof of row %d of %s changed: %v", at, i, table.Name, err)
				}
			}
		}
		t.Logf("%s: %d rows, proofs of at most %d (inclusion) and %d bytes (absence) without rows", table.Name, len(rows), largest[0], largest[1])
		if len(rows) <= 1<<17 && (largest[0] > 2<<10 || largest[1] > 4<<10) {
			t.Errorf("%s: proofs are too large", table.Name)
		}
	}
}

// proveBoth proves that row i of table n is there, and that one just above it
// is not.
func proveBoth(t testing.TB, p *Prover, n int, rows [][]byte, i int) (here, gone []byte) {
	t.Helper()
	if n == 0 {
		e, err := decodeExploit(rows[i])
		if err != nil {
			t.Fatal(err)
		}
		proof, err := p.Exploit(e.ID)
		here = encodeProof(t, proof, err)
		for id := e.ID + 1; ; id++ {
			if i++; i < len(rows) && bytes.HasPrefix(rows[i], canon.AppendInt(nil, id)) {
				continue
			}
			proof, err = p.Exploit(id)
			return here, encodeProof(t, proof, err)
		}
	}
	var r record.Record
	if err := record.DecodeRow(rows[i], &r); err != nil {
		t.Fatal(err)
	}
	proof, err := p.Record(&r)
	here = encodeProof(t, proof, err)
	r.Exploit = 1<<53 - 1
	proof, err = p.Record(&r)
	return here, encodeProof(t, proof, err)
}

// contents is how many bytes of a proof the rows make.
func contents(p *Proof) int {
	n := 0
	for _, r := range p.Rows {
		n += (len(r.Row) + 2) / 3 * 4
	}
	if p.Absent != nil {
		n += (len(p.Absent.Row) + 2) / 3 * 4
	}
	return n
}

// The same at 100,000 rows: the bounds on size that PROOF.md names.
func TestSizeOfProofs(t *testing.T) {
	if testing.Short() {
		t.Skip("builds 100,000 rows")
	}
	_, p := openProver(t, writeMany(t, 100_000))
	rec := someRecord(31_337)
	proof, err := p.Record(&rec)
	if n := len(encodeProof(t, proof, err)) - contents(proof); n > 2<<10 {
		t.Errorf("inclusion: %d bytes", n)
	} else {
		t.Logf("inclusion: %d bytes", n)
	}
	rec.Time++
	proof, err = p.Record(&rec)
	if n := len(encodeProof(t, proof, err)) - contents(proof); n > 4<<10 {
		t.Errorf("absence: %d bytes", n)
	} else {
		t.Logf("absence: %d bytes", n)
	}
}

// Every byte, one after the other, of one proof of each kind.
func TestEveryFlippedByteIsRefused(t *testing.T) {
	s, p := openProver(t, writeMany(t, 300))
	rec, none := someRecord(77), someRecord(77)
	none.Time++
	a, err := p.Record(&rec)
	here := encodeProof(t, a, err)
	a, err = p.Record(&none)
	gone := encodeProof(t, a, err)
	a, err = p.Exploit(7)
	exploit := encodeProof(t, a, err)
	a, err = p.Exploit(8)
	other := encodeProof(t, a, err)
	for _, b := range [][]byte{here, gone, exploit, other} {
		if _, err := VerifyProof(b, Trusted{Dataset: s.Digest()}); err != nil {
			t.Fatal(err)
		}
		for i := range b {
			for _, x := range []byte{1, 2, 16, 32, 128, 255} {
				b[i] ^= x
				if _, err := VerifyProof(b, Trusted{Dataset: s.Digest()}); !errors.Is(err, ErrProof) && !errors.Is(err, ErrUnsupported) {
					t.Fatalf("byte %d ^ %d: %v\n%s", i, x, err, b)
				}
				b[i] ^= x
			}
		}
	}
}

func TestProofsOfTheWrongThing(t *testing.T) {
	s, p := openProver(t, writeMany(t, 300))
	rec := someRecord(77)
	proof, err := p.Record(&rec)
	b := encodeProof(t, proof, err)
	root := s.Manifest().Tables[1].Root
	for name, trusted := range map[string]Trusted{
		"nothing":         {},
		"rows alone":      {Rows: 300},
		"another dataset": {Dataset: canon.Sum(nil)},
		"another root":    {Root: canon.Sum(nil)},
		"another table":   {Root: s.Manifest().Tables[0].Root},
		"another number":  {Root: root, Rows: 301},
		"one of the two":  {Dataset: s.Digest(), Root: canon.Sum(nil)},
	} {
		if _, err := VerifyProof(b, trusted); !errors.Is(err, ErrProof) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRecordInAnotherForm(t *testing.T) {
	for _, form := range []record.AddressForm{record.Truncated, record.Hashed} {
		parts := snapshotOf(t, nil, nil)
		m := parts.manifest(t)
		m.Address, m.Redaction = form, record.Redaction
		parts.setManifest(t, m)
		_, p := openProver(t, parts.write(t, t.TempDir()))
		for name, r := range map[string]record.Record{
			"address":       {Time: record.NoTime, Kind: record.Access, Address: "192.0.2.7"},
			"text":          {Time: record.NoTime, Kind: record.Access, Payload: "/?mail=someone@example.org"},
			"not canonical": {Time: record.NoTime, Kind: record.Access, Method: "get"},
		} {
			if proof, err := p.Record(&r); err == nil {
				t.Errorf("%s, %s: %+v", form, name, proof)
			}
		}
		if _, err := p.Record(&record.Record{Time: record.NoTime, Kind: record.Access, Address: "h:0123456789abcdef"}); err != nil {
			t.Errorf("%s: a keyed hash: %v", form, err)
		}
	}
	_, p := openProver(t, writeMany(t, 3))
	for _, id := range []int64{0, -1, maxExploitID + 1} {
		if _, err := p.Exploit(id); err == nil {
			t.Errorf("id %d", id)
		}
	}
}

func TestProverNoticesAChange(t *testing.T) {
	dir := writeMany(t, 300)
	_, p := openProver(t, dir)
	path := filepath.Join(dir, "records.arrow")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(b, []byte("/wiki/77"))
	b[i+6]++
	if err := os.WriteFile(path, b, 0o644); err != nil { // in place: the same file that is open
		t.Fatal(err)
	}
	rec := someRecord(76)
	if proof, err := p.Record(&rec); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%+v, %v", proof, err)
	}
}

// proofVectors are what a reader must reject, in the order of PROOF.md, made
// from valid proofs.
var proofVectors = []struct {
	name, expect, why string
	make              func(t testing.TB, v *vectorProofs) any // a *Proof, or bytes
}{
	{"inclusion", "ok", "record 5 of 11 is there", func(_ testing.TB, v *vectorProofs) any { return v.here }},
	{"too-large", "refused", "more than 1,081,344 bytes", func(t testing.TB, v *vectorProofs) any {
		return append(encodeProof(t, v.here, nil), bytes.Repeat([]byte(" "), MaxProof)...)
	}},
	{"not-canonical", "refused", "a space that canonical JSON has not", func(t testing.TB, v *vectorProofs) any {
		return replace(t, encodeProof(t, v.here, nil), `"format":1`, `"format": 1`)
	}},
	{"unknown-member", "refused", "a member that the format does not know", func(t testing.TB, v *vectorProofs) any {
		return replace(t, encodeProof(t, v.here, nil), `"format":1`, `"format":1,"note":"x"`)
	}},
	{"format-version", "unsupported", "format 2", func(t testing.TB, v *vectorProofs) any { v.here.Format = 2; return v.here }},
	{"base64", "refused", "spare bits of base64 are set", func(t testing.TB, v *vectorProofs) any {
		b := encodeProof(t, v.here, nil)
		i := bytes.Index(b, []byte(`=="`)) - 1
		b[i]++
		return b
	}},
	{"snapshot", "refused", "the snapshot.json in it has one table", func(_ testing.TB, v *vectorProofs) any {
		v.here.Snapshot.Tables = v.here.Snapshot.Tables[1:]
		return v.here
	}},
	{"table", "refused", "a table that there is not", func(_ testing.TB, v *vectorProofs) any { v.here.Table = "events"; return v.here }},
	{"inclusion-of-two", "refused", "a proof of inclusion with two rows", func(_ testing.TB, v *vectorProofs) any {
		v.here.Rows = v.gone.Rows
		return v.here
	}},
	{"order-not-checked", "refused", "a proof of absence that does not say that order was checked", func(_ testing.TB, v *vectorProofs) any {
		v.gone.Order = ""
		return v.gone
	}},
	{"index", "refused", "row 11 of 11", func(_ testing.TB, v *vectorProofs) any { v.here.Rows[0].Index = 11; return v.here }},
	{"row-not-canonical", "refused", "a record with a method in lower case", func(_ testing.TB, v *vectorProofs) any {
		r := record.Record{Time: record.NoTime, Kind: record.Access, Method: "get"}
		v.here.Rows[0].Row = r.AppendRow(nil)
		return v.here
	}},
	{"path-length", "refused", "a path that is one digest short", func(_ testing.TB, v *vectorProofs) any {
		v.here.Rows[0].Path = v.here.Rows[0].Path[1:]
		return v.here
	}},
	{"path", "refused", "the path of another row", func(_ testing.TB, v *vectorProofs) any {
		v.here.Rows[0].Path = v.gone.Rows[0].Path
		return v.here
	}},
	{"absent", "refused", "an EDB id is said to be absent from records", func(_ testing.TB, v *vectorProofs) any {
		v.gone.Absent = newAbsent(4, nil)
		return v.gone
	}},
	{"absent-digest", "refused", "another row is absent than its digest says", func(_ testing.TB, v *vectorProofs) any {
		r := someRecord(2)
		r.Time, r.Size = r.Time+1, 7
		v.gone.Absent.Row = r.AppendRow(nil)
		return v.gone
	}},
	{"no-neighbours", "refused", "the row before is missing", func(_ testing.TB, v *vectorProofs) any {
		v.gone.Rows = v.gone.Rows[1:]
		return v.gone
	}},
	{"not-between", "refused", "a record that stands behind both rows", func(_ testing.TB, v *vectorProofs) any {
		r := someRecord(9)
		v.gone.Absent = newAbsent(0, r.AppendRow(nil))
		return v.gone
	}},
	{"another-dataset", "refused", "a valid proof about another dataset", func(_ testing.TB, v *vectorProofs) any { return v.other }},
	{"absence", "ok", "no record stands between rows 2 and 3 of 11", func(_ testing.TB, v *vectorProofs) any { return v.gone }},
}

// vectorProofs are valid proofs: of record 5 of 11 rows, that none stands between
// 2 and 3, and of record 5 in a dataset of 12.
type vectorProofs struct {
	dataset           canon.Digest
	here, gone, other *Proof
}

func newVectorProofs(t testing.TB) *vectorProofs {
	s, p := openProver(t, writeMany(t, 11))
	_, p12 := openProver(t, writeMany(t, 12))
	v := &vectorProofs{dataset: s.Digest()}
	rec, none := someRecord(5), someRecord(2)
	none.Time++
	var err error
	if v.here, err = p.Record(&rec); err != nil {
		t.Fatal(err)
	}
	if v.gone, err = p.Record(&none); err != nil {
		t.Fatal(err)
	}
	if v.other, err = p12.Record(&rec); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestProofVectors reads every vector in testdata/proofs: a proof.json, and a
// head that says which dataset is trusted and what a reader must answer.
func TestProofVectors(t *testing.T) {
	root := filepath.Join("testdata", "proofs")
	if *update {
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
		for i, v := range proofVectors {
			valid := newVectorProofs(t)
			dir := filepath.Join(root, fmt.Sprintf("%02d-%s", i, v.name))
			if i == len(proofVectors)-1 {
				dir = filepath.Join(root, "00-"+v.name)
			}
			if err := os.MkdirAll(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			made := v.make(t, valid)
			b, ok := made.([]byte)
			if !ok {
				b = encodeProof(t, made.(*Proof), nil)
			}
			if len(b) > MaxProof { // too long to keep
				write(t, filepath.Join(dir, "head"), fmt.Sprintf("expect: %s\nwhy: %s\ndataset: %s\npad: %d\n", v.expect, v.why, valid.dataset, len(b)))
				b = bytes.TrimRight(b, " ")
			} else {
				write(t, filepath.Join(dir, "head"), fmt.Sprintf("expect: %s\nwhy: %s\ndataset: %s\n", v.expect, v.why, valid.dataset))
			}
			write(t, filepath.Join(dir, "proof.json"), string(b))
		}
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(proofVectors) {
		t.Errorf("%d vectors in %s, %d are generated: run with -update", len(entries), root, len(proofVectors))
	}
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(root, e.Name(), "proof.json"))
			if err != nil {
				t.Fatal(err)
			}
			h, err := os.ReadFile(filepath.Join(root, e.Name(), "head"))
			if err != nil {
				t.Fatal(err)
			}
			head := string(h)
			if pad, _ := strconv.Atoi(headField(head, "pad")); pad > 0 {
				b = append(b, bytes.Repeat([]byte(" "), pad-len(b))...)
			}
			dataset, err := canon.ParseDigest(headField(head, "dataset"))
			if err != nil {
				t.Fatal(err)
			}
			_, err = VerifyProof(b, Trusted{Dataset: dataset})
			switch expect := headField(head, "expect"); {
			case expect == "ok" && err == nil:
			case expect == "refused" && errors.Is(err, ErrProof):
			case expect == "unsupported" && errors.Is(err, ErrUnsupported):
			default:
				t.Errorf("head says expect: %q, got %v", expect, err)
			}
			t.Log(err)
		})
	}
}

// The list of PROOF.md and the vectors go together.
func TestEveryRejectionOfAProofHasItsVector(t *testing.T) {
	b, err := os.ReadFile("PROOF.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(b), "A reader must reject")
	list, _, _ = strings.Cut(list, "\n## ")
	next := 1
	for _, m := range regexp.MustCompile(`(?m)^(\d+)\. `).FindAllStringSubmatch(list, -1) {
		if n, _ := strconv.Atoi(m[1]); n != next {
			t.Errorf("rejection %d follows %d", n, next-1)
		}
		next++
	}
	if next != len(proofVectors)-1 {
		t.Errorf("PROOF.md numbers %d rejections, there are vectors for %d", next-1, len(proofVectors)-2)
	}
}

func FuzzProof(f *testing.F) {
	v := newVectorProofs(f)
	exploits, records := manyRows(11)
	for _, p := range []*Proof{v.here, v.gone, v.other} {
		f.Add(encodeProof(f, p, nil))
	}
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodeProof(b)
		if err != nil {
			if !errors.Is(err, ErrProof) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		again, err := p.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q becomes %q, %v", b, again, err)
		}
		if _, err := VerifyProof(b, Trusted{Dataset: v.dataset}); err != nil {
			return
		}
		for _, r := range p.Rows {
			if rows := map[string][][]byte{"exploits": exploits, "records": records}[p.Table]; !bytes.Equal(r.Row, rows[r.Index]) {
				t.Fatalf("%q proves a row that is not there", b)
			}
		}
	})
}

func BenchmarkProve(b *testing.B) {
	s, p := openProver(b, realSnapshot(b))
	var rows []record.Record
	for r, err := range s.Records(context.Background()) {
		if err != nil {
			b.Fatal(err)
		}
		rows = append(rows, *r)
	}
	for _, kind := range []string{"inclusion", "absence"} {
		rng := rand.New(rand.NewPCG(1, 2))
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := rows[rng.IntN(len(rows))]
				if kind == "absence" {
					r.Exploit = 1<<53 - 1
				}
				if _, err := p.Record(&r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			if _, err := NewProver(context.Background(), s); err != nil {
				b.Fatal(err)
			}
		}
	})
	rec := rows[len(rows)/2]
	proof, err := p.Record(&rec)
	text := encodeProof(b, proof, err)
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			if _, err := VerifyProof(text, Trusted{Dataset: s.Digest()}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// realSnapshot builds the snapshot of the real data.
func realSnapshot(t testing.TB) string {
	dir := t.TempDir()
	if _, err := Build(context.Background(), Config{Inputs: realInputs(t)}, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
