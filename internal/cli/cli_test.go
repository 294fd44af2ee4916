package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

var errTrust = errors.New("not trusted")

func testApp() App {
	run := func(err error) func(*pflag.FlagSet) func(context.Context, *Call, []string) error {
		return func(fs *pflag.FlagSet) func(context.Context, *Call, []string) error {
			Format(fs)
			n := fs.Int("n", 1, "a number")
			return func(ctx context.Context, c *Call, args []string) error {
				if err == nil {
					io.WriteString(c.Stdout, strings.Repeat("ok ", *n)+strings.Join(args, ","))
				}
				if err == context.Canceled {
					return ctx.Err()
				}
				return err
			}
		}
	}
	return App{
		Name: "app", Short: "a test",
		Commands: []Command{
			{Name: "good", Args: "REF", Short: "go well", Example: "app good x", Setup: run(nil)},
			{Name: "policy", Short: "policies", Setup: run(errors.New("first word"))},
			{Name: "policy init", Short: "make one", Setup: run(nil)},
			{Name: "refuse", Short: "refuse", Setup: run(errTrust)},
			{Name: "silent", Short: "refuse without a word", Setup: run(Exit(Refused, nil))},
			{Name: "evil", Short: "print an escape", Setup: run(errors.New("a\x1b[31m\u202eb\nc"))},
			{Name: "wait", Short: "be interrupted", Setup: run(context.Canceled)},
			VersionCommand("app"),
		},
		Code: func(err error) int {
			if errors.Is(err, errTrust) {
				return Refused
			}
			return Failed
		},
	}
}

func TestRun(t *testing.T) {
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, tc := range []struct {
		args     string
		code     int
		out, err string
	}{
		{"good x --n 2", OK, "ok ok x", ""},
		{"good --help", OK, "Examples:\n  app good x", ""},
		{"help good", OK, "app good REF [FLAG ...]", ""},
		{"help", OK, "Commands:\n", ""},
		{"", Usage, "", "Usage:"},
		{"goof", Usage, "", "did you mean good?"},
		{"good --nn 2", Usage, "", "unknown flag: --nn"},
		{"good --n two", Usage, "", "invalid"},
		{"good --format xml", Usage, "", "want text or json"},
		{"policy init a b", OK, "ok a,b", ""},
		{"policy lint", Failed, "", "app: first word\n"},
		{"refuse", Refused, "", "app: not trusted\n"},
		{"silent", Refused, "", ""},
		{"evil", Failed, "", "app: a[31mb; c\n"},
		{"wait", Failed, "", "app: interrupted\n"},
		{"version", OK, "app ", ""},
		{"version --format json", OK, `"go": "go`, ""},
		{"version x", Usage, "", "no arguments"},
	} {
		ctx := context.Background()
		if tc.args == "wait" {
			ctx = canceled
		}
		var out, errs bytes.Buffer
		code := testApp().Run(ctx, strings.Fields(tc.args), nil, &out, &errs)
		if code != tc.code || !strings.Contains(out.String(), tc.out) || !strings.Contains(errs.String(), tc.err) {
			t.Errorf("app %s: code %d, want %d\nstdout: %s\nstderr: %s", tc.args, code, tc.code, &out, &errs)
		}
		if tc.err == "" && errs.Len() > 0 {
			t.Errorf("app %s: stderr is not empty: %s", tc.args, &errs)
		}
	}
}

func TestNoProgressOffTerminal(t *testing.T) {
	var errs bytes.Buffer
	c := &Call{Stderr: &errs}
	report, end := c.Progress()
	report("train", 1, 2)
	end()
	if errs.Len() > 0 || c.Color(&errs) {
		t.Errorf("a buffer was taken for a terminal: %q", &errs)
	}
}

func TestHelpNamesValuesOnce(t *testing.T) {
	app := App{Name: "app", Commands: []Command{{Name: "run", Short: "run it", Setup: func(fs *pflag.FlagSet) func(context.Context, *Call, []string) error {
		fs.String("policy", "", "`FILE`: whom to trust")
		fs.StringP("format", "f", "csv", "`FORMAT` of the input")
		fs.StringArray("more", nil, "further words")
		fs.Int("n", 3, "how many")
		fs.Bool("yes", false, "do it")
		return nil
	}}}}
	var out bytes.Buffer
	if code := app.Run(context.Background(), []string{"run", "--help"}, nil, &out, &out); code != OK {
		t.Fatalf("code %d: %s", code, &out)
	}
	want := `run it.

Usage:
  app run [FLAG ...]

Flags:
      --policy FILE    whom to trust
  -f, --format FORMAT  FORMAT of the input (default "csv")
      --more TEXT      further words
      --n N            how many (default 3)
      --yes            do it
  -h, --help           show this help
  -q, --quiet          no progress and no log below warnings
  -v, --verbose        log what is being done
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", &out, want)
	}
}
