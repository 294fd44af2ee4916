package trainer

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/battle-hardened-ai/bhtrain/dataset"
	"github.com/battle-hardened-ai/bhtrain/dataset/feature"
	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

// Names of classes that mean something to this package.
const (
	classBenign = "benign"
	classOther  = "other"
)

// Why a row of the snapshot trains nothing.
const (
	droppedUnlabelled = "no class in the taxonomy"
	droppedSmall      = "of a class with too few training rows"
	droppedWindow     = "outside the window"
	droppedLater      = "later than the as-of time"
	droppedCap        = "over max_rows"
	droppedQuiet      = "a listed request that shows no sign of an attack"
)

// ExploitSource is the name of exploits among the sources of a matrix.
const ExploitSource = string(dataset.ExploitDB)

// sources are the names of where rows come from, in the order in which they
// are listed: exploits, then the kinds of records and ordinary traffic.
var sources = []string{
	ExploitSource, string(record.Access), string(record.Attacks), string(record.Cowrie), string(record.Honeypot),
	string(record.Labelled), OrdinarySource, string(record.Requests), string(record.SSHD),
	string(record.Targets),
}

// Matrix is what models are fitted on: one row for each exploit and record of
// a snapshot that a recipe uses, exploits first, each in canonical order, then
// training rows derived from records, in their order, then the rows of ordinary
// traffic that the recipe asks for.
type Matrix struct {
	Dim     int       // columns, feature.Dim
	X       []float32 // row-major, Dim a row
	Rows    []Row
	Classes []string       // of Row.Class: those with enough training rows, in the order of the taxonomy
	Sources []string       // of Row.Source
	Recipe  Recipe         // with AsOf and HalfLifeDays resolved
	Config  feature.Config // what features were made with
	Count   Counts
}

// Row is one row of a matrix beside its features.
type Row struct {
	Exploit int64 // EDB id, or 0 for a record
	Record  int64 // position in the snapshot's records, from 0, of a derived row that of its record, or number of Ordinary's row; 0 for an exploit
	Weight  int32 // 1 to 4096, of which 4096 counts 1
	Source  uint8 // of a derived row that of its record
	Derived bool  // the record's payload in another form: trains the classifier and counts nowhere else
	Part    Part
	Class   int8 // or -1: trains reputation alone
	Bad     int8 // 1 for level DANGEROUS and above, 0 below, -1 when the row has no address, no time or no level
}

// Counts says what became of the rows of a snapshot.
type Counts struct {
	Exploits int64     `json:"exploits"` // in the snapshot
	Records  int64     `json:"records"`  // in the snapshot
	Used     int64     `json:"used"`     // rows of the matrix but the derived ones
	Derived  int64     `json:"derived"`  // training rows that are a record in another form
	Dropped  []Reason  `json:"dropped"`  // why the others are not, sorted by reason
	Coverage []Covered `json:"coverage"` // how far the taxonomy reaches, by source
	Capped   []string  `json:"capped"`   // sites whose weight was lowered, sorted
	Merged   []string  `json:"merged"`   // classes with too few training rows, counted as "other" or left out, in taxonomy order
}

// Reason is a number of rows and what they share.
type Reason struct {
	Reason string `json:"reason"`
	Rows   int64  `json:"rows"`
}

// Covered says what the taxonomy made of the rows of one source.
type Covered struct {
	Source     string `json:"source"`
	Rows       int64  `json:"rows"`
	Unlabelled int64  `json:"unlabelled"` // no class
	Other      int64  `json:"other"`      // class "other": recognised as an attack of no known kind
}

// row reports the features of row i, which belong to the matrix.
func (m *Matrix) row(i int32) []float32 { return m.X[int(i)*m.Dim : (int(i)+1)*m.Dim] }

// candidateRow is a row while it is not yet known whether it is used.
type candidateRow struct {
	Row
	class  int8 // of the taxonomy
	derive bool // the payload has another form to train on
	time   int64
	site   int32
}

