package card

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/trainer"
)

// page is what a reader of the HTML can check without a browser.
type page struct {
	ids      []string
	refs     []string // what href, aria-labelledby and such name
	problems []string
	tables   int
	plots    int
}

// readPage reads a page as XML: every element that is opened must be closed,
// which browsers do not ask for, and hostile text cannot do.
func readPage(b []byte) (*page, error) {
	p := new(page)
	bad := func(format string, a ...any) { p.problems = append(p.problems, fmt.Sprintf(format, a...)) }
	alone := regexp.MustCompile(`<(meta|br)\b([^>]*)>`)
	d := xml.NewDecoder(bytes.NewReader(alone.ReplaceAll(b, []byte("<$1$2/>"))))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if e, ok := tok.(xml.StartElement); ok {
			name := e.Name.Local
			attr := map[string]string{}
			for _, a := range e.Attr {
				attr[a.Name.Local] = a.Value
				if strings.HasPrefix(a.Name.Local, "on") || slices.Contains([]string{"style", "src", "srcset", "data", "action", "formaction", "background", "poster"}, a.Name.Local) {
					bad("<%s> has the attribute %s", name, a.Name.Local)
				}
			}
			if slices.Contains([]string{"script", "iframe", "object", "embed", "link", "base", "form", "img", "image", "use", "foreignObject", "video", "audio"}, name) {
				bad("element <%s>", name)
			}
			if id, ok := attr["id"]; ok {
				if slices.Contains(p.ids, id) {
					bad("id %q twice", id)
				}
				p.ids = append(p.ids, id)
			}
			if h, ok := attr["href"]; ok {
				if !strings.HasPrefix(h, "#") {
					bad("a link to %s", h)
				}
				p.refs = append(p.refs, strings.TrimPrefix(h, "#"))
			}
			p.refs = append(p.refs, strings.Fields(attr["aria-labelledby"])...)
			switch name {
			case "html":
				if attr["lang"] == "" {
					bad("no language")
				}
			case "th":
				if attr["scope"] != "col" && attr["scope"] != "row" {
					bad("a heading cell without scope")
				}
			case "table":
				p.tables++
			case "svg":
				switch {
				case attr["class"] == "plot" && attr["role"] == "img" && len(strings.Fields(attr["aria-labelledby"])) == 2:
					p.plots++
				case attr["aria-hidden"] != "true":
					bad("a picture that says nothing to who cannot see it")
				}
			}
		}
	}
	for _, r := range p.refs {
		if !slices.Contains(p.ids, r) {
			bad("reference to %q, which is not there", r)
		}
	}
	return p, nil
}

