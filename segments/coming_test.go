package segments

import (
	"context"
	"io"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// TestRowsInTheLogAreAhead of what is read: they count for who lets rows in and for what makes room, as what they will take once they are
// read, and with them what building their segment's index will take.
func TestRowsInTheLogAreAhead(t *testing.T) {
	r := newRig(t, rigOptions{memory: 8 << 20, index: VectorIndex{Type: "HNSW", Metric: index.Cosine}})
	l := r.set.Ledger()
	r.insert(1, seq(0, 100)...)
	built := func(rows int) int64 { return BuildBytes(r.coll.Info(), rows, 1) }
	took := func() (bytes int64) {
		growing, release := r.ch.Growing()
		defer release()
		for _, g := range growing {
			bytes += g.memory.size()
		}
		return bytes
	}
	if l.Ahead() != 0 {
		t.Fatalf("%d bytes ahead, and nobody builds an index here", l.Ahead())
	}
	// One batch for a segment with rows, two for one without.
	before, batches := took(), [][]int64{seq(100, 2000), seq(2000, 6000), seq(6000, 7000)}
	var ats []Position
	for i, keys := range batches {
		at := r.tick()
		r.ch.Coming(int64(1+min(i, 1)), r.batch(keys, 0), 1).Settled(at.Timestamp)
		ats = append(ats, at)
	}
	reckoned := l.Ahead() - built(5000)
	if took() != before || !l.Above(10) {
		t.Errorf("%d bytes ahead", l.Ahead())
	}
	for i, keys := range batches {
		must(t, r.ch.ApplyRows(Rows{SegmentID: int64(1 + min(i, 1)), PartitionID: 7, Batch: r.batch(keys, 0)}, ats[i]))
		r.ch.Advance(ats[i])
	}
	if l.Ahead() != built(5000) {
		t.Errorf("%d bytes ahead once all is read, want %d", l.Ahead(), built(5000))
	}
	reckoned -= 3 * comingBytes
	if took := took() - before; took != reckoned {
		t.Errorf("%d bytes were reckoned for what took %d", reckoned, took)
	}
	r.ch.ToBuild(0)
	if l.Ahead() != 0 {
		t.Errorf("%d bytes ahead once another node builds the indexes", l.Ahead())
	}
}

// TestNothingOfRowsIsLeftAhead, whatever becomes of them on their way.
func TestNothingOfRowsIsLeftAhead(t *testing.T) {
	for what, do := range map[string]func(r *rig, c *Coming, at Position){
		"they are read": func(r *rig, c *Coming, at Position) {
			c.Settled(at.Timestamp)
			must(r.t, r.ch.ApplyRows(Rows{SegmentID: 5, PartitionID: 7, Batch: r.batch(seq(0, 10), 0)}, at))
			r.ch.Advance(at)
			r.ch.Forget(5)
		},
		"they are read before their writer knows that they are there": func(r *rig, c *Coming, at Position) {
			must(r.t, r.ch.ApplyRows(Rows{SegmentID: 5, PartitionID: 7, Batch: r.batch(seq(0, 10), 0)}, at))
			r.ch.Advance(at)
			r.ch.Forget(5)
			if r.set.Ledger().Ahead() == 0 {
				r.t.Error("they are forgotten before it is known that they have been read")
			}
			c.Settled(at.Timestamp)
		},
		"they are not written": func(_ *rig, c *Coming, _ Position) { c.Settled(0) },
		"they may have been written, and were not": func(r *rig, c *Coming, at Position) {
			c.Settled(at.Timestamp)
			r.ch.Advance(r.tick())
		},
		"they are set aside": func(r *rig, c *Coming, at Position) {
			c.Settled(at.Timestamp)
			r.ch.Advance(at)
		},
		"their partition is dropped": func(r *rig, c *Coming, at Position) {
			c.Settled(at.Timestamp)
			r.coll.DropPartition(7)
			must(r.t, r.ch.ApplyRows(Rows{SegmentID: 5, PartitionID: 7, Batch: r.batch(seq(0, 10), 0)}, at))
			r.ch.Advance(at)
		},
		"their segment turns out to be stored": func(r *rig, c *Coming, at Position) {
			c.Settled(at.Timestamp)
			r.ch.MarkFlushed(5)
			must(r.t, r.ch.ApplyRows(Rows{SegmentID: 5, PartitionID: 7, Batch: r.batch(seq(0, 10), 0)}, at))
			r.ch.Advance(at)
		},
		"the channel is left": func(r *rig, c *Coming, at Position) {
			c.Settled(at.Timestamp)
			r.coll.Unwatch("v")
		},
		"the channel is left before it is known where they are": func(r *rig, c *Coming, at Position) {
			r.coll.Unwatch("v")
			if r.ch.Coming(6, r.batch(seq(0, 10), 0), 1) != nil || r.set.Ledger().Ahead() != 0 {
				r.t.Errorf("%d bytes are ahead of a channel that is not watched", r.set.Ledger().Ahead())
			}
			c.Settled(at.Timestamp)
		},
		"the channel is watched anew, and they are replayed": func(r *rig, c *Coming, at Position) {
			r.coll.Unwatch("v")
			ch, err := r.coll.Watch("v", Position{ID: "start", Timestamp: 1000}, nil)
			must(r.t, err)
			ch.ToBuild(1)
			c.Settled(at.Timestamp)
			must(r.t, ch.ApplyRows(Rows{SegmentID: 5, PartitionID: 7, Batch: r.batch(seq(0, 10), 0)}, at))
			ch.Advance(at)
			ch.Forget(5)
		},
		"the collection is dropped": func(r *rig, c *Coming, at Position) {
			c.Settled(at.Timestamp)
			r.set.Remove(1)
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, rigOptions{memory: 8 << 20, index: VectorIndex{Type: "HNSW", Metric: index.L2}})
			r.ch.ToBuild(1)
			c := r.ch.Coming(5, r.batch(seq(0, 10), 0), 1)
			if got, build := r.set.Ledger().Ahead(), BuildBytes(r.coll.Info(), 10, 1); got <= build {
				t.Errorf("%d bytes ahead, %d of the build", got, build)
			}
			do(r, c, r.tick())
			r.idle() // what is forgotten is closed beside
			if l := r.set.Ledger(); l.Ahead() != 0 || l.mu.coming != 0 || len(l.mu.ahead) != 0 {
				t.Errorf("%d bytes ahead, %d of rows, %d builds", l.Ahead(), l.mu.coming, len(l.mu.ahead))
			}
			(*Coming)(nil).Settled(1)
		})
	}
}

