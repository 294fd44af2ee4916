package feature

import "bytes"

const (
	maxText   = 8 << 10 // bytes of a text that are looked at
	tailText  = 2 << 10 // of them, bytes from its end when it is longer
	maxLayers = 3       // layers of escapes that are undone
)

// normal is a text in normal form and what was met on the way to it.
type normal struct {
	text []byte

	length, layers, percent, needless, unicode, entities, backslash, overlong int
	bad, comments, nulls, breaks, control, sled, upper, slashes               int
}

// escape marks the bytes at which an escape may begin.
var escape = [256]bool{'%': true, '&': true, '\\': true}

// normalise brings s into normal form in n.text, which aliases w's buffers
// until the next call. A text longer than maxText is looked at from both ends.
// It takes time linear in the length.
func (w *work) normalise(s string, n *normal) {
	*n = normal{length: len(s)}
	if len(s) > maxText {
		w.front = append(w.front[:0], s[:maxText-tailText-1]...)
		w.front = append(w.front, ' ')
		w.front = append(w.front, s[len(s)-tailText:]...)
	} else {
		w.front = append(w.front[:0], s...)
	}
	more := false
	for i, c := range w.front {
		if c == '+' {
			w.front[i] = ' '
		}
		more = more || escape[c]
	}
	for layer := 0; more && layer < maxLayers; layer++ {
		var changed bool
		changed, more = w.unescape(n, layer == 0)
		w.front, w.back = w.back, w.front
		if !changed {
			break
		}
		n.layers++
	}
	w.fold(n)
}

// unescape undoes one layer of escapes from w.front into w.back. It reports
// whether it undid any, and whether the result has bytes that may begin one.
func (w *work) unescape(n *normal, first bool) (changed, more bool) {
	src := w.front
	dst := w.back[:0]
	for i := 0; i < len(src); {
		c := src[i]
		if !escape[c] {
			dst = append(dst, c)
			i++
			continue
		}
		r, size := rune(0), 0
		switch c {
		case '%':
			if i+2 < len(src) && isHex(src[i+1]) && isHex(src[i+2]) {
				b := unhexPair(src[i+1:])
				n.percent++
				if class[b] == letter || class[b] == digit || b == '.' || b == '-' {
					n.needless++
				}
				dst = append(dst, b)
				more = more || escape[b]
				changed = true
				i += 3
				continue
			}
			if i+5 < len(src) && src[i+1]|0x20 == 'u' {
				if r, size = hexRune(src[i+2:], 4); size > 0 {
					size += 2
					n.unicode++
				}
			}
			if size == 0 && first {
				n.bad++
			}
		case '&':
			if r, size = entity(src[i:]); size > 0 {
				n.entities++
			}
		case '\\':
			if i+3 < len(src) && src[i+1] == 'x' {
				if isHex(src[i+2]) && isHex(src[i+3]) {
					b := unhexPair(src[i+2:])
					n.backslash++
					dst = append(dst, b)
					more = more || escape[b]
					changed = true
					i += 4
					continue
				}
			} else if i+5 < len(src) && src[i+1] == 'u' {
				if r, size = hexRune(src[i+2:], 4); size > 0 {
					size += 2
					n.unicode++
				}
			}
		}
		if size == 0 {
			dst = append(dst, c)
			more = true
			i++
			continue
		}
		changed = true
		i += size
		if r < 0x80 {
			dst = append(dst, byte(r))
			more = more || escape[byte(r)]
		} else {
			dst = appendRune(dst, r)
		}
	}
	w.back = dst
	return changed, more && changed
}

// appendRune appends r in UTF-8; surrogates and numbers that are no character
// become U+FFFD.
func appendRune(b []byte, r rune) []byte { return append(b, string(r)...) }

// hexRune reads exactly n hex digits.
func hexRune(b []byte, n int) (r rune, size int) {
	for _, c := range b[:n] {
		if !isHex(c) {
			return 0, 0
		}
		r = r<<4 | rune(unhex(c))
	}
	return r, n
}

