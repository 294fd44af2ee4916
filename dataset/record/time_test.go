package record

import (
	"testing"
	"time"
)

func TestTimesOfAllFormats(t *testing.T) {
	const want = 1768033337_660475 // 2026-01-10T08:22:17.660475Z
	for _, c := range []struct {
		s   string
		t   int64
		odd timeOddity
	}{
		{"2026-01-10T08:22:17.660475Z", want, 0},
		{"2026-01-10T08:22:17.660475+00:00Z", want, oddOffsetZ},
		{"2026-01-10T16:22:17.660475+08:00", want, 0},
		{"2026-01-10T16:22:17.660475+0800", want, 0},
		{"2026-01-10T04:22:17.660475-04", want, 0},
		{"2026-01-10T16:22:17.660475+08:00Z", want, oddOffsetZ},
		{"2026-01-10T08:22:17.660475", want, oddNoZone},
		{" 2026-01-10 08:22:17,660475z ", want, 0},
		{"2026-01-10t08:22:17.6604759999Z", want, 0},
		{"2026-01-10T08:22:17Z", want - 660475, 0},
		{"1768033337.660475", want, 0},
		{"1768033337.66047599", want, 0},
		{"1768033337", want - 660475, 0},
		{"0", 0, 0},
		{"1970-01-01T00:00:00Z", 0, 0},
		{"0001-01-01T00:00:00Z", minTime, 0},
		{"9999-12-31T23:59:59.999999Z", maxTime, 0},
		{"2016-12-31T23:59:60Z", 1483228800_000000, 0},
		{"2000-02-29T00:00:00Z", 951782400_000000, 0},
	} {
		got, odd, ok := parseTime([]byte(c.s))
		if got != c.t || odd != c.odd || !ok {
			t.Errorf("%q is %d, %d, %v; want %d, %d", c.s, got, odd, ok, c.t, c.odd)
		}
	}
	for _, s := range []string{
		"", "now", "2026-01-10", "2026-01-10T", "2026-01-10T08:22", "2026-01-10T24:00:00Z", "2026-01-10T08:60:00Z", "2026-01-10T08:00:61Z",
		"2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "2026-04-31T00:00:00Z",
		"0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2026-01-10T08:22:17.Z", "2026-01-10T08:22:17X",
		"2026-01-10T08:22:17+", "2026-01-10T08:22:17+8", "2026-01-10T08:22:17+08:", "2026-01-10T08:22:17+24:00", "2026-01-10T08:22:17+08:60", "2026-01-10T08:22:17+08:00ZZ",
		"-1", "1.", ".5", "1e9", "1,5x", "0x10", "253402300800", "1768033337660475", "NaN",
	} {
		if got, _, ok := parseTime([]byte(s)); ok {
			t.Errorf("%q is %d", s, got)
		}
	}
}

func TestSyslogAndAccessTimes(t *testing.T) {
	for _, s := range []string{"Mar  7 13:06:56", "Mar 7 13:06:56", "Mar 07 13:06:56"} {
		got, rest, ok, syntax := parseSyslogTime([]byte(s+" host"), 2017)
		if got != 1488892016_000000 || string(rest) != " host" || !ok || !syntax {
			t.Errorf("%q is %d, %q, %v, %v", s, got, rest, ok, syntax)
		}
	}
	if got, _, ok, syntax := parseSyslogTime([]byte("Feb 29 13:06:56 host"), 0); got != NoTime || !ok || !syntax {
		t.Errorf("without year: %d, %v, %v", got, ok, syntax)
	}
	if got, _, ok, syntax := parseSyslogTime([]byte("Feb 29 13:06:56 host"), 2017); got != NoTime || ok || !syntax {
		t.Errorf("a day that the year lacks: %d, %v, %v", got, ok, syntax)
	}
	for _, s := range []string{"", "Mar", "mar 27 13:06:56", "Mar 32 13:06:56", "Mar 27 13:06", "Mar   7 13:06:56", "Foo 27 13:06:56"} {
		if _, _, _, syntax := parseSyslogTime([]byte(s), 2017); syntax {
			t.Errorf("%q is a syslog time", s)
		}
	}
	if got, ok := parseAccessTime([]byte("07/Mar/2004:16:05:49 -0800")); got != 1078704349_000000 || !ok {
		t.Errorf("access time: %d, %v", got, ok)
	}
	for _, s := range []string{"", "07/Mar/2004:16:05:49", "7/Mar/2004:16:05:49 -0800", "07/03/2004:16:05:49 -0800", "30/Feb/2004:16:05:49 -0800", "07/Mar/2004:16:05:49 -0800 ", "07/Mar/2004:16:05:49 PST"} {
		if got, ok := parseAccessTime([]byte(s)); ok {
			t.Errorf("%q is %d", s, got)
		}
	}
}

func TestDayNumberAgreesWithTheStandardLibrary(t *testing.T) {
	for day := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() < 10000; day = day.AddDate(0, 0, 13) {
		y, m, d := day.Date()
		n, ok := dayNumber(int64(y), int64(m), int64(d))
		if !ok || n*86400 != day.Unix() {
			t.Fatalf("%v: day %d, %v", day, n, ok)
		}
	}
}
