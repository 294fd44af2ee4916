package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/internal/durable/faultfs"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

var update = flag.Bool("update", false, "rewrite golden files")

// withChannel makes o trust a channel "stable" of its own key.
func (o *operator) withChannel() {
	o.t.Helper()
	p := o.Policy()
	p.Channel = &verify.ChannelPolicy{Name: "stable", Epoch: 1, Signers: []verify.Identity{{Name: "me", Key: o.signer.Key()}}}
	var err error
	if o.Verifier, err = verify.New(p); err != nil {
		o.t.Fatal(err)
	}
}

// announce puts a channel statement that the release in a layout is current
// into that layout.
func (o *operator) announce(from oras.Ref, sequence, number int64, issued time.Time, valid time.Duration) {
	o.t.Helper()
	ctx := context.Background()
	must := func(err error) {
		o.t.Helper()
		if err != nil {
			o.t.Fatal(err)
		}
	}
	store, err := oras.Open(ctx, from, oras.Options{Write: true})
	must(err)
	d, err := store.Resolve(ctx, oras.TagLatest)
	must(err)
	statement, err := verify.NewChannel(verify.Channel{
		Product: verify.DefaultProduct, Channel: "stable", Epoch: 1, Sequence: sequence, Release: number, Manifest: d.Digest, Lowest: 1,
		Issued: verify.FormatTime(issued), Expires: verify.FormatTime(issued.Add(valid)),
	})
	must(err)
	bundle, err := o.signer.Sign(ctx, statement)
	must(err)
	_, err = oras.PutChannel(ctx, store, "stable", bundle)
	must(err)
}

// agentOn returns an agent whose state directory is on a file system in memory.
func agentOn(fs *faultfs.FS) *Agent {
	return &Agent{dir: "state", fs: fs, tryLock: func(string) (func(), error) { return func() {}, nil }}
}

// Attack 25, and what else can go wrong with a disk: each file operation of an
// installation fails in every way. After the process, or the machine, has started
// again the old release or the new is in use, whole, and the next sync ends with
// the new one.
func TestAttack25_EveryFaultLeavesOneWholeRelease(t *testing.T) {
	o := newOperator(t)
	o.withChannel()
	now := time.Now()
	old, next := o.publish(1), o.publish(2)
	o.announce(old, 1, 1, now, time.Hour)
	o.announce(next, 2, 2, now, time.Hour)
	ctx := context.Background()
	sync := func(fs *faultfs.FS, from oras.Ref) (*Synced, error) {
		return agentOn(fs).Sync(ctx, from, oras.Options{}, o.Verifier, "/etc/policy.yaml", now)
	}
	base := faultfs.New()
	if _, err := sync(base, old); err != nil {
		t.Fatal(err)
	}
	whole := base.Restart()
	if _, err := sync(whole, next); err != nil {
		t.Fatal(err)
	}
	trace := whole.Trace()
	golden(t, filepath.Join("testdata", "install.trace"), trace)
	step := 1
	if os.Getenv("BH_E2E") == "" {
		step = 7 // every operation is met by some flavour
	}
	tried := 0
	for k, flavour := range faultfs.Flavours {
		for n := 1 + k%step; n <= len(trace); n += step {
			fs := base.Restart()
			fs.Inject(n, flavour)
			_, failed := sync(fs, next)
			after := []*faultfs.FS{fs.Restart()}
			if flavour == faultfs.Kill || flavour == faultfs.Reported {
				after = append(after, fs.PowerLoss(0), fs.PowerLoss(uint64(n)))
			}
			for i, fs := range after {
				name := fmt.Sprintf("%s at operation %d (%s), start %d", flavour, n, trace[n-1], i)
				in, err := agentOn(fs).Status(ctx, o.Verifier, now)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				s, err := in.Scorer()
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if got := s.Release().Release.Number; got != 1 && got != 2 || failed == nil && got != 2 {
					t.Fatalf("%s: release %d is live, sync said %v", name, got, failed)
				}
				if _, err := sync(fs, next); err != nil {
					t.Fatalf("%s: the next sync: %v", name, err)
				}
				in, err = agentOn(fs).Status(ctx, o.Verifier, now)
				if err != nil || in.State != StateCurrent || in.Verdict.Number != 2 {
					t.Fatalf("%s: after the next sync: %+v, %v", name, in, err)
				}
				tried++
			}
		}
	}
	t.Logf("%d operations, %d starts", len(trace), tried)
}

