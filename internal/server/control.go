package server

import (
	"context"
	"slices"
	"time"

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
	watched *distributor
}

func newControlService(n *node.Node, metrics func() *qnpb.GetMetricsResponse) *controlService {
	s := &controlService{node: n, metrics: metrics}
	s.watched = newDistributor(n, s.known)
	return s
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
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		version, segments, others := s.node.Version()
		d, err := s.watched.since(out.Context(), version)
		if err != nil {
			return err
		}
		if err := out.Send(&qnpb.WatchDistributionResponse{Distribution: d}); err != nil {
			return err
		}
		pause.Reset(watchPause)
		changed := false
		for wait := (<-chan time.Time)(nil); !changed; {
			select {
			case <-segments:
				segments, wait = nil, pause.C
			case <-others:
				others, wait = nil, pause.C
			case <-wait:
				changed = true
			case <-out.Context().Done():
				return nil
			case <-s.node.Closing():
				return errclass.New(errclass.Closed, "the node is closing")
			}
		}
	}
}

func (s *controlService) distribution(ctx context.Context, since int64) (*qnpb.Distribution, error) {
	version, _, _ := s.node.Version()
	if since == version && since != 0 {
		return &qnpb.Distribution{Node: s.node.Name(), Version: version}, nil
	}
	colls, err := s.known(ctx)
	if err != nil {
		return nil, err
	}
	d, _ := describe(s.node, colls)
	return d, nil
}

// GetMetrics returns the node's load.
func (s *controlService) GetMetrics(context.Context, *qnpb.GetMetricsRequest) (*qnpb.GetMetricsResponse, error) {
	return s.metrics(), nil
}
