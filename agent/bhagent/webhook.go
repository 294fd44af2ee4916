package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/battle-hardened-ai/bhtrain/internal/cli"
)

// webhook posts findings as JSON lines (application/x-ndjson).
type webhook struct {
	url         string
	name, value string // of the header that says who asks; "" for none
	client      *http.Client
}

const (
	webhookTimeout = 20 * time.Second
	maxSecret      = 8 << 10 // bytes
)

// newWebhook checks the address and reads the files with the secret header,
// one line "Name: value", and the authorities to believe, both optional.
func newWebhook(address, headerFile, caFile string) (*webhook, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, cli.Usagef("--webhook: want https://HOST/PATH")
	case u.User != nil:
		return nil, cli.Usagef("--webhook: leave out user and password; --webhook-header-file takes a secret")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, cli.Usagef("--webhook: findings tell who attacks whom: want https:// for another machine")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		b, err := cli.ReadFile(caFile, 1<<20)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(b) {
			return nil, cli.Usagef("%s: no certificate in PEM", caFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	w := &webhook{url: address, client: &http.Client{
		Transport: transport, Timeout: webhookTimeout,
		// The secret is for the host that was named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if headerFile != "" {
		b, err := cli.ReadFile(headerFile, maxSecret)
		if err != nil {
			return nil, err
		}
		name, value, ok := strings.Cut(strings.TrimSpace(string(b)), ":")
		w.name, w.value = name, strings.TrimSpace(value)
		if !ok || w.value == "" || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(w.value) {
			return nil, cli.Usagef("%s: want one line such as \"Authorization: Bearer …\"", headerFile)
		}
	}
	return w, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// send posts a batch as one request, which is taken whole or not at all.
func (w *webhook) send(ctx context.Context, batch []finding) (int, error) {
	var body bytes.Buffer
	for _, f := range batch {
		body.Write(f.line)
		body.WriteByte('\n')
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, &body)
	if err != nil {
		return 0, permanent{err, len(batch)}
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.Header.Set("User-Agent", "bhagent/"+cli.ReadBuild().Version)
	if w.name != "" {
		r.Header.Set(w.name, w.value)
	}
	answer, err := w.client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the address, which may hold a secret
		}
		return 0, err
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	switch c := answer.StatusCode; {
	case c/100 == 2:
		return len(batch), nil
	case c/100 == 5, c == http.StatusTooManyRequests, c == http.StatusRequestTimeout:
		return 0, later{fmt.Errorf("answered %d", c), retryAfter(answer.Header.Get("Retry-After"), time.Now())}
	default:
		return 0, permanent{fmt.Errorf("answered %d", c), len(batch)}
	}
}

// retryAfter is how long a Retry-After header, in seconds or as a date, asks to
// wait; 0 without one that can be read (RFC 9110, section 10.2.3).
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
