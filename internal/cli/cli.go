// Package cli is how the commands behave: subcommands and flags, help with
// examples, exit codes, signals, progress and logging. Only mains import it.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// Exit codes of every command.
const (
	OK              = 0 // yes
	Failed          = 1 // could not do it, or could not decide
	Usage           = 2 // the command line is wrong
	Refused         = 3 // not trusted
	NotReproducible = 4 // rebuilt, and the bytes differ
	CorruptState    = 5 // local state is damaged
)

// ExitError ends a command with a code. A nil Err prints nothing: the command
// has already said why.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns Err.
func (e *ExitError) Unwrap() error { return e.Err }

// Exit returns an *ExitError.
func Exit(code int, err error) error { return &ExitError{code, err} }

// Usagef returns an *ExitError with code Usage.
func Usagef(format string, args ...any) error {
	return &ExitError{Usage, fmt.Errorf(format, args...)}
}

// Command is one subcommand.
type Command struct {
	Name    string // the word on the command line
	Args    string // its arguments as the help shows them, such as "REF [FLAG]"
	Short   string // one line, no full stop
	Long    string // paragraphs
	Example string // lines as typed, with comments
	// Setup declares the flags and returns what runs once they are parsed.
	Setup func(*pflag.FlagSet) func(ctx context.Context, c *Call, args []string) error
}

// Call is what a running command may use.
type Call struct {
	Stdin  io.Reader
	Stdout io.Writer // the result
	Stderr io.Writer // everything else
	Log    *slog.Logger
	Format string // "text" or "json"
	quiet  bool
}

// JSON reports whether the result is asked for as JSON.
func (c *Call) JSON() bool { return c.Format == "json" }

// Color reports whether w is a terminal and NO_COLOR is not set.
func (c *Call) Color(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && terminal(w)
}

func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// App is one binary.
type App struct {
	Name     string
	Short    string
	Long     string
	Commands []Command
	// Code maps an error to an exit code; ExitError and usage errors are
	// handled before it is asked.
	Code func(error) int
}

// Main runs the command line of the process and exits. The first interrupt
// cancels the command's context, the second ends the process at once.
func (a App) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	code := a.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	os.Exit(code)
}

// Run runs one command line and returns its exit code.
func (a App) Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	call := &Call{Stdin: stdin, Stdout: stdout, Stderr: stderr}
	err := a.dispatch(ctx, call, args)
	if err == nil {
		return OK
	}
	code := Failed
	var exit *ExitError
	switch {
	case errors.As(err, &exit):
		if code = exit.Code; exit.Err == nil {
			return code
		}
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	case a.Code != nil:
		code = a.Code(err)
	}
	fmt.Fprintf(stderr, "%s: %s\n", a.Name, oneLine(err.Error()))
	return code
}

func (a App) dispatch(ctx context.Context, call *Call, args []string) error {
	if len(args) == 0 {
		a.usage(call.Stderr)
		return Exit(Usage, nil)
	}
	name, args := args[0], args[1:]
	switch name {
	case "-h", "--help", "help":
		if name == "help" && len(args) > 0 {
			name, args = args[0], []string{"--help"}
			break
		}
		a.usage(call.Stdout)
		return nil
	case "--version":
		name = "version"
	}
	// Two-word commands ("policy init") come before their first word alone.
	var cmd *Command
	for i := range a.Commands {
		words := strings.Fields(a.Commands[i].Name)
		if words[0] != name || len(args) < len(words)-1 || !slices.Equal(words[1:], args[:len(words)-1]) {
			continue
		}
		if cmd == nil || len(words) > len(strings.Fields(cmd.Name)) {
			cmd = &a.Commands[i]
		}
	}
	if cmd == nil {
		return Usagef("unknown command %q; '%s help' lists them%s", name, a.Name, a.suggest(name))
	}
	args = args[len(strings.Fields(cmd.Name))-1:]

	fs := pflag.NewFlagSet(cmd.Name, pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.SortFlags = false
	run := cmd.Setup(fs)
	help := fs.BoolP("help", "h", false, "show this help")
	fs.BoolVarP(&call.quiet, "quiet", "q", false, "no progress and no log below warnings")
	verbose := fs.BoolP("verbose", "v", false, "log what is being done")
	if err := fs.Parse(args); err != nil && !errors.Is(err, pflag.ErrHelp) {
		return Usagef("%v; see '%s %s --help'", err, a.Name, cmd.Name)
	}
	if *help {
		a.help(call.Stdout, cmd, fs)
		return nil
	}
	call.Format = "text"
	if f := fs.Lookup("format"); f != nil {
		if v, ok := f.Value.(*format); ok {
			call.Format = string(*v)
		}
	}
	level := slog.LevelInfo
	if call.quiet {
		level = slog.LevelWarn
	}
	if *verbose {
		level = slog.LevelDebug
	}
	call.Log = slog.New(slog.NewTextHandler(call.Stderr, &slog.HandlerOptions{Level: level}))
	return run(ctx, call, fs.Args())
}

// Format declares --format, which Call.Format then holds.
func Format(fs *pflag.FlagSet) {
	v := format("text")
	fs.Var(&v, "format", "output format: text or json")
}

type format string

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "string" }
func (f *format) Set(s string) error {
	if s != "text" && s != "json" {
		return errors.New("want text or json")
	}
	*f = format(s)
	return nil
}