// TestRowsOfTheLogGoBeyondTheLimitWhereNothingElseMakesRoom: their seal is behind them in the log. While a segment is being stored
// they wait for that, and where others store them for those.
func TestRowsOfTheLogGoBeyondTheLimitWhereNothingElseMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rigOptions{memory: 300_000}) // the first chunk of a segment takes 139,264
		l := r.set.Ledger()
		r.insert(1, seq(0, 100)...)
		r.insert(2, 100)
		at, more := r.tick(), Rows{SegmentID: 2, PartitionID: 7, Batch: r.batch(seq(200, 3000), 0)}
		waits := func(why string) {
			t.Helper()
			for range 10 {
				if err := r.ch.ApplyRows(more, at); !errclass.Is(err, errclass.Exhausted) {
					t.Fatalf("%s: %v", why, err)
				}
				time.Sleep(time.Second)
			}
		}
		waits("another node stores them")
		r.ch.ToBuild(1)
		seal := r.tick()
		r.ch.ApplySeal([]int64{1}, seal)
		at = r.tick()
		if l.Leaving() != 1 {
			t.Fatalf("%d segments are to go", l.Leaving())
		}
		waits("a segment is being stored")
		r.ch.ToBuild(0)
		waits("another node does that now")
		r.ch.ToBuild(1)
		r.ch.Forget(1)
		r.idle()
		if l.Leaving() != 0 {
			t.Fatalf("%d segments are to go", l.Leaving())
		}
		l.limit.Store(100_000) // that was not enough
		l.Observe(1000, 1000)
		waits("the process has all it may")
		l.Observe(0, 0)
		must(t, r.ch.ApplyRows(more, at))
		if l.Total() < 200_000 || r.ch.Applied() != at {
			t.Errorf("%d bytes are used", l.Total())
		}
		more.Batch = r.batch(seq(3000, 4000), 0)
		must(t, r.ch.ApplyRows(more, r.tick())) // at once: there is no more room than before
		l.limit.Store(0)
		more.Batch = r.batch(seq(4000, 4010), 0)
		must(t, r.ch.ApplyRows(more, r.tick()))
		l.limit.Store(100_000)
		more.Batch = r.batch(seq(4010, 4020), 0)
		at = r.tick()
		if err := r.ch.ApplyRows(more, at); !errclass.Is(err, errclass.Exhausted) {
			t.Errorf("there has been room meanwhile: %v", err)
		}
		for range 3 { // what has no room for new segments does not either
			more.SegmentID = 3
			_ = r.ch.ApplyRows(more, at)
			time.Sleep(time.Second)
		}
		must(t, r.ch.ApplyRows(more, at))
		r.ch.Advance(at)
	})
}

