// Command bhagent keeps a verified release on a server and scores records
// with it.
//
// It loads nothing that it has not just verified: 'bhagent sync' pulls a
// release, judges it by the local policy and installs it whole or not at all;
// every later command judges what is installed again, by the policy of that
// moment. 'bhagent help' lists the commands.
//
// Exit codes: 0 yes, 1 could not do it (score: a row was bad), 2 usage, 3
// refused by the policy, rollback, or nothing verified is installed, 5 corrupt
// local state.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func main() { app.Main() }

var app = cli.App{
	Name:     "bhagent",
	Short:    "install verified models of battle-hardened-ai and score records with them",
	Commands: []cli.Command{syncCommand, statusCommand, scoreCommand, runCommand, cli.VersionCommand("bhagent")},
	Code:     exitCode,
}

func exitCode(err error) int {
	switch {
	case errors.Is(err, agent.ErrCorrupt):
		return cli.CorruptState
	case errors.Is(err, agent.ErrRefused), errors.Is(err, agent.ErrNothing), errors.Is(err, oras.ErrInvalid):
		return cli.Refused
	}
	return cli.Failed
}

type runFunc = func(context.Context, *cli.Call, []string) error

// stateFlag declares --state.
func stateFlag(fs *pflag.FlagSet) *string {
	dir := ".bhagent"
	if config, err := os.UserConfigDir(); err == nil {
		dir = filepath.Join(config, "bhagent")
	}
	return fs.String("state", dir, "`DIR`: where verified releases are kept")
}

// loadPolicy returns the verifier of a policy file, or nil for none.
func loadPolicy(path string) (*verify.Verifier, error) {
	if path == "" {
		return nil, nil
	}
	p, err := verify.LoadPolicy(path)
	if err != nil {
		return nil, err
	}
	return verify.New(p)
}

var syncCommand = cli.Command{
	Name:  "sync",
	Short: "pull a release, verify it, and make it live",
	Long: `
Resolves --from once, pulls that digest, judges it by the policy and installs
it if the policy allows it and its release number is not lower than any that
was accepted before. Otherwise nothing changes and the live release stays.

--from takes a directory, oci-layout:DIR[:TAG|@DIGEST] or
HOST/NAME[:TAG|@DIGEST].`,
	Example: `
bhagent sync --from dist --policy policy.yaml
bhagent sync --from registry.example.org/models/web --policy /etc/bhagent/policy.yaml --state /var/lib/bhagent`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		from := fs.String("from", "", "`REF`: where to pull from (required)")
		policy := fs.String("policy", "", "`FILE`: the policy that says whom to trust (required); it is read again at every load")
		state := stateFlag(fs)
		plain := fs.Bool("plain-http", false, "allow HTTP without TLS to hosts other than this one")
		anonymous := fs.Bool("anonymous", false, "send no credentials")
		cli.Format(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			switch {
			case len(args) > 0:
				return cli.Usagef("unexpected argument %q: where to pull from is given by --from %s", args[0], args[0])
			case *from == "":
				return cli.Usagef("--from is missing: name a directory or HOST/NAME")
			case *policy == "":
				return cli.Usagef("--policy is missing: 'bhverify policy init' makes one")
			}
			ref, err := oras.ParseRef(*from)
			if err != nil {
				return cli.Usagef("%w", err)
			}
			v, err := loadPolicy(*policy)
			if err != nil {
				return err
			}
			opt := oras.Options{PlainHTTP: *plain, Anonymous: *anonymous, UserAgent: "bhagent/" + cli.ReadBuild().Version}
			s, err := agent.Open(*state).Sync(ctx, ref, opt, v, *policy)
			if s == nil {
				return err
			}
			if c.JSON() {
				if werr := c.WriteJSON(s); err == nil {
					err = werr
				}
				return err
			}
			w := c.Stdout
			if err != nil {
				w = c.Stderr
			}
			if werr := s.Verdict.WriteText(w, c.Color(w)); err == nil {
				err = werr
			}
			if err != nil {
				return err
			}
			what := "already live"
			if s.Installed {
				what = "installed"
			}
			_, err = fmt.Fprintf(w, "%s: %s release %d, %s\n", what, verify.Printable(s.Product), s.Number, s.Release)
			return err
		}
	},
}

