package trainer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

func readTable(t testing.TB, text string, opt TableOptions) *Table {
	t.Helper()
	table, err := ReadTable(context.Background(), strings.NewReader(text), opt)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// rowsOf returns 0 to n-1.
func rowsOf(n int) []int32 {
	rows := make([]int32, n)
	for r := range rows {
		rows[r] = int32(r)
	}
	return rows
}

func TestTableIsReadAsItStands(t *testing.T) {
	const text = "\ufeffid,\"a\",\"the \"\"b\"\"\",label,c\r\n" +
		"x,1,-2.5,good,0x10p-2\r\n" +
		"\r\n" +
		"\"y,z\",\" 3 \",,bad,NaN\n" +
		"y,1e3,n/a, good ,none\n" +
		"y,7,7,,7\n" +
		"w,-0,.5,3,NULL"
	nan := float32(math.NaN())
	table := readTable(t, text, TableOptions{Label: "label", Ignore: []string{"id"}})
	if want := []string{"a", `the "b"`, "c"}; !slices.Equal(table.Columns, want) {
		t.Fatalf("columns %q, want %q", table.Columns, want)
	}
	if want := []string{"good", "bad", "3"}; !slices.Equal(table.Labels, want) || !slices.Equal(table.label, []uint8{0, 1, 0, 2}) {
		t.Errorf("labels %q of rows %d, want %q", table.Labels, table.label, want)
	}
	if table.Unlabelled != 1 || table.Rows() != 4 {
		t.Errorf("%d rows and %d without label", table.Rows(), table.Unlabelled)
	}
	want := []float32{1, -2.5, 4, 3, nan, nan, 1000, nan, nan, 0, .5, nan}
	same := func(a, b float32) bool { return a == b || a != a && b != b }
	if got := table.matrix(rowsOf(4)); !slices.EqualFunc(got, want, same) {
		t.Errorf("values %v, want %v", got, want)
	}

	other := readTable(t, text, TableOptions{Label: "label", Columns: []string{"c", "a"}})
	if got := other.matrix([]int32{0, 3}); !slices.EqualFunc(got, []float32{4, 1, nan, 0}, same) {
		t.Errorf("chosen columns have %v", got)
	}
}

func TestTablesOfManyBlocksKeepTheirValues(t *testing.T) {
	const rows = 3*tableBlock + 77
	var b strings.Builder
	b.WriteString("whole,grows,byte,fraction,negative,hole,zero,y\n")
	want := func(r int) []float32 {
		v := []float32{65535 - float32(r%7), float32(r*5 + 4100), float32(r & 255), 1, float32(r), float32(r), 0}
		switch r {
		case 5, tableBlock + 4095:
			v[3], v[4], v[5], v[6] = 1.5, -1, float32(math.NaN()), float32(math.Copysign(0, -1))
		}
		return v
	}
	for r := range rows {
		for _, v := range want(r) {
			fmt.Fprintf(&b, "%v,", v)
		}
		fmt.Fprintln(&b, r%3)
	}
	table := readTable(t, b.String(), TableOptions{Label: "y"})
	width := len(table.Columns)
	// grows passes 65,535 in the last block; fraction, negative, hole and zero are
	// wide where the odd rows are.
	for i, wides := range []int{4, 4, 0, 1} {
		if got := table.blocks[i].wides; got != wides {
			t.Errorf("block %d has %d wide columns, want %d", i, got, wides)
		}
	}
	p := newPCG(1, 2)
	var some []int32
	for r := range int32(rows) {
		if r < tableBlock || p.below(5) > 0 {
			some = append(some, r)
		}
	}
	x := table.matrix(some)
	dst := make([]float32, len(some))
	for c := range width {
		table.gather(dst, c, some)
		for i, r := range some {
			want := math.Float32bits(want(int(r))[c])
			if math.Float32bits(dst[i]) != want || math.Float32bits(x[i*width+c]) != want {
				t.Fatalf("row %d, column %s: gathered %v, copied %v, want %v", r, table.Columns[c], dst[i], x[i*width+c], math.Float32frombits(want))
			}
		}
	}
}

func TestTablesThatBreakARuleAreRefused(t *testing.T) {
	many := "label,a\n"
	for i := range maxTableLabels + 1 {
		many += strconv.Itoa(i) + ",1\n"
	}
	wide := "label" + strings.Repeat(",", 0)
	for i := range MaxColumns + 1 {
		wide += ",c" + strconv.Itoa(i)
	}
	for _, c := range []struct {
		name, text string
		opt        TableOptions
		want       string // "" when it is none
	}{
		{"nothing wrong", "label,a\n1,2\n", TableOptions{}, ""},
		{"no rows", "label,a\n", TableOptions{}, ""},
		{"two ignored in one", "label,a,b,c\n1,x,x,2\n", TableOptions{Ignore: []string{"a,b"}}, ""},
		{"a comma in a name", "label,\"a,b\",c\n1,x,2\n", TableOptions{Ignore: []string{"a,b"}}, ""},
		{"an ignored index without name", ",label,a\n0,1,2\n", TableOptions{Ignore: []string{""}}, ""},
		{"as many labels as can be", many[:strings.LastIndex(many[:len(many)-1], "\n")], TableOptions{}, ""},

		{"empty", "", TableOptions{}, "no header"},
		{"no label", "class,a\n1,2\n", TableOptions{}, `no column "label" for labels; the header has: class, a`},
		{"no feature", "label;a\n1;2\n", TableOptions{Label: "label;a"}, "separated by commas"},
		{"unknown column ignored", "label,a\n1,2\n", TableOptions{Ignore: []string{"b"}}, `no column "b" to ignore`},
		{"label ignored", "label,a\n1,2\n", TableOptions{Ignore: []string{"label"}}, "both label and ignored"},
		{"wanted column missing", "label,a\n1,2\n", TableOptions{Columns: []string{"b"}}, `no column "b", which the training table has`},
		{"the same name twice", "label,a,a\n1,2,3\n", TableOptions{}, `two columns named "a"`},
		{"a column without name", ",label,a\n0,1,2\n", TableOptions{}, "column 1 has no name"},
		{"text", "label,a\n1,2\n1,two\n", TableOptions{}, `line 3: column "a": "two" is no number`},
		{"too large for float32", "label,a\n1,1e39\n", TableOptions{}, `line 2: column "a"`},
		{"infinity", "label,a\n1,inf\n", TableOptions{}, `line 2: column "a"`},
		{"a field too few", "label,a\n1\n", TableOptions{}, "line 2: 1 fields, 2 in the header"},
		{"a field too many", "label,a\n1,2,3\n", TableOptions{}, "line 2: 3 fields, 2 in the header"},
		{"a quote left open", "label,a\n1,\"2\n3,4\n", TableOptions{}, "line 2: a quote is not closed"},
		{"text behind a quote", "label,a\n1,\"2\"3\n", TableOptions{}, "line 2: text after a closing quote"},
		{"too many labels", many, TableOptions{}, "more than 255 different labels"},
		{"too many features", wide + "\n", TableOptions{}, "1025 features, limit 1024"},
		{"a line without end", "label,a\n1," + strings.Repeat(" ", maxTableLine), TableOptions{}, "line 2: longer than"},
	} {
		if c.opt.Label == "" {
			c.opt.Label = "label"
		}
		_, err := ReadTable(context.Background(), strings.NewReader(c.text), c.opt)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (!errors.Is(err, ErrTable) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

func TestReadingATableEndsWithItsSource(t *testing.T) {
	broken := errors.New("broken")
	in := io.MultiReader(strings.NewReader("label,a\n1,2\n"), iotest.ErrReader(broken))
	if _, err := ReadTable(context.Background(), in, TableOptions{Label: "label"}); !errors.Is(err, broken) || errors.Is(err, ErrTable) {
		t.Errorf("error %v, want that of the source", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := ReadTable(ctx, strings.NewReader("label,a\n1,2\n"), TableOptions{Label: "label"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}

func FuzzReadTable(f *testing.F) {
	f.Add([]byte("label,a,b\n1,2,3\n0,,nan\n"))
	f.Add([]byte("a,\"label\"\r\n\"1\",\"x\"\"y\"\r\n"))
	f.Add([]byte("label,a\n\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := ReadTable(context.Background(), bytes.NewReader(b), TableOptions{Label: "label"})
		if err != nil {
			if !errors.Is(err, ErrTable) {
				t.Fatalf("error %v of no class", err)
			}
			return
		}
		if len(table.Columns) == 0 || len(table.Labels) > maxTableLabels {
			t.Fatalf("%d columns, %d labels", len(table.Columns), len(table.Labels))
		}
		for _, l := range table.label {
			if int(l) >= len(table.Labels) {
				t.Fatalf("label %d of %d", l, len(table.Labels))
			}
		}
		for _, v := range table.matrix(rowsOf(table.Rows())) {
			if math.IsInf(float64(v), 0) {
				t.Fatal("an infinite value")
			}
		}
		if int64(table.Rows())+table.Unlabelled > int64(bytes.Count(b, []byte("\n"))+1) {
			t.Fatalf("%d rows and %d without label from %q", table.Rows(), table.Unlabelled, b)
		}
	})
}
