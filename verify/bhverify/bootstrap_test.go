package main

import (
	"errors"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/verify"
	"github.com/battle-hardened-ai/bhtrain/verify/rebuild"
)

// What a release says of its trainer starts no build unless the policy has its
// sum, and never reaches a command line as anything but a version.
func TestBootstrapAllowsSumsOfThePolicyOnly(t *testing.T) {
	const h1 = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	by := func(entries ...verify.Trainer) verify.Policy { return verify.Policy{Trainers: entries} }
	for _, c := range []struct {
		name    string
		policy  verify.Policy
		program verify.Trainer
		refused bool
	}{
		{"sum alone", by(verify.Trainer{H1: h1}), verify.Trainer{Version: "v1.2.0", H1: h1}, false},
		{"version and sum", by(verify.Trainer{Version: "v1.2.0", H1: h1}), verify.Trainer{Version: "v1.2.0", H1: h1}, false},
		{"no trainers", by(), verify.Trainer{Version: "v1.2.0", H1: h1}, true},
		{"version alone", by(verify.Trainer{Version: "v1.2.0"}), verify.Trainer{Version: "v1.2.0", H1: h1}, true},
		{"other sum", by(verify.Trainer{H1: h1[:len(h1)-2] + "B="}), verify.Trainer{Version: "v1.2.0", H1: h1}, true},
		{"no version", by(verify.Trainer{H1: h1}), verify.Trainer{H1: h1}, true},
		{"linker flags", by(verify.Trainer{H1: h1}), verify.Trainer{Version: "v1.2.0 -linkmode=external -extld=./x", H1: h1}, true},
		{"branch", by(verify.Trainer{H1: h1}), verify.Trainer{Version: "main", H1: h1}, true},
	} {
		got, err := allowed(c.policy, c.program)
		if c.refused != errors.Is(err, rebuild.ErrRefused) || !c.refused && got.Version != c.program.Version {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}
