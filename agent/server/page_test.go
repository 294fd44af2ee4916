package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// TestPageCanBeReadWithoutItsScript reads what the server sends.
func TestPageCanBeReadWithoutItsScript(t *testing.T) {
	s := newSite(t)
	text := func() string { return s.do("GET", "/", "", "").Body.String() }
	if got := text(); !strings.Contains(got, "No release") {
		t.Errorf("before the first sync: %s", got)
	}
	s.offer(2)
	s.must(ResultInstalled)
	s.offer(1)
	s.must(ResultRefused)
	if w := s.do("POST", "/v1/score", "application/x-ndjson", strings.Repeat(attack+"\n", 30)); w.Code != 200 {
		t.Fatal(w.Body)
	}
	got := text()
	live := s.live.Load()
	for _, want := range []string{
		live.Release().Digest.String(), "threat_classifier", "provenance.dataset", "✓", "signed", "In use, and nothing newer is known.",
		"rollback", "exploits<br>", "11 classes", "sql_injection 30", "Records in ten seconds, by class", "−10 min", `<span>50</span>`, `<button type="submit">Sync models</button>`, `lang="en"`, `name="viewport"`,
	} {
		if !strings.Contains(strings.ReplaceAll(got, "Signed", "signed"), want) {
			t.Errorf("no %q in the page", want)
		}
	}
	for _, bad := range []string{"http://", "https://", " style=", " onclick", "<style", "//cdn"} {
		for _, line := range strings.Split(got, "\n") {
			if strings.Contains(line, bad) && !strings.Contains(line, "provenance.type") && !strings.Contains(line, "https://slsa.dev") {
				t.Errorf("%q in the page: %s", bad, line)
			}
		}
	}
	if n := len(regexp.MustCompile(`<script[^>]*src=`).FindAllString(got, -1)); n != 1 || strings.Count(got, "<script") != 1 {
		t.Error("a script other than the page's own file")
	}
	// What a registry can choose does not become markup.
	st := *s.status.Load()
	st.Reason = `<script>alert(1)</script>`
	s.status.Store(&st)
	if got := text(); strings.Contains(got, "<script>alert") || !strings.Contains(got, "&lt;script&gt;alert") {
		t.Error("a reason becomes markup")
	}
	for path, want := range map[string]string{"/page.css": "text/css", "/page.js": "text/javascript"} {
		if w := s.do("GET", path, "", ""); w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), want) {
			t.Errorf("%s: %d %s", path, w.Code, w.Header().Get("Content-Type"))
		}
	}
	if w := s.do("GET", "/page.html", "", ""); w.Code != http.StatusNotFound {
		t.Errorf("the template: %d", w.Code)
	}
}

// TestSyncByFormLeadsBackToThePage presses the button as a browser without
// script does.
func TestSyncByFormLeadsBackToThePage(t *testing.T) {
	s := newSite(t)
	s.offer(2)
	form := []string{"Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "Sec-Fetch-Site", "same-origin"}
	const media = "application/x-www-form-urlencoded"
	w := s.do("POST", "/api/models/sync", media, "", form...)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/#progress" {
		t.Fatalf("%d to %q", w.Code, w.Header().Get("Location"))
	}
	if got := s.do("GET", "/", "", "").Body.String(); !strings.Contains(got, "UTC: installed") {
		t.Errorf("the page does not tell the result: %s", got)
	}
	s.offer(1)
	s.do("POST", "/api/models/sync", media, "", form...)
	if got := s.do("GET", "/", "", "").Body.String(); !strings.Contains(got, "UTC: refused. refused: rollback") {
		t.Errorf("the page does not tell the refusal: %s", got)
	}
	form[3] = "cross-site"
	before := s.metrics.syncCount.Load()
	if w := s.do("POST", "/api/models/sync", media, "", append(form, "Origin", "https://elsewhere.example")...); w.Code != http.StatusForbidden {
		t.Errorf("a form of another site: %d", w.Code)
	}
	if s.metrics.syncCount.Load() != before {
		t.Error("a form of another site made a sync")
	}
	if w := s.do("POST", "/api/models/sync", "", "", "Accept", "*/*"); w.Code != http.StatusConflict || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/problem+json") {
		t.Errorf("a program: %d %s", w.Code, w.Header().Get("Content-Type"))
	}
}

