package testkit

import (
	"slices"
	"testing"
	"time"
)

// Latency calls f b.N times, with the number of the call, and reports the 50th
// and 99th percentile of how long a call took, in nanoseconds, of the last
// 65,536 calls. Where other programs share the processor they say more than the
// mean, which counts the time that went to the others. The clock is time.Now: a reading,
// some 50 ns, is part of every value.
func Latency(b *testing.B, clock func() time.Time, f func(i int)) {
	took := make([]time.Duration, min(b.N, 1<<16))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		start := clock()
		f(i)
		took[i%len(took)] = clock().Sub(start)
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
}
