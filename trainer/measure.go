package trainer

import (
	"slices"

	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// Metrics is the member "metrics" of release.json: what the models do on the
// test part, which was looked at once, after everything was chosen. Rows count
// one each here, whatever they weigh in training.
type Metrics struct {
	Anomaly    AnomalyMetrics    `json:"anomaly"`
	Classifier ClassifierMetrics `json:"classifier"`
	Data       DataMetrics       `json:"data"`
	Reputation ReputationMetrics `json:"reputation"`
}

// ClassifierMetrics measures threat_classifier.
type ClassifierMetrics struct {
	Rounds        int64           `json:"rounds"`         // of boosting, or trees of the forest
	BetaMilli     int64           `json:"beta_milli"`     // inverse temperature that was folded into the leaves
	ValidationF1  int64           `json:"validation_f1"`  // macro-F1 on validation rows, ppm
	AccuracyPPM   int64           `json:"accuracy_ppm"`   //
	MacroF1PPM    int64           `json:"macro_f1_ppm"`   // mean over classes that occur
	MacroAUCPPM   int64           `json:"macro_auc_ppm"`  // mean over classes that have both sides
	AttackAUCPPM  int64           `json:"attack_auc_ppm"` // attack against benign, by 1 - probability of benign
	ECEPPM        int64           `json:"ece_ppm"`        // expected calibration error
	Classes       []ClassMetrics  `json:"classes"`        //
	Confusion     [][]int64       `json:"confusion"`      // rows by true class, then class said
	Reliability   []Reliability   `json:"reliability"`    //
	ROC           [][2]int64      `json:"roc"`            // attack against benign: false alarms and detected in ppm, at most 33 points; empty when a side is
	Sources       []SourceMetrics `json:"sources"`        //
	SingleSources []SingleSource  `json:"single_sources"` // classes whose rows all come from one source: what tells them apart may be the source
}

// SourceMetrics measures the classifier on the test rows of one source.
type SourceMetrics struct {
	Source        string `json:"source"`
	Rows          int64  `json:"rows"`
	AccuracyPPM   int64  `json:"accuracy_ppm"`
	MacroF1PPM    int64  `json:"macro_f1_ppm"`
	Attacks       int64  `json:"attacks"`         // rows of any class but benign
	DetectedPPM   int64  `json:"detected_ppm"`    // share of them that is said to be any attack
	Benign        int64  `json:"benign"`          // rows of class benign
	FalseAlarmPPM int64  `json:"false_alarm_ppm"` // share of them that is said to be an attack
}

// SingleSource names a class and the only source its rows come from.
type SingleSource struct {
	Class  string `json:"class"`
	Source string `json:"source"`
}

// AnomalyMetrics measures anomaly_detector on records.
type AnomalyMetrics struct {
	Trees         int64 `json:"trees"`
	Benign        int64 `json:"benign"`          // benign test records
	FalseAlarmPPM int64 `json:"false_alarm_ppm"` // share of them that is flagged
	Attacks       int64 `json:"attacks"`         // test records of other classes
	DetectedPPM   int64 `json:"detected_ppm"`    // share of them that is flagged
	AUCPPM        int64 `json:"auc_ppm"`         // by the raw path sum

	ROC [][2]int64 `json:"roc"` // as that of the classifier
}

// ReputationMetrics measures ip_reputation on records with address, time and
// level.
type ReputationMetrics struct {
	Rounds       int64 `json:"rounds"`
	BetaMilli    int64 `json:"beta_milli"`
	Rows         int64 `json:"rows"`
	Bad          int64 `json:"bad"` // of level DANGEROUS or CRITICAL
	PrecisionPPM int64 `json:"precision_ppm"`
	RecallPPM    int64 `json:"recall_ppm"`
	F1PPM        int64 `json:"f1_ppm"`
	AUCPPM       int64 `json:"auc_ppm"`
	ECEPPM       int64 `json:"ece_ppm"`

	Reliability []Reliability `json:"reliability"` // of the likelier of the two answers
	ROC         [][2]int64    `json:"roc"`         // bad against good, as that of the classifier
}

// DataMetrics counts the rows that the models come from.
type DataMetrics struct {
	Exploits int64        `json:"exploits"` // in the snapshot
	Records  int64        `json:"records"`  // in the snapshot
	Derived  int64        `json:"derived"`  // training rows of the classifier that are a record in another form, counted nowhere else
	Sources  []SourceData `json:"sources"`  // those with rows in the snapshot
	Classes  []ClassData  `json:"classes"`  // in the order of the model
	Unused   []UnusedData `json:"unused"`   // rows that trained and tested nothing, by reason
	Merged   []string     `json:"merged"`   // classes with too few training rows, counted as "other" or left out
}

// SourceData counts the rows of one source.
type SourceData struct {
	Source     string   `json:"source"`
	Rows       int64    `json:"rows"`       // in the snapshot, or made as ordinary traffic
	Unlabelled int64    `json:"unlabelled"` // of them, without a class
	Other      int64    `json:"other"`      // of them, recognised as attacks of no known kind
	Parts      [3]int64 `json:"parts"`      // rows used for training, validation, test
}

// ClassData counts the rows of one class.
type ClassData struct {
	Class string   `json:"class"`
	Parts [3]int64 `json:"parts"` // rows used for training, validation, test
	Rows  []int64  `json:"rows"`  // the same rows by source, in the order of DataMetrics.Sources
}

// UnusedData is a number of rows and why they were not used.
type UnusedData struct {
	Reason string `json:"reason"`
	Rows   int64  `json:"rows"`
}

// Summary is what a person wants to know about a training.
type Summary struct {
	Counts  Counts         `json:"counts"`
	Parts   [3]int64       `json:"parts"`   // rows by Part
	Classes []ClassSummary `json:"classes"` // in the order of the model
	Metrics Metrics        `json:"metrics"`
}

// ClassSummary says where the rows of a class come from.
type ClassSummary struct {
	Class   string       `json:"class"`
	Parts   [3]int64     `json:"parts"` // rows by Part
	Sources []SourceRows `json:"sources"`
}

// SourceRows is a number of rows of one source.
type SourceRows struct {
	Source string `json:"source"`
	Rows   int64  `json:"rows"`
}

func (m *Matrix) summary(metrics Metrics) Summary {
	s := Summary{Counts: m.Count, Metrics: metrics, Classes: m.classTable()}
	for i := range m.Rows {
		if row := &m.Rows[i]; !row.Derived {
			s.Parts[row.Part]++
		}
	}
	return s
}

func (m *Matrix) classTable() []ClassSummary {
	table := make([]ClassSummary, len(m.Classes))
	bySource := make([][]int64, len(m.Classes))
	for k := range table {
		table[k].Class = m.Classes[k]
		bySource[k] = make([]int64, len(m.Sources))
	}
	for i := range m.Rows {
		if row := &m.Rows[i]; row.Class >= 0 && !row.Derived {
			table[row.Class].Parts[row.Part]++
			bySource[row.Class][row.Source]++
		}
	}
	for k, counts := range bySource {
		for s, n := range counts {
			if n > 0 {
				table[k].Sources = append(table[k].Sources, SourceRows{m.Sources[s], n})
			}
		}
	}
	return table
}

// dataMetrics counts the rows of m.
func (m *Matrix) dataMetrics() DataMetrics {
	d := DataMetrics{
		Exploits: m.Count.Exploits, Records: m.Count.Records, Sources: []SourceData{},
		Classes: make([]ClassData, len(m.Classes)), Unused: []UnusedData{}, Merged: append([]string{}, m.Count.Merged...),
	}
	at := make([]int, len(m.Sources)) // in d.Sources
	for _, c := range m.Count.Coverage {
		at[slices.Index(m.Sources, c.Source)] = len(d.Sources)
		d.Sources = append(d.Sources, SourceData{Source: c.Source, Rows: c.Rows, Unlabelled: c.Unlabelled, Other: c.Other})
	}
	for k, name := range m.Classes {
		d.Classes[k] = ClassData{Class: name, Rows: make([]int64, len(d.Sources))}
	}
	for i := range m.Rows {
		row := &m.Rows[i]
		if row.Derived {
			d.Derived++
			continue
		}
		d.Sources[at[row.Source]].Parts[row.Part]++
		if row.Class >= 0 {
			d.Classes[row.Class].Parts[row.Part]++
			d.Classes[row.Class].Rows[at[row.Source]]++
		}
	}
	for _, r := range m.Count.Dropped {
		d.Unused = append(d.Unused, UnusedData(r))
	}
	return d
}

// outcomes are the scores of some rows of a matrix.
type outcomes struct {
	m             *Matrix
	rows          []int32
	class         []uint8
	probabilities []float32 // row-major, by class
	anomalyRaw    []float32
	flag          []bool
	reputation    []float32
}

// scoreRows scores rows with the opened release.
func scoreRows(m *Matrix, set *model.Set, rows []int32, opt Options) *outcomes {
	k := len(m.Classes)
	o := &outcomes{
		m: m, rows: rows, class: make([]uint8, len(rows)), probabilities: make([]float32, k*len(rows)),
		anomalyRaw: make([]float32, len(rows)), flag: make([]bool, len(rows)), reputation: make([]float32, len(rows)),
	}
	const block = 512
	workers := opt.workers()
	room := make([]model.Scores, workers)
	parallel(workers, (len(rows)+block-1)/block, func(w, b int) {
		s := &room[w]
		for i := block * b; i < min(block*b+block, len(rows)); i++ {
			set.Score(m.row(rows[i]), s)
			o.class[i] = uint8(s.Class)
			copy(o.probabilities[k*i:], s.Probabilities)
			o.anomalyRaw[i], o.flag[i], o.reputation[i] = s.AnomalyRaw, s.Flag, s.Reputation
		}
	})
	return o
}

// toPPM returns a probability in parts per million, rounded down.
func toPPM(p float32) int64 { return int64(float64(p) * 1e6) }

// reputationThreshold returns the threshold, in parts per million, with the
// best F1 on validation rows; of equals the highest, which alarms least. It is
// one half when there is nothing to choose by.
func (o *outcomes) reputationThreshold() int {
	type row struct {
		at  int64
		bad bool
	}
	var rows []row
	var bad, all uint64
	for i, r := range o.rows {
		if row1 := &o.m.Rows[r]; row1.Part == Validation && row1.Bad >= 0 {
			rows = append(rows, row{toPPM(o.reputation[i]), row1.Bad == 1})
			all++
			bad += uint64(row1.Bad)
		}
	}
	if bad == 0 || bad == all {
		return 500_000
	}
	slices.SortFunc(rows, func(a, b row) int { return int(b.at - a.at) })
	var hit, said uint64
	best, bestF1 := int64(500_000), int64(-1)
	for i := 0; i < len(rows); {
		j := i
		for ; j < len(rows) && rows[j].at == rows[i].at; j++ {
			said++
			if rows[j].bad {
				hit++
			}
		}
		if f1 := ppm(2*hit, bad+said); f1 > bestF1 {
			best, bestF1 = rows[i].at, f1
		}
		i = j
	}
	return int(best)
}

// measure fills in the figures.
func (o *outcomes) measure(out *Metrics, threshold int) {
	out.Data = o.m.dataMetrics()
	o.classifier(&out.Classifier)
	o.anomaly(&out.Anomaly)
	o.reputationMetrics(&out.Reputation, threshold)
}

func (o *outcomes) classifier(out *ClassifierMetrics) {
	m := o.m
	k := len(m.Classes)
	benign := slices.Index(m.Classes, classBenign)
	all, valid := newConfusion(k), newConfusion(k)
	bySource := make([]confusion, len(m.Sources))
	var cal calibration
	var attack []scored
	var test []int // positions in o.rows
	for i, r := range o.rows {
		row := &m.Rows[r]
		if row.Class < 0 {
			continue
		}
		truth, said := int(row.Class), int(o.class[i])
		if row.Part == Validation {
			valid[truth][said]++
			continue
		}
		test = append(test, i)
		all[truth][said]++
		if bySource[row.Source] == nil {
			bySource[row.Source] = newConfusion(k)
		}
		bySource[row.Source][truth][said]++
		cal.add(toPPM(o.probabilities[k*i+said]), truth == said)
		if benign >= 0 {
			attack = append(attack, scored{-float64(o.probabilities[k*i+benign]), truth != benign})
		}
	}
	out.ValidationF1, out.AccuracyPPM, out.MacroF1PPM = valid.macroF1(), all.accuracy(), all.macroF1()
	out.AttackAUCPPM, out.ECEPPM, out.Reliability, out.Confusion = auc(attack), cal.ece(), cal.table(), all
	out.ROC = roc(attack)
	out.Classes, out.Sources, out.SingleSources = []ClassMetrics{}, []SourceMetrics{}, []SingleSource{}
	var areas, counted int64
	ranking := make([]scored, len(test))
	for c := range k {
		for j, i := range test {
			ranking[j] = scored{float64(o.probabilities[k*i+c]), int(m.Rows[o.rows[i]].Class) == c}
		}
		figures := all.class(c)
		figures.Class, figures.AUCPPM = m.Classes[c], auc(ranking)
		if figures.Rows > 0 && figures.Rows < int64(len(test)) {
			areas += figures.AUCPPM
			counted++
		}
		out.Classes = append(out.Classes, figures)
	}
	if counted > 0 {
		out.MacroAUCPPM = (areas + counted/2) / counted
	}
	for s, c := range bySource {
		if c != nil {
			out.Sources = append(out.Sources, c.source(m.Sources[s], benign))
		}
	}
	for _, c := range m.classTable() {
		if len(c.Sources) == 1 {
			out.SingleSources = append(out.SingleSources, SingleSource{c.Class, c.Sources[0].Source})
		}
	}
}

// source sums up the rows of one source; benign is the number of that class,
// or -1.
func (c confusion) source(name string, benign int) SourceMetrics {
	s := SourceMetrics{Source: name, AccuracyPPM: c.accuracy(), MacroF1PPM: c.macroF1()}
	var detected, alarms uint64
	for truth := range c {
		for said, n := range c[truth] {
			s.Rows += n
			if truth == benign {
				s.Benign += n
				if said != benign {
					alarms += uint64(n)
				}
			} else {
				s.Attacks += n
				if said != benign {
					detected += uint64(n)
				}
			}
		}
	}
	s.DetectedPPM, s.FalseAlarmPPM = ppm(detected, uint64(s.Attacks)), ppm(alarms, uint64(s.Benign))
	return s
}

func (o *outcomes) anomaly(out *AnomalyMetrics) {
	var alarms, detected uint64
	var ranking []scored
	for i, r := range o.rows {
		row := &o.m.Rows[r]
		if row.Part != Test || row.Class < 0 || row.isTitle() || row.made() {
			continue
		}
		benign := o.m.isBenignRecord(row)
		ranking = append(ranking, scored{-float64(o.anomalyRaw[i]), !benign})
		flagged := uint64(0)
		if o.flag[i] {
			flagged = 1
		}
		if benign {
			out.Benign++
			alarms += flagged
		} else {
			out.Attacks++
			detected += flagged
		}
	}
	out.FalseAlarmPPM, out.DetectedPPM = ppm(alarms, uint64(out.Benign)), ppm(detected, uint64(out.Attacks))
	out.AUCPPM, out.ROC = auc(ranking), roc(ranking)
}

func (o *outcomes) reputationMetrics(out *ReputationMetrics, threshold int) {
	c := newConfusion(2)
	var cal calibration
	var ranking []scored
	for i, r := range o.rows {
		row := &o.m.Rows[r]
		if row.Part != Test || row.Bad < 0 {
			continue
		}
		p := o.reputation[i]
		said := 0
		if float64(p)*1e6 >= float64(threshold) {
			said = 1
		}
		c[row.Bad][said]++
		ranking = append(ranking, scored{float64(p), row.Bad == 1})
		if likely := toPPM(p); likely >= 500_000 {
			cal.add(likely, row.Bad == 1)
		} else {
			cal.add(1_000_000-likely, row.Bad == 0)
		}
		out.Rows++
		out.Bad += int64(row.Bad)
	}
	f := c.class(1)
	out.PrecisionPPM, out.RecallPPM, out.F1PPM = f.PrecisionPPM, f.RecallPPM, f.F1PPM
	out.AUCPPM, out.ECEPPM = auc(ranking), cal.ece()
	out.Reliability, out.ROC = cal.table(), roc(ranking)
}
