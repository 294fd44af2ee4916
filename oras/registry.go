package oras

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// remote is one repository of a registry that speaks the OCI distribution
// specification. Authentication is go-containerregistry's; the requests are
// made here, so that every body is bounded and hashed by one piece of code.
type remote struct {
	repo    name.Repository
	opt     Options
	session atomic.Pointer[session]
	renewal sync.Mutex // held while the session is replaced
	timeout time.Duration
	pause   time.Duration
	listing sync.Mutex // held while the index at a fallback tag is changed

	mu   sync.Mutex
	kept []keptManifest // resolved, and not asked for yet
}

// keptManifest is a manifest that was read to learn its digest: whoever resolves
// a name asks for the manifest next. It is given away once.
type keptManifest struct {
	digest canon.Digest
	bytes  []byte
}

// maxKept is how many manifests are kept so, each of at most MaxOwnManifest bytes.
const maxKept = 4

// openRegistry opens a repository. The tag or digest first, if not "", is what
// will be asked for next.
func openRegistry(ctx context.Context, repository, first string, opt Options) (*remote, error) {
	var nameOpts = []name.Option{name.StrictValidation}
	if opt.PlainHTTP {
		nameOpts = append(nameOpts, name.Insecure)
	}
	repo, err := name.NewRepository(repository, nameOpts...)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrInvalid, printable(err.Error(), maxMessage))
	}
	r := &remote{repo: repo, opt: opt, timeout: opt.Timeout, pause: opt.pause}
	if r.timeout <= 0 {
		r.timeout = defaultTimeout
	}
	if r.pause <= 0 {
		r.pause = firstPause
	}
	err = r.attempt(ctx, "opening", func(ctx context.Context) error {
		s, err := dial(ctx, repo, opt, func(s *session) bool { return first != "" && r.greet(ctx, s, first) })
		if err == nil {
			r.session.Store(s)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// greet asks for the manifest called name in place of asking whether the
// registry answers, and reports whether it got it. What it got is nothing that a
// later request would not get and check.
func (r *remote) greet(ctx context.Context, s *session, name string) bool {
	r.session.Store(s)
	b, err := r.readManifest(ctx, name, canon.Digest{}, MaxManifest)
	if err != nil {
		return false
	}
	r.keep(canon.Sum(b), b)
	return true
}

// keep keeps a manifest whose digest is d until it is asked for.
func (r *remote) keep(d canon.Digest, b []byte) {
	if len(b) > MaxOwnManifest {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) == maxKept {
		r.kept = slices.Delete(r.kept, 0, 1)
	}
	r.kept = append(r.kept, keptManifest{d, b})
}

// take gives away the manifest whose digest is d, nil if it is not kept.
func (r *remote) take(d canon.Digest) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.kept, func(k keptManifest) bool { return k.digest == d })
	if i < 0 {
		return nil
	}
	b := r.kept[i].bytes
	r.kept = slices.Delete(r.kept, i, i+1)
	return b
}

func (r *remote) String() string { return Ref{Repository: r.repo.Name()}.String() }

// passing marks an error after which the same request may succeed.
type passing struct {
	error
	after time.Duration // what the server asked for, 0 if nothing
}

func (p *passing) Unwrap() error { return p.error }

// attempt runs f until it succeeds or fails for good, at most attempts times,
// and gives its error place, class and remedy. f has the request timeout.
func (r *remote) attempt(ctx context.Context, what string, f func(context.Context) error) error {
	return r.attemptFor(ctx, what, r.timeout, f)
}

func (r *remote) attemptFor(ctx context.Context, what string, limit time.Duration, f func(context.Context) error) error {
	pause := r.pause
	for try := 1; ; try++ {
		one, cancel := context.WithTimeout(ctx, limit)
		s := r.session.Load()
		err := f(one)
		if refuses(err) && r.renew(one, s) {
			err = f(one)
		}
		cancel()
		if err == nil {
			return nil
		}
		again := retryable(err)
		if again == nil || try == attempts || ctx.Err() != nil {
			return r.explain(ctx, what, err)
		}
		wait := max(pause, min(again.after, maxPause))
		pause *= 4
		select {
		case <-ctx.Done():
			return r.explain(ctx, what, err)
		case <-time.After(wait):
		}
	}
}

// refuses reports whether a registry refuses for who is asking.
func refuses(err error) bool {
	var t *transport.Error
	return errors.As(err, &t) && (t.StatusCode == http.StatusUnauthorized || t.StatusCode == http.StatusForbidden)
}

// renew opens the registry anew if the session s, in which it refused, was kept
// from before, since credentials may have changed. It reports whether there is
// another session now.
func (r *remote) renew(ctx context.Context, s *session) bool {
	r.renewal.Lock()
	defer r.renewal.Unlock()
	if r.session.Load() != s {
		return true // somebody else did
	}
	if s == nil || !s.resumed.Load() {
		return false
	}
	next, err := dial(ctx, r.repo, r.opt, func(*session) bool { return false })
	if err != nil {
		return false
	}
	r.session.Store(next)
	return true
}

// retryable returns how err passes, or nil if it will not.
func retryable(err error) *passing {
	var p *passing
	if errors.As(err, &p) {
		return p
	}
	var t *transport.Error
	var u *url.Error
	switch {
	case errors.As(err, &t):
		if t.StatusCode == http.StatusTooManyRequests || t.StatusCode == http.StatusRequestTimeout || t.StatusCode >= 500 {
			return &passing{error: err}
		}
	case isClass(err), certificateProblem(err):
	case errors.As(err, &u), errors.Is(err, io.ErrUnexpectedEOF):
		return &passing{error: err}
	}
	return nil
}

// isClass reports whether err has one of our classes already.
func isClass(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrRefused) || errors.Is(err, ErrInvalid) ||
		errors.Is(err, ErrExists) || errors.Is(err, ErrUnreachable)
}

