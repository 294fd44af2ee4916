package dataset

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// ErrProof: a proof breaks a rule of PROOF.md, or proves something about
// another dataset than the one that was asked about.
var ErrProof = errors.New("proof refused")

const (
	// ProofFormat is the version of proofs that this package writes and reads.
	ProofFormat = 1
	// MaxProof bounds a proof, in bytes: three rows at their limit in base64 and
	// everything beside them.
	MaxProof = 1<<20 + 32<<10

	// checkedByProver is the one value of Proof.Order.
	checkedByProver = "checked by the prover"
)

// Proof shows that a row is in a table of a dataset, or that it is not.
// PROOF.md specifies its form.
type Proof struct {
	Absent   *Absent     `json:"absent,omitempty"` // what is not there; nil in a proof of inclusion
	Format   int         `json:"format"`           // ProofFormat
	Order    string      `json:"order,omitempty"`  // what an absence rests on: "checked by the prover"
	Rows     []ProvedRow `json:"rows"`             // the row; or the neighbours of what is absent, in order
	Snapshot Manifest    `json:"snapshot"`         // snapshot.json: names the table's root and number of rows
	Table    string      `json:"table"`            // "exploits" or "records"
}

// Absent says what a table does not hold: in exploits an EDB id, in records a
// row.
type Absent struct {
	// Digest is that of the row, or of the id in the row encoding. The rows of a
	// proof enclose other absent rows as well: without it a damaged proof would be a
	// true one about something else.
	Digest canon.Digest `json:"digest"`
	ID     int64        `json:"id,omitzero"`
	Row    []byte       `json:"row,omitempty"` // canonical row
}

func newAbsent(id int64, row []byte) *Absent {
	a := &Absent{ID: id, Row: row}
	a.Digest = canon.Sum(a.key())
	return a
}

// ProvedRow is a row with its RFC 6962 audit path.
type ProvedRow struct {
	Index int64          `json:"index"` // from 0
	Path  []canon.Digest `json:"path"`  // from the leaf's sibling up
	Row   []byte         `json:"row"`   // canonical row
}

// Trusted is what a verifier of a proof knows from elsewhere, say from a
// release that it judged or a statement that somebody signed. One of the two
// digests must be set.
type Trusted struct {
	// Dataset is the dataset digest. It covers all that a proof says about the
	// dataset.
	Dataset canon.Digest
	// Root is the Merkle root of the proof's table. It covers the rows; what the
	// proof says about the other table and about privacy is then nobody's word.
	Root canon.Digest
	// Rows is the number of rows of that table; 0 if it is not known. Without it
	// and without Dataset, positions are the proof's word. That a row is there,
	// that two are neighbours and that one is the first or last does not depend on it.
	Rows int64
}

// Included reports whether p is a proof that a row is there.
func (p *Proof) Included() bool { return p.Absent == nil }

// About returns the canonical row that p proves to be there or not. It is nil
// when p says that an EDB id is absent.
func (p *Proof) About() []byte {
	if p.Included() {
		return p.Rows[0].Row
	}
	return p.Absent.Row
}

// ID returns the EDB id that p is about; a proof about a record has none.
func (p *Proof) ID() (int64, error) {
	switch {
	case p.Table != exploitTable.name:
		return 0, fmt.Errorf("%w: it is about a record", ErrProof)
	case !p.Included():
		return p.Absent.ID, nil
	}
	e, err := decodeExploit(p.Rows[0].Row)
	return e.ID, err
}

// Encode returns the one form of p.
func (p *Proof) Encode() ([]byte, error) { return canon.Marshal(p) }

