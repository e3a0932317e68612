package main

import (
	"context"
	"fmt"
	"math/big"
	"math/rand/v2"
	"time"
	_ "time/tzdata" // zones are the same wherever this runs

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// epochs are what times are around: a leap day, and an hour that clocks in Europe do not have.
var epochs = []time.Time{time.Date(2024, 2, 28, 12, 0, 0, 0, time.UTC), time.Date(2024, 3, 31, 1, 0, 0, 0, time.UTC)}

// zones are what times without an offset may be of; "" = UTC.
var zones = []string{"", "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati", "America/St_Johns"}

// rezone has the times in filters that say no offset be of another zone.
func (l *lane) rezone(ctx context.Context, o *op) error {
	m := l.model
	zone := zones[rand.New(rand.NewPCG(o.Seed, 0x20e)).IntN(len(zones))]
	_, err := l.rig.catalog.AlterCollection(ctx, &qnpb.AlterCollectionRequest{Collection: m.spec.called(o.Seed), Properties: map[string]string{"timezone": zone}})
	m.spec.zone = zone
	clear(m.pages) // their filters are others now
	return err
}

func randomTime(r *rand.Rand) time.Time {
	return epochs[r.IntN(len(epochs))].Add(time.Duration(r.IntN(41)-20) * time.Hour)
}

// moment draws a moment, and its text. Now and then it is a little after a whole hour.
func (d *draft) moment(ends bool) (text string, micros int64) {
	at, fraction := randomTime(d.r), ""
	if ends && d.r.IntN(3) == 0 {
		at = []time.Time{time.Date(1, 1, 3, 0, 0, 0, 0, time.UTC), time.Unix(0, 0), time.Date(1677, 9, 21, 0, 12, 43, 0, time.UTC),
			time.Date(2262, 4, 11, 23, 47, 17, 0, time.UTC), time.Date(9999, 12, 29, 23, 59, 59, 0, time.UTC)}[d.r.IntN(5)]
	}
	if d.r.IntN(4) == 0 {
		fraction = d.one(".000000", ".000001", ".5", ".999999")
	}
	more, err := time.ParseDuration("0" + fraction + "s")
	if err != nil {
		panic(err)
	}
	micros = at.Add(more).UnixMicro()
	between := d.one("T", "T", " ")
	if home, err := time.LoadLocation(d.s.zone); err == nil && d.r.IntN(2) == 0 {
		clock := at.In(home)
		alone := time.Date(clock.Year(), clock.Month(), clock.Day(), clock.Hour(), clock.Minute(), clock.Second(), 0, home)
		if alone.Equal(at) { // else the clock shows it twice
			return clock.Format("2006-01-02"+between+"15:04:05") + fraction, micros
		}
	}
	offset := (d.r.IntN(5) - 2) * 5400
	if d.r.IntN(2) == 0 {
		offset = 0
	}
	there, zone := at.In(time.FixedZone("", offset)), "Z07:00"
	if between == " " && offset%3600 == 0 && d.r.IntN(2) == 0 {
		zone = "Z07"
	}
	return there.Format("2006-01-02"+between+"15:04:05") + fraction + there.Format(zone), micros
}

// span is an interval: months and microseconds.
type span struct {
	text          string
	months, micro int64
}

func (d *draft) span() span {
	n := d.r.Int64N(30)
	hour := time.Hour.Microseconds()
	switch d.r.IntN(6) {
	case 0:
		return span{fmt.Sprintf("P%dD", n), 0, n * 24 * hour}
	case 1:
		return span{fmt.Sprintf("P%dM%dDT%dH", n%4, n, n), n % 4, n*24*hour + n*hour}
	case 2:
		return span{fmt.Sprintf("P1YT%d.5S", n), 12, n*1_000_000 + 500_000}
	case 3:
		return span{fmt.Sprintf("P%dW", n%3), 0, n % 3 * 7 * 24 * hour}
	}
	return span{fmt.Sprintf("PT%dH", n), 0, n * hour}
}

// moved is a time and some intervals; nil = 64 bits do not hold it.
func moved(v any, s span, sign int64) any {
	at, ok := v.(int64)
	if !ok {
		return nil
	}
	to := new(big.Int).SetInt64(at)
	if s.months != 0 {
		t := time.UnixMicro(at).UTC()
		of := t.AddDate(0, int(sign*s.months), 0)
		to.SetInt64(of.Unix())
		to.Add(to.Mul(to, big.NewInt(1_000_000)), big.NewInt(int64(of.Nanosecond()/1000)))
	}
	if to.Add(to, big.NewInt(sign*s.micro)); !to.IsInt64() {
		return nil
	}
	return to.Int64()
}

func (d *draft) onTime(f *field, get func(*row) any) condition {
	name := f.name
	at, want := d.moment(f.ends)
	op := d.one(operators...)
	iso := d.one("ISO ", "iso ")
	switch d.r.IntN(8) {
	case 0, 1:
		s, sign := d.span(), pick(d.r.IntN(2) == 0, 1, int64(-1))
		return given(fmt.Sprintf("%s %s INTERVAL %q %s %s%q", name, pick(sign > 0, "+", "-"), s.text, op, iso, at),
			func(x *row) any { return moved(get(x), s, sign) }, func(v any) bool { return holds(op, order(v, want)) })
	case 2:
		s, sign := d.span(), pick(d.r.IntN(2) == 0, 1, int64(-1))
		limit := moved(randomTime(d.r).UnixMicro(), span{}, 1)
		at := time.UnixMicro(limit.(int64)).UTC().Format(time.RFC3339)
		limit = moved(limit, s, sign)
		return given(fmt.Sprintf("%s %s ISO %q %s INTERVAL %q", name, op, at, pick(sign > 0, "+", "-"), s.text), get, func(v any) bool { return holds(op, order(v, limit)) })
	case 3:
		until, last := d.moment(f.ends)
		return given(fmt.Sprintf("%s%q <= %s and %s < ISO %q", iso, at, name, name, until), get, func(v any) bool { return want <= v.(int64) && v.(int64) < last })
	case 4:
		other, also := d.moment(f.ends)
		return given(fmt.Sprintf("%s in [ISO %q, ISO %q]", name, at, other), get, func(v any) bool { return v == want || v == also })
	case 5:
		s := d.span()
		for s.months != 0 { // which have no length
			s = d.span()
		}
		return given(fmt.Sprintf("%s - ISO %q %s INTERVAL %q", name, at, op, s.text), func(x *row) any { return calculate(get(x), "-", want) },
			func(v any) bool { return holds(op, order(v, s.micro)) })
	case 6:
		return given(fmt.Sprintf("%s %s %s", name, op, d.literal(at)), get, func(v any) bool { return holds(op, order(v, want)) })
	}
	return given(fmt.Sprintf("%s %s %s%q", name, op, iso, at), get, func(v any) bool { return holds(op, order(v, want)) })
}
