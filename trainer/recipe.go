package trainer

import (
	"errors"
	"fmt"

	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// Algorithm is the version of everything in this package that decides output
// bytes. It is raised whenever any of them changes for some snapshot and
// recipe.
const Algorithm = 2

// ErrRecipe: a recipe breaks a bound or asks for a version that this program
// does not have.
var ErrRecipe = errors.New("invalid recipe")

// Recipe is all that decides the bytes of a release beside the snapshot, the
// product and the release number. Every field is an integer or a text, so that
// its canonical JSON, and with it its digest, is one.
type Recipe struct {
	Algorithm        int             `json:"algorithm"`         // must be [Algorithm]
	Seed             int64           `json:"seed"`              // 0 to 2^53-1; every draw is derived from it by name
	AsOf             int64           `json:"as_of"`             // microseconds since 1970-01-01 UTC; 0 = time of the newest dated record
	WindowDays       int64           `json:"window_days"`       // dated records older than this before AsOf are not used; 1 to 36,525
	HalfLifeDays     int64           `json:"half_life_days"`    // age at which a record counts half; 0 = half of the window, at most 36,525
	Split            Split           `json:"split"`             //
	SiteCapPPM       int64           `json:"site_cap_ppm"`      // largest share of weight of one site, 1 to 1,000,000
	FeatureSchema    int             `json:"feature_schema"`    // must be [feature.SchemaVersion]
	Taxonomy         int             `json:"taxonomy"`          // must be [TaxonomyVersion]
	MaxRows          int64           `json:"max_rows"`          // rows with the smallest hashes are used when there are more; 100 to 4,000,000
	MinClassRows     int64           `json:"min_class_rows"`    // a class with fewer training rows is counted as "other"; 1 to 1,000,000
	OrdinaryPPM      int64           `json:"ordinary_ppm"`      // benign rows made by [Ordinary], a source of their own, for every million rows of data; 0 to 1,000,000
	DerivedPPM       int64           `json:"derived_ppm"`       // share of payloads without address and time that the classifier also learns in another form, 0 to 1,000,000
	LightPPM         int64           `json:"light_ppm"`         // weight of an exploit's title or a listed target in the classifier beside another record, 1 to 1,000,000
	ContaminationPPM int64           `json:"contamination_ppm"` // share of benign records that may raise an anomaly alarm, 0 to 500,000
	Anomaly          IsolationParams `json:"anomaly"`
	Classifier       Classifier      `json:"classifier"`
	Reputation       BoostParams     `json:"reputation"`
}

// Classifier names the learner of threat_classifier by its hyper-parameters:
// exactly one is set.
type Classifier struct {
	Boosting *BoostParams  `json:"boosting,omitempty"`
	Forest   *ForestParams `json:"forest,omitempty"`
}

// DefaultRecipe returns the recipe of a run that asks for nothing else.
func DefaultRecipe() Recipe {
	return Recipe{
		Algorithm:        Algorithm,
		Seed:             1,
		WindowDays:       730,
		Split:            Split{Salt: "bhtrain/1", TrainingPPM: 700_000, ValidationPPM: 150_000},
		SiteCapPPM:       250_000,
		FeatureSchema:    feature.SchemaVersion,
		Taxonomy:         TaxonomyVersion,
		MaxRows:          400_000,
		MinClassRows:     60,
		OrdinaryPPM:      75_000,
		DerivedPPM:       500_000,
		LightPPM:         100_000,
		ContaminationPPM: 10_000,
		Anomaly:          IsolationParams{Trees: 100, Sample: 256, MaxBytes: 88 << 10},
		Classifier: Classifier{Boosting: &BoostParams{
			Rounds: 60, Patience: 8, MaxLeaves: 16, MaxDepth: 8, MaxBins: 255,
			LearningRatePPM: 250_000, L2Milli: 2000, MinHessianMilli: 100, MinRows: 4, MinGainMilli: 2000, MaxStepMilli: 2000,
			ColumnsPPM: 800_000, BalancePPM: 250_000, BalanceLimitMilli: 8000, MaxBytes: 135 << 10,
		}},
		Reputation: BoostParams{
			Rounds: 150, Patience: 20, MaxLeaves: 16, MaxDepth: 6, MaxBins: 255,
			LearningRatePPM: 100_000, L2Milli: 1000, MinHessianMilli: 1000, MinRows: 30, MinGainMilli: 100, MaxStepMilli: 4000,
			ColumnsPPM: 300_000, BalancePPM: 0, BalanceLimitMilli: 8000, MaxBytes: 44 << 10,
		},
	}
}

// bound is one rule of a recipe.
type bound struct {
	name     string
	value    int64
	low, top int64
}

// Validate reports the first field that is out of bounds, with its name and
// its bounds, as ErrRecipe.
func (r *Recipe) Validate() error {
	const million = 1_000_000
	rules := []bound{
		{"algorithm", int64(r.Algorithm), Algorithm, Algorithm},
		{"seed", r.Seed, 0, 1<<53 - 1},
		{"as_of", r.AsOf, -1 << 52, 1 << 52},
		{"window_days", r.WindowDays, 1, maxDays},
		{"half_life_days", r.HalfLifeDays, 0, maxDays},
		{"length of split.salt", int64(len(r.Split.Salt)), 0, 64},
		{"split.training_ppm", r.Split.TrainingPPM, 1, million - 2},
		{"split.validation_ppm", r.Split.ValidationPPM, 1, million - 1 - r.Split.TrainingPPM},
		{"site_cap_ppm", r.SiteCapPPM, 1, million},
		{"feature_schema", int64(r.FeatureSchema), feature.SchemaVersion, feature.SchemaVersion},
		{"taxonomy", int64(r.Taxonomy), int64(TaxonomyVersion), int64(TaxonomyVersion)},
		{"max_rows", r.MaxRows, minRows, 4_000_000},
		{"min_class_rows", r.MinClassRows, 1, million},
		{"light_ppm", r.LightPPM, 1, million},
		{"derived_ppm", r.DerivedPPM, 0, million},
		{"ordinary_ppm", r.OrdinaryPPM, 0, million},
		{"contamination_ppm", r.ContaminationPPM, 0, 500_000},
		{"anomaly.trees", int64(r.Anomaly.Trees), 1, 128},
		{"anomaly.sample", int64(r.Anomaly.Sample), 2, maxSample},
		{"anomaly.max_bytes", int64(r.Anomaly.MaxBytes), minBytes, maxBytes},
	}
	switch b, f := r.Classifier.Boosting, r.Classifier.Forest; {
	case b != nil && f == nil:
		rules = append(rules, b.bounds("classifier.boosting.")...)
	case f != nil && b == nil:
		rules = append(rules,
			bound{"classifier.forest.trees", int64(f.Trees), 1, 1000},
			bound{"classifier.forest.max_depth", int64(f.MaxDepth), 1, 60},
			bound{"classifier.forest.max_leaves", int64(f.MaxLeaves), 2, 65_535},
			bound{"classifier.forest.max_bins", int64(f.MaxBins), 2, MaxBins},
			bound{"classifier.forest.min_split", int64(f.MinSplit), 2, million},
			bound{"classifier.forest.min_rows", int64(f.MinRows), 1, million},
			bound{"classifier.forest.columns_ppm", f.ColumnsPPM, 0, million},
			bound{"classifier.forest.max_bytes", int64(f.MaxBytes), minBytes, maxBytes})
	default:
		return fmt.Errorf("%w: classifier: want exactly one of boosting and forest", ErrRecipe)
	}
	rules = append(rules, r.Reputation.bounds("reputation.")...)
	for _, b := range rules {
		if b.value < b.low || b.value > b.top {
			if b.low == b.top {
				return fmt.Errorf("%w: %s is %d: this program has %d", ErrRecipe, b.name, b.value, b.low)
			}
			return fmt.Errorf("%w: %s is %d: want %d to %d", ErrRecipe, b.name, b.value, b.low, b.top)
		}
	}
	if b := r.Classifier.Boosting; b != nil && b.largest() > maxScore {
		return fmt.Errorf("%w: classifier.boosting: rounds × max_step × learning rate is %d: want at most %d", ErrRecipe, b.largest(), int64(maxScore))
	}
	if n := r.Reputation.largest(); n > maxScore {
		return fmt.Errorf("%w: reputation: rounds × max_step × learning rate is %d: want at most %d", ErrRecipe, n, int64(maxScore))
	}
	return nil
}

const (
	minBytes = 4 << 10
	maxBytes = 1 << 20
)

// maxScore bounds the magnitude of a raw score while training, which is an
// int32 in units of 2^-scoreBits; the bias stays far below the rest.
const maxScore = 1500

// largest is the largest magnitude that all rounds can add to a raw score,
// rounded up. All three factors were checked to be in their bounds.
func (p *BoostParams) largest() int64 {
	return (int64(p.Rounds)*p.MaxStepMilli*p.LearningRatePPM + 999_999_999) / 1_000_000_000
}

func (p *BoostParams) bounds(at string) []bound {
	const million = 1_000_000
	return []bound{
		{at + "rounds", int64(p.Rounds), 1, 1000},
		{at + "patience", int64(p.Patience), 1, 1000},
		{at + "max_leaves", int64(p.MaxLeaves), 2, 255},
		{at + "max_depth", int64(p.MaxDepth), 1, 60},
		{at + "max_bins", int64(p.MaxBins), 2, MaxBins},
		{at + "learning_rate_ppm", p.LearningRatePPM, 1, million},
		{at + "l2_milli", p.L2Milli, 1, million},
		{at + "min_hessian_milli", p.MinHessianMilli, 0, million},
		{at + "min_rows", int64(p.MinRows), 1, million},
		{at + "min_gain_milli", p.MinGainMilli, 0, million},
		{at + "max_step_milli", p.MaxStepMilli, 1, 100_000},
		{at + "columns_ppm", p.ColumnsPPM, 1, million},
		{at + "balance_ppm", p.BalancePPM, 0, million},
		{at + "balance_limit_milli", p.BalanceLimitMilli, 1000, 16_000},
		{at + "max_bytes", int64(p.MaxBytes), minBytes, maxBytes},
	}
}

// Digest is the SHA-256 of the recipe's canonical JSON.
func (r *Recipe) Digest() (canon.Digest, error) {
	b, err := canon.Marshal(r)
	if err != nil {
		return canon.Digest{}, err
	}
	return canon.Sum(b), nil
}

// DecodeRecipe reads a recipe from JSON, strictly: unknown or missing-versioned
// fields, duplicates and values out of bounds are refused, canon.ErrSyntax or
// ErrRecipe.
func DecodeRecipe(b []byte) (Recipe, error) {
	var r Recipe
	if err := canon.Unmarshal(b, &r); err != nil {
		return Recipe{}, fmt.Errorf("recipe: %w", err)
	}
	if err := r.Validate(); err != nil {
		return Recipe{}, err
	}
	return r, nil
}
