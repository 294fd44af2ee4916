package dataset

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/cespare/xxhash/v2"
)

const (
	arenaBlock = 1 << 20   // bytes of rows allocated at a time, at least maxRow
	rowCost    = 64        // bytes charged for a row in memory beside its own
	mergeFanIn = 64        // runs merged at a time; bounds open files
	runBuffer  = 128 << 10 // bytes of read buffer per run, less when memory is short
)

// A sorter turns rows that come in any order, from any number of goroutines,
// into the ordered set of the distinct ones. Rows that exceed its memory are
// sorted into runs on disk, which are merged at the end; so neither the memory
// limit nor the arrival order shows in the result.
type sorter struct {
	dir    string // an existing directory for runs, owned by the sorter
	limit  int64  // bytes of rows and bookkeeping held in memory
	mu     sync.Mutex
	rows   []sortRow
	slots  []uint32 // open-addressed index over rows by hash: 1 + position, 0 is free
	blocks [][]byte // arena; blocks[:cur] are full, blocks[cur] is being filled
	cur    int
	used   int64
	runs   []string
	named  int   // runs ever created, for their names
	added  int64 // rows given to add
	same   int64 // rows found equal to another
}

type sortRow struct {
	row  []byte
	head uint64 // the first 8 bytes of row, big-endian, 0 beyond its end
	hash uint64 // xxhash64 of row; never compared across processes or stored
}

func headOf(row []byte) uint64 {
	if len(row) >= 8 {
		return binary.BigEndian.Uint64(row)
	}
	var b [8]byte
	copy(b[:], row)
	return binary.BigEndian.Uint64(b[:])
}

func newSorter(dir string, limit int64) (*sorter, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("sorting: %w", err)
	}
	return &sorter{dir: dir, limit: limit}, nil
}

// add takes the rows of a chunk, which it copies. ends[i] is where row i ends
// in the chunk.
func (s *sorter) add(chunk []byte, ends []int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	start := 0
	for _, end := range ends {
		if err := s.addRow(chunk[start:end]); err != nil {
			return err
		}
		start = end
	}
	return nil
}

func (s *sorter) addRow(row []byte) error {
	if len(row) > maxRow {
		return fmt.Errorf("dataset: internal error: canonical row of %d bytes", len(row))
	}
	s.added++
	if 2*(len(s.rows)+1) > len(s.slots) {
		s.grow()
	}
	h := xxhash.Sum64(row)
	mask := uint64(len(s.slots) - 1)
	i := h & mask
	for ; s.slots[i] != 0; i = (i + 1) & mask {
		if have := s.rows[s.slots[i]-1]; have.hash == h && bytes.Equal(have.row, row) {
			s.same++
			return nil
		}
	}
	s.rows = append(s.rows, sortRow{s.keep(row), headOf(row), h})
	s.slots[i] = uint32(len(s.rows))
	s.used += int64(len(row)) + rowCost
	if s.used >= s.limit {
		return s.spill()
	}
	return nil
}

// grow doubles the hash index, which is kept at most half full.
func (s *sorter) grow() {
	s.slots = make([]uint32, max(1024, 2*len(s.slots)))
	mask := uint64(len(s.slots) - 1)
	for n, r := range s.rows {
		i := r.hash & mask
		for s.slots[i] != 0 {
			i = (i + 1) & mask
		}
		s.slots[i] = uint32(n + 1)
	}
}

// keep copies row into the arena.
func (s *sorter) keep(row []byte) []byte {
	if s.cur == len(s.blocks) {
		s.blocks = append(s.blocks, make([]byte, 0, arenaBlock))
	}
	if b := s.blocks[s.cur]; len(b)+len(row) > cap(b) {
		s.cur++
		return s.keep(row)
	}
	b := append(s.blocks[s.cur], row...)
	s.blocks[s.cur] = b
	return b[len(b)-len(row) : len(b) : len(b)]
}

func (s *sorter) sortRows() {
	slices.SortFunc(s.rows, func(a, b sortRow) int {
		if a.head != b.head {
			return cmp.Compare(a.head, b.head)
		}
		return bytes.Compare(a.row, b.row)
	})
}

// spill writes the rows in memory as one sorted run and forgets them.
func (s *sorter) spill() error {
	s.sortRows()
	w, err := s.newRun()
	if err != nil {
		return err
	}
	for _, r := range s.rows {
		w.write(r.row)
	}
	if err := w.close(); err != nil {
		return err
	}
	clear(s.rows)
	s.rows, s.used, s.cur = s.rows[:0], 0, 0
	clear(s.slots)
	for i := range s.blocks {
		s.blocks[i] = s.blocks[i][:0]
	}
	return nil
}

