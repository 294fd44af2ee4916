package sign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	rekorclient "github.com/sigstore/rekor-tiles/v2/pkg/client"
	"github.com/sigstore/rekor-tiles/v2/pkg/client/write"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore-go/pkg/tuf"
	"github.com/theupdateframework/go-tuf/v2/metadata/fetcher"

	"github.com/battle-hardened-ai/bhtrain/verify"
)

var (
	// ErrServices: a signing configuration or a trusted root that cannot be used.
	ErrServices = errors.New("signing services")

	// ErrService: a service was asked and did not give what it should. Its
	// message names the service.
	ErrService = errors.New("signing service")
)

const (
	maxConfig = 1 << 20                // bytes of a signing config or trusted root; public ones have 10 KiB
	timeout   = 30 * time.Second       // of one request with its repetitions; a log answers within a second
	attempts  = 3                      // of a request that fails for a passing reason
	pause     = 500 * time.Millisecond // before the second; twice as long before the third
)

// Services are the Sigstore services that take part in a signature, and the
// trusted root that their answers are held against. It is immutable.
type Services struct {
	authority  string   // certificate authority, "" for none
	timestamps []string // timestamp authorities, each of which is asked
	logs       []root.Service
	trusted    *root.TrustedRoot
	text       []byte // of trusted
}

// TrustedRoot is the text of the services' trusted root (trusted_root.json).
func (s *Services) TrustedRoot() []byte { return bytes.Clone(s.text) }

// Demand makes p, whose publishers are set, demand of every bundle what the
// services give.
func (s *Services) Demand(p *verify.Policy) {
	logs := len(s.logs)
	p.TrustedRoot, p.Timestamps, p.TransparencyLog = s.TrustedRoot(), len(s.timestamps), &logs
	certificates := slices.ContainsFunc(p.Publishers, func(id verify.Identity) bool { return id.Certificate != nil })
	p.InsecureIgnoreSCT = certificates && len(s.trusted.CTLogs()) == 0
}

// LoadServices reads a Sigstore signing config (v0.2) and a trusted root, as
// 'cosign signing-config create' and 'cosign trusted-root create' write them,
// and chooses the services valid at now as the config says: a certificate
// authority, timestamp authorities, and transparency logs. A file that cannot be
// used, and a service that would be asked without TLS and is not on this machine, is
// ErrServices.
func LoadServices(signingConfig, trustedRoot string, now time.Time) (*Services, error) {
	config, err := readConfig(signingConfig)
	if err != nil {
		return nil, err
	}
	trusted, err := readConfig(trustedRoot)
	if err != nil {
		return nil, err
	}
	s, err := newServices(config, trusted, now)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", signingConfig, trustedRoot, err)
	}
	return s, nil
}

func readConfig(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrServices, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrServices, err)
	}
	if len(b) > maxConfig {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrServices, path, maxConfig)
	}
	return b, nil
}

// PublicGood returns the services of the public Sigstore instance, whose signing
// config and trusted root come through TUF from a root that is part of
// sigstore-go. The folder cache keeps them until they expire.
func PublicGood(ctx context.Context, cache string, now time.Time) (*Services, error) {
	return servicesFrom(ctx, tuf.DefaultOptions().WithCachePath(cache), now)
}

// servicesFrom is PublicGood for any TUF repository.
func servicesFrom(ctx context.Context, options *tuf.Options, now time.Time) (*Services, error) {
	f := fetcher.NewDefaultFetcher()
	f.SetHTTPClient(&http.Client{Transport: transport{ctx}, Timeout: timeout})
	fail := func(what string, err error) (*Services, error) {
		return nil, fmt.Errorf("%w: %s of %s: %s", ErrServices, what, options.RepositoryBaseURL, plain(err))
	}
	client, err := tuf.New(options.WithContext(ctx).WithFetcher(f))
	if err != nil {
		return fail("TUF metadata", err)
	}
	config, err := client.GetTarget("signing_config.v0.2.json")
	if err != nil {
		return fail("signing config", err)
	}
	trusted, err := client.GetTarget("trusted_root.json")
	if err != nil {
		return fail("trusted root", err)
	}
	return newServices(config, trusted, now)
}

func newServices(config, trusted []byte, now time.Time) (*Services, error) {
	fail := func(what string, err error) (*Services, error) {
		return nil, fmt.Errorf("%w: %s: %s", ErrServices, what, verify.Printable(err.Error()))
	}
	text, err := root.NewSigningConfigProtobuf(config)
	if err != nil {
		return fail("signing config", err)
	}
	c, err := root.NewSigningConfigFromProtobuf(text)
	if err != nil {
		return fail("signing config", err)
	}
	s := &Services{text: bytes.Clone(trusted)}
	if s.trusted, err = root.NewTrustedRootFromJSON(trusted); err != nil {
		return fail("trusted root", err)
	}
	if all := c.FulcioCertificateAuthorityURLs(); len(all) > 0 {
		one, err := root.SelectService(all, sign.FulcioAPIVersions, now)
		if err != nil {
			return fail("certificate authorities", err)
		}
		s.authority = one.URL
	}
	if all := c.TimestampAuthorityURLs(); len(all) > 0 {
		if text.GetTsaConfig() == nil {
			return fail("timestamp authorities", errors.New("no tsaConfig says how many to ask"))
		}
		chosen, err := root.SelectServices(all, c.TimestampAuthorityURLsConfig(), sign.TimestampAuthorityAPIVersions, now)
		if err != nil {
			return fail("timestamp authorities", err)
		}
		for _, one := range chosen {
			s.timestamps = append(s.timestamps, one.URL)
		}
	}
	if all := c.RekorLogURLs(); len(all) > 0 {
		if text.GetRekorTlogConfig() == nil {
			return fail("transparency logs", errors.New("no rekorTlogConfig says how many to ask"))
		}
		if s.logs, err = root.SelectServices(all, c.RekorLogURLsConfig(), sign.RekorAPIVersions, now); err != nil {
			return fail("transparency logs", err)
		}
	}
	for _, address := range s.all() {
		u, err := url.Parse(address)
		if err == nil {
			err = checkURL(u)
		}
		if err != nil {
			return fail("address of a service", err)
		}
	}
	return s, nil
}

