package segments

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/schema"
)

// QueryRequest asks for the rows that match a filter, in order of their keys or
// of other fields; or for what Aggregates say about them.
type QueryRequest struct {
	Read
	Limit     int // 0 = all
	Offset    int
	CountOnly bool
	BatchRows int // rows per piece of the answer; 0 = 4096

	OrderBy []Order // empty = by key, or by the values of GroupBy
	Page    bool    // one page in order of the keys: Limit rows at most, no Offset, no OrderBy
	After   *Key    // with Page: rows with larger keys; nil = the first page

	// With either of these the answer has a column for each, in this order, and a
	// row for each combination of values; OutputFields and Page are not used.
	GroupBy    []int64 // scalar fields
	Aggregates []Aggregate
}

// QueryResult says what a query's answer was made from.
type QueryResult struct {
	Count         int64 // with CountOnly: rows that match; else what Limit and Offset were applied to, if anything counted it
	ReadTimestamp uint64
	Stats         ReadStats
	Last          *Key // with Page: the last key; nil = none
	More          bool // with Page: there is another page
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
	res := &QueryResult{ReadTimestamp: x.at}
	switch {
	case r.CountOnly:
		res.Count, err = x.count(ctx)
	case len(r.GroupBy)+len(r.Aggregates) > 0:
		err = x.aggregate(ctx, r, emit)
	case len(r.OrderBy) > 0:
		err = x.ordered(ctx, r, res, emit)
	default:
		err = x.byKey(ctx, r, res, emit)
	}
	if err != nil {
		return nil, err
	}
	res.Stats = x.finish()
	return res, nil
}

// byKey answers a query in order of the keys.
func (x *reader) byKey(ctx context.Context, r *QueryRequest, res *QueryResult, emit func(*schema.Batch, uint64) error) error {
	in := span{after: r.After}
	if r.Limit > 0 {
		in.most = r.Offset + r.Limit
	}
	if r.Page {
		in.most++ // to know whether there is another page
	}
	lists := make([]keyList, len(x.targets))
	stage := x.stage()
	err := x.eachTarget(ctx, func(ctx context.Context, i int, t *target) error { return x.list(ctx, t, &lists[i], in) })
	if err != nil {
		return err
	}
	stage.end(&x.stats.Wall)
	var hits []hit
	err = guard("merge query", func() (err error) {
		hits, err = x.mergeByKey(ctx, lists, in.most)
		return err
	})
	if err != nil {
		return err
	}
	stage.end(&x.stats.Merge)
	res.Count = int64(len(hits))
	if r.Page && len(hits) == in.most {
		hits, res.More = hits[:in.most-1], true
	}
	if n := len(hits); r.Page && n > 0 {
		k := keyOf(&x.targets[hits[n-1].target], hits[n-1].row)
		res.Last = &Key{k.i, strings.Clone(k.s)} // it may be mapped
	}
	return x.emit(ctx, r, hits, emit)
}

// keyList are the rows of one target that a query sees, in order of their keys.
type keyList struct {
	target int32
	rows   []uint32

	ikey int64 // of rows[0]
	skey string
}

// list lists the rows of t that the read sees, those in a span.
func (x *reader) list(ctx context.Context, t *target, l *keyList, in span) error {
	sc := x.coll.set.scratch.Get().(*scratch)
	defer x.coll.set.scratch.Put(sc)
	n, allowed, err := x.seen(ctx, t, &sc.rows)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return errors.Wrap(err, "query")
	}
	defer x.listed(t, time.Now())
	if allowed == nil {
		allowed = sc.prefix(n)
	}
	count := allowed.Count()
	if in.most > 0 {
		count = min(count, 2*in.most+1024)
	}
	// The list, and its share of the merged one.
	if err := x.takes(16 * int64(count)); err != nil {
		return err
	}
	l.rows = t.keyOrder(allowed, in)
	return nil
}

// mergeByKey merges the lists in order of the keys, up to most of them (0 = all);
// of rows with the same key the newest is kept.
func (x *reader) mergeByKey(ctx context.Context, lists []keyList, most int) ([]hit, error) {
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
	if most > 0 {
		total = min(total, most)
	}
	hits := make([]hit, 0, total)
	var last keyList // key of the last hit
	for len(heap) > 0 {
		l := heap[0]
		h := hit{target: l.target, row: l.rows[0]}
		switch {
		case len(hits) == 0 || less(&last, l) != 0:
			if most > 0 && len(hits) == most {
				return hits, nil
			}
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
	siftDownBy(heap, func(a, b *T) int { return less(*a, *b) })
}

// siftDownBy is siftDown for large elements.
func siftDownBy[T any](heap []T, less func(a, b *T) int) {
	for i := 0; ; {
		c := 2*i + 1
		if c >= len(heap) {
			return
		}
		if c+1 < len(heap) && less(&heap[c+1], &heap[c]) < 0 {
			c++
		}
		if less(&heap[i], &heap[c]) <= 0 {
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
	stage := x.stage()
	defer stage.end(&x.stats.Output)
	size := r.batchRows()
	if err := x.takes(int64(min(size, len(hits))) * x.rowBytes(r.OutputFields)); err != nil {
		return err
	}
	held := x.memory.size()
	for piece := range slices.Chunk(hits, size) {
		if err := ctx.Err(); err != nil {
			return errors.Wrap(err, "query")
		}
		x.memory.Commit(held) // the piece before has been sent
		cols, err := x.gather(ctx, r.OutputFields, piece)
		if err != nil {
			return err
		}
		if err := emit(&schema.Batch{Rows: len(piece), Columns: cols}, x.at); err != nil {
			return err
		}
	}
	return nil
}

func (r *QueryRequest) batchRows() int {
	if r.BatchRows == 0 {
		return 4096
	}
	return r.BatchRows
}