// BuildMatrix reads the snapshot twice, first to choose rows, weights, parts
// and classes, then to compute features, records site by site in time order
// with one tracker that sees every record of the snapshot, used or not.
//
// Memory is that of the matrix (Dim float32 a row, at most recipe.MaxRows
// rows and as many derived ones) and some 50 bytes for each labelled row of the snapshot. A recipe that
// is not valid is ErrRecipe, a snapshot without rows to use ErrTooFew, a broken
// one dataset.ErrCorrupt.
func BuildMatrix(ctx context.Context, s *dataset.Snapshot, r Recipe, opt Options) (*Matrix, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	c := &collector{recipe: r, names: Classes(), exploitClass: map[int64]int8{}}
	plain, err := feature.DefaultConfig().Marshal()
	if err != nil {
		return nil, err
	}
	if c.plain, err = feature.New(plain); err != nil {
		return nil, err
	}
	c.vector = make([]float32, feature.Dim)
	c.deriver = deriver{recipe: &c.recipe, x: c.plain, vector: c.vector}
	if err := c.read(ctx, s, opt); err != nil {
		return nil, err
	}
	c.weigh()
	m := c.matrix()
	if !slices.ContainsFunc(m.Rows, func(r Row) bool { return !r.made() }) {
		if n := c.labelled(); n > 0 && n < minRows {
			return nil, fmt.Errorf("%w: %d labelled rows can be used, at least %d are needed%s", ErrTooFew, n, minRows, reasons(m.Count.Dropped))
		}
		return nil, fmt.Errorf("%w: none of %d exploits and %d records can be used%s", ErrTooFew, m.Count.Exploits, m.Count.Records, reasons(m.Count.Dropped))
	}
	manifest := s.Manifest()
	m.Config = feature.DefaultConfig()
	m.Config.Address = string(manifest.Address)
	m.Config.Redaction = manifest.Redaction
	m.Config.Lexicon = feature.Learn(m.trainingTitles(c.titles))
	if err := m.extract(ctx, s, c.titles, opt); err != nil {
		return nil, err
	}
	return m, nil
}

// collector chooses the rows of a matrix.
type collector struct {
	recipe       Recipe
	names        []string // of the taxonomy
	rows         []candidateRow
	titles       []feature.Title // of the exploits in rows, in their order
	exploitClass map[int64]int8
	plain        *feature.Extractor // without a lexicon
	vector       []float32
	deriver      deriver
	sites        []string // by number, 0 is "" (files)
	newest       int64
	count        Counts
}

func (c *collector) drop(why string, rows int64) {
	i, found := slices.BinarySearchFunc(c.count.Dropped, why, func(r Reason, why string) int { return strings.Compare(r.Reason, why) })
	if !found {
		c.count.Dropped = slices.Insert(c.count.Dropped, i, Reason{Reason: why})
	}
	c.count.Dropped[i].Rows += rows
}

