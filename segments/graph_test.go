package segments

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
)

// built waits until the graph of a growing segment has n rows.
func (r *rig) built(segment int64, n int) {
	r.t.Helper()
	v := r.holderOf(segment).segment.(*Growing).vectors[0]
	for v.graph.Load() == nil || int(v.graph.Load().rows.Load()) < n {
		if r.t.Failed() {
			return
		}
		runtime.Gosched()
	}
}

// recall is the share of the model's nearest k that a search at T finds.
func (r *rig) recall(query []float32, k int, at uint64) float64 {
	r.t.Helper()
	res := r.found(SearchRequest{Vectors: query, TopK: k, Read: Read{ReadTimestamp: at}})
	want := r.nearest(query, k, at, nil)
	found := 0
	for _, row := range want {
		if slices.Contains(res.Keys.Int, row.key) {
			found++
		}
	}
	return float64(found) / float64(len(want))
}

func hnsw(m index.Metric) rigOptions { return rigOptions{index: VectorIndex{Type: "HNSW", Metric: m}} }

func TestAGrowingSegmentGetsAGraph(t *testing.T) {
	for _, metric := range []index.Metric{index.L2, index.IP, index.Cosine} {
		t.Run(metric.String(), func(t *testing.T) {
			r := newRig(t, hnsw(metric))
			r.set.graphAfter = 300
			r.insert(1, seq(0, 200)...)
			if r.status(1).Indexes[vectorField] != "FLAT" {
				t.Fatal("a graph for so few rows")
			}
			r.insert(1, seq(200, 1000)...)
			r.delete(seq(0, 50)...)
			r.insert(1, seq(1000, 1100)...)
			r.built(1, 1024)
			if st := r.status(1); st.Indexes[vectorField] != "HNSW" || st.MemoryBytes != r.set.Ledger().Used()[KindGrowing] {
				t.Fatalf("%+v, the ledger has %v", st, r.set.Ledger().Used())
			}
			sum := 0.0
			for q := range int64(20) {
				sum += r.recall(vectorOf(q*50+7, 9), 10, r.now)
			}
			if sum/20 < 0.95 {
				t.Fatalf("recall %.2f", sum/20)
			}
			// With a near bound the graph would find the rows before it only.
			query := vectorOf(3, 9)
			near := r.found(SearchRequest{Vectors: query, TopK: 500}).Scores[499]
			behind := r.found(SearchRequest{Vectors: query, TopK: 20, RangeFilter: &near})
			if len(behind.Scores) != 20 || metric.Better(behind.Scores[0], near) {
				t.Fatalf("behind %v: %v", near, behind.Scores)
			}
			// In the past the graph has more rows than there were: a scan, so exact.
			if got := r.recall(vectorOf(1, 9), 10, 1010); got != 1 {
				t.Fatalf("recall %.2f at a time before the graph", got)
			}
		})
	}
}