func htmlOf(t testing.TB, c *Card) []byte {
	t.Helper()
	b, err := c.HTML()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPageIsWholeAndLoadsNothing(t *testing.T) {
	b := htmlOf(t, newCard(t))
	p, err := readPage(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range p.problems {
		t.Error(problem)
	}
	if p.plots != 5 || p.tables < 12 {
		t.Errorf("%d plots and %d tables", p.plots, p.tables)
	}
	for _, forbidden := range []string{"url(", "@import", "http://", "https://", "javascript:"} {
		if bytes.Contains(b, []byte(forbidden)) {
			t.Errorf("the page has %q", forbidden)
		}
	}
	for _, broken := range []string{
		"<script>1</script>", `<p onclick="x">`, `<a href="https://example.org">x</a>`, `<img alt="x">`, "<table><tr><th>x</th></tr></table>",
		`<div id="files"></div>`, `<svg class="plot"></svg>`, "<p>", `<a href="#nowhere">x</a>`, `<i style="color:red"></i>`,
	} {
		p, err := readPage(bytes.Replace(b, []byte("</main>"), []byte(broken+"</main>"), 1))
		if err == nil && len(p.problems) == 0 {
			t.Errorf("%s is not found", broken)
		}
	}
}

// A policy that does not name the hash of the style sheet shows a bare page.
func TestPolicyAllowsTheStyleSheetAndNothingElse(t *testing.T) {
	b := htmlOf(t, newCard(t))
	sheet := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindSubmatch(b)
	policy := regexp.MustCompile(`http-equiv="Content-Security-Policy" content="([^"]*)"`).FindSubmatch(b)
	if sheet == nil || policy == nil {
		t.Fatal("no style sheet or no policy")
	}
	text := strings.NewReplacer("&#39;", "'", "&#43;", "+").Replace(string(policy[1]))
	sum := sha256.Sum256(sheet[1])
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"
	if text != want {
		t.Errorf("policy %q, want %q", text, want)
	}
	if policyAt, styleAt := bytes.Index(b, policy[0]), bytes.Index(b, sheet[0]); policyAt > styleAt {
		t.Error("the policy comes after what it is about")
	}
}

func TestPlotsAreOfIntegers(t *testing.T) {
	number := regexp.MustCompile(`-?[0-9.]+`)
	attribute := regexp.MustCompile(` (viewBox|d|points|x|y|cx|cy|r|width|height|transform)="([^"]*)"`)
	seen := 0
	for _, m := range attribute.FindAllSubmatch(htmlOf(t, newCard(t)), -1) {
		for _, n := range number.FindAll(m[2], -1) {
			v, err := strconv.Atoi(string(n))
			if err != nil || v < -90 || v > 4000 {
				t.Errorf("%s", m[0])
			}
			seen++
		}
	}
	if seen < 500 {
		t.Errorf("%d numbers seen", seen)
	}
}

func TestPlotsShowTheirPoints(t *testing.T) {
	curve := [][2]int64{{0, 0}, {250_000, 500_000}, {million, million}}
	roc := string(rocPlot("r", "model", curve, 750_000, operating{[2]int64{250_000, 500_000}, true}))
	for _, want := range []string{
		`points="520,3120 1270,1620 3520,120"`, `cx="1270" cy="1620"`, "ROC curve of the model", "The area under it is 0.7500",
		"at most 1% false alarms allow 0% detected", "As used: 50% detected at 25% false alarms",
	} {
		if !strings.Contains(strings.ToLower(roc), strings.ToLower(want)) {
			t.Errorf("no %q in %s", want, roc)
		}
	}
	if s := string(rocPlot("r", "model", curve, 750_000, operating{})); strings.Contains(s, "circle") || strings.Contains(s, "As used") {
		t.Errorf("a point that is not known: %s", s)
	}
	if rocPlot("r", "model", nil, 0, operating{}) != "" || calibrationPlot("c", "model", nil, 0) != "" {
		t.Error("a plot of nothing")
	}
	calibration := string(calibrationPlot("c", "model", []trainer.Reliability{
		{Rows: 100, ConfidencePPM: 333_334, AccuracyPPM: 0}, {Rows: 400, ConfidencePPM: million, AccuracyPPM: 900_000},
	}, 12_300))
	for _, want := range []string{
		`points="1520,3120 3520,420"`, `<rect class="rows" x="1535" y="2932" width="170" height="188"/>`, `<rect class="rows" x="3335" y="2370" width="170" height="750"/>`,
		`r="45"`, `r="65"`, "2 ranges with 500 rows", "mean distance is 1.23%",
	} {
		if !strings.Contains(calibration, want) {
			t.Errorf("no %s in %s", want, calibration)
		}
	}
	for n := range int64(2000) {
		if r := root(n); r*r > n || (r+1)*(r+1) <= n {
			t.Fatalf("root of %d is %d", n, r)
		}
	}
}

func TestMarkdownTablesAreWhole(t *testing.T) {
	b, err := newCard(t).Markdown()
	if err != nil {
		t.Fatal(err)
	}
	cells, tables := 0, 0
	for i, line := range strings.Split(string(b), "\n") {
		if !strings.HasPrefix(line, "|") {
			cells = 0
			continue
		}
		n := strings.Count(line, "|")
		if cells == 0 {
			cells = n
			tables++
		}
		if n != cells || !strings.HasSuffix(line, "|") {
			t.Errorf("line %d has %d cells, the table %d: %s", i+1, n-1, cells-1, line)
		}
	}
	if tables < 14 {
		t.Errorf("%d tables", tables)
	}
	if strings.Contains(string(b), "<no value>") || strings.Contains(string(b), "%!") {
		t.Error("a value is missing")
	}
	if head, rest, ok := strings.Cut(strings.TrimPrefix(string(b), "---\n"), "\n---\n"); !ok || !strings.Contains(head, "model-index:") || !strings.HasPrefix(rest, "\n# bhtrain release 7\n") {
		t.Error("no metadata head before the title")
	}
}
