package segments

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/schema"
)

func TestAnErrorOfEmitStopsTheQuery(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 100)...)
	boom := errors.New("the client has gone")
	calls := 0
	_, err := r.coll.Query(t.Context(), &QueryRequest{Read: Read{OutputFields: []int64{idField}}, BatchRows: 10},
		func(b *schema.Batch, at uint64) error {
			if calls++; calls == 3 {
				return boom
			}
			if b.Rows != 10 || at != r.now {
				t.Errorf("%d rows at %d", b.Rows, at)
			}
			return nil
		})
	if !errors.Is(err, boom) || calls != 3 {
		t.Fatalf("%v after %d calls", err, calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	calls = 0
	_, err = r.coll.Query(ctx, &QueryRequest{BatchRows: 10}, func(*schema.Batch, uint64) error {
		calls++
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Fatalf("%v after %d calls", err, calls)
	}
}

func TestAFieldThatIsNotThere(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1)
	_, err := r.search(SearchRequest{Vectors: vectorOf(1, 0), TopK: 1, Read: Read{OutputFields: []int64{999}}})
	wantClass(t, err, errclass.Invalid)
}

// TestKeysOutOfOrder: rows come in any order of keys; a filter that names keys
// looks them up, one that does not walks the key order.
func TestKeysOutOfOrder(t *testing.T) {
	r := newRig(t, rigOptions{})
	keys := seq(0, 3000)
	rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	r.insert(1, keys[:2000]...)
	r.insert(1, keys[2000:]...)
	r.delete(5, 6)
	r.handOff(1)
	r.check(r.now)
	r.check(1010)
	for _, c := range []struct {
		filter string
		want   []int64
	}{
		{"id in [1, 5, 7, 9000]", []int64{1, 7}},
		{"id in [1, 5, 7, 8] and color == 'green'", []int64{1}},
		{"id < 10", []int64{0, 1, 2, 3, 4, 7, 8, 9}},
		{"id >= 2995 and id != 2997", []int64{2995, 2996, 2998, 2999}},
	} {
		if got, _ := r.prices(QueryRequest{Read: Read{Plan: r.plan(c.filter)}}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.filter, got, c.want)
		}
	}
	// At a time when only some of the keys were there.
	some := keys[1990:2100]
	want := slices.Sorted(slices.Values(some[:10])) // the deletes came later
	p, err := expr.Compile("id in {keys}", r.o.schema, map[string]any{"keys": some}, "")
	must(t, err)
	if got, _ := r.prices(QueryRequest{Read: Read{Plan: p, ReadTimestamp: 1010}}); !slices.Equal(got, want) {
		t.Errorf("at 1010: %v, want %v", got, want)
	}
}

// withField returns the schema with one more field.
func withField(s *schema.Schema, f schema.Field) *schema.Schema {
	next := *s
	next.Fields = append(slices.Clone(s.Fields), f)
	return &next
}

// TestAFieldAddedLaterIsNullInOlderRows, growing and sealed, also when the
// segment goes on taking rows, and survives the flush.
func TestAFieldAddedLaterIsNullInOlderRows(t *testing.T) {
	const sizeField = 110
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 10)...)
	r.insert(2, seq(10, 20)...)
	r.handOff(1)
	r.o.schema = withField(r.o.schema, schema.Field{ID: sizeField, Name: "size", Type: schema.Int64, Nullable: true})
	r.coll.Update(r.info())
	sizes := func(filter string) (keys, sizes []int64, valid []bool) {
		t.Helper()
		read := Read{Plan: r.plan(filter), OutputFields: []int64{idField, sizeField}}
		_, err := r.coll.Query(t.Context(), &QueryRequest{Read: read}, func(b *schema.Batch, _ uint64) error {
			for i := range b.Rows {
				keys = append(keys, b.Columns[0].Int[i])
				sizes = append(sizes, b.Columns[1].Int[i])
				valid = append(valid, !b.Columns[1].Null(i))
			}
			return nil
		})
		must(t, err)
		return keys, sizes, valid
	}
	keys, _, valid := sizes("")
	if len(keys) != 20 || slices.Contains(valid, true) {
		t.Fatalf("keys %v, valid %v", keys, valid)
	}
	// Rows with the field, into the segment that was begun without it.
	b := r.batch(seq(20, 5000), 0)
	size := b.Columns[len(b.Columns)-1]
	for k := int64(20); k < 5000; k++ {
		size.Int = append(size.Int, k*2)
	}
	at := r.tick()
	must(t, r.ch.ApplyRows(Rows{SegmentID: 2, PartitionID: 7, Batch: b}, at))
	r.ch.Advance(at)
	check := func(when string) {
		t.Helper()
		keys, got, valid := sizes("")
		if len(keys) != 5000 {
			t.Fatalf("%s: %d rows", when, len(keys))
		}
		for i, k := range keys {
			if valid[i] != (k >= 20) || (valid[i] && got[i] != 2*k) {
				t.Fatalf("%s: key %d has size %d, valid %t", when, k, got[i], valid[i])
			}
		}
		for filter, want := range map[string]int{"size is null": 20, "size == 60": 1, "size > 9000": 499, "id in [3, 15, 40] and size is null": 2,
			"id in [3, 15, 40] and size > 0": 1} {
			if keys, _, _ := sizes(filter); len(keys) != want {
				t.Errorf("%s: %s: %d rows, want %d", when, filter, len(keys), want)
			}
		}
	}
	check("growing")
	r.handOff(2)
	check("sealed")
}

// TestTheDynamicFieldOfOlderRows is an empty object.
func TestTheDynamicFieldOfOlderRows(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1)
	s := *r.o.schema
	s.Dynamic = true
	r.o.schema = &s
	r.coll.Update(r.info())
	check := func(want ...string) {
		t.Helper()
		var got []string
		_, err := r.coll.Query(t.Context(), &QueryRequest{Read: Read{OutputFields: []int64{schema.DynamicFieldID}}}, func(b *schema.Batch, _ uint64) error {
			got = append(got, b.Columns[0].Str...)
			return nil
		})
		must(t, err)
		if !slices.Equal(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	check("{}")
	// A batch with the field among those that follow: it is found by its id.
	b := r.batch([]int64{2}, 0)
	b.Columns[len(b.Columns)-1].Str = []string{`{"a":1}`}
	at := r.tick()
	must(t, r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: b}, at))
	r.ch.Advance(at)
	check("{}", `{"a":1}`)
	if keys, _ := r.prices(QueryRequest{Read: Read{Plan: r.plan(`$meta["a"] == 1`)}}); !slices.Equal(keys, []int64{2}) {
		t.Fatalf("%v", keys)
	}
	r.handOff(1)
	if keys, _ := r.prices(QueryRequest{Read: Read{Plan: r.plan(`not exists $meta["a"]`)}}); !slices.Equal(keys, []int64{1}) {
		t.Fatalf("%v", keys)
	}
}
