package trainer

import (
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

func className(m Match) string {
	if m.Class == Unlabelled {
		return "-"
	}
	return classes[m.Class]
}

// A release names the version only: the table behind it must never change.
func TestTableOfThisVersionIsUnchanged(t *testing.T) {
	want := map[int]string{1: "2532ca2e33814e69b5d24e91483b5c10e2e36cdddebb1a4d45d0db661d17e20e"}[TaxonomyVersion]
	sum := sha256.Sum256([]byte(strings.ReplaceAll(taxonomyTable, "\r\n", "\n")))
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("taxonomy.tsv has digest %s, version %d is %s: raise the version", got, TaxonomyVersion, want)
	}
}

func TestClassesEndWithBenign(t *testing.T) {
	c := Classes()
	if n := len(c); n != 17 || c[n-1] != "benign" || c[n-2] != "other" {
		t.Errorf("classes %q", c)
	}
	if slices.Sort(c); len(slices.Compact(c)) != len(classes) {
		t.Errorf("a class stands twice in %q", classes)
	}
	if classes[len(classes)-1] != "benign" {
		t.Error("Classes hands out its own array")
	}
}

func TestExploitTitles(t *testing.T) {
	for _, c := range []struct{ title, typ, class, masked string }{
		{"Purei CMS 1.0 - SQL Injection", "webapps", "sql_injection", "Purei CMS 1.0"},
		{"Joomla! Component Annuaire - 'index.php?id' SQL Injection", "webapps", "sql_injection", "Joomla! Component Annuaire - 'index.php?id'"},
		{"Galleristic 1.0 - 'upload.php' Blind SQL Injection (Metasploit)", "webapps", "sql_injection", "Galleristic 1.0 - 'upload.php'"},
		{"Foo 2 - SQLi / XSS", "webapps", "sql_injection", "Foo 2"},
		{"AbleSpace 1.0 - 'adv_cat.php' Cross-Site Scripting", "webapps", "xss", "AbleSpace 1.0 - 'adv_cat.php'"},
		{"IMHO - HTML Injection", "webapps", "xss", "IMHO"},
		{"Antminer D3 - Remote Command Execution", "remote", "command_injection", "Antminer D3"},
		{"Apache Struts - Remote Code Execution (RCE)", "remote", "code_execution", "Apache Struts"},
		{"WordPress Plugin wpDataTables 1.5.3 - Arbitrary File Upload", "webapps", "code_execution", "WordPress Plugin wpDataTables 1.5.3"},
		{"PluXml 5.1.5 - Local File Inclusion", "webapps", "file_inclusion", "PluXml 5.1.5"},
		{"ISWEB 3.5.3 - Directory Traversal", "webapps", "path_traversal", "ISWEB 3.5.3"},
		{"Winamp 5.05 < 5.13 - '.ini' Local Stack Buffer Overflow", "local", "memory_corruption", "Winamp 5.05 < 5.13 - '.ini'"},
		{"Chrome - Use-After-Free", "dos", "memory_corruption", "Chrome"},
		{"AA SMTP Server 1.1 - Crash (PoC)", "dos", "denial_of_service", "AA SMTP Server 1.1"},
		{"Wise Care 365 - 'WiseBootAssistant' Unquoted Service Path", "local", "privilege_escalation", "Wise Care 365 - 'WiseBootAssistant'"},
		{"Foo - Authentication Bypass", "webapps", "privilege_escalation", "Foo"},
		{"HostAdmin - Full Path Disclosure", "webapps", "information_disclosure", "HostAdmin - Full"},
		{"Frog CMS - Cross-Site Request Forgery (Add User)", "webapps", "csrf", "Frog CMS"},
		{"Foo - XML External Entity Injection", "webapps", "xxe", "Foo"},
		{"Foo - Server-Side Request Forgery", "webapps", "ssrf", "Foo"},
		{"Router - Password Brute Force", "remote", "brute_force", "Router"},
		{"Samsung NET-i ware 1.37 - Multiple Vulnerabilities", "webapps", "other", "Samsung NET-i ware 1.37"},
		// The flaw decides before words of the product, and names in quotes come last.
		{"SQL Injection Scanner 1.0 - Buffer Overflow", "remote", "memory_corruption", "Scanner 1.0"},
		{"Foo - 'xss.php' Local File Inclusion", "webapps", "file_inclusion", "Foo - ' .php'"},
		{"Foo - 'traversal'", "webapps", "path_traversal", "Foo - ' '"},
		// Without a word that tells, the type does.
		{"Microsoft Edge Chakra - Deferred Parsing Makes Wrong Scopes", "dos", "denial_of_service", "Microsoft Edge Chakra - Deferred Parsing Makes Wrong Scopes"},
		{"Kaspersky 17.0.0 - CA", "local", "privilege_escalation", "Kaspersky 17.0.0 - CA"},
		{"Linux/x86 - execve /bin/sh", "shellcode", "code_execution", "Linux/x86 - execve /bin/sh"},
		{"TLS - Renegotiation", "remote", "other", "TLS - Renegotiation"},
		{"", "", "other", ""},
		{"\xff\xfe - \xe9", "webapps", "other", "\xff\xfe - \xe9"},
	} {
		m := ClassifyExploit(c.title, c.typ, "multiple")
		if got := className(m); got != c.class {
			t.Errorf("%q is %s, want %s", c.title, got, c.class)
		}
		if got := MaskTitle(c.title, m.Spans); got != c.masked {
			t.Errorf("%q masked is %q, want %q", c.title, got, c.masked)
		}
		if m.Level <= record.LevelSafe {
			t.Errorf("%q has level %v", c.title, m.Level)
		}
	}
}

