package vec

//go:generate go -C ../../tools/avo run ./bound -out ../../internal/vec/bound_amd64.s -stubs ../../internal/vec/bound_amd64.go -pkg vec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/cpu"
)

// machine is what one core of this machine can do, measured.
type machine struct {
	width int // of a register, in bytes
	// In whole registers a nanosecond.
	fma, dots, cached, streamed float64
}

const peakChains = 12 // operations in a round of the loops

// rate is how many operations a nanosecond are done by run, which does n rounds.
func rate(n int, run func()) float64 {
	best := 0.0
	for range 20 {
		start := time.Now()
		run()
		best = max(best, float64(n*peakChains)/float64(time.Since(start).Nanoseconds()))
	}
	return best
}

func measureMachine(k Kernels) machine {
	m := machine{width: 64}
	fma, reads := peakFMAAVX512, peakReadsAVX512
	if k.level == AVX2 {
		m.width, fma, reads = 32, peakFMAAVX2, peakReadsAVX2
	}
	const rounds = 1 << 16
	m.fma = rate(rounds, func() { fma(rounds) })
	m.dots = m.fma
	if k.level == AVX512 && cpu.X86.HasAVX512VNNI {
		m.dots = rate(rounds, func() { peakDotsAVX512(rounds) })
	}
	large := make([]byte, 192<<20)
	for i := 0; i < len(large); i += 4096 {
		large[i] = 1
	}
	small := large[:24<<10]
	inSmall, inLarge := len(small)/(peakChains*m.width), len(large)/(peakChains*m.width)
	m.cached = rate(inSmall*512, func() {
		for range 512 {
			reads(&small[0], inSmall)
		}
	})
	m.streamed = rate(inLarge, func() { reads(&large[0], inLarge) })
	return m
}

// bound is the least time of a row, in nanoseconds: for the vector operations it
// takes at fma or dots a nanosecond, and for its bytes out of the nearest cache.
func (m machine) bound(bytes int, ops, perNs float64) float64 {
	return max(ops/perNs, float64(bytes)/float64(m.width)/m.cached)
}

