package trainer

import (
	"math/bits"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// Part is the use a row is put to.
type Part uint8

// Parts. Training rows fit, validation rows choose (learner, rounds,
// calibration, thresholds), test rows are only measured.
const (
	Training Part = iota
	Validation
	Test
)

// String returns "training", "validation" or "test".
func (p Part) String() string { return [...]string{"training", "validation", "test"}[p] }

// Split says how rows are dealt to the three parts. What is left of a million
// is the test part.
type Split struct {
	Salt          string `json:"salt"`           // makes another deal of the same data, at most 64 bytes
	TrainingPPM   int64  `json:"training_ppm"`   // above 0
	ValidationPPM int64  `json:"validation_ppm"` // above 0; both together below 1,000,000
}

// splitKey is what decides the part of a row. Rows that share it are never
// on two sides, and a row's part never moves when others come or go.
type splitKey struct {
	exploit int64  // EDB id, when not 0
	address string // else the source address, when not empty
	text    string // else the payload
}

// part deals a key: xxhash64 of the salt, the kind of key and the key, as a
// fraction of 2^64, falls into one of three ranges.
func (s Split) part(k splitKey) Part {
	var b []byte
	b = append(b, s.Salt...)
	switch {
	case k.exploit != 0:
		b = strconv.AppendInt(append(b, "\x00exploit\x00"...), k.exploit, 10)
	case k.address != "":
		b = append(append(b, "\x00address\x00"...), k.address...)
	default:
		b = append(append(b, "\x00text\x00"...), k.text...)
	}
	hi, _ := bits.Mul64(xxhash.Sum64(b), 1_000_000)
	switch at := int64(hi); {
	case at < s.TrainingPPM:
		return Training
	case at < s.TrainingPPM+s.ValidationPPM:
		return Validation
	}
	return Test
}
