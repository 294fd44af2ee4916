package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/cli/heap"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func releaseCommand() cli.Command {
	return cli.Command{
		Name:  "release",
		Args:  "REF --policy FILE",
		Short: "judge a release, check by check",
		Long: `
REF is an OCI layout directory or a repository of a registry, with a tag or a
digest; without either the tag "latest" is resolved, once. The verdict is a list
of named checks (✓ passed, ✗ failed, – not demanded or not reached) and one line.

Nobody is asked but the named registry, the TUF repository of a policy with tuf,
and the places where the policy says that rebuilders keep their statements. With
--offline it is the named registry alone; with a layout directory, nobody: what
TUF published comes from the run before, and places are asked only if they are
folders or that registry's repository itself.

With a policy that names a channel, the channel is read from where the release
is. What was known of it before is not kept here: bhagent does that.`,
		Example: `
bhverify release dist --policy policy.yaml
bhverify release registry.example.org/models/web:release-12 --policy policy.yaml
bhverify release oci://registry.example.org/models/web@sha256:… --policy policy.yaml --format json
bhverify release dist --policy policy.yaml --bundle provenance.sigstore.json
bhverify release dist --policy policy.yaml --offline --vsa-out vsa.json`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			policy := fs.String("policy", "", "`FILE`: the policy that says whom to trust (required)")
			bundles := fs.StringArray("bundle", nil, "`FILE`: a Sigstore bundle to judge beside those in the store; may be given several times")
			offline := fs.Bool("offline", false, "make no connection but to the named registry")
			vsa := fs.String("vsa-out", "", "`FILE`: also write the verdict as a SLSA verification summary (an in-toto statement, unsigned)")
			plain := fs.Bool("plain-http", false, "talk to the registry without TLS (on the loopback interface this needs no flag)")
			anonymous := fs.Bool("anonymous", false, "send no credentials of the docker configuration")
			timeout := fs.Duration("timeout", 3*time.Minute, "`TIME`: give up after it")
			cli.Format(fs)
			return func(ctx context.Context, c *cli.Call, args []string) error {
				heap.Limit(memory)
				if len(args) != 1 {
					return cli.Usagef("release: want one reference, got %d; see 'bhverify release --help'", len(args))
				}
				if *policy == "" {
					return cli.Usagef("release: --policy FILE is missing; 'bhverify policy init' writes one")
				}
				if *timeout <= 0 {
					return cli.Usagef("release: --timeout %s: want more than 0", *timeout)
				}
				if *vsa != "" && sameFile(*vsa, *policy) {
					return cli.Usagef("release: --vsa-out %s is the policy: name another file", *vsa)
				}
				ref, err := oras.ParseRef(args[0])
				if err != nil {
					return cli.Usagef("release: %w", err)
				}
				ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("no verdict after %s; see --timeout", *timeout))
				defer cancel()
				j := judgement{ref: ref, policy: *policy, offline: *offline, store: oras.Options{PlainHTTP: *plain, Anonymous: *anonymous}, now: time.Now()}
				v, err := j.judge(ctx, c, *bundles)
				if err != nil {
					if cause := context.Cause(ctx); errors.Is(ctx.Err(), context.DeadlineExceeded) {
						err = cause
					}
					return err
				}
				if *vsa != "" {
					if err := j.writeSummary(v, *vsa); err != nil {
						return err
					}
				}
				if c.JSON() {
					err = c.WriteJSON(v)
				} else {
					err = v.WriteText(c.Stdout, c.Color(c.Stdout))
				}
				if err == nil && !v.Pass() {
					err = cli.Exit(cli.Refused, nil)
				}
				return err
			}
		},
	}
}

// sameFile reports whether a and b name one file that is there.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// judgement is one run of release.
type judgement struct {
	ref     oras.Ref
	policy  string
	offline bool
	store   oras.Options
	now     time.Time
}

func (j judgement) judge(ctx context.Context, c *cli.Call, bundleFiles []string) (*verify.Verdict, error) {
	verifier, err := loadVerifier(ctx, j.policy, j.offline)
	if err != nil {
		return nil, err
	}
	opt := verify.Options{Open: j.open}
	for _, name := range bundleFiles {
		b, err := cli.ReadFile(name, oras.MaxBundle)
		if err != nil {
			return nil, err
		}
		opt.Bundles = append(opt.Bundles, b)
	}
	store, err := oras.Open(ctx, j.ref, j.store)
	if err != nil {
		return nil, err
	}
	digest := j.ref.Digest
	if digest.IsZero() {
		d, err := store.Resolve(ctx, j.ref.Name())
		if err != nil {
			return nil, err
		}
		digest = d.Digest
		c.Log.Debug("resolved", "reference", j.ref.String(), "digest", digest.String())
	}
	v, _, err := verifier.Release(ctx, store, digest, j.now, opt)
	return v, err
}

// open opens a place where a rebuilder keeps its statements.
func (j judgement) open(ctx context.Context, place oras.Ref) (oras.Store, error) {
	if j.offline && place.Repository != "" && place.Repository != j.ref.Repository {
		return nil, errors.New("offline")
	}
	return oras.Open(ctx, place, j.store)
}

// writeSummary writes the verdict as a verification summary. Of local paths it
// says the last element only.
func (j judgement) writeSummary(v *verify.Verdict, path string) error {
	found := j.ref.Place()
	found.Digest = v.Release
	if found.Layout != "" {
		found.Layout = filepath.Base(found.Layout)
	}
	s, err := v.Summary(verify.Summary{
		Verifier: "https://github.com/battle-hardened-ai/bhtrain/verify/bhverify",
		Version:  map[string]string{"bhverify": cli.ReadBuild().Version},
		Time:     j.now,
		Resource: found.String(),
		Policy:   url.PathEscape(filepath.Base(j.policy)),
	})
	if err != nil {
		return err
	}
	b, err := s.Encode()
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, path, append(b, '\n'), 0o644)
}

// loadVerifier reads a policy and, where it says so, gets its trusted root
// through TUF; offline, from what was kept of it.
func loadVerifier(ctx context.Context, policyFile string, offline bool) (*verify.Verifier, error) {
	p, err := verify.LoadWhole(ctx, policyFile, func() (string, error) { return cli.CacheDir("tuf") }, offline)
	if err != nil {
		return nil, err
	}
	v, err := verify.New(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", policyFile, err)
	}
	return v, nil
}
