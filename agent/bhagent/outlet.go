package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// finding is one line for an outlet.
type finding struct {
	line []byte // JSON without a line feed
	bad  bool   // about something suspicious
}

// permanent is an error that no other attempt would mend, about so many
// findings: the first of those that were not sent.
type permanent struct {
	error
	findings int
}

func (p permanent) Unwrap() error { return p.error }

// later is an error of a receiver that says when to come again.
type later struct {
	error
	wait time.Duration // 0 or more
}

func (l later) Unwrap() error { return l.error }

// outlet hands findings on to where they are wanted, in a goroutine of its own,
// so that a slow receiver never keeps a log from being read. Its queue is
// bounded: what does not fit, and what nobody took after several attempts, is
// dropped, counted and said.
type outlet struct {
	name    string // for the log
	log     *slog.Logger
	send    func(context.Context, []finding) (sent int, err error)
	pause   time.Duration // after the first failure; doubled after each other
	queue   chan finding
	done    chan struct{}
	cancel  context.CancelFunc // ends the attempts
	dropped atomic.Int64
	said    int64 // of dropped, in the log
}

const (
	maxQueue   = 16 << 10        // findings that wait; of 400 bytes or so
	maxBatch   = 500             // findings that are sent at once
	batchWait  = time.Second     // for more findings, before a smaller batch is sent
	firstPause = time.Second     // after a failure
	attempts   = 6               // of one batch; with firstPause, half a minute
	maxLater   = time.Minute     // that a receiver may ask to be left alone for
	lastTime   = 5 * time.Second // for what is queued when the end has come
	sayDropped = 30 * time.Second
)

// newOutlet starts an outlet. End it with close.
func newOutlet(name string, log *slog.Logger, queue int, pause time.Duration, send func(context.Context, []finding) (int, error)) *outlet {
	ctx, cancel := context.WithCancel(context.Background())
	o := &outlet{name: name, log: log, send: send, pause: pause, queue: make(chan finding, queue), done: make(chan struct{}), cancel: cancel}
	go o.run(ctx)
	return o
}

// put takes a finding, or drops it. It never waits.
func (o *outlet) put(f finding) {
	select {
	case o.queue <- f:
	default:
		o.dropped.Add(1)
	}
}

// run sends what is put, until close.
func (o *outlet) run(ctx context.Context) {
	defer close(o.done)
	say := time.NewTicker(sayDropped)
	defer say.Stop()
	for {
		select {
		case f, more := <-o.queue:
			if !more {
				return
			}
			o.deliver(ctx, o.gather(f))
		case <-say.C:
			o.say()
		}
	}
}

// gather returns first and what follows it soon.
func (o *outlet) gather(first finding) []finding {
	batch := []finding{first}
	wait := time.NewTimer(batchWait)
	defer wait.Stop()
	for len(batch) < maxBatch {
		select {
		case f, more := <-o.queue:
			if !more {
				return batch
			}
			batch = append(batch, f)
		case <-wait.C:
			return batch
		}
	}
	return batch
}

// deliver sends a batch, and drops what nobody takes.
func (o *outlet) deliver(ctx context.Context, batch []finding) {
	drop := func(n int, err error) {
		o.dropped.Add(int64(n))
		o.log.Warn("findings were not taken", "by", o.name, "reason", err, "findings", n)
		o.say()
		batch = batch[n:]
	}
	pause := o.pause
	for try := 1; ; try++ {
		n, err := o.send(ctx, batch)
		batch = batch[n:]
		if len(batch) == 0 {
			return
		}
		if p, final := err.(permanent); final {
			drop(p.findings, p.error) // and go on behind them, at once
			try, pause = 0, o.pause
			if len(batch) == 0 {
				return
			}
			continue
		}
		if try == attempts || ctx.Err() != nil {
			drop(len(batch), err)
			return
		}
		wait := pause
		if l, ok := err.(later); ok {
			wait = max(wait, min(l.wait, maxLater))
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		pause *= 2
	}
}

// say logs how many were dropped, when there are more than before.
func (o *outlet) say() {
	if n := o.dropped.Load(); n > o.said {
		o.log.Warn("findings dropped", "by", o.name, "dropped", n-o.said, "in_all", n)
		o.said = n
	}
}

// close sends what is queued, which may take lastTime, and says what was
// dropped. Nothing may be put any more.
func (o *outlet) close() {
	close(o.queue)
	late := time.AfterFunc(lastTime, o.cancel)
	<-o.done
	late.Stop()
	o.cancel()
	o.say()
}
