package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/cli/heap"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

const datasetRefs = `
REF is a snapshot directory, or an OCI layout directory or a repository of a
registry with the tag or digest of a release (the dataset that it was trained
on), the tag of a dataset (dataset-HEX), or a dataset digest.`

// datasetFlags say how to get at a dataset.
type datasetFlags struct {
	temp             *string
	plain, anonymous *bool
}

func newDatasetFlags(fs *pflag.FlagSet) datasetFlags {
	return datasetFlags{
		temp:      fs.String("temp", "", "`DIR`: for a dataset that is fetched (default: the system's)"),
		plain:     fs.Bool("plain-http", false, "talk to the registry without TLS (on the loopback interface this needs no flag)"),
		anonymous: fs.Bool("anonymous", false, "send no credentials of the docker configuration"),
	}
}

// fetch returns the directory of the dataset that arg refers to. A dataset that
// is in a store is first put into a temporary one, which remove takes away.
func (f datasetFlags) fetch(ctx context.Context, c *cli.Call, arg string) (dir string, remove func(), err error) {
	if _, err := os.Stat(filepath.Join(arg, dataset.ManifestName)); err == nil {
		return arg, func() {}, nil
	}
	ref, err := oras.ParseRef(arg)
	if err != nil {
		return "", nil, cli.Usagef("%w", err)
	}
	store, err := oras.Open(ctx, ref, oras.Options{PlainHTTP: *f.plain, Anonymous: *f.anonymous})
	if err != nil {
		return "", nil, err
	}
	name, err := datasetName(ctx, c, store, ref)
	if err != nil {
		return "", nil, err
	}
	work, err := os.MkdirTemp(*f.temp, "bhverify-dataset-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(work) }
	dir = filepath.Join(work, "snapshot")
	if _, err := oras.PullDataset(ctx, store, name, dir); err != nil {
		remove()
		return "", nil, err
	}
	return dir, remove, nil
}

// datasetName returns what a store knows the dataset by that ref refers to.
func datasetName(ctx context.Context, c *cli.Call, store oras.Store, ref oras.Ref) (string, error) {
	if !ref.Digest.IsZero() {
		tag := oras.DatasetTag(ref.Digest)
		switch _, err := store.Resolve(ctx, tag); {
		case err == nil:
			return tag, nil
		case !errors.Is(err, oras.ErrNotFound):
			return "", err
		}
	}
	d, err := store.Resolve(ctx, ref.Name())
	if err != nil {
		return "", err
	}
	if d.ArtifactType == oras.TypeDataset {
		return ref.Name(), nil
	}
	release, err := oras.Pull(ctx, store, d.Digest)
	if err != nil {
		return "", err
	}
	c.Log.Debug("resolved", "release", d.Digest.String(), "dataset", release.Release.Dataset.String())
	return oras.DatasetTag(release.Release.Dataset), nil
}

// open is fetch and dataset.Open.
func (f datasetFlags) open(ctx context.Context, c *cli.Call, arg string) (s *dataset.Snapshot, done func(), err error) {
	dir, remove, err := f.fetch(ctx, c, arg)
	if err != nil {
		return nil, nil, err
	}
	s, err = dataset.Open(dir)
	if err != nil {
		remove()
		return nil, nil, err
	}
	return s, func() { s.Close(); remove() }, nil
}

func datasetCheckCommand() cli.Command {
	return cli.Command{
		Name:  "dataset check",
		Args:  "REF",
		Short: "prove that a dataset keeps its format",
		Long: `
Checks canonical form, order, Merkle roots, numbers of rows and the files of a
dataset, with code that does not write datasets. Whether the rows are true,
and who published them, is not asked.
` + datasetRefs + `

Exit codes: 0 it is a valid dataset, 3 it is not, 1 it could not be looked at.`,
		Example: `
bhverify dataset check snapshot
bhverify dataset check registry.example.org/models/web:release-12 --format json`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			flags := newDatasetFlags(fs)
			cli.Format(fs)
			return func(ctx context.Context, c *cli.Call, args []string) error {
				heap.Usual()
				if len(args) != 1 {
					return cli.Usagef("dataset check: want one reference, got %d; see 'bhverify dataset check --help'", len(args))
				}
				dir, remove, err := flags.fetch(ctx, c, args[0])
				if err != nil {
					return err
				}
				defer remove()
				report, failed := dataset.Check(ctx, dir)
				if report == nil {
					return failed
				}
				if c.JSON() {
					err = c.WriteJSON(report)
				} else {
					err = writeCheck(c, report)
				}
				if err == nil && !report.Pass() {
					err = cli.Exit(cli.Refused, nil)
				}
				return err
			}
		},
	}
}