func TestRecordLabels(t *testing.T) {
	for _, c := range []struct {
		kind  record.Kind
		label string
		class string
		level record.Level
	}{
		// HttpParams.
		{record.Labelled, "norm", "benign", record.LevelSafe},
		{record.Labelled, "sqli", "sql_injection", record.LevelDangerous},
		{record.Labelled, "xss", "xss", record.LevelDangerous},
		{record.Labelled, "path-traversal", "path_traversal", record.LevelDangerous},
		{record.Labelled, "cmdi", "command_injection", record.LevelCritical},
		// The sensors' threat log.
		{record.Attacks, "sql injection attack", "sql_injection", record.LevelDangerous},
		{record.Attacks, "SQL Injection Attack", "sql_injection", record.LevelDangerous},
		{record.Attacks, "XSS Attack", "xss", record.LevelDangerous},
		{record.Attacks, "Directory Traversal Attack", "path_traversal", record.LevelDangerous},
		{record.Attacks, "Command Injection Attack", "command_injection", record.LevelCritical},
		{record.Attacks, "LFI/RFI Attack", "file_inclusion", record.LevelCritical},
		{record.Attacks, "XML/XXE Injection Attack", "xxe", record.LevelDangerous},
		{record.Attacks, "LDAP Injection Attack", "other", record.LevelSuspicious},
		{record.Attacks, "Template Injection (SSTI)", "code_execution", record.LevelCritical},
		{record.Attacks, "Header Injection", "other", record.LevelSuspicious},
		{record.Attacks, "Null Byte Injection", "other", record.LevelSuspicious},
		{record.Attacks, "Brute Force Attack", "brute_force", record.LevelDangerous},
		{record.Attacks, "Credential Stuffing", "brute_force", record.LevelDangerous},
		{record.Attacks, "DDoS Attack", "denial_of_service", record.LevelDangerous},
		{record.Attacks, "High Request Rate", "denial_of_service", record.LevelDangerous},
		{record.Attacks, "Security Scanner Detected", "scanner", record.LevelSuspicious},
		{record.Attacks, "Bot/Scanner Detection", "scanner", record.LevelSuspicious},
		{record.Attacks, "AI-Detected Attack", "other", record.LevelSuspicious},
		{record.Attacks, "攻撃", "other", record.LevelSuspicious},
		{record.Attacks, "unknown", "-", record.LevelUnknown},
		{record.Attacks, "", "-", record.LevelUnknown},
		// Cowrie.
		{record.Cowrie, "cowrie.session.connect", "scanner", record.LevelSuspicious},
		{record.Cowrie, "cowrie.client.version", "scanner", record.LevelSuspicious},
		{record.Cowrie, "cowrie.login.failed", "brute_force", record.LevelDangerous},
		{record.Cowrie, "cowrie.login.success", "brute_force", record.LevelDangerous},
		{record.Cowrie, "cowrie.command.input", "command_injection", record.LevelCritical},
		{record.Cowrie, "cowrie.session.file_download", "code_execution", record.LevelCritical},
		{record.Cowrie, "cowrie.session.file_download.failed", "code_execution", record.LevelCritical},
		{record.Cowrie, "cowrie.session.file_upload", "code_execution", record.LevelCritical},
		{record.Cowrie, "cowrie.direct-tcpip.request", "other", record.LevelSuspicious},
		// sshd.
		{record.SSHD, "sshd.failed", "brute_force", record.LevelDangerous},
		{record.SSHD, "sshd.invalid-user", "brute_force", record.LevelDangerous},
		{record.SSHD, "sshd.max-attempts", "brute_force", record.LevelDangerous},
		{record.SSHD, "sshd.accepted", "benign", record.LevelSafe},
		{record.SSHD, "sshd.no_identification", "scanner", record.LevelSuspicious},
		{record.SSHD, "sshd.bad_protocol", "scanner", record.LevelSuspicious},
		{record.SSHD, "sshd.no_agreement", "scanner", record.LevelSuspicious},
		// What only the kind tells.
		{record.Access, "", "-", record.LevelUnknown},
		{record.Access, "benign", "benign", record.LevelSafe},
		{record.Honeypot, "", "-", record.LevelSuspicious},
		{record.Honeypot, "unknown", "-", record.LevelSuspicious},
		{record.Honeypot, "xss", "xss", record.LevelDangerous},
		{record.Honeypot, "benign", "-", record.LevelSuspicious},
		{record.Cowrie, "norm", "-", record.LevelSuspicious},
		// A part of a harmless word makes nothing harmless.
		{record.Attacks, "benign looking sql injection", "sql_injection", record.LevelDangerous},
		{record.Attacks, "abnormal", "other", record.LevelSuspicious},
	} {
		m := ClassifyRecord(c.kind, c.label)
		if className(m) != c.class || m.Level != c.level || m.Spans != nil {
			t.Errorf("%s %q is %s %v, want %s %v", c.kind, c.label, className(m), m.Level, c.class, c.level)
		}
	}
	for i, name := range classes {
		if m := ClassifyRecord(record.Access, name); m.Class != i {
			t.Errorf("the class name %q is of class %s", name, className(m))
		}
	}
}

