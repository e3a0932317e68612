package main

import (
	"context"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/lifecycle"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// segmentsNow lists the collection's segments on the node.
func (q *quickstart) segmentsNow(ctx context.Context) ([]*qnpb.SegmentStatus, error) {
	ctx, cancel := q.c.answer(ctx)
	defer cancel()
	got, err := q.c.control.GetDistribution(ctx, &qnpb.GetDistributionRequest{})
	if err != nil {
		return nil, err
	}
	return ofCollection(got.GetDistribution()), nil
}

func ofCollection(d *qnpb.Distribution) (out []*qnpb.SegmentStatus) {
	for _, s := range d.GetSegments() {
		if s.GetCollection() == wordsCollection {
			out = append(out, s)
		}
	}
	return out
}

// allLoaded says whether every row is in a segment with its index.
func allLoaded(segments []*qnpb.SegmentStatus, rows int64) bool {
	n := int64(0)
	for _, s := range segments {
		if s.GetState() != "loaded" {
			return false
		}
		n += s.GetRows() - s.GetDeletedRows()
	}
	return n >= rows
}

// flush makes sealed segments with an index of what is growing.
func (q *quickstart) flush(ctx context.Context) error {
	now, err := q.segmentsNow(ctx)
	if err != nil || allLoaded(now, q.fig.Rows) {
		return err
	}
	begin := time.Now()
	progress := make(chan flush.Progress, 256)
	stop := q.node.node.OnFlushProgress(func(p flush.Progress) {
		select {
		case progress <- p:
		default: // the next one says more
		}
	})
	defer stop()
	done := make(chan error, 1)
	group := lifecycle.NewGroup(ctx, nil)
	if err := group.Go("flush", func(ctx context.Context) error {
		done <- lifecycle.Call("flush", func() error {
			ctx, cancel := q.c.work(ctx)
			defer cancel()
			if _, err := q.c.write.Flush(ctx, &qnpb.FlushRequest{Collection: wordsCollection, Wait: true}); err != nil {
				return err
			}
			// What a run that was killed had sealed is not in this flush, but under way too.
			_, err := q.waitLoaded(ctx)
			return err
		})
		return nil
	}); err != nil {
		return err
	}
	err = q.showFlush(progress, done)
	q.fig.Seconds.Flush = time.Since(begin).Seconds()
	return err
}

// showFlush shows one bar a phase until the flush has ended.
func (q *quickstart) showFlush(progress <-chan flush.Progress, done <-chan error) error {
	phases := map[string]struct {
		label string
		unit  console.Unit
	}{"index": {"build the HNSW index", console.Rows}, "upload": {"store the segment", console.Bytes}}
	bar, phase := q.out.Bar("seal", 0, console.Steps), "seal"
	for {
		select {
		case p := <-progress:
			if p.Phase != phase {
				bar.Done()
				phase = p.Phase
				bar = q.out.Bar(phases[phase].label, p.Total, phases[phase].unit)
			}
			bar.Set(p.Done)
		case err := <-done: // ends with its context
			if err != nil {
				bar.Fail()
				return err
			}
			bar.Done()
			return nil
		}
	}
}

// load waits until the segments are searched in the place of growing rows.
func (q *quickstart) load(ctx context.Context) error {
	begin := time.Now()
	bar := q.out.Bar("load", 0, console.Steps)
	defer bar.Fail()
	ctx, cancel := q.c.work(ctx)
	defer cancel()
	if _, err := q.c.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: wordsCollection}); err != nil {
		return err
	}
	segments, err := q.waitLoaded(ctx)
	if err != nil {
		return err
	}
	for _, s := range segments {
		q.fig.Segments = append(q.fig.Segments, s.GetId())
	}
	bar.Done()
	q.fig.Seconds.Load = time.Since(begin).Seconds()
	return nil
}

// waitLoaded waits until every row is in a segment with its index.
func (q *quickstart) waitLoaded(ctx context.Context) ([]*qnpb.SegmentStatus, error) {
	stream, err := q.c.control.WatchDistribution(ctx, &qnpb.WatchDistributionRequest{})
	if err != nil {
		return nil, err
	}
	for {
		got, err := stream.Recv()
		if err != nil {
			return nil, errors.Wrap(err, "wait for the segments")
		}
		segments := ofCollection(got.GetDistribution())
		for _, s := range segments {
			if s.GetError() != "" {
				return nil, errors.Newf("segment %d is in quarantine: %s", s.GetId(), s.GetError())
			}
		}
		if allLoaded(segments, q.fig.Rows) {
			return segments, nil
		}
	}
}