// oneLine is an error that may repeat words of the registry.
type oneLine struct{ error }

func (e oneLine) Error() string { return printable(withoutQueries(e.error.Error()), 4*maxMessage) }
func (e oneLine) Unwrap() error { return e.error }

var query = regexp.MustCompile(`(https?://[^\s"?]*)\?[^\s"]*`)

// withoutQueries cuts the queries off the URLs in a text: registries redirect to
// URLs whose query is the right to fetch, and errors end up in logs and on pages.
func withoutQueries(text string) string { return query.ReplaceAllString(text, "$1") }

// explain gives err its class and says what can be done. A registry of which
// there is anything to explain, other than that it lacks something, is not kept open.
func (r *remote) explain(ctx context.Context, what string, err error) error {
	err = r.classify(ctx, what, err)
	if !errors.Is(err, ErrNotFound) {
		r.opt.Sessions.forget(r)
	}
	return err
}

func (r *remote) classify(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %s: %w", r, what, context.Cause(ctx))
	}
	err = invalid(err)
	if isClass(err) {
		return fmt.Errorf("%s: %s: %w", r, what, oneLine{err})
	}
	text := printable(withoutQueries(err.Error()), maxMessage)
	orPlain := ""
	if plain := (*plainError)(nil); errors.As(err, &plain) && plain.tls != nil {
		orPlain = ", or allow plain HTTP (--plain-http) if it has no TLS"
	}
	if certificateProblem(err) {
		return fmt.Errorf("%s: %s: %w: %s: check the host name, or name its certificate authority%s", r, what, ErrUnreachable, text, orPlain)
	}
	var t *transport.Error
	if errors.As(err, &t) {
		said := http.StatusText(t.StatusCode)
		for _, d := range t.Errors {
			said += ": " + string(d.Code) + " " + d.Message
		}
		said = printable(strconv.Itoa(t.StatusCode)+" "+said, maxMessage)
		switch {
		case t.StatusCode == http.StatusNotFound:
			return fmt.Errorf("%s: %s: %w (%s)", r, what, ErrNotFound, said)
		case t.StatusCode == http.StatusUnauthorized, t.StatusCode == http.StatusForbidden:
			return fmt.Errorf("%s: %s: %w: %s: log in to %s with docker, crane or oras, or ask for the right", r, what, ErrRefused, said, r.repo.RegistryStr())
		case t.StatusCode == http.StatusTooManyRequests, t.StatusCode == http.StatusRequestTimeout, t.StatusCode >= 500:
			return fmt.Errorf("%s: %s: %w: %s: try again later", r, what, ErrUnreachable, said)
		}
		return fmt.Errorf("%s: %s: %w: %s", r, what, ErrRefused, said)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %s: %w: no complete answer in time: try again later or raise the timeout", r, what, ErrUnreachable)
	}
	return fmt.Errorf("%s: %s: %w: %s: check host, port and network%s", r, what, ErrUnreachable, text, orPlain)
}

