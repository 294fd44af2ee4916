package oras

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/google/go-containerregistry/pkg/name"
)

// Ref says where an artifact is: a place and, in it, a tag or a digest.
// Exactly one of Layout and Repository is set. With neither Tag nor Digest, the
// tag TagLatest is meant; with both, Digest counts.
type Ref struct {
	Layout     string // path of an OCI image layout directory
	Repository string // host[:port]/name of a registry's repository
	Tag        string
	Digest     canon.Digest
}

// Name is what to resolve in the store: the digest, else the tag, else TagLatest.
func (r Ref) Name() string {
	switch {
	case !r.Digest.IsZero():
		return r.Digest.String()
	case r.Tag != "":
		return r.Tag
	}
	return TagLatest
}

// String returns a text that ParseRef reads back as r.
func (r Ref) String() string {
	s := "oci://" + r.Repository
	if r.Layout != "" {
		s = "oci-layout:" + r.Layout
		// A closing slash keeps a : or @ of the directory's own name from being
		// read as the beginning of a tag or digest.
		if strings.ContainsAny(filepath.Base(r.Layout), ":@") {
			s += "/"
		}
	}
	switch {
	case !r.Digest.IsZero():
		return s + "@" + r.Digest.String()
	case r.Tag != "":
		return s + ":" + r.Tag
	}
	return s
}

// Place is the same without tag and digest.
func (r Ref) Place() Ref { return Ref{Layout: r.Layout, Repository: r.Repository} }

// Canonical returns r with one of the spellings of its repository that mean the
// same: the host in lower case and without the port of HTTPS, Docker Hub by one name.
func (r Ref) Canonical() Ref {
	if repo, err := name.NewRepository(r.Repository); err == nil && r.Layout == "" {
		r.Repository = strings.TrimSuffix(strings.ToLower(repo.RegistryStr()), ":443") + "/" + repo.RepositoryStr()
	}
	return r
}

// isTag reports whether s has the form of a tag: 1 to 128 of letters, digits
// and _ . - without . or - at the beginning.
func isTag(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
		case i > 0 && (c == '.' || c == '-'):
		default:
			return false
		}
	}
	return 1 <= len(s) && len(s) <= 128
}

// maxRef bounds a reference in bytes, as Linux bounds a path.
const maxRef = 4096

// ParseRef reads a reference:
//
//	DIR                                      a directory, existing or to be made
//	oci-layout:DIR[:TAG|@sha256:HEX]         the same, with a tag or digest
//	[oci://]HOST[:PORT]/NAME[:TAG|@sha256:HEX]
//
// An existing directory of exactly that name wins over HOST/NAME. Text that
// could be either a new directory or a repository is an error that says how to
// write both; there is no default host.
func ParseRef(s string) (Ref, error) {
	r, err := parseRef(s)
	if err != nil {
		return Ref{}, err
	}
	// A path can be printable and its shortest form not ("/ /" is "/ "), and a
	// prefix can make it too long.
	text := r.String()
	if len(text) > maxRef {
		return Ref{}, fmt.Errorf("reference %q has more than %d bytes", printable(text, 80), maxRef)
	}
	if text != printable(text, maxRef) {
		return Ref{}, fmt.Errorf("reference %q: the path ends in a space: write it in another way", printable(s, 80))
	}
	return r, nil
}

