package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/spf13/pflag"
)

func newFlags() (*settings, *pflag.FlagSet) {
	var s settings
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	s.declare(fs)
	return &s, fs
}

func TestConfigSetsWhatTheCommandLineDoesNot(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.yaml")
	text := "from:\n  - registry.example.org/a\n  - registry.example.org/b\npolicy: policy.yaml\nstate: /var/lib/x\ninterval: 5m\nanonymous: true\nlisten: 127.0.0.1:1\nhost: agent.example.org\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, fs := newFlags()
	if err := fs.Parse([]string{"--listen", "127.0.0.1:2"}); err != nil {
		t.Fatal(err)
	}
	if err := readConfig(path, fs); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.from, []string{"registry.example.org/a", "registry.example.org/b"}) || s.policy != filepath.Join(dir, "policy.yaml") ||
		*s.state != "/var/lib/x" || s.interval.String() != "5m0s" || !s.anonymous || s.listen != "127.0.0.1:2" || !slices.Equal(s.hosts, []string{"agent.example.org"}) {
		t.Errorf("%+v %s", s, *s.state)
	}
	if err := readConfig(filepath.Join(dir, "none.yaml"), fs); !os.IsNotExist(err) {
		t.Errorf("a missing file: %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	for _, text := range []string{"", "policy: x\n", "from: [a, b]\n", "a: &x 1\nb: *x\n", "policy: !!binary x\n", "interval: 1h\nhost: {a: b}\n", "? [a]\n: b\n"} {
		f.Add([]byte(text))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(dir, "agent.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, fs := newFlags()
		readConfig(path, fs) // sets or refuses, and returns
	})
}
