//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// report is what a run has found.
type report struct {
	Machine string
	Rounds  int
	Plan    plan
	Results []*result
}

// base is whose figures the ratios are of: the first server that was measured.
func (r *report) base() *result {
	for _, s := range r.Results {
		if s.Absent == "" && len(s.Rounds) > 0 {
			return s
		}
	}
	return nil
}

// present are the servers that have a column.
func (r *report) present() []*result {
	var list []*result
	for _, s := range r.Results {
		if len(s.Rounds) > 0 {
			list = append(list, s)
		}
	}
	return list
}

// rows returns the table: a head, then a line for each figure that any server has.
// cell renders one figure of one server.
func (r *report) rows(cell func(f figure, s *result) string) [][]string {
	head := []string{"", "unit"}
	for _, s := range r.present() {
		head = append(head, s.Name)
	}
	rows := [][]string{head}
	for _, f := range catalogue(r.Plan) {
		row, any := []string{f.title, f.unit}, false
		for _, s := range r.present() {
			text := cell(f, s)
			any = any || text != missing
			row = append(row, text)
		}
		if any {
			rows = append(rows, row)
		}
	}
	return rows
}

const missing = "–"

// medians renders the median, and its ratio to the base's.
func (r *report) medians(f figure, s *result) string {
	v, _, _, ok := s.of(f.key)
	if !ok {
		return missing
	}
	text := f.format(v)
	if base, _, _, ok := r.base().of(f.key); ok && f.ratio && s != r.base() && base > 0 {
		text += fmt.Sprintf(" ×%.2f", v/base)
	}
	return text
}

// spread renders the least and the most of the rounds.
func spread(f figure, s *result) string {
	_, low, high, ok := s.of(f.key)
	if !ok {
		return missing
	}
	return f.format(low) + "–" + f.format(high)
}

// text writes the table for a terminal.
func (r *report) text(w io.Writer) {
	rows := r.rows(r.medians)
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i < 2 {
				fmt.Fprint(w, cell, pad, "  ")
			} else {
				fmt.Fprint(w, pad, cell, "  ")
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "\nMedians of %d rounds; × is the ratio to %s.\n", r.Rounds, r.base().Name)
	for _, line := range r.remarks() {
		fmt.Fprintln(w, line)
	}
}

// markdown writes both tables, for docs/benchmarks.md.
func (r *report) markdown(w io.Writer) {
	fmt.Fprintf(w, "Measured on: %s.\nMedians of %d rounds; × is the ratio to %s.\n\n", r.Machine, r.Rounds, r.base().Name)
	writeMarkdown(w, r.rows(r.medians))
	if notes := r.remarks(); len(notes) > 0 {
		fmt.Fprintf(w, "\n- %s\n", strings.Join(notes, "\n- "))
	}
	fmt.Fprintf(w, "\nThe lowest and the highest of the rounds:\n\n")
	writeMarkdown(w, r.rows(spread))
}

func writeMarkdown(w io.Writer, rows [][]string) {
	for i, row := range rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(w, "| --- | --- |%s\n", strings.Repeat(" ---: |", len(row)-2))
		}
	}
}

// remarks say who is who, who was left out and which figures could not be had.
func (r *report) remarks() []string {
	var lines []string
	for _, s := range r.Results {
		if s.Absent == "" {
			lines = append(lines, fmt.Sprintf("%s: %s", s.Name, s.Note))
		} else {
			lines = append(lines, fmt.Sprintf("%s was left out: %s", s.Name, s.Absent))
		}
		for _, note := range s.Notes {
			lines = append(lines, fmt.Sprintf("%s: %s", s.Name, note))
		}
	}
	return lines
}
