package segments

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/querynode/querynode/internal/bitset"
)

// Of the filters that a sealed segment remembers.
const (
	// matchedKept is how many they are at most. One takes an eighth of a byte a row and its text.
	matchedKept = 32
	// matchedMet is of how many filters that are not remembered it is known that they were met.
	matchedMet = 32
	// matchedText bounds the text of a filter that is remembered, in bytes.
	matchedText = 64 << 10
	// matchedRest is how many filters at most are passed over before memory is asked for again
	// that was refused.
	matchedRest = 256
)

// matched remembers which rows of a sealed segment match filters that were met before a
// moment ago: rows do not change, so what a filter says of them does not either. Deletes and
// ages are no part of it. It is kept while memory has plenty of room, and is the first to
// go when it has not, as what indexes learn. Readers wait for nothing in it.
type matched struct {
	memory *Reservation
	seed   maphash.Seed
	kept   atomic.Pointer[[]*matchedFilter] // the list does not change; nil = nothing is kept
	met    [matchedMet]atomic.Uint64
	next   atomic.Uint32 // place in met
	mu     sync.Mutex    // serialises writers
	hand   int           // where the next to go is looked for; guarded by mu
	rest   int32         // how many were passed over after the last refusal; guarded by mu
	pass   atomic.Int32  // how many more are
}

// matchedFilter is a filter and its rows, which do not change.
type matchedFilter struct {
	text    string // in normal form
	fields  []int64
	version int32 // of the schema: what fields that the segment lacks hold may change with it
	rows    []uint64
	used    atomic.Bool // since somebody looked for one to go
}

func newMatched(l *Ledger) *matched {
	return &matched{memory: l.Force(KindSealed, 0), seed: maphash.MakeSeed()}
}

// find returns what is kept of a filter, nil if that is nothing.
func (k *matched) find(m *match) *matchedFilter {
	kept := k.kept.Load()
	if kept == nil {
		return nil
	}
	text := m.plan.String()
	for _, f := range *kept {
		if f.text == text && f.is(m) {
			return f
		}
	}
	return nil
}

// is reports whether a filter of the same text is the same one: names may have become those
// of other fields.
func (f *matchedFilter) is(m *match) bool {
	var few [8]int64
	return f.version == m.schema.Version && slices.Equal(f.fields, m.plan.AppendFields(few[:0]))
}

// get sets out to the rows among the first n that match, if they are known.
func (k *matched) get(m *match, n int, out *bitset.Set) bool {
	f := k.find(m)
	if f == nil {
		return false
	}
	if !f.used.Load() {
		f.used.Store(true)
	}
	out.Reset(n)
	w := out.Words()
	copy(w, f.rows)
	if r := n & 63; r != 0 {
		w[len(w)-1] &= 1<<r - 1
	}
	return true
}

// put keeps the rows of a filter that was met before and is not kept, if it matches the same
// each time, memory allows and nobody else is putting one. rows are copied; they are of all
// rows of the segment.
func (k *matched) put(m *match, rows []uint64) {
	if k.pass.Load() > 0 {
		k.pass.Add(-1)
		return
	}
	text := m.plan.String()
	if len(text) > matchedText || m.plan.Samples() || !k.again(maphash.String(k.seed, text)) || !k.mu.TryLock() {
		return
	}
	defer k.mu.Unlock()
	if k.find(m) != nil {
		return
	}
	var few [8]int64
	var before []*matchedFilter
	if kept := k.kept.Load(); kept != nil {
		before = *kept
	}
	grows, at := matchedBytes(text, m.plan.AppendFields(few[:0]), rows), len(before)
	if len(before) == matchedKept {
		at = k.leastLocked(before)
		grows -= matchedBytes(before[at].text, before[at].fields, before[at].rows)
	}
	if !k.memory.growSpare(grows, coolTo) {
		// While memory is short, each filter that comes again would ask.
		k.rest = min(2*k.rest+1, matchedRest)
		k.pass.Store(k.rest)
		return
	}
	k.rest = 0
	next := make([]*matchedFilter, max(at+1, len(before)))
	copy(next, before)
	next[at] = &matchedFilter{text: text, fields: m.plan.Fields(), version: m.schema.Version, rows: slices.Clone(rows)}
	k.kept.Store(&next)
}

// matchedBytes is what a filter takes.
func matchedBytes(text string, fields []int64, rows []uint64) int64 {
	return int64(96 + len(text) + 8*len(fields) + 8*len(rows))
}

// again reports whether a filter was met lately, and notes it.
func (k *matched) again(hash uint64) bool {
	hash |= 1 // an empty place is 0
	for i := range k.met {
		if k.met[i].Load() == hash {
			return true
		}
	}
	k.met[(k.next.Add(1)-1)%matchedMet].Store(hash)
	return false
}

// leastLocked returns the place of one that was not used since the last time that it was asked
// about, else of any.
func (k *matched) leastLocked(kept []*matchedFilter) int {
	for range kept {
		k.hand = (k.hand + 1) % len(kept)
		if !kept[k.hand].used.Swap(false) {
			break
		}
	}
	return k.hand
}

// forget drops everything.
func (k *matched) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept.Store(nil)
	k.memory.Commit(0)
}
