package record

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

// reading is everything that one input gives.
type reading struct {
	rows   []string // AppendJSON of each record
	errs   []string // text of each RowError
	report Report
}

func read(t testing.TB, r io.Reader, kind Kind, opt Options) reading {
	t.Helper()
	rd, err := NewReader(r, kind, opt)
	if err != nil {
		t.Fatal(err)
	}
	var out reading
	for {
		rec := Record{Payload: "left over", Exploit: 7}
		err := rd.Next(&rec)
		var bad *RowError
		switch {
		case err == io.EOF:
			if again := rd.Next(&rec); again != io.EOF {
				t.Fatalf("after the end: %v", again)
			}
			out.report = rd.Report()
			checkSums(t, out)
			return out
		case errors.As(err, &bad):
			if bad.Line != rd.Line() {
				t.Errorf("RowError of line %d, Line says %d", bad.Line, rd.Line())
			}
			out.errs = append(out.errs, err.Error())
			continue
		case err != nil:
			t.Fatal(err)
		}
		if err := rec.Check(); err != nil {
			t.Fatalf("line %d: %v: %+v", rd.Line(), err, rec)
		}
		out.rows = append(out.rows, string(AppendJSON(nil, &rec)))
	}
}

// checkSums checks that every row is accounted for.
func checkSums(t testing.TB, got reading) {
	t.Helper()
	sum := int64(len(got.rows))
	if got.report.Kept != sum {
		t.Errorf("%d records, Kept is %d", sum, got.report.Kept)
	}
	bad := int64(0)
	for _, c := range got.report.Bad {
		bad += c.Rows
	}
	if bad != int64(len(got.errs)) {
		t.Errorf("%d row errors, %d counted", len(got.errs), bad)
	}
	sum += bad
	for _, c := range got.report.Skipped {
		sum += c.Rows
	}
	if sum != got.report.Rows {
		t.Errorf("Rows is %d, kept, skipped and bad make %d", got.report.Rows, sum)
	}
	for _, list := range [][]Count{got.report.Skipped, got.report.Bad, got.report.Quirks} {
		if !slices.IsSortedFunc(list, func(a, b Count) int { return strings.Compare(a.Reason, b.Reason) }) {
			t.Errorf("counts are not sorted: %v", list)
		}
		for _, c := range list {
			if int64(len(c.Lines)) != min(5, c.Rows) || !slices.IsSorted(c.Lines) {
				t.Errorf("%q counts %d rows with lines %v", c.Reason, c.Rows, c.Lines)
			}
		}
	}
}

func byReason(list []Count) map[string]int64 {
	m := map[string]int64{}
	for _, c := range list {
		m[c.Reason] = c.Rows
	}
	return m
}

func TestRealFilesGiveTheirKnownCounts(t *testing.T) {
	for _, c := range []struct {
		kind                    Kind
		file                    string
		rows, kept, undated     int64
		skipped, quirks, labels map[string]int64
	}{
		{
			kind: Attacks, file: "attack-records/peer_threats.json", rows: 180, kept: 180,
			quirks: map[string]int64{"empty address": 180, "no class": 180, "no text understood": 180},
			labels: map[string]int64{"": 180},
		},
		{
			kind: Labelled, file: "attack-records/sample_dataset.csv", rows: 10, kept: 10, undated: 10,
			labels: map[string]int64{"sql injection": 1, "xss attack": 1, "port scan": 1, "ddos": 1, "brute force": 1, "normal traffic": 5},
		},
		{
			kind: Labelled, file: "http-attacks/payload_full.csv", rows: 31067, kept: 31067, undated: 31067,
			quirks: map[string]int64{"CRLF line ends": 31067, "doubled quotes": 3785, "length column differs": 15},
			labels: map[string]int64{"norm": 19304, "sqli": 10852, "xss": 532, "path-traversal": 290, "cmdi": 89},
		},
		{
			kind: Labelled, file: "http-attacks/payload_train.csv", rows: 20712, kept: 20712, undated: 20712,
			quirks: map[string]int64{"CRLF line ends": 20712, "doubled quotes": 2508, "length column differs": 7},
			labels: map[string]int64{"norm": 12870, "sqli": 7235, "xss": 355, "path-traversal": 193, "cmdi": 59},
		},
		{
			kind: Labelled, file: "http-attacks/payload_test.csv", rows: 10355, kept: 10355, undated: 10355,
			quirks: map[string]int64{"CRLF line ends": 10355, "doubled quotes": 1277, "length column differs": 8},
			labels: map[string]int64{"norm": 6434, "sqli": 3617, "xss": 177, "path-traversal": 97, "cmdi": 30},
		},
		{
			kind: Access, file: "http-attacks/access-2004.log", rows: 1535, kept: 1535,
			quirks: map[string]int64{"CRLF line ends": 1535, "host name instead of address": 696},
			labels: map[string]int64{"": 1535},
		},
		{
			kind: SSHD, file: "auth/auth.log", rows: 7121, kept: 975, undated: 975,
			skipped: map[string]int64{
				"no network event: cron": 1264, "no network event: chpasswd": 417, "no network event: groupadd": 3,
				"no network event: su": 45, "no network event: sudo": 557, "no network event: systemd": 238,
				"no network event: systemd-logind": 452, "no network event: useradd": 50,
				"announces an attempt: user name": 356, "repeats an attempt: PAM": 1402, "sums up attempts: limit reached": 378,
				"offers a key or none": 4, "start or end of a connection": 966, "other sshd message": 14,
			},
			quirks: map[string]int64{"time without year, undated": 7121, "message repeated several times, counted once": 85},
			labels: map[string]int64{
				"sshd.accepted": 226, "sshd.failed": 713,
				"sshd.bad_protocol": 18, "sshd.no_identification": 14, "sshd.no_agreement": 4,
			},
		},
		{
			kind: Cowrie, file: "honeypot/cowrie-2018-05.json", rows: 34774, kept: 23957,
			skipped: map[string]int64{
				"cowrie.session.closed": 8068, "cowrie.direct-tcpip.data": 2400, "cowrie.log.open": 160,
				"cowrie.log.closed": 146, "cowrie.client.size": 19, "cowrie.command.failed": 18, "cowrie.client.var": 6,
			},
			labels: map[string]int64{
				"cowrie.session.connect": 8068, "cowrie.client.version": 7313, "cowrie.login.failed": 5312,
				"cowrie.login.success": 691, "cowrie.direct-tcpip.request": 2400, "cowrie.command.input": 167,
				"cowrie.session.file_download": 4, "cowrie.session.file_download.failed": 2,
			},
		},
		{
			kind: Requests, file: "exploitdb/poc-requests.jsonl.gz", rows: 36306, kept: 36306, undated: 36306,
			labels: map[string]int64{"": 36306},
		},
		{
			// 48,126 lines, 61 of them blank.
			kind: Targets, file: "http-attacks/scanner-queries.txt", rows: 48065, kept: 48065, undated: 48065,
			quirks: map[string]int64{"CRLF line ends": 48065},
			labels: map[string]int64{"": 48065},
		},
	} {
		t.Run(c.file, func(t *testing.T) {
			f, err := os.Open(testkit.Data(t, c.file))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var in io.Reader = f
			if strings.HasSuffix(c.file, ".gz") {
				if in, err = gzip.NewReader(f); err != nil {
					t.Fatal(err)
				}
			}
			rd, err := NewReader(in, c.kind, Options{})
			if err != nil {
				t.Fatal(err)
			}
			labels := map[string]int64{}
			var lines, rows []byte
			var ends []int
			for {
				var rec, back Record
				err := rd.Next(&rec)
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				labels[rec.Label]++
				row := rec.AppendRow(nil)
				if err := DecodeRow(row, &back); err != nil || back != rec {
					t.Fatalf("decoded row: %v: %+v, want %+v", err, back, rec)
				}
				lines = append(AppendJSON(lines, &rec), '\n')
				rows = append(rows, row...)
				ends = append(ends, len(rows))
			}
			got := rd.Report()
			if got.Rows != c.rows || got.Kept != c.kept || got.Undated != c.undated || len(got.Bad) > 0 {
				t.Errorf("rows %d kept %d undated %d bad %v, want %d %d %d none", got.Rows, got.Kept, got.Undated, got.Bad, c.rows, c.kept, c.undated)
			}
			for _, m := range []struct {
				name      string
				got, want map[string]int64
			}{
				{"skipped", byReason(got.Skipped), c.skipped}, {"quirks", byReason(got.Quirks), c.quirks}, {"labels", labels, c.labels},
			} {
				if !maps.Equal(m.got, m.want) {
					t.Errorf("%s: got %v, want %v", m.name, m.got, m.want)
				}
			}

			replay, err := NewReader(bytes.NewReader(lines), Attacks, Options{})
			if err != nil {
				t.Fatal(err)
			}
			from := 0
			for i, end := range ends {
				var rec Record
				if err := replay.Next(&rec); err != nil {
					t.Fatal(err)
				}
				if row := rec.AppendRow(nil); !bytes.Equal(row, rows[from:end]) {
					t.Fatalf("record %d is another one after AppendJSON: %+v", i, rec)
				}
				from = end
			}
			if err := replay.Next(new(Record)); err != io.EOF {
				t.Errorf("after the replay: %v", err)
			}
			if r := replay.Report(); len(r.Quirks) > 0 {
				t.Errorf("AppendJSON's form has quirks: %v", r.Quirks)
			}
		})
	}
}

