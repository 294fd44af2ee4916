//go:build linux

// Command testbed runs a command beside a whole Sigstore: a registry
// (distribution), a certificate authority (Fulcio), a timestamp authority, a
// transparency log (Rekor v2) and an OpenID Connect issuer. The script run
// beside this file builds what is needed and starts it:
//
//	internal/testbed/run COMMAND [ARG...]
//
// Keys and certificates are made anew each time. Everything listens on the
// loopback of a network namespace of its own, in which COMMAND runs too: nobody
// else can reach the servers, and COMMAND reaches nobody else. COMMAND finds
//
//	BH_STACK     the folder with endpoints.json (type endpoints says what is in
//	             it), trusted_root.json and signing_config.json
//	BH_REGISTRY  HOST:PORT of the registry
//	PATH         with cosign, crane, oras and the servers first
//
// When COMMAND ends, the servers are stopped, the folder is removed, and
// COMMAND's exit code is returned. So it is when testbed is terminated, or
// when a server ends too early, with code 1 then. If testbed is killed, the
// kernel kills the servers.
//
// It needs Linux and the right to make user namespaces.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

func init() {
	// The kernel kills children of a thread, not of a process, that ends
	// (Pdeathsig). The main thread ends last.
	runtime.LockOSThread()
}

func main() {
	var code int
	var err error
	switch {
	case len(os.Args) < 3:
		fmt.Fprintln(os.Stderr, "usage: internal/testbed/run COMMAND [ARG...]")
		os.Exit(2)
	case os.Args[0] == inside:
		code, err = run(os.Args[1], os.Args[2:])
	default:
		code, err = isolate(os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testbed:", err)
		code = 1
	}
	os.Exit(code)
}

// endpoints is what endpoints.json holds.
type endpoints struct {
	Registry string `json:"registry"` // HOST:PORT, without TLS
	Fulcio   string `json:"fulcio"`   // URL
	TSA      string `json:"tsa"`      // URL that requests are posted to
	Rekor    string `json:"rekor"`    // URL; its origin is rekorOrigin

	Issuer string `json:"issuer"` // URL: the issuer in tokens and certificates

	// A GET of TokenURL with the header "Authorization: bearer TokenSecret" and
	// the query parameter audience (Fulcio wants "sigstore") answers
	// {"value": a token}, as GitHub does at ACTIONS_ID_TOKEN_REQUEST_URL. The
	// query parameters repository, ref, workflow, event and sha say whose.
	TokenURL    string `json:"token_url"`
	TokenSecret string `json:"token_secret"`
}

// run starts the servers, of which the programs are in the folder tools, and
// then the command.
func run(tools string, command []string) (code int, err error) {
	if err := loopback(); err != nil {
		return 0, err
	}
	// An interrupt from the terminal reaches the command as well; when that has
	// ended, all else ends.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	dir, err := os.MkdirTemp("", "bhtrain-stack-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	s := stack{dir: dir, tools: tools, failed: make(chan error, 8)}
	defer s.stop()
	if err := s.start(ctx); err != nil {
		return 0, err
	}
	text, err := json.MarshalIndent(s.at, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "endpoints.json"), text, 0o600)
	}
	if err != nil {
		return 0, err
	}

	env := map[string]string{
		"BH_STACK":    dir,
		"BH_REGISTRY": s.at.Registry,
		"PATH":        tools + string(filepath.ListSeparator) + os.Getenv("PATH"),
	}
	for k, v := range env {
		if err := os.Setenv(k, v); err != nil {
			return 0, err
		}
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case err := <-done:
			return exitCode(cmd, err)
		case sig := <-signals:
			if sig == syscall.SIGTERM { // to this process alone
				end(cmd.Process, done)
				return 128 + int(syscall.SIGTERM), nil
			}
		case err := <-s.failed:
			end(cmd.Process, done)
			return 0, err
		}
	}
}

// end asks a process to end, and kills it if it does not within five seconds.
// Done tells of its end.
func end(p *os.Process, done <-chan error) {
	p.Signal(syscall.SIGTERM)
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		p.Kill()
		<-done
	}
}

// exitCode is that of an ended command, as a shell would tell it; err is what
// waiting for it returned.
func exitCode(cmd *exec.Cmd, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}
