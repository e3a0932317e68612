package main

import (
	"strings"
	"testing"
)

// The commands about topics are for a queue that nodes share, and do nothing unasked.
func TestTopicsAreComparedWhereNodesShareAQueue(t *testing.T) {
	embedded := []string{"--data-dir", t.TempDir()}
	for _, c := range []struct {
		args []string
		says string
	}{
		{append([]string{"queue", "check"}, embedded...), "queue.kind is embedded"},
		{append([]string{"queue", "begin-anew", "t", "--yes"}, embedded...), "queue.kind is embedded"},
		{[]string{"queue", "begin-anew", "t"}, "say --yes"},
		{[]string{"queue", "begin-anew"}, "expected"},
	} {
		if code, _, err := command(t, nil, c.args...); code != exitUsage || !strings.Contains(err, c.says) {
			t.Errorf("%q: exit %d, %q, want %q", c.args, code, err, c.says)
		}
	}
}
