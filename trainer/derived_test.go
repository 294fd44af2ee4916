package trainer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

func newDeriver(t *testing.T, r *Recipe) *deriver {
	t.Helper()
	config, err := feature.DefaultConfig().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	x, err := feature.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return &deriver{recipe: r, x: x, vector: make([]float32, feature.Dim)}
}

func TestPayloadsHaveAnotherForm(t *testing.T) {
	r := DefaultRecipe()
	r.DerivedPPM = 1_000_000
	d := newDeriver(t, &r)
	r2 := r
	r2.DerivedPPM = 500_000
	half := newDeriver(t, &r2)
	made := map[string]int{}
	for i := range 400 {
		for _, c := range []struct {
			name    string
			kind    record.Kind
			payload string
			want    string // "" is that there is no other form
		}{
			{"value", record.Labelled, fmt.Sprintf("%d' or 1=1 --", i), fmt.Sprintf("=%d%%27", i)},
			{"request", record.Targets, fmt.Sprintf("/a.php?x=1&id=%d'+or+1=1&y=2", i), fmt.Sprintf("%d'+or+1=1", i)},
			{"harmless", record.Targets, fmt.Sprintf("/a.php?x=1&id=%d", i), ""},
			{"path", record.Requests, fmt.Sprintf("/a/%d'/b", i), ""},
			{"log", record.Access, fmt.Sprintf("/a.php?id=%d'", i), ""},
		} {
			r := record.Record{Kind: c.kind, Payload: c.payload, Time: 12, Address: "192.0.2.1", User: "u", Label: "xss"}
			got, ok := d.derive(&r)
			if again, _ := d.derive(&r); got.Payload != again.Payload {
				t.Fatalf("%q has two other forms", c.payload)
			}
			if ok != (c.want != "") || !strings.Contains(got.Payload, c.want) || c.name == "request" && got.Payload != c.want {
				t.Fatalf("%q becomes %q, %v", c.payload, got.Payload, ok)
			}
			if ok && (got.Payload == c.payload || got.Time != record.NoTime || got.Address != "" || got.User != "" || got.Label != "xss" || got.Kind != c.kind) {
				t.Fatalf("%+v becomes %+v", r, got)
			}
			if _, ok := half.derive(&r); ok {
				made[c.name]++
			}
		}
	}
	if len(made) != 2 || made["value"] < 150 || made["value"] > 250 || made["request"] < 150 || made["request"] > 250 {
		t.Errorf("of 400 each, half of the payloads are %v", made)
	}
}

func TestDerivedRowsStandBesideTheirRecords(t *testing.T) {
	s := snapshotOf(t, sampleInputs(t))
	r := DefaultRecipe()
	r.DerivedPPM = 0
	without, err := BuildMatrix(context.Background(), s, r, Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.DerivedPPM = 700_000
	with, err := BuildMatrix(context.Background(), s, r, Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	payloads := map[int64]string{}
	at := int64(0)
	for r, err := range s.Records(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		payloads[at] = asked(r).Payload
		at++
	}
	d := newDeriver(t, &r)
	weight := map[int64]int32{} // of a record and its other form
	var recorded []Row
	var x []float32
	v := make([]float32, feature.Dim)
	derived, last := 0, int64(-1)
	for i, row := range with.Rows {
		if !row.Derived {
			if row.Exploit == 0 && !row.isOrdinary() {
				weight[row.Record] = row.Weight
			}
			recorded, x = append(recorded, row), append(x, with.row(int32(i))...)
			continue
		}
		derived++
		if row.Part != Training || row.Class < 0 || row.Bad >= 0 || row.Exploit != 0 || row.Record <= last || with.isBenignRecord(&row) {
			t.Fatalf("derived row %+v", row)
		}
		last = row.Record
		weight[row.Record] += row.Weight
		other, ok := d.derive(&record.Record{Kind: record.Kind(with.Sources[row.Source]), Payload: payloads[row.Record], Time: record.NoTime})
		if !ok {
			t.Fatalf("record %d has no other form", row.Record)
		}
		d.x.Vector(v, &other, nil)
		for c, col := range feature.Columns {
			if col.Group != feature.Lexical && v[c] != with.row(int32(i))[c] {
				t.Fatalf("record %d: %s is %v, its other form has %v", row.Record, col.Name, with.row(int32(i))[c], v[c])
			}
		}
	}
	if derived < 100 || int64(derived) != with.Count.Derived || with.Count.Used != without.Count.Used || without.Count.Derived != 0 {
		t.Errorf("%d derived rows, counts %+v and without %+v", derived, with.Count, without.Count)
	}
	if !slices.Equal(x, without.X) || len(recorded) != len(without.Rows) {
		t.Error("derived rows change the recorded ones")
	}
	lighter := 0
	for i, row := range without.Rows {
		if row.Exploit == 0 && !row.isOrdinary() && weight[row.Record] != row.Weight {
			t.Fatalf("record %d weighs %d, with its other form %d", row.Record, row.Weight, weight[row.Record])
		}
		if recorded[i].Weight != row.Weight {
			lighter++
		}
		recorded[i].Weight = row.Weight
		if recorded[i] != row {
			t.Fatalf("row %+v becomes %+v", row, recorded[i])
		}
	}
	if lighter != derived {
		t.Errorf("%d rows are lighter for %d derived ones", lighter, derived)
	}
}
