package segments

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/vec"
)

// TestListsOutOfReachHaveNothing: what a search leaves out without a look would have been
// left out after it, and of rows far away that is all.
func TestListsOutOfReachHaveNothing(t *testing.T) {
	for _, metric := range []index.Metric{index.L2, index.IP, index.Cosine} {
		t.Run(metric.String(), func(t *testing.T) {
			r := newRig(t, hnsw(metric))
			r.set.listsAfter = 300
			r.insert(1, seq(0, 1100)...)
			r.built(1, 1024)
			x := r.holderOf(1).segment.(*Growing).vectors()[0].lists.Load()
			c, rnd := x.middles.codes, rand.New(rand.NewPCG(9, uint64(metric)))
			left, all := 0, 0
			for range 2000 {
				square, norm := float32(math.Exp(12*rnd.Float64()-8)), float32(rnd.Float64()+0.5)
				aff := vec.Affine{Scale: -float32(rnd.Float64()) / 50}
				most := float32(math.Exp(10*rnd.Float64() - 8))
				for i := range x.state.Load().lists {
					list := &x.state.Load().lists[i]
					least := x.least(list, square, norm, x.middles.bias[i]) - c.doubt(aff, index.L2, square, norm)
					all++
					if square < x.reach(aff, most) {
						continue
					}
					if left++; least < most {
						t.Fatalf("a list may have something at %v, looked for within %v, and is out of reach (%v of %v)", least, most, square, x.reach(aff, most))
					}
				}
			}
			if (metric == index.IP) != (left == 0) {
				t.Fatalf("%d of %d out of reach", left, all)
			}
			if reach := x.reach(vec.Affine{Scale: -0.01}, float32(math.Inf(1))); !math.IsInf(float64(reach), 1) {
				t.Fatalf("a search without a bound reaches %v", reach)
			}
		})
	}
}

// TestASearchRanksTheListsThatMayHaveSomething and the query's own, and no others: what those before it in the same
// scratch have ranked, what is empty, and what its limit rules out is none of its business.
func TestASearchRanksTheListsThatMayHaveSomething(t *testing.T) {
	const n, dim, nq = 6000, 24, kernelQueries + 3
	for _, metric := range []index.Metric{index.L2, index.IP, index.Cosine} {
		t.Run(metric.String(), func(t *testing.T) {
			mix := newMixture(dim, 60, 0.4)
			rows := mix.rows(n)
			for i := 3 * dim; i < n/2*dim; i++ {
				rows[i] = rows[i%(3*dim)] // so often that middles are there
			}
			v, _ := growingField(t, metric, dim, rows, n)
			x, queries := v.lists.Load(), mix.rows(nq)
			x.borders = nil // they rule out more, whatever the estimates
			copy(queries, rows[:3*dim])
			st := *x.state.Load()
			st.lists = slices.Clone(st.lists)
			st.lists[1], st.lists[5] = codeList{}, codeList{}
			some := 0
			for _, list := range st.lists {
				if len(list.rows) > 0 || list.last != nil {
					some++
				}
			}
			sc := newScratch()
			ranked := func(limits *worst) *listSearch {
				q := &nearestQuery{ctx: t.Context(), k: 5, metric: metric, worst: limits, number: 2}
				s := &listSearch{x: x, st: &st, q: q, base: v.vectors(), sc: sc, n: n}
				for len(sc.coded.queries) < nq {
					sc.coded.queries = append(sc.coded.queries, listQuery{})
				}
				s.queries = sc.coded.queries[:nq]
				for i := range s.queries {
					s.queries[i].vector, s.queries[i].most = queries[i*dim:][:dim], float32(math.Inf(1))
				}
				s.prepare()
				return s
			}
			var all [nq][]uint64
			for i, w := range ranked(nil).queries {
				if all[i] = slices.Clone(w.lists); len(w.lists) != some {
					t.Fatalf("query %d ranks %d lists, %d have rows", i, len(w.lists), some)
				}
			}
			left := 0
			for _, at := range []int{some - 1, some / 2, 3, 0} { // of the lists, in order, one that is ruled out with those behind
				var limits worst
				limits.reset(nq + 2)
				for i := range nq {
					limits.lower(i+2, vec.Unkey(slices.Sorted(slices.Values(all[i]))[at]).Distance)
				}
				for i, w := range ranked(&limits).queries {
					want := slices.DeleteFunc(slices.Clone(all[i]), func(key uint64) bool { return vec.Unkey(key).Distance >= w.most && uint32(key) != w.home })
					if !slices.Equal(w.lists, want) || !slices.Equal(w.order, want) {
						t.Fatalf("within %v query %d ranks %d lists, and is to read %d; %d of %d may have something", w.most, i, len(w.lists), len(w.order), len(want), some)
					}
					left += some - len(want)
				}
			}
			if left == 0 {
				t.Error("no list was ruled out")
			}
		})
	}
}
