package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table prints findings for humans, and what mends them.
func Table(w io.Writer, f Facts, n int, findings []Finding) error {
	fmt.Fprintf(w, "What %d connections need, Linux %s, %s CPUs, %s of memory\n\n", n, f.Kernel, f.CPUs, bytes(f.MemTotal.first()))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tnow\tneeded\tverdict")
	count := map[Verdict]int{}
	for _, finding := range findings {
		count[finding.Verdict]++
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", finding.Name, finding.Now, finding.Need, finding.Verdict, finding.Why)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if count[Unknown] > 0 {
		fmt.Fprintf(w, "%d could not be read: in a container, run halley doctor on the host too.\n", count[Unknown])
	}
	low := Low(findings)
	if len(low) == 0 {
		_, err := fmt.Fprintf(w, "Nothing is too low for %d connections.\n", n)
		return err
	}
	fmt.Fprintln(w, "What mends it:")
	sysctls := false
	for _, finding := range low {
		sysctls = sysctls || finding.Set != ""
		mend := finding.Mend
		if finding.Set == "" {
			mend = finding.Name + ": " + mend
		}
		fmt.Fprintf(w, "  %s\n", mend)
	}
	if sysctls {
		fmt.Fprintf(w, "To keep it: halley doctor --connections %d --sysctl prints a file for /etc/sysctl.d, --systemd a unit.\n", n)
	}
	return nil
}

// JSON prints findings for scripts.
func JSON(w io.Writer, f Facts, n int, findings []Finding) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Connections int       `json:"connections"`
		Kernel      string    `json:"kernel"`
		Enough      bool      `json:"enough"`
		Findings    []Finding `json:"findings"`
	}{n, f.Kernel, len(Low(findings)) == 0, findings})
}

// Sysctl prints a file for /etc/sysctl.d. It has every value that is needed,
// also those that are enough now, so that what it sets is still there when it is
// written again.
func Sysctl(w io.Writer, n int, findings []Finding) error {
	var b strings.Builder
	fmt.Fprintf(&b, `# What %d connections of Halley need, by: halley doctor --connections %[1]d --sysctl
# No value is lower than what this machine had. Save it as
# /etc/sysctl.d/90-halley.conf and run: sysctl -p /etc/sysctl.d/90-halley.conf
`, n)
	for _, f := range findings {
		if f.Set == "" {
			continue
		}
		fmt.Fprintf(&b, "\n# %s\n", f.Why)
		switch {
		case f.Verdict == Unknown:
			fmt.Fprintf(&b, "# The present value is not known (%s): do not set it lower.\n# %s = %s\n", f.Now, f.Name, f.Set)
		case f.Verdict == Note:
			fmt.Fprintf(&b, "# %s = %s\n", f.Name, f.Set)
		case strings.HasPrefix(f.Name, "net.netfilter."):
			// The key is there only once the module is: a minus ignores that.
			fmt.Fprintf(&b, "-%s = %s\n", f.Name, f.Set)
		default:
			fmt.Fprintf(&b, "%s = %s\n", f.Name, f.Set)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
