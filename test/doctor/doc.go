// Package doctor says what many connections need on a Linux machine and what of
// it the machine has.
//
// Read collects Facts from /proc and /sys, Judge compares them with a number of
// connections and gives Findings, and Table, JSON, Sysctl and Unit print. Nothing
// is changed. docs/tuning.md has the formulas and where they come from.
package doctor
