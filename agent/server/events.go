package server

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	maxListeners = 64               // of events at once
	waiting      = 64               // events that a listener may be behind before it is let go
	scoresEvery  = 2 * time.Second  // event "scores", while somebody listens and there are any
	keepAlive    = 15 * time.Second // a comment, so that proxies and clients see that the connection lives
)

// hub hands events to whoever listens.
type hub struct {
	mu        sync.Mutex
	listeners map[chan event]bool
	sync      event  // the last one of that name
	flushing  bool   // every scoresEvery, while there are listeners
	fresh     scored // since the last event "scores"
	total     scored // since the start
	spans     []span // lately, oldest first
}

// scored counts records by what was found of them.
type scored struct {
	Rows      int64            `json:"rows"`
	Anomalies int64            `json:"anomalies"`
	Classes   map[string]int64 `json:"classes"` // by the most probable class

	AnomalySum float64 `json:"anomaly_sum"` // of the anomaly scores of all Rows
	AnomalyMax float32 `json:"anomaly_max"` // the highest of them
}

func (s *scored) add(t *tally) {
	s.Rows += t.Scored
	s.Anomalies += t.Anomalies
	s.AnomalySum += t.AnomalySum
	s.AnomalyMax = max(s.AnomalyMax, t.AnomalyMax)
	for i, n := range t.Classes {
		if n > 0 {
			s.Classes[t.names[i]] += n
		}
	}
}

// event is one server-sent event; data is one line of JSON.
type event struct {
	name string
	data []byte
}

func newHub() *hub {
	return &hub{listeners: map[chan event]bool{}, fresh: scored{Classes: map[string]int64{}}, total: scored{Classes: map[string]int64{}}}
}

// send gives an event to all. A listener that has not read so many is let go:
// it may connect again.
func (h *hub) send(name string, v any) {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		panic("server: internal error: " + err.Error())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	e := event{name, b}
	if name == "sync" {
		h.sync = e
	}
	for c := range h.listeners {
		select {
		case c <- e:
		default:
			delete(h.listeners, c)
			close(c)
		}
	}
}

// listen returns a channel of events, or nil when there are too many
// listeners. It is closed for one who is too slow.
func (h *hub) listen() chan event {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.listeners) == maxListeners {
		return nil
	}
	c := make(chan event, waiting)
	h.listeners[c] = true
	if !h.flushing {
		h.flushing = true
		go h.keepFlushing()
	}
	return c
}

// keepFlushing sends the events "scores" until nobody listens any more.
func (h *hub) keepFlushing() {
	for range time.Tick(scoresEvery) {
		h.flush()
		h.mu.Lock()
		h.flushing = len(h.listeners) > 0
		on := h.flushing
		h.mu.Unlock()
		if !on {
			return
		}
	}
}

func (h *hub) leave(c chan event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.listeners, c)
}

// scored adds what one request found to the totals and the next event "scores".
func (h *hub) scored(t *tally) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.total.add(t)
	h.remember(t, time.Now())
	if len(h.listeners) > 0 {
		h.fresh.add(t)
	}
}

// totals are the counts since the start.
func (h *hub) totals() scored {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.total.copy()
}

// flush sends what was scored since the last time.
func (h *hub) flush() {
	h.mu.Lock()
	if h.fresh.Rows == 0 {
		h.mu.Unlock()
		return
	}
	e := struct {
		scored
		Total scored `json:"total"`
	}{h.fresh, h.total.copy()}
	h.fresh = scored{Classes: map[string]int64{}}
	h.mu.Unlock()
	h.send("scores", e)
}

// underWay returns the last event of the sync that is under way, if one is.
func (s *Server) underWay() (event, bool) {
	s.mu.Lock()
	running := s.running != nil
	s.mu.Unlock()
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	return s.events.sync, running && s.events.sync.name != ""
}

// stream answers GET /events with server-sent events: the status at once and
// whenever it changes, each sync as it begins, goes on and ends, and every two
// seconds how many records were found to be what.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	c := s.events.listen()
	if c == nil {
		problem(w, http.StatusServiceUnavailable, fmt.Sprintf("%d others listen already", maxListeners), nil)
		return
	}
	defer s.events.leave(c)
	out := http.NewResponseController(w)
	out.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	put := func(text string) bool {
		out.SetWriteDeadline(time.Now().Add(10 * time.Second))
		_, err := w.Write([]byte(text))
		return err == nil && out.Flush() == nil
	}
	first, err := json.Marshal(s.status.Load(), json.Deterministic(true))
	if err != nil {
		panic("server: internal error: " + err.Error())
	}
	ok := put(fmt.Sprintf("retry: 2000\nevent: status\ndata: %s\n\n", first))
	if e, under := s.underWay(); ok && under {
		ok = put(fmt.Sprintf("event: %s\ndata: %s\n\n", e.name, e.data))
	}
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	for ok {
		select {
		case e, more := <-c:
			ok = more && put(fmt.Sprintf("event: %s\ndata: %s\n\n", e.name, e.data))
		case <-alive.C:
			ok = put(": here\n\n")
		case <-r.Context().Done():
			return
		}
	}
}
