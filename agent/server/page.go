package server

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

//go:embed page
var pageFiles embed.FS

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"mark":  mark,
	"when":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"use":   func(model string) string { return purpose[model] },
	"group": group,
	"parts": parts,
	"table": newCheckTable,
	"failed": func(checks []verify.Check) bool {
		return slices.ContainsFunc(checks, func(c verify.Check) bool { return c.Status == verify.Fail })
	},
	"clock": func(t time.Time) string { return t.UTC().Format("15:04") },
}).ParseFS(pageFiles, "page/page.html"))

// mark is the sign of a check's status.
func mark(s verify.Status) string {
	switch s {
	case verify.Pass:
		return "✓"
	case verify.Fail:
		return "✗"
	}
	return "–"
}

// checkTable is checks as the page shows them: those that the policy does not
// demand are folded away.
type checkTable struct {
	ID            string
	Asked, Folded []verify.Check
}

func newCheckTable(id string, checks []verify.Check) checkTable {
	t := checkTable{ID: id}
	for _, c := range checks {
		if c.Status == verify.Skip && !c.Demanded {
			t.Folded = append(t.Folded, c)
		} else {
			t.Asked = append(t.Asked, c)
		}
	}
	return t
}

// group writes an integer that is not negative with a space between thousands.
func group(n any) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// part is a stretch of a text: a digest, or what stands between two.
type part struct {
	Text   string
	Digest bool
}

var digests = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// parts finds the digests in a text, for the page to show them in short.
func parts(text string) []part {
	var all []part
	from := 0
	for _, at := range digests.FindAllStringIndex(text, -1) {
		all = append(all, part{text[from:at[0]], false}, part{text[at[0]:at[1]], true})
		from = at[1]
	}
	return append(all, part{text[from:], false})
}

// note keeps h for the page. The same once more, at a later time, is counted.
func (s *Server) note(h agent.Happening) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.Time, h.Times, s.unkept = h.Time.UTC(), 1, true
	if n := len(s.recent); n > 0 {
		last := s.recent[n-1]
		if last.What == h.What && last.Digest == h.Digest && last.Detail == h.Detail && last.Source == h.Source {
			h.Times += last.Times
			s.recent[n-1] = h
			return
		}
	}
	s.recent = append(s.recent, h)
	if len(s.recent) > agent.MaxHistory {
		s.recent = slices.Delete(s.recent, 0, 1)
	}
}

// keepHistory writes down what was noted, for the page of the next start. Where
// that cannot be done the log says so once, until it can.
func (s *Server) keepHistory() {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	unkept, recent := s.unkept, slices.Clone(s.recent)
	s.unkept = false
	s.mu.Unlock()
	if !unkept {
		return
	}
	err := s.opt.Agent.KeepHistory(recent)
	if err == nil {
		s.mute = false
		return
	}
	if !s.mute {
		s.opt.Log.Warn("the history of syncs was not written down: it ends with this process unless that works later", "reason", err.Error())
	}
	s.mute = true
	s.mu.Lock()
	s.unkept = true
	s.mu.Unlock()
}

// view is what the page shows.
type view struct {
	*Status
	Using           bool              // Release is in use
	Says            string            // what the state means
	Good            bool              // all is as it should be
	Recent          []agent.Happening // the newest first
	Started         time.Time         // since when Scores are kept
	Scores          scored
	Bars            []bar // of Scores, the most frequent class first
	Chart           *chart
	Fresh           *freshness // nil when no channel says until when
	Passed          int        // checks of the verdict
	Failed          int
	Skipped, Unmade int
	Version         string
	Now             time.Time
}

// bar is one class of scored records.
type bar struct {
	Class string
	Rows  int64
}

// freshness is how long the channel's word still holds.
type freshness struct {
	Issued, Expires time.Time
	Left            string // for people
	Share           int64  // of the time from Issued to Expires that is left, in percent
}

// freshnessOf reads what a channel said; nil when no trusted signer said it.
func freshnessOf(c *verify.ChannelVerdict, now time.Time) *freshness {
	if c == nil {
		return nil
	}
	issued, err := time.Parse(time.RFC3339, c.Issued)
	if err != nil {
		return nil
	}
	expires, err := time.Parse(time.RFC3339, c.Expires)
	if err != nil || !expires.After(issued) {
		return nil
	}
	f := &freshness{Issued: issued, Expires: expires, Left: "expired"}
	if left := expires.Sub(now); left > 0 {
		f.Share = min(100, int64(left/time.Second)*100/max(1, int64(expires.Sub(issued)/time.Second)))
		switch minutes := int64(left / time.Minute); {
		case minutes < 120:
			f.Left = fmt.Sprintf("%d min left", minutes)
		case minutes < 48*60:
			f.Left = fmt.Sprintf("%d h left", minutes/60)
		default:
			f.Left = fmt.Sprintf("%d days left", minutes/60/24)
		}
	}
	return f
}

// says explains the states.
var says = map[agent.State]string{
	agent.StateCurrent: "In use, and nothing newer is known.",
	agent.StateStale:   "In use, but nobody says any more that it is current.",
	agent.StateBehind:  "In use, but the channel names another release.",
	agent.StatePinned:  "In use by decision of an operator, though the channel names another release.",
	agent.StateOffline: "In use, but no registry answered when last asked.",
	agent.StateRevoked: "Not in use: a revoker of the policy withdrew it.",
	agent.StateRefused: "Not in use: it does not meet the policy.",
	agent.StateNone:    "Nothing verified is installed.",
}

// view gathers what the page shows.
func (s *Server) view() *view {
	st := s.status.Load()
	v := &view{
		Status: st, Using: st.Release != nil && st.Release.InUse, Says: says[st.State], Good: st.State == agent.StateCurrent || st.State == agent.StatePinned,
		Started: s.started, Scores: s.events.totals(), Version: s.opt.Version, Now: s.opt.Now(),
	}
	s.mu.Lock()
	v.Recent = slices.Clone(s.recent)
	s.mu.Unlock()
	slices.Reverse(v.Recent)
	v.Bars = bars(v.Scores.Classes)
	now := time.Now()
	v.Chart = draw(s.events.lately(now), now)
	if st.Verdict != nil {
		v.Fresh = freshnessOf(st.Verdict.Channel, v.Now)
		for _, c := range st.Verdict.Checks {
			switch c.Status {
			case verify.Pass:
				v.Passed++
			case verify.Fail:
				v.Failed++
			default:
				if c.Demanded {
					v.Unmade++
				} else {
					v.Skipped++
				}
			}
		}
	}
	return v
}

// page answers GET / for people. All of it can be read without its script,
// which keeps it up to date.
func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, s.view()); err != nil {
		panic("server: internal error: " + err.Error())
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(b.Bytes())
}

// pageFile answers with the style or the script of the page.
func pageFile(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	b, err := pageFiles.ReadFile("page/" + name)
	if err != nil {
		panic("server: internal error: " + err.Error()) // only those that exist have a path
	}
	t := "text/css; charset=utf-8"
	if strings.HasSuffix(name, ".js") {
		t = "text/javascript; charset=utf-8"
	}
	w.Header().Set("Content-Type", t)
	w.Write(b)
}
