package segments

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/schema"
)

// rowSets finds the rows that the read sees, by target; of rows of the same key
// only the newest is in one of the sets. Those of targets that failed are nil.
func (x *reader) rowSets(ctx context.Context) ([]*bitset.Set, error) {
	sets := make([]*bitset.Set, len(x.targets))
	err := x.eachTarget(ctx, func(ctx context.Context, i int, t *target) error {
		set := &bitset.Set{}
		n, allowed, err := x.seen(ctx, t, set)
		if err != nil {
			return err
		}
		defer x.listed(t, time.Now())
		if allowed == nil {
			set.Reset(n)
			set.Fill()
		}
		sets[i] = set
		return x.takes(int64(n)/8 + 1)
	})
	if err != nil {
		return nil, err
	}
	for i := range x.targets {
		if x.targets[i].dead {
			sets[i] = nil
		}
	}
	return sets, x.dropOlder(ctx, sets)
}

// dropOlder takes rows out of the sets that have a newer one of the same key in
// another target. A key is always on the same channel, and within a target no
// key is visible twice.
func (x *reader) dropOlder(ctx context.Context, sets []*bitset.Set) error {
	perChannel := map[string]int{}
	for i, set := range sets {
		if set != nil && set.Next(0) >= 0 {
			perChannel[x.targets[i].Meta().VChannel]++
		}
	}
	lists := make([]keyList, len(x.targets))
	err := x.eachTarget(ctx, func(_ context.Context, i int, t *target) error {
		if perChannel[t.Meta().VChannel] < 2 || sets[i] == nil {
			return nil
		}
		if err := x.takes(4 * int64(sets[i].Count())); err != nil {
			return err
		}
		lists[i] = keyList{target: int32(i), rows: t.keyOrder(sets[i], span{})}
		return nil
	})
	if err != nil {
		return err
	}
	return guard("newest of each key", func() error {
		for channel, n := range perChannel {
			if n < 2 {
				continue
			}
			var some []*keyList
			for i := range lists {
				if len(lists[i].rows) > 0 && !x.targets[i].dead && x.targets[i].Meta().VChannel == channel {
					some = append(some, &lists[i])
				}
			}
			if err := x.dropOlderOf(ctx, some, sets); err != nil {
				return err
			}
		}
		return nil
	})
}

// dropOlderOf does it for the targets of one channel.
func (x *reader) dropOlderOf(ctx context.Context, lists []*keyList, sets []*bitset.Set) error {
	text := x.info.Schema.Primary().Type == schema.VarChar
	less := func(a, b *keyList) int {
		if text {
			return cmp.Compare(a.skey, b.skey)
		}
		return cmp.Compare(a.ikey, b.ikey)
	}
	for _, l := range lists {
		l.ikey, l.skey = x.targets[l.target].key(l.rows[0])
	}
	slices.SortFunc(lists, less)
	if x.apart(lists, less) {
		return nil
	}
	var last keyList // the newest row so far of its key
	var kept hit
	for n := 0; len(lists) > 0; n++ {
		l := lists[0]
		h := hit{target: l.target, row: l.rows[0]}
		switch {
		case n == 0 || less(&last, l) != 0:
			kept, last.ikey, last.skey = h, l.ikey, l.skey
		case x.newer(h, kept):
			sets[kept.target].Remove(int(kept.row))
			kept = h
		default:
			sets[h.target].Remove(int(h.row))
		}
		if n%4096 == 0 && ctx.Err() != nil {
			return errors.Wrap(ctx.Err(), "newest of each key")
		}
		if l.rows = l.rows[1:]; len(l.rows) > 0 {
			l.ikey, l.skey = x.targets[l.target].key(l.rows[0])
		} else {
			lists[0] = lists[len(lists)-1]
			lists = lists[:len(lists)-1]
		}
		siftDown(lists, less)
	}
	return nil
}

// apart reports whether the lists, which are sorted by their first keys, have
// keys in ranges that do not overlap.
func (x *reader) apart(lists []*keyList, less func(a, b *keyList) int) bool {
	for i := 1; i < len(lists); i++ {
		before := lists[i-1]
		var end keyList
		end.ikey, end.skey = x.targets[before.target].key(before.rows[len(before.rows)-1])
		if less(&end, lists[i]) >= 0 {
			return false
		}
	}
	return true
}

// count counts the rows that the read sees.
func (x *reader) count(ctx context.Context) (n int64, err error) {
	stage := x.stage()
	sets, err := x.rowSets(ctx)
	if err != nil {
		return 0, err
	}
	for _, set := range sets {
		if set != nil {
			n += int64(set.Count())
		}
	}
	stage.end(&x.stats.Wall)
	return n, nil
}

// blockRows is how many rows are read at a time.
const blockRows = 4096

// blocks calls fn for the rows of a set, some at a time, in ascending order.
func blocks(ctx context.Context, set *bitset.Set, fn func(rows []uint32) error) error {
	rows := make([]uint32, 0, min(blockRows, set.Len()))
	for r := set.Next(0); r >= 0; r = set.Next(r + 1) {
		if rows = append(rows, uint32(r)); len(rows) == blockRows {
			if err := ctx.Err(); err != nil {
				return errors.Wrap(err, "query")
			}
			if err := fn(rows); err != nil {
				return err
			}
			rows = rows[:0]
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return fn(rows)
}
