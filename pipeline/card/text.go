package card

import (
	"strconv"
	"strings"
	"time"
)

// percent prints parts per million with two decimals, and whole percents
// without. So only a whole is printed as 100% and only nothing as 0%.
func percent(ppm int64) string {
	if ppm%10_000 == 0 {
		return strconv.FormatInt(ppm/10_000, 10) + "%"
	}
	q := min((ppm+50)/100, 9999)
	if q == 0 {
		return "<0.01%"
	}
	return strconv.FormatInt(q/100, 10) + "." + padded(q%100, 2) + "%"
}

// fraction prints parts per million as a number from 0 to 1 with four
// decimals, rounded; only a whole is printed as 1.0000.
func fraction(ppm int64) string {
	q := (ppm + 50) / 100
	if ppm < million {
		q = min(q, 9999)
	}
	return strconv.FormatInt(q/10_000, 10) + "." + padded(q%10_000, 4)
}

func padded(n int64, digits int) string {
	s := strconv.FormatInt(n, 10)
	return strings.Repeat("0", max(0, digits-len(s))) + s
}

// count prints a number with a comma before each three digits.
func count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func date(t time.Time) string { return t.Format("2006-01-02") }

// words turns a name into words.
func words(name string) string { return strings.ReplaceAll(name, "_", " ") }
