package card

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// object is a JSON object; canonical JSON sorts its members.
type object = map[string]any

// Croissant returns the description of the release's dataset in the JSON-LD
// vocabulary Croissant 1.1, as canonical JSON. It follows from the release and
// the artifact that stores the dataset: file digests are those of this
// artifact, and a dataset knows no date, so the as-of time of the recipe is
// given as date of publication.
//
// An artifact of another dataset, or one that contradicts the release, is
// ErrRelease.
func (c *Card) Croissant(info *oras.DatasetInfo) (oras.Document, error) {
	if got := canon.Sum(info.Snapshot); got != c.release.Dataset {
		return oras.Document{}, refuse("it was trained on dataset %s, this is %s", c.release.Dataset, got)
	}
	m, err := dataset.DecodeManifest(info.Snapshot)
	if err != nil {
		return oras.Document{}, fmt.Errorf("%w: %w", ErrRelease, err)
	}
	d := &c.metrics.Data
	if m.Tables[0].Rows != d.Exploits || m.Tables[1].Rows != d.Records {
		return oras.Document{}, refuse("it counts %d exploits and %d records, its dataset has %d and %d", d.Exploits, d.Records, m.Tables[0].Rows, m.Tables[1].Rows)
	}
	if string(m.Address) != c.features.Address || m.Redaction != c.features.Redaction {
		return oras.Document{}, refuse("its features are for addresses %q and redaction %d, its dataset has %q and %d", c.features.Address, c.features.Redaction, m.Address, m.Redaction)
	}

	var files []object
	for _, f := range info.Files {
		mediaType := f.MediaType
		if f.Name == oras.SnapshotFile {
			mediaType = "application/json"
		}
		files = append(files, object{
			"@type": "cr:FileObject", "@id": f.Name, "name": f.Name, "description": fileDocs[f.Name],
			"contentUrl": f.Name, "contentSize": strconv.FormatInt(f.Size, 10) + " B", "encodingFormat": mediaType, "sha256": f.Digest.Hex(),
		})
	}
	var tables []object
	for _, t := range m.Tables {
		var fields []object
		for _, col := range dataset.Columns(t.Name) {
			kind := "sc:Integer"
			if col.Type == "utf8" {
				kind = "sc:Text"
			}
			fields = append(fields, object{
				"@type": "cr:Field", "@id": t.Name + "/" + col.Name, "name": col.Name, "description": col.Doc, "dataType": kind,
				"source": object{"fileObject": object{"@id": t.Name + ".arrow"}, "extract": object{"column": col.Name}},
			})
		}
		set := object{
			"@type": "cr:RecordSet", "@id": t.Name, "name": t.Name,
			"description": fmt.Sprintf("%s %d rows; Merkle root (RFC 6962) %s.", tableDocs[t.Name], t.Rows, t.Root),
			"field":       fields,
		}
		if t.Name == "exploits" {
			set["key"] = object{"@id": "exploits/id"}
		}
		tables = append(tables, set)
	}
	b, err := canon.Marshal(object{
		"@context":      croissantContext,
		"@type":         "sc:Dataset",
		"conformsTo":    []string{"http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"},
		"name":          c.release.Product + "-dataset",
		"identifier":    c.release.Dataset.String(),
		"version":       fmt.Sprintf("%d.0.0+%s", c.release.Number, c.release.Dataset.Hex()[:12]),
		"description":   fmt.Sprintf("Canonical snapshot of %d exploits and %d attack records that release %d of %s was trained on. Its name is the SHA-256 of %s, %s. The date of publication is the time that the release looks at the data from.", d.Exploits, d.Records, c.release.Number, c.release.Product, oras.SnapshotFile, c.release.Dataset),
		"url":           project,
		"creator":       object{"@type": "Organization", "name": "Publisher of " + c.release.Product, "description": "Who that is, the signature of the release says."},
		"datePublished": c.asOf().Format(time.RFC3339),
		"license": []object{
			{"@type": "CreativeWork", "name": "GPL-2.0-or-later, for rows taken from the ExploitDB index", "url": "https://spdx.org/licenses/GPL-2.0-or-later.html"},
			{"@type": "CreativeWork", "name": "not stated, for other rows", "description": exploitLicence},
		},
		"citeAs":        fmt.Sprintf("%s dataset %s", c.release.Product, c.release.Dataset),
		"keywords":      []string{"intrusion detection", "attack records", "ExploitDB", "reproducible"},
		"isLiveDataset": false,
		"distribution":  files,
		"recordSet":     tables,

		"rai:personalSensitiveInformation": []string{"Records are about connections of clients: source addresses, and texts that clients sent.", privacy(c.features.Address, c.features.Redaction)},
		"rai:dataCollection":               "Rows of the ExploitDB index, and events recorded by sensors, servers and honeypots of the sites that share them.",
		"rai:dataPreprocessingProtocol":    []string{"Every input row is brought to one canonical form; exact duplicates are one row, of several rows about one exploit the fullest is kept; rows stand in one defined order."},
		"rai:dataUseCases":                 []string{"Training and checking the four models of the release, and rebuilding them byte for byte."},
		"rai:dataLimitations":              c.dataLimits(),
	})
	if err != nil {
		return oras.Document{}, fmt.Errorf("croissant: %w", err)
	}
	return oras.Document{Type: oras.TypeJSONLD, Name: "croissant.json", Data: b}, nil
}

// dataLimits are the warnings about the dataset itself, in words.
func (c *Card) dataLimits() []string {
	d := &c.metrics.Data
	var unlabelled int64
	for _, s := range d.Sources {
		unlabelled += s.Unlabelled
	}
	list := []string{
		"It holds what its sources recorded: attacks that nobody noticed are not in it, and ordinary traffic is that of a few sites.",
		labelRule,
		fmt.Sprintf("%s of %s rows have no class.", count(unlabelled), count(d.Exploits+d.Records)),
	}
	if one := c.singleSources(); one != "" {
		list = append(list, one)
	}
	return list
}

var fileDocs = map[string]string{
	"snapshot.json":  "Identity of the dataset: row counts and Merkle roots of its tables, form of addresses and texts.",
	"files.json":     "Sizes and digests of the two Arrow files.",
	"exploits.arrow": "Arrow IPC file of the table exploits.",
	"records.arrow":  "Arrow IPC file of the table records.",
}

var tableDocs = map[string]string{
	"exploits": "Public exploits, one row for each.",
	"records":  "Recorded events, one row for each.",
}

// croissantContext is the context that the specification recommends, with the
// scheme of schema.org that its own implementation and all published
// descriptions use.
var croissantContext = func() object {
	c := object{
		"@language": "en", "@vocab": "https://schema.org/",
		"sc": "https://schema.org/", "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/", "dct": "http://purl.org/dc/terms/",
		"conformsTo": "dct:conformsTo",
		"data":       object{"@id": "cr:data", "@type": "@json"},
		"dataType":   object{"@id": "cr:dataType", "@type": "@vocab"},
		"examples":   object{"@id": "cr:examples", "@type": "@json"},
	}
	for _, term := range strings.Fields(`annotation arrayShape citeAs column containedIn equivalentProperty excludes extract field fileObject
		fileProperty fileSet format includes isArray isLiveDataset jsonPath key md5 parentField readLines recordSet references regex
		sdVersion separator source subField transform unArchive value`) {
		c[term] = "cr:" + term
	}
	return c
}()
