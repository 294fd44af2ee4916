package oras

import "sync"

// Sessions keeps registries open, so that whoever asks one again and again does
// not ask each time how to speak to it: what is kept is how it authenticates and
// the token that it gave, never a word on what it holds. Addresses and certificates
// are judged at each connection as ever. All that use one Sessions must have the
// same other Options. The zero value is empty and ready; it is safe for concurrent use.
//
// A registry that refuses in a kept session is opened anew at once, with the
// credentials of that moment, and asked again. One that fails in any way, other
// than lacking something, is opened anew the next time, and so is any after maxResumed times.
type Sessions struct {
	mu   sync.Mutex
	kept map[string]*keptRegistry // by repository
}

type keptRegistry struct {
	*remote
	times int // that it was resumed
}

// maxResumed bounds how often a session is resumed, so that other credentials
// than those that it began with come to be used.
const maxResumed = 100

// resume returns the open registry with this repository, or nil.
func (s *Sessions) resume(repository string) *remote {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kept[repository]
	if k == nil {
		return nil
	}
	if k.times++; k.times > maxResumed {
		delete(s.kept, repository)
		return nil
	}
	k.session.Load().resumed.Store(true)
	return k.remote
}

func (s *Sessions) keep(repository string, r *remote) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = map[string]*keptRegistry{}
	}
	s.kept[repository] = &keptRegistry{remote: r}
}

// forget has a registry opened anew the next time.
func (s *Sessions) forget(r *remote) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for repository, k := range s.kept {
		if k.remote == r {
			delete(s.kept, repository)
		}
	}
}
