package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/internal/cli/heap"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func inspectCommand() cli.Command {
	return cli.Command{
		Name:  "inspect",
		Args:  "REF",
		Short: "show a release and what is said about it",
		Long: `
Shows the files of a release, its dataset, the statements about both, its channel
and its documents, as the store has them. The files have the digests that the
release's digest promises; who made it is another question.

Statements are shown as they describe themselves (–) unless a policy is given; then
as signed by whom the policy names for such a statement (✓) or not (✗). That is no
verdict: 'bhverify release' gives one.`,
		Example: `
bhverify inspect dist
bhverify inspect registry.example.org/models/web:release-12 --policy policy.yaml
bhverify inspect dist --channel beta --format json`,
		Setup: func(fs *pflag.FlagSet) func(context.Context, *cli.Call, []string) error {
			policy := fs.String("policy", "", "`FILE`: judge signatures by this policy")
			channels := fs.StringArray("channel", nil, "`NAME`: a channel to look for; may be given several times (default: the policy's, else stable)")
			plain := fs.Bool("plain-http", false, "talk to the registry without TLS (on the loopback interface this needs no flag)")
			anonymous := fs.Bool("anonymous", false, "send no credentials of the docker configuration")
			timeout := fs.Duration("timeout", 3*time.Minute, "`TIME`: give up after it")
			cli.Format(fs)
			return func(ctx context.Context, c *cli.Call, args []string) error {
				heap.Limit(memory)
				if len(args) != 1 {
					return cli.Usagef("inspect: want one reference, got %d; see 'bhverify inspect --help'", len(args))
				}
				if *timeout <= 0 {
					return cli.Usagef("inspect: --timeout %s: want more than 0", *timeout)
				}
				ref, err := oras.ParseRef(args[0])
				if err != nil {
					return cli.Usagef("inspect: %w", err)
				}
				ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("not all was read after %s; see --timeout", *timeout))
				defer cancel()
				v, err := inspect(ctx, ref, oras.Options{PlainHTTP: *plain, Anonymous: *anonymous}, *policy, *channels)
				if err != nil {
					if errors.Is(ctx.Err(), context.DeadlineExceeded) {
						err = context.Cause(ctx)
					}
					return err
				}
				if c.JSON() {
					return c.WriteJSON(v)
				}
				return v.writeText(c.Stdout, *policy)
			}
		},
	}
}

// view is what inspect shows. Whatever came from the store is printable.
type view struct {
	Format    int    `json:"format"` // 1
	Reference string `json:"reference"`
	Release   struct {
		Digest  canon.Digest `json:"digest"`
		Product string       `json:"product"`
		Number  int64        `json:"number"`
		Recipe  canon.Digest `json:"recipe"` // of the recipe in release.json, canonical
		Files   []viewFile   `json:"files"`
	} `json:"release"`
	Dataset struct {
		Digest   canon.Digest `json:"digest"`
		Manifest canon.Digest `json:"manifest"` // of its artifact; "" when the store has none
		Files    []viewFile   `json:"files"`
		Problem  string       `json:"problem"` // why it is not shown
	} `json:"dataset"`
	Policy     canon.Digest    `json:"policy"` // "" without one: then nothing below was judged
	Statements []viewStatement `json:"statements"`
	Channels   []viewChannel   `json:"channels"`
	Documents  []viewDocument  `json:"documents"` // nobody signs these
	Complete   bool            `json:"complete"`  // false: the store may have more
	Skipped    []string        `json:"skipped"`   // what could not be read: which and why
}

type viewFile struct {
	Name   string       `json:"name"`
	Size   int64        `json:"size"`
	Digest canon.Digest `json:"digest"`
}

// viewStatement is a bundle: what it claims, and whether the policy bears it out.
type viewStatement struct {
	About    string              `json:"about"`    // release or dataset
	Tag      string              `json:"tag"`      // under which it was found; "" among the referrers
	Manifest canon.Digest        `json:"manifest"` // of the referrer
	Judged   string              `json:"judged"`   // notJudged, endorsed or refused
	Claim    verify.Claim        `json:"claim"`
	By       *verify.Endorsement `json:"by,omitempty"` // with a policy
}

