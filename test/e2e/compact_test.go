package e2e

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/querynode/querynode/internal/flush"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestCompactionByHand: four small segments become one, which is served in their
// place, before and after a restart; deleted rows go when they are not retained.
func TestCompactionByHand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := options{flush: flush.Options{CheckpointInterval: 20 * time.Millisecond, Interval: 10 * time.Millisecond}}
	n := start(t, dir, o)
	n.items("items", 1)
	for i := range int64(4) {
		n.insert("items", seq(i*100, i*100+50))
		n.flush("items")
	}
	n.handedOff("items")
	n.upsert("items", seq(0, 10), 1)
	n.delete("items", seq(100, 110))
	n.flush("items")
	n.handedOff("items")
	want := n.all("items", "")
	r, err := n.write.Compact(within(t), &qnpb.CompactRequest{Collection: "items"})
	must(t, err)
	if len(r.GetJobs()) == 0 || r.GetJobs()[0].GetWhy() != "small segments" || r.GetJobs()[0].GetRowsBefore() < 200 {
		t.Fatalf("%v", r)
	}
	segments := func() (sealed int) {
		d, err := n.control.GetDistribution(within(t), &qnpb.GetDistributionRequest{})
		must(t, err)
		return len(d.GetDistribution().GetSegments())
	}
	if c := segments(); c != 1 {
		t.Errorf("%d segments are served, want 1", c)
	}
	same := func() {
		t.Helper()
		got := n.all("items", "")
		if len(got) != len(want) {
			t.Fatalf("%d rows, want %d", len(got), len(want))
		}
		for k, v := range want {
			if got[k] != v {
				t.Fatalf("row %d is %d, want %d", k, got[k], v)
			}
		}
	}
	same()
	st, err := n.write.GetCompaction(within(t), &qnpb.GetCompactionRequest{})
	must(t, err)
	if st.GetJobs() < 1 || st.GetFailed() != 0 || st.GetRunning() != nil {
		t.Errorf("%v", st)
	}
	if r, err := n.write.Compact(within(t), &qnpb.CompactRequest{Collection: "items"}); err != nil || len(r.GetJobs()) != 0 {
		t.Errorf("a second time: %v, %v", r, err)
	}
	n.stop()
	n = start(t, dir, o)
	same()
	_, err = n.write.Compact(within(t), &qnpb.CompactRequest{Collection: "nope"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("%v", err)
	}
}

// TestPropertiesOfTime: a moment beyond the retention is refused, and properties
// that are no numbers are too.
func TestPropertiesOfTime(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.items("items", 1)
	at := n.insert("items", seq(0, 5)).GetTimestamp()
	read := func(ts uint64) error {
		_, err := n.query.Get(within(t), &qnpb.GetRequest{Collection: "items", Ids: intIDs(1), Freshness: &qnpb.Freshness{ReadTimestamp: ts}})
		return err
	}
	must(t, read(at))
	const hours = 3600 * 1000 << 18
	if err := read(at - 2*hours); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a read of two hours ago: %v", err)
	}
	set := func(key, value string) error {
		_, err := n.catalog.AlterCollection(within(t), &qnpb.AlterCollectionRequest{Collection: "items", Properties: map[string]string{key: value}})
		return err
	}
	must(t, set("collection.retention.seconds", "10800"))
	must(t, read(at-2*hours))
	must(t, set("collection.ttl.seconds", "1000000"))
	if c := n.count("items"); c != 5 {
		t.Errorf("%d rows, want 5", c)
	}
	for _, bad := range []string{"-1", "a day", "1.5", "99999999999999"} {
		if err := set("collection.ttl.seconds", bad); status.Code(err) != codes.InvalidArgument {
			t.Errorf("ttl %q: %v", bad, err)
		}
	}
}
