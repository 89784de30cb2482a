package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A number of messages ends the run when they have arrived, long before --hold.
func TestFlood_PublishCount(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	summary := filepath.Join(t.TempDir(), "summary.json")
	start := time.Now()
	command{args: []string{"flood", "--epmd", fmt.Sprintf("127.0.0.1:%d", epmd.use(t)), "--cookie-file", cookieFile(t, testCookie),
		"--url", "http://" + h.addr + "/test/{uid}", "--connections", "20", "--uids", "1-10", "--barrier", "--hold", "10m", "--json", summary,
		"--publish", h.name, "--publish-count", "2345", "--publish-rate", "5000", "--publish-after", "1s"}}.wants(t, 0)
	if took := time.Since(start); took < time.Second || took > patience {
		t.Errorf("it took %v", took)
	}
	text, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	var st struct{ Sent, Expected, Messages uint64 }
	if err := json.Unmarshal(text, &st); err != nil {
		t.Fatal(err)
	}
	if st.Sent != 2345 || st.Expected != 2*2345 || st.Messages != 2*2345 { // two connections a uid
		t.Errorf("%+v", st)
	}
}
