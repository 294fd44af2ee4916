package card

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"strings"
	text "text/template"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/trainer"
)

//go:embed card.md.tmpl
var markdownSource string

//go:embed card.html.tmpl
var pageSource string

//go:embed card.css
var style string

var functions = map[string]any{
	"percent": percent, "fraction": fraction, "count": count, "words": words, "bar": bar,
	"add": func(a, b int) int { return a + b },
}

var (
	markdownTemplate = text.Must(text.New("card.md").Funcs(functions).Parse(markdownSource))
	pageTemplate     = template.Must(template.New("card.html").Funcs(functions).Parse(pageSource))
)

// Markdown returns the model card as text: GitHub's Markdown, with the
// metadata head that model hubs read. The plots of the page stand in it as
// tables.
func (c *Card) Markdown() ([]byte, error) {
	var b bytes.Buffer
	if err := markdownTemplate.Execute(&b, c.view()); err != nil {
		return nil, fmt.Errorf("model card: %w", err)
	}
	return b.Bytes(), nil
}

// HTML returns the model card as one page. It holds no script, loads nothing,
// and its content security policy allows neither.
func (c *Card) HTML() ([]byte, error) {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, c.view()); err != nil {
		return nil, fmt.Errorf("model card: %w", err)
	}
	return b.Bytes(), nil
}

// view is what both templates show.
type view struct {
	Product    string
	Number     int64
	Release    canon.Digest
	Dataset    canon.Digest
	AsOf       string
	Policy     string       // content security policy
	Style      template.CSS //
	Tiles      []tile
	Models     []modelView
	Data       *trainer.DataMetrics
	Sources    []sourceView
	ByClass    []classView
	Privacy    string
	Licence    string
	Content    string
	Split      [3]int64 // ppm
	Used       int64
	Limits     []string
	Recipe     []fact
	RecipeJSON string // the whole recipe
	Files      []file
	Size       int64

	Classifier *trainer.ClassifierMetrics
	Anomaly    *trainer.AnomalyMetrics
	Reputation *trainer.ReputationMetrics
	Asked      int64 // false alarms asked of the anomaly detector, ppm
	Threshold  int64 // of the reputation, ppm
	Detection  detection
	Detected   int64 // ppm
	Alarms     int64 // ppm
	Confusion  []confusionRow
	MinTest    int64
	Curves     []curveView
	Operating  []operatingView
	Reliable   []reliableView
	Weights    []weightView
}

type tile struct{ Label, Value, Note string }

type fact struct{ Name, Value string }

type modelView struct {
	about
	Size  int64
	Shape string
	ID    string
}

type sourceView struct {
	trainer.SourceData
	Doc string
}

// classView is a class in the table of classes.
type classView struct {
	trainer.ClassMetrics
	Training int64
	Few      bool
	BySource []int64
}

type confusionRow struct {
	Class string
	Rows  int64
	Cells []confusionCell
}

// confusionCell is a number of rows and its shade: 0 none, to 8 all rows of
// the class.
type confusionCell struct {
	Rows  int64
	Shade int64
	Right bool
}

type curveView struct {
	ID, Title string
	AUC       int64
	Plot      template.HTML
	Points    [][2]int64
}

type reliableView struct {
	ID, Title string
	ECE       int64
	Plot      template.HTML
	Table     []trainer.Reliability
}

// operatingView is what a model detects at most at given shares of false alarms.
type operatingView struct {
	Title    string
	Detected [4]int64
	Known    bool
	Used     [2]int64
}

var alarmLimits = [4]int64{1_000, 10_000, 50_000, 100_000}

type weightView struct {
	ID, Title string
	Note      string
	Groups    []groupView
	Top       []importance
	Rest      int   // further columns
	RestShare int64 // ppm
}

type groupView struct {
	group
	Doc string
}

// topColumns is how many columns of a model are listed one by one.
const topColumns = 15

