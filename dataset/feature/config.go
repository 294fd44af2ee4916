package feature

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// ErrConfig: a configuration breaks a rule of its form or bounds.
var ErrConfig = errors.New("feature configuration")

// Bounds of a configuration.
const (
	MaxConfig  = 32 << 10 // bytes of its canonical JSON
	MaxLexicon = 1500     // names and ports in the lexicon
)

// Forms of an address after the privacy transforms of the dataset.
const (
	AddressFull      = "full"
	AddressTruncated = "truncated"
	AddressHashed    = "hashed" // address columns stay 0
)

// Config decides, with a record and its history, every bit of a vector. It is
// learnt from training rows, carried in the release and given to New alone.
type Config struct {
	Address   string  `json:"address"`   // AddressFull, AddressTruncated or AddressHashed
	Lexicon   Lexicon `json:"lexicon"`   // names known from exploit titles
	Redaction int     `json:"redaction"` // version of the redaction applied to the records; 0 none
	Schema    int     `json:"schema"`    // SchemaVersion
	Tracker   Limits  `json:"tracker"`
}

// Limits bound the memory of a Tracker. They are part of the schema: another
// limit gives other vectors.
type Limits struct {
	Pending int `json:"pending"` // distinct events kept per source and timestamp, 1 to 256
	Sites   int `json:"sites"`   // sites, 1 to 4096
	Sources int `json:"sources"` // sources per site, 1 to 1048576
}

// DefaultConfig returns the configuration of full addresses with an empty
// lexicon.
func DefaultConfig() Config {
	return Config{
		Address:   AddressFull,
		Redaction: 1,
		Schema:    SchemaVersion,
		Tracker:   Limits{Pending: 32, Sites: 256, Sources: 65536},
	}
}

// Validate reports the first field out of bounds, as ErrConfig.
func (c Config) Validate() error {
	switch {
	case c.Schema != SchemaVersion:
		return fmt.Errorf("%w: schema %d, this program knows %d", ErrConfig, c.Schema, SchemaVersion)
	case c.Address != AddressFull && c.Address != AddressTruncated && c.Address != AddressHashed:
		return fmt.Errorf("%w: unknown address form", ErrConfig)
	case c.Redaction < 0 || c.Redaction > 1:
		return fmt.Errorf("%w: redaction %d, want 0 or 1", ErrConfig, c.Redaction)
	case c.Tracker.Pending < 1 || c.Tracker.Pending > 256:
		return fmt.Errorf("%w: tracker pending %d, want 1 to 256", ErrConfig, c.Tracker.Pending)
	case c.Tracker.Sites < 1 || c.Tracker.Sites > 4096:
		return fmt.Errorf("%w: tracker sites %d, want 1 to 4096", ErrConfig, c.Tracker.Sites)
	case c.Tracker.Sources < 1 || c.Tracker.Sources > 1<<20:
		return fmt.Errorf("%w: tracker sources %d, want 1 to %d", ErrConfig, c.Tracker.Sources, 1<<20)
	}
	return c.Lexicon.validate()
}

// Marshal returns the canonical JSON that New reads.
func (c Config) Marshal() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Lexicon.Ports == nil {
		c.Lexicon.Ports = []int32{}
	}
	return canon.Marshal(c)
}

// ParseConfig reads the canonical JSON of a configuration. Unknown, missing or
// duplicate members, another form than the canonical and values out of bounds
// are ErrConfig.
func ParseConfig(b []byte) (Config, error) {
	var c Config
	if len(b) > MaxConfig {
		return Config{}, fmt.Errorf("%w: %d bytes, limit %d", ErrConfig, len(b), MaxConfig)
	}
	if err := canon.UnmarshalCanonical(b, &c); err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	again, err := c.Marshal()
	if err != nil {
		return Config{}, err
	}
	if string(again) != string(b) {
		return Config{}, fmt.Errorf("%w: a member is missing", ErrConfig)
	}
	return c, nil
}

// Hashes is a set of names as the upper 32 bits of their xxhash64, ascending.
// Its text form is 8 lower-case hex digits each, joined. With a thousand
// names, one foreign name in four million is taken for a known one.
type Hashes []uint32

// MarshalText returns the text form.
func (h Hashes) MarshalText() ([]byte, error) {
	b := make([]byte, 0, 8*len(h))
	for _, x := range h {
		b = hex.AppendEncode(b, binary.BigEndian.AppendUint32(nil, x))
	}
	return b, nil
}

// UnmarshalText reads the text form; the order is checked by ParseConfig.
func (h *Hashes) UnmarshalText(b []byte) error {
	if len(b)%8 != 0 || len(b) > 8*MaxLexicon {
		return fmt.Errorf("%w: %d digits are no list of at most %d hashes", ErrConfig, len(b), MaxLexicon)
	}
	raw, err := hex.AppendDecode(nil, b)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	*h = make(Hashes, 0, len(raw)/4)
	for i := 0; i < len(raw); i += 4 {
		*h = append(*h, binary.BigEndian.Uint32(raw[i:]))
	}
	if hexed, _ := h.MarshalText(); string(hexed) != string(b) {
		return fmt.Errorf("%w: hex digits must be lower case", ErrConfig)
	}
	return nil
}

func (h Hashes) has(hash uint64) bool {
	_, ok := slices.BinarySearch(h, uint32(hash>>32))
	return ok
}

// Extractor turns records into vectors. It is immutable: any number of
// goroutines may use one.
type Extractor struct {
	config Config
	work   sync.Pool // of *work
}

// New returns the extractor of a configuration in canonical JSON. Anything
// ParseConfig refuses is ErrConfig.
func New(config []byte) (*Extractor, error) {
	c, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	e := &Extractor{config: c}
	e.work.New = func() any { return newWork() }
	return e, nil
}

// Config returns what the extractor was made of. Callers must not change its
// slices.
func (e *Extractor) Config() Config { return e.config }
