package dataset

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// realInputs are real files of every source, with the options that people
// would give them.
func realInputs(t testing.TB) []Input {
	var inputs []Input
	for _, in := range []struct{ source, name, options string }{
		{"exploitdb", "exploitdb/files_exploits.reassembled.csv", ""},
		{"exploitdb", "exploitdb/files.csv", ""},
		{"exploitdb", "exploitdb/files_shellcodes.csv", ""},
		{"labelled", "http-attacks/payload_train.csv", ""},
		{"cowrie", "honeypot/cowrie-2018-05.json", ""},
		{"attacks", "attack-records/peer_threats.json", ""},
		{"access", "http-attacks/access-2004.log", ",class=benign"},
		{"sshd", "auth/auth.log", ",year=2017"},
		{"requests", "exploitdb/poc-requests.jsonl.gz", ""},
		{"targets", "http-attacks/scanner-queries.txt", ",class=scanner"},
	} {
		input, err := ParseInput(in.source, testkit.Data(t, in.name)+in.options)
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, input)
	}
	return inputs
}

func TestRealDataSurvivesAndSplitsAlike(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the real data three times")
	}
	inputs := realInputs(t)
	ctx := context.Background()
	start := time.Now()
	dir := t.TempDir()
	report, err := Build(ctx, Config{Inputs: inputs}, dir)
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, in := range report.Inputs {
		size += in.Size
	}
	took := time.Since(start)
	t.Logf("%d rows, %.1f MB in %v (%.1f MB/s): dataset %s", report.Tables[0].Rows+report.Tables[1].Rows,
		float64(size)/1e6, took, float64(size)/1e6/took.Seconds(), report.Dataset)
	for _, in := range report.Inputs {
		for _, c := range in.Report.Bad {
			t.Logf("%s: %d bad rows: %s %v", filepath.Base(in.Path), c.Rows, c.Reason, c.Lines)
		}
		for _, c := range in.Report.Quirks {
			t.Logf("%s: %d rows: %s %v", filepath.Base(in.Path), c.Rows, c.Reason, c.Lines)
		}
	}

	// Counted in the files with another CSV reader.
	for i, want := range []int64{46_099, 30_192, 1_061} {
		if got := report.Inputs[i].Report; got.Rows != want || got.Kept != want {
			t.Errorf("%s: %d rows, %d kept, want %d", report.Inputs[i].Path, got.Rows, got.Kept, want)
		}
	}
	for i, want := range []int64{36_306, 48_065} {
		if got := report.Inputs[8+i].Report; got.Rows != want || got.Kept != want || got.Undated != want {
			t.Errorf("%s: %d rows, %d kept, %d undated, want %d", report.Inputs[8+i].Path, got.Rows, got.Kept, got.Undated, want)
		}
	}
	exploits := report.Tables[0]
	if exploits.Rows < 46_099 || exploits.Superseded < 20_000 || exploits.Duplicates != 0 {
		t.Errorf("exploits: %+v", exploits)
	}

	checked, err := Check(ctx, dir)
	if err != nil || !checked.Pass() {
		t.Errorf("Check: %v %+v", err, checked)
	}
	for name, files := range map[string]int{"halves": 2, "many": 13} {
		split := splitInputs(t, inputs, files)
		again, err := Build(ctx, Config{Inputs: split, MemoryBytes: 8 << 20}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if again.Dataset != report.Dataset {
			t.Errorf("%s: dataset %s, whole files gave %s", name, again.Dataset, report.Dataset)
		}
	}
}

// splitInputs spreads the rows of each input over n files of a directory, in
// turns, so that every file holds rows from all over and in another order.
func splitInputs(t testing.TB, inputs []Input, n int) []Input {
	t.Helper()
	var split []Input
	for i, in := range inputs {
		b, err := os.ReadFile(in.Path)
		if err == nil && strings.HasSuffix(in.Path, ".gz") {
			var text string
			text, err = unpacked(bytes.NewReader(b))
			b = []byte(text)
		}
		if err != nil {
			t.Fatal(err)
		}
		head, rows := "", strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")
		switch {
		case in.Source == ExploitDB || in.Source == "labelled":
			head, rows = rows[0], rows[1:]
		case strings.HasPrefix(string(b), "["):
			rows = nil
			for _, v := range jsonElements(t, b) {
				rows = append(rows, v+"\n")
			}
		}
		dir := filepath.Join(t.TempDir(), strconv.Itoa(i))
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		for part := range n {
			var out bytes.Buffer
			out.WriteString(head)
			for k := len(rows) - 1 - part; k >= 0; k -= n {
				out.WriteString(strings.TrimSuffix(rows[k], "\n") + "\n")
			}
			name := strconv.Itoa(part)
			if in.Source == ExploitDB {
				// A directory of this source is a checkout, so these are named one by one.
				in := in
				in.Path = filepath.Join(dir, name)
				split = append(split, in)
			}
			if err := os.WriteFile(filepath.Join(dir, name), out.Bytes(), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if in.Source != ExploitDB {
			in.Path = dir
			split = append(split, in)
		}
	}
	return split
}