func (c *collector) read(ctx context.Context, s *dataset.Snapshot, opt Options) error {
	c.newest = record.NoTime
	c.sites = []string{""}
	covered := make([]Covered, len(sources))
	total := int64(0)
	for _, t := range s.Manifest().Tables {
		total += t.Rows
	}
	for e, err := range s.Exploits(ctx) {
		if err != nil {
			return fmt.Errorf("reading exploits: %w", err)
		}
		c.count.Exploits++
		opt.progress("rows", c.count.Exploits, total)
		match := ClassifyExploit(e.Title, e.Type, e.Platform)
		c.cover(&covered[0], match.Class)
		if match.Class < 0 {
			c.drop(droppedUnlabelled, 1)
			continue
		}
		class := int8(match.Class)
		c.exploitClass[e.ID] = class
		row := candidateRow{class: class, time: record.NoTime}
		row.Exploit, row.Bad = e.ID, -1
		row.Part = c.recipe.Split.part(splitKey{exploit: e.ID})
		c.rows = append(c.rows, row)
		c.titles = append(c.titles, feature.Title{Text: MaskTitle(e.Title, match.Spans), Port: e.Port})
	}
	at := int64(-1)
	for r, err := range s.Records(ctx) {
		if err != nil {
			return fmt.Errorf("reading records: %w", err)
		}
		at++
		c.count.Records++
		opt.progress("rows", c.count.Exploits+c.count.Records, total)
		source := slices.Index(sources, string(r.Kind))
		if source < 0 {
			return fmt.Errorf("record %d: unknown kind %q", at, r.Kind)
		}
		match := ClassifyRecord(r.Kind, r.Label)
		class, level := int8(match.Class), r.Level
		if class < 0 && r.Label == "" && r.Exploit != 0 {
			if k, ok := c.exploitClass[r.Exploit]; ok {
				class = k
			}
		}
		if class >= 0 && c.names[class] != classBenign && c.quiet(r) {
			c.cover(&covered[source], -1)
			c.drop(droppedQuiet, 1)
			continue
		}
		if level == record.LevelUnknown {
			level = match.Level
		}
		row := candidateRow{class: class, time: r.Time}
		row.Record, row.Source, row.Bad = at, uint8(source), -1
		if r.Address != "" && r.Time != record.NoTime && level != record.LevelUnknown {
			row.Bad = 0
			if level >= record.LevelDangerous {
				row.Bad = 1
			}
		}
		c.cover(&covered[source], int(class))
		if r.Time != record.NoTime {
			c.newest = max(c.newest, r.Time)
		}
		if class < 0 && row.Bad < 0 {
			c.drop(droppedUnlabelled, 1)
			continue
		}
		row.Part = c.recipe.Split.part(splitKey{exploit: r.Exploit, address: r.Address, text: r.Payload})
		if r.Site != c.sites[len(c.sites)-1] { // records come site by site
			c.sites = append(c.sites, r.Site)
		}
		row.site = int32(len(c.sites) - 1)
		if row.Part == Training && class >= 0 && row.Bad < 0 {
			_, row.derive = c.deriver.derive(asked(r))
		}
		c.rows = append(c.rows, row)
	}
	benign := int8(slices.Index(c.names, classBenign))
	for i := range int64(len(c.rows)) * c.recipe.OrdinaryPPM / 1_000_000 {
		row := candidateRow{class: benign, time: record.NoTime}
		row.Record, row.Source, row.Bad = i, ordinaryAt, -1
		row.Part = c.recipe.Split.part(splitKey{text: c.recipe.ordinary(i).Payload})
		c.cover(&covered[ordinaryAt], int(benign))
		c.rows = append(c.rows, row)
	}
	for i, v := range covered {
		if v.Rows > 0 {
			v.Source = sources[i]
			c.count.Coverage = append(c.count.Coverage, v)
		}
	}
	return nil
}

// Numbers of sources.
var (
	ordinaryAt = uint8(slices.Index(sources, OrdinarySource))
	targetsAt  = uint8(slices.Index(sources, string(record.Targets)))
)

// isOrdinary says whether the row is ordinary traffic that no site recorded.
func (r *Row) isOrdinary() bool { return r.Source == ordinaryAt }

// made says whether the row is none of the snapshot.
func (r *Row) made() bool { return r.isOrdinary() || r.Derived }

// isTitle says whether the row is the title of an exploit.
func (r *Row) isTitle() bool { return r.Exploit != 0 }

// isLight says whether the row's class is loosely tied to its text: titles are
// prose about attacks, not attacks, and with the weight of records they teach
// that prose is an attack; a list of targets has one class for the stream, that
// it was a scan, whatever each line attempts.
func (r *Row) isLight() bool { return r.isTitle() || r.Source == targetsAt }

// ordinary makes row i of the recipe's ordinary traffic.
func (r *Recipe) ordinary(i int64) record.Record { return Ordinary(r.Seed, i) }

// asked returns what a server would have recorded of r. Texts of exploits write
// whole addresses where a server sees a path; models would learn that a scheme
// and a host are the attack. r itself is returned when it is no such request.
func asked(r *record.Record) *record.Record {
	if r.Kind != record.Requests {
		return r
	}
	_, rest, ok := strings.Cut(r.Payload, "://")
	scheme := r.Payload[:len(r.Payload)-len(rest)]
	if !ok || !strings.EqualFold(scheme, "http://") && !strings.EqualFold(scheme, "https://") {
		return r
	}
	path := strings.IndexAny(rest, "/?#")
	seen := *r
	switch {
	case path < 0:
		seen.Payload = "/"
	case rest[path] == '/':
		seen.Payload = rest[path:]
	default:
		seen.Payload = "/" + rest[path:]
	}
	return &seen
}

// quiet says whether a request taken from the text of an exploit, or listed
// without an address, is one that anybody might send. Such texts also link to
// vendors, demonstrations and harmless pages of the product, and most names
// that a scanner guesses are harmless but for their number.
func (c *collector) quiet(r *record.Record) bool {
	if r.Kind != record.Requests && r.Kind != record.Targets {
		return false
	}
	c.plain.Vector(c.vector, asked(r), nil)
	return !feature.Signs(c.vector)
}

