package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/big"
	"os"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

var benchCommand = cli.Command{
	Name:  "bench",
	Short: "train the engine on any table of numbers and measure it",
	Long: `
Fits gradient boosted trees, a random forest or an isolation forest on a CSV
file and prints how well and how fast, to be set beside other programs on the
same rows. The file has a header; one column holds the labels, numbers or
texts, and all others are numeric features. Empty fields and NaN are missing
values. Rows with an empty label are left out.

Quality is measured on the rows of --test, or on a share of --csv that is held
out. With two labels the second one, by value or else by alphabet, is the
positive one. For anomalies all rows are fitted, whatever their label; rows
scored above 0.5 count as found. auc of more than two labels is the mean of
each against all others.

The same rows, parameters and seed give the same model, named by sha, on every
machine and with any number of threads. There is no limit to its size. fit_*
are from the table in memory to the finished model; peak_rss_mb is that of the
whole process until then. lat_us_* is the time to score one row and
batch_rows_s the rate of scoring many, with one thread.`,
	Example: `
bhtrain bench --csv train.csv --test test.csv --label class
bhtrain bench --csv train.csv --label class --algorithm forest --trees 200 --depth 20 --threads 2
bhtrain bench --csv traffic.csv --label attack --task anomaly --normal benign --ignore id --format json
bhtrain bench --csv train.csv --test test.csv --label class --predictions scores.f32
# then, in Python
scores = numpy.fromfile("scores.f32", "<f4")`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		file := fs.String("csv", "", "CSV file with a header, or - for standard input")
		label := fs.String("label", "", "name of the column with the labels")
		ignore := fs.StringArray("ignore", nil, "name of a column that is no feature, or several separated by commas; may be repeated")
		var p trainer.BenchParams
		fs.StringVar(&p.Task, "task", "", "binary, multiclass or anomaly (default: by the number of labels)")
		fs.StringVar(&p.Learner, "algorithm", "", "forest, boosting or isolation (default: isolation for anomaly, else boosting)")
		test := fs.String("test", "", "CSV file with the rows to measure on (default: a share of --csv)")
		holdout := fs.String("holdout", "20%", "share of the rows of --csv that are only measured on, without --test")
		fs.IntVar(&p.Trees, "trees", 0, "trees, or rounds of boosting with a tree for each of more than two labels (default: forest 200, boosting 150, isolation 100)")
		fs.IntVar(&p.Depth, "depth", 0, "splits between root and leaf (default: forest 20, boosting 5)")
		fs.IntVar(&p.Leaves, "leaves", 0, "leaves of one tree (default: no bound)")
		fs.IntVar(&p.Bins, "bins", 0, fmt.Sprintf("bins of one column, at most %d (default: %[1]d)", trainer.MaxBins))
		rate := fs.String("learning-rate", "0.1", "learning rate of boosting")
		l2 := fs.String("l2", "1", "added to the hessian of a leaf of boosting, in rows")
		minHessian := fs.String("min-hessian", "1", "least hessian of a leaf of boosting, in rows")
		fs.IntVar(&p.MinLeaf, "min-leaf", 0, "least rows of a leaf (default: forest 2, boosting 1)")
		fs.IntVar(&p.MinSplit, "min-split", 0, "least rows of a node that a forest splits (default: 5)")
		fs.IntVar(&p.Sample, "sample", 0, "rows drawn for a tree of an isolation forest (default: 256)")
		fs.StringVar(&p.Normal, "normal", "", "label of ordinary rows among anomalies (default: the first of two)")
		fs.IntVar(&p.Workers, "threads", 0, "threads of the fit; never changes a byte (default: one per CPU)")
		fs.Int64Var(&p.Seed, "seed", 1, "seed from which every random draw is derived")
		predictions := fs.String("predictions", "", "file to write the scores of the measured rows to, float32 little-endian")
		cli.Format(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			switch {
			case len(args) > 0:
				return cli.Usagef("unexpected argument %q: the table is given by --csv, columns to leave out by --ignore %[1]s", args[0])
			case *file == "":
				return cli.Usagef("--csv is missing: name a CSV file")
			case *label == "":
				return cli.Usagef("--label is missing: name the column with the labels")
			case *test != "" && fs.Changed("holdout"):
				return cli.Usagef("--test and --holdout exclude each other")
			}
			for _, f := range []string{"trees", "depth", "leaves", "bins", "min-leaf", "min-split", "sample", "threads"} {
				if v, _ := fs.GetInt(f); fs.Changed(f) && v < 1 {
					return cli.Usagef("--%s %d: want 1 or more", f, v)
				}
			}
			var err error
			if p.HoldoutPPM, err = parseShare(*holdout); err != nil {
				return cli.Usagef("--holdout %q: %w", *holdout, err)
			}
			for _, f := range []struct {
				name, text string
				value      *int64
				unit       int64 // parts of one
			}{{"learning-rate", *rate, &p.LearningRatePPM, 1_000_000}, {"l2", *l2, &p.L2Milli, 1000}, {"min-hessian", *minHessian, &p.MinHessianMilli, 1000}} {
				if !fs.Changed(f.name) {
					continue
				}
				r, ok := new(big.Rat).SetString(f.text)
				if ok {
					r.Mul(r, big.NewRat(f.unit, 1))
				}
				if !ok || !r.IsInt() || !r.Num().IsInt64() || r.Sign() <= 0 || strings.ContainsAny(f.text, "/pPxX_") {
					return cli.Usagef("--%s %q: want a number above 0 such as 0.1, in steps of 1/%d", f.name, f.text, f.unit)
				}
				*f.value = r.Num().Int64()
			}
			read := func(path string, opt trainer.TableOptions) (*trainer.Table, error) {
				in := io.NopCloser(c.Stdin)
				if path != "-" {
					f, err := os.Open(path)
					if err != nil {
						return nil, err
					}
					in = f
				}
				defer in.Close()
				t, err := trainer.ReadTable(ctx, in, opt)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", verify.Printable(path), err)
				}
				if t.Unlabelled > 0 {
					c.Log.Warn("rows without a label are left out", "file", path, "rows", t.Unlabelled)
				}
				return t, nil
			}
			opt := trainer.TableOptions{Label: *label, Ignore: *ignore}
			table, err := read(*file, opt)
			if err != nil {
				return err
			}
			var measured *trainer.Table
			if *test != "" {
				if measured, err = read(*test, trainer.TableOptions{Label: *label, Columns: table.Columns}); err != nil {
					return err
				}
			}
			start := time.Now()
			meter := trainer.Meter{
				Wall: func() time.Duration { return time.Since(start) },
				CPU:  func() time.Duration { cpu, _ := usage(); return cpu }, Peak: func() int64 { _, peak := usage(); return peak },
				Release: debug.FreeOSMemory,
			}
			progress, end := c.Progress()
			r, err := trainer.Bench(ctx, table, measured, p, meter, trainer.Options{Progress: progress})
			end()
			if err != nil {
				return err
			}
			if *predictions != "" {
				b := make([]byte, 0, 4*len(r.Scores))
				for _, v := range r.Scores {
					b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
				}
				if err := os.WriteFile(*predictions, b, 0o666); err != nil {
					return err
				}
			}
			if c.JSON() {
				return c.WriteJSON(r)
			}
			return writeBench(c.Stdout, r)
		}
	},
}

