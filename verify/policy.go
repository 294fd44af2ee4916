package verify

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// DefaultProduct is the product of releases and policies that name no other.
const DefaultProduct = "bhtrain"

// ErrPolicy: a policy that cannot be enforced as written. Its message names
// the place and what to write instead.
var ErrPolicy = errors.New("policy")

// Policy is whom an operator trusts for what. It comes from a local file and
// never from what is judged. The zero Policy trusts nobody: New refuses it.
// POLICY.md describes the file.
type Policy struct {
	Product string // the one product whose releases are accepted

	RootFile    string // name of the file that TrustedRoot came from, as written
	TrustedRoot []byte // Sigstore trusted root (trusted_root.json): authorities and logs; nil for none
	TUF         *TUF   // where LoadTrustedRoot gets TrustedRoot from; nil for a file, or for none

	Timestamps        int  // signed time stamps demanded on every bundle; certificates need one at least
	TransparencyLog   *int // log entries demanded on every bundle; nil is 1 with a certificate, 0 with a key
	InsecureIgnoreSCT bool // certificates need not have been logged by their authority

	Publishers       []Identity          // any one of them may sign a release
	Channel          *ChannelPolicy      // nil: which release is current does not matter
	Revokers         []Identity          // any one of them may have a release unloaded
	Datasets         DatasetPolicy       // which datasets a release may be trained on
	Builders         []string            // builder ids accepted in the provenance; nil accepts any
	SourceRepository string              // of the trainer, as the provenance says; "" accepts any
	Trainers         []Trainer           // trainers accepted in the provenance; nil accepts any
	Recipe           *RecipePolicy       // nil accepts any recipe
	Reproductions    *ReproductionPolicy // nil: no rebuild is demanded

	MaxAge     time.Duration // of the provenance's trusted time; 0 for no bound
	MinRelease int64         // lowest release number accepted; 0 for no bound
	MaxBytes   int64         // largest sum of the sizes of a release's files in bytes; 0 for no bound but the format's

	Digest canon.Digest // SHA-256 of the policy's text
}

// TUF is a repository of The Update Framework that publishes a
// trusted_root.json.
type TUF struct {
	URL      string // https
	RootFile string // name of the file that Root came from, as written
	Root     []byte // root.json that trust starts from
}

// ChannelPolicy says which channel decides what is current, and who speaks in it.
type ChannelPolicy struct {
	Name    string
	Epoch   int64 // the one epoch accepted; raised by hand after an accident
	Signers []Identity
}

// DatasetPolicy says which datasets a release may be trained on.
type DatasetPolicy struct {
	Publishers []Identity     // not nil: one of them must have signed a dataset/v1 about the release's dataset
	Digests    []canon.Digest // not nil: the dataset must be one of these
}

// ReproductionPolicy says how many independent rebuilds a release needs.
type ReproductionPolicy struct {
	Min        int  // distinct operators with a passed rebuild; 0 judges none
	Block      bool // a failed rebuild by any of them refuses the release, however many passed
	Rebuilders []Rebuilder
}

// Rebuilder is one operator, who counts once however many identities sign for
// it.
type Rebuilder struct {
	Operator   string
	Identities []Identity
	Where      []oras.Ref // places where its statements lie, beside the release's own repository
}

// policyText is the file as it is written. A pointer or nil slice is a field
// that is absent.
type policyText struct {
	Version           int                `yaml:"version"`
	Product           string             `yaml:"product"`
	TrustedRoot       *string            `yaml:"trusted_root"`
	TUF               *tufText           `yaml:"tuf"`
	Timestamps        *timestampsText    `yaml:"timestamps"`
	TransparencyLog   *int               `yaml:"transparency_log"`
	InsecureIgnoreSCT *bool              `yaml:"insecure_ignore_sct"`
	Publishers        []identityText     `yaml:"publishers"`
	Channel           *channelText       `yaml:"channel"`
	Revokers          []identityText     `yaml:"revokers"`
	Datasets          *datasetsText      `yaml:"datasets"`
	Builders          []string           `yaml:"builders"`
	SourceRepository  *string            `yaml:"source_repository"`
	Trainers          []trainerText      `yaml:"trainers"`
	Recipe            *recipeText        `yaml:"recipe"`
	Reproductions     *reproductionsText `yaml:"reproductions"`
	MaxAge            *string            `yaml:"max_age"`
	MinRelease        *int64             `yaml:"min_release"`
	MaxBytes          *int64             `yaml:"max_bytes"`
}

