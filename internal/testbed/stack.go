//go:build linux

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// stack is a set of running servers.
type stack struct {
	dir, tools string
	at         endpoints
	servers    []*server
	failed     chan error // a server that ended too early
}

// server is one running program.
type server struct {
	name    string
	log     string
	process *os.Process
	done    chan error
}

// port is one that was free a moment ago. Nobody else uses ports of the
// namespace.
type port struct{ net.Listener }

func (p port) number() string {
	return strconv.Itoa(p.Addr().(*net.TCPAddr).Port)
}

// start makes all keys and files, starts all servers and waits until each
// answers or ctx ends. What was started is to be stopped, whatever it returns.
func (s *stack) start(ctx context.Context) error {
	now := time.Now().UTC().Truncate(time.Second)
	start := now.Add(-time.Hour)
	in := func(name string) string { return filepath.Join(s.dir, name) }

	ca, err := newAuthority("ca", codeSigning, now)
	if err != nil {
		return err
	}
	tsa, err := newAuthority("tsa", timeStamping, now)
	if err != nil {
		return err
	}
	logPublic, logKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}

	var ports [9]port // all at once, so that no two are the same
	for i := range ports {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		ports[i] = port{l}
	}
	oidc := ports[0]
	registry, fulcio, fulcioGRPC, fulcioMetrics := ports[1], ports[2], ports[3], ports[4]
	stamps, rekor, rekorGRPC, rekorMetrics := ports[5], ports[6], ports[7], ports[8]
	for _, p := range ports[1:] {
		p.Close()
	}
	issuer, err := newIssuer(oidc)
	if err != nil {
		return err
	}
	s.at = endpoints{
		Registry:    registry.Addr().String(),
		Fulcio:      "http://" + fulcio.Addr().String(),
		TSA:         "http://" + stamps.Addr().String() + "/api/v1/timestamp",
		Rekor:       "http://" + rekor.Addr().String(),
		Issuer:      issuer.url,
		TokenURL:    issuer.url + "/token?",
		TokenSecret: issuer.secret,
	}

	root, err := newTrustedRoot(s.at, ca, tsa, logPublic, start)
	if err != nil {
		return err
	}
	if err := errors.Join(
		ca.write(in("ca.pem"), in("ca.key")),
		tsa.write(in("tsa.pem"), in("tsa.key")),
		writeKey(in("rekor.key"), logKey),
		writeJSON(in("trusted_root.json"), root),
		writeJSON(in("signing_config.json"), newSigningConfig(s.at, start)),
		writeJSON(in("fulcio.json"), fulcioConfig(s.at.Issuer)),
		writeJSON(in("registry.yml"), map[string]any{
			"version": "0.1",
			"storage": map[string]any{"filesystem": map[string]any{"rootdirectory": in("registry")}, "delete": map[string]any{"enabled": true}},
			"http":    map[string]any{"addr": s.at.Registry},
		}),
	); err != nil {
		return err
	}

	programs := []struct {
		ready string // URL that answers with 200 when the server is ready
		args  []string
	}{
		{"http://" + s.at.Registry + "/v2/", []string{"registry", "serve", in("registry.yml")}},
		{s.at.Fulcio + "/api/v2/trustBundle", []string{"fulcio", "serve",
			"--ca=fileca", "--fileca-cert=" + in("ca.pem"), "--fileca-key=" + in("ca.key"), "--fileca-watch=false",
			"--fileca-key-passwd=none", // must be given, also for a key that is not encrypted
			"--ct-log-url=", "--config-path=" + in("fulcio.json"), "--legacy-unix-domain-socket=" + in("fulcio.sock"),
			"--host=127.0.0.1", "--port=" + fulcio.number(), "--grpc-host=127.0.0.1", "--grpc-port=" + fulcioGRPC.number(),
			"--metrics-port=" + fulcioMetrics.number()}},
		{s.at.TSA + "/certchain", []string{"timestamp-server", "serve",
			"--timestamp-signer=file", "--file-signer-key-path=" + in("tsa.key"), "--certificate-chain-path=" + in("tsa.pem"),
			"--disable-ntp-monitoring", "--host=127.0.0.1", "--port=" + stamps.number()}},
		{s.at.Rekor + "/healthz", []string{"posix", "serve",
			"--hostname=" + rekorOrigin, "--signer-filepath=" + in("rekor.key"), "--storage-dir=" + in("rekor"),
			"--checkpoint-interval=500ms", "--batch-max-age=100ms",
			"--http-address=127.0.0.1", "--http-port=" + rekor.number(), "--grpc-address=127.0.0.1", "--grpc-port=" + rekorGRPC.number(),
			"--http-metrics-port=" + rekorMetrics.number()}},
	}
	for _, p := range programs {
		if err := s.serve(p.args); err != nil {
			return err
		}
	}
	for _, p := range programs {
		if err := s.await(ctx, p.args[0], p.ready); err != nil {
			return err
		}
	}
	return nil
}

// serve starts one program, of which the output goes to a file NAME.log.
func (s *stack) serve(args []string) error {
	v := &server{name: args[0], log: filepath.Join(s.dir, args[0]+".log"), done: make(chan error, 1)}
	log, err := os.Create(v.log)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(s.tools, args[0]), args[1:]...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none", "HOME="+s.dir)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: an interrupt from the terminal is for the command.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	v.process = cmd.Process
	s.servers = append(s.servers, v)
	go func() {
		err := cmd.Wait()
		text, _ := os.ReadFile(v.log) // the message is worth having without it
		s.failed <- fmt.Errorf("%s ended: %v\n%s", v.name, err, text[max(0, len(text)-4000):])
		v.done <- err
	}()
	return nil
}

// await waits until an URL answers with 200.
func (s *stack) await(ctx context.Context, name, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	for {
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(response.Status)
		}
		select {
		case err := <-s.failed:
			return err
		case <-ctx.Done():
			return fmt.Errorf("%s does not get ready: %w", name, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends all servers and returns when they have ended.
func (s *stack) stop() {
	for _, v := range s.servers {
		end(v.process, v.done)
	}
}
