package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// publisher has one key and releases 1 and 2 of the sample, made once for all
// tests.
var publisher = sync.OnceValues(func() (*published, error) {
	dir, err := os.MkdirTemp("", "bhagent-server-")
	if err != nil {
		return nil, err
	}
	os.Setenv("XDG_CONFIG_HOME", dir)
	signer, err := sign.DefaultKey("")
	if err != nil {
		return nil, err
	}
	p := &published{dir: dir, signer: signer}
	p.policy = fmt.Sprintf("version: 1\nproduct: %s\npublishers:\n  - name: me\n    key: |\n", verify.DefaultProduct)
	for line := range strings.Lines(signer.Key().PEM()) {
		p.policy += "      " + line
	}
	for n := range p.refs {
		out := filepath.Join(dir, fmt.Sprintf("dist%d", n+1))
		recipe := trainer.DefaultRecipe()
		recipe.Seed += int64(n)
		_, err := pipeline.Run(context.Background(), pipeline.Plan{
			Privacy: record.Privacy{Redaction: record.Redaction}, Recipe: recipe,
			Product: verify.DefaultProduct, Release: int64(n + 1), Out: out, Signer: signer,
		})
		if err != nil {
			return nil, err
		}
		p.refs[n] = oras.Ref{Layout: out}
	}
	return p, nil
})

type published struct {
	dir    string
	signer *sign.Signer
	policy string // text
	refs   [2]oras.Ref
}

func TestMain(m *testing.M) {
	code := m.Run()
	if !testing.Short() {
		if p, err := publisher(); err == nil {
			os.RemoveAll(p.dir)
		}
	}
	os.Exit(code)
}

// site is a server with a policy file, and what it syncs from.
type site struct {
	*Server
	*published
	t      *testing.T
	policy string // path
	from   string // path of the layout that is synced from
}

func newSite(t *testing.T, change ...func(*Options)) *site {
	t.Helper()
	if testing.Short() {
		t.Skip("trains")
	}
	p, err := publisher()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &site{t: t, published: p, policy: filepath.Join(dir, "policy.yaml"), from: filepath.Join(dir, "from")}
	s.write(s.policy, p.policy)
	opt := Options{
		Agent: agent.Open(filepath.Join(dir, "state")), From: []oras.Ref{{Layout: s.from}},
		Policy: s.policy, Interval: time.Hour, Version: "v0",
	}
	for _, c := range change {
		c(&opt)
	}
	s.Server = New(opt)
	return s
}

func (s *site) write(path, text string) {
	s.t.Helper()
	writePolicy(s.t, path, text)
}

