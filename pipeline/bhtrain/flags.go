package main

import (
	"context"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// inputsHelp is what the help says once for all flags that name inputs.
const inputsHelp = `

Inputs may be repeated, and a PATH may be a file, a directory or a pattern,
packed with gzip or not. All but --exploitdb may be followed by options:
PATH,class=NAME labels every row, PATH,site=NAME says who observed it,
PATH,year=YYYY dates syslog lines. dataset/SOURCES.md shows each format.`

// inputFlags are the flags that name raw files and say how to read them.
type inputFlags struct {
	fs         *pflag.FlagSet
	paths      map[dataset.Source]*[]string
	maxBad     *string
	address    *string
	addressKey *string
	redaction  *int
}

var sourceHelp = map[dataset.Source]string{
	"exploitdb": "ExploitDB index, files_exploits.csv or the older files.csv; or a checkout of its repository, whose texts then give requests too",
	"attacks":   "attack records: JSON array or JSON lines",
	"honeypot":  "honeypot log, JSON array or JSON lines",
	"cowrie":    "Cowrie honeypot log, JSON lines",
	"access":    "Apache or nginx access log, common or combined",
	"sshd":      "OpenSSH authentication log",
	"labelled":  "labelled CSV with payload and attack_type columns",
	"requests":  "requests taken from proof-of-concept texts, JSON lines with edb_id, method and url",
	"targets":   "request targets or parameter values, one a line, such as a recorded scan",
}

func newInputFlags(fs *pflag.FlagSet) *inputFlags {
	f := &inputFlags{fs: fs, paths: map[dataset.Source]*[]string{}}
	for _, s := range dataset.Sources() {
		f.paths[s] = fs.StringArray(string(s), nil, "`PATH`: "+sourceHelp[s])
	}
	f.maxBad = fs.String("max-bad", "5%", "`SHARE`: largest share of bad rows in a file")
	f.address = fs.String("address", "full", "`FORM` in which source addresses are kept: full, truncated or hashed, which needs --address-key")
	f.addressKey = fs.String("address-key", "", "`FILE`: the secret of --address hashed, 16 bytes or more")
	f.redaction = fs.Int("redaction", 1, "version of the redaction of secrets in texts; 0 for none")
	return f
}

// apply puts what the flags say into p.
func (f *inputFlags) apply(p *pipeline.Plan) error {
	classes := map[string]bool{}
	for _, c := range trainer.Classes() {
		classes[c] = true
	}
	for _, s := range dataset.Sources() {
		for _, spec := range *f.paths[s] {
			in, err := dataset.ParseInput(string(s), spec)
			if err != nil {
				return cli.Usagef("--%s: %w", s, err)
			}
			if in.Class != "" && !classes[in.Class] {
				return cli.Usagef("--%s %s: unknown class %q: want one of %s", s, in.Path, in.Class, strings.Join(trainer.Classes(), ", "))
			}
			p.Inputs = append(p.Inputs, in)
		}
	}
	ppm, err := parseShare(*f.maxBad)
	if err != nil {
		return cli.Usagef("--max-bad %q: %w", *f.maxBad, err)
	}
	if p.MaxBad = ppm; ppm == 0 {
		p.MaxBad = -1 // none at all
	}
	p.Privacy = record.Privacy{Address: record.AddressForm(*f.address), Redaction: *f.redaction}
	if *f.addressKey != "" {
		if p.Privacy.Key, err = cli.ReadFile(*f.addressKey, 1<<16); err != nil {
			return err
		}
	}
	if err := p.Privacy.Validate(); err != nil {
		return cli.Usagef("--address, --redaction: %w", err)
	}
	return nil
}

// parseShare reads "5%" or "0.05" as parts per million, exactly.
func parseShare(s string) (int64, error) {
	digits, percent := strings.CutSuffix(s, "%")
	r, ok := new(big.Rat).SetString(digits)
	if !ok || strings.ContainsAny(digits, "/eEpPxX_") {
		return 0, fmt.Errorf("want a share such as 5%% or 0.05")
	}
	r.Mul(r, big.NewRat(1_000_000, 1))
	if percent {
		r.Quo(r, big.NewRat(100, 1))
	}
	if !r.IsInt() || r.Sign() < 0 || r.Cmp(big.NewRat(1_000_000, 1)) > 0 {
		return 0, fmt.Errorf("want 0%% to 100%% in steps of a millionth")
	}
	return r.Num().Int64(), nil
}

// recipeFlags are the flags that change the recipe.
type recipeFlags struct {
	fs                           *pflag.FlagSet
	file, asOf, window, halfLife *string
	seed                         *int64
}

func newRecipeFlags(fs *pflag.FlagSet) *recipeFlags {
	d := trainer.DefaultRecipe()
	return &recipeFlags{
		fs:       fs,
		file:     fs.String("recipe", "", "`FILE`: a recipe in JSON, or a release.json, whose recipe is then taken"),
		asOf:     fs.String("as-of", "", "`INSTANT` that ages count from, RFC 3339 (default: newest record)"),
		window:   fs.String("window", fmt.Sprintf("%dd", d.WindowDays), "`DAYS`: dated records older than this are not used"),
		halfLife: fs.String("half-life", "", "`DAYS`: age at which a record counts half (default: half of the window)"),
		seed:     fs.Int64("seed", d.Seed, "seed from which every random draw is derived"),
	}
}

func (f *recipeFlags) apply(p *pipeline.Plan) error {
	p.Recipe = trainer.DefaultRecipe()
	if *f.file != "" {
		b, err := cli.ReadFile(*f.file, oras.MaxReleaseJSON)
		if err != nil {
			return err
		}
		if p.Recipe, err = trainer.DecodeRecipe(recipeOf(b)); err != nil {
			return fmt.Errorf("%s: %w", *f.file, err)
		}
	}
	r := &p.Recipe
	if f.fs.Changed("as-of") {
		t, err := time.Parse(time.RFC3339Nano, *f.asOf)
		if err != nil {
			return cli.Usagef("--as-of %q: want an instant such as 2026-01-15T00:00:00Z", *f.asOf)
		}
		r.AsOf = t.UnixMicro()
	}
	for _, d := range []struct {
		flag string
		text string
		days *int64
	}{{"window", *f.window, &r.WindowDays}, {"half-life", *f.halfLife, &r.HalfLifeDays}} {
		if !f.fs.Changed(d.flag) {
			continue
		}
		digits, ok := strings.CutSuffix(d.text, "d")
		n, err := strconv.ParseInt(digits, 10, 32)
		if !ok || err != nil {
			return cli.Usagef("--%s %q: want a number of days such as 365d", d.flag, d.text)
		}
		*d.days = n
	}
	if f.fs.Changed("seed") {
		r.Seed = *f.seed
	}
	if err := r.Validate(); err != nil {
		return cli.Usagef("%w", err)
	}
	return nil
}

// recipeOf returns the recipe in the text of a release.json, and any other text
// as it is. Both have members of their own, so neither is taken for the other.
func recipeOf(text []byte) []byte {
	var release struct {
		Format int64          `json:"format"`
		Recipe jsontext.Value `json:"recipe"`
	}
	if err := json.Unmarshal(text, &release); err != nil || release.Format == 0 || release.Recipe.Kind() != '{' {
		return text
	}
	return release.Recipe
}

// releaseFlags are the flags that say what to make of the models and where.
type releaseFlags struct {
	product, out, builder, temp     *string
	invocation, provenance, channel *string
	expires                         *time.Duration
	release                         *int64
	unsigned                        *bool
	workers                         *int
	signing                         *signFlags
}

func newReleaseFlags(fs *pflag.FlagSet) *releaseFlags {
	return &releaseFlags{
		product:    fs.String("product", verify.DefaultProduct, "`NAME`: product that the release is of"),
		release:    fs.Int64("release", 1, "release number; higher is newer"),
		out:        fs.StringP("out", "o", "dist", "`DIR`: OCI layout directory to make"),
		signing:    newSignFlags(fs),
		unsigned:   fs.Bool("unsigned", false, "do not sign, and so do not verify"),
		channel:    fs.String("channel", "", "`NAME`: publish this channel too, with the release as current"),
		expires:    fs.Duration("expires", pipeline.DefaultLifetime, "`TIME` after which the channel is stale"),
		provenance: fs.String("provenance", "", "`FILE`: write the provenance there, not signed, for 'bhtrain sign'"),
		invocation: fs.String("invocation-id", "", "`URI` of this run in the provenance (default: that of the GitHub Actions run, else a random one)"),
		builder:    fs.String("builder-id", pipeline.LocalBuilder, "`URI`: builder named in the provenance"),
		workers:    fs.Int("workers", 0, "threads; never changes a byte (default: one per CPU)"),
		temp:       fs.String("temp", "", "`DIR`: for temporary files (default: the system's)"),
	}
}

func (f *releaseFlags) apply(p *pipeline.Plan) error {
	p.Product, p.Release, p.Out, p.Workers, p.TempDir = *f.product, *f.release, *f.out, *f.workers, *f.temp
	if p.Out == "" {
		return cli.Usagef("--out is empty: name a directory")
	}
	if err := oras.CheckName(p.Product, p.Release); err != nil {
		return cli.Usagef("--product, --release: %w", err)
	}
	if *f.workers < 0 {
		return cli.Usagef("--workers %d: want 0 or more", *f.workers)
	}
	if u, err := url.Parse(*f.builder); err != nil || u.Scheme == "" {
		return cli.Usagef("--builder-id %q: want a URI, as policies name builders", *f.builder)
	}
	b := cli.ReadBuild()
	p.Builder = pipeline.Builder{ID: *f.builder, Invocation: invocation(*f.invocation, os.Getenv), Version: b.Version, Commit: b.Commit, Digest: b.Digest, Go: b.Go}
	return nil
}

// sign puts the signer into p, unless the release is to stay unsigned.
func (f *releaseFlags) sign(ctx context.Context, p *pipeline.Plan) (err error) {
	if *f.unsigned {
		if f.signing.given() {
			return cli.Usagef("--unsigned excludes the flags that say how to sign")
		}
		if *f.channel != "" {
			return cli.Usagef("--unsigned and --channel exclude each other: a channel is signed")
		}
		return nil
	}
	if *f.channel != "" {
		if err := verify.CheckChannelName(*f.channel); err != nil {
			return cli.Usagef("--channel: %w", err)
		}
		if *f.expires < time.Minute {
			return cli.Usagef("--expires %s: want a minute or more", *f.expires)
		}
		p.Channel = &pipeline.ChannelPlan{Name: *f.channel, Lifetime: *f.expires}
	}
	p.Signer, err = f.signing.open(ctx, p.Out)
	return err
}

// invocation is the URI of this run: the one given, else that of the GitHub
// Actions run, else "".
func invocation(given string, getenv func(string) string) string {
	server, repository, run, attempt := getenv("GITHUB_SERVER_URL"), getenv("GITHUB_REPOSITORY"), getenv("GITHUB_RUN_ID"), getenv("GITHUB_RUN_ATTEMPT")
	if given != "" || server == "" || repository == "" || run == "" || attempt == "" {
		return given
	}
	return server + "/" + repository + "/actions/runs/" + run + "/attempts/" + attempt
}
