package ingest

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/cockroachdb/errors"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/pool"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// rig is a channel with its sink, and the log that feeds it.
type rig struct {
	t       testing.TB
	set     *segments.Set
	coll    *segments.Collection
	ch      *segments.Channel
	sink    *Sink
	ts      uint64
	dropped []int64
	aside   []string
}

func newRig(t testing.TB, memory int64) *rig {
	t.Helper()
	r := &rig{t: t, ts: 100}
	p, err := pool.New(pool.Options{Workers: 1})
	must(t, err)
	r.set, err = segments.New(segments.Options{Dir: filepath.Join(t.TempDir(), "segments"), Pool: p, Ledger: segments.NewLedger(memory), GrowingRows: 1000})
	must(t, err)
	t.Cleanup(func() {
		must(t, r.set.Close(context.Background()))
		must(t, p.Close(context.Background()))
	})
	s := &schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: 101, Name: "v", Type: schema.FloatVector, Dim: 2},
		{ID: 102, Name: "note", Type: schema.VarChar, Nullable: true},
	}}
	r.coll = r.set.Add(segments.CollectionInfo{ID: 1, Name: "items", Schema: s, Indexes: map[int64]segments.VectorIndex{101: {Type: "FLAT", Metric: index.L2}}})
	r.ch, err = r.coll.Watch("v", segments.Position{ID: "0", Timestamp: r.ts}, nil)
	must(t, err)
	r.sink = NewSink(r.ch, Options{
		OnDropCollection: func(id int64) { r.dropped = append(r.dropped, id) },
		OnQuarantine: func(vchannel string, at mq.Position, err error) {
			r.aside = append(r.aside, fmt.Sprintf("%s %s %v", vchannel, at.ID, errclass.Of(err)))
		},
	})
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}

// message is the next entry of the log.
func (r *rig) message(typ wal.Type, body proto.Message) mq.Message {
	r.t.Helper()
	var raw []byte
	var err error
	if body != nil {
		raw, err = proto.Marshal(body)
		must(r.t, err)
	}
	r.ts += 10
	m, err := wal.Encode(wal.Entry{Type: typ, VChannel: "v", Body: raw, Timestamp: r.ts})
	must(r.t, err)
	m.Position = mq.Position{ID: fmt.Sprint(r.ts)} // backends may leave the timestamp out
	return m
}

func (r *rig) rows(typ wal.Type, segment, partition int64, keys ...int64) mq.Message {
	r.t.Helper()
	b := &schema.Batch{Rows: len(keys), Columns: []*schema.Column{
		{FieldID: 100, Type: schema.Int64, Int: keys},
		{FieldID: 101, Type: schema.FloatVector, Dim: 2, Float: make([]float32, 2*len(keys))},
		{FieldID: 102, Type: schema.VarChar, Str: make([]string, len(keys))},
	}}
	return r.message(typ, &qnpb.WalRows{CollectionId: 1, PartitionId: partition, SegmentId: segment, Rows: int64(len(keys)),
		Fields: rowpb.FromBatch(b, r.coll.Info().Schema)})
}

func (r *rig) deletes(partition int64, keys ...int64) mq.Message {
	return r.message(wal.Delete, &qnpb.WalDelete{CollectionId: 1, PartitionId: partition,
		Ids: rowpb.ToIDs(&schema.Column{Type: schema.Int64, Int: keys})})
}

func (r *rig) apply(msgs ...mq.Message) {
	r.t.Helper()
	must(r.t, r.sink.Apply(r.t.Context(), msgs))
}

func (r *rig) want(keys ...int64) {
	r.t.Helper()
	var got []int64
	_, err := r.coll.Query(r.t.Context(), &segments.QueryRequest{Read: segments.Read{OutputFields: []int64{100}}}, func(b *schema.Batch, _ uint64) error {
		got = append(got, b.Columns[0].Int...)
		return nil
	})
	must(r.t, err)
	if !slices.Equal(got, keys) {
		r.t.Fatalf("keys %v, want %v", got, keys)
	}
	if r.ch.Tsafe() != r.ts {
		r.t.Fatalf("tsafe %d, want %d", r.ch.Tsafe(), r.ts)
	}
	if at := r.ch.Applied(); at.ID != fmt.Sprint(r.ts) || at.Timestamp != r.ts {
		r.t.Fatalf("applied %v", at)
	}
}

