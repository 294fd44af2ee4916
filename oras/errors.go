package oras

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Errors that callers branch on. Each message around them is one line that
// names the place and, where there is one, the remedy.
var (
	// ErrNotFound: the store answered, and has no such thing.
	ErrNotFound = errors.New("not found")
	// ErrRefused: the store answered no: credentials, rights, or a rule of its own.
	ErrRefused = errors.New("refused by the store")
	// ErrInvalid: what was read, or is to be written, breaks a rule of FORMAT.md.
	ErrInvalid = errors.New("invalid")
	// ErrExists: something else already stands where this was to be written.
	ErrExists = errors.New("already exists")
	// ErrUnreachable: no usable answer: network, timeout, or a failing server.
	ErrUnreachable = errors.New("unreachable")
)

// printable makes foreign text safe for one line of a terminal or a log: control
// and format characters become spaces, invalid UTF-8 becomes U+FFFD, and text
// past max bytes is cut.
func printable(s string, max int) string {
	cut := len(s) > max
	if cut {
		s = s[:max]
	}
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.Join(strings.Fields(s), " ")
	if cut {
		s += "…"
	}
	return s
}
