package segments

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/scalarindex"
	"github.com/querynode/querynode/internal/schema"
)

// How far what the ledger holds may be from what the process really has: it may be
// too much by half of it, and too little by a fifth; and by slackBytes.
const (
	mostOver, mostUnder = 1.5, 0.8
	slackBytes          = 48 << 10
)

// really is what the process has: live objects on the heap, pages of the vectors of
// growing segments, and what is mapped of files in the folder of the rig, by pages.
type really struct{ heap, mapped, mappings int64 }

func (r *rig) really() really {
	r.t.Helper()
	r.idle()
	var m runtime.MemStats
	for range 3 { // the first empties pools, and finds what is to be finalized
		collect()
	}
	runtime.ReadMemStats(&m)
	out := really{heap: int64(m.HeapAlloc)}
	out.mapped, out.mappings = r.mappedFiles()
	snap := r.coll.Acquire()
	defer snap.Release()
	for _, h := range snap.view.segments {
		if g, ok := h.segment.(*Growing); ok {
			for _, v := range g.vectors() {
				for _, a := range append(v.old, v.arena.Load(), v.norms.Load(), v.valid.Load()) {
					out.heap += residentBytes(r.t, a)
				}
			}
		}
	}
	return out
}

// collect collects garbage and waits until what was found to be finalized before it is: on a busy
// machine that may be long after.
func collect() {
	type marker struct{ _ [64]byte }
	final, cleaned := make(chan struct{}), make(chan struct{})
	runtime.SetFinalizer(&marker{}, func(*marker) { close(final) })
	runtime.AddCleanup(&marker{}, func(done chan struct{}) { close(done) }, cleaned)
	runtime.GC()
	<-final
	<-cleaned
}

// residentBytes is how much of an arena has pages.
func residentBytes(t *testing.T, a *arena) (n int64) {
	t.Helper()
	if a == nil {
		return 0
	}
	page := os.Getpagesize()
	pages := make([]byte, (len(a.raw)+page-1)/page)
	if _, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&a.raw[0])), uintptr(len(a.raw)), uintptr(unsafe.Pointer(&pages[0]))); e != 0 {
		t.Fatalf("mincore: %v", e)
	}
	for _, p := range pages {
		n += int64(p&1) * int64(page)
	}
	return n
}

// mappedFiles sums the mappings of files in the folder of the rig.
func (r *rig) mappedFiles() (bytes, mappings int64) {
	r.t.Helper()
	f, err := os.Open("/proc/self/maps")
	must(r.t, err)
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 6 || !strings.HasPrefix(fields[5], r.dir) {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		a, err := strconv.ParseInt(from, 16, 64)
		must(r.t, err)
		b, err := strconv.ParseInt(to, 16, 64)
		must(r.t, err)
		bytes += b - a
		mappings++
	}
	return bytes, mappings
}

// agrees does something and compares what the ledger and the process have more for it.
func (r *rig) agrees(what string, do func()) {
	r.t.Helper()
	before, total, mapped := r.really(), r.set.Ledger().Total(), r.set.Ledger().Used()[KindMapped]
	do()
	after := r.really()
	total, mapped = r.set.Ledger().Total()-total, r.set.Ledger().Used()[KindMapped]-mapped
	more := really{after.heap - before.heap, after.mapped - before.mapped, after.mappings - before.mappings}
	r.t.Logf("%-28s heap %9d, ledger %9d; mapped %9d, ledger %9d", what, more.heap, total, more.mapped, mapped)
	under := mostUnder
	if slower > 1 { // the race detector's allocator does not pack small objects
		under = 0.7
	}
	for _, c := range []struct {
		of                  string
		real, ledger, slack int64
	}{{"memory", more.heap, total, slackBytes}, {"mapped files", more.mapped, mapped, abs(more.mappings) * int64(os.Getpagesize())}} {
		// What is given back agrees as well as what is taken.
		real, ledger, slack := abs(c.real), abs(c.ledger), float64(c.slack)
		if float64(ledger) > mostOver*float64(real)+slack || float64(ledger) < under*float64(real)-slack {
			r.t.Errorf("%s: the process has %d bytes of %s more, the ledger %d", what, c.real, c.of, c.ledger)
		}
	}
}

func abs(n int64) int64 { return max(n, -n) }

