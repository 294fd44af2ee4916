package trainer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Witness is told of states that a training passes through and that its models
// do not show: the bins of the features, and the histograms of every node of
// every boosted tree. States come in one order, with one digest each, on every
// machine and for any number of workers, so that two who trained can find out
// that both did. It is called from one goroutine.
type Witness func(state string, digest canon.Digest)

type witnessKey struct{}

// WithWitness returns a context in which Train tells w. It changes no byte of
// the result.
func WithWitness(ctx context.Context, w Witness) context.Context {
	return context.WithValue(ctx, witnessKey{}, w)
}

// witness returns the witness of ctx, nil for none.
func witness(ctx context.Context) Witness {
	w, _ := ctx.Value(witnessKey{}).(Witness)
	return w
}

// bins tells of a learner's bin matrix: thresholds and bins, column by column.
func (w Witness) bins(name string, m *bins) {
	if w == nil {
		return
	}
	h := sha256.New()
	for c, column := range m.columns {
		binary.Write(h, binary.BigEndian, int64(len(m.thresholds[c])))
		binary.Write(h, binary.BigEndian, m.thresholds[c])
		h.Write(column)
	}
	w(name+"/bins", canon.Digest(h.Sum(nil)))
}

// round tells of the histograms of a round, by target.
func (w Witness) round(name string, round int, nodes []nodeDigest) {
	for t := range nodes {
		w(fmt.Sprintf("%s/round/%d/%d", name, round, t), canon.Digest(nodes[t].sum.Sum(nil)))
		nodes[t].sum.Reset()
	}
}

// nodeDigest sums up the histograms of one tree, node by node as it grows. The
// zero value does nothing.
type nodeDigest struct {
	sum  hash.Hash
	room []byte
}

// nodeDigests returns one digest for each target, nil without a witness.
func (w Witness) nodeDigests(targets int) []nodeDigest {
	if w == nil {
		return nil
	}
	d := make([]nodeDigest, targets)
	for t := range d {
		d[t].sum = sha256.New()
	}
	return d
}

// add adds the cells of a node's histogram: g and h of each column and bin.
func (d *nodeDigest) add(n *node, t *tiles, wide bool) {
	if d == nil || d.sum == nil {
		return
	}
	cells := n.hist[:t.cells]
	if wide {
		cells = n.hist[:2*t.cells]
	}
	d.room = d.room[:0]
	for _, c := range cells {
		d.room = binary.BigEndian.AppendUint64(d.room, uint64(c))
	}
	d.sum.Write(d.room)
}