func writePolicy(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// offer makes release n, 1 or 2, what is synced from.
func (s *site) offer(n int) {
	s.t.Helper()
	if err := os.RemoveAll(s.from); err != nil {
		s.t.Fatal(err)
	}
	if err := os.CopyFS(s.from, os.DirFS(s.refs[n-1].Layout)); err != nil {
		s.t.Fatal(err)
	}
}

// must syncs and wants that result.
func (s *site) must(result string) *Report {
	s.t.Helper()
	r := s.Sync(context.Background())
	if r == nil || r.Result != result {
		s.t.Fatalf("sync: %+v, want %s", r, result)
	}
	return r
}

// do sends a request to the server as from this machine.
func (s *site) do(method, path, mediaType, body string, header ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	return ask(s.Handler(false), method, path, mediaType, body, header...)
}

func ask(h http.Handler, method, path, mediaType, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "localhost:60000"
	if mediaType != "" {
		r.Header.Set("Content-Type", mediaType)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		} else {
			r.Header.Set(header[i], header[i+1])
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const attack = `{"timestamp":"2026-01-10T08:00:00Z","src_ip":"198.51.100.7","details":"GET /item.php?id=1' OR '1'='1"}`

func TestSyncLoadsAndUnloads(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	s.reload(ctx, nil)
	if st := s.status.Load(); st.State != agent.StateNone || st.Loaded {
		t.Fatalf("before the first sync: %+v", st)
	}
	if w := s.do("GET", "/readyz", "", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("readyz before the first sync: %d", w.Code)
	}
	if w := s.do("POST", "/v1/score", "application/json", attack); w.Code != http.StatusServiceUnavailable {
		t.Errorf("score before the first sync: %d", w.Code)
	}
	s.must(ResultUnreachable) // there is no such directory
	s.offer(1)
	s.must(ResultInstalled)
	s.must(ResultCurrent)
	if w := s.do("GET", "/readyz", "", ""); w.Code != http.StatusOK {
		t.Errorf("readyz: %d", w.Code)
	}
	s.offer(2)
	s.must(ResultInstalled)
	s.offer(1)
	r := s.must(ResultRefused)
	if !strings.Contains(r.Detail, "rollback") {
		t.Errorf("an older release: %s", r.Detail)
	}
	if st := s.status.Load(); st.State != agent.StateCurrent || st.Release.Number != 2 || !st.Loaded || st.LastSync.Result != ResultRefused {
		t.Errorf("after a refusal: %+v", st)
	}
	if err := os.RemoveAll(s.from); err != nil {
		t.Fatal(err)
	}
	s.must(ResultUnreachable)
	if st := s.status.Load(); st.State != agent.StateOffline || !st.Loaded || st.Reason == "" {
		t.Errorf("without a registry: %+v", st)
	}

	// The policy of the moment decides: another publisher, then the old one again.
	s.write(s.policy, strings.Replace(s.published.policy, verify.DefaultProduct, "another", 1))
	s.reload(ctx, nil)
	if st := s.status.Load(); st.State != agent.StateRefused || st.Loaded || s.live.Load() != nil || !strings.Contains(st.Reason, "product") ||
		st.Release == nil || st.Release.Number != 2 || st.Release.InUse {
		t.Errorf("under another policy: %+v", st)
	}
	s.write(s.policy, "version: 1\n")
	s.reload(ctx, nil)
	if st := s.status.Load(); st.State != agent.StateRefused || st.Loaded {
		t.Errorf("under a broken policy: %+v", st)
	}
	s.write(s.policy, s.published.policy)
	s.reload(ctx, nil)
	if st := s.status.Load(); !st.Loaded {
		t.Errorf("under the old policy: %+v", st)
	}
}

func TestMirrorsAreAskedInOrder(t *testing.T) {
	s := newSite(t, func(o *Options) {
		o.From = []oras.Ref{{Layout: filepath.Join(t.TempDir(), "none")}, o.From[0]}
	})
	s.offer(1)
	if r := s.must(ResultInstalled); !strings.Contains(r.Source, s.from) {
		t.Errorf("from %s", r.Source)
	}
}

func TestScoreShapes(t *testing.T) {
	s := newSite(t)
	s.offer(1)
	s.must(ResultInstalled)
	object := func(b []byte) (m map[string]any) {
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		return m
	}

	w := s.do("POST", "/v1/score", "application/json", "{\n"+attack[1:])
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" || object(w.Body.Bytes())["class"] == nil {
		t.Errorf("one record: %d %s", w.Code, w.Body)
	}
	w = s.do("POST", "/v1/score", "application/json; charset=utf-8", "["+attack+",\n{\"attack_type\":\"backup_issue\",\"severity\":\"low\"},7]")
	var list []map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list) != 3 || list[0]["class"] == nil || list[1]["skipped"] == nil || list[2]["error"] == nil {
		t.Errorf("a batch: %d %s", w.Code, w.Body)
	}
	w = s.do("POST", "/v1/score", "application/json", "[]")
	if w.Code != 200 || strings.TrimSpace(w.Body.String()) != "[]" {
		t.Errorf("an empty batch: %d %s", w.Code, w.Body)
	}
	w = s.do("POST", "/v1/score", "application/x-ndjson", attack+"\n"+attack+"\n")
	if w.Code != 200 || strings.Count(w.Body.String(), "\n") != 2 || w.Header().Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("lines: %d %s", w.Code, w.Body)
	}
	w = s.do("POST", "/v1/score?format=access", "text/plain", `198.51.100.7 - - [10/Jan/2026:08:00:00 +0000] "GET /etc/passwd HTTP/1.1" 404 12`+"\n")
	if w.Code != 200 || object(w.Body.Bytes())["address"] != "198.51.100.7" {
		t.Errorf("a log line: %d %s", w.Code, w.Body)
	}

	for _, c := range []struct {
		name, query, mediaType, body string
		status                       int
	}{
		{"no JSON", "", "application/json", "{", 400},
		{"two values", "", "application/json", "{}{}", 400},
		{"an unknown format", "?format=pcap", "text/plain", "", 400},
		{"an unknown history", "?history=long", "text/plain", "", 400},
		{"no year", "?format=sshd&year=x", "text/plain", "", 400},
		{"not a record", "", "application/json", `7`, 422},
		{"too long", "", "application/x-ndjson", strings.Repeat(" ", maxScoreBody+1), 413},
		{"too many", "", "application/x-ndjson", strings.Repeat("7\n", maxScoreRows+1), 413},
	} {
		w := s.do("POST", "/v1/score"+c.query, c.mediaType, c.body)
		if w.Code != c.status || w.Header().Get("Content-Type") != "application/problem+json" || object(w.Body.Bytes())["detail"] == "" {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
	}
}

func TestHistoryIsFreshUnlessAskedFor(t *testing.T) {
	s := newSite(t)
	s.offer(1)
	s.must(ResultInstalled)
	at := func(second int, query string) string {
		w := s.do("POST", "/v1/score"+query, "application/json", strings.Replace(attack, "08:00:00", fmt.Sprintf("08:%02d:%02d", second/60, second%60), 1))
		var f map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil {
			t.Fatal(err)
		}
		delete(f, "time")
		b, _ := json.Marshal(f)
		return string(b)
	}
	first := at(0, "")
	if again := at(30, ""); again != first {
		t.Errorf("a fresh request knows of another:\n%s\n%s", first, again)
	}
	if live := at(0, "?history=live"); live != first {
		t.Errorf("the first live request:\n%s\n%s", first, live)
	}
	changed := false
	for i := 1; i < 60 && !changed; i++ {
		changed = at(i, "?history=live") != first
	}
	if !changed {
		t.Error("sixty live requests of one source change nothing")
	}
	// Another release goes on with it.
	s.offer(2)
	s.must(ResultInstalled)
	if fresh, live := at(120, ""), at(120, "?history=live"); fresh == live {
		t.Error("history is lost with the release")
	}
}

func TestOnlyWhoMayIsAnswered(t *testing.T) {
	s := newSite(t, func(o *Options) { o.Token, o.Hosts = "secret", []string{"agent.example.org"} })
	for _, c := range []struct {
		name   string
		remote bool
		method string
		path   string
		header []string
		status int
	}{
		{"by address", false, "GET", "/healthz", []string{"Host", "127.0.0.1:60000"}, 200},
		{"by IPv6 address", false, "GET", "/healthz", []string{"Host", "[::1]:60000"}, 200},
		{"by a configured name", false, "GET", "/healthz", []string{"Host", "Agent.example.org"}, 200},
		{"by a name that resolves here", false, "GET", "/api/models", []string{"Host", "evil.example:60000"}, 421},
		{"by an address of another machine", false, "GET", "/healthz", []string{"Host", "198.51.100.7:60000"}, 421},
		{"from its own page", false, "POST", "/v1/score", []string{"Origin", "http://localhost:60000"}, 503},
		{"from a page elsewhere", false, "POST", "/v1/score", []string{"Origin", "http://evil.example"}, 403},
		{"a sync from a page elsewhere", false, "POST", "/api/models/sync", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"remote without a token", true, "GET", "/api/models", nil, 401},
		{"remote with another token", true, "GET", "/api/models", []string{"Authorization", "Bearer secrets"}, 401},
		{"remote with an empty token", true, "GET", "/api/models", []string{"Authorization", "Bearer "}, 401},
		{"remote with the token by another scheme", true, "GET", "/api/models", []string{"Authorization", "Basic secret"}, 401},
		{"a remote sync without a token", true, "POST", "/api/models/sync", nil, 401},
		{"a remote score without a token", true, "POST", "/v1/score", nil, 401},
		{"remote with the token", true, "GET", "/api/models", []string{"Authorization", "Bearer secret"}, 200},
		{"remote health", true, "GET", "/healthz", nil, 200},
		{"no such path", false, "GET", "/models", nil, 404},
		{"no such method", false, "DELETE", "/api/models", nil, 405},
		{"out of the tree", false, "GET", "/models/..%2f..%2fetc%2fpasswd", nil, 503},
	} {
		w := ask(s.Handler(c.remote), c.method, c.path, "application/json", "", c.header...)
		if w.Code != c.status {
			t.Errorf("%s: %d, want %d: %s", c.name, w.Code, c.status, w.Body)
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: headers %v", c.name, w.Header())
		}
		if w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s", c.name, w.Header().Get("Content-Type"))
		}
	}
	// Without a token nobody from elsewhere is let in, with none either.
	open := newSite(t)
	if w := ask(open.Handler(true), "GET", "/api/models", "", "", "Authorization", "Bearer "); w.Code != 401 {
		t.Errorf("no token configured: %d", w.Code)
	}
}

