package server

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

//go:embed page
var pageFiles embed.FS

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"mark":  mark,
	"short": func(d canon.Digest) string { return d.String()[:min(19, len(d.String()))] },
	"when":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
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

// view is what the page shows.
type view struct {
	*Status
	Says    string    // what the state means
	Good    bool      // all is as it should be
	Recent  []*Report // syncs that installed or refused something, the newest first
	Version string
	Now     time.Time
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

// page answers GET / for people. All of it can be read without its script,
// which keeps it up to date.
func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	st := s.status.Load()
	v := view{Status: st, Says: says[st.State], Good: st.State == agent.StateCurrent || st.State == agent.StatePinned, Version: s.opt.Version, Now: s.opt.Now()}
	s.mu.Lock()
	for i := len(s.recent) - 1; i >= 0; i-- {
		v.Recent = append(v.Recent, s.recent[i])
	}
	s.mu.Unlock()
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, v); err != nil {
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

const maxRecent = 50 // reports kept for the page

// note keeps a report that tells something: not each time that all is as it was.
func (s *Server) note(r *Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.recent); n > 0 && s.recent[n-1].Result == r.Result && s.recent[n-1].Release == r.Release && s.recent[n-1].Detail == r.Detail {
		s.recent[n-1] = r // the same once more, at a later time
		return
	}
	s.recent = append(s.recent, r)
	if len(s.recent) > maxRecent {
		s.recent = s.recent[1:]
	}
}
