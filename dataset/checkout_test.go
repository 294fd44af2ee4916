package dataset

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// buildIn builds a snapshot of one input and returns it with its records.
func buildIn(t testing.TB, in Input) (*BuildReport, []record.Record) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "snapshot")
	report, err := Build(context.Background(), Config{Inputs: []Input{in}, Privacy: record.Privacy{Redaction: record.Redaction}}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if checked, err := Check(context.Background(), dir); err != nil || !checked.Pass() {
		t.Errorf("Check: %v, %+v", err, checked)
	}
	_, records, err := readAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	return report, records
}

func TestACheckoutGivesTheRequestsOfItsTexts(t *testing.T) {
	report, records := buildIn(t, Input{Source: ExploitDB, Path: "testdata/checkout"})
	var got []string
	for _, r := range records {
		if r.Kind != record.Requests || r.Time != record.NoTime || r.Address != "" || r.Label != "" || r.Protocol != "http" {
			t.Errorf("not a bare request: %+v", r)
		}
		got = append(got, fmt.Sprintf("%d %s %s", r.Exploit, r.Method, r.Payload))
	}
	slices.Sort(got)
	want := []string{
		"990001 GET /shop/view.php?item=3%27%20or%20%271%27=%271",
		"990001 GET http://shop.example/[path]/view.php?item=-7 union select 1,login,secret from staff-- -",
		"990001 GET http://shop.example/[path]/view.php?item=[SQL injection]",
		"990001 GET http://shop.example/find.php?q=caf\ufffd<script>alert(1)</script>",
		"990001 GET http://shop.example/view.php?item=3' and sleep(9)-- -",
		"990002 GET /static/..%2f..%2f..%2fetc/shadow",
		"990002 GET http://%s:8080/static/%%2e%%2e/conf?raw=1",
		"990003 GET http://192.0.2.1/goform/dns?save=1",
		"990003 GET http://192.0.2.1/goform/reboot?now=1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(report.Inputs) != 2 || report.Inputs[0].Report.Kept != 8 {
		t.Fatalf("inputs: %+v", report.Inputs)
	}
	texts := report.Inputs[1]
	if texts.Path != filepath.Join("testdata", "checkout", "exploits") || texts.Input.Source != ExploitDB {
		t.Errorf("texts: %+v", texts)
	}
	if rep := texts.Report; rep.Rows != 14 || rep.Kept != 9 || rep.Undated != 9 || len(rep.Bad) != 0 {
		t.Errorf("texts: %+v", rep)
	}
	if got, want := counted(texts.Report.Skipped), []string{
		"another type than webapps and remote [5]", "no request in the text [6]", "no such file [7]", "path is not exploits/PLATFORM/TYPE/ID.EXT [8 9]",
	}; !slices.Equal(got, want) {
		t.Errorf("left out: %q, want %q", got, want)
	}
	if got, want := counted(texts.Report.Quirks), []string{"invalid UTF-8 replaced [2]"}; !slices.Equal(got, want) {
		t.Errorf("survived: %q, want %q", got, want)
	}
	var sums strings.Builder
	size := int64(0)
	for _, name := range []string{"exploits/php/webapps/990001.txt", "exploits/multiple/remote/990002.py", "exploits/hardware/webapps/990003.html", "exploits/php/webapps/990005.txt"} {
		b, err := os.ReadFile(filepath.Join("testdata", "checkout", name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), name)
		size += int64(len(b))
	}
	if texts.Digest != canon.Sum([]byte(sums.String())) || texts.Size != size {
		t.Errorf("digest %s of %d bytes is not that of the texts", texts.Digest, texts.Size)
	}
}

// counted renders counts with their lines.
func counted(list []record.Count) (out []string) {
	for _, c := range list {
		out = append(out, fmt.Sprint(c.Reason, " ", c.Lines))
	}
	return out
}

func TestAnIndexAloneGivesNoRequests(t *testing.T) {
	report, records := buildIn(t, Input{Source: ExploitDB, Path: "testdata/checkout/files_exploits.csv"})
	if len(records) != 0 || len(report.Inputs) != 1 {
		t.Errorf("%d records of %+v", len(records), report.Inputs)
	}
	dir := t.TempDir()
	b, err := os.ReadFile("testdata/checkout/files_exploits.csv")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "files_exploits.csv"), string(b))
	write(t, filepath.Join(dir, "exploits"), "not a folder")
	report, records = buildIn(t, Input{Source: ExploitDB, Path: dir})
	if len(records) != 0 || len(report.Inputs) != 1 {
		t.Errorf("%d records of %+v", len(records), report.Inputs)
	}
}

