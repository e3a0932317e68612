package index

import (
	"context"
	"io"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// Kind is a way to index vectors, by the name that users write and segment
// files keep.
type Kind string

const (
	// KindAuto lets Build choose among the others; see Choose.
	KindAuto Kind = "AUTOINDEX"
	// KindFlat is no index: every row is looked at.
	KindFlat Kind = "FLAT"
	// KindHNSW is a graph walked on codes of the vectors, as KindHNSWSQ is, whose rows are ranked by the vectors
	// themselves; where codes do not pay or cannot tell rows apart, it is walked on the vectors, too.
	KindHNSW Kind = "HNSW"
)

// Spec says what index is to be built.
type Spec struct {
	Kind   Kind
	Metric Metric
	Dim    int // values of a vector
	// M is the number of links of a row in a graph; 0 means the kind's default.
	M int
	// EfConstruction is how many candidates an insert into a graph looks at; 0
	// means the kind's default.
	EfConstruction int
	// Lists is the number of lists of an inverted file; 0 means chosen by rows.
	Lists int
	// RowBytes bounds the memory of an index by row, for KindAuto; 0 means that it is not.
	RowBytes int
	// Recall is the share of the nearest rows that searches will want, for KindAuto; 0 means
	// that they have not said.
	Recall float32
	// Detached says that searches will not have the vectors, which are stored as something else: what is
	// built ranks by its own codes, and a graph or KindFlat is all that there is then.
	Detached bool
}

// BuildOptions say how an index is built.
type BuildOptions struct {
	// Workers is the number of goroutines that build. 0 means 1.
	Workers int
	// Progress is called now and then with the rows done, by one goroutine at a
	// time, but not always the same. nil = not called.
	Progress func(done, total int)
	// Kernels computes distances. nil means vec.Detect().
	Kernels *vec.Kernels
}

// Built is an index fresh from a build.
type Built interface {
	// Info says what was built.
	Info() Info
	// WriteTo writes the image that Open takes. It writes nothing for KindFlat,
	// which has none.
	WriteTo(io.Writer) (int64, error)
	// Searcher searches what was built, until Close.
	Searcher() Searcher
	// Close gives memory back that is not the Go heap's.
	Close() error
}

// Info describes an index.
type Info struct {
	Kind   Kind
	Metric Metric
	Dim    int
	Rows   int
	// Bytes is the memory the index takes while it is open, mapped or not; the
	// vectors it was built from are not part of it.
	Bytes int64
	// Params are the parameters it was built with, as users write them.
	Params map[string]string
	// Why says in a sentence why this kind was built, if it was chosen by Build.
	Why string
}

// Query is what one search asks for.
type Query struct {
	// K is how many rows are wanted.
	K int
	// Effort is how much work a search may do for its recall: candidates kept for
	// a graph, lists read for an inverted file. More finds more. 0 means that the
	// index chooses, for a recall of about 0.95 or better.
	Effort int
	// Recall is the share of the nearest rows that is wanted, up to 1; the index does as much
	// work as found it among its own rows when it was built. 0 leaves that to it, and it
	// says nothing beside Effort. Old images, and graphs, know only their default, and do as
	// many times more as less may be missing.
	Recall float32
	// Allowed are the rows that may be found; rows past its end may not. nil = all.
	Allowed *bitset.Set
	// Bounded says that only rows at a distance below Radius are wanted; there
	// are K of them at most.
	Bounded bool
	Radius  float32
}

// RanksByCodes reports whether an index of the kind has codes that tell nearly all distances, so that searches read few
// of the vectors, here and there.
func RanksByCodes(k Kind, dim int) bool {
	return (k == KindHNSWSQ || k == KindScaNN || k == KindIVFSQ8) && fineBits(dim) > 0
}

// Searcher searches an index that does not change. Its methods may be called by
// any number of goroutines at once, each with its own Scratch. Rows at a
// distance that is not a number are found last or not at all.
type Searcher interface {
	// Search returns the rows nearest to vector, nearest first. Distances are exact,
	// but for those that codes of 12 or 16 bits a value tell (see fine): these are
	// good to three digits, mostly to four or five, by Cosine to four places at least
	// where that is less, and by L2 to two digits of rows that are very near. There are fewer than K only if
	// fewer are allowed (or within the radius), or if s.Stop cut the search. The
	// result belongs to s and is good until its next use.
	Search(vector []float32, q *Query, s *Scratch) []Neighbor
	// SearchBatch does so for each of the vectors, which lie one behind the other,
	// sharing work and memory reads between them. It calls found once for each, in
	// any order, with the number of the vector; rows is good until found returns.
	SearchBatch(vectors []float32, q *Query, s *Scratch, found func(i int, rows []Neighbor))
	// Info describes the index.
	Info() Info
}

// Build builds an index over the rows in base, which lie one behind the other,
// stay the caller's and must not change before Close. An interrupted build
// leaves nothing behind. Errors: Invalid for a Spec that makes no sense or a value
// that is not finite, Unimplemented for an unknown kind, Exhausted if there is no
// memory, or that of ctx.
func Build(ctx context.Context, spec Spec, base []float32, o BuildOptions) (Built, error) {
	if err := spec.validate(); err != nil {
		return nil, err
	}
	if len(base)%spec.Dim != 0 || len(base)/spec.Dim > maxRows {
		return nil, errclass.New(errclass.Invalid, "build index: %d values are no rows of dimension %d", len(base), spec.Dim)
	}
	if o.Kernels == nil {
		k := vec.Detect()
		o.Kernels = &k
	}
	o.Workers = max(o.Workers, 1)
	if spec.Detached {
		return buildDetached(ctx, spec, base, o)
	}
	if spec.Kind == KindAuto {
		return buildChosen(ctx, spec, base, o)
	}
	return buildKind(ctx, spec, base, o, "")
}

func buildKind(ctx context.Context, spec Spec, base []float32, o BuildOptions, why string) (Built, error) {
	switch spec.Kind {
	case KindFlat:
		return buildFlat(spec, base, why)
	case KindHNSW, KindHNSWSQ:
		return buildGraph(ctx, spec, base, o, why)
	case KindIVFFlat, KindIVFSQ8, KindScaNN:
		x, err := buildIVF(ctx, spec, base, o)
		if err != nil {
			return nil, err
		}
		return &built{x: x, why: why, write: x.WriteTo}, nil
	}
	return nil, errclass.New(errclass.Unimplemented, "build index: kind %q is unknown", spec.Kind)
}

// Open returns a Searcher over an image that WriteTo wrote and the rows it was
// built from. It reads the header only: the image is the memory that is searched,
// so it starts at a multiple of 64 (or is copied there by who maps it), and both
// stay as they are while the Searcher is in use. base is nil for an image that was built Detached.
//
// An image that is not what WriteTo wrote can give wrong rows, but it cannot make
// a search panic, read out of bounds or go on for ever. Errors: Corrupt;
// Unimplemented for a kind or version that this build (or machine) does not
// read; Invalid if base has too few values.
func Open(image []byte, base []float32) (Searcher, error) {
	if len(image) >= len(imageMagic) {
		switch string(image[:len(imageMagic)]) {
		case imageMagic:
			h, err := OpenHNSW(image, base)
			if err != nil {
				return nil, err
			}
			return &hnswSearcher{h: h}, nil
		case sqMagic:
			g, err := openSQ(image, base)
			if err != nil {
				return nil, err
			}
			return g, nil
		case ivfMagic:
			x, err := openIVF(image, base)
			if err != nil {
				return nil, err
			}
			return x, nil
		}
	}
	return nil, errclass.New(errclass.Corrupt, "index image: %d bytes that do not start with a magic that this build knows", len(image))
}

// OpenFlat returns a Searcher over rows that have no index.
func OpenFlat(dim int, metric Metric, base []float32) (Searcher, error) {
	f, err := NewFlat(dim, metric, base)
	if err != nil {
		return nil, err
	}
	if err := f.Publish(len(base) / dim); err != nil {
		return nil, err
	}
	return &flatSearcher{f: f}, nil
}

func (s *Spec) validate() error {
	if s.Dim < 1 || s.Dim > maxDim {
		return errclass.New(errclass.Invalid, "index: dimension is %d: want 1 to %d", s.Dim, maxDim)
	}
	if !s.Metric.Valid() {
		return errclass.New(errclass.Invalid, "index: metric %d is unknown", s.Metric)
	}
	return nil
}
