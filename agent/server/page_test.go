package server

import (
	"context"
	"fmt"
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

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
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
	got := text()
	live := s.live.Load()
	for _, want := range []string{
		live.Release().Digest.String(), "threat_classifier", "provenance.dataset", "✓", "signed", "In use, and nothing newer is known.",
		"rollback", "exploits and", "sql_injection", `<button type="submit">Sync models</button>`, `lang="en"`, `name="viewport"`,
	} {
		if !strings.Contains(strings.ReplaceAll(got, "Signed", "signed"), want) {
			t.Errorf("no %q in the page", want)
		}
	}
	for _, bad := range []string{"http://", "https://", " style=", " onclick", "<style", "//cdn"} {
		for _, line := range strings.Split(got, "\n") {
			if strings.Contains(line, bad) && !strings.Contains(line, "provenance.type") {
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

// TestPageInABrowser presses the button and watches, in Chromium. BH_SHOTS
// names a folder to put pictures of the page in.
func TestPageInABrowser(t *testing.T) {
	if _, err := exec.LookPath("chromium"); err != nil {
		testkit.Missing(t, "chromium is not here")
	}
	s := newSite(t)
	s.offer(1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- s.Run(ctx, Listener{Listener: l}) }()
	for s.Sync(ctx).Result != ResultCurrent {
		// the one at the start, joined
	}

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()))
	browser, closeBrowser := chromedp.NewExecAllocator(ctx, options...)
	defer closeBrowser()
	tab, closeTab := chromedp.NewContext(browser)
	defer closeTab()
	var complaints []string
	chromedp.ListenTarget(tab, func(e any) {
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			complaints = append(complaints, e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			// The browser itself writes down that a sync was refused; the page shows it.
			if e.Entry.Level == log.LevelError && !strings.Contains(e.Entry.URL, "/api/models/sync") {
				complaints = append(complaints, e.Entry.Text+" "+e.Entry.URL)
			}
		}
	})
	do := func(what string, actions ...chromedp.Action) {
		t.Helper()
		limited, done := context.WithTimeout(tab, 40*time.Second)
		defer done()
		if err := chromedp.Run(limited, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	has := func(selector, text string) chromedp.Action {
		return chromedp.Poll(fmt.Sprintf(`document.querySelector(%q)?.textContent.includes(%q)`, selector, text), nil, chromedp.WithPollingInterval(50*time.Millisecond))
	}
	shot := func(name string) {
		folder := os.Getenv("BH_SHOTS")
		if folder == "" {
			return
		}
		var png []byte
		do(name, chromedp.FullScreenshot(&png, 100))
		if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// The first call ties the browser to its context, so it is one that lives on.
	if err := chromedp.Run(tab, chromedp.EmulateViewport(1200, 900), chromedp.Navigate("http://"+l.Addr().String()+"/")); err != nil {
		t.Fatal(err)
	}
	do("reading", has("h1", "release 1"), has("#state", "current"))

	// The button, twice: something new, and nothing new. A refusal is shown.
	s.offer(2)
	do("a new release", chromedp.Click("#sync button"), has("#progress", "Release 2 is in use now"), has("h1", "release 2"))
	do("nothing new", chromedp.Click("#sync button"), has("#progress", "in use already"))
	s.offer(1)
	do("a refusal", chromedp.Click("#sync button"), has("#progress", "rollback"), has(".history", "rollback"), has("h1", "release 2"))

	// Scores, and a swap that nobody at this page asked for.
	client := &http.Client{}
	r, err := client.Post("http://"+l.Addr().String()+"/v1/score", "application/x-ndjson", strings.NewReader(strings.Repeat(attack+"\n", 30)))
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
	// Checks that were skipped are shown too.
	var seen bool
	do("skipped checks", chromedp.Evaluate(`[...document.querySelectorAll("tr.skip")].length > 5 && [...document.querySelectorAll("tbody tr")].every(r => r.getBoundingClientRect().left >= 0 && r.offsetHeight > 0)`, &seen))
	if !seen {
		t.Error("rows of the tables are not shown")
	}
	var wide bool
	shot("light")
	do("dark", chromedp.ActionFunc(func(ctx context.Context) error {
		return emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}).Do(ctx)
	}))
	shot("dark")
	do("a phone", chromedp.EmulateViewport(390, 844), chromedp.Evaluate(`document.documentElement.scrollWidth > window.innerWidth`, &wide))
	shot("phone")
	if wide {
		t.Error("the page is wider than a phone")
	}
	for _, c := range complaints {
		t.Errorf("the console says: %s", c)
	}
	stop()
	<-served
}
