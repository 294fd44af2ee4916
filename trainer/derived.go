package trainer

import (
	"slices"
	"strings"

	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

// deriver makes the other form of a recorded payload. One source has the
// values of parameters, another whole requests; which of the two a payload is
// says where it was recorded and not whether it is an attack, so the classifier
// must see attacks and ordinary traffic of every source in both forms.
//
// It is not safe for concurrent use.
type deriver struct {
	recipe *Recipe
	x      *feature.Extractor // any: only signs are looked at
	vector []float32
}

// derivedKinds are what payloads without address and time are read as.
var derivedKinds = []record.Kind{record.Labelled, record.Requests, record.Targets}

// derive returns r with its payload in the other form: a value as parameter of
// a request or a form, a request as the first value of its query that shows a
// sign of an attack. It says false for other kinds of records, for a request
// without such a value, and for all but the recipe's share of payloads. The
// answer depends on the recipe and the payload alone; it has no source, user or
// time, whatever r has.
func (d *deriver) derive(r *record.Record) (record.Record, bool) {
	if !slices.Contains(derivedKinds, r.Kind) {
		return record.Record{}, false
	}
	rng := named(d.recipe.Seed, "derived/"+r.Payload)
	if int64(rng.below(1_000_000)) >= d.recipe.DerivedPPM {
		return record.Record{}, false
	}
	other := record.Record{Time: record.NoTime, Kind: r.Kind, Payload: r.Payload, Label: r.Label, Level: r.Level}
	path, query, found := strings.Cut(r.Payload, "?")
	switch {
	case !strings.HasPrefix(r.Payload, "/"):
		g := theOrdinary()
		g.wrap(rng, &other)
		return other, true
	case !found || path == "":
		return record.Record{}, false
	}
	for pair := range strings.SplitSeq(query, "&") {
		if _, value, ok := strings.Cut(pair, "="); ok {
			other.Payload = value
			if d.x.Vector(d.vector, &other, nil); feature.Signs(d.vector) {
				return other, true
			}
		}
	}
	return record.Record{}, false
}