// TestYearDatesSyslog checks that a year makes dated what is undated without.
func TestYearDatesSyslog(t *testing.T) {
	f, err := os.Open(testkit.Data(t, "auth/auth.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := read(t, f, SSHD, Options{Year: 2017})
	if got.report.Undated != 0 || got.report.Kept != 975 {
		t.Errorf("undated %d of %d", got.report.Undated, got.report.Kept)
	}
	if !strings.Contains(got.rows[0], `"timestamp":"2017-03-27T13:08:09.000000Z"`) {
		t.Errorf("first record %s", got.rows[0])
	}
}

const csvHeader = "payload,length,attack_type,label\n"

// formats has one row or a few of every shape. want is AppendJSON of the
// records without kind, joined by line feeds; skip, bad and quirks are
// reasons, joined by semicolons in their order.
var formats = []struct {
	name                    string
	kind                    Kind
	opt                     Options
	in                      string
	want, skip, bad, quirks string
}{
	// Attack records.
	{
		name: "what a sensor sends: offset and Z, empty address", kind: Attacks,
		in:     `{"type":"threat","threat_id":"lab-1766963677128","source_peer":"lab","attack_type":"SQL Injection Attack","severity":"medium","src_ip":"","timestamp":"2026-01-10T08:22:17.660475+00:00Z","ml_confidence":0.0,"cve_match":[],"node_fingerprint":{"src_ip":"6.6.6.6"}}`,
		want:   `"timestamp":"2026-01-10T08:22:17.660475Z","event":"lab-1766963677128","attack_type":"sql injection attack","level":"SUSPICIOUS"`,
		quirks: "empty address;no text understood;time with both offset and Z",
	},
	{
		name: "a local threat log", kind: Attacks,
		in:     `{"timestamp":"2026-01-10T08:22:17.66","ip_address":"203.0.113.9","threat_type":"XSS Attack","details":"<script>alert(1)</script>","level":"CRITICAL","action":"blocked","attack_sequence":null,"source":"local"}`,
		want:   `"timestamp":"2026-01-10T08:22:17.660000Z","src_ip":"203.0.113.9","payload":"<script>alert(1)</script>","attack_type":"xss attack","level":"CRITICAL"`,
		quirks: "time without zone, taken as UTC",
	},
	{
		name: "the relay's merged form", kind: Attacks,
		in:     `{"ip":"unknown","timestamp":"2026-01-10T08:22:17+08:00","attack_type":"Header Injection","level":"High","endpoint":"/a%0d%0aSet-Cookie:1","user_agent":"curl/8"}`,
		want:   `"timestamp":"2026-01-10T00:22:17.000000Z","payload":"/a%0d%0aSet-Cookie:1","user_agent":"curl/8","attack_type":"header injection","level":"DANGEROUS"`,
		quirks: "empty address",
	},
	{
		name: "address aliases in their order", kind: Attacks,
		in: `{"attack_type":"a","ip":"192.0.2.4","source_ip":"192.0.2.3"}
{"attack_type":"a","ip":"192.0.2.4","source_ip":"192.0.2.3","ip_address":"192.0.2.2"}
{"attack_type":"a","ip":"192.0.2.4","source_ip":"192.0.2.3","ip_address":"192.0.2.2","src_ip":"192.0.2.1"}
{"attack_type":"a","ip":"192.0.2.4","src_ip":""}`,
		want: `"src_ip":"192.0.2.3","attack_type":"a"
"src_ip":"192.0.2.2","attack_type":"a"
"src_ip":"192.0.2.1","attack_type":"a"
"src_ip":"192.0.2.4","attack_type":"a"`,
		quirks: "no time",
	},
	{
		name: "address forms", kind: Attacks,
		in: `{"attack_type":"a","timestamp":1,"src_ip":"::ffff:192.0.2.1"}
{"attack_type":"a","timestamp":1,"src_ip":"FE80:0:0::1%eth0"}
{"attack_type":"a","timestamp":1,"src_ip":" 2001:DB8::1 "}
{"attack_type":"a","timestamp":1,"src_ip":"192.0.2.01"}
{"attack_type":"a","timestamp":1,"src_ip":"host.example"}
{"attack_type":"a","timestamp":1,"src_ip":"<script>"}`,
		want: `"timestamp":"1970-01-01T00:00:01.000000Z","src_ip":"192.0.2.1","attack_type":"a"
"timestamp":"1970-01-01T00:00:01.000000Z","src_ip":"fe80::1","attack_type":"a"
"timestamp":"1970-01-01T00:00:01.000000Z","src_ip":"2001:db8::1","attack_type":"a"
"timestamp":"1970-01-01T00:00:01.000000Z","attack_type":"a"
"timestamp":"1970-01-01T00:00:01.000000Z","attack_type":"a"
"timestamp":"1970-01-01T00:00:01.000000Z","attack_type":"a"`,
		quirks: "IPv4 address in IPv6 form;address not understood;address with zone;host name instead of address",
	},
	{
		name: "records of other modules are no network events", kind: Attacks,
		in: `{"attack_type":"backup_issue","backup_location":"/b","severity":"high","timestamp":"2026-01-10T08:22:17"}
{"attack_type":"cloud_misconfiguration","provider":"x"}
{"attack_type":"federated_update_rejected","peer_id":"p","level":"medium"}`,
		skip: "no network event: backup_issue;no network event: cloud_misconfiguration;no network event: federated_update_rejected",
	},
	{
		name: "levels and severities in any case", kind: Attacks,
		in: `{"attack_type":"a","timestamp":"2026-01-10T08:22:17Z","src_ip":"::1","severity":"low"}
{"attack_type":"a","timestamp":"2026-01-10T08:22:17Z","src_ip":"::1","level":"Safe"}
{"attack_type":"a","timestamp":"2026-01-10T08:22:17Z","src_ip":"::1","severity":"odd","level":"warning"}
{"attack_type":"a","timestamp":"2026-01-10T08:22:17Z","src_ip":"::1","level":"dangerous"}`,
		want: `"timestamp":"2026-01-10T08:22:17.000000Z","src_ip":"::1","attack_type":"a","level":"INFO"
"timestamp":"2026-01-10T08:22:17.000000Z","src_ip":"::1","attack_type":"a","level":"SAFE"
"timestamp":"2026-01-10T08:22:17.000000Z","src_ip":"::1","attack_type":"a","level":"WARNING"
"timestamp":"2026-01-10T08:22:17.000000Z","src_ip":"::1","attack_type":"a","level":"DANGEROUS"`,
		quirks: "severity not understood",
	},
	{
		name: "odd values", kind: Attacks,
		in: `{"attack_type":"A  ","timestamp":"yesterday","src_ip":"192.0.2.1","port":"8080","method":"get","protocol":"HTTP"}
{"attack_type":" unknown","timestamp":1e9,"src_ip":"192.0.2.1","port":65536,"method":"G T","protocol":"a b"}
{"attack_type":"a","src_ip":"192.0.2.1","src_ip":"192.0.2.2","details":{"password":"hunter2"},"user_agent":"\ud800","\u0070ayload":"\u0070"}
{"attack_type":null,"src_ip":"192.0.2.1","port":-1,"timestamp":null}`,
		want: `"src_ip":"192.0.2.1","protocol":"http","port":8080,"method":"GET","attack_type":"a"
"src_ip":"192.0.2.1"
"src_ip":"192.0.2.2","payload":"p","user_agent":"` + "\ufffd" + `","attack_type":"a"
"src_ip":"192.0.2.1"`,
		quirks: "invalid UTF-8 replaced;member given twice;member of an unexpected type;method not understood;no class;no time;number out of range;protocol not understood;time not understood",
	},
	{
		name: "texts by other names, in their order", kind: Attacks,
		in: `{"attack_type":"a","message":"m"}
{"attack_type":"a","message":"m","body":"b"}
{"attack_type":"a","message":"m","body":"b","query":"?q"}
{"attack_type":"a","message":"m","body":"b","http_request":"h"}
{"attack_type":"a","message":"m","body":"b","http_request":"h","re\u0071uest":"GET /r HTTP/1.1","query":"q"}
{"attack_type":"a","request":"r","path":"/p"}
{"attack_type":"a","path":"/p","url":"/u"}
{"attack_type":"a","url":"/u","uri":"/i","query":""}
{"attack_type":"a","uri":"/i","endpoint":"/e","query":"q"}
{"attack_type":"a","path":"/p","query":"?a=1'"}
{"attack_type":"a","uri":"/i?b","query":"a=1'"}
{"path":"/p"}`,
		want: `"payload":"m","attack_type":"a"
"payload":"b","attack_type":"a"
"payload":"?q","attack_type":"a"
"payload":"h","attack_type":"a"
"payload":"GET /r HTTP/1.1","attack_type":"a"
"payload":"/p","attack_type":"a"
"payload":"/u","attack_type":"a"
"payload":"/i","attack_type":"a"
"payload":"/e","attack_type":"a"
"payload":"/p?a=1'","attack_type":"a"
"payload":"/i?b","attack_type":"a"
"payload":"/p"`,
		quirks: "empty address;no class;no time",
	},
	{
		name: "texts by names that mean nothing", kind: Attacks,
		in: `{"attack_type":"a","timestamp":1,"attack_text":"/p"}
{"attack_type":"a","timestamp":1,"request":{"uri":"/p"},"x":1}
{"attack_type":"a","timestamp":1,"body":"","x":1}
{"attack_type":"a","timestamp":1}
{"eventid":"cowrie.login.failed","attack_type":"a","timestamp":1,"message":"login attempt [root/hunter2] failed"}`,
		want: `"timestamp":"1970-01-01T00:00:01.000000Z","attack_type":"a"
"timestamp":"1970-01-01T00:00:01.000000Z","attack_type":"a"
"timestamp":"1970-01-01T00:00:01.000000Z","attack_type":"a"
"timestamp":"1970-01-01T00:00:01.000000Z","attack_type":"a"
"timestamp":"1970-01-01T00:00:01.000000Z","attack_type":"a"`,
		quirks: "empty address;member of an unexpected type;no text understood",
	},
	{
		name: "what is no attack record", kind: Attacks,
		in: `{}
{"entity":"192.0.2.51","total_attacks":15}
"text"
12
{"attack_type":"a"} {}
{"attack_type":"a",}
{"attack_type":"a"
not JSON`,
		bad: "cut short;no attack record;not JSON;not an object;text after the JSON value",
	},
	{
		name: "class and site of the options win", kind: Attacks, opt: Options{Class: "Benign", Site: "a"},
		in:   `{"kind":"access","site":"b","timestamp":"2026-01-10T08:22:17.000001Z","attack_type":"xss","src_ip":"192.0.2.1"}`,
		want: `"site":"a","timestamp":"2026-01-10T08:22:17.000001Z","src_ip":"192.0.2.1","attack_type":"benign"`,
	},
	{
		name: "AppendJSON's form", kind: Attacks,
		in:   `{"kind":"cowrie","site":"s","src_ip":"h:0123456789abcdef","event":"e","protocol":"ssh","port":22,"method":"GET","payload":"p","user_agent":"a","referer":"r","user":"u","status":404,"size":1,"outcome":"failure","attack_type":"backup_issue","level":"SAFE","edb_id":5}`,
		want: `"site":"s","src_ip":"h:0123456789abcdef","event":"e","protocol":"ssh","port":22,"method":"GET","payload":"p","user_agent":"a","referer":"r","user":"u","status":404,"size":1,"outcome":"failure","attack_type":"backup_issue","level":"SAFE","edb_id":5`,
	},
	{
		name: "arrays, lines and arrays again", kind: Attacks,
		in: "\ufeff[{\"attack_type\":\"a\",\"timestamp\":0,\"ip\":\"::\"},\n{\"attack_type\":\"b\",\"timestamp\":0,\"ip\":\"::\"}]\n" +
			"{\"attack_type\":\"c\",\"timestamp\":0,\"ip\":\"::\"}\r\n\n" +
			"[\n  {\n    \"attack_type\": \"d\",\n \"timestamp\": 0, \"ip\": \"::\", \"x\": [1, {\"y\": [\"]\"]}]\n  }, 3\n",
		want: `"timestamp":"1970-01-01T00:00:00.000000Z","src_ip":"::","attack_type":"a"
"timestamp":"1970-01-01T00:00:00.000000Z","src_ip":"::","attack_type":"b"
"timestamp":"1970-01-01T00:00:00.000000Z","src_ip":"::","attack_type":"c"
"timestamp":"1970-01-01T00:00:00.000000Z","src_ip":"::","attack_type":"d"`,
		bad: "not an object", quirks: "CRLF line ends;array not closed;no text understood",
	},
	{
		name: "a broken element costs only itself", kind: Attacks,
		in: `[{"attack_type":"a","timestamp":0,"ip":"::"},
{"attack_type":"b","timestamp
{"attack_type":"c","timestamp":0,"ip":"::"},
{"attack_type":"d","timestamp":0,
{"attack_type":"e","timestamp":0,"ip":"::"},
{"attack_type":"f","timest`,
		want: `"timestamp":"1970-01-01T00:00:00.000000Z","src_ip":"::","attack_type":"a"
"timestamp":"1970-01-01T00:00:00.000000Z","src_ip":"::","attack_type":"c"
"timestamp":"1970-01-01T00:00:00.000000Z","src_ip":"::","attack_type":"e"`,
		bad: "cut short", quirks: "array not closed",
	},
	{
		name: "texts and brackets inside array elements", kind: Attacks,
		in: "[{\"attack_type\":\"a\",\"timestamp\":0,\"ip\":\"::\",\"details\":\"\\\"}]{[\\\\\"}, \"t\\\"]\", tru] \n" +
			"[\"cut\\\n{\"attack_type\":\"b\",\"timestamp\":0,\"ip\":\"::\",\"x\":[{},{\"y\":{}}]},}\n,\"end\\",
		want: `"timestamp":"1970-01-01T00:00:00.000000Z","src_ip":"::","payload":"\"}]{[\\","attack_type":"a"
"timestamp":"1970-01-01T00:00:00.000000Z","src_ip":"::","attack_type":"b"`,
		bad: "cut short;not JSON;not an object", quirks: "array not closed;no text understood",
	},

	// Honeypots.
	{
		name: "a persona", kind: Honeypot,
		in:   `{"timestamp":"2026-01-10T08:22:17.660475Z","source_ip":"192.0.2.7","source_port":40000,"honeypot_persona":"router","honeypot_port":2323,"service_name":"Telnet","attacker_input":"enable\r\nsh","banner_sent":"login:","analysis":{"attack_type":"x","port":1}}`,
		want: `"timestamp":"2026-01-10T08:22:17.660475Z","src_ip":"192.0.2.7","protocol":"telnet","port":2323,"payload":"enable\r\nsh"`,
	},
	{name: "no persona", kind: Honeypot, in: `{"timestamp":"2026-01-10T08:22:17.660475Z"}`, bad: "no honeypot record"},
	{
		name: "Cowrie events", kind: Cowrie,
		in: `{"eventid":"cowrie.session.connect","src_ip":"192.0.2.1","src_port":52577,"timestamp":"2018-05-06T17:44:05.866769Z","dst_ip":"172.17.0.3","protocol":"telnet","session":"s1","dst_port":2222}
{"macCS":["a",{"b":[]}],"session":"s1","version":"SSH-2.0-Go","src_ip":"192.0.2.1","eventid":"cowrie.client.version","timestamp":"2018-05-06T17:44:05Z","system":"CowrieTelnetTransport,0"}
{"eventid":"cowrie.login.failed","username":"root","timestamp":"2018-05-06T17:44:05Z","message":"login attempt [root/hunter2] failed","src_ip":"192.0.2.1","session":"s1","password":"hunter2"}
{"eventid":"cowrie.login.success","username":"","password":"hunter2","timestamp":"2018-05-06T17:44:05Z","src_ip":"192.0.2.1","session":"s1"}
{"eventid":"cowrie.command.input","input":"uname -a; cat \/etc\/passwd\n","timestamp":"2018-05-06T17:44:05Z","src_ip":"192.0.2.1","session":"s1"}
{"eventid":"cowrie.direct-tcpip.request","dst_ip":"2001:db8::5","dst_port":80,"timestamp":"2018-05-06T17:44:05Z","src_ip":"192.0.2.1","session":"s1"}
{"eventid":"cowrie.session.file_download","url":"http:\/\/x.example\/a","timestamp":"2018-05-06T17:44:05Z","src_ip":"192.0.2.1","session":"s1"}
{"eventid":"cowrie.session.closed","timestamp":"2018-05-06T17:44:05Z","src_ip":"192.0.2.1"}
{"eventid":"cowrie.command.failed","input":"find"}
{"eventid":"cowrie.direct-tcpip.data","data":"'password=hunter2'"}
{"eventid":"cowrie.virustotal.scanfile"}
{"src_ip":"192.0.2.1"}`,
		want: `"timestamp":"2018-05-06T17:44:05.866769Z","src_ip":"192.0.2.1","event":"s1","protocol":"telnet","port":2222,"attack_type":"cowrie.session.connect"
"timestamp":"2018-05-06T17:44:05.000000Z","src_ip":"192.0.2.1","event":"s1","protocol":"telnet","user_agent":"SSH-2.0-Go","attack_type":"cowrie.client.version"
"timestamp":"2018-05-06T17:44:05.000000Z","src_ip":"192.0.2.1","event":"s1","protocol":"ssh","user":"root","outcome":"failure","attack_type":"cowrie.login.failed"
"timestamp":"2018-05-06T17:44:05.000000Z","src_ip":"192.0.2.1","event":"s1","protocol":"ssh","outcome":"success","attack_type":"cowrie.login.success"
"timestamp":"2018-05-06T17:44:05.000000Z","src_ip":"192.0.2.1","event":"s1","protocol":"ssh","payload":"uname -a; cat /etc/passwd\n","attack_type":"cowrie.command.input"
"timestamp":"2018-05-06T17:44:05.000000Z","src_ip":"192.0.2.1","event":"s1","protocol":"ssh","payload":"[2001:db8::5]:80","attack_type":"cowrie.direct-tcpip.request"
"timestamp":"2018-05-06T17:44:05.000000Z","src_ip":"192.0.2.1","event":"s1","protocol":"ssh","payload":"http://x.example/a","attack_type":"cowrie.session.file_download"`,
		skip: "cowrie.command.failed;cowrie.direct-tcpip.data;cowrie.session.closed;other Cowrie event",
		bad:  "no Cowrie event",
	},

	// Access logs.
	{
		name: "common and combined", kind: Access,
		in: `192.0.2.1 - - [07/Mar/2004:16:05:49 -0800] "GET /a?b=c HTTP/1.1" 401 12846
192.0.2.1 - frank smith [29/Feb/2004:16:05:49 +0530] "POST /a b HTTP/1.0" 304 - "http://r.example/?q=\"x\"" "Mozilla/5.0 (\"x\")" "extra"
::1 ident - [07/Mar/2004:16:05:49 +0000] "HEAD * HTTP/2.0" 200 0 "-" "-"`,
		want: `"timestamp":"2004-03-08T00:05:49.000000Z","src_ip":"192.0.2.1","protocol":"http","method":"GET","payload":"/a?b=c","status":401,"size":12846
"timestamp":"2004-02-29T10:35:49.000000Z","src_ip":"192.0.2.1","protocol":"http","method":"POST","payload":"/a b","user_agent":"Mozilla/5.0 (\"x\")","referer":"http://r.example/?q=\"x\"","user":"frank smith","status":304
"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"::1","protocol":"http","method":"HEAD","payload":"*","status":200`,
	},
	{
		name: "a virtual host before the address", kind: Access,
		in: `example.com:443 203.0.113.9 - - [07/Mar/2004:16:05:49 +0000] "GET /a HTTP/1.1" 200 1
203.0.113.1:80 2001:db8::1 ident frank smith [07/Mar/2004:16:05:49 +0000] "GET /b HTTP/1.1" 200 1
2001:db8::80 192.0.2.1 - [07/Mar/2004:16:05:49 +0000] "GET /c HTTP/1.1" 200 1
192.0.2.9 203.0.113.9 - - [07/Mar/2004:16:05:49 +0000] "GET /d HTTP/1.1" 200 1
evil.example:x 203.0.113.9 - - [07/Mar/2004:16:05:49 +0000] "GET /e HTTP/1.1" 200 1`,
		want: `"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"203.0.113.9","protocol":"http","method":"GET","payload":"/a","status":200,"size":1
"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"2001:db8::1","protocol":"http","method":"GET","payload":"/b","user":"frank smith","status":200,"size":1
"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"2001:db8::80","protocol":"http","method":"GET","payload":"/c","status":200,"size":1
"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"192.0.2.9","protocol":"http","method":"GET","payload":"/d","user":"- -","status":200,"size":1
"timestamp":"2004-03-07T16:05:49.000000Z","protocol":"http","method":"GET","payload":"/e","user":"- -","status":200,"size":1`,
		quirks: "address not understood",
	},
	{
		name: "garbage requests survive", kind: Access,
		in: `192.0.2.1 - - [07/Mar/2004:16:05:49 +0000] "-" 408 -
192.0.2.1 - - [07/Mar/2004:16:05:49 +0000] "" 400 0
192.0.2.1 - - [07/Mar/2004:16:05:49 +0000] "\x16\x03\x01\x02" 400 226
192.0.2.1 - - [07/Mar/2004:16:05:49 +0000] "GET /old" 200 1
192.0.2.1 - - [07/Mar/2004:16:05:49 +0000] "SSH-2.0-Go x" 400 1
192.0.2.1 - - [07/Mar/2004:16:05:49 +0000] "GET /" + "x" + " HTTP/1.0" 999 1
192.0.2.1 - - [07/Mar/2004:16:05:49 +0000] "GET /\xd0\xbf\x22\\\q\x\b\n\r\t\v HTTP/1.1" 000 1`,
		want: `"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"192.0.2.1","protocol":"http","status":408
"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"192.0.2.1","protocol":"http","status":400
"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"192.0.2.1","protocol":"http","payload":"\u0016\u0003\u0001\u0002","status":400,"size":226
"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"192.0.2.1","protocol":"http","method":"GET","payload":"/old","status":200,"size":1
"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"192.0.2.1","protocol":"http","payload":"SSH-2.0-Go x","status":400,"size":1
"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"192.0.2.1","protocol":"http","method":"GET","payload":"/\" + \"x\" + \"","size":1
"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"192.0.2.1","protocol":"http","method":"GET","payload":"/п\"\\\\q\\x\b\n\r\t\u000b","size":1`,
		quirks: "empty request line;number out of range;request line without method;request line without version",
	},
	{
		name: "forged users, hosts and bytes", kind: Access,
		in: "evil.example - a [x] [1] [07/Mar/2004:16:05:49 +0000] \"GET /\xff HTTP/1.0\" 200 1\n" +
			`192.0.2.1 - - [07/Mar/2004:16:05:49 +0000] "GET /\" 200 1 \"x\" HTTP/1.0" 404 7` + "\n" +
			`192.0.2.1 - - [07/Mar/2004:16:05:49 +0000] "GET /a"b\ HTTP/1.0\" 404 7`,
		want: `"timestamp":"2004-03-07T16:05:49.000000Z","protocol":"http","method":"GET","payload":"/` + "\ufffd" + `","user":"a [x] [1]","status":200,"size":1
"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"192.0.2.1","protocol":"http","method":"GET","payload":"/\" 200 1 \"x\"","status":404,"size":7
"timestamp":"2004-03-07T16:05:49.000000Z","src_ip":"192.0.2.1","protocol":"http","method":"GET","payload":"/a\"b\\","status":404,"size":7`,
		quirks: "host name instead of address;invalid UTF-8 replaced",
	},
	{
		name: "no access log lines", kind: Access,
		in: `[Sun Mar 07 16:05:49 2004] [info] [client 64.242.88.10] (104)Connection reset by peer
192.0.2.1 - - [31/Feb/2004:16:05:49 +0000] "GET / HTTP/1.0" 200 1
192.0.2.1 - - [07/Mar/2004:16:05:49 +0000] "GET / HTTP/1.0" 200
192.0.2.1 - - [07/Mar/2004:16:05:49 +0000] "GET / HT`,
		bad: "not an access log line",
	},

	// OpenSSH.
	{
		name: "attempts", kind: SSHD, opt: Options{Year: 2016},
		in: `Feb 29 13:06:56 host sshd[12]: Failed password for root from 192.0.2.1 port 56338 ssh2
Mar  7 13:06:56 host sshd[12]: Failed password for invalid user  from 192.0.2.1 port 56338 ssh2
Mar  7 13:06:56 host sshd[12]: Failed keyboard-interactive/pam for invalid user x from 1.1.1.1 port 2 ssh2 from 192.0.2.1 port 56338 ssh2
2024-03-27T13:06:56.123456+01:00 host sshd-session[12]: Accepted publickey for git from 2001:db8::1 port 1 ssh2: RSA SHA256:abc
<38>Mar 17 13:06:56 host sshd[12]: message repeated 5 times: [ Failed password for root from host.example port 56338 ssh2]
Mar 17 13:06:56 host sshd[12]: Did not receive identification string from 192.0.2.1
Mar 17 13:06:56 host sshd[12]: Did not receive identification string from 192.0.2.1 port 5
Mar 17 13:06:56 host sshd[12]: Bad protocol version identification 'GET / from 1.1.1.1 port 2' from 192.0.2.1 port 3
Mar 17 13:06:56 host sshd[12]: fatal: Unable to negotiate with 192.0.2.1 port 3: no matching cipher found.
Mar 17 13:06:56 host sshd[12]: banner exchange: Connection from 192.0.2.1 port 3: invalid format`,
		want: `"timestamp":"2016-02-29T13:06:56.000000Z","src_ip":"192.0.2.1","event":"12","protocol":"ssh","user":"root","outcome":"failure","attack_type":"sshd.failed"
"timestamp":"2016-03-07T13:06:56.000000Z","src_ip":"192.0.2.1","event":"12","protocol":"ssh","outcome":"failure","attack_type":"sshd.failed"
"timestamp":"2016-03-07T13:06:56.000000Z","src_ip":"192.0.2.1","event":"12","protocol":"ssh","user":"x from 1.1.1.1 port 2 ssh2","outcome":"failure","attack_type":"sshd.failed"
"timestamp":"2024-03-27T12:06:56.123456Z","src_ip":"2001:db8::1","event":"12","protocol":"ssh","user":"git","outcome":"success","attack_type":"sshd.accepted"
"timestamp":"2016-03-17T13:06:56.000000Z","event":"12","protocol":"ssh","user":"root","outcome":"failure","attack_type":"sshd.failed"
"timestamp":"2016-03-17T13:06:56.000000Z","src_ip":"192.0.2.1","event":"12","protocol":"ssh","attack_type":"sshd.no_identification"
"timestamp":"2016-03-17T13:06:56.000000Z","src_ip":"192.0.2.1","event":"12","protocol":"ssh","attack_type":"sshd.no_identification"
"timestamp":"2016-03-17T13:06:56.000000Z","src_ip":"192.0.2.1","event":"12","protocol":"ssh","payload":"GET / from 1.1.1.1 port 2","attack_type":"sshd.bad_protocol"
"timestamp":"2016-03-17T13:06:56.000000Z","src_ip":"192.0.2.1","event":"12","protocol":"ssh","attack_type":"sshd.no_agreement"
"timestamp":"2016-03-17T13:06:56.000000Z","src_ip":"192.0.2.1","event":"12","protocol":"ssh","attack_type":"sshd.bad_protocol"`,
		quirks: "host name instead of address;message repeated several times, counted once;time without zone, taken as UTC",
	},
	{
		name: "without and with the wrong year", kind: SSHD, opt: Options{Year: 2017},
		in: `Feb 29 13:06:56 host sshd[12]: Failed password for root from 192.0.2.1 port 56338 ssh2`, quirks: "time not understood",
		want: `"src_ip":"192.0.2.1","event":"12","protocol":"ssh","user":"root","outcome":"failure","attack_type":"sshd.failed"`,
	},
	{
		name: "other lines of one attempt, and other programs", kind: SSHD,
		in: `Mar 27 13:06:56 h sshd[1]: Invalid user x from 192.0.2.1
Mar 27 13:06:56 h sshd[1]: input_userauth_request: invalid user x [preauth]
Mar 27 13:06:56 h sshd[1]: pam_unix(sshd:auth): authentication failure; rhost=192.0.2.1  user=root
Mar 27 13:06:56 h sshd[1]: error: maximum authentication attempts exceeded for root from 192.0.2.1 port 1 ssh2 [preauth]
Mar 27 13:06:56 h sshd[1]: Connection closed by 192.0.2.1 port 1 [preauth]
Mar 27 13:06:56 h sshd[1]: Failed publickey for u from 192.0.2.1 port 1 ssh2: RSA SHA256:x
Mar 27 13:06:56 h sshd[1]: Failed none for u from 192.0.2.1 port 1 ssh2
Mar 27 13:06:56 h sshd[1]: Server listening on :: port 22.
Mar 27 13:06:56 h CRON[1]: pam_unix(cron:session): session opened for user root by (uid=0)
Mar 27 13:06:56 h sudo:   ubuntu : TTY=pts/0 ; COMMAND=/bin/su
Mar 27 13:06:56 h kernel: x: Failed password for root from 192.0.2.1 port 1 ssh2`,
		skip:   "announces an attempt: user name;no network event: another program;no network event: cron;no network event: sudo;offers a key or none;other sshd message;repeats an attempt: PAM;start or end of a connection;sums up attempts: limit reached",
		quirks: "time without year, undated",
	},
	{
		name: "no sshd lines", kind: SSHD, opt: Options{Year: 2017},
		in: `Mar 27 13:06:56 h sshd[1]: Failed password for root
Mar 27 13:06:56 h sshd[1]: message repeated 5 times: [ Failed
Mar 27 13:06:56 h nothing
Mar 27 13:06
2024-03-27T25:06:56Z h sshd[1]: x
Failed password for root from 192.0.2.1 port 56338 ssh2`,
		bad: "not a syslog line;not an sshd message", quirks: "time without zone, taken as UTC",
	},

	// CSV.
	{
		name: "parameter values", kind: Labelled,
		in:     "\"payload\",\"length\",\"attack_type\",\"label\"\r\n\"a \"\"b\"\", c\",\"8\",\" SQLi \",\"anom\"\r\nbare,5,norm,norm\r\n\n\"two\nlines\",9,xss,anom\r\n",
		want:   "\"payload\":\"a \\\"b\\\", c\",\"attack_type\":\"sqli\"\n\"payload\":\"bare\",\"attack_type\":\"norm\"\n\"payload\":\"two\\nlines\",\"attack_type\":\"xss\"",
		quirks: "CRLF line ends;doubled quotes;length column differs",
	},
	{
		name: "labelled flows", kind: Labelled,
		in:     "src_ip,Attack_Type,severity,threat_score,protocol,port,payload_size,timestamp\n192.0.2.1,Port Scan,medium,0.78,TCP,22,64,2026-01-01T00:00:00Z\n,DDoS,,1,UDP,x,,\n",
		want:   "\"timestamp\":\"2026-01-01T00:00:00.000000Z\",\"src_ip\":\"192.0.2.1\",\"protocol\":\"tcp\",\"port\":22,\"attack_type\":\"port scan\",\"level\":\"SUSPICIOUS\"\n\"protocol\":\"udp\",\"attack_type\":\"ddos\"",
		quirks: "empty address;number out of range",
	},
	{
		name: "a stray quote costs one line", kind: Labelled,
		in: csvHeader + "a,1,x,y\n\"b,1,x,y\nc,1,x,y\nd,1,\"x\",y\ne,1,x,y\n5\" disk,1,x,y\nf,1,x,y\ng,1,x\nh,1,x,y,z\n\"i\"j,1,x,y\nk,1,x,y\n\"l,1,x,y\nm,1,x,y",
		want: `"payload":"a","attack_type":"x"
"payload":"c","attack_type":"x"
"payload":"d","attack_type":"x"
"payload":"e","attack_type":"x"
"payload":"f","attack_type":"x"
"payload":"k","attack_type":"x"
"payload":"m","attack_type":"x"`,
		bad: "cut short;not a CSV row",
	},

	// Requests of exploits.
	{
		name: "exploit requests", kind: Requests,
		in: `{"edb_id": 44, "method": "GET", "url": "http://v.example/a.php?t=1'", "found_as": "url"}
{"edb_id": 0, "method": "GET", "url": "/x"}
{"edb_id": 4.5, "method": "GET", "url": "/x"}
{"edb_id": 4, "method": "GET", "url": ""}`,
		want: `"protocol":"http","method":"GET","payload":"http://v.example/a.php?t=1'","edb_id":44`,
		bad:  "no exploit request",
	},
	{
		name: "requests of a class", kind: Requests, opt: Options{Class: "xss"},
		in:   `{"edb_id": "44", "method": "post", "url": "/a"}`,
		want: `"protocol":"http","method":"POST","payload":"/a","attack_type":"xss","edb_id":44`,
	},

	// Lists of targets.
	{
		name: "targets are whole lines", kind: Targets,
		in:     "/a?b=c d\r\n\r\n \n ' or 1=1 -- \r\n/caf\xe9\n\x18x\t\n{\"edb_id\":1}\n/last\r",
		want:   "\"protocol\":\"http\",\"payload\":\"/a?b=c d\"\n\"protocol\":\"http\",\"payload\":\" ' or 1=1 -- \"\n\"protocol\":\"http\",\"payload\":\"/caf\ufffd\"\n\"protocol\":\"http\",\"payload\":\"\\u0018x\\t\"\n\"protocol\":\"http\",\"payload\":\"{\\\"edb_id\\\":1}\"\n\"protocol\":\"http\",\"payload\":\"/last\"",
		quirks: "CRLF line ends;invalid UTF-8 replaced",
	},
	{
		name: "a byte order mark is no part of a target", kind: Targets,
		in:   "\ufeff/a",
		want: `"protocol":"http","payload":"/a"`,
	},
	{
		name: "a list in UTF-16 is no text", kind: Targets, opt: Options{Class: "scanner", Site: "north"},
		in:   "\x00/\x00a\x00\n\x00/\n/b",
		want: `"site":"north","protocol":"http","payload":"/b","attack_type":"scanner"`,
		bad:  "not a line of text",
	},
}

func reasons(list []Count) string {
	var names []string
	for _, c := range list {
		names = append(names, c.Reason)
	}
	return strings.Join(names, ";")
}

func TestFormats(t *testing.T) {
	for _, c := range formats {
		t.Run(string(c.kind)+"/"+c.name, func(t *testing.T) {
			got := read(t, strings.NewReader(c.in), c.kind, c.opt)
			var rows []string
			for _, row := range got.rows {
				_, row, _ = strings.Cut(strings.TrimSuffix(row, "}"), ",")
				rows = append(rows, row)
			}
			if s := strings.Join(rows, "\n"); s != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", s, c.want)
			}
			if s := reasons(got.report.Skipped); s != c.skip {
				t.Errorf("skipped %q, want %q", s, c.skip)
			}
			if s := reasons(got.report.Bad); s != c.bad {
				t.Errorf("bad %q, want %q\n%s", s, c.bad, strings.Join(got.errs, "\n"))
			}
			if s := reasons(got.report.Quirks); s != c.quirks {
				t.Errorf("quirks %q, want %q", s, c.quirks)
			}
			slow := read(t, iotest.OneByteReader(strings.NewReader(c.in)), c.kind, c.opt)
			if fmt.Sprint(slow) != fmt.Sprint(got) {
				t.Errorf("byte by byte: got %v, want %v", slow, got)
			}
		})
	}
}

// TestNoPasswordEntersARecord looks for a password in every field that could
// have taken it.
func TestNoPasswordEntersARecord(t *testing.T) {
	for _, c := range formats {
		got := read(t, strings.NewReader(c.in), c.kind, c.opt)
		if s := strings.Join(got.rows, "\n"); strings.Contains(s, "hunter2") {
			t.Errorf("%s: a password in %s", c.name, s)
		}
	}
}

// TestABrokenElementHidesNoOther has a line end inside a text, and elements
// behind it on the same line: they are lost, but each of them is counted.
func TestABrokenElementHidesNoOther(t *testing.T) {
	in := `[{"attack_type":"a","ip":"::"}, {"attack_type":"b
c","x":1} , {"attack_type":"d","ip":"::"},{"attack_type":"e","ip":"::"},
{"attack_type":"f","ip":"::"}]`
	for _, r := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in))} {
		got := read(t, r, Attacks, Options{}).report
		if bad := got.Bad; got.Kept != 2 || len(bad) != 1 || bad[0].Rows != 3 || !slices.Equal(bad[0].Lines, []int64{1, 2, 2}) {
			t.Errorf("%+v", got)
		}
	}
}

