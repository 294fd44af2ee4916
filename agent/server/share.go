package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"
)

// Bounds of what all requests for scores may hold in memory together.
const (
	freeBody   = 64 << 10        // bytes of a body that are read without asking
	maxBodies  = 64 << 20        // bytes of bodies longer than that
	maxAnswers = 96 << 20        // bytes of answers
	findingMax = 1 << 10         // bytes of a finding, about
	shareWait  = 5 * time.Second // for memory
)

var errBusy = errors.New("too many large requests are under way")

// shares bounds the memory of requests for scores. A body is read before there
// is a share for its answer, so that slow clients hold up none but large bodies.
type shares struct {
	bodies, answers *semaphore.Weighted
}

func newShares() shares {
	return shares{bodies: semaphore.NewWeighted(maxBodies), answers: semaphore.NewWeighted(maxAnswers)}
}

// body reads the body of r, at most maxScoreBody bytes. release, which is never
// nil, gives back what it takes. errBusy when there was no memory in time.
func (s shares) body(w http.ResponseWriter, r *http.Request) (b []byte, release func(), err error) {
	release = func() {}
	if r.ContentLength < 0 || r.ContentLength > freeBody {
		n := int64(maxScoreBody)
		if r.ContentLength > 0 {
			n = min(n, r.ContentLength)
		}
		if release, err = take(r.Context(), s.bodies, n); err != nil {
			return nil, release, err
		}
	}
	b, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxScoreBody))
	return b, release, err
}

// answer takes what the answer to a body may need: two bytes are a row.
func (s shares) answer(ctx context.Context, body int) (release func(), err error) {
	return take(ctx, s.answers, int64(min(maxScoreRows, body/2+1))*findingMax)
}

func take(ctx context.Context, from *semaphore.Weighted, n int64) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, shareWait)
	defer cancel()
	if from.Acquire(ctx, n) != nil {
		return func() {}, errBusy
	}
	return func() { from.Release(n) }, nil
}