// randomColumn makes n rows of a field; each text is in memory of its own.
func randomColumn(f schema.Field, n int, rnd *rand.Rand) *schema.Column {
	c := schema.NewColumn(f, n)
	for i := range n {
		if f.Nullable {
			c.Valid = append(c.Valid, i%4 != 0)
		}
		values := 1
		if f.Type == schema.Array {
			values = rnd.IntN(20)
			if c.Null(i) {
				values = 0
			}
		}
		for range values {
			randomValue(c, f, rnd)
		}
		if f.Type == schema.Array {
			c.Offsets = append(c.Offsets, c.Offsets[i]+values)
		}
	}
	return c
}

func randomValue(c *schema.Column, f schema.Field, rnd *rand.Rand) {
	switch t := c.ValueType(); {
	case t == schema.Bool:
		c.Bool = append(c.Bool, rnd.IntN(2) == 0)
	case t.IsInt():
		c.Int = append(c.Int, rnd.Int64N(100))
	case t == schema.Float:
		c.Float = append(c.Float, rnd.Float32())
	case t == schema.Double:
		c.Double = append(c.Double, rnd.Float64())
	case t == schema.JSON:
		c.Str = append(c.Str, fmt.Sprintf(`{"a":%d,"b":"%x","few":["%d",%d],"own":[%d]}`, rnd.IntN(100), rnd.Uint64(), rnd.IntN(50), rnd.IntN(50), rnd.Uint64()>>20))
	case t == schema.VarChar:
		c.Str = append(c.Str, fmt.Sprintf("%x %x", rnd.Uint64(), rnd.Uint64()))
	case t == schema.FloatVector:
		for range f.Dim {
			c.Float = append(c.Float, rnd.Float32())
		}
	case t == schema.SparseFloatVector:
		for d := rnd.Uint32N(50); d < 3000; d += 1 + rnd.Uint32N(200) {
			c.Indices, c.Float = append(c.Indices, d), append(c.Float, float32(1+rnd.IntN(5)))
		}
		c.Offsets = append(c.Offsets, len(c.Indices))
	case t.IsRaw():
		for range t.RowBytes(f.Dim) {
			c.Raw = append(c.Raw, byte(rnd.IntN(100)))
		}
	}
}

// randomRows makes rows whose keys begin with from.
func (r *rig) randomRows(from, n int) *schema.Batch {
	rnd := rand.New(rand.NewPCG(uint64(from), 9))
	b := &schema.Batch{Rows: n}
	for _, f := range r.o.schema.Columns() {
		c := randomColumn(f, n, rnd)
		if f.ID == idField {
			for i := range c.Int {
				c.Int[i] = int64(from + i)
			}
			for i := range c.Str {
				c.Str[i] = fmt.Sprintf("key %09d", from+i)
			}
		}
		b.Columns = append(b.Columns, c)
	}
	return b
}

// grow puts n rows into a growing segment, some at a time.
func (r *rig) grow(segment int64, n, atOnce int) {
	r.t.Helper()
	for from := 0; from < n; from += atOnce {
		at := r.tick()
		must(r.t, r.ch.ApplyRows(Rows{SegmentID: segment, PartitionID: 7, Batch: r.randomRows(from, min(atOnce, n-from))}, at))
		r.ch.Advance(at)
	}
}

// stored puts a sealed segment of n rows into object storage.
func (r *rig) stored(segment int64, n int) {
	r.t.Helper()
	from := 0
	r.uploadRows(BuildOptions{Meta: Meta{ID: segment, CollectionID: 1, PartitionID: 7, VChannel: "v"}, Info: r.coll.Info()}, func() (*schema.Batch, error) {
		if from == n {
			return nil, io.EOF
		}
		b := r.randomRows(from, min(2000, n-from))
		for range b.Rows {
			b.Timestamps = append(b.Timestamps, 500)
		}
		from += b.Rows
		return b, nil
	})
}

// reconciled is a kind of collection whose memory is measured.
type reconciled struct {
	name   string
	fields []schema.Field // beside key and vector
	text   bool           // keys
	vector schema.Field
	index  VectorIndex
}

