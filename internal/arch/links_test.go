package arch_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

var (
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)
	notAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// deadLinks returns the relative links in the text of the document at path
// that lead to no file, or to no heading of one.
func deadLinks(path, text string) []string {
	var dead []string
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
			continue
		}
		file, anchor, _ := strings.Cut(m[1], "#")
		target, in := path, text
		if file != "" {
			target = filepath.Join(filepath.Dir(path), filepath.FromSlash(file))
			b, err := os.ReadFile(target)
			if info, serr := os.Stat(target); err != nil && (serr != nil || !info.IsDir()) {
				dead = append(dead, fmt.Sprintf("%s: no such file", m[1]))
				continue
			}
			in = string(b)
		}
		if anchor == "" {
			continue
		}
		found := false
		for _, h := range heading.FindAllStringSubmatch(in, -1) {
			words := strings.ToLower(notAnchor.ReplaceAllString(h[1], ""))
			found = found || strings.ReplaceAll(words, " ", "-") == anchor
		}
		if !found {
			dead = append(dead, fmt.Sprintf("%s: no such heading", m[1]))
		}
	}
	return dead
}

func TestLinksOfTheDocumentsLeadSomewhere(t *testing.T) {
	root := testkit.Root(t)
	documents := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		documents++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, dead := range deadLinks(path, string(b)) {
			t.Errorf("%s: %s", path, dead)
		}
		return nil
	})
	if err != nil || documents < 10 {
		t.Errorf("%d documents: %v", documents, err)
	}
}

func TestDeadLinksAreSeen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.md")
	text := "# One, two\n[here](#one-two) [web](https://example.org/x) [me](a.md#one-two) [gone](b.md) [not](#three) [nor](a.md#three)\n"
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	want := "b.md: no such file;#three: no such heading;a.md#three: no such heading"
	if got := strings.Join(deadLinks(path, text), ";"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