// request sends one request below /v2/<name>/ or to an absolute URL, and
// returns the answer if its status is among ok. No body of an answer is longer
// than limit.
func (r *remote) request(ctx context.Context, method, target string, h http.Header, body io.Reader, size, limit int64, ok ...int) (*http.Response, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("%w: address from the registry: %s", ErrInvalid, printable(err.Error(), maxMessage))
	}
	s := r.session.Load()
	switch u.Host {
	case "":
		u = &url.URL{Scheme: s.scheme, Host: r.repo.RegistryStr(), Path: "/v2/" + r.repo.RepositoryStr() + "/" + u.Path, RawQuery: u.RawQuery}
	case r.repo.RegistryStr():
		u.Scheme = s.scheme // a registry behind a proxy may not know its own
	}
	req, err := http.NewRequestWithContext(withBodyLimit(ctx, limit), method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if h != nil {
		req.Header = h
	}
	req.ContentLength = size
	if size == 0 {
		req.Body = nil
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, ok...); err != nil {
		resp.Body.Close()
		return nil, withRetryAfter(err, resp)
	}
	return resp, nil
}

// withRetryAfter adds to a passing failure the pause that the server asks for.
func withRetryAfter(err error, resp *http.Response) error {
	if p := retryable(err); p != nil {
		if s, perr := strconv.Atoi(resp.Header.Get("Retry-After")); perr == nil && s > 0 {
			p.after = time.Duration(min(s, int(maxPause/time.Second))) * time.Second
		}
		return p
	}
	return err
}

// discard ends an answer whose body does not matter.
func discard(resp *http.Response) {
	io.Copy(io.Discard, resp.Body) // bounded by the transport; lets the connection be used again
	resp.Body.Close()
}

var acceptManifest = TypeManifest + ", " + TypeIndex

// getManifest reads the manifest or index at name, a tag or digest, and checks
// that the answer's media type is the one that the bytes state. When known is
// not zero and the registry says that name still stands for that manifest,
// there are no bytes.
func (r *remote) getManifest(ctx context.Context, name string, known canon.Digest, limit int64) ([]byte, error) {
	var b []byte
	err := r.attempt(ctx, "manifest "+printable(name, 140), func(ctx context.Context) (err error) {
		b, err = r.readManifest(ctx, name, known, limit)
		return err
	})
	return b, err
}

