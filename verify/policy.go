package verify

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// DefaultProduct is the product of releases and policies that name no other.
const DefaultProduct = "bhtrain"

// ErrPolicy: a policy that cannot be enforced as written. Its message names
// the place and what to write instead.
var ErrPolicy = errors.New("policy")

// Policy is whom an operator trusts for what. It comes from a local file and
// never from what is judged. The zero Policy trusts nobody: New refuses it.
// POLICY.md describes the file.
type Policy struct {
	Product    string         // the one product whose releases are accepted
	Publishers []Publisher    // any one of them may sign a release
	Builders   []string       // builder ids accepted in the provenance; nil accepts any
	Datasets   []canon.Digest // dataset digests accepted; nil accepts any
	MinRelease int64          // lowest release number accepted; 0 for no bound
	MaxBytes   int64          // largest sum of the sizes of a release's files in bytes; 0 for no bound but the format's
	Digest     canon.Digest   // SHA-256 of the policy's text
}

// Publisher is one who may sign releases.
type Publisher struct {
	Name string
	Key  Key
}

// policyText is the file as it is written. A pointer or nil slice is a field
// that is absent.
type policyText struct {
	Version    int             `yaml:"version"`
	Product    string          `yaml:"product"`
	Publishers []publisherText `yaml:"publishers"`
	Builders   []string        `yaml:"builders"`
	Datasets   []string        `yaml:"datasets"`
	MinRelease *int64          `yaml:"min_release"`
	MaxBytes   *int64          `yaml:"max_bytes"`
}

type publisherText struct {
	Name string `yaml:"name"`
	Key  string `yaml:"key"`
}

// ParsePolicy reads the text of a policy whose keys are all written inline.
// Text that names a key file, an unknown or duplicate field, a second
// document, YAML anchors, aliases, tags or merge keys, an empty value, a
// policy that demands no publisher, or more than 64 KiB is ErrPolicy.
func ParsePolicy(text []byte) (Policy, error) {
	return parsePolicy(text, func(name string) ([]byte, error) {
		return nil, fmt.Errorf("key file %q: the policy was not read from a file; write the key inline", Printable(name))
	})
}

// LoadPolicy is ParsePolicy for a file. A key may then also be the name of a
// file in or below the policy's folder, relative to it; a key file that is a
// symbolic link or anything else but a regular file is ErrPolicy. A policy
// that cannot be read is an error of package os.
func LoadPolicy(path string) (Policy, error) {
	text, err := readFile(path, maxPolicy)
	if err != nil {
		return Policy{}, err
	}
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return Policy{}, err
	}
	defer root.Close()
	p, err := parsePolicy(text, func(name string) ([]byte, error) { return readKeyFile(root, name) })
	if err != nil {
		return Policy{}, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: %w: limit %d bytes", path, canon.ErrTooLarge, limit)
	}
	return b, nil
}

