package server

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The chart shows what was scored lately, in columns.
const (
	columnTime = 10 * time.Second
	columns    = 60
	inColors   = 4 // classes of attack with a color of their own: the most frequent
)

// span is what was scored in one stretch of columnTime.
type span struct {
	at time.Time // when it begins
	scored
}

// remember adds what one request found to the spans. h.mu is held.
func (h *hub) remember(t *tally, now time.Time) {
	at := now.Truncate(columnTime)
	if n := len(h.spans); n == 0 || h.spans[n-1].at.Before(at) {
		h.spans = append(h.spans, span{at, scored{Classes: map[string]int64{}}})
		h.spans = slices.DeleteFunc(h.spans, func(s span) bool { return at.Sub(s.at) >= columns*columnTime })
	}
	h.spans[len(h.spans)-1].add(t)
}

// lately returns the spans that the chart shows, oldest first, those in which
// nothing was scored left out.
func (h *hub) lately(now time.Time) []span {
	h.mu.Lock()
	defer h.mu.Unlock()
	end := now.Truncate(columnTime)
	var out []span
	for _, s := range h.spans {
		if end.Sub(s.at) < columns*columnTime && !s.at.After(end) {
			out = append(out, span{s.at, s.copy()})
		}
	}
	return out
}

// chart is what the page draws of the spans. Lengths are in units of the
// drawing, which is 600 wide and 100 high.
type chart struct {
	Until   time.Time
	Rows    int64 // in all
	Most    int64 // upper end of the axis of records
	Half    string
	Blocks  []block // records by class, in columns
	Scores  []block // anomaly scores: the mean, and the highest
	Key     []key
	Minutes []minute // the same as a table, newest first
}

// block is one rectangle. Kind is what it shows: "mean", "highest", or a color
// of the key.
type block struct {
	Kind       string
	X, Y, W, H string
}

// key says which class has which color.
type key struct{ Color, Class string }

// minute is a row of the table.
type minute struct {
	At time.Time
	scored
	Mean, Highest string // anomaly scores
	By            []bar  // classes, the most frequent first
}

// draw makes the chart of spans, which end at now.
func draw(spans []span, now time.Time) *chart {
	c := &chart{Until: now.Truncate(time.Second)}
	all := scored{Classes: map[string]int64{}}
	most := int64(1)
	for _, s := range spans {
		all.merge(&s.scored)
		most = max(most, s.Rows)
	}
	c.Rows, c.Most = all.Rows, roundUp(most)
	c.Half = strings.TrimSuffix(fmt.Sprintf("%.1f", float64(c.Most)/2), ".0")
	color := map[string]string{}
	give := func(class, as, name string) {
		color[class] = as
		if n := len(c.Key); n == 0 || c.Key[n-1].Color != as {
			c.Key = append(c.Key, key{as, name})
		}
	}
	if all.Classes["benign"] > 0 {
		give("benign", "benign", "benign")
	}
	for i, b := range slices.DeleteFunc(bars(all.Classes), func(b bar) bool { return b.Class == "benign" }) {
		if i < inColors {
			give(b.Class, fmt.Sprintf("attack%d", i+1), b.Class)
		} else {
			give(b.Class, "other", "other attacks")
		}
	}
	end := now.Truncate(columnTime)
	for _, s := range spans {
		x := float64(10 * (columns - 1 - int(end.Sub(s.at)/columnTime)))
		under := 0.0
		for _, k := range c.Key {
			rows := int64(0)
			for class, n := range s.Classes {
				if color[class] == k.Color {
					rows += n
				}
			}
			if h := 100 * float64(rows) / float64(c.Most); h > 0 {
				under += h
				c.Blocks = append(c.Blocks, block{k.Color, unit(x + 1), unit(100 - under), "8", unit(h)})
			}
		}
		if s.Rows > 0 {
			mean, highest := 100*s.AnomalySum/float64(s.Rows), 100*float64(s.AnomalyMax)
			c.Scores = append(c.Scores, block{"mean", unit(x + 1), unit(100 - mean), "8", unit(mean)}, block{"highest", unit(x + 1), unit(max(0, 99-highest)), "8", "2"})
		}
	}
	for _, s := range slices.Backward(spans) {
		at := s.at.Truncate(time.Minute)
		if n := len(c.Minutes); n == 0 || !c.Minutes[n-1].At.Equal(at) {
			c.Minutes = append(c.Minutes, minute{At: at, scored: scored{Classes: map[string]int64{}}})
		}
		c.Minutes[len(c.Minutes)-1].merge(&s.scored)
	}
	for i := range c.Minutes {
		m := &c.Minutes[i]
		m.Mean, m.Highest, m.By = fmt.Sprintf("%.2f", m.AnomalySum/float64(max(1, m.Rows))), fmt.Sprintf("%.2f", m.AnomalyMax), bars(m.Classes)
	}
	return c
}

// unit is a length in the drawing.
func unit(v float64) string { return fmt.Sprintf("%.2f", v) }

// roundUp is the least of 1, 2, 5, 10, 20, 50 … that is not below n.
func roundUp(n int64) int64 {
	for ten := int64(1); ; ten *= 10 {
		for _, m := range []int64{1, 2, 5} {
			if ten*m >= n || ten == 1e18 && m == 5 {
				return ten * m
			}
		}
	}
}

// bars sorts classes, the most frequent first.
func bars(classes map[string]int64) []bar {
	var all []bar
	for class, rows := range classes {
		all = append(all, bar{class, rows})
	}
	slices.SortFunc(all, func(a, b bar) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows), strings.Compare(a.Class, b.Class))
	})
	return all
}

// merge adds what another counted.
func (s *scored) merge(o *scored) {
	s.Rows += o.Rows
	s.Anomalies += o.Anomalies
	s.AnomalySum += o.AnomalySum
	s.AnomalyMax = max(s.AnomalyMax, o.AnomalyMax)
	for class, n := range o.Classes {
		s.Classes[class] += n
	}
}

// copy returns s with a map of its own.
func (s *scored) copy() scored {
	c := *s
	c.Classes = maps.Clone(s.Classes)
	return c
}

// scores answers GET /scores with the part of the page about scores, which its
// script puts in the place of the one before.
func (s *Server) scores(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	if err := pageTemplate.ExecuteTemplate(&b, "scores", s.view()); err != nil {
		panic("server: internal error: " + err.Error())
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(b.Bytes())
}
