package trainer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// ErrTable: a CSV file is not the table of numbers that it should be. The
// message names the line and the column.
var ErrTable = errors.New("not a usable table")

// Limits of a table. A line is held in memory while it is read.
const (
	maxTableLine   = 1 << 20 // bytes
	maxTableLabels = 255     // distinct labels
	maxTableRows   = 1 << 30
	tableBlock     = 4096 // rows of one block of memory
	tableGroup     = 8    // rows of one group: half a cache line of each column
)

// Table is a table of numbers with a label for each row. A missing value is
// NaN.
type Table struct {
	Columns    []string // names of the features, in the order of the file
	Labels     []string // distinct labels, in the order in which they were met
	Unlabelled int64    // rows left out because their label is empty

	label  []uint8   // by row: index in Labels
	open   []float32 // the last rows while there are fewer than a block, as in a block whose columns are all wide
	blocks []block
}

// block is tableBlock rows, fewer in the last one, group after group, within a group
// column after column. Columns whose values in these rows are whole numbers from 0
// to 65,535 are narrow.
type block struct {
	place          []int32 // by column: its place among the wide ones, or ^place among the narrow
	wide           []float32
	narrow         []uint16
	wides, narrows int // columns
}

// TableOptions say what the columns of a CSV file are.
type TableOptions struct {
	Label  string   // name of the column with the labels
	Ignore []string // names of columns that are no features; what is no column is a list of them, separated by commas
	// Columns are the features, in the order wanted; nil means all other
	// columns, in the order of the file. With it, columns that are neither
	// features nor label are passed over.
	Columns []string
}

// ReadTable reads a CSV file: a header, then rows with as many fields,
// separated by commas. Fields may be quoted, within one line. Labels are any
// text; all other fields are finite numbers that fit into float32, or missing:
// empty, NaN, NA, N/A, null or none in any case. Empty lines are passed over.
//
// Memory is two bytes for each value in columns of small whole numbers and four in
// others, and one line of at most 1 MiB. A file
// that breaks a rule is ErrTable; errors of r are passed on, and that of ctx when
// it is done.
func ReadTable(ctx context.Context, r io.Reader, opt TableOptions) (*Table, error) {
	in := csvReader{r: bufio.NewReaderSize(r, maxTableLine)}
	names, err := in.header()
	if err != nil {
		return nil, err
	}
	label, features, err := opt.choose(names)
	if err != nil {
		return nil, err
	}
	t := &Table{Columns: make([]string, len(features))}
	place := make([]int, len(names)) // feature of each field, or -1
	for i := range place {
		place[i] = -1
	}
	for c, i := range features {
		t.Columns[c], place[i] = names[i], c
	}
	known := map[string]uint8{}
	row := make([]float32, len(features))
	for {
		fields, err := in.next()
		if err == io.EOF {
			t.pack()
			t.open = nil
			return t, nil
		}
		if err != nil {
			return nil, err
		}
		if len(fields) != len(names) {
			return nil, in.bad("%d fields, %d in the header", len(fields), len(names))
		}
		text := bytes.TrimSpace(fields[label])
		if len(text) == 0 {
			t.Unlabelled++
			continue
		}
		k, ok := known[string(text)]
		if !ok {
			if len(known) == maxTableLabels {
				return nil, in.bad("column %q has more than %d different labels: is it a label?", names[label], maxTableLabels)
			}
			k = uint8(len(known))
			known[string(text)] = k
			t.Labels = append(t.Labels, string(text))
		}
		for i, f := range fields {
			if c := place[i]; c >= 0 {
				if row[c], ok = parseValue(f); !ok {
					return nil, in.bad("column %q: %.40q is no number that fits into float32; leave the column out with --ignore %s", names[i], f, names[i])
				}
			}
		}
		if len(t.label) == maxTableRows {
			return nil, in.bad("more than %d rows", maxTableRows)
		}
		if len(t.label)%tableBlock == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		t.add(row, k)
	}
}