type tufText struct {
	URL  string `yaml:"url"`
	Root string `yaml:"root"`
}

type timestampsText struct {
	Authority *int `yaml:"authority"`
}

type identityText struct {
	Name        string           `yaml:"name"`
	Key         string           `yaml:"key"`
	Certificate *certificateText `yaml:"certificate"`
	NotBefore   string           `yaml:"not_before"`
	NotAfter    string           `yaml:"not_after"`
}

type certificateText struct {
	Issuer           string `yaml:"issuer"`
	SAN              string `yaml:"san"`
	SANRegexp        string `yaml:"san_regexp"`
	SourceRepository string `yaml:"source_repository"`
	SourceRef        string `yaml:"source_ref"`
	Workflow         string `yaml:"workflow"`
}

type channelText struct {
	Name    string         `yaml:"name"`
	Epoch   int64          `yaml:"epoch"`
	Signers []identityText `yaml:"signers"`
}

type datasetsText struct {
	Publishers []identityText `yaml:"publishers"`
	Digests    []string       `yaml:"digests"`
}

type trainerText struct {
	Version string `yaml:"version"`
	H1      string `yaml:"h1"`
	Commit  string `yaml:"commit"`
}

type recipeText struct {
	Algorithms []int64          `yaml:"algorithms"`
	Max        map[string]int64 `yaml:"max"`
}

type reproductionsText struct {
	Min        *int            `yaml:"min"`
	OnFailure  *string         `yaml:"on_failure"`
	Rebuilders []rebuilderText `yaml:"rebuilders"`
}

type rebuilderText struct {
	Operator   string         `yaml:"operator"`
	Identities []identityText `yaml:"identities"`
	Where      []string       `yaml:"where"`
}

// ParsePolicy reads the text of a policy whose keys are all written inline.
// Text that names a file, an unknown or duplicate field, a second document,
// YAML anchors, aliases, tags or merge keys, an empty value, a policy that
// demands no publisher, one that cannot be enforced as written, or more than 64
// KiB is ErrPolicy.
func ParsePolicy(text []byte) (Policy, error) {
	return parsePolicy(text, func(name string, _ int64) ([]byte, error) {
		return nil, fmt.Errorf("file %q: the policy was not read from a file; write a key inline", Printable(name))
	})
}

// LoadPolicy is ParsePolicy for a file. Keys and trusted roots may then also
// be names of files in or below the policy's folder, relative to it; one that
// is a symbolic link or anything else but a regular file is ErrPolicy. A policy
// that cannot be read is an error of package os.
func LoadPolicy(path string) (Policy, error) {
	text, err := readFile(path, maxPolicy)
	if err != nil {
		return Policy{}, err
	}
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return Policy{}, err
	}
	defer root.Close()
	p, err := parsePolicy(text, func(name string, limit int64) ([]byte, error) { return readBelow(root, name, limit) })
	if err != nil {
		return Policy{}, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: %w: limit %d bytes", path, canon.ErrTooLarge, limit)
	}
	return b, nil
}

// readBelow reads a file below root. It refuses what is no regular file and
// compares what it looked at with what it opened, so that a file swapped in
// between is not followed.
func readBelow(root *os.Root, name string, limit int64) ([]byte, error) {
	name = filepath.FromSlash(name)
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("file %q: want a name in the policy's folder, relative to it", Printable(name))
	}
	seen, err := root.Lstat(name)
	if err != nil {
		var failed *fs.PathError
		if errors.As(err, &failed) {
			err = failed.Err // its Op is the name of a system call
		}
		return nil, fmt.Errorf("file %q, beside the policy: %w", Printable(name), err)
	}
	if !seen.Mode().IsRegular() {
		return nil, fmt.Errorf("file %q is a %s, want a regular file", Printable(name), kind(seen.Mode()))
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if opened, err := f.Stat(); err != nil || !os.SameFile(seen, opened) {
		return nil, fmt.Errorf("file %q changed while it was opened", Printable(name))
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("file %q is larger than %d bytes", Printable(name), limit)
	}
	return b, nil
}

