//go:build unix

package main

import (
	"runtime"
	"testing"
)

func TestHighWaterOfLinux(t *testing.T) {
	for _, c := range []struct {
		status string
		kib    int64
		ok     bool
	}{
		{"Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t  1234 kB\nVmRSS:\t 8 kB\n", 1234, true},
		{"Name:\tVmHWM: 7 kB\n", 0, false},
		{"Name:\tx\nVmHWM:\t12 MB\n", 0, false},
		{"Name:\tx\nVmHWM:\tmany kB\n", 0, false},
		{"Name:\tx\nVmHWM:", 0, false},
	} {
		if kib, ok := highWater([]byte(c.status)); kib != c.kib || ok != c.ok {
			t.Errorf("%q: %d, %v", c.status, kib, ok)
		}
	}
	if _, before := usage(); runtime.GOOS == "linux" {
		room := make([]byte, 64<<20)
		for i := 0; i < len(room); i += 4096 {
			room[i] = 1
		}
		if _, after := usage(); after < before+int64(len(room))/2 || before <= 0 {
			t.Errorf("%d bytes before 64 MiB more are used, %d after", before, after)
		}
		runtime.KeepAlive(room)
	}
}
