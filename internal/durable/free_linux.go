package durable

import "syscall"

func free(path string) (bytes, files int64) {
	var st syscall.Statfs_t
	if syscall.Statfs(path, &st) != nil {
		return unknown, unknown
	}
	block := uint64(st.Frsize) // what blocks are counted in, where it differs from Bsize
	if block == 0 {
		block = uint64(st.Bsize)
	}
	return left(st.Blocks, st.Bavail, block), left(st.Files, st.Ffree, 1)
}