// readManifest is getManifest in one attempt.
func (r *remote) readManifest(ctx context.Context, name string, known canon.Digest, limit int64) ([]byte, error) {
	h, ok := http.Header{"Accept": {acceptManifest}}, []int{http.StatusOK}
	if !known.IsZero() {
		// Registries use the digest as entity tag. One that does not sends the manifest.
		h.Set("If-None-Match", `"`+known.String()+`"`)
		ok = append(ok, http.StatusNotModified)
	}
	resp, err := r.request(ctx, http.MethodGet, "manifests/"+name, h, nil, 0, limit, ok...)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified {
		return nil, nil
	}
	if resp.ContentLength > limit {
		return nil, fmt.Errorf("%w: manifest of %d bytes, limit %d", ErrInvalid, resp.ContentLength, limit)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	stated, err := sniff(b)
	if err != nil {
		return nil, err
	}
	header, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || header != stated {
		return nil, fmt.Errorf("%w: manifest states %s, the answer's Content-Type is %q", ErrInvalid, stated, printable(resp.Header.Get("Content-Type"), 80))
	}
	return b, nil
}

func (r *remote) Resolve(ctx context.Context, name string) (Descriptor, error) {
	return r.resolve(ctx, name, canon.Digest{})
}

// resolve is Resolve. When the registry says that name still stands for the
// manifest known, the descriptor has its digest and no more.
func (r *remote) resolve(ctx context.Context, name string, known canon.Digest) (Descriptor, error) {
	var want canon.Digest
	if strings.Contains(name, ":") {
		var err error
		if want, err = canon.ParseDigest(name); err != nil {
			return Descriptor{}, fmt.Errorf("%s: %w", r, invalid(err))
		}
	} else if !isTag(name) {
		return Descriptor{}, fmt.Errorf("%s: %w: %q is not a tag", r, ErrInvalid, printable(name, 140))
	}
	if !want.IsZero() && want != known {
		known = canon.Digest{}
	}
	b, err := r.getManifest(ctx, name, known, MaxManifest)
	if err != nil {
		return Descriptor{}, err
	}
	if b == nil {
		return Descriptor{Digest: known}, nil
	}
	// The digest is that of the bytes received. The header that repeats it is not looked at.
	d, err := manifestDescriptor(b)
	if err == nil && !want.IsZero() && d.Digest != want {
		err = fmt.Errorf("%w: %w: asked for %s, got %s", ErrInvalid, canon.ErrMismatch, want, d.Digest)
	}
	if err != nil {
		return Descriptor{}, fmt.Errorf("%s: manifest %s: %w", r, name, err)
	}
	r.keep(d.Digest, b)
	return d, nil
}

func (r *remote) Manifest(ctx context.Context, d Descriptor) ([]byte, error) {
	limit := int64(MaxManifest)
	if d.Size > 0 && d.Size < limit {
		limit = d.Size
	}
	b := r.take(d.Digest)
	if b == nil {
		var err error
		if b, err = r.getManifest(ctx, d.Digest.String(), canon.Digest{}, limit); err != nil {
			return nil, err
		}
	}
	if _, err := checkManifest(b, d); err != nil {
		return nil, fmt.Errorf("%s: manifest %s: %w", r, d.Digest, err)
	}
	return b, nil
}

func (r *remote) Blob(ctx context.Context, d Descriptor) (io.ReadCloser, error) {
	what := "blob " + d.Digest.String()
	var body io.ReadCloser
	err := r.attempt(ctx, what, func(context.Context) error {
		p := newPace(ctx, r.timeout) // it covers the reading, so it outlives this call
		resp, err := r.request(p.ctx, http.MethodGet, "blobs/"+d.Digest.String(), nil, nil, 0, d.Size, http.StatusOK)
		if err != nil {
			p.stop()
			return p.blame(err)
		}
		if n := resp.ContentLength; n >= 0 && n != d.Size {
			p.stop()
			resp.Body.Close()
			return fmt.Errorf("%w: %w: the answer has %d bytes, want %d", ErrInvalid, canon.ErrMismatch, n, d.Size)
		}
		body = &pacedBody{resp.Body, p}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &blobReader{
		Reader: canon.NewReader(body, d.Digest, d.Size),
		Closer: body,
		at:     func(err error) error { return r.explain(ctx, what, err) },
	}, nil
}

// errSlow: a body stalls, or trickles.
var errSlow = fmt.Errorf("%w: fewer than %d bytes arrive a second: try again later or raise the timeout", ErrUnreachable, minRate)

// pace ends its context when a window of time brings fewer bytes than minRate
// asks for. A body of n bytes thus takes at most one window and n/minRate, and
// none can stall on what came fast before.
type pace struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	n      atomic.Int64 // bytes in this window
}

func newPace(ctx context.Context, window time.Duration) *pace {
	p := new(pace)
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	least := int64(window.Seconds() * minRate)
	go func() {
		tick := time.NewTicker(window)
		defer tick.Stop()
		for {
			select {
			case <-p.ctx.Done():
				return
			case <-tick.C:
				if p.n.Swap(0) < least {
					p.cancel(errSlow)
				}
			}
		}
	}()
	return p
}

func (p *pace) stop() { p.cancel(context.Canceled) }

// blame returns why an exchange under p failed: err, unless p ended it.
func (p *pace) blame(err error) error {
	if errors.Is(context.Cause(p.ctx), errSlow) {
		return &passing{error: errSlow}
	}
	return err
}

// pacedBody is the body of an answer under a pace.
type pacedBody struct {
	io.ReadCloser
	pace *pace
}

func (b *pacedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.pace.n.Add(int64(n))
	if err != nil && err != io.EOF {
		err = b.pace.blame(err)
	}
	return n, err
}

func (b *pacedBody) Close() error {
	b.pace.stop()
	return b.ReadCloser.Close()
}

// bodyTime is how long sending n bytes may take.
func (r *remote) bodyTime(n int64) time.Duration {
	return r.timeout + time.Duration(n/minRate)*time.Second
}

func (r *remote) PutBlob(ctx context.Context, d Descriptor, open func() (io.ReadCloser, error)) error {
	what := "blob " + d.Digest.String()
	missing := false
	err := r.attempt(ctx, what, func(ctx context.Context) error {
		resp, err := r.request(ctx, http.MethodHead, "blobs/"+d.Digest.String(), nil, nil, 0, maxAnswer, http.StatusOK, http.StatusNotFound)
		if err != nil {
			return err
		}
		discard(resp)
		missing = resp.StatusCode == http.StatusNotFound
		return nil
	})
	if err != nil || !missing {
		return err
	}
	return r.attemptFor(ctx, what, r.bodyTime(d.Size), func(ctx context.Context) error {
		resp, err := r.request(ctx, http.MethodPost, "blobs/uploads/", nil, nil, 0, maxAnswer, http.StatusAccepted)
		if err != nil {
			return err
		}
		discard(resp)
		loc, err := resp.Location()
		if err != nil {
			return fmt.Errorf("%w: the registry does not say where to upload: %s", ErrRefused, printable(err.Error(), maxMessage))
		}
		q := loc.Query()
		q.Set("digest", d.Digest.String())
		loc.RawQuery = q.Encode()

		rc, err := open()
		if err != nil {
			return err
		}
		defer rc.Close()
		body := &bodyReader{r: canon.NewReader(rc, d.Digest, d.Size)}
		h := http.Header{"Content-Type": {"application/octet-stream"}}
		resp, err = r.request(ctx, http.MethodPut, loc.String(), h, body, d.Size, maxAnswer, http.StatusCreated)
		if body.err != nil {
			return body.err
		}
		if err != nil {
			return err
		}
		discard(resp)
		return nil
	})
}

// bodyReader remembers why reading a request body failed, which the HTTP
// client buries.
type bodyReader struct {
	r   io.Reader
	err error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = invalid(err)
	}
	return n, err
}

// put stores manifest bytes under a tag or digest, and reports whether the
// registry says that it noted the subject.
func (r *remote) put(ctx context.Context, name, mediaType string, b []byte) (noted bool, err error) {
	err = r.attempt(ctx, "manifest "+name, func(ctx context.Context) error {
		h := http.Header{"Content-Type": {mediaType}}
		resp, err := r.request(ctx, http.MethodPut, "manifests/"+name, h, bytes.NewReader(b), int64(len(b)), maxAnswer, http.StatusCreated, http.StatusOK, http.StatusAccepted)
		if err != nil {
			return err
		}
		discard(resp)
		noted = resp.Header.Get("OCI-Subject") != ""
		return nil
	})
	return noted, err
}

func (r *remote) PutManifest(ctx context.Context, b []byte) (Descriptor, error) {
	d, err := manifestDescriptor(b)
	if err != nil {
		return d, fmt.Errorf("%s: manifest: %w", r, err)
	}
	noted, err := r.put(ctx, d.Digest.String(), d.MediaType, b)
	if err != nil || d.MediaType != TypeManifest {
		return d, err
	}
	m, err := decodeManifest(b)
	if err != nil || m.Subject == nil {
		return d, err
	}
	return d, r.refer(ctx, m, d, noted)
}

func (r *remote) Tag(ctx context.Context, tag string, d Descriptor) error {
	if !isTag(tag) {
		return fmt.Errorf("%s: %w: %q is not a tag", r, ErrInvalid, printable(tag, 140))
	}
	b, err := r.Manifest(ctx, Descriptor{Digest: d.Digest})
	if err != nil {
		return err
	}
	mediaType, err := sniff(b)
	if err != nil {
		return fmt.Errorf("%s: %w", r, err)
	}
	_, err = r.put(ctx, tag, mediaType, b)
	return err
}

func (r *remote) Referrers(ctx context.Context, d canon.Digest) ([]Descriptor, bool, error) {
	found, native, err := r.listed(ctx, d)
	if err == nil && !native {
		found, err = r.fallback(ctx, d)
	}
	if err != nil {
		return nil, false, err
	}
	return found.list, found.complete, nil
}

// listed asks the referrers API. native is false where there is none.
func (r *remote) listed(ctx context.Context, d canon.Digest) (found referrerList, native bool, err error) {
	found.complete = true
	target := "referrers/" + d.String()
	for page := 0; target != ""; page++ {
		if page == MaxReferrerPages || len(found.list) == MaxReferrers {
			found.complete = false
			break
		}
		next := ""
		err := r.attempt(ctx, "referrers of "+d.String(), func(ctx context.Context) error {
			resp, err := r.request(ctx, http.MethodGet, target, http.Header{"Accept": {TypeIndex}}, nil, 0, MaxManifest, http.StatusOK)
			var t *transport.Error
			if errors.As(err, &t) && page == 0 && t.StatusCode >= 400 && t.StatusCode < 500 &&
				t.StatusCode != http.StatusUnauthorized && t.StatusCode != http.StatusForbidden && retryable(err) == nil {
				return nil
			}
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if ct, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); page == 0 && (err != nil || ct != TypeIndex) {
				return nil
			}
			native = true
			b, err := io.ReadAll(resp.Body)
			if errors.Is(err, errBodyTooLong) {
				found.complete = false
				return nil
			}
			if err != nil {
				return err
			}
			found.addIndex(b)
			next = nextPage(resp)
			return nil
		})
		if err != nil {
			return found, native, err
		}
		target = next
	}
	return found, native, nil
}