// reconciledKinds are scalars of all types, vectors of all types, and indexes of all.
func reconciledKinds() []reconciled {
	floats := schema.Field{Type: schema.FloatVector, Dim: 32}
	flat := VectorIndex{Type: "FLAT", Metric: index.L2}
	one := func(t, element schema.Type) []schema.Field {
		return []schema.Field{{ID: priceField, Name: "x", Type: t, Element: element, Nullable: true}}
	}
	kinds := []reconciled{
		{name: "text keys", text: true, vector: floats, index: flat},
		{name: "numbers", fields: []schema.Field{{ID: 201, Name: "a", Type: schema.Bool}, {ID: 202, Name: "b", Type: schema.Int8}, {ID: 203, Name: "c", Type: schema.Float},
			{ID: 204, Name: "d", Type: schema.Double}, {ID: 205, Name: "e", Type: schema.Timestamptz}}, vector: floats, index: flat},
		{name: "text", fields: one(schema.VarChar, 0), vector: floats, index: flat},
		{name: "JSON", fields: one(schema.JSON, 0), vector: floats, index: flat},
		{name: "arrays of numbers", fields: one(schema.Array, schema.Int64), vector: floats, index: flat},
		{name: "arrays of text", fields: one(schema.Array, schema.VarChar), vector: floats, index: flat},
		{name: "cosine", vector: floats, index: VectorIndex{Type: "FLAT", Metric: index.Cosine}},
		{name: "null vectors", vector: schema.Field{Type: schema.FloatVector, Dim: 32, Nullable: true}, index: flat},
		{name: "bits", vector: schema.Field{Type: schema.BinaryVector, Dim: 256}, index: VectorIndex{Type: "FLAT", Metric: index.Hamming}},
		{name: "sparse", vector: schema.Field{Type: schema.SparseFloatVector}, index: VectorIndex{Metric: index.IP}},
		{name: "words", vector: schema.Field{Type: schema.SparseFloatVector}, index: VectorIndex{Metric: index.BM25}},
	}
	for _, t := range []schema.Type{schema.Float16Vector, schema.BFloat16Vector, schema.Int8Vector} {
		kinds = append(kinds, reconciled{name: t.String(), vector: schema.Field{Type: t, Dim: 64}, index: VectorIndex{Type: "FLAT", Metric: index.Cosine}})
	}
	for _, t := range []string{"HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8", "SCANN"} {
		kinds = append(kinds, reconciled{name: t, vector: floats, index: VectorIndex{Type: t, Metric: index.L2}})
	}
	return kinds
}

func (k reconciled) schema() *schema.Schema {
	key := schema.Field{ID: idField, Name: "id", Type: schema.Int64, PrimaryKey: true}
	if k.text {
		key.Type = schema.VarChar
	}
	v := k.vector
	v.ID, v.Name = vectorField, "v"
	return &schema.Schema{Version: 1, Fields: append([]schema.Field{key, v}, k.fields...)}
}

// TestTheLedgerHasWhatIsReallyUsed of a growing segment, and of a sealed one that is
// warm, cold, and evicted: of every type of field and index, and nothing once it is
// released.
func TestTheLedgerHasWhatIsReallyUsed(t *testing.T) {
	const rows = 5000
	for _, k := range reconciledKinds() {
		t.Run(k.name, func(t *testing.T) {
			r := newRig(t, rigOptions{schema: k.schema(), index: k.index})
			r.set.listsAfter = 1 << 30 // measured by themselves below
			r.stored(2, rows)
			empty := r.really()
			r.agrees("growing", func() { r.grow(1, rows, 500) })
			r.agrees("growing, released", r.rewatch)
			r.agrees("sealed", func() { must(t, r.load(2)) })
			r.agrees("cold", func() {
				ok, err := r.coll.Cool(2)
				if must(t, err); !ok {
					t.Error("not cold")
				}
			})
			r.agrees("evicted", func() { r.set.disk.limit.Store(1); r.set.disk.force(0) })
			if len(r.remote()) != 1 {
				t.Error("not evicted")
			}
			r.agrees("released", func() { r.coll.Release(2) })
			if l := r.set.Ledger(); l.Total() != 0 || l.Used()[KindMapped] != 0 {
				t.Errorf("left in the ledger: %v", l.Used())
			}
			if now := r.really(); now.mapped != 0 || now.heap > empty.heap+slackBytes {
				t.Errorf("left: %d bytes mapped, %d more of heap", now.mapped, now.heap-empty.heap)
			}
		})
	}
}

// rewatch lets go of the channel, with its growing segments, and watches it again.
func (r *rig) rewatch() {
	r.t.Helper()
	r.coll.Unwatch("v")
	var err error
	r.ch, err = r.coll.Watch("v", Position{ID: fmt.Sprint(r.now), Timestamp: r.now}, nil)
	must(r.t, err)
}

