package card

import (
	"fmt"
	"slices"
	"strings"

	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/trainer/model"
)

// about is what a model is, whatever release it is in.
type about struct {
	File   string
	Title  string
	Task   string // one sentence
	Sees   string // its input
	Says   string // its output
	For    []string
	NotFor []string
}

// models are the four, in the order of model.Files.
var models = [4]about{
	{
		File:  model.ScalerFile,
		Title: "Feature scaler",
		Task:  "Brings every column of a record's vector to one scale for the anomaly detector.",
		Sees:  "a vector of features",
		Says:  "the vector, each column shifted and scaled",
		For:   []string{"Preparing vectors for the anomaly detector of the same release."},
		NotFor: []string{
			"Preparing vectors for other models: the classifier and the reputation take them unscaled.",
			"Use beside models of another release.",
		},
	},
	{
		File:  model.AnomalyFile,
		Title: "Anomaly detector",
		Task:  "Says how unlike the benign records of its training an event is.",
		Sees:  "content of the event and history of its source, never the address",
		Says:  "a score from 0 to 1, and a flag above a threshold that was chosen on benign records",
		For: []string{
			"Pointing out events that nobody has named yet, for a person or a slower check to look at.",
			"Watching how far a site's traffic drifts from the traffic the models know.",
		},
		NotFor: []string{
			"Telling attacks from harmless rarities: what is unusual need not be hostile.",
			"A site whose ordinary traffic is not among the benign records; add some and train again first.",
			"Blocking by itself.",
		},
	},
	{
		File:  model.ClassifierFile,
		Title: "Threat classifier",
		Task:  "Names the kind of attack that an event shows, or says that it is benign.",
		Sees:  "content of the event and history of its source, never the address",
		Says:  "a class, and a probability for each class",
		For: []string{
			"Sorting web requests, log-in attempts, honeypot commands and alarms by the kind of attack.",
			"Giving a probability to a rule or a person who weighs several signals.",
		},
		NotFor: []string{
			"Deciding alone that a person or a network is shut out.",
			"Proving that an attack succeeded, or that an application is or is not vulnerable.",
			"Traffic unlike every source below, and text that never reaches it: encrypted, cut off or not recorded.",
		},
	},
	{
		File:  model.ReputationFile,
		Title: "Address reputation",
		Task:  "Says how likely the next event of a source address is dangerous, from what it did before.",
		Sees:  "the address and its earlier events at the same site",
		Says:  "a probability, and a verdict above a threshold",
		For: []string{
			"Ranking the addresses that a site sees, so that the worst are looked at first.",
			"One signal among others for slowing down or challenging a client.",
		},
		NotFor: []string{
			"Judging people or organisations: many share an address, and addresses change hands.",
			"An address without history, or with a history at other sites only.",
			"Publication as a block list.",
		},
	},
}

// madeSource is the source of benign rows that the trainer makes itself: no
// dataset has them.
const madeSource = "ordinary"

// sources says what the names of sources stand for.
var sources = map[string]string{
	"exploitdb": "titles of the ExploitDB index",
	"access":    "web server access logs",
	"attacks":   "attack records shared by protected sites",
	"cowrie":    "sessions of Cowrie honeypots",
	"honeypot":  "events of other honeypots",
	"labelled":  "collections of labelled payloads",
	"requests":  "requests from proof-of-concept texts",
	"sshd":      "log-ins at OpenSSH servers",
	"targets":   "lists of request targets and parameter values",
	madeSource:  "ordinary requests, made by the trainer where data has none",
}

// groupDocs says what the groups of columns hold.
var groupDocs = map[feature.Group]string{
	feature.Shape:     "lengths, counts, form of the request and of its headers",
	feature.Chars:     "character classes, runs and entropy",
	feature.Structure: "encodings and grammars",
	feature.Token:     "hashed words, token kinds and characters",
	feature.Lexical:   "names known from exploit titles",
	feature.Ports:     "destination port and protocol",
	feature.Address:   "source address",
	feature.History:   "earlier events of the same source",
}

// addresses says what a dataset keeps of source addresses.
var addresses = map[string]string{
	feature.AddressFull:      "Source addresses are kept in full.",
	feature.AddressTruncated: "Source addresses are cut to their network (/24 of IPv4, /48 of IPv6).",
	feature.AddressHashed:    "Source addresses are replaced by a keyed hash; the models learn nothing from the address itself.",
}

// privacy says what was done to personal data before the dataset was made.
func privacy(address string, redaction int) string {
	texts := "Texts are not redacted."
	if redaction > 0 {
		texts = fmt.Sprintf("Secrets and personal data in texts are redacted by the rules of version %d.", redaction)
	}
	return addresses[address] + " " + texts
}

const (
	exploitLicence = "Rows taken from the ExploitDB index are licensed GPL-2.0-or-later by OffSec. For other rows no licence is stated here: what the sites that shared them agreed to holds."

	content = "The release holds trees, thresholds and hashes of names. It holds no row of the dataset."
)

// minTest is the number of test rows below which a figure says little.
const minTest = 30

