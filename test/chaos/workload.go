//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

const (
	dim     = 8
	groups  = 16
	keys    = 2400
	writers = 3
	readers = 3
)

// vectorOf is the vector of a row: different for each key and version.
func vectorOf(key, version int64) []float32 {
	r := rand.New(rand.NewPCG(uint64(key), uint64(version)))
	v := make([]float32, dim)
	for i := range v {
		v[i] = r.Float32()
	}
	return v
}

func groupOf(key int64) int64          { return key % groups }
func textOf(key, version int64) string { return fmt.Sprintf("%d/%d", key, version) }
func groupFilter(group int64) string   { return fmt.Sprintf("grp == %d", group) }
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

var strong = &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_STRONG}

// schema of the collection that is written to.
func schema() *qnpb.CollectionSchema {
	return &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{
		{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
		{Name: "ver", Type: qnpb.DataType_DATA_TYPE_INT64},
		{Name: "grp", Type: qnpb.DataType_DATA_TYPE_INT32},
		{Name: "txt", Type: qnpb.DataType_DATA_TYPE_VARCHAR, MaxLength: 64},
		{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: dim},
	}}
}

// rowsOf are the fields of rows of the keys at a version.
func rowsOf(ids []int64, version int64) []*qnpb.FieldData {
	var vers, grp []int64
	var txt []string
	var vs []float32
	for _, id := range ids {
		vers, grp, txt = append(vers, version), append(grp, groupOf(id)), append(txt, textOf(id, version))
		vs = append(vs, vectorOf(id, version)...)
	}
	ints := func(name string, v []int64) *qnpb.FieldData {
		return &qnpb.FieldData{Field: name, Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: v}}}
	}
	return []*qnpb.FieldData{ints("id", ids), ints("ver", vers), ints("grp", grp),
		{Field: "txt", Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: txt}}},
		{Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: dim, Values: vs}}},
	}
}

// workload is what the clients do, all the time.
type workload struct {
	report  *Report
	current func() *client // nil while no node has announced itself
	fresh   func() <-chan struct{}
	calm    atomic.Int64 // 0 while a fault is made or repaired; else a number that is never used twice
	run     atomic.Int64 // newest process
	exact   bool         // the index finds what is nearest, not only nearly so

	gate struct { // held for reading by every operation: the rig stops the world with it
		sync.RWMutex
		model      *model
		collection string
	}
}

// start runs the clients until ctx ends; wait waits for them.
func (w *workload) start(ctx context.Context, seed uint64) (wait func()) {
	var wg sync.WaitGroup
	client := func(n uint64, step func(context.Context, *rand.Rand, *client), pause time.Duration) {
		r := rand.New(rand.NewPCG(seed, n))
		wg.Go(func() {
			for ctx.Err() == nil {
				if c := w.current(); c != nil {
					w.gate.RLock()
					step(ctx, r, c)
					w.gate.RUnlock()
				} else {
					select {
					case <-w.fresh():
					case <-ctx.Done():
					}
				}
				rest(ctx, pause/2+rand.N(pause))
			}
		})
	}
	for i := range uint64(writers) {
		client(100+i, w.change, 12*time.Millisecond)
	}
	for i := range uint64(readers) {
		client(200+i, w.read, 12*time.Millisecond)
	}
	client(300, w.flush, 4*time.Second)
	return wg.Wait
}

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// outcome counts how a call ended, and finds fault with an error of a node that
// nothing was done to during the call.
func (w *workload) outcome(kind string, calm int64, err error) {
	code := status.Code(err)
	w.report.operation(kind, code)
	if err == nil || calm == 0 || calm != w.calm.Load() {
		return
	}
	w.report.violate(Violation{Kind: Refused, What: fmt.Sprintf("%s: %v", kind, err)})
}

// change makes one change and tells the model how it ended.
func (w *workload) change(ctx context.Context, r *rand.Rand, c *client) {
	m := w.gate.model
	n := 1 + r.IntN(20)
	if r.IntN(20) == 0 {
		n = 300 // several entries of the log, both channels
	}
	what := [...]string{"insert", "insert", "upsert", "upsert", "upsert", "delete", "delete"}[r.IntN(7)]
	d := m.begin(r, what, n, c.run, what == "insert")
	if len(d.keys) == 0 {
		return
	}
	req := &qnpb.AppendRequest{Collection: w.gate.collection}
	switch what {
	case "insert":
		req.Operation = &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{Rows: int64(len(d.keys)), Fields: rowsOf(d.keys, d.version)}}
	case "upsert":
		req.Operation = &qnpb.AppendRequest_Upsert{Upsert: &qnpb.UpsertOperation{Rows: int64(len(d.keys)), Fields: rowsOf(d.keys, d.version)}}
	default:
		req.Operation = &qnpb.AppendRequest_Delete{Delete: &qnpb.DeleteOperation{Ids: idsOf(d.keys)}}
	}
	calm := w.calm.Load()
	call, cancel := within(ctx, callTimeout)
	resp, err := c.write.Append(call, req)
	cancel()
	why := ""
	if err != nil {
		why = status.Code(err).String()
	} else if int(resp.GetRows()) != len(d.keys) {
		w.report.violate(m.about(Wrong, d.keys[0], "%s of %d rows is acknowledged as one of %d", what, len(d.keys), resp.GetRows()))
	}
	m.end(d, err == nil, int(w.run.Load()), why)
	if ctx.Err() != nil && err != nil {
		return // we have hung up
	}
	w.outcome(what, calm, err)
	if err == nil {
		w.report.rows("acknowledged by "+what, len(d.keys))
		w.getKeys(ctx, c, "get of one's own change", d.keys) // at once: no time to catch up
	}
}

func idsOf(ids []int64) *qnpb.Ids {
	return &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: ids}}}
}

// flush seals what grows; now and then it waits until that is stored.
func (w *workload) flush(ctx context.Context, r *rand.Rand, c *client) {
	calm := w.calm.Load()
	call, cancel := within(ctx, 2*callTimeout)
	defer cancel()
	_, err := c.write.Flush(call, &qnpb.FlushRequest{Collection: w.gate.collection, Wait: r.IntN(2) == 0})
	if ctx.Err() != nil {
		return
	}
	if status.Code(err) == codes.DeadlineExceeded {
		calm = 0 // builds and uploads on a busy machine
	}
	w.outcome("flush", calm, err)
}