// entity reads one HTML character reference, numeric ones also without the
// semicolon.
func entity(b []byte) (r rune, size int) {
	if len(b) < 4 {
		return 0, 0
	}
	if b[1] == '#' {
		i := 2
		if b[2]|0x20 == 'x' {
			i = 3
			for i < len(b) && i < 12 && isHex(b[i]) {
				r = min(r<<4|rune(unhex(b[i])), 0x110000)
				i++
			}
			if i == 3 {
				return 0, 0
			}
		} else {
			for i < len(b) && i < 12 && b[i]-'0' <= 9 {
				r = min(r*10+rune(b[i]-'0'), 0x110000)
				i++
			}
			if i == 2 {
				return 0, 0
			}
		}
		if i < len(b) && b[i] == ';' {
			i++
		}
		return r, i
	}
	end := bytes.IndexByte(b[:min(len(b), 10)], ';')
	if end < 0 {
		return 0, 0
	}
	var name [8]byte
	k := copy(name[:], b[1:end])
	for i := range k {
		if name[i]-'A' <= 'Z'-'A' {
			name[i] |= 0x20
		}
	}
	switch string(name[:k]) {
	case "lt":
		r = '<'
	case "gt":
		r = '>'
	case "amp":
		r = '&'
	case "quot":
		r = '"'
	case "apos":
		r = '\''
	case "lpar":
		r = '('
	case "rpar":
		r = ')'
	case "colon":
		r = ':'
	case "semi":
		r = ';'
	case "sol":
		r = '/'
	case "bsol":
		r = '\\'
	case "equals":
		r = '='
	case "grave":
		r = '`'
	case "period":
		r = '.'
	case "comma":
		r = ','
	case "num":
		r = '#'
	case "percnt":
		r = '%'
	case "dollar":
		r = '$'
	case "vert":
		r = '|'
	case "lbrace":
		r = '{'
	case "rbrace":
		r = '}'
	case "lbrack":
		r = '['
	case "rbrack":
		r = ']'
	case "nbsp", "tab":
		r = ' '
	case "newline":
		r = '\n'
	default:
		return 0, 0
	}
	return r, end + 1
}

func isHex(c byte) bool { return c-'0' <= 9 || (c|0x20)-'a' <= 5 }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return (c | 0x20) - 'a' + 10
}

// Classes of bytes.
const (
	other  = iota // control characters
	letter        // ASCII letters, underscore and everything from 0x80 up
	digit
	punct
	space
)

var class, consonant = func() (class [256]uint8, consonant [256]bool) {
	for c := range 256 {
		switch {
		case c >= 0x80 || c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z':
			class[c] = letter
			consonant[c] = c < 0x80 && c != '_' && bytes.IndexByte([]byte("aeiouyAEIOUY"), byte(c)) < 0
		case c >= '0' && c <= '9':
			class[c] = digit
		case c == ' ' || c >= '\t' && c <= '\r':
			class[c] = space
		case c > ' ' && c < 0x7f:
			class[c] = punct
		}
	}
	return
}()

