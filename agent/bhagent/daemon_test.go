package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

const secret = "0123456789abcdef" // the shortest token

// authority issues certificates for 127.0.0.1.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key, pool: x509.NewCertPool()}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

// issue writes a certificate with this serial number and its key, the key first.
func (a *authority) issue(dir string, serial int64) (cert, key string) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, k.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(a.t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	write(a.t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return cert, key
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// daemon is 'bhagent run', with nothing to install.
type daemon struct {
	t    *testing.T
	log  *logText
	end  context.CancelFunc
	done chan struct{}
	code int // once done is closed
}

// settle makes a folder with a policy, and returns it.
func settle(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	key, err := x509.MarshalPKIXPublicKey(newAuthority(t).key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := "version: 1\nproduct: web\npublishers:\n  - name: me\n    key: |\n"
	for line := range strings.Lines(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: key}))) {
		text += "      " + line
	}
	write(t, filepath.Join(dir, "policy.yaml"), text)
	return dir
}

func start(t *testing.T, dir string, args ...string) *daemon {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	d := &daemon{t: t, log: new(logText), end: end, done: make(chan struct{})}
	args = append([]string{"run", "--policy", filepath.Join(dir, "policy.yaml"), "--state", filepath.Join(dir, "state"), "--from", filepath.Join(dir, "none")}, args...)
	go func() {
		defer close(d.done)
		d.code = app.Run(ctx, args, strings.NewReader(""), io.Discard, d.log)
	}()
	t.Cleanup(d.stop)
	return d
}

// stop ends the daemon and waits for it.
func (d *daemon) stop() {
	d.t.Helper()
	d.end()
	d.wait()
}

func (d *daemon) wait() {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(30 * time.Second):
		d.t.Fatalf("it does not end:\n%s", d.log)
	}
}

var listening = regexp.MustCompile(`msg=listening address=(\S+)`)

