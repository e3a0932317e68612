package index

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/vec"
)

// reachTimes are how many times as far as mostly codes of values as they are may reach. Of counts, most of which are 0 and few large, what
// is farther than usual is what rows are told apart by.
func reachTimes() []float64 { return []float64{1, 2, 4} }

// trainAsTheyAre finds codes for rows that are not to be turned: the smallest records of those values that differ most with which as much is
// found as rows are linked by, else those of all values. Many values of counts are 0 in all rows, or nearly.
func (c *coder) trainAsTheyAre(ctx context.Context, rows sampled, known []truth) (trained, error) {
	if c.dim > vec.SQ8Line-vec.SQ8Bias && c.dim <= mostTurn {
		picked := &coder{kern: c.kern, metric: c.metric, dim: c.dim, head: min(c.dim, mostHead), mean: c.mean}
		picked.basis = c.mostVaried(rows, picked.head)
		for stride := vec.SQ8Line; stride < c.stride && stride-vec.SQ8Bias <= picked.head; stride += vec.SQ8Line {
			p, found, err := picked.cut(stride, stride-vec.SQ8Bias).reaching(ctx, rows, known)
			if err != nil {
				return trained{}, err
			}
			if found >= enoughToLink {
				return trained{coder: p, ok: true, why: fmt.Sprintf("8-bit codes of those %d of %d dimensions that differ most keep %.1f %% of the nearest", p.head, c.dim, 100*found)}, nil
			}
		}
	}
	all, found, err := c.reaching(ctx, rows, known)
	if err != nil {
		return trained{}, err
	}
	return trained{coder: all, ok: found >= enough, why: fmt.Sprintf("8-bit codes of all %d dimensions keep %.1f %% of the nearest", c.dim, 100*found)}, nil
}

// reaching trains c to reach as far as finds most, and returns it with what it finds.
func (c *coder) reaching(ctx context.Context, rows sampled, known []truth) (*coder, float64, error) {
	var best *coder
	most := -1.0
	for _, times := range reachTimes() {
		if err := ctx.Err(); err != nil {
			return nil, 0, errors.Wrap(err, "train codes")
		}
		try := *c
		try.trainFor(rows, times)
		if found := try.finds(rows, known); found > most {
			best, most = &try, found
		}
		if most >= enoughToSearch {
			break
		}
	}
	return best, most, nil
}

// mostVaried are n directions, each of which is one value of a vector: those that differ most among the rows, the strongest first.
func (c *coder) mostVaried(rows sampled, n int) *basis {
	w := c.newCoded()
	varies := make([]float64, c.dim)
	for v := range rows.all() {
		c.centre(v, w)
		for d, x := range w.flat {
			varies[d] += float64(x) * float64(x)
		}
	}
	order := make([]int, c.dim)
	for d := range order {
		order[d] = d
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(varies[b], varies[a]) })
	ones := make([]float32, n*c.dim)
	for j, d := range order[:n] {
		ones[j*c.dim+d] = 1
	}
	return newBasis(ones, c.dim)
}