// fold writes the lower-case, single-spaced form of w.front without comments
// to n.text.
func (w *work) fold(n *normal) {
	src := w.front
	dst := w.back[:0]
	closes := true     // a comment may still be closed further on
	versioned := false // inside /*!…*/, whose content a database runs
	last := byte(0)
	for i := 0; i < len(src); i++ {
		c := src[i]
		switch class[c] {
		case letter:
			if c-'A' <= 'Z'-'A' {
				c |= 0x20
				n.upper++
			} else if c >= 0xc0 {
				var size int
				if c, size = imitated(src[i:]); size > 0 {
					n.overlong++
					i += size - 1
					if c-'A' <= 'Z'-'A' {
						c |= 0x20
					}
					if c == 0 {
						continue
					}
					if class[c] == other {
						c = ' '
					}
				} else {
					c = src[i]
				}
			} else if c == 0x90 && last == c {
				n.sled++
			}
		case digit:
			if c == '0' && i+3 < len(src) && src[i+1] == 'x' && (i+4 == len(src) || !isHex(src[i+4]) || last == '.' || last == '/' || src[i+4] == '0' && i+5 < len(src) && src[i+5] == 'x') {
				if b := unhexPair(src[i+2:]); b == '.' || b == '/' || b == '\\' {
					n.backslash++
					c = b
					i += 3
				}
			}
		case other:
			if c == 0 {
				n.nulls++
			} else {
				n.control++
			}
			c = ' '
		}
		switch c {
		case '\n', '\r':
			n.breaks++
			if last == ' ' || last == '\n' {
				dst[len(dst)-1] = '\n'
				last = '\n'
				continue
			}
			c = '\n'
		case ' ', '\t', '\v', '\f':
			if last == ' ' || last == '\n' {
				continue
			}
			c = ' '
		case '\\':
			n.slashes++
			if last == '.' || last == '/' {
				c = '/'
			}
		case '/':
			if i+1 < len(src) && src[i+1] == '*' && closes {
				if i+2 < len(src) && src[i+2] == '!' {
					versioned = true
					n.comments++
					i += 2
					for k := 0; k < 6 && i+1 < len(src) && class[src[i+1]] == digit; k++ {
						i++
					}
				} else if end := bytes.Index(src[i+2:], []byte("*/")); end >= 0 {
					n.comments++
					i += 3 + end
				} else {
					closes = false
					break
				}
				if last == ' ' || last == '\n' {
					continue
				}
				c = ' '
			}
		case '*':
			if versioned && i+1 < len(src) && src[i+1] == '/' {
				versioned = false
				i++
				if last == ' ' || last == '\n' {
					continue
				}
				c = ' '
			}
		}
		dst = append(dst, c)
		last = c
	}
	w.back = dst
	n.text = dst
}

func unhexPair(b []byte) byte {
	if !isHex(b[0]) || !isHex(b[1]) {
		return 0
	}
	return unhex(b[0])<<4 | unhex(b[1])
}

// imitated reads a character that stands for an ASCII character: overlong
// UTF-8, full-width forms, look-alike slashes and quotes, foreign spaces. It
// returns 0 for a character without width, and size 0 when b begins with none
// of these.
func imitated(b []byte) (c byte, size int) {
	if len(b) < 2 {
		return 0, 0
	}
	x, y := b[0], b[1]
	if x <= 0xc1 {
		c = (x&1)<<6 | y&0x3f
		if y >= 0x80 && y < 0xc0 || c == '/' || c == '\\' || c == '.' {
			return c, 2
		}
		return 0, 0
	}
	if x == 0xc2 && y == 0xa0 {
		return ' ', 2
	}
	if x == 0xca && y == 0xbc {
		return '\'', 2
	}
	if len(b) < 3 {
		return 0, 0
	}
	z := b[2]
	switch {
	case x == 0xe0 && y >= 0x80 && y <= 0x81 && z >= 0x80 && z < 0xc0:
		return (y&1)<<6 | z&0x3f, 3
	case x == 0xef && y == 0xbc && z >= 0x81 && z < 0xc0:
		return z - 0x60, 3
	case x == 0xef && y == 0xbd && z >= 0x80 && z <= 0x9e:
		return z - 0x20, 3
	case x == 0xe3 && y == 0x80 && z == 0x80:
		return ' ', 3
	case x == 0xe2 && (y == 0x88 && z == 0x95 || y == 0x81 && z == 0x84):
		return '/', 3
	case x == 0xe2 && y == 0x80 && z >= 0x8b && z <= 0x8d:
		return 0, 3
	case x == 0xf0 && len(b) >= 4 && y == 0x80 && z >= 0x80 && z <= 0x81 && b[3] >= 0x80 && b[3] < 0xc0:
		return (z&1)<<6 | b[3]&0x3f, 4
	}
	return 0, 0
}
