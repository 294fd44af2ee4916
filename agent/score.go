package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// Scorer is a loaded release. It is immutable and may be used by many
// goroutines, each with Sessions of its own.
type Scorer struct {
	release *oras.Artifact
	extract *feature.Extractor
	set     *model.Set
	privacy record.Privacy
}

// NewScorer makes a Scorer of a release; ErrRefused when this program cannot
// score with it. That it was verified is the caller's word; Agent.Load keeps it.
func NewScorer(a *oras.Artifact) (*Scorer, error) {
	refuse := func(err error) (*Scorer, error) {
		return nil, fmt.Errorf("%w: release %s: %w", ErrRefused, a.Digest, err)
	}
	extract, err := feature.New(a.Release.Features)
	if err != nil {
		return refuse(err)
	}
	files := map[string][]byte{}
	for _, f := range a.Models {
		files[f.Name] = f.Data
	}
	set, err := model.Open(files, a.Release.Scoring)
	if err != nil {
		return refuse(err)
	}
	if set.Dim() != feature.Dim {
		return refuse(fmt.Errorf("%w: models of %d features, this program has %d", model.ErrFormat, set.Dim(), feature.Dim))
	}
	return &Scorer{release: a, extract: extract, set: set, privacy: privacy(extract.Config())}, nil
}

// privacy is what the records of the dataset went through. Keyed hashes cannot
// be made here, and need not: such models have no address columns, and to the
// tracker one form of an address is as good as another.
func privacy(c feature.Config) record.Privacy {
	p := record.Privacy{Address: record.AddressForm(c.Address), Redaction: c.Redaction}
	if c.Address == feature.AddressHashed {
		p.Address = record.Full
	}
	return p
}

// Release is the loaded release. Its bytes are those that were verified; the
// caller must not change them.
func (s *Scorer) Release() *oras.Artifact { return s.release }

// Classes are the names of the classes, in the order of model.Scores.Probabilities.
func (s *Scorer) Classes() []string { return s.set.Classes() }

// Session is a run of records with a history of its own. It is for one
// goroutine.
type Session struct {
	s       *Scorer
	sites   int // whose history is kept at most; 0 as many as the release says
	tracker *feature.Tracker
	vector  [feature.Dim]float32
	scores  model.Scores
}

// Session returns a session without any history.
func (s *Scorer) Session() *Session { return s.LiveSession(0) }

// LiveSession is a session for clients that name the sites: it keeps the history
// of at most so many, and forgets first the one longest unused, where the release
// would have it remember more.
func (s *Scorer) LiveSession(sites int) *Session {
	x := &Session{s: s, sites: sites}
	x.forget()
	return x
}

// forget begins with no history.
func (x *Session) forget() {
	c := x.s.extract.Config()
	if x.sites > 0 {
		c.Tracker.Sites = min(c.Tracker.Sites, x.sites)
	}
	x.tracker = feature.NewTracker(c)
}

// Vector returns the features of r, given the records that the session saw
// before, and adds r to the history. The slice is reused by the next call.
func (x *Session) Vector(r *record.Record) []float32 {
	x.s.extract.Vector(x.vector[:], r, x.tracker)
	return x.vector[:]
}

// Move goes on with another release. History is kept unless the two releases
// do not keep it in the same way; then it starts anew.
func (x *Session) Move(s *Scorer) {
	a, b := s.extract.Config(), x.s.extract.Config()
	x.s = s
	if a.Schema != b.Schema || a.Tracker != b.Tracker || a.Address != b.Address || a.Redaction != b.Redaction {
		x.forget()
	}
}

// Score is Vector and what the models say about it. The scores are reused by
// the next call.
func (x *Session) Score(r *record.Record) *model.Scores {
	x.s.set.Score(x.Vector(r), &x.scores)
	return &x.scores
}

// Finding is one line of output. Exactly one of Class, Skipped and Error is
// set.
type Finding struct {
	Line          int64          `json:"line"`                       // of the input, from 1
	Time          string         `json:"time,omitzero"`              // of the record, RFC 3339 in UTC; absent when undated
	Address       string         `json:"address,omitzero"`           // of the record, in the form that the release was trained on
	Class         string         `json:"class,omitzero"`             // the most probable
	Probabilities jsontext.Value `json:"probabilities,omitzero"`     // class to probability, 0 to 1, in the order of the classes
	Anomaly       *Judgement     `json:"anomaly,omitzero"`           // higher is stranger
	Reputation    jsontext.Value `json:"reputation,omitzero"`        // a Judgement, higher is worse, or null
	Reason        string         `json:"reputation_reason,omitzero"` // why Reputation is null
	Bad           bool           `json:"-"`                          // the flag of Reputation, false where that is null
	Skipped       string         `json:"skipped,omitzero"`           // well-formed, but no network event: why
	Error         string         `json:"error,omitzero"`             // not a record: why
	Release       canon.Digest   `json:"release"`
}

// Suspicious reports whether the finding is about a record that is anything but
// benign by class, anomaly and reputation.
func (f *Finding) Suspicious() bool {
	return f.Class != "" && f.Class != "benign" || f.Anomaly != nil && f.Anomaly.Flag || f.Bad
}