// merge calls yield with every distinct row in ascending bytewise order. The
// row is valid during the call only. It may be called once, after all adds.
func (s *sorter) merge(yield func(row []byte) error) error {
	if len(s.runs) == 0 {
		s.sortRows()
		for _, r := range s.rows {
			if err := yield(r.row); err != nil {
				return err
			}
		}
		return nil
	}
	if len(s.rows) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.rows, s.slots, s.blocks = nil, nil, nil
	for len(s.runs) > mergeFanIn {
		batch := s.runs[:mergeFanIn]
		s.runs = slices.Clone(s.runs[mergeFanIn:])
		w, err := s.newRun()
		if err != nil {
			return err
		}
		if err := s.mergeRuns(batch, func(row []byte) error { w.write(row); return w.err }); err != nil {
			return err
		}
		if err := w.close(); err != nil {
			return err
		}
	}
	return s.mergeRuns(s.runs, yield)
}

// mergeRuns merges the runs into yield, drops rows equal to the one before,
// and deletes the runs.
func (s *sorter) mergeRuns(names []string, yield func(row []byte) error) (err error) {
	size := int(min(runBuffer, max(4<<10, s.limit/int64(len(names)))))
	var heap []*run
	defer func() {
		for _, r := range heap {
			r.f.Close()
		}
	}()
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("sorting: %w", err)
		}
		r := &run{f: f, r: bufio.NewReaderSize(f, size)}
		heap = append(heap, r)
		if err := r.next(); err != nil {
			return fmt.Errorf("sorting: reading back %s: %w", name, err)
		}
	}
	for i := len(heap)/2 - 1; i >= 0; i-- {
		sink(heap, i)
	}
	var last []byte
	for first := true; len(heap) > 0; {
		top := heap[0]
		switch {
		case !first && bytes.Equal(top.row, last):
			s.same++
		default:
			if err := yield(top.row); err != nil {
				return err
			}
			last = append(last[:0], top.row...)
			first = false
		}
		switch err := top.next(); err {
		case nil:
		case io.EOF:
			top.f.Close()
			heap[0] = heap[len(heap)-1]
			heap = heap[:len(heap)-1]
		default:
			return fmt.Errorf("sorting: reading back %s: %w", top.f.Name(), err)
		}
		if len(heap) > 0 {
			sink(heap, 0)
		}
	}
	for _, name := range names {
		os.Remove(name)
	}
	return nil
}

// sink restores the order of the heap below position i.
func sink(heap []*run, i int) {
	for {
		c := 2*i + 1
		if c >= len(heap) {
			return
		}
		if c+1 < len(heap) && bytes.Compare(heap[c+1].row, heap[c].row) < 0 {
			c++
		}
		if bytes.Compare(heap[i].row, heap[c].row) <= 0 {
			return
		}
		heap[i], heap[c] = heap[c], heap[i]
		i = c
	}
}

// run reads one run: each row after its length as a uvarint.
type run struct {
	f   *os.File
	r   *bufio.Reader
	row []byte
}

func (r *run) next() error {
	n, err := binary.ReadUvarint(r.r)
	if err != nil {
		return err
	}
	if n > maxRow {
		return fmt.Errorf("row of %d bytes", n)
	}
	r.row = slices.Grow(r.row[:0], int(n))[:n]
	if _, err := io.ReadFull(r.r, r.row); err != nil {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// runWriter writes one run; its first error sticks.
type runWriter struct {
	f   *os.File
	w   *bufio.Writer
	err error
}

func (s *sorter) newRun() (*runWriter, error) {
	s.named++
	name := filepath.Join(s.dir, strconv.Itoa(s.named))
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("sorting: %w", err)
	}
	s.runs = append(s.runs, name)
	return &runWriter{f: f, w: bufio.NewWriterSize(f, runBuffer)}, nil
}

func (w *runWriter) write(row []byte) {
	if w.err != nil {
		return
	}
	var n [binary.MaxVarintLen64]byte
	w.w.Write(binary.AppendUvarint(n[:0], uint64(len(row))))
	_, w.err = w.w.Write(row)
}

func (w *runWriter) close() error {
	err := w.w.Flush()
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sorting: %w", err)
	}
	return nil
}
