package server

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

// Bounds of one request for scores.
const (
	maxScoreBody = 4 << 20 // bytes
	maxScoreRows = 10_000
	maxLiveSites = 16 // sites of which live history is kept: about 25 MB for each that is full
)

var errRows = fmt.Errorf("more than %d rows: send several requests", maxScoreRows)

// Formats are the formats of rows by the names that users know them by.
var Formats = map[string]record.Kind{
	"json":     record.Attacks,
	"access":   record.Access,
	"sshd":     record.SSHD,
	"cowrie":   record.Cowrie,
	"honeypot": record.Honeypot,
}

// score answers POST /v1/score. A body of media type application/json is one
// record, which gives one finding, or an array, which gives an array; any other
// is rows, one a line, and gives JSON lines.
func (s *Server) score(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	format := q.Get("format")
	if format == "" {
		format = "json"
	}
	kind, ok := Formats[format]
	if !ok {
		problem(w, http.StatusBadRequest, fmt.Sprintf("format %q is none of access, cowrie, honeypot, json, sshd", format), nil)
		return
	}
	opt := record.Options{Site: q.Get("site")}
	if y := q.Get("year"); y != "" {
		n, err := strconv.Atoi(y)
		if err != nil || n < 1970 || n > 9999 {
			problem(w, http.StatusBadRequest, fmt.Sprintf("year %q: want four digits", y), nil)
			return
		}
		opt.Year = n
	}
	lively := false
	switch history := q.Get("history"); history {
	case "", "fresh":
	case "live":
		lively = true
	default:
		problem(w, http.StatusBadRequest, fmt.Sprintf("history %q is neither fresh nor live", history), nil)
		return
	}
	busy := func() {
		w.Header().Set("Retry-After", "1")
		problem(w, http.StatusServiceUnavailable, errBusy.Error()+": try again in a moment", nil)
	}
	body, release, err := s.shares.body(w, r)
	defer release()
	var long *http.MaxBytesError
	switch {
	case errors.Is(err, errBusy):
		busy()
		return
	case errors.As(err, &long):
		problem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes: send several requests", maxScoreBody), nil)
		return
	case err != nil:
		problem(w, http.StatusBadRequest, "the body could not be read: "+err.Error(), nil)
		return
	}
	held, err := s.shares.answer(r.Context(), len(body))
	if err != nil {
		busy()
		return
	}
	defer held.shrink(0)
	live := s.live.Load()
	if live == nil {
		problem(w, http.StatusServiceUnavailable, "nothing is loaded: "+s.status.Load().Reason, nil)
		return
	}

	shape := lines
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == record.Attacks && err == nil && t == "application/json" {
		shape = one
		if b := bytes.TrimLeft(body, " \t\r\n"); len(b) > 0 && b[0] == '[' {
			shape = array
		}
		if v := jsontext.Value(body); !v.IsValid() {
			problem(w, http.StatusBadRequest, "the body is no JSON value: send application/x-ndjson for one value a line", nil)
			return
		}
		if shape == one { // in one line, however it was written
			v := jsontext.Value(body)
			v.Compact()
			body = v
		}
	}
	var out bytes.Buffer
	enc := jsontext.NewEncoder(&out, json.Deterministic(true))
	if shape == array {
		enc.WriteToken(jsontext.BeginArray)
	}
	var t tally
	rows, failure := 0, ""
	give := func(f *agent.Finding) error {
		if rows++; rows > maxScoreRows {
			return errRows
		}
		if f.Error != "" {
			failure = f.Error
		}
		t.add(live, f)
		return json.MarshalEncode(enc, f)
	}
	if lively {
		_, err = s.withHistory(live, func(x *agent.Session) (agent.Count, error) { return x.Each(bytes.NewReader(body), kind, opt, give) })
	} else {
		_, err = live.Session().Each(bytes.NewReader(body), kind, opt, give)
	}
	switch {
	case errors.Is(err, errRows):
		problem(w, http.StatusRequestEntityTooLarge, err.Error(), nil)
		return
	case err != nil:
		problem(w, http.StatusBadRequest, "the body could not be read to its end: "+err.Error(), nil)
		return
	case shape == one && failure != "":
		problem(w, http.StatusUnprocessableEntity, "not a record: "+failure, nil)
		return
	}
	s.metrics.scored(&t)
	s.events.scored(&t)
	mediaType := "application/x-ndjson"
	if shape != lines {
		mediaType = "application/json"
	}
	if shape == array {
		enc.WriteToken(jsontext.EndArray)
	}
	held.shrink(out.Len())
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
	w.Header().Set("Content-Type", mediaType)
	w.Write(out.Bytes())
}

// The shapes of a body and its answer.
const (
	lines = iota
	one
	array
)

// withHistory runs f with the session that remembers all that asked for it, in
// the form that live keeps history.
func (s *Server) withHistory(live *loaded, f func(*agent.Session) (agent.Count, error)) (agent.Count, error) {
	s.sessions.Lock()
	defer s.sessions.Unlock()
	if s.history == nil {
		s.history = live.LiveSession(maxLiveSites)
	}
	s.history.Move(live.Scorer)
	return f(s.history)
}

// tally counts the findings of one request.
type tally struct {
	Rows      int64 // all
	Scored    int64
	Skipped   int64
	Bad       int64
	Anomalies int64
	Listed    int64 // whose address has a bad reputation

	AnomalySum float64 // of the anomaly scores of those scored
	AnomalyMax float32
	Classes    []int64 // by class, in the order of the release
	names      []string
}

func (t *tally) add(live *loaded, f *agent.Finding) {
	t.Rows++
	switch {
	case f.Error != "":
		t.Bad++
	case f.Skipped != "":
		t.Skipped++
	default:
		t.Scored++
		if t.Classes == nil {
			t.names = live.Classes()
			t.Classes = make([]int64, len(t.names))
		}
		t.Classes[live.class[f.Class]]++
		t.AnomalySum += float64(f.Anomaly.Score)
		t.AnomalyMax = max(t.AnomalyMax, f.Anomaly.Score)
		if f.Anomaly.Flag {
			t.Anomalies++
		}
		if f.Bad {
			t.Listed++
		}
	}
}
