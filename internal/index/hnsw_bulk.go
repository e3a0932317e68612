package index

import "context"

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
	told := &progress{tell: o.Progress, total: rows}
	err = parallel(ctx, o.Workers, rows, buildStep, func() func(from, to int) error {
		s := &Scratch{}
		return func(from, to int) error {
			for row := from; row < to; row++ {
				if err := h.Insert(uint32(row), s); err != nil {
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
	h.Repair(&Scratch{})
	return &built{x: &hnswSearcher{h: h}, why: why, write: h.WriteTo}, nil
}