func (c *Card) view() *view {
	m := &c.metrics
	d := c.detection()
	hash := sha256.Sum256([]byte(style))
	v := &view{
		Product: c.release.Product, Number: c.release.Number, Release: c.digest, Dataset: c.release.Dataset,
		AsOf:   date(c.asOf()),
		Policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'; base-uri 'none'; form-action 'none'",
		Style:  template.CSS(style),
		Data:   &m.Data, Privacy: privacy(c.features.Address, c.features.Redaction), Licence: exploitLicence, Content: content,
		Limits: c.limits(), Recipe: c.recipeFacts(), RecipeJSON: c.recipeText(), Files: c.files,
		Classifier: &m.Classifier, Anomaly: &m.Anomaly, Reputation: &m.Reputation,
		Asked: int64(c.scoring.Anomaly.Contamination), Threshold: int64(c.scoring.Reputation.Threshold),
		Detection: d, Detected: share(d.Detected, d.Attacks), Alarms: share(d.Alarms, d.Benign), MinTest: minTest,
	}
	v.Split = [3]int64{c.recipe.Split.TrainingPPM, c.recipe.Split.ValidationPPM, million - c.recipe.Split.TrainingPPM - c.recipe.Split.ValidationPPM}
	for _, f := range c.files {
		v.Size += f.Size
	}
	for _, i := range []int{2, 1, 3, 0} { // the one that most readers come for first
		a := models[i]
		v.Models = append(v.Models, modelView{about: a, Size: c.files[i].Size, Shape: c.shape(i), ID: strings.TrimSuffix(a.File, ".onnx")})
	}
	for _, s := range m.Data.Sources {
		v.Sources = append(v.Sources, sourceView{s, sources[s.Source]})
		v.Used += sum(s.Parts[:])
	}
	for i, s := range m.Classifier.Classes {
		data := m.Data.Classes[i]
		v.ByClass = append(v.ByClass, classView{s, data.Parts[trainer.Training], s.Rows < minTest, data.Rows})
	}
	v.tiles()
	v.confusion()

	attack := "attacks against benign records"
	for i, r := range []struct {
		title string
		on    string
		auc   int64
		curve [][2]int64
		used  operating
	}{
		{"Threat classifier", attack, m.Classifier.AttackAUCPPM, m.Classifier.ROC, c.classifierPoint()},
		{"Anomaly detector", attack, m.Anomaly.AUCPPM, m.Anomaly.ROC, c.anomalyPoint()},
		{"Address reputation", "bad against good events", m.Reputation.AUCPPM, m.Reputation.ROC, c.reputationPoint()},
	} {
		if len(r.curve) == 0 {
			continue
		}
		id := fmt.Sprint("roc-", i+1)
		v.Curves = append(v.Curves, curveView{id, r.title + ": " + r.on, r.auc, rocPlot(id, strings.ToLower(r.title), r.curve, r.auc, r.used), r.curve})
		o := operatingView{Title: r.title, Known: r.used.known, Used: r.used.point}
		for j, limit := range alarmLimits {
			o.Detected[j] = atMost(r.curve, limit)
		}
		v.Operating = append(v.Operating, o)
	}
	for i, r := range []struct {
		title string
		ece   int64
		table []trainer.Reliability
	}{
		{"Threat classifier", m.Classifier.ECEPPM, m.Classifier.Reliability},
		{"Address reputation", m.Reputation.ECEPPM, m.Reputation.Reliability},
	} {
		if len(r.table) > 0 {
			id := fmt.Sprint("calibration-", i+1)
			v.Reliable = append(v.Reliable, reliableView{id, r.title, r.ece, calibrationPlot(id, strings.ToLower(r.title), r.table, r.ece), r.table})
		}
	}
	for _, i := range []int{2, 1, 3} {
		all := importances(c.models[i].Ensemble)
		w := weightView{ID: fmt.Sprint("columns-", i), Title: models[i].Title, Top: all[:min(len(all), topColumns)]}
		if i == 1 {
			w.Note = "This model draws its columns at random, so the table says which columns vary among benign records, not which of them tell attacks."
		}
		for _, g := range groups(all) {
			w.Groups = append(w.Groups, groupView{g, groupDocs[g.Name]})
		}
		for _, rest := range all[len(w.Top):] {
			w.Rest++
			w.RestShare += rest.Share
		}
		v.Weights = append(v.Weights, w)
	}
	return v
}

