package dataset

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
)

// Limits of what a gzip file may hold. DEFLATE reaches 1,032 times the size of
// the file, logs some 10 to 100 times.
const (
	maxUnpacked      = 64 << 30 // bytes
	maxUnpackedRatio = 200      // times the bytes of the file read so far, …
	freeUnpacked     = 64 << 20 // … and so many bytes beside
)

// unpack returns a reader of what r holds, unpacked if it begins as a gzip file
// of any name does; no text begins so. It holds some 100 KiB.
func unpack(r io.Reader) (io.Reader, error) {
	packed := &countingReader{r: r}
	buffered := bufio.NewReaderSize(packed, 64<<10)
	if head, _ := buffered.Peek(3); string(head) != "\x1f\x8b\x08" {
		return buffered, nil // an error of r comes again
	}
	z, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("unpacking: %w", err)
	}
	return &gunzip{z: z, packed: packed, limit: maxUnpacked, ratio: maxUnpackedRatio, free: freeUnpacked}, nil
}

// gunzip unpacks a gzip file of one or more members within limits.
type gunzip struct {
	z                  *gzip.Reader
	packed             *countingReader
	n                  int64 // bytes unpacked
	limit, ratio, free int64
}

// Read fails with ErrUnsupported beyond the limits.
func (g *gunzip) Read(p []byte) (int, error) {
	n, err := g.z.Read(p)
	g.n += int64(n)
	if most := min(g.limit, g.free+g.ratio*g.packed.n); g.n > most {
		return 0, fmt.Errorf("%w: %d bytes of gzip hold more than %d bytes; if that is meant to be, unpack the file first", ErrUnsupported, g.packed.n, most)
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("unpacking: %w", err)
	}
	return n, err
}

// countingReader counts what is read.
type countingReader struct {
	r io.Reader
	n int64
}

// Read reads on.
func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
