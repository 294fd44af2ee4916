package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
	"github.com/battle-hardened-ai/bhtrain/verify/rebuild"
)

func watchCommand() cli.Command {
	return cli.Command{
		Name:  "watch",
		Args:  "REF --policy FILE --state FILE",
		Short: "rebuild and attest each new release",
		Long: `
The one command of an auditor: looks for a new release, rebuilds it, signs what
came out, pass or fail, publishes the statement as 'bhverify rebuild --attest'
does, and remembers that in a small state file. With a policy that names a channel
the release is the channel's current one, and a channel that goes back behind what
was seen before is refused; else it is that of REF's tag ("latest").
What the policy does not allow is not built, and looked at again when the
policy changes. What could not be done (network, a dataset not yet there) is
tried again. If the state is lost, releases about which a statement of yours stands
where they are put are taken for done. With --bootstrap a release that another
version made is rebuilt by that version, as 'bhverify rebuild --bootstrap' does.

With --once it looks once and ends, for a cron job: exit code 0 nothing new or a
pass, 4 other bytes came out, 3 refused, 1 it could not be done. Otherwise it looks
every --interval until it is interrupted; --listen serves a status page and /metrics.`,
		Example: `
bhverify watch registry.example.org/models/web --policy auditor.yaml --state watch.json --key auditor.key --attest-to registry.example.net/audits/web --bootstrap --listen 127.0.0.1:9465
bhverify watch registry.example.org/models/web --policy auditor.yaml --state watch.json --once`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			policy := fs.String("policy", "", "`FILE`: whose code and data you run (required); read anew each time")
			state := fs.String("state", "", "`FILE`: what was done, made when it is not there (required)")
			once := fs.Bool("once", false, "look once and end")
			interval := fs.Duration("interval", 10*time.Minute, "`TIME` between two looks")
			listen := fs.String("listen", "", "`HOST:PORT`: serve a status page and /metrics there")
			yes, none, no := true, "", false
			attest := &attestFlags{
				fs: fs, attest: &yes, out: &none, transcripts: &no,
				to: fs.String("attest-to", "", "`REF`: put statements into this repository or directory of your own (default: beside the release)"),
			}
			attest.signing.Flags(fs)
			boot := newBootstrap(fs)
			workers := fs.Int("workers", 0, "threads; never changes a byte (default: one per CPU)")
			temp := fs.String("temp", "", "`DIR`: for temporary files (default: the system's)")
			plain := fs.Bool("plain-http", false, "talk to registries without TLS (on the loopback interface this needs no flag)")
			anonymous := fs.Bool("anonymous", false, "send no credentials of the docker configuration")
			return func(ctx context.Context, c *cli.Call, args []string) error {
				switch {
				case len(args) != 1:
					return cli.Usagef("watch: want one reference, got %d; see 'bhverify watch --help'", len(args))
				case *policy == "" || *state == "":
					return cli.Usagef("watch: --policy FILE and --state FILE are needed")
				case *interval < time.Second:
					return cli.Usagef("watch: --interval %s: want a second or more", *interval)
				case *once && *listen != "":
					return cli.Usagef("watch: --once and --listen exclude each other")
				case *boot.source != "" && !*boot.on:
					return cli.Usagef("watch: --source needs --bootstrap")
				}
				ref, err := oras.ParseRef(args[0])
				if err != nil {
					return cli.Usagef("watch: %w", err)
				}
				storeOptions := oras.Options{PlainHTTP: *plain, Anonymous: *anonymous}
				w := &watcher{call: c, ref: ref, policy: *policy, path: *state, attest: attest, boot: boot, flags: fs, stores: storeOptions,
					build: rebuild.Options{Workers: *workers, TempDir: *temp, Program: program()}}
				w.build.Open = func(ctx context.Context, place oras.Ref) (oras.Store, error) {
					return oras.Open(ctx, place, storeOptions)
				}
				if w.state, err = readWatchState(*state); err != nil {
					return err
				}
				if *once {
					return w.look(ctx)
				}
				return w.run(ctx, *interval, *listen)
			}
		},
	}
}

// watcher finds new releases and attests them.
type watcher struct {
	call   *cli.Call
	ref    oras.Ref
	policy string
	path   string // of the state file
	attest *attestFlags
	boot   *bootstrap
	flags  *pflag.FlagSet
	stores oras.Options
	build  rebuild.Options

	mu    sync.Mutex // guards what follows
	state watchState
	last  time.Time // of the last look
	error string    // what went wrong in it
	busy  string    // release that is being rebuilt
}

// watchState is the state file: what was done, the newest last, and what was
// accepted from channels.
type watchState struct {
	Format   int                      `json:"format"` // 1
	Releases []watched                `json:"releases"`
	Channels map[string]verify.Memory `json:"channels"` // by product and name, with "/" between them
}

