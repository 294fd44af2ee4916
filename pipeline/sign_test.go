package pipeline

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

func TestDatasetStatementSaysWhatTheDatasetHolds(t *testing.T) {
	ctx := context.Background()
	me, publisher := ownSigner(t), ownSigner(t)
	dir := filepath.Join(t.TempDir(), "snapshot")
	if _, err := Snapshot(ctx, Plan{Privacy: record.Privacy{Address: record.Truncated, Redaction: record.Redaction}}, dir); err != nil {
		t.Fatal(err)
	}
	snapshot, err := dataset.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	data, err := oras.PackDataset(dir)
	if err != nil {
		t.Fatal(err)
	}
	store, err := oras.Open(ctx, oras.Ref{Layout: filepath.Join(t.TempDir(), "shelf")}, oras.Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	at, err := oras.PushDataset(ctx, store, data)
	if err != nil {
		t.Fatal(err)
	}
	var models []oras.File
	for _, name := range oras.ModelFiles {
		models = append(models, oras.File{Name: name, Data: []byte(name)})
	}
	empty := jsontext.Value(`{}`)
	a, err := oras.Pack(oras.Release{Product: "shop", Number: 1, Dataset: data.Snapshot, Recipe: empty, Features: empty, Scoring: empty, Metrics: empty}, models)
	if err != nil {
		t.Fatal(err)
	}
	if err := oras.Push(ctx, store, a); err != nil {
		t.Fatal(err)
	}
	provenance := must(provenanceOf(t, a, "shop").Encode())
	if _, err := SignRelease(ctx, store, a.Digest, SignPlan{Signer: me, Provenance: provenance}); err != nil {
		t.Fatal(err)
	}
	believed := &verify.Policy{Product: "shop", Publishers: []verify.Identity{{Name: "me", Key: me.Key()}}}

	claim := func(name string, p SignPlan, inputs int) {
		t.Helper()
		s, err := SignDataset(ctx, store, name, p)
		if err != nil || s.Inputs != inputs || s.Subject != at.Digest {
			t.Fatalf("%+v, %v, want %d inputs", s, err, inputs)
		}
		list, err := oras.Bundles(ctx, store, at.Digest, oras.DatasetStatementTag(at.Digest))
		if err != nil || len(list.Bundles) == 0 || list.Bundles[0].Tag != s.Tag {
			t.Fatalf("%+v, %v", list, err)
		}
		st, err := statementIn(list.Bundles[0].Data)
		if err != nil {
			t.Fatal(err)
		}
		c, err := st.DatasetClaim()
		if err != nil {
			t.Fatal(err)
		}
		m := snapshot.Manifest()
		if c.Dataset != snapshot.Digest() || c.Address != "truncated" || c.Redaction != int64(record.Redaction) || len(c.Tables) != len(m.Tables) || len(c.Inputs) != inputs || !st.Names(at.Digest) {
			t.Errorf("%+v", c)
		}
		for i, table := range m.Tables {
			if have := c.Tables[i]; have.Name != table.Name || have.Rows != table.Rows || have.Root != table.Root {
				t.Errorf("table %+v, want %+v", have, table)
			}
		}
		if inputs > 0 && (c.Inputs[0].Name != "x.csv" || c.Inputs[0].Annotations["source"] != "attacks") {
			t.Errorf("inputs %+v", c.Inputs)
		}
	}
	claim(a.Digest.String(), SignPlan{Signer: publisher, Provenance: provenance}, 1)
	claim(oras.ReleaseTag(1), SignPlan{Signer: publisher, Policy: believed}, 1)
	claim(oras.DatasetTag(data.Snapshot), SignPlan{Signer: publisher, Provenance: provenance}, 1)
	claim(at.Digest.String(), SignPlan{Signer: publisher}, 0)
	claim(a.Digest.String(), SignPlan{Signer: publisher}, 0) // the publisher of data believes only what it signed

	demanding := *believed
	demanding.Datasets.Publishers = []verify.Identity{{Name: "data", Key: publisher.Key()}}
	for want, key := range map[bool]verify.Key{true: publisher.Key(), false: me.Key()} {
		demanding.Datasets.Publishers = []verify.Identity{{Name: "data", Key: key}}
		v, err := verify.New(demanding)
		if err != nil {
			t.Fatal(err)
		}
		if verdict, _, err := v.Release(ctx, store, a.Digest, time.Now(), verify.Options{}); err != nil || verdict.Pass() != want {
			t.Errorf("a policy that demands a dataset publisher passes: %t, %v", !want, err)
		}
	}

	other := pack(t, 2) // of another dataset
	if _, err := SignDataset(ctx, store, at.Digest.String(), SignPlan{Signer: publisher, Provenance: must(provenanceOf(t, other, "shop").Encode())}); !errors.Is(err, verify.ErrStatement) {
		t.Errorf("a provenance about another dataset: %v", err)
	}
	if _, err := SignDataset(ctx, store, "nothing", SignPlan{Signer: publisher}); !errors.Is(err, oras.ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
}