// TestPageTellsHowFresh looks at the clock at several times.
func TestPageTellsHowFresh(t *testing.T) {
	issued := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	c := &verify.ChannelVerdict{Issued: verify.FormatTime(issued), Expires: verify.FormatTime(issued.Add(100 * time.Hour))}
	for after, want := range map[time.Duration]freshness{
		-time.Hour:                 {Left: "4 days left", Share: 100},
		0:                          {Left: "4 days left", Share: 100},
		75 * time.Hour:             {Left: "25 h left", Share: 25},
		99*time.Hour + time.Minute: {Left: "59 min left", Share: 0},
		100 * time.Hour:            {Left: "expired"},
		24 * 365 * time.Hour:       {Left: "expired"},
	} {
		f := freshnessOf(c, issued.Add(after))
		if f == nil || f.Left != want.Left || f.Share != want.Share {
			t.Errorf("after %v: %+v, want %+v", after, f, want)
		}
	}
	c.Expires = ""
	if f := freshnessOf(c, issued); f != nil {
		t.Errorf("a channel that nobody signed: %+v", f)
	}
}

// TestHistoryIsBounded notes more than is kept.
func TestHistoryIsBounded(t *testing.T) {
	s := New(Options{})
	const most = agent.MaxHistory
	for i := range 3 * most {
		s.note(agent.Happening{What: ResultInstalled, Number: int64(i), Detail: fmt.Sprint(i / 2)})
	}
	if len(s.recent) != most || s.recent[most-1].Number != 3*most-1 || s.recent[0].Times != 2 {
		t.Errorf("%d kept, the last %+v", len(s.recent), s.recent[len(s.recent)-1])
	}
}

// TestHistorySurvivesARestart: what the page told is told by the next process,
// and nothing that stands in the file instead does harm.
func TestHistorySurvivesARestart(t *testing.T) {
	var log strings.Builder
	s := newSite(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	s.offer(2)
	s.must(ResultInstalled)
	s.offer(1)
	s.must(ResultRefused)
	s.must(ResultRefused)
	restart := func() string {
		s.Server = New(s.opt)
		s.reload(context.Background(), nil)
		if s.live.Load() == nil {
			t.Error("nothing is loaded after a restart")
		}
		return s.do("GET", "/", "", "").Body.String()
	}
	history := func(page string) int { return strings.Count(page, "</span></li>") }
	got := restart()
	for _, want := range []string{"rollback: release number 1", "2 times in a row", "<b>installed</b> release 2"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q after a restart: %s", want, got)
		}
	}
	s.must(ResultRefused)
	if got := restart(); !strings.Contains(got, "3 times in a row") {
		t.Error("what happens again after a restart is not counted on")
	}

	file := filepath.Join(filepath.Dir(s.policy), "state", "history.jsonl")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSpace(string(good))+"\n", "\n")
	for name, c := range map[string]struct {
		text string
		want int
	}{
		"empty":    {"", 0},
		"garbage":  {"\x00\xff{]\nnull\n[]\n{}\n" + lines[0] + "{\"time\":\"yesterday\"}\n", 1},
		"foreign":  {`{"time":"2026-01-01T00:00:00Z","what":"<script>alert(1)</script>","good":true,"digest":"","number":1,"source":"","detail":"\u001b[2J","times":1}` + "\n", 1},
		"negative": {`{"time":"2026-01-01T00:00:00Z","what":"installed","good":true,"digest":"","number":-1,"source":"","detail":"","times":-1}` + "\n", 0},
		"many":     {strings.Repeat(lines[0]+lines[1], 100), agent.MaxHistory},
		"huge":     {strings.Repeat(lines[0], 1<<13), 0},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := restart()
		if n := history(got); n != c.want || strings.Contains(got, "<script>alert") || strings.Contains(got, "\x1b") {
			t.Errorf("%s: %d lines of history, want %d", name, n, c.want)
		}
		s.must(ResultRefused)
		if after, err := os.ReadFile(file); err != nil || len(after) > 1<<16 || !strings.HasSuffix(string(after), "\n") || !strings.Contains(string(after), "rollback") {
			t.Errorf("%s: %d bytes after the next sync: %v", name, len(after), err)
		}
	}

	// A file that cannot be written stops nothing, and the log says so once.
	if log.Len() == 0 || strings.Contains(log.String(), "history") {
		t.Fatalf("the log before: %s", log.String())
	}
	s.opt.Agent = agent.Open(filepath.Join(file, "no directory"))
	s.Server = New(s.opt)
	for range 3 {
		s.must(ResultFailed)
	}
	if n := strings.Count(log.String(), "history of syncs was not written down"); n != 1 {
		t.Errorf("said %d times that history is not written down: %s", n, log.String())
	}
}

