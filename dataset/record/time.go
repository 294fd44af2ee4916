package record

import "bytes"

// timeOddity is what is unusual about a time that was understood.
type timeOddity uint8

const (
	oddNoZone  timeOddity = 1 << iota // none given: UTC assumed
	oddOffsetZ                        // both an offset and Z: the offset counts
)

// parseTime reads ISO 8601 (parseISO) and decimal seconds since 1970-01-01
// UTC, in microseconds; further digits are dropped, not rounded.
func parseTime(s []byte) (t int64, odd timeOddity, ok bool) {
	s = bytes.TrimSpace(s)
	if len(s) > 4 && s[4] == '-' {
		return parseISO(s)
	}
	sec, rest, ok := digits(s, 1, 12)
	if !ok {
		return 0, 0, false
	}
	frac := int64(0)
	if len(rest) > 0 {
		if frac, rest, ok = fraction(rest); !ok || len(rest) > 0 {
			return 0, 0, false
		}
	}
	t = sec*1e6 + frac
	return t, 0, t <= maxTime
}

// parseISO reads YYYY-MM-DD, T or a space, hh:mm:ss, an optional fraction, and
// an optional zone: Z, ±hh, ±hhmm, ±hh:mm, or such an offset and then Z.
func parseISO(s []byte) (t int64, odd timeOddity, ok bool) {
	year, s, ok1 := digits(s, 4, 4)
	month, s, ok2 := digits(after(s, '-'), 2, 2)
	day, s, ok3 := digits(after(s, '-'), 2, 2)
	if !ok1 || !ok2 || !ok3 || len(s) == 0 || s[0] != 'T' && s[0] != ' ' && s[0] != 't' {
		return 0, 0, false
	}
	clock, s, ok1 := clock(s[1:])
	date, ok2 := dayNumber(year, month, day)
	if !ok1 || !ok2 {
		return 0, 0, false
	}
	t = date*86400e6 + clock*1e6
	if len(s) > 0 && (s[0] == '.' || s[0] == ',') {
		var frac int64
		if frac, s, ok = fraction(s); !ok {
			return 0, 0, false
		}
		t += frac
	}
	switch {
	case len(s) == 0:
		return t, oddNoZone, inRange(t)
	case len(s) == 1 && (s[0] == 'Z' || s[0] == 'z'):
		return t, 0, inRange(t)
	}
	zone, s, ok := offset(s)
	if !ok {
		return 0, 0, false
	}
	t -= zone * 1e6
	switch string(s) {
	case "":
	case "Z", "z":
		odd = oddOffsetZ
	default:
		return 0, 0, false
	}
	return t, odd, inRange(t)
}

// parseAccessTime reads 07/Mar/2004:16:05:49 -0800.
func parseAccessTime(s []byte) (t int64, ok bool) {
	day, s, ok1 := digits(s, 2, 2)
	month, s, ok2 := monthName(after(s, '/'))
	year, s, ok3 := digits(after(s, '/'), 4, 4)
	clock, s, ok4 := clock(after(s, ':'))
	if !ok1 || !ok2 || !ok3 || !ok4 || len(s) == 0 || s[0] != ' ' {
		return 0, false
	}
	zone, s, ok1 := offset(s[1:])
	date, ok2 := dayNumber(year, month, day)
	if !ok1 || !ok2 || len(s) > 0 {
		return 0, false
	}
	t = date*86400e6 + (clock-zone)*1e6
	return t, inRange(t)
}

// parseSyslogTime reads "Mar 27 13:06:56", whose day may be padded with a
// space, in UTC of the given year, and returns what follows it. Year 0 gives
// NoTime, as does a day that the year does not have, which is not ok.
func parseSyslogTime(s []byte, year int64) (t int64, rest []byte, ok, syntax bool) {
	month, s, ok1 := monthName(s)
	s = after(s, ' ')
	if len(s) > 0 && s[0] == ' ' {
		s = s[1:]
	}
	day, s, ok2 := digits(s, 1, 2)
	clock, s, ok3 := clock(after(s, ' '))
	if !ok1 || !ok2 || !ok3 || day < 1 || day > 31 {
		return NoTime, nil, false, false
	}
	if year == 0 {
		return NoTime, s, true, true
	}
	date, ok := dayNumber(year, month, day)
	if !ok {
		return NoTime, s, false, true
	}
	return date*86400e6 + clock*1e6, s, true, true
}

