package agent

import (
	"bytes"
	"context"
	"io"
	"math"
	"path/filepath"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/trainer"
)

// TestReplayEqualsTraining shows that serving sees what training saw: the
// records of a snapshot, written as JSON lines and read again as score reads
// them, give in one session the very rows of the trainer's matrix.
func TestReplayEqualsTraining(t *testing.T) {
	t.Run("sample", func(t *testing.T) {
		inputs, err := dataset.SampleInputs(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		replay(t, inputs, trainer.DefaultRecipe(), record.Privacy{Address: record.Full, Redaction: 1})
	})
	t.Run("sample with truncated addresses", func(t *testing.T) {
		inputs, err := dataset.SampleInputs(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		replay(t, inputs, trainer.DefaultRecipe(), record.Privacy{Address: record.Truncated, Redaction: 1})
	})
	t.Run("real data", func(t *testing.T) {
		if testing.Short() {
			t.Skip("reads all of the real data")
		}
		inputs := []dataset.Input{
			{Source: "exploitdb", Path: testkit.Data(t, "exploitdb/files.csv")},
			{Source: "labelled", Path: testkit.Data(t, "http-attacks/payload_train.csv")},
			{Source: "cowrie", Path: testkit.Data(t, "honeypot/cowrie-2018-05.json")},
			{Source: "access", Path: testkit.Data(t, "http-attacks/access-2004.log"), Class: "benign"},
			{Source: "sshd", Path: testkit.Data(t, "auth/auth.log"), Year: 2017},
		}
		recipe := trainer.DefaultRecipe()
		recipe.WindowDays = 9000
		replay(t, inputs, recipe, record.Privacy{Address: record.Full, Redaction: 1})
	})
}

func replay(t *testing.T, inputs []dataset.Input, recipe trainer.Recipe, p record.Privacy) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "snapshot")
	if _, err := dataset.Build(ctx, dataset.Config{Inputs: inputs, Privacy: p}, dir); err != nil {
		t.Fatal(err)
	}
	s, err := dataset.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m, err := trainer.BuildMatrix(ctx, s, recipe, trainer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	config, err := m.Config.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	extract, err := feature.New(config)
	if err != nil {
		t.Fatal(err)
	}
	scorer := &Scorer{extract: extract, privacy: privacy(extract.Config())}

	var lines bytes.Buffer
	rows := 0
	for r, err := range s.Records(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(record.AppendJSON(nil, r), '\n'))
		rows++
	}
	rd, err := record.NewReader(&lines, record.Attacks, record.Options{Privacy: scorer.privacy})
	if err != nil {
		t.Fatal(err)
	}
	session := scorer.Session()
	next, compared := 0, 0
	for next < len(m.Rows) && m.Rows[next].Exploit != 0 {
		next++
	}
	var rec record.Record
	for at := int64(0); ; at++ {
		if err := rd.Next(&rec); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		got := session.Vector(&rec)
		if next == len(m.Rows) || m.Rows[next].Record != at || m.Rows[next].Derived || m.Sources[m.Rows[next].Source] == trainer.OrdinarySource {
			continue // not used for training, but part of the history
		}
		want := m.X[next*m.Dim : (next+1)*m.Dim]
		for j := range want {
			if math.Float32bits(got[j]) != math.Float32bits(want[j]) {
				t.Fatalf("record %d, column %s: %v here, %v in training", at, feature.Columns[j].Name, got[j], want[j])
			}
		}
		next++
		compared++
	}
	// What is left are the rows that the recipe adds to every dataset.
	for _, row := range m.Rows[next:] {
		if !row.Derived && m.Sources[row.Source] != trainer.OrdinarySource {
			t.Fatalf("record %d was not replayed", row.Record)
		}
	}
	if compared < 1000 {
		t.Fatalf("compared %d of %d rows", compared, rows)
	}
	t.Logf("%d of %d records compared, %d columns each", compared, rows, m.Dim)
}
