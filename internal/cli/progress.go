package cli

import (
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// Progress returns a function that shows how far a stage has come: a bar on a
// terminal, nothing elsewhere or with --quiet. A total of 0 or less means
// unknown. It is safe for concurrent use; call end when the work is over.
func (c *Call) Progress() (report func(stage string, done, total int64), end func()) {
	if c.quiet || !terminal(c.Stderr) {
		return func(string, int64, int64) {}, func() {}
	}
	var (
		mu    sync.Mutex
		bar   *progressbar.ProgressBar
		stage string
		size  int64
	)
	clear := func() {
		if bar != nil {
			bar.Clear()
			bar = nil
		}
	}
	report = func(name string, done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if total <= 0 {
			total = -1
		}
		if bar == nil || name != stage || total != size {
			clear()
			stage, size = name, total
			bar = progressbar.NewOptions64(total,
				progressbar.OptionSetDescription(name),
				progressbar.OptionSetWriter(c.Stderr),
				progressbar.OptionThrottle(100*time.Millisecond),
				progressbar.OptionClearOnFinish(),
				progressbar.OptionSetWidth(30),
				progressbar.OptionSetPredictTime(true),
				progressbar.OptionSetElapsedTime(true),
			)
		}
		bar.Set64(done)
	}
	return report, func() {
		mu.Lock()
		defer mu.Unlock()
		clear()
	}
}
