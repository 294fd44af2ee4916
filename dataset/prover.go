package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// blockLevel is the level of the Merkle tree from which a Prover keeps the
// nodes: one for every 2^blockLevel rows. It hashes what lies below anew.
const blockLevel = 8

// A Prover makes proofs about one snapshot. It holds half a byte of memory for
// each row, and the first row of each batch. Its methods may be called from
// many goroutines while the snapshot is open; they take turns.
type Prover struct {
	snapshot *Snapshot
	mu       sync.Mutex
	tables   []*provedTable // in the order of tables
}

// provedTable finds rows and nodes of one table.
type provedTable struct {
	table  *table
	reader *batchReader
	loaded int               // batch that the reader holds; -1 none
	batch  *batch            // it
	starts []int64           // number of the first row of each batch, and of all rows behind them
	firsts [][]byte          // first row of each batch
	nodes  [][]byte          // hashes of the nodes on level blockLevel and above, by level
	row    []byte            // scratch
	leaves map[int64]digests // hashes of the leaves of blocks; for one proof
}

type digests []byte // hashes of sha256.Size bytes each, one behind the other

// at returns digest i.
func (h digests) at(i int64) []byte { return h[i*sha256.Size : (i+1)*sha256.Size] }

// NewProver reads s once, with all checks that Exploits and Records make, order
// among them: a proof of absence rests on it. A broken snapshot is ErrCorrupt.
func NewProver(ctx context.Context, s *Snapshot) (*Prover, error) {
	p := &Prover{snapshot: s}
	for n, t := range tables {
		x, err := s.index(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", t.file(), err)
		}
		p.tables = append(p.tables, x)
	}
	return p, nil
}

func (s *Snapshot) index(ctx context.Context, n int) (*provedTable, error) {
	file := s.arrow[n]
	r, err := file.newReader()
	if err != nil {
		return nil, err
	}
	x := &provedTable{table: tables[n], reader: r, loaded: -1, starts: []int64{0}}
	for _, rows := range file.batches {
		x.starts = append(x.starts, x.starts[len(x.starts)-1]+int64(rows))
	}
	grown := newTree()
	grown.visit = func(id compact.NodeID, node []byte) {
		if id.Level < blockLevel {
			return
		}
		l := int(id.Level - blockLevel)
		for len(x.nodes) <= l {
			x.nodes = append(x.nodes, nil)
		}
		x.nodes[l] = append(x.nodes[l], node...) // nodes of a level are completed from left to right
	}
	err = s.canonicalRows(ctx, n, func(row []byte) bool {
		if grown.n == x.starts[len(x.firsts)] {
			x.firsts = append(x.firsts, bytes.Clone(row))
		}
		grown.add(row)
		return true
	})
	return x, err
}

// Exploit returns the proof that the exploit with an EDB id, 1 to 2^53-1, is
// there, or that none is.
func (p *Prover) Exploit(id int64) (*Proof, error) {
	absent := newAbsent(id, nil)
	if err := absent.check(exploitTable.name); err != nil {
		return nil, err
	}
	return p.prove(0, absent)
}

// Record returns the proof that a record is there, or that it is not. It must
// be in canonical form and in the privacy form of the snapshot; an error says
// if it is not.
func (p *Prover) Record(r *record.Record) (*Proof, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	m := p.snapshot.manifest
	private := *r
	if m.Address == record.Hashed && r.Address != "" && !strings.HasPrefix(r.Address, "h:") {
		return nil, fmt.Errorf("the dataset holds keyed hashes of addresses: give the hash of %s, h: and 16 hex digits", r.Address)
	}
	(record.Privacy{Address: m.Address, Redaction: m.Redaction}).Apply(&private)
	if private != *r {
		return nil, fmt.Errorf("the record is not in the form of the dataset: address %s, redaction %d", m.Address, m.Redaction)
	}
	return p.prove(1, newAbsent(0, r.AppendRow(nil)))
}

