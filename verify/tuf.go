package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/sigstore/sigstore-go/pkg/tuf"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// trustedRootTarget is the target of a TUF repository that is the trusted root,
// as in Sigstore's own.
const trustedRootTarget = "trusted_root.json"

// LoadTrustedRoot returns p with the trusted root that its TUF repository
// publishes; a policy without tuf is returned as it is. It is the one function
// of this package that asks a network, and reads the clock, which TUF's
// expiry dates are held against.
//
// The client starts from the root.json of the policy each time. What it
// downloaded is kept in the folder cache: with offline, or when the repository
// cannot be reached, it runs on that, and accepts it until it expires. Metadata
// that do not verify are an error, and nothing kept replaces them.
func LoadTrustedRoot(ctx context.Context, p Policy, cache string, offline bool) (Policy, error) {
	if p.TUF == nil {
		return p, nil
	}
	if cache == "" {
		return Policy{}, errors.New("tuf: no folder for what is downloaded")
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return Policy{}, fmt.Errorf("tuf: %w", err)
	}
	id := canon.Sum(append([]byte(p.TUF.URL+"\n"), p.TUF.Root...))
	kept := filepath.Join(cache, "kept-"+id.Hex()[:32]+".json")
	why := "offline"
	if !offline {
		net := &download{ctx: ctx, base: strings.TrimSuffix(p.TUF.URL, "/") + "/", client: tufClient(), files: map[string][]byte{}}
		text, err := fetchRoot(p.TUF, cache, net)
		switch {
		case err == nil:
			p.TrustedRoot = text
			return p, keep(kept, net.files)
		case ctx.Err() != nil:
			return Policy{}, ctx.Err()
		case net.unreachable == nil:
			return Policy{}, fmt.Errorf("tuf: %s: %w", p.TUF.URL, err)
		}
		why = Printable(net.unreachable.Error())
	}
	files, err := readKept(kept)
	if err != nil {
		return Policy{}, fmt.Errorf("tuf: %s (%s): %w", p.TUF.URL, why, err)
	}
	text, err := fetchRoot(p.TUF, cache, &download{ctx: ctx, base: strings.TrimSuffix(p.TUF.URL, "/") + "/", files: files})
	if err != nil {
		return Policy{}, fmt.Errorf("tuf: %s (%s); what was kept of it cannot be used any more: %w", p.TUF.URL, why, err)
	}
	p.TrustedRoot = text
	return p, nil
}

// fetchRoot runs the whole TUF client workflow. It never panics.
func fetchRoot(t *TUF, cache string, from *download) (text []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			text, err = nil, fmt.Errorf("metadata: %v", r)
		}
	}()
	client, err := tuf.New(&tuf.Options{Root: t.Root, CachePath: filepath.Join(cache, "tuf"), RepositoryBaseURL: t.URL, Fetcher: from, CacheValidity: tuf.NoCache})
	if err != nil {
		return nil, err
	}
	// Downloaded anew: a file in the cache would be checked, but then not kept.
	if err := os.RemoveAll(filepath.Join(cache, "tuf", tuf.URLToPath(t.URL), "targets")); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(cache, "tuf", tuf.URLToPath(t.URL), "targets"), 0o700); err != nil {
		return nil, err
	}
	text, err = client.GetTarget(trustedRootTarget)
	if err != nil {
		return nil, err
	}
	if len(text) > maxRootFile {
		return nil, fmt.Errorf("%s: %w: limit %d bytes", trustedRootTarget, canon.ErrTooLarge, maxRootFile)
	}
	return text, nil
}

func tufClient() *http.Client {
	return &http.Client{
		Timeout: tufTimeout,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 3 || req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
				return errors.New("redirected elsewhere")
			}
			return nil
		},
	}
}

// download is where a TUF client gets its files: from the network, noting
// them, or from what was noted before.
type download struct {
	ctx         context.Context
	base        string
	client      *http.Client // nil: files only
	files       map[string][]byte
	unreachable error // the network's last failure
}

// DownloadFile implements the Fetcher of go-tuf.
func (d *download) DownloadFile(url string, limit int64, _ time.Duration) ([]byte, error) {
	name, ok := strings.CutPrefix(url, d.base)
	if !ok {
		return nil, fmt.Errorf("%s is not below %s", url, d.base)
	}
	limit = min(limit, maxRootFile)
	if d.client == nil {
		b, ok := d.files[name]
		switch {
		case !ok:
			return nil, &metadata.ErrDownloadHTTP{StatusCode: http.StatusNotFound, URL: url}
		case int64(len(b)) > limit:
			return nil, &metadata.ErrDownloadLengthMismatch{Msg: fmt.Sprintf("%s is larger than %d bytes", url, limit)}
		}
		return b, nil
	}
	req, err := http.NewRequestWithContext(d.ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "bhtrain")
	fail := func(err error) ([]byte, error) {
		d.unreachable = err
		return nil, err
	}
	res, err := d.client.Do(req)
	if err != nil {
		return fail(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		err := &metadata.ErrDownloadHTTP{StatusCode: res.StatusCode, URL: url}
		if res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusForbidden {
			return fail(err)
		}
		return nil, err // how a repository says that there is no newer root
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	switch {
	case err != nil:
		return fail(err)
	case int64(len(b)) > limit:
		return nil, &metadata.ErrDownloadLengthMismatch{Msg: fmt.Sprintf("%s is larger than %d bytes", url, limit)}
	}
	d.files[name] = b
	return b, nil
}

// keep replaces the file of what was downloaded, in one step.
func keep(path string, files map[string][]byte) error {
	b, err := json.Marshal(files, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("tuf: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".kept-*")
	if err != nil {
		return fmt.Errorf("tuf: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("tuf: %w", err)
	}
	return nil
}

func readKept(path string) (map[string][]byte, error) {
	b, err := readFile(path, maxKept)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("nothing was kept of it: run once with a connection")
	}
	if err != nil {
		return nil, err
	}
	var files map[string][]byte
	if err := json.Unmarshal(b, &files); err != nil {
		return nil, fmt.Errorf("%s is damaged; run once with a connection", path)
	}
	return files, nil
}
