package segments

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// pages reads n pages (0 = all) behind a cursor and returns the keys, the cursor behind
// them and how each segment was searched for the last of them.
func (r *rig) pages(q SearchRequest, after *Cursor, n int) (keys []int64, last *Cursor, ways string) {
	r.t.Helper()
	q.Read.Explain = true
	for i := 0; n == 0 || i < n; i++ {
		q.Page = &Paging{After: after, Request: q.Page.Request}
		res := r.found(q)
		keys = append(keys, res.Keys.Int...)
		ways = ""
		for _, s := range res.Stats.Segments {
			ways += fmt.Sprintf("%d %v ", s.ID, s.Ways)
		}
		if after = res.Last; !res.More {
			break
		}
	}
	return keys, after, ways
}

// TestPagesBehindTheFirstNeedNoScan, until what the first has found is used up, or a
// segment is another one.
func TestPagesBehindTheFirstNeedNoScan(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 2000)...)
	r.insert(2, seq(2000, 4000)...)
	q := SearchRequest{Vectors: vectorOf(7, 7), TopK: 10, Page: &Paging{}, Read: Read{ReadTimestamp: r.now}}
	want, _, _ := r.pages(q, nil, 0)
	q.Page.Request = 5
	first, one, ways := r.pages(q, nil, 1)
	if ways != "1 [scan] 2 [scan] " || r.set.Ledger().Used()[KindPages] == 0 {
		t.Errorf("the first page: %s, %d bytes kept", ways, r.set.Ledger().Used()[KindPages])
	}
	second, two, ways := r.pages(q, one, 1)
	if ways != "1 [kept rows] 2 [kept rows] " {
		t.Errorf("the second page: %s", ways)
	}
	if again, _, ways := r.pages(q, one, 1); !slices.Equal(again, second) || ways != "1 [kept rows] 2 [kept rows] " {
		t.Errorf("the second page again: %s", ways)
	}
	r.handOff(2)
	third, three, ways := r.pages(q, two, 1)
	if ways != "1 [kept rows] 2 [scan] " {
		t.Errorf("after a hand-off: %s", ways)
	}
	rest, _, _ := r.pages(q, three, 0)
	if got := slices.Concat(first, second, third, rest); !slices.Equal(got, want) {
		t.Errorf("%d rows kept, %d without, and they differ", len(got), len(want))
	}
	if again, _, _ := r.pages(q, one, 1); !slices.Equal(again, second) {
		t.Errorf("the second page after the last: %d", again)
	}
	if other, _, ways := r.pages(SearchRequest{Vectors: q.Vectors, TopK: 10, Page: &Paging{Request: 6}, Read: q.Read}, one, 1); ways != "1 [scan] 2 [scan] " || !slices.Equal(other, second) {
		t.Errorf("another request: %s", ways)
	}
}

// TestScansGrowRarer: each finds several times as many rows as the one before.
func TestScansGrowRarer(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 5000)...)
	q := SearchRequest{Vectors: vectorOf(7, 7), TopK: 10, Page: &Paging{Request: 1}, Read: Read{ReadTimestamp: r.now}}
	scans := 0
	for after, n := (*Cursor)(nil), 0; n < 500; n++ {
		_, last, ways := r.pages(q, after, 1)
		if after = last; ways == "1 [scan] " {
			scans++
		}
	}
	if scans > 4 {
		t.Errorf("%d scans for 500 pages", scans)
	}
}

