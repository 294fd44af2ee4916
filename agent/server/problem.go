package server

import (
	"maps"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/battle-hardened-ai/bhtrain/verify"
)

// problem answers with problem details (RFC 9457). more are further members.
func problem(w http.ResponseWriter, status int, detail string, more map[string]any) {
	p := map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": verify.Printable(detail)}
	maps.Copy(p, more)
	write(w, status, "application/problem+json", p)
}

// answer answers with v as JSON.
func answer(w http.ResponseWriter, v any) { write(w, http.StatusOK, "application/json", v) }

func write(w http.ResponseWriter, status int, mediaType string, v any) {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		panic("server: internal error: " + err.Error()) // all that is answered can be encoded
	}
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}
