package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
)

func selfCommand() cli.Command {
	return cli.Command{
		Name:  "self",
		Short: "say how to rebuild this very program, and compare it with a published digest",
		Long: `
A verifier is itself something to verify. Prints the SHA-256 of the running
program, what it was built from, and the commands that make the same file again
on any machine: builds of one source, toolchain and target are the same bytes, in
whatever folder. With --digest the program is compared with a digest that you have
from elsewhere; a program that was tampered with can of course lie about itself,
so compare with 'sha256sum' too.

Exit codes: 0 the same, or nothing to compare with; 4 another.`,
		Example: `
bhverify self
bhverify self --digest sha256:… --format json`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			published := fs.String("digest", "", "`DIGEST`: published SHA-256 of this program for this system")
			cli.Format(fs)
			return func(_ context.Context, c *cli.Call, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("self: takes no arguments")
				}
				path, err := os.Executable()
				if err != nil {
					return err
				}
				info, ok := debug.ReadBuildInfo()
				if !ok {
					return errors.New("this program does not know how it was built")
				}
				r := describeSelf(cli.ReadBuild(), info)
				if r.Digest, err = digestOf(path); err != nil {
					return err
				}
				if *published != "" {
					want, err := canon.ParseDigest(*published)
					if err != nil {
						return cli.Usagef("self: --digest: %w", err)
					}
					same := want == r.Digest
					r.Published, r.Same = want, &same
				}
				if c.JSON() {
					err = c.WriteJSON(r)
				} else {
					err = r.write(c.Stdout)
				}
				if err == nil && r.Same != nil && !*r.Same {
					err = cli.Exit(cli.NotReproducible, nil)
				}
				return err
			}
		},
	}
}

// self is what the program says of itself.
type self struct {
	Build     cli.Build    `json:"build"`
	Digest    canon.Digest `json:"digest"`    // SHA-256 of the running program
	Published canon.Digest `json:"published"` // that it was compared with; "" for none
	Same      *bool        `json:"same"`      // null when it was not compared
	Rebuild   []string     `json:"rebuild"`   // commands
	Problems  []string     `json:"problems"`  // why they will not make the same bytes
}

// describeSelf says how a program with these facts is built again.
func describeSelf(b cli.Build, info *debug.BuildInfo) *self {
	r := &self{Build: b, Rebuild: []string{}, Problems: []string{}}
	set := map[string]string{}
	for _, s := range info.Settings {
		set[s.Key] = s.Value
	}
	problem := func(when bool, format string, a ...any) {
		if when {
			r.Problems = append(r.Problems, fmt.Sprintf(format, a...))
		}
	}
	problem(set["-trimpath"] != "true", "it was built without -trimpath, so folders of the builder are in it")
	problem(set["CGO_ENABLED"] != "0", "it was built with CGO_ENABLED=1, so a C toolchain may be in it")
	problem(set["vcs.modified"] == "true", "it was built from a source tree with changes that no commit has")
	problem(set["-race"] == "true" || set["-cover"] == "true", "it was built for tests")
	problem(b.Version == "unknown" && b.Commit == "unknown", "it does not know its source: neither version nor commit")

	env := fmt.Sprintf("GOTOOLCHAIN=%s CGO_ENABLED=0 GOOS=%s GOARCH=%s", b.Go, b.OS, b.Arch)
	for _, name := range []string{"GOAMD64", "GOARM64", "GOARM", "GO386", "GOPPC64", "GORISCV64", "GOMIPS", "GOMIPS64"} {
		if v := set[name]; v != "" {
			env += " " + name + "=" + v
		}
	}
	const module, command = "github.com/battle-hardened-ai/bhtrain", "verify/bhverify"
	if info.Main.Sum != "" { // from the module proxy
		r.Rebuild = append(r.Rebuild, fmt.Sprintf("%s go install -trimpath %s/%s@%s", env, module, command, info.Main.Version))
		return r
	}
	if b.Commit != "unknown" {
		r.Rebuild = append(r.Rebuild, fmt.Sprintf("git clone https://%s && cd bhtrain && git checkout %s", module, b.Commit))
	} else if b.Version != "unknown" {
		r.Rebuild = append(r.Rebuild, fmt.Sprintf("git clone https://%s && cd bhtrain && git checkout %s", module, b.Version))
	}
	flags := ""
	if b.Digest != "unknown" { // an official build, told by the linker
		r.Rebuild = append(r.Rebuild, `flags=$(go run ./internal/modsum -ldflags)`)
		flags = ` -ldflags "$flags"`
	}
	vcs := ""
	if set["vcs.revision"] == "" {
		vcs = " -buildvcs=false"
	}
	r.Rebuild = append(r.Rebuild, fmt.Sprintf("%s go build -trimpath%s%s -o bhverify.again ./%s", env, vcs, flags, command), "sha256sum bhverify.again")
	return r
}

func digestOf(path string) (canon.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return canon.Digest{}, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return canon.Digest(h.Sum(nil)), err
}

func (r *self) write(to io.Writer) error {
	w := bufio.NewWriter(to)
	b := r.Build
	fmt.Fprintf(w, "bhverify %s, %s/%s, built by %s\ncommit %s\nmodule %s\nthis program: %s\n", b.Version, b.OS, b.Arch, b.Go, b.Commit, b.Digest, r.Digest)
	if len(r.Problems) == 0 {
		fmt.Fprintln(w, "\nThese commands make it again:")
	} else {
		fmt.Fprintln(w, "\nIt cannot be made again byte for byte:")
		for _, p := range r.Problems {
			fmt.Fprintln(w, "  "+p)
		}
		fmt.Fprintln(w, "\nWhat comes nearest:")
	}
	for _, line := range r.Rebuild {
		fmt.Fprintln(w, "  "+line)
	}
	fmt.Fprintln(w)
	switch {
	case r.Same == nil:
		fmt.Fprintln(w, "Compared with nothing: give a published digest with --digest.")
	case *r.Same:
		fmt.Fprintf(w, "SAME as %s\n", r.Published)
	default:
		fmt.Fprintf(w, "ANOTHER than %s\n", r.Published)
	}
	return w.Flush()
}
