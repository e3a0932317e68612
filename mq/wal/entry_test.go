package wal

import (
	"bytes"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

func TestAnEntryComesBackAsItWent(t *testing.T) {
	for _, e := range []Entry{
		{Type: Insert, VChannel: "v1", Body: []byte("body"), Timestamp: 7, Term: 3},
		{Type: TimeTick, Timestamp: 1 << 60, Term: 1<<64 - 1},
		{Type: 255, VChannel: "v", Body: bytes.Repeat([]byte{0}, 1000)},
	} {
		got, err := Decode(mustEncode(t, e))
		if err != nil {
			t.Fatal(err)
		}
		if got.Type != e.Type || got.VChannel != e.VChannel || !bytes.Equal(got.Body, e.Body) ||
			got.Timestamp != e.Timestamp || got.Term != e.Term {
			t.Fatalf("%+v became %+v", e, got)
		}
	}
}

func TestEveryChangedByteIsSeen(t *testing.T) {
	m := mustEncode(t, Entry{Type: Insert, VChannel: "v1", Body: []byte("body"), Term: 3})
	for i := range m.Payload {
		bad := m
		bad.Payload = bytes.Clone(m.Payload)
		bad.Payload[i] ^= 0x80
		_, err := Decode(bad)
		want := errclass.Corrupt
		if i == 1 { // the version, which tells how to read the rest
			want = errclass.Unimplemented
		}
		wantClass(t, err, want)
	}
	m.Key = "v2"
	_, err := Decode(m)
	wantClass(t, err, errclass.Corrupt)
}

func TestAFlagOfANewerBuildIsNotGarbage(t *testing.T) {
	m := mustEncode(t, insert("x"))
	m.Payload[3] = 1
	sum := checksum(m.Key, m.Payload)
	m.Payload[12], m.Payload[13], m.Payload[14], m.Payload[15] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
	_, err := Decode(m)
	wantClass(t, err, errclass.Unimplemented)
}

func TestEncodeIsBounded(t *testing.T) {
	_, err := Encode(Entry{Type: Insert, Body: make([]byte, MaxBodyBytes+1)})
	wantClass(t, err, errclass.Invalid)
	_, err = Encode(Entry{Type: Insert, VChannel: string(make([]byte, mq.MaxKeyBytes+1))})
	wantClass(t, err, errclass.Invalid)
	_, err = Encode(Entry{})
	wantClass(t, err, errclass.Invalid)
}

func FuzzDecode(f *testing.F) {
	good, _ := Encode(Entry{Type: Upsert, VChannel: "v1", Body: []byte("body"), Term: 9})
	f.Add("v1", good.Payload)
	f.Add("", []byte{})
	f.Add("v1", []byte("W"))
	f.Add("v1", []byte("W\x02future"))
	f.Add("v1", good.Payload[:15])
	f.Fuzz(func(t *testing.T, key string, payload []byte) {
		e, err := Decode(mq.Message{Key: key, Payload: payload, Timestamp: 5})
		if err != nil {
			if c := errclass.Of(err); c != errclass.Corrupt && c != errclass.Unimplemented {
				t.Fatalf("class %s: %v", c, err)
			}
			return
		}
		m, err := Encode(e)
		if err != nil || m.Key != key || !bytes.Equal(m.Payload, payload) || m.Timestamp != 5 {
			t.Fatalf("%q became %+v, then %q: %v", payload, e, m.Payload, err)
		}
	})
}

func TestTimestampParts(t *testing.T) {
	now := time.Date(2026, 5, 1, 2, 3, 4, 5e6, time.UTC)
	ts := FromTime(now)
	if Physical(ts) != now.UnixMilli() || logical(ts) != 0 || !Time(ts).Equal(now) {
		t.Fatalf("%d", ts)
	}
	if ts := mq.Compose(5, 7); ts != 5<<18|7 || logical(ts) != 7 {
		t.Fatalf("%d", ts)
	}
	if mq.Compose(-1, 1<<18) != 0 || FromTime(time.Unix(-5, 0)) != 0 {
		t.Fatal("before 1970 and above 18 bits")
	}
}

func TestTheClockRunsOverIntoTheNextMillisecond(t *testing.T) {
	var c Clock
	now := time.UnixMilli(1000)
	var last uint64
	for i := range 1<<18 + 10 {
		ts, back := c.next(now)
		if i > 0 && ts != last+1 || back {
			t.Fatalf("%d after %d, back=%v", ts, last, back)
		}
		last = ts
	}
	if Physical(last) != 1001 || logical(last) != 9 {
		t.Fatalf("%d.%d", Physical(last), logical(last))
	}
	if ts, back := c.next(now.Add(-time.Second)); ts != last+1 || !back {
		t.Fatalf("%d, back=%v", ts, back)
	}
}

func logical(ts uint64) uint32 { return uint32(ts & (1<<18 - 1)) }
