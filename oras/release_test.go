package oras

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/go-json-experiment/json/jsontext"
)

// sampleRelease is a small release whose bytes are pinned by golden digests.
func sampleRelease() Release {
	return Release{
		Product:  "web",
		Number:   7,
		Dataset:  canon.Sum([]byte(sampleSnapshot)),
		Recipe:   jsontext.Value(`{"seed":1, "algorithm":1}`),
		Features: jsontext.Value(`{"schema":1}`),
		Scoring:  jsontext.Value(`{"classes":["benign","xss"]}`),
		Metrics:  jsontext.Value(`{"macro_f1_ppm":912345}`),
	}
}

const sampleSnapshot = `{"format":1}`

func TestReleaseIsCanonicalAndReadsBack(t *testing.T) {
	b, err := sampleRelease().Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"dataset":"` + canon.Sum([]byte(sampleSnapshot)).String() + `","features":{"schema":1},"format":1,` +
		`"metrics":{"macro_f1_ppm":912345},"product":"web","recipe":{"algorithm":1,"seed":1},"release":7,"scoring":{"classes":["benign","xss"]}}`
	if string(b) != want {
		t.Fatalf("got  %s\nwant %s", b, want)
	}
	r, err := DecodeRelease(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.Encode()
	if err != nil || !bytes.Equal(again, b) {
		t.Fatalf("reading and writing again gives %s, %v", again, err)
	}
}

func TestReleaseThatBreaksARuleIsNotWritten(t *testing.T) {
	for name, change := range map[string]func(*Release){
		"format of the future":   func(r *Release) { r.Format = 2 },
		"product empty":          func(r *Release) { r.Product = "" },
		"product upper case":     func(r *Release) { r.Product = "Web" },
		"product ends in a dot":  func(r *Release) { r.Product = "web." },
		"product too long":       func(r *Release) { r.Product = strings.Repeat("a", 65) },
		"number zero":            func(r *Release) { r.Number = 0 },
		"number negative":        func(r *Release) { r.Number = -1 },
		"number beyond doubles":  func(r *Release) { r.Number = MaxNumber + 1 },
		"no dataset":             func(r *Release) { r.Dataset = canon.Digest{} },
		"section missing":        func(r *Release) { r.Metrics = nil },
		"section is an array":    func(r *Release) { r.Recipe = jsontext.Value(`[]`) },
		"section not an integer": func(r *Release) { r.Scoring = jsontext.Value(`{"x":0.5}`) },
		"section not JSON":       func(r *Release) { r.Scoring = jsontext.Value(`{"x":`) },
		"too long":               func(r *Release) { r.Features = jsontext.Value(`{"x":"` + strings.Repeat("y", MaxReleaseJSON) + `"}`) },
	} {
		r := sampleRelease()
		change(&r)
		if b, err := r.Encode(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %.80s, %v, want ErrInvalid", name, b, err)
		}
	}
	// The bounds themselves are allowed.
	for _, change := range []func(*Release){
		func(r *Release) { r.Number = MaxNumber },
		func(r *Release) { r.Product = strings.Repeat("a", 64) },
		func(r *Release) { r.Product = "a" },
	} {
		r := sampleRelease()
		change(&r)
		if _, err := r.Encode(); err != nil {
			t.Error(err)
		}
	}
}

func FuzzDecodeRelease(f *testing.F) {
	good, err := sampleRelease().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte(`"format":1`), []byte(`"format":1.0`), 1))
	f.Add(bytes.Replace(good, []byte(`"product":"web"`), []byte(`"product":"web","product":"web"`), 1))
	f.Add([]byte(`{"dataset":""}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRelease(b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error without class: %v", err)
			}
			return
		}
		again, err := r.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted bytes have a second form:\n%s\n%s %v", b, again, err)
		}
	})
}
