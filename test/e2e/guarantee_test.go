package e2e

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/flush"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestEveryWriterReadsItsWrites: many write and read at once, on several shards,
// while rows are flushed. STRONG sees everything that anybody was acknowledged,
// SESSION with the returned timestamp what this one was.
func TestEveryWriterReadsItsWrites(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{shardTopics: 2, flush: flush.Options{SealRows: 60, Interval: 10 * time.Millisecond}})
	n.items("items", 3)
	const writers, rounds = 8, 25
	var wg sync.WaitGroup
	var acked, deletes atomic.Int64
	for w := range int64(writers) {
		wg.Go(func() {
			for i := range int64(rounds) {
				id := w*1000 + i
				r, err := n.write.Append(within(t), insertOf("items", 1, rows([]int64{id}, 0)...))
				if err != nil {
					t.Errorf("insert: %v", err)
					return
				}
				acked.Add(1)
				before := acked.Load()
				fresh := strong
				if i%2 == 0 {
					fresh = &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_SESSION, GuaranteeTimestamp: r.GetTimestamp()}
				}
				got, err := n.query.Get(within(t), &qnpb.GetRequest{Collection: "items", Ids: intIDs(id), Freshness: fresh})
				if err != nil || got.GetRows() != 1 {
					t.Errorf("row %d was acknowledged at %d and is not found: %v, %v", id, r.GetTimestamp(), got, err)
					return
				}
				if c := n.count("items"); c < before-deletes.Load() {
					t.Errorf("STRONG counts %d rows, %d were acknowledged before, at most %d deleted since", c, before, deletes.Load())
					return
				}
				if i%5 == 4 {
					deletes.Add(1)
					n.delete("items", []int64{id})
					if got := n.nearest("items", vectorOf(id, 0), 1, ""); slices.Contains(got, id) {
						t.Errorf("row %d was deleted and is found", id)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if c := n.count("items"); c != writers*rounds*4/5 {
		t.Errorf("%d rows at the end, want %d", c, writers*rounds*4/5)
	}
}

// TestThePastCanBeRead: at each timestamp that a write returned, the rows are
// those of then, whatever was written, flushed, loaded or restarted since.
func TestThePastCanBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir, options{shardTopics: 2})
	n.items("items", 2)
	type moment struct {
		ts   uint64
		rows map[int64]int64
	}
	var history []moment
	now := map[int64]int64{}
	note := func(r *qnpb.AppendResponse) {
		m := moment{r.GetTimestamp(), map[int64]int64{}}
		for k, v := range now {
			m.rows[k] = v
		}
		history = append(history, m)
	}
	check := func(when string) {
		t.Helper()
		for i, m := range history {
			got := n.allAt(t, "items", m.ts)
			if len(got) != len(m.rows) {
				t.Fatalf("%s: moment %d has %d rows, want %d", when, i, len(got), len(m.rows))
			}
			for id, price := range m.rows {
				if got[id] != price {
					t.Fatalf("%s: at moment %d row %d has price %d, want %d", when, i, id, got[id], price)
				}
			}
			for id, price := range m.rows {
				r, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "items", TopK: 1, Freshness: &qnpb.Freshness{ReadTimestamp: m.ts},
					Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(id, price-id*10)}})
				must(t, err)
				if ids := r.GetIds().GetInts().GetValues(); len(ids) != 1 || ids[0] != id || r.GetScores()[0] != 0 {
					t.Fatalf("%s: at moment %d the nearest to row %d of then is %v", when, i, id, r)
				}
				break
			}
		}
	}
	apply := func(version int64, ids []int64) {
		t.Helper()
		r, err := n.write.Append(within(t), upsertOf("items", int64(len(ids)), rows(ids, version)...))
		must(t, err)
		for _, id := range ids {
			now[id] = id*10 + version
		}
		note(r)
	}
	remove := func(ids []int64) {
		t.Helper()
		r, err := n.write.Append(within(t), deleteOf("items", &qnpb.DeleteOperation{Ids: intIDs(ids...)}))
		must(t, err)
		for _, id := range ids {
			delete(now, id)
		}
		note(r)
	}
	apply(0, seq(0, 40))
	apply(1, seq(10, 20))
	remove(seq(0, 15))
	check("growing")
	n.flush("items")
	n.handedOff("items")
	check("sealed")
	apply(2, seq(5, 25))
	remove(seq(20, 30))
	apply(3, seq(0, 3))
	check("sealed and growing")
	n.flush("items")
	n.handedOff("items")
	remove(seq(0, 2))
	n.stop()
	n = start(t, dir, options{shardTopics: 2})
	check("after a restart")
	_, err := n.control.ReleaseSegments(within(t), &qnpb.ReleaseSegmentsRequest{Collection: "items"})
	must(t, err)
	_, err = n.control.LoadSegments(within(t), &qnpb.LoadSegmentsRequest{Collection: "items"})
	must(t, err)
	check("released and loaded")
	before := uint64(time.Now().Add(-time.Minute).UnixMilli()) << 18
	if got := n.allAt(t, "items", before); len(got) != 0 {
		t.Errorf("rows before there were any: %v", got)
	}
}

