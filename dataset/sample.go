package dataset

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/battle-hardened-ai/bhtrain/dataset/sample"
)

// SampleInputs writes the built-in sample into dir, which must exist, as real
// input files, and returns the inputs that name them. They need no network and
// are the same on every machine.
func SampleInputs(dir string) ([]Input, error) {
	if err := sample.Write(dir); err != nil {
		return nil, fmt.Errorf("writing the sample: %w", err)
	}
	var inputs []Input
	for _, f := range sample.Files() {
		inputs = append(inputs, Input{
			Source: Source(f.Source), Path: filepath.Join(dir, f.Name), Class: f.Class, Site: f.Site, Year: f.Year,
		})
	}
	return inputs, nil
}

// Sample writes the snapshot of the built-in sample to dir, as Build does with
// SampleInputs and no privacy transform.
func Sample(ctx context.Context, dir string) error {
	temp, err := os.MkdirTemp("", "bhtrain-sample-")
	if err != nil {
		return fmt.Errorf("writing the sample: %w", err)
	}
	defer os.RemoveAll(temp)
	inputs, err := SampleInputs(temp)
	if err != nil {
		return err
	}
	_, err = Build(ctx, Config{Inputs: inputs}, dir)
	return err
}