// shape says how large a model is inside.
func (c *Card) shape(i int) string {
	s := c.scoring.Files[i]
	if c.models[i].Scaler != nil {
		return fmt.Sprintf("%d columns", c.scoring.Dim)
	}
	return fmt.Sprintf("%s trees, %s splits", count(int64(s.Trees)), count(int64(s.Splits)))
}

func (v *view) tiles() {
	d := v.Detection
	of := func(n int64, what string) string { return fmt.Sprintf("of %s %s", count(n), what) }
	add := func(label, value, note string) { v.Tiles = append(v.Tiles, tile{label, value, note}) }
	if d.Attacks > 0 {
		add("attacks seen as attacks", percent(v.Detected), of(d.Attacks, "attack test rows, whatever kind is named"))
	}
	if d.Benign > 0 {
		add("false alarms", percent(v.Alarms), of(d.Benign, "benign test rows are called an attack"))
	}
	add("kind of attack, macro-F1", fraction(v.Classifier.MacroF1PPM), fmt.Sprintf("mean F1 of %d classes, each counted alike", len(v.Classifier.Classes)))
	add("probabilities off by", percent(v.Classifier.ECEPPM), "mean distance of stated probability and share of right answers")
	if v.Anomaly.Benign > 0 {
		add("anomaly false alarms", percent(v.Anomaly.FalseAlarmPPM), of(v.Anomaly.Benign, "benign test records; "+percent(v.Asked)+" were asked for"))
	}
	if v.Reputation.Rows > 0 {
		add("reputation F1", fraction(v.Reputation.F1PPM), of(v.Reputation.Rows, "test records, "+count(v.Reputation.Bad)+" of them bad"))
	}
}

func (v *view) confusion() {
	const shades = 8
	for i, row := range v.Classifier.Confusion {
		r := confusionRow{Class: v.Classifier.Classes[i].Class, Rows: v.Classifier.Classes[i].Rows}
		for j, n := range row {
			cell := confusionCell{Rows: n, Right: i == j}
			if n > 0 {
				cell.Shade = max(1, (n*shades+r.Rows-1)/r.Rows)
			}
			r.Cells = append(r.Cells, cell)
		}
		v.Confusion = append(v.Confusion, r)
	}
}

// recipeText is the recipe as release.json has it, with line breaks.
func (c *Card) recipeText() string {
	v := c.release.Recipe.Clone()
	if err := v.Indent(jsontext.WithIndent("  ")); err != nil {
		return string(c.release.Recipe)
	}
	return string(v)
}

// recipeFacts are the parts of the recipe that readers ask for.
func (c *Card) recipeFacts() []fact {
	r := &c.recipe
	boosting := func(p *trainer.BoostParams, rounds int64) string {
		return fmt.Sprintf("gradient boosting, %d rounds of at most %d, trees of at most %d leaves and depth %d, learning rate %s",
			rounds, p.Rounds, p.MaxLeaves, p.MaxDepth, fraction(p.LearningRatePPM))
	}
	classifier := ""
	if b := r.Classifier.Boosting; b != nil {
		classifier = boosting(b, c.metrics.Classifier.Rounds)
	} else {
		classifier = fmt.Sprintf("random forest, %d trees of at most %d leaves", c.metrics.Classifier.Rounds, r.Classifier.Forest.MaxLeaves)
	}
	return []fact{
		{"As of", c.asOf().Format("2006-01-02 15:04:05 UTC")},
		{"Window", fmt.Sprintf("%s days; a dated record counts half after %s", count(r.WindowDays), count(r.HalfLifeDays))},
		{"Weight of one site", "at most " + percent(r.SiteCapPPM)},
		{"Seed", count(r.Seed)},
		{"Threat classifier", classifier},
		{"Anomaly detector", fmt.Sprintf("isolation forest, %d trees of %d rows each, %s of benign records may be flagged", c.metrics.Anomaly.Trees, r.Anomaly.Sample, percent(r.ContaminationPPM))},
		{"Address reputation", boosting(&r.Reputation, c.metrics.Reputation.Rounds)},
		{"Versions", fmt.Sprintf("algorithm %d, features %d, taxonomy %d", r.Algorithm, r.FeatureSchema, r.Taxonomy)},
	}
}
