package pulsar

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/cockroachdb/errors"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

func TestPositionsCompareAsTheirEntriesDo(t *testing.T) {
	points := []point{
		{entryID{0, 0}, 0}, {entryID{0, 0}, 1}, {entryID{0, 1}, 0}, {entryID{0, 255}, 0}, {entryID{0, 256}, 0}, {entryID{0, 1 << 40}, 7},
		{entryID{1, 0}, 0}, {entryID{255, 9}, 0}, {entryID{256, 0}, 0}, {entryID{1 << 62, 1 << 62}, 1<<32 - 1},
	}
	for i, a := range points {
		back, err := decodePoint(a.position(5))
		if err != nil || back != a {
			t.Fatalf("%v became %v, %v", a, back, err)
		}
		for j, b := range points {
			if got, want := a.position(1).Compare(b.position(2)), a.compare(b); got != want || want != cmpInt(i, j) {
				t.Fatalf("%v and %v: %d by position, %d by point", a, b, got, want)
			}
		}
	}
}

func cmpInt(a, b int) int {
	return map[bool]int{true: 1}[a > b] - map[bool]int{true: 1}[a < b]
}

// The broker acknowledges what it has deduplicated with -1:-1.
func TestNoMessageIDOfTheClientBecomesABadPosition(t *testing.T) {
	for _, id := range []pulsar.MessageID{
		nil, pulsar.EarliestMessageID(), pulsar.LatestMessageID(), pulsar.NewMessageID(-1, -1, -1, -1), pulsar.NewMessageID(7, -1, -1, 0),
	} {
		if got := entryOf(id); id == pulsar.LatestMessageID() {
			continue // a number like others; the client gives it to nobody
		} else if !got.isNone() {
			t.Errorf("%v became %s", id, got)
		}
	}
	if got := entryOf(pulsar.NewMessageID(7, 8, 3, 0)); got != (entryID{7, 8}) {
		t.Error(got)
	}
	for _, bad := range []mq.Position{{ID: "?"}, none2(noPoint()), {ID: strings.Repeat("\xff", pointBytes)}} {
		if _, err := decodePoint(bad); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func none2(p point) mq.Position { return p.position(0) }

func sample() *entry {
	e := &entry{
		kind: data, term: 3, nonce: 1 << 63, prev: entryID{5, 6}, target: noPoint(), count: 2, lastTimestamp: 20,
		base: state{term: 3, nonce: 1 << 63, index: 9, trim: point{entryID{1, 2}, 3}, last: point{entryID{5, 6}, 0}, lastTimestamp: 7},
	}
	e.body = appendFrame(e.body, &mq.Message{Timestamp: 10, Key: "v0", Payload: []byte("one")})
	e.body = appendFrame(e.body, &mq.Message{Timestamp: 20, Key: "v0"})
	return e
}

func TestEntriesComeBackAsWritten(t *testing.T) {
	e := sample()
	for _, change := range []func(){func() {}, func() { e.kind, e.count, e.body = claim, 0, nil }, func() { e.kind, e.target = trim, e.base.last }} {
		change()
		got, err := decode(e.encode())
		if err != nil {
			t.Fatal(err)
		}
		want := *e
		want.bodySum = got.bodySum
		if fmt.Sprint(*got) != fmt.Sprint(want) {
			t.Fatalf("got  %+v\nwant %+v", *got, want)
		}
	}
	msgs, err := sample().decoded(t).messages(entryID{5, 7})
	if err != nil || len(msgs) != 2 || string(msgs[0].Payload) != "one" || msgs[1].Timestamp != 20 || msgs[1].Key != "v0" {
		t.Fatalf("%v, %v", msgs, err)
	}
	if msgs[1].Position != (point{entryID{5, 7}, 1}).position(20) {
		t.Fatal(msgs[1].Position)
	}
}

func (e *entry) decoded(t testing.TB) *entry {
	t.Helper()
	got, err := decode(e.encode())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEveryChangedByteIsNoticed(t *testing.T) {
	b := sample().encode()
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 0x10
		e, err := decode(c)
		if err == nil {
			_, err = e.messages(entryID{1, 1})
		}
		if !errors.Is(err, errDamaged) && !errors.Is(err, errForeign) {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	for i := range b {
		if e, err := decode(b[:i]); err == nil {
			if _, err = e.messages(entryID{1, 1}); err == nil {
				t.Fatalf("%d of %d bytes are enough", i, len(b))
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().encode(), true)
	f.Add([]byte(magic), false)
	f.Add((&entry{kind: claim, base: newborn(), prev: none(), target: noPoint()}).encode(), true)
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		if fix && len(b) >= headerBytes { // past the checksums
			e := entry{body: b[headerBytes:]}
			copy(b[12:16], e.encode()[12:16])
			sum := headerSum(b)
			b[8], b[9], b[10], b[11] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
		}
		e, err := decode(b)
		if err != nil {
			return
		}
		msgs, err := e.messages(entryID{1, 2})
		if err == nil && uint32(len(msgs)) != e.count {
			t.Fatalf("%d messages, the header says %d", len(msgs), e.count)
		}
		s := newborn()
		s.fold(e, entryID{1, 2})
		if again := e.encode(); err == nil && !bytes.Equal(again[16:], b[16:]) {
			t.Fatalf("encoded again it is %x, was %x", again, b)
		}
	})
}

func FuzzPosition(f *testing.F) {
	f.Add("", uint64(0))
	f.Add(point{entryID{1, 2}, 3}.position(4).ID, uint64(4))
	f.Fuzz(func(t *testing.T, id string, ts uint64) {
		p, err := decodePoint(mq.Position{ID: id, Timestamp: ts})
		if err == nil && p.position(ts).ID != id {
			t.Fatalf("%x became %x", id, p.position(ts).ID)
		}
	})
}

func TestTopicNames(t *testing.T) {
	seen := map[string]string{}
	for name, want := range map[string]string{
		"by-dev-rootcoord-dml_0": "by-dev-rootcoord-dml_0", "a/b c": "a=2Fb=20c", "ä": "=C3=A4", "a=b": "a=3Db", "a%41": "a=2541",
		"t-partition-0": "t=2Dpartition-0", "t-partition": "t-partition", "..": "=2E=2E", "a.b": "a.b", "x:y?z#": "x=3Ay=3Fz=23",
	} {
		got, err := escape(name)
		if err != nil || got != want || seen[got] != "" {
			t.Errorf("%q became %q (as did %q), want %q: %v", name, got, seen[got], want, err)
		}
		seen[got] = name
	}
	for _, bad := range []string{"", strings.Repeat("x", maxTopicNameBytes+1)} {
		if _, err := escape(bad); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestOptionsListAllThatIsWrong(t *testing.T) {
	o := Options{URL: "pulsar+ssl://a:6651,b:6651", Token: "t"}
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	if o.receiverEntries() != 32 {
		t.Fatal(o.receiverEntries())
	}
	bad := Options{
		URL: "pulsar://me:secret-word@host:6650", Namespace: "public", Token: "secret-word", TokenFile: "f", TLS: TLS{CertFile: "c"},
		OperationTimeout: time.Hour, AppendTimeout: 1, ReadyTimeout: -1, KeepAlive: 1, MaxPayloadBytes: 1 << 30, MaxEntryBytes: 5, GroupBytes: 1,
		MaxPendingBytes: 1, ReadAheadBytes: -1, Compression: "rar",
	}
	_, err := Open(bad)
	if !errclass.Is(err, errclass.Invalid) {
		t.Fatal(err)
	}
	for _, word := range []string{"URL", "Namespace", "TokenFile", "CertFile", "TLS: only", "OperationTimeout", "AppendTimeout", "ReadyTimeout", "KeepAlive",
		"MaxPayloadBytes", "MaxEntryBytes", "GroupBytes", "MaxPendingBytes", "ReadAheadBytes", "Compression"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s is not in %v", word, err)
		}
	}
	if strings.Contains(fmt.Sprintf("%+v", err), "secret-word") {
		t.Error("the error tells the password")
	}
	for _, url := range []string{"", "pulsar://", "http://h:1", "h:6650", "pulsar://h:1/x", "pulsar://h:x", "pulsar://u:p@h:1", "pulsar://h:1,", "pulsar://h:1?x"} {
		o := Options{URL: url}
		o.EnsureDefaults()
		if err := o.Validate(); err == nil {
			t.Errorf("URL %q is accepted", url)
		}
	}
}

func TestTheClientsLogGoesOneLevelDown(t *testing.T) {
	var buf bytes.Buffer
	var said trouble
	began := time.Now()
	l := clientLogger(slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelInfo})), &said)
	l.Debug("payload")
	l.Info("news")
	l.With("topic", "t").WithGroup("g").Warn("warning")
	l.Error("error")
	if said.since(began) != "" {
		t.Fatal(said.since(began))
	}
	l.With("error", errors.New("bad certificate")).Error("failed")
	if got := said.since(began); got != "failed: bad certificate" || said.since(time.Now()) != "" {
		t.Fatal(got)
	}
	got := buf.String()
	if strings.Contains(got, "payload") || strings.Contains(got, "news") || !strings.Contains(got, "level=INFO msg=warning component=pulsar-client topic=t") ||
		!strings.Contains(got, "level=WARN msg=error component=pulsar-client") {
		t.Fatal(got)
	}
}

// Nobody listens there. Open is fast; calls fail within their context, and do
// not leave goroutines; the token is in no error and no log line; the default
// registry stays as it is.
func TestABrokerThatIsAway(t *testing.T) {
	before, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	q, err := Open(Options{
		URL: "pulsar://127.0.0.1:1", Token: "secret-word", OperationTimeout: 300 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{})
	if !errclass.Is(err, errclass.Retryable) {
		t.Fatalf("%+v", err)
	}
	gone, cancel := context.WithCancel(testCtx(t))
	cancel()
	_, readErr := q.OpenReader(gone, topicName, mq.ReaderOptions{})
	wantErr(t, readErr, context.Canceled)
	mustClose(t, q)
	mustClose(t, q)
	_, closedErr := q.Bounds(testCtx(t), topicName)
	wantErr(t, closedErr, mq.ErrClosed)
	if strings.Contains(log.String()+fmt.Sprintf("%+v %+v", err, readErr), "secret-word") {
		t.Fatal("the token is in the log or in an error")
	}
	after, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := func(fs []*dto.MetricFamily) []string {
		var all []string
		for _, f := range fs {
			all = append(all, f.GetName())
		}
		return all
	}
	if !slices.Equal(names(before), names(after)) {
		t.Fatalf("the default registry has changed: %v", names(after))
	}
}
