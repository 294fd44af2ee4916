package trainer

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

var update = flag.Bool("update", false, "rewrite golden files")

func snapshotOf(t testing.TB, inputs []dataset.Input) *dataset.Snapshot {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "snapshot")
	if _, err := dataset.Build(context.Background(), dataset.Config{Inputs: inputs}, dir); err != nil {
		t.Fatal(err)
	}
	s, err := dataset.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func sampleInputs(t testing.TB) []dataset.Input {
	t.Helper()
	inputs, err := dataset.SampleInputs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return inputs
}

func train(t testing.TB, s *dataset.Snapshot, r Recipe, workers int) *Result {
	t.Helper()
	res, err := Train(context.Background(), s, r, Options{Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// digests lists everything that a release takes from a training.
func digests(r *Result) string {
	var b strings.Builder
	for _, f := range r.Files {
		fmt.Fprintf(&b, "%s %s\n", canon.Sum(f.Data), f.Name)
	}
	for _, v := range []struct {
		name string
		data []byte
	}{{"features", r.Features}, {"metrics", r.Metrics}, {"recipe", r.Recipe}, {"scoring", r.Scoring}} {
		fmt.Fprintf(&b, "%s %s\n", canon.Sum(v.data), v.name)
	}
	return b.String()
}

func TestTrainingDependsOnSnapshotAndRecipeAlone(t *testing.T) {
	inputs := sampleInputs(t)
	s := snapshotOf(t, inputs)
	one := train(t, s, DefaultRecipe(), 1)
	for _, workers := range []int{2, 3, 16, 0} {
		if many := train(t, s, DefaultRecipe(), workers); !reflect.DeepEqual(one, many) {
			t.Errorf("%d workers: other results\n%s%s", workers, digests(one), digests(many))
		}
	}
	slices.Reverse(inputs)
	if other := train(t, snapshotOf(t, inputs), DefaultRecipe(), 2); !reflect.DeepEqual(one, other) {
		t.Error("the order of inputs is seen in the result")
	}
	r := DefaultRecipe()
	r.Seed++
	if digests(train(t, s, r, 2)) == digests(one) {
		t.Error("another seed gives the same result: the test proves nothing")
	}
}

func TestResolvedRecipeTrainsTheSame(t *testing.T) {
	s := snapshotOf(t, sampleInputs(t))
	first := train(t, s, DefaultRecipe(), 2)
	r, err := DecodeRecipe(first.Recipe)
	if err != nil {
		t.Fatal(err)
	}
	if r.AsOf == 0 || r.HalfLifeDays == 0 {
		t.Errorf("as of %d, half-life %d are not resolved", r.AsOf, r.HalfLifeDays)
	}
	if again := train(t, s, r, 2); !reflect.DeepEqual(first, again) {
		t.Error("the recipe of a release does not rebuild it")
	}
}

func TestSampleGolden(t *testing.T) {
	s := snapshotOf(t, sampleInputs(t))
	got := fmt.Sprintf("%s dataset\n%s", s.Digest(), digests(train(t, s, DefaultRecipe(), 2)))
	forest := train(t, s, forestRecipe(), 2)
	got += fmt.Sprintf("%s %s of a forest\n", canon.Sum(forest.Files[2].Data), forest.Files[2].Name)
	const path = "testdata/golden/sample.txt"
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("training on the sample gives\n%swant\n%sIf that is meant, raise Algorithm and run with -update.", got, want)
	}
}

func TestSampleModelsAreUseful(t *testing.T) {
	s := snapshotOf(t, sampleInputs(t))
	for name, r := range map[string]Recipe{"boosting": DefaultRecipe(), "forest": forestRecipe()} {
		res := train(t, s, r, 2)
		m := res.Summary.Metrics
		if m.Classifier.AttackAUCPPM < 970_000 || m.Classifier.MacroF1PPM < 550_000 {
			t.Errorf("%s: attack AUC %d, macro-F1 %d", name, m.Classifier.AttackAUCPPM, m.Classifier.MacroF1PPM)
		}
		if m.Anomaly.AUCPPM < 700_000 || m.Anomaly.FalseAlarmPPM > 60_000 {
			t.Errorf("%s: anomaly %+v", name, m.Anomaly)
		}
		if m.Reputation.AUCPPM < 750_000 {
			t.Errorf("%s: reputation %+v", name, m.Reputation)
		}
		sum := 0
		for i, f := range res.Files {
			if f.Name != model.Files()[i] {
				t.Errorf("file %d is %s", i, f.Name)
			}
			sum += len(f.Data)
		}
		if sum > 280<<10 {
			t.Errorf("%s: the files take %d bytes", name, sum)
		}
	}
}

func TestFilesKeepTheBudgetsOfTheRecipe(t *testing.T) {
	s := snapshotOf(t, sampleInputs(t))
	r := DefaultRecipe()
	r.Anomaly.MaxBytes, r.Classifier.Boosting.MaxBytes, r.Reputation.MaxBytes = 9000, 20_000, 5000
	res := train(t, s, r, 2)
	for i, most := range []int{1 << 20, 9000, 20_000, 5000} {
		if n := len(res.Files[i].Data); n > most || i > 0 && n < most/2 {
			t.Errorf("%s has %d bytes, budget %d", res.Files[i].Name, n, most)
		}
	}
}

func TestMatrixIsWhatServingComputes(t *testing.T) {
	s := snapshotOf(t, sampleInputs(t))
	ctx := context.Background()
	m, err := BuildMatrix(ctx, s, DefaultRecipe(), Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	config, err := m.Config.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	x, err := feature.New(config)
	if err != nil {
		t.Fatal(err)
	}
	byRecord := map[int64]int{}
	exploits := map[int64]int{}
	v := make([]float32, feature.Dim)
	made := 0
	for i, row := range m.Rows {
		switch {
		case row.Derived: // TestDerivedRows
		case row.isOrdinary():
			made++
			r := Ordinary(m.Recipe.Seed, row.Record)
			x.Vector(v, &r, nil)
			if !slices.Equal(v, m.row(int32(i))) {
				t.Fatalf("ordinary row %d: another vector", row.Record)
			}
		case row.isTitle():
			exploits[row.Exploit] = i
		default:
			byRecord[row.Record] = i
		}
	}
	tracker := feature.NewTracker(m.Config)
	at, seen := int64(0), made
	parts := map[string]Part{}
	for r, err := range s.Records(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		// What a sensor sends has no exploit; label and level are for training.
		live := *r
		live.Label, live.Level, live.Kind, live.Event = "", 0, "", ""
		x.Vector(v, &live, tracker)
		if i, ok := byRecord[at]; ok {
			seen++
			if !slices.Equal(v, m.row(int32(i))) {
				t.Fatalf("record %d: serving computes another vector", at)
			}
			if r.Address != "" {
				if p, ok := parts[r.Address]; ok && p != m.Rows[i].Part {
					t.Fatalf("address %s is in two parts", r.Address)
				}
				parts[r.Address] = m.Rows[i].Part
			}
		}
		at++
	}
	for e, err := range s.Exploits(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		i, ok := exploits[e.ID]
		if !ok {
			continue
		}
		seen++
		match := ClassifyExploit(e.Title, e.Type, e.Platform)
		x.Vector(v, &record.Record{Time: record.NoTime, Payload: MaskTitle(e.Title, match.Spans), Port: e.Port}, nil)
		if !slices.Equal(v, m.row(int32(i))) {
			t.Fatalf("exploit %d: another vector", e.ID)
		}
	}
	if seen != len(m.Rows)-int(m.Count.Derived) || int64(seen) != m.Count.Used {
		t.Errorf("%d of %d rows were seen, %d counted", seen, len(m.Rows), m.Count.Used)
	}
	var dropped int64
	for _, d := range m.Count.Dropped {
		dropped += d.Rows
	}
	if all := m.Count.Exploits + m.Count.Records + int64(made); dropped+m.Count.Used != all {
		t.Errorf("%d used and %d dropped of %d", m.Count.Used, dropped, all)
	}
}

func TestRowsAreDroppedForAReasonThatIsCounted(t *testing.T) {
	s := snapshotOf(t, sampleInputs(t))
	ctx := context.Background()
	base, err := BuildMatrix(ctx, s, DefaultRecipe(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	count := func(m *Matrix, why string) int64 {
		for _, d := range m.Count.Dropped {
			if d.Reason == why {
				return d.Rows
			}
		}
		return 0
	}
	for why, change := range map[string]func(r *Recipe){
		droppedWindow: func(r *Recipe) { r.WindowDays = 1 },
		droppedLater:  func(r *Recipe) { r.AsOf = base.Recipe.AsOf - 20*microsPerDay },
		droppedCap:    func(r *Recipe) { r.MaxRows = 500 },
	} {
		if n := count(base, why); n != 0 {
			t.Errorf("%s: %d rows already", why, n)
		}
		r := DefaultRecipe()
		change(&r)
		m, err := BuildMatrix(ctx, s, r, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if n := count(m, why); n == 0 || m.Count.Used >= base.Count.Used {
			t.Errorf("%s: %d rows, %d used of %d", why, n, m.Count.Used, base.Count.Used)
		}
		for _, row := range m.Rows {
			if row.Exploit != 0 && row.Weight != unitWeight {
				t.Fatalf("%s: an exploit weighs %d", why, row.Weight)
			}
			if row.Weight < 1 || row.Weight > unitWeight {
				t.Fatalf("weight %d", row.Weight)
			}
		}
	}
}

// labelled writes a labelled CSV with n payloads of each class.
func labelled(t *testing.T, n int, classes ...string) dataset.Input {
	t.Helper()
	var b strings.Builder
	b.WriteString("payload,attack_type\n")
	for _, c := range classes {
		for i := range n {
			fmt.Fprintf(&b, "%s value %d%s,%s\n", c, i*7919, strings.Repeat("x", i%13), c)
		}
	}
	path := filepath.Join(t.TempDir(), "labelled.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return dataset.Input{Source: dataset.Source(record.Labelled), Path: path}
}

// traffic writes attack records with addresses and times.
func traffic(t *testing.T, n int, class, level string) dataset.Input {
	t.Helper()
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"timestamp":"2026-01-%02dT00:%02d:%02dZ","ip_address":"198.51.%d.%d","threat_type":%q,"level":%q,"details":"GET /%d"}`+"\n",
			1+i%28, i%60, i*7%60, i%3, i%250, class, level, i)
	}
	path := filepath.Join(t.TempDir(), "attacks.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return dataset.Input{Source: dataset.Source(record.Attacks), Path: path}
}

func TestTooLittleIsRefusedByName(t *testing.T) {
	benign := traffic(t, 400, "benign", "SAFE")
	attacks := traffic(t, 400, "SQL Injection Attack", "CRITICAL")
	for _, c := range []struct {
		name   string
		inputs []dataset.Input
		says   string
	}{
		{"few rows", []dataset.Input{labelled(t, 30, "sqli", "norm")}, "labelled rows"},
		{"nothing labelled", []dataset.Input{labelled(t, 200, "unknown")}, "none of 0 exploits and 200 records"},
		{"one class", []dataset.Input{labelled(t, 300, "sqli")}, "one class"},
		{"no benign records", []dataset.Input{attacks, labelled(t, 200, "xss")}, "ordinary traffic"},
		{"no bad addresses", []dataset.Input{benign, labelled(t, 200, "sqli")}, "level DANGEROUS"},
		{"no good addresses", []dataset.Input{attacks, labelled(t, 200, "norm")}, "level below DANGEROUS"},
	} {
		_, err := Train(context.Background(), snapshotOf(t, c.inputs), DefaultRecipe(), Options{})
		if !errors.Is(err, ErrTooFew) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := Train(context.Background(), snapshotOf(t, []dataset.Input{benign, attacks}), DefaultRecipe(), Options{}); err != nil {
		t.Errorf("enough of everything: %v", err)
	}
}

func TestTrainingEndsWithItsContext(t *testing.T) {
	s := snapshotOf(t, sampleInputs(t))
	for _, stage := range []string{"rows", "features", "classifier", "reputation"} {
		ctx, cancel := context.WithCancel(context.Background())
		_, err := Train(ctx, s, DefaultRecipe(), Options{Workers: 2, Progress: func(at string, _, _ int64) {
			if at == stage {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", stage, err)
		}
		cancel()
	}
	r := DefaultRecipe()
	r.Seed = -1
	if _, err := Train(context.Background(), s, r, Options{}); !errors.Is(err, ErrRecipe) {
		t.Errorf("invalid recipe: %v", err)
	}
}

func TestSmallClassesAreMergedAndNamed(t *testing.T) {
	s := snapshotOf(t, sampleInputs(t))
	r := DefaultRecipe()
	r.MinClassRows = 60
	m, err := BuildMatrix(context.Background(), s, r, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Count.Merged) == 0 {
		t.Fatal("no class is small: the test proves nothing")
	}
	count := make([]int64, len(m.Classes))
	for _, row := range m.Rows {
		if row.Class >= 0 && row.Part == Training {
			count[row.Class]++
		}
	}
	for k, name := range m.Classes {
		if slices.Contains(m.Count.Merged, name) || count[k] < r.MinClassRows {
			t.Errorf("class %s has %d training rows", name, count[k])
		}
	}
}
