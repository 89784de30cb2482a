//go:build linux

package main

import (
	"fmt"
	"image/color"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// picture is a bar chart: a group of bars for each server.
type picture struct {
	file  string
	title string
	label string
	scale float64 // divides the figures
	keys  []string
	names []string // of the bars in a group, in the legend
}

func pictures(p plan) []picture {
	return []picture{
		{"memory", "Memory of an idle connection", "resident bytes per connection", 1,
			[]string{"rss", "rss_more"}, []string{fmt.Sprintf("%d connections", p.Connections), fmt.Sprintf("%d", p.Connections+p.More)}},
		{"rate", fmt.Sprintf("Messages to one of %d connections", p.Connections), "thousand messages per second", 1e3,
			[]string{"flat_rate", "highest"}, []string{"flat out", "with p99 below 10 ms"}},
		{"latency", fmt.Sprintf("Latency at %.0f messages per second", p.Fixed), "µs", 1,
			[]string{"fixed_p50", "fixed_p99"}, []string{"p50", "p99"}},
		{"cpu", "Server CPU, flat out", "seconds per million messages", 1, []string{"flat_cpu"}, nil},
		{"fanout", fmt.Sprintf("One message to %d connections", p.Connections), "ms until the last has it", 1e3, []string{"fanout"}, nil},
	}
}

// plots draws all pictures into a folder: as PNG, whose text is the same everywhere.
func (r *report) plots(dir string) error {
	for _, p := range pictures(r.Plan) {
		if err := r.draw(p, filepath.Join(dir, p.file+".png")); err != nil {
			return fmt.Errorf("draw %s: %w", p.file, err)
		}
	}
	return nil
}

const (
	pictureWidth  = 18 * vg.Centimeter
	pictureHeight = 9 * vg.Centimeter
	barsWidth     = 1 * vg.Centimeter // of a group
	legendInset   = 4 * vg.Millimeter
	legendRoom    = 0.25 // above the highest bar
	tickSize      = vg.Length(9)
)

var barColors = []color.Color{color.RGBA{0x2f, 0x6d, 0xb5, 0xff}, color.RGBA{0xe0, 0x8a, 0x2c, 0xff}}

func (r *report) draw(p picture, file string) error {
	chart := plot.New()
	chart.Title.Text = p.title
	chart.Y.Label.Text = p.label
	chart.Y.Min = 0
	chart.Legend.Top, chart.Legend.XOffs = true, -legendInset
	chart.Title.Padding = legendInset / 2
	chart.X.Tick.Label.Font.Size = tickSize
	servers := r.present()
	names := make([]string, len(servers))
	width := barsWidth / vg.Length(len(p.keys))
	for k, key := range p.keys {
		values := make(plotter.Values, len(servers))
		for i, s := range servers {
			names[i] = s.Name
			if v, _, _, ok := s.of(key); ok { // a bar of no height: a figure that is missing
				values[i] = v / p.scale
			}
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return err
		}
		bars.Color, bars.LineStyle.Width = barColors[k], 0
		bars.Offset = (vg.Length(k) - vg.Length(len(p.keys)-1)/2) * width
		chart.Add(bars)
		if len(p.names) > 0 {
			chart.Legend.Add(p.names[k], bars)
		}
	}
	chart.NominalX(names...)
	chart.X.Min, chart.X.Max = -1, float64(len(names)) // room for the outer names and bars
	chart.Y.Max *= 1 + legendRoom
	return chart.Save(pictureWidth, pictureHeight, file)
}
