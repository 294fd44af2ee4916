package verify

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Status is the outcome of one check.
type Status string

const (
	Pass Status = "pass"
	Fail Status = "fail"
	Skip Status = "skip" // not demanded by the policy, or not reached; the reason says which
)

// Names of the checks of a release, in the order of the verdict. Optional
// checks may be skipped by a policy that does not ask for them; all others
// must pass.
const (
	CheckManifest   = "release.manifest"   // the store has a manifest with the digest asked for
	CheckFiles      = "release.files"      // it has exactly the five files, each with its size and digest, and release.json keeps its format
	CheckSize       = "release.size"       // optional: not above the policy's max_bytes
	CheckProduct    = "product"            // release.json names the policy's product
	CheckBundles    = "bundles"            // optional: all that the store has about the release was looked at; fails only when none of it was enough
	CheckSignature  = "signature"          // a bundle carries a signature that a trusted key made over its payload
	CheckSigner     = "signer"             // that key is a publisher's
	CheckType       = "provenance.type"    // the signed payload is a training provenance
	CheckSubject    = "provenance.subject" // it is about this manifest digest
	CheckSaid       = "provenance.product" // product and
	CheckNumber     = "provenance.release" // release number and
	CheckRecipe     = "provenance.recipe"  // recipe and
	CheckDataset    = "provenance.dataset" // dataset are those of release.json
	CheckBuilder    = "builder"            // optional: its builder is one of the policy's
	CheckAllowed    = "dataset.allowed"    // optional: the dataset is one of the policy's
	CheckNotOlder   = "not-older-than"     // optional: release number not below the policy's min_release
	CheckFreshness  = "freshness"          // optional: always skipped, policies of version 1 name no channel
	CheckReproduced = "rebuilds"           // optional: always skipped, policies of version 1 demand none
)

// releaseChecks is every check of a release, in order; the value says whether
// it must pass.
var releaseChecks = []struct {
	name      string
	mandatory bool
}{
	{CheckManifest, true}, {CheckFiles, true}, {CheckSize, false}, {CheckProduct, true},
	{CheckBundles, false}, {CheckSignature, true}, {CheckSigner, true}, {CheckType, true}, {CheckSubject, true}, {CheckSaid, true},
	{CheckNumber, true}, {CheckRecipe, true}, {CheckDataset, true}, {CheckBuilder, false}, {CheckAllowed, false},
	{CheckNotOlder, false}, {CheckFreshness, false}, {CheckReproduced, false},
}

// Check is one finding. Texts are bounded and hold printable characters only,
// whatever the registry sent.
type Check struct {
	Name     string `json:"name"`
	Status   Status `json:"status"`
	Observed string `json:"observed"` // what was found; "" when nothing was
	Expected string `json:"expected"` // what the policy or the format asks for; "" when Observed says it all
	Reason   string `json:"reason"`   // why it failed or was skipped
}

// Verdict is all that was found about one release under one policy. Its JSON
// form is described in POLICY.md.
type Verdict struct {
	Format    int          `json:"format"`    // 1
	Verified  bool         `json:"verified"`  // what Pass returns
	Release   canon.Digest `json:"release"`   // manifest digest that was judged
	Policy    canon.Digest `json:"policy"`    // SHA-256 of the policy's text
	Product   string       `json:"product"`   // as release.json says; "" when it was not readable
	Number    int64        `json:"number"`    // release number; 0 when release.json was not readable
	Dataset   canon.Digest `json:"dataset"`   // dataset digest; "" when release.json was not readable
	Publisher string       `json:"publisher"` // name in the policy; "" when no signature held
	Bundle    canon.Digest `json:"bundle"`    // SHA-256 of the bundle that was judged; "" when there was none
	Bundles   int          `json:"bundles"`   // how many bundles were looked at
	Checks    []Check      `json:"checks"`    // each named check once, in the order of POLICY.md
}