func TestOldClients(t *testing.T) {
	s := newSite(t)
	s.offer(1)
	s.must(ResultInstalled)
	var list struct {
		Available map[string]struct {
			Endpoint string       `json:"endpoint"`
			SizeKB   float64      `json:"size_kb"`
			SHA256   canon.Digest `json:"sha256"`
		} `json:"models_available"`
		Total float64 `json:"total_size_kb"`
	}
	if err := json.Unmarshal(s.do("GET", "/models/list", "", "").Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(list.Available))
	if want := []string{"anomaly_detector", "feature_scaler", "ip_reputation", "threat_classifier"}; !slices.Equal(names, want) {
		t.Errorf("models %v", names)
	}
	for name, m := range list.Available {
		w := s.do("GET", m.Endpoint, "", "")
		if w.Code != 200 || canon.Sum(w.Body.Bytes()) != m.SHA256 {
			t.Errorf("%s: %d, %d bytes", name, w.Code, w.Body.Len())
		}
		if w := s.do("GET", m.Endpoint, "", "", "If-None-Match", w.Header().Get("ETag")); w.Code != 304 || w.Body.Len() != 0 {
			t.Errorf("%s again: %d", name, w.Code)
		}
	}
	var stats struct {
		Data      map[string]any `json:"relay_training_data"`
		Available int            `json:"models_available"`
	}
	if err := json.Unmarshal(s.do("GET", "/stats", "", "").Body.Bytes(), &stats); err != nil {
		t.Fatal(err)
	}
	if stats.Available != 4 || stats.Data["exploitdb_signatures"].(float64) < 1 || stats.Data["global_attacks_logged"].(float64) < 1 {
		t.Errorf("stats %+v", stats)
	}
	if w := s.do("GET", "/models/anomaly_detector.pkl", "", ""); w.Code != 404 {
		t.Errorf("a pickle: %d", w.Code)
	}
	// The button of the old page: a POST with an empty JSON object, answered by success and,
	// without it, why.
	for _, c := range []struct{ offer, status int }{{2, 200}, {2, 200}, {1, 409}} {
		s.offer(c.offer)
		w := s.do("POST", "/api/models/sync", "application/json", "{}")
		var got struct {
			Success *bool          `json:"success"`
			Detail  string         `json:"detail"`
			Digest  canon.Digest   `json:"release"`
			Checks  []verify.Check `json:"checks"`
			Live    map[string]any `json:"live"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != c.status || got.Success == nil || *got.Success != (c.status == 200) ||
			(got.Detail != "") != (c.status != 200) || got.Digest.IsZero() || len(got.Checks) == 0 || got.Live["number"] != 2.0 {
			t.Errorf("sync of release %d: %v %d %s", c.offer, err, w.Code, w.Body)
		}
	}
}

// TestAnswersAreWhatTheDescriptionSays asks for every path and status of
// openapi.yaml that can be brought about, and holds the answers against it.
func TestAnswersAreWhatTheDescriptionSays(t *testing.T) {
	var doc map[string]any
	if err := yaml.Unmarshal(openapiText, &doc); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("openapi.json", parsed); err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{} // "METHOD /path status"
	for path, methods := range doc["paths"].(map[string]any) {
		for method, op := range methods.(map[string]any) {
			for status := range op.(map[string]any)["responses"].(map[string]any) {
				described[strings.ToUpper(method)+" "+path+" "+status] = true
			}
		}
	}
	// All that the server does is described, and nothing else.
	source, err := os.ReadFile("server.go")
	if err != nil {
		t.Fatal(err)
	}
	done := map[string]bool{}
	for _, m := range regexp.MustCompile(`"(GET|POST) (/\S*)":`).FindAllStringSubmatch(string(source), -1) {
		done[m[1]+" "+strings.TrimSuffix(m[2], "{$}")] = true
	}
	for key := range described {
		done[key[:strings.LastIndex(key, " ")]] = true
	}
	for op := range done {
		method, path, _ := strings.Cut(op, " ")
		methods, _ := doc["paths"].(map[string]any)[path].(map[string]any)
		if methods[strings.ToLower(method)] == nil {
			t.Errorf("%s is not described", op)
		}
		if path == "/events" {
			continue // never ends
		}
		if w := ask(newSite(t).Handler(false), method, path, "", ""); w.Code == 404 && !strings.Contains(path, "{") || w.Code == 405 {
			t.Errorf("%s is described, and answered by %d", op, w.Code)
		}
	}
	if len(done) < 14 {
		t.Errorf("only %d operations", len(done))
	}
	seen := map[string]bool{}
	s := newSite(t, func(o *Options) { o.Token = "a token of length" })
	handler := s.Handler(false)
	events := s.events.listen()
	check := func(method, path, mediaType, body string, header ...string) {
		t.Helper()
		w := ask(handler, method, path, mediaType, body, header...)
		pattern, _, _ := strings.Cut(path, "?")
		if rest, ok := strings.CutPrefix(pattern, "/models/"); ok && rest != "list" {
			pattern = "/models/{name}"
		}
		key := fmt.Sprintf("%s %s %d", method, pattern, w.Code)
		if !described[key] {
			t.Errorf("%s is not described: %s", key, w.Body)
			return
		}
		seen[key] = true
		op := "openapi.json#/paths/" + strings.NewReplacer("/", "~1").Replace(pattern) + "/" + strings.ToLower(method) + "/responses/" + fmt.Sprint(w.Code)
		response := doc["paths"].(map[string]any)[pattern].(map[string]any)[strings.ToLower(method)].(map[string]any)["responses"].(map[string]any)[fmt.Sprint(w.Code)].(map[string]any)
		if ref, ok := response["$ref"].(string); ok {
			op = "openapi.json" + ref
			response = doc["components"].(map[string]any)["responses"].(map[string]any)[filepath.Base(ref)].(map[string]any)
		}
		content, _ := response["content"].(map[string]any)
		got, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";")
		if content == nil && w.Body.Len() == 0 {
			return
		}
		media, ok := content[got].(map[string]any)
		if !ok {
			t.Errorf("%s: media type %q is not described", key, got)
			return
		}
		if media["schema"] == nil {
			return
		}
		schema, err := compiler.Compile(op + "/content/" + strings.ReplaceAll(strings.ReplaceAll(got, "/", "~1"), "+", "%2B") + "/schema")
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		values := [][]byte{w.Body.Bytes()}
		if got == "application/x-ndjson" {
			values = bytes.Split(bytes.TrimSpace(w.Body.Bytes()), []byte("\n"))
		}
		for _, b := range values {
			v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
			if err != nil {
				t.Errorf("%s: %v: %s", key, err, b)
			} else if err := schema.Validate(v); err != nil {
				t.Errorf("%s: %v\n%s", key, err, b)
			}
		}
	}
	all := func() {
		t.Helper()
		for _, path := range []string{"/", "/api/models", "/models/list", "/models/ip_reputation", "/stats", "/readyz", "/scores", "/page.css", "/page.js"} {
			check("GET", path, "", "")
		}
		check("POST", "/v1/score", "application/json", attack)
	}
	all()
	check("POST", "/api/models/sync", "", "")
	s.offer(2)
	check("POST", "/api/models/sync", "", "")
	check("POST", "/api/models/sync", "", "", "Accept", "text/html")
	all()
	w := s.do("GET", "/models/ip_reputation", "", "")
	check("GET", "/models/ip_reputation", "", "", "If-None-Match", w.Header().Get("ETag"))
	check("GET", "/models/other", "", "")
	check("GET", "/metrics", "", "")
	check("GET", "/openapi.yaml", "", "")
	check("GET", "/healthz", "", "")
	check("POST", "/v1/score", "application/json", "["+attack+",8,{\"attack_type\":\"backup_issue\"}]")
	check("POST", "/v1/score", "application/x-ndjson", attack+"\n{\"details\":\"x\"}\n8\n")
	check("POST", "/v1/score", "application/json", "{")
	check("POST", "/v1/score", "application/json", "8")
	check("POST", "/v1/score", "text/plain", strings.Repeat(" ", maxScoreBody+1))
	s.offer(1)
	check("POST", "/api/models/sync", "", "")
	all()
	s.write(s.policy, "version: 2\n")
	check("POST", "/api/models/sync", "", "")
	all()
	told := map[string]bool{}
	for s.events.flush(); len(events) > 0; {
		e := <-events
		told[e.name] = true
		schema, err := compiler.Compile("openapi.json#/paths/~1events/get/responses/200/x-events/" + e.name)
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(e.data))
		if err == nil {
			err = schema.Validate(v)
		}
		if err != nil {
			t.Errorf("event %s: %v\n%s", e.name, err, e.data)
		}
	}
	if len(told) != 3 {
		t.Errorf("events of the kinds %v", told)
	}
	for op := range done { // who may not ask at all
		method, path, _ := strings.Cut(op, " ")
		path = strings.Replace(path, "{name}", "ip_reputation", 1)
		check(method, path, "", "", "Host", "evil.example")
		if method == "POST" {
			check(method, path, "", "", "Sec-Fetch-Site", "cross-site")
		}
		handler = s.Handler(true)
		if path != "/healthz" && path != "/readyz" {
			check(method, path, "", "")
		}
		handler = s.Handler(false)
	}
	for key := range described {
		switch key {
		case "POST /api/models/sync 504", "GET /events 200", "GET /events 503":
			continue // minutes of waiting; tests of their own
		}
		if !seen[key] {
			t.Errorf("%s was not brought about", key)
		}
	}
	// The negative twin: an answer that the description does not allow.
	schema := compiler.MustCompile("openapi.json#/components/schemas/Finding")
	for _, bad := range []string{`{"line":1}`, `{"line":0,"release":"sha256:00","error":"x"}`, `{"line":1,"release":"sha256:` + strings.Repeat("0", 64) + `","error":"x","more":1}`} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(bad))
		if err == nil {
			err = schema.Validate(v)
		}
		if err == nil {
			t.Errorf("%s is a finding", bad)
		}
	}
}

func TestMetrics(t *testing.T) {
	s := newSite(t)
	s.offer(1)
	s.must(ResultInstalled)
	s.do("POST", "/v1/score", "application/x-ndjson", attack+"\n8\n")
	s.do("GET", "/no/such/path", "", "")
	text := s.do("GET", "/metrics", "", "").Body.String()
	for _, want := range []string{
		`bhagent_rows_total{outcome="scored"} 1`, `bhagent_rows_total{outcome="bad"} 1`, `bhagent_state{state="current"} 1`, `bhagent_state{state="refused"} 0`,
		`bhagent_release_number 1`, `bhagent_syncs_total{result="installed"} 1`, `bhagent_requests_total{method="POST",path="/v1/score",status="200"} 1`,
		`bhagent_requests_total{method="other",path="other",status="404"} 1`, `bhagent_channel_expires_timestamp_seconds 0`,
		`bhagent_build_info{goversion="` + runtime.Version() + `",version="v0"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestMetricsTellOfTheChannel: until when it holds, and the process.
func TestMetricsTellOfTheChannel(t *testing.T) {
	s := newSite(t)
	s.write(s.policy, s.withChannel())
	s.offer(1)
	s.announce(1, 1, time.Hour)
	s.must(ResultInstalled)
	expires, err := time.Parse(time.RFC3339, s.status.Load().Verdict.Channel.Expires)
	if err != nil {
		t.Fatal(err)
	}
	text := s.do("GET", "/metrics", "", "").Body.String()
	_, value, _ := strings.Cut(text, "\nbhagent_channel_expires_timestamp_seconds ")
	value, _, _ = strings.Cut(value, "\n")
	if got, err := strconv.ParseFloat(value, 64); err != nil || got != float64(expires.Unix()) {
		t.Errorf("expires %q, want %v", value, expires.Unix())
	}
	if runtime.GOOS == "linux" && !strings.Contains(text, "\nprocess_resident_memory_bytes ") {
		t.Error("nothing of the process")
	}
}

// TestTheLogTellsWhoWasTurnedAway: once, then how many, and no secret; and it
// tells of defects, which are counted.
func TestTheLogTellsWhoWasTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := New(Options{Token: "the right token", Log: slog.New(slog.NewTextHandler(&log, nil))})
		h := s.Handler(true)
		for range 50 {
			ask(h, "GET", "/api/models", "", "", "Authorization", "Bearer a wrong token")
		}
		if n := strings.Count(log.String(), "turned away"); n != 1 || !strings.Contains(log.String(), "status=401") || strings.Contains(log.String(), "token") {
			t.Errorf("%d lines: %s", n, log.String())
		}
		time.Sleep(turnedAwayEvery)
		ask(h, "GET", "/api/models", "", "")
		if !strings.Contains(log.String(), "others=49") {
			t.Errorf("a minute later: %s", log.String())
		}
		log.Reset()
		local := s.Handler(false)
		ask(local, "GET", "/stats", "", "", "Host", "evil.example")
		if !strings.Contains(log.String(), "status=421") || !strings.Contains(log.String(), "evil.example") {
			t.Errorf("another name: %s", log.String())
		}
		ask(local, "GET", "/healthz", "", "")
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("a good request: %s", log.String())
		}

		log.Reset()
		mux := http.NewServeMux()
		mux.HandleFunc("GET /x", func(http.ResponseWriter, *http.Request) { panic("no such index") })
		func() {
			defer func() {
				if r := recover(); r != http.ErrAbortHandler {
					t.Errorf("panics with %v", r)
				}
			}()
			ask(s.guard(mux, false), "GET", "/x", "", "")
		}()
		if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "no such index") || !strings.Contains(log.String(), "server_test.go") {
			t.Errorf("a defect: %s", log.String())
		}
		if got := ask(local, "GET", "/metrics", "", "").Body.String(); !strings.Contains(got, `bhagent_requests_total{method="GET",path="/x",status="500"} 1`) {
			t.Error("a defect is not counted")
		}
	})
}