func TestEachKindOfMessage(t *testing.T) {
	r := newRig(t, 0)
	r.apply(r.rows(wal.Insert, 1, 7, 1, 2, 3))
	r.want(1, 2, 3)
	r.apply(r.deletes(0, 2), r.rows(wal.Upsert, 2, 8, 3, 4))
	r.want(1, 3, 4)
	r.apply(r.deletes(7, 4)) // of another partition
	r.want(1, 3, 4)
	r.apply(r.message(wal.TimeTick, nil))
	r.want(1, 3, 4)
	r.apply(r.message(wal.Seal, &qnpb.WalSeal{CollectionId: 1, SegmentIds: []int64{1}}))
	growing, release := r.ch.Growing()
	if at, sealed := growing[0].Sealed(); !sealed || at != r.ts || growing[0].End().ID != fmt.Sprint(r.ts) {
		t.Fatalf("sealed %t at %d, to %v", sealed, at, growing[0].End())
	}
	release()
	r.apply(r.message(wal.DropPartition, &qnpb.WalDrop{CollectionId: 1, PartitionId: 8}))
	r.want(1)
	r.apply(r.message(wal.DropCollection, &qnpb.WalDrop{CollectionId: 1}))
	if !slices.Equal(r.dropped, []int64{1}) {
		t.Fatalf("dropped %v", r.dropped)
	}
	if r.sink.Applied() != 8 || r.sink.Quarantined() != 0 {
		t.Fatalf("applied %d, set aside %d", r.sink.Applied(), r.sink.Quarantined())
	}
}

// TestOneBadMessageDoesNotBlockTheRest: it is counted and named, with its place.
func TestOneBadMessageDoesNotBlockTheRest(t *testing.T) {
	r := newRig(t, 0)
	flipped := r.rows(wal.Insert, 1, 7, 50)
	flipped.Payload[len(flipped.Payload)-1] ^= 1
	garbage := func(typ wal.Type) mq.Message {
		r.ts += 10
		m, err := wal.Encode(wal.Entry{Type: typ, VChannel: "v", Body: []byte{0xff, 0xff, 0xff}, Timestamp: r.ts})
		must(t, err)
		m.Position.ID = fmt.Sprint(r.ts)
		return m
	}
	bad := []struct {
		m     mq.Message
		class errclass.Class
	}{
		{flipped, errclass.Corrupt},
		{garbage(wal.Insert), errclass.Corrupt},
		{garbage(wal.Upsert), errclass.Corrupt},
		{garbage(wal.Delete), errclass.Corrupt},
		{garbage(wal.Seal), errclass.Corrupt},
		{garbage(wal.DropPartition), errclass.Corrupt},
		{garbage(99), errclass.Unimplemented},
		{r.message(wal.Insert, &qnpb.WalRows{CollectionId: 2, Rows: 1}), errclass.Invalid},
		{r.message(wal.Insert, &qnpb.WalRows{CollectionId: 1, Rows: 1 << 60}), errclass.Invalid},
		{r.message(wal.Delete, &qnpb.WalDelete{CollectionId: 1}), errclass.Invalid},
		{r.message(wal.Delete, &qnpb.WalDelete{CollectionId: 2, Ids: rowpb.ToIDs(&schema.Column{Type: schema.Int64, Int: []int64{1}})}), errclass.Invalid},
		{r.message(wal.Seal, &qnpb.WalSeal{CollectionId: 2, SegmentIds: []int64{1}}), errclass.Invalid},
	}
	var msgs []mq.Message
	var want []string
	for i, b := range bad {
		msgs = append(msgs, b.m)
		want = append(want, fmt.Sprintf("v %s %v", b.m.Position.ID, b.class))
		_ = i
	}
	r.apply(append(msgs, r.rows(wal.Insert, 1, 7, 1, 2))...)
	r.want(1, 2)
	if !slices.Equal(r.aside, want) {
		t.Fatalf("set aside %q, want %q", r.aside, want)
	}
	if r.sink.Quarantined() != int64(len(bad)) {
		t.Fatalf("counted %d", r.sink.Quarantined())
	}
	// Rows after the seal of their segment.
	r.apply(r.message(wal.Seal, &qnpb.WalSeal{CollectionId: 1, SegmentIds: []int64{1}}), r.rows(wal.Insert, 1, 7, 3), r.rows(wal.Insert, 2, 7, 4))
	r.want(1, 2, 4)
}

