package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
)

var matrixCommand = cli.Command{
	Name:  "matrix",
	Args:  "[SNAPSHOT]",
	Short: "write the training matrix as Arrow and CSV for other programs",
	Long: `
Writes what the models are trained on, one row for each exploit and record that
the recipe uses: features, class, weight and part (training, validation, test).
It takes a directory that 'bhtrain snapshot' made, or raw inputs as run does;
without either the embedded sample is used.

The directory --out appears whole or not at all. It holds matrix.arrow and
matrix.csv, with the same rows and columns, columns.csv, which says what each
column means and which models may use it, and matrix.json, which names the
dataset and the recipe. Features are not scaled. Training with this program
needs no matrix.` + inputsHelp,
	Example: `
bhtrain matrix snapshot --out matrix
bhtrain matrix snapshot --as-of 2026-01-15T00:00:00Z --window 730d --out matrix
bhtrain matrix --labelled payloads.csv --access access.log,class=benign --out matrix
# then, in Python
m = pandas.read_csv("matrix/matrix.csv"); train = m[m.part == "training"]
# or in DuckDB
SELECT part, class, count(*) FROM 'matrix/matrix.csv' GROUP BY ALL`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		inputs := newInputFlags(fs)
		ofInputs := map[string]bool{}
		fs.VisitAll(func(f *pflag.Flag) { ofInputs[f.Name] = true })
		recipe := newRecipeFlags(fs)
		out := fs.StringP("out", "o", "matrix", "`DIR`: directory to make")
		workers := fs.Int("workers", 0, "threads; never changes a byte (default: one per CPU)")
		temp := fs.String("temp", "", "`DIR`: for temporary files (default: the system's)")
		cli.Format(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			p := pipeline.Plan{Out: *out, Workers: *workers, TempDir: *temp}
			switch {
			case p.Out == "":
				return cli.Usagef("--out is empty: name a directory")
			case p.Workers < 0:
				return cli.Usagef("--workers %d: want 0 or more", p.Workers)
			case len(args) > 1:
				return cli.Usagef("unexpected argument %q: want one snapshot directory, or inputs by flags such as --exploitdb %s", args[1], args[1])
			case len(args) == 1:
				p.Snapshot = args[0]
				var err error
				fs.Visit(func(f *pflag.Flag) {
					if err == nil && ofInputs[f.Name] {
						err = cli.Usagef("--%s has no effect on a finished snapshot: give either %s or inputs", f.Name, args[0])
					}
				})
				if err != nil {
					return err
				}
			default:
				if err := inputs.apply(&p); err != nil {
					return err
				}
			}
			if err := recipe.apply(&p); err != nil {
				return err
			}
			progress, end := c.Progress()
			p.Progress = progress
			r, err := pipeline.WriteMatrix(ctx, p)
			end()
			if errors.Is(err, dataset.ErrTooManyBad) && r != nil && r.Inputs != nil {
				writeInputs(c.Stderr, r.Inputs)
			}
			if err != nil {
				return err
			}
			if c.JSON() {
				return c.WriteJSON(r)
			}
			return writeMatrix(c, &p, r)
		}
	},
}

// writeMatrix says what a matrix holds and where it is.
func writeMatrix(c *cli.Call, p *pipeline.Plan, r *pipeline.MatrixReport) error {
	out := bufio.NewWriter(c.Stdout)
	if r.Inputs != nil {
		if len(p.Inputs) == 0 {
			fmt.Fprintln(out, "No inputs were given: this is the embedded sample, which is made up.")
		} else if err := writeInputs(out, r.Inputs); err != nil {
			return err
		}
		if err := writeTables(out, r.Inputs, ""); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "SNAPSHOT %s\n", r.Matrix.Dataset)
	}
	m, n := &r.Matrix, &r.Counts
	fmt.Fprintf(out, "\nMATRIX of %d rows (%d training, %d validation, %d test) from %d, %d columns\n",
		m.Rows, m.Parts.Training, m.Parts.Validation, m.Parts.Test, n.Exploits+n.Records, m.Columns)
	if m.Derived > 0 {
		fmt.Fprintf(out, "    derived  %6d  training rows are a record's payload in another form\n", m.Derived)
	}
	for _, d := range n.Dropped {
		fmt.Fprintf(out, "    not used %6d  %s\n", d.Rows, d.Reason)
	}
	fmt.Fprintf(out, "  classes: %s\n", strings.Join(m.Classes, ", "))
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range m.Files {
		fmt.Fprintf(tw, "  %s\t%10d bytes\t%s\n", f.Name, f.Size, f.Digest)
	}
	tw.Flush()
	fmt.Fprintf(out, "  in %s\n", r.Out)
	return out.Flush()
}
