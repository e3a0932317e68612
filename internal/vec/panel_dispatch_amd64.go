package vec

import "golang.org/x/sys/cpu"

func (k Kernels) panels(queries []int8, nq, quads int, panels []byte, n int, out []int32) {
	switch {
	case k.amx && nq > 2:
		rows := panelTileRows(quads)
		conf := tileConfig(rows)
		panelsAMX(&queries[0], (nq+panelTile-1)/panelTile, quads, &panels[0], n, &out[0], rows, &conf[0])
	case k.level == AVX512 && cpu.X86.HasAVX512VNNI:
		for q := 0; q < nq; q += panelsMost {
			panelsFew(&queries[q*4*quads], min(nq-q, panelsMost), quads, &panels[0], n, &out[q*n*PanelRows])
		}
	case k.level >= AVX2:
		for q := range nq {
			panels1AVX2(&queries[q*4*quads], quads, &panels[0], n, &out[q*n*PanelRows])
		}
	default:
		panelsPortable(queries, nq, quads, panels, n, out)
	}
}

// panelsMost is how many queries are multiplied in one go at most.
const panelsMost = 8

// panelsFew multiplies panelsMost queries or fewer: what is left of a run is not multiplied one by one, for
// panels then come from the cache as often.
func panelsFew(queries *int8, nq, quads int, panels *byte, n int, out *int32) {
	switch nq {
	case 1:
		panels1AVX512(queries, quads, panels, n, out)
	case 2:
		panels2AVX512(queries, quads, panels, n, out)
	case 3:
		panels3AVX512(queries, quads, panels, n, out)
	case 4:
		panels4AVX512(queries, quads, panels, n, out)
	case 5:
		panels5AVX512(queries, quads, panels, n, out)
	case 6:
		panels6AVX512(queries, quads, panels, n, out)
	case 7:
		panels7AVX512(queries, quads, panels, n, out)
	default:
		panels8AVX512(queries, quads, panels, n, out)
	}
}

func (k Kernels) quantize(q, step []float32, z []int8) float32 {
	if k.level == AVX512 {
		return quantizeAVX512(&q[0], &step[0], len(q), &z[0])
	}
	return quantizePortable(q, step, z)
}

// tileConfig is the memory that LDTILECFG reads: palette 1, then for each of
// eight tiles the bytes of a row at 16 and the number of rows at 48. Tiles 0 to 3
// are sums, 4 and 5 queries, 6 and 7 vectors.
func tileConfig(rows int) (conf [64]byte) {
	conf[0] = 1
	for t := range 8 {
		width, height := 64, panelTile
		switch t {
		case 4, 5:
			width = 4 * rows
		case 6, 7:
			height = rows
		}
		conf[16+2*t], conf[48+t] = byte(width), byte(height)
	}
	return conf
}

func (k Kernels) sumsBelow(sums []int32, bias []float32, aff Affine, limit float32, rows []uint32, dist []float32) int {
	if k.level == AVX512 {
		return sumsBelowAVX512(&sums[0], len(sums), &bias[0], aff.Scale, aff.Base, limit, &rows[0], &dist[0])
	}
	return sumsBelowPortable(sums, bias, aff, limit, rows, dist)
}

func (k Kernels) sumsNearest(sums []int32, bias []float32, scale float32) (int, float32) {
	if k.level != AVX512 {
		return sumsNearestPortable(sums, bias, scale)
	}
	var rows [16]uint32
	var dist [16]float32
	sumsNearestAVX512(&sums[0], len(sums), &bias[0], scale, &rows[0], &dist[0])
	best := 0
	for i := 1; i < 16; i++ {
		if dist[i] < dist[best] || dist[i] == dist[best] && rows[i] < rows[best] {
			best = i
		}
	}
	return int(rows[best]), dist[best]
}
