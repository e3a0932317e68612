package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"runtime"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// adminService serves AdminService.
type adminService struct {
	qnpb.UnimplementedAdminServiceServer
	o    *Options
	load func() *qnpb.GetMetricsResponse
}

// ListConsumers shows every consumer of the message queue on this node.
func (s *adminService) ListConsumers(context.Context, *qnpb.ListConsumersRequest) (*qnpb.ListConsumersResponse, error) {
	d := s.o.Node.Dispatcher()
	st := d.Stats()
	out := &qnpb.ListConsumersResponse{Registered: int64(st.Registered), Closed: int64(st.Closed), Leaked: int64(st.Leaked)}
	for _, c := range d.Consumers() {
		p := &qnpb.Consumer{
			Pchannel: c.PChannel, Vchannels: c.VChannels, Kind: string(c.Kind), State: string(c.State), Position: c.Position.String(),
			LagMillis: c.Lag.MS, LagMessages: c.Lag.Messages, Rate: c.Rate, AgeSeconds: c.Age.Seconds(),
		}
		if c.Leaked {
			p.State = "leaked"
		}
		if c.LastErr != nil {
			p.Error = c.LastErr.Error()
		}
		out.Consumers = append(out.Consumers, p)
	}
	return out, nil
}

// DumpState returns the state of every part as JSON.
func (s *adminService) DumpState(ctx context.Context, _ *qnpb.DumpStateRequest) (*qnpb.DumpStateResponse, error) {
	n := s.o.Node
	control := newControlService(n, s.load)
	dist, err := control.distribution(ctx, 0)
	if err != nil {
		return nil, err
	}
	wals, err := (&writeService{node: n}).ListChannels(ctx, nil)
	if err != nil {
		return nil, err
	}
	consumers, err := s.ListConsumers(ctx, nil)
	if err != nil {
		return nil, err
	}
	problem := ""
	if err := n.Problem(); err != nil {
		problem = err.Error()
	}
	raw, err := json.Marshal(map[string]any{
		"node": n.Name(), "history": s.o.Machine.History(), "state": s.o.Machine.State().String(), "problem": problem, "troubles": n.Troubles(),
		"load": s.load(), "distribution": dist, "wals": wals, "consumers": consumers,
		"loading": n.Segments().Loading(), "goroutines": runtime.NumGoroutine(),
	})
	return &qnpb.DumpStateResponse{Json: string(raw)}, errors.Wrap(err, "encode state")
}

// SetLogLevel changes what is logged until the next start.
func (s *adminService) SetLogLevel(_ context.Context, r *qnpb.SetLogLevelRequest) (*qnpb.SetLogLevelResponse, error) {
	if s.o.LogLevel == nil {
		return nil, errclass.New(errclass.Unimplemented, "the log level of this node is fixed")
	}
	l, ok := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}[strings.ToLower(r.GetLevel())]
	if !ok {
		return nil, errclass.New(errclass.Invalid, "log level %q: want debug, info, warn or error", r.GetLevel())
	}
	previous := s.o.LogLevel.Level()
	s.o.LogLevel.Set(l)
	return &qnpb.SetLogLevelResponse{Previous: strings.ToLower(previous.String())}, nil
}

// load is the node's load for GetMetrics.
func (s *Server) load() *qnpb.GetMetricsResponse {
	l := s.o.Node.Segments().Ledger()
	out := &qnpb.GetMetricsResponse{
		Node: s.o.Node.Name(), Version: s.o.Version, State: strings.ToLower(s.o.Machine.State().String()),
		Cpus: int32(runtime.GOMAXPROCS(0)), MemoryLimitBytes: l.Limit(), MemoryBytes: map[string]int64{},
		UptimeSeconds: s.o.Node.Uptime().Seconds(), CpuSeconds: cpuTime().Seconds(),
	}
	for k, n := range l.Used() {
		out.MemoryBytes[string(k)] = n
	}
	if s.o.Pool != nil {
		st := s.o.Pool.Stats()
		out.ReadsRunning, out.ReadsQueued, out.PanicsRecovered = int64(st.Running), int64(st.Queued), int64(st.Panicked)
	}
	return out
}