// surf is a tab of Chromium at a page of a running server.
type surf struct {
	t          *testing.T
	tab        context.Context
	complaints []string // of the console
}

// browse opens a tab. It ends with the test.
func browse(t *testing.T) *surf {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		testkit.Missing(t, "chromium is not here")
	}
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(stop)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"), chromedp.NoSandbox)
	browser, closeBrowser := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(closeBrowser)
	tab, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	t.Cleanup(func() { chromedp.Cancel(tab) }) // which waits for the browser, and removes its folder
	b := &surf{t: t, tab: tab}
	chromedp.ListenTarget(tab, func(e any) {
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			b.complaints = append(b.complaints, e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			// The browser itself writes down that a sync was refused; the page shows it.
			if e.Entry.Level == log.LevelError && !strings.Contains(e.Entry.URL, "/api/models/sync") {
				b.complaints = append(b.complaints, e.Entry.Text+" "+e.Entry.URL)
			}
		}
	})
	// The first call ties the browser to its context, so it is one that lives on.
	if err := chromedp.Run(tab, chromedp.EmulateViewport(1200, 900)); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *surf) do(what string, actions ...chromedp.Action) {
	b.t.Helper()
	limited, done := context.WithTimeout(b.tab, 40*time.Second)
	defer done()
	if err := chromedp.Run(limited, actions...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// has waits until an element contains a text.
func has(selector, text string) chromedp.Action {
	return chromedp.Poll(fmt.Sprintf(`document.querySelector(%q)?.textContent.includes(%q)`, selector, text), nil, chromedp.WithPollingInterval(50*time.Millisecond))
}

// shot puts a picture of the page into the folder that BH_SHOTS names.
func (b *surf) shot(name string) {
	folder := os.Getenv("BH_SHOTS")
	if folder == "" {
		return
	}
	var png []byte
	b.do(name, chromedp.FullScreenshot(&png, 100))
	if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func scheme(name string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		return emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}).Do(ctx)
	})
}

// accessible has axe look for what keeps people out: on a desk and on a phone,
// light and dark. It takes pictures, and leaves the page wide and light.
func (b *surf) accessible(name string) {
	b.t.Helper()
	axe, err := os.ReadFile(filepath.Join(testkit.NodeModules(b.t), "axe-core", "axe.min.js"))
	if err != nil {
		b.t.Fatal(err)
	}
	const run = `axe.run().then(r => r.violations.map(v => v.impact + " " + v.id + ": " + v.help + " " + v.nodes.map(n => n.target + " " + (n.any[0]?.message ?? "")).join("; ")))`
	promise := func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }
	for _, width := range []int64{1200, 700, 360} {
		for _, colors := range []string{"light", "dark"} {
			var found []string
			var over string
			b.do(name, scheme(colors), chromedp.EmulateViewport(width, 844))
			b.shot(fmt.Sprintf("%s-%d-%s", name, width, colors))
			// What is folded away is looked at too.
			b.do(name, chromedp.Evaluate(`window.folded = [...document.querySelectorAll("details:not([open])")]; window.folded.forEach(d => d.open = true)`, nil), chromedp.Evaluate(string(axe)+";0", nil), chromedp.Evaluate(run, &found, promise),
				chromedp.Evaluate(`document.documentElement.scrollWidth > innerWidth ? "the page" : [...document.querySelectorAll(".wide")].filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent.slice(0, 40)).join()`, &over))
			for _, f := range found {
				b.t.Errorf("%s, %d wide, %s: %s", name, width, colors, f)
			}
			if over != "" {
				b.t.Errorf("%s, %d wide: %s must be scrolled sideways", name, width, over)
			}
			b.do(name, chromedp.Evaluate(`window.folded.forEach(d => d.open = false)`, nil))
		}
	}
	// It would have found something.
	var found []string
	b.do(name, scheme("light"), chromedp.EmulateViewport(1200, 900), chromedp.Evaluate(`document.documentElement.removeAttribute("lang")`, nil),
		chromedp.Evaluate(run, &found, promise), chromedp.Evaluate(`document.documentElement.lang = "en"`, nil))
	if len(found) != 1 || !strings.Contains(found[0], "html-has-lang") {
		b.t.Errorf("%s without its language: %q", name, found)
	}
}