// readKeyFile reads a key file below root. It refuses what is no regular file
// and compares what it looked at with what it opened, so that a file swapped
// in between is not followed.
func readKeyFile(root *os.Root, name string) ([]byte, error) {
	name = filepath.FromSlash(name)
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("key file %q: want a name in the policy's folder, relative to it", Printable(name))
	}
	seen, err := root.Lstat(name)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if !seen.Mode().IsRegular() {
		return nil, fmt.Errorf("key file %q is a %s, want a regular file", Printable(name), kind(seen.Mode()))
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	if opened, err := f.Stat(); err != nil || !os.SameFile(seen, opened) {
		return nil, fmt.Errorf("key file %q changed while it was opened", Printable(name))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if len(b) > maxKeyFile {
		return nil, fmt.Errorf("key file %q is larger than %d bytes", Printable(name), maxKeyFile)
	}
	return b, nil
}

func kind(m os.FileMode) string {
	switch {
	case m&os.ModeSymlink != 0:
		return "symbolic link"
	case m.IsDir():
		return "folder"
	}
	return "special file"
}

func parsePolicy(text []byte, keyFile func(name string) ([]byte, error)) (Policy, error) {
	fail := func(format string, args ...any) (Policy, error) {
		return Policy{}, fmt.Errorf("%w: "+format, append([]any{ErrPolicy}, args...)...)
	}
	if len(text) > maxPolicy {
		return fail("%d bytes, limit %d", len(text), maxPolicy)
	}
	var t policyText
	if err := decodeYAML(text, &t); err != nil {
		return fail("%w", err)
	}
	if t.Version != 1 {
		return fail("version is %d, want \"version: 1\"", t.Version)
	}
	p := Policy{Product: t.Product, Digest: canon.Sum(text)}
	if err := checkName(t.Product); err != nil {
		return fail("product: %w", err)
	}
	if err := oras.CheckName(t.Product, 1); err != nil {
		return fail("%v", err) // no %w: it is the policy that is wrong, not an artifact
	}
	if len(t.Publishers) == 0 {
		return fail("no publishers: a policy that trusts nobody verifies nothing; add one with name and key")
	}
	if len(t.Publishers) > maxIdentities {
		return fail("%d publishers, limit %d", len(t.Publishers), maxIdentities)
	}
	for i, pub := range t.Publishers {
		if err := checkName(pub.Name); err != nil {
			return fail("publisher %d: name: %w", i+1, err)
		}
		pem := []byte(pub.Key)
		switch {
		case pub.Key == "":
			return fail("publisher %q has no key", pub.Name)
		case !strings.Contains(pub.Key, "-----BEGIN"):
			var err error
			if pem, err = keyFile(pub.Key); err != nil {
				return fail("publisher %q: %w", pub.Name, err)
			}
		}
		key, err := ParseKey(pem)
		if err != nil {
			return fail("publisher %q: %w", pub.Name, err)
		}
		for _, other := range p.Publishers {
			if other.Name == pub.Name {
				return fail("two publishers are named %q", pub.Name)
			}
			if other.Key.Equal(key) {
				return fail("publishers %q and %q have the same key", other.Name, pub.Name)
			}
		}
		p.Publishers = append(p.Publishers, Publisher{Name: pub.Name, Key: key})
	}
	if len(t.Builders) > maxList || len(t.Datasets) > maxList {
		return fail("a list has more than %d entries", maxList)
	}
	for _, id := range t.Builders {
		if u, err := url.Parse(id); err != nil || u.Scheme == "" || Printable(id) != id {
			return fail("builder %q: want the URI of a builder, as its provenance spells it", Printable(id))
		}
		p.Builders = append(p.Builders, id)
	}
	for _, s := range t.Datasets {
		d, err := canon.ParseDigest(s)
		if err != nil {
			return fail("datasets: %w", err)
		}
		p.Datasets = append(p.Datasets, d)
	}
	for _, n := range []struct {
		name string
		from *int64
		to   *int64
	}{{"min_release", t.MinRelease, &p.MinRelease}, {"max_bytes", t.MaxBytes, &p.MaxBytes}} {
		if n.from == nil {
			continue
		}
		if *n.from < 1 {
			return fail("%s: %d, want 1 or more; leave it out for no bound", n.name, *n.from)
		}
		*n.to = *n.from
	}
	return p, nil
}

// checkName bounds what people call a product or a publisher. The text is
// compared byte by byte, so it must have no invisible differences.
func checkName(s string) error {
	switch {
	case s == "":
		return errors.New("missing or empty")
	case len(s) > maxName:
		return fmt.Errorf("longer than %d bytes", maxName)
	case Printable(s) != s || strings.TrimSpace(s) != s:
		return fmt.Errorf("%q: control characters or space at an end", Printable(s))
	}
	return nil
}

var (
	unknownField = regexp.MustCompile(`field (.*) not found in type \S+`)
	goType       = regexp.MustCompile(` into (?:\*)?(\S+)`)
	plainInteger = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)
)

