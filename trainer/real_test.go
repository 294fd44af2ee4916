package trainer

import (
	"context"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// realSnapshot is the snapshot of the real data, each file given as people
// would give it.
func realSnapshot(t testing.TB) *dataset.Snapshot {
	t.Helper()
	var inputs []dataset.Input
	for _, in := range [][3]string{
		{"exploitdb", "exploitdb/files_exploits.reassembled.csv", ""},
		{"exploitdb", "exploitdb/files.csv", ""},
		{"labelled", "http-attacks/payload_train.csv", ""},
		{"cowrie", "honeypot/cowrie-2018-05.json", ""},
		{"attacks", "attack-records/peer_threats.json", ""},
		{"access", "http-attacks/access-2004.log", ",class=benign"},
		{"sshd", "auth/auth.log", ",year=2017"},
		{"requests", "exploitdb/poc-requests.jsonl.gz", ""},
		{"targets", "http-attacks/scanner-queries.txt", ",class=scanner"},
	} {
		input, err := dataset.ParseInput(in[0], testkit.Data(t, in[1])+in[2])
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, input)
	}
	return snapshotOf(t, inputs)
}

func realRecipe() Recipe {
	r := DefaultRecipe()
	r.AsOf = time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC).UnixMicro()
	r.WindowDays = 9000
	return r
}

func TestRealDataMakesFourUsableModels(t *testing.T) {
	if testing.Short() {
		t.Skip("trains on the real data")
	}
	s := realSnapshot(t)
	start := time.Now()
	var stage string
	res, err := Train(context.Background(), s, realRecipe(), Options{Progress: func(at string, _, _ int64) {
		if at != stage {
			t.Logf("%6.1f s: %s", time.Since(start).Seconds(), at)
			stage = at
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%6.1f s: done", time.Since(start).Seconds())
	t.Logf("%+v", res.Summary.Counts)
	m := res.Summary.Metrics
	for i, c := range m.Classifier.Classes {
		if res.Summary.Classes[i].Parts[Training] > 50 && c.Rows > 0 && c.RecallPPM == 0 {
			t.Errorf("no row of class %s is recognised", c.Class)
		}
		t.Logf("%-22s %5d rows, precision %7d recall %7d F1 %7d AUC %7d; training %v from %v", c.Class, c.Rows,
			c.PrecisionPPM, c.RecallPPM, c.F1PPM, c.AUCPPM, res.Summary.Classes[i].Parts[Training], res.Summary.Classes[i].Sources)
	}
	for _, c := range m.Classifier.Sources {
		t.Logf("%+v", c)
		if c.Source == string(record.Labelled) && (c.AccuracyPPM < 990_000 || c.DetectedPPM < 985_000 || c.FalseAlarmPPM > 5000) {
			t.Errorf("request parameters: %+v", c)
		}
		if c.Source == OrdinarySource && c.FalseAlarmPPM > 30_000 {
			t.Errorf("ordinary traffic: %+v", c)
		}
	}
	t.Logf("macro-F1 %d, attack AUC %d, calibration error %d, %d rounds; anomaly %+v; reputation %+v", m.Classifier.MacroF1PPM,
		m.Classifier.AttackAUCPPM, m.Classifier.ECEPPM, m.Classifier.Rounds, m.Anomaly, m.Reputation)
	if m.Classifier.AttackAUCPPM < 995_000 || m.Classifier.ECEPPM > 30_000 {
		t.Errorf("attack AUC %d, calibration error %d", m.Classifier.AttackAUCPPM, m.Classifier.ECEPPM)
	}
	if m.Anomaly.AUCPPM < 850_000 || m.Anomaly.FalseAlarmPPM > 20_000 {
		t.Errorf("anomaly detector: %+v", m.Anomaly)
	}
	if m.Reputation.AUCPPM < 900_000 {
		t.Errorf("reputation: %+v", m.Reputation)
	}
	limits := [4]int{5 << 10, 88 << 10, 135 << 10, 44 << 10}
	for i, f := range res.Files {
		t.Logf("%s: %d bytes", f.Name, len(f.Data))
		if len(f.Data) > limits[i] {
			t.Errorf("%s has %d bytes, limit %d", f.Name, len(f.Data), limits[i])
		}
	}
}
