package record

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// BenchmarkReader measures input bytes per second through reading, privacy,
// canonical rows and their hashes, as a snapshot does it.
func BenchmarkReader(b *testing.B) {
	for _, c := range []struct {
		kind Kind
		file string
	}{
		{Attacks, "attack-records/peer_threats.json"},
		{Cowrie, "honeypot/cowrie-2018-05.json"},
		{Access, "http-attacks/access-2004.log"},
		{SSHD, "auth/auth.log"},
		{Labelled, "http-attacks/payload_full.csv"},
	} {
		b.Run(string(c.kind), func(b *testing.B) {
			data, err := os.ReadFile(testkit.Data(b, c.file))
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				benchmarkRead(b, data, c.kind)
			}
		})
	}
	b.Run("replay", func(b *testing.B) {
		f, err := os.Open(testkit.Data(b, "honeypot/cowrie-2018-05.json"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		r, err := NewReader(f, Cowrie, Options{})
		if err != nil {
			b.Fatal(err)
		}
		var data []byte
		for rec := new(Record); r.Next(rec) == nil; {
			data = append(AppendJSON(data, rec), '\n')
		}
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			benchmarkRead(b, data, Attacks)
		}
	})
}

func benchmarkRead(b *testing.B, data []byte, kind Kind) {
	r, err := NewReader(bytes.NewReader(data), kind, Options{Privacy: Privacy{Redaction: 1}})
	if err != nil {
		b.Fatal(err)
	}
	var rec Record
	var row []byte
	for {
		if err := r.Next(&rec); err == io.EOF {
			return
		} else if err != nil {
			b.Fatal(err)
		}
		row = rec.AppendRow(row[:0])
		sha256.Sum256(row)
	}
}
