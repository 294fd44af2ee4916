package card

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"

	"github.com/battle-hardened-ai/bhtrain/trainer"
)

// Plots are written here and not by a plotting library, for three reasons. The
// bytes of a card must be the same on every CPU, and libraries (gonum/plot,
// go-chart and their kin) place points by floating-point products and sums,
// which Go may fuse on some CPUs and not on others; here every coordinate is
// computed in integers from parts per million. They put style attributes and
// fixed colours into the SVG, which a page with a strict content security
// policy does not show and a dark page shows badly; here the page's style
// sheet colours them. And they know no titles and descriptions for people who
// cannot see a plot.

// A plot is drawn in tenths of a CSS pixel, so that integers are fine enough.
const (
	plotLeft, plotTop = 520, 120
	plotSide          = 3000 // of the square that shows 0 to 100 %
	plotWidth         = plotLeft + plotSide + 180
	plotHeight        = plotTop + plotSide + 620
)

// at returns the place of a point given in parts per million, x to the right
// and y upwards.
func at(x, y int64) string {
	return fmt.Sprintf("%d,%d", plotX(x), plotY(y))
}

func plotX(ppm int64) int64 { return plotLeft + (ppm*plotSide+million/2)/million }
func plotY(ppm int64) int64 { return plotTop + plotSide - (ppm*plotSide+million/2)/million }

// frame starts a plot: title and description for screen readers, grid, axes
// and the diagonal. All texts are this package's own.
func frame(id, title, description, x, y string) *strings.Builder {
	b := new(strings.Builder)
	esc := template.HTMLEscapeString
	fmt.Fprintf(b, `<svg class="plot" viewBox="0 0 %d %d" role="img" aria-labelledby="%s-title %s-description">`+"\n", plotWidth, plotHeight, id, id)
	fmt.Fprintf(b, `<title id="%s-title">%s</title><desc id="%s-description">%s</desc>`+"\n", id, esc(title), id, esc(description))
	for i := int64(0); i <= 4; i++ {
		v := i * million / 4
		fmt.Fprintf(b, `<path class="grid" d="M%sL%s"/><path class="grid" d="M%sL%s"/>`, at(v, 0), at(v, million), at(0, v), at(million, v))
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">%d</text>`, plotX(v), plotTop+plotSide+190, v/10_000)
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%d</text>`+"\n", plotLeft-80, plotY(v)+40, v/10_000)
	}
	fmt.Fprintf(b, `<text class="axis" x="%d" y="%d" text-anchor="middle">%s</text>`, plotLeft+plotSide/2, plotTop+plotSide+460, esc(x))
	fmt.Fprintf(b, `<text class="axis" transform="translate(150 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", plotTop+plotSide/2, esc(y))
	fmt.Fprintf(b, `<path class="chance" d="M%sL%s"/>`+"\n", at(0, 0), at(million, million))
	return b
}

func points(curve [][2]int64) string {
	list := make([]string, len(curve))
	for i, p := range curve {
		list[i] = at(p[0], p[1])
	}
	return strings.Join(list, " ")
}

// rocPlot draws a ROC curve and the point at which the model is used.
func rocPlot(id, what string, curve [][2]int64, auc int64, used operating) template.HTML {
	if len(curve) == 0 {
		return ""
	}
	description := fmt.Sprintf("Curve of detected rows against false alarms. The area under it is %s. At most 1%% false alarms allow %s detected, at most 5%% %s.",
		fraction(auc), percent(atMost(curve, 10_000)), percent(atMost(curve, 50_000)))
	if used.known {
		description += fmt.Sprintf(" As used: %s detected at %s false alarms.", percent(used.point[1]), percent(used.point[0]))
	}
	b := frame(id, "ROC curve of the "+what, description, "false alarms, %", "detected, %")
	fmt.Fprintf(b, `<path class="under" d="M%s %s %sZ"/>`+"\n", at(0, 0), points(curve), at(million, 0))
	fmt.Fprintf(b, `<polyline class="curve" points="%s"/>`+"\n", points(curve))
	if used.known {
		fmt.Fprintf(b, `<circle class="used" cx="%d" cy="%d" r="65"/>`+"\n", plotX(used.point[0]), plotY(used.point[1]))
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// calibrationPlot draws how often answers of each stated probability are
// right, and below, how many rows there are of each.
func calibrationPlot(id, what string, table []trainer.Reliability, ece int64) template.HTML {
	if len(table) == 0 {
		return ""
	}
	var most, rows int64
	curve := make([][2]int64, len(table))
	for i, r := range table {
		most, rows = max(most, r.Rows), rows+r.Rows
		curve[i] = [2]int64{r.ConfidencePPM, r.AccuracyPPM}
	}
	description := fmt.Sprintf("Share of right answers against the probability stated, in %d ranges with %s rows in all. The nearer to the diagonal, the better; the mean distance is %s.",
		len(table), count(rows), percent(ece))
	b := frame(id, "Calibration of the "+what, description, "probability stated, %", "right, %")
	const ranges = 15 // of trainer's reliability tables
	for _, r := range table {
		i := min(r.ConfidencePPM*ranges/million, ranges-1)
		left, right := plotX(i*million/ranges), plotX((i+1)*million/ranges)
		height := max(20, (r.Rows*(plotSide/4)+most/2)/max(most, 1))
		fmt.Fprintf(b, `<rect class="rows" x="%d" y="%d" width="%d" height="%d"/>`, left+15, plotTop+plotSide-height, right-left-30, height)
	}
	fmt.Fprintf(b, "\n"+`<polyline class="curve thin" points="%s"/>`, points(curve))
	for i, p := range curve { // the more rows, the larger
		fmt.Fprintf(b, `<circle class="dot" cx="%d" cy="%d" r="%d"/>`, plotX(p[0]), plotY(p[1]), 25+root(table[i].Rows*1600/max(most, 1)))
	}
	b.WriteString("\n</svg>")
	return template.HTML(b.String())
}

// root returns the square root of n, rounded down.
func root(n int64) int64 {
	r := int64(0)
	for (r+1)*(r+1) <= n {
		r++
	}
	return r
}

// bar draws a share of the largest value beside a number.
func bar(value, largest int64) template.HTML {
	width := int64(0)
	if largest > 0 {
		width = max(1, (value*100+largest/2)/largest)
	}
	return template.HTML(`<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect width="` +
		strconv.FormatInt(width, 10) + `" height="8"/></svg>`)
}