// TestAGraphIsReplacedByALargerOne, and searched meanwhile.
func TestAGraphIsReplacedByALargerOne(t *testing.T) {
	r := newRig(t, hnsw(index.L2))
	r.set.graphAfter = 256
	r.insert(1, seq(0, 300)...)
	r.built(1, 256)
	first := r.holderOf(1).segment.(*Growing).vectors[0].graph.Load()
	if first.hnsw.Capacity() != graphGrowth*300 {
		t.Fatalf("room for %d rows", first.hnsw.Capacity())
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 400 / slower {
			select {
			case <-stop:
				return
			default:
			}
			// A row that is there is the nearest to itself, in graph or scan.
			if err := r.findKey(7); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for k := int64(300); k < 2400; k += 100 { // past 1,200, where the first is full
		r.insert(1, seq(k, k+100)...)
	}
	r.built(1, 2304)
	close(stop)
	wg.Wait()
	if r.recall(vectorOf(3, 9), 10, r.now) < 0.9 {
		t.Fatal("the new graph finds less")
	}
	used := r.set.Ledger().Used()[KindGrowing]
	if want := r.status(1).MemoryBytes; used != want {
		t.Fatalf("the ledger has %d bytes of growing segments, the segment %d: the old graph's are gone", used, want)
	}
}

// TestSearchWhileRowsComeIn: every search sees what was acknowledged before it,
// no key twice, and nothing later than its timestamp.
func TestSearchWhileRowsComeIn(t *testing.T) {
	r := newRig(t, hnsw(index.L2))
	r.set.graphAfter = 256
	var safe atomic.Uint64 // rows inserted so far << 32 | timestamp
	const total = 3000 / slower
	var wg sync.WaitGroup
	stop := make(chan struct{})
	r.insert(1, seq(0, 10)...)
	safe.Store(10<<32 | r.now)
	for w := range int64(2) {
		wg.Go(func() {
			for i := w; ; i += 2 {
				select {
				case <-stop:
					return
				default:
				}
				s := safe.Load()
				n, at := int64(s>>32), s&(1<<32-1)
				want := (i * 31) % n
				res, err := r.search(SearchRequest{Vectors: vectorOf(want, 0), TopK: 20, Read: Read{ReadTimestamp: at}})
				if err != nil {
					t.Error(err)
					return
				}
				keys := res.Keys.Int
				if keys[0] != want || len(keys) != int(min(n, 20)) || slices.Max(keys) >= n {
					t.Errorf("%d rows at %d: nearest to %d: %v", n, at, want, keys)
					return
				}
				if slices.Sort(keys); len(slices.Compact(keys)) != int(min(n, 20)) {
					t.Errorf("a key twice: %v", keys)
					return
				}
			}
		})
	}
	for k := int64(10); k < total && !t.Failed(); k += 10 {
		r.insert(1, seq(k, k+10)...)
		safe.Store(uint64(k+10)<<32 | r.now)
	}
	close(stop)
	wg.Wait()
}

// TestAFieldWithAFlatIndexStaysExact and never gets a graph.
func TestAFieldWithAFlatIndexStaysExact(t *testing.T) {
	for name, ix := range map[string]map[int64]VectorIndex{
		"FLAT":     {vectorField: {Type: "FLAT", Metric: index.L2}},
		"no index": {},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{})
			info := r.info()
			info.Indexes = ix
			r.coll.Update(info)
			r.set.graphAfter = 10
			r.insert(1, seq(0, 600)...)
			r.insert(1, seq(600, 1200)...)
			if r.holderOf(1).segment.(*Growing).wantsGraph(r.set.graphAfter) || len(r.set.builder.mu.pending) != 0 {
				t.Fatal("it is to get a graph")
			}
			r.handOff(1)
			if got := r.status(1).Indexes[vectorField]; got != "FLAT" {
				t.Fatalf("sealed with %s", got)
			}
			r.o.index.Metric = index.Cosine
			if r.recall(vectorOf(1, 9), 20, r.now) != 1 {
				t.Fatal("not exact")
			}
		})
	}
}

// TestAGraphThatHasNoRoomInMemory costs speed, not rows.
func TestAGraphThatHasNoRoomInMemory(t *testing.T) {
	o := hnsw(index.L2)
	o.memory = 400_000 // a chunk takes 174,080
	r := newRig(t, o)
	r.set.graphAfter = 256
	r.insert(1, seq(0, 1000)...)
	r.insert(1, seq(1000, 1100)...)
	for r.set.Ledger().Refused() == 0 {
		runtime.Gosched()
	}
	r.check(r.now)
	if got := r.recall(vectorOf(1, 9), 20, r.now); got != 1 {
		t.Fatalf("recall %.2f without a graph", got)
	}
}

// TestARowThatOutgrowsTheReservedSpace is copied with those before it.
func TestARowThatOutgrowsTheReservedSpace(t *testing.T) {
	o := hnsw(index.Cosine)
	o.set = func(o *Options) { o.GrowingRows = 100 }
	r := newRig(t, o)
	r.set.graphAfter = 64
	for k := int64(0); k < 1000; k += 90 {
		r.insert(1, seq(k, k+90)...)
		if err := r.findKey(k); err != nil {
			t.Fatal(err)
		}
	}
	r.built(1, 256)
	r.check(r.now)
	r.handOff(1)
	r.check(r.now)
	if err := r.findKey(77); err != nil {
		t.Fatal(err)
	}
}

