package segments

import (
	"context"
	"io"
	"maps"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/analyze"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/internal/sparse"
)

// BuildOptions say what sealed segment to build.
type BuildOptions struct {
	Dir     string         // folder to create; removed again on an error. Required.
	Meta    Meta           // ids of the segment
	Info    CollectionInfo // schema and indexes
	Start   string         // position right before the first row, opaque
	End     string         // position of the last row, opaque
	Workers int            // goroutines that build an index; 0 = 1
	// Progress is called now and then with the rows that are in the index being
	// built. Nil = not called. It must be safe for concurrent use.
	Progress func(done, total int)
	// Deletes are stored with the segment: keys of its rows, and since when they are
	// hidden. Nil = none.
	Deletes *DeleteBatch
	// Room is the memory that building an index may take. Nil = whatever it takes.
	Room *BuildRoom
	// NoRoom is told of a field whose index has no room to be built, in memory or on the disk, and which is stored without one, to be searched exactly
	// until the segment is rewritten. Nil = Build fails then.
	NoRoom func(field string, err error)
}

// Build writes a sealed segment to o.Dir: the rows that next returns, until it
// returns io.EOF, and the indexes. Rows come in timestamp order and carry their
// timestamps. An interrupted build leaves nothing behind.
func Build(ctx context.Context, o BuildOptions, next func() (*schema.Batch, error)) (m *segfile.Manifest, err error) {
	w, err := segfile.Create(o.Dir, segfile.Meta{
		SegmentID: o.Meta.ID, CollectionID: o.Meta.CollectionID, PartitionID: o.Meta.PartitionID,
		VChannel: o.Meta.VChannel, Schema: *o.Info.Schema, StartPosition: o.Start, EndPosition: o.End,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.CombineErrors(err, w.Abort())
		}
	}()
	slots := nullSlotsOf(o.Info)
	for {
		b, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, errors.Wrap(err, "build segment")
		}
		if b, err = fit(b, o.Info.Schema); err != nil {
			return nil, err
		}
		for i, c := range b.Columns {
			if s := slots[c.FieldID]; s != nil && s.fits(c, b.Rows) {
				b.Columns[i] = s.fill(c, b.Rows)
			}
		}
		if err := w.Append(b); err != nil {
			return nil, err
		}
	}
	for _, f := range o.Info.Schema.Fields {
		if s := slots[f.ID]; !f.Type.IsVector() || s != nil && !s.enough() {
			continue // no field for an index, or searched exactly
		}
		if err := buildIndex(ctx, o, w, f); err != nil {
			return nil, errors.Wrapf(err, "index field %q", f.Name)
		}
	}
	if o.Deletes != nil {
		if err := w.WriteDeletes(o.Deletes.Keys, o.Deletes.Timestamps); err != nil {
			return nil, err
		}
	}
	return w.Finish(ctx)
}

// fit arranges the columns of a batch as the schema says. Those of fields that
// the schema does not have yet go: rows with values of them would have come with
// the newer schema. What the batch lacks is absent, or what a function makes.
func fit(b *schema.Batch, s *schema.Schema) (*schema.Batch, error) {
	out := &schema.Batch{Rows: b.Rows, Timestamps: b.Timestamps}
	for _, f := range s.Columns() {
		c := b.Column(f.ID)
		if _, made := s.FunctionOf(f.ID); made && c == nil {
			continue
		}
		if c == nil {
			var err error
			if c, err = schema.AbsentColumn(f, b.Rows); err != nil {
				return nil, err
			}
		}
		out.Columns = append(out.Columns, c)
	}
	return out, analyze.Fill(out, s)
}

// BuildBytes is about how much memory Build takes for so many rows with so many workers (0 = 1), in bytes, besides the batches it is given: that of the field
// whose index takes most, for they are built one after the other. What is mapped of files does not count.
func BuildBytes(info CollectionInfo, rows, workers int) (bytes int64) {
	for _, n := range buildSizes(info, rows, workers) {
		bytes = max(bytes, n)
	}
	return bytes
}

