package cli

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/pflag"
)

// Official builds set these by -ldflags "-X …/internal/cli.version=v1.2.3 …".
var version, commit, digest string

// Build says which program runs. What a build does not know is "unknown".
type Build struct {
	Version string `json:"version"` // module version, such as v1.2.3
	Commit  string `json:"commit"`  // source commit, 40 hex digits
	Digest  string `json:"digest"`  // h1 sum of the module's files (golang.org/x/mod/sumdb/dirhash)

	// Committed is when Commit, or the one that a changed tree was made from, was
	// made; the program was built later. Zero when the toolchain was not told of the
	// repository ("go install" of a version, -buildvcs=false).
	Committed time.Time `json:"committed,omitzero"`

	Go   string `json:"go"`   // Go toolchain, such as go1.26.8
	OS   string `json:"os"`   // GOOS
	Arch string `json:"arch"` // GOARCH
}

// ReadBuild returns the running program's Build: what the linker was told,
// else what the Go toolchain recorded.
func ReadBuild() Build {
	b := Build{Version: version, Commit: commit, Digest: digest, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; b.Version == "" && v != "(devel)" {
			b.Version = v
		}
		vcs := map[string]string{}
		for _, s := range info.Settings {
			vcs[s.Key] = s.Value
		}
		if b.Commit == "" && vcs["vcs.modified"] != "true" { // a changed tree is no commit
			b.Commit = vcs["vcs.revision"]
		}
		b.Committed, _ = time.Parse(time.RFC3339, vcs["vcs.time"]) // zero when there is none
		if b.Digest == "" && info.Main.Sum != "" {
			b.Digest = info.Main.Sum
		}
	}
	for _, s := range []*string{&b.Version, &b.Commit, &b.Digest} {
		if *s == "" {
			*s = "unknown"
		}
	}
	return b
}

// VersionCommand is the version subcommand of the app with this name.
func VersionCommand(app string) Command {
	return Command{
		Name:    "version",
		Short:   "print which build this is",
		Example: app + " version --format json",
		Setup: func(fs *pflag.FlagSet) func(context.Context, *Call, []string) error {
			Format(fs)
			return func(_ context.Context, c *Call, args []string) error {
				if len(args) > 0 {
					return Usagef("version takes no arguments")
				}
				b := ReadBuild()
				if c.JSON() {
					return c.WriteJSON(b)
				}
				_, err := fmt.Fprintf(c.Stdout, "%s %s\ncommit %s\ndigest %s\n%s %s/%s\n", app, b.Version, b.Commit, b.Digest, b.Go, b.OS, b.Arch)
				return err
			}
		},
	}
}

// WriteJSON writes v to Stdout as indented JSON and a line feed.
func (c *Call) WriteJSON(v any) error {
	b, err := json.Marshal(v, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	_, err = c.Stdout.Write(append(b, '\n'))
	return err
}