// TestASealedGraph: a segment flushed with enough rows has one, and finds what
// is there at a time in its middle and what a filter lets through.
func TestASealedGraph(t *testing.T) {
	r := newRig(t, hnsw(index.Cosine))
	step := int64(500 / slower)
	for k := int64(0); k < 6*step; k += step {
		r.insert(1, seq(k, k+step)...)
	}
	r.delete(seq(0, step/2)...)
	r.handOff(1)
	if got := r.status(1).Indexes[vectorField]; got != "HNSW" {
		t.Fatalf("index %s", got)
	}
	for _, at := range []uint64{1010, 1035, r.now} {
		if got := r.recall(vectorOf(5, 9), 20, at); got < 0.9 {
			t.Errorf("recall %.2f at %d", got, at)
		}
	}
	rangeFilter := float32(0.5)
	res := r.found(SearchRequest{Vectors: vectorOf(5, 9), TopK: 20, RangeFilter: &rangeFilter})
	want := r.nearest(vectorOf(5, 9), 20, r.now, func(row modelRow, score float32) bool { return score <= 0.5 })
	for i, row := range want {
		if res.Keys.Int[i] != row.key {
			t.Fatalf("with a range filter the search is exact: got %v", res.Keys.Int)
		}
	}
}

// TestRowsOnTheirWayIntoTheGraph are found once, and not before their time.
func TestRowsOnTheirWayIntoTheGraph(t *testing.T) {
	r := newRig(t, hnsw(index.L2))
	r.set.graphAfter = 256
	r.insert(1, seq(0, 256)...)
	before := r.now
	r.built(1, 256)
	r.insert(1, 256, 257)
	graph := r.holderOf(1).segment.(*Growing).vectors[0].graph.Load()
	must(t, graph.hnsw.Insert(256, &index.Scratch{})) // as the builder does, before it says so
	for _, at := range []uint64{before, r.now} {
		query := vectorOf(256, 0)
		got := r.found(SearchRequest{Vectors: query, TopK: 10, Read: Read{ReadTimestamp: at}})
		var want []int64
		for _, row := range r.nearest(query, 10, at, nil) {
			want = append(want, row.key)
		}
		if !slices.Equal(got.Keys.Int, want) {
			t.Fatalf("at %d: %v, want %v", at, got.Keys.Int, want)
		}
	}
}

// TestAGraphThatFillsInTheMiddleOfATurn is replaced without waiting for more rows.
func TestAGraphThatFillsInTheMiddleOfATurn(t *testing.T) {
	r := newRig(t, hnsw(index.L2)) // so few rows that the builder leaves it alone
	r.insert(1, seq(0, 300)...)
	g := r.holderOf(1).segment.(*Growing)
	v, sc := g.vectors[0], &index.Scratch{}
	build := func() {
		t.Helper()
		for more := true; more; {
			var err error
			more, err = v.build(t.Context(), g, sc)
			must(t, err)
		}
	}
	build()
	if graph := v.graph.Load(); graph.hnsw.Capacity() != 1200 || graph.rows.Load() != 256 {
		t.Fatalf("%d of %d rows", graph.rows.Load(), graph.hnsw.Capacity())
	}
	r.insert(1, seq(300, 1600)...)
	build()
	if got := v.graph.Load().rows.Load(); got != 1536 {
		t.Fatalf("%d rows are in the graph, want 1536", got)
	}
	r.seal(1)
	r.insert(2, 5000)
	build()
}

func TestMemoryThatTheSystemDoesNotGive(t *testing.T) {
	_, err := newArena(1 << 58)
	wantClass(t, err, errclass.Exhausted)
	a, err := newArena(0)
	must(t, err)
	must(t, a.close())
	must(t, a.close())
}

// TestASegmentThatIsSearchedOftenGetsItsGraphEarly: when scans have cost what the
// graph would have.
func TestASegmentThatIsSearchedOftenGetsItsGraphEarly(t *testing.T) {
	r := newRig(t, hnsw(index.L2))
	r.insert(1, seq(0, graphEarly)...)
	v := r.holderOf(1).segment.(*Growing).vectors[0]
	if err := r.findKey(7); err != nil {
		t.Fatal(err)
	}
	if got := v.scanned.Load(); got != graphEarly {
		t.Fatalf("one search scanned %d rows, says the count", got)
	}
	r.insert(1, seq(graphEarly, graphEarly+1)...)
	if r.holderOf(1).segment.(*Growing).wantsGraph(r.set.graphAfter) {
		t.Fatal("after one search it is to get a graph")
	}
	v.scanned.Add(2 * graphEarly * insertScans)
	r.insert(1, seq(graphEarly+1, graphEarly+2)...)
	r.built(1, graphEarly/buildStep*buildStep)
	if err := r.findKey(7); err != nil {
		t.Fatal(err)
	}
}
