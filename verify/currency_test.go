package verify

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// desk signs channels, guard revokes, mallory does what he may not.
type channelTest struct {
	publisher, desk, guard, mallory signer
	v                               *Verifier
}

func newChannelTest(t testing.TB, change func(*Policy)) channelTest {
	t.Helper()
	c := channelTest{publisher: newSigner(t, "A"), desk: newSigner(t, "desk"), guard: newSigner(t, "guard"), mallory: newSigner(t, "Mallory")}
	c.v = testVerifier(t, func(p *Policy) {
		p.Channel = &ChannelPolicy{Name: "stable", Epoch: 1, Signers: []Identity{c.desk.Identity}}
		p.Revokers = []Identity{c.guard.Identity}
		if change != nil {
			change(p)
		}
	}, c.publisher)
	return c
}

func release(n int64) canon.Digest { return canon.Sum(fmt.Appendf(nil, "release %d", n)) }

// channelAt is a channel of sequence n that names release n, valid around testNow.
func channelAt(n int64, change func(*Channel)) Channel {
	c := Channel{
		Product: "shop", Channel: "stable", Epoch: 1, Sequence: n, Release: n, Manifest: release(n), Lowest: 1,
		Issued: FormatTime(testNow.Add(-time.Hour)), Expires: FormatTime(testNow.Add(47 * time.Hour)),
	}
	if change != nil {
		change(&c)
	}
	return c
}

func (s signer) channel(t testing.TB, c Channel) []byte {
	t.Helper()
	st, err := NewChannel(c)
	if err != nil {
		t.Fatal(err)
	}
	return s.statement(t, st)
}

func (s signer) revoke(t testing.TB, n int64) jsontext.Value {
	t.Helper()
	st, err := NewRevocation(Revocation{Product: "shop", Release: n, Manifest: release(n), Reason: "back door", Issued: FormatTime(testNow.Add(-2 * time.Hour))})
	if err != nil {
		t.Fatal(err)
	}
	return s.statement(t, st)
}

// wantChannel checks that the channel fails exactly the named checks, and is
// then still what was known before.
func wantChannel(t *testing.T, c *ChannelVerdict, before Memory, names ...string) {
	t.Helper()
	var got []string
	for _, f := range c.Failures() {
		got = append(got, f.Name)
		if f.Reason == "" {
			t.Errorf("%s fails without a reason", f.Name)
		}
	}
	stale := slices.Equal(names, []string{ChannelExpiry})
	if !slices.Equal(got, names) || c.Pass() != (len(names) == 0) || c.Accepted() != (len(names) == 0 || stale) {
		var text bytes.Buffer
		c.WriteText(&text, false)
		t.Errorf("pass=%t, accepted=%t, failed %v, want %v\n%s", c.Pass(), c.Accepted(), got, names, &text)
	}
	if !c.Accepted() && !sameMemory(c.Memory, before) {
		t.Errorf("what is not accepted is remembered: %+v", c.Memory)
	}
}

func sameMemory(a, b Memory) bool {
	return a.Epoch == b.Epoch && a.Sequence == b.Sequence && a.Release == b.Release && a.Lowest == b.Lowest && a.Manifest == b.Manifest &&
		a.NewestTime.Equal(b.NewestTime) && slices.EqualFunc(a.Revocations, b.Revocations, bytes.Equal)
}

