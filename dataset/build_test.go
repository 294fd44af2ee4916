package dataset

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/internal/durable/faultfs"
)

var update = flag.Bool("update", false, "rewrite the golden files and vectors")

func sampleInputs(t testing.TB) []Input {
	t.Helper()
	inputs, err := SampleInputs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return inputs
}

func mustBuild(t testing.TB, cfg Config) (*BuildReport, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "snapshot")
	report, err := Build(context.Background(), cfg, dir)
	if err != nil {
		t.Fatal(err)
	}
	return report, dir
}

func TestSampleHasItsGoldenDigest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sample")
	if err := Sample(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "golden", "sample.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("the sample is\n%s (%s)\nwant\n%s (%s)", got, canon.Sum(got), want, canon.Sum(want))
	}
}

func TestSampleIsFitToTrainOn(t *testing.T) {
	_, dir := mustBuild(t, Config{Inputs: sampleInputs(t)})
	exploits, records, err := readAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(exploits) + len(records); n < 2000 || n > 5000 {
		t.Errorf("%d rows, want 2000 to 5000", n)
	}
	classes, addresses, sites := map[string]int{}, map[string]bool{}, map[string]bool{}
	end := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	for _, r := range records {
		classes[r.Label]++
		addresses[r.Address] = true
		sites[r.Site] = true
		if r.Time != record.NoTime && (r.Time > end.UnixMicro() || r.Time < end.AddDate(0, 0, -121).UnixMicro()) {
			t.Errorf("record at %v", time.UnixMicro(r.Time).UTC())
		}
	}
	t.Log(classes, len(addresses), "addresses")
	if len(addresses) < 500 || len(sites) < 4 {
		t.Errorf("%d addresses and %d sites, want 500 and 4", len(addresses), len(sites))
	}
	for _, same := range [][]string{
		{"benign", "norm"}, {"sql injection attack", "sqli"}, {"xss attack", "xss"}, {"directory traversal attack", "path-traversal"},
		{"command injection attack", "cmdi"}, {"lfi/rfi attack"}, {"brute force attack"}, {"security scanner detected"},
	} {
		n := 0
		for _, class := range same {
			n += classes[class]
		}
		if n < 60 {
			t.Errorf("%d records of class %v, want 60", n, same)
		}
	}
}

func TestBuildDependsOnTheRowsAlone(t *testing.T) {
	inputs := sampleInputs(t)
	want, dir := mustBuild(t, Config{Inputs: inputs})
	if report, err := Check(context.Background(), dir); err != nil || !report.Pass() {
		t.Fatalf("Check: %v %+v", err, report)
	}
	reversed := slices.Clone(inputs)
	slices.Reverse(reversed)
	local := time.Local
	defer func() { time.Local = local }()
	for name, build := range map[string]func() Config{
		"again":           func() Config { return Config{Inputs: inputs} },
		"inputs reversed": func() Config { return Config{Inputs: reversed} },
		"two files each":  func() Config { return Config{Inputs: splitInputs(t, inputs, 2)} },
		"many files each": func() Config { return Config{Inputs: splitInputs(t, inputs, 17)} },
		"little memory":   func() Config { return Config{Inputs: inputs, MemoryBytes: 40_000} },
		"hardly memory":   func() Config { return Config{Inputs: splitInputs(t, inputs, 3), MemoryBytes: 1} },
		"one thread":      func() Config { runtime.GOMAXPROCS(1); return Config{Inputs: inputs} },
		"eight threads": func() Config {
			runtime.GOMAXPROCS(8)
			return Config{Inputs: splitInputs(t, inputs, 4), MemoryBytes: 100_000}
		},
		"elsewhere": func() Config {
			time.Local = time.FixedZone("Kathmandu", 5*3600+45*60)
			t.Setenv("TZ", "Asia/Kathmandu")
			t.Setenv("LC_ALL", "tr_TR.UTF-8")
			return Config{Inputs: inputs}
		},
		"inputs twice": func() Config { return Config{Inputs: append(slices.Clone(inputs), inputs...)} },
	} {
		procs := runtime.GOMAXPROCS(0)
		got, _ := mustBuild(t, build())
		runtime.GOMAXPROCS(procs)
		if got.Dataset != want.Dataset || !slices.Equal(got.Files, want.Files) {
			t.Errorf("%s: dataset %s, want %s; files %v, want %v", name, got.Dataset, want.Dataset, got.Files, want.Files)
		}
	}
	// The negative twin: one more row, or another privacy form, is another dataset.
	extra := filepath.Join(t.TempDir(), "extra.csv")
	write(t, extra, "payload,length,attack_type,label\nnobody else sent this,21,norm,norm\n")
	got, _ := mustBuild(t, Config{Inputs: append(slices.Clone(inputs), Input{Source: "labelled", Path: extra})})
	if got.Dataset == want.Dataset {
		t.Error("one more row gives the same dataset")
	}
	got, _ = mustBuild(t, Config{Inputs: inputs, Privacy: record.Privacy{Address: record.Truncated}})
	if got.Dataset == want.Dataset || got.Manifest.Address != record.Truncated {
		t.Errorf("truncated addresses give the same dataset, or are not stated: %+v", got.Manifest)
	}
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	header17 = "id,file,description,date_published,author,type,platform,port,date_added,date_updated,verified,codes,tags,aliases,screenshot_url,application_url,source_url\n"
	header8  = "id,file,description,date,author,platform,type,port\n"
)