// nextPage returns the address of the next page from an answer's Link header, ""
// if there is none. Only the registry itself is asked.
func nextPage(resp *http.Response) string {
	for _, link := range resp.Header.Values("Link") {
		target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
		if !ok || !strings.Contains(strings.ReplaceAll(params, " ", ""), `rel="next"`) {
			continue
		}
		if u, err := resp.Request.URL.Parse(target); err == nil && u.Host == resp.Request.URL.Host {
			return u.String()
		}
	}
	return ""
}

// fallback reads the index at the fallback tag.
func (r *remote) fallback(ctx context.Context, d canon.Digest) (referrerList, error) {
	found := referrerList{complete: true}
	b, err := r.getManifest(ctx, referrersTag(d), canon.Digest{}, MaxManifest)
	switch {
	case errors.Is(err, ErrNotFound):
	case errors.Is(err, ErrInvalid):
		found.complete = false
	case err != nil:
		return found, err
	default:
		found.addIndex(b)
	}
	return found, nil
}

// refer makes sure that m, stored as d, is listed among the referrers of its
// subject, and returns nil only once it has been read back.
//
// Where the registry has no referrers API, the index at the fallback tag is
// read, extended and written back. There is no way to do that in one step, so two
// processes can lose each other's entry: then it is done again. It is read back
// after a pause in which others finish what they had begun; an entry that is lost
// later still is not noticed.
func (r *remote) refer(ctx context.Context, m manifest, d Descriptor, noted bool) error {
	r.listing.Lock()
	defer r.listing.Unlock()
	subject := m.Subject.Digest
	what := "referrers of " + subject.String()
	pause, tries := r.pause, attempts
	wait := func(d time.Duration) error {
		select {
		case <-ctx.Done():
			return r.explain(ctx, what, ctx.Err())
		case <-time.After(d):
			return nil
		}
	}
	for try := 0; ; try++ {
		found, native, err := r.listed(ctx, subject)
		if err != nil {
			return err
		}
		present := slices.ContainsFunc(found.list, func(o Descriptor) bool { return o.Digest == d.Digest }) || native && !found.complete
		var entries []jsontext.Value
		if !native && !noted {
			if entries, present, err = r.fallbackEntries(ctx, subject, d.Digest); err != nil {
				return err
			}
		}
		if present {
			return nil
		}
		if try == tries {
			return fmt.Errorf("%s: %s: %w: the entry is missing each time the list is read back: let other writers finish and try again", r, what, ErrUnreachable)
		}
		if native || noted { // the registry keeps the list, perhaps with a delay
			if try > 0 {
				if err := wait(pause); err != nil {
					return err
				}
				pause *= 4
			}
			continue
		}
		tries = listAttempts
		if try > 0 { // others write: not all at once again
			if err := wait(rand.N(pause * time.Duration(min(try, 8)))); err != nil {
				return err
			}
			if entries, present, err = r.fallbackEntries(ctx, subject, d.Digest); err != nil {
				return err
			}
			if present {
				continue
			}
		}
		b, err := appendReferrer(entries, m, d)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", r, what, err)
		}
		if _, err := r.put(ctx, referrersTag(subject), TypeIndex, b); err != nil {
			return err
		}
		// Whoever read the list before this was written overwrites it within
		// about the time of a request.
		if err := wait(r.pause / 2); err != nil {
			return err
		}
	}
}

