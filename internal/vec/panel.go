package vec

import (
	"math"

	"github.com/cockroachdb/errors"
)

//go:generate go -C ../../tools/avo run ./panel -out ../../internal/vec/panel_amd64.s -stubs ../../internal/vec/panel_amd64.go -pkg vec

// A panel is 32 vectors of codes, each 0 to 127, that are multiplied with
// queries of int8 without adding up across a register. It is made of quads: 128
// bytes for each four dimensions, in which byte 4*v+i is dimension i of the four
// of vector v. Vectors whose dimension is not that of PanelQuads end in zeros,
// in a panel as in a query.
//
// Many queries at once are what processors multiply fastest: with AMX, a tile of
// 16 queries and 16 vectors in 16 cycles for up to 64 dimensions. Codes have seven
// bits so that AVX2 and NEON, which add two products in 16 bits and multiply signed
// with signed, can do it too.
const (
	// PanelRows is the number of vectors in a panel.
	PanelRows = 32
	// PanelMax is the largest code.
	PanelMax = 127
	// panelQuad is the size of a panel's quad in bytes.
	panelQuad = 4 * PanelRows
	// panelTile is the number of quads that a tile of AMX holds, and of queries.
	panelTile = 16
	// panelMaxQuads keeps sums of products below 2^31.
	panelMaxQuads = 1 << 15
)

// PanelQuads is the number of quads that vectors of dim values take: what fills
// tiles of the same height with few zeros.
func PanelQuads(dim int) int {
	quads := (dim + 3) / 4
	tiles := (quads + panelTile - 1) / panelTile
	return tiles * panelTileRows(quads)
}

// panelTileRows is the height of the tiles that so many quads are cut into.
func panelTileRows(quads int) int {
	tiles := (quads + panelTile - 1) / panelTile
	return (quads + tiles - 1) / tiles
}

// PutPanel writes the codes of a vector to its place in a panel, which has room
// for all its quads. lane, 0 to 31, is its number there.
func PutPanel(panel []byte, lane int, code []byte) {
	for i, c := range code {
		panel[i/4*panelQuad+4*lane+i%4] = c
	}
}

// Panels writes to out[q*32*n+i] the dot product of query q and vector i of n
// panels. Queries lie one behind the other and have 4*quads values each; quads is
// from PanelQuads. The memory of queries has at least room for a multiple of 16
// of them, and so has out; what is past nq in out is undefined afterwards. Sums are exact.
func (k Kernels) Panels(queries []int8, nq, quads int, panels []byte, n int, out []int32) {
	room := (nq + panelTile - 1) &^ (panelTile - 1)
	switch {
	case quads < 1 || quads > panelMaxQuads || quads%panelTileRows(quads) != 0 || nq < 0 || n < 0,
		len(queries) < room*4*quads, n > len(panels)/(quads*panelQuad), n > 0 && room > len(out)/(n*PanelRows):
		panic(errors.AssertionFailedf("%d queries and %d panels of %d quads: %d values, %d bytes, room for %d results",
			nq, n, quads, len(queries), len(panels), len(out)))
	}
	if nq > 0 && n > 0 {
		k.panels(queries, nq, quads, panels, n, out)
	}
}

// Quantize writes q[i]*step[i], scaled so that the largest of them has the
// absolute value 127, to z as the nearest integers, and returns that absolute
// value before it was scaled. Where there is no largest above 0, or a value is
// no number, z is undefined. step and z are as long as q.
func (k Kernels) Quantize(q, step []float32, z []int8) float32 {
	if len(step) != len(q) || len(z) != len(q) {
		panic(errors.AssertionFailedf("%d values, %d steps, room for %d", len(q), len(step), len(z)))
	}
	if len(q) == 0 {
		return 0
	}
	return k.quantize(q, step, z)
}

// SumsBelow finds the places i of sums where aff of sums[i] plus bias[i] is less
// than limit. It writes them in ascending order to rows, and those distances to
// dist, and returns how many they are. All slices have room for len(sums), a
// multiple of 16. A distance that is not a number is never less.
func (k Kernels) SumsBelow(sums []int32, bias []float32, aff Affine, limit float32, rows []uint32, dist []float32) int {
	n := len(sums)
	if n%16 != 0 || len(bias) < n || len(rows) < n || len(dist) < n {
		panic(errors.AssertionFailedf("%d sums: %d biases, room for %d rows, %d distances", n, len(bias), len(rows), len(dist)))
	}
	if n == 0 {
		return 0
	}
	return k.sumsBelow(sums, bias, aff, limit, rows, dist)
}

// SumsNearest returns the place i of sums where scale*sums[i]+bias[i] is least,
// the first of such, and that value; 0 and +Inf if none is less than +Inf.
// len(sums) is a multiple of 16, and bias is as long at least.
func (k Kernels) SumsNearest(sums []int32, bias []float32, scale float32) (int, float32) {
	if len(sums)%16 != 0 || len(bias) < len(sums) {
		panic(errors.AssertionFailedf("%d sums: %d biases", len(sums), len(bias)))
	}
	if len(sums) == 0 {
		return 0, float32(math.Inf(1))
	}
	return k.sumsNearest(sums, bias, scale)
}

func quantizePortable(q, step []float32, z []int8) float32 {
	most := float32(0)
	for i, x := range q {
		most = max(most, math.Float32frombits(math.Float32bits(x*step[i])&^(1<<31)))
	}
	scale := 127 / most
	const round = 3 << 22 // adding this leaves the nearest integer in the low bits
	for i, x := range q {
		z[i] = int8(math.Float32bits(x*step[i]*scale + round))
	}
	return most
}

func panelsPortable(queries []int8, nq, quads int, panels []byte, n int, out []int32) {
	for q := range nq {
		query := queries[q*4*quads:][:4*quads]
		for p := range n {
			var sums [PanelRows]int32
			panel := panels[p*quads*panelQuad:][:quads*panelQuad]
			for g := range quads {
				a, b, c, d := int32(query[4*g]), int32(query[4*g+1]), int32(query[4*g+2]), int32(query[4*g+3])
				quad := panel[g*panelQuad:][:panelQuad]
				for i := range sums {
					v := quad[4*i:][:4]
					sums[i] += a*int32(v[0]) + b*int32(v[1]) + c*int32(v[2]) + d*int32(v[3])
				}
			}
			copy(out[(q*n+p)*PanelRows:], sums[:])
		}
	}
}

func sumsBelowPortable(sums []int32, bias []float32, aff Affine, limit float32, rows []uint32, dist []float32) int {
	n := 0
	for i, s := range sums {
		if d := float32(s)*aff.Scale + aff.Base + bias[i]; d < limit {
			rows[n], dist[n] = uint32(i), d
			n++
		}
	}
	return n
}

func sumsNearestPortable(sums []int32, bias []float32, scale float32) (int, float32) {
	at, best := 0, float32(math.Inf(1))
	for i, s := range sums {
		if d := float32(s)*scale + bias[i]; d < best {
			at, best = i, d
		}
	}
	return at, best
}
