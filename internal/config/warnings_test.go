package config

import (
	"strings"
	"testing"
)

func TestMoreMemoryThanThereIsIsWarnedOf(t *testing.T) {
	for _, x := range []struct {
		limit, process Bytes
		want           []string // how each warning begins
	}{
		{6 << 30, 7 << 30, nil},
		{8 << 30, 8 << 30, nil}, // all of it
		{9 << 30, 7 << 30, []string{"memory.limit: 9GiB is more than the 8GiB"}},
		{6 << 30, 9 << 30, []string{"memory.go_limit: 9GiB is more than the 8GiB"}},
		{9 << 30, 10 << 30, []string{"memory.limit: 9GiB", "memory.go_limit: 10GiB"}},
		{6 << 30, 5 << 30, []string{"memory.limit: 6GiB is more than memory.go_limit, 5GiB"}},
	} {
		c := Config{Memory: Memory{Limit: x.limit, GoLimit: x.process}}
		got := c.warningsFor(8 << 30)
		if len(got) != len(x.want) {
			t.Errorf("limit %s, go_limit %s of 8GiB: %q, want %q", x.limit, x.process, got, x.want)
			continue
		}
		for i, w := range x.want {
			if !strings.HasPrefix(got[i], w) {
				t.Errorf("limit %s, go_limit %s of 8GiB: %q, want %q", x.limit, x.process, got[i], w)
			}
		}
	}
	c, _ := load(t, Sources{Set: []string{"memory.limit=1024TiB"}})
	if len(c.Warnings()) == 0 {
		t.Error("1024TiB on this machine is not warned of")
	}
	if d := byDefault(); len(d.Warnings()) != 0 {
		t.Errorf("the defaults are warned of: %q", d.Warnings())
	}
}
