package segments

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
)

// slowBucket can hold up or fail the vectors and indexes that are fetched from it.
type slowBucket struct {
	objstore.Bucket
	fetched atomic.Int64 // files
	gate    atomic.Pointer[chan struct{}]
	fail    atomic.Pointer[error]
	late    atomic.Bool  // what is held up fails
	stale   atomic.Int64 // fetches up to this one fail, if late
}

func (b *slowBucket) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if name := filepath.Base(key); strings.HasPrefix(name, "vector_") || strings.HasPrefix(name, "index_") {
		n := b.fetched.Add(1)
		if err := b.fail.Load(); err != nil && !b.late.Load() {
			return nil, *err
		}
		if gate := b.gate.Load(); gate != nil {
			select {
			case <-*gate:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if err := b.fail.Load(); err != nil && n <= b.stale.Load() {
			return nil, *err
		}
	}
	return b.Bucket.Get(ctx, key, off, n)
}

// hold makes fetches wait until the returned function is called.
func (b *slowBucket) hold() (let func()) {
	gate := make(chan struct{})
	b.gate.Store(&gate)
	return sync.OnceFunc(func() { b.gate.Store(nil); close(gate) })
}

// tierRig is a rig with six loaded segments of 500 rows, and its bucket.
func tierRig(t *testing.T, o rigOptions) (*rig, *slowBucket) {
	t.Helper()
	b := &slowBucket{}
	more := o.set
	o.set = func(so *Options) {
		b.Bucket = so.Bucket
		so.Bucket = b
		if more != nil {
			more(so)
		}
	}
	r := newRig(t, o)
	for s := int64(1); s <= 6; s++ {
		r.insert(s, seq(s*1000, s*1000+500)...)
		r.handOff(s)
	}
	r.idle()
	return r, b
}

// shrink leaves room on the local disk for the vectors of n segments.
func (r *rig) shrink(n int64) {
	r.t.Helper()
	d, base, one := r.set.disk, r.set.Disk().Used, int64(0)
	snap := r.coll.Acquire()
	for _, h := range snap.view.segments {
		f := h.files(vectorField)
		one = f.bytes
		if f.isLocal() {
			base -= f.bytes
		}
	}
	snap.Release()
	d.limit.Store(base + n*one + one/2)
	d.force(0)
}

// remote lists the segments whose vectors are only in object storage.
func (r *rig) remote() (ids []int64) {
	for _, st := range r.coll.Segments() {
		if (st.Tier == TierRemote) != (st.RemoteBytes > 0) {
			r.t.Errorf("%+v", st)
		}
		if st.Tier == TierRemote {
			ids = append(ids, st.ID)
		}
	}
	return ids
}

func (r *rig) checkDisk() {
	r.t.Helper()
	if d := r.set.Disk(); d.Limit > 0 && d.Used > d.Limit && d.Fields > 1 {
		r.t.Errorf("%d of %d bytes of the local disk are in use", d.Used, d.Limit)
	}
	onDisk := int64(0)
	must(r.t, filepath.Walk(r.dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && info.Name() != "manifest.json" {
			onDisk += info.Size()
		}
		return err
	}))
	if d := r.set.Disk(); onDisk > d.Used {
		r.t.Errorf("%d bytes are on the local disk, %d are accounted", onDisk, d.Used)
	}
}

// nearestKeys is what an exact search by the model finds.
func (r *rig) nearestKeys(q []float32, k int) []int64 {
	type far struct {
		key int64
		d   float32
	}
	var all []far
	for key, row := range r.visible(r.now) {
		d := float32(0)
		for i, x := range row.v {
			d += (x - q[i]) * (x - q[i])
		}
		all = append(all, far{key, d})
	}
	slices.SortFunc(all, func(a, b far) int {
		switch {
		case a.d < b.d:
			return -1
		case a.d > b.d:
			return 1
		}
		return 0
	})
	keys := make([]int64, 0, k)
	for _, f := range all[:k] {
		keys = append(keys, f.key)
	}
	return keys
}

func (r *rig) checkSearch(key int64) {
	r.t.Helper()
	q := vectorOf(key, 0)
	res := r.found(SearchRequest{Vectors: q, TopK: 20, Read: Read{OutputFields: []int64{vectorField}}})
	if want := r.nearestKeys(q, 20); !slices.Equal(res.Keys.Int, want) {
		r.t.Fatalf("found %v, want %v", res.Keys.Int, want)
	}
	for i, k := range res.Keys.Int {
		if !slices.Equal(res.Fields[0].Vector(i), vectorOf(k, 0)) {
			r.t.Fatalf("key %d has the vector of another", k)
		}
	}
}

