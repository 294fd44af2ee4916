package trainer

import (
	"context"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset"
)

func sampleSnapshot(t testing.TB) *dataset.Snapshot {
	t.Helper()
	dir := t.TempDir()
	if err := dataset.Sample(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	s, err := dataset.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSmoke(t *testing.T) {
	s := sampleSnapshot(t)
	start := time.Now()
	r, err := Train(context.Background(), s, DefaultRecipe(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(start))
	t.Logf("%+v", r.Summary.Counts)
	t.Logf("%+v", r.Summary.Classes)
	t.Logf("%s", r.Metrics)
	t.Logf("%s", r.Scoring)
}
