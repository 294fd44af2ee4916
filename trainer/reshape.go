package trainer

import (
	"strings"

	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

// reshaper gives half of the training rows of some sources another form than
// they were recorded in. One source has parameter values, another whole
// requests; which of the two a payload is says where it comes from and not
// whether it is an attack, so both forms of attack and of benign payloads must
// be seen. Validation and test rows stay as they are.
type reshaper struct {
	seed   int64
	x      *feature.Extractor
	vector []float32
}

// form returns r, or for about half of the values and requests a record in
// the other form: a value in a parameter of a request, or the first value of a
// request that shows a sign of an attack. It depends on the seed and the
// payload alone.
func (s *reshaper) form(r *record.Record) *record.Record {
	switch r.Kind {
	case record.Labelled, record.Requests, record.Targets:
	default:
		return r
	}
	rng := named(s.seed, "form/"+r.Payload)
	if rng.below(2) == 0 {
		return r
	}
	other := *r
	path, query, found := strings.Cut(r.Payload, "?")
	switch {
	case !strings.HasPrefix(r.Payload, "/"):
		g := theOrdinary()
		g.wrap(rng, &other)
		return &other
	case !found || path == "":
		return r
	}
	for pair := range strings.SplitSeq(query, "&") {
		if _, value, ok := strings.Cut(pair, "="); ok {
			other.Payload = value
			if s.x.Vector(s.vector, &other, nil); feature.Signs(s.vector) {
				return &other
			}
		}
	}
	return r
}
