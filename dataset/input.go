package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

// Source says what an input is: ExploitDB, or the name of a record.Kind.
type Source string

// ExploitDB is the source of exploits: files_exploits.csv, files_shellcodes.csv
// or the older files.csv, or a directory that holds any of them. From a checkout
// of the Exploit-DB repository, where the texts of the exploits lie beside the index,
// it also gives records of kind record.Requests: the requests that the texts of
// webapps and remote exploits show.
const ExploitDB Source = "exploitdb"

// Sources are all sources, in the order in which they are listed to people.
func Sources() []Source {
	return []Source{ExploitDB, Source(record.Attacks), Source(record.Honeypot), Source(record.Cowrie),
		Source(record.Access), Source(record.SSHD), Source(record.Labelled), Source(record.Requests), Source(record.Targets)}
}

// An Input is one source of rows. Path is a file, a directory, whose files are
// read in the order of their names (hidden ones not), or a pattern of
// path/filepath.Match. Files may be packed with gzip, whatever their names. Class, Site and Year are given to every record read
// from it as record.Options says; exploits take none of them.
type Input struct {
	Source Source `json:"source"`
	Path   string `json:"path"`
	Class  string `json:"class,omitempty"`
	Site   string `json:"site,omitempty"`
	Year   int    `json:"year,omitempty"` // 1970 to 9999, 0 if not given
}

const maxName = 128 // bytes of a class or site name

// ParseInput reads the form in which inputs are given on a command line,
//
//	PATH[,class=NAME][,site=NAME][,year=YYYY]
//
// with the options in any order. A path may itself contain commas: the longest
// one that exists is taken. If none does, it ends at the first comma. The
// source may be any of Sources; an unknown source, option or value is an error that
// names it. Whether the path exists is otherwise left to Build.
func ParseInput(source, spec string) (Input, error) {
	in := Input{Source: Source(source)}
	if !slices.Contains(Sources(), in.Source) {
		return Input{}, fmt.Errorf("input %q: unknown source %q", spec, source)
	}
	parts := strings.Split(spec, ",")
	n := 1
	for i := len(parts); i > 1; i-- {
		if path := strings.Join(parts[:i], ","); exists(path) {
			n = i
			break
		}
	}
	in.Path = strings.Join(parts[:n], ",")
	if in.Path == "" {
		return Input{}, fmt.Errorf("input %q: path is empty", spec)
	}
	seen := map[string]bool{}
	for _, part := range parts[n:] {
		key, value, _ := strings.Cut(part, "=")
		if seen[key] {
			return Input{}, fmt.Errorf("input %q: option %q is given twice", spec, key)
		}
		seen[key] = true
		switch key {
		case "class":
			in.Class = strings.ToLower(value)
		case "site":
			in.Site = value
		case "year":
			year, err := strconv.Atoi(value)
			if err != nil || len(value) != 4 || year < 1970 {
				return Input{}, fmt.Errorf("input %q: year=%s: want four digits, 1970 or later", spec, value)
			}
			in.Year = year
			continue
		default:
			return Input{}, fmt.Errorf("input %q: unknown option %q: want class=NAME, site=NAME or year=YYYY (and no file %q exists)", spec, part, spec)
		}
		if value == "" {
			return Input{}, fmt.Errorf("input %q: %s= has no name", spec, key)
		}
	}
	if err := in.validate(); err != nil {
		return Input{}, fmt.Errorf("input %q: %w", spec, err)
	}
	return in, nil
}

func (in Input) validate() error {
	if !slices.Contains(Sources(), in.Source) {
		return fmt.Errorf("unknown source %q", in.Source)
	}
	if in.Path == "" {
		return errors.New("path is empty")
	}
	if in.Source == ExploitDB && (in.Class != "" || in.Site != "" || in.Year != 0) {
		return errors.New("an ExploitDB index takes no class, site or year")
	}
	for _, o := range [...]struct{ key, name string }{{"class", in.Class}, {"site", in.Site}} {
		if len(o.name) > maxName || !utf8.ValidString(o.name) || strings.ContainsFunc(o.name, unicode.IsControl) {
			return fmt.Errorf("%s=%.40q: want at most %d bytes of UTF-8 without control characters", o.key, o.name, maxName)
		}
	}
	if in.Year != 0 && (in.Year < 1970 || in.Year > 9999) {
		return fmt.Errorf("year %d is not from 1970 to 9999", in.Year)
	}
	return nil
}

func exists(path string) bool {
	if _, err := os.Stat(path); err == nil {
		return true
	}
	files, err := filepath.Glob(path)
	return err == nil && len(files) > 0
}

// texts returns which of textFolders the input has.
func (in Input) texts() (folders []int) {
	if in.Source != ExploitDB {
		return nil
	}
	for i, t := range textFolders {
		folder, err := os.Lstat(filepath.Join(in.Path, t.folder))
		if err != nil || !folder.IsDir() {
			continue
		}
		if index, err := os.Stat(filepath.Join(in.Path, t.index)); err == nil && index.Mode().IsRegular() {
			folders = append(folders, i)
		}
	}
	return folders
}

// files returns the files of the input, sorted by name.
func (in Input) files() ([]string, error) {
	info, err := os.Stat(in.Path)
	switch {
	case err == nil && !info.IsDir():
		return []string{in.Path}, nil
	case err == nil && in.Source == ExploitDB:
		var files []string
		for _, name := range [...]string{"files.csv", "files_exploits.csv", "files_shellcodes.csv"} {
			path := filepath.Join(in.Path, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				files = append(files, path)
			}
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%w: directory %s holds no files_exploits.csv, files_shellcodes.csv or files.csv", ErrNoRows, in.Path)
		}
		return files, nil
	case err == nil:
		entries, err := os.ReadDir(in.Path)
		if err != nil {
			return nil, err
		}
		var files []string
		for _, e := range entries {
			path := filepath.Join(in.Path, e.Name())
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
				files = append(files, path)
			}
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%w: directory %s holds no file", ErrNoRows, in.Path)
		}
		return files, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	matches, gerr := filepath.Glob(in.Path)
	if gerr != nil || len(matches) == 0 {
		return nil, err
	}
	var files []string
	for _, path := range matches {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			files = append(files, path)
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: no file matches %s", ErrNoRows, in.Path)
	}
	slices.Sort(files)
	return files, nil
}