func (a App) usage(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n", a.Name, a.Short)
	if a.Long != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(a.Long))
	}
	fmt.Fprintf(w, "\nUsage:\n  %s COMMAND [ARGUMENT ...] [FLAG ...]\n\nCommands:\n", a.Name)
	width := 0
	for _, c := range a.Commands {
		width = max(width, len(c.Name))
	}
	for _, c := range a.Commands {
		fmt.Fprintf(w, "  %-*s  %s\n", width, c.Name, c.Short)
	}
	fmt.Fprintf(w, "\nExit codes: 0 yes, 1 could not do it, 2 usage, 3 refused (not trusted),\n4 not reproducible, 5 corrupt local state.\n\n'%s COMMAND --help' explains a command.\n", a.Name)
}

func (a App) help(w io.Writer, c *Command, fs *pflag.FlagSet) {
	fmt.Fprintf(w, "%s.\n\nUsage:\n  %s\n", c.Short, strings.Join(strings.Fields(a.Name+" "+c.Name+" "+c.Args+" [FLAG ...]"), " "))
	if c.Long != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.Long))
	}
	if c.Example != "" {
		fmt.Fprint(w, "\nExamples:\n")
		for line := range strings.Lines(strings.Trim(c.Example, "\n")) {
			fmt.Fprint(w, "  ", line)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "\nFlags:\n")
	var names, texts []string
	width := 0
	fs.VisitAll(func(f *pflag.Flag) {
		name, text := flagHelp(f)
		width = max(width, len(name))
		names, texts = append(names, name), append(texts, text)
	})
	for i := range names {
		fmt.Fprintf(w, "  %-*s  %s\n", width, names[i], texts[i])
	}
}

// flagHelp returns a flag as it is typed and what the help says of it. The
// word for its value is the one in backquotes in the text, where it may stand
// at the start alone to name the value and no more: "`FILE`: where to write".
func flagHelp(f *pflag.Flag) (name, text string) {
	value, text := pflag.UnquoteUsage(f)
	text = strings.TrimPrefix(text, value+": ")
	switch value {
	case "stringArray", "string":
		value = "TEXT"
	case "int":
		value = "N"
	}
	name = "    --" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", --" + f.Name
	}
	if f.Value.Type() == "bool" {
		return name, text
	}
	switch def := f.DefValue; {
	case def == "" || def == "[]" || def == "0":
	case f.Value.Type() == "string":
		text += fmt.Sprintf(" (default %q)", def)
	default:
		text += fmt.Sprintf(" (default %s)", def)
	}
	return name + " " + value, text
}

// suggest names commands that share the start of what was typed.
func (a App) suggest(name string) string {
	var near []string
	for _, c := range a.Commands {
		if len(name) > 1 && strings.HasPrefix(c.Name, name[:2]) {
			near = append(near, c.Name)
		}
	}
	if len(near) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(near, " or ") + "?"
}

// oneLine makes foreign text safe and flat for a terminal: line breaks become
// "; ", control and format characters are dropped.
func oneLine(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, s)
}
