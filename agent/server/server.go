// Package server runs an agent as a daemon: it keeps the newest release that
// the policy allows loaded, judges it again and again, and answers programs of
// the same machine over HTTP. openapi.yaml describes every path.
//
// A request works with the one release that was loaded when it began. Loading
// another is the exchange of one pointer: no request waits for it, fails by it
// or sees two releases, and the old one is garbage once the last request that
// used it has ended.
package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// Options say what a Server keeps loaded and for whom.
type Options struct {
	Agent    *agent.Agent
	From     []oras.Ref    // mirrors, one at least; see agent.SyncMirrors
	Store    oras.Options  // for all of From; a Server has Sessions of its own
	Policy   string        // path of the policy file; read again each time it is needed
	Interval time.Duration // between syncs, each a tenth longer or shorter by chance; above 0

	// Hosts are names by which this server may be called besides those of the
	// loopback interface. A request for any other is refused: it is what a web
	// page sends that has its own name resolve to this machine.
	Hosts []string

	// Token is what requests to Remote listeners must bear; without one they
	// are all refused.
	Token string

	Version string           // of the program, for those who ask
	Log     *slog.Logger     // nil discards
	Now     func() time.Time // nil is time.Now
}

// Server is a running agent. Make it with New.
type Server struct {
	opt     Options
	started time.Time
	live    atomic.Pointer[loaded] // nil while nothing may be used
	status  atomic.Pointer[Status] // never nil
	events  *hub
	metrics *metrics
	shares  shares

	reloading sync.Mutex       // held while live and status are decided; guards the next four
	read      canon.Digest     // of the policy when it was last looked at; zero when it could not be read
	unjudged  time.Time        // since when no judgement could be made; zero when the last one was
	trust     *verify.Verifier // that judged last
	trusted   time.Time        // when its trusted root was last had

	mu       sync.Mutex        // guards the next five
	running  *run              // the sync that is under way, or nil
	working  sync.WaitGroup    // it
	recent   []agent.Happening // the newest last
	unkept   bool              // recent has what was not written down
	base     context.Context   // of syncs, which go on when whoever asked for one is gone
	writing  sync.Mutex        // held while recent is written down; guards mute
	mute     bool              // that could not be done, and the log says so
	sessions sync.Mutex        // held while live history is used
	history  *agent.Session    // of requests that ask for live history; nil before the first
}

// New returns a server that has nothing loaded yet.
func New(opt Options) *Server {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	opt.Store.Sessions = new(oras.Sessions)
	s := &Server{opt: opt, started: opt.Now(), events: newHub(), metrics: newMetrics(opt.Version), shares: newShares(), base: context.Background()}
	s.status.Store(&Status{State: agent.StateNone, Reason: "not looked yet"})
	if opt.Agent != nil {
		s.recent = opt.Agent.History()
	}
	return s
}

// Listener is where a Server takes requests.
type Listener struct {
	net.Listener
	// Remote says that others than users of this machine can reach it: requests
	// must bear the token.
	Remote bool
}

// Limits of a connection and of all.
const (
	maxConnections = 512              // of one listener; more wait to be accepted
	maxHeader      = 16 << 10         // bytes
	headerTimeout  = 5 * time.Second  // from the first byte to the end of the header
	readTimeout    = 30 * time.Second // to the end of the body
	writeTimeout   = 60 * time.Second // of an answer, but for events and syncs
	idleTimeout    = 2 * time.Minute
	drainTimeout   = 5 * time.Second // for requests that are under way at the end
)

// Run loads what is installed, then serves and syncs until ctx ends. It
// returns nil then, and the first error of a listener otherwise.
func (s *Server) Run(ctx context.Context, listeners ...Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mu.Lock()
	s.base = ctx
	s.mu.Unlock()
	s.reload(ctx, nil)
	var all sync.WaitGroup
	for _, l := range listeners {
		srv := s.httpServer(ctx, l.Remote)
		in := l.Listener
		if l.Remote {
			in = &fairListener{Listener: in, open: map[netip.Prefix]int{}}
		}
		all.Go(func() {
			err := srv.Serve(netutil.LimitListener(in, maxConnections))
			if !errors.Is(err, http.ErrServerClosed) {
				cancel(err)
			}
		})
		all.Go(func() {
			<-ctx.Done()
			drain, done := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
			defer done()
			if srv.Shutdown(drain) != nil {
				srv.Close()
			}
		})
	}
	all.Go(func() { s.keep(ctx) })
	all.Go(func() { s.watch(ctx) })
	<-ctx.Done()
	all.Wait()
	s.mu.Lock() // whoever begins a sync has begun it
	s.mu.Unlock()
	s.working.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (s *Server) httpServer(ctx context.Context, remote bool) *http.Server {
	return &http.Server{
		Handler:           s.Handler(remote),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.opt.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
}

// Handler answers requests; remote says that they must bear the token.
func (s *Server) Handler(remote bool) http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]http.HandlerFunc{
		"POST /v1/score":        s.score,
		"GET /api/models":       s.models,
		"POST /api/models/sync": s.syncNow,
		"GET /models/list":      s.modelList,
		"GET /models/{name}":    s.modelFile,
		"GET /stats":            s.stats,
		"GET /events":           s.stream,
		"GET /scores":           s.scores,
		"GET /{$}":              s.page,
		"GET /page.css":         pageFile,
		"GET /page.js":          pageFile,
		"GET /metrics":          s.metrics.handler.ServeHTTP,
		"GET /openapi.yaml":     openapi,
		"GET /healthz":          healthy,
		"GET /readyz":           s.ready(remote),
	} {
		mux.HandleFunc(pattern, h)
	}
	return s.guard(mux, remote)
}

// healthy says that the process answers, and no more.
func healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, "ok\n")
}

// ready says whether records can be scored, and to users of this machine why
// not: reasons name files.
func (s *Server) ready(remote bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if s.live.Load() != nil {
			healthy(w, nil)
			return
		}
		detail := "nothing is loaded"
		if st := s.status.Load(); !remote {
			detail += ": " + st.Reason
		}
		problem(w, http.StatusServiceUnavailable, detail, nil)
	}
}
