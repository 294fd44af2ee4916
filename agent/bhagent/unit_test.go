package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

const unitFile = "../bhagent.service"

// readUnit returns the values of each key of the unit for systemd, and its comments.
func readUnit(t *testing.T) (settings map[string][]string, comments string) {
	t.Helper()
	b, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	settings = map[string][]string{}
	for sc := bufio.NewScanner(strings.NewReader(string(b))); sc.Scan(); {
		line := sc.Text()
		key, value, ok := strings.Cut(line, "=")
		switch {
		case strings.HasPrefix(line, "#"):
			comments += line + "\n"
		case ok:
			settings[key] = append(settings[key], value)
		case line != "" && !strings.HasPrefix(line, "["):
			t.Errorf("%s: %q", unitFile, line)
		}
	}
	return settings, comments
}

func TestUnitRunsWhatThereIs(t *testing.T) {
	unit, comments := readUnit(t)
	one := func(key string) string {
		t.Helper()
		if len(unit[key]) != 1 {
			t.Fatalf("%s= stands %d times", key, len(unit[key]))
		}
		return unit[key][0]
	}
	_, flags := newFlags()
	words := strings.Fields(one("ExecStart"))
	if len(words) < 2 || filepath.Base(words[0]) != "bhagent" || words[1] != runCommand.Name {
		t.Fatalf("ExecStart=%s", words)
	}
	if err := flags.Parse(words[2:]); err != nil {
		t.Errorf("ExecStart=: %v", err)
	}
	config, _ := flags.GetString("config")
	if config == "" || !strings.Contains(comments, config) {
		t.Errorf("the comments do not say what stands in %q", config)
	}
	if one("Type") != "notify" || !strings.Contains(one("ExecReload"), "-HUP") {
		t.Errorf("Type=%s, ExecReload=%s", one("Type"), one("ExecReload"))
	}
	if !strings.Contains(comments, "state: /var/lib/"+one("StateDirectory")) || one("StateDirectoryMode") != "0700" {
		t.Errorf("StateDirectory=%s, mode %s", one("StateDirectory"), one("StateDirectoryMode"))
	}
	// One thread for each processor, and those that wait for the disk.
	if n, err := strconv.Atoi(one("TasksMax")); err != nil || n < 512 {
		t.Errorf("TasksMax=%s", one("TasksMax"))
	}
	// A user of the moment has no secrets of its own: they are handed to it.
	credentials := map[string]string{} // file of root, by identifier
	for _, c := range unit["LoadCredential"] {
		id, file, _ := strings.Cut(c, ":")
		credentials[id] = file
		if filepath.IsAbs(file) {
			t.Errorf("LoadCredential=%s: without that file the service does not start", c)
		}
		if !strings.Contains(comments, "/etc/credstore/"+file+" ") {
			t.Errorf("the comments do not name /etc/credstore/%s", file)
		}
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile(`([a-z-]+): /run/credentials/bhagent\.service/(\S+)`).FindAllStringSubmatch(comments, -1) {
		told[m[1]] = true
		if flags.Lookup(m[1]) == nil || credentials[m[2]] == "" {
			t.Errorf("%s: no such setting, or no such credential", m[0])
		}
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if secret := strings.HasPrefix(f.Name, "tls-") || strings.HasPrefix(f.Name, "token"); secret && !told[f.Name] {
			t.Errorf("the comments do not say how --%s gets its file", f.Name)
		}
	})
	if credentials["config.json"] == "" || !slices.Contains(unit["Environment"], "DOCKER_CONFIG=%d") {
		t.Errorf("registries: credentials %v, Environment=%s", credentials, unit["Environment"])
	}
}

func TestUnitIsHardened(t *testing.T) {
	unit, _ := readUnit(t)
	for key, want := range map[string]string{
		"DynamicUser": "yes", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
		"PrivateDevices": "yes", "ProtectKernelTunables": "yes", "ProtectKernelModules": "yes", "ProtectControlGroups": "yes", "RestrictNamespaces": "yes",
		"RestrictSUIDSGID": "yes", "MemoryDenyWriteExecute": "yes", "LockPersonality": "yes", "SystemCallArchitectures": "native", "UMask": "0077",
		"RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
	} {
		if got := unit[key]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s=%q, want %q", key, got, want)
		}
	}
	if got := unit["SystemCallFilter"]; !slices.Equal(got, []string{"@system-service", "~@privileged"}) {
		t.Errorf("SystemCallFilter=%q", got)
	}
	if unit["MemoryMax"] == nil {
		t.Error("no MemoryMax=")
	}
}

// What systemd itself thinks of it.
func TestUnitIsValid(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bhagent.service")
	verify := func(unit string) string {
		t.Helper()
		write(t, path, strings.Replace(unit, "/usr/local/bin/bhagent", program, 1))
		out, _ := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput() // an unknown key is no failure to it
		var about []string
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "bhagent.service") { // and not another unit of this machine
				about = append(about, line)
			}
		}
		return strings.Join(about, "")
	}
	unknown := verify(strings.Replace(string(text), "ProtectClock=", "ProtectClok=", 1))
	if !strings.Contains(unknown, "ProtectClok") {
		t.Skipf("systemd-analyze does not work here: %q", unknown)
	}
	if out := verify(string(text)); out != "" {
		t.Errorf("systemd-analyze verify:\n%s", out)
	}
	// The exposure is between 0 and 100, the less the better.
	write(t, path, string(text))
	if out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=20", path).CombinedOutput(); err != nil && !strings.Contains(string(out), "unrecognized option") { // before 250
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}
