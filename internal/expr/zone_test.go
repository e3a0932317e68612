package expr

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/schema"
)

// TestTimesWithoutAnOffsetAreOfTheZone of the collection; those with one are not.
func TestTimesWithoutAnOffsetAreOfTheZone(t *testing.T) {
	s := &schema.Schema{Version: 1, Fields: []schema.Field{{ID: 100, Name: "at", Type: schema.Timestamptz}}}
	const filter = `at == ISO "2025-01-01T00:00:00"`
	for _, c := range []struct {
		zone, filter string
		vars         map[string]any
		want         string // what is compared with; "" = refused
	}{
		{"", filter, nil, "2025-01-01T00:00:00Z"},
		{"UTC", filter, nil, "2025-01-01T00:00:00Z"},
		{"Asia/Shanghai", filter, nil, "2024-12-31T16:00:00Z"},
		{"America/New_York", filter, nil, "2025-01-01T05:00:00Z"},
		{"America/New_York", `at == ISO "2025-07-01 00:00:00.5"`, nil, "2025-07-01T04:00:00.5Z"}, // in summer
		{"Asia/Shanghai", `at == ISO "2025-01-01T00:00:00Z"`, nil, "2025-01-01T00:00:00Z"},
		{"Asia/Shanghai", `at == ISO "2025-01-01 00:00:00-05:00"`, nil, "2025-01-01T05:00:00Z"},
		{"Asia/Shanghai", `at == {t}`, map[string]any{"t": "2025-01-01T00:00:00"}, "2024-12-31T16:00:00Z"},
		{"Asia/Shanghai", `at in {t}`, map[string]any{"t": []string{"2025-01-01T00:00:00"}}, "2024-12-31T16:00:00Z"},
		{"Asia/Shanghai", `at > ISO "2025-01-01T00:00:00" + INTERVAL "PT1H" - INTERVAL "PT1H"`, nil, "2024-12-31T16:00:00Z"},
		{"Mars/Phobos", filter, nil, ""},
		{"Mars/Phobos", `at == ISO "2025-01-01T00:00:00Z"`, nil, "2025-01-01T00:00:00Z"},
	} {
		p, err := Compile(c.filter, s, c.vars, c.zone)
		if (err != nil) != (c.want == "") {
			t.Errorf("%s in %q: %v", c.filter, c.zone, err)
			continue
		}
		if err != nil {
			continue
		}
		want, err := time.Parse(time.RFC3339Nano, c.want)
		if err != nil {
			t.Fatal(err)
		}
		exact, err := Compile(p.String(), s, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := exact.String(); got != p.String() {
			t.Errorf("%s, printed and read in UTC, is %s", p, got)
		}
		if lit := formatTemporal(value{k: kTime, i: want.UnixMicro()}); !strings.Contains(p.String(), lit) {
			t.Errorf("%s in %q is %s, want %s", c.filter, c.zone, p, lit)
		}
	}
}

// TestMonthsReachTheEndsOfTime: a month more or less than a time has a result whenever 64 bits of
// microseconds hold it.
func TestMonthsReachTheEndsOfTime(t *testing.T) {
	for _, c := range []struct {
		micros int64
		months int
		fits   bool
	}{
		{math.MaxInt64, -1, true}, {math.MaxInt64, 0, true}, {math.MaxInt64, 1, false}, {math.MaxInt64, maxMonths, false}, {math.MaxInt64, -maxMonths, false},
		{math.MinInt64, 1, true}, {math.MinInt64, 0, true}, {math.MinInt64, -1, false}, {math.MinInt64, -maxMonths, false}, {math.MinInt64, maxMonths, false},
		{0, 290_000 * 12, true}, {0, -290_000 * 12, true}, {0, 300_000 * 12, false},
	} {
		to, ok := addMonths(c.micros, c.months)
		if ok != c.fits || ok && (to > c.micros) != (c.months > 0) && c.months != 0 {
			t.Errorf("%d months from %d are %d, %v, want %v", c.months, c.micros, to, ok, c.fits)
		}
	}
}
