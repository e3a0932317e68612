package e2e

import (
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestWatchersDoNotHoldUpTheStop: streams that only the client would end are
// ended when the server closes, so the stop does not wait out its grace.
func TestWatchersDoNotHoldUpTheStop(t *testing.T) {
	n := start(t, t.TempDir(), options{})
	health, err := healthpb.NewHealthClient(n.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	must(t, err)
	_, err = health.Recv()
	must(t, err)
	dist, err := n.control.WatchDistribution(t.Context(), &qnpb.WatchDistributionRequest{})
	must(t, err)
	_, err = dist.Recv()
	must(t, err)
	n.stop() // fails the test if calls had to be cut
}
