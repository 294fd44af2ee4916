//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// running starts a shell beside a stack, tells the folder of the stack and the
// process ids of its servers, and leaves the shell waiting for its input to end.
// Then it runs the rest of the script.
type running struct {
	*exec.Cmd
	t       *testing.T
	folder  string
	servers []int
	input   interface{ Close() error }
	stderr  strings.Builder
}

func begin(t *testing.T, script string) *running {
	t.Helper()
	if os.Getenv("BH_E2E") == "" {
		t.Skip("needs the built servers: set BH_E2E=1 to run it")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	r := &running{t: t, Cmd: exec.CommandContext(ctx, "./run", "bash", "-c", `echo "$BH_STACK"; read; `+script)}
	in, err := r.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.input, r.Cmd.Stderr = in, &r.stderr
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err, r.stderr.String())
	}
	r.folder = strings.TrimSpace(line)
	if r.servers = naming(t, r.folder); len(r.servers) != 4 {
		t.Fatalf("%d servers run, want 4", len(r.servers))
	}
	return r
}

// naming lists the processes in whose arguments the text stands.
func naming(t *testing.T, text string) (ids []int) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), text) {
			id, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
	}
	return ids
}

// goOn lets the shell run the rest of its script.
func (r *running) goOn() *running {
	r.t.Helper()
	if err := r.input.Close(); err != nil {
		r.t.Fatal(err)
	}
	return r
}

// ends waits for the end and for that of all servers.
func (r *running) ends(code int) {
	r.t.Helper()
	err := r.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	if got := r.ProcessState.ExitCode(); got != code {
		r.t.Errorf("exit code %d, want %d: %s", got, code, r.stderr.String())
	}
	for wait := time.Now().Add(20 * time.Second); len(naming(r.t, r.folder)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(wait) {
			r.t.Fatal("servers are still running")
		}
	}
}

func (r *running) gone() {
	r.t.Helper()
	for wait := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(r.folder); errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(wait) {
			r.t.Fatal(r.folder, "is still there")
		}
	}
}

func TestNothingIsLeft(t *testing.T) {
	t.Run("the command ends", func(t *testing.T) {
		r := begin(t, "exit 7").goOn()
		r.ends(7)
		r.gone()
	})
	t.Run("the command is killed", func(t *testing.T) {
		r := begin(t, "kill -9 $$").goOn()
		r.ends(128 + 9)
		r.gone()
	})
	t.Run("terminated", func(t *testing.T) {
		r := begin(t, "exit 7")
		r.Process.Signal(syscall.SIGTERM)
		r.ends(128 + 15)
		r.gone()
	})
	t.Run("killed outside the namespace", func(t *testing.T) {
		r := begin(t, "exit 7")
		r.Process.Kill()
		r.ends(-1)
		r.gone()
	})
	t.Run("killed inside", func(t *testing.T) {
		r := begin(t, "kill -9 $PPID").goOn()
		r.ends(128 + 9)
		os.RemoveAll(r.folder)
	})
	t.Run("a server ends", func(t *testing.T) {
		r := begin(t, "exit 7")
		syscall.Kill(r.servers[0], syscall.SIGKILL)
		for len(naming(t, r.folder)) > 0 {
			time.Sleep(10 * time.Millisecond)
		}
		r.ends(1)
		r.gone()
		if !strings.Contains(r.stderr.String(), " ended: signal: killed") {
			t.Errorf("says %s", r.stderr.String())
		}
	})
}

// The command reaches the servers of the stack and nobody else.
func TestNamespaceIsClosed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const connect = "exec 3<>/dev/tcp/127.0.0.1/"
	begin(t, connect+"${BH_REGISTRY#*:}").goOn().ends(0)
	begin(t, connect+strconv.Itoa(l.Addr().(*net.TCPAddr).Port)).goOn().ends(1)
}
