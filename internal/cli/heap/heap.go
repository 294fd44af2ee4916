// Package heap spares a short command garbage collections. The tables that
// packages make when they are initialised fill the 4 MiB of heap that Go allows
// before the first collection, which then finds next to nothing to free: for a
// command that ends after 20 ms this is a tenth of its time. Importing heap raises
// the 4 MiB to 16 and lets the heap grow to five times what lives.
//
// It imports nothing of ours, so that it is initialised before most packages:
// Go does that in the order of import paths. GOGC in the environment has precedence.
package heap

import (
	"math"
	"runtime/debug"
)

const usual = 100 // Go's own setting, in percent

func init() {
	if set := debug.SetGCPercent(400); set != usual {
		debug.SetGCPercent(set)
	}
}

// Usual restores Go's own setting, for commands that compute for long.
func Usual() {
	if set := debug.SetGCPercent(usual); set != 400 {
		debug.SetGCPercent(set)
	}
}

// Limit makes the collector work harder when all memory comes near to that many
// bytes. GOMEMLIMIT in the environment has precedence.
func Limit(bytes int64) {
	if set := debug.SetMemoryLimit(-1); set == math.MaxInt64 {
		debug.SetMemoryLimit(bytes)
	}
}