func TestTableErrorsAreFound(t *testing.T) {
	head := "# Taxonomy, version 1.\n"
	ends := "exploit\ttype\t*\tother\t-\nrecord\tlabel\t*\tother\t-\nrecord\tkind\t*\t-\t-\n"
	if _, err := parseTaxonomy(head + "exploit\ttitle\ta|b* c *\txss\tCRITICAL\n" + ends); err != nil {
		t.Fatal(err)
	}
	for name, table := range map[string]string{
		"no version":            ends,
		"other version":         "# Taxonomy, version 2.\n" + ends,
		"too few columns":       head + "exploit\ttitle\ta\txss\n" + ends,
		"unknown scope":         head + "shell\ttitle\ta\txss\t-\n" + ends,
		"unknown field":         head + "exploit\tlabel\ta\txss\t-\n" + ends,
		"unknown class":         head + "exploit\ttitle\ta\txsss\t-\n" + ends,
		"unknown level":         head + "exploit\ttitle\ta\txss\tHIGH\n" + ends,
		"capital in a pattern":  head + "exploit\ttitle\tA\txss\t-\n" + ends,
		"dash in a pattern":     head + "exploit\ttitle\ta-b\txss\t-\n" + ends,
		"empty pattern":         head + "exploit\ttitle\t\txss\t-\n" + ends,
		"double space":          head + "exploit\ttitle\ta  b\txss\t-\n" + ends,
		"star within a word":    head + "exploit\ttitle\ta*b\txss\t-\n" + ends,
		"star as alternative":   head + "exploit\ttitle\ta|*\txss\t-\n" + ends,
		"no last row for types": head + "record\tlabel\t*\tother\t-\nrecord\tkind\t*\t-\t-\n",
	} {
		if _, err := parseTaxonomy(table); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

// exploitRows reads an index of the real data.
func exploitRows(t testing.TB, name, column string) (titles, types []string) {
	f, err := os.Open(testkit.Data(t, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	head, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	ti, ty := slices.Index(head, column), slices.Index(head, "type")
	for {
		row, err := r.Read()
		if err == io.EOF {
			return titles, types
		}
		if err != nil {
			t.Fatal(err)
		}
		titles, types = append(titles, row[ti]), append(types, row[ty])
	}
}

func TestFewRealTitlesAreOther(t *testing.T) {
	for _, file := range []string{"exploitdb/files_exploits.reassembled.csv", "exploitdb/files.csv"} {
		titles, types := exploitRows(t, file, "description")
		var n [len(classes)]int
		untold, telling := 0, 0
		for i, title := range titles {
			m := ClassifyExploit(title, types[i], "")
			n[m.Class]++
			if m.Class == ClassifyExploit("", types[i], "").Class && len(m.Spans) == 0 {
				untold++
			}
			left := MaskTitle(title, m.Spans)
			if rest := ClassifyExploit(left, "remote", ""); classes[rest.Class] != "other" {
				telling++
			}
		}
		share := func(k int) float64 { return 100 * float64(k) / float64(len(titles)) }
		for i, name := range classes {
			t.Logf("%s: %6d %s", file, n[i], name)
		}
		t.Logf("%s: %.2f %% other, %.2f %% by type alone, %.2f %% still tell a class when masked", file,
			share(n[len(classes)-2]), share(untold), share(telling))
		if share(n[len(classes)-2]) >= 12 {
			t.Errorf("%s: %.2f %% of the titles are other", file, share(n[len(classes)-2]))
		}
		if share(telling) >= 0.1 {
			t.Errorf("%s: %.2f %% of the masked titles still tell a class", file, share(telling))
		}
		if n[len(classes)-1] != 0 {
			t.Errorf("%s: %d exploits are benign", file, n[len(classes)-1])
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add("Purei CMS 1.0 - 'a.php' SQL Injection", "webapps")
	f.Add("' - ' '\xff(XSS)' - '", "dos")
	f.Add("SQL_Injection'", "cowrie.login.failed")
	f.Fuzz(func(t *testing.T, title, other string) {
		m := ClassifyExploit(title, other, other)
		if m.Class < 0 || m.Class >= len(classes)-1 {
			t.Fatalf("class %d", m.Class)
		}
		at := -1
		for _, s := range m.Spans {
			if s[0] <= at || s[1] <= s[0] || s[1] > len(title) {
				t.Fatalf("spans %v in %d bytes", m.Spans, len(title))
			}
			at = s[1]
		}
		masked := MaskTitle(title, m.Spans)
		if len(masked) > len(title) || utf8.ValidString(title) && !utf8.ValidString(masked) {
			t.Fatalf("%q masked is %q", title, masked)
		}
		if len(m.Spans) == 0 && masked != title {
			t.Fatalf("%q without spans becomes %q", title, masked)
		}
		for _, k := range []record.Kind{record.Attacks, record.Cowrie, record.Kind(other)} {
			if r := ClassifyRecord(k, title); r.Class < Unlabelled || r.Class >= len(classes) {
				t.Fatalf("class %d", r.Class)
			}
		}
	})
}

func BenchmarkClassifyExploit(b *testing.B) {
	titles, types := exploitRows(b, "exploitdb/files_exploits.reassembled.csv", "description")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		ClassifyExploit(titles[i], types[i], "")
		if i++; i == len(titles) {
			i = 0
		}
	}
}