// limits are the warnings that follow from the figures, in words.
func (c *Card) limits() []string {
	m := &c.metrics.Classifier
	list := []string{
		"All figures are measured on held-out rows of the sources named here. Traffic of another origin can do better or worse; the table by source shows how far they differ.",
		"The figures are those that release.json states. They follow from the dataset and the recipe; rebuilding the release computes them again.",
	}
	if one := c.singleSources(); one != "" {
		list = append(list, one)
	}
	var few []string
	for _, s := range m.Classes {
		if s.Rows < minTest {
			few = append(few, fmt.Sprintf("%s (%d)", s.Class, s.Rows))
		}
	}
	if len(few) > 0 {
		list = append(list, fmt.Sprintf("Classes with fewer than %d test rows have figures that say little: %s.", minTest, strings.Join(few, ", ")))
	}
	if merged := c.metrics.Data.Merged; len(merged) > 0 {
		list = append(list, "Classes with too few training rows have no answer of their own: "+strings.Join(merged, ", ")+".")
	}
	for _, s := range c.metrics.Data.Sources {
		if s.Source == madeSource && s.Rows > 0 {
			list = append(list, fmt.Sprintf("%s benign rows were made by the trainer, since the data lacks ordinary traffic of their shapes: figures of source %s say how the models take these shapes, not real traffic.", count(s.Rows), s.Source))
		}
	}
	if n := c.metrics.Data.Derived; n > 0 {
		list = append(list, fmt.Sprintf("Beside the rows counted here, the classifier learnt from %s that are payloads of training rows in another form, a value as part of a request or a request's value alone.", count(n)))
	}
	for _, s := range m.Sources {
		if s.Benign >= minTest && s.FalseAlarmPPM > 50_000 {
			list = append(list, fmt.Sprintf("Of the benign test rows of source %s, %s are called attacks.", s.Source, percent(s.FalseAlarmPPM)))
		}
	}
	if a := &c.metrics.Anomaly; a.Benign >= minTest {
		asked := int64(c.scoring.Anomaly.Contamination)
		if off := a.FalseAlarmPPM - asked; off > 10_000 || off < -10_000 {
			list = append(list, fmt.Sprintf("The anomaly detector was asked for %s false alarms and gives %s on the test part: the benign records differ from one source to the next.", percent(asked), percent(a.FalseAlarmPPM)))
		}
	}
	return append(list,
		labelRule,
		fmt.Sprintf("Attack records come from the sites that share them. One site has at most %s of the weight, so that none can steer the models alone; a false record still trains.", percent(c.recipe.SiteCapPPM)),
	)
}

const labelRule = "Classes and levels come from a table of rules (taxonomy), not from people who looked at each row."

// singleSources warns of classes whose rows all come from one source, or is "".
func (c *Card) singleSources() string {
	var list []string
	for _, s := range c.metrics.Classifier.SingleSources {
		list = append(list, fmt.Sprintf("%s (%s)", s.Class, s.Source))
	}
	if len(list) == 0 {
		return ""
	}
	return "Some classes come from one source only, so what tells them apart may be that source: " + strings.Join(list, ", ") + "."
}

// benign is the index of that class, or -1.
func (c *Card) benign() int { return slices.Index(c.scoring.Classes, "benign") }

// detection counts the test rows of the classifier by attack or benign.
type detection struct {
	Attacks, Detected, Benign, Alarms int64
}

func (c *Card) detection() detection {
	var d detection
	benign := c.benign()
	for truth, row := range c.metrics.Classifier.Confusion {
		for said, n := range row {
			switch {
			case truth != benign:
				d.Attacks += n
				if said != benign {
					d.Detected += n
				}
			default:
				d.Benign += n
				if said != benign {
					d.Alarms += n
				}
			}
		}
	}
	return d
}

// operating is the point of a ROC curve at which a model is used, and whether
// it is known.
type operating struct {
	point [2]int64
	known bool
}

func (c *Card) classifierPoint() operating {
	d := c.detection()
	return operating{[2]int64{share(d.Alarms, d.Benign), share(d.Detected, d.Attacks)}, d.Benign > 0 && d.Attacks > 0}
}

func (c *Card) anomalyPoint() operating {
	a := &c.metrics.Anomaly
	return operating{[2]int64{a.FalseAlarmPPM, a.DetectedPPM}, a.Benign > 0 && a.Attacks > 0}
}

// reputationPoint finds the alarms from precision and recall, to within their
// rounding.
func (c *Card) reputationPoint() operating {
	p := &c.metrics.Reputation
	good := p.Rows - p.Bad
	if p.PrecisionPPM == 0 || good == 0 || p.Bad == 0 {
		return operating{}
	}
	hits := (p.RecallPPM*p.Bad + million/2) / million
	alarms := (hits*million+p.PrecisionPPM/2)/p.PrecisionPPM - hits
	return operating{[2]int64{min(share(alarms, good), million), p.RecallPPM}, true}
}

// atMost returns the highest share of detected rows among the curve's points
// with at most the given share of false alarms.
func atMost(curve [][2]int64, alarms int64) int64 {
	best := int64(0)
	for _, p := range curve {
		if p[0] <= alarms {
			best = p[1]
		}
	}
	return best
}
