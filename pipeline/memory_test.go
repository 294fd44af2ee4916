package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/internal/sign/signtest"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// A store that shows the publisher an older channel, another or none is found
// out by what the publisher remembers.
func TestPublisherIsNotLedBack(t *testing.T) {
	ctx := context.Background()
	me := ownSigner(t)
	store, a := shelf(t, me)
	memory := MemoryFile(filepath.Join(t.TempDir(), "state"), oras.Ref{Repository: "example.org/models/web"}, "stable")
	p := plan(me)
	p.Memory, p.First = memory, true
	publish(t, store, a[2], p)
	bundleAt := func() []byte {
		b, _, err := oras.GetChannel(ctx, store, "stable")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	old := bundleAt()
	revocation, _, err := Revoke(ctx, store, a[1].Digest, "poisoned", me)
	if err != nil {
		t.Fatal(err)
	}
	p.First, p.Revocations = false, [][]byte{revocation}
	publish(t, store, a[3], p)
	p.Revocations = nil
	newest := bundleAt()

	// The same sequence with other content, signed by the same key elsewhere.
	elsewhere, b := shelf(t, me)
	q := plan(me)
	q.First = true
	publish(t, elsewhere, b[2], q)
	q.First, q.Revocations = false, [][]byte{revocation}
	publish(t, elsewhere, b[4], q)
	other, _, err := oras.GetChannel(ctx, elsewhere, "stable")
	if err != nil {
		t.Fatal(err)
	}
	untag := func() {
		if err := store.Tag(ctx, oras.ChannelTag("stable"), a[1].Descriptor()); err != nil {
			t.Fatal(err)
		}
	}
	// By a stranger, who claims the highest epoch that there is.
	statement, err := verify.NewChannel(verify.Channel{
		Product: verify.DefaultProduct, Channel: "stable", Epoch: 1<<53 - 1, Sequence: 1, Release: 1, Manifest: a[1].Digest, Lowest: 1,
		Issued: verify.FormatTime(time.Now()), Expires: verify.FormatTime(time.Now().Add(time.Hour)),
	})
	if err != nil {
		t.Fatal(err)
	}
	strange, err := ownSigner(t).Sign(ctx, statement)
	if err != nil {
		t.Fatal(err)
	}
	for name, show := range map[string]struct {
		put  func()
		want string
	}{
		"a stranger's": {func() { put(t, store, strange) }, "does not verify"},
		"older":        {func() { put(t, store, old) }, "sequence 1, and 2 was published"},
		"another":      {func() { put(t, store, other) }, "something else under sequence 2"},
		"none":         {untag, "what stands in its place"},
		"no channel": {func() {
			put(t, store, []byte(`{"mediaType":"`+oras.TypeBundle+`"}`))
		}, "what stands in its place is none"},
	} {
		for _, first := range []bool{false, true} {
			show.put()
			p.First = first
			_, err := PublishChannel(ctx, store, a[4].Digest, p)
			if !errors.Is(err, ErrChannel) || !strings.Contains(err.Error(), show.want) || !strings.Contains(err.Error(), "--epoch above 1") || !strings.Contains(err.Error(), memory) {
				t.Errorf("%s, first %v: %v", name, first, err)
			}
		}
		p.First, p.Epoch = false, 1 // the same is not higher
		if _, err := PublishChannel(ctx, store, a[4].Digest, p); !errors.Is(err, ErrChannel) || !strings.Contains(err.Error(), show.want) {
			t.Errorf("%s, the same epoch: %v", name, err)
		}
		p.Epoch = 0
		// A higher epoch carries on what is remembered, not what is shown.
		show.put()
		p.First = false
		into := p
		into.Epoch = 2
		into.Memory = filepath.Join(t.TempDir(), "copy")
		text, err := os.ReadFile(memory)
		if err == nil {
			err = os.WriteFile(into.Memory, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if r := publish(t, store, a[4], into); r.Epoch != 2 || r.Sequence != 1 || r.Revocations != 1 {
			t.Errorf("%s, higher epoch: %+v", name, r)
		}
	}

	// Without a memory a replay cannot be told: what it costs is the revocation.
	put(t, store, old)
	blind := plan(me)
	if r := publish(t, store, a[4], blind); r.Sequence != 2 || r.Revocations != 0 {
		t.Errorf("without a memory: %+v", r)
	}

	// What is newer than the memory is gone on from, and remembered.
	put(t, store, newest)
	if r := publish(t, store, a[3], blind); r.Sequence != 3 {
		t.Errorf("another machine: %+v", r)
	}
	if r := publish(t, store, a[4], p); r.Sequence != 4 || r.Revocations != 1 {
		t.Errorf("after another machine: %+v", r)
	}
	put(t, store, newest)
	if _, err := PublishChannel(ctx, store, a[4].Digest, p); !errors.Is(err, ErrChannel) || !strings.Contains(err.Error(), "sequence 2, and 4 was published") {
		t.Errorf("%v", err)
	}

	// A publisher that was overtaken does not put back what it knew.
	if err := p.remember(old); err != nil {
		t.Fatal(err)
	}
	if c, err := p.remembered(); err != nil || c.Sequence != 4 {
		t.Errorf("%+v, %v", c, err)
	}

	if err := os.WriteFile(memory, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := PublishChannel(ctx, store, a[4].Digest, p); !errors.Is(err, ErrMemory) || !strings.Contains(err.Error(), memory) {
		t.Errorf("damaged memory: %v", err)
	}
}

// Whom a keyless signer signs as is known after it signed; the memory holds
// all the same.
func TestKeylessPublisherIsNotLedBack(t *testing.T) {
	ctx := context.Background()
	store, a := shelf(t, ownSigner(t))
	sigstore := signtest.New(t)
	services, err := sign.LoadServices(sigstore.SigningConfig, sigstore.TrustedRoot, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	signer := func(san string) *sign.Signer {
		s, err := sign.Keyless(sign.TokenText(sigstore.Token("https://token.actions.githubusercontent.com", "https://github.com/o/r/.github/workflows/"+san+".yml@refs/heads/main")), services)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	p := plan(signer("train"))
	p.Memory, p.First = filepath.Join(t.TempDir(), "memory"), true
	publish(t, store, a[1], p)
	old, _, err := oras.GetChannel(ctx, store, "stable")
	if err != nil {
		t.Fatal(err)
	}
	p.First = false
	publish(t, store, a[2], p)
	put(t, store, old)
	if _, err := PublishChannel(ctx, store, a[2].Digest, p); !errors.Is(err, ErrChannel) || !strings.Contains(err.Error(), "sequence 1, and 2 was published") {
		t.Errorf("%v", err)
	}
	// A stranger's channel that claims to go on is found out only after signing.
	forged := plan(signer("other"))
	forged.First, forged.Epoch = true, 1
	forged.Memory = ""
	publish(t, store, a[3], forged)
	forged.First = false
	for range 3 {
		publish(t, store, a[3], forged)
	}
	for _, epoch := range []int64{0, 2} {
		q := p
		q.Epoch = epoch
		if _, err := PublishChannel(ctx, store, a[3].Digest, q); !errors.Is(err, ErrChannel) {
			t.Errorf("a stranger's, epoch %d: %v", epoch, err)
		}
	}
	p.First, p.Epoch = true, 2
	if r := publish(t, store, a[3], p); r.Epoch != 2 || r.Sequence != 1 {
		t.Errorf("%+v", r)
	}
}

func TestGoesBack(t *testing.T) {
	known := verify.Channel{Product: "shop", Epoch: 2, Sequence: 5, Release: 7, Manifest: canon.Sum([]byte("7")), Lowest: 3}
	known.Revocations = append(known.Revocations, []byte(`{"a":1}`))
	for name, c := range map[string]struct {
		change func(c *verify.Channel)
		back   bool
	}{
		"the same":                     {func(*verify.Channel) {}, false},
		"the next":                     {func(c *verify.Channel) { c.Sequence++ }, false},
		"newer release":                {func(c *verify.Channel) { c.Sequence++; c.Release++; c.Manifest = canon.Digest{} }, false},
		"epoch rises":                  {func(c *verify.Channel) { *c = verify.Channel{Product: "shop", Epoch: 3, Sequence: 1} }, false},
		"one more revoked":             {func(c *verify.Channel) { c.Sequence++; c.Revocations = append(c.Revocations[:1:1], []byte(`{}`)) }, false},
		"product":                      {func(c *verify.Channel) { c.Sequence++; c.Product = "x" }, true},
		"epoch":                        {func(c *verify.Channel) { c.Epoch-- }, true},
		"sequence":                     {func(c *verify.Channel) { c.Sequence-- }, true},
		"release":                      {func(c *verify.Channel) { c.Sequence++; c.Release-- }, true},
		"lowest":                       {func(c *verify.Channel) { c.Sequence++; c.Lowest-- }, true},
		"digest":                       {func(c *verify.Channel) { c.Sequence++; c.Manifest = canon.Digest{} }, true},
		"revocation gone":              {func(c *verify.Channel) { c.Sequence++; c.Revocations = nil }, true},
		"revocation other":             {func(c *verify.Channel) { c.Sequence++; c.Revocations = append(c.Revocations[:0:0], []byte(`{}`)) }, true},
		"same sequence, other release": {func(c *verify.Channel) { c.Release++ }, true},
		"same sequence, other lowest":  {func(c *verify.Channel) { c.Lowest++ }, true},
		"same sequence, one more":      {func(c *verify.Channel) { c.Revocations = append(c.Revocations[:1:1], []byte(`{}`)) }, true},
	} {
		next := known
		c.change(&next)
		if back := goesBack(&next, &known); (back != "") != c.back {
			t.Errorf("%s: %q", name, back)
		}
	}
	if a, b := MemoryFile("d", oras.Ref{Repository: "a/b", Tag: "x"}, "stable"), MemoryFile("d", oras.Ref{Repository: "a/b"}, "stable"); a != b || a == MemoryFile("d", oras.Ref{Repository: "a/c"}, "stable") || a == MemoryFile("d", oras.Ref{Repository: "a/b"}, "beta") {
		t.Error(fmt.Sprint(a, b))
	}
}
