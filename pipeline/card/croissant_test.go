package card

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/trainer"
)

// checkCroissant names what in a document is not as the Croissant 1.1
// specification has it.
func checkCroissant(b []byte) (problems []string) {
	bad := func(format string, a ...any) { problems = append(problems, fmt.Sprintf(format, a...)) }
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		return []string{err.Error()}
	}
	for _, required := range []string{"@context", "@type", "conformsTo", "description", "license", "name", "url", "creator", "datePublished", "distribution"} {
		if doc[required] == nil {
			bad("no %s", required)
		}
	}
	context, _ := doc["@context"].(map[string]any)
	if context["@vocab"] != "https://schema.org/" || context["cr"] != "http://mlcommons.org/croissant/" || context["conformsTo"] != "dct:conformsTo" {
		bad("context %v", context)
	}
	if doc["@type"] != "sc:Dataset" {
		bad("type %v", doc["@type"])
	}
	if v, _ := doc["conformsTo"].([]any); !slices.Contains(v, any("http://mlcommons.org/croissant/1.1")) {
		bad("conforms to %v", doc["conformsTo"])
	}
	if v, _ := doc["version"].(string); !regexp.MustCompile(`^\d+\.\d+\.\d+(\+[0-9a-z]+)?$`).MatchString(v) {
		bad("version %q", v)
	}

	// Every name that schema.org does not define must be mapped.
	schemaOrg := strings.Fields("name description url creator license version identifier keywords datePublished distribution contentUrl contentSize encodingFormat sha256")
	ids := map[string]string{}
	var refs []string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			id, _ := v["@id"].(string)
			switch {
			case id != "" && len(v) == 1:
				refs = append(refs, id)
			case id != "":
				if ids[id] != "" {
					bad("id %q twice", id)
				}
				ids[id], _ = v["@type"].(string)
			}
			for name, e := range v {
				prefix, _, prefixed := strings.Cut(name, ":")
				if !strings.HasPrefix(name, "@") && !slices.Contains(schemaOrg, name) && context[name] == nil && !(prefixed && context[prefix] != nil) {
					bad("%q is in no vocabulary", name)
				}
				walk(e)
			}
		}
	}
	for name, v := range doc {
		if name != "@context" {
			walk(map[string]any{name: v})
		}
	}
	for _, r := range refs {
		if ids[r] == "" {
			bad("reference to %q, which is not there", r)
		}
	}
	files, _ := doc["distribution"].([]any)
	for _, f := range files {
		f, _ := f.(map[string]any)
		sum, _ := f["sha256"].(string)
		size, _ := f["contentSize"].(string)
		if f["@type"] != "cr:FileObject" || f["contentUrl"] == nil || f["encodingFormat"] == nil ||
			!regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(sum) || !regexp.MustCompile(`^\d+ B$`).MatchString(size) {
			bad("file %v", f)
		}
	}
	sets, _ := doc["recordSet"].([]any)
	for _, s := range sets {
		s, _ := s.(map[string]any)
		fields, _ := s["field"].([]any)
		if s["@type"] != "cr:RecordSet" || len(fields) == 0 {
			bad("record set %v", s["@id"])
		}
		for _, f := range fields {
			f, _ := f.(map[string]any)
			source, _ := f["source"].(map[string]any)
			object, _ := source["fileObject"].(map[string]any)
			extract, _ := source["extract"].(map[string]any)
			id, _ := object["@id"].(string)
			if f["@type"] != "cr:Field" || ids[id] != "cr:FileObject" || extract["column"] != f["name"] ||
				f["dataType"] != "sc:Text" && f["dataType"] != "sc:Integer" || f["@id"] != fmt.Sprint(s["@id"], "/", f["name"]) {
				bad("field %v", f)
			}
		}
	}
	return problems
}

func croissantOf(t testing.TB) string {
	t.Helper()
	d, err := newCard(t).Croissant(newSample(t).dataset)
	if err != nil {
		t.Fatal(err)
	}
	return string(d.Data)
}