func inRange(t int64) bool { return minTime <= t && t <= maxTime }

// after returns s without its first byte c, or nil when it does not start so.
func after(s []byte, c byte) []byte {
	if len(s) == 0 || s[0] != c {
		return nil
	}
	return s[1:]
}

// digits reads a decimal number of least to most digits.
func digits(s []byte, least, most int) (n int64, rest []byte, ok bool) {
	i := 0
	for i < len(s) && i < most && isDigit(s[i]) {
		n = n*10 + int64(s[i]-'0')
		i++
	}
	return n, s[i:], i >= least
}

// fraction reads a separator and the digits behind it as microseconds.
func fraction(s []byte) (us int64, rest []byte, ok bool) {
	i := 1
	for scale := int64(100_000); i < len(s) && isDigit(s[i]); i++ {
		us += int64(s[i]-'0') * scale
		scale /= 10
	}
	return us, s[i:], i > 1 && (s[0] == '.' || s[0] == ',')
}

// clock reads hh:mm:ss as seconds; a leap second counts as the next one.
func clock(s []byte) (sec int64, rest []byte, ok bool) {
	h, s, ok1 := digits(s, 2, 2)
	m, s, ok2 := digits(after(s, ':'), 2, 2)
	sec, s, ok3 := digits(after(s, ':'), 2, 2)
	return h*3600 + m*60 + sec, s, ok1 && ok2 && ok3 && h < 24 && m < 60 && sec <= 60
}

// offset reads ±hh, ±hhmm or ±hh:mm as seconds east of UTC.
func offset(s []byte) (sec int64, rest []byte, ok bool) {
	if len(s) == 0 || s[0] != '+' && s[0] != '-' {
		return 0, nil, false
	}
	sign := int64(1)
	if s[0] == '-' {
		sign = -1
	}
	h, s, ok := digits(s[1:], 2, 2)
	colon := len(s) > 0 && s[0] == ':'
	if colon {
		s = s[1:]
	}
	m := int64(0)
	if colon || len(s) > 0 && isDigit(s[0]) {
		var okm bool
		m, s, okm = digits(s, 2, 2)
		ok = ok && okm
	}
	return sign * (h*3600 + m*60), s, ok && h < 24 && m < 60
}

// monthName reads an English month of three letters, the first a capital.
func monthName(s []byte) (month int64, rest []byte, ok bool) {
	if len(s) < 3 {
		return 0, nil, false
	}
	switch string(s[:3]) {
	case "Jan":
		month = 1
	case "Feb":
		month = 2
	case "Mar":
		month = 3
	case "Apr":
		month = 4
	case "May":
		month = 5
	case "Jun":
		month = 6
	case "Jul":
		month = 7
	case "Aug":
		month = 8
	case "Sep":
		month = 9
	case "Oct":
		month = 10
	case "Nov":
		month = 11
	case "Dec":
		month = 12
	}
	return month, s[3:], month > 0
}

// dayNumber returns the days from 1970-01-01 to a date of the Gregorian
// calendar in the years 1 to 9999.
func dayNumber(year, month, day int64) (int64, bool) {
	if year < 1 || year > 9999 || month < 1 || month > 12 || day < 1 {
		return 0, false
	}
	leap := year%4 == 0 && (year%100 != 0 || year%400 == 0)
	before := [...]int64{0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365}
	length := before[month] - before[month-1]
	if leap && month == 2 {
		length++
	}
	if day > length {
		return 0, false
	}
	n := before[month-1] + day - 1
	if leap && month > 2 {
		n++
	}
	y := year - 1
	return n + y*365 + y/4 - y/100 + y/400 - 719162, true
}
