//go:build darwin || freebsd

package durable

import "syscall"

func free(path string) (bytes, files int64) {
	var st syscall.Statfs_t
	if syscall.Statfs(path, &st) != nil {
		return unknown, unknown
	}
	// FreeBSD counts what only root may use as negative.
	return left(st.Blocks, uint64(max(0, int64(st.Bavail))), uint64(st.Bsize)), left(st.Files, uint64(max(0, int64(st.Ffree))), 1)
}
