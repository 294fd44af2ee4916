package oras

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

func TestStatDescribesTheFilesOfADataset(t *testing.T) {
	ctx := context.Background()
	dir := sampleDataset(t, "records")
	data, err := PackDataset(dir)
	if err != nil {
		t.Fatal(err)
	}
	eachStore(t, func(t *testing.T, s Store) {
		if _, err := StatDataset(ctx, s, DatasetTag(data.Snapshot)); !errors.Is(err, ErrNotFound) {
			t.Errorf("before it is there: %v, want ErrNotFound", err)
		}
		if _, err := PushDataset(ctx, s, data); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{DatasetTag(data.Snapshot), data.Digest.String()} {
			info, err := StatDataset(ctx, s, name)
			if err != nil {
				t.Fatal(err)
			}
			if info.Manifest.Digest != data.Digest || canon.Sum(info.Snapshot) != data.Snapshot || len(info.Files) != 4 {
				t.Fatalf("%s: %+v", name, info)
			}
			for i, want := range append([]string{SnapshotFile}, DatasetFiles[:]...) {
				b, err := os.ReadFile(filepath.Join(dir, want))
				if err != nil {
					t.Fatal(err)
				}
				if f := info.Files[i]; f.Name != want || f.Digest != canon.Sum(b) || f.Size != int64(len(b)) || f.MediaType == "" {
					t.Errorf("file %d: %+v, want %s", i, f, want)
				}
			}
		}
		a := samplePack(t)
		push(t, s, a)
		if _, err := StatDataset(ctx, s, a.Digest.String()); !errors.Is(err, ErrInvalid) {
			t.Errorf("of a release: %v, want ErrInvalid", err)
		}
	})
}
