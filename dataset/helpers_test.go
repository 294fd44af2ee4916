package dataset

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// jsonElements returns the elements of a JSON array, one line each.
func jsonElements(t testing.TB, b []byte) []string {
	t.Helper()
	var values []jsontext.Value
	if err := json.Unmarshal(b, &values); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, v := range values {
		lines = append(lines, strings.ReplaceAll(string(v), "\n", " "))
	}
	return lines
}

// parts are the bytes of a snapshot directory, by file name.
type parts map[string][]byte

// snapshotOf encodes canonical rows as they are given, in that order.
func snapshotOf(t testing.TB, exploits, records [][]byte) parts {
	t.Helper()
	p := parts{}
	m := Manifest{Address: record.Full, Format: Format, Redaction: 0, Schema: Schema}
	for i, rows := range [][][]byte{exploits, records} {
		var out bytes.Buffer
		w, err := newTableWriter(&out, tables[i])
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			if err := w.append(row); err != nil {
				t.Fatal(err)
			}
		}
		table, err := w.close()
		if err != nil {
			t.Fatal(err)
		}
		m.Tables = append(m.Tables, table)
		p[tables[i].file()] = out.Bytes()
	}
	p.setManifest(t, m)
	p.describe(t)
	return p
}

func (p parts) manifest(t testing.TB) Manifest {
	t.Helper()
	m, err := DecodeManifest(p[ManifestName])
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (p parts) setManifest(t testing.TB, m Manifest) {
	t.Helper()
	b, err := canon.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	p[ManifestName] = b
}

// describe makes files.json anew for the Arrow files as they are.
func (p parts) describe(t testing.TB) {
	t.Helper()
	var files []File
	for _, table := range tables {
		b := p[table.file()]
		files = append(files, File{Name: table.file(), Size: int64(len(b)), Digest: canon.Sum(b)})
	}
	b, err := EncodeFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	p[FilesName] = b
}

func (p parts) clone() parts {
	c := parts{}
	for name, b := range p {
		c[name] = bytes.Clone(b)
	}
	return c
}

// write puts the files into dir and returns dir.
func (p parts) write(t testing.TB, dir string) string {
	t.Helper()
	for name, b := range p {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// readAll opens dir and reads every row of both tables.
func readAll(dir string) (exploits []Exploit, records []record.Record, err error) {
	s, err := Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	for e, err := range s.Exploits(context.Background()) {
		if err != nil {
			return nil, nil, err
		}
		exploits = append(exploits, *e)
	}
	for r, err := range s.Records(context.Background()) {
		if err != nil {
			return nil, nil, err
		}
		records = append(records, *r)
	}
	return exploits, records, nil
}

// someExploits and someRecords are canonical rows, in order.
func someExploits() [][]byte {
	var rows [][]byte
	for _, e := range []Exploit{
		{ID: 7, Columns: 17, File: "exploits/php/webapps/7.txt", Title: "Larkspur CMS 2.1 - 'id' SQL Injection", Author: "Zoë", Type: "webapps",
			Platform: "php", Published: 15000, Added: 15001, Updated: NoDate, Verified: 1, Codes: "CVE-2011-900001"},
		{ID: 9, Columns: 8, File: "platforms/linux/remote/9.c", Title: "Kestrova FTPd - Overflow", Type: "remote", Platform: "linux", Port: 21,
			Published: -1, Added: NoDate, Updated: NoDate},
	} {
		rows = append(rows, e.AppendRow(nil))
	}
	return rows
}

func someRecords() [][]byte {
	var rows [][]byte
	for _, r := range []record.Record{
		{Time: record.NoTime, Kind: record.Labelled, Payload: "1' OR 1=1 --", Label: "sqli"},
		{Time: 1_700_000_000_000_000, Address: "192.0.2.7", Kind: record.Access, Protocol: "http", Method: "GET", Payload: "/a\x00b?q=é", Status: 200, Size: 512},
		{Site: "north", Time: 1_700_000_000_000_001, Address: "2001:db8::1", Kind: record.SSHD, Protocol: "ssh", Port: 22, User: "root",
			Outcome: record.OutcomeFailure, Label: "brute_force", Level: record.LevelDangerous},
	} {
		rows = append(rows, r.AppendRow(nil))
	}
	return rows
}