// TestSegmentsBeyondTheLocalDisk: where two of six segments have room, every form of
// read finds what it finds when all have, and the disk is never used beyond its limit.
func TestSegmentsBeyondTheLocalDisk(t *testing.T) {
	r, b := tierRig(t, rigOptions{})
	group := SearchRequest{Vectors: append(vectorOf(1200, 0), vectorOf(4100, 0)...), TopK: 5, Group: &Grouping{FieldID: colorField, Size: 3, Strict: true}}
	page := SearchRequest{Vectors: vectorOf(3333, 0), TopK: 700, Page: &Paging{}}
	hybrid := HybridRequest{NQ: 1, TopK: 30, Ranker: Ranker{RRF: 60}, Searches: []SubSearch{
		{FieldID: vectorField, Vectors: vectorOf(2100, 0), TopK: 50, Metric: index.L2},
		{FieldID: vectorField, Vectors: vectorOf(5100, 0), TopK: 50, Metric: index.L2, Plan: r.plan("id < 3000")},
	}}
	answers := func() (keys []int64) {
		t.Helper()
		for _, q := range []SearchRequest{group, page} {
			keys = append(keys, r.found(q).Keys.Int...)
		}
		res, err := r.coll.HybridSearch(t.Context(), &hybrid)
		must(t, err)
		return append(keys, res.Keys.Int...)
	}
	want := answers()
	if len(r.remote()) > 0 || b.fetched.Load() != 6 {
		t.Fatalf("%v are remote, %d files were fetched", r.remote(), b.fetched.Load())
	}
	r.shrink(2)
	if got := r.remote(); len(got) != 4 {
		t.Fatalf("%v are remote", got)
	}
	r.checkDisk()
	r.delete(1003, 5007) // deletes and scalars need no vectors
	r.check(r.now)
	if got := r.remote(); len(got) != 4 {
		t.Fatalf("%v are remote after a query", got)
	}
	for key := int64(1000); key < 7000; key += 400 {
		r.checkSearch(key)
		r.checkDisk()
	}
	r.deletes, r.rows = nil, nil // the model has done
	if got := answers(); len(got) != len(want) {
		t.Errorf("%d hits, with all local %d", len(got), len(want))
	}
	d := r.set.Disk()
	if d.Fetches == 0 || d.Evictions < d.Fetches || d.FetchErrors != 0 || d.Fields != 2 {
		t.Errorf("%+v", d)
	}
	if mapped := r.set.Ledger().Used()[KindMapped]; mapped > d.Limit {
		t.Errorf("%d bytes are mapped", mapped)
	}
	r.checkDisk()
}

// TestColumnsAreFetchedAlone: of two vector fields only the one that is searched.
func TestColumnsAreFetchedAlone(t *testing.T) {
	const second = 104
	s := items()
	s.Fields = append(s.Fields, schema.Field{ID: second, Name: "w", Type: schema.FloatVector, Dim: dim, Nullable: true})
	r, _ := tierRig(t, rigOptions{schema: s, set: func(o *Options) { o.Warmup = WarmupNone }})
	r.found(SearchRequest{Vectors: vectorOf(1, 0), TopK: 3})
	snap := r.coll.Acquire()
	defer snap.Release()
	for _, h := range snap.view.segments {
		if !h.files(vectorField).isLocal() || h.files(second).isLocal() {
			t.Errorf("segment %d: the field that was searched is local: %t, the other: %t", h.Meta().ID, h.files(vectorField).isLocal(), h.files(second).isLocal())
		}
	}
}

// TestManyReadsShareAFetch of each segment.
func TestManyReadsShareAFetch(t *testing.T) {
	r, b := tierRig(t, rigOptions{set: func(o *Options) { o.Warmup = WarmupNone }})
	if b.fetched.Load() != 0 || len(r.remote()) != 6 {
		t.Fatalf("%d files were fetched, %v are remote", b.fetched.Load(), r.remote())
	}
	let := b.hold()
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() { r.checkSearch(2222) })
	}
	eventually(t, "each file is fetched by one goroutine", func() bool { return len(r.set.group.Running()) >= 6 }) // besides what always runs
	let()
	readers.Wait()
	if n := b.fetched.Load(); n != 6 || len(r.remote()) != 0 {
		t.Errorf("%d files were fetched, %v are remote", n, r.remote())
	}
}

// endsAt is a context that tells of a deadline, and does not end by it.
type endsAt struct {
	context.Context
	at time.Time
}

// Deadline is what is told.
func (c endsAt) Deadline() (time.Time, bool) { return c.at, true }