func row17(id int, title string) string {
	return fmt.Sprintf("%d,exploits/php/webapps/%d.txt,%s,2020-02-03,someone,webapps,php,,2020-02-04,,1,CVE-2020-900001,,,,,\n", id, id, title)
}

func row8(id int, title string) string {
	return fmt.Sprintf("%d,platforms/php/webapps/%d.txt,%s,2010-02-03,someone,php,webapps,0\n", id, id, title)
}

func TestOneExploitPerID(t *testing.T) {
	dir := t.TempDir()
	modern := write(t, filepath.Join(dir, "modern.csv"), header17+row17(3, "zz")+row17(2, "b")+row17(2, "a")+row17(2, "c")+row17(4, "same"))
	older := write(t, filepath.Join(dir, "older.csv"), header8+row8(1, "y")+row8(1, "x")+row8(2, "A")+row8(3, "aa")+row8(5, "only here"))
	third := write(t, filepath.Join(dir, "third.csv"), header17+row17(4, "same"))
	for _, paths := range [][]string{{modern, older, third}, {third, older, modern}} {
		var inputs []Input
		for _, path := range paths {
			inputs = append(inputs, Input{Source: ExploitDB, Path: path})
		}
		report, out := mustBuild(t, Config{Inputs: inputs})
		exploits, _, err := readAll(out)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range exploits {
			got = append(got, fmt.Sprint(e.ID, " ", e.Columns, " ", e.Title))
		}
		want := []string{"1 8 x", "2 17 a", "3 17 zz", "4 17 same", "5 8 only here"}
		if !slices.Equal(got, want) {
			t.Errorf("exploits %q, want %q", got, want)
		}
		if r := report.Tables[0]; r != (TableReport{Name: "exploits", Read: 11, Duplicates: 1, Superseded: 2, Conflicts: 3, Rows: 5}) {
			t.Errorf("report %+v", r)
		}
	}
}

func TestBuildReportsWhatItRead(t *testing.T) {
	dir := t.TempDir()
	text := header17 + row17(1, "a") + "x" + row17(2, "b") + row17(3, "caf\xe9") + strings.Repeat(row17(4, "d"), 20)
	path := write(t, filepath.Join(dir, "index.csv"), text)
	report, _ := mustBuild(t, Config{Inputs: []Input{{Source: ExploitDB, Path: path}}})
	in := report.Inputs[0]
	if in.Path != path || in.Size != int64(len(text)) || in.Digest != canon.Sum([]byte(text)) {
		t.Errorf("input %+v", in)
	}
	if r := in.Report; r.Rows != 23 || r.Kept != 22 || len(r.Bad) != 1 || r.Bad[0].Rows != 1 || !slices.Equal(r.Bad[0].Lines, []int64{3}) ||
		len(r.Quirks) != 1 || r.Quirks[0].Reason != "invalid UTF-8 replaced" || !slices.Equal(r.Quirks[0].Lines, []int64{4}) {
		t.Errorf("report %+v", r)
	}
	if r := report.Tables[0]; r.Read != r.Rows+r.Duplicates+r.Superseded+r.Conflicts || r.Duplicates != 19 {
		t.Errorf("table %+v", r)
	}
	b, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), report.Dataset.String()) {
		t.Errorf("JSON report without the dataset digest: %s", b)
	}
}

func TestBuildRefusesTooManyBadRows(t *testing.T) {
	dir := t.TempDir()
	index := func(good, bad int) Input {
		text := header17
		for i := range good {
			text += row17(i+1, "t")
		}
		text += strings.Repeat("not,a,row\n", bad)
		return Input{Source: ExploitDB, Path: write(t, filepath.Join(dir, fmt.Sprintf("%d-%d.csv", good, bad)), text)}
	}
	for _, c := range []struct {
		good, bad int
		ppm       int64
		ok        bool
	}{
		{95, 5, 0, true}, {94, 6, 0, false}, {94, 6, 60_000, true}, {94, 6, 59_999, false},
		{20, 0, -1, true}, {20, 1, -1, false}, {1, 9, 1_000_000, true},
	} {
		in := index(c.good, c.bad)
		out := filepath.Join(t.TempDir(), "out")
		report, err := Build(context.Background(), Config{Inputs: []Input{in}, MaxBadPPM: c.ppm}, out)
		if c.ok {
			if err != nil {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if !errors.Is(err, ErrTooManyBad) || report == nil || len(report.Inputs) != 1 || report.Inputs[0].Report.Bad[0].Rows != int64(c.bad) {
			t.Errorf("%+v: %v, report %+v", c, err, report)
			continue
		}
		for _, part := range []string{in.Path, "--max-bad", "wrong number of fields", fmt.Sprint(c.good + 2)} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%+v: message %q lacks %q", c, err, part)
			}
		}
		if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%+v: %s was made all the same", c, out)
		}
	}
}

