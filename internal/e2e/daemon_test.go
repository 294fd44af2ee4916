//go:build unix

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a command of the user that goes on until it is told to end.
type process struct {
	u   *user
	cmd *exec.Cmd
	log string // path of what it writes to standard error
}

func (u *user) start(args ...string) *process {
	u.t.Helper()
	p := &process{u: u, log: filepath.Join(u.t.TempDir(), "log")}
	p.cmd = exec.Command(filepath.Join(bin, args[0]), args[1:]...)
	p.cmd.Dir = u.dir
	p.cmd.Env = append(os.Environ(), "HOME="+u.home, "XDG_CONFIG_HOME="+filepath.Join(u.home, ".config"))
	p.cmd.Env = append(p.cmd.Env, u.env...)
	return p
}

func (p *process) run() *process {
	p.u.t.Helper()
	f, err := os.Create(p.log)
	if err != nil {
		p.u.t.Fatal(err)
	}
	defer f.Close()
	p.cmd.Stderr = f
	if err := p.cmd.Start(); err != nil {
		p.u.t.Fatal(err)
	}
	p.u.t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.cmd.Process.Kill()
			p.cmd.Wait()
		}
	})
	return p
}

// end asks it to end and wants exit code 0.
func (p *process) end() {
	p.u.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			p.u.t.Errorf("ended with %v\n%s", err, p.said())
		}
	case <-time.After(20 * time.Second):
		p.u.t.Errorf("does not end\n%s", p.said())
	}
}

func (p *process) said() string {
	b, _ := os.ReadFile(p.log)
	return string(b)
}