// watched is a release that was looked at.
type watched struct {
	Release  canon.Digest `json:"release"`
	Product  string       `json:"product"`
	Number   int64        `json:"number"`
	Result   string       `json:"result"`   // PASS, FAIL or REFUSED
	Obtained canon.Digest `json:"obtained"` // "" when nothing came out, or nothing was built
	Finished string       `json:"finished"`
	Policy   canon.Digest `json:"policy"` // SHA-256 of its text
}

const (
	maxWatched    = 1000    // releases that are remembered
	maxWatchState = 8 << 20 // bytes; a channel may have 1 MiB of revocations, and a state those of several
)

func readWatchState(path string) (watchState, error) {
	s := watchState{Format: 1, Releases: []watched{}, Channels: map[string]verify.Memory{}}
	b, err := durable.ReadFile(durable.OS, path, maxWatchState)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = canon.UnmarshalCanonical(b, &s)
	}
	if err == nil && s.Format != 1 {
		err = fmt.Errorf("format %d, want 1", s.Format)
	}
	if err != nil {
		return s, cli.Exit(cli.CorruptState, fmt.Errorf("%s is no state of 'bhverify watch': %w; remove it to begin anew", path, err))
	}
	return s, nil
}

// run looks again and again until ctx ends.
func (w *watcher) run(ctx context.Context, interval time.Duration, listen string) error {
	if listen != "" {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			return err
		}
		w.call.Log.Info("serving", "address", "http://"+l.Addr().String())
		server := &http.Server{Handler: w.handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: time.Minute}
		defer server.Close()
		go server.Serve(l)
	}
	for {
		err := w.look(ctx)
		if ctx.Err() != nil {
			return nil // told to stop
		}
		var exit *cli.ExitError
		if errors.Is(err, rebuild.ErrAttest) || errors.As(err, &exit) && exit.Code == cli.Usage {
			return err // another try would not help
		}
		text := ""
		if err != nil {
			text = verify.Printable(err.Error())
			w.call.Log.Warn("look", "problem", text)
		}
		w.mu.Lock()
		w.error = text
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
	}
}

// look finds the release that is current, and attests it unless that was done.
// A refusal and other bytes are an error with the exit code for it.
func (w *watcher) look(ctx context.Context) error {
	w.mu.Lock()
	w.last = time.Now()
	w.mu.Unlock()
	opt := w.build
	opt.Now = time.Now()
	var err error
	if opt.Verifier, err = loadVerifier(ctx, w.policy, false); err != nil {
		return err
	}
	if err := w.attest.prepare(ctx, &opt); err != nil {
		return err
	}
	store, err := oras.Open(ctx, w.ref, w.stores)
	if err != nil {
		return err
	}
	d, err := w.current(ctx, store, &opt)
	if err != nil {
		return err
	}
	policy := opt.Verifier.Policy().Digest
	// What was refused is judged again: its statements may have come since.
	if have := w.find(d.Digest); have != nil && have.Result != "REFUSED" {
		w.call.Log.Debug("nothing new", "release", d.Digest.String(), "result", have.Result)
		return nil
	} else if have == nil {
		if found, err := w.attested(ctx, store, d, &opt); found || err != nil {
			return err
		}
	}
	w.setBusy(d.Digest.String())
	defer w.setBusy("")
	w.call.Log.Info("rebuilding", "release", d.Digest.String())
	done, err := w.rebuild(ctx, store, d, opt)
	var exit *cli.ExitError
	if err != nil && !(errors.As(err, &exit) && done.Result != "") {
		return err
	}
	done.Release, done.Policy = d.Digest, policy
	done.Product = verify.Printable(done.Product)
	done.Finished = verify.FormatTime(time.Now())
	w.call.Log.Info("done", "release", d.Digest.String(), "number", done.Number, "result", done.Result)
	return cmp.Or(w.remember(done), err)
}

