package e2e

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/querynode/querynode/internal/flush"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestTwoNodes: one owns the log, the other follows it; then they change places,
// again and again. Both have every acknowledged row, at STRONG, whoever wrote it.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := options{dispatched: true, flush: flush.Options{SealRows: 60, Interval: 5 * time.Millisecond, CheckpointInterval: 10 * time.Millisecond}}
	a := open(t, dir, o)
	o.beside = a
	b := open(t, dir, o)
	defer b.stop() // before the queue of a
	own := func(n *testNode) {
		t.Helper()
		must2(t)(n.write.AssignChannel(within(t), &qnpb.AssignChannelRequest{Pchannel: "topic-0"}))
	}
	own(a)
	a.items("items", 1)
	nodes := []*testNode{a, b}
	for _, n := range nodes {
		must2(t)(n.control.LoadSegments(within(t), &qnpb.LoadSegmentsRequest{Collection: "items"}))
	}
	want := map[int64]bool{}
	same := func(when string, round int) {
		t.Helper()
		for i, n := range nodes {
			got := n.all("items", "")
			for id := range want {
				if _, ok := got[id]; !ok {
					t.Fatalf("round %d, %s: node %d lacks row %d", round, when, i, id)
				}
			}
			if len(got) != len(want) {
				t.Fatalf("round %d, %s: node %d has %d rows, want %d", round, when, i, len(got), len(want))
			}
		}
	}
	for round := range 8 {
		owner, other := nodes[round%2], nodes[1-round%2]
		if round > 0 {
			own(owner)
		}
		at := int64(round * 100)
		owner.insert("items", seq(at, at+50))
		owner.delete("items", []int64{at, at - 90})
		for _, id := range seq(at, at+50) {
			want[id] = true
		}
		delete(want, at)
		delete(want, at-90)
		same("written", round)
		_, err := other.write.Append(within(t), insertOf("items", 1, rows([]int64{99_999}, 0)...))
		if c := codeOf(err); c != codes.FailedPrecondition && !(round == 0 && c == codes.NotFound) {
			t.Fatalf("round %d: a write to the node that does not own the log: %v", round, err)
		}
		if round%3 == 1 {
			owner.flush("items")
			same("flushed", round)
			must2(t)(other.control.LoadSegments(within(t), &qnpb.LoadSegmentsRequest{Collection: "items"}))
			same("loaded", round)
		}
		if round%3 == 2 {
			must2(t)(owner.write.RemoveChannel(within(t), &qnpb.RemoveChannelRequest{Pchannel: "topic-0"}))
		}
	}
	for _, id := range []int64{1, 101, 701} {
		if got := b.nearest("items", vectorOf(id, 0), 1, ""); !slices.Equal(got, []int64{id}) {
			t.Errorf("nearest to row %d: %v", id, got)
		}
	}
}