// TestTheLedgerHasWhatDeletesTake: one by one or many at a time, buffered and applied.
func TestTheLedgerHasWhatDeletesTake(t *testing.T) {
	for _, text := range []bool{false, true} {
		k := reconciled{text: text, vector: schema.Field{Type: schema.FloatVector, Dim: 4}, index: VectorIndex{Type: "FLAT", Metric: index.L2}}
		r := newRig(t, rigOptions{schema: k.schema(), index: k.index})
		const rows = 20_000
		r.stored(2, rows)
		must(t, r.load(2))
		some := func(from, n int) {
			c := schema.NewColumn(k.schema().Primary(), n)
			for i := range n {
				if text {
					c.Str = append(c.Str, fmt.Sprintf("key %09d", from+i))
				} else {
					c.Int = append(c.Int, int64(from+i))
				}
			}
			at := r.tick()
			r.ch.ApplyDeletes(0, c, at)
			r.ch.Advance(at)
		}
		r.agrees("deletes one by one", func() {
			for i := range 5000 {
				some(i, 1)
			}
		})
		r.agrees("deletes a hundred at a time", func() {
			for i := 5000; i < rows; i += 100 {
				some(i, 100)
			}
		})
		r.agrees("deletes of nothing here", func() {
			for i := range 5000 {
				some(rows+i, 1)
			}
		})
		r.agrees("trimmed", func() { r.ch.TrimDeletes(r.now) })
		r.agrees("released", func() { r.coll.Release(2) })
	}
}

// TestTheLedgerHasWhatSmallSegmentsTake, of which there may be many.
func TestTheLedgerHasWhatSmallSegmentsTake(t *testing.T) {
	for _, indexed := range []string{"FLAT", "HNSW"} {
		k := reconciled{vector: schema.Field{Type: schema.FloatVector, Dim: 4}, index: VectorIndex{Type: indexed, Metric: index.L2},
			fields: []schema.Field{{ID: priceField, Name: "x", Type: schema.VarChar}}}
		r := newRig(t, rigOptions{schema: k.schema(), index: k.index})
		const many = 100
		load := func() {
			for i := range int64(many) {
				must(t, r.load(i+1))
			}
		}
		release := func() {
			for i := range int64(many) {
				r.coll.Release(i + 1)
			}
		}
		for i := range int64(many) {
			r.stored(i+1, 3)
		}
		for range 2 { // what is made once, and kept
			load()
			release()
		}
		r.agrees(fmt.Sprint(many, " small segments"), load)
		r.agrees("small growing ones", func() {
			for i := range 10 {
				at := r.tick()
				must(t, r.ch.ApplyRows(Rows{SegmentID: int64(1000 + i), PartitionID: 7, Batch: r.randomRows(10_000*(i+1), 3)}, at))
				r.ch.Advance(at)
			}
		})
		r.agrees("released", r.rewatch)
		r.agrees("released", release)
	}
}

// TestTheLedgerHasWhatIndexesLearn of filters that come again, which goes first when memory
// is short, and is not learnt while it is.
func TestTheLedgerHasWhatIndexesLearn(t *testing.T) {
	for _, kind := range []string{"HNSW_SQ", "SCANN"} {
		k := reconciled{vector: schema.Field{Type: schema.FloatVector, Dim: 16}, index: VectorIndex{Type: kind, Metric: index.L2}}
		r := newRig(t, rigOptions{schema: k.schema(), index: k.index, memory: 1 << 30})
		r.stored(2, 12_000)
		must(t, r.load(2))
		v, l := r.sealed(2).stored(vectorField), r.set.Ledger()
		search := func() {
			for range 200 {
				_, err := r.search(SearchRequest{Read: Read{Plan: r.plan("id < 5000")}, Vectors: make([]float32, 16), NQ: 1, TopK: 10})
				must(t, err)
			}
		}
		search() // what searches work in is made once, and kept
		v.learned.forget()
		r.agrees("searches of "+kind, search)
		learnt := v.learned.memory.size()
		if learnt < 12_000/8 {
			t.Errorf("%s: %d bytes are learnt", kind, learnt)
		}
		l.Observe(99<<20, 100<<20)
		must(t, r.set.coolColdest(t.Context()))
		if left := v.learned.memory.size(); left != 0 {
			t.Errorf("%s: %d bytes of what was learnt are left though memory is short", kind, left)
		}
		if search(); v.learned.memory.size() != 0 {
			t.Errorf("%s: %d bytes are learnt though memory is short: %d of %d are used", kind, v.learned.memory.size(), l.Total(), l.Limit())
		}
		l.Observe(0, 0)
		if search(); v.learned.memory.size() != learnt {
			t.Errorf("%s: %d bytes are learnt again, %d were before", kind, v.learned.memory.size(), learnt)
		}
		r.coll.Release(2)
		r.idle()
		if l.Total() != 0 {
			t.Errorf("%s: left in the ledger: %v", kind, l.Used())
		}
	}
}

