package dataset

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseInput(t *testing.T) {
	dir := t.TempDir()
	comma := write(t, filepath.Join(dir, "a,class=b,c.log"), "x")
	plain := write(t, filepath.Join(dir, "plain.log"), "x")
	option := write(t, filepath.Join(dir, "odd,year=2017"), "x")
	for _, c := range []struct {
		source, spec string
		want         Input
	}{
		{"access", plain, Input{Source: "access", Path: plain}},
		{"access", plain + ",class=Benign", Input{Source: "access", Path: plain, Class: "benign"}},
		{"sshd", plain + ",year=2017,site=north,class=x", Input{Source: "sshd", Path: plain, Class: "x", Site: "north", Year: 2017}},
		{"access", comma, Input{Source: "access", Path: comma}},
		{"access", comma + ",site=s", Input{Source: "access", Path: comma, Site: "s"}},
		{"access", option, Input{Source: "access", Path: option}},
		{"access", option + ",year=2018", Input{Source: "access", Path: option, Year: 2018}},
		{"access", "missing.log,class=benign", Input{Source: "access", Path: "missing.log", Class: "benign"}},
		{"exploitdb", "missing.csv", Input{Source: ExploitDB, Path: "missing.csv"}},
		{"requests", "poc.jsonl.gz", Input{Source: "requests", Path: "poc.jsonl.gz"}},
		{"targets", "scan.txt,class=scanner", Input{Source: "targets", Path: "scan.txt", Class: "scanner"}},
		{"access", filepath.Join(dir, "a,*.log") + ",site=s", Input{Source: "access", Path: filepath.Join(dir, "a,*.log"), Site: "s"}},
	} {
		got, err := ParseInput(c.source, c.spec)
		if err != nil || got != c.want {
			t.Errorf("%s %q: %+v, %v; want %+v", c.source, c.spec, got, err, c.want)
		}
	}
	for _, c := range []struct{ source, spec, names string }{
		{"access", plain + ",klass=x", "klass"},
		{"access", plain + ",class", "class"},
		{"access", plain + ",class=", "class"},
		{"access", plain + ",site=a,site=b", "site"},
		{"access", plain + ",year=17", "year=17"},
		{"access", plain + ",year=1969", "year=1969"},
		{"access", plain + ",year=20x7", "year=20x7"},
		{"access", plain + ",", `""`},
		{"access", "", "path"},
		{"access", ",class=x", "path"},
		{"telnet", plain, "telnet"},
		{"exploitdb", plain + ",class=x", "class"},
		{"access", plain + ",site=a\x07b", "site"},
	} {
		if _, err := ParseInput(c.source, c.spec); err == nil || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s %q: %v, want an error that names %s", c.source, c.spec, err, c.names)
		}
	}
}

func TestInputFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.log", "a.log", "a.log.1", ".hidden", "c.txt"} {
		write(t, filepath.Join(dir, name), "x")
	}
	if err := os.Mkdir(filepath.Join(dir, "d.log"), 0o777); err != nil {
		t.Fatal(err)
	}
	names := func(in Input) (names []string) {
		files, err := in.files()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			names = append(names, filepath.Base(f))
		}
		return names
	}
	if got := names(Input{Source: "access", Path: dir}); !slices.Equal(got, []string{"a.log", "a.log.1", "b.log", "c.txt"}) {
		t.Errorf("directory: %v", got)
	}
	if got := names(Input{Source: "access", Path: filepath.Join(dir, "*.log*")}); !slices.Equal(got, []string{"a.log", "a.log.1", "b.log"}) {
		t.Errorf("pattern: %v", got)
	}
	if _, err := (Input{Source: ExploitDB, Path: dir}).files(); !errors.Is(err, ErrNoRows) {
		t.Errorf("directory without an index: %v", err)
	}
	write(t, filepath.Join(dir, "files_exploits.csv"), "x")
	write(t, filepath.Join(dir, "files_shellcodes.csv"), "x")
	if got := names(Input{Source: ExploitDB, Path: dir}); !slices.Equal(got, []string{"files_exploits.csv", "files_shellcodes.csv"}) {
		t.Errorf("checkout: %v", got)
	}
	for _, path := range []string{"none.log", "none*.log", "d.l*"} {
		if _, err := (Input{Source: "access", Path: filepath.Join(dir, path)}).files(); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
}

func FuzzParseInput(f *testing.F) {
	f.Add("access", "a,class=b,site=c,year=2017")
	f.Add("sshd", "[a,,=")
	f.Fuzz(func(t *testing.T, source, spec string) {
		in, err := ParseInput(source, spec)
		if err == nil && in.validate() != nil {
			t.Fatalf("%+v is accepted but invalid", in)
		}
	})
}
