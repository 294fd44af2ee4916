package model

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Digests that no architecture, compiler or thread may change. A change of one
// is a change of the format (encodings) or of the meaning (scores).
const (
	goldenEncodings = "sha256:a7785aa84c3f187c84b0f9b670a0cdb8c4303c0841412031c901dad03a422b4d"
	goldenScores    = "sha256:108a7156ed22c1304347696326b1a02a4bbc847a75eb60c9f8f181fd2729dd9f"
)

func TestEncodingsAreTheSameOnEveryArchitecture(t *testing.T) {
	var all []byte
	for i, s := range shapes {
		b := encode(t, s.random(rand.New(rand.NewPCG(11, uint64(i)))))
		all = append(all, b...)
	}
	all = append(all, encodeScaler(t, randomScaler(rand.New(rand.NewPCG(11, 99)), 100))...)
	if got := canon.Sum(all).String(); got != goldenEncodings {
		t.Errorf("digest of the encodings is %s, want %s", got, goldenEncodings)
	}
}

func TestScoresAreTheSameOnEveryArchitecture(t *testing.T) {
	var all []byte
	for seed := range uint64(4) {
		set := smallSet(t, seed)
		rng := rand.New(rand.NewPCG(seed, 12))
		x := make([]float32, set.Dim())
		var out Scores
		for range 1000 {
			vector(rng, x, 9)
			set.Score(x, &out)
			for _, v := range said(&out) {
				all = binary.LittleEndian.AppendUint32(all, v)
			}
		}
	}
	if got := canon.Sum(all).String(); got != goldenScores {
		t.Errorf("digest of the scores is %s, want %s", got, goldenScores)
	}
}
