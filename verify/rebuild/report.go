package rebuild

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// Report is what a rebuild found. Texts that come from the release may hold
// anything: WriteText and WriteHTML make them safe.
type Report struct {
	Format     int             `json:"format"`     // 1
	Reproduced bool            `json:"reproduced"` // Rebuilt equals Release, and Inputs make the dataset
	Release    canon.Digest    `json:"release"`    // manifest digest that was asked for
	Rebuilt    canon.Digest    `json:"rebuilt"`    // manifest digest that came out; "" when no release did
	Product    string          `json:"product"`
	Number     int64           `json:"number"`
	Dataset    canon.Digest    `json:"dataset"`
	Verdict    *verify.Verdict `json:"verdict"`   // null when there was no policy: trust was not judged
	Inputs     *Inputs         `json:"inputs"`    // null when the dataset was taken as published
	Program    Program         `json:"program"`   // that rebuilt
	Publisher  *Program        `json:"publisher"` // that the provenance names; null without one
	Files      []File          `json:"files"`     // empty when no release came out

	Differences []Difference     `json:"differences"` // places that differ, at most maxPlaces of a file or section
	More        int              `json:"more"`        // further places
	Trees       []TreeDifference `json:"trees"`       // the first tree that differs, of each model
	Causes      []Cause          `json:"causes"`      // the likeliest first; empty when reproduced
	Audit       *verify.Audit    `json:"audit"`       // others' statements, held against this rebuild; null unless asked for

	recipe canon.Digest // of the release
	states states       // for Attest; never shown
}

// File compares one file of the release.
type File struct {
	Name    string       `json:"name"`
	Release canon.Digest `json:"release"`
	Rebuilt canon.Digest `json:"rebuilt"`
	Equal   bool         `json:"equal"`
}

// Difference is one place where the published bytes say another thing than the
// rebuilt ones.
type Difference struct {
	File      string `json:"file"`
	Place     string `json:"place"` // JSON pointer, or a field of a model
	Published string `json:"published"`
	Rebuilt   string `json:"rebuilt"`
}

// TreeDifference shows the first tree of a model that differs, side by side.
type TreeDifference struct {
	File      string   `json:"file"`
	Tree      int      `json:"tree"`    // among the published ones, from 0
	Ours      int      `json:"ours"`    // among the rebuilt ones
	Node      int      `json:"node"`    // the first that differs, in preorder, from 0
	Changed   int      `json:"changed"` // nodes of this tree that differ
	Others    int      `json:"others"`  // further trees that differ or that one side lacks
	Path      []string `json:"path"`    // conditions from the root to the node
	From      int      `json:"from"`    // number of the first node shown
	Published []string `json:"published"`
	Rebuilt   []string `json:"rebuilt"`
}

// CauseKind says where a difference is likely to come from.
type CauseKind string

const (
	Data      CauseKind = "data"      // trained on other rows than the dataset named
	Recipe    CauseKind = "recipe"    // trained with another recipe than the one stated
	Toolchain CauseKind = "toolchain" // trained by another program
	Edited    CauseKind = "edited"    // changed after training
)

// Cause is a likely reason, with what speaks for it.
type Cause struct {
	Kind CauseKind `json:"kind"`
	Text string    `json:"text"`
}

// Inputs compares the published dataset with the one that the raw files make.
type Inputs struct {
	Dataset    canon.Digest        `json:"dataset"`    // that they make
	Difference *dataset.Difference `json:"difference"` // from the published dataset to it; null when equal
	Rows       []Row               `json:"rows"`       // the first that differ
}

// Row is a row that only one of two datasets has.
type Row struct {
	Table     string `json:"table"`
	Published bool   `json:"published"` // in the published dataset; else in the one made from the inputs
	Text      string `json:"row"`       // JSON
}

const maxRows = 20 // shown of each table and side

// compare fills in what differs.
func (in *Inputs) compare(ctx context.Context, published, own *dataset.Snapshot) error {
	shown := map[Row]int{}
	in.Rows = []Row{}
	d, err := dataset.Diff(ctx, published, own, func(table string, row []byte, added bool) error {
		key := Row{Table: table, Published: !added}
		if shown[key]++; shown[key] > maxRows {
			return nil
		}
		text, err := dataset.RowJSON(table, row)
		key.Text = string(text)
		in.Rows = append(in.Rows, key)
		return err
	})
	in.Difference = d
	return err
}