func writeCheck(c *cli.Call, r *dataset.CheckReport) error {
	w := bufio.NewWriter(c.Stdout)
	for _, f := range r.Findings {
		text := f.Reason
		if f.Observed != "" && f.Status == dataset.Fail {
			text = fmt.Sprintf("%s, expected %s", f.Observed, f.Expected)
		} else if f.Observed != "" {
			text = f.Observed
		}
		mark := map[dataset.Status]string{dataset.Pass: "✓", dataset.Fail: "✗", dataset.Skip: "–"}[f.Status]
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s %-50s  %s", mark, f.Name, verify.Printable(text)), " "))
	}
	if r.Pass() {
		fmt.Fprintf(w, "VALID dataset %s\n", r.Dataset)
	} else {
		fmt.Fprintf(w, "NOT VALID dataset %s\n", r.Dataset)
	}
	return w.Flush()
}

func datasetProveCommand() cli.Command {
	return cli.Command{
		Name:  "dataset prove",
		Args:  "REF (--record JSON | --id N)",
		Short: "prove that a row is in a dataset, or is not",
		Long: `
Writes a proof that a record, or the exploit with an EDB id, is in the dataset;
or, if it is not, a proof of that, by the two rows between which it would
stand. Who has the dataset digest needs nothing else to check it. The whole
dataset is checked first: a proof of absence rests on the order of its rows.

A record is one JSON object as 'bhtrain' reads attack records, with the member
"kind" if it came from another source. What the dataset took out of its records
for privacy is taken out of this one too. A proof holds the row, or both
neighbours of an absent one.
` + datasetRefs,
		Example: `
bhverify dataset prove snapshot --id 50383 -o proof.json
bhverify dataset prove registry.example.org/models/web@sha256:… --record '{"kind":"access","timestamp":"2026-03-01T12:00:00Z","src_ip":"192.0.2.7","payload":"/x"}'
bhverify dataset prove dist --record @record.json`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			flags := newDatasetFlags(fs)
			about := newRowFlags(fs)
			out := fs.StringP("output", "o", "", "`FILE`: a new file for the proof instead of standard output")
			return func(ctx context.Context, c *cli.Call, args []string) error {
				heap.Usual()
				if len(args) != 1 {
					return cli.Usagef("dataset prove: want one reference, got %d; see 'bhverify dataset prove --help'", len(args))
				}
				if err := about.check("dataset prove", true); err != nil {
					return err
				}
				s, done, err := flags.open(ctx, c, args[0])
				if err != nil {
					return err
				}
				defer done()
				r, err := about.read(s.Manifest())
				if err != nil {
					return err
				}
				prover, err := dataset.NewProver(ctx, s)
				if err != nil {
					return err
				}
				var proof *dataset.Proof
				if r != nil {
					proof, err = prover.Record(r)
				} else {
					proof, err = prover.Exploit(*about.id)
				}
				if err != nil {
					return err
				}
				text, err := proof.Encode()
				if err != nil {
					return err
				}
				if *out != "" {
					err = writeNew(*out, text)
				} else {
					_, err = c.Stdout.Write(append(text, '\n'))
				}
				if err == nil {
					err = writeProof(c.Stderr, proof)
				}
				return err
			}
		},
	}
}

