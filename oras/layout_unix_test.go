//go:build unix

package oras

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func TestOnlyRegularFilesAreRead(t *testing.T) {
	ctx := context.Background()
	a := samplePack(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, a.Models[1].Data, 0o666); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"symbolic link": func(path string) error { return os.Symlink(secret, path) },
		"FIFO":          func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o777) },
	} {
		for _, d := range []canon.Digest{canon.Sum(a.Models[1].Data), a.Digest} {
			s := newLayout(t)
			push(t, s, a)
			path := s.(*layout).blobPath(d)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := plant(path); err != nil {
				t.Fatal(err)
			}
			if _, err := Pull(ctx, s, a.Digest); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s in place of %s: %v, want ErrInvalid", name, d, err)
			}
		}
	}
}
