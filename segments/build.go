package segments

import (
	"context"
	"io"
	"strconv"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
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
}

// flatBelow is the number of rows up to which AUTOINDEX builds no graph: an
// exact scan of so few rows is as fast as the walk.
const flatBelow = 2_000

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
	rows := 0
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
		if err := w.Append(b); err != nil {
			return nil, err
		}
		rows += b.Rows
	}
	for _, f := range o.Info.Schema.Fields {
		if !f.Type.IsVector() {
			continue
		}
		if err := buildIndex(ctx, o, w, f, rows); err != nil {
			return nil, errors.Wrapf(err, "index field %q", f.Name)
		}
	}
	return w.Finish(ctx)
}

func buildIndex(ctx context.Context, o BuildOptions, w *segfile.Writer, f schema.Field, rows int) error {
	ix := o.Info.index(f.ID)
	if ix.Type == indexFlat || (ix.Type != "HNSW" && rows <= flatBelow) {
		return nil
	}
	base, err := w.Vectors(f.ID)
	if err != nil {
		return err
	}
	opts := index.HNSWOptions{Dim: f.Dim, Metric: ix.Metric, M: ix.M, EfConstruction: ix.EfConstruction, Capacity: rows}
	opts.EnsureDefaults()
	g, err := index.NewHNSW(opts, base)
	if err != nil {
		return err
	}
	if err := insertAll(ctx, g, rows, max(o.Workers, 1), o.Progress); err != nil {
		return err
	}
	g.Repair(&index.Scratch{})
	meta := segfile.IndexMeta{FieldID: f.ID, Type: "HNSW", Metric: ix.Metric.String(), Params: map[string]string{
		"M": strconv.Itoa(opts.M), "efConstruction": strconv.Itoa(opts.EfConstruction),
	}}
	return w.WriteIndex(meta, func(out io.Writer) error {
		_, err := g.WriteTo(out)
		return err
	})
}

// insertAll puts rows [0, n) into g with several goroutines, and returns when
// all of them have ended.
func insertAll(ctx context.Context, g *index.HNSW, n, workers int, progress func(done, total int)) error {
	var at, done atomic.Int64
	ends := make(chan error, workers)
	group := lifecycle.NewGroup(ctx, func(_ string, err error) { ends <- err })
	var first error
	started := 0
	for i := range workers {
		err := group.Go("index builder "+strconv.Itoa(i), func(ctx context.Context) error {
			var sc index.Scratch
			for ctx.Err() == nil {
				row := at.Add(1) - 1
				if row >= int64(n) {
					return nil
				}
				if err := g.Insert(uint32(row), &sc); err != nil {
					return err
				}
				if d := done.Add(1); progress != nil && (d%512 == 0 || d == int64(n)) {
					progress(int(d), n)
				}
			}
			return errors.Wrap(ctx.Err(), "build index")
		})
		if err != nil {
			first = err
			break
		}
		started++
	}
	// Each builder checks the context for every row, so this wait is short once it ends.
	for range started {
		if err := <-ends; err != nil && first == nil {
			first = err
			at.Store(int64(n)) // the others need not go on
		}
	}
	return errors.CombineErrors(first, group.Close(context.WithoutCancel(ctx)))
}
