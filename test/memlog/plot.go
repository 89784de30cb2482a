package memlog

import (
	"errors"
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// The lines of a picture; their colours differ for the colour-blind too (Okabe and Ito).
var (
	residentColor = color.RGBA{R: 0, G: 114, B: 178, A: 255}
	socketColor   = color.RGBA{R: 0, G: 158, B: 115, A: 255}
	openColor     = color.RGBA{R: 213, G: 94, B: 0, A: 255}
)

const (
	plotWidth  = 9 * vg.Inch
	plotHeight = 5 * vg.Inch
	kbPerMB    = 1000.0 / 1.024 // MB of a million bytes, as the axis says
)

// Plot draws memory over time, and open files on a second axis, into a file whose
// name's ending says the format: .png, .svg, .pdf.
func Plot(samples []Sample, title, file string) error {
	if len(samples) < 2 {
		return errors.New("plot: at least two samples are needed")
	}
	var resident, sockets, open plotter.XYs
	start := samples[0].Time
	mostMB, mostOpen := 1.0, 1.0
	for _, s := range samples {
		minutes := s.Time.Sub(start).Minutes()
		resident = append(resident, plotter.XY{X: minutes, Y: float64(s.ResidentKB) / kbPerMB})
		sockets = append(sockets, plotter.XY{X: minutes, Y: float64(s.SocketKB) / kbPerMB})
		open = append(open, plotter.XY{X: minutes, Y: float64(s.Open)})
		mostMB = max(mostMB, resident[len(resident)-1].Y, sockets[len(sockets)-1].Y)
		mostOpen = max(mostOpen, float64(s.Open))
	}
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = vg.Points(8)
	p.X.Label.Text = "minutes since " + start.UTC().Format("2006-01-02 15:04:05 UTC")
	p.Y.Label.Text = "memory (MB)"
	p.X.Min, p.X.Max = 0, max(resident[len(resident)-1].X, 1.0/60)
	p.Y.Min, p.Y.Max = 0, roundUp(mostMB)
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.Padding = vg.Points(3)
	p.Add(plotter.NewGrid())
	axis := rightAxis{max: roundUp(mostOpen), label: "open files", scale: p.Y.Max / roundUp(mostOpen)}
	for i := range open {
		open[i].Y *= axis.scale // onto the left axis, whose ticks are memory's
	}
	for _, l := range []struct {
		name   string
		points plotter.XYs
		color  color.Color
		dashes []vg.Length
	}{
		{"resident", resident, residentColor, nil},
		{"kernel, TCP buffers", sockets, socketColor, []vg.Length{vg.Points(6), vg.Points(2)}},
		{"open files (right)", open, openColor, []vg.Length{vg.Points(2), vg.Points(2)}},
	} {
		line, err := plotter.NewLine(l.points)
		if err != nil {
			return fmt.Errorf("plot %s: %w", l.name, err)
		}
		line.Color, line.Dashes, line.Width = l.color, l.dashes, vg.Points(1.5)
		p.Add(line)
		p.Legend.Add(l.name, line)
	}
	p.Add(axis)
	return p.Save(plotWidth, plotHeight, file)
}

// roundUp is the next of 1, 2, 2.5, 5 times a power of ten with some room.
func roundUp(v float64) float64 {
	v *= 1.05
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if v <= m*unit {
			return m * unit
		}
	}
	return 10 * unit
}

// rightAxis is a second axis of Y, which gonum/plot does not have: a line with
// ticks and labels at the right edge.
type rightAxis struct {
	max   float64
	scale float64 // to the left axis
	label string
}

func (a rightAxis) style() text.Style {
	return text.Style{Color: openColor, Font: font.From(plot.DefaultFont, 10), YAlign: draw.YCenter, Handler: plot.DefaultTextHandler}
}

// Plot draws the axis; it is plot.Plotter.
func (a rightAxis) Plot(c draw.Canvas, p *plot.Plot) {
	_, toY := p.Transforms(&c)
	line := draw.LineStyle{Color: openColor, Width: vg.Points(0.5)}
	c.StrokeLine2(line, c.Max.X, c.Min.Y, c.Max.X, c.Max.Y)
	for _, tick := range (plot.DefaultTicks{}).Ticks(0, a.max) {
		y := toY(tick.Value * a.scale)
		if tick.IsMinor() || y > c.Max.Y+vg.Points(1) {
			continue
		}
		c.StrokeLine2(line, c.Max.X, y, c.Max.X+vg.Points(5), y)
		c.FillText(a.style(), vg.Point{X: c.Max.X + vg.Points(8), Y: y}, fmt.Sprintf("%.0f", tick.Value))
	}
	label := a.style()
	label.Rotation, label.XAlign = -math.Pi/2, draw.XCenter
	c.FillText(label, vg.Point{X: c.Max.X + a.width() - vg.Points(4), Y: c.Center().Y}, a.label)
}

func (a rightAxis) width() vg.Length {
	return a.style().Width(fmt.Sprintf("%.0f", a.max)) + vg.Points(28)
}

// GlyphBoxes keeps room at the right; it is plot.GlyphBoxer.
func (a rightAxis) GlyphBoxes(*plot.Plot) []plot.GlyphBox {
	return []plot.GlyphBox{{X: 1, Y: 0.5, Rectangle: vg.Rectangle{Max: vg.Point{X: a.width()}}}}
}