// fallbackEntries returns the entries of the index at the fallback tag as they
// stand there, and whether digest is among them. An index that cannot be read
// counts as empty: it is of no use to anyone.
func (r *remote) fallbackEntries(ctx context.Context, subject, digest canon.Digest) (entries []jsontext.Value, present bool, err error) {
	b, err := r.getManifest(ctx, referrersTag(subject), canon.Digest{}, MaxManifest)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrInvalid) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	var idx struct {
		Manifests []jsontext.Value `json:"manifests"`
	}
	if json.Unmarshal(b, &idx) != nil {
		return nil, false, nil
	}
	list, _ := decodeIndex(b)
	return idx.Manifests, slices.ContainsFunc(list, func(o Descriptor) bool { return o.Digest == digest }), nil
}

// appendReferrer returns a referrers index of entries and the manifest m, d.
func appendReferrer(entries []jsontext.Value, m manifest, d Descriptor) ([]byte, error) {
	if d.ArtifactType = m.ArtifactType; d.ArtifactType == "" {
		d.ArtifactType = m.Config.MediaType
	}
	d.Annotations = m.Annotations
	e, err := canon.Marshal(d)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(struct {
		SchemaVersion int              `json:"schemaVersion"`
		MediaType     string           `json:"mediaType"`
		Manifests     []jsontext.Value `json:"manifests"`
	}{2, TypeIndex, append(entries, e)}, json.Deterministic(true))
	if err == nil && len(b) > MaxManifest {
		err = fmt.Errorf("%w: the list would have %d bytes, limit %d", ErrRefused, len(b), MaxManifest)
	}
	return b, err
}
