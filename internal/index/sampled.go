package index

import (
	"iter"
	"math/rand/v2"

	"github.com/querynode/querynode/internal/vec"
)

// sampledCopied is how many bytes of a sample are copied into one piece at most: it is read again and again. Nothing is copied of
// a larger one, whose rows are long: each is one piece as it is, and 8,192 of 4,096 values would take 128 MiB.
const sampledCopied = 16 << 20

// sampledBlock is how many bytes of a sample are copied at a time where rows are wanted in one piece.
const sampledBlock = 2 << 20

// sampled are some of the rows of base. They change as little as base does.
type sampled struct {
	base []float32
	dim  int
	rows []uint32 // of base; nil: all
	unit bool     // block has them at length 1
}

// sample returns about n rows of base, spread evenly.
func sample(base []float32, dim, n int) sampled {
	rows := len(base) / dim
	s := sampled{base: base, dim: dim, rows: make([]uint32, 0, min(n, rows))}
	pickRows(rows, min(n, rows), func(row int) { s.rows = append(s.rows, uint32(row)) })
	return s.inOnePiece()
}

// some returns about n rows of s, spread evenly.
func (s sampled) some(n int) sampled {
	to := sampled{base: s.base, dim: s.dim, unit: s.unit, rows: make([]uint32, 0, min(n, s.len()))}
	pickRows(s.len(), min(n, s.len()), func(i int) { to.rows = append(to.rows, s.row(i)) })
	return to
}

// inOnePiece returns s, copied if that is little.
func (s sampled) inOnePiece() sampled {
	if s.rows == nil || 4*s.dim*len(s.rows) > sampledCopied {
		return s
	}
	out := make([]float32, 0, len(s.rows)*s.dim)
	for v := range s.all() {
		out = append(out, v...)
	}
	return sampled{base: out, dim: s.dim, unit: s.unit}
}

func (s sampled) len() int {
	if s.rows == nil {
		return len(s.base) / s.dim
	}
	return len(s.rows)
}

// row is which of base the i-th is.
func (s sampled) row(i int) uint32 {
	if s.rows == nil {
		return uint32(i)
	}
	return s.rows[i]
}

func (s sampled) at(i int) []float32 { return s.base[int(s.row(i))*s.dim:][:s.dim] }

// all goes through the rows.
func (s sampled) all() iter.Seq[[]float32] {
	return func(yield func([]float32) bool) {
		for i := range s.len() {
			if !yield(s.at(i)) {
				return
			}
		}
	}
}

// step is how many rows a block has.
func (s sampled) step() int { return max(sampledBlock/(4*s.dim), 1) }

// block returns n rows from one on in one piece, which may be room.
func (s sampled) block(k vec.Kernels, from, n int, room []float32) []float32 {
	if s.rows == nil && !s.unit {
		return s.base[from*s.dim : (from+n)*s.dim]
	}
	room = grown(room, n*s.dim)
	for i := range n {
		to := room[i*s.dim:][:s.dim]
		if copy(to, s.at(from+i)); s.unit {
			k.Normalize(to, to)
		}
	}
	return room
}

// pickRows takes n of the first rows, as many or fewer, one by lot of each run of them: no row
// twice, and not those of one kind only where rows of several come by turns.
func pickRows(rows, n int, take func(row int)) {
	r := rand.New(rand.NewPCG(4, uint64(rows)))
	for i := range int64(n) {
		from, to := i*int64(rows)/int64(n), (i+1)*int64(rows)/int64(n)
		take(int(from + r.Int64N(max(to-from, 1))))
	}
}