// rebuild rebuilds and attests the release d and says what came of it. With a
// Result there may be an error with the exit code for it.
func (w *watcher) rebuild(ctx context.Context, store oras.Store, d oras.Descriptor, opt rebuild.Options) (done watched, err error) {
	var r *rebuild.Report
	started := time.Now()
	if *w.boot.on {
		var program *built
		if program, r, err = w.boot.of(ctx, w.call, store, d, opt); program != nil {
			defer program.remove()
			r, err = w.delegate(ctx, program, d)
		}
	}
	if err == nil && r == nil {
		progress, end := w.call.Progress()
		opt.Progress = progress
		r, err = rebuild.Reproduce(ctx, store, d.Digest, opt)
		end()
		if err == nil {
			err = w.attest.finish(ctx, w.call, w.ref, d, r, started)
		}
	}
	if r != nil {
		done.Product, done.Number, done.Obtained = r.Product, r.Number, r.Rebuilt
	}
	switch {
	case errors.Is(err, rebuild.ErrRefused):
		done.Result = "REFUSED"
		if r != nil && r.Verdict != nil {
			done.Product, done.Number = r.Verdict.Product, r.Verdict.Number
			for _, f := range r.Verdict.Failures() {
				err = fmt.Errorf("%w: %s: %s", err, f.Name, f.Reason)
			}
		}
		return done, cli.Exit(cli.Refused, err)
	case err != nil:
		return done, err
	case r.Rebuilt != r.Release:
		done.Result = "FAIL"
		return done, cli.Exit(cli.NotReproducible, errors.New(r.Headline()))
	}
	done.Result = "PASS"
	return done, nil
}

// delegate has the program that made the release rebuild and attest it, and
// returns its report.
func (w *watcher) delegate(ctx context.Context, program *built, d oras.Descriptor) (*rebuild.Report, error) {
	var out bytes.Buffer
	code, err := program.rebuild(ctx, w.ref, d, &out, w.call.Stderr, w.flags,
		[]string{"bootstrap", "source", "state", "once", "interval", "listen"}, "--attest", "--format=json")
	switch {
	case err != nil:
		return nil, err
	case code != 0 && code != cli.NotReproducible && code != cli.Refused:
		return nil, fmt.Errorf("trainer %s could not rebuild the release: exit code %d", verify.Printable(program.trainer.String()), code)
	}
	// The report is that of another version, so of its members only these are read.
	var said struct {
		Release canon.Digest `json:"release"`
		Product string       `json:"product"`
		Number  int64        `json:"number"`
		Rebuilt canon.Digest `json:"rebuilt"`
	}
	if err := json.Unmarshal(out.Bytes(), &said); err != nil && code != cli.Refused {
		return nil, fmt.Errorf("the report of trainer %s: %w", verify.Printable(program.trainer.String()), err)
	}
	r := &rebuild.Report{Release: said.Release, Product: said.Product, Number: said.Number, Rebuilt: said.Rebuilt}
	switch {
	case code == cli.Refused:
		return r, fmt.Errorf("%w: by trainer %s", rebuild.ErrRefused, verify.Printable(program.trainer.String()))
	case r.Release != d.Digest || (code == 0) != (r.Rebuilt == r.Release):
		return nil, fmt.Errorf("the report of trainer %s does not fit its exit code %d", verify.Printable(program.trainer.String()), code)
	}
	return r, nil
}

// attested reports whether the release was attested before, by what stands where
// statements go, and remembers that: the state may have been lost.
func (w *watcher) attested(ctx context.Context, store oras.Store, d oras.Descriptor, opt *rebuild.Options) (bool, error) {
	audit, err := w.attest.before(ctx, store, w.ref, d, opt.Verifier, opt.Now)
	if audit == nil || err != nil {
		return false, err
	}
	found := audit.Operators[0]
	w.call.Log.Info("attested before", "release", d.Digest.String(), "number", audit.Number, "result", string(found.Status), "finished", found.Finished)
	return true, w.remember(watched{
		Release: d.Digest, Product: verify.Printable(audit.Product), Number: audit.Number, Result: string(found.Status),
		Obtained: found.Obtained, Finished: found.Finished, Policy: opt.Verifier.Policy().Digest,
	})
}

// current is the release that the channel of the policy names, else that of the
// reference. What the channel says is remembered before anything is done about
// it, so that nobody can lead w back.
func (w *watcher) current(ctx context.Context, store oras.Store, opt *rebuild.Options) (oras.Descriptor, error) {
	p := opt.Verifier.Policy()
	if p.Channel == nil {
		return store.Resolve(ctx, w.ref.Name())
	}
	name := p.Product + "/" + p.Channel.Name
	w.mu.Lock()
	memory := w.state.Channels[name]
	w.mu.Unlock()
	c, err := opt.Verifier.Channel(ctx, store, opt.Now, memory)
	if err != nil {
		return oras.Descriptor{}, err
	}
	if !c.Accepted() {
		err := errors.New("the channel is not one that the policy trusts")
		for _, f := range c.Failures() {
			err = fmt.Errorf("%w: %s: %s", err, f.Name, f.Reason)
		}
		return oras.Descriptor{}, cli.Exit(cli.Refused, err)
	}
	if !reflect.DeepEqual(memory, c.Memory) {
		if err := w.keep(func(s *watchState) {
			s.Channels = maps.Clone(s.Channels)
			s.Channels[name] = c.Memory
		}); err != nil {
			return oras.Descriptor{}, err
		}
	}
	opt.Channel = c
	return store.Resolve(ctx, c.Manifest.String())
}

