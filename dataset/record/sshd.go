package record

import "bytes"

// sshd reads one line of syslog:
//
//	Mar 27 13:06:56 host sshd[1291]: message
//	2024-03-27T13:06:56.123456+01:00 host sshd[1291]: message
//
// One attempt to log in leaves several lines, and rows are read one by one,
// so each attempt is taken from the one line that always stands for it:
// "Failed … for" and "Accepted … for". Lines that announce, repeat or sum up
// attempts are skipped: those of PAM, "Invalid user", "maximum
// authentication attempts". So are the keys a client offers in turn, which
// fail before one is accepted. A connection that never comes to an attempt is
// one line of its own: no identification string, another protocol, no common
// algorithm. "message repeated N times" is one record with the time of that
// line, since the times of the others are not known.
//
// Label says which of these it was, Event is the process id.
func (r *Reader) sshd(row []byte, rec *Record) verdict {
	if len(row) > 0 && row[0] == '<' { // priority, in front when received over the network
		if i := bytes.IndexByte(row, '>'); i > 0 && i < 5 {
			row = row[i+1:]
		}
	}
	rest, ok := r.syslogTime(row, rec)
	if !ok {
		return bad("not a syslog line", "it does not start with a time")
	}
	_, rest, ok = bytes.Cut(rest, []byte{' '}) // the host
	tag, message, ok2 := bytes.Cut(rest, []byte(": "))
	if !ok || !ok2 {
		return bad("not a syslog line", "no host and program behind the time")
	}
	program, pid, _ := bytes.Cut(bytes.TrimSuffix(tag, []byte{']'}), []byte{'['})
	switch string(program) {
	case "sshd", "sshd-session":
	case "CRON", "cron", "sudo", "su", "systemd", "systemd-logind", "useradd", "groupadd", "passwd", "chpasswd":
		return skip("no network event: " + lower(r.intern(program)))
	default:
		return skip("no network event: another program")
	}
	rec.Protocol = "ssh"
	rec.Event = r.intern(pid)
	if m, ok := bytes.CutPrefix(message, []byte("message repeated ")); ok {
		_, m, ok = bytes.Cut(m, []byte(" times: ["))
		m, ok2 = bytes.CutSuffix(m, []byte{']'})
		if !ok || !ok2 {
			return bad("not an sshd message", "a repeated message that does not end")
		}
		r.note("message repeated several times, counted once")
		message = bytes.TrimPrefix(m, []byte{' '})
	}
	return r.sshdMessage(message, rec)
}

// syslogTime reads the time at the start of a line and the space behind it.
func (r *Reader) syslogTime(row []byte, rec *Record) (rest []byte, ok bool) {
	if len(row) > 0 && isDigit(row[0]) {
		stamp, rest, _ := bytes.Cut(row, []byte{' '})
		t, odd, ok := parseISO(stamp)
		if ok {
			r.time(rec, t, odd, true)
		}
		return rest, ok
	}
	t, rest, ok, syntax := parseSyslogTime(row, int64(r.opt.Year))
	if !syntax || len(rest) == 0 || rest[0] != ' ' {
		return nil, false
	}
	switch {
	case !ok:
		r.note("time not understood")
	case t == NoTime:
		r.note("time without year, undated")
	default:
		r.time(rec, t, oddNoZone, true)
	}
	return rest[1:], true
}

// Reasons for which lines of sshd are skipped.
const (
	skipPAM      = "repeats an attempt: PAM"
	skipAnnounce = "announces an attempt: user name"
	skipLimit    = "sums up attempts: limit reached"
	skipKey      = "offers a key or none"
	skipEnds     = "start or end of a connection"
	skipOther    = "other sshd message"
)

