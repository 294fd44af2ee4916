// Package card writes what describes a release: a model card as Markdown and
// as one page of HTML, a CycloneDX bill of materials, and a Croissant
// description of the dataset.
//
// Each is a function of the bytes it describes. No clock, host or network
// plays a part and no number is a float, so anyone can make the same bytes
// again with this version of the package, on any machine, from any copy of the
// release. The figures are those that release.json states: a card shows them
// and a rebuild checks them.
package card

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
	"github.com/battle-hardened-ai/bhtrain/trainer"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// ErrRelease: a release cannot be described. Its sections are not those that
// this program's trainer writes, or contradict the models or one another.
var ErrRelease = errors.New("release cannot be described")

func refuse(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrRelease, fmt.Sprintf(format, a...))
}

// Card is everything that the documents of a release say. It is immutable.
type Card struct {
	release oras.Release
	digest  canon.Digest // of the release's manifest
	files   []file       // the models in the order of model.Files, then release.json

	recipe   trainer.Recipe
	features feature.Config
	scoring  model.Scoring
	metrics  trainer.Metrics

	models [4]*model.Model // in the order of model.Files
}

type file struct {
	Name   string
	Size   int64 // bytes
	Digest canon.Digest
}

// New reads a release that oras.Pull or oras.Pack returned. It decodes all
// sections and models, and holds the figures against each other; what does not
// fit is ErrRelease.
func New(a *oras.Artifact) (*Card, error) {
	c := &Card{release: a.Release, digest: a.Digest}
	models := map[string][]byte{}
	for i, f := range a.Models {
		models[f.Name] = f.Data
		c.files = append(c.files, file{f.Name, int64(len(f.Data)), canon.Sum(f.Data)})
		m, err := model.Decode(f.Name, f.Data)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRelease, err)
		}
		c.models[i] = m
	}
	c.files = append(c.files, file{oras.ReleaseFile, int64(len(a.ReleaseJSON)), canon.Sum(a.ReleaseJSON)})

	set, err := model.Open(models, a.Release.Scoring)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRelease, err)
	}
	c.scoring = set.Scoring()
	if c.recipe, err = trainer.DecodeRecipe(a.Release.Recipe); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRelease, err)
	}
	if c.features, err = feature.ParseConfig(a.Release.Features); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRelease, err)
	}
	if err := canon.UnmarshalCanonical(a.Release.Metrics, &c.metrics); err != nil {
		return nil, fmt.Errorf("%w: metrics: %w", ErrRelease, err)
	}
	// A member that is missing reads as zero; only this finds it.
	if again, err := canon.Marshal(c.metrics); err != nil || !bytes.Equal(again, a.Release.Metrics) {
		return nil, refuse("metrics: a member is missing")
	}
	if c.scoring.Dim != feature.Dim {
		return nil, refuse("models of %d features, this program knows %d", c.scoring.Dim, feature.Dim)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return c, nil
}

// Documents returns the model card in both forms and the bill of materials,
// as they are attached to the release.
func (c *Card) Documents() ([]oras.Document, error) {
	md, err := c.Markdown()
	if err != nil {
		return nil, err
	}
	page, err := c.HTML()
	if err != nil {
		return nil, err
	}
	bom, err := c.BOM()
	if err != nil {
		return nil, err
	}
	return []oras.Document{
		{Type: oras.TypeMarkdown, Name: "model-card.md", Data: md},
		{Type: oras.TypeHTML, Name: "model-card.html", Data: page},
		{Type: oras.TypeCycloneDX, Name: "bom.cdx.json", Data: bom},
	}, nil
}

// asOf is the instant that the release's data is seen from, to the second.
func (c *Card) asOf() time.Time { return time.UnixMicro(c.recipe.AsOf).UTC().Truncate(time.Second) }

const million = 1_000_000

// maxRows bounds every count, so that no arithmetic here overflows.
const maxRows = 1 << 40

