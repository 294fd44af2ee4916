package pipeline

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/trainer"
)

// Files of a matrix directory.
const (
	MatrixArrow   = "matrix.arrow" // Arrow IPC file
	MatrixCSV     = "matrix.csv"   // the same columns and rows as text
	MatrixColumns = "columns.csv"  // what each column means
	MatrixFile    = "matrix.json"  // canonical JSON of Matrix: what the others were made of
)

// Matrix is the content of matrix.json.
type Matrix struct {
	Classes  []string       `json:"classes"`  // by class_index
	Columns  int            `json:"columns"`  // of matrix.arrow and matrix.csv
	Dataset  canon.Digest   `json:"dataset"`  // digest of the snapshot
	Derived  int64          `json:"derived"`  // rows that are a record in another form, among the training rows
	Features canon.Digest   `json:"features"` // of the configuration of feature extraction, as in a release
	Files    []FileSize     `json:"files"`    // the three others, sorted by name
	Format   int            `json:"format"`   // 1
	Parts    MatrixParts    `json:"parts"`    //
	Recipe   trainer.Recipe `json:"recipe"`   // as-of time and half-life resolved
	Rows     int64          `json:"rows"`     //
}

// MatrixParts counts the rows of a matrix by part.
type MatrixParts struct {
	Test       int64 `json:"test"`
	Training   int64 `json:"training"`
	Validation int64 `json:"validation"`
}

// MatrixReport says what WriteMatrix made.
type MatrixReport struct {
	Out    string               `json:"out"`
	Matrix Matrix               `json:"matrix"`
	Counts trainer.Counts       `json:"counts"`           // what became of the rows of the snapshot
	Inputs *dataset.BuildReport `json:"inputs,omitempty"` // nil when an existing snapshot was used
	Stages []Stage              `json:"stages"`
}

// WriteMatrix writes what the plan's models would be trained on, for use in
// other programs, to the directory p.Out, which must not exist or be empty: all
// of it or nothing. Of p the inputs or the snapshot, the recipe, Out, Workers,
// TempDir and Progress count.
//
// The files depend on the snapshot and the recipe alone; matrix.arrow, and with
// it matrix.json, depend on the byte order of the machine too.
//
// Errors are those of dataset.Build and trainer.BuildMatrix, and ErrOutput.
// With dataset.ErrTooManyBad the Report tells what was read.
func WriteMatrix(ctx context.Context, p Plan) (*MatrixReport, error) {
	if err := p.Recipe.Validate(); err != nil {
		return nil, err
	}
	stage, err := durable.Stage(durable.OS, p.Out)
	if errors.Is(err, durable.ErrExists) {
		return nil, fmt.Errorf("%w: %s: name another with --out", ErrOutput, p.Out)
	}
	if err != nil {
		return nil, err
	}
	defer stage.Discard()
	work, err := os.MkdirTemp(p.TempDir, "bhtrain-matrix-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)

	r := &MatrixReport{Out: p.Out}
	var timed Report
	dir := p.Snapshot
	if dir == "" {
		dir = filepath.Join(work, "snapshot")
		err := timed.stage("snapshot", func() (err error) {
			r.Inputs, err = Snapshot(ctx, p, dir)
			return err
		})
		if err != nil {
			return r, err
		}
	}
	var m *trainer.Matrix
	opt := trainer.Options{Workers: p.Workers, Progress: p.Progress}
	err = timed.stage("features", func() error {
		s, err := dataset.Open(dir)
		if err != nil {
			return err
		}
		defer s.Close()
		r.Matrix.Dataset = s.Digest()
		m, err = trainer.BuildMatrix(ctx, s, p.Recipe, opt)
		return err
	})
	if err != nil {
		return nil, err
	}
	r.Counts = m.Count
	if err := timed.stage("write", func() error { return r.Matrix.write(ctx, stage.Path(), m, opt) }); err != nil {
		return nil, err
	}
	b, err := canon.Marshal(r.Matrix)
	if err != nil {
		return nil, err
	}
	if err := stage.WriteFile(MatrixFile, b, 0o666); err != nil {
		return nil, err
	}
	r.Stages = timed.Stages
	switch err := stage.Commit(); {
	case errors.Is(err, durable.ErrExists):
		return nil, fmt.Errorf("%w: %s: name another with --out", ErrOutput, p.Out)
	case err != nil && !errors.Is(err, durable.ErrNotDurable):
		return nil, err
	}
	return r, nil
}

// write fills d from m and writes the files that it lists to dir.
func (d *Matrix) write(ctx context.Context, dir string, m *trainer.Matrix, opt trainer.Options) error {
	config, err := m.Config.Marshal()
	if err != nil {
		return err
	}
	d.Classes, d.Columns, d.Features, d.Format = m.Classes, len(trainer.MatrixColumns()), canon.Sum(config), 1
	d.Recipe, d.Rows, d.Derived = m.Recipe, int64(len(m.Rows)), m.Count.Derived
	for i := range m.Rows {
		switch m.Rows[i].Part {
		case trainer.Training:
			d.Parts.Training++
		case trainer.Validation:
			d.Parts.Validation++
		case trainer.Test:
			d.Parts.Test++
		}
	}
	metadata := map[string]string{
		"bhtrain.dataset": d.Dataset.String(),
		"bhtrain.format":  strconv.Itoa(d.Format),
		"bhtrain.table":   "matrix",
	}
	for _, f := range []struct {
		name  string
		write func(io.Writer) error
	}{
		{MatrixColumns, func(w io.Writer) error { _, err := w.Write(trainer.MatrixColumnsCSV()); return err }},
		{MatrixArrow, func(w io.Writer) error { return m.WriteArrow(ctx, w, metadata, opt) }},
		{MatrixCSV, func(w io.Writer) error { return m.WriteCSV(ctx, w, opt) }},
	} {
		size, err := writeFile(filepath.Join(dir, f.name), f.write)
		if err != nil {
			return fmt.Errorf("writing %s: %w", f.name, err)
		}
		size.Name = f.name
		d.Files = append(d.Files, size)
	}
	return nil
}

// writeFile makes the file at path and says what was written to it.
func writeFile(path string, write func(io.Writer) error) (size FileSize, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return size, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	h := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(f, h), 256<<10)
	if err := write(out); err != nil {
		return size, err
	}
	if err := out.Flush(); err != nil {
		return size, err
	}
	info, err := f.Stat()
	if err != nil {
		return size, err
	}
	size.Size, size.Digest = info.Size(), canon.Digest(h.Sum(nil))
	return size, nil
}
