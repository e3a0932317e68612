package segments

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// fewDeletes is a rig whose channels keep few deletes in memory.
func fewDeletes(o *Options) { o.DeleteBytes = 2048 }

// spilled lists the files of deletes on the local disk.
func (r *rig) spilled() []string {
	r.t.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, "deletes-*"))
	must(r.t, err)
	return files
}

// onDisk is what the ledger of the local disk has.
func (r *rig) onDisk() int64 {
	r.set.disk.mu.Lock()
	defer r.set.disk.mu.Unlock()
	return r.set.disk.mu.used
}

// TestManyDeletesGoToTheLocalDisk while their file in object storage does not come: memory has few of them, and a segment that is
// loaded has all of them hidden, at all times.
func TestManyDeletesGoToTheLocalDisk(t *testing.T) {
	r := newRig(t, rigOptions{set: fewDeletes})
	r.insert(1, seq(1, 300)...)
	r.put(2, seq(300, 330), 0, false, 8)
	for _, id := range []int64{1, 2} {
		r.seal(id)
		r.upload(id)
		r.ch.Forget(id)
	}
	most := int64(0)
	for k := int64(1); k < 200; k += 4 {
		switch k % 3 {
		case 0:
			r.deleteIn(7, k, k+1, 310)
		case 1:
			r.deleteIn(8, k, 300+k%30)
		default:
			r.delete(k, k+2, 1000+k)
		}
		most = max(most, r.set.Ledger().Used()[KindDeletes])
	}
	files, all := r.spilled(), r.ch.DeleteBytes()
	if limit := 2*r.set.o.DeleteBytes + 1024; most > limit || all < 2*limit || len(files) < 4 {
		t.Errorf("at most %d bytes in memory, want up to %d; %d deletes' bytes in all, %d files", most, limit, all, len(files))
	}
	var sizes int64
	for _, f := range files {
		st, err := os.Stat(f)
		must(t, err)
		sizes += st.Size()
	}
	if got := r.onDisk(); got != sizes || r.set.Disk().Deletes != sizes {
		t.Errorf("%d bytes of the local disk are told, %d of deletes, the files have %d", got, r.set.Disk().Deletes, sizes)
	}
	before := r.now
	must(t, r.load(1))
	must(t, r.load(2))
	r.delete(298, 299)
	r.ch.Advance(r.tick())
	r.checkAlways()

	// They are in object storage: once no load needs them, they go.
	loaded := r.onDisk() - sizes
	unpin := r.ch.PinDeletes()
	r.ch.TrimDeletes(before)
	if got := r.spilled(); !slices.Equal(got, files) {
		t.Errorf("%d files are left of %d, and a load may read them", len(got), len(files))
	}
	unpin()
	if got := r.spilled(); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	if got := r.onDisk(); got != loaded || r.ch.DeleteBytes() == 0 || r.ch.DeleteBytes() > 1000 {
		t.Errorf("%d bytes of the local disk are told, want %d; %d bytes of deletes, want those of the last", got, loaded, r.ch.DeleteBytes())
	}
	if n := r.set.buffered.Load(); n != r.ch.DeleteBytes() || r.set.Disk().Deletes != 0 {
		t.Errorf("the set knows of %d bytes of deletes, there are %d; %d on the local disk", n, r.ch.DeleteBytes(), r.set.Disk().Deletes)
	}
}

// TestDeletesThatComeDuringALoadMayGoToTheLocalDisk: the load applies them from there, be it while it is about to publish.
func TestDeletesThatComeDuringALoadMayGoToTheLocalDisk(t *testing.T) {
	r := newRig(t, rigOptions{set: fewDeletes})
	r.insert(1, seq(1, 400)...)
	r.seal(1)
	r.upload(1)
	r.ch.Forget(1)
	for k := int64(1); k < 50; k++ {
		r.delete(k, 1000+k)
	}
	stalled, goOn := r.stall()
	done := r.loadLater(1)
	<-stalled
	for k := int64(50); k < 150; k++ {
		r.delete(k, 1000+k)
	}
	goOn()
	for k := int64(150); k < 300; k++ {
		r.upsert(2, 1, k)
		r.ch.TrimDeletes(0)
	}
	must(t, <-done)
	if len(r.spilled()) < 3 {
		t.Fatalf("%d files of deletes", len(r.spilled()))
	}
	r.checkAlways()
}