func TestChannelIsAcceptedAndRemembered(t *testing.T) {
	c := newChannelTest(t, nil)
	raw := c.desk.channel(t, channelAt(5, func(ch *Channel) { ch.Lowest, ch.Revocations = 3, []jsontext.Value{c.guard.revoke(t, 4)} }))
	got := c.v.JudgeChannel(raw, testNow, Memory{})
	wantChannel(t, got, Memory{})
	m := got.Memory
	if m.Epoch != 1 || m.Sequence != 5 || m.Release != 5 || m.Lowest != 3 || m.Manifest != release(5) || len(m.Revocations) != 1 || !m.NewestTime.Equal(testNow.Add(-time.Hour)) {
		t.Errorf("remembered %+v", m)
	}
	if got.Signer != "desk" || got.Release != 5 || got.Expires != FormatTime(testNow.Add(47*time.Hour)) || !bytes.Equal(got.Data, raw) || got.Bundle != canon.Sum(raw) {
		t.Errorf("%+v", got)
	}
	if r := got.Revocation(release(4)); r == nil || !r.Binding || r.By != "guard" || r.Reason != "back door" || len(got.Revoked) != 1 || got.Revocation(release(5)) != nil {
		t.Errorf("revoked %+v", got.Revoked)
	}
	// The same again, renewed, and the next.
	again := c.v.JudgeChannel(raw, testNow, m)
	wantChannel(t, again, m)
	if !sameMemory(again.Memory, m) {
		t.Errorf("the same channel changes what is known: %+v", again.Memory)
	}
	next := c.v.JudgeChannel(c.desk.channel(t, channelAt(6, func(ch *Channel) {
		ch.Lowest, ch.Revocations = 4, []jsontext.Value{c.guard.revoke(t, 4), c.guard.revoke(t, 5)}
	})), testNow, m)
	wantChannel(t, next, m)
	if len(next.Memory.Revocations) != 2 || next.Memory.Sequence != 6 || next.Memory.Lowest != 4 {
		t.Errorf("remembered %+v", next.Memory)
	}
}

// testMemory is what an agent knows that accepted sequence 5 with release 4
// revoked.
func (c channelTest) memory(t testing.TB) Memory {
	t.Helper()
	m := c.v.JudgeChannel(c.desk.channel(t, channelAt(5, func(ch *Channel) {
		ch.Lowest, ch.Revocations = 3, []jsontext.Value{c.guard.revoke(t, 4)}
	})), testNow, Memory{})
	if !m.Accepted() {
		t.Fatal(m.Failures())
	}
	return m.Memory
}

