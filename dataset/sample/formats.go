package sample

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// writer is one file in the making.
type writer struct {
	random
	out strings.Builder
}

func (w *writer) line(format string, args ...any) { fmt.Fprintf(&w.out, format+"\n", args...) }

// event is a line with its time, for logs that are written in the order of
// time though many clients act at once.
type event struct {
	at   time.Time
	line string
}

func (w *writer) events(events []event) {
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	for _, e := range events {
		w.line("%s", e.line)
	}
}

// object writes a JSON object: names and values by turns. Strings are quoted,
// jsontext.Values stand as they are.
func object(members ...any) string {
	b := []byte("{")
	for i := 0; i < len(members); i += 2 {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = quote(b, members[i].(string))
		b = append(b, ": "...)
		switch v := members[i+1].(type) {
		case string:
			b = quote(b, v)
		case int:
			b = strconv.AppendInt(b, int64(v), 10)
		case jsontext.Value:
			b = append(b, v...)
		}
	}
	return string(append(b, '}'))
}

func quote(b []byte, s string) []byte {
	b, err := jsontext.AppendQuote(b, s)
	if err != nil {
		panic("sample: internal error: " + err.Error())
	}
	return b
}

func csvField(s string) string {
	if strings.ContainsAny(s, " \",\n") {
		return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	return s
}

// exploits writes an index in the form of files_exploits.csv. Ids lie far above
// those given out, so that the sample can stand beside the real index.
func exploits(w *writer) {
	w.line("id,file,description,date_published,author,type,platform,port,date_added,date_updated,verified,codes,tags,aliases,screenshot_url,application_url,source_url")
	for i := range 600 {
		id := 900_000 + 3*i + w.intn(3)
		kind, titles := "webapps", "webtitle"
		platform := pick(&w.random, []string{"php", "php", "php", "multiple", "java", "asp", "hardware", "linux"})
		ext, port := "txt", ""
		switch n := w.intn(100); {
		case n < 52:
		case n < 72:
			kind, titles, ext = "remote", "remotetitle", pick(&w.random, []string{"py", "rb", "c", "pl"})
			platform = pick(&w.random, []string{"windows", "linux", "multiple", "hardware", "unix"})
			port = pick(&w.random, []string{"", "21", "22", "25", "80", "443", "445", "3306", "8080", "8443", "9100"})
		case n < 86:
			kind, titles, ext = "local", "localtitle", pick(&w.random, []string{"c", "txt", "py"})
			platform = pick(&w.random, []string{"windows", "linux", "macos", "android"})
		default:
			kind, titles, ext = "dos", "dostitle", "py"
			platform = pick(&w.random, []string{"windows", "linux", "ios", "multiple", "hardware"})
		}
		published := time.Date(2014, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, w.intn(4390))
		updated := ""
		if w.chance(40) {
			updated = published.AddDate(0, 0, w.between(1, 60)).Format(time.DateOnly)
		}
		codes := ""
		if w.chance(60) {
			codes = fmt.Sprintf("CVE-%d-9%05d", published.Year(), w.intn(100_000))
			if w.chance(8) {
				codes += fmt.Sprintf(";CVE-%d-9%05d", published.Year(), w.intn(100_000))
			}
		}
		tags := ""
		if w.chance(10) {
			tags = pick(&w.random, []string{"Local", "Remote", "SQL Injection (SQLi)", "Cross-Site Scripting (XSS)", "Buffer Overflow"})
		}
		fields := []string{
			strconv.Itoa(id), fmt.Sprintf("exploits/%s/%s/%d.%s", platform, kind, id, ext), w.text(titles),
			published.Format(time.DateOnly), w.text("author"), kind, platform, port,
			published.AddDate(0, 0, w.between(0, 3)).Format(time.DateOnly), updated, strconv.Itoa(w.intn(2)), codes, tags,
			"", "", "", "",
		}
		for i, f := range fields {
			fields[i] = csvField(f)
		}
		w.line("%s", strings.Join(fields, ","))
	}
}

// attackClasses are the classes that sensors report, with how often they do
// and how bad they find them.
var attackClasses = []struct {
	class, threat string
	weight        int
	levels        []string
}{
	{"sqli", "SQL Injection Attack", 16, []string{"CRITICAL", "DANGEROUS", "DANGEROUS"}},
	{"xss", "XSS Attack", 12, []string{"DANGEROUS", "DANGEROUS", "SUSPICIOUS"}},
	{"traversal", "Directory Traversal Attack", 11, []string{"DANGEROUS", "DANGEROUS", "CRITICAL"}},
	{"cmdi", "Command Injection Attack", 11, []string{"CRITICAL", "CRITICAL", "DANGEROUS"}},
	{"inclusion", "LFI/RFI Attack", 10, []string{"DANGEROUS", "CRITICAL"}},
	{"xxe", "XML/XXE Injection Attack", 5, []string{"DANGEROUS", "CRITICAL"}},
	{"ssrf", "SSRF Attack", 5, []string{"DANGEROUS"}},
	{"scanner", "Security Scanner Detected", 14, []string{"SUSPICIOUS", "WARNING", "SUSPICIOUS"}},
	{"brute", "Brute Force Attack", 10, []string{"DANGEROUS", "SUSPICIOUS"}},
	{"flood", "DDoS Attack", 6, []string{"CRITICAL", "DANGEROUS"}},
}

// threatLog writes the local threat log of a sensor, as JSON lines: attacks
// that come in short runs from one address, and ordinary traffic between them.
func threatLog(w *writer, rows int) {
	var events []event
	for len(events) < rows {
		class, threat, levels, from := "benign", "benign", []string{"SAFE", "SAFE", "INFO"}, w.visitor()
		run := w.between(1, 5)
		if w.chance(62) {
			n := w.intn(100)
			for _, c := range attackClasses {
				if n -= c.weight; n < 0 {
					class, threat, levels = c.class, c.threat, c.levels
					break
				}
			}
			from, run = w.attacker(), w.between(1, 6)
			if class == "flood" || class == "brute" {
				run += 3
			}
		}
		agent := w.text("agent")
		if class != "benign" && w.chance(70) {
			agent = w.text("scanneragent")
		}
		at := w.instant()
		for range run {
			method, target := w.request(class)
			events = append(events, event{at, w.threat(at, from, threat, pick(&w.random, levels), method, target, agent)})
			if class == "benign" {
				at = w.later(at, 2, 120)
			} else {
				at = w.later(at, 0, 8)
			}
		}
	}
	w.events(events[:rows])
}

func (w *writer) threat(at time.Time, from, threat, level, method, target, agent string) string {
	stamp := at.Format("2006-01-02T15:04:05.000000-07:00")
	switch w.intn(3) {
	case 0:
		stamp = at.Format("2006-01-02T15:04:05.000000") + "Z"
	case 1:
		stamp = at.In(time.FixedZone("", 8*3600)).Format("2006-01-02T15:04:05.000000-07:00")
	}
	action := "monitored"
	if level == "CRITICAL" || level == "DANGEROUS" {
		action = pick(&w.random, []string{"blocked", "blocked", "dropped"})
	}
	return object(
		"timestamp", stamp, "ip_address", from, "threat_type", threat, "details", method+" "+target,
		"level", level, "action", action,
		"geolocation", jsontext.Value(object("country", w.text("country"))),
		"behavioral_metrics", jsontext.Value("null"), "source", "local", "user_agent", agent)
}

// relayed writes what a relay keeps: one JSON array in the sensors' sending
// form, with the housekeeping messages that get in between.
func relayed(w *writer) {
	var events []event
	for len(events) < 380 {
		at := w.instant()
		n := w.intn(100)
		class, threat, severity := "benign", "benign", "low"
		from := w.visitor()
		if n < 66 {
			for _, c := range attackClasses {
				if n -= c.weight; n < 0 {
					class, threat = c.class, c.threat
					break
				}
			}
			if class == "benign" {
				continue
			}
			severity = pick(&w.random, []string{"medium", "high", "critical", "high"})
			from = w.attacker()
		}
		method, target := w.request(class)
		stamp := at.Format("2006-01-02T15:04:05.000000-07:00") + "Z"
		events = append(events, event{at, object(
			"type", "threat", "threat_id", fmt.Sprintf("valley-%d", at.UnixMilli()), "source_peer", "valley",
			"attack_type", threat, "severity", severity, "src_ip", from,
			"geolocation", jsontext.Value(object("country", w.text("country"), "asn", fmt.Sprintf("AS%d", w.between(64496, 64511)))),
			"timestamp", stamp, "ml_confidence", jsontext.Value(fmt.Sprintf("0.%02d", w.between(50, 99))),
			"exploit_match", "", "cve_match", jsontext.Value("[]"), "details", method+" "+target)})
		if len(events)%60 == 0 {
			events = append(events, event{at, object(
				"attack_type", "backup_issue", "backup_location", "/srv/backup", "status", "stale", "hours_since_backup", w.between(25, 90),
				"severity", "medium", "timestamp", at.Format("2006-01-02T15:04:05"), "source", "backup_monitor", "relay_server", "relay")})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	lines := make([]string, len(events))
	for i, e := range events {
		lines[i] = "  " + e.line
	}
	w.line("[\n%s\n]", strings.Join(lines, ",\n"))
}

// accessLine is a line of a web server's log in the combined format.
func (w *writer) accessLine(at time.Time, from, class, agent, referer string) event {
	method, target := w.request(class)
	status := 200
	switch {
	case class == "scanner" || class == "brute":
		status = pick(&w.random, []int{404, 404, 404, 403, 200, 401})
	case class != "benign":
		status = pick(&w.random, []int{200, 403, 404, 500, 400})
	case w.chance(12):
		status = pick(&w.random, []int{304, 301, 404})
	}
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	size := strconv.Itoa(w.between(120, 60_000))
	if status == 304 {
		size = "-"
	}
	stamp := at.In(time.FixedZone("", 3600)).Format("02/Jan/2006:15:04:05 -0700")
	return event{at, fmt.Sprintf(`%s - - [%s] "%s %s HTTP/1.1" %d %s "%s" "%s"`,
		from, stamp, method, escape.Replace(strings.ReplaceAll(target, " ", "%20")), status, size, escape.Replace(referer), escape.Replace(agent))}
}

// visitors writes the log of a shop with nothing but ordinary visitors and
// crawlers.
func visitors(w *writer) {
	const rows = 620
	var events []event
	for len(events) < rows {
		from, agent, referer, at := w.visitor(), w.text("agent"), "-", w.instant()
		for range w.between(1, 9) {
			e := w.accessLine(at, from, "benign", agent, referer)
			events = append(events, e)
			referer = "https://shop.example/" + w.text("word")
			referer = strings.ReplaceAll(referer, " ", "-")
			at = w.later(at, 1, 90)
		}
	}
	w.events(events[:rows])
}

// mixed writes the log of a server that is attacked now and then; nobody
// labelled it.
func mixed(w *writer) {
	const rows = 220
	var events []event
	for len(events) < rows {
		class, from, agent, run := "benign", w.visitor(), w.text("agent"), w.between(1, 6)
		if w.chance(25) {
			class = pick(&w.random, []string{"scanner", "scanner", "sqli", "xss", "traversal", "cmdi", "brute"})
			from, agent, run = w.attacker(), w.text("scanneragent"), w.between(2, 9)
		}
		at := w.instant()
		for range run {
			events = append(events, w.accessLine(at, from, class, agent, "-"))
			at = w.later(at, 0, 40)
		}
	}
	w.events(events[:rows])
}

// payloads writes labelled parameter values.
func payloads(w *writer) {
	w.line("payload,length,attack_type,label")
	kinds := []struct {
		rule, class, label string
		weight             int
	}{
		{"value", "norm", "norm", 50}, {"sqli", "sqli", "anom", 20}, {"xss", "xss", "anom", 12},
		{"traversal", "path-traversal", "anom", 9}, {"cmdi", "cmdi", "anom", 9},
	}
	for range 640 {
		n := w.intn(100)
		for _, k := range kinds {
			if n -= k.weight; n < 0 {
				s := w.disguise(k.rule, w.text(k.rule))
				if w.chance(10) {
					s = w.escape(s)
				}
				w.line("%s,%d,%s,%s", csvField(s), utf8.RuneCountInString(s), k.class, k.label)
				break
			}
		}
	}
}

// sshd writes the system log of a host that people log in to and that is
// guessed at. The traditional form has no year.
func sshd(w *writer) {
	const rows = 300
	first := time.Date(2025, 10, 1, 0, 0, 0, 0, time.UTC)
	var events []event
	add := func(at time.Time, program, format string, args ...any) {
		events = append(events, event{at, at.Format("Jan _2 15:04:05") + " gate " + program + ": " + fmt.Sprintf(format, args...)})
	}
	for len(events) < rows {
		at := first.Add(time.Duration(w.intn(91*86400)) * time.Second)
		pid := fmt.Sprintf("sshd[%d]", w.between(900, 32000))
		port := w.between(1024, 65000)
		switch n := w.intn(100); {
		case n < 45:
			from := w.attacker()
			for range w.between(1, 7) {
				user := w.text("guessed")
				if w.chance(60) {
					add(at, pid, "Invalid user %s from %s port %d", user, from, port)
					add(at, pid, "Failed password for invalid user %s from %s port %d ssh2", user, from, port)
				} else {
					add(at, pid, "Failed password for root from %s port %d ssh2", from, port)
				}
				at = w.later(at, 1, 6).Truncate(time.Second)
			}
		case n < 75:
			from := w.visitor()
			user := w.text("login")
			if w.chance(15) {
				add(at, pid, "Failed password for %s from %s port %d ssh2", user, from, port)
				at = w.later(at, 3, 20).Truncate(time.Second)
			}
			add(at, pid, "Accepted %s for %s from %s port %d ssh2", pick(&w.random, []string{"publickey", "publickey", "password"}), user, from, port)
			add(at, pid, "pam_unix(sshd:session): session opened for user %s by (uid=0)", user)
		case n < 90:
			add(at, fmt.Sprintf("CRON[%d]", w.between(900, 32000)), "pam_unix(cron:session): session opened for user root by (uid=0)")
		default:
			add(at, pid, "Received disconnect from %s port %d:11: Bye Bye [preauth]", w.attacker(), port)
		}
	}
	w.events(events[:rows])
}

// cowrie writes the log of an SSH honeypot.
func cowrie(w *writer) {
	const rows = 380
	var events []event
	for len(events) < rows {
		from, at := w.attacker(), w.instant()
		session := w.text("session")
		add := func(id, message string, members ...any) {
			all := append([]any{"eventid", "cowrie." + id, "src_ip", from, "timestamp", at.Format("2006-01-02T15:04:05.000000Z"),
				"session", session, "sensor", "trap", "message", message}, members...)
			events = append(events, event{at, object(all...)})
			at = w.later(at, 0, 3)
		}
		add("session.connect", "New connection: "+from, "src_port", w.between(1024, 65000), "dst_ip", "192.0.2.22", "dst_port", 2222)
		client := w.text("sshclient")
		add("client.version", "Remote SSH version: "+client, "version", client)
		in := false
		for range w.between(1, 4) {
			user, password := w.text("guessed"), w.text("password")
			in = w.chance(15)
			id := "login.failed"
			if in {
				id = "login.success"
			}
			add(id, fmt.Sprintf("login attempt [%s/%s]", user, password), "username", user, "password", password)
			if in {
				break
			}
		}
		if in {
			for range w.between(1, 4) {
				c := w.text("command")
				add("command.input", "CMD: "+c, "input", c)
			}
		}
		add("session.closed", "Connection lost", "duration", w.between(1, 40))
	}
	w.events(events[:rows])
}

// honeypot writes the log of a honeypot with personas.
func honeypot(w *writer) {
	personas := []struct {
		name, service string
		port          int
		input         string
	}{
		{"web", "http", 8080, ""}, {"shell", "telnet", 2323, "command"}, {"database", "mysql", 3306, "sqli"}, {"shop", "http", 8081, ""},
	}
	var events []event
	for range 90 {
		p := pick(&w.random, personas)
		at := w.instant()
		input := ""
		if p.input != "" {
			input = w.text(p.input)
		} else {
			method, target := w.request(pick(&w.random, []string{"scanner", "sqli", "cmdi", "traversal", "inclusion"}))
			input = method + " " + target + " HTTP/1.1"
		}
		events = append(events, event{at, object(
			"timestamp", at.Format("2006-01-02T15:04:05.000000-07:00"), "source_ip", w.attacker(), "source_port", w.between(1024, 65000),
			"honeypot_persona", p.name, "honeypot_port", p.port, "service_name", p.service,
			"attacker_input", input, "banner_sent", p.service+" ready", "analysis", jsontext.Value("{}"))})
	}
	w.events(events)
}
