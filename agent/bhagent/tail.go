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

--only bad leaves out what is benign by class, anomaly and reputation.`,
	Example: `
bhagent tail /var/log/nginx/access.log --format access
bhagent tail /var/log/auth.log --format sshd --year 2026 --only bad | logger -t bhagent`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		state := stateFlag(fs)
		policy := policyFlag(fs)
		input := fs.String("format", "access", "`FORMAT` of the lines: "+formatNames)
		site := fs.String("site", "", "`NAME`: site that the lines are from")
		year := fs.Int("year", 0, "`YYYY`: year of syslog times, which carry none (default: such lines are undated)")
		whole := fs.Bool("from-start", false, "begin with what is in the file already")
		only := fs.String("only", "all", "which findings to write: all or bad")
		return func(ctx context.Context, c *cli.Call, args []string) error {
			kind, ok := formats[*input]
			switch {
			case len(args) != 1:
				return cli.Usagef("name one file to follow")
			case !ok:
				return cli.Usagef("--format %q: want %s", *input, formatNames)
			case *only != "all" && *only != "bad":
				return cli.Usagef("--only %q: want all or bad", *only)
			}
			a := agent.Open(*state)
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
				return json.MarshalEncode(enc, f)
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