// all are the addresses of all services.
func (s *Services) all() []string {
	list := append([]string{}, s.timestamps...)
	if s.authority != "" {
		list = append(list, s.authority)
	}
	for _, l := range s.logs {
		list = append(list, l.URL)
	}
	return list
}

// certificate says how the certificate of one signature is to be had.
func (s *Signer) certificate(ctx context.Context) (sign.BundleOptions, error) {
	token, err := s.token(ctx)
	if err != nil {
		return sign.BundleOptions{}, err
	}
	return sign.BundleOptions{
		CertificateProvider: authority{s.services.authority, sign.NewFulcio(&sign.FulcioOptions{
			BaseURL: strings.TrimSuffix(s.services.authority, "/"), Timeout: timeout, Transport: transport{ctx},
		})},
		CertificateProviderOptions: &sign.CertificateProviderOptions{IDToken: token},
	}, nil
}

// authority is a Fulcio whose errors say that it is one and keep the token out.
type authority struct {
	address string
	fulcio  *sign.Fulcio
}

func (a authority) GetCertificate(ctx context.Context, pair sign.Keypair, o *sign.CertificateProviderOptions) ([]byte, error) {
	der, err := a.fulcio.GetCertificate(ctx, pair, o)
	if err != nil {
		return nil, failed(ctx, "certificate authority", a.address, err, o.IDToken)
	}
	return der, nil
}

// witness adds timestamps and log entries to a signed bundle.
func (s *Services) witness(ctx context.Context, b *protobundle.Bundle, pub verify.Key) error {
	material := b.GetVerificationMaterial()
	for _, address := range s.timestamps {
		tsa := sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{URL: address, Timeout: timeout, Transport: transport{ctx}})
		stamp, err := tsa.GetTimestamp(ctx, b.GetDsseEnvelope().GetSignatures()[0].GetSig())
		if err != nil {
			return failed(ctx, "timestamp authority", address, err)
		}
		if material.TimestampVerificationData == nil {
			material.TimestampVerificationData = &protobundle.TimestampVerificationData{}
		}
		data := material.TimestampVerificationData
		data.Rfc3161Timestamps = append(data.Rfc3161Timestamps, &protocommon.RFC3161SignedTimestamp{SignedTimestamp: stamp})
	}
	for _, l := range s.logs {
		options := &sign.RekorOptions{BaseURL: l.URL, Version: l.MajorAPIVersion, Timeout: timeout, Retries: attempts - 1}
		var err error
		if options.Version == 2 {
			options.ClientV2, err = write.NewWriter(l.URL, rekorclient.WithTimeout(timeout), rekorclient.WithUserAgent("bhtrain"))
		}
		if err == nil {
			err = sign.NewRekor(options).GetTransparencyLogEntry(ctx, verifierPEM(b, pub), b)
		}
		if err != nil {
			return failed(ctx, "transparency log", l.URL, err)
		}
	}
	return nil
}

// failed says which service failed.
func failed(ctx context.Context, what, address string, err error, secrets ...string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %s %s: %s", ErrService, what, address, plain(err, secrets...))
}

// plain returns the words of an error from a library or a service, without
// secrets, fit for a terminal.
func plain(err error, secrets ...string) string {
	var u *url.Error
	if errors.As(err, &u) {
		if u.Timeout() {
			return fmt.Sprintf("no complete answer within %s", timeout)
		}
		err = u.Err // the address is said already, and could hold a query
	}
	text := err.Error()
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "…")
		}
	}
	return verify.Printable(text)
}

// checkURL refuses services that would be asked without TLS over a network.
func checkURL(u *url.URL) error {
	switch host := u.Hostname(); {
	case host == "" || u.User != nil:
		return fmt.Errorf("%q: want https://HOST", u.Redacted())
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && (host == "localhost" || net.ParseIP(host).IsLoopback()):
		return nil
	}
	return fmt.Errorf("%q: want https, or http on this machine", u.Redacted())
}

// transport sends the requests that the libraries make: only to where checkURL
// allows, without following redirects (a token goes to the address that the operator
// named and to no other), again after a passing failure, and not after
// ctx has ended, which the libraries' requests do not know of.
type transport struct{ ctx context.Context }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := checkURL(req.URL); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	stop := context.AfterFunc(t.ctx, func() { cancel(context.Cause(t.ctx)) })
	end := func() { stop(); cancel(nil) }
	wait := pause
	for try := 1; ; try++ {
		again := req.Clone(ctx)
		if req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				end()
				return nil, err
			}
			again.Body = body
		}
		resp, err := http.DefaultTransport.RoundTrip(again)
		switch {
		case err == nil && resp.StatusCode >= 300 && resp.StatusCode < 400:
			resp.Body.Close()
			end()
			return nil, fmt.Errorf("HTTP status %d: redirects are not followed", resp.StatusCode)
		case err == nil && resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500:
			resp.Body = &body{resp.Body, end}
			return resp, nil
		case err == nil:
			resp.Body.Close()
			err = fmt.Errorf("HTTP status %d, %d times", resp.StatusCode, attempts)
		}
		if try == attempts || ctx.Err() != nil {
			end()
			return nil, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// body ends the context of its request when it is closed.
type body struct {
	io.ReadCloser
	end func()
}

func (b *body) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}
