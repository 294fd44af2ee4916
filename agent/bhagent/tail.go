package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
)

const tailJudge = 10 * time.Second // between looks at what is installed

var tailCommand = cli.Command{
	Name:  "tail",
	Args:  "FILE",
	Short: "follow a log and score every line as it is written",
	Long: `
Follows FILE across rotation and writes one JSON line for each line of it, as
score does, with the history of all lines since the start. When another release
becomes live, lines are scored with it from then on and the history is kept; when
none may be used any more, it ends with exit code 3.

--syslog and --webhook take the lines in the place of standard output. They
never hold up the reading: at most 16,384 lines wait for each, one that nobody
takes for about half a minute is dropped, and the log says how many were. Syslog
gets RFC 5424 messages of facility local0, warnings for what is not benign. A
webhook gets POSTs of up to 500 lines (application/x-ndjson).

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
			judged := time.Now()
			idle := func() error {
				if err := w.Flush(); err != nil {
					return err
				}
				if time.Since(judged) < tailJudge {
					return nil
				}
				judged = time.Now()
				next, err := load()
				if err != nil {
					return err
				}
				if next.Release().Digest != scorer.Release().Digest {
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
