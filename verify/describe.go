package verify

import (
	"fmt"
	"strconv"
	"strings"
)

// Describe says in sentences what p demands, one per element, and what it
// leaves open.
func (p Policy) Describe() []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	list := func(items []string, none, one string) {
		if len(items) == 0 {
			say("%s", none)
			return
		}
		say("%s %s.", one, strings.Join(items, ", "))
	}
	who := func(ids []Identity, may string) {
		for _, id := range ids {
			say("%s may %s with %s%s.", id.Name, may, id.means(), id.window())
		}
	}
	say("Accepts releases of product %q only.", p.Product)
	who(p.Publishers, "sign releases")
	say("One signature of one publisher over the release's provenance is enough; product, release number, recipe and dataset must be those of the release.")
	switch {
	case p.TUF != nil:
		say("Authorities and logs are those that %s publishes, starting from %s.", p.TUF.URL, p.TUF.RootFile)
	case p.RootFile != "":
		say("Authorities and logs are those of %s.", p.RootFile)
	}
	if p.certificates() {
		say("A signature with a certificate needs %s and %s.", count(max(1, p.Timestamps), "signed time stamp"), count(p.logEntries(true), "log entry"))
		if p.InsecureIgnoreSCT {
			say("Certificates need not have been logged by the authority that issued them.")
		} else {
			say("Certificates must have been logged by the authority that issued them.")
		}
	}
	if n, m := p.Timestamps, p.logEntries(false); n > 0 || m > 0 {
		say("A signature with a key needs %s and %s.", count(n, "signed time stamp"), count(m, "log entry"))
	}
	if p.MaxAge > 0 {
		say("Refuses releases signed more than %s ago, by the signed time stamp.", p.MaxAge)
	}
	list(p.Builders, "Accepts any builder that a publisher signs for.", "The provenance must name one of these builders:")
	if p.SourceRepository != "" {
		say("The provenance must name %s as the source of the trainer.", p.SourceRepository)
	}
	var trainers []string
	for _, t := range p.Trainers {
		trainers = append(trainers, t.String())
	}
	list(trainers, "Accepts any trainer that a publisher signs for.", "The provenance must name one of these trainers:")
	if p.Recipe != nil {
		say("%s", p.Recipe.describe())
	} else {
		say("Accepts any recipe that a publisher signs for.")
	}
	var sets []string
	for _, d := range p.Datasets.Digests {
		sets = append(sets, d.String())
	}
	list(sets, "Accepts any dataset digest.", "The release must be trained on one of these datasets:")
	if len(p.Datasets.Publishers) > 0 {
		who(p.Datasets.Publishers, "sign datasets")
		say("The dataset of a release must be signed by one of them.")
	} else {
		say("Demands no signature over the dataset: a publisher's word is taken for what it trained on.")
	}
	if p.MinRelease > 0 {
		say("Refuses release numbers below %d.", p.MinRelease)
	} else {
		say("Accepts any release number, old ones too%s.", map[bool]string{true: ", as far as the channel allows"}[p.Channel != nil])
	}
	if p.MaxBytes > 0 {
		say("Refuses releases whose files are larger than %d bytes together.", p.MaxBytes)
	}
	if c := p.Channel; c != nil {
		who(c.Signers, fmt.Sprintf("say in channel %q, epoch %d, which release is current", c.Name, c.Epoch))
		who(p.Revokers, "revoke a release, so that it is unloaded")
		say("A channel that is missing or has expired is never taken for a good one.")
	} else {
		say("Names no channel, so it cannot tell whether a release is current or was withdrawn.")
	}
	if r := p.Reproductions; r == nil || r.Min == 0 {
		say("Demands no independent rebuild, so a publisher alone is believed.")
	} else {
		say("Demands that %d of these %d operators rebuilt the release from its dataset and had the same bytes:", r.Min, len(r.Rebuilders))
		for _, reb := range r.Rebuilders {
			var ids []string
			for _, id := range reb.Identities {
				ids = append(ids, id.means()+id.window())
			}
			where := "what is attached to the release"
			for _, ref := range reb.Where {
				where += " and " + ref.String()
			}
			say("%s, with %s; looks at %s.", reb.Operator, strings.Join(ids, " or "), where)
		}
		if r.Block {
			say("One failed rebuild by any of them refuses the release.")
		} else {
			say("A failed rebuild by one of them is shown, and refuses nothing by itself.")
		}
	}
	if !p.windows() {
		say("Identities have no expiry: a stolen one is trusted until it is taken out of this file.")
	}
	return out
}

