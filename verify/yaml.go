package verify

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	unknownField = regexp.MustCompile(`field (.*) not found in type \S+`)
	goType       = regexp.MustCompile(` into (?:\*)?(\S+)`)
	plainInteger = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)
)

// switches and times are the fields whose values are true or false, or times as
// ParseTime reads them. All others are texts and plain decimal integers.
const (
	switches = " insecure_ignore_sct "
	times    = " not_before not_after "
)

// decodeYAML reads one YAML document into v and refuses whatever could be read
// in two ways.
func decodeYAML(text []byte, v any) (err error) {
	defer func() {
		if r := recover(); r != nil { // the YAML library panics on some malformed input
			err = fmt.Errorf("not valid YAML: %v", r)
		}
	}()
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&doc); err == io.EOF {
		return errors.New("empty: a policy that trusts nobody verifies nothing")
	} else if err != nil {
		return yamlError(err)
	}
	var second yaml.Node
	if err := dec.Decode(&second); err != io.EOF {
		return errors.New("more than one YAML document; keep one")
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return errors.New("want fields such as \"version: 1\"")
	}
	if err := plainNode(doc.Content[0], "", 0); err != nil {
		return err
	}
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	if err := strict.Decode(v); err != nil {
		return yamlError(err)
	}
	return nil
}

// plainNode refuses YAML features that a policy has no use for and that make
// its meaning hard to see.
func plainNode(n *yaml.Node, field string, depth int) error {
	if depth > 16 {
		return fmt.Errorf("line %d: nested too deeply", n.Line)
	}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return fmt.Errorf("line %d: anchors and aliases are not accepted; write the value out", n.Line)
	case n.Style&yaml.TaggedStyle != 0:
		return fmt.Errorf("line %d: tags such as %s are not accepted", n.Line, Printable(n.Tag))
	case n.Kind == yaml.ScalarNode:
		is := func(list string) bool { return strings.Contains(list, " "+field+" ") }
		switch tag := n.ShortTag(); {
		case tag == "!!str":
		case tag == "!!int":
			if !plainInteger.MatchString(n.Value) {
				return fmt.Errorf("line %d: %s: write a number in plain decimal digits, or quote a text", n.Line, Printable(n.Value))
			}
		case tag == "!!bool" && is(switches):
			if n.Value != "true" && n.Value != "false" {
				return fmt.Errorf("line %d: %s: write true or false", n.Line, Printable(n.Value))
			}
		case tag == "!!timestamp" && is(times):
		case tag == "!!null":
			return fmt.Errorf("line %d: empty value; leave the field out, or give it one", n.Line)
		default:
			return fmt.Errorf("line %d: %s is read as %s; quote it if it is text", n.Line, Printable(n.Value), tag)
		}
	case len(n.Content) == 0:
		return fmt.Errorf("line %d: empty list; leave the field out, or fill it", n.Line)
	case n.Kind == yaml.MappingNode:
		seen := map[string]bool{}
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
				return fmt.Errorf("line %d: a field's name must be plain text", key.Line)
			}
			if seen[key.Value] {
				return fmt.Errorf("line %d: field %q stands twice", key.Line, Printable(key.Value))
			}
			seen[key.Value] = true
		}
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode {
			field = ""
			if i%2 == 1 {
				field = n.Content[i-1].Value
			}
		}
		if err := plainNode(c, field, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// yamlError says in the policy's words what the YAML library says in Go's.
func yamlError(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors:\n  ")
	text = strings.ReplaceAll(text, "\n  ", "; ")
	text = unknownField.ReplaceAllString(text, `unknown field "$1"`)
	text = strings.ReplaceAll(text, "cannot unmarshal !!str", "cannot use text")
	text = strings.ReplaceAll(text, "cannot unmarshal !!int", "cannot use number")
	text = strings.ReplaceAll(text, "cannot unmarshal !!bool", "cannot use true or false")
	text = strings.ReplaceAll(text, "cannot unmarshal !!timestamp", "cannot use a time")
	text = strings.ReplaceAll(text, "cannot unmarshal !!seq", "cannot use a list")
	text = strings.ReplaceAll(text, "cannot unmarshal !!map", "cannot use fields")
	text = goType.ReplaceAllStringFunc(text, func(s string) string {
		switch {
		case strings.Contains(s, "[]"):
			return ", want a list"
		case strings.Contains(s, "Text"):
			return ", want fields"
		case strings.HasPrefix(strings.TrimPrefix(s[len(" into "):], "*"), "int"):
			return ", want a number"
		case strings.HasSuffix(s, "bool"):
			return ", want true or false"
		}
		return ", want a text"
	})
	return errors.New(Printable(text))
}