// prove proves that what may be absent from table n is there, or that it is not.
func (p *Prover) prove(n int, absent *Absent) (*Proof, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.tables[n]
	x.leaves = map[int64]digests{}
	defer func() { x.leaves = nil }()
	out := &Proof{Format: ProofFormat, Rows: []ProvedRow{}, Snapshot: p.snapshot.manifest, Table: x.table.name}
	at, found, err := x.find(absent.key())
	if err != nil {
		return nil, err
	}
	from, to := at, at+1
	if !found {
		out.Absent, out.Order = absent, checkedByProver
		from, to = max(0, at-1), min(x.rows(), at+1)
	}
	for i := from; i < to; i++ {
		row, err := x.proveRow(i)
		if err != nil {
			return nil, err
		}
		out.Rows = append(out.Rows, row)
	}
	// The files may have changed since they were checked.
	for i := range out.Rows {
		if err := out.checkRow(&out.Rows[i]); err != nil {
			return nil, corrupt(x.table, "changed while it was read: %v", err)
		}
	}
	if !found {
		if err := out.checkAbsence(); err != nil {
			return nil, corrupt(x.table, "changed while it was read: %v", err)
		}
	}
	return out, nil
}

func (x *provedTable) rows() int64 { return x.starts[len(x.starts)-1] }

// find returns the number of the first row that is not below key, and whether
// it begins with key.
func (x *provedTable) find(key []byte) (at int64, found bool, err error) {
	b := sort.Search(len(x.firsts), func(i int) bool { return bytes.Compare(x.firsts[i], key) > 0 }) - 1
	if b < 0 {
		return 0, x.rows() > 0 && bytes.HasPrefix(x.firsts[0], key), nil
	}
	if err := x.load(b); err != nil {
		return 0, false, err
	}
	k := sort.Search(x.batch.rows, func(i int) bool {
		x.row = x.table.appendRow(x.row[:0], x.batch, i)
		return bytes.Compare(x.row, key) >= 0
	})
	at = x.starts[b] + int64(k)
	if at == x.rows() {
		return at, false, nil
	}
	if err := x.get(at); err != nil {
		return 0, false, err
	}
	return at, bytes.HasPrefix(x.row, key), nil
}

func (x *provedTable) load(b int) error {
	if x.loaded == b {
		return nil
	}
	x.loaded = -1
	batch, err := x.reader.load(b)
	if err != nil {
		return err
	}
	x.loaded, x.batch = b, batch
	return nil
}

// get puts row i into x.row.
func (x *provedTable) get(i int64) error {
	b := sort.Search(len(x.firsts), func(b int) bool { return x.starts[b+1] > i })
	if err := x.load(b); err != nil {
		return err
	}
	x.row = x.table.appendRow(x.row[:0], x.batch, int(i-x.starts[b]))
	return nil
}

func (x *provedTable) proveRow(i int64) (ProvedRow, error) {
	nodes, err := proof.Inclusion(uint64(i), uint64(x.rows()))
	if err != nil {
		return ProvedRow{}, err
	}
	hashes := make([][]byte, len(nodes.IDs))
	for k, id := range nodes.IDs {
		if hashes[k], err = x.node(int(id.Level), int64(id.Index)); err != nil {
			return ProvedRow{}, err
		}
	}
	if hashes, err = nodes.Rehash(hashes, hashChildren); err != nil {
		return ProvedRow{}, err
	}
	if err := x.get(i); err != nil {
		return ProvedRow{}, err
	}
	r := ProvedRow{Index: i, Path: []canon.Digest{}, Row: bytes.Clone(x.row)}
	for _, h := range hashes {
		r.Path = append(r.Path, canon.Digest(h))
	}
	return r, nil
}

// node returns the hash of a node whose subtree is complete.
func (x *provedTable) node(level int, index int64) ([]byte, error) {
	if level >= blockLevel {
		return digests(x.nodes[level-blockLevel]).at(index), nil
	}
	if level == 0 {
		leaves, err := x.block(index >> blockLevel)
		if err != nil {
			return nil, err
		}
		return leaves.at(index & (1<<blockLevel - 1)), nil
	}
	left, err := x.node(level-1, 2*index)
	if err != nil {
		return nil, err
	}
	right, err := x.node(level-1, 2*index+1)
	if err != nil {
		return nil, err
	}
	return hashChildren(left, right), nil
}

// block returns the leaves' hashes of a block, as far as it goes.
func (x *provedTable) block(b int64) (digests, error) {
	if h, ok := x.leaves[b]; ok {
		return h, nil
	}
	var h digests
	for i := b << blockLevel; i < min((b+1)<<blockLevel, x.rows()); i++ {
		if err := x.get(i); err != nil {
			return nil, err
		}
		h = append(h, rfc6962.DefaultHasher.HashLeaf(x.row)...)
	}
	x.leaves[b] = h
	return h, nil
}