// golden compares the changing part of a trace with a file.
func golden(t *testing.T, path string, trace []string) {
	t.Helper()
	seen := []string{}
	hex := regexp.MustCompile(`[0-9a-f]{64}`)
	var text strings.Builder
	for _, line := range trace {
		verb, _, _ := strings.Cut(line, " ")
		if slices.Contains([]string{"open", "read", "close", "lstat", "readdir"}, verb) {
			continue
		}
		line = hex.ReplaceAllStringFunc(line, func(s string) string {
			i := slices.Index(seen, s)
			if i < 0 {
				i, seen = len(seen), append(seen, s)
			}
			return fmt.Sprintf("D%d", i+1)
		})
		switch verb {
		case "write": // sizes change with every training
			line = line[:strings.LastIndexByte(line, ' ')]
		case "syncfile": // in the order of digests
			line = strings.TrimRight(line, "0123456789")
		}
		if text.Len() > 0 && strings.HasSuffix(text.String(), "\n"+line+"\n") {
			continue
		}
		text.WriteString(line + "\n")
	}
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != text.String() {
		t.Errorf("%s: the operations are others; -update rewrites it\n%s", path, text.String())
	}
}

// Attack 28: a clock that jumps.
func TestAttack28_WrongClockNeverLeadsBack(t *testing.T) {
	o := newOperator(t)
	o.withChannel()
	ctx := context.Background()
	now := time.Now()
	year := 365 * 24 * time.Hour
	old, next := o.publish(1), o.publish(2)
	o.announce(old, 1, 1, now, time.Hour)
	o.announce(next, 2, 2, now, time.Hour)
	sync := func(from oras.Ref, at time.Time) error {
		_, err := o.Sync(ctx, from, oras.Options{}, o.Verifier, "policy.yaml", at)
		return err
	}
	is := func(at time.Time, state State, number int64) {
		t.Helper()
		in, err := o.Status(ctx, o.Verifier, at)
		if err != nil {
			t.Fatal(err)
		}
		if in.State != state || in.Verdict.Number != number || !in.Loadable() {
			t.Errorf("at %s: %s (%s), release %d", at, in.State, in.Reason, in.Verdict.Number)
		}
	}
	if err := sync(next, now); err != nil {
		t.Fatal(err)
	}
	is(now, StateCurrent, 2)
	is(now.Add(-year), StateStale, 2)
	is(now.Add(year), StateStale, 2)
	for _, at := range []time.Time{now, now.Add(year)} {
		if err := sync(old, at); err == nil || !strings.Contains(err.Error(), verify.ChannelSequence) {
			t.Errorf("an older channel at %s: %v", at, err)
		}
	}
	// What expired does not become fresh by turning the clock back, and a clock
	// that was ahead leaves no trace.
	if err := sync(next, now.Add(year)); err == nil {
		t.Error("an expired channel")
	}
	for _, from := range []oras.Ref{old, next} {
		if err := sync(from, now.Add(-year)); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "something was signed at "+verify.FormatTime(now)) {
			t.Errorf("a clock that is behind: %v", err)
		}
	}
	if err := sync(next, now); err != nil {
		t.Error(err)
	}
	is(now, StateCurrent, 2)
}