// BuildDisk is how many bytes Build needs on the disk for so many rows while it lasts, besides the files that it leaves: vectors that are not
// of float32 are widened, those of one field at a time.
func BuildDisk(info CollectionInfo, rows int) (bytes int64) {
	for _, f := range info.Schema.Fields {
		ix := info.index(f.ID)
		if !Indexable(f.Type) || ix.Type == indexFlat {
			continue
		}
		if spec := ix.spec(f); spec.Detached && spec.Graph(rows) {
			bytes = max(bytes, 4*int64(f.Dim)*int64(rows))
		}
	}
	return bytes
}

// spec is what index is built of the rows of a field.
func (x *VectorIndex) spec(f schema.Field) index.Spec {
	return index.Spec{
		Kind: index.Kind(x.Type), Metric: x.Metric, Dim: f.Dim, M: x.M, EfConstruction: x.EfConstruction, Lists: x.Lists,
		Recall: x.Recall, RowBytes: x.RowBytes, Detached: f.Type != schema.FloatVector,
	}
}

func buildIndex(ctx context.Context, o BuildOptions, w *segfile.Writer, f schema.Field) (err error) {
	ix := o.Info.index(f.ID)
	if f.Type == schema.SparseFloatVector {
		return buildSparse(w, f, ix.Metric == index.BM25)
	}
	if !Indexable(f.Type) || ix.Type == indexFlat {
		return nil // searched exactly
	}
	spec := ix.spec(f)
	if spec.Detached && !spec.Graph(w.Rows()) {
		return nil // it would be for nothing that its vectors are widened
	}
	if err := o.Room.lacks(index.BuildBytes(spec, w.Rows(), o.Workers)); err != nil {
		return o.without(f, err)
	}
	base, err := vectorsOf(ctx, w, f)
	if err != nil {
		return o.without(f, err)
	}
	if spec.Detached {
		defer func() { err = errors.CombineErrors(err, w.Narrow(f.ID)) }()
	}
	built, err := index.Build(ctx, spec, base, index.BuildOptions{Workers: o.Workers, Progress: o.Progress})
	if err != nil {
		return err
	}
	defer func() { err = errors.CombineErrors(err, built.Close()) }()
	info := built.Info()
	if info.Kind == index.KindFlat {
		return nil
	}
	params := maps.Clone(info.Params)
	if info.Why != "" {
		params[whyParam] = info.Why
	}
	meta := segfile.IndexMeta{FieldID: f.ID, Type: string(info.Kind), Metric: info.Metric.String(), Params: params}
	return w.WriteIndex(meta, func(out io.Writer) error {
		_, err := built.WriteTo(out)
		return err
	})
}

// without tells NoRoom why a field is stored without an index, and returns the error if it is not.
func (o *BuildOptions) without(f schema.Field, err error) error {
	if o.NoRoom == nil || !errclass.Is(err, errclass.Exhausted) {
		return err
	}
	o.NoRoom(f.Name, err)
	return nil
}

// Indexable reports whether vectors of a dense type can have an index.
func Indexable(t schema.Type) bool {
	switch t {
	case schema.FloatVector, schema.Float16Vector, schema.BFloat16Vector, schema.Int8Vector:
		return true
	}
	return false
}

// vectorsOf returns the vectors of a field as float32.
func vectorsOf(ctx context.Context, w *segfile.Writer, f schema.Field) ([]float32, error) {
	if f.Type == schema.FloatVector {
		return w.Vectors(f.ID)
	}
	return w.Widened(ctx, f.ID, elementOf(f.Type).Widen)
}

// buildSparse writes the lists of a sparse field.
func buildSparse(w *segfile.Writer, f schema.Field, texts bool) error {
	rows, err := w.Sparse(f.ID)
	if err != nil {
		return err
	}
	build, metric := sparse.Build, index.IP
	if texts {
		build, metric = sparse.BuildTexts, index.BM25
	}
	x, err := build(rows.Indptr, rows.Indices, rows.Data)
	if err != nil {
		return err
	}
	return w.WriteIndex(segfile.IndexMeta{FieldID: f.ID, Type: indexSparse, Metric: metric.String()}, func(out io.Writer) error {
		_, err := x.WriteTo(out)
		return err
	})
}

// whyParam is the parameter of an index in a manifest that says why AUTOINDEX
// chose it.
const whyParam = "why"
