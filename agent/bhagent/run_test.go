package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/battle-hardened-ai/bhtrain/agent"
	"github.com/battle-hardened-ai/bhtrain/internal/durable"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

// certificate writes a self-signed certificate with this serial number.
func certificate(t *testing.T, dir string, serial int64, at time.Time) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(cert, at, at); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	cert, key := certificate(t, dir, 1, now)
	s := settings{listen: "127.0.0.1:0", tlsCert: cert, tlsKey: key}
	listeners, err := s.listeners(context.Background(), "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l := listeners[0]
	defer l.Close()
	if l.Remote {
		t.Error("loopback is remote")
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	serial := func() int64 {
		t.Helper()
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if n := serial(); n != 1 {
		t.Errorf("serial number %d", n)
	}
	certificate(t, dir, 2, now.Add(time.Minute))
	if n := serial(); n != 2 {
		t.Errorf("serial number %d after it changed", n)
	}
	// Half-written: the old one serves on.
	if err := os.WriteFile(cert, []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := serial(); n != 2 {
		t.Errorf("serial number %d while it is written", n)
	}
	if _, err := (&settings{listen: "127.0.0.1:0", tlsCert: cert, tlsKey: key}).listeners(context.Background(), "", slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a server without a certificate starts")
	}
	if _, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

func TestBeyondLoopback(t *testing.T) {
	for listen, want := range map[string]bool{
		"127.0.0.1:1": false, "127.9.9.9:1": false, "[::1]:1": false, "localhost:1": false,
		"0.0.0.0:1": true, ":1": true, "[::]:1": true, "192.0.2.1:1": true, "[fe80::1]:1": true,
	} {
		if got, err := beyondLoopback(listen); err != nil || got != want {
			t.Errorf("%s: %t %v", listen, got, err)
		}
	}
	for _, listen := range []string{"", "1", "localhost", "example.org:1"} {
		if _, err := beyondLoopback(listen); err == nil {
			t.Errorf("%q is accepted", listen)
		}
	}
}

func TestOlderVariables(t *testing.T) {
	for _, c := range []struct {
		given                       []string
		sync, relay, want, mentions string
	}{
		{nil, "https://models.example.org/web/models", "", "oci://models.example.org/web/models", "write it as --from"},
		{nil, "http://10.0.0.1:5000/models", "wss://x.example/y", "oci://10.0.0.1:5000/models", "is ignored"},
		{nil, "", "wss://relay.example.org:60001/models", "oci://relay.example.org:60001/models", "RELAY_URL"},
		{nil, "http://10.0.0.1:60002", "ws://10.0.0.1:60001", "oci://10.0.0.1:60002/models/web", "asked over TLS all the same"},
		{nil, "https://relay.example.org:60002/", "", "oci://relay.example.org:60002/models/web", "write it as --from"},
		{nil, "", "wss://relay.example.org:60001", "oci://relay.example.org:60001/models/web", "write it as --from"},
		{nil, "https://u:s3cret@relay.example.org", "", "oci://relay.example.org/models/web", "write it as --from"},
		{nil, "models.example.org", "", "", "write models.example.org/NAME"},
		{nil, "models.example.org", "wss://relay.example.org", "oci://relay.example.org/models/web", "write models.example.org/NAME"},
		{nil, "models.example.org:60002", "", "", "HOST/NAME"},
		{nil, "https:///x", "", "", "write HOST/NAME"},
		{nil, "http://host/path", "", "oci://host:443/path", "MODEL_SYNC_URL"},
		{nil, "./mirror", "", "./mirror", "MODEL_SYNC_URL"},
		{nil, "", "", "", ""},
		{[]string{"./own"}, "https://models.example.org/m", "", "./own", "is ignored"},
	} {
		t.Setenv("MODEL_SYNC_URL", c.sync)
		t.Setenv("RELAY_URL", c.relay)
		var log strings.Builder
		s := settings{from: c.given}
		s.oldVariables(slog.New(slog.NewTextHandler(&log, nil)))
		var want []string
		if c.want != "" {
			want = []string{c.want}
		}
		if !slices.Equal(s.from, want) || !strings.Contains(log.String(), c.mentions) {
			t.Errorf("%+v: from %q, log %s", c, s.from, log.String())
		}
		if strings.Contains(log.String(), "s3cret") {
			t.Errorf("%+v: a password is logged: %s", c, log.String())
		}
	}
}

// A host alone is no place to sync from, and no directory unless there is one.
func TestHostAloneIsRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("dist.v2", 0o700); err != nil {
		t.Fatal(err)
	}
	for from, good := range map[string]bool{
		"models.example.org": false, "10.0.0.1": false, "dist.v3": false,
		"dist.v2": true, "./dist.v3": true, "dist": true, "..": true, "oci-layout:dist.v3": true, "models.example.org/m": true,
	} {
		_, err := parseRefs([]string{from})
		if (err == nil) != good || err != nil && !strings.Contains(err.Error(), "write "+from+"/NAME") {
			t.Errorf("%s: %v", from, err)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for err, want := range map[error]int{
		agent.ErrRefused: 3, agent.ErrNothing: 3, oras.ErrInvalid: 3, agent.ErrCorrupt: 5,
		agent.ErrStale: 1, oras.ErrUnreachable: 1, durable.ErrLocked: 1, syscall.ENOSPC: 1, syscall.EROFS: 1, syscall.EDQUOT: 1,
	} {
		if got := exitCode(fmt.Errorf("x: %w", err)); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
}
