package e2e

import (
	"slices"
	"testing"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestTheWholeRoad: rows go in, are found at once, are flushed, found in the
// sealed segment, and found again after a restart.
func TestTheWholeRoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir, options{})
	n.items("items", 1)
	n.insert("items", seq(0, 3000))
	if got := n.count("items"); got != 3000 {
		t.Fatalf("count after insert: %d", got)
	}
	check := func(n *testNode, when string) {
		t.Helper()
		for _, id := range []int64{0, 7, 1234, 2999} {
			if got := n.nearest("items", vectorOf(id, 0), 3, ""); len(got) != 3 || got[0] != id {
				t.Fatalf("%s: nearest to row %d: %v", when, id, got)
			}
		}
		if got := n.nearest("items", vectorOf(7, 0), 3, "price > 100 and color == 'red'"); slices.ContainsFunc(got, func(id int64) bool { return id%3 != 0 || id*10 <= 100 }) || len(got) != 3 {
			t.Fatalf("%s: filtered: %v", when, got)
		}
	}
	check(n, "growing")
	if ids := n.flush("items"); len(ids) != 1 {
		t.Fatalf("flushed %v, want one segment", ids)
	}
	n.handedOff("items")
	check(n, "sealed")
	if got := n.count("items"); got != 3000 {
		t.Fatalf("count after the hand-off: %d", got)
	}
	n.stop()

	n = start(t, dir, options{})
	check(n, "after a restart")
	if got := n.count("items"); got != 3000 {
		t.Fatalf("count after a restart: %d", got)
	}
}

// TestDeletesAndUpsertsStay: deletes and upserts before, between and after
// flushes and restarts hide what they should and nothing else.
func TestDeletesAndUpsertsStay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir, options{shardTopics: 2})
	n.items("items", 2)
	want := map[int64]int64{}
	put := func(ids []int64, version int64) {
		for _, id := range ids {
			want[id] = id*10 + version
		}
	}
	remove := func(ids []int64) {
		n.delete("items", ids)
		for _, id := range ids {
			delete(want, id)
		}
	}
	check := func(when string) {
		t.Helper()
		got := n.all("items", "")
		for id, price := range want {
			if got[id] != price {
				t.Fatalf("%s: row %d has price %d, want %d", when, id, got[id], price)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d rows, want %d", when, len(got), len(want))
		}
	}
	n.insert("items", seq(0, 500))
	put(seq(0, 500), 0)
	remove(seq(0, 50))
	n.upsert("items", seq(100, 150), 1)
	put(seq(100, 150), 1)
	check("growing")
	n.flush("items")
	remove(seq(140, 160))
	check("while handed off")
	n.handedOff("items")
	check("sealed")
	n.upsert("items", seq(0, 10), 2)
	put(seq(0, 10), 2)
	n.upsert("items", seq(200, 250), 3)
	put(seq(200, 250), 3)
	check("sealed and growing")
	n.stop()
	n = start(t, dir, options{shardTopics: 2})
	check("after a restart")
	n.flush("items")
	n.handedOff("items")
	check("all sealed")
	n.stop()
	n = start(t, dir, options{shardTopics: 2})
	check("after the second restart")
	remove(seq(200, 300))
	check("at the end")
	if _, err := n.write.Append(within(t), &qnpb.AppendRequest{Collection: "items", Operation: &qnpb.AppendRequest_Delete{
		Delete: &qnpb.DeleteOperation{Filter: "color == 'green'"}}}); err != nil {
		t.Fatal(err)
	}
	for id := range want {
		if id%3 == 1 {
			delete(want, id)
		}
	}
	check("after a delete by filter")
}