// rowFlags name a row: a record, or the exploit with an id.
type rowFlags struct {
	record *string
	id     *int64
}

func newRowFlags(fs *pflag.FlagSet) rowFlags {
	return rowFlags{
		record: fs.String("record", "", "`JSON`: a record, or @FILE with one"),
		id:     fs.Int64("id", 0, "`N`: EDB id of an exploit"),
	}
}

func (f rowFlags) check(command string, needed bool) error {
	switch {
	case *f.record != "" && *f.id != 0:
		return cli.Usagef("%s: give --record or --id, not both", command)
	case *f.id < 0:
		return cli.Usagef("%s: --id %d: want 1 or more", command, *f.id)
	case needed && *f.record == "" && *f.id == 0:
		return cli.Usagef("%s: --record JSON or --id N is missing", command)
	}
	return nil
}

// read returns the record in the form that a dataset has records in, or nil
// when another row is named.
func (f rowFlags) read(m dataset.Manifest) (*record.Record, error) {
	if *f.record == "" {
		return nil, nil
	}
	text := *f.record
	if name, ok := strings.CutPrefix(text, "@"); ok {
		b, err := cli.ReadFile(name, 1<<20)
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	private := record.Privacy{Address: m.Address, Redaction: m.Redaction}
	if m.Address == record.Hashed {
		private.Address = record.Full // who has no key must give the hash
	}
	reader, err := record.NewReader(strings.NewReader(text), record.Attacks, record.Options{Privacy: private})
	if err != nil {
		return nil, err
	}
	r := new(record.Record)
	if err := reader.Next(r); err == io.EOF {
		return nil, errors.New("--record: no record in it")
	} else if err != nil {
		return nil, fmt.Errorf("--record: %w", err)
	}
	if err := reader.Next(new(record.Record)); err != io.EOF {
		return nil, errors.New("--record: more than one record")
	}
	return r, nil
}

// restsOn says what an absence is worth.
const restsOn = "It rests on the order of the rows, which a proof does not show: check the dataset ('bhverify dataset check'), or trust somebody who did."

func writeProof(w io.Writer, p *dataset.Proof) error {
	out := bufio.NewWriter(w)
	if p.Included() {
		row, err := dataset.RowJSON(p.Table, p.Rows[0].Row)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "INCLUDED row %d of %s of dataset %s\n%s\n", p.Rows[0].Index, p.Table, p.Dataset(), printableRow(row))
		return out.Flush()
	}
	what := fmt.Sprintf("EDB id %d", p.Absent.ID)
	if p.Absent.Row != nil {
		row, err := dataset.RowJSON(p.Table, p.Absent.Row)
		if err != nil {
			return err
		}
		what = printableRow(row)
	}
	where := "an empty table"
	switch {
	case len(p.Rows) == 2:
		where = fmt.Sprintf("rows %d and %d are neighbours and lie around it", p.Rows[0].Index, p.Rows[1].Index)
	case len(p.Rows) == 1 && p.Rows[0].Index == 0:
		where = "it would stand before the first row"
	case len(p.Rows) == 1:
		where = "it would stand behind the last row"
	}
	fmt.Fprintf(out, "ABSENT from %s of dataset %s: %s\n%s\n%s\n", p.Table, p.Dataset(), where, what, restsOn)
	return out.Flush()
}