// means is what id signs with.
func (id *Identity) means() string {
	if id.Certificate != nil {
		return "a " + id.Certificate.String()
	}
	return "the ECDSA P-256 key " + id.Key.ID().String()
}

func (id *Identity) window() string {
	switch from, to := id.NotBefore, id.NotAfter; {
	case !from.IsZero() && !to.IsZero():
		return fmt.Sprintf(", from %s to %s", FormatTime(from), FormatTime(to))
	case !from.IsZero():
		return ", from " + FormatTime(from)
	case !to.IsZero():
		return ", until " + FormatTime(to)
	}
	return ""
}

func count(n int, what string) string {
	switch {
	case n == 0:
		return "no " + what
	case n == 1:
		return "one " + what
	case strings.HasSuffix(what, "y"):
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(what, "y"))
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// every calls f with each identity that p names, in any role.
func (p *Policy) every(f func(*Identity)) {
	for _, r := range p.roles() {
		for i := range *r.ids {
			f(&(*r.ids)[i])
		}
	}
	if p.Reproductions != nil {
		for _, reb := range p.Reproductions.Rebuilders {
			for i := range reb.Identities {
				f(&reb.Identities[i])
			}
		}
	}
}

// certificates reports whether p names anybody by certificate.
func (p *Policy) certificates() (yes bool) {
	p.every(func(id *Identity) { yes = yes || id.Certificate != nil })
	return yes
}

// windows reports whether any identity of p has a validity window.
func (p *Policy) windows() (yes bool) {
	p.every(func(id *Identity) { yes = yes || !id.NotBefore.IsZero() || !id.NotAfter.IsZero() })
	return yes
}

// logEntries is how many log entries p demands on a bundle.
func (p *Policy) logEntries(certificate bool) int {
	switch {
	case p.TransparencyLog != nil:
		return *p.TransparencyLog
	case certificate:
		return 1
	}
	return 0
}

// InitPolicy returns the text of a policy, with comments, that trusts the
// publishers of p for its product ("" for DefaultProduct). Of p it also
// writes trusted_root, timestamps, transparency_log, insecure_ignore_sct and the
// channel with revokers and dataset publishers; anything else is left as a
// comment to fill in. The file of a trusted root is only named. A policy that
// LoadPolicy would refuse is ErrPolicy here.
func InitPolicy(p Policy) ([]byte, error) {
	if p.Product == "" {
		p.Product = DefaultProduct
	}
	var b strings.Builder
	b.WriteString(`# Whom this machine trusts for what. 'bhverify policy check FILE' says it in
# words. Unknown fields are errors, so nothing here is silently ignored.
version: 1

# The one product whose releases are accepted.
product: ` + strconv.Quote(p.Product) + "\n")
	if p.RootFile != "" {
		fmt.Fprintf(&b, `
# Authorities and logs that certificates, time stamps and log entries come from.
trusted_root: %s
timestamps:
  authority: %d
`, strconv.Quote(p.RootFile), p.Timestamps)
		if p.TransparencyLog != nil {
			fmt.Fprintf(&b, "transparency_log: %d\n", *p.TransparencyLog)
		}
		if p.InsecureIgnoreSCT {
			b.WriteString("insecure_ignore_sct: true\n")
		}
	}
	b.WriteString(`
# Any one of these may sign a release. Get a key from its owner over a way that
# an attacker of the registry does not control, and compare its digest.
publishers:
`)
	writeIdentities(&b, p.Publishers, "  ")
	if p.Channel != nil {
		fmt.Fprintf(&b, `
# The signed word on which release is current. The epoch is raised by hand, here
# and by the signers, after an accident.
channel:
  name: %s
  epoch: %d
  signers:
`, strconv.Quote(p.Channel.Name), p.Channel.Epoch)
		writeIdentities(&b, p.Channel.Signers, "    ")
	}
	if len(p.Revokers) > 0 {
		b.WriteString("\n# Any one of these may have a release unloaded.\nrevokers:\n")
		writeIdentities(&b, p.Revokers, "  ")
	}
	if len(p.Datasets.Publishers) > 0 {
		b.WriteString("\n# One of these must have signed the dataset of a release.\ndatasets:\n  publishers:\n")
		writeIdentities(&b, p.Datasets.Publishers, "    ")
	}
	if r := p.Reproductions; r != nil {
		fmt.Fprintf(&b, `
# How many of these operators must have rebuilt a release and had its bytes.
reproductions:
  min: %d
`, r.Min)
		if r.Block {
			b.WriteString("  on_failure: block\n")
		}
		b.WriteString("  rebuilders:\n")
		for _, reb := range r.Rebuilders {
			fmt.Fprintf(&b, "    - operator: %s\n", strconv.Quote(reb.Operator))
			if len(reb.Where) > 0 {
				b.WriteString("      where:\n")
				for _, ref := range reb.Where {
					fmt.Fprintf(&b, "        - %s\n", strconv.Quote(ref.String()))
				}
			}
			b.WriteString("      identities:\n")
			writeIdentities(&b, reb.Identities, "        ")
		}
	}
	b.WriteString(`
# Optional demands; without them any value that a publisher signs is accepted.
# All fields are described in POLICY.md of the source.
#
# Builders that the provenance may name:
# builders:
#   - https://example.org/builder
`)
	if len(p.Datasets.Publishers) == 0 {
		b.WriteString(`#
# Datasets that a release may be trained on (SHA-256 of snapshot.json):
# datasets:
#   digests:
#     - sha256:…
`)
	}
	if p.Channel == nil {
		b.WriteString(`#
# Which release is current, and which are revoked:
# channel:
#   name: stable
#   epoch: 1
#   signers:
#     - name: …
#       key: channel.pub
`)
	}
	b.WriteString(`#
# Lowest release number, and largest size of all files of a release in bytes:
# min_release: 1
# max_bytes: 1048576
`)
	text := []byte(b.String())
	root := p.TrustedRoot
	if _, err := parsePolicy(text, func(name string, _ int64) ([]byte, error) {
		if name != p.RootFile {
			return nil, fmt.Errorf("file %q is named, but was not given", Printable(name))
		}
		return root, nil
	}); err != nil {
		return nil, err
	}
	return text, nil
}

func writeIdentities(b *strings.Builder, ids []Identity, indent string) {
	for _, id := range ids {
		fmt.Fprintf(b, "%s- name: %s\n", indent, strconv.Quote(id.Name))
		if c := id.Certificate; c != nil {
			fmt.Fprintf(b, "%s  certificate:\n", indent)
			for _, f := range []struct{ name, value string }{
				{"issuer", c.Issuer}, {"san", c.SAN}, {"san_regexp", c.SANRegexp},
				{"source_repository", c.SourceRepository}, {"source_ref", c.SourceRef}, {"workflow", c.Workflow},
			} {
				if f.value != "" {
					fmt.Fprintf(b, "%s    %s: %s\n", indent, f.name, strconv.Quote(f.value))
				}
			}
		} else {
			fmt.Fprintf(b, "%s  # %s\n%s  key: |\n", indent, id.Key.ID(), indent)
			for line := range strings.Lines(id.Key.PEM()) {
				b.WriteString(indent + "    " + line)
			}
		}
		for _, w := range []struct {
			name string
			text string
		}{{"not_before", FormatTime(id.NotBefore)}, {"not_after", FormatTime(id.NotAfter)}} {
			if w.text > "2000" {
				fmt.Fprintf(b, "%s  %s: %s\n", indent, w.name, w.text)
			}
		}
	}
}