func (b *surf) quiet() {
	b.t.Helper()
	for _, c := range b.complaints {
		b.t.Errorf("the console says: %s", c)
	}
}

// serve runs the server on a port of its own, has it loaded what is offered, and
// returns its address. It ends with the test.
func (s *site) serve() (context.Context, string) {
	s.t.Helper()
	ctx, address := s.listen()
	for s.Sync(ctx).Result != ResultCurrent {
		// the one at the start, joined
	}
	return ctx, address
}

// listen runs the server on a port of its own and returns its address. It ends
// with the test.
func (s *site) listen() (context.Context, string) {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Run(ctx, Listener{Listener: l}) }()
	s.t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			s.t.Error(err)
		}
	})
	return ctx, "http://" + l.Addr().String()
}

// TestPageInABrowser presses the button and watches, in Chromium.
func TestPageInABrowser(t *testing.T) {
	b := browse(t)
	do := b.do
	s := newSite(t)
	s.offer(1)
	ctx, address := s.serve()
	do("reading", chromedp.Navigate(address), has("h1", "release 1"), has("#state", "current"))

	// The button, twice: something new, and nothing new. A refusal is shown.
	s.offer(2)
	do("a new release", chromedp.Click("#sync button"), has("#progress", "Release 2 is in use now"), has("h1", "release 2"))
	do("nothing new", chromedp.Click("#sync button"), has("#progress", "in use already"))
	s.offer(1)
	do("a refusal", chromedp.Click("#sync button"), has("#progress", "rollback"), has(".history", "rollback"), has("h1", "release 2"))

	// Scores, and a swap that nobody at this page asked for.
	client := &http.Client{}
	r, err := client.Post(address+"/v1/score", "application/x-ndjson", strings.NewReader(strings.Repeat(attack+"\n", 30)))
	if err != nil || r.StatusCode != 200 {
		t.Fatalf("%v %v", r, err)
	}
	do("scores", has("#scores", "sql_injection"), has("#scores-sum", "30 records"))
	s.write(s.policy, strings.Replace(s.published.policy, "bhtrain", "another", 1))
	s.reload(ctx, nil)
	do("a refused release", has("#state", "refused"), has("#state", "product"), has("h1", "No release"))
	s.write(s.policy, s.published.policy)
	s.reload(ctx, nil)
	do("and back", has("#state", "current"), has("h1", "release 2"), has("#scores-sum", "30 records"))

	// By keyboard.
	do("the keyboard", chromedp.Evaluate(`document.querySelector("#sync button").focus()`, nil), chromedp.KeyEvent("\r"), has("#progress", "rollback"))
	// Checks that were skipped are shown too, when asked for, and stay so.
	var seen bool
	do("skipped checks", chromedp.Click("#unasked summary"), chromedp.Click("#numbers summary"), chromedp.Click("#sync button"), has("#progress", "rollback"),
		chromedp.WaitVisible("#unasked tr.skip"), chromedp.Evaluate(`[...document.querySelectorAll("tr.skip")].length > 5 && [...document.querySelectorAll("tbody tr")].every(r => r.getBoundingClientRect().left >= 0 && r.offsetHeight > 0)`, &seen))
	if !seen {
		t.Error("rows of the tables are not shown")
	}
	do("the chart", has("#live .key", "sql_injection"), has("#live .y", "50"), has("#live .x", "−10 min"), has("#minutes", "sql_injection 30"),
		chromedp.WaitVisible("#minutes th"))
	again, err := client.Post(address+"/v1/score", "application/x-ndjson", strings.NewReader(strings.Repeat(attack+"\n", 30)))
	if err != nil || again.StatusCode != 200 {
		t.Fatalf("%v %v", again, err)
	}
	do("more of it, with the table left open", has("#scores-sum", "60 records"), has("#scores", "60"), chromedp.WaitVisible("#minutes th"))
	// A digest is copied, or at least said, whole.
	do("a digest", chromedp.Click(".card button.digest", chromedp.NodeVisible), has("#progress", s.live.Load().Release().Digest.String()))
	b.accessible("plain")
	b.quiet()
}

