package server

import (
	"context"
	"time"

	"github.com/querynode/querynode/internal/node"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// Compact rewrites the sealed segments of a collection as far as it gets better by that.
func (s *writeService) Compact(ctx context.Context, r *qnpb.CompactRequest) (*qnpb.CompactResponse, error) {
	done, err := s.node.Compact(ctx, r.GetCollection())
	if err != nil {
		return nil, err
	}
	return &qnpb.CompactResponse{Jobs: compactionJobs(done)}, nil
}

// GetCompaction tells what is compacted now and what was.
func (s *writeService) GetCompaction(context.Context, *qnpb.GetCompactionRequest) (*qnpb.GetCompactionResponse, error) {
	st := s.node.Compaction()
	out := &qnpb.GetCompactionResponse{Recent: compactionJobs(st.Recent), Failing: st.Failing, Jobs: st.Stats.Jobs, Failed: st.Stats.Failed,
		SegmentsReplaced: st.Stats.Segments, RowsDropped: st.Stats.RowsIn - st.Stats.RowsOut, DeltasFreed: st.Stats.DeltasFreed}
	if r := st.Running; r != nil {
		out.Running = &qnpb.CompactionRunning{Vchannel: r.VChannel, PartitionId: r.PartitionID, Why: r.Why, SegmentIds: r.Inputs,
			Phase: r.Phase, RunningNanos: int64(time.Since(r.Began))}
	}
	return out, nil
}

func compactionJobs(done []node.CompactionJob) []*qnpb.CompactionJob {
	out := make([]*qnpb.CompactionJob, 0, len(done))
	for _, d := range done {
		out = append(out, &qnpb.CompactionJob{Vchannel: d.VChannel, PartitionId: d.PartitionID, Why: d.Why, SegmentIds: d.Inputs,
			OutputSegmentId: d.Output, RowsBefore: d.RowsIn, RowsAfter: d.RowsOut, BytesBefore: d.BytesIn, BytesAfter: d.BytesOut, TookNanos: int64(d.Took)})
	}
	return out
}
