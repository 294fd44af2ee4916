package oras

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/net/publicsuffix"
)

// errPolicy: the registry wants to lead us where no registry may.
var errPolicy = fmt.Errorf("%w: the registry must not ask for this", ErrInvalid)

// errBodyTooLong: an answer has more bytes than were asked for.
var errBodyTooLong = fmt.Errorf("%w: the answer is longer than its limit", ErrInvalid)

// session is how a registry is spoken to once it has said how.
type session struct {
	client  *http.Client
	scheme  string      // of the registry's URLs
	resumed atomic.Bool // it was kept by Sessions: what it knows of the registry may have passed
}

// dial asks the registry how to authenticate, gets a token where one is
// needed, and returns a session for the repository.
//
// A registry on the loopback interface of which no credentials are known rarely
// has TLS or asks for a token: what is to be read from it is asked for at once, by
// greet with a session of plain HTTP. If greet does not get it, all goes the long way.
func dial(ctx context.Context, repo name.Repository, opt Options, greet func(*session) bool) (*session, error) {
	agent := opt.UserAgent
	if agent == "" {
		agent = "bhtrain"
	}
	guard := newGuard(repo.Registry, opt)
	rt := transport.NewUserAgent(guard, agent)
	auth := authn.Anonymous
	if !opt.Anonymous {
		keys := opt.keychain
		if keys == nil {
			keys = authn.DefaultKeychain
		}
		var err error
		if auth, err = authn.Resolve(ctx, keys, repo); err != nil {
			return nil, fmt.Errorf("%w: credentials for %s: %s", ErrRefused, repo.RegistryStr(), printable(err.Error(), maxMessage))
		}
	}
	if auth == authn.Anonymous && !opt.Write && isLoopback(repo.RegistryStr()) {
		s := &session{client: &http.Client{Transport: rt, CheckRedirect: checkRedirect}, scheme: "http"}
		if greet(s) {
			return s, nil
		}
	}
	ping, err := transport.Ping(ctx, repo.Registry, rt)
	if err != nil {
		// Where both were tried, it is TLS that failed: plain HTTP is not allowed.
		var plain *plainError
		if tls := guard.failed.Load(); tls != nil && errors.As(err, &plain) {
			plain.tls = tls
			err = plain
		}
		return nil, err
	}
	scheme := "https"
	if ping.Insecure {
		scheme = "http"
	}
	token := &transport.Token{}
	if strings.EqualFold(ping.Scheme, "bearer") {
		// The registry names the server that gets the password.
		if realm := ping.Parameters["realm"]; auth != authn.Anonymous && !samePlace(repo.RegistryStr(), realm) {
			return nil, fmt.Errorf("%w: the credentials for %s, sent to %q, which is another site; log out of it to go on without them",
				errPolicy, repo.RegistryStr(), printable(realm, 80))
		}
		scope := repo.Scope(transport.PullScope)
		if opt.Write {
			scope = repo.Scope(transport.PushScope)
		}
		if token, err = transport.Exchange(ctx, repo.Registry, auth, rt, []string{scope}, ping); err != nil {
			return nil, err
		}
		if token.Token == "" {
			token.Token = token.AccessToken
		}
	}
	rt, err = transport.FromToken(repo.Registry, auth, rt, ping, token)
	if err != nil {
		return nil, err
	}
	return &session{client: &http.Client{Transport: rt, CheckRedirect: checkRedirect}, scheme: scheme}, nil
}

// samePlace reports whether a token server is the registry itself or belongs
// to the same registrable domain (auth.example.org for registry.example.org).
func samePlace(registry, realm string) bool {
	u, err := url.Parse(realm)
	if err != nil {
		return false
	}
	if u.Host == registry {
		return true
	}
	host, _, err := net.SplitHostPort(registry)
	if err != nil {
		host = registry
	}
	if net.ParseIP(host) != nil {
		return false
	}
	a, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(host))
	if err != nil {
		return false
	}
	b, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(u.Hostname()))
	return err == nil && a == b
}

// checkRedirect bounds how often a request is sent elsewhere. The guard judges
// the target and lets only reading requests be; credentials are added for the
// registry alone.
func checkRedirect(_ *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d redirects", errPolicy, maxRedirects)
	}
	return nil
}

// plainError: plain HTTP to the registry, which is not allowed, was tried.
type plainError struct {
	host string
	tls  *url.Error // why HTTPS to it failed before, if it did
}

func (e *plainError) Error() string {
	if e.tls != nil {
		return e.tls.Error()
	}
	return fmt.Sprintf("no encrypted connection to %s: allow plain HTTP if it is meant", printable(e.host, 80))
}

func (e *plainError) Unwrap() error {
	if e.tls != nil {
		return e.tls
	}
	return nil
}

// guard is under everything that is sent, token requests and redirects
// included. It refuses unencrypted connections and addresses inside the own
// network unless they are the registry's, and cuts off over-long bodies.
type guard struct {
	inner *http.Transport
	host  string          // of the registry
	http  bool            // plain HTTP is allowed to it
	named map[string]bool // host:port that the operator named: the registry, the proxy

	failed atomic.Pointer[url.Error] // the last failure of an HTTPS request to the registry

	// Where connections to the registry went: into a private network, to anywhere else.
	private, elsewhere atomic.Bool
}