// decodeYAML reads one YAML document of mappings, lists, texts and plain
// decimal integers into v and refuses whatever could be read in two ways.
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
	if err := plainNode(doc.Content[0], 0); err != nil {
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
func plainNode(n *yaml.Node, depth int) error {
	if depth > 16 {
		return fmt.Errorf("line %d: nested too deeply", n.Line)
	}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return fmt.Errorf("line %d: anchors and aliases are not accepted; write the value out", n.Line)
	case n.Style&yaml.TaggedStyle != 0:
		return fmt.Errorf("line %d: tags such as %s are not accepted", n.Line, Printable(n.Tag))
	case n.Kind == yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!str":
		case "!!int":
			if !plainInteger.MatchString(n.Value) {
				return fmt.Errorf("line %d: %s: write a number in plain decimal digits, or quote a text", n.Line, Printable(n.Value))
			}
		case "!!null":
			return fmt.Errorf("line %d: empty value; leave the field out, or give it one", n.Line)
		default:
			return fmt.Errorf("line %d: %s is read as %s; quote it if it is text", n.Line, Printable(n.Value), n.ShortTag())
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
	for _, c := range n.Content {
		if err := plainNode(c, depth+1); err != nil {
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
		}
		return ", want a text"
	})
	return errors.New(Printable(text))
}

// Describe says in sentences what p demands, one per element, and what it
// leaves open.
func (p Policy) Describe() []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	say("Accepts releases of product %q only.", p.Product)
	for _, pub := range p.Publishers {
		say("%s may sign releases with the ECDSA P-256 key %s.", pub.Name, pub.Key.ID())
	}
	say("One signature of one publisher over the release's provenance is enough; product, release number, recipe and dataset must be those of the release.")
	list := func(items []string, none, one string) {
		if len(items) == 0 {
			say("%s", none)
			return
		}
		say("%s %s.", one, strings.Join(items, ", "))
	}
	list(p.Builders, "Accepts any builder that a publisher signs for.", "The provenance must name one of these builders:")
	var sets []string
	for _, d := range p.Datasets {
		sets = append(sets, d.String())
	}
	list(sets, "Accepts any dataset that a publisher signs for.", "The release must be trained on one of these datasets:")
	if p.MinRelease > 0 {
		say("Refuses release numbers below %d.", p.MinRelease)
	} else {
		say("Accepts any release number, old ones too.")
	}
	if p.MaxBytes > 0 {
		say("Refuses releases whose files are larger than %d bytes together.", p.MaxBytes)
	}
	say("Names no channel, so it cannot tell whether a release is current or was withdrawn.")
	say("Demands no independent rebuild, so a publisher's key alone is believed.")
	say("Keys have no expiry: a stolen key is trusted until it is taken out of this file.")
	return out
}

// InitPolicy returns the text of a policy, with comments, that trusts the
// given publishers for the product ("" for DefaultProduct). ParsePolicy reads
// it; what ParsePolicy would refuse is ErrPolicy here.
func InitPolicy(product string, publishers ...Publisher) ([]byte, error) {
	if product == "" {
		product = DefaultProduct
	}
	var b strings.Builder
	b.WriteString(`# Whom this machine trusts for what. 'bhverify policy check FILE' says it in
# words. Unknown fields are errors, so nothing here is silently ignored.
version: 1

# The one product whose releases are accepted.
product: ` + strconv.Quote(product) + `

# Any one of these may sign a release. Get a key from its owner over a way that
# an attacker of the registry does not control, and compare its digest.
publishers:
`)
	for _, p := range publishers {
		fmt.Fprintf(&b, "  - name: %s\n    # %s\n    key: |\n", strconv.Quote(p.Name), p.Key.ID())
		for line := range strings.Lines(p.Key.PEM()) {
			b.WriteString("      " + line)
		}
	}
	b.WriteString(`
# Optional demands; without them any value that a publisher signs is accepted.
#
# Builders that the provenance may name:
# builders:
#   - https://example.org/builder
#
# Datasets that a release may be trained on (SHA-256 of snapshot.json):
# datasets:
#   - sha256:…
#
# Lowest release number, and largest size of all files of a release in bytes:
# min_release: 1
# max_bytes: 1048576
`)
	text := []byte(b.String())
	if _, err := ParsePolicy(text); err != nil {
		return nil, err
	}
	return text, nil
}
