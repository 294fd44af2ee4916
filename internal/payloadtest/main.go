// Command payloadtest scores a labelled CSV with an installed release, through
// bhagent as a user would, and prints how well the classes agree:
//
//	go run ./internal/payloadtest --state STATE payload_test.csv
//
// The columns payload and attack_type are read. Rows of the file must not
// have been trained on, or the figures mean nothing.
package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/trainer"
)

func main() {
	state := pflag.String("state", "", "state directory of bhagent (required)")
	agent := pflag.String("bhagent", "", "the bhagent to run (default: the one of this source tree)")
	pflag.Parse()
	if *state == "" || pflag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: payloadtest --state DIR FILE.csv")
		os.Exit(2)
	}
	if err := run(*state, *agent, pflag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "payloadtest:", err)
		os.Exit(1)
	}
}

func run(state, agent, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	truth, err := labels(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	cmd := exec.Command("go", "run", "./agent/bhagent")
	if agent != "" {
		cmd = exec.Command(agent)
	}
	cmd.Args = append(cmd.Args, "score", "--state", state, "--format", "labelled")
	cmd.Stdin = bytes.NewReader(text)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("bhagent: %w", err)
	}
	var said []string
	dec := json.NewDecoder(bytes.NewReader(out))
	for dec.More() {
		var f struct{ Class string }
		if err := dec.Decode(&f); err != nil {
			return err
		}
		said = append(said, f.Class)
	}
	if len(said) != len(truth) {
		return fmt.Errorf("%d answers for %d rows", len(said), len(truth))
	}
	print(truth, said)
	return nil
}

// labels returns the class of each row.
func labels(text []byte) ([]string, error) {
	r := csv.NewReader(bytes.NewReader(text))
	rows, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) < 2 {
		return nil, fmt.Errorf("no rows")
	}
	at := slices.Index(rows[0], "attack_type")
	if at < 0 {
		return nil, fmt.Errorf("no column attack_type")
	}
	classes := trainer.Classes()
	var list []string
	for i, row := range rows[1:] {
		m := trainer.ClassifyRecord(record.Labelled, row[at])
		if m.Class < 0 {
			return nil, fmt.Errorf("row %d: attack_type %q has no class", i+1, row[at])
		}
		list = append(list, classes[m.Class])
	}
	return list, nil
}

// print writes precision, recall and F1 by class, the macro-F1 over the classes
// of the file, and the shares of attacks and of benign rows that raise an alarm.
func print(truth, said []string) {
	type tally struct{ rows, said, both int }
	by := map[string]*tally{}
	get := func(class string) *tally {
		if by[class] == nil {
			by[class] = new(tally)
		}
		return by[class]
	}
	right, attacks, detected, benign, alarms := 0, 0, 0, 0, 0
	for i, c := range truth {
		get(c).rows++
		get(said[i]).said++
		if c == said[i] {
			get(c).both++
			right++
		}
		switch alarm := said[i] != "benign"; {
		case c == "benign":
			benign++
			if alarm {
				alarms++
			}
		default:
			attacks++
			if alarm {
				detected++
			}
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "class\trows\tprecision\trecall\tF1\t")
	sum, n := 0.0, 0
	for _, c := range trainer.Classes() {
		t := by[c]
		if t == nil || t.rows == 0 {
			continue
		}
		p, r, f := 0.0, float64(t.both)/float64(t.rows), 0.0
		if t.said > 0 {
			p = float64(t.both) / float64(t.said)
		}
		if p+r > 0 {
			f = 2 * p * r / (p + r)
		}
		sum, n = sum+f, n+1
		fmt.Fprintf(w, "%s\t%d\t%.4f\t%.4f\t%.4f\t\n", c, t.rows, p, r, f)
	}
	w.Flush()
	fmt.Printf("macro-F1 %.4f over %d classes, accuracy %.4f\n", sum/float64(n), n, float64(right)/float64(len(truth)))
	if attacks > 0 {
		fmt.Printf("attacks that are said to be an attack: %d of %d, %.4f\n", detected, attacks, float64(detected)/float64(attacks))
	}
	if benign > 0 {
		fmt.Printf("benign rows that are said to be an attack: %d of %d, %.4f\n", alarms, benign, float64(alarms)/float64(benign))
	}
}
