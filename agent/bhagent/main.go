// Command bhagent keeps a verified release on a server and scores records
// with it.
//
// It loads nothing that it has not just verified: 'bhagent sync' pulls a
// release, judges it by the local policy and installs it whole or not at all;
// every later command judges what is installed again, by the policy of that
// moment. 'bhagent help' lists the commands.
//
// Exit codes: 0 yes, 1 could not do it (score: a row was bad; sync, status:
// stale), 2 usage, 3 refused by the policy or the channel, rollback, or nothing
// verified is installed, 5 corrupt local state.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func main() { app.Main() }

var app = cli.App{
	Name:     "bhagent",
	Short:    "install verified models of battle-hardened-ai and score records with them",
	Commands: []cli.Command{syncCommand, statusCommand, scoreCommand, tailCommand, runCommand, rollbackCommand, pinCommand, cli.VersionCommand("bhagent")},
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

// openAgent returns the agent with a state directory.
func openAgent(dir string) *agent.Agent {
	a := agent.Open(dir)
	a.Built = cli.ReadBuild().Committed
	return a
}

// parseRefs parses the values of --from.
func parseRefs(from []string) (refs []oras.Ref, err error) {
	for _, f := range from {
		ref, err := parseFrom(f)
		if err != nil {
			return nil, cli.Usagef("--from: %w", err)
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// parseFrom parses a reference to read from. The name of a host alone is none,
// though a directory could be called so: it would be asked for ever in vain.
func parseFrom(s string) (oras.Ref, error) {
	ref, err := oras.ParseRef(s)
	if err != nil || ref.Layout == "" || strings.ContainsAny(s, `/\:`) || !strings.Contains(strings.Trim(s, "."), ".") {
		return ref, err
	}
	if _, err := os.Stat(s); errors.Is(err, fs.ErrNotExist) {
		return oras.Ref{}, fmt.Errorf("%q: no such directory, and no name after the host: write %s/NAME for a repository, ./%s for a directory", s, s, s)
	}
	return ref, nil
}

// policyFlag declares --policy of the commands that need none.
func policyFlag(fs *pflag.FlagSet) *string {
	return fs.String("policy", "", "`FILE`: a policy to judge by (default: the one that sync was given)")
}

var syncCommand = cli.Command{
	Name:  "sync",
	Short: "find the release to use, verify it, and make it live",
	Long: `
Judges the release by the policy and installs it if the policy allows it.
Otherwise nothing changes and the live release stays.

With a policy that names a channel, the release is the one that the channel
names, and what the channel says may not go back behind what was accepted
before. A release that a revoker of the policy withdrew goes out of use, and
the previous one comes back if the policy allows it. Without a channel it is the
release that --from names, and its number may not be lower than any accepted.

--from takes a directory, oci-layout:DIR[:TAG|@DIGEST] or
HOST/NAME[:TAG|@DIGEST]; tag and digest only without a channel. Given several
times, these are mirrors that are asked in this order until one has something new
that may be used: one that is silent, behind or refused is passed over.

Exit code 1 also means stale: the channel is the one that was known, and has
expired; the live release stays in use, and nobody says that it is current. So
it is when there is no room for what was found, which is said before anything is
written.`,
	Example: `
bhagent sync --from dist --policy policy.yaml
bhagent sync --from registry.example.org/models/web --policy /etc/bhagent/policy.yaml --state /var/lib/bhagent`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		from := fs.StringArray("from", nil, "`REF`: where to pull from (required); given several times, mirrors that are asked in this order")
		policy := fs.String("policy", "", "`FILE`: the policy that says whom to trust (required); it is read again at every load")
		state := stateFlag(fs)
		plain := fs.Bool("plain-http", false, "allow HTTP without TLS to hosts other than this one")
		anonymous := fs.Bool("anonymous", false, "send no credentials")
		cli.Format(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			switch {
			case len(args) > 0:
				return cli.Usagef("unexpected argument %q: where to pull from is given by --from %s", args[0], args[0])
			case len(*from) == 0:
				return cli.Usagef("--from is missing: name a directory or HOST/NAME")
			case *policy == "":
				return cli.Usagef("--policy is missing: 'bhverify policy init' makes one")
			}
			refs, err := parseRefs(*from)
			if err != nil {
				return err
			}
			a := openAgent(*state)
			v, err := a.Verifier(ctx, *policy, false)
			if err != nil {
				return err
			}
			for _, ref := range refs {
				if ch := v.Policy().Channel; ch != nil && (ref.Tag != "" || !ref.Digest.IsZero()) {
					return cli.Usagef("--from %s: the policy names channel %s, which says what to install: leave out the tag and the digest", ref, ch.Name)
				}
			}
			opt := oras.Options{PlainHTTP: *plain, Anonymous: *anonymous, UserAgent: "bhagent/" + cli.ReadBuild().Version}
			asked, best := a.SyncMirrors(ctx, refs, opt, v, *policy, time.Now())
			for i := range asked {
				if got := asked[i].Synced; got != nil && !got.Unpinned.IsZero() {
					c.Log.Warn("not pinned any more: the release was revoked", "release", got.Unpinned)
				}
				if &asked[i] != best && asked[i].Err != nil {
					c.Log.Warn("mirror was not used", "source", asked[i].From.String(), "reason", verify.Printable(asked[i].Err.Error()))
				}
			}
			s, err := best.Synced, best.Err
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
			if s.Channel != nil {
				if werr := s.Channel.WriteText(w, c.Color(w)); err == nil {
					err = werr
				}
			}
			if s.Verdict != nil {
				if werr := s.Verdict.WriteText(w, c.Color(w)); err == nil {
					err = werr
				}
			}
			what := "already live"
			switch {
			case s.Fallback:
				fmt.Fprintf(w, "live again: release %s, since %s was revoked\n", s.Live, s.Previous)
				return err
			case err != nil:
				return err
			case !s.Pinned.IsZero():
				_, err = fmt.Fprintf(w, "pinned: release %s stays; %s is what there is\n", s.Pinned, s.Release)
				return err
			case s.Installed:
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
--policy, and by the newest channel statement that was accepted.

States: current; stale (the channel has expired, or the clock is wrong);
behind (the channel names another release, which is not installed); pinned (so
too, by a decision); revoked and refused (not in use).

Exit codes: 0 current or pinned, 1 stale or behind (in use, and nobody says
that it is current), 3 not in use.`,
	Example: `
bhagent status
bhagent status --state /var/lib/bhagent --format json`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		state := stateFlag(fs)
		policy := policyFlag(fs)
		cli.Format(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("status takes no arguments")
			}
			a := openAgent(*state)
			v, err := a.Verifier(ctx, *policy, true)
			if err != nil {
				return err
			}
			in, err := a.Status(ctx, v, time.Now())
			if err != nil {
				return err
			}
			if c.JSON() {
				if err := c.WriteJSON(in); err != nil {
					return err
				}
			} else if err := writeStatus(c, in); err != nil {
				return err
			}
			switch {
			case !in.Loadable():
				return cli.Exit(cli.Refused, nil)
			case in.State == agent.StateStale, in.State == agent.StateBehind:
				return cli.Exit(cli.Failed, nil)
			}
			return nil
		}
	},
}

func writeStatus(c *cli.Call, in *agent.Installed) error {
	w := c.Stdout
	if ch := in.Verdict.Channel; ch != nil {
		if err := ch.WriteText(w, c.Color(w)); err != nil {
			return err
		}
	}
	if err := in.Verdict.WriteText(w, c.Color(w)); err != nil {
		return err
	}
	state := string(in.State)
	if in.Reason != "" {
		state += ": " + verify.Printable(in.Reason)
	}
	bound := "the highest release number accepted: no sync installs one below it"
	if in.Verdict.Channel != nil {
		bound += " within the epoch of the channel"
	}
	fmt.Fprintf(w, "state     %s\nsource    %s\npolicy    %s\nhighest   %d, %s\n", state, verify.Printable(in.Source), verify.Printable(in.Policy), in.Highest, bound)
	if !in.Pinned.IsZero() {
		fmt.Fprintf(w, "pinned    %s, until 'bhagent pin --off'\n", in.Pinned)
	}
	if !in.Previous.IsZero() {
		fmt.Fprintf(w, "previous  %s\n", in.Previous)
	}
	for _, d := range in.Decisions {
		by := ""
		if d.By != "" {
			by = "by " + verify.Printable(d.By) + ", "
		}
		fmt.Fprintf(w, "decided   %s %s %s %s%s\n", verify.FormatTime(d.Time), d.What, d.Release, by, verify.Printable(d.Reason))
	}
	return nil
}

var rollbackCommand = cli.Command{
	Name:  "rollback",
	Short: "make the release before live again, and stay with it",
	Long: `
A decision against what the channel names, for when a release does harm that
its signatures do not show. It is written down with its time and reason, and
holds until 'bhagent pin --off'. The policy must allow the release now, and
nobody may have revoked it. A running 'bhagent run' follows within about a
second, 'bhagent tail' within ten.`,
	Example: `
bhagent rollback --to sha256:… --reason "flags every health check"`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		state := stateFlag(fs)
		policy := policyFlag(fs)
		to := fs.String("to", "", "`DIGEST` of the release, as status names it (required)")
		reason := fs.String("reason", "", "`TEXT` to keep with the decision (required)")
		return func(ctx context.Context, c *cli.Call, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("rollback takes no arguments")
			}
			d, err := canon.ParseDigest(*to)
			if err != nil {
				return cli.Usagef("--to: %w", err)
			}
			if *reason == "" {
				return cli.Usagef("--reason is missing: say why, for those who look at it later")
			}
			a := openAgent(*state)
			v, err := a.Verifier(ctx, *policy, true)
			if err != nil {
				return err
			}
			if err := a.Rollback(ctx, d, v, *reason, time.Now()); err != nil {
				return err
			}
			c.Log.Warn("rolled back by decision", "release", d, "reason", *reason)
			_, err = fmt.Fprintf(c.Stdout, "live and pinned: %s\n", d)
			return err
		}
	},
}

var pinCommand = cli.Command{
	Name:  "pin",
	Short: "stay with the live release, or not any more",
	Long: `
While a release is pinned, sync reads the channel and obeys revocations, and
installs nothing. The decision is written down with its time and reason.

A pin ends with 'bhagent pin --off', or when a revoker of the policy withdraws the
release: the next sync says so, writes it down among the decisions, and goes on to
what the channel names.`,
	Example: `
bhagent pin --reason "freeze until Monday"
bhagent pin --off`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		state := stateFlag(fs)
		policy := policyFlag(fs)
		off := fs.Bool("off", false, "let newer releases in again")
		reason := fs.String("reason", "", "`TEXT` to keep with the decision")
		return func(ctx context.Context, c *cli.Call, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("pin takes no arguments")
			}
			a := openAgent(*state)
			v, err := a.Verifier(ctx, *policy, true)
			if err != nil {
				return err
			}
			d, err := a.Pin(ctx, v, *off, *reason, time.Now())
			if err != nil {
				return err
			}
			what := "pinned"
			if *off {
				what = "not pinned"
			}
			c.Log.Warn(what+" by decision", "release", d, "reason", *reason)
			_, err = fmt.Fprintf(c.Stdout, "%s: %s\n", what, d)
			return err
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
		policy := policyFlag(fs)
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
			a := openAgent(*state)
			v, err := a.Verifier(ctx, *policy, true)
			if err != nil {
				return err
			}
			s, err := a.Load(ctx, v, time.Now())
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
