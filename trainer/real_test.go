package trainer

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// realSnapshot is the snapshot of the real data, kept between runs in
// BH_SNAPSHOT when that is set.
func realSnapshot(t testing.TB) *dataset.Snapshot {
	t.Helper()
	dir := os.Getenv("BH_SNAPSHOT")
	if dir == "" {
		dir = t.TempDir()
	}
	if _, err := os.Stat(filepath.Join(dir, dataset.ManifestName)); err != nil {
		var inputs []dataset.Input
		for _, in := range [][3]string{
			{"exploitdb", "exploitdb/files_exploits.reassembled.csv", ""},
			{"exploitdb", "exploitdb/files.csv", ""},
			{"labelled", "http-attacks/payload_train.csv", ""},
			{"cowrie", "honeypot/cowrie-2018-05.json", ""},
			{"attacks", "attack-records/peer_threats.json", ""},
			{"access", "http-attacks/access-2004.log", ",class=benign"},
			{"sshd", "auth/auth.log", ",year=2017"},
		} {
			input, err := dataset.ParseInput(in[0], testkit.Data(t, in[1])+in[2])
			if err != nil {
				t.Fatal(err)
			}
			inputs = append(inputs, input)
		}
		if _, err := dataset.Build(context.Background(), dataset.Config{Inputs: inputs}, dir); err != nil {
			t.Fatal(err)
		}
	}
	s, err := dataset.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func realRecipe() Recipe {
	r := DefaultRecipe()
	r.AsOf = time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC).UnixMicro()
	r.WindowDays = 9000
	return r
}

func TestRealData(t *testing.T) {
	s := realSnapshot(t)
	start := time.Now()
	m, err := BuildMatrix(context.Background(), s, realRecipe(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("matrix of %d rows in %v", len(m.Rows), time.Since(start))
	last := time.Now()
	stage := ""
	opt := Options{Progress: func(s string, done, total int64) {
		if s != stage {
			t.Logf("%s after %v", s, time.Since(last))
			stage = s
		}
	}}
	r, err := m.Train(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("training in %v", time.Since(last))
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	t.Logf("%d MiB from the system", mem.Sys>>20)
	t.Logf("%+v", r.Summary.Counts)
	for _, c := range r.Summary.Classes {
		t.Logf("%+v", c)
	}
	mm := r.Summary.Metrics
	for i, c := range mm.Classifier.Classes {
		t.Logf("%-22s %6d P %7d R %7d F1 %7d AUC %7d   %v", c.Class, c.Rows, c.PrecisionPPM, c.RecallPPM, c.F1PPM, c.AUCPPM, mm.Classifier.Confusion[i])
	}
	for _, s := range mm.Classifier.Sources {
		t.Logf("%+v", s)
	}
	mm.Classifier.Classes, mm.Classifier.Confusion, mm.Classifier.Sources = nil, nil, nil
	t.Logf("%+v", mm)
	t.Logf("%s", r.Scoring)
}