// Pass reports whether the release may be trusted: every check is there
// exactly once and in order, every mandatory one passed and none failed. It
// looks at Checks only, never at Verified; the zero Verdict does not pass.
func (v *Verdict) Pass() bool {
	if v == nil || v.Format != 1 || v.Release.IsZero() || len(v.Checks) != len(releaseChecks) {
		return false
	}
	for i, want := range releaseChecks {
		c := v.Checks[i]
		if c.Name != want.name || c.Status != Pass && (want.mandatory || c.Status != Skip) {
			return false
		}
	}
	return true
}

// Failures returns the checks that failed, in order.
func (v *Verdict) Failures() []Check {
	return slices.DeleteFunc(slices.Clone(v.Checks), func(c Check) bool { return c.Status != Fail })
}

// Encode returns the canonical JSON of v, as it is stored with an installed
// release.
func (v *Verdict) Encode() ([]byte, error) { return canon.Marshal(v) }

// DecodeVerdict reads what Encode wrote. Unknown members, another form, or a
// member "verified" that the checks do not bear out is canon.ErrSyntax. Nothing
// protects stored bytes from who can write them: judge again before trusting.
func DecodeVerdict(b []byte) (*Verdict, error) {
	var v Verdict
	if err := canon.UnmarshalCanonical(b, &v); err != nil {
		return nil, fmt.Errorf("verdict: %w", err)
	}
	if v.Format != 1 {
		return nil, fmt.Errorf("verdict: %w: format %d, want 1", canon.ErrSyntax, v.Format)
	}
	if v.Verified != v.Pass() {
		return nil, fmt.Errorf("verdict: %w: says verified=%t, its checks do not", canon.ErrSyntax, v.Verified)
	}
	return &v, nil
}

// WriteText writes v as a table with a mark per check (✓ pass, ✗ fail, – skip)
// and one line with the verdict. With color, marks carry ANSI colours.
func (v *Verdict) WriteText(w io.Writer, color bool) error {
	out := bufio.NewWriter(w)
	paint := func(s string, ansi string) string {
		if !color {
			return s
		}
		return "\x1b[" + ansi + "m" + s + "\x1b[0m"
	}
	width := 0
	for _, c := range v.Checks {
		width = max(width, utf8.RuneCountInString(c.Name))
	}
	for _, c := range v.Checks {
		mark := paint("–", "2")
		switch c.Status {
		case Pass:
			mark = paint("✓", "32")
		case Fail:
			mark = paint("✗", "31")
		}
		var text []string
		if c.Observed != "" {
			text = append(text, c.Observed)
		}
		if c.Expected != "" && c.Status == Fail {
			text = append(text, "expected "+c.Expected)
		}
		if c.Reason != "" {
			text = append(text, c.Reason)
		}
		line := fmt.Sprintf("%s %-*s  %s", mark, width, Printable(c.Name), Printable(strings.Join(text, "; ")))
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
	what := v.Release.String()
	if v.Product != "" {
		what = fmt.Sprintf("%s release %d, %s", Printable(v.Product), v.Number, v.Release)
	}
	if v.Pass() {
		fmt.Fprintf(out, "%s %s, signed by %s\n", paint("VERIFIED", "1;32"), what, Printable(v.Publisher))
	} else {
		var names []string
		for _, c := range v.Failures() {
			names = append(names, Printable(c.Name))
		}
		if len(names) == 0 {
			names = []string{"nothing was checked"}
		}
		fmt.Fprintf(out, "%s %s: %s\n", paint("REFUSED", "1;31"), what, strings.Join(names, ", "))
	}
	return out.Flush()
}

const maxText = 400 // bytes of one printed text

// Printable makes foreign text safe for a terminal and a table: control and
// format characters (escape sequences, line breaks, direction overrides) and
// invalid UTF-8 are dropped, space characters become plain spaces, and text
// above 400 bytes is cut and marked with an ellipsis.
func Printable(s string) string {
	cut := len(s) > maxText
	if cut {
		s = s[:maxText] // a rune cut in two is invalid UTF-8 and dropped below
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return -1
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return -1
	}, s)
	if cut {
		s += "…"
	}
	return s
}