// TestKeptRowsAreBounded, by what there may be of them, by the limit and by time.
func TestKeptRowsAreBounded(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 3000)...)
	q := SearchRequest{Vectors: vectorOf(7, 7), TopK: 200, Page: &Paging{}, Read: Read{ReadTimestamp: r.now}}
	kept := func() int64 { return r.set.Ledger().Used()[KindPages] }
	for i := range uint64(keptCount + 100) {
		q.Page.Request = i + 1
		r.pages(q, nil, 1)
	}
	if n := len(r.set.pages.mu.of); n > keptCount || kept() > keptBytesAtMost || kept() != r.set.pages.mu.bytes {
		t.Errorf("%d iterations with %d bytes, %d in the ledger", n, r.set.pages.mu.bytes, kept())
	}
	r.set.tendPages(time.Now())
	if kept() == 0 {
		t.Error("dropped while fresh")
	}
	r.set.tendPages(time.Now().Add(keptFor + time.Minute))
	if kept() != 0 || len(r.set.pages.mu.of) != 0 {
		t.Errorf("%d bytes are kept for ever", kept())
	}
	_, one, _ := r.pages(q, nil, 1)
	second, _, _ := r.pages(q, one, 1)
	r.set.Ledger().limit.Store(r.set.Ledger().Total())
	r.set.tendPages(time.Now().Add(time.Second))
	if kept() != 0 {
		t.Errorf("%d bytes are kept while memory is short", kept())
	}
	if again, _, _ := r.pages(q, one, 1); !slices.Equal(again, second) || kept() != 0 {
		t.Errorf("%d rows, %d bytes kept", len(again), kept())
	}
}

// TestRowsEquallyNearAreKeptTogether: rows that are kept do not end amid such ones.
func TestRowsEquallyNearAreKeptTogether(t *testing.T) {
	r := newRig(t, rigOptions{})
	keys := seq(0, 900)
	slices.Reverse(keys)
	b := r.batch(keys, 0)
	for i, key := range b.Columns[0].Int {
		v := b.Columns[3].Float[i*dim:][:dim]
		clear(v)
		v[0] = float32(key * 7 % 900 / 45)
	}
	at := r.tick()
	must(t, r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: b}, at))
	r.ch.Advance(at)
	q := SearchRequest{Vectors: make([]float32, dim), TopK: 7, Page: &Paging{}, Read: Read{ReadTimestamp: r.now}}
	want, _, _ := r.pages(q, nil, 0)
	q.Page.Request = 1
	if got, _, _ := r.pages(q, nil, 0); len(got) != 900 || !slices.Equal(got, want) {
		t.Errorf("%d rows kept, %d without, and they differ", len(got), len(want))
	}
}

// unreadable is a segment whose keys cannot be read while broken says so.
type unreadable struct {
	segment
	broken func(row uint32) bool
}

func (u *unreadable) key(row uint32) (int64, string) {
	if u.broken(row) {
		panic("boom")
	}
	return u.segment.key(row)
}

// TestKeptRowsThatCannotBeRead cost one segment a scan, not the page; and where the scan
// fails too, that segment.
func TestKeptRowsThatCannotBeRead(t *testing.T) {
	r := newRig(t, rigOptions{set: func(o *Options) { o.QuarantineAfter = 4 }})
	r.insert(1, seq(0, 1000)...)
	r.insert(2, seq(1000, 2000)...)
	broken, reads := -1, 0
	h := r.holderOf(1)
	h.segment = &unreadable{h.segment, func(uint32) bool { reads++; return reads == broken }}
	q := SearchRequest{Vectors: vectorOf(7, 7), TopK: 10, Page: &Paging{}, Read: Read{ReadTimestamp: r.now}}
	want, _, _ := r.pages(q, nil, 3)
	q.Page.Request = 1
	_, one, _ := r.pages(q, nil, 1)
	reads, broken = 0, 1
	got, two, ways := r.pages(q, one, 1)
	if ways != "1 [scan] 2 [kept rows] " || !slices.Equal(got, want[10:20]) || h.faults.Load() != 1 {
		t.Errorf("%s, %d faults, keys %v", ways, h.faults.Load(), got)
	}
	got, _, ways = r.pages(q, two, 1)
	if ways != "1 [scan] 2 [kept rows] " || !slices.Equal(got, want[20:]) {
		t.Errorf("the next page: %s, keys %v", ways, got)
	}
	if _, _, ways = r.pages(q, two, 1); ways != "1 [kept rows] 2 [kept rows] " {
		t.Errorf("and again: %s", ways)
	}
	broken = 0
	h.segment.(*unreadable).broken = func(uint32) bool { return true }
	q.Page = &Paging{After: one, Request: 1}
	q.AllowPartial = true
	for h.quarantined() == "" {
		res := r.found(q)
		if len(res.Keys.Int) != 10 || slices.Min(res.Keys.Int) < 1000 || len(res.Stats.Failures) != 1 {
			t.Fatalf("keys %v, failures %v", res.Keys.Int, res.Stats.Failures)
		}
	}
}