// Trust says whether the release was judged.
func (r *Report) Trust() string {
	if r.Verdict == nil {
		return "Trust was not judged: no policy was given."
	}
	var open []string
	for _, c := range r.Verdict.Failures() {
		open = append(open, c.Name)
	}
	if len(open) > 0 {
		return "The policy's demands were met before anything was built, but for what says which release to install: " + strings.Join(open, ", ") + "."
	}
	return "The policy's demands were met before anything was built."
}

// Headline is the finding in one line.
func (r *Report) Headline() string {
	what := fmt.Sprintf("%s release %d", verify.Printable(r.Product), r.Number)
	switch {
	case r.Reproduced:
		return fmt.Sprintf("REPRODUCED %s, %s", what, r.Release)
	case r.Rebuilt.IsZero():
		return fmt.Sprintf("NOT REPRODUCED %s: published %s, rebuilt nothing", what, r.Release)
	case r.Rebuilt == r.Release:
		return fmt.Sprintf("NOT REPRODUCED %s: %s follows from dataset %s, but that not from the inputs", what, r.Release, r.Dataset)
	}
	return fmt.Sprintf("NOT REPRODUCED %s: published %s, rebuilt %s", what, r.Release, r.Rebuilt)
}

// WriteText writes the report for a terminal.
func (r *Report) WriteText(to io.Writer) error {
	w := bufio.NewWriter(to)
	for _, f := range r.Files {
		mark := "✓"
		if !f.Equal {
			mark = "✗"
		}
		fmt.Fprintf(w, "%s %-24s %s\n", mark, f.Name, f.Release)
		if !f.Equal {
			fmt.Fprintf(w, "  %-24s %s\n", "rebuilt", f.Rebuilt)
		}
	}
	if in := r.Inputs; in != nil {
		mark := "✓"
		if in.Dataset != r.Dataset {
			mark = "✗"
		}
		fmt.Fprintf(w, "%s %-24s %s\n", mark, "dataset from inputs", in.Dataset)
		if in.Difference != nil {
			for _, t := range in.Difference.Tables {
				fmt.Fprintf(w, "  %-24s %d rows published, %d from inputs: %d only from inputs, %d only published\n", t.Name, t.From, t.To, t.Added, t.Removed)
			}
		}
		for _, row := range in.Rows {
			fmt.Fprintf(w, "  %s %s %s\n", row.Mark(), row.Table, verify.Printable(row.Text))
		}
	}
	if len(r.Differences) > 0 {
		fmt.Fprintf(w, "\nWhat differs (published → rebuilt):\n")
	}
	for _, d := range r.Differences {
		fmt.Fprintf(w, "  %s %s: %s → %s\n", verify.Printable(d.File), verify.Printable(d.Place), verify.Printable(d.Published), verify.Printable(d.Rebuilt))
	}
	if r.More > 0 {
		fmt.Fprintf(w, "  … and %d more places\n", r.More)
	}
	for _, t := range r.Trees {
		fmt.Fprintf(w, "\n%s, tree %d, node %d (%d nodes differ here; %d more trees differ):\n", t.File, t.Tree, t.Node, t.Changed, t.Others)
		if len(t.Path) > 0 {
			fmt.Fprintf(w, "  where %s\n", strings.Join(t.Path, ", "))
		}
		for _, l := range t.Lines() {
			mark := " "
			if l.Differs {
				mark = "≠"
			}
			fmt.Fprintf(w, "  %s %4d  %-44s %s\n", mark, l.Node, l.Published, l.Rebuilt)
		}
	}
	if len(r.Causes) > 0 {
		fmt.Fprintln(w, "\nLikely cause:")
	}
	for _, c := range r.Causes {
		fmt.Fprintf(w, "  %s: %s\n", c.Kind, verify.Printable(c.Text))
	}
	if r.Audit != nil {
		fmt.Fprintln(w)
		if err := r.Audit.WriteText(w); err != nil {
			return err
		}
	}
	if !r.Reproduced {
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%s\n%s\n", r.Headline(), r.Trust())
	return w.Flush()
}

// Mark is "-" for a row that only the published dataset has, else "+".
func (r Row) Mark() string {
	if r.Published {
		return "-"
	}
	return "+"
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}
