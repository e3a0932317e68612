package index

import (
	"context"

	"github.com/querynode/querynode/internal/vec"
)

// directions returns c.head orthonormal rows of c.dim values: the directions in
// which the sample varies most, the strongest first. Simultaneous iteration
// (Rutishauser, "Simultaneous iteration method for symmetric matrices", 1970) on
// the covariance; it need not converge, since a tail is told by its length and
// nothing is wrong with a basis that is not the very best.
func (c *coder) directions(ctx context.Context, rows sampled, workers int) ([]float32, error) {
	rounds := turns
	if c.dim > longTurn {
		rows, rounds = rows.some(longRows), longTurns
	}
	cov, err := c.covariance(ctx, rows, workers)
	if err != nil {
		return nil, err
	}
	basis := make([]float32, c.head*c.dim)
	for i := range basis {
		basis[i] = float32(int64(mix(uint64(i))>>11))/(1<<52) - 1
	}
	next := make([]float32, len(basis))
	for range rounds {
		err := parallel(ctx, workers, c.head, 8, func() func(from, to int) error {
			return func(from, to int) error {
				for j := from; j < to; j++ {
					c.kern.DotRows(basis[j*c.dim:(j+1)*c.dim], cov, c.dim, next[j*c.dim:(j+1)*c.dim])
				}
				return nil
			}
		})
		if err != nil {
			return nil, err
		}
		orthonormal(c.kern, next, c.dim)
		basis, next = next, basis
	}
	return basis, nil
}

// covarianceRows is how many rows are multiplied at a time: a piece of all columns fits the second-level cache.
const covarianceRows = 512

// covariance returns the products of all pairs of values, summed over the rows.
func (c *coder) covariance(ctx context.Context, rows sampled, workers int) ([]float32, error) {
	const chunk = covarianceRows
	n, w := rows.len(), &coded{flat: make([]float32, c.dim)}
	cov := make([]float32, c.dim*c.dim)
	columns := make([]float32, c.dim*chunk)
	for first := 0; first < n; first += chunk {
		clear(columns)
		for i := range min(chunk, n-first) {
			c.centre(rows.at(first+i), w)
			for d, x := range w.flat {
				columns[d*chunk+i] = x
			}
		}
		err := parallel(ctx, workers, c.dim, 16, func() func(from, to int) error {
			out := make([]float32, c.dim)
			return func(from, to int) error {
				for d := from; d < to; d++ {
					c.kern.DotRows(columns[d*chunk:(d+1)*chunk], columns[d*chunk:], chunk, out[d:])
					for e := d; e < c.dim; e++ {
						cov[d*c.dim+e] += out[e]
					}
				}
				return nil
			}
		})
		if err != nil {
			return nil, err
		}
	}
	for d := range c.dim {
		for e := range d {
			cov[d*c.dim+e] = cov[e*c.dim+d]
		}
	}
	return cov, nil
}

// orthonormal makes rows orthogonal to those before them and of length 1
// (Gram-Schmidt, twice). A row that depends on those before becomes a unit
// vector that does not, or zeros.
func orthonormal(k vec.Kernels, rows []float32, dim int) {
	dots := make([]float32, len(rows)/dim)
	for j := range dots {
		row := rows[j*dim : (j+1)*dim]
		for try := 0; ; try++ {
			k.Normalize(row, row)
			for range 2 {
				k.DotRows(row, rows, dim, dots[:j])
				for i, x := range dots[:j] {
					before := rows[i*dim : (i+1)*dim]
					for d, y := range before {
						row[d] -= x * y
					}
				}
			}
			if k.Norm(row) > 1e-4 || try == dim {
				break
			}
			clear(row)
			row[(j+try)%dim] = 1
		}
		k.Normalize(row, row)
	}
}