// choose returns the field of the label and those of the features.
func (o *TableOptions) choose(names []string) (label int, features []int, err error) {
	at := make(map[string]int, len(names))
	for i, n := range names {
		if _, twice := at[n]; twice {
			return 0, nil, fmt.Errorf("%w: two columns named %q", ErrTable, n)
		}
		at[n] = i
	}
	have := strings.Join(names, ", ")
	if len(have) > 400 {
		have = have[:400] + "…"
	}
	label, ok := at[o.Label]
	if !ok {
		return 0, nil, fmt.Errorf("%w: no column %q for labels; the header has: %s", ErrTable, o.Label, have)
	}
	ignored := map[int]bool{label: true}
	for _, list := range o.Ignore {
		several := []string{list}
		if _, ok := at[list]; !ok {
			several = strings.Split(list, ",")
		}
		for _, n := range several {
			i, ok := at[n]
			switch {
			case !ok:
				return 0, nil, fmt.Errorf("%w: no column %q to ignore; the header has: %s", ErrTable, n, have)
			case i == label:
				return 0, nil, fmt.Errorf("%w: column %q is both label and ignored", ErrTable, n)
			}
			ignored[i] = true
		}
	}
	if o.Columns == nil {
		for i := range names {
			if ignored[i] {
				continue
			}
			if names[i] == "" {
				return 0, nil, fmt.Errorf("%w: column %d has no name: leave it out with --ignore ''", ErrTable, i+1)
			}
			features = append(features, i)
		}
	}
	for _, n := range o.Columns {
		i, ok := at[n]
		if !ok {
			return 0, nil, fmt.Errorf("%w: no column %q, which the training table has; the header has: %s", ErrTable, n, have)
		}
		features = append(features, i)
	}
	switch {
	case len(features) == 0:
		return 0, nil, fmt.Errorf("%w: no feature beside the label %q (fields are separated by commas)", ErrTable, o.Label)
	case len(features) > MaxColumns:
		return 0, nil, fmt.Errorf("%w: %d features, limit %d", ErrTable, len(features), MaxColumns)
	}
	return label, features, nil
}

// parseValue reads one number or missing value.
func parseValue(b []byte) (float32, bool) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return float32(math.NaN()), true
	}
	if v, err := strconv.ParseFloat(string(b), 32); err == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
		return float32(v), true
	}
	switch strings.ToLower(string(b)) {
	case "nan", "na", "n/a", "null", "none":
		return float32(math.NaN()), true
	}
	return 0, false
}

func (t *Table) add(row []float32, label uint8) {
	at := len(t.label) % tableBlock
	if t.open == nil {
		t.open = make([]float32, tableBlock*len(t.Columns))
	}
	for c, v := range row {
		t.open[inBlock(at, c, len(row))] = v
	}
	t.label = append(t.label, label)
	if at == tableBlock-1 {
		t.pack()
	}
}

// inBlock returns where row at of a block has its value of a column that is one of so many.
func inBlock(at, place, columns int) int {
	return (at/tableGroup*columns+place)*tableGroup + at%tableGroup
}

// pack makes a block of the rows that are in none.
func (t *Table) pack() {
	rows := len(t.label) - tableBlock*len(t.blocks)
	if rows == 0 {
		return
	}
	width := len(t.Columns)
	b := block{place: make([]int32, width)}
	for c := range b.place {
		if t.small(c, rows) {
			b.place[c] = ^int32(b.narrows)
			b.narrows++
		} else {
			b.place[c] = int32(b.wides)
			b.wides++
		}
	}
	filled := (rows + tableGroup - 1) / tableGroup * tableGroup
	b.wide, b.narrow = make([]float32, filled*b.wides), make([]uint16, filled*b.narrows)
	for c, place := range b.place {
		for at := range rows {
			v := t.open[inBlock(at, c, width)]
			if place < 0 {
				b.narrow[inBlock(at, int(^place), b.narrows)] = uint16(v)
			} else {
				b.wide[inBlock(at, int(place), b.wides)] = v
			}
		}
	}
	t.blocks = append(t.blocks, b)
}

