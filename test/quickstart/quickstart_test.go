package quickstart

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTheFirstRunAnswersAndTheSecondReusesItsData(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first := finish(t, dir)
	if first.Rows != rows || first.Written != rows || first.Reused {
		t.Errorf("first run: %+v", first)
	}
	if first.Recall < 0.99 {
		t.Errorf("recall@10 is %v, want at least 0.99", first.Recall)
	}
	t.Logf("first run %.1f s, recall@10 %.4f, p50 %.2f ms, p99 %.2f ms", first.Seconds.Total, first.Recall, first.P50, first.P99)
	for word, want := range map[string]string{"king": "queen", "paris": "france", "monday": "tuesday", "guitar": "bass", "three": "four"} {
		var got []string
		for _, n := range first.Neighbours[word] {
			got = append(got, n.Word)
		}
		if len(got) != 8 || !slices.Contains(got, want) || slices.Contains(got, word) {
			t.Errorf("neighbours of %s: %v, want 8, %s among them", word, got, want)
		}
	}
	second := finish(t, dir)
	if second.Rows != rows || second.Written != 0 || !second.Reused {
		t.Errorf("second run: %+v", second)
	}
}

func TestItServesUntilCtrlCAndTellsWhatToTry(t *testing.T) {
	p := begin(t, filepath.Join(t.TempDir(), "data"))
	p.until("the invitation", func() bool { return strings.Contains(p.stdout.String(), "Ctrl-C stops") })
	for _, want := range []string{"recall@10", "grpcurl -plaintext", "ghz --insecure", "search words --id", "three", "queen"} {
		if !strings.Contains(p.stdout.String(), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	checkWords(t, dial(t, nodeAddr(t, p.dir)), p)
	if strings.Contains(p.stdout.String()+p.stderr.String(), "\x1b") {
		t.Error("there are escape sequences in a pipe")
	}
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(5 * time.Second); code != 0 {
		t.Fatalf("exit code %d\n%s", code, p.output())
	}
	p.nothingLeft()
}
