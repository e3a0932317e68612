package segments

import (
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

const (
	// keptFactor is how many times a page's rows the first page of an iteration looks
	// for, and how many times more each time that what was kept has been used up.
	keptFactor = 8
	// keptRows is how many rows one iteration has at most, over all segments.
	keptRows = 1 << 16
	// keptBytesAtMost is what all iterations have together, and keptCount how many.
	keptBytesAtMost = 32 << 20
	keptCount       = 1024
	// keptFor is how long what an iteration has is kept for its next page.
	keptFor = 2 * time.Minute
)

// keptPages are rows that pages have found beyond their end, for the pages behind. It
// is a cache: what is not there is looked for again, so a page is the same with and
// without it. Safe for concurrent use.
type keptPages struct {
	ledger *Ledger
	mu     struct {
		sync.Mutex
		of    map[iteration]*keptIteration
		bytes int64

		closed bool // nothing is kept any more
	}
}

// iteration is what pages have in common: two searches with the same one have the same
// rows in the same order.
type iteration struct {
	collection int64
	request    uint64 // Paging.Request
	at         uint64
	ttl        time.Duration
	schema     int32 // its version
}

// keptIteration is what is kept of one iteration.
type keptIteration struct {
	runs   map[uint64]*keptRun // by holder.serial
	memory *Reservation
	used   time.Time
}

// keptRun is a run of the rows of one segment in the order of pages. It does not change.
type keptRun struct {
	from  *pageHit    // behind which it begins; nil = at the first row
	keys  []uint64    // vec.Key of each, those equally near in order of their primary keys
	whole bool        // no rows come behind
	n     int         // rows that the read may see: of the first n,
	rows  *bitset.Set // those in rows; nil = all
}

// bytes is the memory of r.
func (r *keptRun) bytes() int64 {
	n := int64(8*cap(r.keys)) + 256
	if r.rows != nil {
		n += 8 * int64(len(r.rows.Words()))
	}
	return n
}

// hit returns row i of the run, which is of target number t.
func (r *keptRun) hit(i int, t *target, number int32) pageHit {
	n := vec.Unkey(r.keys[i])
	return pageHit{hit: hit{target: number, row: n.Row, distance: n.Distance}, far: uint32(r.keys[i] >> 32), key: keyOf(t, n.Row)}
}

// behind returns the place of the first row behind a cursor (nil: the first), and
// whether the run has all rows from there to its end.
func (r *keptRun) behind(after *pageHit, t *target) (at int, ok bool) {
	switch {
	case after == nil:
		return 0, r.from == nil
	case r.from != nil && r.from.compare(after) > 0:
		return 0, false
	}
	at = sort.Search(len(r.keys), func(i int) bool {
		if far := uint32(r.keys[i] >> 32); far != after.far {
			return far > after.far
		}
		h := r.hit(i, t, 0)
		return h.compare(after) > 0
	})
	return at, at < len(r.keys) || r.whole
}

// get returns the runs that are kept of an iteration; nil = none.
func (k *keptPages) get(id iteration) map[uint64]*keptRun {
	if id.request == 0 {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	x := k.mu.of[id]
	if x == nil {
		return nil
	}
	x.used = time.Now()
	return x.runs
}

// put keeps runs of an iteration instead of what is there, if there is room.
func (k *keptPages) put(id iteration, runs map[uint64]*keptRun) {
	if id.request == 0 {
		return
	}
	bytes := int64(0)
	for _, r := range runs {
		bytes += r.bytes()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropLocked(id)
	if k.mu.closed || bytes > keptBytesAtMost/4 {
		return
	}
	for len(k.mu.of) > 0 && (k.mu.bytes+bytes > keptBytesAtMost || len(k.mu.of) >= keptCount) {
		k.dropLocked(k.oldestLocked())
	}
	memory, err := k.ledger.Reserve(KindPages, bytes)
	if err != nil {
		return
	}
	if k.mu.of == nil {
		k.mu.of = map[iteration]*keptIteration{}
	}
	k.mu.of[id] = &keptIteration{runs: runs, memory: memory, used: time.Now()}
	k.mu.bytes += bytes
}

func (k *keptPages) oldestLocked() (oldest iteration) {
	var used time.Time
	for id, x := range k.mu.of {
		if used.IsZero() || x.used.Before(used) {
			oldest, used = id, x.used
		}
	}
	return oldest
}

func (k *keptPages) dropLocked(id iteration) {
	if x := k.mu.of[id]; x != nil {
		k.mu.bytes -= x.memory.size()
		x.memory.Release()
		delete(k.mu.of, id)
	}
}

// close drops everything for good.
func (k *keptPages) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.closed = true
	for id := range k.mu.of {
		k.dropLocked(id)
	}
}

// sweep drops what was last used before a time.
func (k *keptPages) sweep(before time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, x := range k.mu.of {
		if x.used.Before(before) {
			k.dropLocked(id)
		}
	}
}

// sortEquals puts rows equally near, of keys in order, in order of their primary keys.
func sortEquals(keys []uint64, t *target) {
	for from := 0; from < len(keys); {
		to := from + 1
		for to < len(keys) && keys[to]>>32 == keys[from]>>32 {
			to++
		}
		if to > from+1 {
			equal := make([]pageHit, 0, to-from)
			r := keptRun{keys: keys[from:to]}
			for i := range r.keys {
				equal = append(equal, r.hit(i, t, 0))
			}
			slices.SortFunc(equal, func(a, b pageHit) int { return a.compare(&b) })
			for i := range equal {
				r.keys[i] = uint64(equal[i].far)<<32 | uint64(equal[i].row)
			}
		}
		from = to
	}
}
