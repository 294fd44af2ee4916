// Exactprobe does on one kind of processor what has to give the same bits on
// all of them:
//
//	exactprobe -out DIR [-read SNAPSHOT] [-workers N,…] [-as-of MICROSECONDS] [-window DAYS] [SOURCE=SPEC …]
//
// It writes the snapshot of the inputs, or of the built-in sample if there are
// none, to DIR/snapshot; trains on it once for each number N of workers and
// writes what it learnt to DIR/N; and scores 1,000 of the records. With -read it
// first reads every row of a snapshot that another machine may have written. It
// prints digests, a line "NAME DIGEST" each; those of "fused" and "exp" are
// of what may differ between processors, and show that this is another one.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"hash"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/detmath"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// scored is the number of records that are scored.
const scored = 1000

func main() {
	recipe := trainer.DefaultRecipe()
	out := flag.String("out", "", "where to write")
	read := flag.String("read", "", "a snapshot to read")
	workers := flag.String("workers", "1,4", "numbers of workers")
	flag.Int64Var(&recipe.AsOf, "as-of", recipe.AsOf, "as-of time of the recipe")
	flag.Int64Var(&recipe.WindowDays, "window", recipe.WindowDays, "window of the recipe in days")
	flag.Parse()
	if err := run(context.Background(), *out, *read, strings.Split(*workers, ","), recipe, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "exactprobe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, old string, workers []string, recipe trainer.Recipe, specs []string) error {
	fused, exp := unlike()
	fmt.Println("fused", fused)
	fmt.Println("exp", exp)
	fmt.Println("detmath", functions())
	if old != "" {
		d, err := readAll(ctx, old)
		if err != nil {
			return fmt.Errorf("reading %s: %w", old, err)
		}
		fmt.Println("read", d)
	}
	dir := filepath.Join(out, "snapshot")
	if err := build(ctx, dir, specs); err != nil {
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	s, err := dataset.Open(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Println("dataset", s.Digest())
	for _, w := range workers {
		n, err := strconv.Atoi(w)
		if err != nil {
			return err
		}
		res, err := trainer.Train(ctx, s, recipe, trainer.Options{Workers: n})
		if err != nil {
			return fmt.Errorf("training with %d workers: %w", n, err)
		}
		if err := write(filepath.Join(out, w), res); err != nil {
			return err
		}
		features, scores, err := score(ctx, s, res)
		if err != nil {
			return fmt.Errorf("scoring: %w", err)
		}
		fmt.Println("features/"+w, features)
		fmt.Println("scores/"+w, scores)
	}
	return nil
}

// build writes the snapshot of the inputs to dir.
func build(ctx context.Context, dir string, specs []string) error {
	temp, err := os.MkdirTemp("", "exactprobe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	var inputs []dataset.Input
	if len(specs) == 0 {
		if inputs, err = dataset.SampleInputs(temp); err != nil {
			return err
		}
	}
	for _, text := range specs {
		source, spec, _ := strings.Cut(text, "=")
		in, err := dataset.ParseInput(source, spec)
		if err != nil {
			return err
		}
		inputs = append(inputs, in)
	}
	_, err = dataset.Build(ctx, dataset.Config{
		Inputs: inputs, TempDir: temp, Privacy: record.Privacy{Address: record.Full, Redaction: 1},
	}, dir)
	return err
}

// readAll reads every row of a snapshot, which checks them against its digest.
func readAll(ctx context.Context, dir string) (canon.Digest, error) {
	s, err := dataset.Open(dir)
	if err != nil {
		return canon.Digest{}, err
	}
	defer s.Close()
	for _, err := range s.Exploits(ctx) {
		if err != nil {
			return canon.Digest{}, err
		}
	}
	for _, err := range s.Records(ctx) {
		if err != nil {
			return canon.Digest{}, err
		}
	}
	return s.Digest(), nil
}

// write writes all that a release is made of.
func write(dir string, res *trainer.Result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range append([]trainer.File{
		{Name: "recipe.json", Data: res.Recipe}, {Name: "features.json", Data: res.Features},
		{Name: "scoring.json", Data: res.Scoring}, {Name: "metrics.json", Data: res.Metrics},
	}, res.Files...) {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// score returns digests of the features and of every bit that the models say
// of records spread evenly over a snapshot.
func score(ctx context.Context, s *dataset.Snapshot, res *trainer.Result) (features, scores digest, err error) {
	features, scores = digest{sha256.New()}, digest{sha256.New()}
	files := map[string][]byte{}
	for _, f := range res.Files {
		files[f.Name] = f.Data
	}
	set, err := model.Open(files, res.Scoring)
	if err != nil {
		return features, scores, err
	}
	extract, err := feature.New(res.Features)
	if err != nil {
		return features, scores, err
	}
	rows := int64(0)
	for _, t := range s.Manifest().Tables {
		if t.Name == "records" {
			rows = t.Rows
		}
	}
	tracker := feature.NewTracker(extract.Config())
	vector := make([]float32, feature.Dim)
	var x model.Scores
	at, n := int64(0), int64(0)
	for r, err := range s.Records(ctx) {
		if err != nil {
			return features, scores, err
		}
		extract.Vector(vector, r, tracker)
		if n < scored && n*rows <= at*scored {
			n++
			set.Score(vector, &x)
			features.add(vector...)
			scores.add(x.AnomalyRaw, x.Anomaly, x.ReputationRaw, x.Reputation, float32(x.Class), bit(x.Flag), bit(x.Bad))
			scores.add(x.ClassRaw...)
			scores.add(x.Probabilities...)
		}
		at++
	}
	if n != scored {
		err = fmt.Errorf("the snapshot has %d records, want at least %d", rows, scored)
	}
	return features, scores, err
}

// unlike returns digests of sums that the compiler may fuse with the products
// in them, and of an exponential function that depends on the processor.
func unlike() (fused, exp digest) {
	fused, exp = digest{sha256.New()}, digest{sha256.New()}
	x := 0.1
	for range 1000 {
		y := math.Mod(float64(x*1021), 7)
		fused.double(x*y + y)
		exp.double(math.Exp(x))
		x = math.Mod(float64(x*1.1), 10) + 0.01
	}
	return fused, exp
}

// functions returns a digest of what package detmath gives for 50,000 values
// over the range that its functions tell apart and 50,000 of any size.
func functions() digest {
	d := digest{sha256.New()}
	var sum detmath.Sum
	var moments detmath.Moments
	state := uint64(0)
	for i := range 100_000 {
		state += 0x9e3779b97f4a7c15 // SplitMix64
		u := (state ^ state>>30) * 0xbf58476d1ce4e5b9
		u = (u ^ u>>27) * 0x94d049bb133111eb
		u ^= u >> 31
		x := math.Ldexp(float64(int64(u)), -53) // within ±1024
		if i%2 == 1 {
			x = math.Float64frombits(u)
		}
		if math.IsNaN(x) || math.IsInf(x, 0) {
			continue
		}
		y := math.Ldexp(float64(int32(u)), -24)
		d.double(detmath.Exp(x), detmath.Exp2(x), detmath.Sigmoid(x), detmath.Log(math.Abs(x)), detmath.Pow(math.Abs(x), y))
		sum.Add(x)
		moments.Add(float32(y))
	}
	d.double(sum.Value(), moments.Mean(), moments.Deviation())
	return d
}

func bit(b bool) float32 {
	if b {
		return 1
	}
	return 0
}

// digest hashes numbers bit by bit.
type digest struct{ hash.Hash }

func (d digest) add(v ...float32) {
	for _, x := range v {
		d.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(x)))
	}
}

func (d digest) double(v ...float64) {
	for _, x := range v {
		d.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(x)))
	}
}

func (d digest) String() string { return canon.Digest(d.Sum(nil)).String() }
