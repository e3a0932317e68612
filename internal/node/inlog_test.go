package node

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/segments"
)

// createWithGraph makes a collection whose segments get a graph, however few rows they have.
func (r *rig) createWithGraph() {
	r.t.Helper()
	_, err := r.CreateCollection(within(r.t), NewCollection{Name: things, Schema: schema.Schema{Fields: []schema.Field{
		{ID: thingID, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: thingID + 1, Name: "v", Type: schema.FloatVector, Dim: 2},
	}}, Indexes: []catalog.Index{{FieldID: thingID + 1, Type: catalog.IndexHNSW, Metric: catalog.MetricL2}}})
	must(r.t, err)
}

// TestRowsInTheLogAreLetInAsIfTheyWereRead: whoever reads the log may be far behind who writes it. No more is let in than there is room for,
// and once it is read all is as it was.
func TestRowsInTheLogAreLetInAsIfTheyWereRead(t *testing.T) {
	const batch, limit = 500, 1 << 20
	w := newWorld(t)
	w.memory = limit
	left := &atomic.Int64{}
	left.Store(1 << 40)
	w.queue = func() mq.Queue { return rationed{w.broker.Connect(), left} }
	r := w.open(func(o *Options) { o.Flush.Workers, o.Flush.RoomTimeout = 1, time.Millisecond }).ready()
	r.createWithGraph()
	r.insert(between(0, batch)...)
	r.has(batch)
	l := r.set.Ledger()
	left.Store(0) // nobody reads any more
	var err error
	rows, most := int64(batch), int64(0)
	add := func(n int64) error {
		_, err := r.Insert(within(t), things, "", &schema.Batch{Rows: int(n), Columns: []*schema.Column{keysOf(between(rows, rows+n)...),
			{FieldID: thingID + 1, Type: schema.FloatVector, Dim: 2, Float: make([]float32, 2*n)}}}, false)
		return err
	}
	for ; err == nil && rows < 100*batch; rows += batch {
		err = add(batch)
	}
	rows -= batch // the last was refused
	if !errclass.Is(err, errclass.Exhausted) || rows < 2*batch {
		t.Fatalf("%d rows are in the log, then: %v; the ledger has %d bytes of %d, and %d ahead", rows, err, l.Total(), limit, l.Ahead())
	}
	if l.Total() > limit/4 || l.Total()+l.Ahead() > limit*11/10 {
		t.Errorf("%d bytes of %d are in use, %d ahead", l.Total(), limit, l.Ahead())
	}
	left.Store(1 << 40)
	r.has(rows)
	eventually(t, "rows are let in again", func() bool {
		used := l.Used()
		most = max(most, used[segments.KindGrowing]+used[segments.KindBuild])
		return add(1) == nil
	})
	r.flush()
	r.has(rows + 1)
	if most > limit*5/4 || l.Ahead() != 0 {
		t.Errorf("at most %d bytes of %d were in use for rows; at the end %d are ahead", most, limit, l.Ahead())
	}
}

// TestALogWithMoreRowsThanTheLimitIsRead: they were written under a higher one, and belong to a segment whose seal is not in the log. The node
// comes up, stores them, and is below its limit then.
func TestALogWithMoreRowsThanTheLimitIsRead(t *testing.T) {
	const batch, rows, limit = 500, 30_000, 1 << 20
	w := newWorld(t)
	writer := w.open(nil).ready()
	writer.createWithGraph()
	writer.remove(-1)       // storage knows that the topic is written to
	writer.dead.Store(true) // nothing is stored
	for from := int64(0); from < rows; from += batch {
		writer.insert(between(from, from+batch)...)
	}
	writer.has(rows)
	if used := writer.set.Ledger().Used()[segments.KindGrowing]; used < limit*3/2 {
		t.Fatalf("they take only %d bytes", used)
	}
	writer.kill()
	w.memory = limit
	r := w.open(func(o *Options) { o.Flush.Workers, o.Flush.RoomTimeout = 1, time.Millisecond }).ready()
	r.has(rows)
	eventually(t, "they are stored", func() bool { return len(r.sealed()) > 0 && r.set.Ledger().Used()[segments.KindGrowing] == 0 })
	if l := r.set.Ledger(); l.Total() > limit || l.Ahead() != 0 {
		t.Errorf("%d bytes of %d are in use, and %d are ahead", l.Total(), limit, l.Ahead())
	}
	r.insert(rows)
	r.has(rows + 1)
}

// TestASegmentWithoutRoomForItsIndexIsStoredWithoutIt, told of, and rewritten once there is room.
func TestASegmentWithoutRoomForItsIndexIsStoredWithoutIt(t *testing.T) {
	const limit, rows = 4 << 20, 2000
	w := newWorld(t)
	w.memory = limit
	r := w.open(func(o *Options) { o.Flush.RoomTimeout = time.Millisecond }).ready()
	r.createWithGraph()
	r.insert(between(0, rows)...)
	r.has(rows)
	l := r.set.Ledger()
	full := l.Force(segments.KindCalls, limit*5/4-l.Total()-1000)
	r.flush()
	entry := func() catalog.Segment {
		coll, err := r.Collection(within(t), things)
		must(t, err)
		c, err := r.o.Catalog.Channel(within(t), coll.VChannels[0].Name)
		must(t, err)
		if len(c.Segments) != 1 {
			t.Fatalf("%d segments", len(c.Segments))
		}
		return c.Segments[0]
	}
	index := func() string {
		for _, c := range r.set.Collections() {
			for _, s := range c.Segments() {
				if s.State == segments.StateLoaded {
					return s.Indexes[thingID+1]
				}
			}
		}
		return ""
	}
	if s := entry(); !s.Unindexed || s.Rows != rows || r.UnindexedFields() != 1 {
		t.Errorf("stored is %+v; %d fields are told of", s, r.UnindexedFields())
	}
	eventually(t, "it is served", func() bool { return index() != "" })
	if got := index(); got != "FLAT" {
		t.Errorf("its index is %s", got)
	}
	r.has(rows)
	r.checkpointMoves()
	if _, err := r.Compact(within(t), things); !errclass.Is(err, errclass.Exhausted) || !entry().Unindexed {
		t.Errorf("there is no room yet: %v", err)
	}
	full.Release()
	r.compacted()
	if s := entry(); s.Unindexed || s.Rows != rows {
		t.Errorf("rewritten is %+v", s)
	}
	eventually(t, "the new one is served", func() bool { return index() != "FLAT" && index() != "" })
	r.has(rows)
	before := entry().ID
	r.compacted()
	if entry().ID != before {
		t.Error("it is rewritten again")
	}
}
