//go:build unix

package e2e

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestAgentKilledAtAnyInstant kills syncs with SIGKILL at random instants, BH_KILLS
// times or 20. The old release or the new is in use afterwards, and another
// sync ends with the new one. Row 25 of the threats; the agent's own tests do it
// at each file operation.
func TestAgentKilledAtAnyInstant(t *testing.T) {
	f := newFleet(t)
	f.publish(1)
	start := time.Now()
	f.sync()
	took := time.Since(start)
	f.publish(2)
	kills := 20
	if n, err := strconv.Atoi(os.Getenv("BH_KILLS")); err == nil {
		kills = n
	}
	cut := 0
	for i := range kills {
		dir := filepath.Join(f.dir, "copy"+strconv.Itoa(i))
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(f.dir, "state"))); err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{dir, filepath.Join(dir, "releases"), filepath.Join(dir, "channels")} {
			if err := os.Chmod(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		args := []string{"sync", "--state", dir, "--policy", "policy.yaml", "--from", "repo"}
		cmd := exec.Command(filepath.Join(bin, "bhagent"), args...)
		cmd.Dir = f.dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(took))))
		cmd.Process.Kill()
		if cmd.Wait() != nil {
			cut++
		}
		r := f.run([]byte(`{"details":"GET /"}`), "bhagent", "score", "--state", dir)
		if r.code != 0 {
			t.Fatalf("kill %d: %s%s", i, r.out, r.err)
		}
		f.must("bhagent", args...)
		if r := f.run(nil, "bhagent", "status", "--state", dir); r.code != 0 {
			t.Fatalf("kill %d: after another sync: %s%s", i, r.out, r.err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if cut == 0 {
		t.Error("no sync was killed before its end")
	}
	t.Logf("%d kills, %d before the end", kills, cut)
}