// allAt returns key to price of every row at a timestamp.
func (n *testNode) allAt(t *testing.T, coll string, ts uint64) map[int64]int64 {
	t.Helper()
	st, err := n.query.Query(within(t), &qnpb.QueryRequest{Collection: coll, OutputFields: []string{"price"}, Freshness: &qnpb.Freshness{ReadTimestamp: ts}})
	must(t, err)
	out := map[int64]int64{}
	for {
		r, err := st.Recv()
		must(t, err)
		if r.GetReadTimestamp() != ts {
			t.Fatalf("read at %d, asked for %d", r.GetReadTimestamp(), ts)
		}
		if r.GetStats() != nil {
			return out
		}
		for i, id := range r.GetFields()[0].GetInts().GetValues() {
			out[id] = r.GetFields()[1].GetInts().GetValues()[i]
		}
	}
}

// TestWhoDoesNotAskForFreshnessDoesNotWait: on a channel that nobody writes
// timeticks to any more, BOUNDED waits for its bound and EVENTUALLY for nothing.
func TestWhoDoesNotAskForFreshnessDoesNotWait(t *testing.T) {
	t.Parallel()
	n := pulsing(t, options{staleness: time.Hour})
	_, err := n.write.RemoveChannel(within(t), &qnpb.RemoveChannelRequest{Pchannel: "topic-0"})
	must(t, err)
	for _, level := range []qnpb.ConsistencyLevel{0, 2, 4} {
		r := proto.Clone(n.pulse).(*qnpb.SearchRequest)
		r.Freshness = &qnpb.Freshness{Level: level}
		got, err := n.query.Search(within(t), r)
		must(t, err)
		if w := time.Duration(got.GetStats().GetWaitNanos()); w > time.Second {
			t.Errorf("%v waited %v", level, w)
		}
	}
	// The keeper of a standalone node takes the log again.
	n.insertAgain(t, "items", 5000)
	if got := n.count("items"); got != 101 {
		t.Errorf("%d rows, want 101", got)
	}
}

