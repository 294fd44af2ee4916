package canon

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
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
	for i := 0; i < len(s); i++ {
		b = append(b, s[i])
		if s[i] == 0 {
			b = append(b, 0xff)
		}
	}
	return append(b, 0, 1)
}

// Row decodes a row field by field. The first failure sticks: read all fields,
// then call Close.
type Row struct {
	b   []byte
	err error
}

// NewRow returns a decoder over b, which it does not copy.
func NewRow(b []byte) *Row { return &Row{b: b} }

// Int reads one integer field.
func (r *Row) Int() int64 {
	if r.err != nil || len(r.b) < 8 {
		r.fail("integer cut short")
		return 0
	}
	n := int64(binary.BigEndian.Uint64(r.b) ^ (1 << 63))
	r.b = r.b[8:]
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

// Text reads one text field.
func (r *Row) Text() string {
	if r.err != nil {
		return ""
	}
	var out []byte
	for b := r.b; ; {
		i := bytes.IndexByte(b, 0)
		if i < 0 || i+1 >= len(b) {
			r.fail("text without end")
			return ""
		}
		out = append(out, b[:i]...)
		switch b[i+1] {
		case 0x01:
			r.b = b[i+2:]
			return string(out)
		case 0xff:
			out, b = append(out, 0), b[i+2:]
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
