package index

import (
	"strconv"

	"github.com/querynode/querynode/internal/vec"
)

const (
	// KindIVFFlat is an inverted file: rows in lists by their nearest centre, and
	// the vectors of the lists nearest to a query are looked at.
	KindIVFFlat Kind = "IVF_FLAT"
	// KindIVFSQ8 is an inverted file of codes of a byte for each dimension; the
	// best rows by them are looked at.
	KindIVFSQ8 Kind = "IVF_SQ8"
	// KindScaNN is KindIVFSQ8 with codes of two bits for each dimension beside, or four of few,
	// which a search for one vector reads in their place (Guo et al.,
	// "Accelerating Large-Scale Inference with Anisotropic Vector Quantization",
	// arXiv:1908.10396).
	KindScaNN Kind = "SCANN"
)

// Limits of inverted files.
const (
	maxLists = 1 << 16
	// codedDims is the number of dimensions below which rows are so short that
	// they are read themselves, whatever the kind.
	codedDims = 16
	// noRow is what fills the last block of a list.
	noRow = ^uint32(0)
)

// ivf is an inverted file. A list is a run of blocks of 32 rows, the last one
// filled up; position p is lane p%32 of block p/32. It does not change once it
// is built, but for what it remembers of filters.
type ivf struct {
	space
	kind    Kind
	n       int     // rows
	effort  int     // lists that a search reads which does not say how many
	efforts efforts // lists for a wanted recall
	found   float64 // what the largest effort found of the nearest, only after a build; 0: not known
	doubt   float64 // of a search that wants to miss little, see weighDoubt; 0: not known
	turn    *coder  // what codes and centres are of is turned and cut by it; nil: the vectors
	lists   *centres
	first   []uint32            // list l has blocks [first[l], first[l+1])
	ids     []uint32            // row at each position, or noRow
	bytes   *byteCodes          // nil: it has no codes
	pq      *products           // nil: it has no codes, or not KindScaNN
	blocks  []byte              // codes of pq, for fast-scan
	pqBias  []float32           // as the bias of bytes
	fine    fine                // to rank by; none where there are no codes
	marks   *filterCache[marks] // these three change
	listed  rowLists
	halves  halfRows
}

// hasCodes says whether an inverted file has codes of its rows.
func hasCodes(kind Kind, dim int) bool { return kind != KindIVFFlat && dim >= codedDims }

// numBlocks is the number of blocks of all lists.
func (x *ivf) numBlocks() int { return len(x.ids) / vec.PanelRows }

// blockBytes is the size of a block of pq's codes.
func (x *ivf) blockBytes() int { return vec.FastScanQuads(x.pq.parts) * vec.FastScanQuad }

// size is the mean number of positions in a list.
func (x *ivf) size() int { return max(1, len(x.ids)/x.lists.n) }

// Info describes the index.
func (x *ivf) Info() Info {
	bytes := 4*int64(len(x.lists.vectors)+len(x.first)+len(x.ids)+len(x.inv)) + int64(len(x.lists.codes.panels))
	if x.bytes != nil {
		bytes += int64(len(x.bytes.panels)) + 4*int64(len(x.bytes.bias))
	}
	if x.pq != nil {
		bytes += int64(len(x.blocks)) + 4*int64(len(x.pqBias)+len(x.pq.points))
	}
	if s := x.lists.short; s != nil {
		bytes += int64(len(s.blocks)) + 4*int64(len(s.bias)+len(s.exact)+len(s.pq.points))
	}
	bytes += int64(len(x.fine.bytes))
	if x.turn != nil {
		bytes += x.turn.basis.size()
	}
	info := Info{
		Kind: x.kind, Metric: x.metric, Dim: x.dim, Rows: x.n, Bytes: bytes,
		Params: map[string]string{"nlist": strconv.Itoa(x.lists.n), "nprobe": strconv.Itoa(x.effort), "fineBits": strconv.Itoa(x.fine.bits)},
	}
	if x.efforts != (efforts{}) {
		info.Params["recall"] = x.efforts.String()
	}
	if x.doubt != 0 {
		info.Params["doubt"] = strconv.FormatFloat(x.doubt, 'g', 2, 64)
	}
	if x.turn != nil {
		info.Params["codes"] = strconv.Itoa(x.turn.head)
	}
	return info
}
