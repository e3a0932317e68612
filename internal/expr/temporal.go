package expr

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Times are written ISO "2026-01-02T15:04:05Z" and intervals INTERVAL "P3DT4H", as in
// Milvus; both are microseconds inside. Years and months have no fixed length, so an
// interval that has some keeps them apart, and can only be added to a time.

func isTemporalWord(w string) bool {
	return strings.EqualFold(w, "iso") || strings.EqualFold(w, "interval")
}

// temporal parses the text after ISO or INTERVAL, which may be that of a variable.
func (p *parser) temporal(word *node) (*node, error) {
	text, err := p.primary()
	if err != nil {
		return nil, err
	}
	if text.val.k != kString {
		return nil, p.fail(text.pos, "%s needs a text, not %s", strings.ToUpper(word.name), text.val.k)
	}
	n := &node{kind: nConst, pos: word.pos}
	var bad string
	if strings.EqualFold(word.name, "iso") {
		n.val, bad = parseTime(text.val.s, p.zone)
	} else {
		n.val, bad = parseSpan(text.val.s)
	}
	if bad != "" {
		return nil, p.fail(text.pos, "%s", bad)
	}
	return n, nil
}

// parseTime reads a time; one without an offset is of the zone, "" = UTC, as in
// Milvus. Of two moments that a clock shows when it is put back it is either one.
func parseTime(s, zone string) (value, string) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05Z07"} {
		t, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		if _, offset := t.Zone(); offset > 14*3600 || offset < -12*3600 {
			return value{}, "an offset is between -12:00 and +14:00, not as in " + strconv.Quote(clip(s))
		}
		return timeOf(t, s)
	}
	for _, layout := range []string{"2006-01-02T15:04:05", time.DateTime} {
		t, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		in, err := time.LoadLocation(zone) // only here: it reads a file
		if err != nil {
			return value{}, "the time zone of the collection, " + strconv.Quote(clip(zone)) + ", is unknown: write the time with an offset"
		}
		t = time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), in)
		return timeOf(t, s)
	}
	return value{}, "a time is written 2026-01-02T15:04:05Z or with an offset such as +01:00, not " + strconv.Quote(clip(s))
}

// timeOf is t, which was written s, as a value.
func timeOf(t time.Time, s string) (value, string) {
	if t.Nanosecond()%1000 != 0 {
		return value{}, "times are kept in microseconds: at most six digits behind the point of the seconds, not as in " + strconv.Quote(clip(s))
	}
	if y := t.UTC().Year(); y < 0 || y > 9999 {
		return value{}, "a time is between the years 0 and 9999 of UTC, not " + strconv.Quote(clip(s))
	}
	return value{k: kTime, i: t.UnixMicro()}, ""
}

// spanUnits are the units of an ISO 8601 duration in months or microseconds.
var spanUnits = [...]struct {
	unit   byte
	time   bool // stands after the T
	months float64
	micros float64
}{
	{'Y', false, 12, 0}, {'M', false, 1, 0}, {'W', false, 0, 7 * 86400e6}, {'D', false, 0, 86400e6},
	{'H', true, 0, 3600e6}, {'M', true, 0, 60e6}, {'S', true, 0, 1e6},
}

// maxMonths bounds the months of an interval: all the time that 64 bits of microseconds hold.
const maxMonths = 600_000 * 12

