package oras

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func TestParseRef(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{"dist", "reg.example.org/models", "with:colon"} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	d := canon.Sum(nil)
	at := "@" + d.String()
	for in, want := range map[string]Ref{
		"dist":                            {Layout: "dist"},
		"./dist/":                         {Layout: "dist"},
		"new":                             {Layout: "new"},
		"./a/new":                         {Layout: "a/new"},
		"../new":                          {Layout: "../new"},
		"/abs/new":                        {Layout: "/abs/new"},
		"with:colon":                      {Layout: "with:colon"},
		"reg.example.org/models":          {Layout: "reg.example.org/models"}, // the directory exists
		"oci-layout:dist":                 {Layout: "dist"},
		"oci-layout:with:colon":           {Layout: "with:colon"},
		"oci-layout:dist:release-1":       {Layout: "dist", Tag: "release-1"},
		"oci-layout:dist" + at:            {Layout: "dist", Digest: d},
		"oci-layout:a/b:v1" + at:          {Layout: "a/b", Tag: "v1", Digest: d},
		"oci-layout:a:1/b":                {Layout: "a:1/b"},
		"oci-layout:a:1/":                 {Layout: "a:1"},
		"oci-layout:a:1/:v1":              {Layout: "a:1", Tag: "v1"},
		"oci-layout:a@1/" + at:            {Layout: "a@1", Digest: d},
		"oci://reg.example.org/models":    {Repository: "reg.example.org/models"},
		"oci://host:443/models/web":       {Repository: "host:443/models/web"},
		"reg.example.org/models/web":      {Repository: "reg.example.org/models/web"},
		"reg.example.org:5000/web:latest": {Repository: "reg.example.org:5000/web", Tag: "latest"},
		"localhost/web:1":                 {Repository: "localhost/web", Tag: "1"},
		"127.0.0.1:5000/web" + at:         {Repository: "127.0.0.1:5000/web", Digest: d},
		"[::1]:5000/web:x":                {Repository: "[::1]:5000/web", Tag: "x"},
		"reg.example.org/web:1" + at:      {Repository: "reg.example.org/web", Tag: "1", Digest: d},
	} {
		if filepath.Separator != '/' {
			want.Layout = filepath.FromSlash(want.Layout)
		}
		got, err := ParseRef(in)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", in, got, err, want)
			continue
		}
		if got.Tag != "" && !got.Digest.IsZero() {
			got.Tag = "" // String leaves out what does not count
		}
		if back, err := ParseRef(got.String()); err != nil || back != got {
			t.Errorf("%s: %s reads back as %+v, %v", in, got, back, err)
		}
	}
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"oci://REG.example.org/web:1":        "oci://reg.example.org/web:1",
		"oci://reg.example.org:443/web":      "oci://reg.example.org/web",
		"oci://reg.example.org:5000/web":     "oci://reg.example.org:5000/web",
		"oci://docker.io/a/b":                "oci://index.docker.io/a/b",
		"oci://index.docker.io/a/b":          "oci://index.docker.io/a/b",
		"oci-layout:./REG.example.org/web:1": "oci-layout:REG.example.org/web:1",
	} {
		r, err := ParseRef(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Canonical().String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestParseRefSaysHowToWriteIt(t *testing.T) {
	t.Chdir(t.TempDir())
	for in, want := range map[string]string{
		"":                                 "is empty",
		"models/web":                       "./models/web for a new directory, HOST/models/web for a repository",
		"dist:release-1":                   "oci-layout:dist:release-1",
		"dist@sha256:00":                   "oci-layout:dist@sha256:00",
		"oci-layout:":                      "directory is missing",
		"oci-layout:dist:a b":              "not a tag",
		"oci-layout:dist@sha256:00":        "64 lower-case hex digits",
		"https://reg.example.org/web":      "oci://HOST/NAME",
		"oci://reg.example.org":            "want HOST/NAME",
		"oci://host/web":                   "write host:443/web",
		"oci:///web":                       "want HOST/NAME",
		"reg.example.org/web:":             "not a tag",
		"reg.example.org/Web":              "can only contain",
		"reg.example.org/web@sha256:AA":    "64 lower-case hex digits",
		"reg.example.org/web@sha512:00":    "64 lower-case hex digits",
		"reg.example.org/web\n:1":          "control characters",
		"reg.example.org/web:" + long(129): "not a tag",
		long(4090):                         "more than 4096 bytes",
	} {
		if r, err := ParseRef(in); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %+v, %v, want an error on one line with %q", in, r, err, want)
		}
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"dist", "oci-layout:a:b", "oci://h/n:t", "h.x/n@sha256:" + strings.Repeat("0", 64), "a@b", "::", "//", "@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRef(s)
		if err != nil {
			return
		}
		if (r.Layout == "") == (r.Repository == "") {
			t.Fatalf("%q: %+v names not exactly one place", s, r)
		}
		if r.Tag != "" && !r.Digest.IsZero() {
			r.Tag = ""
		}
		if back, err := ParseRef(r.String()); err != nil || back != r {
			t.Fatalf("%q: %s reads back as %+v, %v; want %+v", s, r, back, err, r)
		}
	})
}