// small reports whether a column of the open rows holds whole numbers from 0 to
// 65,535 alone. -0 is none, as its bits would be lost.
func (t *Table) small(c, rows int) bool {
	for at := range rows {
		v := t.open[inBlock(at, c, len(t.Columns))]
		if !(v >= 0 && v <= math.MaxUint16) || math.Float32bits(float32(uint16(v))) != math.Float32bits(v) {
			return false
		}
	}
	return true
}

// Rows returns the number of rows.
func (t *Table) Rows() int { return len(t.label) }

// gather copies column c of the given rows, which are ascending, to dst.
func (t *Table) gather(dst []float32, c int, rows []int32) {
	for i := 0; i < len(rows); i++ {
		r := int(rows[i])
		b, at := &t.blocks[r/tableBlock], r%tableBlock
		n := 1 // rows that are neighbours in the file and in the block
		if last := i + tableGroup - 1; r%tableGroup == 0 && last < len(rows) && int(rows[last]) == r+tableGroup-1 {
			n = tableGroup
		}
		if place := int(b.place[c]); place >= 0 {
			copy(dst[i:i+n], b.wide[inBlock(at, place, b.wides):])
		} else {
			for k, v := range b.narrow[inBlock(at, ^place, b.narrows):][:n] {
				dst[i+k] = float32(v)
			}
		}
		i += n - 1
	}
}

// matrix copies the given rows, which are ascending, row-major.
func (t *Table) matrix(rows []int32) []float32 {
	width := len(t.Columns)
	x, column := make([]float32, len(rows)*width), make([]float32, len(rows))
	for c := range width {
		t.gather(column, c, rows)
		for i, v := range column {
			x[i*width+c] = v
		}
	}
	return x
}

// csvReader splits lines into fields. A field belongs to the next call.
type csvReader struct {
	r      *bufio.Reader
	line   int64
	fields [][]byte
}

func (in *csvReader) bad(format string, a ...any) error {
	return fmt.Errorf("%w: line %d: %s", ErrTable, in.line, fmt.Sprintf(format, a...))
}

func (in *csvReader) header() ([]string, error) {
	fields, err := in.next()
	if err == io.EOF {
		return nil, fmt.Errorf("%w: no header", ErrTable)
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, len(fields))
	for i, f := range fields {
		if i == 0 {
			f = bytes.TrimPrefix(f, []byte("\ufeff"))
		}
		names[i] = string(f)
	}
	return names, nil
}

// next returns the fields of the next line that is not empty, or io.EOF.
func (in *csvReader) next() ([][]byte, error) {
	for {
		line, err := in.r.ReadSlice('\n')
		if len(line) == 0 && err != nil {
			return nil, err
		}
		in.line++
		if err == bufio.ErrBufferFull {
			return nil, in.bad("longer than %d bytes", maxTableLine)
		}
		if err != nil && err != io.EOF {
			return nil, err
		}
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if len(line) > 0 {
			return in.split(line)
		}
	}
}

func (in *csvReader) split(line []byte) ([][]byte, error) {
	in.fields = in.fields[:0]
	for {
		if len(line) > 0 && line[0] == '"' {
			// Unescape in place: the field never grows.
			to, i := 1, 1
			for ; ; i++ {
				if i == len(line) {
					return nil, in.bad("a quote is not closed in its line")
				}
				if line[i] == '"' {
					if i++; i == len(line) || line[i] != '"' {
						break
					}
				}
				line[to] = line[i]
				to++
			}
			in.fields = append(in.fields, line[1:to])
			if i == len(line) {
				return in.fields, nil
			}
			if line[i] != ',' {
				return nil, in.bad("text after a closing quote")
			}
			line = line[i+1:]
			continue
		}
		i := bytes.IndexByte(line, ',')
		if i < 0 {
			in.fields = append(in.fields, line)
			return in.fields, nil
		}
		in.fields = append(in.fields, line[:i])
		line = line[i+1:]
	}
}
