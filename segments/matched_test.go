package segments

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/schema"
)

// ask returns the keys of the rows that match.
func (r *rig) ask(filter string, at uint64) []int64 {
	r.t.Helper()
	keys, _ := r.prices(QueryRequest{Read: Read{Plan: r.plan(filter), ReadTimestamp: at}})
	slices.Sort(keys)
	return keys
}

// TestAFilterThatComesAgainReadsNoColumn: from the third time on it finds what it found,
// also where the column cannot tell any more; deletes, older moments and time to live are heeded as ever.
func TestAFilterThatComesAgainReadsNoColumn(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 300)...)
	early := r.now
	r.insert(1, seq(300, 500)...)
	r.handOff(1)
	const filter = "price % 7 == 3"
	first := r.ask(filter, 0)
	if again := r.ask(filter, 0); len(first) == 0 || !slices.Equal(first, again) {
		t.Fatalf("%d rows, then %d", len(first), len(again))
	}
	for _, c := range r.sealed(1).rows.Columns {
		if c.FieldID == priceField {
			c.Int = make([]int64, len(c.Int)) // a filter that reads it finds nothing
		}
	}
	if got := r.ask(filter, 0); !slices.Equal(got, first) {
		t.Errorf("the third time %d rows, before %d", len(got), len(first))
	}
	if got, want := r.ask(filter, early), slices.DeleteFunc(slices.Clone(first), func(k int64) bool { return k >= 300 }); !slices.Equal(got, want) {
		t.Errorf("at the earlier moment %v, want %v", got, want)
	}
	r.delete(first[0], first[2])
	if got, want := r.ask(filter, 0), slices.Delete(slices.Clone(first), 2, 3)[1:]; !slices.Equal(got, want) {
		t.Errorf("after the delete %v, want %v", got, want)
	}
	if got := r.ask("price % 7 == 4", 0); len(got) != 0 {
		t.Errorf("a filter that is new read no column: %v", got)
	}
}

// TestWhatIsDrawnByChanceIsNotRemembered: it is other rows each time.
func TestWhatIsDrawnByChanceIsNotRemembered(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 400)...)
	r.handOff(1)
	first, other := r.ask("random_sample(0.5)", 0), false
	for range 5 {
		other = other || !slices.Equal(first, r.ask("random_sample(0.5)", 0))
	}
	if !other || r.sealed(1).matched.kept.Load() != nil {
		t.Error("six samples are the same, or something is kept")
	}
}

// TestTheSameWordsOfAnotherSchemaAreAnotherFilter: a field may be dropped and one of its name come.
func TestTheSameWordsOfAnotherSchemaAreAnotherFilter(t *testing.T) {
	k := newMatched(NewLedger(0))
	s := &schema.Schema{Version: 1, Fields: []schema.Field{{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true}, {ID: 101, Name: "n", Type: schema.Int64}}}
	next := *s
	next.Version, next.Fields = 2, []schema.Field{s.Fields[0], {ID: 102, Name: "n", Type: schema.Int64}}
	older, newer := matchOf(t, "n > 5", s), matchOf(t, "n > 5", &next)
	late := &match{plan: older.plan, schema: &next} // was compiled before the change
	k.put(older, []uint64{1})
	k.put(older, []uint64{1})
	if k.find(older) == nil || k.find(newer) != nil || k.find(late) != nil {
		t.Error("what is kept is not found, or for another field")
	}
	k.put(newer, []uint64{2})
	if f := k.find(newer); f == nil || f.rows[0] != 2 || k.find(late) != nil {
		t.Error("the field that came later has no filter of its own")
	}
	k.forget()
}

// TestFiltersInTurnAreRememberedUpToABound of number, and the ledger has what they take. Those that
// are used stay.
func TestFiltersInTurnAreRememberedUpToABound(t *testing.T) {
	l := NewLedger(0)
	k := newMatched(l)
	s := items()
	rows := make([]uint64, 100)
	used := matchOf(t, "price == -1", s)
	meet := func(filter string) {
		for range 2 {
			k.put(matchOf(t, filter, s), rows)
		}
	}
	meet("price == -1")
	for i := range 3 * matchedKept {
		meet(fmt.Sprintf("price == %d", i))
		var out bitset.Set
		if !k.get(used, 100*64, &out) {
			t.Fatalf("the filter that is used is gone after %d others", i+1)
		}
	}
	bytes := int64(0)
	for _, f := range *k.kept.Load() {
		bytes += matchedBytes(f.text, f.fields, f.rows)
	}
	if n := len(*k.kept.Load()); n != matchedKept || l.Total() != bytes {
		t.Errorf("%d filters are kept in %d bytes, the ledger has %d", n, bytes, l.Total())
	}
	for i := range 2 * matchedMet { // each comes again, but too late
		k.put(matchOf(t, fmt.Sprintf("price < %d", i%(matchedMet+1)), s), rows)
	}
	if k.find(matchOf(t, "price < 0", s)) != nil {
		t.Error("a filter is kept that was met long ago")
	}
	k.forget()
	if l.Total() != 0 || k.find(used) != nil {
		t.Errorf("%d bytes are left", l.Total())
	}
}