// TestRowsDoNotWaitForASegmentThatStays though it has been stored: one that nobody has loaded, or that cannot be, gives no memory back.
func TestRowsDoNotWaitForASegmentThatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rigOptions{memory: 300_000})
		r.ch.ToBuild(1)
		r.insert(1, seq(0, 100)...)
		r.insert(2, 100)
		r.ch.ApplySeal([]int64{1}, r.tick())
		at, more := r.tick(), Rows{SegmentID: 2, PartitionID: 7, Batch: r.batch(seq(200, 3000), 0)}
		try := func(long time.Duration) (err error) {
			for end := time.Now().Add(long); err == nil && time.Now().Before(end); time.Sleep(time.Second) {
				if err = r.ch.ApplyRows(more, at); errclass.Is(err, errclass.Exhausted) {
					err = nil
				}
			}
			return err
		}
		must(t, try(time.Minute))
		r.ch.MarkFlushed(1)
		must(t, try(loadFor-time.Second))
		if r.ch.Applied() == at {
			t.Error("rows went beyond the limit before a segment that had been stored could be loaded")
		}
		must(t, try(2*time.Second))
		if r.ch.Applied() != at || r.set.Ledger().Leaving() != 0 {
			t.Errorf("rows wait still; %d segments are to go", r.set.Ledger().Leaving())
		}
	})
}

// TestASegmentThatWasNeverThereTakesNothingWithIt: one that had no room for its first rows is closed beside, when another may be in its place.
func TestASegmentThatWasNeverThereTakesNothingWithIt(t *testing.T) {
	r := newRig(t, rigOptions{index: VectorIndex{Type: "HNSW", Metric: index.L2}})
	r.ch.ToBuild(1)
	h, err := r.ch.newGrowing(Rows{SegmentID: 1, PartitionID: 7, Batch: r.batch(seq(0, 10), 0)})
	must(t, err)
	r.insert(1, seq(0, 100)...)
	r.ch.ApplySeal([]int64{1}, r.tick())
	r.set.discard(h)
	r.idle()
	if l := r.set.Ledger(); l.Leaving() != 1 || l.Ahead() != BuildBytes(r.coll.Info(), 100, 1) {
		t.Errorf("%d segments are to go, %d bytes ahead", l.Leaving(), l.Ahead())
	}
}

// TestAReaderThatIsFarBehind gives back what is ahead of it row by row, in the order of the log, also where writers hear of theirs in another.
func TestAReaderThatIsFarBehind(t *testing.T) {
	const rows = 3000
	r := newRig(t, rigOptions{memory: 1 << 30})
	var ats []Position
	var ahead []*Coming
	for i := range rows {
		ahead, ats = append(ahead, r.ch.Coming(5, r.batch([]int64{int64(i)}, 0), 1)), append(ats, r.tick())
	}
	for i := range rows {
		i ^= 1 // pairs by turns
		ahead[i].Settled(ats[i].Timestamp)
	}
	l := r.set.Ledger()
	for i, at := range ats {
		before := l.mu.coming
		r.ch.Advance(at)
		if gone := before - l.mu.coming; gone != ahead[i].bytes || len(r.ch.coming.mu.written) != rows-1-i {
			t.Fatalf("row %d: %d bytes are not ahead any more of %d, %d rows are still", i, gone, ahead[i].bytes, len(r.ch.coming.mu.written))
		}
	}
	if l.Ahead() != 0 {
		t.Errorf("%d bytes ahead", l.Ahead())
	}
}

