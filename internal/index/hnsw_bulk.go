package index

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
)

// buildStep is the number of rows that a builder takes at a time.
const buildStep = 64

// buildHNSW builds a graph on the float32 vectors.
func buildHNSW(ctx context.Context, spec Spec, base []float32, o BuildOptions, why string) (Built, error) {
	rows := len(base) / spec.Dim
	h, err := NewHNSW(HNSWOptions{
		Dim: spec.Dim, Metric: spec.Metric, M: spec.M, EfConstruction: spec.EfConstruction,
		Capacity: rows, Kernels: o.Kernels,
	}, base)
	if err != nil {
		return nil, err
	}
	told, order := &progress{tell: o.Progress, total: rows}, h.byLot()
	err = parallel(ctx, o.Workers, rows, buildStep, func() func(from, to int) error {
		s := &Scratch{}
		return func(from, to int) error {
			for _, row := range order[from:to] {
				if err := h.Insert(row, s); err != nil {
					return err
				}
			}
			told.add(to - from)
			return nil
		}
	})
	if err != nil {
		return nil, err
	}
	if _, err := h.repair(ctx, o.Workers, told); err != nil {
		return nil, err
	}
	h.sortTwins()
	return &built{x: &hnswSearcher{h: h}, why: why, write: h.WriteTo}, nil
}

// byLot is an order to insert all rows in: those of the upper levels first, which lead
// everywhere then, and the others as the lot decides. Rows that come heap by heap are linked within
// theirs before there are others, and hardly anything leads from one heap to the next.
func (h *HNSW) byLot() []uint32 {
	order := make([]uint32, h.capacity)
	for row := range order {
		order[row] = uint32(row)
	}
	r := rand.New(rand.NewPCG(h.seed, uint64(h.capacity)))
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	slices.SortStableFunc(order, func(x, y uint32) int { return cmp.Compare(h.level(y), h.level(x)) })
	return order
}
