package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// faults are what is wrong with the object storage.
type faults struct {
	mu struct {
		sync.Mutex
		away    bool
		damaged map[string]uint64 // folder of a collection's segments: seed of those that are gone
	}
}

func (f *faults) hook(c objstore.Call) objstore.Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.away {
		return objstore.Fault{Err: errors.New("the storage is away")}
	}
	for folder, seed := range f.mu.damaged {
		if rest, ok := strings.CutPrefix(c.Key, folder); ok {
			segment, _, _ := strings.Cut(rest, "/")
			if (uint64(len(segment))+uint64(segment[len(segment)-1])+seed)%2 == 0 {
				return objstore.Fault{Err: errclass.New(errclass.NotFound, "%s is gone", c.Key)}
			}
		}
	}
	return objstore.Fault{}
}

func (f *faults) setAway(away bool) {
	f.mu.Lock()
	f.mu.away = away
	f.mu.Unlock()
}

// damage makes some segments of a collection unreadable; heal undoes it.
func (f *faults) damage(collection int64, seed uint64) (heal func()) {
	folder := fmt.Sprintf("segments/%d/", collection)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.damaged == nil {
		f.mu.damaged = map[string]uint64{}
	}
	f.mu.damaged[folder] = seed
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.mu.damaged, folder)
	}
}

// partial loads the collection while some of its segments are unreadable: reads
// fail, or show some of the rows and say that they do. Then it loads it whole.
func (l *lane) partial(ctx context.Context, o *op) error {
	m := l.model
	if !m.loaded {
		return nil
	}
	d, err := l.rig.catalog.DescribeCollection(ctx, &qnpb.DescribeCollectionRequest{Collection: m.spec.name})
	if err != nil {
		return err
	}
	heal := l.rig.faults.damage(d.GetCollection().GetId(), o.Seed)
	defer heal()
	if _, err := l.rig.control.ReleaseSegments(ctx, &qnpb.ReleaseSegmentsRequest{Collection: m.spec.name}); err != nil {
		return err
	}
	_, failed := l.rig.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: m.spec.name})
	if c := status.Code(failed); c != codes.OK && c != codes.DataLoss && c != codes.NotFound {
		return o.differs("the load of damaged segments ends with %v", failed)
	}
	if m.spec.ttl == 0 { // else which rows are too old is not known
		if err := l.readPart(ctx, o); err != nil {
			return err
		}
	}
	heal()
	// A load that began before may still fail.
	for range 100 {
		if _, err = l.rig.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: m.spec.name}); err == nil {
			return nil
		}
	}
	return err
}

func (l *lane) readPart(ctx context.Context, o *op) error {
	m := l.model
	f, err := m.freshness(ctx, o)
	if err != nil {
		return err
	}
	a := &asking{op: o, m: m, f: f}
	req := &qnpb.QueryRequest{Collection: m.spec.name, OutputFields: []string{"*"}, Freshness: f, AllowPartial: true}
	got, err := l.ask(ctx, o, req)
	if err != nil {
		return err
	}
	want := m.see(a.q)
	lost, share := got.last.GetStats().GetFailures(), got.last.GetStats().GetSearchedShare()
	switch {
	case len(lost) == 0 && share == 1:
		return a.compare(got.rows, want, req.OutputFields)
	case len(lost) == 0 || share < 0 || share >= 1:
		return o.differs("%d failures, and %v of the rows were searched", len(lost), share)
	}
	if err := a.compareSome(got.rows, want, req.OutputFields); err != nil {
		return err
	}
	if err := l.searchPart(ctx, a, want); err != nil {
		return err
	}
	req.AllowPartial = false
	got, err = l.ask(ctx, o, req)
	switch c := status.Code(err); {
	case err == nil: // what was lost has been replaced by a compaction
		return a.compare(got.rows, want, req.OutputFields)
	case c == codes.DataLoss || c == codes.NotFound || c == codes.Unavailable:
		return nil
	}
	return err
}

// searchPart searches what can be read: what is found is right, and the answer says if something is missing.
func (l *lane) searchPart(ctx context.Context, a *asking, rows []*row) error {
	m, r := l.model, rand.New(rand.NewPCG(a.Seed, 0x9a7))
	v := &m.spec.vectors[r.IntN(len(m.spec.vectors))]
	one := *a.op
	one.K = 1 + r.IntN(20)
	a = &asking{op: &one, m: m, f: a.f, r: r}
	queries := a.aim(r, v, 1, rows)
	form := v.query(queries, false)
	req := &qnpb.SearchRequest{Collection: m.spec.name, Field: v.name, TopK: int64(one.K), Freshness: a.f, AllowPartial: true, OutputFields: m.spec.outputs(r),
		Vectors: form.floats, ByteVectors: form.bytes, SparseVectors: form.sparse, Texts: form.texts}
	res, err := l.rig.query.Search(ctx, req)
	if err != nil || v.of != "" { // scores of words depend on all texts that can be read
		return err
	}
	st := res.GetStats()
	if lost := len(st.GetFailures()) > 0; lost != (st.GetSearchedShare() < 1) {
		return a.differs("%d failures, and %v of the rows were searched", len(st.GetFailures()), st.GetSearchedShare())
	}
	f := &found{asking: a, v: v, outputs: req.OutputFields, some: true}
	return f.compare(l, queries, rows, res)
}
