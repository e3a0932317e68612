package index

import (
	"context"

	"github.com/cockroachdb/errors"
)

// repair links the rows of a graph that no walk over level 0 reaches: pruning leaves a few in
// ten thousand, and many where rows are all about equally far from one another.
type repair struct {
	rows  int      // of the graph
	start uint32   // where walks begin
	order []uint32 // the rows that have to be reached
	// links are those of a row on level 0; what they lead to is below rows.
	links func(row uint32) []uint32
	// near appends the keys of rows near to one that is not reached, which are, nearest first. It is called by several
	// goroutines at once, each with a Scratch of its own, and writes nothing else.
	near func(keys []uint64, row uint32, reached []uint64, s *Scratch) []uint64
	// link makes a row lead to another if it has room, or in the place of its last link.
	link func(from, to uint32, replace bool) bool

	reached []uint64
	stack   []uint32
	gave    map[uint32]bool // rows that lead to another in the place of their last link
}

// Of repairs.
const (
	repairBatch  = 256     // rows that are looked for at a time
	repairStep   = 8       // of them by one goroutine
	repairRounds = 4       // a row that took the place of another may have cut that one off
	repairPoll   = 1 << 14 // rows followed between two looks at the context
)

// run links rows until all are reached, or nearly so, and returns how many it linked.
func (r *repair) run(ctx context.Context, workers int, told *progress) (linked int, err error) {
	for range repairRounds {
		n, err := r.round(ctx, workers, told)
		if linked += n; err != nil {
			return linked, errors.Wrap(err, "link rows that are not reached")
		}
		if n == 0 {
			break
		}
	}
	return linked, nil
}

func (r *repair) round(ctx context.Context, workers int, told *progress) (linked int, err error) {
	r.reached, r.gave = make([]uint64, (r.rows+63)/64), map[uint32]bool{}
	if err := r.reach(ctx, r.start); err != nil {
		return 0, err
	}
	var lost []uint32
	var near [repairBatch][]uint64
	for at := 0; at < len(r.order); {
		lost = lost[:0]
		for ; at < len(r.order) && len(lost) < repairBatch; at++ {
			if row := r.order[at]; !has(r.reached, row) {
				lost = append(lost, row)
			}
		}
		if len(lost) == 0 {
			break
		}
		told.more(len(lost))
		err := parallel(ctx, workers, len(lost), repairStep, func() func(from, to int) error {
			s := &Scratch{}
			return func(from, to int) error {
				for i := from; i < to; i++ {
					near[i] = r.near(near[i][:0], lost[i], r.reached, s)
				}
				return nil
			}
		})
		if err != nil {
			return linked, err
		}
		for i, row := range lost {
			if has(r.reached, row) {
				continue // an earlier one led to it
			}
			linked++
			r.adopt(row, near[i])
			if err := r.reach(ctx, row); err != nil {
				return linked, err
			}
		}
		told.add(len(lost))
	}
	return linked, nil
}

// adopt makes the nearest row that is reached and has a free link lead to row, or the
// nearest at the cost of its last link, if that is not such a one already.
func (r *repair) adopt(row uint32, near []uint64) {
	if len(near) == 0 {
		near = []uint64{poolKey(0, r.start)}
	}
	for _, key := range near {
		if r.link(poolRow(key), row, false) {
			return
		}
	}
	from := poolRow(near[0])
	for _, key := range near {
		if !r.gave[poolRow(key)] {
			from = poolRow(key)
			break
		}
	}
	r.gave[from] = true
	r.link(from, row, true)
}

// reach notes what a walk from a row on reaches.
func (r *repair) reach(ctx context.Context, from uint32) error {
	r.reached[from>>6] |= 1 << (from & 63)
	r.stack = append(r.stack[:0], from)
	for n := 1; len(r.stack) > 0; n++ {
		if n%repairPoll == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		row := r.stack[len(r.stack)-1]
		r.stack = r.stack[:len(r.stack)-1]
		for _, link := range r.links(row) {
			if link == 0 {
				break
			}
			if to := link - 1; !has(r.reached, to) {
				r.reached[to>>6] |= 1 << (to & 63)
				r.stack = append(r.stack, to)
			}
		}
	}
	return nil
}