func TestChannelRefusesByName(t *testing.T) {
	c := newChannelTest(t, nil)
	m := c.memory(t)
	carry := func(change func(*Channel)) Channel {
		return channelAt(6, func(ch *Channel) {
			ch.Lowest, ch.Revocations = 3, []jsontext.Value{c.guard.revoke(t, 4)}
			change(ch)
		})
	}
	rel := testRelease(t, nil)
	for _, k := range []struct {
		name   string
		raw    []byte
		now    time.Time
		memory *Memory
		failed []string
	}{
		{name: "garbage", raw: []byte("{"), failed: []string{ChannelStatement, ChannelSignature}},
		{name: "forged", raw: c.mallory.channel(t, carry(func(*Channel) {})), failed: []string{ChannelStatement, ChannelSignature}},
		{name: "signed by the publisher, who is no channel signer", raw: c.publisher.channel(t, carry(func(*Channel) {})), failed: []string{ChannelStatement, ChannelSignature}},
		{name: "signed by the revoker", raw: c.guard.channel(t, carry(func(*Channel) {})), failed: []string{ChannelStatement, ChannelSignature}},
		{name: "another statement of the signer", raw: c.desk.statement(t, statementFor(t, rel, nil)), failed: []string{ChannelStatement}},
		{name: "stale", raw: c.desk.channel(t, carry(func(*Channel) {})), now: testNow.Add(48 * time.Hour), failed: []string{ChannelExpiry}},
		{name: "rollback", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Sequence, ch.Release, ch.Manifest = 4, 5, release(5) })), failed: []string{ChannelSequence}},
		{name: "rollback of the release", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Release, ch.Manifest = 3, release(3) })), failed: []string{ChannelRelease}},
		{name: "other release of the same number", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Release, ch.Manifest = 5, release(50) })), failed: []string{ChannelRelease}},
		{name: "other content of the same sequence", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Sequence = 5 })), failed: []string{ChannelSequence}},
		{name: "other release of the same sequence", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Sequence, ch.Release, ch.Manifest = 5, 6, release(5) })), failed: []string{ChannelSequence}},
		{name: "other digest of the same sequence", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Sequence, ch.Release, ch.Manifest = 5, 5, release(50) })), failed: []string{ChannelSequence, ChannelRelease}},
		{name: "other lowest of the same sequence", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Sequence, ch.Release, ch.Manifest, ch.Lowest = 5, 5, release(5), 4 })), failed: []string{ChannelSequence}},
		{name: "lowest falls", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Lowest = 2 })), failed: []string{ChannelLowest}},
		{name: "wrong epoch", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Epoch = 2 })), failed: []string{ChannelEpoch}},
		{name: "epoch below what was accepted", raw: c.desk.channel(t, carry(func(*Channel) {})), memory: &Memory{Epoch: 2, Sequence: 1, Release: 1, Lowest: 1}, failed: []string{ChannelEpoch}},
		{name: "dropped revocation", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Revocations = nil })), failed: []string{ChannelRevocations}},
		{name: "revocation put in by another signature", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Revocations = []jsontext.Value{c.mallory.revoke(t, 4)} })), failed: []string{ChannelRevocations}},
		{name: "entry that is no revocation", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Revocations = append(ch.Revocations, jsontext.Value(`{}`)) })), failed: []string{ChannelRevocations}},
		{name: "entry that is another statement", raw: c.desk.channel(t, carry(func(ch *Channel) {
			ch.Revocations = append(ch.Revocations, c.guard.statement(t, statementFor(t, rel, nil)))
		})), failed: []string{ChannelRevocations}},
		{name: "clock set back before it was issued", raw: c.desk.channel(t, carry(func(*Channel) {})), now: testNow.Add(-24 * time.Hour), failed: []string{ChannelClock}},
		{name: "clock set back before another time that is known", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Issued = FormatTime(testNow.Add(-10 * time.Hour)) })), now: testNow.Add(-2 * time.Hour), failed: []string{ChannelClock}},
		{name: "issued in the future", raw: c.desk.channel(t, carry(func(ch *Channel) { ch.Issued = FormatTime(testNow.Add(time.Hour)) })), failed: []string{ChannelClock}},
		{name: "stale and forged is forged", raw: c.mallory.channel(t, carry(func(*Channel) {})), now: testNow.Add(48 * time.Hour), failed: []string{ChannelStatement, ChannelSignature}},
	} {
		t.Run(k.name, func(t *testing.T) {
			now, before := testNow, m
			if !k.now.IsZero() {
				now = k.now
			}
			if k.memory != nil {
				before = *k.memory
			}
			got := c.v.JudgeChannel(k.raw, now, before)
			wantChannel(t, got, before, k.failed...)
			// Whatever came, what a revoker had said still holds.
			if k.memory == nil && (got.Revocation(release(4)) == nil || !got.Revocation(release(4)).Binding) {
				t.Error("the revocation that was known is forgotten")
			}
		})
	}
}

// Attack 3: nothing new is served for ever. What is served expires.
func TestAttack03_Freeze(t *testing.T) {
	c := newChannelTest(t, nil)
	raw := c.desk.channel(t, channelAt(5, nil))
	m := c.v.JudgeChannel(raw, testNow, Memory{}).Memory
	for _, k := range []struct {
		after time.Duration
		stale bool
	}{{0, false}, {47 * time.Hour, false}, {47*time.Hour + time.Second, true}, {10000 * time.Hour, true}} {
		got := c.v.JudgeChannel(raw, testNow.Add(k.after), m)
		if got.Pass() == k.stale || !got.Accepted() {
			t.Errorf("after %s: pass=%t, accepted=%t", k.after, got.Pass(), got.Accepted())
		}
	}
}

