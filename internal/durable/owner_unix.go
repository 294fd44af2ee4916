//go:build unix

package durable

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Foreign returns why an entry is not this user's alone, or "": another user
// than this one or root owns it, anybody may write to it, or a file has other
// names, by which others could reach it. What the file system cannot tell is
// taken for granted.
func Foreign(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
	case info.Mode().Type() == fs.ModeSymlink: // whose owner and mode say nothing
	case int(st.Uid) != os.Geteuid() && st.Uid != 0:
		return fmt.Sprintf("user %d owns it", st.Uid)
	case info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0:
		return fmt.Sprintf("anybody may write to it (mode %s)", info.Mode())
	case info.Mode().IsRegular() && st.Nlink > 1:
		return fmt.Sprintf("it has %d names (hard links)", st.Nlink)
	}
	return ""
}
