package main

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/cli"
)

// syslog sends findings to a syslog server as datagrams, each a message of RFC
// 5424 of the facility local0: a warning about what is suspicious, information
// else. It is for one goroutine.
type syslog struct {
	network, address string
	host             string
	now              func() time.Time
	conn             net.Conn
}

// newSyslog parses unix:PATH or udp:HOST:PORT.
func newSyslog(where string) (*syslog, error) {
	network, address, _ := strings.Cut(where, ":")
	s := &syslog{address: address, now: time.Now}
	switch network {
	case "unix":
		s.network = "unixgram"
	case "udp":
		s.network = "udp"
		if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
			return nil, cli.Usagef("--syslog %q: want udp:HOST:PORT", where)
		}
	default:
		return nil, cli.Usagef("--syslog %q: want unix:PATH or udp:HOST:PORT", where)
	}
	if address == "" {
		return nil, cli.Usagef("--syslog %q: want unix:PATH or udp:HOST:PORT", where)
	}
	s.host, _ = os.Hostname()
	if s.host == "" || len(s.host) > 255 || strings.ContainsFunc(s.host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		s.host = "-"
	}
	return s, nil
}

const (
	local0        = 16 << 3
	warning       = 4
	informational = 6
	syslogWait    = time.Second // for one datagram
)

func (s *syslog) message(f finding) []byte {
	severity := informational
	if f.bad {
		severity = warning
	}
	b := append([]byte{'<'}, strconv.Itoa(local0|severity)...)
	b = append(b, ">1 "...)
	b = s.now().UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, " "+s.host+" bhagent "+strconv.Itoa(os.Getpid())+" finding - "...)
	return append(b, f.line...)
}

func (s *syslog) send(ctx context.Context, batch []finding) (int, error) {
	if s.conn == nil {
		c, err := (&net.Dialer{Timeout: syslogWait}).DialContext(ctx, s.network, s.address)
		if err != nil {
			return 0, err
		}
		s.conn = c
	}
	for i, f := range batch {
		s.conn.SetWriteDeadline(time.Now().Add(syslogWait))
		_, err := s.conn.Write(s.message(f))
		if errors.Is(err, errTooLong) {
			return i, permanent{err, 1}
		}
		if err != nil {
			s.conn.Close() // the server may have started anew
			s.conn = nil
			return i, err
		}
	}
	return len(batch), nil
}