// Judgement is a score from 0 to 1, and whether it reaches the threshold of
// the release.
type Judgement struct {
	Score float32 `json:"score"`
	Flag  bool    `json:"flag"`
}

// Count says how many rows a stream had of each kind.
type Count struct {
	Scored, Skipped, Bad int64
}

// Stream reads rows of the given kind and writes one JSON line for each, in
// their order, with one fresh session for all. A bad row gives a line with an
// error and the rest goes on. Memory is bounded by the length of a row. What is
// scored is written out before more input is waited for, so the end of a log
// that grows can be followed.
//
// An error means that the input could not be read further, the output not be
// written, or ctx ended, also while waiting for input; the lines before it are
// written. After ctx ended, in may still be in use by one last Read.
func (s *Scorer) Stream(ctx context.Context, in io.Reader, out io.Writer, kind record.Kind, opt record.Options) (Count, error) {
	w := bufio.NewWriterSize(out, 1<<16)
	enc := jsontext.NewEncoder(w, json.Deterministic(true))
	n, err := s.Session().Each(&waiting{ctx, in, w, make([]byte, 1<<16)}, kind, opt, func(f *Finding) error {
		return json.MarshalEncode(enc, f)
	})
	return n, errors.Join(err, w.Flush())
}

// Each reads rows of the given kind and gives the finding about each to yield,
// in their order; opt.Privacy and opt.Skipped are set here. A bad row is a
// finding with an error and the rest goes on. The finding is reused for the
// next row. An error of yield ends the reading and is returned; any other
// means that the input could not be read further.
func (x *Session) Each(in io.Reader, kind record.Kind, opt record.Options, yield func(*Finding) error) (Count, error) {
	var n Count
	var f Finding
	var broken error
	give := func() {
		f.Release = x.s.release.Digest
		if broken == nil {
			broken = yield(&f)
		}
	}
	opt.Privacy = x.s.privacy
	opt.Skipped = func(line int64, reason string) {
		n.Skipped++
		f = Finding{Line: line, Skipped: reason}
		give()
	}
	rd, err := record.NewReader(in, kind, opt)
	if err != nil {
		return n, err
	}
	var rec record.Record
	var row *record.RowError
	for {
		err := rd.Next(&rec)
		switch {
		case broken != nil:
			return n, broken
		case err == io.EOF:
			return n, nil
		case errors.As(err, &row):
			n.Bad++
			f = Finding{Line: row.Line, Error: row.Reason}
			if row.Detail != "" {
				f.Error += ": " + row.Detail
			}
		case err != nil:
			return n, err
		case x.s.privacy.Address != opt.Privacy.Address || x.s.privacy.Redaction != opt.Privacy.Redaction:
			return n, fmt.Errorf("release %s wants addresses or texts in another form than the one before: begin again", x.s.release.Digest)
		default:
			n.Scored++
			x.finding(&f, &rec)
			f.Line = rd.Line()
		}
		if give(); broken != nil {
			return n, broken
		}
	}
}

// waiting is an input that writes out what there is before it waits for more,
// and that stops waiting when ctx ends.
type waiting struct {
	ctx context.Context
	in  io.Reader
	out *bufio.Writer
	buf []byte
}

func (r *waiting) Read(p []byte) (int, error) {
	if err := r.out.Flush(); err != nil {
		return 0, err
	}
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := r.in.Read(r.buf[:min(len(p), len(r.buf))])
		done <- result{n, err}
	}()
	select {
	case <-r.ctx.Done():
		return 0, r.ctx.Err() // buf belongs to the Read that is left behind
	case got := <-done:
		return copy(p, r.buf[:got.n]), got.err
	}
}

// finding scores r into f.
func (x *Session) finding(f *Finding, r *record.Record) {
	scores := x.Score(r)
	classes := x.s.set.Classes()
	*f = Finding{
		Address:       r.Address,
		Class:         classes[scores.Class],
		Probabilities: f.Probabilities[:0],
		Anomaly:       &Judgement{scores.Anomaly, scores.Flag},
		Reputation:    f.Reputation[:0],
	}
	if r.Time != record.NoTime {
		f.Time = time.UnixMicro(r.Time).UTC().Format(time.RFC3339Nano)
	}
	b := append(f.Probabilities, '{')
	for i, name := range classes {
		if i > 0 {
			b = append(b, ',')
		}
		b, _ = jsontext.AppendQuote(b, name) // class names are ASCII
		b = appendFloat(append(b, ':'), scores.Probabilities[i])
	}
	f.Probabilities = append(b, '}')
	switch {
	case r.Address == "":
		f.Reputation, f.Reason = append(f.Reputation, "null"...), "the record has no address"
	case r.Time == record.NoTime:
		f.Reputation, f.Reason = append(f.Reputation, "null"...), "the record has no time"
	default:
		b := appendFloat(append(f.Reputation, `{"score":`...), scores.Reputation)
		b = strconv.AppendBool(append(b, `,"flag":`...), scores.Bad)
		f.Bad = scores.Bad
		f.Reputation = append(b, '}')
	}
}

// appendFloat appends the shortest decimal that reads back as x.
func appendFloat(b []byte, x float32) []byte {
	return strconv.AppendFloat(b, float64(x), 'g', -1, 32)
}