// TestACheckoutIsNotLeft puts into a checkout what must not be read.
func TestACheckoutIsNotLeft(t *testing.T) {
	const found = "http://h.example/?a=b\n"
	top := t.TempDir()
	dir := filepath.Join(top, "checkout")
	folder := func(name string) string {
		t.Helper()
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		return path
	}
	index := header17
	exploit := func(id int, path string) {
		index += fmt.Sprintf("%d,%s,t,2031-01-01,a,webapps,php,,,,,,,,,,\n", id, path)
	}
	exploit(1, "exploits/php/webapps/1.txt")
	write(t, folder("exploits/php/webapps/1.txt"), found)
	write(t, folder("exploits/php/webapps/99.txt"), found) // not in the index
	exploit(2, "exploits/php/webapps/2")
	write(t, folder("exploits/php/webapps/2"), found+strings.Repeat("x", maxTextBytes-len(found)))
	exploit(3, "exploits/php/webapps/3.txt")
	write(t, folder("exploits/php/webapps/3.txt"), found+strings.Repeat("x", maxTextBytes-len(found)+1))
	exploit(4, "exploits/php/webapps/4.zip")
	write(t, folder("exploits/php/webapps/4.zip"), found+"\x00")
	exploit(5, "exploits/php/webapps/5.txt")
	if err := os.MkdirAll(folder("exploits/php/webapps/5.txt/x"), 0o777); err != nil {
		t.Fatal(err)
	}
	for i, path := range []string{
		"/etc/passwd", "exploits/../exploits/6.txt", "exploits//webapps/8.txt", "exploits/php/webapps/9.t\x01t", "shellcodes/php/webapps/10.txt",
		"exploits/php/webapps/x/11.txt", "exploits/php/webapps/1.txt", "exploits/php/webapps/12.txt.13", "exploits/php/.../14.txt", "", "exploits\\php\\webapps\\16.txt",
	} {
		exploit(6+i, path)
	}
	exploit(30, "exploits/none/webapps/30.txt")
	exploit(31, "exploits/php/webapps/1.txt/31.txt")
	want := map[string]int64{
		"longer than 1 MiB": 1, "not a text": 1, "not a regular file": 1, "path is not exploits/PLATFORM/TYPE/ID.EXT": 12, "no such file": 1,
	}
	if runtime.GOOS != "windows" {
		write(t, folder("../outside/webapps/20.txt"), found)
		link := func(to, name string) {
			if err := os.Symlink(to, folder(name)); err != nil {
				t.Fatal(err)
			}
		}
		exploit(20, "exploits/away/webapps/20.txt")
		link("../../outside", "exploits/away")
		exploit(21, "exploits/php/webapps/21.txt")
		link("../../../../outside/webapps/20.txt", "exploits/php/webapps/21.txt")
		exploit(22, "exploits/php/webapps/22.txt")
		link("1.txt", "exploits/php/webapps/22.txt")
		exploit(23, "exploits/twin/webapps/23.txt")
		write(t, folder("exploits/php/webapps/23.txt"), found)
		link("php", "exploits/twin")
		want["outside the folder"], want["not a regular file"] = 1, want["not a regular file"]+2
	}
	write(t, filepath.Join(dir, "files_exploits.csv"), index)
	report, records := buildIn(t, Input{Source: ExploitDB, Path: dir})
	var ids []int64
	for _, r := range records {
		ids = append(ids, r.Exploit)
	}
	slices.Sort(ids)
	if wantIDs := []int64{1, 2, 23}; runtime.GOOS != "windows" && !slices.Equal(ids, wantIDs) {
		t.Errorf("requests of %v, want %v", ids, wantIDs)
	}
	for _, c := range report.Inputs[1].Report.Skipped {
		if want[c.Reason] != c.Rows {
			t.Errorf("%s: %d, want %d", c.Reason, c.Rows, want[c.Reason])
		}
		delete(want, c.Reason)
	}
	if len(want) != 0 {
		t.Errorf("not left out: %v", want)
	}
}

func TestATextThatCannotBeReadFailsTheBuild(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need rights that Windows does not give")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "files_exploits.csv"), header17+row17(1, "t"))
	if err := os.MkdirAll(filepath.Join(dir, "exploits"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("php", filepath.Join(dir, "exploits", "php")); err != nil { // a link to itself
		t.Fatal(err)
	}
	_, err := Build(context.Background(), Config{Inputs: []Input{{Source: ExploitDB, Path: dir}}}, filepath.Join(dir, "snapshot"))
	if err == nil || !strings.Contains(err.Error(), "exploits") {
		t.Errorf("a text that cannot be read is passed over in silence: %v", err)
	}
}
