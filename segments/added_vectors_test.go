package segments

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
)

const addedField = 104

// addedKinds are vector fields of all types, as they are added to a collection.
func addedKinds() []schema.Field {
	var out []schema.Field
	for typ, dim := range map[schema.Type]int{schema.FloatVector: 5, schema.Float16Vector: 5, schema.BFloat16Vector: 5, schema.Int8Vector: 7, schema.BinaryVector: 16, schema.SparseFloatVector: 0} {
		out = append(out, schema.Field{ID: addedField, Name: "w", Type: typ, Dim: dim, Nullable: true})
	}
	slices.SortFunc(out, func(a, b schema.Field) int { return int(a.Type) - int(b.Type) })
	return out
}

// addedVector appends a vector of a seed to a column, or null.
func addedVector(c *schema.Column, seed uint64, null bool) {
	one := c.New()
	r := rand.New(rand.NewPCG(seed, 4))
	switch {
	case null:
		nullVectors{}.gather(one, make([]uint32, 1))
	case c.Type == schema.FloatVector:
		for range c.Dim {
			one.Float = append(one.Float, r.Float32()-0.5)
		}
	case c.Type == schema.SparseFloatVector:
		one.Offsets = []int{0, 2}
		d := r.Uint32N(9)
		one.Indices, one.Float = []uint32{d, d + 1 + r.Uint32N(5)}, []float32{r.Float32(), r.Float32()}
	default:
		for range one.RowBytes() { // bytes below 0x7c are no infinities
			one.Raw = append(one.Raw, byte(r.UintN(0x40)))
		}
	}
	c.AppendRow(one, 0)
}

// addedRig is a collection that gets a vector field at some time, or has it from the
// beginning.
type addedRig struct {
	*rig
	field  schema.Field
	metric index.Metric
}

func (a *addedRig) with() *schema.Schema {
	s := items()
	s.Version, s.Fields = 2, append(s.Fields, a.field)
	return s
}

func (a *addedRig) add() {
	info := a.info()
	info.Schema, info.Version = a.with(), 2
	info.Indexes[addedField] = VectorIndex{Type: "FLAT", Metric: a.metric}
	a.o.schema = info.Schema
	a.coll.Update(info)
}

// rows applies rows, with vectors where vector says so; nil = as before the field came.
func (a *addedRig) apply(segment int64, keys []int64, version int64, upsert bool, vector func(key int64) bool) {
	a.t.Helper()
	b := a.batch(keys, version)
	b.Columns = slices.DeleteFunc(b.Columns, func(c *schema.Column) bool { return c.FieldID == addedField })
	if vector != nil {
		c := schema.NewColumn(a.field, len(keys))
		for _, k := range keys {
			addedVector(c, uint64(k*100+version), !vector(k))
		}
		b.Columns = append(b.Columns, c)
	}
	at := a.tick()
	must(a.t, a.ch.ApplyRows(Rows{SegmentID: segment, PartitionID: 7, Batch: b, Upsert: upsert}, at))
	a.ch.Advance(at)
}

