package expr

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Times are written ISO "2026-01-02T15:04:05Z" and intervals INTERVAL "P3DT4H", as in
// Milvus; both are microseconds inside.

func isTemporalWord(w string) bool {
	return strings.EqualFold(w, "iso") || strings.EqualFold(w, "interval")
}

// temporal parses the text after ISO or INTERVAL.
func (p *parser) temporal(word *node) (*node, error) {
	n := &node{kind: nConst, pos: word.pos}
	var bad string
	if strings.EqualFold(word.name, "iso") {
		n.val, bad = parseTime(p.tok.str)
	} else {
		n.val, bad = parseSpan(p.tok.str)
	}
	if bad != "" {
		return nil, p.fail(p.tok.pos, "%s", bad)
	}
	return n, p.advance()
}

// parseTime reads a time; one without an offset is UTC, as that of a Milvus
// collection without a time zone.
func parseTime(s string) (value, string) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", time.DateTime} {
		if t, err := time.Parse(layout, s); err == nil {
			return value{k: kTime, i: t.UnixMicro()}, ""
		}
	}
	return value{}, "a time is written 2026-01-02T15:04:05Z or with an offset such as +01:00, not " + strconv.Quote(clip(s))
}

// spanUnits are the units of an ISO 8601 duration in microseconds.
var spanUnits = [...]struct {
	unit   byte
	time   bool // stands after the T
	micros float64
}{{'W', false, 7 * 86400e6}, {'D', false, 86400e6}, {'H', true, 3600e6}, {'M', true, 60e6}, {'S', true, 1e6}}

// parseSpan reads an ISO 8601 duration of weeks, days, hours, minutes and seconds.
func parseSpan(text string) (value, string) {
	bad := "an interval is written P3D, PT4H30M or P1DT0.5S, not " + strconv.Quote(clip(text))
	s, negative := strings.CutPrefix(text, "-")
	s, ok := strings.CutPrefix(s, "P")
	if !ok || s == "" {
		return value{}, bad
	}
	total, inTime := 0.0, false
	for next := 0; s != ""; {
		if s[0] == 'T' && !inTime && len(s) > 1 {
			inTime, s = true, s[1:]
		}
		end := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if end < 1 {
			return value{}, bad
		}
		x, err := strconv.ParseFloat(s[:end], 64)
		if !inTime && (s[end] == 'Y' || s[end] == 'M') {
			return value{}, "years and months have no fixed length, write the interval in days"
		}
		for next < len(spanUnits) && (spanUnits[next].unit != s[end] || spanUnits[next].time != inTime) {
			next++
		}
		if err != nil || next == len(spanUnits) {
			return value{}, bad
		}
		total += x * spanUnits[next].micros
		next, s = next+1, s[end+1:]
	}
	if total >= math.MaxInt64 {
		return value{}, "the interval is too long"
	}
	if negative {
		total = -total
	}
	return value{k: kSpan, i: int64(math.Round(total))}, ""
}

func formatTemporal(v value) string {
	if v.k == kTime {
		return `ISO "` + time.UnixMicro(v.i).UTC().Format(time.RFC3339Nano) + `"`
	}
	sign, micros := "", uint64(v.i)
	if v.i < 0 {
		sign, micros = "-", -micros
	}
	seconds := strconv.FormatUint(micros/1e6, 10)
	if f := micros % 1e6; f != 0 {
		seconds += "." + strings.TrimRight(strconv.FormatUint(1e6+f, 10)[1:], "0")
	}
	return `INTERVAL "` + sign + "PT" + seconds + `S"`
}

// temporalArithmetic binds + and - of times and intervals.
func (b *binder) temporalArithmetic(n *node) error {
	l, r, op := n.kids[0].typ, n.kids[1].typ, arithOp(n.op)
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
	v, bad := parseTime(r.val.s)
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
		v, bad := parseTime(e.s)
		if bad != "" {
			return b.fail(r, "element %d of the list: %s", i, bad)
		}
		r.val.list[i] = v
	}
	return nil
}
