package model

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// FuzzDecode: whatever the bytes, an answer of our class, the same bytes again
// from what was accepted, and scores that agree with the plain meaning.
func FuzzDecode(f *testing.F) {
	names := Files()
	paths, err := filepath.Glob(filepath.Join(vectorDir, "*.txtar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			for i, name := range names {
				if file.Name == name && !strings.Contains(string(file.Data), "*") {
					f.Add(uint8(i), parseHex(f, file.Data))
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		name := names[which%4]
		m, err := Decode(name, b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error of another class: %v", err)
			}
			return
		}
		again, err := m.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted, but encodes to other bytes (%v)", err)
		}
		rng := rand.New(rand.NewPCG(1, 1))
		if m.Scaler != nil {
			x := make([]float32, len(m.Scaler.Offset))
			vector(rng, x, 5)
			m.Scaler.Apply(x, x)
			return
		}
		s, err := NewScorer(m.Ensemble)
		if err != nil {
			t.Fatal(err)
		}
		x, got := make([]float32, s.Dim()), make([]int32, s.Targets())
		for range 10 {
			vector(rng, x, 5)
			s.Sums(got, x)
			for i, want := range plainSums(m.Ensemble, x) {
				if got[i] != want {
					t.Fatalf("sum %d, want %d", got[i], want)
				}
			}
		}
	})
}

// FuzzScoring: as FuzzDecode for the scoring document.
func FuzzScoring(f *testing.F) {
	paths, err := filepath.Glob(filepath.Join(vectorDir, "*.txtar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			if file.Name == "scoring.json" {
				f.Add(bytes.TrimSuffix(file.Data, []byte("\n")))
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeScoring(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error of another class: %v", err)
			}
			return
		}
		if again, err := s.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted, but encodes to other bytes (%v)", err)
		}
	})
}

// Changed bytes anywhere in a file never give a model that encodes to other
// bytes, and reading them takes memory in proportion.
func TestFlippedBytesAreRefusedOrAnotherModel(t *testing.T) {
	p := vectorParts(t)
	for _, name := range Files() {
		b := p.files[name]
		for i := range b {
			for _, flip := range []byte{1, 0x80, 0xff} {
				c := bytes.Clone(b)
				c[i] ^= flip
				m, err := Decode(name, c)
				if err != nil {
					continue
				}
				if again, err := m.Encode(); err != nil || !bytes.Equal(again, c) {
					t.Fatalf("%s: byte %d ^ %#x is accepted as what it is not", name, i, flip)
				}
			}
		}
	}
}

func TestHostileCountsDoNotAllocate(t *testing.T) {
	var before, after runtime.MemStats
	for _, v := range makeVectors(t) {
		if v.expect == "ok" {
			continue
		}
		runtime.ReadMemStats(&before)
		size := 0
		for _, b := range v.files {
			size += len(b)
		}
		if err := readVector(v.files); err == nil {
			t.Fatalf("%s accepted", v.filename())
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > uint64(64*size+1<<17) {
			t.Errorf("%s: %d bytes allocated for %d", v.filename(), used, size)
		}
	}
}
