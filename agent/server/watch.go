package server

import (
	"context"
	"time"
)

const stateEvery = time.Second // looks whether another process has changed the state

// watch judges what is installed again when another process has changed it, by
// a decision or a sync, until ctx ends. A sync of this one does so itself.
func (s *Server) watch(ctx context.Context) {
	changed := s.opt.Agent.Watch()
	look := time.NewTicker(stateEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			s.mu.Lock()
			own := s.running != nil
			s.mu.Unlock()
			if !own && changed() {
				s.reload(ctx, nil)
			}
		case <-ctx.Done():
			return
		}
	}
}
