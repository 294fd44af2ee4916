//go:build unix

package main

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// usage returns the CPU time of all threads of the process, system calls
// included, and its largest resident memory so far in bytes.
func usage() (cpu time.Duration, peak int64) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, 0
	}
	cpu = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	// Linux counts the memory of the process that started this one in Maxrss.
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		if kib, ok := highWater(status); ok {
			return cpu, kib * 1024
		}
	}
	peak = int64(u.Maxrss)
	if runtime.GOOS != "darwin" && runtime.GOOS != "ios" {
		peak *= 1024
	}
	return cpu, peak
}

// highWater returns the largest resident memory in a status of Linux's /proc.
func highWater(status []byte) (kib int64, ok bool) {
	_, after, found := bytes.Cut(status, []byte("\nVmHWM:"))
	if !found {
		return 0, false
	}
	if f := bytes.Fields(after); len(f) > 1 && string(f[1]) == "kB" {
		kib, err := strconv.ParseInt(string(f[0]), 10, 64)
		return kib, err == nil
	}
	return 0, false
}
