package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

const (
	tailJudge    = 10 * time.Second // between looks at what is installed
	policyGrace  = 15 * time.Second // for a policy that is missing or not valid: somebody may be writing it
	machineGrace = 10 * time.Minute // while this machine cannot read its files, such as when it has too many open
)

// judgement judges again and again what lines are scored with.
type judgement struct {
	load    func() (*agent.Scorer, error)
	now     func() time.Time
	log     *slog.Logger
	looked  time.Time // last
	failing time.Time // since when it could not be judged; zero when it was
}

// again judges when it is time to, and returns the release to go on with: nil
// for the one before. An error says that none may be used any more. What says
// nothing about the release keeps the one before in use for a while.
func (j *judgement) again() (*agent.Scorer, error) {
	now := j.now()
	if now.Sub(j.looked) < tailJudge {
		return nil, nil
	}
	j.looked = now
	next, err := j.load()
	switch {
	case err == nil:
		if !j.failing.IsZero() {
			j.log.Info("the release could be judged again")
			j.failing = time.Time{}
		}
		return next, nil
	case errors.Is(err, agent.ErrCorrupt), errors.Is(err, agent.ErrRefused), errors.Is(err, agent.ErrNothing):
		return nil, err
	case j.failing.IsZero():
		j.failing = now
		j.log.Warn("the release cannot be judged again: it stays in use for a while", "reason", err)
	}
	grace := machineGrace
	if errors.Is(err, verify.ErrPolicy) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		grace = policyGrace
	}
	if now.Sub(j.failing) >= grace {
		return nil, err
	}
	return nil, nil
}

var tailCommand = cli.Command{
	Name:  "tail",
	Args:  "FILE",
	Short: "follow a log and score every line as it is written",
	Long: `
Follows FILE across rotation and writes one JSON line for each line of it, as
score does, with the history of all lines since the start. When another release
becomes live, lines are scored with it from then on and the history is kept; when
none may be used any more, it ends with exit code 3. A policy that cannot be read
ends it after a quarter of a minute: somebody may be writing it.

After a rotation the old file is read until it has been quiet for five seconds,
since the program that writes it lets go of it some time later; then the new one.

--syslog and --webhook take the lines in the place of standard output. They
never hold up the reading: at most 16,384 lines wait for each, one that nobody
takes for about half a minute is dropped, and the log says how many were. Syslog
gets RFC 5424 messages of facility local0, warnings for what is not benign; one
that is longer than it takes is dropped. A webhook gets POSTs of up to 500 lines
(application/x-ndjson), and is left alone for as long as its Retry-After says, up
to a minute.

--only bad leaves out what is benign by class, anomaly and reputation.`,
	Example: `
bhagent tail /var/log/nginx/access.log --format access
bhagent tail /var/log/auth.log --format sshd --year 2026 --only bad --syslog unix:/dev/log
bhagent tail access.log --only bad --webhook https://soc.example.org/hook --webhook-header-file /etc/bhagent/hook`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		state := stateFlag(fs)
		policy := policyFlag(fs)
		input := fs.String("format", "access", "`FORMAT` of the lines: "+formatNames)
		site := fs.String("site", "", "`NAME`: site that the lines are from")
		year := fs.Int("year", 0, "`YYYY`: year of syslog times, which carry none (default: such lines are undated)")
		whole := fs.Bool("from-start", false, "begin with what is in the file already")
		only := fs.String("only", "all", "which findings to write: all or bad")
		syslog := fs.String("syslog", "", "`WHERE` to send findings: unix:PATH or udp:HOST:PORT")
		hook := fs.String("webhook", "", "`URL` to post findings to; https unless on this machine")
		header := fs.String("webhook-header-file", "", "`FILE` with a header for the webhook, such as \"Authorization: Bearer …\"")
		ca := fs.String("webhook-ca", "", "`FILE`: certificates in PEM that may vouch for the webhook (default: those of this system)")
		return func(ctx context.Context, c *cli.Call, args []string) error {
			kind, ok := formats[*input]
			switch {
			case len(args) != 1:
				return cli.Usagef("name one file to follow")
			case !ok:
				return cli.Usagef("--format %q: want %s", *input, formatNames)
			case *only != "all" && *only != "bad":
				return cli.Usagef("--only %q: want all or bad", *only)
			case *hook == "" && (*header != "" || *ca != ""):
				return cli.Usagef("--webhook is missing")
			}
			var outlets []*outlet
			defer func() {
				for _, o := range outlets {
					o.close()
				}
			}()
			if *syslog != "" {
				s, err := newSyslog(*syslog)
				if err != nil {
					return err
				}
				outlets = append(outlets, newOutlet("syslog", c.Log, maxQueue, firstPause, s.send))
			}
			if *hook != "" {
				w, err := newWebhook(*hook, *header, *ca)
				if err != nil {
					return err
				}
				outlets = append(outlets, newOutlet("webhook", c.Log, maxQueue, firstPause, w.send))
			}
			a := openAgent(*state)
			load := func() (*agent.Scorer, error) {
				v, err := a.Verifier(ctx, *policy, true)
				if err != nil {
					return nil, err
				}
				return a.Load(ctx, v, time.Now())
			}
			scorer, err := load()
			if err != nil {
				return err
			}
			x := scorer.Session()
			w := bufio.NewWriterSize(c.Stdout, 1<<16)
			defer w.Flush()
			judging := judgement{load: load, now: time.Now, log: c.Log, looked: time.Now()}
			idle := func() error {
				if err := w.Flush(); err != nil {
					return err
				}
				next, err := judging.again()
				if err != nil {
					return err
				}
				if next != nil && next.Release().Digest != scorer.Release().Digest {
					c.Log.Info("loaded", "release", next.Release().Release.Number, "digest", next.Release().Digest)
					scorer = next
					x.Move(scorer)
				}
				return nil
			}
			log, err := agent.Follow(ctx, args[0], *whole, idle)
			if err != nil {
				return err
			}
			defer log.Close()
			enc := jsontext.NewEncoder(w, json.Deterministic(true))
			_, err = x.Each(log, kind, record.Options{Site: *site, Year: *year}, func(f *agent.Finding) error {
				if *only == "bad" && !f.Suspicious() {
					return nil
				}
				if len(outlets) == 0 {
					return json.MarshalEncode(enc, f)
				}
				line, err := json.Marshal(f, json.Deterministic(true))
				for _, o := range outlets {
					o.put(finding{line, f.Suspicious()})
				}
				return err
			})
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return nil // it was told to end, which is the only way
			}
			if err == nil {
				err = fmt.Errorf("%s: ended", args[0])
			}
			return err
		}
	},
}
