package e2e

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkSideBySide runs bhverify and cosign in turn, each as a process, on
// one release in the registry of the stack, signed by a workflow, with a
// timestamp and a log entry. Both judge the same bundle by the same trusted
// root; bhverify also fetches the release and checks each of its files. cosign
// is warm: its file has been read before. It reports medians in milliseconds of
// the clock and of processor time, and their ratios. .ci/bench-verify calls it.
func BenchmarkSideBySide(b *testing.B) {
	s, u := newStack(b), newUser(b)
	by := s.keyless(u, "example/models")
	c := newCopies(u, s)
	repository := c.signed(by)
	static := filepath.Join(u.dir, "bhverify") // without C, as cosign is built
	build := exec.Command("go", "build", "-trimpath", "-o", static, "../../verify/bhverify")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	cosign, err := exec.LookPath("cosign")
	if err != nil {
		b.Fatal(err)
	}
	commands := []struct {
		name string
		args []string
	}{
		{"bhverify", []string{static, "release", c.at(repository), "--policy", c.policy("policy.yaml", by, "")}},
		{"cosign", append(append([]string{cosign, "verify-attestation", "--trusted-root", s.file("trusted_root.json"), "--type", "slsaprovenance1",
			"--use-signed-timestamps", "--allow-http-registry"}, by.believed...), c.at(repository))},
	}
	clock, processor := make([][]time.Duration, len(commands)), make([][]time.Duration, len(commands))
	run := func(i int) (time.Duration, time.Duration) {
		cmd := exec.Command(commands[i].args[0], commands[i].args[1:]...)
		cmd.Dir = u.dir
		cmd.Env = append(os.Environ(), "HOME="+u.home)
		start := time.Now()
		out, err := cmd.CombinedOutput()
		took := time.Since(start)
		if err != nil {
			b.Fatalf("%s: %v\n%s", strings.Join(commands[i].args, " "), err, out)
		}
		return took, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	for i := range commands {
		run(i)
	}
	b.ResetTimer()
	for n := range b.N {
		for k := range commands {
			i := (n + k) % len(commands)
			took, used := run(i)
			clock[i], processor[i] = append(clock[i], took), append(processor[i], used)
		}
	}
	b.StopTimer()
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	for i, c := range commands {
		b.ReportMetric(ms(median(clock[i])), c.name+"-ms")
		b.ReportMetric(ms(median(processor[i])), c.name+"-cpu-ms")
	}
	b.ReportMetric(ms(median(clock[0]))/ms(median(clock[1])), "ratio")
	b.ReportMetric(ms(median(processor[0]))/ms(median(processor[1])), "cpu-ratio")
}

func median[T cmp.Ordered](list []T) T {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}