// parseSpan reads an ISO 8601 duration.
func parseSpan(text string) (value, string) {
	bad := "an interval is written P3D, PT4H30M or P1DT0.5S, not " + strconv.Quote(clip(text))
	s, negative := strings.CutPrefix(text, "-")
	s, ok := strings.CutPrefix(s, "P")
	if !ok || s == "" {
		return value{}, bad
	}
	total, months, inTime := 0.0, 0.0, false
	for next := 0; s != ""; {
		if s[0] == 'T' && !inTime && len(s) > 1 {
			inTime, s = true, s[1:]
		}
		end := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if end < 1 {
			return value{}, bad
		}
		x, err := strconv.ParseFloat(s[:end], 64)
		for next < len(spanUnits) && (spanUnits[next].unit != s[end] || spanUnits[next].time != inTime) {
			next++
		}
		if err != nil || next == len(spanUnits) {
			return value{}, bad
		}
		total += x * spanUnits[next].micros
		months += x * spanUnits[next].months
		next, s = next+1, s[end+1:]
	}
	switch {
	case total >= math.MaxInt64 || months > maxMonths:
		return value{}, "the interval is too long"
	case months != math.Trunc(months):
		return value{}, "a fraction of a month has no fixed length, write it in days"
	case negative:
		total, months = -total, -months
	}
	return value{k: kSpan, i: int64(math.Round(total)), months: int32(months)}, ""
}

// addMonths adds calendar months in UTC to a time in microseconds: a day that
// the month does not have counts on into the next one, so that January 31 and a
// month is March 3, or 2. Not ok if the result does not fit.
func addMonths(micros int64, months int) (int64, bool) {
	t := time.UnixMicro(micros).UTC().AddDate(0, months, 0)
	to := t.UnixMicro() // of what does not fit it is another time
	return to, time.UnixMicro(to).Equal(t)
}

func formatTemporal(v value) string {
	if v.k == kTime {
		return `ISO "` + time.UnixMicro(v.i).UTC().Format(time.RFC3339Nano) + `"`
	}
	sign, micros, months := "", uint64(v.i), v.months
	if v.i < 0 || v.months < 0 {
		sign, micros, months = "-", -micros, -months
	}
	date := "PT"
	if months != 0 {
		date = "P" + strconv.Itoa(int(months)) + "M"
		if micros == 0 {
			return `INTERVAL "` + sign + date + `"`
		}
		date += "T"
	}
	seconds := strconv.FormatUint(micros/1e6, 10)
	if f := micros % 1e6; f != 0 {
		seconds += "." + strings.TrimRight(strconv.FormatUint(1e6+f, 10)[1:], "0")
	}
	return `INTERVAL "` + sign + date + seconds + `S"`
}

// temporalArithmetic binds + and - of times and intervals.
func (b *binder) temporalArithmetic(n *node) error {
	l, r, op := n.kids[0].typ, n.kids[1].typ, arithOp(n.op)
	for _, k := range n.kids {
		if k.val.months != 0 && l == r {
			return b.fail(k, "years and months can only be added to a time, or taken from one")
		}
	}
	switch {
	case l == kTime && r == kSpan && (op == opAdd || op == opSub), l == kSpan && r == kTime && op == opAdd:
		n.typ = kTime
	case l == kTime && r == kTime && op == opSub, l == kSpan && r == kSpan && (op == opAdd || op == opSub):
		n.typ = kSpan
	default:
		return b.fail(n, "%s %s %s has no meaning; a time takes + INTERVAL \"P3D\" and - INTERVAL \"P3D\"", b.describe(n.kids[0]), op, b.describe(n.kids[1]))
	}
	return nil
}

// readTimes reads a text that is compared with a time, as templates bring it.
func (b *binder) readTimes(l, r *node) error {
	if r.kind != nConst || r.typ != kString || l.typ != kTime {
		return nil
	}
	v, bad := parseTime(r.val.s, b.zone)
	if bad != "" {
		return b.fail(r, "%s", bad)
	}
	r.val, r.typ = v, kTime
	return nil
}

// readTimeList is readTimes for the list of in.
func (b *binder) readTimeList(l, r *node) error {
	if l.typ != kTime {
		return nil
	}
	for i, e := range r.val.list {
		if e.k != kString {
			continue
		}
		v, bad := parseTime(e.s, b.zone)
		if bad != "" {
			return b.fail(r, "element %d of the list: %s", i, bad)
		}
		r.val.list[i] = v
	}
	return nil
}