// TestDeletesAreTakenFromTheBufferWherePublishingFindsThem: in files that were there, in files written since, and in memory.
func TestDeletesAreTakenFromTheBufferWherePublishingFindsThem(t *testing.T) {
	b := &deleteBuffer{}
	add := func(ts uint64) {
		b.add(deletesAt(0, &schema.Column{FieldID: idField, Type: schema.Int64, Int: []int64{int64(ts)}}, ts))
	}
	spill := func(n int) {
		end := b.first() + uint64(n)
		b.files = append(b.files, &DeleteFile{Path: fmt.Sprint(end), MinTimestamp: b.batches[0].Timestamps[0], MaxTimestamp: b.batches[n-1].Timestamps[0], end: end, Size: 1, memory: 400})
		b.drop(end)
	}
	see := func(number uint64) (seen string) {
		files, batches := b.since(number)
		for _, f := range files {
			seen += fmt.Sprintf("[%d-%d]", f.MinTimestamp, f.MaxTimestamp)
		}
		for _, d := range batches {
			seen += fmt.Sprint(" ", d.Timestamps[0])
		}
		return seen
	}
	for ts := uint64(10); ts < 20; ts++ {
		add(ts)
	}
	spill(3)
	spill(4)
	for _, c := range []struct {
		number uint64
		want   string
	}{{0, "[10-12][13-16] 17 18 19"}, {3, "[13-16] 17 18 19"}, {5, "[13-16] 17 18 19"}, {7, " 17 18 19"}, {8, " 18 19"}, {10, ""}} {
		if got := see(c.number); got != c.want {
			t.Errorf("from %d on there are %q, want %q", c.number, got, c.want)
		}
	}
	for _, c := range []struct {
		after uint64
		want  int64
	}{{0, 800}, {9, 800}, {11, 800 - 200}, {12, 400}, {13, 400}, {16, 0}, {100, 0}} {
		if got := b.held(c.after) - b.bytes; got != c.want {
			t.Errorf("after %d there are %d bytes in files, want %d", c.after, got, c.want)
		}
	}
	for _, c := range []struct {
		upTo uint64
		gone int
		want string
	}{{9, 0, "[10-12][13-16] 17 18 19"}, {12, 1, "[13-16] 17 18 19"}, {14, 0, "[13-16] 17 18 19"}, {18, 1, " 19"}, {30, 0, ""}} {
		if gone := b.trim(c.upTo); len(gone) != c.gone || see(0) != c.want {
			t.Errorf("trimmed up to %d: %d files are gone, %q are left", c.upTo, len(gone), see(0))
		}
	}
	if b.bytes != 0 || b.next != 10 || b.first() != 10 {
		t.Errorf("empty: %+v", b)
	}
}

// TestDeletesOnTheLocalDiskGoWithTheirChannel, and who was about to read them is told.
func TestDeletesOnTheLocalDiskGoWithTheirChannel(t *testing.T) {
	r := newRig(t, rigOptions{set: fewDeletes})
	r.insert(1, seq(1, 400)...)
	r.seal(1)
	r.upload(1)
	r.ch.Forget(1)
	stalled, goOn := r.stall()
	done := r.loadLater(1)
	<-stalled
	for k := int64(1); k < 50; k++ {
		r.delete(k, 1000+k)
	}
	if len(r.spilled()) == 0 {
		t.Fatal("no deletes are on the local disk")
	}
	r.coll.Unwatch("v")
	if left := r.spilled(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	goOn()
	wantClass(t, <-done, errclass.Conflict)
	eventually(t, "the load gives its room back", func() bool { return r.onDisk() == 0 })
	if n := r.set.buffered.Load(); n != 0 {
		t.Errorf("the set knows of %d bytes of deletes", n)
	}
	// Of the channel that is not there any more nothing is written.
	r.ch.spilling <- struct{}{}
	must(t, r.ch.spill(Latest))
}

// TestAChannelMayGoWhileASegmentOfItIsPublished, be it with many deletes in files or with few in memory.
func TestAChannelMayGoWhileASegmentOfItIsPublished(t *testing.T) {
	for name, deletes := range map[string]int64{"in files": 50, "in memory": 3} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{set: fewDeletes})
			r.insert(1, seq(1, 400)...)
			r.seal(1)
			r.upload(1)
			r.ch.Forget(1)
			for k := range deletes {
				r.delete(k, 1000+k)
			}
			// Of what publish has applied when it looks what else has come, the buffer of a channel that has gone knows nothing.
			done, err := r.ch.applyBuffered(t.Context(), nil, 0)
			must(t, err)
			r.coll.Unwatch("v")
			if files, batches := r.ch.mu.buffer.since(done); len(files)+len(batches) > 0 {
				t.Errorf("%d files and %d batches of a channel that has gone", len(files), len(batches))
			}
			wantClass(t, r.ch.publish(t.Context(), nil, nil, 0), errclass.Conflict)
			r.ch.PinDeletes()() // is not locked
		})
	}
}

