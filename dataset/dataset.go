// Package dataset makes snapshots: immutable, canonical cuts of the public
// exploit index and of attack records, and reads and proves them again.
//
// Build turns input files of any supported format into a directory that is the
// same, byte for byte, whatever the order of the inputs, the way they were cut
// into files, the number of threads, the time zone or the memory allowed. The
// SHA-256 of its snapshot.json, the dataset digest, names it. Open reads such a
// directory, Check proves it without the code that wrote it, and FORMAT.md
// specifies it.
package dataset

import "errors"

// Errors that callers branch on.
var (
	// ErrCorrupt: a snapshot directory breaks a rule of the format, or its files
	// are not the ones it names.
	ErrCorrupt = errors.New("corrupt snapshot")
	// ErrUnsupported: a snapshot of a format or schema version that this package
	// does not read, or an input of no known form.
	ErrUnsupported = errors.New("unsupported")
	// ErrTooManyBad: an input has a larger share of bad rows than allowed.
	ErrTooManyBad = errors.New("too many bad rows")
	// ErrNoRows: an input, or all inputs together, hold no row.
	ErrNoRows = errors.New("no rows")
)
