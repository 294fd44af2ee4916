package dataset

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// BenchmarkExploitReader measures input bytes per second through hashing the
// input, reading, canonical rows and their hashes, as a snapshot does it.
func BenchmarkExploitReader(b *testing.B) {
	for name, file := range map[string]string{"17": "exploitdb/files_exploits.reassembled.csv", "8": "exploitdb/files.csv"} {
		b.Run(name, func(b *testing.B) {
			data, err := os.ReadFile(testkit.Data(b, file))
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				sha256.Sum256(data)
				x, err := newExploitReader(bytes.NewReader(data))
				if err != nil {
					b.Fatal(err)
				}
				var e Exploit
				var row []byte
				for {
					if err := x.next(&e); err == io.EOF {
						break
					} else if err != nil {
						b.Fatal(err)
					}
					row = e.AppendRow(row[:0])
					sha256.Sum256(row)
				}
			}
		})
	}
}
