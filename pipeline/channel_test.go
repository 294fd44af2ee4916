package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/internal/sign"
	"github.com/battle-hardened-ai/bhtrain/internal/sign/signtest"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// ownSigner makes a key in a home of its own.
func ownSigner(t *testing.T) *sign.Signer {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	s, err := sign.DefaultKey("")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pack is a release of no use, with a provenance that p would make.
func pack(t *testing.T, number int64) *oras.Artifact {
	t.Helper()
	var models []oras.File
	for _, name := range oras.ModelFiles {
		models = append(models, oras.File{Name: name, Data: fmt.Appendf(nil, "%s %d", name, number)})
	}
	empty := jsontext.Value(`{}`)
	a, err := oras.Pack(oras.Release{Product: "shop", Number: number, Dataset: canon.Sum([]byte("d")), Recipe: empty, Features: empty, Scoring: empty, Metrics: empty}, models)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func provenanceOf(t *testing.T, a *oras.Artifact, name string) verify.Statement {
	t.Helper()
	st, err := verify.NewProvenance(name, a.Digest, verify.Provenance{
		BuildDefinition: verify.BuildDefinition{
			BuildType:          verify.BuildTypeTrain,
			ExternalParameters: verify.Parameters{Product: a.Release.Product, Release: a.Release.Number, Recipe: a.Release.Recipe},
			ResolvedDependencies: []verify.Resource{
				{Name: verify.DependencyDataset, Digest: verify.Digests(a.Release.Dataset)},
				{Name: verify.DependencyInput + "x.csv", Digest: verify.Digests(canon.Sum([]byte("x"))), Annotations: map[string]any{"size": "1", "source": "attacks"}},
			},
		},
		RunDetails: verify.RunDetails{Builder: verify.Builder{ID: LocalBuilder}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// shelf is a store with releases 1 to 4, signed.
func shelf(t *testing.T, signer *sign.Signer) (oras.Store, []*oras.Artifact) {
	t.Helper()
	ctx := context.Background()
	store, err := oras.Open(ctx, oras.Ref{Layout: filepath.Join(t.TempDir(), "shelf")}, oras.Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	return store, fill(t, store, signer)
}

func fill(t *testing.T, store oras.Store, signer *sign.Signer) []*oras.Artifact {
	t.Helper()
	ctx := context.Background()
	list := []*oras.Artifact{nil}
	for n := int64(1); n <= 4; n++ {
		a := pack(t, n)
		if err := oras.Push(ctx, store, a); err != nil {
			t.Fatal(err)
		}
		bundle, err := signer.Sign(ctx, provenanceOf(t, a, "shop"))
		if err != nil {
			t.Fatal(err)
		}
		if err := attach(ctx, store, a.Descriptor(), bundle, verify.PredicateProvenance, oras.ProvenanceTag(a.Digest)); err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	return list
}

func plan(signer *sign.Signer) ChannelPlan {
	return ChannelPlan{Name: "stable", Lifetime: time.Hour, Signer: signer}
}

func publish(t *testing.T, store oras.Store, a *oras.Artifact, p ChannelPlan) *ChannelReport {
	t.Helper()
	r, err := PublishChannel(context.Background(), store, a.Digest, p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// standing is the channel in the store, whoever signed it.
func standing(t *testing.T, store oras.Store) *verify.Channel {
	t.Helper()
	b, _, err := oras.GetChannel(context.Background(), store, "stable")
	if err != nil {
		t.Fatal(err)
	}
	c, err := channelIn(b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestChannelGoesOnFromTheOneBefore(t *testing.T) {
	me := ownSigner(t)
	store, a := shelf(t, me)
	first := plan(me)
	first.First = true
	if r := publish(t, store, a[2], first); r.Epoch != 1 || r.Sequence != 1 || r.Release != 2 || r.Lowest != 1 || !r.Verdict.Pass() {
		t.Errorf("first: %+v", r)
	}
	if r := publish(t, store, a[2], plan(me)); r.Sequence != 2 { // re-signed on schedule
		t.Errorf("again: %+v", r)
	}
	bundle, _, err := Revoke(context.Background(), store, a[1].Digest, "it lets everything through", me)
	if err != nil {
		t.Fatal(err)
	}
	with := plan(me)
	with.Revocations, with.Lowest = [][]byte{bundle}, 2
	if r := publish(t, store, a[3], with); r.Sequence != 3 || r.Release != 3 || r.Lowest != 2 || r.Revocations != 1 {
		t.Errorf("with a revocation: %+v", r)
	}
	if r := publish(t, store, a[4], with); r.Sequence != 4 || r.Revocations != 1 {
		t.Errorf("the same revocation again: %+v", r)
	}
	with.Revocations, with.Lowest = nil, 0
	r := publish(t, store, a[4], with)
	if c := standing(t, store); r.Sequence != 5 || c.Lowest != 2 || len(c.Revocations) != 1 || !bytes.Equal(c.Revocations[0], must(canon.Canonicalize(bundle))) || c.Sequence != 5 || c.Manifest != a[4].Digest {
		t.Errorf("nothing was carried over: %+v", c)
	}
	with.Epoch = 2
	if r := publish(t, store, a[2], with); r.Epoch != 2 || r.Sequence != 1 || r.Revocations != 1 {
		t.Errorf("a new epoch: %+v", r)
	}
}

func TestChannelThatAgentsWouldRefuseIsNotPublished(t *testing.T) {
	ctx := context.Background()
	me := ownSigner(t)
	other := ownSigner(t)
	store, a := shelf(t, me)
	bundle, _, err := Revoke(ctx, store, a[4].Digest, "bad", me)
	if err != nil {
		t.Fatal(err)
	}
	foreign, _, err := Revoke(ctx, store, a[4].Digest, "bad", me)
	if err != nil {
		t.Fatal(err)
	}
	p := plan(me)
	p.First, p.Lowest, p.Revocations = true, 2, [][]byte{bundle}
	publish(t, store, a[3], p)
	at := standing(t, store)
	policy := func(change func(p *verify.Policy)) *verify.Policy {
		id := []verify.Identity{{Name: "me", Key: me.Key()}}
		q := verify.Policy{Product: "shop", Publishers: id, Revokers: id, Channel: &verify.ChannelPolicy{Name: "stable", Epoch: 1, Signers: id}}
		change(&q)
		return &q
	}
	for name, c := range map[string]struct {
		release int
		change  func(p *ChannelPlan)
		want    string
	}{
		"older release":             {2, func(*ChannelPlan) {}, "refuse to go back"},
		"lowest falls":              {3, func(p *ChannelPlan) { p.Lowest = 1 }, "never falls"},
		"lowest above the release":  {3, func(p *ChannelPlan) { p.Lowest = 4 }, "lowest release 4"},
		"revoked release":           {4, func(*ChannelPlan) {}, "is revoked"},
		"first, but there is one":   {3, func(p *ChannelPlan) { p.First = true }, "leave --first out"},
		"epoch falls":               {3, func(p *ChannelPlan) { p.Epoch = -1 }, "below"},
		"somebody else's channel":   {3, func(p *ChannelPlan) { p.Signer = other }, "does not verify (channel.signature: "},
		"no name":                   {3, func(p *ChannelPlan) { p.Name = "A/b" }, "channel name"},
		"no lifetime":               {3, func(p *ChannelPlan) { p.Lifetime = 0 }, "expires"},
		"what is no revocation":     {3, func(p *ChannelPlan) { p.Revocations = [][]byte{[]byte(`{}`)} }, "revocation 1"},
		"policy of another channel": {3, func(p *ChannelPlan) { p.Policy = policy(func(q *verify.Policy) { q.Channel.Name = "x" }) }, "names no channel"},
		"policy with another signer": {3, func(p *ChannelPlan) {
			p.Policy = policy(func(q *verify.Policy) { q.Channel.Signers[0].Key = other.Key() })
		}, "does not verify (channel.signature: "},
		"signer whom the policy does not name": {3, func(p *ChannelPlan) {
			p.Policy, p.Signer = policy(func(*verify.Policy) {}), other
		}, "channel signers: me"},
		"policy of another epoch": {3, func(p *ChannelPlan) { p.Policy = policy(func(q *verify.Policy) {}); p.Epoch = 2 }, "channel.epoch"},
		"policy that refuses it":  {3, func(p *ChannelPlan) { p.Policy = policy(func(q *verify.Policy) { q.MinRelease = 9 }) }, "policy refuses release 3"},
	} {
		p := plan(me)
		c.change(&p)
		_, err := PublishChannel(ctx, store, a[c.release].Digest, p)
		if !errors.Is(err, ErrChannel) && !errors.Is(err, ErrOwnResult) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if now := standing(t, store); now.Sequence != at.Sequence {
			t.Errorf("%s: it was published", name)
		}
	}
	good := plan(me)
	good.Policy = policy(func(*verify.Policy) {})
	good.Revocations = [][]byte{foreign}
	if r := publish(t, store, a[3], good); r.Sequence != at.Sequence+1 {
		t.Errorf("with a policy: %+v", r)
	}
}

func TestMissingOrUnverifiableChannelNeedsFirstOrAHigherEpoch(t *testing.T) {
	ctx := context.Background()
	me, other := ownSigner(t), ownSigner(t)
	forge := func(epoch int64) func(t *testing.T, store oras.Store, a []*oras.Artifact) {
		return func(t *testing.T, store oras.Store, a []*oras.Artifact) {
			p := plan(other)
			p.First, p.Epoch = true, epoch
			publish(t, store, a[4], p)
		}
	}
	for name, c := range map[string]struct {
		make   func(t *testing.T, store oras.Store, a []*oras.Artifact)
		claims int64
	}{
		"missing": {func(*testing.T, oras.Store, []*oras.Artifact) {}, 1},
		"forged":  {forge(1), 1},
		"ahead":   {forge(7), 7},
		"no channel": {func(t *testing.T, store oras.Store, a []*oras.Artifact) {
			put(t, store, []byte(`{"mediaType":"`+oras.TypeBundle+`"}`))
		}, 1},
		"an artifact": {func(t *testing.T, store oras.Store, a []*oras.Artifact) {
			if err := store.Tag(ctx, oras.ChannelTag("stable"), a[1].Descriptor()); err != nil {
				t.Fatal(err)
			}
		}, 1},
	} {
		fresh := func() (oras.Store, []*oras.Artifact) {
			store, a := shelf(t, me)
			c.make(t, store, a)
			return store, a
		}
		store, a := fresh()
		p := plan(me)
		for _, epoch := range []int64{0, c.claims} {
			p.Epoch = epoch
			if _, err := PublishChannel(ctx, store, a[2].Digest, p); !errors.Is(err, ErrChannel) || !strings.Contains(err.Error(), "--first") {
				t.Errorf("%s, epoch %d: %v", name, epoch, err)
			}
		}
		p.Epoch = c.claims + 1
		if r := publish(t, store, a[2], p); r.Epoch != c.claims+1 || r.Sequence != 1 {
			t.Errorf("%s, higher epoch: %+v", name, r)
		}
		store, a = fresh()
		p = plan(me)
		p.First = true
		if r := publish(t, store, a[2], p); r.Sequence != 1 {
			t.Errorf("%s, first: %+v", name, r)
		}
	}
}

func put(t *testing.T, store oras.Store, bundle []byte) {
	t.Helper()
	if _, err := oras.PutChannel(context.Background(), store, "stable", bundle); err != nil {
		t.Fatal(err)
	}
}

func TestCurrentReleaseCanBeRevokedAndStaysCurrent(t *testing.T) {
	ctx := context.Background()
	me := ownSigner(t)
	store, a := shelf(t, me)
	p := plan(me)
	p.First = true
	publish(t, store, a[2], p)
	bundle, said, err := Revoke(ctx, store, a[2].Digest, "stolen key", me)
	if err != nil || said.Release != 2 {
		t.Fatal(err)
	}
	p = plan(me)
	p.Revocations = [][]byte{bundle}
	r, err := PublishChannel(ctx, store, canon.Digest{}, p)
	if err != nil || r.Release != 2 || len(r.Verdict.Revoked) != 1 || !r.Verdict.Revoked[0].Binding || r.Verdict.Revoked[0].Reason != "stolen key" {
		t.Fatalf("%+v, %v", r, err)
	}
	p.Revocations = nil
	if r := publish(t, store, a[2], p); r.Sequence != 3 || r.Revocations != 1 { // a schedule goes on
		t.Errorf("%+v", r)
	}
	if _, _, err := Revoke(ctx, store, a[2].Digest, "", me); !errors.Is(err, verify.ErrStatement) {
		t.Errorf("no reason: %v", err)
	}
	empty, _ := shelf(t, me)
	if _, err := PublishChannel(ctx, empty, canon.Digest{}, ChannelPlan{Name: "stable", Lifetime: time.Hour, Signer: me, First: true}); !errors.Is(err, ErrChannel) {
		t.Errorf("no release at all: %v", err)
	}
}

// Publishers at once, in a layout and in a registry: each publication has a
// sequence of its own, and no revocation is lost.
func TestPublishersAtOnceLoseNothing(t *testing.T) {
	ctx := context.Background()
	me := ownSigner(t)
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	remote := oras.Ref{Repository: strings.TrimPrefix(srv.URL, "http://") + "/models/web"}
	for name, ref := range map[string]oras.Ref{"layout": {Layout: filepath.Join(t.TempDir(), "l")}, "registry": remote} {
		store, err := oras.Open(ctx, ref, oras.Options{Write: true, Anonymous: true})
		if err != nil {
			t.Fatal(err)
		}
		a := fill(t, store, me)
		p := plan(me)
		p.First = true
		publish(t, store, a[4], p)
		const publishers = 3
		var wg sync.WaitGroup
		for i := range publishers {
			wg.Go(func() {
				own, err := oras.Open(ctx, ref, oras.Options{Write: true, Anonymous: true})
				if err != nil {
					t.Error(err)
					return
				}
				bundle, _, err := Revoke(ctx, own, a[i+1].Digest, "bad", me)
				if err != nil {
					t.Error(err)
					return
				}
				p := plan(me)
				p.Revocations = [][]byte{bundle}
				if _, err := PublishChannel(ctx, own, a[4].Digest, p); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
		if c := standing(t, store); len(c.Revocations) != publishers || c.Sequence < publishers+1 {
			t.Errorf("%s: %d revocations of %d, sequence %d", name, len(c.Revocations), publishers, c.Sequence)
		}
	}
}

func TestKeylessChannelGoesOnFromItsOwnIdentityOrThePolicys(t *testing.T) {
	ctx := context.Background()
	store, a := shelf(t, ownSigner(t))
	sigstore := signtest.New(t)
	const issuer, san = "https://token.actions.githubusercontent.com", "https://github.com/o/r/.github/workflows/train.yml@refs/heads/main"
	services, err := sign.LoadServices(sigstore.SigningConfig, sigstore.TrustedRoot, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	signer := func(san string) *sign.Signer {
		s, err := sign.Keyless(sign.TokenText(sigstore.Token(issuer, san)), services)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	me := signer(san)
	p := plan(me)
	p.First = true
	if r := publish(t, store, a[2], p); !r.Verdict.Pass() || r.Verdict.Time == "" {
		t.Errorf("first: %+v", r)
	}
	if _, err := SignRelease(ctx, store, a[2].Digest, SignPlan{Signer: me}); !errors.Is(err, ErrUnproven) {
		t.Errorf("whose provenance to believe is not said: %v", err)
	}
	text, err := provenanceOf(t, a[2], "shop").Encode()
	if err != nil {
		t.Fatal(err)
	}
	if s, err := SignRelease(ctx, store, a[2].Digest, SignPlan{Provenance: text, Signer: me}); err != nil || !strings.Contains(s.Signer, san) || s.Inputs != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	p = plan(me)
	if r := publish(t, store, a[2], p); r.Sequence != 2 || r.Epoch != 1 {
		t.Errorf("again: %+v", r)
	}
	stranger := signer(strings.Replace(san, "train", "other", 1))
	for name, c := range map[string]struct {
		signer *sign.Signer
		first  bool
		epoch  int64
		want   string
	}{
		"first, but there is one":             {me, true, 0, "leave --first out"},
		"another workflow":                    {stranger, false, 0, "does not verify"},
		"another workflow, same epoch":        {stranger, false, 1, "does not verify"},
		"another workflow, carrying it along": {stranger, false, 2, "--first"},
	} {
		if _, err := PublishChannel(ctx, store, a[2].Digest, ChannelPlan{Name: "stable", Lifetime: time.Hour, Signer: c.signer, First: c.first, Epoch: c.epoch}); !errors.Is(err, ErrChannel) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if c := standing(t, store); c.Sequence != 2 {
			t.Fatalf("%s: it was published", name)
		}
	}
	id := []verify.Identity{{Name: "CI", Certificate: &verify.CertificateIdentity{Issuer: issuer, SAN: san}}}
	policy := verify.Policy{Product: "shop", Publishers: id, Revokers: id, Channel: &verify.ChannelPolicy{Name: "stable", Epoch: 1, Signers: id}}
	services.Demand(&policy)
	p.Policy = &policy
	if r := publish(t, store, a[2], p); r.Sequence != 3 {
		t.Errorf("with a policy: %+v", r)
	}
	p.Signer = stranger
	if _, err := PublishChannel(ctx, store, a[2].Digest, p); !errors.Is(err, ErrOwnResult) {
		t.Errorf("another workflow: %v", err)
	}
	again := ChannelPlan{Name: "stable", Lifetime: time.Hour, Signer: stranger, First: true, Epoch: 2}
	if r := publish(t, store, a[2], again); r.Epoch != 2 || r.Sequence != 1 {
		t.Errorf("another workflow in a new epoch: %+v", r)
	}
}

func TestKeyWithServicesDemandsThemOfItsOwnChannel(t *testing.T) {
	ctx := context.Background()
	plainKey := ownSigner(t)
	store, a := shelf(t, plainKey)
	sigstore := signtest.New(t)
	services, err := sign.LoadServices(sigstore.Config("timestamps", "log"), sigstore.TrustedRoot, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p := plan(plainKey)
	p.First = true
	publish(t, store, a[1], p)
	p = plan(plainKey.With(services)) // from now on with services
	if r := publish(t, store, a[2], p); r.Sequence != 2 || r.Verdict.Time == "" {
		t.Errorf("%+v", r)
	}
	if s, err := SignRelease(ctx, store, a[2].Digest, SignPlan{Signer: p.Signer}); err != nil {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestSignReleaseSignsOnlyWhatFits(t *testing.T) {
	ctx := context.Background()
	me, other := ownSigner(t), ownSigner(t)
	store, a := shelf(t, me)
	s, err := SignRelease(ctx, store, a[1].Digest, SignPlan{Signer: me}) // again, say with timestamps
	if err != nil || s.Tag != oras.ProvenanceTag(a[1].Digest) || s.Subject != a[1].Digest {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := SignRelease(ctx, store, a[1].Digest, SignPlan{Signer: other}); !errors.Is(err, ErrUnproven) {
		t.Errorf("signed with a key that nobody named: %v", err)
	}
	theirs := verify.Policy{Product: "shop", Publishers: []verify.Identity{{Name: "me", Key: me.Key()}}}
	if _, err := SignRelease(ctx, store, a[1].Digest, SignPlan{Signer: other, Policy: &theirs}); err != nil {
		t.Errorf("signed with a key of the policy: %v", err)
	}
	list, err := oras.Bundles(ctx, store, a[1].Digest, oras.ProvenanceTag(a[1].Digest))
	if err != nil || len(list.Bundles) != 3 {
		t.Errorf("%d bundles, %v", len(list.Bundles), err)
	}
	v, err := verify.New(verify.Policy{Product: "shop", Publishers: []verify.Identity{{Name: "other", Key: other.Key()}}})
	if err != nil {
		t.Fatal(err)
	}
	if verdict, _, err := v.Release(ctx, store, a[1].Digest, time.Now(), verify.Options{}); err != nil || !verdict.Pass() {
		t.Errorf("the second signer's statement does not verify: %v", err)
	}
	for name, text := range map[string][]byte{"of another release": must(provenanceOf(t, a[2], "shop").Encode()), "no statement": []byte("{}")} {
		if _, err := SignRelease(ctx, store, a[1].Digest, SignPlan{Signer: me, Provenance: text}); !errors.Is(err, verify.ErrStatement) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list, err := oras.Bundles(ctx, store, a[1].Digest); err != nil || len(list.Bundles) != 3 {
		t.Errorf("something was stored: %d, %v", len(list.Bundles), err)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestPushedChannelNeverReplacesANewerOne(t *testing.T) {
	ctx := context.Background()
	me := ownSigner(t)
	from := oras.Ref{Layout: filepath.Join(t.TempDir(), "from")}
	to := oras.Ref{Layout: filepath.Join(t.TempDir(), "to")}
	src, err := oras.Open(ctx, from, oras.Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	a := fill(t, src, me)
	p := plan(me)
	p.First = true
	publish(t, src, a[3], p)
	dst, err := oras.Open(ctx, to, oras.Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	copied := func(n int) error { return copyChannel(ctx, dst, src, "stable", a[n].Digest) }
	if err := copied(2); !errors.Is(err, ErrChannel) || !strings.Contains(err.Error(), "as current") {
		t.Errorf("a channel that names another release: %v", err)
	}
	for range 2 { // the second time it is there already
		if err := copied(3); err != nil {
			t.Fatal(err)
		}
	}
	old, _, err := oras.GetChannel(ctx, src, "stable")
	if err != nil {
		t.Fatal(err)
	}
	publish(t, src, a[3], plan(me))
	if err := copied(3); err != nil || standing(t, dst).Sequence != 2 {
		t.Errorf("a newer one: %v", err)
	}
	put(t, src, old)
	if err := copied(3); !errors.Is(err, ErrChannel) || !strings.Contains(err.Error(), "not newer") || standing(t, dst).Sequence != 2 {
		t.Errorf("an older one: %v", err)
	}
	if err := copyChannel(ctx, dst, src, "other", a[3].Digest); !errors.Is(err, oras.ErrNotFound) {
		t.Errorf("no such channel: %v", err)
	}
}