func (w *watcher) find(d canon.Digest) *watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.state.Releases {
		if w.state.Releases[i].Release == d {
			found := w.state.Releases[i]
			return &found
		}
	}
	return nil
}

func (w *watcher) setBusy(release string) {
	w.mu.Lock()
	w.busy = release
	w.mu.Unlock()
}

// remember puts what was done into the state file.
func (w *watcher) remember(done watched) error {
	return w.keep(func(s *watchState) {
		s.Releases = slices.DeleteFunc(slices.Clone(s.Releases), func(o watched) bool { return o.Release == done.Release })
		s.Releases = append(s.Releases, done)
		s.Releases = s.Releases[max(0, len(s.Releases)-maxWatched):]
	})
}

// keep changes the state, first in its file. change leaves alone what it is
// given and sets members anew.
func (w *watcher) keep(change func(*watchState)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := w.state
	change(&next)
	b, err := canon.Marshal(next)
	if err != nil {
		return err
	}
	if len(b) > maxWatchState {
		return fmt.Errorf("the state would have %d bytes, limit %d: begin a new file", len(b), maxWatchState)
	}
	if err := durable.WriteFile(durable.OS, w.path, b, 0o644); err != nil {
		return err
	}
	w.state = next
	return nil
}

var watchPage = template.Must(template.New("watch").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>bhverify watch</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; } td, th { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid #8885; overflow-wrap: anywhere; }
.PASS { color: #1a7f4b; font-weight: 600; } .FAIL, .REFUSED, .problem { color: #c0392b; font-weight: 600; } td:first-child, td:nth-child(2) { white-space: nowrap; }
</style></head><body>
<h1>Rebuilds of {{.Ref}}</h1>
<p>Last look: {{.Last}}.{{if .Busy}} Rebuilding {{.Busy}}.{{end}}</p>
{{if .Error}}<p class="problem">{{.Error}}</p>{{end}}
<table><thead><tr><th>result</th><th>release</th><th>finished</th><th>manifest</th></tr></thead><tbody>
{{range .Releases}}<tr><td class="{{.Result}}">{{.Result}}</td><td>{{.Product}} {{.Number}}</td><td>{{.Finished}}</td><td>{{.Release}}</td></tr>
{{else}}<tr><td colspan="4">None yet.</td></tr>
{{end}}</tbody></table></body></html>
`))

// handler serves the status page and the metrics. Both are read-only.
func (w *watcher) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(out http.ResponseWriter, _ *http.Request) {
		w.mu.Lock()
		view := map[string]any{"Ref": w.ref.Place().String(), "Last": verify.FormatTime(w.last), "Error": w.error, "Busy": w.busy}
		releases := slices.Clone(w.state.Releases)
		w.mu.Unlock()
		slices.Reverse(releases)
		view["Releases"] = releases[:min(len(releases), 100)]
		out.Header().Set("Content-Type", "text/html; charset=utf-8")
		out.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		out.Header().Set("X-Content-Type-Options", "nosniff")
		if err := watchPage.Execute(out, view); err != nil {
			w.call.Log.Debug("status page", "problem", err)
		}
	})
	mux.HandleFunc("GET /metrics", func(out http.ResponseWriter, _ *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		count := map[string]int{}
		for _, r := range w.state.Releases {
			count[r.Result]++
		}
		out.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		gauge := func(name, help string, value any) {
			fmt.Fprintf(out, "# HELP bhverify_watch_%s %s\n# TYPE bhverify_watch_%[1]s gauge\nbhverify_watch_%[1]s %[3]v\n", name, help, value)
		}
		fmt.Fprint(out, "# HELP bhverify_watch_releases Releases remembered, by result.\n# TYPE bhverify_watch_releases gauge\n")
		for _, result := range []string{"PASS", "FAIL", "REFUSED"} {
			fmt.Fprintf(out, "bhverify_watch_releases{result=%q} %d\n", result, count[result])
		}
		gauge("last_look_timestamp_seconds", "When a release was last looked for.", w.last.Unix())
		ok, busy := 1, 0
		if w.error != "" {
			ok = 0
		}
		if w.busy != "" {
			busy = 1
		}
		gauge("last_look_ok", "1 if nothing went wrong then.", ok)
		gauge("rebuilding", "1 while a release is rebuilt.", busy)
		var newest int64
		for _, r := range w.state.Releases {
			newest = max(newest, r.Number)
		}
		gauge("newest_release_number", "Highest number of a release remembered.", newest)
	})
	return mux
}