// ask asks everything that looks at the vectors of the field, at a moment, and writes down the answers.
func (a *addedRig) ask(at uint64) (out []string) {
	a.t.Helper()
	ctx := a.t.Context()
	queries := schema.NewColumn(a.field, 3)
	for i := range uint64(3) {
		addedVector(queries, 1_000_000+i, false)
	}
	queries.Valid = nil
	note := func(what string, res *SearchResult, err error) {
		a.t.Helper()
		must(a.t, err)
		line := fmt.Sprint(what, res.Counts, res.Keys.Int, res.Scores, res.GroupCounts)
		for _, c := range res.Fields {
			valid := make([]bool, c.Rows())
			for i := range valid {
				valid[i] = !c.Null(i)
			}
			line += fmt.Sprint(valid, c.Offsets, c.Indices, c.Float, c.Raw)
		}
		out = append(out, line)
	}
	read := Read{ReadTimestamp: at, OutputFields: []int64{addedField}}
	for _, k := range []int{5, 1000} {
		q := SearchRequest{Read: read, FieldID: addedField, Queries: queries, NQ: 3, TopK: k, Metric: a.metric}
		res, err := a.coll.Search(ctx, &q)
		note("search", res, err)
		q.Explain, q.Plan = true, a.plan("id % 3 == 1")
		res, err = a.coll.Search(ctx, &q)
		note("filter", res, err)
	}
	one := queries.Slice(1, 2)
	for _, g := range []*Grouping{{FieldID: colorField, Size: 3}, {FieldID: colorField, Size: 3, Strict: true}} {
		res, err := a.coll.Search(ctx, &SearchRequest{Read: read, FieldID: addedField, Queries: one, NQ: 1, TopK: 4, Metric: a.metric, Group: g})
		note("groups", res, err)
	}
	q := SearchRequest{Read: read, FieldID: addedField, Queries: one, NQ: 1, TopK: 40, Metric: a.metric, Page: &Paging{Request: 9}}
	for {
		res, err := a.coll.Search(ctx, &q)
		note("page", res, err)
		if !res.More {
			break
		}
		q.Page = &Paging{Request: 9, After: res.Last}
	}
	res, err := a.coll.HybridSearch(ctx, &HybridRequest{Read: read, NQ: 1, TopK: 50, Ranker: Ranker{RRF: 60}, Searches: []SubSearch{
		{FieldID: vectorField, Vectors: vectorOf(3, 3), TopK: 30, Metric: index.L2}, {FieldID: addedField, Queries: one, TopK: 30, Metric: a.metric}}})
	note("hybrid", res, err)
	res, err = a.coll.Search(ctx, &SearchRequest{Read: read, FieldID: vectorField, Vectors: vectorOf(3, 3), NQ: 1, TopK: 1000, Metric: index.L2})
	note("the old field", res, err)
	got, err := a.coll.Query(ctx, &QueryRequest{Read: read}, func(b *schema.Batch, _ uint64) error {
		valid := b.Columns[0].Valid
		if valid == nil {
			valid = slices.Repeat([]bool{true}, b.Rows)
		}
		out = append(out, fmt.Sprint("query", b.Rows, valid))
		return nil
	})
	must(a.t, err)
	out = append(out, fmt.Sprint("count", got.Count))
	for _, filter := range []string{"w is null", "w is not null", "not (w is not null)", "w is not null and id in [3, 4, 5, 6, 61, 62]"} {
		out = append(out, a.askNull(read, filter))
	}
	return out
}

// askNull queries by a filter that has a condition on the null of the field, and writes down the keys.
func (a *addedRig) askNull(read Read, filter string) string {
	a.t.Helper()
	read.Plan, read.OutputFields = a.plan(filter), []int64{a.info().Schema.Primary().ID, addedField}
	null := !strings.HasPrefix(filter, "w is not null")
	keys := []int64{}
	_, err := a.coll.Query(a.t.Context(), &QueryRequest{Read: read}, func(b *schema.Batch, _ uint64) error {
		for i, k := range b.Columns[0].Int {
			if b.Columns[1].Null(i) != null {
				a.t.Errorf("%s: key %d, null %v", filter, k, !null)
			}
			keys = append(keys, k)
		}
		return nil
	})
	must(a.t, err)
	return fmt.Sprint(filter, keys)
}

// TestAVectorFieldThatIsAdded to a collection with segments of all sorts: reads at
// every moment find what they would if the field had been there from the beginning.
func TestAVectorFieldThatIsAdded(t *testing.T) {
	for _, f := range addedKinds() {
		t.Run(f.Type.String(), func(t *testing.T) { addVectors(t, f) })
	}
}