// address is where it says that it listens first.
func (d *daemon) address() string {
	d.t.Helper()
	for range 1000 {
		if m := listening.FindStringSubmatch(d.log.String()); m != nil {
			return m[1]
		}
		select {
		case <-d.done:
			d.t.Fatalf("exit code %d:\n%s", d.code, d.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
	d.t.Fatalf("it does not listen:\n%s", d.log)
	return ""
}

// fails starts a daemon that has to end by itself, with this code and text.
func fails(t *testing.T, code int, text, dir string, args ...string) {
	t.Helper()
	d := start(t, dir, args...)
	d.wait()
	if d.code != code || !strings.Contains(d.log.String(), text) {
		t.Errorf("%q: exit code %d, want %d and %q:\n%s", args, d.code, code, text, d.log)
	}
}

// get asks over a socket.
func get(socket, path string) error {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	r, err := client.Get("http://agent" + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != 200 {
		return fmt.Errorf("status %d", r.StatusCode)
	}
	return nil
}

func TestSecondDaemonTouchesNothing(t *testing.T) {
	dir := settle(t)
	socket := filepath.Join(dir, "s")
	first := start(t, dir, "--listen", "127.0.0.1:0", "--socket", socket)
	address := first.address()
	for range 500 {
		if get(socket, "/healthz") == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := get(socket, "/healthz"); err != nil {
		t.Fatal(err, first.log)
	}
	fails(t, 1, "daemon.lock", dir, "--listen", address, "--socket", socket)
	fails(t, 1, "daemon.lock", dir, "--listen", "", "--socket", socket)
	// With another state directory it is the socket that is taken.
	fails(t, 1, "another process serves there", settle(t), "--listen", "", "--socket", socket)
	if err := get(socket, "/healthz"); err != nil {
		t.Errorf("the first is harmed: %v", err)
	}
	first.stop()
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	again := start(t, dir, "--listen", "127.0.0.1:0", "--socket", socket)
	again.address()
}

func TestSocketIsForUserAndGroup(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("sockets have no mode here")
	}
	defer umask(umask(0)) // nothing but what is asked for keeps others out
	path := filepath.Join(t.TempDir(), "s")
	l, err := listenSocket(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if now := umask(0); now != 0 {
		t.Errorf("the umask is %o afterwards", now)
	}
}

func TestSocketThatIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	killed, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	killed.SetUnlinkOnClose(false)
	killed.Close()
	l, err := listenSocket(context.Background(), path)
	if err != nil {
		t.Fatalf("what a killed process left: %v", err)
	}
	l.Close()
	write(t, path, "mine")
	if _, err := listenSocket(context.Background(), path); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("a file: %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "mine" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

func TestTokenHasALength(t *testing.T) {
	dir := settle(t)
	token := filepath.Join(dir, "token")
	for _, text := range []string{"", "\n", secret[1:], " " + secret[1:] + "\n"} {
		write(t, token, text)
		fails(t, 2, "at least 16 characters", dir, "--listen", "127.0.0.1:0", "--token-file", token)
	}
	write(t, token, secret+"\n")
	start(t, dir, "--listen", "127.0.0.1:0", "--token-file", token).address()
}

func TestRemoteListener(t *testing.T) {
	dir, ca := settle(t), newAuthority(t)
	token := filepath.Join(dir, "token")
	write(t, token, secret+"\n")
	cert, key := ca.issue(dir, 7)
	every := "0.0.0.0:0" // for a moment, and to nobody without the token
	for _, args := range [][]string{
		{"--listen", every},
		{"--listen", every, "--token-file", token},
		{"--listen", every, "--tls-cert", cert, "--tls-key", key},
		{"--listen", every, "--token-file", token, "--tls-cert", cert},
	} {
		fails(t, 2, "that needs --token-file, --tls-cert and --tls-key", dir, args...)
	}

	d := start(t, dir, "--listen", every, "--token-file", token, "--tls-cert", cert, "--tls-key", key)
	_, port, err := net.SplitHostPort(d.address())
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + port
	ask := func(roots *x509.CertPool, method, path, bearer string) (status int, serial int64, err error) {
		client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
		r, err := http.NewRequest(method, "https://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if bearer != "" {
			r.Header.Set("Authorization", "Bearer "+bearer)
		}
		answer, err := client.Do(r)
		if err != nil {
			return 0, 0, err
		}
		defer answer.Body.Close()
		return answer.StatusCode, answer.TLS.PeerCertificates[0].SerialNumber.Int64(), nil
	}
	for _, c := range []struct {
		method, path, bearer string
		status               int
	}{
		{"GET", "/healthz", "", 200},
		{"GET", "/api/models", "", 401},
		{"GET", "/api/models", secret + "x", 401},
		{"GET", "/api/models", secret, 200},
		{"POST", "/api/models/sync", "", 401},
		{"POST", "/api/models/sync", secret, 502}, // there is nothing to sync from
	} {
		if status, serial, err := ask(ca.pool, c.method, c.path, c.bearer); status != c.status || serial != 7 || err != nil {
			t.Errorf("%s %s bearing %q: %d, certificate %d, %v", c.method, c.path, c.bearer, status, serial, err)
		}
	}
	if _, _, err := ask(newAuthority(t).pool, "GET", "/healthz", ""); err == nil {
		t.Error("another authority vouches for it")
	}
	if r, err := http.Get("http://" + address + "/healthz"); err == nil {
		if r.Body.Close(); r.StatusCode == 200 {
			t.Error("it answers without TLS")
		}
	}
	// Renewed: the next connection has it.
	ca.issue(dir, 8)
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(cert, later, later); err != nil {
		t.Fatal(err)
	}
	if status, serial, err := ask(ca.pool, "GET", "/api/models", secret); status != 200 || serial != 8 || err != nil {
		t.Errorf("renewed: %d, certificate %d, %v", status, serial, err)
	}
	// Of the new pair only half: the old one goes on, and the log says so.
	write(t, key, "-----BEGIN")
	if err := os.Chtimes(cert, later.Add(time.Minute), later.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if status, serial, err := ask(ca.pool, "GET", "/healthz", ""); status != 200 || serial != 8 || err != nil {
			t.Errorf("half of a pair: %d, certificate %d, %v", status, serial, err)
		}
	}
	if n := strings.Count(d.log.String(), "certificate cannot be read"); n != 1 {
		t.Errorf("that the certificate cannot be read is said %d times:\n%s", n, d.log)
	}
	if strings.Contains(d.log.String(), secret) {
		t.Errorf("the token is in the log:\n%s", d.log)
	}
	d.stop()
	if d.code != 0 {
		t.Errorf("exit code %d:\n%s", d.code, d.log)
	}
}

// manager is what systemd listens with.
func manager(t *testing.T) (said func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		b := make([]byte, 1000)
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			t.Fatalf("nothing is said: %v", err)
		}
		return string(b[:n])
	}
}

func TestSystemdIsTold(t *testing.T) {
	said := manager(t)
	dir := settle(t)
	// A damaged state: that it was judged shows in the log, and takes its time.
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "state", "state.json"), strings.Repeat(" ", 8<<20-1)+"\n")
	d := start(t, dir, "--listen", "127.0.0.1:0")
	if got := said(); got != "READY=1" {
		t.Errorf("at the start: %q", got)
	}
	if !strings.Contains(d.log.String(), "msg=state state=refused") {
		t.Errorf("ready before anything was judged:\n%s", d.log)
	}
	// While it stops it waits for a request that is under way.
	c, err := net.Dial("tcp", d.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	head := "POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
	if _, err := io.WriteString(c, head); err != nil {
		t.Fatal(err)
	}
	answer := bufio.NewReader(c)
	if line, err := answer.ReadString('\n'); !strings.Contains(line, "100") {
		t.Fatalf("%q %v", line, err)
	}
	d.end()
	if got := said(); got != "STOPPING=1" {
		t.Errorf("at the end: %q", got)
	}
	select {
	case <-d.done:
		t.Errorf("it had ended when it said that it stops:\n%s", d.log)
	case <-time.After(200 * time.Millisecond):
	}
	if _, err := io.WriteString(c, "{}"); err != nil {
		t.Fatal(err)
	}
	d.wait()
	if rest, _ := io.ReadAll(answer); d.code != 0 || !strings.Contains(string(rest), " 503 ") {
		t.Errorf("exit code %d, the last answer %q", d.code, rest)
	}
}
