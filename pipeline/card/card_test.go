package card

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

var update = flag.Bool("update", false, "rewrite golden files")

// sample is a release of the embedded sample and what its store would say of
// the dataset.
type sample struct {
	release *oras.Artifact
	dataset *oras.DatasetInfo
}

var trained = sync.OnceValues(func() (sample, error) {
	dir, err := os.MkdirTemp("", "card-test-")
	if err != nil {
		return sample{}, err
	}
	defer os.RemoveAll(dir)
	inputs, err := dataset.SampleInputs(dir)
	if err != nil {
		return sample{}, err
	}
	at := filepath.Join(dir, "snapshot")
	if _, err := dataset.Build(context.Background(), dataset.Config{Inputs: inputs, TempDir: dir, Privacy: record.Privacy{Address: record.Full, Redaction: record.Redaction}}, at); err != nil {
		return sample{}, err
	}
	s, err := dataset.Open(at)
	if err != nil {
		return sample{}, err
	}
	defer s.Close()
	res, err := trainer.Train(context.Background(), s, trainer.DefaultRecipe(), trainer.Options{})
	if err != nil {
		return sample{}, err
	}
	var models []oras.File
	for _, f := range res.Files {
		models = append(models, oras.File(f))
	}
	release, err := oras.Pack(oras.Release{
		Product: "bhtrain", Number: 7, Dataset: s.Digest(),
		Recipe: res.Recipe, Features: res.Features, Scoring: res.Scoring, Metrics: res.Metrics,
	}, models)
	if err != nil {
		return sample{}, err
	}
	snapshot, err := os.ReadFile(filepath.Join(at, oras.SnapshotFile))
	if err != nil {
		return sample{}, err
	}
	// Digests of Arrow files depend on the byte order of the machine: these stand in for them.
	info := &oras.DatasetInfo{Snapshot: snapshot, Files: []oras.DatasetFile{
		{Name: "snapshot.json", MediaType: "application/vnd.battle-hardened-ai.snapshot.v1+json", Digest: canon.Sum(snapshot), Size: int64(len(snapshot))},
		{Name: "exploits.arrow", MediaType: "application/vnd.apache.arrow.file", Digest: canon.Sum([]byte("exploits")), Size: 12345},
		{Name: "records.arrow", MediaType: "application/vnd.apache.arrow.file", Digest: canon.Sum([]byte("records")), Size: 1 << 34},
		{Name: "files.json", MediaType: "application/json", Digest: canon.Sum([]byte("files")), Size: 321},
	}}
	return sample{release, info}, nil
})