func TestBuildSaysWhichInputIsAtFault(t *testing.T) {
	dir := t.TempDir()
	good := Input{Source: ExploitDB, Path: write(t, filepath.Join(dir, "good.csv"), header8+row8(1, "a"))}
	cases := []struct {
		name string
		in   Input
		want error
	}{
		{"missing file", Input{Source: "access", Path: filepath.Join(dir, "nowhere.log")}, fs.ErrNotExist},
		{"empty file", Input{Source: "attacks", Path: write(t, filepath.Join(dir, "empty.json"), "")}, ErrNoRows},
		{"empty index", Input{Source: ExploitDB, Path: write(t, filepath.Join(dir, "empty.csv"), "")}, ErrNoRows},
		{"header alone", Input{Source: ExploitDB, Path: write(t, filepath.Join(dir, "head.csv"), header17)}, ErrNoRows},
		{"wrong header", Input{Source: ExploitDB, Path: write(t, filepath.Join(dir, "wrong.csv"), "a,b,c\n1,2,3\n")}, ErrUnsupported},
		{"wrong header of payloads", Input{Source: "labelled", Path: write(t, filepath.Join(dir, "wrong2.csv"), "a,b,c\n1,2,3\n")}, record.ErrHeader},
		{"unknown source", Input{Source: "pcap", Path: good.Path}, nil},
		{"empty directory", Input{Source: "access", Path: t.TempDir()}, ErrNoRows},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			_, err := Build(context.Background(), Config{Inputs: []Input{good, c.in}}, out)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.in.Path) {
				t.Errorf("%v, want %v with the path", err, c.want)
			}
			if left, _ := os.ReadDir(filepath.Dir(out)); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if _, err := Build(context.Background(), Config{}, filepath.Join(dir, "out")); !errors.Is(err, ErrNoRows) {
		t.Errorf("no inputs: %v", err)
	}
	// Rows that are no network events are no error, unless nothing is left.
	only := Input{Source: "attacks", Path: write(t, filepath.Join(dir, "house.json"),
		`{"attack_type":"backup_issue","backup_location":"/b","status":"stale","severity":"low","timestamp":"2025-01-01T00:00:00","source":"m"}`+"\n")}
	if _, err := Build(context.Background(), Config{Inputs: []Input{only}}, filepath.Join(dir, "out")); !errors.Is(err, ErrNoRows) {
		t.Errorf("nothing usable: %v", err)
	}
	if _, err := Build(context.Background(), Config{Inputs: []Input{only, good}}, filepath.Join(dir, "out2")); err != nil {
		t.Errorf("nothing usable in one of two inputs: %v", err)
	}
}

func TestBuildKeepsRowsBeforeATruncation(t *testing.T) {
	inputs := sampleInputs(t)
	path := inputs[1].Path
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(b[:len(b)-20]))
	report, _ := mustBuild(t, Config{Inputs: inputs[1:2]})
	if r := report.Inputs[0].Report; r.Rows != 420 || r.Kept != 419 || len(r.Bad) != 1 {
		t.Errorf("report %+v", r)
	}
}

func TestBuildLeavesATakenTargetAlone(t *testing.T) {
	inputs := sampleInputs(t)[:1]
	dir := t.TempDir()
	write(t, filepath.Join(dir, "mine.txt"), "mine")
	if _, err := Build(context.Background(), Config{Inputs: inputs}, dir); !errors.Is(err, durable.ErrExists) {
		t.Errorf("taken target: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d entries in the target, want the one that was there", len(left))
	}
	if _, err := Build(context.Background(), Config{Inputs: inputs}, filepath.Join(dir, "mine.txt", "out")); err == nil {
		t.Error("built below a file")
	}
}

