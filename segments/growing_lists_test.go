package segments

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// built waits until the lists of a growing segment have n rows.
func (r *rig) built(segment int64, n int) {
	r.t.Helper()
	v := r.holderOf(segment).segment.(*Growing).vectors()[0]
	for v.lists.Load() == nil || v.lists.Load().rows() < n {
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

func TestAGrowingSegmentGetsLists(t *testing.T) {
	for _, metric := range []index.Metric{index.L2, index.IP, index.Cosine} {
		t.Run(metric.String(), func(t *testing.T) {
			r := newRig(t, hnsw(metric))
			r.set.listsAfter = 300
			r.insert(1, seq(0, 200)...)
			if r.status(1).Indexes[vectorField] != "FLAT" {
				t.Fatal("lists for so few rows")
			}
			r.insert(1, seq(200, 1000)...)
			r.delete(seq(0, 50)...)
			r.insert(1, seq(1000, 1100)...)
			r.built(1, 1024)
			if st := r.status(1); st.Indexes[vectorField] != "IVF_SQ8" || st.MemoryBytes != r.set.Ledger().Used()[KindGrowing] {
				t.Fatalf("%+v, the ledger has %v", st, r.set.Ledger().Used())
			}
			sum := 0.0
			for q := range int64(20) {
				sum += r.recall(vectorOf(q*50+7, 9), 10, r.now)
			}
			if sum/20 < 0.95 {
				t.Fatalf("recall %.2f", sum/20)
			}
			// With a near bound the lists would find the rows before it only.
			query := vectorOf(3, 9)
			near := r.found(SearchRequest{Vectors: query, TopK: 500}).Scores[499]
			behind := r.found(SearchRequest{Vectors: query, TopK: 20, RangeFilter: &near})
			if len(behind.Scores) != 20 || metric.Better(behind.Scores[0], near) {
				t.Fatalf("behind %v: %v", near, behind.Scores)
			}
			// In the past the lists have more rows than there were.
			if got := r.recall(vectorOf(1, 9), 10, 1010); got != 1 {
				t.Fatalf("recall %.2f at a time before the lists", got)
			}
		})
	}
}

// TestListsAreLearntAnew when there are many more rows, and searched meanwhile.
func TestListsAreLearntAnew(t *testing.T) {
	r := newRig(t, hnsw(index.L2))
	r.set.listsAfter = 256
	r.insert(1, seq(0, 300)...)
	r.built(1, 256)
	first := r.holderOf(1).segment.(*Growing).vectors()[0].lists.Load()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 400 / slower {
			select {
			case <-stop:
				return
			default:
			}
			// A row that is there is the nearest to itself, in lists or scan.
			if err := r.findKey(7); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for k := int64(300); k < 3000; k += 100 { // past 2,400
		r.insert(1, seq(k, k+100)...)
	}
	v := r.holderOf(1).segment.(*Growing).vectors()[0]
	for v.lists.Load() == first { // until others serve
		runtime.Gosched()
	}
	r.built(1, 3000-leastStep)
	close(stop)
	wg.Wait()
	if now := len(v.lists.Load().state.Load().lists); now <= len(first.state.Load().lists) {
		t.Fatalf("%d lists of so many rows", now)
	}
	if r.recall(vectorOf(3, 9), 10, r.now) < 0.9 {
		t.Fatal("the new lists find less")
	}
	used := r.set.Ledger().Used()[KindGrowing]
	if want := r.status(1).MemoryBytes; used != want {
		t.Fatalf("the ledger has %d bytes of growing segments, the segment %d: the old lists' are gone", used, want)
	}
}

// TestSearchWhileRowsComeIn: every search sees what was acknowledged before it,
// no key twice, and nothing later than its timestamp.
func TestSearchWhileRowsComeIn(t *testing.T) {
	r := newRig(t, hnsw(index.L2))
	r.set.listsAfter = 256
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

// TestAFieldWithAFlatIndexStaysExact and never gets lists.
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
			r.set.listsAfter = 10
			r.insert(1, seq(0, 600)...)
			r.insert(1, seq(600, 1200)...)
			if r.holderOf(1).segment.(*Growing).wantsLists(r.set.listsAfter) || len(r.set.builder.mu.pending) != 0 {
				t.Fatal("it is to get lists")
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

// TestListsThatHaveNoRoomInMemory costs speed, not rows.
func TestListsThatHaveNoRoomInMemory(t *testing.T) {
	o := hnsw(index.L2)
	o.memory = 250_000 // the rows take 255,220, and may go a quarter beyond
	r := newRig(t, o)
	r.set.listsAfter = 256
	r.insert(1, seq(0, 1000)...)
	r.insert(1, seq(1000, 1100)...)
	eventually(t, "lists have been refused", func() bool { return r.set.Ledger().Refused() > 0 })
	r.check(r.now)
	if got := r.recall(vectorOf(1, 9), 20, r.now); got != 1 {
		t.Fatalf("recall %.2f without lists", got)
	}
}

// TestARowThatOutgrowsTheReservedSpace is copied with those before it.
func TestARowThatOutgrowsTheReservedSpace(t *testing.T) {
	o := hnsw(index.Cosine)
	o.set = func(o *Options) { o.GrowingRows = 100 }
	r := newRig(t, o)
	r.set.listsAfter = 64
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

func TestMemoryThatTheSystemDoesNotGive(t *testing.T) {
	_, err := newArena(1 << 58)
	wantClass(t, err, errclass.Exhausted)
	a, err := newArena(0)
	must(t, err)
	must(t, a.close())
	must(t, a.close())
}

// mixture makes rows of dim values: spread evenly (heaps 0), or in heaps.
type mixture struct {
	rng     *rand.Rand
	dim     int
	centres []float32
	spread  float64
}

func newMixture(dim, heaps int, spread float64) *mixture {
	m := &mixture{rng: rand.New(rand.NewPCG(7, 8)), dim: dim, spread: spread}
	for range heaps * dim {
		m.centres = append(m.centres, float32(m.rng.NormFloat64()))
	}
	return m
}

func (m *mixture) rows(n int) []float32 {
	out := make([]float32, n*m.dim)
	for i := range n {
		at := 0
		if len(m.centres) > 0 {
			at = m.rng.IntN(len(m.centres) / m.dim)
		}
		for d := range m.dim {
			x := m.rng.NormFloat64() * m.spread
			if len(m.centres) > 0 {
				x += float64(m.centres[at*m.dim+d])
			}
			out[i*m.dim+d] = float32(x)
		}
	}
	return out
}

// growingField is a field with rows, all in lists, as the builder makes them: first
// some, then all.
func growingField(t testing.TB, m index.Metric, dim int, rows []float32, first int) (*growingVectors, *Growing) {
	t.Helper()
	f := schema.Field{ID: vectorField, Name: "v", Type: schema.FloatVector, Dim: dim}
	n := len(rows) / dim
	v, err := newGrowingVectors(f, VectorIndex{Type: "HNSW", Metric: m}, n, NewLedger(0))
	must(t, err)
	g := &Growing{}
	g.fields.Store(&[]*growingVectors{v})
	var w listWriter
	for at := 0; at < n; {
		to := n
		if at == 0 {
			to = first
		}
		v.append(&schema.Column{Type: schema.FloatVector, Dim: dim, Float: rows[at*dim : to*dim]}, at, to-at)
		g.rows.Store(int64(to))
		for more := true; more; {
			more, err = v.build(t.Context(), g, &w)
			must(t, err)
		}
		at = to
	}
	t.Cleanup(func() { must(t, v.close()) })
	return v, g
}

// listRecall is the share of the ten nearest that lists find, and of the rows that they read.
func listRecall(t *testing.T, v *growingVectors, n int, queries []float32, allowed *bitset.Set) (recall, read float64) {
	t.Helper()
	sc := newScratch()
	sc.work = &work{}
	nq := len(queries) / v.dim
	for i := range nq {
		q := &nearestQuery{ctx: t.Context(), vector: queries[i*v.dim:][:v.dim], k: 10, metric: v.metric}
		got, err := v.nearest(q, n, allowed, sc)
		must(t, err)
		found := slices.Clone(got)
		q.exact = true
		before := sc.work.distances
		want, err := v.nearest(q, n, allowed, sc)
		must(t, err)
		sc.work.distances = before
		for _, x := range want {
			if slices.ContainsFunc(found, func(f index.Neighbor) bool { return f.Row == x.Row }) {
				recall++
			}
		}
	}
	return recall / float64(10*nq), float64(sc.work.distances) / float64(nq*n)
}

// TestListsFindWhatIsNear, whatever the rows are like, and read few of those that
// lie in heaps.
func TestListsFindWhatIsNear(t *testing.T) {
	for _, c := range []struct {
		name   string
		dim    int
		heaps  int
		spread float64
		most   float64 // share of the rows that may be read
	}{
		{"anywhere in few dimensions", 4, 0, 1, 1},
		{"anywhere in many", 64, 0, 1, 2},
		{"in heaps", 48, 100, 0.4, 0.3},
		{"in heaps that touch", 32, 50, 1, 2},
	} {
		for _, m := range []index.Metric{index.L2, index.IP, index.Cosine} {
			t.Run(c.name+" "+m.String(), func(t *testing.T) {
				n := 12_000 / slower
				mix := newMixture(c.dim, c.heaps, c.spread)
				v, _ := growingField(t, m, c.dim, mix.rows(n), n/3)
				recall, read := listRecall(t, v, n, mix.rows(50), nil)
				t.Logf("recall %.3f, %.2f of the rows read, cosine %.2f", recall, read, v.lists.Load().cosine)
				if recall < 0.95 || slower == 1 && read > c.most && m != index.IP { // of few rows all are read
					t.Errorf("recall %.3f, %.2f of the rows read", recall, read)
				}
			})
		}
	}
}

// TestRowsUnlikeTheFirstAreFound: while they are few one by one, then because
// everything is learnt anew.
func TestRowsUnlikeTheFirstAreFound(t *testing.T) {
	const dim = 16
	first, then := newMixture(dim, 20, 0.2).rows(1000), newMixture(dim, 20, 0.2).rows(3000)
	for i := range then {
		then[i] = then[i]*20 + 300
	}
	for _, n := range []int{60, 3000} {
		v, g := growingField(t, index.L2, dim, slices.Concat(first, then[:n*dim]), 1000)
		recall, _ := listRecall(t, v, g.Rows(), then[:50*dim], nil)
		if recall < 0.95 {
			t.Errorf("%d rows of another kind: recall %.3f", n, recall)
		}
		if x := v.lists.Load(); (n == 60) != (x.trained == 1000) || len(x.state.Load().loose) > g.Rows()/looseShare {
			t.Errorf("%d rows of another kind: learnt from %d, %d are loose", n, x.trained, len(x.state.Load().loose))
		}
	}
}

// TestListsWithAFilter find what it leaves, and nothing else.
func TestListsWithAFilter(t *testing.T) {
	const n, dim = 6000, 24
	mix := newMixture(dim, 40, 0.5)
	v, _ := growingField(t, index.L2, dim, mix.rows(n), n)
	for _, every := range []int{2, 5, 50} {
		var allowed bitset.Set
		allowed.Reset(n)
		for row := 0; row < n; row += every {
			allowed.Add(row)
		}
		if recall, _ := listRecall(t, v, n, mix.rows(40), &allowed); recall < 0.95 {
			t.Errorf("one row of %d: recall %.3f", every, recall)
		}
	}
}

// TestWhatOneSegmentHasBoundsTheOther: the answer is the same as that of exact
// searches, and rows that are too far are not looked at.
func TestWhatOneSegmentHasBoundsTheOther(t *testing.T) {
	for _, metric := range []index.Metric{index.L2, index.IP, index.Cosine} {
		r := newRig(t, hnsw(metric))
		r.set.listsAfter = 256
		r.insert(1, seq(0, 1500)...)
		r.handOff(1)
		r.insert(2, seq(1500, 3000)...)
		r.upsert(2, 1, seq(0, 100)...) // newer rows of keys that the sealed one has
		r.built(2, 1500)
		sum := 0.0
		for q := range int64(30) {
			sum += r.recall(vectorOf(q*50+7, 9), 10, r.now)
		}
		if sum < 0.97*30 {
			t.Errorf("%s: recall %.3f", metric, sum/30)
		}
	}
}

// TestQueriesThatReadListsTogether find the very same as alone, by the same lists.
func TestQueriesThatReadListsTogether(t *testing.T) {
	const rest, k, nq = 70, 10, 2*listQueries + 7
	for _, c := range []struct {
		name       string
		dim, heaps int
		spread     float64
	}{
		{"anywhere in few dimensions", 4, 0, 1}, {"anywhere in many", 64, 0, 1}, {"in heaps", 48, 100, 0.4}, {"in heaps that touch", 32, 50, 1},
	} {
		for _, m := range []index.Metric{index.L2, index.IP, index.Cosine} {
			t.Run(c.name+" "+m.String(), func(t *testing.T) {
				n := 9_000 / slower
				mix := newMixture(c.dim, c.heaps, c.spread)
				v, _ := growingField(t, m, c.dim, mix.rows(n), n/3)
				more := mix.rows(rest)
				must(t, v.room(n, rest))
				v.append(&schema.Column{Type: schema.FloatVector, Dim: c.dim, Float: more}, n, rest)
				n += rest
				queries, third := mix.rows(nq), bitset.New(n)
				copy(queries, queries[9*c.dim:10*c.dim]) // equal ones
				for row := 0; row < n; row += 3 {
					third.Add(row)
				}
				var limits worst
				limits.reset(nq)
				for i := 0; i < nq; i += 4 {
					limits.lower(i, float32(i)/4)
				}
				for _, allowed := range []*bitset.Set{nil, third} {
					for _, coarse := range []bool{false, true} {
						v.lists.Load().coarse = coarse
						together, alone := newScratch(), newScratch()
						together.work, alone.work = &work{}, &work{}
						q := nearestQuery{ctx: t.Context(), k: k, metric: m, worst: &limits}
						together.batch.reset(nq)
						must(t, v.nearestEach(&q, queries, n, allowed, together))
						q.worst = nil
						for i := range nq {
							q.vector = queries[i*c.dim:][:c.dim]
							q.limit, q.limited = limits.of(i)
							want, err := v.nearest(&q, n, allowed, alone)
							must(t, err)
							if got := together.batch.of(i); !slices.Equal(got, want) {
								t.Fatalf("query %d, coarse %v: %v together, %v alone", i, coarse, got, want)
							}
						}
						if a, b := together.work, alone.work; a.hops != b.hops || !coarse && a.hops == 0 {
							t.Errorf("coarse %v: %d lists together, %d alone", coarse, a.hops, b.hops)
						}
					}
				}
			})
		}
	}
}

// TestASearchOfListsThatIsCut says so, even if its context has not ended: who waited for it
// may have gone for another reason.
func TestASearchOfListsThatIsCut(t *testing.T) {
	const n, dim, k = 2000, 8, 5
	mix := newMixture(dim, 0, 1)
	v, _ := growingField(t, index.L2, dim, mix.rows(n), n)
	var stop atomic.Bool
	stop.Store(true)
	queries := mix.rows(3)
	q := nearestQuery{ctx: t.Context(), k: k, metric: index.L2, stop: &stop, vector: queries[:dim]}
	if v.listsFor(&q, n, nil) == nil {
		t.Fatal("there are no lists to search")
	}
	sc := newScratch()
	sc.work = &work{}
	if _, err := v.nearest(&q, n, nil, sc); !errors.Is(err, context.Canceled) {
		t.Errorf("one query: %v", err)
	}
	sc.batch.reset(3)
	if err := v.nearestEach(&q, queries, n, nil, sc); !errors.Is(err, context.Canceled) {
		t.Errorf("some: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	q.ctx = ctx
	if _, err := v.nearest(&q, n, nil, sc); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("past the deadline: %v", err)
	}
}

// TestListsLearnFromRowsOfEachKind: rows of several kinds come by turns, as from several producers.
func TestListsLearnFromRowsOfEachKind(t *testing.T) {
	const kinds, some = 4, 512
	rows := make([]float32, kinds*some)
	for i := range rows {
		rows[i] = float32(i % kinds)
	}
	v, _ := growingField(t, index.L2, 1, rows, len(rows))
	var seen [kinds]int
	for _, x := range v.sampleRows(len(rows), some) {
		seen[int(x)]++
	}
	for kind, got := range seen {
		if got < some/kinds*3/4 || got > some/kinds*5/4 {
			t.Errorf("%d of %d rows are of kind %d of %d", got, some, kind, kinds)
		}
	}
}