// TestPageInABrowserWithoutScript syncs by the form alone.
func TestPageInABrowserWithoutScript(t *testing.T) {
	b := browse(t)
	s := newSite(t)
	s.offer(1)
	_, address := s.serve()
	off := chromedp.ActionFunc(func(ctx context.Context) error { return emulation.SetScriptExecutionDisabled(true).Do(ctx) })
	var text string
	read := chromedp.Text("body", &text)
	b.do("reading", off, chromedp.Navigate(address), chromedp.WaitVisible("h1"), read)
	if !strings.Contains(text, "release 1") || !strings.Contains(text, "provenance.dataset") {
		t.Errorf("the page without script: %s", text)
	}
	s.offer(2)
	b.do("the button", chromedp.Click("#sync button"), chromedp.WaitVisible("#progress:target"), read)
	if !strings.Contains(text, "release 2") || !strings.Contains(text, ": installed") {
		t.Errorf("after a sync: %s", text)
	}
	s.offer(1)
	b.do("the button, for a refusal", chromedp.Click("#sync button"), chromedp.WaitVisible(".history .fail"), read)
	if !strings.Contains(text, "refused: rollback") {
		t.Errorf("after a refusal: %s", text)
	}
	b.quiet()
}

// TestPageShowsChannelAndAuditors shows what a stricter policy finds out: a
// signed channel, and what operators who rebuild have said. The second is made
// here, since the page only shows it.
func TestPageShowsChannelAndAuditors(t *testing.T) {
	b := browse(t)
	s := newSite(t)
	s.offer(1)
	signer, err := sign.DefaultKey("")
	if err != nil {
		t.Fatal(err)
	}
	policy := s.published.policy + "channel:\n  name: stable\n  epoch: 1\n  signers:\n" + strings.TrimPrefix(s.published.policy[strings.Index(s.published.policy, "publishers:\n"):], "publishers:\n")
	s.write(s.policy, indentSigners(policy))
	announce := func(sequence int64, valid time.Duration) {
		t.Helper()
		ctx := context.Background()
		store, err := oras.Open(ctx, oras.Ref{Layout: s.from}, oras.Options{Write: true})
		if err != nil {
			t.Fatal(err)
		}
		d, err := store.Resolve(ctx, oras.TagLatest)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		st, err := verify.NewChannel(verify.Channel{Product: verify.DefaultProduct, Channel: "stable", Epoch: 1, Sequence: sequence, Release: 1, Manifest: d.Digest, Lowest: 1,
			Issued: verify.FormatTime(now.Add(-time.Hour)), Expires: verify.FormatTime(now.Add(valid))})
		if err != nil {
			t.Fatal(err)
		}
		bundle, err := signer.Sign(ctx, st)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := oras.PutChannel(ctx, store, "stable", bundle); err != nil {
			t.Fatal(err)
		}
	}
	announce(3, 40*time.Hour+30*time.Second)
	ctx, address := s.serve()
	b.do("fresh", chromedp.Navigate(address), has("#state", "current"), has("#left", "40 h left"), has(".cards", "Channel “stable” names the same"), has(".cards", "sequence 3"))

	st := *s.status.Load()
	v := *st.Verdict
	other := canon.Sum([]byte("another"))
	v.Rebuilds = []verify.Rebuild{
		{Operator: "Example University", Result: "pass", Obtained: st.Release.Digest, Finished: "2026-11-27T08:00:00Z", OS: "linux", Arch: "arm64"},
		{Operator: "Example Cooperative", Result: "fail", Obtained: other, Finished: "2026-11-27T09:30:00Z", OS: "linux", Arch: "amd64"},
		{Operator: "Example Agency", Reason: "nothing found at registry.example.org/audits"},
	}
	st.Verdict = &v
	st.Decisions = []agent.Decision{{Time: time.Now(), What: "pin", Release: st.Release.Digest, Reason: "until the audit of November is done"}}
	s.status.Store(&st)
	b.do("auditors", chromedp.Navigate(address), has("[aria-labelledby=h-auditors]", "Example University"), has("[aria-labelledby=h-auditors] tr.pass", "✓"),
		has("[aria-labelledby=h-auditors] tr.fail", "✗"), has("[aria-labelledby=h-auditors] tr.skip", "nothing found"))
	b.accessible("channel")

	// The same channel, expired: in use, but stale, and told from fresh.
	announce(4, -time.Minute)
	s.Sync(ctx)
	b.do("stale", has("#state.bad", "stale"), has("#left", "expired"))
	b.quiet()
}