// sshdSkips are starts of messages that are no attempt of their own.
var sshdSkips = [...]struct{ prefix, reason string }{
	{"pam_", skipPAM},
	{"PAM ", skipPAM},
	{"error: PAM", skipPAM},
	{"Invalid user ", skipAnnounce},
	{"Illegal user ", skipAnnounce},
	{"input_userauth_request: ", skipAnnounce},
	{"error: maximum authentication attempts exceeded", skipLimit},
	{"maximum authentication attempts exceeded", skipLimit},
	{"Disconnecting", skipLimit},
	{"Failed none for ", skipKey},
	{"Failed publickey for ", skipKey},
	{"Postponed ", skipKey},
	{"Connection ", skipEnds},
	{"Received disconnect ", skipEnds},
	{"Disconnected ", skipEnds},
	{"Starting session: ", skipEnds},
	{"Close session: ", skipEnds},
	{"User child is on pid ", skipEnds},
}

// sshdMessage makes a record of a message that stands for an attempt.
func (r *Reader) sshdMessage(m []byte, rec *Record) verdict {
	for _, s := range sshdSkips {
		if len(m) >= len(s.prefix) && string(m[:len(s.prefix)]) == s.prefix {
			return skip(s.reason)
		}
	}
	var address []byte
	ok := true
	switch {
	case bytes.HasPrefix(m, []byte("Failed ")) || bytes.HasPrefix(m, []byte("Accepted ")):
		rec.Label, rec.Outcome = "sshd.failed", OutcomeFailure
		if m[0] == 'A' {
			rec.Label, rec.Outcome = "sshd.accepted", OutcomeSuccess
		}
		var who []byte
		if _, who, ok = bytes.Cut(m, []byte(" for ")); !ok {
			break
		}
		var name []byte
		if name, address, ok = cutSource(who, true); ok {
			if rec.Outcome == OutcomeFailure {
				name = bytes.TrimPrefix(name, []byte("invalid user "))
				name = bytes.TrimPrefix(name, []byte("illegal user "))
			}
			rec.User = r.intern(name)
		}
	case bytes.HasPrefix(m, []byte("Did not receive identification string from ")):
		rec.Label = "sshd.no_identification"
		address = firstWord(m[len("Did not receive identification string from "):])
	case bytes.HasPrefix(m, []byte("Bad protocol version identification '")):
		rec.Label = "sshd.bad_protocol"
		var said []byte
		if said, address, ok = cutSource(m[len("Bad protocol version identification '"):], false); ok {
			rec.Payload = string(bytes.TrimSuffix(said, []byte{'\''}))
		}
	case bytes.HasPrefix(m, []byte("banner exchange: Connection from ")):
		rec.Label = "sshd.bad_protocol"
		address = firstWord(m[len("banner exchange: Connection from "):])
	case bytes.HasPrefix(bytes.TrimPrefix(m, []byte("fatal: ")), []byte("Unable to negotiate with ")):
		rec.Label = "sshd.no_agreement"
		_, m, _ = bytes.Cut(m, []byte(" with "))
		address = bytes.TrimSuffix(firstWord(m), []byte{':'})
	default:
		return skip(skipOther)
	}
	if !ok {
		return bad("not an sshd message", quote(string(cut(m, 80))))
	}
	r.address(rec, address)
	return verdict{}
}

// cutSource splits "… from ADDRESS port N ssh2…" or, without login, "… from
// ADDRESS port N". What stands before is the client's own text and may hold
// the same words, so the last place that fits is the server's.
func cutSource(m []byte, login bool) (before, address []byte, ok bool) {
	for end := len(m); ; {
		i := bytes.LastIndex(m[:end], []byte(" from "))
		if i < 0 {
			return nil, nil, false
		}
		tail := m[i+len(" from "):]
		if n := bytes.IndexByte(cut(tail, 256), ' '); n > 0 {
			port, ok1 := bytes.CutPrefix(tail[n:], []byte(" port "))
			_, rest, ok2 := digits(port, 1, 5)
			if ok1 && ok2 && (login && bytes.HasPrefix(rest, []byte(" ssh")) || !login && len(rest) == 0) {
				return m[:i], tail[:n], true
			}
		}
		end = i
	}
}

func firstWord(b []byte) []byte {
	w, _, _ := bytes.Cut(b, []byte{' '})
	return w
}
