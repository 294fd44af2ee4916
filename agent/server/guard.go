package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/battle-hardened-ai/bhtrain/verify"
)

// contentPolicy lets a page that this server sends load nothing from elsewhere,
// run no inline script and be framed by nobody.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guard lets through to h what may ask, and counts it.
func (s *Server) guard(h *http.ServeMux, remote bool) http.Handler {
	origin := http.NewCrossOriginProtection()
	want := sha256.Sum256([]byte(s.opt.Token))
	var turned turnedAway
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		counted := &countedWriter{ResponseWriter: w, status: http.StatusOK}
		w = counted
		_, pattern := h.Handler(r)
		defer func() {
			if defect := recover(); defect != nil {
				counted.status = http.StatusInternalServerError
				if defect != http.ErrAbortHandler {
					s.opt.Log.Error("a request failed by a defect of this program", "request", pattern, "reason", fmt.Sprint(defect), "stack", string(debug.Stack()))
				}
				defer panic(http.ErrAbortHandler) // the connection ends: half an answer is none
			}
			s.metrics.request(pattern, counted.status, time.Since(start))
			switch counted.status {
			case http.StatusUnauthorized, http.StatusForbidden, http.StatusMisdirectedRequest:
				turned.tell(s.opt.Log, r, counted.status)
			}
		}()
		head := w.Header()
		head.Set("Content-Security-Policy", contentPolicy)
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Cache-Control", "no-store")
		open := r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
		switch {
		case !remote && !s.knownHost(r):
			head.Set("Connection", "close")
			problem(w, http.StatusMisdirectedRequest, "this server is not called "+r.Host+": name it with --host if it is", nil)
		case remote && !open && !bears(r, want):
			head.Set("WWW-Authenticate", "Bearer")
			head.Set("Connection", "close") // a stranger keeps no place
			problem(w, http.StatusUnauthorized, "from another machine a request must bear the token", nil)
		case origin.Check(r) != nil:
			problem(w, http.StatusForbidden, "a page of another site may not ask this", nil)
		case pattern == "":
			// The answers of the mux itself, 404 and 405, as problems.
			plain := &statusOnly{head: head}
			h.ServeHTTP(plain, r)
			problem(w, plain.status, r.Method+" "+r.URL.Path+" is nothing that this server does: see /openapi.yaml", nil)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// turnedAway tells the log who was turned away: the first, and then one a
// minute with the number of others, so that strangers cannot fill the disk.
type turnedAway struct {
	mu     sync.Mutex
	silent time.Time // until when
	others int
}

const turnedAwayEvery = time.Minute

func (t *turnedAway) tell(log *slog.Logger, r *http.Request, status int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Before(t.silent) {
		t.others++
		return
	}
	log.Warn("a request was turned away", "status", status, "from", r.RemoteAddr, "host", verify.Printable(r.Host), "method", r.Method,
		"path", verify.Printable(r.URL.Path), "others", t.others)
	t.silent, t.others = now.Add(turnedAwayEvery), 0
}

// knownHost reports whether the request names this server by a name that no
// web page can have: one of the loopback interface, or one of Options.Hosts.
// On a socket in the file system any name will do.
func (s *Server) knownHost(r *http.Request) bool {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && a.Network() == "unix" {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		return true
	}
	return strings.EqualFold(host, "localhost") || slices.ContainsFunc(s.opt.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// bears reports whether the request has the token whose SHA-256 is want. The
// digest of no token at all is never wanted.
func bears(r *http.Request, want [sha256.Size]byte) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(token))
	return strings.EqualFold(scheme, "Bearer") && token != "" && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// countedWriter remembers the status that it passes on.
type countedWriter struct {
	http.ResponseWriter
	status int
}

func (w *countedWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// statusOnly keeps the status and header of an answer and drops its body.
type statusOnly struct {
	head   http.Header
	status int
}

func (w *statusOnly) Header() http.Header         { return w.head }
func (w *statusOnly) WriteHeader(status int)      { w.status = status }
func (w *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