// TestAKeyThatIsTooLongForRowsHidesNothing, and no checkpoint waits for it: a file of deletes does not take it.
func TestAKeyThatIsTooLongForRowsHidesNothing(t *testing.T) {
	r := newRig(t, rigOptions{set: fewDeletes})
	pk := schema.Field{ID: idField, Type: schema.VarChar}
	long := strings.Repeat("x", schema.MaxVarChar)
	for _, c := range []struct{ keys, want []string }{
		{[]string{"a", long + "x", "b", long}, []string{"a", "b", long}},
		{[]string{long + "x"}, nil},
		{[]string{"a"}, []string{"a"}},
		{nil, nil},
	} {
		got := possibleKeys(pk, &schema.Column{FieldID: idField, Type: schema.VarChar, Str: c.keys})
		if !slices.Equal(got.Str, c.want) {
			t.Errorf("%d keys are possible, want %d", len(got.Str), len(c.want))
		}
	}
	if got := possibleKeys(pk, &schema.Column{FieldID: idField, Type: schema.VarChar, Str: []string{"", "a"}, Valid: []bool{false, true}}); !slices.Equal(got.Str, []string{"a"}) {
		t.Errorf("%q are possible, one is null", got.Str)
	}
	at := r.tick()
	r.ch.ApplyDeletes(0, &schema.Column{FieldID: idField, Type: schema.VarChar, Str: []string{"1"}}, at) // of another type than the key
	if got := r.ch.Applied(); got != at || r.ch.DeleteBytes() != 0 {
		t.Errorf("applied up to %v, want %v; %d bytes of deletes", got, at, r.ch.DeleteBytes())
	}
	if _, err := r.ch.DeleteFiles(t.Context(), 0, Latest); err != nil {
		t.Error(err)
	}
}

// TestTheReaderOfTheLogWaitsWhereOthersWriteDeletes once there are many more than may be in memory, but not for longer than its channel
// is there.
func TestTheReaderOfTheLogWaitsWhereOthersWriteDeletes(t *testing.T) {
	for name, goOn := range map[string]func(r *rig){
		"until it is its turn":   func(r *rig) { <-r.ch.spilling },
		"until the channel goes": func(r *rig) { r.coll.Unwatch("v") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{set: fewDeletes})
			r.ch.spilling <- struct{}{} // somebody does
			done, limit, most := make(chan struct{}), 4*r.set.o.DeleteBytes, int64(0)
			go func() {
				defer close(done)
				for k := range int64(100) {
					most = max(most, r.set.buffered.Load())
					r.ch.ApplyDeletes(0, intKeys(k), r.tick())
				}
			}()
			eventually(t, "many deletes", func() bool { return r.set.buffered.Load() > limit })
			goOn(r)
			<-done
			if most > limit {
				t.Errorf("%d bytes of deletes are in memory, and the next are applied", most)
			}
		})
	}
}

// TestDeletesStayInMemoryWhereTheDiskTakesNone, and go once it does.
func TestDeletesStayInMemoryWhereTheDiskTakesNone(t *testing.T) {
	r := newRig(t, rigOptions{set: fewDeletes})
	r.insert(1, seq(1, 400)...)
	r.seal(1)
	r.upload(1)
	r.ch.Forget(1)
	must(t, os.Rename(r.dir, r.dir+"-away"))
	for k := int64(1); k < 50; k++ {
		r.delete(k, 1000+k)
	}
	if got := r.set.Ledger().Used()[KindDeletes]; got < 4*r.set.o.DeleteBytes || got != r.ch.DeleteBytes() {
		t.Errorf("%d bytes in memory, want all %d", got, r.ch.DeleteBytes())
	}
	if _, err := r.ch.DeleteFiles(t.Context(), 0, Latest); err == nil {
		t.Error("files without a folder")
	}
	must(t, os.Rename(r.dir+"-away", r.dir))
	must(t, r.load(1))
	r.delete(50) // not yet
	if len(r.spilled()) != 0 {
		t.Errorf("tried again at once: %v", r.spilled())
	}
	r.ch.mu.Lock()
	r.ch.mu.unspilt = time.Now() // it is
	r.ch.mu.Unlock()
	r.delete(51)
	if got := r.set.Ledger().Used()[KindDeletes]; len(r.spilled()) == 0 || got > r.set.o.DeleteBytes {
		t.Errorf("%d files, %d bytes in memory", len(r.spilled()), got)
	}
	r.checkAlways()
}