func writeBench(w io.Writer, r *trainer.BenchReport) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%s, %s: %d rows × %d columns fitted, %d measured, labels %s\n", r.Learner, r.Task, r.Rows, r.Columns, r.TestRows, verify.Printable(strings.Join(r.Labels, ", ")))
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range []struct {
		name   string
		value  string
		remark string
	}{
		{"fit_wall_s", fmt.Sprintf("%.3f", r.FitWall), fmt.Sprintf("%d threads", r.Threads)},
		{"fit_cpu_s", fmt.Sprintf("%.3f", r.FitCPU), ""},
		{"peak_rss_mb", fmt.Sprintf("%.1f", r.PeakRSS), "2^20 bytes, the whole process"},
		{"nodes", fmt.Sprint(r.Nodes), fmt.Sprintf("splits and leaves of %d trees", r.Trees)},
		{"size_kb", fmt.Sprintf("%.1f", r.Size), "2^10 bytes"},
		{"sha", r.SHA, ""},
		{"acc", fmt.Sprintf("%.6f", r.Accuracy), ""},
		{"macro_f1", fmt.Sprintf("%.6f", r.MacroF1), ""},
		{"auc", fmt.Sprintf("%.6f", r.AUC), ""},
		{"lat_us_p50", fmt.Sprintf("%.2f", r.LatP50), "one row"},
		{"lat_us_p99", fmt.Sprintf("%.2f", r.LatP99), ""},
		{"batch_rows_s", fmt.Sprintf("%.0f", r.BatchRate), "one thread"},
	} {
		fmt.Fprintf(tw, "  %s\t%s\t%s\n", f.name, f.value, f.remark)
	}
	tw.Flush()
	return out.Flush()
}