func (c *collector) cover(v *Covered, class int) {
	v.Rows++
	switch {
	case class < 0:
		v.Unlabelled++
	case c.names[class] == classOther:
		v.Other++
	}
}

// weigh resolves the as-of time and leaves the rows that are used.
func (c *collector) weigh() {
	if c.recipe.AsOf == 0 && c.newest != record.NoTime {
		c.recipe.AsOf = c.newest
	}
	if c.recipe.HalfLifeDays == 0 {
		c.recipe.HalfLifeDays = max(1, c.recipe.WindowDays/2)
	}
	kept, titles := c.rows[:0], c.titles[:0]
	for i := range c.rows {
		row := c.rows[i]
		w, why := c.recipe.recency(row.time)
		if w == 0 {
			c.drop(why, 1)
			continue
		}
		row.Weight = w
		if row.Exploit != 0 {
			titles = append(titles, c.titles[i]) // exploits come first
		}
		kept = append(kept, row)
	}
	c.rows, c.titles = kept, titles
	if most := int(c.recipe.MaxRows); len(c.rows) > most {
		c.drop(droppedCap, int64(len(c.rows)-most))
		kept, titles = c.rows[:0], c.titles[:0]
		for _, i := range named(c.recipe.Seed, "rows").sample(len(c.rows), most) {
			if c.rows[i].Exploit != 0 {
				titles = append(titles, c.titles[i])
			}
			kept = append(kept, c.rows[i])
		}
		c.rows, c.titles = kept, titles
	}
	weights, site := make([]int32, len(c.rows)), make([]int32, len(c.rows))
	for i := range c.rows {
		weights[i], site[i] = c.rows[i].Weight, c.rows[i].site
	}
	for _, s := range capSites(weights, site, len(c.sites), c.recipe.SiteCapPPM) {
		c.count.Capped = append(c.count.Capped, c.sites[s])
	}
	slices.Sort(c.count.Capped)
	for i, w := range weights {
		c.rows[i].Weight = w
	}
	c.derive()
}

// derive adds the derived rows. A record and its other form count together
// what the record counted alone.
func (c *collector) derive() {
	var derived []candidateRow
	for i := range c.rows {
		row := &c.rows[i]
		if !row.derive {
			continue
		}
		other := *row
		other.Derived = true
		other.Weight = max(1, row.Weight/2)
		row.Weight = max(1, row.Weight-other.Weight)
		derived = append(derived, other)
	}
	ordinary := len(c.rows)
	for ordinary > 0 && c.rows[ordinary-1].isOrdinary() {
		ordinary--
	}
	c.rows = slices.Insert(c.rows, ordinary, derived...)
}

// labelled is the number of rows of the snapshot that have a class.
func (c *collector) labelled() (n int64) {
	for i := range c.rows {
		if c.rows[i].class >= 0 && !c.rows[i].made() {
			n++
		}
	}
	return n
}

// matrix numbers the classes that have enough training rows and returns the
// matrix without features.
func (c *collector) matrix() *Matrix {
	training := make([]int64, len(c.names))
	for i := range c.rows {
		if row := &c.rows[i]; row.class >= 0 && row.Part == Training && !row.Derived {
			training[row.class]++
		}
	}
	other := slices.Index(c.names, classOther)
	present := make([]bool, len(c.names))
	for i := range c.rows {
		if k := c.rows[i].class; k >= 0 {
			present[k] = true
		}
	}
	to := make([]int8, len(c.names)) // number in the matrix, -1 left out
	merged := int64(0)
	for k, n := range training {
		if present[k] && n < c.recipe.MinClassRows && k != other {
			c.count.Merged = append(c.count.Merged, c.names[k])
			if c.names[k] != classBenign {
				merged += n
			}
		}
	}
	m := &Matrix{Dim: feature.Dim, Sources: sources, Recipe: c.recipe}
	otherAt := int8(-1)
	for k, n := range training {
		to[k] = -1
		if n >= c.recipe.MinClassRows || k == other && n+merged >= c.recipe.MinClassRows {
			to[k] = int8(len(m.Classes))
			if k == other {
				otherAt = to[k]
			}
			m.Classes = append(m.Classes, c.names[k])
		}
	}
	for k := range to {
		if to[k] < 0 && c.names[k] != classBenign {
			to[k] = otherAt
		}
	}
	m.Rows = make([]Row, 0, len(c.rows))
	titles := c.titles[:0]
	for i := range c.rows {
		row := c.rows[i].Row
		row.Class = -1
		if k := c.rows[i].class; k >= 0 {
			row.Class = to[k]
		}
		if row.Class < 0 && row.Bad < 0 {
			switch {
			case row.made():
			case c.rows[i].class >= 0:
				c.drop(droppedSmall, 1)
			default:
				c.drop(droppedUnlabelled, 1)
			}
			continue
		}
		if row.Exploit != 0 {
			titles = append(titles, c.titles[i])
		}
		if row.Derived {
			c.count.Derived++
		}
		m.Rows = append(m.Rows, row)
	}
	c.titles = titles
	c.count.Used = int64(len(m.Rows)) - c.count.Derived
	m.Count = c.count
	return m
}

