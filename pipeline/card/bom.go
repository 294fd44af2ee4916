package card

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/uuid"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
	"github.com/battle-hardened-ai/bhtrain/oras"
)

const project = "https://github.com/battle-hardened-ai/bhtrain"

// References within the bill of materials.
const (
	refRelease = "release"
	refDataset = "dataset"
)

// BOM returns a CycloneDX 1.6 bill of materials with a model card for each
// model, as canonical JSON. Its serial number is derived from the digest of
// the release, its timestamp is the as-of time of the recipe.
func (c *Card) BOM() ([]byte, error) {
	release := cdx.Component{
		Type: cdx.ComponentTypeMachineLearningModel, BOMRef: refRelease,
		Name: c.release.Product, Version: strconv.FormatInt(c.release.Number, 10),
		Description: "Release of four models that look at events on servers. The hash is that of its OCI manifest.",
		Hashes:      hashes(c.digest),
		PackageURL:  "pkg:oci/" + c.release.Product + "@sha256%3A" + c.digest.Hex(),
	}
	bom := &cdx.BOM{
		JSONSchema: "http://cyclonedx.org/schema/bom-1.6.schema.json", BOMFormat: cdx.BOMFormat, SpecVersion: cdx.SpecVersion1_6,
		SerialNumber: uuid.NewSHA1(uuid.NameSpaceURL, []byte(project+"/release/"+c.digest.String())).URN(), Version: 1,
		Metadata: &cdx.Metadata{
			Timestamp: c.asOf().Format(time.RFC3339),
			Tools:     &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Group: "battle-hardened-ai", Name: "bhtrain"}}},
			Component: &release,
		},
	}
	var components []cdx.Component
	on := cdx.Dependency{Ref: refRelease, Dependencies: &[]string{}}
	var dependencies []cdx.Dependency
	for i, a := range models {
		components = append(components, cdx.Component{
			Type: cdx.ComponentTypeMachineLearningModel, BOMRef: a.File, Name: a.File, Version: release.Version,
			Description: a.Task, Hashes: hashes(c.files[i].Digest),
			ModelCard:  c.modelCard(i),
			Properties: &[]cdx.Property{{Name: "bhtrain:bytes", Value: strconv.FormatInt(c.files[i].Size, 10)}, {Name: "bhtrain:shape", Value: c.shape(i)}},
		})
		*on.Dependencies = append(*on.Dependencies, a.File)
		dependencies = append(dependencies, cdx.Dependency{Ref: a.File, Dependencies: &[]string{refDataset}})
	}
	rest := c.files[len(c.files)-1] // release.json
	components = append(components,
		cdx.Component{
			Type: cdx.ComponentTypeData, BOMRef: rest.Name, Name: rest.Name, Version: release.Version, MIMEType: "application/json",
			Description: "Recipe, features, thresholds and figures of the release.", Hashes: hashes(rest.Digest),
			Data: &[]cdx.ComponentData{{Type: cdx.ComponentDataTypeConfiguration, Name: rest.Name}},
		},
		c.datasetComponent(),
	)
	*on.Dependencies = append(*on.Dependencies, rest.Name)
	dependencies = append([]cdx.Dependency{on}, append(dependencies, cdx.Dependency{Ref: rest.Name}, cdx.Dependency{Ref: refDataset})...)
	bom.Components, bom.Dependencies = &components, &dependencies

	var b bytes.Buffer
	if err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("bill of materials: %w", err)
	}
	return canon.Canonicalize(b.Bytes()) // whatever the library's spacing and order
}

func hashes(d canon.Digest) *[]cdx.Hash {
	return &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: d.Hex()}}
}

func (c *Card) datasetComponent() cdx.Component {
	d := &c.metrics.Data
	sensitive := []string{"source addresses of clients: " + addresses[c.features.Address], "texts that clients sent"}
	return cdx.Component{
		Type: cdx.ComponentTypeData, BOMRef: refDataset, Name: c.release.Product + "-dataset", Version: c.release.Dataset.String(),
		Description: "Dataset that the models were trained on. The hash is that of its " + oras.SnapshotFile + ".",
		Hashes:      hashes(c.release.Dataset),
		Data: &[]cdx.ComponentData{{
			Type: cdx.ComponentDataTypeDataset, Name: c.release.Product + "-dataset",
			Description:   fmt.Sprintf("%d exploits and %d records. %s %s", d.Exploits, d.Records, privacy(c.features.Address, c.features.Redaction), exploitLicence),
			SensitiveData: &sensitive,
		}},
	}
}