// Attack 4: the release number is jumped to its maximum. The epoch is raised by
// hand, and everything starts afresh but what was revoked.
func TestAttack04_FastForwardAndRecovery(t *testing.T) {
	c := newChannelTest(t, nil)
	m := c.memory(t)
	jump := c.v.JudgeChannel(c.desk.channel(t, channelAt(6, func(ch *Channel) {
		ch.Sequence, ch.Release, ch.Lowest = oras.MaxNumber, oras.MaxNumber, oras.MaxNumber
		ch.Manifest, ch.Revocations = release(666), []jsontext.Value{c.guard.revoke(t, 4)}
	})), testNow, m)
	wantChannel(t, jump, m) // signed by the thief of the key: nothing to see
	honest := channelAt(7, func(ch *Channel) { ch.Revocations = []jsontext.Value{c.guard.revoke(t, 4)} })
	wantChannel(t, c.v.JudgeChannel(c.desk.channel(t, honest), testNow, jump.Memory), jump.Memory, ChannelSequence, ChannelRelease, ChannelLowest)

	raised := newChannelTest(t, func(p *Policy) {
		p.Channel = &ChannelPolicy{Name: "stable", Epoch: 2, Signers: []Identity{newSigner(t, "desk two").Identity}}
	})
	fresh := channelAt(7, func(ch *Channel) { ch.Epoch, ch.Sequence = 2, 1 })
	got := raised.v.JudgeChannel(newSigner(t, "desk two").channel(t, fresh), testNow, jump.Memory)
	wantChannel(t, got, jump.Memory)
	if got.Memory.Epoch != 2 || got.Memory.Sequence != 1 || got.Memory.Release != 7 || got.Memory.Lowest != 1 || len(got.Memory.Revocations) != 1 || got.Revocation(release(4)) == nil {
		t.Errorf("remembered %+v, revoked %+v", got.Memory, got.Revoked)
	}
	// The old epoch cannot come back, whoever signs it.
	wantChannel(t, raised.v.JudgeChannel(c.desk.channel(t, honest), testNow, got.Memory), got.Memory, ChannelStatement, ChannelSignature)
	wantChannel(t, c.v.JudgeChannel(c.desk.channel(t, honest), testNow, got.Memory), got.Memory, ChannelEpoch)
}

// Attack 9: a good signature for another channel or product is in the place
// of the one asked for.
func TestAttack09_WrongChannelOrProduct(t *testing.T) {
	c := newChannelTest(t, nil)
	other := c.desk.channel(t, channelAt(5, func(ch *Channel) { ch.Channel = "beta" }))
	wantChannel(t, c.v.JudgeChannel(other, testNow, Memory{}), Memory{}, ChannelName)
	product := c.desk.channel(t, channelAt(5, func(ch *Channel) { ch.Product = "bank" }))
	wantChannel(t, c.v.JudgeChannel(product, testNow, Memory{}), Memory{}, ChannelProduct)

	rel := testRelease(t, func(r *oras.Release) { r.Product = "bank" })
	got := c.v.Judge(rel, testNow, Options{Bundles: [][]byte{c.publisher.statement(t, statementFor(t, rel, nil))}, Channel: c.v.JudgeChannel(product, testNow, Memory{})})
	wantFailed(t, got, CheckProduct, CheckChannel)
	// A channel in a store, at the tag of another.
	store, _ := testStore(t, testRelease(t, nil))
	if _, err := oras.PutChannel(t.Context(), store, "stable", other); err != nil {
		t.Fatal(err)
	}
	v, err := c.v.Channel(t.Context(), store, testNow, Memory{})
	if err != nil {
		t.Fatal(err)
	}
	wantChannel(t, v, Memory{}, ChannelName)
}

