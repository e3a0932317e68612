package segments

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/index"
)

// equalRows asks with rows that are there, and wants the distance of the nearest to be what a scan finds: that
// of the row itself, whatever the others are like. With a limit it is that distance, or a little more.
func equalRows(t *testing.T, v *growingVectors, n int, asked []uint32) {
	t.Helper()
	sc := newScratch()
	for _, row := range asked {
		for _, k := range []int{1, 10} {
			q := nearestQuery{ctx: t.Context(), vector: v.data()[int(row)*v.dim:][:v.dim], k: k, metric: v.metric, exact: true}
			want, err := v.nearest(&q, n, nil, sc)
			must(t, err)
			nearest := want[0].Distance
			off := float32(0)
			if v.metric == index.Cosine { // products may be added up in another order
				off = 1e-6
			}
			q.exact = false
			for _, limit := range []float32{float32(math.Inf(1)), math.Nextafter32(nearest, 1)} {
				q.limit, q.limited = limit, limit < float32(math.Inf(1))
				got, err := v.nearest(&q, n, nil, sc)
				must(t, err)
				if len(got) == 0 || !(got[0].Distance <= nearest+off) {
					t.Fatalf("row %d, %d wanted within %v: %v, a scan finds %v", row, k, limit, got, nearest)
				}
			}
		}
	}
}

// TestARowIsFoundByItself, in lists of all kinds: there may be one middle or many that are one, codes may tell nothing, and
// squares be too small for a number.
func TestARowIsFoundByItself(t *testing.T) {
	const n = 1500 / slower
	rng := rand.New(rand.NewPCG(5, 6))
	normal := func(scale, offset float64) func(int, int) float32 {
		return func(int, int) float32 { return float32(rng.NormFloat64()*scale + offset) }
	}
	heap := normal(1, 0)
	for name, value := range map[string]func(row, d int) float32{
		"all zero":              func(int, int) float32 { return 0 },
		"all equal":             func(int, int) float32 { return 7 },
		"of two kinds":          func(row, _ int) float32 { return float32(row % 2) },
		"of three, one of zero": func(row, d int) float32 { return float32(row % 3 * (d + 1)) },
		"one unlike all others": func(row, _ int) float32 { return float32(row / (n - 1)) },
		"on a line":             func(row, _ int) float32 { return float32(row) },
		"anywhere":              normal(1, 0),
		"tiny":                  normal(1e-12, 0),
		"too tiny for squares":  normal(1e-30, 0),
		"huge":                  normal(1e12, 0),
		"too huge for squares":  normal(1e25, 0),
		"huge and tiny":         func(row, d int) float32 { return heap(row, d) * float32(math.Pow(10, float64(row%30-15))) },
		"far off":               normal(1, 1e5),
		"as near as codes are":  func(row, d int) float32 { return float32(row%7) + heap(row, d)*1e-6 },
		"a few far from a heap": func(row, d int) float32 { return heap(row, d)*1e-4 + float32(max(0, row%200-197))*1000 },
	} {
		for _, m := range []index.Metric{index.L2, index.Cosine} {
			for _, dim := range []int{1, 2, 3, 16} {
				t.Run(fmt.Sprintf("%s %s %d", name, m, dim), func(t *testing.T) {
					rows := make([]float32, n*dim)
					for i := range rows {
						rows[i] = value(i/dim, i%dim)
					}
					copy(rows[n/2*dim:], rows[:n/20*dim]) // some are there twice
					for _, first := range []int{70, n / 3, n} {
						v, _ := growingField(t, m, dim, rows, first)
						if v.lists.Load() == nil {
							t.Fatal("there are no lists")
						}
						asked := []uint32{0, 1, 2, uint32(first - 1), uint32(first % n), n / 2, n - 1}
						for range 20 {
							asked = append(asked, uint32(rng.IntN(n)))
						}
						equalRows(t, v, n, asked)
					}
				})
			}
		}
	}
}

// TestListsFindThemselvesInAnyRows that are drawn by lot, of any size and shape.
func TestListsFindThemselvesInAnyRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 16))
	for round := range 120 / slower {
		dim, n := 1+rng.IntN(40), 100+rng.IntN(1200)
		heaps, spread := 1+rng.IntN(50), math.Pow(10, rng.Float64()*8-6)
		scale, offset := math.Pow(10, rng.Float64()*16-8), math.Pow(10, rng.Float64()*8-4)
		mix := newMixture(dim, heaps, spread)
		rows := mix.rows(n)
		for i := range rows {
			rows[i] = float32((float64(rows[i]) + offset) * scale)
		}
		asked := make([]uint32, 30)
		for i := range asked {
			asked[i] = uint32(rng.IntN(n))
		}
		for _, m := range []index.Metric{index.L2, index.Cosine} {
			v, _ := growingField(t, m, dim, slices.Clone(rows), 1+rng.IntN(n))
			t.Logf("round %d: %d rows of %d %s, %d heaps, spread %v, scale %v, offset %v", round, n, dim, m, heaps, spread, scale, offset)
			equalRows(t, v, n, asked)
		}
	}
}
