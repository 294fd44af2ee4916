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
	freeBody   = 64 << 10         // bytes of a body that are read without asking
	maxBodies  = 64 << 20         // bytes of bodies longer than that
	maxAnswers = 96 << 20         // bytes of answers
	findingMax = 1 << 10          // bytes of a finding, about
	shareWait  = 5 * time.Second  // for memory
	answerTime = 10 * time.Second // to take an answer, which holds its memory
)

var errBusy = errors.New("too many large requests are under way")

// shares bounds the memory of requests for scores. The share of an answer is
// taken when the body was read, and is no more than the answer while it is written,
// so a slow client holds up others only by large bodies and answers, not for long.
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
func (s shares) answer(ctx context.Context, body int) (*share, error) {
	n := int64(min(maxScoreRows, body/2+1)) * findingMax
	if _, err := take(ctx, s.answers, n); err != nil {
		return nil, err
	}
	return &share{s.answers, n}, nil
}

// share is what one answer holds.
type share struct {
	of *semaphore.Weighted
	n  int64
}

// shrink gives back what is above n bytes; shrink(0) all.
func (s *share) shrink(n int) {
	if more := s.n - int64(n); more > 0 {
		s.of.Release(more)
		s.n -= more
	}
}

func take(ctx context.Context, from *semaphore.Weighted, n int64) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, shareWait)
	defer cancel()
	if from.Acquire(ctx, n) != nil {
		return func() {}, errBusy
	}
	return func() { from.Release(n) }, nil
}