func parseRef(s string) (Ref, error) {
	switch {
	case s == "":
		return Ref{}, fmt.Errorf("reference is empty: want a directory, oci-layout:DIR or HOST/NAME")
	case s != printable(s, maxRef):
		return Ref{}, fmt.Errorf("reference %q has control characters, double spaces or more than %d bytes", printable(s, 80), maxRef)
	}
	if rest, ok := strings.CutPrefix(s, "oci://"); ok {
		return parseRepository(s, rest)
	}
	if rest, ok := strings.CutPrefix(s, "oci-layout:"); ok {
		return parseLayout(s, rest)
	}
	if scheme, _, ok := strings.Cut(s, "://"); ok {
		return Ref{}, fmt.Errorf("reference %q: %s:// is not known here: write oci://HOST/NAME", s, scheme)
	}
	if isDir(s) {
		return Ref{Layout: filepath.Clean(s)}, nil
	}
	// Without the part that can only be a tag or digest, is it a path?
	base, _, hasDigest := strings.Cut(s, "@")
	host, path, slash := strings.Cut(base, "/")
	switch {
	case isPath(s):
	case slash && (strings.ContainsAny(host, ".:") || host == "localhost"):
		return parseRepository(s, s)
	case slash && path != "":
		return Ref{}, fmt.Errorf("reference %q: no such directory, and no host in front: write ./%s for a new directory, HOST/%s for a repository", s, s, s)
	}
	if hasDigest || strings.Contains(base[strings.LastIndexAny(base, `/\`)+1:], ":") && filepath.VolumeName(s) == "" {
		return Ref{}, fmt.Errorf("reference %q: no such directory: write oci-layout:%s for a tag or digest in a directory, HOST/NAME for a repository", s, s)
	}
	return Ref{Layout: filepath.Clean(s)}, nil
}

// isPath reports whether s can only be a path.
func isPath(s string) bool {
	return filepath.IsAbs(s) || s == "." || s == ".." || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") ||
		strings.HasPrefix(s, "~") || strings.Contains(s, `\`)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// cutDigest splits "…@sha256:HEX".
func cutDigest(whole, s string) (string, canon.Digest, error) {
	i := strings.LastIndex(s, "@")
	if i < 0 {
		return s, canon.Digest{}, nil
	}
	d, err := canon.ParseDigest(s[i+1:])
	if err != nil {
		return s, d, fmt.Errorf("reference %q: %w", whole, err)
	}
	return s[:i], d, nil
}

func parseLayout(whole, s string) (Ref, error) {
	if isDir(s) {
		return Ref{Layout: filepath.Clean(s)}, nil
	}
	path, d, err := cutDigest(whole, s)
	if err != nil && !strings.Contains(s[strings.LastIndex(s, "@"):], "/") {
		return Ref{}, err
	}
	r := Ref{Layout: path, Digest: d}
	if i := strings.LastIndexAny(path, `:/\`); i > len(filepath.VolumeName(path)) && path[i] == ':' && !isDir(path) {
		if !isTag(path[i+1:]) {
			return Ref{}, fmt.Errorf("reference %q: %q is not a tag: want up to 128 of A-Z a-z 0-9 _ . -", whole, path[i+1:])
		}
		r.Layout, r.Tag = path[:i], path[i+1:]
	}
	if r.Layout == "" {
		return Ref{}, fmt.Errorf("reference %q: the directory is missing: write oci-layout:DIR", whole)
	}
	r.Layout = filepath.Clean(r.Layout)
	return r, nil
}

func parseRepository(whole, s string) (Ref, error) {
	base, d, err := cutDigest(whole, s)
	if err != nil {
		return Ref{}, err
	}
	r := Ref{Repository: base, Digest: d}
	if i := strings.LastIndexAny(base, ":/"); i >= 0 && base[i] == ':' {
		if !isTag(base[i+1:]) {
			return Ref{}, fmt.Errorf("reference %q: %q is not a tag: want up to 128 of A-Z a-z 0-9 _ . -", whole, base[i+1:])
		}
		r.Repository, r.Tag = base[:i], base[i+1:]
	}
	switch host, path, _ := strings.Cut(r.Repository, "/"); {
	case host == "" || path == "":
		return Ref{}, fmt.Errorf("reference %q: want HOST/NAME, such as registry.example.org/models/web", whole)
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		return Ref{}, fmt.Errorf("reference %q: a host without a dot needs its port: write %s:443/%s", whole, host, path)
	}
	if _, err := name.NewRepository(r.Repository, name.StrictValidation); err != nil {
		return Ref{}, fmt.Errorf("reference %q: %s", whole, printable(err.Error(), maxMessage))
	}
	return r, nil
}