// TestChannelsShareWhatDeletesMayTake: many of them with few deletes each are many deletes.
func TestChannelsShareWhatDeletesMayTake(t *testing.T) {
	r := newRig(t, rigOptions{set: fewDeletes})
	most := int64(0)
	for i := range 40 {
		name := fmt.Sprint("w", i)
		ch, err := r.coll.Watch(name, Position{ID: "start", Timestamp: 1000}, nil)
		must(t, err)
		defer r.coll.Unwatch(name)
		ch.ApplyDeletes(0, intKeys(1, 2, 3), r.tick())
		most = max(most, r.set.buffered.Load())
		if used := r.set.Ledger().Used()[KindDeletes]; used != r.set.buffered.Load() {
			t.Fatalf("the ledger has %d bytes of deletes, the set %d", used, r.set.buffered.Load())
		}
	}
	if limit := 2*r.set.o.DeleteBytes + 400; most > limit || len(r.spilled()) == 0 {
		t.Errorf("%d bytes in memory, want at most %d; %d files", most, limit, len(r.spilled()))
	}
}

// TestDeleteFilesHaveTheDeletesThatAreAskedFor, those in memory, too; and newer ones stay there.
func TestDeleteFilesHaveTheDeletesThatAreAskedFor(t *testing.T) {
	r := newRig(t, rigOptions{})
	defer r.ch.PinDeletes()()
	a, b := r.delete(1, 2), r.delete(3)
	c := r.deleteIn(7, 4)
	d := r.delete(5)
	see := func(after, upTo uint64) (keys []int64) {
		files, err := r.ch.DeleteFiles(t.Context(), after, upTo)
		must(t, err)
		for _, f := range files {
			rows := 0
			must(t, f.Each(func(d *DeleteBatch) error {
				keys, rows = append(keys, d.Keys.Int...), rows+len(d.Timestamps)
				if d.Timestamps[0] < f.MinTimestamp || slices.Max(d.Timestamps) > f.MaxTimestamp || d.Partition != f.Partition {
					t.Errorf("%+v in %+v", d, f)
				}
				return nil
			}))
			if st, err := os.Stat(f.Path); err != nil || st.Size() != f.Size || rows != f.Rows {
				t.Errorf("%+v: %v, %v", f, st, err)
			}
		}
		return keys
	}
	for _, w := range []struct {
		after, upTo uint64
		want        []int64
		memory      int64
	}{{0, a - 1, nil, 4}, {0, b, []int64{1, 2, 3}, 2}, {a, b, []int64{1, 2, 3}, 2}, {b, c, []int64{4}, 1}, {d, d, nil, 0}, {0, Latest, []int64{1, 2, 3, 4, 5}, 0}} {
		if got := see(w.after, w.upTo); !slices.Equal(got, w.want) {
			t.Errorf("in (%d, %d] there are %v, want %v", w.after, w.upTo, got, w.want)
		}
		if got := int64(len(r.ch.mu.buffer.batches)); got != w.memory {
			t.Errorf("after (%d, %d] %d batches are in memory, want %d", w.after, w.upTo, got, w.memory)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.ch.spilling <- struct{}{}
	if _, err := r.ch.DeleteFiles(ctx, 0, Latest); err == nil {
		t.Error("no error, though the caller has gone and another writes them")
	}
	<-r.ch.spilling
}

// TestFilesOfDeletesAreJoined: those of some timestamps are one file, in their order.
func TestFilesOfDeletesAreJoined(t *testing.T) {
	r := newRig(t, rigOptions{})
	defer r.ch.PinDeletes()()
	var at []uint64
	var files []*DeleteFile
	for k := range int64(40) {
		at = append(at, r.deleteIn(7, seq(100*k, 100*k+100)...))
		if k%15 == 14 || k == 39 {
			var err error
			files, err = r.ch.DeleteFiles(t.Context(), 0, Latest)
			must(t, err)
		}
	}
	if len(files) != 3 {
		t.Fatalf("%d files", len(files))
	}
	pk := r.o.schema.Primary()
	for _, c := range []struct {
		after, upTo uint64
		from, to    int64 // of the batches
	}{{0, at[0] - 1, 0, 0}, {0, at[0], 0, 1}, {at[0], at[0], 0, 0}, {at[3], at[35], 4, 36}, {at[38], Latest, 39, 40}, {at[39], Latest, 0, 0}} {
		path := filepath.Join(t.TempDir(), "part")
		part, err := JoinDeletes(path, pk, files, c.after, c.upTo)
		must(t, err)
		if c.from == c.to {
			if _, err := os.Stat(path); part != nil || !os.IsNotExist(err) {
				t.Errorf("(%d, %d]: %+v, %v", c.after, c.upTo, part, err)
			}
			continue
		}
		var keys []int64
		must(t, part.Each(func(d *DeleteBatch) error { keys = append(keys, d.Keys.Int...); return nil }))
		if !slices.Equal(keys, seq(100*c.from, 100*c.to)) || part.Partition != 7 || part.Rows != len(keys) || part.MinTimestamp != at[c.from] || part.MaxTimestamp != at[c.to-1] {
			t.Errorf("(%d, %d]: %d keys in %+v", c.after, c.upTo, len(keys), part)
		}
	}
}

// TestManyDeletesAreSeveralFiles: what piles up while storage is away must not be
// more than a file may hold, or the checkpoint would never move again.
func TestManyDeletesAreSeveralFiles(t *testing.T) {
	var batches []*DeleteBatch
	for i := range int64(10) {
		batches = append(batches, deletesAt(i%2, intKeys(2*i, 2*i+1), uint64(i)))
	}
	one := batches[0].bytes()
	for _, c := range []struct {
		rows  int
		bytes int64
		files int
	}{{1 << 20, 1 << 20, 2}, {4, 1 << 20, 6}, {1 << 20, 2 * one, 6}, {1 << 20, 3*one - 1, 6}, {1, 1, 10}} {
		files := split(batches, c.rows, c.bytes)
		if len(files) != c.files {
			t.Errorf("%d files of at most %d rows and %d bytes, want %d", len(files), c.rows, c.bytes, c.files)
		}
		for part := range int64(2) {
			var got, want []*DeleteBatch
			for _, f := range files {
				if f[0].Partition == part {
					got = append(got, f...)
				}
			}
			for _, b := range batches {
				if b.Partition == part {
					want = append(want, b)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("partition %d: %v, want %v", part, got, want)
			}
		}
	}
}

// TestSmallFilesOfDeletesAreOneInObjectStorage, as far as one may be as large: where they are of many partitions, or of many
// channels, they are small, and a channel can have so and so many.
func TestSmallFilesOfDeletesAreOneInObjectStorage(t *testing.T) {
	var files []*DeleteFile
	for i := range int64(12) {
		files = append(files, &DeleteFile{Partition: i % 3, Rows: 10, memory: 1 << 19})
	}
	for _, c := range []struct{ limit, want int64 }{{0, 3}, {64 << 20, 3}, {48 << 20, 6}, {1 << 20, 6}} {
		groups := SplitDeletes(files, NewLedger(c.limit))
		if int64(len(groups)) != c.want {
			t.Errorf("a ledger of %d: %d files, want %d", c.limit, len(groups), c.want)
		}
		for _, g := range groups {
			for _, f := range g {
				if f.Partition != g[0].Partition {
					t.Errorf("partitions %d and %d are in one file", f.Partition, g[0].Partition)
				}
			}
		}
	}
	files[0].Rows = deleteFileRows
	if groups := SplitDeletes(files, NewLedger(0)); len(groups) != 4 {
		t.Errorf("%d files, though one is full", len(groups))
	}
}

// TestAFewDeletesAreManyWhereMemoryIsSmall: they are written from a part of the limit on.
func TestAFewDeletesAreManyWhereMemoryIsSmall(t *testing.T) {
	for _, c := range []struct{ limit, want int64 }{{0, 64 << 20}, {64 << 30, 64 << 20}, {192 << 20, 12 << 20}, {1 << 20, 1 << 20}} {
		r := newRig(t, rigOptions{memory: c.limit})
		if got := r.ch.MaxDeletes(); got != c.want {
			t.Errorf("of %d bytes %d, want %d", c.limit, got, c.want)
		}
	}
}

// TestFilesOfDeletesOfAnEarlierRunAreRemoved at the start.
func TestFilesOfDeletesOfAnEarlierRunAreRemoved(t *testing.T) {
	r := newRig(t, rigOptions{set: func(o *Options) {
		must(t, os.MkdirAll(o.Dir, 0o755))
		for _, name := range []string{"deletes-17", "deletes-1", "deletes-of-mine"} {
			must(t, os.WriteFile(filepath.Join(o.Dir, name), []byte("x"), 0o600))
		}
	}})
	if left := r.spilled(); len(left) != 1 || filepath.Base(left[0]) != "deletes-of-mine" {
		t.Errorf("left: %v", left)
	}
}