func newGuard(reg name.Registry, opt Options) *guard {
	g := &guard{host: strings.ToLower(reg.RegistryStr()), http: opt.PlainHTTP || isLoopback(reg.RegistryStr()), named: map[string]bool{}}
	plain := &net.Dialer{Timeout: dialTimeout}
	// Control sees the address that the name stands for, at the moment of its use.
	outside := &net.Dialer{Timeout: dialTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || !g.mayLeadTo(ap.Addr()) {
			return inOwnNetwork(address)
		}
		return nil
	}}
	lead := outside.DialContext
	if opt.outside != nil {
		lead = opt.outside
	}
	registry := map[string]bool{}
	for _, scheme := range []string{"https", "http"} {
		u := &url.URL{Scheme: scheme, Host: g.host}
		registry[hostPort(u)] = true
		g.named[hostPort(u)] = true
		// A proxy is named by the operator, not by the registry.
		if p, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err == nil && p != nil {
			g.named[hostPort(p)] = true
		}
	}
	g.inner = &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			address = strings.ToLower(address)
			if !g.named[address] {
				return lead(ctx, network, address)
			}
			c, err := plain.DialContext(ctx, network, address)
			if err == nil && registry[address] {
				g.reached(c.RemoteAddr().String())
			}
			return c, err
		},
		TLSClientConfig:        &tls.Config{RootCAs: opt.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true,
		MaxResponseHeaderBytes: maxAnswer,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        15 * time.Second,
		DisableCompression:     true, // bytes are hashed and bounded as they are sent
	}
	return g
}

// reached takes note of where a connection to the registry went.
func (g *guard) reached(address string) {
	if ap, err := netip.ParseAddrPort(address); err == nil && isPrivate(ap.Addr()) {
		g.private.Store(true)
	} else {
		g.elsewhere.Store(true)
	}
}

// mayLeadTo reports whether the registry may send us to ip: into the public
// internet, and from within a private network to that. Loopback, link-local and
// the like are never for it to name.
func (g *guard) mayLeadTo(ip netip.Addr) bool {
	return isPublic(ip) || isPrivate(ip) && g.private.Load() && !g.elsewhere.Load()
}

func inOwnNetwork(address string) error {
	return fmt.Errorf("%w: a connection to %s, in the own network; let it serve its blobs itself", errPolicy, printable(address, 80))
}

// hostPort is the address that net/http dials for u.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	return strings.ToLower(net.JoinHostPort(u.Hostname(), port))
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	registry := strings.EqualFold(req.URL.Host, g.host)
	switch {
	case req.URL.Scheme == "https":
	case req.URL.Scheme == "http" && registry && g.http:
	case req.URL.Scheme == "http" && registry:
		return nil, &plainError{host: g.host}
	default:
		return nil, fmt.Errorf("%w: an unencrypted connection to %s", errPolicy, printable(req.URL.Host, 80))
	}
	// A proxy would connect where the dialer cannot look.
	if ip, err := netip.ParseAddr(req.URL.Hostname()); err == nil && !g.named[hostPort(req.URL)] && !g.mayLeadTo(ip) {
		return nil, inOwnNetwork(req.URL.Host)
	}
	resp, err := g.inner.RoundTrip(req)
	if err != nil {
		if req.URL.Scheme == "https" && registry {
			g.failed.Store(&url.Error{Op: "Get", URL: req.URL.Redacted(), Err: err})
		}
		return nil, err
	}
	// The client of go-containerregistry that fetches tokens would send a POST, and
	// the refresh token in it, wherever it is told to.
	if req.Method != http.MethodGet && req.Method != http.MethodHead && resp.StatusCode/100 == 3 {
		resp.Body.Close()
		return nil, fmt.Errorf("%w: a redirect of %s", errPolicy, req.Method)
	}
	limit := int64(maxAnswer)
	if n, ok := req.Context().Value(bodyLimitKey{}).(int64); ok && resp.StatusCode == http.StatusOK {
		limit = max(limit, n) // a token, fetched on the way, must fit too
	}
	resp.Body = &boundedBody{resp.Body, limit, resp.StatusCode >= 400}
	return resp, nil
}

type bodyLimitKey struct{}

// withBodyLimit bounds the body of a successful answer to n bytes if that is
// more than maxAnswer. All other bodies are bounded by maxAnswer.
func withBodyLimit(ctx context.Context, n int64) context.Context {
	return context.WithValue(ctx, bodyLimitKey{}, n)
}

// boundedBody fails past left bytes. Of a failure, whose status says it all, the
// rest is left out instead: pages of proxies can be long.
type boundedBody struct {
	io.ReadCloser
	left    int64
	failure bool
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case int64(n) <= b.left:
		b.left -= int64(n)
		return n, err
	case b.failure:
		n, b.left = int(b.left), 0
		return n, io.EOF
	}
	return 0, errBodyTooLong
}

// isLoopback reports whether a registry is named by a loopback address or a
// localhost name.
func isLoopback(registry string) bool {
	host, _, err := net.SplitHostPort(registry)
	if err != nil {
		host = strings.Trim(registry, "[]")
	}
	host = strings.ToLower(host)
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// notPublic are the blocks, beyond those that package netip knows, that are not
// addresses of the public internet (IANA special-purpose registries). The last
// two embed IPv4 addresses.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("2002::/16"),
}

// metadata are addresses within private blocks at which clouds tell machines
// their secrets. Others are link-local.
var metadata = []netip.Prefix{
	netip.MustParsePrefix("fd00:ec2::/32"),
	netip.MustParsePrefix("fd20:ce::/32"),
}

// isPrivate reports whether ip is of a private network of several machines.
func isPrivate(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsPrivate() && !slices.ContainsFunc(metadata, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func isPublic(ip netip.Addr) bool {
	ip = ip.Unmap()
	if !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return false
	}
	return !slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// certificateProblem reports whether TLS failed over the server's identity,
// which trying again will not mend.
func certificateProblem(err error) bool {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var verify *tls.CertificateVerificationError
	return errors.As(err, &unknown) || errors.As(err, &invalid) || errors.As(err, &host) || errors.As(err, &verify)
}
