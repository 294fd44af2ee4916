//go:build !unix

package main

import "syscall"

// umask does nothing: sockets have no mode here.
func umask(int) int { return 0 }

// What the system says when nobody listens at an address, and when a datagram
// is longer than it takes: WSAECONNREFUSED and WSAEMSGSIZE.
const (
	errNobody  = syscall.Errno(10061)
	errTooLong = syscall.Errno(10040)
)