var (
	// name is what class and source names look like; such a text needs no
	// escaping in any of the documents.
	name = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,63}$`)
	// reason is the same for words.
	reason = regexp.MustCompile(`^[a-z][a-z0-9 _-]{0,79}$`)
)

// checker gathers the first contradiction among figures.
type checker struct{ err error }

func (k *checker) fail(format string, a ...any) {
	if k.err == nil {
		k.err = refuse(format, a...)
	}
}

// shares demands parts per million, counts demands numbers of rows.
func (k *checker) shares(what string, values ...int64) {
	for _, v := range values {
		if v < 0 || v > million {
			k.fail("%s: %d is no share", what, v)
		}
	}
}

func (k *checker) counts(what string, values ...int64) {
	for _, v := range values {
		if v < 0 || v > maxRows {
			k.fail("%s: %d is no number of rows", what, v)
		}
	}
}

func (k *checker) names(what string, values ...string) {
	for i, v := range values {
		if !name.MatchString(v) || slices.Contains(values[:i], v) {
			k.fail("%s: %q is no name, or there twice", what, v)
		}
	}
}

// curve demands what trainer.Metrics says of a ROC curve.
func (k *checker) curve(what string, points [][2]int64) {
	if len(points) == 0 {
		return
	}
	last := len(points) - 1
	if last < 1 || last > 64 || points[0] != [2]int64{} || points[last] != [2]int64{million, million} {
		k.fail("%s: ROC curve of %d points from end to end", what, last+1)
		return
	}
	for i := 1; i <= last; i++ {
		if points[i][0] < points[i-1][0] || points[i][1] < points[i-1][1] {
			k.fail("%s: ROC curve falls", what)
		}
	}
}

func (k *checker) reliability(what string, rows int64, table []trainer.Reliability) {
	for _, r := range table {
		k.counts(what, r.Rows)
		k.shares(what, r.ConfidencePPM, r.AccuracyPPM)
		rows -= r.Rows
	}
	if rows != 0 || len(table) > 64 {
		k.fail("%s: reliability is of %d rows less than were measured", what, rows)
	}
}

// check holds the metrics against the models and against each other. It
// follows from the confusion matrix what can be.
func (c *Card) check() error {
	k := new(checker)
	d, m, a, p := &c.metrics.Data, &c.metrics.Classifier, &c.metrics.Anomaly, &c.metrics.Reputation

	k.counts("data", d.Exploits, d.Records)
	var sources, classes []string
	var rows int64
	for _, s := range d.Sources {
		sources = append(sources, s.Source)
		k.counts(s.Source, s.Rows, s.Unlabelled, s.Other, s.Parts[0], s.Parts[1], s.Parts[2])
		if s.Source != madeSource {
			rows += s.Rows
		}
	}
	k.names("sources", sources...)
	if len(sources) > 64 || rows != d.Exploits+d.Records {
		k.fail("%d sources have %d rows, the dataset %d", len(sources), rows, d.Exploits+d.Records)
	}
	for _, s := range d.Classes {
		classes = append(classes, s.Class)
		k.counts(s.Class, append(s.Parts[:], s.Rows...)...)
		if len(s.Rows) != len(sources) || sum(s.Rows) != sum(s.Parts[:]) {
			k.fail("class %s has %d rows by source, %d by part", s.Class, sum(s.Rows), sum(s.Parts[:]))
		}
	}
	k.names("classes", classes...)
	if !slices.Equal(classes, c.scoring.Classes) {
		k.fail("classes %q, the models have %q", classes, c.scoring.Classes)
	}
	k.names("merged classes", d.Merged...)
	for _, u := range d.Unused {
		if k.counts("unused", u.Rows); !reason.MatchString(u.Reason) {
			k.fail("%q is no reason", u.Reason)
		}
	}

	k.counts("classifier", m.Rounds, m.BetaMilli)
	k.shares("classifier", m.ValidationF1, m.AccuracyPPM, m.MacroF1PPM, m.MacroAUCPPM, m.AttackAUCPPM, m.ECEPPM)
	if len(m.Classes) != len(classes) || len(m.Confusion) != len(classes) {
		k.fail("classifier: %d classes and a confusion matrix of %d, the models have %d", len(m.Classes), len(m.Confusion), len(classes))
		return k.err
	}
	said := make([]int64, len(classes))
	for i, row := range m.Confusion {
		if k.counts("confusion", row...); len(row) != len(classes) {
			k.fail("row %d of the confusion matrix has %d numbers, want %d", i, len(row), len(classes))
			return k.err
		}
		for j, n := range row {
			said[j] += n
		}
	}
	if k.err != nil {
		return k.err
	}
	var measured int64
	for i, s := range m.Classes {
		hit, truth := m.Confusion[i][i], sum(m.Confusion[i])
		measured += truth
		if s.Class != classes[i] || s.Rows != truth || s.Rows != d.Classes[i].Parts[trainer.Test] ||
			s.PrecisionPPM != share(hit, said[i]) || s.RecallPPM != share(hit, truth) || s.F1PPM != share(2*hit, truth+said[i]) {
			k.fail("class %s: its figures are not those of the confusion matrix", s.Class)
		}
		k.shares(s.Class, s.AUCPPM)
	}
	k.reliability("classifier", measured, m.Reliability)
	k.curve("classifier", m.ROC)
	for _, s := range m.Sources {
		k.counts(s.Source, s.Rows, s.Attacks, s.Benign)
		k.shares(s.Source, s.AccuracyPPM, s.MacroF1PPM, s.DetectedPPM, s.FalseAlarmPPM)
		if measured -= s.Rows; s.Rows != s.Attacks+s.Benign || !slices.Contains(sources, s.Source) {
			k.fail("classifier: %d rows of source %q", s.Rows, s.Source)
		}
	}
	if measured != 0 {
		k.fail("classifier: the sources have %d rows less than were measured", measured)
	}
	for _, s := range m.SingleSources {
		if !slices.Contains(classes, s.Class) || !slices.Contains(sources, s.Source) {
			k.fail("class %q of the one source %q", s.Class, s.Source)
		}
	}

	k.counts("anomaly", a.Trees, a.Benign, a.Attacks)
	k.shares("anomaly", a.FalseAlarmPPM, a.DetectedPPM, a.AUCPPM)
	k.curve("anomaly", a.ROC)
	k.counts("reputation", p.Rounds, p.BetaMilli, p.Rows, p.Bad, p.Rows-p.Bad)
	k.shares("reputation", p.PrecisionPPM, p.RecallPPM, p.F1PPM, p.AUCPPM, p.ECEPPM)
	k.reliability("reputation", p.Rows, p.Reliability)
	k.curve("reputation", p.ROC)
	return k.err
}

func sum(values []int64) (n int64) {
	for _, v := range values {
		n += v
	}
	return n
}

// share returns a/b in parts per million, halves up, 0 when b is 0: as
// package trainer rounds.
func share(a, b int64) int64 {
	if b == 0 {
		return 0
	}
	return (a*million + b/2) / b
}