func TestRevocationsByOthersBlockOnly(t *testing.T) {
	c := newChannelTest(t, nil)
	raw := c.desk.channel(t, channelAt(5, func(ch *Channel) {
		ch.Revocations = []jsontext.Value{c.mallory.revoke(t, 3), c.desk.revoke(t, 4), c.guard.revoke(t, 2), c.mallory.revoke(t, 2), c.guard.revoke(t, 2)}
	}))
	got := c.v.JudgeChannel(raw, testNow, Memory{})
	wantChannel(t, got, Memory{})
	for n, binding := range map[int64]bool{2: true, 3: false, 4: false} {
		r := got.Revocation(release(n))
		if r == nil || r.Binding != binding || (r.Why == "") != binding || (r.By == "") == binding {
			t.Errorf("release %d: %+v", n, r)
		}
	}
	if len(got.Memory.Revocations) != 1 {
		t.Errorf("%d revocations are remembered, want that of the revoker", len(got.Memory.Revocations))
	}
	// They may go again.
	m := got.Memory
	next := c.v.JudgeChannel(c.desk.channel(t, channelAt(6, func(ch *Channel) { ch.Revocations = []jsontext.Value{c.guard.revoke(t, 2)} })), testNow, m)
	wantChannel(t, next, m)
	if next.Revocation(release(3)) != nil || next.Revocation(release(2)) == nil {
		t.Errorf("%+v", next.Revoked)
	}
	// One about another product does not bind.
	st, err := NewRevocation(Revocation{Product: "bank", Release: 5, Manifest: release(5), Reason: "x", Issued: FormatTime(testNow)})
	if err != nil {
		t.Fatal(err)
	}
	alien := c.v.JudgeChannel(c.desk.channel(t, channelAt(7, func(ch *Channel) {
		ch.Revocations = []jsontext.Value{c.guard.revoke(t, 2), c.guard.statement(t, st)}
	})), testNow, m)
	if r := alien.Revocation(release(5)); r == nil || r.Binding {
		t.Errorf("revocation about another product: %+v", r)
	}
}

// An entry by a stranger must not keep a revoker's about the same release from
// being remembered, whatever their order.
func TestRevocationBehindAStrangersIsRemembered(t *testing.T) {
	c := newChannelTest(t, nil)
	raw := c.desk.channel(t, channelAt(5, func(ch *Channel) { ch.Revocations = []jsontext.Value{c.mallory.revoke(t, 2), c.guard.revoke(t, 2)} }))
	m := c.v.JudgeChannel(raw, testNow, Memory{}).Memory
	if len(m.Revocations) != 1 {
		t.Fatalf("%d are remembered", len(m.Revocations))
	}
	dropped := c.v.JudgeChannel(c.desk.channel(t, channelAt(6, nil)), testNow, m)
	wantChannel(t, dropped, m, ChannelRevocations)
	if r := dropped.Revocation(release(2)); r == nil || !r.Binding {
		t.Errorf("forgotten: %+v", r)
	}
}

func TestRevokerThatIsNoMoreDoesNotBind(t *testing.T) {
	c := newChannelTest(t, nil)
	m := c.memory(t)
	later := newChannelTest(t, func(p *Policy) { p.Revokers = []Identity{newSigner(t, "guard two").Identity} })
	got := later.v.JudgeChannel(c.desk.channel(t, channelAt(6, func(ch *Channel) { ch.Lowest = 3 })), testNow, m)
	wantChannel(t, got, m)
	if got.Revocation(release(4)) != nil {
		t.Error("a revocation binds by a key that the policy does not name any more")
	}
}

// current is a release with its channel, signed.
func (c channelTest) current(t testing.TB, rel *oras.Artifact, change func(*Channel)) (given Options) {
	t.Helper()
	raw := c.desk.channel(t, channelAt(6, func(ch *Channel) {
		ch.Release, ch.Manifest = rel.Release.Number, rel.Digest
		if change != nil {
			change(ch)
		}
	}))
	return Options{
		Bundles: [][]byte{c.publisher.statement(t, statementFor(t, rel, nil))},
		Channel: c.v.JudgeChannel(raw, testNow, Memory{}),
	}
}