// until waits until ok.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func TestAgentRunsAsADaemon(t *testing.T) {
	f := newFleet(t)
	f.publish(1)
	// The socket's path is bounded by the system, so it is a short one.
	dir, err := os.MkdirTemp("", "bha")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	config := filepath.Join(f.dir, "agent.yaml")
	text := "policy: policy.yaml\nstate: state\nlisten: \"\"\nsocket: " + socket + "\nlog-format: json\ninterval: 1h\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f.env = []string{"MODEL_SYNC_URL=./repo", "RELAY_URL=wss://relay.example.org:60001"}
	p := f.start("bhagent", "run", "--config", config).run()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	var status struct {
		State   string
		Loaded  bool
		Reason  string
		Release *struct {
			Number int64
			InUse  bool `json:"in_use"`
		}
	}
	is := func(state string, n int64, used bool) func() bool {
		return func() bool {
			r, err := client.Get("http://agent/api/models")
			if err != nil {
				return false
			}
			defer r.Body.Close()
			status.Release = nil
			if err := json.NewDecoder(r.Body).Decode(&status); err != nil {
				t.Fatal(err)
			}
			return status.State == state && status.Loaded == used && status.Release != nil && status.Release.Number == n && status.Release.InUse == used
		}
	}
	until(t, "release 1", is("current", 1, true))
	if !strings.Contains(p.said(), `"variable":"MODEL_SYNC_URL"`) || !strings.Contains(p.said(), `"from":"./repo"`) {
		t.Errorf("the older variable is not in the log:\n%s", p.said())
	}
	f.fails(1, "in use by another process", "bhagent", "run", "--config", config, "--socket", socket+"2", "--from", "./repo")
	f.fails(1, "another process serves there", "bhagent", "run", "--config", config, "--state", "other", "--from", "./repo")

	f.publish(2)
	p.cmd.Process.Signal(syscall.SIGHUP)
	until(t, "release 2", is("current", 2, true))
	f.publish(3)
	r, err := client.Post("http://agent/api/models/sync", "", nil)
	if err != nil || r.StatusCode != 200 {
		t.Fatalf("%v %v", r, err)
	}
	b, _ := io.ReadAll(r.Body)
	if !strings.Contains(string(b), `"result":"installed"`) || !is("current", 3, true)() {
		t.Errorf("%s %+v", b, status)
	}
	// A policy that changes is obeyed while it runs.
	policy, err := os.ReadFile(filepath.Join(f.dir, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(f.dir, "policy.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(policy) + "min_release: 9\n")
	until(t, "refusal", is("refused", 3, false))
	if r, err := client.Post("http://agent/v1/score", "application/json", strings.NewReader(`{"details":"GET /"}`)); err != nil || r.StatusCode != 503 {
		t.Errorf("a refused release scores: %v %v", r, err)
	}
	write(string(policy))
	until(t, "the old policy", is("current", 3, true))
	p.end()
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket is still there")
	}
	f.is("current", 3, 0)
}

func TestRunRefusesBadSettings(t *testing.T) {
	u := newUser(t)
	write := func(text string) string {
		path := filepath.Join(u.dir, "config.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for text, says := range map[string]string{
		"polcy: x\n":                           `config.yaml:1: \"polcy\" is no setting`,
		"policy: x\npolicy: y\n":               "stands twice",
		"policy: [x]\n":                        "one plain value",
		"interval: soon\n":                     "interval",
		"- policy\n":                           "want keys",
		"policy: x\n---\npolicy: y\n":          "more than one",
		"config: other.yaml\n":                 "no setting",
		"policy:\n":                            "one plain value",
		"from: [./a, ./b]\n":                   "--policy is missing",
		"policy: x\n":                          "--from is missing",
		"log-format: xml\n":                    "--log-format",
		"from: ./a\npolicy: x\nlisten: \"\"\n": "nobody could ask",
	} {
		r := u.run(nil, "bhagent", "run", "--config", write(text))
		if r.code != 2 || !strings.Contains(r.err, strings.ReplaceAll(says, `\"`, `"`)) {
			t.Errorf("%q: exit code %d, %s", text, r.code, r.err)
		}
	}
	// Beyond loopback a token and TLS are needed.
	u.must("bhtrain", "run", "-q", "--out", "dist")
	u.must("bhverify", "policy", "init", "--key", u.key(), "-o", "policy.yaml")
	for _, listen := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0"} {
		u.fails(2, "needs --token-file", "bhagent", "run", "--from", "./dist", "--policy", "policy.yaml", "--state", "state", "--listen", listen)
	}
	u.fails(2, "want an address", "bhagent", "run", "--from", "./dist", "--policy", "policy.yaml", "--state", "state", "--listen", "example.org:0")
}

func TestTailFollowsALogAndTheRelease(t *testing.T) {
	f := newFleet(t)
	f.publish(1)
	f.sync()
	log := filepath.Join(f.dir, "access.log")
	line := func(i int) string {
		return fmt.Sprintf("198.51.100.7 - - [10/Jan/2026:08:00:%02d +0000] \"GET /item.php?id=1'+OR+'1'='1 HTTP/1.1\" 200 12\n", i)
	}
	put := func(text string) {
		t.Helper()
		w, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = w.WriteString(text)
			w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put("before\n")
	p := f.start("bhagent", "tail", "access.log", "--state", "state")
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.run()
	answers := make(chan string, 100)
	go func() {
		for sc := bufio.NewScanner(out); sc.Scan(); {
			answers <- sc.Text()
		}
		close(answers)
	}()
	n := 0
	next := func() string {
		t.Helper()
		select {
		case a := <-answers:
			return a
		case <-time.After(30 * time.Second):
			t.Fatalf("no answer\n%s", p.said())
			return ""
		}
	}
	by := func(release int64) bool {
		t.Helper()
		put(line(n % 60))
		n++
		return strings.Contains(next(), f.manifest[release].String())
	}
	time.Sleep(500 * time.Millisecond) // until it is at the end
	if !by(1) {
		t.Error("not scored with release 1")
	}
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	if !by(1) {
		t.Error("not scored after rotation")
	}
	f.publish(2)
	f.sync()
	until(t, "scoring with release 2", func() bool { time.Sleep(time.Second); return by(2) })
	p.end()
}