// TestPageShowsHowFarASyncIs opens the page while a mirror keeps the agent
// waiting.
func TestPageShowsHowFarASyncIs(t *testing.T) {
	b := browse(t)
	g := newGate(t)
	s := newSite(t, func(o *Options) { o.From = append([]oras.Ref{g.ref}, o.From...) })
	s.offer(1)
	_, address := s.listen()
	<-g.came
	b.do("waiting", chromedp.Navigate(address), has("#progress", "Asking "+g.ref.String()))
	var shown, hidden bool
	b.do("bytes", chromedp.Evaluate(`phase({ phase: "fetch", source: "x", done: 1234, total: 120000 })`, nil), has("#progress", "Fetching"), has("#bytes", "of 120\u202f000 bytes"),
		chromedp.Evaluate(`document.getElementById("bytes").offsetHeight > 0 && document.querySelector("#bytes progress").value === 1234 && !document.querySelector("#bytes").closest("[role=status]")`, &shown))
	b.shot("fetching")
	close(g.open)
	b.do("the end", has("#progress", "Release 1 is in use now"), has("h1", "release 1"), chromedp.Evaluate(`document.getElementById("bytes").offsetHeight === 0`, &hidden))
	if !shown || !hidden {
		t.Errorf("bytes shown %t, hidden in the end %t", shown, hidden)
	}
	b.quiet()
}

// TestPageOfEveryState has people look at what is wrong: nothing installed,
// refused, expired, revoked.
func TestPageOfEveryState(t *testing.T) {
	b := browse(t)
	s := newSite(t)
	s.write(s.policy, s.withChannel())
	ctx, address := s.listen()
	b.do("none", chromedp.Navigate(address), has("#state.bad", "none"), has("h1", "No release"), has(".history", "unreachable"))
	b.accessible("none")

	s.offer(1)
	s.announce(1, 1, time.Hour)
	b.do("installed", chromedp.Click("#sync button"), has("#progress", "Release 1 is in use now"), has("#state.good", "current"))
	s.write(s.policy, strings.Replace(s.withChannel(), "channel:", "max_bytes: 1000\nchannel:", 1))
	s.reload(ctx, nil)
	b.do("refused", has("#state.bad", "refused"), has("#unused", "release 1"), has(".sum", "1 failed"), has("tr.fail", "release.size"))
	b.accessible("refused")

	s.write(s.policy, s.withChannel())
	s.announce(2, 1, -time.Minute)
	s.Sync(ctx)
	b.do("stale", has("#state.bad", "stale"), has("#left", "expired"), has("h1", "release 1"))
	b.accessible("stale")

	s.announce(3, 1, time.Hour, 1)
	b.do("revoked", chromedp.Click("#sync button"), has("#progress", "revoked"), has("#state.bad", "revoked"), has("#state", "flags every health check"), has("#unused", "release 1"))
	b.accessible("revoked")
	b.quiet()
}

// indentSigners moves the identities of signers below it.
func indentSigners(policy string) string {
	before, after, _ := strings.Cut(policy, "  signers:\n")
	var b strings.Builder
	for line := range strings.Lines(after) {
		b.WriteString("  " + line)
	}
	return before + "  signers:\n" + b.String()
}