// Attack 28: a clock that is behind the program that reads it.
func TestAttack28_ClockBeforeTheBuildIsRefused(t *testing.T) {
	for _, channel := range []bool{false, true} {
		o := newOperator(t)
		if channel {
			o.withChannel()
		}
		now := time.Now().Truncate(time.Second)
		old, next := o.publish(1), o.publish(2)
		// A statement from before the clock's time: nothing signed gives it away.
		o.announce(old, 1, 1, now.Add(-48*time.Hour), 72*time.Hour)
		o.announce(next, 2, 2, now.Add(-48*time.Hour), 72*time.Hour)
		o.mustSync(old)
		sync := func() error {
			_, err := o.Sync(context.Background(), next, oras.Options{}, o.Verifier, "policy.yaml", now)
			return err
		}
		o.Built = now.Add(maxSkew + time.Second)
		if err := sync(); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "committed at "+verify.FormatTime(o.Built)) {
			t.Errorf("before the build: %v", err)
		}
		in, err := o.Status(context.Background(), o.Verifier, now)
		if err != nil || in.State != StateStale || in.Verdict.Number != 1 || !in.Loadable() || !strings.Contains(in.Reason, "committed") {
			t.Errorf("status before the build: %+v, %v", in, err)
		}
		// The negative twins: within the skew, and where the build is not known.
		for _, built := range []time.Time{now.Add(maxSkew), {}} {
			o.Built = built
			if err := sync(); err != nil {
				t.Errorf("built %s: %v", built, err)
			}
		}
		if n := o.live(); n != 2 {
			t.Errorf("live is %d", n)
		}
		if st, err := o.readState(); err != nil || st.NewestTime.After(now) {
			t.Errorf("a build's time was kept as one that was signed: %s, %v", st.NewestTime, err)
		}
	}
}

// Attack 27: one installs at a time, and the other says so.
func TestAttack27_SecondInstallerIsToldToWait(t *testing.T) {
	o := newOperator(t)
	from := o.publish(3)
	o.mustSync(from)
	unlock, err := o.lock()
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.sync(from)
	unlock()
	if !errors.Is(err, durable.ErrLocked) {
		t.Errorf("while another installs: %v", err)
	}
	o.mustSync(from)
	unlock, err = o.Hold()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := Open(o.dir).Hold(); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("a second daemon: %v", err)
	}
	o.mustSync(from) // beside a daemon
}

// What was accepted while the policy named no channel is the floor of the first
// channel that it names.
func TestFirstChannelDoesNotLeadBack(t *testing.T) {
	o := newOperator(t)
	now := time.Now()
	old, next := o.publish(1), o.publish(2)
	other := o.resign(next, func(_ *oras.Release, models []oras.File) {
		models[0].Data, models[1].Data = models[1].Data, models[0].Data
	})
	o.mustSync(next)
	o.withChannel()
	o.announce(old, 7, 1, now, time.Hour)
	o.announce(other, 7, 2, now, time.Hour)
	for name, from := range map[string]oras.Ref{"an older release": old, "another one with the number": other} {
		s, err := o.sync(from)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), verify.ChannelRelease) || s == nil || s.Installed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st, err := o.readState(); err != nil || len(st.Channels) != 0 || st.Number != 2 {
		t.Errorf("a channel that was refused left %+v, %v", st.Channels, err)
	}
	// The same release, then a newer one; and without the floor the older would go in.
	o.announce(next, 7, 2, now, time.Hour)
	o.mustSync(next)
	newer := o.publish(3)
	o.announce(newer, 8, 3, now, time.Hour)
	o.mustSync(newer)
	if n := o.live(); n != 3 {
		t.Errorf("live is %d", n)
	}
	fresh := &operator{t: t, signer: o.signer, Verifier: o.Verifier, Agent: Open(filepath.Join(t.TempDir(), "state"))}
	fresh.mustSync(old)
	if n := fresh.live(); n != 1 {
		t.Errorf("where nothing was accepted, live is %d", n)
	}
}