func addVectors(t *testing.T, f schema.Field) {
	metric := index.Cosine
	switch f.Type {
	case schema.BinaryVector:
		metric = index.Jaccard
	case schema.SparseFloatVector:
		metric = index.IP
	}
	later, always := &addedRig{newRig(t, rigOptions{}), f, metric}, &addedRig{newRig(t, rigOptions{}), f, metric}
	always.add()
	both := func(do func(a *addedRig)) { do(later); do(always) }
	var moments []uint64
	same := func(when string) {
		t.Helper()
		moments = append(moments, later.now)
		earlier := moments[(7*len(moments)/11)%len(moments)]
		for _, at := range []uint64{earlier, later.now} {
			if got, want := later.ask(at), always.ask(at); !reflect.DeepEqual(got, want) {
				for i := range want {
					if got[i] != want[i] {
						t.Fatalf("%s, at %d:\n got %.600s\nwant %.600s", when, at, got[i], want[i])
					}
				}
			}
		}
	}
	nulls := func(int64) bool { return false }
	thirds := func(k int64) bool { return k%3 > 0 }
	both(func(a *addedRig) {
		a.apply(1, seq(0, 150), 0, false, nil)
		a.handOff(1)
		a.apply(2, seq(150, 300), 0, false, nil)
		a.apply(4, seq(900, 950), 0, false, nil)
	})
	later.add()
	moments = append(moments, later.now)
	same("added")
	none := schema.NewColumn(f, 1)
	addedVector(none, 1, false)
	res, err := later.coll.Search(t.Context(), &SearchRequest{Read: Read{Explain: true}, FieldID: addedField, Queries: none, NQ: 1, TopK: 3, Metric: metric})
	must(t, err)
	for _, s := range res.Stats.Segments {
		if !slices.Equal(s.Ways, []string{wayNulls}) || s.Distances != 0 {
			t.Errorf("segment %d: %v", s.ID, s)
		}
	}
	both(func(a *addedRig) { a.apply(2, seq(300, 340), 0, false, nulls) })
	same("rows without a vector")
	both(func(a *addedRig) { a.apply(2, seq(100, 220), 1, true, thirds) })
	same("upserts with vectors")
	both(func(a *addedRig) { a.apply(2, seq(340, 350), 0, false, nil) })
	both(func(a *addedRig) { a.apply(3, seq(400, 460), 0, false, thirds) })
	both(func(a *addedRig) { a.apply(2, seq(200, 210), 2, true, thirds) })
	same("another segment")
	if n := later.set.Ledger().Used()[KindGrowing]; n <= 0 {
		t.Errorf("%d bytes of growing segments in the ledger", n)
	}
	both(func(a *addedRig) { a.handOff(2); a.handOff(4) })
	same("sealed")
	both(func(a *addedRig) { a.delete(101, 102, 205, 5); a.cool(1) })
	same("cold, and some deleted")
	both(func(a *addedRig) {
		a.handOff(3)
		a.rewrite(10, 0, 0, 1, 2, 3)
		must(t, a.swapFor(10, 1, 2, 3))
	})
	same("compacted")
	both(func(a *addedRig) {
		a.rewrite(11, 0, 0, 4)
		must(t, a.swapFor(11, 4))
		a.set.disk.limit.Store(1)
		a.set.disk.force(0)
		a.set.disk.limit.Store(0)
	})
	same("evicted, and one without any vector rewritten")
}

// TestAddedVectorsWhileReadersRun: the first vectors of a growing segment come while
// searches for them are under way.
func TestAddedVectorsWhileReadersRun(t *testing.T) {
	for _, f := range addedKinds() {
		a := &addedRig{newRig(t, rigOptions{}), f, index.L2}
		switch f.Type {
		case schema.BinaryVector:
			a.metric = index.Hamming
		case schema.SparseFloatVector:
			a.metric = index.IP
		}
		a.apply(1, seq(0, 500), 0, false, nil)
		a.add()
		query := schema.NewColumn(f, 1)
		addedVector(query, 1, false)
		query.Valid = nil
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				before := 0
				for done := false; !done; {
					select {
					case <-stop:
						done = true
					default:
					}
					res, err := a.coll.Search(t.Context(), &SearchRequest{Read: Read{OutputFields: []int64{addedField}}, FieldID: addedField, Queries: query, NQ: 1, TopK: 2000, Metric: a.metric})
					if err != nil || len(res.Keys.Int) < before || slices.Min(append(res.Keys.Int, 500)) < 500 {
						t.Errorf("%s: %d rows after %d, %v", f.Type, len(res.Keys.Int), before, err)
						return
					}
					before = len(res.Keys.Int)
				}
			})
		}
		for i := range int64(20) {
			a.apply(1, seq(500+i*20, 520+i*20), 0, false, func(k int64) bool { return i > 3 && k%2 == 0 })
		}
		close(stop)
		readers.Wait()
	}
}

