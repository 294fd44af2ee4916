package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// fleet is a publisher of releases 1 to 3 and of a channel, and an agent that
// trusts it. The publisher of releases, the signer of the channel and the
// revoker have a key each.
type fleet struct {
	*user
	store    oras.Store // what the agent syncs from,
	from     string     // as it names it: the directory "repo"
	manifest map[int64]canon.Digest
	channels *sign.Signer
	revoker  *sign.Signer
	sequence int64
	epoch    int64
}

func newFleet(t *testing.T) *fleet {
	if testing.Short() {
		t.Skip("trains")
	}
	ctx := context.Background()
	f := &fleet{user: newUser(t), from: "repo", manifest: map[int64]canon.Digest{}, epoch: 1}
	f.channels, f.revoker = f.newSigner("channels"), f.newSigner("revoker")
	var err error
	if f.store, err = oras.Open(ctx, oras.Ref{Layout: filepath.Join(f.dir, "repo")}, oras.Options{Write: true}); err != nil {
		t.Fatal(err)
	}
	for n := int64(1); n <= 3; n++ {
		f.train(n, n)
	}
	f.policy(1)
	return f
}

// newSigner makes a key of somebody else.
func (f *fleet) newSigner(who string) *sign.Signer {
	f.t.Helper()
	f.t.Setenv("XDG_CONFIG_HOME", filepath.Join(f.home, who))
	s, err := sign.DefaultKey("")
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// train adds a signed release to the store.
func (f *fleet) train(n, seed int64) canon.Digest {
	f.t.Helper()
	ctx := context.Background()
	out := fmt.Sprintf("dist-%d-%d", n, seed)
	f.must("bhtrain", "run", "-q", "--release", fmt.Sprint(n), "--seed", fmt.Sprint(seed), "--out", out)
	src, err := oras.Open(ctx, oras.Ref{Layout: filepath.Join(f.dir, out)}, oras.Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	d, err := src.Resolve(ctx, oras.TagLatest)
	if err != nil {
		f.t.Fatal(err)
	}
	if f.manifest[n].IsZero() {
		f.manifest[n] = d.Digest
		if _, err := oras.Copy(ctx, f.store, src, d.Digest, oras.CopyOptions{WithoutDataset: true}); err != nil {
			f.t.Fatal(err)
		}
	}
	return d.Digest
}

// policy writes the agent's policy with the channel "stable" at an epoch.
func (f *fleet) policy(epoch int64) {
	f.t.Helper()
	key := func(indent string, k verify.Key) (text string) {
		for line := range strings.Lines(k.PEM()) {
			text += indent + line
		}
		return text
	}
	own, err := os.ReadFile(f.key())
	if err != nil {
		f.t.Fatal(err)
	}
	k, err := verify.ParseKey(own)
	if err != nil {
		f.t.Fatal(err)
	}
	text := "version: 1\nproduct: bhtrain\npublishers:\n  - name: publisher\n    key: |\n" + key("      ", k) +
		fmt.Sprintf("channel:\n  name: stable\n  epoch: %d\n  signers:\n    - name: channel signer\n      key: |\n", epoch) + key("        ", f.channels.Key()) +
		"revokers:\n  - name: revoker\n    key: |\n" + key("      ", f.revoker.Key())
	if err := os.WriteFile(filepath.Join(f.dir, "policy.yaml"), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// publish puts a channel statement that release n is current into the store,
// changed by change, and returns its bundle.
func (f *fleet) publish(n int64, change ...func(*verify.Channel)) []byte {
	f.t.Helper()
	return f.publishAs(f.channels, n, change...)
}

func (f *fleet) publishAs(by *sign.Signer, n int64, change ...func(*verify.Channel)) []byte {
	f.t.Helper()
	f.sequence++
	now := time.Now()
	c := verify.Channel{
		Product: "bhtrain", Channel: "stable", Epoch: f.epoch, Sequence: f.sequence, Release: n, Manifest: f.manifest[n], Lowest: 1,
		Issued: verify.FormatTime(now.Add(-time.Minute)), Expires: verify.FormatTime(now.Add(48 * time.Hour)),
	}
	for _, f := range change {
		f(&c)
	}
	statement, err := verify.NewChannel(c)
	if err != nil {
		f.t.Fatal(err)
	}
	bundle, err := by.Sign(context.Background(), statement)
	if err != nil {
		f.t.Fatal(err)
	}
	f.put(bundle)
	return bundle
}

// put makes a bundle what stands at the channel's tag, as whoever runs a
// registry can.
func (f *fleet) put(bundle []byte) {
	f.t.Helper()
	if _, err := oras.PutChannel(context.Background(), f.store, "stable", bundle); err != nil {
		f.t.Fatal(err)
	}
}

// revoke returns a revocation of release n, signed by somebody.
func (f *fleet) revoke(by *sign.Signer, n int64) jsontext.Value {
	f.t.Helper()
	statement, err := verify.NewRevocation(verify.Revocation{
		Product: "bhtrain", Release: n, Manifest: f.manifest[n], Reason: "flags every health check", Issued: verify.FormatTime(time.Now().Add(-time.Minute)),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := by.Sign(context.Background(), statement)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

func (f *fleet) syncArgs() []string {
	return []string{"sync", "--state", "state", "--policy", "policy.yaml", "--from", f.from}
}

// sync syncs, which has to work.
func (f *fleet) sync() string {
	f.t.Helper()
	return f.must("bhagent", f.syncArgs()...)
}

// refused wants a sync to end with exit code 3 and that check failed, and
// release n to be in use afterwards.
func (f *fleet) refused(check string, n int64) {
	f.t.Helper()
	r := f.run(nil, "bhagent", f.syncArgs()...)
	if r.code != 3 || !strings.Contains(r.out+r.err, check) {
		f.t.Errorf("sync: exit code %d, want 3 and %s\n%s%s", r.code, check, r.out, r.err)
	}
	if !strings.Contains(r.out+r.err, "✗ "+check) && !strings.Contains(r.err, check+" (") {
		f.t.Errorf("sync: %s is not a check that failed\n%s%s", check, r.out, r.err)
	}
	f.uses(n)
}

// status is what status says, and its exit code.
func (f *fleet) status() (state string, number int64, code int) {
	f.t.Helper()
	r := f.run(nil, "bhagent", "status", "--state", "state", "--format", "json")
	var in struct {
		State   string
		Verdict struct{ Number int64 }
	}
	if r.out == "" {
		return "", 0, r.code
	}
	if err := json.Unmarshal([]byte(r.out), &in); err != nil {
		f.t.Fatalf("%v: %s%s", err, r.out, r.err)
	}
	return in.State, in.Verdict.Number, r.code
}

// uses wants records to be scored by release n, or by none for 0.
func (f *fleet) uses(n int64) {
	f.t.Helper()
	r := f.run([]byte(`{"details":"GET /"}`), "bhagent", "score", "--state", "state")
	if n == 0 {
		if r.code != 3 {
			f.t.Errorf("something is in use: %d %s%s", r.code, r.out, r.err)
		}
		return
	}
	if want := f.manifest[n].String(); r.code != 0 || !strings.Contains(r.out, want) {
		f.t.Errorf("release %d is not in use: %d %s%s", n, r.code, r.out, r.err)
	}
}

func (f *fleet) is(state string, n int64, code int) {
	f.t.Helper()
	if s, number, c := f.status(); s != state || number != n || c != code {
		f.t.Errorf("status: %s, release %d, exit code %d; want %s, %d, %d", s, number, c, state, n, code)
	}
}

func (f *fleet) remove(name string) {
	f.t.Helper()
	if err := os.RemoveAll(filepath.Join(f.dir, "state", name)); err != nil {
		f.t.Fatal(err)
	}
}

func TestChannelLeadsTheAgent(t *testing.T) {
	f := newFleet(t)
	f.refused("channel.statement", 0) // there is none yet
	f.publish(1)
	f.sync()
	f.is("current", 1, 0)
	if out := f.sync(); !strings.Contains(out, "already live") {
		t.Errorf("the same again: %s", out)
	}
	// Published again because time passes, then another release.
	f.publish(1)
	if out := f.sync(); !strings.Contains(out, "already live") {
		t.Errorf("published again: %s", out)
	}
	f.publish(3)
	f.sync()
	f.uses(3)
	f.is("current", 3, 0)

	// A channel that nobody trusted signed, or that is none.
	f.publishAs(f.newSigner("stranger"), 3)
	f.refused("channel.signature", 3)
	f.put([]byte(f.revoke(f.channels, 1)))
	f.refused("channel.statement", 3)
	f.is("current", 3, 0)

	f.fails(2, "leave out the tag", "bhagent", "sync", "--state", "state", "--policy", "policy.yaml", "--from", "oci-layout:repo:release-3")
}

// Row 2: an older release, by every way to name one.
func TestAttack02_Rollback(t *testing.T) {
	f := newFleet(t)
	first := f.publish(1)
	f.sync()
	f.publish(2)
	f.sync()
	f.put(first) // the registry shows what was true before
	f.refused("channel.sequence", 2)
	f.publish(1) // the channel signer's key goes back
	f.refused("channel.release", 2)
	second := f.publish(2, func(c *verify.Channel) { c.Lowest = 2 })
	f.sync()
	f.publish(2) // the lowest release falls
	f.refused("channel.lowest", 2)
	twin := f.train(2, 9)
	f.publish(2, func(c *verify.Channel) { c.Manifest, c.Lowest = twin, 2 }) // another release with the number of the one accepted
	f.refused("channel.release", 2)
	f.sequence-- // and two things said under one number
	f.publish(3, func(c *verify.Channel) { c.Sequence, c.Lowest = 4, 2 })
	f.refused("channel.sequence", 2)

	// The state is lost: the channel's bundle beside the slots still knows.
	f.remove("state.json")
	f.put(first)
	f.refused("channel.sequence", 0)
	f.put(second)
	f.sync()
	f.uses(2)
	// That is lost too: the releases still know their numbers.
	f.remove("state.json")
	f.remove("channels")
	f.put(first)
	f.refused("channel.release", 0)
	f.put(second)
	f.sync()
	f.is("current", 2, 0)
}

// Row 3: nothing new is ever shown.
func TestAttack03_Freeze(t *testing.T) {
	f := newFleet(t)
	soon := time.Now().Add(6 * time.Second)
	f.publish(1, func(c *verify.Channel) { c.Expires = verify.FormatTime(soon) })
	f.sync()
	f.is("current", 1, 0)
	time.Sleep(time.Until(soon.Add(2 * time.Second)))
	f.is("stale", 1, 1)
	f.uses(1)
	f.fails(1, "channel.expiry", "bhagent", f.syncArgs()...)
	f.uses(1)

	// Nothing is installed because of an expired channel.
	f.publish(2, func(c *verify.Channel) {
		c.Issued, c.Expires = verify.FormatTime(time.Now().Add(-2*time.Hour)), verify.FormatTime(time.Now().Add(-time.Hour))
	})
	f.refused("freshness", 1)

	// The channel is hidden.
	if err := os.RemoveAll(filepath.Join(f.dir, "repo")); err != nil {
		t.Fatal(err)
	}
	var err error
	if f.store, err = oras.Open(context.Background(), oras.Ref{Layout: filepath.Join(f.dir, "repo")}, oras.Options{Write: true}); err != nil {
		t.Fatal(err)
	}
	f.refused("channel.statement", 1)
	f.is("stale", 1, 1)
}

// Row 4: numbers as high as they go, and the way back.
func TestAttack04_FastForward(t *testing.T) {
	f := newFleet(t)
	f.publish(1)
	f.sync()
	// A stolen channel key cannot install what no publisher signed …
	const most = 1<<53 - 1
	f.publish(most, func(c *verify.Channel) { c.Manifest, c.Sequence = canon.Sum([]byte("nothing")), most })
	r := f.run(nil, "bhagent", f.syncArgs()...)
	if r.code == 0 {
		t.Errorf("sync: %s%s", r.out, r.err)
	}
	f.uses(1)
	// … but its numbers were accepted, so the true ones are refused now,
	f.publish(2)
	f.refused("channel.sequence", 1)
	// in this epoch. People raise it, in the policy and in the channel.
	f.epoch = 2
	f.publish(2)
	f.refused("channel.epoch", 1)
	f.policy(2)
	f.sync()
	f.is("current", 2, 0)
	f.epoch = 1
	f.publish(most, func(c *verify.Channel) { c.Manifest, c.Sequence = canon.Sum([]byte("nothing")), most })
	f.refused("channel.epoch", 2)
	f.policy(1) // an old policy does not bring the old epoch back
	r = f.run(nil, "bhagent", f.syncArgs()...)
	if r.code != 3 || !strings.Contains(r.out+r.err, "✗ channel.epoch") {
		t.Errorf("an old policy: %d %s%s", r.code, r.out, r.err)
	}
}

// Row 5: models of several releases.
func TestAttack05_MixAndMatch(t *testing.T) {
	f := newFleet(t)
	f.publish(1)
	f.sync()
	// A release of four models of which one is another's, which nobody signed.
	mixed := f.forge("dist-3-3", "mixed", func(r *oras.Release, m []oras.File) {
		other, err := oras.Pull(context.Background(), f.store, f.manifest[2])
		if err != nil {
			t.Fatal(err)
		}
		r.Scoring, m[2].Data = other.Release.Scoring, other.Models[2].Data
	})
	src, err := oras.Open(context.Background(), oras.Ref{Layout: filepath.Join(f.dir, "mixed")}, oras.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := oras.Pull(context.Background(), src, mixed)
	if err != nil {
		t.Fatal(err)
	}
	if err := oras.Push(context.Background(), f.store, b); err != nil {
		t.Fatal(err)
	}
	// The bytes of another release in the place of those asked for.
	f.publish(2)
	f.damage("repo", f.blob("dist-2-2", "anomaly_detector.onnx"))
	f.refused("release.files", 1)
	// The mixed release.
	f.publish(99, func(c *verify.Channel) { c.Manifest = mixed })
	f.refused("signature", 1)
	// The number of one release with the digest of another.
	f.publish(100, func(c *verify.Channel) { c.Manifest = f.manifest[3] })
	f.refused("current", 1)
}

// Row 9: a statement that is good somewhere else.
func TestAttack09_AnotherChannelOrProduct(t *testing.T) {
	f := newFleet(t)
	f.publish(1)
	f.sync()
	f.publish(2, func(c *verify.Channel) { c.Channel = "beta" })
	f.refused("channel.name", 1)
	f.publish(2, func(c *verify.Channel) { c.Product = "another" })
	f.refused("channel.product", 1)
	f.publish(2)
	f.sync()
	f.uses(2)
}

// Row 28: a clock that is behind what was signed.
func TestAttack28_ClockBehind(t *testing.T) {
	f := newFleet(t)
	f.publish(1)
	f.sync()
	f.publish(2, func(c *verify.Channel) {
		c.Issued, c.Expires = verify.FormatTime(time.Now().Add(time.Hour)), verify.FormatTime(time.Now().Add(48*time.Hour))
	})
	f.refused("channel.clock", 1)
	f.publish(2)
	f.sync()
	f.uses(2)
}

func TestRevokedReleaseGoesOutOfUse(t *testing.T) {
	f := newFleet(t)
	f.publish(1)
	f.sync()
	before := f.publish(2)
	f.sync()
	revocation := f.revoke(f.revoker, 2)
	listed := func(c *verify.Channel) { c.Revocations = []jsontext.Value{revocation} }

	// The channel still names it: the one before comes back.
	f.publish(2, listed)
	f.refused("revoked", 1)
	if r := f.run(nil, "bhagent", f.syncArgs()...); r.code != 3 {
		t.Errorf("sync again: %d %s%s", r.code, r.out, r.err)
	}
	f.is("behind", 1, 1)

	// The registry hides the revocation, the channel signer drops it.
	f.put(before)
	f.refused("channel.sequence", 1)
	f.publish(2)
	f.refused("channel.revocations", 1)
	f.publish(3)
	f.refused("channel.revocations", 1)
	f.remove("state.json") // nor does a lost state forget it
	f.refused("channel.revocations", 0)

	f.publish(3, listed)
	f.sync()
	f.is("current", 3, 0)

	// The one before does not come back where it must not be installed any more.
	for what, change := range map[string]func(*fleet, *verify.Channel){
		"below the lowest":        func(_ *fleet, c *verify.Channel) { c.Lowest = 2 },
		"called bad by a channel": func(h *fleet, c *verify.Channel) { c.Revocations = append(c.Revocations, h.revoke(h.channels, 1)) },
	} {
		h := newFleet(t)
		h.publish(1)
		h.sync()
		h.publish(2)
		h.sync()
		h.publish(2, func(c *verify.Channel) {
			c.Revocations = []jsontext.Value{h.revoke(h.revoker, 2)}
			change(h, c)
		})
		h.refused("revoked", 0)
		if state, n, _ := h.status(); state != "revoked" || n != 2 {
			t.Errorf("%s: status: %s, release %d", what, state, n)
		}
	}

	// Without one before, nothing is in use.
	g := newFleet(t)
	g.publish(1)
	g.sync()
	r := g.revoke(g.revoker, 1)
	g.publish(1, func(c *verify.Channel) { c.Revocations = []jsontext.Value{r} })
	g.refused("revoked", 0)
	g.is("revoked", 1, 3)
	g.publish(2, func(c *verify.Channel) { c.Revocations = []jsontext.Value{r} })
	g.sync()
	g.is("current", 2, 0)
}

func TestRevocationByNoRevokerOnlyBlocksInstalls(t *testing.T) {
	f := newFleet(t)
	f.publish(1)
	f.sync()
	stranger := f.newSigner("stranger")
	one, two := f.revoke(stranger, 1), f.revoke(f.channels, 2)
	f.publish(1, func(c *verify.Channel) { c.Revocations = []jsontext.Value{one, two} })
	f.sync()
	f.uses(1) // not unloaded
	f.publish(2, func(c *verify.Channel) { c.Revocations = []jsontext.Value{one, two} })
	f.refused("revoked", 1) // not installed
	f.is("behind", 1, 1)
	f.publish(2) // and gone when the channel does not say so any more
	f.sync()
	f.is("current", 2, 0)
}

func TestRollbackAndPinAreDecisions(t *testing.T) {
	f := newFleet(t)
	f.publish(1)
	f.sync()
	f.publish(2)
	f.sync()
	to := f.manifest[1].String()
	f.fails(2, "--reason", "bhagent", "rollback", "--state", "state", "--to", to)
	f.fails(3, "not kept here", "bhagent", "rollback", "--state", "state", "--to", f.manifest[3].String(), "--reason", "x")
	f.must("bhagent", "rollback", "--state", "state", "--to", to, "--reason", "flags every health check")
	f.is("pinned", 1, 0)
	f.uses(1)
	f.publish(3)
	if out := f.sync(); !strings.Contains(out, "pinned") {
		t.Errorf("sync while pinned: %s", out)
	}
	f.uses(1)
	if out := f.must("bhagent", "status", "--state", "state"); !strings.Contains(out, "rollback "+to+" flags every health check") {
		t.Errorf("status does not tell the decision: %s", out)
	}
	f.must("bhagent", "pin", "--state", "state", "--off")
	f.is("behind", 1, 1)
	f.sync()
	f.is("current", 3, 0)
	f.must("bhagent", "pin", "--state", "state", "--reason", "freeze")
	f.publish(3)
	f.sync()
	f.is("current", 3, 0)

	// Neither goes against the policy of the day, nor a pin against a revocation.
	r := f.revoke(f.revoker, 1)
	s := f.revoke(f.revoker, 3)
	f.publish(3, func(c *verify.Channel) { c.Revocations = []jsontext.Value{r} })
	f.sync()
	f.fails(3, "revoked", "bhagent", "rollback", "--state", "state", "--to", to, "--reason", "x")
	f.publish(3, func(c *verify.Channel) { c.Revocations = []jsontext.Value{r, s} })
	f.refused("revoked", 0)
	f.is("revoked", 3, 3)

	// A pin ends where the pinned release is revoked, and that is told.
	h := newFleet(t)
	h.publish(1)
	h.sync()
	h.publish(2)
	h.sync()
	h.must("bhagent", "rollback", "--state", "state", "--to", h.manifest[1].String(), "--reason", "flags every health check")
	if out := h.must("bhagent", "status", "--state", "state"); !strings.Contains(out, "pinned    "+h.manifest[1].String()+", until 'bhagent pin --off'") {
		t.Errorf("status does not tell the pin: %s", out)
	}
	revoked := h.revoke(h.revoker, 1)
	h.publish(3, func(c *verify.Channel) { c.Revocations = []jsontext.Value{revoked} })
	unpinned := h.run(nil, "bhagent", h.syncArgs()...)
	if unpinned.code != 0 || !strings.Contains(unpinned.err, "not pinned any more: the release was revoked") || !strings.Contains(unpinned.err, h.manifest[1].String()) {
		t.Errorf("the end of a pin: exit code %d\n%s%s", unpinned.code, unpinned.out, unpinned.err)
	}
	h.is("current", 3, 0)
	out := h.must("bhagent", "status", "--state", "state")
	if !strings.Contains(out, "unpin "+h.manifest[1].String()+" by bhagent, revoked by ") || strings.Contains(out, "\npinned ") {
		t.Errorf("status does not tell the end of the pin: %s", out)
	}
	if r := h.run(nil, "bhagent", h.syncArgs()...); r.code != 0 || strings.Contains(r.err, "pinned") {
		t.Errorf("it is said again: %s", r.err)
	}
	// The word of somebody who is no revoker of the policy ends no pin.
	h.must("bhagent", "pin", "--state", "state", "--reason", "freeze")
	word := h.revoke(h.channels, 3)
	h.publish(2, func(c *verify.Channel) {
		c.Revocations = []jsontext.Value{revoked, word}
		c.Release = 4
		c.Manifest = h.manifest[2]
	})
	h.sync()
	h.is("pinned", 3, 0)

	g := newFleet(t)
	g.publish(1)
	g.sync()
	g.publish(2, func(c *verify.Channel) { c.Lowest = 2 })
	g.sync()
	g.fails(3, "lowest", "bhagent", "rollback", "--state", "state", "--to", g.manifest[1].String(), "--reason", "x")
	g.uses(2)
}

// A policy that changes is obeyed at once, by what is installed too.
func TestInstalledReleaseIsJudgedByThePolicyOfTheDay(t *testing.T) {
	f := newFleet(t)
	f.publish(1)
	f.sync()
	path := filepath.Join(f.dir, "policy.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(string) string{
		"another product":        func(s string) string { return strings.Replace(s, "product: bhtrain", "product: another", 1) },
		"a higher release":       func(s string) string { return s + "min_release: 2\n" },
		"another channel signer": func(s string) string { return swapKeys(s) },
		"another channel":        func(s string) string { return strings.Replace(s, "name: stable", "name: beta", 1) },
	} {
		changed := change(string(text))
		if changed == string(text) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, _, code := f.status(); s != "refused" || code != 3 {
			t.Errorf("%s: %s, exit code %d", name, s, code)
		}
		f.uses(0)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	f.is("current", 1, 0)
}

// swapKeys exchanges the keys of the channel signer and of the revoker.
func swapKeys(policy string) string {
	head, tail, _ := strings.Cut(policy, "channel signer")
	a, b, _ := strings.Cut(tail, "- name: revoker")
	line := func(s string) string {
		_, s, _ = strings.Cut(s, "BEGIN PUBLIC KEY-----\n")
		s, _, _ = strings.Cut(s, "-----END")
		return strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(s), " ", ""), "\n", "")
	}
	put := func(s, indent, key string) string {
		before, rest, _ := strings.Cut(s, "BEGIN PUBLIC KEY-----\n")
		_, after, _ := strings.Cut(rest, "-----END")
		return before + "BEGIN PUBLIC KEY-----\n" + indent + key[:64] + "\n" + indent + key[64:] + "\n" + indent + "-----END" + after
	}
	return head + "channel signer" + put(a, "        ", line(b)) + "- name: revoker" + put(b, "      ", line(a))
}