func TestBuildStopsWhenCancelled(t *testing.T) {
	inputs := sampleInputs(t)
	for _, stage := range []string{"", "read", "exploits", "records"} {
		ctx, cancel := context.WithCancel(context.Background())
		if stage == "" {
			cancel()
		}
		temp := t.TempDir()
		out := filepath.Join(t.TempDir(), "out")
		_, err := Build(ctx, Config{Inputs: inputs, TempDir: temp, Progress: func(s string, done, total int64) {
			if s == stage {
				cancel()
			}
		}}, out)
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at %q: %v", stage, err)
		}
		for _, dir := range []string{temp, filepath.Dir(out)} {
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("cancelled at %q: left behind in %s: %v", stage, dir, left)
			}
		}
	}
}

func TestBuildReportsProgressToTheEnd(t *testing.T) {
	last := map[string][2]int64{}
	inputs := sampleInputs(t)
	report, _ := mustBuild(t, Config{Inputs: inputs, Progress: func(stage string, done, total int64) {
		if before := last[stage]; done < before[0] {
			t.Errorf("%s went from %d back to %d", stage, before[0], done)
		}
		last[stage] = [2]int64{done, total}
	}})
	var size int64
	for _, in := range report.Inputs {
		size += in.Size
	}
	want := map[string][2]int64{"read": {size, size}, "exploits": {600, 600},
		"records": {report.Tables[1].Rows, report.Tables[1].Rows}}
	for stage, w := range want {
		if last[stage] != w {
			t.Errorf("%s ended at %v, want %v", stage, last[stage], w)
		}
	}
}

// A build on a failing disk either leaves no target or a whole snapshot.
func TestBuildOnAFailingDisk(t *testing.T) {
	in := Input{Source: ExploitDB, Path: write(t, filepath.Join(t.TempDir(), "index.csv"), header17+row17(1, "a"))}
	cfg := Config{Inputs: []Input{in}}
	clean := faultfs.New()
	if _, err := build(context.Background(), cfg, clean, "out/snapshot"); err != nil {
		t.Fatal(err)
	}
	ops := len(clean.Trace())
	kept, lost := 0, 0
	for _, flavour := range faultfs.Flavours {
		for n := 1; n <= ops; n++ {
			disk := faultfs.New()
			disk.Inject(n, flavour)
			_, err := build(context.Background(), cfg, disk, "out/snapshot")
			for _, after := range []*faultfs.FS{disk.Restart(), disk.PowerLoss(uint64(n))} {
				entries, _ := after.ReadDir("out/snapshot")
				if len(entries) == 0 {
					lost++
					if err == nil {
						t.Fatalf("%v at %d: success, but nothing there", flavour, n)
					}
					continue
				}
				kept++
				dir := t.TempDir()
				for _, e := range entries {
					b, err := durable.ReadFile(after, "out/snapshot/"+e.Name(), 1<<20)
					if err != nil {
						t.Fatal(err)
					}
					write(t, filepath.Join(dir, e.Name()), string(b))
				}
				if report, cerr := Check(context.Background(), dir); cerr != nil || !report.Pass() {
					t.Fatalf("%v at %d of %d (%v): a broken snapshot stands there: %v %+v", flavour, n, ops, err, cerr, report)
				}
			}
		}
	}
	if kept == 0 || lost == 0 {
		t.Errorf("%d snapshots kept, %d lost: the faults did not bite", kept, lost)
	}
}

func TestConfigIsValidated(t *testing.T) {
	in := []Input{{Source: "access", Path: "x"}}
	for name, cfg := range map[string]Config{
		"max bad":   {Inputs: in, MaxBadPPM: 1_000_001},
		"memory":    {Inputs: in, MemoryBytes: -1},
		"privacy":   {Inputs: in, Privacy: record.Privacy{Address: "rot13"}},
		"no key":    {Inputs: in, Privacy: record.Privacy{Address: record.Hashed}},
		"path":      {Inputs: []Input{{Source: "access"}}},
		"source":    {Inputs: []Input{{Source: "nothing", Path: "x"}}},
		"year":      {Inputs: []Input{{Source: "sshd", Path: "x", Year: 12}}},
		"class":     {Inputs: []Input{{Source: "access", Path: "x", Class: "a\x1bb"}}},
		"site":      {Inputs: []Input{{Source: "access", Path: "x", Site: strings.Repeat("s", 129)}}},
		"exploitdb": {Inputs: []Input{{Source: ExploitDB, Path: "x", Class: "benign"}}},
	} {
		if err := cfg.Validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := (&Config{Inputs: in, MaxBadPPM: -1}).Validate(); err != nil {
		t.Error(err)
	}
}

func BenchmarkBuild(b *testing.B) {
	inputs := sampleInputs(b)
	var rows, size int64
	for b.Loop() {
		report, err := Build(context.Background(), Config{Inputs: inputs}, filepath.Join(b.TempDir(), "out"))
		if err != nil {
			b.Fatal(err)
		}
		for _, in := range report.Inputs {
			rows += in.Report.Rows
			size += in.Size
		}
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(size)/1e6/b.Elapsed().Seconds(), "MB/s")
}