// BenchmarkBound prints what the machine can do at most beside what the kernels
// make of it: rows in the nearest cache, by ids, and as many as fit.
func BenchmarkBound(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, k := range levels(b) {
		m := measureMachine(k)
		name := k.Level().String()
		b.Run(name+"/machine", func(b *testing.B) {
			for b.Loop() {
			}
			w := float64(m.width)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(m.fma*w/4*2, "GFLOP/s")
			b.ReportMetric(m.dots*w*2, "Gop8/s")
			b.ReportMetric(m.cached*w, "cacheGB/s")
			b.ReportMetric(m.streamed*w, "streamGB/s")
		})
		report := func(what string, rows, bytes int, bound float64, run func()) {
			b.Run(name+"/"+what, func(b *testing.B) {
				// The best of many short runs: other work on the machine makes no kernel slower.
				ns := math.Inf(1)
				for b.Loop() {
					start := time.Now()
					for range 8 {
						run()
					}
					ns = min(ns, float64(time.Since(start).Nanoseconds())/float64(8*rows))
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(ns, "ns/row")
				b.ReportMetric(bound, "bound-ns/row")
				b.ReportMetric(float64(bytes)/float64(m.width)/m.streamed, "stream-ns/row")
				b.ReportMetric(ns/bound, "x-bound")
			})
		}
		for _, dim := range []int{128, 768} {
			for _, d := range distances(b, k, dim) {
				rows := max(4, 20<<10/d.bytes)
				q, base := randomRows(r, d, 1), randomRows(r, d, rows)
				ids, out := make([]uint32, rows), make([]float32, rows)
				for i, j := range r.Perm(rows) {
					ids[i] = uint32(j)
				}
				ops, rate := d.vectorOps(m.width), m.fma
				if d.elem == Int8 {
					rate = m.dots
				}
				report(fmt.Sprintf("%s/%s/dim=%d", d.elem, d.op, dim), rows, d.bytes, m.bound(d.bytes, ops, rate),
					func() { d.IDs(q, base, ids, out) })
			}
			parts := dim / 2
			_, packed, lut := randomFastScan(r, parts, 8)
			sums := make([]uint32, 8*FastScanBlock)
			// Two look-ups of a whole register each for every two bytes of codes in one.
			lookups := float64(parts) / float64(m.width)
			report(fmt.Sprintf("fastscan/parts=%d", parts), len(sums), parts/2, m.bound(parts/2, 2*lookups, m.fma),
				func() { k.FastScan(packed, FastScanQuads(parts), lut, sums) })
			for _, c := range codeRows(r, k, dim) {
				report(fmt.Sprintf("%s/dim=%d", c.name, dim), c.rows, c.bytes, m.bound(c.bytes, c.ops/float64(m.width), m.dots), c.run)
			}
			quads := PanelQuads(dim)
			queries, panels := make([]int8, 16*4*quads), make([]byte, quads*panelQuad)
			products := make([]int32, 16*PanelRows)
			report(fmt.Sprintf("panel/queries=16/dim=%d", dim), len(products), 4*quads/16, m.bound(4*quads/16, float64(4*quads)/float64(m.width), m.dots),
				func() { k.Panels(queries, 16, quads, panels, 1, products) })
		}
	}
}

// codeRow is a kernel that a graph is walked or its rows are ranked with.
type codeRow struct {
	name        string
	rows, bytes int
	ops         float64 // bytes that are multiplied for a row
	run         func()
}

// codeRows are those for dim values. Weights of a query come in two halves, and a narrow
// code's byte is two codes; of a fine code's low part one half is multiplied.
func codeRows(r *rand.Rand, k Kernels, dim int) []codeRow {
	stride := SQ8Stride(dim)
	rows := max(4, 20<<10/(2*dim))
	data, ids := make([]byte, rows*(2*dim+SQ8Line)), make([]uint32, rows)
	for i := range data {
		data[i] = byte(r.IntN(256))
	}
	for i, j := range r.Perm(rows) {
		ids[i] = uint32(j)
	}
	weights := func(n int) []float32 {
		w := make([]float32, n)
		for i := range w {
			w[i] = r.Float32() - 0.5
		}
		return w
	}
	out, sums := make([]float32, rows), make([]int32, 2*rows)
	wide, narrow := make([]int8, SQ8QueryLen(stride)), make([]int8, SQMixedQueryLen(stride/2+stride/2%SQ8Line))
	half := len(narrow) / sqMixedParts
	scale, mixed := k.SetSQ8(wide, weights(dim)), k.SetSQMixed(narrow, 0, weights(SQMixedCodes(half, 0)))
	all := []codeRow{
		{"sq8", rows, stride, 2 * float64(stride), func() { k.SQ8IDs(wide, scale, data[:rows*stride], ids, out) }},
		{"sq4", rows, half, 4 * float64(half), func() { k.SQMixedIDs(narrow, mixed, data[:rows*half], ids, out) }},
	}
	for _, bits := range []int{12, 16} {
		high, low := make([]int8, dim), make([]int8, dim)
		for i := range high {
			high[i], low[i] = int8(r.IntN(128)-64), int8(r.IntN(128)-64)
		}
		var w FineWeights
		w.Set(high, low, bits)
		bytes := dim + dim*(bits-8)/8
		all = append(all, codeRow{fmt.Sprintf("fine/bits=%d", bits), rows, bytes, 3 * float64(dim), func() { k.FineIDs(&w, data[:rows*bytes], bytes, ids, sums) }})
	}
	return all
}

// vectorOps is how many vector operations a row takes at least: what its distance
// is made of, without loads and conversions, in registers of width bytes.
func (d Distance) vectorOps(width int) float64 {
	lanes := float64(width) / 4
	perValue := 1.0 // a multiply-add
	switch {
	case d.elem == Int8:
		lanes = float64(width) / 2 // they are widened to 16 bits
	case d.elem == Bit:
		lanes, perValue = float64(width), 3 // exclusive or, count, add
	case d.elem == Uint4:
		lanes, perValue = float64(width)/2, 1 // a byte is two values
	}
	if d.op == OpL2 || d.op == OpJaccard {
		perValue *= 2
	}
	return perValue * float64(d.dim) / lanes
}
