package verify

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
)

// Identity is one who may sign something: the holder of a key, or whoever a
// certificate authority of the trusted root gives a certificate to. Exactly
// one of Key and Certificate is set.
type Identity struct {
	Name        string               // what verdicts call it
	Key         Key                  // ECDSA on P-256
	Certificate *CertificateIdentity // nil for a key

	// Signatures count when a trusted time of theirs is within these, both
	// included. The zero time is no bound.
	NotBefore, NotAfter time.Time
}

// CertificateIdentity is what a certificate must say. All that is not empty is
// compared, byte by byte.
type CertificateIdentity struct {
	Issuer           string // of the OIDC token
	SAN              string // subject alternative name: a URI or a mail address
	SANRegexp        string // in place of SAN: an RE2 expression that must match all of it
	SourceRepository string // URI; extension 1.3.6.1.4.1.57264.1.12
	SourceRef        string // such as refs/heads/main; extension .14
	Workflow         string // URI of the build configuration, with its ref; extension .18

	san *regexp.Regexp // SANRegexp, anchored
}

// String is the name and what the identity consists of, in one line.
func (id Identity) String() string {
	if id.Certificate == nil {
		return fmt.Sprintf("%s, key %s", id.Name, id.Key.ID())
	}
	return fmt.Sprintf("%s, %s", id.Name, id.Certificate)
}

// String is what c consists of, in one line.
func (c *CertificateIdentity) String() string {
	text := "certificate of " + c.SAN
	if c.SANRegexp != "" {
		text = "certificate of a name matching " + c.SANRegexp
	}
	text += " by " + c.Issuer
	for _, more := range []struct{ name, value string }{
		{"repository", c.SourceRepository}, {"ref", c.SourceRef}, {"workflow", c.Workflow},
	} {
		if more.value != "" {
			text += fmt.Sprintf(", %s %s", more.name, more.value)
		}
	}
	return text
}

// check reports what makes id unusable, and compiles its expression.
func (id *Identity) check() error {
	if err := checkName(id.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	switch {
	case id.Key.IsZero() && id.Certificate == nil:
		return fmt.Errorf("%q has no key and no certificate", id.Name)
	case !id.Key.IsZero() && id.Certificate != nil:
		return fmt.Errorf("%q has both a key and a certificate; make two entries", id.Name)
	case !id.NotBefore.IsZero() && !id.NotAfter.IsZero() && !id.NotAfter.After(id.NotBefore):
		return fmt.Errorf("%q: not_after is not after not_before", id.Name)
	}
	if id.Certificate == nil {
		return nil
	}
	c := *id.Certificate // the caller's own is left alone
	id.Certificate = &c
	if err := c.check(); err != nil {
		return fmt.Errorf("%q: certificate: %w", id.Name, err)
	}
	return nil
}

func (c *CertificateIdentity) check() error {
	for _, f := range []struct{ name, value string }{
		{"issuer", c.Issuer}, {"san", c.SAN}, {"san_regexp", c.SANRegexp},
		{"source_repository", c.SourceRepository}, {"source_ref", c.SourceRef}, {"workflow", c.Workflow},
	} {
		if err := checkURI(f.value); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	switch {
	case c.Issuer == "":
		return errors.New("issuer: missing; whom any issuer may name is anybody")
	case c.SAN == "" && c.SANRegexp == "":
		return errors.New("san: missing; an issuer alone names everybody it knows")
	case c.SAN != "" && c.SANRegexp != "":
		return errors.New("both san and san_regexp; keep one")
	}
	if u, err := url.Parse(c.Issuer); err != nil || u.Scheme == "" || u.Host == "" {
		return fmt.Errorf("issuer %q: want its URL", Printable(c.Issuer))
	}
	if c.SANRegexp != "" {
		// The text alone first: "a)|(?:b" must not get out of the group.
		if _, err := regexp.Compile(c.SANRegexp); err != nil {
			return fmt.Errorf("san_regexp: %w", err)
		}
		re, err := regexp.Compile(`\A(?:` + c.SANRegexp + `)\z`)
		if err != nil {
			return fmt.Errorf("san_regexp: %w", err)
		}
		if re.MatchString("") {
			return errors.New("san_regexp matches the empty name, so it asks for nothing")
		}
		c.san = re
	}
	return nil
}

// matches reports how the certificate differs from what c asks for; nil if it
// does not.
func (c *CertificateIdentity) matches(have certificate.Summary) error {
	for _, f := range []struct{ name, have, want string }{
		{"issuer", have.Issuer, c.Issuer},
		{"name", have.SubjectAlternativeName, c.SAN},
		{"source repository", have.SourceRepositoryURI, c.SourceRepository},
		{"source ref", have.SourceRepositoryRef, c.SourceRef},
		{"workflow", have.BuildConfigURI, c.Workflow},
	} {
		if f.want != "" && f.have != f.want {
			return fmt.Errorf("its %s is %q, want %q", f.name, f.have, f.want)
		}
	}
	if c.san != nil && !c.san.MatchString(have.SubjectAlternativeName) {
		return fmt.Errorf("its name %q does not match %s", have.SubjectAlternativeName, c.SANRegexp)
	}
	return nil
}

// within reports whether t is in the validity window of id.
func (id *Identity) within(t time.Time) bool {
	return (id.NotBefore.IsZero() || !t.Before(id.NotBefore)) && (id.NotAfter.IsZero() || !t.After(id.NotAfter))
}

// same reports whether one signature could be that of both. For two
// expressions this cannot be decided; they are the same if they are equal.
func (id *Identity) same(other *Identity) bool {
	a, b := id.Certificate, other.Certificate
	if a == nil || b == nil {
		return a == nil && b == nil && id.Key.Equal(other.Key)
	}
	if a.Issuer != b.Issuer {
		return false
	}
	switch {
	case a.san != nil && b.san != nil:
		return a.SANRegexp == b.SANRegexp
	case a.san != nil:
		return a.san.MatchString(b.SAN)
	case b.san != nil:
		return b.san.MatchString(a.SAN)
	}
	return a.SAN == b.SAN
}

// owners returns the owners of the source repositories that c names: host and
// first element of the path, in lower case as forges compare them.
func (c *CertificateIdentity) owners() []string {
	if c == nil {
		return nil
	}
	var list []string
	for _, s := range []string{c.SAN, c.SourceRepository, c.Workflow} {
		if o := ownerOf(s); o != "" {
			list = append(list, o)
		}
	}
	return list
}

func ownerOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" {
		return ""
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(path.Clean(u.Path), "/"), "/")
	if first == "" || first == "." {
		return ""
	}
	return strings.ToLower(u.Host + "/" + first)
}
