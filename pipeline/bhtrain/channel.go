package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// storeFlags say how to reach a registry.
type storeFlags struct{ plain, anonymous *bool }

func newStoreFlags(fs *pflag.FlagSet) storeFlags {
	return storeFlags{
		plain:     fs.Bool("plain-http", false, "allow HTTP without TLS to hosts other than this one"),
		anonymous: fs.Bool("anonymous", false, "send no credentials"),
	}
}

func (f storeFlags) options() oras.Options {
	return oras.Options{PlainHTTP: *f.plain, Anonymous: *f.anonymous, UserAgent: "bhtrain/" + cli.ReadBuild().Version}
}

// open opens the store of a reference for writing, and resolves what it names.
func (f storeFlags) open(ctx context.Context, args []string) (oras.Store, oras.Ref, oras.Descriptor, error) {
	if len(args) != 1 {
		return nil, oras.Ref{}, oras.Descriptor{}, cli.Usagef("want one argument, a release: a directory or a reference")
	}
	ref, err := oras.ParseRef(args[0])
	if err != nil {
		return nil, ref, oras.Descriptor{}, cli.Usagef("%w", err)
	}
	if ref.Layout != "" { // nothing is made where there is nothing
		if _, err := oras.Open(ctx, ref, oras.Options{}); err != nil {
			return nil, ref, oras.Descriptor{}, err
		}
	}
	opt := f.options()
	opt.Write = true
	store, err := oras.Open(ctx, ref, opt)
	if err != nil {
		return nil, ref, oras.Descriptor{}, err
	}
	d, err := store.Resolve(ctx, ref.Name())
	return store, ref, d, err
}

// layout is the folder that a reference names, "" for a registry: no signing
// key may lie there.
func layout(ref oras.Ref) string { return ref.Layout }

// policyFlag declares --policy.
func policyFlag(fs *pflag.FlagSet, what string) *string {
	return fs.String("policy", "", "`FILE`: "+what+" (default: your own key or identity)")
}

// loadPolicy reads a policy with its trusted root; "" gives nil.
func loadPolicy(ctx context.Context, path string) (*verify.Policy, error) {
	if path == "" {
		return nil, nil
	}
	p, err := verify.LoadWhole(ctx, path, func() (string, error) { return cli.CacheDir("tuf") }, false)
	return &p, err
}

// channelFlags say what to publish in a channel.
type channelFlags struct {
	name, policy  *string
	state         *string
	expires       *time.Duration
	epoch, lowest *int64
	first         *bool
	revocations   *[]string
}

func newChannelFlags(fs *pflag.FlagSet) channelFlags {
	return channelFlags{
		name:        fs.String("channel", "", "`NAME`: channel to publish, such as stable"),
		expires:     fs.Duration("expires", pipeline.DefaultLifetime, "`TIME` after which the channel is stale unless published again"),
		policy:      policyFlag(fs, "who may have signed the channel before, and what its release must be"),
		state:       fs.String("state", "", "`DIR`: what was published to registries is remembered there (default: bhtrain in $XDG_STATE_HOME or ~/.local/state)"),
		epoch:       fs.Int64("epoch", 0, "raise the epoch, after an accident; policies must be raised with it (default: as before)"),
		lowest:      fs.Int64("lowest", 0, "lowest release `NUMBER` that may still be installed (default: as before)"),
		first:       fs.Bool("first", false, "there is no such channel yet, or none that could be verified"),
		revocations: fs.StringArray("revocation", nil, "`FILE`: a revocation to add, as 'bhtrain revoke' writes it; may be repeated"),
	}
}

func (f channelFlags) plan(ctx context.Context) (pipeline.ChannelPlan, error) {
	p := pipeline.ChannelPlan{Name: *f.name, Lifetime: *f.expires, Epoch: *f.epoch, Lowest: *f.lowest, First: *f.first}
	if err := verify.CheckChannelName(p.Name); err != nil {
		return p, cli.Usagef("--channel: %w", err)
	}
	switch {
	case p.Lifetime < time.Minute:
		return p, cli.Usagef("--expires %s: want a minute or more, and several times the period of your schedule", p.Lifetime)
	case p.Epoch < 0 || p.Lowest < 0:
		return p, cli.Usagef("--epoch %d, --lowest %d: want 1 or more", p.Epoch, p.Lowest)
	}
	for _, path := range *f.revocations {
		b, err := cli.ReadFile(path, oras.MaxBundle)
		if err != nil {
			return p, err
		}
		p.Revocations = append(p.Revocations, b)
	}
	var err error
	p.Policy, err = loadPolicy(ctx, *f.policy)
	return p, err
}

// memory is the file that remembers the channel of the place ref, "" for a
// directory: that is the publisher's own, and is made anew at will.
func (f channelFlags) memory(c *cli.Call, ref oras.Ref) string {
	if ref.Layout != "" {
		return ""
	}
	dir := *f.state
	if dir == "" {
		dir = os.Getenv("XDG_STATE_HOME")
		if !filepath.IsAbs(dir) {
			home, err := os.UserHomeDir()
			if err != nil {
				c.Log.Warn("what is published is not remembered, so a registry that shows an old channel would not be noticed: name a folder with --state", "problem", err)
				return ""
			}
			dir = filepath.Join(home, ".local", "state")
		}
		dir = filepath.Join(dir, "bhtrain")
	}
	return pipeline.MemoryFile(dir, ref, *f.name)
}

