//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/signal"
	"runtime"
	"syscall"

	"google.golang.org/grpc"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// floorArg makes this program the floor instead.
const floorArg = "floor-server"

// floorServer is the least that a server written with grpc-go can do: it decodes
// the request and answers with ten hits that it does not look for.
type floorServer struct {
	qnpb.UnimplementedQueryServiceServer
	qnpb.UnimplementedControlServiceServer
	answer *qnpb.SearchResponse
}

// Search answers with a constant.
func (f *floorServer) Search(context.Context, *qnpb.SearchRequest) (*qnpb.SearchResponse, error) {
	return f.answer, nil
}

// GetMetrics tells the processor time used so far.
func (f *floorServer) GetMetrics(context.Context, *qnpb.GetMetricsRequest) (*qnpb.GetMetricsResponse, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return nil, err
	}
	return &qnpb.GetMetricsResponse{
		Node: "floor", Version: "grpc-go " + grpc.Version, Cpus: int32(runtime.GOMAXPROCS(0)),
		CpuSeconds: float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9,
	}, nil
}

// floorAnswer has the size of an answer with ten hits.
func floorAnswer() *qnpb.SearchResponse {
	ids, scores := make([]int64, 10), make([]float32, 10)
	for i := range ids {
		ids[i], scores[i] = int64(50_000+i), float32(i)+0.5
	}
	return &qnpb.SearchResponse{
		Counts: []int64{10}, Ids: &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: ids}}}, Scores: scores,
	}
}

func floorMain(stdout, stderr io.Writer) int {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	s := grpc.NewServer() // as it comes: no options
	f := &floorServer{answer: floorAnswer()}
	qnpb.RegisterQueryServiceServer(s, f)
	qnpb.RegisterControlServiceServer(s, f)
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	defer context.AfterFunc(ctx, s.Stop)()
	fmt.Fprintln(stdout, lis.Addr())
	if err := s.Serve(lis); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}