// TestRowsDoNotDependOnEachOther reads each line alone and all lines in
// reverse: the records are the same.
func TestRowsDoNotDependOnEachOther(t *testing.T) {
	for _, c := range formats {
		if c.kind == Labelled || strings.Contains(c.in, "[\n") || strings.Contains(c.name, "broken") || strings.Contains(c.name, "array") {
			continue
		}
		lines := strings.Split(c.in, "\n")
		want := read(t, strings.NewReader(c.in), c.kind, c.opt).rows
		slices.Sort(want)
		var alone []string
		for _, line := range lines {
			alone = append(alone, read(t, strings.NewReader(line), c.kind, c.opt).rows...)
		}
		slices.Sort(alone)
		slices.Reverse(lines)
		back := read(t, strings.NewReader(strings.Join(lines, "\n")), c.kind, c.opt).rows
		slices.Sort(back)
		if !slices.Equal(alone, want) || !slices.Equal(back, want) {
			t.Errorf("%s: another set of records", c.name)
		}
	}
}

func TestLongRowsAreBadAndReadingGoesOn(t *testing.T) {
	long := strings.Repeat("x", 3*maxRow)
	fits := strings.Repeat("x", maxRow-100)
	ok := `{"attack_type":"a","ip":"::","timestamp":0}`
	access := `192.0.2.1 - - [07/Mar/2004:16:05:49 -0800] "GET / HTTP/1.1" 401 1`
	for _, c := range []struct {
		name    string
		kind    Kind
		in      string
		kept    int
		tooLong int64
		other   int64
	}{
		{"lines", Attacks, ok + "\n" + `{"details":"` + long + `"}` + "\n" + ok, 2, 1, 0},
		{"a line within the limit", Attacks, ok + "\n" + `{"details":"` + fits + `"}` + "\n" + ok, 3, 0, 0},
		{"elements", Attacks, "[" + ok + `,{"details":"` + long + `","x":{}},` + ok + `]`, 2, 1, 0},
		{"many long elements", Attacks, "[" + strings.Repeat(`{"details":"`+long+`"},`, 3) + ok + `]`, 1, 3, 0},
		{"nesting", Attacks, "[" + strings.Repeat("[", 2*maxRow) + strings.Repeat("]", 2*maxRow) + "," + ok + "]", 1, 1, 0},
		{"deep nesting within the limit", Attacks, "[" + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + "," + ok + "]", 1, 0, 1},
		{"no end", Attacks, ok + "\n" + long, 1, 1, 0},
		{"log lines", Access, access + "\n" + long + "\n" + access, 2, 1, 0},
		{"a CSV line", Labelled, csvHeader + "a,1,x,y\n" + long + ",1,x,y\na,1,x,y\n", 2, 1, 0},
		{"a quote that never closes", Labelled, csvHeader + "a,1,x,y\n\"b,1,x,y\n" + strings.Repeat("c,1,x,y\n", 2*maxRow/8) + "a,1,x,y\n", 2 + 2*maxRow/8, 0, 1},
		{"a long field of lines", Labelled, csvHeader + "a,1,x,y\n\"" + strings.Repeat("\n", 2*maxRow) + "\",1,x,y\na,1,x,y\n", 2, 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := NewReader(strings.NewReader(c.in), c.kind, Options{})
			if err != nil {
				t.Fatal(err)
			}
			kept := 0
			for {
				err := r.Next(new(Record))
				if err == io.EOF {
					break
				}
				if _, ok := err.(*RowError); err != nil && !ok {
					t.Fatal(err)
				}
				if err == nil {
					kept++
				}
			}
			bad := byReason(r.Report().Bad)
			other := int64(0)
			for reason, n := range bad {
				if reason != "row too long" {
					other += n
				}
			}
			if kept != c.kept || bad["row too long"] != c.tooLong || other != c.other {
				t.Errorf("kept %d, bad %v; want %d, %d too long, %d other", kept, bad, c.kept, c.tooLong, c.other)
			}
			if len(r.in.buf) > 2*maxRow {
				t.Errorf("buffer grew to %d bytes", len(r.in.buf))
			}
		})
	}
}