// trainingTitles yields the titles that the lexicon may be learnt from; titles
// are those of the first rows.
func (m *Matrix) trainingTitles(titles []feature.Title) iter.Seq[feature.Title] {
	return func(yield func(feature.Title) bool) {
		for i, t := range titles {
			if m.Rows[i].Part == Training && !yield(t) {
				return
			}
		}
	}
}

// extract computes the features of all rows: those of exploits beside those
// of records, which their tracker keeps in one sequence.
func (m *Matrix) extract(ctx context.Context, s *dataset.Snapshot, titles []feature.Title, opt Options) error {
	config, err := m.Config.Marshal()
	if err != nil {
		return fmt.Errorf("feature configuration: %w", err)
	}
	x, err := feature.New(config)
	if err != nil {
		return fmt.Errorf("feature configuration: %w", err)
	}
	m.X = make([]float32, len(m.Rows)*m.Dim)
	last := len(m.Rows) // record or derived row
	for ; last > 0 && m.Rows[last-1].isOrdinary(); last-- {
		r := m.Recipe.ordinary(m.Rows[last-1].Record)
		x.Vector(m.row(int32(last-1)), &r, nil)
	}
	derived := last - int(m.Count.Derived)
	var recordsErr error
	parallel(opt.workers(), 2, func(_, half int) {
		if half == 1 {
			for i, t := range titles {
				x.Vector(m.row(int32(i)), &record.Record{Time: record.NoTime, Payload: t.Text, Port: t.Port}, nil)
			}
			return
		}
		recordsErr = m.extractRecords(ctx, s, x, len(titles), derived, opt)
	})
	return recordsErr
}

// extractRecords computes the features of rows next to end, which are records,
// and of the derived rows that follow them.
func (m *Matrix) extractRecords(ctx context.Context, s *dataset.Snapshot, x *feature.Extractor, next, end int, opt Options) error {
	tracker := feature.NewTracker(m.Config)
	spare := make([]float32, m.Dim)
	d := deriver{recipe: &m.Recipe, x: x, vector: make([]float32, m.Dim)}
	derived, last := end, end+int(m.Count.Derived)
	at := int64(-1)
	for r, err := range s.Records(ctx) {
		if err != nil {
			return fmt.Errorf("reading records: %w", err)
		}
		at++
		opt.progress("features", at+1, m.Count.Records)
		dst := spare
		if next < end && m.Rows[next].Record == at {
			dst = m.row(int32(next))
			next++
		}
		seen := asked(r)
		x.Vector(dst, seen, tracker)
		if derived < last && m.Rows[derived].Record == at {
			other, ok := d.derive(seen)
			if !ok {
				return fmt.Errorf("reading records: record %d has no other form any more", at)
			}
			x.Vector(m.row(int32(derived)), &other, nil)
			derived++
		}
	}
	if next != end || derived != last {
		return fmt.Errorf("reading records: %d of %d rows came again, and the records of %d of %d derived rows", next, end, derived-end, last-end)
	}
	return nil
}

// reasons renders dropped rows for an error message.
func reasons(dropped []Reason) string {
	text := ""
	for i, d := range dropped {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		text += fmt.Sprintf("%s%d %s", sep, d.Rows, d.Reason)
	}
	return text
}
