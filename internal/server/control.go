package server

import (
	"context"
	"slices"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/node"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

// controlService serves ControlService.
type controlService struct {
	qnpb.UnimplementedControlServiceServer
	node    *node.Node
	metrics func() *qnpb.GetMetricsResponse
}

// LoadSegments makes sealed segments searchable.
func (s *controlService) LoadSegments(ctx context.Context, r *qnpb.LoadSegmentsRequest) (*qnpb.LoadSegmentsResponse, error) {
	ids := slices.Clone(r.GetSegmentIds())
	if len(r.GetPaths()) > 0 {
		added, err := s.node.AddSegments(ctx, r.GetCollection(), r.GetPaths())
		if err != nil {
			return nil, err
		}
		ids = append(ids, added...)
	}
	how, err := segments.ParseWarmup(r.GetWarmup())
	if err != nil {
		return nil, err
	}
	loaded, err := s.node.LoadSegmentsWarm(ctx, r.GetCollection(), ids, how)
	if err != nil {
		return nil, err
	}
	out := &qnpb.LoadSegmentsResponse{SegmentIds: loaded}
	coll, err := s.node.Collection(ctx, r.GetCollection())
	if err != nil {
		return nil, err
	}
	if c, ok := s.node.Segments().Collection(coll.ID); ok {
		for _, st := range c.Segments() {
			if slices.Contains(loaded, st.ID) {
				out.Rows += int64(st.Rows)
			}
		}
	}
	return out, nil
}

// ReleaseSegments stops searching segments.
func (s *controlService) ReleaseSegments(ctx context.Context, r *qnpb.ReleaseSegmentsRequest) (*qnpb.ReleaseSegmentsResponse, error) {
	ids, err := s.node.ReleaseSegments(ctx, r.GetCollection(), r.GetSegmentIds())
	return &qnpb.ReleaseSegmentsResponse{SegmentIds: ids}, err
}

// WatchChannels follows vchannels.
func (s *controlService) WatchChannels(ctx context.Context, r *qnpb.WatchChannelsRequest) (*qnpb.WatchChannelsResponse, error) {
	v, err := s.node.WatchChannels(ctx, r.GetCollection(), r.GetVchannels())
	return &qnpb.WatchChannelsResponse{Vchannels: v}, err
}

// UnwatchChannels stops following vchannels.
func (s *controlService) UnwatchChannels(ctx context.Context, r *qnpb.UnwatchChannelsRequest) (*qnpb.UnwatchChannelsResponse, error) {
	v, err := s.node.UnwatchChannels(ctx, r.GetCollection(), r.GetVchannels())
	return &qnpb.UnwatchChannelsResponse{Vchannels: v}, err
}

// GetDistribution tells what this node serves.
func (s *controlService) GetDistribution(ctx context.Context, r *qnpb.GetDistributionRequest) (*qnpb.GetDistributionResponse, error) {
	d, err := s.distribution(ctx, r.GetSinceVersion())
	return &qnpb.GetDistributionResponse{Distribution: d}, err
}

// WatchDistribution streams what this node serves.
func (s *controlService) WatchDistribution(_ *qnpb.WatchDistributionRequest, out qnpb.ControlService_WatchDistributionServer) error {
	for {
		_, segments, others := s.node.Version()
		d, err := s.distribution(out.Context(), 0)
		if err != nil {
			return err
		}
		if err := out.Send(&qnpb.WatchDistributionResponse{Distribution: d}); err != nil {
			return err
		}
		select {
		case <-segments:
		case <-others:
		case <-out.Context().Done():
			return nil
		case <-s.node.Closing():
			return errclass.New(errclass.Closed, "the node is closing")
		}
	}
}

func (s *controlService) distribution(ctx context.Context, since int64) (*qnpb.Distribution, error) {
	version, _, _ := s.node.Version()
	d := &qnpb.Distribution{Node: s.node.Name(), Version: version}
	if since == version && since != 0 {
		return d, nil
	}
	colls, err := s.known(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range colls {
		d.Segments = append(d.Segments, s.segments(c)...)
	}
	for _, ch := range s.node.Channels() {
		st := &qnpb.ChannelStatus{Vchannel: ch.VChannel, Pchannel: ch.PChannel, Collection: ch.Collection, State: ch.State,
			Tsafe: ch.Tsafe, LagMillis: ch.Lag.Milliseconds()}
		if ch.Err != nil {
			st.Error = ch.Err.Error()
		}
		d.Channels = append(d.Channels, st)
	}
	return d, nil
}

func (s *controlService) segments(c *catalog.Collection) (out []*qnpb.SegmentStatus) {
	served, ok := s.node.Segments().Collection(c.ID)
	if !ok {
		return nil
	}
	for _, st := range served.Segments() {
		p := &qnpb.SegmentStatus{
			Id: st.ID, Collection: c.Name, Vchannel: st.VChannel, State: st.State, Rows: int64(st.Rows), DeletedRows: int64(st.DeletedRows),
			MemoryBytes: st.MemoryBytes, MappedBytes: st.MappedBytes, Indexes: map[string]string{}, Error: st.Error,
			MinTimestamp: st.MinTimestamp, MaxTimestamp: st.MaxTimestamp, Partition: partitionName(c, st.PartitionID),
			Tier: string(st.Tier), RemoteBytes: st.RemoteBytes,
		}
		for id, kind := range st.Indexes {
			if f, ok := c.Schema.FieldByID(id); ok {
				p.Indexes[f.Name] = kind
			}
		}
		out = append(out, p)
	}
	for _, b := range s.node.Broken(c.ID) {
		p := &qnpb.SegmentStatus{Id: b.SegmentID, Collection: c.Name, Vchannel: b.VChannel, State: "quarantined", Rows: b.Rows, Error: b.Err.Error(),
			Partition: partitionName(c, b.PartitionID)}
		out = append(out, p)
	}
	return out
}

func partitionName(c *catalog.Collection, id int64) string {
	for _, p := range c.Partitions {
		if p.ID == id {
			return p.Name
		}
	}
	return ""
}

// GetMetrics returns the node's load.
func (s *controlService) GetMetrics(context.Context, *qnpb.GetMetricsRequest) (*qnpb.GetMetricsResponse, error) {
	return s.metrics(), nil
}