// TestAFetchThatTakesTooLong fails the read in time, with an error that may pass; or it
// is answered without, if it allows that. The fetch goes on.
func TestAFetchThatTakesTooLong(t *testing.T) {
	r, b := tierRig(t, rigOptions{})
	r.shrink(3)
	gone := r.remote()
	r.set.disk.limit.Store(0) // so that nothing has to leave for them
	let := b.hold()
	defer let()
	ask := func(partial bool) (*SearchResult, error) {
		long, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ctx := endsAt{long, time.Now().Add(500 * time.Millisecond)} // what is left of that is little on a busy machine
		return r.coll.Search(ctx, &SearchRequest{Read: Read{AllowPartial: partial}, FieldID: vectorField, Vectors: vectorOf(1, 0), NQ: 1, TopK: 2000, Metric: index.L2})
	}
	_, err := ask(false)
	wantClass(t, err, errclass.Retryable)
	if !strings.Contains(err.Error(), fmt.Sprintf("field %d of segment %d", vectorField, gone[0])) {
		t.Errorf("%v does not say what was waited for", err)
	}
	res, err := ask(true)
	must(t, err)
	if st := res.Stats; len(st.Failures) != 3 || len(st.Sealed) != 3 || st.SearchedShare != 0.5 || len(res.Keys.Int) != 1500 {
		t.Errorf("%d hits, %+v", len(res.Keys.Int), st)
	}
	let()
	r.checkSearch(1234)
	for _, st := range r.coll.Segments() {
		if st.State != "loaded" {
			t.Errorf("%+v", st)
		}
	}
}

// TestAFetchThatFails is an error that may pass, and is tried again.
func TestAFetchThatFails(t *testing.T) {
	r, b := tierRig(t, rigOptions{set: func(o *Options) { o.Warmup = WarmupNone }})
	lost := errclass.New(errclass.NotFound, "no such object")
	b.fail.Store(&lost)
	_, err := r.search(SearchRequest{Vectors: vectorOf(1, 0), TopK: 3})
	wantClass(t, err, errclass.Retryable)
	b.fail.Store(nil)
	for err != nil { // a search may still join a fetch that began before
		_, err = r.search(SearchRequest{Vectors: vectorOf(1, 0), TopK: 3})
		if err != nil {
			wantClass(t, err, errclass.Retryable)
		}
	}
	r.checkSearch(1)
	if d := r.set.Disk(); d.FetchErrors == 0 {
		t.Errorf("%+v", d)
	}
	r.checkDisk()
}

// TestAReadDoesNotFailForAFetchThatBeganBeforeIt: it has one of its own.
func TestAReadDoesNotFailForAFetchThatBeganBeforeIt(t *testing.T) {
	r, b := tierRig(t, rigOptions{set: func(o *Options) { o.Warmup = WarmupNone }})
	lost := errclass.New(errclass.NotFound, "no such object")
	b.fail.Store(&lost)
	let := b.hold()
	b.late.Store(true) // it fails once it is let
	var first, second sync.WaitGroup
	first.Go(func() {
		_, err := r.search(SearchRequest{Vectors: vectorOf(1, 0), TopK: 3})
		wantClass(t, err, errclass.Retryable)
	})
	seen := r.coll.Acquire()
	defer seen.Release()
	claims := func() (n int) {
		for _, h := range seen.view.segments {
			f := h.files(vectorField)
			f.mu.Lock()
			n += f.mu.claims
			f.mu.Unlock()
		}
		return n
	}
	wait := func(ok func() bool) {
		for end := time.Now().Add(hangs); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				let()
				t.Fatalf("%d claims, %d fetched", claims(), b.fetched.Load())
			}
		}
	}
	wait(func() bool { return claims() == 6 && b.fetched.Load() > 0 })
	second.Go(func() { r.checkSearch(1) })
	wait(func() bool { return claims() == 12 })
	b.stale.Store(b.fetched.Load())
	let()
	first.Wait()
	second.Wait()
	r.checkDisk()
}

// TestDamagedVectorsInObjectStorage quarantine the segment when they are fetched.
func TestDamagedVectorsInObjectStorage(t *testing.T) {
	r, _ := tierRig(t, rigOptions{set: func(o *Options) { o.Warmup = WarmupNone }})
	key := fmt.Sprintf("segments/3/vector_%d.npy", vectorField)
	raw, err := objstore.ReadAll(t.Context(), r.bucket, key, 1<<20)
	must(t, err)
	raw[5000] ^= 1
	must(t, r.bucket.Delete(t.Context(), key))
	r.object(key, raw)
	_, err = r.search(SearchRequest{Vectors: vectorOf(1, 0), TopK: 3})
	wantClass(t, err, errclass.Corrupt)
	if st := r.statusOf(3); st.State != "quarantined" {
		t.Errorf("%+v", st)
	}
	r.checkDisk()
}

