package segments

import (
	"cmp"
	"context"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/schema"
)

// QueryRequest asks for the rows that match a filter, in order of their keys.
type QueryRequest struct {
	Read
	Limit     int // 0 = all
	Offset    int
	CountOnly bool
	BatchRows int // rows per piece of the answer; 0 = 4096
}

// QueryResult says what a query's answer was made from.
type QueryResult struct {
	Count         int64 // rows that match, before limit and offset
	ReadTimestamp uint64
	Stats         ReadStats
}

// Query calls emit with pieces of the answer until it is complete or emit
// returns an error, which Query returns. Of rows with the same key the newest
// counts. With CountOnly emit is not called.
func (c *Collection) Query(ctx context.Context, r *QueryRequest, emit func(*schema.Batch, uint64) error) (*QueryResult, error) {
	x, err := c.open(ctx, &r.Read)
	if err != nil {
		return nil, err
	}
	defer x.close()
	lists := make([]keyList, len(x.targets))
	err = x.eachTarget(ctx, func(ctx context.Context, i int, t *target) error {
		// Keys can be in several segments; in one they are distinct.
		return x.list(ctx, t, &lists[i], r.CountOnly && len(x.targets) == 1)
	})
	if err != nil {
		return nil, err
	}
	res := &QueryResult{ReadTimestamp: x.at}
	hits, err := x.mergeByKey(ctx, lists)
	if err != nil {
		return nil, err
	}
	res.Count = int64(len(hits))
	if r.CountOnly {
		for _, l := range lists {
			res.Count += l.count
		}
	} else {
		err = x.emit(ctx, r, hits, emit)
	}
	res.Stats = x.finish()
	return res, err
}

// keyList are the rows of one target that a query sees, in order of their keys.
type keyList struct {
	target int32
	rows   []uint32
	count  int64 // instead of rows, if they are only to be counted

	ikey int64 // of rows[0]
	skey string
}

// list lists the rows of t that the read sees.
func (x *reader) list(ctx context.Context, t *target, l *keyList, countOnly bool) error {
	sc := x.coll.set.scratch.Get().(*scratch)
	defer x.coll.set.scratch.Put(sc)
	n, allowed, err := x.allowed(ctx, t, &sc.rows)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return errors.Wrap(err, "query")
	}
	if allowed == nil {
		allowed = sc.prefix(n)
	}
	count := allowed.Count()
	if countOnly {
		l.count = int64(count)
		return nil
	}
	// The list, and its share of the merged one.
	if err := x.takes(16 * int64(count)); err != nil {
		return err
	}
	l.rows = t.keyOrder(allowed)
	return nil
}

// mergeByKey merges the lists in order of the keys; of rows with the same key the newest is kept.
func (x *reader) mergeByKey(ctx context.Context, lists []keyList) ([]hit, error) {
	text := x.info.Schema.Primary().Type == schema.VarChar
	total := 0
	var heap []*keyList
	for i := range lists {
		l := &lists[i]
		l.target = int32(i)
		if x.targets[i].dead || len(l.rows) == 0 {
			continue
		}
		total += len(l.rows)
		l.ikey, l.skey = x.targets[i].key(l.rows[0])
		heap = append(heap, l)
	}
	less := func(a, b *keyList) int {
		if text {
			return cmp.Compare(a.skey, b.skey)
		}
		return cmp.Compare(a.ikey, b.ikey)
	}
	slices.SortFunc(heap, less) // a sorted list is a heap
	hits := make([]hit, 0, total)
	var last keyList // key of the last hit
	for len(heap) > 0 {
		l := heap[0]
		h := hit{target: l.target, row: l.rows[0]}
		switch {
		case len(hits) == 0 || less(&last, l) != 0:
			hits = append(hits, h)
			last.ikey, last.skey = l.ikey, l.skey
			if len(hits)%4096 == 0 && ctx.Err() != nil {
				return nil, errors.Wrap(ctx.Err(), "merge query")
			}
		case x.newer(h, hits[len(hits)-1]):
			hits[len(hits)-1] = h
		}
		if l.rows = l.rows[1:]; len(l.rows) > 0 {
			l.ikey, l.skey = x.targets[l.target].key(l.rows[0])
		} else {
			heap[0] = heap[len(heap)-1]
			heap = heap[:len(heap)-1]
		}
		siftDown(heap, less)
	}
	return hits, nil
}

// siftDown restores the order of a heap whose first element has changed.
func siftDown[T any](heap []T, less func(a, b T) int) {
	for i := 0; ; {
		c := 2*i + 1
		if c >= len(heap) {
			return
		}
		if c+1 < len(heap) && less(heap[c+1], heap[c]) < 0 {
			c++
		}
		if less(heap[i], heap[c]) <= 0 {
			return
		}
		heap[i], heap[c] = heap[c], heap[i]
		i = c
	}
}

func (x *reader) emit(ctx context.Context, r *QueryRequest, hits []hit, emit func(*schema.Batch, uint64) error) error {
	hits = hits[min(r.Offset, len(hits)):]
	if r.Limit > 0 {
		hits = hits[:min(r.Limit, len(hits))]
	}
	size := r.BatchRows
	if size == 0 {
		size = 4096
	}
	if err := x.takes(int64(min(size, len(hits))) * x.rowBytes(r.OutputFields)); err != nil {
		return err
	}
	for piece := range slices.Chunk(hits, size) {
		if err := ctx.Err(); err != nil {
			return errors.Wrap(err, "query")
		}
		cols, err := x.gather(r.OutputFields, piece)
		if err != nil {
			return err
		}
		if err := emit(&schema.Batch{Rows: len(piece), Columns: cols}, x.at); err != nil {
			return err
		}
	}
	return nil
}
