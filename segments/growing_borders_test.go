package segments

import (
	"math"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/vec"
)

// TestNothingIsNearerThanTheBorderBeforeIt: what a list has is at least as far from a query as the border
// that it lies behind, whatever the metric's terms, and a list that has something within a limit is in reach.
func TestNothingIsNearerThanTheBorderBeforeIt(t *testing.T) {
	const dim, n, queries = 12, 4000, 40
	for _, metric := range []index.Metric{index.L2, index.Cosine} {
		t.Run(metric.String(), func(t *testing.T) {
			mix := newMixture(dim, 30, 0.6)
			v, _ := growingField(t, metric, dim, mix.rows(n/slower), n/slower)
			x := v.lists.Load()
			kern, all := x.codes.kern, x.borders.all
			units := func(rows []float32) []float32 {
				for at := 0; metric == index.Cosine && at < len(rows); at += dim {
					kern.Normalize(rows[at:at+dim], slices.Clone(rows[at:at+dim]))
				}
				return rows
			}
			rows, asked := units(mix.rows(1000)), units(mix.rows(queries))
			var w assigner
			lists := make([]uint32, len(rows)/dim)
			x.middles.assign(rows, &w, func(row, list int, _ float32) { lists[row] = uint32(list) })
			z, sums := make([]int8, kernelQueries*4*x.middles.codes.quads), make([]int32, kernelQueries*all)
			behind := 0
			for at := 0; at < len(asked); at += dim {
				q := asked[at : at+dim]
				aff := x.middles.distances(q, z, sums)
				home, nearest := kern.SumsNearest(sums[:all], x.middles.bias, aff.Scale)
				for row, list := range lists {
					d := kern.L2(q, rows[row*dim:][:dim])
					if metric == index.Cosine {
						d /= 2
					}
					b := x.borders.from(home, nearest+aff.Base, d, 1, x.middles.codes.borderDoubt(aff), metric)
					square := float32(sums[list])*aff.Scale + aff.Base + x.middles.bias[list]
					least, ok := b.least(list, square)
					if !ok || least > d || square > b.square {
						t.Fatalf("a row at %v is behind a border at %v, in reach: %v, the middle at %v of %v", d, least, ok, square, b.square)
					}
					if least > 0 {
						behind++
					}
				}
			}
			if behind < queries*len(lists)/2 {
				t.Errorf("%d rows are behind borders", behind)
			}
		})
	}
}

// TestASearchReadsListsByItsEffort: less of it reads fewer lists, all of it finds what is near, and
// what another segment has found leaves little to read.
func TestASearchReadsListsByItsEffort(t *testing.T) {
	const dim, k, n, queries = 32, 10, 12_000, 60
	mix := newMixture(dim, 60, 0.5)
	v, _ := growingField(t, index.L2, dim, mix.rows(n/slower), n/slower)
	asked := mix.rows(queries)
	sc := newScratch()
	ask := func(e Effort, limited bool) (recall float64, read int) {
		for at := 0; at < len(asked); at += dim {
			q := nearestQuery{ctx: t.Context(), vector: asked[at:][:dim], k: k, metric: index.L2, exact: true}
			want, err := v.nearest(&q, n/slower, nil, sc)
			must(t, err)
			want = slices.Clone(want)
			q.exact, q.effort = false, e
			if limited {
				q.limit, q.limited = want[k-1].Distance*1.0001, true
			}
			sc.work = &work{}
			got, err := v.nearest(&q, n/slower, nil, sc)
			must(t, err)
			for _, x := range want {
				if slices.ContainsFunc(got, func(f index.Neighbor) bool { return f.Row == x.Row }) {
					recall++
				}
			}
			read += sc.work.distances
			sc.work = nil
		}
		return recall / (k * queries), read / queries
	}
	for _, limited := range []bool{false, true} {
		least, leastRead := ask(Effort{EF: k}, limited)
		some, someRead := ask(Effort{EF: 4 * k}, limited)
		most, mostRead := ask(Effort{EF: 20 * k}, limited)
		free, freeRead := ask(Effort{}, limited)
		wanted, wantedRead := ask(Effort{Recall: 0.99}, limited)
		t.Logf("limited %v: %.3f of %d rows, %.3f of %d, %.3f of %d, wanted 0.99: %.3f of %d", limited, least, leastRead, some, someRead, most, mostRead, wanted, wantedRead)
		if least < 0.88 || some < 0.95 || most < 0.97 || wanted < 0.97 {
			t.Errorf("limited %v: recall %.3f, %.3f, %.3f, wanted 0.99: %.3f", limited, least, some, most, wanted)
		}
		if slower == 1 && (leastRead >= someRead || someRead >= mostRead || mostRead > n/2) {
			t.Errorf("limited %v: %d, %d, %d rows read", limited, leastRead, someRead, mostRead)
		}
		if free != most || freeRead != mostRead {
			t.Errorf("limited %v: none asked for: recall %.3f of %d, want as for much: %.3f of %d", limited, free, freeRead, most, mostRead)
		}
	}
}

// TestBordersOfEqualRows: where middles, rows and queries are one, all is at the border, and nothing is out of reach.
func TestBordersOfEqualRows(t *testing.T) {
	const dim, n = 8, 1500
	rows := make([]float32, n*dim)
	for i := range rows {
		rows[i] = 1
	}
	v, _ := growingField(t, index.L2, dim, rows, n)
	q := nearestQuery{ctx: t.Context(), vector: rows[:dim], k: 10, metric: index.L2, limit: math.SmallestNonzeroFloat32, limited: true}
	got, err := v.nearest(&q, n, nil, newScratch())
	must(t, err)
	if len(got) != 10 || slices.ContainsFunc(got, func(f vec.Neighbor) bool { return f.Distance != 0 }) {
		t.Errorf("%v", got)
	}
}

// TestOneMiddleHasNoBorders: from a single one, or from several that are one, all that is in its list is in reach.
func TestOneMiddleHasNoBorders(t *testing.T) {
	const dim, n = 8, 190
	rows := newMixture(dim, 0, 1).rows(n)
	for _, metric := range []index.Metric{index.L2, index.Cosine} {
		v, _ := growingField(t, metric, dim, rows, n/2+1)
		if x := v.lists.Load(); x.middles.n != 1 || x.rows() != n {
			t.Fatalf("%d middles of %d rows", x.middles.n, x.rows())
		}
		if recall, _ := listRecall(t, v, n, rows[:20*dim], nil); recall < 0.99 {
			t.Errorf("%s: recall %.3f", metric, recall)
		}
	}
	b := &borders{all: 2, halves: make([]float32, 4), far: make([]float32, 2), leans: []float32{0.5}}
	for _, limit := range []float32{0, 1, float32(math.Inf(1))} {
		beyond := b.from(0, 0.25, limit, 0.5, 0.1, index.L2)
		if least, ok := beyond.least(1, 0.25); !ok || least != 0 || !(beyond.square > 0.25) {
			t.Errorf("within %v: %v, in reach: %v, of all within %v", limit, least, ok, beyond.square)
		}
	}
}