func TestReleaseIsHeldAgainstItsChannel(t *testing.T) {
	c := newChannelTest(t, nil)
	rel := testRelease(t, nil) // number 12
	revoked := func(s signer) jsontext.Value {
		st, err := NewRevocation(Revocation{Product: "shop", Release: 12, Manifest: rel.Digest, Reason: "back door", Issued: FormatTime(testNow)})
		if err != nil {
			t.Fatal(err)
		}
		return s.statement(t, st)
	}
	for _, k := range []struct {
		name   string
		change func(*Channel)
		failed []string
	}{
		{"current", nil, nil},
		{"another is current", func(ch *Channel) { ch.Release, ch.Manifest = 13, release(13) }, []string{CheckCurrent}},
		{"and it is too old", func(ch *Channel) { ch.Release, ch.Manifest, ch.Lowest = 13, release(13), 13 }, []string{CheckCurrent, CheckLowest}},
		{"stale", func(ch *Channel) { ch.Expires = FormatTime(testNow.Add(-time.Minute)) }, []string{CheckFreshness}},
		{"revoked", func(ch *Channel) { ch.Revocations = []jsontext.Value{revoked(c.guard)} }, []string{CheckRevoked}},
		{"called revoked by the channel alone", func(ch *Channel) { ch.Revocations = []jsontext.Value{revoked(c.mallory)} }, []string{CheckRevoked}},
		{"stale and revoked", func(ch *Channel) {
			ch.Expires, ch.Revocations = FormatTime(testNow.Add(-time.Minute)), []jsontext.Value{revoked(c.guard)}
		}, []string{CheckFreshness, CheckRevoked}},
		{"other product's channel", func(ch *Channel) { ch.Product = "bank" }, []string{CheckChannel}},
	} {
		t.Run(k.name, func(t *testing.T) {
			opt := c.current(t, rel, k.change)
			got := c.v.Judge(rel, testNow, opt)
			wantFailed(t, got, k.failed...)
			for _, name := range channelChecks {
				if k.failed == nil && check(got, name).Status != Pass {
					t.Errorf("%s is %+v", name, check(got, name))
				}
			}
			if got.Channel != opt.Channel || k.failed == nil && len(got.Evidence) != 1 {
				t.Error("the verdict does not hold what it rests on")
			}
			// What a channel says that is not believed was not looked at, and is demanded.
			if got.PassExcept(k.failed...) == slices.Contains(k.failed, CheckChannel) {
				t.Error("fails for more than it says, or lets pass what was not looked at")
			}
			if readBack(t, got).Pass() != got.Pass() {
				t.Error("its JSON says something else")
			}
		})
	}
	// Without a channel, or with one of another policy.
	good := c.current(t, rel, nil)
	wantFailed(t, c.v.Judge(rel, testNow, Options{Bundles: good.Bundles}), CheckChannel)
	wantFailed(t, c.v.Judge(rel, testNow, good))
	other := *good.Channel
	other.Policy = canon.Sum([]byte("another policy"))
	if !other.Pass() {
		t.Fatal("the other policy does not accept its channel")
	}
	wantFailed(t, c.v.Judge(rel, testNow, Options{Bundles: good.Bundles, Channel: &other}), CheckChannel)
	// A revocation known before holds although the channel is gone.
	m := Memory{Epoch: 1, Sequence: 1, Release: 1, Lowest: 1, Manifest: release(1), Revocations: [][]byte{revoked(c.guard)}}
	gone := c.v.Judge(rel, testNow, Options{Bundles: good.Bundles, Channel: c.v.noChannel(testNow, m, "hidden")})
	wantFailed(t, gone, CheckChannel, CheckRevoked)
}

