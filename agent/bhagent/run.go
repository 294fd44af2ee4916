package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/battle-hardened-ai/bhtrain/agent/server"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// settings are what run can be told, by flags and by the file of --config.
type settings struct {
	from                  []string
	policy                string
	state                 *string
	interval              time.Duration
	listen, socket        string
	tokenFile             string
	tlsCert, tlsKey       string
	hosts                 []string
	plainHTTP, anonymous  bool
	logFormat, configFile string
}

func (s *settings) declare(fs *pflag.FlagSet) {
	fs.StringVar(&s.configFile, "config", "", "`FILE`: YAML with any of the flags below, by their names; a flag that is given wins")
	fs.StringArrayVar(&s.from, "from", nil, "`REF`: where to sync from; given several times, mirrors that are asked in this order")
	fs.StringVar(&s.policy, "policy", "", "`FILE`: the policy that says whom to trust (required); it is read again at every look")
	s.state = stateFlag(fs)
	fs.DurationVar(&s.interval, "interval", 15*time.Minute, "`TIME` between syncs")
	fs.StringVar(&s.listen, "listen", "127.0.0.1:60000", "`ADDRESS:PORT` for HTTP; \"\" for none. Other than on loopback it needs --token-file, --tls-cert and --tls-key")
	fs.StringVar(&s.socket, "socket", "", "`PATH` of a Unix socket for HTTP, open to this user and group")
	fs.StringVar(&s.tokenFile, "token-file", "", "`FILE` with the token that requests from other machines must bear. Browsers send none: for them, a reverse proxy adds it")
	fs.StringVar(&s.tlsCert, "tls-cert", "", "`FILE`: certificate chain in PEM; read again when it changes")
	fs.StringVar(&s.tlsKey, "tls-key", "", "`FILE`: its key in PEM")
	fs.StringArrayVar(&s.hosts, "host", nil, "`NAME` by which web pages of this server are opened, besides those of loopback; may be repeated")
	fs.BoolVar(&s.plainHTTP, "plain-http", false, "allow HTTP without TLS to registries other than on this host")
	fs.BoolVar(&s.anonymous, "anonymous", false, "send no credentials to registries")
	fs.StringVar(&s.logFormat, "log-format", "text", "`FORMAT` of the log: text or json")
}

const maxConfig = 64 << 10 // bytes; it is written by hand

// readConfig sets the flags that a configuration file names and the command
// line does not. A key is the name of a flag; flags that may be repeated also
// take a list. Files that it names are relative to its folder.
func readConfig(path string, fs *pflag.FlagSet) (err error) {
	defer func() {
		if r := recover(); r != nil { // the YAML library panics on some malformed input
			err = cli.Usagef("%s: not valid YAML: %v", path, r)
		}
	}()
	b, err := cli.ReadFile(path, maxConfig)
	if err != nil {
		return err
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(b))
	switch err := dec.Decode(&doc); {
	case err == io.EOF:
		return nil // all is as without it
	case err != nil:
		return cli.Usagef("%s: %s", path, err)
	case dec.Decode(new(yaml.Node)) != io.EOF:
		return cli.Usagef("%s: more than one YAML document; keep one", path)
	case doc.Content[0].Kind != yaml.MappingNode:
		return cli.Usagef("%s: want keys such as \"policy: policy.yaml\"", path)
	}
	seen := map[string]bool{}
	for i := 0; i < len(doc.Content[0].Content); i += 2 {
		key, value := doc.Content[0].Content[i], doc.Content[0].Content[i+1]
		name := key.Value
		flag := fs.Lookup(name)
		if flag == nil || name == "config" || name == "help" {
			return cli.Usagef("%s:%d: %q is no setting: they are named like the flags of 'bhagent run'", path, key.Line, name)
		}
		if seen[name] {
			return cli.Usagef("%s:%d: %q stands twice", path, key.Line, name)
		}
		seen[name] = true
		values := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode && flag.Value.Type() == "stringArray" {
			values = value.Content
		}
		if flag.Changed {
			continue
		}
		for _, v := range values {
			if v.Kind != yaml.ScalarNode || v.ShortTag() == "!!null" {
				return cli.Usagef("%s:%d: %s: want one plain value", path, v.Line, name)
			}
			text := v.Value
			if unquoted, _ := pflag.UnquoteUsage(flag); (unquoted == "FILE" || unquoted == "PATH" || unquoted == "DIR") && text != "" && !filepath.IsAbs(text) {
				text = filepath.Join(filepath.Dir(path), text)
			}
			if err := fs.Set(name, text); err != nil {
				return cli.Usagef("%s:%d: %s: %s", path, v.Line, name, err)
			}
		}
	}
	return nil
}