var channelCommand = cli.Command{
	Name:  "channel",
	Args:  "REF --channel NAME",
	Short: "say which release is current, until when, and which are revoked",
	Long: `
Signs a channel that names REF as the current release and puts it beside the
release, in the place of the one before. Agents whose policy names the channel
follow it, and take it for stale once it has expired: publish it again on a
schedule, also when nothing changed, with --expires several periods long.

The channel before is verified, and its revocations are kept; release number,
lowest release and sequence never fall. Where there is none, or it does not
verify, this is refused: say --first when the channel is new. When one was
lost, or somebody forged one that is ahead, raise --epoch here and in the
policies. Neither belongs into a schedule: they let a registry that hides the
channel make you forget what was revoked.

What was published to a registry is remembered in --state, and a registry that
later shows an older channel, or none, is refused: going on from that would
drop what was revoked since. A job that begins with an empty disk each time
remembers nothing, unless it is given a folder that outlives it.

With --policy the release must also be one that the policy accepts.` + signHelp,
	Example: `
bhtrain channel dist --channel stable --expires 48h --first
bhtrain channel registry.example.org/models/web:release-8 --channel stable --policy policy.yaml
bhtrain channel dist --channel stable --revocation revocation.sigstore.json --lowest 7`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		channel, signing, stores := newChannelFlags(fs), newSignFlags(fs), newStoreFlags(fs)
		cli.Format(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			plan, err := channel.plan(ctx)
			if err != nil {
				return err
			}
			store, ref, d, err := stores.open(ctx, args)
			if err != nil {
				return err
			}
			if plan.Signer, err = signing.open(ctx, layout(ref)); err != nil {
				return err
			}
			plan.Memory = channel.memory(c, ref)
			r, err := pipeline.PublishChannel(ctx, store, d.Digest, plan)
			if err != nil {
				return err
			}
			return writeChannel(c, r)
		}
	},
}

var revokeCommand = cli.Command{
	Name:  "revoke",
	Args:  "REF --reason TEXT",
	Short: "say that a release must not be used any more",
	Long: `
Signs a revocation of the release REF. It takes effect in a channel: with
--channel it is added at once, and the channel goes on to name the release that
it named before; without, it is written to --output for whoever signs the
channel ('bhtrain channel --revocation'). Agents unload a release that a
revoker of their policy has revoked, and never load it again.

A revocation has no end. Releases with higher numbers are not touched by it.` + signHelp,
	Example: `
bhtrain revoke oci-layout:dist:release-7 --reason 'trained on poisoned records' --channel stable
bhtrain revoke registry.example.org/models/web:release-7 --reason "misses XSS" --key revoker.key -o revocation.sigstore.json`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		reason := fs.String("reason", "", "`TEXT` that agents show, at most 400 bytes")
		out := fs.StringP("output", "o", "", "`FILE`: a new file for the revocation")
		channel, signing, stores := newChannelFlags(fs), newSignFlags(fs), newStoreFlags(fs)
		cli.Format(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			if *reason == "" {
				return cli.Usagef("--reason is missing: people will ask")
			}
			if *channel.name == "" && *out == "" {
				return cli.Usagef("want --channel NAME, --output FILE, or both")
			}
			var plan pipeline.ChannelPlan
			var err error
			if *channel.name != "" {
				if plan, err = channel.plan(ctx); err != nil {
					return err
				}
			}
			store, ref, d, err := stores.open(ctx, args)
			if err != nil {
				return err
			}
			signer, err := signing.open(ctx, layout(ref))
			if err != nil {
				return err
			}
			bundle, said, err := pipeline.Revoke(ctx, store, d.Digest, *reason, signer)
			if err != nil {
				return err
			}
			if *out != "" {
				if _, err := os.Lstat(*out); err == nil {
					return fmt.Errorf("%s exists; name a new file with --output", *out)
				}
				if err := durable.WriteFile(durable.OS, *out, bundle, 0o644); err != nil {
					return err
				}
			}
			if *channel.name == "" {
				return writeRevocation(c, said, *out)
			}
			plan.Signer, plan.Revocations = signer, append(plan.Revocations, bundle)
			plan.Memory = channel.memory(c, ref)
			r, err := pipeline.PublishChannel(ctx, store, canon.Digest{}, plan)
			if err != nil {
				return err
			}
			if r.Manifest == d.Digest {
				c.Log.Warn("the revoked release stays the current one, so agents go back to the one before, if they have one that may be used, or hold none, until a newer one is published")
			}
			return writeChannel(c, r)
		}
	},
}

func writeRevocation(c *cli.Call, r *verify.Revocation, out string) error {
	if c.JSON() {
		return c.WriteJSON(r)
	}
	_, err := fmt.Fprintf(c.Stdout, "REVOKED %s release %d, %s: %s\nThis takes effect once a channel lists it: bhtrain channel REF --channel NAME --revocation %s\n",
		r.Product, r.Release, r.Manifest, r.Reason, out)
	return err
}

func writeChannel(c *cli.Call, r *pipeline.ChannelReport) error {
	if c.JSON() {
		return c.WriteJSON(r)
	}
	out := bufio.NewWriter(c.Stdout)
	channelText(out, r)
	return out.Flush()
}

func channelText(out io.Writer, r *pipeline.ChannelReport) {
	fmt.Fprintf(out, "PUBLISHED channel %s of %s, epoch %d, sequence %d, until %s\n  current   release %d, %s\n  lowest    release %d\n",
		r.Channel, r.Product, r.Epoch, r.Sequence, r.Expires, r.Release, r.Manifest, r.Lowest)
	for _, v := range r.Verdict.Revoked {
		fmt.Fprintf(out, "  revoked   release %d, %s: %s\n", v.Release, v.Manifest, v.Reason)
	}
	fmt.Fprintf(out, "  before    %s\n", verify.Printable(r.Before))
}