func TestTextIsCutBetweenRunes(t *testing.T) {
	text := "/" + strings.Repeat("é", MaxText)
	got := read(t, strings.NewReader(`{"attack_type":"a","ip":"::","timestamp":0,"payload":"`+text+`","threat_id":"`+text+`"}`), Attacks, Options{})
	want := `"event":"` + text[:MaxName-1] + `","payload":"` + text[:MaxText-1] + `",`
	if !strings.Contains(got.rows[0], want) || reasons(got.report.Quirks) != "text cut to its limit" {
		t.Errorf("quirks %v, record of %d bytes", got.report.Quirks, len(got.rows[0]))
	}
}

func TestReadErrorsEndTheReading(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, kind := range kinds {
		in := io.MultiReader(strings.NewReader("src_ip,attack_type\n1.1.1.1,a\n[{\"x\":\"y"), iotest.ErrReader(broken))
		r, err := NewReader(in, kind, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			err = r.Next(new(Record))
		}
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if _, err := NewReader(iotest.ErrReader(broken), Labelled, Options{}); !errors.Is(err, broken) {
		t.Errorf("header: %v", err)
	}
	r, _ := NewReader(iotest.DataErrReader(strings.NewReader("x")), Access, Options{})
	if err := r.Next(new(Record)); !errors.As(err, new(*RowError)) {
		t.Errorf("data with the end: %v", err)
	}
	stuck, _ := NewReader(stuckReader{}, Access, Options{})
	if err := stuck.Next(new(Record)); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that gives nothing: %v", err)
	}
}

