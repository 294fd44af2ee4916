// Package record is one observed event: its fields, the readers that make it
// from every supported log format, its canonical form, and the privacy
// transforms that are applied before anything else sees it. Training and
// serving read records through this package and no other.
package record

import "math"

// NoTime is the Time of an undated record.
const NoTime int64 = math.MinInt64

// Outcome says how an attempt to log in ended, where the event says it.
type Outcome int32

const (
	OutcomeUnknown Outcome = iota
	OutcomeSuccess
	OutcomeFailure
)

// Level is the severity of an event on the scale of the sensors' threat log.
type Level int32

const (
	LevelUnknown Level = iota
	LevelSafe
	LevelInfo
	LevelWarning
	LevelSuspicious
	LevelDangerous
	LevelCritical
)

// Record is one observed event. In canonical form, which readers give, text
// fields hold valid UTF-8 of at most MaxName bytes, and Payload, Agent and
// Referer of at most MaxText; all but Address, Protocol and Method may hold
// what an attacker chose. The zero value of a field means unknown, except
// Time, whose unknown is NoTime.
type Record struct {
	Site     string  // who shared it; "" for files
	Time     int64   // microseconds since 1970-01-01 UTC, or NoTime
	Address  string  // source: IPv4 or IPv6 text as net/netip prints it, or a keyed hash, as Privacy says; else ""
	Kind     Kind    // the format it was read from; never a feature
	Event    string  // id given by the sensor; never a feature
	Protocol string  // lower case: "http", "ssh", "tcp", …
	Port     int32   // destination port, 0 to 65535
	Method   string  // HTTP method, upper case
	Payload  string  // request target, parameter value, command line or details
	Agent    string  // user agent or client version
	Referer  string  // HTTP referer
	User     string  // account name tried
	Status   int32   // HTTP status answered, 100 to 599
	Size     int64   // bytes answered
	Outcome  Outcome // of a log-in; history only, never a feature of its own event
	Label    string  // class as the source names it, lower case; "unknown" is ""; never a feature
	Level    Level   // never a feature
	Exploit  int64   // EDB id of the exploit that Payload was taken from
}
