//go:build unix

package main

import "syscall"

// umask changes the permissions that files are made without, of the whole
// process, and returns those before.
func umask(mask int) int { return syscall.Umask(mask) }

// What the system says when nobody listens at an address, and when a datagram
// is longer than it takes.
const (
	errNobody  = syscall.ECONNREFUSED
	errTooLong = syscall.EMSGSIZE
)