// TestASegmentThatKnowsMoreFields: what another node has written with a vector field
// that this one hears of later is there once it does; a field that was dropped is not opened.
func TestASegmentThatKnowsMoreFields(t *testing.T) {
	f := addedKinds()[1]
	a := &addedRig{newRig(t, rigOptions{}), f, index.L2}
	writer := &addedRig{newRig(t, rigOptions{}), f, index.L2}
	writer.add()
	all := func(int64) bool { return true }
	writer.apply(1, seq(0, 50), 0, false, all)
	writer.seal(1)
	writer.upload(1)
	a.bucket = writer.bucket
	a.set.o.Bucket = writer.bucket
	must(t, a.load(1))
	a.tick()
	a.ch.Advance(Position{ID: "x", Timestamp: a.now})
	a.add()
	query := schema.NewColumn(f, 1)
	addedVector(query, 1, false)
	res, err := a.coll.Search(t.Context(), &SearchRequest{FieldID: addedField, Queries: query, NQ: 1, TopK: 200, Metric: index.L2})
	if must(t, err); len(res.Keys.Int) != 50 {
		t.Errorf("%d rows of 50", len(res.Keys.Int))
	}
	info := a.info()
	info.Schema, info.Version = items(), 3
	info.Schema.Version = 3
	a.coll.Update(info)
	a.coll.Release(1)
	must(t, a.load(1))
	if n := len(a.holderOf(1).segment.(*Sealed).vectors); n != 1 {
		t.Errorf("%d vector fields are open", n)
	}
}

// TestAVectorFieldThatIsDropped: rows come without it, into a segment that has it too, and
// who planned a search of it earlier is told that it is gone.
func TestAVectorFieldThatIsDropped(t *testing.T) {
	for _, f := range addedKinds() {
		a := &addedRig{newRig(t, rigOptions{}), f, index.L2}
		a.add()
		a.apply(1, seq(0, 100), 0, false, func(k int64) bool { return k%2 == 0 })
		info := a.info()
		info.Schema, info.Version = items(), 3
		info.Schema.Version, a.o.schema = 3, info.Schema
		a.coll.Update(info)
		a.apply(1, seq(100, 200), 0, false, nil)
		look := func(state string) {
			t.Helper()
			res := a.found(SearchRequest{Vectors: vectorOf(150, 0), TopK: 300})
			if len(res.Keys.Int) != 200 || res.Keys.Int[0] != 150 {
				t.Errorf("%s, %s: %d rows, first %v", f.Type, state, len(res.Keys.Int), res.Keys.Int[:1])
			}
			query := schema.NewColumn(f, 1)
			addedVector(query, 1, false)
			_, err := a.coll.Search(t.Context(), &SearchRequest{FieldID: addedField, Queries: query, NQ: 1, TopK: 1, Metric: a.metric})
			wantClass(t, err, errclass.Retryable)
			_, err = a.coll.HybridSearch(t.Context(), &HybridRequest{NQ: 1, TopK: 1, Ranker: Ranker{RRF: 60}, Searches: []SubSearch{{FieldID: addedField, Queries: query, TopK: 1, Metric: a.metric}}})
			wantClass(t, err, errclass.Retryable)
		}
		look("growing")
		a.handOff(1)
		look("sealed")
		if n := len(a.holderOf(1).segment.(*Sealed).vectors); n != 1 {
			t.Errorf("%s: %d vector fields are open", f.Type, n)
		}
	}
}

