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
// checks may be skipped under a policy that does not demand them; all others
// must pass.
const (
	CheckManifest    = "release.manifest"   // the store has a manifest with the digest asked for
	CheckFiles       = "release.files"      // it has exactly the five files, each with its size and digest, and release.json keeps its format
	CheckSize        = "release.size"       // optional: not above the policy's max_bytes
	CheckProduct     = "product"            // release.json names the policy's product
	CheckBundles     = "bundles"            // optional: all that the store has about the release was looked at; skipped when there may be more and what was seen is enough
	CheckSignature   = "signature"          // a bundle carries a signature over its payload, by a key of the policy or by that of its certificate
	CheckTime        = "time"               // optional: it has the signed time stamps that are demanded, none from the future
	CheckLog         = "log"                // optional: it has the log entries that are demanded, about this very signature
	CheckCertificate = "certificate"        // optional: its certificate is from a trusted authority, was valid at the signed time, and is logged; skipped for a key
	CheckSigner      = "signer"             // its signer is a publisher of the policy, in the validity window
	CheckType        = "provenance.type"    // the signed payload is a training provenance
	CheckSubject     = "provenance.subject" // it is about this manifest digest
	CheckSaid        = "provenance.product" // product and
	CheckNumber      = "provenance.release" // release number and
	CheckRecipe      = "provenance.recipe"  // recipe and
	CheckDataset     = "provenance.dataset" // dataset are those of release.json
	CheckBuilder     = "builder"            // optional: its builder is one of the policy's
	CheckSource      = "source"             // optional: the trainer's source is the policy's source_repository
	CheckTrainer     = "trainer"            // optional: the trainer is one of the policy's
	CheckAge         = "max-age"            // optional: not signed longer ago than the policy's max_age
	CheckBounds      = "recipe.allowed"     // optional: the recipe's algorithm and numbers are within the policy's
	CheckAllowed     = "dataset.allowed"    // optional: the dataset is one of the policy's
	CheckDatasetBy   = "dataset.publisher"  // optional: a dataset statement is signed by a dataset publisher of the policy
	CheckDatasetSaid = "dataset.statement"  // optional: it is a dataset/v1 about this dataset
	CheckNotOlder    = "not-older-than"     // optional: release number not below the policy's min_release
	CheckChannel     = "channel"            // optional: the policy's channel speaks, is authentic and did not go back
	CheckFreshness   = "freshness"          // optional: and has not expired; failing, what is known may be stale
	CheckCurrent     = "current"            // optional: the release is the one that the channel names
	CheckLowest      = "lowest"             // optional: its number is not below the lowest that the channel allows
	CheckRevoked     = "revoked"            // optional: it is not revoked, in the channel or before
	CheckReproduced  = "rebuilds"           // optional: enough independent operators had the same bytes
)

// releaseChecks is every check of a release, in order; the value says whether
// it must pass under any policy. Verifier.demands says which others must.
var releaseChecks = []struct {
	name      string
	mandatory bool
}{
	{CheckManifest, true}, {CheckFiles, true}, {CheckSize, false}, {CheckProduct, true}, {CheckBundles, false},
	{CheckSignature, true}, {CheckTime, false}, {CheckLog, false}, {CheckCertificate, false}, {CheckSigner, true},
	{CheckType, true}, {CheckSubject, true}, {CheckSaid, true}, {CheckNumber, true}, {CheckRecipe, true}, {CheckDataset, true},
	{CheckBuilder, false}, {CheckSource, false}, {CheckTrainer, false}, {CheckAge, false},
	{CheckBounds, false}, {CheckAllowed, false}, {CheckDatasetBy, false}, {CheckDatasetSaid, false}, {CheckNotOlder, false},
	{CheckChannel, false}, {CheckFreshness, false}, {CheckCurrent, false}, {CheckLowest, false}, {CheckRevoked, false},
	{CheckReproduced, false},
}

// Check is one finding. Texts are bounded and hold printable characters only,
// whatever the registry sent.
type Check struct {
	Name     string `json:"name"`
	Demanded bool   `json:"demanded"` // by the format or by the policy: it has to pass, and must not be skipped
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
	Time      string       `json:"time"`      // earliest signed time of that signature; "" when the policy asks for none
	Bundle    canon.Digest `json:"bundle"`    // SHA-256 of the bundle that was judged; "" when there was none
	Bundles   int          `json:"bundles"`   // how many bundles that may hold a provenance were looked at
	Checks    []Check      `json:"checks"`    // each named check once, in the order of POLICY.md
	Rebuilds  []Rebuild    `json:"rebuilds"`  // each operator of the policy once, in its order; empty when it demands no rebuild

	Channel *ChannelVerdict `json:"channel"` // what the channel said; null when the policy names none

	// Evidence are the bundles that a verdict which passes rests on, without the
	// channel's: given to Options.Bundles, they are enough.
	Evidence [][]byte `json:"-"`
}

