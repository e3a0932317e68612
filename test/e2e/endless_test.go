package e2e

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestWatchersDoNotHoldUpTheStop: streams that only the client would end are
// ended when the server closes, so the stop does not wait out its grace.
func TestWatchersDoNotHoldUpTheStop(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	// A client of its own: that of the node is closed before the server is.
	conn, err := grpc.NewClient(n.conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer func() { must(t, conn.Close()) }()
	health, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	must(t, err)
	_, err = health.Recv()
	must(t, err)
	dist, err := qnpb.NewControlServiceClient(conn).WatchDistribution(t.Context(), &qnpb.WatchDistributionRequest{})
	must(t, err)
	_, err = dist.Recv()
	must(t, err)
	n.stop() // fails the test if calls had to be cut
}