// TestPageRunsOnlyItsOwn holds the content policy of every answer against the
// least that the page needs.
func TestPageRunsOnlyItsOwn(t *testing.T) {
	s := New(Options{})
	for _, path := range []string{"/", "/page.js", "/scores", "/api/models", "/nothing"} {
		got := map[string]string{}
		for d := range strings.SplitSeq(ask(s.Handler(false), "GET", path, "", "").Header().Get("Content-Security-Policy"), ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(d), " ")
			got[name] = value
		}
		want := map[string]string{
			"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' data:", "connect-src": "'self'",
			"form-action": "'self'", "base-uri": "'none'", "frame-ancestors": "'none'",
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: %v", path, got)
		}
	}
}

// TestNoRequestFailsOrMixesReleases scores from many clients while releases
// are swapped. Each release that is made live was loaded for it, so that one that
// is not freed shows in the memory of the process.
func TestNoRequestFailsOrMixesReleases(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	var pull [2]func() *agent.Scorer // loads the release anew
	var want [2]string               // the classes and scores that each release gives
	for n := range want {
		s.offer(n + 1)
		s.must(ResultInstalled)
		v, err := s.opt.Agent.Verifier(ctx, s.policy, true)
		if err != nil {
			t.Fatal(err)
		}
		in, err := s.opt.Agent.Status(ctx, v, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		pull[n] = func() *agent.Scorer {
			scorer, err := in.Scorer()
			if err != nil {
				t.Fatal(err)
			}
			return scorer
		}
		want[n] = s.do("POST", "/v1/score", "application/x-ndjson", strings.Repeat(attack+"\n", 20)).Body.String()
	}
	if want[0] == want[1] {
		t.Fatal("the releases do not differ")
	}
	clients, swaps := 50, 300
	if os.Getenv("BH_E2E") != "" {
		clients, swaps = 200, 1000
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- s.Run(run, Listener{Listener: l}) }()
	var seen [2]atomic.Int64
	done := make(chan struct{})
	var all sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	for range clients {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				r, err := client.Post("http://"+l.Addr().String()+"/v1/score", "application/x-ndjson", strings.NewReader(strings.Repeat(attack+"\n", 20)))
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(r.Body)
				r.Body.Close()
				switch n := slices.Index(want[:], string(b)); {
				case err != nil || r.StatusCode != 200 || n < 0:
					t.Errorf("%d %v %.300s", r.StatusCode, err, b)
					return
				default:
					seen[n].Add(1)
				}
			}
		})
	}
	var memory []int64 // MiB resident, all over the run
	for i := range swaps {
		s.load(pull[i%2](), time.Now())
		time.Sleep(time.Millisecond)
		if i%10 == 0 {
			memory = append(memory, resident(t)>>20)
		}
	}
	close(done)
	all.Wait()
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if seen[0].Load() == 0 || seen[1].Load() == 0 {
		t.Errorf("requests answered by each release: %d, %d", seen[0].Load(), seen[1].Load())
	}
	first, second := median(memory[:len(memory)/2]), median(memory[len(memory)/2:])
	t.Logf("%d swaps, %d and %d requests, median resident in the first half %d MiB, in the second %d MiB", swaps, seen[0].Load(), seen[1].Load(), first, second)
	// A release takes some 250 KiB, so one that is kept shows over 1,000 swaps.
	if float64(second) > 1.3*float64(first)+16 {
		t.Errorf("memory grows: %d MiB after %d MiB (%v)", second, first, memory)
	}
}