// printableRow makes the JSON of a row, whose texts may be an attacker's, safe
// for a terminal.
func printableRow(row jsontext.Value) string {
	var b strings.Builder
	for _, r := range string(row) {
		if s := verify.Printable(string(r)); s != "" {
			b.WriteString(s)
		} else {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func datasetVerifyProofCommand() cli.Command {
	return cli.Command{
		Name:  "dataset verify-proof",
		Args:  "FILE (--dataset DIGEST | --root DIGEST)",
		Short: "check a proof about a row, without the dataset",
		Long: `
FILE is what 'bhverify dataset prove' wrote, or - for standard input. The digest
is what you trust: the dataset digest, as a verified release or a signed
statement names it, or the Merkle root of the table, as snapshot.json and
dataset statements do. With --root alone the number of rows and their places are the
proof's word. With --record or --id the proof must also be about that row.

Exit codes: 0 the proof holds (included or absent, as it says), 3 it does not.`,
		Example: `
bhverify dataset verify-proof proof.json --dataset sha256:…
bhverify dataset verify-proof proof.json --root sha256:… --rows 120481 --id 50383`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			digest := fs.String("dataset", "", "`DIGEST`: the dataset digest")
			root := fs.String("root", "", "`DIGEST`: the Merkle root of the proof's table")
			rows := fs.Int64("rows", 0, "the number of rows of that table (default: not compared)")
			about := newRowFlags(fs)
			cli.Format(fs)
			return func(_ context.Context, c *cli.Call, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("dataset verify-proof: want one file, got %d; see 'bhverify dataset verify-proof --help'", len(args))
				}
				if *digest == "" && *root == "" {
					return cli.Usagef("dataset verify-proof: --dataset DIGEST or --root DIGEST is missing: a proof is held against what you trust")
				}
				if err := about.check("dataset verify-proof", false); err != nil {
					return err
				}
				trusted := dataset.Trusted{Rows: *rows}
				for _, d := range []struct {
					flag, text string
					to         *canon.Digest
				}{{"dataset", *digest, &trusted.Dataset}, {"root", *root, &trusted.Root}} {
					if err := d.to.UnmarshalText([]byte(d.text)); err != nil {
						return cli.Usagef("dataset verify-proof: --%s: %w", d.flag, err)
					}
				}
				text, err := readProof(c, args[0])
				if err != nil {
					return err
				}
				p, err := dataset.VerifyProof(text, trusted)
				if err != nil {
					return err
				}
				if err := about.match(p); err != nil {
					return err
				}
				if c.JSON() {
					return c.WriteJSON(proofReport(p))
				}
				return writeProof(c.Stdout, p)
			}
		},
	}
}

// readProof reads a proof, without the line end that 'dataset prove' puts
// behind it on standard output.
func readProof(c *cli.Call, name string) ([]byte, error) {
	var b []byte
	var err error
	if name == "-" {
		b, err = io.ReadAll(io.LimitReader(c.Stdin, dataset.MaxProof+2))
	} else {
		b, err = cli.ReadFile(name, dataset.MaxProof+1)
	}
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	return b, err
}

// match reports, as a refusal, that a proof is about another row than the flags name.
func (f rowFlags) match(p *dataset.Proof) error {
	other := fmt.Errorf("%w: it is about another row than the one asked about", dataset.ErrProof)
	if *f.id != 0 {
		about, err := p.ID()
		if err != nil || about != *f.id {
			return other
		}
	}
	r, err := f.read(p.Snapshot)
	if err != nil || r == nil {
		return err
	}
	if p.Table != "records" || string(r.AppendRow(nil)) != string(p.About()) {
		return other
	}
	return nil
}

type proofView struct {
	Included bool           `json:"included"`
	Dataset  canon.Digest   `json:"dataset"`
	Table    string         `json:"table"`
	Index    *int64         `json:"index,omitempty"` // of the row
	ID       int64          `json:"id,omitzero"`     // absent EDB id
	Row      jsontext.Value `json:"row,omitempty"`   // that is included, or absent
	RestsOn  string         `json:"rests_on,omitempty"`
}

func proofReport(p *dataset.Proof) proofView {
	v := proofView{Included: p.Included(), Dataset: p.Dataset(), Table: p.Table}
	if p.Included() {
		v.Index = &p.Rows[0].Index
	} else {
		v.ID, v.RestsOn = p.Absent.ID, restsOn
	}
	if row := p.About(); row != nil {
		v.Row, _ = dataset.RowJSON(p.Table, row) // a verified proof holds rows that decode
	}
	return v
}

func datasetDiffCommand() cli.Command {
	return cli.Command{
		Name:  "dataset diff",
		Args:  "A B",
		Short: "say which rows were added and removed between two datasets",
		Long: `
Counts the rows that only one of two datasets has, by source and class, and
shows the first of them. Records have no key, so one that changed is one removed and
one added; of exploits with one EDB id it is said how many changed. Both datasets
are checked on the way.
` + datasetRefs + `

Exit codes: 0 whether they differ or not, 3 one of them is damaged, 1 they could not be read.`,
		Example: `
bhverify dataset diff oci-layout:dist:release-11 oci-layout:dist:release-12
bhverify dataset diff snapshot-old registry.example.org/models/web --rows 100`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			flags := newDatasetFlags(fs)
			show := fs.Int("rows", 10, "rows to show of those added, and of those removed, in each table")
			cli.Format(fs)
			return func(ctx context.Context, c *cli.Call, args []string) error {
				heap.Usual()
				if len(args) != 2 {
					return cli.Usagef("dataset diff: want two references, got %d; see 'bhverify dataset diff --help'", len(args))
				}
				if *show < 0 {
					return cli.Usagef("dataset diff: --rows %d: want 0 or more", *show)
				}
				a, doneA, err := flags.open(ctx, c, args[0])
				if err != nil {
					return err
				}
				defer doneA()
				b, doneB, err := flags.open(ctx, c, args[1])
				if err != nil {
					return err
				}
				defer doneB()
				report := diffView{Rows: []changedRow{}}
				shown := map[changedRow]int{}
				report.Difference, err = dataset.Diff(ctx, a, b, func(table string, row []byte, added bool) error {
					key := changedRow{Table: table, Added: added}
					if shown[key]++; shown[key] > *show {
						return nil
					}
					text, err := dataset.RowJSON(table, row)
					key.Row = string(text)
					report.Rows = append(report.Rows, key)
					return err
				})
				if err != nil {
					return err
				}
				if c.JSON() {
					return c.WriteJSON(report)
				}
				return report.write(c.Stdout)
			}
		},
	}
}

