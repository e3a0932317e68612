package segments

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/scalarindex"
	"github.com/querynode/querynode/internal/schema"
)

// untilIndexed queries until the segment's field has the index.
func (r *rig) untilIndexed(segment, field int64, kind, filter string) {
	r.t.Helper()
	p := r.plan(filter)
	for deadline := time.Now().Add(hangs); time.Now().Before(deadline); {
		for range 50 {
			r.sealed(segment).matched.forget() // else it is not run again
			r.prices(QueryRequest{Read: Read{Plan: p}})
		}
		if strings.Contains(r.status(segment).Indexes[field], kind) {
			return
		}
	}
	r.t.Fatalf("segment %d: no %s index of field %d after many filters: %v", segment, kind, field, r.status(segment).Indexes)
}

// Filters that read a column often enough give it an index; what they find, at
// any time, stays the same, and the memory is the segment's.
func TestColumnsThatAreFilteredByOftenGetAnIndex(t *testing.T) {
	r := newRig(t, rigOptions{schema: itemsWithDocs()})
	r.set.indexAfter = 1000
	r.insert(1, seq(0, 3000)...)
	r.delete(seq(100, 120)...)
	early := r.now
	r.upsert(1, 7, seq(500, 520)...)
	r.handOff(1)
	filters := []string{
		"price > 100 and price <= 1500", "price in [3, 5, 7]", "not (price < 2000)", `color in ["red", "green"] and price < 400`,
		`color like "%ree%"`, `text_match(color, "red")`, "color is null and price > 5", `price > 10 or color == "red"`, `color != "red"`, "price % 2 == 0 and price > 2500",
		`doc["in"]["c"] == "red"`, `doc["in"]["c"] != "red" and price < 3000`, `exists doc["in"]["c"]`, `doc["in"]["c"] in ["red", "blue", 1] or price < 100`,
	}
	type answer struct{ now, early []int64 }
	ask := func(filter string) (a answer) {
		p := r.plan(filter)
		a.now, _ = r.prices(QueryRequest{Read: Read{Plan: p}})
		a.early, _ = r.prices(QueryRequest{Read: Read{Plan: p, ReadTimestamp: early}})
		return a
	}
	before, found := map[string]answer{}, 0
	for _, f := range filters {
		before[f] = ask(f)
		found += len(before[f].now)
	}
	if found == 0 {
		t.Fatal("no filter finds anything")
	}
	bytes := r.status(1).MemoryBytes
	r.untilIndexed(1, priceField, "order", "price > 100")
	r.untilIndexed(1, colorField, "order", `color == "red"`)
	r.untilIndexed(1, colorField, "words", `text_match(color, "red")`)
	r.untilIndexed(1, colorField, "grams", `color like "%ree%"`)
	r.untilIndexed(1, docField, `path["in"]["c"]`, `doc["in"]["c"] == "red"`)
	for _, f := range filters {
		if after := ask(f); !slices.Equal(after.now, before[f].now) || !slices.Equal(after.early, before[f].early) {
			t.Errorf("%s: %d and %d rows, without indexes %d and %d", f, len(after.now), len(after.early), len(before[f].now), len(before[f].early))
		}
	}
	if now := r.status(1).MemoryBytes; now < bytes+3000*10 {
		t.Errorf("%d bytes with indexes, %d without", now, bytes)
	}
}

// Without room in the ledger filters go on reading the column.
func TestAnIndexThatDoesNotFitIsNotBuilt(t *testing.T) {
	r := newRig(t, rigOptions{memory: 8 << 20})
	r.set.indexAfter = 1000
	r.insert(1, seq(0, 3000)...)
	r.handOff(1)
	room := r.set.Ledger().Force(KindScratch, r.set.Ledger().Limit())
	defer room.Release()
	p := r.plan("price > 100")
	for range 500 {
		r.sealed(1).matched.forget() // else the filter is not run again
		r.prices(QueryRequest{Read: Read{Plan: p}})
	}
	if got := r.status(1).Indexes[priceField]; got != "" {
		t.Fatalf("index %q", got)
	}
}

// Close does not wait for an index that is being built, or queued, for longer than
// a piece of it takes; rig.close checks that nothing is left.
func TestCloseWhileIndexesAreDue(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.set.indexAfter = 1000
	r.insert(1, seq(0, 3000)...)
	r.handOff(1)
	for range 210 {
		r.sealed(1).matched.forget() // else the filter is not run again
		r.prices(QueryRequest{Read: Read{Plan: r.plan(`price > 100 and color > "a"`)}})
	}
}

// However many paths filters named once, a path that they name often gets its index, until there are enough.
func TestPathsThatFiltersNamedOnceKeepNoneOut(t *testing.T) {
	x := newScalarIndexes(NewLedger(0))
	key := func(path string) scalarKey { return scalarKey{1, scalarindex.Paths, path} }
	for i := range 3 * maxCounted {
		x.pay(scalarKey{int64(i), scalarindex.Order, ""}, 1, 1000)
		for range 2 {
			x.pay(key(fmt.Sprintf("[%d]", i)), 10, 1000)
		}
	}
	due := false
	for i := range 200 { // between others, each of them new
		due = due || x.pay(key(`["hot"]`), 10, 1000)
		x.pay(key(fmt.Sprintf(`["once"][%d]`, i)), 10, 1000)
	}
	if !due {
		t.Error("the path gets no index")
	}
	if n := len(x.mu.paths); n > maxCounted {
		t.Errorf("%d paths are counted", n)
	}
	for i := range maxPaths {
		x.add(key(fmt.Sprintf("[%d]", i)), &scalarindex.Path{})
	}
	if x.pay(key(`["late"]`), 5000, 1000) || x.takes(key(`["late"]`)) {
		t.Error("there are more indexes than there may be")
	}
}

// A path whose texts are too long to be copied is tried once, and takes no more than was reserved.
func TestAPathOfLongTextsGetsNoIndex(t *testing.T) {
	r := newRig(t, rigOptions{schema: itemsWithDocs()})
	r.insert(1, seq(0, 300)...)
	r.handOff(1)
	s := r.sealed(1)
	c := &schema.Column{FieldID: docField, Type: schema.JSON}
	for range 300 {
		c.Str = append(c.Str, `{"body": "`+strings.Repeat(`0123456789abcdef\n`, 500)+`", "tag": "a\nb"}`)
	}
	for i, old := range s.rows.Columns {
		if old.FieldID == docField {
			s.rows.Columns[i] = c
		}
	}
	body, tag := scalarKey{docField, scalarindex.Paths, `["body"]`}, scalarKey{docField, scalarindex.Paths, `["tag"]`}
	must(t, s.buildScalar(t.Context(), body))
	if s.scalars.has(body) || s.scalars.takes(body) || s.scalars.pay(body, 5000, 1000) {
		t.Error("it has an index, or is tried again")
	}
	must(t, s.buildScalar(t.Context(), tag))
	if !s.scalars.has(tag) || s.scalars.memory.size() > scalarRoom(scalarindex.Paths, tag.path, c) {
		t.Errorf("the short texts have no index, or it takes %d bytes", s.scalars.memory.size())
	}
}
