package canon

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// The row encoding turns a tuple of integers and texts into bytes whose
// bytewise order is the order of the tuples, field by field:
//
//   - an integer is 8 bytes big-endian with the sign bit inverted;
//   - a text is its bytes with each 0x00 written 0x00 0xFF, then 0x00 0x01.
//
// It is prefix-free, so a tuple has one encoding and every encoding one tuple.

// AppendInt appends the row encoding of n to b.
func AppendInt(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(n)^(1<<63))
}

// AppendText appends the row encoding of s to b.
func AppendText(b []byte, s string) []byte {
	for {
		i := strings.IndexByte(s, 0)
		if i < 0 {
			return append(append(b, s...), 0, 1)
		}
		b = append(append(b, s[:i]...), 0, 0xff)
		s = s[i+1:]
	}
}

// Row decodes a row field by field. The first failure sticks: read all fields,
// then call Close.
type Row struct {
	b   []byte
	s   string // of b, once a text was read; texts without escapes are parts of it
	err error
}

// NewRow returns a decoder over b, which must not change meanwhile.
func NewRow(b []byte) *Row { return &Row{b: b} }

// skip goes on behind n bytes.
func (r *Row) skip(n int) {
	r.b = r.b[n:]
	if r.s != "" {
		r.s = r.s[n:]
	}
}

// Int reads one integer field.
func (r *Row) Int() int64 {
	if r.err != nil || len(r.b) < 8 {
		r.fail("integer cut short")
		return 0
	}
	n := int64(binary.BigEndian.Uint64(r.b) ^ (1 << 63))
	r.skip(8)
	return n
}

// Int32 reads one integer field that must fit 32 bits.
func (r *Row) Int32() int32 {
	n := r.Int()
	if n < math.MinInt32 || n > math.MaxInt32 {
		r.fail("integer out of range")
		return 0
	}
	return int32(n)
}

// Text reads one text field. The texts of a row share memory, which is not
// that of the row.
func (r *Row) Text() string {
	if r.err != nil {
		return ""
	}
	i := bytes.IndexByte(r.b, 0)
	if i >= 0 && i+1 < len(r.b) && r.b[i+1] == 0x01 {
		text := ""
		if i > 0 {
			if r.s == "" {
				r.s = string(r.b)
			}
			text = r.s[:i]
		}
		r.skip(i + 2)
		return text
	}
	return r.escaped()
}

// escaped reads a text field that holds 0x00, or fails.
func (r *Row) escaped() string {
	var out []byte
	for at := 0; ; {
		b := r.b[at:]
		i := bytes.IndexByte(b, 0)
		if i < 0 || i+1 >= len(b) {
			r.fail("text without end")
			return ""
		}
		out = append(out, b[:i]...)
		at += i + 2
		switch b[i+1] {
		case 0x01:
			r.skip(at)
			return string(out)
		case 0xff:
			out = append(out, 0)
		default:
			r.fail("unknown escape in text")
			return ""
		}
	}
}

func (r *Row) fail(why string) {
	if r.err == nil {
		r.err = fmt.Errorf("row: %w: %s", ErrSyntax, why)
	}
}

// Close reports the first failure, or ErrSyntax when bytes are left over.
func (r *Row) Close() error {
	if len(r.b) > 0 {
		r.fail("trailing bytes")
	}
	return r.err
}