// TestFiltersAreNotRememberedWhileMemoryIsShort, and given up when it gets so.
func TestFiltersAreNotRememberedWhileMemoryIsShort(t *testing.T) {
	r := newRig(t, rigOptions{memory: 64 << 20})
	r.insert(1, seq(0, 400)...)
	r.handOff(1)
	kept := func() bool {
		for range 3 {
			r.ask("price % 3 == 1", 0)
		}
		return r.sealed(1).matched.kept.Load() != nil
	}
	l := r.set.Ledger()
	l.Observe(99<<20, 100<<20)
	if kept() {
		t.Error("a filter is kept though memory is short")
	}
	l.Observe(0, 0)
	if !kept() {
		t.Error("no filter is kept")
	}
	l.Observe(99<<20, 100<<20)
	must(t, r.set.coolColdest(t.Context()))
	if kept() || r.sealed(1).matched.memory.size() != 0 {
		t.Error("filters are kept though memory got short")
	}
	l.Observe(0, 0)
}

// TestFiltersAreRememberedWhileOthersRead: each read gets the rows of its own filter.
func TestFiltersAreRememberedWhileOthersRead(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 500)...)
	r.handOff(1)
	var want [2 * matchedKept][]int64
	for i := range want {
		want[i] = r.ask(fmt.Sprintf("price %% 64 == %d", i), 0)
	}
	var readers sync.WaitGroup
	for w := range 4 {
		readers.Go(func() {
			for n := range 400 {
				i := (n*n + w*17) % len(want)
				if n%3 > 0 {
					i %= 8 // some come more often
				}
				if got := r.ask(fmt.Sprintf("price %% 64 == %d", i), 0); !slices.Equal(got, want[i]) {
					t.Errorf("filter %d: %d rows, want %d", i, len(got), len(want[i]))
					return
				}
				if n%100 == 99 {
					r.sealed(1).forget()
				}
			}
		})
	}
	readers.Wait()
}

// matchOf compiles a filter.
func matchOf(t *testing.T, filter string, s *schema.Schema) *match {
	t.Helper()
	p, err := expr.Compile(filter, s, nil, "")
	must(t, err)
	return newMatch(p, s)
}

// TestAFilterIsKeptOnlyWhereThereIsRoom, and while there is none, filters that come again cost nothing: hardly one of them
// asks for memory, and what is asked for is not made before.
func TestAFilterIsKeptOnlyWhereThereIsRoom(t *testing.T) {
	l := NewLedger(1 << 20)
	k := newMatched(l)
	all, err := l.Reserve(KindGrowing, 1<<20-100)
	must(t, err)
	rows, filter := make([]uint64, 1000), matchOf(t, "price == 7", items())
	k.put(filter, rows)
	asked := 0
	put := func() {
		if k.pass.Load() == 0 {
			asked++
		}
		k.put(filter, rows)
	}
	if n := testing.AllocsPerRun(2000, put); n != 0 {
		t.Errorf("%v allocations for each", n)
	}
	if n := testing.AllocsPerRun(100, func() { k.memory.growSpare(8000, coolTo) }); n != 0 {
		t.Errorf("%v allocations to be refused", n)
	}
	if k.find(filter) != nil || l.Refused() != 0 || l.Total() != 1<<20-100 {
		t.Errorf("it was kept: %d bytes are in use, %d times refused", l.Total(), l.Refused())
	}
	if asked > 20 {
		t.Errorf("memory was asked for %d times of 2,000", asked)
	}
	all.Release()
	for range matchedRest + 1 {
		k.put(filter, rows)
	}
	if k.find(filter) == nil || k.rest != 0 {
		t.Error("there is room again, and it is not kept")
	}
	for _, text := range []string{"price == 8", "price == 9"} { // at once, as before
		next := matchOf(t, text, items())
		for range 2 {
			k.put(next, rows)
		}
		if k.find(next) == nil {
			t.Errorf("%s is not kept", text)
		}
	}
	k.forget()
	if l.Total() != 0 {
		t.Errorf("%d bytes are in use", l.Total())
	}
}