// TestAVectorFieldThatIsDroppedWhileAReadWaits for rows that come without it: they are not
// taken for rows that have a vector, and are not left out.
func TestAVectorFieldThatIsDroppedWhileAReadWaits(t *testing.T) {
	f := schema.Field{ID: addedField, Name: "w", Type: schema.FloatVector, Dim: 5}
	query := schema.NewColumn(f, 1)
	addedVector(query, 1, false)
	search := func(a *addedRig, r Read) error {
		_, err := a.coll.Search(t.Context(), &SearchRequest{Read: r, FieldID: addedField, Queries: query, NQ: 1, TopK: 20, Metric: a.metric})
		return err
	}
	for name, read := range map[string]func(a *addedRig, r Read) error{
		"search": search,
		"hybrid": func(a *addedRig, r Read) error {
			_, err := a.coll.HybridSearch(t.Context(), &HybridRequest{Read: r, NQ: 1, TopK: 20, Ranker: Ranker{RRF: 60}, Searches: []SubSearch{{FieldID: addedField, Queries: query, TopK: 20, Metric: a.metric}}})
			return err
		},
		"search of another": func(a *addedRig, r Read) error {
			r.OutputFields = []int64{addedField}
			_, err := a.coll.Search(t.Context(), &SearchRequest{Read: r, FieldID: vectorField, Vectors: vectorOf(1, 0), NQ: 1, TopK: 20, Metric: index.L2})
			return err
		},
		"query": func(a *addedRig, r Read) error {
			r.OutputFields = []int64{idField, addedField}
			_, err := a.coll.Query(t.Context(), &QueryRequest{Read: r}, func(*schema.Batch, uint64) error { return nil })
			return err
		},
	} {
		for _, to := range []int64{1, 2} { // a segment that has the field, one that never had
			for _, sealed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, rows go to %d, sealed %v", name, to, sealed), func(t *testing.T) {
					a := &addedRig{newRig(t, rigOptions{}), f, index.L2}
					a.add()
					a.apply(1, seq(0, 10), 0, false, func(int64) bool { return true })
					must(t, read(a, Read{}))
					drop := func(string) uint64 {
						info := a.info()
						info.Schema, info.Version = items(), 3
						info.Schema.Version, a.o.schema = 3, info.Schema
						a.coll.Update(info)
						a.apply(to, seq(100, 105), 0, false, nil)
						if sealed {
							a.handOff(to)
						}
						return a.now
					}
					wantClass(t, read(a, Read{Guarantee: drop}), errclass.Retryable)
				})
			}
		}
	}
}

// TestASegmentWithADroppedVectorFieldNeedsNoRoomForIt, nor is its load done only with that
// field's files.
func TestASegmentWithADroppedVectorFieldNeedsNoRoomForIt(t *testing.T) {
	f := schema.Field{ID: addedField, Name: "w", Type: schema.FloatVector, Dim: 512, Nullable: true}
	a := &addedRig{newRig(t, rigOptions{}), f, index.L2}
	a.add()
	a.apply(1, seq(0, 100), 0, false, func(int64) bool { return true })
	a.seal(1)
	a.upload(1)
	m, err := segfile.ParseManifest(a.read("segments/1/" + segfile.ManifestName))
	must(t, err)
	limit := sizeOf(m.BaseFiles()) + sizeOf(m.FieldFiles(vectorField))
	a.set.disk.limit.Store(limit)
	var done, total int64
	load := func() error {
		return a.coll.Load(t.Context(), LoadRequest{SegmentID: 1, VChannel: "v", Path: "segments/1", Progress: func(n, all int64) { done, total = n, all }})
	}
	wantClass(t, load(), errclass.Exhausted)
	info := a.info()
	info.Schema, info.Version = items(), 3
	info.Schema.Version = 3
	a.coll.Update(info)
	must(t, load())
	if done != total || total != limit {
		t.Errorf("%d of %d bytes, want %d", done, total, limit)
	}
}

// TestADroppedVectorFieldTakesNoMoreMemory: rows that come after the drop cost what they
// would without the field.
func TestADroppedVectorFieldTakesNoMoreMemory(t *testing.T) {
	for _, typ := range []schema.Type{schema.FloatVector, schema.Float16Vector} {
		f := schema.Field{ID: addedField, Name: "w", Type: typ, Dim: 512, Nullable: true}
		a := &addedRig{newRig(t, rigOptions{}), f, index.L2}
		a.add()
		a.apply(1, seq(0, 10), 0, false, func(int64) bool { return true })
		info := a.info()
		info.Schema, info.Version = items(), 3
		info.Schema.Version = 3
		a.o.schema = info.Schema
		a.coll.Update(info)
		const rows = 1000
		taken := func(segment int64, keys []int64) int64 {
			before := a.set.Ledger().Used()[KindGrowing]
			a.insert(segment, keys...)
			return a.set.Ledger().Used()[KindGrowing] - before
		}
		a.insert(2, seq(2000, 2010)...)
		with, without := taken(1, seq(1000, 1000+rows)), taken(2, seq(3000, 3000+rows))
		if with != without {
			t.Errorf("%s: %d rows take %d bytes in a segment with the field, %d in another", typ, rows, with, without)
		}
		a.handOff(1)
		if n := a.count(a.now); n != 2*rows+20 {
			t.Errorf("%d rows", n)
		}
	}
}
