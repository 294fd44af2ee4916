package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// LoadWhole is LoadPolicy and LoadTrustedRoot. The folder for what TUF downloads
// is asked for only if the policy has tuf.
func LoadWhole(ctx context.Context, path string, cache func() (string, error), offline bool) (Policy, error) {
	p, err := LoadPolicy(path)
	if err != nil || p.TUF == nil {
		return p, err
	}
	dir, err := cache()
	if err != nil {
		return Policy{}, fmt.Errorf("tuf: %w", err)
	}
	return LoadTrustedRoot(ctx, p, dir, offline)
}

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
	path := filepath.Join(cache, "tuf-"+id.Hex()[:32]+".json")
	old, lost := readKept(path)
	from := &download{ctx: ctx, base: strings.TrimSuffix(p.TUF.URL, "/") + "/"}
	why := "offline"
	if !offline {
		from.client, from.files = tufClient(), map[string][]byte{}
		text, local, err := fetchRoot(p.TUF, cache, from, old.Local)
		switch {
		case err == nil:
			p.TrustedRoot = text
			return p, kept{from.files, local}.write(path)
		case ctx.Err() != nil:
			return Policy{}, ctx.Err()
		case from.unreachable == nil:
			return Policy{}, fmt.Errorf("tuf: %s: %w", p.TUF.URL, err)
		}
		why = Printable(from.unreachable.Error())
	}
	if lost != nil {
		return Policy{}, fmt.Errorf("tuf: %s (%s): %w", p.TUF.URL, why, lost)
	}
	from.client, from.files = nil, old.Downloaded
	text, _, err := fetchRoot(p.TUF, cache, from, old.Local)
	if err != nil {
		return Policy{}, fmt.Errorf("tuf: %s (%s); what was kept of it cannot be used any more: %w", p.TUF.URL, why, err)
	}
	p.TrustedRoot = text
	return p, nil
}

// fetchRoot runs the whole TUF client workflow, and never panics. local is what
// the client of a run before had in its folder, which keeps it from going back;
// what it has after this one is returned. The client works in a folder that is
// thrown away: a run that fails must leave no trace.
func fetchRoot(t *TUF, cache string, from *download, local map[string][]byte) (text []byte, after map[string][]byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			text, after, err = nil, nil, fmt.Errorf("metadata: %v", r)
		}
	}()
	tmp, err := os.MkdirTemp(cache, "tuf-run-*")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, tuf.URLToPath(t.URL))
	if err := os.MkdirAll(filepath.Join(dir, "targets"), 0o700); err != nil {
		return nil, nil, err
	}
	for name, b := range local {
		if !filepath.IsLocal(name) {
			return nil, nil, fmt.Errorf("file name %q", Printable(name))
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), b, 0o600); err != nil {
			return nil, nil, err
		}
	}
	client, err := tuf.New(&tuf.Options{Root: t.Root, CachePath: tmp, RepositoryBaseURL: t.URL, Fetcher: from, CacheValidity: tuf.NoCache})
	if err != nil {
		return nil, nil, err
	}
	if text, err = client.GetTarget(trustedRootTarget); err != nil {
		return nil, nil, err
	}
	if len(text) > maxRootFile {
		return nil, nil, fmt.Errorf("%s: %w: limit %d bytes", trustedRootTarget, canon.ErrTooLarge, maxRootFile)
	}
	after = map[string][]byte{}
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		after[name], err = readFile(filepath.Join(dir, filepath.FromSlash(name)), maxRootFile)
		return err
	})
	return text, after, err
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

// kept is what remains of a run that went well.
type kept struct {
	Downloaded map[string][]byte `json:"downloaded"` // by name below the repository's URL
	Local      map[string][]byte `json:"local"`      // by name in the client's folder
}

// write replaces the file in one step.
func (k kept) write(path string) error {
	b, err := json.Marshal(k, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("tuf: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tuf-*")
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

// readKept reads it. An error says why there is nothing to go on with; a run
// with a connection makes it anew.
func readKept(path string) (kept, error) {
	b, err := readFile(path, maxKept)
	if errors.Is(err, fs.ErrNotExist) {
		return kept{}, errors.New("nothing was kept of it: run once with a connection")
	}
	if err != nil {
		return kept{}, err
	}
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		return kept{}, fmt.Errorf("%s is damaged: run once with a connection", path)
	}
	return k, nil
}
