package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
	"github.com/battle-hardened-ai/bhtrain/internal/cli"
	"github.com/battle-hardened-ai/bhtrain/pipeline"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/verify"
)

// writeInputs says what each file held, and every oddity met in it.
func writeInputs(w io.Writer, r *dataset.BuildReport) error {
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, "INPUTS")
	for _, in := range r.Inputs {
		rep := in.Report
		fmt.Fprintf(out, "  %s %s: %d rows, %d kept", in.Input.Source, verify.Printable(in.Path), rep.Rows, rep.Kept)
		if rep.Undated > 0 {
			fmt.Fprintf(out, ", %d of them undated", rep.Undated)
		}
		fmt.Fprintln(out)
		writeCounts(out, "bad", rep.Bad)
		writeCounts(out, "left out", rep.Skipped)
		writeCounts(out, "survived", rep.Quirks)
	}
	return out.Flush()
}

func writeCounts(w io.Writer, what string, list []record.Count) {
	for _, c := range list {
		lines := make([]string, len(c.Lines))
		for i, n := range c.Lines {
			lines[i] = fmt.Sprint(n)
		}
		more := ""
		if c.Rows > int64(len(c.Lines)) {
			more = ", …"
		}
		fmt.Fprintf(w, "    %-8s %6d  %s (line %s%s)\n", what, c.Rows, verify.Printable(c.Reason), strings.Join(lines, ", "), more)
	}
}

// writeTables says what became of the rows, and the dataset digest.
func writeTables(w io.Writer, r *dataset.BuildReport, out string) error {
	_, err := fmt.Fprintf(w, "\nSNAPSHOT %s\n", r.Dataset)
	for _, t := range r.Tables {
		_, err = fmt.Fprintf(w, "  %-9s %7d rows from %d read: %d duplicates, %d superseded, %d conflicts\n",
			t.Name, t.Rows, t.Read, t.Duplicates, t.Superseded, t.Conflicts)
	}
	if out != "" && err == nil {
		_, err = fmt.Fprintf(w, "  in %s\n", out)
	}
	return err
}

// writeReport is the summary of a run.
func writeReport(c *cli.Call, p *pipeline.Plan, r *pipeline.Report) error {
	out := bufio.NewWriter(c.Stdout)
	if r.Inputs != nil {
		if len(p.Inputs) == 0 {
			fmt.Fprintln(out, "No inputs were given: this is the embedded sample, which is made up.")
		} else if err := writeInputs(out, r.Inputs); err != nil {
			return err
		}
		if err := writeTables(out, r.Inputs, ""); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "SNAPSHOT %s\n", r.Dataset)
	}
	writeTraining(out, r.Training)
	fmt.Fprintf(out, "\nRELEASE %s %d\n", r.Product, r.Number)
	total := int64(0)
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range r.Files {
		total += f.Size
		fmt.Fprintf(tw, "  %s\t%7d bytes\t%s\n", f.Name, f.Size, f.Digest)
	}
	tw.Flush()
	fmt.Fprintf(out, "  in all %d bytes\n  dataset   %s\n  manifest  %s\n", total, r.Dataset, r.Release)
	fmt.Fprint(out, "\nTIME ")
	for _, s := range r.Stages {
		fmt.Fprintf(out, " %s %.1f s ", s.Name, s.Seconds)
	}
	fmt.Fprintln(out)
	if r.Verdict == nil {
		fmt.Fprintf(out, "\nNot signed, so nothing was verified. The release is in %s.\n", r.Out)
		return out.Flush()
	}
	fmt.Fprintln(out)
	if err := r.Verdict.WriteText(out, c.Color(c.Stdout)); err != nil {
		return err
	}
	fmt.Fprintf(out, "This was judged with your own key, so it proves that nothing was damaged, not whom to trust.\n")
	if p.Signer.Keyless() {
		fmt.Fprintf(out, "Signed as %s.\n", verify.Printable(r.Signer))
	}
	if r.Existing {
		fmt.Fprintf(out, "\n%s already held this very release; it was left as it is.\n", r.Out)
	} else {
		fmt.Fprintf(out, "\nThe release is in %s.\n", r.Out)
	}
	if r.Channel != nil {
		fmt.Fprintln(out)
		channelText(out, r.Channel)
	}
	if p.Signer.Made() {
		fmt.Fprintf(out, "A signing key was made for you: %s\n", p.Signer.Path())
	}
	fmt.Fprintf(out, `Next:
  bhtrain card %s -o card.html
%s  bhverify rebuild %s --policy policy.yaml
  bhagent sync --from %s --policy policy.yaml
`, r.Out, policyLine(p), r.Out, r.Out)
	return out.Flush()
}

// policyLine is the line of Next that makes a policy, "" where the signer has
// no key.
func policyLine(p *pipeline.Plan) string {
	if p.Signer.Keyless() {
		return ""
	}
	return fmt.Sprintf("  bhverify policy init --key %s -o policy.yaml\n", p.Signer.PublicPath())
}

// percent prints parts per million.
func percent(ppm int64) string { return fmt.Sprintf("%d.%02d %%", ppm/10_000, ppm%10_000/100) }

