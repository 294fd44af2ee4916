package cli

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestReadFileIsBounded(t *testing.T) {
	dir := t.TempDir()
	name, link := filepath.Join(dir, "f"), filepath.Join(dir, "link")
	if err := os.WriteFile(name, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(name, 4); err != nil || string(b) != "1234" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := ReadFile(name, 3); !errors.Is(err, ErrTooLarge) {
		t.Errorf("longer than its limit: %v", err)
	}
	if _, err := ReadFile(filepath.Join(dir, "none"), 3); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
	if os.Symlink("f", link) == nil { // not everybody may on Windows
		if b, err := ReadFile(link, 4); err != nil || len(b) != 4 {
			t.Errorf("%q, %v", b, err)
		}
	}
}