func (n *testNode) insertAgain(t *testing.T, coll string, id int64) {
	t.Helper()
	for until := time.Now().Add(hang); ; {
		_, err := n.write.Append(within(t), insertOf(coll, 1, rows([]int64{id}, 0)...))
		if err == nil {
			return
		}
		if c := codeOf(err); (c != codes.FailedPrecondition && c != codes.Unavailable) || time.Now().After(until) {
			t.Fatalf("insert on a node without the log: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestReadersAlwaysSeeTheSame: while segments are flushed, loaded and released
// for good measure, every answer has exactly the rows that were there before.
func TestReadersAlwaysSeeTheSame(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{shardTopics: 2})
	n.items("items", 2)
	n.insert("items", seq(0, 400))
	n.delete("items", seq(0, 40))
	n.upsert("items", seq(40, 80), 1)
	ctx, stop := context.WithCancel(within(t))
	defer stop()
	var wg sync.WaitGroup
	var reads atomic.Int64
	for w := range 4 {
		wg.Go(func() {
			for i := int64(0); ctx.Err() == nil; i++ {
				id, version := 40+(i*7+int64(w)*31)%360, int64(0)
				if id < 80 {
					version = 1
				}
				got := n.nearest("items", vectorOf(id, version), 5, "")
				if len(got) != 5 || got[0] != id || slices.ContainsFunc(got, func(g int64) bool { return g < 40 }) {
					t.Errorf("nearest to row %d: %v", id, got)
					return
				}
				if c := n.count("items"); c != 360 {
					t.Errorf("%d rows, want 360", c)
					return
				}
				reads.Add(1)
			}
		})
	}
	for round := range int64(2) {
		n.flush("items")
		n.handedOff("items")
		n.upsert("items", seq(40+round*10, 50+round*10), 1) // the same rows again
	}
	at := reads.Load()
	eventually(t, "twenty reads more", func() bool { return reads.Load() >= at+20 || t.Failed() })
	stop()
	wg.Wait()
	t.Logf("%d reads", reads.Load())
}

// TestASegmentThatIsReleasedAndLoadedUnderReaders: an answer has the rows of a
// whole segment or none of them, and never an error.
func TestASegmentThatIsReleasedAndLoadedUnderReaders(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.items("items", 1)
	n.insert("items", seq(0, 300))
	id := n.flush("items")
	n.handedOff("items")
	n.insert("items", seq(300, 350))
	n.delete("items", seq(0, 10))
	ctx, stop := context.WithCancel(within(t))
	defer stop()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if c := n.count("items"); c != 340 && c != 50 {
					t.Errorf("%d rows, want 340 or 50", c)
					return
				}
			}
		})
	}
	for range 10 {
		r, err := n.control.ReleaseSegments(within(t), &qnpb.ReleaseSegmentsRequest{Collection: "items", SegmentIds: id})
		must(t, err)
		if !slices.Equal(r.GetSegmentIds(), id) {
			t.Fatalf("released %v, want %v", r.GetSegmentIds(), id)
		}
		if c := n.count("items"); c != 50 {
			t.Errorf("%d rows while it is released, want 50", c)
		}
		n.delete("items", []int64{id[0]%10 + 5}) // of a row that is deleted already
		_, err = n.control.LoadSegments(within(t), &qnpb.LoadSegmentsRequest{Collection: "items", SegmentIds: id})
		must(t, err)
		if c := n.count("items"); c != 340 {
			t.Errorf("%d rows once it is loaded, want 340", c)
		}
	}
	stop()
	wg.Wait()
}

// TestAnotherOwnersWritesAreSeen: what was acknowledged by another term than
// this node's last is seen by a STRONG read as well.
func TestAnotherOwnersWritesAreSeen(t *testing.T) {
	t.Parallel()
	n := pulsing(t, options{})
	for i := range int64(5) {
		_, err := n.write.AssignChannel(within(t), &qnpb.AssignChannelRequest{Pchannel: "topic-0"})
		must(t, err)
		if c := n.count("items"); c != 100+i {
			t.Fatalf("%d rows, want %d", c, 100+i)
		}
		n.insertAgain(t, "items", 1000+i)
	}
	r, err := n.write.AssignChannel(within(t), &qnpb.AssignChannelRequest{Pchannel: "topic-0", Term: 1})
	must(t, err)
	if !r.GetIgnored() {
		t.Errorf("an old term was not ignored: %v", r)
	}
}

// TestReleasedRowsComeBack: what is only in the log when a collection is released
// is there when it is loaded again, deletes included, however busy the flusher is.
func TestReleasedRowsComeBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := options{flush: flush.Options{SealRows: 40, Interval: time.Millisecond, CheckpointInterval: time.Nanosecond}}
	n := start(t, dir, o)
	n.items("items", 1)
	want := int64(0)
	for i := range int64(25) {
		n.insert("items", seq(i*10, i*10+10))
		n.delete("items", []int64{i * 10, i*5 + 1}) // of this batch, and an odd one of an earlier one
		must2(t)(n.control.ReleaseSegments(within(t), &qnpb.ReleaseSegmentsRequest{Collection: "items"}))
		if i%3 == 0 {
			n.insertAgain(t, "items", 10_000+i) // appends go on meanwhile
			want++
		}
		must2(t)(n.control.LoadSegments(within(t), &qnpb.LoadSegmentsRequest{Collection: "items"}))
	}
	gone := map[int64]bool{}
	for i := range int64(25) {
		gone[i*10], gone[i*5+1] = true, true
	}
	got := n.all("items", "id < 10000")
	for id := range int64(250) {
		if _, ok := got[id]; ok == gone[id] {
			t.Errorf("row %d: there %v, deleted %v", id, ok, gone[id])
		}
	}
	want += int64(len(got))
	if c := n.count("items"); c != want {
		t.Errorf("%d rows, want %d", c, want)
	}
	n.stop()
	n = start(t, dir, o)
	if c := n.count("items"); c != want {
		t.Errorf("%d rows after a restart, want %d", c, want)
	}
}