type stuckReader struct{}

func (stuckReader) Read([]byte) (int, error) { return 0, nil }

func TestNewReaderRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		kind   Kind
		opt    Options
		in     string
		header bool
	}{
		{name: "an unknown format", kind: "syslog"},
		{name: "a year before the first", kind: SSHD, opt: Options{Year: -1}},
		{name: "a year of five digits", kind: SSHD, opt: Options{Year: 10000}},
		{name: "a class that is no text", kind: SSHD, opt: Options{Class: "\xff"}},
		{name: "a long site", kind: SSHD, opt: Options{Site: strings.Repeat("a", MaxName+1)}},
		{name: "an unknown address form", kind: SSHD, opt: Options{Privacy: Privacy{Address: "half"}}},
		{name: "an unknown redaction", kind: SSHD, opt: Options{Privacy: Privacy{Redaction: Redaction + 1}}},
		{name: "hashing without a key", kind: SSHD, opt: Options{Privacy: Privacy{Address: Hashed}}},
		{name: "no header", kind: Labelled, header: true},
		{name: "a header without class", kind: Labelled, in: "payload,label\n", header: true},
		{name: "a header without text or address", kind: Labelled, in: "attack_type,label\n", header: true},
		{name: "a class twice", kind: Labelled, in: "payload,attack_type,threat_type\n", header: true},
		{name: "a header that does not end", kind: Labelled, in: "payload,\"attack_type\n", header: true},
		{name: "a header of broken quotes", kind: Labelled, in: "payload,\"attack\"_\"type\"\n", header: true},
	} {
		_, err := NewReader(strings.NewReader(c.in), c.kind, c.opt)
		if err == nil || errors.Is(err, ErrHeader) != c.header {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, kind := range kinds {
		if k, err := ParseKind(string(kind)); k != kind || err != nil {
			t.Errorf("ParseKind(%q) = %q, %v", kind, k, err)
		}
		if _, err := NewReader(strings.NewReader("payload,attack_type\n"), kind, Options{Year: 9999}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if _, err := ParseKind("Attacks"); err == nil {
		t.Error("ParseKind accepts another case")
	}
}

// TestMessagesAreFitForATerminal checks that what a row holds cannot reach a
// terminal as control codes.
func TestMessagesAreFitForATerminal(t *testing.T) {
	for _, kind := range kinds {
		in := "payload,attack_type,\x1b[2J\n\x1b[2Jx\u009b\n{\"edb_id\":\"\\u001b\\u009b\",\"\x1b\"}\n{\"edb_id\":\"\\u001b\\u009b[2J\"}\n{} \x1b[2J\u202e\nMar 27 13:06:56 h sshd[1]: Failed \x1b[2J\n"
		for _, s := range read(t, strings.NewReader(in), kind, Options{}).errs {
			for _, c := range s {
				if (c < ' ' || c > '~') && c != '…' {
					t.Errorf("%s: %q", kind, s)
				}
			}
		}
	}
}

// TestHostileRowsTakeLinearTime reads rows near the length limit that repeat
// what a parser looks for. Quadratic work would take minutes.
func TestHostileRowsTakeLinearTime(t *testing.T) {
	fill := func(s string) string { return strings.Repeat(s, (maxRow-200)/len(s)) }
	opt := Options{Privacy: Privacy{Redaction: 1}}
	start := time.Now()
	for _, c := range []struct {
		kind Kind
		in   string
	}{
		{Access, "h - - " + fill("[") + "]"},
		{Access, "h - - " + fill("[x] ")},
		{Access, "h - - [07/Mar/2004:16:05:49 -0800] \"" + fill("\" 200 ")},
		{Access, "h - - [07/Mar/2004:16:05:49 -0800] \"GET " + fill("\\\" 1") + " HTTP/1.0\" 200 1"},
		{SSHD, "Mar 27 13:06:56 h sshd[1]: Failed password for " + fill(" from a port 1")},
		{SSHD, "Mar 27 13:06:56 h sshd[1]: Failed password for " + fill(" from ")},
		{Labelled, csvHeader + fill("\"\n")},
		{Labelled, csvHeader + fill("\"\"\"\n")},
		{Labelled, csvHeader + fill("\",\"\"\n")},
		{Labelled, csvHeader + "\"" + fill("\"\"")},
		{Attacks, "[" + fill("{")},
		{Attacks, "[" + fill("{\"a\":1,\n")},
		{Attacks, "[" + fill("\"a\n")},
		{Attacks, "[" + fill("[{")},
		{Attacks, `{"payload":"` + fill("basic+..") + `"}`},
		{Attacks, `{"payload":"` + fill("password=") + `"}`},
		{Attacks, `{"payload":"` + fill("a@b.c") + `"}`},
		{Attacks, `{"payload":"` + fill("token=1-4111 4111111111111111") + `"}`},
		{Attacks, `{"payload":"` + fill("4111-") + `"}`},
	} {
		read(t, strings.NewReader(c.in), c.kind, opt)
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("took %v", d)
	}
}