// oldVariables sets --from of the variables that older agents were configured
// with, where nothing else does, and says so.
func (s *settings) oldVariables(log *slog.Logger) {
	for _, name := range []string{"MODEL_SYNC_URL", "RELAY_URL"} {
		value := os.Getenv(name)
		switch {
		case value == "":
		case len(s.from) > 0:
			log.Info("an older variable is ignored: --from says where to sync from", "variable", name)
		default:
			ref, err := fromURL(value)
			if err != nil {
				log.Warn("an older variable is ignored", "variable", name, "reason", err.Error())
				continue
			}
			s.from = []string{ref}
			log.Info("an older variable says where to sync from: write it as --from", "variable", name, "from", ref)
			if scheme, _, _ := strings.Cut(value, "://"); (scheme == "http" || scheme == "ws") && !s.plainHTTP {
				log.Info("it is asked over TLS all the same, unless --plain-http is given or it is on this machine", "variable", name)
			}
		}
	}
}

// oldRepository is where a host has the releases when an older variable, which
// named a service, gives no path.
const oldRepository = "models/web"

// fromURL makes a reference of the address of an older service: its host and
// path name a repository, oldRepository without a path, whatever its scheme.
func fromURL(value string) (string, error) {
	if !strings.Contains(value, "://") {
		_, err := parseFrom(value)
		return value, err
	}
	if _, err := oras.ParseRef(value); err == nil {
		return value, nil
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("it is no address: write HOST/NAME")
	}
	path := strings.Trim(u.Path, "/")
	if path == "" {
		path = oldRepository
	}
	host := u.Host
	if !strings.ContainsAny(host, ".:") && host != "localhost" {
		host += ":443"
	}
	ref := "oci://" + host + "/" + path
	_, err = oras.ParseRef(ref)
	return ref, err
}

var runCommand = cli.Command{
	Name:  "run",
	Short: "keep the newest allowed release loaded and score records over HTTP",
	Long: `
Syncs at the start, on schedule, on SIGHUP and when asked to, judges what is
installed again every minute, and answers HTTP on loopback: records to score
at /v1/score, what is loaded and why at /api/models, metrics at /metrics.
/openapi.yaml describes every path.

When no registry answers it goes on with what it has. A release that the
policy no longer allows is unloaded at once; so is everything when the policy
cannot be read for 15 seconds, or the files of this machine for 10 minutes.

What 'bhagent rollback' and 'bhagent pin' decide holds here a second later.

The file of --config is YAML whose keys are the flags. MODEL_SYNC_URL and
RELAY_URL of older agents say where to sync from when nothing else does: of
http://HOST:PORT the repository HOST:PORT/models/web.`,
	Example: `
bhagent run --from registry.example.org/models/web --policy policy.yaml
bhagent run --config /etc/bhagent/config.yaml
curl -s -X POST --data-binary @records.jsonl http://127.0.0.1:60000/v1/score`,
	Setup: func(fs *pflag.FlagSet) runFunc {
		var s settings
		s.declare(fs)
		return func(ctx context.Context, c *cli.Call, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("run takes no arguments")
			}
			if s.configFile != "" {
				if err := readConfig(s.configFile, fs); err != nil {
					return err
				}
			}
			log := c.Log
			switch s.logFormat {
			case "text":
			case "json":
				log = slog.New(slog.NewJSONHandler(c.Stderr, nil))
			default:
				return cli.Usagef("--log-format %q: want text or json", s.logFormat)
			}
			s.oldVariables(log)
			return s.run(ctx, log)
		}
	},
}

