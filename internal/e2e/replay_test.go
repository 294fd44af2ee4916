package e2e

import (
	"context"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/battle-hardened-ai/bhtrain/oras"
)

// A registry that shows the publisher an older channel is found out by what the
// publisher remembers, and only by that.
func TestAttack02_ChannelReplayedToThePublisher(t *testing.T) {
	if testing.Short() {
		t.Skip("trains")
	}
	ctx := context.Background()
	u := newUser(t)
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	repository := strings.TrimPrefix(srv.URL, "http://") + "/models/web"
	store, err := oras.Open(ctx, oras.Ref{Repository: repository}, oras.Options{Write: true, Anonymous: true})
	if err != nil {
		t.Fatal(err)
	}
	u.must("bhtrain", "run", "-q", "--out", "dist")
	u.must("bhtrain", "push", "dist", repository)
	u.must("bhtrain", "channel", repository, "--channel", "stable", "--first")
	old, _, err := oras.GetChannel(ctx, store, "stable")
	if err != nil {
		t.Fatal(err)
	}
	u.must("bhtrain", "revoke", repository, "--channel", "stable", "--reason", "poisoned")
	replay := func() {
		t.Helper()
		if _, err := oras.PutChannel(ctx, store, "stable", old); err != nil {
			t.Fatal(err)
		}
	}
	replay()
	u.fails(3, "sequence 1, and 2 was published", "bhtrain", "channel", repository, "--channel", "stable")
	u.fails(3, "sequence 1, and 2 was published", "bhtrain", "revoke", repository, "--channel", "stable", "--reason", "poisoned")
	kept, err := filepath.Glob(filepath.Join(u.home, ".local", "state", "bhtrain", "channel-stable-*.sigstore.json"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("%v, %v", kept, err)
	}
	if out := u.must("bhtrain", "channel", repository, "--channel", "stable", "--epoch", "2"); !strings.Contains(out, "epoch 2, sequence 1") || !strings.Contains(out, "poisoned") {
		t.Errorf("the higher epoch forgot what was revoked:\n%s", out)
	}
	// Who remembers nothing goes on from what is shown.
	replay()
	if out := u.must("bhtrain", "channel", repository, "--channel", "stable", "--state", "elsewhere"); !strings.Contains(out, "epoch 1, sequence 2") || strings.Contains(out, "poisoned") {
		t.Errorf("%s", out)
	}
	if err := os.WriteFile(kept[0], []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.fails(5, kept[0], "bhtrain", "channel", repository, "--channel", "stable")
}