// TestWarmup: the policy of the load goes before that of the collection, and that
// before the node's.
func TestWarmup(t *testing.T) {
	r := newRig(t, rigOptions{set: func(o *Options) { o.Warmup = WarmupNone }})
	load := func(id int64, how Warmup) SegmentStatus {
		t.Helper()
		r.insert(id, seq(id*100, id*100+50)...)
		r.seal(id)
		r.upload(id)
		must(t, r.coll.Load(t.Context(), LoadRequest{SegmentID: id, VChannel: "v", Path: fmt.Sprintf("segments/%d", id), Warmup: how}))
		return r.statusOf(id)
	}
	if st := load(1, ""); st.Tier != TierRemote || st.Indexes[vectorField] != "FLAT" {
		t.Errorf("none: %+v", st)
	}
	if st := load(2, WarmupSync); st.Tier != TierMemory {
		t.Errorf("sync: %+v", st)
	}
	info := r.coll.Info()
	info.Warmup = WarmupSync
	r.coll.Update(info)
	if st := load(3, ""); st.Tier != TierMemory {
		t.Errorf("sync, by the collection: %+v", st)
	}
	load(4, WarmupAsync)
	eventually(t, "a segment is fetched in the background", func() bool { return r.statusOf(4).Tier != TierRemote })
	r.shrink(3)
	if st := load(5, WarmupSync); st.Tier != TierRemote { // no room that is free
		t.Errorf("sync without room: %+v", st)
	}
	r.check(r.now)
	r.checkSearch(3)
	r.checkDisk()
}

// TestASegmentThatNeverFits is refused with the numbers.
func TestASegmentThatNeverFits(t *testing.T) {
	r := newRig(t, rigOptions{set: func(o *Options) { o.DiskBytes = 20_000 }})
	r.insert(1, seq(0, 2000)...)
	r.seal(1)
	r.upload(1)
	err := r.load(1)
	wantClass(t, err, errclass.Exhausted)
	if !strings.Contains(err.Error(), "the limit is 20000") {
		t.Errorf("%v does not have the numbers", err)
	}
	if d := r.set.Disk(); d.Used != 0 {
		t.Errorf("%+v", d)
	}
}

// TestReleaseWhileAFetchHangs ends the fetch and leaves nothing.
func TestReleaseWhileAFetchHangs(t *testing.T) {
	r, b := tierRig(t, rigOptions{set: func(o *Options) { o.Warmup = WarmupNone }})
	let := b.hold()
	defer let()
	ctx, cancel := context.WithCancel(t.Context())
	read := make(chan error, 1)
	go func() {
		_, err := r.coll.Search(ctx, &SearchRequest{FieldID: vectorField, Vectors: vectorOf(1, 0), NQ: 1, TopK: 3, Metric: index.L2})
		read <- err
	}()
	eventually(t, "a fetch has begun", func() bool { return b.fetched.Load() > 0 })
	r.coll.Release(1, 2, 3, 4, 5, 6)
	cancel() // the reader holds them
	if err := <-read; err == nil {
		t.Error("a read that was cancelled has an answer")
	}
	r.idle()
	if d := r.set.Disk(); d.Used != 0 || d.Fields != 0 {
		t.Errorf("left: %+v", d)
	}
}

// TestEvictionUnderReads: many readers, deletes and cooling while segments come and go.
func TestEvictionUnderReads(t *testing.T) {
	r, _ := tierRig(t, rigOptions{})
	r.shrink(2)
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for i := range int64(3) {
		readers.Go(func() {
			for n := int64(0); n < 15 && ctx.Err() == nil; n++ {
				key := (i+n)%6*1000 + 1000 + n + 100
				res, err := r.coll.Search(ctx, &SearchRequest{Read: Read{OutputFields: []int64{vectorField, priceField}}, FieldID: vectorField,
					Vectors: vectorOf(key, 0), NQ: 1, TopK: 5, Metric: index.L2})
				if err != nil {
					t.Errorf("%+v", err)
					return
				}
				if res.Keys.Int[0] != key || res.Scores[0] != 0 || !slices.Equal(res.Fields[0].Vector(0), vectorOf(key, 0)) || res.Fields[1].Int[0] != key*10 {
					t.Errorf("for %d: %v", key, res.Keys.Int)
				}
			}
		})
	}
	for s := int64(1); s <= 6; s++ {
		r.cool(s)
		r.delete(s*1000, s*1000+1)
	}
	readers.Wait()
	stop()
	r.check(r.now)
	r.checkDisk()
}

// TestFilesThatAreReadDoNotLeave, also if the read has begun after they were chosen.
func TestFilesThatAreReadDoNotLeave(t *testing.T) {
	f := &fieldFiles{disk: &localDisk{}}
	f.mu.local = true
	if _, idle := f.idle(); !idle || !f.here(1) {
		t.Fatal("nobody reads them, and they are not to be had")
	}
	if _, idle := f.idle(); idle || f.beginLeaving() {
		t.Error("they leave under a read")
	}
	f.drop()
	if !f.beginLeaving() || f.here(2) {
		t.Error("they are to be had although they leave")
	}
}