// resident is how many bytes this process has in memory; 0 where the system
// does not tell.
func resident(t *testing.T) int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	var size, pages int64
	if err == nil {
		_, err = fmt.Sscan(string(b), &size, &pages)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

func median(of []int64) int64 { return slices.Sorted(slices.Values(of))[len(of)/2] }

func TestOldReleaseIsFreedAfterItsLastUser(t *testing.T) {
	s := newSite(t)
	s.offer(1)
	s.must(ResultInstalled)
	user := s.live.Load()
	var freed atomic.Bool
	runtime.AddCleanup(user.Scorer, func(struct{}) { freed.Store(true) }, struct{}{})
	s.offer(2)
	s.must(ResultInstalled)
	runtime.GC()
	time.Sleep(50 * time.Millisecond)
	if freed.Load() {
		t.Error("freed while in use")
	}
	if _, err := user.Session().Each(strings.NewReader(attack), record.Attacks, record.Options{}, func(*agent.Finding) error { return nil }); err != nil {
		t.Error(err)
	}
	user = nil
	for range 100 {
		runtime.GC()
		if freed.Load() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("not freed after its last user")
}

func TestEventsShowASwap(t *testing.T) {
	s := newSite(t)
	s.offer(1)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Run(ctx, Listener{Listener: l}) }()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	}}}
	r, err := client.Get("http://agent/events")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	events := make(chan string, 100)
	go func() {
		defer close(events)
		for sc := bufio.NewScanner(r.Body); sc.Scan(); {
			if text, ok := strings.CutPrefix(sc.Text(), "data: "); ok {
				events <- text
			}
		}
	}()
	until := func(text string) {
		t.Helper()
		late := time.After(20 * time.Second)
		for {
			select {
			case e, more := <-events:
				if !more {
					t.Fatalf("the stream ended before %s", text)
				}
				if strings.Contains(e, text) {
					return
				}
			case <-late:
				t.Fatalf("no event with %s", text)
			}
		}
	}
	until(`"number":1`)
	s.offer(2)
	if got, err := client.Post("http://agent/api/models/sync", "", nil); err != nil || got.StatusCode != 200 {
		t.Fatalf("%v %v", got, err)
	}
	until(`"phase":"started"`)
	until(`"number":2`)
	if _, err := client.Post("http://agent/v1/score", "application/json", strings.NewReader(attack)); err != nil {
		t.Fatal(err)
	}
	until(`"rows":1`)
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	for range maxListeners {
		if s.events.listen() == nil {
			t.Fatal("listeners that left are kept")
		}
	}
	if w := s.do("GET", "/events", "", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("one listener too many: %d", w.Code)
	}
	for range waiting + 1 {
		s.events.send("x", 1)
	}
	if len(s.events.listeners) != 0 {
		t.Errorf("%d slow listeners are kept", len(s.events.listeners))
	}
}

