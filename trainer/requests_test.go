package trainer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

// TestRequestsHaveTheClassAndPartOfTheirExploit beside rows that name an
// exploit the snapshot does not hold, that have a class of their own, or none.
// Those that could be anybody's are left out.
func TestRequestsHaveTheClassAndPartOfTheirExploit(t *testing.T) {
	dir := t.TempDir()
	input := func(source, name, text, options string) dataset.Input {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		in, err := dataset.ParseInput(source, path+options)
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	index := "id,file,description,date,author,platform,type,port\n"
	var requests strings.Builder
	classes := map[int64]string{}
	for id := int64(1); id <= 60; id++ {
		class, flaw := "sql_injection", "SQL Injection"
		if id%2 == 0 {
			class, flaw = "xss", "Cross-Site Scripting"
		}
		classes[id] = class
		index += fmt.Sprintf("%d,f,Fenwick Wiki %d - %s,2020-02-03,a,php,webapps,0\n", id, id, flaw)
		fmt.Fprintf(&requests, `{"edb_id":%d,"method":"GET","url":"/own?n=%d'"}`+"\n", id, id)
		fmt.Fprintf(&requests, `{"edb_id":%d,"method":"GET","url":"/harmless?n=%d"}`+"\n", id, id)
	}
	for id := 61; id <= 67; id++ {
		fmt.Fprintf(&requests, `{"edb_id":%d,"method":"GET","url":"/orphan?n=%d"}`+"\n", id, id)
	}
	inputs := append(sampleInputs(t),
		input("exploitdb", "files.csv", index, ""),
		input("requests", "requests.jsonl", requests.String(), ""),
		input("requests", "labelled.jsonl", `{"edb_id":1,"method":"GET","url":"/labelled?n='1"}`, ",class=xss"),
		input("targets", "scan.txt", "/scan?a'\n/scan?b'\n", ",class=scanner"),
		input("targets", "list.txt", "/list?a\n/list?b\n/list?c\n", ""),
	)
	s := snapshotOf(t, inputs)
	m, err := BuildMatrix(context.Background(), s, DefaultRecipe(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	rows := map[int64]Row{} // of records by position
	parts := map[int64]Part{}
	for _, r := range m.Rows {
		switch {
		case r.Exploit != 0:
			parts[r.Exploit] = r.Part
		case m.Sources[r.Source] == string(record.Requests), m.Sources[r.Source] == string(record.Targets):
			rows[r.Record] = r
		}
	}
	seen := map[string]int{}
	at := int64(-1)
	for r, err := range s.Records(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		at++
		what, _, ok := strings.Cut(r.Payload, "?")
		if r.Kind != record.Requests && r.Kind != record.Targets || !ok {
			continue
		}
		seen[what]++
		row, used := rows[at]
		class := ""
		if used {
			class = m.Classes[row.Class]
		}
		want := map[string]string{"/own": classes[r.Exploit], "/labelled": "xss", "/scan": "scanner"}[what]
		if class != want {
			t.Errorf("%s of exploit %d: class %q, want %q", r.Payload, r.Exploit, class, want)
		}
		if used && row.Bad != -1 {
			t.Errorf("%s has no address and trains reputation", r.Payload)
		}
		if part, ok := parts[r.Exploit]; used && r.Exploit != 0 && (!ok || row.Part != part) {
			t.Errorf("%s: part %s, its exploit is in %s", r.Payload, row.Part, part)
		}
	}
	if fmt.Sprint(seen) != "map[/harmless:60 /labelled:1 /list:3 /orphan:7 /own:60 /scan:2]" {
		t.Errorf("the snapshot holds %v", seen)
	}
	for _, want := range []Covered{{Source: "requests", Rows: 128, Unlabelled: 67}, {Source: "targets", Rows: 5, Unlabelled: 3}} {
		if !slices.Contains(m.Count.Coverage, want) {
			t.Errorf("coverage %+v lacks %+v", m.Count.Coverage, want)
		}
	}
	dropped, quiet := int64(0), int64(0)
	for _, d := range m.Count.Dropped {
		if d.Reason == droppedUnlabelled {
			dropped = d.Rows
		}
		if d.Reason == droppedQuiet {
			quiet = d.Rows
		}
	}
	bare, err := BuildMatrix(context.Background(), snapshotOf(t, sampleInputs(t)), DefaultRecipe(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range bare.Count.Dropped {
		if d.Reason == droppedUnlabelled {
			dropped -= d.Rows
		}
	}
	if dropped != 10 || quiet != 60 {
		t.Errorf("%d more rows are counted as unlabelled, want 10, and %d as without a sign, want 60", dropped, quiet)
	}
}

func TestRequestsOfExploitsAreSeenAsServersSeeThem(t *testing.T) {
	for _, c := range []struct {
		kind    record.Kind
		payload string
		want    string
	}{
		{record.Requests, "http://www.example.com/a.php?id='", "/a.php?id='"},
		{record.Requests, "HTTPS://[path]:8443/x", "/x"},
		{record.Requests, "http://host?q=//a/b", "/?q=//a/b"},
		{record.Requests, "http://host", "/"},
		{record.Requests, "/go?to=http://host/a", "/go?to=http://host/a"},
		{record.Requests, "ftp://host/a", "ftp://host/a"},
		{record.Access, "http://proxied.example.com/a", "http://proxied.example.com/a"},
	} {
		r := record.Record{Kind: c.kind, Payload: c.payload, Method: "GET"}
		got := asked(&r)
		if got.Payload != c.want || got.Method != "GET" || r.Payload != c.payload {
			t.Errorf("%s %q is seen as %q, want %q", c.kind, c.payload, got.Payload, c.want)
		}
	}
}