// modelCard describes model i in CycloneDX's own form.
func (c *Card) modelCard(i int) *cdx.MLModelCard {
	a := &models[i]
	approach, family := cdx.MLModelParametersApproachTypeSupervised, "gradient-boosted trees"
	var metrics []cdx.MLPerformanceMetric
	add := func(kind string, ppm int64, slice string) {
		metrics = append(metrics, cdx.MLPerformanceMetric{Type: kind, Value: fraction(ppm), Slice: slice})
	}
	m := &c.metrics
	switch i {
	case 0:
		approach, family = cdx.MLModelParametersApproachTypeUnsupervised, "linear scaling"
	case 1:
		approach, family = cdx.MLModelParametersApproachTypeUnsupervised, "isolation forest"
		add("ROC-AUC", m.Anomaly.AUCPPM, "")
		add("false alarms", m.Anomaly.FalseAlarmPPM, "benign")
		add("detected", m.Anomaly.DetectedPPM, "attacks")
	case 2:
		if c.recipe.Classifier.Forest != nil {
			family = "random forest"
		}
		add("macro-F1", m.Classifier.MacroF1PPM, "")
		add("accuracy", m.Classifier.AccuracyPPM, "")
		add("ROC-AUC, attack against benign", m.Classifier.AttackAUCPPM, "")
		add("expected calibration error", m.Classifier.ECEPPM, "")
		for _, s := range m.Classifier.Classes {
			add("precision", s.PrecisionPPM, "class "+s.Class)
			add("recall", s.RecallPPM, "class "+s.Class)
			add("F1", s.F1PPM, "class "+s.Class)
		}
		for _, s := range m.Classifier.Sources {
			add("accuracy", s.AccuracyPPM, "source "+s.Source)
			if s.Attacks > 0 {
				add("detected", s.DetectedPPM, "attacks of source "+s.Source)
			}
			if s.Benign > 0 {
				add("false alarms", s.FalseAlarmPPM, "benign rows of source "+s.Source)
			}
		}
	case 3:
		add("precision", m.Reputation.PrecisionPPM, "")
		add("recall", m.Reputation.RecallPPM, "")
		add("F1", m.Reputation.F1PPM, "")
		add("ROC-AUC", m.Reputation.AUCPPM, "")
		add("expected calibration error", m.Reputation.ECEPPM, "")
	}
	limits := append([]string{}, a.NotFor...)
	for j := range limits {
		limits[j] = "Not for: " + limits[j]
	}
	if i > 0 {
		limits = append(limits, c.limits()...)
	}
	card := &cdx.MLModelCard{
		BOMRef: a.File + "/card",
		ModelParameters: &cdx.MLModelParameters{
			Approach: &cdx.MLModelParametersApproach{Type: approach}, Task: a.Task,
			ArchitectureFamily: family, ModelArchitecture: c.shape(i),
			Datasets: &[]cdx.MLDatasetChoice{{Ref: refDataset}},
			Inputs:   &[]cdx.MLInputOutputParameters{{Format: fmt.Sprintf("%s: float32[%d]", a.Sees, c.scoring.Dim)}},
			Outputs:  &[]cdx.MLInputOutputParameters{{Format: a.Says}},
		},
		Considerations: &cdx.MLModelCardConsiderations{
			Users:                &[]string{"operators of servers", "people who look into incidents", "auditors who rebuild the release"},
			UseCases:             &a.For,
			TechnicalLimitations: &limits,
			EthicalConsiderations: &[]cdx.MLModelCardEthicalConsideration{{
				Name:               "Records are about people's connections to servers.",
				MitigationStrategy: privacy(c.features.Address, c.features.Redaction) + " " + content,
			}},
		},
	}
	if len(metrics) > 0 {
		card.QuantitativeAnalysis = &cdx.MLQuantitativeAnalysis{PerformanceMetrics: &metrics}
	}
	return card
}