// TestRowsWithoutRoomComeAgain: those before them are not applied, counted or set aside twice, none
// is lost, and it is told what they wait for.
func TestRowsWithoutRoomComeAgain(t *testing.T) {
	r := newRig(t, 200_000) // a chunk takes 135,168
	bad := r.rows(wal.Insert, 1, 7, 50)
	bad.Payload[len(bad.Payload)-1] ^= 1
	msgs := []mq.Message{bad, r.rows(wal.Insert, 1, 7, 1), r.rows(wal.Upsert, 1, 7, 2), r.rows(wal.Insert, 2, 7, 3), r.deletes(0, 1)}
	end := r.ts
	for range 3 {
		err := r.sink.Apply(t.Context(), msgs)
		if !errclass.Is(err, errclass.Exhausted) {
			t.Fatalf("%v", err)
		}
		r.ts = end - 20
		r.want(1, 2)
		if c := r.sink.Counts(); c.Messages != 3 || c.Rows != 2 || r.sink.Quarantined() != 1 {
			t.Fatalf("%+v, %d set aside", c, r.sink.Quarantined())
		}
		if err := r.sink.Waits(); !errclass.Is(err, errclass.Exhausted) {
			t.Fatalf("waits for %v", err)
		}
	}
	r.ch.Forget(1)                                                         // room
	for errclass.Is(r.sink.Apply(t.Context(), msgs), errclass.Exhausted) { // until the segment is closed
		runtime.Gosched()
	}
	r.ts = end
	r.want(3)
	if c := r.sink.Counts(); c.Messages != 5 || c.Rows != 3 || r.sink.Quarantined() != 1 || r.sink.Waits() != nil {
		t.Fatalf("%+v, %d set aside, waits for %v", c, r.sink.Quarantined(), r.sink.Waits())
	}
}

func TestAChannelThatIsNotWatchedAnyMore(t *testing.T) {
	r := newRig(t, 0)
	r.apply(r.rows(wal.Insert, 1, 7, 1))
	r.coll.Unwatch("v")
	err := r.sink.Apply(t.Context(), []mq.Message{r.rows(wal.Insert, 1, 7, 2)})
	if !errclass.Is(err, errclass.Closed) || r.sink.Quarantined() != 0 {
		t.Fatalf("%v, %d set aside", err, r.sink.Quarantined())
	}
	if len(r.coll.Segments()) != 0 {
		t.Fatal("rows came into a channel that has left")
	}
}

func TestApplyEndsWithItsContext(t *testing.T) {
	r := newRig(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.sink.Apply(ctx, []mq.Message{r.rows(wal.Insert, 1, 7, 1)}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if r.sink.Applied() != 0 {
		t.Fatal("applied")
	}
}

// TestAFieldAddedLater: messages from before have nulls.
func TestAFieldAddedLater(t *testing.T) {
	r := newRig(t, 0)
	old := r.rows(wal.Insert, 1, 7, 1)
	info := r.coll.Info()
	s := *info.Schema
	s.Fields = append(slices.Clone(s.Fields), schema.Field{ID: 200, Name: "size", Type: schema.Int32, Nullable: true})
	info.Schema = &s
	r.coll.Update(info)
	r.apply(old)
	_, err := r.coll.Query(t.Context(), &segments.QueryRequest{Read: segments.Read{OutputFields: []int64{200}}}, func(b *schema.Batch, _ uint64) error {
		if !b.Columns[0].Null(0) {
			t.Error("not null")
		}
		return nil
	})
	must(t, err)
}

// FuzzApply: no message makes the sink panic or stop.
func FuzzApply(f *testing.F) {
	for _, typ := range []wal.Type{wal.Insert, wal.Upsert, wal.Delete, wal.Seal, wal.DropPartition, wal.DropCollection} {
		f.Add(byte(typ), []byte{8, 1, 16, 7, 24, 1, 32, 1})
	}
	r := newRig(f, 1<<24)
	f.Fuzz(func(t *testing.T, typ byte, body []byte) {
		if typ == 0 || len(body) > 1<<16 {
			return
		}
		r.ts++
		m, err := wal.Encode(wal.Entry{Type: wal.Type(typ), VChannel: "v", Body: body, Timestamp: r.ts})
		must(t, err)
		if err := r.sink.Apply(t.Context(), []mq.Message{m}); err != nil && !errclass.Is(err, errclass.Exhausted) {
			t.Fatal(err)
		}
	})
}