// What can go wrong between an agent and a registry: it goes on with what it
// has, says that it is offline, and is current again afterwards.
func TestOutages(t *testing.T) {
	s := newSite(t, func(o *Options) { o.Store.Timeout = 300 * time.Millisecond })
	s.offer(1)
	s.must(ResultInstalled)
	good := s.opt.From
	server := func(h http.HandlerFunc) string {
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		return strings.TrimPrefix(srv.URL, "http://")
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	half, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { half.Close() })
	go func() {
		for {
			c, err := half.Accept()
			if err != nil {
				return
			}
			c.(*net.TCPConn).CloseWrite() // and never answers
			t.Cleanup(func() { c.Close() })
		}
	}()
	for name, host := range map[string]string{
		"nobody listens": closed.Addr().String(),
		"no such name":   "no-such-host.invalid:443",
		"half closed":    half.Addr().String(),
		"errors":         server(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }),
		"refusals":       server(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }),
		"slow bytes": server(func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.Write([]byte(" "))
				w.(http.Flusher).Flush()
				time.Sleep(100 * time.Millisecond)
			}
		}),
	} {
		s.opt.From = []oras.Ref{{Repository: host + "/models/web"}}
		s.must(ResultUnreachable)
		if st := s.status.Load(); st.State != agent.StateOffline || !st.Loaded || st.Reason == "" {
			t.Errorf("%s: %+v", name, st)
		}
		if w := s.do("POST", "/v1/score", "application/json", attack); w.Code != 200 {
			t.Errorf("%s: score: %d", name, w.Code)
		}
		if w := s.do("POST", "/api/models/sync", "", ""); w.Code != http.StatusBadGateway {
			t.Errorf("%s: sync: %d", name, w.Code)
		}
	}
	s.opt.From = good
	s.must(ResultCurrent)
	if st := s.status.Load(); st.State != agent.StateCurrent {
		t.Errorf("afterwards: %+v", st)
	}
}

func TestPausesGrowToTheInterval(t *testing.T) {
	var got []time.Duration
	for failures := range 8 {
		got = append(got, pause(10*time.Minute, failures))
	}
	want := []time.Duration{10 * time.Minute, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if d := pause(time.Second, 3); d != time.Second {
		t.Errorf("above a short interval: %v", d)
	}
	if d := pause(time.Hour, 1<<30); d != time.Hour {
		t.Errorf("after very many: %v", d)
	}
	low, high := false, false
	for range 1000 {
		d := jitter(time.Minute)
		if d < 54*time.Second || d > 66*time.Second {
			t.Fatalf("jitter %v", d)
		}
		low, high = low || d < 57*time.Second, high || d > 63*time.Second
	}
	if !low || !high {
		t.Error("jitter does not spread")
	}
}