func newSample(t testing.TB) sample {
	t.Helper()
	s, err := trained()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newCard(t testing.TB) *Card {
	t.Helper()
	c, err := New(newSample(t).release)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// documents are all of a card, the dataset's last.
func documents(t testing.TB, c *Card) []oras.Document {
	t.Helper()
	list, err := c.Documents()
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Croissant(newSample(t).dataset)
	if err != nil {
		t.Fatal(err)
	}
	return append(list, d)
}

// repack returns the sample with a changed release.json.
func repack(t testing.TB, change func(*oras.Release)) *oras.Artifact {
	t.Helper()
	a := newSample(t).release
	rel := a.Release
	change(&rel)
	b, err := oras.Pack(rel, a.Models)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// measured returns the sample with changed metrics.
func measured(t testing.TB, change func(*trainer.Metrics)) *oras.Artifact {
	t.Helper()
	return repack(t, func(r *oras.Release) {
		var m trainer.Metrics
		if err := canon.Unmarshal(r.Metrics, &m); err != nil {
			t.Fatal(err)
		}
		change(&m)
		var err error
		if r.Metrics, err = canon.Marshal(m); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSampleGolden(t *testing.T) {
	got := fmt.Sprintf("%s release\n", newSample(t).release.Digest)
	for _, d := range documents(t, newCard(t)) {
		got += fmt.Sprintf("%s %s\n", canon.Sum(d.Data), d.Name)
	}
	const path = "testdata/golden/sample.txt"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%swant\n%sIf the change is meant, run with -update.", got, want)
	}
}

func TestDocumentsFollowFromTheReleaseAlone(t *testing.T) {
	first := documents(t, newCard(t))
	again := documents(t, newCard(t))
	other, err := New(repack(t, func(r *oras.Release) { r.Number++ }))
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range documents(t, other) {
		if !bytes.Equal(first[i].Data, again[i].Data) {
			t.Errorf("%s: other bytes the second time", d.Name)
		}
		if bytes.Equal(first[i].Data, d.Data) {
			t.Errorf("%s: another release has the same document", d.Name)
		}
		if len(d.Data) > 256<<10 {
			t.Errorf("%s has %d bytes", d.Name, len(d.Data))
		}
	}
}

func TestDocumentsHoldTheFiguresOfTheRelease(t *testing.T) {
	c := newCard(t)
	m := &c.metrics
	for _, d := range documents(t, c)[:3] {
		text := string(d.Data)
		for _, want := range []string{
			c.digest.Hex(), c.release.Dataset.Hex(), fraction(m.Classifier.MacroF1PPM), fraction(m.Classifier.AttackAUCPPM), fraction(m.Reputation.F1PPM),
			models[1].For[0], models[3].NotFor[0], "csrf", "GPL-2.0-or-later",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q", d.Name, want)
			}
		}
		for _, f := range c.files {
			if !strings.Contains(text, f.Digest.Hex()) {
				t.Errorf("%s: no digest of %s", d.Name, f.Name)
			}
		}
		for _, s := range m.Classifier.Classes {
			name := s.Class
			if d.Type == oras.TypeHTML {
				name = words(name)
			}
			if !strings.Contains(text, name) || !strings.Contains(text, fraction(s.F1PPM)) {
				t.Errorf("%s: no class %s", d.Name, name)
			}
		}
	}
}

// What was changed on the way is found by package oras. These are releases as
// a publisher could make them: well-formed, and untrue.
func TestContradictionsAreRefused(t *testing.T) {
	metrics := map[string]func(*trainer.Metrics){
		"a better recall":                 func(m *trainer.Metrics) { m.Classifier.Classes[0].RecallPPM++ },
		"a better precision":              func(m *trainer.Metrics) { m.Classifier.Classes[0].PrecisionPPM += 10 },
		"a better F1":                     func(m *trainer.Metrics) { m.Classifier.Classes[3].F1PPM = million },
		"a confusion of its own":          func(m *trainer.Metrics) { m.Classifier.Confusion[0][1]++ },
		"fewer test rows":                 func(m *trainer.Metrics) { m.Data.Classes[0].Parts[trainer.Test]-- },
		"a class renamed":                 func(m *trainer.Metrics) { m.Classifier.Classes[0].Class = "xss" },
		"a class less":                    func(m *trainer.Metrics) { m.Classifier.Classes = m.Classifier.Classes[1:] },
		"a class less in the data":        func(m *trainer.Metrics) { m.Data.Classes = m.Data.Classes[1:] },
		"a ragged confusion matrix":       func(m *trainer.Metrics) { m.Classifier.Confusion[2] = m.Classifier.Confusion[2][1:] },
		"a short confusion matrix":        func(m *trainer.Metrics) { m.Classifier.Confusion = m.Classifier.Confusion[1:] },
		"a negative count":                func(m *trainer.Metrics) { m.Classifier.Confusion[0][1] = -1 },
		"a count that overflows":          func(m *trainer.Metrics) { m.Classifier.Confusion[0][0] = 1 << 52 },
		"a share above one":               func(m *trainer.Metrics) { m.Classifier.MacroF1PPM = million + 1 },
		"a negative share":                func(m *trainer.Metrics) { m.Anomaly.AUCPPM = -1 },
		"a class of markup":               func(m *trainer.Metrics) { m.Data.Merged = []string{"<b>csrf</b>"} },
		"a source of markup":              func(m *trainer.Metrics) { m.Data.Sources[0].Source = "a|b" },
		"a source twice":                  func(m *trainer.Metrics) { m.Data.Sources[0].Source = m.Data.Sources[1].Source },
		"a source more":                   func(m *trainer.Metrics) { m.Data.Sources[0].Rows++ },
		"a source that is not there":      func(m *trainer.Metrics) { m.Classifier.Sources[0].Source = "elsewhere" },
		"a source of more rows":           func(m *trainer.Metrics) { m.Classifier.Sources[0].Rows++; m.Classifier.Sources[0].Attacks++ },
		"a single source not there":       func(m *trainer.Metrics) { m.Classifier.SingleSources[0].Source = "elsewhere" },
		"a reason with a line break":      func(m *trainer.Metrics) { m.Data.Unused = []trainer.UnusedData{{Reason: "a\nb", Rows: 1}} },
		"rows by source that differ":      func(m *trainer.Metrics) { m.Data.Classes[0].Rows[0]++ },
		"sources fewer than columns":      func(m *trainer.Metrics) { m.Data.Classes[0].Rows = m.Data.Classes[0].Rows[1:] },
		"a curve that falls":              func(m *trainer.Metrics) { m.Classifier.ROC[2] = [2]int64{900_000, 0} },
		"a curve without a start":         func(m *trainer.Metrics) { m.Anomaly.ROC = m.Anomaly.ROC[1:] },
		"a curve without an end":          func(m *trainer.Metrics) { m.Reputation.ROC = m.Reputation.ROC[:2] },
		"a long curve":                    func(m *trainer.Metrics) { m.Reputation.ROC = append(make([][2]int64, 99), m.Reputation.ROC...) },
		"reliability of fewer rows":       func(m *trainer.Metrics) { m.Classifier.Reliability[0].Rows-- },
		"reliability above one":           func(m *trainer.Metrics) { m.Reputation.Reliability[0].AccuracyPPM = 2 * million },
		"more bad records than records":   func(m *trainer.Metrics) { m.Reputation.Bad = m.Reputation.Rows + 1 },
		"nothing at all":                  func(m *trainer.Metrics) { *m = trainer.Metrics{} },
		"measured rows of no source":      func(m *trainer.Metrics) { m.Classifier.Sources = nil },
		"a class named as the one before": func(m *trainer.Metrics) { m.Data.Classes[1].Class = m.Data.Classes[0].Class },
	}
	for name, change := range metrics {
		if _, err := New(measured(t, change)); !errors.Is(err, ErrRelease) {
			t.Errorf("%s: %v, want ErrRelease", name, err)
		} else if len(err.Error()) > 2000 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: message %q", name, err)
		}
	}
	if _, err := New(measured(t, func(*trainer.Metrics) {})); err != nil {
		t.Errorf("nothing changed: %v", err)
	}

	sections := map[string]func(*oras.Release){
		"metrics of another trainer": func(r *oras.Release) { r.Metrics = jsontext.Value(`{"macro_f1_ppm":1}`) },
		"a member less":              func(r *oras.Release) { r.Metrics = edit(t, r.Metrics, "data", nil) },
		"another algorithm":          func(r *oras.Release) { r.Recipe = edit(t, r.Recipe, "algorithm", trainer.Algorithm+1) },
		"another feature schema":     func(r *oras.Release) { r.Features = edit(t, r.Features, "schema", 99) },
		"thresholds of other models": func(r *oras.Release) { r.Scoring = edit(t, r.Scoring, "dim", 3) },
		"no recipe":                  func(r *oras.Release) { r.Recipe = jsontext.Value(`{}`) },
	}
	for name, change := range sections {
		if _, err := New(repack(t, change)); !errors.Is(err, ErrRelease) {
			t.Errorf("%s: %v, want ErrRelease", name, err)
		}
	}

	a := newSample(t).release
	broken := append([]oras.File{}, a.Models...)
	broken[1].Data, broken[3].Data = broken[3].Data, broken[1].Data
	swapped, err := oras.Pack(a.Release, broken)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(swapped); !errors.Is(err, ErrRelease) || !errors.Is(err, model.ErrFormat) {
		t.Errorf("models under each other's names: %v, want ErrRelease and the reason", err)
	}
}

// edit sets a member of a JSON object, or takes it away.
func edit(t testing.TB, v jsontext.Value, member string, value any) jsontext.Value {
	t.Helper()
	var m map[string]any
	dec := json.NewDecoder(bytes.NewReader(v))
	dec.UseNumber()
	if err := dec.Decode(&m); err != nil {
		t.Fatal(err)
	}
	if m[member] = value; value == nil {
		delete(m, member)
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	b, err = canon.Canonicalize(b)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLimitsAreDrawnFromTheFigures(t *testing.T) {
	text := strings.Join(newCard(t).limits(), "\n")
	for _, want := range []string{"one source only", "fewer than 30 test rows", "no answer of their own: code_execution", "25% of the weight"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	c, err := New(measured(t, func(m *trainer.Metrics) {
		m.Classifier.SingleSources, m.Data.Merged = []trainer.SingleSource{}, []string{}
		m.Anomaly.FalseAlarmPPM = 60_000
		for i := range m.Classifier.Sources {
			m.Classifier.Sources[i].FalseAlarmPPM = 70_000
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	text = strings.Join(c.limits(), "\n")
	if strings.Contains(text, "one source only") || strings.Contains(text, "no answer of their own") {
		t.Errorf("a warning without ground:\n%s", text)
	}
	if !strings.Contains(text, "7% are called attacks") || !strings.Contains(text, "asked for 1% false alarms and gives 6%") {
		t.Errorf("a warning is missing:\n%s", text)
	}
	if strings.Contains(text, "source sshd, 7%") {
		t.Errorf("a warning about five rows:\n%s", text)
	}
}

func TestRowsThatTheTrainerMadeAreNotTheDatasets(t *testing.T) {
	add := func(source string) *oras.Artifact {
		return measured(t, func(m *trainer.Metrics) {
			for i := range m.Data.Sources {
				if m.Data.Sources[i].Source == source {
					m.Data.Sources[i].Rows += 50
					return
				}
			}
			m.Data.Sources = append(m.Data.Sources, trainer.SourceData{Source: source, Rows: 50})
			for i := range m.Data.Classes {
				m.Data.Classes[i].Rows = append(m.Data.Classes[i].Rows, 0)
			}
		})
	}
	c, err := New(add(madeSource))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(c.limits(), " "), " benign rows were made by the trainer") {
		t.Errorf("nothing is said of them: %q", c.limits())
	}
	if _, err := New(add("requests")); !errors.Is(err, ErrRelease) {
		t.Errorf("rows of another source that the dataset does not have: %v, want ErrRelease", err)
	}
}

func TestOperatingPointOfTheReputation(t *testing.T) {
	for _, c := range []struct{ hits, misses, alarms, quiet int64 }{
		{416, 129, 6, 1741}, {1, 0, 0, 1}, {121, 24, 53, 165}, {5, 5, 5, 5}, {90_000, 10_000, 321, 799_679},
	} {
		bad, good := c.hits+c.misses, c.alarms+c.quiet
		card := &Card{metrics: trainer.Metrics{Reputation: trainer.ReputationMetrics{
			Rows: bad + good, Bad: bad, PrecisionPPM: share(c.hits, c.hits+c.alarms), RecallPPM: share(c.hits, bad),
		}}}
		got := card.reputationPoint()
		if want := [2]int64{share(c.alarms, good), share(c.hits, bad)}; !got.known || got.point != want {
			t.Errorf("%+v: %+v, want %v", c, got, want)
		}
	}
	if (&Card{}).reputationPoint().known {
		t.Error("a point of nothing")
	}
}

func TestNumbersAsText(t *testing.T) {
	for _, c := range []struct {
		got, want string
	}{
		{percent(0), "0%"}, {percent(1), "<0.01%"}, {percent(49), "<0.01%"}, {percent(50), "0.01%"}, {percent(10_000), "1%"},
		{percent(123_456), "12.35%"}, {percent(10_100), "1.01%"}, {percent(999_999), "99.99%"}, {percent(million), "100%"}, {percent(989_999), "99.00%"},
		{fraction(0), "0.0000"}, {fraction(49), "0.0000"}, {fraction(123_456), "0.1235"}, {fraction(999_999), "0.9999"}, {fraction(million), "1.0000"},
		{count(0), "0"}, {count(999), "999"}, {count(1000), "1,000"}, {count(1234567), "1,234,567"}, {count(-1234), "-1,234"}, {count(-123), "-123"},
		{words("sql_injection"), "sql injection"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}

// FuzzMetrics: whatever a release states of itself, the card is refused or
// whole.
func FuzzMetrics(f *testing.F) {
	a := newSample(f).release
	f.Add([]byte(a.Release.Metrics))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, metrics []byte) {
		canonical, err := canon.Canonicalize(metrics)
		if err != nil || len(canonical) == 0 || canonical[0] != '{' {
			return
		}
		rel := a.Release
		rel.Metrics = canonical
		b, err := oras.Pack(rel, a.Models)
		if err != nil {
			return
		}
		c, err := New(b)
		if err != nil {
			if !errors.Is(err, ErrRelease) {
				t.Fatalf("class of %v", err)
			}
			return
		}
		if _, err := c.Documents(); err != nil {
			t.Fatal(err)
		}
	})
}
