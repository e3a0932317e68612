package vec

import (
	"math"
	"os"
	"strings"
	"unsafe"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// EnvSIMD names the environment variable that forces a level in Detect.
const EnvSIMD = "QUERYNODE_SIMD"

// Level is an instruction set that kernels exist for.
type Level uint8

// The levels; on one architecture, each is faster than the one before.
const (
	// Portable is plain Go and runs everywhere.
	Portable Level = iota
	// AVX2 needs AVX2 and FMA.
	AVX2
	// AVX512 needs AVX-512 F, BW and VL (and what AVX2 needs).
	AVX512
	// NEON is what every arm64 has.
	NEON
)

var levelNames = [...]string{"portable", "avx2", "avx512", "neon"}

// String returns the level's name as EnvSIMD takes it.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return "unknown"
}

// ParseLevel returns the level of that name.
func ParseLevel(s string) (Level, error) {
	for i, name := range levelNames {
		if s == name {
			return Level(i), nil
		}
	}
	return 0, errclass.New(errclass.Invalid, "SIMD level %q: want one of %s", s, strings.Join(levelNames[:], ", "))
}

// Kernels computes distances at one level. It is a small immutable value: copy
// it freely. The zero Kernels is the portable one. All methods may be called
// from any number of goroutines.
//
// Sums are made in float32 in an order that differs between levels, so results
// differ in the last bits. Lengths that do not fit, and ids without a row,
// panic in Go before any memory is touched.
type Kernels struct {
	level Level
	amx   bool // with level AVX512 only
}

// New returns the kernels of a level, or an error if this CPU cannot run them.
// AVX512 then means that and nothing more: AMX is used only by what Detect
// returns on its own.
func New(l Level) (Kernels, error) {
	if !runs(l) {
		return Kernels{}, errors.WithHintf(
			errclass.New(errclass.Unimplemented, "SIMD level %s: this CPU offers %s at most", l, Supported()),
			"leave %s unset", EnvSIMD)
	}
	return Kernels{level: l}, nil
}

// Detect returns the fastest kernels this CPU can run, or those that the
// environment variable QUERYNODE_SIMD (avx512, avx2, neon, portable) asks for. A
// name it doesn't know, or a level that the CPU lacks, counts as not set: log
// Level to see what was chosen.
func Detect() Kernels {
	if name := os.Getenv(EnvSIMD); name != "" { // an error costs microseconds
		if want, err := ParseLevel(name); err == nil {
			if k, err := New(want); err == nil {
				return k
			}
		}
	}
	return Kernels{level: Supported(), amx: hasAMX()}
}

// String names the instruction sets that k uses.
func (k Kernels) String() string {
	if k.amx {
		return k.level.String() + "+amx"
	}
	return k.level.String()
}

// Level says which instruction set k uses.
func (k Kernels) Level() Level { return k.level }

// L2 returns the squared Euclidean distance of a and b, which are equally long.
func (k Kernels) L2(a, b []float32) float32 {
	sameLen(a, b)
	if len(a) == 0 {
		return 0
	}
	var out float32
	k.l2Rows(a, b, len(a), 1, &out)
	return out
}

// Dot returns the dot product of a and b, which are equally long.
func (k Kernels) Dot(a, b []float32) float32 {
	sameLen(a, b)
	if len(a) == 0 {
		return 0
	}
	var out float32
	k.dotRows(a, b, len(a), 1, &out)
	return out
}

// L2IDs writes to out[i] the squared Euclidean distance of q and row ids[i] of
// base, whose rows of dim values lie one behind the other. It fetches the rows
// ahead of use, so one call for many ids beats many calls. len(q) is dim, and
// out is at least as long as ids.
func (k Kernels) L2IDs(q, base []float32, dim int, ids []uint32, out []float32) {
	if checkIDs(q, base, dim, ids, out) {
		k.l2IDs(q, base, dim, ids, &out[0])
	}
}

// DotIDs does what L2IDs does, for the dot product.
func (k Kernels) DotIDs(q, base []float32, dim int, ids []uint32, out []float32) {
	if checkIDs(q, base, dim, ids, out) {
		k.dotIDs(q, base, dim, ids, &out[0])
	}
}

// L2Rows writes to out[i] the squared Euclidean distance of q and row i of
// rows, for every i < len(out). len(q) is dim.
func (k Kernels) L2Rows(q, rows []float32, dim int, out []float32) {
	if checkRows(q, rows, dim, out) {
		k.l2Rows(q, rows, dim, len(out), &out[0])
	}
}

// DotRows does what L2Rows does, for the dot product.
func (k Kernels) DotRows(q, rows []float32, dim int, out []float32) {
	if checkRows(q, rows, dim, out) {
		k.dotRows(q, rows, dim, len(out), &out[0])
	}
}

// Norm returns the Euclidean length of a.
func (k Kernels) Norm(a []float32) float32 {
	if sq := k.Dot(a, a); sq > 1e-30 && sq < 1e30 {
		return float32(math.Sqrt(float64(sq)))
	}
	// The square may have left the range of float32 though the length is in it.
	var sq float64
	for _, x := range a {
		sq += float64(x) * float64(x)
	}
	return float32(math.Sqrt(sq))
}

// InvNorm returns 1/Norm(a), and 0 where that has no finite value: a vector
// without a direction then has the cosine 0 with every other.
func (k Kernels) InvNorm(a []float32) float32 {
	inv := 1 / k.Norm(a)
	if inv > 0 && inv <= math.MaxFloat32 {
		return inv
	}
	return 0
}

// Normalize writes a scaled to length 1 to dst, which is as long and may be a
// itself, and returns the inverse norm it scaled by (0: see InvNorm).
func (k Kernels) Normalize(dst, a []float32) float32 {
	sameLen(dst, a)
	inv := k.InvNorm(a)
	for i, x := range a {
		dst[i] = x * inv
	}
	return inv
}

// Prefetch asks the processor for the memory of s, if it is not in its cache,
// without waiting for it. It changes nothing else.
func Prefetch(s []uint32) {
	if len(s) > 0 {
		prefetch(s)
	}
}

// PrefetchBytes is Prefetch of bytes.
func PrefetchBytes(b []byte) {
	if len(b) >= 4 {
		prefetch(unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4))
	}
}

func sameLen(a, b []float32) {
	if len(a) != len(b) {
		panic(errors.AssertionFailedf("vectors of %d and %d values", len(a), len(b)))
	}
}

// checkRows panics on bad arguments and reports whether there is work.
func checkRows(q, rows []float32, dim int, out []float32) bool {
	if dim <= 0 || len(q) != dim || len(out) > len(rows)/dim {
		panic(errors.AssertionFailedf("%d rows of dimension %d: query has %d values, base %d",
			len(out), dim, len(q), len(rows)))
	}
	return len(out) > 0
}

// checkIDs panics on bad arguments and reports whether there is work.
func checkIDs(q, base []float32, dim int, ids []uint32, out []float32) bool {
	if dim <= 0 || len(q) != dim || len(out) < len(ids) {
		panic(errors.AssertionFailedf("%d ids of dimension %d: query has %d values, out %d",
			len(ids), dim, len(q), len(out)))
	}
	rows := len(base) / dim
	for _, id := range ids {
		if int(id) >= rows {
			panic(errors.AssertionFailedf("row %d of a base of %d rows", id, rows))
		}
	}
	return len(ids) > 0
}