var statusCommand = cli.Command{
	Name:  "status",
	Short: "show what is live and judge it again",
	Long: `
Judges the installed release by the policy that sync was given, or by
--policy. Exit code 0 means that it would be loaded now.`,
	Example: `
bhagent status
bhagent status --state /var/lib/bhagent --format json`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		state := stateFlag(fs)
		policy := fs.String("policy", "", "`FILE`: a policy to judge by (default: the one that sync was given)")
		cli.Format(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("status takes no arguments")
			}
			v, err := loadPolicy(*policy)
			if err != nil {
				return err
			}
			in, err := agent.Open(*state).Status(ctx, v)
			if err != nil {
				return err
			}
			if c.JSON() {
				if err := c.WriteJSON(in); err != nil {
					return err
				}
			} else {
				if err := in.Verdict.WriteText(c.Stdout, c.Color(c.Stdout)); err != nil {
					return err
				}
				fmt.Fprintf(c.Stdout, "source    %s\npolicy    %s\nhighest   %d\n", verify.Printable(in.Source), verify.Printable(in.Policy), in.Highest)
				if !in.Previous.IsZero() {
					fmt.Fprintf(c.Stdout, "previous  %s\n", in.Previous)
				}
			}
			if !in.Verdict.Pass() {
				return cli.Exit(cli.Refused, nil)
			}
			return nil
		}
	},
}

// formats are the words of score's --format and the kinds they stand for.
var formats = map[string]record.Kind{
	"json":     record.Attacks,
	"access":   record.Access,
	"sshd":     record.SSHD,
	"cowrie":   record.Cowrie,
	"labelled": record.Labelled,
	"honeypot": record.Honeypot,
}

const formatNames = "json, access, sshd, cowrie, honeypot or labelled"

var scoreCommand = cli.Command{
	Name:  "score",
	Short: "score records from standard input, one JSON line each",
	Long: `
Verifies the installed release, loads it, and writes for every row of standard
input one JSON line, in the order of the rows: anomaly (score, flag), class,
probabilities, reputation (null with a reason where the row has no address or
time) and the digest of the release. A row that is no record gives a line with
an error, the rest goes on, and the exit code is 1 at the end. A row that is
no network event gives a line that says so.

What a record looks like stands in dataset/SOURCES.md: every member that is
read, its other names, and which text counts when there are several.

History (how often a source came, which paths it asked for) starts empty and
builds up over the rows of one run.`,
	Example: `
bhagent score < records.jsonl
bhagent score --format access < /var/log/nginx/access.log
bhagent score --format sshd --year 2026 < /var/log/auth.log`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		state := stateFlag(fs)
		policy := fs.String("policy", "", "`FILE`: a policy to judge by (default: the one that sync was given)")
		input := fs.String("format", "json", "`FORMAT` of the input: "+formatNames)
		site := fs.String("site", "", "`NAME`: site that the records are from")
		year := fs.Int("year", 0, "`YYYY`: year of syslog times, which carry none (default: such rows are undated)")
		return func(ctx context.Context, c *cli.Call, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("unexpected argument %q: records come on standard input", args[0])
			}
			kind, ok := formats[*input]
			if !ok {
				return cli.Usagef("--format %q: want %s", *input, formatNames)
			}
			v, err := loadPolicy(*policy)
			if err != nil {
				return err
			}
			s, err := agent.Open(*state).Load(ctx, v)
			if err != nil {
				return err
			}
			n, err := s.Stream(ctx, c.Stdin, c.Stdout, kind, record.Options{Site: *site, Year: *year})
			if err != nil {
				return err
			}
			if n.Bad > 0 {
				return fmt.Errorf("%d of %d rows are no records: see the lines with \"error\"", n.Bad, n.Bad+n.Scored+n.Skipped)
			}
			return nil
		}
	},
}