// Rebuild is what is known of one operator's rebuild of the release.
type Rebuild struct {
	Operator string       `json:"operator"` // name in the policy
	Result   string       `json:"result"`   // ResultPass, ResultFail, or "" for no statement that counts
	Obtained canon.Digest `json:"obtained"` // manifest digest that the rebuild had; "" for no statement
	Finished string       `json:"finished"` // when; "" for no statement
	OS       string       `json:"os"`       // where; "" for no statement
	Arch     string       `json:"arch"`     // and on what; "" for no statement
	Reason   string       `json:"reason"`   // why a statement of theirs does not count, or where none was found
	Bundle   canon.Digest `json:"bundle"`   // SHA-256 of the statement's bundle
}

// Pass reports whether the release may be trusted: every check is there
// exactly once and in order, every demanded one passed and none failed. It
// looks at Checks only, never at Verified; the zero Verdict does not pass.
func (v *Verdict) Pass() bool { return v.PassExcept() }

// PassExcept is Pass, but for the named checks, whatever became of them. An agent
// goes on using a release with PassExcept(CheckFreshness, CheckCurrent).
func (v *Verdict) PassExcept(names ...string) bool {
	if v == nil || v.Format != 1 || v.Release.IsZero() || len(v.Checks) != len(releaseChecks) {
		return false
	}
	for i, want := range releaseChecks {
		c := v.Checks[i]
		if c.Name != want.name {
			return false
		}
		if !c.holds(want.mandatory) && !slices.Contains(names, c.Name) {
			return false
		}
	}
	return true
}

// holds reports whether c passed, or was skipped and may be. A check that is
// mandatory under any policy must pass whatever c says of demands.
func (c Check) holds(mandatory bool) bool {
	return c.Status == Pass || c.Status == Skip && !mandatory && !c.Demanded
}

// Failures returns the checks that failed, in order.
func (v *Verdict) Failures() []Check {
	return slices.DeleteFunc(slices.Clone(v.Checks), func(c Check) bool { return c.Status != Fail })
}

// Encode returns the canonical JSON of v, as it is stored with an installed
// release.
func (v *Verdict) Encode() ([]byte, error) { return canon.Marshal(v) }

// WriteText writes v as a table with a mark per check (✓ pass, ✗ fail, – skip)
// and one line with the verdict. With color, marks carry ANSI colours.
func (v *Verdict) WriteText(w io.Writer, color bool) error {
	what := v.Release.String()
	if v.Product != "" {
		what = fmt.Sprintf("%s release %d, %s", v.Product, v.Number, v.Release)
	}
	if v.Pass() {
		return writeChecks(w, color, v.Checks, "VERIFIED", what+", signed by "+v.Publisher)
	}
	return writeChecks(w, color, v.Checks, "REFUSED", what)
}

// writeChecks writes a table of checks and the line of the verdict: its word,
// what it is about, and for a word of refusal the names of the failed checks.
func writeChecks(w io.Writer, color bool, checks []Check, word, what string) error {
	out := bufio.NewWriter(w)
	paint := func(s string, ansi string) string {
		if !color {
			return s
		}
		return "\x1b[" + ansi + "m" + s + "\x1b[0m"
	}
	width := 0
	for _, c := range checks {
		width = max(width, utf8.RuneCountInString(c.Name))
	}
	var failed []string
	for _, c := range checks {
		mark := paint("–", "2")
		switch c.Status {
		case Pass:
			mark = paint("✓", "32")
		case Fail:
			mark = paint("✗", "31")
			failed = append(failed, Printable(c.Name))
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
		line := fmt.Sprintf("%s %-*s  %s", mark, width, Printable(c.Name), printable(strings.Join(text, "; "), 3*maxText))
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
	switch word {
	case "VERIFIED", "CURRENT":
		fmt.Fprintf(out, "%s %s\n", paint(word, "1;32"), Printable(what))
	default:
		if len(failed) == 0 {
			failed = []string{"nothing was checked"}
		}
		fmt.Fprintf(out, "%s %s: %s\n", paint(word, "1;31"), Printable(what), strings.Join(failed, ", "))
	}
	return out.Flush()
}

const maxText = 400 // bytes of one printed text

// Printable makes foreign text safe for a terminal and a table: control and
// format characters (escape sequences, line breaks, direction overrides) and
// invalid UTF-8 are dropped, space characters become plain spaces, and text
// above 400 bytes is cut and marked with an ellipsis.
func Printable(s string) string { return printable(s, maxText) }

func printable(s string, limit int) string {
	cut := len(s) > limit
	if cut {
		s = s[:limit] // a rune cut in two is invalid UTF-8 and dropped below
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
