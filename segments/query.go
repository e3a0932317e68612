package segments

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/pool"
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
// returns an error. Of rows with the same key the newest counts. With CountOnly
// emit is not called.
func (c *Collection) Query(ctx context.Context, r *QueryRequest, emit func(*schema.Batch, uint64) error) (*QueryResult, error) {
	x, err := c.open(ctx, &r.Read)
	if err != nil {
		return nil, err
	}
	lists := make([][]uint32, len(x.targets))
	tasks := make([]pool.Task, len(x.targets))
	of := make([]int, len(x.targets))
	for i, t := range x.targets {
		of[i] = i
		tasks[i] = pool.Task{
			Name: "query segment " + strconv.FormatInt(t.Meta().ID, 10),
			Cost: 1 + int64(t.visible(t.ts))/8,
			Run:  func(ctx context.Context) error { return x.match(ctx, t, &lists[i]) },
		}
	}
	if len(tasks) > 0 {
		dead, err := x.run(ctx, tasks, of)
		if err != nil {
			return nil, err
		}
		for i := range dead {
			lists[i] = nil
		}
	}
	defer x.snap.Release()
	res := &QueryResult{ReadTimestamp: x.at}
	err = guard("merge query", func() error {
		hits := x.mergeByKey(lists)
		res.Count = int64(len(hits))
		if r.CountOnly {
			return nil
		}
		return x.emit(ctx, r, hits, emit)
	})
	x.stats.Search = time.Duration(x.nanos.Load())
	res.Stats = x.stats
	return res, err
}

// match lists the rows of t that the read sees, in order of their keys.
func (x *reader) match(ctx context.Context, t target, out *[]uint32) error {
	start := time.Now()
	defer func() { x.nanos.Add(int64(time.Since(start))) }()
	sc := x.coll.set.scratch.Get().(*scratch)
	defer x.coll.set.scratch.Put(sc)
	n, allowed, err := x.allowed(t, &sc.rows)
	if err != nil || ctx.Err() != nil {
		return err
	}
	var rows []uint32
	if allowed != nil {
		rows = allowed.AppendTo(make([]uint32, 0, allowed.Count()))
	} else {
		rows = make([]uint32, n)
		for i := range rows {
			rows[i] = uint32(i)
		}
	}
	*out = t.keyOrder(rows)
	return nil
}

// mergeByKey merges the lists in order of the keys; of rows with the same key the newest is kept.
func (x *reader) mergeByKey(lists [][]uint32) []hit {
	total := 0
	for _, l := range lists {
		total += len(l)
	}
	hits := make([]hit, 0, total)
	at := make([]int, len(lists))
	text := x.coll.Info().Schema.Primary().Type == schema.VarChar
	var lastInt int64
	var lastStr string
	for {
		best := -1
		var bi int64
		var bs string
		for l := range lists {
			if at[l] == len(lists[l]) {
				continue
			}
			i, s := x.targets[l].key(lists[l][at[l]])
			if best < 0 || (text && s < bs) || (!text && i < bi) {
				best, bi, bs = l, i, s
			}
		}
		if best < 0 {
			return hits
		}
		h := hit{target: int32(best), row: lists[best][at[best]]}
		at[best]++
		if n := len(hits); n > 0 && ((text && bs == lastStr) || (!text && bi == lastInt)) {
			if x.newerRow(h, hits[n-1]) {
				hits[n-1] = h
			}
			continue
		}
		hits = append(hits, h)
		lastInt, lastStr = bi, bs
	}
}

func (x *reader) newerRow(a, b hit) bool {
	return x.targets[a.target].timestamp(a.row) > x.targets[b.target].timestamp(b.row)
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
	for piece := range slices.Chunk(hits, size) {
		if err := ctx.Err(); err != nil {
			return err
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
