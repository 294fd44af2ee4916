package dataset_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/battle-hardened-ai/bhtrain/dataset"
)

// A snapshot is made from input files, proved, opened and read row by row.
func Example() {
	ctx := context.Background()
	work, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(work)
	inputs, err := dataset.SampleInputs(work)
	if err != nil {
		log.Fatal(err)
	}
	dir := filepath.Join(work, "snapshot")
	report, err := dataset.Build(ctx, dataset.Config{Inputs: inputs}, dir)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := dataset.Check(ctx, dir); err != nil {
		log.Fatal(err)
	}
	snapshot, err := dataset.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer snapshot.Close()
	rows := int64(0)
	for _, err := range snapshot.Records(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		rows++
	}
	fmt.Println(snapshot.Digest() == report.Dataset, rows == report.Tables[1].Rows)
	// Output: true true
}
