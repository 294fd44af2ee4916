package trainer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func TestOrdinaryTrafficDependsOnSeedAndNumberAlone(t *testing.T) {
	shapes := OrdinaryShapes()
	var all, other []string
	seen := map[string]bool{}
	for i := range int64(40 * len(shapes)) {
		r := Ordinary(1, i)
		if !utf8.ValidString(r.Payload) || len(r.Payload) > record.MaxText || strings.ContainsAny(r.Payload, "«»") {
			t.Fatalf("row %d: %q", i, r.Payload)
		}
		if r.Time != record.NoTime || r.Address != "" || r.Status != 0 || r.Exploit != 0 {
			t.Errorf("row %d tells where it comes from: %+v", i, r)
		}
		seen[r.Payload] = true
		all = append(all, fmt.Sprintf("%s %s %q", r.Method, r.Protocol, r.Payload))
		other = append(other, Ordinary(2, i).Payload)
	}
	if again := Ordinary(1, 7); !strings.HasSuffix(all[7], fmt.Sprintf("%q", again.Payload)) {
		t.Errorf("row 7 is %q, then %s", again.Payload, all[7])
	}
	if len(seen) < len(all)*9/10 {
		t.Errorf("%d of %d rows are distinct", len(seen), len(all))
	}
	if slices.Equal(other[:100], all[:100]) {
		t.Error("another seed makes the same rows")
	}
	const want = "sha256:2480ab61afee867bb649fc921db30755a90fec6226713857481e8fe4ab620093"
	if got := canon.Sum([]byte(strings.Join(all, "\n"))).String(); got != want {
		t.Errorf("the stream has digest %s, this version %s", got, want)
	}
}

func TestOrdinaryTrafficIsASourceOfItsOwn(t *testing.T) {
	s := snapshotOf(t, sampleInputs(t))
	r := DefaultRecipe()
	r.OrdinaryPPM = 100_000
	with, err := BuildMatrix(context.Background(), s, r, Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.OrdinaryPPM = 0
	without, err := BuildMatrix(context.Background(), s, r, Options{})
	if err != nil {
		t.Fatal(err)
	}
	n := len(without.Rows)
	if made := len(with.Rows) - n; made < n/12 || made > n/10 {
		t.Errorf("%d rows of ordinary traffic beside %d of data", made, n)
	}
	if !slices.Equal(with.Rows[:n], without.Rows) || !slices.Equal(with.X[:n*with.Dim], without.X) {
		t.Error("ordinary traffic changes rows of data")
	}
	var parts [3]int
	for _, row := range with.Rows[n:] {
		if !row.isOrdinary() || row.Derived || with.Classes[row.Class] != classBenign || row.Bad != -1 || row.Weight != unitWeight || with.isBenignRecord(&row) {
			t.Fatalf("row %+v", row)
		}
		parts[row.Part]++
	}
	if parts[Training] < parts[Validation] || parts[Validation] == 0 || parts[Test] == 0 {
		t.Errorf("parts %v", parts)
	}
	if slices.ContainsFunc(without.Rows, func(r Row) bool { return r.isOrdinary() }) {
		t.Error("ordinary traffic that nobody asked for")
	}
}
