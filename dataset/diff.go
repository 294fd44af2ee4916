package dataset

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Difference is what one dataset has that another has not.
type Difference struct {
	From   canon.Digest      `json:"from"`
	To     canon.Digest      `json:"to"`
	Tables []TableDifference `json:"tables"` // exploits, then records
	Groups []GroupDifference `json:"groups"` // that differ, by table, source and class
}

// TableDifference counts the rows of one table.
type TableDifference struct {
	Name    string `json:"name"`
	From    int64  `json:"from"` // rows
	To      int64  `json:"to"`
	Added   int64  `json:"added"`
	Removed int64  `json:"removed"`
	// Changed is how many EDB ids stand in both with different rows; each counts
	// among Added and among Removed too. Records have no key: it is 0.
	Changed int64 `json:"changed"`
}

// GroupDifference counts the rows of one source and class.
type GroupDifference struct {
	Table   string `json:"table"`
	Source  string `json:"source"` // kind of a record; of an exploit, the index: "17 columns" or "8 columns"
	Class   string `json:"class"`  // label of a record, type of an exploit; may be ""
	Added   int64  `json:"added"`
	Removed int64  `json:"removed"`
}

// Equal reports whether the tables hold the same rows. The datasets may still
// have different digests, if they state other privacy.
func (d *Difference) Equal() bool {
	return !slices.ContainsFunc(d.Tables, func(t TableDifference) bool { return t.Added+t.Removed > 0 })
}

// maxGroups bounds the groups of a Difference: labels may be anything.
const maxGroups = 1000

// Diff compares two snapshots row by row, and checks both as Exploits and
// Records do. each, if not nil, is told of every row that only one of them has,
// in canonical order; what it is given is valid during the call, and its error
// ends the comparison. Memory is constant. Groups beyond a thousand are counted
// in one of source and class "…".
func Diff(ctx context.Context, from, to *Snapshot, each func(table string, row []byte, added bool) error) (*Difference, error) {
	d := &Difference{From: from.digest, To: to.digest, Groups: []GroupDifference{}}
	groups := map[GroupDifference]*GroupDifference{}
	for n, t := range tables {
		td := TableDifference{Name: t.name, From: from.manifest.Tables[n].Rows, To: to.manifest.Tables[n].Rows}
		var lastRemoved, lastAdded [8]byte // ids of exploits
		err := diffRows(from.rowsOf(ctx, n), to.rowsOf(ctx, n), func(row []byte, added bool) error {
			key, err := groupOf(t, row)
			if err != nil {
				return err
			}
			g := groups[key]
			if g == nil && len(groups) >= maxGroups {
				key = GroupDifference{Table: t.name, Source: "…", Class: "…"}
				g = groups[key]
			}
			if g == nil {
				copied := key
				g = &copied
				groups[key] = g
			}
			if added {
				td.Added++
				g.Added++
			} else {
				td.Removed++
				g.Removed++
			}
			if t == exploitTable {
				own, other := &lastRemoved, &lastAdded
				if added {
					own, other = other, own
				}
				if copy(own[:], row); *own == *other {
					td.Changed++
				}
			}
			if each == nil {
				return nil
			}
			return each(t.name, row, added)
		})
		if err != nil {
			return nil, err
		}
		d.Tables = append(d.Tables, td)
	}
	keys := slices.SortedFunc(maps.Keys(groups), func(a, b GroupDifference) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Class, b.Class))
	})
	for _, key := range keys {
		d.Groups = append(d.Groups, *groups[key])
	}
	return d, nil
}

// rowsOf yields the canonical rows of table n, checked; a row is valid until
// the next.
func (s *Snapshot) rowsOf(ctx context.Context, n int) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if err := s.canonicalRows(ctx, n, func(row []byte) bool { return yield(row, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

// diffRows tells each of the rows that only one of two ascending sequences has.
func diffRows(from, to iter.Seq2[[]byte, error], each func(row []byte, added bool) error) error {
	nextFrom, stopFrom := iter.Pull2(from)
	defer stopFrom()
	nextTo, stopTo := iter.Pull2(to)
	defer stopTo()
	a, err, moreA := nextFrom()
	if err != nil {
		return err
	}
	b, err, moreB := nextTo()
	if err != nil {
		return err
	}
	for moreA || moreB {
		order := 0
		switch {
		case !moreB:
			order = -1
		case !moreA:
			order = 1
		default:
			order = bytes.Compare(a, b)
		}
		if order < 0 {
			err = each(a, false)
		} else if order > 0 {
			err = each(b, true)
		}
		if err == nil && order <= 0 {
			a, err, moreA = nextFrom()
		}
		if err == nil && order >= 0 {
			b, err, moreB = nextTo()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func groupOf(t *table, row []byte) (GroupDifference, error) {
	if t == recordTable {
		var r record.Record
		err := record.DecodeRow(row, &r)
		return GroupDifference{Table: t.name, Source: string(r.Kind), Class: r.Label}, err
	}
	e, err := decodeExploit(row)
	return GroupDifference{Table: t.name, Source: fmt.Sprintf("%d columns", e.Columns), Class: e.Type}, err
}

// RowJSON shows a canonical row of a table as one JSON object, unknown fields
// left out: a record in the form that the reader of attack records takes, an
// exploit by the names of its columns, with dates as YYYY-MM-DD.
func RowJSON(table string, row []byte) (jsontext.Value, error) {
	if table == recordTable.name {
		var r record.Record
		if err := record.DecodeRow(row, &r); err != nil {
			return nil, err
		}
		return record.AppendJSON(nil, &r), nil
	}
	e, err := decodeExploit(row)
	if err != nil {
		return nil, err
	}
	date := func(days int64) string {
		if days == NoDate {
			return ""
		}
		return time.Unix(days*24*60*60, 0).UTC().Format(time.DateOnly)
	}
	return canon.Marshal(struct {
		ID        int64  `json:"id"`
		Columns   int32  `json:"columns"`
		File      string `json:"file,omitempty"`
		Title     string `json:"title,omitempty"`
		Author    string `json:"author,omitempty"`
		Type      string `json:"type,omitempty"`
		Platform  string `json:"platform,omitempty"`
		Port      int32  `json:"port,omitzero"`
		Published string `json:"published,omitempty"`
		Added     string `json:"added,omitempty"`
		Updated   string `json:"updated,omitempty"`
		Verified  int32  `json:"verified,omitzero"`
		Codes     string `json:"codes,omitempty"`
		Tags      string `json:"tags,omitempty"`
	}{e.ID, e.Columns, e.File, e.Title, e.Author, e.Type, e.Platform, e.Port, date(e.Published), date(e.Added), date(e.Updated), e.Verified, e.Codes, e.Tags})
}