func TestReleaseReadsTheChannelOfItsStore(t *testing.T) {
	c := newChannelTest(t, nil)
	rel := testRelease(t, nil)
	store, _ := testStore(t, rel)
	opt := c.current(t, rel, nil)
	attach(t, store, rel, opt.Bundles[0], oras.ProvenanceTag(rel.Digest))
	got, a, err := c.v.Release(t.Context(), store, rel.Digest, testNow, Options{})
	if err != nil || a != nil {
		t.Fatal(a, err)
	}
	wantFailed(t, got, CheckChannel)
	if f := check(got, CheckChannel); !strings.Contains(f.Reason, "no channel \"stable\"") {
		t.Errorf("%+v", f)
	}
	if _, err := oras.PutChannel(t.Context(), store, "stable", opt.Channel.Data); err != nil {
		t.Fatal(err)
	}
	if got, a, err = c.v.Release(t.Context(), store, rel.Digest, testNow, Options{}); err != nil || a == nil {
		t.Fatal(got, a, err)
	}
	wantFailed(t, got)
	if !sameMemory(got.Channel.Memory, opt.Channel.Memory) {
		t.Error("what is to be remembered is lost")
	}
	// What was known before counts.
	m := Memory{Epoch: 1, Sequence: 100, Release: 12, Lowest: 1, Manifest: rel.Digest}
	if got, a, err = c.v.Release(t.Context(), store, rel.Digest, testNow, Options{Memory: m}); err != nil || a != nil {
		t.Fatal(got, a, err)
	}
	wantFailed(t, got, CheckChannel)
	if f := check(got, CheckChannel); !strings.Contains(f.Reason, "channel.sequence: older") {
		t.Errorf("%+v", f)
	}
	// Stale is refused, and may be tolerated by who says so.
	later := testNow.Add(100 * time.Hour)
	if got, a, err = c.v.Release(t.Context(), store, rel.Digest, later, Options{}); err != nil || a != nil || got.Pass() {
		t.Fatal(got, a, err)
	}
	wantFailed(t, got, CheckFreshness)
	if got, a, err = c.v.Release(t.Context(), store, rel.Digest, later, Options{Tolerate: []string{CheckFreshness, CheckCurrent}}); err != nil || a == nil || got.Pass() {
		t.Fatal(got, a, err)
	}
	// Tolerating that lets nothing else through.
	if _, a, err = c.v.Release(t.Context(), store, rel.Digest, later, Options{Memory: m, Tolerate: []string{CheckFreshness, CheckCurrent}}); err != nil || a != nil {
		t.Fatal(a, err)
	}
	if _, err := testVerifier(t, nil, c.publisher).Channel(t.Context(), store, testNow, Memory{}); !errors.Is(err, ErrPolicy) {
		t.Errorf("a policy without a channel: %v", err)
	}
	down := errors.New("down")
	if _, err := c.v.Channel(t.Context(), downStore{store, down}, testNow, Memory{}); !errors.Is(err, down) {
		t.Errorf("a store that fails: %v", err)
	}
}

func FuzzChannel(f *testing.F) {
	c := newChannelTest(f, nil)
	m := c.memory(f)
	for _, change := range []func(*Channel){nil, func(ch *Channel) { ch.Revocations = []jsontext.Value{c.guard.revoke(f, 4), c.mallory.revoke(f, 3)} }} {
		st, err := NewChannel(channelAt(6, change))
		if err != nil {
			f.Fatal(err)
		}
		b, err := st.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	// The signer is honest about whatever bytes come: what is believed of them?
	f.Fuzz(func(t *testing.T, payload []byte) {
		got := c.v.JudgeChannel(c.desk.sign(t, payload), testNow, m)
		if !got.Accepted() {
			if !sameMemory(got.Memory, m) {
				t.Fatalf("not accepted, and remembered: %+v", got.Memory)
			}
			return
		}
		n := got.Memory
		if n.Epoch != 1 || n.Sequence < m.Sequence || n.Release < m.Release || n.Lowest < m.Lowest || n.Lowest > n.Release || n.NewestTime.Before(m.NewestTime) || len(n.Revocations) < 1 || got.Revocation(release(4)) == nil {
			t.Fatalf("accepted %+v after %+v", n, m)
		}
	})
}