func kind(m os.FileMode) string {
	switch {
	case m&os.ModeSymlink != 0:
		return "symbolic link"
	case m.IsDir():
		return "folder"
	}
	return "special file"
}

// reader returns the bytes of a file that a policy names.
type reader func(name string, limit int64) ([]byte, error)

func parsePolicy(text []byte, file reader) (Policy, error) {
	if len(text) > maxPolicy {
		return Policy{}, fmt.Errorf("%w: %d bytes, limit %d", ErrPolicy, len(text), maxPolicy)
	}
	var t policyText
	if err := decodeYAML(text, &t); err != nil {
		return Policy{}, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	p, err := t.policy(file)
	if err != nil {
		return Policy{}, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	p.Digest = canon.Sum(text)
	if err := p.check(); err != nil {
		return Policy{}, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	return p, nil
}

// policy is what t says, before check.
func (t *policyText) policy(file reader) (p Policy, err error) {
	fail := func(format string, args ...any) (Policy, error) { return Policy{}, fmt.Errorf(format, args...) }
	if t.Version != 1 {
		return fail("version is %d, want \"version: 1\"", t.Version)
	}
	p.Product = t.Product
	switch {
	case t.TrustedRoot != nil && t.TUF != nil:
		return fail("both trusted_root and tuf; keep one")
	case t.TrustedRoot != nil:
		p.RootFile = *t.TrustedRoot
		if p.TrustedRoot, err = file(p.RootFile, maxRootFile); err != nil {
			return fail("trusted_root: %w", err)
		}
	case t.TUF != nil:
		p.TUF = &TUF{URL: t.TUF.URL, RootFile: t.TUF.Root}
		if t.TUF.Root == "" {
			return fail("tuf: root: missing; name a root.json that you got over a way of its own")
		}
		if p.TUF.Root, err = file(t.TUF.Root, maxRootFile); err != nil {
			return fail("tuf: root: %w", err)
		}
	}
	if t.TrustedRoot != nil || t.TUF != nil {
		p.Timestamps = 1
	}
	if t.Timestamps != nil {
		if t.Timestamps.Authority == nil {
			return fail("timestamps: want \"authority: 1\"")
		}
		p.Timestamps = *t.Timestamps.Authority
	}
	p.TransparencyLog = t.TransparencyLog
	p.InsecureIgnoreSCT = t.InsecureIgnoreSCT != nil && *t.InsecureIgnoreSCT
	if p.Publishers, err = identities("publishers", t.Publishers, file); err != nil {
		return fail("%w", err)
	}
	if t.Channel != nil {
		p.Channel = &ChannelPolicy{Name: t.Channel.Name, Epoch: t.Channel.Epoch}
		if p.Channel.Signers, err = identities("channel signers", t.Channel.Signers, file); err != nil {
			return fail("%w", err)
		}
	}
	if p.Revokers, err = identities("revokers", t.Revokers, file); err != nil {
		return fail("%w", err)
	}
	if t.Datasets != nil {
		if p.Datasets.Publishers, err = identities("dataset publishers", t.Datasets.Publishers, file); err != nil {
			return fail("%w", err)
		}
		for _, s := range t.Datasets.Digests {
			d, err := canon.ParseDigest(s)
			if err != nil {
				return fail("datasets: %w", err)
			}
			p.Datasets.Digests = append(p.Datasets.Digests, d)
		}
	}
	p.Builders = t.Builders
	if t.SourceRepository != nil {
		p.SourceRepository = *t.SourceRepository
	}
	for _, tr := range t.Trainers {
		p.Trainers = append(p.Trainers, Trainer(tr))
	}
	if t.Recipe != nil {
		p.Recipe = &RecipePolicy{t.Recipe.Algorithms, t.Recipe.Max}
	}
	if t.Reproductions != nil {
		if p.Reproductions, err = t.Reproductions.policy(file); err != nil {
			return fail("reproductions: %w", err)
		}
	}
	if t.MaxAge != nil {
		if p.MaxAge, err = time.ParseDuration(*t.MaxAge); err != nil || p.MaxAge <= 0 {
			return fail("max_age %q: want a duration above 0, such as 720h", Printable(*t.MaxAge))
		}
	}
	for _, n := range []struct {
		name string
		from *int64
		to   *int64
	}{{"min_release", t.MinRelease, &p.MinRelease}, {"max_bytes", t.MaxBytes, &p.MaxBytes}} {
		if n.from == nil {
			continue
		}
		if *n.from < 1 {
			return fail("%s: %d, want 1 or more; leave it out for no bound", n.name, *n.from)
		}
		*n.to = *n.from
	}
	return p, nil
}

func (t *reproductionsText) policy(file reader) (*ReproductionPolicy, error) {
	if t.Min == nil {
		return nil, errors.New("min: missing; write how many operators must have rebuilt a release, 0 for none")
	}
	p := &ReproductionPolicy{Min: *t.Min}
	switch {
	case t.OnFailure == nil || *t.OnFailure == "warn":
	case *t.OnFailure == "block":
		p.Block = true
	default:
		return nil, fmt.Errorf("on_failure %q: want block or warn", Printable(*t.OnFailure))
	}
	for _, r := range t.Rebuilders {
		ids, err := identities(fmt.Sprintf("identities of operator %q", Printable(r.Operator)), r.Identities, file)
		if err != nil {
			return nil, err
		}
		reb := Rebuilder{Operator: r.Operator, Identities: ids}
		for _, w := range r.Where {
			ref, err := oras.ParseRef(w)
			if err != nil {
				return nil, fmt.Errorf("operator %q: where: %v", Printable(r.Operator), err)
			}
			reb.Where = append(reb.Where, ref)
		}
		p.Rebuilders = append(p.Rebuilders, reb)
	}
	return p, nil
}

func identities(role string, list []identityText, file reader) (out []Identity, err error) {
	for i, t := range list {
		at := func(err error) error { return fmt.Errorf("%s: %q: %w", role, Printable(t.Name), err) }
		if err := checkName(t.Name); err != nil {
			return nil, fmt.Errorf("%s: entry %d: name: %w", role, i+1, err)
		}
		id := Identity{Name: t.Name}
		if t.Key != "" {
			pem := []byte(t.Key)
			if !strings.Contains(t.Key, "-----BEGIN") {
				if pem, err = file(t.Key, maxKeyFile); err != nil {
					return nil, at(fmt.Errorf("key file: %w", err))
				}
			}
			if id.Key, err = ParseKey(pem); err != nil {
				return nil, at(err)
			}
		}
		if c := t.Certificate; c != nil {
			id.Certificate = &CertificateIdentity{
				Issuer: c.Issuer, SAN: c.SAN, SANRegexp: c.SANRegexp,
				SourceRepository: c.SourceRepository, SourceRef: c.SourceRef, Workflow: c.Workflow,
			}
		}
		for _, w := range []struct {
			name, from string
			to         *time.Time
		}{{"not_before", t.NotBefore, &id.NotBefore}, {"not_after", t.NotAfter, &id.NotAfter}} {
			if w.from != "" {
				if *w.to, err = ParseTime(w.from); err != nil {
					return nil, at(fmt.Errorf("%s: %w", w.name, err))
				}
			}
		}
		out = append(out, id)
	}
	return out, nil
}

// role is a list of identities and what it is for.
type role struct {
	name string
	ids  *[]Identity
}

// roles are all lists of identities in p but those of rebuilders.
func (p *Policy) roles() []role {
	list := []role{{"publishers", &p.Publishers}}
	if p.Channel != nil {
		list = append(list, role{"channel signers", &p.Channel.Signers})
	}
	return append(list, role{"revokers", &p.Revokers}, role{"dataset publishers", &p.Datasets.Publishers})
}

// check reports why p cannot be enforced, and makes identities ready for use.
// It leaves alone what p shares with its copies.
func (p *Policy) check() error {
	if err := checkName(p.Product); err != nil {
		return fmt.Errorf("product: %w", err)
	}
	if err := oras.CheckName(p.Product, 1); err != nil {
		return fmt.Errorf("%v", err) // no %w: it is the policy that is wrong, not an artifact
	}
	if len(p.Publishers) == 0 {
		return errors.New("no publishers: a policy that trusts nobody verifies nothing; add one with name and key")
	}
	if p.Channel != nil {
		c := *p.Channel
		p.Channel = &c
		if err := CheckChannelName(c.Name); err != nil {
			return err
		}
		switch {
		case c.Epoch < 1:
			return fmt.Errorf("channel: epoch is %d, want 1 or more", c.Epoch)
		case len(c.Signers) == 0:
			return errors.New("channel: no signers: nobody could say what is current")
		}
	}
	if p.Datasets.Publishers != nil && len(p.Datasets.Publishers) == 0 {
		return errors.New("datasets: publishers: an empty list; nobody could sign a dataset")
	}
	if p.Channel == nil && len(p.Revokers) > 0 {
		return errors.New("revokers without a channel: revocations are read from one; add it, or take them out")
	}
	for _, r := range p.roles() {
		ids, err := checkRole(r.name, *r.ids)
		if err != nil {
			return err
		}
		*r.ids = ids
	}
	if p.Reproductions != nil {
		r := *p.Reproductions
		p.Reproductions = &r
		if err := p.checkRebuilders(); err != nil {
			return fmt.Errorf("reproductions: %w", err)
		}
	}
	if err := p.checkTrust(); err != nil {
		return err
	}
	if len(p.Builders) > maxList || len(p.Datasets.Digests) > maxList || len(p.Trainers) > maxList {
		return fmt.Errorf("a list has more than %d entries", maxList)
	}
	for _, id := range p.Builders {
		if err := checkAbsolute(id); err != nil {
			return fmt.Errorf("builder: %w; write it as the provenance spells it", err)
		}
	}
	if p.SourceRepository != "" {
		if err := checkAbsolute(p.SourceRepository); err != nil {
			return fmt.Errorf("source_repository: %w", err)
		}
	}
	for _, t := range p.Trainers {
		if t == (Trainer{}) {
			return errors.New("trainers: an entry names no version, h1 or commit")
		}
		for _, s := range []string{t.Version, t.H1, t.Commit} {
			if err := checkURI(s); err != nil {
				return fmt.Errorf("trainers: %w", err)
			}
		}
	}
	if p.Recipe != nil {
		if err := p.Recipe.check(); err != nil {
			return fmt.Errorf("recipe: %w", err)
		}
	}
	switch {
	case p.MaxAge < 0 || p.MinRelease < 0 || p.MaxBytes < 0:
		return errors.New("a bound is negative")
	case p.MinRelease > oras.MaxNumber:
		return fmt.Errorf("min_release: %d, no release has a number above %d", p.MinRelease, int64(oras.MaxNumber))
	}
	return nil
}

// checkTrust reports demands on time and logs that nothing could meet or judge.
func (p *Policy) checkTrust() error {
	certificates, windows := p.certificates(), p.windows()
	trust := p.TrustedRoot != nil || p.TUF != nil
	if p.TUF != nil {
		u, err := url.Parse(p.TUF.URL)
		switch {
		case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || checkURI(p.TUF.URL) != nil:
			return fmt.Errorf("tuf: url %q: want https://…", Printable(p.TUF.URL))
		case len(p.TUF.Root) == 0:
			return errors.New("tuf: no root to start from")
		}
	}
	logs := 0
	if p.TransparencyLog != nil {
		logs = *p.TransparencyLog
	}
	switch {
	case p.Timestamps < 0 || p.Timestamps > maxTimestamps:
		return fmt.Errorf("timestamps: authority is %d, want 0 to %d", p.Timestamps, maxTimestamps)
	case logs < 0 || logs > maxTimestamps:
		return fmt.Errorf("transparency_log is %d, want 0 to %d", logs, maxTimestamps)
	case certificates && !trust:
		return errors.New("an identity by certificate needs a trusted_root (or tuf) that says which authorities to believe")
	case certificates && p.Timestamps < 1:
		return errors.New("timestamps: certificates live for minutes, so a signed time stamp is always needed: write \"authority: 1\"")
	case p.Timestamps > 0 && !trust:
		return errors.New("timestamps without a trusted_root (or tuf) that says which authorities to believe")
	case logs > 0 && !trust:
		return errors.New("transparency_log without a trusted_root (or tuf) that says which logs to believe")
	case windows && p.Timestamps < 1:
		return errors.New("not_before and not_after cannot be judged without a signed time stamp: add trusted_root and \"timestamps: {authority: 1}\"")
	case p.MaxAge > 0 && p.Timestamps < 1:
		return errors.New("max_age cannot be judged without a signed time stamp: add trusted_root and \"timestamps: {authority: 1}\"")
	case p.InsecureIgnoreSCT && !certificates:
		return errors.New("insecure_ignore_sct without an identity by certificate says nothing; take it out")
	}
	return nil
}

// checkRole checks the identities of one role and returns them ready for use.
func checkRole(name string, ids []Identity) ([]Identity, error) {
	if len(ids) > maxIdentities {
		return nil, fmt.Errorf("%d %s, limit %d", len(ids), name, maxIdentities)
	}
	ids = slices.Clone(ids)
	for i := range ids {
		if err := ids[i].check(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for j := range i {
			if ids[j].Name == ids[i].Name {
				return nil, fmt.Errorf("two %s are named %q", name, ids[i].Name)
			}
			if ids[i].same(&ids[j]) && ids[i].Certificate == nil {
				return nil, fmt.Errorf("%s %q and %q have the same key", name, ids[j].Name, ids[i].Name)
			}
		}
	}
	return ids, nil
}

// checkRebuilders holds the rules that make a count of rebuilds mean something:
// operators are told apart, and are nobody whose word they are to check.
func (p *Policy) checkRebuilders() error {
	r := p.Reproductions
	n := len(r.Rebuilders)
	switch {
	case r.Min < 0:
		return fmt.Errorf("min is %d, want 0 or more", r.Min)
	case n > maxOperators:
		return fmt.Errorf("%d rebuilders, limit %d", n, maxOperators)
	case r.Min == 0 && r.Block:
		return errors.New("on_failure: block with min 0: rebuilds are not judged then; write min: 1 or more, or take it out")
	case r.Min > n:
		return fmt.Errorf("min is %d, but only %d rebuilders are named: no release could pass", r.Min, n)
	}
	r.Rebuilders = slices.Clone(r.Rebuilders)
	for i := range r.Rebuilders {
		reb := &r.Rebuilders[i]
		if err := checkName(reb.Operator); err != nil {
			return fmt.Errorf("operator %d: name: %w", i+1, err)
		}
		if len(reb.Identities) == 0 {
			return fmt.Errorf("operator %q has no identities", reb.Operator)
		}
		if len(reb.Where) > maxPlaces {
			return fmt.Errorf("operator %q: %d places, limit %d", reb.Operator, len(reb.Where), maxPlaces)
		}
		for _, ref := range reb.Where {
			switch {
			case ref.Tag != "" || !ref.Digest.IsZero():
				return fmt.Errorf("operator %q: where %q: name a place, without tag or digest", reb.Operator, Printable(ref.String()))
			case ref.Layout != "" && !filepath.IsAbs(ref.Layout):
				return fmt.Errorf("operator %q: where %q: write the whole path of a folder, from the root", reb.Operator, Printable(ref.String()))
			}
		}
		ids, err := checkRole(fmt.Sprintf("identities of operator %q", reb.Operator), reb.Identities)
		if err != nil {
			return err
		}
		reb.Identities = ids
		for j := range i {
			other := &r.Rebuilders[j]
			if other.Operator == reb.Operator {
				return fmt.Errorf("two operators are named %q", reb.Operator)
			}
			for _, a := range reb.Identities {
				for _, b := range other.Identities {
					if a.same(&b) {
						return fmt.Errorf("operators %q and %q share an identity (%s): they would count as one", other.Operator, reb.Operator, a)
					}
				}
			}
		}
		for _, id := range reb.Identities {
			if id.Certificate != nil && id.Certificate.SANRegexp != "" {
				return fmt.Errorf("operator %q: san_regexp: operators are told apart by exact names; use san", reb.Operator)
			}
			for _, role := range p.roles() {
				for _, other := range *role.ids {
					if id.same(&other) {
						return fmt.Errorf("operator %q has the identity of %q (%s): nobody rebuilds for themselves", reb.Operator, other.Name, role.name)
					}
				}
			}
			for _, pub := range p.Publishers {
				for _, o := range pub.Certificate.owners() {
					if slices.Contains(id.Certificate.owners(), o) {
						return fmt.Errorf("operator %q signs from repositories of %s, as the publisher %q does: nobody rebuilds for themselves", reb.Operator, o, pub.Name)
					}
				}
			}
		}
	}
	return nil
}

// Warnings are lint: what can be enforced as written, but gives away something
// that the writer may not have meant to. One sentence each.
func (p Policy) Warnings() []string {
	var out []string
	for _, pub := range p.Publishers {
		for _, d := range p.Datasets.Publishers {
			if pub.same(&d) {
				out = append(out, fmt.Sprintf("%s may publish releases and datasets (as %s) with one identity: whoever steals it can have a release of a poisoned dataset accepted; with one of its own for datasets, both would have to be stolen.", pub.Name, d.Name))
			}
		}
	}
	if p.Channel != nil {
		for _, s := range p.Channel.Signers {
			for _, r := range p.Revokers {
				if s.same(&r) {
					out = append(out, fmt.Sprintf("%s may sign the channel and revoke (as %s) with one identity: a key that is used every few hours can then also unload a release everywhere.", s.Name, r.Name))
				}
			}
		}
		if len(p.Revokers) == 0 {
			out = append(out, "There are no revokers: a release found to be bad is no longer installed, but stays loaded where it is.")
		}
	}
	if p.InsecureIgnoreSCT {
		out = append(out, "insecure_ignore_sct: a certificate authority that is made to issue a false certificate leaves no trace.")
	}
	if p.TUF != nil && strings.HasPrefix(p.TUF.URL, "http:") {
		out = append(out, "tuf: the url is not https: metadata are signed, but others see who asks, and can withhold news until what is here expires.")
	}
	all := p.roles()
	if p.Reproductions != nil {
		if p.Reproductions.Min == 0 {
			out = append(out, "reproductions: min is 0, so rebuilds are not judged.")
		}
		by := map[string]string{} // operator by owner
		for _, reb := range p.Reproductions.Rebuilders {
			for _, id := range reb.Identities {
				for _, o := range id.Certificate.owners() {
					if other := by[o]; other != "" && other != reb.Operator {
						out = append(out, fmt.Sprintf("operators %s and %s both sign from repositories of %s: whoever owns them counts as two.", other, reb.Operator, o))
					}
					by[o] = reb.Operator
				}
			}
		}
	}
	p.every(func(id *Identity) {
		if c := id.Certificate; c != nil && c.Issuer == "https://token.actions.githubusercontent.com" && c.SourceRepository == "" {
			out = append(out, fmt.Sprintf("%q: a certificate of GitHub Actions has the name of the workflow file, and any repository may call one that is reusable: add source_repository.", id.Name))
		}
	})
	for _, r := range all {
		for _, id := range *r.ids {
			if c := id.Certificate; c != nil && c.SANRegexp != "" {
				out = append(out, fmt.Sprintf("%s %q are known by an expression: everybody whose name matches it is trusted alike.", r.name, id.Name))
			}
		}
	}
	return out
}

// checkName bounds what people call a product or a publisher. The text is
// compared byte by byte, so it must have no invisible differences.
func checkName(s string) error {
	switch {
	case s == "":
		return errors.New("missing or empty")
	case len(s) > maxName:
		return fmt.Errorf("longer than %d bytes", maxName)
	case Printable(s) != s || strings.TrimSpace(s) != s:
		return fmt.Errorf("%q: control characters or space at an end", Printable(s))
	}
	return nil
}

// checkURI bounds a text without spaces, such as a URI; it may be empty.
func checkURI(s string) error {
	if len(s) > maxURI {
		return fmt.Errorf("longer than %d bytes", maxURI)
	}
	for _, r := range s {
		if r == utf8.RuneError || r == ' ' || !unicode.IsPrint(r) {
			return fmt.Errorf("%q: space or control characters", Printable(s))
		}
	}
	return nil
}

// checkAbsolute is checkURI for one that must be there and have a scheme.
func checkAbsolute(s string) error {
	if err := checkURI(s); err != nil {
		return err
	}
	if u, err := url.Parse(s); err != nil || u.Scheme == "" {
		return fmt.Errorf("%q: want a URI", Printable(s))
	}
	return nil
}
