package canon

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxInteger is the largest integer that RFC 8785 §3.2.2.3 (IEEE 754 double)
// can carry exactly, 2^53-1.
const maxInteger = 1<<53 - 1

// Marshal returns the canonical JSON of v (RFC 8785): members sorted by UTF-16
// code units, no white space, shortest escapes. Every number must be an
// integer of magnitude at most 2^53-1, so that no float formatting can ever
// decide a digest; anything else is ErrSyntax.
func Marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("canonical JSON: %w: %w", ErrSyntax, err)
	}
	return Canonicalize(b)
}

// Canonicalize rewrites one JSON value to its canonical form under the rules
// of Marshal. Duplicate names, invalid UTF-8 and trailing data are ErrSyntax.
func Canonicalize(b []byte) ([]byte, error) {
	val := jsontext.Value(append([]byte(nil), b...))
	if err := checkNumbers(val); err != nil {
		return nil, err
	}
	if err := val.Canonicalize(); err != nil {
		return nil, fmt.Errorf("canonical JSON: %w: %w", ErrSyntax, err)
	}
	return val, nil
}

// Unmarshal decodes one JSON value into v, strictly: unknown or duplicate
// names, names that differ in case, invalid UTF-8 and trailing data are
// ErrSyntax with the place in the text.
func Unmarshal(b []byte, v any) error {
	if err := json.Unmarshal(b, v, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("JSON: %w: %w", ErrSyntax, inWords(err))
	}
	return nil
}

// inWords says without the types of Go what value does not fit, and where.
func inWords(err error) error {
	var s *json.SemanticError
	if !errors.As(err, &s) {
		return err
	}
	at := clip(string(s.JSONPointer))
	switch {
	case s.JSONPointer == "":
		at = "the whole"
	case errors.Is(s.Err, json.ErrUnknownName):
		return fmt.Errorf("unknown member %s", at)
	}
	if s.Err != nil && s.GoType != nil && s.GoType.PkgPath() != "" {
		return fmt.Errorf("%s: %w", at, s.Err) // a type that reads itself says what it wants
	}
	have := map[jsontext.Kind]string{'n': "null", 't': "a boolean", 'f': "a boolean", '"': "a text", '0': "a number", '{': "an object", '[': "a list"}[s.JSONKind]
	if have == "" {
		return fmt.Errorf("%s: a value that does not fit", at)
	}
	if len(s.JSONValue) > 0 && s.JSONKind == '0' {
		have = clip(string(s.JSONValue))
	}
	want := ""
	if s.GoType != nil {
		switch s.GoType.Kind() {
		case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
			want = ", want an integer in its range"
		case reflect.Float32, reflect.Float64:
			want = ", want a number"
		case reflect.String:
			want = ", want a text"
		case reflect.Bool:
			want = ", want true or false"
		case reflect.Slice, reflect.Array:
			want = ", want a list"
		case reflect.Struct, reflect.Map:
			want = ", want an object"
		}
	}
	return fmt.Errorf("%s is %s%s", at, have, want)
}

// UnmarshalCanonical is Unmarshal for documents that have one encoding only:
// bytes that are not in canonical form are ErrSyntax.
func UnmarshalCanonical(b []byte, v any) error {
	c, err := Canonicalize(b)
	if err != nil {
		return err
	}
	if string(c) != string(b) {
		return fmt.Errorf("JSON: %w: not in canonical form (RFC 8785)", ErrSyntax)
	}
	return Unmarshal(b, v)
}

func checkNumbers(b []byte) error {
	dec := jsontext.NewDecoder(strings.NewReader(string(b)))
	for {
		if dec.PeekKind() == 0 {
			return nil // Canonicalize reports what is wrong, or nothing is left
		}
		tok, err := dec.ReadToken()
		if err != nil {
			return nil
		}
		if tok.Kind() != '0' {
			continue
		}
		n, err := strconv.ParseInt(tok.String(), 10, 64)
		if err != nil || n > maxInteger || n < -maxInteger || tok.String() == "-0" {
			return fmt.Errorf("canonical JSON: %w: number %s at %s: want an integer within ±(2^53-1)", ErrSyntax, clip(tok.String()), dec.StackPointer())
		}
	}
}
