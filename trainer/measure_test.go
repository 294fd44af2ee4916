package trainer

import (
	"slices"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func TestDataMetricsAddUp(t *testing.T) {
	res := train(t, snapshotOf(t, sampleInputs(t)), DefaultRecipe(), 2)
	var m Metrics
	if err := canon.UnmarshalCanonical(res.Metrics, &m); err != nil {
		t.Fatal(err)
	}
	d, s := m.Data, res.Summary
	var rows, used, unused, byClass int64
	perSource := make([]int64, len(d.Sources))
	for i, c := range d.Classes {
		byPart := c.Parts[0] + c.Parts[1] + c.Parts[2]
		for j, n := range c.Rows {
			byPart -= n
			perSource[j] += n
			byClass += n
		}
		if byPart != 0 || c.Class != s.Classes[i].Class || c.Parts != s.Classes[i].Parts {
			t.Errorf("class %+v, summary %+v", c, s.Classes[i])
		}
		if test := c.Parts[Test]; test != m.Classifier.Classes[i].Rows {
			t.Errorf("class %s: %d test rows, measured on %d", c.Class, test, m.Classifier.Classes[i].Rows)
		}
	}
	for j, c := range d.Sources {
		rows += c.Rows
		used += c.Parts[0] + c.Parts[1] + c.Parts[2]
		if perSource[j] > c.Parts[0]+c.Parts[1]+c.Parts[2] || c.Unlabelled+c.Other > c.Rows {
			t.Errorf("source %+v with %d rows in classes", c, perSource[j])
		}
	}
	for _, u := range d.Unused {
		unused += u.Rows
	}
	if i := slices.IndexFunc(d.Sources, func(s SourceData) bool { return s.Source == OrdinarySource }); i < 0 || rows != d.Exploits+d.Records+d.Sources[i].Rows || used+unused != rows || used != s.Counts.Used || byClass > used || byClass < used*9/10 {
		t.Errorf("%d rows, %d used, %d not, %d in classes: %+v", rows, used, unused, byClass, d)
	}
	if !slices.Equal(d.Merged, []string{"code_execution", "memory_corruption", "information_disclosure", "csrf", "xxe", "ssrf"}) {
		t.Errorf("merged classes %q", d.Merged)
	}
	for name, curve := range map[string][][2]int64{"attack": m.Classifier.ROC, "anomaly": m.Anomaly.ROC, "reputation": m.Reputation.ROC} {
		if len(curve) < 3 || len(curve) > curvePoints {
			t.Errorf("ROC of %s has %d points", name, len(curve))
		}
	}
	if got, want := area(m.Classifier.ROC), m.Classifier.AttackAUCPPM; got < want-5000 || got > want+5000 {
		t.Errorf("area %d under the curve, AUC %d", got, want)
	}
	var rated int64
	for _, r := range m.Reputation.Reliability {
		rated += r.Rows
	}
	if rated != m.Reputation.Rows {
		t.Errorf("reliability of %d reputations of %d", rated, m.Reputation.Rows)
	}
}
