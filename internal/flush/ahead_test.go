package flush

import (
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/segments"
)

// TestWhoOwnsALogTellsTheLedgerWhatIsToBeBuilt, and takes it back once another node owns it: that will build the indexes.
func TestWhoOwnsALogTellsTheLedgerWhatIsToBeBuilt(t *testing.T) {
	var log atomic.Pointer[wal.WAL]
	r := newRoad(t, 1, Options{WAL: func(string) (*wal.WAL, error) {
		if w := log.Load(); w != nil {
			return w, nil
		}
		return nil, errclass.New(errclass.NotFound, "another node has the log")
	}})
	ch := r.channels[0]
	info := ch.Collection().Info()
	info.Version++
	info.Indexes = map[int64]segments.VectorIndex{101: {Type: "HNSW", Metric: index.L2}}
	ch.Collection().Update(info)
	b := &schema.Batch{Rows: 2, Columns: []*schema.Column{{FieldID: 100, Type: schema.Int64, Int: []int64{1, 2}},
		{FieldID: 101, Type: schema.FloatVector, Dim: 2, Float: []float32{1, 2, 3, 4}}}}
	must(t, ch.ApplyRows(segments.Rows{SegmentID: r.ids, PartitionID: 1, Batch: b}, r.logged(ch)))
	ledger, build := ch.Collection().Ledger(), segments.BuildBytes(info, 2, r.f.o.Workers)
	if build == 0 {
		t.Fatal("the index takes nothing")
	}
	look := func(what string, want int64) {
		t.Helper()
		must(t, r.f.due(t.Context(), ch))
		if got := ledger.Ahead(); got != want {
			t.Errorf("%s: %d bytes are ahead, want %d", what, got, want)
		}
	}
	look("another node has the log", 0)
	log.Store(r.w)
	look("this one has it", build)
	log.Store(nil)
	look("another has it again", 0)
}
