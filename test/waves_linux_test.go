package test

import "testing"

// A wave of clients that comes and goes gives its memory back: after ten waves there is
// no more than after the first.
func TestMemory_Waves(t *testing.T) {
	const connections, waves = "15000", 10
	h := startHalley(t, halleyOptions{})
	var first, last int
	for wave := range waves {
		floodCommand(t, h, "--connections", connections, "--uids", "1-15000", "--hold", "100ms").wants(t, 0, connections+" streams, 0 failed")
		eventually(t, "all are gone", func() bool { return h.metric("connections") == 0 })
		if last = residentKiB(t, h.cmd.Process.Pid); wave == 0 {
			first = last
		}
	}
	t.Logf("%d KiB after the first wave, %d after the last", first, last)
	// What is garbage when the last client leaves goes with time, and with what is asked meanwhile.
	eventually(t, "no more than a tenth above the first wave", func() bool {
		h.metric("connections")
		last = residentKiB(t, h.cmd.Process.Pid)
		return last <= first+first/10
	})
}