// TestABuildTakesWhatThereIs: it may go a quarter beyond the limit. What does not fit into that is stored without its index, and told of.
func TestABuildTakesWhatThereIs(t *testing.T) {
	s := items()
	wide := s.Fields[3]
	wide.ID, wide.Name, wide.Dim = 900, "wide", 64
	s.Fields = append(s.Fields, wide)
	r := newRig(t, rigOptions{schema: s})
	info := r.coll.Info()
	info.Version++
	info.Indexes = map[int64]VectorIndex{vectorField: {Type: "HNSW", Metric: index.L2}, 900: {Type: "HNSW", Metric: index.L2}}
	r.coll.Update(info)
	b := r.batch(seq(0, 500), 0)
	for i := range b.Columns {
		if b.Columns[i].FieldID == 900 {
			b.Columns[i].Float = make([]float32, 500*64)
		}
	}
	at := r.tick()
	must(t, r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: b}, at))
	r.ch.Advance(at)
	growing, release := r.ch.Growing()
	defer release()
	g, l, sizes := growing[0], r.set.Ledger(), buildSizes(info, 500, 1)
	if len(sizes) != 2 || sizes[0] <= sizes[1] || BuildBytes(info, 500, 1) != sizes[0] {
		t.Fatalf("%v", sizes)
	}
	for _, c := range []struct {
		free    int64 // with the quarter
		most    int64
		without int
	}{{sizes[0], sizes[0], 0}, {sizes[0] - 1, sizes[1], 1}, {sizes[1], sizes[1], 1}, {sizes[1] - 1, 0, 2}} {
		l.limit.Store(4 << 20)
		taken := l.Force(KindCalls, 5<<20-l.Total()-c.free)
		room, err := g.Build(1, false)
		if whole := c.without == 0; whole != (err == nil) || !whole && !errclass.Is(err, errclass.Exhausted) {
			t.Errorf("%d bytes are free: %v", c.free, err)
		}
		if err != nil {
			room, err = g.Build(1, true)
			must(t, err)
		}
		if used := l.Used()[KindBuild]; used != c.most {
			t.Errorf("%d bytes are free: %d are taken, want %d", c.free, used, c.most)
		}
		var told []string
		o := BuildOptions{Meta: g.Meta(), Info: info, Workers: 1, Room: room, NoRoom: func(field string, err error) {
			told = append(told, field)
			if !errclass.Is(err, errclass.Exhausted) {
				t.Errorf("%s: %v", field, err)
			}
		}}
		o.Dir = filepath.Join(t.TempDir(), "1")
		m, err := Build(t.Context(), o, rowsOf(g))
		must(t, err)
		indexes := 0
		for _, f := range m.Files {
			if f.Index != nil {
				indexes++
			}
		}
		if len(told) != c.without || indexes != 2-c.without || (room.Short() == nil) != (c.without == 0) {
			t.Errorf("%d bytes are free: %d indexes, told of %v, %v", c.free, indexes, told, room.Short())
		}
		room.Release()
		taken.Release()
		l.limit.Store(0)
		if used := l.Used(); used[KindBuild] != 0 || l.mu.build != 0 {
			t.Errorf("%d bytes are left", used[KindBuild])
		}
	}
	// A segment without its index is served as any other, by a scan.
	taken := l.Force(KindCalls, 1<<30)
	l.limit.Store(1 << 20)
	room, err := g.Build(1, true)
	must(t, err)
	l.limit.Store(0)
	taken.Release()
	r.seal(1)
	r.uploadRows(BuildOptions{Meta: g.Meta(), Info: info, Workers: 1, Room: room, NoRoom: func(string, error) {}}, rowsOf(g))
	room.Release()
	must(t, r.load(1))
	res := r.found(SearchRequest{Queries: r.batch([]int64{77}, 0).Column(vectorField), NQ: 1, TopK: 3})
	if len(res.Keys.Int) != 3 || res.Keys.Int[0] != 77 {
		t.Errorf("found %v", res.Keys.Int)
	}
}

// rowsOf returns the rows of a segment, for Build.
func rowsOf(g *Growing) func() (*schema.Batch, error) {
	done := false
	return func() (*schema.Batch, error) {
		if done {
			return nil, io.EOF
		}
		done = true
		return g.Batch(0, g.Rows()), nil
	}
}

// TestWhoMakesRoomSeesRowsInTheLog: segments are made cold for them.
func TestWhoMakesRoomSeesRowsInTheLog(t *testing.T) {
	r := newRig(t, rigOptions{memory: 2 << 20})
	r.insert(1, seq(0, 2000)...)
	r.handOff(1)
	r.idle()
	c := r.ch.Coming(2, r.batch(seq(2000, 20_000), 0), 0)
	must(t, r.set.coolColdest(context.Background()))
	if st := r.coll.Segments(); len(st) != 1 || !st[0].Cold {
		t.Errorf("%+v with %d bytes ahead of %d", st, r.set.Ledger().Ahead(), r.set.Ledger().Limit())
	}
	c.Settled(0)
}

// BenchmarkRowsThroughTheLog is what it costs an entry of the log to be known ahead of.
func BenchmarkRowsThroughTheLog(b *testing.B) {
	info := CollectionInfo{Schema: items(), Indexes: map[int64]VectorIndex{vectorField: {Type: "AUTOINDEX", Metric: index.L2}}}
	x := newComing(NewLedger(1<<30), func() CollectionInfo { return info }, 0)
	x.builders(2)
	batch := (&rig{o: rigOptions{schema: items()}}).batch(seq(0, 500), 0)
	b.ReportAllocs()
	ts := uint64(0)
	for b.Loop() {
		ts++
		x.add(1, batch).Settled(ts)
		x.read(ts)
	}
}
