//go:build !unix

package durable

import "io/fs"

// Foreign returns why an entry is not this user's alone, or "". On this system
// that is for the permissions of the folder to say.
func Foreign(fs.FileInfo) string { return "" }
