package server

import (
	"net"
	"net/netip"
	"sync"
)

const maxPerAddress = 64 // connections of one client of a remote listener

// fairListener closes at once what a client opens beyond maxPerAddress
// connections, so that one cannot take all of maxConnections. Clients are told
// apart by IPv4 address or IPv6 /64.
type fairListener struct {
	net.Listener
	mu   sync.Mutex
	open map[netip.Prefix]int
}

func (l *fairListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, ok := client(c.RemoteAddr())
		if !ok {
			return c, nil
		}
		l.mu.Lock()
		fits := l.open[from] < maxPerAddress
		if fits {
			l.open[from]++
		}
		l.mu.Unlock()
		if fits {
			return &fairConn{Conn: c, left: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		c.Close()
	}
}

func (l *fairListener) leave(from netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[from]--; l.open[from] == 0 {
		delete(l.open, from)
	}
}

type fairConn struct {
	net.Conn
	left func()
}

func (c *fairConn) Close() error {
	c.left()
	return c.Conn.Close()
}

// client is whom an address belongs to.
func client(a net.Addr) (netip.Prefix, bool) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}, false
	}
	ip := tcp.AddrPort().Addr().Unmap()
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.WithZone("").Prefix(bits)
	return p, err == nil
}