func (s *settings) run(ctx context.Context, log *slog.Logger) error {
	opt := server.Options{
		Policy: s.policy, Interval: s.interval, Hosts: s.hosts, Version: cli.ReadBuild().Version, Log: log,
		Store: oras.Options{PlainHTTP: s.plainHTTP, Anonymous: s.anonymous, UserAgent: "bhagent/" + cli.ReadBuild().Version},
		Agent: openAgent(*s.state),
	}
	switch {
	case len(s.from) == 0:
		return cli.Usagef("--from is missing: name a directory or HOST/NAME")
	case s.policy == "":
		return cli.Usagef("--policy is missing: 'bhverify policy init' makes one")
	case s.interval < time.Second:
		return cli.Usagef("--interval %s: want a second or more", s.interval)
	case s.listen == "" && s.socket == "":
		return cli.Usagef("--listen and --socket are both empty: nobody could ask")
	}
	var err error
	if opt.From, err = parseRefs(s.from); err != nil {
		return err
	}
	if _, err := verify.LoadPolicy(s.policy); err != nil { // at the start it is better said than served
		return err
	}
	if s.tokenFile != "" {
		b, err := os.ReadFile(s.tokenFile)
		if err != nil {
			return err
		}
		if opt.Token = strings.TrimSpace(string(b)); len(opt.Token) < 16 {
			return cli.Usagef("%s: a token has at least 16 characters", s.tokenFile)
		}
	}
	// The lock comes first: a second process for the same state directory shall
	// hear of that, and touch nothing of the first.
	unlock, err := opt.Agent.Hold()
	if err != nil {
		return fmt.Errorf("daemon.lock, which one 'bhagent run' has at a time: %w", err)
	}
	defer unlock()
	listeners, err := s.listeners(ctx, opt.Token, log)
	if err != nil {
		return err
	}
	srv := server.New(opt)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for {
			select {
			case <-hup:
				srv.Sync(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	// A server takes its first request when it has judged what is installed.
	ready := sync.OnceFunc(func() { notify("READY=1") })
	for i, l := range listeners {
		log.Info("listening", "address", l.Addr().String(), "remote", l.Remote)
		listeners[i].Listener = announced{l.Listener, ready}
	}
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer context.AfterFunc(ctx, func() {
		notify("STOPPING=1") // before requests that are under way are waited for
		end()
	})()
	return srv.Run(serving, listeners...)
}

// announced calls ready before it accepts.
type announced struct {
	net.Listener
	ready func()
}

func (a announced) Accept() (net.Conn, error) {
	a.ready()
	return a.Listener.Accept()
}

// listeners opens what requests are taken from.
func (s *settings) listeners(ctx context.Context, token string, log *slog.Logger) (out []server.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range out {
				l.Close()
			}
		}
	}()
	if s.listen != "" {
		remote, err := beyondLoopback(s.listen)
		if err != nil {
			return nil, err
		}
		if remote && (token == "" || s.tlsCert == "" || s.tlsKey == "") {
			return nil, cli.Usagef("--listen %s can be reached from other machines: that needs --token-file, --tls-cert and --tls-key", s.listen)
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.listen)
		if err != nil {
			return nil, err
		}
		if s.tlsCert != "" || s.tlsKey != "" {
			pair := &keyPair{cert: s.tlsCert, key: s.tlsKey, log: log}
			if _, err := pair.get(nil); err != nil {
				l.Close()
				return nil, err
			}
			l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.get, NextProtos: []string{"http/1.1"}})
		}
		out = append(out, server.Listener{Listener: l, Remote: remote})
	}
	if s.socket != "" {
		l, err := listenSocket(ctx, s.socket)
		if err != nil {
			return out, err
		}
		out = append(out, server.Listener{Listener: l})
	}
	return out, nil
}

// listenSocket listens on a Unix socket that this user and group may use, from
// the moment that it is there. What a killed process left in its place is
// removed, and nothing else: a live process may be too busy to answer.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("--socket %s: something else than a socket is there: remove it, or name another path", path)
		}
		c, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, errNobody) {
			return nil, fmt.Errorf("--socket %s: another process serves there, or may do so (%v): end it, or name another path", path, err)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	defer umask(umask(0o117))
	return new(net.ListenConfig).Listen(ctx, "unix", path)
}

// beyondLoopback reports whether an address to listen on can be reached from
// other machines.
func beyondLoopback(listen string) (bool, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false, cli.Usagef("--listen %q: want ADDRESS:PORT", listen)
	}
	if host == "localhost" {
		return false, nil
	}
	ip, err := netip.ParseAddr(host)
	if host != "" && err != nil {
		return false, cli.Usagef("--listen %q: want an address, such as 127.0.0.1:60000", listen)
	}
	return !ip.IsLoopback(), nil
}

// keyPair is a certificate that is read again when its file has changed.
type keyPair struct {
	cert, key string
	log       *slog.Logger
	mu        sync.Mutex
	changed   time.Time // the file of pair
	failed    time.Time // the file that the log told of
	pair      *tls.Certificate
}

func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var at time.Time // zero when there is no file
	info, err := os.Stat(k.cert)
	if err == nil {
		at = info.ModTime()
	}
	if err == nil && (k.pair == nil || !at.Equal(k.changed)) {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(k.cert, k.key); err == nil {
			k.pair, k.changed, k.failed = &pair, at, at
		}
	}
	if k.pair == nil {
		return nil, errors.Join(errors.New("TLS certificate"), err)
	}
	if err != nil && !at.Equal(k.failed) {
		k.failed = at
		k.log.Warn("the TLS certificate cannot be read: the one before serves on", "reason", err)
	}
	return k.pair, nil // the old one while a new one is being written
}

// notify tells systemd, where it asked to be told.
func notify(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:]
	}
	if c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"}); err == nil {
		c.SetWriteDeadline(time.Now().Add(time.Second))
		c.Write([]byte(state))
		c.Close()
	}
}