// diffView is a Difference with the first rows of each kind.
type diffView struct {
	*dataset.Difference
	Rows []changedRow `json:"rows"`
}

type changedRow struct {
	Table string `json:"table"`
	Added bool   `json:"added"` // else removed
	Row   string `json:"row"`   // JSON
}

func (v diffView) write(to io.Writer) error {
	w := bufio.NewWriter(to)
	for _, t := range v.Tables {
		fmt.Fprintf(w, "%-9s %d rows before, %d after: %d added, %d removed", t.Name, t.From, t.To, t.Added, t.Removed)
		if t.Changed > 0 {
			fmt.Fprintf(w, " (%d of them changed under one id)", t.Changed)
		}
		fmt.Fprintln(w)
	}
	if len(v.Groups) > 0 {
		fmt.Fprintf(w, "\n%-9s %-10s %-24s %9s %9s\n", "table", "source", "class", "added", "removed")
	}
	for _, g := range v.Groups {
		fmt.Fprintf(w, "%-9s %-10s %-24s %9d %9d\n", g.Table, verify.Printable(g.Source), verify.Printable(g.Class), g.Added, g.Removed)
	}
	if len(v.Rows) > 0 {
		fmt.Fprintln(w)
	}
	for _, r := range v.Rows {
		mark := "-"
		if r.Added {
			mark = "+"
		}
		fmt.Fprintf(w, "%s %s %s\n", mark, r.Table, printableRow(jsontext.Value(r.Row)))
	}
	if v.From == v.To {
		fmt.Fprintf(w, "SAME dataset %s\n", v.From)
	} else if v.Equal() {
		fmt.Fprintf(w, "SAME ROWS, datasets %s and %s: they state another privacy\n", v.From, v.To)
	} else {
		fmt.Fprintf(w, "DIFFERENT datasets %s and %s\n", v.From, v.To)
	}
	return w.Flush()
}
