package testkit

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// NodeModules returns the folder of the packages that BH_NODE names, those of
// internal/interop/package.json. Without them, or without node, the test is
// skipped, or fails when BH_REQUIRE=all.
func NodeModules(t testing.TB) string {
	t.Helper()
	folder := os.Getenv("BH_NODE")
	if folder == "" {
		Missing(t, "the programs to compare with are not here (set BH_NODE to the folder that .ci/node prints)")
	}
	if _, err := exec.LookPath("node"); err != nil {
		Missing(t, "node is not here")
	}
	modules := filepath.Join(folder, "node_modules")
	if _, err := os.Stat(modules); err != nil {
		t.Fatalf("BH_NODE: %v", err)
	}
	return modules
}

// Node runs a script with node, which finds the packages of NodeModules, and
// returns what the script prints. A script that does not end with 0 is an error
// that tells what it said.
func Node(t testing.TB, script string, stdin []byte, args ...string) ([]byte, error) {
	t.Helper()
	modules := NodeModules(t)
	cmd := exec.Command("node", append([]string{script}, args...)...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", filepath.Base(script), err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}