type viewChannel struct {
	Name    string         `json:"name"`
	Judged  string         `json:"judged"`
	Claim   *verify.Claim  `json:"claim,omitempty"`
	Checks  []verify.Check `json:"checks,omitempty"`  // with a policy that names the channel
	Problem string         `json:"problem,omitempty"` // why there is no claim
	Signer  string         `json:"signer,omitempty"`
}

type viewDocument struct {
	About   string `json:"about"`
	Release int64  `json:"release"` // number of the release that it is for, as far as it says so; else 0
	oras.DocumentInfo
}

const (
	notJudged = "not judged" // there is no policy, or it does not speak of this
	endorsed  = "endorsed"   // signed by whom the policy names for it
	refused   = "refused"    // not so
)

func inspect(ctx context.Context, ref oras.Ref, opt oras.Options, policyFile string, channels []string) (*view, error) {
	var verifier *verify.Verifier
	if policyFile != "" {
		var err error
		if verifier, err = loadVerifier(ctx, policyFile, false); err != nil {
			return nil, err
		}
	}
	store, err := oras.Open(ctx, ref, opt)
	if err != nil {
		return nil, err
	}
	d, err := store.Resolve(ctx, ref.Name())
	if err != nil {
		return nil, err
	}
	a, err := oras.Pull(ctx, store, d.Digest)
	if err != nil {
		return nil, err
	}
	v := &view{Format: 1, Reference: ref.String(), Complete: true, Statements: []viewStatement{}, Channels: []viewChannel{}, Documents: []viewDocument{}, Skipped: []string{}}
	v.Release.Digest, v.Release.Product, v.Release.Number = a.Digest, a.Release.Product, a.Release.Number
	v.Release.Recipe = canon.Sum(a.Release.Recipe)
	for _, f := range append(a.Models, oras.File{Name: oras.ReleaseFile, Data: a.ReleaseJSON}) {
		v.Release.Files = append(v.Release.Files, viewFile{f.Name, int64(len(f.Data)), canon.Sum(f.Data)})
	}
	if verifier != nil {
		v.Policy = verifier.Policy().Digest
	}
	see := &inspection{view: v, store: store, verifier: verifier, now: time.Now()}
	if err := see.about(ctx, "release", a.Digest, oras.ProvenanceTag(a.Digest), oras.ReproductionTag(a.Digest)); err != nil {
		return nil, err
	}
	if err := see.dataset(ctx, a.Release.Dataset); err != nil {
		return nil, err
	}
	if len(channels) == 0 {
		channels = []string{"stable"}
		if verifier != nil && verifier.Policy().Channel != nil {
			channels = []string{verifier.Policy().Channel.Name}
		}
	}
	for _, name := range channels {
		if err := see.channel(ctx, name); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// inspection fills a view.
type inspection struct {
	*view
	store    oras.Store
	verifier *verify.Verifier // nil without a policy
	now      time.Time

	described int // descriptions of the dataset that were read
}

// about adds the statements and documents about a manifest.
func (v *inspection) about(ctx context.Context, what string, d canon.Digest, tags ...string) error {
	list, err := oras.Bundles(ctx, v.store, d, tags...)
	if err != nil {
		return err
	}
	for _, b := range list.Bundles {
		s := viewStatement{About: what, Tag: b.Tag, Manifest: b.Manifest, Judged: notJudged, Claim: verify.ReadClaim(b.Data)}
		if v.verifier != nil {
			e := v.verifier.Endorse(b.Data, d, v.now)
			s.By, s.Judged = &e, refused
			if e.Signer != "" {
				s.Judged = endorsed
			}
		}
		v.Statements = append(v.Statements, s)
	}
	docs, complete, err := oras.Documents(ctx, v.store, d)
	if err != nil && !errors.Is(err, oras.ErrInvalid) {
		return err
	}
	listed := map[canon.Digest]bool{}
	for _, doc := range docs {
		listed[doc.Manifest] = true
		v.Documents = append(v.Documents, viewDocument{what, v.writtenFor(ctx, doc), doc})
	}
	for _, line := range list.Skipped {
		digest, _ := canon.ParseDigest(line[:min(len(line), len("sha256:")+64)])
		if !listed[digest] {
			v.Skipped = append(v.Skipped, verify.Printable(line))
		}
	}
	v.Complete = v.Complete && list.Complete && complete && err == nil
	return nil
}

// maxDescriptions is how many descriptions of a dataset are read.
const maxDescriptions = 16

// writtenFor is the number of the release that a description of a dataset was
// written for: each release of one dataset has its own. Others say 0.
func (v *inspection) writtenFor(ctx context.Context, info oras.DocumentInfo) int64 {
	if info.Type != oras.TypeJSONLD || v.described == maxDescriptions {
		return 0
	}
	v.described++
	var said struct {
		Version string `json:"version"` // 7.0.0+…
	}
	doc, err := oras.ReadDocument(ctx, v.store, info)
	if err != nil || json.Unmarshal(doc.Data, &said) != nil {
		return 0
	}
	first, _, _ := strings.Cut(said.Version, ".")
	n, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (v *inspection) dataset(ctx context.Context, d canon.Digest) error {
	v.Dataset.Digest, v.Dataset.Files = d, []viewFile{}
	info, err := oras.StatDataset(ctx, v.store, oras.DatasetTag(d))
	switch {
	case errors.Is(err, oras.ErrNotFound):
		v.Dataset.Problem = "not in this store"
		return nil
	case errors.Is(err, oras.ErrInvalid):
		v.Dataset.Problem = verify.Printable(err.Error())
		return nil
	case err != nil:
		return err
	}
	v.Dataset.Manifest = info.Manifest.Digest
	for _, f := range info.Files {
		v.Dataset.Files = append(v.Dataset.Files, viewFile{f.Name, f.Size, f.Digest})
	}
	return v.about(ctx, "dataset", info.Manifest.Digest, oras.DatasetStatementTag(info.Manifest.Digest))
}

func (v *inspection) channel(ctx context.Context, name string) error {
	ch := viewChannel{Name: verify.Printable(name), Judged: notJudged}
	bundle, _, err := oras.GetChannel(ctx, v.store, name)
	switch {
	case errors.Is(err, oras.ErrNotFound):
		ch.Problem = "not in this store"
	case errors.Is(err, oras.ErrInvalid):
		ch.Problem = verify.Printable(err.Error())
	case err != nil:
		return err
	default:
		claim := verify.ReadClaim(bundle)
		ch.Claim = &claim
		if v.verifier == nil || v.verifier.Policy().Channel == nil || v.verifier.Policy().Channel.Name != name {
			break
		}
		verdict := v.verifier.JudgeChannel(bundle, v.now, verify.Memory{})
		ch.Checks, ch.Judged = verdict.Checks, refused
		if verdict.Accepted() {
			ch.Judged, ch.Signer = endorsed, verify.Printable(verdict.Signer)
		}
	}
	v.Channels = append(v.Channels, ch)
	return nil
}

// marks of what was judged, as in a verdict.
var marks = map[string]string{notJudged: "–", endorsed: "✓", refused: "✗"}

var predicateNames = map[string]string{
	verify.PredicateProvenance: "provenance", verify.PredicateDataset: "dataset", verify.PredicateChannel: "channel",
	verify.PredicateRevocation: "revocation", verify.PredicateReproduction: "rebuild",
}

func (v *view) writeText(w io.Writer, policy string) error {
	out := bufio.NewWriter(w)
	line := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	files := func(list []viewFile) {
		for _, f := range list {
			line("  %-24s %12d bytes  %s", verify.Printable(f.Name), f.Size, f.Digest)
		}
	}
	line("%s release %d, %s", verify.Printable(v.Release.Product), v.Release.Number, v.Release.Digest)
	line("  at %s, recipe %s", verify.Printable(v.Reference), v.Release.Recipe)
	files(v.Release.Files)
	line("Dataset %s", v.Dataset.Digest)
	if v.Dataset.Problem != "" {
		line("  %s", v.Dataset.Problem)
	} else {
		line("  as %s", v.Dataset.Manifest)
		files(v.Dataset.Files)
	}
	line("Statements")
	if len(v.Statements) == 0 {
		line("  none")
	}
	for _, s := range v.Statements {
		line("  %s %s", marks[s.Judged], s.head())
		for _, text := range s.body() {
			line("      %s", text)
		}
	}
	line("Channels")
	for _, ch := range v.Channels {
		line("  %s %s", marks[ch.Judged], ch.head())
		for _, text := range ch.body() {
			line("      %s", text)
		}
	}
	line("Documents, which nobody signs")
	if len(v.Documents) == 0 {
		line("  none")
	}
	for _, d := range v.Documents {
		about := "about the " + d.About
		if d.Release != 0 {
			about += fmt.Sprintf(" of release %d", d.Release)
		}
		line("  %-24s %12d bytes  %s, %s", d.Name, d.Size, d.Type, about)
	}
	if len(v.Skipped) > 0 {
		line("Left aside")
		for _, s := range v.Skipped {
			line("  %s", s)
		}
	}
	if !v.Complete {
		line("The store may have more than could be read.")
	}
	if v.Policy.IsZero() {
		line("NOT JUDGED: statements (–) are shown as they describe themselves. Give --policy to see who signed them.")
	} else {
		line("Signatures were judged by %s. Whether the release is to be trusted is said by 'bhverify release'.", verify.Printable(policy))
	}
	return out.Flush()
}

func (s *viewStatement) head() string {
	kind := predicateNames[s.Claim.PredicateType]
	switch {
	case kind != "":
	case s.Claim.PredicateType != "":
		kind = fmt.Sprintf("statement of type %q", s.Claim.PredicateType)
	default:
		kind = "bundle"
	}
	switch s.Judged {
	case endorsed:
		when := ""
		if s.By.Time != "" {
			when = " at " + s.By.Time
		}
		return fmt.Sprintf("%s about the %s, signed by %s as %s%s", kind, s.About, s.By.Signer, s.By.Role, when)
	case refused:
		return fmt.Sprintf("%s about the %s, NOT VERIFIED: %s", kind, s.About, s.By.Reason)
	}
	return fmt.Sprintf("%s about the %s, NOT VERIFIED", kind, s.About)
}

func (s *viewStatement) body() []string {
	text := claimText(&s.Claim, s.Judged == endorsed)
	if s.Tag != "" {
		return append(text, "tag "+s.Tag)
	}
	return text
}

// claimText is what a bundle says. Unless it was verified, every line of it says
// that it is a claim, and words of the signer are quoted.
func claimText(c *verify.Claim, verified bool) (text []string) {
	verb := "claims"
	if verified {
		verb = "says"
	}
	switch {
	case c.Says != "" && verified:
		text = append(text, verb+": "+c.Says)
	case c.Says != "":
		text = append(text, fmt.Sprintf("%s: %q", verb, c.Says))
	case len(c.Subjects) > 0:
		var subjects []string
		for i, d := range c.Subjects {
			if i == 3 {
				subjects = append(subjects, fmt.Sprintf("and %d more", len(c.Subjects)-3))
				break
			}
			subjects = append(subjects, d.String())
		}
		text = append(text, verb+" to be about "+strings.Join(subjects, ", "))
	}
	if c.Signer != "" && !verified {
		text = append(text, fmt.Sprintf("%s to be signed by %q", verb, c.Signer))
	}
	if c.Problem != "" {
		text = append(text, "problem: "+c.Problem)
	}
	return append(text, "bundle "+c.Bundle.String())
}

func (ch *viewChannel) head() string {
	switch ch.Judged {
	case endorsed:
		for _, c := range ch.Checks {
			if c.Status == verify.Fail {
				return fmt.Sprintf("%s, STALE, signed by %s", ch.Name, ch.Signer)
			}
		}
		return fmt.Sprintf("%s, signed by %s", ch.Name, ch.Signer)
	case refused:
		var names []string
		for _, c := range ch.Checks {
			if c.Status == verify.Fail {
				names = append(names, c.Name)
			}
		}
		return fmt.Sprintf("%s, NOT VERIFIED: %s", ch.Name, strings.Join(names, ", "))
	}
	if ch.Claim == nil {
		return fmt.Sprintf("%s: %s", ch.Name, ch.Problem)
	}
	return ch.Name + ", NOT VERIFIED"
}

func (ch *viewChannel) body() []string {
	if ch.Claim == nil {
		return nil
	}
	text := claimText(ch.Claim, ch.Judged == endorsed)
	for _, c := range ch.Checks {
		if c.Status == verify.Fail {
			text = append(text, fmt.Sprintf("✗ %s: %s", c.Name, c.Reason))
		}
	}
	return text
}