func TestCroissantHasItsStructure(t *testing.T) {
	text := croissantOf(t)
	for _, p := range checkCroissant([]byte(text)) {
		t.Error(p)
	}
	for name, change := range map[string][2]string{
		"another version of the format": {"croissant/1.1", "croissant/1.0"},
		"no licence":                    {`"license":`, `"licence":`},
		"no date":                       {`"datePublished":`, `"date":`},
		"a short checksum":              {`"sha256":"`, `"sha256":"0`},
		"a size without unit":           {` B"`, `"`},
		"an id twice":                   {`"@id":"records/time"`, `"@id":"records/site"`},
		"a file that is not there":      {`"@id":"exploits.arrow","@type"`, `"@id":"exploit.arrow","@type"`},
		"a field of another column":     {`"column":"title"`, `"column":"titel"`},
		"a name of no vocabulary":       {`"recordSet":"cr:recordSet"`, `"recordSets":"cr:recordSet"`},
		"a field without a type":        {`"dataType":"sc:Integer"`, `"dataType":"int"`},
	} {
		broken := strings.Replace(text, change[0], change[1], 1)
		if broken == text {
			t.Errorf("%s: %s is not in the document", name, change[0])
		} else if len(checkCroissant([]byte(broken))) == 0 {
			t.Errorf("%s: is not found", name)
		}
	}
}

func TestCroissantDescribesFilesAndColumns(t *testing.T) {
	s := newSample(t)
	text := croissantOf(t)
	if again, err := canon.Canonicalize([]byte(text)); err != nil || string(again) != text {
		t.Errorf("not canonical JSON: %v", err)
	}
	for _, f := range s.dataset.Files {
		if !strings.Contains(text, fmt.Sprintf(`"contentSize":"%d B","contentUrl":"%s"`, f.Size, f.Name)) || !strings.Contains(text, f.Digest.Hex()) {
			t.Errorf("%s is not described", f.Name)
		}
	}
	columns := 0
	for _, table := range []string{"exploits", "records"} {
		for _, c := range dataset.Columns(table) {
			columns++
			if !strings.Contains(text, fmt.Sprintf(`"@id":"%s/%s"`, table, c.Name)) {
				t.Errorf("%s/%s is not described", table, c.Name)
			}
		}
	}
	if got := strings.Count(text, `"@type":"cr:Field"`); got != columns || columns == 0 {
		t.Errorf("%d fields for %d columns", got, columns)
	}
	if !strings.Contains(text, "GPL-2.0-or-later") || !strings.Contains(text, s.release.Release.Dataset.String()) {
		t.Error("no licence or no digest")
	}
}

func TestCroissantOfAnotherDatasetIsRefused(t *testing.T) {
	s := newSample(t)
	edited := func(member string, value any) *oras.DatasetInfo {
		info := *s.dataset
		info.Snapshot = edit(t, info.Snapshot, member, value)
		return &info
	}
	c := newCard(t)
	for name, info := range map[string]*oras.DatasetInfo{
		"another dataset": edited("redaction", 0),
		"no dataset":      {},
	} {
		if _, err := c.Croissant(info); !errors.Is(err, ErrRelease) {
			t.Errorf("%s: %v, want ErrRelease", name, err)
		}
	}
	// A release that names the dataset and says other things about it.
	for name, a := range map[string]*oras.Artifact{
		"more exploits": measured(t, func(m *trainer.Metrics) { m.Data.Exploits++; m.Data.Records-- }),
		"other addresses": repack(t, func(r *oras.Release) {
			r.Features = edit(t, r.Features, "address", "hashed")
		}),
	} {
		c, err := New(a)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := c.Croissant(s.dataset); !errors.Is(err, ErrRelease) {
			t.Errorf("%s: %v, want ErrRelease", name, err)
		}
	}
	info := edited("schema", 99)
	c, err := New(repack(t, func(r *oras.Release) { r.Dataset = canon.Sum(info.Snapshot) }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Croissant(info); !errors.Is(err, ErrRelease) || !errors.Is(err, dataset.ErrUnsupported) {
		t.Errorf("a schema that is not known: %v", err)
	}
}