// TestTheLedgerHasWhatListsTake, which growing segments get for fast searches.
func TestTheLedgerHasWhatListsTake(t *testing.T) {
	k := reconciled{vector: schema.Field{Type: schema.FloatVector, Dim: 32}, index: VectorIndex{Type: "HNSW", Metric: index.L2}}
	r := newRig(t, rigOptions{schema: k.schema(), index: k.index})
	r.agrees("growing with lists", func() {
		r.grow(1, 10_000, 500)
		r.built(1, 10_000)
	})
	r.agrees("released", r.rewatch)
}

// TestTheLedgerHasWhatScalarIndexesTake of each kind.
func TestTheLedgerHasWhatScalarIndexesTake(t *testing.T) {
	k := reconciled{vector: schema.Field{Type: schema.FloatVector, Dim: 4}, index: VectorIndex{Type: "FLAT", Metric: index.L2}, fields: []schema.Field{
		{ID: 201, Name: "number", Type: schema.Int64, Nullable: true}, {ID: 202, Name: "text", Type: schema.VarChar},
		{ID: 203, Name: "numbers", Type: schema.Array, Element: schema.Int64}, {ID: 204, Name: "texts", Type: schema.Array, Element: schema.VarChar},
		{ID: 205, Name: "doc", Type: schema.JSON}}}
	r := newRig(t, rigOptions{schema: k.schema(), index: k.index})
	r.stored(2, 20_000)
	must(t, r.load(2))
	for _, x := range []scalarKey{{201, scalarindex.Order, ""}, {202, scalarindex.Order, ""}, {202, scalarindex.Words, ""}, {202, scalarindex.Grams, ""},
		{203, scalarindex.Elements, ""}, {204, scalarindex.Elements, ""}, {205, scalarindex.Paths, `["a"]`}, {205, scalarindex.Paths, `["b"]`},
		{205, scalarindex.Paths, `["few"]`}, {205, scalarindex.Paths, `["own"]`}} {
		s := r.sealed(2)
		r.agrees(fmt.Sprintf("index of field %d, %s", x.fieldID, x.kind), func() {
			must(t, s.buildScalar(t.Context(), x))
			if !s.scalars.has(x) {
				t.Error("there is none")
			}
		})
		// What is reserved to build it is as much as it takes, or nearly.
		room, took := scalarRoom(x.kind, x.path, s.rows.Column(x.fieldID)), (*s.scalars.built.Load())[x].Bytes()
		most := int64(6)
		if x.kind == scalarindex.Paths {
			most = 10 // it is not known what values there are, and of what length
			if strings.Contains(x.path, "few") {
				most = 40 // nor whether they are in arrays, which take little where they have the same elements
			}
		}
		if t.Logf("%d bytes reserved", room); float64(room) < 0.7*float64(took) || room > most*took {
			t.Errorf("%d bytes were reserved to build it, it takes %d", room, took)
		}
	}
	r.agrees("released", func() { r.coll.Release(2) })
}

// TestTheLedgerHasVectorsThatAreAdded to a growing segment that has more rows than it had
// reserved room for.
func TestTheLedgerHasVectorsThatAreAdded(t *testing.T) {
	for _, f := range addedKinds() {
		t.Run(f.Type.String(), func(t *testing.T) {
			f.Dim *= 8
			a := &addedRig{newRig(t, rigOptions{set: func(o *Options) { o.GrowingRows = 1000 }}), f, index.Cosine}
			switch f.Type {
			case schema.BinaryVector:
				a.metric = index.Hamming
			case schema.SparseFloatVector:
				a.metric = index.IP
			}
			a.apply(1, seq(0, 6000), 0, false, nil)
			a.add()
			a.agrees("vectors added", func() { a.apply(1, seq(6000, 9000), 0, false, func(k int64) bool { return k%5 > 0 }) })
			a.agrees("released", a.rewatch)
		})
	}
}
