//go:build linux

// Package versus compares the training engine with what people would pick
// instead. It has no code but its scripts, and tests that those compare what
// they say.
package versus

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/battle-hardened-ai/bhtrain/internal/testkit"
)

const interpreter = "/usr/bin/python3"

// python runs a script here and returns what it prints.
func python(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(interpreter, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr.String())
	}
	return string(out), nil
}

func need(t *testing.T, modules string) {
	t.Helper()
	if os.Getenv("BH_E2E") == "" {
		t.Skip("set BH_E2E=1 to compare with other programs")
	}
	if err := exec.Command(interpreter, "-c", "import "+modules).Run(); err != nil {
		testkit.Missing(t, "Debian's "+modules+" are not here (see .ci/python)")
	}
}

func TestSpeedIsComparedOnEqualTerms(t *testing.T) {
	need(t, "sklearn, xgboost")
	if err := testkit.DependOnSources("../.."); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bhtrain := filepath.Join(dir, "bhtrain")
	if out, err := exec.Command("go", "build", "-o", bhtrain, "../../pipeline/bhtrain").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := filepath.Join(dir, "figures.json")
	table, err := python(t, "speed.py", "--bhtrain", bhtrain, "--rows", "1000", "--columns", "11", "--trees", "8", "--runs", "1", "--json", file)
	if err != nil {
		t.Fatal(err)
	}
	var figures struct {
		Contests []struct {
			Contest, Who, Shape  string
			Rows, Columns, Trees int
			Nodes, AUC           float64
			Wall                 float64  `json:"fit_wall_s"`
			CPU                  float64  `json:"fit_cpu_s"`
			Peak                 float64  `json:"peak_rss_mb"`
			Ratio                *float64 `json:"cpu_ratio"`
			Memory               *float64 `json:"memory_ratio"`
		}
		Growth []struct {
			Learner  string
			From, To int
			Exponent float64
		}
	}
	read := func() {
		b, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(b, &figures)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	read()
	met := map[string][]string{}
	var nodes, auc float64
	for _, c := range figures.Contests {
		name := fmt.Sprintf("%s, %s, %d rows", c.Contest, c.Shape, c.Rows)
		met[name] = append(met[name], c.Who)
		if c.Wall <= 0 || c.CPU <= 0 || c.Peak <= 0 || c.Columns != 11 || c.Trees != 8 || !strings.Contains(table, c.Who) {
			t.Errorf("%s: %+v", name, c)
		}
		if c.Who == "bhtrain" {
			nodes, auc = c.Nodes, c.AUC
			continue
		}
		// As many trees of like size say much the same on the same rows.
		if c.Ratio == nil || c.Memory == nil || *c.Ratio <= 0 || *c.Memory <= 0 {
			t.Errorf("%s: %s has no ratios", name, c.Who)
		}
		if r := c.Nodes / nodes; r < 0.5 || r > 2 || math.Abs(c.AUC-auc) > 0.08 {
			t.Errorf("%s: %s has %v nodes and AUC %v, here %v and %v", name, c.Who, c.Nodes, c.AUC, nodes, auc)
		}
	}
	if len(met) != 7 || len(figures.Growth) != 0 {
		t.Errorf("%d contests and %d growths", len(met), len(figures.Growth))
	}
	for name, who := range met {
		want := []string{"bhtrain", "xgboost", "sklearn-hist"}
		switch {
		case strings.HasPrefix(name, "forest"):
			want = []string{"bhtrain", "sklearn-forest"}
		case strings.HasPrefix(name, "isolation"):
			want = []string{"bhtrain", "sklearn-isolation"}
		}
		if !slices.Equal(who, want) {
			t.Errorf("%s: between %q, want %q", name, who, want)
		}
	}
	if _, err := python(t, "speed.py", "--bhtrain", bhtrain, "--rows", "1000,3000", "--columns", "11", "--no-rivals", "--runs", "1", "--json", file); err != nil {
		t.Fatal(err)
	}
	if read(); len(figures.Contests) != 0 || len(figures.Growth) != 3 {
		t.Errorf("%d contests and %d growths", len(figures.Contests), len(figures.Growth))
	}
	for _, g := range figures.Growth {
		if g.From != 1000 || g.To != 3000 || math.IsNaN(g.Exponent) || math.IsInf(g.Exponent, 0) {
			t.Errorf("%+v", g)
		}
	}
}

func TestRowsThatAreNotTheSameAreFound(t *testing.T) {
	need(t, "numpy")
	dir := t.TempDir()
	child := func(what string, args ...any) error {
		b, err := json.Marshal([]any{what, args})
		if err != nil {
			t.Fatal(err)
		}
		_, err = python(t, "speed.py", "--child", string(b))
		return err
	}
	if err := child("generate", dir, 400, 10, 1); err != nil {
		t.Fatal(err)
	}
	if err := child("same", dir, 400, "binary"); err != nil {
		t.Fatal(err)
	}
	if err := child("same", dir, 401, "binary"); err == nil {
		t.Error("another number of rows is taken for the same rows")
	}
	path := filepath.Join(dir, "train-binary.csv")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-10] ^= 1 // a digit of the last row
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := child("same", dir, 400, "binary"); err == nil || !strings.Contains(err.Error(), "row 399 differ") {
		t.Errorf("a changed digit: %v", err)
	}
}
