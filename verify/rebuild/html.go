package rebuild

import (
	_ "embed"
	"html/template"
	"io"
	"sync"
)

//go:embed report.html
var pageText string

var page = sync.OnceValue(func() *template.Template { return template.Must(template.New("report").Parse(pageText)) })

// WriteHTML writes the report as one page that holds all it needs and runs no script.
func (r *Report) WriteHTML(w io.Writer) error { return page().Execute(w, r) }

// Line is one node of two trees side by side.
type Line struct {
	Node               int
	Published, Rebuilt string
	Differs            bool
}

// Lines are the nodes shown.
func (t TreeDifference) Lines() []Line {
	var lines []Line
	for i := range max(len(t.Published), len(t.Rebuilt)) {
		a, b := at(t.Published, i), at(t.Rebuilt, i)
		lines = append(lines, Line{t.From + i, a, b, a != b})
	}
	return lines
}