// share prints the part of all that n is.
func share(n, all int64) string {
	if all == 0 {
		return "–"
	}
	return percent(n * 1_000_000 / all)
}

// fraction prints parts per million as a number from 0 to 1.
func fraction(ppm int64) string { return fmt.Sprintf("%d.%04d", ppm/1_000_000, ppm%1_000_000/100) }

func writeTraining(out io.Writer, s *trainer.Summary) {
	n := s.Counts
	made := int64(0)
	for _, c := range n.Coverage {
		if c.Source == trainer.OrdinarySource {
			made = c.Rows
		}
	}
	fmt.Fprintf(out, "\nTRAINING on %d of %d rows", n.Used-made, n.Exploits+n.Records)
	if made > 0 {
		fmt.Fprintf(out, " and %d of ordinary traffic that were made up", made)
	}
	fmt.Fprintf(out, " (%d training, %d validation, %d test)\n",
		s.Parts[trainer.Training], s.Parts[trainer.Validation], s.Parts[trainer.Test])
	if n.Derived > 0 {
		fmt.Fprintf(out, "    derived  %6d  more training rows: payloads in another form\n", n.Derived)
	}
	for _, d := range n.Dropped {
		fmt.Fprintf(out, "    not used %6d  %s\n", d.Rows, d.Reason)
	}
	for _, site := range n.Capped {
		fmt.Fprintf(out, "    the weight of site %q was capped\n", verify.Printable(site))
	}
	for _, class := range n.Merged {
		fmt.Fprintf(out, "    class %s has too few training rows and is counted as other\n", class)
	}
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "  taxonomy coverage by source:")
	fmt.Fprintln(tw, "    source\trows\tunlabelled\tfell to other\t")
	for _, c := range n.Coverage {
		fmt.Fprintf(tw, "    %s\t%d\t%s\t%s\t\n", c.Source, c.Rows, share(c.Unlabelled, c.Rows), share(c.Other, c.Rows))
	}
	tw.Flush()

	m := s.Metrics.Classifier
	fmt.Fprintf(out, "\nTHREAT CLASSIFIER on the test part: macro-F1 %s, accuracy %s, ROC-AUC %s, attack against benign %s, calibration error %s\n",
		fraction(m.MacroF1PPM), fraction(m.AccuracyPPM), fraction(m.MacroAUCPPM), fraction(m.AttackAUCPPM), fraction(m.ECEPPM))
	fmt.Fprintln(tw, "    class\ttraining rows\ttest rows\tprecision\trecall\tF1\t")
	for i, c := range m.Classes {
		fmt.Fprintf(tw, "    %s\t%d\t%d\t%s\t%s\t%s\t\n", c.Class, s.Classes[i].Parts[trainer.Training], c.Rows, fraction(c.PrecisionPPM), fraction(c.RecallPPM), fraction(c.F1PPM))
	}
	tw.Flush()
	fmt.Fprintln(tw, "    source\ttest rows\tmacro-F1\taccuracy\tattacks detected\tfalse alarms\t")
	for _, c := range m.Sources {
		detected, alarms := "–", "–"
		if c.Attacks > 0 {
			detected = percent(c.DetectedPPM)
		}
		if c.Benign > 0 {
			alarms = percent(c.FalseAlarmPPM)
		}
		fmt.Fprintf(tw, "    %s\t%d\t%s\t%s\t%s\t%s\t\n", c.Source, c.Rows, fraction(c.MacroF1PPM), fraction(c.AccuracyPPM), detected, alarms)
	}
	tw.Flush()
	fmt.Fprintln(out, "  confusion (rows: true class, columns: class said):")
	fmt.Fprint(tw, "    \t")
	for i := range m.Classes {
		fmt.Fprintf(tw, "%d\t", i+1)
	}
	fmt.Fprintln(tw)
	for i, row := range m.Confusion {
		fmt.Fprintf(tw, "    %s %d\t", m.Classes[i].Class, i+1)
		for _, n := range row {
			if n == 0 {
				fmt.Fprint(tw, "·\t")
			} else {
				fmt.Fprintf(tw, "%d\t", n)
			}
		}
		fmt.Fprintln(tw)
	}
	tw.Flush()
	if i := slices.IndexFunc(m.SingleSources, func(c trainer.SingleSource) bool { return c.Class == "benign" }); i >= 0 {
		fmt.Fprintf(out, "  Note: all benign rows come from %s, so what tells them apart may be that source.\n", m.SingleSources[i].Source)
	}
	a := s.Metrics.Anomaly
	fmt.Fprintf(out, "\nANOMALY DETECTOR on %d benign and %d other test records: false alarms %s, detected %s, ROC-AUC %s\n",
		a.Benign, a.Attacks, percent(a.FalseAlarmPPM), percent(a.DetectedPPM), fraction(a.AUCPPM))
	p := s.Metrics.Reputation
	fmt.Fprintf(out, "REPUTATION on %d test records, %d of them bad: precision %s, recall %s, F1 %s, ROC-AUC %s\n",
		p.Rows, p.Bad, fraction(p.PrecisionPPM), fraction(p.RecallPPM), fraction(p.F1PPM), fraction(p.AUCPPM))
}