// VerifyProof reads a proof and returns it if it holds for what is trusted.
// Every broken rule is ErrProof, a version that this package does not know
// ErrUnsupported. It needs nothing but its arguments.
func VerifyProof(b []byte, trusted Trusted) (*Proof, error) {
	p, err := DecodeProof(b)
	if err != nil {
		return nil, err
	}
	root := p.table().Root
	switch {
	case trusted.Dataset.IsZero() && trusted.Root.IsZero():
		return nil, fmt.Errorf("%w: nothing is trusted: a dataset digest or a Merkle root is needed", ErrProof)
	case !trusted.Dataset.IsZero() && p.Dataset() != trusted.Dataset:
		return nil, fmt.Errorf("%w: it speaks of dataset %s, not of %s", ErrProof, p.Dataset(), trusted.Dataset)
	case !trusted.Root.IsZero() && root != trusted.Root:
		return nil, fmt.Errorf("%w: its table %s has root %s, not %s", ErrProof, p.Table, root, trusted.Root)
	case trusted.Rows != 0 && p.table().Rows != trusted.Rows:
		return nil, fmt.Errorf("%w: its table %s has %d rows, not %d", ErrProof, p.Table, p.table().Rows, trusted.Rows)
	}
	return p, nil
}

// DecodeProof reads a proof and checks that it proves what it says about the
// dataset that it names itself. VerifyProof also asks whether that is the right one.
func DecodeProof(b []byte) (*Proof, error) {
	bad := func(format string, a ...any) (*Proof, error) {
		return nil, fmt.Errorf("%w: %s", ErrProof, fmt.Sprintf(format, a...))
	}
	if len(b) > MaxProof {
		return bad("%d bytes, limit %d", len(b), MaxProof)
	}
	var version struct {
		Format *int `json:"format"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return bad("%v", err)
	}
	if version.Format != nil && *version.Format != ProofFormat {
		return nil, fmt.Errorf("%w: proof of format %d, want %d", ErrUnsupported, *version.Format, ProofFormat)
	}
	p := new(Proof)
	if err := canon.UnmarshalCanonical(b, p); err != nil {
		return bad("%v", err)
	}
	// A member that is missing reads as zero, and base64 has spare bits; only this finds it.
	if again, err := p.Encode(); err != nil || !bytes.Equal(again, b) {
		return bad("a member is missing, or not in its one form")
	}
	snapshot, err := canon.Marshal(p.Snapshot)
	if err == nil {
		_, err = DecodeManifest(snapshot)
	}
	switch {
	case errors.Is(err, ErrUnsupported):
		return nil, err
	case err != nil:
		return bad("%v", err)
	case p.table() == nil:
		return bad("table %q: want exploits or records", clip(p.Table))
	case p.Included() && (p.Order != "" || len(p.Rows) != 1):
		return bad("a proof of inclusion has one row and says nothing of order, this has %d rows", len(p.Rows))
	case !p.Included() && p.Order != checkedByProver:
		return bad("a proof of absence says that order was %q, not %q", checkedByProver, clip(p.Order))
	}
	for i := range p.Rows {
		if err := p.checkRow(&p.Rows[i]); err != nil {
			return bad("row %d: %v", p.Rows[i].Index, err)
		}
	}
	if !p.Included() {
		if err := p.checkAbsence(); err != nil {
			return bad("%v", err)
		}
	}
	return p, nil
}

// Dataset is the dataset digest of the snapshot.json that p holds.
func (p *Proof) Dataset() canon.Digest {
	b, err := canon.Marshal(p.Snapshot)
	if err != nil {
		return canon.Digest{}
	}
	return canon.Sum(b)
}

// table is what p's snapshot.json says of p's table, or nil.
func (p *Proof) table() *Table {
	for i := range p.Snapshot.Tables {
		if p.Snapshot.Tables[i].Name == p.Table {
			return &p.Snapshot.Tables[i]
		}
	}
	return nil
}

// checkRow reports why r is not a row of its table.
func (p *Proof) checkRow(r *ProvedRow) error {
	t := p.table()
	if r.Index < 0 || r.Index >= t.Rows {
		return fmt.Errorf("the table has %d rows", t.Rows)
	}
	if err := checkRowOf(p.Table, r.Row); err != nil {
		return err
	}
	path := make([][]byte, len(r.Path))
	for i, d := range r.Path {
		if d.IsZero() {
			return errors.New("a digest of the path is empty")
		}
		path[i] = d[:]
	}
	root, err := proof.RootFromInclusionProof(rfc6962.DefaultHasher, uint64(r.Index), uint64(t.Rows), rfc6962.DefaultHasher.HashLeaf(r.Row), path)
	switch {
	case err != nil:
		return fmt.Errorf("a path of %d digests, which its place in a table of %d rows does not have", len(path), t.Rows)
	case !bytes.Equal(root, t.Root[:]):
		return fmt.Errorf("not in the table with root %s", t.Root)
	}
	return nil
}

// checkRowOf reports why row is no canonical row of a table.
func checkRowOf(table string, row []byte) error {
	if len(row) > maxRow {
		return fmt.Errorf("%d bytes, limit %d", len(row), maxRow)
	}
	var err error
	if table == recordTable.name {
		err = record.DecodeRow(row, new(record.Record))
	} else {
		_, err = decodeExploit(row)
	}
	if err != nil {
		return fmt.Errorf("no canonical row of %s: %w", table, err)
	}
	return nil
}

// checkAbsence reports why the rows of p do not enclose what is absent.
func (p *Proof) checkAbsence() error {
	if err := p.Absent.check(p.Table); err != nil {
		return err
	}
	key := p.Absent.key()
	rows := p.table().Rows
	if rows == 0 {
		if len(p.Rows) != 0 {
			return errors.New("an empty table has no rows")
		}
		if want := (&tree{r: treeFactory.NewEmptyRange(0)}).root(); p.table().Root != want {
			return fmt.Errorf("root %s is not that of an empty table", p.table().Root)
		}
		return nil
	}
	var before, behind *ProvedRow
	switch {
	case len(p.Rows) == 2:
		before, behind = &p.Rows[0], &p.Rows[1]
		if before.Index+1 != behind.Index {
			return fmt.Errorf("rows %d and %d are no neighbours", before.Index, behind.Index)
		}
	case len(p.Rows) == 1 && p.Rows[0].Index == 0 && bytes.Compare(key, p.Rows[0].Row) < 0:
		behind = &p.Rows[0]
	case len(p.Rows) == 1 && p.Rows[0].Index == rows-1:
		before = &p.Rows[0]
	default:
		return fmt.Errorf("%d rows that are not the two neighbours, nor the first or last row", len(p.Rows))
	}
	if before != nil && (bytes.Compare(before.Row, key) >= 0 || bytes.HasPrefix(before.Row, key)) {
		return fmt.Errorf("row %d does not lie before what is said to be absent", before.Index)
	}
	if behind != nil && (bytes.Compare(key, behind.Row) >= 0 || bytes.HasPrefix(behind.Row, key)) {
		return fmt.Errorf("row %d does not lie behind what is said to be absent", behind.Index)
	}
	return nil
}

// key is what rows are compared with: the first bytes of a row that is not there.
func (a *Absent) key() []byte {
	if a.Row != nil {
		return a.Row
	}
	return canon.AppendInt(nil, a.ID)
}

// check reports why a can not be what is absent from a table.
func (a *Absent) check(table string) error {
	switch {
	case table == exploitTable.name && (a.Row != nil || a.ID < 1 || a.ID > maxExploitID):
		return fmt.Errorf("what is absent from exploits is an id from 1 to %d", int64(maxExploitID))
	case table == recordTable.name && (a.ID != 0 || a.Row == nil):
		return errors.New("what is absent from records is a row")
	case a.Digest != canon.Sum(a.key()):
		return fmt.Errorf("the digest of what is absent is not %s", a.Digest)
	case a.Row != nil:
		return checkRowOf(table, a.Row)
	}
	return nil
}
