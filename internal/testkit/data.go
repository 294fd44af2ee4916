// Package testkit is what the tests of several packages share. Only tests
// import it.
package testkit

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Root returns the root directory of the module's source tree.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("go.mod not found above the working directory")
		}
		dir = up
	}
}

// DependOnSources makes every file below root an input of the running test in
// the eyes of go test. Without it a test that looks at the tree through another
// process (go build, go list) is not run again when the tree changes: go test
// repeats the old result, marked "(cached)". Hidden folders do not count. It
// has no effect before m.Run in a TestMain.
func DependOnSources(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if err == nil {
			_, err = os.Stat(path) // what go test takes note of
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		return err
	})
}

// Data returns the path of a file of the real data, which lies beside the
// source tree at ../shared/data or where BH_DATA says. Without it the test
// is skipped, or fails when BH_REQUIRE=all.
func Data(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("BH_DATA")
	if dir == "" {
		dir = filepath.Join(Root(t), "..", "shared", "data")
	}
	path := filepath.Join(dir, filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		Missing(t, "real data "+name+" is not here (set BH_DATA to its folder)")
	}
	return path
}

// Missing ends a test whose means are absent: skipped with the reason, or
// failed when BH_REQUIRE=all.
func Missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("BH_REQUIRE") == "all" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
