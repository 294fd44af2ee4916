package trainer

import (
	"sync"
	"sync/atomic"
)

// parallel calls f(worker, i) once for each i in [0, n) from at most workers
// goroutines and returns when all calls have. Which worker takes which i is
// not defined: f writes only to places that belong to i, or to scratch that
// belongs to worker and carries nothing from one call to the next.
func parallel(workers, n int, f func(worker, i int)) {
	if workers = min(workers, n); workers <= 1 {
		for i := range n {
			f(0, i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(w, i)
			}
		})
	}
	wg.Wait()
}
