package mq

import "time"

// A hybrid timestamp is physical milliseconds since 1970 << 18 | logical. The
// form is Milvus', so that its clients can read it.
const (
	logicalBits = 18
	logicalMask = 1<<logicalBits - 1
)

// Compose returns the timestamp for ms milliseconds since 1970 and a logical
// part, of which the lower 18 bits count. A negative ms counts as 0.
func Compose(ms int64, logical uint32) uint64 {
	return uint64(max(ms, 0))<<logicalBits | uint64(logical)&logicalMask
}

// Physical returns the milliseconds since 1970 in ts.
func Physical(ts uint64) int64 { return int64(ts >> logicalBits) }

// FromTime returns the first timestamp of t's millisecond.
func FromTime(t time.Time) uint64 { return Compose(t.UnixMilli(), 0) }

// Time returns the wall time of ts, to the millisecond.
func Time(ts uint64) time.Time { return time.UnixMilli(Physical(ts)) }
