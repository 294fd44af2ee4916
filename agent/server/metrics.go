package server

import (
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/battle-hardened-ai/bhtrain/agent"
)

// metrics are what GET /metrics tells.
type metrics struct {
	handler   http.Handler
	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	rows      *prometheus.CounterVec
	classes   *prometheus.CounterVec
	anomalies prometheus.Counter
	listed    prometheus.Counter
	syncs     *prometheus.CounterVec
	states    *prometheus.GaugeVec
	number    prometheus.Gauge
	answered  prometheus.Gauge
	expires   prometheus.Gauge

	// The same once more for GET /stats, which a registry cannot be asked for.
	scoredRows, badRows, anomalous atomic.Int64
	syncCount                      atomic.Int64
}

// states are all that the gauge of the state may name.
var states = []agent.State{agent.StateCurrent, agent.StateStale, agent.StateBehind, agent.StatePinned, agent.StateOffline, agent.StateRevoked, agent.StateRefused, agent.StateNone}

func newMetrics(version string) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		requests: counter("bhagent_requests_total", "HTTP requests answered, by method, path and status.", "method", "path", "status"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "bhagent_request_duration_seconds", Help: "Time to answer an HTTP request, by method and path.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}, []string{"method", "path"}),
		rows:      counter("bhagent_rows_total", "Rows looked at: scored, skipped as no network event, or bad.", "outcome"),
		classes:   counter("bhagent_records_total", "Records scored, by the most probable class.", "class"),
		anomalies: prometheus.NewCounter(prometheus.CounterOpts{Name: "bhagent_anomalies_total", Help: "Records flagged as anomalous."}),
		listed:    prometheus.NewCounter(prometheus.CounterOpts{Name: "bhagent_bad_addresses_total", Help: "Records from an address of bad reputation."}),
		syncs:     counter("bhagent_syncs_total", "Syncs, by result.", "result"),
		states:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "bhagent_state", Help: "1 for the state that the agent is in, 0 for the others."}, []string{"state"}),
		number:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "bhagent_release_number", Help: "Number of the loaded release, 0 for none."}),
		answered:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "bhagent_last_successful_sync_timestamp_seconds", Help: "When a sync last ended well (installed, current or pinned), 0 for never."}),
		expires:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "bhagent_channel_expires_timestamp_seconds", Help: "Until when the channel says what is current, 0 when no trusted one does."}),
	}
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "bhagent_build_info", Help: "1, with the version of the program and of Go.", ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	reg.MustRegister(build, m.expires, collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.requests, m.duration, m.rows, m.classes, m.anomalies, m.listed, m.syncs, m.states, m.number, m.answered, collectors.NewGoCollector())
	for _, name := range states {
		m.states.WithLabelValues(string(name))
	}
	m.handler = promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	return m
}

// request counts one answer. pattern is that of the mux, "" for none, so that
// nobody can make up paths without end.
func (m *metrics) request(pattern string, status int, took time.Duration) {
	method, path, known := strings.Cut(pattern, " ")
	if !known {
		method, path = "other", "other"
	}
	path = strings.TrimSuffix(path, "{$}")
	m.requests.WithLabelValues(method, path, strconv.Itoa(status)).Inc()
	m.duration.WithLabelValues(method, path).Observe(took.Seconds())
}

// scored counts the findings of one request.
func (m *metrics) scored(t *tally) {
	m.rows.WithLabelValues("scored").Add(float64(t.Scored))
	m.rows.WithLabelValues("skipped").Add(float64(t.Skipped))
	m.rows.WithLabelValues("bad").Add(float64(t.Bad))
	for i, n := range t.Classes {
		if n > 0 {
			m.classes.WithLabelValues(t.names[i]).Add(float64(n))
		}
	}
	m.anomalies.Add(float64(t.Anomalies))
	m.listed.Add(float64(t.Listed))
	m.scoredRows.Add(t.Scored)
	m.badRows.Add(t.Bad)
	m.anomalous.Add(t.Anomalies)
}

func (m *metrics) synced(r *Report) {
	m.syncs.WithLabelValues(r.Result).Inc()
	m.syncCount.Add(1)
	if r.Success {
		m.answered.Set(float64(r.Finished.Unix()))
	}
}

func (m *metrics) state(st *Status, live *loaded) {
	for _, name := range states {
		is := 0.0
		if name == st.State {
			is = 1
		}
		m.states.WithLabelValues(string(name)).Set(is)
	}
	n := int64(0)
	if live != nil {
		n = live.Release().Release.Number
	}
	m.number.Set(float64(n))
	until := 0.0
	if st.Verdict != nil && st.Verdict.Channel != nil {
		if t, err := time.Parse(time.RFC3339, st.Verdict.Channel.Expires); err == nil {
			until = float64(t.Unix())
		}
	}
	m.expires.Set(until)
}

// totals are the counts since the start, for GET /stats.
func (m *metrics) totals() map[string]int64 {
	return map[string]int64{"records_scored": m.scoredRows.Load(), "rows_bad": m.badRows.Load(), "anomalies": m.anomalous.Load(), "syncs": m.syncCount.Load()}
}
